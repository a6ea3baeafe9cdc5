//! One core's share of the gateway: a runtime, listeners, connections. Nothing in it is shared with another.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use insula_catalog::Catalog;
use insula_http::{Admission, Authenticator, ContextSigner, Resolver};
use insula_telemetry::{Readiness, Senses, Shutdown};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::body::Progress;
use crate::config::{Config, ms};
use crate::connection::{self, Peer};
use crate::listener::{Scheme, Spoken};
use crate::moves::Moves;
use crate::request_id::{RequestIds, unix_ms};
use crate::ticks::Ticks;
use crate::upstream::{Cells, health};
use crate::watch::{TICK, Watches};

/// What all workers have in common.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) catalog: Catalog,
    pub(crate) authenticator: Authenticator,
    pub(crate) resolver: Resolver,
    pub(crate) admission: Admission,
    /// `None` when the applications find out for themselves whose request it is.
    pub(crate) signer: Option<Arc<ContextSigner>>,
    /// `None` without certificates.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) senses: Senses,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
}

/// One worker.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) watches: Rc<Watches>,
    pub(crate) cells: Cells,
    pub(crate) moves: Moves,
    pub(crate) ids: RequestIds,
    /// Milliseconds since 1970, as of the last tick.
    pub(crate) unix_ms: Cell<u64>,
    /// The same, as an answer tells it.
    pub(crate) date: RefCell<String>,
    /// How far the bodies have come that are none.
    pub(crate) nothing_comes: Rc<Progress>,
    /// Told with each tick.
    ticked: Notify,
    /// Idle connections had their time to bring one more request.
    has_lingered: Cell<bool>,
    connections: Cell<usize>,
    closed: Notify,
}

/// What the kernel says when it cannot give a connection now: it may in a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

impl Worker {
    pub(crate) fn new(number: usize, shared: Arc<Shared>) -> Rc<Self> {
        let watches = Rc::new(Watches::new());
        let cells = Cells::new(shared.config.upstream.clone(), shared.config.timeouts, Rc::clone(&watches));
        let moves = Moves::new(shared.config.moves);
        let ids = RequestIds::new(number);
        let unix_ms = Cell::new(unix_ms());
        Rc::new(Self {
            shared,
            watches,
            cells,
            moves,
            ids,
            unix_ms,
            date: RefCell::new(date()),
            nothing_comes: Rc::default(),
            ticked: Notify::new(),
            has_lingered: Cell::new(false),
            connections: Cell::new(0),
            closed: Notify::new(),
        })
    }

    /// Serves until asked to stop, then lets what runs come to its end.
    pub(crate) async fn run(self: Rc<Self>, sockets: Vec<Spoken>) -> std::io::Result<()> {
        tokio::task::spawn_local(Rc::clone(&self).tick(Ticks::every(TICK)?));
        tokio::task::spawn_local(Rc::clone(&self).follow_catalog());
        tokio::task::spawn_local(Rc::clone(&self).wind_down());
        tokio::task::spawn_local(health::look_after(Rc::clone(&self)));
        let mut accepting = tokio::task::JoinSet::new();
        for (scheme, socket) in sockets {
            let listener = tokio::net::TcpListener::from_std(socket)?;
            accepting.spawn_local(Rc::clone(&self).accept(scheme, listener));
        }
        while accepting.join_next().await.is_some() {}
        let drained = async {
            while self.connections.get() > 0 {
                self.closed.notified().await;
            }
        };
        tokio::select! {
            () = drained => {}
            () = self.shared.shutdown.now() => {
                tracing::warn!(connections = self.connections.get(), "cut off: these were still open");
            }
        }
        Ok(())
    }

    /// Seconds since 1970, as of the last tick.
    pub(crate) fn unix_seconds(&self) -> i64 {
        (self.unix_ms.get() / 1000).cast_signed()
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.shared.shutdown.is_requested()
    }

    /// Whether idle connections are to be closed by now.
    pub(crate) fn has_lingered(&self) -> bool {
        self.has_lingered.get()
    }

    /// Tells connections of the end, so that none has to ask with each step it takes.
    async fn wind_down(self: Rc<Self>) {
        self.shared.shutdown.requested().await;
        self.watches.wake_all();
        tokio::time::sleep(ms(self.shared.config.timeouts.linger_ms)).await;
        self.has_lingered.set(true);
        self.watches.wake_all();
    }

    /// Waits for so many milliseconds, to a tenth of a second and for a tick at least, without a timer.
    pub(crate) async fn pause(&self, ms: u64) {
        let until = self.watches.now().saturating_add(ms);
        loop {
            self.ticked.notified().await;
            if self.watches.now() >= until {
                return;
            }
        }
    }

    async fn accept(self: Rc<Self>, scheme: Scheme, listener: tokio::net::TcpListener) {
        let stop = self.shared.shutdown.requested();
        tokio::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => return,
                accepted = listener.accept(), if self.connections.get() < self.shared.config.limits.connections => accepted,
                // As many as there may be: the kernel keeps the rest until one closes.
                () = self.closed.notified() => continue,
            };
            match accepted {
                Ok((stream, from)) => self.take(scheme, stream, from),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn take(self: &Rc<Self>, scheme: Scheme, stream: TcpStream, from: SocketAddr) {
        // Fails only on a connection that is gone already.
        let _ = stream.set_nodelay(true);
        let trusted = self.shared.config.trust.proxies.iter().any(|net| net.contains(&from.ip()));
        let peer = Rc::new(Peer::new(from, trusted, scheme));
        let held = self.hold();
        tokio::task::spawn_local(async move {
            match &held.0.shared.tls {
                Some(tls) if scheme == Scheme::Https => Box::pin(connection::serve_tls(&held.0, tls, stream, peer)).await,
                _ => connection::serve(&held.0, stream, peer).await,
            }
            drop(held);
        });
    }

    /// Counts a connection for as long as the answer is kept.
    pub(crate) fn hold(self: &Rc<Self>) -> Held {
        self.connections.set(self.connections.get() + 1);
        Held(Rc::clone(self))
    }

    async fn tick(self: Rc<Self>, mut ticks: Ticks) {
        for n in 0_u64.. {
            ticks.next().await;
            let before = self.unix_ms.replace(unix_ms());
            if before / 1000 != self.unix_ms.get() / 1000 {
                self.date.replace(date());
            }
            self.watches.tick();
            self.ticked.notify_waiters();
            if n.is_multiple_of(10) {
                self.cells.sweep();
            }
        }
    }

    async fn follow_catalog(self: Rc<Self>) {
        let mut changed = self.shared.catalog.changed();
        while changed.changed().await.is_ok() {
            self.cells.catch_up(&self.shared.catalog);
        }
    }
}

/// Now, to the second (RFC 9110, section 5.6.7).
fn date() -> String {
    httpdate::fmt_http_date(SystemTime::now())
}

/// A connection, counted while it is open.
pub(crate) struct Held(Rc<Worker>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.connections.set(self.0.connections.get() - 1);
        self.0.closed.notify_waiters();
        self.0.closed.notify_one();
    }
}
