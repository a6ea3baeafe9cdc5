//! Host names of tenants: claimed by anybody, proven by a TXT record, led to the first that has proven it.

use insula_core::{Feature, SystemClock};
use serde_json::json;

use super::Control;
use crate::check;
use crate::error::Error;
use crate::model::{Domain, Page, PageRequest, Tenant};
use crate::store;

/// Whether a plan has host names of the tenant's own.
const CUSTOM_DOMAIN: Feature<bool> = Feature::new("custom_domain", false);

impl Control {
    /// Host names of a tenant (by slug or id).
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such tenant.
    pub async fn domains(&self, tenant: &str, page: &PageRequest) -> Result<Page<Domain>, Error> {
        let mut conn = self.catalog_pool().acquire().await?;
        let tenant = store::tenants::find(&mut conn, tenant).await?;
        store::domains::list(&mut conn, tenant.id.uuid(), page).await
    }

    /// Claims a host name for a tenant. It leads nowhere until [`Control::verify_domain`].
    ///
    /// # Errors
    /// [`Error::Conflict`] when the tenant has it, another has proven it, or the plan has no host names; [`Error::Invalid`],
    /// [`Error::NotFound`].
    pub async fn add_domain(&self, actor: &str, tenant: &str, host: &str) -> Result<Domain, Error> {
        let host = check::domain(host, &self.config().base_domain)?;
        let mut tx = self.catalog_pool().begin().await?;
        let tenant = store::tenants::find(&mut tx, tenant).await?;
        must_have_domains(&mut tx, &tenant).await?;
        store::domains::forget_deleted(&mut tx, &host).await?;
        if store::domains::holder(&mut tx, &host).await?.is_some_and(|holder| holder != tenant.id.uuid()) {
            return Err(Error::Conflict(format!("{host} belongs to another tenant, which has proven it")));
        }
        let made = store::domains::insert(&mut tx, &host, tenant.id.uuid()).await?;
        let made = made.ok_or_else(|| Error::Conflict(format!("{} has {host} already", tenant.slug)))?;
        store::audit::append(&mut tx, actor, "domain.add", Some(tenant.id.uuid()), &host, &json!({})).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Looks for the record that proves a host name; when it is there, the name leads to the tenant from now on. May be repeated.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the record is not there, another tenant was first, or the plan has no host names;
    /// [`Error::NotFound`]; [`Error::Away`] when the name servers do not answer.
    pub async fn verify_domain(&self, actor: &str, tenant: &str, host: &str) -> Result<Domain, Error> {
        let host = check::host(host)?;
        let mut conn = self.catalog_pool().acquire().await?;
        let tenant = store::tenants::find(&mut conn, tenant).await?;
        let claim = store::domains::get(&mut conn, &host, tenant.id.uuid()).await?;
        let claim = claim.ok_or_else(|| Error::not_found("domain", &host))?;
        must_have_domains(&mut conn, &tenant).await?;
        // Nothing of the catalog is held while others are waited for.
        drop(conn);
        let found = self.dns().texts(&claim.record_name()).await?;
        if !found.contains(&claim.record_value()) {
            return Err(Error::Conflict(missing(&claim, &found)));
        }
        let mut tx = self.catalog_pool().begin().await?;
        store::domains::forget_deleted(&mut tx, &host).await?;
        let proven = store::domains::verify(&mut tx, &host, tenant.id.uuid()).await.map_err(|error| match error {
            Error::Catalog(error) if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => {
                Error::Conflict(format!("{host} belongs to another tenant, which has proven it first"))
            }
            error => error,
        })?;
        // Taken away while we asked.
        let proven = proven.ok_or_else(|| Error::not_found("domain", &host))?;
        if claim.verified_at.is_none() {
            store::audit::append(&mut tx, actor, "domain.verify", Some(tenant.id.uuid()), &host, &json!({})).await?;
        }
        tx.commit().await?;
        Ok(proven)
    }

    /// Takes a host name away.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the tenant does not have it.
    pub async fn remove_domain(&self, actor: &str, tenant: &str, host: &str) -> Result<(), Error> {
        let host = check::host(host)?;
        let mut tx = self.catalog_pool().begin().await?;
        let tenant = store::tenants::find(&mut tx, tenant).await?;
        if !store::domains::delete(&mut tx, &host, tenant.id.uuid()).await? {
            return Err(Error::not_found("domain", host));
        }
        store::audit::append(&mut tx, actor, "domain.remove", Some(tenant.id.uuid()), &host, &json!({})).await?;
        tx.commit().await?;
        Ok(())
    }
}

async fn must_have_domains(conn: &mut sqlx::PgConnection, tenant: &Tenant) -> Result<(), Error> {
    let plan = store::plans::get(conn, tenant.plan.as_str()).await?;
    let plan = plan.ok_or_else(|| Error::not_found("plan", &tenant.plan))?.plan.overridden(&tenant.features);
    if CUSTOM_DOMAIN.of(&plan, &SystemClock) {
        return Ok(());
    }
    Err(Error::Conflict(format!(
        "the plan of {}, {}, does not have custom_domain: change the plan, or override the feature",
        tenant.slug, tenant.plan
    )))
}

/// What is to be done, and what was found instead.
fn missing(claim: &Domain, found: &[String]) -> String {
    let instead = match found.first() {
        None => "there is none".to_owned(),
        Some(text) => format!("it says {:?}", text.chars().take(80).collect::<String>()),
    };
    format!(
        "{} is not proven: the TXT record of {} has to say {}, and {instead} (a new record may take a while to be seen)",
        claim.host,
        claim.record_name(),
        claim.record_value()
    )
}
