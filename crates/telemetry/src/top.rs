//! Which tenants use the most just now, by each meter: the admin port's `/top`.
//!
//! For: the question "who is it?" that a metric must not answer. Kept by sketches of two spans that take turns, so that memory is bounded and the answer is about
//! one to two minutes at most. Always: an amount is never below the truth of its spans, and `error` says by how much it may be above.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use insula_core::TenantNo;
use serde::Serialize;

use crate::sketch::Sketch;
use crate::usage::{Amounts, Meter};

/// Length of a span.
pub const SPAN: Duration = Duration::from_secs(60);

/// Tenants that a sketch has room for.
pub const ROOM: usize = 512;

/// Tenants that are shown of each meter.
pub const SHOWN: usize = 20;

/// Says how tenants are called, as far as it knows.
pub type Names = dyn Fn(&BTreeSet<TenantNo>) -> HashMap<TenantNo, String> + Send + Sync;

type Sketches = [Sketch<TenantNo>; Meter::ALL.len()];

/// See the module.
#[derive(Debug)]
pub struct Top(Mutex<State>);

#[derive(Debug)]
struct State {
    begun: Instant,
    before_begun: Instant,
    now: Sketches,
    before: Sketches,
}

fn sketches() -> Sketches {
    std::array::from_fn(|_| Sketch::new(ROOM))
}

/// What `/top` answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct View {
    /// How far back it looks.
    pub seconds: f64,
    /// By meter, the heaviest first.
    pub top: std::collections::BTreeMap<&'static str, Vec<Heavy>>,
}

/// A tenant that uses much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heavy {
    /// Its slug; its number when this process does not know it any more.
    pub tenant: String,
    /// What it used, at most.
    pub amount: u64,
    /// It may be this much less.
    pub error: u64,
    /// Of all tenants' use, permille.
    pub permille: u64,
}

impl Default for Top {
    fn default() -> Self {
        let now = Instant::now();
        Self(Mutex::new(State { begun: now, before_begun: now, now: sketches(), before: sketches() }))
    }
}

impl Top {
    /// Takes note of what was used.
    pub fn note(&self, used: &[(TenantNo, Amounts)], at: Instant) {
        let mut state = self.lock();
        if at.saturating_duration_since(state.begun) >= SPAN {
            let State { begun, before_begun, now, before } = &mut *state;
            std::mem::swap(now, before);
            now.iter_mut().for_each(Sketch::clear);
            (*before_begun, *begun) = (*begun, at);
        }
        for (tenant, amounts) in used {
            for (sketch, amount) in state.now.iter_mut().zip(amounts.0) {
                sketch.add(*tenant, amount);
            }
        }
    }

    /// The heaviest of the last one to two spans; `names` says how tenants are called.
    pub fn view(&self, at: Instant, names: &Names) -> View {
        let state = self.lock();
        let seconds = (at.saturating_duration_since(state.before_begun).as_secs_f64() * 10.0).round() / 10.0;
        let all = Meter::ALL.map(|meter| heaviest(&state.now[meter as usize], &state.before[meter as usize]));
        // Whoever counts goes on while the names are looked up.
        drop(state);
        let names = names(&all.iter().flatten().map(|(tenant, ..)| *tenant).collect());
        let shown = all.map(|heavy| {
            heavy
                .into_iter()
                .map(|(tenant, amount, error, permille)| {
                    let tenant = names.get(&tenant).cloned().unwrap_or_else(|| format!("no. {tenant}"));
                    Heavy { tenant, amount, error, permille }
                })
                .collect()
        });
        View { seconds, top: Meter::ALL.iter().map(|meter| meter.name()).zip(shown).collect() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tenant, amount, error, permille of the whole.
fn heaviest(now: &Sketch<TenantNo>, before: &Sketch<TenantNo>) -> Vec<(TenantNo, u64, u64, u64)> {
    let mut sums: HashMap<TenantNo, (u64, u64)> = HashMap::new();
    for sketch in [now, before] {
        for (tenant, count) in sketch.top(ROOM) {
            let sum = sums.entry(*tenant).or_default();
            *sum = (sum.0 + count.weight, sum.1 + count.error);
        }
    }
    let total = (now.total() + before.total()).max(1);
    let mut all: Vec<_> = sums.into_iter().collect();
    all.sort_unstable_by_key(|(tenant, (weight, _))| (std::cmp::Reverse(*weight), *tenant));
    all.truncate(SHOWN);
    all.into_iter().map(|(tenant, (amount, error))| (tenant, amount, error, amount.saturating_mul(1000) / total)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(no: i64, requests: u64) -> (TenantNo, Amounts) {
        let mut amounts = Amounts::default();
        amounts.0[Meter::Requests as usize] = requests;
        (TenantNo::new(no).unwrap(), amounts)
    }

    #[test]
    fn the_heaviest_of_thousands_is_found_and_forgotten_after_two_spans() {
        let top = Top::default();
        let start = Instant::now();
        let crowd: Vec<_> = (1..=5_000).map(|no| used(no, 1)).collect();
        for second in 0..50 {
            top.note(&crowd, start + Duration::from_secs(second));
            top.note(&[used(4_711, 500)], start + Duration::from_secs(second));
        }
        let named: &Names = &|_| HashMap::from([(TenantNo::new(4_711).unwrap(), "acme".to_owned())]);
        let view = top.view(start + Duration::from_secs(50), named);
        let first = &view.top["requests"][0];
        assert_eq!(first.tenant, "acme");
        assert!(first.amount >= 25_050 && first.amount - first.error <= 25_050, "{first:?}");
        assert_eq!(view.top["requests"].len(), SHOWN);
        assert!(view.top["rows"].is_empty());
        top.note(&[], start + SPAN);
        assert_eq!(top.view(start + SPAN, named).top["requests"][0].tenant, "acme");
        top.note(&[], start + 2 * SPAN);
        assert!(top.view(start + 2 * SPAN, named).top["requests"].is_empty());
    }
}
