//! Takes back all that a tenant has in a cell: for the undo of a provision, and for leftovers that the reconciler finds.
//!
//! Always: idempotent, whatever is there of it.

use insula_core::placement::SCHEMAS_DATABASE;
use insula_core::{Isolation, TenantId, TenantNo};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::Memo;
use crate::cell_prepare::drop_database;
use crate::cells::{MAINTENANCE, in_cell, kit_in, own_name};
use crate::error::Error;
use crate::handle::Control;
use crate::model::Cell;
use crate::store;

pub(super) async fn remove(control: &Control, cell: &Cell, memo: &Memo, tenant: TenantId) -> Result<(), Error> {
    let home = memo.home()?;
    tracing::info!(%tenant, cell = %cell.name, isolation = %memo.isolation, "taking back what a tenant has in its cell");
    match memo.isolation {
        Isolation::Row => remove_rows(control, cell, &home.database, memo.no).await,
        Isolation::Schema => {
            let role = memo.role()?.unwrap_or_default();
            remove_schema(control, cell, &home.database, &home.schema, &role, Some(memo.no)).await
        }
        // A server that never came up has nothing on it.
        Isolation::Cell if cell.host.is_none() => Ok(()),
        Isolation::Database | Isolation::Cell => {
            let role = memo.role()?.unwrap_or_default();
            let names: Vec<&str> = std::iter::once(home.database.as_str()).chain(home.warm.as_deref()).collect();
            remove_databases(control, cell, &names, &role).await?;
            if memo.isolation == Isolation::Cell {
                control.cells().forget(&cell.name).await;
            }
            Ok(())
        }
    }
}

/// A tenant's rows in a shared database, and its registration. One that has a schema of its own there has no rows in others'.
pub(crate) async fn remove_rows(control: &Control, cell: &Cell, database: &str, no: TenantNo) -> Result<(), Error> {
    let mut conn = control.cells().pool(cell, database)?.acquire().await.map_err(in_cell(cell))?;
    // First: what is written after its rows have gone would stay.
    if !insula_kit::close_tenant(&mut conn, no).await.map_err(kit_in(cell))? {
        return Ok(());
    }
    if database != SCHEMAS_DATABASE {
        let mut tx = conn.begin().await.map_err(in_cell(cell))?;
        insula_kit::bind(&mut tx, no).await.map_err(kit_in(cell))?;
        delete_rows(&mut tx, cell).await?;
        tx.commit().await.map_err(in_cell(cell))?;
    }
    insula_kit::remove_tenant(&mut conn, no).await.map_err(kit_in(cell))?;
    let fence = insula_kit::fence(&mut conn).await.map_err(kit_in(cell))?;
    store::cells::raise_fence(&mut *control.catalog_pool().acquire().await?, &cell.name, database, fence).await
}

/// The bound tenant's rows in every table of the application. Foreign keys between them decide an order that we do not know: what is
/// referred to is tried again when what refers to it has gone.
async fn delete_rows(conn: &mut PgConnection, cell: &Cell) -> Result<(), Error> {
    let mut tables: Vec<String> = sqlx::query_scalar(
        "SELECT p.polrelid::regclass::text FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
         WHERE p.polname = 'tenant' AND NOT c.relispartition AND c.relnamespace <> 'insula'::regnamespace ORDER BY p.polrelid DESC",
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(in_cell(cell))?;
    while !tables.is_empty() {
        let mut kept = Vec::new();
        for table in &tables {
            sqlx::raw_sql("SAVEPOINT one_table").execute(&mut *conn).await.map_err(in_cell(cell))?;
            // Names come from Postgres, quoted by regclass.
            let delete = format!("DELETE FROM {table} WHERE tenant_id = insula.current_tenant()");
            match sqlx::raw_sql(AssertSqlSafe(delete)).execute(&mut *conn).await {
                Ok(_) => {}
                Err(error) if error.as_database_error().is_some_and(|e| e.code().as_deref() == Some("23503")) => {
                    sqlx::raw_sql("ROLLBACK TO one_table").execute(&mut *conn).await.map_err(in_cell(cell))?;
                    kept.push(table.clone());
                }
                Err(error) => return Err(in_cell(cell)(error)),
            }
        }
        if kept.len() == tables.len() {
            return Err(Error::Corrupt(format!(
                "cell {}: rows of {} cannot be deleted: they refer to each other",
                cell.name,
                kept.join(", ")
            )));
        }
        tables = kept;
    }
    Ok(())
}

/// A schema, its login, and what the database knows of the tenant when its number is known.
pub(crate) async fn remove_schema(
    control: &Control,
    cell: &Cell,
    database: &str,
    schema: &str,
    role: &str,
    no: Option<TenantNo>,
) -> Result<(), Error> {
    let mut conn = control.cells().pool(cell, database)?.acquire().await.map_err(in_cell(cell))?;
    // First, and with its sessions: one that has a transaction open would hold up whatever comes after.
    insula_kit::drop_login(&mut conn, role).await.map_err(kit_in(cell))?;
    if let Some(no) = no {
        insula_kit::remove_tenant(&mut conn, no).await.map_err(kit_in(cell))?;
    }
    let mut tx = conn.begin().await.map_err(in_cell(cell))?;
    let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", own_name(schema)?);
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.map_err(in_cell(cell))?;
    for sql in ["DELETE FROM insula.migration WHERE schema = $1", "DELETE FROM insula.login WHERE schema = $1"] {
        sqlx::query(sql).bind(schema).execute(&mut *tx).await.map_err(in_cell(cell))?;
    }
    sqlx::query("DELETE FROM insula.shared s WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = s.relation)")
        .execute(&mut *tx)
        .await
        .map_err(in_cell(cell))?;
    tx.commit().await.map_err(in_cell(cell))?;
    let fence = insula_kit::fence(&mut conn).await.map_err(kit_in(cell))?;
    store::cells::raise_fence(&mut *control.catalog_pool().acquire().await?, &cell.name, database, fence).await
}

/// Databases of one tenant, and its login.
pub(crate) async fn remove_databases(control: &Control, cell: &Cell, databases: &[&str], role: &str) -> Result<(), Error> {
    let pool = control.cells().pool(cell, MAINTENANCE)?;
    let mut admin = pool.acquire().await.map_err(in_cell(cell))?;
    for database in databases {
        drop_database(&mut admin, cell, database).await?;
    }
    insula_kit::drop_login(&mut admin, role).await.map_err(kit_in(cell))
}
