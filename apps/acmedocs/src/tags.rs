//! Tags: short lower-case words on documents.

use insula::{Error, Result, TenantTx};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Tags on one document, at most.
pub const MOST: usize = 20;
/// The longest tag, characters.
pub const LONGEST: usize = 50;

/// A tag and how many documents have it.
#[derive(Clone, Debug, Deserialize, Serialize, sqlx::FromRow)]
pub struct Count {
    /// The tag.
    pub tag: String,
    /// Documents.
    pub documents: i64,
}

/// Trimmed, lower case, each once, sorted.
///
/// # Errors
/// `Invalid` with the tag at fault.
pub fn normal(tags: Vec<String>) -> Result<Vec<String>> {
    if tags.len() > MOST {
        return Err(Error::field("tags", format!("are {MOST} at most")));
    }
    let mut clean = Vec::with_capacity(tags.len());
    for (i, tag) in tags.into_iter().enumerate() {
        let tag = tag.trim().to_lowercase();
        if !(1..=LONGEST).contains(&tag.chars().count()) || tag.chars().any(char::is_control) {
            return Err(Error::field(format!("tags[{i}]"), format!("has 1 to {LONGEST} characters")));
        }
        clean.push(tag);
    }
    clean.sort();
    clean.dedup();
    Ok(clean)
}

/// Gives a document these tags and no others.
///
/// # Errors
/// As the database says.
pub async fn replace(tx: &mut TenantTx, document: Uuid, tags: &[String]) -> Result<()> {
    sqlx::query("DELETE FROM tags WHERE document = $1 AND tag <> ALL ($2)").bind(document).bind(tags).execute(&mut *tx).await?;
    sqlx::query("INSERT INTO tags (document, tag) SELECT $1, tag FROM unnest($2::text[]) tag ON CONFLICT DO NOTHING")
        .bind(document)
        .bind(tags)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

/// The most used tags.
///
/// # Errors
/// As the database says.
pub async fn counts(tx: &mut TenantTx, limit: i64) -> Result<Vec<Count>> {
    let sql = "SELECT tag, count(*) AS documents FROM tags GROUP BY tag ORDER BY documents DESC, tag LIMIT $1";
    Ok(sqlx::query_as(sql).bind(limit).fetch_all(&mut *tx).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_come_to_one_form() {
        let tags = |list: &[&str]| normal(list.iter().map(|t| (*t).to_owned()).collect());
        assert_eq!(tags(&[" B ", "a", "b"]).expect("fits"), ["a", "b"]);
        for bad in ["", "  ", "a\u{7}b", &"x".repeat(51)] {
            assert!(tags(&[bad]).is_err(), "{bad:?}");
        }
        assert!(normal(vec!["x".to_owned(); 21]).is_err());
    }
}
