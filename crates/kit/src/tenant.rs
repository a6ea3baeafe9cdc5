//! The tenants that a database knows, and the fence that every change to one raises.

use std::time::{Duration, Instant};

use insula_core::{TenantNo, TenantState};
use sqlx::{Connection, PgConnection};

use crate::error::Error;
use crate::server::run;

/// Where jobs are, as regclass writes it.
const JOBS: &str = "insula.job";
/// How long a change tries for a moment between the tenant's transactions, which holds up none of them.
const GENTLE: Duration = Duration::from_millis(40);
/// Between two such tries.
const PAUSE: Duration = Duration::from_millis(2);
/// How long it then stands in the queue, where the tenant's new transactions stand behind it, before it ends the old ones.
const PATIENCE: Duration = Duration::from_secs(3);
/// When it gives up.
const LIMIT: Duration = Duration::from_secs(10);

/// Registers a tenant as active at `epoch`, or brings a registered one there. `role` is its own login, if it has one.
///
/// # Errors
/// [`Error::Busy`] when it is registered otherwise and its transactions do not end.
pub async fn register_tenant(conn: &mut PgConnection, no: TenantNo, epoch: i64, role: Option<&str>) -> Result<(), Error> {
    let no = no.get();
    let inserted = sqlx::query("INSERT INTO insula.tenant (no, epoch, role) VALUES ($1, $2, $3) ON CONFLICT (no) DO NOTHING")
        .bind(no)
        .bind(epoch)
        .bind(role)
        .execute(&mut *conn)
        .await?;
    if inserted.rows_affected() == 1 {
        return Ok(());
    }
    let same: bool = sqlx::query_scalar(
        "SELECT epoch = $2 AND state = 'active' AND role IS NOT DISTINCT FROM $3 FROM insula.tenant WHERE no = $1",
    )
    .bind(no)
    .bind(epoch)
    .bind(role)
    .fetch_optional(&mut *conn)
    .await?
    .unwrap_or(false);
    if same {
        return Ok(());
    }
    let mut tx = conn.begin().await?;
    exclude(&mut tx, no).await?;
    sqlx::query("UPDATE insula.tenant SET epoch = $2, state = 'active', role = $3 WHERE no = $1")
        .bind(no)
        .bind(epoch)
        .bind(role)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Changes a tenant's epoch and state, after the transactions that it has open. Those that do not end in a few seconds are ended.
/// When this returns, no transaction that entered before is alive and none with an older epoch can enter.
///
/// Returns the fence that the change raised, for signers. A change that takes something away is written to the catalog before
/// this is called, so that whoever learns the fence knows the change; `docs/decisions/0001-fence-instead-of-row-read.md`.
///
/// # Errors
/// [`Error::NoTenant`]; [`Error::Busy`] when a transaction could not be ended.
pub async fn set_tenant(conn: &mut PgConnection, no: TenantNo, epoch: i64, state: TenantState) -> Result<i64, Error> {
    let no = no.get();
    let mut tx = conn.begin().await?;
    exclude(&mut tx, no).await?;
    let fence: Option<i64> = sqlx::query_scalar(
        "UPDATE insula.tenant SET epoch = $2, state = $3 WHERE no = $1 RETURNING pg_catalog.currval('insula.fence')",
    )
    .bind(no)
    .bind(epoch)
    .bind(state.as_str())
    .fetch_optional(&mut *tx)
    .await?;
    let fence = fence.ok_or(Error::NoTenant(no))?;
    tx.commit().await?;
    Ok(fence)
}

/// Ends a tenant here: when this returns, no transaction that entered before is alive, none can enter, and none of its jobs is begun any more. False
/// when it is not there.
///
/// # Errors
/// [`Error::Busy`] when its transactions do not end.
pub async fn close_tenant(conn: &mut PgConnection, no: TenantNo) -> Result<bool, Error> {
    let found: Option<(i64, String)> =
        sqlx::query_as("SELECT epoch, state FROM insula.tenant WHERE no = $1").bind(no.get()).fetch_optional(&mut *conn).await?;
    let Some((epoch, state)) = found else { return Ok(false) };
    if state != TenantState::Deleted.as_str() {
        set_tenant(conn, no, epoch, TenantState::Deleted).await?;
    }
    Ok(true)
}

/// Forgets a tenant, with all that the kit has of it: jobs, schedules, events, webhooks, numbers. Rows of the application's own tables are not
/// touched. Nothing to do when it is not there. `conn` has no transaction open: this takes several, so that the queue waits for none of them.
///
/// # Errors
/// [`Error::Busy`] when its transactions do not end.
pub async fn remove_tenant(conn: &mut PgConnection, no: TenantNo) -> Result<(), Error> {
    // First: what is written after its rows have gone would stay.
    if !close_tenant(conn, no).await? {
        return Ok(());
    }
    // Whoever has jobs' rows must not wait for the queue, so its own tables come with the tenant's row (`insula.hold_lanes()`).
    let mut tx = conn.begin().await?;
    bind(&mut tx, no).await?;
    for table in kept_of_tenants(&mut tx).await? {
        // Names come from Postgres, quoted by regclass.
        let mut delete = format!("DELETE FROM {table} WHERE tenant_id = insula.current_tenant()");
        if table == JOBS {
            // All there are, but said so that an index serves: each state has one that begins with the tenant, and all together have none.
            delete += " AND (state = 'w' OR state = 'l' OR state = 'r')";
        }
        run(&mut tx, delete).await?;
    }
    tx.commit().await?;
    let mut tx = conn.begin().await?;
    exclude(&mut tx, no.get()).await?;
    sqlx::query("DELETE FROM insula.tenant WHERE no = $1").bind(no.get()).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok(())
}

/// The kit's tables with rows of tenants, jobs first: the end of one that runs moves it to another.
async fn kept_of_tenants(conn: &mut PgConnection) -> Result<Vec<String>, Error> {
    let tables = sqlx::query_scalar(
        "SELECT c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class c
          WHERE c.relnamespace = 'insula'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relrowsecurity
            AND EXISTS (SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped)
          ORDER BY c.oid::pg_catalog.regclass::text <> $1, c.oid",
    );
    Ok(tables.bind(JOBS).fetch_all(conn).await?)
}

/// The database's fence count: how many changes to its tenants there have been. Grants signed with it are not looked up.
///
/// # Errors
/// When Postgres refuses.
pub async fn fence(conn: &mut PgConnection) -> Result<i64, Error> {
    Ok(sqlx::query_scalar("SELECT pg_catalog.pg_sequence_last_value('insula.fence')").fetch_one(conn).await?)
}

/// Moves the fence far ahead: after a restore or a failover that lost transactions, so that no count is ever used twice.
///
/// # Errors
/// When Postgres refuses.
pub async fn leap_fence(conn: &mut PgConnection) -> Result<i64, Error> {
    // Microseconds since 1970 grow faster than any fence.
    Ok(sqlx::query_scalar(
        "SELECT pg_catalog.setval('insula.fence', greatest(pg_catalog.pg_sequence_last_value('insula.fence') + 64,
                (pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000)::bigint))",
    )
    .fetch_one(conn)
    .await?)
}

/// All tenants of a database and a fence that is true of them.
#[derive(Clone, Debug)]
pub struct Census {
    /// No change up to this fence is missing from `tenants`.
    pub fence: i64,
    /// Number, epoch and state as written.
    pub tenants: Vec<(i64, i64, String)>,
}

/// Reads all tenants together with a fence that may be published with them: waits for changes under way.
///
/// # Errors
/// When Postgres refuses.
pub async fn census(conn: &mut PgConnection) -> Result<Census, Error> {
    let mut tx = conn.begin().await?;
    sqlx::query("LOCK TABLE insula.tenant IN SHARE MODE").execute(&mut *tx).await?;
    let fence = fence(&mut tx).await?;
    let tenants = sqlx::query_as("SELECT no, epoch, state FROM insula.tenant ORDER BY no").fetch_all(&mut *tx).await?;
    tx.commit().await?;
    Ok(Census { fence, tenants })
}

/// Host side: binds the open transaction of `conn` to a tenant without a grant, as the owner of the tables, so that row security
/// applies. For seeding and support; the caller audits it. Ends with the transaction.
///
/// # Errors
/// SQLSTATE 28T01 when the tenant is not registered here.
pub async fn bind(conn: &mut PgConnection, no: TenantNo) -> Result<(), Error> {
    sqlx::query("SELECT insula.host_enter($1)").bind(no.get()).execute(&mut *conn).await?;
    sqlx::query("SET LOCAL ROLE insula_owner").execute(conn).await?;
    Ok(())
}

/// Takes the tenant's lock exclusively: first between its transactions, then in the queue; ends them when patience does.
async fn exclude(conn: &mut PgConnection, no: i64) -> Result<(), Error> {
    let start = Instant::now();
    while start.elapsed() < GENTLE {
        let taken: bool =
            sqlx::query_scalar("SELECT pg_catalog.pg_try_advisory_xact_lock($1)").bind(no).fetch_one(&mut *conn).await?;
        if taken {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    let mut ended = false;
    while start.elapsed() < LIMIT {
        if queue(conn, no).await? {
            return Ok(());
        }
        if !ended && start.elapsed() > PATIENCE {
            ended = true;
            end_transactions(conn, no).await?;
        }
    }
    Err(Error::Busy(no))
}

/// Waits half a second for the lock; false when that was not enough.
async fn queue(conn: &mut PgConnection, no: i64) -> Result<bool, Error> {
    let mut step = conn.begin().await?;
    sqlx::query("SET LOCAL lock_timeout = '500ms'").execute(&mut *step).await?;
    match sqlx::query("SELECT pg_catalog.pg_advisory_xact_lock($1)").bind(no).execute(&mut *step).await {
        Ok(_) => {
            sqlx::query("SET LOCAL lock_timeout = 0").execute(&mut *step).await?;
            step.commit().await?;
            Ok(true)
        }
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("55P03") => {
            step.rollback().await?;
            Ok(false)
        }
        Err(e) => Err(e.into()),
    }
}

async fn end_transactions(conn: &mut PgConnection, no: i64) -> Result<(), Error> {
    tracing::warn!(tenant = no, "ending transactions that outstay a change to their tenant");
    sqlx::query(
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_locks
          WHERE locktype = 'advisory' AND objsubid = 1 AND mode = 'ShareLock' AND granted AND pid <> pg_catalog.pg_backend_pid()
            AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
            AND (classid::bigint << 32 | objid::bigint) = $1",
    )
    .bind(no)
    .execute(conn)
    .await?;
    Ok(())
}
