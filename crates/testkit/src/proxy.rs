//! A wire that a test can cut, stall and mend.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the wire does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Carries them.
    Whole,
    /// Holds them back, in both directions; connections stay open. Nothing is lost when it is whole again.
    Stalled,
    /// Breaks every connection, and each new one at once.
    Cut,
    /// Carries what the client sends, and breaks the connection when the server answers: the client cannot know whether what
    /// it asked for was done.
    CutBack,
    /// Carries so many bytes of the server's answers on each connection, and breaks it then: in the midst of whatever that is.
    CutAfter(usize),
}

/// A TCP relay to one server; ends with its value.
#[derive(Debug)]
pub struct CutProxy {
    address: SocketAddr,
    wire: Arc<watch::Sender<Wire>>,
    relay: JoinHandle<()>,
}

impl CutProxy {
    /// Relays a free local port to `target`.
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let wire = Arc::new(watch::Sender::new(Wire::Whole));
        let relay = tokio::spawn(accept(listener, target, Arc::clone(&wire)));
        Self { address, wire, relay }
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients connect.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Changes the wire, for open connections too.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

impl Drop for CutProxy {
    fn drop(&mut self) {
        self.wire.send_replace(Wire::Cut);
        self.relay.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, wire: Arc<watch::Sender<Wire>>) {
    while let Ok((client, _)) = listener.accept().await {
        let wire = wire.subscribe();
        if *wire.borrow() != Wire::Cut {
            tokio::spawn(carry(client, target, wire));
        }
    }
}

async fn carry(client: TcpStream, target: SocketAddr, wire: watch::Receiver<Wire>) {
    let Ok(server) = TcpStream::connect(target).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let mut cut = wire.clone();
    // Whichever ends first takes the others along: both connections break.
    tokio::select! {
        () = pump(from_client, to_server, wire.clone(), false) => {}
        () = pump(from_server, to_client, wire, true) => {}
        _ = cut.wait_for(|w| *w == Wire::Cut) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut wire: watch::Receiver<Wire>, is_answer: bool) {
    let mut buffer = vec![0; 16 << 10];
    let mut carried = 0;
    while let Ok(mut n @ 1..) = from.read(&mut buffer).await {
        let Ok(now) = wire.wait_for(|w| *w != Wire::Stalled).await.map(|w| *w) else { return };
        let mut over = false;
        if let (Wire::CutAfter(most), true) = (now, is_answer) {
            over = carried + n > most;
            n = n.min(most.saturating_sub(carried));
        }
        carried += n;
        if (now == Wire::CutBack && is_answer) || to.write_all(&buffer[..n]).await.is_err() || over {
            return;
        }
    }
}
