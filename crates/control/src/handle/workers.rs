//! Who runs jobs, as the queues know them.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use insula_api::worker::{Worker, Workers};
use insula_core::CellName;
use insula_core::placement::POOL_DATABASE;

use super::Control;
use crate::doors::Errand;
use crate::error::Error;
use crate::model::{Cell, CellState};
use crate::queue::Queue;
use crate::store;

/// A worker gives a sign of life at least once in it, as long as its machine has time for it.
const BEAT: Duration = Duration::from_millis(1_500);
/// So many are waited for before one that gave none is called dead: a busy machine's are late.
const BEATS: u32 = 2;

/// How long [`Control::status`] may be held up by it.
const BRIEFLY: Duration = Duration::from_secs(1);

/// Between two looks at who works.
const LOOK: Duration = Duration::from_secs(15);

/// Cells that are asked at once.
const AT_ONCE: usize = 32;

impl Control {
    /// All workers, or those of one cell. Watches them for a moment, because only that tells which are alive.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Away`] when the one cell that was asked for does not answer.
    pub async fn workers(&self, of: Option<&CellName>) -> Result<Workers, Error> {
        let places = self.queues(of).await?;
        let visited = self.visited(&places).await;
        let always = stream::iter(places).map(|(cell, database)| async move {
            let seen = self.watch_queue(&cell, &database).await;
            (cell.name, seen)
        });
        let now = stream::iter(visited).map(|(cell, database)| async move {
            // It may be over, and the database gone.
            let seen = self.watch_queue(&cell, &database).await.unwrap_or_default();
            (cell.name, Ok(seen))
        });
        let (mut seen, visited): (Vec<_>, Vec<_>) =
            futures_util::join!(always.buffered(AT_ONCE).collect(), now.buffered(AT_ONCE).collect());
        seen.extend(visited);
        let mut workers = Workers { items: Vec::new(), away: Vec::new() };
        for (cell, seen) in seen {
            match seen {
                Ok(seen) => workers.items.extend(seen),
                Err(error) if of.is_some() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, %cell, "its workers are not known now");
                    if !workers.away.contains(&cell) {
                        workers.away.push(cell);
                    }
                }
            }
        }
        workers.items.sort_by(|a, b| (&a.cell, &a.database, a.no).cmp(&(&b.cell, &b.database, b.no)));
        Ok(workers)
    }

    /// How many workers each cell's shared queue has, as far as cells answer at once.
    pub(crate) async fn worker_counts(&self) -> Result<BTreeMap<String, i64>, Error> {
        let places = self.queues(None).await?;
        let first = places.into_iter().filter(|(cell, database)| cell.dedicated || database == POOL_DATABASE);
        let counts = stream::iter(first).map(async |(cell, database)| {
            let count = tokio::time::timeout(BRIEFLY, self.count_workers(&cell, &database)).await;
            count.ok()?.ok().map(|count| (cell.name.to_string(), count))
        });
        Ok(counts.buffer_unordered(AT_ONCE).filter_map(std::future::ready).collect().await)
    }

    async fn count_workers(&self, cell: &Cell, database: &str) -> Result<i64, Error> {
        let mut queue = Queue::open(self.cells(), cell, database, Errand::Look).await?;
        let count = queue.connected_workers().await?;
        queue.commit().await?;
        Ok(count)
    }

    /// Shows, again and again, in how many databases of each cell work waits and nobody is there to do it: no worker can say that. And tells pools
    /// what they may have missed of schedules of the host.
    pub(crate) async fn watch_queues(self) {
        loop {
            if let Err(error) = self.look_at_queues().await {
                tracing::debug!(%error, "the queues were not looked at");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn look_at_queues(&self) -> Result<(), Error> {
        let places = self.queues(None).await?;
        let words = store::host_schedules::all(&mut *self.catalog_pool().acquire().await?).await?;
        let words = words.as_slice();
        let looks = stream::iter(places).map(async |(cell, database)| {
            let look = async {
                let mut queue = Queue::open(self.cells(), &cell, &database, Errand::Own).await?;
                let unattended = queue.is_unattended().await?;
                if database == POOL_DATABASE
                    && !words.is_empty()
                    && let Err(error) = queue.tell_host(words).await
                {
                    tracing::warn!(%error, cell = %cell.name, "its pool was not told which schedules of the host are paused");
                }
                queue.commit().await?;
                Ok::<_, Error>(unattended)
            };
            // One that is away is another alert's.
            let unattended = look.await.unwrap_or(false);
            (cell.name, u32::from(unattended))
        });
        let mut cells: BTreeMap<CellName, u32> = BTreeMap::new();
        let seen: Vec<_> = looks.buffer_unordered(AT_ONCE).collect().await;
        for (cell, unattended) in seen {
            *cells.entry(cell).or_default() += unattended;
        }
        for (cell, unattended) in cells {
            metrics::gauge!("insula_queues_unattended", "cell" => cell.to_string()).set(f64::from(unattended));
        }
        Ok(())
    }

    /// The queues that somebody always works on.
    async fn queues(&self, of: Option<&CellName>) -> Result<Vec<(Cell, String)>, Error> {
        let mut conn = self.catalog_pool().acquire().await?;
        let cells = match of {
            Some(name) => vec![store::cells::get(&mut conn, name).await?.ok_or_else(|| Error::not_found("cell", name))?],
            None => store::cells::all(&mut conn).await?,
        };
        let here = |cell: &Cell| of.is_some() || matches!(cell.state, CellState::Ready | CellState::Draining);
        let cells: BTreeMap<String, Cell> = cells.into_iter().filter(here).map(|cell| (cell.name.to_string(), cell)).collect();
        let queues = store::cells::queues(&mut conn).await?;
        Ok(queues.into_iter().filter_map(|(cell, database)| Some((cells.get(&cell)?.clone(), database))).collect())
    }

    /// Databases of single tenants that a worker is in just now, as far as their servers say so.
    async fn visited(&self, places: &[(Cell, String)]) -> Vec<(Cell, String)> {
        // One of each server, dedicated ones left out: there is no database of another tenant.
        let servers: BTreeMap<_, _> =
            places.iter().filter(|(cell, _)| !cell.dedicated).map(|place| (&place.0.name, place.clone())).collect();
        let looks = stream::iter(servers.into_values().collect::<Vec<_>>()).map(|(cell, database)| async move {
            let look = async {
                let mut queue = Queue::open(self.cells(), &cell, &database, Errand::Look).await?;
                let visited = queue.visited().await?;
                queue.commit().await?;
                Ok::<_, Error>(visited)
            };
            look.await.unwrap_or_default().into_iter().map(|database| (cell.clone(), database)).collect::<Vec<_>>()
        });
        let visited: Vec<_> = looks.buffered(AT_ONCE).collect().await;
        let is_known = |cell: &Cell, of: &str| places.iter().any(|(known, database)| known.name == cell.name && database == of);
        visited.into_iter().flatten().filter(|(cell, database)| !is_known(cell, database)).collect()
    }

    async fn watch_queue(&self, cell: &Cell, database: &str) -> Result<Vec<Worker>, Error> {
        let mut queue = Queue::open(self.cells(), cell, database, Errand::Look).await?;
        let before = queue.beats().await?;
        if before.is_empty() {
            queue.commit().await?;
            return Ok(Vec::new());
        }
        queue.commit().await?;
        let mut now = Vec::new();
        for _ in 0..BEATS {
            tokio::time::sleep(BEAT).await;
            let mut queue = Queue::open(self.cells(), cell, database, Errand::Look).await?;
            now = queue.workers(database).await?;
            queue.commit().await?;
            for worker in &mut now {
                // One that has come meanwhile is alive.
                worker.alive = !before.contains(&(worker.no, worker.beats));
            }
            if now.iter().all(|worker| worker.alive) {
                break;
            }
        }
        Ok(now)
    }
}
