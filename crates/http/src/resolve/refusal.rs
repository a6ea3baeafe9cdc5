//! Why a request has no tenant.
//!
//! Always: the client learns what it did wrong, and nothing of which tenants there are: a tenant that is unknown, deleted or in
//! the making, and one that some other source contradicts in vain, get the same answer.

use http::StatusCode;
use insula_core::{Kind, TenantId};
use insula_telemetry::security::{Alarm, one_line};
use insula_telemetry::security_event;

use crate::Problem;
use crate::host::HostError;

/// A name that leads to no tenant, by its keyed hash: enough to remember it by ([`crate::resolve::Unknowns`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownTenant {
    pub(crate) hash: u64,
}

/// Why a request has no tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its host is missing, malformed, or two.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A source says something twice.
    #[error("the request names its tenant twice ({by})")]
    Twice {
        /// Which.
        by: &'static str,
    },
    /// A source says what can be no tenant's name.
    #[error("what the request names as its tenant is no name ({by})")]
    Unreadable {
        /// Which.
        by: &'static str,
    },
    /// A source names a tenant that this process does not know. Perhaps it was made a moment ago: [`crate::resolve::Resolver::find`] asks.
    #[error("no tenant has the name that the request says ({by})")]
    Unknown {
        /// Which source.
        by: &'static str,
        /// What it named.
        what: UnknownTenant,
    },
    /// No source says anything, and there is no fallback.
    #[error("the request names no tenant")]
    Nobody,
    /// The principal belongs to several tenants, and no source says to which it speaks.
    #[error("the principal belongs to several tenants and names none")]
    Choose,
    /// Two sources name different tenants. A security event.
    #[error("two sources name different tenants")]
    Disagree {
        /// The first source and its tenant.
        first: (&'static str, TenantId),
        /// The second.
        second: (&'static str, TenantId),
    },
    /// The principal does not belong to the tenant. A security event.
    #[error("the principal does not belong to the tenant")]
    Foreign {
        /// Whose request it would be.
        tenant: TenantId,
        /// Who asks.
        subject: std::sync::Arc<str>,
    },
    /// The tenant is suspended.
    #[error("the tenant is suspended")]
    Suspended {
        /// Which.
        tenant: TenantId,
    },
}

impl Refusal {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Host(_) | Self::Twice { .. } | Self::Unreadable { .. } | Self::Choose => Kind::Invalid,
            Self::Unknown { .. } | Self::Nobody => Kind::NoTenant,
            Self::Disagree { .. } | Self::Foreign { .. } => Kind::Security,
            Self::Suspended { .. } => Kind::Suspended,
        }
    }

    /// The answer.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let problem = Problem::new(self.kind());
        match self {
            Self::Host(fault) => problem.status(StatusCode::BAD_REQUEST).detail(sentence(fault)),
            Self::Twice { .. } | Self::Unreadable { .. } => problem.status(StatusCode::BAD_REQUEST).detail(sentence(self)),
            Self::Choose => {
                problem.status(StatusCode::BAD_REQUEST).detail("You belong to several tenants: say which one you mean.")
            }
            Self::Unknown { by: "domain", .. } => problem.detail("No tenant answers to this host name."),
            Self::Unknown { .. } => problem.detail("There is no tenant of this name."),
            Self::Nobody => problem.detail("Nothing in the request says which tenant it is for."),
            Self::Disagree { .. } => problem.detail("The request names two tenants."),
            Self::Foreign { .. } | Self::Suspended { .. } => problem,
        }
    }

    /// Reports it, when it is what an honest client does not cause. Once a request: [`crate::resolve::Resolver`] does.
    pub(crate) fn report(&self) {
        match self {
            Self::Disagree { first, second } => security_event!(
                Alarm::SourcesDisagree,
                first = first.0,
                first_tenant = %first.1,
                second = second.0,
                second_tenant = %second.1,
                "a request names two tenants: refused"
            ),
            Self::Foreign { tenant, subject } => security_event!(
                Alarm::ForeignPrincipal,
                %tenant,
                subject = one_line(subject),
                "a principal asks for a tenant that it does not belong to: refused"
            ),
            _ => {}
        }
    }
}

impl From<&Refusal> for Problem {
    fn from(refusal: &Refusal) -> Self {
        refusal.problem()
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        refusal.problem()
    }
}

/// `the request …` -> `The request ….`
fn sentence(fault: &impl std::fmt::Display) -> String {
    let text = fault.to_string();
    let mut chars = text.chars();
    chars.next().map(|first| format!("{}{}.", first.to_uppercase(), chars.as_str())).unwrap_or_default()
}
