//! New private servers on this machine: asked for in the catalog, started and stopped by the supervisor (`insula up`).

use insula_core::CellName;
use sqlx::PgConnection;

use crate::error::Error;
use crate::provision::Input;
use crate::store::plans::parse;

/// Asks the supervisor for a cell. Its name says nothing about the tenant: it stands in connection strings and logs.
pub(crate) async fn request(conn: &mut PgConnection, input: &Input) -> Result<CellName, Error> {
    let tail = input.tenant.uuid().as_u128() & 0xffff_ffff;
    let name: CellName = parse("cell name", format!("cell-{tail:08x}").parse())?;
    sqlx::query(
        "INSERT INTO catalog.cell (name, region, labels, provider, state, dedicated, capacity)
         VALUES ($1, coalesce($2, 'local'), $3, 'embedded', 'requested', true, 1) ON CONFLICT (name) DO NOTHING",
    )
    .bind(name.as_str())
    .bind(&input.region)
    .bind(&input.labels)
    .execute(conn)
    .await?;
    Ok(name)
}

/// Asks the supervisor to take it away.
pub(crate) async fn remove(conn: &mut PgConnection, cell: &CellName) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.cell SET state = 'removing', version = version + 1, updated_at = now()
         WHERE name = $1 AND dedicated AND state <> 'removing'",
    )
    .bind(cell.as_str())
    .execute(conn)
    .await?;
    Ok(())
}
