//! The layer that knows who calls, and refuses what the key does not allow.

use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use insula_api::key::Scope;
use insula_core::Kind;

use super::failure::Failure;
use super::wire;
use crate::auth::{Caller, Need, Policy, bearer};
use crate::handle::Control;

/// What the layer decides with.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) control: Control,
    pub(super) policy: Arc<Policy>,
}

/// Lets a request pass with its [`Caller`], or refuses it.
pub(super) async fn authorize(State(gate): State<Gate>, path: MatchedPath, mut request: Request, next: Next) -> Response {
    match gate.check(path.as_str(), request.method(), bearer(request.headers())).await {
        Ok(Some(caller)) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Ok(None) => next.run(request).await,
        Err(failure) => failure.into_response(),
    }
}

impl Gate {
    async fn check(&self, path: &str, method: &Method, key: Option<&str>) -> Result<Option<Caller>, Failure> {
        let scope = match self.policy.need(method, path) {
            Some(Need::Nothing) => return Ok(None),
            Some(Need::Scope(scope)) => scope,
            None if self.policy.has_path(path) => {
                let detail = "this path does not take this method; see /v1/openapi.json";
                return Err(Failure::new(Kind::Invalid, detail).with_status(StatusCode::METHOD_NOT_ALLOWED));
            }
            // A route that the document does not have: closed.
            None => return Err(Failure::new(Kind::Denied, "this call is not documented, so nobody may make it")),
        };
        let caller = self.caller(key).await?;
        if caller.scope < scope {
            tracing::warn!(key = %caller.key, actor = %caller.name, %path, needs = %scope, "denied");
            return Err(Failure::new(
                Kind::Denied,
                format!("this key is {}; the call needs {}", scope_of(caller.scope), scope_of(scope)),
            ));
        }
        Ok(Some(caller))
    }

    async fn caller(&self, text: Option<&str>) -> Result<Caller, Failure> {
        // One answer for all: no key, a malformed one, an unknown one, a revoked one.
        let unknown = || Failure::new(Kind::Unauthenticated, "send a key that is in force: Authorization: Bearer ik_...");
        let key = self.control.find_api_key(text.ok_or_else(unknown)?).await?.ok_or_else(unknown)?;
        Ok(Caller { key: key.id, name: key.name.into(), scope: wire::scope(key.scope) })
    }
}

fn scope_of(scope: Scope) -> String {
    format!("of scope {scope}")
}

/// Handlers take the caller as an argument; without one there is no call.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Failure::new(Kind::Unauthenticated, "send a key"))
    }
}
