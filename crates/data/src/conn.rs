//! One connection to one database as one login role, and what is known of its state.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_core::{Limits, TenantNo};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, Row};

use crate::pool::Kept;
use crate::slots::Slot;
use crate::wallet::Wallet;

/// Where and as whom to connect. Has a password inside: no `Debug`.
pub(crate) struct Login {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: PgSslMode,
    pub(crate) authorities: Option<PathBuf>,
    pub(crate) database: Arc<str>,
    pub(crate) role: String,
    pub(crate) password: String,
    pub(crate) schema: Arc<str>,
}

impl Login {
    /// Whether the cell lets a connection be without TLS: it says so, or it leaves it open and is on this machine.
    pub(crate) fn may_be_plain(&self) -> bool {
        let local = self.host.starts_with('/')
            || self.host == "localhost"
            || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        matches!(self.tls, PgSslMode::Disable) || matches!(self.tls, PgSslMode::Prefer) && local
    }
}

/// The session's timeouts, milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) statement: u32,
    pub(crate) idle_in_transaction: u32,
}

impl From<&Limits> for Timeouts {
    fn from(limits: &Limits) -> Self {
        // 0 would mean "none" to Postgres, and every limit has a value.
        let (statement, idle) = (limits.statement_timeout_ms.max(1), limits.idle_in_transaction_timeout_ms.max(1));
        Self { statement, idle_in_transaction: idle }
    }
}

/// An open connection. Closes when dropped.
pub(crate) struct Conn {
    pub(crate) pg: PgConnection,
    /// The backend, which a grant is bound to.
    pub(crate) pid: i32,
    pub(crate) wallet: Wallet,
    pub(crate) born: Instant,
    /// The session's timeouts as last committed: what the next transaction starts with.
    pub(crate) timeouts: Timeouts,
    /// Counts it among the process's connections for as long as it lives.
    _slot: Slot,
}

impl Kept for Conn {
    fn born(&self) -> Instant {
        self.born
    }

    fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    fn knows(&self, no: TenantNo) -> bool {
        self.wallet.knows(no)
    }
}

impl Conn {
    /// Connects; the timeouts are part of the start-up, so they cost nothing more.
    pub(crate) async fn open(
        login: &Login,
        timeouts: Timeouts,
        cache: usize,
        name: &str,
        slot: Slot,
    ) -> Result<Self, sqlx::Error> {
        let mut pg = options(login, timeouts, cache, name).connect().await?;
        let row = sqlx::query("SELECT pg_catalog.pg_backend_pid()").persistent(false).fetch_one(&mut pg).await?;
        Ok(Self { pid: row.try_get(0)?, pg, wallet: Wallet::default(), born: Instant::now(), timeouts, _slot: slot })
    }

    /// Says goodbye, but does not wait long for it.
    pub(crate) async fn close(self) {
        let Self { pg, _slot: slot, .. } = self;
        let farewell = tokio::time::timeout(Duration::from_millis(500), pg.close()).await;
        if !matches!(farewell, Ok(Ok(()))) {
            tracing::debug!("a connection was closed without a farewell");
        }
        drop(slot);
    }
}

/// What every session of a tenant's login starts with.
pub(crate) fn settings(login: &Login, timeouts: Timeouts) -> [(&'static str, String); 4] {
    [
        ("statement_timeout", timeouts.statement.to_string()),
        ("idle_in_transaction_session_timeout", timeouts.idle_in_transaction.to_string()),
        // pg_temp named and last: nothing temporary is ever found before a table.
        ("search_path", format!("{},pg_temp", login.schema)),
        // A statement whose client has gone is given up within this time, with its locks.
        ("client_connection_check_interval", "2000".to_owned()),
    ]
}

pub(crate) fn options(login: &Login, timeouts: Timeouts, cache: usize, name: &str) -> PgConnectOptions {
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&login.host)
        .port(login.port)
        .ssl_mode(login.tls)
        .username(&login.role)
        .password(&login.password)
        .database(&login.database)
        .application_name(name)
        .statement_cache_capacity(cache)
        .options(settings(login, timeouts));
    if let Some(authorities) = &login.authorities {
        options = options.ssl_root_cert(authorities);
    }
    if login.host.starts_with('/') {
        options = options.socket(&login.host);
    }
    // sqlx would log slow statements with their text, and the opening statement carries a grant.
    options.disable_statement_logging()
}
