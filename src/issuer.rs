//! Makes secrets, and what is kept of them.

use std::sync::Arc;

use crate::{
    domain::{CredentialId, PatPrefix, Peppers, Timestamp, Token},
    error::Error,
    hashing::Hasher,
    random,
    store::NewSecret,
};

/// Makes secrets and what is kept of them.
pub struct Issuer {
    /// What new personal access tokens begin with.
    pub prefix: PatPrefix,
    /// With what they are digested.
    pub peppers: Arc<Peppers>,
    /// What makes their records.
    pub hasher: Hasher,
    /// Whether the secrets of API client authorizations are kept recoverable.
    pub recoverable: bool,
}

impl Issuer {
    /// A new personal access token, and what is kept of it.
    ///
    /// # Errors
    ///
    /// Too many secrets are being hashed, or the current pepper is not loaded.
    pub async fn issue(&self, now: Timestamp) -> Result<(Token, NewSecret), Error> {
        let token = Token::from_random(&self.prefix, &random::bytes());
        let secret = self.secret(&token, now).await?;
        Ok((token, secret))
    }

    /// A new API client authorization with this id, and what is kept of it.
    ///
    /// # Errors
    ///
    /// Too many secrets are being hashed, or the current pepper is not loaded.
    pub async fn issue_authorization(
        &self,
        id: &CredentialId,
        now: Timestamp,
    ) -> Result<(Token, NewSecret), Error> {
        let token = Token::authorization(&random::bytes());
        let mut secret = self.secret(&token, now).await?;
        if self.recoverable {
            let pepper = self.peppers.get(&secret.pepper_id).ok_or(Error::NoPepper)?;
            secret.sealed = Some(pepper.seal(id, &token, random::bytes()));
        }
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
            sealed: None,
        })
    }
}
