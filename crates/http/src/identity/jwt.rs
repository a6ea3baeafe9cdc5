//! People's tokens: JWTs of their identity providers, judged by their providers' keys (RFC 7515, 7517, 7518, 7519; best practice 8725).
//!
//! Not for: where the keys come from. Always: asymmetric algorithms only, and each key under its own algorithm, so that no public key
//! is ever taken for a shared secret; keys come from the provider alone, never from what the token carries or points at (`jwk`, `jku`,
//! `x5c`, `x5u`); an extension that the token calls critical is one that we do not have.

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519, RsaParameters, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use insula_core::token::{Compact, unique};
use serde_json::{Map, Value};

/// No token is longer, bytes.
pub(super) const LONGEST: usize = 8 * 1024;
/// How far an issuer's clock may differ, seconds.
const SKEW: i64 = 30;
/// Audiences of one token that are looked at.
const MOST_AUDIENCES: usize = 8;

/// The algorithms that providers sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "EdDSA" | "Ed25519" => Self::EdDsa,
            _ => return None,
        })
    }

    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// A token taken apart: nothing in it is proven.
#[derive(Debug)]
pub(super) struct Unproven<'a> {
    parts: Compact<'a>,
    header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
}

impl<'a> Unproven<'a> {
    /// Takes apart what has the shape of a JWT; `None` for everything else, which is no business of ours.
    pub(super) fn read(text: &'a str) -> Option<Result<Self, &'static str>> {
        let parts = Compact::split(text).or_else(|| unsigned(text))?;
        let read = |parts: Compact<'a>| {
            let (header, claims) = (unique(&parts.header)?, unique(&parts.claims)?);
            Ok(Self { parts, header, claims })
        };
        // An opaque token may have dots, too.
        parts.header.starts_with(b"{").then(|| read(parts))
    }

    pub(super) fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    pub(super) fn audiences(&self) -> impl Iterator<Item = &str> {
        texts(self.claims.get("aud")).take(MOST_AUDIENCES)
    }

    pub(super) fn kid(&self) -> Option<&str> {
        self.header.get("kid")?.as_str()
    }

    /// The algorithm, when the header is one that we take.
    pub(super) fn algorithm(&self) -> Result<Algorithm, &'static str> {
        let text = |name| self.header.get(name).map(|value| value.as_str().unwrap_or("?"));
        if self.header.contains_key("crit") {
            return Err("the token has critical extensions, which are not supported");
        }
        if self.header.get("kid").is_some_and(|kid| kid.as_str().is_none_or(|kid| kid.len() > 512)) {
            return Err("the token's key id is not one");
        }
        // A log-out token, say, is signed by the same keys for the same audience, and is no proof of anybody's presence.
        let typ = text("typ").unwrap_or("JWT").to_ascii_lowercase();
        if !matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt") {
            return Err("another type of token");
        }
        text("alg").and_then(Algorithm::from_name).ok_or("the token's algorithm is not accepted")
    }

    /// Whether `key` has signed it.
    pub(super) fn is_signed_by(&self, key: &PublicKey, algorithm: Algorithm) -> bool {
        key.verify(algorithm, self.parts.signed.as_bytes(), &self.parts.signature)
    }

    /// The time until which it is good, if it is at `now`.
    pub(super) fn good_until(&self, now: i64) -> Result<i64, &'static str> {
        let seconds = |name: &str| match self.claims.get(name) {
            None => Ok(None),
            // Some issuers write fractions.
            Some(value) => {
                value.as_i64().or(value.as_f64().map(|at| at as i64)).map(Some).ok_or("a time in the token is not one")
            }
        };
        let expires = seconds("exp")?.ok_or("the token never expires")?;
        if now >= expires.saturating_add(SKEW) {
            return Err(EXPIRED);
        }
        let begins = seconds("nbf")?.max(seconds("iat")?);
        if begins.is_some_and(|from| from > now.saturating_add(SKEW)) {
            return Err("the token is not valid yet");
        }
        Ok(expires.saturating_add(SKEW))
    }
}

/// What is said of a token that was good once.
pub(super) const EXPIRED: &str = "the token has expired";

/// `header.claims.` with an empty signature: `alg: none`, to be told so.
fn unsigned(text: &str) -> Option<Compact<'_>> {
    let signed = text.strip_suffix('.')?;
    let (header, claims) = signed.split_once('.')?;
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
    Some(Compact { signed, header: decode(header)?, claims: decode(claims)?, signature: Vec::new() })
}

/// A text, or the texts of a list.
pub(super) fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    let one = value.and_then(Value::as_str);
    let many = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    one.into_iter().chain(many.iter().filter_map(Value::as_str))
}

/// A claim by its name, or by a JSON pointer (RFC 6901) to what is deeper: `/realm_access/roles`.
pub(super) fn claim<'v>(claims: &'v Map<String, Value>, name: &str) -> Option<&'v Value> {
    let Some(path) = name.strip_prefix('/') else { return claims.get(name) };
    let mut steps = path.split('/').map(|step| step.replace("~1", "/").replace("~0", "~"));
    let first = claims.get(&steps.next()?)?;
    steps.try_fold(first, |value, step| value.get(&step))
}

/// A provider's key, as its JWKS publishes it.
#[derive(Debug)]
pub(super) struct PublicKey {
    kid: Option<String>,
    /// The one algorithm that it is for, when it says so.
    algorithm: Option<Algorithm>,
    material: Material,
}

enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Ec { algorithm: Algorithm, point: Vec<u8> },
    Ed25519(Vec<u8>),
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec { .. } => "EC",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl PublicKey {
    /// Reads the keys of a JWKS that are for verifying; others (for encryption, shared secrets) are not taken.
    pub(super) fn read_all(jwks: &[u8]) -> Result<Vec<Self>, &'static str> {
        let set = unique(jwks)?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("not a JWKS")?;
        Ok(keys.iter().take(100).filter_map(Self::read).collect())
    }

    fn read(jwk: &Value) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let for_verifying = text("use").is_none_or(|purpose| purpose == "sig")
            && jwk.get("key_ops").is_none_or(|ops| texts(Some(ops)).any(|op| op == "verify"));
        // One that names an algorithm that we do not take is not for us.
        let algorithm = match text("alg") {
            Some(name) => Some(Algorithm::from_name(name)?),
            None => None,
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", _) => Material::Rsa { n: bytes("n")?, e: bytes("e")? },
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x")?),
            ("EC", Some(curve)) => {
                let (algorithm, size) = match curve {
                    "P-256" => (Algorithm::Es256, 32),
                    "P-384" => (Algorithm::Es384, 48),
                    "P-521" => (Algorithm::Es512, 66),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                let whole = x.len() == size && y.len() == size;
                Material::Ec { algorithm, point: whole.then(|| [&[4][..], &x, &y].concat())? }
            }
            _ => return None,
        };
        for_verifying.then(|| Self { kid: text("kid").map(str::to_owned), algorithm, material })
    }

    /// Whether a token of this key id and algorithm may be signed by this key.
    pub(super) fn fits(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        let by_kind = match &self.material {
            Material::Rsa { .. } => algorithm.rsa().is_some(),
            Material::Ec { algorithm: own, .. } => *own == algorithm,
            Material::Ed25519(_) => algorithm == Algorithm::EdDsa,
        };
        by_kind && self.algorithm.is_none_or(|own| own == algorithm) && (kid.is_none() || self.kid.as_deref() == kid)
    }

    fn verify(&self, algorithm: Algorithm, signed: &[u8], signature: &[u8]) -> bool {
        let verified = match (&self.material, algorithm) {
            (Material::Rsa { n, e }, _) => match algorithm.rsa() {
                Some(parameters) => signature::RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature),
                None => return false,
            },
            (Material::Ec { point, algorithm: Algorithm::Es256 }, Algorithm::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature)
            }
            (Material::Ec { point, algorithm: Algorithm::Es384 }, Algorithm::Es384) => {
                UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(signed, signature)
            }
            (Material::Ec { point, algorithm: Algorithm::Es512 }, Algorithm::Es512) => {
                UnparsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, point).verify(signed, signature)
            }
            (Material::Ed25519(key), Algorithm::EdDsa) => UnparsedPublicKey::new(&ED25519, key).verify(signed, signature),
            _ => return false,
        };
        verified.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::takes_apart;
    use super::*;

    fn token(header: &str, claims: &str) -> String {
        format!("{}.{}.AAAA", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn claims_are_named_or_pointed_at() {
        let claims = json!({"sub": "a", "realm": {"roles": ["x", {"y": 1}], "a/b": "c"}, "/odd": 1});
        let claims = claims.as_object().expect("an object");
        let texts = |name: &str| texts(claim(claims, name)).collect::<Vec<_>>();
        assert_eq!((texts("sub"), texts("/realm/roles"), texts("/realm/a~1b")), (vec!["a"], vec!["x"], vec!["c"]));
        assert!(
            texts("/realm").is_empty() && texts("/").is_empty() && texts("/realm/roles/0").is_empty() && texts("none").is_empty()
        );
    }

    #[test]
    fn a_whole_token_is_taken_apart() {
        let claims = json!({"iss": "i", "aud": ["x", "y"], "exp": 20}).to_string();
        assert!(takes_apart(token(r#"{"alg":"RS256"}"#, &claims).as_bytes(), 10));
        assert!(!takes_apart(token(r#"{"alg":"HS256"}"#, &claims).as_bytes(), 10));
        assert!(!takes_apart(token(r#"{"alg":"RS256"}"#, &claims).as_bytes(), 100));
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_breaks_it(bytes in prop::collection::vec(any::<u8>(), 0..400), now in any::<i64>()) {
            prop_assert!(!takes_apart(&bytes, now) || bytes.len() > 20);
        }

        #[test]
        fn no_json_breaks_it(header in "\\{[\"a-z:,0-9eE.+\\[\\]{} -]{0,80}\\}", claims in "\\{\"exp\":[-0-9eE.]{1,30}[\"a-z:,{}]{0,30}\\}", now in any::<i64>()) {
            let _ = takes_apart(token(&header, &claims).as_bytes(), now);
            let _ = takes_apart(token(r#"{"alg":"EdDSA"}"#, &claims).as_bytes(), now);
        }
    }
}
