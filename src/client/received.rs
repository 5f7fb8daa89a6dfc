//! Which revisions were received.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::{Mutex, PoisonError},
};

/// How many are remembered.
const REMEMBERED: usize = 16_384;

/// The revisions that were received last. An answer that was given at another one may be of
/// a history that a fail-over loses, of which nobody would tell.
#[derive(Default)]
pub(super) struct Received {
    hasher: RandomState,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    all: HashSet<u64>,
    in_order: VecDeque<u64>,
}

/// A revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark(u64);

impl Received {
    pub(super) fn mark(&self, revision: &str) -> Mark {
        Mark(self.hasher.hash_one(revision))
    }

    /// Notes one.
    pub(super) fn note(&self, revision: &str) {
        let Mark(mark) = self.mark(revision);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if !last.all.insert(mark) {
            return;
        }
        last.in_order.push_back(mark);
        if last.in_order.len() > REMEMBERED
            && let Some(oldest) = last.in_order.pop_front()
        {
            last.all.remove(&oldest);
        }
    }

    /// Whether it is one of the last that were received.
    pub(super) fn has(&self, Mark(mark): Mark) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).all.contains(&mark)
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Last::default();
    }
}
