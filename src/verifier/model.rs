//! Every order in which a fill, a revocation, the follower, an eviction and a
//! verification can take their steps, over the real [`History`] and [`Cache`]: none of
//! them answers for a token longer after its revocation than it may.
//!
//! An order is replayed from its start; what was reached by another order already is
//! not gone into again.

use std::{collections::HashSet, sync::LazyLock};

use super::{
    entry::{Encoded, Entry},
    history::{History, Met, ReadAt},
};
use crate::{
    clock::Uptime,
    domain::{Found, Revision, Timestamp},
    keeping::{
        cache::Cache,
        key::{Key, Keys},
        slots::{Depends, Slots},
    },
    store::{Change, Touched},
};

/// How old what is known may be, in the model's time.
const MAX_STALENESS: u64 = 10;

/// By what the model goes, so that it can be seen that it needs each of it.
#[derive(Clone, Copy)]
struct Rules {
    /// What is kept is served only if no slot says that it was changed since.
    checks_slots: bool,
    /// And only in the era that it was read in.
    checks_era: bool,
    /// The era is looked at after the slots, which are cleared for the next one.
    looks_at_the_era_last: bool,
    /// It ends before they are.
    ends_the_era_first: bool,
    /// What is confirmed, is so as of the instant before the store was asked.
    confirms_from_before: bool,
    /// A change of the process itself is in the slots before it is committed, and not
    /// only if whoever commits it lives to see that.
    tells_before_commit: bool,
    /// It is in the slots again after a rewrite that does not know of it.
    tells_again: bool,
    /// What is ahead of what is applied is not served before that is reached.
    waits_for_what_is_ahead: bool,
    /// And compared with it then.
    compares_what_is_ahead: bool,
}

const RULES: Rules = Rules {
    checks_slots: true,
    checks_era: true,
    looks_at_the_era_last: true,
    ends_the_era_first: true,
    confirms_from_before: true,
    tells_before_commit: true,
    tells_again: true,
    waits_for_what_is_ahead: true,
    compares_what_is_ahead: true,
};

/// How many steps a look of the follower has.
const LOOK: usize = 5;

/// The credential that it is about.
static FOUND: LazyLock<Found> = LazyLock::new(|| Found::root(&"zzzzz".parse().unwrap()));

/// Who takes steps, one at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    /// Revokes the token in another process.
    Other,
    /// Revokes the token in this process.
    Itself,
    /// Changes something else so often in another process.
    Bystander(usize),
    /// Puts a history in the place of the store's that goes another way after so many
    /// revisions: a fail-over.
    Rewriter(usize, Then),
    Filler,
    /// Looks so often at the changes.
    Follower(usize),
    Evictor,
    Verifier,
    Time,
}

/// What comes next in another history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Then {
    Nothing,
    Change,
    Revocation,
}

impl Who {
    /// How many steps it takes.
    fn steps(self) -> usize {
        match self {
            Self::Other | Self::Bystander(_) | Self::Rewriter(..) | Self::Evictor => 1,
            Self::Itself | Self::Time => 2,
            Self::Filler => 3,
            Self::Verifier => 5,
            Self::Follower(looks) => looks * LOOK,
        }
    }
}

/// The store: which revisions there are, by their marks, and the one that revoked the
/// token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Database {
    marks: Vec<i64>,
    revoked: Option<Revoked>,
}

/// A revocation, and when whoever asked for it was told that it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Revoked {
    number: usize,
    by: Who,
    acknowledged_at: u64,
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

/// When the follower asked, and what it was told.
type Asked = (u64, Option<News>);

struct World {
    rules: Rules,
    now: u64,
    database: Database,
    history: History,
    kept: Cache<Entry>,
    key: Key,
    depends: Depends,
    taken: Vec<(Who, usize)>,
    filler: Option<(u32, Option<(Revision, bool)>)>,
    follower: Option<Asked>,
    /// The head that its own change was to follow.
    told: Option<Revision>,
    /// The follower keeps out who changes the history.
    is_rewriting: bool,
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
        let database = Database { marks: vec![100, 101], revoked: None };
        let history = History::with_slots(Slots::with(4), database.head(), up(0));
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
            told: None,
            is_rewriting: false,
            verifier: None,
            lied: false,
        }
    }

    fn touched() -> [Touched; 1] {
        [Touched::Credential(FOUND.credential.id.0.clone())]
    }

    fn revoke(&mut self, by: Who, mark: i64) {
        let (number, acknowledged_at) = (self.database.marks.len(), self.now);
        self.database.marks.push(mark);
        self.database.revoked.get_or_insert(Revoked { number, by, acknowledged_at });
    }

    /// Whether the verification is over: nothing that comes next makes a lie of it.
    fn is_answered(&self) -> bool {
        self.verifier.is_none() && self.taken.iter().any(|(who, _)| *who == Who::Verifier)
    }

    /// Whether nobody keeps it from this step.
    fn may(&self, who: Who, number: usize) -> bool {
        !(self.is_rewriting && matches!((who, number), (Who::Itself, 0) | (Who::Filler, 2)))
    }

    /// Takes the step of this number.
    fn step(&mut self, who: Who, number: usize) {
        match (who, number) {
            (Who::Other, 0) => self.revoke(who, 102),
            (Who::Bystander(times), 0) => self.database.marks.extend((110..).take(times)),
            (Who::Itself, 0) if self.rules.tells_before_commit => {
                let head = self.database.head();
                self.history.raise_own(&Self::touched(), head.number + 1);
                self.told = Some(head);
            }
            (Who::Itself, 0) => self.revoke(who, 103),
            (Who::Itself, 1) if self.rules.tells_before_commit => {
                // What it was begun in may be no more.
                if self.told == Some(self.database.head()) {
                    self.revoke(who, 103);
                }
            }
            // Who was to tell it after the commit is gone; another one finds it done.
            (Who::Itself, 1) => {}
            (Who::Rewriter(kept, then), 0) => {
                self.database.marks.truncate(kept);
                self.database.revoked.take_if(|revoked| revoked.number >= kept);
                match then {
                    Then::Nothing => {}
                    Then::Change => self.database.marks.push(204),
                    Then::Revocation => self.revoke(who, 204),
                }
            }
            (Who::Filler, 0) => self.filler = Some((self.history.era(), None)),
            (Who::Filler, 1) => {
                let read = (self.database.head(), self.database.revoked.is_some());
                self.filler.as_mut().unwrap().1 = Some(read);
            }
            (Who::Filler, 2) => {
                let (era, read) = self.filler.take().unwrap();
                let (head, revoked) = read.unwrap();
                if !self.rules.compares_what_is_ahead || self.history.meet(head) {
                    let read = ReadAt { revision: head.number, era };
                    self.kept.keep(self.key, entry(read, self.depends, revoked), 0);
                }
            }
            (Who::Follower(_), _) => self.follow(number % LOOK),
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
            (Who::Verifier, 3 | 4) => {
                if let Some((begun, Some((read, good)))) = self.verifier {
                    let (rules, history) = (self.rules, &self.history);
                    let holds = if (number == 3) == rules.looks_at_the_era_last {
                        (!rules.waits_for_what_is_ahead || history.is_reached(read.revision))
                            && (!rules.checks_slots
                                || history.is_untouched(read.revision, self.depends))
                    } else {
                        !rules.checks_era || history.is_of_now(read.era)
                    };
                    self.verifier.take_if(|_| !holds || number == 4);
                    self.lied |= number == 4 && holds && good && self.must_be_known_to(begun);
                }
            }
            (Who::Time, 0 | 1) => self.now += MAX_STALENESS + 1,
            _ => unreachable!("{who:?} has no step {number}"),
        }
        self.taken.push((who, number));
    }

    /// Takes a step of a look at the changes.
    fn follow(&mut self, number: usize) {
        let rules = self.rules;
        match (number, &mut self.follower) {
            (0, _) => self.follower = Some((self.now, None)),
            (1, Some((at, news))) => {
                let changes = self.database.changes(self.history.applied().revision);
                *news = Some((self.database.head(), changes));
                if !rules.confirms_from_before {
                    // As if the instant were taken when the answer is there, however long
                    // that took.
                    *at = u64::MAX;
                }
            }
            (_, Some((_, Some((_, Some(changes)))))) if number < 4 => match number {
                2 => {
                    for change in changes {
                        self.history.raise(&Self::touched(), change.number);
                    }
                }
                _ => {
                    let change = |revision| Change { revision, touched: Self::touched().into() };
                    self.history.publish(std::mem::take(changes).into_iter().map(change));
                }
            },
            (2, Some(_)) => {
                self.is_rewriting = true;
                if rules.ends_the_era_first {
                    self.history.end_era();
                }
            }
            (3, Some(_)) => self.history.clear(),
            (_, Some((at, Some((head, changes))))) => {
                if changes.is_none() {
                    self.history.end_era();
                    let mut met = self.history.met();
                    if !rules.tells_again {
                        met.own.clear();
                    }
                    self.history.start_at(*head, &mut met);
                    self.history.start_era();
                    self.kept.clear();
                    self.is_rewriting = false;
                }
                self.history.confirm(up((*at).min(self.now)));
                self.follower = None;
            }
            _ => unreachable!("it has asked and was answered"),
        }
    }

    /// Whether who began to ask then must know of the revocation.
    fn must_be_known_to(&self, begun: u64) -> bool {
        self.database.revoked.is_some_and(|revoked| {
            // Who did it in this process is to see it at once.
            if revoked.by == Who::Itself {
                self.began_after_ack()
            } else {
                begun > revoked.acknowledged_at + MAX_STALENESS
            }
        })
    }

    /// Whether the verification began after this process's own revocation had ended.
    fn began_after_ack(&self) -> bool {
        let place = |step| self.taken.iter().position(|taken| *taken == step);
        place((Who::Itself, 1)).is_some_and(|own| place((Who::Verifier, 0)) > Some(own))
    }

    /// All that what comes next can depend on.
    fn state(&self) -> impl Eq + std::hash::Hash + use<> {
        let untouched: Vec<bool> =
            (0..5).map(|revision| self.history.is_untouched(revision, self.depends)).collect();
        let guard = self.kept.guard();
        let kept = self.kept.get(&self.key, 0, &guard).map(|entry| {
            let read = entry.read().0;
            (read.revision, read.era, entry.revoked_at().is_some())
        });
        let filler = self.filler.map(|(era, read)| {
            (era, read.map(|(head, is_revoked)| (head.number, head.mark, is_revoked)))
        });
        let verifier = self
            .verifier
            .map(|(begun, read)| (begun, read.map(|(read, good)| (read.revision, read.era, good))));
        let Met { applied, read, own, .. } = &*self.history.met();
        let marks: Vec<i64> = applied.iter().map(|change| change.revision.mark).collect();
        let own: Vec<i64> = own.iter().map(|(number, _)| *number).collect();
        let mut taken = self.taken.clone();
        taken.sort_unstable();
        (
            (taken, self.now, self.database.clone(), untouched, self.history.era(), kept),
            (filler, self.follower.clone(), verifier, marks, read.clone(), own, self.told),
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
        if world.is_answered() {
            continue;
        }
        for who in all {
            let number = path.iter().filter(|(other, _)| other == who).count();
            if number < who.steps() && world.may(*who, number) {
                paths.push(path.iter().copied().chain([(*who, number)]).collect());
            }
        }
    }
    (None, seen.len())
}

const OTHERS: &[Who] = &[Who::Other, Who::Filler, Who::Follower(2), Who::Verifier, Who::Time];
const EVICTED: &[Who] =
    &[Who::Other, Who::Filler, Who::Follower(1), Who::Evictor, Who::Verifier, Who::Time];
const OWN: &[Who] = &[Who::Itself, Who::Filler, Who::Follower(1), Who::Verifier, Who::Time];
const REWRITTEN: &[Who] =
    &[Who::Rewriter(1, Then::Revocation), Who::Filler, Who::Follower(2), Who::Verifier, Who::Time];
/// A change of the process itself follows on another history, at the next number, and at
/// one that was taken before.
const OWN_AFTER: &[Who] =
    &[Who::Rewriter(1, Then::Change), Who::Itself, Who::Filler, Who::Follower(1), Who::Verifier];
const OWN_BEFORE: &[Who] =
    &[Who::Rewriter(1, Then::Nothing), Who::Itself, Who::Filler, Who::Follower(1), Who::Verifier];
/// History goes another way where it was read of and is not followed yet, and comes to
/// what was read of, or does not.
const AHEAD: &[Who] = &[
    Who::Bystander(1),
    Who::Rewriter(2, Then::Revocation),
    Who::Filler,
    Who::Follower(1),
    Who::Verifier,
    Who::Time,
];
const FAR_AHEAD: &[Who] = &[
    Who::Bystander(2),
    Who::Rewriter(2, Then::Revocation),
    Who::Filler,
    Who::Follower(1),
    Who::Verifier,
    Who::Time,
];

#[test]
fn no_order_of_steps_has_a_revoked_token_answered_after_the_bound() {
    for all in [OTHERS, EVICTED, OWN, REWRITTEN, OWN_AFTER, OWN_BEFORE, AHEAD, FAR_AHEAD] {
        let (lie, states) = look_for_a_lie(RULES, all);
        assert_eq!(lie, None);
        assert!(states > 1_000, "{all:?}: {states}");
    }
}

#[test]
fn without_the_check_of_the_slots_one_has() {
    let rules = Rules { checks_slots: false, ..RULES };
    for all in [OTHERS, OWN, OWN_AFTER] {
        assert!(look_for_a_lie(rules, all).0.is_some(), "{all:?}");
    }
}

#[test]
fn without_the_check_of_the_era_one_has() {
    let rules = Rules { checks_era: false, ..RULES };
    for all in [OWN_AFTER, OWN_BEFORE, AHEAD] {
        assert!(look_for_a_lie(rules, all).0.is_some(), "{all:?}");
    }
}

#[test]
fn with_the_era_looked_at_before_the_slots_one_has() {
    let rules = Rules { looks_at_the_era_last: false, ..RULES };
    assert!(look_for_a_lie(rules, OWN_AFTER).0.is_some());
}

#[test]
fn with_the_slots_cleared_before_the_era_ends_one_has() {
    let rules = Rules { ends_the_era_first: false, ..RULES };
    assert!(look_for_a_lie(rules, OWN_AFTER).0.is_some());
}

#[test]
fn without_the_instant_before_the_question_one_has() {
    let rules = Rules { confirms_from_before: false, ..RULES };
    assert!(look_for_a_lie(rules, OTHERS).0.is_some());
}

#[test]
fn without_word_before_the_commit_one_has() {
    let rules = Rules { tells_before_commit: false, ..RULES };
    assert!(look_for_a_lie(rules, OWN).0.is_some());
}

#[test]
fn without_word_again_after_a_rewrite_one_has() {
    let rules = Rules { tells_again: false, ..RULES };
    assert!(look_for_a_lie(rules, OWN_AFTER).0.is_some());
}

#[test]
fn without_a_look_back_at_what_was_ahead_one_has() {
    let rules = Rules { compares_what_is_ahead: false, ..RULES };
    assert!(look_for_a_lie(rules, AHEAD).0.is_some());
    let rules = Rules { waits_for_what_is_ahead: false, ..RULES };
    assert!(look_for_a_lie(rules, FAR_AHEAD).0.is_some());
}
