//! What a database keeps and must not show, sealed: the private keys of certificates, which the catalog hands on and only a gateway that was
//! given the key opens; and the secrets of tenants' webhooks, which their cell's applications open.
//!
//! AES-256-GCM (NIST SP 800-38D) under a random nonce, which stands before the text. Always: what is sealed for one name does not open for
//! another.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

use super::{CellKey, KeyError, RootKey, Secret};

/// What the private keys of certificates are sealed with.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateKey(Secret);

/// What the secrets of tenants' webhooks in a cell are sealed with.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookKey(Secret);

impl CellKey {
    /// The key that seals the secrets of webhooks.
    #[must_use]
    pub fn webhook_key(&self) -> WebhookKey {
        WebhookKey(self.0.derive(&["insula/webhook/v1"]))
    }
}

impl WebhookKey {
    /// Seals what belongs to `name`.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn seal(&self, name: &str, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        seal(&self.0, name, text)
    }

    /// Opens what was sealed for `name`.
    ///
    /// # Errors
    /// [`KeyError::Sealed`] when it was sealed by another key, for another name, or changed since.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        open(&self.0, name, sealed)
    }
}

impl fmt::Debug for WebhookKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookKey(***)")
    }
}

impl RootKey {
    /// The key that seals the private keys of certificates.
    #[must_use]
    pub fn certificate_key(&self) -> CertificateKey {
        CertificateKey(self.0.derive(&["insula/certificate/v1"]))
    }
}

impl CertificateKey {
    /// From 64 hexadecimal digits.
    ///
    /// # Errors
    /// When the text is anything else.
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        Secret::from_hex(text).map(Self)
    }

    /// As 64 hexadecimal digits: for key files only.
    #[must_use]
    pub fn to_hex(&self) -> String {
        self.0.to_hex()
    }

    /// Seals what belongs to `name`.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn seal(&self, name: &str, text: &[u8]) -> Result<Vec<u8>, KeyError> {
        seal(&self.0, name, text)
    }

    /// Opens what was sealed for `name`.
    ///
    /// # Errors
    /// [`KeyError::Sealed`] when it was sealed by another key, for another name, or changed since.
    pub fn open(&self, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
        open(&self.0, name, sealed)
    }
}

fn seal(key: &Secret, name: &str, text: &[u8]) -> Result<Vec<u8>, KeyError> {
    let mut sealed = text.to_vec();
    let nonce = cipher(key)?.seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut sealed);
    let nonce = nonce.map_err(|_| KeyError::NoRandomness)?;
    Ok([nonce.as_ref().as_slice(), &sealed].concat())
}

fn open(key: &Secret, name: &str, sealed: &[u8]) -> Result<Vec<u8>, KeyError> {
    let (nonce, text) = sealed.split_at_checked(NONCE_LEN).ok_or(KeyError::Sealed)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeyError::Sealed)?;
    let mut text = text.to_vec();
    let opened = cipher(key)?.open_in_place(nonce, Aad::from(name.as_bytes()), &mut text);
    opened.map(|text| text.to_vec()).map_err(|_| KeyError::Sealed)
}

fn cipher(key: &Secret) -> Result<RandomizedNonceKey, KeyError> {
    RandomizedNonceKey::new(&AES_256_GCM, key.bytes()).map_err(|_| KeyError::Sealed)
}

impl fmt::Debug for CertificateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertificateKey(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_for_its_name_and_its_key_alone() {
        let key = |digit: &str| RootKey::new(Secret::from_hex(&digit.repeat(64)).expect("hex")).certificate_key();
        let (ours, other) = (key("a"), key("b"));
        let sealed = ours.seal("acme.example", b"the key").expect("sealed");
        assert_eq!(ours.open("acme.example", &sealed).expect("opened"), b"the key");
        assert_ne!(sealed, ours.seal("acme.example", b"the key").expect("sealed"), "each has a nonce of its own");
        assert_eq!(ours.open("evil.example", &sealed), Err(KeyError::Sealed));
        assert_eq!(other.open("acme.example", &sealed), Err(KeyError::Sealed));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(ours.open("acme.example", &changed), Err(KeyError::Sealed), "byte {at}");
        }
        assert_eq!(ours.open("acme.example", b"short"), Err(KeyError::Sealed));
        assert_eq!(CertificateKey::from_hex(&ours.to_hex()).expect("hex"), ours);
        assert!(!format!("{ours:?}").contains(&ours.to_hex()));
    }

    #[test]
    fn a_webhook_s_secret_opens_in_its_cell_alone() {
        let root = RootKey::new(Secret::from_hex(&"a".repeat(64)).expect("hex"));
        let key = |cell: &str| root.cell(&cell.parse().expect("a name")).webhook_key();
        let sealed = key("main").seal("t 1", b"secret").expect("sealed");
        assert_eq!(key("main").open("t 1", &sealed).expect("opened"), b"secret");
        assert_eq!(key("main").open("t 2", &sealed), Err(KeyError::Sealed));
        assert_eq!(key("second").open("t 1", &sealed), Err(KeyError::Sealed));
    }
}
