//! What was changed, told to those who keep answers of their own.

use std::{
    collections::BTreeSet,
    sync::{Arc, LazyLock},
};

use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::{
    Asker, Verifier,
    follower::Attempt,
    history::{History, Lost, room},
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

/// How many read from the store what they missed, so that the follower never waits long;
/// and how many have it asked what they may know of, so that others are not kept waiting.
static RESUMING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(1));
static SEEING: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(2));

/// Somebody who is told what changed.
pub struct Watcher {
    verifier: Arc<Verifier>,
    /// The workspace that it is bound to, beyond which it learns of nothing.
    workspace_id: Option<String>,
    news: watch::Receiver<Attempt>,
    /// Up to where it was told.
    told: Revision,
    sure: Sureness,
    /// It was told less than is remembered here when it came.
    resumes: bool,
}

/// When a watcher was sure that it was told of everything there was at one instant, and
/// when it will be again.
#[derive(Debug, Default)]
struct Sureness {
    at: Option<Uptime>,
    next: Option<Next>,
    /// The latest state by which it was decided what it may know of.
    seen: i64,
}

/// An instant of which a watcher will be sure.
#[derive(Debug)]
struct Next {
    at: Uptime,
    /// What was applied then.
    applied: i64,
    /// When it was told so much: also of the latest state by which it was decided what it
    /// may know of those.
    needed: i64,
}

impl Sureness {
    /// It will be sure of an instant at which so much was applied, unless it is not yet of
    /// another.
    fn aim(&mut self, instant: impl FnOnce() -> (Uptime, i64)) {
        let seen = self.seen;
        self.next.get_or_insert_with(|| {
            let (at, applied) = instant();
            Next { at, applied, needed: applied.max(seen) }
        });
    }

    /// It is told what came after `told`, of which it was decided by the state `seen`.
    fn tells(&mut self, told: i64, seen: i64) {
        self.seen = self.seen.max(seen);
        if let Some(next) = &mut self.next
            && told < next.applied
        {
            next.needed = next.needed.max(seen);
        }
    }

    fn is_told(&mut self, told: i64) {
        if let Some(next) = self.next.take_if(|next| next.needed <= told) {
            self.at = Some(next.at);
        }
    }
}

/// What a watcher is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// These things were changed with these revisions, and nothing else that it may know of.
    Changed(Vec<Revision>, BTreeSet<Touched>),
    /// It was told of everything that is applied.
    Nothing,
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
            sure: Sureness::default(),
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
        let history = &self.verifier.history;
        // In this order: what was confirmed then is applied.
        self.sure.aim(|| (history.confirmed_at(), history.applied().revision.number));
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
        let revisions: Vec<Revision> = changes.iter().map(|change| change.revision).collect();
        let touched = changes.iter().flat_map(|change| change.touched.iter().cloned()).collect();
        let (touched, seen_at) = match revisions.last() {
            Some(last) => self.may_know(touched, *last).await?,
            None => (BTreeSet::new(), 0),
        };
        self.sure.tells(self.told.number, seen_at);
        self.told = revisions.last().copied().unwrap_or(self.told);
        // What it resumed from may be of another history until it was found in this one.
        if !self.resumes {
            self.sure.is_told(self.told.number);
        }
        Ok(if revisions.is_empty() { Told::Nothing } else { Told::Changed(revisions, touched) })
    }

    /// When it was last sure that it was told of everything, if that is not too long ago.
    #[must_use]
    pub fn sure_at(&self) -> Option<Uptime> {
        let (now, age) = (self.verifier.clock.uptime(), self.verifier.policy.max_staleness);
        self.sure.at.filter(|sure_at| now.since(*sure_at) <= age)
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
                let _turn = turn(&RESUMING).await?;
                let news = self.verifier.reader.store.changes(self.told).await?;
                Ok(news.changes.map(|changes| {
                    let mut is_room = room(AT_ONCE);
                    changes.into_iter().take_while(|change| is_room(change)).map(Arc::new).collect()
                }))
            }
        }
    }

    /// What it may know of among what was touched up to `last`, and of which state of the
    /// store that is.
    ///
    /// That may be later. What it might have known of before, and not any more, is told of
    /// with the change that made it so, before it is told that this was all.
    async fn may_know(
        &self,
        touched: BTreeSet<Touched>,
        last: Revision,
    ) -> Result<(BTreeSet<Touched>, i64), Error> {
        let Some(bound) = &self.workspace_id else {
            return Ok((touched.into_iter().map(without_workspace).collect(), 0));
        };
        let (mut known, mut asked) = (BTreeSet::new(), Vec::new());
        for touched in touched {
            match touched {
                Touched::Member { ref workspace_id, .. } if workspace_id == bound => {
                    known.insert(without_workspace(touched));
                }
                Touched::Workspace(id) if id == *bound => {
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
        if asked.is_empty() {
            return Ok((known, 0));
        }
        let _turn = turn(&SEEING).await?;
        let (seen, head) = self.verifier.reader.store.seen_from(bound, &asked).await?;
        if head.number < last.number {
            return Err(
                StoreError::Unavailable("an older state was read than is told".into()).into()
            );
        }
        known.extend(seen);
        Ok((known, head.number))
    }

    fn start_over(&self) -> Told {
        Told::StartOver(self.history().applied().revision)
    }

    fn history(&self) -> &History {
        &self.verifier.history
    }
}

async fn turn(among: &Semaphore) -> Result<SemaphorePermit<'_>, StoreError> {
    among.acquire().await.map_err(|closed| StoreError::Failed(closed.into()))
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn second(second: i64) -> Uptime {
        Uptime(Duration::from_secs(second.unsigned_abs()))
    }

    /// The owner of a credential leaves with the change 20. Up to 7, which revokes that, it
    /// is told when that has happened, and so learns of nothing.
    #[test]
    fn what_was_decided_by_a_later_state_is_not_sure_before_that_is_told() {
        let mut sure = Sureness::default();
        sure.aim(|| (second(5), 5));
        sure.tells(4, 7);
        sure.is_told(5);
        assert_eq!(sure.at, None);
        sure.aim(|| panic!("it aims at one instant until it is sure of it"));
        sure.tells(5, 20);
        sure.is_told(7);
        assert_eq!(sure.at, Some(second(5)));
        sure.aim(|| (second(7), 7));
        sure.tells(7, 0);
        for (told, is_sure_at) in [(7, 5), (19, 5), (20, 7)] {
            sure.is_told(told);
            assert_eq!(sure.at, Some(second(is_sure_at)), "{told}");
        }
    }

    #[test]
    fn is_sure_again_and_again_though_the_store_is_always_ahead() {
        let mut sure = Sureness::default();
        for told in 0..100 {
            // The store is ten changes ahead of what is applied, and that one of what is told.
            sure.aim(|| (second(told + 1), told + 1));
            sure.tells(told, told + 11);
            sure.is_told(told + 1);
            let oldest = second((told - 25).max(0));
            assert!(told < 25 || sure.at.is_some_and(|at| at >= oldest), "{told}: {sure:?}");
        }
    }
}
