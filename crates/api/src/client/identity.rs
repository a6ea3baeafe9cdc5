//! The calls about who may speak for a tenant.

use insula_core::{KeyId, ProviderId};
use reqwest::Method;

use super::{Call, Client};
use crate::error::Error;
use crate::identity::{
    ContextKey, CreateProvider, CreateTenantKey, Provider, ProviderQuery, RotateContextKey, TenantKey, TenantKeyCreated,
};
use crate::page::{Page, PageQuery};

const NOTHING: [(); 0] = [];

#[allow(clippy::missing_errors_doc)]
/// Identity providers, keys of tenants, keys of gateways. `tenant` is an id or a slug.
impl Client {
    /// A page of identity providers.
    pub async fn providers(&self, query: &ProviderQuery) -> Result<Page<Provider>, Error> {
        self.get(&["v1", "providers"], query).await
    }

    /// Adds an identity provider.
    pub async fn create_provider(&self, provider: &CreateProvider) -> Result<Provider, Error> {
        self.post(&["v1", "providers"], &NOTHING, provider).await
    }

    /// Takes an identity provider away.
    pub async fn delete_provider(&self, id: ProviderId) -> Result<(), Error> {
        self.send(Call::new(Method::DELETE, &["v1", "providers", &id.to_string()])).await.map(drop)
    }

    /// A page of a tenant's keys.
    pub async fn tenant_keys(&self, tenant: &str, page: &PageQuery) -> Result<Page<TenantKey>, Error> {
        self.get(&["v1", "tenants", tenant, "keys"], page).await
    }

    /// Makes a key for a tenant's programs.
    pub async fn create_tenant_key(&self, tenant: &str, key: &CreateTenantKey) -> Result<TenantKeyCreated, Error> {
        self.post(&["v1", "tenants", tenant, "keys"], &NOTHING, key).await
    }

    /// Revokes a key of a tenant's.
    pub async fn revoke_tenant_key(&self, tenant: &str, id: KeyId) -> Result<TenantKey, Error> {
        let path = ["v1", "tenants", tenant, "keys", &id.to_string()];
        self.send(Call::new(Method::DELETE, &path)).await?.json_of(self.url()).await
    }

    /// The keys that sign tenant contexts, newest first.
    pub async fn context_keys(&self) -> Result<Page<ContextKey>, Error> {
        self.get(&["v1", "context-keys"], &NOTHING).await
    }

    /// Publishes a new key that signs tenant contexts.
    pub async fn rotate_context_key(&self, rotate: &RotateContextKey) -> Result<ContextKey, Error> {
        self.post(&["v1", "context-keys"], &NOTHING, rotate).await
    }
}
