//! What a process that serves tenants notices of them, in one handle: requests, usage, top tenants, objectives.
//!
//! For: the SDK and the gateway, which tell it of each request, and the admin port, which shows it. A thread of its own takes what was counted once
//! a second, writes it down and sends it ([`crate::usage::journal`]). Always: nothing here makes a request wait; what was counted before
//! [`Senses::close`] returns is on disk or delivered.

use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use insula_core::TenantNo;
use tokio::time::{Duration, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::logs;
use crate::requests::{AllSeries, Ending, Finished};
use crate::slo::{Objectives, STEP, Slo};
use crate::top::{Names, Top};
use crate::usage::journal::{Batch, Journal};
use crate::usage::{Amounts, Meter, Usage};

/// Between two looks at the counters: what a killed process loses at most.
pub const LOOK: Duration = Duration::from_secs(1);

/// Between two deliveries, and between two steps of the objectives, in looks.
#[allow(clippy::cast_possible_truncation, reason = "ten")]
const SEND_EVERY: u32 = (STEP.as_secs() / LOOK.as_secs()) as u32;

/// For the last delivery: what does not arrive by then waits on disk for the next start.
const LAST: Duration = Duration::from_secs(3);

/// Takes batches to where they are billed.
pub trait Deliver: Send + Sync + 'static {
    /// Returns when the batch has arrived, also when it had arrived before.
    fn deliver<'a>(&'a self, batch: &'a Batch) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>>;
}

/// Which meters a process bills: behind a gateway, requests are billed there, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Bills {
    /// All: nobody stands in front of it or behind.
    #[default]
    All,
    /// Requests and bytes: the gateway.
    Requests,
    /// CPU, database, rows: the application behind a gateway.
    Work,
}

impl Bills {
    const fn includes(self, meter: Meter) -> bool {
        match (self, meter) {
            (_, Meter::Errors | Meter::Throttled) => false,
            (Self::All, _) => true,
            (Self::Requests, meter) => matches!(meter, Meter::Requests | Meter::BytesIn | Meter::BytesOut),
            (Self::Work, meter) => matches!(meter, Meter::Cpu | Meter::Database | Meter::Rows),
        }
    }

    fn of(self, amounts: &Amounts) -> Amounts {
        Amounts(Meter::ALL.map(|meter| if self.includes(meter) { amounts.get(meter) } else { 0 }))
    }
}

/// How a process is to notice.
#[derive(Default)]
pub struct Settings {
    /// What is promised.
    pub objectives: Objectives,
    /// Folder in which usage waits until it is delivered; without one nothing is billed.
    pub spool: Option<PathBuf>,
    /// Where it is delivered to; without one it waits.
    pub deliver: Option<Arc<dyn Deliver>>,
    /// What this process bills.
    pub bills: Bills,
    /// A process like this one is about to end and has the folder until then: usage is kept in memory meanwhile.
    pub takes_over: bool,
}

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub struct Senses(Arc<Inner>);

#[derive(Default)]
struct Inner {
    usage: Usage,
    top: Top,
    series: AllSeries,
    slo: Slo,
    names: OnceLock<Box<Names>>,
    stop: Stop,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Ends the thread with the last handle.
#[derive(Default)]
struct Stop(CancellationToken);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

impl std::fmt::Debug for Senses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Senses").finish_non_exhaustive()
    }
}

impl Senses {
    /// Starts noticing. `Senses::default()` counts as well, but nobody takes what it counts: for tests.
    ///
    /// # Errors
    /// When the folder cannot be had, or the thread not started.
    pub fn start(settings: Settings) -> Result<Self, Error> {
        let Settings { objectives, spool, deliver, bills, takes_over } = settings;
        let (journal, awaited) = match spool.map(|folder| (Journal::open(&folder), folder)) {
            None => (None, None),
            Some((Ok(journal), _)) => (Some(journal), None),
            Some((Err(error), folder)) if takes_over && error.kind() == std::io::ErrorKind::WouldBlock => (None, Some(folder)),
            Some((Err(source), folder)) => return Err(Error::Journal { folder, source }),
        };
        let senses = Self(Arc::new(Inner { slo: Slo::new(objectives), ..Inner::default() }));
        let keeper = Keeper {
            usage: senses.0.usage.clone(),
            // Weak, so that forgetting every handle ends the thread as well.
            inner: Arc::downgrade(&senses.0),
            stop: senses.0.stop.0.clone(),
            journal,
            awaited,
            deliver,
            bills,
            unwritten: HashMap::new(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Thread)?;
        let thread = std::thread::Builder::new().name("senses".to_owned());
        let thread = thread.spawn(move || runtime.block_on(keeper.run())).map_err(Error::Thread)?;
        *senses.0.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(senses)
    }

    /// Who knows how tenants are called; the first to say so is asked.
    pub fn set_names(&self, names: Box<Names>) {
        let _already = self.0.names.set(names);
    }

    /// The counters of usage, for parts that count by themselves.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.0.usage
    }

    /// A request is over.
    pub fn finished(&self, request: &Finished<'_>) {
        let ending = request.ending();
        match &request.who {
            Some(who) => {
                self.0.series.count(&self.0.slo, who, request.class, ending, request.head);
                self.0.slo.count_tenant(who.slug, ending == Ending::Failed, request.head);
                self.0.usage.add_all(who.no, &amounts(request, ending));
            }
            None => metrics::counter!("insula_untenanted_requests_total", "ending" => ending.name()).increment(1),
        }
        logs::request(request);
    }

    /// What `/top` answers.
    #[must_use]
    pub fn top(&self) -> crate::top::View {
        let nobody: Box<Names> = Box::new(|_| HashMap::new());
        self.0.top.view(Instant::now(), self.0.names.get().unwrap_or(&nobody))
    }

    /// What `/slo` answers.
    #[must_use]
    pub fn slo(&self) -> crate::slo::View {
        self.0.slo.view()
    }

    /// Writes down and delivers what was counted; to be called when the last request is over. Blocks for a few seconds at most.
    pub fn close(&self) {
        self.0.stop.0.cancel();
        let thread = self.0.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // A panic there was reported by its own thread.
            let _ = thread.join();
        }
        crate::trace::close();
    }
}

fn amounts(request: &Finished<'_>, ending: Ending) -> Amounts {
    let mut amounts = Amounts::default();
    let mut set = |meter: Meter, amount: u64| amounts.0[meter as usize] = amount;
    set(Meter::Requests, 1);
    set(Meter::BytesIn, request.bytes_in);
    set(Meter::BytesOut, request.bytes_out);
    set(Meter::Cpu, u64::try_from(request.cpu.as_micros()).unwrap_or(u64::MAX));
    set(Meter::Errors, u64::from(ending == Ending::Failed));
    set(Meter::Throttled, u64::from(ending == Ending::Throttled));
    amounts
}

/// What runs on the thread.
struct Keeper {
    usage: Usage,
    inner: std::sync::Weak<Inner>,
    stop: CancellationToken,
    journal: Option<Journal>,
    /// The folder, while the process before this one has it.
    awaited: Option<PathBuf>,
    deliver: Option<Arc<dyn Deliver>>,
    bills: Bills,
    /// Drained, and not on disk yet: the disk was full.
    unwritten: HashMap<TenantNo, Amounts>,
}

impl Keeper {
    async fn run(mut self) {
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut look = 0u32;
        // What a process before this one left.
        self.send().await;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                _ = looks.tick() => {}
            }
            self.look();
            look = look.wrapping_add(1);
            if look.is_multiple_of(SEND_EVERY) {
                if let Some(inner) = self.inner.upgrade() {
                    inner.slo.step();
                }
                let stop = self.stop.clone();
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = self.send() => {}
                }
            }
        }
        self.look();
        if self.journal.is_none() && !self.unwritten.is_empty() {
            tracing::error!(tenants = self.unwritten.len(), "usage is lost: the process before still has its folder");
        }
        if timeout(LAST, self.send()).await.is_err() {
            tracing::warn!("usage was not delivered in time; it waits on disk for the next start");
        }
    }

    /// Takes what was counted, and writes it down.
    fn look(&mut self) {
        let used = self.usage.drain();
        if let Some(inner) = self.inner.upgrade() {
            inner.top.note(&used, Instant::now());
        }
        if let Some(Ok(journal)) = self.awaited.as_deref().map(Journal::open) {
            (self.journal, self.awaited) = (Some(journal), None);
        }
        if self.journal.is_none() && self.awaited.is_none() {
            return;
        }
        for (tenant, amounts) in used {
            let billed = self.bills.of(&amounts);
            if !billed.is_zero() {
                self.unwritten.entry(tenant).or_default().add(&billed);
            }
        }
        let Some(journal) = &mut self.journal else { return };
        let all: Vec<_> = self.unwritten.iter().map(|(tenant, amounts)| (*tenant, *amounts)).collect();
        match journal.append(&all, SystemTime::now()) {
            Ok(()) => self.unwritten.clear(),
            Err(error) => {
                metrics::counter!("insula_usage_journal_errors_total").increment(1);
                tracing::error!(%error, tenants = all.len(), "usage cannot be written down; it is kept in memory");
            }
        }
    }

    /// Makes a batch of what is written, and delivers what waits, oldest first.
    async fn send(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        if let Err(error) = send(journal, self.deliver.as_deref()).await {
            tracing::warn!(%error, "usage waits on disk: it could not be delivered");
        }
        #[allow(clippy::cast_precision_loss, reason = "files of a folder")]
        let waiting = journal.sealed().map_or(f64::NAN, |sealed| sealed.len() as f64);
        metrics::gauge!("insula_usage_batches_waiting").set(waiting);
    }
}

async fn send(journal: &mut Journal, deliver: Option<&dyn Deliver>) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    journal.seal().map_err(text)?;
    let Some(deliver) = deliver else { return Ok(()) };
    for id in journal.sealed().map_err(text)? {
        for part in journal.read(id).map_err(text)? {
            deliver.deliver(&part).await?;
            metrics::counter!("insula_usage_delivered_total").increment(1);
        }
        journal.remove(id).map_err(text)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "senses_tests.rs"]
mod tests;
