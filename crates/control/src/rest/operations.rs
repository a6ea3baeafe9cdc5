//! `/v1/operations`.

use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use insula_api::Page;
use insula_api::operation::{EventQuery, Operation, OperationEvents, OperationQuery};
use insula_core::OperationId;
use tokio::time::Instant;

use super::answer::{Answer, ok};
use super::failure::Failure;
use super::input::{Path, Query};
use super::tenants::page_request;
use super::{Refused, operation_stream, wire};
use crate::handle::Control;
use crate::model::OperationFilter;

/// Longest that a call waits for news, seconds.
const LONGEST_WAIT: u32 = 30;
/// Between two looks for news while a call waits. An engine in another process tells nobody.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// Operations, newest first.
#[utoipa::path(
    get, path = "/v1/operations", tag = "operations", params(OperationQuery),
    responses((status = 200, body = Page<Operation>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_operations(State(control): State<Control>, Query(query): Query<OperationQuery>) -> Answer {
    let tenant = match query.tenant {
        Some(tenant) => Some(control.tenant(&tenant).await?.id),
        None => None,
    };
    let filter = OperationFilter { tenant, state: query.state.map(wire::operation_state), kind: query.kind };
    let found = control.operations(&filter, &page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, wire::operation))
}

/// One operation.
#[utoipa::path(
    get, path = "/v1/operations/{operation}", tag = "operations", params(("operation" = String, Path, description = "Its id")),
    responses((status = 200, body = Operation), Refused), security(("key" = ["read"]))
)]
pub(super) async fn show_operation(State(control): State<Control>, Path(id): Path<OperationId>) -> Answer {
    ok(&wire::operation(control.operation(id).await?))
}

/// What happened in an operation since, and where it stands. With `wait`, a call that would answer with nothing new waits.
///
/// With `Accept: text/event-stream` the same is pushed as server-sent events, until the operation ends: each message is a
/// `news` whose data is the body of the other answer on one line, and whose id is the `seq` of the last event so far. A
/// reader that was cut off sends that id as `Last-Event-ID` and goes on; once it has everything, it is answered 204.
#[utoipa::path(
    get, path = "/v1/operations/{operation}/events", tag = "operations",
    params(
        ("operation" = String, Path, description = "Its id"), EventQuery,
        ("Last-Event-ID" = Option<i64>, Header, description = "Streams only: the id of the last message that you have"),
    ),
    responses(
        (status = 200, content((OperationEvents = "application/json"), (String = "text/event-stream"))),
        (status = 204, description = "Streams only: the operation has ended, and `Last-Event-ID` is its last event"), Refused
    ),
    security(("key" = ["read"]))
)]
pub(super) async fn list_operation_events(
    State(control): State<Control>,
    Path(id): Path<OperationId>,
    Query(query): Query<EventQuery>,
    headers: HeaderMap,
) -> Answer {
    if query.wait > LONGEST_WAIT {
        return Err(Failure::field("wait", format!("at most {LONGEST_WAIT} seconds")));
    }
    if query.after < 0 {
        return Err(Failure::field("after", "0, or the `seq` of the last event that you have"));
    }
    if operation_stream::asked_for(&headers) {
        return operation_stream::open(control, id, &headers, query.after).await;
    }
    let deadline = Instant::now() + Duration::from_secs(query.wait.into());
    loop {
        // The operation first: once it has ended, the events that are read after it are all there are.
        let operation = control.operation(id).await?;
        let events = control.operation_events(id, query.after).await?;
        if !events.is_empty() || operation.state.finished() || Instant::now() >= deadline {
            let events = events.into_iter().map(wire::event).collect();
            return ok(&OperationEvents { operation: wire::operation(operation), events });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
