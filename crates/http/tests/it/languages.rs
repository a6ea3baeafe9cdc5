//! Applications in other languages, run as they are in `examples/`, against tokens of the real signer.
//!
//! They install what they need, locked, once, in the user's cache folder. What cannot be installed is a failure that names the command.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use insula_core::keys::Secret;
use insula_core::token::ContextKeys;
use insula_core::{Clock, Principal, RootKey, SystemClock, Via};
use insula_http::identity::{ContextSigner, Identity};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

fn root() -> RootKey {
    RootKey::new(Secret::from_hex(&"5a".repeat(32)).unwrap())
}

fn keys(no: i32) -> ContextKeys {
    ContextKeys::new([(0, root().context_key(no).unwrap())]).unwrap()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

/// Where packages are installed: kept between runs and clones, made anew when what is locked changes.
pub(crate) fn installed(language: &str, lock: &Path) -> PathBuf {
    let text = std::fs::read(lock).unwrap();
    let sum = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &text);
    let sum = URL_SAFE_NO_PAD.encode(&sum.as_ref()[..9]);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home).unwrap_or_else(|| folder("../target"));
    cache.join("insula/tests").join(format!("{language}-{sum}"))
}

/// Runs a step of an installation; whoever sees it fail can type what it tried.
pub(crate) async fn install(command: &mut Command) {
    let typed = |command: &Command| {
        let command = command.as_std();
        let words = std::iter::once(command.get_program()).chain(command.get_args()).map(|word| word.to_string_lossy());
        let place = command.get_current_dir().map_or_else(String::new, |place| format!("cd {} && ", place.display()));
        format!("{place}{}", words.collect::<Vec<_>>().join(" "))
    };
    let done = command.output().await;
    let done =
        done.unwrap_or_else(|error| panic!("{error}: run `scripts/setup test`, which installs it, for:  {}", typed(command)));
    let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success(),
        "this test needs packages that could not be installed; try by hand:  {}\n{said}",
        typed(command)
    );
}

/// `npm ci` from the cache where it has everything, so that a second clone needs no network.
pub(crate) fn npm_ci(place: &Path) -> Command {
    let mut command = Command::new("npm");
    command.args(["ci", "--silent", "--no-audit", "--no-fund", "--prefer-offline"]).current_dir(place);
    command
}

struct Stopped(i64);

impl Clock for Stopped {
    fn unix_seconds(&self) -> i64 {
        self.0
    }
}

/// The application, once it listens.
async fn start(command: &mut Command, jwks: &str) -> (Child, u16) {
    command.env("INSULA_JWKS_URL", jwks).env("INSULA_CELL", "main").env("PORT", "0").stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
    let port = line.trim().rsplit(' ').next().unwrap().parse().unwrap_or_else(|_| panic!("it says {line:?}"));
    (child, port)
}

async fn ask(port: u16, contexts: &[&str]) -> (u16, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut request = "GET / HTTP/1.1\r\nHost: globex.localhost\r\nConnection: close\r\n".to_owned();
    for context in contexts {
        request += &format!("Insula-Tenant-Context: {context}\r\n");
    }
    socket.write_all((request + "\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

async fn holds_to_the_contract(command: &mut Command) {
    let catalog = crate::catalog().await;
    let route = catalog.by_slug("acme").unwrap().arc();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let jwks = format!("http://{}/jwks.json", listener.local_addr().unwrap());
    let published = keys(1).public().to_jwks();
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/jwks.json", get(async move || published))).await });
    let (_child, port) = start(command, &jwks).await;

    let alice = Principal {
        subject: "alice".into(),
        issuer: None,
        via: Via::Oidc,
        tenants: [route.id].into(),
        scopes: ["read".into()].into(),
    };
    let identity = Identity::Principal(Arc::new(alice));
    let signer = ContextSigner::gateway(keys(1));
    let text = |value: http::HeaderValue| value.to_str().unwrap().to_owned();
    let good = text(signer.header(&route, &identity));
    let (status, body) = ask(port, &[&good]).await;
    assert!(status == 200 && body.contains("acme") && body.contains("bronze") && body.contains("alice"), "{body}");
    assert_eq!(ask(port, &[&text(signer.header(&route, &Identity::Anonymous))]).await.0, 200);

    let at = |seconds: i64| {
        let clock = Stopped(SystemClock.unix_seconds() + seconds);
        text(ContextSigner::gateway(keys(1)).with_clock(clock).header(&route, &identity))
    };
    let cell = ContextKeys::new([(0, root().cell(&"main".parse().unwrap()).context_key().unwrap())]).unwrap();
    let claims = good.split('.').nth(1).unwrap();
    let unsigned =
        |alg: &str| format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{alg}","typ":"insula-context+jwt"}}"#)));
    let changed = good.replacen(claims, &URL_SAFE_NO_PAD.encode(r#"{"slug":"globex"}"#), 1);
    for (what, token) in [
        ("forged", text(ContextSigner::gateway(keys(2)).header(&route, &identity))),
        ("of a cell that calls itself the gateway", text(ContextSigner::gateway(cell.clone()).header(&route, &identity))),
        ("of another issuer", text(ContextSigner::new(keys(1), "insula-app:main", 4).header(&route, &identity))),
        ("for another cell", text(signer.header_for(&route, &identity, Some("insula-app:second")))),
        ("expired", at(-60)),
        ("unsigned", unsigned("none")),
        ("HS256", unsigned("HS256")),
        ("changed", changed),
        ("no token", "x".to_owned()),
    ] {
        assert_eq!(ask(port, &[&token]).await.0, 401, "{what}");
    }
    assert_eq!(ask(port, &[]).await.0, 401, "none");
    assert_eq!(ask(port, &[&good, &good]).await.0, 401, "two");
    assert_eq!(ask(port, &[&good]).await.0, 200, "and is well after all that");
}

#[tokio::test]
async fn python_believes_what_the_gateway_signed_and_nothing_else() {
    let lock = folder("python").join("requirements.txt");
    let place = installed("python", &lock);
    let python = place.join("bin/python");
    if !place.join("done").exists() {
        install(Command::new("python3").args(["-m", "venv"]).arg(&place)).await;
        install(Command::new(&python).args(["-m", "pip", "install", "--quiet", "-r"]).arg(&lock)).await;
        std::fs::write(place.join("done"), "").unwrap();
    }
    holds_to_the_contract(Command::new(&python).arg(folder("python").join("app.py"))).await;
}

#[tokio::test]
async fn node_believes_what_the_gateway_signed_and_nothing_else() {
    let place = installed("node", &folder("node").join("package-lock.json"));
    if !place.join("done").exists() {
        std::fs::create_dir_all(&place).unwrap();
        for file in ["package.json", "package-lock.json", "app.mjs"] {
            std::fs::copy(folder("node").join(file), place.join(file)).unwrap();
        }
        install(&mut npm_ci(&place)).await;
        std::fs::write(place.join("done"), "").unwrap();
    }
    // Packages are looked for beside the file.
    std::fs::copy(folder("node").join("app.mjs"), place.join("app.mjs")).unwrap();
    holds_to_the_contract(Command::new("node").arg(place.join("app.mjs"))).await;
}
