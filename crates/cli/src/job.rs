//! `insula job`.

use chrono::{DateTime, Utc};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use insula_api::Client;
use insula_api::job::{Job, JobBody, JobQuery, JobState, PurgeDead};
use insula_core::Kind;
use serde::Serialize;
use uuid::Uuid;

use crate::error::Error;
use crate::screen::{Screen, Tone, or_hyphen, time};
use crate::target::Target;

/// Look at what tenants' jobs are at, cancel them, have them tried again
#[derive(clap::Args, Debug)]
pub(crate) struct JobArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: JobCommand,
}

#[derive(clap::Subcommand, Debug)]
enum JobCommand {
    /// List a tenant's jobs, newest first: those that wait and run, and ends that are kept
    List {
        /// Slug or id
        tenant: String,
        /// In this state
        #[arg(long, value_parser = state())]
        state: Option<JobState>,
        #[command(flatten)]
        of: Which,
    },
    /// Show one job
    Show {
        /// Slug or id
        tenant: String,
        /// Its id
        job: Uuid,
        /// Also what it was asked and what it answered: the tenant's own data, so the audit log says who looked
        #[arg(long)]
        body: bool,
    },
    /// Cancel a job: one that waits is over at once, one that runs stops within moments
    Cancel {
        /// Slug or id
        tenant: String,
        /// Its id
        job: Uuid,
    },
    /// Have a job tried now: a dead one waits again, one that waits for its time goes at once
    Retry {
        /// Slug or id
        tenant: String,
        /// Its id
        job: Uuid,
    },
    /// Look at jobs that were given up
    Dead {
        #[command(subcommand)]
        command: DeadCommand,
    },
}

#[derive(clap::Subcommand, Debug)]
enum DeadCommand {
    /// List a tenant's dead letters, newest first
    List {
        /// Slug or id
        tenant: String,
        #[command(flatten)]
        of: Which,
    },
    /// Let all of a tenant's dead letters wait again (one of them: `insula job retry`)
    Replay {
        /// Slug or id
        tenant: String,
    },
    /// Forget a tenant's dead letters
    Purge {
        /// Slug or id
        tenant: String,
        /// Those that ended before this moment (RFC 3339)
        #[arg(long, value_name = "TIME", required_unless_present = "all")]
        before: Option<DateTime<Utc>>,
        /// All of them
        #[arg(long, conflicts_with = "before")]
        all: bool,
    },
}

/// Which jobs.
#[derive(clap::Args, Debug)]
struct Which {
    /// Of this kind
    #[arg(long)]
    kind: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Those after this place: what the page before ended with
    #[arg(long, value_name = "PLACE")]
    after: Option<String>,
}

/// A job's state.
fn state() -> impl TypedValueParser<Value = JobState> {
    PossibleValuesParser::new(JobState::ALL.map(JobState::as_str)).try_map(|text| JobState::from_name(&text).ok_or("no state"))
}

pub(crate) async fn run(args: JobArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        JobCommand::List { tenant, state, of } => list(&client, screen, &tenant, state, of).await,
        JobCommand::Show { tenant, job, body } => {
            let found = client.job(&tenant, job).await?;
            let body = if body { Some(client.job_body(&tenant, job).await?) } else { None };
            screen.show(&Whole { job: &found, body: body.as_ref() }, |screen| facts(screen, &found, body.as_ref()))
        }
        JobCommand::Cancel { tenant, job } => {
            let now = client.cancel_job(&tenant, job).await?;
            screen.show(&now, |_| match now.state {
                JobState::Running => format!("told {} {job} to stop", now.kind),
                _ => format!("cancelled {} {job}", now.kind),
            })
        }
        JobCommand::Retry { tenant, job } => {
            let now = client.retry_job(&tenant, job).await?;
            screen.show(&now, |_| format!("{} {job} waits for its turn", now.kind))
        }
        JobCommand::Dead { command } => dead(&client, screen, command).await,
    }
}

async fn dead(client: &Client, screen: Screen, command: DeadCommand) -> Result<(), Error> {
    match command {
        DeadCommand::List { tenant, of } => list(client, screen, &tenant, Some(JobState::Dead), of).await,
        DeadCommand::Replay { tenant } => {
            let count = client.replay_dead(&tenant).await?;
            screen.show(&count, |_| format!("{} of {tenant} wait again", dead_letters(count.jobs)))
        }
        DeadCommand::Purge { tenant, before, .. } => {
            let count = client.purge_dead(&tenant, &PurgeDead { before }).await?;
            screen.show(&count, |_| format!("forgot {} of {tenant}", dead_letters(count.jobs)))
        }
    }
}

fn dead_letters(count: i64) -> String {
    if count == 1 { "1 dead letter".to_owned() } else { format!("{count} dead letters") }
}

async fn list(client: &Client, screen: Screen, tenant: &str, state: Option<JobState>, of: Which) -> Result<(), Error> {
    if of.kind.as_deref() == Some("") {
        return Err(Error::new(Kind::Invalid, "--kind: a kind has a name", ""));
    }
    let query = JobQuery { state, kind: of.kind, limit: Some(of.limit), cursor: of.after };
    let found = client.jobs(tenant, &query).await?;
    screen.show(&found, |screen| {
        let table = table(screen, &found.items);
        match &found.next {
            Some(next) => format!("{table}\nThere are more: --after {next}"),
            None => table,
        }
    })
}

/// A job as a program reads it: with its body where that was asked for.
#[derive(Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    job: &'a Job,
    #[serde(flatten)]
    body: Option<&'a JobBody>,
}

const fn tone(state: JobState) -> Tone {
    match state {
        JobState::Done => Tone::Good,
        JobState::Dead => Tone::Bad,
        JobState::Running | JobState::Later => Tone::Wait,
        JobState::Waiting | JobState::Cancelled => Tone::Plain,
    }
}

fn word(job: &Job) -> String {
    if job.cancelling { "running, told to stop".to_owned() } else { job.state.to_string() }
}

/// The first line, as long as a line may be.
fn short(text: &str) -> String {
    const MOST: usize = 60;
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() <= MOST && line == text {
        line.to_owned()
    } else {
        format!("{}…", line.chars().take(MOST).collect::<String>())
    }
}

fn table(screen: Screen, jobs: &[Job]) -> String {
    let rows = jobs.iter().map(|job| {
        let plain = |text: String| (text, Tone::Plain);
        let progress = job.progress.as_ref().map(ToString::to_string);
        vec![
            plain(job.id.to_string()),
            plain(job.kind.clone()),
            (word(job), tone(job.state)),
            plain(format!("{}/{}", job.attempt, job.attempts)),
            plain(time(job.created_at)),
            plain(or_hyphen(job.ended_at.or(job.started_at.filter(|_| job.state == JobState::Running)).or(job.due).map(time))),
            plain(or_hyphen(job.error.as_deref().or(progress.as_deref()).map(short))),
        ]
    });
    screen.table(&["JOB", "KIND", "STATE", "ATTEMPT", "CREATED", "SINCE OR DUE", "ERROR OR PROGRESS"], rows.collect(), "No jobs.")
}

fn facts(screen: Screen, job: &Job, body: Option<&JobBody>) -> String {
    let plain = |name, value| (name, value, Tone::Plain);
    let at = |at: Option<DateTime<Utc>>| at.map(time).unwrap_or_default();
    let json = |value: Option<&serde_json::Value>| value.map(ToString::to_string).unwrap_or_default();
    screen.facts(vec![
        plain("job", job.id.to_string()),
        plain("kind", job.kind.clone()),
        ("state", word(job), tone(job.state)),
        plain("lane", job.lane.clone()),
        plain("priority", job.priority.to_string()),
        plain("attempt", format!("{} of {}", job.attempt, job.attempts)),
        plain("progress", json(job.progress.as_ref())),
        ("error", job.error.clone().unwrap_or_default(), Tone::Bad),
        plain("created", time(job.created_at)),
        plain("due", at(job.due)),
        plain("started", at(job.started_at)),
        plain("deadline", at(job.deadline)),
        plain("ended", at(job.ended_at)),
        plain("kept until", at(job.expires_at)),
        plain("worker", job.worker.map(|no| no.to_string()).unwrap_or_default()),
        plain("key", job.key.clone().unwrap_or_default()),
        plain("by", job.principal.clone().unwrap_or_default()),
        plain("trace", job.trace.clone().unwrap_or_default()),
        plain("body", json(body.map(|body| &body.body))),
        plain("result", json(body.and_then(|body| body.result.as_ref()))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str, more: &serde_json::Value) -> Job {
        let mut job = serde_json::json!({
            "id": "0190f8c0-0000-7000-8000-000000000001", "kind": "export", "state": state, "lane": "export", "priority": 5, "attempt": 1,
            "attempts": 10, "created_at": "2026-01-02T03:04:05Z", "due": null, "started_at": null, "deadline": null, "ended_at": null,
            "expires_at": null, "worker": null, "error": null, "progress": null
        });
        for (name, value) in more.as_object().expect("an object") {
            job[name] = value.clone();
        }
        serde_json::from_value(job).expect("a job")
    }

    #[test]
    fn jobs_for_people() {
        let running = job(
            "running",
            &serde_json::json!({"started_at": "2026-01-02T03:04:06Z", "worker": 7, "progress": {"percent": 40}, "due": "2026-01-02T03:04:05Z"}),
        );
        let dead = job(
            "dead",
            &serde_json::json!({"ended_at": "2026-01-02T04:04:06Z", "error": "the object store is away: it did not answer within thirty seconds, three times"}),
        );
        let waiting = job("waiting", &serde_json::json!({"due": "2026-01-02T03:04:05Z", "attempt": 0}));
        insta::assert_snapshot!("job_table", table(Screen::PIPE, &[running.clone(), dead, waiting]));
        let told = Job { cancelling: true, key: Some("k".into()), principal: Some("ada".into()), ..running };
        let body = JobBody { body: serde_json::json!({"folder": 1}), result: None };
        insta::assert_snapshot!("job_facts", facts(Screen::PIPE, &told, Some(&body)));
    }

    #[test]
    fn errors_take_one_line() {
        assert_eq!(short("a\nb"), "a…");
        assert_eq!(short(&"x".repeat(61)), format!("{}…", "x".repeat(60)));
        assert_eq!(short("fine"), "fine");
    }
}
