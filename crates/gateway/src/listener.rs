//! Listening sockets: one for each worker at each address, so that the kernel spreads connections and no worker waits for another.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::Error;
use crate::config::Listen;

/// What a gateway listens on.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Clear HTTP: a list for each worker.
    pub(crate) http: Vec<Vec<TcpListener>>,
}

impl Listeners {
    /// Binds what the settings say. Port 0 takes a free one, the same for all workers.
    ///
    /// # Errors
    /// When an address is taken or not ours.
    pub fn bind(listen: &Listen) -> Result<Self, Error> {
        let workers = listen.worker_count();
        let mut http: Vec<Vec<TcpListener>> = (0..workers).map(|_| Vec::new()).collect();
        for addr in &listen.http {
            let mut addr = *addr;
            for sockets in &mut http {
                let socket = bind(addr, listen.backlog).map_err(|source| Error::Listen { addr, source })?;
                addr = socket.local_addr().map_err(|source| Error::Listen { addr, source })?;
                sockets.push(socket);
            }
        }
        Ok(Self { http })
    }

    /// Where clear HTTP is served.
    #[must_use]
    pub fn http_addrs(&self) -> Vec<SocketAddr> {
        self.http.first().into_iter().flatten().filter_map(|socket| socket.local_addr().ok()).collect()
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
