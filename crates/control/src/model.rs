//! What goes into the control plane and comes out of it, as values. REST maps these to its own types.
//!
//! Always: a secret (an admin's password, an API key, a webhook's secret) appears in one `…Created` value and nowhere else.

mod operation;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use insula_core::feature::{Features, Overrides};
use insula_core::{CellName, Isolation, Limits, Placement, PlanName, Slug, TenantId, TenantNo, TenantState, Tier};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use operation::*;

/// One page of a list, and what to pass as `after` for the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// At most `limit` of them.
    pub items: Vec<T>,
    /// Opaque; `None` on the last page.
    pub next: Option<String>,
}

/// Which page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRequest {
    /// [`Page::next`] of the page before.
    pub after: Option<String>,
    /// 1 to 500; more is cut to 500.
    pub limit: u32,
}

impl Default for PageRequest {
    fn default() -> Self {
        Self { after: None, limit: 100 }
    }
}

/// A tenant's own looks and customs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// What its pages are headed with; its name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brand_name: Option<String>,
    /// `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// BCP 47: `en`, `de-CH`.
    #[serde(default = "default_locale")]
    pub locale: String,
    /// IANA: `UTC`, `Europe/Zurich`.
    #[serde(default = "default_time_zone")]
    pub time_zone: String,
}

fn default_locale() -> String {
    "en".into()
}

fn default_time_zone() -> String {
    "UTC".into()
}

impl Default for Settings {
    fn default() -> Self {
        Self { brand_name: None, color: None, locale: default_locale(), time_zone: default_time_zone() }
    }
}

/// Overrides of a plan's limits: field name of [`Limits`] to value.
pub type LimitOverrides = BTreeMap<String, u64>;

/// A tenant to be made.
#[derive(Clone, Debug)]
pub struct CreateTenant {
    /// Its DNS label.
    pub slug: Slug,
    /// What people call it; the slug when absent.
    pub name: Option<String>,
    /// What it bought.
    pub plan: PlanName,
    /// Where its rows live; the plan's when absent.
    pub isolation: Option<Isolation>,
    /// Its looks and customs.
    pub settings: Settings,
    /// Overrides of the plan's features, for good or for a time.
    pub features: Overrides,
    /// Overrides of the plan's limits.
    pub limits: LimitOverrides,
    /// Its first user; `admin@<slug>.localhost` when absent.
    pub admin_email: Option<String>,
    /// An argon2 PHC string, when the caller has one: then no password is made.
    pub admin_password_hash: Option<String>,
    /// Only this cell.
    pub cell: Option<CellName>,
    /// Only cells of this region.
    pub region: Option<String>,
    /// Only cells that have all of these.
    pub labels: Vec<String>,
}

impl CreateTenant {
    /// A tenant with everything as its plan has it.
    #[must_use]
    pub fn new(slug: Slug, plan: PlanName) -> Self {
        Self {
            slug,
            name: None,
            plan,
            isolation: None,
            settings: Settings::default(),
            features: Overrides::new(),
            limits: LimitOverrides::new(),
            admin_email: None,
            admin_password_hash: None,
            cell: None,
            region: None,
            labels: Vec::new(),
        }
    }
}

/// The first user of a tenant.
#[derive(Clone, PartialEq, Eq)]
pub struct Admin {
    /// Its login.
    pub email: String,
    /// Shown this once; `None` when the request was a repeat, or brought its own hash.
    pub password: Option<String>,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({}, ***)", self.email)
    }
}

/// A tenant in the making.
#[derive(Clone, Debug)]
pub struct TenantCreated {
    /// The work; follow it with [`crate::Control::wait_operation`].
    pub operation: Operation,
    /// Its id, for good.
    pub tenant: TenantId,
    /// Its first user.
    pub admin: Admin,
    /// The same idempotency key had made it before.
    pub repeated: bool,
}

/// What of a tenant is to change; what is `None` stays.
#[derive(Clone, Debug, Default)]
pub struct UpdateTenant {
    /// New name.
    pub name: Option<String>,
    /// New plan: its limits and features hold at once; rows stay where they are.
    pub plan: Option<PlanName>,
    /// New settings, all of them.
    pub settings: Option<Settings>,
    /// New overrides of features, all of them.
    pub features: Option<Overrides>,
    /// New overrides of limits, all of them.
    pub limits: Option<LimitOverrides>,
}

/// A tenant as the catalog has it.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Public identity.
    pub id: TenantId,
    /// The surrogate in rows: host side only, never in a response.
    pub no: TenantNo,
    /// DNS label.
    pub slug: Slug,
    /// What people call it.
    pub name: String,
    /// What it bought.
    pub plan: PlanName,
    /// Its life.
    pub state: TenantState,
    /// Looks and customs.
    pub settings: Settings,
    /// Overrides of the plan's features, for good or for a time.
    pub features: Overrides,
    /// Overrides of the plan's limits.
    pub limits: LimitOverrides,
    /// Where it lives.
    pub placement: Option<Placement>,
    /// Last migration of the application that its tables have.
    pub schema_version: i64,
    /// For ETags.
    pub version: i64,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
    /// When it was disabled for good.
    pub deleted_at: Option<DateTime<Utc>>,
}

/// What holds for a tenant.
#[derive(Clone, Debug)]
pub struct TenantConfig {
    /// The tenant.
    pub tenant: Tenant,
    /// Its plan, with its own limits and features merged in.
    pub plan: insula_core::Plan,
    /// The configuration documents in force for it, by name.
    pub documents: std::collections::BTreeMap<String, insula_catalog::DocumentVersion>,
}

/// Which tenants.
#[derive(Clone, Debug, Default)]
pub struct TenantFilter {
    /// Only in this state; deleted ones are left out unless asked for.
    pub state: Option<TenantState>,
    /// Only of this plan.
    pub plan: Option<PlanName>,
    /// Only in this cell.
    pub cell: Option<CellName>,
    /// Slug or name holds this, whatever the case.
    pub text: Option<String>,
}

/// A plan to be made, or to stand in place of the one of that name.
#[derive(Clone, Debug)]
pub struct PutPlan {
    /// Its name.
    pub name: PlanName,
    /// Its scheduling class.
    pub tier: Tier,
    /// Where its tenants live unless asked otherwise.
    pub isolation: Isolation,
    /// Its limits.
    pub limits: Limits,
    /// Its features.
    pub features: Features,
}

/// A plan as the catalog has it.
#[derive(Clone, Debug)]
pub struct PlanRecord {
    /// The plan.
    pub plan: insula_core::Plan,
    /// For ETags.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Last change.
    pub updated_at: DateTime<Utc>,
}

/// Who starts and stops a cell's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// `insula up`, on this machine.
    Embedded,
    /// Somebody else; we were told the address.
    Registered,
}

/// A cell's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CellState {
    /// The supervisor is to start it, or the control plane to prepare it.
    Requested,
    /// Takes tenants.
    Ready,
    /// Takes no new ones.
    Draining,
    /// Registered, and waits for a tenant of isolation `cell`.
    Free,
    /// Its last health check failed.
    Down,
    /// The supervisor is to stop it and take it away.
    Removing,
}

/// A cell as the catalog has it.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Its name.
    pub name: CellName,
    /// Where it stands.
    pub region: String,
    /// What placement may ask for.
    pub labels: Vec<String>,
    /// Who starts it.
    pub provider: Provider,
    /// Its life.
    pub state: CellState,
    /// For one tenant of isolation `cell`.
    pub dedicated: bool,
    /// Where its server listens.
    pub host: Option<String>,
    /// Where its server listens.
    pub port: Option<u16>,
    /// libpq's sslmode.
    pub tls: String,
    /// Who the control plane logs in as.
    pub admin_role: String,
    /// Base URL of its application stack.
    pub app_url: Option<String>,
    /// Its application stacks by the schema versions that they serve.
    pub app_versions: Vec<insula_api::cell::AppVersion>,
    /// Standbys of its server, for reads.
    pub replicas: Vec<insula_api::cell::Replica>,
    /// Most tenants.
    pub capacity: i32,
    /// Tenants there are, those in the making included.
    pub tenants: i64,
    /// Which binding of the SQL kit is in force; `None` until the cell is prepared.
    pub kit_way: Option<i32>,
    /// For ETags.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A database server that somebody else runs. Its admin login is in the host side's secrets file under the same name.
#[derive(Clone, Debug)]
pub struct RegisterCell {
    /// Its name.
    pub name: CellName,
    /// Where it stands.
    pub region: String,
    /// What placement may ask for.
    pub labels: Vec<String>,
    /// Where its server listens, as applications reach it.
    pub host: String,
    /// Where its server listens.
    pub port: u16,
    /// libpq's sslmode: `disable`, `prefer`, `require` or `verify-full`.
    pub tls: String,
    /// Base URL of its application stack.
    pub app_url: Option<String>,
    /// Most tenants.
    pub capacity: i32,
    /// Keep it for one tenant of isolation `cell`.
    pub dedicated: bool,
}

/// A host name of a tenant beside `SLUG.<base domain>`.
#[derive(Clone, Debug)]
pub struct Domain {
    /// Lower case.
    pub host: String,
    /// Whose.
    pub tenant: TenantId,
    /// Its slug.
    pub slug: Slug,
    /// What the record that proves it has to hold.
    pub challenge: String,
    /// When it was shown to be the tenant's.
    pub verified_at: Option<DateTime<Utc>>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

impl Domain {
    /// The name of the TXT record that proves it.
    #[must_use]
    pub fn record_name(&self) -> String {
        format!("_insula-challenge.{}", self.host)
    }

    /// What that record has to say.
    #[must_use]
    pub fn record_value(&self) -> String {
        format!("insula-verification={}", self.challenge)
    }
}

/// What an API key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Everything.
    Admin,
    /// Tenants and operations.
    Provisioner,
    /// Look, change nothing.
    Read,
    /// Follow the catalog, as data planes do.
    Edge,
}

/// An API key, without the key.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// Its id.
    pub id: Uuid,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Last use, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was taken back.
    pub revoked_at: Option<DateTime<Utc>>,
}

/// A new API key.
#[derive(Clone)]
pub struct ApiKeyCreated {
    /// About it.
    pub key: ApiKey,
    /// The key: `ik_` and 43 characters; shown this once.
    pub secret: String,
}

impl std::fmt::Debug for ApiKeyCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKeyCreated({:?}, ***)", self.key)
    }
}

/// An address that is told of events.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Its id.
    pub id: Uuid,
    /// Where events are posted.
    pub url: String,
    /// Which: exact topics (`tenant.provisioned`), prefixes (`tenant.*`) or `*`.
    pub topics: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was switched off.
    pub disabled_at: Option<DateTime<Utc>>,
}

/// A new webhook.
#[derive(Clone)]
pub struct WebhookCreated {
    /// About it.
    pub webhook: Webhook,
    /// Signs what is posted: `Insula-Signature: t=<unix>,v1=<hex HMAC-SHA256 of "<t>.<body>">`.
    pub secret: String,
}

impl std::fmt::Debug for WebhookCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WebhookCreated({:?}, ***)", self.webhook)
    }
}

/// One migration of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// Counts up from 1.
    pub version: i64,
    /// For people.
    pub name: String,
    /// Unqualified: the search path decides.
    pub sql: String,
}

/// What the application brings: its tables and how a tenant begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// In order of version.
    pub migrations: Vec<Migration>,
    /// One or more statements; `$1` admin's email, `$2` argon2 PHC hash, `$3` tenant's name, `$4` settings (jsonb).
    pub seed: String,
}

/// A bundle that was put.
#[derive(Clone, Debug)]
pub struct BundlePut {
    /// Its last migration.
    pub schema_version: i64,
    /// The work of applying it; `None` when everything has it already.
    pub operation: Option<Operation>,
}

/// What to look over for leaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LintTarget {
    /// Every database of every cell.
    All,
    /// Every database of one cell.
    Cell(CellName),
    /// The database of one tenant (by slug or id).
    Tenant(String),
}

/// What the kit's lint found in one database.
#[derive(Clone, Debug)]
pub struct LintReport {
    /// Which cell.
    pub cell: CellName,
    /// Which database.
    pub database: String,
    /// Empty: nothing leaks.
    pub findings: Vec<LintFinding>,
}

/// One thing that could leak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LintFinding {
    /// Which rule.
    pub rule: String,
    /// What breaks it.
    pub object: String,
    /// Why, and what to do.
    pub detail: String,
    /// `error` or `warning`.
    pub severity: String,
}

/// How things stand.
#[derive(Clone, Debug)]
pub struct Status {
    /// Everything that is to be prepared at start is.
    pub ready: bool,
    /// Revision of the catalog's change feed.
    pub revision: i64,
    /// Last migration of the application.
    pub schema_version: i64,
    /// Tenants by state.
    pub tenants: BTreeMap<String, i64>,
    /// Tenants by isolation.
    pub isolation: BTreeMap<String, i64>,
    /// Operations by state.
    pub operations: BTreeMap<String, i64>,
    /// Cells.
    pub cells: Vec<Cell>,
    /// Pre-made databases by cell.
    pub warm: BTreeMap<String, i64>,
    /// Workers by cell, of those cells that answer.
    pub workers: BTreeMap<String, i64>,
    /// Events that wait to be delivered.
    pub outbox_waiting: i64,
    /// The first audit row that does not fit the chain of hashes: somebody has tampered.
    pub audit_broken_at: Option<i64>,
}
