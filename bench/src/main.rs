//! `insula-bench all | record NAME… | list | NAME…`: each row in a process of its own, so that no row warms or burdens the next.
#![allow(clippy::print_stdout, reason = "a command that prints a table")]

use std::io::Write as _;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use insula_bench::load::Usage;
use insula_bench::report::{self, Measured, Record};
use insula_bench::rows::{ROWS, door, gateway, house};
use insula_bench::{Outcome, Row, machine};

/// That of the program `insula`, whose gateway is measured here.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What was measured, for people and for the next `record`.
const RESULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/RESULTS.md");
const RECORD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/results.json");

fn main() -> Result<ExitCode> {
    // Some rows measure what another process sees.
    if insula_bench::rows::edge::follow_if_told()? {
        return Ok(ExitCode::SUCCESS);
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] | ["help" | "--help" | "-h"] => println!("insula-bench all | record NAME… | list | NAME…\n\n{}", listing()),
        ["list"] => println!("{}", listing()),
        // Runs in this process and answers as JSON: what `measure` starts.
        ["--row", name] => println!("{}", serde_json::to_string(&run(find(name)?))?),
        [gateway::CHILD, words @ ..] => gateway::serve(words)?,
        [door::CHILD] => door::serve()?,
        [house::CHILD] => house::serve()?,
        // For a build that counts what is hot (`scripts/dist`): what comes out is no figure.
        ["train", "gateway"] => gateway::train()?,
        ["train", "rows"] => drop(measure(&rows(&["decision", "cache", "route-lookup", "tx", "lane"])?)?),
        ["all"] => return record(measure(ROWS)?),
        ["record", names @ ..] => return record(measure(&rows(names)?)?),
        names => {
            let rows = measure(&rows(names)?)?;
            println!("{}", report::table(&rows));
            for o in rows.iter().flat_map(|row| row.outcomes.iter().flatten()).filter(|o| !o.detail.is_empty()) {
                println!("{}: {}", o.what, o.detail);
            }
            return Ok(exit(&rows));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn rows(names: &[&str]) -> Result<Vec<Row>> {
    names.iter().map(|name| find(name).copied()).collect()
}

/// Writes them down, in the place of the former figures of these rows.
fn record(rows: Vec<Measured>) -> Result<ExitCode> {
    let before = match std::fs::read(RECORD) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).with_context(|| format!("{RECORD} is no record: remove it, and measure all"))?
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Record { machine: vec![], rows: vec![] },
        Err(error) => return Err(error).context(RECORD),
    };
    let machine = machine::describe().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let order: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    let (code, shown) = (exit(&rows), report::table(&rows));
    let record = before.with(machine, rows, &order);
    std::fs::write(RECORD, serde_json::to_string_pretty(&record)? + "\n").context("cannot write results.json")?;
    std::fs::write(RESULTS, report::document(&record)).context("cannot write RESULTS.md")?;
    println!("{shown}\nwritten to {RESULTS}");
    Ok(code)
}

fn exit(rows: &[Measured]) -> ExitCode {
    if rows.iter().all(|row| row.outcomes.is_ok()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn listing() -> String {
    ROWS.iter().map(|row| format!("{:<16} {}", row.name, row.about)).collect::<Vec<_>>().join("\n")
}

fn find(name: &str) -> Result<&'static Row> {
    let Some(row) = ROWS.iter().find(|row| row.name == name) else { bail!("there is no row {name}; there are:\n{}", listing()) };
    Ok(row)
}

fn run(row: &Row) -> Result<Vec<Outcome>, String> {
    (row.run)().map_err(|error| format!("{error:#}"))
}

fn measure(rows: &[Row]) -> Result<Vec<Measured>> {
    let program = std::env::current_exe()?;
    rows.iter()
        .map(|row| {
            eprint!("{:<16} {} … ", row.name, row.about);
            std::io::stderr().flush()?;
            let (start, before) = (Instant::now(), Usage::now());
            // The child is reaped before the second reading, so its time counts as ours.
            let output = Command::new(&program).args(["--row", row.name]).stderr(Stdio::inherit()).output()?;
            let foreign = before.zip(Usage::now()).map(|(before, after)| after.foreign_since(before));
            let outcomes =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|_| Err(format!("the row ended with {}", output.status)));
            let (name, seconds, when, build) = (row.name.to_owned(), start.elapsed().as_secs_f64(), today(), machine::build());
            let measured = Measured { name, outcomes, foreign, seconds, when, build };
            let verdict = match &measured.outcomes {
                Ok(_) if measured.met() => "met".to_owned(),
                Ok(_) => "missed".to_owned(),
                Err(why) => format!("not measured: {why}"),
            };
            eprintln!("{verdict} ({:.0} s)", measured.seconds);
            Ok(measured)
        })
        .collect()
}

fn today() -> String {
    let output = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]).output();
    output.map_or_else(|_| "at an unknown time".to_owned(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}
