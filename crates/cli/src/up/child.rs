//! A process of ours that is kept running: control plane, application, worker.
//!
//! Always: it dies with us, also when we are killed; it is restarted when it ends by itself, after a wait that doubles; its
//! output goes to a log of its own; its arguments hold no secret, since every user of the machine may read them.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use insula_cluster::Process;
use insula_core::Kind;
use nix::sys::signal::Signal;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::error::Error;
use crate::up::roster::Roster;

/// How a child is started.
#[derive(Clone, Debug)]
pub(crate) struct ChildSpec {
    /// Its name in the ready file and of its log.
    pub(crate) role: String,
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) log: PathBuf,
    /// Base URL of its admin port; `/readyz` there says that it is ready.
    pub(crate) admin_url: String,
    /// Base URL of what it serves.
    pub(crate) base_url: String,
    /// How long it may take to end what it has begun.
    pub(crate) drain: Duration,
}

/// Waits for a child without holding it.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    spec: ChildSpec,
    restarts: watch::Receiver<u32>,
}

/// A child under supervision.
#[derive(Debug)]
pub(crate) struct Child {
    spec: ChildSpec,
    stop: CancellationToken,
    restarts: watch::Receiver<u32>,
    task: JoinHandle<()>,
}

const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// One that ran this long had a good start: the next wait is short again.
const GOOD_RUN: Duration = Duration::from_secs(30);
/// Requests in flight may end within this.
pub(crate) const DRAIN: Duration = Duration::from_secs(15);

impl Child {
    /// Starts it, and keeps it running until [`Child::stop`].
    pub(crate) fn start(spec: ChildSpec, roster: Roster) -> Self {
        let stop = CancellationToken::new();
        let (count, restarts) = watch::channel(0);
        let task = tokio::spawn(supervise(spec.clone(), roster, stop.clone(), count));
        Self { spec, stop, restarts, task }
    }

    pub(crate) fn base_url(&self) -> &str {
        &self.spec.base_url
    }

    pub(crate) fn readiness(&self) -> Readiness {
        Readiness { spec: self.spec.clone(), restarts: self.restarts.clone() }
    }

    /// Asks it to end, lets it finish what it has begun, and waits.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

impl Readiness {
    /// The same, asked at another base URL.
    pub(crate) fn at(mut self, base: String) -> Self {
        self.spec.admin_url = base;
        self
    }

    /// Waits until it answers that it is ready.
    pub(crate) async fn wait(&self, client: &reqwest::Client, within: Duration) -> Result<(), Error> {
        let url = format!("{}/readyz", self.spec.admin_url);
        let deadline = Instant::now() + within;
        loop {
            let answer = client.get(&url).timeout(Duration::from_secs(2)).send().await;
            if answer.is_ok_and(|a| a.status().is_success()) {
                return Ok(());
            }
            if Instant::now() > deadline || *self.restarts.borrow() >= 8 {
                let message = format!("{} does not become ready", self.spec.role);
                let help = format!("its log {} ends with:\n{}", self.spec.log.display(), last_lines(&self.spec.log));
                return Err(Error::new(Kind::Unavailable, message, help));
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
    }
}

async fn supervise(spec: ChildSpec, roster: Roster, stop: CancellationToken, count: watch::Sender<u32>) {
    let mut wait = FIRST_WAIT;
    loop {
        let began = Instant::now();
        match spawn(&spec) {
            Ok(process) => {
                roster.process(&spec.role, process.pid(), Some(&spec.admin_url));
                tokio::select! {
                    exit = process.wait() => tracing::warn!(role = spec.role, pid = process.pid(), "ended by itself: {exit}"),
                    () = stop.cancelled() => {
                        end(&process, spec.drain).await;
                        roster.without_process(&spec.role);
                        return;
                    }
                }
            }
            Err(error) => tracing::error!(role = spec.role, "cannot start: {error}"),
        }
        roster.without_process(&spec.role);
        count.send_modify(|n| *n += 1);
        wait = if began.elapsed() > GOOD_RUN { FIRST_WAIT } else { wait };
        let stopped = tokio::time::timeout(wait, stop.cancelled()).await.is_ok();
        if stopped {
            return;
        }
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

async fn end(process: &Process, drain: Duration) {
    process.signal(Signal::SIGTERM);
    if tokio::time::timeout(drain, process.wait()).await.is_err() {
        tracing::warn!(pid = process.pid(), "did not end within {} s: killed", drain.as_secs());
        process.signal(Signal::SIGKILL);
        process.wait().await;
    }
}

fn spawn(spec: &ChildSpec) -> Result<Process, Error> {
    let failed = |what: &str, e: std::io::Error| Error::new(Kind::Unavailable, format!("{what}: {e}"), "");
    let log = insula_cluster::open_log(&spec.log)?;
    let copy = log.try_clone().map_err(|e| failed("cannot open its log", e))?;
    let own = std::env::current_exe().map_err(|e| failed("cannot find the insula program", e))?;
    let mut command = Command::new(own);
    command.arg(LAUNCH).arg("--parent").arg(std::process::id().to_string()).arg("--").arg(&spec.program).args(&spec.args);
    // Settings of ours, such as INSULA_PG_BIN, are not the child's, and it refuses what it does not know.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("INSULA_") && text != "INSULA_LOG_FORMAT" {
            command.env_remove(&name);
        }
    }
    command.envs(spec.env.iter().map(|(k, v)| (k, v)));
    command.stdin(Stdio::null()).stdout(copy).stderr(log);
    Process::spawn(command).map_err(|e| failed("cannot spawn", e))
}

/// The hidden subcommand that [`launch`] serves.
const LAUNCH: &str = "__launch";

/// Runs a program that dies with its parent.
#[derive(clap::Args, Debug)]
pub(crate) struct LaunchArgs {
    #[arg(long)]
    parent: i32,
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Asks the kernel to kill this process when its parent dies, then becomes the program. To be called before any other
/// thread runs: the request belongs to a thread.
pub(crate) fn launch(args: &LaunchArgs) -> ExitCode {
    let Some((program, rest)) = args.command.split_first() else { return ExitCode::from(2) };
    #[cfg(target_os = "linux")]
    {
        let asked = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL);
        // The parent may have died before that.
        if asked.is_err() || nix::unistd::getppid().as_raw() != args.parent {
            return ExitCode::FAILURE;
        }
    }
    let error = Command::new(program).args(rest).exec();
    eprintln!("cannot run {}: {error}", program.to_string_lossy());
    ExitCode::FAILURE
}

fn last_lines(log: &std::path::Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(8)..].join("\n")
}
