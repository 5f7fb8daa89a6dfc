//! When and from where credentials were last used: kept in memory, and written in
//! the background.
//!
//! The first use of a credential is written with the next look, later ones once a
//! minute has passed since the last one that was written. So one that is used without
//! a pause costs the store one row a minute, however many use it at once.

use std::{
    collections::HashMap,
    error::Error,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;

use crate::{
    clock::Clock,
    domain::{CredentialId, Timestamp},
    store::{LastUse, Store, StoreError},
};

/// How often it is looked whether there is something to write: a first use is written
/// within two seconds.
const LOOK: Duration = Duration::from_secs(1);

/// How exact the last use is of what is used again and again.
const RESOLUTION: Duration = Duration::from_mins(1);

/// How many are written by one statement.
const BATCH: usize = 5_000;

/// Locks, so that callers hardly ever wait for each other.
const SHARDS: usize = 64;

/// How many credentials each holds, which were used within the last minute or are
/// not written yet; more are not noted.
const PER_SHARD: usize = 4_096;

/// The uses that are not written yet, and those that were a short time ago.
pub struct Uses {
    store: Arc<dyn Store>,
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<CredentialId, Last>>>,
    dropped: AtomicU64,
    failing: AtomicBool,
}

/// The last use of a credential.
struct Last {
    at: Timestamp,
    ip: Option<IpAddr>,
    is_written: bool,
    /// The use that was written last.
    written: Option<Timestamp>,
}

impl Last {
    /// Whether a minute has passed since what was written last.
    fn is_old(&self, now: Timestamp) -> bool {
        self.written.is_none_or(|written| written.saturating_add(RESOLUTION) <= now)
    }
}

impl Uses {
    /// To be written to `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            dropped: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        }
    }

    /// Notes a use. It waits for nothing but whoever notes another at this moment.
    pub fn note(&self, id: &CredentialId, at: Timestamp, ip: Option<IpAddr>) {
        let mut shard = self.shard(id);
        if let Some(last) = shard.get_mut(id) {
            if last.at <= at {
                (last.at, last.ip, last.is_written) = (at, ip, false);
            }
        } else if shard.len() < PER_SHARD {
            shard.insert(id.clone(), Last { at, ip, is_written: false, written: None });
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes what is due from time to time, until aborted.
    #[must_use]
    pub fn start(self: Arc<Self>, clock: Arc<dyn Clock>) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                self.write(Some(clock.now())).await;
            }
        })
    }

    /// Writes all that is not written, whether or not it is due.
    pub async fn finish(&self) {
        self.write(None).await;
    }

    /// Writes what is due at this instant; `None`: everything. What fails is left for
    /// the next time.
    async fn write(&self, at: Option<Timestamp>) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(uses = dropped, "more tokens are in use than can be noted");
        }
        let due = self.due(at);
        for batch in due.chunks(BATCH) {
            let noted = self.store.note_uses(batch).await;
            let failed = noted.is_err();
            match noted {
                Ok(()) => batch.iter().for_each(|last| self.written(last)),
                Err(error) => self.tell(&error),
            }
            self.failing.store(failed, Ordering::Relaxed);
            if failed {
                return;
            }
        }
    }

    /// Says once that nothing can be written.
    fn tell(&self, error: &StoreError) {
        if !self.failing.load(Ordering::Relaxed) {
            tracing::warn!(error = error as &dyn Error, "last uses are left for later");
        }
    }

    /// What is to be written, and forgets what was written a minute ago.
    fn due(&self, at: Option<Timestamp>) -> Vec<LastUse> {
        let mut due = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|id, last| {
                let is_due = at.is_none_or(|now| last.is_old(now));
                if is_due && !last.is_written {
                    due.push(LastUse { credential_id: id.clone(), at: last.at, ip: last.ip });
                }
                !(is_due && last.is_written)
            });
        }
        due
    }

    fn written(&self, written: &LastUse) {
        if let Some(last) = self.shard(&written.credential_id).get_mut(&written.credential_id) {
            last.written = Some(written.at);
            last.is_written = (last.at, last.ip) == (written.at, written.ip);
        }
    }

    fn shard(&self, id: &CredentialId) -> MutexGuard<'_, HashMap<CredentialId, Last>> {
        let hash = usize::try_from(self.hasher.hash_one(id) % SHARDS as u64);
        lock(&self.shards[hash.expect("there are few")])
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Migrate, open_sqlite};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000).unwrap()
    }

    fn id(number: usize) -> CredentialId {
        CredentialId(number.to_string())
    }

    async fn uses() -> (Uses, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let store = open_sqlite(directory.path(), Migrate::Auto).await.unwrap();
        (Uses::new(store), directory)
    }

    fn held(uses: &Uses) -> usize {
        uses.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// When the uses were that are due at this second and are written then.
    fn written(uses: &Uses, second: i64) -> Vec<Timestamp> {
        let due = uses.due(Some(at(second)));
        due.iter().for_each(|last| uses.written(last));
        due.iter().map(|last| last.at).collect()
    }

    #[tokio::test]
    async fn first_use_is_due_at_once_and_later_ones_a_minute_after_what_was_written() {
        let (uses, _directory) = uses().await;
        uses.note(&id(1), at(0), None);
        assert_eq!(written(&uses, 0), [at(0)]);
        for second in [1, 59] {
            uses.note(&id(1), at(second), None);
            assert_eq!(written(&uses, second), []);
        }
        assert_eq!(written(&uses, 60), [at(59)]);
        uses.note(&id(1), at(118), None);
        assert_eq!(written(&uses, 118), []);
        assert_eq!(uses.due(None).len(), 1, "everything at the end");
        assert_eq!(written(&uses, 119), [at(118)]);
        uses.note(&id(1), at(100), None);
        assert_eq!(written(&uses, 300), [], "it is older than what was written");
    }

    #[tokio::test]
    async fn use_during_the_writing_of_another_stays_to_be_written() {
        let (uses, _directory) = uses().await;
        uses.note(&id(1), at(0), None);
        let due = uses.due(Some(at(0)));
        uses.note(&id(1), at(1), None);
        due.iter().for_each(|last| uses.written(last));
        assert_eq!(written(&uses, 60), [at(1)]);
    }

    #[tokio::test]
    async fn what_was_written_a_minute_ago_and_not_used_since_is_forgotten() {
        let (uses, _directory) = uses().await;
        uses.note(&id(1), at(0), None);
        assert_eq!(uses.due(Some(at(500))).len(), 1);
        assert_eq!(uses.due(Some(at(500))).len(), 1, "until it is written");
        assert_eq!(written(&uses, 500), [at(0)]);
        assert_eq!((written(&uses, 500), held(&uses)), (Vec::new(), 0));
        uses.note(&id(1), at(500), None);
        assert_eq!((written(&uses, 500), held(&uses)), (vec![at(500)], 1));
        assert_eq!((written(&uses, 559), held(&uses)), (Vec::new(), 1));
        assert_eq!((written(&uses, 560), held(&uses)), (Vec::new(), 0));
    }

    #[tokio::test]
    async fn more_than_there_is_room_for_is_not_held() {
        let (uses, _directory) = uses().await;
        let room = SHARDS * PER_SHARD;
        for number in 0..2 * room {
            uses.note(&id(number), at(0), None);
        }
        assert_eq!(held(&uses), room);
        assert_eq!(uses.dropped.load(Ordering::Relaxed), room as u64);
        uses.note(&id(0), at(1), None);
        assert!(uses.due(None).iter().any(|last| last.at == at(1)), "what is held goes on");
    }
}
