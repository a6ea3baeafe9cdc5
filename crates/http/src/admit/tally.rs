//! What decides on a tenant's next request, found by its slug: the request's host says that before anything is looked up, so a tally is fetched
//! into the processor's cache while the tenant's route still is.
//!
//! Four tallies share a line of cache, and a slug's hash says which line. A tenant takes the first of the four that is nobody's, by its number, and
//! keeps it for the life of the process. Tenants that find all four taken have theirs beyond the lines, by number, as have those with numbers above
//! 32 bits: that costs one line more, which nobody could fetch ahead.
//!
//! Always: under one slug, a tenant has one tally. Tallies are never given up, and all look through a line in the same order: whoever goes on to the
//! next has seen this one be another's, and so it is for everybody ever after. So nobody goes beyond a tally of its own, and where two race for
//! one of nobody's, the one that loses looks at who won. A tenant whose slug changes begins with a fresh tally (a full burst; what is at work
//! under the old slug counts there until it ends), and so it does with each new slug, once; what it leaves behind stays taken.
//! No lock, and no allocation but for the first tenant of a chunk.

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU32, Ordering};

use foldhash::quality::RandomState;
use insula_core::TenantNo;
use insula_planner::slab::Slab;

use super::rate::Rate;

/// Lines. Of half a million tenants one in thirty has its tally beyond them, of a million one in six.
const LINES: u64 = 1 << 18;
/// Lines of a chunk, 32 KB of them: lines are drawn by lot, so each of the first tenants makes a chunk.
const CHUNK: usize = 512;
/// Tallies of a line.
const EACH: usize = 4;

/// One tenant's.
#[derive(Debug, Default)]
#[repr(align(16))]
pub(crate) struct Tally {
    /// The tenant's number; 0 while it is nobody's. Beyond the lines the place says whose it is, and this stays 0.
    no: AtomicU32,
    /// Requests at work.
    pub(crate) in_flight: AtomicU32,
    pub(crate) rate: Rate,
}

impl Tally {
    /// Whether it is this tenant's, now at the latest.
    #[inline]
    fn is_of(&self, no: u32) -> bool {
        // Only this one number matters: what else is in a tally is the same whoever's it becomes.
        match self.no.load(Ordering::Relaxed) {
            0 => match self.no.compare_exchange(0, no, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => true,
                Err(first) => first == no,
            },
            whose => whose == no,
        }
    }
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([Tally; EACH]);

/// Which line a slug's tally is in, if it is in any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineNo(u64);

/// Where a tenant's tally was found, to find it again without its slug.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Spot(u32);

impl Spot {
    /// Beyond the lines, by the tenant's number.
    pub(crate) const BEYOND: Self = Self(u32::MAX);
}

#[derive(Debug, Default)]
pub(crate) struct Tallies {
    lines: Slab<Line, CHUNK>,
    beyond: Slab<Tally>,
    /// Keyed, so that nobody can choose slugs that share a line; of the kind whose low bits are as good as the others, under each key.
    hasher: RandomState,
}

impl Tallies {
    #[inline]
    pub(crate) fn line(&self, slug: &str) -> LineNo {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(slug.as_bytes());
        LineNo(hasher.finish() % LINES)
    }

    /// As [`Slab::expect`].
    #[inline]
    pub(crate) fn expect(&self, line: LineNo) {
        self.lines.expect(line.0);
    }

    /// The tally of a tenant whose slug has this line, and where it is.
    #[inline]
    pub(crate) fn find(&self, line: LineNo, tenant: TenantNo) -> (Spot, &Tally) {
        if let Ok(no) = u32::try_from(tenant.get()) {
            for (at, tally) in self.lines.at(line.0).0.iter().enumerate() {
                if tally.is_of(no) {
                    // 2^20 tallies.
                    return (Spot(line.0 as u32 * EACH as u32 + at as u32), tally);
                }
            }
        }
        (Spot::BEYOND, self.beyond(tenant))
    }

    /// The tally of a tenant, where it was found.
    #[inline]
    pub(crate) fn at(&self, spot: Spot, tenant: TenantNo) -> &Tally {
        if spot == Spot::BEYOND {
            return self.beyond(tenant);
        }
        let at = spot.0 as usize;
        &self.lines.at((at / EACH) as u64).0[at % EACH]
    }

    #[cold]
    fn beyond(&self, tenant: TenantNo) -> &Tally {
        self.beyond.at(tenant.get().cast_unsigned())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.lines.bytes() + self.beyond.bytes()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};
    use std::sync::Barrier;

    use proptest::prelude::*;

    use super::*;

    fn tenant(no: u64) -> TenantNo {
        TenantNo::new(no.cast_signed()).unwrap()
    }

    #[test]
    fn four_tallies_are_a_cache_line() {
        assert_eq!((size_of::<Tally>(), size_of::<Line>(), align_of::<Line>()), (16, 64, 64));
        const { assert!(LINES <= Slab::<Line, CHUNK>::REACH && LINES * (EACH as u64) < u32::MAX as u64) };
    }

    /// Threads that meet at a barrier and race for one fresh line, each asking for the tenants in an order of its own: with room for
    /// all, and with more tenants than a line holds, each has one tally that all count in.
    #[test]
    fn one_tally_each_however_many_race_for_it() {
        const THREADS: u64 = 8;
        const ROUNDS: u64 = 400;
        let tallies = Tallies::default();
        let barrier = Barrier::new(THREADS as usize);
        let tenants = |round: u64| 1 + round % 8;
        let found: Vec<Vec<(u64, TenantNo, Spot)>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|t| {
                    let (tallies, barrier) = (&tallies, &barrier);
                    scope.spawn(move || {
                        let mut found = Vec::new();
                        for round in 0..ROUNDS {
                            barrier.wait();
                            for n in 0..tenants(round) {
                                // Half of the threads go upwards and half downwards, from different tenants on.
                                let n = if t % 2 == 0 { n + t } else { 8 * THREADS - n - t } % tenants(round);
                                let who = tenant(1 + round * 8 + n);
                                let (spot, tally) = tallies.find(LineNo(round * 601 % LINES), who);
                                tally.in_flight.fetch_add(1, Ordering::Relaxed);
                                found.push((round, who, spot));
                            }
                        }
                        found
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let all: HashSet<_> = found.into_iter().flatten().collect();
        for round in 0..ROUNDS {
            let here: Vec<_> = all.iter().filter(|(of, ..)| *of == round).collect();
            assert_eq!(here.len() as u64, tenants(round), "a spot each, and no two for one: {here:?}");
            let spots: HashSet<_> = here.iter().map(|(_, _, spot)| *spot).filter(|spot| *spot != Spot::BEYOND).collect();
            assert_eq!(spots.len() as u64, tenants(round).min(EACH as u64), "a line is filled before anybody is beyond it");
            for (_, who, spot) in here {
                let found = tallies.find(LineNo(round * 601 % LINES), *who);
                assert_eq!((found.0, found.1.in_flight.load(Ordering::Relaxed)), (*spot, THREADS as u32));
                assert!(std::ptr::eq(found.1, tallies.at(*spot, *who)));
            }
        }
    }

    /// Slugs as people choose them are spread over the lines as by lot.
    #[test]
    fn slugs_are_spread() {
        let tallies = Tallies::default();
        for name in [|n: u64| format!("t{n}"), |n| format!("customer-{n:07}"), |n| format!("{n:05x}-gmbh-und-co-kg-in-berlin")] {
            let mut load = vec![0u32; LINES as usize];
            (0..LINES).for_each(|n| load[tallies.line(&name(n)).0 as usize] += 1);
            // By lot, a line has more than four in 37 of 10,000 cases, and 37 in 100 have none.
            let (full, none) = (load.iter().filter(|n| **n > 4).count(), load.iter().filter(|n| **n == 0).count());
            assert!(full < LINES as usize / 100 && none < LINES as usize / 2, "{}: {full} full, {none} empty", name(7));
        }
    }

    #[test]
    fn another_slug_is_another_tally_and_the_old_one_is_found_where_it_was() {
        let tallies = Tallies::default();
        let (before, after) = (LineNo(1), LineNo(2));
        let (spot, tally) = tallies.find(before, tenant(7));
        tally.in_flight.store(3, Ordering::Relaxed);
        let (_, fresh) = tallies.find(after, tenant(7));
        assert_eq!(fresh.in_flight.load(Ordering::Relaxed), 0);
        assert_eq!(tallies.at(spot, tenant(7)).in_flight.load(Ordering::Relaxed), 3);
        assert_eq!(tallies.find(before, tenant(7)).0, spot, "and again under the old one");
    }

    /// A few lines and more tenants than they hold; some numbers are above 32 bits.
    fn anybody() -> impl Strategy<Value = u64> {
        prop_oneof![1..40u64, (u64::from(u32::MAX) - 2)..=u64::from(u32::MAX), (1 << 40) + 100..(1 << 40) + 110u64]
    }

    proptest! {
        #[test]
        fn tallies_are_a_map_by_number(asked in proptest::collection::vec((anybody(), 1..5u32), 1..200)) {
            let tallies = Tallies::default();
            let (mut model, mut spots) = (HashMap::<u64, u32>::new(), HashMap::new());
            for (no, n) in asked {
                let (spot, tally) = tallies.find(LineNo(no % 3), tenant(no));
                prop_assert_eq!(*spots.entry(no).or_insert(spot), spot);
                prop_assert!(no <= u64::from(u32::MAX) || spot == Spot::BEYOND);
                let had = model.entry(no).or_default();
                prop_assert_eq!(tally.in_flight.fetch_add(n, Ordering::Relaxed), *had);
                *had += n;
                prop_assert_eq!(tallies.at(spot, tenant(no)).in_flight.load(Ordering::Relaxed), *had);
            }
            for (no, had) in model {
                prop_assert_eq!(tallies.at(spots[&no], tenant(no)).in_flight.load(Ordering::Relaxed), had);
            }
        }
    }
}
