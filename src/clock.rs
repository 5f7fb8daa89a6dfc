//! What time it is: the one place that asks.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crate::domain::Timestamp;

/// Tells the time, and lets tests move it.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;
}

/// The wall clock, which never runs backwards while the process lives: when it
/// is set back, time stands still until it has caught up.
#[derive(Debug)]
pub struct SystemClock {
    latest: AtomicI64,
}

impl SystemClock {
    /// The wall clock.
    #[must_use]
    pub fn new() -> Self {
        Self { latest: AtomicI64::new(Timestamp::MIN.as_micros()) }
    }

    fn not_before_the_latest(&self, micros: i64) -> Timestamp {
        let before = self.latest.fetch_max(micros, Ordering::Relaxed);
        Timestamp::from_micros(before.max(micros)).unwrap_or(Timestamp::MAX)
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.not_before_the_latest(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_stands_still_while_the_wall_clock_is_set_back() {
        let clock = SystemClock::new();
        let later = clock.not_before_the_latest(2_000);
        assert_eq!(clock.not_before_the_latest(1_000), later);
        assert_eq!(clock.not_before_the_latest(2_001).as_micros(), 2_001);
    }
}
