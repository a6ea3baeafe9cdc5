//! The snapshot on disk: what a process starts with when the control plane is away.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_catalog::{AppVersion, Catalog, Document, DocumentVersion, FakeSource, Freshness, Options, Replica, fake};
use insula_core::{FeatureValue, TenantState};

use crate::backend::{Backend, Step, floor, put, ready, tenant};

fn options(path: &Path) -> Options {
    Options { disk: Some(path.to_owned()), poll: Duration::from_millis(10), ..Options::default() }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a catalog says.
fn picture(catalog: &Catalog) -> Vec<String> {
    catalog.look(|view| {
        let mut told: Vec<String> = (1..=40)
            .map(|n| {
                let Some(route) = view.by_slug(&format!("tenant-{n}")) else { return format!("{n}: none") };
                let host = view.by_host(&format!("t{n}.example")).map(|route| route.id);
                let who = format!("{:?} {:?} {:?} {}", route.id, route.no, route.state(), route.name);
                let what = format!("{:?} {:?} {:?}", route.plan, route.settings, route.placement);
                format!("{who} {what} {} {} {} {host:?}", route.schema_version, view.fence_of(route), route.kid())
            })
            .collect();
        told.push(format!("{:?} {:?}", view.cell(&"main".parse().unwrap()), view.document("look")));
        told
    })
}

/// A catalog in which everything has a value of its own.
async fn filled() -> FakeSource {
    let mut source = FakeSource::new();
    source.commit(floor()).await;
    let mut rows = Vec::new();
    for n in 1..=40 {
        let mut row = tenant(&format!("tenant-{n}"), n);
        row.schema_version = n;
        row.placement.epoch = n;
        if n % 2 == 0 {
            row.name = format!("Ünicode {n}");
            row.limits = [("max_users".to_owned(), n.into())].into_iter().collect();
            row.features = [("search".to_owned(), FeatureValue::Switch(false).into())].into();
        }
        if n % 3 == 0 {
            row.state = TenantState::Suspended;
            row.settings.brand_name = Some("Brand".parse().unwrap());
            row.placement.schema = format!("s{n:016x}").as_str().into();
        }
        if n % 5 == 0 {
            row.domains = vec![format!("t{n}.example")];
        }
        rows.push(row);
    }
    source.commit(rows.iter().map(put).collect()).await;
    source.change(|content| {
        let mut cell = fake::cell("main", "127.0.0.1", 5432).unwrap();
        cell.app_versions = Arc::new([AppVersion { url: "http://a:1".into(), min_schema: 3, max_schema: Some(9), weight: 2 }]);
        cell.replicas = Arc::new([Replica { host: "standby".into(), port: 5433 }]);
        content.put_cell(cell);
        let version = DocumentVersion { version: 3, value: Arc::new(serde_json::json!({"dark": true})) };
        content.put_document(Document { name: "look".into(), stable: Some(version), canary: None });
    });
    source
}

/// A file written by a process that has ended.
async fn written(folder: &Path) -> (FakeSource, PathBuf, Vec<String>) {
    let path = folder.join("snapshot");
    let source = filled().await;
    let catalog = ready(source.clone(), options(&path)).await;
    until("it is written", || path.exists()).await;
    let told = picture(&catalog);
    (source, path, told)
}

fn away() -> FakeSource {
    let source = FakeSource::new();
    source.change_silently(|content| content.set_failing(true));
    source
}

#[tokio::test]
async fn a_process_starts_with_what_the_last_one_knew() {
    let folder = tempfile::tempdir().unwrap();
    let (source, path, told) = written(folder.path()).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    source.change_silently(|content| content.set_failing(true));
    let catalog = ready(source.clone(), options(&path)).await;
    assert_eq!(picture(&catalog), told);
    assert_eq!(catalog.freshness(), Freshness::Fresh, "it was the present a moment ago");
    // It goes on from there: also for plans that tenants have changed for themselves.
    source.change(|content| {
        content.set_failing(false);
        let mut plan = fake::plan("basic").unwrap();
        plan.limits.max_connections = 99;
        content.put_plan(plan);
        content.remove_tenant(catalog.by_slug("tenant-5").unwrap().id);
    });
    until("the plan", || catalog.by_slug("tenant-4").unwrap().plan.limits.max_connections == 99).await;
    let changed = catalog.by_slug("tenant-4").unwrap();
    assert_eq!((changed.plan.limits.max_users, changed.plan.features.get("search")), (4, Some(&FeatureValue::Switch(false))));
    assert!(catalog.by_slug("tenant-5").is_none() && catalog.by_host("t5.example").is_none());
    // And the file follows.
    let now = picture(&catalog);
    let deadline = Instant::now() + Duration::from_secs(60);
    while picture(&ready(away(), options(&path)).await) != now {
        assert!(Instant::now() < deadline, "the file does not follow");
    }
}

/// A process that ends while it writes what it knew a moment ago has a last word all the same.
#[tokio::test]
async fn the_last_word_is_had_after_an_earlier_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snapshot");
    let mut source = FakeSource::new();
    source.commit(floor()).await;
    // Enough that it is still being written when the next change is there.
    source.commit((1..20_000).map(|no| put(&tenant(&format!("tenant-{no}"), no))).collect()).await;
    let catalog = ready(source.clone(), options(&path)).await;
    source.commit(vec![put(&tenant("newcomer", 20_000))]).await;
    catalog.refresh().await.unwrap();
    drop(catalog);
    let deadline = Instant::now() + Duration::from_secs(60);
    let is_there = async || path.exists() && ready(away(), options(&path)).await.by_slug("newcomer").is_some();
    while !is_there().await {
        assert!(Instant::now() < deadline, "the file stays what it was");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_too_old_is_served_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path, _) = written(folder.path()).await;
    let age = || std::fs::metadata(&path).unwrap().modified().unwrap().elapsed().unwrap_or_default();
    until("time passes", || age() > Duration::from_millis(300)).await;
    let bounds = |soft, hard| Options { soft: Duration::from_millis(soft), hard: Duration::from_millis(hard), ..options(&path) };
    let stale = ready(away(), bounds(100, 1_000_000)).await;
    assert_eq!(stale.freshness(), Freshness::Stale);
    assert!(stale.age() >= Duration::from_millis(200), "{:?}", stale.age());
    let expired = ready(away(), bounds(50, 100)).await;
    assert_eq!(expired.freshness(), Freshness::Expired);
    assert!(expired.by_slug("tenant-1").is_some(), "what is known is served");
}

#[tokio::test]
async fn a_file_that_is_not_whole_is_not_used() {
    let folder = tempfile::tempdir().unwrap();
    let (_, path, told) = written(folder.path()).await;
    let whole = std::fs::read(&path).unwrap();
    // The head's number of contact may be damaged (a power cut while it was written over): the body's holds then.
    let mut torn = whole.clone();
    torn[20] ^= 0x55;
    let torn_path = folder.path().join("torn");
    std::fs::write(&torn_path, &torn).unwrap();
    assert_eq!(picture(&ready(away(), options(&torn_path)).await), told);
    let mut damaged: Vec<Vec<u8>> = (0..60).map(|n| whole[..whole.len() * n / 60].to_vec()).collect();
    for at in (32..whole.len()).step_by(whole.len() / 80 + 1).chain([0, 8, whole.len() - 1]) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        damaged.push(bytes);
    }
    for (n, bytes) in damaged.into_iter().enumerate() {
        let path = folder.path().join(format!("damaged-{n}"));
        std::fs::write(&path, bytes).unwrap();
        let catalog = Catalog::start(away(), options(&path));
        // It has tried its file before it asks.
        assert!(catalog.refresh().await.is_err());
        assert!(!catalog.is_ready(), "damaged file {n} was used");
    }
}

#[tokio::test]
async fn a_disk_that_fails_keeps_nobody_from_following() {
    let mut source = filled().await;
    let catalog = ready(source.clone(), options(Path::new("/nowhere/at/all"))).await;
    source.commit(vec![Step::PutTenant(Box::new(tenant("later", 99)))]).await;
    until("the tenant", || catalog.by_slug("later").is_some()).await;
    assert_eq!(catalog.freshness(), Freshness::Fresh);
}
