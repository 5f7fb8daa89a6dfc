//! How new answers are.

use std::time::Duration;

use super::{Verifier, callers::Asker};
use crate::{
    clock::Uptime, domain::Revision, error::Error, keeping::flights::Known, store::StoreError,
};

/// How new an answer must be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Consistency {
    /// Of what it must know.
    pub knows: Knows,
    /// How old it may be if the store can't be asked; `None`: as the policy says.
    pub max_stale: Option<Duration>,
}

/// Of which changes an answer must know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Knows {
    /// Of those that were acknowledged longer ago than the policy allows it not to.
    #[default]
    Policy,
    /// Of this one, too.
    AtLeast(Revision),
    /// Of all that were acknowledged before it was asked for.
    Everything,
}

/// From when on an answer is new enough, and whether it is an old one all the same.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fresh {
    pub(super) begun: Uptime,
    pub(super) since: Uptime,
    /// The newest change that was known of when it was asked.
    pub(super) known: Known,
    pub(super) is_stale: bool,
    pub(super) trusts_unknown: bool,
}

impl Verifier {
    /// Whether questions can be answered: from the store, or as old as they may be.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        let policy = &self.policy;
        !self.follower.is_failing()
            || self.follower.is_within(policy.stale_if_error, self.clock.uptime())
    }

    /// Waits until what is known is as new as a question asks for.
    pub(super) async fn fresh_for(
        &self,
        asker: &Asker,
        consistency: Consistency,
    ) -> Result<Fresh, Error> {
        let fresh = self.fresh(consistency).await?;
        let (read, depends) = asker.entry.read();
        if asker.is_stale && !self.history.holds(read, depends) {
            let again = "it is back, and what the caller was let in by was changed";
            return Err(StoreError::Unavailable(again.into()).into());
        }
        Ok(fresh)
    }

    /// Waits until what is known is as new as is asked for.
    pub(super) async fn fresh(&self, consistency: Consistency) -> Result<Fresh, Error> {
        let begun = self.clock.uptime();
        let Consistency { knows, max_stale } = consistency;
        let max_staleness = self.policy.max_staleness;
        let oldest = Uptime(begun.0.saturating_sub(max_staleness));
        let may_be_stale = match knows {
            Knows::Everything => Duration::ZERO,
            Knows::Policy | Knows::AtLeast(_) => max_stale.unwrap_or(self.policy.stale_if_error),
        };
        let is_known = match knows {
            Knows::Policy => true,
            Knows::AtLeast(revision) => self.history.knows(revision) == Some(true),
            Knows::Everything => false,
        };
        let trusts_unknown = knows == Knows::Policy;
        let fresh = |since, is_stale| {
            let known = self.history.known();
            Fresh { begun, since, known, is_stale, trusts_unknown }
        };
        if is_known && self.follower.is_within(max_staleness, begun) {
            return Ok(fresh(oldest, false));
        }
        let stale =
            (is_known && self.follower.is_within(may_be_stale, begun)).then(|| fresh(begun, true));
        if let (Some(stale), true) = (stale, self.follower.is_failing()) {
            return Ok(stale);
        }
        match (self.follower.confirmed_since(begun).await, stale) {
            (Ok(()), _) => {}
            (Err(_), Some(stale)) => return Ok(stale),
            (Err(error), None) => return Err(error),
        }
        if let Knows::AtLeast(revision) = knows {
            let reached = match self.history.knows(revision) {
                Some(known) => known,
                None => self.reader.store.reached(revision).await?,
            };
            if !reached {
                return Err(Error::RevisionUnreachable);
            }
        }
        Ok(fresh(begun, false))
    }
}
