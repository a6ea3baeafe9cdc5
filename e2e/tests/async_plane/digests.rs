//! The nightly digest: in the tenant's own zone, and once.

use anyhow::{Context, Result, ensure};
use insula_e2e::client::User;
use insula_e2e::up::Up;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::receiver::{Receiver, of};
use crate::stage::{database_of, get, number_of, until};

/// Fourteen hours from UTC, and no summer time: its night is nobody else's.
const ZONE: &str = "Pacific/Kiritimati";

/// The tenant's digest, as `insula schedule list` has it.
fn listed(up: &Up, slug: &str) -> Result<Option<Value>> {
    let list = up.insula(&["schedule", "list", slug])?;
    Ok(list["items"].as_array().context("no list")?.iter().find(|item| item["name"] == "digest").cloned())
}

/// Waits until it stands there so.
async fn schedule(up: &Up, slug: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let mut last = None;
    let found = until("the digest's schedule", async || {
        last = listed(up, slug)?;
        Ok(last.clone().filter(|item| wanted(item)))
    })
    .await;
    found.with_context(|| format!("it is {last:?}"))
}

pub(crate) async fn a_night_of_the_tenants_own_zone(up: &Up) -> Result<()> {
    let tenant = up.tenant("nightly", "gold", "row")?;
    up.insula(&["tenant", "update", "nightly", "--time-zone", ZONE])?;
    let user = User::log_in(up, &tenant).await?;
    let receiver = Receiver::open().await?;
    let secret = receiver.hook(&user, &["digest.ready"]).await?;
    let mut database = database_of(up, &tenant).await?;
    let no = number_of(up, &tenant).await?;

    // Every tenant has it, half an hour after its own midnight, spread over half an hour.
    let is_here = |item: &Value| item["zone"] == ZONE && item["next_at"].is_string();
    let first = schedule(up, "nightly", is_here).await?;
    assert_eq!(
        (&first["origin"], &first["kind"], &first["last_at"]),
        (&json!("code"), &json!("digest"), &Value::Null),
        "{first}"
    );
    let sql = "SELECT ($1::text::timestamptz AT TIME ZONE $2)::time BETWEEN '00:30' AND '01:00'";
    let next_at = first["next_at"].as_str().unwrap();
    let is_night: bool = sqlx::query_scalar(sql).bind(next_at).bind(ZONE).fetch_one(&mut database).await?;
    ensure!(is_night, "it comes at {next_at}");

    // Paused it has no time; resumed it has the same again.
    let paused = up.insula(&["schedule", "pause", "nightly", "digest"])?;
    assert_eq!((&paused["paused"], &paused["next_at"]), (&json!(true), &Value::Null), "{paused}");
    let resumed = up.insula(&["schedule", "resume", "nightly", "digest"])?;
    assert_eq!(resumed["paused"], json!(false), "{resumed}");
    let again = schedule(up, "nightly", is_here).await?;
    assert_eq!(again["next_at"], first["next_at"]);

    // Yesterday's document, and the night is over.
    let id = user.write("Yesterday's", "x").await?;
    let sql = "UPDATE app.documents SET created_at = created_at - interval '24 hours' WHERE tenant_id = $1";
    sqlx::query(sql).bind(no).execute(&mut database).await?;
    let sql =
        "UPDATE insula.schedule SET next_at = clock_timestamp(), version = version + 1 WHERE tenant_id = $1 AND name = 'digest'";
    assert_eq!(sqlx::query(sql).bind(no).execute(&mut database).await?.rows_affected(), 1);
    let digest = until("the digest", async || Ok(get(&user, "/api/digests").await?["items"].get(0).cloned())).await?;
    assert_eq!((&digest["zone"], &digest["created"], &digest["changed"]), (&json!(ZONE), &json!(1), &json!(0)), "{digest}");
    assert_eq!((&digest["entries"][0]["id"], &digest["entries"][0]["title"]), (&json!(id), &json!("Yesterday's")), "{digest}");
    let told = receiver.events(&secret, 1).await?;
    assert!(of(&told, "digest.ready").contains(digest["day"].as_str().unwrap()), "{told:?}");

    // It comes again, the next night, and the job is over.
    let next = schedule(up, "nightly", |item| item["last_at"].is_string() && is_here(item)).await?;
    assert_eq!(next["next_at"], first["next_at"]);
    let done = until("the digest's job", async || {
        let list = up.insula(&["job", "list", "nightly", "--kind", "digest"])?;
        Ok(list["items"].as_array().filter(|jobs| jobs.iter().all(|job| job["state"] == "done")).cloned())
    })
    .await?;
    assert_eq!(done.len(), 1, "{done:?}");
    assert_eq!(get(&user, "/api/digests").await?["items"].as_array().map(Vec::len), Some(1));
    Ok(database.close().await?)
}
