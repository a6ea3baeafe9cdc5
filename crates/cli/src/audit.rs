//! `insula audit` and `insula lint`: proof.

use insula_api::audit::{AuditEntry, AuditQuery, LintQuery, LintReport};
use insula_core::{CellName, Kind};

use crate::error::Error;
use crate::screen::{Screen, Tone, or_hyphen, time};
use crate::target::Target;

/// Show who did what, newest first
#[derive(clap::Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    target: Target,
    /// To this tenant (slug or id)
    #[arg(long)]
    tenant: Option<String>,
    /// This action, as tenant.create
    #[arg(long)]
    action: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    #[command(subcommand)]
    command: Option<AuditCommand>,
}

#[derive(clap::Subcommand, Debug)]
enum AuditCommand {
    /// Check that no entry is missing or changed; fails when one is
    Verify,
}

/// Look for anything in tenant databases that could leak; fails when there is
#[derive(clap::Args, Debug)]
pub(crate) struct LintArgs {
    #[command(flatten)]
    target: Target,
    /// Only in this cell
    #[arg(long)]
    cell: Option<CellName>,
    /// Only in the database of this tenant (slug or id)
    #[arg(long, conflicts_with = "cell")]
    tenant: Option<String>,
}

pub(crate) async fn run(args: AuditArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    let Some(AuditCommand::Verify) = args.command else {
        let query = AuditQuery { tenant: args.tenant, action: args.action, limit: Some(args.limit), cursor: None };
        let page = client.audit(&query).await?;
        return screen.show(&page, |screen| table(screen, &page.items));
    };
    let verdict = client.verify_audit().await?;
    screen.show(&verdict, |_| match verdict.first_bad {
        None => "The audit log is whole.".to_owned(),
        Some(seq) => format!("The audit log is broken at entry {seq}."),
    })?;
    if verdict.intact {
        return Ok(());
    }
    Err(Error::new(Kind::Internal, "somebody has tampered with the audit log", "compare it with a backup of the catalog"))
}

pub(crate) async fn lint(args: LintArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    let report = client.lint(&LintQuery { cell: args.cell, tenant: args.tenant }).await?;
    screen.show(&report, |screen| findings(screen, &report))?;
    if report.clean {
        return Ok(());
    }
    Err(Error::new(Kind::Internal, "a tenant database could leak", "mend each finding with a migration, then run this again"))
}

fn table(screen: Screen, entries: &[AuditEntry]) -> String {
    let rows = entries.iter().map(|e| {
        let tone = if e.action.starts_with("security.") { Tone::Bad } else { Tone::Plain };
        vec![
            (e.seq.to_string(), Tone::Plain),
            (time(e.at), Tone::Plain),
            (e.actor.clone(), Tone::Plain),
            (e.action.clone(), tone),
            (or_hyphen(Some(e.target.clone())), Tone::Plain),
            (or_hyphen(e.tenant.map(|t| t.to_string())), Tone::Plain),
        ]
    });
    screen.table(&["SEQ", "AT", "ACTOR", "ACTION", "TARGET", "TENANT"], rows.collect(), "No entries.")
}

fn findings(screen: Screen, report: &LintReport) -> String {
    let rows = report.databases.iter().flat_map(|database| {
        database.findings.iter().map(|f| {
            let tone = if f.severity == "error" { Tone::Bad } else { Tone::Wait };
            vec![
                (format!("{}/{}", database.cell, database.database), Tone::Plain),
                (f.severity.clone(), tone),
                (f.rule.clone(), Tone::Plain),
                (f.object.clone(), Tone::Plain),
                (f.detail.clone(), Tone::Plain),
            ]
        })
    });
    let nothing = format!("Nothing leaks: looked at {} database(s).", report.databases.len());
    screen.table(&["DATABASE", "SEVERITY", "RULE", "OBJECT", "DETAIL"], rows.collect(), &nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_for_people() {
        let entry: AuditEntry = serde_json::from_value(serde_json::json!({
            "seq": 7, "at": "2026-01-02T03:04:05Z", "actor": "ops", "action": "db.grant",
            "tenant": "0190f8c0-0000-7000-8000-000000000001", "target": "pid 4711", "detail": {}, "hash": "00"
        }))
        .expect("an entry");
        insta::assert_snapshot!("audit_table", table(Screen::PIPE, &[entry]));
        let report = |findings: serde_json::Value| -> LintReport {
            serde_json::from_value(serde_json::json!({
                "clean": false, "databases": [{"cell": "main", "database": "insula_pool", "findings": findings}]
            }))
            .expect("a report")
        };
        insta::assert_snapshot!("lint_clean", findings(Screen::PIPE, &report(serde_json::json!([]))));
        let leak =
            serde_json::json!([{"rule": "row_security", "object": "app.notes", "detail": "has none", "severity": "error"}]);
        insta::assert_snapshot!("lint_findings", findings(Screen::PIPE, &report(leak)));
    }
}
