//! The tenant cache: what a hit costs against a plain `quick_cache`, and what a noisy tenant costs the others.
//!
//! A hit is everything that a handler pays: the tenant's cache made from its route, the key built, scope, generation and time to live checked, the
//! use counted for eviction and for the tier's metric, the value's type proven. The peer has the same number of entries, of the same
//! values, under `(tenant, key)`. Both take routes that were touched a moment ago, as a request's is. Counted is the threads' CPU time: whoever else
//! uses the machine takes wall time from both, and a hit never sleeps.

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use insula_cache::{Cache, CacheConfig, Resource};
use insula_catalog::{Catalog, Options, Route};
use insula_telemetry::cpu;
use quick_cache::sync::Cache as Plain;
use tokio::runtime::Runtime;

use super::route_lookup::{Synthetic, TENANTS, as_f64, lock};
use crate::{Outcome, Row, Target, interleave};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "cache", about: "a hit, 100,000 tenants, 4 threads, against quick_cache; a noisy tenant's neighbours", run };

const ACTIVE: usize = 100_000;
const THREADS: usize = 4;
/// Hits of one thread in one round.
const HITS: usize = 1_000_000;
const ROUNDS: usize = 15;
/// Hits between two looks at the clock.
const BLOCK: usize = 256;

const NUMBERS: Resource<u64, u64> = Resource::new("numbers").ttl(Duration::from_secs(3_600));
const PAGES: Resource<u64, Vec<u8>> = Resource::new("pages").ttl(Duration::from_secs(3_600)).weighed_by(Vec::len);

fn run() -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    let source = Synthetic::default();
    let ids = Arc::clone(&source.ids);
    let catalog = runtime.block_on(async {
        let catalog = Catalog::start(source, Options { poll: Duration::from_secs(3_600), ..Options::default() });
        catalog.ready().await;
        catalog
    });
    let ids = std::mem::take(&mut *lock(&ids));
    let routes: Vec<Arc<Route>> = ids.iter().step_by(TENANTS / ACTIVE).filter_map(|id| Some(catalog.by_id(*id)?.arc())).collect();
    ensure!(routes.len() == ACTIVE, "the catalog is not as it should be");
    Ok(vec![hits(&runtime, &routes)?, neighbours(&runtime, &routes[..1_000])?])
}

fn hits(runtime: &Runtime, routes: &[Arc<Route>]) -> Result<Outcome> {
    let cache = Cache::new(CacheConfig { capacity: 1 << 30, ..CacheConfig::default() });
    let plain: Plain<(i64, u64), Arc<u64>> = Plain::new(ACTIVE * 2);
    for route in routes {
        let value = runtime.block_on(cache.of(route).get_or_load(&NUMBERS, &7, || async { Ok::<_, Infallible>(1) }))?;
        plain.insert((route.no.get(), 7), value);
    }
    ensure!(plain.len() == ACTIVE, "the peer has not kept everything");
    let ours = |route: &Route| cache.of(route).get(&NUMBERS, &7).flatten().map(|value| *value);
    let peer = |route: &Route| plain.get(&(route.no.get(), 7)).map(|value| *value);
    let pair = interleave(ROUNDS, || round(routes, ours), || round(routes, peer))?;
    Ok(Outcome::ratio("a cache hit against quick_cache", pair.ratio(), Target::AtMost(1.5), pair.detail("ns")))
}

/// Nanoseconds a hit, of all threads.
fn round(routes: &[Arc<Route>], look: impl Fn(&Route) -> Option<u64> + Sync) -> Result<f64> {
    let took: Vec<Option<Duration>> = thread::scope(|scope| {
        let look = &look;
        let threads: Vec<_> = (0..THREADS as u64).map(|seed| scope.spawn(move || looks(routes, look, seed + 1))).collect();
        threads.into_iter().map(|thread| thread.join().ok().flatten()).collect()
    });
    let all: Duration = took.into_iter().collect::<Option<Vec<_>>>().context("something was not there")?.iter().sum();
    Ok(all.as_secs_f64() * 1e9 / as_f64(THREADS * HITS))
}

/// `None` when something was not there.
fn looks(routes: &[Arc<Route>], look: impl Fn(&Route) -> Option<u64>, seed: u64) -> Option<Duration> {
    let mut random = Random::new(seed);
    let (mut took, mut found) = (Duration::ZERO, 0);
    let mut block: Vec<&Route> = Vec::with_capacity(BLOCK);
    for _ in 0..HITS / BLOCK {
        block.clear();
        block.extend((0..BLOCK).map(|_| &*routes[random.below(routes.len())]));
        // The request has its route, and its plan, at hand: its context and its grant are made from them.
        let at_hand = |route: &&Route| {
            route.no.get() + i64::from(route.plan.tier.weight) + route.placement.epoch + route.id.uuid().as_u128() as i64
        };
        black_box(block.iter().map(at_hand).fold(0, i64::wrapping_add));
        let began = cpu::thread();
        for route in &block {
            found += black_box(look(route))?;
        }
        took += cpu::thread() - began;
    }
    (found as usize == HITS / BLOCK * BLOCK).then_some(took * (HITS as u32) / (HITS / BLOCK * BLOCK) as u32)
}

/// 999 tenants that together ask for half as much again as there is room for, without and with one that writes ten times the room.
fn neighbours(runtime: &Runtime, routes: &[Arc<Route>]) -> Result<Outcome> {
    const CAPACITY: u64 = 32 << 20;
    const PAGE: usize = 800;
    const READS: usize = 2_000_000;
    let writes = 10 * usize::try_from(CAPACITY)? / PAGE;
    let rate = |noise: bool| -> Result<f64> {
        let cache = Cache::new(CacheConfig { capacity: CAPACITY, ..CacheConfig::default() });
        let mut random = Random::new(7);
        let (mut hits, mut counted, mut written) = (0, 0, 0);
        let (loud, quiet) = routes.split_first().context("no tenants")?;
        for read in 0..READS {
            let tenant = &quiet[random.below(quiet.len())];
            // 48 pages of each, small numbers the more often (the square of an even chance).
            let page = (random.below(1_000) * random.below(1_000) * 48 / 1_000_000) as u64;
            let mut loaded = false;
            runtime.block_on(cache.of(tenant).get_or_load(&PAGES, &page, || {
                loaded = true;
                async { Ok::<_, Infallible>(vec![0; PAGE]) }
            }))?;
            if read > READS / 4 {
                counted += 1;
                hits += usize::from(!loaded);
                while noise && written * (READS - READS / 4) < writes * counted {
                    let value =
                        cache.of(loud).get_or_load(&PAGES, &(written as u64), || async { Ok::<_, Infallible>(vec![0; PAGE]) });
                    runtime.block_on(value)?;
                    written += 1;
                }
            }
        }
        let fill = cache.fill();
        ensure!(fill.bytes <= fill.capacity && fill.bytes > fill.capacity / 2, "{fill:?}");
        Ok(as_f64(hits) / as_f64(counted))
    };
    let (with, without) = (rate(true)?, rate(false)?);
    let detail = format!(
        "hit rates {with:.4} and {without:.4}; {writes} entries written, ten times the room; 999 tenants that ask for more than there is room for"
    );
    Ok(Outcome::ratio(
        "hit rate of a noisy tenant's neighbours against without it",
        with / without,
        Target::AtLeast(0.98),
        detail,
    ))
}

/// xorshift64* (Marsaglia; Vigna 2016).
struct Random(u64);

impl Random {
    const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        // The remainder fits.
        ((self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n as u64) as usize
    }
}
