//! No call without its key: every call of the document has a denial case here.

use std::collections::BTreeSet;

use insula_api::key::Scope;
use serde_json::{Value, json};

use crate::rest_house::{House, answer, house};

/// What a key of each call needs. A body that is refused and names that nobody has keep the calls that are let through
/// from doing anything.
const CASES: &[(&str, &str, &str, Scope)] = &[
    ("list_tenants", "GET", "/v1/tenants", Scope::Read),
    ("create_tenant", "POST", "/v1/tenants", Scope::Provisioner),
    ("show_tenant", "GET", "/v1/tenants/nobody", Scope::Read),
    ("update_tenant", "PATCH", "/v1/tenants/nobody", Scope::Admin),
    ("delete_tenant", "DELETE", "/v1/tenants/nobody", Scope::Admin),
    ("suspend_tenant", "POST", "/v1/tenants/nobody/suspend", Scope::Provisioner),
    ("resume_tenant", "POST", "/v1/tenants/nobody/resume", Scope::Provisioner),
    ("create_grant", "POST", "/v1/tenants/nobody/grants", Scope::Admin),
    ("add_usage", "POST", "/v1/usage", Scope::Edge),
    ("show_usage", "GET", "/v1/tenants/nobody/usage", Scope::Read),
    ("list_domains", "GET", "/v1/tenants/nobody/domains", Scope::Read),
    ("add_domain", "POST", "/v1/tenants/nobody/domains", Scope::Admin),
    ("verify_domain", "POST", "/v1/tenants/nobody/domains/nowhere.example/verify", Scope::Admin),
    ("remove_domain", "DELETE", "/v1/tenants/nobody/domains/nowhere.example", Scope::Admin),
    ("list_jobs", "GET", "/v1/tenants/nobody/jobs", Scope::Read),
    ("show_job", "GET", "/v1/tenants/nobody/jobs/00000000-0000-7000-8000-000000000000", Scope::Read),
    ("show_job_body", "GET", "/v1/tenants/nobody/jobs/00000000-0000-7000-8000-000000000000/body", Scope::Admin),
    ("cancel_job", "POST", "/v1/tenants/nobody/jobs/00000000-0000-7000-8000-000000000000/cancel", Scope::Admin),
    ("retry_job", "POST", "/v1/tenants/nobody/jobs/00000000-0000-7000-8000-000000000000/retry", Scope::Admin),
    ("replay_dead_jobs", "POST", "/v1/tenants/nobody/dead-jobs/replay", Scope::Admin),
    ("purge_dead_jobs", "DELETE", "/v1/tenants/nobody/dead-jobs", Scope::Admin),
    ("list_schedules", "GET", "/v1/tenants/nobody/schedules", Scope::Read),
    ("pause_schedule", "POST", "/v1/tenants/nobody/schedules/none/pause", Scope::Admin),
    ("resume_schedule", "POST", "/v1/tenants/nobody/schedules/none/resume", Scope::Admin),
    ("list_host_schedules", "GET", "/v1/host-schedules", Scope::Read),
    ("pause_host_schedule", "POST", "/v1/host-schedules/none/pause", Scope::Admin),
    ("resume_host_schedule", "POST", "/v1/host-schedules/none/resume", Scope::Admin),
    ("list_workers", "GET", "/v1/workers?cell=none", Scope::Read),
    ("list_plans", "GET", "/v1/plans", Scope::Read),
    ("create_plan", "POST", "/v1/plans", Scope::Admin),
    ("show_plan", "GET", "/v1/plans/none", Scope::Read),
    ("update_plan", "PATCH", "/v1/plans/none", Scope::Admin),
    ("list_cells", "GET", "/v1/cells", Scope::Read),
    ("register_cell", "POST", "/v1/cells", Scope::Admin),
    ("show_cell", "GET", "/v1/cells/none", Scope::Read),
    ("drain_cell", "POST", "/v1/cells/none/drain", Scope::Admin),
    ("undrain_cell", "POST", "/v1/cells/none/undrain", Scope::Admin),
    ("put_apps", "PUT", "/v1/cells/none/apps", Scope::Admin),
    ("add_replica", "POST", "/v1/cells/none/replicas", Scope::Admin),
    ("remove_replica", "DELETE", "/v1/cells/none/replicas/nowhere:5432", Scope::Admin),
    ("list_documents", "GET", "/v1/documents", Scope::Read),
    ("show_document", "GET", "/v1/documents/none", Scope::Read),
    ("put_document", "PUT", "/v1/documents/none", Scope::Admin),
    ("list_document_versions", "GET", "/v1/documents/none/versions", Scope::Read),
    ("roll_out", "POST", "/v1/documents/none/rollout", Scope::Admin),
    ("roll_back", "POST", "/v1/documents/none/rollback", Scope::Admin),
    ("list_certificates", "GET", "/v1/certificates", Scope::Read),
    ("put_certificate", "PUT", "/v1/certificates/none.example", Scope::Admin),
    ("delete_certificate", "DELETE", "/v1/certificates/none.example", Scope::Admin),
    ("show_certificates", "GET", "/v1/catalog/certificates", Scope::Edge),
    ("show_catalog", "GET", "/v1/catalog?since=-1", Scope::Edge),
    ("watch_catalog", "GET", "/v1/catalog/watch?sinse=0", Scope::Edge),
    ("show_tenant_config", "GET", "/v1/tenants/nobody/config", Scope::Edge),
    ("list_operations", "GET", "/v1/operations", Scope::Read),
    ("show_operation", "GET", "/v1/operations/00000000-0000-7000-8000-000000000000", Scope::Read),
    ("list_operation_events", "GET", "/v1/operations/00000000-0000-7000-8000-000000000000/events", Scope::Read),
    ("list_audit", "GET", "/v1/audit", Scope::Read),
    ("verify_audit", "GET", "/v1/audit/verify", Scope::Read),
    ("lint", "GET", "/v1/lint?tenant=nobody", Scope::Read),
    ("list_keys", "GET", "/v1/keys", Scope::Admin),
    ("create_key", "POST", "/v1/keys", Scope::Admin),
    ("revoke_key", "DELETE", "/v1/keys/00000000-0000-7000-8000-000000000000", Scope::Admin),
    ("list_webhooks", "GET", "/v1/webhooks", Scope::Admin),
    ("create_webhook", "POST", "/v1/webhooks", Scope::Admin),
    ("delete_webhook", "DELETE", "/v1/webhooks/00000000-0000-7000-8000-000000000000", Scope::Admin),
    ("list_providers", "GET", "/v1/providers", Scope::Read),
    ("create_provider", "POST", "/v1/providers", Scope::Admin),
    ("delete_provider", "DELETE", "/v1/providers/00000000-0000-7000-8000-000000000000", Scope::Admin),
    ("list_tenant_keys", "GET", "/v1/tenants/nobody/keys", Scope::Read),
    ("create_tenant_key", "POST", "/v1/tenants/nobody/keys", Scope::Admin),
    ("revoke_tenant_key", "DELETE", "/v1/tenants/nobody/keys/00000000-0000-7000-8000-000000000000", Scope::Admin),
    ("list_context_keys", "GET", "/v1/context-keys", Scope::Read),
    ("rotate_context_key", "POST", "/v1/context-keys", Scope::Admin),
    ("put_bundle", "PUT", "/v1/bundle", Scope::Admin),
    ("list_migrations", "GET", "/v1/migrations", Scope::Read),
    ("show_status", "GET", "/v1/status", Scope::Read),
];
/// Calls that anyone may make.
const OPEN: &[&str] = &["healthz", "readyz", "openapi_json", "jwks", "cell_jwks"];

fn documented() -> BTreeSet<String> {
    let document = serde_json::to_value(insula_control::rest::document()).expect("JSON");
    let items = document["paths"].as_object().expect("paths").values().flat_map(|item| item.as_object().expect("item").values());
    items.map(|operation| operation["operationId"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn every_call_of_the_document_has_a_case() {
    let cases = CASES.iter().map(|case| case.0).chain(OPEN.iter().copied()).map(str::to_owned).collect();
    assert_eq!(documented(), cases, "a call without a case here has no proof that it is closed");
}

async fn call(house: &House, case: &(&str, &str, &str, Scope), key: Option<&str>) -> crate::rest_house::Answer {
    let mut request = house.bare(case.1, case.2);
    if let Some(key) = key {
        request = request.bearer_auth(key);
    }
    answer(if case.1 == "GET" { request } else { request.json(&json!({})) }).await
}

#[tokio::test]
async fn every_call_refuses_whoever_may_not() {
    let house = house().await;
    let made = house.post("/v1/keys", &json!({"name": "short-lived", "scope": "admin"})).await;
    let (revoked, id) = (made.is(201).at("/secret").to_owned(), made.at("/id").to_owned());
    answer(house.admin("DELETE", &format!("/v1/keys/{id}"))).await.is(200);
    let unknown = format!("ik_{}", "A".repeat(43));
    for case in CASES {
        for key in [None, Some("not-a-key"), Some(unknown.as_str()), Some(revoked.as_str())] {
            let refused = call(house, case, key).await;
            refused.is_problem(401, "unauthenticated");
            assert!(refused.header("www-authenticate").starts_with("Bearer"), "{case:?}");
        }
        for scope in Scope::ALL {
            let told = call(house, case, Some(house.key(scope))).await;
            if scope < case.3 {
                told.is_problem(403, "denied");
            } else {
                assert!(![401, 403, 500].contains(&told.status.as_u16()), "{case:?} by {scope}: {}", told.text);
            }
        }
    }
}

#[tokio::test]
async fn the_key_is_found_in_its_header_only_and_never_told_again() {
    let house = house().await;
    let key = house.key(Scope::Admin);
    answer(house.bare("GET", &format!("/v1/keys?key={key}"))).await.is_problem(401, "unauthenticated");
    answer(house.bare("GET", "/v1/keys").basic_auth("admin", Some(key))).await.is_problem(401, "unauthenticated");
    let list = house.get("/v1/keys?limit=500").await;
    assert!(!list.is(200).text.contains("ik_"), "a key's text is in the list");
    assert!(!house.get("/v1/audit?limit=500").await.is(200).text.contains("ik_"), "a key's text is in the audit log");
}

#[tokio::test]
async fn health_needs_no_key_and_unknown_paths_tell_nothing() {
    let house = house().await;
    assert_eq!(answer(house.bare("GET", "/healthz")).await.is(200).body, json!({"status": "ok"}));
    let document = answer(house.bare("GET", "/v1/openapi.json")).await;
    assert_eq!(document.is(200).body, serde_json::to_value(insula_control::rest::document()).expect("JSON"));
    answer(house.bare("GET", "/v1/nothing")).await.is_problem(404, "not-found");
    answer(house.bare("PUT", "/v1/tenants")).await.is_problem(405, "invalid");
    answer(house.bare("HEAD", "/v1/tenants")).await.is(401);
}

#[tokio::test]
async fn deeds_are_in_the_audit_log_under_the_keys_name() {
    let house = house().await;
    let made = house.post("/v1/keys", &json!({"name": "auditor-of-deeds", "scope": "read"})).await;
    let id = made.is(201).at("/id").to_owned();
    let log = house.get("/v1/audit?action=key.create&limit=500").await;
    let entry = log.is(200).body["items"].as_array().expect("entries").iter().find(|e| e["target"] == Value::String(id.clone()));
    assert_eq!(entry.expect("an entry")["actor"], "test-admin");
    assert_eq!(house.get("/v1/audit/verify").await.is(200).body["intact"], true);
}
