//! All pools of this process: finds them, connects, evicts, and keeps the count of connections within its bound.
//!
//! Two turnstiles stand before a connection: the pool's own and the process's, both with the tier's share and the tenant's
//! maximum. Whoever passed the second uses a connection, so with the process's places never more than its slots there is
//! always an idle connection to close when a new one is to be opened.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use insula_catalog::{Catalog, FENCE_UNKNOWN, Replica, Route, Tls};
use insula_core::placement::{APP_ROLE, APP_SCHEMA, POOL_DATABASE};
use insula_core::{CellName, GrantKey, Isolation, KeyRing, Placement};
use insula_planner::share::Bounds;
use sqlx::postgres::PgSslMode;
use tokio::time::Instant;

use crate::bell::Bells;
use crate::circuit::Circuits;
use crate::config::DataConfig;
use crate::conn::{Conn, Login, Timeouts};
use crate::error::Error;
use crate::lane::Line;
use crate::pool::{Pool, PoolKey};
use crate::slots::Slots;
use crate::standby::{Standby, Standbys};
use crate::turnstile::{Pass, Refused, Rider, Turnstile};
use crate::tx::simple;
use crate::wallet::{PREPARE_ENTER, Standing};

pub(crate) struct Pools {
    pub(crate) config: DataConfig,
    pub(crate) catalog: Catalog,
    /// A process may be given more cells while it runs.
    keys: RwLock<KeyRing>,
    process: Arc<Turnstile>,
    slots: Arc<Slots>,
    pub(crate) circuits: Circuits,
    pub(crate) standbys: Standbys,
    pub(crate) bells: Bells,
    pools: RwLock<HashMap<PoolKey, Arc<Pool>>>,
}

/// The right to use one connection of a pool. Field order is drop order: the pool's next waiter goes to the process's line.
pub(crate) struct Passes {
    _process: Pass,
    _pool: Pass,
}

impl Pools {
    pub(crate) fn new(config: DataConfig, catalog: Catalog, keys: KeyRing) -> Self {
        let most = config.max_connections.max(1);
        let bounds = Bounds { capacity: most, queue: config.queue, queue_per_tenant: config.queue_per_tenant };
        Self {
            process: Turnstile::new(bounds),
            slots: Slots::new(most),
            circuits: Circuits::new(),
            standbys: Standbys::new(),
            bells: Bells::default(),
            pools: RwLock::default(),
            config,
            catalog,
            keys: RwLock::new(keys),
        }
    }

    /// Other keys from now on.
    pub(crate) fn replace_keys(&self, keys: KeyRing) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.all().iter().for_each(|pool| pool.forget_key());
    }

    /// The pool that serves a route: on its cell's server, or on a standby of that.
    pub(crate) fn of(&self, route: &Route, standby: Option<&Arc<Standby>>) -> Arc<Pool> {
        let placement = &route.placement;
        let login = (placement.isolation == Isolation::Schema).then(|| placement.schema.clone());
        let replica = standby.map(|standby| standby.address.clone());
        let key = PoolKey { cell: placement.cell.clone(), database: placement.database.clone(), login, replica };
        // A replica that was taken away and named again is another.
        let is_this = |pool: &Arc<Pool>| pool.standby.as_ref().map(Arc::as_ptr) == standby.map(Arc::as_ptr);
        if let Some(pool) = self.pools.read().unwrap_or_else(PoisonError::into_inner).get(&key).filter(|pool| is_this(pool)) {
            return pool.clone();
        }
        let shared = placement.isolation == Isolation::Row;
        let capacity = if shared { self.config.pool_connections } else { self.config.dedicated_connections }.max(1);
        let bounds = Bounds { capacity, queue: self.config.queue, queue_per_tenant: self.config.queue_per_tenant };
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        if pools.get(&key).is_some_and(|pool| !is_this(pool)) {
            pools.remove(&key);
        }
        pools
            .entry(key.clone())
            .or_insert_with(|| Arc::new(Pool::new(key, shared, Turnstile::new(bounds), &route.plan.tier, standby.cloned())))
            .clone()
    }

    /// Waits in both lines, at most until `deadline`.
    pub(crate) async fn pass(&self, pool: &Pool, route: &Route, deadline: Instant) -> Result<Passes, Error> {
        let max = route.plan.limits.max_connections.max(1);
        let tier = if pool.shared { &route.plan.tier } else { &pool.alone };
        let retry_after = Duration::from_secs(1);
        let refused = |why: Refused| match why {
            Refused::OwnLimit => Error::TenantBusy { max, retry_after },
            Refused::Busy => Error::Busy { retry_after },
        };
        // In a pool of its own nobody but itself holds the places.
        let refused_alone =
            |_: Refused| Error::TenantBusy { max: max.min(self.config.dedicated_connections.max(1)), retry_after };
        let own = Rider { tenant: route.no, tier, max };
        let in_pool = pool.turnstile.enter(own, deadline).await;
        let in_pool = if pool.shared { in_pool.map_err(refused) } else { in_pool.map_err(refused_alone) }?;
        let all = Rider { tenant: route.no, tier: &route.plan.tier, max };
        let in_process = self.process.enter(all, deadline).await.map_err(refused)?;
        Ok(Passes { _process: in_process, _pool: in_pool })
    }

    /// A connection for a holder of [`Passes`]: an idle one (then `true`), else a new one.
    pub(crate) async fn connection(&self, pool: &Pool, route: &Route) -> Result<(Conn, bool), Error> {
        let timeouts = Timeouts::from(&route.plan.limits);
        if let Some(conn) = pool.conns.take_with(timeouts, route.no).or_else(|| pool.conns.take_any()) {
            return Ok((conn, true));
        }
        let login = self.login(pool, route)?;
        let slot = self.slots.take_evicting(|| self.evict()).await;
        let opening = Conn::open(&login, timeouts, self.config.statement_cache, &self.config.application_name, slot);
        let opening = async {
            let opened = opening.await;
            let mut conn = opened.map_err(|error| match insula_catalog::tls::explain(&error, &login.host, login.port) {
                Some(reason) => Error::Unavailable { cell: route.placement.cell.clone(), reason },
                None => error.into(),
            })?;
            if pool.enters() {
                simple(&mut conn.pg, PREPARE_ENTER).await?;
            }
            Ok::<_, Error>(conn)
        };
        self.in_time(route, opening).await.map(|conn| (conn, false))
    }

    /// A line of the fast lane for a holder of [`Passes`]. Only one with the plan's own timeouts will do: a batch has no room
    /// to set them.
    pub(crate) async fn line(&self, pool: &Pool, route: &Route) -> Result<Line, Error> {
        let timeouts = Timeouts::from(&route.plan.limits);
        while let Some(line) = pool.lines.take_with(timeouts, route.no) {
            // Dead ones (the server restarted) have said goodbye: they are dropped here.
            if line.wire.is_clean() {
                return Ok(line);
            }
        }
        let login = self.login(pool, route)?;
        if !login.may_be_plain() {
            return Err(Error::LaneWithoutTls { cell: route.placement.cell.clone() });
        }
        let slot = self.slots.take_evicting(|| self.evict()).await;
        self.in_time(route, Line::open(&login, timeouts, &self.config.application_name, slot)).await
    }

    /// A connection for the house's own purposes, as the role of the shared pool's tenants: it is bound to nobody.
    pub(crate) async fn unbound(&self, cell: &CellName) -> Result<Conn, Error> {
        let login = self.login_of(cell, None, APP_ROLE.to_owned(), POOL_DATABASE.into(), APP_SCHEMA.into())?;
        let slot = self.slots.take_evicting(|| self.evict()).await;
        let timeouts = Timeouts { statement: 5_000, idle_in_transaction: 5_000 };
        let opening = Conn::open(&login, timeouts, self.config.statement_cache, &self.config.application_name, slot);
        match tokio::time::timeout(self.config.connect_timeout, opening).await {
            Ok(opened) => Ok(opened?),
            Err(_) => {
                let reason = format!("no connection within {:?}", self.config.connect_timeout);
                Err(Error::Unavailable { cell: cell.clone(), reason })
            }
        }
    }

    async fn in_time<T, E: Into<Error>>(&self, route: &Route, opening: impl Future<Output = Result<T, E>>) -> Result<T, Error> {
        match tokio::time::timeout(self.config.connect_timeout, opening).await {
            Ok(opened) => opened.map_err(Into::into),
            Err(_) => {
                let reason = format!("no connection within {:?}", self.config.connect_timeout);
                Err(Error::Unavailable { cell: route.placement.cell.clone(), reason })
            }
        }
    }

    /// Where and as whom to connect for a route, as the catalog says now.
    pub(crate) fn login(&self, pool: &Pool, route: &Route) -> Result<Login, Error> {
        let Placement { cell, database, schema, .. } = &*route.placement;
        self.login_of(cell, pool.key.replica.as_ref(), route.placement.role(), database.clone(), schema.clone())
    }

    /// How a role logs in to a database of a cell's server, or of its standby.
    pub(crate) fn login_of(
        &self,
        name: &CellName,
        replica: Option<&Replica>,
        role: String,
        database: Arc<str>,
        schema: Arc<str>,
    ) -> Result<Login, Error> {
        let unavailable = |reason: &str| Error::Unavailable { cell: name.clone(), reason: reason.into() };
        let cell = self.catalog.cell(name).ok_or_else(|| unavailable("it is not in the catalog"))?;
        let own = cell.host.as_ref().zip(cell.port);
        let address = replica.map(|replica| (&replica.host, replica.port)).or(own);
        let (host, port) = address.ok_or_else(|| unavailable("it has no address yet"))?;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let key = keys.cell(name).map_err(|error| unavailable(&error.to_string()))?;
        Ok(Login {
            host: host.to_string(),
            port,
            tls: match cell.tls {
                Tls::Disable => PgSslMode::Disable,
                Tls::Prefer => PgSslMode::Prefer,
                Tls::Require => PgSslMode::Require,
                Tls::VerifyFull => PgSslMode::VerifyFull,
            },
            authorities: self.config.authorities.clone(),
            database,
            password: key.role_password(&role),
            role,
            schema,
        })
    }

    /// The key that signs a route's grants, and what they say.
    pub(crate) fn standing(&self, pool: &Pool, route: &Route) -> Result<(Arc<GrantKey>, Standing), Error> {
        let placement = &route.placement;
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let cell = keys.cell(&placement.cell);
        let cell = cell.map_err(|e| Error::Unavailable { cell: placement.cell.clone(), reason: e.to_string() })?;
        // A standby's count of the fence runs ahead of it (the log has it in steps of 32): its row of the tenant is what counts.
        let fence = if pool.standby.is_some() { FENCE_UNKNOWN } else { self.catalog.fence_of(route) };
        let standing = Standing { no: route.no, epoch: placement.epoch, fence };
        Ok((pool.grant_key(cell, route.kid()), standing))
    }

    /// Closes the connection that is idle longest of all pools; `false` when none is idle.
    async fn evict(&self) -> bool {
        let pools = self.all();
        let oldest = pools.iter().filter_map(|p| p.oldest().map(|since| (since, p))).min_by_key(|(since, _)| *since);
        match oldest {
            Some((_, pool)) => pool.close_oldest().await,
            None => false,
        }
    }

    /// Every pool, at this moment.
    pub(crate) fn all(&self) -> Vec<Arc<Pool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> u32 {
        self.slots.open()
    }

    /// One round of house-keeping: closes what is idle or old, forgets pools that nobody uses and tiers that nobody asks for.
    pub(crate) async fn sweep(&self) {
        let config = &self.config;
        self.standbys.forget_removed(&self.catalog);
        for pool in self.all() {
            if pool.standby.as_ref().is_some_and(|standby| standby.is_removed()) {
                pool.conns.clear();
            }
            let idle_timeout = if pool.shared { config.idle_timeout } else { config.dedicated_idle_timeout };
            pool.close_expired(idle_timeout, config.max_lifetime).await;
            pool.turnstile.share().forget_absent();
        }
        self.process.share().forget_absent();
        let mut pools = self.pools.write().unwrap_or_else(PoisonError::into_inner);
        // Held by the map alone, and empty: nobody can be about to use it, because users clone it under this lock.
        pools.retain(|_, pool| Arc::strong_count(pool) > 1 || pool.idle_count() > 0 || !pool.circuit.is_closed());
    }
}
