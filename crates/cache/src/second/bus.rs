//! Tells the other processes what is forgotten, and hears it from them.
//!
//! Always: nothing is missed silently. Redis drops messages for whoever is not connected, so a lost connection, and one on which this process does
//! not hear its own heartbeat any more, is a gap: everything is forgotten when the bus is heard again, and until then nothing is
//! remembered for longer than [`BLIND`].

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use redis::RedisError;
use redis::aio::PubSub;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::{Notice, PATIENCE, Second};
use crate::cache::Inner;

/// How old a value may be while the others cannot be heard.
pub(crate) const BLIND: Duration = Duration::from_secs(5);
/// Between two heartbeats.
const BEAT: Duration = Duration::from_millis(500);
/// Silence for so long is a gap.
const SILENCE: Duration = Duration::from_secs(2);
/// Notices that are told in one go.
const BATCH: usize = 128;
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(100);

/// Hears and tells until the cache is gone.
pub(crate) async fn listen(inner: Weak<Inner>, second: Arc<Second>) {
    let telling = tokio::spawn(tell(inner.clone(), Arc::clone(&second)));
    let mut complained = false;
    while inner.strong_count() > 0 {
        match hear(&inner, &second).await {
            Ok(()) => break,
            Err(error) => {
                if let Some(inner) = inner.upgrade()
                    && !inner.blind.swap(true, Ordering::SeqCst)
                {
                    // Entries that are there live on for a moment at most: what is forgotten meanwhile is not heard.
                    inner.store.forget_everything();
                    metrics::counter!("insula_cache_gaps_total").increment(1);
                    complained = false;
                }
                if !std::mem::replace(&mut complained, true) {
                    tracing::warn!(%error, "cannot hear what other processes forget: remembering things for {BLIND:?} at most");
                }
            }
        }
        sleep(PAUSE).await;
    }
    telling.abort();
}

/// Hears the others until the connection is lost, or, without an error, the cache is gone.
async fn hear(inner: &Weak<Inner>, second: &Second) -> Result<(), RedisError> {
    let late = || RedisError::from((redis::ErrorKind::Io, "no answer in time"));
    let beats = format!("{}:{}", second.channel(), uuid::Uuid::from_bytes(second.id).simple());
    let mut bus: PubSub = timeout(SILENCE, second.client.get_async_pubsub()).await.map_err(|_| late())??;
    timeout(SILENCE, bus.subscribe(&[second.channel(), beats.clone()])).await.map_err(|_| late())??;
    match inner.upgrade() {
        Some(inner) => {
            // From here on everything is heard; what came before may have been missed.
            inner.store.forget_everything();
            inner.blind.store(false, Ordering::SeqCst);
        }
        None => return Ok(()),
    }
    tracing::debug!("hearing what other processes forget");
    let mut messages = bus.on_message();
    let mut beat = interval(BEAT);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heard = Instant::now();
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { return Err(late()) };
                heard = Instant::now();
                let Some(inner) = inner.upgrade() else { return Ok(()) };
                let notice = Notice::decode(message.get_payload_bytes(), |tenant| second.known(tenant));
                if let Some((from, notice)) = notice && from != second.id {
                    apply(&inner, &notice);
                }
            }
            _ = beat.tick() => {
                if inner.strong_count() == 0 {
                    return Ok(());
                }
                if heard.elapsed() > SILENCE {
                    return Err(late());
                }
                // Its failure shows as silence.
                if let Ok(mut connection) = second.connection().await {
                    let mut cmd = redis::cmd("PUBLISH");
                    let beating = cmd.arg(&beats).arg("").query_async::<()>(&mut connection);
                    drop(timeout(PATIENCE, beating).await);
                }
            }
        }
    }
}

/// Forgets what another process says is forgotten.
fn apply(inner: &Inner, notice: &Notice) {
    match notice {
        Notice::Key(place, resource) => {
            let name = inner.store.name(place.tenant.no, *resource, &place.key);
            inner.flights.forget(&name);
            inner.store.forget(&name);
        }
        Notice::Resource(tenant, resource, _) => inner.store.forget_resource(tenant.no, *resource),
        Notice::Tenant(tenant) => inner.store.forget_tenant(tenant.no),
    }
}

/// Tells the others, in order, until they are told.
async fn tell(inner: Weak<Inner>, second: Arc<Second>) {
    loop {
        let notices = second.outbox.take(BATCH);
        metrics::gauge!("insula_cache_untold").set((second.outbox.len() + notices.len()) as f64);
        if notices.is_empty() {
            second.outbox.rung().await;
            continue;
        }
        let told = timeout(SILENCE, second.tell(&notices)).await;
        let Some(inner) = inner.upgrade() else { return };
        if matches!(told, Ok(Ok(()))) {
            for (notice, count) in &notices {
                inner.store.tenancy(notice.tenant().no).untold.fetch_sub(*count, Ordering::SeqCst);
            }
        } else {
            second.outbox.put_back(notices);
            drop(inner);
            sleep(PAUSE).await;
        }
    }
}
