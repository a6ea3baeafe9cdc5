//! Counters by tenant's number, in pages that are made when they are first needed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use insula_core::TenantNo;

use super::{Amounts, Meter};

/// Tenants of a page: 16 KB.
const PAGE: usize = 256;

/// Pages that are found without a lock: numbers below 4 million. Numbers are given out in order, so this is a count of sign-ups.
const PAGES: usize = 16_384;

const METERS: usize = Meter::ALL.len();

/// A page's counters and whether one of them changed since the last look.
struct Page {
    dirty: AtomicBool,
    tenants: Box<[[AtomicU64; METERS]]>,
}

impl Page {
    fn new() -> Self {
        Self { dirty: AtomicBool::new(false), tenants: (0..PAGE).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect() }
    }
}

/// What the tenants of this process used. Clones share it.
#[derive(Clone)]
pub struct Usage(Arc<Inner>);

struct Inner {
    pages: Box<[OnceLock<Page>]>,
    /// Numbers that have no page. None in practice; counted all the same.
    others: Mutex<HashMap<TenantNo, Amounts>>,
}

impl Default for Usage {
    fn default() -> Self {
        Self(Arc::new(Inner { pages: (0..PAGES).map(|_| OnceLock::new()).collect(), others: Mutex::default() }))
    }
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usage").finish_non_exhaustive()
    }
}

impl Usage {
    /// Adds to one of a tenant's figures.
    pub fn add(&self, tenant: TenantNo, meter: Meter, amount: u64) {
        let mut all = Amounts::default();
        all.0[meter as usize] = amount;
        self.add_all(tenant, &all);
    }

    /// Adds to several of a tenant's figures.
    pub fn add_all(&self, tenant: TenantNo, amounts: &Amounts) {
        let no = tenant.get();
        let Some((page, at)) = usize::try_from(no).ok().map(|no| (no / PAGE, no % PAGE)).filter(|(page, _)| *page < PAGES) else {
            let mut others = self.0.others.lock().unwrap_or_else(PoisonError::into_inner);
            return others.entry(tenant).or_default().add(amounts);
        };
        let page = self.0.pages[page].get_or_init(Page::new);
        for (counter, amount) in page.tenants[at].iter().zip(&amounts.0) {
            if *amount > 0 {
                counter.fetch_add(*amount, Ordering::SeqCst);
            }
        }
        // Stored only when it changes, so that the line of memory stays shared. In one order with the counters (SeqCst): either this load comes
        // after the drain's swap and sets the mark again, or the drain's look at the counters comes after the addition.
        if !page.dirty.load(Ordering::SeqCst) {
            page.dirty.store(true, Ordering::SeqCst);
        }
    }

    /// What was added since the last time, by tenant.
    #[must_use]
    pub fn drain(&self) -> Vec<(TenantNo, Amounts)> {
        let mut drained = Vec::new();
        for (no, page) in self.0.pages.iter().enumerate().filter_map(|(no, page)| Some((no, page.get()?))) {
            // The mark first: what is added from now on sets it again.
            if !page.dirty.swap(false, Ordering::SeqCst) {
                continue;
            }
            for (at, counters) in page.tenants.iter().enumerate() {
                let amounts = Amounts(std::array::from_fn(|meter| match counters[meter].load(Ordering::SeqCst) {
                    0 => 0,
                    _ => counters[meter].swap(0, Ordering::SeqCst),
                }));
                let tenant = i64::try_from(no * PAGE + at).ok().and_then(TenantNo::new);
                drained.extend(tenant.filter(|_| !amounts.is_zero()).map(|tenant| (tenant, amounts)));
            }
        }
        let others = std::mem::take(&mut *self.0.others.lock().unwrap_or_else(PoisonError::into_inner));
        drained.extend(others);
        drained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(no: i64) -> TenantNo {
        TenantNo::new(no).unwrap()
    }

    #[test]
    fn everything_is_drained_once_while_threads_add() {
        let usage = Usage::default();
        let tenants = [1, 255, 256, 70_000, 4_194_304, i64::MAX].map(tenant);
        let mut sums: HashMap<TenantNo, Amounts> = HashMap::new();
        std::thread::scope(|scope| {
            let adders: Vec<_> = (0..3)
                .map(|_| {
                    let usage = usage.clone();
                    scope.spawn(move || {
                        for no in 0..6_000 {
                            usage.add(tenants[no % 6], Meter::Rows, 2);
                            usage.add(tenants[no % 6], Meter::Requests, 1);
                        }
                    })
                })
                .collect();
            while !adders.iter().all(std::thread::ScopedJoinHandle::is_finished) {
                usage.drain().iter().for_each(|(no, amounts)| sums.entry(*no).or_default().add(amounts));
            }
        });
        usage.drain().iter().for_each(|(no, amounts)| sums.entry(*no).or_default().add(amounts));
        for tenant in tenants {
            assert_eq!((sums[&tenant].get(Meter::Requests), sums[&tenant].get(Meter::Rows)), (3_000, 6_000));
        }
        assert!(usage.drain().is_empty());
    }
}
