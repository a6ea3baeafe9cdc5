//! Log-in: email and password for a session.
//!
//! Always: an unknown email costs the same work and gets the same answer as a wrong password, and no connection to the
//! database is held while a password is hashed.

use aws_lc_rs::digest::{SHA256, digest};
use chrono::{DateTime, Utc};
use insula::{Error, Kind, Problem, Result, Tenant, TenantTx};
use serde::Deserialize;
use uuid::Uuid;

use crate::password::{LONGEST, Passwords};
use crate::sessions::{self, Role, Token, User};

/// What somebody types.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Case does not matter.
    pub email: String,
    /// As it is.
    pub password: String,
}

/// An opened session.
#[derive(Debug)]
pub struct Opened {
    /// Its secret.
    pub token: Token,
    /// Its end.
    pub expires_at: DateTime<Utc>,
    /// Whose it is.
    pub user: User,
}

/// An address that a new user may have, in lower case. Stricter than the log-in: domains of other scripts come as punycode.
///
/// # Errors
/// `Invalid` when it is none.
pub fn address(text: &str) -> Result<String> {
    let email = text.trim().to_ascii_lowercase();
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic() && !b"@<>()[],;:\\\"".contains(&b));
    match email.split_once('@') {
        Some((name, domain)) if email.len() <= 254 && plain(name) && plain(domain) => Ok(email),
        _ => Err(no_address()),
    }
}

fn no_address() -> Error {
    Error::field("email", "is no email address")
}

/// Attempts that may fail before the address has to wait.
const ATTEMPTS: i32 = 10;
const WINDOW_SECONDS: i64 = 15 * 60;

#[derive(sqlx::FromRow)]
struct Account {
    id: Uuid,
    email: String,
    #[sqlx(try_from = "String")]
    role: Role,
    password: String,
}

/// Checks the credentials and opens a session.
///
/// # Errors
/// `Unauthenticated` when they do not fit; `Limited` after too many failures; `Invalid` for what can be no credentials.
pub async fn log_in(tenant: &Tenant, passwords: &Passwords, typed: Credentials) -> Result<Opened> {
    let email = typed.email.trim().to_lowercase();
    if !(3..=254).contains(&email.len()) || !email.contains('@') {
        return Err(no_address());
    }
    if typed.password.is_empty() || typed.password.len() > LONGEST {
        return Err(Error::field("password", format!("has 1 to {LONGEST} bytes")));
    }

    // Counted before it is checked, so that many at once cannot slip past the count.
    let mut tx = tenant.begin().await?;
    let account = attempt(&mut tx, &email).await?;
    tx.commit().await?;

    let hash = account.as_ref().map(|account| account.password.clone());
    let right = passwords.check(tenant, typed.password, hash).await?;
    let Some(Account { id, email, role, .. }) = account.filter(|_| right) else {
        return Err(Error::public(Kind::Unauthenticated, "Email or password is wrong."));
    };

    let mut tx = tenant.begin().await?;
    sqlx::query("DELETE FROM login_attempts WHERE email_hash = $1").bind(email_hash(&email)).execute(&mut tx).await?;
    let (token, expires_at) = sessions::start(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Opened { token, expires_at, user: User { id, email, role } })
}

async fn attempt(tx: &mut TenantTx, email: &str) -> Result<Option<Account>> {
    sqlx::query("DELETE FROM login_attempts WHERE since < now() - make_interval(secs => $1)")
        .bind(WINDOW_SECONDS as f64)
        .execute(&mut *tx)
        .await?;
    let attempts: i32 = sqlx::query_scalar(
        "INSERT INTO login_attempts AS a (email_hash, attempts) VALUES ($1, 1)
         ON CONFLICT ON CONSTRAINT login_attempts_email DO UPDATE SET attempts = a.attempts + 1 RETURNING a.attempts",
    )
    .bind(email_hash(email))
    .fetch_one(&mut *tx)
    .await?;
    if attempts > ATTEMPTS {
        let wait = std::time::Duration::from_secs(WINDOW_SECONDS.unsigned_abs());
        let words = "Too many attempts for this address; try again later.";
        return Err(Error::problem(Kind::Limited, Problem::new(Kind::Limited).detail(words).retry_after(wait)));
    }
    let account = sqlx::query_as("SELECT id, email, role, password FROM users WHERE email = $1");
    Ok(account.bind(email).fetch_optional(&mut *tx).await?)
}

fn email_hash(email: &str) -> Vec<u8> {
    digest(&SHA256, email.as_bytes()).as_ref().to_vec()
}
