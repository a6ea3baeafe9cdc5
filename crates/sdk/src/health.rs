//! `/healthz` and `/readyz` on the data port, for those who cannot reach the admin port. They say little, to everybody.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use insula_catalog::Freshness;
use insula_core::Kind;
use insula_http::Problem;

use crate::handle::Insula;

pub(crate) fn routes(insula: &Insula) -> Router {
    Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready)).with_state(insula.clone())
}

async fn ready(State(insula): State<Insula>) -> Response {
    match insula.catalog().freshness() {
        Freshness::Fresh | Freshness::Stale => "ready".into_response(),
        Freshness::Expired => Problem::new(Kind::Unavailable).detail("The catalog is out of date.").into_response(),
    }
}
