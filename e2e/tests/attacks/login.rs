//! Where the application's role can log in, and what it can ask for when it does.

use std::str::FromStr;

use insula_kit::Way;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::stage::{Mode, SECRET, Stage, VICTIM, everything_said};

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
        for (role, database) in [(&pool.role, &own.database), (&own.role, &pool.database)] {
            let refused = PgConnection::connect(&own.server.role_url(role, database)).await;
            assert!(refused.is_err(), "{way:?}: {role} logged in to {database}");
        }
    }
}
