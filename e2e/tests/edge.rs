//! The gateway before real applications: what fails behind it, beside it and in it, under load.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use insula_e2e::client::User;
use insula_e2e::up::{Up, kill_9, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, StatusCode};

/// One tenant's readers, below its plan's rate.
struct Readers {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    /// The slowest answer, milliseconds.
    slowest: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<()>,
}

impl Readers {
    fn start(user: &User) -> Self {
        let (stop, done, failed, slowest) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let mut this = Self { stop, done, failed, slowest, tasks: tokio::task::JoinSet::new() };
        for _ in 0..2 {
            let (user, stop, done, failed, slowest) = (
                user.clone(),
                Arc::clone(&this.stop),
                Arc::clone(&this.done),
                Arc::clone(&this.failed),
                Arc::clone(&this.slowest),
            );
            this.tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = user.send(Method::GET, "/api/documents?limit=1", None).await;
                    let good = answer.is_ok_and(|answer| answer.status() == StatusCode::OK);
                    slowest.fetch_max(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                    failed.fetch_add(usize::from(!good), Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
        this
    }

    fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    /// Waits until it is served again: so many answers in a row without a failure.
    async fn served(&self, what: &str) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let (done, failed) = (self.done.load(Ordering::Relaxed), self.failed());
            while self.done.load(Ordering::Relaxed) < done + 20 {
                ensure!(Instant::now() < deadline, "{what}: no answers");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if self.failed() == failed {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{what}: requests keep failing");
        }
    }

    async fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while self.tasks.join_next().await.is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn each_failure_is_its_own_tenants_or_nobodys() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::start(&folder.path().join("data"))?;
    let shared = User::log_in(&up, &up.tenant("edge-row", "gold", "row")?).await?;
    let alone = User::log_in(&up, &up.tenant("edge-cell", "platinum", "cell")?).await?;
    let (mains, own) = (Readers::start(&shared), Readers::start(&alone));
    mains.served("the cell main").await?;
    own.served("a cell of its own").await?;

    // A minute in which the control plane answers nothing: nobody notices.
    let control = Pid::from_raw(up.pid_of("control")?);
    let before = mains.done.load(Ordering::Relaxed) + own.done.load(Ordering::Relaxed);
    kill(control, Signal::SIGSTOP)?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    kill(control, Signal::SIGCONT)?;
    let asked = mains.done.load(Ordering::Relaxed) + own.done.load(Ordering::Relaxed) - before;
    ensure!(asked > 500, "only {asked} requests in a minute");
    assert_eq!((mains.failed(), own.failed()), (0, 0), "failed while the control plane was away, of {asked}");

    // It dies, and comes back: nor then.
    kill_9(up.pid_of("control")?)?;
    own.served("while the control plane starts").await?;
    assert_eq!((mains.failed(), own.failed()), (0, 0), "failed while the control plane was restarted");

    // An application dies: its tenants are told at once, others see nothing.
    mains.slowest.store(0, Ordering::Relaxed);
    kill_9(up.pid_of_exactly("app:main").unwrap())?;
    mains.served("after the application's restart").await?;
    assert_eq!(own.failed(), 0, "another cell's application died");
    let slowest = mains.slowest.load(Ordering::Relaxed);
    // An answer that does not come is waited for, for 30 seconds.
    ensure!(slowest < 20_000, "a request of the dead application's tenant took {slowest} ms");

    // The gateway dies: what was on it is lost, and all are served again, also without the control plane.
    let control = Pid::from_raw(up.pid_of("control")?);
    kill(control, Signal::SIGSTOP)?;
    kill_9(up.pid_of("gateway")?)?;
    mains.served("after the gateway's restart").await?;
    own.served("after the gateway's restart").await?;
    kill(control, Signal::SIGCONT)?;
    println!("{asked} requests in the minute without the control plane; slowest without its application {slowest} ms");
    mains.finish().await;
    own.finish().await;
    // What they used is on the bill: requests as the gateway has counted them, and the work behind them from the applications.
    for slug in ["edge-row", "edge-cell"] {
        let billed = wait_for(Duration::from_secs(60), || {
            let used = up.insula(&["usage", slug])?;
            let amount = |name: &str| used["total"][name].as_u64().unwrap_or(0);
            Ok((amount("requests") > 500 && amount("database_us") > 0 && amount("rows") > 0).then(|| used["total"].to_string()))
        })?;
        println!("{slug}: {billed}");
    }
    up.stop()
}
