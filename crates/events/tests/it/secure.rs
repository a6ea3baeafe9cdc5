//! A NATS server that speaks TLS: who vouches for it is believed, nobody else, and what was asked for in TLS is never said in the clear.

use std::path::Path;

use insula_events::{Nats, NatsConfig};
use insula_testkit::{Authority, TestNats};

fn with_tls(authority: &Authority, files: &Path) -> TestNats {
    let (certificate, key) = authority.vouch("localhost");
    let (certificate_file, key_file) = (files.join("server.crt"), files.join("server.key"));
    std::fs::write(&certificate_file, certificate).expect("written");
    std::fs::write(&key_file, key).expect("written");
    TestNats::with(&format!("tls {{ cert_file: \"{}\", key_file: \"{}\" }}", certificate_file.display(), key_file.display()))
}

/// Whether the streams could be made there.
async fn serves(url: &str, authorities: Option<&Path>) -> bool {
    serves_within(1, url, authorities).await
}

/// The same for one that may take its time to begin: asked so many times.
async fn serves_within(times: usize, url: &str, authorities: Option<&Path>) -> bool {
    let config = NatsConfig { url: url.to_owned(), authorities: authorities.map(Path::to_owned), ..NatsConfig::default() };
    let nats = Nats::connect(&config).await.expect("settings that make sense");
    let mut serves = false;
    for _ in 0..times {
        serves = serves || nats.prepare().await.is_ok();
    }
    assert_eq!(nats.is_connected(), serves);
    serves
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_server_that_is_vouched_for_is_told_anything() {
    let (authority, stranger, files) = (Authority::new(), Authority::new(), tempfile::tempdir().expect("a folder"));
    let (secure, clear) = (with_tls(&authority, files.path()), TestNats::start());
    let by_name = |nats: &TestNats, scheme: &str| nats.url().replace("nats://127.0.0.1", &format!("{scheme}://localhost"));
    let (vouched, other, nobody, downgraded, wrong_name) = tokio::join!(
        // A server that wants TLS gets it, whatever the scheme says.
        async {
            (
                serves_within(5, &by_name(&secure, "tls"), Some(authority.file())).await,
                serves_within(5, &by_name(&secure, "nats"), Some(authority.file())).await,
            )
        },
        async { serves(&by_name(&secure, "tls"), Some(stranger.file())).await },
        async { serves(&by_name(&secure, "tls"), None).await },
        async { serves(&by_name(&clear, "tls"), Some(authority.file())).await },
        async { serves(&secure.url().replace("nats", "tls"), Some(authority.file())).await },
    );
    assert_eq!(vouched, (true, true));
    assert!(!other, "another authority's word counted");
    assert!(!nobody, "a server was believed that nobody vouched for");
    assert!(!downgraded, "TLS was asked for, and the clear was spoken");
    assert!(!wrong_name, "a certificate for another name was believed");
}
