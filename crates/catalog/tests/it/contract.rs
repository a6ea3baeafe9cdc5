//! What every [`Source`] does. One suite, run against each.

use std::collections::BTreeMap;
use std::time::Duration;

use insula_catalog::row::{Change, Page};
use insula_catalog::{CellState, Error, FakeSource, Source, fake};
use insula_core::{FeatureValue, Isolation, TenantId, TenantState};
use tokio::sync::mpsc;

use crate::backend::{Backend, Postgres, Step, floor, put, tenant};

macro_rules! contract {
    ($($test:ident),+ $(,)?) => {
        mod fake_source { $(#[tokio::test] async fn $test() { super::$test(super::FakeSource::new()).await })+ }
        mod pg_source { $(#[tokio::test] async fn $test() { super::$test(super::Postgres::new().await).await })+ }
    };
}

contract!(
    a_load_holds_everything_at_one_revision,
    changes_are_looked_up_once_each,
    tenants_come_and_go,
    a_trimmed_feed_says_so,
    every_commit_wakes,
    a_load_stops_when_nobody_takes_it,
);

struct All {
    rev: i64,
    pages: Vec<Page>,
}

async fn load(source: &impl Source) -> All {
    let (sender, mut receiver) = mpsc::channel(2);
    let mut pages = Vec::new();
    let take = async {
        while let Some(page) = receiver.recv().await {
            pages.push(page);
        }
    };
    let (rev, ()) = tokio::join!(source.load(sender), take);
    All { rev: rev.unwrap(), pages }
}

impl All {
    fn tenants(&self) -> BTreeMap<TenantId, insula_catalog::row::TenantRow> {
        let rows = self.pages.iter().filter_map(|page| if let Page::Tenants(rows) = page { Some(rows) } else { None });
        rows.flatten().map(|row| (row.id, row.clone())).collect()
    }
}

async fn a_load_holds_everything_at_one_revision(mut backend: impl Backend) {
    backend.commit(floor()).await;
    let mut rows = Vec::new();
    for n in 1..=250 {
        let mut row = tenant(&format!("tenant-{n}"), n);
        row.domains = if n % 50 == 0 { vec![format!("t{n}.example.com")] } else { Vec::new() };
        row.state = if n % 3 == 0 { TenantState::Suspended } else { TenantState::Active };
        rows.push(row);
    }
    let mut odd = tenant("odd", 1000);
    odd.name = "Ünïcode & 'quotes' \u{1F980}".into();
    odd.features =
        [("search".into(), FeatureValue::Switch(false).into()), ("exports".into(), FeatureValue::Number(3).into())].into();
    odd.limits = serde_json::from_str(r#"{"max_users": 9}"#).unwrap();
    odd.settings =
        serde_json::from_str(r##"{"brand_name":"Odd","color":"#ff0000","locale":"de","time_zone":"Europe/Vienna"}"##).unwrap();
    odd.placement.schema = "s0123456789abcdef".into();
    odd.placement.isolation = Isolation::Schema;
    odd.placement.epoch = 7;
    rows.push(odd);
    backend.commit(rows.iter().map(put).collect()).await;

    let source = backend.source();
    let all = load(&source).await;
    let wanted: BTreeMap<_, _> = rows.into_iter().map(|row| (row.id, row)).collect();
    assert_eq!(all.tenants(), wanted);
    assert!(all.pages.iter().any(|p| matches!(p, Page::Plans(plans) if plans.contains(&fake::plan("basic").unwrap()))));
    assert!(all.pages.iter().any(|p| *p == Page::Cells(vec![fake::cell("main", "127.0.0.1", 5432).unwrap()])));
    assert!(all.pages.iter().any(|p| *p == Page::Databases(vec![fake::database("main", "insula_pool", 1).unwrap()])));
    // Tenants come after what they need.
    let first = all.pages.iter().position(|p| matches!(p, Page::Tenants(_))).unwrap();
    assert!(all.pages[first..].iter().all(|p| matches!(p, Page::Tenants(_))));
    // Nothing has happened since.
    let changes = source.changes(all.rev).await.unwrap();
    assert_eq!((changes.revision, changes.changes), (all.rev, vec![]));
}

async fn changes_are_looked_up_once_each(mut backend: impl Backend) {
    backend.commit(floor()).await;
    let source = backend.source();
    let before = load(&source).await.rev;

    let mut row = tenant("acme", 1);
    backend.commit(vec![put(&row)]).await;
    row.placement.epoch = 2;
    row.domains = vec!["docs.acme.example".into()];
    row.name = "Acme".into();
    backend.commit(vec![put(&row), Step::PutDatabase(fake::database("main", "insula_pool", 5).unwrap())]).await;
    let mut plan = fake::plan("basic").unwrap();
    plan.limits.max_users = 77;
    let mut cell = fake::cell("main", "127.0.0.1", 5432).unwrap();
    cell.state = CellState::Draining;
    backend.commit(vec![Step::PutPlan(plan.clone()), Step::PutCell(cell.clone())]).await;

    let changes = source.changes(before).await.unwrap();
    assert!(changes.revision > before);
    assert_eq!(changes.changes.len(), 4, "{changes:?}");
    for wanted in [
        Change::Tenant(row.id, Some(Box::new(row.clone()))),
        Change::Database(
            fake::database("main", "insula_pool", 5).unwrap().id,
            Some(fake::database("main", "insula_pool", 5).unwrap()),
        ),
        Change::Plan(plan.name.clone(), Some(plan)),
        Change::Cell(cell.name.clone(), Some(cell)),
    ] {
        assert!(changes.changes.contains(&wanted), "{wanted:?} is not in {changes:?}");
    }
    // And the rest from the middle.
    assert_eq!(source.changes(changes.revision).await.unwrap().changes, vec![]);
}

async fn tenants_come_and_go(mut backend: impl Backend) {
    backend.commit(floor()).await;
    let source = backend.source();
    let row = tenant("acme", 1);
    backend.commit(vec![put(&row)]).await;
    let there = load(&source).await;
    assert_eq!(there.tenants().len(), 1);

    backend.commit(vec![Step::RemoveTenant(row.id)]).await;
    let changes = source.changes(there.rev).await.unwrap();
    assert_eq!(changes.changes, vec![Change::Tenant(row.id, None)]);
    assert_eq!(load(&source).await.tenants().len(), 0);

    // Its slug is free again, and its pool may leave once nobody lives there.
    let heir = tenant("acme", 2);
    let spare = fake::database("main", "w00", 0).unwrap();
    backend.commit(vec![put(&heir), Step::PutDatabase(spare.clone())]).await;
    let seen = source.changes(changes.revision).await.unwrap();
    backend.commit(vec![Step::RemoveDatabase(spare.id.clone())]).await;
    assert_eq!(source.changes(seen.revision).await.unwrap().changes, vec![Change::Database(spare.id, None)]);
    backend.commit(vec![Step::PutCell(fake::cell("spare", "127.0.0.1", 1).unwrap())]).await;
    let seen = load(&source).await;
    backend.commit(vec![Step::RemoveCell("spare".parse().unwrap())]).await;
    let changes = source.changes(seen.rev).await.unwrap();
    assert_eq!(changes.changes, vec![Change::Cell("spare".parse().unwrap(), None)]);
}

async fn a_trimmed_feed_says_so(mut backend: impl Backend) {
    backend.commit(floor()).await;
    let source = backend.source();
    let before = load(&source).await.rev;
    backend.commit(vec![put(&tenant("acme", 1))]).await;
    let after = load(&source).await.rev;
    backend.trim().await;
    assert!(matches!(source.changes(before).await, Err(Error::Trimmed { since }) if since == before));
    assert_eq!(source.changes(after).await.unwrap().changes, vec![]);
    backend.commit(vec![put(&tenant("beta", 2))]).await;
    assert_eq!(source.changes(after).await.unwrap().changes.len(), 1);
    // A revision that never was: the catalog is older than what the reader has seen of it.
    assert!(matches!(source.changes(after + 1000).await, Err(Error::Trimmed { .. })));
}

async fn every_commit_wakes(mut backend: impl Backend) {
    backend.commit(floor()).await;
    let source = backend.source();
    let mut wake = source.wake_ups();
    let mut at = load(&source).await.rev;
    for n in 1..=5 {
        let row = tenant(&format!("tenant-{n}"), n);
        backend.commit(vec![put(&row)]).await;
        // A wake-up may come without a change, so look until it is there.
        loop {
            let changes = source.changes(at).await.unwrap();
            at = changes.revision;
            if !changes.changes.is_empty() {
                break;
            }
            tokio::time::timeout(Duration::from_secs(60), wake.changed()).await.expect("a wake-up").unwrap();
        }
    }
}

async fn a_load_stops_when_nobody_takes_it(mut backend: impl Backend) {
    backend.commit(floor()).await;
    let source = backend.source();
    let (sender, receiver) = mpsc::channel(1);
    drop(receiver);
    assert!(matches!(source.load(sender).await, Err(Error::Stopped)));
    // It can be loaded afterwards.
    assert!(load(&source).await.rev >= 0);
}
