//! One outbox as a relay serves it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream;
use insula_core::TenantId;
use metrics::counter;
use tokio::sync::{Semaphore, watch};

use super::link::{Link, Taken};
use super::{Figures, Place, Shared};
use crate::envelope::Envelope;
use crate::error::Error;
use crate::sink::{SendError, Sink};

/// Bodies of one round, about.
const BYTES: i64 = 8 << 20;
/// How long a round goes on handing over: the outbox is locked meanwhile.
const ROUND: Duration = Duration::from_secs(5);
/// Tenants whose events are on their way at once.
const AT_ONCE: usize = 64;
/// How long a tenant that the catalog does not know is left alone.
const STRANGER: Duration = Duration::from_secs(5);
/// How long a visit lasts while there is more to do: others wait for the place.
const VISIT: Duration = Duration::from_secs(5);
const STATE_EVERY: Duration = Duration::from_secs(5);

pub(crate) struct Desk {
    place: Place,
    shared: Arc<Shared>,
    strangers: HashMap<i64, Instant>,
    counted: Option<Instant>,
    complained: bool,
}

impl Desk {
    pub(crate) fn new(place: Place, shared: Arc<Shared>) -> Self {
        Self { place, shared, strangers: HashMap::new(), counted: None, complained: false }
    }

    /// Serves until told to stop. Visitors come and go, so that idle databases have no connections.
    pub(crate) async fn serve(mut self, visitors: Option<Arc<Semaphore>>, mut stopping: watch::Receiver<bool>) {
        let mut pause = Duration::from_millis(100);
        while !*stopping.borrow() {
            let permit = match &visitors {
                Some(visitors) => visitors.clone().acquire_owned().await.ok(),
                None => None,
            };
            let served = self.session(visitors.is_some(), &mut stopping).await;
            drop(permit);
            let rest = match served {
                Ok(more) => {
                    pause = Duration::from_millis(100);
                    // Behind those that wait for a place, and not later.
                    if more { Duration::ZERO } else { self.shared.config.visit }
                }
                Err(error) => {
                    counter!("insula_events_outbox_faults_total").increment(1);
                    tracing::warn!(%error, cell = %self.place.0, database = %self.place.1, "an outbox cannot be served now");
                    pause = (pause * 2).min(Duration::from_secs(10));
                    pause
                }
            };
            let _ = tokio::time::timeout(rest, stopping.wait_for(|stop| *stop)).await;
        }
    }

    /// Serves for as long as there is something to do; a visit ends after a while all the same. Whether there was more.
    async fn session(&mut self, visiting: bool, stopping: &mut watch::Receiver<bool>) -> Result<bool, Error> {
        let mut link = Link::open(&self.shared, &self.place).await?;
        let began = Instant::now();
        let mut idle_since = began;
        let mut more = false;
        let sink = self.shared.sink.clone();
        while !*stopping.borrow() {
            let mut sent = 0;
            let mut rest = self.shared.config.poll;
            if !sink.is_up() {
                self.complain(Some("the bus is away"));
            } else if link.waits().await? {
                let (taken, failed) = self.round(&mut link, &*sink).await?;
                sent = taken;
                if failed {
                    rest = Duration::from_secs(1);
                }
            } else {
                self.complain(None);
            }
            if self.counted.is_none_or(|counted| counted.elapsed() >= STATE_EVERY) {
                let (waiting, oldest_ms, refused) = link.state().await?;
                self.shared.show(&self.place, Figures { waiting, oldest_ms, refused });
                self.counted = Some(Instant::now());
            }
            if sent > 0 {
                idle_since = Instant::now();
                more = visiting && began.elapsed() > VISIT;
                if more {
                    break;
                }
                continue;
            }
            if visiting && idle_since.elapsed() > Duration::from_millis(500) {
                break;
            }
            let _ = tokio::time::timeout(rest, stopping.wait_for(|stop| *stop)).await;
        }
        link.close().await;
        Ok(more)
    }

    /// Takes, hands over, deletes: in one transaction, which keeps other relays away. How many the bus has now, and whether it refused one for now.
    async fn round(&mut self, link: &mut Link, sink: &dyn Sink) -> Result<(usize, bool), Error> {
        self.strangers.retain(|_, since| since.elapsed() < STRANGER);
        let skip: Vec<i64> = self.strangers.keys().copied().collect();
        let mut batch = link.begin().await?;
        let taken = batch.take(self.shared.config.batch, BYTES, &skip).await?;
        // Once for all that are not known, because the outbox is locked meanwhile.
        if taken.iter().any(|event| self.shared.tenants.id(event.tenant).is_none()) {
            let _ = tokio::time::timeout(Duration::from_secs(2), self.shared.catalog.refresh()).await;
        }
        let mut lines: HashMap<i64, (TenantId, Vec<Taken>)> = HashMap::new();
        for event in taken {
            match lines.get_mut(&event.tenant) {
                Some((_, line)) => line.push(event),
                None if self.strangers.contains_key(&event.tenant) => {}
                None => match self.shared.tenants.id(event.tenant) {
                    Some(id) => drop(lines.insert(event.tenant, (id, vec![event]))),
                    None => drop(self.strangers.insert(event.tenant, Instant::now())),
                },
            }
        }
        let until = Instant::now() + ROUND;
        let cell = &self.place.0;
        // In no order: were the bus so slow that not all of them are begun in time, it would not be the same who is not.
        let ends: Vec<Ended> = stream::iter(lines.into_values())
            .map(|(tenant, line)| hand_over(sink, tenant, cell, line, until))
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut sent = Vec::new();
        let mut failure = None;
        for ended in ends {
            sent.extend(ended.sent);
            for (seq, reason) in ended.refused {
                tracing::error!(event = seq, reason, "the bus will never take an event: it is set aside");
                counter!("insula_events_refused_total").increment(1);
                batch.refused(seq, &reason).await?;
            }
            failure = failure.or(ended.failure);
        }
        let count = sent.len();
        batch.sent(&sent).await?;
        counter!("insula_events_relayed_total").increment(count as u64);
        self.complain(failure.as_deref());
        Ok((count, failure.is_some()))
    }

    /// Says once that the bus does not take events, and once that it does again.
    fn complain(&mut self, why: Option<&str>) {
        match why {
            Some(why) if !self.complained => {
                self.complained = true;
                tracing::warn!(why, cell = %self.place.0, database = %self.place.1, "events wait in their outbox");
            }
            None if self.complained => {
                self.complained = false;
                tracing::info!(cell = %self.place.0, database = %self.place.1, "events leave their outbox again");
            }
            _ => {}
        }
    }
}

/// How far a tenant's line got.
#[derive(Default)]
struct Ended {
    sent: Vec<i64>,
    refused: Vec<(i64, String)>,
    failure: Option<String>,
}

/// One tenant's events, one after the other: the first that the bus does not take for now keeps those behind it.
async fn hand_over(sink: &dyn Sink, tenant: TenantId, cell: &insula_core::CellName, line: Vec<Taken>, until: Instant) -> Ended {
    let mut ended = Ended::default();
    for event in line {
        if Instant::now() > until {
            break;
        }
        let envelope = Envelope {
            tenant,
            id: event.id,
            epoch: event.epoch,
            cell: cell.clone(),
            topic: event.topic,
            at: event.at,
            principal: event.principal,
            trace: event.trace,
        };
        match sink.send(&envelope, &event.body).await {
            Ok(()) => ended.sent.push(event.seq),
            Err(SendError::Never(reason)) => ended.refused.push((event.seq, reason)),
            Err(SendError::Later(reason)) => {
                ended.failure = Some(reason);
                break;
            }
        }
    }
    ended
}
