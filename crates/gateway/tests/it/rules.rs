//! What a request must pass, and what its application is told of it.

use std::sync::atomic::Ordering;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use insula_catalog::row::TenantRow;
use insula_catalog::{FakeSource, fake};
use insula_core::keys::Secret;
use insula_core::placement::MoveState;
use insula_core::token::{self, ContextKey, ContextKeys};

use crate::stage::{LONG, Wire, app, config, echo, get, nobody, ok, start, status};

pub(crate) fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

pub(crate) fn keys() -> ContextKeys {
    ContextKeys::new([(0, ContextKey::new(Secret::random().unwrap()).unwrap())]).unwrap()
}

/// The signed context in what an application shows.
pub(crate) fn context(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("insula-tenant-context: ")).unwrap_or_else(|| panic!("no context: {answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn upstream_is_told_whose_request_it_is_by_a_signature() {
    let (main, second) = (echo("main").await, echo("second").await);
    let file = tempfile::NamedTempFile::new().unwrap();
    let first = keys();
    std::fs::write(file.path(), first.to_json()).unwrap();
    let mut config = config();
    config.identity.signing_keys = Some(file.path().to_owned());
    let stage = start(config, main.addr, second.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    let answer = client.ask(&get("acme.localhost", "/")).await;
    let claims = token::verify(context(&answer), &first.public(), token::GATEWAY, "insula-app:main", now()).unwrap();
    assert_eq!((claims.slug.as_str(), claims.tno.get(), claims.epoch), ("acme", 1, 1));
    let answer = client.ask(&get("globex.localhost", "/")).await;
    assert!(token::verify(context(&answer), &first.public(), token::GATEWAY, "insula-app:main", now()).is_err());
    assert!(token::verify(context(&answer), &first.public(), token::GATEWAY, "insula-app:second", now()).is_ok());

    // Other keys, while it runs: whoever has no token yet gets one by the new key.
    let next = keys();
    std::fs::write(file.path(), next.to_json()).unwrap();
    let deadline = tokio::time::Instant::now() + LONG;
    for n in 10.. {
        let slug = format!("fresh-{n}");
        stage.source.change(|content| content.put_tenant(fake::tenant(&slug, n, "bronze", "main").unwrap()));
        let answer = client.ask(&get(&format!("{slug}.localhost"), "/")).await;
        if token::verify(context(&answer), &next.public(), token::GATEWAY, "insula-app:main", now()).is_ok() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the new keys are not used");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_that_disagree_and_keys_that_do_not_hold_are_refused() {
    let main = echo("main").await;
    let stage = start(config(), main.addr, main.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    let with = |field: &str| format!("GET / HTTP/1.1\r\nhost: acme.localhost\r\n{field}\r\n\r\n");
    assert_eq!(status(&client.ask(&with("x-insula-tenant: acme")).await), 200);
    assert_eq!(status(&client.ask(&with("x-insula-tenant: globex")).await), 403);
    let answer = client.ask(&with(&format!("authorization: Bearer ik_{}", "0".repeat(64)))).await;
    assert_eq!(status(&answer), 401);
    assert!(answer.contains("www-authenticate: Bearer "), "{answer}");
    // The application's own sessions pass.
    let answer = client.ask(&with("authorization: Bearer opaque-session")).await;
    assert!(status(&answer) == 200 && answer.contains("authorization: Bearer opaque-session"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_above_its_rate_is_told_so_and_others_are_not() {
    let main = echo("main").await;
    let stage = start(config(), main.addr, main.addr).await;
    stage.source.change(|content| {
        let mut tenant = fake::tenant("slow", 9, "bronze", "main").unwrap();
        tenant.limits = serde_json::from_str(r#"{"requests_per_second": 1, "request_burst": 3}"#).unwrap();
        content.put_tenant(tenant);
    });
    let mut client = Wire::connect(stage.addr).await;
    let began = std::time::Instant::now();
    let (mut passed, mut refused) = (0, 0);
    while refused < 2 {
        let answer = client.ask(&get("slow.localhost", "/")).await;
        assert_eq!(status(&answer) == 429, answer.contains("ratelimit-policy: "), "{answer}");
        match status(&answer) {
            200 => passed += 1,
            429 => refused += 1,
            _ => panic!("{answer}"),
        }
        assert!(began.elapsed() < LONG, "{passed} passed");
    }
    // The burst, and one for each second that it took, as a coarse clock counts them.
    let most = 3 + (began.elapsed() + std::time::Duration::from_millis(50)).as_secs();
    assert!((3..=most).contains(&passed), "{passed} passed, {most} at most");
    assert_eq!(status(&client.ask(&get("acme.localhost", "/")).await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_applications_the_one_that_is_away_is_left_out() {
    let (one, two) = (echo("one").await, echo("two").await);
    let gone = nobody();
    let stage = start(config(), one.addr, one.addr).await;
    stage.source.change(|content| {
        let mut cell = fake::cell("wide", "127.0.0.1", 1).unwrap();
        cell.app_url = Some(format!("http://{}, http://{} http://{}", gone.addr, one.addr, two.addr).into());
        content.put_cell(cell);
        content.put_database(fake::database("wide", "insula_pool", 1).unwrap());
        content.put_tenant(fake::tenant("wide", 7, "bronze", "wide").unwrap());
    });
    let mut client = Wire::connect(stage.addr).await;
    let (mut ones, mut twos) = (0, 0);
    for _ in 0..60 {
        let answer = client.ask(&get("wide.localhost", "/")).await;
        assert_eq!(status(&answer), 200, "{answer}");
        if answer.contains("\r\n\r\none\n") { ones += 1 } else { twos += 1 }
    }
    assert!(ones > 20 && twos > 20, "{ones} and {twos}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_have_been_done_is_not_done_twice() {
    // Answers the first request of each connection and breaks off in the second.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let posts = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&posts);
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut wire = Wire::new(stream);
            for n in 0..2 {
                let Some(request) = wire.message().await else { break };
                count.fetch_add(usize::from(request.starts_with("POST")), Ordering::SeqCst);
                if n == 0 {
                    wire.send(&ok("fine")).await;
                }
            }
        }
    });
    let stage = start(config(), addr, addr).await;
    let mut client = Wire::connect(stage.addr).await;
    for _ in 0..5 {
        assert_eq!(status(&client.ask(&get("acme.localhost", "/")).await), 200);
    }
    let post = "POST / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 2\r\n\r\nhi";
    assert_eq!(status(&client.ask(post).await), 503);
    assert_eq!(posts.load(Ordering::SeqCst), 1);
    serving.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_that_is_gone_costs_its_tenants_no_time_and_others_nothing() {
    let main = app(|_| ok("fine")).await;
    let gone = nobody();
    let stage = start(config(), main.addr, gone.addr).await;
    let mut client = Wire::connect(stage.addr).await;
    let began = std::time::Instant::now();
    for n in 0..100 {
        assert_eq!(status(&client.ask(&get("globex.localhost", "/")).await), 503, "request {n}");
        assert_eq!(status(&client.ask(&get("acme.localhost", "/")).await), if n < 100 { 200 } else { 429 });
    }
    // Had each waited as long as connecting may take, it were a hundred seconds.
    assert!(began.elapsed() < LONG * 2, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn at_cutover_writes_wait_for_the_new_place_and_reads_do_not() {
    let (main, second) = (echo("main").await, echo("second").await);
    let mut config = config();
    config.moves.held_per_tenant = 3;
    // Far beyond this test's patience.
    config.moves.hold_ms = 600_000;
    let stage = start(config, main.addr, second.addr).await;
    let place = |cell: &str, epoch, state| {
        let id = stage.tenant("acme").id;
        stage.source.change(|content| {
            let mut tenant = fake::tenant("acme", 1, "bronze", cell).unwrap();
            tenant.id = id;
            tenant.placement.epoch = epoch;
            tenant.placement.state = state;
            content.put_tenant(tenant);
        });
    };
    let write = "PUT / HTTP/1.1\r\nhost: acme.localhost\r\ncontent-length: 2\r\n\r\nhi";
    let mut client = Wire::connect(stage.addr).await;
    place("main", 1, MoveState::Migrating);
    stage.seen(|route| route.placement.state == MoveState::Migrating).await;
    assert!(client.ask(write).await.contains("\r\n\r\nmain\n"));
    place("main", 1, MoveState::Cutover);
    stage.seen(|route| route.placement.state == MoveState::Cutover).await;
    let mut waiting = Vec::new();
    for _ in 0..3 {
        let mut held = Wire::connect(stage.addr).await;
        held.send(write).await;
        waiting.push(held);
    }
    // Reads go on; the buffer is full when a fourth write is refused, so that the three before it are in it.
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        let mut other = Wire::connect(stage.addr).await;
        other.send(write).await;
        match tokio::time::timeout(std::time::Duration::from_millis(200), other.message()).await {
            Ok(answer) => {
                let answer = answer.unwrap();
                assert!(status(&answer) == 503 && answer.contains("retry-after"), "{answer}");
                break;
            }
            Err(_) => assert!(tokio::time::Instant::now() < deadline, "the buffer is never full"),
        }
    }
    assert!(client.ask(&get("acme.localhost", "/")).await.contains("\r\n\r\nmain\n"));
    place("second", 2, MoveState::Active);
    for held in &mut waiting {
        let answer = held.message().await.unwrap();
        assert!(answer.contains("\r\n\r\nsecond\n"), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_is_held_for_too_long_is_told_so() {
    let main = echo("main").await;
    let mut config = config();
    config.moves.hold_ms = 200;
    let stage = start(config, main.addr, main.addr).await;
    move_to(&stage.source, &fake::tenant("moving", 5, "bronze", "main").unwrap(), MoveState::Cutover);
    let mut client = Wire::connect(stage.addr).await;
    let answer = client.ask(&put("moving.localhost")).await;
    assert!(status(&answer) == 503 && answer.contains("retry-after: ") && answer.contains("longer than it should"), "{answer}");
    assert_eq!(main.connections.load(Ordering::SeqCst), 0, "it was not sent");
    assert_eq!(status(&client.ask(&get("moving.localhost", "/")).await), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_tenants_together_may_hold_so_many_writes() {
    let main = echo("main").await;
    let mut config = config();
    // Far beyond this test's patience.
    config.moves.hold_ms = 600_000;
    config.moves.held = 2;
    let stage = start(config, main.addr, main.addr).await;
    let tenants = [("one", 5), ("two", 6)].map(|(slug, no)| fake::tenant(slug, no, "bronze", "main").unwrap());
    tenants.iter().for_each(|tenant| move_to(&stage.source, tenant, MoveState::Cutover));
    let ask = async |host: &str| {
        let mut client = Wire::connect(stage.addr).await;
        client.ask(&put(host)).await
    };
    let hosts = ["one.localhost", "two.localhost", "one.localhost", "two.localhost"];
    let mut asking: FuturesUnordered<_> = hosts.into_iter().map(&ask).collect();
    // Neither has more than it may have for itself.
    for _ in 0..2 {
        let answer = asking.next().await.unwrap();
        assert!(status(&answer) == 503 && answer.contains("retry-after: ") && !answer.contains("longer"), "{answer}");
    }
    tenants.iter().for_each(|tenant| move_to(&stage.source, tenant, MoveState::Active));
    for _ in 0..2 {
        assert_eq!(status(&asking.next().await.unwrap()), 200);
    }
}

fn put(host: &str) -> String {
    format!("PUT / HTTP/1.1\r\nhost: {host}\r\ncontent-length: 2\r\n\r\nhi")
}

/// Puts a tenant at this point of its move.
fn move_to(source: &FakeSource, tenant: &TenantRow, state: MoveState) {
    let mut tenant = tenant.clone();
    tenant.placement.state = state;
    source.change(|content| content.put_tenant(tenant));
}
