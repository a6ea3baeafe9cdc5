//! Which server module a private server loads (`docs/decisions/0005-server-module.md`).

use std::path::{Path, PathBuf};

use insula_cluster::Binaries;

use super::folder::DataFolder;
use crate::error::Error;

/// What `--server-module` says for none.
const NONE: &str = "none";

/// Where it comes from.
#[derive(Debug)]
pub(crate) enum ServerModule {
    /// A file that was named, for every server.
    Named(PathBuf),
    /// `insula_enter-MAJOR.so` in this folder, for servers of that major version: beside this program.
    In(PathBuf),
    None,
}

impl ServerModule {
    /// As it was asked for; beside this program unless it was.
    pub(crate) fn asked(setting: Option<&Path>) -> Self {
        match setting {
            Some(word) if word == Path::new(NONE) => Self::None,
            Some(file) => Self::Named(file.to_path_buf()),
            None => std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf)).map_or(Self::None, Self::In),
        }
    }

    /// The copy that the server of `cluster` can read. A cluster that is not there yet will be made with `newest`.
    pub(crate) fn of(&self, cluster: &Path, newest: &Binaries, folder: &DataFolder) -> Result<Option<PathBuf>, Error> {
        match self {
            Self::Named(file) => folder.adopt_module(file, "insula_enter.so").map(Some),
            Self::In(beside) => {
                // A cluster keeps its version, whatever newer ones are there.
                let made_with =
                    std::fs::read_to_string(cluster.join("PG_VERSION")).ok().and_then(|text| text.trim().parse().ok());
                let name = format!("insula_enter-{}.so", made_with.unwrap_or_else(|| newest.major()));
                let file = beside.join(&name);
                if file.is_file() { folder.adopt_module(&file, &name).map(Some) } else { Ok(None) }
            }
            Self::None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_gets_the_module_of_its_own_version() {
        let Ok(newest) = Binaries::find(None) else { panic!("these tests need Postgres: scripts/setup") };
        let root = tempfile::tempdir().expect("a folder");
        let (beside, cluster) = (root.path().join("bin"), root.path().join("cluster"));
        for dir in [&beside, &cluster] {
            std::fs::create_dir(dir).expect("made");
        }
        let data = DataFolder::open(&root.path().join("data")).expect("opens");
        let module = ServerModule::In(beside.clone());
        assert_eq!(module.of(&cluster, &newest, &data).expect("looked"), None, "there is none");

        std::fs::write(beside.join(format!("insula_enter-{}.so", newest.major())), "new").expect("written");
        let copy = module.of(&cluster, &newest, &data).expect("copied").expect("one that will be made with the newest");
        assert_eq!(std::fs::read_to_string(copy).expect("read"), "new");

        std::fs::write(cluster.join("PG_VERSION"), "9\n").expect("written");
        assert_eq!(module.of(&cluster, &newest, &data).expect("looked"), None, "it would be refused by an older server");
        std::fs::write(beside.join("insula_enter-9.so"), "old").expect("written");
        let copy = module.of(&cluster, &newest, &data).expect("copied").expect("its own");
        assert_eq!(std::fs::read_to_string(copy).expect("read"), "old");

        assert_eq!(ServerModule::asked(Some(Path::new("none"))).of(&cluster, &newest, &data).expect("looked"), None);
    }
}
