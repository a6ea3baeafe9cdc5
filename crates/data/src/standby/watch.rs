//! Follows one standby: asks its server where it stands, and then the standby, some times in each period that a read may be stale.
//!
//! Always: two connections, to databases without tenants, as a role that can do nothing else; nothing here is waited for by a
//! request that has somewhere else to go.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use insula_catalog::Replica;
use insula_core::placement::{MAINTENANCE_DATABASE, WATCH_ROLE};
use sqlx::{ConnectOptions, PgConnection};

use super::position::{Position, Samples};
use super::{Proof, Standby};
use crate::conn::{Timeouts, options};
use crate::pools::Pools;

/// Rounds in the longest time that a read may be stale.
const ROUNDS: u32 = 4;
/// No faster, and no slower.
const QUICK: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_secs(1);

/// Follows a standby until nobody reads from it any more, or the catalog does not name it.
pub(super) async fn follow(standby: Weak<Standby>, pools: Weak<Pools>) {
    let mut watch = Watch::default();
    let mut was = None;
    loop {
        let pause = {
            let (Some(standby), Some(pools)) = (standby.upgrade(), pools.upgrade()) else { return };
            if standby.is_removed() || standby.is_forgotten() {
                standby.prove(None);
                standby.watched.store(false, Ordering::Release);
                return;
            }
            let found = watch.round(&pools, &standby).await;
            tell(&standby, &mut was, found.as_ref().map(Option::is_some));
            match found {
                Ok(Some(proof)) => standby.prove(Some(proof)),
                // What was proven before stays true until it has aged.
                Ok(None) | Err(Fault::Server(_)) => {}
                Err(Fault::Standby(_)) => standby.prove(None),
            }
            (pools.config.read_staleness / ROUNDS).clamp(QUICK, SLOW)
        };
        wait(&standby, pause).await;
    }
}

/// Until the next round is due, or wanted.
async fn wait(standby: &Weak<Standby>, pause: Duration) {
    if let Some(standby) = standby.upgrade() {
        // Late or called: both are the time.
        let _ = tokio::time::timeout(pause, standby.hurry.notified()).await;
    }
}

/// Says in the log what has changed.
fn tell(standby: &Standby, was: &mut Option<bool>, found: Result<bool, &Fault>) {
    let follows = found.as_ref().is_ok_and(|proven| *proven);
    if was.replace(follows) == Some(follows) {
        return;
    }
    let (cell, replica) = (&standby.cell, &standby.address);
    match found {
        Ok(true) => tracing::info!(%cell, %replica, "a replica follows: reads may go there"),
        Ok(false) => {
            tracing::warn!(%cell, %replica, "a replica is behind, or does not follow the cell's server: reads go to the server")
        }
        Err(fault) => tracing::warn!(%cell, %replica, %fault, "a replica cannot be watched: reads go to the cell's server"),
    }
}

/// Who did not answer.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("the cell's server: {0}")]
    Server(String),
    #[error("the replica: {0}")]
    Standby(String),
}

#[derive(Default)]
struct Watch {
    server: Option<PgConnection>,
    /// Where `server` leads.
    address: Option<Replica>,
    samples: Samples,
    standby: Option<PgConnection>,
}

impl Watch {
    /// Asks both. `None`: the standby is further behind than is remembered, or follows somebody else.
    async fn round(&mut self, pools: &Pools, standby: &Arc<Standby>) -> Result<Option<Proof>, Fault> {
        self.follow_address(pools, standby);
        let asked = Instant::now();
        let there = ask(&mut self.server, pools, standby, None).await.map_err(Fault::Server)?;
        if there.standby {
            return Err(Fault::Server("it is a standby itself".to_owned()));
        }
        self.samples.note(asked, there);
        let asked = Instant::now();
        let here = ask(&mut self.standby, pools, standby, Some(&standby.address)).await.map_err(Fault::Standby)?;
        if !here.standby {
            return Err(Fault::Standby("it is no standby".to_owned()));
        }
        Ok(self.samples.shown_at(here).map(|shows| Proof { shows, asked }))
    }

    /// After a failover the catalog names another server: what the old one says is of no use, though it may still answer.
    fn follow_address(&mut self, pools: &Pools, standby: &Standby) {
        let cell = pools.catalog.cell(&standby.cell);
        let address = cell.and_then(|cell| Some(Replica { host: cell.host.clone()?, port: cell.port? }));
        if self.address != address {
            self.address = address;
            self.server = None;
            self.samples.clear();
        }
    }
}

/// Asks a server where it stands, on a connection that is there or a new one.
async fn ask(
    slot: &mut Option<PgConnection>,
    pools: &Pools,
    standby: &Standby,
    replica: Option<&Replica>,
) -> Result<Position, String> {
    let late = |_| "it does not answer".to_owned();
    let mut conn = match slot.take() {
        Some(conn) => conn,
        None => {
            let database = MAINTENANCE_DATABASE.into();
            let login = pools.login_of(&standby.cell, replica, WATCH_ROLE.to_owned(), database, "pg_catalog".into());
            let login = login.map_err(|error| error.to_string())?;
            let timeouts = Timeouts { statement: 5_000, idle_in_transaction: 5_000 };
            let options = options(&login, timeouts, 4, &pools.config.application_name);
            let connected = tokio::time::timeout(pools.config.connect_timeout, options.connect()).await.map_err(late)?;
            connected.map_err(|error| match insula_catalog::tls::explain(&error, &login.host, login.port) {
                Some(reason) => reason,
                None => error.to_string(),
            })?
        }
    };
    let patience = pools.config.read_staleness.max(Duration::from_millis(200));
    let position = tokio::time::timeout(patience, Position::of(&mut conn)).await.map_err(late)?;
    let position = position.map_err(|error| error.to_string())?;
    // Only now: a connection that failed, or whose answer is still to come, is not used again.
    *slot = Some(conn);
    Ok(position)
}
