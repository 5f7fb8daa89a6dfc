//! Is this token good, whose is it, and for what: the hot path.
//!
//! For now each question of a well-formed token is one read of the store.

use std::{net::IpAddr, sync::Arc};

use crate::{
    caller::Caller,
    clock::Clock,
    domain::{
        ClusterId, CredentialId, Digest, Found, Invalid, Kind, PatPrefix, Peppers, Reason,
        Requirement, Revision, SaltedToken, SecretState, Timestamp, Token, TokenRef, Verdict,
    },
    error::Error,
    hashing::{Record, Recovery, Source},
    random,
    root::RootTokens,
    store::{Lookup, Origin, Reach, Store, StoreError, Target, Unloaded, Workspaces},
    upkeep::{Job, Upkeep},
    usage::Uses,
};

/// Answers for tokens.
pub struct Verifier {
    /// Where credentials are kept.
    pub store: Arc<dyn Store>,
    /// By which they are judged.
    pub clock: Arc<dyn Clock>,
    /// Under which they are digested.
    pub peppers: Arc<Peppers>,
    /// What personal access tokens begin with, one of these.
    pub prefixes: Vec<PatPrefix>,
    /// What proves secrets whose pepper is not loaded.
    pub recovery: Arc<Recovery>,
    /// What a verification leaves to be written.
    pub upkeep: Upkeep,
    /// Where uses are noted.
    pub uses: Arc<Uses>,
    /// What becomes of secrets that were recovered.
    pub loss: PepperLoss,
    /// The system root tokens.
    pub roots: Arc<RootTokens>,
    /// Whether the secrets of API client authorizations are kept recoverable.
    pub recoverable: bool,
}

/// What becomes of secrets that were recovered without their pepper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PepperLoss {
    /// They stay as they are: other processes may hold it.
    Refused,
    /// They are digested under the current one.
    Accepted,
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
    /// Whether `presented` may be used for what is required, now, as `asker` asks.
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
        requirement: &Requirement<'_>,
        asker: &CredentialId,
        consistency: Consistency,
    ) -> Result<Decision, Error> {
        if let Consistency::AtLeast(revision) = consistency
            && !self.store.reached(revision).await?
        {
            return Err(Error::RevisionUnreachable);
        }
        if self.roots.verifies && self.roots.accept(presented) {
            let found = Box::new(Found::root(&self.roots.cluster_id));
            return Ok(Decision {
                answer: judge(found, requirement, self.clock.now()),
                revision: None,
            });
        }
        let Some(token) = self.parse(presented) else {
            return Ok(Decision { answer: Answer::NotFound, revision: None });
        };
        let source = Source::new(Some(asker.clone()), requirement.client_ip);
        let (answer, revision) = self.look_up(&token, requirement, &source).await?;
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
    ) -> Result<Option<Caller>, Error> {
        if self.roots.accept(presented) {
            let found = Found::root(&self.roots.cluster_id);
            return Ok(Some(Caller { found, ip, request_id: request_id.to_owned() }));
        }
        let Some(token) = self.parse(presented) else { return Ok(None) };
        self.authenticate_token(&token, ip, request_id).await
    }

    /// The same of a token that was salted for another cluster, `remote`, if its secret
    /// is kept recoverable.
    ///
    /// # Errors
    ///
    /// The question could not be answered.
    pub async fn authenticate_salted(
        &self,
        salted: &SaltedToken,
        remote: &ClusterId,
        ip: Option<IpAddr>,
        request_id: &str,
    ) -> Result<Option<Caller>, Error> {
        if !self.recoverable {
            return Ok(None);
        }
        let (kind, reach) = (Kind::ApiClientAuthorization, Reach::default());
        let target = Target { id: &salted.uuid.0, kind, reach: &reach };
        let Some(kept) = self.store.credential(target).await? else { return Ok(None) };
        match kept.opened(&self.peppers) {
            Some(token) if salted.is_of(&token, remote) => {
                self.authenticate_token(&token, ip, request_id).await
            }
            Some(_) | None => Ok(None),
        }
    }

    async fn authenticate_token(
        &self,
        token: &Token,
        ip: Option<IpAddr>,
        request_id: &str,
    ) -> Result<Option<Caller>, Error> {
        let requirement = Requirement { client_ip: ip, ..Requirement::default() };
        match self.look_up(token, &requirement, &Source::new(None, ip)).await?.0 {
            Answer::Active(found) => {
                Ok(Some(Caller { found: *found, ip, request_id: request_id.to_owned() }))
            }
            Answer::NotFound | Answer::Refused(..) => Ok(None),
        }
    }

    fn parse(&self, presented: &str) -> Option<Token> {
        let token = TokenRef::parse(presented)?;
        let prefix = token.pat_prefix();
        prefix
            .is_none_or(|prefix| self.prefixes.iter().any(|known| known.as_str() == prefix))
            .then(|| token.to_token())
    }

    async fn look_up(
        &self,
        token: &Token,
        requirement: &Requirement<'_>,
        source: &Source,
    ) -> Result<(Answer, Revision), Error> {
        let workspaces = Workspaces {
            required: requirement.workspace_id,
            askers: requirement.askers_workspace_id,
        };
        let lookup = self.find(token, workspaces, source).await?;
        let revision = lookup.head;
        // Before anything is noted of a secret that is not of the uuid beside it.
        let fitting = lookup.found.filter(|found| token.fits(&found.credential.id));
        let Some(found) = fitting.map(Box::new) else {
            return Ok((Answer::NotFound, revision));
        };
        let now = self.clock.now();
        // The first proof ends the time in which a repeated request may replace the
        // secret, so it has to be noted before the answer.
        if found.secret.proved_at.is_none() && !self.store.prove(&found.secret.id, now).await? {
            return Ok((Answer::NotFound, revision));
        }
        self.leave(&found, token);
        let answer = judge(found, requirement, now);
        if let Answer::Active(found) = &answer {
            self.uses.note(&found.credential.id, now, requirement.client_ip);
        }
        Ok((answer, revision))
    }

    /// What the store has of a token, whichever pepper it is digested under.
    async fn find(
        &self,
        token: &Token,
        workspaces: Workspaces<'_>,
        source: &Source,
    ) -> Result<Lookup, Error> {
        let digests = self.peppers.digests(token);
        let unloaded = Unloaded { shown: token.shown(), loaded: self.peppers.ids() };
        let mut lookup = self.store.find(&digests, unloaded, workspaces, Origin::Primary).await?;
        if lookup.found.is_none() && lookup.has_unloaded {
            if let Some(digest) = self.recover(token, unloaded, source).await? {
                lookup = self.store.find(&[digest], unloaded, workspaces, Origin::Primary).await?;
            }
            if lookup.found.is_none() {
                // Another process may have digested it anew since the first look.
                lookup = self.store.find(&digests, unloaded, workspaces, Origin::Primary).await?;
            }
        }
        let holds_current = self.peppers.follow(&lookup.current_pepper);
        if lookup.found.is_none() && !holds_current {
            return Err(Error::NoPepper);
        }
        Ok(lookup)
    }

    /// The digest of a token, under a pepper that is not loaded, if a record proves it.
    async fn recover(
        &self,
        token: &Token,
        unloaded: Unloaded<'_>,
        source: &Source,
    ) -> Result<Option<Digest>, Error> {
        for candidate in self.store.candidates(unloaded).await? {
            let record: Record = candidate.record.parse().map_err(|error: Invalid| {
                StoreError::Failed(format!("secrets.record {error}").into())
            })?;
            if self.recovery.proves(record, token, source).await? {
                return Ok(Some(candidate.digest));
            }
        }
        Ok(None)
    }

    /// Asks for what the proof of a secret leaves to be written.
    fn leave(&self, found: &Found, token: &Token) {
        let secret_id = found.secret.id.clone();
        match found.secret.state {
            SecretState::Pending => self.upkeep.ask(Job::Promote { secret_id }),
            SecretState::Superseded
                if !found.secret.reuse_noted
                    || (self.upkeep.revokes() && found.credential.revoked_at.is_none()) =>
            {
                let credential_id = found.credential.id.clone();
                self.upkeep.ask(Job::Reuse { secret_id, credential_id });
            }
            SecretState::Superseded | SecretState::Current => {}
        }
        if let (Some(from), Some(current)) = (&found.secret.pepper_id, self.peppers.current())
            && from != current.id()
            && (self.loss == PepperLoss::Accepted || self.peppers.ids().contains(from))
        {
            let id = &found.credential.id;
            let sealed = (self.recoverable && token.kind() == Kind::ApiClientAuthorization)
                .then(|| current.seal(id, token, random::bytes()));
            self.upkeep.ask(Job::Redigest {
                secret_id: found.secret.id.clone(),
                from: from.clone(),
                to: current.id().clone(),
                digest: current.digest(token),
                sealed,
            });
        }
    }
}

fn judge(found: Box<Found>, requirement: &Requirement<'_>, now: Timestamp) -> Answer {
    match found.verdict(requirement, now) {
        Verdict::Active => Answer::Active(found),
        Verdict::Refused(Reason::NotFound) => Answer::NotFound,
        Verdict::Refused(reason) => Answer::Refused(reason, found),
    }
}
