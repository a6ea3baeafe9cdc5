//! A whole cell for tests: server, catalog, kit, and tenants in every isolation mode, without a control plane.

use insula_core::placement::{
    APP_SCHEMA, CATALOG_DATABASE, OWNER_ROLE, POOL_DATABASE, READER_ROLE, SCHEMAS_DATABASE, TEMPLATE_DATABASE, role_of,
};
use insula_core::{Isolation, KeyRing, MoveState, Placement, PlanName, Slug, TenantContext, TenantId, TenantNo, TenantState};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::sync::OnceCell;

use crate::server::{TestServer, server};

/// The cell `main` with its catalog.
#[derive(Debug)]
pub struct TestCell {
    server: &'static TestServer,
    migration: &'static str,
}

/// A tenant that is there, and its place.
#[derive(Clone, Debug)]
pub struct TestTenant {
    /// Who it is.
    pub context: TenantContext,
    /// Where it lives.
    pub placement: Placement,
}

impl TestCell {
    /// The cell that all tests of this binary share. `migration` is the application's SQL (unqualified, with a call of
    /// `insula.tenant_table()` for each table); the first call decides.
    pub async fn shared(migration: &'static str) -> &'static Self {
        static CELL: OnceCell<TestCell> = OnceCell::const_new();
        CELL.get_or_init(|| async {
            let cell = Self { server: server().await, migration };
            cell.build().await;
            cell
        })
        .await
    }

    async fn build(&self) {
        let key = self.server.cell_key();
        let mut admin = self.server.admin("postgres").await;
        insula_kit::prepare_server(&mut admin, &key).await.expect("the server's roles");
        for database in [POOL_DATABASE, SCHEMAS_DATABASE, TEMPLATE_DATABASE] {
            insula_kit::create_database(&mut admin, database).await.expect("a database");
            let mut conn = self.server.admin(database).await;
            insula_kit::install(&mut conn, database, &key, 1).await.expect("the kit");
            if database != SCHEMAS_DATABASE {
                self.migrate(&mut conn, APP_SCHEMA).await;
            }
            conn.close().await.expect("closed");
        }
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {CATALOG_DATABASE}"))).execute(&mut admin).await.expect("a catalog");
        let pool = self.catalog().await;
        let password = self.server.root_key().catalog_password(READER_ROLE);
        insula_catalog::schema::migrate(&pool, Some(&password)).await.expect("the catalog's schema");
        sqlx::query(
            "INSERT INTO catalog.cell (name, provider, state, host, port, tls, kit_way)
             VALUES ($1, 'embedded', 'ready', $2, $3, 'disable', 1)",
        )
        .bind(self.server.cell().as_str())
        .bind(self.server.host())
        .bind(i32::from(self.server.port()))
        .execute(&pool)
        .await
        .expect("a cell");
        for (database, purpose) in [(POOL_DATABASE, "pool"), (SCHEMAS_DATABASE, "schemas")] {
            self.name_database(&pool, database, purpose).await;
        }
        pool.close().await;
    }

    async fn name_database(&self, pool: &PgPool, database: &str, purpose: &str) {
        sqlx::query("INSERT INTO catalog.cell_database (cell, name, purpose) VALUES ($1, $2, $3)")
            .bind(self.server.cell().as_str())
            .bind(database)
            .bind(purpose)
            .execute(pool)
            .await
            .expect("a database in the catalog");
    }

    async fn migrate(&self, conn: &mut PgConnection, schema: &str) {
        let mut tx = conn.begin().await.expect("a transaction");
        let sql = format!("SET LOCAL ROLE {OWNER_ROLE}; SET LOCAL search_path = {schema}; {}", self.migration);
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.expect("the migration");
        tx.commit().await.expect("committed");
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &'static TestServer {
        self.server
    }

    /// A few connections to the catalog as its owner. Not shared: a pool belongs to the runtime of one test.
    pub async fn catalog(&self) -> PgPool {
        let options = sqlx::postgres::PgPoolOptions::new().max_connections(4);
        options.connect(&self.server.admin_url(CATALOG_DATABASE)).await.expect("the catalog")
    }

    /// What a data plane reads the catalog with.
    #[must_use]
    pub fn catalog_url(&self) -> String {
        let password = self.server.root_key().catalog_password(READER_ROLE);
        format!(
            "postgres://{READER_ROLE}:{password}@{}:{}/{CATALOG_DATABASE}?sslmode=disable",
            self.server.host(),
            self.server.port()
        )
    }

    /// The keys that a data plane of this cell is given.
    #[must_use]
    pub fn key_ring(&self) -> KeyRing {
        KeyRing::new([(self.server.cell(), self.server.cell_key())])
    }

    /// A new, active tenant of a default plan (`bronze`, `silver`, `gold`, `platinum`). `cell` isolation is a database here.
    pub async fn tenant(&self, slug: &str, plan: &str, isolation: Isolation) -> TestTenant {
        let (slug, plan): (Slug, PlanName) = (slug.parse().expect("a slug"), plan.parse().expect("a plan name"));
        let id = TenantId::new();
        let placement = self.place(id, isolation);
        let catalog = self.catalog().await;
        if matches!(isolation, Isolation::Database | Isolation::Cell) {
            let mut admin = self.server.admin("postgres").await;
            let making = insula_kit::clone_database(&mut admin, &placement.database, TEMPLATE_DATABASE).await;
            making.expect("a database from the template");
            self.name_database(&catalog, &placement.database, "tenant").await;
        }
        let no = self.insert(&catalog, id, &slug, &plan, &placement).await;
        self.open(no, &placement).await;
        sqlx::query("UPDATE catalog.tenant SET state = 'active' WHERE id = $1")
            .bind(id.uuid())
            .execute(&catalog)
            .await
            .expect("active");
        catalog.close().await;
        let context =
            TenantContext { tenant: id, no, slug, plan, principal: None, request_id: "test".into(), proof: None, trace: None };
        TestTenant { context, placement }
    }

    fn place(&self, id: TenantId, isolation: Isolation) -> Placement {
        let opaque = self.server.cell_key().opaque_name(id);
        let (database, schema) = match isolation {
            Isolation::Row => (POOL_DATABASE.to_owned(), APP_SCHEMA.to_owned()),
            Isolation::Schema => (SCHEMAS_DATABASE.to_owned(), format!("s{opaque}")),
            Isolation::Database | Isolation::Cell => (format!("d{opaque}"), APP_SCHEMA.to_owned()),
        };
        let (database, schema) = (database.into(), schema.into());
        Placement { cell: self.server.cell(), database, schema, isolation, epoch: 1, state: MoveState::Active }
    }

    async fn insert(&self, catalog: &PgPool, id: TenantId, slug: &Slug, plan: &PlanName, place: &Placement) -> TenantNo {
        let mut tx = catalog.begin().await.expect("a transaction");
        let no: i64 = sqlx::query_scalar(
            "INSERT INTO catalog.tenant (id, slug, name, plan, state) VALUES ($1, $2, $2, $3, 'provisioning') RETURNING no",
        )
        .bind(id.uuid())
        .bind(slug.as_str())
        .bind(plan.as_str())
        .fetch_one(&mut *tx)
        .await
        .expect("a tenant");
        sqlx::query(
            "INSERT INTO catalog.placement (tenant, cell, database, schema, isolation, epoch) VALUES ($1, $2, $3, $4, $5, 1)",
        )
        .bind(id.uuid())
        .bind(place.cell.as_str())
        .bind(&*place.database)
        .bind(&*place.schema)
        .bind(place.isolation.as_str())
        .execute(&mut *tx)
        .await
        .expect("a placement");
        tx.commit().await.expect("committed");
        TenantNo::new(no).expect("positive")
    }

    /// Makes the tenant known in its database, with the login and the schema that it needs.
    async fn open(&self, no: TenantNo, place: &Placement) {
        let mut conn = self.server.admin(&place.database).await;
        let role = (place.isolation != Isolation::Row).then(|| place.role());
        insula_kit::register_tenant(&mut conn, no, place.epoch, role.as_deref()).await.expect("registered");
        let Some(role) = role else { return };
        let password = self.server.cell_key().role_password(&role);
        let login = insula_kit::create_login(&mut conn, &role, &password, no, &place.database, &place.schema).await;
        login.expect("a login");
        if place.isolation == Isolation::Schema {
            debug_assert_eq!(role, role_of(&place.schema));
            self.migrate(&mut conn, &place.schema).await;
        }
    }

    /// Changes a tenant's state or epoch where it lives and in the catalog, as the control plane does.
    pub async fn set_tenant(&self, tenant: &TestTenant, epoch: i64, state: TenantState) {
        let mut conn = self.server.admin(&tenant.placement.database).await;
        insula_kit::set_tenant(&mut conn, tenant.context.no, epoch, state).await.expect("set in its database");
        let catalog = self.catalog().await;
        let mut tx = catalog.begin().await.expect("a transaction");
        sqlx::query("UPDATE catalog.placement SET epoch = $2, updated_at = now() WHERE tenant = $1")
            .bind(tenant.context.tenant.uuid())
            .bind(epoch)
            .execute(&mut *tx)
            .await
            .expect("an epoch");
        sqlx::query("UPDATE catalog.tenant SET state = $2, updated_at = now() WHERE id = $1")
            .bind(tenant.context.tenant.uuid())
            .bind(state.as_str())
            .execute(&mut *tx)
            .await
            .expect("a state");
        tx.commit().await.expect("committed");
        catalog.close().await;
    }

    /// Fails when a connection of the given role still sits in a transaction, or holds an advisory lock: a handle leaked.
    pub async fn assert_nothing_open(&self, role: &str) {
        let mut admin = self.server.admin("postgres").await;
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let open: Vec<String> = sqlx::query_scalar(
                "SELECT format('%s in %s: %s', pid, datname, state) FROM pg_stat_activity a WHERE usename = $1 AND
                 (state LIKE '%transaction%' OR EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND locktype = 'advisory'))",
            )
            .bind(role)
            .fetch_all(&mut admin)
            .await
            .expect("the activity");
            if open.is_empty() {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "left open: {open:?}");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}
