//! What a person at a terminal sees while `up` works. Programs read the ready file and the logs.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Instant;

use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::error::Error;

/// Progress, when somebody watches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    watched: bool,
    began: Instant,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { watched: std::io::stderr().is_terminal(), began: Instant::now() }
    }

    /// One line: something is done.
    pub(crate) fn done(self, what: &str) {
        let seconds = self.began.elapsed().as_secs_f64();
        tracing::info!("{what} ({seconds:.1} s)");
        if self.watched {
            eprintln!("{seconds:5.1} s  {what}");
        }
    }

    /// Since the beginning.
    pub(crate) fn seconds(self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Text on stdout; a closed pipe is nobody's concern.
    pub(crate) fn print(self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

/// Everything into `log`, warnings (and what Postgres is waiting for) to stderr too.
pub(crate) fn start_logging(log: &Path) -> Result<(), Error> {
    let file = insula_cluster::open_log(log)?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,sqlx=warn"));
    let to_file = fmt::layer().with_ansi(false).with_writer(std::sync::Mutex::new(file)).with_filter(filter);
    let shown =
        EnvFilter::builder().with_default_directive(LevelFilter::WARN.into()).parse_lossy("insula_cluster=info,sqlx=error");
    let to_screen = fmt::layer()
        .without_time()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_filter(shown);
    // A test may have set a subscriber of its own.
    let _ = tracing_subscriber::registry().with(to_file).with(to_screen).try_init();
    Ok(())
}
