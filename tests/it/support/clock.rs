use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use token_authority::{
    clock::{Clock, DatabaseTime, Uptime, uptime},
    domain::Timestamp,
};

/// A wall clock that stands still until the test moves it. Ages are those of the
/// machine, unless the test lets it sleep or holds them.
#[derive(Debug, Clone)]
pub(crate) struct TestClock {
    now: Arc<AtomicI64>,
    slept: Arc<AtomicU64>,
    held: Arc<OnceLock<Uptime>>,
    is_to_break: Arc<AtomicBool>,
}

impl TestClock {
    /// At 2027-01-15T08:00:00Z.
    pub(crate) fn new() -> Self {
        Self {
            now: Arc::new(AtomicI64::new(1_800_000_000_000_000)),
            slept: Arc::default(),
            held: Arc::default(),
            is_to_break: Arc::default(),
        }
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.now.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }

    /// As if the machine had slept, whatever the wall clock says.
    pub(crate) fn sleep(&self, by: Duration) {
        self.slept.fetch_add(u64::try_from(by.as_nanos()).unwrap(), Ordering::SeqCst);
    }

    /// From here on nothing gets older, however slow the machine is.
    pub(crate) fn hold(&self) {
        self.held.get_or_init(|| self.uptime());
    }

    /// Whoever compares it with the store's next panics.
    pub(crate) fn break_once(&self) {
        self.is_to_break.store(true, Ordering::SeqCst);
    }

    /// Whether nobody did yet.
    pub(crate) fn is_to_break(&self) -> bool {
        self.is_to_break.load(Ordering::SeqCst)
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.now.load(Ordering::SeqCst)).unwrap()
    }

    fn uptime(&self) -> Uptime {
        let slept = Duration::from_nanos(self.slept.load(Ordering::SeqCst));
        self.held.get().copied().unwrap_or_else(|| Uptime(uptime().0 + slept))
    }

    fn follow(&self, _database: Option<DatabaseTime>) {
        assert!(!self.is_to_break.swap(false, Ordering::SeqCst), "it was to break");
    }
}
