//! `/v1/keys`.

use axum::extract::State;
use insula_api::Page;
use insula_api::key::{CreateKey, Key, KeyCreated};
use insula_api::page::PageQuery;
use uuid::Uuid;

use super::answer::{Answer, created, ok, with_replay};
use super::input::{Json, Path, Query};
use super::tenants::page_request;
use super::{Refused, wire};
use crate::auth::Caller;
use crate::handle::Control;

/// Keys, oldest first, revoked ones included.
#[utoipa::path(
    get, path = "/v1/keys", tag = "keys", params(PageQuery),
    responses((status = 200, body = Page<Key>), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn list_keys(State(control): State<Control>, Query(query): Query<PageQuery>) -> Answer {
    let found = control.api_keys(&page_request(query.limit, query.cursor)?).await?;
    ok(&wire::page(found, wire::key))
}

/// Makes a key. The answer has its text, this once.
#[utoipa::path(
    post, path = "/v1/keys", tag = "keys", request_body = CreateKey,
    responses((status = 201, body = KeyCreated), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn create_key(State(control): State<Control>, caller: Caller, Json(body): Json<CreateKey>) -> Answer {
    let made = control.create_api_key(&caller.name, &body.name, wire::scope_in(body.scope)).await?;
    let key = wire::key(made.key);
    let told = KeyCreated { key: key.clone(), secret: Some(made.secret), secret_withheld: false };
    let answer = created(&format!("/v1/keys/{}", key.id), &told);
    with_replay(answer, &KeyCreated { key, secret: None, secret_withheld: true })
}

/// Revokes a key, at once.
#[utoipa::path(
    delete, path = "/v1/keys/{key}", tag = "keys", params(("key" = String, Path, description = "Its id")),
    responses((status = 200, body = Key), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn revoke_key(State(control): State<Control>, caller: Caller, Path(id): Path<Uuid>) -> Answer {
    ok(&wire::key(control.revoke_api_key(&caller.name, id).await?))
}
