//! What a new tenant has, in each isolation; what is refused.

use insula_control::model::{Page, PageRequest, RegisterCell, TenantFilter};
use insula_core::{Isolation, Kind, TenantState};
use sqlx::{Connection as _, PgConnection};

use crate::house::{HASH, House, count, create};

/// What the tenant's own login sees: a row tenant's through a grant, the others' by logging in.
async fn sees(house: &House, slug: &str) -> (i64, String) {
    let tenant = house.control.tenant(slug).await.expect("there");
    let place = tenant.placement.expect("placed");
    let url = house.server.role_url(&place.role(), &place.database);
    let mut conn = PgConnection::connect(&url).await.expect("its login");
    let mut tx = conn.begin().await.expect("begun");
    if place.isolation == Isolation::Row {
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *tx).await.expect("pid");
        let grant = house.control.grant("test", slug, pid).await.expect("granted");
        sqlx::query("SELECT insula.enter($1)").bind(grant.text()).execute(&mut *tx).await.expect("entered");
    }
    let users = count(&mut tx, "SELECT count(*) FROM users").await;
    let note = sqlx::query_scalar("SELECT body FROM notes").fetch_one(&mut *tx).await.expect("one note");
    (users, note)
}

#[tokio::test]
async fn every_isolation_ends_with_tables_seed_and_a_way_in() {
    let mut house = House::start().await;
    for isolation in [Isolation::Row, Isolation::Schema, Isolation::Database] {
        for n in 0..2 {
            let slug = format!("{isolation}-{n}");
            let tenant = house.tenant(&slug, isolation).await;
            assert_eq!((tenant.state, tenant.schema_version), (TenantState::Active, 2));
            assert_eq!(tenant.placement.expect("placed").isolation, isolation);
            assert_eq!(sees(&house, &slug).await, (1, format!("Welcome, {slug}")));
        }
    }
    house.assert_no_orphans().await;
    let findings = house.control.lint(&insula_control::model::LintTarget::All).await.expect("linted");
    assert!(findings.len() >= 5, "{findings:?}");
    assert!(findings.iter().all(|r| r.findings.iter().all(|f| f.severity != "error")), "{findings:?}");
    assert_eq!(house.control.verify_audit().await.expect("verified"), None);
    house.stop().await;
}

#[tokio::test]
async fn a_password_is_told_once_and_never_kept() {
    let mut house = House::start().await;
    let mut wanted = create("acme", Isolation::Row);
    wanted.admin_password_hash = None;
    let first = house.control.create_tenant("test", wanted.clone(), Some("key-1")).await.expect("accepted");
    let password = first.admin.password.clone().expect("told");
    house.done(first.operation.id).await;
    let again = house.control.create_tenant("test", wanted.clone(), Some("key-1")).await.expect("the same");
    assert!(again.repeated && again.admin.password.is_none());
    assert_eq!((again.tenant, again.operation.id), (first.tenant, first.operation.id));
    wanted.name = Some("Another".into());
    let other = house.control.create_tenant("test", wanted, Some("key-1")).await.expect_err("another request");
    assert_eq!(other.kind(), Kind::Conflict);
    let mut catalog = house.server.admin("insula_catalog").await;
    let kept: String = sqlx::query_scalar(
        "SELECT concat((SELECT string_agg(o::text, ' ') FROM catalog.operation o), (SELECT string_agg(a::text, ' ') FROM catalog.audit a),
                       (SELECT string_agg(x::text, ' ') FROM catalog.outbox x), (SELECT string_agg(e::text, ' ') FROM catalog.operation_event e))",
    )
    .fetch_one(&mut catalog)
    .await
    .expect("all of it");
    assert!(kept.contains("acme") && !kept.contains(&password));
    assert!(!format!("{first:?}").contains(&password));
    house.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_leaves_nothing() {
    let mut house = House::start().await;
    house.tenant("taken", Isolation::Row).await;
    let mut cases = Vec::new();
    cases.push((Kind::Conflict, "taken", create("taken", Isolation::Row)));
    let mut unknown_plan = create("acme", Isolation::Row);
    unknown_plan.plan = "diamond".parse().expect("a name");
    cases.push((Kind::Invalid, "diamond", unknown_plan));
    let mut no_cell = create("acme", Isolation::Row);
    no_cell.cell = Some("mars".parse().expect("a name"));
    cases.push((Kind::Invalid, "mars", no_cell));
    let mut no_label = create("acme", Isolation::Schema);
    no_label.labels = vec!["eu-only".into()];
    cases.push((Kind::Invalid, "eu-only", no_label));
    let mut nul = create("acme", Isolation::Row);
    nul.name = Some("a\0b".into());
    cases.push((Kind::Invalid, "U+0000", nul));
    let mut limit = create("acme", Isolation::Row);
    limit.limits.insert("max_moons".into(), 1);
    cases.push((Kind::Invalid, "max_moons", limit));
    cases.push((Kind::Conflict, "register one", create("acme", Isolation::Cell)));
    for (kind, says, wanted) in cases {
        let error = house.control.create_tenant("test", wanted, None).await.expect_err(says);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.public().contains(says), "{says}: {}", error.public());
    }
    house.assert_undone("acme").await;
    let Page { items, .. } = house.control.tenants(&TenantFilter::default(), &PageRequest::default()).await.expect("listed");
    assert_eq!(items.len(), 1);
    // SQL and odd Unicode are text like any other.
    let mut odd = create("acme", Isolation::Database);
    odd.name = Some("Robert'); DROP TABLE users;-- \u{1f3dd}\u{fe0f} Ünïcode".into());
    let made = house.control.create_tenant("test", odd, None).await.expect("accepted");
    house.done(made.operation.id).await;
    assert_eq!(sees(&house, "acme").await.1, "Welcome, Robert'); DROP TABLE users;-- \u{1f3dd}\u{fe0f} Ünïcode");
    house.stop().await;
}

#[tokio::test]
async fn a_cell_is_filled_to_the_last_place_and_no_further() {
    let mut house = House::start().await;
    sqlx::query("UPDATE catalog.cell SET capacity = 3").execute(house.control.catalog_pool()).await.expect("set");
    let asked = (0..8).map(|n| {
        let control = house.control.clone();
        async move { control.create_tenant("test", create(&format!("t-{n}"), Isolation::Row), None).await }
    });
    let answers = futures_util::future::join_all(asked).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (3, 5));
    for error in refused.into_iter().filter_map(Result::err) {
        assert_eq!(error.kind(), Kind::Conflict);
        assert!(error.public().contains("full"), "{}", error.public());
    }
    for made in made.into_iter().flatten() {
        house.done(made.operation.id).await;
    }
    house.assert_no_orphans().await;
    house.stop().await;
}

#[tokio::test]
async fn two_at_once_for_one_slug_and_one_wins() {
    let mut house = House::start().await;
    for round in 0..5 {
        let slug = format!("race-{round}");
        let asked = (0..6).map(|n| {
            let (control, wanted) = (house.control.clone(), create(&slug, Isolation::Row));
            // Two of them with the same key: they are one request.
            let key = format!("{slug}-{}", n.min(4));
            async move { control.create_tenant("test", wanted, Some(&key)).await }
        });
        let answers = futures_util::future::join_all(asked).await;
        let made: Vec<_> = answers.iter().flatten().collect();
        assert!(!made.is_empty() && made.iter().all(|m| m.tenant == made[0].tenant), "{answers:?}");
        assert!(answers.iter().filter_map(|a| a.as_ref().err()).all(|e| e.kind() == Kind::Conflict), "{answers:?}");
        house.done(made[0].operation.id).await;
    }
    house.assert_no_orphans().await;
    house.stop().await;
}

#[tokio::test]
async fn a_migration_that_breaks_or_leaks_is_refused_before_it_is_kept() {
    let mut house = House::start().await;
    let with = |sql: &str| {
        let mut bundle = crate::house::bundle();
        bundle.migrations.push(insula_control::model::Migration { version: 3, name: "three".into(), sql: sql.into() });
        bundle
    };
    for (sql, says) in
        [("CREATE TABLE broken (\n  id uuid,\n  nonsense nonsense);", "line 3"), ("CREATE TABLE bare (id uuid)", "tenant_table")]
    {
        let error = house.control.put_bundle("test", with(sql)).await.expect_err(sql);
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.public().contains(says), "{}", error.public());
    }
    let mut changed = crate::house::bundle();
    changed.migrations[0].sql.push_str("; SELECT 1");
    assert_eq!(house.control.put_bundle("test", changed).await.expect_err("changed").kind(), Kind::Conflict);
    assert_eq!(house.control.status().await.expect("status").schema_version, 2);
    let tenants = [Isolation::Row, Isolation::Schema, Isolation::Database];
    for isolation in tenants {
        house.tenant(&format!("before-{isolation}"), isolation).await;
    }
    // And a good one reaches everybody.
    let put = house.control.put_bundle("test", with("CREATE TABLE tags (name text); SELECT insula.tenant_table('tags')")).await;
    house.done(put.expect("good").operation.expect("news").id).await;
    for isolation in tenants {
        assert_eq!(house.control.tenant(&format!("before-{isolation}")).await.expect("there").schema_version, 3);
        assert_eq!(house.tenant(&format!("after-{isolation}"), isolation).await.schema_version, 3);
    }
    house.assert_no_orphans().await;
    house.stop().await;
}

#[tokio::test]
async fn a_cell_tenant_takes_a_registered_server_of_its_own() {
    let house = House::start().await;
    let other = insula_testkit::second_server().await;
    let mut secrets = tempfile::NamedTempFile::new().expect("a file");
    let json = serde_json::json!({"cells": {"second": other.admin_url("postgres")}});
    std::io::Write::write_all(&mut secrets, json.to_string().as_bytes()).expect("written");
    let path = secrets.path().to_owned();
    let mut house = {
        let mut first = house;
        first.stop().await;
        first.another(|config| config.cell_secrets = Some(path)).await
    };
    let register = RegisterCell {
        name: "second".parse().expect("a name"),
        region: "local".into(),
        labels: vec![],
        host: other.host().into(),
        port: other.port(),
        tls: "prefer".into(),
        app_url: None,
        capacity: 1,
        dedicated: true,
    };
    house.control.register_cell("test", register).await.expect("registered");
    let mut broken = create("broken", Isolation::Cell);
    broken.admin_password_hash = Some(HASH.into());
    let tenant = house.tenant("big", Isolation::Cell).await;
    let place = tenant.placement.expect("placed");
    assert_eq!((place.cell.as_str(), tenant.schema_version), ("second", 2));
    let mut conn = PgConnection::connect(&other.role_url(&place.role(), &place.database)).await.expect("its login");
    assert_eq!(count(&mut conn, "SELECT count(*) FROM users").await, 1);
    let full = house.control.create_tenant("test", broken, None).await.expect_err("no second one");
    assert_eq!(full.kind(), Kind::Conflict);
    house.assert_no_orphans().await;
    let operation = house
        .control
        .operation_events(
            house.control.operations(&Default::default(), &PageRequest::default()).await.expect("listed").items[0].id,
            0,
        )
        .await;
    assert!(operation.expect("events").iter().any(|e| e.step == "register" && e.what == "done"));
    house.stop().await;
}

/// What is left of a tenant in a queue of 100,000 jobs of others goes, and others' are not even read.
#[tokio::test]
async fn a_tenant_s_jobs_are_removed_without_reading_everybody_s() {
    let mut house = House::start().await;
    house.tenant("acme", Isolation::Row).await;
    let mut pool = house.server.admin("insula_pool").await;
    let fill = "INSERT INTO insula.tenant (no, epoch) VALUES (987654, 1);
        INSERT INTO insula.job (tenant_id, id, state, due, created_at, kind, body)
            SELECT CASE WHEN n % 1000 < 3 THEN 987654 ELSE 1000000 + n % 100 END, gen_random_uuid(),
                   (ARRAY['w', 'l', 'r'])[1 + n % 3]::\"char\", now() + interval '1 hour', now(), 'nothing', 'null'
              FROM generate_series(0, 99999) n";
    sqlx::raw_sql(fill).execute(&mut pool).await.unwrap();
    sqlx::raw_sql("VACUUM ANALYZE insula.job").execute(&mut pool).await.unwrap();
    assert_eq!(insula_control::reconcile::clean(&house.control).await.unwrap(), vec![]);
    let left = "SELECT count(*) FILTER (WHERE tenant_id = 987654), count(*) FROM insula.job";
    let sums = "SELECT n_tup_del, seq_tup_read FROM pg_stat_user_tables WHERE relid = 'insula.job'::regclass";
    // A server's sums come when the session that did it has nothing to do for a while. Asked before we count by ourselves.
    let mut read = None;
    for _ in 0..600 {
        let (deleted, sum): (i64, i64) = sqlx::query_as(sums).fetch_one(&mut pool).await.unwrap();
        if deleted > 0 {
            read = Some(sum);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(sqlx::query_as::<_, (i64, i64)>(left).fetch_one(&mut pool).await.unwrap(), (0, 99_700));
    assert_eq!(read, Some(0), "jobs were read one after the other");
    house.stop().await;
}
