//! The fuzz targets' bodies, for some thousand cases each: bytes, and texts made of the parts that matter.

#[path = "../../../../fuzz/bodies/bearer_token.rs"]
mod bearer_token;
#[path = "../../../../fuzz/bodies/context_token.rs"]
mod context_token;
#[path = "../../../../fuzz/bodies/header.rs"]
mod header;
#[path = "../../../../fuzz/bodies/host.rs"]
mod host;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const PARTS: &[&str] = &[
    "acme",
    "globex",
    "ACME",
    "xn--",
    "localhost",
    "docs",
    "example",
    "api",
    "console",
    ".",
    "..",
    ":",
    "80",
    "99999",
    "[",
    "]",
    "::1",
    "@",
    "%",
    "/",
    "~",
    "?",
    "&",
    "=",
    ";",
    " ",
    "\t",
    ",",
    "\n",
    "\0",
    "\u{e9}",
    "\u{3002}",
    "insula_tenant",
    "x-insula-tenant: ",
    "host: ",
    "Cookie: ",
    "http://",
    "https://",
    "0x7f.1",
    "_",
    "-",
];

fn hosts() -> impl Strategy<Value = Vec<u8>> {
    vec(select(PARTS), 0..12).prop_map(|parts| parts.concat().into_bytes())
}

fn heads() -> impl Strategy<Value = Vec<u8>> {
    let target = select(
        &["/", "/~acme/x", "/~globex", "/?insula_tenant=acme", "/?insula_tenant=globex&a", "http://acme.localhost/", "*"][..],
    );
    let line = select(
        &[
            "host: acme.localhost",
            "host: docs.globex.example:80",
            "host: api.localhost",
            "host: Console.localhost.",
            "host: localhost",
            "host: 10.0.0.1",
            "host: nobody.localhost",
            "x-insula-tenant: acme",
            "x-insula-tenant: globex",
            "cookie: insula_tenant=acme",
            "cookie: a=b;insula_tenant=globex",
            "x-insula-tenant: ",
            "accept: */*",
        ][..],
    );
    (any::<u8>(), target, vec(line, 0..5)).prop_map(|(who, target, lines)| {
        let mut head = vec![who];
        head.extend(target.bytes());
        lines.iter().for_each(|line| head.extend(format!("\n{line}").bytes()));
        head
    })
}

/// Tokens of the right form: each part is what a signer would write, or nearly, and the last is anything.
fn tokens() -> impl Strategy<Value = Vec<u8>> {
    let header = select(
        &[
            r#"{"alg":"EdDSA","kid":"k","typ":"insula-context+jwt"}"#,
            r#"{"alg":"none","typ":"insula-context+jwt"}"#,
            r#"{"alg":"HS256","kid":"k"}"#,
            r#"{"alg":"RS256","kid":"k","typ":"JWT"}"#,
            r#"{"alg":"EdDSA","alg":"none"}"#,
            r#"{"alg":"EdDSA","crit":["x"]}"#,
            "{}",
            "[]",
            "",
        ][..],
    );
    let claims = select(
        &[
            r#"{"iss":"insula-gateway","aud":"insula-app:main","iat":1799999990,"exp":1800000030}"#,
            r#"{"iss":"i","aud":["a","b"],"sub":"x","exp":1800000030}"#,
            r#"{"iss":"i","aud":"a","exp":1e400}"#,
            r#"{"iss":"i","aud":"a","exp":-1,"exp":1800000030}"#,
            r#"{"iss":{},"aud":[[[]]],"exp":"1800000030"}"#,
            r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"AAAA"}]}"#,
            "\u{0}",
        ][..],
    );
    let parts = (header, claims, vec(any::<u8>(), 0..80), any::<u8>(), 0..200_usize);
    parts.prop_map(|(header, claims, signature, byte, at)| {
        let parts = [header.as_bytes(), claims.as_bytes(), &signature].map(|part| URL_SAFE_NO_PAD.encode(part));
        let mut token = parts.join(".").into_bytes();
        // Half of them with one byte that is another.
        if let Some(there) = token.get_mut(at) {
            *there = byte;
        }
        token
    })
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![3 => tokens(), 1 => "\\{[\"a-z:,0-9eE.+\\[\\]{} -]{0,120}\\}".prop_map(String::into_bytes), 1 => vec(any::<u8>(), 0..300)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_bytes_are_one_host_or_none(data in prop_oneof![hosts(), vec(any::<u8>(), 0..60)]) {
        host::run(&data);
    }

    #[test]
    fn no_context_is_believed_but_a_signed_one(data in texts()) {
        context_token::run(&data);
    }

    #[test]
    fn any_token_is_taken_apart_or_refused(data in texts()) {
        bearer_token::run(&data);
    }

    #[test]
    fn any_head_has_one_tenant_or_none(data in prop_oneof![3 => heads(), 1 => hosts(), 1 => vec(any::<u8>(), 0..80)]) {
        header::run(&data);
    }
}
