//! The keys with which this machine's gateway signs tenant contexts, and the public ones with which its applications start.
//!
//! Always: the gateway's file has the keys that the catalog lists and no other; a rotation (`insula key rotate context`) is in it a few
//! seconds later, long before the new key signs.

use std::path::PathBuf;

use insula_core::Kind;
use insula_core::token::ContextKeys;

use crate::error::Error;
use crate::up::catalog::HostCatalog;
use crate::up::folder::{file_error, read_if_there, write_secret};
use crate::up::house::House;

/// The gateway's file of signing keys.
pub(crate) fn signing_file(house: &House) -> PathBuf {
    house.folder.run("context.keys.json")
}

/// An application's file of public keys; it keeps there what it fetches from the control plane.
pub(crate) fn public_file(house: &House, cell: &str) -> PathBuf {
    house.folder.run(&format!("app-{cell}.jwks.json"))
}

/// Brings the gateway's file up to date.
pub(crate) async fn write(house: &House, catalog: &HostCatalog) -> Result<(), Error> {
    let text = keys(house, catalog).await?.to_json();
    let path = signing_file(house);
    if read_if_there(&path)?.as_deref() == Some(text.as_str()) { Ok(()) } else { write_secret(&path, &text) }
}

/// Writes the public keys with which an application starts, before there is a control plane to ask.
pub(crate) fn write_public(house: &House, cell: &str) -> Result<PathBuf, Error> {
    let path = public_file(house, cell);
    let text = read_if_there(&signing_file(house))?.unwrap_or_default();
    let keys = ContextKeys::from_json(&text).map_err(|e| Error::new(Kind::Internal, format!("the signing keys: {e}"), ""))?;
    std::fs::write(&path, keys.public().to_jwks()).map_err(|e| file_error("write", &path, &e))?;
    Ok(path)
}

async fn keys(house: &House, catalog: &HostCatalog) -> Result<ContextKeys, Error> {
    let mut listed = catalog.context_keys().await?;
    if listed.is_empty() {
        // The control plane makes the first one when it starts.
        listed.push((1, 0));
    }
    let key = |(no, from): (i32, i64)| Ok::<_, insula_core::keys::KeyError>((from, house.root_key.context_key(no)?));
    let keys = listed.into_iter().map(key).collect::<Result<Vec<_>, _>>();
    let keys = keys.map_err(|e| Error::new(Kind::Internal, e.to_string(), ""))?;
    ContextKeys::new(keys).ok_or_else(|| Error::new(Kind::Internal, "there is no signing key", ""))
}
