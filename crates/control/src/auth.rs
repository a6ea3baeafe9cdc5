//! Who calls: keys to the API, and what each may do.
//!
//! A key is `ik_` and 256 random bits; the catalog has its SHA-256. It is found by that hash, so there is no comparison
//! whose time could tell anything about it.
//!
//! Always: what a call needs is said in one place, the OpenAPI document (`security`), and enforced from it; a route that is
//! not in the document is refused.

use std::collections::HashMap;
use std::sync::Arc;

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Method};
use insula_api::key::{PREFIX, Scope};
use utoipa::openapi::path::Operation;
use utoipa::openapi::{OpenApi, PathItem};
use uuid::Uuid;

/// Name of the security scheme in the OpenAPI document.
pub(crate) const SCHEME: &str = "key";

/// The key that a request came with.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The key's id.
    pub(crate) key: Uuid,
    /// The key's name: the actor in the audit log.
    pub(crate) name: Arc<str>,
    /// What it may do.
    pub(crate) scope: Scope,
}

/// The key's text in a request, when there is one that could be a key.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, text) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let text = text.trim();
    (scheme.eq_ignore_ascii_case("bearer") && text.starts_with(PREFIX) && text.len() <= 128).then_some(text)
}

/// What a call needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: anyone may.
    Nothing,
    /// A key of this scope or a wider one.
    Scope(Scope),
}

/// What every call of the API needs.
#[derive(Debug)]
pub(crate) struct Policy {
    paths: HashMap<String, HashMap<Method, Need>>,
}

impl Policy {
    /// Reads it out of the document. A call whose `security` cannot be read needs `admin`.
    pub(crate) fn of(document: &OpenApi) -> Self {
        let paths = document.paths.paths.iter().map(|(path, item)| (path.clone(), methods(item))).collect();
        Self { paths }
    }

    /// What a call needs; `None` when the document does not have it.
    pub(crate) fn need(&self, method: &Method, path: &str) -> Option<Need> {
        let methods = self.paths.get(path)?;
        // The router answers HEAD wherever it answers GET.
        let method = if method == Method::HEAD { &Method::GET } else { method };
        methods.get(method).copied()
    }

    /// Whether the document has the path, with whatever method.
    pub(crate) fn has_path(&self, path: &str) -> bool {
        self.paths.contains_key(path)
    }
}

fn methods(item: &PathItem) -> HashMap<Method, Need> {
    let all = [
        (Method::GET, &item.get),
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, need(operation.as_ref()?)))).collect()
}

fn need(operation: &Operation) -> Need {
    let security = serde_json::to_value(&operation.security).unwrap_or_default();
    match security.pointer("/0") {
        Some(requirement) if requirement.as_object().is_some_and(serde_json::Map::is_empty) => Need::Nothing,
        Some(requirement) => {
            let scope = requirement.get(SCHEME).and_then(|s| s.get(0)).and_then(|s| s.as_str()).and_then(Scope::from_name);
            Need::Scope(scope.unwrap_or(Scope::Admin))
        }
        None => Need::Scope(Scope::Admin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_key_is_looked_up() {
        let headers = |value: &str| HeaderMap::from_iter([(AUTHORIZATION, value.parse().expect("header"))]);
        assert_eq!(bearer(&headers("Bearer ik_abc")), Some("ik_abc"));
        assert_eq!(bearer(&headers("bearer  ik_abc ")), Some("ik_abc"));
        for bad in ["ik_abc", "Basic ik_abc", "Bearer abc", "Bearer", &format!("Bearer ik_{}", "a".repeat(200))] {
            assert_eq!(bearer(&headers(bad)), None, "{bad}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
    }

    #[test]
    fn wider_scopes_may_what_narrower_ones_may() {
        assert!(Scope::Admin > Scope::Provisioner && Scope::Provisioner > Scope::Read);
    }
}
