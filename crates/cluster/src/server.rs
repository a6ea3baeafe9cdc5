//! A running server: started, watched, stopped.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::config::{self, ClusterConfig, Durability};
use crate::error::Error;
use crate::process::{Exit, Process};
use crate::{folder, orphan};

/// Recovery after a crash may take minutes with thousands of databases; it is waited for while the server lives.
const READY_WITHIN: Duration = Duration::from_secs(900);
/// Leftovers of a killed server (its shared memory, its port) go away by themselves within moments.
const TRIES: u32 = 60;

/// A private Postgres. Dropping it shuts the server down without waiting; [`Cluster::stop`] waits.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    process: Process,
    port: u16,
}

impl Cluster {
    /// Makes the data folder when there is none, waits for an earlier run's server to end, starts, and waits until the
    /// server takes connections.
    ///
    /// # Errors
    /// With what the server's log says last, and with what to do where that is known.
    pub async fn start(binaries: &Binaries, config: ClusterConfig) -> Result<Self, Error> {
        let binaries = binaries.clone();
        let folder = config.data_dir.clone();
        let started = tokio::task::spawn_blocking(move || start(binaries, config)).await;
        started.unwrap_or_else(|e| Err(Error::Start { folder, why: e.to_string() }))
    }

    /// The address that it listens on.
    #[must_use]
    pub fn host(&self) -> &str {
        "127.0.0.1"
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The server's process.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Where its data is, as it was asked for.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.config.data_dir
    }

    /// What it was started with; another start with it takes up the same data on the same port.
    #[must_use]
    pub const fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// A connection URL for the superuser. Holds the password: not for logs.
    #[must_use]
    pub fn admin_url(&self, database: &str) -> String {
        let ClusterConfig { admin_role, admin_password, .. } = &self.config;
        format!("postgres://{admin_role}:{admin_password}@{}:{}/{database}?sslmode=disable", self.host(), self.port)
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.process.exited().is_none()
    }

    /// Waits until the server ends, by whatever cause.
    pub async fn wait(&self) -> Exit {
        self.process.wait().await
    }

    /// Fast shutdown: open transactions roll back, everything committed is written. Waits until it is over; a server that
    /// hangs for a minute is cut short, which costs it a recovery and nothing else.
    pub async fn stop(self) -> Exit {
        self.signal(Signal::SIGINT);
        if let Ok(exit) = tokio::time::timeout(Duration::from_secs(60), self.wait()).await {
            return exit;
        }
        self.signal(Signal::SIGQUIT);
        self.wait().await
    }

    /// Waits until no server works in the folder any more, and stops one that does: before the folder is thrown away.
    ///
    /// # Errors
    /// [`Error::Busy`] when it does not stop.
    pub async fn settle(data_dir: &Path) -> Result<(), Error> {
        let dir = data_dir.to_path_buf();
        let settled = tokio::task::spawn_blocking(move || orphan::settle(&dir)).await;
        settled.unwrap_or_else(|e| Err(Error::Start { folder: data_dir.to_path_buf(), why: e.to_string() }))
    }

    /// Gives the superuser of a stopped server the password that `config` says, whatever it had: the server's single-user mode asks
    /// for none (PostgreSQL manual, `postgres --single`).
    ///
    /// # Errors
    /// [`Error::Busy`] when a server works in the folder and does not stop; [`Error::Program`] with what Postgres says.
    pub async fn reset_password(binaries: &Binaries, config: &ClusterConfig) -> Result<(), Error> {
        let (binaries, config) = (binaries.clone(), config.clone());
        let folder = config.data_dir.clone();
        let reset = tokio::task::spawn_blocking(move || reset_password(&binaries, &config)).await;
        reset.unwrap_or_else(|e| Err(Error::Start { folder, why: e.to_string() }))
    }

    fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.signal(match self.config.durability {
            Durability::Full => Signal::SIGINT,
            Durability::Scratch => Signal::SIGQUIT,
        });
    }
}

fn start(binaries: Binaries, config: ClusterConfig) -> Result<Cluster, Error> {
    let account = Account::for_folder(&config.data_dir)?;
    let dir = folder::prepare(&binaries, &account, &config)?;
    let binaries = that_made(&dir, binaries, &config)?;
    orphan::settle(&dir)?;
    let log = config.log_path();
    let began = Instant::now();
    for attempt in 1.. {
        let port = choose_port(&config, &dir, attempt)?;
        config::write(&dir, &config.text(port))?;
        account.own(&dir.join(config::FILE))?;
        let offset = std::fs::metadata(&log).map_or(0, |m| m.size());
        let process = spawn(&binaries, &account, &config, &dir, &log)?;
        match wait_ready(&process, &dir, began, &log) {
            Ok(()) => return Ok(Cluster { config, process, port }),
            Err(exit) => {
                let tail = tail(&log, offset);
                if attempt < TRIES && passes(&tail) {
                    std::thread::sleep(Duration::from_millis(if attempt < 10 { 50 } else { 500 }));
                    continue;
                }
                let why = if tail.is_empty() { format!("{exit}; its log {} is empty", log.display()) } else { advise(&tail) };
                return Err(Error::Start { folder: config.data_dir.clone(), why });
            }
        }
    }
    Err(Error::Start { folder: config.data_dir.clone(), why: "too many tries".into() })
}

/// The programs of the version that made the data.
fn that_made(dir: &Path, binaries: Binaries, config: &ClusterConfig) -> Result<Binaries, Error> {
    let (made_by, have) = (folder::made_by(dir)?, binaries.major());
    if made_by == have {
        return Ok(binaries);
    }
    Binaries::of_major(made_by).ok_or_else(|| Error::Version { folder: config.data_dir.clone(), made_by, have })
}

fn reset_password(binaries: &Binaries, config: &ClusterConfig) -> Result<(), Error> {
    let account = Account::for_folder(&config.data_dir)?;
    let dir = config.data_dir.canonicalize().map_err(Error::file("cannot read", &config.data_dir))?;
    let binaries = that_made(&dir, binaries.clone(), config)?;
    orphan::settle(&dir)?;
    let program = binaries.program("postgres");
    let mut command = account.command(&program, "INT");
    // Otherwise it says what is wrong and ends well.
    command.args(["--single", "-c", "exit_on_error=on", "-D"]).arg(&dir).arg("postgres");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Error::file("cannot run", &program))?;
    let quoted = |text: &str, quote: &str| format!("{quote}{}{quote}", text.replace(quote, &quote.repeat(2)));
    let (role, password) = (quoted(&config.admin_role, "\""), quoted(&config.admin_password, "'"));
    let told = child.stdin.take().map_or(Ok(()), |mut input| writeln!(input, "ALTER ROLE {role} PASSWORD {password}"));
    let output = child.wait_with_output().map_err(Error::file("cannot run", &program))?;
    match told {
        Ok(()) if output.status.success() => Ok(()),
        _ => {
            let why = String::from_utf8_lossy(&output.stderr).replace(&config.admin_password, "***");
            Err(Error::Program { program: "postgres --single".into(), why: why.trim().to_owned() })
        }
    }
}

fn spawn(binaries: &Binaries, account: &Account, config: &ClusterConfig, dir: &Path, log: &Path) -> Result<Process, Error> {
    let death_signal = match config.durability {
        Durability::Full => "INT",
        Durability::Scratch => "QUIT",
    };
    let mut command = account.command(&binaries.program("postgres"), death_signal);
    let file = folder::open_log(log)?;
    let copy = file.try_clone().map_err(Error::file("cannot open", log))?;
    command.arg("-D").arg(dir).stdout(copy).stderr(file);
    Process::spawn(command).map_err(Error::file("cannot run", binaries.program("postgres")))
}

/// The port that was asked for; else the last one, on the first try; else any that is free.
fn choose_port(config: &ClusterConfig, dir: &Path, attempt: u32) -> Result<u16, Error> {
    if let Some(port) = config.port {
        return Ok(port);
    }
    let free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|l| l.local_addr()).map(|a| a.port());
    if let Some(port) = config::last_port(dir).filter(|_| attempt <= 3)
        && free(port).is_ok()
    {
        return Ok(port);
    }
    free(0).map_err(Error::file("no free port for", dir))
}

/// Waits until the server says that it is ready; `Err` when it ended instead.
fn wait_ready(process: &Process, dir: &Path, began: Instant, log: &Path) -> Result<(), Exit> {
    let mut told = Duration::ZERO;
    loop {
        if let Some(exit) = process.exited() {
            return Err(exit);
        }
        if orphan::read_pid_file(dir).is_some_and(|f| f.pid == process.pid() && f.ready) {
            return Ok(());
        }
        let waited = began.elapsed();
        if waited > READY_WITHIN {
            process.signal(Signal::SIGINT);
        }
        if waited > told + Duration::from_secs(5) {
            told = waited;
            tracing::info!("Postgres is recovering ({} s so far); {} tells more", waited.as_secs(), log.display());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the cause is a leftover that goes away by itself.
fn passes(log: &str) -> bool {
    ["still in use", "lock file \"postmaster.pid\"", "Address already in use", "could not bind"].iter().any(|s| log.contains(s))
}

/// The last lines, with a word on the causes that people meet.
fn advise(log: &str) -> String {
    let advice = [
        ("No space left on device", "the disk is full: make room and start again, nothing is lost"),
        ("Permission denied", "give its files back to the user that it runs as"),
        ("could not create shared memory", "the machine is out of memory for shared memory"),
        ("incompatible with server", "install the Postgres version that made the data"),
    ];
    match advice.iter().find(|(sign, _)| log.contains(sign)) {
        Some((_, word)) => format!("{word}\n{log}"),
        None => log.to_owned(),
    }
}

/// The last ten lines that were written after `offset`.
fn tail(log: &PathBuf, offset: u64) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let fresh = bytes.get(usize::try_from(offset).unwrap_or(0)..).unwrap_or(&bytes);
    let text = String::from_utf8_lossy(fresh);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}
