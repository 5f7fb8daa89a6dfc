//! What is kept, in bounded memory; reading it takes no lock.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use papaya::{HashMap, LocalGuard};

use super::key::{AsItIs, Key};
use crate::clock::Uptime;

/// Something that is kept as long as there is room for it.
pub(crate) trait Kept {
    /// About how many bytes it takes.
    fn weight(&self) -> usize;

    /// When it was last asked for.
    fn used(&self) -> &AtomicU32;
}

/// What a map and the allocator take beside.
pub(crate) const OVERHEAD: usize = 64;

/// Seconds since the machine was started, as a use is remembered.
pub(crate) fn second(uptime: Uptime) -> u32 {
    u32::try_from(uptime.0.as_secs()).unwrap_or(u32::MAX)
}

/// Things by their keys, of at most so many bytes together, and for a short time an
/// eighth more.
pub(crate) struct Cache<V> {
    kept: HashMap<Key, V, AsItIs>,
    weight: AtomicUsize,
    limit: usize,
    is_swept: AtomicBool,
}

impl<V: Kept> Cache<V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            kept: HashMap::with_hasher(AsItIs::default()),
            weight: AtomicUsize::new(0),
            limit,
            is_swept: AtomicBool::new(false),
        }
    }

    /// What keeps alive what is read with it.
    pub(crate) fn guard(&self) -> LocalGuard<'_> {
        self.kept.guard()
    }

    pub(crate) fn get<'g>(
        &self,
        key: &Key,
        second: u32,
        guard: &'g LocalGuard<'_>,
    ) -> Option<&'g V> {
        let kept = self.kept.get(key, guard)?;
        // What everybody reads is written once a second.
        if kept.used().load(Ordering::Relaxed) != second {
            kept.used().store(second, Ordering::Relaxed);
        }
        Some(kept)
    }

    /// Keeps it if there is room. `true`: there is so little left that
    /// [`sweep`](Self::sweep) should be called, by whoever is told so.
    pub(crate) fn keep(&self, key: Key, value: V, second: u32) -> bool {
        let weight = value.weight();
        let before = self.weight.fetch_add(weight, Ordering::Relaxed);
        if before + weight > self.limit + self.limit / 8 {
            self.weight.fetch_sub(weight, Ordering::Relaxed);
        } else {
            value.used().store(second, Ordering::Relaxed);
            let guard = self.kept.guard();
            if let Some(replaced) = self.kept.insert(key, value, &guard) {
                self.weight.fetch_sub(replaced.weight(), Ordering::Relaxed);
            }
        }
        before + weight > self.limit && !self.is_swept.swap(true, Ordering::AcqRel)
    }

    /// Drops what is of no use any more, and what has not been asked for for longest,
    /// until an eighth of the room is free; returns how many it dropped.
    pub(crate) fn sweep(&self, is_of_use: impl Fn(&V) -> bool) -> usize {
        let mut dropped = 0;
        let goal = self.limit - self.limit / 8;
        let mut uses: Vec<(u32, usize)> = Vec::new();
        let guard = self.kept.guard();
        for (key, value) in self.kept.iter(&guard) {
            if is_of_use(value) {
                uses.push((value.used().load(Ordering::Relaxed), value.weight()));
            } else {
                self.drop_one(key);
                dropped += 1;
            }
        }
        uses.sort_unstable();
        let mut surplus = self.weight.load(Ordering::Relaxed).saturating_sub(goal);
        let mut oldest = uses.into_iter().map_while(|(used, weight)| {
            let goes = surplus > 0;
            surplus = surplus.saturating_sub(weight);
            goes.then_some(used)
        });
        if let Some(last) = oldest.by_ref().last() {
            for (key, value) in self.kept.iter(&guard) {
                if self.weight.load(Ordering::Relaxed) <= goal {
                    break;
                }
                if value.used().load(Ordering::Relaxed) <= last {
                    self.drop_one(key);
                    dropped += 1;
                }
            }
        }
        self.is_swept.store(false, Ordering::Release);
        dropped
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        let guard = self.kept.guard();
        for (key, _) in self.kept.iter(&guard) {
            self.drop_one(key);
        }
    }

    pub(crate) fn drop_one(&self, key: &Key) {
        let guard = self.kept.guard();
        if let Some(dropped) = self.kept.remove(key, &guard) {
            self.weight.fetch_sub(dropped.weight(), Ordering::Relaxed);
        }
    }

    /// How many there are, and about how many bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.kept.len(), self.weight.load(Ordering::Relaxed))
    }
}
