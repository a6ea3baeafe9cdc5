//! Preparing the database of one customer: roles, kit, tables, first user.
//!
//! Always: it may run again, at any time and on any version: what is there stays, what is missing is added. The tenant is there with its
//! tables and its first user, or not at all. Nothing of the owner's is kept: requests are served by the login that is made here.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;
use insula_core::keys::Secret;
use insula_core::placement::APP_SCHEMA;
use insula_core::slug::NameError;
use insula_core::{CellKey, KeyRing, TenantSettings};
use insula_kit::SeedValues;
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection as _, PgConnection};

use super::{CELL, Only};
use crate::config::{Alone, Brings, Config, ConfigError, Tenancy, read_keyring};

/// The key that grants would be signed with, should there ever be any.
const KID: i32 = 1;

/// Why a database could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The application does not say what its tables are.
    #[error("this application brings no tables: it has to say Config::bringing(bundle, features)")]
    NothingBrought,
    /// The settings are those of a process for many.
    #[error("this is for one customer on its own server: set INSULA_TENANCY=off; elsewhere the control plane prepares databases")]
    NotAlone,
    /// The URL has no owner in it.
    #[error(
        "INSULA_DATABASE_URL names no user: preparing a database needs its owner, postgres://OWNER:PASSWORD@HOST:PORT/DATABASE"
    )]
    NoOwner,
    /// The database's name is none that the kit can work with.
    #[error("the database cannot be called {0:?}: use lower-case letters, digits and _, a letter first")]
    Name(String),
    /// The server does not let the owner in.
    #[error("the database at {address} does not let the owner in: {reason}")]
    Away {
        /// Where; never the password.
        address: String,
        /// What it says.
        reason: String,
    },
    /// The key file.
    #[error(transparent)]
    Keys(#[from] ConfigError),
    /// A file of ours cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// No password could be made.
    #[error("no password could be made: {0}")]
    Password(String),
    /// The kit's refusals, and Postgres'.
    #[error(transparent)]
    Kit(#[from] insula_kit::Error),
    /// A name of our own that is none.
    #[error(transparent)]
    Internal(#[from] NameError),
}

impl From<sqlx::Error> for InstallError {
    fn from(error: sqlx::Error) -> Self {
        Self::Kit(error.into())
    }
}

/// What a preparation did.
#[derive(Debug)]
pub struct Installed {
    /// Migrations that were applied.
    pub migrations: usize,
    /// The first user, when it was made now.
    pub admin: Option<Admin>,
}

/// The first user. Its password is known nowhere else.
pub struct Admin {
    /// Its login.
    pub email: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({}, ***)", self.email)
    }
}

/// Prepares the database, or brings it up to date.
///
/// # Errors
/// [`InstallError`], in words for whoever installs; then nothing of the tenant is there, or all is as it was.
pub async fn install(config: &Config) -> Result<Installed, InstallError> {
    let Tenancy::Off(alone) = &config.tenancy else { return Err(InstallError::NotAlone) };
    prepare(alone, config.brings.as_ref().ok_or(InstallError::NothingBrought)?).await
}

pub(crate) async fn prepare(alone: &Alone, brings: &Brings) -> Result<Installed, InstallError> {
    if !alone.owner {
        return Err(InstallError::NoOwner);
    }
    let database = alone.database.get_database().unwrap_or_default();
    let only = Only::at(database)?;
    let key = key(&alone.keyring_path)?;
    let mut conn = connect(alone, database, &key).await?;
    insula_kit::prepare_server(&mut conn, &key).await?;
    insula_kit::close_database(&mut conn, database).await?;
    insula_kit::install(&mut conn, database, &key, KID).await?;
    insula_kit::prepare_migrations(&mut conn).await?;
    let installed = fill(&mut conn, alone, brings, &only, &key).await?;
    conn.close().await.ok();
    Ok(installed)
}

/// Login, registration, tables, first user: all of it or nothing.
async fn fill(
    conn: &mut PgConnection,
    alone: &Alone,
    brings: &Brings,
    only: &Only,
    key: &CellKey,
) -> Result<Installed, InstallError> {
    let (database, role) = (&*only.placement.database, only.role());
    let mut tx = conn.begin().await?;
    let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM insula.tenant WHERE no = $1)")
        .bind(only.no.get())
        .fetch_one(&mut *tx)
        .await?;
    insula_kit::create_login(&mut tx, &role, &key.role_password(&role), only.no, database, APP_SCHEMA).await?;
    insula_kit::register_tenant(&mut tx, only.no, only.placement.epoch, Some(&role)).await?;
    let bundle = &brings.bundle;
    let all: Vec<_> =
        bundle.migrations.iter().map(|m| insula_kit::Migration { version: m.version, name: &m.name, sql: &m.sql }).collect();
    let migrations = insula_kit::migrate(&mut tx, &all, APP_SCHEMA).await?;
    if migrations > 0 {
        insula_kit::refuse_leaks(&mut tx, database).await?;
    }
    let mut admin = None;
    if !there {
        let (password, hash) = password().await?;
        let settings = serde_json::to_value(TenantSettings::default()).map_err(|e| InstallError::Password(e.to_string()))?;
        let values = SeedValues {
            email: &alone.admin_email,
            hash: &hash,
            name: alone.name.as_deref().unwrap_or(database),
            settings: &settings,
        };
        insula_kit::seed(&mut tx, only.no, APP_SCHEMA, &bundle.seed, values).await?;
        admin = Some(Admin { email: alone.admin_email.clone(), password });
    }
    tx.commit().await?;
    Ok(Installed { migrations, admin })
}

/// To the database as its owner; makes the database when the server does not have it.
async fn connect(alone: &Alone, database: &str, key: &CellKey) -> Result<PgConnection, InstallError> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    if database.len() < 2 || !database.bytes().all(plain) || !database.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err(InstallError::Name(database.to_owned()));
    }
    let away = |error: sqlx::Error| InstallError::Away { address: alone.address(), reason: error.to_string() };
    match PgConnection::connect_with(&alone.database).await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("3D000") => {
            let mut admin =
                PgConnection::connect_with(&PgConnectOptions::clone(&alone.database).database("postgres")).await.map_err(away)?;
            // A database is closed to all but the roles that this makes.
            insula_kit::prepare_server(&mut admin, key).await?;
            insula_kit::create_database(&mut admin, database).await?;
            PgConnection::connect_with(&alone.database).await.map_err(away)
        }
        connected => connected.map_err(away),
    }
}

/// The installation's key: from its file, which is made when there is none.
fn key(path: &Path) -> Result<CellKey, InstallError> {
    if !path.exists() {
        let secret = Secret::random().map_err(|e| InstallError::Password(e.to_string()))?;
        let ring = KeyRing::new([(CELL.parse()?, CellKey::new(secret))]);
        write(path, &ring.to_json())?;
        tracing::info!(file = %path.display(), "made this installation's key: keep the file, and no other copy of it");
    }
    let cell = CELL.parse()?;
    let ring = read_keyring(path)?;
    Ok(ring.cell(&cell).map_err(|error| ConfigError::Wrong { name: "INSULA_KEYRING", reason: error.to_string() })?.clone())
}

/// Writes a secret to a new file that its owner alone may read.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), InstallError> {
    let fault = |source| InstallError::File { path: path.to_owned(), source };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fault)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(fault)
}

/// A password for the first user, and its hash in PHC form.
async fn password() -> Result<(String, String), InstallError> {
    let fault = |error: &dyn std::fmt::Display| InstallError::Password(error.to_string());
    let password = Secret::random().map_err(|e| fault(&e))?.to_hex()[..24].to_owned();
    let text = password.clone();
    let hashed =
        tokio::task::spawn_blocking(move || Argon2::default().hash_password(text.as_bytes()).map(|hash| hash.to_string()));
    let hash = hashed.await.map_err(|e| fault(&e))?.map_err(|e| fault(&e))?;
    Ok((password, hash))
}
