//! The whole decision of the edge (whose request, may it go on, is its cell worth asking, and giving everything back), 100,000 active of
//! 1,000,000 tenants, four threads.
//!
//! Each decision is timed by itself, two looks at the clock included: the first is the one that admission goes by, as in the gateway, where it is when
//! the request began. The head of the request is made outside of the timed part, as the connection's parser would have made it a moment ago. That deciding allocates nothing is a test's business
//! (`crates/http/tests/it/admit.rs`, with a counting allocator).
//!
//! Taking the tenant's route is not part of it: nothing that the gateway does for an ordinary request looks at more of a tenant than what a decision
//! hands out (decision 0081). An application's layer does take it; what a decision takes together with that stands beside it.
//!
//! Which tenants are active has nothing to do with where they lie in memory: a tenth of all, picked as if by chance. Beside it stands what it takes
//! when each tenth is active, one as far from the next as all others: such places share few sets of the processor's caches, which then hold less.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use http::header::HOST;
use http::{HeaderValue, Request};
use insula_catalog::{Catalog, Options};
use insula_core::{Limits, TenantId};
use insula_http::admit::{Admission, AdmissionConfig, ClassConfig, Outcome as Fate};
use insula_http::resolve::{Asked, Resolved, Resolver};
use tokio::runtime::Runtime;

use super::route_lookup::{Synthetic, TENANTS, as_f64, host, lock, resident};
use crate::{Outcome, Row, Target};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "decision", about: "resolve, admit, breaker and back, 100,000 active of 1,000,000 tenants, 4 threads", run };

const ACTIVE: usize = 100_000;
const THREADS: usize = 4;
/// Decisions of one thread in one round.
const DECISIONS: usize = 500_000;
const ROUNDS: usize = 9;

/// Which tenants are active.
#[derive(Clone, Copy)]
enum Active {
    Chance,
    EachTenth,
}

impl Active {
    /// The tenant that the `n`th of the active is.
    const fn tenant(self, n: usize) -> usize {
        match self {
            Self::EachTenth => n * (TENANTS / ACTIVE) + 3,
            Self::Chance => {
                // A permutation of 20 bits (two rounds of multiplying and folding), again and again until it is a tenant.
                let mut at = n;
                loop {
                    at = at.wrapping_mul(0x9_e377) & MASK;
                    at ^= at >> 10;
                    at = at.wrapping_mul(0x7_feb3) & MASK;
                    at ^= at >> 11;
                    if at < TENANTS {
                        return at;
                    }
                }
            }
        }
    }
}

/// As many numbers as there are tenants, and a few more.
const MASK: usize = (1 << 20) - 1;

fn run() -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    // High enough that the decision is always yes, which is the longer way.
    let limits = Limits { requests_per_second: 1_000_000, request_burst: 1_000_000, ..Limits::default() };
    let source = Synthetic { limits, ..Synthetic::default() };
    let ids = Arc::clone(&source.ids);
    let before = resident()?;
    let catalog = runtime.block_on(async {
        let catalog = Catalog::start(source, Options { poll: Duration::from_secs(3_600), ..Options::default() });
        catalog.ready().await;
        catalog
    });
    // The list of ids is the benchmark's own.
    *lock(&ids) = Vec::new();
    let class = ClassConfig { name: "export".parse()?, paths: vec!["/exports/**".into()], methods: vec![], max_in_flight: None };
    let admission = Admission::new(AdmissionConfig { classes: vec![class], ..AdmissionConfig::default() })?;
    let resolver = Resolver::default().ahead_of(&admission);

    let (mut medians, mut tails, mut resolved) = (Vec::new(), Vec::new(), Vec::new());
    let (mut even, mut taken) = (Vec::new(), Vec::new());
    let house = House { catalog: &catalog, resolver: &resolver, admission: &admission };
    for round in 0..=ROUNDS {
        let (regular, _) = measure(house, Active::EachTenth, false, round as u64 + 100)?;
        let (with_route, _) = measure(house, Active::Chance, true, round as u64 + 200)?;
        // Afterwards, others have been at the caches.
        let (histogram, first) = measure(house, Active::Chance, false, round as u64 + 1)?;
        if round > 0 {
            even.push(as_f64(usize::try_from(regular.value_at_quantile(0.5))?));
            taken.push(as_f64(usize::try_from(with_route.value_at_quantile(0.5))?));
            resolved.push(as_f64(usize::try_from(first.value_at_quantile(0.5))?));
            medians.push(as_f64(usize::try_from(histogram.value_at_quantile(0.5))?));
            tails.push(as_f64(usize::try_from(histogram.value_at_quantile(0.99))?));
        }
    }
    let all = resident()?.saturating_sub(before).saturating_sub(TENANTS * size_of::<TenantId>());
    let spread = |of: &[f64]| format!("median of {ROUNDS} rounds of {}, {:.0} to {:.0}", THREADS * DECISIONS, low(of), high(of));
    let clock = clock();
    Ok(vec![
        Outcome::figure(
            "a decision, p50",
            median(&medians),
            "ns",
            Target::AtMost(500.0),
            format!("{}; {clock}", spread(&medians)),
        ),
        Outcome::figure("a decision, each tenth tenant active, p50", median(&even), "ns", Target::None, spread(&even)),
        Outcome::figure("a decision, and its tenant's route taken, p50", median(&taken), "ns", Target::None, spread(&taken)),
        Outcome::figure("a decision, p99", median(&tails), "ns", Target::AtMost(3_000.0), spread(&tails)),
        Outcome::figure(
            "of it to know whose request it is, p50",
            median(&resolved),
            "ns",
            Target::None,
            format!("the rest is admission: {:.0} ns", median(&medians) - median(&resolved)),
        ),
        Outcome::figure(
            "memory of catalog and admission",
            as_f64(all) / 1e6,
            "MB",
            Target::AtMost(600.0),
            format!("resident; admission's own state {:.1} MB", as_f64(admission.bytes()) / 1e6),
        ),
    ])
}

/// What decides.
#[derive(Clone, Copy)]
struct House<'a> {
    catalog: &'a Catalog,
    resolver: &'a Resolver,
    admission: &'a Admission,
}

fn measure(house: House<'_>, active: Active, takes: bool, seed: u64) -> Result<Times> {
    let (mut all, mut resolved) = (histogram()?, histogram()?);
    let parts: Vec<Result<Times>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS as u64).map(|t| scope.spawn(move || decisions(house, active, takes, seed * 31 + t))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    ensure!(parts.len() == THREADS, "a thread ended early");
    for part in parts {
        let (whole, first) = part?;
        all.add(whole)?;
        resolved.add(first)?;
    }
    Ok((all, resolved))
}

/// Of whole decisions, and of their first half.
type Times = (Histogram<u64>, Histogram<u64>);

fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 1_000_000_000, 3)?)
}

/// Decides again and again; if it `takes` a route, each time.
fn decisions(House { catalog, resolver, admission }: House<'_>, active: Active, takes: bool, seed: u64) -> Result<Times> {
    let (mut whole, mut first) = (histogram()?, histogram()?);
    let mut request = Request::get("/documents/7").body(())?;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..DECISIONS {
        // xorshift64* (Marsaglia; Vigna 2016).
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let pick = (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % ACTIVE;
        request.headers_mut().insert(HOST, HeaderValue::from_str(&host(active.tenant(pick)))?);
        let began = Instant::now();
        let asked = Asked::of(&request)?;
        // In the gateway's order: what is to be known of a tenant is fetched while everything else is looked at.
        resolver.expect(&asked.host, catalog);
        let class = admission.classes().of(request.method(), request.uri().path());
        let Resolved::Tenant { route, .. } = resolver.resolve(&asked, catalog)? else { anyhow::bail!("no tenant") };
        // Looked at in one of eight only: a look takes time as well.
        let looked = (state & 7 == 0).then(|| began.elapsed());
        let mut permit = admission.try_admit_at(&route, class, began).ok().context("refused")?;
        let taken = takes.then(|| route.arc());
        permit.finish(Fate::Sound);
        drop(black_box(permit));
        drop(black_box((route, taken)));
        match looked {
            Some(took) => first.record(u64::try_from(took.as_nanos())?)?,
            None => whole.record(u64::try_from(began.elapsed().as_nanos())?)?,
        }
    }
    Ok((whole, first))
}

/// What two looks at the clock cost, which is in every figure.
fn clock() -> String {
    let began = Instant::now();
    for _ in 0..10_000 {
        black_box(black_box(Instant::now()).elapsed());
    }
    format!("{:.0} ns of it for the clock", as_f64(usize::try_from(began.elapsed().as_nanos()).unwrap_or(0)) / 10_000.0)
}

fn median(of: &[f64]) -> f64 {
    crate::Samples(of.to_vec()).median()
}

fn low(of: &[f64]) -> f64 {
    of.iter().copied().fold(f64::MAX, f64::min)
}

fn high(of: &[f64]) -> f64 {
    of.iter().copied().fold(0.0, f64::max)
}
