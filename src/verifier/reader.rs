//! Asks the store about a token: what happens when nothing is kept of it.

use std::sync::Arc;

use super::PepperLoss;
use crate::{
    clock::Clock,
    domain::{Digest, Found, Invalid, Kind, PepperId, Peppers, Revision, SecretState, Token},
    error::Error,
    hashing::{Record, Recovery, Source},
    random,
    store::{Lookup, Lookups, Store, StoreError, Unloaded, Wanted, Workspaces},
    upkeep::{Job, Upkeep},
};

/// Asks the store about tokens.
pub(super) struct Reader {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) peppers: Arc<Peppers>,
    pub(super) recovery: Arc<Recovery>,
    pub(super) upkeep: Upkeep,
    pub(super) loss: PepperLoss,
    pub(super) recoverable: bool,
}

/// What the store knows of a token.
pub(super) struct Read {
    /// The credential that it proves.
    pub(super) found: Option<Box<Found>>,
    /// How long that may be kept.
    pub(super) lasts: Lasts,
    /// The newest change that it knows of.
    pub(super) head: Revision,
}

/// How long what was read may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasts {
    /// Until a change says otherwise.
    Long,
    /// For a short time, since its proof left something to be written that may be lost.
    Briefly,
    /// Not at all: what it leaves to be written will change the answer.
    Never,
}

/// What the store knows of several tokens, all of one instant.
pub(super) struct Reads {
    /// What of each, in order; `None` of those that perhaps only their records prove.
    pub(super) reads: Vec<Option<Read>>,
    /// The newest change that it knows of.
    pub(super) head: Revision,
}

impl Reader {
    /// What the store knows of a token, at its primary.
    pub(super) async fn read(
        &self,
        token: &Token,
        workspaces: Workspaces<'_>,
        source: &Source,
    ) -> Result<Read, Error> {
        let lookup = self.find(token, workspaces, source).await?;
        self.settle(lookup.found, lookup.head, token).await
    }

    /// What its replica knows of a token, if that is a credential whose secret nothing
    /// happens to: only the primary says no, and only it knows what was proved a
    /// moment ago.
    pub(super) async fn read_replica(
        &self,
        token: &Token,
        workspaces: Workspaces<'_>,
    ) -> Result<Option<Read>, Error> {
        let (digests, unloaded) = (self.peppers.digests(token), self.unloaded(token));
        let wanted = Wanted { digests: &digests, unloaded, workspaces };
        let Some(lookup) = self.store.find_at_replica(wanted).await else { return Ok(None) };
        let found = lookup.found.filter(|Found { credential, secret, .. }| {
            secret.state == SecretState::Current
                && secret.proved_at.is_some()
                && token.fits(&credential.id)
        });
        match found {
            Some(found) => Ok(Some(self.settle(Some(found), lookup.head, token).await?)),
            None => Ok(None),
        }
    }

    /// What the store knows of several tokens, each asked about for these workspaces.
    pub(super) async fn read_all(
        &self,
        tokens: &[(&Token, Workspaces<'_>)],
    ) -> Result<Reads, Error> {
        let digests: Vec<_> = tokens.iter().map(|(token, _)| self.peppers.digests(token)).collect();
        let wanted: Vec<_> = tokens
            .iter()
            .zip(&digests)
            .map(|(&(token, workspaces), digests)| Wanted {
                digests,
                unloaded: self.unloaded(token),
                workspaces,
            })
            .collect();
        let Lookups { lookups, head, current_pepper } = self.store.find_all(&wanted).await?;
        let lookups = lookups.into_iter().collect::<Result<Vec<_>, _>>()?;
        let nothing = lookups.iter().any(|lookup| lookup.found.is_none());
        if !self.peppers.follow(&current_pepper) && nothing {
            return Err(Error::NoPepper);
        }
        let mut reads = Vec::with_capacity(lookups.len());
        for ((token, _), lookup) in tokens.iter().zip(lookups) {
            reads.push(if lookup.found.is_none() && lookup.has_unloaded {
                None
            } else {
                Some(self.settle(lookup.found, head, token).await?)
            });
        }
        Ok(Reads { reads, head })
    }

    /// Notes what has to be noted of a proof before anybody is told of it.
    async fn settle(
        &self,
        found: Option<Found>,
        head: Revision,
        token: &Token,
    ) -> Result<Read, Error> {
        // Nothing is noted of a secret that is not of the uuid beside it.
        let fitting = found.filter(|found| token.fits(&found.credential.id));
        let Some(found) = fitting.map(Box::new) else {
            return Ok(Read { found: None, lasts: Lasts::Long, head });
        };
        // The first proof ends the time in which a repeated request may replace the
        // secret, so it has to be noted before the answer.
        if found.secret.proved_at.is_none()
            && !self.store.prove(&found.secret.id, self.clock.now()).await?
        {
            return Ok(Read { found: None, lasts: Lasts::Never, head });
        }
        let lasts = self.leave(&found, token);
        Ok(Read { found: Some(found), lasts, head })
    }

    fn unloaded<'a>(&'a self, token: &'a Token) -> Unloaded<'a> {
        Unloaded { shown: token.shown(), loaded: self.peppers.ids() }
    }

    /// What the store has of a token, whichever pepper it is digested under.
    async fn find(
        &self,
        token: &Token,
        workspaces: Workspaces<'_>,
        source: &Source,
    ) -> Result<Lookup, Error> {
        let (digests, unloaded) = (self.peppers.digests(token), self.unloaded(token));
        let find = async |digests: &[Digest]| {
            self.store.find(Wanted { digests, unloaded, workspaces }).await
        };
        let mut lookup = find(&digests).await?;
        if lookup.found.is_none() && lookup.has_unloaded {
            if let Some(digest) = self.recover(token, unloaded, source).await? {
                lookup = find(&[digest]).await?;
            }
            if lookup.found.is_none() {
                // Another process may have digested it anew since the first look.
                lookup = find(&digests).await?;
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
    fn leave(&self, found: &Found, token: &Token) -> Lasts {
        let secret_id = found.secret.id.clone();
        let mut lasts = Lasts::Long;
        match found.secret.state {
            SecretState::Pending => {
                lasts = Lasts::Never;
                self.upkeep.ask(Job::Promote { secret_id });
            }
            SecretState::Superseded
                if !found.secret.reuse_noted
                    || (self.upkeep.revokes() && found.credential.revoked_at.is_none()) =>
            {
                lasts = Lasts::Briefly;
                let credential_id = found.credential.id.clone();
                self.upkeep.ask(Job::Reuse { secret_id, credential_id });
            }
            SecretState::Superseded | SecretState::Current => {}
        }
        if let (Some(from), Some(current)) = (&found.secret.pepper_id, self.peppers.current())
            && from != current.id()
            && self.redigests(from)
        {
            if lasts == Lasts::Long {
                lasts = Lasts::Briefly;
            }
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
        lasts
    }

    /// Whether secrets under this pepper are digested under the current one.
    fn redigests(&self, from: &PepperId) -> bool {
        self.loss == PepperLoss::Accepted || self.peppers.ids().contains(from)
    }
}
