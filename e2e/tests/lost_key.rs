//! The runbook `docs/runbooks/lost-key-file.md`, carried out: the root key is gone, or somebody has read it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::process::Command;

use anyhow::{Context, Result, ensure};
use insula_e2e::client::User;
use insula_e2e::up::{Ready, Tenant, Up, bin};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use sqlx::{Connection, PgConnection};

/// Starts on a folder that is not to be started on; says what it printed.
fn refused(data: &std::path::Path, code: i32) -> Result<String> {
    let output = Command::new(bin("insula")?)
        .args(["up", "--no-demo", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--data"])
        .arg(data)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(code), "{:?}: {said}", output.status);
    Ok(said)
}

/// Opens a transaction by hand with a grant that the host side signs, and counts the tenant's documents.
async fn documents_by_hand(up: &Up, tenant: &Tenant) -> Result<i64> {
    let cell = up.ready_now()?.cells.into_iter().find(|cell| tenant.placement["cell"] == cell.name).context("its cell")?;
    let mut conn = PgConnection::connect(&cell.app_dsn).await?;
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await?;
    let grant = up.insula(&["db", "grant", &tenant.slug, "--pid", &pid.to_string()])?;
    let mut tx = conn.begin().await?;
    sqlx::query("SELECT insula.enter($1)").bind(grant["grant"].as_str().context("a grant")?).execute(&mut *tx).await?;
    Ok(sqlx::query_scalar("SELECT count(*) FROM app.documents").fetch_one(&mut *tx).await?)
}

async fn nothing_old_is_good(old: &Ready, now: &Ready) -> Result<()> {
    // Ports stay; passwords do not.
    let dsns = |ready: &Ready| -> Vec<String> {
        ready.cells.iter().flat_map(|c| [c.app_dsn.clone(), c.owner_dsn.clone()]).chain([ready.catalog_dsn.clone()]).collect()
    };
    for (old, now) in dsns(old).iter().zip(dsns(now)) {
        let at = |dsn: &str| dsn.rsplit('@').next().map(str::to_owned);
        assert_eq!(at(old), at(&now));
        let refused = PgConnection::connect(old).await.map(drop);
        let state = refused.as_ref().err().and_then(|e| e.as_database_error()?.code().map(|c| c.into_owned()));
        ensure!(state.as_deref() == Some("28P01"), "an old password: {refused:?}");
        PgConnection::connect(&now).await?.close().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_root_key_that_is_lost_is_replaced_and_nothing_else_is() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let up = Up::start(&data)?;
    let mut tenants = Vec::new();
    for (slug, plan, isolation) in [
        ("by-row", "bronze", "row"),
        ("by-schema", "silver", "schema"),
        ("by-database", "gold", "database"),
        ("by-cell", "platinum", "cell"),
    ] {
        let tenant = up.tenant(slug, plan, isolation)?;
        let id = User::log_in(&up, &tenant).await?.write("kept", "what was written before the key was lost").await?;
        tenants.push((tenant, id));
    }
    let asleep = up.tenant("asleep", "silver", "schema")?;
    up.insula(&["tenant", "suspend", "asleep"])?;
    let hook = ["webhook", "create", "http://127.0.0.1:9/hook", "--topic", "tenant.*"];
    let signed_before = up.insula(&hook)?["secret"].clone();
    let before = up.ready_now()?;
    up.stop()?;

    std::fs::remove_file(data.join("root.key"))?;
    let said = refused(&data, 6)?;
    ensure!(said.contains("root.key is missing") && said.contains("--new-root-key"), "{said}");

    let up = Up::start_with(&data, &["--no-demo", "--new-root-key"])?;
    nothing_old_is_good(&before, &up.ready_now()?).await?;
    for (tenant, id) in &tenants {
        let user = User::log_in(&up, tenant).await?;
        let (status, document) = user.json(Method::GET, &format!("/api/documents/{id}"), None).await?;
        ensure!(status == StatusCode::OK && document["title"] == "kept", "{}: {status} {document}", tenant.slug);
    }
    assert_eq!(documents_by_hand(&up, &tenants[0].0).await?, 1);
    ensure!(User::log_in(&up, &asleep).await.is_err_and(|e| e.to_string().contains("403")), "suspended before, suspended now");
    up.insula(&["tenant", "resume", "asleep"])?;
    User::log_in(&up, &asleep).await?.write("awake", "again").await?;
    for (slug, plan, isolation) in
        [("new-row", "bronze", "row"), ("new-schema", "silver", "schema"), ("new-database", "gold", "database")]
    {
        User::log_in(&up, &up.tenant(slug, plan, isolation)?).await?.write("first", "of a new tenant").await?;
    }
    up.insula(&["webhook", "remove", "http://127.0.0.1:9/hook"])?;
    ensure!(up.insula(&hook)?["secret"].as_str().is_some_and(|secret| secret != signed_before), "the secret of the old root key");
    let lint = up.insula(&["lint"])?;
    ensure!(lint["clean"] == true, "{lint}");
    up.stop()?;

    // From then on as ever; and who has read the root key has read its neighbours.
    for key in ["admin.key", "edge.key"] {
        std::fs::remove_file(data.join(key))?;
    }
    let up = Up::start(&data)?;
    for key in old_keys(&up)? {
        up.insula(&["key", "revoke", &key])?;
    }
    let with = |key: &str| reqwest::Client::new().get(format!("{}/v1/tenants", up.ready.control_url)).bearer_auth(key).send();
    assert_eq!(with(&before.admin_key).await?.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(with(&up.ready.admin_key).await?.status(), StatusCode::OK);
    for (tenant, _) in &tenants {
        User::log_in(&up, tenant).await?;
    }
    up.stop()
}

/// The ids of the keys that had their name before another got it.
fn old_keys(up: &Up) -> Result<Vec<String>> {
    let keys = up.insula(&["key", "list"])?;
    let mut keys: Vec<&Value> = keys["items"].as_array().context("keys")?.iter().collect();
    keys.sort_by_key(|key| key["created_at"].as_str().map(str::to_owned));
    let newer = |at: usize| keys[at + 1..].iter().any(|later| later["name"] == keys[at]["name"]);
    let old: Vec<String> =
        (0..keys.len()).filter(|at| newer(*at)).filter_map(|at| keys[at]["id"].as_str().map(str::to_owned)).collect();
    ensure!(old.len() == 2, "{keys:?}");
    Ok(old)
}

#[test]
fn a_catalog_of_another_root_key_is_left_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let up = Up::start(&data)?;
    let dsn = up.ready.catalog_dsn.clone();
    // Somebody begins on the same catalog with an empty folder.
    let other = folder.path().join("other");
    let output = Command::new(bin("insula")?)
        .args(["up", "--no-demo", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--data"])
        .arg(&other)
        .env("INSULA_CATALOG_SERVER", dsn)
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(4) && said.contains("another root key"), "{:?}: {said}", output.status);
    // And has done no harm.
    up.tenant("still-here", "bronze", "row")?;
    up.stop()?;
    let up = Up::start(&data)?;
    ensure!(up.insula(&["tenant", "show", "still-here"])?["state"] == "active");
    up.stop()
}
