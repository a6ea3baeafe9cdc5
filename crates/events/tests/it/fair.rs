//! Tenants take turns: nobody's many events delay another's few. Counted in rounds and in events, never in time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use insula_core::TenantId;
use insula_events::{Envelope, SendError, Sink};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio::sync::Notify;

use crate::bus::number;
use crate::house::House;

/// What a relay takes at most.
const MOST: i32 = 500;
const BYTES: i64 = 8 << 20;

/// A round as a relay has it: tenant, number, bytes of the body.
async fn round(admin: &mut PgConnection) -> Vec<(i64, i64, usize)> {
    let mut tx = admin.begin().await.expect("a transaction");
    let sql = "SELECT tenant_id, seq, body FROM insula.outbox_take($1, $2, '{}')";
    let rows = sqlx::query(sql).bind(MOST).bind(BYTES).fetch_all(&mut *tx).await.expect("events");
    let seqs: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
    let sent: i64 = sqlx::query_scalar("SELECT insula.outbox_sent($1)").bind(&seqs).fetch_one(&mut *tx).await.expect("sent");
    tx.commit().await.expect("committed");
    assert_eq!(usize::try_from(sent).expect("few"), rows.len(), "each was taken once");
    let read = |row: &sqlx::postgres::PgRow| {
        let body: String = row.get(2);
        (row.get(0), number(body.as_bytes()), body.len())
    };
    rows.iter().map(read).collect()
}

/// Numbers of one tenant in a round.
fn of(round: &[(i64, i64, usize)], tenant: i64) -> Vec<i64> {
    round.iter().filter(|(no, ..)| *no == tenant).map(|(_, n, _)| *n).collect()
}

/// Events `first` to `last` of a tenant, by its own SQL; `more` is more JSON of each body.
async fn publish(house: &House, no: i64, first: i64, last: i64, more: &str) {
    for begin in (first..=last).step_by(500) {
        let mut tx = house.begin(no).await;
        let sql = format!(
            "SELECT insula.publish(array_agg('a'::text), array_agg(gen_random_uuid()), array_agg('{{\"n\":' || n || '{more}}}' ORDER BY n))
               FROM generate_series({begin}, {}) n",
            last.min(begin + 499)
        );
        sqlx::query(AssertSqlSafe(sql)).execute(&mut tx).await.expect("published");
        tx.commit().await.expect("committed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_of_one_tenant_are_in_the_next_round_whatever_another_has() {
    let house = House::new(2).await;
    publish(&house, 1, 1, 20_000, "").await;
    publish(&house, 2, 1, 10, "").await;
    let mut admin = house.admin().await;
    let first = round(&mut admin).await;
    assert_eq!(of(&first, 2), (1..=10).collect::<Vec<_>>());
    // Nothing of the round is left over, and nobody's order is changed.
    assert_eq!(of(&first, 1), (1..=490).collect::<Vec<_>>());
    let mut ones = of(&first, 1);
    publish(&house, 2, 11, 20, "").await;
    assert_eq!(of(&round(&mut admin).await, 2), (11..=20).collect::<Vec<_>>());
    ones.extend(491..=980);
    for _ in 0..38 {
        let alone = round(&mut admin).await;
        assert_eq!(alone.len(), 500, "one that is alone has all of it");
        ones.extend(of(&alone, 1));
    }
    ones.extend(of(&round(&mut admin).await, 1));
    assert_eq!(ones, (1..=20_000).collect::<Vec<_>>());
    assert!(round(&mut admin).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_tenants_than_a_round_has_places_are_served_in_turn() {
    let house = House::new(1_200).await;
    house
        .run(
            "INSERT INTO insula.event (tenant_id, id, topic, at, body)
             SELECT t, gen_random_uuid(), 'a', now(), json_build_object('n', n)
               FROM generate_series(1, 1200) t, generate_series(1, CASE t WHEN 700 THEN 5000 ELSE 2 END) n ORDER BY n, t",
        )
        .await;
    let mut admin = house.admin().await;
    let mut got: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for turn in 1..=5 {
        let round = round(&mut admin).await;
        assert_eq!(round.len(), 500, "round {turn}");
        for (no, n, _) in round {
            got.entry(no).or_default().push(n);
        }
        let others = || got.iter().filter(|(no, _)| **no != 700).map(|(_, line)| line.len());
        if turn * 500 < 1_200 {
            assert_eq!((got.len(), others().max()), (turn * 500, Some(1)), "nobody's second before everybody's first");
        } else {
            assert_eq!((got.len(), others().min() >= others().max().map(|most| most - 1)), (1_200, true), "round {turn}");
        }
    }
    let many = got.remove(&700).expect("it has had its turns");
    assert!(got.values().all(|line| line[..] == [1, 2]));
    // Who is left has what others leave, and then all there is.
    assert_eq!(many, (1..=2_500 - 2 * 1_199).collect::<Vec<_>>());
    assert_eq!(of(&round(&mut admin).await, 700).len(), 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_of_one_leave_room_for_another_s_however_small_they_lie() {
    let house = House::new(2).await;
    // Stored, they are a hundredth of that.
    let much = format!(",\"much\":\"{}\"", "x".repeat(240_000));
    publish(&house, 1, 1, 100, &much).await;
    publish(&house, 2, 1, 20, "").await;
    let mut admin = house.admin().await;
    let first = round(&mut admin).await;
    assert_eq!(of(&first, 2), (1..=20).collect::<Vec<_>>());
    let bytes: usize = first.iter().map(|(_, _, bytes)| bytes).sum();
    assert!(bytes < (8 << 20) + 250_000, "{bytes} bytes in one round");
    assert!(of(&first, 1).len() > 30);
}

/// Waits at one event of a tenant until it is let go, and says whose each was that came.
struct Gate {
    at: i64,
    reached: Notify,
    open: Notify,
    got: Mutex<Vec<TenantId>>,
}

impl Sink for Gate {
    fn is_up(&self) -> bool {
        true
    }

    fn send<'a>(&'a self, envelope: &'a Envelope, body: &'a str) -> BoxFuture<'a, Result<(), SendError>> {
        Box::pin(async move {
            if number(body.as_bytes()) == self.at {
                self.reached.notify_one();
                self.open.notified().await;
            }
            self.got.lock().expect("a lock").push(envelope.tenant);
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_in_the_midst_of_an_import_is_told_in_the_next_round() {
    let house = House::new(2).await;
    publish(&house, 1, 1, 20_000, "").await;
    let gate = Arc::new(Gate { at: 750, reached: Notify::new(), open: Notify::new(), got: Mutex::default() });
    let relay = house.relay(gate.clone());
    gate.reached.notified().await;
    publish(&house, 2, 50_001, 50_010, "").await;
    gate.open.notify_one();
    house.until("the ten", "SELECT count(*) = 0 FROM insula.event WHERE tenant_id = 2").await;
    let two = house.tenant(2).tenant;
    let got = gate.got.lock().expect("a lock").clone();
    assert_eq!(got.iter().filter(|tenant| **tenant == two).count(), 10);
    let last = got.iter().rposition(|tenant| *tenant == two).expect("ten");
    assert!(last < 1_500, "the round that was under way, and one more: {last}");
    house.empty().await;
    assert_eq!(gate.got.lock().expect("a lock").len(), 20_010);
    relay.stop().await;
}
