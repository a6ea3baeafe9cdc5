//! A real Redis server between two gateways: killed in the middle and brought back.
#![cfg(feature = "redis")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use insula_core::{Limits, TenantNo};
use insula_http::admit::lease::{Claim, Exchange, MeterKey, OPENING, Report, Sharing};
use insula_http::admit::redis::RedisExchange;
use insula_http::admit::{Admission, AdmissionConfig, ClassNo};
use uuid::Uuid;

use crate::admit::Town;

/// A server of the test's own, without a disk; dies with it.
struct Server {
    port: u16,
    child: Child,
}

impl Server {
    fn start(port: u16) -> Self {
        let program = ["redis-server", "valkey-server"].into_iter().find(|name| {
            Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
        });
        let program = program.expect("redis-server or valkey-server: scripts/setup installs one");
        let options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"];
        let child = Command::new(program).args(options).arg(port.to_string()).stdout(Stdio::null()).spawn().unwrap();
        Self { port, child }
    }

    fn fresh() -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self::start(port)
    }

    fn exchange(&self) -> RedisExchange {
        self.exchange_of(Uuid::nil())
    }

    fn exchange_of(&self, installation: Uuid) -> RedisExchange {
        RedisExchange::new(&format!("redis://127.0.0.1:{}", self.port), "test", move || Some(installation)).unwrap()
    }

    fn kill(mut self) -> u16 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.port
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn round(exchange: &mut RedisExchange, report: &Report) -> insula_http::admit::lease::Award {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match exchange.round(report).await {
            Ok(award) => return award,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

/// The script gives and charges as `planner::pot` does.
#[tokio::test]
async fn the_script_keeps_pots_as_the_planner_does() {
    let server = Server::fresh();
    let mut exchange = server.exchange();
    let meter = MeterKey { tenant: TenantNo::new(7).unwrap(), class: "export".into() };
    // A unit in 100 s: the time of the test does not matter. The pot holds one, as every pot does at the least.
    let slow = |units| Claim { meter: meter.clone(), interval: 100_000_000_000, burst: 50, units };
    let claim = |claims: Vec<Claim>| Report { claims, ..Report::default() };
    let spend = |units| Report { spent: vec![(meter.clone(), units)], ..Report::default() };
    // A pot is opened empty.
    let award = round(&mut exchange, &claim(vec![slow(5), slow(5)])).await;
    assert_eq!((award.parties, award.granted, award.hot), (1, vec![0, 0], vec![meter.clone()]));
    // 2,500 units in the pot's quarter of a second, bounded by the burst; there after the opening and five milliseconds.
    let quick = MeterKey { tenant: TenantNo::new(8).unwrap(), class: String::new() };
    let fast = |units| Claim { meter: quick.clone(), interval: 100_000, burst: 50, units };
    let began = Instant::now();
    let first = loop {
        let granted = round(&mut exchange, &claim(vec![fast(50)])).await.granted[0];
        if granted > 0 {
            break granted;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "nothing is ever granted");
    };
    assert!(began.elapsed() >= OPENING && first <= 50, "{first} after {:?}", began.elapsed());
    // What was spent elsewhere is paid for first: ten seconds' worth.
    let debt = Report { spent: vec![(quick.clone(), 100_000)], ..Report::default() };
    round(&mut exchange, &debt).await;
    assert_eq!(round(&mut exchange, &claim(vec![fast(30)])).await.granted, [0]);
    round(&mut exchange, &spend(1)).await;
    // Another process is a party; when it says goodbye it is none.
    let mut other = server.exchange();
    assert_eq!(round(&mut other, &Report::default()).await.parties, 2);
    assert_eq!(round(&mut exchange, &Report::default()).await.parties, 2);
    other.leave().await;
    assert_eq!(round(&mut exchange, &Report::default()).await.parties, 1);
}

/// Tenant 7 is somebody else in each, and so are the processes.
#[tokio::test]
async fn two_installations_on_one_server_share_nothing() {
    let server = Server::fresh();
    let (mut ours, mut theirs) = (server.exchange_of(Uuid::from_u128(1)), server.exchange_of(Uuid::from_u128(2)));
    let meter = MeterKey { tenant: TenantNo::new(7).unwrap(), class: String::new() };
    let claim = Claim { meter: meter.clone(), interval: 100_000_000_000, burst: 50, units: 1 };
    let award = round(&mut ours, &Report { claims: vec![claim], ..Report::default() }).await;
    assert_eq!((award.parties, award.hot), (1, vec![meter]));
    let award = round(&mut theirs, &Report::default()).await;
    assert_eq!((award.parties, award.hot), (1, vec![]));
    assert_eq!(round(&mut ours, &Report::default()).await.parties, 1);
    // Who does not know which one it is of, shares with nobody.
    let mut nobodys = RedisExchange::new(&format!("redis://127.0.0.1:{}", server.port), "test", || None).unwrap();
    assert!(nobodys.round(&Report::default()).await.is_err());
}

const RATE: u32 = 400;
const BURST: u32 = 200;

/// Asks as fast as it can for a while; answers what passed.
async fn flood(admissions: &[&Admission], town: &Town, for_: Duration) -> (u32, f64) {
    let (began, route) = (Instant::now(), town.route(1));
    let mut passed = 0;
    while began.elapsed() < for_ {
        passed += admissions.iter().filter(|one| one.try_admit(&route, ClassNo::DEFAULT).is_ok()).count();
        tokio::task::yield_now().await;
    }
    (u32::try_from(passed).unwrap(), began.elapsed().as_secs_f64())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_share_a_plan_through_redis_and_go_on_without_it() {
    let limits = Limits { requests_per_second: RATE, request_burst: BURST, max_concurrent_requests: 10_000, ..Limits::default() };
    let town = Town::new(limits).await;
    let server = Server::fresh();
    let gateway = || Admission::new(AdmissionConfig::default()).unwrap();
    let (one, two) = (gateway(), gateway());
    let run = |admission: &Admission| {
        let sharing = Sharing::new(admission.clone(), 2).run(server.exchange(), std::future::pending());
        tokio::spawn(sharing).abort_handle()
    };
    let runs = [run(&one), run(&two)];
    let began = Instant::now();
    let mut all = 0;
    let mut measure = async |who: &[&Admission], seconds: u64| {
        let (passed, took) = flood(who, &town, Duration::from_secs(seconds)).await;
        all += passed;
        f64::from(passed) / took / f64::from(RATE)
    };
    // The first spends the bursts; then one alone gets far more than its half, also on a machine that has much to do.
    measure(&[&one, &two], 1).await;
    // Whatever stands still for a moment loses some of a second: it is as it should be for one of them, then.
    let mut becomes = async |what: &str, who: &[&Admission], share: std::ops::RangeInclusive<f64>| {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let measured = measure(who, 1).await;
            if share.contains(&measured) {
                return;
            }
            assert!(Instant::now() < deadline, "{measured} of the plan {what}");
        }
    };
    becomes("at one gateway", &[&one], 0.65..=f64::MAX).await;
    let port = server.kill();
    becomes("at one of two without Redis", &[&one], 0.4..=0.6).await;
    becomes("at two without Redis", &[&one, &two], 0.9..=1.35).await;
    let _server = Server::start(port);
    becomes("after Redis came back", &[&one], 0.65..=f64::MAX).await;
    let most = f64::from(RATE) * (began.elapsed().as_secs_f64() + 1.0) + f64::from(BURST) + 2.0;
    assert!(f64::from(all) <= most, "{all} passed, {most} at most");
    runs.iter().for_each(tokio::task::AbortHandle::abort);
}
