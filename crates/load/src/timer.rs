//! A timer that is exact to some microseconds: tokio's goes by the millisecond, which would be the largest part of what is measured.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::unix::AsyncFd;

/// A `timerfd(2)` in tokio's reactor.
pub(crate) struct Timer(AsyncFd<Raw>);

struct Raw(TimerFd);

impl AsRawFd for Raw {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Timer {
    /// Needs a runtime.
    pub(crate) fn new() -> std::io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        // `register`, its successor, is unsafe because it trusts that the descriptor stays open: `Raw` owns it and never replaces it.
        #[allow(deprecated, reason = "the safe one of two")]
        let registered = AsyncFd::new(Raw(timer))?;
        Ok(Self(registered))
    }

    /// Waits until `then`; for ever without one. Can be dropped halfway and called again.
    pub(crate) async fn until(&self, then: Option<Instant>) -> std::io::Result<()> {
        let Some(then) = then else { return std::future::pending().await };
        // Zero would disarm it.
        let left = then.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        self.0.get_ref().0.set(Expiration::OneShot(TimeSpec::from_duration(left)), TimerSetTimeFlags::empty())?;
        loop {
            let mut ready = self.0.readable().await?;
            // Readiness may be an earlier setting's: only the clock counts.
            ready.clear_ready();
            let _ = self.0.get_ref().0.wait();
            if Instant::now() >= then {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_waits_as_long_as_told_and_can_be_set_anew() {
        let timer = Timer::new().unwrap();
        let begun = Instant::now();
        let far = timer.until(Some(begun + Duration::from_secs(3600)));
        assert!(tokio::time::timeout(Duration::from_millis(1), far).await.is_err());
        let then = Instant::now() + Duration::from_micros(1500);
        timer.until(Some(then)).await.unwrap();
        assert!(Instant::now() >= then);
    }
}
