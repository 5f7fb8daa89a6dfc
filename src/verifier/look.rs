//! A look at what is kept: whatever it answers, it answers at once.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::Guard;
use papaya::LocalGuard;

use super::{
    Asker, Verifier,
    entry::{Entry, Members},
    history::Applied,
    key::Membership,
};
use crate::{
    clock::Uptime,
    domain::{Reason, Requirement, Revision, Timestamp, TokenRef, Verdict},
    keeping::{cache::second, key::Key},
};

/// What is kept, as of one instant. It asks neither the store nor anybody to wait.
pub struct Look<'v> {
    verifier: &'v Verifier,
    guard: LocalGuard<'v>,
    applied: Guard<Arc<Applied>>,
    uptime: Uptime,
    second: u32,
    now: Timestamp,
    trusts_unknown: bool,
}

/// What is known of a presented text.
#[derive(Debug)]
pub enum Outcome<'l> {
    /// It may be used.
    Active(&'l Entry),
    /// Its secret is proved, but it may not be used.
    Refused(Reason, &'l Entry),
    /// It proves nothing that the asker may know of.
    Unknown,
    /// It is no token.
    Malformed,
}

impl Verifier {
    /// A look at what is kept, if that is new enough for who asks for nothing else.
    #[must_use]
    pub fn look(&self) -> Option<Look<'_>> {
        let begun = self.clock.uptime();
        // What is confirmed is looked at before what is kept: it is in the slots.
        self.follower
            .is_within(self.policy.max_staleness, begun)
            .then(|| Look::at(self, begun, true))
    }
}

impl Verifier {
    /// The same for somebody who may have been let in while the store could not be asked,
    /// and then has to be asked about anew.
    #[must_use]
    pub fn look_for(&self, asker: &Asker) -> Option<Look<'_>> {
        if asker.is_stale { None } else { self.look() }
    }
}

impl<'v> Look<'v> {
    pub(super) fn new(verifier: &'v Verifier, trusts_unknown: bool) -> Self {
        Self::at(verifier, verifier.clock.uptime(), trusts_unknown)
    }

    fn at(verifier: &'v Verifier, uptime: Uptime, trusts_unknown: bool) -> Self {
        Self {
            verifier,
            guard: verifier.kept.entries.guard(),
            applied: verifier.history.applied(),
            uptime,
            second: second(uptime),
            now: verifier.clock.now(),
            trusts_unknown,
        }
    }

    /// The newest change that it knows of.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.applied.revision
    }

    /// The same as it stands in an answer.
    #[must_use]
    pub fn revision_text(&self) -> &str {
        &self.applied.text
    }

    /// The instant by which it judges.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// How long an answer may be reused.
    #[must_use]
    pub fn max_age(&self, entry: &Entry) -> Duration {
        self.verifier.max_age(entry, self.now)
    }

    /// Who presents this token and may use it from `ip`; `None`: nobody, or it is not
    /// known from what is kept.
    #[must_use]
    pub fn asker(&self, presented: &str, ip: Option<IpAddr>) -> Option<&Entry> {
        let requirement = Requirement { client_ip: ip, ..Requirement::default() };
        match self.outcome(presented, &requirement)? {
            Outcome::Active(entry) => Some(entry),
            Outcome::Refused(..) | Outcome::Unknown | Outcome::Malformed => None,
        }
    }

    /// Counts this as an answer that was given.
    pub fn count(&self, outcome: &Outcome<'_>) {
        self.verifier.counters.looked(outcome);
    }

    /// Whether `presented` may be used for what is required; `None`: the store has to
    /// be asked.
    #[must_use]
    pub fn outcome(&self, presented: &str, requirement: &Requirement<'_>) -> Option<Outcome<'_>> {
        match self.verifier.parse(presented) {
            Some(token) => self.answer_of(&token, requirement),
            // It may be a system root token, which has no shape.
            None if self.verifier.roots.verifies => None,
            None => Some(Outcome::Malformed),
        }
    }

    pub(super) fn answer_of(
        &self,
        token: &TokenRef<'_>,
        requirement: &Requirement<'_>,
    ) -> Option<Outcome<'_>> {
        let Verifier { kept, history, keys, .. } = self.verifier;
        let key = keys.of_token(token);
        let found = kept
            .entries
            .get(&key, self.second, &self.guard)
            .filter(|entry| entry.holds(history, self.uptime));
        let Some(entry) = found else {
            let unknown = kept.unknown.holds(&key, self.uptime)?;
            let is_known = self.trusts_unknown && unknown.era == history.era();
            return is_known.then_some(Outcome::Unknown);
        };
        let members = self.members(key, entry, requirement)?;
        Some(match entry.verdict(members, requirement, self.now) {
            Verdict::Active => {
                self.verifier.note(entry, requirement, self.now);
                Outcome::Active(entry)
            }
            Verdict::Refused(Reason::NotFound) => Outcome::Unknown,
            Verdict::Refused(reason) => Outcome::Refused(reason, entry),
        })
    }

    /// Whether the owner is a member of what the question names, where it matters.
    fn members(&self, key: Key, entry: &Entry, requirement: &Requirement<'_>) -> Option<Members> {
        if entry.is_bound() {
            return Some(Members::default());
        }
        let is_member = |asked, workspace_id: Option<&str>| {
            let Some(workspace_id) = workspace_id else { return Some(false) };
            let Verifier { kept, history, keys, .. } = self.verifier;
            let key = keys.of_member(key, asked, workspace_id);
            let guard = kept.members.guard();
            let member = kept.members.get(&key, self.second, &guard)?;
            history.holds(member.read, member.depends).then_some(member.is_member)
        };
        Some(Members {
            of_required: is_member(Membership::Serves, requirement.workspace_id)?,
            of_askers: is_member(Membership::IsKnown, requirement.askers_workspace_id)?,
        })
    }
}
