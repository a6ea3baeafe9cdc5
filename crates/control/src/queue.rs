//! The queues in the cells, as their administrator sees and changes them: `crates/kit/sql/087_operate.sql` and its neighbours, a call each.
//!
//! For: one short connection for one request. Not for: who may ask, or the audit log. Always: a server that is away, or slow, is a refusal
//! that names its cell, within seconds; and whoever asks how often, a cell has no more of these connections than [`crate::doors`] lets in.

use std::time::Duration;

use chrono::{DateTime, Utc};
use insula_api::job::{Job, JobBody, JobState};
use insula_api::schedule::{HostSchedule, Schedule, ScheduleOrigin};
use insula_api::worker::Worker;
use insula_core::TenantNo;
use insula_core::placement::WORKER_ROLE;
use sqlx::postgres::PgRow;
use sqlx::{Connection as _, PgConnection, Row as _};
use uuid::Uuid;

use crate::cells::{Cells, in_cell};
use crate::doors::{Errand, Pass};
use crate::error::Error;
use crate::model::Cell;
use crate::store::host_schedules::Word;

/// For everything that one request does in a cell.
const WITHIN: Duration = Duration::from_secs(8);

/// Below it, so that the server gives up before we do.
const BEGIN: &str =
    "SET statement_timeout = '5s'; SET lock_timeout = '3s'; SET idle_in_transaction_session_timeout = '20s'; BEGIN";

/// An open connection to the database of a queue. Changes are made in a transaction that [`Queue::commit`] ends; dropped, nothing has changed.
pub(crate) struct Queue {
    cell: Cell,
    /// There until it is committed or dropped.
    open: Option<Open>,
}

/// A connection, and the place in its cell that it takes.
struct Open {
    conn: PgConnection,
    pass: Pass,
}

impl Queue {
    pub(crate) async fn open(cells: &Cells, cell: &Cell, database: &str, errand: Errand) -> Result<Self, Error> {
        let pass = cells.doors().enter(&cell.name, errand).await?;
        let (connecting, cell) = (cells.connecting(cell, database)?, cell.clone());
        // On a task of its own: a caller who goes away in between still has the connection closed before its place is free.
        let opened = tokio::spawn(async move {
            let opened = within(&cell, async {
                let mut queue = Self { cell: cell.clone(), open: Some(Open { conn: connecting.await?, pass }) };
                let (cell, conn) = queue.parts()?;
                sqlx::raw_sql(BEGIN).execute(conn).await.map_err(in_cell(cell))?;
                Ok(queue)
            });
            opened.await
        });
        opened.await.unwrap_or_else(|_| Err(Error::Away("the control plane is ending".into())))
    }

    fn parts(&mut self) -> Result<(&Cell, &mut PgConnection), Error> {
        let open = self.open.as_mut().ok_or_else(|| Error::Corrupt("a queue is used after its end".into()))?;
        Ok((&self.cell, &mut open.conn))
    }

    /// Makes good what was changed.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        let (cell, conn) = self.parts()?;
        within(cell, async { sqlx::raw_sql("COMMIT").execute(conn).await.map(|_| ()).map_err(in_cell(cell)) }).await
    }

    /// A page of jobs, newest first.
    pub(crate) async fn jobs(
        &mut self,
        tenant: TenantNo,
        state: Option<JobState>,
        kind: Option<&str>,
        before: Option<Uuid>,
        most: i64,
    ) -> Result<Vec<Job>, Error> {
        // Its condition always holds: an older kit, which lacks the column, is told by the database and not found out by reading.
        let sql = "SELECT *, NULL::text AS key, NULL::text AS principal, NULL::text AS trace
                   FROM insula.job_list($1, $2, $3, $4, $5) WHERE cancelling IS NOT NULL";
        let query = sqlx::query(sql).bind(tenant.get()).bind(state.map(JobState::as_str)).bind(kind).bind(before);
        let query = query.bind(i32::try_from(most).unwrap_or(i32::MAX));
        let (cell, conn) = self.parts()?;
        let rows = within(cell, async { query.fetch_all(conn).await.map_err(in_cell(cell)) }).await?;
        rows.iter().map(|row| job(row).map_err(in_cell(cell))?).collect()
    }

    /// One job.
    pub(crate) async fn job(&mut self, tenant: TenantNo, id: Uuid) -> Result<Option<Job>, Error> {
        let query = sqlx::query("SELECT * FROM insula.job_show($1, $2)").bind(tenant.get()).bind(id);
        let (cell, conn) = self.parts()?;
        let row = within(cell, async { query.fetch_optional(conn).await.map_err(in_cell(cell)) }).await?;
        row.map(|row| job(&row).map_err(in_cell(cell))?).transpose()
    }

    /// What it was asked and what it answered.
    pub(crate) async fn body(&mut self, tenant: TenantNo, id: Uuid) -> Result<Option<JobBody>, Error> {
        let query = sqlx::query_as("SELECT body, result FROM insula.job_body($1, $2)").bind(tenant.get()).bind(id);
        let (cell, conn) = self.parts()?;
        let row: Option<(serde_json::Value, Option<serde_json::Value>)> =
            within(cell, async { query.fetch_optional(conn).await.map_err(in_cell(cell)) }).await?;
        Ok(row.map(|(body, result)| JobBody { body, result }))
    }

    /// Cancels a job; answers the state that it was found in.
    pub(crate) async fn cancel(&mut self, tenant: TenantNo, id: Uuid) -> Result<Option<String>, Error> {
        self.scalar(sqlx::query_scalar("SELECT insula.job_cancel($1, $2)").bind(tenant.get()).bind(id)).await
    }

    /// Has a job tried now; answers the state that it was found in, or `key`.
    pub(crate) async fn retry(&mut self, tenant: TenantNo, id: Uuid) -> Result<Option<String>, Error> {
        self.scalar(sqlx::query_scalar("SELECT insula.job_retry($1, $2)").bind(tenant.get()).bind(id)).await
    }

    /// Lets all dead letters wait again; how many.
    pub(crate) async fn replay_dead(&mut self, tenant: TenantNo) -> Result<i64, Error> {
        self.scalar(sqlx::query_scalar("SELECT insula.dead_replay($1, NULL)").bind(tenant.get())).await
    }

    /// Forgets dead letters; how many.
    pub(crate) async fn purge_dead(&mut self, tenant: TenantNo, before: DateTime<Utc>) -> Result<i64, Error> {
        self.scalar(sqlx::query_scalar("SELECT insula.dead_purge($1, $2)").bind(tenant.get()).bind(before)).await
    }

    /// All schedules of a tenant, by name. It has a thousand of its own at most.
    pub(crate) async fn schedules(&mut self, tenant: TenantNo) -> Result<Vec<Schedule>, Error> {
        let sql = "SELECT name, origin, kind, cron, zone, paused, next_at, last_at, error FROM insula.schedules_of($1, 10000)";
        let query = sqlx::query(sql).bind(tenant.get());
        let (cell, conn) = self.parts()?;
        let rows = within(cell, async { query.fetch_all(conn).await.map_err(in_cell(cell)) }).await?;
        rows.iter().map(schedule).collect::<Result<_, _>>().map_err(in_cell(cell))
    }

    /// Pauses a schedule, or lets it go on; false when there is none.
    pub(crate) async fn pause(&mut self, tenant: TenantNo, name: &str, paused: bool) -> Result<bool, Error> {
        let sql = "SELECT insula.schedule_pause($1, $2, $3)";
        self.scalar(sqlx::query_scalar(sql).bind(tenant.get()).bind(name.to_owned()).bind(paused)).await
    }

    /// All schedules of the host that this database has, by name.
    pub(crate) async fn host_schedules(&mut self) -> Result<Vec<HostSchedule>, Error> {
        let sql = "SELECT name, cron, zone, paused, next_at, firing, attempt, last_at, error FROM insula.host_schedules()";
        let query = sqlx::query(sql);
        let (cell, conn) = self.parts()?;
        let rows = within(cell, async { query.fetch_all(conn).await.map_err(in_cell(cell)) }).await?;
        rows.iter().map(host_schedule).collect::<Result<_, _>>().map_err(in_cell(cell))
    }

    /// Tells this database what was said of schedules of the host, whether they lie here or may one day.
    pub(crate) async fn tell_host(&mut self, words: &[Word]) -> Result<(), Error> {
        let names: Vec<&str> = words.iter().map(|word| word.name.as_str()).collect();
        let (paused, versions): (Vec<bool>, Vec<i64>) = words.iter().map(|word| (word.paused, word.version)).unzip();
        let sql = "SELECT count(*) FROM unnest($1::text[], $2::boolean[], $3::bigint[]) w (name, paused, told)
                    CROSS JOIN LATERAL insula.host_pause(w.name, w.paused, w.told)";
        self.scalar::<i64>(sqlx::query_scalar(sql).bind(names).bind(paused).bind(versions)).await.map(|_| ())
    }

    /// Everybody who works on this queue; whether they are alive is not known yet.
    pub(crate) async fn workers(&mut self, database: &str) -> Result<Vec<Worker>, Error> {
        let query = sqlx::query("SELECT no, name, lease_ms, beats, started_at, running, kinds FROM insula.worker_list()");
        let (cell, conn) = self.parts()?;
        let rows = within(cell, async { query.fetch_all(conn).await.map_err(in_cell(cell)) }).await?;
        let read = |row: &PgRow| {
            Ok(Worker {
                cell: cell.name.clone(),
                database: database.to_owned(),
                no: row.try_get("no")?,
                name: row.try_get("name")?,
                alive: false,
                lease_ms: row.try_get("lease_ms")?,
                beats: row.try_get("beats")?,
                started_at: row.try_get("started_at")?,
                running: row.try_get("running")?,
                kinds: row.try_get::<sqlx::types::Json<_>, _>("kinds")?.0,
            })
        };
        rows.iter().map(read).collect::<Result<_, sqlx::Error>>().map_err(in_cell(cell))
    }

    /// How many signs of life each worker has given, by number.
    pub(crate) async fn beats(&mut self) -> Result<Vec<(i64, i64)>, Error> {
        let query = sqlx::query_as("SELECT no, beats FROM insula.workers()");
        let (cell, conn) = self.parts()?;
        within(cell, async { query.fetch_all(conn).await.map_err(in_cell(cell)) }).await
    }

    /// The other databases of this server that workers are connected to.
    pub(crate) async fn visited(&mut self) -> Result<Vec<String>, Error> {
        let sql = "SELECT DISTINCT a.datname::text FROM pg_catalog.pg_stat_activity a
                   WHERE a.usename = $1 AND a.datname <> current_database() ORDER BY 1";
        let query = sqlx::query_scalar(sql).bind(WORKER_ROLE);
        let (cell, conn) = self.parts()?;
        within(cell, async { query.fetch_all(conn).await.map_err(in_cell(cell)) }).await
    }

    /// How many work on this queue, as it knows them; none when nobody is connected.
    pub(crate) async fn connected_workers(&mut self) -> Result<i64, Error> {
        let sql = "SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.usename = $1 AND a.datname = current_database())
                               THEN (SELECT count(*) FROM insula.workers()) ELSE 0 END";
        self.scalar(sqlx::query_scalar(sql).bind(WORKER_ROLE)).await
    }

    /// Whether there is work, and nobody connected who would do it.
    pub(crate) async fn is_unattended(&mut self) -> Result<bool, Error> {
        let sql = "SELECT insula.queue_waits()
                      AND NOT EXISTS (SELECT FROM pg_catalog.pg_stat_activity a WHERE a.usename = $1 AND a.datname = current_database())";
        self.scalar(sqlx::query_scalar(sql).bind(WORKER_ROLE)).await
    }

    async fn scalar<T>(
        &mut self,
        query: sqlx::query::QueryScalar<'_, sqlx::Postgres, T, sqlx::postgres::PgArguments>,
    ) -> Result<T, Error>
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        let (cell, conn) = self.parts()?;
        within(cell, async { query.fetch_one(conn).await.map_err(in_cell(cell)) }).await
    }
}

/// Nobody waits for a goodbye; but the server hears it only when it has ended what it is at, and until then the place is taken.
impl Drop for Queue {
    fn drop(&mut self) {
        let (Some(Open { mut conn, pass }), Ok(runtime)) = (self.open.take(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            let _ = tokio::time::timeout(WITHIN, conn.ping()).await;
            let _ = tokio::time::timeout(WITHIN, conn.close()).await;
            drop(pass);
        });
    }
}

/// Bounds what is done in a cell.
async fn within<T>(cell: &Cell, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let outcome = tokio::time::timeout(WITHIN, work).await;
    match outcome {
        Ok(Err(Error::Cell { source, .. })) if has_code(&source, SLOW) => Err(Error::Timeout(format!(
            "the queue in cell {} took longer than a few seconds; ask for less, or try again",
            cell.name
        ))),
        Ok(Err(Error::Cell { source, .. })) if has_code(&source, OLD) => {
            Err(Error::Conflict(format!("the database in cell {} has an older SQL kit than this control plane", cell.name)))
        }
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Away(format!("the database server of cell {} does not answer", cell.name))),
    }
}

/// What ends a statement that takes too long: `statement_timeout`, `lock_timeout`.
const SLOW: &[&str] = &["57014", "55P03"];

/// No such function, schema, table or column.
const OLD: &[&str] = &["42883", "3F000", "42P01", "42703"];

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    error.as_database_error().and_then(|e| e.code()).is_some_and(|code| codes.contains(&&*code))
}

fn schedule(row: &PgRow) -> Result<Schedule, sqlx::Error> {
    let origin: String = row.try_get("origin")?;
    Ok(Schedule {
        name: row.try_get("name")?,
        origin: if origin == ScheduleOrigin::Code.as_str() { ScheduleOrigin::Code } else { ScheduleOrigin::Tenant },
        kind: row.try_get("kind")?,
        cron: row.try_get("cron")?,
        zone: row.try_get("zone")?,
        paused: row.try_get("paused")?,
        next_at: row.try_get("next_at")?,
        last_at: row.try_get("last_at")?,
        error: row.try_get("error")?,
    })
}

fn host_schedule(row: &PgRow) -> Result<HostSchedule, sqlx::Error> {
    Ok(HostSchedule {
        name: row.try_get("name")?,
        cron: row.try_get("cron")?,
        zone: row.try_get("zone")?,
        paused: row.try_get("paused")?,
        next_at: row.try_get("next_at")?,
        firing: row.try_get("firing")?,
        attempt: row.try_get("attempt")?,
        last_at: row.try_get("last_at")?,
        error: row.try_get("error")?,
    })
}

fn job(row: &PgRow) -> Result<Result<Job, Error>, sqlx::Error> {
    let word: String = row.try_get("state")?;
    let Some(state) = JobState::from_name(&word) else {
        return Ok(Err(Error::Corrupt(format!("a job is {word}"))));
    };
    Ok(Ok(Job {
        id: row.try_get("id")?,
        kind: row.try_get("kind")?,
        state,
        lane: row.try_get("lane")?,
        priority: row.try_get("priority")?,
        attempt: row.try_get("attempt")?,
        attempts: row.try_get("attempts")?,
        created_at: row.try_get("created_at")?,
        due: row.try_get("due")?,
        started_at: row.try_get("started_at")?,
        deadline: row.try_get("deadline")?,
        ended_at: row.try_get("ended_at")?,
        expires_at: row.try_get("expires_at")?,
        worker: row.try_get("worker")?,
        error: row.try_get("error")?,
        progress: row.try_get("progress")?,
        cancelling: row.try_get("cancelling")?,
        key: row.try_get("key")?,
        principal: row.try_get("principal")?,
        trace: row.try_get("trace")?,
    }))
}
