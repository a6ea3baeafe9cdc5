//! The extractor: whose request this is, and the way to that tenant's rows.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use futures_util::future::BoxFuture;
use http::request::Parts;
use insula_catalog::Route;
use insula_core::{Kind, Plan, TenantContext, TenantSettings};
use insula_data::TenantTx;

use crate::error::{Error, Result};
use crate::handle::Insula;

/// The request's tenant. A handler that takes one is never called without.
#[derive(Clone, Debug)]
pub struct Tenant {
    context: TenantContext,
    route: Arc<Route>,
    insula: Insula,
}

impl Tenant {
    /// Opens a transaction in which the database shows this tenant's rows and no others. It lasts by `commit()` and is
    /// rolled back when dropped. `&mut tx` is an sqlx executor.
    ///
    /// # Errors
    /// When no connection is free in time, the tenant was suspended meanwhile, or the database is away.
    pub async fn begin(&self) -> Result<TenantTx> {
        Ok(self.insula.data().begin(&self.context).await?)
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

    /// Whether the plan has a feature.
    #[must_use]
    pub fn has(&self, feature: &str) -> bool {
        self.plan().features.get(feature).is_some_and(insula_core::FeatureValue::is_on)
    }

    /// # Errors
    /// `Denied`, in words for the client, when the plan has not the feature.
    pub fn require(&self, feature: &str) -> Result<()> {
        if self.has(feature) {
            return Ok(());
        }
        Err(Error::public(Kind::Denied, format!("Your plan, {}, does not have {feature}.", self.plan().name)))
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
