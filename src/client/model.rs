//! Every order in which a question, a revocation, what is watched and a verification can
//! take their steps, over the real [`News`]: none of them answers for a token longer
//! after its revocation than it may.
//!
//! An order is replayed from its start; what was reached by another order already is
//! not gone into again.

use std::collections::HashSet;

use super::{
    Identity, Kind,
    news::{News, Position, Rests},
};
use crate::{clock::Uptime, domain::Touched, keeping::slots::Slots};

/// How old what is known may be, in the model's time.
const MAX_STALENESS: u64 = 10;

/// By what the model goes, so that it can be seen that it needs each of it.
#[derive(Clone, Copy)]
struct Rules {
    /// What is kept is served only if nothing was received that touches it.
    checks_slots: bool,
    /// What was received is noted before the question is sent, not when it is answered.
    notes_before: bool,
    /// What is confirmed, is so as of the instant before the ping was sent.
    confirms_from_before: bool,
    /// It is, after what came before the pong is in the slots.
    confirms_last: bool,
    /// When that was, is looked at before what is kept.
    looks_at_it_first: bool,
    /// What was confirmed of a history that is gone is forgotten.
    starts_over_unconfirmed: bool,
}

const RULES: Rules = Rules {
    checks_slots: true,
    notes_before: true,
    confirms_from_before: true,
    confirms_last: true,
    looks_at_it_first: true,
    starts_over_unconfirmed: true,
};

/// Who takes steps, one at a time, and so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Who {
    /// Revokes the token.
    Other,
    /// Has the watcher start over, at another server, which knows only of what is older
    /// than the bound, as does whoever is asked from then on.
    Lagging,
    /// Asks, and keeps what was answered.
    Asker,
    /// Pings so often.
    Watcher(usize),
    Verifier,
    Time(usize),
}

/// How many steps a ping has.
const PING: usize = 4;

impl Who {
    fn steps(self) -> usize {
        match self {
            Self::Other | Self::Lagging => 1,
            Self::Asker | Self::Verifier => 3,
            Self::Watcher(pings) => pings * PING,
            Self::Time(steps) => steps,
        }
    }
}

/// Everything, as of one step.
struct World {
    rules: Rules,
    taken: Vec<(Who, usize)>,
    now: u64,
    news: News,
    identity: Identity,
    /// When whoever revoked the token was told that it is done.
    revoked_at: Option<u64>,
    lags: bool,
    /// What the asker noted, and whether it was told that the token is good.
    noted: Option<Position>,
    told: Option<bool>,
    kept: Option<Rests>,
    /// When the last ping was sent, and whether the server told of the revocation before
    /// its pong.
    sent_at: u64,
    tells: bool,
    /// Whether it was told of already.
    has_told: bool,
    /// When the verification began, what it found kept, and whether that was new enough.
    begun: u64,
    found: Option<Rests>,
    is_fresh: bool,
    lied: bool,
}

fn up(seconds: u64) -> Uptime {
    Uptime(std::time::Duration::from_secs(seconds))
}

impl World {
    fn new(rules: Rules) -> Self {
        let news = News::with(Slots::with(4));
        news.progress("r1");
        news.confirm(up(100), 0);
        let identity = Identity {
            token_id: "token".to_owned(),
            kind: Kind::PersonalAccessToken,
            user_id: "user".to_owned(),
            user_external_id: None,
            organization_id: None,
            organization_external_id: None,
            workspace_id: None,
            workspace_external_id: None,
            scopes: Vec::new(),
            expires_at: None,
        };
        Self {
            rules,
            taken: Vec::new(),
            now: 100,
            news,
            identity,
            revoked_at: None,
            lags: false,
            noted: None,
            told: None,
            kept: None,
            sent_at: 0,
            tells: false,
            has_told: false,
            begun: 0,
            found: None,
            is_fresh: false,
            lied: false,
        }
    }

    /// Whether a server that is asked now says that the token is good.
    fn is_good(&self) -> bool {
        match self.revoked_at {
            None => true,
            Some(revoked_at) => self.lags && revoked_at + MAX_STALENESS >= self.now,
        }
    }

    fn step(&mut self, who: Who, number: usize) {
        self.taken.push((who, number));
        match who {
            Who::Other => self.revoked_at = Some(self.now),
            Who::Time(_) => self.now += 6,
            Who::Lagging => {
                self.lags = true;
                self.has_told = false;
                let confirmed_at = self.news.confirmed_at();
                self.news.start_over(Some("r0".to_owned()));
                if let (false, Some(at)) = (self.rules.starts_over_unconfirmed, confirmed_at) {
                    self.news.confirm(at, 0);
                }
            }
            Who::Asker => match number {
                0 => self.noted = Some(Position::clone(&self.news.position())),
                1 => self.told = Some(self.is_good()),
                _ => {
                    let noted = if self.rules.notes_before {
                        self.noted.clone()
                    } else {
                        Some(Position::clone(&self.news.position()))
                    };
                    if let (Some(noted), Some(true)) = (noted, self.told) {
                        self.kept = Some(self.news.rests(&noted, &self.identity, None));
                    }
                }
            },
            Who::Watcher(_) => self.watch(number % PING),
            Who::Verifier => self.verify(number),
        }
    }

    fn watch(&mut self, step: usize) {
        match step {
            0 => self.sent_at = self.now,
            // A server that lags says how old what it knows is.
            1 => {
                self.tells = !self.is_good() && !self.has_told;
                self.has_told |= self.tells;
                if self.lags {
                    self.sent_at = self.sent_at.saturating_sub(MAX_STALENESS);
                }
            }
            2 if self.rules.confirms_last => self.receive(),
            2 => self.confirm(),
            _ if self.rules.confirms_last => self.confirm(),
            _ => self.receive(),
        }
    }

    fn receive(&self) {
        if self.tells {
            self.news.change(&[Touched::Credential("token".to_owned())], "r2".to_owned());
        }
    }

    fn confirm(&self) {
        let at = if self.rules.confirms_from_before { self.sent_at } else { self.now };
        self.news.confirm(up(at), 0);
    }

    /// Begins and looks whether what is confirmed is new enough, takes what is kept, and
    /// looks whether that holds; or the first look comes last.
    fn verify(&mut self, step: usize) {
        let bound = std::time::Duration::from_secs(MAX_STALENESS);
        match (step, self.rules.looks_at_it_first) {
            (0, _) => {
                self.begun = self.now;
                self.is_fresh = self.news.is_within(bound, up(self.begun));
            }
            (1, true) => self.found = self.kept,
            (1, false) => self.found = self.kept.filter(|rests| self.holds(*rests)),
            (_, true) => {
                let answers = self.is_fresh && self.found.is_some_and(|rests| self.holds(rests));
                self.lied = answers && self.must_know();
            }
            (_, false) => {
                let is_fresh = self.news.is_within(bound, up(self.begun));
                self.lied = is_fresh && self.found.is_some() && self.must_know();
            }
        }
    }

    fn holds(&self, rests: Rests) -> bool {
        !self.rules.checks_slots || self.news.holds(rests)
    }

    /// Whether the verification that began then must know of the revocation.
    fn must_know(&self) -> bool {
        self.revoked_at.is_some_and(|at| self.begun > at + MAX_STALENESS)
    }

    /// Whether the next step may be taken now.
    fn may(&self, who: Who) -> bool {
        // It begins with a stream of its own: no ping is under way on it.
        let pings = |(who, _): &&(Who, usize)| matches!(who, Who::Watcher(_));
        who != Who::Lagging || self.taken.iter().filter(pings).count() % PING == 0
    }

    /// All that what comes next can depend on.
    fn state(&self) -> impl Eq + std::hash::Hash + use<> {
        let holds: Vec<bool> = (0..4)
            .map(|number| {
                let position = Position { number, revision: None };
                self.news.holds(self.news.rests(&position, &self.identity, None))
            })
            .collect();
        let mut taken = self.taken.clone();
        taken.sort_unstable();
        (
            (taken, self.now, self.revoked_at, holds, self.news.position().number),
            (self.news.confirmed_at().map(Uptime::as_nanos), self.told, self.tells),
            (self.noted.as_ref().map(|noted| noted.number), self.kept.map(|kept| kept.number)),
            (self.found.map(|found| found.number), self.begun, self.is_fresh, self.sent_at),
            (self.has_told, self.lied),
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
            if number < who.steps() && world.may(*who) {
                paths.push(path.iter().copied().chain([(*who, number)]).collect());
            }
        }
    }
    (None, seen.len())
}

const WATCHED: &[Who] = &[Who::Other, Who::Asker, Who::Watcher(1), Who::Verifier, Who::Time(2)];
/// What was watched is of another history, and begins anew.
const RESTARTED: &[Who] =
    &[Who::Other, Who::Lagging, Who::Asker, Who::Watcher(1), Who::Verifier, Who::Time(2)];

#[test]
fn no_order_of_steps_has_a_revoked_token_answered_after_the_bound() {
    for all in [WATCHED, RESTARTED] {
        let (lie, states) = look_for_a_lie(RULES, all);
        assert_eq!(lie, None);
        assert!(states > 1_000, "{all:?}: {states}");
    }
}

#[test]
fn without_one_of_the_rules_one_has() {
    let without = [
        Rules { checks_slots: false, ..RULES },
        Rules { notes_before: false, ..RULES },
        Rules { confirms_from_before: false, ..RULES },
        Rules { confirms_last: false, ..RULES },
        Rules { looks_at_it_first: false, ..RULES },
    ];
    for (number, rules) in without.into_iter().enumerate() {
        assert!(look_for_a_lie(rules, WATCHED).0.is_some(), "{number}");
    }
    let rules = Rules { starts_over_unconfirmed: false, ..RULES };
    assert!(look_for_a_lie(rules, RESTARTED).0.is_some());
}
