//! What was changed when, in a few numbers.

use std::{
    hash::Hasher as _,
    sync::atomic::{AtomicI64, Ordering},
};

use siphasher::sip::SipHasher24;

use crate::{domain::Touched, random};

/// How many slots there are for each kind of thing; the first is nobody's. At most
/// 65,536, as what depends on them is kept in 16 bits.
const SLOTS: usize = 1 << 16;

/// The number of the last change that touched each credential, user, workspace and
/// organization. A later change has a greater number.
///
/// Things share slots by their hash, so a slot may tell of a change of something
/// else: that costs a question and never gives a wrong answer.
pub(crate) struct Slots {
    key: [u8; 16],
    credentials: Row,
    users: Row,
    workspaces: Row,
    organizations: Row,
    /// The last change that touched everything.
    floor: AtomicI64,
}

/// The slots of one kind of thing.
struct Row(Box<[AtomicI64]>);

/// On what an answer depends: its slots.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Depends {
    credential: u16,
    user: u16,
    workspace: u16,
    organization: u16,
}

/// On whose changes an answer depends, by id; `None`: on those of nobody of that kind.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DependsOn<'a> {
    pub(crate) credential: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    pub(crate) workspace: Option<&'a str>,
    pub(crate) organization: Option<&'a str>,
}

impl Slots {
    pub(crate) fn new() -> Self {
        Self::with(SLOTS)
    }

    pub(crate) fn with(slots: usize) -> Self {
        Self {
            key: random::bytes(),
            credentials: Row::new(slots),
            users: Row::new(slots),
            workspaces: Row::new(slots),
            organizations: Row::new(slots),
            floor: AtomicI64::new(0),
        }
    }

    /// The slots of what an answer depends on.
    pub(crate) fn of(&self, on: DependsOn<'_>) -> Depends {
        let slot = |id: Option<&str>| id.map_or(0, |id| self.slot(id));
        Depends {
            credential: slot(on.credential),
            user: slot(on.user),
            workspace: slot(on.workspace),
            organization: slot(on.organization),
        }
    }

    /// Whether no change with a greater number touched this.
    pub(crate) fn is_untouched(&self, since: i64, on: Depends) -> bool {
        since >= self.floor.load(Ordering::Acquire)
            && since >= self.credentials.last(on.credential)
            && since >= self.users.last(on.user)
            && since >= self.workspaces.last(on.workspace)
            && since >= self.organizations.last(on.organization)
    }

    /// Notes what a change touches.
    pub(crate) fn raise(&self, touched: &[Touched], number: i64) {
        for touched in touched {
            match touched {
                Touched::Credential(id) => self.credentials.raise(self.slot(id), number),
                Touched::User(id) | Touched::Member { user_id: id, .. } => {
                    self.users.raise(self.slot(id), number);
                }
                Touched::Workspace(id) => self.workspaces.raise(self.slot(id), number),
                Touched::Organization(id) => self.organizations.raise(self.slot(id), number),
                Touched::Everything => {
                    self.floor.fetch_max(number, Ordering::AcqRel);
                }
            }
        }
    }

    /// Forgets all changes.
    #[cfg(feature = "server")]
    pub(crate) fn clear(&self) {
        for row in [&self.credentials, &self.users, &self.workspaces, &self.organizations] {
            row.clear();
        }
        self.floor.store(0, Ordering::Release);
    }

    fn slot(&self, id: &str) -> u16 {
        let mut hasher = SipHasher24::new_with_key(&self.key);
        hasher.write(id.as_bytes());
        let slots = self.credentials.0.len() as u64;
        u16::try_from(hasher.finish() % (slots - 1)).expect("there are 65,536 at most") + 1
    }
}

impl Row {
    fn new(slots: usize) -> Self {
        Self((0..slots).map(|_| AtomicI64::new(0)).collect())
    }

    fn last(&self, slot: u16) -> i64 {
        self.0[usize::from(slot)].load(Ordering::Acquire)
    }

    fn raise(&self, slot: u16, number: i64) {
        self.0[usize::from(slot)].fetch_max(number, Ordering::AcqRel);
    }

    #[cfg(feature = "server")]
    fn clear(&self) {
        self.0.iter().for_each(|slot| slot.store(0, Ordering::Release));
    }
}
