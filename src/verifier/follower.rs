//! Follows the history of changes, so that what is kept is known to hold.

use std::{
    error::Error as StdError,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use super::history::History;
use crate::{
    clock::{Clock, DatabaseTime, Uptime},
    domain::{PepperId, Peppers, Revision},
    error::Error,
    store::{News, Store, StoreError},
};

/// How often it looks though nobody wakes it; a quarter of the staleness that is
/// allowed if that is less.
const POLL: Duration = Duration::from_millis(500);

/// How long it waits for the store's answer before it takes it for none.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long it pauses after it got none.
const PAUSE: Duration = Duration::from_millis(50);

/// How long it lets changes collect, if it has just looked.
const BREATH: Duration = Duration::from_millis(5);

/// Follows a store's changes into a [`History`].
pub(super) struct Follower {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    history: Arc<History>,
    /// Forgets everything that is kept.
    forget: Box<dyn Fn() + Send + Sync>,
    peppers: Arc<Peppers>,
    /// The pepper that was current when it looked last.
    current: Mutex<Option<PepperId>>,
    max_staleness: Duration,
    wanted: Notify,
    last: watch::Sender<Attempt>,
}

/// How it ended when the store was asked last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt {
    begun_at: Uptime,
    failed: bool,
}

impl Follower {
    pub(super) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        history: Arc<History>,
        forget: Box<dyn Fn() + Send + Sync>,
        peppers: Arc<Peppers>,
        max_staleness: Duration,
    ) -> Self {
        let current = Mutex::new(peppers.current().map(|pepper| pepper.id().clone()));
        let begun_at = history.confirmed_at();
        let last = watch::Sender::new(Attempt { begun_at, failed: false });
        let wanted = Notify::new();
        Self { store, clock, history, forget, peppers, current, max_staleness, wanted, last }
    }

    /// Follows until aborted, whatever happens: after a panic it begins again.
    pub(super) fn start(self: Arc<Self>) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                // It ends with this task.
                let mut following = JoinSet::new();
                following.spawn(Arc::clone(&self).follow_on());
                following.join_next().await;
                tracing::error!("following the store's changes was given up and begins again");
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    async fn follow_on(self: Arc<Self>) {
        let poll = POLL.min(self.max_staleness / 4).max(Duration::from_millis(10));
        loop {
            let breathed = tokio::time::sleep(BREATH);
            let changed = async {
                self.store.changed().await;
                breathed.await;
            };
            // What wakes it confirms nothing: the table does.
            tokio::select! {
                () = changed => {}
                () = self.wanted.notified() => {}
                () = tokio::time::sleep(poll) => {}
            }
            if self.follow().await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    /// Whether what is applied was all there was at most so long before `at`.
    pub(super) fn is_within(&self, age: Duration, at: Uptime) -> bool {
        at.since(self.history.confirmed_at()) <= age
    }

    /// What tells whenever the store was asked.
    pub(super) fn news(&self) -> watch::Receiver<Attempt> {
        self.last.subscribe()
    }

    /// Whether the store could not be asked when it was last.
    pub(super) fn is_failing(&self) -> bool {
        self.last.borrow().failed
    }

    /// Waits until all is applied that there was at `instant`: for a confirmation that
    /// began no earlier, which everybody shares who waits for one.
    ///
    /// # Errors
    ///
    /// One that began no earlier failed.
    pub(super) async fn confirmed_since(&self, instant: Uptime) -> Result<(), Error> {
        let mut last = self.last.subscribe();
        loop {
            if self.history.confirmed_at() >= instant {
                return Ok(());
            }
            let Attempt { begun_at, failed } = *last.borrow_and_update();
            if failed && begun_at >= instant {
                let away = "the store did not say what has changed";
                return Err(StoreError::Unavailable(away.into()).into());
            }
            self.wanted.notify_one();
            if last.changed().await.is_err() {
                return Err(StoreError::Failed("nothing follows the store".into()).into());
            }
        }
    }

    /// Asks the store, and applies what it says, until that was all.
    pub(super) async fn follow(&self) -> Result<(), ()> {
        loop {
            let asked_at = self.clock.uptime();
            let after = self.history.applied().revision;
            let news = match timeout(PATIENCE, self.store.changes(after)).await {
                Ok(Ok(news)) => Ok(news),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(StoreError::Unavailable("it does not answer".into())),
            };
            match news {
                Ok(news) => {
                    let database = news.now.map(|now| DatabaseTime {
                        now,
                        asked_at,
                        answered_at: self.clock.uptime(),
                    });
                    self.clock.follow(database);
                    self.look_at_peppers();
                    if self.apply(after, news, asked_at) {
                        self.tell(asked_at, false);
                        return Ok(());
                    }
                }
                Err(error) => {
                    if !self.is_failing() {
                        tracing::warn!(
                            error = &error as &dyn StdError,
                            "the store's changes can't be followed"
                        );
                    }
                    self.clock.follow(None);
                    self.tell(asked_at, true);
                    return Err(());
                }
            }
        }
    }

    /// Has every token looked up again after another pepper became the current one, so
    /// that it is digested under that, however often it is used.
    fn look_at_peppers(&self) {
        let now = self.peppers.current().map(|pepper| pepper.id().clone());
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if *current != now {
            *current = now;
            self.history.begin_era();
            (self.forget)();
        }
    }

    /// Applies what came after a revision; whether that was all there was.
    fn apply(&self, after: Revision, news: News, asked_at: Uptime) -> bool {
        let Some(changes) = news.changes else {
            tracing::warn!(
                revision.known = %after,
                revision.head = %news.head,
                "the store's history was rewritten, or what follows is no longer kept: everything \
                 that was read is dropped"
            );
            self.history.rewrite(news.head);
            (self.forget)();
            self.history.confirm(asked_at);
            return true;
        };
        for change in &changes {
            self.history.raise(&change.touched, change.revision.number);
        }
        let last = changes.last().map_or(after, |change| change.revision);
        self.history.publish(changes);
        let is_all = last.number >= news.head.number;
        if is_all {
            self.history.confirm(asked_at);
        }
        is_all
    }

    fn tell(&self, begun_at: Uptime, failed: bool) {
        self.last.send_replace(Attempt { begun_at, failed });
    }
}
