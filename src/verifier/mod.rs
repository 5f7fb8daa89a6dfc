//! Is this token good, whose is it, and for what: the hot path.
//!
//! What was found once is kept ([`Entry`]) and answers again as long as nothing that
//! it depends on was changed, which is looked up when it is read: in a few slots that
//! a follower of the store's changes keeps up to date (`history`, `follower`). Where
//! nothing is kept, or it no longer holds, the store is asked (`reader`).

mod batch;
mod cache;
mod counts;
mod entry;
mod flights;
mod follower;
mod history;
mod key;
mod look;
#[cfg(test)]
mod model;
mod reader;

use std::{net::IpAddr, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use crate::{
    caller::Caller,
    clock::{Clock, Uptime},
    domain::{
        ClusterId, CredentialId, Found, Kind, PatPrefix, Peppers, Reason, Requirement, Revision,
        SaltedToken, Timestamp, Token, TokenRef, Verdict,
    },
    error::Error,
    hashing::{Recovery, Source},
    rights::{Denied, Right},
    root::RootTokens,
    store::{Reach, Store, StoreError, Target, Workspaces},
    upkeep::Upkeep,
    usage::Uses,
};
use cache::{Cache, Unknown};
use counts::Counters;
use entry::{Member, Members};
use flights::{Begun, Flights};
use follower::Follower;
use history::{Depends, History, ReadAt};
use key::{Key, Keys, Membership};
use reader::{Lasts, Read, Reader};

pub use batch::Question;
pub use counts::{Came, Counts, Event, LookedUp, Refused};
pub use entry::{ASKING, Encoded, Entry};
pub use look::{Look, Outcome};

/// How long something is kept whose proof left something to be written.
const BRIEFLY: Duration = Duration::from_secs(5);

/// What a verifier is made of.
pub struct Parts {
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
    /// Where uses are noted; `None`: nowhere.
    pub uses: Option<Arc<Uses>>,
    /// What becomes of secrets that were recovered.
    pub loss: PepperLoss,
    /// The system root tokens.
    pub roots: Arc<RootTokens>,
    /// Whether the secrets of API client authorizations are kept recoverable.
    pub recoverable: bool,
    /// How answers are encoded.
    pub encode: fn(&Found) -> Encoded,
    /// How new and how many answers are.
    pub policy: Policy,
}

/// How new answers are, and how many are kept.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// An answer knows of every change that was acknowledged longer ago than this.
    pub max_staleness: Duration,
    /// How old an answer may be if the store can't be asked, where the asker does not
    /// say so.
    pub stale_if_error: Duration,
    /// How long a caller may reuse an answer.
    pub max_age: Duration,
    /// About how many bytes what is kept may take.
    pub cache_bytes: usize,
}

/// Answers for tokens.
pub struct Verifier {
    /// The system root tokens.
    pub roots: Arc<RootTokens>,
    /// Whether the secrets of API client authorizations are kept recoverable.
    pub recoverable: bool,
    reader: Arc<Reader>,
    clock: Arc<dyn Clock>,
    prefixes: Vec<PatPrefix>,
    uses: Option<Arc<Uses>>,
    encode: fn(&Found) -> Encoded,
    policy: Policy,
    keys: Keys,
    history: Arc<History>,
    follower: Arc<Follower>,
    kept: Arc<Keeping>,
    flights: Arc<Flights<Filled>>,
    counters: Arc<Counters>,
    root: Arc<Entry>,
}

/// Everything that is kept.
struct Keeping {
    entries: Cache<Entry>,
    members: Cache<Member>,
    unknown: Unknown,
}

/// What a read of the store gave, and is kept.
struct Filled {
    found: Option<(Arc<Entry>, Members)>,
    head: Revision,
    asked_at: Uptime,
}

/// What becomes of secrets that were recovered without their pepper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PepperLoss {
    /// They stay as they are: other processes may hold it.
    Refused,
    /// They are digested under the current one.
    Accepted,
}

/// Who asks about tokens.
#[derive(Debug, Clone)]
pub struct Asker {
    entry: Arc<Entry>,
    /// It was let in by what is kept, since the store could not be asked.
    is_stale: bool,
    /// The name of the call in the logs.
    pub request_id: String,
}

impl Asker {
    /// With which credential.
    #[must_use]
    pub fn token_id(&self) -> &str {
        self.entry.id()
    }

    /// The workspace that it is bound to.
    #[must_use]
    pub fn workspace_id(&self) -> Option<&str> {
        self.entry.workspace_id()
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

/// The answer about a presented text.
#[derive(Debug, Clone)]
pub enum Answer {
    /// It may be used.
    Active(Arc<Entry>),
    /// It proves nothing that the asker may know of.
    NotFound,
    /// Its secret is proved, but it may not be used.
    Refused(Reason, Arc<Entry>),
}

/// An answer, and what may be thought of it.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The answer.
    pub answer: Answer,
    /// The newest change that it knows of; `None`: nothing had to be looked up.
    pub revision: Option<Revision>,
    /// Where the token was looked up.
    pub looked_up: LookedUp,
    /// How long it may be reused.
    pub max_age: Duration,
    /// Whether it is an old one, since the store can't be asked.
    pub stale: bool,
}

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
struct Fresh {
    begun: Uptime,
    since: Uptime,
    /// The newest change that was known of when it was asked.
    known: i64,
    is_stale: bool,
    trusts_unknown: bool,
}

impl Verifier {
    /// A verifier that knows the store's history up to now, and does not follow it yet.
    ///
    /// # Errors
    ///
    /// The store can't be asked.
    pub async fn new(parts: Parts) -> Result<Self, StoreError> {
        let Parts { store, clock, peppers, recovery, upkeep, loss, recoverable, .. } = parts;
        let asked_at = clock.uptime();
        let history = Arc::new(History::new(store.head().await?, asked_at));
        let told = Arc::clone(&history);
        store.before_commit(Box::new(move |touched, revision| {
            told.raise_own(touched, revision.number);
        }));
        let policy = parts.policy;
        let kept = Arc::new(Keeping {
            entries: Cache::new(policy.cache_bytes),
            // What few tokens need.
            members: Cache::new(policy.cache_bytes / 8),
            unknown: Unknown::new(),
        });
        let forgotten = Arc::clone(&kept);
        let follower = Arc::new(Follower::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            Arc::clone(&history),
            Box::new(move || {
                forgotten.entries.clear();
                forgotten.members.clear();
            }),
            Arc::clone(&peppers),
            policy.max_staleness,
        ));
        let root = Found::root(&parts.roots.cluster_id);
        let never = ReadAt { revision: i64::MAX, era: 0 };
        let root = Entry::of(&root, (parts.encode)(&root), never, Depends::default(), None);
        Ok(Self {
            roots: parts.roots,
            recoverable,
            reader: Arc::new(Reader {
                store,
                clock: Arc::clone(&clock),
                peppers,
                recovery,
                upkeep,
                loss,
                recoverable,
            }),
            clock,
            prefixes: parts.prefixes,
            uses: parts.uses,
            encode: parts.encode,
            policy,
            keys: Keys::new(),
            history,
            follower,
            kept,
            flights: Flights::new(),
            counters: Arc::new(Counters::new()),
            root: Arc::new(root),
        })
    }

    /// Follows the store's changes until aborted.
    #[must_use]
    pub fn follow(&self) -> JoinHandle<()> {
        Arc::clone(&self.follower).start()
    }

    /// Whether questions can be answered: from the store, or as old as they may be.
    #[must_use]
    pub fn is_answering(&self) -> bool {
        let policy = &self.policy;
        !self.follower.is_failing()
            || self.follower.is_within(policy.stale_if_error, self.clock.uptime())
    }

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
        self: &Arc<Self>,
        presented: &str,
        requirement: &Requirement<'_>,
        asker: &Asker,
        consistency: Consistency,
    ) -> Result<Decision, Error> {
        let source =
            || Source::new(Some(CredentialId(asker.token_id().to_owned())), requirement.client_ip);
        let decided = match self.fresh_for(asker, consistency).await {
            Ok(fresh) => self.decide(presented, requirement, source, fresh).await,
            Err(error) => Err(error),
        };
        self.counters.decided(decided.as_ref());
        decided
    }

    /// What it did since it was made.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (entries, bytes) = self.kept.entries.size();
        Counts {
            entries,
            bytes: bytes + self.kept.members.size().1,
            under_way: self.flights.under_way(),
            confirmed_ago: self.clock.uptime().since(self.history.confirmed_at()),
            applied: self.history.applied().revision.number,
            ..self.counters.counts()
        }
    }

    /// Counts what happened beside it.
    pub(crate) fn happened(&self, event: Event) {
        self.counters.happened(event, 1);
    }

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

    /// Waits until what is known is as new as a question asks for.
    async fn fresh_for(&self, asker: &Asker, consistency: Consistency) -> Result<Fresh, Error> {
        let fresh = self.fresh(consistency).await?;
        let (read, depends) = asker.entry.read();
        if asker.is_stale && !self.history.holds(read, depends) {
            let again = "it is back, and what the caller was let in by was changed";
            return Err(StoreError::Unavailable(again.into()).into());
        }
        Ok(fresh)
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

    /// The answer to a question, if it can be given at once, to who asks for nothing
    /// newer than the policy demands.
    #[must_use]
    pub fn from_kept(&self, presented: &str, requirement: &Requirement<'_>) -> Option<Decision> {
        let look = self.look()?;
        let outcome = look.answer(presented, requirement)?;
        Some(self.decided(&look, outcome, false))
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
            return Ok(Some(Caller { found, ip, request_id: request_id.to_owned() }));
        }
        let Some(token) = self.parse(presented) else { return Ok(None) };
        self.authenticate_token(&token.to_token(), ip, request_id).await
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
                    uses.note(&found.credential.id, now, ip);
                }
                Ok(Some(Caller { found: *found, ip, request_id: request_id.to_owned() }))
            }
            Verdict::Refused(_) => Ok(None),
        }
    }

    fn parse<'t>(&self, presented: &'t str) -> Option<TokenRef<'t>> {
        let token = TokenRef::parse(presented)?;
        let prefix = token.pat_prefix();
        prefix
            .is_none_or(|prefix| self.prefixes.iter().any(|known| known.as_str() == prefix))
            .then_some(token)
    }

    /// Waits until what is known is as new as is asked for.
    async fn fresh(&self, consistency: Consistency) -> Result<Fresh, Error> {
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

    /// From what is kept or, where nothing is, from the store.
    async fn decide(
        self: &Arc<Self>,
        presented: &str,
        requirement: &Requirement<'_>,
        source: impl Fn() -> Source,
        fresh: Fresh,
    ) -> Result<Decision, Error> {
        let now = self.clock.now();
        let token = match self.without_the_store(presented, requirement, now) {
            Ok(decision) => return Ok(decision),
            Err(token) => token,
        };
        if let Some(decision) = self.kept(&token, requirement, fresh) {
            return Ok(decision);
        }
        if fresh.is_stale {
            return Err(nothing_kept());
        }
        let since = |at| Begun { at, known: fresh.known };
        let mut filled = self.fill(&token, requirement, source(), since(fresh.since)).await?;
        if filled.asked_at < fresh.begun && filled.head.number < fresh.known {
            // Somebody else's read, from before a change was committed that was known of.
            filled = self.fill(&token, requirement, source(), since(fresh.begun)).await?;
        }
        Ok(self.judged(&filled, requirement, self.clock.now()))
    }

    /// The answer about what is in no store, or the token that has to be looked up.
    fn without_the_store<'t>(
        &self,
        presented: &'t str,
        requirement: &Requirement<'_>,
        now: Timestamp,
    ) -> Result<Decision, TokenRef<'t>> {
        if self.roots.verifies && self.roots.accept(presented) {
            let answer = judge(&self.root, Members::default(), requirement, now);
            return Ok(self.decision(answer, LookedUp::Nowhere, None, now, false));
        }
        match self.parse(presented) {
            Some(token) => Err(token),
            None => Ok(self.decision(Answer::NotFound, LookedUp::Nowhere, None, now, false)),
        }
    }

    fn kept(
        &self,
        token: &TokenRef<'_>,
        requirement: &Requirement<'_>,
        fresh: Fresh,
    ) -> Option<Decision> {
        let look = Look::new(self, fresh.trusts_unknown);
        let outcome = look.answer_of(token, requirement)?;
        Some(self.decided(&look, outcome, fresh.is_stale))
    }

    /// What a look gave, to be kept longer than that.
    fn decided(&self, look: &Look<'_>, outcome: Outcome<'_>, stale: bool) -> Decision {
        let kept = |answer| (answer, LookedUp::Kept, Some(look.revision()));
        let (answer, looked_up, revision) = match outcome {
            Outcome::Active(entry) => kept(Answer::Active(Arc::new(entry.clone()))),
            Outcome::Refused(reason, entry) => {
                kept(Answer::Refused(reason, Arc::new(entry.clone())))
            }
            Outcome::Unknown => kept(Answer::NotFound),
            Outcome::Malformed => (Answer::NotFound, LookedUp::Nowhere, None),
        };
        self.decision(answer, looked_up, revision, look.now(), stale)
    }

    /// What a read of the store comes to.
    fn judged(&self, filled: &Filled, requirement: &Requirement<'_>, now: Timestamp) -> Decision {
        let answer = match &filled.found {
            None => Answer::NotFound,
            Some((entry, members)) => {
                let answer = judge(entry, *members, requirement, now);
                if let Answer::Active(entry) = &answer {
                    self.note(entry, now, requirement.client_ip);
                }
                answer
            }
        };
        self.decision(answer, LookedUp::Read, Some(filled.head), now, false)
    }

    fn decision(
        &self,
        answer: Answer,
        looked_up: LookedUp,
        revision: Option<Revision>,
        now: Timestamp,
        stale: bool,
    ) -> Decision {
        let max_age = match &answer {
            Answer::Active(entry) if !stale => self.max_age(entry, now),
            Answer::Active(_) | Answer::NotFound | Answer::Refused(..) => Duration::ZERO,
        };
        Decision { answer, revision, looked_up, max_age, stale }
    }

    /// How long an answer of this instant may be reused.
    fn max_age(&self, entry: &Entry, now: Timestamp) -> Duration {
        let left = entry.expires_at().map(|end| end.since(now));
        left.map_or(self.policy.max_age, |left| left.min(self.policy.max_age))
    }

    fn note(&self, entry: &Entry, at: Timestamp, ip: Option<IpAddr>) {
        if let Some(uses) = &self.uses
            && entry.is_noteworthy(at, ip)
        {
            uses.note(&entry.credential_id(), at, ip);
        }
    }

    /// What the store says of a token, by a read that began no earlier than `since`;
    /// it is kept.
    async fn fill(
        self: &Arc<Self>,
        token: &TokenRef<'_>,
        requirement: &Requirement<'_>,
        source: Source,
        since: Begun,
    ) -> Result<Arc<Filled>, Error> {
        let [required, askers] =
            [requirement.workspace_id, requirement.askers_workspace_id].map(|id| id.unwrap_or(""));
        let flight =
            self.keys.of(&[token.expose(), token.uuid().unwrap_or_default(), required, askers]);
        let mut is_joined = true;
        let read = || {
            is_joined = false;
            let verifier = Arc::clone(self);
            let key = self.keys.of_token(token);
            let token = token.to_token();
            let required = requirement.workspace_id.map(ToOwned::to_owned);
            let askers = requirement.askers_workspace_id.map(ToOwned::to_owned);
            async move {
                let workspaces =
                    Workspaces { required: required.as_deref(), askers: askers.as_deref() };
                let (era, asked_at) = (verifier.history.era(), verifier.clock.uptime());
                let applied = verifier.history.applied().revision;
                let reader = &verifier.reader;
                if reader.store.has_replica()
                    && let Some(read) = reader.read_replica(&token, workspaces).await?
                    && verifier.holds(&read, workspaces, era)
                {
                    return Ok(verifier.keep(key, &read, workspaces, era, asked_at));
                }
                let read = reader.read(&token, workspaces, &source).await?;
                verifier.not_before(applied, read.head)?;
                Ok(verifier.keep(key, &read, workspaces, era, asked_at))
            }
        };
        let now = Begun { at: self.clock.uptime(), known: self.history.known() };
        let landed = self.flights.join(flight, since, now, read).await;
        self.happened(if is_joined { Event::Joined } else { Event::Read });
        landed.map_err(|error| error.again())
    }

    /// What is read at the primary is no older than what was known before, or another server
    /// is the primary by now. What is of another history is the follower's to judge.
    fn not_before(&self, applied: Revision, head: Revision) -> Result<(), StoreError> {
        let applied = applied.number.min(self.history.applied().revision.number);
        if head.number < applied && self.history.knows(head) != Some(false) {
            return Err(StoreError::Unavailable("an older state was read than is known".into()));
        }
        Ok(())
    }

    /// Whether what a replica gave is of this history and nothing that it depends on
    /// was changed since.
    fn holds(&self, read: &Read, workspaces: Workspaces<'_>, era: u32) -> bool {
        let at = ReadAt { revision: read.head.number, era };
        self.history.knows(read.head) == Some(true)
            && read.found.as_ref().is_some_and(|found| {
                let organization_id = found.required_organization_id.as_deref();
                let required = workspaces.required.is_none_or(|required| {
                    let depends = self.history.on_membership(found, required, organization_id);
                    self.history.holds(at, depends)
                });
                required && self.history.holds(at, self.history.on_credential(found))
            })
    }

    fn keep(
        &self,
        key: Key,
        read: &Read,
        workspaces: Workspaces<'_>,
        era: u32,
        asked_at: Uptime,
    ) -> Filled {
        let at = ReadAt { revision: read.head.number, era };
        let Some(found) = &read.found else {
            if read.lasts == Lasts::Long {
                self.kept.unknown.keep(key, at, asked_at);
                self.happened(Event::UnknownKept);
            }
            return Filled { found: None, head: read.head, asked_at };
        };
        let depends = self.history.on_credential(found);
        let until = (read.lasts == Lasts::Briefly).then(|| Uptime(asked_at.0 + BRIEFLY));
        let entry = Entry::of(found, (self.encode)(found), at, depends, until);
        let members =
            Members { of_required: found.member_of_required, of_askers: found.member_of_askers };
        if read.lasts != Lasts::Never {
            let second = entry::second(asked_at);
            if !entry.is_bound() {
                let organization_id = found.required_organization_id.as_deref();
                let asked = [
                    (Membership::Serves, workspaces.required, organization_id, members.of_required),
                    (Membership::IsKnown, workspaces.askers, None, members.of_askers),
                ];
                for (asked, workspace_id, organization_id, is_member) in asked {
                    let Some(workspace_id) = workspace_id else { continue };
                    let depends = self.history.on_membership(found, workspace_id, organization_id);
                    let member = Member { is_member, read: at, depends, used: 0.into() };
                    let key = self.keys.of_member(key, asked, workspace_id);
                    if self.kept.members.keep(key, member, second) {
                        self.sweep();
                    }
                }
            }
            if self.kept.entries.keep(key, entry.clone(), second) {
                self.sweep();
            }
        }
        Filled { found: Some((Arc::new(entry), members)), head: read.head, asked_at }
    }

    /// Makes room, on a thread of its own.
    fn sweep(&self) {
        let (kept, history) = (Arc::clone(&self.kept), Arc::clone(&self.history));
        let (counters, now) = (Arc::clone(&self.counters), self.clock.uptime());
        tokio::task::spawn_blocking(move || {
            let swept = kept.entries.sweep(|entry| entry.holds(&history, now))
                + kept.members.sweep(|member| history.holds(member.read, member.depends));
            counters.happened(Event::Swept, swept);
        });
    }
}

/// Why there is no old answer where the store can't be asked for a new one.
fn nothing_kept() -> Error {
    StoreError::Unavailable("it can't be asked, and nothing is kept".into()).into()
}

fn judge(
    entry: &Arc<Entry>,
    members: Members,
    requirement: &Requirement<'_>,
    now: Timestamp,
) -> Answer {
    match entry.verdict(members, requirement, now) {
        Verdict::Active => Answer::Active(Arc::clone(entry)),
        Verdict::Refused(Reason::NotFound) => Answer::NotFound,
        Verdict::Refused(reason) => Answer::Refused(reason, Arc::clone(entry)),
    }
}
