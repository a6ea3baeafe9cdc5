//! Who asked to be told is told: signed, over TLS, again when refused; and nobody is called who must not be.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use insula_core::{Isolation, Kind};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::house::{House, LONG, create};

/// What a receiver took, headers and all.
type Posts = Arc<Mutex<Vec<String>>>;

/// Reads one post and answers with a status.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: &str) -> String {
    let mut post = Vec::new();
    while !String::from_utf8_lossy(&post).trim_end().ends_with('}') {
        let mut part = [0; 4096];
        match stream.read(&mut part).await {
            Ok(n) if n > 0 => post.extend_from_slice(&part[..n]),
            _ => break,
        }
    }
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let _ = stream.write_all(head.as_bytes()).await;
    let _ = stream.shutdown().await;
    String::from_utf8_lossy(&post).into_owned()
}

/// A receiver that gives these answers in turn, the last for ever; keeps what it took when it answered with a success.
async fn receiver(tls: Option<TlsAcceptor>, statuses: &'static [&'static str]) -> (u16, Posts) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let posts = Posts::default();
    let taken = Arc::clone(&posts);
    tokio::spawn(async move {
        let mut statuses = statuses.iter();
        let mut status = "";
        while let Ok((stream, _)) = listener.accept().await {
            let post = match &tls {
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => {
                        status = statuses.next().unwrap_or(&status);
                        answer(stream, status).await
                    }
                    Err(_) => continue,
                },
                None => {
                    status = statuses.next().unwrap_or(&status);
                    answer(stream, status).await
                }
            };
            if status.starts_with('2') {
                taken.lock().expect("posts").push(post);
            }
        }
    });
    (port, posts)
}

/// An authority of our own, and a server that it vouches for under these names.
fn authority(names: &[&str]) -> (String, TlsAcceptor) {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
    let leaf = CertificateParams::new(names).expect("params").signed_by(&key, &ca).expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("a server");
    (ca.pem(), TlsAcceptor::from(Arc::new(config)))
}

async fn wait_for(what: &str, mut seen: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + LONG;
    while !seen().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn last_error(house: &House) -> String {
    let kept = sqlx::query_scalar("SELECT coalesce(string_agg(last_error, ''), '') FROM catalog.outbox");
    kept.fetch_one(house.control.catalog_pool()).await.expect("read")
}

/// Holds that a post is the event of `acme`, signed with the secret.
fn is_signed_event(post: &str, secret: &str) {
    let (head, body) = post.split_once("\r\n\r\n").expect("a body");
    let json: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!((json["topic"].as_str(), json["data"]["slug"].as_str()), (Some("tenant.provisioned"), Some("acme")));
    assert!(head.contains("insula-topic: tenant.provisioned") && head.contains("insula-event: "), "{head}");
    let signature = head.lines().find_map(|l| l.strip_prefix("insula-signature: ")).expect("signed");
    let (time, tag) = signature.split_once(",v1=").expect("two parts");
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret.as_bytes());
    let tag: Vec<u8> = (0..32).map(|i| u8::from_str_radix(&tag[2 * i..2 * i + 2], 16).expect("hex")).collect();
    let signed = format!("{}.{body}", time.trim_start_matches("t="));
    aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &tag).expect("the signature holds");
}

#[tokio::test]
async fn events_are_posted_signed_and_again_when_refused() {
    let mut house = House::start().await;
    // Twice: what the first refusal leaves is there to be seen until the third try, three seconds later.
    let (port, posts) = receiver(None, &["500 Oh", "500 Oh", "204 No Content"]).await;
    let url = format!("http://127.0.0.1:{port}/hook?token=secret");
    let hook = house.control.create_webhook("test", &url, &["tenant.*".into()]).await.expect("made");
    let created = house.control.create_tenant("test", create("acme", Isolation::Row), None).await.expect("accepted");
    house.done(created.operation.id).await;
    wait_for("a refusal is noted", async || last_error(&house).await.contains("status 500")).await;
    assert!(!last_error(&house).await.contains("token"), "{}", last_error(&house).await);
    wait_for("an event comes", async || !posts.lock().expect("posts").is_empty()).await;
    let post = posts.lock().expect("posts")[0].clone();
    assert!(post.starts_with("POST /hook?token=secret HTTP/1.1"), "{post}");
    is_signed_event(&post, &hook.secret);
    house.stop().await;
}

#[tokio::test]
async fn https_is_spoken_with_who_is_vouched_for_and_with_nobody_else() {
    let (ca, tls) = authority(&["localhost", "127.0.0.1"]);
    let (port, posts) = receiver(Some(tls), &["204 No Content"]).await;
    let mut house = House::start().await;
    let url = format!("https://localhost:{port}/hook?token=secret");
    let hook = house.control.create_webhook("test", &url, &["*".into()]).await.expect("made");
    let created = house.control.create_tenant("test", create("acme", Isolation::Row), None).await.expect("accepted");
    house.done(created.operation.id).await;
    wait_for("nobody vouches for it", async || last_error(&house).await.contains("UnknownIssuer")).await;
    assert!(posts.lock().expect("posts").is_empty());
    assert!(!last_error(&house).await.contains("token"));
    house.stop().await;

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("authorities.pem");
    std::fs::write(&file, "nothing").expect("written");
    let mut config = house.control.config().clone();
    config.webhook_authorities = Some(file.clone());
    let told = insula_control::Control::open(config).await.expect("a catalog").start().await.expect_err("no certificate in it");
    assert!(told.to_string().contains("no certificate"), "{told}");

    std::fs::write(&file, ca).expect("written");
    sqlx::query("UPDATE catalog.outbox SET next_at = now()").execute(house.control.catalog_pool()).await.expect("due");
    let mut trusting = house.another(|config| config.webhook_authorities = Some(file)).await;
    wait_for("an event comes", async || !posts.lock().expect("posts").is_empty()).await;
    is_signed_event(&posts.lock().expect("posts")[0], &hook.secret);
    trusting.stop().await;
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let (ca, tls) = authority(&["elsewhere.example"]);
    let (port, posts) = receiver(Some(tls), &["204 No Content"]).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), ca).expect("written");
    let path = file.path().to_owned();
    let server = Arc::new(insula_testkit::durable_server().await);
    let mut house = House::on(server, |config| config.webhook_authorities = Some(path)).await;
    house.put_bundle().await;
    house.control.create_webhook("test", &format!("https://localhost:{port}/"), &["*".into()]).await.expect("made");
    house.tenant("acme", Isolation::Row).await;
    wait_for("it is refused", async || last_error(&house).await.contains("not valid for name")).await;
    assert!(posts.lock().expect("posts").is_empty());
    house.stop().await;
}

#[tokio::test]
async fn neither_a_redirect_nor_a_name_leads_where_webhooks_may_not_go() {
    let (inside, taken) = receiver(None, &["204 No Content"]).await;
    let (port, _) =
        receiver(None, Box::leak(Box::new([&*format!("307 Go\r\nlocation: http://127.0.0.1:{inside}/").leak()]))).await;
    let mut house = House::start().await;
    house.control.create_webhook("test", &format!("http://127.0.0.1:{port}/"), &["*".into()]).await.expect("made");
    house.tenant("one", Isolation::Row).await;
    wait_for("a redirect is no success", async || last_error(&house).await.contains("status 307")).await;
    house.stop().await;

    // On a control plane that keeps to the internet, as it does unless told otherwise.
    let mut strict = house.another(|config| config.webhook_private = false).await;
    let refused = strict.control.create_webhook("test", &format!("http://127.0.0.1:{inside}/"), &["*".into()]).await;
    assert_eq!(refused.expect_err("this machine").kind(), Kind::Invalid);
    strict.control.create_webhook("test", &format!("http://localhost:{inside}/"), &["*".into()]).await.expect("a name");
    strict.tenant("two", Isolation::Row).await;
    wait_for("the address is judged", async || last_error(&strict).await.contains("may not reach")).await;
    assert!(taken.lock().expect("posts").is_empty(), "somebody inside was called");
    strict.stop().await;
}
