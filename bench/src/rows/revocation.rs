//! From a word of the control plane to its force at every gateway: a tenant suspended, an API key revoked, a limit changed.
//!
//! All of it as in life: the word is a call of the control plane's REST API, measured from before it; the gateways are processes that follow over
//! HTTP; a word is in force when the last of them has answered so to a client that asks again and again.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use insula_api::identity::CreateTenantKey;
use insula_api::tenant::UpdateTenant;
use tokio::runtime::Runtime;

use super::asker::{Answer, Asker, request};
use super::door::Door;
use super::house::House;
use crate::{Outcome, Row, Samples, Target};

/// The row.
pub(crate) const ROW: Row = Row {
    name: "revocation",
    about: "suspended and revoked to refused, limit changed to in force, at gateways that follow over HTTP",
    run,
};

/// Beside those that words are about.
const KNOWN: i64 = 10_000;
const GATEWAYS: usize = 2;
const ROUNDS: usize = 150;
/// A tenant is suspended again when so many others were meanwhile.
const TENANTS: usize = 10;
/// Of the tenant whose rate changes: few enough that a client who never rests is refused, and so told what the limit is.
const BURST: u64 = 4;
/// Between two questions of a client: a hundredth of the tightest bound, and long enough that those who ask do not keep the machine from telling.
const PAUSE: Duration = Duration::from_millis(1);
const PATIENCE: Duration = Duration::from_secs(30);

fn run() -> Result<Vec<Outcome>> {
    let runtime = Runtime::new()?;
    let house = runtime.block_on(async {
        let house = House::start(KNOWN).await?;
        for n in 0..TENANTS {
            house.tenant(&slug(n), &[]).await?;
        }
        house.tenant("limited", &[("requests_per_second", 1), ("request_burst", BURST)]).await?;
        anyhow::Ok(house)
    })?;
    let doors = (0..GATEWAYS).map(|_| house.door(2)).collect::<Result<Vec<_>>>()?;
    let suspended = suspended(&runtime, &house, &doors).context("suspending")?;
    let revoked = revoked(&runtime, &house, &doors).context("revoking")?;
    let limited = limited(&runtime, &house, &doors).context("changing a limit")?;
    let outcome = |what: &str, samples: &Samples, most: f64| {
        let detail = format!(
            "{ROUNDS} rounds, from before the REST call to the slowest answer of {GATEWAYS} gateways; p50 {:.1} ms, the longest {:.1} ms",
            samples.median(),
            samples.quantile(1.0)
        );
        Outcome::figure(what, samples.quantile(0.99), "ms", Target::AtMost(most), detail)
    };
    Ok(vec![
        outcome("tenant suspended to refused everywhere, p99", &suspended, 1_000.0),
        outcome("API key revoked to refused everywhere, p99", &revoked, 1_000.0),
        outcome("limit changed to in force everywhere, p99", &limited, 100.0),
    ])
}

fn slug(n: usize) -> String {
    format!("bench-{n}")
}

fn suspended(runtime: &Runtime, house: &House, doors: &[Door]) -> Result<Samples> {
    let mut samples = Samples::default();
    for n in 0..ROUNDS {
        let slug = slug(n % TENANTS);
        let call = || runtime.block_on(house.client.suspend_tenant(&slug, false));
        let (operation, took) = everywhere(doors, &request(&slug, None), served, |answer| answer.status == 403, call)?;
        samples.0.push(took);
        runtime.block_on(async {
            let deadline = Instant::now() + PATIENCE;
            while !house.client.operation(operation.id).await?.state.ended() {
                ensure!(Instant::now() < deadline, "the suspension does not end");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            house.client.resume_tenant(&slug, true).await?;
            Ok(())
        })?;
    }
    Ok(samples)
}

fn revoked(runtime: &Runtime, house: &House, doors: &[Door]) -> Result<Samples> {
    let mut samples = Samples::default();
    for n in 0..ROUNDS {
        let slug = slug(n % TENANTS);
        let new = CreateTenantKey { name: format!("key {n}"), scopes: vec![], expires_at: None };
        let made = runtime.block_on(house.client.create_tenant_key(&slug, &new))?;
        let secret = made.secret.context("a key is told once")?;
        let call = || runtime.block_on(house.client.revoke_tenant_key(&slug, made.key.id));
        let (_, took) = everywhere(doors, &request(&slug, Some(&secret)), served, |answer| answer.status == 401, call)?;
        samples.0.push(took);
    }
    Ok(samples)
}

fn limited(runtime: &Runtime, house: &House, doors: &[Door]) -> Result<Samples> {
    let mut samples = Samples::default();
    let mut etag = runtime.block_on(house.client.tenant("limited"))?.etag;
    for n in 0..ROUNDS {
        let (before, after) = if n % 2 == 0 { (1, 2) } else { (2, 1) };
        // The burst, in the time in which it comes back.
        let told = |rate: u64| Some(format!("\"tenant\";q={BURST};w={}", BURST / rate));
        let change = UpdateTenant { limits: [("requests_per_second".to_owned(), Some(after))].into(), ..UpdateTenant::default() };
        let call = || runtime.block_on(house.client.update_tenant("limited", &etag, &change));
        let says = |rate: u64| move |answer: &Answer| answer.status == 429 && answer.policy == told(rate);
        let (changed, took) = everywhere(doors, &request("limited", None), says(before), says(after), call)?;
        etag = changed.etag;
        samples.0.push(took);
    }
    Ok(samples)
}

fn served(answer: &Answer) -> bool {
    answer.status == 200
}

/// Asks every gateway again and again: until all have answered as it was before the call, and from then until the last has answered as it is to be
/// after it. Milliseconds from before the call to that answer.
///
/// # Errors
/// When a gateway goes on as before, or does so on other connections.
fn everywhere<T>(
    doors: &[Door],
    request: &[u8],
    before: impl Fn(&Answer) -> bool + Sync,
    after: impl Fn(&Answer) -> bool + Sync,
    call: impl FnOnce() -> Result<T, insula_api::Error>,
) -> Result<(T, f64)> {
    let all_ask = Barrier::new(doors.len() + 1);
    let (called, began, seen) = std::thread::scope(|scope| {
        let asking: Vec<_> = doors
            .iter()
            .map(|door| {
                let (before, after, all_ask) = (&before, &after, &all_ask);
                scope.spawn(move || {
                    let settled = Asker::new(door).and_then(|mut asker| until(&mut asker, request, before).map(|_| asker));
                    // Whoever has failed must not keep the others.
                    all_ask.wait();
                    until(&mut settled?, request, after)
                })
            })
            .collect();
        all_ask.wait();
        let began = Instant::now();
        let called = call();
        let seen: Vec<_> = asking.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a client panicked"))?).collect();
        (called, began, seen)
    });
    let called = called?;
    let seen = seen.into_iter().collect::<Result<Vec<Instant>>>()?;
    // Connections are spread over a gateway's workers; what is known is one.
    for door in doors {
        for _ in 0..4 {
            let answer = Asker::new(door)?.ask(request)?;
            ensure!(!before(&answer), "a gateway goes on as before: {answer:?}");
        }
    }
    let last = seen.into_iter().max().context("no gateways")?;
    Ok((called, last.saturating_duration_since(began).as_secs_f64() * 1e3))
}

/// Asks until it is answered so; the moment of that answer.
fn until(asker: &mut Asker, request: &[u8], wanted: impl Fn(&Answer) -> bool) -> Result<Instant> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = asker.ask(request)?;
        let now = Instant::now();
        ensure!(answer.status < 500, "answered with {answer:?}");
        if wanted(&answer) {
            return Ok(now);
        }
        std::thread::park_timeout(PAUSE);
        ensure!(now < deadline, "still answered with {answer:?}");
    }
}
