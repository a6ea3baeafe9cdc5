//! `insula up` as a child process, found by its ready file.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;

/// What `insula up` tells other programs (its ready file).
#[derive(Debug, Clone, Deserialize)]
pub struct Ready {
    /// Control API.
    pub control_url: String,
    /// Where tenants' requests go.
    pub gateway_url: String,
    /// Key with every right.
    pub admin_key: String,
    /// The catalog, host side.
    pub catalog_dsn: String,
    /// Database servers.
    pub cells: Vec<ReadyCell>,
    /// What runs.
    pub processes: Vec<ReadyProcess>,
}

/// One cell in the ready file.
#[derive(Debug, Clone, Deserialize)]
pub struct ReadyCell {
    /// Its name.
    pub name: String,
    /// Logs in as the application's role.
    pub app_dsn: String,
    /// Logs in as the host side.
    pub owner_dsn: String,
}

/// One process in the ready file.
#[derive(Debug, Clone, Deserialize)]
pub struct ReadyProcess {
    /// What it does.
    pub role: String,
    /// Its process id.
    pub pid: i32,
    /// Its admin port, when it has one.
    pub admin_url: Option<String>,
}

/// A tenant as `insula tenant create --wait --json` prints it.
#[derive(Debug, Clone, Deserialize)]
pub struct Tenant {
    /// Public id.
    pub id: String,
    /// DNS label.
    pub slug: String,
    /// Its isolation mode.
    pub isolation: String,
    /// Its first user.
    pub admin: Admin,
    /// Where it lives.
    pub placement: serde_json::Value,
}

/// A tenant's first user.
#[derive(Debug, Clone, Deserialize)]
pub struct Admin {
    /// Log-in name.
    pub email: String,
    /// Shown once.
    pub password: String,
}

/// A running `insula up`.
#[derive(Debug)]
pub struct Up {
    child: Child,
    data: PathBuf,
    /// Its ready file, as of the last start.
    pub ready: Ready,
}

/// A program that cargo built: beside the running one, or above it where that is a test (in `deps`).
///
/// # Errors
/// When it is not built.
pub fn bin(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    let folder =
        here.ancestors().skip(1).find(|folder| !folder.ends_with("deps")).context("no target folder above this program")?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} is not built: run `cargo build --workspace` first (make test does)", path.display());
    Ok(path)
}

impl Up {
    /// Starts on `data` (which outlives it) and waits until all is ready.
    ///
    /// # Errors
    /// When it is not ready within two minutes; the message holds what it printed.
    pub fn start(data: &Path) -> Result<Self> {
        Self::start_with(data, &["--no-demo"])
    }

    /// Starts on `data` with these further arguments.
    ///
    /// # Errors
    /// As [`Up::start`].
    pub fn start_with(data: &Path, more: &[&str]) -> Result<Self> {
        Self::start_as(data, Command::new(bin("insula")?), more)
    }

    /// Starts through `command`, which runs `insula` with the arguments that follow it, and with `more` arguments.
    ///
    /// # Errors
    /// As [`Up::start`].
    pub fn start_as(data: &Path, mut command: Command, more: &[&str]) -> Result<Self> {
        // Another account may have to pass through to the servers' files.
        if let Some(parent) = data.parent() {
            std::fs::set_permissions(parent, std::fs::Permissions::from_mode(0o711))?;
        }
        let ready_file = data.with_extension("ready.json");
        let _ = std::fs::remove_file(&ready_file);
        let log_path = data.with_extension("log");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&log_path)?;
        let mut child = command
            .args(["up", "--gateway", "127.0.0.1:0", "--control", "127.0.0.1:0", "--data"])
            .arg(data)
            .arg("--ready-file")
            .arg(&ready_file)
            .args(more)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let ready = wait_for(Duration::from_secs(120), || {
            if let Ok(Some(status)) = child.try_wait() {
                bail!("insula up ended with {status}:\n{}", std::fs::read_to_string(&log_path).unwrap_or_default());
            }
            Ok(std::fs::read(&ready_file).ok().and_then(|bytes| serde_json::from_slice::<Ready>(&bytes).ok()))
        });
        match ready {
            Ok(ready) => Ok(Self { child, data: data.to_owned(), ready }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error.context(std::fs::read_to_string(&log_path).unwrap_or_default()))
            }
        }
    }

    /// Runs an operator command against it and reads its JSON.
    ///
    /// # Errors
    /// When the command fails; the message holds its standard error.
    pub fn insula(&self, args: &[&str]) -> Result<serde_json::Value> {
        let output = Command::new(bin("insula")?)
            .args(args)
            .arg("--json")
            .env("INSULA_URL", &self.ready.control_url)
            .env("INSULA_KEY", &self.ready.admin_key)
            .output()?;
        ensure!(output.status.success(), "insula {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Creates a tenant and waits for it.
    ///
    /// # Errors
    /// When provisioning fails.
    pub fn tenant(&self, slug: &str, plan: &str, isolation: &str) -> Result<Tenant> {
        let json = self.insula(&["tenant", "create", slug, "--plan", plan, "--isolation", isolation, "--wait"])?;
        Ok(serde_json::from_value(json)?)
    }

    /// The ready file as it is now.
    ///
    /// # Errors
    /// When it is not there.
    pub fn ready_now(&self) -> Result<Ready> {
        Ok(serde_json::from_slice(&std::fs::read(self.data.with_extension("ready.json"))?)?)
    }

    /// The process id of a role, read afresh: a restarted one has another.
    ///
    /// # Errors
    /// When nothing of that role runs.
    pub fn pid_of(&self, role: &str) -> Result<i32> {
        let now = self.ready_now()?;
        let process = now.processes.into_iter().find(|p| p.role == role || p.role.starts_with(&format!("{role}:")));
        Ok(process.with_context(|| format!("no process of role {role}"))?.pid)
    }

    /// The process id of exactly this role, if it runs now.
    #[must_use]
    pub fn pid_of_exactly(&self, role: &str) -> Option<i32> {
        self.ready_now().ok()?.processes.into_iter().find(|p| p.role == role).map(|p| p.pid)
    }

    /// Its data folder, as the test sees it.
    #[must_use]
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The file that holds what it printed.
    #[must_use]
    pub fn printed(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Process id of `up` itself.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// `kill -9` of `up` itself; what it started must end on its own.
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ctrl-C, and waits for the end.
    ///
    /// # Errors
    /// When it does not end cleanly within a minute.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.pid()), Signal::SIGINT)?;
        let child = &mut self.child;
        let status = wait_for(Duration::from_secs(60), || Ok(child.try_wait()?))?;
        ensure!(status.success(), "insula up ended with {status}");
        Ok(())
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // Politely first, so that no private server is left behind.
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGINT);
            let child = &mut self.child;
            if wait_for(Duration::from_secs(30), || Ok(child.try_wait()?)).is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
        }
    }
}

/// Sends a signal to a process.
///
/// # Errors
/// When there is no such process.
pub fn kill_9(pid: i32) -> Result<()> {
    Ok(kill(Pid::from_raw(pid), Signal::SIGKILL)?)
}

/// Looks again and again until there is an answer, or the time is over.
///
/// # Errors
/// What `look` says, or that the time is over.
pub fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(found) = look()? {
            return Ok(found);
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    bail!("not within {limit:?}")
}
