//! Two processes, one server.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use insula_cache::{Cache, Resource};

use crate::server::Server;
use crate::{TEXTS, Town, ask, process, until};

/// Waits until both processes hear each other and use the server.
async fn together(town: &Town, one: &Cache, two: &Cache) {
    let acme = town.route("acme");
    let serial = AtomicU64::new(1_000);
    until("the processes meet", async || {
        let key = serial.fetch_add(1, Ordering::SeqCst);
        ask(one.of(&acme), key, "one's").await;
        until_kept().await;
        if ask(two.of(&acme), key, "two's").await != "one's" {
            return false;
        }
        one.of(&acme).forget(&TEXTS, &key);
        let deadline = Instant::now() + Duration::from_millis(300);
        while Instant::now() < deadline {
            if two.of(&acme).get(&TEXTS, &key).is_none() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        false
    })
    .await;
}

/// Time for what is on its way to the server, and perhaps should not be, to arrive.
async fn until_kept() {
    tokio::time::sleep(Duration::from_millis(20)).await;
}

#[tokio::test]
async fn what_one_loads_the_other_has_and_what_one_forgets_the_other_forgets() {
    let (server, town) = (Server::fresh(), Town::new(1 << 20).await);
    let (one, two) = (process(&server.url()), process(&server.url()));
    together(&town, &one, &two).await;
    let (acme, globex) = (town.route("acme"), town.route("globex"));
    let forgets: [&dyn Fn(); 3] =
        [&|| one.of(&acme).forget(&TEXTS, &1), &|| one.of(&acme).forget_all(&TEXTS), &|| one.of(&acme).forget_everything()];
    for each in [&one, &two] {
        ask(each.of(&globex), 1, "globex's").await;
    }
    for (n, forget) in forgets.into_iter().enumerate() {
        let (old, new) = (format!("old {n}"), format!("new {n}"));
        one.of(&acme).forget_everything();
        until("the old one is seen by both", async || {
            ask(one.of(&acme), 1, &old).await == old && ask(two.of(&acme), 1, &old).await == old
        })
        .await;
        assert_eq!(ask(two.of(&globex), 1, "not globex's").await, "globex's", "another tenant's is its own");
        forget();
        // Here at once, whatever the server still has.
        assert_eq!(ask(one.of(&acme), 1, &new).await, new);
        until("the other forgets", async || ask(two.of(&acme), 1, &new).await == new).await;
    }
}

#[tokio::test]
async fn a_value_that_was_loaded_before_something_was_forgotten_is_not_kept_for_others() {
    let (server, town) = (Server::fresh(), Town::new(1 << 20).await);
    let (one, two) = (process(&server.url()), process(&server.url()));
    together(&town, &one, &two).await;
    let acme = town.route("acme");
    for (n, whole) in [(1, false), (2, true)] {
        let witness = 100 + n;
        until("the witness is known", async || {
            ask(one.of(&acme), witness, "seen").await;
            one.of(&acme).get(&TEXTS, &witness).is_some()
        })
        .await;
        let slow = one.of(&acme).get_or_load(&TEXTS, &n, async || {
            // The truth changes while this one has read the old.
            if whole {
                two.of(&acme).forget_all(&TEXTS)
            } else {
                two.of(&acme).forget(&TEXTS, &n)
            }
            // Whoever hears the second notice has heard the first.
            two.of(&acme).forget(&TEXTS, &witness);
            until("the change is heard of", async || one.of(&acme).get(&TEXTS, &witness).is_none()).await;
            Ok::<_, Infallible>("old".to_owned())
        });
        assert_eq!(*slow.await.unwrap(), "old");
        until_kept().await;
        // Neither in its own memory, nor in what both share.
        assert_eq!(ask(one.of(&acme), n, "new").await, "new");
        assert_eq!(ask(two.of(&acme), n, "new").await, "new");
    }
}

#[tokio::test]
async fn a_tenants_part_of_the_server_is_its_quota() {
    const PAGES: Resource<u64, String> = Resource::new("pages");
    let (server, town) = (Server::fresh(), Town::new(20_000).await);
    let (one, two) = (process(&server.url()), process(&server.url()));
    together(&town, &one, &two).await;
    let acme = town.route("acme");
    for key in 0..200u64 {
        one.of(&acme).get_or_load(&PAGES, &key, async || Ok::<_, Infallible>("x".repeat(500))).await.unwrap();
    }
    let own = format!("insula:{{test:{}}}", acme.id);
    let mut connection = server.connection().await;
    let mut sizes: Vec<u64> = Vec::new();
    until("the quota is used", async || {
        sizes = redis::cmd("HVALS").arg(format!("{own}:s")).query_async(&mut connection).await.unwrap();
        sizes.iter().max().is_some_and(|most| *most > 15_000)
    })
    .await;
    let (sum, largest) = (sizes.iter().sum::<u64>(), sizes.iter().max().copied().unwrap());
    assert_eq!(sum, 2 * largest, "the sum stands beside the sizes");
    assert!(largest <= 20_000, "{sizes:?}");
    let values: Vec<Vec<u8>> = redis::cmd("KEYS").arg(format!("{own}:v:*:5:pages:*")).query_async(&mut connection).await.unwrap();
    assert!(values.len() < 30 && values.len() > 10, "{}", values.len());
    // Without an end there is nothing.
    let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
    for key in keys {
        let ttl: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut connection).await.unwrap();
        // Those that made room for others meanwhile are gone (-2).
        assert!(ttl > 0 || ttl == -2, "{} has no end", String::from_utf8_lossy(&key));
    }
}

/// Numbers are an installation's, and a catalog that was restored gives them again.
#[tokio::test]
async fn another_tenant_of_the_same_number_is_shown_nothing() {
    let server = Server::fresh();
    let (here, there) = (Town::new(1 << 20).await, Town::new(1 << 20).await);
    let (one, two) = (process(&server.url()), process(&server.url()));
    together(&here, &one, &two).await;
    let (ours, theirs) = (here.route("acme"), there.route("acme"));
    assert!(ours.no == theirs.no && ours.placement.epoch == theirs.placement.epoch && ours.id != theirs.id);
    let mut key = 0;
    until("ours is on the server", async || {
        key += 1;
        ask(one.of(&ours), key, "ours").await;
        until_kept().await;
        one.forget_everything();
        ask(one.of(&ours), key, "loaded anew").await == "ours"
    })
    .await;
    assert_eq!(ask(two.of(&theirs), key, "theirs").await, "theirs");
}

/// What one forgets is told by the tenant's id: who has another tenant of that number keeps what it has.
#[tokio::test]
async fn another_tenant_of_the_same_number_is_not_forgotten() {
    let server = Server::fresh();
    let (here, there) = (Town::new(1 << 20).await, Town::new(1 << 20).await);
    let [one, neighbour, two, three] = [(); 4].map(|()| process(&server.url()));
    together(&here, &one, &neighbour).await;
    together(&there, &three, &two).await;
    let (ours, theirs) = (here.route("acme"), there.route("acme"));
    assert!(ours.no == theirs.no && ours.id != theirs.id);
    let forgets: [&dyn Fn(); 3] =
        [&|| one.of(&ours).forget(&TEXTS, &1), &|| one.of(&ours).forget_all(&TEXTS), &|| one.of(&ours).forget_everything()];
    for (n, forget) in forgets.into_iter().enumerate() {
        let last = 100 + n as u64;
        for key in [1, last] {
            assert_eq!(ask(two.of(&theirs), key, "theirs").await, "theirs");
        }
        // Whoever hears the second notice has heard the first.
        let mut bus = server.bus("insula:test:forgotten").await;
        forget();
        bus.on_message().next().await.expect("the notice");
        three.of(&theirs).forget(&TEXTS, &last);
        until("theirs is forgotten", async || two.of(&theirs).get(&TEXTS, &last).is_none()).await;
        let kept = two.of(&theirs).get(&TEXTS, &1).flatten();
        assert_eq!(kept.as_deref().map(String::as_str), Some("theirs"), "what was forgotten was another's");
    }
}

#[tokio::test]
async fn a_tenant_that_was_moved_or_restored_begins_anew() {
    let (server, town) = (Server::fresh(), Town::new(1 << 20).await);
    let (one, two) = (process(&server.url()), process(&server.url()));
    together(&town, &one, &two).await;
    let before = town.route("acme");
    assert_eq!(ask(one.of(&before), 1, "old").await, "old");
    town.next_epoch("acme").await;
    let after = town.route("acme");
    // Neither level has it any more, in either process; another tenant's is as it was.
    assert_eq!(ask(two.of(&after), 1, "new").await, "new");
    until("the other has it from the second level", async || ask(one.of(&after), 1, "new").await == "new").await;
    assert_eq!(one.of(&before).get(&TEXTS, &1).flatten().as_deref().map(String::as_str), Some("new"));
}

/// The server is killed, and what one process forgets meanwhile is not heard; when it is back, the other does not show it.
#[tokio::test]
async fn a_gap_is_not_missed() {
    let (server, town) = (Server::fresh(), Town::new(1 << 20).await);
    let (one, two) = (process(&server.url()), process(&server.url()));
    together(&town, &one, &two).await;
    let acme = town.route("acme");
    assert_eq!(ask(two.of(&acme), 1, "old").await, "old");
    let port = server.kill();
    one.of(&acme).forget(&TEXTS, &1);
    // Without the server both go on, and do not wait for it.
    assert_eq!(ask(one.of(&acme), 1, "new").await, "new");
    until("the other notices that it hears nothing", async || two.of(&acme).get(&TEXTS, &1).is_none()).await;
    let mut waited = Duration::ZERO;
    for key in 0..200 {
        let began = Instant::now();
        ask(two.of(&acme), 10_000 + key, "loaded").await;
        waited += began.elapsed();
    }
    // If each had waited for an answer, it were twenty.
    assert!(waited < Duration::from_secs(10), "{waited:?} for 200 loads without a server");
    let server = Server::start(port);
    together(&town, &one, &two).await;
    assert_eq!(ask(two.of(&acme), 1, "new").await, "new");
    drop(server);
}

/// A server that hangs, with its connections open: silence is a gap as well.
#[tokio::test]
async fn silence_is_a_gap() {
    let (server, town) = (Server::fresh(), Town::new(1 << 20).await);
    let (one, two) = (process(&server.url()), process(&server.url()));
    together(&town, &one, &two).await;
    let acme = town.route("acme");
    assert_eq!(ask(two.of(&acme), 1, "old").await, "old");
    server.signal("-STOP");
    one.of(&acme).forget_everything();
    until("the silence is noticed", async || two.of(&acme).get(&TEXTS, &1).is_none()).await;
    server.signal("-CONT");
    together(&town, &one, &two).await;
    assert_eq!(ask(two.of(&acme), 1, "new").await, "new");
}

/// One process changes the truth and forgets, again and again; readers in another read nothing that never was, and come to the newest.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_elsewhere_come_to_the_newest() {
    let (server, town) = (Server::fresh(), Town::new(1 << 20).await);
    let (one, two) = (process(&server.url()), process(&server.url()));
    together(&town, &one, &two).await;
    let acme = town.route("acme").arc();
    let (truth, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (cache, acme, truth, done) = (two.clone(), acme.clone(), truth.clone(), done.clone());
            tokio::spawn(async move {
                while done.load(Ordering::SeqCst) == 0 {
                    let read = cache.of(&acme).get_or_load(&TEXTS, &1, async || {
                        let seen = truth.load(Ordering::SeqCst);
                        tokio::task::yield_now().await;
                        Ok::<_, Infallible>(seen.to_string())
                    });
                    let read: u64 = read.await.unwrap().parse().unwrap();
                    assert!(read <= truth.load(Ordering::SeqCst));
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for change in 1..=500 {
        truth.store(change, Ordering::SeqCst);
        if change % 2 == 0 {
            one.of(&acme).forget(&TEXTS, &1)
        } else {
            one.of(&acme).forget_all(&TEXTS)
        }
        ask(one.of(&acme), 1, &change.to_string()).await;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // What it has, or else the newest: the readers must find nothing else there.
    until("the newest is seen", async || ask(two.of(&acme), 1, "500").await == "500").await;
    done.store(1, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
}
