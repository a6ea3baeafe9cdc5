//! What much work leaves behind in the allocator, and how it goes back to the system.
//!
//! Always: a process that has taken in a great many tenants at once and idles from then on soon has the memory of what it knows, not of what it took to
//! learn it. Why this way: `docs/decisions/0067-memory-goes-back.md`.

use std::hint::black_box;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Pauses before looking. What was freed is kept for a second, in case that it is needed again (mimalloc's `purge_delay`); only after that it may
/// go. The second look is for what comes late: the same changes once more, by the stream, or the snapshot file.
const PAUSES: [Duration; 2] = [Duration::from_millis(1_500), Duration::from_secs(4)];

/// The leftovers of one follower.
#[derive(Default)]
pub(crate) struct Leftovers(Option<JoinHandle<()>>);

impl Leftovers {
    /// Much was done: has its leftovers given back when it is over for a moment.
    pub(crate) fn arise(&mut self) {
        let give_back = async {
            for pause in PAUSES {
                sleep(pause).await;
                // An allocator looks through what may go when a thread is at work, or ends.
                let thread = std::thread::Builder::new().name("leftovers".into()).spawn(|| drop(black_box(Box::new(0_u8))));
                if let Err(error) = thread {
                    tracing::debug!(%error, "no thread to give memory back");
                }
            }
        };
        if let Some(earlier) = self.0.replace(tokio::spawn(give_back)) {
            earlier.abort();
        }
    }
}
