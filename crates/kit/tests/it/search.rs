//! Search keeps its index under row security.

use sqlx::Row;

use crate::{Pool, run};

#[tokio::test]
async fn containment_and_full_text_use_the_tenants_index() {
    let mut pool = Pool::new().await;
    pool.migrate(
        "CREATE TABLE docs (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), body text, meta jsonb, tags text[],
                            search tsvector GENERATED ALWAYS AS (to_tsvector('english', body)) STORED);
         SELECT insula.tenant_table('docs');
         SELECT insula.search_index('docs', 'search'), insula.search_index('docs', 'meta', 'jsonb_path_ops'), insula.search_index('docs', 'tags')",
    )
    .await
    .expect("indexes");
    run(
        &mut pool.admin,
        "INSERT INTO app.docs (tenant_id, body, meta, tags)
         SELECT 1 + g % 20, 'word' || g % 97, jsonb_build_object('k', g % 97), ARRAY['t' || g % 97] FROM generate_series(1, 20000) g;
         SET backtrace_functions = '7'",
    )
    .await
    .expect("rows");
    // Vacuum empties the index's pending list, which the planner would shy away from.
    run(&mut pool.admin, "VACUUM ANALYZE app.docs").await.expect("vacuum");
    run(&mut pool.admin, "SET ROLE insula_app").await.expect("role");
    for (condition, index) in [
        ("search @@ to_tsquery('english', 'word13')", "docs_search_search"),
        ("meta @> '{\"k\": 13}'", "docs_meta_search"),
        ("tags @> ARRAY['t13']", "docs_tags_search"),
    ] {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("EXPLAIN (COSTS OFF) SELECT id FROM app.docs WHERE {condition}")))
            .fetch_all(&mut pool.admin)
            .await
            .expect("a plan");
        let plan: String = rows.iter().map(|r| r.get::<String, _>(0) + "\n").collect();
        assert!(plan.contains(&format!("Bitmap Index Scan on {index}")) && !plan.contains("Filter"), "{condition}: {plan}");
    }
}

#[tokio::test]
async fn a_column_that_cannot_be_searched_is_refused_with_the_remedy() {
    let mut pool = Pool::new().await;
    let error = pool
        .migrate("CREATE TABLE docs (id uuid PRIMARY KEY, body text); SELECT insula.tenant_table('docs'); SELECT insula.search_index('docs', 'body')")
        .await
        .expect_err("text is not searched by containment");
    let sqlx::Error::Database(error) = error else { panic!("{error}") };
    let hint = error.downcast_ref::<sqlx::postgres::PgDatabaseError>().hint().unwrap_or_default().to_owned();
    assert!(hint.contains("GENERATED ALWAYS AS (to_tsvector"), "{hint}");
}
