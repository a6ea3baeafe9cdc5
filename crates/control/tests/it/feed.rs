//! The change feed is trimmed, and whoever was away for longer than it reaches misses nothing.

use std::sync::Arc;

use insula_catalog::row::{Changes, Page};
use insula_catalog::{Catalog, Error, Options, PgSource, Source};
use insula_control::Control;
use insula_control::model::UpdateTenant;
use insula_core::{Isolation, TenantState};
use tokio::sync::{mpsc, watch};

use crate::house::{House, LONG, count};

/// A data plane's way to the catalog that can be cut.
struct Cut {
    source: PgSource,
    open: watch::Receiver<bool>,
    loads: Arc<watch::Sender<u32>>,
}

impl Source for Cut {
    async fn load(&self, pages: mpsc::Sender<Page>) -> Result<i64, Error> {
        self.loads.send_modify(|n| *n += 1);
        self.source.load(pages).await
    }

    async fn changes(&self, since: i64) -> Result<Changes, Error> {
        self.open.clone().wait_for(|open| *open).await.ok();
        self.source.changes(since).await
    }

    fn wake_ups(&self) -> watch::Receiver<()> {
        self.source.wake_ups()
    }
}

async fn feed(control: &Control) -> (i64, i64) {
    let row = sqlx::query_as("SELECT rev, oldest FROM catalog.revision");
    row.fetch_one(control.catalog_pool()).await.expect("a revision")
}

async fn rename(house: &House, slug: &str, name: &str) {
    let change = UpdateTenant { name: Some(name.into()), ..UpdateTenant::default() };
    house.control.update_tenant("test", slug, change, None).await.expect("renamed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_feed_is_trimmed_and_a_follower_that_was_away_misses_nothing() {
    let keep = 20;
    let server = Arc::new(insula_testkit::durable_server().await);
    let mut house = House::on(server, |config| config.keep_revisions = keep).await;
    house.put_bundle().await;
    for slug in ["stays", "changes", "goes"] {
        house.tenant(slug, Isolation::Row).await;
    }
    let (gate, open) = watch::channel(true);
    let loads = Arc::new(watch::Sender::new(0));
    let source = PgSource::connect(&house.server.admin_url("insula_catalog")).expect("a URL");
    let catalog = Catalog::start(Cut { source, open, loads: Arc::clone(&loads) }, Options::default());
    tokio::time::timeout(LONG, catalog.ready()).await.expect("loaded");
    catalog.refresh().await.expect("it follows");
    assert_eq!(*loads.borrow(), 1);

    // It is away while a tenant goes, one comes, and others change more often than the feed remembers.
    gate.send_replace(false);
    let seen = catalog.revision();
    let gone = house.control.delete_tenant("test", "goes", None).await.expect("accepted");
    house.done(gone.id).await;
    house.tenant("comes", Isolation::Row).await;
    for n in 0..60 {
        rename(&house, "changes", &format!("name {n}")).await;
    }
    // Nobody asks the control plane to trim: its reconciler sees for itself.
    let trimmed = async {
        while feed(&house.control).await.1 <= seen {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LONG, trimmed).await.expect("the feed is trimmed");
    gate.send_replace(true);
    catalog.refresh().await.expect("it follows again");

    assert_eq!(*loads.borrow(), 2, "it was further behind than the feed reaches, so it loads anew");
    assert_eq!(catalog.revision(), feed(&house.control).await.0);
    let name = |slug: &str| catalog.by_slug(slug).map(|route| route.name.to_string());
    assert_eq!(name("changes").as_deref(), Some("name 59"));
    assert!(name("stays").is_some() && name("comes").is_some());
    let state = catalog.by_slug("goes").map(|route| route.state());
    assert!(state.is_none_or(|state| state == TenantState::Deleted), "{state:?}");
    // And from here on it follows the feed, as before.
    rename(&house, "changes", "the last name").await;
    catalog.refresh().await.expect("it follows");
    assert_eq!((name("changes").as_deref(), *loads.borrow()), (Some("the last name"), 2));
    house.stop().await;
}

#[tokio::test]
async fn one_trims_at_a_time_and_keeps_what_it_is_told_to() {
    let keep = 10;
    let server = Arc::new(insula_testkit::durable_server().await);
    let mut house = House::on(server, |config| config.keep_revisions = keep).await;
    // Its reconciler is out of the way: this test trims by hand.
    house.stop().await;
    sqlx::query("UPDATE catalog.revision SET oldest = 0").execute(house.control.catalog_pool()).await.expect("set");
    for _ in 0..40 {
        let touch = "UPDATE catalog.plan SET version = version + 1 WHERE name = 'bronze'";
        sqlx::query(touch).execute(house.control.catalog_pool()).await.expect("touched");
    }
    let mut other = house.control.catalog_pool().begin().await.expect("another control plane");
    let took = "SELECT pg_try_advisory_xact_lock(hashtextextended('trim feed', 0))";
    assert!(sqlx::query_scalar::<_, bool>(took).fetch_one(&mut *other).await.expect("asked"));
    assert_eq!(house.control.trim_feed().await.expect("left to the other"), 0);
    assert_eq!(feed(&house.control).await.1, 0);
    other.rollback().await.expect("it stops");

    let open = insula_control::Control::open(house.control.config().clone()).await.expect("opened");
    assert!(open.trim_feed().await.expect("trimmed") > 0);
    let (rev, oldest) = feed(&open).await;
    assert_eq!(rev - oldest, keep);
    let mut conn = open.catalog_pool().acquire().await.expect("catalog");
    let left = "SELECT count(*) FROM catalog.change c, catalog.revision r WHERE c.rev <= r.oldest";
    assert_eq!(count(&mut conn, left).await, 0);
    assert_eq!(count(&mut conn, "SELECT count(DISTINCT rev) FROM catalog.change").await, keep);
    assert_eq!(open.trim_feed().await.expect("nothing more"), 0);
}
