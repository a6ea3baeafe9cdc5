//! A database with an attacker and a victim in it.

use futures_util::StreamExt;
use insula_core::{Grant, GrantKey, TenantNo};
use insula_kit::Way;
use insula_testkit::{TestServer, server};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

/// What no attacker may ever be shown.
pub(crate) const SECRET: &str = "VICTIM-SECRET";
pub(crate) const VICTIM_ID: &str = "00000000-0000-7000-8000-0000000000aa";
pub(crate) const OWN: i64 = 101;
pub(crate) const VICTIM: i64 = 202;

const TABLES: &str = "
    CREATE TABLE docs (id uuid PRIMARY KEY, body text NOT NULL, name text UNIQUE);
    SELECT insula.tenant_table('docs');
    CREATE TABLE notes (id uuid PRIMARY KEY, parent uuid);
    SELECT insula.tenant_table('notes');
    SELECT insula.tenant_key('notes', 'parent', 'docs');
    CREATE FUNCTION peek() RETURNS text LANGUAGE plpgsql AS $fn$ BEGIN RETURN (SELECT string_agg(body, ',') FROM docs); END $fn$;
    CREATE FUNCTION peek_through() RETURNS text LANGUAGE sql AS 'SELECT peek()';
    CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $fn$ BEGIN
        IF NEW.body = 'early' THEN NEW.name := peek_through(); END IF;
        RETURN NEW; END $fn$;
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $fn$ BEGIN
        IF NEW.body = 'late' THEN RAISE EXCEPTION 'there are: %', peek_through(); END IF;
        RETURN NULL; END $fn$;
    CREATE TRIGGER fill BEFORE INSERT ON docs FOR EACH ROW EXECUTE FUNCTION fill();
    CREATE CONSTRAINT TRIGGER tell AFTER INSERT ON docs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tell();
    CREATE VIEW docs_view AS SELECT * FROM docs;
    CREATE VIEW docs_view_invoker WITH (security_invoker = true) AS SELECT * FROM docs";

/// Where tenants' rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Shared tables, bound by a grant.
    Row,
    /// A schema of the attacker's own, bound by the login; the victim has another schema of the same database.
    Schema,
    /// A database of the attacker's own, bound by the login; the victim's rows are put into its tables all the same.
    Database,
}

/// The attacker's world.
pub(crate) struct Stage {
    pub(crate) server: &'static TestServer,
    pub(crate) mode: Mode,
    pub(crate) way: Way,
    pub(crate) database: String,
    /// A superuser's connection, for setting up and looking.
    pub(crate) host: PgConnection,
    /// The host side's own connection: in way 2 it is no superuser.
    pub(crate) admin: PgConnection,
    pub(crate) role: String,
    pub(crate) schema: String,
    tail: String,
}

/// Runs statements in one simple-protocol message, as an injection would.
pub(crate) async fn run(conn: &mut PgConnection, sql: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await.map(|_| ())
}

impl Stage {
    pub(crate) async fn new(mode: Mode, way: Way) -> Self {
        let mut stage = Self::empty(mode, way).await;
        stage.migrate(TABLES).await;
        let (schema, role) = (stage.schema.clone(), stage.role.clone());
        run(&mut stage.host, &format!("GRANT SELECT ON {schema}.docs_view, {schema}.docs_view_invoker TO {role}"))
            .await
            .expect("views");
        stage.seed().await;
        stage
    }

    /// The kit, the two tenants and the attacker's login; no tables.
    pub(crate) async fn empty(mode: Mode, way: Way) -> Self {
        let server = server().await;
        let key = server.cell_key();
        let tail = uuid::Uuid::new_v4().simple().to_string()[..16].to_owned();
        let database = format!("d{tail}");
        let mut host = server.admin("postgres").await;
        insula_kit::prepare_server(&mut host, &key).await.expect("prepare_server");
        let url = |database: &str| match way {
            Way::Setting => server.admin_url(database),
            Way::Ticket => server.role_url("managed_admin", database),
        };
        if way == Way::Ticket {
            make_managed_admin(server, &mut host).await;
        }
        let mut admin = PgConnection::connect(&url("postgres")).await.expect("the administrator");
        assert_eq!(insula_kit::prepare_server(&mut admin, &key).await.expect("prepare_server").way, way);
        insula_kit::create_database(&mut admin, &database).await.expect("create_database");
        let mut admin = PgConnection::connect(&url(&database)).await.expect("the administrator");
        insula_kit::install(&mut admin, &database, &key, 1).await.expect("install");
        let host = server.admin(&database).await;
        let (role, schema) = match mode {
            Mode::Row => ("insula_app".to_owned(), "app".to_owned()),
            Mode::Schema => (format!("r{tail}"), format!("s{tail}")),
            Mode::Database => (format!("r{tail}"), "app".to_owned()),
        };
        let mut stage = Self { server, mode, way, database, host, admin, role, schema, tail };
        stage.people().await;
        stage
    }

    async fn people(&mut self) {
        let own_role = (self.mode != Mode::Row).then(|| self.role.clone());
        insula_kit::register_tenant(&mut self.admin, no(OWN), 1, own_role.as_deref()).await.expect("the attacker");
        let victim_role = format!("v{}", self.tail);
        let victim = (self.mode != Mode::Row).then_some(victim_role.as_str());
        insula_kit::register_tenant(&mut self.admin, no(VICTIM), 1, victim).await.expect("the victim");
        if self.mode == Mode::Row {
            insula_kit::use_schema(&mut self.admin, &self.role, &self.schema).await.expect("use_schema");
            return;
        }
        for (role, tenant, schema) in [(&self.role, OWN, self.schema.clone()), (&victim_role, VICTIM, self.foreign_schema())] {
            let password = self.server.cell_key().role_password(role);
            insula_kit::create_login(&mut self.admin, role, &password, no(tenant), &self.database, &schema)
                .await
                .expect("create_login");
        }
    }

    fn foreign_schema(&self) -> String {
        if self.mode == Mode::Schema { format!("v{}", self.tail) } else { self.schema.clone() }
    }

    pub(crate) async fn migrate(&mut self, sql: &str) {
        let mut schemas = vec![self.schema.clone(), self.foreign_schema()];
        schemas.dedup();
        for schema in schemas {
            let mut tx = self.admin.begin().await.expect("begin");
            run(&mut tx, &format!("SET LOCAL ROLE insula_owner; SET LOCAL search_path = {schema}; {sql}"))
                .await
                .expect("the migration");
            tx.commit().await.expect("commit");
        }
    }

    /// The victim's rows and one of the attacker's own, as they are before every attack.
    async fn seed(&mut self) {
        let mut schemas = vec![self.schema.clone(), self.foreign_schema()];
        schemas.dedup();
        for schema in schemas {
            let sql = format!(
                "DELETE FROM {schema}.notes; DELETE FROM {schema}.docs;
                 INSERT INTO {schema}.docs (tenant_id, id, body, name) VALUES
                    ({VICTIM}, '{VICTIM_ID}', '{SECRET}', 'victim-name'), ({VICTIM}, gen_random_uuid(), '42 {SECRET}', NULL),
                    ({OWN}, gen_random_uuid(), '7', 'own-name');
                 INSERT INTO {schema}.notes (tenant_id, id, parent) VALUES ({VICTIM}, gen_random_uuid(), '{VICTIM_ID}')"
            );
            run(&mut self.host, &sql).await.expect("rows");
        }
    }

    /// The attacker's connection, as the application's role.
    pub(crate) async fn attacker(&self) -> PgConnection {
        PgConnection::connect(&self.server.role_url(&self.role, &self.database)).await.expect("the attacker's connection")
    }

    pub(crate) fn key(&self) -> GrantKey {
        self.server.cell_key().grant_key(&self.database, 1)
    }

    pub(crate) async fn grant(&self, conn: &mut PgConnection, tenant: i64) -> Grant {
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(conn).await.expect("a pid");
        self.key().sign(no(tenant), 1, soon(), pid, Grant::NO_FENCE)
    }

    /// Binds the open transaction to the attacker's own tenant, if a login has not done so.
    pub(crate) async fn bind(&self, conn: &mut PgConnection) {
        if self.mode == Mode::Row {
            let grant = self.grant(conn, OWN).await;
            enter(conn, &grant).await.expect("the attacker's own grant");
        }
    }

    /// Fills in an attack's words.
    pub(crate) fn words(&self, sql: &str) -> String {
        let foreign = format!("{}.docs", self.foreign_schema());
        sql.replace("{victim}", &VICTIM.to_string())
            .replace("{own}", &OWN.to_string())
            .replace("{table}", "docs")
            .replace("{child}", "notes")
            .replace("{view}", "docs_view")
            .replace("{name}", "docs")
            .replace("{foreign}", &foreign)
            .replace("{schema}", &self.schema)
            .replace("{database}", &self.database)
            .replace("{victim_id}", VICTIM_ID)
            .replace("{victim_name}", "victim-name")
    }

    /// Everything of the victim's, to be compared before and after.
    pub(crate) async fn victims(&mut self) -> String {
        let sql = format!(
            "SELECT coalesce(string_agg(d::text || coalesce(n::text, ''), ',' ORDER BY d.id), '')
               FROM {0}.docs d LEFT JOIN {0}.notes n ON n.tenant_id = d.tenant_id AND n.parent = d.id WHERE d.tenant_id = {VICTIM}",
            self.foreign_schema()
        );
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut self.host).await.expect("the victim's rows")
    }

    /// Puts the attacker's own rows back.
    pub(crate) async fn mend(&mut self) {
        let sql = format!(
            "DELETE FROM {0}.docs WHERE tenant_id = {OWN};
             INSERT INTO {0}.docs (tenant_id, id, body, name) VALUES ({OWN}, gen_random_uuid(), '7', 'own-name')",
            self.schema
        );
        run(&mut self.host, &sql).await.expect("the attacker's rows");
    }
}

/// What a managed server gives: may make roles and databases, is no superuser.
async fn make_managed_admin(server: &TestServer, host: &mut PgConnection) {
    let password = server.cell_key().role_password("managed_admin");
    let sql = format!(
        "SELECT pg_advisory_lock(hashtext('insula.kit'));
         DO $$ BEGIN CREATE ROLE managed_admin LOGIN CREATEROLE CREATEDB PASSWORD '{password}';
                     GRANT pg_signal_backend TO managed_admin; GRANT CONNECT ON DATABASE postgres TO managed_admin; EXCEPTION WHEN duplicate_object THEN END $$;
         SELECT pg_advisory_unlock(hashtext('insula.kit'))"
    );
    run(host, &sql).await.expect("a managed server's administrator");
}

pub(crate) fn no(tenant: i64) -> TenantNo {
    TenantNo::new(tenant).expect("positive")
}

pub(crate) fn soon() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_secs()).expect("this century") + 30
}

pub(crate) async fn enter(conn: &mut PgConnection, grant: &Grant) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT insula.enter($1)").bind(grant.text()).execute(conn).await.map(|_| ())
}

/// Runs SQL and returns everything that came back as text, rows and errors alike.
pub(crate) async fn everything_said(conn: &mut PgConnection, sql: &str) -> (bool, String) {
    if sql.starts_with("COPY") && sql.ends_with("STDOUT") {
        return copied_out(conn, sql).await;
    }
    if sql.ends_with("FROM STDIN") {
        // Let in, it would wait for rows.
        return match conn.copy_in_raw(sql).await {
            Ok(copy) => (true, format!("{:?}", copy.abort("enough was seen").await)),
            Err(error) => (false, format!("{error:?}")),
        };
    }
    let mut said = String::new();
    match conn.fetch_all(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await {
        Ok(rows) => {
            for row in rows {
                for column in 0..row.len() {
                    if let Ok(value) = row.try_get_raw(column) {
                        said.push_str(value.as_str().unwrap_or_default());
                        said.push('\n');
                    }
                }
            }
            (true, said)
        }
        Err(error) => (false, format!("{error} {error:?}")),
    }
}

async fn copied_out(conn: &mut PgConnection, sql: &str) -> (bool, String) {
    let mut said = String::new();
    match conn.copy_out_raw(sql).await {
        Ok(mut stream) => {
            while let Some(bytes) = stream.next().await {
                match bytes {
                    Ok(bytes) => said.push_str(&String::from_utf8_lossy(&bytes)),
                    Err(error) => return (false, format!("{said} {error:?}")),
                }
            }
            (true, said)
        }
        Err(error) => (false, format!("{error:?}")),
    }
}
