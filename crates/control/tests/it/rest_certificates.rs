//! Certificates over REST: what fits is taken, its key leaves only sealed, and gateways hear of each change.

use insula_api::key::Scope;
use insula_testkit::server;
use serde_json::json;

use crate::rest_house::{Answer, House, answer, house};

fn made(name: &str) -> (String, String) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

async fn put(house: &House, name: &str, chain: &str, key: &str) -> Answer {
    answer(house.admin("PUT", &format!("/v1/certificates/{name}")).json(&json!({"chain": chain, "key": key}))).await
}

async fn seen(house: &House, etag: &str) -> Answer {
    let request = house.bare("GET", "/v1/catalog/certificates").bearer_auth(house.key(Scope::Edge));
    answer(request.header("if-none-match", etag)).await
}

#[tokio::test]
async fn a_certificate_is_put_seen_by_gateways_with_a_sealed_key_and_taken_away() {
    let house = house().await;
    let ((chain, key), (other, other_key)) = (made("docs.acme.example"), made("*.acme.example"));
    put(house, "docs.acme.example", &chain, &key).await.is(200);
    // In one normal form; and once more over the same name.
    assert_eq!(put(house, "Docs.ACME.example", &chain, &key).await.is(200).at("/name"), "docs.acme.example");
    let list = house.get("/v1/certificates").await;
    assert!(list.is(200).text.contains("docs.acme.example") && !list.text.contains("PRIVATE KEY"), "{}", list.text);
    assert_eq!(of(&list, "docs.acme.example")["not_after"], "4096-01-01T00:00:00Z", "as it was made");

    let first = seen(house, "").await;
    assert!(!first.is(200).text.contains("PRIVATE KEY") && !first.text.contains("\"key\""), "{}", first.text);
    let items = first.body["items"].as_array().expect("items");
    let ours = items.iter().find(|item| item["name"] == "docs.acme.example").expect("ours");
    let sealed = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, ours["sealed_key"].as_str().expect("text"));
    let opener = server().await.root_key().certificate_key();
    let sealed = sealed.expect("base64");
    assert_eq!(opener.open("docs.acme.example", &sealed).expect("opens"), key.as_bytes());
    assert!(opener.open("other.acme.example", &sealed).is_err());

    let etag = unchanged(house, first).await;
    put(house, "*.acme.example", &other, &other_key).await.is(200);
    let second = seen(house, &etag).await;
    assert!(second.is(200).text.contains("*.acme.example"));
    answer(house.admin("DELETE", "/v1/certificates/*.acme.example")).await.is(204);
    answer(house.admin("DELETE", "/v1/certificates/*.acme.example")).await.is_problem(404, "not-found");
    assert!(!seen(house, second.header("etag")).await.is(200).text.contains("*.acme.example"));
    let log = house.get("/v1/audit?action=certificate.put&limit=500").await;
    assert!(log.is(200).text.contains("docs.acme.example") && !log.text.contains("PRIVATE KEY"));
}

/// The tag of a list that is answered with 304 when asked again: other tests put certificates in this house meanwhile.
async fn unchanged(house: &House, mut last: Answer) -> String {
    for _ in 0..50 {
        let again = seen(house, last.header("etag")).await;
        if again.status.as_u16() == 304 {
            return last.header("etag").to_owned();
        }
        last = again;
    }
    panic!("answered anew each time: {}", last.text);
}

fn of(list: &Answer, name: &str) -> serde_json::Value {
    let items = list.body["items"].as_array().expect("items");
    items.iter().find(|item| item["name"] == name).expect("ours").clone()
}

#[tokio::test]
async fn it_is_shown_until_when_a_certificate_is_good() {
    let house = house().await;
    let name = "short.acme.example";
    for (day, end) in [(3, "2031-02-03T00:00:00Z"), (4, "2031-02-04T00:00:00Z")] {
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(2031, 2, day);
        let key = rcgen::KeyPair::generate().expect("a key");
        let chain = params.self_signed(&key).expect("signed").pem();
        assert_eq!(put(house, name, &chain, &key.serialize_pem()).await.is(200).at("/not_after"), end);
        assert_eq!(of(&house.get("/v1/certificates").await, name)["not_after"], end);
    }
    // One that was put before the end was written down.
    let mut catalog = server().await.admin(&house.catalog).await;
    let forget = "UPDATE catalog.certificate SET not_after = NULL WHERE name = $1";
    sqlx::query(forget).bind(name).execute(&mut catalog).await.expect("forgotten");
    assert_eq!(of(&house.get("/v1/certificates").await, name)["not_after"], "2031-02-04T00:00:00Z");
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_no_key_is_quoted() {
    let house = house().await;
    let ((chain, key), (_, stranger)) = (made("docs.globex.example"), made("docs.globex.example"));
    let bad = [
        ("docs.globex.example", chain.as_str(), stranger.as_str(), "key"),
        ("www.globex.example", &chain, &key, "chain"),
        ("*.globex.example", &chain, &key, "chain"),
        ("docs.globex.example", "", &key, "chain"),
        ("docs.globex.example", &key, &key, "chain"),
        ("docs.globex.example", &chain, "hunter2", "key"),
        ("docs.globex.example", &chain, &chain, "key"),
        ("127.0.0.1", &chain, &key, "name"),
        ("localhost", &chain, &key, "name"),
        ("a*.globex.example", &chain, &key, "name"),
    ];
    for (name, chain, key, field) in bad {
        let refused = put(house, name, chain, key).await;
        refused.is_problem(422, "invalid").names(field);
        assert!(!refused.text.contains("hunter2") && !refused.text.contains("PRIVATE"), "{}", refused.text);
    }
}
