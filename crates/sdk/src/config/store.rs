//! Where objects are kept: files that are too large for rows.

use std::path::PathBuf;

use url::Url;

use super::ConfigError;
use super::text::{Vars, wrong};

const STORE: &str = "INSULA_STORE";
/// What this build can talk.
#[cfg(feature = "cloud")]
const SCHEMES: &[&str] = &["s3", "s3a", "gs", "az", "abfs", "abfss"];
#[cfg(not(feature = "cloud"))]
const SCHEMES: &[&str] = &[];

pub(super) const NAMES: &[&str] = &[STORE];

/// Where objects are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// A folder that all processes of the application see.
    Folder(PathBuf),
    /// A provider's: `s3://BUCKET/PATH`, `gs://BUCKET/PATH`, `az://CONTAINER/PATH`.
    Url(Url),
}

impl Default for Store {
    fn default() -> Self {
        Self::Folder("insula-objects".into())
    }
}

impl Store {
    /// `INSULA_STORE`: a folder, or a provider's address; its credentials come from the environment under the provider's names
    /// (`AWS_ACCESS_KEY_ID` and so on). Default: the folder `insula-objects` in the working folder.
    pub(super) fn read(vars: Vars<'_>) -> Result<Self, ConfigError> {
        let Some(text) = vars.get(STORE) else { return Ok(Self::default()) };
        if !text.contains("://") {
            return Ok(Self::Folder(text.into()));
        }
        let url = Url::parse(text).map_err(|error| wrong(STORE, error))?;
        if url.scheme() == "file" {
            return url.to_file_path().map(Self::Folder).map_err(|()| wrong(STORE, "give a folder as file:///PATH"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(STORE, "credentials belong into the environment: addresses are logged"));
        }
        if !SCHEMES.contains(&url.scheme()) {
            let known = ["a folder", "file"].into_iter().chain(SCHEMES.iter().copied()).collect::<Vec<_>>().join(", ");
            return Err(wrong(STORE, format!("{}:// is no store that this program knows ({known})", url.scheme())));
        }
        Ok(Self::Url(url))
    }
}
