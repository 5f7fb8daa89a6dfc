//! Issues, lists, changes and revokes personal access tokens.

use std::{sync::Arc, time::Duration};

use crate::{
    caller::Caller,
    clock::Clock,
    domain::{
        AllowedIps, Catalogue, ControlScope, CredentialId, Description, Detail, Kind, PatPrefix,
        Peppers, Revision, Scope, ScopeSet, Timestamp, Token, TokenName, User, UserId, UserRef,
    },
    error::Error,
    hashing::{Busy, Hasher},
    random,
    rights::{self, Denied, Right},
    store::{
        Actor, CredentialChanges, Cursor, Kept, NewCredential, NewSecret, Refusal, Repeat, Store,
        StoreError, Target,
    },
};

/// What tokens are called in errors.
const TOKEN: &str = "personal access token";

/// Issues, lists, changes and revokes personal access tokens.
pub struct Authority {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
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
    /// Too many secrets are being hashed.
    pub async fn issue(&self, now: Timestamp) -> Result<(Token, NewSecret), Busy> {
        let token = Token::from_random(&self.prefix, &random::bytes());
        let secret = self.secret(&token, now).await?;
        Ok((token, secret))
    }

    /// What is kept of a token.
    ///
    /// # Errors
    ///
    /// Too many secrets are being hashed.
    pub async fn secret(&self, token: &Token, now: Timestamp) -> Result<NewSecret, Busy> {
        let pepper = self.peppers.current();
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
    /// The workspace to bind it to; `None`: the caller's token's.
    pub workspace_id: Option<String>,
    /// When it ends; `None`: as the policy has it, and not after the caller's token.
    pub expiry: Option<Expiry>,
    /// Where it may be used from; none: where the caller's token may.
    pub allowed_ips: AllowedIps,
    /// Whose it will be; `None`: the caller's.
    pub user: Option<UserRef>,
    /// What makes the request repeatable.
    pub repeat: Option<Repeat>,
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
    /// Over `store`, by `policy`.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        issuer: Arc<Issuer>,
        policy: Policy,
    ) -> Self {
        Self { store, clock, issuer, policy }
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
        let owner = self.owner(caller, &rights::CREATE_PAT, new.user.as_ref()).await?;
        let is_foreign = owner.0 != *caller.user_id();
        let now = self.clock.now();
        if !caller.may_make(Kind::PersonalAccessToken) {
            return Err(Error::ExceedsCaller { field: "scopes" });
        }
        self.check_scopes_known(&new.scopes)?;
        let issues = self.issues_for(caller, &owner, &new.scopes);
        if !issues && rights::CREATE_PAT.only_issues(caller) {
            return Err(Error::ExceedsCaller { field: "scopes" });
        }
        if !issues {
            self.check_scopes_held(caller, &new.scopes)?;
        }
        let workspace_id = match (new.workspace_id, caller.workspace_id()) {
            (asked, None) => asked,
            (None, Some(bound)) => Some(bound.to_owned()),
            (Some(asked), Some(bound)) if asked == bound => Some(asked),
            (Some(_), Some(_)) => return Err(Error::ExceedsCaller { field: "workspace_id" }),
        };
        let allowed_ips = if issues {
            new.allowed_ips
        } else {
            within(&caller.found.credential.allowed_ips, new.allowed_ips)?
        };
        let limit = if issues { None } else { caller.found.expires_at() };
        let expires_at = self.expires_at(new.expiry, limit, now)?;

        let (token, secret) = self.issuer.issue(now).await?;
        let credential = NewCredential {
            id: CredentialId(random::id(now)),
            user_id: owner.0,
            workspace_id,
            detail: Detail::PersonalAccessToken { name: new.name, description: new.description },
            scopes: new.scopes.to_texts(),
            allowed_ips: allowed_ips.to_texts(),
            expires_at,
            secret,
            quota: self.policy.tokens_per_user,
        };
        let actor = Actor { as_administrator: is_foreign, ..caller.actor(now) };
        let inserted = self.store.insert_credential(&credential, new.repeat.as_ref(), &actor).await;
        let (inserted, revision) = inserted.map_err(|error| match error {
            // Whether there is such a workspace is for administrators to know.
            StoreError::Refused(Refusal::NoWorkspace) if !caller.is_administrator() => {
                Error::Refused(Refusal::NotAMember)
            }
            StoreError::Refused(_)
            | StoreError::AlreadyExists(_)
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
    /// catalogue.
    #[must_use]
    pub fn available_scopes(&self, caller: &Caller) -> Vec<(Scope, String)> {
        let issues = rights::CREATE_PAT.own(caller).is_err();
        if issues && rights::CREATE_PAT.others(caller).is_err() {
            return Vec::new();
        }
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
            .filter(|_| !issues)
            .filter(|control| caller.covers(&control.to_scope()) && may_grant(caller, *control))
            .map(|control| (control.to_scope(), control.meaning().to_owned()));
        available.extend(control);
        available
    }

    /// A user's tokens, newest first.
    ///
    /// # Errors
    ///
    /// The caller may not, or there is no such user, or the store failed.
    pub async fn list(
        &self,
        caller: &Caller,
        user: Option<&UserRef>,
        with_revoked: bool,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Kept>, Error> {
        let (owner, is_admin) = self.owner(caller, &rights::LIST_PATS, user).await?;
        let foreign = owner != *caller.user_id();
        if foreign && is_admin && rights::LIST_PATS.only_issues(caller) {
            return Err(Denied::Scope.into());
        }
        let kind = Kind::PersonalAccessToken;
        Ok(self.store.list_credentials(&owner, kind, with_revoked, after, limit).await?)
    }

    /// One token.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or the store failed.
    pub async fn get(&self, caller: &Caller, id: &str) -> Result<Kept, Error> {
        let owner = self.reach(caller, &rights::GET_PAT, id).await?;
        self.store.credential(target(id, owner.as_ref())).await?.ok_or(Error::NotFound(TOKEN))
    }

    /// Renames or re-describes a token.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or it is revoked, or the
    /// store failed.
    pub async fn update(
        &self,
        caller: &Caller,
        id: &str,
        changes: &CredentialChanges,
    ) -> Result<(Kept, Revision), Error> {
        let owner = self.reach(caller, &rights::UPDATE_PAT, id).await?;
        let actor = self.actor(caller, owner.as_ref());
        self.store
            .update_credential(target(id, owner.as_ref()), changes, &actor)
            .await?
            .ok_or(Error::NotFound(TOKEN))
    }

    /// Revokes a token for good, and with `descendants` what was made with it.
    /// A token may revoke itself whatever its scopes. Done again, it changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or the store failed; some of
    /// the descendants may be revoked then, and the token itself is.
    pub async fn revoke(
        &self,
        caller: &Caller,
        id: &str,
        descendants: bool,
    ) -> Result<(Kept, Revision), Error> {
        let owner = if caller.token_id().0 == id && !descendants {
            Some(caller.user_id().clone())
        } else {
            self.reach(caller, &rights::REVOKE_PAT, id).await?
        };
        let actor = self.actor(caller, owner.as_ref());
        let target = target(id, owner.as_ref());
        // Itself first, in a transaction of its own: it may have been used to make
        // more than one can revoke. A caller that ends itself could not go on if that
        // broke off, so it ends as many as one can at once.
        let mut revoke_descendants = descendants && caller.token_id().0 == id;
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

    /// The caller, as one who reaches the tokens of `owner`; `None`: everybody's.
    fn actor(&self, caller: &Caller, owner: Option<&UserId>) -> Actor {
        let as_administrator = owner != Some(caller.user_id());
        Actor { as_administrator, ..caller.actor(self.clock.now()) }
    }

    /// The user that a request is about, and whether it is an administrator.
    async fn owner(
        &self,
        caller: &Caller,
        right: &Right,
        named: Option<&UserRef>,
    ) -> Result<(UserId, bool), Error> {
        let Some(named) = named.filter(|named| !caller.is(named)) else {
            right.own(caller)?;
            return Ok((caller.user_id().clone(), caller.is_administrator()));
        };
        right.others(caller)?;
        let User { id, is_admin, .. } =
            self.store.user(named).await?.ok_or(Error::NotFound("user"))?;
        Ok((id, is_admin))
    }

    /// Whose token the one with this id must be for the caller to reach it;
    /// `None`: anybody's.
    async fn reach(
        &self,
        caller: &Caller,
        right: &Right,
        id: &str,
    ) -> Result<Option<UserId>, Error> {
        let everybodys = right.others(caller).is_ok();
        if !everybodys {
            right.own(caller)?;
        }
        // No id holds NUL, and PostgreSQL takes no text that does.
        if id.contains('\0') {
            return Err(Error::NotFound(TOKEN));
        }
        if !everybodys {
            return Ok(Some(caller.user_id().clone()));
        }
        if !right.only_issues(caller) {
            return Ok(None);
        }
        let found = self.store.credential(target(id, None)).await?.ok_or(Error::NotFound(TOKEN))?;
        let owner = UserRef::Id(found.credential.user_id);
        match self.store.user(&owner).await? {
            Some(User { id, is_admin: false, .. }) => Ok(Some(id)),
            Some(_) | None => Err(Error::NotFound(TOKEN)),
        }
    }

    /// Whether the caller makes this token as one who issues tokens: for a user
    /// who is no administrator, and with nothing but scopes of the catalogue.
    fn issues_for(&self, caller: &Caller, owner: &(UserId, bool), scopes: &ScopeSet) -> bool {
        let (owner, is_admin) = owner;
        let issues = caller.allowed(rights::CREATE_PAT.path, &[ControlScope::IssueTokens]);
        issues
            && owner != caller.user_id()
            && !is_admin
            && scopes.iter().all(|scope| scope.control().is_none())
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

    fn check_scopes_held(&self, caller: &Caller, scopes: &ScopeSet) -> Result<(), Error> {
        let held = scopes.iter().all(|scope| {
            caller.covers(scope) && scope.control().is_none_or(|control| may_grant(caller, control))
        });
        if held { Ok(()) } else { Err(Error::ExceedsCaller { field: "scopes" }) }
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

/// Whether a caller may give a control scope that its own token covers. To
/// verify and to issue is for administrators to give, since no other rule
/// limits who holds it.
fn may_grant(caller: &Caller, control: ControlScope) -> bool {
    match control {
        ControlScope::VerifyTokens | ControlScope::IssueTokens | ControlScope::AdminAll => {
            caller.is_administrator()
        }
        ControlScope::ReadTokens
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

fn target<'a>(id: &'a str, owner: Option<&'a UserId>) -> Target<'a> {
    Target { id, kind: Kind::PersonalAccessToken, owner }
}
