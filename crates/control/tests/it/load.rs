//! A thousand at once.

use std::time::Instant;

use insula_control::model::{OperationFilter, OperationState, PageRequest};
use insula_core::Isolation;

use crate::house::{House, count, create};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_row_tenants_at_once_and_nothing_is_orphaned() {
    let mut house = House::start().await;
    let started = Instant::now();
    let asked = (0..1000).map(|n| {
        let control = house.control.clone();
        tokio::spawn(async move {
            let created = control.create_tenant("test", create(&format!("t-{n}"), Isolation::Row), None).await.expect("accepted");
            created.operation.id
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
    house.assert_no_orphans().await;
    assert_eq!(house.control.verify_audit().await.expect("verified"), None);
    house.stop().await;
}
