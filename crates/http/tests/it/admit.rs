//! Admission from outside: who goes on, who is refused and with what words, and that everything comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request;
use axum::response::AppendHeaders;
use axum::routing::{get, post};
use futures_util::{FutureExt as _, StreamExt as _};
use http::StatusCode;
use insula_catalog::fake::{self, FakeSource};
use insula_catalog::{Catalog, Options, Route};
use insula_core::{ClassLimits, Limits};
use insula_http::admit::{
    Admission, AdmissionConfig, AdmitLayer, ClassConfig, ClassNo, LimitConfig, OVERLOADED, Outcome, Ticks, Why,
};
use insula_http::{Problem, ResolveLayer};
use tower::ServiceExt as _;

pub(crate) struct Town {
    pub(crate) source: FakeSource,
    pub(crate) catalog: Catalog,
}

impl Town {
    /// Tenants t1 to t9 of the plan `bronze`, with these limits.
    pub(crate) async fn new(limits: Limits) -> Self {
        let source = FakeSource::new();
        source.change(|content| {
            let mut plan = fake::plan("bronze").unwrap();
            plan.limits = limits;
            content.put_plan(plan);
            content.put_cell(fake::cell("main", "127.0.0.1", 1).unwrap());
            content.put_database(fake::database("main", "insula_pool", 0).unwrap());
            for no in 1..10 {
                content.put_tenant(fake::tenant(&format!("t{no}"), no, "bronze", "main").unwrap());
            }
        });
        let catalog = Catalog::start(source.clone(), Options::default());
        catalog.ready().await;
        Self { source, catalog }
    }

    pub(crate) fn route(&self, no: u8) -> Arc<Route> {
        self.catalog.by_slug(&format!("t{no}")).unwrap().arc()
    }
}

fn limits(rate: u32, burst: u32, at_once: u32) -> Limits {
    Limits { requests_per_second: rate, request_burst: burst, max_concurrent_requests: at_once, ..Limits::default() }
}

fn by_hand(config: AdmissionConfig) -> (Admission, Ticks) {
    let ticks = Ticks::by_hand();
    (Admission::with_ticks(config, ticks.clone()).unwrap(), ticks)
}

fn small_cell(seats: u32) -> AdmissionConfig {
    AdmissionConfig { limit: LimitConfig { initial: seats, min: seats, max: seats, tolerance: 1.5 }, ..Default::default() }
}

fn why(admission: &Admission, route: &Route, class: ClassNo) -> Option<Why> {
    admission.try_admit(route, class).err().map(|refused| refused.why)
}

#[tokio::test]
async fn a_tenant_has_its_rate_and_no_other_feels_it() {
    let town = Town::new(limits(10, 5, 100)).await;
    let (admission, ticks) = by_hand(AdmissionConfig::default());
    let passed = |no| (0..50).filter(|_| admission.try_admit(&town.route(no), ClassNo::DEFAULT).is_ok()).count();
    assert_eq!((passed(1), passed(2), passed(1)), (5, 5, 0));
    ticks.advance(Duration::from_millis(300));
    assert_eq!((passed(1), passed(2)), (3, 3));
    let refused = admission.try_admit(&town.route(1), ClassNo::DEFAULT).unwrap_err();
    assert!(matches!(refused.why, Why::Rate(_)) && refused.retry_after == Duration::from_millis(100), "{refused:?}");
}

#[tokio::test]
async fn who_has_read_the_clock_is_asked_by_that_moment() {
    let town = Town::new(limits(1, 1, 100)).await;
    let admission = Admission::new(AdmissionConfig::default()).unwrap();
    let (route, now) = (town.route(1), std::time::Instant::now());
    let passes = |millis| admission.try_admit_at(&route, ClassNo::DEFAULT, now + Duration::from_millis(millis)).is_ok();
    assert_eq!([0, 999, 1_000, 1_999].map(passes), [true, false, true, false]);
    let mut entered = admission.enter_at(&route, ClassNo::DEFAULT, now + Duration::from_secs(2)).unwrap();
    assert_eq!(admission.cells()[0].in_flight, 0);
    admission.sit(&mut entered, &route).await.unwrap();
    assert_eq!(admission.cells()[0].in_flight, 1);
    // A clock that is moved by hand says itself what time it is.
    let (admission, ticks) = by_hand(AdmissionConfig::default());
    let passes = || admission.try_admit_at(&route, ClassNo::DEFAULT, now + Duration::from_secs(60)).is_ok();
    assert_eq!((passes(), passes()), (true, false));
    ticks.advance(Duration::from_secs(1));
    assert_eq!((passes(), passes()), (true, false));
}

#[tokio::test]
async fn a_changed_limit_is_in_force_with_the_next_request_that_sees_it() {
    let town = Town::new(limits(1, 1, 100)).await;
    let admission = Admission::new(AdmissionConfig::default()).unwrap();
    assert!(why(&admission, &town.route(1), ClassNo::DEFAULT).is_none());
    assert!((0..100).any(|_| why(&admission, &town.route(1), ClassNo::DEFAULT).is_some()));
    let mut took = Vec::new();
    for rate in 1_000..1_100 {
        town.source.change(|content| {
            let mut plan = fake::plan("bronze").unwrap();
            plan.limits = limits(rate, rate, 100);
            content.put_plan(plan);
        });
        let began = std::time::Instant::now();
        while town.route(1).plan.limits.requests_per_second != rate {
            assert!(began.elapsed() < Duration::from_secs(20), "never seen");
            tokio::task::yield_now().await;
        }
        took.push(began.elapsed());
        // More than ever pass while it is asked.
        let refused = (0..100_000).find_map(|_| admission.try_admit(&town.route(1), ClassNo::DEFAULT).err());
        let why = refused.as_ref().map(|refused| refused.why);
        assert!(matches!(why, Some(Why::Rate(quota)) if quota.burst() == u64::from(rate)), "{rate}: {refused:?}");
    }
    // Most of them: a machine that has much to do stands still now and then.
    took.sort();
    assert!(took[90] < Duration::from_millis(100), "{took:?}");
}

#[tokio::test]
async fn requests_at_work_are_counted_and_come_back() {
    let town = Town::new(limits(1_000_000, 1_000_000, 3)).await;
    let (admission, _) = by_hand(AdmissionConfig::default());
    let route = town.route(1);
    for _ in 0..100 {
        let permits: Vec<_> = (0..3).map(|_| admission.try_admit(&route, ClassNo::DEFAULT).unwrap()).collect();
        assert_eq!(why(&admission, &route, ClassNo::DEFAULT), Some(Why::Concurrency(3)));
        assert!(why(&admission, &town.route(2), ClassNo::DEFAULT).is_none());
        drop(permits);
    }
    assert_eq!(admission.cells()[0].in_flight, 0);
}

#[tokio::test]
async fn a_class_has_limits_of_its_own_a_price_and_a_bulkhead() {
    let class = ClassLimits { requests_per_second: Some(2), request_burst: Some(4), max_concurrent_requests: Some(2), cost: 10 };
    let town = Town::new(Limits { route_classes: [("export".parse().unwrap(), class)].into(), ..limits(100, 100, 50) }).await;
    let export = ClassConfig {
        name: "export".parse().unwrap(),
        paths: vec!["/exports/**".into()],
        methods: vec![],
        max_in_flight: Some(3),
    };
    let (admission, ticks) = by_hand(AdmissionConfig { classes: vec![export], ..Default::default() });
    let no = admission.classes().of(&http::Method::GET, "/exports/7");
    let (one, two) = (town.route(1), town.route(2));
    let held = [admission.try_admit(&one, no).unwrap(), admission.try_admit(&one, no).unwrap()];
    assert_eq!(why(&admission, &one, no), Some(Why::ClassConcurrency(2)));
    let third = admission.try_admit(&two, no).unwrap();
    assert_eq!(why(&admission, &two, no), Some(Why::Bulkhead));
    drop((held, third));
    // Two of four are left of the class, 80 of 100 of the tenant.
    assert!(why(&admission, &one, no).is_none() && why(&admission, &one, no).is_none());
    assert!(matches!(why(&admission, &one, no), Some(Why::ClassRate(_))));
    // What the class refused cost nothing: 60 are left.
    let left = (0..100).filter(|_| admission.try_admit(&one, ClassNo::DEFAULT).is_ok()).count();
    assert_eq!(left, 60);
    ticks.advance(Duration::from_secs(60));
    assert!(why(&admission, &one, no).is_none());
}

#[tokio::test]
async fn a_full_cell_is_waited_for_in_fair_order_or_refused_at_once() {
    let town = Town::new(limits(1_000_000, 1_000_000, 1_000)).await;
    let (admission, _) = by_hand(small_cell(1));
    let (one, two) = (town.route(1), town.route(2));
    let held = admission.try_admit(&one, ClassNo::DEFAULT).unwrap();
    assert_eq!(why(&admission, &two, ClassNo::DEFAULT), Some(Why::Full));
    // Many of one tenant, then one of another.
    let mut line: Vec<_> = (0..5).map(|_| Box::pin(admission.admit(&one, ClassNo::DEFAULT))).collect();
    line.push(Box::pin(admission.admit(&two, ClassNo::DEFAULT)));
    assert!(line.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    assert_eq!(admission.cells()[0].waiting, 6);
    // Nobody passes by those who wait.
    drop(held);
    assert_eq!(why(&admission, &two, ClassNo::DEFAULT), Some(Why::Full));
    let first = line.remove(0).now_or_never().unwrap().unwrap();
    drop(first);
    let other = line.pop().unwrap().now_or_never().expect("the other tenant's turn").unwrap();
    // Who gives up leaves the line, and a seat that nobody came for goes on.
    drop(line.remove(0));
    drop(other);
    drop(line);
    let load = &admission.cells()[0];
    assert_eq!((load.in_flight, load.waiting), (0, 0));
    assert!(why(&admission, &two, ClassNo::DEFAULT).is_none());
}

#[tokio::test]
async fn the_line_at_a_full_cell_goes_by_the_weight_of_the_plans_tier() {
    let most = limits(1_000_000, 1_000_000, 1_000);
    let town = Town::new(most.clone()).await;
    town.source.change(|content| {
        let mut gold = fake::plan("gold").unwrap();
        (gold.limits, gold.tier.weight) = (most, 3);
        content.put_plan(gold);
        content.put_tenant(fake::tenant("heavy", 10, "gold", "main").unwrap());
    });
    town.catalog.refresh().await.unwrap();
    let (light, heavy) = (town.route(1), town.catalog.by_slug("heavy").unwrap().arc());
    assert_eq!((light.plan.tier.weight, heavy.plan.tier.weight), (1, 3));
    let (admission, _) = by_hand(small_cell(1));
    let mut held = admission.try_admit(&light, ClassNo::DEFAULT).unwrap();
    let who = |n: usize| if n.is_multiple_of(2) { &light } else { &heavy };
    let mut line: Vec<_> = (0..32).map(|n| (n, Box::pin(admission.admit(who(n), ClassNo::DEFAULT)))).collect();
    assert!(line.iter_mut().all(|(_, waiting)| waiting.now_or_never().is_none()));
    let mut served = [0, 0];
    for _ in 0..16 {
        drop(held);
        let next = line.iter_mut().enumerate().find_map(|(at, (_, waiting))| Some((at, waiting.now_or_never()?)));
        let (at, permit) = next.expect("somebody's turn");
        held = permit.unwrap();
        served[line.swap_remove(at).0 % 2] += 1;
    }
    assert_eq!(served, [4, 12], "light and heavy");
}

#[tokio::test]
async fn who_cannot_be_served_in_time_is_told_at_once() {
    let town = Town::new(limits(1_000_000, 1_000_000, 1_000)).await;
    let (admission, ticks) = by_hand(AdmissionConfig { max_wait_ms: 1_000, ..small_cell(2) });
    let one = town.route(1);
    // The cell learns that a request takes 600 ms.
    for _ in 0..30 {
        let mut permit = admission.try_admit(&one, ClassNo::DEFAULT).unwrap();
        ticks.advance(Duration::from_millis(600));
        permit.finish(Outcome::Sound);
    }
    let _held = [admission.try_admit(&one, ClassNo::DEFAULT).unwrap(), admission.try_admit(&one, ClassNo::DEFAULT).unwrap()];
    let mut line: Vec<_> = (0..3).map(|_| Box::pin(admission.admit(&one, ClassNo::DEFAULT))).collect();
    assert!(line.iter_mut().all(|waiting| waiting.now_or_never().is_none()));
    // Three wait before it, two at a time: 1.2 s.
    let refused = Box::pin(admission.admit(&one, ClassNo::DEFAULT)).now_or_never().expect("at once").unwrap_err();
    assert_eq!(refused.why, Why::Full);
    assert_eq!(refused.retry_after, Duration::from_millis(1_200));
    // Another tenant's first is expected sooner than this one's fourth.
    assert!(Box::pin(admission.admit(&town.route(2), ClassNo::DEFAULT)).now_or_never().is_none());
}

#[tokio::test]
async fn a_cell_that_fails_is_left_alone_and_probed() {
    let town = Town::new(limits(1_000_000, 1_000_000, 1_000)).await;
    let (admission, ticks) = by_hand(AdmissionConfig::default());
    let route = town.route(1);
    for _ in 0..5 {
        admission.try_admit(&route, ClassNo::DEFAULT).unwrap().finish(Outcome::Failed);
    }
    assert!(!admission.cells()[0].closed);
    let refused = admission.try_admit(&route, ClassNo::DEFAULT).unwrap_err();
    assert!(refused.why == Why::Open && refused.retry_after <= Duration::from_millis(250), "{refused:?}");
    ticks.advance(Duration::from_millis(250));
    // One probe; another when the first was given up; closed when one is sound.
    let probe = admission.try_admit(&route, ClassNo::DEFAULT).unwrap();
    assert_eq!(why(&admission, &route, ClassNo::DEFAULT), Some(Why::Open));
    drop(probe);
    admission.try_admit(&route, ClassNo::DEFAULT).unwrap().finish(Outcome::Sound);
    assert!(admission.cells()[0].closed && why(&admission, &route, ClassNo::DEFAULT).is_none());
}

/// The application of a cell whose tenant t1 has lost its database: what it answers, again and again, beside what t2 asks.
#[tokio::test]
async fn a_tenant_s_own_trouble_is_no_reason_to_send_its_cell_less() {
    let town = Town::new(limits(1_000_000, 1_000_000, 1_000)).await;
    let (admission, ticks) = by_hand(AdmissionConfig::default());
    let clock = ticks.clone();
    let answers = move |status: u16, takes: u64, is_own: bool| {
        let clock = clock.clone();
        get(move || {
            clock.advance(Duration::from_millis(takes));
            let own = is_own.then_some((OVERLOADED, "1"));
            std::future::ready((StatusCode::from_u16(status).unwrap(), AppendHeaders(own)))
        })
    };
    let app = Router::new()
        .route("/", answers(200, 4, false))
        .route("/away", answers(503, 50, false))
        .route("/late", answers(504, 50, false))
        .route("/full", answers(503, 1, true))
        .layer(AdmitLayer::new(admission.clone()))
        .layer(ResolveLayer::new(town.catalog.clone()));
    let ask = async |no: u8, path: &str| {
        let request = Request::get(path).header("host", format!("t{no}.localhost")).body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap().status().as_u16()
    };
    let limit = || admission.cells()[0].limit;
    assert_eq!(ask(2, "/").await, 200);
    let before = limit();
    for (path, status) in [("/away", 503), ("/late", 504)] {
        // A hundred spans: mostly t1 alone, and now and then t2.
        for n in 0..2_000 {
            assert_eq!(ask(1, path).await, status);
            if n % 3 == 0 {
                assert_eq!(ask(2, "/").await, 200);
            }
        }
        assert!(limit() >= before, "{path}: {} of {before}", limit());
    }
    // A second tenant that waits in vain while most are served says nothing of the cell either.
    for n in 0..2_000 {
        ask(if n % 2 == 0 { 1 } else { 3 }, "/late").await;
        assert_eq!((ask(2, "/").await, ask(4, "/").await), (200, 200));
    }
    assert!(limit() >= before, "{} of {before}", limit());
    // Where most wait in vain, it is the cell; and where it says so itself.
    for n in 0..200 {
        ask(1 + n % 3, "/late").await;
    }
    let late = limit();
    assert!(late < before, "{late} of {before}");
    for _ in 0..300 {
        ask(2, "/full").await;
    }
    assert!(limit() < late, "{} of {late}", limit());
    assert!(admission.cells()[0].closed);
}

#[tokio::test]
async fn a_full_application_says_that_it_is_its_own_trouble() {
    let town = Town::new(limits(1_000_000, 1_000_000, 1_000)).await;
    let (admission, _) = by_hand(AdmissionConfig { max_wait_ms: 0, ..small_cell(1) });
    let app = app(&town, admission.clone()).await;
    let _held = admission.try_admit(&town.route(2), ClassNo::DEFAULT).unwrap();
    let full = app.oneshot(request("/")).await.unwrap();
    assert_eq!((full.status().as_u16(), full.headers().contains_key(OVERLOADED)), (503, true));
}

#[tokio::test]
async fn deciding_allocates_nothing() {
    let class = ClassLimits { requests_per_second: Some(1_000_000), cost: 2, ..ClassLimits::default() };
    let classes = [("export".parse().unwrap(), class)].into();
    let town = Town::new(Limits { route_classes: classes, ..limits(1_000_000, 1_000_000, 1_000) }).await;
    let export =
        ClassConfig { name: "export".parse().unwrap(), paths: vec!["/exports".into()], methods: vec![], max_in_flight: Some(9) };
    let admission = Admission::new(AdmissionConfig { classes: vec![export], ..Default::default() }).unwrap();
    let route = town.route(1);
    let decide = || {
        for path in ["/", "/exports"] {
            let class = admission.classes().of(&http::Method::GET, path);
            let mut permit = admission.try_admit(&route, class).unwrap();
            permit.finish(Outcome::Sound);
        }
    };
    decide();
    assert_eq!(allocation_counter::measure(decide).count_total, 0);
}

/// Threads that admit, finish and drop for all they are worth: every count comes back to nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_leaks_under_threads() {
    let town = Arc::new(Town::new(limits(1_000_000, 1_000_000, 6)).await);
    let admission = Admission::new(small_cell(4)).unwrap();
    let tasks: Vec<_> = (0..32u8)
        .map(|n| {
            let (town, admission) = (town.clone(), admission.clone());
            tokio::spawn(async move {
                let route = town.route(1 + n % 9);
                for round in 0..300u32 {
                    let waiting = admission.admit(&route, ClassNo::DEFAULT);
                    let patience = Duration::from_micros(u64::from(round % 7) * 50);
                    if let Ok(Ok(mut permit)) = tokio::time::timeout(patience, waiting).await {
                        tokio::task::yield_now().await;
                        permit.finish(if round % 11 == 0 { Outcome::Overloaded } else { Outcome::Sound });
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let load = &admission.cells()[0];
    assert_eq!((load.in_flight, load.waiting), (0, 0));
    // Each tenant has all of its places.
    for no in 1..10 {
        let permits: Vec<_> = (0..4).map(|_| admission.try_admit(&town.route(no), ClassNo::DEFAULT).unwrap()).collect();
        drop(permits);
    }
}

const PIECE: usize = 16 << 10;
const LARGE: usize = 256 << 10;

async fn app(town: &Town, admission: Admission) -> Router {
    let slow = async || {
        tokio::time::sleep(Duration::from_secs(60)).await;
        "late"
    };
    let large = async || {
        let pieces = std::iter::repeat_n(Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b'z'; PIECE])), LARGE / PIECE);
        Body::from_stream(futures_util::stream::iter(pieces))
    };
    Router::new()
        .route("/", get(async || "here"))
        .route("/slow", get(slow))
        .route("/large", get(large))
        .route("/take", post(async |body: Bytes| body))
        .route("/healthz", get(async || "well"))
        .layer(AdmitLayer::new(admission))
        .layer(ResolveLayer::new(town.catalog.clone()))
}

fn request(path: &str) -> Request {
    Request::get(path).header("host", "t1.localhost").body(Body::empty()).unwrap()
}

#[tokio::test]
async fn the_layer_holds_a_permit_until_the_last_byte_and_refuses_with_headers() {
    let town = Town::new(limits(1, 3, 1)).await;
    let (admission, _) = by_hand(AdmissionConfig::default());
    let app = app(&town, admission).await;
    let first = app.clone().oneshot(request("/")).await.unwrap();
    let second = app.clone().oneshot(request("/")).await.unwrap();
    assert_eq!(second.status(), 429);
    assert_eq!(second.headers()["ratelimit-policy"], "\"tenant-concurrency\";q=1;qu=\"concurrent-requests\"");
    assert_eq!(to_bytes(first.into_body(), 100).await.unwrap(), "here");
    for _ in 0..2 {
        assert_eq!(app.clone().oneshot(request("/")).await.unwrap().status(), 200);
    }
    let refused = app.clone().oneshot(request("/")).await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["ratelimit-policy"], "\"tenant\";q=3;w=3");
    assert_eq!(refused.headers()["ratelimit"], "\"tenant\";r=0;t=1");
    assert_eq!(refused.headers()["retry-after"], "1");
    let problem: serde_json::Value = serde_json::from_slice(&to_bytes(refused.into_body(), 2_000).await.unwrap()).unwrap();
    assert!(problem["type"].as_str().unwrap().ends_with("/limited") && problem["request_id"].is_string(), "{problem}");
    assert_eq!(app.oneshot(request("/healthz")).await.unwrap().status(), 200);
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_504_in_the_plan_s_time() {
    let town = Town::new(Limits { request_timeout_ms: 50, ..limits(1, 3, 1) }).await;
    let (admission, _) = by_hand(AdmissionConfig::default());
    let app = app(&town, admission.clone()).await;
    let began = tokio::time::Instant::now();
    let response = app.oneshot(request("/slow")).await.unwrap();
    assert_eq!(response.status(), 504);
    // The handler takes a minute.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    drop(response);
    assert_eq!(admission.cells()[0].in_flight, 0);
}

#[tokio::test]
async fn who_sends_slowly_gives_the_seat_to_others() {
    let town = Town::new(limits(100, 100, 100)).await;
    let (admission, _) = by_hand(AdmissionConfig { max_wait_ms: 15_000, ..small_cell(1) });
    let app = app(&town, admission.clone()).await;
    let (client, body) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(2);
    let body = futures_util::stream::unfold(body, |mut body| async move { body.recv().await.map(|piece| (piece, body)) });
    let slow = Request::post("/take").header("host", "t1.localhost").body(Body::from_stream(body)).unwrap();
    let slow = tokio::spawn(app.clone().oneshot(slow));
    client.try_send(Ok("sl".into())).unwrap();
    while admission.cells().first().is_none_or(|cell| cell.in_flight == 0) {
        tokio::task::yield_now().await;
    }
    let other = Request::get("/").header("host", "t2.localhost").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(other).await.unwrap().status(), 200);
    client.try_send(Ok("ow".into())).unwrap();
    drop(client);
    let answer = slow.await.unwrap().unwrap();
    assert_eq!(to_bytes(answer.into_body(), 100).await.unwrap(), "slow");
    assert_eq!(admission.cells()[0].in_flight, 0);
}

#[tokio::test]
async fn who_reads_slowly_gives_the_seat_to_others() {
    let town = Town::new(limits(100, 100, 100)).await;
    let (admission, _) = by_hand(AdmissionConfig { max_wait_ms: 15_000, ..small_cell(1) });
    let app = app(&town, admission.clone()).await;
    let large = Request::get("/large").header("host", "t1.localhost").body(Body::empty()).unwrap();
    let answer = app.clone().oneshot(large).await.unwrap();
    let mut body = answer.into_body().into_data_stream();
    let mut taken = 0;
    while taken <= 64 << 10 {
        taken += body.next().await.unwrap().unwrap().len();
    }
    assert_eq!(admission.cells()[0].in_flight, 1);
    let other = Request::get("/").header("host", "t2.localhost").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(other).await.unwrap().status(), 200);
    while let Some(piece) = body.next().await {
        taken += piece.unwrap().len();
    }
    assert_eq!((taken, admission.cells()[0].in_flight), (LARGE, 0));
}

#[test]
fn a_problem_is_bytes_for_whoever_has_other_bodies() {
    let seen = AtomicBool::new(false);
    let response =
        Problem::new(insula_core::Kind::Limited).into_bytes().map(|body| seen.store(!body.is_empty(), Ordering::Relaxed));
    assert!(response.status() == 429 && seen.load(Ordering::Relaxed));
}
