//! Passwords: argon2id, a few at a time, and as slow for a user that does not exist as for one that does.
//!
//! Always: whoever tries passwords at one workspace keeps nobody from logging in at another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use insula::{Error, Kind, Result, Tenant};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

/// The longest password that is hashed; longer ones would buy an attacker time of ours.
pub const LONGEST: usize = 1_000;

/// The shortest password that is taken for a new user.
pub const SHORTEST: usize = 8;

/// How long a log-in waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks passwords. Each check takes 19 MiB and some 20 ms of one core, so only as many run at once as there are cores, and
/// never all of them. Of these, those of one workspace are at or in line for half at once; the rest of them waits in a line of its own.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// By the workspace's number; gone when nobody stands in it.
    lines: Arc<Mutex<HashMap<i64, Weak<Semaphore>>>>,
    half: usize,
    decoy: Arc<str>,
}

/// The right to keep one core busy; and the place in its workspace's line.
#[derive(Debug)]
struct Turn {
    _of_all: OwnedSemaphorePermit,
    _of_its_own: OwnedSemaphorePermit,
}

impl Passwords {
    /// Ready to check.
    #[must_use]
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::at_once((cores - 1).clamp(1, 8))
    }

    fn at_once(turns: usize) -> Self {
        // Hashing fails for absurd parameters only; an empty decoy would merely answer faster.
        let decoy = hash("a password that nobody has").unwrap_or_default();
        Self { turns: Arc::new(Semaphore::new(turns)), lines: Arc::default(), half: turns.div_ceil(2), decoy: decoy.into() }
    }

    /// Whether `password` is the one behind `hash`; without a hash the answer is no, after the same work.
    ///
    /// # Errors
    /// `Limited` when too many others wait.
    pub async fn check(&self, tenant: &Tenant, password: String, hash: Option<String>) -> Result<bool> {
        let turn = self.turn(tenant.context().no.get()).await?;
        let decoy = self.decoy.clone();
        let work = insula::spawn_blocking(move || {
            let known = hash.is_some();
            let right = verify(&password, hash.as_deref().unwrap_or(&decoy));
            drop(turn);
            known && right
        })?;
        Ok(work.await?)
    }

    /// The PHC string of a password.
    ///
    /// # Errors
    /// `Limited` when too many others wait.
    pub async fn hash(&self, tenant: &Tenant, password: String) -> Result<String> {
        let turn = self.turn(tenant.context().no.get()).await?;
        let work = insula::spawn_blocking(move || {
            let hashed = hash(&password);
            drop(turn);
            hashed
        })?;
        work.await?
    }

    async fn turn(&self, whose: i64) -> Result<Turn> {
        let line = self.line(whose);
        let both = async {
            let of_its_own = line.acquire_owned().await?;
            Ok::<_, AcquireError>(Turn { _of_all: self.turns.clone().acquire_owned().await?, _of_its_own: of_its_own })
        };
        match tokio::time::timeout(PATIENCE, both).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::public(Kind::Limited, "Too many people log in at this moment; try again.")),
        }
    }

    fn line(&self, whose: i64) -> Arc<Semaphore> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&whose).and_then(Weak::upgrade) {
            return line;
        }
        lines.retain(|_, line| line.strong_count() > 0);
        let line = Arc::new(Semaphore::new(self.half));
        lines.insert(whose, Arc::downgrade(&line));
        line
    }
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

/// The PHC string of a password.
///
/// # Errors
/// When the system has no randomness to give.
pub fn hash(password: &str) -> Result<String> {
    Ok(Argon2::default().hash_password(password.as_bytes()).map_err(|e| Error::internal(e.to_string()))?.to_string())
}

fn verify(password: &str, hash: &str) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_hash_fits_its_password_alone() {
        let phc = hash("correct horse").expect("hashes");
        assert!(phc.starts_with("$argon2id$"));
        assert!(verify("correct horse", &phc) && !verify("battery staple", &phc) && !verify("correct horse", "rubbish"));
    }

    #[tokio::test]
    async fn who_tries_passwords_at_one_workspace_keeps_nobody_waiting_at_another() {
        let passwords = Passwords::at_once(1);
        let first = passwords.turn(1).await.expect("a turn");
        let served = Arc::new(Mutex::new(Vec::new()));
        let asking = std::iter::repeat_n(1, 20).chain([2]).map(|whose| {
            let (passwords, served) = (passwords.clone(), Arc::clone(&served));
            async move {
                let turn = passwords.turn(whose).await.expect("a turn");
                served.lock().expect("no panic").push(whose);
                drop(turn);
            }
        });
        let mut asking: Vec<_> = asking.map(Box::pin).collect();
        // All stand in line before there is a turn.
        for one in &mut asking {
            assert!(one.as_mut().now_or_never().is_none());
        }
        drop(first);
        futures_util::future::join_all(asking).await;
        assert_eq!(served.lock().expect("no panic").first(), Some(&2));
        assert!(passwords.line(3).available_permits() == 1 && passwords.lines.lock().expect("no panic").len() <= 1);
    }
}
