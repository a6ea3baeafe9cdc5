//! A catalog in memory, for tests: behaves as [`crate::PgSource`] does (they pass one suite of tests), needs no database, and can
//! be told to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use insula_core::placement::{APP_SCHEMA, POOL_DATABASE};
use insula_core::slug::NameError;
use insula_core::{
    CellName, FeatureValue, Isolation, KeyId, Limits, MoveState, Placement, Plan, PlanName, ProviderId, TenantId, TenantNo,
    TenantSettings, TenantState, Tier,
};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::Error;
use crate::document::Document;
use crate::identity::{ApiKey, Provider};
use crate::row::{Cell, CellState, Change, Changes, DatabaseId, DatabaseRow, Page, TenantRow, Tls};
use crate::source::Source;

/// A catalog in memory. Clones share it.
#[derive(Clone)]
pub struct FakeSource {
    content: Arc<Mutex<Content>>,
    wake: watch::Sender<()>,
}

/// What the fake holds; changed through [`FakeSource::change`].
#[derive(Default)]
pub struct Content {
    rev: i64,
    oldest: i64,
    failing: bool,
    identity: Uuid,
    feed: BTreeMap<i64, Name>,
    plans: BTreeMap<PlanName, Plan>,
    cells: BTreeMap<CellName, Cell>,
    databases: BTreeMap<DatabaseId, DatabaseRow>,
    documents: BTreeMap<Arc<str>, Document>,
    tenants: BTreeMap<TenantId, TenantRow>,
    providers: BTreeMap<ProviderId, Provider>,
    keys: BTreeMap<KeyId, ApiKey>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    Plan(PlanName),
    Cell(CellName),
    Database(DatabaseId),
    Document(Arc<str>),
    Tenant(TenantId),
    Provider(ProviderId),
    Key(KeyId),
}

impl Content {
    fn feed(&mut self, name: Name) {
        self.rev += 1;
        self.feed.insert(self.rev, name);
    }

    /// Adds or replaces a plan.
    pub fn put_plan(&mut self, plan: Plan) {
        self.feed(Name::Plan(plan.name.clone()));
        self.plans.insert(plan.name.clone(), plan);
    }

    /// Adds or replaces a cell.
    pub fn put_cell(&mut self, cell: Cell) {
        self.feed(Name::Cell(cell.name.clone()));
        self.cells.insert(cell.name.clone(), cell);
    }

    /// Removes a cell.
    pub fn remove_cell(&mut self, name: &CellName) {
        self.feed(Name::Cell(name.clone()));
        self.cells.remove(name);
    }

    /// Adds or replaces a database.
    pub fn put_database(&mut self, row: DatabaseRow) {
        self.feed(Name::Database(row.id.clone()));
        self.databases.insert(row.id.clone(), row);
    }

    /// Removes a database.
    pub fn remove_database(&mut self, id: &DatabaseId) {
        self.feed(Name::Database(id.clone()));
        self.databases.remove(id);
    }

    /// Adds or replaces a configuration document.
    pub fn put_document(&mut self, document: Document) {
        self.feed(Name::Document(Arc::clone(&document.name)));
        self.documents.insert(Arc::clone(&document.name), document);
    }

    /// Adds or replaces a tenant. As in the catalog, a host or slug that another tenant has is the caller's mistake.
    pub fn put_tenant(&mut self, row: TenantRow) {
        self.feed(Name::Tenant(row.id));
        self.tenants.insert(row.id, row);
    }

    /// Removes a tenant (as its deletion does).
    pub fn remove_tenant(&mut self, id: TenantId) {
        self.feed(Name::Tenant(id));
        self.tenants.remove(&id);
    }

    /// Adds or replaces an identity provider.
    pub fn put_provider(&mut self, row: Provider) {
        self.feed(Name::Provider(row.id));
        self.providers.insert(row.id, row);
    }

    /// Removes an identity provider.
    pub fn remove_provider(&mut self, id: ProviderId) {
        self.feed(Name::Provider(id));
        self.providers.remove(&id);
    }

    /// Adds an API key.
    pub fn put_key(&mut self, row: ApiKey) {
        self.feed(Name::Key(row.id));
        self.keys.insert(row.id, row);
    }

    /// Revokes an API key.
    pub fn remove_key(&mut self, id: KeyId) {
        self.feed(Name::Key(id));
        self.keys.remove(&id);
    }

    /// Forgets the feed so far: who has seen less than all of it must load anew.
    pub fn trim(&mut self) {
        self.oldest = self.rev;
        self.feed.clear();
    }

    /// Makes every call fail from now on, or no longer.
    pub fn set_failing(&mut self, failing: bool) {
        self.failing = failing;
    }
}

impl Default for FakeSource {
    fn default() -> Self {
        Self { content: Arc::default(), wake: watch::channel(()).0 }
    }
}

impl FakeSource {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes several things at one revision's moment, as one transaction, and wakes the followers.
    pub fn change<R>(&self, f: impl FnOnce(&mut Content) -> R) -> R {
        let result = f(&mut self.lock());
        self.wake.send_replace(());
        result
    }

    /// Changes without waking anyone: followers find out when they poll.
    pub fn change_silently<R>(&self, f: impl FnOnce(&mut Content) -> R) -> R {
        f(&mut self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<MutexGuard<'_, Content>, Error> {
        let content = self.lock();
        if content.failing { Err(Error::Unreachable(sqlx::Error::PoolClosed)) } else { Ok(content) }
    }
}

impl Source for FakeSource {
    async fn load(&self, pages: mpsc::Sender<Page>) -> Result<i64, Error> {
        let (rev, all) = {
            let content = self.read()?;
            let tenants: Vec<_> = content.tenants.values().cloned().collect();
            let mut all = vec![
                Page::Plans(content.plans.values().cloned().collect()),
                Page::Cells(content.cells.values().cloned().collect()),
                Page::Databases(content.databases.values().cloned().collect()),
                Page::Providers(content.providers.values().cloned().collect()),
                Page::Keys(content.keys.values().cloned().collect()),
                Page::Documents(content.documents.values().cloned().collect()),
            ];
            all.extend(tenants.chunks(100).map(|page| Page::Tenants(page.to_vec())));
            (content.rev, all)
        };
        for page in all {
            pages.send(page).await.map_err(|_| Error::Stopped)?;
        }
        Ok(rev)
    }

    async fn changes(&self, since: i64) -> Result<Changes, Error> {
        let content = self.read()?;
        if since < content.oldest || since > content.rev {
            return Err(Error::Trimmed { since });
        }
        let names: BTreeSet<_> = content.feed.range(since + 1..).map(|(_, name)| name.clone()).collect();
        let changes = names.into_iter().map(|name| match name {
            Name::Plan(name) => Change::Plan(name.clone(), content.plans.get(&name).cloned()),
            Name::Cell(name) => Change::Cell(name.clone(), content.cells.get(&name).cloned()),
            Name::Database(id) => Change::Database(id.clone(), content.databases.get(&id).cloned()),
            Name::Provider(id) => Change::Provider(id, content.providers.get(&id).cloned()),
            Name::Key(id) => Change::Key(id, content.keys.get(&id).cloned()),
            Name::Document(name) => Change::Document(Arc::clone(&name), content.documents.get(&name).cloned()),
            Name::Tenant(id) => Change::Tenant(id, content.tenants.get(&id).cloned().map(Box::new)),
        });
        Ok(Changes { revision: content.rev, changes: changes.collect() })
    }

    fn identity(&self) -> Option<Uuid> {
        Some(self.content.lock().unwrap_or_else(PoisonError::into_inner).identity)
    }

    fn wake_ups(&self) -> watch::Receiver<()> {
        self.wake.subscribe()
    }
}

/// A plan with generous limits.
///
/// # Errors
/// When the name is not one.
pub fn plan(name: &str) -> Result<Plan, NameError> {
    Ok(Plan {
        name: name.parse()?,
        tier: Tier { name: name.into(), weight: 1, pool_guarantee: 10, pool_cap: 100 },
        isolation: Isolation::Row,
        limits: Limits::default(),
        features: [("search".to_owned(), FeatureValue::Switch(true))].into(),
        temporary: BTreeMap::new(),
    })
}

/// A cell whose server listens at an address.
///
/// # Errors
/// When the name is not one.
pub fn cell(name: &str, host: &str, port: u16) -> Result<Cell, NameError> {
    let name = name.parse()?;
    let (host, port) = (Some(host.into()), Some(port));
    let (app_versions, replicas) = (Arc::new([]), Arc::new([]));
    Ok(Cell { name, host, port, tls: Tls::Prefer, state: CellState::Ready, app_url: None, app_versions, replicas })
}

/// A database of a cell.
///
/// # Errors
/// When the cell's name is not one.
pub fn database(cell: &str, name: &str, fence: i64) -> Result<DatabaseRow, NameError> {
    Ok(DatabaseRow { id: DatabaseId { cell: cell.parse()?, name: name.into() }, fence, kid: 1 })
}

/// An active `row` tenant in a cell's pool, at epoch 1, with a new id. Change its fields to have another.
///
/// # Errors
/// When a name is not one, or `no` is not positive.
pub fn tenant(slug: &str, no: i64, plan: &str, cell: &str) -> Result<TenantRow, NameError> {
    Ok(TenantRow {
        id: TenantId::new(),
        // A number that is none would be a test's mistake; 1 is as good as another.
        no: TenantNo::new(no).or(TenantNo::new(1)).ok_or(NameError::Length {
            what: "a tenant number",
            min: 1,
            max: 19,
            len: 0,
        })?,
        slug: slug.parse()?,
        name: slug.to_owned(),
        state: TenantState::Active,
        plan: plan.parse()?,
        features: BTreeMap::new(),
        limits: serde_json::Map::new(),
        settings: TenantSettings::default(),
        placement: Placement {
            cell: cell.parse()?,
            database: POOL_DATABASE.into(),
            schema: APP_SCHEMA.into(),
            isolation: Isolation::Row,
            epoch: 1,
            state: MoveState::Active,
        },
        schema_version: 0,
        domains: Vec::new(),
    })
}
