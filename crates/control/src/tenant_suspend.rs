//! `tenant.suspend`: nothing is lost, nothing is served.
//!
//! Always in this order: the catalog says so (data planes stop signing), then the tenant's database is fenced (what was
//! signed before is refused, transactions that are open end), then the fence is published. A fence that is known before
//! what it stands for would let a suspended tenant in. The way back (`tenant_resume`) is the reverse.

use futures_util::future::BoxFuture;
use insula_core::{Isolation, Slug, TenantId, TenantState};
use serde::Deserialize;
use serde_json::json;
use sqlx::PgConnection;

use crate::cells::kit_in;
use crate::error::Error;
use crate::model::{Cell, Tenant};
use crate::operation::step::{Outcome, Reach, Saga, Step};
use crate::operation::work::{Deed, Work};
use crate::store;

pub(crate) static SAGA: Saga = Saga {
    kind: "tenant.suspend",
    steps: &[
        &Mark {
            state: TenantState::Suspended,
            from: &[TenantState::Active, TenantState::Suspended],
            topic: "tenant.suspended",
            action: "tenant.suspend",
        },
        &Fence,
    ],
};

/// Whom an operation on a tenant is about.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) tenant: TenantId,
    pub(crate) slug: Slug,
}

/// The state in the catalog, with its audit line and event.
pub(crate) struct Mark {
    pub(crate) state: TenantState,
    pub(crate) from: &'static [TenantState],
    pub(crate) topic: &'static str,
    pub(crate) action: &'static str,
}

impl Step for Mark {
    fn name(&self) -> &'static str {
        "mark"
    }

    fn reach(&self) -> Reach {
        Reach::Catalog
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let Target { tenant, slug } = work.input()?;
            let found = lock(work).await?;
            let conn = work.catalog().await?;
            if !self.from.contains(&found.state) {
                let text = format!("tenant {slug} is {}: it cannot become {}", found.state.as_str(), self.state.as_str());
                return Err(Error::Conflict(text));
            }
            if found.state != self.state {
                store::tenants::set_state(conn, tenant, self.state).await?;
                store::outbox::insert(conn, self.topic, Some(tenant.uuid()), &json!({"tenant": tenant, "slug": slug})).await?;
                work.deeds.push(Deed { action: self.action, target: slug.to_string(), detail: json!({"from": found.state}) });
            }
            Ok(Outcome::Done)
        })
    }

    /// A tenant that was to be stopped stays stopped: the next try goes on from there.
    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// The tenant, locked, when no other operation is at work on it.
pub(crate) async fn lock(work: &mut Work) -> Result<Tenant, Error> {
    let Target { tenant, slug } = work.input()?;
    let id = work.job.id;
    let conn = work.catalog().await?;
    let found = store::tenants::lock(conn, tenant).await?.ok_or_else(|| Error::not_found("tenant", &slug))?;
    refuse_busy(conn, &found, id).await?;
    Ok(found)
}

async fn refuse_busy(conn: &mut PgConnection, tenant: &Tenant, but: uuid::Uuid) -> Result<(), Error> {
    match store::operations::unfinished(conn, tenant.id.uuid()).await? {
        Some((id, kind)) if id != but => {
            Err(Error::Conflict(format!("operation {id} ({kind}) is at work on tenant {}: wait for it", tenant.slug)))
        }
        _ => Ok(()),
    }
}

/// The tenant's database refuses it.
pub(crate) struct Fence;

impl Step for Fence {
    fn name(&self) -> &'static str {
        "fence"
    }

    fn reach(&self) -> Reach {
        Reach::Cell
    }

    fn forward<'a>(&'a self, work: &'a mut Work) -> BoxFuture<'a, Result<Outcome, Error>> {
        Box::pin(async move {
            let tenant = target(work).await?;
            let state = tenant.state;
            tell_database(work, &tenant, state).await?;
            Ok(Outcome::Done)
        })
    }

    fn undo<'a>(&'a self, _work: &'a mut Work) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

/// The tenant as it is now.
pub(crate) async fn target(work: &Work) -> Result<Tenant, Error> {
    let Target { tenant, slug } = work.input()?;
    let found = store::tenants::get(&mut *work.control.catalog_pool().acquire().await?, tenant).await?;
    found.ok_or_else(|| Error::not_found("tenant", slug))
}

/// Brings a tenant's database to `state`, and publishes the fence that this raised.
pub(crate) async fn tell_database(work: &Work, tenant: &Tenant, state: TenantState) -> Result<(), Error> {
    let Some(place) = &tenant.placement else { return Ok(()) };
    let cell = work.control.cell(&place.cell).await?;
    let mut conn = work.control.cells().connect(&cell, &place.database).await?;
    if state == TenantState::Active && place.isolation != Isolation::Row {
        insula_kit::enable_login(&mut conn, &place.role()).await.map_err(kit_in(&cell))?;
    }
    let fence = insula_kit::set_tenant(&mut conn, tenant.no, place.epoch, state).await.map_err(kit_in(&cell))?;
    if state != TenantState::Active && place.isolation != Isolation::Row {
        disable_login(&mut conn, &cell, &place.role()).await?;
    }
    store::cells::raise_fence(&mut *work.control.catalog_pool().acquire().await?, &place.cell, &place.database, fence).await
}

async fn disable_login(conn: &mut PgConnection, cell: &Cell, role: &str) -> Result<(), Error> {
    insula_kit::disable_login(conn, role).await.map_err(kit_in(cell))
}
