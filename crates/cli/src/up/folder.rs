//! The data folder: where everything lies, who holds it, and the host side's keys in it.
//!
//! Always: one `up` at a time holds it; files with secrets are written whole or not at all, and only their owner reads them.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use insula_cluster::Cluster;
use insula_core::keys::Secret;
use insula_core::{Kind, RootKey};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::error::Error;

/// The data folder, locked.
#[derive(Debug)]
pub(crate) struct DataFolder {
    root: PathBuf,
    _lock: Flock<File>,
}

/// What `--fresh` throws away. Anything else in the folder is not ours.
const OURS: [&str; 10] =
    ["clusters", "logs", "objects", "run", "root.key", "admin.key", "edge.key", "cell-logins.json", "demo.json", "ready.json"];

impl DataFolder {
    /// Makes the folder when there is none, and locks it.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        make_folder(path)?;
        let root = path.canonicalize().map_err(|e| file_error("find", path, &e))?;
        let lock = lock(&root)?;
        for part in ["clusters", "logs", "run"] {
            make_folder(&root.join(part))?;
        }
        let run = root.join("run");
        std::fs::set_permissions(&run, PermissionsExt::from_mode(0o700)).map_err(|e| file_error("close", &run, &e))?;
        Ok(Self { root, _lock: lock })
    }

    /// Throws away everything that `up` has made in it.
    pub(crate) async fn empty(&self) -> Result<(), Error> {
        for entry in std::fs::read_dir(self.root.join("clusters")).into_iter().flatten().flatten() {
            let link = entry.path();
            // A cluster may live elsewhere with a link here; both go.
            let Ok(real) = link.canonicalize() else { continue };
            Cluster::settle(&real).await?;
            std::fs::remove_dir_all(&real).map_err(|e| file_error("remove", &real, &e))?;
        }
        for name in OURS {
            let path = self.root.join(name);
            let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(file_error("remove", &path, &e)),
                _ => {}
            }
        }
        for part in ["clusters", "logs", "run"] {
            make_folder(&self.root.join(part))?;
        }
        Ok(())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn cluster(&self, name: &str) -> PathBuf {
        self.root.join("clusters").join(name)
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.root.join("logs").join(format!("{name}.log"))
    }

    pub(crate) fn run(&self, name: &str) -> PathBuf {
        self.root.join("run").join(name)
    }

    /// Where applications keep their tenants' objects.
    pub(crate) fn objects(&self) -> PathBuf {
        self.root.join("objects")
    }

    pub(crate) fn ready_file(&self) -> PathBuf {
        self.root.join("ready.json")
    }

    /// A copy of a server module where the servers' account can read it.
    pub(crate) fn adopt_module(&self, module: &Path, name: &str) -> Result<PathBuf, Error> {
        let (copy, fresh) = (self.root.join(name), self.root.join(format!("{name}.new")));
        std::fs::copy(module, &fresh).map_err(|e| file_error("read", module, &e))?;
        std::fs::set_permissions(&fresh, PermissionsExt::from_mode(0o755)).map_err(|e| file_error("open", &fresh, &e))?;
        // By renaming: a server that runs has the old one mapped.
        std::fs::rename(&fresh, &copy).map_err(|e| file_error("write", &copy, &e))?;
        Ok(copy)
    }

    pub(crate) fn demo_file(&self) -> PathBuf {
        self.root.join("demo.json")
    }

    pub(crate) fn root_key_file(&self) -> PathBuf {
        self.root.join("root.key")
    }

    /// The root key; made on the first start. Losing it is losing every password, so it is never made a second time.
    pub(crate) fn root_key(&self) -> Result<RootKey, Error> {
        let path = self.root_key_file();
        if let Some(text) = read_if_there(&path)? {
            let bad = |e| Error::new(Kind::Invalid, format!("{}: {e}", path.display()), "put the file back from a backup");
            return Secret::from_hex(text.trim()).map(RootKey::new).map_err(bad);
        }
        if self.cluster("main").join("PG_VERSION").exists() {
            let message =
                format!("{} is missing, and the data in {} cannot be opened without it", path.display(), self.root.display());
            return Err(Error::new(
                Kind::Unavailable,
                message,
                "put the file back from a backup; without one: docs/runbooks/lost-key-file.md (--new-root-key)",
            ));
        }
        let secret = new_secret()?;
        self.put_root_key(&secret)?;
        Ok(RootKey::new(secret))
    }

    /// Writes another root key, when everything that the one before opened has been given new secrets.
    pub(crate) fn put_root_key(&self, secret: &Secret) -> Result<(), Error> {
        write_secret(&self.root_key_file(), &format!("{}\n", secret.to_hex()))
    }

    /// The API key of this machine's operator; made on the first start.
    pub(crate) fn admin_key(&self) -> Result<String, Error> {
        self.api_key(&self.root.join("admin.key"))
    }

    /// The file of the key with which the gateway follows the catalog; made on the first start.
    pub(crate) fn edge_key_file(&self) -> PathBuf {
        self.root.join("edge.key")
    }

    /// That key.
    pub(crate) fn edge_key(&self) -> Result<String, Error> {
        self.api_key(&self.edge_key_file())
    }

    fn api_key(&self, path: &Path) -> Result<String, Error> {
        if let Some(text) = read_if_there(path)? {
            return Ok(text.trim().to_owned());
        }
        let key = format!("{}{}", insula_api::key::PREFIX, new_secret()?.to_hex());
        write_secret(path, &format!("{key}\n"))?;
        Ok(key)
    }
}

pub(crate) fn new_secret() -> Result<Secret, Error> {
    Secret::random().map_err(|e| Error::new(Kind::Internal, e.to_string(), ""))
}

fn lock(root: &Path) -> Result<Flock<File>, Error> {
    let path = root.join("lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = options.open(&path).map_err(|e| file_error("open", &path, &e))?;
    let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(mut file, errno)| match errno {
        Errno::EWOULDBLOCK => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let pid = pid.trim();
            let message = format!("another `insula up` (process {pid}) runs on {}", root.display());
            Error::new(Kind::Conflict, message, format!("stop it with `kill -INT {pid}`, or choose another folder with --data"))
        }
        errno => file_error("lock", &path, &errno.into()),
    })?;
    let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| writeln!(lock, "{}", std::process::id()));
    written.map_err(|e| file_error("write", &path, &e))?;
    Ok(lock)
}

/// Postgres may run in another account, which must pass through; what others must not read is closed by itself.
fn make_folder(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(|e| file_error("create", path, &e))
}

/// Writes a file that only its owner reads, whole or not at all, also when the power fails.
pub(crate) fn write_secret(path: &Path, text: &str) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let fresh = path.with_file_name(name);
    let write = || {
        let _ = std::fs::remove_file(&fresh);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    write().map_err(|e| file_error("write", path, &e))
}

/// Removes a file; also tells in time when its folder does not exist.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), Error> {
    if path.parent().is_some_and(|p| !p.as_os_str().is_empty() && !p.is_dir()) {
        return Err(file_error("write", path, &std::io::ErrorKind::NotFound.into()));
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(file_error("remove", path, &e)),
        _ => Ok(()),
    }
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<String>, Error> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(file_error("read", path, &e)),
    }
}

pub(crate) fn file_error(verb: &str, path: &Path, error: &std::io::Error) -> Error {
    let help = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "choose a folder that you may write to with --data",
        std::io::ErrorKind::StorageFull => "make room on the disk and start again; nothing is lost",
        _ => "",
    };
    Error::new(Kind::Unavailable, format!("cannot {verb} {}: {error}", path.display()), help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_up_at_a_time_and_keys_stay() {
        let folder = tempfile::tempdir().expect("folder");
        let first = DataFolder::open(folder.path()).expect("opened");
        let second = DataFolder::open(folder.path()).expect_err("held");
        assert!(second.to_string().contains(&format!("process {}", std::process::id())), "{second}");
        assert_eq!(second.kind(), Kind::Conflict);
        let (key, root) = (first.admin_key().expect("key"), first.root_key().expect("key"));
        drop(first);
        let again = DataFolder::open(folder.path()).expect("free again");
        assert_eq!(again.admin_key().expect("key"), key);
        assert_eq!(again.root_key().expect("key").catalog_password("x"), root.catalog_password("x"));
        let mode = std::fs::metadata(again.root_key_file()).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[tokio::test]
    async fn fresh_leaves_what_is_not_ours() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("thesis.txt"), "mine").expect("written");
        let data = DataFolder::open(folder.path()).expect("opened");
        let before = data.admin_key().expect("key");
        data.empty().await.expect("emptied");
        assert!(folder.path().join("thesis.txt").exists());
        assert_ne!(data.admin_key().expect("key"), before);
    }

    #[test]
    fn data_without_its_key_is_not_given_another() {
        let folder = tempfile::tempdir().expect("folder");
        let data = DataFolder::open(folder.path()).expect("opened");
        std::fs::create_dir_all(data.cluster("main")).expect("made");
        std::fs::write(data.cluster("main").join("PG_VERSION"), "15").expect("written");
        assert!(data.root_key().expect_err("refused").to_string().contains("root.key is missing"));
    }
}
