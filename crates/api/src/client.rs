//! A thin client: one method per call of the API.
//!
//! Always: calls that may be repeated without harm (GET, PUT, DELETE, and POST with its idempotency key, which every POST
//! here has) are, a few times, when the control plane is away or asks to come back; the key is never printed.

mod calls;
mod certificates;
mod identity;
mod jobs;
mod stream;

use std::fmt;
use std::time::Duration;

use insula_core::Kind;
use reqwest::header::{ACCEPT, AUTHORIZATION, ETAG, HeaderValue, IF_MATCH, IF_NONE_MATCH, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;
use uuid::Uuid;

pub use self::stream::OperationStream;
use crate::error::Error;
use crate::problem::{Problem, kind_of_status};

/// Longest wait for one answer, seconds: more than any call that waits for an operation takes.
const TIMEOUT_SECONDS: u64 = 90;
/// Tries of one call, the first included.
const TRIES: u32 = 4;
/// Longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Talks to one control plane. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    base: Url,
    http: reqwest::Client,
    authorization: HeaderValue,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({}, ***)", self.base)
    }
}

/// A value and the version (`ETag`) that a conditional change must name.
#[derive(Clone, Debug)]
pub struct Versioned<T> {
    /// The value.
    pub value: T,
    /// Hand it to an update: it is refused when somebody else was faster.
    pub etag: String,
}

/// One call before it is sent.
struct Call<'a> {
    method: Method,
    path: &'a [&'a str],
    query: Option<String>,
    body: Option<Vec<u8>>,
    if_match: Option<&'a str>,
    if_none_match: Option<&'a str>,
    idempotency_key: Option<String>,
}

impl Client {
    /// A client for the control plane at `url` (`http://127.0.0.1:8090`, `https://control.example.com`) with a key (`ik_...`).
    ///
    /// # Errors
    /// [`Error::Invalid`] when either cannot be used.
    pub fn new(url: &str, key: &str) -> Result<Self, Error> {
        Self::with_authorities(url, key, None)
    }

    /// As [`Client::new`]; over TLS, only certificates of these authorities (PEM) are believed, or without any, those of the web.
    ///
    /// # Errors
    /// As [`Client::new`], and when there is no certificate in `authorities`.
    pub fn with_authorities(url: &str, key: &str, authorities: Option<&[u8]>) -> Result<Self, Error> {
        let base = Url::parse(url).map_err(|e| Error::Invalid(format!("{url:?} is not a URL: {e}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            let wrong = format!("{url:?} is not an address of a control plane: give http://HOST:PORT or https://HOST");
            return Err(Error::Invalid(wrong));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
            .map_err(|_| Error::Invalid("the key holds characters that no key has: a key begins with ik_".into()))?;
        authorization.set_sensitive(true);
        let mut http = reqwest::Client::builder();
        if let Some(authorities) = authorities {
            let believed = reqwest::Certificate::from_pem_bundle(authorities).unwrap_or_default();
            if believed.is_empty() {
                return Err(Error::Invalid(
                    "the file of authorities holds no certificate: it is a PEM file of those to believe".into(),
                ));
            }
            http = http.tls_certs_only(believed);
        }
        let http = http
            .timeout(Duration::from_secs(TIMEOUT_SECONDS))
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("insula/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(|e| Error::Invalid(format!("cannot make an HTTP client: {e}")))?;
        Ok(Self { base, http, authorization })
    }

    /// Where it calls.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.base
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str], query: &impl Serialize) -> Result<T, Error> {
        self.send(Call::new(Method::GET, path).query(query)?).await?.json_of(&self.base).await
    }

    async fn get_versioned<T: DeserializeOwned>(&self, path: &[&str]) -> Result<Versioned<T>, Error> {
        self.send(Call::new(Method::GET, path)).await?.versioned(&self.base).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &[&str], query: &impl Serialize, body: &impl Serialize) -> Result<T, Error> {
        self.send(Call::new(Method::POST, path).query(query)?.body(body)?).await?.json_of(&self.base).await
    }

    async fn send(&self, call: Call<'_>) -> Result<Answer, Error> {
        let mut url = self.base.clone();
        // Pushing segments escapes them: a slug with a slash in it stays one segment.
        url.path_segments_mut().map_err(|()| Error::Invalid("not a base URL".into()))?.pop_if_empty().extend(call.path);
        url.set_query(call.query.as_deref());
        let mut pause = Duration::from_millis(100);
        for left in (0..TRIES).rev() {
            let outcome = self.request(&call, url.clone()).send().await;
            let (error, asked) = match outcome {
                Ok(response) if response.status().is_success() || response.status() == StatusCode::NOT_MODIFIED => {
                    return Ok(Answer(response));
                }
                Ok(response) => {
                    let asked = retry_after(&response);
                    (self.refusal(response).await, asked)
                }
                Err(e) => (self.transport(&e), None),
            };
            // A conflict that asks to come back: this very request, sent before, is still at work.
            let again = match error.kind() {
                Kind::Unavailable | Kind::Moved | Kind::Limited => true,
                Kind::Conflict => asked.is_some(),
                _ => false,
            };
            if left == 0 || !again || asked.is_some_and(|wait| wait > LONGEST_PAUSE) {
                return Err(error);
            }
            tokio::time::sleep(asked.unwrap_or(pause)).await;
            pause = (pause * 3).min(LONGEST_PAUSE);
        }
        Err(self.away("no try was made".into()))
    }

    fn request(&self, call: &Call<'_>, url: Url) -> RequestBuilder {
        let mut request = self
            .http
            .request(call.method.clone(), url)
            .header(AUTHORIZATION, self.authorization.clone())
            .header(ACCEPT, "application/json, application/problem+json");
        if let Some(body) = &call.body {
            request = request.header("content-type", "application/json").body(body.clone());
        }
        if let Some(etag) = call.if_match {
            request = request.header(IF_MATCH, etag);
        }
        if let Some(etag) = call.if_none_match {
            request = request.header(IF_NONE_MATCH, etag);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        request
    }

    async fn refusal(&self, response: Response) -> Error {
        let status = response.status();
        match response.bytes().await.map(|body| serde_json::from_slice::<Problem>(&body)) {
            Ok(Ok(problem)) => Error::Problem(Box::new(problem)),
            _ if kind_of_status(status.as_u16()) == Kind::Unavailable => self.away(format!("HTTP status {status}")),
            _ => self.unexpected(status),
        }
    }

    fn transport(&self, error: &reqwest::Error) -> Error {
        if error.is_timeout() && !error.is_connect() {
            return Error::Timeout { url: self.base.to_string(), seconds: TIMEOUT_SECONDS };
        }
        let mut reason: &dyn std::error::Error = error;
        while let Some(source) = reason.source() {
            reason = source;
        }
        self.away(reason.to_string())
    }

    fn away(&self, reason: String) -> Error {
        Error::Unreachable { url: self.base.to_string(), reason }
    }

    fn unexpected(&self, status: StatusCode) -> Error {
        Error::Unexpected { url: self.base.to_string(), status: status.as_u16() }
    }
}

impl<'a> Call<'a> {
    fn new(method: Method, path: &'a [&'a str]) -> Self {
        // One key for all tries of this call, so that a repeated POST is done once.
        let idempotency_key = (method == Method::POST).then(|| Uuid::new_v4().to_string());
        Self { method, path, query: None, body: None, if_match: None, if_none_match: None, idempotency_key }
    }

    fn query(mut self, query: &impl Serialize) -> Result<Self, Error> {
        let value = serde_json::to_value(query).map_err(|e| Error::Invalid(e.to_string()))?;
        let mut pairs = url::form_urlencoded::Serializer::new(String::new());
        for (name, value) in value.as_object().into_iter().flatten() {
            match value {
                serde_json::Value::Null => {}
                serde_json::Value::String(text) => {
                    pairs.append_pair(name, text);
                }
                other => {
                    pairs.append_pair(name, &other.to_string());
                }
            }
        }
        self.query = Some(pairs.finish()).filter(|text| !text.is_empty());
        Ok(self)
    }

    fn body(mut self, body: &impl Serialize) -> Result<Self, Error> {
        self.body = Some(serde_json::to_vec(body).map_err(|e| Error::Invalid(e.to_string()))?);
        Ok(self)
    }

    /// Asks for it unless it is still this one.
    const fn unless(mut self, etag: Option<&'a str>) -> Self {
        self.if_none_match = etag;
        self
    }

    const fn if_match(mut self, etag: Option<&'a str>) -> Self {
        self.if_match = etag;
        self
    }
}

/// A success before its body is read.
struct Answer(Response);

impl Answer {
    async fn json_of<T: DeserializeOwned>(self, base: &Url) -> Result<T, Error> {
        let status = self.0.status().as_u16();
        self.0.json().await.map_err(|_| Error::Unexpected { url: base.to_string(), status })
    }

    async fn versioned<T: DeserializeOwned>(self, base: &Url) -> Result<Versioned<T>, Error> {
        let etag = self.0.headers().get(ETAG).and_then(|v| v.to_str().ok()).unwrap_or("*").to_owned();
        Ok(Versioned { value: self.json_of(base).await?, etag })
    }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::Router;
    use axum::http::HeaderMap;
    use axum::response::IntoResponse as _;

    use super::*;

    /// A server that answers with these statuses in turn, and counts; each POST must come with one and the same key.
    async fn server(statuses: &'static [u16]) -> (Client, Arc<AtomicU32>) {
        let (calls, counted) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
        let keys = Arc::new(std::sync::Mutex::new(std::collections::BTreeSet::new()));
        let count = Arc::clone(&counted);
        let app = Router::new().fallback(async move |headers: HeaderMap| {
            let n = calls.fetch_add(1, Ordering::SeqCst);
            count.store(n + 1, Ordering::SeqCst);
            if let Some(key) = headers.get("idempotency-key") {
                let mut keys = keys.lock().expect("keys");
                keys.insert(key.clone().to_str().expect("text").to_owned());
                assert_eq!(keys.len(), 1, "a try with another key");
            }
            let status = statuses.get(n as usize).copied().unwrap_or(200);
            let body = match status {
                200 => serde_json::json!({"status": "ok"}),
                status => serde_json::to_value(Problem::new(kind_of_status(status), "no")).expect("a problem"),
            };
            let retry = (status == 409).then_some(("retry-after", "0"));
            (StatusCode::from_u16(status).expect("a status"), axum::response::AppendHeaders(retry), axum::Json(body))
                .into_response()
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        tokio::spawn(async { axum::serve(listener, app).await });
        (Client::new(&url, "ik_test").expect("a client"), counted)
    }

    async fn post(client: &Client) -> Result<crate::status::Health, Error> {
        client.post(&["x"], &serde_json::json!({}), &serde_json::json!({})).await
    }

    #[tokio::test]
    async fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let (client, calls) = server(&[503, 409, 429]).await;
        assert!(post(&client).await.is_ok());
        assert_eq!(calls.load(Ordering::SeqCst), 4);
        for (status, kind, code) in
            [(422, Kind::Invalid, 2), (404, Kind::NotFound, 3), (403, Kind::Denied, 5), (500, Kind::Internal, 1)]
        {
            let statuses: &'static [u16] = Box::leak(Box::new([status]));
            let (client, calls) = server(statuses).await;
            let error = post(&client).await.expect_err("refused");
            assert_eq!((error.kind(), error.exit_code(), calls.load(Ordering::SeqCst)), (kind, code, 1));
            assert_eq!(error.to_string(), "no");
        }
        let (client, calls) = server(&[503; 9]).await;
        assert_eq!(post(&client).await.expect_err("away").kind(), Kind::Unavailable);
        assert_eq!(calls.load(Ordering::SeqCst), TRIES);
    }

    #[tokio::test]
    async fn nobody_there_is_unreachable_and_the_key_is_not_printed() {
        let client = Client::new("http://127.0.0.1:1", "ik_secret").expect("a client");
        let error = post(&client).await.expect_err("nobody there");
        assert_eq!((error.kind(), error.exit_code()), (Kind::Unavailable, 6));
        assert!(!format!("{client:?} {error} {error:?}").contains("ik_secret"));
        assert!(Client::new("ftp://x", "k").is_err() && Client::new("http://x", "a\nb").is_err());
    }
}
