//! From inside, by tasks: each works in its tenant's scope, is moved between threads at every await, starts other tasks and
//! blocking work, turns to another tenant and back. Its context is its own at every step, and so is every row.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use insula_catalog::{Catalog, Options, PgSource};
use insula_core::{TenantContext, scope};
use insula_data::{Data, DataConfig, Error, TenantTx};
use insula_testkit::{Isolation, TestCell};

use crate::length;

const MIGRATION: &str = "CREATE TABLE notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text NOT NULL);
    SELECT insula.tenant_table('notes')";

#[derive(Default)]
struct Counts {
    rounds: AtomicU64,
    hops: AtomicU64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_context_ever_changes() -> Result<()> {
    let cell = TestCell::shared(MIGRATION).await;
    let mut tenants = Vec::new();
    for isolation in [Isolation::Row, Isolation::Schema, Isolation::Database, Isolation::Cell] {
        for n in 1..=2 {
            let slug = format!("hop-{}-{n}", isolation.as_str());
            tenants.push(cell.tenant(&slug, "gold", isolation).await.context);
        }
    }
    let catalog = Catalog::start(PgSource::connect(&cell.catalog_url())?, Options::default());
    catalog.ready().await;
    let data = Data::open(DataConfig::default(), catalog, cell.key_ring());
    let (tenants, counts, end) = (Arc::new(tenants), Arc::new(Counts::default()), Instant::now() + length());
    let mut tasks = tokio::task::JoinSet::new();
    for me in 0..tenants.len() * 2 {
        let (data, tenants, counts) = (data.clone(), Arc::clone(&tenants), Arc::clone(&counts));
        tasks.spawn(async move {
            let mine = tenants[me % tenants.len()].clone();
            let mut round = me;
            while Instant::now() < end {
                round += 1;
                let other = tenants[round % tenants.len()].clone();
                scope::enter(mine.clone(), one_round(&data, &mine, &other, &counts)).await?;
                ensure!(scope::current().is_err(), "a scope outlived its work");
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let (rounds, hops) = (counts.rounds.load(Ordering::Relaxed), counts.hops.load(Ordering::Relaxed));
    println!("{rounds} rounds, {hops} times on another thread than before");
    ensure!(rounds > 100 && hops > 100, "hardly anything happened: {rounds} rounds, {hops} hops");
    Ok(())
}

/// The context of the work that runs now is this one.
fn is_mine(mine: &TenantContext) -> Result<()> {
    let now = scope::current()?;
    ensure!(now == *mine, "the context of {} became that of {}", mine.slug, now.slug);
    Ok(())
}

/// An await that gives the thread away.
async fn hop(mine: &TenantContext, counts: &Counts) -> Result<()> {
    let before = std::thread::current().id();
    tokio::task::yield_now().await;
    counts.hops.fetch_add(u64::from(std::thread::current().id() != before), Ordering::Relaxed);
    is_mine(mine)
}

async fn bodies(tx: &mut TenantTx) -> Result<BTreeSet<String>> {
    Ok(sqlx::query_scalar::<_, String>("SELECT DISTINCT body FROM notes").fetch_all(tx).await?.into_iter().collect())
}

async fn one_round(data: &Data, mine: &TenantContext, other: &TenantContext, counts: &Arc<Counts>) -> Result<()> {
    hop(mine, counts).await?;
    let mut tx = data.begin_current().await?;
    sqlx::query("INSERT INTO notes (body) VALUES ($1)").bind(mine.slug.as_str()).execute(&mut tx).await?;
    hop(mine, counts).await?;
    ensure!(bodies(&mut tx).await?.iter().eq([mine.slug.as_str()]), "{} sees other rows than its own", mine.slug);
    tx.commit().await?;

    // A task and a thread that were started here work for the same tenant.
    let (theirs, context, told) = (data.clone(), mine.clone(), Arc::clone(counts));
    let child = scope::spawn(async move {
        hop(&context, &told).await?;
        let mut tx = theirs.begin_current().await?;
        hop(&context, &told).await?;
        bodies(&mut tx).await
    })?;
    let context = mine.clone();
    let thread = scope::spawn_blocking(move || is_mine(&context))?;
    ensure!(child.await??.iter().eq([mine.slug.as_str()]), "a task of {} sees other rows", mine.slug);
    thread.await??;

    if other.tenant != mine.tenant {
        let refused = data.begin(other).await;
        ensure!(matches!(refused, Err(Error::Mismatch { .. })), "{} was opened in the scope of {}", other.slug, mine.slug);
        scope::enter(other.clone(), async {
            hop(other, counts).await?;
            let mut tx = data.begin_current().await?;
            let seen = bodies(&mut tx).await?;
            ensure!(seen.iter().all(|body| body == other.slug.as_str()), "in the scope of {}: {seen:?}", other.slug);
            is_mine(other)
        })
        .await?;
    }
    counts.rounds.fetch_add(1, Ordering::Relaxed);
    hop(mine, counts).await
}
