//! `insula worker`.

use insula_api::worker::{Worker, WorkerQuery, Workers};
use insula_core::CellName;

use crate::error::Error;
use crate::screen::{Screen, Tone, time};
use crate::target::Target;

/// Look at who runs jobs
///
/// Jobs run in processes of the application: its role `worker` (`acmedocs worker`), a program that calls `insula::work`. `insula up` keeps
/// one for each cell (`worker:CELL` in its ready file, `logs/worker-CELL.log`); elsewhere you start as many as you like, with the settings of
/// the application that serves there. A worker takes jobs from every database of the cells that it has keys for. One that dies is found out
/// when its lease is over, and its jobs run elsewhere.
#[derive(clap::Args, Debug)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: WorkerCommand,
}

#[derive(clap::Subcommand, Debug)]
enum WorkerCommand {
    /// List workers by cell and database, and what they run; takes a moment, because it watches who is alive
    List {
        /// Of this cell
        #[arg(long)]
        cell: Option<CellName>,
    },
}

pub(crate) async fn run(args: WorkerArgs) -> Result<(), Error> {
    let (client, screen) = (args.target.client()?, Screen::new(args.target.json));
    match args.command {
        WorkerCommand::List { cell } => {
            let found = client.workers(&WorkerQuery { cell }).await?;
            screen.show(&found, |screen| summary(screen, &found))
        }
    }
}

fn summary(screen: Screen, workers: &Workers) -> String {
    let table = table(screen, &workers.items);
    if workers.away.is_empty() {
        return table;
    }
    let away = workers.away.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    format!("{table}\n\nNothing is known of these cells, whose servers do not answer: {away}")
}

fn table(screen: Screen, workers: &[Worker]) -> String {
    let rows = workers.iter().map(|worker| {
        let plain = |text: String| (text, Tone::Plain);
        let runs = worker.kinds.iter().map(|(kind, jobs)| format!("{jobs} {kind}")).collect::<Vec<_>>();
        vec![
            plain(worker.name.clone()),
            plain(worker.cell.to_string()),
            plain(worker.database.clone()),
            plain(worker.no.to_string()),
            if worker.alive { ("alive".to_owned(), Tone::Good) } else { ("silent".to_owned(), Tone::Bad) },
            plain(format!("{} s", f64::from(worker.lease_ms) / 1000.0)),
            plain(worker.beats.to_string()),
            plain(time(worker.started_at)),
            plain(if runs.is_empty() { "nothing".to_owned() } else { runs.join(", ") }),
        ]
    });
    let heads = ["WORKER", "CELL", "DATABASE", "NO", "STATE", "LEASE", "BEATS", "SINCE", "RUNS"];
    screen.table(&heads, rows.collect(), "No workers. `insula worker --help` says who runs jobs.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_for_people() {
        let workers: Workers = serde_json::from_value(serde_json::json!({
            "items": [
                {"cell": "main", "database": "insula_pool", "no": 3, "name": "main/4711", "alive": true, "lease_ms": 15000, "beats": 92,
                 "started_at": "2026-01-02T03:04:05Z", "running": 3, "kinds": {"export": 2, "digest": 1}},
                {"cell": "main", "database": "insula_schemas", "no": 2, "name": "main/4709", "alive": false, "lease_ms": 1500, "beats": 7,
                 "started_at": "2026-01-02T03:04:05Z", "running": 0, "kinds": {}}
            ],
            "away": ["second"]
        }))
        .expect("workers");
        insta::assert_snapshot!("worker_table", summary(Screen::PIPE, &workers));
    }
}
