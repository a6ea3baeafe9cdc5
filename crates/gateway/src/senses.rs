//! What the gateway notices of requests, set up from its settings.

use std::sync::Arc;

use insula_http::usage::UsageDesk;
use insula_telemetry::Senses;
use insula_telemetry::senses::{Bills, Deliver, Settings};
use insula_telemetry::slo::Objectives;

use crate::Error;
use crate::config::TelemetryConfig;

/// Starts noticing. Requests and bytes are billed here; the work behind them, where it is done.
/// `takes_over`: from a gateway that runs by the same settings until this one serves.
pub(crate) fn start(config: &TelemetryConfig, takes_over: bool) -> Result<Senses, Error> {
    let deliver = match (&config.control_url, &config.control_key_file) {
        (Some(url), Some(key)) => {
            let desk = UsageDesk::new(url, key, config.control_authorities.as_deref());
            let desk = desk.map_err(|what| Error::Setting { part: "telemetry", what })?;
            Some(Arc::new(desk) as Arc<dyn Deliver>)
        }
        _ => None,
    };
    let objectives = config.objectives_file.as_deref().map(Objectives::read).transpose()?.unwrap_or_default();
    Ok(Senses::start(Settings { objectives, spool: config.usage_dir.clone(), deliver, bills: Bills::Requests, takes_over })?)
}
