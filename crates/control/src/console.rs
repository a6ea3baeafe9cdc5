//! The operator's web console: the files that `console/` builds, as they lie in this program.
//!
//! For: handing out a page, its script and its style. Not for: data; the page asks the API for it, with the key that its reader signed
//! in with. Always: nothing here needs a key and nothing here is a secret; a page may load and call this origin alone, and runs no
//! script that does not lie here; what is named by its content may be kept for ever, and the page that names it is asked for each time.

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::map_response;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};

/// What `npm run build` in `console/` left, committed: building this crate needs no Node.
#[derive(RustEmbed)]
#[folder = "console"]
struct Built;

/// Nothing but what lies here, no script or style in the page itself, no form that posts, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// Its content is in its name.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Kept, but only used after asking whether it still is the one.
const ASK_FIRST: &str = "no-cache";

/// The console at `/console/`. Paths that are no file are the page's own, which finds its way by them.
pub(crate) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/console", get(async || Redirect::permanent("/console/")))
        .route("/console/", get(index))
        .route("/console/licences.txt", get(async |asked: HeaderMap| file("licences.txt", ASK_FIRST, &asked)))
        .route("/console/assets/{*name}", get(asset))
        .route("/console/{*page}", get(page))
        .layer(map_response(guard))
}

async fn index(asked: HeaderMap) -> Response {
    file("index.html", ASK_FIRST, &asked)
}

async fn page(Path(path): Path<String>, asked: HeaderMap) -> Response {
    // A file that is not there is not to be answered with a page: a script would be read as HTML.
    let last = path.rsplit('/').next().unwrap_or_default();
    if last.contains('.') || path.starts_with("assets") { absent() } else { index(asked).await }
}

async fn asset(Path(name): Path<String>, asked: HeaderMap) -> Response {
    file(&format!("assets/{name}"), FOR_EVER, &asked)
}

fn file(name: &str, keep: &'static str, asked: &HeaderMap) -> Response {
    let Some((found, kind)) = Built::get(name).zip(media_type(name)) else { return absent() };
    let tag = tag(&found);
    let known = asked.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let unchanged = known.flat_map(|tags| tags.split(',')).any(|known| known.trim().trim_start_matches("W/") == tag);
    let headers = [(CACHE_CONTROL, keep.to_owned()), (ETAG, tag)];
    if unchanged {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(CONTENT_TYPE, kind)], Body::from(found.data.into_owned())).into_response()
}

fn absent() -> Response {
    let headers = [(CACHE_CONTROL, "no-store"), (CONTENT_TYPE, "text/plain; charset=utf-8")];
    (StatusCode::NOT_FOUND, headers, "There is no such file in the console.\n").into_response()
}

fn tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let start: String = hash.iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{start}\"")
}

/// The kinds of files that a build makes. Another is not handed out: its browser would have to guess.
fn media_type(name: &str) -> Option<&'static str> {
    let (_, extension) = name.rsplit_once('.')?;
    match extension {
        "html" => Some("text/html; charset=utf-8"),
        "js" => Some("text/javascript; charset=utf-8"),
        "css" => Some("text/css; charset=utf-8"),
        "svg" => Some("image/svg+xml"),
        "txt" => Some("text/plain; charset=utf-8"),
        _ => None,
    }
}

async fn guard(mut response: Response) -> Response {
    const GUARDS: [(HeaderName, &str); 5] = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in GUARDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
