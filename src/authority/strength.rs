//! No token makes or gets a stronger one: what a caller may pass on.

use super::{Authority, Expiry, reach::Owner};
use crate::{
    caller::Caller,
    domain::{
        AllowedIps, ContainerName, ControlScope, Credential, Kind, Scope, ScopeSet, Timestamp,
        UserRef,
    },
    error::Error,
    rights::{self, Standing},
    store::StoreError,
};

impl Authority {
    /// The scopes that the caller could give to a token now, with their
    /// meanings: the catalogue's, as far as its own token covers them, then
    /// control scopes. Who only issues tokens for others gives any of the
    /// catalogue. With `workspace`, to a token bound to that one.
    ///
    /// # Errors
    ///
    /// The caller may not know of the workspace, or the store failed.
    pub async fn available_scopes(
        &self,
        caller: &Caller,
        workspace: Option<&ContainerName>,
    ) -> Result<Vec<(Scope, String)>, Error> {
        let standing = match (workspace, caller.workspace_id()) {
            (Some(name), _) => {
                Some(self.standing(caller, &rights::WORKSPACE_LIST_PATS, name).await?)
            }
            (None, Some(bound)) => self.standing_by_id(caller, bound).await?,
            (None, None) => None,
        };
        let standing = standing.as_ref();
        if workspace.is_none() {
            rights::LIST_SCOPES.own(caller)?;
        }
        let own = rights::CREATE_PAT.own(caller).is_ok();
        let others = rights::CREATE_PAT.others(caller).is_ok()
            || standing
                .is_some_and(|it| rights::WORKSPACE_CREATE_PAT.others_in(caller, it).is_ok());
        let issues = others && caller.issues();
        Ok(if own || issues { self.grantable(caller, standing, own, issues) } else { Vec::new() })
    }

    /// What the caller may give: of the catalogue what its own token covers, or all of
    /// it if it `issues`; and, if it `makes_own`, the control scopes that it may pass on.
    fn grantable(
        &self,
        caller: &Caller,
        standing: Option<&Standing>,
        makes_own: bool,
        issues: bool,
    ) -> Vec<(Scope, String)> {
        let own = caller.scopes();
        let listed = |scope: &Scope| self.policy.catalogue.0.iter().any(|it| it.scope == *scope);
        let mut available: Vec<(Scope, String)> = Vec::new();
        for entry in &self.policy.catalogue.0 {
            if issues || caller.covers(&entry.scope) {
                available.push((entry.scope.clone(), entry.description.clone()));
            } else {
                // Each once: under an entry of its own, else under the first that covers it.
                let narrower = own.iter().filter(|scope| entry.scope.covers(scope));
                for scope in narrower.filter(|scope| !listed(scope)) {
                    if available.iter().all(|(before, _)| before != scope) {
                        available.push((scope.clone(), entry.description.clone()));
                    }
                }
            }
        }
        let control = ControlScope::ALL
            .into_iter()
            .filter(|control| makes_own && caller.allows(*control))
            .filter(|control| may_grant(caller, standing, *control))
            .map(|control| (control.to_scope(), control.meaning().to_owned()));
        available.extend(control);
        available
    }

    /// Whether the caller could have issued this token to its user now.
    pub(super) async fn may_issue_again(
        &self,
        caller: &Caller,
        credential: &Credential,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let longest = self.longest(now);
        let is_issued = caller.issues()
            && credential.user_id != *caller.user_id()
            && parsed(credential).all(|scope| scope.control().is_none())
            && longest.is_none_or(|longest| credential.expires_at.is_some_and(|at| at <= longest));
        if !is_issued {
            return Ok(false);
        }
        let owner = self.store.user(&UserRef::Id(credential.user_id.clone())).await?;
        Ok(owner.is_some_and(|owner| !owner.is_admin))
    }

    pub(super) fn check_scopes_known(&self, scopes: &ScopeSet) -> Result<(), Error> {
        match scopes.iter().find(|scope| !self.policy.catalogue.admits(scope)) {
            Some(unknown) => Err(Error::invalid(
                "scopes",
                format!("holds {unknown}, which is not in the catalogue"),
            )),
            None => Ok(()),
        }
    }

    /// The latest end of a token that is made at `now`.
    fn longest(&self, now: Timestamp) -> Option<Timestamp> {
        self.policy.pats.max_lifetime.map(|lifetime| now.saturating_add(lifetime))
    }

    /// When a token ends that is made at `now`, not after `limit`.
    pub(super) fn expires_at(
        &self,
        asked: Option<Expiry>,
        limit: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let longest = self.longest(now);
        let (field, asked) = match asked {
            None => {
                let default =
                    self.policy.pats.default_lifetime.map(|lifetime| now.saturating_add(lifetime));
                return Ok([default, longest, limit].into_iter().flatten().min());
            }
            Some(Expiry::At(at)) => ("expires_at", at),
            Some(Expiry::After(lifetime)) => ("ttl", now.saturating_add(lifetime)),
        };
        if asked <= now {
            return Err(Error::invalid(field, "must be in the future"));
        }
        if longest.is_some_and(|longest| asked > longest) {
            return Err(Error::invalid(field, "is beyond the greatest lifetime"));
        }
        if limit.is_some_and(|limit| asked > limit) {
            return Err(Error::ExceedsCaller { field });
        }
        Ok(Some(asked))
    }
}

impl Owner {
    /// Whether the caller makes a token with these scopes as one who issues tokens:
    /// for another user who is no administrator, and of the catalogue alone.
    pub(super) fn is_issued_to<'a>(
        &self,
        caller: &Caller,
        mut scopes: impl Iterator<Item = &'a Scope>,
    ) -> bool {
        caller.issues()
            && self.is_foreign
            && !self.is_admin
            && scopes.all(|scope| scope.control().is_none())
    }
}

pub(super) fn check_scopes_held(
    caller: &Caller,
    standing: Option<&Standing>,
    scopes: &ScopeSet,
) -> Result<(), Error> {
    let held = scopes.iter().all(|scope| {
        caller.covers(scope)
            && scope.control().is_none_or(|control| may_grant(caller, standing, control))
    });
    if held { Ok(()) } else { Err(Error::ExceedsCaller { field: "scopes" }) }
}

/// Whether a control scope is granted, and not only passed on: to verify and to
/// issue, since no other rule limits who holds it.
pub(super) fn is_granted(control: ControlScope) -> bool {
    match control {
        ControlScope::VerifyTokens | ControlScope::IssueTokens => true,
        ControlScope::AdminAll
        | ControlScope::ReadTokens
        | ControlScope::WriteTokens
        | ControlScope::ReadDirectory
        | ControlScope::WriteDirectory
        | ControlScope::ReadAudit => false,
    }
}

/// Whether a caller may give a control scope that its own token covers to a token
/// that is bound to where it has this standing, or to none.
pub(super) fn may_grant(
    caller: &Caller,
    standing: Option<&Standing>,
    control: ControlScope,
) -> bool {
    match control {
        _ if caller.is_administrator() => true,
        control if is_granted(control) => standing.is_some_and(Standing::manages),
        ControlScope::AdminAll => false,
        ControlScope::VerifyTokens
        | ControlScope::IssueTokens
        | ControlScope::ReadTokens
        | ControlScope::WriteTokens
        | ControlScope::ReadDirectory
        | ControlScope::WriteDirectory
        | ControlScope::ReadAudit => true,
    }
}

/// The networks asked for, or the caller's where none are.
pub(super) fn within(callers: &AllowedIps, asked: AllowedIps) -> Result<AllowedIps, Error> {
    if asked == AllowedIps::default() {
        Ok(callers.clone())
    } else if callers.cover(&asked) {
        Ok(asked)
    } else {
        Err(Error::ExceedsCaller { field: "allowed_ips" })
    }
}

/// Nobody gets a secret of a token that can do more than the caller's own.
pub(super) fn check_covered(caller: &Caller, credential: &Credential) -> Result<(), Error> {
    let own = &caller.found.credential;
    let held = match credential.kind() {
        Kind::PersonalAccessToken => {
            caller.may_make(credential.kind())
                && parsed(credential).all(|scope| match scope.control() {
                    // What only counts by its name is not in `admin:all`.
                    Some(control) if is_granted(control) && !caller.is_administrator() => {
                        caller.is_given(control)
                    }
                    Some(_) | None => caller.covers(&scope),
                })
        }
        Kind::ApiClientAuthorization => caller.covers_routes(&credential.scopes),
        Kind::SystemRoot => false,
    };
    let outlives = caller
        .found
        .expires_at()
        .is_some_and(|end| credential.expires_at.is_none_or(|expires_at| expires_at > end));
    let field = match () {
        () if !held => "scopes",
        () if !own.allowed_ips.cover(&credential.allowed_ips) => "allowed_ips",
        () if outlives => "expires_at",
        () => return Ok(()),
    };
    Err(Error::ExceedsCaller { field })
}

/// The scopes of a personal access token.
pub(super) fn parsed(credential: &Credential) -> impl Iterator<Item = Scope> {
    credential.scopes.iter().filter_map(|text| text.parse().ok())
}
