//! Follows an operation to its end: a progress bar when somebody watches, silence otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use insula_api::Client;
use insula_api::operation::{EventQuery, Operation, OperationEvent, OperationState};
use insula_api::problem::kind_of_name;
use insula_core::{Kind, OperationId};

use crate::error::Error;
use crate::screen::Screen;

/// Seconds that one call waits for news.
const WAIT: u32 = 20;

/// Waits for an operation to end; an operation that failed is an error of its kind.
pub(crate) async fn follow(client: &Client, screen: Screen, id: OperationId, what: &str) -> Result<Operation, Error> {
    let bar = bar(screen, what);
    let operation = watch(client, id, |operation, _| {
        draw(&bar, operation);
        Ok(())
    })
    .await;
    bar.finish_and_clear();
    ended_well(operation?)
}

/// The same, and each event is a result of its own, above the bar.
pub(crate) async fn follow_events(
    client: &Client,
    screen: Screen,
    id: OperationId,
    say: impl Fn(&OperationEvent) -> Result<(), Error>,
) -> Result<Operation, Error> {
    let bar = bar(screen, "");
    let operation = watch(client, id, |operation, events| {
        bar.set_prefix(operation.kind.clone());
        draw(&bar, operation);
        bar.suspend(|| events.iter().try_for_each(&say))
    })
    .await;
    bar.finish_and_clear();
    ended_well(operation?)
}

fn draw(bar: &ProgressBar, operation: &Operation) {
    bar.set_length(u64::try_from(operation.steps_total).unwrap_or(0));
    bar.set_position(u64::try_from(operation.steps_done).unwrap_or(0));
    let undoing = if operation.state == OperationState::Undoing { "undoing " } else { "" };
    bar.set_message(format!("{undoing}{}", operation.step));
}

/// Tells `tell` of each piece of news until the operation has ended.
async fn watch(
    client: &Client,
    id: OperationId,
    mut tell: impl FnMut(&Operation, &[OperationEvent]) -> Result<(), Error>,
) -> Result<Operation, Error> {
    let mut after = 0;
    loop {
        // Pushed, as long as that works. Where it does not (an older control plane, a connection that breaks), ask once, which is
        // tried again by itself and says what is wrong, and let it push again.
        if let Ok(Some(mut stream)) = client.operation_stream(id, after).await {
            while let Ok(Some(news)) = stream.next().await {
                after = news.events.last().map_or(after, |event| event.seq);
                tell(&news.operation, &news.events)?;
            }
        }
        let news = client.operation_events(id, &EventQuery { after, wait: WAIT }).await?;
        after = news.events.last().map_or(after, |event| event.seq);
        tell(&news.operation, &news.events)?;
        // The last events are written with the end, so an ended operation has no others after an empty answer.
        if news.operation.state.ended() && news.events.is_empty() {
            return Ok(news.operation);
        }
    }
}

/// The operation, unless it failed.
fn ended_well(operation: Operation) -> Result<Operation, Error> {
    if operation.state != OperationState::Failed {
        return Ok(operation);
    }
    let error = operation.error.as_ref();
    let kind = error.and_then(|e| kind_of_name(&e.kind)).unwrap_or(Kind::Internal);
    let detail = error.map_or("no reason was recorded", |e| e.detail.as_str());
    let message = format!("{} failed: {detail}", operation.kind);
    let help = format!("nothing of it is left; `insula operation show {}` has the steps", operation.id);
    Err(Error::new(kind, message, help))
}

fn bar(screen: Screen, what: &str) -> ProgressBar {
    let bar = ProgressBar::new(0);
    if !screen.progress() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
        return bar;
    }
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} [{bar:24}] {pos}/{len} {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.set_prefix(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::Router;
    use axum::body::Body;
    use axum::http::HeaderMap;
    use axum::response::{IntoResponse as _, Response};
    use serde_json::{Value, json};

    use super::*;

    /// An operation of three events that has ended once all are told.
    fn news(after: i64, upto: i64) -> Value {
        let events = |seq| json!({"seq": seq, "at": "2026-01-02T03:04:05Z", "step": "s", "what": "done", "detail": ""});
        json!({
            "operation": {
                "id": "0190f8c0-0000-7000-8000-000000000002", "kind": "tenant.provision", "tenant": null,
                "state": if upto == 3 { "done" } else { "running" }, "step": "s", "steps_done": upto, "steps_total": 3, "attempts": 0,
                "output": null, "error": null, "created_by": "ops", "created_at": "2026-01-02T03:04:05Z",
                "updated_at": "2026-01-02T03:04:06Z", "finished_at": null
            },
            "events": (after + 1..=upto).map(events).collect::<Vec<_>>(),
        })
    }

    /// How a control plane treats who asks for a stream.
    #[derive(Clone, Copy)]
    enum Streams {
        /// One of the time before there were any.
        Unknown,
        /// Each breaks after one message.
        Break,
        Whole,
    }

    fn answer(streams: Streams, headers: &HeaderMap, query: &str) -> Response {
        let stream = headers["accept"].to_str().is_ok_and(|a| a.contains("event-stream"));
        let seen = headers.get("last-event-id").and_then(|v| v.to_str().ok()?.parse().ok());
        let asked = query.split('&').find_map(|p| p.strip_prefix("after=")?.parse().ok());
        let after: i64 = seen.or(asked).unwrap_or(0);
        match streams {
            Streams::Unknown => axum::Json(news(after, (after + 2).min(3))).into_response(),
            _ if !stream => axum::Json(news(after, (after + 1).min(3))).into_response(),
            Streams::Break => {
                let text = format!("id: {0}\ndata: {1}\n\ndata: {{\"oper", after + 1, news(after, (after + 1).min(3)));
                ([("content-type", "text/event-stream")], Body::from(text)).into_response()
            }
            Streams::Whole => {
                let text: String = (after..3).map(|n| format!("id: {}\ndata: {}\n\n", n + 1, news(n, n + 1))).collect();
                ([("content-type", "text/event-stream")], Body::from(text)).into_response()
            }
        }
    }

    #[tokio::test]
    async fn every_event_is_told_once_with_streams_without_and_when_they_break() {
        for (streams, most) in [(Streams::Unknown, 6), (Streams::Break, 6), (Streams::Whole, 2)] {
            let calls = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&calls);
            let app = Router::new().fallback(async move |headers: HeaderMap, uri: axum::http::Uri| {
                count.fetch_add(1, Ordering::SeqCst);
                answer(streams, &headers, uri.query().unwrap_or_default())
            });
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            tokio::spawn(async { axum::serve(listener, app).await });
            let client = Client::new(&url, "ik_test").expect("a client");
            let mut seen = Vec::new();
            let told = watch(&client, OperationId::new(), |_, events| {
                seen.extend(events.iter().map(|e| e.seq));
                Ok(())
            });
            let operation = tokio::time::timeout(Duration::from_secs(30), told).await.expect("it ends").expect("followed");
            assert_eq!((operation.state, seen), (OperationState::Done, vec![1, 2, 3]));
            assert!(calls.load(Ordering::SeqCst) <= most, "{} calls", calls.load(Ordering::SeqCst));
        }
    }
}
