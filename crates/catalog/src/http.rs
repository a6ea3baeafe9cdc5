//! The catalog as the control plane serves it: for data planes that have no Postgres login.
//!
//! A stream brings changes as they are committed ([`Source::pushed`]); asking ([`Source::changes`]) is for whoever must know the
//! present, and for when there is no stream. Always: what the stream hands on leads on from where the reader stands, without a hole; when
//! there is one, or too much waits, the stream is begun anew from there.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, IF_NONE_MATCH};
use reqwest::{Response, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use url::Url;
use uuid::Uuid;

use crate::Error;
use crate::row::{Changes, Page};
use crate::source::Source;
use crate::wire::{self, Frame, Line, Lines};

mod stream;

/// The longest single answer to a question.
const PATIENCE: Duration = Duration::from_secs(20);
/// The longest pause within a full load; the control plane may make many wait for one another.
const LOAD_PATIENCE: Duration = Duration::from_secs(60);
/// Frames that wait for the reader.
const MOST_FRAMES: usize = 256;

/// A control plane as a [`Source`].
pub struct HttpSource {
    shared: Arc<Shared>,
}

struct Shared {
    http: reqwest::Client,
    base: Url,
    authorization: HeaderValue,
    inbox: Mutex<Inbox>,
    /// The revision that the reader stands at; negative when only a full load can help it.
    at: watch::Sender<i64>,
}

/// What the stream has brought and the reader has not yet taken.
#[derive(Default)]
struct Inbox {
    frames: VecDeque<Frame>,
    /// The control plane said that up to here nothing is missing, and nobody has asked since.
    current: Option<i64>,
    /// A hole: the stream is to be begun anew.
    broken: bool,
    catalog: Option<Uuid>,
}

impl HttpSource {
    /// A source that connects when it is first asked: the control plane may come up later than this process.
    ///
    /// `url` is `http://HOST:PORT` or `https://HOST`; `key` is an API key of scope `edge` (or wider).
    ///
    /// # Errors
    /// [`Error::Setting`] when the address or the key cannot be used as given.
    pub fn new(url: &str, key: &str) -> Result<Self, Error> {
        Self::with_authorities(url, key, None)
    }

    /// As [`HttpSource::new`]; over TLS, only certificates of these authorities (PEM) are believed, or without any, those of the web.
    ///
    /// # Errors
    /// As [`HttpSource::new`], and when there is no certificate in `authorities`.
    pub fn with_authorities(url: &str, key: &str, authorities: Option<&[u8]>) -> Result<Self, Error> {
        let base = Url::parse(url).map_err(|e| Error::Setting(format!("{url:?} is not a URL: {e}")))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(Error::Setting(format!(
                "{url:?} is not an address of a control plane: give http://HOST:PORT or https://HOST"
            )));
        }
        let mut authorization = HeaderValue::from_str(&format!("Bearer {}", key.trim()))
            .map_err(|_| Error::Setting("the key holds characters that no key has: a key begins with ik_".into()))?;
        authorization.set_sensitive(true);
        let mut http = reqwest::Client::builder();
        if let Some(authorities) = authorities {
            let believed = reqwest::Certificate::from_pem_bundle(authorities).unwrap_or_default();
            if believed.is_empty() {
                return Err(Error::Setting("the control plane's file of authorities holds no certificate: it is PEM".into()));
            }
            http = http.tls_certs_only(believed);
        }
        let http = http
            .connect_timeout(Duration::from_secs(5))
            .tcp_keepalive(Duration::from_secs(15))
            .user_agent(concat!("insula-edge/", env!("CARGO_PKG_VERSION")))
            .no_proxy()
            .build()
            .map_err(|e| Error::Setting(format!("cannot make an HTTP client: {e}")))?;
        let shared = Shared { http, base, authorization, inbox: Mutex::default(), at: watch::Sender::new(-1) };
        Ok(Self { shared: Arc::new(shared) })
    }
}

impl std::fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HttpSource({}, ***)", self.shared.base)
    }
}

impl Shared {
    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stands_at(&self, revision: i64) {
        self.at.send_if_modified(|at| std::mem::replace(at, revision) != revision);
    }

    /// Asks for `path`; answers what is a success or a 304.
    async fn get(&self, path: &[&str], since: Option<i64>) -> Result<Response, Error> {
        let mut url = self.base.clone();
        url.path_segments_mut().map_err(|()| Error::Setting("not a base URL".into()))?.pop_if_empty().extend(path);
        if let Some(since) = since {
            url.query_pairs_mut().append_pair("since", &since.to_string());
            if let Some(catalog) = self.inbox().catalog {
                url.query_pairs_mut().append_pair("catalog", &catalog.to_string());
            }
        }
        let mut request = self.http.get(url).header(AUTHORIZATION, self.authorization.clone());
        request = request.header(ACCEPT, "text/event-stream, application/json, application/x-ndjson, application/problem+json");
        if let Some(since) = since {
            request = request.header(IF_NONE_MATCH, format!("\"{since}\""));
        }
        let response = request.send().await?;
        match (response.status(), since) {
            (status, _) if status.is_success() || status == StatusCode::NOT_MODIFIED => Ok(response),
            (StatusCode::GONE, Some(since)) => Err(Error::Trimmed { since }),
            (status, _) => Err(refusal(status, response).await),
        }
    }

    async fn load(&self, pages: mpsc::Sender<Page>) -> Result<i64, Error> {
        let mut response = timeout(LOAD_PATIENCE, self.get(&["v1", "catalog"], None)).await.map_err(|_| Error::Timeout)??;
        let catalog = identity(&response);
        let mut lines = Lines::default();
        while let Some(bytes) = timeout(LOAD_PATIENCE, response.chunk()).await.map_err(|_| Error::Timeout)?? {
            lines.push(&bytes)?;
            while let Some(line) = lines.next() {
                match wire::read(line)? {
                    Line::Page(page) => pages.send(page).await.map_err(|_| Error::Stopped)?,
                    Line::Loaded(loaded) => {
                        *self.inbox() = Inbox { catalog, ..Inbox::default() };
                        self.stands_at(loaded.revision);
                        return Ok(loaded.revision);
                    }
                }
            }
        }
        Err(Error::Answer("a full load was cut off".into()))
    }

    async fn changes(&self, since: i64) -> Result<Changes, Error> {
        let response = match self.get(&["v1", "catalog"], Some(since)).await {
            Ok(response) if response.status() == StatusCode::NOT_MODIFIED => {
                self.stands_at(since);
                return Ok(Changes { revision: since, changes: Vec::new() });
            }
            Ok(response) => response,
            Err(error) => {
                if matches!(error, Error::Trimmed { .. }) {
                    self.stands_at(-1);
                }
                return Err(error);
            }
        };
        let frame: Frame = wire::read(&response.bytes().await?)?;
        self.stands_at(frame.revision);
        Ok(Changes { revision: frame.revision, changes: frame.changes })
    }

    fn pushed(&self, since: i64) -> Option<Changes> {
        let mut inbox = self.inbox();
        while inbox.frames.pop_front_if(|frame| frame.revision <= since).is_some() {}
        if inbox.frames.front().is_some_and(|frame| frame.since > since) {
            inbox.frames.clear();
            inbox.broken = true;
        }
        if let Some(frame) = inbox.frames.pop_front() {
            self.stands_at(frame.revision);
            return Some(Changes { revision: frame.revision, changes: frame.changes });
        }
        inbox.current.take().filter(|at| *at <= since).map(|_| Changes { revision: since, changes: Vec::new() })
    }
}

impl Source for HttpSource {
    async fn load(&self, pages: mpsc::Sender<Page>) -> Result<i64, Error> {
        self.shared.load(pages).await
    }

    async fn changes(&self, since: i64) -> Result<Changes, Error> {
        timeout(PATIENCE, self.shared.changes(since)).await.map_err(|_| Error::Timeout)?
    }

    fn pushed(&self, since: i64) -> Option<Changes> {
        self.shared.pushed(since)
    }

    fn identity(&self) -> Option<Uuid> {
        self.shared.inbox().catalog
    }

    fn resume(&self, revision: i64, identity: Option<Uuid>) {
        self.shared.inbox().catalog = identity;
        self.shared.stands_at(revision);
    }

    fn wake_ups(&self) -> watch::Receiver<()> {
        let (sender, receiver) = watch::channel(());
        tokio::spawn(stream::follow(Arc::clone(&self.shared), sender));
        receiver
    }
}

fn identity(response: &Response) -> Option<Uuid> {
    Uuid::parse_str(response.headers().get(wire::IDENTITY)?.to_str().ok()?).ok()
}

async fn refusal(status: StatusCode, response: Response) -> Error {
    #[derive(serde::Deserialize)]
    struct Problem {
        detail: String,
    }
    let body = timeout(Duration::from_secs(5), response.bytes()).await;
    let problem = body.ok().and_then(Result::ok).and_then(|body| serde_json::from_slice::<Problem>(&body).ok());
    let detail = problem.map_or_else(|| "is this the control plane, and of this version?".to_owned(), |p| p.detail);
    Error::Refused { status: status.as_u16(), detail }
}
