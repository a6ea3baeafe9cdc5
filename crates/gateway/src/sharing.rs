//! Limits shared with other gateways, through a server where they meet.
//!
//! Not for: how limits are shared (`insula_http::admit::lease` knows). Always: nothing waits for the server; without it, this gateway goes on with its fraction.

use insula_catalog::Catalog;
use insula_http::Admission;
use insula_http::admit::Sharing;
use insula_http::admit::redis::RedisExchange;
use insula_telemetry::Shutdown;
use tokio::task::JoinHandle;

use crate::Error;
use crate::config::SharingConfig;

/// Shares from now on, until `shutdown`; `None` when no server is named.
///
/// # Errors
/// When the file that names the server cannot be read, or names none.
pub(crate) fn begin(
    config: &SharingConfig,
    admission: &Admission,
    catalog: Catalog,
    shutdown: Shutdown,
) -> Result<Option<JoinHandle<()>>, Error> {
    let Some(file) = &config.redis_url_file else { return Ok(None) };
    let wrong = |what: String| Error::Setting { part: "sharing", what };
    let url = std::fs::read_to_string(file).map_err(|e| wrong(format!("{}: {e}", file.display())))?;
    let installation = move || catalog.identity();
    let exchange = RedisExchange::new(url.trim(), &config.namespace, installation).map_err(|e| wrong(e.to_string()))?;
    let sharing = Sharing::new(admission.clone(), config.gateways);
    Ok(Some(tokio::spawn(sharing.run(exchange, async move { shutdown.requested().await }))))
}
