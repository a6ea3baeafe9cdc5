//! Tells addresses of events: takes them from the outbox, posts them signed, tries again with growing pauses.
//!
//! Always at least once: a receiver tells repeats by `Insula-Event`. Nothing of a receiver's answer but its status is kept.

use std::time::Duration;

use aws_lc_rs::hmac;
use insula_core::{Clock as _, SystemClock};
use serde_json::json;
use uuid::Uuid;

use crate::error::Error;
use crate::handle::Control;
use crate::model::Webhook;
use crate::store;
use crate::store::outbox::Event;

/// Longest pause between two tries; after some hours of it the event still waits, and `status` shows it.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// How long a receiver may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events of one round.
const BATCH: i64 = 100;

/// What signs the posts to a webhook: derived, so that the catalog does not hold it.
pub(crate) fn secret(control: &Control, webhook: Uuid) -> String {
    control.config().root_key.catalog_password(&format!("webhook {webhook}"))
}

/// Delivers until stopped. One task per process; the outbox shares the work between processes.
pub(crate) async fn run(control: Control) {
    let client = match reqwest::Client::builder().timeout(PATIENCE).redirect(reqwest::redirect::Policy::none()).build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "no webhooks: the HTTP client does not start");
            return;
        }
    };
    let stopped = control.engine().stopped();
    loop {
        let more = match deliver_round(&control, &client).await {
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
async fn deliver_round(control: &Control, client: &reqwest::Client) -> Result<bool, Error> {
    let mut conn = control.catalog_pool().acquire().await?;
    let hooks: Vec<Webhook> = store::webhooks::all(&mut conn).await?.into_iter().filter(|h| h.disabled_at.is_none()).collect();
    let events = store::outbox::claim(&mut conn, BATCH).await?;
    let full = i64::try_from(events.len()).unwrap_or(0) == BATCH;
    let mut delivered = Vec::new();
    for event in events {
        match deliver(control, client, &hooks, &event).await {
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

async fn deliver(control: &Control, client: &reqwest::Client, hooks: &[Webhook], event: &Event) -> Result<(), String> {
    let body = json!({
        "id": event.id, "topic": event.topic, "tenant": event.tenant, "at": event.created_at, "data": event.payload,
    })
    .to_string();
    let mut failures = Vec::new();
    for hook in hooks.iter().filter(|h| wants(h, &event.topic)) {
        let signature = sign(&secret(control, hook.id), SystemClock.unix_seconds(), &body);
        let posted = client
            .post(&hook.url)
            .header("content-type", "application/json")
            .header("insula-event", event.id.to_string())
            .header("insula-topic", &event.topic)
            .header("insula-signature", signature)
            .body(body.clone())
            .send()
            .await;
        match posted {
            Ok(answer) if answer.status().is_success() => {}
            Ok(answer) => failures.push(format!("webhook {}: status {}", hook.id, answer.status().as_u16())),
            // Without the URL: it may carry a token.
            Err(error) => failures.push(format!("webhook {}: {}", hook.id, error.without_url())),
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

/// `t=<unix>,v1=<hex HMAC-SHA256 of "<t>.<body>">`: the time is signed, so that an old post cannot be sent again as new.
fn sign(secret: &str, unix: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let tag = hmac::sign(&key, format!("{unix}.{body}").as_bytes());
    let hex: String = tag.as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("t={unix},v1={hex}")
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

    #[test]
    fn a_signature_covers_time_and_body() {
        let one = sign("key", 1, "body");
        assert!(one.starts_with("t=1,v1=") && one.len() == 7 + 64);
        assert_ne!(one, sign("key", 2, "body"));
        assert_ne!(one[7..], sign("key", 1, "bodz")[7..]);
    }
}
