//! Search under the boundary: jsonb containment and full text on a million rows of a thousand tenants, against the same rows and indexes
//! without row security.
//!
//! Operators that are not leakproof lose their index under row security; this row is what notices. Both sides run the same two statements
//! in a transaction of the application's role on plain sqlx; ours enters with a grant where the peer says `tenant_id = …`.

use std::time::Instant;

use anyhow::{Context as _, Result};
use insula_core::placement::{APP_ROLE, POOL_DATABASE};
use insula_core::{Grant, GrantKey, TenantNo};
use insula_testkit::TestCell;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::rounds::interleave;
use crate::row::{Outcome, Row, Target};

/// The row.
pub(crate) const ROW: Row =
    Row { name: "search", about: "jsonb containment and full text, 1M rows, 1,000 tenants, against no row security", run };

const TABLE: &str =
    "CREATE TABLE entry (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), data jsonb NOT NULL, search tsvector NOT NULL);
                     SELECT insula.tenant_table('entry')";
const LOAD: &str = include_str!("../../sql/search.sql");
const TENANTS: i64 = 1_000;
const ROUNDS: usize = 21;
const PER_ROUND: u32 = 100;
const MOST: f64 = 1.4;

struct Question {
    what: &'static str,
    ours: &'static str,
    peer: &'static str,
    /// The n-th thing to look for.
    ask: fn(u32) -> String,
}

const QUESTIONS: [Question; 2] = [
    Question {
        what: "jsonb containment",
        ours: "SELECT id FROM app.entry WHERE data @> $1::text::jsonb LIMIT 50",
        peer: "SELECT id FROM peer.entry WHERE tenant_id = $2 AND data @> $1::text::jsonb LIMIT 50",
        ask: |n| format!(r#"{{"status":"open","customer":"c{}"}}"#, n % 40),
    },
    Question {
        what: "full-text search",
        ours: "SELECT id FROM app.entry WHERE search @@ websearch_to_tsquery('simple', $1) ORDER BY id LIMIT 20",
        peer: "SELECT id FROM peer.entry WHERE tenant_id = $2 AND search @@ websearch_to_tsquery('simple', $1) ORDER BY id LIMIT 20",
        ask: |n| format!("w{} w{}", n % 7, 20 + n % 300),
    },
];

fn run() -> Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let cell = runtime.block_on(load())?;
    QUESTIONS.iter().map(|question| measure(&runtime, cell, question)).collect()
}

async fn load() -> Result<&'static TestCell> {
    let cell = TestCell::shared(TABLE).await;
    let mut admin = cell.server().admin(POOL_DATABASE).await;
    // One by one: VACUUM runs in no transaction block.
    for statement in LOAD.split(";\n") {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut admin).await.with_context(|| statement.to_owned())?;
    }
    for no in 1..=TENANTS {
        insula_kit::register_tenant(&mut admin, number(no)?, 1, None).await?;
    }
    Ok(cell)
}

fn number(no: i64) -> Result<TenantNo> {
    TenantNo::new(no).context("a tenant number is positive")
}

/// One connection of the application's role, and what signs its grants.
struct Side {
    conn: PgConnection,
    key: GrantKey,
    pid: i32,
    fence: i64,
    asked: u32,
}

impl Side {
    async fn open(cell: &TestCell) -> Result<Self> {
        let server = cell.server();
        let mut conn = PgConnection::connect(&server.role_url(APP_ROLE, POOL_DATABASE)).await?;
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut conn).await?;
        let fence = insula_kit::fence(&mut server.admin(POOL_DATABASE).await).await?;
        Ok(Self { conn, key: server.cell_key().grant_key(POOL_DATABASE, 1), pid, fence, asked: 0 })
    }

    /// Seconds for `PER_ROUND` transactions of as many tenants, and the rows found.
    async fn round(&mut self, question: &Question, bound: bool) -> Result<(f64, usize)> {
        let start = Instant::now();
        let mut found = 0;
        for _ in 0..PER_ROUND {
            self.asked += 1;
            found += self.transaction(question, i64::from(self.asked % 997) + 1, bound).await?;
        }
        Ok((start.elapsed().as_secs_f64(), found))
    }

    async fn transaction(&mut self, question: &Question, no: i64, bound: bool) -> Result<usize> {
        let asked = (question.ask)(self.asked);
        // One round trip to open on either side.
        let open = if bound { format!("BEGIN; SELECT insula.enter('{}')", self.grant(no)?.text()) } else { "BEGIN".to_owned() };
        sqlx::raw_sql(AssertSqlSafe(open)).execute(&mut self.conn).await?;
        let query = sqlx::query(if bound { question.ours } else { question.peer }).bind(asked);
        let query = if bound { query } else { query.bind(no) };
        let rows = query.fetch_all(&mut self.conn).await?;
        sqlx::raw_sql("COMMIT").execute(&mut self.conn).await?;
        Ok(rows.len())
    }

    fn grant(&self, no: i64) -> Result<Grant> {
        let now = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs())?;
        Ok(self.key.sign(number(no)?, 1, now + 30, self.pid, self.fence))
    }
}

fn measure(runtime: &tokio::runtime::Runtime, cell: &TestCell, question: &Question) -> Result<Outcome> {
    let (mut ours, mut peer) = runtime.block_on(async { anyhow::Ok((Side::open(cell).await?, Side::open(cell).await?)) })?;
    let (mut our_rows, mut peer_rows) = (0, 0);
    let pair = interleave(
        ROUNDS,
        || {
            let (seconds, rows) = runtime.block_on(ours.round(question, true))?;
            our_rows += rows;
            anyhow::Ok(seconds / f64::from(PER_ROUND) * 1e6)
        },
        || {
            let (seconds, rows) = runtime.block_on(peer.round(question, false))?;
            peer_rows += rows;
            anyhow::Ok(seconds / f64::from(PER_ROUND) * 1e6)
        },
    )?;
    anyhow::ensure!(our_rows == peer_rows && our_rows > 0, "the sides found different rows: {our_rows} and {peer_rows}");
    let detail = format!("whole transactions, {}; {our_rows} rows found by either side", pair.detail("µs"));
    Ok(Outcome::ratio(question.what, pair.ratio(), Target::AtMost(MOST), detail))
}
