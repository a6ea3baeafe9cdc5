//! A zip file, written while it is read: entries go in at one end, bytes come out at the other.
//!
//! Always: of what is in it, no more is in memory than a few entries and chunks, and a line for each entry, which a zip's directory at its
//! end needs. Compressing has a thread of its own, so that nobody else's work waits for it.

use std::io::{self, Write};

use bytes::Bytes;
use chrono::{DateTime, Datelike as _, Timelike as _, Utc};
use insula::{Error, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Entries on their way in; each has a mebibyte at most.
const ENTRIES: usize = 4;
/// Chunks on their way out.
const CHUNKS: usize = 4;
/// The size of a chunk.
const CHUNK: usize = 512 * 1024;

/// A piece of an archive.
#[derive(Debug)]
pub(crate) enum Entry {
    /// A file, whole.
    File {
        /// Its path in the archive.
        name: String,
        /// When it was last changed.
        at: DateTime<Utc>,
        /// What is in it.
        text: String,
    },
    /// More of the file that [`Entry::Begin`] began.
    More(String),
    /// A file whose text comes in pieces.
    Begin(String),
    /// There is nothing more; without it an archive is not finished.
    End,
}

/// The way in.
pub(crate) type Entries = mpsc::Sender<Entry>;

/// The way out; after the last chunk, whether the archive is whole.
#[derive(Debug)]
pub(crate) struct Chunks {
    chunks: mpsc::Receiver<Bytes>,
    writer: JoinHandle<io::Result<()>>,
}

impl Chunks {
    /// The next bytes; `None` when the archive is whole.
    ///
    /// # Errors
    /// When it will not be.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>> {
        if let Some(chunk) = self.chunks.recv().await {
            return Ok(Some(chunk));
        }
        (&mut self.writer).await.map_err(Error::internal)??;
        Ok(None)
    }
}

/// An archive, begun.
///
/// # Errors
/// When it is nobody's.
pub(crate) fn begin() -> Result<(Entries, Chunks)> {
    let (entries, chunks, work) = parts();
    Ok((entries, Chunks { chunks, writer: insula::spawn_blocking(work)? }))
}

fn parts() -> (Entries, mpsc::Receiver<Bytes>, impl FnOnce() -> io::Result<()> + Send + 'static) {
    let (entries, mut incoming) = mpsc::channel(ENTRIES);
    let (outgoing, chunks) = mpsc::channel(CHUNKS);
    let outlet = Outlet { chunk: Vec::with_capacity(CHUNK), outgoing, gone: false };
    (entries, chunks, move || write(&mut incoming, outlet))
}

fn write(entries: &mut mpsc::Receiver<Entry>, outlet: Outlet) -> io::Result<()> {
    let mut zip = ZipWriter::new_stream(outlet);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    loop {
        match entries.blocking_recv() {
            Some(Entry::File { name, at, text }) => {
                zip.start_file(name, options.last_modified_time(moment(&at)))?;
                zip.write_all(text.as_bytes())?;
            }
            Some(Entry::Begin(name)) => zip.start_file(name, options.last_modified_time(moment(&Utc::now())))?,
            Some(Entry::More(text)) => zip.write_all(text.as_bytes())?,
            Some(Entry::End) => return zip.finish()?.into_inner().close(),
            // Whoever wrote it has given up.
            None => return Err(io::ErrorKind::Interrupted.into()),
        }
    }
}

/// Zip's time knows no zone, and no year before 1980; ours is UTC.
fn moment(at: &DateTime<Utc>) -> zip::DateTime {
    let part = |n: u32| u8::try_from(n).unwrap_or_default();
    let (year, month, day) = (u16::try_from(at.year()).unwrap_or_default(), part(at.month()), part(at.day()));
    zip::DateTime::from_date_and_time(year, month, day, part(at.hour()), part(at.minute()), part(at.second())).unwrap_or_default()
}

/// Where the zip's bytes go. When nobody wants them any more it swallows them: the zip's writer closes its books also then.
struct Outlet {
    chunk: Vec<u8>,
    outgoing: mpsc::Sender<Bytes>,
    gone: bool,
}

impl Outlet {
    fn send(&mut self) {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.gone |= self.outgoing.blocking_send(chunk.into()).is_err();
    }

    fn close(mut self) -> io::Result<()> {
        self.send();
        if self.gone { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

impl Write for Outlet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.gone {
            return Ok(bytes.len());
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        if self.chunk.len() == CHUNK {
            self.send();
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file's name for what has a number and a title: safe on every system, unique by its number.
pub(crate) fn file_name(number: impl std::fmt::Display, title: &str, ending: &str) -> String {
    let plain = |c: char| if c.is_control() || "/\\:*?\"<>|".contains(c) { '-' } else { c };
    let title: String = title.chars().map(plain).take(80).collect();
    let title = title.trim_matches(|c: char| c == '.' || c.is_whitespace());
    if title.is_empty() { format!("{number}.{ending}") } else { format!("{number} {title}.{ending}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    async fn all(chunks: &mut Chunks) -> Result<Vec<u8>> {
        let mut bytes = vec![];
        while let Some(chunk) = chunks.next().await? {
            assert!(chunk.len() <= CHUNK);
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    #[allow(clippy::disallowed_methods, reason = "a unit test has no tenant")]
    fn begin() -> (Entries, Chunks) {
        let (entries, chunks, work) = parts();
        (entries, Chunks { chunks, writer: tokio::task::spawn_blocking(work) })
    }

    #[tokio::test]
    async fn what_goes_in_comes_out() {
        let (entries, mut chunks) = begin();
        let write = async move {
            for n in 0..300 {
                let text = format!("{n} ").repeat(5_000);
                entries.send(Entry::File { name: format!("{n}.md"), at: Utc::now(), text }).await.expect("wanted");
            }
            entries.send(Entry::Begin("ünder/index.jsonl".to_owned())).await.expect("wanted");
            entries.send(Entry::More("a\n".to_owned())).await.expect("wanted");
            entries.send(Entry::More("b\n".to_owned())).await.expect("wanted");
            entries.send(Entry::End).await.expect("wanted");
        };
        let (bytes, ()) = tokio::join!(all(&mut chunks), write);
        let mut zip = zip::ZipArchive::new(io::Cursor::new(bytes.expect("whole"))).expect("a zip");
        assert_eq!(zip.len(), 301);
        let mut text = String::new();
        zip.by_name("299.md").expect("there").read_to_string(&mut text).expect("reads");
        assert_eq!(text, "299 ".repeat(5_000));
        text.clear();
        zip.by_name("ünder/index.jsonl").expect("there").read_to_string(&mut text).expect("reads");
        assert_eq!(text, "a\nb\n");
    }

    #[tokio::test]
    async fn an_archive_without_an_end_is_none() {
        let (entries, mut chunks) = begin();
        entries.send(Entry::File { name: "a".to_owned(), at: Utc::now(), text: "a".to_owned() }).await.expect("wanted");
        drop(entries);
        assert!(all(&mut chunks).await.is_err());
    }

    #[test]
    fn names_suit_every_system() {
        assert_eq!(file_name("DOC-000001", "../../etc/passwd", "md"), "DOC-000001 -..-etc-passwd.md");
        assert_eq!(file_name("DOC-000002", " . ", "md"), "DOC-000002.md");
        assert_eq!(file_name("DOC-000003", "A: \"b\"\u{7}<c>", "txt"), "DOC-000003 A- -b---c-.txt");
        assert_eq!(file_name("DOC-000004", &"ß".repeat(300), "md").chars().count(), 10 + 1 + 80 + 3);
    }
}
