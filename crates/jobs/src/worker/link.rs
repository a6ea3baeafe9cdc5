//! A connection to one queue, as the role that may call its functions and nothing else.

use std::path::Path;

use chrono::{DateTime, Utc};
use insula_catalog::{Catalog, Tls};
use insula_core::KeyRing;
use insula_core::placement::WORKER_ROLE;
use sqlx::postgres::{PgConnectOptions, PgRow, PgSslMode};
use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use uuid::Uuid;

use super::{DatabaseName, Shared};
use crate::error::Error;

/// A job as `insula.work()` gives it.
pub(crate) struct Taken {
    pub(crate) tenant: i64,
    pub(crate) id: Uuid,
    pub(crate) kind: String,
    pub(crate) lane: String,
    pub(crate) attempt: i32,
    pub(crate) attempts: i32,
    pub(crate) cost: i32,
    pub(crate) keep: i32,
    pub(crate) overdue: bool,
    pub(crate) waited_us: i64,
    pub(crate) told: i64,
    pub(crate) principal: Option<String>,
    pub(crate) trace: Option<String>,
    pub(crate) body: String,
}

impl Taken {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            tenant: row.try_get(0)?,
            id: row.try_get(1)?,
            kind: row.try_get(2)?,
            lane: row.try_get(3)?,
            attempt: row.try_get(4)?,
            attempts: row.try_get(5)?,
            cost: row.try_get(6)?,
            keep: row.try_get(7)?,
            overdue: row.try_get(8)?,
            waited_us: row.try_get(9)?,
            told: row.try_get(10)?,
            principal: row.try_get(11)?,
            trace: row.try_get(12)?,
            body: row.try_get(13)?,
        })
    }
}

/// A queue as it is for one who passes by.
#[derive(Clone, Copy, Debug, sqlx::FromRow)]
pub(crate) struct Glance {
    /// There is something to do now.
    pub(crate) work: bool,
    /// Workers that are here, or were and have not said goodbye.
    pub(crate) workers: i64,
    /// When there will be something by time alone.
    pub(crate) next_ms: Option<i64>,
}

/// One line of `insula.queue_state()`.
pub(crate) type QueueState = (Option<i64>, Option<i64>, i64, i64, i64, i64);

/// A schedule of the host as `insula.host_due()` gives it.
#[derive(sqlx::FromRow)]
pub(crate) struct HostDue {
    pub(crate) name: String,
    pub(crate) version: i64,
    pub(crate) cron: String,
    pub(crate) zone: String,
    pub(crate) next_us: Option<i64>,
    pub(crate) since_us: i64,
    pub(crate) now_us: i64,
}

/// A sweep that goes on, as `insula.sweeps_open()` gives it.
#[derive(sqlx::FromRow)]
pub(crate) struct OpenSweep {
    pub(crate) name: String,
    pub(crate) lowest_first: bool,
    pub(crate) off_peak_from: Option<i16>,
    pub(crate) off_peak_to: Option<i16>,
    pub(crate) feature: Option<String>,
    /// Tenants in one step.
    pub(crate) most: i32,
    pub(crate) paced: bool,
    pub(crate) last_no: i64,
    pub(crate) wait_ms: i64,
    pub(crate) now_us: i64,
}

/// One line of `insula.schedules_known()`.
pub(crate) type KnownSchedule = (i64, String, bool, i64, Option<String>);

/// A schedule as `insula.schedules_due()` gives it; moments in microseconds since 1970, by the database's clock.
#[derive(sqlx::FromRow)]
pub(crate) struct Due {
    #[sqlx(rename = "tenant_id")]
    pub(crate) tenant: i64,
    pub(crate) name: String,
    pub(crate) version: i64,
    pub(crate) kind: String,
    pub(crate) cron: String,
    pub(crate) zone: Option<String>,
    pub(crate) off_peak_from: Option<i16>,
    pub(crate) off_peak_to: Option<i16>,
    pub(crate) shift_ms: i64,
    /// When it was to come; `None`: to be computed, as the first after `since_us`.
    pub(crate) next_us: Option<i64>,
    pub(crate) since_us: i64,
    pub(crate) now_us: i64,
}

/// Jobs that ended well and leave nothing behind.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) tenants: Vec<i64>,
    pub(crate) ids: Vec<Uuid>,
    pub(crate) attempts: Vec<i32>,
}

impl Done {
    pub(crate) fn push(&mut self, tenant: i64, id: Uuid, attempt: i32) {
        self.tenants.push(tenant);
        self.ids.push(id);
        self.attempts.push(attempt);
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.tenants.append(&mut other.tenants);
        self.ids.append(&mut other.ids);
        self.attempts.append(&mut other.attempts);
    }

    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }
}

/// How to connect to a queue, as the catalog says now.
pub(crate) fn options(shared: &Shared, name: &DatabaseName) -> Result<PgConnectOptions, Error> {
    address(&shared.catalog, &shared.keys.now(), shared.config.authorities.as_deref(), name)
}

fn address(
    catalog: &Catalog,
    keys: &KeyRing,
    authorities: Option<&Path>,
    name: &DatabaseName,
) -> Result<PgConnectOptions, Error> {
    let unreachable =
        |reason: String| Error::Unreachable { cell: name.cell.to_string(), database: name.database.to_string(), reason };
    let cell = catalog.cell(&name.cell).ok_or_else(|| unreachable("the cell is not in the catalog".to_owned()))?;
    let (Some(host), Some(port)) = (&cell.host, cell.port) else {
        return Err(unreachable("the cell has no address yet".to_owned()));
    };
    let password = keys.cell(&name.cell).map(|key| key.role_password(WORKER_ROLE));
    let password = password.map_err(|error| unreachable(error.to_string()))?;
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(port)
        .ssl_mode(match cell.tls {
            Tls::Disable => PgSslMode::Disable,
            Tls::Prefer => PgSslMode::Prefer,
            Tls::Require => PgSslMode::Require,
            Tls::VerifyFull => PgSslMode::VerifyFull,
        })
        .username(WORKER_ROLE)
        .password(&password)
        .database(&name.database)
        .application_name("insula-worker")
        .options([("statement_timeout", "30000"), ("lock_timeout", "20000"), ("client_connection_check_interval", "2000")]);
    if let Some(authorities) = authorities {
        options = options.ssl_root_cert(authorities);
    }
    if host.starts_with('/') {
        options = options.socket(&**host);
    }
    Ok(options.disable_statement_logging())
}

/// An open connection.
pub(crate) struct Link(PgConnection);

impl Link {
    pub(crate) async fn open(shared: &Shared, name: &DatabaseName) -> Result<Self, Error> {
        Self::connect(options(shared, name)?).await
    }

    /// Of a process that is no worker.
    pub(crate) async fn reach(
        catalog: &Catalog,
        keys: &KeyRing,
        authorities: Option<&Path>,
        name: &DatabaseName,
    ) -> Result<Self, Error> {
        Self::connect(address(catalog, keys, authorities, name)?).await
    }

    async fn connect(opening: PgConnectOptions) -> Result<Self, Error> {
        let opened = tokio::time::timeout(std::time::Duration::from_secs(5), opening.connect()).await;
        let opened = opened.map_err(|_| sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))?;
        Ok(Self(opened?))
    }

    pub(crate) async fn close(self) {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(500), self.0.close()).await;
    }

    /// Ends and takes, in one round trip.
    pub(crate) async fn work(&mut self, me: i64, done: &Done, want: usize) -> Result<Vec<Taken>, sqlx::Error> {
        // The columns that are used, by place.
        let sql =
            "SELECT tenant_id, id, kind, lane, attempt, attempts, cost, keep, overdue, waited_us, told, principal, trace, body
                     FROM insula.work($1, $2, $3, $4, $5)";
        let rows = sqlx::query(sql)
            .bind(me)
            .bind(&done.tenants)
            .bind(&done.ids)
            .bind(&done.attempts)
            .bind(i64::try_from(want).unwrap_or(0))
            .fetch_all(&mut self.0)
            .await?;
        rows.iter().map(Taken::read).collect()
    }

    /// Says how jobs ended that left something behind.
    pub(crate) async fn settle(&mut self, me: i64, ends: &serde_json::Value) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.settle($1, $2)").bind(me).bind(ends).fetch_one(&mut self.0).await
    }

    pub(crate) async fn tell_lanes(&mut self, lanes: &serde_json::Value) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT insula.tell_lanes($1)").bind(lanes).execute(&mut self.0).await.map(|_| ())
    }

    pub(crate) async fn sleeps(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT insula.worker_sleeps(true)").execute(&mut self.0).await.map(|_| ())
    }

    /// Whether whoever enqueues is to ring elsewhere.
    pub(crate) async fn away(&mut self, away: bool) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT insula.worker_away($1)").bind(away).execute(&mut self.0).await.map(|_| ())
    }

    pub(crate) async fn glance(&mut self) -> Result<Glance, sqlx::Error> {
        let seen = sqlx::query_as("SELECT work, workers, next_ms FROM insula.glance()").fetch_one(&mut self.0).await;
        match seen {
            // The kit there is older than this program: looked for with more effort.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42883") => {
                Ok(Glance { work: true, workers: 0, next_ms: None })
            }
            seen => seen,
        }
    }

    pub(crate) async fn begin(&mut self, name: &str, lease_ms: i32) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.worker_begin($1, $2)").bind(name).bind(lease_ms).fetch_one(&mut self.0).await
    }

    /// A sign of life; `None` when this worker was given up. Else the jobs that are to be cancelled.
    pub(crate) async fn beat(
        &mut self,
        me: i64,
        progress: Option<serde_json::Value>,
        corrections: Option<serde_json::Value>,
    ) -> Result<Option<Vec<(i64, Uuid)>>, sqlx::Error> {
        let rows: Vec<(Option<i64>, Option<Uuid>)> = sqlx::query_as("SELECT tenant_id, id FROM insula.worker_beat($1, $2, $3)")
            .bind(me)
            .bind(progress)
            .bind(corrections)
            .fetch_all(&mut self.0)
            .await?;
        Ok((!rows.is_empty()).then(|| rows.into_iter().filter_map(|(tenant, id)| tenant.zip(id)).collect()))
    }

    /// What the queue says this worker has: tenant, id, attempt, lane.
    pub(crate) async fn holds(&mut self, me: i64) -> Result<Vec<(i64, Uuid, i32, String)>, sqlx::Error> {
        sqlx::query_as("SELECT tenant_id, id, attempt, lane FROM insula.worker_holds($1)").bind(me).fetch_all(&mut self.0).await
    }

    /// All workers: number, lease in milliseconds, beats.
    pub(crate) async fn workers(&mut self) -> Result<Vec<(i64, i32, i64)>, sqlx::Error> {
        sqlx::query_as("SELECT no, lease_ms, beats FROM insula.workers()").fetch_all(&mut self.0).await
    }

    pub(crate) async fn bury(&mut self, no: i64, beats: i64) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.worker_bury($1, $2)").bind(no).bind(beats).fetch_one(&mut self.0).await
    }

    pub(crate) async fn end(&mut self, me: i64) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT insula.worker_end($1)").bind(me).execute(&mut self.0).await.map(|_| ())
    }

    /// The longest waiting lanes (tenant, milliseconds), and how many lanes are ready, held, blocked and stopped.
    pub(crate) async fn queue_state(&mut self) -> Result<Vec<QueueState>, sqlx::Error> {
        let sql = "SELECT tenant_id, waits_ms, ready, held, blocked, stopped FROM insula.queue_state()";
        sqlx::query_as(sql).fetch_all(&mut self.0).await
    }

    pub(crate) async fn sweep(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT insula.sweep_queue(10000)").execute(&mut self.0).await.map(|_| ())
    }

    pub(crate) async fn schedules_due(&mut self, names: &[&str], most: i32) -> Result<Vec<Due>, sqlx::Error> {
        let sql =
            "SELECT tenant_id, name, version, kind, cron, zone, off_peak_from, off_peak_to, shift_ms, next_us, since_us, now_us
                     FROM insula.schedules_due($1, $2)";
        sqlx::query_as(sql).bind(names).bind(most).fetch_all(&mut self.0).await
    }

    /// How many were carried out, and how many of those fired.
    pub(crate) async fn schedule_fire(&mut self, firings: &serde_json::Value) -> Result<(i64, i64), sqlx::Error> {
        sqlx::query_as("SELECT done, fired FROM insula.schedule_fire($1)").bind(firings).fetch_one(&mut self.0).await
    }

    /// Milliseconds until the next comes.
    pub(crate) async fn schedules_next(&mut self) -> Result<Option<i64>, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.schedules_next()").fetch_one(&mut self.0).await
    }

    /// Tenant, name, whether code declares it, what it was told, in which zone it was computed.
    pub(crate) async fn schedules_known(
        &mut self,
        tenant: i64,
        name: &str,
        most: i32,
    ) -> Result<Vec<KnownSchedule>, sqlx::Error> {
        let sql = "SELECT tenant_id, name, code, told, local FROM insula.schedules_known($1, $2, $3)";
        sqlx::query_as(sql).bind(tenant).bind(name).bind(most).fetch_all(&mut self.0).await
    }

    /// Those that are not code's: the tenant's own, and (`true`) those that its open transaction is in the way of.
    pub(crate) async fn schedules_keep(&mut self, rows: &serde_json::Value) -> Result<Vec<(i64, String, bool)>, sqlx::Error> {
        let sql = "SELECT tenant_id, name, left_out FROM insula.schedules_keep($1)";
        sqlx::query_as(sql).bind(rows).fetch_all(&mut self.0).await
    }

    /// Those that are there still, because an open transaction has locked them.
    pub(crate) async fn schedules_drop(&mut self, rows: &serde_json::Value) -> Result<Vec<(i64, String)>, sqlx::Error> {
        sqlx::query_as("SELECT tenant_id, name FROM insula.schedules_drop($1)").bind(rows).fetch_all(&mut self.0).await
    }

    /// Tenants that have some left, because an open transaction has locked them.
    pub(crate) async fn schedules_follow(&mut self, zones: &serde_json::Value) -> Result<Vec<i64>, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.schedules_follow($1)").bind(zones).fetch_all(&mut self.0).await
    }

    pub(crate) async fn schedules_tidy(&mut self, names: &[&str]) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT insula.schedules_tidy($1)").bind(names).execute(&mut self.0).await.map(|_| ())
    }

    /// False when it had begun already.
    pub(crate) async fn sweep_begin(&mut self, sweep: &serde_json::Value) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.sweep_begin($1)").bind(sweep).fetch_one(&mut self.0).await
    }

    pub(crate) async fn sweeps_open(&mut self) -> Result<Vec<OpenSweep>, sqlx::Error> {
        let sql = "SELECT name, lowest_first, off_peak_from, off_peak_to, feature, most, paced, last_no, wait_ms, now_us FROM insula.sweeps_open()";
        sqlx::query_as(sql).fetch_all(&mut self.0).await
    }

    pub(crate) async fn sweep_marks(&mut self, name: &str) -> Result<Vec<i64>, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.sweep_marks($1)").bind(name).fetch_all(&mut self.0).await
    }

    /// Which of the tenants it has been at by now, after a 0; nothing when it was not its time.
    pub(crate) async fn sweep_step(&mut self, name: &str, tenants: &serde_json::Value) -> Result<Vec<i64>, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.sweep_step($1, $2)").bind(name).bind(tenants).fetch_all(&mut self.0).await
    }

    pub(crate) async fn sweep_end(&mut self, name: &str) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.sweep_end($1)").bind(name).fetch_one(&mut self.0).await
    }

    pub(crate) async fn sweep_stop(&mut self, name: &str) -> Result<bool, sqlx::Error> {
        sqlx::query_scalar("SELECT insula.sweep_stop($1)").bind(name).fetch_one(&mut self.0).await
    }

    /// Its state; tenants, reached, skipped, queued, dead.
    pub(crate) async fn sweep_state(&mut self, name: &str) -> Result<Option<(String, [i64; 5])>, sqlx::Error> {
        let sql = "SELECT state, tenants, reached, skipped, queued, dead FROM insula.sweep_state($1)";
        let row: Option<(String, i64, i64, i64, i64, i64)> = sqlx::query_as(sql).bind(name).fetch_optional(&mut self.0).await?;
        Ok(row.map(|(state, tenants, reached, skipped, queued, dead)| (state, [tenants, reached, skipped, queued, dead])))
    }

    pub(crate) async fn sweeps_tidy(&mut self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT insula.sweeps_tidy()").execute(&mut self.0).await.map(|_| ())
    }

    pub(crate) async fn host_keep(&mut self, rows: &serde_json::Value) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT insula.host_keep($1)").bind(rows).execute(&mut self.0).await.map(|_| ())
    }

    pub(crate) async fn host_due(&mut self, names: &[&str]) -> Result<Vec<HostDue>, sqlx::Error> {
        let sql = "SELECT name, version, cron, zone, next_us, since_us, now_us FROM insula.host_due($1)";
        sqlx::query_as(sql).bind(names).fetch_all(&mut self.0).await
    }

    pub(crate) async fn host_plan(&mut self, name: &str, version: i64, next: Option<i64>) -> Result<(), sqlx::Error> {
        let sql = "SELECT insula.host_plan($1, $2, $3)";
        sqlx::query(sql).bind(name).bind(version).bind(next).execute(&mut self.0).await.map(|_| ())
    }

    /// The firing and the how manieth try; `None` when another was first.
    pub(crate) async fn host_take(
        &mut self,
        me: i64,
        name: &str,
        version: i64,
        next: Option<i64>,
    ) -> Result<Option<(DateTime<Utc>, i32)>, sqlx::Error> {
        let sql = "SELECT firing, attempt FROM insula.host_take($1, $2, $3, $4)";
        sqlx::query_as(sql).bind(me).bind(name).bind(version).bind(next).fetch_optional(&mut self.0).await
    }

    pub(crate) async fn host_end(
        &mut self,
        me: i64,
        name: &str,
        attempt: i32,
        error: Option<String>,
        retry_ms: Option<i64>,
    ) -> Result<bool, sqlx::Error> {
        let sql = "SELECT insula.host_end($1, $2, $3, $4, $5)";
        sqlx::query_scalar(sql).bind(me).bind(name).bind(attempt).bind(error).bind(retry_ms).fetch_one(&mut self.0).await
    }

    pub(crate) async fn host_tidy(&mut self, names: &[&str]) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT insula.host_tidy($1)").bind(names).execute(&mut self.0).await.map(|_| ())
    }
}
