//! The calls, by what they are about.

use insula_core::{CellName, OperationId, PlanName};
use reqwest::Method;
use uuid::Uuid;

use super::{Call, Client, Versioned};
use crate::audit::{AuditEntry, AuditQuery, AuditVerdict, LintQuery, LintReport};
use crate::bundle::{Bundle, BundlePut, MigrationStatus};
use crate::cell::{Cell, PutApps, RegisterCell, Replica};
use crate::document::{Document, DocumentVersion, PutDocument, Rollout};
use crate::domain::{AddDomain, Domain};
use crate::error::Error;
use crate::key::{CreateKey, Key, KeyCreated};
use crate::operation::{EventQuery, Operation, OperationEvents, OperationQuery};
use crate::page::{Page, PageQuery};
use crate::plan::{CreatePlan, Plan, UpdatePlan};
use crate::status::Status;
use crate::tenant::{CreateGrant, CreateTenant, GrantText, Tenant, TenantCreated, TenantQuery, UpdateTenant, WaitQuery};
use crate::usage::{TenantUsage, UsageBatch, UsageQuery, UsageReceipt};
use crate::webhook::{CreateWebhook, Webhook, WebhookCreated};

const NOTHING: [(); 0] = [];

// Every call fails with `Error::Problem` when the control plane refuses, and with the other variants when it cannot be
// spoken to; the `# Errors` sections would say only that, again and again.
#[allow(clippy::missing_errors_doc)]
/// Tenants. `tenant` is an id or a slug.
impl Client {
    /// Asks for a tenant.
    pub async fn create_tenant(&self, tenant: &CreateTenant, wait: bool) -> Result<TenantCreated, Error> {
        self.post(&["v1", "tenants"], &WaitQuery { wait }, tenant).await
    }

    /// A page of tenants.
    pub async fn tenants(&self, query: &TenantQuery) -> Result<Page<Tenant>, Error> {
        self.get(&["v1", "tenants"], query).await
    }

    /// One tenant.
    pub async fn tenant(&self, tenant: &str) -> Result<Versioned<Tenant>, Error> {
        self.get_versioned(&["v1", "tenants", tenant]).await
    }

    /// Changes a tenant that is still at `etag`.
    pub async fn update_tenant(&self, tenant: &str, etag: &str, change: &UpdateTenant) -> Result<Versioned<Tenant>, Error> {
        let path = ["v1", "tenants", tenant];
        let call = Call::new(Method::PATCH, &path).if_match(Some(etag)).body(change)?;
        self.send(call).await?.versioned(self.url()).await
    }

    /// Suspends a tenant: nothing is lost, nothing is served.
    pub async fn suspend_tenant(&self, tenant: &str, wait: bool) -> Result<Operation, Error> {
        self.post(&["v1", "tenants", tenant, "suspend"], &WaitQuery { wait }, &serde_json::json!({})).await
    }

    /// Resumes a suspended tenant.
    pub async fn resume_tenant(&self, tenant: &str, wait: bool) -> Result<Operation, Error> {
        self.post(&["v1", "tenants", tenant, "resume"], &WaitQuery { wait }, &serde_json::json!({})).await
    }

    /// What a tenant used.
    pub async fn usage(&self, tenant: &str, query: &UsageQuery) -> Result<TenantUsage, Error> {
        self.get(&["v1", "tenants", tenant, "usage"], query).await
    }

    /// Sends what was used; again does no harm.
    pub async fn add_usage(&self, batch: &UsageBatch) -> Result<UsageReceipt, Error> {
        self.post(&["v1", "usage"], &NOTHING, batch).await
    }

    /// Disables a tenant for good.
    pub async fn delete_tenant(&self, tenant: &str, wait: bool) -> Result<Operation, Error> {
        let path = ["v1", "tenants", tenant];
        self.send(Call::new(Method::DELETE, &path).query(&WaitQuery { wait })?).await?.json_of(self.url()).await
    }

    /// The host names of a tenant.
    pub async fn domains(&self, tenant: &str) -> Result<Page<Domain>, Error> {
        self.get(&["v1", "tenants", tenant, "domains"], &NOTHING).await
    }

    /// Adds a host name.
    pub async fn add_domain(&self, tenant: &str, domain: &AddDomain) -> Result<Domain, Error> {
        self.post(&["v1", "tenants", tenant, "domains"], &NOTHING, domain).await
    }

    /// Looks for the record that proves a host name.
    pub async fn verify_domain(&self, tenant: &str, host: &str) -> Result<Domain, Error> {
        self.post(&["v1", "tenants", tenant, "domains", host, "verify"], &NOTHING, &serde_json::json!({})).await
    }

    /// Takes a host name away.
    pub async fn remove_domain(&self, tenant: &str, host: &str) -> Result<(), Error> {
        self.send(Call::new(Method::DELETE, &["v1", "tenants", tenant, "domains", host])).await.map(drop)
    }

    /// A grant for one backend of the tenant's database.
    pub async fn grant(&self, tenant: &str, grant: &CreateGrant) -> Result<GrantText, Error> {
        self.post(&["v1", "tenants", tenant, "grants"], &NOTHING, grant).await
    }
}

#[allow(clippy::missing_errors_doc)]
/// Plans and cells.
impl Client {
    /// All plans.
    pub async fn plans(&self, page: &PageQuery) -> Result<Page<Plan>, Error> {
        self.get(&["v1", "plans"], page).await
    }

    /// One plan.
    pub async fn plan(&self, name: &PlanName) -> Result<Versioned<Plan>, Error> {
        self.get_versioned(&["v1", "plans", name.as_str()]).await
    }

    /// Makes a plan.
    pub async fn create_plan(&self, plan: &CreatePlan) -> Result<Plan, Error> {
        self.post(&["v1", "plans"], &NOTHING, plan).await
    }

    /// Changes a plan that is still at `etag`.
    pub async fn update_plan(&self, name: &PlanName, etag: &str, change: &UpdatePlan) -> Result<Versioned<Plan>, Error> {
        let path = ["v1", "plans", name.as_str()];
        let call = Call::new(Method::PATCH, &path).if_match(Some(etag)).body(change)?;
        self.send(call).await?.versioned(self.url()).await
    }

    /// All cells.
    pub async fn cells(&self, page: &PageQuery) -> Result<Page<Cell>, Error> {
        self.get(&["v1", "cells"], page).await
    }

    /// One cell.
    pub async fn cell(&self, name: &CellName) -> Result<Versioned<Cell>, Error> {
        self.get_versioned(&["v1", "cells", name.as_str()]).await
    }

    /// Registers a Postgres server as a cell.
    pub async fn register_cell(&self, cell: &RegisterCell) -> Result<Cell, Error> {
        self.post(&["v1", "cells"], &NOTHING, cell).await
    }

    /// Lets a cell take no new tenants.
    pub async fn drain_cell(&self, name: &CellName) -> Result<Cell, Error> {
        self.post(&["v1", "cells", name.as_str(), "drain"], &NOTHING, &serde_json::json!({})).await
    }

    /// Says which application stacks a cell has.
    pub async fn put_apps(&self, name: &CellName, apps: &PutApps) -> Result<Cell, Error> {
        let path = ["v1", "cells", name.as_str(), "apps"];
        self.send(Call::new(Method::PUT, &path).body(apps)?).await?.json_of(self.url()).await
    }

    /// Adds a standby of a cell's server, for reads. One that is there already stays.
    pub async fn add_replica(&self, name: &CellName, replica: &Replica) -> Result<Cell, Error> {
        self.post(&["v1", "cells", name.as_str(), "replicas"], &NOTHING, replica).await
    }

    /// Takes a standby of a cell's server away.
    pub async fn remove_replica(&self, name: &CellName, replica: &Replica) -> Result<Cell, Error> {
        let text = replica.to_string();
        let path = ["v1", "cells", name.as_str(), "replicas", &text];
        self.send(Call::new(Method::DELETE, &path)).await?.json_of(self.url()).await
    }

    /// Lets a draining cell take tenants again.
    pub async fn undrain_cell(&self, name: &CellName) -> Result<Cell, Error> {
        self.post(&["v1", "cells", name.as_str(), "undrain"], &NOTHING, &serde_json::json!({})).await
    }
}

#[allow(clippy::missing_errors_doc)]
/// Configuration documents.
impl Client {
    /// All of them, and what is in force.
    pub async fn documents(&self) -> Result<Page<Document>, Error> {
        self.get(&["v1", "documents"], &NOTHING).await
    }

    /// One of them.
    pub async fn document(&self, name: &str) -> Result<Document, Error> {
        self.get(&["v1", "documents", name], &NOTHING).await
    }

    /// Puts a new version; one that says what the newest says is that one.
    pub async fn put_document(&self, name: &str, document: &PutDocument) -> Result<DocumentVersion, Error> {
        let path = ["v1", "documents", name];
        self.send(Call::new(Method::PUT, &path).body(document)?).await?.json_of(self.url()).await
    }

    /// The versions of a document, newest first.
    pub async fn document_versions(&self, name: &str) -> Result<Page<DocumentVersion>, Error> {
        self.get(&["v1", "documents", name, "versions"], &NOTHING).await
    }

    /// Rolls a version out.
    pub async fn roll_out(&self, name: &str, rollout: &Rollout) -> Result<Document, Error> {
        self.post(&["v1", "documents", name, "rollout"], &NOTHING, rollout).await
    }

    /// Takes a rollout back; without one under way, goes back to the version before.
    pub async fn roll_back(&self, name: &str) -> Result<Document, Error> {
        self.post(&["v1", "documents", name, "rollback"], &NOTHING, &serde_json::json!({})).await
    }
}

#[allow(clippy::missing_errors_doc)]
/// Operations, audit, keys, webhooks, and the whole.
impl Client {
    /// A page of operations.
    pub async fn operations(&self, query: &OperationQuery) -> Result<Page<Operation>, Error> {
        self.get(&["v1", "operations"], query).await
    }

    /// One operation.
    pub async fn operation(&self, id: OperationId) -> Result<Operation, Error> {
        self.get(&["v1", "operations", &id.to_string()], &NOTHING).await
    }

    /// What happened in an operation since; waits for news when asked to.
    pub async fn operation_events(&self, id: OperationId, query: &EventQuery) -> Result<OperationEvents, Error> {
        self.get(&["v1", "operations", &id.to_string(), "events"], query).await
    }

    /// A page of the audit log.
    pub async fn audit(&self, query: &AuditQuery) -> Result<Page<AuditEntry>, Error> {
        self.get(&["v1", "audit"], query).await
    }

    /// Whether the audit log is whole.
    pub async fn verify_audit(&self) -> Result<AuditVerdict, Error> {
        self.get(&["v1", "audit", "verify"], &NOTHING).await
    }

    /// What the SQL kit's lint finds in every database that holds tenants.
    pub async fn lint(&self, query: &LintQuery) -> Result<LintReport, Error> {
        self.get(&["v1", "lint"], query).await
    }

    /// All keys.
    pub async fn keys(&self, page: &PageQuery) -> Result<Page<Key>, Error> {
        self.get(&["v1", "keys"], page).await
    }

    /// Makes a key.
    pub async fn create_key(&self, key: &CreateKey) -> Result<KeyCreated, Error> {
        self.post(&["v1", "keys"], &NOTHING, key).await
    }

    /// Revokes a key.
    pub async fn revoke_key(&self, id: Uuid) -> Result<Key, Error> {
        self.send(Call::new(Method::DELETE, &["v1", "keys", &id.to_string()])).await?.json_of(self.url()).await
    }

    /// All webhooks.
    pub async fn webhooks(&self) -> Result<Page<Webhook>, Error> {
        self.get(&["v1", "webhooks"], &NOTHING).await
    }

    /// Makes a webhook.
    pub async fn create_webhook(&self, webhook: &CreateWebhook) -> Result<WebhookCreated, Error> {
        self.post(&["v1", "webhooks"], &NOTHING, webhook).await
    }

    /// Takes a webhook away.
    pub async fn delete_webhook(&self, id: Uuid) -> Result<(), Error> {
        self.send(Call::new(Method::DELETE, &["v1", "webhooks", &id.to_string()])).await.map(drop)
    }

    /// Hands in the application's bundle.
    pub async fn put_bundle(&self, bundle: &Bundle, wait: bool) -> Result<BundlePut, Error> {
        self.send(Call::new(Method::PUT, &["v1", "bundle"]).query(&WaitQuery { wait })?.body(bundle)?)
            .await?
            .json_of(self.url())
            .await
    }

    /// The migrations that the control plane has.
    pub async fn migrations(&self) -> Result<Page<MigrationStatus>, Error> {
        self.get(&["v1", "migrations"], &NOTHING).await
    }

    /// The whole at a glance.
    pub async fn status(&self) -> Result<Status, Error> {
        self.get(&["v1", "status"], &NOTHING).await
    }
}
