//! The keys that tenant contexts are signed with: a file, followed.
//!
//! Always: a file that cannot be read keeps the keys of before, and says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use insula_core::token::ContextKeys;
use insula_http::ContextSigner;

use crate::Error;

/// How often the file is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Reads the file.
pub(crate) fn read(path: &Path) -> Result<ContextKeys, Error> {
    let bad = |what: String| Error::Setting { part: "identity", what: format!("signing_keys: {}: {what}", path.display()) };
    let text = std::fs::read_to_string(path).map_err(|e| bad(e.to_string()))?;
    ContextKeys::from_json(&text).map_err(|e| bad(e.to_string()))
}

/// Gives the signer what is in the file, as often as it changes.
pub(crate) async fn follow(path: PathBuf, signer: Arc<ContextSigner>) {
    let mut seen = changed(&path);
    loop {
        tokio::time::sleep(EVERY).await;
        let now = changed(&path);
        if now == seen {
            continue;
        }
        seen = now;
        match read(&path) {
            Ok(keys) => {
                signer.replace_keys(keys);
                tracing::info!("signing keys have changed");
            }
            Err(error) => tracing::error!(%error, "the signing keys of before stay in use"),
        }
    }
}

fn changed(path: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}
