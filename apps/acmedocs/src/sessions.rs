//! Who is logged in. A token is 256 random bits; the database keeps its hash only.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use insula::{Error, Kind, Result, TenantTx};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A session's secret, as its holder has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl Token {
    /// A fresh one.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn new() -> Result<Self> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::internal("no randomness"))?;
        Ok(Self(bytes))
    }

    /// Reads what [`Token::text`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// For its holder.
    #[must_use]
    pub fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// What a form of this session carries, so that no other site can send it. Says nothing about the token.
    #[must_use]
    pub fn form_secret(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &[b"form:".as_slice(), &self.0].concat()))
    }

    fn hash(&self) -> Vec<u8> {
        digest(&SHA256, &self.0).as_ref().to_vec()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

/// What a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything.
    Admin,
    /// Read and write documents.
    Editor,
    /// Read documents.
    Reader,
}

impl Role {
    /// As the database has it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Editor => "editor",
            Self::Reader => "reader",
        }
    }
}

impl TryFrom<String> for Role {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "admin" => Ok(Self::Admin),
            "editor" => Ok(Self::Editor),
            "reader" => Ok(Self::Reader),
            _ => Err(format!("{text:?} is no role")),
        }
    }
}

/// Somebody who is logged in.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct User {
    /// Identity.
    pub id: Uuid,
    /// Address.
    pub email: String,
    /// Rights.
    #[sqlx(try_from = "String")]
    pub role: Role,
}

impl User {
    /// # Errors
    /// `Denied` for readers.
    pub fn must_write(&self) -> Result<()> {
        match self.role {
            Role::Admin | Role::Editor => Ok(()),
            Role::Reader => Err(Error::public(Kind::Denied, "Your role may read, and not change, documents.")),
        }
    }

    /// # Errors
    /// `Denied` for all but admins.
    pub fn must_administer(&self) -> Result<()> {
        match self.role {
            Role::Admin => Ok(()),
            Role::Editor | Role::Reader => Err(Error::public(Kind::Denied, "Only an admin may see and change this.")),
        }
    }
}

/// Starts a session; clears away expired ones on the way (index `sessions_expiry`).
///
/// # Errors
/// As the database says.
pub async fn start(tx: &mut TenantTx, user: Uuid) -> Result<(Token, DateTime<Utc>)> {
    sqlx::query("DELETE FROM sessions WHERE expires_at < now()").execute(&mut *tx).await?;
    let token = Token::new()?;
    let expires = sqlx::query_scalar(
        "INSERT INTO sessions (token_hash, user_id, expires_at) VALUES ($1, $2, now() + interval '30 days') RETURNING expires_at",
    )
    .bind(token.hash())
    .bind(user)
    .fetch_one(&mut *tx)
    .await?;
    Ok((token, expires))
}

/// Whose session it is.
///
/// # Errors
/// `Unauthenticated` when it is nobody's, or over.
pub async fn holder(tx: &mut TenantTx, token: &Token) -> Result<User> {
    sqlx::query_as(
        "SELECT u.id, u.email, u.role FROM sessions s JOIN users u ON u.id = s.user_id
         WHERE s.token_hash = $1 AND s.expires_at > now()",
    )
    .bind(token.hash())
    .fetch_optional(&mut *tx)
    .await?
    .ok_or_else(unknown)
}

/// Ends a session.
///
/// # Errors
/// As the database says.
pub async fn end(tx: &mut TenantTx, token: &Token) -> Result<()> {
    sqlx::query("DELETE FROM sessions WHERE token_hash = $1").bind(token.hash()).execute(&mut *tx).await?;
    Ok(())
}

/// The answer to a missing, foreign or outdated token: the same for all.
#[must_use]
pub fn unknown() -> Error {
    Error::public(Kind::Unauthenticated, "Log in first: POST /api/session, then send the token as a bearer token.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_text_and_hides_in_logs() {
        let token = Token::new().expect("randomness");
        assert_eq!(Token::parse(&token.text()), Some(token.clone()));
        assert_eq!(format!("{token:?}"), "Token(***)");
        assert_ne!(token.form_secret(), token.text());
        for bad in ["", "x", "Bearer", &"A".repeat(42), &"A".repeat(44), "ä"] {
            assert_eq!(Token::parse(bad), None, "{bad}");
        }
    }
}
