//! `/api/session`

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use insula::{Json, Result, Tenant};
use serde_json::json;

use crate::App;
use crate::caller::Caller;
use crate::features::{CUSTOM_DOMAIN, EXPORTS, SEARCH};
use crate::login::{self, Credentials};
use crate::sessions;

/// Email and password for a token.
pub(crate) async fn log_in(State(app): State<App>, tenant: Tenant, Json(typed): Json<Credentials>) -> Result<Response> {
    let opened = login::log_in(&tenant, &app.passwords, typed).await?;
    let body = json!({"token": opened.token.text(), "expires_at": opened.expires_at, "user": opened.user});
    Ok(([(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

/// Whose session this is.
pub(crate) async fn who(caller: Caller) -> Result<Json<serde_json::Value>> {
    let work = caller.begin().await?;
    work.tx.commit().await?;
    let tenant = caller.tenant();
    let features = json!({
        "search": tenant.feature(&SEARCH), "custom_domain": tenant.feature(&CUSTOM_DOMAIN),
        "max_concurrent_exports": tenant.feature(&EXPORTS),
    });
    let workspace = json!({"name": tenant.display_name(), "plan": tenant.plan().name, "features": features});
    Ok(Json(json!({"user": work.user, "workspace": workspace})))
}

/// Ends the session.
pub(crate) async fn log_out(caller: Caller) -> Result<StatusCode> {
    let mut work = caller.begin().await?;
    sessions::end(&mut work.tx, caller.token()).await?;
    work.tx.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
