//! How tenants are found, as settings say it.
//!
//! A source is one word of text, in a TOML list as in an environment variable: `principal`, `query:NAME`, `route:/PREFIX`,
//! `header:NAME`, `cookie:NAME`, `domain`; and behind it, each with an `@`, the path prefixes that it is limited to:
//! `header:x-tenant@/api`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderName;
use http::header::{AUTHORIZATION, COOKIE, HOST};
use insula_core::Slug;
use serde::{Deserialize, Serialize};

use crate::resolve::UnknownOptions;
use crate::resolve::contributor::{Claim, Contributor, Cookie, Domain, Header, Query, Segment};

/// How tenants are found. The default suits an application and a gateway alike: all sources, each under a name that no application has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResolveOptions {
    /// The sources, the one that is believed first standing first. All that apply are asked, and must agree.
    pub sources: Vec<SourceSpec>,
    /// Hosts of the provider's own: they reach no tenant, whatever else the request says.
    pub host_side: Vec<String>,
    /// Hosts that name no tenant, so that another source must: `api.example.com`. The base domain and addresses are such by themselves.
    pub shared_hosts: Vec<String>,
    /// The tenant of requests that name none. Not for names that lead nowhere.
    pub fallback: Option<Slug>,
    /// How names are treated that nobody knows.
    pub unknown: UnknownOptions,
}

impl Default for ResolveOptions {
    fn default() -> Self {
        let all = [
            SourceKind::Principal,
            SourceKind::Query("insula_tenant".into()),
            SourceKind::Route("/~".into()),
            SourceKind::Header(HeaderName::from_static("x-insula-tenant")),
            SourceKind::Cookie("insula_tenant".into()),
            SourceKind::Domain,
        ];
        Self {
            sources: all.into_iter().map(SourceSpec::from).collect(),
            host_side: Vec::new(),
            shared_hosts: Vec::new(),
            fallback: None,
            unknown: UnknownOptions::default(),
        }
    }
}

/// A source, and where it applies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SourceSpec {
    /// What it is.
    pub kind: SourceKind,
    /// The path prefixes that it is limited to (`/api` is `/api` and all below it); everywhere when empty.
    pub only: Vec<Box<str>>,
}

/// The sources that are built in. The names are the request's, never a tenant's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The claim of whoever is authenticated.
    Principal,
    /// The query parameter of this name.
    Query(Box<str>),
    /// What stands in the path behind this prefix, up to the next slash.
    Route(Box<str>),
    /// The header of this name.
    Header(HeaderName),
    /// The cookie of this name.
    Cookie(Box<str>),
    /// The host.
    Domain,
}

/// Why settings of resolution do not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// No such source.
    #[error(
        "{0:?} is no source: there are principal, query:NAME, route:/PREFIX, header:NAME, cookie:NAME and domain, each perhaps with @/PATH behind it"
    )]
    Source(String),
    /// A source's name, or a path prefix, cannot be one.
    #[error("{text:?} is no source: {why}")]
    Name {
        /// The source as written.
        text: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The same source twice.
    #[error("the source {0} stands there twice")]
    Twice(String),
    /// No source and no fallback.
    #[error("there is neither a source nor a fallback, so no request would have a tenant")]
    Empty,
    /// Not a host.
    #[error("{text:?} is no host: {why}")]
    Host {
        /// As written.
        text: String,
        /// What is wrong with it.
        why: insula_catalog::host::Fault,
    },
    /// A host that is the provider's and shared by tenants.
    #[error("{0} cannot be both the host side's and shared by tenants")]
    Both(String),
}

impl SourceSpec {
    /// What does it.
    pub(crate) fn contributor(&self) -> Arc<dyn Contributor> {
        match self.kind.clone() {
            SourceKind::Principal => Arc::new(Claim),
            SourceKind::Query(name) => Arc::new(Query(name)),
            SourceKind::Route(prefix) => Arc::new(Segment(prefix)),
            SourceKind::Header(name) => Arc::new(Header(name)),
            SourceKind::Cookie(name) => Arc::new(Cookie(name)),
            SourceKind::Domain => Arc::new(Domain),
        }
    }
}

impl From<SourceKind> for SourceSpec {
    fn from(kind: SourceKind) -> Self {
        Self { kind, only: Vec::new() }
    }
}

impl FromStr for SourceSpec {
    type Err = OptionsError;

    fn from_str(text: &str) -> Result<Self, OptionsError> {
        let wrong = |why| OptionsError::Name { text: text.to_owned(), why };
        let mut parts = text.trim().split('@');
        let source = parts.next().unwrap_or_default();
        let (word, name) = source.split_once(':').map_or((source, None), |(word, name)| (word, Some(name)));
        let token = |name: &str| {
            let fits =
                !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
            fits.then(|| Box::from(name)).ok_or_else(|| wrong("a name has letters, digits, '-', '_' and '.', 64 at most"))
        };
        let kind = match (word, name) {
            ("principal", None) => SourceKind::Principal,
            ("domain", None) => SourceKind::Domain,
            ("query", Some(name)) => SourceKind::Query(token(name)?),
            ("cookie", Some(name)) => SourceKind::Cookie(token(name)?),
            ("route", Some(prefix)) if prefix.len() > 1 => SourceKind::Route(path(prefix).ok_or_else(|| wrong(A_PATH))?),
            ("route", Some(_)) => return Err(wrong("give a prefix beyond the slash, like /~ or /t/")),
            ("header", Some(name)) => {
                let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong("that is no header's name"))?;
                if [HOST, COOKIE, AUTHORIZATION].contains(&name) {
                    return Err(wrong("this header has a meaning of its own"));
                }
                SourceKind::Header(name)
            }
            _ => return Err(OptionsError::Source(text.to_owned())),
        };
        let only = parts.map(|prefix| path(prefix).ok_or_else(|| wrong(A_PATH))).collect::<Result<_, _>>()?;
        Ok(Self { kind, only })
    }
}

const A_PATH: &str = "a path prefix begins with a slash and has letters, digits and -_.~/ in it";

fn path(text: &str) -> Option<Box<str>> {
    let fits = text.starts_with('/') && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~/".contains(&b));
    fits.then(|| text.into())
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            SourceKind::Principal => f.write_str("principal"),
            SourceKind::Query(name) => write!(f, "query:{name}"),
            SourceKind::Route(prefix) => write!(f, "route:{prefix}"),
            SourceKind::Header(name) => write!(f, "header:{name}"),
            SourceKind::Cookie(name) => write!(f, "cookie:{name}"),
            SourceKind::Domain => f.write_str("domain"),
        }?;
        self.only.iter().try_for_each(|prefix| write!(f, "@{prefix}"))
    }
}

impl TryFrom<String> for SourceSpec {
    type Error = OptionsError;
    fn try_from(text: String) -> Result<Self, OptionsError> {
        text.parse()
    }
}

impl From<SourceSpec> for String {
    fn from(spec: SourceSpec) -> Self {
        spec.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_one_word() {
        for good in [
            "principal",
            "domain",
            "query:t",
            "route:/~",
            "route:/t/",
            "header:x-tenant@/api",
            "cookie:tenant@/a@/b/",
            "domain@/web",
        ] {
            assert_eq!(good.parse::<SourceSpec>().map(|s| s.to_string()), Ok(good.to_owned()));
        }
        for bad in [
            "",
            "host",
            "query",
            "query:",
            "query:a b",
            "route:t",
            "route:/",
            "header:",
            "header:host",
            "header:a b",
            "domain:x",
            "domain@api",
        ] {
            assert!(bad.parse::<SourceSpec>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn settings_are_read_and_unknown_ones_refused() {
        let read = |text: &str| serde_json::from_str::<ResolveOptions>(text).map_err(|e| e.to_string());
        assert_eq!(read("{}"), Ok(ResolveOptions::default()));
        let all = read(r#"{"sources":["principal","domain@/a"],"host_side":["console.example.com"],"fallback":"acme"}"#)
            .expect("reads");
        assert_eq!(all.sources.iter().map(ToString::to_string).collect::<Vec<_>>(), ["principal", "domain@/a"]);
        assert!(read(r#"{"source":[]}"#).is_err_and(|e| e.contains("unknown field `source`")));
        assert!(read(r#"{"sources":["hots"]}"#).is_err_and(|e| e.contains("\"hots\" is no source: there are principal")));
        assert!(read(r#"{"unknown":{"names":-1}}"#).is_err());
    }
}
