//! Settings of what a process notices of its tenants.

use std::path::PathBuf;

use super::text::Vars;

const CONTROL_KEY: &str = "INSULA_CONTROL_KEY_FILE";
const CONTROL_AUTHORITIES: &str = "INSULA_CONTROL_CA";
const USAGE_DIR: &str = "INSULA_USAGE_DIR";
const OBJECTIVES: &str = "INSULA_SLO";

pub(super) const NAMES: &[&str] = &[CONTROL_KEY, CONTROL_AUTHORITIES, USAGE_DIR, OBJECTIVES];

/// Settings of what a process notices of its tenants.
#[derive(Clone, Debug, Default)]
pub struct Watching {
    /// `INSULA_CONTROL_KEY_FILE`: a file with a key of scope `edge` of the control plane. Without it, usage is not sent.
    pub control_key: Option<PathBuf>,
    /// `INSULA_CONTROL_CA`: for a control plane at `https`, a PEM file of the authorities whose certificates are believed there, and no others. Without
    /// it, those of the web.
    pub control_authorities: Option<PathBuf>,
    /// `INSULA_USAGE_DIR`: a folder of this process's own, in which usage waits until it is sent. Without it, usage is not billed.
    pub usage_dir: Option<PathBuf>,
    /// `INSULA_SLO`: a file of objectives (TOML). Without it, all tiers have the default ones.
    pub objectives: Option<PathBuf>,
}

impl Watching {
    pub(super) fn read(vars: Vars<'_>) -> Self {
        let path = |name| vars.get(name).map(PathBuf::from);
        Self {
            control_key: path(CONTROL_KEY),
            control_authorities: path(CONTROL_AUTHORITIES),
            usage_dir: path(USAGE_DIR),
            objectives: path(OBJECTIVES),
        }
    }
}
