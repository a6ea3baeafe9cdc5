//! What happens in an operation as server-sent events: the same news as the long poll has, pushed.
//!
//! Always: a message's id is the `seq` of the last event in it or before it, so that `Last-Event-ID` goes on without a gap and
//! without a repeat; a stream ends by itself with the operation, when the process is to end, and after some minutes (a key may
//! have been taken back meanwhile): whoever still wants to know comes again.

use std::convert::Infallible;
use std::time::Duration;

use axum::http::header::{ACCEPT, HeaderName};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream::{self, Stream};
use insula_api::operation::OperationEvents;
use insula_core::{Kind, OperationId};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::failure::Failure;
use super::wire;
use crate::error::Error;
use crate::handle::Control;
use crate::model::{Operation, OperationState};
use crate::store::operations::MOST_EVENTS;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// Between two looks for news. An engine in another process tells nobody.
const LOOK_EVERY: Duration = Duration::from_millis(150);
/// A silent stream says so often that it is alive.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// After so long, a stream ends and the reader's key is looked at again.
const LONGEST: Duration = Duration::from_secs(600);
/// How long a reader is to wait before it comes again.
const COME_AGAIN: Duration = Duration::from_secs(1);

/// Whether the caller asks for a stream.
pub(super) fn asked_for(headers: &HeaderMap) -> bool {
    let media = |part: &str| part.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream");
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.split(',').any(media))
}

/// Streams what happens after `after`, or after what the reader has seen already.
pub(super) async fn open(control: Control, id: OperationId, headers: &HeaderMap, after: i64) -> Result<Response, Failure> {
    let seen = match headers.get(LAST_EVENT_ID) {
        Some(text) => Some(seen(text.to_str().unwrap_or_default())?),
        None => None,
    };
    let Ok(place) = control.watchers().try_acquire_owned() else {
        return Err(Failure::new(Kind::Limited, "too many streams are open: ask again later, or with `wait`"));
    };
    let operation = control.operation(id).await?;
    let after = seen.unwrap_or(after);
    // A reader that has seen the end is told to stay away, as browsers understand it.
    if seen.is_some() && operation.state.finished() && control.operation_events(id, after).await?.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let watch = Watch { control, id, after, told: None, until: Instant::now() + LONGEST, ended: false, _place: place };
    Ok(Sse::new(watch.messages()).keep_alive(KeepAlive::new().interval(SIGN_OF_LIFE)).into_response())
}

fn seen(text: &str) -> Result<i64, Failure> {
    let number = text.parse().ok().filter(|seq: &i64| *seq >= 0);
    number.ok_or_else(|| Failure::field("Last-Event-ID", "the id of the last message that you have"))
}

/// One reader of one operation.
struct Watch {
    control: Control,
    id: OperationId,
    /// The last event that was told.
    after: i64,
    /// How the operation stood when it was last told.
    told: Option<Stand>,
    until: Instant,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

/// What of an operation changes as it goes on.
type Stand = (OperationState, String, i32, i32);

fn stand(operation: &Operation) -> Stand {
    (operation.state, operation.step.clone(), operation.steps_done, operation.attempts)
}

impl Watch {
    fn messages(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut watch| {
            let closing = watch.control.closing();
            let message = tokio::select! {
                message = watch.next() => message,
                () = closing.cancelled() => None,
            };
            message.map(|message| (Ok(message), watch))
        })
    }

    /// The next message; none when the stream is to end.
    async fn next(&mut self) -> Option<Event> {
        while !self.ended && Instant::now() < self.until {
            match self.look().await {
                Ok(Some(message)) => return Some(message),
                Ok(None) => {}
                Err(error) => {
                    // The reader comes again, and is then told what is wrong.
                    tracing::warn!(operation = %self.id, %error, "a stream of events ends early");
                    return None;
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        None
    }

    async fn look(&mut self) -> Result<Option<Event>, Error> {
        // The operation first: once it has ended, the events that are read after it are all there are.
        let operation = self.control.operation(self.id).await?;
        let events = self.control.operation_events(self.id, self.after).await?;
        let stand = stand(&operation);
        if events.is_empty() && self.told.as_ref() == Some(&stand) {
            return Ok(None);
        }
        self.after = events.last().map_or(self.after, |event| event.seq);
        self.ended = operation.state.finished() && events.len() < MOST_EVENTS;
        self.told = Some(stand);
        let news =
            OperationEvents { operation: wire::operation(operation), events: events.into_iter().map(wire::event).collect() };
        let text = serde_json::to_string(&news).map_err(|e| Error::Corrupt(e.to_string()))?;
        Ok(Some(Event::default().id(self.after.to_string()).event("news").retry(COME_AGAIN).data(text)))
    }
}
