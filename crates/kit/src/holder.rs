//! Who stands in the way of a migration: transactions that are open and have used the tables of a schema.
//!
//! Always: asked after a lock was waited for in vain; whoever has ended since is not named.

use std::fmt;

use sqlx::{FromRow, PgConnection};

use crate::error::Error;

/// Those that are named; more help nobody.
const MOST: i64 = 3;

/// A transaction that is open.
#[derive(Clone, Debug, FromRow)]
pub struct Holder {
    /// The server process that it is in.
    pub pid: i32,
    /// Its login, or what kind of process it is.
    pub login: String,
    /// The tenant that it is bound to, when it is one's.
    pub tenant: Option<i64>,
    /// What it does just now.
    pub state: Option<String>,
    /// How long it has been open, seconds.
    pub seconds: Option<i64>,
    /// The tables that it has used.
    pub tables: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(no) = self.tenant {
            write!(f, "tenant {no}, ")?;
        }
        write!(f, "login {}, process {}", self.login, self.pid)?;
        if let Some(state) = &self.state {
            write!(f, ", {state}")?;
        }
        if let Some(seconds) = self.seconds {
            write!(f, ", open for {seconds} s")?;
        }
        write!(f, ", has used {}", self.tables)
    }
}

/// The longest of those that have used tables of `schema` and were open a second ago. A shared login's tenant is known by its lock, a dedicated one's
/// by its name.
pub(crate) async fn holders(conn: &mut PgConnection, schema: &str) -> Result<Vec<Holder>, Error> {
    let sql = "
        SELECT a.pid, coalesce(a.usename, a.backend_type, 'unknown')::text AS login,
               coalesce((SELECT x.classid::bigint << 32 | x.objid::bigint FROM pg_catalog.pg_locks x
                          WHERE x.pid = a.pid AND x.locktype = 'advisory' AND x.objsubid = 1 AND x.mode = 'ShareLock' AND x.granted
                            AND x.database = d.oid LIMIT 1),
                        (SELECT t.no FROM insula.tenant t WHERE t.role = a.usename)) AS tenant,
               a.state, extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::bigint AS seconds,
               string_agg(DISTINCT c.relname, ', ' ORDER BY c.relname) AS tables
          FROM pg_catalog.pg_database d
          JOIN pg_catalog.pg_locks l ON l.database = d.oid AND l.locktype = 'relation' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
          JOIN pg_catalog.pg_class c ON c.oid = l.relation AND c.relkind IN ('r', 'p', 'v', 'm') AND c.relnamespace = $1::text::pg_catalog.regnamespace
          JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
         WHERE d.datname = pg_catalog.current_database()
           AND (a.xact_start IS NULL OR a.xact_start < pg_catalog.clock_timestamp() - interval '1 second')
         GROUP BY a.pid, a.usename, a.backend_type, a.state, a.xact_start, d.oid
         ORDER BY a.xact_start LIMIT $2";
    Ok(sqlx::query_as(sql).bind(schema).bind(MOST).fetch_all(conn).await?)
}
