//! A transaction bound to one tenant: the only way to run SQL.
//!
//! Always: every statement passes the gate; it ends by [`TenantTx::commit`], or it is rolled back; its connection serves again
//! only when the server's own answer to COMMIT or ROLLBACK proved that nothing is left open, and is closed otherwise: a
//! future dropped between a statement and its answer (a cancelled `begin_with` of sqlx 0.9.0 came back to its pool inside the
//! transaction), a protocol fault, a lost connection.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use insula_core::TenantContext;
use insula_telemetry::security::one_line;
use insula_telemetry::usage::{Amounts, Meter, Usage};
use insula_telemetry::{Alarm, security_event};
use sqlx::{AssertSqlSafe, PgConnection};

use crate::conn::{Conn, Timeouts};
use crate::data::check_scope;
use crate::error::{Error, is_connection_loss, is_repeatable, sqlstate};
use crate::pool::Pool;
use crate::pools::{Passes, Pools};

/// What is known of the transaction's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flags {
    /// A statement was sent, and its last answer not seen yet.
    pub(crate) in_flight: bool,
    /// A statement failed: the server will only roll back.
    pub(crate) failed: bool,
    /// It failed in a way that may go well when the transaction runs again from its beginning.
    pub(crate) repeatable: bool,
    /// The connection is lost or out of step.
    pub(crate) broken: bool,
    /// Rows that the database gave or changed so far.
    pub(crate) rows: u64,
}

impl Flags {
    /// Takes note of a statement's error.
    pub(crate) fn note(&mut self, error: &sqlx::Error) {
        if sqlstate(error).as_deref() == Some("42501") {
            security_event!(
                Alarm::PrivilegeDenied,
                what = one_line(&error.to_string()),
                "the database denied the application something"
            );
        }
        self.repeatable |= sqlstate(error).is_some_and(|code| is_repeatable(&code));
        match error {
            e if is_connection_loss(e) => self.broken = true,
            // Encoding faults are found before anything is sent; any other error leaves the transaction in doubt.
            sqlx::Error::Encode(_) | sqlx::Error::AnyDriverError(_) => {}
            _ => self.failed = true,
        }
    }
}

/// A transaction of one tenant. `&mut TenantTx` is an [`sqlx::Executor`]: `sqlx::query("…").fetch_all(&mut tx)`.
///
/// Ends by [`commit`](Self::commit); dropped, it is rolled back.
pub struct TenantTx {
    pub(crate) held: Option<Held>,
    pub(crate) flags: Flags,
    context: TenantContext,
    /// When its connection was taken.
    began: Instant,
    usage: Option<Usage>,
    /// Whether workers are to hear of it once it has committed.
    rings: bool,
}

/// What goes back when the transaction ends. Field order is drop order: the connection goes before its passes.
pub(crate) struct Held {
    pub(crate) conn: Conn,
    pub(crate) pool: Arc<Pool>,
    /// The session's timeouts once this transaction has committed.
    pub(crate) timeouts: Timeouts,
    pub(crate) pools: Arc<Pools>,
    pub(crate) passes: Passes,
}

impl Held {
    /// Back to the pool: the connection was proven clean.
    fn give_back(self) {
        self.pool.conns.put(self.conn, self.pools.config.max_lifetime);
        // Only now may the next waiter look for an idle connection.
        drop(self.passes);
    }
}

impl TenantTx {
    /// Around a connection on which the transaction was opened and bound.
    pub(crate) fn new(held: Held, context: TenantContext) -> Self {
        let usage = held.pools.config.usage.clone();
        Self { held: Some(held), flags: Flags::default(), context, began: Instant::now(), usage, rings: false }
    }

    /// Whose transaction this is.
    #[must_use]
    pub const fn context(&self) -> &TenantContext {
        &self.context
    }

    /// Whether it reads from a replica ([`Data::begin_read`](crate::Data::begin_read)), and not from the cell's own server.
    #[must_use]
    pub fn on_replica(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.pool.standby.is_some())
    }

    /// Whether its tenant has a database of its own, in which no worker stays.
    #[must_use]
    pub fn is_alone(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.pool.is_alone())
    }

    /// Once this has committed, the workers of its cell hear that there is something to do in its tenant's database. For databases
    /// of one tenant; elsewhere the database itself tells them.
    pub fn ring_when_committed(&mut self) {
        self.rings = true;
    }

    /// Refuses to work in the scope of another tenant, where a transaction that was carried there has no business.
    pub(crate) fn in_scope(&self) -> Result<(), Error> {
        check_scope(&self.context)
    }

    /// The connection, for the executor beside this file and for nobody else.
    pub(crate) fn connection(&mut self) -> Result<(&mut PgConnection, &mut Flags), sqlx::Error> {
        match &mut self.held {
            Some(held) if !self.flags.broken => Ok((&mut held.conn.pg, &mut self.flags)),
            _ => Err(sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into())),
        }
    }

    /// Makes the changes last.
    ///
    /// # Errors
    /// [`Error::Mismatch`] in the scope of another tenant: then it is rolled back;
    /// [`Error::RolledBack`] when a statement failed before (the server would answer COMMIT with a rollback);
    /// [`Error::Sql`] when the database refuses, for example for a deferred constraint or a serialization failure;
    /// [`Error::CommitUnknown`] when the connection is lost before the answer: whether it happened is not known.
    pub async fn commit(mut self) -> Result<(), Error> {
        if self.flags.broken {
            return Err(Error::RolledBack);
        }
        if let Err(mismatch) = self.in_scope() {
            self.finish_by_rollback().await;
            return Err(mismatch);
        }
        if self.flags.failed {
            self.finish_by_rollback().await;
            return Err(Error::RolledBack);
        }
        // Until the answer is here nothing is proven: a commit that is cancelled costs the connection.
        let was_in_flight = std::mem::replace(&mut self.flags.in_flight, true);
        let Some(held) = &mut self.held else { return Err(Error::RolledBack) };
        let answer = simple(&mut held.conn.pg, "COMMIT").await;
        // Also when it is not known whether it happened.
        if self.rings && held.pool.is_alone() && answer.as_ref().err().is_none_or(is_connection_loss) {
            held.pools.bells.ring(&held.pools, &held.pool.key.cell, &held.pool.key.database);
        }
        match answer {
            Ok(()) => {
                self.flags.in_flight = false;
                if let Some(mut held) = self.held.take() {
                    held.conn.timeouts = held.timeouts;
                    held.give_back();
                }
                Ok(())
            }
            Err(error) if is_connection_loss(&error) => {
                self.flags.broken = true;
                metrics::counter!("insula_data_commit_unknown_total").increment(1);
                Err(Error::CommitUnknown)
            }
            Err(error) => {
                // The server's refusal (or, with an unread answer before it, that statement's own error) ended it.
                self.flags.in_flight = was_in_flight;
                self.finish_by_rollback().await;
                Err(Error::Sql(error))
            }
        }
    }

    /// Undoes everything, and waits until that is done.
    pub async fn rollback(mut self) {
        self.finish_by_rollback().await;
    }

    async fn finish_by_rollback(&mut self) {
        let clean = !self.flags.in_flight && !self.flags.broken;
        // While the rollback waits for its answer the connection is in flight again, should this future be dropped.
        self.flags.in_flight = true;
        let Some(held) = &mut self.held else { return };
        let limit = held.pools.config.rollback_timeout;
        if clean && rolled_back(&mut held.conn, limit).await {
            self.flags.in_flight = false;
            if let Some(held) = self.held.take() {
                held.give_back();
            }
        } else {
            discard(self.held.take());
        }
    }
}

impl Drop for TenantTx {
    fn drop(&mut self) {
        if let Some(usage) = &self.usage {
            bill(usage, &self.context, self.began, self.flags.rows);
        }
        let Some(mut held) = self.held.take() else { return };
        if self.flags.in_flight || self.flags.broken {
            discard(Some(held));
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            discard(Some(held));
            return;
        };
        // The passes travel with it: the place is taken until the connection is clean.
        runtime.spawn(async move {
            let limit = held.pools.config.rollback_timeout;
            if rolled_back(&mut held.conn, limit).await {
                held.give_back();
            } else {
                discard(Some(held));
            }
        });
    }
}

/// Counts for a tenant's bill that a connection was its own since `began`, and the rows that it had.
pub(crate) fn bill(usage: &Usage, context: &TenantContext, began: Instant, rows: u64) {
    let mut used = Amounts::default();
    used.0[Meter::Database as usize] = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
    used.0[Meter::Rows as usize] = rows;
    usage.add_all(context.no, &used);
}

/// Closes the socket; the server rolls back by itself.
fn discard(held: Option<Held>) {
    if held.is_some() {
        metrics::counter!("insula_data_connections_discarded_total").increment(1);
    }
    drop(held);
}

async fn rolled_back(conn: &mut Conn, limit: Duration) -> bool {
    matches!(tokio::time::timeout(limit, simple(&mut conn.pg, "ROLLBACK")).await, Ok(Ok(())))
}

/// Runs text by the simple protocol, as only this crate may: opening and ending transactions.
pub(crate) async fn simple(pg: &mut PgConnection, sql: impl Into<String>) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.into())).execute(pg).await.map(|_| ())
}

impl fmt::Debug for TenantTx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantTx").field("tenant", &self.context.tenant).field("flags", &self.flags).finish_non_exhaustive()
    }
}
