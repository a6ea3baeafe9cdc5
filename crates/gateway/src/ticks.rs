//! The beat of a worker's clock.
//!
//! For: what is looked after every so often, by one timer of the kernel's that is waited for as bytes are. Not for: what happens once in a while, which
//! the runtime's timers are good for. While the runtime has no timer, it neither asks the clock before it sleeps nor has the kernel arm an
//! alarm and disarm it, and a worker with little to do sleeps twice for each request. (Connections of HTTP/2 have timers, and bodies that are slow.)

use std::time::Duration;

pub(crate) use kind::Ticks;

/// Where the kernel's timers can be waited for.
#[cfg(target_os = "linux")]
mod kind {
    use std::io::Result;
    use std::os::fd::OwnedFd;

    use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime};
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    use super::Duration;

    /// See the module.
    pub(crate) struct Ticks {
        timer: AsyncFd<OwnedFd>,
        period: Duration,
    }

    impl Ticks {
        /// Every so often, from now on.
        pub(crate) fn every(period: Duration) -> Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
            let spec = Timespec { tv_sec: period.as_secs().cast_signed(), tv_nsec: period.subsec_nanos().into() };
            timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: spec, it_value: spec })?;
            #[expect(deprecated, reason = "sound for what owns its descriptor and keeps it; the other one is unsafe to call")]
            let timer = AsyncFd::with_interest(timer, Interest::READABLE)?;
            Ok(Self { timer, period })
        }

        /// The next one; those that were missed are one.
        pub(crate) async fn next(&mut self) {
            if let Err(error) = self.rung().await {
                // Deadlines are kept whatever becomes of the timer.
                tracing::error!(%error, "the worker's timer cannot be read");
                tokio::time::sleep(self.period).await;
            }
        }

        async fn rung(&self) -> Result<()> {
            loop {
                let read = self
                    .timer
                    .readable()
                    .await?
                    .try_io(|timer| Ok(rustix::io::retry_on_intr(|| rustix::io::read(timer, &mut [0; 8]))?));
                // Otherwise it has not rung after all.
                if let Ok(read) = read {
                    return read.map(drop);
                }
            }
        }
    }
}

/// Elsewhere, the runtime's.
#[cfg(not(target_os = "linux"))]
mod kind {
    use std::io::Result;

    use tokio::time::{Interval, MissedTickBehavior, interval};

    use super::Duration;

    /// See the module.
    pub(crate) struct Ticks(Interval);

    impl Ticks {
        /// Every so often, from now on.
        pub(crate) fn every(period: Duration) -> Result<Self> {
            let mut interval = interval(period);
            interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
            Ok(Self(interval))
        }

        /// The next one; those that were missed are one.
        pub(crate) async fn next(&mut self) {
            self.0.tick().await;
        }
    }
}
