//! A catalog that tests can write to: the same steps for a fake and for Postgres.

use std::time::Duration;

use insula_catalog::row::{Cell, DatabaseId, DatabaseRow, TenantRow};
use insula_catalog::{ApiKey, Catalog, FakeSource, Options, PgSource, Provider, Source, fake, schema};
use insula_core::{CellName, KeyId, Plan, ProviderId, TenantId};
use insula_testkit::server;
use sqlx::{Connection, PgConnection, PgPool};

/// One step of a catalog transaction.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    PutPlan(Plan),
    PutCell(Cell),
    PutDatabase(DatabaseRow),
    RemoveDatabase(DatabaseId),
    RemoveCell(CellName),
    PutTenant(Box<TenantRow>),
    RemoveTenant(TenantId),
    PutProvider(Provider),
    RemoveProvider(ProviderId),
    PutKey(ApiKey),
    RevokeKey(KeyId),
}

/// A catalog that can be written to.
pub(crate) trait Backend {
    type Source: Source;
    fn source(&self) -> Self::Source;
    /// Carries the steps out in one transaction.
    async fn commit(&mut self, steps: Vec<Step>);
    /// Forgets the feed so far.
    async fn trim(&mut self);
}

impl Backend for FakeSource {
    type Source = Self;
    fn source(&self) -> Self {
        self.clone()
    }

    async fn commit(&mut self, steps: Vec<Step>) {
        self.change(|content| {
            for step in steps {
                match step {
                    Step::PutPlan(plan) => content.put_plan(plan),
                    Step::PutCell(cell) => content.put_cell(cell),
                    Step::PutDatabase(row) => content.put_database(row),
                    Step::RemoveDatabase(id) => content.remove_database(&id),
                    Step::RemoveCell(name) => content.remove_cell(&name),
                    Step::PutTenant(row) => content.put_tenant(*row),
                    Step::RemoveTenant(id) => content.remove_tenant(id),
                    Step::PutProvider(row) => content.put_provider(row),
                    Step::RemoveProvider(id) => content.remove_provider(id),
                    Step::PutKey(row) => content.put_key(row),
                    Step::RevokeKey(id) => content.remove_key(id),
                }
            }
        });
    }

    async fn trim(&mut self) {
        self.change(fake::Content::trim);
    }
}

/// A catalog database of its own on the test server.
pub(crate) struct Postgres {
    pub(crate) admin: PgConnection,
    pub(crate) reader_url: String,
}

impl Postgres {
    pub(crate) async fn new() -> Self {
        let server = server().await;
        let name = server.create_database("catalog").await;
        let pool = PgPool::connect(&server.admin_url(&name)).await.unwrap();
        let password = server.root_key().catalog_password("insula_reader");
        schema::migrate(&pool, Some(&password)).await.unwrap();
        pool.close().await;
        let reader_url =
            format!("postgres://insula_reader:{password}@{}:{}/{name}?sslmode=disable", server.host(), server.port());
        Self { admin: server.admin(&name).await, reader_url }
    }
}

impl Backend for Postgres {
    type Source = PgSource;
    fn source(&self) -> PgSource {
        PgSource::connect(&self.reader_url).unwrap()
    }

    async fn commit(&mut self, steps: Vec<Step>) {
        let mut tx = self.admin.begin().await.unwrap();
        for step in steps {
            carry_out(&mut tx, step).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    async fn trim(&mut self) {
        sqlx::query("SELECT catalog.trim_feed(0)").execute(&mut self.admin).await.unwrap();
    }
}

async fn carry_out(tx: &mut PgConnection, step: Step) -> Result<(), sqlx::Error> {
    match step {
        Step::PutPlan(plan) => {
            sqlx::query(
                "INSERT INTO catalog.plan (name, tier, isolation, limits, features) VALUES ($1, $2::jsonb, $3, $4::jsonb, $5::jsonb) \
                 ON CONFLICT (name) DO UPDATE SET tier = excluded.tier, isolation = excluded.isolation, limits = excluded.limits, features = excluded.features",
            )
            .bind(plan.name.as_str())
            .bind(sqlx::types::Json(&plan.tier))
            .bind(plan.isolation.as_str())
            .bind(sqlx::types::Json(&plan.limits))
            .bind(sqlx::types::Json(&plan.features))
            .execute(tx)
            .await?;
        }
        Step::PutCell(cell) => {
            sqlx::query(
                "INSERT INTO catalog.cell (name, provider, state, host, port, tls, app_url) VALUES ($1, 'registered', $2, $3, $4, $5, $6) \
                 ON CONFLICT (name) DO UPDATE SET state = excluded.state, host = excluded.host, port = excluded.port, tls = excluded.tls, app_url = excluded.app_url",
            )
            .bind(cell.name.as_str())
            .bind(cell.state.as_str())
            .bind(cell.host.as_deref())
            .bind(cell.port.map(i32::from))
            .bind(cell.tls.as_str())
            .bind(cell.app_url.as_deref())
            .execute(tx)
            .await?;
        }
        Step::PutDatabase(row) => {
            sqlx::query(
                "INSERT INTO catalog.cell_database (cell, name, purpose, fence, kid) VALUES ($1, $2, 'pool', $3, $4) \
                 ON CONFLICT (cell, name) DO UPDATE SET fence = excluded.fence, kid = excluded.kid",
            )
            .bind(row.id.cell.as_str())
            .bind(&*row.id.name)
            .bind(row.fence)
            .bind(row.kid)
            .execute(tx)
            .await?;
        }
        Step::RemoveDatabase(id) => {
            sqlx::query("DELETE FROM catalog.cell_database WHERE cell = $1 AND name = $2")
                .bind(id.cell.as_str())
                .bind(&*id.name)
                .execute(tx)
                .await?;
        }
        Step::RemoveCell(name) => {
            sqlx::query("DELETE FROM catalog.cell WHERE name = $1").bind(name.as_str()).execute(tx).await?;
        }
        Step::PutTenant(row) => put_tenant(tx, *row).await?,
        // As the control plane deletes: the row stays, out of the way of a new tenant's slug.
        Step::RemoveTenant(id) => {
            sqlx::query("DELETE FROM catalog.domain WHERE tenant = $1").bind(id.uuid()).execute(&mut *tx).await?;
            sqlx::query(
                "UPDATE catalog.tenant SET state = 'deleted', deleted_at = now(), slug = 'deleted-' || id::text WHERE id = $1",
            )
            .bind(id.uuid())
            .execute(tx)
            .await?;
        }
        step => crate::identity::carry_out(tx, step).await?,
    }
    Ok(())
}

async fn put_tenant(tx: &mut PgConnection, row: TenantRow) -> Result<(), sqlx::Error> {
    // Made as the control plane makes one: provisioning first, then activated.
    sqlx::query(
        "INSERT INTO catalog.tenant (id, no, slug, name, plan, state) OVERRIDING SYSTEM VALUE \
         VALUES ($1, $2, $3, $4, $5, 'provisioning') ON CONFLICT (id) DO NOTHING",
    )
    .bind(row.id.uuid())
    .bind(row.no.get())
    .bind(row.slug.as_str())
    .bind(&row.name)
    .bind(row.plan.as_str())
    .execute(&mut *tx)
    .await?;
    let place = &row.placement;
    sqlx::query(
        "INSERT INTO catalog.placement (tenant, cell, database, schema, isolation, epoch, state) VALUES ($1, $2, $3, $4, $5, $6, $7) \
         ON CONFLICT (tenant) DO UPDATE SET cell = excluded.cell, database = excluded.database, schema = excluded.schema, \
         isolation = excluded.isolation, epoch = excluded.epoch, state = excluded.state",
    )
    .bind(row.id.uuid())
    .bind(place.cell.as_str())
    .bind(&*place.database)
    .bind(&*place.schema)
    .bind(place.isolation.as_str())
    .bind(place.epoch)
    .bind(place.state.as_str())
    .execute(&mut *tx)
    .await?;
    sqlx::query(
        "UPDATE catalog.tenant SET slug = $2, name = $3, plan = $4, state = $5, features = $6::jsonb, limits = $7::jsonb, settings = $8::jsonb \
         WHERE id = $1",
    )
    .bind(row.id.uuid())
    .bind(row.slug.as_str())
    .bind(&row.name)
    .bind(row.plan.as_str())
    .bind(row.state.as_str())
    .bind(sqlx::types::Json(&row.features))
    .bind(sqlx::types::Json(&row.limits))
    .bind(sqlx::types::Json(&row.settings))
    .execute(&mut *tx)
    .await?;
    // Those that it has no longer, and those that another one had.
    sqlx::query("DELETE FROM catalog.domain WHERE (tenant = $1) <> (host = ANY ($2))")
        .bind(row.id.uuid())
        .bind(&row.domains)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO catalog.domain (host, tenant, verified_at) SELECT host, $1, now() FROM unnest($2::text[]) host \
         ON CONFLICT (host, tenant) DO NOTHING",
    )
    .bind(row.id.uuid())
    .bind(&row.domains)
    .execute(tx)
    .await?;
    Ok(())
}

/// Options under which nothing is found by polling, so that a test of pushing tests pushing.
pub(crate) fn no_polling() -> Options {
    Options { poll: Duration::from_secs(3600), ..Options::default() }
}

pub(crate) async fn ready(source: impl Source, options: Options) -> Catalog {
    let catalog = Catalog::start(source, options);
    tokio::time::timeout(Duration::from_secs(60), catalog.ready()).await.expect("the catalog is loaded");
    catalog
}

/// Waits until a reader sees what it should.
pub(crate) async fn eventually(catalog: &Catalog, what: &str, holds: impl Fn(&Catalog) -> bool) {
    let mut changed = catalog.changed();
    let wait = async {
        while !holds(catalog) {
            changed.changed().await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap_or_else(|_| panic!("never seen: {what}"));
}

/// A plan, a cell and its pool: what tenants need.
pub(crate) fn floor() -> Vec<Step> {
    vec![
        Step::PutPlan(fake::plan("basic").unwrap()),
        Step::PutCell(fake::cell("main", "127.0.0.1", 5432).unwrap()),
        Step::PutDatabase(fake::database("main", "insula_pool", 1).unwrap()),
    ]
}

/// The catalog's default plans are there from the start in Postgres, so tests use one of their own.
pub(crate) fn tenant(slug: &str, no: i64) -> TenantRow {
    fake::tenant(slug, no, "basic", "main").unwrap()
}

pub(crate) fn put(row: &TenantRow) -> Step {
    Step::PutTenant(Box::new(row.clone()))
}
