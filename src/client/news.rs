//! What the authority told of changes, and how new that is.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;

use crate::{
    clock::{Onward, Uptime, micros},
    domain::{Timestamp, Touched},
    keeping::slots::{Depends, DependsOn, Slots},
};

use super::{
    Identity,
    received::{Mark, Received},
};

/// Changes, numbered in the order in which they were received, and when it was last
/// known that there are no others.
///
/// What is written is written in this order: slots, then the position, then when that was
/// confirmed. Who is about to serve looks in the opposite one, and who is about to ask
/// notes the position first.
pub(super) struct News {
    slots: Slots,
    received: Received,
    /// The last change that touched any organization.
    organizations: AtomicI64,
    position: ArcSwap<Position>,
    /// Held by who changes any of it.
    writing: Mutex<()>,
    confirmed_at: AtomicU64,
    is_watching: AtomicBool,
    is_timed: AtomicBool,
    time: Onward,
    /// Counts as whom this service presented itself. What is watched as another is not all
    /// that this one has to know.
    caller: AtomicU64,
}

/// Up to where changes were received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    /// How many were. This client's own count, and no revision.
    pub(super) number: i64,
    /// The last revision that was received; `None`: none yet, so what is answered can't be
    /// kept.
    pub(super) revision: Option<String>,
}

/// On what a kept answer depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rests {
    /// The number of the last change that was received before it was asked for.
    pub(super) number: i64,
    on: Depends,
    on_any_organization: bool,
}

impl News {
    pub(super) fn new() -> Self {
        Self::with(Slots::new())
    }

    pub(super) fn with(slots: Slots) -> Self {
        Self {
            slots,
            received: Received::default(),
            organizations: AtomicI64::new(0),
            position: ArcSwap::from_pointee(Position { number: 0, revision: None }),
            writing: Mutex::default(),
            confirmed_at: AtomicU64::new(0),
            is_watching: AtomicBool::new(false),
            is_timed: AtomicBool::new(false),
            time: Onward::new(0),
            caller: AtomicU64::new(0),
        }
    }

    /// As whom this service presents itself.
    pub(super) fn caller(&self) -> u64 {
        self.caller.load(Ordering::Acquire)
    }

    /// It presents itself as another from now on: what was answered to the one before is not
    /// this one's to know.
    pub(super) fn next_caller(&self) {
        {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.caller.fetch_add(1, Ordering::AcqRel);
        }
        self.start_over(None);
    }

    /// Up to where changes were received: to be noted before a question is sent.
    pub(super) fn position(&self) -> Arc<Position> {
        self.position.load_full()
    }

    /// When it was last known that there are no other changes; `None`: never yet.
    pub(super) fn confirmed_at(&self) -> Option<Uptime> {
        match self.confirmed_at.load(Ordering::Acquire) {
            0 => None,
            nanos => Some(Uptime::from_nanos(nanos)),
        }
    }

    /// Whether that was at most so long before `at`.
    pub(super) fn is_within(&self, age: Duration, at: Uptime) -> bool {
        self.confirmed_at().is_some_and(|confirmed| at.since(confirmed) <= age)
    }

    /// Whether changes are being received.
    pub(super) fn is_watching(&self) -> bool {
        self.is_watching.load(Ordering::Acquire)
    }

    pub(super) fn set_watching(&self, is_watching: bool) {
        self.is_watching.store(is_watching, Ordering::Release);
    }

    /// On what an answer depends that was asked for at this position, for a workspace
    /// if one was named.
    pub(super) fn rests(
        &self,
        position: &Position,
        identity: &Identity,
        workspace_id: Option<&str>,
    ) -> Rests {
        let bound = identity.workspace_id.as_deref();
        let on = self.slots.of(DependsOn {
            credential: Some(&identity.token_id),
            user: Some(&identity.user_id),
            workspace: bound.or(workspace_id),
            organization: identity.organization_id.as_deref(),
        });
        // Of which organization the workspace is that was named, the answer does not say.
        let on_any_organization = bound.is_none() && workspace_id.is_some();
        Rests { number: position.number, on, on_any_organization }
    }

    /// Whether nothing was received that touches it.
    pub(super) fn holds(&self, rests: Rests) -> bool {
        self.slots.is_untouched(rests.number, rests.on)
            && (!rests.on_any_organization
                || rests.number >= self.organizations.load(Ordering::Acquire))
    }

    /// A change was received.
    pub(super) fn change(&self, touched: &[Touched], revision: String) {
        self.write(touched, Some(revision));
    }

    /// These revisions came before the one that was just received, with it.
    pub(super) fn pass(&self, revisions: &[String]) {
        revisions.iter().for_each(|revision| self.received.note(revision));
    }

    /// As what a revision is remembered.
    pub(super) fn mark(&self, revision: &str) -> Mark {
        self.received.mark(revision)
    }

    /// Whether a revision was received.
    pub(super) fn has_received(&self, mark: Mark) -> bool {
        self.received.has(mark)
    }

    /// Everything up to this revision was received.
    pub(super) fn progress(&self, revision: &str) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.received.note(revision);
        let position = self.position.load();
        if position.revision.as_deref() != Some(revision) {
            let (number, revision) = (position.number, Some(revision.to_owned()));
            self.position.store(Arc::new(Position { number, revision }));
        }
    }

    /// Nothing that is kept or being asked for holds, and changes are received from this
    /// revision on, if it is known.
    pub(super) fn start_over(&self, revision: Option<String>) {
        // What was confirmed was of what is now gone.
        self.confirmed_at.store(0, Ordering::Release);
        self.received.clear();
        self.write(&[Touched::Everything], revision);
    }

    fn write(&self, touched: &[Touched], revision: Option<String>) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.position.load().number + 1;
        self.raise(touched, number);
        if let Some(revision) = &revision {
            self.received.note(revision);
        }
        self.arrive(number, revision);
    }

    pub(super) fn raise(&self, touched: &[Touched], number: i64) {
        self.slots.raise(touched, number);
        if touched.iter().any(|touched| matches!(touched, Touched::Organization(_))) {
            self.organizations.fetch_max(number, Ordering::AcqRel);
        }
    }

    pub(super) fn arrive(&self, number: i64, revision: Option<String>) {
        self.position.store(Arc::new(Position { number, revision }));
    }

    /// At `at` there were no other changes than those that were received, as this caller.
    pub(super) fn confirm(&self, at: Uptime, caller: u64) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if caller != self.caller() {
            return;
        }
        self.confirmed_at.fetch_max(at.as_nanos(), Ordering::AcqRel);
    }

    /// The authority's clock showed `now` at `sent_at` or later; it is `uptime` now.
    pub(super) fn tell_time(&self, now: Timestamp, sent_at: Uptime, uptime: Uptime) {
        self.time.set(now.as_micros().saturating_sub(micros(sent_at)), uptime);
        self.is_timed.store(true, Ordering::Release);
    }

    /// What the authority's clock shows at most, in microseconds since 1970; the greatest
    /// number while that is not known.
    pub(super) fn now(&self, uptime: Uptime) -> i64 {
        if self.is_timed.load(Ordering::Acquire) { self.time.at(uptime) } else { i64::MAX }
    }
}
