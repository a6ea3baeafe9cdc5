//! The decision: what the sources say, held against each other and against the principal.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use insula_catalog::host::{self, Host};
use insula_catalog::{Catalog, Found, Known, Route, View};
use insula_core::{Principal, Slug, TenantId, TenantState, Via};

use crate::admit::Admission;
use crate::resolve::contributor::{Asked, Contributor, Hint};
use crate::resolve::options::{OptionsError, ResolveOptions, SourceSpec};
use crate::resolve::refusal::{Refusal, UnknownTenant};
use crate::resolve::unknown::Unknowns;

/// Whose request it is.
#[derive(Clone, Debug)]
pub enum Resolved {
    /// An active tenant's.
    Tenant {
        /// The tenant.
        route: Found,
        /// The first source that named it; `fallback` when none did.
        by: &'static str,
    },
    /// The provider's own: it reached one of the hosts that lead to no tenant.
    HostSide,
}

/// Finds the tenant of a request. Cheap to clone; see the module for what always holds.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
    ahead: Option<Admission>,
}

struct Shared {
    sources: Vec<Limited>,
    host_side: Vec<Box<str>>,
    shared_hosts: Vec<Box<str>>,
    fallback: Option<Slug>,
    /// Keyed, so that nobody can choose names that push each other out of memory.
    hasher: RandomState,
    unknowns: Unknowns,
}

/// A source and the path prefixes that it is limited to.
struct Limited {
    source: Arc<dyn Contributor>,
    only: Vec<Box<str>>,
}

impl Limited {
    #[inline]
    fn applies(&self, path: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|prefix| is_below(path, prefix))
    }
}

/// `/api` and `/api/x` are below `/api`; `/apis` is not.
fn is_below(path: &str, prefix: &str) -> bool {
    let rest = path.strip_prefix(prefix.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Puts a [`Resolver`] together.
pub struct ResolverBuilder {
    options: ResolveOptions,
    sources: Vec<Limited>,
}

impl ResolverBuilder {
    /// Adds a source of one's own, behind those that are there, limited to path prefixes unless there are none.
    #[must_use]
    pub fn then(mut self, source: impl Contributor, only: &[&str]) -> Self {
        self.sources.push(Limited { source: Arc::new(source), only: only.iter().map(|p| Box::from(*p)).collect() });
        self
    }

    /// Adds a source of one's own before all that are there.
    #[must_use]
    pub fn first(mut self, source: impl Contributor, only: &[&str]) -> Self {
        self = self.then(source, only);
        self.sources.rotate_right(1);
        self
    }

    /// # Errors
    /// [`OptionsError`].
    pub fn build(self) -> Result<Resolver, OptionsError> {
        let Self { options, sources } = self;
        if sources.is_empty() && options.fallback.is_none() {
            return Err(OptionsError::Empty);
        }
        let (host_side, shared_hosts) = (hosts(&options.host_side)?, hosts(&options.shared_hosts)?);
        if let Some(both) = host_side.iter().find(|host| shared_hosts.contains(host)) {
            return Err(OptionsError::Both(both.to_string()));
        }
        let (hasher, unknowns) = (RandomState::default(), Unknowns::new(options.unknown));
        let shared = Shared { sources, host_side, shared_hosts, fallback: options.fallback, hasher, unknowns };
        Ok(Resolver { shared: Arc::new(shared), ahead: None })
    }
}

fn hosts(texts: &[String]) -> Result<Vec<Box<str>>, OptionsError> {
    let read = |text: &String| {
        host::parse(text).map(|host| host.as_str().into()).map_err(|why| OptionsError::Host { text: text.clone(), why })
    };
    texts.iter().map(read).collect()
}

impl Default for Resolver {
    /// By [`ResolveOptions::default`].
    fn default() -> Self {
        let ResolveOptions { sources, fallback, unknown, .. } = ResolveOptions::default();
        let shared = Shared {
            sources: sources.iter().map(limited).collect(),
            host_side: Vec::new(),
            shared_hosts: Vec::new(),
            fallback,
            hasher: RandomState::default(),
            unknowns: Unknowns::new(unknown),
        };
        Self { shared: Arc::new(shared), ahead: None }
    }
}

fn limited(spec: &SourceSpec) -> Limited {
    Limited { source: spec.contributor(), only: spec.only.clone() }
}

impl Resolver {
    /// By settings.
    ///
    /// # Errors
    /// [`OptionsError`] in words for whoever wrote them.
    pub fn new(options: ResolveOptions) -> Result<Self, OptionsError> {
        Self::builder(options)?.build()
    }

    /// By settings, and sources of one's own.
    ///
    /// # Errors
    /// [`OptionsError::Twice`].
    pub fn builder(options: ResolveOptions) -> Result<ResolverBuilder, OptionsError> {
        for (i, source) in options.sources.iter().enumerate() {
            if options.sources.iter().take(i).any(|earlier| earlier.kind == source.kind) {
                return Err(OptionsError::Twice(source.to_string()));
            }
        }
        let sources = options.sources.iter().map(limited).collect();
        Ok(ResolverBuilder { options, sources })
    }

    /// Whoever is resolved asks this for admission next: [`Resolver::expect`] has what admission knows of the tenant fetched, too. Changes no decision.
    #[must_use]
    pub fn ahead_of(self, admission: &Admission) -> Self {
        Self { ahead: Some(admission.clone()), ..self }
    }

    /// Has what a request's host leads to fetched into the processor's cache, for who has something else to do before the request is resolved: a line
    /// of memory that is not at hand takes longer than most else in a decision. Changes no decision.
    #[inline]
    pub fn expect(&self, host: &Host<'_>, catalog: &Catalog) {
        let slug = catalog.look(|view| view.expect_host(host.as_str()));
        if let (Some(admission), Some(slug)) = (&self.ahead, slug) {
            admission.expect(slug);
        }
    }

    /// Decides from what is known now: no wait, and no allocation when it is answered with a tenant named by its domain. Reports what is
    /// a security event.
    ///
    /// # Errors
    /// [`Refusal`]. For [`Refusal::Unknown`] there is [`Resolver::find`], which asks.
    #[inline]
    pub fn resolve(&self, asked: &Asked<'_>, catalog: &Catalog) -> Result<Resolved, Refusal> {
        let decided = catalog.look(|view| self.shared.decide(asked, view));
        if let Err(refusal) = &decided {
            refusal.report();
        }
        decided
    }

    /// As [`Resolver::resolve`]; a name that nobody knows is asked about first, in its bounds ([`Unknowns`]).
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn find(&self, asked: &Asked<'_>, catalog: &Catalog) -> Result<Resolved, Refusal> {
        match self.resolve(asked, catalog) {
            Err(Refusal::Unknown { what, .. }) if self.shared.unknowns.ask(catalog, what).await => {
                let again = self.resolve(asked, catalog);
                if let Err(Refusal::Unknown { what, .. }) = &again {
                    self.shared.unknowns.remember(*what);
                }
                again
            }
            decided => decided,
        }
    }
}

impl Resolver {
    /// The tenant that somebody else has proven (a context token): no source is asked. A tenant that nobody knows is asked about first, in
    /// its bounds.
    ///
    /// # Errors
    /// [`Refusal::Unknown`], [`Refusal::Suspended`].
    pub async fn find_by_id(&self, id: TenantId, catalog: &Catalog) -> Result<Arc<Route>, Refusal> {
        let look = || {
            let what = UnknownTenant { hash: self.shared.hasher.hash_one(id.uuid().as_u128()) };
            let route = catalog.by_id(id).ok_or(Refusal::Unknown { by: "context", what })?;
            match route.state() {
                TenantState::Active => Ok(route.arc()),
                TenantState::Suspended => Err(Refusal::Suspended { tenant: id }),
                TenantState::Provisioning | TenantState::Deleted => Err(Refusal::Unknown { by: "context", what }),
            }
        };
        match look() {
            Err(Refusal::Unknown { what, .. }) if self.shared.unknowns.ask(catalog, what).await => {
                look().inspect_err(|refusal| {
                    if let Refusal::Unknown { what, .. } = refusal {
                        self.shared.unknowns.remember(*what);
                    }
                })
            }
            found => found,
        }
    }
}

impl Shared {
    #[inline]
    fn decide(&self, asked: &Asked<'_>, view: View<'_>) -> Result<Resolved, Refusal> {
        if is_one_of(asked.host.as_str(), &self.host_side) {
            return Ok(Resolved::HostSide);
        }
        let mut named: Option<(Known<'_>, &'static str)> = None;
        let path = asked.uri.path();
        for limited in self.sources.iter().filter(|limited| limited.applies(path)) {
            let Some(hint) = limited.source.hint(asked)? else { continue };
            let Some(said) = self.look_up(&hint, view) else { continue };
            let source = limited.source.name();
            let known = said.map_err(|what| Refusal::Unknown { by: source, what })?;
            match named {
                None => named = Some((known, source)),
                Some((other, _)) if other.no == known.no => {}
                Some((other, first)) => {
                    return Err(Refusal::Disagree { first: (first, other.route().id), second: (source, known.route().id) });
                }
            }
        }
        let bound = asked.principal().filter(|principal| is_bound(principal));
        let (known, by) = match (named, bound, &self.fallback) {
            (Some(named), ..) => named,
            (None, Some(principal), _) if principal.tenants.len() > 1 => return Err(Refusal::Choose),
            (None, _, None) => return Err(Refusal::Nobody),
            (None, _, Some(slug)) => {
                let unknown = || Refusal::Unknown { by: "fallback", what: self.unknown(slug.as_str()) };
                (view.by_slug(slug.as_str()).ok_or_else(unknown)?.into(), "fallback")
            }
        };
        if let Some(principal) = bound
            && !principal.belongs_to(known.route().id)
        {
            return Err(Refusal::Foreign { tenant: known.route().id, subject: Arc::clone(&principal.subject) });
        }
        match known.state() {
            TenantState::Active => Ok(Resolved::Tenant { route: known.found(), by }),
            TenantState::Suspended => Err(Refusal::Suspended { tenant: known.route().id }),
            // In the making, or deleted: as good as none.
            TenantState::Provisioning | TenantState::Deleted => {
                Err(Refusal::Unknown { by, what: self.unknown(known.slug.as_str()) })
            }
        }
    }

    /// The tenant that a hint means; `None` when it means none, an error when it means one that is not known.
    #[inline]
    fn look_up<'v>(&self, hint: &Hint<'_>, view: View<'v>) -> Option<Result<Known<'v>, UnknownTenant>> {
        Some(match hint {
            Hint::Host(host) => {
                let text = host.as_str();
                match view.known_by_host(text) {
                    Some(known) => Ok(known),
                    None if host.is_address() || text == view.base_domain() || is_one_of(text, &self.shared_hosts) => {
                        return None;
                    }
                    None => Err(self.unknown(text)),
                }
            }
            Hint::Id(id) => {
                let unknown = || UnknownTenant { hash: self.hasher.hash_one(id.uuid().as_u128()) };
                view.by_id(*id).map(Known::from).ok_or_else(unknown)
            }
            Hint::Name(name) => {
                // An id is longer than most slugs; a slug may look like one, so it is looked for first.
                let route = view.by_slug(name).or_else(|| view.by_id(name.parse().ok()?));
                route.map(Known::from).ok_or_else(|| self.unknown(name))
            }
        })
    }

    fn unknown(&self, text: &str) -> UnknownTenant {
        UnknownTenant { hash: self.hasher.hash_one(text) }
    }
}

#[inline]
fn is_one_of(host: &str, hosts: &[Box<str>]) -> bool {
    hosts.iter().any(|one| **one == *host)
}

/// A session of the application's own that says no tenant: the application checks it. Every other principal is bound to its tenants,
/// also when there are none.
fn is_bound(principal: &Principal) -> bool {
    !(principal.via == Via::Session && principal.tenants.is_empty())
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sources: Vec<_> = self.shared.sources.iter().map(|limited| limited.source.name()).collect();
        f.debug_struct("Resolver").field("sources", &sources).finish_non_exhaustive()
    }
}
