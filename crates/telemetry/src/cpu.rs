//! CPU time, as the kernel counts it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Of this thread so far (`CLOCK_THREAD_CPUTIME_ID`): a system call of about a fifth of a microsecond.
#[must_use]
pub fn thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_work_and_not_with_waiting() {
        let before = thread();
        std::thread::park_timeout(Duration::from_millis(50));
        let waited = thread() - before;
        assert!(waited < Duration::from_millis(40), "{waited:?}");
        let mut sum = 0u64;
        while thread() - before < Duration::from_millis(60) {
            sum = (0..10_000).fold(sum, u64::wrapping_add);
        }
        assert!(sum > 0);
    }
}
