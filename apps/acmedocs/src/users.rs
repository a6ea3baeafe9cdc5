//! Who may log in: the workspace's users, and how many its plan has room for.
//!
//! Always: users come, change and go one at a time in a workspace (its one row is locked), so that two at once can neither
//! exceed the plan nor leave a workspace without an admin. No connection to the database is held while a password is hashed.

use std::time::Duration;

use chrono::{DateTime, Utc};
use insula::{Error, Kind, Problem, Result, Tenant, TenantTx};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use crate::caller::{self, Work};
use crate::password::{LONGEST, Passwords, SHORTEST};
use crate::sessions::{Role, Token};
use crate::{dashboard, login};

/// A user, as admins see one.
#[derive(Clone, Debug, Serialize, FromRow)]
pub struct Entry {
    /// Identity.
    pub id: Uuid,
    /// Address.
    pub email: String,
    /// Rights.
    #[sqlx(try_from = "String")]
    pub role: Role,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// Who is to be added.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct New {
    /// Case does not matter.
    pub email: String,
    /// Rights.
    pub role: Role,
    /// As it is; one is made up when it is left out.
    #[serde(default)]
    pub password: Option<String>,
}

/// Who was added.
#[derive(Serialize)]
pub struct Added {
    /// The user.
    #[serde(flatten)]
    pub user: Entry,
    /// The password that was made up: shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// Everybody, by address (index `users_email`).
///
/// # Errors
/// As the database says.
pub async fn list(tx: &mut TenantTx) -> Result<Vec<Entry>> {
    Ok(sqlx::query_as("SELECT id, email, role, created_at FROM users ORDER BY email").fetch_all(tx).await?)
}

/// Adds a user, when who asks is an admin and the plan has room.
///
/// # Errors
/// `Denied` for others than admins; `Limited` when the plan is full; `Conflict` when the address is a user's; `Invalid` for what
/// can be no address or password.
pub async fn add(tenant: &Tenant, token: &Token, passwords: &Passwords, new: New) -> Result<Added> {
    let email = login::address(&new.email)?;
    let (password, made_up) = match new.password {
        Some(password) if (SHORTEST..=LONGEST).contains(&password.len()) => (password, None),
        Some(_) => return Err(Error::field("password", format!("has {SHORTEST} to {LONGEST} bytes"))),
        None => {
            let text: String = Token::new()?.text().chars().take(24).collect();
            (text.clone(), Some(text))
        }
    };
    let most = tenant.plan().limits.max_users;
    // Looked at before the work of hashing, and again when it counts.
    let mut work = administer(tenant, token).await?;
    room(&mut work.tx, most).await?;
    work.tx.commit().await?;
    let hash = passwords.hash(tenant, password).await?;
    let mut work = administer(tenant, token).await?;
    one_at_a_time(&mut work.tx).await?;
    room(&mut work.tx, most).await?;
    let added = sqlx::query_as(
        "INSERT INTO users (id, email, password, role) VALUES (gen_random_uuid(), $1, $2, $3)
         ON CONFLICT ON CONSTRAINT users_email DO NOTHING RETURNING id, email, role, created_at",
    );
    let added: Option<Entry> = added.bind(&email).bind(hash).bind(new.role.as_str()).fetch_optional(&mut work.tx).await?;
    let user = added.ok_or_else(|| Error::public(Kind::Conflict, format!("{email} is a user already.")))?;
    dashboard::commit(tenant, work.tx).await?;
    Ok(Added { user, password: made_up })
}

/// Gives a user another role; it holds from the next request on.
///
/// # Errors
/// `Denied` for others than admins; `NotFound`; `Conflict` when no admin would be left.
pub async fn change(tenant: &Tenant, token: &Token, user: Uuid, role: Role) -> Result<Entry> {
    let mut work = administer(tenant, token).await?;
    one_at_a_time(&mut work.tx).await?;
    if role != Role::Admin {
        keep_an_admin(&mut work.tx, user).await?;
    }
    let changed = sqlx::query_as("UPDATE users SET role = $2 WHERE id = $1 RETURNING id, email, role, created_at");
    let changed = changed.bind(user).bind(role.as_str()).fetch_optional(&mut work.tx).await?.ok_or_else(Error::not_found)?;
    work.tx.commit().await?;
    Ok(changed)
}

/// Removes a user and ends its sessions; what it wrote stays.
///
/// # Errors
/// `Denied` for others than admins; `NotFound`; `Conflict` when no admin would be left.
pub async fn remove(tenant: &Tenant, token: &Token, user: Uuid) -> Result<()> {
    let mut work = administer(tenant, token).await?;
    one_at_a_time(&mut work.tx).await?;
    keep_an_admin(&mut work.tx, user).await?;
    let removed = sqlx::query("DELETE FROM users WHERE id = $1").bind(user).execute(&mut work.tx).await?.rows_affected();
    if removed == 0 {
        return Err(Error::not_found());
    }
    dashboard::commit(tenant, work.tx).await?;
    Ok(())
}

async fn administer(tenant: &Tenant, token: &Token) -> Result<Work> {
    let work = caller::begin(tenant, token).await?;
    work.user.must_administer()?;
    Ok(work)
}

/// Waits until nobody else changes this workspace's users; what is read after that is the present.
async fn one_at_a_time(tx: &mut TenantTx) -> Result<()> {
    let row: Option<bool> = sqlx::query_scalar("SELECT one FROM workspace FOR UPDATE").fetch_optional(tx).await?;
    row.map(drop).ok_or_else(|| Error::internal("the workspace has no row"))
}

async fn room(tx: &mut TenantTx, most: u32) -> Result<()> {
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(tx).await?;
    if users < i64::from(most) {
        return Ok(());
    }
    let text = format!("Your plan has room for {most} users, and there are {users}: remove one, or change the plan.");
    // Waiting does not help by itself; a client that does so anyway comes rarely.
    Err(Error::problem(Kind::Limited, Problem::new(Kind::Limited).detail(text).retry_after(Duration::from_secs(3600))))
}

async fn keep_an_admin(tx: &mut TenantTx, but: Uuid) -> Result<()> {
    let others = sqlx::query_scalar("SELECT EXISTS (SELECT FROM users WHERE role = 'admin' AND id <> $1)");
    let others: bool = others.bind(but).fetch_one(&mut *tx).await?;
    let there = sqlx::query_scalar("SELECT EXISTS (SELECT FROM users WHERE id = $1)");
    let there: bool = there.bind(but).fetch_one(&mut *tx).await?;
    if others || !there {
        return Ok(());
    }
    Err(Error::public(Kind::Conflict, "Nobody else is an admin here: make somebody one first."))
}
