//! Style sheet, the customer's own colour, icon.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG};
use axum::response::IntoResponse;
use axum::routing::get;
use insula::Tenant;

use crate::App;

pub(crate) fn routes() -> Router<App> {
    Router::new()
        .route("/assets/style.css", get(style))
        .route("/assets/brand.css", get(brand))
        .route("/assets/icon.svg", get(icon))
}

async fn style() -> impl IntoResponse {
    let tag = concat!("\"", env!("CARGO_PKG_VERSION"), "\"");
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "public, max-age=300"), (ETAG, tag)];
    (headers, include_str!("../../assets/style.css"))
}

/// The colour as the catalog holds it, which is `#rrggbb` and nothing else.
fn color(tenant: &Tenant) -> &str {
    tenant.settings().color.as_ref().map_or("#2b5d8a", |color| color.as_str())
}

async fn brand(tenant: Tenant) -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "private, max-age=60")];
    (headers, format!(":root {{ --brand: {}; }}\n", color(&tenant)))
}

async fn icon(tenant: Tenant) -> impl IntoResponse {
    let headers = [(CONTENT_TYPE, "image/svg+xml"), (CACHE_CONTROL, "private, max-age=60")];
    let picture = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><rect width='32' height='32' rx='8' fill='{}'/><path d='M9 8h9l5 5v11H9z' fill='white' fill-opacity='.92'/></svg>",
        color(&tenant)
    );
    (headers, picture)
}
