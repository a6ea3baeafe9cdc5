//! The kinds that a process can run, and what its code declares that comes again.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;

use insula_catalog::Route;

use crate::context::JobContext;
use crate::each::{Declared, EachTenant};
use crate::error::{Error, JobError};
use crate::given::Given;
use crate::host::{HostContext, HostSchedule, SweepOptions, sweep_row};
use crate::job::{Job, KindRules};
use crate::said;
use crate::schedules::{Cron, Zone};

/// How one attempt ended.
pub(crate) enum Ran {
    /// Well; its output, where it is kept.
    Done(Option<serde_json::Value>),
    /// Not well.
    Failed(JobError),
    /// It panicked.
    Panicked(String),
}

type Handler = Arc<dyn Fn(&str, JobContext, bool) -> BoxFuture<'static, Ran> + Send + Sync>;

/// A kind, its body's type hidden.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) kind: &'static str,
    pub(crate) rules: KindRules,
    pub(crate) run: Handler,
}

/// The kinds of jobs that an application has. Made once, given to its worker.
#[derive(Clone, Default)]
pub struct Jobs {
    kinds: HashMap<&'static str, Entry>,
    pub(crate) given: Given,
    each: Vec<Declared>,
    host: Vec<HostSchedule>,
    sweeps: Vec<serde_json::Value>,
}

impl std::fmt::Debug for Jobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.kinds.keys()).finish()
    }
}

impl Jobs {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more kind. The last of one name counts.
    #[must_use]
    pub fn with<J: Job>(mut self) -> Self {
        let run: Handler = Arc::new(|body, context, keep| match serde_json::from_str::<J>(body) {
            Ok(job) => ended(async move { job.run(context).await }, keep).boxed(),
            Err(error) => {
                let error = format!("its body does not decode as {}: {error}", J::KIND);
                std::future::ready(Ran::Failed(JobError::Dead(error))).boxed()
            }
        });
        self.kinds.insert(J::KIND, Entry { kind: J::KIND, rules: J::rules(), run });
        self
    }

    /// With a kind whose handler brings things along that a body does not hold. The last of one name counts.
    #[must_use]
    pub fn with_handler<B, F, R>(mut self, kind: &'static str, rules: KindRules, handler: F) -> Self
    where
        B: DeserializeOwned + Send + 'static,
        F: Fn(B, JobContext) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        let handler = Arc::new(handler);
        let run: Handler = Arc::new(move |body, context, keep| match serde_json::from_str::<B>(body) {
            Ok(body) => {
                let handler = handler.clone();
                ended(async move { handler(body, context).await }, keep).boxed()
            }
            Err(error) => {
                let error = format!("its body does not decode as {kind}: {error}");
                std::future::ready(Ran::Failed(JobError::Dead(error))).boxed()
            }
        });
        self.kinds.insert(kind, Entry { kind, rules, run });
        self
    }

    /// With a handle of the process's own that jobs ask for by its type ([`JobContext::given`]): a client, a store. One of each type.
    #[must_use]
    pub fn giving<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.given = self.given.with(value);
        self
    }

    /// With a schedule that every tenant has: `make` makes the job of one, when its plan, settings or place change, not at each firing.
    /// A tenant can pause it ([`schedules::pause`](crate::schedules::pause)). The last of one name counts; a tenant that has a schedule of that name for
    /// itself keeps its own.
    ///
    /// Taken out of the code, it comes no more at once, and its rows go within the hour.
    #[must_use]
    pub fn each_tenant<J: Job>(
        self,
        name: &str,
        cron: Cron,
        zone: Zone,
        make: impl Fn(&Route) -> J + Send + Sync + 'static,
    ) -> Self {
        self.each_tenant_with(name, cron, zone, EachTenant::default(), make)
    }

    /// As [`Jobs::each_tenant`], spread over the tenants, in a window of the day, or for some plans only.
    #[must_use]
    pub fn each_tenant_with<J: Job>(
        mut self,
        name: &str,
        cron: Cron,
        zone: Zone,
        options: EachTenant,
        make: impl Fn(&Route) -> J + Send + Sync + 'static,
    ) -> Self {
        if !self.kinds.contains_key(J::KIND) {
            self = self.with::<J>();
        }
        self.each.retain(|known| &*known.name != name);
        self.each.push(Declared::new(name, cron, zone, options, make));
        self
    }

    /// With a schedule of the host side, which is no tenant's: once for each firing, over all workers that declare it and have the key of the cell
    /// that it is anchored in (the first by name that the catalog knows). [`Zone::Tenant`] is UTC here.
    ///
    /// At work in one worker at most; when that dies, or it fails, it is tried again, ten times at most, with backoff. So it may begin more than
    /// once: make effects idempotent by [`HostContext::firing`]. An hour is the longest that it may take. Firings that fall
    /// together with one at work, or were missed, come as one, late.
    #[must_use]
    pub fn host<F, W>(mut self, name: &str, cron: Cron, zone: Zone, handler: F) -> Self
    where
        F: Fn(HostContext) -> W + Send + Sync + 'static,
        W: Future<Output = Result<(), JobError>> + Send + 'static,
    {
        self.host.retain(|known| &*known.name != name);
        self.host.push(HostSchedule { name: name.into(), cron, zone, run: Arc::new(move |context| handler(context).boxed()) });
        self
    }

    /// With a sweep: each tenant gets this job, once, in every database that a worker with this code serves, begun when the first of them comes there.
    /// Tenants that come later to such a database are not meant; a database that comes later begins it.
    ///
    /// For work that comes with a version, as a migration does: leave it in the code for as long as databases may not have had it. The name is what
    /// makes it once; another job by that name is not begun.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Body`], [`Error::Options`].
    pub fn sweep<J: Job>(mut self, name: &str, job: &J, options: &SweepOptions) -> Result<Self, Error> {
        if !self.kinds.contains_key(J::KIND) {
            self = self.with::<J>();
        }
        self.sweeps.push(sweep_row(name, job, options)?);
        Ok(self)
    }

    pub(crate) fn sweeps(&self) -> &[serde_json::Value] {
        &self.sweeps
    }

    pub(crate) fn host_schedules(&self) -> &[HostSchedule] {
        &self.host
    }

    pub(crate) fn get(&self, kind: &str) -> Option<&Entry> {
        self.kinds.get(kind)
    }

    pub(crate) fn each(&self) -> &[Declared] {
        &self.each
    }
}

/// Runs a job; a panic in it ends the attempt and nothing else.
async fn ended<O: Serialize>(work: impl Future<Output = Result<O, JobError>>, keep: bool) -> Ran {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(output)) if keep => match serde_json::to_value(output) {
            Ok(value) => match said::output(value) {
                Ok(value) => Ran::Done(Some(value)),
                Err(fault) => Ran::Failed(JobError::Dead(fault)),
            },
            Err(error) => Ran::Failed(JobError::Dead(format!("its output cannot be written as JSON: {error}"))),
        },
        Ok(Ok(_)) => Ran::Done(None),
        Ok(Err(error)) => Ran::Failed(error),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
            Ran::Panicked(text.unwrap_or_else(|| "it panicked".to_owned()))
        }
    }
}
