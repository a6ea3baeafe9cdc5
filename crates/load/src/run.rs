//! A run from its beginning to its report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::plan::Plan;
use crate::report::{Moment, Report, TenantReport, quantile};
use crate::tally::{Counter, Tally};
use crate::worker::{Job, work};

/// Between two looks at the counters: a point of the plots, a redraw of the live view.
const TICK: Duration = Duration::from_secs(1);

/// From when all connections are open until the first request: every worker is waiting by then.
const LEAD: Duration = Duration::from_millis(20);

/// One look, for whoever watches.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Since the first counted request was due.
    pub elapsed: Duration,
    /// By tenant, as in the plan.
    pub tenants: Vec<Live>,
}

/// A tenant's last second.
#[derive(Clone, Debug)]
pub struct Live {
    /// As in the plan.
    pub name: String,
    /// The last second.
    pub now: Moment,
    /// Ended so far.
    pub requests: u64,
}

/// Runs the plan; `watch` is told once a second. Ends early, with what there is, when `stop` is cancelled.
///
/// # Errors
/// When nobody listens there, or a thread cannot start. Failed requests are no errors: they are in the report.
pub async fn run(plan: Plan, stop: CancellationToken, mut watcher: impl FnMut(&Progress)) -> Result<Report, Error> {
    check(&plan)?;
    let unreachable = |source| Error::Unreachable { addr: plan.addr.to_string(), source };
    drop(TcpStream::connect(plan.addr).await.map_err(unreachable)?);
    let plan = Arc::new(plan);
    let counters: Vec<Vec<Arc<Counter>>> =
        (0..plan.threads).map(|_| plan.traffic.iter().map(|_| Arc::new(Counter::default())).collect()).collect();
    let (start, started) = watch::channel(None);
    let (open, mut opened) = mpsc::channel(plan.threads);
    let mut workers = Vec::new();
    for (part, counters) in counters.iter().enumerate() {
        let job = Job {
            plan: plan.clone(),
            part,
            counters: counters.clone(),
            start: started.clone(),
            open: open.clone(),
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new().name(format!("load-{part}"));
        workers.push(thread.spawn(move || work(job)).map_err(Error::Worker)?);
    }
    drop(open);
    for _ in 0..plan.threads {
        opened.recv().await;
    }
    let begin = Instant::now() + LEAD;
    let (cpu, begun_at) = (cpu_seconds(), std::time::SystemTime::now());
    let _ = start.send(Some(begin));

    let mut ledger = Ledger::new(&plan, begin + plan.warmup, counters);
    let ended = tokio::task::spawn_blocking(move || {
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err(Error::Worker(std::io::Error::other("it panicked")))))
    });
    let mut tick = tokio::time::interval_at((begin + plan.warmup + TICK).into(), TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(ended);
    loop {
        tokio::select! {
            done = &mut ended => {
                done.unwrap_or_else(|fault| Err(Error::Worker(std::io::Error::other(fault))))?;
                break;
            }
            _ = tick.tick() => watcher(&ledger.look()),
        }
    }
    let spent = cpu_seconds() - cpu;
    Ok(ledger.report(&plan, begun_at, spent))
}

fn check(plan: &Plan) -> Result<(), Error> {
    let fault = |text: &str| Err(Error::Invalid(text.to_owned()));
    match () {
        () if plan.traffic.is_empty() => fault("no tenants"),
        () if plan.length.is_zero() => fault("the run must last longer than nothing"),
        () if !(1..=256).contains(&plan.threads) => fault("threads: from 1 to 256"),
        () if plan.traffic.iter().any(|t| !(1..=65_536).contains(&t.connections)) => {
            fault("connections: from 1 to 65536 for each tenant")
        }
        () => Ok(()),
    }
}

/// CPU time of this process so far.
fn cpu_seconds() -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "seconds of a run")]
    getrusage(UsageWho::RUSAGE_SELF).map_or(0.0, |usage| {
        [usage.user_time(), usage.system_time()].iter().map(|t| t.tv_sec() as f64 + t.tv_usec() as f64 / 1e6).sum()
    })
}

/// All that was counted, by tenant.
struct Ledger {
    names: Vec<String>,
    /// By worker, then tenant.
    counters: Vec<Vec<Arc<Counter>>>,
    totals: Vec<Tally>,
    moments: Vec<Vec<Moment>>,
    counted_from: Instant,
    looked: Instant,
    /// Scratch: as large as a tally, so made once.
    last: Tally,
}

impl Ledger {
    fn new(plan: &Plan, counted_from: Instant, counters: Vec<Vec<Arc<Counter>>>) -> Self {
        Self {
            names: plan.traffic.iter().map(|t| t.name.clone()).collect(),
            counters,
            totals: plan.traffic.iter().map(|_| Tally::default()).collect(),
            moments: plan.traffic.iter().map(|_| Vec::new()).collect(),
            counted_from,
            looked: counted_from,
            last: Tally::default(),
        }
    }

    fn look(&mut self) -> Progress {
        let now = Instant::now();
        let span = now.saturating_duration_since(self.looked).as_secs_f64().max(1e-3);
        let elapsed = now.saturating_duration_since(self.counted_from);
        self.looked = now;
        let mut tenants = Vec::new();
        for (no, name) in self.names.iter().enumerate() {
            self.last.clear();
            for worker in &self.counters {
                worker[no].take(&mut self.last);
            }
            self.totals[no].add(&self.last);
            let now = moment(elapsed, span, &self.last);
            self.moments[no].push(now.clone());
            tenants.push(Live { name: name.clone(), now, requests: self.totals[no].requests() });
        }
        Progress { elapsed, tenants }
    }

    fn report(mut self, plan: &Plan, begun_at: std::time::SystemTime, cpu: f64) -> Report {
        // The rest: also answers that came after the end, to requests that were due before it.
        for (no, total) in self.totals.iter_mut().enumerate() {
            self.last.clear();
            for worker in &self.counters {
                worker[no].take(&mut self.last);
            }
            total.add(&self.last);
        }
        let counted =
            self.looked.max(self.counted_from + plan.length.min(Instant::now() - self.counted_from)) - self.counted_from;
        let length = counted.min(plan.length);
        let mut all = Tally::default();
        self.totals.iter().for_each(|total| all.add(total));
        let tenants = self.names.iter().zip(&self.totals).zip(self.moments).zip(&plan.traffic);
        let tenants = tenants
            .map(|(((name, total), moments), traffic)| TenantReport::new(name, traffic.rate.to_string(), total, length, moments))
            .collect();
        let total = TenantReport::new("all", String::new(), &all, length, Vec::new());
        Report::new(plan, begun_at, length, cpu, &all, tenants, total)
    }
}

fn moment(elapsed: Duration, span: f64, tally: &Tally) -> Moment {
    #[allow(clippy::cast_precision_loss, reason = "requests of a second")]
    let per_second = |count: u64| (count as f64 / span * 10.0).round() / 10.0;
    Moment {
        second: (elapsed.as_secs_f64() * 10.0).round() / 10.0,
        rps: per_second(tally.requests()),
        served: per_second(tally.served()),
        errors: tally.requests() - tally.served(),
        p50_us: quantile(&tally.latency, 0.5),
        p99_us: quantile(&tally.latency, 0.99),
        max_us: tally.latency.max(),
    }
}
