//! What the verifier did since it was made, in numbers.

use std::{
    array,
    cell::Cell,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use super::{Answer, Decision, look::Outcome};
use crate::{domain::Reason, error::Error};

/// What came of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// The token may be used.
    Active,
    /// It may not, or nothing is proved. What is no token proves nothing, too.
    Refused(Refused),
    /// The question could not be answered.
    Error,
}

/// Why a token may not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the reasons of `Reason`")]
pub enum Refused {
    NotFound,
    Expired,
    Revoked,
    OwnerInactive,
    WorkspaceInactive,
    WrongWorkspace,
    IpNotAllowed,
    InsufficientScope,
}

/// Where a token was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookedUp {
    /// In what is kept.
    Kept,
    /// In the store.
    Read,
    /// Nowhere: it is no token, or one of those that no store holds.
    Nowhere,
}

/// What else is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The store was read for an answer.
    Read,
    /// A question waited for the read that another one had begun.
    Joined,
    /// It was kept that a text is nobody's.
    UnknownKept,
    /// Something that was kept had to make room, or did not hold any more.
    Swept,
    /// A caller was not let in.
    CallerRefused,
    /// A call of Verify could not be answered at once.
    LongWay,
}

impl Came {
    /// Each of them.
    pub const ALL: [Self; 10] = [
        Self::Active,
        Self::Refused(Refused::NotFound),
        Self::Refused(Refused::Expired),
        Self::Refused(Refused::Revoked),
        Self::Refused(Refused::OwnerInactive),
        Self::Refused(Refused::WorkspaceInactive),
        Self::Refused(Refused::WrongWorkspace),
        Self::Refused(Refused::IpNotAllowed),
        Self::Refused(Refused::InsufficientScope),
        Self::Error,
    ];

    fn place(self) -> usize {
        match self {
            Self::Active => 0,
            Self::Refused(refused) => 1 + refused as usize,
            Self::Error => 9,
        }
    }
}

impl LookedUp {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Kept, Self::Read, Self::Nowhere];
}

impl Event {
    /// Each of them.
    pub const ALL: [Self; 6] = [
        Self::Read,
        Self::Joined,
        Self::UnknownKept,
        Self::Swept,
        Self::CallerRefused,
        Self::LongWay,
    ];
}

const ANSWERS: usize = LookedUp::ALL.len() * Came::ALL.len();
const CELLS: usize = ANSWERS + Event::ALL.len();

/// The numbers of a verifier, as of about one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub(super) cells: [u64; CELLS],
    /// How many credentials are kept.
    pub entries: usize,
    /// About how many bytes everything takes that is kept.
    pub bytes: usize,
    /// How many reads of the store are under way.
    pub under_way: usize,
    /// How long ago it was last made sure that nothing newer is known.
    pub confirmed_ago: Duration,
    /// The number of the newest change that is applied.
    pub applied: i64,
}

impl Counts {
    /// How many questions were answered so, of tokens that were looked up there.
    #[must_use]
    pub fn answers(&self, came: Came, looked_up: LookedUp) -> u64 {
        self.cells[answer(came, looked_up)]
    }

    /// How often something happened.
    #[must_use]
    pub fn events(&self, event: Event) -> u64 {
        self.cells[ANSWERS + event as usize]
    }
}

/// The place of an answer.
fn answer(came: Came, looked_up: LookedUp) -> usize {
    looked_up as usize * Came::ALL.len() + came.place()
}

/// Counts, in a shard for each thread if there are not too many of them, so that they
/// don't take each other's cache lines.
pub(super) struct Counters(Box<[Shard]>);

#[repr(align(128))]
struct Shard([AtomicU64; CELLS]);

/// How many shards there are at most.
const MAX_SHARDS: usize = 64;

/// Numbers the threads.
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<usize> = Cell::new(THREADS.fetch_add(1, Ordering::Relaxed));
}

impl Counters {
    pub(super) fn new() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let shards = threads.next_power_of_two().min(MAX_SHARDS);
        Self((0..shards).map(|_| Shard(array::from_fn(|_| AtomicU64::new(0)))).collect())
    }

    /// Counts an answer.
    pub(super) fn answered(&self, came: Came, looked_up: LookedUp) {
        self.add(answer(came, looked_up), 1);
    }

    /// Counts an answer that a look gave.
    pub(super) fn looked(&self, outcome: &Outcome<'_>) {
        let (came, looked_up) = match outcome {
            Outcome::Active(_) => (Came::Active, LookedUp::Kept),
            Outcome::Refused(reason, _) => (Came::from(reason), LookedUp::Kept),
            Outcome::Unknown => (Came::Refused(Refused::NotFound), LookedUp::Kept),
            Outcome::Malformed => (Came::Refused(Refused::NotFound), LookedUp::Nowhere),
        };
        self.answered(came, looked_up);
    }

    /// Counts an answer that was waited for.
    pub(super) fn decided(&self, decided: Result<&Decision, &Error>) {
        match decided {
            Ok(decision) => self.answered(Came::from(&decision.answer), decision.looked_up),
            Err(_) => self.answered(Came::Error, LookedUp::Nowhere),
        }
    }

    /// Counts what happened so many times.
    pub(super) fn happened(&self, event: Event, times: usize) {
        self.add(ANSWERS + event as usize, times as u64);
    }

    /// The sums; the rest of the numbers is the verifier's.
    pub(super) fn counts(&self) -> Counts {
        let sum =
            |cell: usize| self.0.iter().map(|shard| shard.0[cell].load(Ordering::Relaxed)).sum();
        Counts {
            cells: array::from_fn(sum),
            entries: 0,
            bytes: 0,
            under_way: 0,
            confirmed_ago: Duration::ZERO,
            applied: 0,
        }
    }

    fn add(&self, cell: usize, times: u64) {
        let shard = THREAD.with(Cell::get) & (self.0.len() - 1);
        self.0[shard].0[cell].fetch_add(times, Ordering::Relaxed);
    }
}

impl From<&Answer> for Came {
    fn from(answer: &Answer) -> Self {
        match answer {
            Answer::Active(_) => Self::Active,
            Answer::NotFound => Self::Refused(Refused::NotFound),
            Answer::Refused(reason, _) => Self::from(reason),
        }
    }
}

impl From<&Reason> for Came {
    fn from(reason: &Reason) -> Self {
        Self::Refused(match reason {
            Reason::NotFound => Refused::NotFound,
            Reason::Expired => Refused::Expired,
            Reason::Revoked => Refused::Revoked,
            Reason::OwnerInactive => Refused::OwnerInactive,
            Reason::WorkspaceInactive => Refused::WorkspaceInactive,
            Reason::WrongWorkspace => Refused::WrongWorkspace,
            Reason::IpNotAllowed => Refused::IpNotAllowed,
            Reason::InsufficientScope(_) => Refused::InsufficientScope,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_number_has_a_place_of_its_own() {
        let mut places = HashSet::new();
        for came in Came::ALL {
            for looked_up in LookedUp::ALL {
                places.insert(answer(came, looked_up));
            }
        }
        places.extend(Event::ALL.map(|event| ANSWERS + event as usize));
        assert_eq!(places, (0..CELLS).collect());
    }

    #[test]
    fn what_threads_count_is_summed() {
        let counters = Counters::new();
        thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    counters.answered(Came::Active, LookedUp::Kept);
                    counters.happened(Event::Swept, 2);
                });
            }
        });
        let counts = counters.counts();
        assert_eq!(counts.answers(Came::Active, LookedUp::Kept), 100);
        assert_eq!(counts.events(Event::Swept), 200);
        assert_eq!(counts.cells.iter().sum::<u64>(), 300);
    }
}
