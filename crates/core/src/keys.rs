//! The key tree. One root key on the host side; everything else is derived from it by HMAC-SHA256 (RFC 2104), so that the
//! catalog holds no secret and a data plane is given the keys of its own cells and of no other.
//!
//! root -> cell -> (role passwords, grant keys per database and key id, opaque names)

mod link;
mod seal;

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::hmac;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::grant::GrantKey;
use crate::id::TenantId;
use crate::slug::CellName;
use crate::token::ContextKey;

pub use link::LinkKey;
pub use seal::{CertificateKey, WebhookKey};

/// 32 bytes that print as `***` and are wiped on drop.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Fresh bytes from the system's generator.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        Ok(Self(bytes))
    }

    /// From 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        decode_hex(text, &mut bytes).ok_or(KeyError::NotHex)?;
        Ok(Self(bytes))
    }

    /// As 64 hexadecimal digits: for key files only.
    #[must_use]
    pub fn to_hex(&self) -> String {
        encode_hex(&self.0)
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(&self, label: &[&str]) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        for part in label {
            // Length first, so that ("ab", "c") and ("a", "bc") differ.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        Self(bytes)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a key could not be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The system's generator failed.
    #[error("the system has no randomness to give")]
    NoRandomness,
    /// A key file holds something else than 64 hexadecimal digits.
    #[error("a key is 64 hexadecimal digits; this is something else")]
    NotHex,
    /// What is sealed was sealed by another key or for another name, or was changed.
    #[error("it was sealed by another key or for another name, or was changed since")]
    Sealed,
    /// The key ring has no key for a cell.
    #[error("no key for cell {0}: this process was not given that cell")]
    NoCell(CellName),
}

/// The host side's own key: whoever has it has everything.
#[derive(Clone, Debug)]
pub struct RootKey(Secret);

impl RootKey {
    /// Wraps the secret.
    #[must_use]
    pub const fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// The key of one cell.
    #[must_use]
    pub fn cell(&self, cell: &CellName) -> CellKey {
        CellKey(self.0.derive(&["insula/cell/v1", cell.as_str()]))
    }

    /// A password for a role of the catalog database.
    #[must_use]
    pub fn catalog_password(&self, role: &str) -> String {
        self.0.derive(&["insula/catalog-role/v1", role]).to_hex()
    }
}

impl RootKey {
    /// The key that gateways sign tenant contexts with, by number (rotation counts it up).
    ///
    /// # Errors
    /// As [`ContextKey::new`].
    pub fn context_key(&self, no: i32) -> Result<ContextKey, KeyError> {
        ContextKey::new(self.0.derive(&["insula/context/v1", &no.to_string()]))
    }
}

/// What a data plane needs to serve one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CellKey(Secret);

impl CellKey {
    /// Wraps the secret.
    #[must_use]
    pub const fn new(secret: Secret) -> Self {
        Self(secret)
    }

    /// As 64 hexadecimal digits: for key files only.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.to_hex()
    }

    /// The password of a login role in this cell's server.
    #[must_use]
    pub fn role_password(&self, role: &str) -> String {
        self.0.derive(&["insula/role/v1", role]).to_hex()
    }

    /// The key that signs grants for one database of this cell, by key id (rotation counts it up).
    #[must_use]
    pub fn grant_key(&self, database: &str, kid: i32) -> GrantKey {
        GrantKey::new(kid, self.0.derive(&["insula/grant/v1", database, &kid.to_string()]))
    }

    /// The key that the applications of this cell sign tenant contexts with when they call each other. It proves the cell, so it
    /// is good for tenants of this cell alone.
    ///
    /// # Errors
    /// As [`ContextKey::new`].
    pub fn context_key(&self) -> Result<ContextKey, KeyError> {
        ContextKey::new(self.0.derive(&["insula/cell-context/v1"]))
    }

    /// Sixteen hexadecimal digits that say nothing about the tenant: the tail of its database, schema and role names.
    #[must_use]
    pub fn opaque_name(&self, tenant: TenantId) -> String {
        self.0.derive(&["insula/name/v1", &tenant.to_string()]).to_hex()[..16].to_owned()
    }
}

/// The cell keys that a process was given.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    cells: BTreeMap<CellName, CellKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRingFile {
    cells: BTreeMap<CellName, String>,
}

impl KeyRing {
    /// A ring of these keys.
    #[must_use]
    pub fn new(cells: impl IntoIterator<Item = (CellName, CellKey)>) -> Self {
        Self { cells: cells.into_iter().collect() }
    }

    /// The key of a cell.
    ///
    /// # Errors
    /// [`KeyError::NoCell`] when this process does not serve it.
    pub fn cell(&self, cell: &CellName) -> Result<&CellKey, KeyError> {
        self.cells.get(cell).ok_or_else(|| KeyError::NoCell(cell.clone()))
    }

    /// The cells there are keys for.
    pub fn cells(&self) -> impl Iterator<Item = &CellName> {
        self.cells.keys()
    }

    /// Reads the JSON of a key file: `{"cells": {"main": "<64 hex digits>"}}`.
    ///
    /// # Errors
    /// A message that names the fault and never the key.
    pub fn from_json(text: &str) -> Result<Self, KeyError> {
        let file: KeyRingFile = serde_json::from_str(text).map_err(|_| KeyError::NotHex)?;
        file.cells
            .into_iter()
            .map(|(cell, hex)| Ok((cell, CellKey(Secret::from_hex(&hex)?))))
            .collect::<Result<BTreeMap<_, _>, _>>()
            .map(|cells| Self { cells })
    }

    /// The JSON of a key file; it holds secrets: write it with mode 0600.
    #[must_use]
    pub fn to_json(&self) -> String {
        let cells = self.cells.iter().map(|(cell, key)| (cell.clone(), key.to_hex())).collect();
        serde_json::to_string(&KeyRingFile { cells }).unwrap_or_default()
    }
}

pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|b| [DIGITS[usize::from(b >> 4)] as char, DIGITS[usize::from(b & 15)] as char]).collect()
}

pub(crate) fn decode_hex(text: &str, out: &mut [u8]) -> Option<()> {
    let text = text.as_bytes();
    if text.len() != out.len() * 2 {
        return None;
    }
    for (pair, byte) in text.chunks_exact(2).zip(out) {
        let digit = |c: u8| (c as char).to_digit(16).and_then(|d| u8::try_from(d).ok());
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}
