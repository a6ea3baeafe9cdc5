//! A NATS server of a test's own, with JetStream on disk.

use std::process::{Child, Command, Stdio};

/// Gone with this value, and its files too.
#[derive(Debug)]
pub struct TestNats {
    child: Option<Child>,
    port: u16,
    /// Bound and never listened on: while the server does not run, nobody else is given its port.
    _place: tokio::net::TcpSocket,
    folder: tempfile::TempDir,
    settings: String,
}

impl TestNats {
    /// At a port of its own.
    #[must_use]
    pub fn start() -> Self {
        Self::with("")
    }

    /// With more lines in its configuration.
    #[must_use]
    pub fn with(settings: &str) -> Self {
        let mut nats = Self::absent();
        settings.clone_into(&mut nats.settings);
        nats.revive();
        nats
    }

    /// Not running yet; where it will be is known.
    #[must_use]
    pub fn absent() -> Self {
        let place = tokio::net::TcpSocket::new_v4().expect("a socket");
        // As the server does it, which may then listen beside it.
        place.set_reuseaddr(true).expect("set");
        place.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let port = place.local_addr().expect("an address").port();
        Self { child: None, port, _place: place, folder: tempfile::tempdir().expect("a folder"), settings: String::new() }
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Whether it runs.
    #[must_use]
    pub const fn runs(&self) -> bool {
        self.child.is_some()
    }

    /// As a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("killed");
            child.wait().expect("gone");
        }
    }

    /// At the same port, with what it had on disk; killed first when it still runs.
    pub fn revive(&mut self) {
        self.kill();
        let folder = self.folder.path();
        let config = format!(
            "listen: \"127.0.0.1:{}\"\njetstream {{ store_dir: \"{}\" }}\n{}\n",
            self.port,
            folder.join("js").display(),
            self.settings
        );
        std::fs::write(folder.join("nats.conf"), config).expect("written");
        // Debian's is not on everybody's path.
        let program = ["/usr/sbin/nats-server", "/usr/local/bin/nats-server"];
        let program = program.into_iter().find(|path| std::path::Path::new(path).exists()).unwrap_or("nats-server");
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).expect("a log");
        let mut command = Command::new(program);
        command.arg("-c").arg(folder.join("nats.conf")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().expect("nats-server: `scripts/setup test` installs it"));
    }
}

impl Drop for TestNats {
    fn drop(&mut self) {
        self.kill();
    }
}
