//! Every order in which a fill, a revocation, the follower, an eviction and a
//! verification can take their steps, over the real [`History`] and [`Cache`]: none of
//! them answers for a token longer after its revocation than it may.
//!
//! An order is replayed from its start; what was reached by another order already is
//! not gone into again.

use std::{collections::HashSet, sync::LazyLock};

use super::{
    cache::Cache,
    entry::{Encoded, Entry},
    history::{Depends, History, ReadAt},
    key::{Key, Keys},
};
use crate::{
    clock::Uptime,
    domain::{Found, Revision, Timestamp},
    store::Touched,
};

/// How old what is known may be, in the model's time.
const MAX_STALENESS: u64 = 10;

/// By what the model goes, so that it can be seen that it needs each of it.
#[derive(Clone, Copy)]
struct Rules {
    /// What is kept is served only if no slot says that it was changed since.
    checks_slots: bool,
    /// What is confirmed, is so as of the instant before the store was asked.
    confirms_from_before: bool,
    /// A change of the process itself is in the slots before it is committed, and not
    /// only if whoever commits it lives to see that.
    tells_before_commit: bool,
}

const RULES: Rules =
    Rules { checks_slots: true, confirms_from_before: true, tells_before_commit: true };

/// The credential that it is about.
static FOUND: LazyLock<Found> = LazyLock::new(|| Found::root(&"zzzzz".parse().unwrap()));

/// Who takes steps, one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    /// Revokes the token in another process.
    Other,
    /// Revokes the token in this process.
    Itself,
    /// Puts an older history in the place of the store's, in which the token is revoked
    /// at the next number: a fail-over.
    Rewriter,
    Filler,
    Follower,
    Evictor,
    Verifier,
    Time,
}

impl Who {
    /// How many steps it takes.
    fn steps(self) -> usize {
        match self {
            Self::Other | Self::Rewriter | Self::Evictor => 1,
            Self::Itself | Self::Time => 2,
            Self::Filler => 3,
            Self::Verifier => 4,
            Self::Follower => 8,
        }
    }
}

/// The store: which revisions there are, by their marks, and whether the token is good.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Database {
    marks: Vec<i64>,
    revoked_by: Option<usize>,
    /// When whoever revoked it was told so.
    acknowledged_at: Option<u64>,
}

impl Database {
    fn head(&self) -> Revision {
        let number = self.marks.len() - 1;
        Revision { number: i64::try_from(number).unwrap(), mark: self.marks[number] }
    }

    fn changes(&self, after: Revision) -> Option<Vec<Revision>> {
        let number = usize::try_from(after.number).unwrap();
        (self.marks.get(number) == Some(&after.mark)).then(|| {
            let later = number + 1..self.marks.len();
            later
                .map(|n| Revision { number: i64::try_from(n).unwrap(), mark: self.marks[n] })
                .collect()
        })
    }
}

/// The head, and what came after what is applied; `None`: another history.
type News = (Revision, Option<Vec<Revision>>);

struct World {
    rules: Rules,
    now: u64,
    database: Database,
    history: History,
    kept: Cache<Entry>,
    key: Key,
    depends: Depends,
    taken: Vec<(Who, usize)>,
    filler: Option<(u32, Option<(i64, bool)>)>,
    follower: Option<(u64, Option<News>)>,
    verifier: Option<(u64, Option<(ReadAt, bool)>)>,
    /// It said that the token is good, though it was asked too long after the revocation.
    lied: bool,
}

fn up(time: u64) -> Uptime {
    Uptime::from_nanos(time)
}

fn entry(read: ReadAt, depends: Depends, revoked: bool) -> Entry {
    let mut found = FOUND.clone();
    found.credential.revoked_at = revoked.then_some(Timestamp::MIN);
    let encoded = Encoded { bytes: Vec::new(), id: 0..0, workspace_id: 0..0 };
    Entry::of(&found, encoded, read, depends, None)
}

impl World {
    fn new(rules: Rules) -> Self {
        let database = Database { marks: vec![100, 101], revoked_by: None, acknowledged_at: None };
        let history = History::with_slots(4, database.head(), up(0));
        Self {
            rules,
            now: 0,
            depends: history.on_credential(&FOUND),
            database,
            history,
            kept: Cache::new(1 << 20),
            key: Keys::new().of(&["token"]),
            taken: Vec::new(),
            filler: None,
            follower: None,
            verifier: None,
            lied: false,
        }
    }

    fn touched() -> [Touched; 1] {
        [Touched::Credential(FOUND.credential.id.0.clone())]
    }

    fn commit(&mut self, mark: i64) {
        self.database.marks.push(mark);
        self.database.revoked_by.get_or_insert(self.database.marks.len() - 1);
        self.database.acknowledged_at.get_or_insert(self.now);
    }

    /// Takes the step of this number.
    fn step(&mut self, who: Who, number: usize) {
        let next = i64::try_from(self.database.marks.len()).unwrap();
        match (who, number) {
            (Who::Other, 0) => self.commit(102),
            (Who::Itself, 0) if self.rules.tells_before_commit => {
                self.history.raise(&Self::touched(), next);
            }
            (Who::Itself, 0) => self.commit(103),
            (Who::Itself, 1) if self.rules.tells_before_commit => self.commit(103),
            // Who was to tell it after the commit is gone; another one finds it done.
            (Who::Itself, 1) => {}
            (Who::Rewriter, 0) => {
                self.database.marks = vec![100];
                self.commit(204);
            }
            (Who::Filler, 0) => self.filler = Some((self.history.era(), None)),
            (Who::Filler, 1) => {
                let read = (self.database.head().number, self.database.revoked_by.is_some());
                self.filler.as_mut().unwrap().1 = Some(read);
            }
            (Who::Filler, 2) => {
                let (era, read) = self.filler.take().unwrap();
                let (revision, revoked) = read.unwrap();
                let entry = entry(ReadAt { revision, era }, self.depends, revoked);
                self.kept.keep(self.key, entry, 0);
            }
            (Who::Follower, 0 | 4) => self.follower = Some((self.now, None)),
            (Who::Follower, 1 | 5) => {
                let after = self.history.applied().revision;
                let changes = self.database.changes(after);
                let asked = self.follower.as_mut().unwrap();
                asked.1 = Some((self.database.head(), changes));
                if !self.rules.confirms_from_before {
                    // As if the instant were taken when the answer is there, however long
                    // that took.
                    asked.0 = u64::MAX;
                }
            }
            (Who::Follower, 2 | 6) => match &self.follower.as_ref().unwrap().1 {
                Some((_, Some(changes))) => {
                    for change in changes {
                        self.history.raise(&Self::touched(), change.number);
                    }
                }
                Some((head, None)) => {
                    self.history.rewrite(*head);
                    self.kept.clear();
                }
                None => unreachable!("it was read"),
            },
            (Who::Follower, 3 | 7) => {
                let (asked_at, news) = self.follower.take().unwrap();
                if let Some((_, Some(changes))) = news {
                    self.history.publish(changes);
                }
                self.history.confirm(up(asked_at.min(self.now)));
            }
            (Who::Evictor, 0) => self.kept.drop_one(&self.key),
            (Who::Verifier, 0) => self.verifier = Some((self.now, None)),
            (Who::Verifier, 1) => {
                let (begun, _) = self.verifier.unwrap();
                if up(begun).since(self.history.confirmed_at()) > up(MAX_STALENESS).0 {
                    self.verifier = None;
                }
            }
            (Who::Verifier, 2) => {
                let guard = self.kept.guard();
                let kept = self.kept.get(&self.key, 0, &guard);
                let found = kept.map(|entry| (entry.read().0, entry.revoked_at().is_none()));
                self.verifier = self.verifier.and_then(|(begun, _)| Some((begun, Some(found?))));
            }
            (Who::Verifier, 3) => {
                let checks = self.rules.checks_slots;
                if let Some((begun, Some((read, true)))) = self.verifier.take()
                    && (!checks || self.history.holds(read, self.depends))
                {
                    self.lied |= self.must_be_known_to(begun);
                }
            }
            (Who::Time, 0 | 1) => self.now += MAX_STALENESS + 1,
            _ => unreachable!("{who:?} has no step {number}"),
        }
        self.taken.push((who, number));
    }

    /// Whether who began to ask then must know of the revocation.
    fn must_be_known_to(&self, begun: u64) -> bool {
        // Who did it in this process is to see it at once.
        let its_own = self.taken.contains(&(Who::Itself, 1));
        let bound = if its_own { 0 } else { MAX_STALENESS };
        self.database.acknowledged_at.is_some_and(|acknowledged| {
            if its_own { self.began_after_ack() } else { begun > acknowledged + bound }
        })
    }

    /// Whether the verification began after this process's own revocation had ended.
    fn began_after_ack(&self) -> bool {
        let place = |step| self.taken.iter().position(|taken| *taken == step);
        place((Who::Verifier, 0)) > place((Who::Itself, 1))
    }

    /// All that what comes next can depend on.
    fn state(&self) -> impl Eq + std::hash::Hash + use<> {
        let holding: Vec<bool> = (0..4)
            .flat_map(|revision| (0..2).map(move |era| ReadAt { revision, era }))
            .map(|read| self.history.holds(read, self.depends))
            .collect();
        let guard = self.kept.guard();
        let kept = self.kept.get(&self.key, 0, &guard).map(|entry| {
            let read = entry.read().0;
            (read.revision, read.era, entry.revoked_at().is_some())
        });
        let verifier = self
            .verifier
            .map(|(begun, read)| (begun, read.map(|(read, good)| (read.revision, read.era, good))));
        let follower = self.follower.as_ref().map(|(at, news)| {
            let news = news.as_ref().map(|(head, changes)| {
                let numbers = |changes: &Vec<Revision>| changes.iter().map(|r| r.mark).collect();
                (head.mark, changes.as_ref().map(numbers).unwrap_or(vec![-1]))
            });
            (*at, news)
        });
        let applied = self.history.applied().revision;
        let mut taken = self.taken.clone();
        taken.sort_unstable();
        (
            (taken, self.now, self.database.clone(), holding, kept),
            (self.filler, follower, verifier, applied.number, applied.mark),
            (self.history.confirmed_at().as_nanos(), self.began_after_ack(), self.lied),
        )
    }
}

/// An order of steps after which a verification said what it must not, if there is one;
/// and how many states were seen.
fn look_for_a_lie(rules: Rules, all: &[Who]) -> (Option<Vec<(Who, usize)>>, usize) {
    let mut seen = HashSet::new();
    let mut paths: Vec<Vec<(Who, usize)>> = vec![Vec::new()];
    while let Some(path) = paths.pop() {
        let mut world = World::new(rules);
        for (who, number) in &path {
            world.step(*who, *number);
        }
        if !seen.insert(world.state()) {
            continue;
        }
        if world.lied {
            return (Some(path), seen.len());
        }
        for who in all {
            let number = path.iter().filter(|(other, _)| other == who).count();
            if number < who.steps() {
                paths.push(path.iter().copied().chain([(*who, number)]).collect());
            }
        }
    }
    (None, seen.len())
}

const OTHERS: [Who; 6] =
    [Who::Other, Who::Filler, Who::Follower, Who::Evictor, Who::Verifier, Who::Time];
const OWN: [Who; 5] = [Who::Itself, Who::Filler, Who::Follower, Who::Verifier, Who::Time];
const REWRITTEN: [Who; 5] = [Who::Rewriter, Who::Filler, Who::Follower, Who::Verifier, Who::Time];

#[test]
fn no_order_of_steps_has_a_revoked_token_answered_after_the_bound() {
    for all in [&OTHERS[..], &OWN, &REWRITTEN] {
        let (lie, states) = look_for_a_lie(RULES, all);
        assert_eq!(lie, None);
        assert!(states > 1_000, "{all:?}: {states}");
    }
}

#[test]
fn without_the_check_of_the_slots_one_has() {
    let rules = Rules { checks_slots: false, ..RULES };
    for all in [&OTHERS[..], &OWN, &REWRITTEN] {
        assert!(look_for_a_lie(rules, all).0.is_some(), "{all:?}");
    }
}

#[test]
fn without_the_instant_before_the_question_one_has() {
    let rules = Rules { confirms_from_before: false, ..RULES };
    assert!(look_for_a_lie(rules, &OTHERS).0.is_some());
}

#[test]
fn without_word_before_the_commit_one_has() {
    let rules = Rules { tells_before_commit: false, ..RULES };
    assert!(look_for_a_lie(rules, &OWN).0.is_some());
}
