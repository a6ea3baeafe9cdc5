//! Servers that somebody else runs, from the list of those that are free.

use insula_core::CellName;
use sqlx::PgConnection;

use crate::error::Error;
use crate::provision::Input;
use crate::store::plans::parse;

/// Takes a free one that meets the demand, if there is any.
pub(crate) async fn take(conn: &mut PgConnection, input: &Input) -> Result<Option<CellName>, Error> {
    let name: Option<String> = sqlx::query_scalar(
        "UPDATE catalog.cell c SET state = 'requested', dedicated = true, version = version + 1, updated_at = now()
         FROM (SELECT name FROM catalog.cell
               WHERE provider = 'registered' AND state = 'free' AND ($1::text IS NULL OR name = $1)
                 AND ($2::text IS NULL OR region = $2) AND labels @> $3
               ORDER BY cardinality(labels), name LIMIT 1 FOR UPDATE SKIP LOCKED) free
         WHERE c.name = free.name RETURNING c.name",
    )
    .bind(input.cell.as_ref().map(AsRef::as_ref))
    .bind(&input.region)
    .bind(&input.labels)
    .fetch_optional(conn)
    .await?;
    name.map(|n| parse("cell name", n.parse())).transpose()
}

/// Back to the list.
pub(crate) async fn free(conn: &mut PgConnection, cell: &CellName) -> Result<(), Error> {
    sqlx::query(
        "UPDATE catalog.cell SET state = 'free', dedicated = false, kit_way = NULL, version = version + 1, updated_at = now()
         WHERE name = $1 AND dedicated",
    )
    .bind(cell.as_str())
    .execute(conn)
    .await?;
    Ok(())
}
