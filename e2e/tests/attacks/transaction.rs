//! What a transaction leaves to the next: nothing. And one transaction has one tenant.

use insula_kit::Way;

use crate::stage::{Mode, OWN, SECRET, Stage, VICTIM, enter, everything_said, run};

async fn own_rows(conn: &mut sqlx::PgConnection) -> String {
    let (allowed, said) = everything_said(conn, "SELECT tenant_id FROM docs").await;
    assert!(allowed, "{said}");
    said.trim().to_owned()
}

async fn boundaries(way: Way) {
    let stage = Stage::new(Mode::Row, way).await;
    let mut conn = stage.attacker().await;
    let own = stage.grant(&mut conn, OWN).await;
    let victims = stage.grant(&mut conn, VICTIM).await;

    // Ends with the transaction, however that ends, also within one message.
    for end in ["COMMIT", "ROLLBACK", "COMMIT; BEGIN", "ROLLBACK; BEGIN", "COMMIT AND CHAIN", "ROLLBACK AND CHAIN"] {
        run(&mut conn, "BEGIN").await.expect("begin");
        enter(&mut conn, &own).await.expect("enter");
        assert_eq!(own_rows(&mut conn).await, OWN.to_string());
        run(&mut conn, end).await.expect(end);
        assert_eq!(own_rows(&mut conn).await, "", "{way:?}: after {end}");
        run(&mut conn, "ROLLBACK").await.expect("rollback");
    }
    // A savepoint from before the binding takes it back.
    run(&mut conn, "BEGIN; SAVEPOINT before").await.expect("savepoint");
    enter(&mut conn, &own).await.expect("enter");
    run(&mut conn, "ROLLBACK TO before").await.expect("rollback to");
    assert_eq!(own_rows(&mut conn).await, "");
    run(&mut conn, "ROLLBACK").await.expect("rollback");
    // Two good grants, one transaction.
    for between in ["SELECT 1", "SET insula.ticket = ''", "SAVEPOINT s", "SET CONSTRAINTS ALL IMMEDIATE"] {
        run(&mut conn, "BEGIN").await.expect("begin");
        enter(&mut conn, &own).await.expect("enter");
        run(&mut conn, between).await.expect(between);
        let refusal = enter(&mut conn, &victims).await.expect_err("a second tenant");
        assert_eq!(refusal.as_database_error().and_then(|e| e.code()).as_deref(), Some("28000"), "{between}");
        run(&mut conn, "ROLLBACK").await.expect("rollback");
    }
    // A ticket or setting that was seen in one transaction is worth nothing in the next.
    run(&mut conn, "BEGIN").await.expect("begin");
    enter(&mut conn, &own).await.expect("enter");
    let (_, ticket) = everything_said(&mut conn, "SELECT current_setting('insula.ticket', true)").await;
    run(&mut conn, "COMMIT").await.expect("commit");
    run(&mut conn, &format!("SET insula.ticket = '{}'", ticket.trim())).await.expect("an ordinary setting");
    assert_eq!(own_rows(&mut conn).await, "", "{way:?}: a ticket was used twice");
}

async fn cursors_and_reuse(way: Way) {
    let stage = Stage::new(Mode::Row, way).await;
    let mut conn = stage.attacker().await;
    let victims = stage.grant(&mut conn, VICTIM).await;
    let own = stage.grant(&mut conn, OWN).await;
    // The victim's transaction opens a cursor and a prepared statement; the attacker comes after it on the same connection.
    run(&mut conn, "BEGIN").await.expect("begin");
    enter(&mut conn, &victims).await.expect("enter");
    run(&mut conn, "DECLARE c CURSOR FOR SELECT * FROM docs; PREPARE p AS SELECT * FROM docs").await.expect("left behind");
    let (_, seen) = everything_said(&mut conn, "EXECUTE p").await;
    assert!(seen.contains(SECRET), "the victim sees its own");
    run(&mut conn, "COMMIT").await.expect("commit");
    for bound in [false, true] {
        run(&mut conn, "BEGIN").await.expect("begin");
        if bound {
            enter(&mut conn, &own).await.expect("enter");
        }
        let (_, said) = everything_said(&mut conn, "EXECUTE p").await;
        assert!(!said.contains(SECRET), "{way:?}: a prepared statement kept another tenant's plan");
        let (open, _) = everything_said(&mut conn, "FETCH ALL FROM c").await;
        assert!(!open, "the cursor ended with its transaction");
        run(&mut conn, "ROLLBACK").await.expect("rollback");
    }
}

/// `RESET ALL` is the one statement that unbinds. By setting, whoever has two good grants for this connection may then use the second in
/// the same transaction: it opens what two transactions would have opened, one tenant at a time. With one grant there is nothing to gain.
async fn unbound(way: Way) {
    let stage = Stage::new(Mode::Row, way).await;
    let mut conn = stage.attacker().await;
    let own = stage.grant(&mut conn, OWN).await;
    let victims = stage.grant(&mut conn, VICTIM).await;
    run(&mut conn, "BEGIN").await.expect("begin");
    enter(&mut conn, &own).await.expect("enter");
    assert_eq!(own_rows(&mut conn).await, OWN.to_string());
    run(&mut conn, "RESET ALL").await.expect("anybody may");
    assert_eq!(own_rows(&mut conn).await, "", "{way:?}: unbound is denied");
    run(&mut conn, "SAVEPOINT unbound").await.expect("savepoint");
    let forged = insula_core::Grant { no: victims.no, ..own };
    let refusal = enter(&mut conn, &forged).await.expect_err("one's own grant with another's number");
    assert_eq!(refusal.as_database_error().and_then(|e| e.code()).as_deref(), Some("28000"));
    run(&mut conn, "ROLLBACK TO unbound").await.expect("rollback to");
    match (way, enter(&mut conn, &victims).await) {
        (Way::Setting, opened) => {
            opened.expect("the holder of both grants");
            let victim = VICTIM.to_string();
            assert!(own_rows(&mut conn).await.lines().all(|row| row == victim), "the second tenant's rows, and no others");
        }
        // The lock that the first grant took is remembered, whatever was reset.
        (Way::Ticket, opened) => assert!(opened.is_err(), "a second tenant"),
    }
    run(&mut conn, "ROLLBACK").await.expect("the end");
    assert_eq!(own_rows(&mut conn).await, "");
}

#[tokio::test]
async fn reset_all_needs_both_grants_by_setting() {
    unbound(Way::Setting).await;
}

#[tokio::test]
async fn reset_all_needs_both_grants_by_ticket() {
    unbound(Way::Ticket).await;
}

#[tokio::test]
async fn a_binding_ends_with_its_transaction_by_setting() {
    boundaries(Way::Setting).await;
}

#[tokio::test]
async fn a_binding_ends_with_its_transaction_by_ticket() {
    boundaries(Way::Ticket).await;
}

#[tokio::test]
async fn what_a_transaction_leaves_is_worth_nothing_by_setting() {
    cursors_and_reuse(Way::Setting).await;
}

#[tokio::test]
async fn what_a_transaction_leaves_is_worth_nothing_by_ticket() {
    cursors_and_reuse(Way::Ticket).await;
}
