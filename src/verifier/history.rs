//! What this process knows of the history of changes, and how new that is.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};

use crate::{
    clock::Uptime,
    domain::{Found, Revision},
    keeping::{
        flights::Known,
        slots::{Depends, DependsOn, Slots},
    },
    store::{Change, Touched},
};

/// How many revisions are remembered, by which others are told from foreign ones; and how
/// many things these may touch together.
const RECENT: usize = 4_096;
const THINGS: usize = 16 * RECENT;

/// How many changes of this process are remembered until they are applied; beyond that
/// it is remembered that they touched everything.
const OWN: usize = 256;

/// The last revision that touched each credential, user, workspace and
/// organization, and up to which all of them are known.
///
/// What is written here is written in this order: slots, then what is applied, then when that was confirmed;
/// who reads, reads in the opposite one. So what is confirmed is in the slots.
pub(super) struct History {
    slots: Slots,
    /// What was read in another one is of another history. It is odd while the history
    /// is rewritten, when nothing holds.
    era: AtomicU32,
    /// The last revision that was noted of any of them.
    known: AtomicI64,
    applied: ArcSwap<Applied>,
    /// The number of what is applied.
    reached: AtomicI64,
    confirmed_at: AtomicU64,
    met: Mutex<Met>,
}

/// Why what came after a revision can't be told from what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// It is not applied yet.
    Ahead,
    /// It is longer ago.
    Behind,
    /// It is of another history.
    Elsewhere,
}

/// Which revisions were met, by whom.
pub(super) struct Met {
    /// The last changes that were applied, one after the other, the first of all as
    /// one that touches nothing.
    pub(super) applied: VecDeque<Arc<Change>>,
    /// How many things these touch.
    things: usize,
    /// The marks of those that were read of and are not applied yet.
    pub(super) read: BTreeMap<i64, i64>,
    /// What changes of this process touch that are not applied yet.
    pub(super) own: Vec<(i64, Vec<Touched>)>,
}

/// Up to where the changes are known.
#[derive(Debug)]
pub(super) struct Applied {
    pub(super) revision: Revision,
    /// The same as it stands in an answer.
    pub(super) text: String,
}

/// Of which state of the store something was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReadAt {
    pub(super) revision: i64,
    pub(super) era: u32,
}

impl History {
    /// That is known up to `head`, which was asked for at `asked_at`.
    pub(super) fn new(head: Revision, asked_at: Uptime) -> Self {
        Self::with_slots(Slots::new(), head, asked_at)
    }

    pub(super) fn with_slots(slots: Slots, head: Revision, asked_at: Uptime) -> Self {
        Self {
            slots,
            era: AtomicU32::new(0),
            known: AtomicI64::new(head.number),
            applied: ArcSwap::from_pointee(Applied::new(head)),
            reached: AtomicI64::new(head.number),
            confirmed_at: AtomicU64::new(asked_at.as_nanos()),
            met: Mutex::new(Met {
                applied: from(head),
                things: 0,
                read: BTreeMap::new(),
                own: Vec::new(),
            }),
        }
    }

    /// When it was last made sure that there is nothing newer than what is applied.
    pub(super) fn confirmed_at(&self) -> Uptime {
        Uptime::from_nanos(self.confirmed_at.load(Ordering::Acquire))
    }

    /// Up to where the changes are known.
    pub(super) fn applied(&self) -> Guard<Arc<Applied>> {
        self.applied.load()
    }

    /// The newest change that is known of, though others before it may not be.
    pub(super) fn known(&self) -> Known {
        // In this order: a new era begins before its numbers do.
        let number = self.known.load(Ordering::Acquire);
        Known { era: self.era.load(Ordering::Acquire), number }
    }

    /// To be kept with what is read from now on.
    pub(super) fn era(&self) -> u32 {
        self.era.load(Ordering::Acquire).next_multiple_of(2)
    }

    /// Whether what was read then, and depends on this, is of the history that is
    /// applied, and was changed by nothing that is known.
    pub(super) fn holds(&self, read: ReadAt, on: Depends) -> bool {
        // In this order: an era ends before the slots are cleared for the next one, and
        // before what is of another history is reached.
        self.is_reached(read.revision)
            && self.is_untouched(read.revision, on)
            && self.is_of_now(read.era)
    }

    /// Whether all is applied that was there.
    pub(super) fn is_reached(&self, revision: i64) -> bool {
        revision <= self.reached.load(Ordering::Acquire)
    }

    /// Whether no slot says that it was changed since.
    pub(super) fn is_untouched(&self, revision: i64, on: Depends) -> bool {
        self.slots.is_untouched(revision, on)
    }

    /// Whether this is the era, and it has not ended.
    pub(super) fn is_of_now(&self, era: u32) -> bool {
        era == self.era.load(Ordering::Acquire)
    }

    /// What a credential depends on: itself, its owner and where it is bound.
    pub(super) fn on_credential(&self, found: &Found) -> Depends {
        let bound = found.credential.workspace.as_ref();
        self.slots.of(DependsOn {
            credential: Some(&found.credential.id.0),
            user: Some(found.owner.id.as_str()),
            workspace: bound.map(|bound| bound.workspace_id.as_str()),
            organization: bound.map(|bound| bound.organization_id.as_str()),
        })
    }

    /// What it depends on whether a user is a member of a workspace.
    pub(super) fn on_membership(
        &self,
        found: &Found,
        workspace_id: &str,
        organization_id: Option<&str>,
    ) -> Depends {
        self.slots.of(DependsOn {
            credential: None,
            user: Some(found.owner.id.as_str()),
            workspace: Some(workspace_id),
            organization: organization_id,
        })
    }

    /// Notes of which state something was read that is about to be kept; whether that
    /// may be of this history. What is not applied yet is compared when it is.
    pub(super) fn meet(&self, head: Revision) -> bool {
        let mut met = self.met();
        if let Some(known) = met.knows(head) {
            return known;
        }
        let is_ahead = head.number > met.last();
        is_ahead && *met.read.entry(head.number).or_insert(head.mark) == head.mark
    }

    /// Notes what a change of this process touches, before it is committed.
    pub(super) fn raise_own(&self, touched: &[Touched], revision: i64) {
        let mut met = self.met();
        if revision <= met.last() {
            // That number was taken before, so the history is another one: what was read
            // under it could seem newer than this change.
            self.next_era(&mut met);
            self.known.store(revision, Ordering::Release);
        }
        if met.own.len() == OWN {
            met.own = vec![(revision, vec![Touched::Everything])];
        } else {
            met.own.push((revision, touched.to_vec()));
        }
        self.raise(touched, revision);
    }

    /// Notes what a change touches.
    pub(super) fn raise(&self, touched: &[Touched], revision: i64) {
        self.slots.raise(touched, revision);
        self.known.fetch_max(revision, Ordering::AcqRel);
    }

    /// Tells what is applied now: the changes up to the last of these, all of which
    /// were raised before.
    pub(super) fn publish(&self, changes: impl IntoIterator<Item = Change>) {
        let mut met = self.met();
        let mut is_other = false;
        let mut last = None;
        for change in changes {
            let revision = change.revision;
            met.remember(change);
            is_other |= met.read.remove(&revision.number).is_some_and(|mark| mark != revision.mark);
            last = Some(revision);
        }
        if is_other {
            // What was read there is of a history that went another way.
            self.next_era(&mut met);
        }
        if let Some(last) = last {
            met.own.retain(|(number, _)| *number > last.number);
            self.reach(last);
        }
    }

    /// What is applied was all there was at `asked_at`.
    pub(super) fn confirm(&self, asked_at: Uptime) {
        self.confirmed_at.fetch_max(asked_at.as_nanos(), Ordering::AcqRel);
    }

    /// From here on nothing holds that was read before, or is being read.
    pub(super) fn begin_era(&self) {
        self.next_era(&mut self.met());
    }

    fn next_era(&self, met: &mut Met) {
        met.read.clear();
        self.era.fetch_add(2, Ordering::AcqRel);
    }

    /// Begins anew: the history that was followed is not the store's any more.
    ///
    /// Nothing holds meanwhile, and what this process is about to change, or has changed
    /// since, is noted again: `head` may not know of it.
    pub(super) fn rewrite(&self, head: Revision) {
        let mut met = self.met();
        self.end_era();
        self.clear();
        self.start_at(head, &mut met);
        self.start_era();
    }

    /// Whoever began with that before may have given up in the middle.
    pub(super) fn end_era(&self) {
        self.era.fetch_or(1, Ordering::AcqRel);
    }

    pub(super) fn clear(&self) {
        self.slots.clear();
    }

    pub(super) fn start_at(&self, head: Revision, met: &mut Met) {
        self.known.store(head.number, Ordering::Release);
        met.own.retain(|(number, _)| *number > head.number);
        for (number, touched) in &met.own {
            self.raise(touched, *number);
        }
        met.read.clear();
        (met.applied, met.things) = (from(head), 0);
        self.reach(head);
    }

    fn reach(&self, revision: Revision) {
        self.applied.store(Arc::new(Applied::new(revision)));
        self.reached.store(revision.number, Ordering::Release);
    }

    pub(super) fn start_era(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether a revision is part of this history and applied; `None` if that can't be
    /// told from what is remembered.
    pub(super) fn knows(&self, revision: Revision) -> Option<bool> {
        self.met().knows(revision)
    }

    /// The changes that were applied after this one; no more once they touch so many things.
    pub(super) fn after(&self, revision: Revision, limit: usize) -> Result<Vec<Arc<Change>>, Lost> {
        let met = self.met();
        let first = met.applied.front().map_or(i64::MAX, |first| first.revision.number);
        match met.knows(revision) {
            Some(true) => {}
            Some(false) => return Err(Lost::Elsewhere),
            None if revision.number < first => return Err(Lost::Behind),
            None => return Err(Lost::Ahead),
        }
        let at = usize::try_from(revision.number - first).unwrap_or(usize::MAX);
        let mut is_room = room(limit);
        let all =
            met.applied.iter().skip(at.saturating_add(1)).take_while(|change| is_room(change));
        Ok(all.cloned().collect())
    }

    /// Whoever holds this keeps out those who change it, and those who rewrite it.
    pub(super) fn met(&self) -> MutexGuard<'_, Met> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether there is room for one more change among those that touch about so many things
/// together.
pub(super) fn room(things: usize) -> impl FnMut(&Change) -> bool {
    let mut taken = 0;
    move |change| {
        let is_room = taken < things;
        taken += change.touched.len();
        is_room
    }
}

/// What is applied where nothing before is remembered.
fn from(head: Revision) -> VecDeque<Arc<Change>> {
    [Arc::new(Change { revision: head, touched: Vec::new() })].into()
}

impl Met {
    fn remember(&mut self, change: Change) {
        self.things += change.touched.len();
        self.applied.push_back(Arc::new(change));
        while self.applied.len() > RECENT || (self.things > THINGS && self.applied.len() > 1) {
            let forgotten = self.applied.pop_front();
            self.things -= forgotten.map_or(0, |change| change.touched.len());
        }
    }

    /// The last revision that is applied.
    fn last(&self) -> i64 {
        self.applied.back().map_or(i64::MIN, |last| last.revision.number)
    }

    fn knows(&self, revision: Revision) -> Option<bool> {
        let first = self.applied.front()?.revision.number;
        let at = usize::try_from(revision.number.checked_sub(first)?).ok()?;
        self.applied.get(at).map(|known| known.revision == revision)
    }
}

impl Applied {
    fn new(revision: Revision) -> Self {
        Self { revision, text: revision.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_by_what_it_touches_and_by_how_much_it_is() {
        const EACH: usize = 1_000;
        let (many, few) = (THINGS / EACH, RECENT);
        for (touched, is_kept) in [(EACH, many), (1, few - 1), (0, few - 1), (THINGS + 1, 1)] {
            let first = Revision { number: 1, mark: 0 };
            let history = History::with_slots(Slots::with(4), first, Uptime(Duration::ZERO));
            let change = |number| Change {
                revision: Revision { number, mark: 0 },
                touched: vec![Touched::Everything; touched],
            };
            let count = 2 * i64::try_from(is_kept).unwrap();
            for number in 2..2 + count {
                history.publish([change(number)]);
            }
            let things: usize = history.met().applied.iter().map(|one| one.touched.len()).sum();
            assert_eq!(history.met().things, things);
            assert!(things <= THINGS || history.met().applied.len() == 1, "{touched}: {things}");
            let back = |by| Revision { number: 1 + count - by, mark: 0 };
            let is_kept = i64::try_from(is_kept).unwrap();
            let after = |revision| history.after(revision, usize::MAX).map(|all| all.len());
            assert_eq!(after(back(is_kept - 1)), Ok(usize::try_from(is_kept - 1).unwrap()));
            assert_eq!(after(back(is_kept + 1)), Err(Lost::Behind), "{touched}");
        }
    }
}
