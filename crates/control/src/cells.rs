//! The way into the cells' database servers, as their administrator.
//!
//! For: connections and pools by cell and database. Not for: what is done there. Always: a login is derived from the
//! root key (embedded) or read from the host side's secrets file (registered), and is in no error and no log.

use std::collections::HashMap;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use insula_core::{CellKey, CellName, RootKey};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection, PgPool, PgTransaction};

use crate::config::CellSecrets;
use crate::doors::Doors;
use crate::error::Error;
use crate::model::{Cell, Provider};

/// The database that every server has; for what concerns the server as a whole.
pub(crate) const MAINTENANCE: &str = "postgres";

/// Longest wait for a connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Connections to one shared database of a cell.
const POOL: u32 = 16;

/// See the module.
pub(crate) struct Cells {
    root_key: RootKey,
    secrets: Option<PathBuf>,
    authorities: Option<PathBuf>,
    pools: Mutex<HashMap<PoolKey, PgPool>>,
    /// One at a time makes databases in a cell: CREATE DATABASE does not share its template.
    making: Mutex<HashMap<CellName, Arc<tokio::sync::Mutex<()>>>>,
    doors: Doors,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PoolKey {
    cell: CellName,
    host: String,
    port: u16,
    database: String,
}

impl Cells {
    pub(crate) fn new(root_key: RootKey, secrets: Option<PathBuf>, authorities: Option<PathBuf>) -> Self {
        Self { root_key, secrets, authorities, pools: Mutex::default(), making: Mutex::default(), doors: Doors::default() }
    }

    pub(crate) fn key(&self, cell: &CellName) -> CellKey {
        self.root_key.cell(cell)
    }

    /// Where requests that open a connection of their own wait for their turn.
    pub(crate) fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Held while databases of a cell are made or its template is changed.
    pub(crate) fn making(&self, cell: &CellName) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(self.making.lock().unwrap_or_else(PoisonError::into_inner).entry(cell.clone()).or_default())
    }

    fn options(&self, cell: &Cell, database: &str) -> Result<PgConnectOptions, Error> {
        let options = match cell.provider {
            Provider::Embedded => PgConnectOptions::new_without_pgpass()
                .username(&cell.admin_role)
                .password(&self.key(&cell.name).role_password(&cell.admin_role)),
            Provider::Registered => {
                let secrets = CellSecrets::read(self.secrets.as_deref())?;
                let url = secrets.url(&cell.name).ok_or_else(|| {
                    Error::Conflict(format!("the secrets file has no admin login for cell {}: add it and try again", cell.name))
                })?;
                // The parser's message could quote the password.
                PgConnectOptions::from_str(url)
                    .map_err(|_| Error::Corrupt(format!("the secrets file's URL of cell {} cannot be read", cell.name)))?
            }
        };
        let options = match &self.authorities {
            Some(authorities) => options.ssl_root_cert(authorities),
            None => options,
        };
        let (Some(host), Some(port)) = (&cell.host, cell.port) else {
            return Err(Error::Away(format!("the database server of cell {} is not up yet", cell.name)));
        };
        let tls =
            PgSslMode::from_str(&cell.tls).map_err(|_| Error::Corrupt(format!("cell {}: tls {:?}", cell.name, cell.tls)))?;
        Ok(options
            .host(host)
            .port(port)
            .ssl_mode(tls)
            .database(database)
            .application_name("insula-control")
            .log_slow_statements(tracing::log::LevelFilter::Off, Duration::ZERO))
    }

    /// One connection, for a database that is not worth a pool.
    pub(crate) async fn connect(&self, cell: &Cell, database: &str) -> Result<PgConnection, Error> {
        self.connecting(cell, database)?.await
    }

    /// The same for whoever cannot wait here.
    pub(crate) fn connecting(
        &self,
        cell: &Cell,
        database: &str,
    ) -> Result<impl Future<Output = Result<PgConnection, Error>> + Send + use<>, Error> {
        let (options, cell) = (self.options(cell, database)?, cell.clone());
        Ok(async move {
            match tokio::time::timeout(PATIENCE, PgConnection::connect_with(&options)).await {
                Ok(connected) => connected.map_err(in_cell(&cell)),
                Err(_) => Err(Error::Away(format!("the database server of cell {} does not answer", cell.name))),
            }
        })
    }

    /// The pool of a database that many tenants share, or of the maintenance database.
    pub(crate) fn pool(&self, cell: &Cell, database: &str) -> Result<PgPool, Error> {
        let key = PoolKey {
            cell: cell.name.clone(),
            host: cell.host.clone().unwrap_or_default(),
            port: cell.port.unwrap_or_default(),
            database: database.to_owned(),
        };
        let options = self.options(cell, database)?;
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        // A cell that came back elsewhere: its old pools are of no use.
        pools.retain(|k, _| k.cell != key.cell || (&k.host, k.port) == (&key.host, key.port));
        Ok(pools
            .entry(key)
            .or_insert_with(|| {
                PgPoolOptions::new()
                    .max_connections(POOL)
                    .acquire_timeout(PATIENCE)
                    .idle_timeout(Duration::from_secs(60))
                    .connect_lazy_with(options)
            })
            .clone())
    }

    /// Begins a transaction in a shared database.
    pub(crate) async fn begin(&self, cell: &Cell, database: &str) -> Result<CellTx, Error> {
        let tx = self.pool(cell, database)?.begin().await.map_err(in_cell(cell))?;
        Ok(CellTx { cell: cell.clone(), tx, alone: None })
    }

    /// Begins a transaction in a tenant's own database, on a connection that ends with it.
    pub(crate) async fn begin_alone(&self, cell: &Cell, database: &str) -> Result<CellTx, Error> {
        let options = self.options(cell, database)?;
        let alone = PgPoolOptions::new().max_connections(1).acquire_timeout(PATIENCE).connect_lazy_with(options);
        let tx = alone.begin().await.map_err(in_cell(cell))?;
        Ok(CellTx { cell: cell.clone(), tx, alone: Some(alone) })
    }

    /// Lets go of all connections to a cell that is to be taken away.
    pub(crate) async fn forget(&self, cell: &CellName) {
        self.doors.forget(cell);
        let gone: Vec<PgPool> = {
            let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
            let keys: Vec<_> = pools.keys().filter(|k| k.cell == *cell).cloned().collect();
            keys.iter().filter_map(|k| pools.remove(k)).collect()
        };
        for pool in gone {
            pool.close().await;
        }
    }
}

/// An open transaction in a cell; rolled back when dropped.
pub(crate) struct CellTx {
    cell: Cell,
    tx: PgTransaction<'static>,
    alone: Option<PgPool>,
}

impl CellTx {
    pub(crate) fn conn(&mut self) -> &mut PgConnection {
        &mut self.tx
    }

    pub(crate) async fn commit(self) -> Result<(), Error> {
        self.tx.commit().await.map_err(in_cell(&self.cell))?;
        if let Some(alone) = self.alone {
            // Nobody waits for a goodbye.
            tokio::spawn(async move { alone.close().await });
        }
        Ok(())
    }
}

/// Marks errors of a cell's server.
pub(crate) fn in_cell(cell: &Cell) -> impl FnOnce(sqlx::Error) -> Error + use<> {
    let (cell, host, port) = (cell.name.to_string(), cell.host.clone().unwrap_or_default(), cell.port.unwrap_or_default());
    move |source| match insula_catalog::tls::explain(&source, &host, port) {
        // An operator mends it, and it is tried again until then.
        Some(why) => Error::Away(format!("cell {cell}: {why}")),
        None => Error::Cell { cell, source },
    }
}

/// Marks errors of the SQL kit in a cell.
pub(crate) fn kit_in(cell: &Cell) -> impl FnOnce(insula_kit::Error) -> Error + use<> {
    let cell = cell.name.to_string();
    |source| match source {
        insula_kit::Error::Migration { version, name, detail } => Error::Migration { version, name, detail },
        insula_kit::Error::Foreign { .. } => Error::Conflict(format!("cell {cell}: {source}")),
        insula_kit::Error::Seed(detail) => Error::Seed(detail),
        insula_kit::Error::Leaks { place, findings } => Error::Leaks { database: place, findings },
        source => Error::Kit { cell, source },
    }
}

/// Quotes a name for a statement that takes no parameters. Only names of our own making come here; others are refused.
pub(crate) fn own_name(text: &str) -> Result<&str, Error> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if !text.is_empty() && text.len() <= 63 && text.bytes().all(plain) && !text.as_bytes()[0].is_ascii_digit() {
        return Ok(text);
    }
    Err(Error::Corrupt(format!("{text:?} is not a name that Insula makes")))
}
