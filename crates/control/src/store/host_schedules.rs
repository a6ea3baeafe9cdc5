//! What operators said of schedules of the host.

use sqlx::PgConnection;

use crate::error::Error;

/// The last word on one.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub(crate) struct Word {
    pub(crate) name: String,
    pub(crate) paused: bool,
    pub(crate) version: i64,
}

/// Writes down that one is paused, or goes on.
pub(crate) async fn put(conn: &mut PgConnection, name: &str, paused: bool) -> Result<Word, Error> {
    let put = sqlx::query_as(
        "INSERT INTO catalog.host_schedule AS h (name, paused, version)
         VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint)
         ON CONFLICT (name) DO UPDATE SET paused = excluded.paused, version = greatest(h.version + 1, excluded.version)
         RETURNING name, paused, version",
    );
    Ok(put.bind(name).bind(paused).fetch_one(conn).await?)
}

/// All of them: of each schedule that was ever paused, the last.
pub(crate) async fn all(conn: &mut PgConnection) -> Result<Vec<Word>, Error> {
    Ok(sqlx::query_as("SELECT name, paused, version FROM catalog.host_schedule ORDER BY name").fetch_all(conn).await?)
}
