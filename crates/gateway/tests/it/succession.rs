//! A new gateway takes over from an old one, under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::stage::{LONG, Wire, config, echo, get, start, status};

/// Asks again and again, on a connection that it opens anew only when it is told to.
async fn load(to: std::net::SocketAddr, stop: Arc<AtomicBool>, done: Arc<AtomicUsize>) -> usize {
    let mut failed = 0;
    let mut client = Wire::connect(to).await;
    while !stop.load(Ordering::Relaxed) {
        client.send(&get("acme.localhost", "/")).await;
        let Some(answer) = client.message().await else {
            failed += 1;
            client = Wire::connect(to).await;
            continue;
        };
        failed += usize::from(status(&answer) != 200);
        done.fetch_add(1, Ordering::Relaxed);
        if answer.contains("connection: close\r\n") {
            client = Wire::connect(to).await;
        }
    }
    failed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_notices_a_restart() {
    let main = echo("main").await;
    let folder = tempfile::tempdir().unwrap();
    let mut config = config();
    config.listen.workers = 2;
    // Whoever has to wait for the cell waits: what fails here is to be the restart's.
    config.admission.max_wait_ms = 15_000;
    config.listen.succession = Some(folder.path().join("gateway.sock"));
    let first = start(config.clone(), main.addr, main.addr).await;
    // More connections than the plan's default rate needs to be for.
    first.unlimited("acme");
    config.listen.http = vec![first.addr];
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..16).map(|_| tokio::spawn(load(first.addr, Arc::clone(&stop), Arc::clone(&done)))).collect();
    let mut running = first.running;
    for generation in 0..3 {
        progress(&done, 500).await;
        // Other numbers of workers, too: every socket finds somebody who accepts.
        config.listen.workers = [1, 3, 2][generation];
        let next = loop {
            // The meeting place is there a moment after the gateway serves.
            if config.listen.succession.as_ref().is_some_and(|path| path.exists()) {
                break start(config.clone(), main.addr, main.addr).await;
            }
            tokio::task::yield_now().await;
        };
        next.unlimited("acme");
        assert_eq!(next.addr, first.addr);
        tokio::time::timeout(LONG, running).await.expect("the old one ends").unwrap().unwrap();
        running = next.running;
    }
    progress(&done, 500).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(client.await.unwrap(), 0, "failed requests");
    }
}

async fn progress(done: &AtomicUsize, more: usize) {
    let goal = done.load(Ordering::Relaxed) + more;
    let deadline = tokio::time::Instant::now() + LONG;
    while done.load(Ordering::Relaxed) < goal {
        assert!(tokio::time::Instant::now() < deadline, "no progress");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
