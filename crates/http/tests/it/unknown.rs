//! Names that nobody knows: how often the catalog is asked, what is remembered, and what that hides.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use http::Request;
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::row::{Changes, Page};
use insula_catalog::{Catalog, Error, Options, Source};
use insula_http::resolve::{Asked, Refusal, Resolved, UnknownOptions};
use insula_http::{ResolveOptions, Resolver};
use tokio::sync::{mpsc, watch};

/// A source that counts how often it is asked, and pushes nothing.
#[derive(Clone)]
struct Counted {
    source: FakeSource,
    asked: Arc<AtomicUsize>,
    silence: watch::Sender<()>,
}

impl Source for Counted {
    async fn load(&self, pages: mpsc::Sender<Page>) -> Result<i64, Error> {
        self.source.load(pages).await
    }

    async fn changes(&self, since: i64) -> Result<Changes, Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.source.changes(since).await
    }

    fn wake_ups(&self) -> watch::Receiver<()> {
        self.silence.subscribe()
    }
}

struct Edge {
    counted: Counted,
    catalog: Catalog,
    resolver: Resolver,
}

/// A catalog without push, polled once a minute: what comes, comes by asking.
async fn edge(unknown: UnknownOptions) -> Edge {
    let source = FakeSource::new();
    source.change(|content| {
        content.put_plan(fake::plan("bronze").unwrap());
        content.put_cell(fake::cell("main", "127.0.0.1", 1).unwrap());
        content.put_database(fake::database("main", "insula_pool", 0).unwrap());
        content.put_tenant(fake::tenant("acme", 1, "bronze", "main").unwrap());
    });
    let counted = Counted { source, asked: Arc::default(), silence: watch::channel(()).0 };
    let catalog = Catalog::start(counted.clone(), Options { poll: Duration::from_secs(60), ..Options::default() });
    catalog.ready().await;
    let resolver = Resolver::new(ResolveOptions { unknown, ..ResolveOptions::default() }).unwrap();
    Edge { counted, catalog, resolver }
}

impl Edge {
    async fn find(&self, host: &str) -> Result<Resolved, Refusal> {
        let request = Request::get("/").header("host", host).body(()).unwrap();
        self.resolver.find(&Asked::of(&request)?, &self.catalog).await
    }

    async fn knows(&self, host: &str) -> bool {
        matches!(self.find(host).await, Ok(Resolved::Tenant { .. }))
    }

    fn asked(&self) -> usize {
        self.counted.asked.load(Ordering::Relaxed)
    }

    fn create(&self, slug: &str) {
        self.counted.source.change_silently(|content| content.put_tenant(fake::tenant(slug, 2, "bronze", "main").unwrap()));
    }
}

#[tokio::test]
async fn a_tenant_made_a_moment_ago_is_found_by_the_first_who_asks() {
    let edge = edge(UnknownOptions::default()).await;
    edge.create("fresh");
    assert!(edge.knows("fresh.localhost").await);
    assert_eq!(edge.asked(), 1);
}

#[tokio::test]
async fn an_unknown_name_is_remembered_and_asked_about_again_in_time() {
    let edge = edge(UnknownOptions { remember_ms: 200, ask_every_ms: 10, ..UnknownOptions::default() }).await;
    let began = Instant::now();
    for _ in 0..100 {
        assert!(!edge.knows("new.localhost").await);
    }
    // On a slow machine the hundred may last longer than the memory.
    let most = 3 + began.elapsed().as_millis() / 200;
    assert!(edge.asked() as u128 <= most, "{} of {most}", edge.asked());
    edge.create("new");
    let created = Instant::now();
    while !edge.knows("new.localhost").await {
        assert!(created.elapsed() < Duration::from_secs(10), "a new tenant is hidden for too long");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn whoever_asks_at_one_moment_shares_the_answer() {
    let edge = edge(UnknownOptions { ask_every_ms: 1, ..UnknownOptions::default() }).await;
    let hosts: Vec<_> = (0..200).map(|n| format!("nobody-{n}.localhost")).collect();
    let known = join_all(hosts.iter().map(|host| edge.knows(host))).await;
    assert!(known.iter().all(|known| !known));
    assert!(edge.asked() <= 3, "{}", edge.asked());
}

/// 100,000 names that nobody has, as fast as they can be sent, beside one that somebody has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_unknown_names_is_nobody_elses_problem() {
    let options = UnknownOptions { ask_every_ms: 100, waiting: 64, ..UnknownOptions::default() };
    let edge = Arc::new(edge(options).await);
    let began = Instant::now();
    let found = Arc::new(AtomicBool::new(false));
    let floods: Vec<_> = (0..4)
        .map(|flood| {
            let (edge, is_found) = (edge.clone(), found.clone());
            tokio::spawn(async move {
                // Each of the four sends four times as many as may wait, and goes on until the new one is found among them.
                for round in 0.. {
                    if round >= 100 && is_found.load(Ordering::Relaxed) {
                        return;
                    }
                    let hosts: Vec<_> = (0..256).map(|n| format!("x{flood}-{round}-{n}.localhost")).collect();
                    let found = join_all(hosts.iter().map(|host| edge.knows(host)));
                    // Those who wait give up, like clients that close: that must not make the next one ask at once.
                    drop(tokio::time::timeout(Duration::from_millis(10), found).await);
                    // Where none of them waits, the clock and the catalog's follower want their turn, too.
                    tokio::task::yield_now().await;
                    if round == 50 && flood == 0 {
                        edge.create("born-in-the-flood");
                    }
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    while floods.iter().any(|flood| !flood.is_finished()) {
        let asked = Instant::now();
        assert!(edge.knows("acme.localhost").await);
        took.push(asked.elapsed());
        if !found.load(Ordering::Relaxed) && edge.knows("born-in-the-flood.localhost").await {
            found.store(true, Ordering::Relaxed);
        }
        let is_late = began.elapsed() > Duration::from_secs(30);
        assert!(!is_late || found.load(Ordering::Relaxed), "a tenant made in the flood was never found");
        tokio::task::yield_now().await;
    }
    join_all(floods).await.into_iter().for_each(|flood| flood.unwrap());
    let seconds = began.elapsed().as_secs_f64();
    // Once each 100 ms, and the polls and first questions that are not bound to it.
    assert!(edge.asked() as f64 <= seconds * 10.0 + 3.0, "asked {} times in {seconds} s", edge.asked());
    // Most of them: a machine that has much to do stands still now and then.
    took.sort();
    let most = took[took.len() * 99 / 100];
    assert!(most < Duration::from_millis(500), "a known name took {most:?}");
}

/// As many names as come in a second, each asked about and remembered: what that costs is bounded, however many there are.
#[test]
fn names_that_nobody_has_take_no_memory() {
    const AT_ONCE: usize = 256;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Nobody waits for the catalog, so that the test takes no longer than it must; all are remembered for longer than it takes.
    let options = UnknownOptions { patience_ms: 0, remember_ms: 600_000, ask_every_ms: 60_000, waiting: 1_024, names: 1 << 12 };
    let edge = runtime.block_on(edge(options));
    let flood = |from: usize, rounds: usize| {
        runtime.block_on(async {
            for round in 0..rounds {
                let hosts: Vec<_> = (0..AT_ONCE).map(|n| format!("x{from}-{round}-{n}.localhost")).collect();
                let known = join_all(hosts.iter().map(|host| edge.knows(host))).await;
                assert!(known.iter().all(|known| !known));
            }
        });
    };
    // What is made once, like a thread's own tables, is made now.
    flood(0, 20);
    let began = Instant::now();
    let info = allocation_counter::measure(|| flood(1, 400));
    println!("{:.0} unknown names a second", 400.0 * AT_ONCE as f64 / began.elapsed().as_secs_f64());
    // A set of their hashes alone would keep eight bytes for each of 102,400.
    assert!(info.bytes_current < 64 << 10, "{} bytes are kept", info.bytes_current);
    assert!(info.bytes_max < 4 << 20, "{} bytes at once", info.bytes_max);
    // They were remembered: who asks again is answered without a wait.
    let last: Vec<_> = (0..AT_ONCE).map(|n| format!("x1-399-{n}.localhost")).collect();
    let at_once = last.iter().filter(|host| runtime.block_on(async { edge.find(host).now_or_never() }).is_some()).count();
    assert!(at_once > AT_ONCE * 9 / 10, "{at_once} of {AT_ONCE} were remembered");
}

#[tokio::test]
async fn when_the_catalog_is_away_the_answer_comes_in_bounded_time() {
    let edge = edge(UnknownOptions { patience_ms: 200, ..UnknownOptions::default() }).await;
    edge.counted.source.change_silently(|content| content.set_failing(true));
    let began = Instant::now();
    assert!(!edge.knows("nobody.localhost").await);
    assert!(edge.knows("acme.localhost").await);
    // Not until it is asked by itself, a minute later.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}
