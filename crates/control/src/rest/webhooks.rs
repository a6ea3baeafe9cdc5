//! `/v1/webhooks`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use insula_api::Page;
use insula_api::webhook::{CreateWebhook, Webhook, WebhookCreated};
use uuid::Uuid;

use super::answer::{Answer, created, ok, with_replay};
use super::input::{Json, Path};
use super::{Refused, wire};
use crate::auth::Caller;
use crate::handle::Control;

/// All webhooks.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks",
    responses((status = 200, body = Page<Webhook>), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn list_webhooks(State(control): State<Control>) -> Answer {
    let items = control.webhooks().await?.into_iter().map(wire::webhook).collect();
    ok(&Page::<Webhook> { items, next: None })
}

/// Tells an address of events from now on. The answer has the secret that signs them, this once.
#[utoipa::path(
    post, path = "/v1/webhooks", tag = "webhooks", request_body = CreateWebhook,
    responses((status = 201, body = WebhookCreated), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn create_webhook(State(control): State<Control>, caller: Caller, Json(body): Json<CreateWebhook>) -> Answer {
    let made = control.create_webhook(&caller.name, &body.url, &body.topics).await?;
    let webhook = wire::webhook(made.webhook);
    let told = WebhookCreated { webhook: webhook.clone(), secret: Some(made.secret), secret_withheld: false };
    let answer = created(&format!("/v1/webhooks/{}", webhook.id), &told);
    with_replay(answer, &WebhookCreated { webhook, secret: None, secret_withheld: true })
}

/// Takes a webhook away.
#[utoipa::path(
    delete, path = "/v1/webhooks/{webhook}", tag = "webhooks", params(("webhook" = String, Path, description = "Its id")),
    responses((status = 204, description = "Taken away"), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn delete_webhook(State(control): State<Control>, caller: Caller, Path(id): Path<Uuid>) -> Answer {
    control.delete_webhook(&caller.name, id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
