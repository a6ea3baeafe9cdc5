//! What data planes ask for about one tenant.

use insula_core::Plan;
use serde_json::Value;

use super::Control;
use crate::error::Error;
use crate::model::TenantConfig;
use crate::store;

impl Control {
    /// What holds for a tenant, at one moment.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn tenant_config(&self, tenant: &str) -> Result<TenantConfig, Error> {
        let mut tx = self.catalog_pool().begin().await?;
        sqlx::query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY").execute(&mut *tx).await?;
        let tenant = store::tenants::find(&mut tx, tenant).await?;
        let plan = store::plans::get(&mut tx, tenant.plan.as_str()).await?;
        let plan = plan.ok_or_else(|| Error::Corrupt(format!("tenant {} has a plan that is not there", tenant.slug)))?.plan;
        let documents = store::documents::in_force(&mut tx).await?;
        tx.rollback().await?;
        let limits = tenant.limits.iter().map(|(name, number)| (name.clone(), Value::from(*number))).collect();
        let limits = store::plans::parse("tenant's limits", plan.limits.overridden(&limits))?;
        let mut features = plan.features.clone();
        let now = chrono::Utc::now();
        let lasting = tenant.features.iter().filter(|(_, by)| by.until().is_none_or(|until| until > now));
        features.extend(lasting.map(|(name, by)| (name.clone(), by.value().clone())));
        let documents = documents.into_iter().filter_map(|document| {
            let version = document.of(tenant.id)?;
            Some((document.name.to_string(), version.clone()))
        });
        Ok(TenantConfig { documents: documents.collect(), plan: Plan { limits, features, ..plan }, tenant })
    }
}
