//! What a load takes in memory, counted: a process keeps for long what it needed for a moment.

use std::time::Duration;

use insula_catalog::row::{Changes, Page};
use insula_catalog::{Catalog, Error, Options, Source, fake};
use insula_core::TenantId;
use tokio::sync::{mpsc, watch};

const TENANTS: i64 = 50_000;
const PAGE: i64 = 500;

/// A source that makes its tenants up as it sends them, so that what is counted is the catalog's. Its feed never reaches back.
struct MadeUp;

impl Source for MadeUp {
    async fn load(&self, pages: mpsc::Sender<Page>) -> Result<i64, Error> {
        let send = async |page| pages.send(page).await.map_err(|_| Error::Stopped);
        send(Page::Plans(vec![fake::plan("bronze").unwrap()])).await?;
        send(Page::Databases(vec![fake::database("main", "insula_pool", 1).unwrap()])).await?;
        for page in 0..TENANTS / PAGE {
            let tenant = |n: i64| {
                let mut row = fake::tenant(&format!("customer-{n}"), n, "bronze", "main").unwrap();
                row.id = TenantId::from(uuid::Uuid::from_u128(u128::from(n.unsigned_abs())));
                row
            };
            send(Page::Tenants((page * PAGE + 1..=(page + 1) * PAGE).map(tenant).collect())).await?;
        }
        Ok(1)
    }

    async fn changes(&self, since: i64) -> Result<Changes, Error> {
        Err(Error::Trimmed { since })
    }

    fn wake_ups(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }
}

#[test]
fn a_load_takes_little_beside_what_it_makes() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut catalog = None;
    let load = allocation_counter::measure(|| {
        catalog = Some(runtime.block_on(async {
            let options = Options { poll: Duration::from_secs(3600), ..Options::default() };
            let catalog = Catalog::start(MadeUp, options);
            catalog.ready().await;
            catalog
        }));
    });
    let catalog = catalog.unwrap();
    assert!(catalog.by_host("customer-50000.localhost").is_some());
    let bytes = |bytes: i64| bytes / TENANTS;
    let (most, kept) = (bytes(i64::try_from(load.bytes_max).unwrap()), bytes(load.bytes_current));
    assert!(kept < 300, "{kept} bytes a tenant are kept");
    assert!(most - kept < 16, "{most} bytes a tenant at most, of which {kept} are kept");
    // One that finds all as it was makes nothing anew.
    let again = allocation_counter::measure(|| runtime.block_on(catalog.refresh()).unwrap());
    let (most, kept) = (bytes(i64::try_from(again.bytes_max).unwrap()), bytes(again.bytes_current));
    assert!(kept <= 1, "{kept} bytes a tenant are kept, for nothing");
    assert!(most < 16, "{most} bytes a tenant at most");
}
