//! The catalog in Postgres, read as the role `insula_reader`.

use std::collections::{BTreeSet, HashSet};
use std::str::FromStr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use insula_core::{KeyId, ProviderId, TenantId};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{FromRow, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::row::{Change, Changes, DatabaseId, Page};
use crate::source::Source;
use crate::{Error, backoff::Backoff};

mod identity;
mod record;
use identity::{KeyRecord, ProviderRecord};
use record::{CellRecord, DatabaseRecord, DocumentRecord, PlanRecord, TenantRecord};

/// Keys or tenants read at once: what a page takes in memory, on both sides, is there several times while it passes through.
const PAGE: i64 = 1_000;
/// More changes than these are not looked up one by one: loading everything, page by page, needs less memory on both sides.
const MOST_CHANGES: i64 = 50_000;
/// The longest single answer.
const PATIENCE: Duration = Duration::from_secs(20);
const CHANNEL: &str = "insula_change";
/// One moment for everything that is read, and no way to write.
const BEGIN: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The catalog's database as a [`Source`].
pub struct PgSource {
    pool: PgPool,
    /// The catalog that an earlier process knew, until it is seen that this is the same.
    expected: Mutex<Option<Uuid>>,
    identity: OnceLock<Uuid>,
}

impl PgSource {
    /// A source that connects when it is first asked: the catalog may come up later than this process.
    ///
    /// # Errors
    /// When the URL does not parse.
    pub fn connect(url: &str) -> Result<Self, Error> {
        // One connection listens, one reads.
        Self::with_connections(url, 2)
    }

    /// [`PgSource::connect`] for several readers at once.
    ///
    /// # Errors
    /// When the URL does not parse.
    pub fn with_connections(url: &str, most: u32) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(url).map_err(|_| Error::Url)?;
        let options = options.application_name("insula catalog").options([("statement_timeout", "30s")]);
        let pool = PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_secs(60))
            .connect_lazy_with(options);
        Ok(Self { pool, expected: Mutex::default(), identity: OnceLock::new() })
    }

    /// The revision now.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn revision(&self) -> Result<i64, Error> {
        patiently(async { Ok(revision(&mut *self.pool.acquire().await?).await?.0) }).await
    }

    /// Which catalog this is.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn catalog(&self) -> Result<Uuid, Error> {
        if let Some(known) = self.identity.get() {
            return Ok(*known);
        }
        let found: Uuid = patiently(async {
            Ok(sqlx::query_scalar("SELECT id FROM catalog.identity").fetch_one(&mut *self.pool.acquire().await?).await?)
        })
        .await?;
        Ok(*self.identity.get_or_init(|| found))
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a begin cut off leaves an open read-only transaction behind; it has no snapshot yet, so who joins it reads the present"
    )]
    async fn begin(&self) -> Result<Transaction<'static, Postgres>, Error> {
        Ok(self.pool.begin_with(BEGIN).await?)
    }
}

async fn revision(conn: &mut PgConnection) -> Result<(i64, i64), Error> {
    Ok(sqlx::query_as("SELECT rev, oldest FROM catalog.revision").fetch_one(conn).await?)
}

async fn patiently<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(PATIENCE, work).await.map_err(|_| Error::Timeout)?
}

impl Source for PgSource {
    async fn load(&self, pages: mpsc::Sender<Page>) -> Result<i64, Error> {
        self.catalog().await?;
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let send = async |page| pages.send(page).await.map_err(|_| Error::Stopped);
        let mut tx = patiently(self.begin()).await?;
        let (rev, _) = patiently(revision(&mut tx)).await?;
        let plans = patiently(fetch::<PlanRecord>(&mut tx, PlanRecord::ALL)).await?;
        send(Page::Plans(plans.into_iter().filter_map(PlanRecord::read).collect())).await?;
        let cells = patiently(fetch::<CellRecord>(&mut tx, CellRecord::ALL)).await?;
        send(Page::Cells(cells.into_iter().filter_map(CellRecord::read).collect())).await?;
        let databases = patiently(fetch::<DatabaseRecord>(&mut tx, DatabaseRecord::ALL)).await?;
        send(Page::Databases(databases.into_iter().filter_map(DatabaseRecord::read).collect())).await?;
        let providers = patiently(fetch::<ProviderRecord>(&mut tx, ProviderRecord::ALL)).await?;
        send(Page::Providers(providers.into_iter().map(ProviderRecord::read).collect())).await?;
        let mut after = Uuid::nil();
        loop {
            let page = sqlx::query_as::<_, KeyRecord>(KeyRecord::PAGE).bind(after).bind(PAGE).fetch_all(&mut *tx);
            let records = patiently(async { Ok(page.await?) }).await?;
            let Some(last) = records.last() else { break };
            after = last.id;
            send(Page::Keys(records.into_iter().filter_map(KeyRecord::read).collect())).await?;
        }
        let documents = patiently(fetch::<DocumentRecord>(&mut tx, DocumentRecord::ALL)).await?;
        send(Page::Documents(documents.into_iter().filter_map(DocumentRecord::read).collect())).await?;
        let mut after = 0;
        loop {
            let page = sqlx::query_as::<_, TenantRecord>(TenantRecord::PAGE).bind(after).bind(PAGE).fetch_all(&mut *tx);
            let records = patiently(async { Ok(page.await?) }).await?;
            let Some(last) = records.last() else { break };
            after = last.no;
            send(Page::Tenants(records.into_iter().filter_map(TenantRecord::read).collect())).await?;
        }
        tx.rollback().await.ok();
        Ok(rev)
    }

    async fn changes(&self, since: i64) -> Result<Changes, Error> {
        let expected = *self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(expected) = expected {
            if self.catalog().await? != expected {
                return Err(Error::Trimmed { since });
            }
            *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        patiently(async {
            // Mostly there is nothing new, and one statement says so.
            if revision(&mut *self.pool.acquire().await?).await?.0 == since {
                return Ok(Changes { revision: since, changes: Vec::new() });
            }
            let mut tx = self.begin().await?;
            let (rev, oldest) = revision(&mut tx).await?;
            if since < oldest || since > rev {
                return Err(Error::Trimmed { since });
            }
            // A tenant, its placement and its domains are looked up as one.
            let names = "SELECT DISTINCT CASE WHEN kind IN ('placement', 'domain') THEN 'tenant' ELSE kind END, id \
                         FROM catalog.change WHERE rev > $1 LIMIT $2";
            let names: Vec<(String, String)> =
                sqlx::query_as(names).bind(since).bind(MOST_CHANGES + 1).fetch_all(&mut *tx).await?;
            if names.len() > MOST_CHANGES as usize {
                return Err(Error::Trimmed { since });
            }
            let changes = look_up(&mut tx, names).await?;
            tx.rollback().await.ok();
            Ok(Changes { revision: rev, changes })
        })
        .await
    }

    fn identity(&self) -> Option<Uuid> {
        self.identity.get().copied()
    }

    fn resume(&self, _: i64, identity: Option<Uuid>) {
        *self.expected.lock().unwrap_or_else(PoisonError::into_inner) = identity;
    }

    fn wake_ups(&self) -> watch::Receiver<()> {
        let (sender, receiver) = watch::channel(());
        tokio::spawn(listen(self.pool.clone(), sender));
        receiver
    }
}

async fn fetch<R>(conn: &mut PgConnection, sql: &'static str) -> Result<Vec<R>, Error>
where
    R: for<'r> FromRow<'r, sqlx::postgres::PgRow> + Send + Unpin,
{
    Ok(sqlx::query_as(sql).fetch_all(conn).await?)
}

/// What the names of the feed stand for now.
async fn look_up(conn: &mut PgConnection, names: Vec<(String, String)>) -> Result<Vec<Change>, Error> {
    let (mut plans, mut cells, mut documents) = (Vec::new(), Vec::new(), Vec::new());
    let (mut database_cells, mut database_names) = (Vec::new(), Vec::new());
    let (mut tenants, mut providers, mut keys) = (BTreeSet::new(), Vec::new(), Vec::new());
    for (kind, id) in names {
        match kind.as_str() {
            "plan" => plans.push(id),
            "cell" => cells.push(id),
            "document" => documents.push(id),
            "database" => {
                if let Some((cell, name)) = id.split_once('/') {
                    database_cells.push(cell.to_owned());
                    database_names.push(name.to_owned());
                }
            }
            "tenant" => tenants.extend(Uuid::parse_str(&id)),
            "provider" => providers.extend(Uuid::parse_str(&id)),
            "key" => keys.extend(Uuid::parse_str(&id)),
            // A kind of a newer catalog; this program has no use for it.
            _ => {}
        }
    }
    let mut changes = Vec::new();
    if !plans.is_empty() {
        let records: Vec<PlanRecord> = sqlx::query_as(PlanRecord::SOME).bind(&plans).fetch_all(&mut *conn).await?;
        let there: HashSet<_> = records.iter().map(|record| record.name.clone()).collect();
        changes.extend(records.into_iter().filter_map(PlanRecord::read).map(|plan| Change::Plan(plan.name.clone(), Some(plan))));
        let gone = plans.into_iter().filter(|name| !there.contains(name));
        changes.extend(gone.filter_map(|name| Some(Change::Plan(name.parse().ok()?, None))));
    }
    if !cells.is_empty() {
        let records: Vec<CellRecord> = sqlx::query_as(CellRecord::SOME).bind(&cells).fetch_all(&mut *conn).await?;
        let there: HashSet<_> = records.iter().map(|record| record.name.clone()).collect();
        changes.extend(records.into_iter().filter_map(CellRecord::read).map(|cell| Change::Cell(cell.name.clone(), Some(cell))));
        let gone = cells.into_iter().filter(|name| !there.contains(name));
        changes.extend(gone.filter_map(|name| Some(Change::Cell(name.parse().ok()?, None))));
    }
    if !documents.is_empty() {
        let records: Vec<DocumentRecord> = sqlx::query_as(DocumentRecord::SOME).bind(&documents).fetch_all(&mut *conn).await?;
        let there: HashSet<_> = records.iter().map(|record| record.name.clone()).collect();
        let read = records.into_iter().filter_map(DocumentRecord::read);
        changes.extend(read.map(|document| Change::Document(Arc::clone(&document.name), Some(document))));
        changes
            .extend(documents.into_iter().filter(|name| !there.contains(name)).map(|name| Change::Document(name.into(), None)));
    }
    if !database_names.is_empty() {
        let query = sqlx::query_as(DatabaseRecord::SOME).bind(&database_cells).bind(&database_names);
        let records: Vec<DatabaseRecord> = query.fetch_all(&mut *conn).await?;
        let rows: Vec<_> = records.into_iter().filter_map(DatabaseRecord::read).collect();
        let there: HashSet<_> = rows.iter().map(|row| row.id.clone()).collect();
        changes.extend(rows.into_iter().map(|row| Change::Database(row.id.clone(), Some(row))));
        for (cell, name) in database_cells.into_iter().zip(database_names) {
            let Ok(cell) = cell.parse() else { continue };
            let id = DatabaseId { cell, name: name.into() };
            if !there.contains(&id) {
                changes.push(Change::Database(id, None));
            }
        }
    }
    if !providers.is_empty() {
        let records: Vec<ProviderRecord> = sqlx::query_as(ProviderRecord::SOME).bind(&providers).fetch_all(&mut *conn).await?;
        let rows: Vec<_> = records.into_iter().map(ProviderRecord::read).collect();
        let there: HashSet<ProviderId> = rows.iter().map(|row| row.id).collect();
        changes.extend(rows.into_iter().map(|row| Change::Provider(row.id, Some(row))));
        let gone = providers.into_iter().map(ProviderId::from).filter(|id| !there.contains(id));
        changes.extend(gone.map(|id| Change::Provider(id, None)));
    }
    for page in keys.chunks(PAGE as usize) {
        let records: Vec<KeyRecord> = sqlx::query_as(KeyRecord::SOME).bind(page).fetch_all(&mut *conn).await?;
        let rows: Vec<_> = records.into_iter().filter_map(KeyRecord::read).collect();
        let there: HashSet<KeyId> = rows.iter().map(|row| row.id).collect();
        changes.extend(rows.into_iter().map(|row| Change::Key(row.id, Some(row))));
        let gone = page.iter().map(|id| KeyId::from(*id)).filter(|id| !there.contains(id));
        changes.extend(gone.map(|id| Change::Key(id, None)));
    }
    let tenants: Vec<Uuid> = tenants.into_iter().collect();
    for page in tenants.chunks(PAGE as usize) {
        let records: Vec<TenantRecord> = sqlx::query_as(TenantRecord::SOME).bind(page).fetch_all(&mut *conn).await?;
        let rows: Vec<_> = records.into_iter().filter_map(TenantRecord::read).collect();
        let there: HashSet<TenantId> = rows.iter().map(|row| row.id).collect();
        changes.extend(rows.into_iter().map(|row| Change::Tenant(row.id, Some(Box::new(row)))));
        let gone = page.iter().map(|id| TenantId::from(*id)).filter(|id| !there.contains(id));
        changes.extend(gone.map(|id| Change::Tenant(id, None)));
    }
    Ok(changes)
}

/// Listens until nobody waits for wake-ups any more. The follower's polling covers the times without a connection, and reports
/// them: here is silence.
async fn listen(pool: PgPool, wake: watch::Sender<()>) {
    let mut backoff = Backoff::default();
    loop {
        let connected = Instant::now();
        tokio::select! {
            () = wake.closed() => return,
            result = listen_once(&pool, &wake) => if let Err(error) = result {
                tracing::debug!(%error, "not listening to the catalog");
            }
        }
        if connected.elapsed() > Duration::from_secs(10) {
            backoff = Backoff::default();
        }
        tokio::select! {
            () = wake.closed() => return,
            () = sleep(backoff.next_delay()) => {}
        }
    }
}

async fn listen_once(pool: &PgPool, wake: &watch::Sender<()>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    // A connection that is lost is made anew by `listen`, with a pause between tries.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    // Something may have happened before.
    wake.send_replace(());
    while listener.try_recv().await?.is_some() {
        // One look answers all that wait.
        while listener.next_buffered().is_some() {}
        wake.send_replace(());
    }
    Ok(())
}
