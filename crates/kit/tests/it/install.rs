//! Installing, again and again, on top of what is there.

use insula_kit::Way;

use sqlx::Connection;

use crate::queue::until_one_waits;
use crate::{Pool, enter, pid, refused, run, soon};

#[tokio::test]
async fn installing_again_changes_nothing_and_keeps_data() {
    let mut pool = Pool::new().await;
    pool.migrate("CREATE TABLE notes (id uuid PRIMARY KEY, body text); SELECT insula.tenant_table('notes')")
        .await
        .expect("a table");
    let one = pool.tenant(1).await;
    for _ in 0..3 {
        let done = insula_kit::install(&mut pool.admin, &pool.database, &pool.server.cell_key(), 1).await.expect("install");
        assert_eq!((done.way, done.fence), (Way::Setting, 1));
    }
    let mut app = pool.app().await;
    let pid = pid(&mut app).await;
    enter(&mut app, &pool.key(1).sign(one, 1, soon(), pid, 1)).await.expect("still good");
}

#[tokio::test]
async fn keys_rotate_with_one_overlap() {
    let mut pool = Pool::new().await;
    let one = pool.tenant(1).await;
    let mut app = pool.app().await;
    let pid = pid(&mut app).await;
    for (installed, good, bad) in [(1, vec![1], vec![2]), (2, vec![1, 2], vec![3]), (3, vec![2, 3], vec![1])] {
        insula_kit::install(&mut pool.admin, &pool.database, &pool.server.cell_key(), installed).await.expect("install");
        for kid in good {
            enter(&mut app, &pool.key(kid).sign(one, 1, soon(), pid, 1)).await.expect("a good key");
        }
        for kid in bad {
            // A grant that this session has verified stays good until it expires: so not one of those.
            assert_eq!(refused(enter(&mut app, &pool.key(kid).sign(one, 1, soon() + 100, pid, 1)).await), "28000");
        }
    }
}

#[tokio::test]
async fn a_clean_database_has_no_findings() {
    let mut pool = Pool::new().await;
    pool.migrate("CREATE TABLE notes (id uuid PRIMARY KEY, body text); SELECT insula.tenant_table('notes')")
        .await
        .expect("a table");
    assert_eq!(insula_kit::lint(&mut pool.admin).await.expect("lint"), []);
}

#[tokio::test]
async fn no_function_has_the_key_in_its_text() {
    let mut pool = Pool::new().await;
    let (inner, outer) = pool.key(1).pads();
    let texts: Vec<String> = sqlx::query_scalar("SELECT prosrc FROM pg_proc WHERE pronamespace = 'insula'::regnamespace")
        .fetch_all(&mut pool.admin)
        .await
        .expect("the kit's functions");
    assert!(texts.len() > 20 && texts.iter().all(|t| !t.contains(&inner) && !t.contains(&outer)));
}

#[tokio::test]
async fn enter_is_in_c_exactly_where_the_server_offers_the_module() {
    let mut pool = Pool::new().await;
    let language: String = sqlx::query_scalar(
        "SELECT l.lanname::text FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
          WHERE p.oid = 'insula.enter(bigint, bigint, bigint, bigint, integer, bytea)'::regprocedure",
    )
    .fetch_one(&mut pool.admin)
    .await
    .expect("the function");
    let offered = std::env::var_os("INSULA_SERVER_MODULE").is_some();
    assert_eq!(language, if offered { "c" } else { "plpgsql" });
}

/// As a kit made it that is older: the queue goes on with what is in it.
#[tokio::test]
async fn an_older_queue_is_brought_up_to_date() {
    let mut pool = Pool::new().await;
    pool.tenant(1).await;
    let older = "ALTER TABLE insula.job DROP CONSTRAINT job_pkey, ADD CONSTRAINT job_pkey PRIMARY KEY (tenant_id, id);
        ALTER TABLE insula.lane DROP COLUMN reach;
        INSERT INTO insula.lane (tenant_id, ready) VALUES (1, true);
        INSERT INTO insula.job (tenant_id, id, due, created_at, kind, body)
            SELECT 1, gen_random_uuid(), now() + n * interval '1 ms', now(), 'nothing', 'null' FROM generate_series(1, 5) n";
    sqlx::raw_sql(older).execute(&mut pool.admin).await.expect("an older queue");
    for _ in 0..2 {
        insula_kit::install(&mut pool.admin, &pool.database, &pool.server.cell_key(), 1).await.expect("install");
        let key = "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'insula.job'::regclass AND contype = 'p'";
        let key: String = sqlx::query_scalar(key).fetch_one(&mut pool.admin).await.expect("a key");
        assert_eq!(key, "PRIMARY KEY (id, tenant_id)");
    }
    let mut left = 5;
    for want in [1_i64, 1, 2, 5] {
        let sql = "SELECT count(*) FROM insula.work(1, '{}', '{}', '{}', $1)";
        let taken: i64 = sqlx::query_scalar(sql).bind(want).fetch_one(&mut pool.admin).await.expect("work");
        assert_eq!(taken, want.min(left));
        left -= taken;
    }
    assert_eq!(left, 0);
}

/// What would wait behind it, had it waited for the transaction: everybody who publishes.
#[tokio::test]
async fn a_transaction_that_stays_open_holds_up_the_installation_and_nobody_else() {
    let mut pool = Pool::new().await;
    let tenants = [pool.tenant(1).await, pool.tenant(2).await];
    let (mut one, mut two) = (pool.app().await, pool.app().await);
    let publish = "SELECT insula.publish('{a}', ARRAY[gen_random_uuid()], '{1}')";
    let pids = [pid(&mut one).await, pid(&mut two).await];
    let mut open = one.begin().await.expect("begin");
    enter(&mut open, &pool.key(1).sign(tenants[0], 1, soon(), pids[0], -1)).await.expect("enter");
    run(&mut open, publish).await.expect("published");
    let (database, key) = (pool.database.clone(), pool.server.cell_key());
    let mut admin = pool.server.admin(&pool.database).await;
    let installing = tokio::spawn(async move { insula_kit::install(&mut admin, &database, &key, 1).await });
    until_one_waits(&mut pool.admin).await;
    // Behind it, as long as it waits; and it goes on while that one is open.
    let mut tx = two.begin().await.expect("begin");
    run(&mut tx, "SET LOCAL statement_timeout = '20s'").await.expect("set");
    enter(&mut tx, &pool.key(1).sign(tenants[1], 1, soon(), pids[1], -1)).await.expect("enter");
    run(&mut tx, publish).await.expect("published");
    tx.commit().await.expect("committed");
    assert!(!installing.is_finished());
    open.commit().await.expect("still open");
    installing.await.expect("no panic").expect("installed");
}
