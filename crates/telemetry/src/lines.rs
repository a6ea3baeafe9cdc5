//! Lines of the log that are written by somebody else: what a request leaves costs it neither a system call nor a wait.
//!
//! Writers append to one of a few buffers; a thread writes them out every [`PERIOD`]. Always: memory is bounded, and what does not fit is
//! dropped and counted (`insula_log_lines_dropped_total`); a line is whole; lines of one buffer keep their order. What is lost
//! when the process is killed is at most what came in the last period.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

/// Between two writes.
pub const PERIOD: Duration = Duration::from_millis(20);

/// Bytes that may wait in each buffer.
pub const BUFFER: usize = 1 << 20;

const BUFFERS: usize = 8;

/// A bounded buffer of lines. Clones share it.
#[derive(Clone, Debug)]
pub struct Lines(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    buffers: [Mutex<Vec<u8>>; BUFFERS],
    limit: usize,
    dropped: AtomicU64,
    reported: AtomicU64,
    /// Held while writing out, so that two who flush do not mix their lines.
    writing: Mutex<Vec<u8>>,
}

thread_local! {
    static HOME: Cell<Option<usize>> = const { Cell::new(None) };
}

/// The buffer that this thread tries first: threads are dealt out evenly.
fn home() -> usize {
    // Only spreads load; global because threads are.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    HOME.with(|home| {
        home.get().unwrap_or_else(|| {
            let no = NEXT.fetch_add(1, Ordering::Relaxed) % BUFFERS;
            home.set(Some(no));
            no
        })
    })
}

impl Lines {
    /// With room for so many bytes in each of its buffers.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self(Arc::new(Inner {
            buffers: std::array::from_fn(|_| Mutex::default()),
            limit,
            dropped: AtomicU64::new(0),
            reported: AtomicU64::new(0),
            writing: Mutex::default(),
        }))
    }

    /// Appends what `write` appends; drops it when the buffers are full or all taken. Never waits.
    pub fn push(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let home = home();
        for step in 0..BUFFERS {
            let mut buffer = match self.0.buffers[(home + step) % BUFFERS].try_lock() {
                Ok(buffer) => buffer,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => continue,
            };
            let before = buffer.len();
            if before >= self.0.limit {
                break;
            }
            write(&mut buffer);
            if buffer.len() > self.0.limit {
                buffer.truncate(before);
                break;
            }
            return;
        }
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Lines that had no room.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Writes out all that waits.
    ///
    /// # Errors
    /// The writer's; what was to be written then is lost, as it would be without a buffer.
    pub fn flush(&self, out: &mut impl Write) -> io::Result<()> {
        let mut spare = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut outcome = Ok(());
        for buffer in &self.0.buffers {
            spare.clear();
            std::mem::swap(&mut *spare, &mut *buffer.lock().unwrap_or_else(PoisonError::into_inner));
            if !spare.is_empty() {
                outcome = outcome.and(out.write_all(&spare));
            }
        }
        let dropped = self.dropped();
        let new = dropped - self.0.reported.swap(dropped, Ordering::Relaxed).min(dropped);
        if new > 0 {
            metrics::counter!("insula_log_lines_dropped_total").increment(new);
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_many_threads_come_out_whole() {
        let lines = Lines::new(BUFFER);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let lines = lines.clone();
                scope.spawn(move || {
                    (0..1000).for_each(|no| lines.push(|buffer| buffer.extend(format!("{thread} {no}\n").bytes())))
                });
            }
        });
        let mut out = Vec::new();
        lines.flush(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut numbers: Vec<(u32, u32)> = text
            .lines()
            .map(|line| line.split_once(' ').unwrap())
            .map(|(thread, no)| (thread.parse().unwrap(), no.parse().unwrap()))
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers.len() as u64 + lines.dropped(), 8000);
        numbers.dedup();
        assert_eq!(numbers.len() as u64 + lines.dropped(), 8000);
    }

    #[test]
    fn what_has_no_room_is_dropped_whole_and_counted() {
        let lines = Lines::new(10);
        for _ in 0..5 {
            lines.push(|buffer| buffer.extend(b"1234567\n"));
        }
        let mut out = Vec::new();
        lines.flush(&mut out).unwrap();
        assert_eq!((out.as_slice(), lines.dropped()), (b"1234567\n".as_slice(), 4));
        lines.push(|buffer| buffer.extend(b"again\n"));
        out.clear();
        lines.flush(&mut out).unwrap();
        assert_eq!(out, b"again\n");
    }
}
