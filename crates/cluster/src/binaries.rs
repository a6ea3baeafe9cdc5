//! Finds the Postgres programs that this machine has.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::OLDEST_MAJOR;
use crate::error::Error;

/// A folder with `postgres` and `initdb` of one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binaries {
    folder: PathBuf,
    major: u32,
    version: String,
}

/// The environment variable that names the folder.
const VARIABLE: &str = "INSULA_PG_BIN";

impl Binaries {
    /// Looks in `setting`, then in `INSULA_PG_BIN`, where either must do; then in `PATH` and the usual folders, of which the
    /// newest is taken.
    ///
    /// # Errors
    /// When a named folder does not do, or no folder does; the message says how to install Postgres.
    pub fn find(setting: Option<&Path>) -> Result<Self, Error> {
        Self::best(setting, |_| true)
    }

    /// As [`Binaries::find`], of one major version.
    pub(crate) fn of_major(major: u32) -> Option<Self> {
        Self::best(None, |b| b.major == major).ok()
    }

    fn best(setting: Option<&Path>, accept: impl Fn(&Self) -> bool) -> Result<Self, Error> {
        let named = setting.map(Path::to_path_buf).or_else(|| std::env::var_os(VARIABLE).map(PathBuf::from));
        if let Some(folder) = named {
            let found = Self::in_folder(&folder).map_err(|why| Error::BadBinaries { folder: folder.clone(), why })?;
            if found.major < OLDEST_MAJOR {
                let why = format!("Postgres {} is too old: {OLDEST_MAJOR} or newer is needed", found.version);
                return Err(Error::BadBinaries { folder, why });
            }
            return if accept(&found) { Ok(found) } else { Err(none(&[found])) };
        }
        let mut all: Vec<Self> = usual_folders().iter().filter_map(|f| Self::in_folder(f).ok()).collect();
        all.sort_by_key(|b| std::cmp::Reverse(b.major));
        all.iter().find(|b| b.major >= OLDEST_MAJOR && accept(b)).cloned().ok_or_else(|| none(&all))
    }

    fn in_folder(folder: &Path) -> Result<Self, String> {
        let (postgres, initdb) = (folder.join("postgres"), folder.join("initdb"));
        for program in [&postgres, &initdb] {
            if !program.is_file() {
                return Err(format!("there is no {}", program.display()));
            }
        }
        let output = Command::new(&postgres).arg("--version").output().map_err(|e| format!("cannot run postgres: {e}"))?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let major = major_of(&version).ok_or_else(|| format!("`postgres --version` says {version:?}"))?;
        Ok(Self { folder: folder.to_path_buf(), major, version })
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The major version, such as 15.
    #[must_use]
    pub const fn major(&self) -> u32 {
        self.major
    }

    /// What `postgres --version` prints.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

fn none(all: &[Binaries]) -> Error {
    let found = match all.first() {
        Some(b) => format!(" (found only {} in {})", b.version, b.folder.display()),
        None => String::new(),
    };
    Error::NoBinaries { oldest: OLDEST_MAJOR, found }
}

fn usual_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for dir in std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()) {
        for program in ["postgres", "pg_ctl"] {
            // Distributions link the programs into PATH one by one; the rest lies beside what the link points to.
            if let Some(parent) = dir.join(program).canonicalize().ok().as_deref().and_then(Path::parent) {
                folders.push(parent.to_path_buf());
            }
        }
    }
    for base in ["/usr/lib/postgresql", "/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let named_so = base.ends_with("postgresql") || entry.file_name().to_string_lossy().starts_with("postgresql");
            if named_so {
                folders.push(entry.path().join("bin"));
            }
        }
    }
    for entry in std::fs::read_dir("/usr").into_iter().flatten().flatten() {
        // Red Hat's packages: /usr/pgsql-16/bin.
        if entry.file_name().to_string_lossy().starts_with("pgsql-") {
            folders.push(entry.path().join("bin"));
        }
    }
    folders.extend(["/usr/local/pgsql/bin", "/usr/local/bin", "/usr/bin"].map(PathBuf::from));
    folders.dedup();
    folders
}

/// `postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)` is 15; betas such as `18beta1` are their major version.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("something else"), None);
    }

    #[test]
    fn a_named_folder_must_do() {
        let error = Binaries::find(Some(Path::new("/nonexistent"))).expect_err("no such folder");
        assert!(error.to_string().contains("/nonexistent/postgres"), "{error}");
    }

    #[test]
    fn what_is_missing_comes_with_the_command() {
        assert!(none(&[]).to_string().contains("apt-get install postgresql"));
    }
}
