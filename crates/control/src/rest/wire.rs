//! From the control plane's values to the API's types and back.
//!
//! Always: what is not named here does not go out (a tenant's number, a cell's admin role).

use insula_api::{audit, bundle, catalog, cell, domain, key, operation, page, plan, tenant, webhook};

use crate::model;

pub(super) fn page<T, U>(found: model::Page<T>, item: impl FnMut(T) -> U) -> page::Page<U> {
    page::Page { items: found.items.into_iter().map(item).collect(), next: found.next }
}

pub(super) fn tenant(found: model::Tenant) -> tenant::Tenant {
    tenant::Tenant {
        id: found.id,
        slug: found.slug,
        name: found.name,
        plan: found.plan,
        state: found.state,
        isolation: found.placement.as_ref().map(|p| p.isolation),
        placement: found.placement.map(|p| tenant::Placement {
            cell: p.cell,
            database: p.database.to_string(),
            schema: p.schema.to_string(),
            epoch: p.epoch,
            state: p.state,
        }),
        settings: settings(found.settings),
        features: found.features,
        limits: found.limits,
        schema_version: found.schema_version,
        version: found.version,
        created_at: found.created_at,
        updated_at: found.updated_at,
        deleted_at: found.deleted_at,
    }
}

pub(super) fn settings(from: model::Settings) -> tenant::Settings {
    let model::Settings { brand_name, color, locale, time_zone } = from;
    tenant::Settings { brand_name, color, locale, time_zone }
}

pub(super) fn settings_in(from: tenant::Settings) -> model::Settings {
    let tenant::Settings { brand_name, color, locale, time_zone } = from;
    model::Settings { brand_name, color, locale, time_zone }
}

pub(super) fn tenant_config(found: model::TenantConfig) -> catalog::TenantConfig {
    let model::TenantConfig { tenant, plan, documents } = found;
    catalog::TenantConfig {
        id: tenant.id,
        slug: tenant.slug,
        name: tenant.name,
        state: tenant.state,
        plan: plan.name,
        tier: plan.tier,
        limits: plan.limits,
        features: plan.features,
        settings: settings(tenant.settings),
        placement: tenant.placement.map(|p| catalog::ConfigPlacement {
            cell: p.cell,
            isolation: p.isolation,
            epoch: p.epoch,
            state: p.state,
        }),
        schema_version: tenant.schema_version,
        documents: documents
            .into_iter()
            .map(|(name, found)| {
                (name, catalog::ConfigDocument { version: found.version, value: serde_json::Value::clone(&found.value) })
            })
            .collect(),
        version: tenant.version,
    }
}

pub(super) fn create_tenant(from: tenant::CreateTenant) -> model::CreateTenant {
    model::CreateTenant {
        slug: from.slug,
        name: from.name,
        plan: from.plan,
        isolation: from.isolation,
        settings: settings_in(from.settings),
        features: from.features,
        limits: from.limits,
        admin_email: from.admin_email,
        admin_password_hash: None,
        cell: from.cell,
        region: from.region,
        labels: from.labels,
    }
}

pub(super) fn domain(found: model::Domain) -> domain::Domain {
    let proof = domain::TxtRecord { name: found.record_name(), value: found.record_value() };
    domain::Domain { host: found.host, proof, verified_at: found.verified_at, created_at: found.created_at }
}

pub(super) fn plan(found: model::PlanRecord) -> plan::Plan {
    let insula_core::Plan { name, tier, isolation, limits, features, .. } = found.plan;
    plan::Plan {
        name,
        tier,
        isolation,
        limits,
        features,
        version: found.version,
        created_at: found.created_at,
        updated_at: found.updated_at,
    }
}

pub(super) fn put_plan(from: plan::CreatePlan) -> model::PutPlan {
    let plan::CreatePlan { name, tier, isolation, limits, features } = from;
    model::PutPlan { name, tier, isolation, limits, features }
}

pub(super) fn cell(found: model::Cell) -> cell::Cell {
    cell::Cell {
        name: found.name,
        region: found.region,
        labels: found.labels,
        provider: match found.provider {
            model::Provider::Embedded => cell::Provider::Embedded,
            model::Provider::Registered => cell::Provider::Registered,
        },
        state: match found.state {
            model::CellState::Requested => cell::CellState::Requested,
            model::CellState::Ready => cell::CellState::Ready,
            model::CellState::Draining => cell::CellState::Draining,
            model::CellState::Free => cell::CellState::Free,
            model::CellState::Down => cell::CellState::Down,
            model::CellState::Removing => cell::CellState::Removing,
        },
        dedicated: found.dedicated,
        host: found.host,
        port: found.port,
        tls: match found.tls.as_str() {
            "disable" => cell::Tls::Disable,
            "require" => cell::Tls::Require,
            "verify-full" => cell::Tls::VerifyFull,
            _ => cell::Tls::Prefer,
        },
        app_url: found.app_url,
        app_versions: found.app_versions,
        replicas: found.replicas,
        capacity: u32::try_from(found.capacity).unwrap_or(0),
        tenants: u64::try_from(found.tenants).unwrap_or(0),
        kit_way: found.kit_way,
        version: found.version,
        created_at: found.created_at,
    }
}

pub(super) fn register_cell(from: cell::RegisterCell) -> model::RegisterCell {
    model::RegisterCell {
        name: from.name,
        region: from.region,
        labels: from.labels,
        host: from.host,
        port: from.port,
        tls: match from.tls {
            cell::Tls::Disable => "disable",
            cell::Tls::Prefer => "prefer",
            cell::Tls::Require => "require",
            cell::Tls::VerifyFull => "verify-full",
        }
        .to_owned(),
        app_url: from.app_url,
        capacity: i32::try_from(from.capacity).unwrap_or(i32::MAX),
        dedicated: from.dedicated,
    }
}

pub(super) fn operation_state(from: operation::OperationState) -> model::OperationState {
    match from {
        operation::OperationState::Pending => model::OperationState::Pending,
        operation::OperationState::Running => model::OperationState::Running,
        operation::OperationState::Undoing => model::OperationState::Undoing,
        operation::OperationState::Done => model::OperationState::Done,
        operation::OperationState::Failed => model::OperationState::Failed,
    }
}

pub(super) fn operation(found: model::Operation) -> operation::Operation {
    operation::Operation {
        id: found.id,
        kind: found.kind,
        tenant: found.tenant,
        state: match found.state {
            model::OperationState::Pending => operation::OperationState::Pending,
            model::OperationState::Running => operation::OperationState::Running,
            model::OperationState::Undoing => operation::OperationState::Undoing,
            model::OperationState::Done => operation::OperationState::Done,
            model::OperationState::Failed => operation::OperationState::Failed,
        },
        step: found.step,
        steps_done: found.steps_done,
        steps_total: found.steps_total,
        attempts: found.attempts,
        output: found.output,
        error: found.error.map(|e| operation::OperationError { kind: e.kind, detail: e.detail }),
        created_by: found.created_by,
        created_at: found.created_at,
        updated_at: found.updated_at,
        finished_at: found.finished_at,
    }
}

pub(super) fn event(found: model::OperationEvent) -> operation::OperationEvent {
    let model::OperationEvent { seq, at, step, what, detail } = found;
    operation::OperationEvent { seq, at, step, what, detail }
}

pub(super) fn audit(found: model::AuditEntry) -> audit::AuditEntry {
    let model::AuditEntry { seq, at, actor, action, tenant, target, detail, hash } = found;
    audit::AuditEntry { seq, at, actor, action, tenant, target, detail, hash: hex(&hash) }
}

pub(super) fn linted(found: model::LintReport) -> audit::LintedDatabase {
    let finding =
        |f: model::LintFinding| audit::LintFinding { rule: f.rule, object: f.object, detail: f.detail, severity: f.severity };
    audit::LintedDatabase {
        cell: found.cell,
        database: found.database,
        findings: found.findings.into_iter().map(finding).collect(),
    }
}

pub(super) fn scope(from: model::Scope) -> key::Scope {
    match from {
        model::Scope::Admin => key::Scope::Admin,
        model::Scope::Provisioner => key::Scope::Provisioner,
        model::Scope::Read => key::Scope::Read,
        model::Scope::Edge => key::Scope::Edge,
    }
}

pub(super) fn scope_in(from: key::Scope) -> model::Scope {
    match from {
        key::Scope::Admin => model::Scope::Admin,
        key::Scope::Provisioner => model::Scope::Provisioner,
        key::Scope::Read => model::Scope::Read,
        key::Scope::Edge => model::Scope::Edge,
    }
}

pub(super) fn key(found: model::ApiKey) -> key::Key {
    key::Key {
        id: found.id,
        name: found.name,
        scope: scope(found.scope),
        created_at: found.created_at,
        last_used_at: found.last_used_at,
        revoked_at: found.revoked_at,
    }
}

pub(super) fn webhook(found: model::Webhook) -> webhook::Webhook {
    let model::Webhook { id, url, topics, created_at, disabled_at } = found;
    webhook::Webhook { id, url, topics, created_at, disabled_at }
}

pub(super) fn bundle_in(from: bundle::Bundle) -> model::Bundle {
    let migration = |m: bundle::Migration| model::Migration { version: m.version, name: m.name, sql: m.sql };
    model::Bundle { migrations: from.migrations.into_iter().map(migration).collect(), seed: from.seed }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
