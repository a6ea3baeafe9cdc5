//! TLS: certificates by name, picked up while connections go on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stage::{LONG, config, echo, get, start};

/// Writes a pair; returns the certificate, for a client to trust.
fn write(folder: &Path, file: &str, name: &str) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    std::fs::write(folder.join(format!("{file}.key")), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join(format!("{file}.crt")), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

async fn connect(
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

/// One request on an open connection.
async fn ask(stream: &mut TlsStream<TcpStream>, host: &str) -> String {
    stream.write_all(get(host, "/").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("x-request-id: ") || !answer.ends_with(b"\r\n\r\n") {
        let n = tokio::time::timeout(LONG, stream.read_buf(&mut answer)).await.unwrap().unwrap();
        assert!(n > 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
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
    let deadline = tokio::time::Instant::now() + LONG;
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
