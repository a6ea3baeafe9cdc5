//! Tells addresses of events: takes them from the outbox, posts them signed, tries again with growing pauses.
//!
//! Always at least once: a receiver tells repeats by `Insula-Event`. Nothing of a receiver's answer but its status is kept.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use insula_core::{Clock as _, SystemClock};
use insula_post::{HEADER_EVENT, HEADER_SIGNATURE, HEADER_TOPIC, Poster, Reach, sign};
use serde_json::json;
use uuid::Uuid;

use crate::config::Config;
use crate::error::Error;
use crate::handle::Control;
use crate::model::Webhook;
use crate::store;
use crate::store::outbox::Event;

/// Longest pause between two tries; after some hours of it the event still waits, and `status` shows it.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// Events of one round. It ends within the minute that they are ours for, also when no receiver answers.
const BATCH: i64 = 40;
/// Events on their way at once: a receiver that is slow delays few others.
const AT_ONCE: usize = 8;

/// What signs the posts to a webhook: derived, so that the catalog does not hold it.
pub(crate) fn secret(control: &Control, webhook: Uuid) -> String {
    control.config().root_key.catalog_password(&format!("webhook {webhook}"))
}

/// What posts, as the settings say.
pub(crate) fn poster(config: &Config) -> Result<Poster, Error> {
    Poster::new(reach(config), config.webhook_authorities.as_deref()).map_err(|error| Error::Corrupt(error.to_string()))
}

fn reach(config: &Config) -> Reach {
    if config.webhook_private { Reach::Private } else { Reach::Public }
}

/// Refuses what can be seen to lead nowhere. What a name leads to is judged when it is connected to.
pub(crate) fn check_url(config: &Config, text: &str) -> Result<(), Error> {
    insula_post::check_url(reach(config), text).map_err(|why| Error::invalid("url", why))
}

/// Delivers until stopped. One task per process; the outbox shares the work between processes.
pub(crate) async fn run(control: Control, poster: Poster) {
    let stopped = control.engine().stopped();
    loop {
        let more = match deliver_round(&control, &poster).await {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "cannot deliver events; trying again");
                false
            }
        };
        if more {
            continue;
        }
        tokio::select! {
            () = control.events_signal() => {}
            () = tokio::time::sleep(control.config().reconcile_every) => {}
            () = stopped.cancelled() => return,
        }
    }
}

/// True when there may be more that is due.
async fn deliver_round(control: &Control, poster: &Poster) -> Result<bool, Error> {
    let mut conn = control.catalog_pool().acquire().await?;
    let hooks: Vec<Webhook> = store::webhooks::all(&mut conn).await?.into_iter().filter(|h| h.disabled_at.is_none()).collect();
    let events = store::outbox::claim(&mut conn, BATCH).await?;
    let full = i64::try_from(events.len()).unwrap_or(0) == BATCH;
    let hooks = &hooks;
    let posts = events.into_iter().map(|event| async move {
        let outcome = deliver(control, poster, hooks, &event).await;
        (event, outcome)
    });
    let outcomes: Vec<_> = stream::iter(posts).buffered(AT_ONCE).collect().await;
    let mut delivered = Vec::new();
    for (event, outcome) in outcomes {
        match outcome {
            Ok(()) => delivered.push(event.id),
            Err(why) => {
                tracing::warn!(event = event.id, topic = event.topic, why, "an event was not taken");
                store::outbox::failed(&mut conn, event.id, pause(event.attempts), &why).await?;
            }
        }
    }
    store::outbox::delivered(&mut conn, &delivered).await?;
    Ok(full)
}

fn pause(attempts: i32) -> Duration {
    let exponent = u32::try_from(attempts.clamp(0, 16)).unwrap_or(0);
    Duration::from_secs(1).saturating_mul(1 << exponent).min(LONGEST_PAUSE)
}

/// `*`, `tenant.*` or the topic itself.
fn wants(webhook: &Webhook, topic: &str) -> bool {
    webhook.topics.iter().any(|t| match t.strip_suffix('*') {
        Some(prefix) => topic.starts_with(prefix),
        None => t == topic,
    })
}

async fn deliver(control: &Control, poster: &Poster, hooks: &[Webhook], event: &Event) -> Result<(), String> {
    let body = json!({
        "id": event.id, "topic": event.topic, "tenant": event.tenant, "at": event.created_at, "data": event.payload,
    })
    .to_string();
    let id = event.id.to_string();
    let (id, body) = (&id, &body);
    let posts = hooks.iter().filter(|h| wants(h, &event.topic)).map(|hook| async move {
        let signature = sign(&secret(control, hook.id), SystemClock.unix_seconds(), body);
        let headers = [(HEADER_EVENT, id.as_str()), (HEADER_TOPIC, event.topic.as_str()), (HEADER_SIGNATURE, signature.as_str())];
        match poster.post(&hook.url, &headers, body).await {
            Ok(200..=299) => Ok(()),
            Ok(status) => Err(format!("webhook {}: status {status}", hook.id)),
            Err(why) => Err(format!("webhook {}: {why}", hook.id)),
        }
    });
    let failures: Vec<String> = futures_util::future::join_all(posts).await.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_match_by_name_and_prefix() {
        let hook = |topics: &[&str]| Webhook {
            id: Uuid::nil(),
            url: String::new(),
            topics: topics.iter().map(|t| (*t).to_owned()).collect(),
            created_at: chrono::Utc::now(),
            disabled_at: None,
        };
        assert!(wants(&hook(&["*"]), "tenant.provisioned"));
        assert!(wants(&hook(&["cell.*", "tenant.*"]), "tenant.provisioned"));
        assert!(wants(&hook(&["tenant.provisioned"]), "tenant.provisioned"));
        assert!(!wants(&hook(&["tenant.deleted", "tenants.*"]), "tenant.provisioned"));
    }

    #[test]
    fn pauses_grow_and_stop_growing() {
        assert_eq!(pause(0), Duration::from_secs(1));
        assert_eq!(pause(5), Duration::from_secs(32));
        assert_eq!(pause(100), LONGEST_PAUSE);
    }
}
