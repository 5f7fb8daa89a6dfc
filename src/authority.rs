//! Issues, lists, changes, rotates and revokes personal access tokens.

use std::{sync::Arc, time::Duration};

use crate::{
    caller::Caller,
    clock::Clock,
    domain::{
        AllowedIps, Catalogue, ClusterId, Container, ContainerKind, ContainerName, ContainerRef,
        ControlScope, Credential, CredentialId, Description, Detail, Handle, Kind, PatPrefix,
        Peppers, Revision, Scope, ScopeSet, Timestamp, Token, TokenName, UserId, UserKind, UserRef,
    },
    error::Error,
    hashing::Hasher,
    random,
    rights::{self, Denied, Right, Standing},
    store::{
        Basis, CredentialChanges, Cursor, Kept, Managed, NewCredential, NewSecret, NewUser, Reach,
        Refusal, Repeat, Rotation, Store, StoreError, Target, Viewer,
    },
};

/// What tokens are called in errors.
const TOKEN: &str = "personal access token";

/// How long a secret may stay good beside its successor.
pub const MAX_OVERLAP: Duration = Duration::from_hours(90 * 24);

/// Issues, lists, changes, rotates and revokes personal access tokens.
pub struct Authority {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    cluster_id: ClusterId,
    issuer: Arc<Issuer>,
    policy: Policy,
}

/// What the operator decided about tokens.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The scopes that applications know.
    pub catalogue: Catalogue,
    /// How long a token lives if its request does not say; `None`: for ever.
    pub default_lifetime: Option<Duration>,
    /// How long it may live; `None`: for ever.
    pub max_lifetime: Option<Duration>,
    /// How many tokens, neither revoked nor expired, one user may have.
    pub tokens_per_user: i64,
    /// How long a secret stays good beside its successor if a rotation does not say.
    pub rotation_overlap: Duration,
    /// Whether an unknown user who is named by its external id is made along with
    /// its first token.
    pub jit_users: bool,
}

/// Makes secrets and what is kept of them.
pub struct Issuer {
    /// What new tokens begin with.
    pub prefix: PatPrefix,
    /// With what they are digested.
    pub peppers: Arc<Peppers>,
    /// What makes their records.
    pub hasher: Hasher,
}

impl Issuer {
    /// A new token, and what is kept of it.
    ///
    /// # Errors
    ///
    /// Too many secrets are being hashed, or the current pepper is not loaded.
    pub async fn issue(&self, now: Timestamp) -> Result<(Token, NewSecret), Error> {
        let token = Token::from_random(&self.prefix, &random::bytes());
        let secret = self.secret(&token, now).await?;
        Ok((token, secret))
    }

    /// What is kept of a token.
    ///
    /// # Errors
    ///
    /// Too many secrets are being hashed, or the current pepper is not loaded.
    pub async fn secret(&self, token: &Token, now: Timestamp) -> Result<NewSecret, Error> {
        let pepper = self.peppers.current().ok_or(Error::NoPepper)?;
        Ok(NewSecret {
            id: random::id(now),
            digest: pepper.digest(token),
            pepper_id: pepper.id().clone(),
            record: self.hasher.record(token).await?,
            shown: token.shown().to_owned(),
        })
    }
}

/// A request for a new token.
#[derive(Debug)]
pub struct NewToken {
    /// What its owner calls it.
    pub name: TokenName,
    /// What it is for.
    pub description: Description,
    /// What it may do.
    pub scopes: ScopeSet,
    /// The workspace to bind it to.
    pub workspace: Bound,
    /// When it ends; `None`: as the policy has it, and not after the caller's token.
    pub expiry: Option<Expiry>,
    /// Where it may be used from; none: where the caller's token may.
    pub allowed_ips: AllowedIps,
    /// Whose it will be; `None`: the caller's.
    pub user: Option<UserRef>,
    /// What makes the request repeatable.
    pub repeat: Option<Repeat>,
}

/// What a new token is to be bound to.
#[derive(Debug)]
pub enum Bound {
    /// To what the caller's token is, if that is bound.
    AsCaller,
    /// To the workspace with this id.
    To(String),
    /// To the workspace that the call is about.
    In(ContainerName),
}

/// When a token ends.
#[derive(Debug, Clone, Copy)]
pub enum Expiry {
    /// At this instant.
    At(Timestamp),
    /// So long after it was made.
    After(Duration),
}

/// A token that was made.
#[derive(Debug)]
pub struct Issued {
    /// The secret text; `None`: this repeats a request whose secret was used.
    pub token: Option<Token>,
    /// What is kept.
    pub kept: Kept,
    /// When it stands so.
    pub revision: Revision,
}

/// The user whose tokens a call is about.
struct Owner {
    id: UserId,
    is_admin: bool,
    /// Whether it is another than the caller.
    is_foreign: bool,
    /// Whether the call is for users who are no administrators.
    spares_administrators: bool,
    /// To be made along with its token.
    new: Option<NewUser>,
}

impl Authority {
    /// Over `store` of the installation `cluster_id`, by `policy`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        cluster_id: ClusterId,
        issuer: Arc<Issuer>,
        policy: Policy,
    ) -> Self {
        Self { store, clock, cluster_id, issuer, policy }
    }

    /// The present instant, by which tokens are judged.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Makes a token, never one that can do more than the caller's; but who
    /// issues tokens for others may give those any scope of the catalogue.
    ///
    /// # Errors
    ///
    /// A rule stood against it, or the store failed.
    pub async fn create(&self, caller: &Caller, new: NewToken) -> Result<Issued, Error> {
        let (right, standing) = match &new.workspace {
            Bound::In(name) => {
                let right = &rights::WORKSPACE_CREATE_PAT;
                (right, Some(self.standing(caller, right, name).await?))
            }
            Bound::AsCaller | Bound::To(_) => (&rights::CREATE_PAT, None),
        };
        let owner = self.owner(caller, right, standing.as_ref(), new.user.as_ref()).await?;
        let workspace_id = match (new.workspace, &standing, caller.workspace_id()) {
            (Bound::In(_), standing, _) => standing.as_ref().map(|it| it.container.id.clone()),
            (Bound::AsCaller, _, bound) => bound.map(ToOwned::to_owned),
            (Bound::To(asked), _, Some(bound)) if asked != bound => {
                return Err(Error::ExceedsCaller { field: "workspace_id" });
            }
            (Bound::To(asked), ..) => Some(asked),
        };
        let now = self.clock.now();
        if !caller.may_make(Kind::PersonalAccessToken) {
            return Err(Error::ExceedsCaller { field: "scopes" });
        }
        self.check_scopes_known(&new.scopes)?;
        let issues = owner.is_issued_to(caller, new.scopes.iter());
        if !issues && right.only_issues(caller) {
            return Err(Error::ExceedsCaller { field: "scopes" });
        }
        let grants = new.scopes.iter().any(|scope| scope.control().is_some_and(is_granted));
        let standing = match (standing, &workspace_id) {
            (None, Some(id)) if grants && !caller.is_administrator() => {
                self.standing_by_id(caller, id).await?
            }
            (standing, _) => standing,
        };
        if !issues {
            check_scopes_held(caller, standing.as_ref(), &new.scopes)?;
        }
        let allowed_ips = if issues {
            new.allowed_ips
        } else {
            within(&caller.found.credential.allowed_ips, new.allowed_ips)?
        };
        let limit = if issues { None } else { caller.found.expires_at() };
        let expires_at = self.expires_at(new.expiry, limit, now)?;

        let (token, secret) = self.issuer.issue(now).await?;
        let basis = if owner.is_foreign || grants { basis(standing.as_ref()) } else { Basis::Own };
        let credential = NewCredential {
            id: CredentialId(random::id(now)),
            user_id: owner.id,
            workspace_id,
            detail: Detail::PersonalAccessToken { name: new.name, description: new.description },
            scopes: new.scopes.to_texts(),
            allowed_ips: allowed_ips.to_texts(),
            expires_at,
            secret,
            quota: self.policy.tokens_per_user,
            spares_administrators: owner.spares_administrators || issues,
            new_owner: owner.new,
        };
        let actor = caller.actor(now, basis);
        let inserted = self.store.insert_credential(&credential, new.repeat.as_ref(), &actor).await;
        let (inserted, revision) = inserted.map_err(|error| match error {
            // Whether there is such a workspace is for administrators to know.
            StoreError::Refused(Refusal::NoWorkspace) if !caller.is_administrator() => {
                Error::Refused(Refusal::NotAMember)
            }
            StoreError::Refused(_)
            | StoreError::AlreadyExists(_)
            | StoreError::At(..)
            | StoreError::Unavailable(_)
            | StoreError::Failed(_) => error.into(),
        })?;
        Ok(Issued {
            token: (!inserted.already_used).then_some(token),
            kept: inserted.kept,
            revision,
        })
    }

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

    /// What the caller's own token covers and may pass on; to `issue` adds all of the
    /// catalogue, and takes nothing of what is not for its `own`.
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
            .filter(|control| makes_own && caller.covers(&control.to_scope()))
            .filter(|control| may_grant(caller, standing, *control))
            .map(|control| (control.to_scope(), control.meaning().to_owned()));
        available.extend(control);
        available
    }

    /// Tokens, newest first: a user's or, in `workspace`, everybody's that the
    /// caller may see there.
    ///
    /// # Errors
    ///
    /// The caller may not, or there is no such user, or the store failed.
    pub async fn list(
        &self,
        caller: &Caller,
        workspace: Option<&ContainerName>,
        user: Option<&UserRef>,
        with_revoked: bool,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Kept>, Error> {
        let reach = match (workspace, user) {
            (Some(name), None) => {
                self.reach(caller, &rights::WORKSPACE_LIST_PATS, Some(name)).await?.0
            }
            (Some(name), user) => {
                let right = &rights::WORKSPACE_LIST_PATS;
                let standing = self.standing(caller, right, name).await?;
                let owner = self.owner(caller, right, Some(&standing), user).await?;
                Reach { workspace_id: Some(standing.container.id), ..owner.reach() }
            }
            (None, user) => {
                let owner = self.owner(caller, &rights::LIST_PATS, None, user).await?;
                let workspace_id = caller.workspace_id().map(ToOwned::to_owned);
                Reach { workspace_id, ..owner.reach() }
            }
        };
        let kind = Kind::PersonalAccessToken;
        Ok(self.store.list_credentials(&reach, kind, with_revoked, after, limit).await?)
    }

    /// One token.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or the store failed.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Kept, Error> {
        let (reach, _) = self.reach(caller, &rights::GET_PAT, None).await?;
        self.store.credential(target(id, &reach)?).await?.ok_or(Error::NotFound(TOKEN))
    }

    /// Renames or re-describes a token, which is bound to `workspace` if that is
    /// named.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or it is revoked, or the
    /// store failed.
    pub async fn update(
        &self,
        caller: &Caller,
        workspace: Option<&ContainerName>,
        id: &str,
        changes: &CredentialChanges,
    ) -> Result<(Kept, Revision), Error> {
        let right = match workspace {
            None => &rights::UPDATE_PAT,
            Some(_) => &rights::WORKSPACE_UPDATE_PAT,
        };
        let (reach, basis) = self.reach(caller, right, workspace).await?;
        let actor = caller.actor(self.clock.now(), basis);
        self.store
            .update_credential(target(id, &reach)?, changes, &actor)
            .await?
            .ok_or(Error::NotFound(TOKEN))
    }

    /// Revokes a token for good, which is bound to `workspace` if that is named, and
    /// with `descendants` what was made with it. A token may revoke itself whatever
    /// its scopes. Done again, it changes nothing.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or the store failed; some of
    /// the descendants may be revoked then, and the token itself is.
    pub async fn revoke(
        &self,
        caller: &Caller,
        workspace: Option<&ContainerName>,
        id: &str,
        descendants: bool,
    ) -> Result<(Kept, Revision), Error> {
        let right = match workspace {
            None => &rights::REVOKE_PAT,
            Some(_) => &rights::WORKSPACE_REVOKE_PAT,
        };
        let is_itself = right.itself && caller.token_id().0 == id;
        let (reach, basis) = match workspace {
            None if is_itself && !descendants => (own(caller), Basis::Own),
            Some(name) if is_itself && !descendants && caller.workspace_id().is_some() => {
                let workspace_id = Some(self.standing(caller, right, name).await?.container.id);
                (Reach { workspace_id, ..own(caller) }, Basis::Own)
            }
            workspace => self.reach(caller, right, workspace).await?,
        };
        let actor = caller.actor(self.clock.now(), basis);
        let target = target(id, &reach)?;
        // Itself first, in a transaction of its own: it may have been used to make
        // more than one can revoke. A caller that ends itself could not go on if that
        // broke off, so it ends as many as one can at once.
        let mut revoke_descendants = descendants && is_itself;
        loop {
            let (revoked, revision) = self
                .store
                .revoke_credential(target, revoke_descendants, &actor)
                .await?
                .ok_or(Error::NotFound(TOKEN))?;
            if revoke_descendants == descendants && !revoked.more {
                return Ok((revoked.kept, revision));
            }
            revoke_descendants = descendants;
        }
    }

    /// Gives a token a new secret. The one before stays good until the new one is
    /// first used, at the longest for `overlap`.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or it is dead, or it can do more
    /// than the caller's, or the store failed.
    pub async fn rotate(
        &self,
        caller: &Caller,
        id: &str,
        overlap: Option<Duration>,
        repeat: Option<&Repeat>,
    ) -> Result<Issued, Error> {
        if overlap.is_some_and(|overlap| overlap > MAX_OVERLAP) {
            return Err(Error::invalid("overlap", "must be at most 90 days"));
        }
        let (mut reach, basis) = self.reach(caller, &rights::ROTATE_PAT, None).await?;
        let kept = self.store.credential(target(id, &reach)?).await?;
        let kept = kept.ok_or(Error::NotFound(TOKEN))?;
        let now = self.clock.now();
        if self.may_issue_again(caller, &kept.credential, now).await? {
            reach.spares_administrators = true;
        } else if kept.credential.id != *caller.token_id() {
            check_covered(caller, &kept.credential)?;
        }
        let target = target(id, &reach)?;
        let (token, secret) = self.issuer.issue(now).await?;
        let overlap = overlap.unwrap_or(self.policy.rotation_overlap);
        let (inserted, revision) = self
            .store
            .rotate_credential(
                target,
                &Rotation { secret, overlap },
                repeat,
                &caller.actor(now, basis),
            )
            .await?
            .ok_or(Error::NotFound(TOKEN))?;
        Ok(Issued {
            token: (!inserted.already_used).then_some(token),
            kept: inserted.kept,
            revision,
        })
    }

    /// Whether the caller could have issued this token to its user now.
    async fn may_issue_again(
        &self,
        caller: &Caller,
        credential: &Credential,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let longest = self.policy.max_lifetime.map(|lifetime| now.saturating_add(lifetime));
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

    /// Which tokens the caller reaches by their ids, and by what right.
    async fn reach(
        &self,
        caller: &Caller,
        right: &Right,
        workspace: Option<&ContainerName>,
    ) -> Result<(Reach, Basis), Error> {
        let standing = match workspace {
            None => None,
            Some(name) => Some(self.standing(caller, right, name).await?),
        };
        let (others, own_right) = match &standing {
            None => (right.others(caller), right.own(caller)),
            Some(standing) => (right.others_in(caller, standing), right.own_in(caller, standing)),
        };
        let workspace_id = match &standing {
            None => caller.workspace_id().map(ToOwned::to_owned),
            Some(standing) => Some(standing.container.id.clone()),
        };
        match (others, own_right) {
            (Ok(()), _) => {
                let spares_administrators = right.only_issues(caller);
                let reach = Reach { owner: None, workspace_id, spares_administrators };
                Ok((reach, basis(standing.as_ref())))
            }
            (Err(_), Ok(())) => Ok((Reach { workspace_id, ..own(caller) }, Basis::Own)),
            // Whose scopes would have to be wider is told so.
            (Err(one), Err(other)) => Err(one.max(other).into()),
        }
    }

    /// The user that a request is about, whom the caller reaches by this right.
    async fn owner(
        &self,
        caller: &Caller,
        right: &Right,
        standing: Option<&Standing>,
        named: Option<&UserRef>,
    ) -> Result<Owner, Error> {
        let Some(named) = named.filter(|named| !caller.is(named)) else {
            match standing {
                None => right.own(caller)?,
                Some(standing) => right.own_in(caller, standing)?,
            }
            return Ok(Owner {
                id: caller.user_id().clone(),
                is_admin: caller.is_administrator(),
                is_foreign: false,
                spares_administrators: false,
                new: None,
            });
        };
        match standing {
            None => right.others(caller)?,
            Some(standing) => right.others_in(caller, standing)?,
        }
        let is_create = [rights::CREATE_PAT, rights::WORKSPACE_CREATE_PAT].contains(right);
        let only_issues = right.only_issues(caller);
        let spares_administrators = only_issues || (is_create && !caller.is_administrator());
        let user = self.store.user(named).await?;
        if let Some(standing) = standing.filter(|_| !caller.is_administrator()) {
            // Who is there beside the members is not for their managers to know.
            let (kind, id) = (standing.container.kind(), &standing.container.id);
            let membership = match &user {
                None => None,
                Some(user) => self.store.membership(&user.id, kind, id).await?,
            };
            if membership.is_none() {
                let not_a_member = Error::Refused(Refusal::NotAMember);
                return Err(if is_create { not_a_member } else { Error::NotFound("user") });
            }
        }
        match (user, named) {
            (Some(user), _) if user.is_admin && spares_administrators => {
                Err(if only_issues { Denied::Scope } else { Denied::Role }.into())
            }
            (Some(user), _) => Ok(Owner {
                id: user.id,
                is_admin: user.is_admin,
                is_foreign: true,
                spares_administrators,
                new: None,
            }),
            (None, UserRef::External(external_id)) if is_create && self.policy.jit_users => {
                let new = NewUser {
                    id: self.cluster_id.user_id(u128::from_ne_bytes(random::bytes())),
                    handle: Handle::of(external_id),
                    display_name: None,
                    kind: UserKind::Human,
                    is_admin: false,
                    is_active: true,
                    external_id: Some(external_id.clone()),
                };
                Ok(Owner {
                    id: new.id.clone(),
                    is_admin: false,
                    is_foreign: true,
                    spares_administrators,
                    new: Some(new),
                })
            }
            (None, UserRef::Id(_) | UserRef::Handle(_) | UserRef::External(_)) => {
                Err(Error::NotFound("user"))
            }
        }
    }

    /// What the caller's user is in the workspace that a call names.
    async fn standing(
        &self,
        caller: &Caller,
        right: &Right,
        name: &ContainerName,
    ) -> Result<Standing, Error> {
        let found = self.store.container(name, &Viewer::Administrator).await?;
        match (found, caller.workspace_id()) {
            (Some(container), None) => Ok(self.standing_in(caller, container).await?),
            (Some(container), Some(bound)) if container.id == bound => {
                Ok(self.standing_in(caller, container).await?)
            }
            // Bound to another, it learns nothing of this one.
            (_, Some(_)) => Err(Denied::Scope.into()),
            (None, None) if caller.is_administrator() => {
                right.others(caller)?;
                Err(Error::NotFound("workspace"))
            }
            // The same as to one who is no member of it.
            (None, None) => Err(Denied::Role.into()),
        }
    }

    /// The same of a workspace that the caller may not know; `None`: there is none.
    async fn standing_by_id(&self, caller: &Caller, id: &str) -> Result<Option<Standing>, Error> {
        let workspace = ContainerRef::Id(id.to_owned());
        let name = ContainerName::Workspace { workspace, organization: None };
        Ok(match self.store.container(&name, &Viewer::Administrator).await? {
            None => None,
            Some(container) => Some(self.standing_in(caller, container).await?),
        })
    }

    async fn standing_in(
        &self,
        caller: &Caller,
        container: Container,
    ) -> Result<Standing, StoreError> {
        let organization = (ContainerKind::Organization, container.organization());
        let itself = (container.kind(), container.id.as_str());
        let mut roles = [None; 2];
        for (role, (kind, id)) in roles.iter_mut().zip([itself, organization]) {
            let membership = self.store.membership(caller.user_id(), kind, id).await?;
            *role = membership.map(|membership| membership.role);
        }
        let [role, organization_role] = roles;
        Ok(Standing { container, role, organization_role })
    }

    fn check_scopes_known(&self, scopes: &ScopeSet) -> Result<(), Error> {
        match scopes.iter().find(|scope| !self.policy.catalogue.admits(scope)) {
            Some(unknown) => Err(Error::invalid(
                "scopes",
                format!("holds {unknown}, which is not in the catalogue"),
            )),
            None => Ok(()),
        }
    }

    /// When a token ends that is made at `now`, not after `limit`.
    fn expires_at(
        &self,
        asked: Option<Expiry>,
        limit: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let longest = self.policy.max_lifetime.map(|lifetime| now.saturating_add(lifetime));
        let (field, asked) = match asked {
            None => {
                let default =
                    self.policy.default_lifetime.map(|lifetime| now.saturating_add(lifetime));
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
    fn is_issued_to<'a>(
        &self,
        caller: &Caller,
        mut scopes: impl Iterator<Item = &'a Scope>,
    ) -> bool {
        caller.issues()
            && self.is_foreign
            && !self.is_admin
            && scopes.all(|scope| scope.control().is_none())
    }

    /// Its tokens.
    fn reach(self) -> Reach {
        Reach {
            owner: Some(self.id),
            workspace_id: None,
            spares_administrators: self.spares_administrators,
        }
    }
}

/// Nobody gets a secret of a token that can do more than the caller's own.
fn check_covered(caller: &Caller, credential: &Credential) -> Result<(), Error> {
    let own = &caller.found.credential;
    let held = caller.may_make(credential.kind())
        && parsed(credential).all(|scope| {
            // What only counts by its name is not in `admin:all`.
            let by_name = !caller.is_administrator() && scope.control().is_some_and(is_granted);
            if by_name {
                caller.scopes().iter().any(|it| *it == scope)
            } else {
                caller.covers(&scope)
            }
        });
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
fn parsed(credential: &Credential) -> impl Iterator<Item = Scope> {
    credential.scopes.iter().filter_map(|text| text.parse().ok())
}

/// The caller's own tokens.
fn own(caller: &Caller) -> Reach {
    Reach { owner: Some(caller.user_id().clone()), ..Reach::default() }
}

/// By what right a caller does something to others' tokens.
fn basis(standing: Option<&Standing>) -> Basis {
    match standing {
        None => Basis::Administrator,
        Some(Standing { container, .. }) => Basis::Manager(vec![Managed {
            organization_id: container.organization().to_owned(),
            workspace_id: Some(container.id.clone()),
        }]),
    }
}

fn check_scopes_held(
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
fn is_granted(control: ControlScope) -> bool {
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
fn may_grant(caller: &Caller, standing: Option<&Standing>, control: ControlScope) -> bool {
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
fn within(callers: &AllowedIps, asked: AllowedIps) -> Result<AllowedIps, Error> {
    if asked == AllowedIps::default() {
        Ok(callers.clone())
    } else if callers.cover(&asked) {
        Ok(asked)
    } else {
        Err(Error::ExceedsCaller { field: "allowed_ips" })
    }
}

fn target<'a>(id: &'a str, reach: &'a Reach) -> Result<Target<'a>, Error> {
    // No id holds NUL, and PostgreSQL takes no text that does.
    if id.contains('\0') {
        return Err(Error::NotFound(TOKEN));
    }
    Ok(Target { id, kind: Kind::PersonalAccessToken, reach })
}
