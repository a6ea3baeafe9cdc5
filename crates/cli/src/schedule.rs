//! `insula schedule`.

use insula_api::page::PageQuery;
use insula_api::schedule::{HostSchedule, Schedule};

use crate::error::Error;
use crate::screen::{Screen, Tone, or_hyphen, time};
use crate::target::Target;

/// Look at schedules of tenants and of the host, pause and resume them
#[derive(clap::Args, Debug)]
pub(crate) struct ScheduleArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: ScheduleCommand,
}

#[derive(clap::Subcommand, Debug)]
enum ScheduleCommand {
    /// List a tenant's schedules: its own, and those that the application declares for everybody
    List {
        /// Slug or id
        tenant: String,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Those after this name
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
    },
    /// Let a schedule not come until it is resumed
    Pause {
        /// Slug or id
        tenant: String,
        /// Its name
        schedule: String,
    },
    /// Let a schedule come again, from now on
    Resume {
        /// Slug or id
        tenant: String,
        /// Its name
        schedule: String,
    },
    /// The host's schedules, which come once wherever workers are
    #[command(subcommand)]
    Host(HostCommand),
}

#[derive(clap::Subcommand, Debug)]
enum HostCommand {
    /// List the host's schedules
    List {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// Those after this name
        #[arg(long, value_name = "NAME")]
        after: Option<String>,
    },
    /// Let a schedule of the host not come until it is resumed; what has begun goes on
    Pause {
        /// Its name
        schedule: String,
    },
    /// Let a schedule of the host come again, from now on
    Resume {
        /// Its name
        schedule: String,
    },
}

pub(crate) async fn run(args: ScheduleArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        ScheduleCommand::List { tenant, limit, after } => {
            let found = client.schedules(&tenant, &PageQuery { limit: Some(limit), cursor: after }).await?;
            screen.show(&found, |screen| more(table(screen, &found.items), found.next.as_deref()))
        }
        ScheduleCommand::Pause { tenant, schedule } => {
            let now = client.pause_schedule(&tenant, &schedule).await?;
            screen.show(&now, |_| format!("{} of {tenant} does not come until it is resumed", now.name))
        }
        ScheduleCommand::Resume { tenant, schedule } => {
            let now = client.resume_schedule(&tenant, &schedule).await?;
            screen.show(&now, |_| format!("{} of {tenant} comes again", now.name))
        }
        ScheduleCommand::Host(HostCommand::List { limit, after }) => {
            let found = client.host_schedules(&PageQuery { limit: Some(limit), cursor: after }).await?;
            screen.show(&found, |screen| more(host_table(screen, &found.items), found.next.as_deref()))
        }
        ScheduleCommand::Host(HostCommand::Pause { schedule }) => {
            let now = client.pause_host_schedule(&schedule).await?;
            screen.show(&now, |_| format!("{} does not come until it is resumed", now.name))
        }
        ScheduleCommand::Host(HostCommand::Resume { schedule }) => {
            let now = client.resume_host_schedule(&schedule).await?;
            screen.show(&now, |_| format!("{} comes again", now.name))
        }
    }
}

fn more(table: String, next: Option<&str>) -> String {
    match next {
        Some(next) => format!("{table}\nThere are more: --after {next}"),
        None => table,
    }
}

fn host_table(screen: Screen, schedules: &[HostSchedule]) -> String {
    let rows = schedules.iter().map(|schedule| {
        let plain = |text: String| (text, Tone::Plain);
        let next = match (schedule.paused, schedule.next_at) {
            (true, _) => ("paused".to_owned(), Tone::Wait),
            (_, Some(at)) => plain(time(at)),
            // A worker computes it.
            _ => ("not known yet".to_owned(), Tone::Wait),
        };
        let last = match (&schedule.firing, &schedule.error) {
            (Some(firing), None) => (format!("{}, at work", time(*firing)), Tone::Plain),
            (Some(firing), Some(error)) => (format!("{}, try {}: {error}", time(*firing), schedule.attempt), Tone::Bad),
            (None, Some(error)) => (format!("{}: {error}", or_hyphen(schedule.last_at.map(time))), Tone::Bad),
            (None, None) => plain(or_hyphen(schedule.last_at.map(time))),
        };
        vec![plain(schedule.name.clone()), plain(schedule.cron.clone()), plain(schedule.zone.clone()), next, last]
    });
    screen.table(&["SCHEDULE", "CRON", "ZONE", "NEXT", "LAST"], rows.collect(), "The host has no schedules.")
}

fn table(screen: Screen, schedules: &[Schedule]) -> String {
    let rows = schedules.iter().map(|schedule| {
        let plain = |text: String| (text, Tone::Plain);
        let next = match (schedule.paused, &schedule.error, schedule.next_at) {
            (true, ..) => ("paused".to_owned(), Tone::Wait),
            (_, Some(error), _) => (format!("never: {error}"), Tone::Bad),
            (_, _, Some(at)) => plain(time(at)),
            // A worker computes it.
            (..) => ("not known yet".to_owned(), Tone::Wait),
        };
        vec![
            plain(schedule.name.clone()),
            plain(schedule.kind.clone()),
            plain(schedule.cron.clone()),
            plain(or_hyphen(schedule.zone.clone())),
            next,
            plain(or_hyphen(schedule.last_at.map(time))),
            plain(schedule.origin.as_str().to_owned()),
        ]
    });
    screen.table(&["SCHEDULE", "KIND", "CRON", "ZONE", "NEXT", "LAST", "FROM"], rows.collect(), "No schedules.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_for_people() {
        let schedule = |name: &str, more: serde_json::Value| -> Schedule {
            let mut schedule = serde_json::json!({
                "name": name, "origin": "code", "kind": "digest", "cron": "0 2 * * *", "zone": "Europe/Zurich", "paused": false,
                "next_at": "2026-01-03T01:00:00Z", "last_at": "2026-01-02T01:00:00Z", "error": null
            });
            for (field, value) in more.as_object().expect("an object") {
                schedule[field] = value.clone();
            }
            serde_json::from_value(schedule).expect("a schedule")
        };
        let schedules = [
            schedule("digest", serde_json::json!({})),
            schedule("report", serde_json::json!({"paused": true, "next_at": null, "origin": "tenant"})),
            schedule("leap", serde_json::json!({"cron": "0 0 31 2 *", "next_at": null, "last_at": null, "error": "no such day"})),
            schedule("new", serde_json::json!({"next_at": null, "last_at": null, "zone": null})),
        ];
        insta::assert_snapshot!("schedule_table", table(Screen::PIPE, &schedules));
    }

    #[test]
    fn host_schedules_for_people() {
        let schedule = |name: &str, more: serde_json::Value| -> HostSchedule {
            let mut schedule = serde_json::json!({
                "name": name, "cron": "0 6 1 * *", "zone": "UTC", "paused": false, "next_at": "2026-02-01T06:00:00Z", "firing": null, "attempt": 0,
                "last_at": "2026-01-01T06:00:02Z", "error": null
            });
            for (field, value) in more.as_object().expect("an object") {
                schedule[field] = value.clone();
            }
            serde_json::from_value(schedule).expect("a schedule")
        };
        let schedules = [
            schedule("bills", serde_json::json!({})),
            schedule("off", serde_json::json!({"paused": true, "next_at": null})),
            schedule("new", serde_json::json!({"next_at": null, "last_at": null})),
            schedule("busy", serde_json::json!({"firing": "2026-01-03T01:00:00Z", "attempt": 1})),
            schedule("again", serde_json::json!({"firing": "2026-01-03T01:00:00Z", "attempt": 3, "error": "no paper"})),
            schedule("failed", serde_json::json!({"error": "given up after ten attempts"})),
        ];
        insta::assert_snapshot!("host_schedule_table", host_table(Screen::PIPE, &schedules));
    }
}
