//! `insula usage`: what a tenant used.

use chrono::{DateTime, TimeDelta, Utc};
use insula_api::usage::{Amounts, TenantUsage, UsageQuery};

use crate::error::Error;
use crate::screen::{Screen, Tone};
use crate::target::Target;

/// Show what a tenant used, by the hour
#[derive(clap::Args, Debug)]
pub(crate) struct UsageArgs {
    #[command(flatten)]
    target: Target,
    /// Its slug or id
    tenant: String,
    /// From this moment on (RFC 3339)
    #[arg(long, value_name = "TIME", conflicts_with = "hours")]
    from: Option<DateTime<Utc>>,
    /// Up to this one (RFC 3339); now unless given
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// The last so many hours
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8784))]
    hours: u32,
}

pub(crate) async fn run(args: UsageArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    let to = args.to.unwrap_or_else(Utc::now);
    let from = args.from.unwrap_or(to - TimeDelta::hours(args.hours.into()));
    let usage = client.usage(&args.tenant, &UsageQuery { from: Some(from), to: Some(to) }).await?;
    screen.show(&usage, |screen| table(screen, &usage))
}

fn table(screen: Screen, usage: &TenantUsage) -> String {
    let row = |name: String, used: &Amounts| {
        let cells = [
            name,
            used.requests.to_string(),
            bytes(used.bytes_in),
            bytes(used.bytes_out),
            seconds(used.cpu_us),
            seconds(used.database_us),
            used.rows.to_string(),
        ];
        cells.map(|cell| (cell, Tone::Plain)).to_vec()
    };
    let hours = usage.hours.iter().map(|hour| row(hour.hour.format("%Y-%m-%d %H:00Z").to_string(), &hour.used));
    let total = (usage.hours.len() > 1).then(|| row("all".to_owned(), &usage.total));
    screen.table(&["HOUR", "REQUESTS", "IN", "OUT", "CPU", "DATABASE", "ROWS"], hours.chain(total).collect(), "No use.")
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn bytes(count: u64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[allow(clippy::cast_precision_loss, reason = "figures for people")]
fn seconds(micros: u64) -> String {
    format!("{:.3} s", micros as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_for_people() {
        let usage: TenantUsage = serde_json::from_value(serde_json::json!({
            "hours": [
                {"hour": "2026-01-02T03:00:00Z", "used": {"requests": 12, "bytes_in": 999, "bytes_out": 1_234_567, "cpu_us": 1500, "rows": 3}},
                {"hour": "2026-01-02T04:00:00Z", "used": {"requests": 1, "database_us": 2_500_000}},
            ],
            "total": {"requests": 13, "bytes_in": 999, "bytes_out": 1_234_567, "cpu_us": 1500, "database_us": 2_500_000, "rows": 3}
        }))
        .expect("usage");
        insta::assert_snapshot!("usage_table", table(Screen::PIPE, &usage));
    }
}
