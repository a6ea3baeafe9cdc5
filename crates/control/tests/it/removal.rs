//! What is left of a tenant that was taken away: nothing, in any table of its database, whoever made the table.

use std::collections::BTreeMap;

use insula_control::fault::{Fault, Moment};
use insula_control::model::{OperationState, Tenant};
use insula_control::reconcile;
use insula_core::Isolation;
use insula_core::placement::{POOL_DATABASE, SCHEMAS_DATABASE};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::house::{House, LONG, Planned, bundle, create};

/// A row in each of the kit's tables that have rows of tenants.
const TRACES: &str = "
    INSERT INTO insula.number (name, value) VALUES ('invoice', 7);
    INSERT INTO insula.job (id, state, due, created_at, kind, body, worker)
        SELECT gen_random_uuid(), s::\"char\", now(), now(), 'note', '{}', 1 FROM unnest(ARRAY['w', 'l', 'r']) s;
    INSERT INTO insula.job_end (id, outcome, kind, lane, rank, attempt, attempts, cost, keep, created_at, ended_at, expires_at, body)
        VALUES (gen_random_uuid(), 'dead', 'note', '', 0, 1, 1, 1, 60, now(), now(), now() + interval '1 day', '{}');
    INSERT INTO insula.lane (tenant_id) VALUES (insula.current_tenant());
    INSERT INTO insula.lane_name (tenant_id, lane) VALUES (insula.current_tenant(), 'slow');
    INSERT INTO insula.arrival (tenant_id, lane, rank, due) VALUES (insula.current_tenant(), '', 0, now());
    INSERT INTO insula.cancellation (tenant_id, id) VALUES (insula.current_tenant(), gen_random_uuid());
    INSERT INTO insula.schedule (name, kind, cron, since, body) VALUES ('nightly', 'note', '0 3 * * *', now(), '{}');
    INSERT INTO insula.event (id, topic, at, body) VALUES (gen_random_uuid(), 'note.written', now(), '{}');
    INSERT INTO insula.event_seen (consumer, id, at, handled) VALUES ('search', gen_random_uuid(), now(), true);
    INSERT INTO insula.webhook (id, url, topics, sealed, sealed_in, created_at)
        VALUES (gen_random_uuid(), 'https://hooks.example', '{*}', '', 'main', now());
    INSERT INTO insula.sweep_mark (sweep, skipped, at) VALUES ('mend', false, now())";

/// How many rows each table of a database has for a tenant (`=`), or for others (`<>`). What Postgres knows decides which tables there are.
async fn traces(house: &House, database: &str, whose: &str, tenant: &Tenant) -> BTreeMap<String, i64> {
    let mut admin = house.server.admin(database).await;
    let tables: Vec<String> = sqlx::query_scalar(
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND NOT a.attisdropped
          WHERE a.attname = 'tenant_id' AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition",
    )
    .fetch_all(&mut admin)
    .await
    .expect("tables");
    assert!(tables.len() >= 12, "{tables:?}");
    let mut rows = BTreeMap::new();
    for (table, column) in tables.into_iter().map(|table| (table, "tenant_id")).chain([("insula.tenant".to_owned(), "no")]) {
        let sql = format!("SELECT count(*) FROM {table} WHERE {column} {whose} $1");
        let found = sqlx::query_scalar(AssertSqlSafe(sql)).bind(tenant.no.get()).fetch_one(&mut admin).await.expect("a count");
        rows.insert(table, found);
    }
    rows
}

/// Tables whose rows tell of a tenant by the name of its schema or login, or by a table of its own.
async fn names(house: &House, database: &str) -> Vec<String> {
    let mut admin = house.server.admin(database).await;
    let sql = "SELECT 'login ' || role FROM insula.login WHERE role LIKE 'r%' UNION ALL SELECT DISTINCT 'migration ' || schema FROM insula.migration
               WHERE schema <> 'app' UNION ALL SELECT 'shared ' || relation::oid FROM insula.shared";
    sqlx::query_scalar(sql).fetch_all(&mut admin).await.expect("names")
}

async fn databases(house: &House) -> Vec<String> {
    let mut admin = house.server.admin("postgres").await;
    let sql = "SELECT datname::text FROM pg_database WHERE datname ~ '^d[0-9a-f]{16}$' ORDER BY 1";
    sqlx::query_scalar(sql).fetch_all(&mut admin).await.expect("databases")
}

/// The catalog forgets a tenant; what is in the cell is a leftover from then on.
async fn forget(house: &House, tenant: &Tenant) {
    for sql in [
        "WITH p AS (DELETE FROM catalog.placement WHERE tenant = $1 RETURNING cell, database, isolation)
         DELETE FROM catalog.cell_database d USING p WHERE p.isolation = 'database' AND d.cell = p.cell AND d.name = p.database",
        "DELETE FROM catalog.tenant WHERE id = $1",
    ] {
        sqlx::query(sql).bind(tenant.id.uuid()).execute(house.control.catalog_pool()).await.expect("forgotten");
    }
}

async fn leaves_nothing(isolation: Isolation) {
    let plan = Planned::new(&[]);
    let faults = plan.clone();
    let mut house = House::on(insula_testkit::durable_server().await.into(), |config| config.faults = faults).await;
    let mut bundle = bundle();
    bundle.migrations[0].sql += "; CREATE TABLE kinds (name text PRIMARY KEY); SELECT insula.shared_table('kinds')";
    bundle.seed = format!("{};{TRACES}", bundle.seed);
    let put = house.control.put_bundle("test", bundle).await.expect("a good bundle");
    house.done(put.operation.expect("begun").id).await;
    let shared = if isolation == Isolation::Row { POOL_DATABASE } else { SCHEMAS_DATABASE };
    let named = names(&house, shared).await;

    let kept = house.tenant("kept", isolation).await;
    let place = kept.placement.clone().expect("placed");
    let before = traces(&house, &place.database, "=", &kept).await;
    let empty: Vec<_> = before.iter().filter(|(_, rows)| **rows == 0).collect();
    assert!(empty.is_empty(), "the test writes nothing to {empty:?}: it could not see that something stays there");

    // One that is taken back when all was made.
    plan.add("notify", Moment::After, Fault::Fail);
    let created = house.control.create_tenant("test", create("gone", isolation), None).await.expect("accepted");
    assert_eq!(house.ended(created.operation.id).await.state, OperationState::Failed);
    house.assert_undone("gone").await;
    let left = traces(&house, &place.database, "<>", &kept).await;
    assert!(left.values().all(|rows| *rows == 0), "{left:?}");
    assert_eq!(traces(&house, &place.database, "=", &kept).await, before, "another's rows are not touched");

    // And one that has lived, and has a transaction open.
    let url = house.server.role_url(&place.role(), &place.database);
    let mut login = PgConnection::connect(&url).await.expect("its login");
    let mut open = login.begin().await.expect("begun");
    sqlx::query("SELECT FROM users").execute(&mut *open).await.expect("read");
    forget(&house, &kept).await;
    let cleaned = tokio::time::timeout(LONG, reconcile::clean(&house.control)).await.expect("nobody is waited for");
    assert_eq!(cleaned.expect("cleaned"), vec![]);
    if isolation == Isolation::Database {
        assert_eq!(databases(&house).await, Vec::<String>::new());
    } else {
        let left = traces(&house, &place.database, "=", &kept).await;
        assert!(left.values().all(|rows| *rows == 0), "{left:?}");
    }
    assert_eq!(names(&house, shared).await, named);
    house.stop().await;
}

#[tokio::test]
async fn a_row_tenant_that_is_removed_leaves_nothing() {
    leaves_nothing(Isolation::Row).await;
}

#[tokio::test]
async fn a_schema_tenant_that_is_removed_leaves_nothing() {
    leaves_nothing(Isolation::Schema).await;
}

#[tokio::test]
async fn a_database_tenant_that_is_removed_leaves_nothing() {
    leaves_nothing(Isolation::Database).await;
}
