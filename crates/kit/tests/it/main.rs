//! The kit against a real Postgres.

#![allow(clippy::expect_used, clippy::panic)]

mod crowd;
mod driver;
mod install;
mod lint;
mod login;
mod pool;
mod queue;
mod race;
mod search;
mod table;

use insula_core::{Grant, GrantKey, TenantNo};
use insula_testkit::{TestServer, server};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

/// A database with the kit and one login for schema `app`: the pool as an application sees it.
pub(crate) struct Pool {
    pub(crate) server: &'static TestServer,
    pub(crate) database: String,
    pub(crate) admin: PgConnection,
}

impl Pool {
    pub(crate) async fn new() -> Self {
        let server = server().await;
        let mut admin = server.admin("postgres").await;
        insula_kit::prepare_server(&mut admin, &server.cell_key()).await.expect("prepare_server");
        let database = format!("kit_{}", uuid::Uuid::new_v4().simple());
        insula_kit::create_database(&mut admin, &database).await.expect("create_database");
        let mut admin = server.admin(&database).await;
        insula_kit::install(&mut admin, &database, &server.cell_key(), 1).await.expect("install");
        insula_kit::use_schema(&mut admin, "insula_app", "app").await.expect("use_schema");
        Self { server, database, admin }
    }

    pub(crate) async fn app(&self) -> PgConnection {
        PgConnection::connect(&self.server.role_url("insula_app", &self.database)).await.expect("a connection as the app")
    }

    pub(crate) fn key(&self, kid: i32) -> GrantKey {
        self.server.cell_key().grant_key(&self.database, kid)
    }

    /// Migrations run as the owner with the schema on the search_path.
    pub(crate) async fn migrate(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        migrate(&mut self.admin, "app", sql).await
    }

    pub(crate) async fn tenant(&mut self, no: i64) -> TenantNo {
        let no = TenantNo::new(no).expect("positive");
        insula_kit::register_tenant(&mut self.admin, no, 1, None).await.expect("register_tenant");
        no
    }
}

pub(crate) async fn migrate(admin: &mut PgConnection, schema: &str, sql: &str) -> Result<(), sqlx::Error> {
    let mut tx = admin.begin().await?;
    run(&mut tx, &format!("SET LOCAL ROLE insula_owner; SET LOCAL search_path = {schema}")).await?;
    run(&mut tx, sql).await?;
    tx.commit().await
}

pub(crate) async fn run(conn: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.map(|_| ())
}

pub(crate) async fn number(conn: &mut PgConnection, sql: &str) -> Result<i64, sqlx::Error> {
    sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(conn).await?.try_get(0)
}

pub(crate) async fn pid(conn: &mut PgConnection) -> i32 {
    sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn).await.expect("a pid")
}

pub(crate) fn soon() -> i64 {
    chrono::Utc::now().timestamp() + 30
}

pub(crate) async fn enter(conn: &mut PgConnection, grant: &Grant) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT insula.enter($1, $2, $3, $4, $5, $6)")
        .bind(grant.no.get())
        .bind(grant.epoch)
        .bind(grant.expires)
        .bind(grant.fence)
        .bind(grant.kid)
        .bind(grant.mac.to_vec())
        .execute(conn)
        .await
        .map(|_| ())
}

/// The SQLSTATE of a refusal; fails the test when there was none.
#[track_caller]
pub(crate) fn refused<T>(result: Result<T, sqlx::Error>) -> String {
    match result {
        Ok(_) => panic!("it was allowed"),
        Err(sqlx::Error::Database(e)) => e.code().map(|c| c.into_owned()).unwrap_or_default(),
        Err(e) => panic!("not the database's refusal: {e}"),
    }
}
