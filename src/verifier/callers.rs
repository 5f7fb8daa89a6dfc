//! Who calls.

use std::{net::IpAddr, sync::Arc};

use super::{Answer, Consistency, Look, Verifier, entry::Entry};
use crate::{
    caller::Caller,
    domain::{ClusterId, Found, Kind, Requirement, SaltedToken, Token, Verdict},
    error::Error,
    hashing::Source,
    rights::{Denied, Right},
    store::{Reach, StoreError, Target, Workspaces},
};

/// Who asks about tokens.
#[derive(Debug, Clone)]
pub struct Asker {
    pub(super) entry: Arc<Entry>,
    /// It was let in by what is kept, since the store could not be asked.
    pub(super) is_stale: bool,
    /// The name of the call in the logs.
    pub request_id: String,
}

impl Asker {
    /// With which credential.
    #[must_use]
    pub fn token_id(&self) -> &str {
        self.entry.id()
    }

    /// What is kept of that.
    #[must_use]
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whether it may ask this.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn may(&self, right: &Right) -> Result<(), Denied> {
        self.entry.may(right)
    }
}

impl Verifier {
    /// Who asks about tokens and presents this one, if it may be used from `ip`.
    ///
    /// # Errors
    ///
    /// The question could not be answered.
    pub async fn asker(
        self: &Arc<Self>,
        presented: &str,
        ip: Option<IpAddr>,
        request_id: &str,
    ) -> Result<Option<Asker>, Error> {
        let request_id = request_id.to_owned();
        if self.roots.accept(presented) {
            let entry = Arc::clone(&self.root);
            return Ok(Some(Asker { entry, is_stale: false, request_id }));
        }
        let fresh = self.fresh(Consistency::default()).await?;
        let requirement = Requirement { client_ip: ip, ..Requirement::default() };
        let decision = self.decide(presented, &requirement, || Source::new(None, ip), fresh);
        match decision.await?.answer {
            Answer::Active(entry) => Ok(Some(Asker { entry, is_stale: false, request_id })),
            Answer::NotFound | Answer::Refused(..) => Ok(None),
        }
    }

    /// The same of who may say in its question that it takes an old answer: while the
    /// store can't be asked it is let in by what is kept, however old that is, and the
    /// question decides.
    ///
    /// # Errors
    ///
    /// The question could not be answered.
    pub async fn asker_of_question(
        self: &Arc<Self>,
        presented: &str,
        ip: Option<IpAddr>,
        request_id: &str,
    ) -> Result<Option<Asker>, Error> {
        let away = match self.asker(presented, ip, request_id).await {
            Err(error @ Error::Store(StoreError::Unavailable(_))) => error,
            answered => return answered,
        };
        let look = Look::new(self, false);
        let entry = Arc::new(look.asker(presented, ip).ok_or(away)?.clone());
        Ok(Some(Asker { entry, is_stale: true, request_id: request_id.to_owned() }))
    }

    /// Whether what an asker was let in by still holds; if not, it is to be asked for
    /// anew. It presents the same text from the same address.
    #[must_use]
    pub fn still_holds(&self, asker: &Asker, presented: &str) -> bool {
        let entry = &asker.entry;
        if Arc::ptr_eq(entry, &self.root) {
            return self.roots.accept(presented);
        }
        let now = self.clock.uptime();
        let is_over = entry.expires_at().is_some_and(|end| end <= self.clock.now());
        self.follower.is_within(self.policy.max_staleness, now)
            && entry.holds(&self.history, now)
            && !is_over
    }

    /// The caller whose token is `presented`, if it may be used from `ip`, as the
    /// store has it now.
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
            return Ok(Some(Caller { found, ip, request_id: request_id.to_owned(), route: None }));
        }
        let Some(token) = self.parse(presented) else { return Ok(None) };
        self.authenticate_token(&token.to_token(), ip, request_id).await
    }

    /// What there is of the token that is presented, however dead; `None`: it is nobody's.
    ///
    /// # Errors
    ///
    /// The question could not be answered.
    pub async fn found(&self, presented: &str, ip: Option<IpAddr>) -> Result<Option<Found>, Error> {
        if self.roots.accept(presented) {
            return Ok(Some(Found::root(&self.roots.cluster_id)));
        }
        let Some(token) = self.parse(presented) else { return Ok(None) };
        let source = Source::new(None, ip);
        let read = self.reader.read(&token.to_token(), Workspaces::default(), &source).await?;
        Ok(read.found.map(|found| *found))
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
        let Some(kept) = self.reader.store.credential(target).await? else { return Ok(None) };
        match kept.opened(&self.reader.peppers) {
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
        let source = Source::new(None, ip);
        let read = self.reader.read(token, Workspaces::default(), &source).await?;
        let Some(found) = read.found else { return Ok(None) };
        let now = self.clock.now();
        match found.verdict(&requirement, now) {
            Verdict::Active => {
                if let Some(uses) = &self.uses {
                    uses.note(&found.credential.id, None, now, ip);
                }
                Ok(Some(Caller {
                    found: *found,
                    ip,
                    request_id: request_id.to_owned(),
                    route: None,
                }))
            }
            Verdict::Refused(_) => Ok(None),
        }
    }
}
