//! The one place where a breach, or a try at one, is reported.
//!
//! A security event is a warning in the log with the target `security` and one more in `insula_security_events_total`: what an
//! alert watches. Not for: ordinary refusals (a wrong password, a missing right). Always: a kind of the closed list.

#[doc(hidden)]
pub use tracing;

/// What was tried. A closed list: it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// A context carries another tenant's number: it was not made by the resolver.
    ContextForged,
    /// The tenant in scope and the tenant that a transaction is asked for differ.
    TenantMismatch,
    /// The database refused a grant or a login on a fresh route: forged, of another connection or key, or expired.
    GrantRefused,
    /// The statement gate refused a statement.
    StatementRefused,
    /// The database denied a privilege, or a row that a policy forbids, to the application's role: nothing of ours asks for either.
    PrivilegeDenied,
    /// A request names two tenants: somebody tries to be read in two ways.
    SourcesDisagree,
    /// A principal asks for a tenant that it does not belong to.
    ForeignPrincipal,
    /// A tenant context on the wire was forged, for somebody else, or missing where none may be missing.
    ContextRefused,
    /// Somebody's token is not what it claims to be: changed, signed by nobody or by another, or for somebody else.
    CredentialForged,
}

impl Alarm {
    /// As in the log and the metric.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ContextForged => "context_forged",
            Self::TenantMismatch => "tenant_mismatch",
            Self::GrantRefused => "grant_refused",
            Self::StatementRefused => "statement_refused",
            Self::PrivilegeDenied => "privilege_denied",
            Self::SourcesDisagree => "sources_disagree",
            Self::ForeignPrincipal => "foreign_principal",
            Self::ContextRefused => "context_refused",
            Self::CredentialForged => "credential_forged",
        }
    }
}

/// Counts one: what the macro below does first.
pub fn count(alarm: Alarm) {
    metrics::counter!("insula_security_events_total", "kind" => alarm.name()).increment(1);
}

/// Reports one: `security_event!(Alarm::TenantMismatch, %tenant, %request, "what happened")`. The fields are those of `tracing`: ids for
/// the operator, never a secret or a grant; what an attacker wrote goes through [`one_line`] first.
#[macro_export]
macro_rules! security_event {
    ($alarm:expr, $($field:tt)*) => {{
        let alarm: $crate::security::Alarm = $alarm;
        $crate::security::count(alarm);
        $crate::security::tracing::warn!(target: "security", kind = alarm.name(), $($field)*);
    }};
}

const LONGEST: usize = 300;

/// Control characters escaped (a newline would forge a log line), cut to a length that a log survives.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().take(LONGEST) {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attacker_cannot_forge_a_line() {
        assert_eq!(one_line("a\nb\u{1b}[2J"), "a\\nb\\u{1b}[2J");
        assert_eq!(one_line(&"x".repeat(1000)).chars().count(), LONGEST + 1);
    }

    #[test]
    fn events_are_counted_by_kind() {
        let meters = crate::meters::install().unwrap();
        crate::security_event!(Alarm::TenantMismatch, asked = 2, "request 1, bound 2");
        assert!(meters.render("test").contains("insula_security_events_total{kind=\"tenant_mismatch\"} 1"));
    }
}
