//! The handle that an application holds: its catalog, its data access, its settings.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::middleware::AddExtension;
use axum::response::Response;
use insula_cache::{Cache, CacheConfig};
use insula_catalog::{Catalog, Options, PgSource};
use insula_core::keys::{KeyError, LinkKey};
use insula_core::{CellName, KeyRing, TenantContext, TenantId};
use insula_data::{Data, DataConfig};
use insula_http::admit::{Admit, AdmitLayer, ClassError, Held};
use insula_http::identity::{Fetcher, Published, Verifier};
use insula_http::resolve::OptionsError;
use insula_http::{Admission, AdmissionConfig, Resolve, ResolveLayer, ResolveOptions, Resolver};
use insula_telemetry::Senses;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tower::Layer;
use tower::util::MapResponse;

use crate::alone::{self, InstallError};
use crate::config::{Alone, Brings, Config, ConfigError, Many, Tenancy, read_keyring};
use crate::contexts::Contexts;
use crate::objects::Objects;

/// How long a start waits for the catalog before it says that it cannot.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there is no connection to Insula.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// A setting is wrong or missing.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Telemetry cannot be set up.
    #[error(transparent)]
    Telemetry(#[from] insula_telemetry::Error),
    /// How tenants are to be found.
    #[error("INSULA_SOURCES, INSULA_HOST_SIDE or INSULA_SHARED_HOSTS is wrong: {0}")]
    Resolve(#[from] OptionsError),
    /// Which routes are expensive.
    #[error("INSULA_ADMISSION is wrong: {0}")]
    Admission(#[from] ClassError),
    /// The gateway's keys cannot be had.
    #[error("INSULA_JWKS_URL, INSULA_JWKS_FILE: {0}")]
    Gateway(String),
    /// The one customer's database cannot be prepared.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The one customer's database does not let this process in.
    #[error(
        "the database at {address} does not let this application in ({reason}): prepare it by a start with the owner in \
         INSULA_DATABASE_URL, and give this process the same key file (INSULA_KEYRING)"
    )]
    Unprepared {
        /// Where; never a password.
        address: String,
        /// What went wrong.
        reason: String,
    },
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
#[derive(Clone)]
pub struct Insula {
    inner: Arc<Inner>,
}

impl std::fmt::Debug for Insula {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Inner { catalog, data, .. } = &*self.inner;
        f.debug_struct("Insula").field("catalog", catalog).field("data", data).finish_non_exhaustive()
    }
}

struct Inner {
    catalog: Catalog,
    data: Data,
    cache: Cache,
    objects: Arc<Objects>,
    layer: ResolveLayer,
    admission: Admission,
    contexts: Arc<Contexts>,
    /// What workers serve.
    ring: watch::Sender<KeyRing>,
    senses: Senses,
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

/// What [`Insula::layer`] gives: each request gets its tenant, and goes on when the tenant's plan and this process have room for it; or an
/// answer that says why not.
#[derive(Clone)]
pub struct InsulaLayer {
    insula: Insula,
}

impl<S> Layer<S> for InsulaLayer
where
    S: Clone,
{
    type Service = Resolve<MapResponse<Admit<AddExtension<S, Insula>>, fn(Response<Held<Body>>) -> Response>>;
    fn layer(&self, inner: S) -> Self::Service {
        let inner = Extension(self.insula.clone()).layer(inner);
        let admitted = AdmitLayer::new(self.insula.inner.admission.clone()).layer(inner);
        self.insula.inner.layer.layer(MapResponse::new(admitted, plain))
    }
}

/// An answer as axum has it.
fn plain(response: Response<Held<Body>>) -> Response {
    response.map(Body::from)
}

impl Insula {
    /// Connects by the settings: to the catalog of many customers, which is waited for, or to the database of one, which is prepared first
    /// when its owner is named. Tenants' databases are connected to when they are first needed.
    ///
    /// # Errors
    /// [`ConnectError`], in words for whoever starts the process.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        let senses = crate::senses::start(&config)?;
        match &config.tenancy {
            Tenancy::On(many) => {
                let catalog = follow(many).await?;
                let contexts = contexts(many).await?;
                let admission = AdmissionConfig { rates: contexts.verifier().is_none(), ..config.admission.clone() };
                let admission = Admission::new(admission)?;
                let layer = match contexts.verifier() {
                    Some(verifier) => ResolveLayer::verified(Arc::clone(verifier), catalog.clone()),
                    None => ResolveLayer::by(Resolver::new(many.resolve.clone())?.ahead_of(&admission), catalog.clone()),
                };
                let keys = Keys { ring: many.keyring.clone(), file: many.keyring_path.clone() };
                Ok(Self::new(catalog, layer, admission, contexts, keys, Some(config), senses))
            }
            Tenancy::Off(alone) => {
                let brings = config.brings.as_ref().ok_or(InstallError::NothingBrought)?;
                alone.fits(&brings.features)?;
                if alone.owner {
                    prepare(alone, brings).await?;
                }
                let database = alone.database.get_database().unwrap_or_default();
                let source = alone::source(alone, database, &brings.features).map_err(InstallError::from)?;
                let catalog = Catalog::start(source, Options::default());
                catalog.ready().await;
                let resolver = Resolver::new(ResolveOptions {
                    sources: vec![],
                    fallback: alone::SLUG.parse().ok(),
                    ..ResolveOptions::default()
                })?;
                let layer = ResolveLayer::by(resolver, catalog.clone());
                let keys = Keys { ring: read_keyring(&alone.keyring_path)?, file: Some(alone.keyring_path.clone()) };
                let address = alone.address();
                let contexts = Contexts::new(None, None, &keys.ring);
                let admission = Admission::new(config.admission.clone())?;
                let insula = Self::new(catalog, layer, admission, contexts, keys, Some(config), senses);
                insula.enter(&address).await?;
                Ok(insula)
            }
        }
    }

    /// From parts that are there already: for tests and for processes with a catalog of their own.
    #[must_use]
    pub fn from_parts(catalog: Catalog, keys: KeyRing) -> Self {
        let layer = ResolveLayer::new(catalog.clone());
        let contexts = Contexts::new(None, None, &keys);
        let keys = Keys { ring: keys, file: None };
        Self::new(catalog, layer, Admission::default(), contexts, keys, None, Senses::default())
    }

    /// As [`Insula::from_parts`], behind a gateway: for requests that carry a context which one of the published keys has signed for a
    /// cell of the ring.
    #[must_use]
    pub fn from_parts_verified(catalog: Catalog, keys: KeyRing, published: Published) -> Self {
        let verifier = Arc::new(Verifier::new("", published));
        let layer = ResolveLayer::verified(Arc::clone(&verifier), catalog.clone());
        let contexts = Contexts::new(Some(verifier), None, &keys);
        // Without classes there is nothing that could be wrong.
        let admission = Admission::new(AdmissionConfig { rates: false, ..AdmissionConfig::default() }).unwrap_or_default();
        let keys = Keys { ring: keys, file: None };
        Self::new(catalog, layer, admission, contexts, keys, None, Senses::default())
    }

    fn new(
        catalog: Catalog,
        layer: ResolveLayer,
        admission: Admission,
        contexts: Contexts,
        keys: Keys,
        config: Option<Config>,
        senses: Senses,
    ) -> Self {
        crate::senses::name_tenants(&senses, catalog.clone());
        let layer = layer.watched_by(senses.clone());
        let contexts = Arc::new(contexts);
        let mut access = DataConfig { usage: Some(senses.usage().clone()), ..DataConfig::default() };
        if let Some(Config { tenancy: Tenancy::On(many), .. }) = &config {
            access.authorities.clone_from(&many.cell_authorities);
            access.read_staleness = many.read_staleness;
        }
        let ring = watch::Sender::new(keys.ring.clone());
        let data = Data::open(access, catalog.clone(), keys.ring);
        let caching = config.as_ref().map_or_else(CacheConfig::default, |config| config.caching.clone());
        let cache = Cache::new(caching);
        let objects = Arc::new(Objects::new(config.as_ref().map(|config| config.store.clone()).unwrap_or_default()));
        let keys = keys.file.map(|file| crate::keys::follow(file, data.clone(), contexts.clone(), ring.clone()));
        Self { inner: Arc::new(Inner { catalog, data, cache, objects, layer, admission, contexts, ring, senses, config, keys }) }
    }

    /// Tries the one customer's database, so that a start says what is missing and not the first request.
    async fn enter(&self, address: &str) -> Result<(), ConnectError> {
        let fault = |reason: String| ConnectError::Unprepared { address: address.to_owned(), reason };
        let route = self.inner.catalog.by_slug(alone::SLUG).ok_or_else(|| fault("there is no tenant".to_owned()))?;
        let context = TenantContext {
            tenant: route.id,
            no: route.no,
            slug: route.slug.clone(),
            plan: route.plan.name.clone(),
            principal: None,
            request_id: "start".into(),
            proof: None,
            trace: None,
        };
        let tx = self.inner.data.begin(&context).await.map_err(|error| fault(error.to_string()))?;
        tx.commit().await.map_err(|error| fault(error.to_string()))
    }

    /// The layer that finds each request's tenant: put it around all routes, last.
    #[must_use]
    pub fn layer(&self) -> InsulaLayer {
        InsulaLayer { insula: self.clone() }
    }

    /// The key of a tenant's links.
    pub(crate) fn link_key(&self, cell: &CellName, tenant: TenantId) -> Result<LinkKey, KeyError> {
        Ok(self.inner.ring.borrow().cell(cell)?.link_key(tenant))
    }

    pub(crate) fn objects(&self) -> Arc<Objects> {
        self.inner.objects.clone()
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.inner.cache
    }

    /// Starts a worker in this process, for the jobs of all tenants that it has keys for, also of those that it is given later. What the
    /// settings do not say is as this process has it: a name of its own, the authorities of cells' servers. [`crate::work`] is a process that
    /// does nothing else.
    ///
    /// # Errors
    /// When there is no thread for it. Databases that are away are tried again and again.
    pub fn worker(
        &self,
        jobs: insula_jobs::Jobs,
        mut config: insula_jobs::WorkerConfig,
    ) -> Result<insula_jobs::Worker, insula_jobs::Error> {
        let Inner { data, catalog, ring, config: settings, .. } = &*self.inner;
        let many = settings.as_ref().and_then(|settings| match &settings.tenancy {
            Tenancy::On(many) => Some(many),
            Tenancy::Off(_) => None,
        });
        if config.name == insula_jobs::WorkerConfig::default().name {
            let cell = many.and_then(|many| many.cell.as_ref()).map_or("worker", |cell| cell.as_str());
            config.name = format!("{cell}/{}", std::process::id());
        }
        if config.authorities.is_none() {
            config.authorities = many.and_then(|many| many.cell_authorities.clone());
        }
        let jobs =
            crate::webhooks::with_deliveries(jobs, self).map_err(|error| insula_jobs::Error::Settings(error.to_string()))?;
        if let (None, Some(Config { tenancy: Tenancy::Off(_), .. })) = (&config.databases, settings) {
            // There is one database, and it has the name that its owner gave it.
            config.databases = Some(self.home().into_iter().collect());
            config.anchor = config.anchor.or_else(|| self.home());
        }
        // What `Tenant::of_job` finds its way by.
        let jobs = jobs.giving(self.clone());
        insula_jobs::Worker::start(jobs, data.clone(), catalog.clone(), ring.subscribe(), config)
    }

    /// The host side as this process has it: for sweeps over all tenants, [`insula_jobs::for_each_tenant`].
    #[must_use]
    pub fn host_side(&self) -> insula_jobs::HostSide {
        let alone = matches!(self.config(), Some(Config { tenancy: Tenancy::Off(_), .. }));
        let databases = alone.then(|| self.home().into_iter().collect());
        insula_jobs::HostSide::new(self.catalog().clone(), self.keys(), self.cell_authorities(), databases)
    }

    /// Where the one tenant lives, with tenancy off.
    fn home(&self) -> Option<insula_jobs::DatabaseName> {
        let route = self.catalog().by_slug(alone::SLUG)?;
        let (cell, database) = (route.placement.cell.clone(), route.placement.database.clone());
        Some(insula_jobs::DatabaseName { cell, database })
    }

    /// The keys that this process has.
    pub(crate) fn keys(&self) -> KeyRing {
        self.inner.ring.borrow().clone()
    }

    /// Certificate authorities of cells' servers.
    pub(crate) fn cell_authorities(&self) -> Option<PathBuf> {
        match self.config()?.tenancy {
            Tenancy::On(ref many) => many.cell_authorities.clone(),
            Tenancy::Off(_) => None,
        }
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    pub(crate) fn contexts(&self) -> &Contexts {
        &self.inner.contexts
    }

    pub(crate) fn data(&self) -> &Data {
        &self.inner.data
    }

    pub(crate) fn senses(&self) -> &Senses {
        &self.inner.senses
    }

    pub(crate) fn config(&self) -> Option<&Config> {
        self.inner.config.as_ref()
    }
}

/// Keys, and the file that they are read from again when it changes.
struct Keys {
    ring: KeyRing,
    file: Option<PathBuf>,
}

async fn follow(many: &Many) -> Result<Catalog, ConnectError> {
    let source = PgSource::connect(&many.catalog_url).map_err(ConnectError::Catalog)?;
    let options = Options { base_domain: many.base_domain.clone(), ..Options::default() };
    let catalog = Catalog::start(source, options);
    if tokio::time::timeout(PATIENCE, catalog.ready()).await.is_err() {
        let host = url::Url::parse(&many.catalog_url)
            .ok()
            .and_then(|url| Some(format!("{}:{}", url.host_str()?, url.port().unwrap_or(5432))));
        return Err(ConnectError::Silent { host: host.unwrap_or_default(), seconds: PATIENCE.as_secs() });
    }
    Ok(catalog)
}

/// What this process believes of a gateway, when there is one.
async fn contexts(many: &Many) -> Result<Contexts, ConnectError> {
    if !many.jwks.is_set() {
        return Ok(Contexts::new(None, many.cell.clone(), &many.keyring));
    }
    let fetcher = Fetcher::new().map_err(|error| ConnectError::Gateway(error.to_string()))?;
    let published = Published::follow(many.jwks.url.clone(), many.jwks.file.clone(), fetcher).await;
    let published = published.map_err(|error| ConnectError::Gateway(error.to_string()))?;
    // Its audiences follow from the keys.
    let verifier = Arc::new(Verifier::new("", published));
    Ok(Contexts::new(Some(verifier), many.cell.clone(), &many.keyring))
}

/// Prepares the one customer's database; its first user's password goes to a file beside the key, never to the log.
async fn prepare(alone: &Alone, brings: &Brings) -> Result<(), ConnectError> {
    let installed = alone::prepare(alone, brings).await?;
    if let Some(admin) = installed.admin {
        let file = alone.keyring_path.with_extension("admin");
        alone::write(&file, &format!("{}\n{}\n", admin.email, admin.password))?;
        tracing::warn!(file = %file.display(), "the first user's email and password are in this file: read it, then remove it");
    }
    if installed.migrations > 0 {
        tracing::info!(migrations = installed.migrations, "brought the database up to date");
    }
    Ok(())
}
