//! Documents: what they are and their SQL.
//!
//! Always: every change leaves a version behind, and tells of itself, in the same statement or transaction.

use std::fmt;

use chrono::{DateTime, Utc};
use insula::{Error, Kind, Result, TenantTx};
use serde::{Deserialize, Deserializer, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use crate::{events, tags};

/// The longest title, characters.
pub const LONGEST_TITLE: usize = 300;
/// The longest body, bytes.
pub const LONGEST_BODY: usize = 1 << 20;
/// Documents on a page of a list, at most.
pub const LARGEST_PAGE: i64 = 200;

/// A document's number in its workspace: `DOC-000123`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, sqlx::Type)]
#[sqlx(transparent)]
#[serde(transparent)]
pub struct Number(i64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DOC-{:06}", self.0)
    }
}

impl Serialize for Number {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// How a body is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// CommonMark.
    #[default]
    Markdown,
    /// As it is.
    Plain,
}

impl Format {
    /// As the database has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Markdown => "markdown",
            Self::Plain => "plain",
        }
    }
}

impl TryFrom<String> for Format {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "markdown" => Ok(Self::Markdown),
            "plain" => Ok(Self::Plain),
            _ => Err(format!("{text:?} is no format")),
        }
    }
}

/// A document, whole.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Document {
    /// Identity.
    pub id: Uuid,
    /// For people.
    pub number: Number,
    /// One line.
    pub title: String,
    /// Text.
    pub body: String,
    /// How the text is written.
    #[sqlx(try_from = "String")]
    pub format: Format,
    /// Counts up with every change.
    pub version: i32,
    /// Sorted.
    pub tags: Vec<String>,
    /// Where it was imported from.
    pub source: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// A document in a list.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Entry {
    /// Identity.
    pub id: Uuid,
    /// For people.
    pub number: Number,
    /// One line.
    pub title: String,
    /// The beginning of the body, in one line without headings' and rulers' signs.
    pub excerpt: String,
    /// Counts up with every change.
    pub version: i32,
    /// Sorted.
    pub tags: Vec<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// A page of a list, newest first.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// The documents.
    pub items: Vec<Entry>,
    /// What to give as `after` for the next page.
    pub next: Option<Uuid>,
}

/// What a new document is made of.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct New {
    /// One line, 1 to 300 characters.
    pub title: String,
    /// Text, up to 1 MiB.
    pub body: String,
    /// Up to 20.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Markdown unless said otherwise.
    #[serde(default)]
    pub format: Format,
    /// Where it comes from; a second document from the same source is refused.
    #[serde(default)]
    pub source: Option<String>,
}

/// What of a document is to change.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// A new title.
    #[serde(default, deserialize_with = "present")]
    pub title: Option<String>,
    /// A new body.
    #[serde(default, deserialize_with = "present")]
    pub body: Option<String>,
    /// All tags anew.
    #[serde(default, deserialize_with = "present")]
    pub tags: Option<Vec<String>>,
    /// Another format.
    #[serde(default, deserialize_with = "present")]
    pub format: Option<Format>,
    /// The version that the change was made to; another one refuses it.
    #[serde(default)]
    pub version: Option<i32>,
}

/// `null` is a value that does not fit, rather than "no change".
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

const COLUMNS: &str = "d.id, d.number, d.title, d.body, d.format, d.version, d.source, d.created_at, d.updated_at,
    ARRAY(SELECT t.tag FROM tags t WHERE t.document = d.id ORDER BY t.tag) AS tags";

/// Makes a document.
///
/// # Errors
/// `Invalid` with the field; `Conflict` when the source was imported before.
pub async fn create(tx: &mut TenantTx, author: Uuid, new: New) -> Result<Document> {
    check_title(&new.title)?;
    check_body(&new.body)?;
    let tags = tags::normal(new.tags)?;
    if new.source.as_ref().is_some_and(|source| source.is_empty() || source.chars().count() > 1_000) {
        return Err(Error::field("source", "has 1 to 1000 characters"));
    }
    let made = sqlx::query_as(
        "WITH d AS (
             INSERT INTO documents (id, number, title, body, format, source, author)
             VALUES ($1, insula.next_number('document'), $2, $3, $4, $5, $6) RETURNING *
         ), t AS (
             INSERT INTO tags (document, tag) SELECT d.id, tag FROM d, unnest($7::text[]) tag
         ), v AS (
             INSERT INTO document_versions (document, version, title, body, format, author)
             SELECT id, version, title, body, format, author FROM d
         )
         SELECT id, number, title, body, format, version, source, created_at, updated_at, $7::text[] AS tags FROM d",
    );
    let document = made
        .bind(Uuid::now_v7())
        .bind(&new.title)
        .bind(&new.body)
        .bind(new.format.as_str())
        .bind(&new.source)
        .bind(author)
        .bind(&tags)
        .fetch_one(&mut *tx)
        .await
        .map_err(|e| Error::from(e).when(Kind::Conflict, || Error::public(Kind::Conflict, "This source was imported before.")))?;
    events::document(tx, events::CREATED, &document, author).await?;
    Ok(document)
}

/// Reads a document.
///
/// # Errors
/// `NotFound`.
pub async fn read(tx: &mut TenantTx, id: Uuid) -> Result<Document> {
    fetch(tx, id, "").await
}

async fn fetch(tx: &mut TenantTx, id: Uuid, lock: &str) -> Result<Document> {
    let sql = format!("SELECT {COLUMNS} FROM documents d WHERE d.id = $1 {lock}");
    let found = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(&mut *tx).await?;
    found.ok_or_else(Error::not_found)
}

/// A page of documents, newest first (ids sort by time: index `documents_pkey`, or `tags_tag`).
///
/// # Errors
/// As the database says.
pub async fn list(tx: &mut TenantTx, limit: i64, after: Option<Uuid>, tag: Option<&str>) -> Result<Page> {
    let sql = "SELECT d.id, d.number, d.title, left(regexp_replace(left(d.body, 400), '(^|\\n)[#>]+ |[=*~_`-]{2,}|\\s+', ' ', 'g'), 240) AS excerpt, d.version, d.created_at, d.updated_at,
                  ARRAY(SELECT t.tag FROM tags t WHERE t.document = d.id ORDER BY t.tag) AS tags
           FROM documents d WHERE ($1::uuid IS NULL OR d.id < $1)";
    let by_tag = "AND d.id IN (SELECT document FROM tags WHERE tag = $3)";
    // Two texts rather than one with an OR, so that each has a plan of its own.
    let mut items: Vec<Entry> = match tag {
        None => {
            let sql = format!("{sql} ORDER BY d.id DESC LIMIT $2");
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(after).bind(limit + 1).fetch_all(&mut *tx).await?
        }
        Some(tag) => {
            let sql = format!("{sql} {by_tag} ORDER BY d.id DESC LIMIT $2");
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(after).bind(limit + 1).bind(tag).fetch_all(&mut *tx).await?
        }
    };
    let more = i64::try_from(items.len()).unwrap_or(i64::MAX) > limit;
    if more {
        items.pop();
    }
    let next = items.last().filter(|_| more).map(|entry| entry.id);
    Ok(Page { items, next })
}

/// Changes a document. `expected` is the version that `If-Match` names.
///
/// # Errors
/// `NotFound`; `Precondition` or `Conflict` when it changed meanwhile; `Invalid` with the field.
pub async fn update(tx: &mut TenantTx, author: Uuid, id: Uuid, change: Change, expected: Option<i32>) -> Result<Document> {
    change.title.as_deref().map_or(Ok(()), check_title)?;
    change.body.as_deref().map_or(Ok(()), check_body)?;
    let tags = change.tags.map(tags::normal).transpose()?;

    let now = fetch(tx, id, "FOR UPDATE OF d").await?;
    let stale = |kind| Error::public(kind, format!("It is at version {} now: read it again, then change that.", now.version));
    if expected.is_some_and(|version| version != now.version) {
        return Err(stale(Kind::Precondition));
    }
    if change.version.is_some_and(|version| version != now.version) {
        return Err(stale(Kind::Conflict));
    }
    let wanted = Document {
        title: change.title.unwrap_or_else(|| now.title.clone()),
        body: change.body.unwrap_or_else(|| now.body.clone()),
        format: change.format.unwrap_or(now.format),
        tags: tags.unwrap_or_else(|| now.tags.clone()),
        ..now.clone()
    };
    if wanted.tags != now.tags {
        tags::replace(tx, id, &wanted.tags).await?;
    }
    if (&wanted.title, &wanted.body, wanted.format, &wanted.tags) == (&now.title, &now.body, now.format, &now.tags) {
        return Ok(now);
    }
    write(tx, author, &wanted).await?;
    let written = read(tx, id).await?;
    events::document(tx, events::UPDATED, &written, author).await?;
    Ok(written)
}

async fn write(tx: &mut TenantTx, author: Uuid, document: &Document) -> Result<()> {
    let Document { id, title, body, format, .. } = document;
    sqlx::query(
        "WITH d AS (
             UPDATE documents SET title = $2, body = $3, format = $4, version = version + 1, updated_at = now()
             WHERE id = $1 RETURNING *
         )
         INSERT INTO document_versions (document, version, title, body, format, author)
         SELECT id, version, title, body, format, $5 FROM d",
    )
    .bind(id)
    .bind(title)
    .bind(body)
    .bind(format.as_str())
    .bind(author)
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Deletes a document with its versions and tags; the digest of the day says so.
///
/// # Errors
/// `NotFound`; `Precondition` when it is at another version than `expected`.
pub async fn delete(tx: &mut TenantTx, who: Uuid, id: Uuid, expected: Option<i32>) -> Result<()> {
    let version: Option<i32> =
        sqlx::query_scalar("SELECT version FROM documents WHERE id = $1 FOR UPDATE").bind(id).fetch_optional(&mut *tx).await?;
    let version = version.ok_or_else(Error::not_found)?;
    if expected.is_some_and(|expected| expected != version) {
        return Err(Error::public(Kind::Precondition, format!("It is at version {version} now.")));
    }
    let sql = "WITH d AS (DELETE FROM documents WHERE id = $1 RETURNING id, number, title)
               INSERT INTO deletions (document, number, title, deleted_by) SELECT id, number, title, $2 FROM d RETURNING number, title";
    let (number, title): (Number, String) = sqlx::query_as(sql).bind(id).bind(who).fetch_one(&mut *tx).await?;
    events::deleted(tx, id, number, &title, who).await
}

fn check_title(title: &str) -> Result<()> {
    if title.trim().is_empty() || title.chars().count() > LONGEST_TITLE {
        return Err(Error::field("title", format!("has 1 to {LONGEST_TITLE} characters, not all of them blank")));
    }
    if title.contains(['\n', '\r']) {
        return Err(Error::field("title", "is one line"));
    }
    Ok(())
}

fn check_body(body: &str) -> Result<()> {
    if body.len() > LONGEST_BODY {
        return Err(Error::field("body", format!("has {LONGEST_BODY} bytes at most")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!((Number(123).to_string(), Number(1_234_567).to_string()), ("DOC-000123".into(), "DOC-1234567".into()));
    }

    #[test]
    fn titles_are_one_line() {
        for bad in ["", "   ", "a\nb", &"x".repeat(301)] {
            assert!(check_title(bad).is_err(), "{bad:?}");
        }
        assert!(check_title(&"ß".repeat(300)).is_ok());
    }
}
