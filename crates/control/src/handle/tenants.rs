//! Tenants: make, change, pause, disable.

use aws_lc_rs::digest::{SHA256, digest};
use insula_core::{OperationId, TenantId, TenantState};
use serde_json::json;

use super::Control;
use crate::error::Error;
use crate::model::{Admin, CreateTenant, Operation, Page, PageRequest, Tenant, TenantCreated, TenantFilter, UpdateTenant};
use crate::operation::step::Saga;
use crate::operation::submit::{Request, submit};
use crate::provision::{self, Input};
use crate::store::{self, plans};
use crate::{check, password};

impl Control {
    /// Makes a tenant: refuses here and now what is wrong (a taken slug, an unknown plan, no room), and leaves the rest to
    /// an operation. The same `key` of the same actor gives the same tenant again, without its password.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`] (plan, cell), [`Error::Conflict`] (slug, key), [`Error::Full`].
    pub async fn create_tenant(&self, actor: &str, create: CreateTenant, key: Option<&str>) -> Result<TenantCreated, Error> {
        let create = check::create_tenant(create)?;
        if !create.features.is_empty() {
            let known = plans::features(&mut *self.catalog_pool().acquire().await?).await?;
            check::new_overrides(&known, &Default::default(), &create.features)?;
        }
        let fingerprint = fingerprint(&create);
        let (password, hash) = match &create.admin_password_hash {
            Some(hash) => (None, hash.clone()),
            None => {
                let (password, hash) = password::make(self).await?;
                (Some(password), hash)
            }
        };
        let tenant = TenantId::new();
        let input = Input::new(create, tenant, hash, fingerprint.clone());
        let request = Request { saga: &provision::SAGA, actor, tenant: Some(tenant.uuid()), key, input: plans::to_json(&input)? };
        let submitted = submit(self, request).await?;
        let stands: Input = plans::json("operation's input", submitted.input)?;
        if stands.fingerprint != fingerprint {
            return Err(Error::Conflict("this idempotency key was used with another request: use a new one".into()));
        }
        Ok(TenantCreated {
            tenant: stands.tenant,
            admin: Admin { email: stands.admin_email, password: if submitted.repeated { None } else { password } },
            repeated: submitted.repeated,
            operation: submitted.operation,
        })
    }

    /// Pauses a tenant: nothing is lost, nothing is served.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is deleted, or an operation is at work on it.
    pub async fn suspend_tenant(&self, actor: &str, tenant: &str, key: Option<&str>) -> Result<Operation, Error> {
        self.tenant_operation(&crate::tenant_suspend::SAGA, actor, tenant, key).await
    }

    /// Ends a pause; also takes a deletion back, as long as nothing is erased.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when an operation is at work on it.
    pub async fn resume_tenant(&self, actor: &str, tenant: &str, key: Option<&str>) -> Result<Operation, Error> {
        self.tenant_operation(&crate::tenant_resume::SAGA, actor, tenant, key).await
    }

    /// Disables a tenant at once and for good; its data stays until it is erased, and until then it can be resumed.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when an operation is at work on it.
    pub async fn delete_tenant(&self, actor: &str, tenant: &str, key: Option<&str>) -> Result<Operation, Error> {
        self.tenant_operation(&crate::tenant_delete::SAGA, actor, tenant, key).await
    }

    async fn tenant_operation(
        &self,
        saga: &'static Saga,
        actor: &str,
        tenant: &str,
        key: Option<&str>,
    ) -> Result<Operation, Error> {
        let found = self.tenant(tenant).await?;
        let input = json!({"tenant": found.id, "slug": found.slug});
        let submitted = submit(self, Request { saga, actor, tenant: Some(found.id.uuid()), key, input: input.clone() }).await?;
        if submitted.input != input {
            return Err(Error::Conflict("this idempotency key was used for another tenant: use a new one".into()));
        }
        Ok(submitted.operation)
    }

    /// Changes what a tenant has; holds at once. `expected` is the version that the caller has seen.
    ///
    /// # Errors
    /// [`Error::Version`] when it changed meanwhile; [`Error::Invalid`], [`Error::NotFound`].
    pub async fn update_tenant(
        &self,
        actor: &str,
        tenant: &str,
        change: UpdateTenant,
        expected: Option<i64>,
    ) -> Result<Tenant, Error> {
        let mut tx = self.catalog_pool().begin().await?;
        let found = store::tenants::find(&mut tx, tenant).await?;
        let missing = || Error::not_found("tenant", tenant);
        let mut new = store::tenants::lock(&mut tx, found.id).await?.ok_or_else(missing)?;
        check::version(format!("tenant {}", new.slug), expected, new.version)?;
        if new.state == TenantState::Deleted {
            return Err(Error::Conflict(format!("tenant {} is deleted: resume it first", new.slug)));
        }
        let UpdateTenant { name, plan, settings, features, limits } = change;
        let changed: Vec<&str> = [
            ("name", name.is_some()),
            ("plan", plan.is_some()),
            ("settings", settings.is_some()),
            ("features", features.is_some()),
            ("limits", limits.is_some()),
        ]
        .into_iter()
        .filter_map(|(field, is)| is.then_some(field))
        .collect();
        new.name = name.unwrap_or(new.name);
        new.plan = plan.unwrap_or(new.plan);
        new.settings = settings.unwrap_or(new.settings);
        if let Some(features) = features {
            check::new_overrides(&plans::features(&mut tx).await?, &new.features, &features)?;
            new.features = features;
        }
        new.limits = limits.unwrap_or(new.limits);
        check::tenant_fields(&new.name, &new.settings, &new.features)?;
        let plan = store::plans::get(&mut tx, new.plan.as_str()).await?.ok_or_else(|| Error::not_found("plan", &new.plan))?;
        check::limit_overrides(&plan.plan.limits, &new.limits)?;
        store::tenants::update(&mut tx, &new).await?;
        let detail = json!({"fields": changed, "plan": new.plan});
        store::audit::append(&mut tx, actor, "tenant.update", Some(new.id.uuid()), new.slug.as_str(), &detail).await?;
        let new = store::tenants::get(&mut tx, new.id).await?.ok_or_else(missing)?;
        tx.commit().await?;
        Ok(new)
    }

    /// A tenant by slug or id.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn tenant(&self, tenant: &str) -> Result<Tenant, Error> {
        store::tenants::find(&mut *self.catalog_pool().acquire().await?, tenant).await
    }

    /// Tenants, oldest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor of somebody's own making.
    pub async fn tenants(&self, filter: &TenantFilter, page: &PageRequest) -> Result<Page<Tenant>, Error> {
        store::tenants::list(&mut *self.catalog_pool().acquire().await?, filter, page).await
    }

    /// Waits until an operation ends, or as long as `most`; gives it as it then stands.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn wait_operation(&self, id: OperationId, most: std::time::Duration) -> Result<Operation, Error> {
        let deadline = tokio::time::Instant::now() + most;
        let mut finished = self.engine().finished();
        loop {
            let operation = self.operation(id).await?;
            if operation.state.finished() || tokio::time::Instant::now() >= deadline {
                return Ok(operation);
            }
            // Another process may end it: look again now and then.
            let look_again = deadline.min(tokio::time::Instant::now() + std::time::Duration::from_secs(2));
            let ours = async {
                while let Ok(ended) = finished.recv().await {
                    if ended == id.uuid() {
                        break;
                    }
                }
            };
            // Either way, look.
            let _ = tokio::time::timeout_at(look_again, ours).await;
        }
    }
}

/// SHA-256 of what was asked for, to tell a repeat from another request under the same key.
fn fingerprint(create: &CreateTenant) -> String {
    digest(&SHA256, format!("{create:?}").as_bytes()).as_ref().iter().map(|b| format!("{b:02x}")).collect()
}
