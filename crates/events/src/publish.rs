//! Publishing: in the tenant's own transaction, so that an event exists exactly when what it tells of does.

use insula_core::{TenantContext, scope};
use insula_data::TenantTx;
use serde::Serialize;
use uuid::Uuid;

use crate::error::Error;
use crate::topic::is_topic;

/// The largest body, bytes of JSON.
pub const BODY_BYTES: usize = 245_760;
/// Events in one statement.
const BATCH: usize = 500;

/// An event's identity, the same however often it is told of.
pub type EventId = Uuid;

/// Publishes an event in the tenant's transaction: whoever listens is told once that has committed, and never when it is rolled back.
///
/// # Errors
/// [`Error::Topic`], [`Error::TooLarge`], [`Error::Body`] before anything is sent; else as the transaction.
pub async fn publish<B: Serialize + ?Sized>(tx: &mut TenantTx, topic: &str, body: &B) -> Result<EventId, Error> {
    let event = written(topic, body)?;
    let id = Uuid::now_v7();
    insert(tx, &[topic], &[id], &[event]).await?;
    Ok(id)
}

/// Publishes many, in their order.
///
/// # Errors
/// As [`publish`]; then none is published.
pub async fn publish_all<B: Serialize>(tx: &mut TenantTx, events: &[(&str, B)]) -> Result<Vec<EventId>, Error> {
    let bodies: Vec<String> = events.iter().map(|(topic, body)| written(topic, body)).collect::<Result<_, _>>()?;
    let topics: Vec<&str> = events.iter().map(|(topic, _)| *topic).collect();
    let ids: Vec<Uuid> = events.iter().map(|_| Uuid::now_v7()).collect();
    for ((topics, ids), bodies) in topics.chunks(BATCH).zip(ids.chunks(BATCH)).zip(bodies.chunks(BATCH)) {
        insert(tx, topics, ids, bodies).await?;
    }
    Ok(ids)
}

fn written<B: Serialize + ?Sized>(topic: &str, body: &B) -> Result<String, Error> {
    if !is_topic(topic) {
        return Err(Error::Topic(topic.to_owned()));
    }
    let body = serde_json::to_string(body).map_err(|source| Error::Body { topic: topic.to_owned(), source })?;
    if body.len() > BODY_BYTES {
        return Err(Error::TooLarge { topic: topic.to_owned(), bytes: body.len(), most: BODY_BYTES });
    }
    Ok(body)
}

async fn insert(tx: &mut TenantTx, topics: &[&str], ids: &[Uuid], bodies: &[String]) -> Result<(), Error> {
    let principal = principal(tx.context());
    let trace = tx.context().trace.as_ref().map(|trace| trace.parent.to_string());
    sqlx::query("SELECT insula.publish($1, $2, $3, $4, $5)")
        .bind(topics)
        .bind(ids)
        .bind(bodies)
        .bind(principal)
        .bind(trace)
        .execute(tx)
        .await?;
    Ok(())
}

/// What runs now may know more than the transaction's context: who asked.
fn principal(context: &TenantContext) -> Option<String> {
    let principal = context.principal.as_deref().map(str::to_owned);
    principal.or_else(|| scope::current().ok().and_then(|now| now.principal.as_deref().map(str::to_owned)))
}
