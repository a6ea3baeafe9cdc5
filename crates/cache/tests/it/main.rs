//! The cache between processes, with a real Redis server that is killed and brought back.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod second;
mod server;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use insula_cache::{Cache, CacheConfig, Resource, SecondLevel, TenantCache};
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options, RouteRef};

const TEXTS: Resource<u64, String> = Resource::new("texts");

/// Two tenants, and what a process knows of them.
struct Town {
    source: FakeSource,
    catalog: Catalog,
}

impl Town {
    async fn new(quota: u64) -> Self {
        let source = FakeSource::new();
        source.change(|content| {
            let mut plan = fake::plan("bronze").unwrap();
            plan.limits.max_cache_bytes = quota;
            content.put_plan(plan);
            content.put_cell(fake::cell("main", "127.0.0.1", 1).unwrap());
            content.put_database(fake::database("main", "insula_pool", 0).unwrap());
            content.put_tenant(fake::tenant("acme", 1, "bronze", "main").unwrap());
            content.put_tenant(fake::tenant("globex", 2, "bronze", "main").unwrap());
        });
        let catalog = Catalog::start(source.clone(), Options::default());
        catalog.ready().await;
        Self { source, catalog }
    }

    async fn next_epoch(&self, slug: &str) {
        self.source.change(|content| {
            let mut tenant = fake::tenant(slug, 1, "bronze", "main").unwrap();
            tenant.id = self.route(slug).id;
            tenant.placement.epoch = self.route(slug).placement.epoch + 1;
            content.put_tenant(tenant);
        });
        self.catalog.refresh().await.unwrap();
    }

    fn route(&self, slug: &str) -> RouteRef {
        self.catalog.by_slug(slug).unwrap()
    }
}

/// A process's cache.
fn process(url: &str) -> Cache {
    let second = Some(SecondLevel::new(url, "test").unwrap());
    Cache::new(CacheConfig { second, ..CacheConfig::default() })
}

/// What the cache says, loading `text` when it says nothing.
async fn ask(cache: TenantCache<'_>, key: u64, text: &str) -> String {
    cache.get_or_load(&TEXTS, &key, async || Ok::<_, Infallible>(text.to_owned())).await.unwrap().to_string()
}

/// Waits until it holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "{what}: not within 30 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
