//! `insula load`: tenants at their rates against a gateway, what came of it, and whether that was expected.
//!
//! The work is `insula-load`'s; here are its options, the live view and where reports go.

mod live;
mod requests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use insula_core::Kind;
use insula_load::html::micros;
use insula_load::{Arrivals, Expectation, Plan, Report, expect, tenants};
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::screen::{Screen, Tone};

/// Send tenants' requests at fixed rates, and measure what each of them feels
///
/// Open loop: requests are due at their times, whether or not the server keeps up, and latency counts from when a request was due.
/// PATH, METHOD and the like are for all tenants, or for one when written TENANT=VALUE; the last that fits holds.
///
/// Exit code: 0 when all expectations hold, 4 when one fails, 2 for what cannot be understood, 5 when a log-in is refused, 6 when nobody answers.
#[derive(clap::Args, Debug)]
pub(crate) struct LoadArgs {
    /// Who, and how much: `heavy:1000rps,light:10rps`; rpm for a minute, max for as fast as it goes, `t[1-50]:10rps` for fifty
    #[arg(long, value_name = "LIST", required = true)]
    tenants: String,
    /// How long, after the warm-up
    #[arg(long, value_name = "N", default_value = "30", value_parser = positive)]
    seconds: f64,
    /// Seconds at the beginning that do not count
    #[arg(long, value_name = "N", default_value = "0", value_parser = not_negative)]
    warmup: f64,
    /// What must come of it: `light.p99<250ms,light.errors<1%`. METRIC is p99 (any percentile), min, mean, max, errors, throttled, unsent, a
    /// status, rps or served; TENANT may be all
    #[arg(long, value_name = "LIST")]
    expect: Vec<String>,
    /// Gateway, as http://127.0.0.1:8080; that of a running `up` unless given
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Data folder of a running `insula up`
    #[arg(long, env = "INSULA_DATA", hide_env_values = true, default_value = ".insula", value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    requests: requests::RequestArgs,
    /// Connections of each tenant; by its rate unless given, from 4 to 64
    #[arg(long, value_name = "N")]
    connections: Option<usize>,
    /// Threads that send
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// Distances between requests: even, or random as from many people
    #[arg(long, value_name = "HOW", default_value = "even", value_parser = ["even", "poisson"])]
    arrivals: String,
    /// Seconds after which a request has failed
    #[arg(long, value_name = "N", default_value = "10", value_parser = positive)]
    timeout: f64,
    /// Write a report there: JSON, or a page with plots when it ends in .html; may be given twice
    #[arg(long, value_name = "FILE")]
    report: Vec<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    not_negative(text).and_then(|seconds| if seconds > 0.0 { Ok(seconds) } else { Err("must be above 0".to_owned()) })
}

fn not_negative(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "is no number".to_owned())?;
    if (0.0..=1e6).contains(&seconds) { Ok(seconds) } else { Err("must be from 0 to 1000000".to_owned()) }
}

impl From<insula_load::Error> for Error {
    fn from(error: insula_load::Error) -> Self {
        let help = match error.kind() {
            Kind::Unavailable => "is it running? `insula up` starts everything on this machine",
            _ => "",
        };
        Self::new(error.kind(), error.to_string(), help)
    }
}

/// Runs to the end, or until Ctrl-C; then says what came.
pub(crate) async fn run(args: LoadArgs) -> Result<(), Error> {
    let screen = Screen::new(args.json);
    let loads = tenants::parse(&args.tenants)?;
    let expected: Vec<Expectation> =
        args.expect.iter().map(|list| expect::parse(list)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    for expectation in &expected {
        if expectation.subject != "all" && !loads.iter().any(|load| load.name == expectation.subject) {
            let help = format!("tenants of this run: {}", args.tenants);
            return Err(Error::new(Kind::Invalid, format!("{expectation}: there is no tenant {:?}", expectation.subject), help));
        }
    }
    let gateway = requests::gateway(args.url.as_deref(), &args.data)?;
    let traffic = requests::traffic(&args.requests, &gateway, &loads, args.connections).await?;
    let plan = Plan {
        addr: gateway.addr,
        traffic,
        arrivals: if args.arrivals == "poisson" { Arrivals::Poisson } else { Arrivals::Even },
        warmup: Duration::from_secs_f64(args.warmup),
        length: Duration::from_secs_f64(args.seconds),
        timeout: Duration::from_secs_f64(args.timeout),
        threads: args.threads,
    };
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let interrupt = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            asked.cancel();
        }
    });
    let mut view = live::View::new(screen, &plan);
    let outcome = insula_load::run(plan, stop, |progress| view.show(progress)).await;
    interrupt.abort();
    view.end();
    let mut report = outcome?;
    report.expectations = expected.iter().map(|expectation| expectation.judge(&report)).collect();
    for file in &args.report {
        write(&report, file)?;
    }
    screen.show(&report, |screen| summary(screen, &report))?;
    verdict(&report)
}

fn write(report: &Report, file: &Path) -> Result<(), Error> {
    let html = file.extension().is_some_and(|extension| extension == "html" || extension == "htm");
    let text = if html {
        insula_load::html::page(report)
    } else {
        serde_json::to_string_pretty(report).map_err(std::io::Error::other)?
    };
    std::fs::write(file, text).map_err(|e| Error::new(Kind::Unavailable, format!("cannot write {}: {e}", file.display()), ""))
}

/// An error when an expectation fails.
fn verdict(report: &Report) -> Result<(), Error> {
    let failed: Vec<String> = report
        .expectations
        .iter()
        .filter(|verdict| !verdict.holds)
        .map(|verdict| format!("{} was {}", verdict.expectation, verdict.actual))
        .collect();
    if failed.is_empty() {
        return Ok(());
    }
    Err(Error::new(Kind::Precondition, format!("not as expected: {}", failed.join(", ")), ""))
}

fn summary(screen: Screen, report: &Report) -> String {
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    let time = |us: u64| (micros(us as f64), Tone::Plain);
    let all = (report.tenants.len() > 1).then_some(&report.total);
    let rows = report.tenants.iter().chain(all).map(|tenant| {
        let latency = &tenant.latency;
        let errors = if tenant.errors == 0 { Tone::Plain } else { Tone::Bad };
        vec![
            (tenant.name.clone(), Tone::Plain),
            (tenant.target.clone(), Tone::Plain),
            (format!("{:.1}", tenant.served_rps), Tone::Plain),
            (tenant.requests.to_string(), Tone::Plain),
            (tenant.errors.to_string(), errors),
            (tenant.throttled.to_string(), Tone::Plain),
            time(latency.p50_us),
            time(latency.p90_us),
            time(latency.p99_us),
            time(latency.p999_us),
            time(latency.max_us),
        ]
    });
    let head = ["TENANT", "TARGET", "SERVED/S", "REQUESTS", "ERRORS", "OF THEM 429", "P50", "P90", "P99", "P99.9", "MAX"];
    let mut text = screen.table(&head, rows.collect(), "No tenants.");
    for tenant in &report.tenants {
        let statuses =
            tenant.statuses.iter().filter(|(status, _)| !(200..400).contains(*status)).map(|(s, n)| format!("{s}: {n}"));
        let endings: Vec<_> = statuses.chain(tenant.failures.iter().map(|(reason, n)| format!("{reason}: {n}"))).collect();
        if !endings.is_empty() {
            text.push_str(&format!("\n{}: {}", tenant.name, endings.join(", ")));
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "figures for people")]
    let late = report.generator.lag_p99_us as f64;
    if late > 1_000.0 {
        text.push_str(&format!("\nThe generator itself was late by {} (p99): the latencies include that.", micros(late)));
    }
    for verdict in &report.expectations {
        let mark = if verdict.holds { "holds" } else { "FAILS" };
        text.push_str(&format!("\n{mark}  {}: {}", verdict.expectation, verdict.actual));
    }
    text
}
