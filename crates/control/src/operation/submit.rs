//! How an operation begins: its leading catalog steps run inside the transaction that inserts its row.
//!
//! Always: a request that is wrong is refused here and now, and leaves nothing; one that is accepted is durable when the
//! answer goes out; the same idempotency key gives the same operation.

use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use super::engine::Engine;
use super::fault::Moment;
use super::record::Standing;
use super::step::{Outcome, Reach, Saga};
use super::work::{Job, Work};
use crate::error::Error;
use crate::handle::Control;
use crate::model::Operation;
use crate::store;

/// An operation to be begun.
pub(crate) struct Request<'a> {
    pub(crate) saga: &'static Saga,
    pub(crate) actor: &'a str,
    pub(crate) tenant: Option<Uuid>,
    /// Idempotency key as the caller gave it.
    pub(crate) key: Option<&'a str>,
    pub(crate) input: Value,
}

/// What came of it.
pub(crate) struct Submitted {
    pub(crate) operation: Operation,
    /// The input of the operation that stands: another's, when this was a repeat.
    pub(crate) input: Value,
    pub(crate) repeated: bool,
}

/// Keys are the actor's own: two actors with the same key do not meet.
fn scoped(actor: &str, key: &str) -> Result<String, Error> {
    if key.is_empty() || key.len() > 200 || key.chars().any(char::is_control) {
        return Err(Error::invalid("idempotency-key", "1 to 200 characters, no control characters"));
    }
    Ok(format!("{actor}:{key}"))
}

/// Begins an operation, or finds the one that the key has begun before.
pub(crate) async fn submit(control: &Control, request: Request<'_>) -> Result<Submitted, Error> {
    let key = request.key.map(|k| scoped(request.actor, k)).transpose()?;
    if let Some(key) = &key
        && let Some(found) = by_key(control, request.saga, key).await?
    {
        return Ok(found);
    }
    let saga = request.saga;
    match begin(control, request, key.clone()).await {
        Ok(submitted) => Ok(submitted),
        // Two at once with one key: the slower one may have met the faster one's tenant first, then its key.
        Err(error @ (Error::Repeated | Error::Conflict(_))) => match &key {
            Some(key) => by_key(control, saga, key).await?.ok_or(error),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

async fn by_key(control: &Control, saga: &Saga, key: &str) -> Result<Option<Submitted>, Error> {
    let mut conn = control.catalog_pool().acquire().await?;
    let Some((operation, input)) = store::operations::by_key(&mut conn, key).await? else { return Ok(None) };
    if operation.kind != saga.kind {
        return Err(Error::Conflict(format!("this idempotency key was used for {}: use another", operation.kind)));
    }
    Ok(Some(Submitted { operation, input, repeated: true }))
}

async fn begin(control: &Control, request: Request<'_>, key: Option<String>) -> Result<Submitted, Error> {
    let job = Job {
        id: Uuid::now_v7(),
        tenant: request.tenant,
        key,
        actor: request.actor.to_owned(),
        input: request.input,
        memo: Value::Object(serde_json::Map::new()),
        output: None,
        undoing: false,
        steps_done: 0,
        attempts: 0,
        error: None,
    };
    let mut work = Work::new(control.clone(), request.saga, job, false);
    lead(&mut work).await?;
    let permit = control.engine().worker();
    let standing = if work.job.steps_done == work.saga.steps.len() {
        Standing::Done
    } else if permit.is_some() {
        Standing::Held(control.config().lease)
    } else {
        Standing::Free(Duration::ZERO)
    };
    let id = work.job.id;
    control.engine().expect(id);
    let written = write(&mut work, standing).await;
    if written.is_err() || !matches!(standing, Standing::Held(_)) {
        control.engine().let_go(id);
    }
    let operation = written?;
    let input = work.job.input.clone();
    match (standing, permit) {
        (Standing::Held(_), Some(permit)) => Engine::drive(control, work, permit),
        (Standing::Done, _) => control.ended(),
        _ => control.engine().wake(),
    }
    Ok(Submitted { operation, input, repeated: false })
}

async fn write(work: &mut Work, standing: Standing) -> Result<Operation, Error> {
    work.flush(standing).await?;
    store::operations::get(&mut *work.control.catalog_pool().acquire().await?, work.job.id.into()).await
}

/// Runs the leading steps that need nothing but the catalog.
async fn lead(work: &mut Work) -> Result<(), Error> {
    while let Some(step) = work.saga.steps.get(work.job.steps_done).copied() {
        if step.reach() != Reach::Catalog {
            break;
        }
        let faults = &work.control.config().faults;
        if faults.at(work.saga.kind, step.name(), Moment::Before).is_some() {
            return Err(Error::Away(format!("{} failed (on purpose)", step.name())));
        }
        work.event(step.name(), "started", "");
        if let Outcome::Wait(..) = step.forward(work).await? {
            work.events.pop();
            break;
        }
        if work.control.config().faults.at(work.saga.kind, step.name(), Moment::After).is_some() {
            return Err(Error::Away(format!("{} failed (on purpose)", step.name())));
        }
        work.event(step.name(), "done", "");
        work.job.steps_done += 1;
    }
    Ok(())
}
