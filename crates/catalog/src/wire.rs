//! The catalog over HTTP: what the control plane sends and [`crate::HttpSource`] reads.
//!
//! `GET /v1/catalog/watch?since=REV` is a stream of server-sent events (WHATWG HTML, 9.2): [`CHANGES`] with a [`Frame`], [`CURRENT`]
//! with a revision as a sign of life, and, for a reader from whom the feed has moved on, [`PAGE`] (a [`Page`]) until [`LOADED`]. Their id is
//! the revision that a reader stands at after them. `GET /v1/catalog` is the whole catalog as lines of JSON, [`Line`]; what does not end with
//! [`Line::Loaded`] was cut off.
//!
//! Always: a frame says from which revision it leads, so that a reader notices a hole; a reader takes nothing that is not whole.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::row::{Change, Changes, Page};

/// The answer's header that says which catalog it is of (a UUID). A reader hands it back as `catalog`.
pub const IDENTITY: &str = "insula-catalog";
/// Event: what changed, a [`Frame`].
pub const CHANGES: &str = "changes";
/// Event: nothing is missing up to this revision, a [`Revision`].
pub const CURRENT: &str = "current";
/// Event: a page of a full load, a [`Page`].
pub const PAGE: &str = "page";
/// Event: the full load is complete, a [`Revision`].
pub const LOADED: &str = "loaded";

/// The largest event or line that is read, bytes.
const MOST: usize = 64 << 20;
/// Room for bytes that a reader keeps for the next ones.
const KEPT: usize = 64 << 10;

/// All that changed between two revisions. For a reader that stands at `since` or later (but before `revision`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// From where it leads.
    pub since: i64,
    /// Where a reader stands after it.
    pub revision: i64,
    /// Each thing once, as it was at `revision`.
    pub changes: Vec<Change>,
}

/// A revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// The number.
    pub revision: i64,
}

/// A line of a full load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// A page.
    Page(Page),
    /// That was all.
    Loaded(Revision),
}

/// [`CHANGES`] as it goes over the wire, for readers that stand at `since`.
///
/// # Errors
/// When the changes cannot be written as JSON.
pub fn changes(since: i64, changes: &Changes) -> Result<Vec<u8>, serde_json::Error> {
    /// A [`Frame`] of changes that somebody else has.
    #[derive(Serialize)]
    struct Borrowed<'a> {
        since: i64,
        revision: i64,
        changes: &'a [Change],
    }
    let revision = changes.revision;
    event(CHANGES, Some(revision), &Borrowed { since, revision, changes: &changes.changes })
}

/// An event as it goes over the wire.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn event(name: &str, id: Option<i64>, data: &impl Serialize) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = format!("event: {name}\n").into_bytes();
    if let Some(id) = id {
        text.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    text.extend_from_slice(b"data: ");
    // Compact JSON has no line breaks.
    serde_json::to_writer(&mut text, data)?;
    text.extend_from_slice(b"\n\n");
    // It may be kept for long.
    text.shrink_to_fit();
    Ok(text)
}

/// A line as it goes over the wire.
///
/// # Errors
/// When the value cannot be written as JSON.
pub fn line(line: &Line) -> Result<Vec<u8>, serde_json::Error> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    Ok(text)
}

/// Cuts bytes as they come into lines, without their ends (LF or CRLF).
#[derive(Default)]
pub(crate) struct Lines {
    buffer: Vec<u8>,
    /// Where the line that is not yet complete begins, and how far it was looked through.
    begin: usize,
    looked: usize,
}

impl Lines {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.buffer.drain(..self.begin);
        self.looked -= self.begin;
        self.begin = 0;
        if self.buffer.len() + bytes.len() > MOST {
            return Err(Error::Answer(format!("a line of more than {MOST} bytes")));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// The next whole line.
    pub(crate) fn next(&mut self) -> Option<&[u8]> {
        let Some(length) = self.buffer.get(self.looked..)?.iter().position(|b| *b == b'\n') else {
            self.looked = self.buffer.len();
            if self.begin == self.looked && self.buffer.capacity() > KEPT {
                *self = Self::default();
            }
            return None;
        };
        let end = self.looked + length;
        let line = self.buffer.get(self.begin..end)?;
        self.begin = end + 1;
        self.looked = end + 1;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

/// An event that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: Vec<u8>,
}

impl Event {
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        read(&self.data)
    }
}

/// Reads JSON that came over the wire.
pub(crate) fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).map_err(|e| Error::Answer(e.to_string()))
}

/// Reads server-sent events as their bytes come. An event that was begun and not ended is none.
#[derive(Default)]
pub(crate) struct Events {
    lines: Lines,
    event: Event,
}

impl Events {
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.lines.push(bytes)
    }

    pub(crate) fn next(&mut self) -> Result<Option<Event>, Error> {
        while let Some(line) = self.lines.next() {
            if line.is_empty() {
                let event = std::mem::take(&mut self.event);
                if !event.data.is_empty() {
                    return Ok(Some(event));
                }
                continue;
            }
            let (field, value) = match line.iter().position(|b| *b == b':') {
                Some(at) => line.split_at(at),
                None => (line, &b":"[..]),
            };
            let value = value.get(1..).unwrap_or_default();
            let value = value.strip_prefix(b" ").unwrap_or(value);
            match field {
                b"event" => self.event.name = String::from_utf8_lossy(value).into_owned(),
                b"data" => {
                    if !self.event.data.is_empty() {
                        self.event.data.push(b'\n');
                    }
                    self.event.data.extend_from_slice(value);
                }
                // Comments, ids (frames have theirs inside) and what is not known.
                _ => {}
            }
            if self.event.data.len() > MOST {
                return Err(Error::Answer(format!("an event of more than {MOST} bytes")));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn events_are_read_however_they_are_cut(cuts in proptest::collection::vec(1usize..40, 0..60), n in 1i64..20, end in any::<proptest::sample::Index>()) {
            let mut bytes = b": hello\r\n\n".to_vec();
            let mut wanted = Vec::new();
            let mut ends = Vec::new();
            for revision in 0..n {
                bytes.extend(event(CURRENT, Some(revision), &Revision { revision }).unwrap());
                wanted.push(revision);
                ends.push(bytes.len());
            }
            // The connection breaks somewhere.
            let end = end.index(bytes.len() + 1);
            wanted.truncate(ends.iter().filter(|e| **e <= end).count());
            let mut rest = &bytes[..end];
            let mut events = Events::default();
            let mut seen = Vec::new();
            for cut in cuts.into_iter().chain(std::iter::repeat(1 << 20)) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                events.push(now).unwrap();
                while let Some(event) = events.next().unwrap() {
                    prop_assert_eq!(event.name.as_str(), CURRENT);
                    seen.push(event.read::<Revision>().unwrap().revision);
                }
                rest = later;
                if rest.is_empty() { break }
            }
            prop_assert_eq!(seen, wanted);
        }
    }

    #[test]
    fn data_over_several_lines_is_joined_and_what_is_no_event_is_none() {
        let mut events = Events::default();
        events.push(b"retry: 5\n\nevent:x\ndata: a\ndata:b\n\ndata\n\n").unwrap();
        assert_eq!(events.next().unwrap(), Some(Event { name: "x".into(), data: b"a\nb".to_vec() }));
        assert_eq!(events.next().unwrap(), None);
    }

    #[test]
    fn room_for_a_long_line_is_not_kept() {
        let mut lines = Lines::default();
        lines.push(&vec![b'a'; 1 << 20]).unwrap();
        assert_eq!(lines.next(), None);
        lines.push(b"a\nb").unwrap();
        assert_eq!(lines.next().unwrap().len(), (1 << 20) + 1);
        assert_eq!(lines.next(), None);
        lines.push(b"b\n").unwrap();
        assert_eq!(lines.next().unwrap(), b"bb");
        assert_eq!(lines.next(), None);
        assert!(lines.buffer.capacity() <= KEPT, "{}", lines.buffer.capacity());
    }

    #[test]
    fn changes_are_read_as_a_frame() {
        let id = insula_core::TenantId::new();
        let written = changes(3, &Changes { revision: 5, changes: vec![Change::Tenant(id, None)] }).unwrap();
        let mut events = Events::default();
        events.push(&written).unwrap();
        let frame: Frame = events.next().unwrap().unwrap().read().unwrap();
        assert_eq!(frame, Frame { since: 3, revision: 5, changes: vec![Change::Tenant(id, None)] });
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut lines = Lines::default();
        let mib = vec![b'a'; 1 << 20];
        let refused = (0..100).map(|_| lines.push(&mib)).find(Result::is_err);
        assert!(matches!(refused, Some(Err(Error::Answer(_)))));
    }
}
