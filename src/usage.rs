//! When, from where and before which verifiers credentials were last used: kept in
//! memory, and written in the background.
//!
//! The first use is written with the next look, later ones once a minute has passed
//! since the last one that was written. So a credential that is used without a pause
//! costs the store one row a minute, and one more for each verifier and address,
//! however many use it at once.

use std::{
    collections::HashMap,
    error::Error,
    hash::{BuildHasher as _, Hash, RandomState},
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
    store::{LastUse, Store, StoreError, Use},
};

/// How often it is looked whether there is something to write: a first use is written
/// within two seconds.
const LOOK: Duration = Duration::from_millis(500);

/// How exact the last use is of what is used again and again.
const RESOLUTION: Duration = Duration::from_mins(1);

/// How many are written by one statement.
const BATCH: usize = 5_000;

/// Locks, so that callers hardly ever wait for each other.
const SHARDS: usize = 64;

/// How much each holds, which was used within the last minute or is not written yet;
/// more is not noted.
const PER_SHARD: usize = 4_096;

/// How much of that may be there when a reported use is taken, so that reports leave
/// room for what is used here.
const REPORTED_PER_SHARD: usize = PER_SHARD / 2;

/// The uses that are not written yet, and those that were a short time ago.
///
/// The last use of each credential has room of its own: from however many addresses
/// some are used, what is not noted of the others is only by whom.
pub struct Uses {
    store: Arc<dyn Store>,
    last: Recent<CredentialId, Option<IpAddr>>,
    each: Recent<Place, ()>,
    dropped: AtomicU64,
    failing: AtomicBool,
}

/// What was used, before which verifier, and from where.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    credential_id: CredentialId,
    verifier_id: Option<CredentialId>,
    ip: Option<IpAddr>,
}

impl Uses {
    /// To be written to `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            last: Recent::new(),
            each: Recent::new(),
            dropped: AtomicU64::new(0),
            failing: AtomicBool::new(false),
        }
    }

    /// Notes a use before a verifier, or at this service itself. It waits for nothing but
    /// whoever notes another at this moment.
    pub fn note(
        &self,
        id: &CredentialId,
        verifier_id: Option<&CredentialId>,
        at: Timestamp,
        ip: Option<IpAddr>,
    ) {
        self.note_within(PER_SHARD, id, verifier_id, at, ip);
    }

    /// The same of one that a verifier reports.
    pub fn note_reported(
        &self,
        id: &CredentialId,
        verifier_id: &CredentialId,
        at: Timestamp,
        ip: Option<IpAddr>,
    ) {
        self.note_within(REPORTED_PER_SHARD, id, Some(verifier_id), at, ip);
    }

    fn note_within(
        &self,
        room: usize,
        id: &CredentialId,
        verifier_id: Option<&CredentialId>,
        at: Timestamp,
        ip: Option<IpAddr>,
    ) {
        let ip = ip.map(|ip| ip.to_canonical());
        let place = Place { credential_id: id.clone(), verifier_id: verifier_id.cloned(), ip };
        let is_noted = self.last.note(id, at, &ip, room) & self.each.note(&place, at, &(), room);
        if !is_noted {
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
            tracing::warn!(uses = dropped, "more is used, or by more, than can be noted");
        }
        let failed = [self.write_last(at).await.err(), self.write_each(at).await.err()];
        let failed = failed.into_iter().flatten().next();
        if let Some(error) = &failed {
            self.tell(error);
        }
        self.failing.store(failed.is_some(), Ordering::Relaxed);
    }

    async fn write_last(&self, at: Option<Timestamp>) -> Result<(), StoreError> {
        for batch in self.last.due(at).chunks(BATCH) {
            let last = |due: &Due<CredentialId, Option<IpAddr>>| LastUse {
                credential_id: due.of.clone(),
                at: due.at,
                ip: due.with,
            };
            self.store.note_last_uses(&batch.iter().map(last).collect::<Vec<_>>()).await?;
            batch.iter().for_each(|due| self.last.written(due));
        }
        Ok(())
    }

    async fn write_each(&self, at: Option<Timestamp>) -> Result<(), StoreError> {
        for batch in self.each.due(at).chunks(BATCH) {
            let each = |due: &Due<Place, ()>| Use {
                credential_id: due.of.credential_id.clone(),
                verifier_id: due.of.verifier_id.clone(),
                ip: due.of.ip,
                at: due.at,
            };
            self.store.note_uses(&batch.iter().map(each).collect::<Vec<_>>()).await?;
            batch.iter().for_each(|due| self.each.written(due));
        }
        Ok(())
    }

    /// Says once that nothing can be written.
    fn tell(&self, error: &StoreError) {
        if !self.failing.load(Ordering::Relaxed) {
            tracing::warn!(error = error as &dyn Error, "last uses are left for later");
        }
    }
}

/// When each `K` was last used, with what is kept of that use.
struct Recent<K, V> {
    hasher: RandomState,
    shards: Vec<Mutex<HashMap<K, Last<V>>>>,
}

/// The last use.
struct Last<V> {
    at: Timestamp,
    with: V,
    is_written: bool,
    /// The use that was written last.
    written: Option<Timestamp>,
}

/// A use that is to be written.
struct Due<K, V> {
    of: K,
    at: Timestamp,
    with: V,
}

impl<V> Last<V> {
    /// Whether a minute has passed since what was written last.
    fn is_old(&self, now: Timestamp) -> bool {
        self.written.is_none_or(|written| written.saturating_add(RESOLUTION) <= now)
    }
}

impl<K: Clone + Eq + Hash, V: Clone + PartialEq> Recent<K, V> {
    fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Notes a use; `false` if it is new and there are so many already where it belongs.
    fn note(&self, of: &K, at: Timestamp, with: &V, room: usize) -> bool {
        let mut shard = self.shard(of);
        if let Some(last) = shard.get_mut(of) {
            if last.at <= at {
                (last.at, last.with, last.is_written) = (at, with.clone(), false);
            }
        } else if shard.len() < room {
            let last = Last { at, with: with.clone(), is_written: false, written: None };
            shard.insert(of.clone(), last);
        } else {
            return false;
        }
        true
    }

    /// What is to be written, and forgets what was written a minute ago.
    fn due(&self, at: Option<Timestamp>) -> Vec<Due<K, V>> {
        let mut due = Vec::new();
        for shard in &self.shards {
            lock(shard).retain(|of, last| {
                let is_due = at.is_none_or(|now| last.is_old(now));
                if is_due && !last.is_written {
                    due.push(Due { of: of.clone(), at: last.at, with: last.with.clone() });
                }
                !(is_due && last.is_written)
            });
        }
        due
    }

    fn written(&self, written: &Due<K, V>) {
        if let Some(last) = self.shard(&written.of).get_mut(&written.of) {
            last.written = Some(written.at);
            last.is_written = last.at == written.at && last.with == written.with;
        }
    }

    fn shard(&self, of: &K) -> MutexGuard<'_, HashMap<K, Last<V>>> {
        let hash = usize::try_from(self.hasher.hash_one(of) % SHARDS as u64);
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

    type OfCredentials = Recent<CredentialId, Option<IpAddr>>;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(second * 1_000_000).unwrap()
    }

    fn id(number: usize) -> CredentialId {
        CredentialId(number.to_string())
    }

    fn use_at(uses: &OfCredentials, number: usize, second: i64) -> bool {
        uses.note(&id(number), at(second), &None, PER_SHARD)
    }

    fn held<K, V>(uses: &Recent<K, V>) -> usize {
        uses.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// When the uses were that are due at this second and are written then.
    fn written(uses: &OfCredentials, second: i64) -> Vec<Timestamp> {
        let due = uses.due(Some(at(second)));
        due.iter().for_each(|last| uses.written(last));
        due.iter().map(|last| last.at).collect()
    }

    #[test]
    fn first_use_is_due_at_once_and_later_ones_a_minute_after_what_was_written() {
        let uses = OfCredentials::new();
        assert!(use_at(&uses, 1, 0));
        assert_eq!(written(&uses, 0), [at(0)]);
        for second in [1, 59] {
            assert!(use_at(&uses, 1, second));
            assert_eq!(written(&uses, second), []);
        }
        assert_eq!(written(&uses, 60), [at(59)]);
        assert!(use_at(&uses, 1, 118));
        assert_eq!(written(&uses, 118), []);
        assert_eq!(uses.due(None).len(), 1, "everything at the end");
        assert_eq!(written(&uses, 119), [at(118)]);
        assert!(use_at(&uses, 1, 100));
        assert_eq!(written(&uses, 300), [], "it is older than what was written");
    }

    #[test]
    fn use_during_the_writing_of_another_stays_to_be_written() {
        let uses = OfCredentials::new();
        assert!(use_at(&uses, 1, 0));
        let due = uses.due(Some(at(0)));
        assert!(use_at(&uses, 1, 1));
        due.iter().for_each(|last| uses.written(last));
        assert_eq!(written(&uses, 60), [at(1)]);
    }

    #[test]
    fn what_was_written_a_minute_ago_and_not_used_since_is_forgotten() {
        let uses = OfCredentials::new();
        assert!(use_at(&uses, 1, 0));
        assert_eq!(uses.due(Some(at(500))).len(), 1);
        assert_eq!(uses.due(Some(at(500))).len(), 1, "until it is written");
        assert_eq!(written(&uses, 500), [at(0)]);
        assert_eq!((written(&uses, 500), held(&uses)), (Vec::new(), 0));
        assert!(use_at(&uses, 1, 500));
        assert_eq!((written(&uses, 500), held(&uses)), (vec![at(500)], 1));
        assert_eq!((written(&uses, 559), held(&uses)), (Vec::new(), 1));
        assert_eq!((written(&uses, 560), held(&uses)), (Vec::new(), 0));
    }

    #[test]
    fn each_verifier_and_address_is_due_by_itself() {
        let uses = Recent::new();
        let place = |verifier: Option<usize>, ip: Option<&str>| Place {
            credential_id: id(1),
            verifier_id: verifier.map(id),
            ip: ip.map(|ip| ip.parse().unwrap()),
        };
        let places = [place(None, None), place(Some(2), None), place(Some(2), Some("10.0.0.1"))];
        for second in [0, 1] {
            for place in &places {
                assert!(uses.note(place, at(second), &(), PER_SHARD));
            }
        }
        let due = uses.due(Some(at(1)));
        assert_eq!(due.len(), places.len());
        assert!(due.iter().all(|due| due.at == at(1)));
        due.iter().for_each(|due| uses.written(due));
        assert!(uses.note(&places[1], at(2), &(), PER_SHARD));
        assert_eq!(uses.due(Some(at(60))).len(), 0);
        let due: Vec<Place> = uses.due(Some(at(61))).into_iter().map(|due| due.of).collect();
        assert_eq!(due, places[1..2]);
    }

    #[tokio::test]
    async fn more_than_there_is_room_for_is_not_held_and_reports_leave_half_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let uses = Uses::new(open_sqlite(directory.path(), Migrate::Auto).await.unwrap());
        let dropped = || uses.dropped.swap(0, Ordering::Relaxed);
        let room = SHARDS * PER_SHARD;
        let verifier = id(0);
        for number in 0..room {
            uses.note_reported(&id(number), &verifier, at(0), None);
        }
        assert_eq!((held(&uses.last), held(&uses.each)), (room / 2, room / 2));
        assert!(dropped() >= room as u64 / 2);
        for number in 0..2 * room {
            uses.note(&id(number), Some(&verifier), at(0), None);
        }
        assert_eq!((held(&uses.last), held(&uses.each)), (room, room));
        assert!(dropped() >= room as u64);
        uses.note(&id(0), Some(&verifier), at(1), None);
        assert!(uses.last.due(None).iter().any(|last| last.at == at(1)), "what is held goes on");
    }
}
