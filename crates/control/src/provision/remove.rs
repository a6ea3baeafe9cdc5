//! Takes back all that a tenant has in a cell: for the undo of a provision, and for leftovers that the reconciler finds.
//!
//! Always: idempotent, whatever is there of it.

use insula_core::{Isolation, TenantId, TenantNo};
use sqlx::{AssertSqlSafe, PgConnection};

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

/// A row tenant's rows and registration.
pub(crate) async fn remove_rows(control: &Control, cell: &Cell, database: &str, no: TenantNo) -> Result<(), Error> {
    let mut tx = control.cells().begin(cell, database).await?;
    let conn = tx.conn();
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM insula.tenant WHERE no = $1)")
        .bind(no.get())
        .fetch_one(&mut *conn)
        .await
        .map_err(in_cell(cell))?;
    if !there {
        return Ok(());
    }
    insula_kit::bind(conn, no).await.map_err(kit_in(cell))?;
    delete_rows(conn, cell).await?;
    sqlx::raw_sql("RESET ROLE").execute(&mut *conn).await.map_err(in_cell(cell))?;
    tx.commit().await?;
    let mut tx = control.cells().begin(cell, database).await?;
    insula_kit::remove_tenant(tx.conn(), no).await.map_err(kit_in(cell))?;
    let fence = insula_kit::fence(tx.conn()).await.map_err(kit_in(cell))?;
    tx.commit().await?;
    store::cells::raise_fence(&mut *control.catalog_pool().acquire().await?, &cell.name, database, fence).await
}

/// The bound tenant's rows in every tenant table. Foreign keys between them decide an order that we do not know: what is
/// referred to is tried again when what refers to it has gone.
async fn delete_rows(conn: &mut PgConnection, cell: &Cell) -> Result<(), Error> {
    let mut tables: Vec<String> = sqlx::query_scalar(
        "SELECT p.polrelid::regclass::text FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
         WHERE p.polname = 'tenant' AND NOT c.relispartition ORDER BY p.polrelid DESC",
    )
    .fetch_all(&mut *conn)
    .await
    .map_err(in_cell(cell))?;
    while !tables.is_empty() {
        let mut kept = Vec::new();
        for table in &tables {
            sqlx::raw_sql("SAVEPOINT one_table").execute(&mut *conn).await.map_err(in_cell(cell))?;
            // Names come from Postgres, quoted by regclass.
            let mut delete = format!("DELETE FROM {table} WHERE tenant_id = insula.current_tenant()");
            if table == "insula.job" {
                // All there are, but said so that an index serves: each state has one that begins with the tenant, and all together have none.
                delete += " AND (state = 'w' OR state = 'l' OR state = 'r')";
            }
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

/// A schema, its login, and the registration when its number is known.
pub(crate) async fn remove_schema(
    control: &Control,
    cell: &Cell,
    database: &str,
    schema: &str,
    role: &str,
    no: Option<TenantNo>,
) -> Result<(), Error> {
    let mut tx = control.cells().begin(cell, database).await?;
    let conn = tx.conn();
    let sql = format!("DROP SCHEMA IF EXISTS {} CASCADE", own_name(schema)?);
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *conn).await.map_err(in_cell(cell))?;
    sqlx::query("DELETE FROM insula.migration WHERE schema = $1")
        .bind(schema)
        .execute(&mut *conn)
        .await
        .map_err(in_cell(cell))?;
    insula_kit::drop_login(conn, role).await.map_err(kit_in(cell))?;
    if let Some(no) = no {
        insula_kit::remove_tenant(conn, no).await.map_err(kit_in(cell))?;
    }
    let fence = insula_kit::fence(conn).await.map_err(kit_in(cell))?;
    tx.commit().await?;
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
