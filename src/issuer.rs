//! Makes secrets, and what is kept of them.

use std::sync::Arc;

use crate::{
    domain::{PatPrefix, Peppers, Timestamp, Token},
    error::Error,
    hashing::Hasher,
    random,
    store::NewSecret,
};

/// Makes secrets and what is kept of them.
pub struct Issuer {
    /// What new tokens begin with.
    pub prefix: PatPrefix,
    /// With what they are digested.
    pub peppers: Arc<Peppers>,
    /// What makes their records.
    pub hasher: Hasher,
}

impl Issuer {
    /// A new token, and what is kept of it.
    ///
    /// # Errors
    ///
    /// Too many secrets are being hashed, or the current pepper is not loaded.
    pub async fn issue(&self, now: Timestamp) -> Result<(Token, NewSecret), Error> {
        let token = Token::from_random(&self.prefix, &random::bytes());
        let secret = self.secret(&token, now).await?;
        Ok((token, secret))
    }

    /// What is kept of a token.
    ///
    /// # Errors
    ///
    /// Too many secrets are being hashed, or the current pepper is not loaded.
    pub async fn secret(&self, token: &Token, now: Timestamp) -> Result<NewSecret, Error> {
        let pepper = self.peppers.current().ok_or(Error::NoPepper)?;
        Ok(NewSecret {
            id: random::id(now),
            digest: pepper.digest(token),
            pepper_id: pepper.id().clone(),
            record: self.hasher.record(token).await?,
            shown: token.shown().to_owned(),
        })
    }
}
