//! Where the application's role can log in, and what it can ask for when it does.

use std::str::FromStr;

use insula_core::Grant;
use insula_kit::Way;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::stage::{Mode, OWN, SECRET, Stage, VICTIM, enter, everything_said, no, soon};

#[tokio::test]
async fn startup_options_do_not_bind() {
    let stage = Stage::new(Mode::Row, Way::Setting).await;
    let url = stage.server.role_url(&stage.role, &stage.database);
    for (name, value) in [
        ("backtrace_functions", VICTIM.to_string()),
        ("dynamic_library_path", "x".to_owned()),
        ("role", "insula_owner".to_owned()),
    ] {
        let options = PgConnectOptions::from_str(&url).expect("options").options([(name, value)]);
        if let Ok(mut conn) = options.connect().await {
            let (_, said) = everything_said(&mut conn, "SELECT * FROM docs").await;
            assert!(!said.contains(SECRET), "{name}: {said}");
        }
    }
}

#[tokio::test]
async fn a_login_opens_its_own_database_only() {
    for way in [Way::Setting, Way::Ticket] {
        let pool = Stage::new(Mode::Row, way).await;
        let own = Stage::new(Mode::Database, way).await;
        let schema = Stage::new(Mode::Schema, way).await;
        for stage in [&pool, &own, &schema] {
            // What every server has beside ours; there, nothing is taken from PUBLIC.
            let mut closed = vec!["postgres", "template1", "template0"];
            closed.extend([&pool, &own, &schema].map(|other| other.database.as_str()).iter().filter(|d| **d != stage.database));
            for database in closed {
                let refused = PgConnection::connect(&stage.server.role_url(&stage.role, database)).await;
                assert!(refused.is_err(), "{way:?}: {} logged in to {database}", stage.role);
            }
            drop(stage.attacker().await);
        }
    }
}

/// Cell isolation: another server, whose logins have other passwords and whose grants other keys.
#[tokio::test]
async fn nothing_of_one_cell_is_worth_anything_at_another() {
    let here = Stage::new(Mode::Row, Way::Setting).await;
    let there = insula_testkit::second_server().await;
    let mut host = there.admin("postgres").await;
    insula_kit::prepare_server(&mut host, &there.cell_key()).await.expect("prepare_server");
    insula_kit::create_database(&mut host, &here.database).await.expect("a database of the same name");
    let mut admin = there.admin(&here.database).await;
    insula_kit::install(&mut admin, &here.database, &there.cell_key(), 1).await.expect("install");
    insula_kit::use_schema(&mut admin, &here.role, "app").await.expect("use_schema");
    for tenant in [OWN, VICTIM] {
        insula_kit::register_tenant(&mut admin, no(tenant), 1, None).await.expect("the same numbers");
    }
    let with = |password: &str| {
        format!("postgres://{}:{password}@{}:{}/{}?sslmode=disable", here.role, there.host(), there.port(), here.database)
    };
    let foreign = here.server.cell_key().role_password(&here.role);
    assert!(PgConnection::connect(&with(&foreign)).await.is_err(), "a login of another cell");
    let mut conn = PgConnection::connect(&with(&there.cell_key().role_password(&here.role))).await.expect("its own login");
    let forged = here.grant(&mut conn, VICTIM).await;
    let refused = enter(&mut conn, &forged).await.expect_err("a grant of another cell");
    assert_eq!(refused.as_database_error().and_then(|e| e.code()).as_deref(), Some("28000"));
    let pid = forged.pid;
    let good = there.cell_key().grant_key(&here.database, 1).sign(no(VICTIM), 1, soon(), pid, Grant::NO_FENCE);
    enter(&mut conn, &good).await.expect("a grant of this cell: all else was in order");
}
