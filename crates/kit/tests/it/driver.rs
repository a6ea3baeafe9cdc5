//! What applications use must work as the application's role in a hardened database.

use sqlx::{Connection, Row};

use crate::{Pool, enter, pid, soon};

#[derive(Debug, PartialEq, sqlx::Type)]
#[sqlx(type_name = "mood", rename_all = "lowercase")]
enum Mood {
    Happy,
}

#[tokio::test]
async fn the_driver_finds_every_type() {
    let mut pool = Pool::new().await;
    pool.migrate(
        "CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN short AS text CHECK (length(value) < 9);
         CREATE TABLE things (id uuid PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), tags text[] NOT NULL, data jsonb NOT NULL, mood mood, moods mood[],
                              name short, span int4range, price numeric, raw bytea,
                              search tsvector GENERATED ALWAYS AS (to_tsvector('english', name)) STORED);
         SELECT insula.tenant_table('things')",
    )
    .await
    .expect("a table of many types");
    let one = pool.tenant(1).await;
    let mut app = pool.app().await;
    let pid = pid(&mut app).await;
    for _ in 0..3 {
        let mut tx = app.begin().await.expect("begin");
        enter(&mut tx, &pool.key(1).sign(one, 1, soon(), pid, 1)).await.expect("enter");
        let id = uuid::Uuid::new_v4();
        sqlx::query("INSERT INTO things (id, tags, data, mood, name, raw) VALUES ($1, $2, $3, $4, $5, $6)")
            .bind(id)
            .bind(vec!["a".to_owned(), "b".to_owned()])
            .bind(serde_json::json!({"k": [1, 2]}))
            .bind(Mood::Happy)
            .bind("words")
            .bind(vec![1_u8, 2])
            .execute(&mut *tx)
            .await
            .expect("insert");
        let row = sqlx::query(
            "SELECT id, at, tags, data, mood, name, search::text, span, ts_rank(search, to_tsquery('english', $2)) AS rank,
                    ts_headline('english', name, to_tsquery('english', $2)) AS headline
               FROM things WHERE id = $1 AND tags && $3 AND data @> $4",
        )
        .bind(id)
        .bind("word")
        .bind(vec!["a".to_owned()])
        .bind(serde_json::json!({"k": [2]}))
        .fetch_one(&mut *tx)
        .await
        .expect("select");
        assert_eq!(row.get::<Mood, _>("mood"), Mood::Happy);
        assert_eq!(row.get::<Vec<String>, _>("tags"), ["a", "b"]);
        assert_eq!(row.get::<serde_json::Value, _>("data")["k"][1], 2);
        assert_eq!(row.get::<String, _>("headline"), "<b>words</b>");
        let _: chrono::DateTime<chrono::Utc> = row.get("at");
        tx.commit().await.expect("commit");
    }
}
