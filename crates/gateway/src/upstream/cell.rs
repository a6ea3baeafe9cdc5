//! Which applications serve a cell.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;
use insula_catalog::Catalog;
use insula_core::CellName;

use crate::config::{Timeouts, UpstreamConfig};
use crate::upstream::Endpoint;

/// A cell's applications: one, or several that do the same.
pub(crate) struct CellUpstream {
    /// As the catalog has it: another text makes another of these.
    url: Box<str>,
    endpoints: Vec<Rc<Endpoint>>,
    next: Cell<usize>,
}

impl CellUpstream {
    /// An endpoint, by turns.
    pub(crate) fn pick(&self) -> Option<&Rc<Endpoint>> {
        let turn = self.next.get();
        self.next.set(turn.wrapping_add(1));
        self.endpoints.get(turn.checked_rem(self.endpoints.len())?)
    }
}

/// All that a worker has had to do with.
pub(crate) struct Cells {
    by_name: RefCell<HashMap<CellName, Rc<CellUpstream>, RandomState>>,
    config: UpstreamConfig,
    timeouts: Timeouts,
    clock: Rc<dyn Fn() -> u64>,
}

impl Cells {
    pub(crate) fn new(config: UpstreamConfig, timeouts: Timeouts, clock: Rc<dyn Fn() -> u64>) -> Self {
        Self { by_name: RefCell::default(), config, timeouts, clock }
    }

    /// The applications of a cell; `None` when it has none and there is no default.
    pub(crate) fn get(&self, name: &CellName, catalog: &Catalog) -> Option<Rc<CellUpstream>> {
        if let Some(cell) = self.by_name.borrow().get(name) {
            return Some(Rc::clone(cell));
        }
        let cell = Rc::new(self.make(&self.url_of(name, catalog)?));
        self.by_name.borrow_mut().insert(name.clone(), Rc::clone(&cell));
        Some(cell)
    }

    fn url_of(&self, name: &CellName, catalog: &Catalog) -> Option<Box<str>> {
        let url = catalog.cell(name).and_then(|cell| cell.app_url.clone());
        url.map(|url| Box::from(&*url)).or_else(|| self.config.default_url.as_deref().map(Box::from))
    }

    /// Reads base URLs with spaces or commas between them.
    fn make(&self, url: &str) -> CellUpstream {
        let each = url.split([' ', ',']).filter(|one| !one.is_empty());
        let endpoints = each.filter_map(|one| {
            let authority = authority(one);
            if authority.is_none() {
                tracing::error!(url = one, "an application's address is not http://HOST:PORT: left out");
            }
            Some(Endpoint::new(&authority?, &self.config, &self.timeouts, Rc::clone(&self.clock)))
        });
        CellUpstream { url: url.into(), endpoints: endpoints.collect(), next: Cell::new(0) }
    }

    /// Forgets what the catalog says otherwise by now; requests under way keep what they have.
    pub(crate) fn catch_up(&self, catalog: &Catalog) {
        self.by_name.borrow_mut().retain(|name, cell| self.url_of(name, catalog).is_some_and(|url| url == cell.url));
    }

    /// Closes connections that are of no more use.
    pub(crate) fn sweep(&self) {
        let oldest = (self.clock)().saturating_sub(self.timeouts.upstream_idle_ms);
        for endpoint in self.by_name.borrow().values().flat_map(|cell| &cell.endpoints) {
            endpoint.sweep(oldest);
        }
    }
}

/// `http://host:port/` -> `host:port`.
fn authority(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("http") && matches!(uri.path(), "/" | ""))?;
    Some(format!("{host}:{}", uri.port_u16().unwrap_or(80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_or_refused() {
        assert_eq!(authority("http://127.0.0.1:8080").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(authority("http://app/").as_deref(), Some("app:80"));
        assert_eq!(authority("http://[::1]:1").as_deref(), Some("[::1]:1"));
        for bad in ["", "app:80", "https://app", "http://app/path", "ftp://x"] {
            assert_eq!(authority(bad), None, "{bad}");
        }
    }
}
