//! Passwords: argon2id, a few at a time, and as slow for a user that does not exist as for one that does.

use std::sync::Arc;
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use insula::{Error, Kind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The longest password that is hashed; longer ones would buy an attacker time of ours.
pub const LONGEST: usize = 1_000;

/// The shortest password that is taken for a new user.
pub const SHORTEST: usize = 8;

/// How long a log-in waits for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

/// Checks passwords. Each check takes 19 MiB and some 20 ms of one core, so only as many run at once as there are cores, and
/// never all of them.
#[derive(Clone, Debug)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    decoy: Arc<str>,
}

impl Passwords {
    /// Ready to check.
    #[must_use]
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // Hashing fails for absurd parameters only; an empty decoy would merely answer faster.
        let decoy = hash("a password that nobody has").unwrap_or_default();
        Self { turns: Arc::new(Semaphore::new((cores - 1).clamp(1, 8))), decoy: decoy.into() }
    }

    /// Whether `password` is the one behind `hash`; without a hash the answer is no, after the same work.
    ///
    /// # Errors
    /// `Limited` when too many others wait.
    pub async fn check(&self, password: String, hash: Option<String>) -> Result<bool> {
        let turn = self.turn().await?;
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
    pub async fn hash(&self, password: String) -> Result<String> {
        let turn = self.turn().await?;
        let work = insula::spawn_blocking(move || {
            let hashed = hash(&password);
            drop(turn);
            hashed
        })?;
        work.await?
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit> {
        let turn = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned()).await;
        match turn {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Error::public(Kind::Limited, "Too many people log in at this moment; try again.")),
        }
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
    use super::*;

    #[test]
    fn a_hash_fits_its_password_alone() {
        let phc = hash("correct horse").expect("hashes");
        assert!(phc.starts_with("$argon2id$"));
        assert!(verify("correct horse", &phc) && !verify("battery staple", &phc) && !verify("correct horse", "rubbish"));
    }
}
