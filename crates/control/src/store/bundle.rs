//! The application's bundle: migrations and seed.

use std::sync::Arc;
use std::time::Duration;

use insula_core::CellName;
use sqlx::{PgConnection, Row as _};

use crate::error::Error;
use crate::migrations::of_kit;
use crate::model::{Bundle, Migration};

/// The bundle that is in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    /// In order of version.
    pub(crate) migrations: Arc<[Migration]>,
    /// Empty when there is none.
    pub(crate) seed: Arc<str>,
}

impl Stored {
    pub(crate) fn version(&self) -> i64 {
        self.migrations.last().map_or(0, |m| m.version)
    }
}

pub(crate) async fn read(conn: &mut PgConnection) -> Result<Stored, Error> {
    let rows =
        sqlx::query("SELECT version, name, sql, checksum FROM catalog.migration ORDER BY version").fetch_all(&mut *conn).await?;
    let mut migrations = Vec::with_capacity(rows.len());
    for row in &rows {
        let migration = Migration { version: row.try_get("version")?, name: row.try_get("name")?, sql: row.try_get("sql")? };
        if of_kit(&migration).checksum() != row.try_get::<Vec<u8>, _>("checksum")? {
            return Err(Error::Corrupt(format!("migration {} in the catalog does not have its checksum", migration.version)));
        }
        migrations.push(migration);
    }
    let seed: Option<String> = sqlx::query_scalar("SELECT sql FROM catalog.seed").fetch_optional(conn).await?;
    Ok(Stored { migrations: migrations.into(), seed: seed.unwrap_or_default().into() })
}

/// Keeps a bundle; refuses one that changes or drops a migration that is kept already. True when anything is new.
pub(crate) async fn write(conn: &mut PgConnection, bundle: &Bundle) -> Result<bool, Error> {
    sqlx::query("LOCK TABLE catalog.migration IN SHARE ROW EXCLUSIVE MODE").execute(&mut *conn).await?;
    let kept = read(conn).await?;
    for (i, old) in kept.migrations.iter().enumerate() {
        match bundle.migrations.get(i) {
            Some(new) if new.version == old.version && new.sql == old.sql => {}
            Some(new) if new.version == old.version => {
                let detail =
                    format!("migration {} differs from the one that is applied already: add a new one instead", old.version);
                return Err(Error::Conflict(detail));
            }
            _ => {
                let detail = format!("migration {} ({}) is applied already and may not be left out", old.version, old.name);
                return Err(Error::Conflict(detail));
            }
        }
    }
    let mut news = *kept.seed != *bundle.seed;
    for migration in bundle.migrations.iter().skip(kept.migrations.len()) {
        sqlx::query("INSERT INTO catalog.migration (version, name, sql, checksum) VALUES ($1, $2, $3, $4)")
            .bind(migration.version)
            .bind(&migration.name)
            .bind(&migration.sql)
            .bind(of_kit(migration).checksum())
            .execute(&mut *conn)
            .await?;
        news = true;
    }
    sqlx::query(
        "INSERT INTO catalog.seed AS s (sql) VALUES ($1)
         ON CONFLICT (one) DO UPDATE SET sql = excluded.sql, updated_at = now() WHERE s.sql <> excluded.sql",
    )
    .bind(&bundle.seed)
    .execute(conn)
    .await?;
    Ok(news)
}

/// Notes in the catalog what a schema has now. Writes nothing that is noted already.
pub(crate) async fn note_applied(
    conn: &mut PgConnection,
    cell: &CellName,
    database: &str,
    schema: &str,
    version: i64,
    took: Duration,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO catalog.migration_run (cell, database, schema, version, duration_ms)
         SELECT $1, $2, $3, version, $5 FROM catalog.migration WHERE version <= $4 ON CONFLICT DO NOTHING",
    )
    .bind(cell.as_str())
    .bind(database)
    .bind(schema)
    .bind(version)
    .bind(i32::try_from(took.as_millis()).unwrap_or(i32::MAX))
    .execute(&mut *conn)
    .await?;
    sqlx::query(
        "UPDATE catalog.cell_database SET schema_version = $3
         WHERE cell = $1 AND name = $2 AND purpose <> 'schemas' AND schema_version <> $3",
    )
    .bind(cell.as_str())
    .bind(database)
    .bind(version)
    .execute(&mut *conn)
    .await?;
    Ok(())
}
