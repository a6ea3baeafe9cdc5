//! The data folder: made once, in a place that the server's account can reach.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use nix::sys::stat::Mode;

use crate::account::Account;
use crate::binaries::Binaries;
use crate::config::{ClusterConfig, Durability};
use crate::error::Error;

/// Where servers live whose own place their account cannot reach.
const REFUGE: &str = "/var/lib/insula";

/// How long a server that lost its initdb may take to notice.
const LAST_WORDS: Duration = Duration::from_secs(15);

/// Makes sure that there is an initialised data folder, and returns where it really is.
pub(crate) fn prepare(binaries: &Binaries, account: &Account, config: &ClusterConfig) -> Result<PathBuf, Error> {
    let dir = &config.data_dir;
    if dir.join("PG_VERSION").is_file() {
        return dir.canonicalize().map_err(Error::file("cannot read", dir));
    }
    // A folder without PG_VERSION is what a killed initdb left: that file comes first of all, and so nothing is in there.
    let real = place(account, dir)?;
    if let Err(error) = initialise(binaries, account, config, &real) {
        // Half a data folder would fail every later start.
        let _ = empty(&real);
        return Err(error);
    }
    Ok(real)
}

/// Makes an empty data folder that the account can work in, here or in the refuge with a link to it.
pub(crate) fn place(account: &Account, dir: &Path) -> Result<PathBuf, Error> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(Error::file("cannot create", parent))?;
    }
    make_private(dir)?;
    let real = dir.canonicalize().map_err(Error::file("cannot read", dir))?;
    account.own(&real)?;
    if account.reaches(&real) {
        return Ok(real);
    }
    let name = account.name().unwrap_or_default();
    let hash = digest::digest(&digest::SHA256, real.as_os_str().as_encoded_bytes());
    let hash: String = hash.as_ref().iter().take(8).map(|b| format!("{b:02x}")).collect();
    let refuge = Path::new(REFUGE).join(hash);
    tracing::info!("user {name} cannot reach {}: its files go to {}, with a link to them", real.display(), refuge.display());
    std::fs::create_dir_all(REFUGE).map_err(Error::file("cannot create", REFUGE))?;
    make_private(&refuge)?;
    // What lies there belonged to a data folder of this name that is gone.
    empty(&refuge)?;
    account.own(&refuge)?;
    if !account.reaches(&refuge) {
        let why = format!("user {name}, which Postgres runs as, can reach neither {} nor {}", real.display(), refuge.display());
        return Err(Error::NoAccount(why));
    }
    std::fs::remove_dir(&real).map_err(Error::file("cannot replace", &real))?;
    symlink(&refuge, &real).map_err(Error::file("cannot link", &real))?;
    Ok(refuge)
}

fn make_private(dir: &Path) -> Result<(), Error> {
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => {
            std::fs::set_permissions(dir, PermissionsExt::from_mode(0o700)).map_err(Error::file("cannot close", dir))
        }
        Err(e) => Err(Error::File { what: "cannot create", path: dir.to_path_buf(), source: e }),
    }
}

fn empty(dir: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(dir).map_err(Error::file("cannot read", dir))?.flatten() {
        let path = entry.path();
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.map_err(Error::file("cannot remove", &path))?;
    }
    Ok(())
}

/// A password that is read once and never on disk: initdb takes one only from a file, and a pipe is one.
struct Whisper {
    path: PathBuf,
    /// Holds what was written until it is read; open in both directions, so that neither end ever waits for the other.
    _pipe: File,
}

impl Whisper {
    fn new(path: PathBuf, text: &str) -> Result<Self, Error> {
        let make = || {
            nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
            let mut pipe = OpenOptions::new().read(true).write(true).open(&path)?;
            writeln!(pipe, "{text}")?;
            Ok(pipe)
        };
        let pipe = make().map_err(Error::file("cannot create", &path))?;
        Ok(Self { path, _pipe: pipe })
    }
}

impl Drop for Whisper {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn initialise(binaries: &Binaries, account: &Account, config: &ClusterConfig, dir: &Path) -> Result<(), Error> {
    clear(dir)?;
    // The cluster is made in a folder below and moved up, so that a folder with PG_VERSION is a whole one.
    let fresh = dir.join("new");
    let locales: &[&[&str]] = if binaries.major() >= 17 {
        &[&["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]]
    } else {
        // Sorting by byte is fast and the same everywhere; letters beyond ASCII still have their lower case.
        &[&["--locale=C", "--lc-ctype=C.UTF-8"], &["--locale=C"]]
    };
    let mut outcome = Err(String::new());
    for locale in locales {
        let password = Whisper::new(dir.join("password"), &config.admin_password)?;
        account.own(&password.path)?;
        let mut command = account.command(&binaries.program("initdb"), "KILL");
        command.arg("--pgdata").arg(&fresh).arg("--username").arg(&config.admin_role).arg("--pwfile").arg(&password.path);
        command.args(["--encoding=UTF8", "--auth=scram-sha-256", "--data-checksums"]).args(*locale);
        if config.durability == Durability::Scratch {
            command.arg("--no-sync");
        }
        let output = command.output().map_err(Error::file("cannot run", binaries.program("initdb")))?;
        outcome = if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) };
        match &outcome {
            Err(why) if why.contains("locale") => empty_if_there(&fresh)?,
            _ => break,
        }
    }
    outcome.map_err(|why| Error::Program { program: "initdb".into(), why })?;
    settle_in(&fresh, dir)
}

/// Removes what a killed start left. A server that its initdb was driving ends when it finds its input closed, and may write
/// until then.
pub(crate) fn clear(dir: &Path) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        match empty(dir) {
            Err(Error::File { source, .. }) if source.kind() != ErrorKind::PermissionDenied && began.elapsed() < LAST_WORDS => {
                std::thread::sleep(Duration::from_millis(50));
            }
            outcome => return outcome,
        }
    }
}

fn empty_if_there(dir: &Path) -> Result<(), Error> {
    if dir.is_dir() { empty(dir) } else { Ok(()) }
}

/// Moves the new cluster up into its folder, PG_VERSION last: its presence says that the rest is there.
pub(crate) fn settle_in(fresh: &Path, dir: &Path) -> Result<(), Error> {
    let mut names: Vec<_> =
        std::fs::read_dir(fresh).map_err(Error::file("cannot read", fresh))?.flatten().map(|e| e.file_name()).collect();
    names.sort_by_key(|n| n == "PG_VERSION");
    let last = names.pop();
    for name in names.iter().chain(&last) {
        if Some(name) == last.as_ref() {
            sync(dir)?;
        }
        let to = dir.join(name);
        std::fs::rename(fresh.join(name), &to).map_err(Error::file("cannot move", &to))?;
    }
    sync(dir)?;
    std::fs::remove_dir(fresh).map_err(Error::file("cannot remove", fresh))
}

/// Has the names in a folder on disk, so that a power cut does not reorder them.
fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|f| f.sync_all()).map_err(Error::file("cannot write", dir))
}

/// The major version that made the data folder.
pub(crate) fn made_by(dir: &Path) -> Result<u32, Error> {
    let path = dir.join("PG_VERSION");
    let text = std::fs::read_to_string(&path).map_err(Error::file("cannot read", &path))?;
    text.trim().parse().map_err(|_| Error::Start { folder: dir.to_path_buf(), why: format!("PG_VERSION says {text:?}") })
}

/// Opens a process's log for appending; one that has grown past 16 MB is set aside first.
///
/// # Errors
/// When the file system says no.
pub fn open_log(path: &Path) -> Result<File, Error> {
    if std::fs::metadata(path).is_ok_and(|m| m.size() > 16 << 20) {
        let old = path.with_extension("log.old");
        std::fs::rename(path, &old).map_err(Error::file("cannot rename", path))?;
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Error::file("cannot create", parent))?;
    }
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).open(path).map_err(Error::file("cannot open", path))
}
