//! What an unforgeable binding costs against the one of every tutorial, on the very same frames: one tenant's transaction with
//! a point select, in one round trip.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use insula_core::{Grant, GrantKey, Isolation, TenantContext, TenantNo};
use insula_data::lane::{Address, Call, Lane, Param, Wire};
use insula_testkit::TestTenant;
use sqlx::AssertSqlSafe;
use tokio::sync::Mutex;

use super::ground::{CLIENTS, DOCUMENTS, Ground, rate};
use crate::rounds::interleave;
use crate::row::{Outcome, Row, Target};

/// Row one of the speed table.
pub(crate) const ROW: Row = Row { name: "lane", about: "point select in the fast lane, grant against a forgeable setting", run };

const ROUNDS: usize = 25;
const SELECT: &str = "SELECT title, body FROM documents WHERE id = $1";
const ENTER: &str = "SELECT insula.enter($1, $2, $3, $4, $5, $6)";
const FORGEABLE: &str = "SELECT set_config('app.tenant_id', $1, true)";

/// What grants are made of.
struct Signer {
    key: GrantKey,
    no: TenantNo,
    fence: i64,
}

type Wires = Vec<Arc<Mutex<Wire>>>;

fn run() -> Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ground = runtime.block_on(Ground::new())?;
    let tenant = runtime.block_on(ground.tenant(Isolation::Row))?;
    runtime.block_on(forgeable(&ground, &tenant))?;
    let key = ground.cell.server().cell_key().grant_key(&tenant.placement.database, 1);
    let fence =
        runtime.block_on(async { insula_kit::fence(&mut ground.cell.server().admin(&tenant.placement.database).await).await })?;
    let bound = runtime.block_on(wires(&ground, &tenant, "insula_app", "app"))?;
    let forged = runtime.block_on(wires(&ground, &tenant, "guc_app", "guc"))?;
    let no = tenant.context.no;
    let sign = Arc::new(Signer { key, no, fence });
    let kept: Vec<Arc<Mutex<Option<Grant>>>> = bound.iter().map(|_| Arc::default()).collect();
    let ours = Arc::new(move |client, n| {
        granted(bound[slot(client)].clone(), kept[slot(client)].clone(), sign.clone(), document(client, n))
    });
    let peer = Arc::new(move |client, n| set(forged[slot(client)].clone(), no.get(), document(client, n)));
    let mut outcomes = Vec::new();
    for (clients, what) in [
        (1, "point select, row, one round trip: one client"),
        (CLIENTS, "point select, row, one round trip: four clients, which leave no core idle"),
    ] {
        let pair = interleave(ROUNDS, || runtime.block_on(rate(clients, &ours)), || runtime.block_on(rate(clients, &peer)))?;
        outcomes.push(Outcome::ratio(what, pair.ratio(), Target::AtLeast(0.90), pair.detail("tx/s")));
    }
    let (lane, context) = (ground.data.lane(), tenant.context.clone());
    let whole = Arc::new(move |client, n| through_data(lane.clone(), context.clone(), document(client, n)));
    let pair = interleave(ROUNDS, || runtime.block_on(rate(CLIENTS, &whole)), || runtime.block_on(rate(CLIENTS, &peer)))?;
    let what = "the same through Data::lane (route, pools, gate), against the bare wire of the peer";
    outcomes.push(Outcome::ratio(what, pair.ratio(), Target::None, pair.detail("tx/s")));
    Ok(outcomes)
}

async fn through_data(lane: Lane, context: TenantContext, id: i64) -> Result<()> {
    let rows = lane.query(&context, SELECT, &[Param::Int8(id)]).await?;
    ensure!(rows.len() == 1, "no row");
    Ok(())
}

fn slot(client: i64) -> usize {
    usize::try_from(client).unwrap_or(0)
}

const fn document(client: i64, n: i64) -> i64 {
    1 + (n * CLIENTS + client) % DOCUMENTS
}

/// The same rows behind the policy that one injected SET opens.
async fn forgeable(ground: &Ground, tenant: &TestTenant) -> Result<()> {
    let password = ground.cell.server().cell_key().role_password("guc_app");
    let sql = format!(
        "CREATE ROLE guc_app LOGIN PASSWORD '{password}';
         GRANT CONNECT ON DATABASE {} TO guc_app;
         GRANT EXECUTE ON FUNCTION pg_catalog.set_config(text, text, boolean) TO guc_app;
         CREATE SCHEMA guc; GRANT USAGE ON SCHEMA guc TO guc_app;
         CREATE TABLE guc.documents (LIKE app.documents INCLUDING INDEXES);
         INSERT INTO guc.documents SELECT * FROM app.documents;
         ALTER TABLE guc.documents ENABLE ROW LEVEL SECURITY;
         ALTER TABLE guc.documents FORCE ROW LEVEL SECURITY;
         CREATE POLICY tenant ON guc.documents USING (tenant_id = current_setting('app.tenant_id')::bigint);
         GRANT SELECT ON guc.documents TO guc_app",
        tenant.placement.database
    );
    let mut admin = ground.cell.server().admin(&tenant.placement.database).await;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut admin).await?;
    sqlx::raw_sql("VACUUM ANALYZE guc.documents").execute(&mut admin).await?;
    Ok(())
}

async fn wires(ground: &Ground, tenant: &TestTenant, role: &str, schema: &str) -> Result<Wires> {
    let server = ground.cell.server();
    let password = server.cell_key().role_password(role);
    let mut wires = Vec::new();
    for _ in 0..CLIENTS {
        let address = Address {
            host: server.host(),
            port: server.port(),
            user: role,
            password: &password,
            database: &tenant.placement.database,
            settings: &[("search_path", schema), ("statement_timeout", "10000")],
        };
        wires.push(Arc::new(Mutex::new(Wire::connect(&address).await?)));
    }
    Ok(wires)
}

/// As the lane itself does, a grant is kept while it is good: signed anew after twenty seconds.
async fn granted(wire: Arc<Mutex<Wire>>, kept: Arc<Mutex<Option<Grant>>>, sign: Arc<Signer>, id: i64) -> Result<()> {
    let (mut wire, mut kept) = (wire.lock().await, kept.lock().await);
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let grant = match *kept {
        Some(grant) if grant.expires >= now + 10 => grant,
        _ => *kept.insert(sign.key.sign(sign.no, 1, now + 30, wire.pid(), sign.fence)),
    };
    let enter = [
        Param::Int8(grant.no.get()),
        Param::Int8(grant.epoch),
        Param::Int8(grant.expires),
        Param::Int8(grant.fence),
        Param::Int4(grant.kid),
        Param::Bytes(&grant.mac),
    ];
    point(&mut wire, Call { sql: ENTER, params: &enter }, id).await
}

async fn set(wire: Arc<Mutex<Wire>>, no: i64, id: i64) -> Result<()> {
    let mut wire = wire.lock().await;
    let no = no.to_string();
    point(&mut wire, Call { sql: FORGEABLE, params: &[Param::Text(&no)] }, id).await
}

async fn point(wire: &mut Wire, bind: Call<'_>, id: i64) -> Result<()> {
    let results = wire.run(&[bind, Call { sql: SELECT, params: &[Param::Int8(id)] }]).await?;
    ensure!(results[1].len() == 1, "no row");
    Ok(())
}
