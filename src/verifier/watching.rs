//! What was changed, told to those who keep answers of their own.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use tokio::sync::{Semaphore, watch};

use super::{
    Asker, Verifier,
    follower::Attempt,
    history::{History, Lost},
};
use crate::{
    clock::Uptime,
    domain::{Revision, Timestamp},
    error::Error,
    store::{Change, StoreError, Touched},
};

/// About how many things are told of at once.
const AT_ONCE: usize = 1_000;

/// How far behind who resumes may be; beyond that it is cheaper to start over.
const MAX_BEHIND: i64 = 65_536;

/// How many read from the store what they missed, so that the follower never waits long.
static RESUMING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(1));

/// Somebody who is told what changed.
pub struct Watcher {
    verifier: Arc<Verifier>,
    /// The workspace that it is bound to, beyond which it learns of nothing.
    workspace_id: Option<String>,
    news: watch::Receiver<Attempt>,
    /// Up to where it was told.
    told: Revision,
    /// The state of the store by which it was last decided what it may know of.
    seen_at: i64,
    /// It was told less than is remembered here when it came.
    resumes: bool,
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// These things were changed since it was told last, and up to this revision
    /// nothing else that it may know of.
    Changed(Revision, BTreeSet<Touched>),
    /// It was told of everything up to this revision, and at this instant that was all
    /// there was; `None`: that can't be said now.
    Nothing(Revision, Option<Uptime>),
    /// What it knows of is not what led to this revision, or too long ago.
    StartOver(Revision),
    /// It takes up less than happens.
    TooSlow,
}

impl Verifier {
    /// Somebody who was told of everything up to `since`; `None`: of everything so far.
    #[must_use]
    pub fn watch(self: &Arc<Self>, since: Option<Revision>, asker: &Asker) -> Watcher {
        let applied = self.history.applied().revision;
        Watcher {
            verifier: Arc::clone(self),
            workspace_id: asker.entry().workspace_id().map(str::to_owned),
            news: self.follower.news(),
            told: since.unwrap_or(applied),
            seen_at: 0,
            resumes: since.is_some(),
        }
    }

    /// What time it is, to those who keep answers.
    #[must_use]
    pub fn now(&self) -> (Timestamp, Uptime) {
        (self.clock.now(), self.clock.uptime())
    }
}

impl Watcher {
    /// Up to where it was told.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.told
    }

    /// What it is to be told next.
    ///
    /// # Errors
    ///
    /// What it missed, or may know of, could not be read; nothing was told.
    pub async fn next(&mut self) -> Result<Told, Error> {
        // In this order: what was confirmed then is applied.
        let confirmed_at = self.history().confirmed_at();
        let changes = match self.history().after(self.told, AT_ONCE) {
            Ok(changes) => {
                self.resumes = false;
                changes
            }
            Err(lost) if self.resumes => match self.missed(lost).await? {
                Some(changes) => changes,
                None => return Ok(self.start_over()),
            },
            Err(Lost::Behind) => return Ok(Told::TooSlow),
            // It was told of nothing that was not applied here.
            Err(Lost::Ahead | Lost::Elsewhere) => return Ok(self.start_over()),
        };
        let Some(last) = changes.last().map(|change| change.revision) else {
            let age = self.verifier.policy.max_staleness;
            let is_sure = !self.resumes
                && self.told.number >= self.seen_at
                && self.verifier.clock.uptime().since(confirmed_at) <= age;
            return Ok(Told::Nothing(self.told, is_sure.then_some(confirmed_at)));
        };
        let touched = changes.iter().flat_map(|change| change.touched.iter().cloned()).collect();
        let touched = self.may_know(touched).await?;
        self.told = last;
        Ok(Told::Changed(last, touched))
    }

    /// Waits until there may be something to tell.
    pub async fn news(&mut self) {
        if self.news.changed().await.is_err() {
            // Nobody follows the store any more, so there will be none.
            std::future::pending().await
        }
    }

    /// Whether more happened than is remembered for it.
    #[must_use]
    pub fn is_too_slow(&self) -> bool {
        !self.resumes && self.history().after(self.told, 0) == Err(Lost::Behind)
    }

    /// What came after what it knows, which is not remembered here; `None`: it has
    /// to start over.
    async fn missed(&self, lost: Lost) -> Result<Option<Vec<Arc<Change>>>, Error> {
        match lost {
            Lost::Elsewhere => Ok(None),
            Lost::Ahead => {
                // Another process told it.
                self.verifier.follower.confirmed_since(self.verifier.clock.uptime()).await?;
                Ok(self.history().after(self.told, AT_ONCE).ok())
            }
            Lost::Behind => {
                let head = self.history().applied().revision;
                if head.number - self.told.number > MAX_BEHIND {
                    return Ok(None);
                }
                let _turn = RESUMING
                    .acquire()
                    .await
                    .map_err(|closed| StoreError::Failed(Box::new(closed)))?;
                let news = self.verifier.reader.store.changes(self.told).await?;
                Ok(news.changes.map(|changes| changes.into_iter().map(Arc::new).collect()))
            }
        }
    }

    /// What of this it may know of.
    ///
    /// That is as of a later state. What it might have known of before, and not any more, is
    /// told of with the change that made it so, before it is told that this was all.
    async fn may_know(&mut self, touched: BTreeSet<Touched>) -> Result<BTreeSet<Touched>, Error> {
        let Some(bound) = self.workspace_id.clone() else {
            return Ok(touched.into_iter().map(without_workspace).collect());
        };
        let (mut known, mut asked) = (BTreeSet::new(), Vec::new());
        for touched in touched {
            match touched {
                Touched::Member { ref workspace_id, .. } if *workspace_id == bound => {
                    known.insert(without_workspace(touched));
                }
                Touched::Workspace(id) if id == bound => {
                    known.insert(Touched::Workspace(id));
                }
                Touched::Member { .. } | Touched::Workspace(_) => {}
                Touched::Everything => {
                    known.insert(Touched::Everything);
                }
                Touched::Credential(_) | Touched::User(_) | Touched::Organization(_) => {
                    asked.push(touched);
                }
            }
        }
        if !asked.is_empty() {
            let (seen, head) = self.verifier.reader.store.seen_from(&bound, &asked).await?;
            self.seen_at = head.number;
            known.extend(seen);
        }
        Ok(known)
    }

    fn start_over(&self) -> Told {
        Told::StartOver(self.history().applied().revision)
    }

    fn history(&self) -> &History {
        &self.verifier.history
    }
}

/// A user, whatever became of it there.
fn without_workspace(touched: Touched) -> Touched {
    match touched {
        Touched::Member { user_id, .. } => Touched::User(user_id),
        Touched::Credential(_)
        | Touched::User(_)
        | Touched::Workspace(_)
        | Touched::Organization(_)
        | Touched::Everything => touched,
    }
}
