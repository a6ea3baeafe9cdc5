//! Configuration documents and application versions: from the API to what a data plane decides with.

use std::collections::BTreeSet;

use insula_api::cell::{AppVersion, Replica};
use insula_api::document::{PutDocument, Rollout};
use insula_catalog::Catalog;
use insula_core::{CellName, Kind, TenantId};
use serde_json::{Value, json};

use crate::edge_house::{EdgeHouse, no_polling, ready, until};

fn put(value: Value) -> PutDocument {
    PutDocument { value, note: String::new() }
}

fn some(percent: u8, tenants: &[&str]) -> Rollout {
    Rollout { percent, tenants: tenants.iter().map(|t| (*t).to_owned()).collect(), ..Rollout::default() }
}

const ALL: Rollout = Rollout { version: None, all: true, percent: 0, tenants: Vec::new() };

/// Who has which version.
fn have(catalog: &Catalog, tenants: &[TenantId]) -> Vec<Option<i64>> {
    tenants.iter().map(|id| catalog.config("look", *id).map(|found| found.version)).collect()
}

#[tokio::test]
async fn a_document_goes_out_step_by_step_and_back() {
    let mut house = EdgeHouse::start().await;
    let mut tenants = Vec::new();
    for n in 0..40 {
        tenants.push(house.tenant(&format!("tenant-{n}")).await);
    }
    let catalog = Catalog::start(house.source(), no_polling());
    ready(&catalog).await;
    let control = house.control().clone();
    assert_eq!(control.put_document("test", "look", put(json!({"dark": false}))).await.unwrap().version, 1);
    assert_eq!(control.put_document("test", "look", put(json!({"dark": false}))).await.unwrap().version, 1, "said already");
    assert_eq!(control.roll_back("test", "look").await.unwrap_err().kind(), Kind::Conflict);
    assert!(have(&catalog, &tenants).iter().all(Option::is_none), "put is not in force");

    control.roll_out("test", "look", &ALL).await.unwrap();
    until("version 1 for all", async || have(&catalog, &tenants).iter().all(|v| *v == Some(1))).await;
    assert_eq!(catalog.config("look", tenants[0]).unwrap().value["dark"], false);

    control.put_document("test", "look", put(json!({"dark": true}))).await.unwrap();
    control.roll_out("test", "look", &some(0, &["tenant-3", &tenants[5].to_string()])).await.unwrap();
    let canaries = |wanted: BTreeSet<usize>| {
        let (catalog, tenants) = (catalog.clone(), tenants.clone());
        async move || {
            have(&catalog, &tenants).iter().enumerate().all(|(n, v)| *v == Some(if wanted.contains(&n) { 2 } else { 1 }))
        }
    };
    until("two canaries", canaries([3, 5].into())).await;
    control.roll_out("test", "look", &some(50, &[])).await.unwrap();
    let half: BTreeSet<usize> =
        (0..tenants.len()).filter(|n| insula_catalog::document::bucket("look", tenants[*n]) < 50).collect();
    until("half of them", canaries(half.clone())).await;
    assert!((5..35).contains(&half.len()), "{half:?}");

    // Back: the canaries have what all have.
    control.roll_back("test", "look").await.unwrap();
    until("nobody", canaries(BTreeSet::new())).await;
    control.roll_out("test", "look", &ALL).await.unwrap();
    until("all", canaries((0..tenants.len()).collect())).await;
    let back = control.roll_back("test", "look").await.unwrap();
    assert_eq!((back.stable, back.previous, back.newest), (Some(1), None, 2));
    until("as before", canaries(BTreeSet::new())).await;

    let audit: Vec<String> = sqlx::query_scalar("SELECT action FROM catalog.audit WHERE target = 'look' ORDER BY seq")
        .fetch_all(control.catalog_pool())
        .await
        .unwrap();
    let wanted = ["put", "rollout", "put", "rollout", "rollout", "rollback", "rollout", "rollback"];
    assert_eq!(audit, wanted.map(|what| format!("config.{what}")));
    let changed = sqlx::query("UPDATE catalog.document_version SET body = '1'").execute(control.catalog_pool()).await;
    assert!(changed.is_err(), "a version never changes");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let house = EdgeHouse::start().await;
    let control = house.control();
    for name in ["", "Look", "1look", "a_b", &"a".repeat(64)] {
        assert_eq!(control.put_document("test", name, put(json!(1))).await.unwrap_err().kind(), Kind::Invalid, "{name:?}");
    }
    let large = put(json!("x".repeat(300 << 10)));
    assert_eq!(control.put_document("test", "look", large).await.unwrap_err().kind(), Kind::Invalid);
    assert_eq!(control.roll_out("test", "look", &ALL).await.unwrap_err().kind(), Kind::NotFound);
    control.put_document("test", "look", put(json!(1))).await.unwrap();
    let bad = [
        some(0, &[]),
        some(101, &[]),
        some(0, &["nobody"]),
        Rollout { version: Some(2), ..ALL.clone() },
        Rollout { version: Some(0), ..ALL.clone() },
        Rollout { all: true, ..some(5, &[]) },
    ];
    for rollout in bad {
        assert_eq!(control.roll_out("test", "look", &rollout).await.unwrap_err().kind(), Kind::Invalid, "{rollout:?}");
    }
}

#[tokio::test]
async fn tenants_are_sent_to_the_application_that_serves_their_schema() {
    let mut house = EdgeHouse::start().await;
    let acme = house.tenant("acme").await;
    house.sql("UPDATE catalog.cell SET app_url = 'http://one:1'").await;
    let catalog = Catalog::start(house.source(), no_polling());
    ready(&catalog).await;
    let app = async |catalog: &Catalog| {
        let route = catalog.by_id(acme).unwrap();
        let cell = catalog.cell(&route.placement.cell).unwrap();
        cell.app_for(route.no, route.schema_version).map(|url| url.to_string())
    };
    assert_eq!(app(&catalog).await.as_deref(), Some("http://one:1"));
    let control = house.control().clone();
    let main = "main".parse().unwrap();
    let version = |url: &str, min_schema, max_schema| AppVersion { url: url.into(), min_schema, max_schema, weight: 1 };
    let both = [version("http://blue:1", 0, Some(6)), version("http://green:1", 7, None)];
    let cell = control.put_apps("test", &main, &both).await.unwrap();
    assert_eq!(cell.app_versions, both);
    until("blue", async || app(&catalog).await.as_deref() == Some("http://blue:1")).await;
    house.sql("UPDATE catalog.tenant SET schema_version = 7").await;
    until("green", async || app(&catalog).await.as_deref() == Some("http://green:1")).await;
    control.put_apps("test", &main, &both[..1]).await.unwrap();
    until("none that serves it", async || app(&catalog).await.is_none()).await;
    control.put_apps("test", &main, &[]).await.unwrap();
    until("the simple case", async || app(&catalog).await.as_deref() == Some("http://one:1")).await;
    for bad in [vec![version("nowhere", 0, None)], vec![version("http://a", 3, Some(2))], vec![both[0].clone(), both[0].clone()]]
    {
        assert_eq!(control.put_apps("test", &main, &bad).await.unwrap_err().kind(), Kind::Invalid, "{bad:?}");
    }
}

#[tokio::test]
async fn replicas_of_a_cell_reach_who_follows_the_catalog() {
    let house = EdgeHouse::start().await;
    let catalog = Catalog::start(house.source(), no_polling());
    ready(&catalog).await;
    let control = house.control().clone();
    let main: CellName = "main".parse().unwrap();
    let known = async || catalog.cell(&main).map(|cell| cell.replicas.iter().map(ToString::to_string).collect::<Vec<_>>());
    let (one, two): (Replica, Replica) = ("db2:5433".parse().unwrap(), "db3".parse().unwrap());
    control.add_replica("test", &main, &one).await.unwrap();
    let cell = control.add_replica("test", &main, &two).await.unwrap();
    assert_eq!(cell.replicas, [one.clone(), two.clone()]);
    until("both", async || known().await.is_some_and(|known| known == ["db2:5433", "db3:5432"])).await;
    let again = control.add_replica("test", &main, &one).await.unwrap();
    assert_eq!(again.version, cell.version, "said again, nothing changes");
    control.remove_replica("test", &main, &one).await.unwrap();
    until("one", async || known().await.is_some_and(|known| known == ["db3:5432"])).await;
    assert_eq!(control.remove_replica("test", &main, &one).await.unwrap_err().kind(), Kind::NotFound);
    let itself = Replica { host: cell.host.unwrap(), port: cell.port.unwrap() };
    for bad in [itself, Replica { host: "a b".to_owned(), port: 1 }, Replica { host: "db2".to_owned(), port: 0 }] {
        assert_eq!(control.add_replica("test", &main, &bad).await.unwrap_err().kind(), Kind::Invalid, "{bad:?}");
    }
}
