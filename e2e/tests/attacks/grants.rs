//! Grants that are not what they say.

use insula_core::{Grant, TenantState};
use insula_kit::Way;
use sqlx::{Connection, PgConnection};

use crate::stage::{Mode, OWN, SECRET, Stage, VICTIM, enter, everything_said, no, soon};

/// Tries a grant's text in a transaction and returns what can be read then.
async fn try_text(conn: &mut PgConnection, text: Option<&str>) -> String {
    let mut tx = conn.begin().await.expect("begin");
    let entered = sqlx::query("SELECT insula.enter($1)").bind(text).execute(&mut *tx).await;
    if let Err(error) = &entered {
        let code = error.as_database_error().and_then(|e| e.code()).unwrap_or_default().into_owned();
        assert!(code == "28000" || code == "28T01" || code == "28T02", "{text:?}: {error}");
    }
    let (_, said) = everything_said(&mut tx, "SELECT * FROM docs").await;
    tx.rollback().await.expect("rollback");
    match entered {
        Ok(_) => format!("entered: {said}"),
        Err(_) => said,
    }
}

async fn forge_all(way: Way) {
    let mut stage = Stage::new(Mode::Row, way).await;
    let mut conn = stage.attacker().await;
    let good = stage.grant(&mut conn, OWN).await;
    let pid = good.pid;
    let other_database = stage.server.cell_key().grant_key("another", 1);
    let unknown_kid = stage.server.cell_key().grant_key(&stage.database, 9);
    let sign = |epoch, expires, pid| stage.key().sign(no(VICTIM), epoch, expires, pid, Grant::NO_FENCE);
    let fields: Vec<String> = good.text().split('.').map(str::to_owned).collect();
    let with = |at: usize, value: &str| {
        let mut f = fields.clone();
        f[at] = value.to_owned();
        f.join(".")
    };
    let mut mac = fields[6].clone();
    mac.replace_range(0..1, if mac.starts_with('0') { "1" } else { "0" });
    let mut swapped = fields.clone();
    swapped.swap(0, 1);
    let forged = [
        String::new(),
        ".".repeat(6),
        "null".to_owned(),
        with(6, &mac),
        with(6, &mac[..62]),
        with(6, ""),
        with(6, &fields[6].to_uppercase().replace(|c: char| c.is_ascii_digit(), "A")),
        with(0, &VICTIM.to_string()),
        with(0, &format!("0{OWN}")),
        with(0, &format!("{OWN} ")),
        with(0, "-101"),
        with(0, "99999999999999999999"),
        with(1, "2"),
        with(2, &(soon() + 1000).to_string()),
        with(3, &(pid + 1).to_string()),
        with(4, "1"),
        with(5, "2"),
        format!("{}.", good.text()),
        format!(".{}", good.text()),
        format!("{}.0", good.text()),
        fields[..6].join("."),
        fields[1..].join("."),
        swapped.join("."),
        good.text().replace('.', "|"),
        format!("{}\n", good.text()),
        sign(1, soon() - 60, pid).text(),
        sign(1, 0, pid).text(),
        sign(1, soon(), pid + 1).text(),
        sign(0, soon(), pid).text(),
        sign(7, soon(), pid).text(),
        other_database.sign(no(VICTIM), 1, soon(), pid, Grant::NO_FENCE).text(),
        unknown_kid.sign(no(VICTIM), 1, soon(), pid, Grant::NO_FENCE).text(),
        stage.key().sign(no(999), 1, soon(), pid, Grant::NO_FENCE).text(),
    ];
    for text in &forged {
        let said = try_text(&mut conn, Some(text)).await;
        assert!(!said.starts_with("entered") && !said.contains(SECRET), "{way:?}: {text:?}: {said}");
    }
    assert!(!try_text(&mut conn, None).await.contains(SECRET));
    // The good one is good, here and nowhere else; and what it was refused for leaves no trace in the session.
    assert!(try_text(&mut conn, Some(&good.text())).await.starts_with("entered"));
    let mut elsewhere = stage.attacker().await;
    assert!(!try_text(&mut elsewhere, Some(&good.text())).await.starts_with("entered"));
    for text in &forged {
        assert!(!try_text(&mut conn, Some(text)).await.starts_with("entered"), "after a good one: {text:?}");
    }
    remembered(&stage, &mut conn, &good).await;
    insula_kit::set_tenant(&mut stage.admin, no(OWN), 2, TenantState::Active).await.expect("set_tenant");
    assert!(!try_text(&mut conn, Some(&good.text())).await.starts_with("entered"), "an old epoch, remembered or not");
}

/// Binary arguments near a grant that this session has verified and remembers.
async fn remembered(stage: &Stage, conn: &mut PgConnection, good: &Grant) {
    let mac = good.mac.to_vec();
    type Fields = (Option<i64>, Option<i64>, Option<i32>, Vec<u8>);
    let cases: [Fields; 9] = [
        (Some(VICTIM), Some(1), Some(1), mac.clone()),
        (Some(OWN), Some(1), Some(1), vec![]),
        (Some(OWN), Some(1), Some(1), mac[..31].to_vec()),
        (Some(OWN), Some(1), Some(1), [mac.clone(), vec![0]].concat()),
        (Some(OWN), Some(1), Some(11), mac.clone()),
        (None, Some(1), Some(1), mac.clone()),
        (Some(OWN), None, Some(1), mac.clone()),
        (Some(OWN), Some(1), None, mac.clone()),
        (Some(OWN), Some(1), None, vec![1]),
    ];
    for (tenant, epoch, kid, mac) in cases {
        for output in ["hex", "escape"] {
            let mut tx = conn.begin().await.expect("begin");
            let set = if output == "hex" { "SET LOCAL bytea_output = hex" } else { "SET LOCAL bytea_output = escape" };
            sqlx::query(set).execute(&mut *tx).await.expect("an output format");
            let entered = sqlx::query("SELECT insula.enter($1, $2, $3, $4, $5, $6)")
                .bind(tenant)
                .bind(epoch)
                .bind(good.expires)
                .bind(good.fence)
                .bind(kid)
                .bind(&mac)
                .execute(&mut *tx)
                .await;
            // NULLs may return, without binding.
            let bound = entered.is_ok() && everything_said(&mut tx, "SELECT insula.current_tenant()").await.1.trim() != "";
            assert!(!bound, "{:?}: {tenant:?} {epoch:?} {kid:?} {output}", stage.way);
            tx.rollback().await.expect("rollback");
        }
    }
    enter(conn, good).await.expect("the good one still is");
}

#[tokio::test]
async fn forged_grants_open_nothing_by_setting() {
    forge_all(Way::Setting).await;
}

#[tokio::test]
async fn forged_grants_open_nothing_by_ticket() {
    forge_all(Way::Ticket).await;
}
