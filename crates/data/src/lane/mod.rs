//! The fast lane: a tenant's whole transaction in one round trip.
//!
//! For: the house's own parts, whose statements are known beforehand. Not for applications, which have sqlx on
//! [`TenantTx`](crate::TenantTx).
//!
//! Always: the grant goes first in the same write as the statements; when the database refuses it, it skips the statements, so
//! nothing ever runs unbound; the statements pass the gate; no TLS, so only cells that allow it, on this machine.

mod value;
mod wire;

use std::time::Instant;

use insula_catalog::Route;
use insula_core::{TenantContext, TenantNo};
use insula_telemetry::{Alarm, security_event};

pub use value::{Column, DecodeError, Param, Row};
pub use wire::{Address, Call, ServerError, Wire, WireError};

use crate::conn::{Login, Timeouts, settings};
use crate::data::{Data, Tries, check_scope, take_turns};
use crate::error::Error;
use crate::gate;
use crate::pool::Kept;
use crate::slots::Slot;
use crate::tx::bill;
use crate::wallet::Wallet;

/// Binds the batch that it opens.
const ENTER: &str = "SELECT insula.enter($1, $2, $3, $4, $5, $6)";

/// A wire in a pool.
pub(crate) struct Line {
    pub(crate) wire: Wire,
    wallet: Wallet,
    born: Instant,
    timeouts: Timeouts,
    _slot: Slot,
}

impl Kept for Line {
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

impl Line {
    /// To a cell that [`Login::may_be_plain`] allows.
    pub(crate) async fn open(login: &Login, timeouts: Timeouts, name: &str, slot: Slot) -> Result<Self, WireError> {
        let settings = settings(login, timeouts);
        let mut all: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.push(("application_name", name));
        let wire = Wire::connect(&Address {
            host: &login.host,
            port: login.port,
            user: &login.role,
            password: &login.password,
            database: &login.database,
            settings: &all,
        })
        .await?;
        Ok(Self { wire, wallet: Wallet::default(), born: Instant::now(), timeouts, _slot: slot })
    }
}

/// The fast lane's entrance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Lane {
    data: Data,
}

impl Lane {
    pub(crate) const fn new(data: Data) -> Self {
        Self { data }
    }

    /// Runs one statement in a transaction of its own, in one round trip.
    ///
    /// # Errors
    /// As [`Lane::batch`].
    pub async fn query(&self, context: &TenantContext, sql: &str, params: &[Param<'_>]) -> Result<Vec<Row>, Error> {
        let mut results = self.batch(context, &[Call { sql, params }]).await?;
        Ok(results.pop().unwrap_or_default())
    }

    /// Runs statements in one transaction, in one round trip, and commits: all or none. Rows come by statement.
    ///
    /// # Errors
    /// As [`Data::begin`]; [`Error::Statement`] and [`Error::LaneWithoutTls`] before anything is sent; [`Error::Lane`] when the database refuses a statement;
    /// [`Error::CommitUnknown`] when the connection is lost before the answer.
    pub async fn batch(&self, context: &TenantContext, calls: &[Call<'_>]) -> Result<Vec<Vec<Row>>, Error> {
        take_turns().await;
        check_scope(context)?;
        for call in calls {
            gate::check(call.sql).inspect_err(|refusal| {
                let (tenant, request) = (&context.tenant, &*context.request_id);
                security_event!(Alarm::StatementRefused, %tenant, %request, word = %refusal.word, "a statement was refused at the gate");
            })?;
        }
        let (mut tries, began) = (Tries::default(), Instant::now());
        loop {
            let route = self.data.route(context)?;
            match self.attempt(&route, calls, tries.deadline(&route)).await {
                Ok(results) => {
                    self.data.budget().succeeded();
                    if let Some(usage) = &self.data.pools().config.usage {
                        let rows: usize = results.iter().map(Vec::len).sum();
                        bill(usage, context, began, rows as u64);
                    }
                    return Ok(results);
                }
                Err(error) => tries.again_after(&self.data, error, context, &route).await?,
            }
        }
    }

    async fn attempt(&self, route: &Route, calls: &[Call<'_>], deadline: tokio::time::Instant) -> Result<Vec<Vec<Row>>, Error> {
        let pools = self.data.pools();
        let pool = pools.of(route, None);
        let ticket = pools.circuits.ask(&pool, route)?;
        let passes = pools.pass(&pool, route, deadline).await?;
        let mut line = match pools.line(&pool, route).await {
            Ok(line) => line,
            Err(error) => {
                ticket.failed(&error);
                return Err(error);
            }
        };
        let outcome = if pool.shared {
            let (key, standing) = pools.standing(&pool, route)?;
            let grant = line.wallet.grant(&key, standing, line.wire.pid(), self.data.now());
            let params = [
                Param::Int8(grant.no.get()),
                Param::Int8(grant.epoch),
                Param::Int8(grant.expires),
                Param::Int8(grant.fence),
                Param::Int4(grant.kid),
                Param::Bytes(&grant.mac),
            ];
            let mut all = Vec::with_capacity(calls.len() + 1);
            all.push(Call { sql: ENTER, params: &params });
            all.extend_from_slice(calls);
            line.wire.run(&all).await.map(|mut results| {
                results.remove(0);
                results
            })
        } else {
            line.wire.run(calls).await
        };
        if line.wire.is_clean() {
            pool.lines.put(line, pools.config.max_lifetime);
        }
        drop(passes);
        let outcome = outcome.map_err(|error| match error {
            // It was sent, so it may have happened.
            WireError::Lost(_) => Error::CommitUnknown,
            other => Error::Lane(other),
        });
        match &outcome {
            Ok(_) => ticket.sound(),
            Err(error) => ticket.failed_on(error, true),
        }
        outcome
    }
}
