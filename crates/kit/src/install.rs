//! Puts the kit into one database, or brings the one that is there up to date.

use std::time::Duration;

use insula_core::placement::{APP_ROLE, APP_SCHEMA, POOL_DATABASE, SCHEMAS_DATABASE};
use insula_core::{CellKey, GrantKey};
use sqlx::{Connection, PgConnection};

use crate::error::Error;
use crate::login::one_at_a_time;
use crate::module;
use crate::server::{GUEST_ROLE, Way, hush, name, run};
use crate::version::check_version;

/// Counts up when the SQL changes in a way that operators should be able to see.
const KIT: i32 = 5;

/// How long a step waits for whoever uses a table. Everybody else stands behind it meanwhile. Longer than `deadlock_timeout` usually is (a second):
/// only then does a vacuum that is at work give way.
pub(crate) const WAIT: &str = "1500ms";
/// Until it is tried again, when that was not enough; and how many times.
const PAUSE: Duration = Duration::from_secs(2);
const TRIES: usize = 30;

/// What an installation ended with.
#[derive(Clone, Copy, Debug)]
pub struct Installed {
    /// The way of binding in force.
    pub way: Way,
    /// The kit's version.
    pub kit: i32,
    /// The database's fence count.
    pub fence: i64,
}

/// The kit's files, in the order that they run in.
fn files(way: Way) -> Vec<&'static str> {
    let mut files = vec![include_str!("../sql/010_schema.sql"), include_str!("../sql/011_key.sql")];
    files.extend([
        match way {
            Way::Setting => include_str!("../sql/020_bind_setting.sql"),
            Way::Ticket => include_str!("../sql/021_bind_ticket.sql"),
        },
        include_str!("../sql/030_bind_common.sql"),
        include_str!("../sql/040_number.sql"),
        include_str!("../sql/050_table.sql"),
        include_str!("../sql/060_search.sql"),
        include_str!("../sql/080_queue.sql"),
        include_str!("../sql/081_enqueue.sql"),
        include_str!("../sql/082_work.sql"),
        include_str!("../sql/083_lease.sql"),
        include_str!("../sql/084_dead.sql"),
        include_str!("../sql/085_schedule.sql"),
        include_str!("../sql/086_outbox.sql"),
        include_str!("../sql/087_operate.sql"),
        include_str!("../sql/088_webhook.sql"),
        include_str!("../sql/089_host.sql"),
        include_str!("../sql/070_lint.sql"),
        include_str!("../sql/071_lint_code.sql"),
        include_str!("../sql/072_lint_privileges.sql"),
    ]);
    if way == Way::Setting {
        files.extend([include_str!("../sql/061_search_server.sql"), include_str!("../sql/090_harden.sql")]);
    }
    files.push(include_str!("../sql/091_privileges.sql"));
    files
}

/// Installs or upgrades the kit in the database that `conn`, an administrator, is connected to. `database` names the grant key
/// (usually the database's own name); `kid` is the key that grants are signed with now. When it counts up, the one before stays
/// good until the next time. In the pool's database this also lets the app role in.
///
/// A transaction that is open has what it used locked: it is waited for, a second at a time, with pauses in which others go on, for a minute and a half.
///
/// # Errors
/// [`Error::Version`], [`Error::Privilege`], or what Postgres says (55P03: a transaction stayed open); then nothing has changed.
pub async fn install(conn: &mut PgConnection, database: &str, key: &CellKey, kid: i32) -> Result<Installed, Error> {
    check_version(conn).await?;
    for _ in 1..TRIES {
        match install_now(conn, database, key, kid).await {
            Err(Error::Database(sqlx::Error::Database(error))) if error.code().as_deref() == Some("55P03") => {
                tracing::info!(database, "somebody's transaction is open: the kit is installed a little later");
                tokio::time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
    install_now(conn, database, key, kid).await
}

/// In one transaction, which waits for nobody for long.
async fn install_now(conn: &mut PgConnection, database: &str, key: &CellKey, kid: i32) -> Result<Installed, Error> {
    let way = Way::of_server(conn).await?;
    let mut tx = conn.begin().await?;
    hush(&mut tx, way).await?;
    run(
        &mut tx,
        "SET LOCAL client_min_messages = 'warning'; SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('insula.kit'))"
            .to_owned(),
    )
    .await?;
    // Logins of new tenants are given rights on the same objects meanwhile.
    one_at_a_time(&mut tx).await?;
    run(&mut tx, format!("SET LOCAL lock_timeout = '{WAIT}'")).await?;
    let before = keys_before(&mut tx).await?;
    if let Some((1, ..)) = before
        && way == Way::Ticket
    {
        return Err(Error::Privilege("this database was installed by a superuser: only a superuser can upgrade it".to_owned()));
    }
    let previous = match before {
        Some((_, current, previous)) if current == kid => previous,
        Some((_, current, _)) => Some(current),
        None => None,
    };
    for file in files(way) {
        run(&mut tx, render(file, way)).await?;
    }
    if way == Way::Setting {
        module::load(&mut tx).await?;
    }
    sqlx::query(
        "INSERT INTO insula.config (way, kit, kid, previous_kid, digest) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (one) DO UPDATE SET way = excluded.way, kit = excluded.kit, kid = excluded.kid, previous_kid = excluded.previous_kid,
             digest = excluded.digest",
    )
    .bind(way.number())
    .bind(KIT)
    .bind(kid)
    .bind(previous)
    .bind(digest(way))
    .execute(&mut *tx)
    .await?;
    for known in previous.into_iter().chain([kid]) {
        keep_key(&mut tx, known, previous, &key.grant_key(database, known)).await?;
    }
    open_database(&mut tx, database).await?;
    let fence = crate::tenant::fence(&mut tx).await?;
    tx.commit().await?;
    Ok(Installed { way, kit: KIT, fence })
}

/// Whether the kit in a database is this very one. When not, [`install`] brings it up to date.
///
/// # Errors
/// What Postgres says; also that there is no kit.
pub async fn is_current(conn: &mut PgConnection) -> Result<bool, Error> {
    let way = Way::of_server(&mut *conn).await?;
    // By a way that also works where there is no such column yet.
    let found: Option<Option<String>> =
        sqlx::query_scalar("SELECT to_jsonb(c) ->> 'digest' FROM insula.config c").fetch_optional(conn).await?;
    Ok(found.flatten().is_some_and(|found| found == digest(way)))
}

/// FNV-1a of all files: the same in every process, and another whenever a file is.
fn digest(way: Way) -> String {
    let bytes = files(way).into_iter().flat_map(str::bytes).chain(KIT.to_le_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

/// Gives a database that was cloned from another a grant key of its own, in the transaction that is open on `conn`. `database`
/// names the key. Much quicker than [`install`]; the kit itself came with the clone.
///
/// # Errors
/// What Postgres says.
pub async fn give_key(conn: &mut PgConnection, database: &str, key: &CellKey, kid: i32) -> Result<(), Error> {
    let way = Way::of_server(conn).await?;
    hush(conn, way).await?;
    keep_key(conn, kid, None, &key.grant_key(database, kid)).await
}

/// Way, key id and previous key id, if the kit is here.
pub(crate) async fn keys_before(conn: &mut PgConnection) -> Result<Option<(i32, i32, Option<i32>)>, Error> {
    let there: bool = sqlx::query_scalar("SELECT to_regclass('insula.config') IS NOT NULL").fetch_one(&mut *conn).await?;
    if !there {
        return Ok(None);
    }
    Ok(sqlx::query_as("SELECT way, kid, previous_kid FROM insula.config").fetch_optional(conn).await?)
}

fn render(file: &str, way: Way) -> String {
    // A subquery is run once per statement, which a ticket's verification must be; a protected setting is cheaper read directly.
    let tenant = match way {
        Way::Setting => "insula.current_tenant()",
        Way::Ticket => "(SELECT insula.current_tenant())",
    };
    file.replace("{{tenant}}", tenant).replace("{{way}}", &way.number().to_string())
}

/// Hands the pads over as parameters, so that they are in no statement's text.
pub(crate) async fn keep_key(conn: &mut PgConnection, kid: i32, previous: Option<i32>, key: &GrantKey) -> Result<(), Error> {
    let (inner, outer) = key.pads();
    sqlx::query("SELECT insula.keep_key($1, $2, decode($3, 'hex'), decode($4, 'hex'))")
        .bind(kid)
        .bind(previous)
        .bind(inner)
        .bind(outer)
        .execute(conn)
        .await?;
    Ok(())
}

/// Lets in whoever this database is for.
async fn open_database(conn: &mut PgConnection, database: &str) -> Result<(), Error> {
    match database {
        POOL_DATABASE => use_schema(conn, APP_ROLE, APP_SCHEMA).await,
        SCHEMAS_DATABASE => {
            let here = current_database(conn).await?;
            run(conn, format!("GRANT CONNECT ON DATABASE {} TO {GUEST_ROLE}", name(&here)?)).await
        }
        _ => Ok(()),
    }
}

pub(crate) async fn current_database(conn: &mut PgConnection) -> Result<String, Error> {
    Ok(sqlx::query_scalar("SELECT current_database()::text").fetch_one(conn).await?)
}

/// Lets a role connect to this database and use one schema of it: the tables there and, later, those that
/// `insula.tenant_table()` makes there. Also makes the schema its `search_path`.
///
/// # Errors
/// When Postgres refuses.
pub async fn use_schema(conn: &mut PgConnection, role: &str, schema: &str) -> Result<(), Error> {
    let (role, schema) = (name(role)?, name(schema)?);
    let here = current_database(conn).await?;
    let here = name(&here)?;
    if here != SCHEMAS_DATABASE {
        run(conn, format!("GRANT CONNECT ON DATABASE {here} TO {role}")).await?;
    }
    run(conn, format!("ALTER ROLE {role} IN DATABASE {here} SET search_path = {schema}")).await?;
    sqlx::query("SELECT insula.open_schema($1, $2)").bind(role).bind(schema).execute(conn).await?;
    Ok(())
}
