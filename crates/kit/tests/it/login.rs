//! Tenants with a schema or a database of their own: bound by their login.

use insula_core::TenantNo;
use insula_core::placement::SCHEMAS_DATABASE;
use insula_testkit::{TestServer, server};
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;

use crate::{migrate, number, refused, run};

const TABLES: &str =
    "CREATE TABLE notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text NOT NULL); SELECT insula.tenant_table('notes')";

async fn prepared() -> &'static TestServer {
    let server = server().await;
    insula_kit::prepare_server(&mut server.admin("postgres").await, &server.cell_key()).await.expect("prepare_server");
    server
}

async fn login(admin: &mut PgConnection, server: &TestServer, no: i64, role: &str, database: &str, schema: &str) {
    let no = TenantNo::new(no).expect("positive");
    insula_kit::register_tenant(admin, no, 1, Some(role)).await.expect("register_tenant");
    let password = server.cell_key().role_password(role);
    insula_kit::create_login(admin, role, &password, no, database, schema).await.expect("create_login");
}

#[tokio::test]
async fn schema_tenants_see_their_schema_only() {
    // One database of that name per server: tests that use it take turns.
    static TURN: Mutex<()> = Mutex::const_new(());
    let _turn = TURN.lock().await;
    let server = prepared().await;
    insula_kit::create_database(&mut server.admin("postgres").await, SCHEMAS_DATABASE).await.expect("create_database");
    let mut admin = server.admin(SCHEMAS_DATABASE).await;
    insula_kit::install(&mut admin, SCHEMAS_DATABASE, &server.cell_key(), 1).await.expect("install");
    for (no, tail) in [(11, "aaaaaaaaaaaaaaa1"), (12, "aaaaaaaaaaaaaaa2")] {
        let (role, schema) = (format!("r{tail}"), format!("s{tail}"));
        login(&mut admin, server, no, &role, SCHEMAS_DATABASE, &schema).await;
        migrate(&mut admin, &schema, TABLES).await.expect("tables");
        let mut conn = PgConnection::connect(&server.role_url(&role, SCHEMAS_DATABASE)).await.expect("log in");
        run(&mut conn, "INSERT INTO notes (body) VALUES ('mine')").await.expect("insert without a grant");
        assert_eq!(number(&mut conn, "SELECT tenant_id FROM notes").await.expect("one row"), no);
        assert_eq!(number(&mut conn, "SELECT insula.next_number('n')").await.expect("a number"), 1);
        if no == 12 {
            assert_eq!(refused(run(&mut conn, "SELECT * FROM saaaaaaaaaaaaaaa1.notes").await), "42501");
        }
    }
    assert_eq!(insula_kit::lint(&mut admin).await.expect("lint"), []);
    assert!(
        PgConnection::connect(&server.role_url("insula_app", SCHEMAS_DATABASE)).await.is_err(),
        "the pool's login has no business here"
    );
    for tail in ["aaaaaaaaaaaaaaa1", "aaaaaaaaaaaaaaa2"] {
        insula_kit::drop_login(&mut admin, &format!("r{tail}")).await.expect("drop_login");
    }
}

#[tokio::test]
async fn a_cloned_database_is_opened_by_its_login_alone() {
    let server = prepared().await;
    let mut admin = server.admin("postgres").await;
    let template = format!("t{}", &uuid::Uuid::new_v4().simple().to_string()[..16]);
    insula_kit::create_database(&mut admin, &template).await.expect("template");
    let mut conn = server.admin(&template).await;
    insula_kit::install(&mut conn, &template, &server.cell_key(), 1).await.expect("install");
    migrate(&mut conn, "app", TABLES).await.expect("tables");
    conn.close().await.expect("close");
    let (database, role) = (template.replacen('t', "d", 1), template.replacen('t', "r", 1));
    insula_kit::clone_database(&mut admin, &database, &template).await.expect("clone");
    let mut conn = server.admin(&database).await;
    login(&mut conn, server, 21, &role, &database, "app").await;
    login(&mut conn, server, 21, &role, &database, "app").await;

    let mut own = PgConnection::connect(&server.role_url(&role, &database)).await.expect("log in");
    run(&mut own, "INSERT INTO notes (body) VALUES ('mine')").await.expect("insert");
    assert_eq!(number(&mut own, "SELECT tenant_id FROM notes").await.expect("one row"), 21);
    assert!(
        PgConnection::connect(&server.role_url("insula_app", &database)).await.is_err(),
        "the pool's login has no business here"
    );
    assert!(PgConnection::connect(&server.role_url(&role, &template)).await.is_err(), "nor this login elsewhere");
    assert_eq!(insula_kit::lint(&mut conn).await.expect("lint"), []);

    insula_kit::disable_login(&mut conn, &role).await.expect("disable");
    assert!(run(&mut own, "SELECT 1").await.is_err(), "its sessions are ended");
    assert!(PgConnection::connect(&server.role_url(&role, &database)).await.is_err());
    insula_kit::enable_login(&mut conn, &role).await.expect("enable");
    PgConnection::connect(&server.role_url(&role, &database)).await.expect("log in again").close().await.expect("close");
    insula_kit::drop_login(&mut conn, &role).await.expect("drop");
    insula_kit::drop_login(&mut conn, &role).await.expect("drop again");
}
