//! `Idempotency-Key` on POST: the same request again gets the same answer, and is done once.
//!
//! Always: an answer is kept without its secrets; only successes are kept, so that a request that failed may be repeated;
//! what has begun is finished even when the caller hangs up, so that the answer is there when it asks again.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use insula_core::Kind;
use serde_json::Value;
use sqlx::PgPool;
use tracing::Instrument as _;

use super::answer::Replay;
use super::failure::Failure;
use super::input::{MAX_BODY, read_body};
use crate::auth::Caller;
use crate::error::Error;
use crate::handle::Control;

/// The header.
pub(super) const HEADER: &str = "idempotency-key";
const REPLAYED: &str = "idempotency-replayed";
/// Largest answer that is kept.
const MAX_ANSWER: usize = 1 << 20;

/// The key as an operation takes it: then also a crash between the deed and its answer does not do it twice.
pub(super) fn key_of(headers: &axum::http::HeaderMap) -> Option<&str> {
    headers.get(HEADER)?.to_str().ok()
}

/// A request that came with a key.
struct Keyed {
    actor: String,
    key: String,
    /// SHA-256 of method, path and body.
    request: Vec<u8>,
}

enum Found {
    /// Nobody has asked before: do it.
    New,
    /// Done before.
    Done(StatusCode, Value),
}

/// The layer.
pub(super) async fn once(State(control): State<Control>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    match caller {
        Some(caller) if request.method() == Method::POST && request.headers().contains_key(HEADER) => {
            keyed(control, caller, request, next).await.unwrap_or_else(IntoResponse::into_response)
        }
        _ => next.run(request).await,
    }
}

/// Forgets, once an hour and for as long as it is polled, the answers of more than a week ago.
pub(super) async fn forget_old(control: Control) {
    loop {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let forgotten = sqlx::query("DELETE FROM catalog.idempotency WHERE created_at < now() - interval '7 days'")
            .execute(control.catalog_pool())
            .await;
        if let Err(error) = forgotten {
            tracing::warn!(%error, "cannot forget old answers; trying again in an hour");
        }
    }
}

async fn keyed(control: Control, caller: Caller, request: Request, next: Next) -> Result<Response, Failure> {
    let key = key_of(request.headers()).unwrap_or_default();
    if key.is_empty() || key.len() > 200 || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Failure::field("Idempotency-Key", "1 to 200 visible ASCII characters, as a UUID"));
    }
    let key = key.to_owned();
    let (parts, body) = request.into_parts();
    let whole = Request::from_parts(parts.clone(), body);
    let body = read_body(whole, MAX_BODY).await?;
    let target = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let keyed = Keyed { actor: caller.key.to_string(), key, request: fingerprint(target, &body) };
    match keyed.take(control.catalog_pool()).await? {
        Found::Done(status, answer) => Ok(replay(status, &answer)),
        Found::New => {
            let work = perform(control, keyed, next, Request::from_parts(parts, Body::from(body)));
            tokio::spawn(work.in_current_span())
                .await
                .unwrap_or_else(|_| Err(Failure::new(Kind::Internal, "a fault in the control plane; its log has the reason")))
        }
    }
}

async fn perform(control: Control, keyed: Keyed, next: Next, request: Request) -> Result<Response, Failure> {
    let response = next.run(request).await;
    if !response.status().is_success() {
        keyed.forget(control.catalog_pool()).await?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, MAX_ANSWER)
        .await
        .map_err(|_| Failure::new(Kind::Internal, "a fault in the control plane; its log has the reason"))?;
    let kept = match parts.extensions.get::<Replay>() {
        Some(Replay(value)) => value.clone(),
        None => serde_json::from_slice(&body).unwrap_or_default(),
    };
    keyed.keep(control.catalog_pool(), parts.status, &kept).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(status: StatusCode, answer: &Value) -> Response {
    let body = if answer.is_null() { Vec::new() } else { serde_json::to_vec(answer).unwrap_or_default() };
    let mut response = (status, body).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

fn fingerprint(target: &str, body: &Bytes) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in [target.as_bytes(), body] {
        // Length first, so that no two requests read the same.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().to_vec()
}

impl Keyed {
    /// Claims the key, or finds what came of it. A claim that is older than any call takes belonged to a process that died.
    async fn take(&self, catalog: &PgPool) -> Result<Found, Failure> {
        let claimed = sqlx::query(
            "INSERT INTO catalog.idempotency AS i (actor, key, request) VALUES ($1, $2, $3)
             ON CONFLICT (actor, key) DO UPDATE SET created_at = now()
             WHERE i.request = excluded.request AND i.status IS NULL AND i.created_at < now() - interval '2 minutes'",
        )
        .bind(&self.actor)
        .bind(&self.key)
        .bind(&self.request)
        .execute(catalog)
        .await
        .map_err(Error::from)?;
        if claimed.rows_affected() == 1 {
            return Ok(Found::New);
        }
        let row: Option<(Vec<u8>, Option<i32>, Option<Value>)> =
            sqlx::query_as("SELECT request, status, response FROM catalog.idempotency WHERE actor = $1 AND key = $2")
                .bind(&self.actor)
                .bind(&self.key)
                .fetch_optional(catalog)
                .await
                .map_err(Error::from)?;
        match row {
            Some((request, ..)) if request != self.request => {
                Err(Failure::field("Idempotency-Key", "this key was used with another request: use a new one"))
            }
            Some((_, Some(status), answer)) => {
                let status = u16::try_from(status).ok().and_then(|s| StatusCode::from_u16(s).ok()).unwrap_or(StatusCode::OK);
                Ok(Found::Done(status, answer.unwrap_or_default()))
            }
            // At work, or just forgotten because it failed.
            _ => Err(Failure::new(Kind::Conflict, "the same request is at work: ask again in a moment").retry_after()),
        }
    }

    async fn keep(&self, catalog: &PgPool, status: StatusCode, answer: &Value) -> Result<(), Failure> {
        sqlx::query("UPDATE catalog.idempotency SET status = $3, response = $4 WHERE actor = $1 AND key = $2")
            .bind(&self.actor)
            .bind(&self.key)
            .bind(i32::from(status.as_u16()))
            .bind(answer)
            .execute(catalog)
            .await
            .map_err(Error::from)?;
        Ok(())
    }

    async fn forget(&self, catalog: &PgPool) -> Result<(), Failure> {
        sqlx::query("DELETE FROM catalog.idempotency WHERE actor = $1 AND key = $2 AND status IS NULL")
            .bind(&self.actor)
            .bind(&self.key)
            .execute(catalog)
            .await
            .map_err(Error::from)?;
        Ok(())
    }
}

/// So that the header is in the answer wherever the problem is dressed.
impl Failure {
    fn retry_after(self) -> Self {
        self.with_header(RETRY_AFTER, HeaderValue::from_static("1"))
    }
}
