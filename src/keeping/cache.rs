//! What is kept, in bounded memory; reading it takes no lock.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use papaya::{HashMap, LocalGuard};

use super::{
    entry::Kept,
    history::ReadAt,
    key::{AsItIs, Key},
};
use crate::clock::Uptime;

/// Things by their keys, of at most so many bytes together, and for a short time an
/// eighth more.
pub(super) struct Cache<V> {
    kept: HashMap<Key, V, AsItIs>,
    weight: AtomicUsize,
    limit: usize,
    is_swept: AtomicBool,
}

impl<V: Kept> Cache<V> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            kept: HashMap::with_hasher(AsItIs::default()),
            weight: AtomicUsize::new(0),
            limit,
            is_swept: AtomicBool::new(false),
        }
    }

    /// What keeps alive what is read with it.
    pub(super) fn guard(&self) -> LocalGuard<'_> {
        self.kept.guard()
    }

    pub(super) fn get<'g>(
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
    pub(super) fn keep(&self, key: Key, value: V, second: u32) -> bool {
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
    pub(super) fn sweep(&self, is_of_use: impl Fn(&V) -> bool) -> usize {
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
    pub(super) fn clear(&self) {
        let guard = self.kept.guard();
        for (key, _) in self.kept.iter(&guard) {
            self.drop_one(key);
        }
    }

    pub(super) fn drop_one(&self, key: &Key) {
        let guard = self.kept.guard();
        if let Some(dropped) = self.kept.remove(key, &guard) {
            self.weight.fetch_sub(dropped.weight(), Ordering::Relaxed);
        }
    }

    /// How many there are, and about how many bytes they take.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.kept.len(), self.weight.load(Ordering::Relaxed))
    }
}

/// How long a text is known to be nobody's, at most.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);

/// Locks, so that callers hardly ever wait for each other, and how many each holds.
const SHARDS: usize = 64;
const PER_SHARD: usize = 128;

/// Keys of texts that the primary knew nothing of a moment ago. A place holds the last
/// of those that share it, so that no flood of them takes more room.
pub(super) struct Unknown(Vec<Mutex<Shard>>);

/// What is known to be nobody's, of which state of the store that is, and since when.
type Shard = [Option<(Key, ReadAt, Uptime)>; PER_SHARD];

impl Unknown {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::new([None; PER_SHARD])).collect())
    }

    /// Of which state of the store it is that nothing is known of it, if so.
    pub(super) fn holds(&self, key: &Key, now: Uptime) -> Option<ReadAt> {
        let (shard, place) = self.place(key);
        match shard[place] {
            Some((known, read, since)) if known == *key && now.since(since) < UNKNOWN_FOR => {
                Some(read)
            }
            Some(_) | None => None,
        }
    }

    /// Keeps that at `since` nothing was known of it.
    pub(super) fn keep(&self, key: Key, read: ReadAt, since: Uptime) {
        let (mut shard, place) = self.place(&key);
        shard[place] = Some((key, read, since));
    }

    fn place(&self, key: &Key) -> (MutexGuard<'_, Shard>, usize) {
        let number = key.low();
        let shard = &self.0[number % SHARDS];
        (shard.lock().unwrap_or_else(PoisonError::into_inner), number / SHARDS % PER_SHARD)
    }
}
