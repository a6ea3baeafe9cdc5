//! Every attack of the list, bound to the attacker's own tenant and unbound, in every mode and way.

use insula_e2e::attack::{ATTACKS, Attack, End};
use insula_kit::{Severity, Way};
use sqlx::{Connection, PgConnection};

use crate::stage::{Mode, SECRET, Stage, everything_said, run};

async fn attack_all(mode: Mode, way: Way) {
    let mut stage = Stage::new(mode, way).await;
    let victims = stage.victims().await;
    assert!(victims.contains(SECRET));
    let mut faults = Vec::new();
    let mut conn = stage.attacker().await;
    for one in ATTACKS {
        for bound in [true, false] {
            let fault = attack(&mut stage, &mut conn, &victims, one, bound).await;
            faults.extend(fault.map(|f| format!("{} ({}): {f}", one.0, if bound { "bound" } else { "unbound" })));
        }
    }
    assert!(faults.is_empty(), "{mode:?}, {way:?}:\n{}", faults.join("\n"));
    let findings = insula_kit::lint(&mut stage.admin).await.expect("lint");
    assert!(findings.iter().all(|f| f.severity < Severity::Warning), "after the attacks: {findings:#?}");
}

async fn attack(stage: &mut Stage, conn: &mut PgConnection, victims: &str, attack: &Attack, bound: bool) -> Option<String> {
    let (_, sql, end) = attack;
    let (sql, end) = (stage.words(sql), *end);
    // What is left to the gate is not let last here: some of it would lock the attacker out.
    let in_transaction = bound || end == End::GateOnly;
    if in_transaction {
        run(conn, "BEGIN").await.expect("begin");
    }
    if bound {
        stage.bind(conn).await;
    }
    let (allowed, said) = everything_said(conn, &sql).await;
    // What a statement-only attacker could not keep is kept here: his writes are committed.
    let finish = if end == End::GateOnly { "ROLLBACK" } else { "COMMIT" };
    let mut after = String::new();
    if in_transaction {
        after = everything_said(conn, finish).await.1;
    }
    let (_, rows) = everything_said(conn, "SELECT * FROM docs").await;
    after.push_str(&rows);
    if stage.victims().await != victims {
        panic!("the victim's rows were changed by {sql}");
    }
    stage.mend().await;
    // The driver forgets its statements as the server does.
    conn.clear_cached_statements().await.expect("no statements");
    run(conn, "DISCARD ALL").await.expect("a clean session for the next attack");
    if said.contains(SECRET) || after.contains(SECRET) {
        return Some(format!("showed the victim's rows: {said} {after}"));
    }
    let must_refuse = match end {
        End::Refused => true,
        End::RefusedByHardening => stage.way == Way::Setting,
        _ => false,
    };
    if must_refuse && allowed {
        return Some(format!("was allowed: {said}"));
    }
    (end == End::Succeeds && bound && !allowed).then(|| format!("was refused, which tells: {said}"))
}

#[tokio::test]
async fn row_by_setting() {
    attack_all(Mode::Row, Way::Setting).await;
}

#[tokio::test]
async fn row_by_ticket() {
    attack_all(Mode::Row, Way::Ticket).await;
}

#[tokio::test]
async fn schema_by_setting() {
    attack_all(Mode::Schema, Way::Setting).await;
}

#[tokio::test]
async fn schema_by_ticket() {
    attack_all(Mode::Schema, Way::Ticket).await;
}

#[tokio::test]
async fn database_by_setting() {
    attack_all(Mode::Database, Way::Setting).await;
}

#[tokio::test]
async fn database_by_ticket() {
    attack_all(Mode::Database, Way::Ticket).await;
}
