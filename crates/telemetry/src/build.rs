//! Which build this is: for the admin port, the logs and `--version`.

use serde::Serialize;

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BuildInfo {
    /// Version of the workspace.
    pub version: &'static str,
    /// The commit, when the builder named it in `INSULA_COMMIT`.
    pub commit: &'static str,
    /// `debug` or `release`.
    pub profile: &'static str,
}

/// Of this process.
#[must_use]
pub const fn info() -> BuildInfo {
    BuildInfo {
        version: env!("CARGO_PKG_VERSION"),
        commit: match option_env!("INSULA_COMMIT") {
            Some(commit) => commit,
            None => "unknown",
        },
        profile: if cfg!(debug_assertions) { "debug" } else { "release" },
    }
}
