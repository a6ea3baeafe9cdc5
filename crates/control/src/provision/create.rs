//! Step four: the tenant's database, schema, login and registration, as its isolation asks; opens the transaction that the
//! tables and the seed join.

use futures_util::future::BoxFuture;
use insula_core::Isolation;
use insula_core::placement::TEMPLATE_DATABASE;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::{Memo, cell_of};
use crate::cell_prepare::{self, FIRST_KID};
use crate::cells::{CellTx, MAINTENANCE, in_cell, kit_in, own_name};
use crate::error::Error;
use crate::model::Cell;
use crate::operation::step::{Outcome, Reach, Step};
use crate::operation::work::Work;

/// Any constant: the first half of the lock that makers of one tenant take.
const MAKING: i32 = 0x6d61_6b65;

pub(super) struct Create;

impl Step for Create {
    fn name(&self) -> &'static str {
        "create"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let mut memo: Memo = work.memo()?;
            let cell = cell_of(work, memo.home()?).await?;
            if memo.isolation == Isolation::Schema {
                admit_schema_login(work, &cell, &memo).await?;
            }
            let mut tx = open(work, &memo, &cell).await?;
            memo.made = is_made(tx.conn(), &cell, &memo).await?;
            if !memo.made {
                register(work, tx.conn(), &cell, &memo).await?;
            }
            memo.fence = insula_kit::fence(tx.conn()).await.map_err(kit_in(&cell))?;
            work.hold(tx);
            work.remember(&memo)?;
            Ok(Outcome::Done)
        })
    }

    /// What is in the cell is taken back by the step before: a pre-made database is the tenant's from its claim on.
    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// A transaction in the tenant's database, which is made when it is not there.
async fn open(work: &Work, memo: &Memo, cell: &Cell) -> Result<CellTx, Error> {
    let home = memo.home()?;
    let cells = work.control.cells();
    match memo.isolation {
        Isolation::Row | Isolation::Schema => cells.begin(cell, &home.database).await,
        Isolation::Database => {
            make_database(work, cell, &home.database, home.warm.as_deref()).await?;
            cells.begin_alone(cell, &home.database).await
        }
        Isolation::Cell => {
            cell_prepare::prepare_database(&work.control, cell, &home.database).await?;
            cells.begin_alone(cell, &home.database).await
        }
    }
}

/// The rename of a pre-made database, or a clone of the template.
async fn make_database(work: &Work, cell: &Cell, database: &str, warm: Option<&str>) -> Result<(), Error> {
    let pool = work.control.cells().pool(cell, MAINTENANCE)?;
    let mut admin = pool.acquire().await.map_err(in_cell(cell))?;
    let there: Vec<String> = sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname = ANY ($1)")
        .bind([Some(database), warm].into_iter().flatten().collect::<Vec<_>>())
        .fetch_all(&mut *admin)
        .await
        .map_err(in_cell(cell))?;
    if there.iter().any(|name| name == database) {
        return Ok(());
    }
    match warm {
        Some(warm) if there.iter().any(|name| name == warm) => rename(&mut admin, cell, warm, database).await,
        _ => {
            let making = work.control.cells().making(&cell.name);
            let _alone = making.lock().await;
            insula_kit::clone_database(&mut admin, database, TEMPLATE_DATABASE).await.map_err(kit_in(cell))
        }
    }
}

async fn rename(admin: &mut PgConnection, cell: &Cell, from: &str, to: &str) -> Result<(), Error> {
    let sql = format!("ALTER DATABASE {} RENAME TO {}", own_name(from)?, own_name(to)?);
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(admin).await.map_err(in_cell(cell))?;
    Ok(())
}

/// Its row is written with its tables and its seed. Another engine that took us for dead may be at it: it goes first.
async fn is_made(conn: &mut PgConnection, cell: &Cell, memo: &Memo) -> Result<bool, Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1, ($2 % 2147483647)::int)")
        .bind(MAKING)
        .bind(memo.no.get())
        .execute(&mut *conn)
        .await
        .map_err(in_cell(cell))?;
    sqlx::query_scalar("SELECT EXISTS (SELECT FROM insula.tenant WHERE no = $1)")
        .bind(memo.no.get())
        .fetch_one(conn)
        .await
        .map_err(in_cell(cell))
}

/// A schema tenant's login and its empty schema, in a transaction of their own: they change privileges of objects that all
/// schema tenants share, so logins are made in turn, and the tables would make that turn too long.
async fn admit_schema_login(work: &Work, cell: &Cell, memo: &Memo) -> Result<(), Error> {
    let mut tx = work.control.cells().begin(cell, &memo.home()?.database).await?;
    make_login(work, tx.conn(), cell, memo).await?;
    tx.commit().await
}

async fn make_login(work: &Work, conn: &mut PgConnection, cell: &Cell, memo: &Memo) -> Result<(), Error> {
    let (home, Some(role)) = (memo.home()?, memo.role()?) else { return Ok(()) };
    let password = work.control.cells().key(&cell.name).role_password(&role);
    insula_kit::create_login(conn, &role, &password, memo.no, &home.database, &home.schema).await.map_err(kit_in(cell))
}

async fn register(work: &Work, conn: &mut PgConnection, cell: &Cell, memo: &Memo) -> Result<(), Error> {
    let home = memo.home()?;
    let role = memo.role()?;
    let key = work.control.cells().key(&cell.name);
    if memo.alone() {
        make_login(work, conn, cell, memo).await?;
    }
    if memo.isolation == Isolation::Database {
        // The template's key is the template's: a clone gets one of its own.
        rekey(conn, cell, &home.database, &key).await?;
    }
    insula_kit::register_tenant(conn, memo.no, 1, role.as_deref()).await.map_err(kit_in(cell))
}

async fn rekey(conn: &mut PgConnection, cell: &Cell, database: &str, key: &insula_core::CellKey) -> Result<(), Error> {
    let mut tx = conn.begin().await.map_err(in_cell(cell))?;
    insula_kit::give_key(&mut tx, database, key, FIRST_KID).await.map_err(kit_in(cell))?;
    tx.commit().await.map_err(in_cell(cell))
}
