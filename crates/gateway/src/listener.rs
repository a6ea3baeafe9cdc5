//! Listening sockets: one for each worker at each address, so that the kernel spreads connections and no worker waits for another.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::Error;
use crate::config::Listen;

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Clear HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// What a gateway listens on.
#[derive(Debug, Default)]
pub struct Listeners {
    /// A list for each worker.
    pub(crate) by_worker: Vec<Vec<(Scheme, TcpListener)>>,
}

impl Listeners {
    /// Binds what the settings say. Port 0 takes a free one, the same for all workers.
    ///
    /// # Errors
    /// When an address is taken or not ours.
    pub fn bind(listen: &Listen) -> Result<Self, Error> {
        let mut by_worker: Vec<Vec<(Scheme, TcpListener)>> = (0..listen.worker_count()).map(|_| Vec::new()).collect();
        let http = listen.http.iter().map(|addr| (Scheme::Http, *addr));
        for (scheme, mut addr) in http.chain(listen.https.iter().map(|addr| (Scheme::Https, *addr))) {
            for sockets in &mut by_worker {
                let socket = bind(addr, listen.backlog).map_err(|source| Error::Listen { addr, source })?;
                addr = socket.local_addr().map_err(|source| Error::Listen { addr, source })?;
                sockets.push((scheme, socket));
            }
        }
        Ok(Self { by_worker })
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
