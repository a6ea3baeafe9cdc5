//! A thousand at once; and everything at once.

use std::time::Instant;

use insula_control::model::{OperationFilter, OperationState, PageRequest};
use insula_core::Isolation;

use crate::house::{House, count, create};

/// Steps that failed by themselves, whether or not they were tried again. That a tenant waits for a migration is no fault.
async fn failures(house: &House) -> Vec<(String, String)> {
    let failures = sqlx::query_as(
        "SELECT step, detail FROM catalog.operation_event WHERE what = 'failed' AND detail NOT LIKE '%on purpose%'
            AND detail NOT LIKE '%being brought to the application%' ORDER BY seq",
    );
    failures.fetch_all(house.control.catalog_pool()).await.expect("events")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_row_tenants_at_once_and_nothing_is_orphaned() {
    let mut house = House::start().await;
    let started = Instant::now();
    let asked = (0..1000).map(|n| {
        let control = house.control.clone();
        tokio::spawn(async move {
            let slug = format!("t-{n}");
            // So many may have to wait for a connection to the catalog for too long: that is said as what it is, and asked again.
            loop {
                match control.create_tenant("test", create(&slug, Isolation::Row), Some(&slug)).await {
                    Err(error) if error.transient() => tokio::task::yield_now().await,
                    created => break created.expect("accepted").operation.id,
                }
            }
        })
    });
    let ids = futures_util::future::join_all(asked).await;
    let accepted = started.elapsed();
    for id in ids {
        house.done(id.expect("asked")).await;
    }
    let took = started.elapsed();
    println!("1,000 row tenants: accepted in {accepted:?}, made in {took:?}: {:.0} a second", 1000.0 / took.as_secs_f64());
    let catalog = &mut *house.control.catalog_pool().acquire().await.expect("catalog");
    assert_eq!(count(catalog, "SELECT count(*) FROM catalog.tenant WHERE state = 'active'").await, 1000);
    assert_eq!(count(catalog, "SELECT count(*) FROM catalog.audit WHERE action = 'tenant.create'").await, 1000);
    let mut pool = house.server.admin("insula_pool").await;
    assert_eq!(count(&mut pool, "SELECT count(*) FROM app.users").await, 1000);
    assert_eq!(count(&mut pool, "SELECT count(DISTINCT tenant_id) FROM app.users").await, 1000);
    let failed = OperationFilter { state: Some(OperationState::Failed), ..OperationFilter::default() };
    assert!(house.control.operations(&failed, &PageRequest::default()).await.expect("listed").items.is_empty());
    assert_eq!(failures(&house).await, vec![]);
    house.assert_no_orphans().await;
    assert_eq!(house.control.verify_audit().await.expect("verified"), None);
    house.stop().await;
}

/// Every tenth step of a provision fails on purpose, so that there is always something that is being undone.
struct Now(std::sync::atomic::AtomicU32);

impl insula_control::fault::Faults for Now {
    fn at(&self, kind: &str, step: &str, moment: insula_control::fault::Moment) -> Option<insula_control::fault::Fault> {
        use insula_control::fault::{Fault, Moment};
        // The first two are in the request's own answer, the last two with the tenant's activation.
        if kind != "tenant.provision" || moment != Moment::After || !["create", "migrate", "seed"].contains(&step) {
            return None;
        }
        let n = self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        (n % 10 == 9).then_some(Fault::Fail)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_control_planes_make_undo_pause_and_migrate_at_once_and_nothing_fails_by_itself() {
    let mut house = House::start().await;
    let mut other = house.another(|config| config.faults = std::sync::Arc::new(Now(0.into()))).await;
    let kinds = [(Isolation::Row, 40), (Isolation::Schema, 40), (Isolation::Database, 10)];
    let asked = kinds.iter().flat_map(|(isolation, many)| (0..*many).map(move |n| (n, format!("{isolation}-{n}"), *isolation)));
    let lives = asked.map(|(n, slug, isolation)| {
        let control = if n % 2 == 0 { house.control.clone() } else { other.control.clone() };
        tokio::spawn(async move {
            let wait = async |id| control.wait_operation(id, crate::house::LONG).await.expect("an operation").state;
            // Under this load the catalog may be out of connections: that is said as what it is, and asked again.
            let created = loop {
                match control.create_tenant("test", create(&slug, isolation), None).await {
                    Err(error) if error.transient() => tokio::task::yield_now().await,
                    created => break created.expect("accepted"),
                }
            };
            if wait(created.operation.id).await == OperationState::Failed {
                return;
            }
            for round in 0..2 {
                let paused = match round {
                    0 => control.suspend_tenant("test", &slug, None).await,
                    _ => control.delete_tenant("test", &slug, None).await,
                };
                assert_eq!(wait(paused.expect("accepted").id).await, OperationState::Done);
                let resumed = control.resume_tenant("test", &slug, None).await.expect("accepted");
                assert_eq!(wait(resumed.id).await, OperationState::Done);
            }
        })
    });
    let lives: Vec<_> = lives.collect();
    let mut bundle = crate::house::bundle();
    for version in 3..6 {
        let sql = format!("CREATE TABLE more{version} (name text); SELECT insula.tenant_table('more{version}')");
        bundle.migrations.push(insula_control::model::Migration { version, name: "more".into(), sql });
        let put = house.control.put_bundle("test", bundle.clone()).await.expect("a good bundle");
        if let Some(operation) = put.operation {
            house.done(operation.id).await;
        }
    }
    for life in lives {
        life.await.expect("lived");
    }
    assert_eq!(failures(&house).await, vec![]);
    house.assert_no_orphans().await;
    other.stop().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn control_planes_start_while_tenants_are_made_and_no_step_fails() {
    let mut house = House::start().await;
    let kinds = [Isolation::Row, Isolation::Schema, Isolation::Schema, Isolation::Database];
    let control = house.control.clone();
    let lives = tokio::spawn(async move {
        for round in 0..4 {
            let asked = (0..20).map(|n| {
                let (control, request) = (control.clone(), create(&format!("t-{round}-{n}"), kinds[n % 4]));
                tokio::spawn(async move {
                    let created = control.create_tenant("test", request, None).await.expect("accepted");
                    control.wait_operation(created.operation.id, crate::house::LONG).await.expect("an operation").state
                })
            });
            for state in asked.collect::<Vec<_>>() {
                assert_eq!(state.await.expect("asked"), OperationState::Done);
            }
        }
    });
    // Each prepares the cell anew: roles, databases, the kit.
    while !lives.is_finished() {
        let starts = (0..2).map(|_| tokio::spawn(House::on(std::sync::Arc::clone(&house.server), |_| {})));
        for other in starts.collect::<Vec<_>>() {
            other.await.expect("started").stop().await;
        }
    }
    lives.await.expect("made");
    assert_eq!(failures(&house).await, vec![]);
    house.assert_no_orphans().await;
    house.stop().await;
}
