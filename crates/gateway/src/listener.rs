//! Listening sockets: one for each worker at each address, so that the kernel spreads connections and no worker waits for another.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::Error;
use crate::config::Listen;
use crate::succession::Predecessor;

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Clear HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// A listening socket, and what is spoken on it.
pub(crate) type Spoken = (Scheme, TcpListener);

/// What a gateway listens on.
#[derive(Debug, Default)]
pub struct Listeners {
    /// A list for each worker.
    pub(crate) by_worker: Vec<Vec<Spoken>>,
    /// Whose sockets these were.
    pub(crate) predecessor: Option<Predecessor>,
}

impl Listeners {
    /// Takes over the sockets of a gateway that runs, where the settings name a meeting place, and binds the rest of what they say. Port 0
    /// takes a free one, the same for all workers.
    ///
    /// # Errors
    /// When an address is taken or not ours, or the other gateway does not hand over.
    pub fn bind(listen: &Listen) -> Result<Self, Error> {
        let met = listen.succession.as_deref().map(Predecessor::meet).transpose().map_err(Error::Succession)?.flatten();
        let (predecessor, mut inherited) = met.map_or((None, Vec::new()), |(predecessor, sockets)| (Some(predecessor), sockets));
        let workers = listen.worker_count();
        let mut by_worker: Vec<Vec<Spoken>> = (0..workers).map(|_| Vec::new()).collect();
        let http = listen.http.iter().map(|addr| (Scheme::Http, *addr));
        for (scheme, mut addr) in http.chain(listen.https.iter().map(|addr| (Scheme::Https, *addr))) {
            let is_ours = |(of, socket): &mut Spoken| *of == scheme && socket.local_addr().is_ok_and(|at| at == addr);
            // All of them, however many workers there are now: a connection may wait at each.
            let kept: Vec<_> = inherited.extract_if(.., is_ours).collect();
            let missing = workers.saturating_sub(kept.len());
            for (n, socket) in kept.into_iter().enumerate() {
                by_worker[n % workers].push(socket);
            }
            for sockets in by_worker.iter_mut().rev().take(missing) {
                let socket = bind(addr, listen.backlog).map_err(|source| Error::Listen { addr, source })?;
                addr = socket.local_addr().map_err(|source| Error::Listen { addr, source })?;
                sockets.push((scheme, socket));
            }
        }
        Ok(Self { by_worker, predecessor })
    }

    /// The same sockets once more, to hand over later.
    pub(crate) fn copies(&self) -> std::io::Result<Vec<Spoken>> {
        self.by_worker.iter().flatten().map(|(scheme, socket)| Ok((*scheme, socket.try_clone()?))).collect()
    }

    /// Where it listens, and what for.
    #[must_use]
    pub fn addrs(&self) -> Vec<(&'static str, SocketAddr)> {
        let first = self.by_worker.first().into_iter().flatten();
        first.filter_map(|(scheme, socket)| Some((scheme.as_str(), socket.local_addr().ok()?))).collect()
    }
}

impl Scheme {
    /// As a URL has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

fn bind(addr: SocketAddr, backlog: u32) -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
