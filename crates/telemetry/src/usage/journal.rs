//! Usage on its way to the control plane, on disk so that it survives this process and the control plane's absence.
//!
//! A file is appended to once a second, sealed every few seconds, sent, and removed when the control plane has it. Its name is the batch's id: what is
//! sent twice is counted once. Bounds: a clean stop loses nothing; a killed process loses at most what came since the last append (a second); a
//! machine that loses power, at most what came since the last seal, which alone is forced to disk. Always: one process writes in a folder.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use insula_core::TenantNo;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Amounts;

const CURRENT: &str = "current";
const SEALED: &str = "sealed";
const HOUR: u64 = 3600;

/// Entries of one part of a batch.
pub const PART: usize = 5_000;

/// What one tenant used in one hour, as far as this batch knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whose.
    pub tenant: TenantNo,
    /// Beginning of the hour, seconds since 1970.
    pub hour: u64,
    /// How much.
    pub amounts: Amounts,
}

/// What is sent at once. Parts of a large batch have the same id and numbers from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Makes sending it again harmless, together with the part.
    pub id: Uuid,
    /// From 0.
    pub part: u32,
    /// The figures.
    pub entries: Vec<Entry>,
}

/// A line of a file: what came in one second.
#[derive(Serialize, Deserialize)]
struct Second {
    hour: u64,
    used: Vec<(TenantNo, Amounts)>,
}

/// A folder of batches.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    /// Keeps other processes out for as long as it lives.
    _lock: Flock<File>,
    current: Option<(Uuid, File)>,
}

impl Journal {
    /// Takes the folder, and up what a process before this one left there.
    ///
    /// # Errors
    /// When it cannot be made or written, or another process has it.
    pub fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
        let journal = Self { folder: folder.to_owned(), _lock: lock, current: None };
        for (id, path) in journal.files(CURRENT)? {
            fs::rename(path, journal.path(id, SEALED))?;
        }
        Ok(journal)
    }

    fn path(&self, id: Uuid, kind: &str) -> PathBuf {
        self.folder.join(format!("{id}.{kind}"))
    }

    /// Files of a kind, oldest first: ids grow with time.
    fn files(&self, kind: &str) -> io::Result<Vec<(Uuid, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<Uuid>().ok());
            if path.extension().is_some_and(|extension| extension == kind) {
                files.extend(id.map(|id| (id, path)));
            }
        }
        files.sort();
        Ok(files)
    }

    /// Writes down what was used since the last time.
    ///
    /// # Errors
    /// When the disk does not take it: then nothing was written that counts, and the caller still has it.
    pub fn append(&mut self, used: &[(TenantNo, Amounts)], now: SystemTime) -> io::Result<()> {
        if used.is_empty() {
            return Ok(());
        }
        let since = now.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?.as_secs();
        let mut line = serde_json::to_vec(&Second { hour: since / HOUR * HOUR, used: used.to_vec() })?;
        line.push(b'\n');
        let (id, mut file) = match self.current.take() {
            Some(current) => current,
            None => {
                let id = Uuid::now_v7();
                (id, OpenOptions::new().create_new(true).append(true).open(self.path(id, CURRENT))?)
            }
        };
        let before = file.metadata()?.len();
        let written = file.write_all(&line);
        if written.is_err() {
            // Half a line must not stand before the next one.
            file.set_len(before)?;
        }
        self.current = Some((id, file));
        written
    }

    /// Makes what was written a batch.
    ///
    /// # Errors
    /// When the disk does not take it; it is tried again the next time.
    pub fn seal(&mut self) -> io::Result<()> {
        let Some((id, file)) = self.current.take() else { return Ok(()) };
        let sealed = file.sync_data().and_then(|()| fs::rename(self.path(id, CURRENT), self.path(id, SEALED)));
        if sealed.is_err() {
            self.current = Some((id, file));
        }
        sealed
    }

    /// Batches that wait, oldest first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn sealed(&self) -> io::Result<Vec<Uuid>> {
        Ok(self.files(SEALED)?.into_iter().map(|(id, _)| id).collect())
    }

    /// A batch, in parts.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn read(&self, id: Uuid) -> io::Result<Vec<Batch>> {
        let text = fs::read(self.path(id, SEALED))?;
        let mut sums: BTreeMap<(u64, TenantNo), Amounts> = BTreeMap::new();
        // A line that is not whole was being written when the process was killed; it is the last one.
        for second in text.split(|byte| *byte == b'\n').map_while(|line| serde_json::from_slice::<Second>(line).ok()) {
            for (tenant, amounts) in second.used {
                sums.entry((second.hour, tenant)).or_default().add(&amounts);
            }
        }
        let entries: Vec<Entry> = sums.into_iter().map(|((hour, tenant), amounts)| Entry { tenant, hour, amounts }).collect();
        Ok((0..).zip(entries.chunks(PART)).map(|(part, entries)| Batch { id, part, entries: entries.to_vec() }).collect())
    }

    /// Forgets a batch that has arrived.
    ///
    /// # Errors
    /// When the file cannot be removed; sending it again does no harm.
    pub fn remove(&self, id: Uuid) -> io::Result<()> {
        fs::remove_file(self.path(id, SEALED))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Meter;
    use super::*;

    fn used(no: i64, requests: u64) -> (TenantNo, Amounts) {
        let mut amounts = Amounts::default();
        amounts.0[Meter::Requests as usize] = requests;
        (TenantNo::new(no).unwrap(), amounts)
    }

    fn hour(no: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(no * HOUR + 17)
    }

    fn totals(journal: &Journal) -> Vec<(i64, u64, u64)> {
        let batches = journal.sealed().unwrap().into_iter().flat_map(|id| journal.read(id).unwrap());
        batches.flat_map(|batch| batch.entries).map(|e| (e.tenant.get(), e.hour / HOUR, e.amounts.get(Meter::Requests))).collect()
    }

    #[test]
    fn seconds_add_up_by_hour_and_parts_are_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&[used(1, 5), used(2, 1)], hour(9)).unwrap();
        journal.append(&[used(1, 7)], hour(9)).unwrap();
        journal.append(&[used(1, 1)], hour(10)).unwrap();
        assert!(journal.sealed().unwrap().is_empty(), "not yet a batch");
        journal.seal().unwrap();
        assert_eq!(totals(&journal), [(1, 9, 12), (2, 9, 1), (1, 10, 1)]);
        let many: Vec<_> = (1..=12_000).map(|no| used(no, 1)).collect();
        journal.append(&many, hour(11)).unwrap();
        journal.seal().unwrap();
        let ids = journal.sealed().unwrap();
        let parts = journal.read(ids[1]).unwrap();
        assert_eq!(parts.iter().map(|p| (p.part, p.entries.len())).collect::<Vec<_>>(), [(0, 5_000), (1, 5_000), (2, 2_000)]);
        journal.remove(ids[0]).unwrap();
        assert_eq!(journal.sealed().unwrap(), ids[1..]);
    }

    #[test]
    fn a_killed_process_leaves_all_but_its_last_line_to_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(folder.path()).unwrap();
        journal.append(&[used(1, 5)], hour(9)).unwrap();
        journal.append(&[used(1, 6)], hour(9)).unwrap();
        let (id, mut file) = journal.current.take().unwrap();
        file.write_all(b"{\"hour\":32400,\"used\":[[1,[99").unwrap();
        assert_eq!(Journal::open(folder.path()).unwrap_err().kind(), io::ErrorKind::WouldBlock, "one process a folder");
        drop((journal, file));
        let next = Journal::open(folder.path()).unwrap();
        assert_eq!((next.sealed().unwrap(), totals(&next)), (vec![id], vec![(1, 9, 11)]));
    }
}
