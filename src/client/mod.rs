//! Asks the authority whether a token is good, and keeps what it answers: a verifier for
//! services.
//!
//! A [`Client`] watches the authority's changes. As long as it knows that there are no
//! others, an answer that none of them touches is given from memory, without a call: a
//! token that was revoked longer than [`max_staleness`](Options::max_staleness) ago is
//! refused, whatever froze or broke. Whatever is not known so is asked, and what can't be
//! asked is an [`Error`]: never a refusal and, unless
//! [`stale_if_error`](Options::stale_if_error) allows it, never an old answer.
//!
//! [`Client::layer`] protects any service of HTTP requests, [`Client::interceptor`] one
//! of tonic's.

mod answer;
mod interceptor;
mod kept;
mod layer;
#[cfg(test)]
mod model;
mod news;
mod options;
mod received;
mod remote;
mod uses;
mod watch;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

pub use crate::domain::{Kind, Kinds, Route, Timestamp};
pub use answer::{Answer, Error, Identity, Question, Reason};
pub use interceptor::Guard;
pub use layer::{Protect, Protected, Stale};
pub use options::{Options, OwnToken};
use tokio::{sync::Semaphore, task::JoinHandle};
use tonic::Code;
pub use tonic::transport::{Certificate, ClientTlsConfig};

use crate::{
    clock::{Clock, Uptime},
    domain::Requirement,
    keeping::{
        flights::{Begun, Flights, Grounded, Known},
        key::Key,
    },
    proto::v1::VerifyRequest,
};
use kept::Keeping;
use news::{News, Position};
use options::Own;
use remote::Remote;
use uses::Uses;

/// How many questions are under way at once, in all.
const MAX_UNDER_WAY: usize = 1_024;

/// While it is not known what changed, who asks for what is being asked waits so long, for
/// the others who do: then one question is sent for them all, after each of them began.
const GATHER: Duration = Duration::from_millis(10);

/// How long a client takes at most to be closed.
const CLOSE: Duration = Duration::from_secs(5);

/// Answers for tokens. Clones share everything; with the last of them the watching ends.
#[derive(Clone)]
pub struct Client(Arc<Running>);

/// The client and its tasks.
struct Running {
    inner: Arc<Inner>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Inner {
    remote: Remote,
    keeping: Keeping,
    flights: Arc<Flights<Answered, Error>>,
    /// One for each question that may be sent.
    may_ask: Semaphore,
    /// One for each interceptor that may wait.
    may_block: Semaphore,
    uses: Uses,
    clock: Arc<dyn Clock>,
    max_staleness: Duration,
    stale_if_error: Duration,
}

/// What the authority answered.
#[derive(Clone)]
enum Answered {
    Active(Arc<Identity>, Staleness),
    Refused(Reason, Staleness),
}

impl From<Grounded> for Error {
    fn from(grounded: Grounded) -> Self {
        match grounded {
            Grounded::Full => too_many(),
            Grounded::GivenUp => Self::Unavailable("the question was given up".to_owned()),
        }
    }
}

fn too_many() -> Error {
    Error::Unavailable(format!("{MAX_UNDER_WAY} questions are under way"))
}

/// Whether the authority could not ask its store.
type Staleness = bool;

/// How a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct State {
    /// How long ago it was last known that all changes were received; `None`: never yet.
    pub confirmed_ago: Option<Duration>,
    /// Whether that is little enough for kept answers to be given.
    pub is_fresh: bool,
    /// How many answers are kept.
    pub entries: usize,
    /// About how many bytes they take.
    pub bytes: usize,
    /// How many questions are under way; beyond 1,024 none is asked.
    pub under_way: usize,
}

impl Client {
    /// A client that begins to watch, and connects when it first has to.
    ///
    /// Has to be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// An option is not as it must be, or the own token can't be read.
    pub fn start(options: Options) -> Result<Self, Error> {
        options.check()?;
        let inner = Arc::new(Inner {
            remote: Remote::new(&options)?,
            keeping: Keeping::new(News::new(), options.cache_bytes),
            flights: Flights::new(),
            may_ask: Semaphore::new(MAX_UNDER_WAY),
            may_block: Semaphore::new(interceptor::MAX_WAITING),
            uses: Uses::default(),
            clock: options.clock,
            max_staleness: options.max_staleness,
            stale_if_error: options.stale_if_error,
        });
        let reports = Arc::clone(&inner);
        let tasks = vec![
            tokio::spawn(watch::watch(Arc::clone(&inner))),
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(uses::EVERY).await;
                    reports.uses.report(&reports.remote, reports.clock.uptime(), false).await;
                }
            }),
        ];
        Ok(Self(Arc::new(Running { inner, tasks: Mutex::new(tasks) })))
    }

    /// Whether a token is good for what is asked.
    ///
    /// # Errors
    ///
    /// The question is malformed or could not be answered, which nobody must take for a no.
    pub async fn verify(&self, question: Question<'_>) -> Result<Answer, Error> {
        let inner = &self.0.inner;
        let asking = inner.asking(&question)?;
        match inner.kept(&asking) {
            Some(answer) => Ok(answer),
            None => inner.ask(&question, &asking).await,
        }
    }

    /// The answer, if it is kept and known to hold; `None`: the authority has to be asked.
    ///
    /// # Errors
    ///
    /// The question is malformed.
    pub fn kept(&self, question: Question<'_>) -> Result<Option<Answer>, Error> {
        let inner = &self.0.inner;
        Ok(inner.kept(&inner.asking(&question)?))
    }

    /// How it stands.
    #[must_use]
    pub fn state(&self) -> State {
        let inner = &self.0.inner;
        let (news, now) = (&inner.keeping.news, inner.clock.uptime());
        let (entries, bytes) = inner.keeping.size();
        State {
            confirmed_ago: news.confirmed_at().map(|at| now.since(at)),
            is_fresh: news.is_within(inner.max_staleness, now),
            entries,
            bytes,
            under_way: MAX_UNDER_WAY - inner.may_ask.available_permits(),
        }
    }

    /// Reports the uses that were not reported yet, as far as that takes 5 s, and watches no
    /// longer. Whatever is asked from then on is asked remotely: nothing kept is given any
    /// more, whether it is old or not.
    pub async fn close(&self) {
        let tasks = {
            let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *tasks)
        };
        let inner = &self.0.inner;
        let closed = tokio::time::timeout(CLOSE, async {
            for task in tasks {
                task.abort();
                let _ = task.await;
            }
            inner.keeping.news.set_watching(false);
            inner.keeping.news.start_over(None);
            inner.keeping.forget();
            inner.uses.report(&inner.remote, inner.clock.uptime(), true).await;
        });
        if closed.await.is_err() {
            tracing::warn!("not all uses of tokens are reported");
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(JoinHandle::abort);
    }
}

/// A question that is being answered.
struct Asking<'q> {
    requirement: Requirement<'q>,
    key: Key,
    begun: Uptime,
    is_fresh: bool,
}

impl Inner {
    fn asking<'q>(&self, question: &Question<'q>) -> Result<Asking<'q>, Error> {
        let requirement = question.requirement()?;
        let key = self.keeping.key(question);
        let begun = self.clock.uptime();
        // What is confirmed is looked at before what is kept: it is in the slots.
        let is_fresh = self.keeping.news.is_within(self.max_staleness, begun);
        Ok(Asking { requirement, key, begun, is_fresh })
    }

    fn kept(&self, asking: &Asking<'_>) -> Option<Answer> {
        if asking.is_fresh { self.kept_as(asking, false) } else { None }
    }

    fn kept_as(&self, asking: &Asking<'_>, stale: bool) -> Option<Answer> {
        let Asking { requirement, key, begun, .. } = asking;
        let (answer, first_use) = self.keeping.answer(key, requirement, *begun, stale)?;
        if let Some(first_use) = first_use {
            self.uses.wait(first_use);
        }
        Some(answer)
    }

    /// An old answer, if the authority can't be asked and one may be given.
    fn old(&self, asking: &Asking<'_>) -> Option<Answer> {
        let may_be = !self.stale_if_error.is_zero()
            && self.keeping.news.is_within(self.stale_if_error, asking.begun);
        if may_be { self.kept_as(asking, true) } else { None }
    }

    async fn ask(
        self: &Arc<Self>,
        question: &Question<'_>,
        asking: &Asking<'_>,
    ) -> Result<Answer, Error> {
        let answered = match self.answered(question, asking).await {
            Ok(answered) => answered,
            Err(error) => {
                let old = if error.is_unavailable() { self.old(asking) } else { None };
                return old.ok_or(error);
            }
        };
        Ok(match answered {
            Answered::Refused(reason, stale) => Answer::Refused { reason, stale },
            Answered::Active(identity, stale) => match identity.judge(&asking.requirement) {
                Ok(()) => Answer::Active { identity, stale },
                Err(reason) => Answer::Refused { reason, stale },
            },
        })
    }

    /// What the authority says, to this question or to the same one of somebody else.
    async fn answered(
        self: &Arc<Self>,
        question: &Question<'_>,
        asking: &Asking<'_>,
    ) -> Result<Answered, Error> {
        let news = &self.keeping.news;
        let position = news.position();
        if !asking.is_fresh || position.revision.is_none() {
            return self.ask_after(question, asking, position).await;
        }
        // What another asked for after the last change that was received is as good: what is
        // received now is all there was within the bound.
        let known = Known { era: 0, number: position.number };
        let since = Begun { at: Uptime(Duration::ZERO), known };
        let begun = Begun { at: asking.begun, known };
        let mut is_joined = true;
        let joined = self.flights.join(asking.key, since, begun, || {
            is_joined = false;
            let (inner, position) = (Arc::clone(self), Arc::clone(&position));
            let asked = Asked::new(question, asking, &position, self.stale_if_error);
            async move { inner.ask_and_keep(asked, position).await }
        });
        match joined.await.as_deref() {
            Ok(Answered::Active(identity, _))
                if is_joined && self.has_expired(identity, asking.begun) =>
            {
                self.ask_after(question, asking, position).await
            }
            Err(error) if error.is_of_revision() => {
                self.ask_after(question, asking, position).await
            }
            Ok(answered) => Ok(answered.clone()),
            Err(error) => Err(Error::clone(error)),
        }
    }

    /// Asks, or waits for what somebody else asks, after this call began.
    async fn ask_after(
        self: &Arc<Self>,
        question: &Question<'_>,
        asking: &Asking<'_>,
        position: Arc<Position>,
    ) -> Result<Answered, Error> {
        let wait = if self.flights.is_under_way(&asking.key) { GATHER } else { Duration::ZERO };
        let known = Known { era: 0, number: position.number };
        let since = Begun { at: asking.begun, known };
        let begun = Begun { at: Uptime(asking.begun.0 + wait), known };
        let joined = self.flights.join(asking.key, since, begun, || {
            let inner = Arc::clone(self);
            let asked = Asked::new(question, asking, &position, self.stale_if_error);
            async move {
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
                inner.ask_somehow(asked, position).await
            }
        });
        match joined.await.as_deref() {
            Ok(answered) => Ok(answered.clone()),
            Err(error) => Err(Error::clone(error)),
        }
    }

    /// Asks for what is known there, if that can't be all that was received here.
    async fn ask_somehow(
        self: &Arc<Self>,
        asked: Asked,
        position: Arc<Position>,
    ) -> Result<Answered, Error> {
        let mut anew = asked.message.clone();
        if let Some(consistency) = &mut anew.consistency {
            consistency.requirement = None;
        }
        if self.keeping.news.is_watching() && position.revision.is_some() {
            match self.ask_and_keep(asked, position).await {
                Err(error) if error.is_of_revision() => {}
                answered => return answered,
            }
        }
        Ok(self.told(anew).await?.0)
    }

    /// Asks for an answer that knows of all that was received, and keeps it.
    async fn ask_and_keep(
        self: &Arc<Self>,
        asked: Asked,
        position: Arc<Position>,
    ) -> Result<Answered, Error> {
        let Asked { message, key, client_ip, asked_at } = asked;
        let workspace_id = message.workspace_id.clone();
        let (answered, revision) = self.told(message).await?;
        if let (Answered::Active(identity, false), Some(revision)) = (&answered, revision) {
            let news = &self.keeping.news;
            let rests = news.rests(&position, identity, workspace_id.as_deref());
            let rests = (rests, news.mark(&revision));
            if self.keeping.keep(key, Arc::clone(identity), rests, client_ip, asked_at) {
                let inner = Arc::clone(self);
                let now = inner.clock.uptime();
                tokio::task::spawn_blocking(move || inner.keeping.sweep(now));
            }
        }
        Ok(answered)
    }

    /// What the authority says to this and, if that may be kept, at which revision. What is
    /// in no store is of none.
    async fn told(&self, message: VerifyRequest) -> Result<(Answered, Option<String>), Error> {
        let _may_ask = self.may_ask.try_acquire().map_err(|_| too_many())?;
        let own = self.remote.own.value();
        let answer = match self.remote.verify(&own, message.clone()).await {
            Err(status)
                if status.code() == Code::Unauthenticated && self.is_another_caller(&own).await =>
            {
                self.remote.verify(&self.remote.own.value(), message).await?
            }
            answer => answer?,
        };
        let stale = answer.stale;
        if !answer.active {
            return Ok((Answered::Refused(Reason::from(&answer), stale), None));
        }
        let revision = Some(answer.revision.clone());
        let revision = revision.filter(|revision| !revision.is_empty() && !answer.ask_again);
        Ok((Answered::Active(Arc::new(answer.try_into()?), stale), revision))
    }

    /// Whether this service presents another token than this by now, which may have been
    /// read just for that.
    async fn is_another_caller(&self, own: &Own) -> bool {
        let changed = || {
            self.keeping.news.next_caller();
            self.keeping.forget();
        };
        self.remote.own.is_another(own, self.clock.uptime(), changed).await
    }

    fn has_expired(&self, identity: &Identity, at: Uptime) -> bool {
        identity
            .expires_at
            .is_some_and(|expires_at| self.keeping.news.now(at) >= expires_at.as_micros())
    }
}

/// A question that is sent.
struct Asked {
    message: VerifyRequest,
    key: Key,
    client_ip: Option<std::net::IpAddr>,
    asked_at: Uptime,
}

impl Asked {
    fn new(
        question: &Question<'_>,
        asking: &Asking<'_>,
        position: &Position,
        max_stale: Duration,
    ) -> Self {
        Self {
            message: question.message(position.revision.clone(), max_stale),
            key: asking.key,
            client_ip: question.client_ip,
            asked_at: asking.begun,
        }
    }
}
