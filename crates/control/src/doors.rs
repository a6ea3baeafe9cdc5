//! How many requests may be in a cell at once, each with a connection of its own.
//!
//! For: what anybody with a key may ask as often as they like, and a cell pays for with a connection. Not for: operations, which have workers of
//! their own number. Always: who only reads keeps out neither who acts nor the control plane's own watch; who finds no place is refused early,
//! and holds nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use insula_core::CellName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// What somebody wants in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// One short read.
    Read,
    /// A look at several databases, one after the other or beside each other: a read that waits for its turn.
    Look,
    /// A change.
    Change,
    /// What the control plane watches by itself.
    Own,
}

impl Errand {
    /// Connections of one cell, for all who come to do this; reads and looks have the same.
    const fn places(self) -> usize {
        match self {
            Self::Read | Self::Look => 8,
            Self::Change => 4,
            Self::Own => 2,
        }
    }

    /// How long one waits for a place.
    const fn patience(self) -> Duration {
        match self {
            Self::Read | Self::Change => Duration::from_secs(1),
            Self::Look | Self::Own => Duration::from_secs(8),
        }
    }
}

/// A place in a cell, until it is dropped.
pub(crate) struct Pass {
    _permit: OwnedSemaphorePermit,
}

/// The doors of all cells.
#[derive(Default)]
pub(crate) struct Doors(Mutex<HashMap<CellName, Door>>);

struct Door {
    read: Arc<Semaphore>,
    change: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

impl Doors {
    /// Waits for a place in a cell, briefly and in order of arrival.
    pub(crate) async fn enter(&self, cell: &CellName, errand: Errand) -> Result<Pass, Error> {
        let places = self.places(cell, errand);
        match tokio::time::timeout(errand.patience(), places.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Pass { _permit: permit }),
            _ => Err(Error::Away(format!("too many ask cell {cell} at once; try again in a moment"))),
        }
    }

    fn places(&self, cell: &CellName, errand: Errand) -> Arc<Semaphore> {
        let mut doors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let places = |errand: Errand| Arc::new(Semaphore::new(errand.places()));
        let door = doors.entry(cell.clone()).or_insert_with(|| Door {
            read: places(Errand::Read),
            change: places(Errand::Change),
            own: places(Errand::Own),
        });
        Arc::clone(match errand {
            Errand::Read | Errand::Look => &door.read,
            Errand::Change => &door.change,
            Errand::Own => &door.own,
        })
    }

    /// The cell is taken away.
    pub(crate) fn forget(&self, cell: &CellName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(cell);
    }
}

#[cfg(test)]
mod tests {
    use insula_core::Kind;

    use super::*;

    #[tokio::test]
    async fn who_reads_keeps_out_nobody_else() {
        let (doors, cell) = (Doors::default(), "main".parse::<CellName>().unwrap());
        let mut inside = Vec::new();
        for _ in 0..Errand::Read.places() {
            inside.push(doors.enter(&cell, Errand::Read).await.unwrap());
        }
        let refused = doors.enter(&cell, Errand::Read).await.err().unwrap();
        assert!(refused.kind() == Kind::Unavailable && refused.public().contains("cell main"), "{refused}");
        for errand in [Errand::Change, Errand::Own] {
            assert!(doors.enter(&cell, errand).await.is_ok(), "{errand:?}");
        }
        assert!(doors.enter(&"second".parse().unwrap(), Errand::Read).await.is_ok(), "another cell is another door");
        inside.pop();
        assert!(doors.enter(&cell, Errand::Read).await.is_ok(), "a place that was left is free");
    }

    #[tokio::test]
    async fn who_waits_gets_the_next_place() {
        let (doors, cell) = (Doors::default(), "main".parse::<CellName>().unwrap());
        let mut inside = Vec::new();
        for _ in 0..Errand::Own.places() {
            inside.push(doors.enter(&cell, Errand::Own).await.unwrap());
        }
        let leaves = async {
            tokio::task::yield_now().await;
            inside.pop();
        };
        let (entered, ()) = tokio::join!(doors.enter(&cell, Errand::Own), leaves);
        assert!(entered.is_ok());
    }
}
