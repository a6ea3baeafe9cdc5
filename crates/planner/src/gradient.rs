//! How much work a cell can take at once, learned from how long the work takes: a concurrency limit of the gradient sort, after
//! Netflix' concurrency-limits (`Gradient2Limit`).
//!
//! When the time of a request grows against what it was over the long run, a queue is building up behind us: the limit shrinks by that
//! ratio. When it does not, the limit grows by a little headroom, but only while it is used. Not for: counting, or clocks.
//! Always: the limit stays within its bounds; an idle cell's limit does not grow.

/// How the limit moves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// The limit to begin with.
    pub initial: u32,
    /// Never below.
    pub min: u32,
    /// Never above.
    pub max: u32,
    /// How many times the long-run time a request may take before the limit shrinks.
    pub tolerance: f64,
    /// Part of the way to the new limit that one update goes (0 to 1).
    pub smoothing: f64,
    /// Updates over which the long-run time follows an increase.
    pub memory: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self { initial: 128, min: 16, max: 2_048, tolerance: 1.5, smoothing: 0.2, memory: 600.0 }
    }
}

/// What a span of work looked like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Mean time of a request that went well, in any unit as long as it is always the same one.
    pub time: f64,
    /// Most requests at work at once.
    pub peak: u32,
    /// Whether requests were lost to overload (timeouts, refusals by the cell).
    pub overloaded: bool,
}

/// The limit and what it remembers.
#[derive(Clone, Copy, Debug)]
pub struct Gradient {
    policy: Policy,
    limit: f64,
    /// Long-run mean of the time; 0 before the first span.
    usual: f64,
    spans: f64,
}

impl Gradient {
    /// At its initial limit.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let limit = f64::from(policy.initial.clamp(policy.min, policy.max.max(policy.min)));
        Self { policy, limit, usual: 0.0, spans: 0.0 }
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> u32 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between two u32")]
        let limit = self.limit as u32;
        limit
    }

    /// Takes in a span and answers the new limit.
    pub fn update(&mut self, span: Span) -> u32 {
        if !(span.time.is_finite() && span.time > 0.0) {
            if span.overloaded {
                self.go_to(self.limit * 0.5);
            }
            return self.limit();
        }
        // The first spans count fully, so that a cold start is not remembered for long. Then what is usual comes down ten times
        // as fast as it goes up, or a queue that stays would become usual and the limit drift upwards with it.
        self.spans += 1.0;
        let memory = self.policy.memory.max(20.0);
        let part = if self.spans <= 10.0 {
            1.0 / self.spans
        } else if span.time < self.usual {
            10.0 / memory
        } else {
            1.0 / memory
        };
        self.usual += (span.time - self.usual) * part;
        let used = f64::from(span.peak) >= self.limit / 2.0;
        let gradient = (self.policy.tolerance * self.usual / span.time).clamp(0.5, 1.0);
        let gradient = if span.overloaded { gradient.min(0.9) } else { gradient };
        if gradient < 1.0 {
            self.go_to(self.limit * gradient + if span.overloaded { 0.0 } else { self.limit.sqrt() });
        } else if used {
            self.go_to(self.limit + self.limit.sqrt());
        }
        self.limit()
    }

    fn go_to(&mut self, target: f64) {
        let part = self.policy.smoothing.clamp(0.01, 1.0);
        let limit = self.limit * (1.0 - part) + target * part;
        self.limit = limit.clamp(f64::from(self.policy.min), f64::from(self.policy.max.max(self.policy.min)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A server that works on `places` at once, each for 10 ms; more wait for a place.
    fn time(places: u32, at_once: u32) -> f64 {
        10.0 * f64::from(at_once.max(places)) / f64::from(places)
    }

    fn settle(gradient: &mut Gradient, places: u32, demand: u32, spans: u32) -> u32 {
        for _ in 0..spans {
            let at_once = demand.min(gradient.limit());
            gradient.update(Span { time: time(places, at_once), peak: at_once, overloaded: false });
        }
        gradient.limit()
    }

    #[test]
    fn it_finds_what_the_server_can_take() {
        let mut gradient = Gradient::new(Policy { initial: 20, min: 4, ..Policy::default() });
        // 100 places, far more demand: it grows to them and somewhat beyond (the tolerance), not to the maximum.
        let limit = settle(&mut gradient, 100, 10_000, 300);
        assert!((100..=260).contains(&limit), "{limit}");
        // The server loses three quarters of its places: the limit follows.
        let limit = settle(&mut gradient, 25, 10_000, 100);
        assert!(limit < 100, "{limit}");
    }

    #[test]
    fn an_idle_cell_does_not_grow_and_an_overloaded_one_shrinks() {
        let mut gradient = Gradient::new(Policy::default());
        assert_eq!(settle(&mut gradient, 1_000, 10, 100), 128);
        for _ in 0..50 {
            gradient.update(Span { time: 10.0, peak: 128, overloaded: true });
        }
        assert!(gradient.limit() < 64, "{}", gradient.limit());
        for _ in 0..50 {
            gradient.update(Span { time: 0.0, peak: 128, overloaded: true });
        }
        assert_eq!(gradient.limit(), 16);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds(spans in proptest::collection::vec((0.0f64..1e6, 0u32..5_000, any::<bool>()), 0..200)) {
            let policy = Policy { min: 8, max: 500, ..Policy::default() };
            let mut gradient = Gradient::new(policy);
            for (time, peak, overloaded) in spans {
                let limit = gradient.update(Span { time, peak, overloaded });
                prop_assert!((8..=500).contains(&limit));
            }
        }
    }
}
