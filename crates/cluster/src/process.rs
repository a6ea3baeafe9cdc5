//! One server process and the thread that it belongs to.
//!
//! The parent-death signal of Linux follows the parent *thread* (prctl(2), PR_SET_PDEATHSIG), so each server is spawned by
//! a thread of its own, which then waits for it to end.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::watch;

/// How a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, when it exited.
    pub code: Option<i32>,
    /// The signal that killed it, when one did.
    pub signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        Self { code: status.code(), signal: status.signal() }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.code, self.signal) {
            (Some(code), _) => write!(f, "exit code {code}"),
            (None, Some(signal)) => write!(f, "killed by signal {signal}"),
            (None, None) => f.write_str("ended"),
        }
    }
}

/// A process that was spawned here. Dropping it does nothing to the process.
#[derive(Clone, Debug)]
pub struct Process {
    pid: i32,
    exit: watch::Receiver<Option<Exit>>,
}

impl Process {
    /// Spawns the command in a process group of its own: Ctrl-C on the terminal is for us, not for it.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn spawn(mut command: Command) -> io::Result<Self> {
        let (started, start) = std::sync::mpsc::sync_channel::<io::Result<i32>>(1);
        let (ended, exit) = watch::channel(None);
        command.process_group(0);
        std::thread::Builder::new().name("postgres".into()).spawn(move || {
            let mut child = match command.spawn() {
                Ok(child) => child,
                Err(e) => {
                    let _ = started.send(Err(e));
                    return;
                }
            };
            let _ = started.send(i32::try_from(child.id()).map_err(io::Error::other));
            let exit = child.wait().map_or(Exit { code: None, signal: None }, Exit::from);
            ended.send_replace(Some(exit));
        })?;
        let pid = start.recv().map_err(io::Error::other)??;
        Ok(Self { pid, exit })
    }

    /// Its number.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// How it ended, when it has.
    #[must_use]
    pub fn exited(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if self.exited().is_none() {
            let _ = kill(Pid::from_raw(self.pid), signal);
        }
    }

    /// Waits until it ends.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|e| *e);
        ended.unwrap_or(Exit { code: None, signal: None })
    }
}
