//! Issues, lists, changes, rotates and revokes tokens of both kinds.

mod authorizations;
mod reach;
mod strength;

use std::{net::IpAddr, sync::Arc, time::Duration};

use crate::{
    caller::Caller,
    clock::Clock,
    domain::{
        AllowedIps, Catalogue, ClusterId, ContainerName, CredentialId, Description, Detail, Found,
        Kind, Reason, Requirement, Revision, ScopeSet, Timestamp, Token, TokenName, UserRef,
        Verdict,
    },
    error::Error,
    issuer::Issuer,
    random, rights,
    store::{
        Actor, Basis, CredentialChanges, Cursor, Kept, NewCredential, Reach, Refusal, Repeat,
        Revoked, Rotation, Store, StoreError, Target,
    },
};
pub use authorizations::{
    Authorization, AuthorizationChanges, AuthorizationList, AuthorizationPage, NewAuthorization,
};
use reach::{basis, own};
use strength::{check_covered, check_scopes_held, is_granted, within};

/// What tokens are called in errors.
const TOKEN: &str = "personal access token";

/// How long a secret may stay good beside its successor.
pub const MAX_OVERLAP: Duration = Duration::from_hours(90 * 24);

/// Issues, lists, changes, rotates and revokes tokens of both kinds.
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
    /// Of personal access tokens.
    pub pats: Limits,
    /// Of API client authorizations.
    pub authorizations: Limits,
    /// Whether tokens may be used to manage API client authorizations
    /// (`Login.IssueTrustedTokens` of Arvados).
    pub issue_trusted_tokens: bool,
    /// How long a secret stays good beside its successor if a rotation does not say.
    pub rotation_overlap: Duration,
    /// Whether an unknown user who is named by its external id is made along with
    /// its first token.
    pub jit_users: bool,
}

/// What the operator decided about the tokens of one kind.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// How long a token lives if its request does not say; `None`: for ever.
    pub default_lifetime: Option<Duration>,
    /// How long it may live; `None`: for ever.
    pub max_lifetime: Option<Duration>,
    /// How many, neither revoked nor expired, one user may have.
    pub per_user: i64,
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
        let basis =
            if owner.is_foreign || grants { basis(caller, standing.as_ref()) } else { Basis::Own };
        let credential = NewCredential {
            id: CredentialId(random::id(now)),
            user_id: owner.id,
            workspace_id,
            detail: Detail::PersonalAccessToken { name: new.name, description: new.description },
            scopes: new.scopes.to_texts(),
            allowed_ips: allowed_ips.to_texts(),
            expires_at,
            secret,
            quota: self.policy.pats.per_user,
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
    /// its scopes. Done again, it changes nothing, which is said.
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
    ) -> Result<(Revoked, Revision), Error> {
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
                return Ok((revoked, revision));
            }
            revoke_descendants = descendants;
        }
    }

    /// Ends the credential that somebody presents, as only who has it can (RFC 7009). What
    /// is dead for good stays so, and a secret that was replaced does not end its successor.
    ///
    /// # Errors
    ///
    /// The store failed.
    pub async fn revoke_presented(
        &self,
        found: &Found,
        ip: Option<IpAddr>,
        request_id: &str,
    ) -> Result<(), Error> {
        let now = self.clock.now();
        let credential = &found.credential;
        match found.verdict(&Requirement::default(), now) {
            Verdict::Refused(Reason::NotFound | Reason::Revoked) => return Ok(()),
            Verdict::Refused(Reason::Expired) if credential.kind() == Kind::PersonalAccessToken => {
                return Ok(());
            }
            // What it may not be used for now is no reason to leave it in others' hands, nor
            // is an end that could be moved.
            Verdict::Active | Verdict::Refused(_) => {}
        }
        let reach = Reach::default();
        let target = Target { id: &credential.id.0, kind: credential.kind(), reach: &reach };
        let request_id = Some(request_id.to_owned());
        let service = Actor::service(self.cluster_id.system_user(), now);
        let actor = Actor { ip, request_id, ..service };
        self.store.revoke_credential(target, false, &actor).await?;
        Ok(())
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
}

fn target<'a>(id: &'a str, reach: &'a Reach) -> Result<Target<'a>, Error> {
    // No id holds NUL, and PostgreSQL takes no text that does.
    if id.contains('\0') {
        return Err(Error::NotFound(TOKEN));
    }
    Ok(Target { id, kind: Kind::PersonalAccessToken, reach })
}
