//! The catalog's database goes away and comes back.

use std::time::{Duration, Instant};

use insula_catalog::{Catalog, FakeSource, Freshness, Options, fake};
use insula_core::Kind;

use crate::backend::{Backend, Postgres, eventually, floor, no_polling, put, ready, tenant};

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn age_counts_from_the_last_contact() {
    let mut source = FakeSource::new();
    source.commit(floor()).await;
    source.commit(vec![put(&tenant("acme", 1))]).await;
    let options = Options {
        poll: Duration::from_millis(5),
        soft: Duration::from_millis(200),
        hard: Duration::from_millis(400),
        ..Options::default()
    };
    let catalog = ready(source.clone(), options).await;
    until("fresh", async || catalog.freshness() == Freshness::Fresh).await;
    source.change_silently(|content| content.set_failing(true));
    until("stale", async || catalog.freshness() == Freshness::Stale).await;
    assert!(catalog.age() >= Duration::from_millis(200));
    until("expired", async || catalog.freshness() == Freshness::Expired).await;
    assert!(catalog.by_slug("acme").is_some(), "what is known is still there");
    let error = catalog.refresh().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    source.change_silently(|content| content.set_failing(false));
    until("fresh again", async || catalog.freshness() == Freshness::Fresh).await;
    catalog.refresh().await.unwrap();
}

#[tokio::test]
async fn a_start_waits_for_the_catalog() {
    let mut source = FakeSource::new();
    source.commit(floor()).await;
    source.change_silently(|content| content.set_failing(true));
    let catalog = Catalog::start(source.clone(), no_polling());
    assert!(catalog.refresh().await.is_err());
    assert!(!catalog.is_ready());
    assert_eq!((catalog.freshness(), catalog.revision()), (Freshness::Expired, -1));
    source.change_silently(|content| content.set_failing(false));
    tokio::time::timeout(Duration::from_secs(20), catalog.ready()).await.unwrap();
    assert_eq!(catalog.freshness(), Freshness::Fresh);
}

#[tokio::test]
async fn who_was_away_too_long_loads_anew() {
    let mut source = FakeSource::new();
    source.commit(floor()).await;
    let (gone, mut stays) = (tenant("gone", 1), tenant("stays", 2));
    stays.domains = vec!["stays.example".into()];
    source.commit(vec![put(&gone), put(&stays)]).await;
    let catalog = ready(source.clone(), no_polling()).await;
    let kept = catalog.by_slug("stays").unwrap().arc();
    source.change_silently(|content| {
        content.remove_tenant(gone.id);
        content.put_tenant(tenant("new", 3));
        content.put_database(fake::database("main", "insula_pool", 9).unwrap());
        content.put_cell(fake::cell("second", "127.0.0.1", 1).unwrap());
        content.trim();
    });
    catalog.refresh().await.unwrap();
    assert!(catalog.by_slug("gone").is_none() && catalog.by_slug("new").is_some());
    assert!(std::sync::Arc::ptr_eq(&kept, &catalog.by_slug("stays").unwrap().arc()), "what did not change is not made anew");
    assert_eq!(catalog.by_host("stays.example").unwrap().id, stays.id);
    assert_eq!(catalog.fence_of(&kept), 9);
    assert_eq!(catalog.cells().len(), 2);
    source.change_silently(|content| {
        content.remove_cell(&"second".parse().unwrap());
        content.trim();
    });
    catalog.refresh().await.unwrap();
    assert_eq!(catalog.cells().len(), 1);
}

/// Ends every connection of the reader to the catalog's database.
async fn cut(backend: &mut Postgres) {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'insula_reader' AND datname = current_database()",
    )
    .execute(&mut backend.admin)
    .await
    .unwrap();
}

#[tokio::test]
async fn pushes_come_again_after_the_connections_were_cut() {
    let mut backend = Postgres::new().await;
    backend.commit(floor()).await;
    let catalog = ready(backend.source(), no_polling()).await;
    for n in 1..=3 {
        cut(&mut backend).await;
        let row = tenant(&format!("tenant-{n}"), n);
        backend.commit(vec![put(&row)]).await;
        // Nothing polls, so it is the listener that has come back.
        eventually(&catalog, "a tenant after the cut", |c| c.by_id(row.id).is_some()).await;
    }
}

#[tokio::test]
async fn polling_finds_what_no_push_told() {
    let mut backend = Postgres::new().await;
    backend.commit(floor()).await;
    let options = Options { poll: Duration::from_millis(20), ..Options::default() };
    let catalog = ready(backend.source(), options).await;
    // A commit whose notification nobody gets.
    sqlx::raw_sql(
        "BEGIN; SET LOCAL session_replication_role = replica; \
         UPDATE catalog.cell SET port = 99; \
         WITH r AS (UPDATE catalog.revision SET rev = rev + 1 RETURNING rev) \
         INSERT INTO catalog.change (rev, kind, id) SELECT rev, 'cell', 'main' FROM r; COMMIT",
    )
    .execute(&mut backend.admin)
    .await
    .unwrap();
    eventually(&catalog, "the port", |c| c.cell(&"main".parse().unwrap()).unwrap().port == Some(99)).await;
}

#[tokio::test]
async fn nobody_follows_when_the_last_handle_is_gone() {
    let backend = Postgres::new().await;
    let catalog = ready(backend.source(), Options::default()).await;
    let connections = async || -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE usename = 'insula_reader' AND datname = current_database()",
        )
        .fetch_one(&mut server_admin(&backend).await)
        .await
        .unwrap()
    };
    assert!(connections().await > 0);
    drop(catalog);
    until("the connections are closed", async || connections().await == 0).await;
}

async fn server_admin(backend: &Postgres) -> sqlx::PgConnection {
    let name = backend.reader_url.rsplit('/').next().and_then(|rest| rest.split('?').next()).unwrap();
    insula_testkit::server().await.admin(name).await
}
