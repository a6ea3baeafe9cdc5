//! Full-text search, ranked, with the words found marked.

use chrono::{DateTime, Utc};
use insula::{Result, TenantTx};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use crate::documents::Number;
use crate::markdown::escape;

/// Documents on a page of results, at most.
pub const LARGEST_PAGE: i64 = 50;
/// How deep results can be paged.
pub const DEEPEST: i64 = 1_000;
/// The longest question, characters.
pub const LONGEST: usize = 500;

/// Results of a search, best first.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Documents that match.
    pub total: i64,
    /// The best of them.
    pub items: Vec<Hit>,
}

/// A document that matches.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Hit {
    /// Identity.
    pub id: Uuid,
    /// For people.
    pub number: Number,
    /// One line.
    pub title: String,
    /// HTML: escaped text of the body around the words found, which stand in `<mark>`.
    pub highlight: String,
    /// Higher is better.
    pub rank: f32,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
    #[serde(skip)]
    total: i64,
}

// Marks that no HTML and, after translate(), no text holds; they become tags once everything else is escaped.
const START: char = '\u{2}';
const STOP: char = '\u{3}';

/// Searches as people write (`"exact words" -without or`). Only the page that is shown is highlighted: that is the dear part
/// (the kit's search index).
///
/// # Errors
/// As the database says.
pub async fn find(tx: &mut TenantTx, question: &str, limit: i64, offset: i64) -> Result<Found> {
    let mut items: Vec<Hit> = sqlx::query_as(
        "WITH question AS MATERIALIZED (SELECT websearch_to_tsquery('english', $1) AS words),
         best AS MATERIALIZED (
             SELECT d.id, ts_rank_cd(d.search, question.words)::real AS rank, count(*) OVER () AS total
             FROM documents d, question WHERE d.search @@ question.words
             ORDER BY rank DESC, d.id DESC LIMIT $2 OFFSET $3
         )
         SELECT d.id, d.number, d.title, d.updated_at, best.rank, best.total,
                ts_headline('english', translate(left(d.body, 50000), E'\\x02\\x03', ''), question.words,
                            E'StartSel=\\x02, StopSel=\\x03, MaxFragments=2, MaxWords=28, MinWords=12, FragmentDelimiter=\" … \"'
                ) AS highlight
         FROM best JOIN documents d ON d.id = best.id, question ORDER BY best.rank DESC, d.id DESC",
    )
    .bind(question)
    .bind(limit)
    .bind(offset)
    .fetch_all(&mut *tx)
    .await?;
    for hit in &mut items {
        hit.highlight = escape(&hit.highlight).replace(START, "<mark>").replace(STOP, "</mark>");
    }
    Ok(Found { total: items.first().map_or(0, |hit| hit.total), items })
}
