//! Deadlines that cost a store: a worker looks over all its connections ten times a second, and wakes those whose time is over.
//!
//! A timer of the runtime for each request would be armed and disarmed a hundred thousand times a second and ring never. Always: a deadline
//! is kept to a tenth of a second; what a worker forgets to look at cannot exist, since a [`Watch`] comes from its [`Watches`].

use std::cell::RefCell;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::config::Timeouts;
use crate::gather;

/// How often deadlines are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// The first byte of a request.
    Idle = 0,
    /// The rest of its head.
    Head = 1,
    /// Its body, or upstream: who waits sees for himself that the time is over, and says so in an answer.
    Answer = 2,
    /// More of the answer's body.
    Stream = 3,
    /// Nothing: the bytes are somebody else's now.
    Handed = 4,
}

/// One connection (or one HTTP/2 stream) and its deadline.
pub(crate) struct Watch {
    /// Milliseconds of the worker's clock; `u64::MAX` is never.
    deadline: AtomicU64,
    /// The same for a write that the client does not take.
    write_deadline: AtomicU64,
    phase: AtomicU8,
    over: AtomicBool,
    waker: AtomicWaker,
    /// Which task the waker is of. As long as the waker is there, so is its task, and nothing else is at its place.
    registered: AtomicPtr<()>,
    clock: Arc<Clock>,
    timeouts: Timeouts,
}

/// The time of a worker, in milliseconds since its start, as of the last tick.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    now: AtomicU64,
}

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }
}

const NEVER: u64 = u64::MAX;

impl Watch {
    /// A new phase, which ends by itself after so many milliseconds.
    pub(crate) fn enter(&self, phase: Phase, within_ms: u64) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.over.store(false, Ordering::Relaxed);
        self.extend(within_ms);
    }

    /// Something has moved: the time starts again.
    pub(crate) fn extend(&self, within_ms: u64) {
        self.deadline.store(self.clock.now().saturating_add(within_ms), Ordering::Relaxed);
    }

    /// Bytes belong to somebody else from now on.
    pub(crate) fn hand_over(&self) {
        self.enter(Phase::Handed, self.timeouts.tunnel_ms);
    }

    pub(crate) const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn is(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) == phase as u8
    }

    /// Whether nobody but the connection itself can act on the time being over.
    pub(crate) fn is_lost(&self) -> bool {
        self.is_over() && (!self.is(Phase::Answer) || self.write_deadline.load(Ordering::Relaxed) <= self.clock.now())
    }

    /// Whether the client has not taken yet what is written to it.
    pub(crate) fn has_more_to_write(&self) -> bool {
        self.write_deadline.load(Ordering::Relaxed) != NEVER
    }

    /// Whom to wake when the time is over. Mostly it is who it was: a look, where to register would be two steps that wait for all that the
    /// processor has under way.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let task = cx.waker().data().cast_mut();
        if self.registered.load(Ordering::Relaxed) != task {
            self.waker.register(cx.waker());
            self.registered.store(task, Ordering::Relaxed);
        }
    }

    /// Wakes who waits, who stays registered.
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake_by_ref();
            self.waker.register(&waker);
        }
    }

    fn look(&self, now: u64) {
        let deadline = self.deadline.load(Ordering::Relaxed).min(self.write_deadline.load(Ordering::Relaxed));
        let over = deadline <= now;
        self.over.store(over, Ordering::Relaxed);
        if over {
            self.wake();
        }
    }
}

/// All of one worker's.
pub(crate) struct Watches {
    clock: Arc<Clock>,
    all: RefCell<Vec<Weak<Watch>>>,
}

impl Watches {
    pub(crate) fn new() -> Self {
        Self { clock: Arc::new(Clock { start: Instant::now(), now: AtomicU64::new(0) }), all: RefCell::default() }
    }

    /// A new one, which waits for the first byte of a request.
    pub(crate) fn watch(&self, timeouts: Timeouts) -> Arc<Watch> {
        let watch = Arc::new(Watch {
            deadline: AtomicU64::new(self.clock.now().saturating_add(timeouts.idle_ms)),
            write_deadline: AtomicU64::new(NEVER),
            phase: AtomicU8::new(Phase::Idle as u8),
            over: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            registered: AtomicPtr::default(),
            clock: Arc::clone(&self.clock),
            timeouts,
        });
        self.all.borrow_mut().push(Arc::downgrade(&watch));
        watch
    }

    /// Wakes all whose time is over, and forgets those that are gone.
    pub(crate) fn tick(&self) {
        let now = u64::try_from(self.clock.start.elapsed().as_millis()).unwrap_or(NEVER - 1);
        self.clock.now.store(now, Ordering::Relaxed);
        self.all.borrow_mut().retain(|weak| {
            let Some(watch) = weak.upgrade() else { return false };
            watch.look(now);
            true
        });
    }

    /// Wakes all, to see for themselves what has changed.
    pub(crate) fn wake_all(&self) {
        self.all.borrow().iter().filter_map(Weak::upgrade).for_each(|watch| watch.wake());
    }

    /// Milliseconds since the start, as of the last tick.
    pub(crate) fn now(&self) -> u64 {
        self.clock.now()
    }
}

/// A client's connection under watch: notices the first byte of a request, and bytes that nobody takes.
pub(crate) struct Watched<S> {
    inner: S,
    watch: Arc<Watch>,
    /// Once nothing more is sent: bytes that may still be taken.
    left_to_take: usize,
}

const NOT_YET: usize = usize::MAX;
const MOST_TAKEN: usize = 1 << 20;
const LINGER_MS: u64 = 2_000;

impl<S> Watched<S> {
    pub(crate) const fn new(inner: S, watch: Arc<Watch>) -> Self {
        Self { inner, watch, left_to_take: NOT_YET }
    }

    pub(crate) fn into_inner(self) -> S {
        self.inner
    }

    fn moved(&self) {
        if self.watch.is(Phase::Handed) {
            self.watch.extend(self.watch.timeouts.tunnel_ms);
        }
    }

    fn wrote<T>(&self, outcome: Poll<T>) -> Poll<T> {
        if outcome.is_ready() {
            self.watch.write_deadline.store(NEVER, Ordering::Relaxed);
            self.moved();
        } else if self.watch.write_deadline.load(Ordering::Relaxed) == NEVER {
            let deadline = self.watch.clock.now().saturating_add(self.watch.timeouts.send_ms);
            self.watch.write_deadline.store(deadline, Ordering::Relaxed);
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_read(cx, buf);
        if outcome.is_ready() {
            if self.watch.is(Phase::Idle) {
                self.watch.enter(Phase::Head, self.watch.timeouts.header_ms);
            }
            self.moved();
        }
        outcome
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        let outcome = Pin::new(&mut self.inner).poll_write(cx, buf);
        self.wrote(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        let outcome = gather::poll_write(Pin::new(&mut self.inner), cx, bufs);
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        let outcome = Pin::new(&mut self.inner).poll_flush(cx);
        self.wrote(outcome)
    }

    /// Says that nothing more comes, then takes what the client still sends, for a while: closing over unread bytes would reset the
    /// connection, and the client might never see the answer that said why (RFC 9112, section 9.6).
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        if self.left_to_take == NOT_YET {
            std::task::ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.left_to_take = MOST_TAKEN;
            self.watch.enter(Phase::Stream, LINGER_MS);
        }
        let mut room = [0; 4096];
        while self.left_to_take > 0 {
            let mut buffer = ReadBuf::new(&mut room);
            match std::task::ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    self.left_to_take = self.left_to_take.saturating_sub(buffer.filled().len());
                }
                // The client has closed too.
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_ends_a_phase_and_progress_extends_it() {
        let watches = Watches::new();
        let watch = watches.watch(Timeouts::default());
        watch.enter(Phase::Head, 0);
        watches.tick();
        assert!(watch.is_over() && watch.is_lost());
        watch.enter(Phase::Answer, 60_000);
        watches.tick();
        assert!(!watch.is_over());
        watch.extend(0);
        watches.tick();
        // Whoever waits for the answer says so; the connection lives on to carry it.
        assert!(watch.is_over() && !watch.is_lost());
    }

    #[tokio::test]
    async fn what_the_client_does_not_take_is_more_to_write() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let watch = Watches::new().watch(Timeouts::default());
        let (near, mut far) = tokio::io::duplex(4);
        let mut near = Watched::new(near, Arc::clone(&watch));
        near.write_all(b"abcd").await.unwrap();
        assert!(!watch.has_more_to_write());
        let mut more = std::pin::pin!(near.write_all(b"ef"));
        assert!(futures_util::poll!(more.as_mut()).is_pending() && watch.has_more_to_write());
        far.read_exact(&mut [0; 4]).await.unwrap();
        more.await.unwrap();
        assert!(!watch.has_more_to_write());
    }

    #[test]
    fn who_waits_is_woken_each_time_until_somebody_else_waits() {
        struct Task(AtomicU64);
        impl std::task::Wake for Task {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let watches = Watches::new();
        let watch = watches.watch(Timeouts::default());
        let tasks = [(); 2].map(|()| Arc::new(Task(AtomicU64::new(0))));
        for (place, wanted) in [(0, [1, 0]), (0, [2, 0]), (1, [2, 1]), (0, [3, 1])] {
            watch.register(&Context::from_waker(&Arc::clone(&tasks[place]).into()));
            watch.extend(0);
            watches.tick();
            assert_eq!([0, 1].map(|place: usize| tasks[place].0.load(Ordering::Relaxed)), wanted);
        }
        watches.wake_all();
        watches.tick();
        assert_eq!(tasks[0].0.load(Ordering::Relaxed), 5);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let watches = Watches::new();
        drop(watches.watch(Timeouts::default()));
        watches.tick();
        assert!(watches.all.borrow().is_empty());
    }
}
