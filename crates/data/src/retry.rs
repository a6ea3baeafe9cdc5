//! How often, and when, to try again. Retries are a share of all work, so that an outage is not answered with a storm.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Ten pieces of work that succeed pay for one retry; a quiet process may still spend a few.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    tenths: AtomicU32,
}

impl RetryBudget {
    const MOST: u32 = 1_000;
    const PRICE: u32 = 10;

    pub(crate) const fn new() -> Self {
        Self { tenths: AtomicU32::new(Self::MOST / 2) }
    }

    pub(crate) fn succeeded(&self) {
        // Full most of the time: look before writing, so that the line stays shared between cores.
        if self.tenths.load(Ordering::Relaxed) < Self::MOST {
            self.tenths.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether one more retry is paid for.
    pub(crate) fn spend(&self) -> bool {
        self.tenths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |t| t.checked_sub(Self::PRICE)).is_ok()
    }
}

/// Exponential backoff with full jitter (Brooker 2015): anything from 0 to `4 ms * 2^attempt`, at most 250 ms.
pub(crate) async fn pause(attempt: u32) {
    let most = 4_000_u64.saturating_mul(1 << attempt.min(6)).min(250_000);
    let micros = RandomState::new().hash_one(attempt) % most;
    tokio::time::sleep(Duration::from_micros(micros)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_spends_the_budget_and_work_earns_it_back() {
        let budget = RetryBudget::new();
        assert_eq!((0..1_000).filter(|_| budget.spend()).count(), 50);
        (0..10).for_each(|_| budget.succeeded());
        assert!(budget.spend());
        assert!(!budget.spend());
    }
}
