//! What the admin port says of a gateway that begins, and of one that ends.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use insula_gateway::Listeners;
use insula_telemetry::Shutdown;

use crate::stage::{LONG, config, nobody};

/// The first line of the answer; `None` when nobody is there.
fn asked(admin: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.lines().next().map(str::to_owned)
}

/// One that knows no tenant is ready at no moment: not while it begins, and not while it goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_without_a_catalog_is_never_ready() {
    let gone = nobody();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("edge.key"), "ik_edge\n").unwrap();
    let mut config = config();
    config.catalog.control_url = Some(format!("http://{}", gone.addr));
    config.catalog.key_file = Some(folder.path().join("edge.key"));
    config.listen.admin = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap();
    let (admin, shutdown) = (config.listen.admin, Shutdown::new(Duration::from_secs(1)));
    let asking = std::thread::spawn({
        let shutdown = shutdown.clone();
        move || {
            let (began, mut answers) = (Instant::now(), Vec::new());
            while began.elapsed() < LONG {
                match asked(admin) {
                    Some(answer) => answers.push(answer),
                    // It was there, and is gone.
                    None if answers.len() >= 50 => break,
                    None => {}
                }
                if answers.len() == 50 {
                    shutdown.trigger();
                }
            }
            answers
        }
    });
    let listeners = Listeners::bind(&config.listen).unwrap();
    let running = tokio::spawn(insula_gateway::run(config, listeners, shutdown));
    let answers = tokio::task::spawn_blocking(|| asking.join().unwrap()).await.unwrap();
    tokio::time::timeout(LONG, running).await.unwrap().unwrap().unwrap();
    assert!(answers.len() >= 50, "{} answers", answers.len());
    assert!(answers.iter().all(|answer| answer.contains(" 503 ")), "{answers:?}");
}
