//! The catalog, as the supervisor of this machine uses it: makes it, and keeps in it where the cells are.
//!
//! Always: a row is written only when it says something new, since every change wakes every data plane.

use aws_lc_rs::digest::{SHA256, digest};
use insula_api::key::Scope;
use insula_core::placement::{CATALOG_DATABASE, READER_ROLE};
use insula_core::{CellName, Kind, RootKey};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use url::Url;

use crate::error::Error;

/// The host side's access to the catalog.
#[derive(Clone, Debug)]
pub(crate) struct HostCatalog {
    pool: PgPool,
    url: String,
    reader_url: String,
}

/// Where a cell is, as the catalog is to have it.
#[derive(Clone, Debug)]
pub(crate) struct CellPlace {
    pub(crate) name: CellName,
    pub(crate) provider: &'static str,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: String,
    pub(crate) admin_role: String,
    pub(crate) app_url: Option<String>,
}

/// A cell in the catalog. The `embedded` ones are for this machine to run.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct KnownCell {
    pub(crate) name: String,
    pub(crate) provider: String,
    pub(crate) state: String,
    pub(crate) dedicated: bool,
    /// The one tenant's database, in a dedicated cell that has one.
    pub(crate) home: Option<String>,
}

impl HostCatalog {
    /// Connects to the server, makes the database and its schema, and lets data planes read it.
    ///
    /// A URL that names a database other than `postgres` means that one; otherwise it is `insula_catalog`.
    /// `replaced`: the root key is a new one, and what another signed is worth nothing any more. Otherwise a catalog of another root
    /// key is refused before anything changes in it: somebody else runs on it, from another folder.
    pub(crate) async fn open(server: &str, root: &RootKey, replaced: bool) -> Result<Self, Error> {
        let mut url = parse(server)?;
        if matches!(url.path(), "" | "/" | "/postgres") {
            url.set_path("/postgres");
            create_database(url.as_str()).await?;
            url.set_path(CATALOG_DATABASE);
        }
        let options: PgConnectOptions = url.as_str().parse().map_err(|e| database_error("read the address of", &e))?;
        let pool = PgPoolOptions::new()
            .max_connections(3)
            .min_connections(0)
            .connect_with(options.application_name("insula up"))
            .await
            .map_err(|e| database_error("connect to", &e))?;
        match foreign_keys(&pool, root).await? {
            0 => {}
            _ if replaced => {
                let forget = sqlx::query("DELETE FROM catalog.context_key").execute(&pool).await;
                forget.map_err(|e| database_error("forget the signing keys of", &e))?;
            }
            _ => return Err(another_root_key()),
        }
        let password = root.catalog_password(READER_ROLE);
        insula_catalog::schema::migrate(&pool, Some(&password))
            .await
            .map_err(|e| Error::new(e.kind(), format!("cannot bring the catalog up to date: {e}"), ""))?;
        let mut reader = url.clone();
        let told = reader.set_username(READER_ROLE).and_then(|()| reader.set_password(Some(&password)));
        told.map_err(|()| Error::new(Kind::Invalid, "the catalog's address has no host", ""))?;
        Ok(Self { pool, url: url.into(), reader_url: reader.into() })
    }

    /// For the control plane. Holds the password.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// For data planes. Holds the reader's password.
    pub(crate) fn reader_url(&self) -> &str {
        &self.reader_url
    }

    /// A feed of what changes.
    pub(crate) async fn listen(&self) -> Result<PgListener, Error> {
        let mut listener = PgListener::connect(&self.url).await.map_err(|e| database_error("listen to", &e))?;
        listener.listen("insula_change").await.map_err(|e| database_error("listen to", &e))?;
        Ok(listener)
    }

    /// Makes an API key of this machine valid.
    pub(crate) async fn put_key(&self, name: &str, scope: Scope, key: &str) -> Result<(), Error> {
        sqlx::query("INSERT INTO catalog.api_key (id, name, scope, hash) VALUES ($1, $2, $3, $4) ON CONFLICT (hash) DO NOTHING")
            .bind(uuid::Uuid::now_v7())
            .bind(name)
            .bind(scope.as_str())
            .bind(digest(&SHA256, key.as_bytes()).as_ref())
            .execute(&self.pool)
            .await
            .map_err(|e| database_error("write to", &e))?;
        Ok(())
    }

    /// Notes where a cell is. One that was asked for is ready by that; any other keeps its state.
    pub(crate) async fn put_cell(&self, cell: &CellPlace) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO catalog.cell AS c (name, provider, state, host, port, tls, admin_role, app_url)
             VALUES ($1, $2, 'ready', $3, $4, $5, $6, $7)
             ON CONFLICT (name) DO UPDATE SET host = excluded.host, port = excluded.port, tls = excluded.tls,
                 admin_role = excluded.admin_role, app_url = excluded.app_url, version = c.version + 1, updated_at = now(),
                 state = CASE c.state WHEN 'requested' THEN 'ready' ELSE c.state END
             WHERE (c.host, c.port, c.tls, c.admin_role, c.app_url)
                 IS DISTINCT FROM (excluded.host, excluded.port, excluded.tls, excluded.admin_role, excluded.app_url)
                OR c.state = 'requested'",
        )
        .bind(cell.name.as_str())
        .bind(cell.provider)
        .bind(&cell.host)
        .bind(i32::from(cell.port))
        .bind(&cell.tls)
        .bind(&cell.admin_role)
        .bind(&cell.app_url)
        .execute(&self.pool)
        .await
        .map_err(|e| database_error("write to", &e))?;
        Ok(())
    }

    /// All cells.
    pub(crate) async fn cells(&self) -> Result<Vec<KnownCell>, Error> {
        sqlx::query_as(
            "SELECT c.name, c.provider, c.state, c.dedicated,
                    (SELECT p.database FROM catalog.placement p WHERE p.cell = c.name AND c.dedicated LIMIT 1) AS home
             FROM catalog.cell c ORDER BY c.name",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|e| database_error("read", &e))
    }

    /// The keys that sign tenant contexts: number, and the Unix seconds from which it signs.
    pub(crate) async fn context_keys(&self) -> Result<Vec<(i32, i64)>, Error> {
        sqlx::query_as(
            "SELECT no, extract(epoch FROM signs_from)::bigint FROM catalog.context_key
             WHERE ends_at IS NULL OR ends_at > now() ORDER BY no",
        )
        .fetch_all(&self.pool)
        .await
        .map_err(|e| database_error("read the signing keys of", &e))
    }

    /// Forgets a cell that was taken away; one that still holds tenants stays.
    pub(crate) async fn forget_cell(&self, name: &str) -> Result<(), Error> {
        let forget = async {
            let mut tx = self.pool.begin().await?;
            sqlx::query("DELETE FROM catalog.migration_run WHERE cell = $1").bind(name).execute(&mut *tx).await?;
            sqlx::query("DELETE FROM catalog.cell_database WHERE cell = $1").bind(name).execute(&mut *tx).await?;
            sqlx::query("DELETE FROM catalog.cell WHERE name = $1 AND state = 'removing'").bind(name).execute(&mut *tx).await?;
            tx.commit().await
        };
        forget.await.map_err(|e| database_error("write to", &e))
    }

    /// Whether a placement still points to the cell.
    pub(crate) async fn is_inhabited(&self, name: &str) -> Result<bool, Error> {
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM catalog.placement WHERE cell = $1)")
            .bind(name)
            .fetch_one(&self.pool)
            .await
            .map_err(|e| database_error("read", &e))
    }
}

/// How many of the catalog's signing keys follow from another root key than ours.
async fn foreign_keys(pool: &PgPool, root: &RootKey) -> Result<usize, Error> {
    let read = async {
        let there: bool = sqlx::query_scalar("SELECT to_regclass('catalog.context_key') IS NOT NULL").fetch_one(pool).await?;
        if !there {
            return Ok(Vec::new());
        }
        sqlx::query_as::<_, (i32, String)>("SELECT no, kid FROM catalog.context_key").fetch_all(pool).await
    };
    let keys = read.await.map_err(|e| database_error("read the signing keys of", &e))?;
    Ok(keys.iter().filter(|(no, kid)| root.context_key(*no).map_or(true, |key| key.kid() != kid)).count())
}

fn another_root_key() -> Error {
    let message = "this catalog was made with another root key: another folder's `insula up` works with it";
    let help = "use that folder, or put its root.key here; if it is lost: docs/runbooks/lost-key-file.md (--new-root-key)";
    Error::new(Kind::Conflict, message, help)
}

async fn create_database(url: &str) -> Result<(), Error> {
    let create = async {
        let mut conn = PgConnection::connect(url).await?;
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)")
            .bind(CATALOG_DATABASE)
            .fetch_one(&mut conn)
            .await?;
        if !there {
            // FILE_COPY of an empty template would force two checkpoints.
            let create = format!("CREATE DATABASE {CATALOG_DATABASE} TEMPLATE template0 STRATEGY wal_log");
            sqlx::query(AssertSqlSafe(create)).execute(&mut conn).await?;
        }
        conn.close().await
    };
    create.await.map_err(|e| database_error("create", &e))
}

/// Reads a Postgres URL; the answer to a bad one does not quote it, since it may hold a password.
pub(crate) fn parse(url: &str) -> Result<Url, Error> {
    let parsed = Url::parse(url).ok().filter(|u| matches!(u.scheme(), "postgres" | "postgresql") && u.host_str().is_some());
    parsed.ok_or_else(|| {
        Error::new(
            Kind::Invalid,
            "an address of a Postgres server is not valid",
            "it looks like postgres://ROLE:PASSWORD@HOST:PORT/DATABASE",
        )
    })
}

/// sqlx's messages name hosts, roles and databases, never passwords.
fn database_error(verb: &str, error: &sqlx::Error) -> Error {
    Error::new(Kind::Unavailable, format!("cannot {verb} the catalog: {error}"), "")
}
