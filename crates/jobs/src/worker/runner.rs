//! Runs jobs, one after the other: each inside its tenant's scope, within its time, stopped when it is to stop.

use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_catalog::Route;
use insula_core::context::Trace;
use insula_core::{TenantContext, scope};
use insula_telemetry::trace;
use tokio::sync::watch;
use tracing::Instrument as _;

use super::Shared;
use super::bench::Task;
use super::state::{End, Stop};
use crate::context::JobContext;
use crate::error::JobError;
use crate::registry::{Entry, Ran};

/// One of the worker's places.
pub(crate) async fn run(shared: Arc<Shared>, place: usize) {
    while let Some(task) = shared.bench.next().await {
        shared.pulse.begin(place);
        let ran = one(&shared, task).await;
        shared.pulse.end(place, ran);
        // Jobs that never wait must not keep the thread from everybody else.
        tokio::task::consume_budget().await;
    }
}

/// Whether it was tried.
async fn one(shared: &Shared, task: Task) -> bool {
    let Task { desk, me, job, .. } = task;
    let Some(stop) = desk.start(me, &job) else { return false };
    let started = Instant::now();
    let end = match (shared.jobs.get(&job.kind), shared.tenants.at(job.tenant, desk.name())) {
        (_, Err(not_now)) => {
            tracing::debug!(tenant = job.tenant, job = %job.id, reason = not_now.reason, "a job goes back");
            End::Back { delay: not_now.delay }
        }
        // As a failure, so that a worker of a newer version may come to it, and so that it ends as a dead letter when none does.
        (None, Ok(_)) => {
            failed(job.attempt, job.attempts, None, JobError::Retry(format!("no worker knows jobs of kind {}", job.kind)))
        }
        (Some(_), Ok(_)) if job.overdue => End::Dead("its deadline had passed before it could start".to_owned()),
        (Some(entry), Ok(route)) => {
            let lane = entry.rules.lane(entry.kind);
            // A worker that knows of no lane of the kind's own leaves it where it lies: beside one of another version, they would move it to and fro.
            if !lane.is_empty() && job.lane != lane {
                End::Moved { lane }
            } else if desk.hold_back(&job, &route, shared.jobs.get(&job.lane)) {
                End::Back { delay: Duration::ZERO }
            } else {
                attempt(shared, &desk, &job, &route, entry, stop).await
            }
        }
    };
    let ran = end.was_tried();
    desk.ended(me, job, end, started.elapsed());
    ran
}

async fn attempt(
    shared: &Shared,
    desk: &Arc<super::desk::Desk>,
    job: &super::link::Taken,
    route: &Route,
    entry: &Entry,
    stop: watch::Receiver<Option<Stop>>,
) -> End {
    // Part of the trace of whoever asked for it, and what it does is part of it.
    let asked = job.trace.as_deref().and_then(|parent| Trace::read(parent, None));
    let span = trace::job(asked.as_ref(), &job.kind, job.id, job.attempt);
    trace::of_tenant(&span, route.id, route.slug.as_str());
    let tenant = TenantContext {
        tenant: route.id,
        no: route.no,
        slug: route.slug.clone(),
        plan: route.plan.name.clone(),
        principal: job.principal.as_deref().map(Arc::from),
        request_id: job.id.simple().to_string().into(),
        proof: None,
        trace: trace::of(&span).or(asked).map(Arc::new),
    };
    let context = JobContext {
        tenant: tenant.clone(),
        id: job.id,
        attempt: job.attempt,
        data: shared.data.clone(),
        given: shared.jobs.given.clone(),
        reports: desk.clone(),
        stop: stop.clone(),
    };
    let mut stop = stop;
    let work = scope::enter(tenant, (entry.run)(&job.body, context, job.keep > 0)).instrument(span.clone());
    let work = tokio::time::timeout(entry.rules.timeout, work);
    // A job that is over in one go is never raced against its end.
    let end = tokio::select! {
        biased;
        ran = work => judge(job, entry, ran),
        stopped = stop.wait_for(Option::is_some) => match stopped.ok().and_then(|stop| *stop) {
            Some(Stop::Cancelled) => End::Cancelled,
            _ => End::Back { delay: Duration::ZERO },
        },
    };
    trace::job_ended(&span, word(&end), matches!(end, End::Retry { .. } | End::Dead(_)));
    end
}

fn judge(job: &super::link::Taken, entry: &Entry, ran: Result<Ran, tokio::time::error::Elapsed>) -> End {
    match ran {
        Ok(Ran::Done(result)) => End::Done(result),
        Ok(Ran::Failed(error)) => failed(job.attempt, job.attempts, Some(entry), error),
        Ok(Ran::Panicked(text)) => {
            tracing::error!(job = %job.id, kind = entry.kind, "a job panicked: {text}");
            failed(job.attempt, job.attempts, Some(entry), JobError::Retry(format!("it panicked: {text}")))
        }
        Err(_) => {
            let error = JobError::Retry(format!("it took longer than {:?}", entry.rules.timeout));
            failed(job.attempt, job.attempts, Some(entry), error)
        }
    }
}

/// How an attempt ended, for whoever reads its span.
const fn word(end: &End) -> &'static str {
    match end {
        End::Done(_) => "done",
        End::Retry { .. } => "retry",
        End::Dead(_) => "dead",
        End::Cancelled => "cancelled",
        End::Back { .. } => "back",
        End::Moved { .. } => "moved",
    }
}

/// What follows from a failed attempt.
fn failed(attempt: i32, attempts: i32, entry: Option<&Entry>, error: JobError) -> End {
    match error {
        JobError::Dead(error) => End::Dead(error),
        JobError::Later { delay, .. } => End::Back { delay },
        JobError::Retry(error) if attempt >= attempts => End::Dead(error),
        JobError::Retry(error) => {
            let backoff = entry.map(|entry| entry.rules.backoff).unwrap_or_default();
            let random = std::hash::RandomState::new().hash_one(attempt);
            End::Retry { delay: backoff.delay(u32::try_from(attempt).unwrap_or(1), random), error }
        }
    }
}
