//! Is this token good, whose is it, and for what: the hot path.
//!
//! What was found once is kept ([`Entry`]) and answers again as long as nothing that
//! it depends on was changed, which is looked up when it is read: in a few slots that
//! a follower of the store's changes keeps up to date (`history`, `follower`). Where
//! nothing is kept, or it no longer holds, the store is asked (`reader`).

mod batch;
mod callers;
mod counts;
mod entry;
mod filling;
mod follower;
mod freshness;
mod history;
mod key;
mod look;
#[cfg(test)]
mod model;
mod reader;
mod reports;
mod unknown;
mod watching;

use std::{sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use crate::{
    clock::Clock,
    domain::{
        CredentialId, Found, PatPrefix, Peppers, Reason, Requirement, Revision, Timestamp,
        TokenRef, Verdict,
    },
    error::Error,
    hashing::{Recovery, Source},
    keeping::{
        cache::Cache,
        flights::{Begun, Flights},
        key::Keys,
        slots::Depends,
    },
    root::RootTokens,
    store::{Store, StoreError},
    upkeep::Upkeep,
    usage::Uses,
};
use counts::Counters;
use entry::{Member, Members};
use filling::Filled;
use follower::Follower;
use freshness::Fresh;
use history::{History, ReadAt};
use reader::Reader;
use unknown::Unknown;

pub use batch::Question;
pub use callers::Asker;
pub use counts::{Came, Counts, Event, LookedUp, Refused};
pub use entry::{ASKING, Encoded, Entry};
pub use freshness::{Consistency, Knows};
pub use look::{Look, Outcome};
pub use reports::Reported;
pub use watching::{Told, Watcher};

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
    flights: Arc<Flights<Filled, Error>>,
    counters: Arc<Counters>,
    root: Arc<Entry>,
}

/// Everything that is kept.
struct Keeping {
    entries: Cache<Entry>,
    members: Cache<Member>,
    unknown: Unknown,
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

    fn parse<'t>(&self, presented: &'t str) -> Option<TokenRef<'t>> {
        let token = TokenRef::parse(presented)?;
        let prefix = token.pat_prefix();
        prefix
            .is_none_or(|prefix| self.prefixes.iter().any(|known| known.as_str() == prefix))
            .then_some(token)
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
        if filled.asked_at < fresh.begun && filled.head.number < fresh.known.number {
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
                    self.note(entry, requirement, now);
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
        if entry.asks_again() {
            return Duration::ZERO;
        }
        let left = entry.expires_at().map(|end| end.since(now));
        left.map_or(self.policy.max_age, |left| left.min(self.policy.max_age))
    }

    fn note(&self, entry: &Entry, requirement: &Requirement<'_>, at: Timestamp) {
        let Requirement { client_ip, verifier_id, .. } = *requirement;
        if let Some(uses) = &self.uses
            && entry.is_noteworthy(at, client_ip, verifier_id)
        {
            let verifier = verifier_id.map(|id| CredentialId(id.to_owned()));
            uses.note(&entry.credential_id(), verifier.as_ref(), at, client_ip);
        }
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
