//! The door: from a tenant's context to its transaction.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use insula_catalog::{Catalog, Route};
use insula_core::{Clock, KeyRing, SystemClock, TenantContext, TenantState, scope};
use insula_telemetry::{Alarm, security_event};
use tokio::time::Instant;

use crate::config::DataConfig;
use crate::conn::{Conn, Timeouts};
use crate::error::{Error, is_repeatable};
use crate::gauges;
use crate::lane::Lane;
use crate::pool::Pool;
use crate::pools::{Passes, Pools};
use crate::retry::{RetryBudget, pause};
use crate::tx::{Held, TenantTx, simple};

/// Access to tenants' rows. Cheap to clone; the last clone that goes ends the house-keeping.
#[derive(Clone)]
pub struct Data {
    inner: Arc<Inner>,
}

struct Inner {
    pools: Arc<Pools>,
    clock: Arc<dyn Clock>,
    budget: RetryBudget,
    keeper: tokio::task::AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Data").field("connections", &self.inner.pools.open()).finish_non_exhaustive()
    }
}

/// What a transaction may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whatever the tenant's rows allow.
    Write,
    /// Read.
    Read,
}

/// What a failed attempt to open means for the next.
enum Next {
    /// The route may be old: fetch it, then try once more.
    Refresh,
    /// A passing fault: wait a little, then try again.
    Again,
    /// No use.
    Stop,
}

impl Data {
    /// Opens the door. Connects to nothing yet; must be called inside a Tokio runtime.
    #[must_use]
    pub fn open(config: DataConfig, catalog: Catalog, keys: KeyRing) -> Self {
        Self::open_with_clock(config, catalog, keys, Arc::new(SystemClock))
    }

    /// [`Data::open`] with the time as the caller wants it.
    #[must_use]
    pub fn open_with_clock(config: DataConfig, catalog: Catalog, keys: KeyRing, clock: Arc<dyn Clock>) -> Self {
        let round = (config.idle_timeout.min(config.dedicated_idle_timeout) / 4)
            .clamp(Duration::from_millis(20), Duration::from_secs(15));
        let pools = Arc::new(Pools::new(config, catalog, keys));
        let swept = Arc::downgrade(&pools);
        let keeper = tokio::spawn(async move {
            let mut rounds = tokio::time::interval(round);
            loop {
                rounds.tick().await;
                let Some(pools) = swept.upgrade() else { return };
                pools.sweep().await;
                gauges::record(&pools);
            }
        });
        let keeper = keeper.abort_handle();
        Self { inner: Arc::new(Inner { pools, clock, budget: RetryBudget::new(), keeper }) }
    }

    /// Other keys from now on: this process was given another cell, or one less.
    pub fn replace_keys(&self, keys: KeyRing) {
        self.inner.pools.replace_keys(keys);
    }

    /// Opens a transaction for the tenant in scope.
    ///
    /// # Errors
    /// [`Error::NoTenant`] outside any scope; else as [`Data::begin`].
    pub async fn begin_current(&self) -> Result<TenantTx, Error> {
        let context = scope::current()?;
        self.begin(&context).await
    }

    /// Opens a transaction for a tenant: one round trip on a connection that is there already.
    ///
    /// # Errors
    /// [`Error::Mismatch`] (a security event) inside the scope of another tenant; [`Error::UnknownTenant`],
    /// [`Error::Suspended`], [`Error::Moved`] as the catalog and the database say; [`Error::TenantBusy`] and [`Error::Busy`]
    /// when no connection is free in the plan's time; [`Error::Unavailable`] when the cell is away.
    pub async fn begin(&self, context: &TenantContext) -> Result<TenantTx, Error> {
        take_turns().await;
        check_scope(context)?;
        let mut tries = Tries::default();
        loop {
            let route = self.route(context)?;
            match self.attempt(context, &route, Access::Write, tries.deadline(&route)).await {
                Ok(tx) => {
                    self.inner.budget.succeeded();
                    return Ok(tx);
                }
                Err(error) => tries.again_after(self, error, context, &route).await?,
            }
        }
    }

    /// The fast lane: whole transactions in one round trip, for the house's own parts.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane::new(self.clone())
    }

    /// Runs `work` in a transaction and commits. The whole is run again, a few times, when the database asks for that
    /// (serialization failure, deadlock) or the connection is lost before COMMIT was sent; so `work` must do nothing outside
    /// the transaction that may not be done twice. After COMMIT was sent nothing is repeated: [`Error::CommitUnknown`].
    ///
    /// `work` hands out a boxed future, `|tx| Box::pin(async move { … })`, so that what calls this can be spawned: the futures
    /// of an `AsyncFnMut` cannot be said to be `Send`.
    ///
    /// # Errors
    /// What `work` returns; as [`Data::begin`] and [`TenantTx::commit`].
    pub async fn transact<T, E, F>(&self, context: &TenantContext, mut work: F) -> Result<T, E>
    where
        E: From<Error>,
        F: for<'t> FnMut(&'t mut TenantTx) -> BoxFuture<'t, Result<T, E>>,
    {
        let mut attempt = 1;
        loop {
            let mut tx = self.begin(context).await?;
            let (error, repeatable) = match work(&mut tx).await {
                Ok(value) => match tx.commit().await {
                    Ok(()) => return Ok(value),
                    Err(error) => {
                        let repeatable = error.sqlstate().is_some_and(|code| is_repeatable(&code));
                        (E::from(error), repeatable)
                    }
                },
                Err(error) => {
                    let repeatable = tx.flags.repeatable || tx.flags.broken;
                    tx.rollback().await;
                    (error, repeatable)
                }
            };
            if !repeatable || attempt >= self.inner.pools.config.attempts || !self.inner.budget.spend() {
                return Err(error);
            }
            pause(attempt).await;
            attempt += 1;
        }
    }

    pub(crate) fn route(&self, context: &TenantContext) -> Result<Arc<Route>, Error> {
        let tenant = context.tenant;
        let route = self.inner.pools.catalog.by_id(tenant).ok_or(Error::UnknownTenant(tenant))?;
        if route.no != context.no {
            security_event!(Alarm::ContextForged, %tenant, request = %context.request_id, "a context carries another tenant's number");
            return Err(Error::Mismatch { scope: tenant, asked: tenant });
        }
        match route.state() {
            TenantState::Active => Ok(route.arc()),
            TenantState::Suspended => Err(Error::Suspended(tenant)),
            TenantState::Provisioning => Err(Error::NotReady(tenant)),
            TenantState::Deleted => Err(Error::UnknownTenant(tenant)),
        }
    }

    async fn refresh(&self) {
        if let Err(error) = self.inner.pools.catalog.refresh().await {
            tracing::warn!(%error, "the catalog could not be refreshed after the database refused a route");
        }
    }

    /// One try at opening a transaction on the cell's own server.
    pub(crate) async fn attempt(
        &self,
        context: &TenantContext,
        route: &Route,
        access: Access,
        deadline: Instant,
    ) -> Result<TenantTx, Error> {
        let pools = &self.inner.pools;
        let pool = pools.of(route, None);
        // Before any place is taken: who cannot be served is not to keep others from theirs.
        let ticket = pools.circuits.ask(&pool, route)?;
        let passes = pools.pass(&pool, route, deadline).await?;
        let (conn, used) = match pools.connection(&pool, route).await {
            Ok(found) => found,
            Err(error) => {
                ticket.failed(&error);
                return Err(error);
            }
        };
        let opened = self.bind(context, route, access, pool.clone(), conn, passes).await;
        match &opened {
            Ok(_) => ticket.sound(),
            Err(error) => ticket.failed_on(error, used),
        }
        if used && opened.as_ref().err().is_some_and(Error::is_connection_loss) {
            // The server restarted, or the network broke: the others that were idle are as dead.
            pool.conns.clear();
        }
        opened
    }

    /// Opens the transaction on a connection, in one round trip.
    pub(crate) async fn bind(
        &self,
        context: &TenantContext,
        route: &Route,
        access: Access,
        pool: Arc<Pool>,
        mut conn: Conn,
        passes: Passes,
    ) -> Result<TenantTx, Error> {
        let timeouts = Timeouts::from(&route.plan.limits);
        let opening = self.opening(route, access, &pool, &mut conn, timeouts)?;
        let mut tx = TenantTx::new(Held { conn, pool, timeouts, pools: self.inner.pools.clone(), passes }, context.clone());
        tx.flags.in_flight = true;
        let Some(held) = &mut tx.held else { return Err(Error::RolledBack) };
        let result = simple(&mut held.conn.pg, opening).await;
        tx.flags.in_flight = false;
        match result {
            Ok(()) => Ok(tx),
            Err(error) => {
                tx.flags.note(&error);
                let error = Error::Sql(error);
                // Anything but a clear word about the tenant may be the connection's own fault: let it go.
                tx.flags.broken |= matches!(next(&error), Next::Stop);
                Err(error)
            }
        }
    }

    /// The text that opens a transaction: the session's timeouts where the tenant's plan has others than the connection's last
    /// user (they last, so tenants of one plan pay nothing), BEGIN, and the grant where many tenants share the login.
    fn opening(&self, route: &Route, access: Access, pool: &Pool, conn: &mut Conn, timeouts: Timeouts) -> Result<String, Error> {
        use std::fmt::Write as _;
        let mut sql = String::with_capacity(320);
        // Writing to a String cannot fail.
        if conn.timeouts != timeouts {
            let Timeouts { statement, idle_in_transaction } = timeouts;
            let _ = write!(sql, "SET statement_timeout = {statement};");
            let _ = write!(sql, "SET idle_in_transaction_session_timeout = {idle_in_transaction};");
        }
        let begin = match access {
            Access::Write => "BEGIN",
            Access::Read => "BEGIN READ ONLY",
        };
        if pool.enters() {
            let (key, standing) = self.inner.pools.standing(pool, route)?;
            conn.wallet.open(&mut sql, begin, &key, standing, conn.pid, self.now());
        } else {
            sql.push_str(begin);
        }
        Ok(sql)
    }

    pub(crate) fn now(&self) -> i64 {
        self.inner.clock.unix_seconds()
    }

    pub(crate) fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    pub(crate) fn pools(&self) -> &Arc<Pools> {
        &self.inner.pools
    }

    pub(crate) fn budget(&self) -> &RetryBudget {
        &self.inner.budget
    }
}

/// How far the opening of one transaction has come.
#[derive(Default)]
pub(crate) struct Tries {
    deadline: Option<Instant>,
    made: u32,
    refreshed: bool,
}

impl Tries {
    /// When waiting ends: the same for all tries.
    pub(crate) fn deadline(&mut self, route: &Route) -> Instant {
        let patience = Duration::from_millis(route.plan.limits.acquire_timeout_ms.into());
        *self.deadline.get_or_insert_with(|| Instant::now() + patience)
    }

    /// Returns when it is time to try again.
    ///
    /// # Errors
    /// What the error means to the caller, when it is not to be tried again.
    pub(crate) async fn again_after(
        &mut self,
        data: &Data,
        error: Error,
        context: &TenantContext,
        route: &Route,
    ) -> Result<(), Error> {
        self.made += 1;
        let in_time = self.deadline.is_none_or(|deadline| Instant::now() < deadline);
        match next(&error) {
            Next::Refresh if !self.refreshed => {
                self.refreshed = true;
                data.refresh().await;
                Ok(())
            }
            Next::Again if self.made < data.pools().config.attempts && in_time && data.budget().spend() => {
                pause(self.made).await;
                Ok(())
            }
            _ => Err(verdict(error, context, route)),
        }
    }
}

/// Lets others run now and then. A refusal needs no waiting: who asks again at once, and again, would never give up his thread, and if what he
/// waits for is to be read by that thread, he would wait for ever.
pub(crate) async fn take_turns() {
    tokio::task::coop::consume_budget().await;
}

/// Inside a scope, work is for the scope's tenant and for no other.
pub(crate) fn check_scope(context: &TenantContext) -> Result<(), Error> {
    let Some((bound, no)) = scope::tenant() else { return Ok(()) };
    let asked = context.tenant;
    if bound == asked && no == context.no {
        return Ok(());
    }
    security_event!(Alarm::TenantMismatch, %bound, %asked, request = %context.request_id, "work for one tenant in the scope of another");
    Err(Error::Mismatch { scope: bound, asked })
}

fn next(error: &Error) -> Next {
    match error.sqlstate().as_deref() {
        // Moved, suspended, bad grant; the login or the database is gone.
        Some("28T01" | "28T02" | "28000" | "28P01" | "3D000") => Next::Refresh,
        Some(code) if is_repeatable(code) => Next::Again,
        _ if error.is_connection_loss() => Next::Again,
        _ => Next::Stop,
    }
}

/// What the last try's error means, now that the route is fresh.
fn verdict(error: Error, context: &TenantContext, route: &Route) -> Error {
    let tenant = context.tenant;
    match error.sqlstate().as_deref() {
        Some("28T01" | "3D000") => Error::Moved(tenant),
        Some("28T02") => Error::Suspended(tenant),
        Some(code @ ("28000" | "28P01")) => {
            security_event!(Alarm::GrantRefused, %tenant, code, "the database refused a tenant's grant or login on a fresh route");
            Error::GrantRefused(error.to_string())
        }
        _ if error.is_connection_loss() => Error::Unavailable { cell: route.placement.cell.clone(), reason: error.to_string() },
        _ => error,
    }
}
