//! One address of an application: how it is, and the connections kept open to it.

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use insula_planner::breaker::{Breaker, Policy, Probed, Verdict};
use tokio::net::TcpStream;

use crate::config::{Timeouts, UpstreamConfig, ms};
use crate::upstream::Link;
use crate::watch::Watches;

/// An address of an application.
pub(crate) struct Endpoint {
    /// `host:port`, as `connect` takes it.
    authority: Box<str>,
    #[expect(clippy::vec_box, reason = "a link moves with each request; its state is large")]
    idle: RefCell<Vec<Box<Link>>>,
    most_idle: usize,
    connect: Duration,
    watches: Rc<Watches>,
    /// What requests have seen of it.
    circuit: RefCell<Breaker>,
    /// What the last health check has seen of it.
    is_sick: Cell<bool>,
}

impl Endpoint {
    pub(crate) fn new(authority: &str, config: &UpstreamConfig, timeouts: &Timeouts, watches: Rc<Watches>) -> Rc<Self> {
        // A neighbour does its work meanwhile, so that little is lost by leaving it alone early.
        let policy = Policy { in_a_row: 3, ..Policy::default() };
        Rc::new(Self {
            authority: authority.into(),
            idle: RefCell::default(),
            most_idle: config.idle_connections,
            connect: ms(timeouts.connect_ms),
            watches,
            circuit: RefCell::new(Breaker::new(policy)),
            is_sick: Cell::new(false),
        })
    }

    pub(crate) fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether a request may go there.
    pub(crate) fn ask(&self) -> Verdict {
        if self.is_sick.get() { Verdict::Refuse(0) } else { self.circuit.borrow_mut().ask(self.now()) }
    }

    /// What became of a request.
    pub(crate) fn told(&self, was_probe: bool, is_sound: bool) {
        if was_probe {
            self.probed(if is_sound { Probed::Sound } else { Probed::Failed });
        } else {
            // What is sound opens nothing.
            let chance = if is_sound { 0 } else { chance() };
            self.circuit.borrow_mut().record(self.now(), u64::from(is_sound), !is_sound, chance);
        }
    }

    pub(crate) fn probed(&self, outcome: Probed) {
        self.circuit.borrow_mut().probed(self.now(), outcome, chance());
    }

    /// What a health check has found.
    pub(crate) fn set_health(&self, is_well: bool) {
        if self.is_sick.replace(!is_well) == is_well {
            tracing::warn!(endpoint = self.authority(), is_well, "an application's health has changed");
        }
    }

    /// Nanoseconds, to a tenth of a second.
    fn now(&self) -> u64 {
        self.watches.now() * 1_000_000
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
        Ok(Link::new(self.dial().await?))
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
            link.idle_since = self.watches.now();
            idle.push(link);
        }
    }

    /// Closes what was closed by the application, or has been idle since before `oldest`.
    pub(crate) fn sweep(&self, oldest: u64) {
        self.idle.borrow_mut().retain_mut(|link| link.idle_since >= oldest && link.is_usable());
    }
}

/// Spreads pauses: the hasher's keys are random.
fn chance() -> u32 {
    (RandomState::new().hash_one(0) >> 32) as u32
}
