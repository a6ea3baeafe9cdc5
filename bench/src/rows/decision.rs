//! The whole decision of the edge (whose request, may it go on, is its cell worth asking, and giving everything back), 100,000 active of
//! 1,000,000 tenants, four threads.
//!
//! Each decision is timed by itself, and what the clock reads when nothing is between two looks at it is taken off: it is no part of deciding, while
//! the two looks are that admission has itself. The head of the request is made outside of the timed part, as the connection's parser would have made it
//! a moment ago. That deciding allocates nothing is a test's business
//! (`crates/http/tests/it/admit.rs`, with a counting allocator).

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

    let (mut medians, mut tails, mut resolved, mut nothing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let (histogram, first) = measure(&catalog, &resolver, &admission, round as u64 + 1)?;
        if round > 0 {
            let empty = nothing_timed()?;
            let less = |reading: u64| Ok::<_, anyhow::Error>(as_f64(usize::try_from(reading)?) - empty);
            nothing.push(empty);
            resolved.push(less(first.value_at_quantile(0.5))?);
            medians.push(less(histogram.value_at_quantile(0.5))?);
            tails.push(less(histogram.value_at_quantile(0.99))?);
        }
    }
    let all = resident()?.saturating_sub(before).saturating_sub(TENANTS * size_of::<TenantId>());
    let spread = |of: &[f64]| format!("median of {ROUNDS} rounds of {}, {:.0} to {:.0}", THREADS * DECISIONS, low(of), high(of));
    let (looks, of) = (median(&nothing), median(&medians));
    let clock = format!("without {looks:.0} ns for a look at the clock, with which it was {:.0}", of + looks);
    Ok(vec![
        Outcome::figure(
            "a decision, p50",
            median(&medians),
            "ns",
            Target::AtMost(500.0),
            format!("{}; {clock}", spread(&medians)),
        ),
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

fn measure(catalog: &Catalog, resolver: &Resolver, admission: &Admission, seed: u64) -> Result<Times> {
    let (mut all, mut resolved) = (histogram()?, histogram()?);
    let parts: Vec<Result<Times>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS as u64).map(|t| scope.spawn(move || decisions(catalog, resolver, admission, seed * 31 + t))).collect();
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

fn decisions(catalog: &Catalog, resolver: &Resolver, admission: &Admission, seed: u64) -> Result<Times> {
    let (mut whole, mut first) = (histogram()?, histogram()?);
    let mut request = Request::get("/documents/7").body(())?;
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for _ in 0..DECISIONS {
        // xorshift64* (Marsaglia; Vigna 2016); the active tenants are strewn over all.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let pick = (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % ACTIVE;
        request.headers_mut().insert(HOST, HeaderValue::from_str(&host(pick * (TENANTS / ACTIVE) + 3))?);
        let began = Instant::now();
        let asked = Asked::of(&request)?;
        let Resolved::Tenant { route, .. } = resolver.resolve(&asked, catalog)? else { anyhow::bail!("no tenant") };
        // Looked at in one of eight only: a look takes time as well.
        let looked = (state & 7 == 0).then(|| began.elapsed());
        let class = admission.classes().of(request.method(), request.uri().path());
        let mut permit = admission.try_admit(&route, class).ok().context("refused")?;
        permit.finish(Fate::Sound);
        drop(black_box(permit));
        drop(black_box(route));
        match looked {
            Some(took) => first.record(u64::try_from(took.as_nanos())?)?,
            None => whole.record(u64::try_from(began.elapsed().as_nanos())?)?,
        }
    }
    Ok((whole, first))
}

/// What a timed part reads in which nothing is done: mean nanoseconds of many, by four threads as the decisions are.
fn nothing_timed() -> Result<f64> {
    const TIMES: u32 = 200_000;
    let one = || (0..TIMES).map(|_| black_box(black_box(Instant::now()).elapsed())).sum::<Duration>();
    let sums: Vec<Duration> = thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(one)).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    ensure!(sums.len() == THREADS, "a thread ended early");
    // The least disturbed: what else the machine does must not be taken off.
    Ok(sums.iter().min().copied().unwrap_or_default().as_secs_f64() * 1e9 / f64::from(TIMES))
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
