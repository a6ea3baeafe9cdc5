//! Who Postgres runs as: never root.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User};

use crate::error::Error;

/// The account that a server runs as, and how a program is started in it.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    /// `None`: the account of this process, which is not root.
    drop_to: Option<(Uid, Gid, String)>,
    setpriv: Option<PathBuf>,
}

impl Account {
    /// This process's own account; for root the owner of a data folder that is there already, else `postgres`, else `nobody`.
    pub(crate) fn for_folder(data_dir: &Path) -> Result<Self, Error> {
        let setpriv = find_program("setpriv");
        let owner = std::fs::metadata(data_dir).ok().map(|m| Uid::from_raw(m.uid()));
        let me = Uid::effective();
        if !me.is_root() {
            return match owner {
                Some(owner) if owner != me => Err(Error::NoAccount(format!(
                    "{} belongs to {}, and this runs as {}: run as that user, or choose another data folder",
                    data_dir.display(),
                    name_of(owner),
                    name_of(me)
                ))),
                _ => Ok(Self { drop_to: None, setpriv }),
            };
        }
        if setpriv.is_none() {
            let why = "Postgres does not run as root, and `setpriv`, which leaves root, is missing: `apt-get install util-linux`";
            return Err(Error::NoAccount(why.into()));
        }
        // initdb looks its user up by number, so an account must have an entry in passwd.
        let user = owner
            .filter(|o| !o.is_root())
            .and_then(|o| User::from_uid(o).ok().flatten())
            .or_else(|| ["postgres", "nobody"].iter().find_map(|n| User::from_name(n).ok().flatten()))
            .ok_or_else(|| {
                let why = "Postgres does not run as root, and there is neither a user `postgres` nor `nobody`: `useradd --system postgres`";
                Error::NoAccount(why.into())
            })?;
        Ok(Self { drop_to: Some((user.uid, user.gid, user.name)), setpriv })
    }

    /// The account's name, when it is another than this process's.
    pub(crate) fn name(&self) -> Option<&str> {
        self.drop_to.as_ref().map(|(_, _, name)| name.as_str())
    }

    /// A command that runs `program` in this account; `death_signal` reaches it when the thread that spawns it ends.
    pub(crate) fn command(&self, program: &Path, death_signal: &str) -> Command {
        let mut command = match &self.setpriv {
            Some(setpriv) => {
                let mut c = Command::new(setpriv);
                c.arg("--pdeathsig").arg(death_signal);
                if let Some((uid, gid, _)) = &self.drop_to {
                    c.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--clear-groups");
                }
                c.arg("--").arg(program);
                c
            }
            None => Command::new(program),
        };
        // PGDATA, PGPORT, LC_ALL and their like must not reach the server.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("LC_ALL", "C").env("TZ", "UTC");
        command.current_dir("/").stdin(Stdio::null());
        command
    }

    /// Gives a path to the account.
    pub(crate) fn own(&self, path: &Path) -> Result<(), Error> {
        match &self.drop_to {
            Some((uid, gid, _)) => {
                chown(path, Some(uid.as_raw()), Some(gid.as_raw())).map_err(Error::file("cannot give away", path))
            }
            None => Ok(()),
        }
    }

    /// Whether the account can work in a folder: the folders above it may keep it out.
    pub(crate) fn reaches(&self, folder: &Path) -> bool {
        if self.drop_to.is_none() {
            return true;
        }
        let Some(test) = find_program("test") else { return true };
        let mut command = self.command(&test, "KILL");
        command.arg("-w").arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|s| s.success())
    }
}

fn name_of(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| format!("user {uid}"), |u| u.name)
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(usual).map(|d| d.join(name)).find(|p| p.is_file())
}
