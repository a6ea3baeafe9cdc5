//! Keys that come while the process runs: a new cell's key is added to the key file, and the file is read again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use insula_core::KeyRing;
use insula_data::Data;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::config::read_keyring;
use crate::contexts::Contexts;

/// How long a new cell may go unserved for want of its key.
const ROUND: Duration = Duration::from_millis(500);

/// Reads the file again whenever it changes, until aborted.
pub(crate) fn follow(path: PathBuf, data: Data, contexts: Arc<Contexts>, ring: watch::Sender<KeyRing>) -> AbortHandle {
    let following = tokio::spawn(async move {
        let mut seen = modified(&path).await;
        let mut rounds = tokio::time::interval(ROUND);
        loop {
            rounds.tick().await;
            let now = modified(&path).await;
            if now == seen {
                continue;
            }
            match read_keyring(&path) {
                Ok(keys) => {
                    tracing::info!(cells = keys.cells().count(), "read the key file again");
                    contexts.replace_keys(&keys);
                    data.replace_keys(keys.clone());
                    ring.send_replace(keys);
                    seen = now;
                }
                // Perhaps it is being written at this moment: the keys we have stay good.
                Err(error) => tracing::warn!(%error, "the key file changed and cannot be read"),
            }
        }
    });
    following.abort_handle()
}

async fn modified(path: &std::path::Path) -> Option<SystemTime> {
    tokio::fs::metadata(path).await.and_then(|file| file.modified()).ok()
}
