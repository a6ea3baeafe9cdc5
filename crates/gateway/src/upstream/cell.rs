//! Which applications serve a cell, and which of them is asked.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use insula_catalog::{Catalog, Found};
use insula_core::CellName;
use insula_planner::breaker::{Probed, Verdict};

use crate::config::{Timeouts, UpstreamConfig};
use crate::upstream::Endpoint;
use crate::watch::Watches;

/// A cell's applications: one, or several that do the same.
pub(crate) struct CellUpstream {
    /// As the catalog has it: another text makes another of these.
    url: Box<str>,
    endpoints: Vec<Rc<Endpoint>>,
    next: Cell<usize>,
    pub(crate) budget: Budget,
}

/// A share of requests that may be sent again (Google SRE book, chapter 22): each request earns a part of a retry.
pub(crate) struct Budget {
    saved: Cell<f32>,
    share: f32,
}

/// The most that is saved: a burst of retries after a quiet time.
const MOST_SAVED: f32 = 20.0;

impl Budget {
    pub(crate) fn earn(&self) {
        self.saved.set((self.saved.get() + self.share).min(MOST_SAVED));
    }

    pub(crate) fn spend(&self) -> bool {
        let left = self.saved.get() - 1.0;
        if left < 0.0 {
            return false;
        }
        self.saved.set(left);
        true
    }
}

/// One request's turn at an endpoint. Dropped untold, it says nothing of it.
pub(crate) struct Turn {
    pub(crate) endpoint: Rc<Endpoint>,
    verdict: Verdict,
}

impl Turn {
    /// It answered.
    pub(crate) fn sound(mut self) -> Rc<Endpoint> {
        self.tell(true);
        Rc::clone(&self.endpoint)
    }

    /// It did not.
    pub(crate) fn failed(mut self) {
        self.tell(false);
    }

    fn tell(&mut self, is_sound: bool) {
        self.endpoint.told(self.verdict == Verdict::Probe, is_sound);
        self.verdict = Verdict::Pass;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.verdict == Verdict::Probe {
            self.endpoint.probed(Probed::Unknown);
        }
    }
}

impl CellUpstream {
    /// An endpoint, by turns, of those that are well. The only one is asked whatever it was: the cell's own circuit guards it.
    pub(crate) fn pick(&self) -> Option<Turn> {
        if let [only] = &*self.endpoints {
            return Some(Turn { endpoint: Rc::clone(only), verdict: Verdict::Pass });
        }
        let first = self.next.get();
        self.next.set(first.wrapping_add(1));
        (0..self.endpoints.len()).find_map(|n| {
            let endpoint = self.endpoints.get(first.wrapping_add(n).checked_rem(self.endpoints.len())?)?;
            match endpoint.ask() {
                Verdict::Refuse(_) => None,
                verdict => Some(Turn { endpoint: Rc::clone(endpoint), verdict }),
            }
        })
    }

    pub(crate) fn has_others(&self) -> bool {
        self.endpoints.len() > 1
    }
}

/// What serves the tenants of a cell.
enum Stacks {
    /// One application serves all.
    One(Rc<CellUpstream>),
    /// Each serves tenants of some schema versions: in the order of the cell's list.
    Versions(Arc<insula_catalog::Cell>, Vec<Rc<CellUpstream>>),
}

impl Stacks {
    /// What serves this tenant; `None` when its tables are of a version that none here knows.
    fn of(&self, tenant: &Found) -> Option<Rc<CellUpstream>> {
        match self {
            Self::One(one) => Some(Rc::clone(one)),
            Self::Versions(cell, each) => {
                let url = cell.app_for(tenant.no, tenant.route().schema_version)?;
                each.iter().find(|upstream| *upstream.url == **url).cloned()
            }
        }
    }

    fn all(&self) -> &[Rc<CellUpstream>] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Versions(_, each) => each,
        }
    }
}

/// All that a worker has had to do with.
pub(crate) struct Cells {
    by_name: RefCell<HashMap<CellName, Stacks, RandomState>>,
    host_side: Option<Rc<CellUpstream>>,
    config: UpstreamConfig,
    timeouts: Timeouts,
    watches: Rc<Watches>,
}

impl Cells {
    pub(crate) fn new(config: UpstreamConfig, timeouts: Timeouts, watches: Rc<Watches>) -> Self {
        let mut cells = Self { by_name: RefCell::default(), host_side: None, config, timeouts, watches };
        cells.host_side = cells.config.host_side_url.as_deref().map(|url| Rc::new(cells.make(url)));
        cells
    }

    /// The applications of a tenant's cell, or of the host side; `None` when there are none.
    pub(crate) fn of(&self, tenant: Option<&Found>, catalog: &Catalog) -> Option<Rc<CellUpstream>> {
        match tenant {
            Some(tenant) => self.get(tenant, catalog),
            None => self.host_side.clone(),
        }
    }

    fn get(&self, tenant: &Found, catalog: &Catalog) -> Option<Rc<CellUpstream>> {
        let name = tenant.cell();
        if let Some(stacks) = self.by_name.borrow().get(name) {
            return stacks.of(tenant);
        }
        let stacks = match catalog.cell(name).filter(|cell| !cell.app_versions.is_empty()) {
            Some(cell) => {
                let each = cell.app_versions.iter().map(|app| Rc::new(self.make(&app.url))).collect();
                Stacks::Versions(cell, each)
            }
            None => Stacks::One(Rc::new(self.make(&self.url_of(name, catalog)?))),
        };
        let found = stacks.of(tenant);
        self.by_name.borrow_mut().insert(name.clone(), stacks);
        found
    }

    /// Whether the catalog still says of a cell what we know of it.
    fn stands(&self, name: &CellName, stacks: &Stacks, catalog: &Catalog) -> bool {
        let versions = catalog.look(|view| view.cell(name).map(|cell| Arc::clone(&cell.app_versions)));
        let versions = versions.unwrap_or_else(|| Arc::new([]));
        match stacks {
            Stacks::One(one) => versions.is_empty() && self.url_of(name, catalog).is_some_and(|url| url == one.url),
            Stacks::Versions(cell, _) => cell.app_versions == versions,
        }
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
            Some(Endpoint::new(&authority?, &self.config, &self.timeouts, Rc::clone(&self.watches)))
        });
        let budget = Budget { saved: Cell::new(MOST_SAVED), share: self.config.retry_share };
        CellUpstream { url: url.into(), endpoints: endpoints.collect(), next: Cell::new(0), budget }
    }

    /// Forgets what the catalog says otherwise by now; requests under way keep what they have.
    pub(crate) fn catch_up(&self, catalog: &Catalog) {
        self.by_name.borrow_mut().retain(|name, stacks| self.stands(name, stacks, catalog));
    }

    /// Closes connections that are of no more use.
    pub(crate) fn sweep(&self) {
        let oldest = self.watches.now().saturating_sub(self.timeouts.upstream_idle_ms);
        for endpoint in self.by_name.borrow().values().flat_map(Stacks::all).flat_map(|cell| &cell.endpoints) {
            endpoint.sweep(oldest);
        }
    }

    /// The endpoints that stand beside others: those whose health is looked at.
    pub(crate) fn to_be_checked(&self) -> Vec<Rc<Endpoint>> {
        let cells = self.by_name.borrow();
        cells.values().flat_map(Stacks::all).filter(|cell| cell.has_others()).flat_map(|cell| &cell.endpoints).cloned().collect()
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

    #[test]
    fn retries_are_a_share_of_requests() {
        let budget = Budget { saved: Cell::new(2.0), share: 0.25 };
        assert!(budget.spend() && budget.spend() && !budget.spend());
        (0..4).for_each(|_| budget.earn());
        assert!(budget.spend() && !budget.spend());
    }

    #[test]
    fn a_sick_endpoint_is_left_out_until_a_probe_comes_back() {
        let cells = Cells::new(UpstreamConfig::default(), Timeouts::default(), Rc::new(Watches::new()));
        let cell = cells.make("http://a:1 http://b:2");
        let names = |n: usize| -> Vec<String> {
            (0..n).filter_map(|_| cell.pick()).map(|turn| turn.endpoint.authority().to_owned()).collect()
        };
        assert_eq!(names(4), ["a:1", "b:2", "a:1", "b:2"]);
        for _ in 0..3 {
            cell.endpoints[0].told(false, false);
        }
        assert_eq!(names(3), ["b:2", "b:2", "b:2"]);
        cell.endpoints[1].set_health(false);
        assert!(names(1).is_empty());
        cell.endpoints[1].set_health(true);
        assert_eq!(names(1), ["b:2"]);
    }
}
