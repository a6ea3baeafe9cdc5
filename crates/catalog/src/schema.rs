//! Sets the catalog's own database up: applies `crates/catalog/sql` in order.
//!
//! Always: one at a time (an advisory lock), each file whole or not at all, and never over a catalog that a newer program or
//! an edited file has made.

use aws_lc_rs::digest::{SHA256, digest};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

use crate::Error;

/// The files, in order. One that was released is never edited.
#[rustfmt::skip]
const MIGRATIONS: &[(i32, &str, &str)] = &[
    (1, "catalog", include_str!("../sql/0001_catalog.sql")),
    (2, "identity", include_str!("../sql/0002_identity.sql")),
    (3, "edge", include_str!("../sql/0003_edge.sql")),
    (4, "usage", include_str!("../sql/0004_usage.sql")),
    (5, "admission", include_str!("../sql/0005_admission.sql")),
    (6, "domains", include_str!("../sql/0006_domains.sql")),
    (7, "replicas", include_str!("../sql/0007_replicas.sql")),
    (8, "certificate", include_str!("../sql/0008_certificate.sql")),
    (9, "host_schedule", include_str!("../sql/0009_host_schedule.sql")),
    (10, "certificate_end", include_str!("../sql/0010_certificate_end.sql")),
];

/// Any constant; the lock is per database.
const LOCK: i64 = 0x696e_7375_6c61;

/// What [`migrate`] found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// The catalog's version now.
    pub version: i32,
    /// The versions applied by this call.
    pub applied: Vec<i32>,
}

/// Brings the catalog up to this program's version; with `reader_password`, also sets the password of the role `insula_reader`
/// (as a SCRAM verifier: the password itself does not travel). The pool's role must own the database or be superuser.
///
/// # Errors
/// When the catalog was made by a newer program or an edited file, or Postgres refuses.
pub async fn migrate(pool: &PgPool, reader_password: Option<&str>) -> Result<Migrated, Error> {
    // Detached: should this future be dropped midway, the connection closes, and its lock goes with it.
    let mut conn = pool.acquire().await?.detach();
    let migrated = migrate_on(&mut conn, reader_password).await;
    conn.close().await.ok();
    migrated
}

/// [`migrate`] on a connection of the caller's.
///
/// # Errors
/// As [`migrate`].
pub async fn migrate_on(conn: &mut PgConnection, reader_password: Option<&str>) -> Result<Migrated, Error> {
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(&mut *conn).await?;
    let result = apply_all(conn, reader_password).await;
    let unlocked = sqlx::query("SELECT pg_advisory_unlock($1)").bind(LOCK).execute(&mut *conn).await;
    let migrated = result?;
    unlocked?;
    Ok(migrated)
}

async fn apply_all(conn: &mut PgConnection, reader_password: Option<&str>) -> Result<Migrated, Error> {
    let migrated = apply(conn, MIGRATIONS).await?;
    if let Some(password) = reader_password {
        set_reader_password(conn, password).await?;
    }
    Ok(migrated)
}

async fn apply(conn: &mut PgConnection, migrations: &'static [(i32, &'static str, &'static str)]) -> Result<Migrated, Error> {
    let there: bool =
        sqlx::query_scalar("SELECT to_regclass('catalog.schema_migration') IS NOT NULL").fetch_one(&mut *conn).await?;
    let before: Vec<(i32, String, Vec<u8>)> = if there {
        sqlx::query_as("SELECT version, name, checksum FROM catalog.schema_migration ORDER BY version")
            .fetch_all(&mut *conn)
            .await?
    } else {
        Vec::new()
    };
    let known = migrations.last().map_or(0, |m| m.0);
    for (version, name, checksum) in &before {
        let Some((_, _, sql)) = migrations.iter().find(|m| m.0 == *version) else {
            return Err(Error::MigrationNewer { found: before.last().map_or(*version, |b| b.0), known });
        };
        if digest(&SHA256, sql.as_bytes()).as_ref() != checksum {
            return Err(Error::MigrationChanged { version: *version, name: name.clone() });
        }
    }
    let mut applied = Vec::new();
    for &(version, name, sql) in migrations.iter().filter(|m| !before.iter().any(|b| b.0 == m.0)) {
        let mut tries = 0;
        while let Err(source) = apply_one(conn, version, name, sql).await {
            if !passes(&source) || tries == TRIES {
                return Err(Error::Migration { version, name, source });
            }
            tries += 1;
        }
        tracing::info!(version, name, "catalog migration applied");
        applied.push(version);
    }
    Ok(Migrated { version: known, applied })
}

async fn apply_one(conn: &mut PgConnection, version: i32, name: &str, sql: &'static str) -> Result<(), sqlx::Error> {
    let mut tx = conn.begin().await?;
    sqlx::raw_sql(sql).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO catalog.schema_migration (version, name, checksum) VALUES ($1, $2, $3)")
        .bind(version)
        .bind(name)
        .bind(digest(&SHA256, sql.as_bytes()).as_ref())
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}

/// How often something is tried again that another catalog's set-up is in the way of.
const TRIES: u32 = 10;

/// Whether it was another catalog's set-up, on the same server. Roles belong to the server, so the advisory lock of one database does not keep that
/// one away, and Postgres says "tuple concurrently updated" (XX000) to who changes what it changes, and "role does not exist" (42704) to who
/// was told that moment that the role is there already: its process has not heard yet of who made it.
fn passes(error: &sqlx::Error) -> bool {
    matches!(error.as_database_error().and_then(|e| e.code()).as_deref(), Some("XX000" | "42704"))
}

async fn set_reader_password(conn: &mut PgConnection, password: &str) -> Result<(), Error> {
    let verifier = postgres_protocol::password::scram_sha_256(password.as_bytes());
    let statement = format!("ALTER ROLE {} PASSWORD '{verifier}'", insula_core::placement::READER_ROLE);
    let mut tries = 0;
    while let Err(error) = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *conn).await {
        if !passes(&error) || tries == TRIES {
            return Err(error.into());
        }
        tries += 1;
    }
    Ok(())
}
