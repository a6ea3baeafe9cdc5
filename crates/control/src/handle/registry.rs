//! Plans, cells, the application's bundle.

use insula_api::cell::{AppVersion, Replica};
use insula_core::CellName;
use serde_json::json;

use super::Control;
use crate::cell_prepare;
use crate::check;
use crate::error::Error;
use crate::model::{Bundle, BundlePut, Cell, CellState, Operation, Page, PageRequest, PlanRecord, PutPlan, RegisterCell};
use crate::operation::submit::{Request, submit};
use crate::store;

impl Control {
    /// Plans by name.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn plans(&self, page: &PageRequest) -> Result<Page<PlanRecord>, Error> {
        store::plans::list(&mut *self.catalog_pool().acquire().await?, page).await
    }

    /// One plan.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn plan(&self, name: &str) -> Result<PlanRecord, Error> {
        let found = store::plans::get(&mut *self.catalog_pool().acquire().await?, name).await?;
        found.ok_or_else(|| Error::not_found("plan", name))
    }

    /// Makes a plan.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken; [`Error::Invalid`].
    pub async fn create_plan(&self, actor: &str, plan: PutPlan) -> Result<PlanRecord, Error> {
        check::plan(&plan)?;
        let mut tx = self.catalog_pool().begin().await?;
        check::new_features(&store::plans::features(&mut tx).await?, &Default::default(), &plan.features)?;
        let made = store::plans::insert(&mut tx, &plan).await?;
        let made = made.ok_or_else(|| Error::Conflict(format!("plan {} is there already: update it instead", plan.name)))?;
        store::audit::append(&mut tx, actor, "plan.create", None, plan.name.as_str(), &store::plans::to_json(&made.plan)?)
            .await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Changes a plan; holds at once for its tenants. `expected` is the version that the caller has seen.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Version`], [`Error::Invalid`].
    pub async fn update_plan(&self, actor: &str, plan: PutPlan, expected: Option<i64>) -> Result<PlanRecord, Error> {
        check::plan(&plan)?;
        let mut tx = self.catalog_pool().begin().await?;
        let found = store::plans::lock(&mut tx, plan.name.as_str()).await?;
        check::version(format!("plan {}", plan.name), expected, found.ok_or_else(|| Error::not_found("plan", &plan.name))?)?;
        let before = store::plans::get(&mut tx, plan.name.as_str()).await?.map(|before| before.plan.features);
        check::new_features(&store::plans::features(&mut tx).await?, &before.unwrap_or_default(), &plan.features)?;
        let made = store::plans::update(&mut tx, &plan).await?;
        store::audit::append(&mut tx, actor, "plan.update", None, plan.name.as_str(), &store::plans::to_json(&made.plan)?)
            .await?;
        tx.commit().await?;
        Ok(made)
    }

    /// Cells by name.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub async fn cell_page(&self, page: &PageRequest) -> Result<Page<Cell>, Error> {
        store::cells::list(&mut *self.catalog_pool().acquire().await?, page).await
    }

    /// One cell.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn cell(&self, name: &CellName) -> Result<Cell, Error> {
        let found = store::cells::get(&mut *self.catalog_pool().acquire().await?, name).await?;
        found.ok_or_else(|| Error::not_found("cell", name))
    }

    /// Registers a database server that somebody else runs. One for everybody is prepared by an operation before it takes
    /// tenants; a dedicated one waits, free, for its tenant.
    ///
    /// # Errors
    /// [`Error::Conflict`] when the name is taken; [`Error::Invalid`].
    pub async fn register_cell(&self, actor: &str, cell: RegisterCell) -> Result<(Cell, Option<Operation>), Error> {
        check::cell(&cell)?;
        let mut tx = self.catalog_pool().begin().await?;
        if !store::cells::insert_registered(&mut tx, &cell).await? {
            return Err(Error::Conflict(format!("cell {} is there already: choose another name", cell.name)));
        }
        let detail =
            json!({"region": cell.region, "labels": cell.labels, "dedicated": cell.dedicated, "capacity": cell.capacity});
        store::audit::append(&mut tx, actor, "cell.register", None, cell.name.as_str(), &detail).await?;
        tx.commit().await?;
        let operation = if cell.dedicated {
            None
        } else {
            let input = json!({"cell": cell.name});
            let request = Request { saga: &crate::cell_prepare::SAGA, actor, tenant: None, key: None, input };
            Some(submit(self, request).await?.operation)
        };
        Ok((self.cell(&cell.name).await?, operation))
    }

    /// Takes no new tenants from now on (`true`), or takes them again (`false`).
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when it is in a state where that has no meaning.
    pub async fn drain_cell(&self, actor: &str, name: &CellName, drain: bool) -> Result<Cell, Error> {
        let (from, to, action) = if drain {
            ([CellState::Ready, CellState::Draining], CellState::Draining, "cell.drain")
        } else {
            ([CellState::Draining, CellState::Ready], CellState::Ready, "cell.undrain")
        };
        let mut tx = self.catalog_pool().begin().await?;
        if !store::cells::set_state(&mut tx, name, &from, to).await? {
            let found = store::cells::get(&mut tx, name).await?.ok_or_else(|| Error::not_found("cell", name))?;
            return Err(Error::Conflict(format!(
                "cell {name} is {}: only a cell that is at work can be drained",
                store::cells::word(found.state)?
            )));
        }
        store::audit::append(&mut tx, actor, action, None, name.as_str(), &json!({})).await?;
        tx.commit().await?;
        self.cell(name).await
    }

    /// Says which application stacks a cell has, and which schema versions each serves; holds at once.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`].
    pub async fn put_apps(&self, actor: &str, name: &CellName, apps: &[AppVersion]) -> Result<Cell, Error> {
        check::apps(apps)?;
        let mut tx = self.catalog_pool().begin().await?;
        store::cells::get(&mut tx, name).await?.ok_or_else(|| Error::not_found("cell", name))?;
        if store::cells::set_apps(&mut tx, name, apps).await? {
            store::audit::append(&mut tx, actor, "cell.apps", None, name.as_str(), &json!({"apps": apps})).await?;
        }
        tx.commit().await?;
        self.cell(name).await
    }

    /// Adds a standby of a cell's server, which reads may go to; holds at once, and may be said again. Nobody is asked whether it is
    /// there: data planes read from a standby only while they see that it follows.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Invalid`].
    pub async fn add_replica(&self, actor: &str, name: &CellName, replica: &Replica) -> Result<Cell, Error> {
        let change = |replicas: &mut Vec<Replica>| {
            if !replicas.contains(replica) {
                replicas.push(replica.clone());
            }
            Ok(())
        };
        let cell = self.change_replicas(actor, name, "cell.replica.add", replica, change).await?;
        // A tenant's own cell has the roles of the version that made it, and replicas are watched by a role of its own.
        if let Err(error) = cell_prepare::prepare_server(self, &cell).await {
            tracing::warn!(cell = %cell.name, %error, "a cell has a replica, and its roles could not be looked after: add it again later");
        }
        Ok(cell)
    }

    /// Takes a standby away: nothing is read there from now on.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_replica(&self, actor: &str, name: &CellName, replica: &Replica) -> Result<Cell, Error> {
        self.change_replicas(actor, name, "cell.replica.remove", replica, |replicas| {
            let at = replicas.iter().position(|known| known == replica);
            at.map(|at| drop(replicas.remove(at))).ok_or_else(|| Error::not_found("replica", replica))
        })
        .await
    }

    async fn change_replicas(
        &self,
        actor: &str,
        name: &CellName,
        action: &str,
        replica: &Replica,
        change: impl FnOnce(&mut Vec<Replica>) -> Result<(), Error>,
    ) -> Result<Cell, Error> {
        let mut tx = self.catalog_pool().begin().await?;
        let cell = store::cells::lock(&mut tx, name).await?.ok_or_else(|| Error::not_found("cell", name))?;
        let mut replicas = cell.replicas.clone();
        change(&mut replicas)?;
        check::replicas(&cell, &replicas)?;
        if store::cells::set_replicas(&mut tx, name, &replicas).await? {
            store::audit::append(&mut tx, actor, action, None, name.as_str(), &json!({"replica": replica.to_string()})).await?;
        }
        tx.commit().await?;
        self.cell(name).await
    }

    /// Keeps the application's migrations and seed, and begins to apply what is new everywhere.
    ///
    /// # Errors
    /// [`Error::Conflict`] when it changes a migration that is kept already; [`Error::Invalid`].
    pub async fn put_bundle(&self, actor: &str, bundle: Bundle) -> Result<BundlePut, Error> {
        check::bundle(&bundle)?;
        crate::bundle_apply::put(self, actor, bundle).await
    }
}
