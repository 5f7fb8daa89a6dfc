//! What time it is: the one place that asks.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::domain::Timestamp;

/// Tells the time, and lets tests move it.
pub trait Clock: Send + Sync {
    /// The present instant.
    fn now(&self) -> Timestamp;

    /// How long ago the machine was started, by which ages are measured.
    fn uptime(&self) -> Uptime;

    /// Compares with the wall clock and with the database's, if that was asked. To be
    /// called now and then.
    fn follow(&self, _database: Option<DatabaseTime>) {}
}

/// Time since the machine was started, in which it slept counted in: it goes on
/// whatever becomes of the wall clock or of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uptime(pub Duration);

impl Uptime {
    /// How long before this `earlier` was; nothing if it was not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The same in whole nanoseconds, for an atomic.
    pub(crate) fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn from_nanos(nanos: u64) -> Self {
        Self(Duration::from_nanos(nanos))
    }
}

/// What the database's clock told, and between which instants it was asked.
#[derive(Debug, Clone, Copy)]
pub struct DatabaseTime {
    /// What it told.
    pub now: Timestamp,
    /// Before it was asked.
    pub asked_at: Uptime,
    /// When the answer was there.
    pub answered_at: Uptime,
}

/// An answer that took longer says too little of the database's clock.
const LONGEST_ANSWER: Duration = Duration::from_millis(250);

/// A look at both clocks that took longer says nothing of either.
const LONGEST_LOOK: Duration = Duration::from_micros(500);

/// Time stands still for so long when it would have run backwards, so that no thread
/// which looked a moment ago has seen a later one.
const MARGIN: i64 = 1_000;

/// The wall clock as the database has it, which never runs backwards while the
/// process lives: when it is set back, time stands still until it has caught up.
///
/// Once a database has told its time, the wall clock is only what that is compared with:
/// what somebody sets it to meanwhile does not count.
#[derive(Debug)]
pub struct SystemClock {
    wall: fn() -> SystemTime,
    time: Onward,
    /// How far the database's clock is ahead of this machine's, in microseconds.
    ahead: AtomicI64,
    /// Whether a database has told its time.
    is_told: AtomicBool,
}

/// A time that goes on as the uptime does and never runs backwards: when it is set
/// back, it stands still until it has caught up. In microseconds since 1970.
#[derive(Debug)]
pub(crate) struct Onward {
    /// What is to be added to the uptime.
    start: AtomicI64,
    floor: AtomicI64,
}

impl Onward {
    pub(crate) fn new(start: i64) -> Self {
        let floor = AtomicI64::new(Timestamp::MIN.as_micros());
        Self { start: AtomicI64::new(start), floor }
    }

    pub(crate) fn at(&self, uptime: Uptime) -> i64 {
        let time = self.start.load(Ordering::Acquire).saturating_add(micros(uptime));
        time.max(self.floor.load(Ordering::Acquire))
    }

    /// From now on the uptime is counted from this instant on.
    pub(crate) fn set(&self, start: i64, uptime: Uptime) {
        let before = self.start.load(Ordering::Acquire);
        if start < before {
            let shown = before.saturating_add(micros(uptime)).saturating_add(MARGIN);
            self.floor.fetch_max(shown, Ordering::AcqRel);
        }
        self.start.store(start, Ordering::Release);
    }
}

impl SystemClock {
    /// The wall clock, not yet compared with a database's.
    #[must_use]
    pub fn new() -> Self {
        Self::by(SystemTime::now)
    }

    /// The same of a machine whose wall clock shows this.
    #[must_use]
    pub fn by(wall: fn() -> SystemTime) -> Self {
        let clock = Self {
            wall,
            time: Onward::new(0),
            ahead: AtomicI64::new(0),
            is_told: AtomicBool::new(false),
        };
        clock.time.start.store(clock.shown().saturating_sub(micros(uptime())), Ordering::Relaxed);
        clock
    }

    /// How far the database's clock is ahead of this machine's, in microseconds.
    #[must_use]
    pub fn database_is_ahead_by(&self) -> i64 {
        self.ahead.load(Ordering::Relaxed)
    }

    /// What the wall clock shows, in microseconds.
    fn shown(&self) -> i64 {
        let since_1970 = (self.wall)().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX)
    }

    fn at(&self, uptime: Uptime) -> i64 {
        self.time.at(uptime)
    }

    fn compare(&self, wall: i64, uptime: Uptime, database: Option<DatabaseTime>) {
        let start = wall.saturating_sub(micros(uptime));
        let told = database.filter(|told| told.answered_at.since(told.asked_at) <= LONGEST_ANSWER);
        if let Some(DatabaseTime { now, asked_at, answered_at }) = told {
            // It was told somewhere between the two.
            let middle = start + (micros(asked_at) + micros(answered_at)) / 2;
            let ahead = now.as_micros() - middle;
            let took = answered_at.since(asked_at);
            let uncertain = i64::try_from(took.as_micros() / 2).unwrap_or(i64::MAX);
            let known = self.ahead.load(Ordering::Relaxed);
            if (ahead - known).abs() > uncertain {
                self.ahead.store(ahead, Ordering::Relaxed);
            }
            self.is_told.store(true, Ordering::Relaxed);
        } else if self.is_told.load(Ordering::Relaxed) {
            // How far the database is ahead of what the wall clock shows now is not known.
            return;
        }
        let start = start.saturating_add(self.ahead.load(Ordering::Relaxed));
        // As exact as the look is.
        let known = self.time.start.load(Ordering::Acquire);
        if start.abs_diff(known) >= LONGEST_LOOK.as_micros() as u64 {
            self.time.set(start, uptime);
        }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.at(uptime())).unwrap_or(Timestamp::MAX)
    }

    fn uptime(&self) -> Uptime {
        uptime()
    }

    fn follow(&self, database: Option<DatabaseTime>) {
        let before = uptime();
        let (wall, after) = (self.shown(), uptime());
        // Who was held up between the two can't tell how far they are apart.
        if after.since(before) < LONGEST_LOOK {
            self.compare(wall, after, database);
        }
    }
}

/// The clock that goes on while the machine sleeps.
#[cfg(any(target_os = "linux", target_os = "android"))]
const SINCE_START: ClockId = ClockId::Boottime;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const SINCE_START: ClockId = ClockId::Monotonic;

/// How long ago this machine was started.
#[must_use]
pub fn uptime() -> Uptime {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(SINCE_START);
    let nanos = u32::try_from(tv_nsec).unwrap_or(0);
    Uptime(Duration::new(u64::try_from(tv_sec).unwrap_or(0), nanos))
}

pub(crate) fn micros(uptime: Uptime) -> i64 {
    i64::try_from(uptime.0.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(millis: u64) -> Uptime {
        Uptime(Duration::from_millis(millis))
    }

    fn database(millis: i64, asked: u64, answered: u64) -> Option<DatabaseTime> {
        let now = Timestamp::from_micros(millis * 1_000).unwrap();
        Some(DatabaseTime { now, asked_at: up(asked), answered_at: up(answered) })
    }

    #[test]
    fn time_stands_still_while_the_wall_clock_is_set_back() {
        let clock = SystemClock::new();
        clock.compare(2_000_000_000_000_000, up(0), None);
        let later = clock.at(up(5_000));
        clock.compare(2_000_000_000_000_000, up(5_000), None);
        assert!(clock.at(up(5_000)) >= later);
        assert!(clock.at(up(9_000)) - later <= MARGIN);
        assert_eq!(clock.at(up(20_000)), 2_000_000_015_000_000);
    }

    #[test]
    fn wall_clock_that_is_set_forward_is_followed() {
        let clock = SystemClock::new();
        clock.compare(2_000_000_000_000_000, up(0), None);
        clock.compare(2_000_000_060_000_000, up(0), None);
        assert_eq!(clock.at(up(0)), 2_000_000_060_000_000);
    }

    #[test]
    fn wall_clock_that_is_set_while_the_database_says_nothing_does_not_count() {
        let wall = 2_000_000_000_000_000;
        let clock = SystemClock::new();
        clock.compare(wall, up(10), database(2_000_000_000_065, 0, 10));
        let hours = 5 * 3_600_000_000;
        for set in [hours, -hours] {
            for silent in [None, database(2_000_000_000_500, 20, 1_000)] {
                clock.compare(wall + set + 990_000, up(1_000), silent);
                assert_eq!(clock.at(up(1_000)), wall + 1_060_000);
            }
            clock.compare(wall + set + 990_000, up(1_000), database(2_000_000_001_055, 990, 1_000));
            assert_eq!(clock.at(up(1_000)), wall + 1_060_000);
        }
    }

    #[test]
    fn database_decides_what_time_it_is_as_far_as_it_can_be_known() {
        let wall = 2_000_000_000_000_000;
        let clock = SystemClock::new();
        clock.compare(wall, up(10), database(2_000_000_000_065, 0, 10));
        assert_eq!(clock.database_is_ahead_by(), 70_000);
        assert_eq!(clock.at(up(10)), wall + 70_000);
        // It may have been told at any moment in between.
        clock.compare(wall, up(10), database(2_000_000_000_068, 0, 10));
        assert_eq!(clock.database_is_ahead_by(), 70_000);
        clock.compare(wall + 990_000, up(1_000), database(2_000_000_009_000, 0, 1_000));
        assert_eq!(clock.database_is_ahead_by(), 70_000, "it took too long");
    }
}
