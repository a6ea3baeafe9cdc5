//! What a refused request is told: 429 for its tenant's own limits, 503 for what is nobody's fault but the moment's.
//!
//! `Retry-After` (RFC 9110, section 10.2.3) always; `RateLimit-Policy` and `RateLimit` as draft-ietf-httpapi-ratelimit-headers-10 defines
//! them (structured fields: `"tenant";q=40;w=2` and `"tenant";r=0;t=1`) where a quota of the tenant's is what refused.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use insula_core::Kind;
use insula_planner::gcra::Quota;

use crate::problem::{Problem, whole_seconds};

/// What the quotas are (draft-ietf-httpapi-ratelimit-headers-10, section 3).
pub const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
/// What is left of them (the same, section 4).
pub const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// Beside a 503, from an application to the gateway: the application itself has too much to do. A 503 without it may be about what one tenant needs,
/// and is no reason to send the cell less.
pub const OVERLOADED: HeaderName = HeaderName::from_static("insula-overloaded");

/// Why a request may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What refused.
    pub why: Why,
    /// The class of the request.
    pub class: String,
    /// When to come back.
    pub retry_after: Duration,
}

/// What refused a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The tenant's rate.
    Rate(Quota),
    /// The tenant's rate in this class.
    ClassRate(Quota),
    /// As many of the tenant's requests as its plan allows are at work.
    Concurrency(u32),
    /// The same for the class.
    ClassConcurrency(u32),
    /// As many requests of this class as the cell may have are at work.
    Bulkhead,
    /// The cell is full, and the wait would be too long.
    Full,
    /// The cell keeps failing and is left alone.
    Open,
}

impl Why {
    /// As metrics and logs name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rate(_) => "rate",
            Self::ClassRate(_) => "class_rate",
            Self::Concurrency(_) => "concurrency",
            Self::ClassConcurrency(_) => "class_concurrency",
            Self::Bulkhead => "bulkhead",
            Self::Full => "full",
            Self::Open => "open",
        }
    }

    /// Its kind: `Limited` for the tenant's own limits, `Unavailable` for the rest.
    #[must_use]
    pub const fn kind(self) -> Kind {
        match self {
            Self::Rate(_) | Self::ClassRate(_) | Self::Concurrency(_) | Self::ClassConcurrency(_) => Kind::Limited,
            Self::Bulkhead | Self::Full | Self::Open => Kind::Unavailable,
        }
    }
}

impl Refused {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.why.kind()
    }

    /// The answer, without its request id.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.kind()).detail(self.detail()).retry_after(self.retry_after);
        match self.headers() {
            Some((policy, limit)) => problem.header(POLICY, policy).header(LIMIT, limit),
            None => problem,
        }
    }

    fn detail(&self) -> String {
        let class = &self.class;
        match self.why {
            Why::Rate(quota) => format!("The plan allows {}.", in_words(quota)),
            Why::ClassRate(quota) => format!("The plan allows {} of the class {class}.", in_words(quota)),
            Why::Concurrency(most) => format!("The plan allows {most} requests at once."),
            Why::ClassConcurrency(most) => format!("The plan allows {most} requests of the class {class} at once."),
            Why::Bulkhead => format!("Too many requests of the class {class} are at work just now."),
            Why::Full => "Too much is going on just now.".to_owned(),
            Why::Open => "What answers these requests does not answer just now.".to_owned(),
        }
    }

    /// `RateLimit-Policy` and `RateLimit`, for quotas.
    fn headers(&self) -> Option<(HeaderValue, HeaderValue)> {
        let seconds = whole_seconds(self.retry_after);
        let (policy, limit) = match self.why {
            Why::Rate(quota) => rate("tenant", quota, seconds),
            Why::ClassRate(quota) => rate(&self.class, quota, seconds),
            Why::Concurrency(most) => concurrency("tenant-concurrency", most),
            Why::ClassConcurrency(most) => concurrency(&format!("{}-concurrency", self.class), most),
            Why::Bulkhead | Why::Full | Why::Open => return None,
        };
        // Names of classes are lower-case words, so that they need no escape in a structured field's string.
        Some((HeaderValue::from_str(&policy).ok()?, HeaderValue::from_str(&limit).ok()?))
    }
}

fn rate(name: &str, quota: Quota, seconds: u64) -> (String, String) {
    let (q, w) = window(quota);
    (format!("\"{name}\";q={q};w={w}"), format!("\"{name}\";r=0;t={seconds}"))
}

fn concurrency(name: &str, most: u32) -> (String, String) {
    (format!("\"{name}\";q={most};qu=\"concurrent-requests\""), format!("\"{name}\";r=0"))
}

/// A quota as so many in so many whole seconds: the burst in the time in which it comes back, or the rate of one second.
fn window(quota: Quota) -> (u64, u64) {
    const SECOND: u64 = 1_000_000_000;
    // The time of a unit is rounded up: a millionth more than whole seconds is whole seconds.
    let window = quota.window() - quota.window() / 1_000_000;
    if quota.window() >= SECOND { (quota.burst(), window.div_ceil(SECOND)) } else { (quota.per_second(), 1) }
}

fn in_words(quota: Quota) -> String {
    format!("{} requests a second, {} at once", quota.per_second(), quota.burst())
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;

    use super::*;

    #[test]
    fn a_quota_says_what_it_is_and_the_moment_says_when() {
        let refused = |why, millis| Refused { why, class: "export".into(), retry_after: Duration::from_millis(millis) };
        let headers = |refused: Refused| {
            let response = refused.problem().into_response();
            let text = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
            (response.status().as_u16(), text("retry-after"), text("ratelimit-policy"), text("ratelimit"))
        };
        let of = |status, after: &str, policy: &str, limit: &str| (status, after.to_owned(), policy.to_owned(), limit.to_owned());
        let tenant = Quota::new(20, 40);
        assert_eq!(headers(refused(Why::Rate(tenant), 50)), of(429, "1", "\"tenant\";q=40;w=2", "\"tenant\";r=0;t=1"));
        let class = Quota::new(2_000, 100);
        assert_eq!(headers(refused(Why::ClassRate(class), 1_001)), of(429, "2", "\"export\";q=2000;w=1", "\"export\";r=0;t=2"));
        let most = headers(refused(Why::Concurrency(7), 1_000));
        assert_eq!(most.2, "\"tenant-concurrency\";q=7;qu=\"concurrent-requests\"");
        assert_eq!(headers(refused(Why::Full, 2_500)), of(503, "3", "", ""));
    }
}
