//! Uses of what verifiers answered for from their own caches, as they report them.

use std::{collections::HashSet, net::IpAddr};

use super::{Asker, Verifier};
use crate::{
    domain::{CredentialId, Timestamp},
    error::Error,
};

/// A use that a verifier reports.
#[derive(Debug, Clone)]
pub struct Reported {
    /// Of which credential.
    pub credential_id: CredentialId,
    /// When, as the verifier says.
    pub at: Timestamp,
    /// From where, if that is known.
    pub ip: Option<IpAddr>,
}

impl Verifier {
    /// Notes uses that `asker` reports, at most [`MAX_ROWS`](crate::store::MAX_ROWS).
    /// What is to come is taken as of now; what is not there, or the asker may not know of,
    /// is passed over.
    ///
    /// # Errors
    ///
    /// It could not be found out what it may know of; nothing is noted then.
    pub async fn report(&self, reported: &[Reported], asker: &Asker) -> Result<(), Error> {
        let Some(uses) = &self.uses else { return Ok(()) };
        let ids: HashSet<&CredentialId> = reported.iter().map(|each| &each.credential_id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        // Before any is noted, so that ids which are made up take no room.
        let ids: Vec<CredentialId> = ids.into_iter().cloned().collect();
        let known = self.reader.store.known(&ids, asker.entry.workspace_id()).await?;
        let known: HashSet<CredentialId> = known.into_iter().collect();
        let (now, verifier_id) = (self.clock.now(), CredentialId(asker.token_id().to_owned()));
        for each in reported.iter().filter(|each| known.contains(&each.credential_id)) {
            uses.note_reported(&each.credential_id, &verifier_id, each.at.min(now), each.ip);
        }
        Ok(())
    }
}
