//! The lint: every way in which this database could leak that a look at its catalog can find.

use sqlx::{PgConnection, Row};

use crate::error::Error;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Cannot be mended on this server, or is harmless by itself: worth knowing.
    Notice,
    /// Tells something about other tenants, or weakens a second line of defence.
    Warning,
    /// Rows can leak: migrations stop here.
    Error,
}

/// One thing that `insula.lint()` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's stable name.
    pub rule: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub object: String,
    /// What is wrong and what to write instead.
    pub detail: String,
}

/// Runs `insula.lint()`, worst first.
///
/// # Errors
/// When Postgres refuses.
pub async fn lint(conn: &mut PgConnection) -> Result<Vec<Finding>, Error> {
    let rows = sqlx::query("SELECT rule, severity, object, detail FROM insula.lint()").fetch_all(conn).await?;
    let mut findings = rows
        .into_iter()
        .map(|row| {
            let severity: String = row.try_get("severity")?;
            Ok(Finding {
                rule: row.try_get("rule")?,
                severity: match severity.as_str() {
                    "error" => Severity::Error,
                    "warning" => Severity::Warning,
                    _ => Severity::Notice,
                },
                object: row.try_get("object")?,
                detail: row.try_get("detail")?,
            })
        })
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    findings.sort_by(|a, b| b.severity.cmp(&a.severity).then_with(|| (&a.rule, &a.object).cmp(&(&b.rule, &b.object))));
    Ok(findings)
}
