//! The one place where a breach, or a try at one, is reported.
//!
//! A security event is a warning in the log with the target `security` and one more in `insula_security_events_total`: what an
//! alert watches. Not for: ordinary refusals (a wrong password, a missing right). Always: the text is short and on one line, whatever
//! an attacker wrote into it.

use std::fmt::Display;

/// What was tried. A closed list: it is a metric's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Alarm {
    /// The database refused a grant: forged, of another connection or another key, expired, or altered.
    GrantRefused,
    /// The tenant of a request and the tenant bound to its work differ.
    TenantMismatch,
    /// Work without a tenant reached for tenant data.
    NoTenant,
    /// The statement gate refused a statement.
    StatementRefused,
    /// The database denied a privilege to the application's role: nothing of ours ever asks for one.
    PrivilegeDenied,
    /// A connection came back dirty and was not reused.
    DirtyConnection,
    /// A credential of the control plane was refused, again and again.
    CredentialRefused,
    /// A lint found a leak in a database that serves.
    BoundaryBroken,
}

impl Alarm {
    /// As in the log and the metric.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::GrantRefused => "grant_refused",
            Self::TenantMismatch => "tenant_mismatch",
            Self::NoTenant => "no_tenant",
            Self::StatementRefused => "statement_refused",
            Self::PrivilegeDenied => "privilege_denied",
            Self::DirtyConnection => "dirty_connection",
            Self::CredentialRefused => "credential_refused",
            Self::BoundaryBroken => "boundary_broken",
        }
    }
}

const DETAIL: usize = 300;

/// Reports it. `detail` is for the operator: ids, SQLSTATE, what was refused; never a secret or a grant.
pub fn event(alarm: Alarm, detail: impl Display) {
    metrics::counter!("insula_security_events_total", "kind" => alarm.name()).increment(1);
    let detail = one_line(&detail.to_string());
    tracing::warn!(target: "security", kind = alarm.name(), detail, "security event");
}

/// Control characters escaped (a newline would forge a log line), cut to a length that a log survives.
fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] })
        .take(DETAIL)
        .collect();
    if text.chars().nth(DETAIL).is_some() {
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
        assert_eq!(one_line(&"x".repeat(1000)).chars().count(), DETAIL + 1);
    }

    #[test]
    fn events_are_counted_by_kind() {
        let meters = crate::meters::install().unwrap();
        event(Alarm::TenantMismatch, "request 1, bound 2");
        assert!(meters.render("test").contains("insula_security_events_total{kind=\"tenant_mismatch\"} 1"));
    }
}
