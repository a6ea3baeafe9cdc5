//! A server that a killed process left behind, and what `postmaster.pid` tells of it.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::Error;

/// `postmaster.pid` as Postgres writes it (miscadmin.h, LOCK_FILE_LINE_*).
pub(crate) struct PidFile {
    pub(crate) pid: i32,
    pub(crate) ready: bool,
}

pub(crate) fn read_pid_file(data_dir: &Path) -> Option<PidFile> {
    let text = std::fs::read_to_string(data_dir.join("postmaster.pid")).ok()?;
    let mut lines = text.lines();
    let pid = lines.next()?.trim().parse().ok()?;
    Some(PidFile { pid, ready: lines.nth(6).is_some_and(|status| status.trim() == "ready") })
}

/// Waits for the server that still works in the folder, if any; after a while asks it to stop, then tells it to.
///
/// It was sent a fast shutdown when its starter died, and may be writing its last checkpoint.
pub(crate) fn settle(data_dir: &Path) -> Result<(), Error> {
    const ASK: Duration = Duration::from_secs(5);
    const TELL: Duration = Duration::from_secs(60);
    const GIVE_UP: Duration = Duration::from_secs(75);
    let Some(pid) = read_pid_file(data_dir).map(|f| f.pid).filter(|pid| is_server_of(*pid, data_dir)) else { return Ok(()) };
    tracing::info!(pid, folder = %data_dir.display(), "waiting for the Postgres of an earlier run to stop");
    let began = Instant::now();
    let (mut asked, mut told) = (false, false);
    while is_server_of(pid, data_dir) {
        let waited = began.elapsed();
        if waited > ASK && !asked {
            asked = true;
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        if waited > TELL && !told {
            told = true;
            let _ = kill(Pid::from_raw(pid), Signal::SIGQUIT);
        }
        if waited > GIVE_UP {
            return Err(Error::Busy { folder: data_dir.to_path_buf(), pid });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether the process is a Postgres that works in this folder, and not one that was given the same number since.
fn is_server_of(pid: i32, data_dir: &Path) -> bool {
    if kill(Pid::from_raw(pid), None).is_err_and(|e| e == nix::errno::Errno::ESRCH) {
        return false;
    }
    if !cfg!(target_os = "linux") {
        return true;
    }
    let proc = Path::new("/proc").join(pid.to_string());
    let is_postgres = std::fs::read_to_string(proc.join("comm")).is_ok_and(|name| name.trim() == "postgres");
    // A zombie has no working folder and holds nothing any more.
    let folder = std::fs::read_link(proc.join("cwd")).ok();
    is_postgres && folder.is_some_and(|f| Some(f) == data_dir.canonicalize().ok())
}
