//! The REST API, version 1: `Control` over HTTP.
//!
//! For: turning requests into calls of [`Control`] and what they give into answers. Not for: deciding anything; that is
//! below. Always: the router and the OpenAPI document are made from the same list; what a call needs is enforced from the
//! document; a refusal is a problem body (RFC 9457) that says nothing of the inside.

mod answer;
mod audit;
mod authorize;
mod bundle;
mod catalog;
mod cells;
mod certificates;
mod documents;
mod domains;
mod failure;
mod idempotency;
mod identity;
mod input;
mod jobs;
mod keys;
mod operation_stream;
mod operations;
mod plans;
mod schedules;
mod status;
mod tenants;
mod usage;
mod webhooks;
mod wire;
mod workers;

use std::future::{Future, IntoFuture as _};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::authorize::{Gate, authorize};
use crate::auth::{Policy, SCHEME};
use crate::console;
use crate::handle::Control;

/// How long calls that have begun are given when the process is asked to end.
const DRAIN: Duration = Duration::from_secs(5);

/// The API's router, and the console's.
pub fn router(control: Control) -> Router {
    let (router, document) = calls().split_for_parts();
    let document = finish(document);
    let gate = Gate { control: control.clone(), policy: Arc::new(Policy::of(&document)) };
    let served = Json(document);
    // Read from the bottom: a request is dressed, guarded against panics, authorized, and done once.
    let api = router
        .route("/v1/openapi.json", axum::routing::get(async || served))
        .route_layer(from_fn_with_state(control.clone(), idempotency::once))
        .route_layer(from_fn_with_state(gate, authorize))
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::new())
        .layer(from_fn(failure::dress))
        .with_state(control);
    // The API's answer to what is nowhere stays the whole's.
    console::router().merge(api)
}

/// Serves the API until `shutdown` resolves, and then what has begun, for a few seconds: a call that waits for news is not to
/// keep the process.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(
    control: Control,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let asked = CancellationToken::new();
    let (ask, closing, watched) = (asked.clone(), control.closing(), control.clone());
    let shutdown = async move {
        shutdown.await;
        ask.cancel();
        // Streams end at once: their readers come again, to whoever serves then.
        closing.cancel();
        watched.hub().close();
    };
    let overdue = async {
        asked.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = axum::serve(listener, router(control.clone())).with_graceful_shutdown(shutdown).into_future() => served,
        () = overdue => Ok(()),
        () = idempotency::forget_old(control) => Ok(()),
    }
}

/// The OpenAPI 3.1 document of the API, as it is served at `/v1/openapi.json` and kept in `openapi/insula.json`.
#[must_use]
pub fn document() -> OpenApi {
    finish(calls().split_for_parts().1)
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Insula control plane",
        description = "Tenants, plans, cells, operations, audit.\n\nTimes are RFC 3339 in UTC; ids are UUIDs. Send a key as \
            `Authorization: Bearer ik_...`; each call names the scope that it needs, and `admin` may all that `provisioner` \
            may, which may all that `read` may, which may all that `edge` may. Every refusal is a problem body (RFC 9457). Lists come in pages: hand `next` \
            back as `cursor`. Changes name the version that they are made from (`If-Match` with the `ETag`). Any POST may \
            carry an `Idempotency-Key`: the same request under the same key is done once, and answered alike, without its \
            secrets; another request under that key is refused.",
        license(name = "Apache-2.0 OR MIT")
    ),
    paths(openapi_json),
    components(schemas(insula_api::Problem, insula_api::FieldError))
)]
struct Document;

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "whole", responses((status = 200, description = "OpenAPI 3.1")), security(()))]
#[allow(dead_code, reason = "only its description is used: a handler cannot serve the document that it is part of")]
fn openapi_json() {}

fn calls() -> OpenApiRouter<Control> {
    OpenApiRouter::with_openapi(<Document as utoipa::OpenApi>::openapi())
        .routes(routes!(tenants::list_tenants, tenants::create_tenant))
        .routes(routes!(tenants::show_tenant, tenants::update_tenant, tenants::delete_tenant))
        .routes(routes!(tenants::suspend_tenant))
        .routes(routes!(tenants::resume_tenant))
        .routes(routes!(tenants::create_grant))
        .routes(routes!(domains::list_domains, domains::add_domain))
        .routes(routes!(domains::remove_domain))
        .routes(routes!(domains::verify_domain))
        .routes(routes!(jobs::list_jobs))
        .routes(routes!(jobs::show_job))
        .routes(routes!(jobs::show_job_body))
        .routes(routes!(jobs::cancel_job))
        .routes(routes!(jobs::retry_job))
        .routes(routes!(jobs::purge_dead_jobs))
        .routes(routes!(jobs::replay_dead_jobs))
        .routes(routes!(schedules::list_schedules))
        .routes(routes!(schedules::pause_schedule))
        .routes(routes!(schedules::resume_schedule))
        .routes(routes!(schedules::list_host_schedules))
        .routes(routes!(schedules::pause_host_schedule))
        .routes(routes!(schedules::resume_host_schedule))
        .routes(routes!(workers::list_workers))
        .routes(routes!(plans::list_plans, plans::create_plan))
        .routes(routes!(plans::show_plan, plans::update_plan))
        .routes(routes!(cells::list_cells, cells::register_cell))
        .routes(routes!(cells::show_cell))
        .routes(routes!(cells::drain_cell))
        .routes(routes!(cells::undrain_cell))
        .routes(routes!(cells::put_apps))
        .routes(routes!(cells::add_replica))
        .routes(routes!(cells::remove_replica))
        .routes(routes!(documents::list_documents))
        .routes(routes!(documents::show_document, documents::put_document))
        .routes(routes!(documents::list_document_versions))
        .routes(routes!(documents::roll_out))
        .routes(routes!(documents::roll_back))
        .routes(routes!(certificates::list_certificates))
        .routes(routes!(certificates::put_certificate, certificates::delete_certificate))
        .routes(routes!(certificates::show_certificates))
        .routes(routes!(catalog::show_catalog))
        .routes(routes!(catalog::watch_catalog))
        .routes(routes!(catalog::show_tenant_config))
        .routes(routes!(operations::list_operations))
        .routes(routes!(operations::show_operation))
        .routes(routes!(operations::list_operation_events))
        .routes(routes!(audit::list_audit))
        .routes(routes!(audit::verify_audit))
        .routes(routes!(audit::lint))
        .routes(routes!(keys::list_keys, keys::create_key))
        .routes(routes!(keys::revoke_key))
        .routes(routes!(identity::list_providers, identity::create_provider))
        .routes(routes!(identity::delete_provider))
        .routes(routes!(identity::list_tenant_keys, identity::create_tenant_key))
        .routes(routes!(identity::revoke_tenant_key))
        .routes(routes!(identity::list_context_keys, identity::rotate_context_key))
        .routes(routes!(identity::jwks))
        .routes(routes!(identity::cell_jwks))
        .routes(routes!(webhooks::list_webhooks, webhooks::create_webhook))
        .routes(routes!(webhooks::delete_webhook))
        .routes(routes!(bundle::put_bundle))
        .routes(routes!(bundle::list_migrations))
        .routes(routes!(usage::add_usage))
        .routes(routes!(usage::show_usage))
        .routes(routes!(status::show_status))
        .routes(routes!(status::healthz))
        .routes(routes!(status::readyz))
}

fn finish(mut document: OpenApi) -> OpenApi {
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("ik_...")
        .description(Some("A key; scopes: admin, provisioner, read, edge."))
        .build();
    document.components.get_or_insert_default().add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
    document
}

/// What every call may be refused with.
#[derive(utoipa::IntoResponses)]
#[allow(dead_code, reason = "describes answers; `failure` makes them")]
enum Refused {
    /// Refused: the problem says why, and which field is at fault
    #[response(status = "4XX", content_type = "application/problem+json")]
    Caller(insula_api::Problem),
    /// Not done: a fault of ours, or something is away; try again
    #[response(status = "5XX", content_type = "application/problem+json")]
    Ours(insula_api::Problem),
}

#[cfg(test)]
mod tests {
    /// `cargo run -p insula-cli -- openapi > openapi/insula.json` writes it anew.
    #[test]
    fn the_committed_document_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/insula.json");
        let committed = std::fs::read_to_string(path).expect("openapi/insula.json");
        let made = super::document().to_pretty_json().expect("JSON");
        assert!(committed.trim_end() == made, "write it anew: cargo run -p insula-cli -- openapi > openapi/insula.json");
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_call_says_what_it_needs() {
        let document = serde_json::to_value(super::document()).expect("JSON");
        let text = document.to_string();
        for reference in text.split("\"#/components/schemas/").skip(1) {
            let name = reference.split('"').next().expect("a name");
            assert!(document.pointer(&format!("/components/schemas/{name}")).is_some(), "{name} is not there");
        }
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("an item") {
                assert!(operation["security"][0].is_object(), "{method} {path} does not say what it needs");
                assert!(
                    operation["description"].is_string() || operation["summary"].is_string(),
                    "{method} {path} is not described"
                );
            }
        }
    }
}
