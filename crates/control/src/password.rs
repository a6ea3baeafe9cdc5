//! Passwords and keys that we make up, and their hashes.

use argon2::Argon2;
use argon2::password_hash::PasswordHasher as _;

use crate::error::Error;
use crate::handle::Control;

/// Letters and digits that are not mistaken for each other when read aloud.
const ALPHABET: &[u8; 56] = b"ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz2345678";

/// Random text: 5.8 bits a character.
pub(crate) fn random_text(len: usize) -> Result<String, Error> {
    let mut text = String::with_capacity(len);
    let mut bytes = [0_u8; 64];
    while text.len() < len {
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Error::Corrupt("the system has no randomness to give".into()))?;
        // Bytes past the last whole multiple would favour some characters.
        let fair = bytes.iter().filter(|b| **b < 224).map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()]));
        text.extend(fair.take(len - text.len()));
    }
    Ok(text)
}

/// A new password and its argon2id hash in PHC form, made off the async threads, as many at once as there are cores.
pub(crate) async fn make(control: &Control) -> Result<(String, String), Error> {
    let password = random_text(20)?;
    let gone = |_| Error::Away("shutting down".into());
    let permit = control.hashing().acquire_owned().await.map_err(gone)?;
    let hashed = tokio::task::spawn_blocking(move || {
        let hash = Argon2::default().hash_password(password.as_bytes()).map(|h| h.to_string());
        drop(permit);
        (password, hash)
    });
    let (password, hash) = hashed.await.map_err(|_| Error::Away("shutting down".into()))?;
    Ok((password, hash.map_err(|e| Error::Corrupt(format!("cannot hash a password: {e}")))?))
}

#[cfg(test)]
mod tests {
    #[test]
    fn random_text_has_its_length_and_differs() {
        let (a, b) = (super::random_text(43).expect("random"), super::random_text(43).expect("random"));
        assert_eq!((a.len(), b.len()), (43, 43));
        assert_ne!(a, b);
    }
}
