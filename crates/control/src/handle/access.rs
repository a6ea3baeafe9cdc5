//! Keys, webhooks, grants, and the look for leaks.

use aws_lc_rs::digest::{SHA256, digest};
use insula_core::{Clock as _, Grant, SystemClock};
use serde_json::json;
use uuid::Uuid;

use super::Control;
use crate::error::Error;
use crate::model::{ApiKey, ApiKeyCreated, LintReport, LintTarget, Page, PageRequest, Scope, Webhook, WebhookCreated};
use crate::{check, lint, password, store};

impl Control {
    /// Makes an API key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for its name.
    pub async fn create_api_key(&self, actor: &str, name: &str, scope: Scope) -> Result<ApiKeyCreated, Error> {
        let secret = format!("ik_{}", password::random_text(43)?);
        let key = self.put_api_key(actor, name, scope, &secret).await?;
        Ok(ApiKeyCreated { key, secret })
    }

    /// Makes `secret` an API key, for whoever starts the control plane and has chosen one. Repeating it changes nothing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for its name, or a secret that is too short to be one.
    pub async fn put_api_key(&self, actor: &str, name: &str, scope: Scope, secret: &str) -> Result<ApiKey, Error> {
        check::text("name", name, 1, 100)?;
        if secret.len() < 32 {
            return Err(Error::invalid("secret", "at least 32 random characters"));
        }
        let mut tx = self.catalog_pool().begin().await?;
        let key = store::keys::insert(&mut tx, name, scope, digest(&SHA256, secret.as_bytes()).as_ref()).await?;
        let detail = json!({"name": name, "scope": scope});
        store::audit::append(&mut tx, actor, "key.create", None, &key.id.to_string(), &detail).await?;
        tx.commit().await?;
        Ok(key)
    }

    /// The key that this secret is, unless it was taken back.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn find_api_key(&self, secret: &str) -> Result<Option<ApiKey>, Error> {
        let hash = digest(&SHA256, secret.as_bytes());
        store::keys::by_hash(&mut *self.catalog_pool().acquire().await?, hash.as_ref()).await
    }

    /// API keys, oldest first, those taken back included.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of somebody's own making.
    pub async fn api_keys(&self, page: &PageRequest) -> Result<Page<ApiKey>, Error> {
        store::keys::list(&mut *self.catalog_pool().acquire().await?, page).await
    }

    /// Whether a key is there and was not taken back.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn api_key_in_force(&self, id: Uuid) -> Result<bool, Error> {
        store::keys::in_force(&mut *self.catalog_pool().acquire().await?, id).await
    }

    /// Takes a key back, at once.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn revoke_api_key(&self, actor: &str, id: Uuid) -> Result<ApiKey, Error> {
        let mut tx = self.catalog_pool().begin().await?;
        let key = store::keys::revoke(&mut tx, id).await?.ok_or_else(|| Error::not_found("key", id))?;
        store::audit::append(&mut tx, actor, "key.revoke", None, &id.to_string(), &json!({"name": key.name})).await?;
        tx.commit().await?;
        self.hub().revoked(id);
        Ok(key)
    }

    /// Tells an address of events from now on.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a URL or topic that makes no sense.
    pub async fn create_webhook(&self, actor: &str, url: &str, topics: &[String]) -> Result<WebhookCreated, Error> {
        crate::webhook::check_url(self.config(), url)?;
        check::topics(topics)?;
        let mut tx = self.catalog_pool().begin().await?;
        let webhook = store::webhooks::insert(&mut tx, url, topics).await?;
        // The URL may carry a token of the receiver's: it stays out of the log.
        let detail = json!({"topics": topics});
        store::audit::append(&mut tx, actor, "webhook.create", None, &webhook.id.to_string(), &detail).await?;
        tx.commit().await?;
        Ok(WebhookCreated { secret: crate::webhook::secret(self, webhook.id), webhook })
    }

    /// All webhooks.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, Error> {
        store::webhooks::all(&mut *self.catalog_pool().acquire().await?).await
    }

    /// Takes a webhook away.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn delete_webhook(&self, actor: &str, id: Uuid) -> Result<(), Error> {
        let mut tx = self.catalog_pool().begin().await?;
        if !store::webhooks::delete(&mut tx, id).await? {
            return Err(Error::not_found("webhook", id));
        }
        store::audit::append(&mut tx, actor, "webhook.delete", None, &id.to_string(), &json!({})).await?;
        tx.commit().await?;
        Ok(())
    }

    /// A grant that opens a tenant's data on one backend for thirty seconds. Host side; the audit line is on disk before
    /// the grant is out.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when the tenant is not active; [`Error::Invalid`] for a pid that is none.
    pub async fn grant(&self, actor: &str, tenant: &str, pid: i32) -> Result<Grant, Error> {
        if pid <= 0 {
            return Err(Error::invalid("pid", "what `SELECT pg_backend_pid()` says on the connection that is to be opened"));
        }
        let mut tx = self.catalog_pool().begin().await?;
        let found = store::tenants::find(&mut tx, tenant).await?;
        let place = match found.placement {
            Some(place) if found.state == insula_core::TenantState::Active => place,
            _ => return Err(Error::Conflict(format!("tenant {} is {}", found.slug, found.state.as_str()))),
        };
        let kid = store::cells::grant_kid(&mut tx, &place.cell, &place.database).await?;
        let detail = json!({"pid": pid, "cell": place.cell, "epoch": place.epoch});
        store::audit::append(&mut tx, actor, "db.grant", Some(found.id.uuid()), found.slug.as_str(), &detail).await?;
        tx.commit().await?;
        let expires = SystemClock.unix_seconds() + insula_core::grant::GRANT_SECONDS;
        let key = self.cells().key(&place.cell).grant_key(&place.database, kid);
        Ok(key.sign(found.no, place.epoch, expires, pid, Grant::NO_FENCE))
    }

    /// Looks for everything in the databases that could leak.
    ///
    /// # Errors
    /// [`Error::NotFound`]; transient when a cell does not answer.
    pub async fn lint(&self, target: &LintTarget) -> Result<Vec<LintReport>, Error> {
        lint::lint(self, target).await
    }
}
