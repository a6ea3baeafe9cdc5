//! What says whose request it is.
//!
//! Always: a source says one thing or nothing. A parameter, header or cookie that comes twice is refused: whoever stands before or
//! behind us might read the other one.

use std::borrow::Cow;

use http::header::COOKIE;
use http::{Extensions, HeaderMap, HeaderName, Request, Uri};
use insula_catalog::host::Host;
use insula_core::{Principal, TenantId};
use url::form_urlencoded;

use crate::host;
use crate::resolve::Refusal;

/// A request as far as resolution reads it: its head, and its host in the one normal form.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its target.
    pub uri: &'a Uri,
    /// What earlier layers found out: the [`Principal`], when there is one.
    pub extensions: &'a Extensions,
    /// Where it was sent.
    pub host: Host<'a>,
}

impl<'a> Asked<'a> {
    /// Reads a request's head.
    ///
    /// # Errors
    /// [`Refusal::Host`] when its host is missing, malformed, or can be read in two ways.
    #[inline]
    pub fn read(headers: &'a HeaderMap, uri: &'a Uri, extensions: &'a Extensions) -> Result<Self, Refusal> {
        Ok(Self { headers, uri, extensions, host: host::of(headers, uri)? })
    }

    /// [`Asked::read`] of a whole request; the body is not touched.
    ///
    /// # Errors
    /// As [`Asked::read`].
    #[inline]
    pub fn of<B>(request: &'a Request<B>) -> Result<Self, Refusal> {
        Self::read(request.headers(), request.uri(), request.extensions())
    }

    /// Who was authenticated, if anybody.
    #[must_use]
    #[inline]
    pub fn principal(&self) -> Option<&'a Principal> {
        self.extensions.get()
    }
}

/// What a source says.
#[derive(Clone, Debug)]
pub enum Hint<'a> {
    /// The tenant of this id.
    Id(TenantId),
    /// The tenant of this slug, or of this id as text.
    Name(Cow<'a, str>),
    /// The tenant of this host; nobody, when the host is the base domain, a shared host or an address.
    Host(Host<'a>),
}

/// A source of hints. Write your own where a tenant is named by something else: a client certificate, a signed link.
///
/// It may say whatever it likes: what it says is only ever a hint, held against the other sources and the principal.
pub trait Contributor: Send + Sync + 'static {
    /// Its name, in the words of the log: `header`.
    fn name(&self) -> &'static str;

    /// What it says about this request; `None` when nothing.
    ///
    /// # Errors
    /// [`Refusal`] when the request says it twice, or unreadably. To answer "nothing" then would let the other sources decide.
    fn hint<'a>(&self, asked: &Asked<'a>) -> Result<Option<Hint<'a>>, Refusal>;
}

/// The claim of whoever is authenticated. One that belongs to several tenants says nothing: it chooses by another source.
pub(crate) struct Claim;

/// A query parameter.
pub(crate) struct Query(pub(crate) Box<str>);

/// The path's part after a prefix: `acme` of `/~acme/documents` after `/~`.
pub(crate) struct Segment(pub(crate) Box<str>);

/// A header.
pub(crate) struct Header(pub(crate) HeaderName);

/// A cookie.
pub(crate) struct Cookie(pub(crate) Box<str>);

/// The host: `SLUG.<base domain>`, or a tenant's own.
pub(crate) struct Domain;

impl Contributor for Claim {
    fn name(&self) -> &'static str {
        "principal"
    }

    fn hint<'a>(&self, asked: &Asked<'a>) -> Result<Option<Hint<'a>>, Refusal> {
        Ok(match asked.principal().map(|principal| &*principal.tenants) {
            Some([one]) => Some(Hint::Id(*one)),
            _ => None,
        })
    }
}

impl Contributor for Query {
    fn name(&self) -> &'static str {
        "query"
    }

    fn hint<'a>(&self, asked: &Asked<'a>) -> Result<Option<Hint<'a>>, Refusal> {
        let Some(query) = asked.uri.query() else { return Ok(None) };
        let found = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| *name == *self.0).map(|(_, value)| value);
        single(self.name(), found)
    }
}

impl Contributor for Segment {
    fn name(&self) -> &'static str {
        "route"
    }

    fn hint<'a>(&self, asked: &Asked<'a>) -> Result<Option<Hint<'a>>, Refusal> {
        let Some(rest) = asked.uri.path().strip_prefix(&*self.0) else { return Ok(None) };
        let segment = rest.split('/').next().unwrap_or_default();
        single(self.name(), (!segment.is_empty()).then_some(Cow::Borrowed(segment)).into_iter())
    }
}

impl Contributor for Header {
    fn name(&self) -> &'static str {
        "header"
    }

    fn hint<'a>(&self, asked: &Asked<'a>) -> Result<Option<Hint<'a>>, Refusal> {
        // What is no text is no name either, and must not count as silence.
        let found = asked.headers.get_all(&self.0).iter().map(|value| Cow::Borrowed(value.to_str().unwrap_or("%")));
        single(self.name(), found)
    }
}

impl Contributor for Cookie {
    fn name(&self) -> &'static str {
        "cookie"
    }

    fn hint<'a>(&self, asked: &Asked<'a>) -> Result<Option<Hint<'a>>, Refusal> {
        let mut headers = asked.headers.get_all(COOKIE).iter().peekable();
        if headers.peek().is_none() {
            return Ok(None);
        }
        let pairs = headers.flat_map(|value| value.as_bytes().split(|b| *b == b';'));
        let found = pairs.filter_map(|pair| {
            let at = pair.iter().position(|b| *b == b'=')?;
            let is_it = pair[..at].trim_ascii() == self.0.as_bytes();
            // As with headers: what is no text must not count as silence.
            is_it.then(|| Cow::Borrowed(std::str::from_utf8(pair[at + 1..].trim_ascii()).unwrap_or("%")))
        });
        single(self.name(), found)
    }
}

impl Contributor for Domain {
    fn name(&self) -> &'static str {
        "domain"
    }

    fn hint<'a>(&self, asked: &Asked<'a>) -> Result<Option<Hint<'a>>, Refusal> {
        Ok(Some(Hint::Host(asked.host.clone())))
    }
}

/// The one value, which must look like a slug or an id.
fn single<'a>(source: &'static str, mut found: impl Iterator<Item = Cow<'a, str>>) -> Result<Option<Hint<'a>>, Refusal> {
    let Some(value) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(Refusal::Twice { by: source });
    }
    let plain = (1..=63).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain { Ok(Some(Hint::Name(value))) } else { Err(Refusal::Unreadable { by: source }) }
}
