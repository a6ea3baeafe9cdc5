//! Log-in: what opens a session, and how guessing ends.

use std::time::{Duration, Instant};

use insula_testkit::Isolation;
use serde_json::json;

use crate::house::{House, PASSWORD};

#[tokio::test]
async fn only_the_right_password_of_this_tenant_opens() {
    let house = House::open().await;
    let ann = house.admin("doors", Isolation::Row).await.nobody();
    let open = async |email: &str, password: &str| ann.post("/api/session", json!({"email": email, "password": password})).await;
    let opened = open("  ADMIN@doors.example ", PASSWORD).await;
    assert_eq!((opened.status.as_u16(), opened.headers["cache-control"].as_bytes()), (200, b"no-store".as_slice()));
    assert_eq!(opened.json["token"].as_str().unwrap().len(), 43);
    let wrong = open("admin@doors.example", "wrong").await;
    let unknown = open("nobody@doors.example", PASSWORD).await;
    wrong.must_be_problem(401);
    unknown.must_be_problem(401);
    assert_eq!(wrong.json["detail"], unknown.json["detail"]);
    open("", PASSWORD).await.must_name("email");
    open("admin@doors.example", "").await.must_name("password");
    open("admin@doors.example", &"x".repeat(1001)).await.must_name("password");
    ann.post("/api/session", json!({"email": "a@b"})).await.must_name("password");
    ann.post("/api/session", json!({"email": "a\u{0}@b", "password": "x"})).await.must_name("email");
}

#[tokio::test]
async fn an_unknown_user_takes_as_long_as_a_known_one() {
    let house = House::open().await;
    let ann = house.admin("clocks", Isolation::Row).await.nobody();
    let mut times = [vec![], vec![]];
    for n in 0..5 {
        for (i, email) in [format!("nobody-{n}@clocks.example"), "admin@clocks.example".to_owned()].iter().enumerate() {
            let started = Instant::now();
            ann.post("/api/session", json!({"email": email, "password": "wrong"})).await.must_be_problem(401);
            times[i].push(started.elapsed());
        }
    }
    // Each one's quickest: what a machine does besides makes them slower, and not alike.
    let [unknown, known] = times.map(|times| times.into_iter().min().unwrap_or(Duration::MAX).as_secs_f64());
    assert!(unknown > known / 3.0, "unknown {unknown} s, known {known} s: the answer tells who has an account");
}

#[tokio::test]
async fn guessing_ends_and_is_each_address_s_own() {
    let house = House::open().await;
    let ann = house.admin("guess", Isolation::Schema).await.nobody();
    let other = house.admin("guess-other", Isolation::Schema).await.nobody();
    for email in ["admin@guess.example", "nobody@guess.example"] {
        let tries = (0..14).map(|_| {
            let (ann, body) = (ann.clone(), json!({"email": email, "password": "wrong"}));
            tokio::spawn(async move { ann.post("/api/session", body).await.status.as_u16() })
        });
        let mut statuses = vec![];
        for task in tries.collect::<Vec<_>>() {
            statuses.push(task.await.unwrap());
        }
        let refused = statuses.iter().filter(|status| **status == 401).count();
        assert!(refused <= 10 && statuses.contains(&429), "{email}: {statuses:?}");
    }
    let right = ann.post("/api/session", json!({"email": "admin@guess.example", "password": PASSWORD})).await;
    right.must_be_problem(429);
    assert!(right.headers.contains_key("retry-after"));
    let elsewhere = other.post("/api/session", json!({"email": "admin@guess.example", "password": PASSWORD})).await;
    elsewhere.must_be_problem(401);
}
