//! A server of a test's own, and a control plane on it that is impatient enough for tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use insula_control::config::CellSpec;
use insula_control::fault::{Fault, Faults, Moment};
use insula_control::model::{Bundle, CreateTenant, Migration, Operation, OperationState, Tenant};
use insula_control::{Background, Config, Control};
use insula_core::{Isolation, OperationId};
use insula_testkit::TestServer;
use sqlx::PgConnection;

/// Long enough for a busy machine; a test that needs it has failed.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// An argon2 hash, so that tests do not spend their time on making one each.
pub(crate) const HASH: &str = "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$KJTsXE4nFcOOXDkzeUDs8w";

/// A control plane and its server.
pub(crate) struct House {
    pub(crate) server: Arc<TestServer>,
    pub(crate) control: Control,
    background: Option<Background>,
}

/// What a tenant of the test application has.
pub(crate) fn bundle() -> Bundle {
    let migration = |version, name: &str, sql: &str| Migration { version, name: name.into(), sql: sql.into() };
    Bundle {
        migrations: vec![
            migration(
                1,
                "users and notes",
                "CREATE TABLE users (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), email text NOT NULL, hash text NOT NULL);
                 CREATE TABLE notes (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), author uuid NOT NULL REFERENCES users, body text);
                 SELECT insula.tenant_table('users');
                 SELECT insula.tenant_table('notes');",
            ),
            migration(
                2,
                "settings",
                "CREATE TABLE settings (name text NOT NULL, value jsonb NOT NULL);
                 SELECT insula.tenant_table('settings');",
            ),
        ],
        seed: "INSERT INTO users (email, hash) VALUES ($1, $2);
               INSERT INTO notes (author, body) SELECT id, 'Welcome, ' || $3 FROM users;
               INSERT INTO settings (name, value) VALUES ('look', $4)"
            .into(),
    }
}

impl House {
    /// A house with the test application in it.
    pub(crate) async fn start() -> Self {
        let house = Self::on(Arc::new(insula_testkit::durable_server().await), |_| {}).await;
        house.put_bundle().await;
        house
    }

    /// A control plane on a server, on the catalog that is there or on a new one.
    pub(crate) async fn on(server: Arc<TestServer>, change: impl FnOnce(&mut Config)) -> Self {
        let mut admin = server.admin("postgres").await;
        // Another control plane on the same server has made it.
        let _ = sqlx::query("CREATE DATABASE insula_catalog").execute(&mut admin).await;
        let mut config = Config::new(server.admin_url("insula_catalog"), server.root_key());
        config.cells = vec![CellSpec {
            name: server.cell(),
            region: "local".into(),
            labels: vec!["test".into()],
            host: server.host().into(),
            port: server.port(),
            app_url: None,
            capacity: 5000,
        }];
        config.warm_databases = 1;
        config.backoff = Duration::from_millis(10);
        config.lease = Duration::from_millis(1500);
        config.reconcile_every = Duration::from_millis(200);
        config.embedded_cells = false;
        config.webhook_private = true;
        change(&mut config);
        let control = Control::open(config).await.expect("a catalog");
        let background = control.start().await.expect("started");
        control.wait_ready(LONG).await.expect("cells prepared");
        Self { server, control, background: Some(background) }
    }

    /// Another control plane on the same catalog.
    pub(crate) async fn another(&self, change: impl FnOnce(&mut Config)) -> Self {
        Self::on(Arc::clone(&self.server), change).await
    }

    pub(crate) async fn stop(&mut self) {
        if let Some(background) = self.background.take() {
            background.stop().await;
        }
    }

    pub(crate) async fn put_bundle(&self) {
        let put = self.control.put_bundle("test", bundle()).await.expect("a good bundle");
        if let Some(operation) = put.operation {
            self.done(operation.id).await;
        }
    }

    /// Waits for the end of an operation.
    pub(crate) async fn ended(&self, id: OperationId) -> Operation {
        let operation = self.control.wait_operation(id, LONG).await.expect("an operation");
        assert!(operation.state.finished(), "an operation hangs: {operation:?}");
        operation
    }

    pub(crate) async fn done(&self, id: OperationId) -> Operation {
        let operation = self.ended(id).await;
        assert_eq!(operation.state, OperationState::Done, "{operation:?}");
        operation
    }

    /// Makes a tenant and waits for it.
    pub(crate) async fn tenant(&self, slug: &str, isolation: Isolation) -> Tenant {
        let created = self.control.create_tenant("test", create(slug, isolation), None).await.expect("accepted");
        self.done(created.operation.id).await;
        self.control.tenant(slug).await.expect("there")
    }

    /// Nothing is left that nobody owns.
    pub(crate) async fn assert_no_orphans(&self) {
        let orphans = insula_control::reconcile::orphans(&self.control).await.expect("looked");
        assert!(orphans.is_empty(), "{orphans:?}");
    }

    /// Nothing of a failed tenant is in the catalog but the record of its operation.
    pub(crate) async fn assert_undone(&self, slug: &str) {
        let error = self.control.tenant(slug).await.expect_err("gone");
        assert_eq!(error.kind(), insula_core::Kind::NotFound);
        let catalog = &mut *self.control.catalog_pool().acquire().await.expect("catalog");
        let left: i64 = count(
            catalog,
            "SELECT count(*) FROM catalog.placement p WHERE NOT EXISTS (SELECT FROM catalog.tenant t WHERE t.id = p.tenant)",
        )
        .await;
        assert_eq!(left, 0);
        self.assert_no_orphans().await;
    }
}

pub(crate) async fn count(conn: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(conn).await.expect("a count")
}

/// A request for a tenant, with its password hashed beforehand.
pub(crate) fn create(slug: &str, isolation: Isolation) -> CreateTenant {
    let mut create = CreateTenant::new(slug.parse().expect("a slug"), "bronze".parse().expect("a plan"));
    create.isolation = Some(isolation);
    create.admin_password_hash = Some(HASH.into());
    create
}

/// Goes wrong as it is told: each entry once, in any order.
#[derive(Default)]
pub(crate) struct Planned(Mutex<VecDeque<(String, Moment, Fault)>>);

impl Planned {
    pub(crate) fn new(plan: &[(&str, Moment, Fault)]) -> Arc<Self> {
        let plan = plan.iter().map(|(step, moment, fault)| ((*step).to_owned(), *moment, *fault)).collect();
        Arc::new(Self(Mutex::new(plan)))
    }

    pub(crate) fn all_happened(&self) -> bool {
        self.0.lock().expect("plan").is_empty()
    }

    pub(crate) fn add(&self, step: &str, moment: Moment, fault: Fault) {
        self.0.lock().expect("plan").push_back((step.to_owned(), moment, fault));
    }
}

impl Faults for Planned {
    fn at(&self, kind: &str, step: &str, moment: Moment) -> Option<Fault> {
        if kind != "tenant.provision" {
            return None;
        }
        let mut plan = self.0.lock().expect("plan");
        let at = plan.iter().position(|(s, m, _)| s == step && *m == moment)?;
        plan.remove(at).map(|(.., fault)| fault)
    }
}
