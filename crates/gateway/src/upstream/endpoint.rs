//! One address of an application, with the connections kept open to it.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpStream;

use crate::config::{Timeouts, UpstreamConfig, ms};
use crate::upstream::Link;

/// An address of an application.
pub(crate) struct Endpoint {
    /// `host:port`, as `connect` takes it.
    authority: Box<str>,
    #[expect(clippy::vec_box, reason = "a link moves with each request; its state is large")]
    idle: RefCell<Vec<Box<Link>>>,
    most_idle: usize,
    connect: Duration,
    clock: Rc<dyn Fn() -> u64>,
}

impl Endpoint {
    pub(crate) fn new(authority: &str, config: &UpstreamConfig, timeouts: &Timeouts, clock: Rc<dyn Fn() -> u64>) -> Rc<Self> {
        Rc::new(Self {
            authority: authority.into(),
            idle: RefCell::default(),
            most_idle: config.idle_connections,
            connect: ms(timeouts.connect_ms),
            clock,
        })
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// A connection that was used before and still stands; the one used last.
    pub(crate) fn take_idle(&self) -> Option<Box<Link>> {
        loop {
            let mut link = self.idle.borrow_mut().pop()?;
            if link.is_usable() {
                return Some(link);
            }
        }
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> std::io::Result<Box<Link>> {
        Link::new(self.dial().await?).await.map_err(std::io::Error::other)
    }

    /// A new connection, before anything is spoken on it.
    pub(crate) async fn dial(&self) -> std::io::Result<TcpStream> {
        let stream = tokio::time::timeout(self.connect, TcpStream::connect(&*self.authority)).await??;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Keeps a connection for the next request.
    pub(crate) fn give_back(&self, mut link: Box<Link>) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.most_idle {
            link.is_used = true;
            link.idle_since = (self.clock)();
            idle.push(link);
        }
    }

    /// Closes what was closed by the application, or has been idle since before `oldest`.
    pub(crate) fn sweep(&self, oldest: u64) {
        self.idle.borrow_mut().retain_mut(|link| link.idle_since >= oldest && link.is_usable());
    }
}
