//! What the other processes are still to be told.
//!
//! Always: nothing is lost, and the memory is bounded: when too much waits, tenants are forgotten as a whole.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::Whose;
use super::notice::Notice;

/// Single notices that wait; beyond, one for each tenant.
const MOST: usize = 4_096;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    single: VecDeque<(Notice, u32)>,
    whole: BTreeSet<Whose>,
    /// How many single notices a tenant's whole one stands for.
    stands_for: std::collections::HashMap<Whose, u32>,
}

impl Outbox {
    /// Something is forgotten: it will be told.
    pub(crate) fn put(&self, notice: Notice) {
        let mut waiting = self.lock();
        waiting.single.push_back((notice, 1));
        if waiting.single.len() > MOST {
            for (notice, count) in std::mem::take(&mut waiting.single) {
                waiting.whole.insert(notice.tenant());
                *waiting.stands_for.entry(notice.tenant()).or_default() += count;
            }
        }
        drop(waiting);
        self.bell.notify_one();
    }

    /// The next to tell, with how many each stands for. Those that could not be told are [`Outbox::put_back`].
    pub(crate) fn take(&self, most: usize) -> Vec<(Notice, u32)> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some(tenant) = waiting.whole.pop_first() else { break };
            let count = waiting.stands_for.remove(&tenant).unwrap_or(1);
            taken.push((Notice::Tenant(tenant), count));
        }
        let more = waiting.single.len().min(most - taken.len());
        taken.extend(waiting.single.drain(..more));
        taken
    }

    pub(crate) fn put_back(&self, notices: Vec<(Notice, u32)>) {
        let mut waiting = self.lock();
        for notice in notices.into_iter().rev() {
            waiting.single.push_front(notice);
        }
    }

    pub(crate) fn len(&self) -> usize {
        let waiting = self.lock();
        waiting.single.len() + waiting.whole.len()
    }

    /// Resolves when something was put in.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use insula_core::{TenantId, TenantNo};

    use super::*;

    #[test]
    fn nothing_is_lost_when_too_much_waits() {
        let outbox = Outbox::default();
        let tenants: Vec<Whose> = (1..=10).map(|no| Whose { no: TenantNo::new(no).unwrap(), id: TenantId::new() }).collect();
        for n in 0..10_000 {
            outbox.put(Notice::Resource(tenants[n % 10], 1, "r"));
        }
        assert!(outbox.len() <= MOST + 10);
        let (mut told, mut rounds) = (0, 0);
        loop {
            let taken = outbox.take(100);
            if taken.is_empty() {
                break;
            }
            rounds += 1;
            if rounds % 3 == 0 {
                outbox.put_back(taken);
            } else {
                told += taken.iter().map(|(_, count)| count).sum::<u32>();
            }
        }
        assert_eq!((told, outbox.len()), (10_000, 0));
    }
}
