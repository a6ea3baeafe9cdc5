//! Reading, on a replica where the tenant's plan says so.
//!
//! Always: a replica is asked only while it is proven to be as fresh as the settings want ([`crate::standby`]), and shows a tenant
//! only when its own row of the tenant says what the route says: active, at this epoch. Whatever is unusual there is no error: the
//! read goes to the cell's own server, which decides.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use insula_catalog::Route;
use insula_core::{Feature, MoveState, TenantContext};

use crate::data::{Access, Data, Tries, check_scope, take_turns};
use crate::error::{Error, is_repeatable};
use crate::retry::pause;
use crate::standby::{Group, Standby};
use crate::tx::TenantTx;

/// Whether reads of a tenant may go to a replica: a feature of its plan, or its own.
const READ_REPLICA: Feature<bool> = Feature::new("read_replica", false);

impl Data {
    /// Opens a transaction that only reads, for a tenant. Where the tenant's plan has the feature `read_replica` and the cell has a
    /// replica that follows closely, it reads there; else, and whenever anything is wrong with the replica, on the cell's own
    /// server. Boundary, statement gate and limits are those of [`Data::begin`]; what writes is refused by the database.
    ///
    /// It shows everything that was committed more than [`read_staleness`](crate::DataConfig::read_staleness) before, and may lack
    /// what was committed since, be it by the caller: [`Data::begin_read_after`] shows that, too. Two reads may go to different
    /// places, so that the second shows less than the first.
    ///
    /// # Errors
    /// As [`Data::begin`]; none only because a replica is away.
    pub async fn begin_read(&self, context: &TenantContext) -> Result<TenantTx, Error> {
        self.open_read(context, None, true).await
    }

    /// [`Data::begin_read`] that shows everything that was committed before `moment`: take `Instant::now()` after a commit in this
    /// process to read what it wrote.
    ///
    /// # Errors
    /// As [`Data::begin_read`].
    pub async fn begin_read_after(&self, context: &TenantContext, moment: Instant) -> Result<TenantTx, Error> {
        self.open_read(context, Some(moment), true).await
    }

    /// Runs `work` in a transaction that only reads ([`Data::begin_read`]); runs it again, a few times, when the connection is
    /// lost or the database asks for that (a replica cancels reads that are in the way of what it replays), and then on the cell's
    /// own server. So `work` must do nothing outside the transaction that may not be done twice.
    ///
    /// # Errors
    /// What `work` returns; as [`Data::begin_read`].
    pub async fn read<T, E, F>(&self, context: &TenantContext, mut work: F) -> Result<T, E>
    where
        E: From<Error>,
        F: for<'t> FnMut(&'t mut TenantTx) -> BoxFuture<'t, Result<T, E>>,
    {
        let mut attempt = 1;
        loop {
            let mut tx = self.open_read(context, None, attempt == 1).await?;
            let on_replica = tx.on_replica();
            let (error, repeatable) = match work(&mut tx).await {
                Ok(value) => match tx.commit().await {
                    // Whether the end of a read was heard of makes no difference to what it has read.
                    Ok(()) | Err(Error::CommitUnknown) => return Ok(value),
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
            // Going on from a replica costs the server nothing that it would not have had without one.
            if !repeatable || attempt >= self.pools().config.attempts || !(on_replica || self.budget().spend()) {
                return Err(error);
            }
            if !on_replica {
                pause(attempt).await;
            }
            attempt += 1;
        }
    }

    async fn open_read(&self, context: &TenantContext, after: Option<Instant>, replicas: bool) -> Result<TenantTx, Error> {
        take_turns().await;
        check_scope(context)?;
        let mut tries = Tries::default();
        let mut group = None;
        if replicas {
            let route = self.route(context)?;
            let deadline = tries.deadline(&route);
            group = self.replicas_for(&route);
            if let Some(group) = &group
                && let Some(tx) = self.try_replicas(context, &route, group, after, deadline).await
            {
                group.counts.replica.fetch_add(1, Ordering::Relaxed);
                return Ok(tx);
            }
        }
        loop {
            let route = self.route(context)?;
            match self.attempt(context, &route, Access::Read, tries.deadline(&route)).await {
                Ok(tx) => {
                    self.budget().succeeded();
                    if let Some(group) = &group {
                        group.counts.primary.fetch_add(1, Ordering::Relaxed);
                    }
                    return Ok(tx);
                }
                Err(error) => tries.again_after(self, error, context, &route).await?,
            }
        }
    }

    /// The replicas that a tenant's reads may go to, when the plan says so, there are some, and the tenant is not moving.
    fn replicas_for(&self, route: &Route) -> Option<Arc<Group>> {
        let pools = self.pools();
        let bound = pools.config.read_staleness;
        if bound.is_zero() || route.placement.state != MoveState::Active || !READ_REPLICA.of(&route.plan, self.clock()) {
            return None;
        }
        pools.standbys.of(&*pools.catalog.cell(&route.placement.cell)?)
    }

    /// A transaction on one of the replicas; `None` when there is none to be had soon.
    async fn try_replicas(
        &self,
        context: &TenantContext,
        route: &Route,
        group: &Group,
        after: Option<Instant>,
        deadline: tokio::time::Instant,
    ) -> Option<TenantTx> {
        let bound = self.pools().config.read_staleness;
        let since = Instant::now().checked_sub(bound)?;
        let since = after.map_or(since, |after| since.max(after));
        // Half of the time is left for the cell's own server.
        let patience = (deadline.saturating_duration_since(tokio::time::Instant::now()) / 2).min(bound);
        for standby in group.fresh(self.pools(), since) {
            match tokio::time::timeout(patience, self.attempt_there(context, route, standby, after, patience)).await {
                Ok(Ok(tx)) => return Some(tx),
                Ok(Err(Error::CircuitOpen { .. })) => {}
                Ok(Err(error)) => {
                    let (cell, replica) = (&standby.cell, &standby.address);
                    tracing::debug!(%cell, %replica, %error, "a read goes to the cell's own server");
                    return None;
                }
                Err(_) => {
                    self.pools().circuits.missed(standby);
                    return None;
                }
            }
        }
        None
    }

    /// One try at opening a transaction on a replica.
    async fn attempt_there(
        &self,
        context: &TenantContext,
        route: &Route,
        standby: &Arc<Standby>,
        after: Option<Instant>,
        patience: Duration,
    ) -> Result<TenantTx, Error> {
        let pools = self.pools();
        let stale = || Error::Unavailable { cell: standby.cell.clone(), reason: "the replica is not fresh enough".to_owned() };
        let pool = pools.of(route, Some(standby));
        let ticket = pools.circuits.ask(&pool, route)?;
        let passes = pools.pass(&pool, route, tokio::time::Instant::now() + patience / 2).await?;
        let (conn, used) = match pools.connection(&pool, route).await {
            Ok(found) => found,
            Err(error) => {
                ticket.failed(&error);
                return Err(error);
            }
        };
        let proof = tokio::time::timeout(patience / 2, standby.proof_for(conn.born)).await;
        let Ok(Some(proof)) = proof else {
            pool.conns.put(conn, pools.config.max_lifetime);
            return Err(stale());
        };
        let opened = self.bind(context, route, Access::Read, pool.clone(), conn, passes).await;
        match &opened {
            Ok(_) => ticket.sound(),
            Err(error) => ticket.failed_on(error, used),
        }
        if used && opened.as_ref().err().is_some_and(Error::is_connection_loss) {
            pool.conns.clear();
        }
        let tx = opened?;
        // The tenant's row was looked at after the proof was made, and the proof is young now: so a suspension or a move that the
        // server knows for longer than the bound has been seen.
        let age = proof.shows.elapsed();
        if age > pools.config.read_staleness || after.is_some_and(|after| proof.shows < after) {
            tx.rollback().await;
            return Err(stale());
        }
        Ok(tx)
    }
}
