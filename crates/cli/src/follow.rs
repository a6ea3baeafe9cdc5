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
        bar.set_length(u64::try_from(operation.steps_total).unwrap_or(0));
        bar.set_position(u64::try_from(operation.steps_done).unwrap_or(0));
        let undoing = if operation.state == OperationState::Undoing { "undoing " } else { "" };
        bar.set_message(format!("{undoing}{}", operation.step));
        Ok(())
    })
    .await;
    bar.finish_and_clear();
    ended_well(operation?)
}

/// Tells `tell` of each piece of news until the operation has ended.
pub(crate) async fn watch(
    client: &Client,
    id: OperationId,
    mut tell: impl FnMut(&Operation, &[OperationEvent]) -> Result<(), Error>,
) -> Result<Operation, Error> {
    let mut after = 0;
    loop {
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
pub(crate) fn ended_well(operation: Operation) -> Result<Operation, Error> {
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
