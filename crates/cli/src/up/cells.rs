//! Starts the private cells that the catalog asks for, and takes away those that it gives up.
//!
//! A reconciler: a signal (the change feed) or the time wakes it, and it looks for itself. Always: a cell's key is with the
//! application before the catalog says where the cell is; a cell that holds tenants is never taken away.

use std::sync::Arc;
use std::time::Duration;

use insula_core::CellName;

use crate::error::Error;
use crate::up::catalog::{CellPlace, HostCatalog, KnownCell};
use crate::up::contexts;
use crate::up::folder::file_error;
use crate::up::house::House;
use crate::up::postgres::ADMIN_ROLE;

/// A dedicated cell serves one tenant: it gets by with less.
const DEDICATED: &[(&str, &str)] = &[("shared_buffers", "48MB"), ("max_connections", "100")];

/// Without a signal it looks this often.
const EVERY: Duration = Duration::from_secs(2);

/// Looks once: starts what is not running, stops what is to go.
pub(crate) async fn reconcile(house: &House, catalog: &HostCatalog) -> Result<(), Error> {
    let cells = catalog.cells().await?;
    let work = cells.into_iter().map(|cell| async move {
        let name = cell.name.clone();
        one(house, catalog, cell).await.map_err(|e| Error::new(e.kind(), format!("cell {name}: {e}"), e.help()))
    });
    // All are tried, whatever happens to one.
    futures_util::future::join_all(work).await.into_iter().collect()
}

async fn one(house: &House, catalog: &HostCatalog, cell: KnownCell) -> Result<(), Error> {
    let Ok(name) = cell.name.parse::<CellName>() else { return Ok(()) };
    match (cell.provider.as_str(), cell.state.as_str()) {
        ("embedded", "removing") => return remove(house, catalog, &name).await,
        ("embedded", _) => {}
        // Somebody else runs its server; the gateway serves its tenants.
        _ => return house.add_key(&name).await,
    }
    start(house, catalog, &name, cell.home.as_deref(), if cell.dedicated { DEDICATED } else { &[] }).await
}

/// Starts a cell's server, application and worker unless they run, and tells the catalog where they are. `home` is the database of the one
/// tenant that it is for.
pub(crate) async fn start(
    house: &House,
    catalog: &HostCatalog,
    name: &CellName,
    home: Option<&str>,
    settings: &[(&str, &str)],
) -> Result<(), Error> {
    let port = house.start_server(name, settings).await?;
    house.has_own_worker(name).await;
    house.add_key(name).await?;
    let app_url = house.start_app(name, catalog).await?;
    if home.is_some() || !settings.is_empty() {
        // A tenant is waiting for it: the gateway sends requests as soon as the catalog says where to.
        house.app_ready(name.as_str()).await?;
    }
    house.start_worker(name, catalog).await?;
    let place = CellPlace {
        name: name.clone(),
        provider: "embedded",
        host: "127.0.0.1".into(),
        port,
        tls: "disable".into(),
        admin_role: ADMIN_ROLE.into(),
        app_url: Some(app_url),
    };
    catalog.put_cell(&place).await?;
    house.show_cell(&place, home, &house.root_key.cell(name).role_password(ADMIN_ROLE));
    Ok(())
}

async fn remove(house: &House, catalog: &HostCatalog, name: &CellName) -> Result<(), Error> {
    if catalog.is_inhabited(name.as_str()).await? {
        tracing::error!(cell = name.as_str(), "is to be removed and still holds tenants: left alone");
        return Ok(());
    }
    house.stop_cell(name.as_str()).await;
    let link = house.folder.cluster(name.as_str());
    if let Ok(real) = link.canonicalize() {
        insula_cluster::Cluster::settle(&real).await?;
        std::fs::remove_dir_all(&real).map_err(|e| file_error("remove", &real, &e))?;
    }
    // Where the cluster lives elsewhere, this is the link to it: also when a killed `up` got no further than the cluster.
    let _ = std::fs::remove_file(&link);
    house.drop_key(name).await?;
    catalog.forget_cell(name.as_str()).await?;
    tracing::info!(cell = name.as_str(), "taken away");
    Ok(())
}

/// Follows the catalog until it is dropped.
pub(crate) async fn follow(house: Arc<House>, catalog: HostCatalog) {
    loop {
        let mut feed = match catalog.listen().await {
            Ok(feed) => feed,
            Err(error) => {
                tracing::warn!(%error, "no change feed; looking without it");
                look(&house, &catalog).await;
                tokio::time::sleep(EVERY).await;
                continue;
            }
        };
        loop {
            look(&house, &catalog).await;
            // Quiet moments come between bursts of changes; one look serves a burst.
            tokio::time::sleep(Duration::from_millis(50)).await;
            match tokio::time::timeout(EVERY, feed.recv()).await {
                Ok(Err(_)) => break,
                Ok(Ok(_)) => while feed.next_buffered().is_some() {},
                Err(_) => {}
            }
        }
    }
}

async fn look(house: &House, catalog: &HostCatalog) {
    for outcome in [reconcile(house, catalog).await, contexts::write(house, catalog).await] {
        if let Err(error) = outcome {
            tracing::warn!("{error}");
        }
    }
}
