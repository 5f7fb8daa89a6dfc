//! Is this token good, whose is it, and for what: the hot path.
//!
//! For now each question of a well-formed token is one read of the store.

use std::{net::IpAddr, sync::Arc};

use crate::{
    caller::Caller,
    clock::Clock,
    domain::{Found, PatPrefix, Peppers, Reason, Requirement, Revision, Token, Verdict},
    error::Error,
    store::{Store, StoreError, Workspaces},
};

/// Answers for tokens.
pub struct Verifier {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    peppers: Arc<Peppers>,
    prefixes: Vec<PatPrefix>,
}

/// The answer about a presented text.
#[derive(Debug)]
pub enum Answer {
    /// It may be used.
    Active(Box<Found>),
    /// It proves nothing that the asker may know of.
    NotFound,
    /// Its secret is proved, but it may not be used.
    Refused(Reason, Box<Found>),
}

/// An answer and the revision it was decided at; `None` where nothing had to be
/// looked up.
#[derive(Debug)]
pub struct Decision {
    /// The answer.
    pub answer: Answer,
    /// The newest change that it knows of.
    pub revision: Option<Revision>,
}

/// How new an answer must be. Every answer is as new as the store is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// As the server does it.
    Default,
    /// It must know of this change.
    AtLeast(Revision),
}

impl Verifier {
    /// Over `store`, for tokens that begin with one of `prefixes`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        peppers: Arc<Peppers>,
        prefixes: Vec<PatPrefix>,
    ) -> Self {
        Self { store, clock, peppers, prefixes }
    }

    /// Whether `presented` may be used for what is required, now.
    ///
    /// A no is an answer. What has not the shape of a token is refused without
    /// a look at the store.
    ///
    /// # Errors
    ///
    /// The question could not be answered, which nobody must take for a no; or
    /// it asks for a change that this store does not know.
    pub async fn verify(
        &self,
        presented: &str,
        requirement: &Requirement,
        consistency: Consistency,
    ) -> Result<Decision, Error> {
        if let Consistency::AtLeast(revision) = consistency
            && !self.store.reached(revision).await?
        {
            return Err(Error::RevisionUnreachable);
        }
        let Some(token) = self.parse(presented) else {
            return Ok(Decision { answer: Answer::NotFound, revision: None });
        };
        let (answer, revision) = self.look_up(&token, requirement).await?;
        Ok(Decision { answer, revision: Some(revision) })
    }

    /// The caller whose token is `presented`, if it may be used from `ip`.
    ///
    /// # Errors
    ///
    /// The question could not be answered.
    pub async fn authenticate(
        &self,
        presented: &str,
        ip: Option<IpAddr>,
        request_id: &str,
    ) -> Result<Option<Caller>, StoreError> {
        let Some(token) = self.parse(presented) else { return Ok(None) };
        let requirement = Requirement { client_ip: ip, ..Requirement::default() };
        match self.look_up(&token, &requirement).await?.0 {
            Answer::Active(found) => {
                Ok(Some(Caller { found: *found, ip, request_id: request_id.to_owned() }))
            }
            Answer::NotFound | Answer::Refused(..) => Ok(None),
        }
    }

    fn parse(&self, presented: &str) -> Option<Token> {
        let token: Token = presented.parse().ok()?;
        self.prefixes.iter().any(|prefix| prefix.as_str() == token.prefix()).then_some(token)
    }

    async fn look_up(
        &self,
        token: &Token,
        requirement: &Requirement,
    ) -> Result<(Answer, Revision), StoreError> {
        let workspaces = Workspaces {
            required: requirement.workspace_id.as_deref(),
            askers: requirement.askers_workspace_id.as_deref(),
        };
        let (found, revision) = self.store.find(&self.peppers.digests(token), workspaces).await?;
        let Some(found) = found.map(Box::new) else { return Ok((Answer::NotFound, revision)) };
        let now = self.clock.now();
        // The first proof ends the time in which a repeated request may replace the
        // secret, so it has to be noted before the answer.
        if found.secret.proved_at.is_none() && !self.store.prove(&found.secret.id, now).await? {
            return Ok((Answer::NotFound, revision));
        }
        let answer = match found.verdict(requirement, now) {
            Verdict::Active => Answer::Active(found),
            Verdict::Refused(Reason::NotFound) => Answer::NotFound,
            Verdict::Refused(reason) => Answer::Refused(reason, found),
        };
        Ok((answer, revision))
    }
}
