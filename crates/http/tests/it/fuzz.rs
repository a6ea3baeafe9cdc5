//! The fuzz targets' bodies, for some thousand cases each: bytes, and texts made of the parts that matter.

#[path = "../../../../fuzz/bodies/header.rs"]
mod header;
#[path = "../../../../fuzz/bodies/host.rs"]
mod host;

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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_bytes_are_one_host_or_none(data in prop_oneof![hosts(), vec(any::<u8>(), 0..60)]) {
        host::run(&data);
    }

    #[test]
    fn any_head_has_one_tenant_or_none(data in prop_oneof![3 => heads(), 1 => hosts(), 1 => vec(any::<u8>(), 0..80)]) {
        header::run(&data);
    }
}
