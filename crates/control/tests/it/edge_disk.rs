//! Life without the control plane: it is killed, and data planes start, serve and come back.

use std::time::Duration;

use insula_catalog::{Catalog, Freshness, Options};
use insula_core::TenantState;

use crate::edge_house::{EdgeHouse, ready, until};

#[tokio::test]
async fn a_data_plane_starts_without_the_control_plane_and_catches_up_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    let options = Options { disk: Some(file.clone()), poll: Duration::from_millis(100), ..Options::default() };
    let mut house = EdgeHouse::start().await;
    let (acme, beta) = (house.tenant("acme").await, house.tenant("beta").await);
    let first = Catalog::start(house.source(), options.clone());
    ready(&first).await;
    // It has no last word while it is just writing. A file that is there, and noted to be the present once more, is not being written.
    let written = || std::fs::metadata(&file).and_then(|file| file.modified()).ok();
    until("the file is there", async || written().is_some()).await;
    let at_first = written();
    until("the file is noted to be the present", async || written() != at_first).await;
    house.set_state(beta, "suspended").await;
    until("suspended", async || first.by_id(beta).unwrap().state() == TenantState::Suspended).await;
    let revision = first.revision();
    // A follower that ends has the last word.
    drop(first);
    house.kill();
    for round in 0..3 {
        let again = async || {
            let catalog = Catalog::start(house.source(), options.clone());
            ready(&catalog).await;
            catalog
        };
        // The last word is written by a thread of its own.
        until("the file is of the last moment", async || again().await.revision() == revision).await;
        let catalog = again().await;
        assert_eq!(
            (catalog.by_id(acme).unwrap().state(), catalog.by_id(beta).unwrap().state()),
            (TenantState::Active, TenantState::Suspended),
            "{round}"
        );
        assert!(catalog.refresh().await.is_err(), "nobody is there");
    }
    let bounds = Options { soft: Duration::from_millis(1), hard: Duration::from_millis(2), ..options.clone() };
    let old = Catalog::start(house.source(), bounds);
    ready(&old).await;
    until("expired", async || old.freshness() == Freshness::Expired).await;
    assert!(old.by_slug("acme").is_some(), "served all the same");
    // While it was away.
    house.set_state(acme, "suspended").await;
    house.set_state(beta, "active").await;
    let catalog = Catalog::start(house.source(), options.clone());
    ready(&catalog).await;
    house.resume().await;
    until("caught up", async || {
        (catalog.by_id(acme).unwrap().state(), catalog.by_id(beta).unwrap().state())
            == (TenantState::Suspended, TenantState::Active)
    })
    .await;
    until("fresh", async || catalog.freshness() == Freshness::Fresh).await;
}
