//! `/healthz` and `/readyz` on the data port, for those who cannot reach the admin port. They say little, to everybody.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use insula_core::Kind;
use insula_http::Problem;

use crate::handle::Insula;

pub(crate) fn routes(insula: &Insula) -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready)).with_state(insula.clone())
}

async fn ready(State(insula): State<Insula>) -> Response {
    // What is known is served however old it is.
    if insula.catalog().is_ready() {
        "ready".into_response()
    } else {
        Problem::new(Kind::Unavailable).detail("The catalog is not known yet.").into_response()
    }
}
