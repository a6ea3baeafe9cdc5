//! One thread that sends: a runtime, a dispatcher with an exact timer, and a task for each connection.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::connection::Connection;
use crate::error::Error;
use crate::lane::{Lane, Pokes};
use crate::plan::{Plan, Target};
use crate::schedule::Schedule;
use crate::tally::{Counter, Failure, Outcome};
use crate::timer::Timer;

/// After the end, for what was due before it and could not be sent at once.
const GRACE: Duration = Duration::from_secs(1);

/// What a worker has to do.
pub(crate) struct Job {
    pub(crate) plan: Arc<Plan>,
    /// This one's number, from 0.
    pub(crate) part: usize,
    /// By tenant, as in the plan.
    pub(crate) counters: Vec<Arc<Counter>>,
    /// Says when the clock starts, once every worker's connections are open.
    pub(crate) start: tokio::sync::watch::Receiver<Option<Instant>>,
    /// Told when this worker's connections are open.
    pub(crate) open: tokio::sync::mpsc::Sender<()>,
    pub(crate) stop: CancellationToken,
}

/// How many of `total` things fall to worker `part` of `parts`.
pub(crate) const fn share(total: usize, part: usize, parts: usize) -> usize {
    total / parts + if part < total % parts { 1 } else { 0 }
}

/// A tenant as one of its connections sees it.
struct Post {
    lane: Lane,
    target: Target,
    counter: Arc<Counter>,
    timeout: Duration,
    counted_from: Instant,
}

/// Runs to the end of the plan.
pub(crate) fn work(job: Job) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Worker)?;
    let outcome = runtime.block_on(run(job));
    runtime.shutdown_background();
    outcome
}

async fn run(mut job: Job) -> Result<(), Error> {
    let plan = job.plan.clone();
    let mut connections = Vec::new();
    for traffic in &plan.traffic {
        let mut own = Vec::new();
        for _ in 0..share(traffic.connections, job.part, plan.threads) {
            let mut connection = Connection::new(plan.addr);
            // One that cannot be opened now is tried again when it is needed, and counted then.
            let _ = connection.open().await;
            own.push(connection);
        }
        connections.push(own);
    }
    let _ = job.open.send(()).await;
    let Ok(Some(start)) = job.start.wait_for(Option::is_some).await.map(|start| *start) else { return Ok(()) };
    let end = start + plan.warmup + plan.length;
    let pokes = Arc::new(Pokes::default());
    let posts: Vec<Arc<Post>> = (0..plan.traffic.len()).map(|no| Arc::new(post(&job, no, start, end, &pokes))).collect();
    let mut tasks = JoinSet::new();
    for (post, connections) in posts.iter().zip(connections) {
        for (seat, connection) in connections.into_iter().enumerate() {
            tasks.spawn(carry(post.clone(), seat, connection));
        }
    }
    let stopped = tokio::select! {
        done = dispatch(&posts, &pokes, end) => done.map(|()| end),
        () = job.stop.cancelled() => Ok(Instant::now().min(end)),
    }
    .map_err(Error::Worker)?;
    if stopped == end {
        let _ = tokio::time::timeout(GRACE.min(plan.timeout), caught_up(&posts)).await;
    }
    let stopped = stopped.max(Instant::now().min(end + GRACE));
    for post in &posts {
        // What nobody got round to sending has waited at least until now.
        for due in post.lane.unsent(stopped).into_iter().filter(|due| *due >= post.counted_from) {
            post.counter.record(Outcome::Failed(Failure::Unsent), stopped - due, None, None, 0);
        }
        post.lane.close();
    }
    let _ = tokio::time::timeout(plan.timeout, async { while tasks.join_next().await.is_some() {} }).await;
    Ok(())
}

fn post(job: &Job, no: usize, start: Instant, end: Instant, pokes: &Arc<Pokes>) -> Post {
    let (plan, traffic) = (&job.plan, &job.plan.traffic[no]);
    // A tenant with fewer connections than there are threads has them on the first ones.
    let parts = traffic.connections.min(plan.threads);
    let connections = share(traffic.connections, job.part, plan.threads);
    let part = job.part.min(parts - 1);
    let schedule = Schedule::new(traffic.rate, plan.arrivals, start, if connections == 0 { start } else { end }, part, parts);
    Post {
        lane: Lane::new(no, schedule, connections, pokes.clone()),
        target: traffic.target.clone(),
        counter: job.counters[no].clone(),
        timeout: plan.timeout,
        counted_from: start + plan.warmup,
    }
}

/// Hands out slots at their times.
async fn dispatch(posts: &[Arc<Post>], pokes: &Pokes, end: Instant) -> std::io::Result<()> {
    let timer = Timer::new()?;
    let mut due: BinaryHeap<Reverse<(Instant, usize)>> = BinaryHeap::new();
    loop {
        let now = Instant::now();
        due.extend(pokes.take().into_iter().map(|no| Reverse((now, no))));
        while let Some(Reverse((_, no))) = due.peek().filter(|Reverse((then, _))| *then <= now).copied() {
            due.pop();
            due.extend(posts[no].lane.dispatch(now).map(|then| Reverse((then, no))));
        }
        if now >= end {
            return Ok(());
        }
        let next = due.peek().map_or(end, |Reverse((then, _))| (*then).min(end));
        tokio::select! {
            fired = timer.until(Some(next)) => fired?,
            () = pokes.wait() => {}
        }
    }
}

/// Waits until all that was due is sent.
async fn caught_up(posts: &[Arc<Post>]) {
    let mut look = tokio::time::interval(Duration::from_millis(1));
    while posts.iter().any(|post| !post.lane.is_done()) {
        look.tick().await;
    }
}

/// The life of a connection.
async fn carry(post: Arc<Post>, seat: usize, mut connection: Connection) {
    while let Some(slot) = post.lane.next(seat).await {
        let sent = Instant::now();
        let exchange = tokio::time::timeout(post.timeout, connection.exchange(&post.target)).await;
        let ended = Instant::now();
        let (outcome, bytes, reconnected) = match exchange {
            Ok(exchange) => (exchange.outcome, exchange.bytes, exchange.reconnected),
            Err(_) => {
                connection.close();
                (Outcome::Failed(Failure::Timeout), 0, false)
            }
        };
        if slot.due < post.counted_from {
            continue;
        }
        if reconnected {
            post.counter.reconnected();
        }
        let lag = slot.stood_by.then(|| sent - slot.due);
        post.counter.record(outcome, ended - slot.due, Some(ended - sent), lag, bytes);
    }
}
