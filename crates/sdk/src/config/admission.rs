//! Settings of what a process admits. What tenants may stands in their plans.

use insula_http::AdmissionConfig;

use super::ConfigError;
use super::text::{Vars, wrong};

const ADMISSION: &str = "INSULA_ADMISSION";

pub(super) const NAMES: &[&str] = &[ADMISSION];

/// From the file that is named, else as it suits most.
pub(super) fn read(vars: Vars<'_>) -> Result<AdmissionConfig, ConfigError> {
    let Some(path) = vars.get(ADMISSION) else { return Ok(AdmissionConfig::default()) };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(ADMISSION, format!("{path} cannot be read: {e}")))?;
    toml::from_str(&text).map_err(|e| wrong(ADMISSION, format!("{path}: {e}")))
}
