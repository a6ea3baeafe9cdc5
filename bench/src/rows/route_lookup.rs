//! Route lookups in a catalog of a million tenants, against a plain `HashMap` of the same routes read by reference.
//!
//! Four threads; which tenant is asked for follows Zipf's law. Hosts lie one after the other in memory, so that what is measured
//! is the lookup, not the reading of the question. The catalog is filled through its own front door, by a source made for it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use insula_catalog::row::{Change, Changes, Page, TenantRow};
use insula_catalog::{Catalog, Error, Options, Route, Source, fake};
use insula_core::{Isolation, Limits, Plan, TenantId};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};

use crate::{Outcome, Row, Target, interleave};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "route-lookup", about: "route by host and by id, 1,000,000 tenants, 4 threads, zipf, against a HashMap", run };

pub(super) const TENANTS: usize = 1_000_000;
const THREADS: usize = 4;
/// Lookups of one thread in one round.
const LOOKUPS: usize = 1_000_000;
const ROUNDS: usize = 15;
const BOUND: Target = Target::AtMost(1.3);
/// After the load, before memory is looked at.
const POLLS: usize = 25;

fn run() -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    let source = Synthetic::default();
    let ids: Arc<Mutex<Vec<TenantId>>> = Arc::clone(&source.ids);
    lock(&ids).reserve_exact(TENANTS);

    let before = resident()?;
    let began = Instant::now();
    let catalog = runtime.block_on(async {
        let catalog = Catalog::start(source.clone(), Options { poll: Duration::from_secs(3600), ..Options::default() });
        catalog.ready().await;
        catalog
    });
    let loading = began.elapsed();
    // As in a process that goes on: what the load needed for a moment is given back while it polls.
    for _ in 0..POLLS {
        runtime.block_on(catalog.refresh())?;
        thread::park_timeout(Duration::from_millis(20));
    }
    // The list of ids is the benchmark's own.
    let bytes = resident()?.saturating_sub(before).saturating_sub(TENANTS * size_of::<TenantId>());
    let ids = std::mem::take(&mut *lock(&ids));
    ensure!(ids.len() == TENANTS && catalog.by_host(&host(0)).is_some(), "the catalog is not as it should be");

    let mut outcomes = vec![Outcome::figure(
        "memory of a tenant, all included",
        as_f64(bytes) / as_f64(TENANTS),
        "bytes",
        Target::AtMost(400.0),
        format!(
            "resident memory after {POLLS} polls; a fifth with settings of their own, 5% with a custom domain; loaded in {:.1} s",
            loading.as_secs_f64()
        ),
    )];
    let asked: Vec<Vec<u32>> = (0..THREADS).map(|seed| zipf(LOOKUPS, seed as u64 + 1)).collect();
    outcomes.extend(by_host(&catalog, &ids, &asked)?);
    outcomes.extend(by_id(&catalog, &ids, &asked)?);
    outcomes.push(change(&runtime, &catalog, &source, &ids)?);
    Ok(outcomes)
}

fn by_host(catalog: &Catalog, ids: &[TenantId], asked: &[Vec<u32>]) -> Result<Vec<Outcome>> {
    let hosts: Vec<Hosts> = asked.iter().map(|asked| Hosts::of(asked)).collect();
    let looked = || round(|t| hosts[t].each(|host| catalog.look(|view| view.by_host(host).map_or(0, |route| read(route)))));
    let held = || round(|t| hosts[t].each(|host| catalog.by_host(host).map_or(0, |route| read(&route))));
    let plain: HashMap<String, Route> = map(catalog, ids, |n, _| host(n));
    let peer = || round(|t| hosts[t].each(|host| plain.get(host).map_or(0, read)));
    let (a, b) = (interleave(ROUNDS, looked, peer)?, interleave(ROUNDS, held, peer)?);
    drop(plain);
    let quick: HashMap<String, Route, foldhash::fast::RandomState> = map(catalog, ids, |n, _| host(n));
    let peer = || round(|t| hosts[t].each(|host| quick.get(host).map_or(0, read)));
    let c = interleave(ROUNDS, looked, peer)?;
    Ok(vec![
        Outcome::ratio("by host against HashMap<String, Route>", a.ratio(), BOUND, a.detail("ns")),
        Outcome::ratio("by host, route held, against the same", b.ratio(), BOUND, b.detail("ns")),
        Outcome::ratio("by host against the same with foldhash", c.ratio(), Target::None, c.detail("ns")),
    ])
}

fn by_id(catalog: &Catalog, ids: &[TenantId], asked: &[Vec<u32>]) -> Result<Vec<Outcome>> {
    let asked: Vec<Vec<TenantId>> = asked.iter().map(|asked| asked.iter().map(|n| ids[*n as usize]).collect()).collect();
    let asked = &asked;
    let looked = || round(|t| each(&asked[t], |id| catalog.look(|view| view.by_id(id).map_or(0, |route| read(route)))));
    let held = || round(|t| each(&asked[t], |id| catalog.by_id(id).map_or(0, |route| read(&route))));
    // What a grant needs beside the route.
    let fenced = || {
        round(|t| {
            let fence = |route: &Route, fence: i64| read(route).wrapping_add(fence.cast_unsigned());
            each(&asked[t], |id| catalog.look(|view| view.by_id(id).map_or(0, |route| fence(route, view.fence_of(route)))))
        })
    };
    let plain: HashMap<TenantId, Route> = map(catalog, ids, |_, id| id);
    let peer = || round(|t| each(&asked[t], |id| plain.get(&id).map_or(0, read)));
    let (a, b) = (interleave(ROUNDS, looked, peer)?, interleave(ROUNDS, held, peer)?);
    let fenced = interleave(ROUNDS, fenced, peer)?;
    drop(plain);
    let quick: HashMap<TenantId, Route, foldhash::fast::RandomState> = map(catalog, ids, |_, id| id);
    let peer = || round(|t| each(&asked[t], |id| quick.get(&id).map_or(0, read)));
    let c = interleave(ROUNDS, looked, peer)?;
    Ok(vec![
        Outcome::ratio("by id against HashMap<TenantId, Route>", a.ratio(), BOUND, a.detail("ns")),
        Outcome::ratio("by id, route held, against the same", b.ratio(), BOUND, b.detail("ns")),
        Outcome::ratio("by id and its fence, against the same", fenced.ratio(), Target::None, fenced.detail("ns")),
        Outcome::ratio("by id against the same with foldhash", c.ratio(), Target::None, c.detail("ns")),
    ])
}

fn each(ids: &[TenantId], look: impl Fn(TenantId) -> u64) -> u64 {
    ids.iter().fold(0, |sum: u64, id| sum.wrapping_add(look(*id)))
}

/// From a change in the source to its end in the snapshot: one tenant of a million.
fn change(runtime: &Runtime, catalog: &Catalog, source: &Synthetic, ids: &[TenantId]) -> Result<Outcome> {
    let mut took = Vec::new();
    for n in (0..TENANTS).step_by(TENANTS / 200) {
        let mut row = tenant(n, ids[n])?;
        row.placement.epoch = 2;
        lock(&source.pending).push(Change::Tenant(row.id, Some(Box::new(row))));
        let began = Instant::now();
        runtime.block_on(catalog.refresh())?;
        took.push(began.elapsed().as_secs_f64() * 1e6);
        ensure!(catalog.by_id(ids[n]).is_some_and(|route| route.placement.epoch == 2), "the change is not seen");
    }
    took.sort_by(f64::total_cmp);
    let detail = format!("{} changes, one by one; p99 {:.0} µs", took.len(), took[took.len() * 99 / 100]);
    Ok(Outcome::figure("a change of one tenant, refresh to seen", took[took.len() / 2], "µs", Target::None, detail))
}

/// What a request reads of its route.
fn read(route: &Route) -> u64 {
    (route.no.get() ^ route.placement.epoch).cast_unsigned() ^ route.state() as u64
}

fn map<K: Eq + Hash, S: BuildHasher + Default>(
    catalog: &Catalog,
    ids: &[TenantId],
    key: impl Fn(usize, TenantId) -> K,
) -> HashMap<K, Route, S> {
    let route = |id| catalog.by_id(id).map(|route| Route::clone(&route));
    ids.iter().enumerate().filter_map(|(n, id)| Some((key(n, *id), route(*id)?))).collect()
}

/// Runs the threads and answers nanoseconds a lookup.
fn round(work: impl Fn(usize) -> u64 + Sync) -> Result<f64> {
    let began = Instant::now();
    thread::scope(|scope| {
        for t in 0..THREADS {
            let work = &work;
            scope.spawn(move || black_box(work(t)));
        }
    });
    Ok(began.elapsed().as_secs_f64() * 1e9 / as_f64(LOOKUPS))
}

/// The hosts that one thread asks for, in one piece of memory.
struct Hosts {
    text: String,
    ends: Vec<u32>,
}

impl Hosts {
    fn of(asked: &[u32]) -> Self {
        let mut hosts = Self { text: String::new(), ends: Vec::new() };
        for n in asked {
            hosts.text.push_str(&host(*n as usize));
            hosts.ends.push(u32::try_from(hosts.text.len()).unwrap_or(u32::MAX));
        }
        hosts
    }

    fn each(&self, look: impl Fn(&str) -> u64) -> u64 {
        let mut start = 0;
        let mut sum: u64 = 0;
        for end in &self.ends {
            let end = *end as usize;
            sum = sum.wrapping_add(look(&self.text[start..end]));
            start = end;
        }
        sum
    }
}

fn slug(n: usize) -> String {
    format!("customer-{n}")
}

pub(super) fn host(n: usize) -> String {
    format!("{}.localhost", slug(n))
}

/// Tenants by Zipf's law (exponent 1): rank r is asked for in proportion to 1/r. Ranks are strewn over the tenants.
fn zipf(count: usize, seed: u64) -> Vec<u32> {
    let mut sum = 0.0;
    let cumulated: Vec<f64> = (1..=TENANTS)
        .map(|rank| {
            sum += 1.0 / as_f64(rank);
            sum
        })
        .collect();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..count)
        .map(|_| {
            // xorshift64* (Marsaglia; Vigna 2016).
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let random = (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64;
            let rank = cumulated.partition_point(|c| *c < random * sum).min(TENANTS - 1);
            // A prime that does not divide the number of tenants: a permutation.
            u32::try_from((rank * 7_919_337 + 17) % TENANTS).unwrap_or(0)
        })
        .collect()
}

/// The `n`th tenant: most are `row` tenants with default settings; some have a schema, a database, a look, a domain of their own.
fn tenant(n: usize, id: TenantId) -> Result<TenantRow> {
    let mut row = fake::tenant(&slug(n), i64::try_from(n)? + 1, ["bronze", "silver"][n % 2], "main")?;
    row.id = id;
    row.name = format!("Customer {n} Limited");
    let digits = id.uuid().as_u128() as u64;
    if n.is_multiple_of(20) {
        row.placement.isolation = Isolation::Schema;
        row.placement.schema = format!("s{digits:016x}").into();
        row.placement.database = "insula_schemas".into();
    }
    if n % 5 == 1 {
        let color = format!("#{:06x}", n & 0xff_ffff);
        row.settings = serde_json::from_value(serde_json::json!({"brand_name": format!("Brand {n}"), "color": color}))?;
    }
    if n % 20 == 2 {
        row.domains.push(format!("docs.customer-{n}.example"));
    }
    Ok(row)
}

/// A source that makes its tenants up as it sends them, so that the benchmark's memory is the catalog's.
#[derive(Clone, Default)]
pub(super) struct Synthetic {
    pub(super) ids: Arc<Mutex<Vec<TenantId>>>,
    pub(super) pending: Arc<Mutex<Vec<Change>>>,
    /// Of every plan.
    pub(super) limits: Limits,
}

impl Source for Synthetic {
    async fn load(&self, pages: mpsc::Sender<Page>) -> Result<i64, Error> {
        let made = |error: String| Error::Row { what: "made-up tenant".into(), detail: error };
        let plan = |name| fake::plan(name).map(|plan| Plan { limits: self.limits.clone(), ..plan });
        let fixed = || -> Result<_, insula_core::slug::NameError> {
            Ok([
                Page::Plans(vec![plan("bronze")?, plan("silver")?]),
                Page::Cells(vec![fake::cell("main", "127.0.0.1", 5432)?]),
                Page::Databases(vec![fake::database("main", "insula_pool", 1)?, fake::database("main", "insula_schemas", 1)?]),
            ])
        };
        for page in fixed().map_err(|error| made(error.to_string()))? {
            pages.send(page).await.map_err(|_| Error::Stopped)?;
        }
        for start in (0..TENANTS).step_by(5_000) {
            let mut rows = Vec::with_capacity(5_000);
            for n in start..(start + 5_000).min(TENANTS) {
                let id = TenantId::new();
                lock(&self.ids).push(id);
                rows.push(tenant(n, id).map_err(|error| made(error.to_string()))?);
            }
            pages.send(Page::Tenants(rows)).await.map_err(|_| Error::Stopped)?;
        }
        Ok(1)
    }

    async fn changes(&self, since: i64) -> Result<Changes, Error> {
        Ok(Changes { revision: since + 1, changes: std::mem::take(&mut *lock(&self.pending)) })
    }

    fn wake_ups(&self) -> watch::Receiver<()> {
        watch::channel(()).1
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory of this process, bytes.
pub(super) fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in /proc/self/status")?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

pub(super) fn as_f64(n: usize) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark")]
    let n = n as f64;
    n
}
