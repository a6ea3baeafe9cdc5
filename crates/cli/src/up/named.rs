//! Postgres servers that the user names, instead of private ones.

use std::collections::BTreeMap;
use std::path::PathBuf;

use insula_core::{CellName, Kind};

use crate::error::Error;
use crate::up::catalog::{CellPlace, parse};
use crate::up::folder::{DataFolder, write_secret};
use crate::up::house::{House, MAIN};

/// A cell on a server that somebody else runs.
#[derive(Clone)]
pub(crate) struct NamedCell {
    pub(crate) place: CellPlace,
    /// Superuser's URL: a secret.
    pub(crate) url: String,
    pub(crate) password: String,
}

impl std::fmt::Debug for NamedCell {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NamedCell({:?}, ***)", self.place)
    }
}

/// Reads `NAME=URL` arguments. With a catalog's URL and no cell, the catalog's server is the cell `main` too.
pub(crate) fn read(catalog_url: Option<&str>, cells: &[String]) -> Result<Vec<NamedCell>, Error> {
    let mut named = Vec::new();
    for text in cells {
        let (name, url) = text.split_once('=').ok_or_else(|| {
            Error::new(
                Kind::Invalid,
                "--cell wants NAME=URL",
                "for example --cell main=postgres://postgres:PASSWORD@db.example:5432",
            )
        })?;
        named.push(cell(name, url)?);
    }
    if named.is_empty() {
        named.extend(catalog_url.map(|url| cell(MAIN, url)).transpose()?);
    }
    let has_main = named.iter().any(|c| c.place.name.as_str() == MAIN);
    if !named.is_empty() && catalog_url.is_some() && !has_main {
        return Err(Error::new(Kind::Invalid, "none of the cells is called main", "call one of them main: --cell main=URL"));
    }
    Ok(named)
}

fn cell(name: &str, text: &str) -> Result<NamedCell, Error> {
    let name: CellName = name.parse().map_err(|e: insula_core::slug::NameError| Error::new(Kind::Invalid, e.to_string(), ""))?;
    let url = parse(text)?;
    let mode = url.query_pairs().find(|(k, _)| k == "sslmode").map(|(_, v)| v.into_owned());
    let place = CellPlace {
        name,
        provider: "registered",
        host: url.host_str().unwrap_or_default().to_owned(),
        port: url.port().unwrap_or(5432),
        tls: mode.unwrap_or_else(|| "prefer".into()),
        admin_role: if url.username().is_empty() { "postgres".into() } else { url.username().to_owned() },
        app_url: None,
    };
    Ok(NamedCell { place, url: text.to_owned(), password: url.password().unwrap_or_default().to_owned() })
}

/// The superusers' URLs of all servers that somebody else runs: named now, in an earlier run, or registered through the API.
pub(crate) fn all_logins(
    folder: &DataFolder,
    catalog_url: Option<&str>,
    cells: &[String],
) -> Result<BTreeMap<CellName, String>, Error> {
    let there = crate::up::folder::read_if_there(&logins_file(folder))?;
    let file: BTreeMap<String, BTreeMap<String, String>> =
        there.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let before = file.get("cells").into_iter().flatten().filter_map(|(name, url)| Some((name.parse().ok()?, url.clone())));
    let now = read(catalog_url, cells)?;
    Ok(before.chain(now.into_iter().map(|cell| (cell.place.name, cell.url))).collect())
}

fn logins_file(folder: &DataFolder) -> PathBuf {
    folder.root().join("cell-logins.json")
}

/// Writes the superusers' URLs where the control plane looks for them.
pub(crate) fn write_logins(house: &House, cells: &[NamedCell]) -> Result<PathBuf, Error> {
    let path = logins_file(&house.folder);
    // Cells that were registered through the API are in the same file: they stay.
    let there = crate::up::folder::read_if_there(&path)?;
    let mut file: BTreeMap<String, BTreeMap<String, String>> =
        there.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let logins = file.entry("cells".into()).or_default();
    logins.extend(cells.iter().map(|c| (c.place.name.to_string(), c.url.clone())));
    write_secret(&path, &serde_json::to_string_pretty(&file).unwrap_or_default())?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_places_and_stay_secret() {
        let cells = read(None, &["eu=postgres://boss:hunter2@db.example:6432?sslmode=require".into()]).expect("read");
        let place = &cells[0].place;
        assert_eq!(
            (place.host.as_str(), place.port, place.tls.as_str(), place.admin_role.as_str()),
            ("db.example", 6432, "require", "boss")
        );
        assert!(!format!("{cells:?}").contains("hunter2"));
        let error = read(None, &["eu=hunter2".into()]).expect_err("refused").to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert_eq!(read(Some("postgres://x@h"), &[]).expect("read")[0].place.name.as_str(), "main");
    }
}
