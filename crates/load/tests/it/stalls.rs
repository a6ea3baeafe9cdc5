//! Rates are kept, tenants are told apart, and a server that stalls is charged with all that was due meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use insula_load::{Arrivals, Rate, expect};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{plan, run, serve, traffic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tenant_gets_its_rate_by_its_host() {
    let hosts = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
    let seen = hosts.clone();
    let router = Router::new().route(
        "/",
        get(move |headers: HeaderMap| async move {
            let heavy = headers["host"] == "heavy.localhost";
            seen[usize::from(heavy)].fetch_add(1, Ordering::Relaxed);
            if heavy { (StatusCode::TOO_MANY_REQUESTS, "no") } else { (StatusCode::OK, "yes") }
        }),
    );
    let addr = serve(router).await;
    let tenants = vec![traffic("light", Rate::PerSecond(50.0), "/"), traffic("heavy", Rate::PerSecond(200.0), "/")];
    for arrivals in [Arrivals::Even, Arrivals::Poisson] {
        hosts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        let report = run(insula_load::Plan { arrivals, ..plan(addr, tenants.clone(), Duration::from_secs(1)) }).await;
        let (light, heavy) = (report.tenant("light").unwrap(), report.tenant("heavy").unwrap());
        assert_eq!([light.requests, heavy.requests], [0, 1].map(|i| hosts[i].load(Ordering::Relaxed)));
        let near = |count: u64, of: u64| count.abs_diff(of) * 2 <= of;
        assert!(near(light.requests, 50) && near(heavy.requests, 200), "{report:?}");
        assert_eq!((light.errors, light.bytes_in), (0, 3 * light.requests));
        assert_eq!((heavy.throttled, heavy.latency.count, heavy.refusal.count), (heavy.requests, 0, heavy.requests));
        let holds = |text: &str| expect::parse(text).unwrap()[0].judge(&report).holds;
        assert!(holds("light.errors=0") && holds("heavy.throttled=100%") && !holds("heavy.p99<1s"), "{report:?}");
    }
}

/// A server that answers nothing until half of the run is over: a generator that waits for its answers would count as many slow requests as
/// it has connections, 4.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_charged_to_all_that_was_due_meanwhile() {
    let gate = Arc::new(Semaphore::new(0));
    let closed = gate.clone();
    let router = Router::new().route(
        "/",
        get(move || async move {
            let _pass = closed.acquire().await.unwrap();
            "late"
        }),
    );
    let addr = serve(router).await;
    let plan = plan(addr, vec![traffic("a", Rate::PerSecond(200.0), "/")], Duration::from_secs(2));
    let opener = gate.clone();
    let report = insula_load::run(plan, CancellationToken::new(), move |progress| {
        if progress.elapsed >= Duration::from_secs(1) && opener.available_permits() == 0 {
            opener.add_permits(1000);
        }
    })
    .await
    .unwrap();
    let a = report.tenant("a").unwrap();
    assert_eq!((a.requests, a.errors), (400, 0));
    // Those due in the first second waited half a second on average: half of all requests, not four of them.
    assert!(a.latency.p90_us > 500_000, "{:?}", a.latency);
    assert!(a.service.p90_us < 500_000, "only those in flight waited after they were sent: {:?}", a.service);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_due_and_never_sent_is_in_the_figures() {
    let router = Router::new().route("/", get(std::future::pending::<&str>));
    let addr = serve(router).await;
    let mut plan = plan(addr, vec![traffic("a", Rate::PerSecond(100.0), "/")], Duration::from_secs(1));
    plan.timeout = Duration::from_millis(300);
    let report = run(plan).await;
    let a = report.tenant("a").unwrap();
    assert_eq!((a.requests, a.served), (100, 0));
    assert_eq!(a.failures["timeout"] + a.failures["unsent"], 100, "{:?}", a.failures);
    assert!(a.failures["unsent"] > 50 && a.latency.count == 100, "{a:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_server_closes_between_requests_is_no_error() {
    // `Connection: close` after each answer.
    let router = Router::new().route("/", get(|| async { ([("connection", "close")], "bye") }));
    let addr = serve(router).await;
    let report = run(plan(addr, vec![traffic("a", Rate::PerSecond(200.0), "/")], Duration::from_millis(500))).await;
    assert_eq!((report.total.requests, report.total.errors), (100, 0), "{report:?}");
}

#[tokio::test]
async fn nobody_there_is_said_at_once() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let plan = plan(addr, vec![traffic("a", Rate::Max, "/")], Duration::from_secs(1));
    let error = insula_load::run(plan, CancellationToken::new(), |_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot connect to {addr}")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_can_be_stopped_and_a_closed_loop_fills_its_connections() {
    let addr = serve(Router::new().route("/", get(|| async { "ok" }))).await;
    let stop = CancellationToken::new();
    let stopper = stop.clone();
    let plan = plan(addr, vec![traffic("a", Rate::Max, "/")], Duration::from_secs(600));
    let many = move |progress: &insula_load::Progress| {
        if progress.tenants.iter().any(|tenant| tenant.requests > 1_000) {
            stopper.cancel();
        }
    };
    let report = insula_load::run(plan, stop, many).await.unwrap();
    assert!(report.total.served > 1_000 && report.seconds < 60.0, "{:?}", report.total);
    let page = insula_load::html::page(&report);
    assert!(
        page.contains("<polyline") && !page.contains("http://") && !page.contains("<script"),
        "a page that needs nothing else"
    );
}
