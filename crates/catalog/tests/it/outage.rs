//! The catalog's database goes away and comes back.

use std::time::{Duration, Instant};

use insula_catalog::{Catalog, FakeSource, Freshness, Options, fake};
use insula_core::Kind;

use crate::backend::{Backend, Postgres, eventually, floor, no_polling, put, ready, tenant};

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
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
        // Far enough from the soft bound that nobody misses what lies between.
        hard: Duration::from_secs(2),
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
    tokio::time::timeout(Duration::from_secs(60), catalog.ready()).await.unwrap();
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

/// Keeps what gauges were set to last.
#[derive(Default)]
struct Gauges(std::sync::Mutex<std::collections::HashMap<String, std::sync::Arc<Gauge>>>);

#[derive(Default)]
struct Gauge(std::sync::Mutex<f64>);

impl metrics::GaugeFn for Gauge {
    fn increment(&self, value: f64) {
        *self.0.lock().unwrap() += value;
    }

    fn decrement(&self, value: f64) {
        *self.0.lock().unwrap() -= value;
    }

    fn set(&self, value: f64) {
        *self.0.lock().unwrap() = value;
    }
}

impl Gauges {
    fn read(&self, name: &str) -> f64 {
        *self.0.lock().unwrap().get(name).unwrap_or_else(|| panic!("{name} is not reported")).0.lock().unwrap()
    }
}

impl metrics::Recorder for Gauges {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::noop()
    }

    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::from_arc(self.0.lock().unwrap().entry(key.name().to_owned()).or_default().clone())
    }

    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

/// As an operator sees it: how old what is known is, and which bound that has passed.
#[test]
fn age_and_freshness_are_reported() {
    let gauges = Gauges::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The follower runs on this thread, and so reports here and nowhere else.
    metrics::with_local_recorder(&gauges, || {
        runtime.block_on(async {
            let mut source = FakeSource::new();
            source.commit(floor()).await;
            let ms = Duration::from_millis;
            // Judged at each try, and tries at a source that fails grow rare: one of them is between these bounds.
            let options = Options { poll: ms(5), soft: ms(200), hard: ms(2_000), ..Options::default() };
            let _catalog = ready(source.clone(), options).await;
            let read = |name: &str| gauges.read(&format!("insula_catalog_{name}"));
            until("fresh", async || read("freshness") == 0.0 && read("age_seconds") < 0.2).await;
            source.change_silently(|content| content.set_failing(true));
            until("stale", async || read("freshness") == 1.0).await;
            assert!(read("age_seconds") >= 0.2);
            until("expired", async || read("freshness") == 2.0).await;
            assert!(read("age_seconds") >= 2.0);
            source.change_silently(|content| content.set_failing(false));
            until("fresh again", async || read("freshness") == 0.0 && read("age_seconds") < 0.2).await;
        });
    });
}
