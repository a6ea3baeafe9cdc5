//! Who may speak for a tenant, as the catalog says: identity providers and API keys.
//!
//! Not for: verifying anybody (`insula-http` does). Always: no secret; a provider of a tenant speaks for that tenant alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use insula_core::{KeyId, ProviderId, TenantId};
use serde::{Deserialize, Serialize};

use crate::snapshot::Snapshot;
use crate::table::Edit;

/// An issuer of tokens (OpenID Connect Core 1.0) and what its tokens say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Identity.
    pub id: ProviderId,
    /// Whom it speaks for; `None` for one of the host side, which names the tenants by [`Provider::tenant_claim`].
    pub tenant: Option<TenantId>,
    /// `iss`, letter by letter.
    pub issuer: Arc<str>,
    /// What `aud` must hold.
    pub audience: Arc<str>,
    /// Where its keys are; `None`: its discovery document says.
    pub jwks_url: Option<Arc<str>>,
    /// The claim that names the user.
    pub subject_claim: Arc<str>,
    /// The claim that names what the user may do.
    pub scopes_claim: Arc<str>,
    /// The claim that names the tenants (slugs or ids), or that must hold [`Provider::tenant_value`].
    pub tenant_claim: Option<Arc<str>>,
    /// What [`Provider::tenant_claim`] must hold for this tenant.
    pub tenant_value: Option<Arc<str>>,
}

/// A key of a tenant's own programs. Revoked ones are not here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKey {
    /// Identity.
    pub id: KeyId,
    /// Whose it is.
    pub tenant: TenantId,
    /// SHA-256 of its text.
    pub hash: [u8; 32],
    /// What it may do, in the application's words.
    pub scopes: Arc<[Arc<str>]>,
    /// Unix seconds from which it opens nothing.
    pub expires: Option<i64>,
}

/// The providers of one issuer, or of one issuer and audience.
#[derive(Debug)]
pub(crate) struct Issuer {
    pub(crate) issuer: Arc<str>,
    /// `None`: all audiences, which says that the issuer is known.
    pub(crate) audience: Option<Arc<str>>,
    pub(crate) providers: Arc<[Arc<Provider>]>,
}

impl Snapshot {
    /// Puts providers in, takes others out, and keeps the lists by issuer in step.
    pub(crate) fn edit_providers(&mut self, new: Vec<Provider>, gone: &[ProviderId]) {
        if new.is_empty() && gone.is_empty() {
            return;
        }
        let mut edits = Vec::new();
        let mut touched = BTreeSet::new();
        let mut touch = |provider: &Provider| {
            touched.insert((provider.issuer.clone(), None));
            touched.insert((provider.issuer.clone(), Some(provider.audience.clone())));
        };
        for id in gone {
            if let Some(old) = self.provider(*id) {
                touch(old);
                edits.push((self.hash_uuid(id.uuid()), Edit::Remove(Arc::clone(old))));
            }
        }
        for provider in new {
            let old = self.provider(provider.id);
            // One that is as it was stays the very same: what was verified by it stays verified.
            if old.is_some_and(|old| **old == provider) {
                continue;
            }
            old.into_iter().for_each(|old| touch(old));
            touch(&provider);
            edits.push((self.hash_uuid(provider.id.uuid()), Edit::Put(Arc::new(provider))));
        }
        self.providers.edit(edits, |a, b| a.id == b.id);
        self.list_issuers(touched);
    }

    /// Makes the lists of these issuers anew, in one pass over the providers.
    fn list_issuers(&mut self, touched: BTreeSet<(Arc<str>, Option<Arc<str>>)>) {
        let mut lists: std::collections::BTreeMap<_, Vec<Arc<Provider>>> =
            touched.into_iter().map(|name| (name, Vec::new())).collect();
        for provider in self.providers.iter() {
            for audience in [None, Some(provider.audience.clone())] {
                if let Some(list) = lists.get_mut(&(provider.issuer.clone(), audience)) {
                    list.push(Arc::clone(provider));
                }
            }
        }
        let mut edits = Vec::new();
        for ((issuer, audience), mut providers) in lists {
            let hash = self.hash_issuer(&issuer, audience.as_deref());
            if providers.is_empty() {
                edits.extend(self.issuer(&issuer, audience.as_deref()).map(|old| (hash, Edit::Remove(Arc::clone(old)))));
                continue;
            }
            // That there is one is all that is asked of the list of all audiences.
            if audience.is_none() {
                providers.truncate(1);
            }
            providers.sort_by_key(|provider| provider.id);
            edits.push((hash, Edit::Put(Arc::new(Issuer { issuer, audience, providers: providers.into() }))));
        }
        self.issuers.edit(edits, |a, b| a.issuer == b.issuer && a.audience == b.audience);
    }

    /// Puts API keys in and takes others out.
    pub(crate) fn edit_keys(&mut self, new: Vec<ApiKey>, gone: &[KeyId]) {
        if new.is_empty() && gone.is_empty() {
            return;
        }
        let (mut by_hash, mut by_id) = (Vec::new(), Vec::new());
        for id in gone {
            if let Some(old) = self.key_by_id(*id) {
                by_hash.push((self.hash_key(&old.hash), Edit::Remove(Arc::clone(old))));
                by_id.push((self.hash_uuid(id.uuid()), Edit::Remove(Arc::clone(old))));
            }
        }
        for key in new {
            let key = Arc::new(key);
            // A key's text never changes, so there is no old hash to take out.
            by_hash.push((self.hash_key(&key.hash), Edit::Put(Arc::clone(&key))));
            by_id.push((self.hash_uuid(key.id.uuid()), Edit::Put(key)));
        }
        self.keys.edit(by_hash, |a, b| a.hash == b.hash);
        self.key_ids.edit(by_id, |a, b| a.id == b.id);
    }
}
