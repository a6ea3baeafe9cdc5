//! What jobs turn out to cost: a lane is charged the time that they took, whatever was declared.

use std::time::Duration;

use insula_jobs::{Enqueue, Jobs, WorkerConfig, send_all};
use serde_json::json;

use crate::house::{ByHand, House, Note, Nothing};

fn nothings(count: usize) -> Vec<Nothing> {
    (0..count).map(|_| Nothing).collect()
}

/// Each declares a unit. One tenant's jobs take nine, and the other's one.
#[tokio::test]
async fn tenants_of_one_weight_get_as_much_time_and_not_as_many_jobs() {
    let house = House::new(2).await;
    for no in [1, 2] {
        send_all(&house.data, &house.tenant(no), &nothings(150), &Enqueue::default()).await.expect("sent");
    }
    let mut hand = ByHand::new(&house).await;
    let (mut starts, mut done) = ([0_i32; 2], Vec::new());
    for _ in 0..100 {
        done = hand.work(&done, 1).await;
        match done[..] {
            [(1, _)] => {
                starts[0] += 1;
                hand.correct(json!([{ "t": 1, "u": 8 }])).await;
            }
            [(2, _)] => starts[1] += 1,
            ref other => panic!("{other:?}"),
        }
    }
    assert_eq!(starts, [10, 90], "ninety units each");
    for no in [1, 2] {
        assert_eq!(hand.stands(no).await.0, 90.0, "tenant {no} was charged what its jobs took");
    }
}

#[tokio::test]
async fn a_correction_goes_by_weight_and_never_before_the_present() {
    let house = House::new(2).await;
    for no in [1, 2] {
        send_all(&house.data, &house.tenant(no), &nothings(50), &Enqueue { cost: Some(10), ..Enqueue::default() })
            .await
            .expect("sent");
    }
    let mut hand = ByHand::new(&house).await;
    // Their lanes come with the first look.
    let mut done = hand.work(&[], 2).await;
    sqlx::query("UPDATE insula.lane SET weight = 4 WHERE tenant_id = 2").execute(&mut hand.admin).await.expect("a weight");
    let before = hand.stands(2).await.0;
    // Several words on one tenant count together, and what is said of one that has no lane is nobody's.
    hand.correct(json!([{ "t": 2, "u": 30 }, { "t": 2, "u": 10 }, { "t": 77, "u": 5 }])).await;
    assert_eq!(hand.stands(2).await.0, before + 10.0, "forty by four");
    while hand.stands(1).await.1 < 30.0 {
        done = hand.work(&done, 1).await;
    }
    let (before, present) = hand.stands(1).await;
    assert!(before > present, "{before} {present}");
    hand.correct(json!([{ "t": 1, "u": -1 }])).await;
    assert_eq!(hand.stands(1).await.0, before - 1.0, "it was charged more than it took");
    // What nobody else wanted is not saved up.
    hand.correct(json!([{ "t": 1, "u": -1_000_000 }])).await;
    assert_eq!(hand.stands(1).await, (present, present));
}

/// The same with a worker that measures.
#[tokio::test(flavor = "multi_thread")]
async fn long_jobs_leave_their_places_to_the_short_ones_of_others() {
    let house = House::new(2).await;
    let long: Vec<Note> = (0..200).map(|n| Note::new(&n.to_string(), 200)).collect();
    send_all(&house.data, &house.tenant(1), &long, &Enqueue::default()).await.expect("sent");
    send_all(&house.data, &house.tenant(2), &nothings(300), &Enqueue::default()).await.expect("sent");
    let config = WorkerConfig { concurrency: 1, ahead: Duration::ZERO, ..house.config() };
    let worker = house.worker_with(Jobs::new().with::<Note>().with::<Nothing>(), config);
    house.until("the short ones", "SELECT count(*) <= 100 FROM insula.job WHERE tenant_id = 2").await;
    let long = house.count("SELECT count(*) FROM app.done").await;
    // A long one takes twenty units or more, a short one is charged one. One by one, as declared, it were two hundred.
    assert!((2..=50).contains(&long), "{long} long ones beside 200 short ones");
    worker.stop().await;
}
