//! A new root key for what is there already: the old one is lost, or somebody has read it.
//!
//! Nothing of the old key is needed: private servers are opened by their single-user mode, named ones by the user's URLs. Always: the
//! new key is written last, so that a run that was cut short is begun again with the same words.

use insula_cluster::{Binaries, Cluster, ClusterConfig};
use insula_core::{CellName, Kind, RootKey};
use sqlx::{Connection, PgConnection};
use url::Url;

use crate::error::Error;
use crate::up::catalog::parse;
use crate::up::folder::{DataFolder, file_error};
use crate::up::postgres::ADMIN_ROLE;
use crate::up::screen::Screen;
use crate::up::{UpArgs, named};

/// Makes a new root key, and gives every server of this folder, and every named one, the passwords and grant keys that follow from it.
pub(crate) async fn replace(args: &UpArgs, folder: &DataFolder, screen: Screen) -> Result<(), Error> {
    let secret = crate::up::folder::new_secret()?;
    let root = RootKey::new(secret.clone());
    for cell in private_cells(folder)? {
        let binaries = Binaries::find(args.postgres_bin.as_deref())?;
        private(folder, &binaries, &cell, &root).await.map_err(|e| in_cell(&cell, &e))?;
    }
    for (cell, url) in named::all_logins(folder, args.catalog_url.as_deref(), &args.cells)? {
        server(&parse(&url)?, &root, &cell).await.map_err(|e| in_cell(&cell, &e))?;
    }
    folder.put_root_key(&secret)?;
    screen.done("new root key");
    Ok(())
}

/// The private servers that were ever made here and not taken away.
fn private_cells(folder: &DataFolder) -> Result<Vec<CellName>, Error> {
    let clusters = folder.root().join("clusters");
    let entries = std::fs::read_dir(&clusters).map_err(|e| file_error("read", &clusters, &e))?;
    let made = entries.flatten().filter(|entry| entry.path().join("PG_VERSION").is_file());
    Ok(made.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

async fn private(folder: &DataFolder, binaries: &Binaries, cell: &CellName, root: &RootKey) -> Result<(), Error> {
    let password = root.cell(cell).role_password(ADMIN_ROLE);
    let mut config = ClusterConfig::new(folder.cluster(cell.as_str()), ADMIN_ROLE, &password);
    config.log = Some(folder.log(&format!("postgres-{cell}")));
    Cluster::reset_password(binaries, &config).await?;
    let cluster = Cluster::start(binaries, config).await?;
    let outcome = server(&parse(&cluster.admin_url("postgres"))?, root, cell).await;
    cluster.stop().await;
    outcome
}

/// A server's logins, then each of its databases.
async fn server(url: &Url, root: &RootKey, cell: &CellName) -> Result<(), Error> {
    let key = root.cell(cell);
    let mut admin = connect(url, "postgres").await?;
    insula_kit::replace_passwords(&mut admin, &key).await.map_err(|e| Error::new(e.kind(), e.to_string(), ""))?;
    let databases: Vec<String> = sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datallowconn ORDER BY datname")
        .fetch_all(&mut admin)
        .await
        .map_err(|e| database_error(&e))?;
    for database in databases {
        let mut conn = connect(url, &database).await?;
        insula_kit::replace_keys(&mut conn, &database, &key).await.map_err(|e| Error::new(e.kind(), e.to_string(), ""))?;
        conn.close().await.map_err(|e| database_error(&e))?;
    }
    admin.close().await.map_err(|e| database_error(&e))
}

async fn connect(url: &Url, database: &str) -> Result<PgConnection, Error> {
    let mut url = url.clone();
    url.set_path(database);
    PgConnection::connect(url.as_str()).await.map_err(|e| database_error(&e))
}

fn database_error(error: &sqlx::Error) -> Error {
    Error::new(Kind::Unavailable, error.to_string(), "")
}

fn in_cell(cell: &CellName, error: &Error) -> Error {
    let help =
        "mend that and start again with --new-root-key: until it gets through, some logins have new passwords and some old ones";
    Error::new(error.kind(), format!("cell {cell} cannot be given new secrets: {error}"), help)
}
