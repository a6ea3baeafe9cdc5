//! Configuration documents: put, roll out, roll back.

use insula_api::document::{Document, DocumentVersion, PutDocument, Rollout};
use serde_json::json;
use uuid::Uuid;

use super::Control;
use crate::check;
use crate::error::Error;
use crate::store;

/// The largest document, bytes of JSON: every data plane holds all of them.
const MOST_BYTES: usize = 256 << 10;
/// Most documents.
const MOST_DOCUMENTS: i64 = 500;
/// Most tenants that a rollout names.
const MOST_TENANTS: usize = 1_000;

impl Control {
    /// All documents, by name.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn documents(&self) -> Result<Vec<Document>, Error> {
        store::documents::all(&mut *self.catalog_pool().acquire().await?).await
    }

    /// One document.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn document(&self, name: &str) -> Result<Document, Error> {
        let found = store::documents::get(&mut *self.catalog_pool().acquire().await?, name).await?;
        found.ok_or_else(|| Error::not_found("document", name))
    }

    /// The versions of a document, newest first.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn document_versions(&self, name: &str) -> Result<Vec<DocumentVersion>, Error> {
        self.document(name).await?;
        store::documents::versions(&mut *self.catalog_pool().acquire().await?, name).await
    }

    /// Puts a new version, which holds for nobody yet. What the newest version says already makes no other one.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Conflict`] when there are too many documents.
    pub async fn put_document(&self, actor: &str, name: &str, put: PutDocument) -> Result<DocumentVersion, Error> {
        check::document_name(name)?;
        if put.note.chars().count() > 500 {
            return Err(Error::invalid("note", "at most 500 characters"));
        }
        let bytes = put.value.to_string().len();
        if bytes > MOST_BYTES {
            return Err(Error::invalid("value", format!("at most {MOST_BYTES} bytes of JSON, this has {bytes}")));
        }
        let mut tx = self.catalog_pool().begin().await?;
        store::documents::lock_all(&mut tx).await?;
        let newest = store::documents::newest(&mut tx, name).await?;
        if let Some(newest) = newest.as_ref().filter(|newest| newest.value == put.value) {
            return Ok(newest.clone());
        }
        if newest.is_none() && store::documents::count(&mut tx).await? >= MOST_DOCUMENTS {
            return Err(Error::Conflict(format!("there are {MOST_DOCUMENTS} documents already: put more into one")));
        }
        let version = newest.map_or(1, |newest| newest.version + 1);
        let made = store::documents::insert(&mut tx, name, version, &put, actor).await?;
        let detail = json!({"version": version, "note": put.note});
        store::audit::append(&mut tx, actor, "config.put", None, name, &detail).await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Rolls a version out, to some tenants or to all.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`] for a version or tenants that are not there.
    pub async fn roll_out(&self, actor: &str, name: &str, rollout: &Rollout) -> Result<Document, Error> {
        if rollout.percent > 100 {
            return Err(Error::invalid("percent", "0 to 100"));
        }
        if rollout.tenants.len() > MOST_TENANTS {
            return Err(Error::invalid("tenants", format!("at most {MOST_TENANTS}: use percent")));
        }
        if rollout.all && (rollout.percent > 0 || !rollout.tenants.is_empty()) {
            return Err(Error::invalid("all", "to all, or to some: not both"));
        }
        if !rollout.all && rollout.percent == 0 && rollout.tenants.is_empty() {
            return Err(Error::invalid("percent", "say to whom: all, percent or tenants"));
        }
        let mut tx = self.catalog_pool().begin().await?;
        let now = store::documents::lock(&mut tx, name).await?.ok_or_else(|| Error::not_found("document", name))?;
        let version = rollout.version.unwrap_or(now.newest);
        if !(1..=now.newest).contains(&version) {
            return Err(Error::invalid("version", format!("document {name} has versions 1 to {}", now.newest)));
        }
        if rollout.all {
            store::documents::set_stable(&mut tx, name, version).await?;
        } else {
            let mut tenants: Vec<Uuid> = Vec::with_capacity(rollout.tenants.len());
            for reference in &rollout.tenants {
                let found = store::tenants::find(&mut tx, reference).await;
                let found = found.map_err(|error| match error {
                    Error::NotFound { name, .. } => Error::invalid("tenants", format!("there is no tenant {name:?}")),
                    error => error,
                })?;
                tenants.push(found.id.uuid());
            }
            tenants.sort();
            tenants.dedup();
            store::documents::set_canary(&mut tx, name, version, rollout.percent, &tenants).await?;
        }
        let detail = json!({"version": version, "all": rollout.all, "percent": rollout.percent, "tenants": rollout.tenants});
        store::audit::append(&mut tx, actor, "config.rollout", None, name, &detail).await?;
        tx.commit().await?;
        self.document(name).await
    }

    /// Takes a rollout back, or what is in force when none is under way.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when there is nothing to go back to.
    pub async fn roll_back(&self, actor: &str, name: &str) -> Result<Document, Error> {
        let mut tx = self.catalog_pool().begin().await?;
        let now = store::documents::lock(&mut tx, name).await?.ok_or_else(|| Error::not_found("document", name))?;
        let detail = match (&now.canary, now.previous) {
            (Some(canary), _) => json!({"canary": canary.version, "stable": now.stable}),
            (None, Some(previous)) => json!({"stable": previous, "from": now.stable}),
            (None, None) => {
                let what = format!("nothing was in force before: roll another version of {name} out instead");
                return Err(Error::Conflict(what));
            }
        };
        store::documents::back(&mut tx, name).await?;
        store::audit::append(&mut tx, actor, "config.rollback", None, name, &detail).await?;
        tx.commit().await?;
        self.document(name).await
    }
}
