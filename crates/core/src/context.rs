//! Who a piece of work is for.

use std::fmt;
use std::sync::Arc;

use crate::id::{TenantId, TenantNo};
use crate::slug::{PlanName, Slug};
use crate::token::Claims;

/// The tenant, and on whose behalf. Cheap to clone; carried by [`crate::scope`] across `.await`, tasks and threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantContext {
    /// Public identity.
    pub tenant: TenantId,
    /// The surrogate that stands in rows.
    pub no: TenantNo,
    /// DNS label.
    pub slug: Slug,
    /// What it bought.
    pub plan: PlanName,
    /// The authenticated user, when there is one.
    pub principal: Option<Arc<str>>,
    /// Follows one request through every log line.
    pub request_id: Arc<str>,
    /// The signed context that it came with, to hand on; `None` when the tenant was found by other means.
    pub proof: Option<Arc<Proof>>,
    /// The trace that it is part of, to hand on.
    pub trace: Option<Arc<Trace>>,
}

/// A signed context that was verified. Prints without its text, which opens the tenant's data while it lives.
#[derive(Clone, PartialEq, Eq)]
pub struct Proof {
    /// What it says.
    pub claims: Claims,
    /// The token.
    pub text: Box<str>,
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("claims", &self.claims).finish_non_exhaustive()
    }
}

/// W3C Trace Context, level 1, as it came: whoever makes no span of its own hands it on unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// `traceparent`.
    pub parent: Box<str>,
    /// `tracestate`.
    pub state: Option<Box<str>>,
}

impl Trace {
    /// Reads the two headers; `None` when `traceparent` is not one (it is then as good as absent, says section 4.3).
    #[must_use]
    pub fn read(parent: &str, state: Option<&str>) -> Option<Self> {
        let parts: Vec<&str> = parent.splitn(5, '-').collect();
        let hex = |part: &str, len: usize| {
            part.len() == len
                && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
                && (len == 2 || part.bytes().any(|b| b != b'0'))
        };
        let known = match parts[..] {
            ["00", trace, span, flags] => hex(trace, 32) && hex(span, 16) && hex(flags, 2),
            _ => false,
        };
        let state = state.filter(|state| state.len() <= 512).map(Into::into);
        known.then(|| Self { parent: parent.into(), state })
    }
}

#[cfg(test)]
mod tests {
    use super::Trace;

    #[test]
    fn only_a_trace_is_a_trace() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(Trace::read(good, Some("a=b")).and_then(|t| t.state).as_deref(), Some("a=b"));
        for bad in [
            "",
            "00-x",
            &good.to_uppercase(),
            &good.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &format!("{good}-x"),
        ] {
            assert_eq!(Trace::read(bad, None), None, "{bad}");
        }
    }
}
