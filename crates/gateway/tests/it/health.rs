//! Applications side by side of which one is not well, by its own word.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use insula_catalog::fake;

use crate::stage::{App, LONG, Wire, app, config, get, ok, start, status};

/// Answers every request; its health is as it is told. Counts what is no check.
async fn with_health() -> (App, Arc<AtomicBool>, Arc<AtomicUsize>) {
    let (is_well, served) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let (well, count) = (Arc::clone(&is_well), Arc::clone(&served));
    let app = app(move |request| {
        if !request.starts_with("GET /healthz ") {
            count.fetch_add(1, Ordering::SeqCst);
            return ok("served");
        }
        if well.load(Ordering::SeqCst) { ok("well") } else { "HTTP/1.1 503 Sick\r\ncontent-length: 0\r\n\r\n".to_owned() }
    })
    .await;
    (app, is_well, served)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_calls_itself_sick_gets_no_requests_until_it_is_well() {
    let (one, one_is_well, at_one) = with_health().await;
    let (two, _, at_two) = with_health().await;
    let mut config = config();
    // As often as there is: a worker that never came to an end of it would serve nobody.
    config.upstream.health_every_ms = 0;
    let stage = start(config, one.addr, one.addr).await;
    stage.source.change(|content| {
        let mut cell = fake::cell("wide", "127.0.0.1", 1).unwrap();
        cell.app_url = Some(format!("http://{} http://{}", one.addr, two.addr).into());
        content.put_cell(cell);
        content.put_database(fake::database("wide", "insula_pool", 1).unwrap());
        content.put_tenant(fake::tenant("wide", 7, "gold", "wide").unwrap());
    });
    let mut client = Wire::connect(stage.addr).await;
    // How many of some requests the first one got; all are answered.
    let mut share = async || {
        let before = (at_one.load(Ordering::SeqCst), at_two.load(Ordering::SeqCst));
        for _ in 0..20 {
            assert_eq!(status(&client.ask(&get("wide.localhost", "/")).await), 200);
        }
        let (one, two) = (at_one.load(Ordering::SeqCst) - before.0, at_two.load(Ordering::SeqCst) - before.1);
        assert_eq!(one + two, 20, "each request reached one application");
        one
    };
    assert_eq!(share().await, 10, "by turns");
    let mut becomes = async |is_well: bool, wanted: usize| {
        one_is_well.store(is_well, Ordering::SeqCst);
        let deadline = tokio::time::Instant::now() + LONG;
        while share().await != wanted {
            assert!(tokio::time::Instant::now() < deadline, "never {wanted} of 20");
        }
    };
    becomes(false, 0).await;
    becomes(false, 0).await;
    becomes(true, 10).await;
}
