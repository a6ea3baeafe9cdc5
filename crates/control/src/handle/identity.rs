//! Who may speak for a tenant, and the keys that sign for the gateways.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{TimeDelta, Utc};
use insula_api::identity::{ContextKey, CreateProvider, CreateTenantKey, Provider, TenantKey};
use insula_core::token::{FRESH_SECONDS, KeySet, LIFE_SECONDS, SKEW_SECONDS};
use insula_core::{CellName, KeyId, ProviderId};
use serde_json::json;

use super::Control;
use crate::error::Error;
use crate::model::{Page, PageRequest};
use crate::{check, password, store};

/// The longest overlap that makes sense: a week.
const LONGEST_OVERLAP: u32 = 604_800;
/// Providers of one issuer and audience: a token is judged by each.
const MOST_SIBLINGS: usize = 64;

impl Control {
    /// Believes an issuer, for a tenant or, of the host side, for those that its tokens name.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`] for the tenant; [`Error::Conflict`] when it is there already, or others read the same
    /// issuer's tokens in another way.
    pub async fn create_provider(&self, actor: &str, new: &CreateProvider) -> Result<Provider, Error> {
        check::provider(new)?;
        let mut tx = self.catalog_pool().begin().await?;
        let tenant = match &new.tenant {
            Some(tenant) => Some(store::tenants::find(&mut tx, tenant).await?.id.uuid()),
            None => None,
        };
        let siblings = store::identity::siblings(&mut tx, &new.issuer, &new.audience).await?;
        let alike = |other: &Provider| {
            other.subject_claim == new.subject_claim.as_deref().unwrap_or("sub")
                && other.scopes_claim == new.scopes_claim.as_deref().unwrap_or("scope")
        };
        if !siblings.iter().all(alike) {
            return Err(Error::Conflict("others read subject and scopes of this issuer's tokens from other claims".into()));
        }
        if siblings.len() >= MOST_SIBLINGS {
            let most = format!("{MOST_SIBLINGS} tenants share this issuer and audience: use one provider of the host side");
            return Err(Error::Conflict(most));
        }
        let made = store::identity::insert_provider(&mut tx, tenant, new).await?;
        let made = made.ok_or_else(|| Error::Conflict("this provider is there already".into()))?;
        let detail = json!({"issuer": made.issuer, "audience": made.audience});
        store::audit::append(&mut tx, actor, "provider.create", tenant, &made.id.to_string(), &detail).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Identity providers, oldest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of somebody's own making; [`Error::NotFound`] for the tenant.
    pub async fn providers(&self, tenant: Option<&str>, page: &PageRequest) -> Result<Page<Provider>, Error> {
        let mut conn = self.catalog_pool().acquire().await?;
        let tenant = match tenant {
            Some(tenant) => Some(store::tenants::find(&mut conn, tenant).await?.id.uuid()),
            None => None,
        };
        store::identity::providers(&mut conn, tenant, page).await
    }

    /// Believes an issuer no more, at once.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_provider(&self, actor: &str, id: ProviderId) -> Result<(), Error> {
        let mut tx = self.catalog_pool().begin().await?;
        let gone = store::identity::delete_provider(&mut tx, id.uuid()).await?;
        let gone = gone.ok_or_else(|| Error::not_found("provider", id))?;
        let tenant = gone.tenant.map(insula_core::TenantId::uuid);
        let detail = json!({"issuer": gone.issuer, "audience": gone.audience});
        store::audit::append(&mut tx, actor, "provider.delete", tenant, &id.to_string(), &detail).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Makes a key for a tenant's own programs; its text is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`] for the tenant.
    pub async fn create_tenant_key(
        &self,
        actor: &str,
        tenant: &str,
        new: &CreateTenantKey,
    ) -> Result<(TenantKey, String), Error> {
        check::tenant_key(new)?;
        let secret = format!("{}{}", insula_api::key::PREFIX, password::random_text(43)?);
        let hash = digest(&SHA256, secret.as_bytes());
        let mut tx = self.catalog_pool().begin().await?;
        let tenant = store::tenants::find(&mut tx, tenant).await?.id.uuid();
        let key = store::identity::insert_key(&mut tx, tenant, &new.name, &new.scopes, new.expires_at, hash.as_ref()).await?;
        let detail = json!({"name": key.name, "scopes": key.scopes});
        store::audit::append(&mut tx, actor, "tenant_key.create", Some(tenant), &key.id.to_string(), &detail).await?;
        tx.commit().await?;
        Ok((key, secret))
    }

    /// A tenant's keys, oldest first, revoked ones included.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the tenant; [`Error::Invalid`] for a cursor of somebody's own making.
    pub async fn tenant_keys(&self, tenant: &str, page: &PageRequest) -> Result<Page<TenantKey>, Error> {
        let mut conn = self.catalog_pool().acquire().await?;
        let tenant = store::tenants::find(&mut conn, tenant).await?.id.uuid();
        store::identity::keys(&mut conn, tenant, page).await
    }

    /// Takes a tenant's key back: refused at every gateway as soon as the feed is there.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the tenant, or a key that is not the tenant's.
    pub async fn revoke_tenant_key(&self, actor: &str, tenant: &str, id: KeyId) -> Result<TenantKey, Error> {
        let mut tx = self.catalog_pool().begin().await?;
        let tenant = store::tenants::find(&mut tx, tenant).await?.id.uuid();
        let key = store::identity::revoke_key(&mut tx, tenant, id.uuid()).await?;
        let key = key.ok_or_else(|| Error::not_found("key", id))?;
        let detail = json!({"name": key.name});
        store::audit::append(&mut tx, actor, "tenant_key.revoke", Some(tenant), &id.to_string(), &detail).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// The keys that sign tenant contexts, or have signed some that may still be about; newest first.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn context_keys(&self) -> Result<Vec<ContextKey>, Error> {
        store::identity::context_keys(&mut *self.catalog_pool().acquire().await?).await
    }

    /// Publishes the next key, which signs `overlap_seconds` from now; the one before leaves when its last token has.
    ///
    /// # Errors
    /// [`Error::Conflict`] while the rotation before is not over.
    pub async fn rotate_context_key(&self, actor: &str, overlap_seconds: u32) -> Result<ContextKey, Error> {
        if overlap_seconds > LONGEST_OVERLAP {
            return Err(Error::invalid("overlap_seconds", "a week at most (604800)"));
        }
        let signs_from = Utc::now() + TimeDelta::seconds(overlap_seconds.into());
        let mut tx = self.catalog_pool().begin().await?;
        let newest = store::identity::lock_newest_context_key(&mut tx).await?;
        let no = newest.as_ref().map_or(1, |key| key.no + 1);
        if let Some(newest) = newest {
            if newest.signs_from > Utc::now() {
                return Err(Error::Conflict(format!("key {} signs only from {}", newest.no, newest.signs_from)));
            }
            let last = TimeDelta::seconds(FRESH_SECONDS + LIFE_SECONDS + 2 * SKEW_SECONDS);
            store::identity::end_context_key(&mut tx, newest.no, signs_from + last).await?;
        }
        let secret = self.config().root_key.context_key(no).map_err(|error| Error::Corrupt(error.to_string()))?;
        let made = store::identity::insert_context_key(&mut tx, no, &secret, signs_from).await?;
        store::audit::append(&mut tx, actor, "context_key.rotate", None, &made.kid, &json!({"no": no})).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Publishes the first key that signs tenant contexts, unless there is one.
    pub(crate) async fn have_context_key(&self) -> Result<(), Error> {
        if self.context_keys().await?.is_empty() {
            match self.rotate_context_key("control", 0).await {
                // Another control plane was first.
                Ok(_) | Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The public keys of tenant contexts that gateways sign (RFC 7517).
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn context_jwks(&self) -> Result<KeySet, Error> {
        let keys = store::identity::public_context_keys(&mut *self.catalog_pool().acquire().await?).await?;
        Ok(KeySet::new(keys))
    }

    /// The public key of tenant contexts that the applications of a cell sign when they call each other.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn cell_jwks(&self, cell: &CellName) -> Result<KeySet, Error> {
        let found = store::cells::get(&mut *self.catalog_pool().acquire().await?, cell).await?;
        found.ok_or_else(|| Error::not_found("cell", cell))?;
        let key = self.config().root_key.cell(cell).context_key().map_err(|error| Error::Corrupt(error.to_string()))?;
        Ok(KeySet::new([*key.public()]))
    }
}
