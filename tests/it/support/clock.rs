use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use token_authority::{
    clock::{Clock, DatabaseTime, Uptime, uptime},
    domain::Timestamp,
};

/// A wall clock that stands still until the test moves it. Ages are those of the
/// machine, unless the test lets it sleep.
#[derive(Debug, Clone)]
pub(crate) struct TestClock(Arc<AtomicI64>, Arc<AtomicU64>, Arc<AtomicBool>);

impl TestClock {
    /// At 2027-01-15T08:00:00Z.
    pub(crate) fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_800_000_000_000_000)), Arc::default(), Arc::default())
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// As if the machine had slept, whatever the wall clock says.
    pub(crate) fn sleep(&self, by: Duration) {
        self.1.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
    }

    /// Whoever compares it with the store's next panics.
    pub(crate) fn break_once(&self) {
        self.2.store(true, Ordering::SeqCst);
    }

    /// Whether nobody did yet.
    pub(crate) fn is_to_break(&self) -> bool {
        self.2.load(Ordering::SeqCst)
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst)).unwrap()
    }

    fn uptime(&self) -> Uptime {
        Uptime(uptime().0 + Duration::from_nanos(self.1.load(Ordering::SeqCst)))
    }

    fn follow(&self, _database: Option<DatabaseTime>) {
        assert!(!self.2.swap(false, Ordering::SeqCst), "it was to break");
    }
}
