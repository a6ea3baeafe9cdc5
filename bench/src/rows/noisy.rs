//! A tenant that sends ten times its plan, beside one that keeps to it: what the second one feels, against being alone.

use std::time::Duration;

use anyhow::Result;
use insula_gateway::Config;
use tokio::runtime::Runtime;

use super::crowd::{Client, Edge, Seen, app, plan};
use crate::{Outcome, Row, Samples, Target};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "noisy", about: "a heavy tenant at 10 times its plan beside a light one, through the gateway", run };

const PLAN: u32 = 100;
const LIGHT: u32 = 50;
const SPAN: Duration = Duration::from_secs(6);
const ROUNDS: usize = 6;

fn run() -> Result<Vec<Outcome>> {
    Runtime::new()?.block_on(measure())
}

async fn measure() -> Result<Vec<Outcome>> {
    let app = app(64, Duration::from_millis(5)).await?;
    let mut held = plan("bronze", 1)?;
    (held.limits.requests_per_second, held.limits.request_burst, held.limits.max_concurrent_requests) = (PLAN, PLAN, 20);
    let tenants = ["heavy", "light"].map(|slug| (slug.to_owned(), "bronze".to_owned()));
    let edge = Edge::start(Config::default(), app, vec![held], &tenants).await?;
    let light = || Client::new(&edge, "light").schedule(LIGHT, SPAN, 8);
    let heavy = || Client::new(&edge, "heavy").schedule(10 * PLAN, SPAN, 32);
    light().await?;
    let (mut alone, mut beside, mut loud) = (Seen::default(), Seen::default(), Seen::default());
    for round in 0..ROUNDS {
        for noise in [round % 2 == 0, round % 2 == 1] {
            if noise {
                let (one, other) = tokio::join!(light(), heavy());
                add(&mut beside, one?);
                add(&mut loud, other?);
            } else {
                add(&mut alone, light().await?);
            }
        }
    }
    edge.stop();
    let p99 = |seen: &Seen| Samples(seen.times.clone()).quantile(0.99);
    let passed = loud.times.len() as f64 / (SPAN.as_secs_f64() * ROUNDS as f64);
    Ok(vec![
        Outcome::ratio(
            "light tenant's p99 beside a heavy one / alone",
            p99(&beside) / p99(&alone),
            Target::AtMost(1.2),
            format!(
                "{:.2} ms and {:.2} ms; {} and {} requests",
                p99(&beside),
                p99(&alone),
                beside.times.len(),
                alone.times.len()
            ),
        ),
        Outcome::figure(
            "light tenant's errors",
            (alone.errors + alone.limited + beside.errors + beside.limited) as f64,
            "requests",
            Target::AtMost(0.0),
            "",
        ),
        Outcome::ratio(
            "heavy tenant's share of what its plan allows",
            passed / (f64::from(PLAN) * (1.0 + 1.0 / SPAN.as_secs_f64())),
            Target::AtMost(1.01),
            format!("{passed:.0} a second passed, {} refused with 429, {} otherwise", loud.limited, loud.errors),
        ),
    ])
}

fn add(all: &mut Seen, part: Seen) {
    all.times.extend(part.times);
    all.limited += part.limited;
    all.errors += part.errors;
}
