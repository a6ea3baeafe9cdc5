//! The fault matrix: every step of a provision failed, crashed and repeated, in every isolation; after each, what is there
//! is whole, or nothing is there, and the reconciler finds no leftover.

use std::sync::Arc;
use std::time::Duration;

use insula_control::fault::{Fault, Moment};
use insula_control::model::{CreateTenant, OperationState, RegisterCell};
use insula_core::{Isolation, OperationId, TenantState};
use insula_testkit::TestServer;

use crate::house::{House, LONG, Planned, bundle, create};

const LEADING: [&str; 2] = ["validate", "place"];
const STEPS: [&str; 6] = ["cell", "create", "migrate", "seed", "register", "notify"];

/// A house whose provisions go wrong as planned, and a server that it may give to a tenant of isolation `cell`.
struct Scene {
    server: Arc<TestServer>,
    spare: TestServer,
    secrets: tempfile::NamedTempFile,
}

impl Scene {
    async fn set() -> Self {
        let spare = insula_testkit::durable_server().await;
        let mut secrets = tempfile::NamedTempFile::new().expect("a file");
        let json = serde_json::json!({"cells": {"spare": spare.admin_url("postgres")}});
        std::io::Write::write_all(&mut secrets, json.to_string().as_bytes()).expect("written");
        let scene = Self { server: Arc::new(insula_testkit::durable_server().await), spare, secrets };
        let mut house = scene.house(&Planned::new(&[])).await;
        house.control.put_bundle("test", bundle()).await.expect("a good bundle");
        let register = RegisterCell {
            name: "spare".parse().expect("a name"),
            region: "local".into(),
            labels: vec![],
            host: scene.spare.host().into(),
            port: scene.spare.port(),
            tls: "prefer".into(),
            app_url: None,
            capacity: 1,
            dedicated: true,
        };
        house.control.register_cell("test", register).await.expect("registered");
        house.stop().await;
        scene
    }

    async fn house(&self, faults: &Arc<Planned>) -> House {
        let (faults, secrets) = (Arc::clone(faults), self.secrets.path().to_owned());
        House::on(Arc::clone(&self.server), |config| {
            config.faults = faults;
            config.cell_secrets = Some(secrets);
            config.lease = Duration::from_millis(600);
        })
        .await
    }
}

async fn fail_each_step(isolation: Isolation) {
    let scene = Scene::set().await;
    let plan = Planned::new(&[]);
    let mut house = scene.house(&plan).await;
    for step in LEADING {
        for moment in [Moment::Before, Moment::After] {
            plan.add(step, moment, Fault::Fail);
            house.control.create_tenant("test", create("acme", isolation), None).await.expect_err("refused at once");
            assert!(plan.all_happened(), "{step} {moment:?}");
            house.assert_undone("acme").await;
        }
    }
    for step in STEPS {
        for moment in [Moment::Before, Moment::After] {
            plan.add(step, moment, Fault::Fail);
            let created = house.control.create_tenant("test", create("acme", isolation), None).await.expect("accepted");
            let ended = house.ended(created.operation.id).await;
            assert!(plan.all_happened(), "{step} {moment:?}");
            assert_eq!(ended.state, OperationState::Failed, "{step} {moment:?}: {ended:?}");
            let error = ended.error.expect("says why");
            assert!(error.detail.contains(step) && error.kind == "conflict", "{error:?}");
            house.assert_undone("acme").await;
        }
    }
    // Away is not failed: it is tried again, and the slug is free after all that.
    for step in STEPS {
        plan.add(step, Moment::Before, Fault::Away);
        plan.add(step, Moment::After, Fault::Away);
    }
    let tenant = house.tenant("acme", isolation).await;
    assert!(plan.all_happened());
    assert_eq!((tenant.state, tenant.schema_version), (TenantState::Active, 2));
    house.assert_no_orphans().await;
    house.stop().await;
}

#[tokio::test]
async fn row_fails_at_each_step_and_leaves_nothing() {
    fail_each_step(Isolation::Row).await;
}

#[tokio::test]
async fn schema_fails_at_each_step_and_leaves_nothing() {
    fail_each_step(Isolation::Schema).await;
}

#[tokio::test]
async fn database_fails_at_each_step_and_leaves_nothing() {
    fail_each_step(Isolation::Database).await;
}

#[tokio::test]
async fn cell_fails_at_each_step_and_leaves_nothing() {
    fail_each_step(Isolation::Cell).await;
}

/// Begins a provision in a house that is about to crash, and waits until it has.
async fn begin_and_crash(house: &House, wanted: CreateTenant) -> OperationId {
    let created = house.control.create_tenant("test", wanted, None).await.expect("accepted");
    tokio::time::timeout(LONG, house.control.crashed()).await.expect("it crashes");
    created.operation.id
}

async fn crash_at_each_step(isolation: Isolation) {
    let scene = Scene::set().await;
    for step in STEPS {
        for moment in [Moment::Before, Moment::After] {
            let slug = format!("{step}-{}", if moment == Moment::Before { "a" } else { "b" });
            let plan = Planned::new(&[(step, moment, Fault::Crash)]);
            let crashing = scene.house(&plan).await;
            let id = begin_and_crash(&crashing, create(&slug, isolation)).await;
            let mut house = scene.house(&Planned::new(&[])).await;
            house.done(id).await;
            let tenant = house.control.tenant(&slug).await.expect("there");
            assert_eq!((tenant.state, tenant.schema_version), (TenantState::Active, 2), "{slug}");
            assert_seeded_once(&scene, &house, &slug).await;
            house.assert_no_orphans().await;
            if isolation == Isolation::Cell {
                // The one spare server is wanted again.
                undo_by_hand(&scene, &mut house, &slug).await;
            }
            house.stop().await;
        }
    }
}

/// Exactly one first user, whatever was repeated.
async fn assert_seeded_once(scene: &Scene, house: &House, slug: &str) {
    let place = house.control.tenant(slug).await.expect("there").placement.expect("placed");
    let server = if place.isolation == Isolation::Cell { &scene.spare } else { &*scene.server };
    let no = house.control.tenant(slug).await.expect("there").no;
    let mut admin = server.admin(&place.database).await;
    let sql = format!("SELECT count(*) FROM {}.users WHERE tenant_id = {no}", place.schema);
    let users: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(&mut admin).await.expect("counted");
    assert_eq!(users, 1, "{slug}");
}

/// Frees the spare server: erasing a tenant is a later part of the house.
async fn undo_by_hand(scene: &Scene, house: &mut House, slug: &str) {
    let tenant = house.control.tenant(slug).await.expect("there");
    let place = tenant.placement.clone().expect("placed");
    let mut admin = scene.spare.admin("postgres").await;
    for sql in [format!("DROP DATABASE {} WITH (FORCE)", place.database), format!("DROP ROLE {}", place.role())] {
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut admin).await.expect("dropped");
    }
    for sql in [
        "DELETE FROM catalog.placement WHERE tenant = $1",
        "DELETE FROM catalog.cell_database WHERE cell = 'spare' AND $1 IS NOT NULL",
        "DELETE FROM catalog.tenant WHERE id = $1",
        "UPDATE catalog.cell SET state = 'free', dedicated = false, kit_way = NULL WHERE name = 'spare' AND $1 IS NOT NULL",
    ] {
        sqlx::query(sql).bind(tenant.id.uuid()).execute(house.control.catalog_pool()).await.expect("freed");
    }
}

#[tokio::test]
async fn row_crashes_at_each_step_and_is_resumed() {
    crash_at_each_step(Isolation::Row).await;
}

#[tokio::test]
async fn schema_crashes_at_each_step_and_is_resumed() {
    crash_at_each_step(Isolation::Schema).await;
}

#[tokio::test]
async fn database_crashes_at_each_step_and_is_resumed() {
    crash_at_each_step(Isolation::Database).await;
}

#[tokio::test]
async fn cell_crashes_at_each_step_and_is_resumed() {
    crash_at_each_step(Isolation::Cell).await;
}

/// A provision that fails last, with an engine that crashes in the middle of each undo.
async fn crash_at_each_undo(isolation: Isolation) {
    let scene = Scene::set().await;
    for step in ["notify", "register", "seed", "migrate", "create", "cell", "place", "validate"] {
        let plan = Planned::new(&[("notify", Moment::After, Fault::Fail), (step, Moment::Undone, Fault::Crash)]);
        let crashing = scene.house(&plan).await;
        let id = begin_and_crash(&crashing, create("acme", isolation)).await;
        let mut house = scene.house(&Planned::new(&[])).await;
        let ended = house.ended(id).await;
        assert_eq!(ended.state, OperationState::Failed, "{step}: {ended:?}");
        house.assert_undone("acme").await;
        house.stop().await;
    }
}

#[tokio::test]
async fn crashes_in_an_undo_are_resumed_too() {
    for isolation in [Isolation::Row, Isolation::Database] {
        crash_at_each_undo(isolation).await;
    }
}

#[tokio::test]
async fn the_reconciler_sees_and_cleans_what_somebody_left() {
    let scene = Scene::set().await;
    let mut house = scene.house(&Planned::new(&[])).await;
    house.tenant("acme", Isolation::Schema).await;
    house.assert_no_orphans().await;
    let mut admin = scene.server.admin("postgres").await;
    for sql in ["CREATE DATABASE d0123456789abcdef", "CREATE ROLE rfedcba9876543210 LOGIN"] {
        sqlx::query(sql).execute(&mut admin).await.expect("left");
    }
    let mut schemas = scene.server.admin("insula_schemas").await;
    sqlx::query("CREATE SCHEMA s00112233445566ff").execute(&mut schemas).await.expect("left");
    let mut pool = scene.server.admin("insula_pool").await;
    sqlx::query("INSERT INTO insula.tenant (no, epoch) VALUES (987654, 1)").execute(&mut pool).await.expect("left");
    let found = insula_control::reconcile::orphans(&house.control).await.expect("looked");
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(insula_control::reconcile::clean(&house.control).await.expect("cleaned"), vec![]);
    // What somebody owns is still there.
    assert_eq!(house.control.tenant("acme").await.expect("there").state, TenantState::Active);
    sqlx::query("DELETE FROM insula.tenant").execute(&mut schemas).await.expect("lost");
    let found = insula_control::reconcile::clean(&house.control).await.expect("looked");
    assert!(matches!(found.as_slice(), [insula_control::reconcile::Orphan::Missing(..)]), "{found:?}");
    house.stop().await;
}
