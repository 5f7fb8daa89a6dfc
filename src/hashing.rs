//! Argon2id records of secrets, made in a bounded pool of threads.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{PasswordHasher as _, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task};

use crate::domain::{Invalid, Token};

/// How many may wait for a thread before the next one is refused.
const QUEUE: usize = 256;

/// Makes the record that proves a secret when its pepper is lost.
///
/// The secrets are 256 random bits, which nobody guesses at any cost, so the
/// cost here is small; it is not on the path of a verification.
pub struct Hasher {
    argon2: Argon2<'static>,
    places: Arc<Semaphore>,
    threads: Arc<Semaphore>,
}

/// More secrets wait to be hashed than may.
#[derive(Debug, thiserror::Error)]
#[error("too many secrets are being hashed")]
pub struct Busy;

impl Hasher {
    /// A pool of `threads` with Argon2id at this cost: memory in KiB, and passes.
    ///
    /// # Errors
    ///
    /// The cost is out of Argon2's range.
    pub fn new(memory: u32, passes: u32, threads: usize) -> Result<Self, Invalid> {
        let params = Params::new(memory, passes, 1, None)
            .map_err(|error| Invalid(format!("is out of Argon2's range: {error}")))?;
        Ok(Self {
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            places: Arc::new(Semaphore::new(threads + QUEUE)),
            threads: Arc::new(Semaphore::new(threads)),
        })
    }

    /// The PHC string of a token's Argon2id record.
    ///
    /// # Errors
    ///
    /// [`Busy`], at once, if too many wait already.
    pub async fn record(&self, token: &Token) -> Result<String, Busy> {
        let _place = self.places.try_acquire().map_err(|_| Busy)?;
        let thread =
            Arc::clone(&self.threads).acquire_owned().await.expect("the semaphore is never closed");
        let argon2 = self.argon2.clone();
        let secret = zeroize::Zeroizing::new(token.expose().to_owned());
        let record = task::spawn_blocking(move || {
            let record: PasswordHash = argon2
                .hash_password(secret.as_bytes())
                .expect("the parameters were checked and the salt is made here");
            drop(thread);
            record.to_string()
        });
        Ok(record.await.expect("hashing does not panic"))
    }
}

#[cfg(test)]
mod tests {
    use argon2::PasswordVerifier as _;

    use super::*;

    fn token(n: u8) -> Token {
        Token::from_random(&"pat_".parse().unwrap(), &[n; 32])
    }

    #[tokio::test]
    async fn record_proves_its_token_and_no_other() {
        let hasher = Hasher::new(1024, 1, 1).unwrap();
        let record = hasher.record(&token(1)).await.unwrap();
        assert!(record.starts_with("$argon2id$v=19$m=1024,t=1,p=1$"), "{record}");
        let record = PasswordHash::new(&record).unwrap();
        let verify =
            |token: Token| Argon2::default().verify_password(token.expose().as_bytes(), &record);
        assert!(verify(token(1)).is_ok());
        assert!(verify(token(2)).is_err());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let hasher = Hasher::new(1024, 1, 1).unwrap();
        let _all = hasher.places.acquire_many(1 + 256).await.unwrap();
        assert!(hasher.record(&token(1)).await.is_err());
    }
}
