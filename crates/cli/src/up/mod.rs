//! `insula up`: everything on this machine, supervised.
//!
//! Each role is a process of its own, as in production: any of them can be killed, and the rest goes on. Always: what `up`
//! has started ends with it, whatever ends it; the next `up` on the folder takes up what is there.

mod catalog;
mod cells;
pub(crate) mod child;
mod contexts;
mod demo;
mod documents;
pub(crate) mod folder;
mod house;
mod module;
mod named;
mod postgres;
mod rekey;
mod roster;
mod screen;
mod start;
mod summary;
mod workers;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::up::folder::DataFolder;
use crate::up::screen::Screen;

/// Runs everything on this machine: private Postgres servers, the control plane, an application and a worker per cell, the gateway in front.
#[derive(clap::Args, Debug)]
pub(crate) struct UpArgs {
    /// Folder that holds everything; a second `up` on it is refused.
    #[arg(long, env = "INSULA_DATA", default_value = ".insula", value_name = "DIR")]
    pub data: PathBuf,
    /// Throw away what the data folder holds, and start anew.
    #[arg(long)]
    pub fresh: bool,
    /// Make a new root key, and replace every password and grant key: the old one is lost, or known to somebody.
    #[arg(long, conflicts_with = "fresh")]
    pub new_root_key: bool,
    /// Where the gateway listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    pub gateway: SocketAddr,
    /// Where the control plane listens; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:8081", value_name = "ADDR")]
    pub control: SocketAddr,
    /// Also write the ready file here (it is always at DIR/ready.json).
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
    /// Create no demo tenants.
    #[arg(long)]
    pub no_demo: bool,
    /// Keep the catalog on this Postgres, instead of a private one: a URL of its superuser.
    #[arg(long, env = "INSULA_CATALOG_SERVER", hide_env_values = true, value_name = "URL")]
    pub catalog_url: Option<String>,
    /// Use this Postgres as a cell, instead of private ones: a URL of its superuser. One of them is called `main`.
    #[arg(long = "cell", env = "INSULA_CELLS", hide_env_values = true, value_delimiter = ',', value_name = "NAME=URL")]
    pub cells: Vec<String>,
    /// Load this server module into the private Postgres servers (`scripts/server-module` builds it): opening a transaction then costs
    /// a fifth. Unless given, the one beside this program for the server's version, if there is one; `none` for none.
    #[arg(long, env = "INSULA_SERVER_MODULE", value_name = "FILE")]
    pub server_module: Option<PathBuf>,
    /// Certificate authorities that cells' database servers may have beside those of the web: a PEM file.
    #[arg(long, env = "INSULA_CELL_CA", value_name = "FILE")]
    pub cell_ca: Option<PathBuf>,
    /// Certificate authorities that receivers of webhooks may have beside those of the web: a PEM file.
    #[arg(long, env = "INSULA_WEBHOOK_CA", value_name = "FILE")]
    pub webhook_ca: Option<PathBuf>,
    /// The NATS server that the application's workers send events to: `nats://HOST:PORT`, several with commas between. Without one, events go to webhooks
    /// alone.
    #[arg(long, env = "INSULA_NATS_URL", hide_env_values = true, value_name = "URL")]
    pub nats_url: Option<String>,
    /// The name server that is asked for proofs of host names; those of the system unless given.
    #[arg(long, env = "INSULA_DNS", value_name = "ADDRESS:PORT")]
    pub dns: Option<std::net::SocketAddr>,
    /// The application; `acmedocs` beside this program unless given.
    #[arg(long, value_name = "PATH")]
    pub app: Option<PathBuf>,
    /// The application has no jobs: start no workers.
    #[arg(long)]
    pub no_workers: bool,
    /// Folder of the Postgres programs for private servers; found by itself unless given.
    #[arg(long, value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
}

/// Runs until Ctrl-C.
pub(crate) async fn run(args: UpArgs) -> Result<(), Error> {
    let screen = Screen::new();
    if args.fresh && args.catalog_url.is_some() {
        let help = "drop the database insula_catalog there yourself, or leave --fresh out";
        return Err(Error::new(insula_core::Kind::Invalid, "--fresh does not empty a server that is not its own", help));
    }
    let folder = DataFolder::open(&args.data)?;
    if args.fresh {
        folder.empty().await?;
    }
    screen::start_logging(&folder.log("up"))?;
    // What a killed `up` left there is not so any more.
    for stale in std::iter::once(folder.ready_file()).chain(args.ready_file.clone()) {
        folder::remove_if_there(&stale)?;
    }
    if args.new_root_key {
        rekey::replace(&args, &folder, screen).await?;
    }
    let house = Arc::new(start::house(&args, folder)?);
    let mut end = Signals::new()?;
    let outcome = tokio::select! {
        outcome = start::everything(&args, &house, screen) => match outcome {
            Ok(running) => {
                end.wait().await;
                running.abort();
                Ok(())
            }
            Err(error) => Err(error),
        },
        () = end.wait() => Ok(()),
    };
    match &outcome {
        Ok(()) => screen.done("stopping"),
        Err(error) => tracing::error!("{error}"),
    }
    tokio::select! {
        () = house.stop() => {}
        // Whoever asks twice is in a hurry: what still runs ends with this process.
        () = end.wait_again() => tracing::warn!("stopped in a hurry"),
    }
    if outcome.is_ok() {
        screen.done("stopped");
    }
    outcome
}

/// What asks this process to end: Ctrl-C, a supervisor, a closed terminal.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Error> {
        let listen = |kind| {
            signal(kind).map_err(|e| Error::new(insula_core::Kind::Internal, format!("cannot listen to signals: {e}"), ""))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// The next one that is not an echo: a shell, `make` or `timeout` may hand one key press on twice.
    async fn wait_again(&mut self) {
        let _ = tokio::time::timeout(Duration::from_millis(500), async {
            loop {
                self.wait().await;
            }
        })
        .await;
        self.wait().await;
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
