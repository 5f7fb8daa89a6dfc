//! What is read from the store, and kept.

use std::{sync::Arc, time::Duration};

use super::{
    Event, Verifier,
    entry::{Entry, Member, Members},
    history::ReadAt,
    key::Membership,
    reader::{Lasts, Read},
};
use crate::{
    clock::Uptime,
    domain::{Requirement, Revision, TokenRef},
    error::Error,
    hashing::Source,
    keeping::{cache::second, flights::Begun, key::Key},
    store::{StoreError, Workspaces},
};

/// How long something is kept whose proof left something to be written.
const BRIEFLY: Duration = Duration::from_secs(5);

/// What a read of the store gave, and is kept.
pub(super) struct Filled {
    pub(super) found: Option<(Arc<Entry>, Members)>,
    pub(super) head: Revision,
    pub(super) asked_at: Uptime,
}

impl Verifier {
    /// What the store says of a token, by a read that began no earlier than `since`;
    /// it is kept.
    pub(super) async fn fill(
        self: &Arc<Self>,
        token: &TokenRef<'_>,
        requirement: &Requirement<'_>,
        source: Source,
        since: Begun,
    ) -> Result<Arc<Filled>, Error> {
        let [required, askers] =
            [requirement.workspace_id, requirement.askers_workspace_id].map(|id| id.unwrap_or(""));
        let flight =
            self.keys.of(&[token.expose(), token.uuid().unwrap_or_default(), required, askers]);
        let mut is_joined = true;
        let read = || {
            is_joined = false;
            let verifier = Arc::clone(self);
            let key = self.keys.of_token(token);
            let token = token.to_token();
            let required = requirement.workspace_id.map(ToOwned::to_owned);
            let askers = requirement.askers_workspace_id.map(ToOwned::to_owned);
            async move {
                let workspaces =
                    Workspaces { required: required.as_deref(), askers: askers.as_deref() };
                let (era, asked_at) = (verifier.history.era(), verifier.clock.uptime());
                let applied = verifier.history.applied().revision;
                let reader = &verifier.reader;
                if reader.store.has_replica()
                    && let Some(read) = reader.read_replica(&token, workspaces).await?
                    && verifier.holds(&read, workspaces, era)
                {
                    return Ok(verifier.keep(key, &read, workspaces, era, asked_at));
                }
                let read = reader.read(&token, workspaces, &source).await?;
                verifier.not_before(applied, read.head)?;
                Ok(verifier.keep(key, &read, workspaces, era, asked_at))
            }
        };
        let now = Begun { at: self.clock.uptime(), known: self.history.known() };
        let landed = self.flights.join(flight, since, now, read).await;
        self.happened(if is_joined { Event::Joined } else { Event::Read });
        landed.map_err(|error| error.again())
    }

    /// What is read at the primary is no older than what was known before, or another server
    /// is the primary by now. What is of another history is the follower's to judge.
    pub(super) fn not_before(&self, applied: Revision, head: Revision) -> Result<(), StoreError> {
        let applied = applied.number.min(self.history.applied().revision.number);
        if head.number < applied && self.history.knows(head) != Some(false) {
            return Err(StoreError::Unavailable("an older state was read than is known".into()));
        }
        Ok(())
    }

    /// Whether what a replica gave is of this history and nothing that it depends on
    /// was changed since.
    fn holds(&self, read: &Read, workspaces: Workspaces<'_>, era: u32) -> bool {
        let at = ReadAt { revision: read.head.number, era };
        self.history.knows(read.head) == Some(true)
            && read.found.as_ref().is_some_and(|found| {
                let organization_id = found.required_organization_id.as_deref();
                let required = workspaces.required.is_none_or(|required| {
                    let depends = self.history.on_membership(found, required, organization_id);
                    self.history.holds(at, depends)
                });
                required && self.history.holds(at, self.history.on_credential(found))
            })
    }

    pub(super) fn keep(
        &self,
        key: Key,
        read: &Read,
        workspaces: Workspaces<'_>,
        era: u32,
        asked_at: Uptime,
    ) -> Filled {
        let at = ReadAt { revision: read.head.number, era };
        let lasts = if self.history.meet(read.head) { read.lasts } else { Lasts::Never };
        let Some(found) = &read.found else {
            if lasts == Lasts::Long {
                self.kept.unknown.keep(key, at, asked_at);
                self.happened(Event::UnknownKept);
            }
            return Filled { found: None, head: read.head, asked_at };
        };
        let depends = self.history.on_credential(found);
        let until = match lasts {
            Lasts::Long => None,
            Lasts::Briefly => Some(Uptime(asked_at.0 + BRIEFLY)),
            Lasts::Never => Some(asked_at),
        };
        let entry = Entry::of(found, (self.encode)(found), at, depends, until);
        let members =
            Members { of_required: found.member_of_required, of_askers: found.member_of_askers };
        if lasts != Lasts::Never {
            let second = second(asked_at);
            if !entry.is_bound() {
                let organization_id = found.required_organization_id.as_deref();
                let asked = [
                    (Membership::Serves, workspaces.required, organization_id, members.of_required),
                    (Membership::IsKnown, workspaces.askers, None, members.of_askers),
                ];
                for (asked, workspace_id, organization_id, is_member) in asked {
                    let Some(workspace_id) = workspace_id else { continue };
                    let depends = self.history.on_membership(found, workspace_id, organization_id);
                    let member = Member { is_member, read: at, depends, used: 0.into() };
                    let key = self.keys.of_member(key, asked, workspace_id);
                    if self.kept.members.keep(key, member, second) {
                        self.sweep();
                    }
                }
            }
            if self.kept.entries.keep(key, entry.clone(), second) {
                self.sweep();
            }
        }
        Filled { found: Some((Arc::new(entry), members)), head: read.head, asked_at }
    }

    /// Makes room, on a thread of its own.
    fn sweep(&self) {
        let (kept, history) = (Arc::clone(&self.kept), Arc::clone(&self.history));
        let (counters, now) = (Arc::clone(&self.counters), self.clock.uptime());
        tokio::task::spawn_blocking(move || {
            let swept = kept.entries.sweep(|entry| entry.holds(&history, now))
                + kept.members.sweep(|member| history.holds(member.read, member.depends));
            counters.happened(Event::Swept, swept);
        });
    }
}
