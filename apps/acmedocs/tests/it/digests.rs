//! Digests: what happened yesterday, as the workspace counts its days.

use std::time::Duration;

use axum::http::Method;
use insula_testkit::Isolation;
use serde_json::json;

use crate::house::{House, Person};

/// Runs the job as a worker would, in the scope of the request.
async fn write(person: &Person) -> i64 {
    let written = person.send(Method::POST, "/test/digest", None).await;
    assert_eq!(written.status, 200, "{}", written.text);
    written.json.as_i64().expect("a number")
}

/// Moves everything that happened into the past.
async fn age(person: &Person, hours: i32) {
    let aged = person.send(Method::POST, "/test/age", Some(json!(hours))).await;
    assert_eq!(aged.status, 200, "{}", aged.text);
}

async fn zone(house: &House, person: &Person, zone: &str) {
    let catalog = house.cell.catalog().await;
    let slug = person.host.trim_end_matches(".localhost");
    let sql = "UPDATE catalog.tenant SET settings = $2, version = version + 1 WHERE slug = $1";
    sqlx::query(sql).bind(slug).bind(json!({"time_zone": zone})).execute(&catalog).await.expect("changed");
    catalog.close().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while person.send(Method::GET, "/test/zone", None).await.json != zone {
        assert!(tokio::time::Instant::now() < deadline, "the zone never arrived");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_day_has_one_digest() {
    let house = House::open().await;
    let ann = house.admin("digest", Isolation::Row).await;
    let bob = house.admin("digest-other", Isolation::Row).await;
    let kept = ann.write("Kept", "one", &[]).await;
    assert_eq!(ann.patch(&format!("/api/documents/{kept}"), json!({"body": "two"})).await.status, 200);
    let lost = ann.write("Lost", "x", &[]).await;
    assert_eq!(ann.delete(&format!("/api/documents/{lost}")).await.status, 204);
    bob.write("Somebody else's", "x", &[]).await;
    age(&ann, 24).await;
    ann.write("Today's", "x", &[]).await;

    assert_eq!(write(&ann).await, 1);
    assert_eq!(write(&ann).await, 0, "it was written twice");
    let listed = ann.get("/api/digests").await;
    let digest = &listed.json["items"][0];
    assert_eq!(
        (&digest["created"], &digest["changed"], &digest["deleted"]),
        (&json!(1), &json!(1), &json!(1)),
        "{}",
        listed.text
    );
    let entries = digest["entries"].as_array().expect("entries");
    let told: Vec<_> = entries.iter().map(|entry| (entry["what"].as_str().unwrap(), entry["title"].as_str().unwrap())).collect();
    assert_eq!(told, [("deleted", "Lost"), ("changed", "Kept"), ("created", "Kept")]);
    assert_eq!((&entries[1]["number"], &entries[1]["by"]), (&json!("DOC-000001"), &json!("admin@digest.example")));
    assert!(!listed.text.contains("Somebody") && !listed.text.contains("Today"), "{}", listed.text);
    let day = digest["day"].as_str().expect("a day");
    assert_eq!(ann.get(&format!("/api/digests/{day}")).await.json, *digest);
    for none in ["2001-01-01", "yesterday", "2026-02-30", "x"] {
        ann.get(&format!("/api/digests/{none}")).await.must_be_problem(404);
    }
}

/// At any moment it is another day in Kiritimati (UTC+14) than in Midway (UTC-11).
#[tokio::test]
async fn a_day_is_the_workspace_s_own() {
    let house = House::open().await;
    let mut days = vec![];
    for (slug, place) in
        [("digest-east", "Pacific/Kiritimati"), ("digest-west", "Pacific/Midway"), ("digest-odd", "Nowhere/At_All")]
    {
        let ann = house.admin(slug, Isolation::Row).await;
        zone(&house, &ann, place).await;
        assert_eq!(write(&ann).await, 1);
        let digest = ann.get("/api/digests").await.json["items"][0].clone();
        days.push((digest["day"].as_str().unwrap().to_owned(), digest["zone"].as_str().unwrap().to_owned()));
    }
    assert!(days[0].0 > days[1].0, "{days:?}");
    assert_eq!(days[2].1, "UTC", "a zone that the database does not know costs the zone, not the digest");
}

#[tokio::test]
async fn days_that_were_missed_are_made_up_for() {
    let house = House::open().await;
    let ann = house.admin("digest-late", Isolation::Row).await;
    assert_eq!(write(&ann).await, 1);
    age(&ann, 72).await;
    assert_eq!(write(&ann).await, 3);
    assert_eq!(ann.get("/api/digests").await.json["items"].as_array().expect("items").len(), 4);
    age(&ann, 24 * 30).await;
    assert_eq!(write(&ann).await, 7, "a week is made up for, and no more");
}
