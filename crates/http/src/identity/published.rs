//! The public keys of context tokens as an application follows them: from the control plane's JWKS, from a file, or both.
//!
//! Always: the keys of before stay good while nobody answers; with a file beside the URL, also through a restart (the file is
//! written with what was fetched). A rotation publishes a key long before it signs, so the minute between two looks is no gap.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use insula_core::token::KeySet;
use tokio::task::AbortHandle;

use super::clock::SharedClock;
use super::fetch::{FetchError, Fetcher};

/// Between two looks at the URL, and at the file.
const URL_EVERY: Duration = Duration::from_secs(60);
const FILE_EVERY: Duration = Duration::from_secs(1);
/// However many tokens name a key that is not known: the URL is asked for it no more often, seconds.
const ASK_AGAIN: i64 = 5;

/// Why there are no keys to begin with.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// Neither URL nor file was named.
    #[error("name a JWKS: its URL, a file, or both")]
    Nowhere,
    /// The file cannot be read.
    #[error("the keys in {} cannot be read: {reason}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The URL does not answer, and there is no file.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// What it answers is no JWKS.
    #[error("{url}: {reason}")]
    Jwks {
        /// Which.
        url: String,
        /// Why.
        reason: &'static str,
    },
}

/// Keys that are followed until the last handle is gone.
#[derive(Clone, Debug)]
pub struct Published {
    shared: Arc<Shared>,
    _following: Arc<Following>,
}

#[derive(Debug)]
struct Shared {
    keys: ArcSwap<KeySet>,
    url: Option<String>,
    file: Option<PathBuf>,
    fetcher: Fetcher,
    clock: SharedClock,
    /// When the URL was last asked because of an unknown key.
    asked: AtomicI64,
    /// One at a time.
    asking: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Following(AbortHandle);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Published {
    /// Reads the keys and follows them on the current tokio runtime. With a URL and a file, the file serves while the URL does not.
    ///
    /// # Errors
    /// [`PublishedError`], when there are no keys at all.
    pub async fn follow(url: Option<String>, file: Option<PathBuf>, fetcher: Fetcher) -> Result<Self, PublishedError> {
        let shared = Arc::new(Shared {
            keys: ArcSwap::default(),
            url,
            file,
            fetcher,
            clock: SharedClock::default(),
            asked: AtomicI64::new(i64::MIN),
            asking: tokio::sync::Mutex::new(()),
        });
        if shared.url.is_none() && shared.file.is_none() {
            return Err(PublishedError::Nowhere);
        }
        if let Err(error) = shared.fetch().await {
            // Nobody answers (yet): what the file has is good.
            shared.read().await.map_err(|unread| if shared.file.is_some() { unread } else { error })?;
        }
        let following = tokio::spawn(Arc::clone(&shared).keep_up());
        Ok(Self { shared, _following: Arc::new(Following(following.abort_handle())) })
    }

    /// The keys as they are known.
    #[must_use]
    pub fn keys(&self) -> Arc<KeySet> {
        self.shared.keys.load_full()
    }

    /// A token names a key that is not known: asks for the keys, unless that was done a moment ago.
    pub(super) async fn ask(&self) {
        let shared = &self.shared;
        let _turn = shared.asking.lock().await;
        let now = shared.clock.now();
        if now.saturating_sub(shared.asked.swap(now, Ordering::AcqRel)) >= ASK_AGAIN {
            shared.look().await;
        }
    }
}

impl Shared {
    /// Looks again, wherever there is something to look at; the keys of before stay when there is not.
    async fn look(&self) {
        let looked = if self.url.is_some() { self.fetch().await } else { self.read().await };
        if let Err(error) = looked {
            tracing::warn!(%error, "the keys of tenant contexts cannot be had; those of before stay good");
        }
    }

    async fn fetch(&self) -> Result<(), PublishedError> {
        let Some(url) = &self.url else { return Err(PublishedError::Nowhere) };
        let body = self.fetcher.get(url).await?;
        let text = String::from_utf8(body).unwrap_or_default();
        let keys = KeySet::from_jwks(&text).map_err(|reason| PublishedError::Jwks { url: url.clone(), reason })?;
        if keys.is_empty() {
            return Err(PublishedError::Jwks { url: url.clone(), reason: "there is no Ed25519 key in it" });
        }
        if **self.keys.load() != keys {
            self.keys.store(Arc::new(keys));
            self.keep(&text).await;
        }
        Ok(())
    }

    /// Keeps what was fetched, for a start while nobody answers. Public keys: no secret is written.
    async fn keep(&self, text: &str) {
        let Some(file) = &self.file else { return };
        let new = file.with_extension("new");
        let kept = async {
            tokio::fs::write(&new, text).await?;
            tokio::fs::rename(&new, file).await
        };
        if let Err(error) = kept.await {
            tracing::warn!(%error, file = %file.display(), "the keys of tenant contexts cannot be kept");
        }
    }

    async fn read(&self) -> Result<(), PublishedError> {
        let Some(path) = &self.file else { return Err(PublishedError::Nowhere) };
        let fault = |reason: String| PublishedError::File { path: path.clone(), reason };
        let text = tokio::fs::read_to_string(path).await.map_err(|error| fault(error.to_string()))?;
        let keys = KeySet::from_jwks(&text).map_err(|reason| fault(reason.to_owned()))?;
        if keys.is_empty() {
            return Err(fault("there is no Ed25519 key in it".to_owned()));
        }
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    async fn keep_up(self: Arc<Self>) {
        let mut rounds = tokio::time::interval(if self.url.is_some() { URL_EVERY } else { FILE_EVERY });
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // The first is at once, and was done.
        rounds.tick().await;
        let mut seen = self.modified().await;
        loop {
            rounds.tick().await;
            let now = self.modified().await;
            if self.url.is_some() || now != seen {
                self.look().await;
                seen = now;
            }
        }
    }

    async fn modified(&self) -> Option<SystemTime> {
        tokio::fs::metadata(self.file.as_ref()?).await.and_then(|file| file.modified()).ok()
    }
}
