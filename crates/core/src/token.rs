//! The tenant context on the wire: a signed token that says whose request it is, for one audience and less than a minute.
//!
//! A JWT (RFC 7519) signed with Ed25519 (RFC 8037), with a key id, so that an application in any language verifies it with a plain JWT
//! library and the JWKS (RFC 7517) that the control plane publishes. It travels in [`HEADER`]. Not for: people's own tokens (those
//! come from their issuers, and `insula-http` judges them). Always: one algorithm; a header with exactly three members; nothing is
//! read out of a token before its signature holds; a claim that stands twice is refused.

mod key;
mod strict;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Kind;
use crate::id::{TenantId, TenantNo};
use crate::principal::Via;
use crate::slug::{CellName, PlanName, Slug};

pub use key::{ContextKey, ContextKeys, KeySet};
pub use strict::{Compact, unique};

/// The header that carries a context token.
pub const HEADER: &str = "insula-tenant-context";

/// `typ`: says what the token is, so that no other kind of token passes for one (RFC 8725, section 3.11).
pub const TYPE: &str = "insula-context+jwt";

/// `iss` of what gateways sign.
pub const GATEWAY: &str = "insula-gateway";

/// How long a signer hands the same token out, seconds.
pub const FRESH_SECONDS: i64 = 30;

/// How long a token is good, seconds from its signing: a fresh one has at least fifteen left for the way and for a clock that is fast.
pub const LIFE_SECONDS: i64 = 45;

/// How far two clocks may differ, seconds.
pub const SKEW_SECONDS: i64 = 5;

/// No token is longer, bytes. A header of that size passes every proxy.
pub const LONGEST: usize = 4096;

/// The audience of the applications of a cell, and their issuer when they speak to each other.
#[must_use]
pub fn audience(cell: &CellName) -> String {
    format!("insula-app:{cell}")
}

/// What a context token says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who signed: [`GATEWAY`], or the application of a cell.
    pub iss: Arc<str>,
    /// For whom alone it is.
    pub aud: Arc<str>,
    /// When it was signed, Unix seconds.
    pub iat: i64,
    /// From when it is worthless, Unix seconds.
    pub exp: i64,
    /// The tenant.
    pub tid: TenantId,
    /// Its number in rows.
    pub tno: TenantNo,
    /// Its DNS label.
    pub slug: Slug,
    /// What it bought.
    pub plan: PlanName,
    /// The epoch of its placement.
    pub epoch: i64,
    /// The cell where it lives.
    pub cell: CellName,
    /// Who acts, when the edge has verified it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<Arc<str>>,
    /// The issuer that knows `sub` by that name, when it was a token: two issuers of one tenant may use one name for two people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idp: Option<Arc<str>>,
    /// How that was proven. [`Via::Session`] without [`Claims::sub`]: a credential came along that is the application's to judge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<Via>,
    /// What `sub` may do, with spaces between (RFC 8693, section 4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Arc<str>>,
}

/// Why a context token is not believed. None of these quotes the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than [`LONGEST`].
    #[error("the token is longer than {LONGEST} bytes")]
    Oversized,
    /// Not a token of this kind.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// Another algorithm than Ed25519, or none.
    #[error("the token is not signed with EdDSA")]
    Algorithm,
    /// Signed by a key that is not among the published ones.
    #[error("the token names a key that is not known")]
    UnknownKey,
    /// Not signed by that key.
    #[error("the token's signature is wrong")]
    Signature,
    /// Too old.
    #[error("the token has expired")]
    Expired,
    /// From the future, or good for longer than any token is.
    #[error("the token's times are wrong")]
    Times,
    /// For somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// From somebody else.
    #[error("the token is of another issuer")]
    Issuer,
}

impl TokenError {
    /// Always [`Kind::Unauthenticated`]: who came is not proven.
    #[must_use]
    pub const fn kind(self) -> Kind {
        Kind::Unauthenticated
    }

    /// Whether it can happen to the honest: an old token, or a key that was published a moment ago. Everything else was tried.
    #[must_use]
    pub const fn is_innocent(self) -> bool {
        matches!(self, Self::Expired | Self::UnknownKey)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header<'a> {
    alg: &'a str,
    kid: &'a str,
    typ: &'a str,
}

/// Signs.
#[must_use]
pub fn sign(key: &ContextKey, claims: &Claims) -> String {
    let header = Header { alg: "EdDSA", kid: key.kid(), typ: TYPE };
    // Structs of texts and numbers always serialise.
    let (header, claims) = (serde_json::to_vec(&header).unwrap_or_default(), serde_json::to_vec(claims).unwrap_or_default());
    strict::join(&header, &claims, |signed| key.sign(signed))
}

/// Verifies: signature by one of `keys`, then audience, issuer and times at `now`.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(token: &str, keys: &KeySet, issuer: &str, audience: &str, now: i64) -> Result<Claims, TokenError> {
    if token.len() > LONGEST {
        return Err(TokenError::Oversized);
    }
    let parts = Compact::split(token).ok_or(TokenError::Malformed("not three parts of base64url"))?;
    let header = unique(&parts.header).map_err(TokenError::Malformed)?;
    if header.get("alg").is_none_or(|alg| alg != "EdDSA") {
        return Err(TokenError::Algorithm);
    }
    let header: Header<'_> =
        serde_json::from_slice(&parts.header).map_err(|_| TokenError::Malformed("the header is not ours"))?;
    if header.typ != TYPE {
        return Err(TokenError::Malformed("another type of token"));
    }
    keys.verify(header.kid, parts.signed.as_bytes(), &parts.signature)?;
    let claims = unique(&parts.claims).map_err(TokenError::Malformed)?;
    let claims = Claims::deserialize(serde_json::Value::Object(claims)).map_err(|_| TokenError::Malformed("the claims"))?;
    judge(claims, issuer, audience, now)
}

/// The issuer and audience that a token names, before anything of it is proven: to find the keys that must prove it.
#[must_use]
pub fn claimed(token: &str) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Claimed {
        iss: String,
        aud: String,
    }
    let parts = (token.len() <= LONGEST).then(|| Compact::split(token))??;
    serde_json::from_slice::<Claimed>(&parts.claims).ok().map(|claims| (claims.iss, claims.aud))
}

fn judge(claims: Claims, issuer: &str, audience: &str, now: i64) -> Result<Claims, TokenError> {
    if *claims.iss != *issuer {
        return Err(TokenError::Issuer);
    }
    if *claims.aud != *audience {
        return Err(TokenError::Audience);
    }
    if TenantNo::new(claims.tno.get()).is_none() || claims.epoch <= 0 {
        return Err(TokenError::Malformed("no tenant has that number or epoch"));
    }
    let life = claims.exp.checked_sub(claims.iat).ok_or(TokenError::Times)?;
    if claims.iat > now.saturating_add(SKEW_SECONDS) || !(0..=LIFE_SECONDS).contains(&life) {
        return Err(TokenError::Times);
    }
    if now >= claims.exp.saturating_add(SKEW_SECONDS) {
        return Err(TokenError::Expired);
    }
    Ok(claims)
}

#[cfg(test)]
mod tests;
