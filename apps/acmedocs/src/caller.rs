//! Who asks: a tenant's page or API with a session's token, not yet looked up.
//!
//! Always: no connection to the database is held while a request's body comes in; [`Caller::begin`] opens the one transaction
//! that looks the session up and does the work.

use axum::extract::FromRequestParts;
use axum::http::header::{AUTHORIZATION, COOKIE};
use axum::http::request::Parts;
use insula::{Error, Result, Tenant, TenantTx};

use crate::sessions::{self, Token, User};

/// The cookie of a browser's session.
pub const SESSION_COOKIE: &str = "session";

/// The holder of a bearer token (the API).
#[derive(Debug)]
pub struct Caller {
    tenant: Tenant,
    token: Token,
}

/// The holder of a session's cookie (pages), if any.
#[derive(Debug)]
pub struct Visitor {
    /// Whose pages.
    pub tenant: Tenant,
    /// The cookie.
    pub token: Option<Token>,
}

/// A transaction and who works in it.
#[derive(Debug)]
pub struct Work {
    /// Commit it, or nothing happened.
    pub tx: TenantTx,
    /// Who.
    pub user: User,
}

impl Caller {
    /// Opens the transaction and looks the session up.
    ///
    /// # Errors
    /// `Unauthenticated` when the token opens nothing here.
    pub async fn begin(&self) -> Result<Work> {
        begin(&self.tenant, &self.token).await
    }

    /// Whose API.
    #[must_use]
    pub const fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    /// The session's secret.
    #[must_use]
    pub const fn token(&self) -> &Token {
        &self.token
    }
}

impl Visitor {
    /// Opens the transaction and looks the session up.
    ///
    /// # Errors
    /// `Unauthenticated` when there is no session.
    pub async fn begin(&self) -> Result<Work> {
        begin(&self.tenant, self.token.as_ref().ok_or_else(sessions::unknown)?).await
    }
}

/// Opens the transaction of whoever has this token.
///
/// # Errors
/// `Unauthenticated` when it opens nothing here.
pub async fn begin(tenant: &Tenant, token: &Token) -> Result<Work> {
    let mut tx = tenant.begin().await?;
    let user = sessions::holder(&mut tx, token).await?;
    Ok(Work { tx, user })
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let tenant = Tenant::from_request_parts(parts, state).await?;
        let bearer =
            parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| value.split_once(' '));
        let token =
            bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).and_then(|(_, token)| Token::parse(token.trim()));
        Ok(Self { tenant, token: token.ok_or_else(sessions::unknown)? })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Error;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let tenant = Tenant::from_request_parts(parts, state).await?;
        let cookies = parts.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let token = pairs.find(|(name, _)| *name == SESSION_COOKIE).and_then(|(_, value)| Token::parse(value));
        Ok(Self { tenant, token })
    }
}
