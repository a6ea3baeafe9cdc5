//! The extractor: whose request this is, and the way to that tenant's rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use futures_util::future::BoxFuture;
use http::request::Parts;
use insula_catalog::Route;
use insula_core::feature::FeatureType;
use insula_core::keys::LinkKey;
use insula_core::{Feature, Kind, Plan, SystemClock, TenantContext, TenantSettings};
use insula_data::TenantTx;
use insula_jobs::{JobContext, JobError};

use crate::cache::TenantCache;
use crate::error::{Error, Result};
use crate::handle::Insula;
use crate::objects::TenantObjects;

/// The request's tenant. A handler that takes one is never called without.
#[derive(Clone, Debug)]
pub struct Tenant {
    context: TenantContext,
    route: Arc<Route>,
    insula: Insula,
}

impl Tenant {
    /// The tenant that a job is for, with all that a handler's has: settings, plan, cache, objects, links.
    ///
    /// # Errors
    /// When the tenant is no longer known (the job goes back to where its tenant is looked for), or the worker is not one of [`crate::work`]
    /// or [`Insula::worker`].
    pub fn of_job(job: &JobContext) -> Result<Self, JobError> {
        let insula: &Insula = job.given().ok_or_else(|| JobError::retry("this worker was not started by insula::work"))?;
        let route = insula.catalog().by_id(job.tenant().tenant).map(|route| route.arc());
        let gone = || JobError::Later { delay: Duration::from_secs(5), reason: "its tenant is not known here".to_owned() };
        Ok(Self { context: job.tenant().clone(), route: route.ok_or_else(gone)?, insula: insula.clone() })
    }

    /// Opens a transaction in which the database shows this tenant's rows and no others. It lasts by `commit()` and is
    /// rolled back when dropped. `&mut tx` is an sqlx executor.
    ///
    /// # Errors
    /// When no connection is free in time, the tenant was suspended meanwhile, or the database is away.
    pub async fn begin(&self) -> Result<TenantTx> {
        Ok(self.insula.data().begin(&self.context).await?)
    }

    /// Opens a transaction that only reads, on a replica where the tenant's plan has the feature `read_replica` and one follows closely,
    /// else on the cell's own server: for what may be a second old, such as counts and reports. It may lack what was committed within
    /// `INSULA_READ_STALENESS_MS`, be it by this very request; so no decision about rights belongs here, and no read before a write
    /// that depends on it.
    ///
    /// # Errors
    /// As [`Tenant::begin`]; none only because a replica is away.
    pub async fn begin_read(&self) -> Result<TenantTx> {
        Ok(self.insula.data().begin_read(&self.context).await?)
    }

    /// As [`Tenant::begin_read`], and shows everything that was committed before `moment`: take `Instant::now()` after a commit in this
    /// process to read what it wrote.
    ///
    /// # Errors
    /// As [`Tenant::begin_read`].
    pub async fn begin_read_after(&self, moment: Instant) -> Result<TenantTx> {
        Ok(self.insula.data().begin_read_after(&self.context, moment).await?)
    }

    /// Runs `work` in a transaction that only reads ([`Tenant::begin_read`]); runs it again, on the cell's own server in the end, when a
    /// replica goes away or is in the way of what it replays: `tenant.read(|tx| Box::pin(async move { … }))`.
    ///
    /// # Errors
    /// What `work` returns, and as [`Tenant::begin_read`].
    pub async fn read<T, F>(&self, work: F) -> Result<T>
    where
        F: for<'t> FnMut(&'t mut TenantTx) -> BoxFuture<'t, Result<T>>,
    {
        self.insula.data().read(&self.context, work).await
    }

    /// Runs `work` in a transaction and commits; runs it again when the database asks for that (serialization failure,
    /// deadlock), so it must do nothing outside the transaction that may not happen twice:
    /// `tenant.transact(|tx| Box::pin(async move { … }))`.
    ///
    /// # Errors
    /// What `work` returns, and as [`Tenant::begin`].
    pub async fn transact<T, F>(&self, work: F) -> Result<T>
    where
        F: for<'t> FnMut(&'t mut TenantTx) -> BoxFuture<'t, Result<T>>,
    {
        self.insula.data().transact(&self.context, work).await
    }

    /// What is remembered for this tenant: see [`crate::cache`].
    #[must_use]
    pub fn cache(&self) -> TenantCache<'_> {
        TenantCache::new(self.insula.cache().of(&self.route))
    }

    pub(crate) const fn insula(&self) -> &Insula {
        &self.insula
    }

    /// Where the tenant lives.
    pub(crate) fn cell(&self) -> &insula_core::CellName {
        &self.route.placement.cell
    }

    /// Its files that are too large for rows: see [`crate::objects`].
    #[must_use]
    pub fn objects(&self) -> TenantObjects {
        TenantObjects::new(self.insula.objects(), self.context.tenant)
    }

    pub(crate) fn link_key(&self) -> Result<LinkKey> {
        Ok(self.insula.link_key(&self.route.placement.cell, self.context.tenant)?)
    }

    /// Who the work is for.
    #[must_use]
    pub const fn context(&self) -> &TenantContext {
        &self.context
    }

    /// The name to show: the tenant's brand, or the name it signed up with.
    #[must_use]
    pub fn display_name(&self) -> &str {
        self.settings().brand_name.as_ref().map_or(&self.route.name, |brand| brand.as_str())
    }

    /// Colour, language, time zone.
    #[must_use]
    pub fn settings(&self) -> &TenantSettings {
        &self.route.settings
    }

    /// The plan, with the tenant's own limits and features.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.route.plan
    }

    /// What a configuration document says to this tenant, and in which version; `None` when there is none of that name or nothing is
    /// rolled out to it. From memory; a rollout is felt at once.
    #[must_use]
    pub fn config(&self, name: &str) -> Option<insula_catalog::DocumentVersion> {
        self.insula.catalog().config(name, self.route.id)
    }

    /// A feature's value: the plan's, or this tenant's own while it lasts; the declared safe one when nobody says, or says it in
    /// another type. `tenant.feature(&EXPORTS)` of a `Feature<i64>` is an `i64`.
    #[must_use]
    pub fn feature<T: FeatureType>(&self, feature: &Feature<T>) -> T::Read<'_> {
        feature.of(self.plan(), &SystemClock)
    }

    /// Whether the plan has a feature. Counted.
    #[must_use]
    pub fn has<T: FeatureType>(&self, feature: &Feature<T>) -> bool {
        insula_http::feature::is_on(feature, self.plan())
    }

    /// # Errors
    /// `Denied`, in words for the client, when the plan has not the feature. Counted.
    pub fn require<T: FeatureType>(&self, feature: &Feature<T>) -> Result<()> {
        insula_http::feature::require(feature, self.plan()).map_err(|problem| Error::problem(Kind::Denied, *problem))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Tenant {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let found = &parts.extensions;
        match (found.get::<TenantContext>(), found.get::<Arc<Route>>(), found.get::<Insula>()) {
            (Some(context), Some(route), Some(insula)) => {
                Ok(Self { context: context.clone(), route: route.clone(), insula: insula.clone() })
            }
            // A route outside the layer, or one of the paths that pass without a tenant.
            _ => Err(insula_core::scope::NoTenant.into()),
        }
    }
}
