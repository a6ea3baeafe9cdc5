//! `/v1/documents`.

use axum::extract::State;
use insula_api::Page;
use insula_api::document::{Document, DocumentVersion, PutDocument, Rollout};

use super::Refused;
use super::answer::{Answer, ok};
use super::input::{Json, Path};
use crate::auth::Caller;
use crate::handle::Control;

/// All configuration documents, and what is in force.
#[utoipa::path(
    get, path = "/v1/documents", tag = "documents",
    responses((status = 200, body = Page<Document>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_documents(State(control): State<Control>) -> Answer {
    ok(&Page::<Document> { items: control.documents().await?, next: None })
}

/// One document, and what is in force.
#[utoipa::path(
    get, path = "/v1/documents/{document}", tag = "documents", params(("document" = String, Path, description = "Its name")),
    responses((status = 200, body = Document), Refused), security(("key" = ["read"]))
)]
pub(super) async fn show_document(State(control): State<Control>, Path(name): Path<String>) -> Answer {
    ok(&control.document(&name).await?)
}

/// Puts a new version. It holds for nobody until it is rolled out. One that says what the newest says is that one.
#[utoipa::path(
    put, path = "/v1/documents/{document}", tag = "documents", params(("document" = String, Path, description = "Its name")),
    request_body = PutDocument, responses((status = 200, body = DocumentVersion), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn put_document(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<String>,
    Json(body): Json<PutDocument>,
) -> Answer {
    ok(&control.put_document(&caller.name, &name, body).await?)
}

/// The versions of a document, newest first; at most 100.
#[utoipa::path(
    get, path = "/v1/documents/{document}/versions", tag = "documents", params(("document" = String, Path, description = "Its name")),
    responses((status = 200, body = Page<DocumentVersion>), Refused), security(("key" = ["read"]))
)]
pub(super) async fn list_document_versions(State(control): State<Control>, Path(name): Path<String>) -> Answer {
    ok(&Page::<DocumentVersion> { items: control.document_versions(&name).await?, next: None })
}

/// Rolls a version out: to some tenants first, then to all. Holds at once.
#[utoipa::path(
    post, path = "/v1/documents/{document}/rollout", tag = "documents", params(("document" = String, Path, description = "Its name")),
    request_body = Rollout, responses((status = 200, body = Document), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn roll_out(
    State(control): State<Control>,
    caller: Caller,
    Path(name): Path<String>,
    Json(body): Json<Rollout>,
) -> Answer {
    ok(&control.roll_out(&caller.name, &name, &body).await?)
}

/// Takes a rollout back; when none is under way, goes back to the version that was in force before. Holds at once.
#[utoipa::path(
    post, path = "/v1/documents/{document}/rollback", tag = "documents", params(("document" = String, Path, description = "Its name")),
    responses((status = 200, body = Document), Refused), security(("key" = ["admin"]))
)]
pub(super) async fn roll_back(State(control): State<Control>, caller: Caller, Path(name): Path<String>) -> Answer {
    ok(&control.roll_back(&caller.name, &name).await?)
}
