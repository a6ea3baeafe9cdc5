//! Keyset pages: a cursor is the sort key of the last row, opaque to whoever holds it.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::error::Error;
use crate::model::{Page, PageRequest};

/// Most rows of one page.
const MOST: u32 = 500;

/// A position in a list that is sorted by time and id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeKey {
    pub(crate) at: DateTime<Utc>,
    pub(crate) id: Uuid,
}

impl TimeKey {
    fn encode(self) -> String {
        format!("{}.{}", self.at.timestamp_micros(), self.id.simple())
    }

    fn decode(text: &str) -> Option<Self> {
        let (at, id) = text.split_once('.')?;
        let at = DateTime::from_timestamp_micros(at.parse().ok()?)?;
        Some(Self { at, id: Uuid::parse_str(id).ok()? })
    }
}

fn bad_cursor() -> Error {
    Error::invalid("cursor", "pass `next` of the page before, unchanged")
}

impl PageRequest {
    /// Rows to ask for: one more than the page holds, to know whether there is another.
    pub(crate) fn rows(&self) -> i64 {
        i64::from(self.limit.clamp(1, MOST)) + 1
    }

    pub(crate) fn time_key(&self) -> Result<Option<TimeKey>, Error> {
        self.after.as_deref().map(|text| TimeKey::decode(text).ok_or_else(bad_cursor)).transpose()
    }

    pub(crate) fn name_key(&self) -> Result<String, Error> {
        match &self.after {
            Some(text) if text.contains('\0') => Err(bad_cursor()),
            Some(text) => Ok(text.clone()),
            None => Ok(String::new()),
        }
    }

    pub(crate) fn number_key(&self) -> Result<Option<i64>, Error> {
        self.after.as_deref().map(|text| text.parse().map_err(|_| bad_cursor())).transpose()
    }

    pub(crate) fn id_key(&self) -> Result<Option<Uuid>, Error> {
        self.after.as_deref().map(|text| Uuid::parse_str(text).map_err(|_| bad_cursor())).transpose()
    }

    /// Cuts what came to the page, and names the next by `key` of its last row.
    pub(crate) fn page<T>(&self, mut items: Vec<T>, key: impl Fn(&T) -> String) -> Page<T> {
        let most = usize::try_from(self.rows() - 1).unwrap_or(usize::MAX);
        let more = items.len() > most;
        items.truncate(most);
        let next = if more { items.last().map(key) } else { None };
        Page { items, next }
    }
}

/// The cursor of a row that is sorted by time and id.
pub(crate) fn time_cursor(at: DateTime<Utc>, id: Uuid) -> String {
    TimeKey { at, id }.encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_come_back_and_nonsense_is_refused() {
        let key = TimeKey { at: DateTime::from_timestamp_micros(1_700_000_000_123_456).expect("time"), id: Uuid::now_v7() };
        assert_eq!(TimeKey::decode(&key.encode()), Some(key));
        for bad in ["", ".", "x.y", "1.", "9999999999999999999.00000000000000000000000000000000", "1\0.2"] {
            assert_eq!(TimeKey::decode(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_page_says_whether_there_is_another() {
        let request = PageRequest { after: None, limit: 2 };
        let page = request.page(vec![1, 2, 3], ToString::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], Some("2".into())));
        assert_eq!(request.page(vec![1, 2], ToString::to_string).next, None);
    }
}
