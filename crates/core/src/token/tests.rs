//! Tokens that are good, and all those that are not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::keys::Secret;

const NOW: i64 = 1_800_000_000;
const AUDIENCE: &str = "insula-app:main";

fn key(digit: char) -> ContextKey {
    ContextKey::new(Secret::from_hex(&digit.to_string().repeat(64)).expect("hex")).expect("a key")
}

fn keys() -> KeySet {
    KeySet::new([*key('a').public(), *key('b').public()])
}

fn claims() -> Claims {
    Claims {
        iss: GATEWAY.into(),
        aud: AUDIENCE.into(),
        iat: NOW,
        exp: NOW + LIFE_SECONDS,
        tid: "0190a0b0-0000-7000-8000-000000000001".parse().expect("an id"),
        tno: TenantNo::new(7).expect("positive"),
        slug: "acme".parse().expect("a slug"),
        plan: "gold".parse().expect("a plan"),
        epoch: 3,
        cell: "main".parse().expect("a cell"),
        sub: Some("alice".into()),
        idp: Some("https://id.acme.example".into()),
        via: Some(Via::Oidc),
        scope: Some("read write".into()),
    }
}

fn check(token: &str) -> Result<Claims, TokenError> {
    verify(token, &keys(), GATEWAY, AUDIENCE, NOW)
}

/// A token of any header and claims, signed by a right key.
fn forge(header: &str, claims: &str) -> String {
    strict::join(header.as_bytes(), claims.as_bytes(), |bytes| key('a').sign(bytes))
}

fn header() -> Value {
    json!({"alg": "EdDSA", "kid": key('a').kid(), "typ": TYPE})
}

#[test]
fn what_was_signed_is_read() {
    for signer in ['a', 'b'] {
        assert_eq!(check(&sign(&key(signer), &claims())), Ok(claims()));
    }
    let nobody = Claims { sub: None, idp: None, via: None, scope: None, ..claims() };
    assert_eq!(check(&sign(&key('a'), &nobody)), Ok(nobody));
}

#[test]
fn each_expectation_is_held() {
    let mut cases = Vec::new();
    let mut case = |change: &dyn Fn(&mut Claims), error| {
        let mut wrong = claims();
        change(&mut wrong);
        cases.push((wrong, error));
    };
    case(&|c| c.iss = "insula-app:main".into(), TokenError::Issuer);
    case(&|c| c.aud = "insula-app:other".into(), TokenError::Audience);
    case(&|c| (c.iat, c.exp) = (NOW - 60, NOW - SKEW_SECONDS), TokenError::Times);
    case(&|c| (c.iat, c.exp) = (NOW - 50, NOW - SKEW_SECONDS), TokenError::Expired);
    case(&|c| (c.iat, c.exp) = (NOW + 6, NOW + 40), TokenError::Times);
    case(&|c| c.exp = NOW + 46, TokenError::Times);
    case(&|c| (c.iat, c.exp) = (i64::MIN, i64::MAX), TokenError::Times);
    case(&|c| c.epoch = 0, TokenError::Malformed("no tenant has that number or epoch"));
    for (wrong, error) in cases {
        assert_eq!(check(&sign(&key('a'), &wrong)), Err(error), "{wrong:?}");
    }
    let late = verify(&sign(&key('a'), &claims()), &keys(), GATEWAY, AUDIENCE, NOW + LIFE_SECONDS + SKEW_SECONDS - 1);
    assert_eq!(late, Ok(claims()), "clocks may differ a little");
}

#[test]
fn a_stranger_or_a_changed_letter_is_refused() {
    assert_eq!(check(&sign(&key('c'), &claims())), Err(TokenError::UnknownKey));
    let stranger = forge(&json!({"alg": "EdDSA", "kid": key('b').kid(), "typ": TYPE}).to_string(), &json!(claims()).to_string());
    assert_eq!(check(&stranger), Err(TokenError::Signature), "signed by a, says b");
    let token = sign(&key('a'), &claims());
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert!(check(&changed).is_err(), "letter {at}");
    }
}

#[test]
fn headers_hold_no_surprises() {
    let body = json!(claims()).to_string();
    let with = |name: &str, value: Value| {
        let mut header = header();
        header[name] = value;
        check(&forge(&header.to_string(), &body))
    };
    assert!(check(&forge(&header().to_string(), &body)).is_ok());
    for alg in ["none", "None", "HS256", "RS256", "eddsa", "ES256"] {
        assert_eq!(with("alg", json!(alg)), Err(TokenError::Algorithm), "{alg}");
    }
    assert_eq!(with("alg", json!(["EdDSA"])), Err(TokenError::Algorithm));
    for surprise in ["jku", "x5u", "jwk", "crit", "b64", "zip", "cty"] {
        assert!(matches!(with(surprise, json!("x")), Err(TokenError::Malformed(_))), "{surprise}");
    }
    assert!(matches!(with("typ", json!("JWT")), Err(TokenError::Malformed(_))));
    assert_eq!(with("kid", json!("../../etc/passwd")), Err(TokenError::UnknownKey));
    assert_eq!(with("kid", json!("' OR 1=1 --")), Err(TokenError::UnknownKey));
    // An unsigned token, as some libraries would write it.
    let unsigned = forge(&json!({"alg": "none"}).to_string(), &body);
    let unsigned = unsigned.rsplit_once('.').expect("parts").0;
    assert!(check(&format!("{unsigned}.")).is_err() && check(unsigned).is_err());
}

#[test]
fn what_could_be_read_twice_is_refused() {
    let body = json!(claims()).to_string();
    let twice = body.replacen('{', r#"{"slug":"globex","#, 1);
    assert!(matches!(check(&forge(&header().to_string(), &twice)), Err(TokenError::Malformed(_))));
    let deep = body.replacen('{', r#"{"x":{"a":1,"a":2},"#, 1);
    assert!(matches!(check(&forge(&header().to_string(), &deep)), Err(TokenError::Malformed(_))));
    let unknown = body.replacen('{', r#"{"later":{"a":1},"#, 1);
    assert!(check(&forge(&header().to_string(), &unknown)).is_ok(), "a newer gateway may say more");
    let twice = header().to_string().replacen('{', r#"{"alg":"none","#, 1);
    assert!(check(&forge(&twice, &body)).is_err());
    assert!(check(&forge(&header().to_string(), &format!("{body} {{}}"))).is_err());
    let bottomless = body.replacen('{', &format!("{{\"x\":{}1{},", "[".repeat(1000), "]".repeat(1000)), 1);
    assert!(check(&forge(&header().to_string(), &bottomless)).is_err());
    let token = sign(&key('a'), &claims());
    for odd in [format!("{token}="), format!(" {token}"), format!("{token}\n"), token.replace('.', ".."), format!("{token}.x")] {
        assert!(check(&odd).is_err(), "{odd}");
    }
    assert_eq!(check(&"x".repeat(LONGEST + 1)), Err(TokenError::Oversized));
    let stray = format!("{}{}", &token[..token.len() - 1], if token.ends_with('B') { 'C' } else { 'B' });
    assert!(check(&stray).is_err(), "stray bits make a second text of one signature");
}

#[test]
fn a_rotation_goes_unnoticed() {
    let ring = ContextKeys::new([(0, key('a')), (NOW, key('b'))]).expect("keys");
    assert_eq!(ring.at(NOW - 1).kid(), key('a').kid());
    assert_eq!(ring.at(NOW).kid(), key('b').kid());
    assert_eq!(ring.at(-5).kid(), key('a').kid());
    let again = ContextKeys::from_json(&ring.to_json()).expect("reads");
    assert_eq!(again.at(NOW).kid(), key('b').kid());
    assert!(!format!("{ring:?}").contains("bbbb"));
    for wrong in ["", "{}", r#"{"keys":[]}"#, r#"{"keys":[{"seed":"x","signs_from":0}]}"#] {
        assert!(ContextKeys::from_json(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn keys_are_published_as_others_expect() {
    let text = keys().to_jwks();
    assert_eq!(KeySet::from_jwks(&text), Ok(keys()));
    let set: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(
        (&set["keys"][0]["kty"], &set["keys"][0]["alg"], &set["keys"][0]["use"]),
        (&json!("OKP"), &json!("EdDSA"), &json!("sig"))
    );
    assert!(!text.contains("\"d\""));
    let mixed = r#"{"keys":[{"kty":"RSA","n":"x","e":"AQAB","kid":"r"},{"kty":"OKP","crv":"X25519","x":"AA","kid":"x"}]}"#;
    assert_eq!(KeySet::from_jwks(mixed), Ok(KeySet::default()));
    assert!(KeySet::from_jwks(r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","kid":"x"}]}"#).is_err());
    // RFC 8037, appendix A.3.
    let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").expect("base64url");
    let set = KeySet::new([public.try_into().expect("32 bytes")]);
    assert!(set.has("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
}

proptest! {
    #[test]
    fn nothing_random_is_believed(text in "\\PC{0,300}", parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 3)) {
        prop_assert!(check(&text).is_err());
        let encoded: Vec<_> = parts.iter().map(|part| URL_SAFE_NO_PAD.encode(part)).collect();
        prop_assert!(check(&encoded.join(".")).is_err());
        prop_assert!(claimed(&encoded.join(".")).is_none_or(|(issuer, _)| issuer.len() < 80));
    }

    #[test]
    fn no_signed_nonsense_is_believed(json in "\\{[\"a-z:,0-9\\[\\]{} ]{0,60}\\}") {
        prop_assert!(check(&forge(&header().to_string(), &json)).is_err());
        prop_assert!(check(&forge(&json, &json!(claims()).to_string())).is_err());
    }
}
