//! The handle that an application holds: its catalog, its data access, its settings.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::middleware::AddExtension;
use insula_catalog::{Catalog, Options, PgSource};
use insula_core::KeyRing;
use insula_data::{Data, DataConfig};
use insula_http::ResolveLayer;
use tokio::task::AbortHandle;
use tower::Layer;

use crate::config::{Config, ConfigError};

/// How long a start waits for the catalog before it says that it cannot.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no connection to Insula.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A setting is wrong or missing.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The catalog's address cannot be read.
    #[error("INSULA_CATALOG_URL is wrong: {0}")]
    Catalog(insula_catalog::Error),
    /// The catalog does not answer.
    #[error(
        "the catalog at {host} did not answer within {seconds} s: is it running, and is the password in INSULA_CATALOG_URL right?"
    )]
    Silent {
        /// Where it was looked for; never the password.
        host: String,
        /// How long.
        seconds: u64,
    },
}

/// Insula, as an application holds it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Insula {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    catalog: Catalog,
    data: Data,
    config: Option<Config>,
    /// Follows the key file.
    keys: Option<AbortHandle>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(keys) = &self.keys {
            keys.abort();
        }
    }
}

/// What [`Insula::layer`] gives: each request gets its tenant, or an answer that says why not.
#[derive(Clone)]
pub struct InsulaLayer {
    insula: Insula,
}

impl<S> Layer<S> for InsulaLayer
where
    S: Clone,
{
    type Service = <ResolveLayer as Layer<AddExtension<S, Insula>>>::Service;
    fn layer(&self, inner: S) -> Self::Service {
        let inner = Extension(self.insula.clone()).layer(inner);
        ResolveLayer::new(self.insula.inner.catalog.clone()).layer(inner)
    }
}

impl Insula {
    /// Connects to the catalog and waits until it is known. Tenants' databases are connected to when they are first needed.
    ///
    /// # Errors
    /// [`ConnectError`], in words for whoever starts the process.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        let source = PgSource::connect(&config.catalog_url).map_err(ConnectError::Catalog)?;
        let options = Options { base_domain: config.base_domain.clone(), ..Options::default() };
        let catalog = Catalog::start(source, options);
        if tokio::time::timeout(PATIENCE, catalog.ready()).await.is_err() {
            let host = url::Url::parse(&config.catalog_url)
                .ok()
                .and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port().unwrap_or(5432))));
            return Err(ConnectError::Silent { host: host.unwrap_or_default(), seconds: PATIENCE.as_secs() });
        }
        Ok(Self::new(catalog, config.keyring.clone(), Some(config)))
    }

    /// From parts that are there already: for tests and for processes with a catalog of their own.
    #[must_use]
    pub fn from_parts(catalog: Catalog, keys: KeyRing) -> Self {
        Self::new(catalog, keys, None)
    }

    fn new(catalog: Catalog, keys: KeyRing, config: Option<Config>) -> Self {
        let data = Data::open(DataConfig::default(), catalog.clone(), keys);
        let file = config.as_ref().and_then(|config| config.keyring_path.clone());
        let keys = file.map(|file| crate::keys::follow(file, data.clone()));
        Self { inner: Arc::new(Inner { catalog, data, config, keys }) }
    }

    /// The layer that finds each request's tenant: put it around all routes, last.
    #[must_use]
    pub fn layer(&self) -> InsulaLayer {
        InsulaLayer { insula: self.clone() }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    pub(crate) fn data(&self) -> &Data {
        &self.inner.data
    }

    pub(crate) fn config(&self) -> Option<&Config> {
        self.inner.config.as_ref()
    }
}
