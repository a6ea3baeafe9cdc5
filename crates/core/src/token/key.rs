//! The keys of context tokens: those that sign, and the public ones as a JWKS (RFC 7517, RFC 8037).

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::TokenError;
use crate::keys::{KeyError, Secret};

/// A key that signs.
pub struct ContextKey {
    kid: Arc<str>,
    seed: Secret,
    public: [u8; 32],
    pair: Ed25519KeyPair,
}

impl ContextKey {
    /// The key of a seed (RFC 8032, section 5.1.5).
    ///
    /// # Errors
    /// Never for 32 bytes; the library's signature says otherwise.
    pub fn new(seed: Secret) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.bytes()).map_err(|_| KeyError::NotHex)?;
        let public = <[u8; 32]>::try_from(pair.public_key().as_ref()).map_err(|_| KeyError::NotHex)?;
        Ok(Self { kid: thumbprint(&public).into(), seed, public, pair })
    }

    /// Its id: the RFC 7638 thumbprint of its public half.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// Its public half.
    #[must_use]
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    pub(super) fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).as_ref().to_vec()
    }
}

impl fmt::Debug for ContextKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContextKey({}, ***)", self.kid)
    }
}

/// The signing keys that a gateway was given: the present one, and during a rotation the next.
#[derive(Clone, Debug)]
pub struct ContextKeys {
    /// By the moment from which each signs, the latest first; the earliest stands apart.
    later: Vec<(i64, Arc<ContextKey>)>,
    earliest: (i64, Arc<ContextKey>),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    keys: Vec<KeyInFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyInFile {
    seed: String,
    signs_from: i64,
}

impl ContextKeys {
    /// Keys and the Unix seconds from which each signs; `None` when there are none.
    #[must_use]
    pub fn new(keys: impl IntoIterator<Item = (i64, ContextKey)>) -> Option<Self> {
        let mut keys: Vec<_> = keys.into_iter().map(|(from, key)| (from, Arc::new(key))).collect();
        keys.sort_by_key(|(from, _)| std::cmp::Reverse(*from));
        let earliest = keys.pop()?;
        Some(Self { later: keys, earliest })
    }

    /// The key that signs at `now`. Before the first moment it is the earliest: somebody's clock is wrong, and it was published first.
    #[must_use]
    pub fn at(&self, now: i64) -> &Arc<ContextKey> {
        self.later.iter().find(|(from, _)| *from <= now).map_or(&self.earliest.1, |(_, key)| key)
    }

    fn iter(&self) -> impl Iterator<Item = &(i64, Arc<ContextKey>)> {
        self.later.iter().chain([&self.earliest])
    }

    /// Their public halves.
    #[must_use]
    pub fn public(&self) -> KeySet {
        KeySet::new(self.iter().map(|(_, key)| *key.public()))
    }

    /// Reads the JSON of a key file: `{"keys": [{"seed": "<64 hex digits>", "signs_from": 0}]}`.
    ///
    /// # Errors
    /// A message that names the fault and never the key.
    pub fn from_json(text: &str) -> Result<Self, KeyError> {
        let file: KeysFile = serde_json::from_str(text).map_err(|_| KeyError::NotHex)?;
        let key = |key: KeyInFile| Ok((key.signs_from, ContextKey::new(Secret::from_hex(&key.seed)?)?));
        let keys = file.keys.into_iter().map(key).collect::<Result<Vec<_>, KeyError>>()?;
        Self::new(keys).ok_or(KeyError::NotHex)
    }

    /// The JSON of a key file; it holds secrets: write it with mode 0600.
    #[must_use]
    pub fn to_json(&self) -> String {
        let keys = self.iter().map(|(from, key)| KeyInFile { seed: key.seed.to_hex(), signs_from: *from }).collect();
        serde_json::to_string(&KeysFile { keys }).unwrap_or_default()
    }
}

/// Public keys, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySet {
    keys: Vec<(Arc<str>, [u8; 32])>,
}

#[derive(Serialize, Deserialize)]
struct Jwks {
    keys: Vec<Jwk>,
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crv: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alg: Option<String>,
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    purpose: Option<String>,
}

impl KeySet {
    /// These keys.
    #[must_use]
    pub fn new(public: impl IntoIterator<Item = [u8; 32]>) -> Self {
        Self { keys: public.into_iter().map(|key| (thumbprint(&key).into(), key)).collect() }
    }

    /// Reads a JWKS; keys of other kinds in it are somebody else's.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_jwks(text: &str) -> Result<Self, &'static str> {
        let set: Jwks = serde_json::from_str(text).map_err(|_| "this is not a JWKS: {\"keys\": [...]}")?;
        let ours = |key: &Jwk| {
            key.kty == "OKP"
                && key.crv.as_deref() == Some("Ed25519")
                && key.alg.as_deref().is_none_or(|alg| alg == "EdDSA")
                && key.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        };
        let read = |key: Jwk| {
            let bytes = URL_SAFE_NO_PAD.decode(key.x?).ok()?.try_into().ok()?;
            Some((key.kid?.into(), bytes))
        };
        let keys = set.keys.into_iter().filter(ours).map(read).collect::<Option<Vec<_>>>();
        Ok(Self { keys: keys.ok_or("an Ed25519 key in it has no kid or no x of 32 bytes")? })
    }

    /// As a JWKS.
    #[must_use]
    pub fn to_jwks(&self) -> String {
        let keys = self.keys.iter().map(|(kid, public)| Jwk {
            kty: "OKP".into(),
            crv: Some("Ed25519".into()),
            x: Some(URL_SAFE_NO_PAD.encode(public)),
            kid: Some(kid.to_string()),
            alg: Some("EdDSA".into()),
            purpose: Some("sig".into()),
        });
        serde_json::to_string(&Jwks { keys: keys.collect() }).unwrap_or_default()
    }

    /// Whether there is no key in it.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a key is in it.
    #[must_use]
    pub fn has(&self, kid: &str) -> bool {
        self.keys.iter().any(|(known, _)| **known == *kid)
    }

    pub(super) fn verify(&self, kid: &str, signed: &[u8], signature: &[u8]) -> Result<(), TokenError> {
        let (_, key) = self.keys.iter().find(|(known, _)| **known == *kid).ok_or(TokenError::UnknownKey)?;
        UnparsedPublicKey::new(&ED25519, key).verify(signed, signature).map_err(|_| TokenError::Signature)
    }
}

/// RFC 7638: SHA-256 of the members that make the key, in order of their names.
fn thumbprint(public: &[u8; 32]) -> String {
    let x = URL_SAFE_NO_PAD.encode(public);
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(digest(&SHA256, members.as_bytes()))
}
