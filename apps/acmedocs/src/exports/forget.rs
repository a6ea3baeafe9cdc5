//! The end of exports: a week later nothing of them is left, neither rows nor files, however they ended.
//!
//! Always: one job a day and workspace sees to it, however many were asked for on that day and deleted again; a row goes after its files.

use std::time::Duration;

use chrono::Utc;
use insula::jobs::{self, Enqueue, Job, JobContext, JobError, KindRules};
use insula::{Result, Tenant, TenantTx};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::exports::{FORGOTTEN, MOST_UNFINISHED, ROWS, Row, write_off};

const DAY: u64 = 24 * 3600;
/// Exports that are forgotten in one go.
const AT_ONCE: i64 = 100;

/// Forgets the exports that ended long ago.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgetExports {}

/// Has those of today forgotten when the last of them is old enough.
pub(crate) async fn later(tx: &mut TenantTx) -> Result<()> {
    let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
    let delay = FORGOTTEN + Duration::from_secs(DAY - now % DAY);
    let key = Some(format!("day:{}", now / DAY));
    jobs::enqueue(tx, &ForgetExports {}, &Enqueue { delay, key, ..Enqueue::default() }).await?;
    Ok(())
}

impl Job for ForgetExports {
    const KIND: &'static str = "export_forgetting";
    type Output = ();

    fn rules() -> KindRules {
        KindRules { attempts: 50, ..KindRules::default() }
    }

    async fn run(self, context: JobContext) -> Result<(), JobError> {
        let tenant = Tenant::of_job(&context)?;
        loop {
            let old = old(&tenant).await?;
            if old.is_empty() {
                break;
            }
            for export in &old {
                tenant.objects().remove_all(&format!("exports/{export}")).await.map_err(insula::Error::from)?;
            }
            let mut tx = tenant.begin().await?;
            sqlx::query("DELETE FROM exports WHERE id = ANY($1)").bind(&old).execute(&mut tx).await?;
            tx.commit().await?;
        }
        go_on(&tenant).await?;
        Ok(())
    }
}

/// Some that ended long ago (index `exports_ended`). Nobody is sent to their files any more.
async fn old(tenant: &Tenant) -> Result<Vec<Uuid>> {
    let mut tx = tenant.begin().await?;
    let sql = "SELECT id FROM exports WHERE ended_at < now() - make_interval(secs => $1) ORDER BY ended_at, id LIMIT $2";
    let old: Vec<Uuid> = sqlx::query_scalar(sql).bind(FORGOTTEN.as_secs_f64()).bind(AT_ONCE).fetch_all(&mut tx).await?;
    let sql = "UPDATE exports SET outcome = 'expired', object = NULL WHERE id = ANY($1) AND outcome = 'done'";
    sqlx::query(sql).bind(&old).execute(&mut tx).await?;
    tx.commit().await?;
    Ok(old)
}

/// Those that are not old yet, or never came to an end, have their time later.
async fn go_on(tenant: &Tenant) -> Result<()> {
    let mut tx = tenant.begin().await?;
    let sql = format!("{ROWS} WHERE e.outcome IS NULL ORDER BY e.id LIMIT {MOST_UNFINISHED}");
    let open: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut tx).await?;
    write_off(&mut tx, tenant, open).await?;
    if sqlx::query_scalar("SELECT EXISTS (SELECT FROM exports)").fetch_one(&mut tx).await? {
        later(&mut tx).await?;
    }
    tx.commit().await?;
    Ok(())
}
