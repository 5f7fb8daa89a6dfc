//! What this process knows of the history of changes, and how new that is.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, Guard};
use siphasher::sip::SipHasher24;
use std::{hash::Hasher as _, sync::Arc};

use crate::{
    clock::Uptime,
    domain::{Found, Revision},
    random,
    store::Touched,
};

/// How many slots there are for each kind of thing; the first is nobody's. At most
/// 65,536, as what depends on them is kept in 16 bits.
const SLOTS: usize = 1 << 16;

/// How many revisions are remembered, by which others are told from foreign ones.
const RECENT: usize = 4_096;

/// The last revision that touched each credential, user, workspace and
/// organization, and up to which all of them are known.
///
/// Things share slots by their hash, so a slot may tell of a change of something
/// else: that costs a read and never gives a wrong answer. What is written here is
/// written in this order: slots, then what is applied, then when that was confirmed;
/// who reads, reads in the opposite one. So what is confirmed is in the slots.
pub(super) struct History {
    key: [u8; 16],
    credentials: Slots,
    users: Slots,
    workspaces: Slots,
    organizations: Slots,
    /// The last revision that touched everything.
    floor: AtomicI64,
    /// How often the history was rewritten: what was read before is of another.
    era: AtomicU32,
    /// The last revision that was noted of any of them.
    known: AtomicI64,
    applied: ArcSwap<Applied>,
    confirmed_at: AtomicU64,
    recent: Mutex<VecDeque<Revision>>,
}

struct Slots(Box<[AtomicI64]>);

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

/// On what an answer depends: its slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Depends {
    credential: u16,
    user: u16,
    workspace: u16,
    organization: u16,
}

impl History {
    /// That is known up to `head`, which was asked for at `asked_at`.
    pub(super) fn new(head: Revision, asked_at: Uptime) -> Self {
        Self::with_slots(SLOTS, head, asked_at)
    }

    pub(super) fn with_slots(slots: usize, head: Revision, asked_at: Uptime) -> Self {
        Self {
            key: random::bytes(),
            credentials: Slots::new(slots),
            users: Slots::new(slots),
            workspaces: Slots::new(slots),
            organizations: Slots::new(slots),
            floor: AtomicI64::new(0),
            era: AtomicU32::new(0),
            known: AtomicI64::new(head.number),
            applied: ArcSwap::from_pointee(Applied::new(head)),
            confirmed_at: AtomicU64::new(asked_at.as_nanos()),
            recent: Mutex::new([head].into()),
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
    pub(super) fn known(&self) -> i64 {
        self.known.load(Ordering::Acquire)
    }

    /// To be kept with what is read from now on.
    pub(super) fn era(&self) -> u32 {
        self.era.load(Ordering::Acquire)
    }

    /// Whether what was read then, and depends on this, was changed by nothing that is
    /// known.
    pub(super) fn holds(&self, read: ReadAt, on: Depends) -> bool {
        let ReadAt { revision, era } = read;
        revision >= self.floor.load(Ordering::Acquire)
            && revision >= self.credentials.last(on.credential)
            && revision >= self.users.last(on.user)
            && revision >= self.workspaces.last(on.workspace)
            && revision >= self.organizations.last(on.organization)
            // Last: a new era begins before what is above is cleared for it.
            && era == self.era()
    }

    /// What a credential depends on: itself, its owner and where it is bound.
    pub(super) fn on_credential(&self, found: &Found) -> Depends {
        let bound = found.credential.workspace.as_ref();
        Depends {
            credential: self.slot(&found.credential.id.0),
            user: self.slot(found.owner.id.as_str()),
            workspace: bound.map_or(0, |bound| self.slot(&bound.workspace_id)),
            organization: bound.map_or(0, |bound| self.slot(&bound.organization_id)),
        }
    }

    /// What it depends on whether a user is a member of a workspace.
    pub(super) fn on_membership(
        &self,
        found: &Found,
        workspace_id: &str,
        organization_id: Option<&str>,
    ) -> Depends {
        Depends {
            credential: 0,
            user: self.slot(found.owner.id.as_str()),
            workspace: self.slot(workspace_id),
            organization: organization_id.map_or(0, |id| self.slot(id)),
        }
    }

    /// Notes what a change of this process touches, before it is committed.
    pub(super) fn raise_own(&self, touched: &[Touched], revision: i64) {
        if revision <= self.applied().revision.number {
            // That number was taken before, so the history is another one: what was read
            // under it could seem newer than this change.
            self.era.fetch_add(1, Ordering::AcqRel);
        }
        self.raise(touched, revision);
    }

    /// Notes what a change touches.
    pub(super) fn raise(&self, touched: &[Touched], revision: i64) {
        for touched in touched {
            match touched {
                Touched::Credential(id) => self.credentials.raise(self.slot(id), revision),
                Touched::User(id) => self.users.raise(self.slot(id), revision),
                Touched::Workspace(id) => self.workspaces.raise(self.slot(id), revision),
                Touched::Organization(id) => self.organizations.raise(self.slot(id), revision),
                Touched::Everything => {
                    self.floor.fetch_max(revision, Ordering::AcqRel);
                }
            }
        }
        self.known.fetch_max(revision, Ordering::AcqRel);
    }

    /// Tells what is applied now: the changes up to the last of these, all of which
    /// were raised before.
    pub(super) fn publish(&self, revisions: impl IntoIterator<Item = Revision>) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let mut last = None;
        for revision in revisions {
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(revision);
            last = Some(revision);
        }
        if let Some(last) = last {
            self.applied.store(Arc::new(Applied::new(last)));
        }
    }

    /// What is applied was all there was at `asked_at`.
    pub(super) fn confirm(&self, asked_at: Uptime) {
        self.confirmed_at.fetch_max(asked_at.as_nanos(), Ordering::AcqRel);
    }

    /// From here on nothing holds that was read before, or is being read.
    pub(super) fn begin_era(&self) {
        self.era.fetch_add(1, Ordering::AcqRel);
    }

    /// Begins anew: the history that was followed is not the store's any more.
    pub(super) fn rewrite(&self, head: Revision) {
        self.begin_era();
        for slots in [&self.credentials, &self.users, &self.workspaces, &self.organizations] {
            slots.clear();
        }
        self.floor.store(0, Ordering::Release);
        self.known.store(head.number, Ordering::Release);
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.publish([head]);
    }

    /// Whether a revision is part of this history and applied; `None` if that can't be
    /// told from what is remembered.
    pub(super) fn knows(&self, revision: Revision) -> Option<bool> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let first = recent.front()?.number;
        let at = usize::try_from(revision.number.checked_sub(first)?).ok()?;
        recent.get(at).map(|known| *known == revision)
    }

    fn slot(&self, id: &str) -> u16 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(id.as_bytes());
        let slots = self.credentials.0.len() as u64;
        u16::try_from(hasher.finish() % (slots - 1)).expect("there are 65,536 at most") + 1
    }
}

impl Slots {
    fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| AtomicI64::new(0)).collect())
    }

    fn last(&self, slot: u16) -> i64 {
        self.0[usize::from(slot)].load(Ordering::Acquire)
    }

    fn raise(&self, slot: u16, revision: i64) {
        self.0[usize::from(slot)].fetch_max(revision, Ordering::AcqRel);
    }

    fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Ordering::Release));
    }
}

impl Applied {
    fn new(revision: Revision) -> Self {
        Self { revision, text: revision.to_string() }
    }
}
