//! Settings as text.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use super::ConfigError;

/// The variables that are set.
#[derive(Clone, Copy)]
pub(super) struct Vars<'a>(pub(super) &'a BTreeMap<String, String>);

impl<'a> Vars<'a> {
    pub(super) fn get(self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn need(self, name: &'static str, what: &'static str) -> Result<&'a str, ConfigError> {
        self.get(name).ok_or(ConfigError::Missing { name, what })
    }

    /// A list with commas between.
    pub(super) fn list(self, name: &str) -> impl Iterator<Item = &'a str> {
        self.get(name).unwrap_or_default().split(',').map(str::trim).filter(|item| !item.is_empty())
    }

    /// # Errors
    /// When one of `names` is set: it would have no effect, and whoever set it thinks otherwise.
    pub(super) fn refuse(self, names: &'static [&'static str], when: &str) -> Result<(), ConfigError> {
        match names.iter().find(|name| self.get(name).is_some()) {
            Some(name) => Err(wrong(name, format!("it has no meaning with INSULA_TENANCY={when}: take it away"))),
            None => Ok(()),
        }
    }
}

pub(super) fn address(name: &'static str, text: &str) -> Result<SocketAddr, ConfigError> {
    text.parse().map_err(|_| wrong(name, format!("{text:?} is not an address and port like 127.0.0.1:8080")))
}

pub(super) fn wrong(name: &'static str, reason: impl fmt::Display) -> ConfigError {
    ConfigError::Wrong { name, reason: reason.to_string() }
}

/// The known name at the smallest edit distance, if that is small enough to be a typing error.
pub(super) fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    known.map(|known| (distance(name, known), known)).min().filter(|(d, _)| *d <= 3).map(|(_, known)| known)
}

fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
