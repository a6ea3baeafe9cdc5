//! A connection to one outbox, as the role that may call its functions and nothing else.

use chrono::{DateTime, Utc};
use insula_catalog::Tls;
use insula_core::placement::WORKER_ROLE;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, PgTransaction, Row};
use uuid::Uuid;

use super::{Place, Shared};
use crate::error::Error;

/// An event as `insula.outbox_take()` gives it.
pub(crate) struct Taken {
    pub(crate) tenant: i64,
    pub(crate) epoch: i64,
    pub(crate) id: Uuid,
    pub(crate) seq: i64,
    pub(crate) topic: String,
    pub(crate) at: DateTime<Utc>,
    pub(crate) principal: Option<String>,
    pub(crate) trace: Option<String>,
    pub(crate) body: String,
}

/// How to connect to an outbox, as the catalog says now.
fn options(shared: &Shared, (cell_name, database): &Place) -> Result<PgConnectOptions, Error> {
    let unreachable = |reason: String| Error::Unreachable { cell: cell_name.to_string(), database: database.to_string(), reason };
    let cell = shared.catalog.cell(cell_name).ok_or_else(|| unreachable("the cell is not in the catalog".to_owned()))?;
    let (Some(host), Some(port)) = (&cell.host, cell.port) else {
        return Err(unreachable("the cell has no address yet".to_owned()));
    };
    let keys = (shared.keys)();
    let key = keys.cell(cell_name).map_err(|error| unreachable(error.to_string()))?;
    // A relay that hangs lets go of the outbox when its transaction has been idle for too long.
    let settings = [
        ("statement_timeout", "30000"),
        ("lock_timeout", "20000"),
        ("idle_in_transaction_session_timeout", "30000"),
        ("client_connection_check_interval", "2000"),
    ];
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(port)
        .ssl_mode(match cell.tls {
            Tls::Disable => PgSslMode::Disable,
            Tls::Prefer => PgSslMode::Prefer,
            Tls::Require => PgSslMode::Require,
            Tls::VerifyFull => PgSslMode::VerifyFull,
        })
        .username(WORKER_ROLE)
        .password(&key.role_password(WORKER_ROLE))
        .database(database)
        .application_name("insula-relay")
        .options(settings);
    if let Some(authorities) = &shared.config.authorities {
        options = options.ssl_root_cert(authorities);
    }
    if host.starts_with('/') {
        options = options.socket(&**host);
    }
    Ok(options.disable_statement_logging())
}

/// An open connection.
pub(crate) struct Link(PgConnection);

impl Link {
    pub(crate) async fn open(shared: &Shared, place: &Place) -> Result<Self, Error> {
        let opening = options(shared, place)?;
        let opened = tokio::time::timeout(std::time::Duration::from_secs(5), opening.connect()).await;
        let opened = opened.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))?;
        Ok(Self(opened?))
    }

    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(500), self.0.close()).await;
    }

    pub(crate) async fn waits(&mut self) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.outbox_waits()").fetch_one(&mut self.0).await
    }

    pub(crate) async fn begin(&mut self) -> Result<Batch<'_>, sqlx::Error> {
        self.0.begin().await.map(Batch)
    }

    /// How many wait, for how many milliseconds the oldest, and how many were refused.
    pub(crate) async fn state(&mut self) -> Result<(i64, i64, i64), sqlx::Error> {
        sqlx::query_as("SELECT waiting, oldest_ms, refused FROM insula.outbox_state()").fetch_one(&mut self.0).await
    }
}

/// Events that were taken, and are nobody else's until it ends.
pub(crate) struct Batch<'a>(PgTransaction<'a>);

impl Batch<'_> {
    pub(crate) async fn take(&mut self, most: i32, bytes: i64, skip: &[i64]) -> Result<Vec<Taken>, sqlx::Error> {
        let sql = "SELECT tenant_id, epoch, id, seq, topic, at, principal, trace, body FROM insula.outbox_take($1, $2, $3)";
        let rows = sqlx::query(sql).bind(most).bind(bytes).bind(skip).fetch_all(&mut *self.0).await?;
        let read = |row: &sqlx::postgres::PgRow| {
            Ok(Taken {
                tenant: row.try_get(0)?,
                epoch: row.try_get(1)?,
                id: row.try_get(2)?,
                seq: row.try_get(3)?,
                topic: row.try_get(4)?,
                at: row.try_get(5)?,
                principal: row.try_get(6)?,
                trace: row.try_get(7)?,
                body: row.try_get(8)?,
            })
        };
        rows.iter().map(read).collect()
    }

    pub(crate) async fn refused(&mut self, seq: i64, reason: &str) -> Result<(), sqlx::Error> {
        // A NUL would have the whole batch refused, again and again.
        let reason = reason.replace('\0', " ");
        sqlx::query("SELECT insula.outbox_refused($1, $2)").bind(seq).bind(reason).execute(&mut *self.0).await.map(|_| ())
    }

    /// The bus has these. Ends the batch.
    pub(crate) async fn sent(mut self, seqs: &[i64]) -> Result<(), sqlx::Error> {
        if !seqs.is_empty() {
            sqlx::query("SELECT insula.outbox_sent($1)").bind(seqs).execute(&mut *self.0).await?;
        }
        self.0.commit().await
    }
}
