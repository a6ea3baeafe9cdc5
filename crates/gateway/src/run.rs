//! From settings to a running gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use insula_catalog::{Catalog, HttpSource, Options, PgSource};
use insula_http::identity::{AuthOptions, Fetcher};
use insula_http::{Admission, Authenticator, ContextSigner, Resolver};
use insula_telemetry::admin::Admin;
use insula_telemetry::{Gate, Readiness, Senses, Shutdown, admin};
use tokio::runtime::{Builder, LocalOptions};

use crate::listener::Spoken;
use crate::succession::{self, Predecessor};
use crate::tls::{Certificates, FromCatalog};
use crate::worker::{Shared, Worker};
use crate::{Config, Error, Listeners, keys, senses, sharing, tls};

/// Runs a gateway by its settings until `shutdown`, with its admin port.
///
/// # Errors
/// When it cannot start, or a worker dies.
pub async fn run(config: Config, listeners: Listeners, shutdown: Shutdown) -> Result<(), Error> {
    let readiness = Readiness::new();
    // Before anybody can ask: without a gate it would be ready.
    let serving = readiness.gate("serving");
    let takes_over = listeners.predecessor.is_some();
    let senses = senses::start(&config.telemetry, takes_over)?;
    let _admin = AdminPort::open(config.listen.admin, &readiness, &senses, takes_over)?;
    let catalog = follow(&config)?;
    let named = catalog.clone();
    senses.set_names(Box::new(move |wanted| insula_http::observe::names(&named, wanted)));
    let served = serve_behind(&serving, config, catalog, listeners, shutdown, readiness, senses.clone()).await;
    // It may wait for the control plane, for some seconds. A panic there was reported by its own thread.
    let _ = tokio::task::spawn_blocking(move || senses.close()).await;
    insula_telemetry::logs::flush();
    served
}

/// The admin port, as long as it is kept. It has one owner: while the gateway before says goodbye there, a successor waits for it.
enum AdminPort {
    Open { _port: Admin },
    Awaited { _waiting: tokio::task::JoinSet<()> },
}

impl AdminPort {
    fn open(addr: SocketAddr, readiness: &Readiness, senses: &Senses, takes_over: bool) -> Result<Self, Error> {
        let (readiness, senses) = (readiness.clone(), senses.clone());
        let open = move || admin::serve_with("gateway", addr, readiness.clone(), Some(senses.clone()));
        if !takes_over {
            return Ok(Self::Open { _port: open()? });
        }
        // What is counted until then is to be seen there, too.
        insula_telemetry::meters::install()?;
        let mut waiting = tokio::task::JoinSet::new();
        waiting.spawn(async move {
            loop {
                match open() {
                    Ok(_port) => return std::future::pending().await,
                    Err(error) => tracing::debug!(%error, "the admin port is not free yet"),
                }
                tokio::time::sleep(ADMIN_PAUSE).await;
            }
        });
        Ok(Self::Awaited { _waiting: waiting })
    }
}

/// Between two looks whether the admin port is free.
const ADMIN_PAUSE: Duration = Duration::from_millis(100);

fn follow(config: &Config) -> Result<Catalog, Error> {
    let config = &config.catalog;
    let bad = |what: String| Error::Setting { part: "catalog", what };
    let read = |file: &Path| std::fs::read_to_string(file).map_err(|e| bad(format!("{}: {e}", file.display())));
    let options = Options {
        base_domain: config.base_domain.clone(),
        soft: Duration::from_millis(config.soft_ms),
        hard: Duration::from_millis(config.hard_ms),
        disk: config.snapshot_file.clone(),
        ..Options::default()
    };
    match (&config.control_url, &config.key_file, &config.postgres_url_file) {
        (Some(url), Some(key), None) => {
            let authorities = config.authorities().map_err(bad)?;
            let source = HttpSource::with_authorities(url, read(key)?.trim(), authorities.as_deref())?;
            Ok(Catalog::start(source, options))
        }
        (None, None, Some(file)) => Ok(Catalog::start(PgSource::connect(read(file)?.trim())?, options)),
        (Some(_), None, _) => Err(bad("control_url needs key_file: a key of scope edge".into())),
        _ => Err(bad("name one source: control_url with key_file, or postgres_url_file".into())),
    }
}

/// Serves with a catalog that is followed already, until `shutdown`; then lets what runs come to its end. Each request is told `senses`.
///
/// # Errors
/// When a worker cannot start, or dies.
pub async fn serve(
    config: Config,
    catalog: Catalog,
    listeners: Listeners,
    shutdown: Shutdown,
    readiness: Readiness,
    senses: Senses,
) -> Result<(), Error> {
    let serving = readiness.gate("serving");
    serve_behind(&serving, config, catalog, listeners, shutdown, readiness, senses).await
}

/// As [`serve`], behind a gate that is there already.
async fn serve_behind(
    serving: &Gate,
    config: Config,
    catalog: Catalog,
    listeners: Listeners,
    shutdown: Shutdown,
    readiness: Readiness,
    senses: Senses,
) -> Result<(), Error> {
    let fresh = readiness.gate("catalog");
    for (scheme, addr) in listeners.addrs() {
        tracing::info!(scheme, %addr, "serving");
    }
    let certificates =
        config.tls.is_set().then(|| Certificates::read(config.tls.certificates.as_deref()).map(Arc::new)).transpose()?;
    let mut following_certificates = Vec::new();
    if let Some(certificates) = &certificates {
        following_certificates.push(tokio::spawn(Arc::clone(certificates).follow()));
        following_certificates.extend(FromCatalog::open(&config, certificates)?.map(|from| tokio::spawn(from.follow())));
    }
    let watch = tokio::spawn(watch_catalog(catalog.clone(), fresh, shutdown.clone()));
    let shared = Arc::new(share(config, catalog, certificates.as_ref(), shutdown.clone(), (senses, readiness))?);
    let sharing = sharing::begin(&shared.config.sharing, &shared.admission, shared.catalog.clone(), shutdown.clone())?;
    let keys = shared.config.identity.signing_keys.clone().zip(shared.signer.clone());
    let keys = keys.map(|(path, signer)| tokio::spawn(keys::follow(path, signer)));
    let succession = shared.config.listen.succession.clone().map(|path| Ok::<_, std::io::Error>((path, listeners.copies()?)));
    let succession = succession.transpose().map_err(Error::Succession)?;
    let mut workers = tokio::task::JoinSet::new();
    for (number, sockets) in listeners.by_worker.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        let (ended, end) = tokio::sync::oneshot::channel();
        let work = move || {
            let outcome = work(number, shared, sockets);
            let _ = ended.send(outcome);
        };
        let thread = std::thread::Builder::new().name(format!("worker-{number}")).spawn(work);
        thread.map_err(|e| Error::Worker { worker: number, what: e.to_string() })?;
        workers.spawn(async move {
            // A thread that panicked has sent nothing.
            let died = || Err(Error::Worker { worker: number, what: "it panicked".into() });
            end.await.unwrap_or_else(|_| died())
        });
    }
    serving.open();
    let succession = tokio::spawn(succeed(listeners.predecessor, succession, shared.catalog.clone(), shutdown.clone()));
    let mut outcome = Ok(());
    while let Some(ended) = workers.join_next().await {
        let ended = ended.unwrap_or_else(|e| Err(Error::Worker { worker: 0, what: e.to_string() }));
        if ended.is_err() {
            // The others' listeners would keep their share of the connections, and this one's would wait for ever.
            shutdown.trigger();
        }
        outcome = outcome.and(ended);
    }
    watch.abort();
    if let Some(sharing) = sharing {
        // It says goodbye, in bounded time.
        sharing.await.ok();
    }
    for following in keys.into_iter().chain(following_certificates).chain([succession]) {
        following.abort();
    }
    outcome
}

/// Lets the gateway before go once this one knows its tenants, then waits for the next.
async fn succeed(
    predecessor: Option<Predecessor>,
    meeting: Option<(PathBuf, Vec<Spoken>)>,
    catalog: Catalog,
    shutdown: Shutdown,
) {
    catalog.ready().await;
    if let Some(Err(error)) = predecessor.map(Predecessor::release) {
        tracing::warn!(%error, "the gateway before is gone already");
    }
    if let Some((path, sockets)) = meeting {
        succession::await_successor(path, sockets, shutdown).await;
    }
}

fn share(
    config: Config,
    catalog: Catalog,
    certificates: Option<&Arc<Certificates>>,
    shutdown: Shutdown,
    (senses, readiness): (Senses, Readiness),
) -> Result<Shared, Error> {
    let wrong = |part, error: &dyn std::fmt::Display| Error::Setting { part, what: error.to_string() };
    let fetcher = Fetcher::new().map_err(|e| wrong("identity", &e))?;
    let authenticator = Authenticator::new(catalog.clone(), fetcher, &AuthOptions::default());
    let resolver = Resolver::new(config.resolve.clone()).map_err(|e| wrong("resolve", &e))?;
    let admission = Admission::new(config.admission.clone()).map_err(|e| wrong("admission", &e))?;
    let resolver = resolver.ahead_of(&admission);
    let keys = config.identity.signing_keys.as_deref().map(keys::read).transpose()?;
    let signer = keys.map(|keys| Arc::new(ContextSigner::gateway(keys)));
    let tls = certificates.map(tls::acceptor).transpose()?;
    Ok(Shared { config, catalog, authenticator, resolver, admission, signer, tls, senses, readiness, shutdown })
}

fn work(number: usize, shared: Arc<Shared>, sockets: Vec<Spoken>) -> Result<(), Error> {
    let failed = |what: std::io::Error| Error::Worker { worker: number, what: what.to_string() };
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).map_err(failed)?;
    runtime.block_on(Worker::new(number, shared).run(sockets)).map_err(failed)
}

/// Keeps the gate as the catalog is, and leaves it closed at `shutdown`.
async fn watch_catalog(catalog: Catalog, gate: Gate, shutdown: Shutdown) {
    gate.close("the catalog is not known yet");
    tokio::select! {
        biased;
        () = shutdown.requested() => {}
        // What is known is served however old it is; what must not be opened by old knowledge is refused where it is judged.
        () = catalog.ready() => gate.open(),
    }
    shutdown.requested().await;
    gate.close("stopping");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_successor_waits_for_the_admin_port_and_nobody_else_does() {
        let (readiness, senses) = (Readiness::new(), Senses::default());
        let before = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let addr = before.local_addr().unwrap();
        assert!(AdminPort::open(addr, &readiness, &senses, false).is_err());
        let port = AdminPort::open(addr, &readiness, &senses, true).unwrap();
        drop(before);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        let answer = loop {
            match reqwest::get(format!("http://{addr}/healthz")).await {
                Ok(answer) => break answer,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(answer.status().is_success());
        drop(port);
    }
}
