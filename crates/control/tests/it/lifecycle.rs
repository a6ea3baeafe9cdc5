//! A tenant's life after it is made: paused, resumed, disabled, changed; and who is told.

use insula_control::model::{AuditFilter, OperationState, PageRequest, Scope, UpdateTenant};
use insula_core::{Grant, Isolation, Kind, TenantState};
use sqlx::{Connection as _, PgConnection};

use crate::house::House;

/// Whether the tenant's database lets it in, and with which SQLSTATE it does not.
async fn enters(house: &House, slug: &str, fence: i64) -> Result<(), String> {
    let tenant = house.control.tenant(slug).await.expect("there");
    let place = tenant.placement.expect("placed");
    let state =
        |e: sqlx::Error| e.as_database_error().and_then(|e| e.code().map(|c| c.into_owned())).unwrap_or_else(|| e.to_string());
    let mut conn = PgConnection::connect(&house.server.role_url(&place.role(), &place.database)).await.map_err(state)?;
    let mut tx = conn.begin().await.map_err(state)?;
    if place.isolation == Isolation::Row {
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.map_err(state)?;
        let key = house.server.cell_key().grant_key(&place.database, 1);
        let expires = chrono::Utc::now().timestamp() + 30;
        let grant = key.sign(tenant.no, place.epoch, expires, pid, fence);
        sqlx::query("SELECT insula.enter($1)").bind(grant.text()).execute(&mut *tx).await.map_err(state)?;
    }
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut *tx).await.map_err(state)?;
    assert_eq!(users, 1);
    Ok(())
}

/// The fence that signers are told.
async fn published(house: &House) -> i64 {
    let fence = sqlx::query_scalar("SELECT fence FROM catalog.cell_database WHERE name = 'insula_pool'");
    fence.fetch_one(house.control.catalog_pool()).await.expect("a fence")
}

#[tokio::test]
async fn suspend_resume_and_delete_hold_in_the_database_itself() {
    let mut house = House::start().await;
    for isolation in [Isolation::Row, Isolation::Schema, Isolation::Database] {
        let slug = format!("life-{isolation}");
        house.tenant(&slug, isolation).await;
        let refused = if isolation == Isolation::Row { "28T02" } else { "28000" };
        assert_eq!(enters(&house, &slug, Grant::NO_FENCE).await, Ok(()));
        for (down, state) in [("suspend", TenantState::Suspended), ("delete", TenantState::Deleted)] {
            let before = published(&house).await;
            assert_eq!(enters(&house, &slug, before).await, Ok(()));
            let operation = match down {
                "suspend" => house.control.suspend_tenant("test", &slug, None).await,
                _ => house.control.delete_tenant("test", &slug, None).await,
            };
            let operation = operation.expect("accepted");
            // The catalog says so before the answer is out.
            assert_eq!(house.control.tenant(&slug).await.expect("there").state, state);
            house.done(operation.id).await;
            assert_eq!(enters(&house, &slug, Grant::NO_FENCE).await, Err(refused.into()), "{slug} {down}");
            // Nor with what was signed before.
            assert_eq!(enters(&house, &slug, before).await, Err(refused.into()), "{slug} {down}");
            assert!(isolation != Isolation::Row || published(&house).await > before);
            let resumed = house.control.resume_tenant("test", &slug, None).await.expect("accepted");
            house.done(resumed.id).await;
            assert_eq!(enters(&house, &slug, published(&house).await).await, Ok(()), "{slug} after {down}");
        }
    }
    house.assert_no_orphans().await;
    let log = house.control.audit(&AuditFilter::default(), &PageRequest::default()).await.expect("listed");
    for action in ["tenant.create", "tenant.suspend", "tenant.delete", "tenant.resume"] {
        assert_eq!(
            log.items.iter().filter(|e| e.action == action).count(),
            if action == "tenant.resume" { 6 } else { 3 },
            "{action}"
        );
    }
    assert_eq!(house.control.verify_audit().await.expect("verified"), None);
    house.stop().await;
}

#[tokio::test]
async fn one_operation_at_a_time_on_a_tenant_and_repeats_are_one() {
    let mut house = House::start().await;
    house.tenant("acme", Isolation::Row).await;
    let first = house.control.suspend_tenant("test", "acme", Some("once")).await.expect("accepted");
    let again = house.control.suspend_tenant("test", "acme", Some("once")).await.expect("the same");
    assert_eq!(first.id, again.id);
    house.done(first.id).await;
    let ended = house.control.suspend_tenant("test", "acme", None).await.expect("again is fine");
    assert_eq!(house.done(ended.id).await.state, OperationState::Done);
    assert_eq!(house.control.suspend_tenant("test", "nobody", None).await.expect_err("nobody").kind(), Kind::NotFound);
    let other_kind = house.control.resume_tenant("test", "acme", Some("once")).await.expect_err("another kind");
    assert_eq!(other_kind.kind(), Kind::Conflict);
    house.stop().await;
}

#[tokio::test]
async fn changes_hold_at_once_and_a_stale_version_is_refused() {
    let mut house = House::start().await;
    let tenant = house.tenant("acme", Isolation::Row).await;
    let change =
        UpdateTenant { plan: Some("silver".parse().expect("a plan")), name: Some("Acme".into()), ..UpdateTenant::default() };
    let changed = house.control.update_tenant("test", "acme", change.clone(), Some(tenant.version)).await.expect("changed");
    assert_eq!((changed.plan.as_str(), changed.name.as_str(), changed.version), ("silver", "Acme", tenant.version + 1));
    assert_eq!(changed.placement, tenant.placement);
    let stale = house.control.update_tenant("test", "acme", change, Some(tenant.version)).await.expect_err("stale");
    assert_eq!(stale.kind(), Kind::Precondition);
    let mut limits = UpdateTenant { limits: Some([("max_users".to_owned(), 0)].into()), ..UpdateTenant::default() };
    assert_eq!(house.control.update_tenant("test", "acme", limits.clone(), None).await.expect_err("zero").kind(), Kind::Invalid);
    limits.limits = Some([("max_users".to_owned(), 7)].into());
    house.control.update_tenant("test", "acme", limits, None).await.expect("set");
    let domain = house.control.add_domain("test", "acme", "Docs.Acme.Example").await.expect("added");
    assert_eq!(domain.host, "docs.acme.example");
    assert_eq!(house.control.add_domain("test", "acme", "docs.acme.example").await.expect_err("taken").kind(), Kind::Conflict);
    house.stop().await;
}

#[tokio::test]
async fn keys_are_known_by_their_hash_and_can_be_taken_back() {
    let mut house = House::start().await;
    let made = house.control.create_api_key("test", "ci", Scope::Provisioner).await.expect("made");
    let found = house.control.find_api_key(&made.secret).await.expect("looked").expect("found");
    assert_eq!((found.id, found.scope), (made.key.id, Scope::Provisioner));
    assert!(!format!("{made:?}").contains(&made.secret));
    house.control.revoke_api_key("test", found.id).await.expect("revoked");
    assert!(house.control.find_api_key(&made.secret).await.expect("looked").is_none());
    house.stop().await;
}
