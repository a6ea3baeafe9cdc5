//! What the steps share: waiting, and the host side's way into a tenant's database.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use insula_e2e::client::User;
use insula_e2e::up::{Tenant, Up};
use reqwest::header::HOST;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use tokio::time::Instant;

/// Longer than anything takes here, a killed worker's lease included.
const PATIENCE: Duration = Duration::from_secs(120);

/// Looks until there is an answer.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        ensure!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The JSON at this path, which must be there.
pub(crate) async fn get(user: &User, path: &str) -> Result<Value> {
    let (status, json) = user.json(Method::GET, path, None).await?;
    ensure!(status == StatusCode::OK, "{path}: {status} {json}");
    Ok(json)
}

/// Asks for an export; its id, which is the job's.
pub(crate) async fn ask_for_export(user: &User) -> Result<String> {
    let (status, asked) = user.json(Method::POST, "/api/exports", Some(&json!({"format": "zip"}))).await?;
    ensure!(status == StatusCode::ACCEPTED, "{status} {asked}");
    Ok(asked["id"].as_str().context("no id")?.to_owned())
}

/// Waits until the application says this of an export.
pub(crate) async fn export_is(user: &User, id: &str, state: &str) -> Result<Value> {
    let mut last = Value::Null;
    let found = until(&format!("an export {state}"), async || {
        last = get(user, &format!("/api/exports/{id}")).await?;
        Ok((last["state"] == state).then(|| last.clone()))
    })
    .await;
    found.with_context(|| format!("it is {last}"))
}

/// Follows a link as somebody does who is not logged in, at this tenant's host.
pub(crate) async fn follow(up: &Up, slug: &str, link: &str) -> Result<Response> {
    let url = format!("{}{link}", up.ready.gateway_url.trim_end_matches('/'));
    Ok(reqwest::Client::new().get(url).header(HOST, format!("{slug}.localhost")).send().await?)
}

/// The host side, in the database that a tenant lives in.
pub(crate) async fn database_of(up: &Up, tenant: &Tenant) -> Result<PgConnection> {
    let cell = tenant.placement["cell"].as_str().context("no cell")?;
    let database = tenant.placement["database"].as_str().context("no database")?;
    let found = up.ready_now()?.cells.into_iter().find(|found| found.name == cell).context("no such cell")?;
    let (server, options) = found.owner_dsn.split_once('?').unwrap_or((&found.owner_dsn, ""));
    let (server, _) = server.rsplit_once('/').context("no database in the address")?;
    Ok(PgConnection::connect(&format!("{server}/{database}?{options}")).await?)
}

/// The number that stands in a tenant's rows.
pub(crate) async fn number_of(up: &Up, tenant: &Tenant) -> Result<i64> {
    let mut catalog = PgConnection::connect(&up.ready.catalog_dsn).await?;
    let no =
        sqlx::query_scalar("SELECT no FROM catalog.tenant WHERE slug = $1").bind(&tenant.slug).fetch_one(&mut catalog).await?;
    catalog.close().await?;
    Ok(no)
}
