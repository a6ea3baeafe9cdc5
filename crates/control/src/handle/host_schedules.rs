//! Schedules of the host: they lie in one database, the pool of the first cell by name (`docs/decisions/0057-what-comes-again.md`).
//!
//! Always: what was said of them is in the catalog before it holds anywhere, and every pool is told: before a new one may be the first, and
//! again and again. So a pause outlives the coming and going of cells.

use insula_api::schedule::HostSchedule;
use insula_core::CellName;
use insula_core::placement::POOL_DATABASE;
use serde_json::json;

use super::Control;
use crate::doors::Errand;
use crate::error::Error;
use crate::model::{Cell, Page, PageRequest};
use crate::queue::Queue;
use crate::store;

impl Control {
    /// Where workers keep them, unless they are told another place; `None` while no cell has a pool.
    async fn host_queue(&self, errand: Errand) -> Result<Option<Queue>, Error> {
        let mut conn = self.catalog_pool().acquire().await?;
        let queues = store::cells::queues(&mut conn).await?;
        let Some((name, database)) = queues.into_iter().filter(|(_, database)| database == POOL_DATABASE).min() else {
            return Ok(None);
        };
        let name: CellName = name.parse().map_err(|_| Error::Corrupt(format!("a cell is called {name}")))?;
        let cell = store::cells::get(&mut conn, &name).await?.ok_or_else(|| Error::not_found("cell", &name))?;
        drop(conn);
        Ok(Some(Queue::open(self.cells(), &cell, &database, errand).await?))
    }

    /// The host's schedules, by name.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Away`] when the cell that has them does not answer.
    pub async fn host_schedules(&self, page: &PageRequest) -> Result<Page<HostSchedule>, Error> {
        let after = page.name_key()?;
        let found = match self.host_queue(Errand::Read).await? {
            Some(mut queue) => {
                let found = queue.host_schedules().await?;
                queue.commit().await?;
                found
            }
            None => Vec::new(),
        };
        Ok(page.page(found.into_iter().filter(|s| s.name > after).collect(), |schedule| schedule.name.clone()))
    }

    /// Pauses a schedule of the host, or lets it go on from now: what would have come between is not made up for.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Away`] when the cell that has it does not answer. If it went away in between, it is told later.
    pub async fn pause_host_schedule(&self, actor: &str, name: &str, paused: bool) -> Result<HostSchedule, Error> {
        let missing = || Error::not_found("schedule", name.chars().take(100).collect::<String>());
        if name.contains('\0') {
            return Err(missing());
        }
        let mut queue = self.host_queue(Errand::Change).await?.ok_or_else(missing)?;
        if !queue.host_schedules().await?.iter().any(|schedule| schedule.name == name) {
            return Err(missing());
        }
        let action = if paused { "host-schedule.pause" } else { "host-schedule.resume" };
        let mut tx = self.catalog_pool().begin().await?;
        let word = store::host_schedules::put(&mut tx, name, paused).await?;
        store::audit::append(&mut tx, actor, action, None, name, &json!({})).await?;
        tx.commit().await?;
        queue.tell_host(&[word]).await?;
        let now = queue.host_schedules().await?.into_iter().find(|schedule| schedule.name == name).ok_or_else(missing)?;
        queue.commit().await?;
        Ok(now)
    }

    /// Tells a pool what was said of schedules of the host, before anybody may look for them there.
    pub(crate) async fn tell_pool(&self, cell: &Cell) -> Result<(), Error> {
        let words = store::host_schedules::all(&mut *self.catalog_pool().acquire().await?).await?;
        if words.is_empty() {
            return Ok(());
        }
        let mut queue = Queue::open(self.cells(), cell, POOL_DATABASE, Errand::Own).await?;
        queue.tell_host(&words).await?;
        queue.commit().await
    }
}
