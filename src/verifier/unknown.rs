//! What was looked for a moment ago and is nobody's.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::history::ReadAt;
use crate::{clock::Uptime, keeping::key::Key};

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
