//! Bad input: refused with the field, nothing half made; odd input that is text: taken as text.

use axum::body::{Body, Bytes};
use axum::http::Method;
use insula_testkit::Isolation;
use serde_json::{Value, json};

use crate::house::House;

#[tokio::test]
async fn a_refusal_names_the_field() {
    let house = House::open().await;
    let ann = house.admin("fields", Isolation::Row).await;
    let id = ann.write("Kept", "kept", &[]).await;
    let path = format!("/api/documents/{id}");
    let cases: &[(Value, &str)] = &[
        (json!({}), "title"),
        (json!({"title": "x"}), "body"),
        (json!({"title": 7, "body": "x"}), "title"),
        (json!({"title": null, "body": "x"}), "title"),
        (json!({"title": "", "body": "x"}), "title"),
        (json!({"title": "a\nb", "body": "x"}), "title"),
        (json!({"title": "x".repeat(301), "body": "x"}), "title"),
        (json!({"title": "a\u{0}b", "body": "x"}), "title"),
        (json!({"title": "x", "body": "a\u{0}b"}), "body"),
        (json!({"title": "x", "body": "y".repeat((1 << 20) + 1)}), "body"),
        (json!({"title": "x", "body": "y", "tags": "z"}), "tags"),
        (json!({"title": "x", "body": "y", "tags": ["ok", ""]}), "tags[1]"),
        (json!({"title": "x", "body": "y", "tags": ["\u{0}"]}), "tags[0]"),
        (json!({"title": "x", "body": "y", "tags": vec!["t"; 21]}), "tags"),
        (json!({"title": "x", "body": "y", "tags": ["t".repeat(51)]}), "tags[0]"),
        (json!({"title": "x", "body": "y", "format": "word"}), "format"),
        (json!({"title": "x", "body": "y", "source": ""}), "source"),
        (json!({"title": "x", "body": "y", "source": "a\u{0}"}), "source"),
        (json!({"title": "x", "body": "y", "surprise": 1}), "surprise"),
        (json!({"title": "x", "body": "y", "tenant": 1}), "tenant"),
    ];
    for (body, field) in cases {
        let made = ann.post("/api/documents", body.clone()).await;
        assert_eq!((made.status.as_u16(), &made.json["errors"][0]["field"]), (422, &json!(field)), "{}", made.text);
    }
    for (body, field) in [
        (json!({"title": null}), "title"),
        (json!({"title": ""}), "title"),
        (json!({"body": "\u{0}"}), "body"),
        (json!({"version": "1"}), "version"),
        (json!({"id": "x"}), "id"),
    ] {
        ann.patch(&path, body).await.must_name(field);
    }
    for (query, field) in [
        ("/api/documents?limit=0", "limit"),
        ("/api/documents?limit=201", "limit"),
        ("/api/documents?limit=x", "limit"),
        ("/api/documents?after=x", "after"),
        ("/api/documents?surprise=1", "surprise"),
        ("/api/documents?tag=%00", "tag"),
        ("/api/search", "q"),
        ("/api/search?q=", "q"),
        ("/api/search?q=%00", "q"),
        ("/api/search?q=x&offset=-1", "offset"),
    ] {
        ann.get(query).await.must_name(field);
    }
    assert_eq!(ann.get("/api/documents").await.json["items"].as_array().unwrap().len(), 1);
    assert_eq!(ann.get(&path).await.json["version"], 1);
}

#[tokio::test]
async fn what_is_no_json_is_400_and_what_is_no_id_is_404() {
    let house = House::open().await;
    let ann = house.admin("shapes", Isolation::Row).await;
    let bearer = format!("Bearer {}", ann.token.as_ref().unwrap());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    for bad in ["", "{", "nul", "\u{feff}{}", "{\"title\":\"\\ud800\",\"body\":\"\"}", "{\"title\":\"x\",\"body\":\"y\"} x"] {
        ann.raw(Method::POST, "/api/documents", &headers, bad).await.must_be_problem(400);
    }
    ann.raw(Method::POST, "/api/documents", &headers, b"{\"title\":\"\xff\"}".as_slice()).await.must_be_problem(400);
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let headers = [("authorization", bearer.as_str()), ("content-type", kind)];
        ann.raw(Method::POST, "/api/documents", &headers, "{}").await.must_be_problem(415);
    }
    let ids = ["x", "1", "..%2f..", "%00", "%27%20OR%201=1--", "00000000-0000-0000-0000-000000000000", "0190-"];
    for id in ids {
        for tail in ["", "/versions", "/versions/1"] {
            ann.get(&format!("/api/documents/{id}{tail}")).await.must_be_problem(404);
        }
        ann.patch(&format!("/api/documents/{id}"), json!({})).await.must_be_problem(404);
        ann.delete(&format!("/api/documents/{id}")).await.must_be_problem(404);
    }
    ann.get("/api/nowhere").await.must_be_problem(404);
    ann.send(Method::PUT, "/api/documents", None).await.must_be_problem(405);
}

#[tokio::test]
async fn fifty_megabytes_are_refused_declared_or_not() {
    let house = House::open().await;
    let ann = house.admin("huge", Isolation::Row).await;
    let bearer = format!("Bearer {}", ann.token.as_ref().unwrap());
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let huge = json!({"title": "x", "body": "y".repeat(50 << 20)}).to_string();
    let length = huge.len().to_string();
    let declared = [headers[0], headers[1], ("content-length", length.as_str())];
    ann.raw(Method::POST, "/api/documents", &declared, huge.clone()).await.must_be_problem(413);
    let chunks: Vec<_> = huge.into_bytes().chunks(65_536).map(|c| Ok::<_, std::io::Error>(Bytes::copy_from_slice(c))).collect();
    let stream = Body::from_stream(futures_util::stream::iter(chunks));
    ann.raw(Method::POST, "/api/documents", &headers, stream).await.must_be_problem(413);
}

#[tokio::test]
async fn odd_text_comes_back_as_it_went_in() {
    let house = House::open().await;
    let ann = house.admin("odd", Isolation::Row).await;
    for text in [
        "'; DROP TABLE documents; --",
        "$$; COPY documents TO '/tmp/x'; $$",
        "%00\\x00\\u0000",
        "\u{202e}evil\u{200b}\u{feff}",
        "\u{1F469}\u{200D}\u{1F680} ß İ \u{FFFF}\u{10FFFF}",
        "a:* & !b | (c <-> d) ::: \" ' \\",
        "{{7*7}} ${7*7}",
    ] {
        let id = ann.write(text, text, &[text]).await;
        let read = ann.get(&format!("/api/documents/{id}")).await;
        assert_eq!((&read.json["title"], &read.json["body"]), (&json!(text), &json!(text)));
        let question: String = text.bytes().map(|b| format!("%{b:02X}")).collect();
        let found = ann.get(&format!("/api/search?q={question}")).await;
        assert_eq!(found.status, 200, "{text:?}: {}", found.text);
    }
}

#[tokio::test]
async fn a_long_text_is_stored_whole_and_found_by_its_beginning() {
    let house = House::open().await;
    let ann = house.admin("long", Isolation::Row).await;
    let words: String = (0..)
        .map(|n| format!("w{n:x}é "))
        .scan(0, |size, word| {
            *size += word.len();
            (*size < 1_000_000).then_some(word)
        })
        .collect();
    let id = ann.write("Long", &words, &[]).await;
    assert_eq!(ann.get(&format!("/api/documents/{id}")).await.json["body"].as_str().unwrap().len(), words.len());
    assert_eq!(ann.get("/api/search?q=w1f%C3%A9").await.json["total"], 1);
    // As dense as it gets: every word another, every letter four bytes.
    let dense: String = (0..60_000_u32)
        .map(|n| format!("{}{} ", char::from_u32(0x20000 + n % 40_000).unwrap(), char::from_u32(0x20000 + n / 7).unwrap()))
        .collect();
    let made = ann.post("/api/documents", json!({"title": "Dense", "body": dense})).await;
    assert!(matches!(made.status.as_u16(), 201 | 422), "{}", made.text);
}
