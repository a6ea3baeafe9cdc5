//! What the boundary costs an application: whole transactions through `TenantTx`, against plain sqlx that filters by itself.

use std::sync::Arc;

use anyhow::{Result, ensure};
use insula_core::{Isolation, TenantContext};
use insula_data::Data;
use sqlx::{PgPool, Row as _};

use super::ground::{CLIENTS, DOCUMENTS, Ground, rate};
use crate::rounds::interleave;
use crate::row::{Outcome, Row, Target};

/// Row two of the speed table.
pub(crate) const ROW: Row =
    Row { name: "tx", about: "transactions on sqlx, against plain sqlx with WHERE tenant_id and no row security", run };

const ROUNDS: usize = 15;

fn run() -> Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ground = runtime.block_on(Ground::new())?;
    let mut outcomes = Vec::new();
    for (isolation, bound) in [(Isolation::Row, 0.85), (Isolation::Schema, 0.97), (Isolation::Database, 0.97)] {
        let tenant = runtime.block_on(ground.tenant(isolation))?;
        let peer = runtime.block_on(ground.peer(&tenant))?;
        let no = tenant.context.no.get();
        let (data, context) = (ground.data.clone(), tenant.context.clone());
        let ours = Arc::new(move |client, n| ours_five(data.clone(), context.clone(), client, n));
        let pool = peer.clone();
        let theirs = Arc::new(move |client, n| peer_five(pool.clone(), no, client, n));
        let pair = interleave(ROUNDS, || runtime.block_on(rate(CLIENTS, &ours)), || runtime.block_on(rate(CLIENTS, &theirs)))?;
        let what = format!("5-statement transaction, {isolation}");
        outcomes.push(Outcome::ratio(what, pair.ratio(), Target::AtLeast(bound), pair.detail("tx/s")));
        let (data, context) = (ground.data.clone(), tenant.context.clone());
        let ours = Arc::new(move |client, n| ours_list(data.clone(), context.clone(), client, n));
        let theirs = Arc::new(move |client, n| peer_list(peer.clone(), no, client, n));
        let pair = interleave(ROUNDS, || runtime.block_on(rate(CLIENTS, &ours)), || runtime.block_on(rate(CLIENTS, &theirs)))?;
        let what = format!("list of 50 rows, {isolation}");
        outcomes.push(Outcome::ratio(what, pair.ratio(), Target::AtLeast(bound), pair.detail("tx/s")));
    }
    Ok(outcomes)
}

/// A document that only this client touches.
const fn own(client: i64, n: i64) -> i64 {
    1 + (n * CLIENTS + client) % DOCUMENTS
}

async fn ours_five(data: Data, context: TenantContext, client: i64, n: i64) -> Result<()> {
    let (id, new) = (own(client, n), DOCUMENTS + 1 + client);
    let mut tx = data.begin(&context).await?;
    sqlx::query("SELECT title, body FROM documents WHERE id = $1").bind(id).fetch_one(&mut tx).await?;
    sqlx::query("UPDATE documents SET version = version + 1 WHERE id = $1").bind(id).execute(&mut tx).await?;
    let insert = "INSERT INTO documents (id, title, body) VALUES ($1, $2, $3)";
    sqlx::query(insert).bind(new).bind("new").bind("body").execute(&mut tx).await?;
    sqlx::query("SELECT version FROM documents WHERE id = $1").bind(id).fetch_one(&mut tx).await?;
    sqlx::query("DELETE FROM documents WHERE id = $1").bind(new).execute(&mut tx).await?;
    tx.commit().await?;
    Ok(())
}

async fn peer_five(pool: PgPool, no: i64, client: i64, n: i64) -> Result<()> {
    let (id, new) = (own(client, n), DOCUMENTS + 1 + client);
    let mut tx = pool.begin().await?;
    let select = "SELECT title, body FROM documents WHERE tenant_id = $1 AND id = $2";
    sqlx::query(select).bind(no).bind(id).fetch_one(&mut *tx).await?;
    let update = "UPDATE documents SET version = version + 1 WHERE tenant_id = $1 AND id = $2";
    sqlx::query(update).bind(no).bind(id).execute(&mut *tx).await?;
    let insert = "INSERT INTO documents (tenant_id, id, title, body) VALUES ($1, $2, $3, $4)";
    sqlx::query(insert).bind(no).bind(new).bind("new").bind("body").execute(&mut *tx).await?;
    let select = "SELECT version FROM documents WHERE tenant_id = $1 AND id = $2";
    sqlx::query(select).bind(no).bind(id).fetch_one(&mut *tx).await?;
    sqlx::query("DELETE FROM documents WHERE tenant_id = $1 AND id = $2").bind(no).bind(new).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

async fn ours_list(data: Data, context: TenantContext, client: i64, n: i64) -> Result<()> {
    let from = own(client, n).min(DOCUMENTS - 50);
    let mut tx = data.begin(&context).await?;
    let list = "SELECT id, title, version, created_at FROM documents WHERE id > $1 ORDER BY id LIMIT 50";
    let rows = sqlx::query(list).bind(from).fetch_all(&mut tx).await?;
    tx.commit().await?;
    ensure!(rows.len() == 50 && rows[0].try_get::<i64, _>(0)? > from, "a wrong list");
    Ok(())
}

async fn peer_list(pool: PgPool, no: i64, client: i64, n: i64) -> Result<()> {
    let from = own(client, n).min(DOCUMENTS - 50);
    let mut tx = pool.begin().await?;
    let list = "SELECT id, title, version, created_at FROM documents WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT 50";
    let rows = sqlx::query(list).bind(no).bind(from).fetch_all(&mut *tx).await?;
    tx.commit().await?;
    ensure!(rows.len() == 50 && rows[0].try_get::<i64, _>(0)? > from, "a wrong list");
    Ok(())
}
