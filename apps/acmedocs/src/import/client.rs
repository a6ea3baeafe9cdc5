//! The public API, from outside.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::header::{HOST, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{Response, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

use super::ImportArgs;

/// Tries of one request before it counts as failed.
const TRIES: u32 = 8;
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// What is sent of a file.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Document {
    pub(crate) title: String,
    pub(crate) body: String,
    pub(crate) tags: Vec<String>,
    pub(crate) format: &'static str,
    pub(crate) source: String,
}

/// What became of a file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    Loaded,
    Known,
    Skipped,
}

/// A session with one tenant's AcmeDocs.
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Client {
    /// Logs in, unless a token is given.
    pub(crate) async fn open(args: &ImportArgs) -> Result<Self> {
        let host = format!("{}.{}", args.tenant, args.base_domain);
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_str(&host).context("the tenant's slug is none")?)]);
        let http = reqwest::Client::builder().default_headers(headers).timeout(Duration::from_secs(60)).build()?;
        let base = args.url.trim_end_matches('/').to_owned();
        let mut client = Self { http, base, token: String::new() };
        client.token = match (&args.token, &args.email, &args.password) {
            (Some(token), ..) => token.clone(),
            (None, Some(email), Some(password)) => client.log_in(email, password).await?,
            _ => bail!("give --email and --password, or --token (or ACMEDOCS_EMAIL, ACMEDOCS_PASSWORD, ACMEDOCS_TOKEN)"),
        };
        Ok(client)
    }

    async fn log_in(&self, email: &str, password: &str) -> Result<String> {
        let answer = self.post("/api/session", &json!({"email": email, "password": password})).await?;
        if !answer.status().is_success() {
            bail!("the log-in was refused: {}", reason(answer).await);
        }
        let body: Value = answer.json().await?;
        Ok(body["token"].as_str().context("the log-in gave no token")?.to_owned())
    }

    /// Makes the document, unless one of its source is there.
    pub(crate) async fn send(&self, document: &Document) -> Result<Sent> {
        let answer = self.post("/api/documents", document).await?;
        match answer.status() {
            StatusCode::CREATED => Ok(Sent::Loaded),
            StatusCode::CONFLICT => Ok(Sent::Known),
            StatusCode::PAYLOAD_TOO_LARGE => Ok(Sent::Skipped),
            _ => bail!("{}", reason(answer).await),
        }
    }

    /// Repeats what may be repeated: a document that was made after all answers "known" the second time.
    async fn post(&self, path: &str, body: &impl Serialize) -> Result<Response> {
        let url = format!("{}{path}", self.base);
        let mut tries = 1;
        loop {
            let mut request = self.http.post(&url).json(body);
            if !self.token.is_empty() {
                request = request.bearer_auth(&self.token);
            }
            let answer = request.send().await;
            let again = match &answer {
                Ok(answer) => matches!(answer.status().as_u16(), 429 | 502 | 503 | 504),
                Err(error) => error.is_connect() || error.is_timeout() || error.is_request(),
            };
            if !again || tries >= TRIES {
                return answer.with_context(|| format!("no answer from {}", self.base));
            }
            let asked = answer.ok().and_then(|answer| answer.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok());
            let pause = asked.map_or(Duration::from_millis(100 << tries), Duration::from_secs).min(LONGEST_PAUSE);
            tokio::time::sleep(pause).await;
            tries += 1;
        }
    }
}

async fn reason(answer: Response) -> String {
    let status = answer.status();
    let body: Value = answer.json().await.unwrap_or_default();
    let words = [&body["detail"], &body["title"]].into_iter().find_map(Value::as_str).unwrap_or_default();
    format!("{status}: {words}")
}
