//! What operators see of a tenant's jobs, and what they do to them: the commands, and the REST API behind them.

use anyhow::{Context, Result, ensure};
use insula_e2e::client::User;
use insula_e2e::up::{Tenant, Up};
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::stage::{ask_for_export, database_of, export_is, until};

const SLUG: &str = "operated";

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

fn ids(list: &Value) -> Vec<String> {
    items(list).iter().filter_map(|job| Some(job["id"].as_str()?.to_owned())).collect()
}

/// A job as the REST API shows it.
async fn shown(up: &Up, id: &str) -> Result<Value> {
    let url = format!("{}/v1/tenants/{SLUG}/jobs/{id}", up.ready.control_url);
    let answer = reqwest::Client::new().get(url).bearer_auth(&up.ready.admin_key).send().await?;
    Ok(answer.error_for_status()?.json().await?)
}

async fn job_is(up: &Up, id: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = Value::Null;
    let found = until("a job", async || {
        last = shown(up, id).await?;
        Ok(wanted(&last).then(|| last.clone()))
    })
    .await;
    found.with_context(|| format!("it is {last}"))
}

/// Waits for so many dead letters.
async fn dead(up: &Up, wanted: impl Fn(&[Value]) -> bool) -> Result<Vec<Value>> {
    until("dead letters", async || {
        let list = items(&up.insula(&["job", "dead", "list", SLUG])?);
        Ok(wanted(&list).then_some(list))
    })
    .await
}

pub(crate) async fn jobs_are_seen_and_steered(up: &Up) -> Result<()> {
    // One export at a time, by its plan.
    let tenant = up.tenant(SLUG, "bronze", "database")?;
    up.insula(&["tenant", "update", SLUG, "--limit", "statement_timeout_ms=60000"])?;
    let user = User::log_in(up, &tenant).await?;
    for n in 1..=3 {
        user.write(&format!("Letter {n}"), "x").await?;
    }
    let mut database = database_of(up, &tenant).await?;

    // The first comes as far as the index, which lists tags: all documents are written by then. The others wait for it.
    let mut held = database.begin().await?;
    sqlx::query("LOCK TABLE app.tags IN ACCESS EXCLUSIVE MODE").execute(&mut *held).await?;
    let first = ask_for_export(&user).await?;
    let running = job_is(up, &first, |job| job["state"] == "running" && job["progress"]["documents"] == 3).await?;
    assert_eq!((&running["kind"], &running["progress"]["of"]), (&json!("export"), &json!(3)), "{running}");
    ensure!(running["worker"].is_number() && running["started_at"].is_string(), "{running}");
    // The application shows its user the same.
    let seen = export_is(&user, &first, "running").await?;
    assert_eq!(seen["progress"]["documents"], 3, "{seen}");
    workers_are_listed(up, &tenant).await?;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(ask_for_export(&user).await?);
    }
    let [unwanted, mended, broken] = &waiting[..] else { unreachable!("three") };

    let mut listed = ids(&up.insula(&["job", "list", SLUG, "--kind", "export", "--state", "waiting"])?);
    listed.reverse();
    assert_eq!(listed, waiting, "newest first");
    let job = up.insula(&["job", "show", SLUG, unwanted, "--body"])?;
    assert_eq!((&job["state"], &job["body"]), (&json!("waiting"), &json!({"format": "zip"})), "{job}");
    assert_eq!(up.insula(&["job", "cancel", SLUG, unwanted])?["state"], "cancelled");
    export_is(&user, unwanted, "cancelled").await?;

    // As a version of the application would leave them that this one does not understand.
    let sql = "UPDATE insula.job SET body = '{\"format\": \"tar\"}' WHERE id = ANY ($1::text[]::uuid[])";
    sqlx::query(sql).bind(vec![mended.clone(), broken.clone()]).execute(&mut *held).await?;
    held.commit().await?;
    export_is(&user, &first, "done").await?;
    let letters = dead(up, |letters| letters.len() == 2).await?;
    for letter in &letters {
        ensure!(letter["error"].as_str().is_some_and(|error| error.contains("does not decode as export")), "{letter}");
    }
    export_is(&user, broken, "failed").await?;

    // One is mended and tried again; all that are left are, and this one dies again; then it is forgotten.
    let sql = "UPDATE insula.job_end SET body = '{\"format\": \"zip\"}' WHERE id = $1::text::uuid";
    assert_eq!(sqlx::query(sql).bind(mended).execute(&mut database).await?.rows_affected(), 1);
    assert_eq!(up.insula(&["job", "retry", SLUG, mended])?["id"], mended.as_str());
    export_is(&user, mended, "done").await?;
    let before = shown(up, broken).await?["attempt"].as_i64();
    assert_eq!(up.insula(&["job", "dead", "replay", SLUG])?["jobs"], 1);
    dead(up, |letters| letters.iter().any(|letter| letter["id"] == broken.as_str() && letter["attempt"].as_i64() > before))
        .await?;
    assert_eq!(up.insula(&["job", "dead", "purge", SLUG, "--all"])?["jobs"], 1);
    assert_eq!(dead(up, |_| true).await?, Vec::<Value>::new());

    // What waits for its time goes at once: the file's removal, a day early.
    let removals = up.insula(&["job", "list", SLUG, "--kind", "export_removal", "--state", "later"])?;
    ensure!(ids(&removals).len() >= 2, "one for each file, and more: {removals}");
    for removal in ids(&removals) {
        up.insula(&["job", "retry", SLUG, &removal])?;
    }
    export_is(&user, &first, "expired").await?;
    export_is(&user, mended, "expired").await?;
    Ok(database.close().await?)
}

/// `insula worker list` has the workers that `up` keeps, alive; one is at the export.
async fn workers_are_listed(up: &Up, tenant: &Tenant) -> Result<()> {
    let in_pool = |worker: &Value, cell: &str| worker["cell"] == cell && worker["database"] == "insula_pool";
    // Its database is of one tenant: visited, and shown while it is.
    let at_it = |worker: &Value| worker["database"] == tenant.placement["database"] && worker["cell"] == tenant.placement["cell"];
    let mut last = Value::Null;
    // Watched for a moment: who is late with a sign of life shows in another.
    let found = until("workers that are alive", async || {
        last = up.insula(&["worker", "list"])?;
        let alive: Vec<Value> = items(&last).into_iter().filter(|worker| worker["alive"] == true).collect();
        let pool = |cell: &str| alive.iter().find(|worker| in_pool(worker, cell)).cloned();
        let visitor = alive.iter().find(|worker| at_it(worker)).cloned();
        let all = pool("main").zip(pool("second")).zip(visitor);
        Ok(all.filter(|_| last["away"] == json!([])))
    })
    .await;
    let ((main, second), visitor) = found.with_context(|| format!("listed: {last}"))?;
    for (cell, pool) in [("main", main), ("second", second)] {
        ensure!(pool["name"].as_str().is_some_and(|name| name.starts_with(&format!("{cell}/"))), "{pool}");
    }
    assert_eq!(visitor["kinds"], json!({"export": 1}), "{visitor}");
    Ok(())
}
