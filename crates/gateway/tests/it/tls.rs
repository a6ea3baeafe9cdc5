//! TLS: certificates by name, picked up while connections go on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use insula_core::CertificateKey;

use crate::stage::{LONG, Wire, app, config, echo, get, start, status};

/// Writes a pair; returns the certificate, for a client to trust.
pub(crate) fn write(folder: &Path, file: &str, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.join(format!("{file}.key")), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join(format!("{file}.crt")), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

pub(crate) async fn connect(
    to: SocketAddr,
    name: &str,
    trusted: &CertificateDer<'static>,
    alpn: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut client = builder.with_root_certificates(roots).with_no_client_auth();
    client.alpn_protocols = vec![alpn.to_vec()];
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(client)).connect(name, TcpStream::connect(to).await?).await
}

/// One request on an open connection, which is served.
pub(crate) async fn ask(stream: &mut TlsStream<TcpStream>, host: &str) -> String {
    let answer = Wire::new(stream).ask(&get(host, "/")).await;
    assert_eq!(status(&answer), 200, "{answer}");
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_chosen_by_name_and_replaced_under_way() {
    let main = echo("main").await;
    let folder = tempfile::tempdir().unwrap();
    let acme = write(folder.path(), "acme.localhost", "acme.localhost");
    let mut config = config();
    config.listen.https = std::mem::take(&mut config.listen.http);
    config.tls.certificates = Some(folder.path().to_owned());
    let stage = start(config, main.addr, main.addr).await;

    let mut first = connect(stage.addr, "acme.localhost", &acme, b"http/1.1").await.unwrap();
    let answer = ask(&mut first, "acme.localhost").await;
    assert!(answer.contains("x-forwarded-proto: https\r\n"), "{answer}");
    assert!(connect(stage.addr, "other.localhost", &acme, b"http/1.1").await.is_err(), "a name without a certificate");
    let second = connect(stage.addr, "acme.localhost", &acme, b"h2").await.unwrap();
    assert_eq!(second.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));

    let renewed = write(folder.path(), "acme.localhost", "acme.localhost");
    // The folder is looked at each second, on a disk that may have much to do.
    let deadline = tokio::time::Instant::now() + LONG * 3;
    let mut third = loop {
        match connect(stage.addr, "acme.localhost", &renewed, b"http/1.1").await {
            Ok(stream) => break stream,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    ask(&mut third, "acme.localhost").await;
    // The connection of before goes on.
    ask(&mut first, "acme.localhost").await;

    // Draining over TLS: a request that crosses with the stop is answered, and told that it was the last.
    stage.shutdown.trigger();
    assert!(ask(&mut first, "acme.localhost").await.contains("connection: close\r\n"));
    drop((second, third));
    tokio::time::timeout(LONG, stage.running).await.unwrap().unwrap().unwrap();
}

/// A control plane that has these certificates, sealed, and says so when they are asked for.
async fn control(holds: Arc<Mutex<String>>) -> SocketAddr {
    let answer = move |request: &str| {
        assert!(
            request.starts_with("GET /v1/catalog/certificates HTTP/1.1\r\n") && request.contains("Bearer ik_edge"),
            "{request}"
        );
        let body = holds.lock().unwrap().clone();
        let etag = format!("\"{}\"", body.len());
        if request.contains(&format!("if-none-match: {etag}\r\n")) {
            return format!("HTTP/1.1 304 Not Modified\r\netag: {etag}\r\n\r\n");
        }
        format!("HTTP/1.1 200 OK\r\netag: {etag}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    app(answer).await.addr
}

/// Ends TLS before an HTTP server; counts who did not believe the certificate.
async fn behind_tls(to: SocketAddr, made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> (u16, Arc<AtomicUsize>) {
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let server = builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, refused) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&refused);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
            tokio::spawn(async move {
                match acceptor.accept(stream).await {
                    Ok(mut inside) => {
                        let mut outside = TcpStream::connect(to).await.unwrap();
                        tokio::io::copy_bidirectional(&mut inside, &mut outside).await.ok();
                    }
                    Err(_) => drop(count.fetch_add(1, Ordering::SeqCst)),
                }
            });
        }
    });
    (port, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_behind_tls_is_believed_by_the_authority_that_is_named() {
    let main = echo("main").await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let secret = "7b".repeat(32);
    let made = rcgen::generate_simple_self_signed(["acme.localhost".to_owned()]).unwrap();
    let sealed = CertificateKey::from_hex(&secret).unwrap();
    let sealed = STANDARD.encode(sealed.seal("acme.localhost", made.signing_key.serialize_pem().as_bytes()).unwrap());
    let item = serde_json::json!({"name": "acme.localhost", "chain": made.cert.pem(), "sealed_key": sealed});
    let holds = Arc::new(Mutex::new(serde_json::json!({"items": [item]}).to_string()));
    let [own, foreign] = [(); 2].map(|()| rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap());
    let (port, refused) = behind_tls(control(holds).await, &own).await;
    let settings = |authority: Option<&str>| {
        let mut config = config();
        config.listen.https = std::mem::take(&mut config.listen.http);
        config.catalog.control_url = Some(format!("https://localhost:{port}"));
        config.catalog.key_file = Some(file("edge.key", "ik_edge\n"));
        config.catalog.control_authorities = authority.map(|pem| file("authorities.pem", pem));
        config.tls.catalog_key_file = Some(file("certificates.key", &secret));
        config
    };
    let trusted = made.cert.der().clone();
    // Neither those of the web nor another one vouch for it.
    for authority in [None, Some(foreign.cert.pem())] {
        refused.store(0, Ordering::SeqCst);
        let stage = start(settings(authority.as_deref()), main.addr, main.addr).await;
        let deadline = tokio::time::Instant::now() + LONG;
        while refused.load(Ordering::SeqCst) < 2 {
            assert!(tokio::time::Instant::now() < deadline);
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert!(connect(stage.addr, "acme.localhost", &trusted, b"http/1.1").await.is_err(), "it was believed");
        stage.shutdown.trigger();
        tokio::time::timeout(LONG, stage.running).await.unwrap().unwrap().unwrap();
    }
    let stage = start(settings(Some(&own.cert.pem())), main.addr, main.addr).await;
    let deadline = tokio::time::Instant::now() + LONG;
    while connect(stage.addr, "acme.localhost", &trusted, b"http/1.1").await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "its certificates never came");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_the_catalog_come_sealed_and_outlast_the_control_plane() {
    let main = echo("main").await;
    let folder = tempfile::tempdir().unwrap();
    let secret = "7b".repeat(32);
    let key = CertificateKey::from_hex(&secret).unwrap();
    let names = ["acme.localhost", "globex.localhost", "*.tenants.example"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let sealed = |name: &str| {
        let sealed_key = STANDARD.encode(key.seal(name, made.signing_key.serialize_pem().as_bytes()).unwrap());
        serde_json::json!({"name": name, "chain": made.cert.pem(), "sealed_key": sealed_key})
    };
    let holds = Arc::new(Mutex::new(r#"{"items":[]}"#.to_owned()));
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let url = format!("http://{}", control(Arc::clone(&holds)).await);
    let settings = |url: &str| {
        let mut config = config();
        config.listen.https = std::mem::take(&mut config.listen.http);
        config.catalog.control_url = Some(url.to_owned());
        config.catalog.key_file = Some(file("edge.key", "ik_edge\n"));
        config.tls.catalog_key_file = Some(file("certificates.key", &secret));
        config.tls.catalog_copy = Some(folder.path().join("certificates.json"));
        config
    };
    let stage = start(settings(&url), main.addr, main.addr).await;
    let trusted = made.cert.der().clone();
    assert!(connect(stage.addr, "acme.localhost", &trusted, b"http/1.1").await.is_err(), "there is none yet");
    // One that was sealed for another name is not opened for this one; the other is shown some seconds after it was put.
    let mut moved = sealed("elsewhere.example");
    moved["name"] = "globex.localhost".into();
    let items = [moved, sealed("acme.localhost"), sealed("*.tenants.example")];
    *holds.lock().unwrap() = serde_json::json!({"items": items}).to_string();
    let deadline = tokio::time::Instant::now() + LONG;
    let mut stream = loop {
        match connect(stage.addr, "acme.localhost", &trusted, b"http/1.1").await {
            Ok(stream) => break stream,
            Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    ask(&mut stream, "acme.localhost").await;
    assert!(connect(stage.addr, "any.tenants.example", &trusted, b"h2").await.is_ok());
    assert!(connect(stage.addr, "globex.localhost", &trusted, b"http/1.1").await.is_err());
    let copy = std::fs::read_to_string(folder.path().join("certificates.json")).unwrap();
    assert!(copy.contains("BEGIN CERTIFICATE") && !copy.contains("PRIVATE KEY"), "{copy}");

    // A gateway that starts while the control plane is away has them from its copy.
    let later = start(settings("http://127.0.0.1:1"), main.addr, main.addr).await;
    ask(&mut connect(later.addr, "acme.localhost", &trusted, b"http/1.1").await.unwrap(), "acme.localhost").await;
    // With another key it opens nothing.
    let mut stranger = settings("http://127.0.0.1:1");
    stranger.tls.catalog_key_file = Some(file("other.key", &"00".repeat(32)));
    let stranger = start(stranger, main.addr, main.addr).await;
    assert!(connect(stranger.addr, "acme.localhost", &trusted, b"http/1.1").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stands_still_is_let_go() {
    let main = echo("main").await;
    let folder = tempfile::tempdir().unwrap();
    let acme = write(folder.path(), "acme.localhost", "acme.localhost");
    let mut config = config();
    config.listen.https = std::mem::take(&mut config.listen.http);
    config.tls.certificates = Some(folder.path().to_owned());
    // Time enough for whoever does shake hands, as the last one here.
    config.timeouts.header_ms = 1_500;
    // Whoever stays would keep the one place for connections.
    config.limits.connections = 1;
    let stage = start(config, main.addr, main.addr).await;
    // Nothing; the beginning of a ClientHello; a byte of one now and then.
    for begun in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = TcpStream::connect(stage.addr).await.unwrap();
        client.write_all(begun).await.unwrap();
        let mut end = Vec::new();
        let _ = tokio::time::timeout(LONG, client.read_to_end(&mut end)).await.expect("let go");
    }
    let mut client = TcpStream::connect(stage.addr).await.unwrap();
    client.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await.unwrap();
    let dripping = async {
        while client.write_all(b"x").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LONG, dripping).await.expect("let go");
    let mut next = connect(stage.addr, "acme.localhost", &acme, b"http/1.1").await.unwrap();
    ask(&mut next, "acme.localhost").await;
}
