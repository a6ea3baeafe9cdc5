//! Gets small documents over HTTP from addresses that others have chosen.
//!
//! Always: bounded in time and size, no redirects (they could lead inside), HTTPS or this machine, a bounded number at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use url::{Host, Url};

/// The longest that one document may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// The largest document.
const MOST_BYTES: usize = 256 * 1024;
/// Fetches at once: issuers that hang must not keep others waiting.
const MOST_AT_ONCE: usize = 128;

/// Why a document could not be had. It says nothing of what was got.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Not an address that is fetched from.
    #[error("{0} is not an HTTPS address (or an HTTP address of this machine)")]
    Address(String),
    /// No answer.
    #[error("{0} does not answer: {1}")]
    Away(String, reqwest::Error),
    /// An answer that is not the document.
    #[error("{0} answered {1}")]
    Status(String, u16),
    /// Too much of it.
    #[error("{0} answered more than 256 KiB")]
    TooLarge(String),
}

/// Fetches. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    client: reqwest::Client,
    turns: Arc<Semaphore>,
}

impl Fetcher {
    /// A fetcher with connections of its own.
    ///
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .timeout(PATIENCE)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(1)
            .user_agent(concat!("insula/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { client, turns: Arc::new(Semaphore::new(MOST_AT_ONCE)) })
    }

    /// Gets a document of JSON.
    pub(super) async fn get(&self, address: &str) -> Result<Vec<u8>, FetchError> {
        let url = allowed(address).ok_or_else(|| FetchError::Address(address.to_owned()))?;
        let away = |error: reqwest::Error| FetchError::Away(address.to_owned(), error.without_url());
        // Never closed.
        let _turn = self.turns.acquire().await;
        let mut answer = self.client.get(url).header("accept", "application/json").send().await.map_err(away)?;
        if answer.status() != reqwest::StatusCode::OK {
            return Err(FetchError::Status(address.to_owned(), answer.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(away)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(FetchError::TooLarge(address.to_owned()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// HTTPS anywhere; plain HTTP where nobody can listen in.
fn allowed(address: &str) -> Option<Url> {
    let url = Url::parse(address).ok()?;
    let here = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    };
    let anonymous = url.username().is_empty() && url.password().is_none();
    (anonymous && (url.scheme() == "https" || url.scheme() == "http" && here)).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::allowed;

    #[test]
    fn only_where_nobody_listens_in() {
        for good in ["https://id.example/keys", "http://localhost:1/k", "http://127.0.0.1/k", "http://[::1]:8/k"] {
            assert!(allowed(good).is_some(), "{good}");
        }
        for bad in [
            "http://id.example/k",
            "file:///etc/passwd",
            "ftp://localhost/",
            "x",
            "https://u:p@id.example/",
            "http://localhost.evil/",
        ] {
            assert!(allowed(bad).is_none(), "{bad}");
        }
    }
}
