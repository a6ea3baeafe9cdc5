//! A fair, bounded gate of N places: `planner::share` with futures around it.
//!
//! Always: a [`Pass`] stands for exactly one place and gives it back when dropped; a waiter that gives up (timeout, cancelled
//! future) leaves the line or hands its place on; waiting is bounded in time and in number.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use insula_core::{TenantNo, Tier};
use insula_planner::share::{Answer, Bounds, Entry, Reason, Share};
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Who wants through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rider<'a> {
    pub(crate) tenant: TenantNo,
    pub(crate) tier: &'a Tier,
    /// Places that this tenant may hold at once.
    pub(crate) max: u32,
}

/// Why somebody did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The tenant itself holds all that it may, or has too long a line.
    OwnLimit,
    /// Others hold everything.
    Busy,
}

#[derive(Debug)]
pub(crate) struct Turnstile {
    share: Mutex<Share<oneshot::Sender<Pass>>>,
}

/// One place, held.
#[derive(Debug)]
pub(crate) struct Pass {
    /// `None` when the place was given back by other means.
    held: Option<(Arc<Turnstile>, Entry)>,
}

impl Turnstile {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { share: Mutex::new(Share::new(bounds)) })
    }

    /// The ledger, for counts. A panic while it was held cannot leave it half changed in a way that gives out a place twice.
    pub(crate) fn share(&self) -> MutexGuard<'_, Share<oneshot::Sender<Pass>>> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a place until `deadline`.
    pub(crate) async fn enter(self: &Arc<Self>, rider: Rider<'_>, deadline: Instant) -> Result<Pass, Refused> {
        let taken = self.share().take(rider.tenant, rider.tier, rider.max);
        if let Some(entry) = taken {
            return Ok(Pass { held: Some((self.clone(), entry)) });
        }
        let (sender, receiver) = oneshot::channel();
        let answer = self.share().ask(rider.tenant, rider.tier, rider.max, sender);
        let entry = match answer {
            Answer::Served(entry, _) => return Ok(Pass { held: Some((self.clone(), entry)) }),
            Answer::Refused(_) => return Err(Refused::OwnLimit),
            Answer::Waiting(entry, pushed_out) => {
                // Dropping its sender tells the one that had to leave.
                drop(pushed_out);
                self.serve();
                entry
            }
        };
        let place = InLine { turnstile: self, entry, receiver };
        place.wait(deadline).await
    }

    /// Lets in whoever may go. The ledger is never locked while a pass is handed over, because a refused pass comes back here.
    fn serve(self: &Arc<Self>) {
        loop {
            let served = self.share().serve();
            let Some((entry, waiter)) = served else { return };
            let pass = Pass { held: Some((self.clone(), entry)) };
            if let Err(mut unwanted) = waiter.send(pass) {
                unwanted.held = None;
                self.share().give_back(entry);
            }
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some((turnstile, entry)) = self.held.take() {
            let waiting = {
                let mut share = turnstile.share();
                share.give_back(entry);
                share.waiting() > 0
            };
            if waiting {
                turnstile.serve();
            }
        }
    }
}

/// A place in the line; leaves it when dropped.
struct InLine<'a> {
    turnstile: &'a Arc<Turnstile>,
    entry: Entry,
    receiver: oneshot::Receiver<Pass>,
}

impl InLine<'_> {
    async fn wait(mut self, deadline: Instant) -> Result<Pass, Refused> {
        match tokio::time::timeout_at(deadline, &mut self.receiver).await {
            Ok(Ok(pass)) => Ok(pass),
            // Pushed out of a full queue: this tenant had the longest line.
            Ok(Err(_)) => Err(Refused::OwnLimit),
            Err(_) => {
                let reason = self.turnstile.share().reason(self.entry);
                Err(if reason == Reason::OwnLimit { Refused::OwnLimit } else { Refused::Busy })
            }
        }
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        // A pass that was sent and not received is dropped with the receiver, and so given back.
        let withdrawn = self.turnstile.share().withdraw(self.entry);
        drop(withdrawn);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tier(name: &str) -> Tier {
        Tier { name: name.into(), weight: 1, pool_guarantee: 0, pool_cap: 100 }
    }

    fn no(n: i64) -> TenantNo {
        TenantNo::new(n).expect("positive")
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    #[tokio::test]
    async fn a_place_goes_from_hand_to_hand_and_never_gets_lost() {
        let gate = Turnstile::new(Bounds { capacity: 1, queue: 8, queue_per_tenant: 8 });
        let bronze = tier("bronze");
        let rider = |n| Rider { tenant: no(n), tier: &bronze, max: 4 };
        let held = gate.enter(rider(1), soon()).await.expect("free");
        assert_eq!(gate.enter(rider(2), soon()).await.err(), Some(Refused::Busy));
        // A waiter that is dropped leaves the line.
        {
            let far = Instant::now() + Duration::from_secs(60);
            let mut waiting = Box::pin(gate.enter(rider(2), far));
            assert!(futures_util::FutureExt::now_or_never(&mut waiting).is_none());
            assert_eq!(gate.share().waiting(), 1);
            // Served while nobody looks, then dropped: the place comes back.
            drop(held);
            assert_eq!(gate.share().in_use(), 1);
        }
        assert_eq!(gate.share().in_use(), 0);
        assert_eq!(gate.share().waiting(), 0);
        let again = gate.enter(rider(3), soon()).await;
        assert!(again.is_ok());
    }

    #[tokio::test]
    async fn the_plan_s_own_limit_is_told_apart_from_others_load() {
        let gate = Turnstile::new(Bounds { capacity: 2, queue: 8, queue_per_tenant: 1 });
        let bronze = tier("bronze");
        let rider = Rider { tenant: no(1), tier: &bronze, max: 1 };
        let _held = gate.enter(rider, soon()).await.expect("free");
        assert_eq!(gate.enter(rider, soon()).await.err(), Some(Refused::OwnLimit));
    }
}
