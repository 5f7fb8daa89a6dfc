//! API client authorizations: made, listed, changed and deleted as Arvados does it
//! (SEEDS 3.6 to 3.10), but for what would make a stronger token of one.

use super::{
    Authority,
    reach::{Owner, own},
    strength::check_covered,
};
use crate::{
    caller::Caller,
    domain::{
        Attribute, Condition, Credential, CredentialId, Detail, Direction, Filter, Kind, Revision,
        RouteScopes, Status, Timestamp, Token, UserId, UserRef, Wrong, routes_cover,
    },
    error::Error,
    random,
    rights::{self, Denied, Right},
    store::{
        AuthorizationQuery, AuthorizationUpdate, Basis, Kept, NewCredential, Reach, Refusal,
        StoreError, Target, Updated,
    },
};

/// What tokens are called in errors.
const AUTHORIZATION: &str = "API client authorization";

/// How often an update is decided anew that somebody else was faster than.
const ATTEMPTS: u32 = 8;

/// A request for a new API client authorization.
#[derive(Debug, Default)]
pub struct NewAuthorization {
    /// The uuid it shall have, as the caller gave it; `None`: a random one.
    pub uuid: Option<String>,
    /// Whose it will be; `None`: the caller's.
    pub owner: Option<UserRef>,
    /// The same by number; with both, they must agree.
    pub user_number: Option<i64>,
    /// The client application's number; `None`: that of the caller's token.
    pub api_client_id: Option<i64>,
    /// What it may do; `None`: what the caller's token may.
    pub scopes: Option<RouteScopes>,
    /// When it ends, which may be in the past; `None`: as the policy has it, and not
    /// after the caller's token.
    pub expires_at: Option<Timestamp>,
}

/// What to change; `None`: leave it. The inner `None` clears.
#[derive(Debug, Default)]
pub struct AuthorizationChanges {
    /// What it may do.
    pub scopes: Option<RouteScopes>,
    /// When it ends.
    pub expires_at: Option<Option<Timestamp>>,
    /// The client application's number.
    pub api_client_id: Option<Option<i64>>,
    /// Whose it shall be, by number.
    pub user_number: Option<i64>,
}

/// What to list.
#[derive(Debug, Default)]
pub struct AuthorizationList {
    /// Conditions that must all hold.
    pub filters: Vec<Filter>,
    /// Attributes and what they must equal, beside `filters`.
    pub wheres: Vec<Filter>,
    /// By what to sort.
    pub order: Vec<(Attribute, Direction)>,
    /// The attributes that are asked for; none: all.
    pub select: Vec<Attribute>,
    /// Whether items that are equal in these are returned once.
    pub distinct: bool,
    /// At most so many.
    pub limit: i64,
    /// How many to pass over.
    pub offset: i64,
    /// Whether to count.
    pub counts: bool,
}

/// An API client authorization, as its caller may see it.
#[derive(Debug)]
pub struct Authorization {
    /// What is kept.
    pub kept: Kept,
    /// Its secret, where the caller may have it.
    pub api_token: Option<Token>,
}

/// Some API client authorizations.
#[derive(Debug)]
pub struct AuthorizationPage {
    /// They.
    pub items: Vec<Authorization>,
    /// How many there are, if that was asked for.
    pub available: Option<i64>,
}

impl Authority {
    /// Makes one, never one that can do more than the caller's.
    ///
    /// # Errors
    ///
    /// A rule stood against it, or the store failed.
    pub async fn create_authorization(
        &self,
        caller: &Caller,
        new: NewAuthorization,
    ) -> Result<(Authorization, Revision), Error> {
        let right = &rights::CREATE_AUTHORIZATION;
        self.check_trusted(caller, right)?;
        right.own(caller)?;
        check_unbound(caller)?;
        let named = self.named(caller, new.owner.as_ref(), new.user_number).await?;
        let owner = self.owner(caller, right, None, named.as_ref()).await;
        if let Err(Error::NotFound(_)) = owner {
            // Arvados tells an unknown user from a foreign one to nobody.
            return Err(Denied::Role.into());
        }
        let owner = owner?;
        self.make_authorization(caller, owner, new).await
    }

    /// Makes one of the system user.
    ///
    /// # Errors
    ///
    /// A rule stood against it, or the store failed.
    pub async fn create_system_authorization(
        &self,
        caller: &Caller,
        api_client_id: Option<i64>,
        scopes: Option<RouteScopes>,
    ) -> Result<(Authorization, Revision), Error> {
        let right = &rights::CREATE_SYSTEM_AUTH;
        self.check_trusted(caller, right)?;
        right.others(caller)?;
        check_unbound(caller)?;
        let owner = Owner {
            id: self.cluster_id.system_user(),
            is_admin: true,
            is_foreign: true,
            spares_administrators: false,
            new: None,
        };
        let new = NewAuthorization { api_client_id, scopes, ..NewAuthorization::default() };
        self.make_authorization(caller, owner, new).await
    }

    async fn make_authorization(
        &self,
        caller: &Caller,
        owner: Owner,
        new: NewAuthorization,
    ) -> Result<(Authorization, Revision), Error> {
        let basis =
            if owner.is_foreign || new.uuid.is_some() { Basis::Administrator } else { Basis::Own };
        let id = match new.uuid {
            None => self.cluster_id.authorization_id(u128::from_ne_bytes(random::bytes())),
            Some(_) if !caller.is_administrator() => {
                return Err(Error::invalid("uuid", "is for administrators to choose"));
            }
            Some(uuid) => self
                .cluster_id
                .free_authorization_id(&uuid)
                .map_err(|error| Error::invalid("uuid", error.to_string()))?,
        };
        let own = &caller.found.credential;
        let scopes = match (new.scopes.map(RouteScopes::into_texts), own.kind()) {
            (Some(scopes), _) if !caller.covers_routes(&scopes) => {
                return Err(Error::ExceedsCaller { field: "scopes" });
            }
            (Some(scopes), _) => scopes,
            (None, Kind::PersonalAccessToken) => RouteScopes::all().into_texts(),
            (None, Kind::ApiClientAuthorization | Kind::SystemRoot) => own.scopes.clone(),
        };
        let now = self.clock.now();
        let expires_at = self.first_end(caller, new.expires_at, now)?;
        let (token, secret) = self.issuer.issue_authorization(&id, now).await?;
        let credential = NewCredential {
            id,
            user_id: owner.id,
            workspace_id: None,
            detail: Detail::ApiClientAuthorization {
                api_client_id: new.api_client_id.or_else(|| api_client_id(own)),
                created_by_ip: caller.ip.map(|ip| ip.to_canonical().to_string()),
            },
            scopes,
            allowed_ips: own.allowed_ips.to_texts(),
            expires_at,
            secret,
            quota: self.policy.authorizations.per_user,
            spares_administrators: owner.spares_administrators,
            new_owner: owner.new,
        };
        let actor = caller.actor(now, basis);
        let inserted = self.store.insert_credential(&credential, None, &actor).await;
        let (inserted, revision) = inserted.map_err(|error| match error {
            StoreError::Refused(Refusal::NoOwner) => Denied::Role.into(),
            StoreError::Refused(_)
            | StoreError::AlreadyExists(_)
            | StoreError::At(..)
            | StoreError::Unavailable(_)
            | StoreError::Failed(_) => Error::from(error),
        })?;
        Ok((Authorization { kept: inserted.kept, api_token: Some(token) }, revision))
    }

    /// Ends one for good, and returns it as it was. A token may end itself whatever its
    /// scopes.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or the store failed.
    pub async fn delete_authorization(
        &self,
        caller: &Caller,
        uuid: &str,
    ) -> Result<(Authorization, Revision), Error> {
        let right = &rights::DELETE_AUTHORIZATION;
        self.check_trusted(caller, right)?;
        let (reach, basis) = if right.itself && caller.token_id().0 == uuid {
            (own(caller), Basis::Own)
        } else {
            self.reach(caller, right, None).await?
        };
        let target = target(uuid, &reach)?;
        self.live(target).await?;
        let actor = caller.actor(self.clock.now(), basis);
        match self.store.revoke_credential(target, false, &actor).await? {
            Some((revoked, revision)) if revoked.changed => {
                // Nothing that is shown of it was changed by that.
                Ok((self.shown(caller, revoked.kept), revision))
            }
            // Somebody else was faster.
            Some(_) | None => Err(Error::NotFound(AUTHORIZATION)),
        }
    }

    /// One.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or the store failed.
    pub async fn authorization(&self, caller: &Caller, uuid: &str) -> Result<Authorization, Error> {
        let right = &rights::GET_AUTHORIZATION;
        self.check_trusted(caller, right)?;
        let (reach, _) = self.reach(caller, right, None).await?;
        let kept = self.live(target(uuid, &reach)?).await?;
        Ok(self.shown(caller, kept))
    }

    /// The caller's own, without its secret, which the caller has.
    ///
    /// # Errors
    ///
    /// The caller's token is of another kind, or the store failed.
    pub async fn current_authorization(&self, caller: &Caller) -> Result<Kept, Error> {
        rights::GET_CURRENT_AUTHORIZATION.own(caller)?;
        let missing = || Error::NotFound(AUTHORIZATION);
        if !caller.is_root() {
            return self.live(target(&caller.token_id().0, &own(caller))?).await;
        }
        let user = self.store.user(&UserRef::Id(caller.user_id().clone())).await?;
        Ok(Kept {
            credential: caller.found.credential.clone(),
            user_number: user.ok_or_else(missing)?.number,
            secret: caller.found.secret.clone(),
            sealed: None,
            previous_secret_expires_at: None,
            last_used_at: None,
            last_used_ip: None,
        })
    }

    /// Those of the caller's user; for the system root token, all.
    ///
    /// # Errors
    ///
    /// A condition is none, or the caller may not, or the store failed.
    pub async fn list_authorizations(
        &self,
        caller: &Caller,
        list: AuthorizationList,
    ) -> Result<AuthorizationPage, Error> {
        let right = &rights::LIST_AUTHORIZATIONS;
        self.check_trusted(caller, right)?;
        let (reach, _) = self.reach(caller, right, None).await?;
        let peppers = &self.issuer.peppers;
        let mut conditions = Vec::new();
        for (at, filter) in list.filters.iter().enumerate() {
            let condition = Condition::parse(filter, peppers);
            conditions.push(condition.map_err(|Wrong { part, place, reason }| {
                let of = |part| Error::invalid(part, reason.to_string());
                let wrong = place.map_or_else(|| of(part), |place| of("").at(part, place));
                wrong.at("filters", at)
            })?);
        }
        for filter in &list.wheres {
            let condition = Condition::parse(filter, peppers);
            conditions.push(condition.map_err(|Wrong { part, reason, .. }| {
                Error::invalid("where", format!("has an {part} that {reason}"))
            })?);
        }
        let is_unique = |attribute| {
            matches!(attribute, Attribute::Uuid | Attribute::ApiToken | Attribute::Etag)
        };
        let may_repeat = list.distinct && !list.select.iter().copied().any(is_unique);
        let query = AuthorizationQuery {
            reach,
            conditions,
            order: list.order,
            distinct: if may_repeat { list.select } else { Vec::new() },
            offset: list.offset,
            limit: list.limit,
            counts: list.counts,
        };
        let (rows, available) = self.store.list_authorizations(&query).await?;
        let items = rows.into_iter().map(|kept| self.shown(caller, kept)).collect();
        Ok(AuthorizationPage { items, available })
    }

    /// Changes one, never so that it can do more than it could and than the caller's.
    ///
    /// # Errors
    ///
    /// A rule stood against it, or the store failed.
    pub async fn update_authorization(
        &self,
        caller: &Caller,
        uuid: &str,
        changes: AuthorizationChanges,
    ) -> Result<(Authorization, Revision), Error> {
        let right = &rights::UPDATE_AUTHORIZATION;
        self.check_trusted(caller, right)?;
        let (reach, basis) = self.reach(caller, right, None).await?;
        let target = target(uuid, &reach)?;
        let AuthorizationChanges { scopes, expires_at, api_client_id: client, user_number } =
            changes;
        let scopes = scopes.map(RouteScopes::into_texts);
        let user_id = match user_number {
            None => None,
            Some(number) => Some(self.numbered(caller, number).await?),
        };
        let now = self.clock.now();
        for _ in 0..ATTEMPTS {
            let before = self.live(target).await?.credential;
            let mut after = before.clone();
            if let Some(scopes) = &scopes {
                after.scopes.clone_from(scopes);
            }
            if let Some(end) = expires_at.filter(|end| *end != before.expires_at) {
                after.expires_at = self.cut(caller, end, now);
            }
            if let Some(user_id) = &user_id {
                after.user_id.clone_from(user_id);
            }
            if self.issuer.recoverable {
                // Whoever takes something from it may see it then, and wait until it is back.
                check_covered(caller, &before)?;
            }
            if widens(&before, &after) {
                check_covered(caller, &after)?;
            }
            let is_moved = after.user_id != before.user_id;
            let actor =
                caller.actor(now, if is_moved { Basis::Administrator } else { basis.clone() });
            let update = AuthorizationUpdate {
                api_client_id: client.unwrap_or_else(|| api_client_id(&before)),
                user_id: after.user_id,
                scopes: after.scopes,
                expires_at: after.expires_at,
                quota: self.policy.authorizations.per_user,
                before,
            };
            match self.store.update_authorization(target, &update, &actor).await? {
                None => return Err(Error::NotFound(AUTHORIZATION)),
                Some((Updated::Stale, _)) => {}
                Some((Updated::Done(kept), revision)) => {
                    return Ok((self.shown(caller, *kept), revision));
                }
            }
        }
        Err(StoreError::Unavailable("others change the same token all the time".into()).into())
    }

    /// By the operator's policy no token may manage tokens, but the root's may make and
    /// list them (SEEDS 3.7).
    fn check_trusted(&self, caller: &Caller, right: &Right) -> Result<(), Error> {
        let of_root =
            [rights::CREATE_AUTHORIZATION, rights::CREATE_SYSTEM_AUTH, rights::LIST_AUTHORIZATIONS];
        if self.policy.issue_trusted_tokens || (caller.is_root() && of_root.contains(right)) {
            Ok(())
        } else {
            Err(Error::TrustedTokensOff)
        }
    }

    /// The user that a request names by id, by number or by both.
    async fn named(
        &self,
        caller: &Caller,
        owner: Option<&UserRef>,
        number: Option<i64>,
    ) -> Result<Option<UserRef>, Error> {
        let Some(number) = number else { return Ok(owner.cloned()) };
        let id = self.numbered(caller, number).await?;
        let agrees = match owner {
            None => true,
            Some(owner) if caller.is(owner) => id == *caller.user_id(),
            Some(_) if !caller.is_administrator() => return Err(Denied::Role.into()),
            Some(owner) => self.store.user(owner).await?.is_some_and(|user| user.id == id),
        };
        if agrees {
            Ok(Some(UserRef::Id(id)))
        } else {
            Err(Error::invalid("user_id", "is not the number of owner_uuid"))
        }
    }

    /// The user with this number: the caller's own or, for administrators, any.
    async fn numbered(&self, caller: &Caller, number: i64) -> Result<UserId, Error> {
        match self.store.user_by_number(number).await? {
            Some(user) if user.id == *caller.user_id() || caller.is_administrator() => Ok(user.id),
            Some(_) | None => Err(Denied::Role.into()),
        }
    }

    /// One that is not deleted.
    async fn live(&self, target: Target<'_>) -> Result<Kept, Error> {
        let kept = self.store.credential(target).await?;
        kept.filter(|kept| kept.credential.status(self.clock.now()) != Status::Revoked)
            .ok_or(Error::NotFound(AUTHORIZATION))
    }

    /// As the caller may see it: with its secret, where that is kept recoverable, it is
    /// the caller's own, and the caller's token can do as much.
    fn shown(&self, caller: &Caller, kept: Kept) -> Authorization {
        let may_have = self.issuer.recoverable
            && kept.credential.user_id == *caller.user_id()
            && check_covered(caller, &kept.credential).is_ok();
        let api_token = may_have.then(|| kept.opened(&self.issuer.peppers)).flatten();
        Authorization { kept, api_token }
    }

    /// When a new one ends, not after the caller's own.
    fn first_end(
        &self,
        caller: &Caller,
        asked: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Option<Timestamp>, Error> {
        let limit = caller.found.expires_at();
        let default = self.policy.authorizations.default_lifetime;
        let default = default.map(|lifetime| now.saturating_add(lifetime));
        let end = match asked {
            Some(asked) => self.cut(caller, Some(asked), now),
            None => [default, self.cut(caller, None, now)].into_iter().flatten().min(),
        };
        match limit {
            Some(limit) if end.is_none_or(|end| end > limit) => match asked {
                Some(_) => Err(Error::ExceedsCaller { field: "expires_at" }),
                None => Ok(Some(limit)),
            },
            Some(_) | None => Ok(end),
        }
    }

    /// The end asked for, cut to the greatest lifetime (SEEDS 3.10): none for
    /// everybody, a later one but for administrators.
    fn cut(&self, caller: &Caller, end: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let Some(lifetime) = self.policy.authorizations.max_lifetime else { return end };
        let longest = now.saturating_add(lifetime);
        match end {
            Some(end) if caller.is_administrator() => Some(end),
            Some(end) => Some(end.min(longest)),
            None => Some(longest),
        }
    }
}

/// What a token that is bound to a workspace makes would be good beyond it.
fn check_unbound(caller: &Caller) -> Result<(), Error> {
    if caller.workspace_id().is_none() { Ok(()) } else { Err(Denied::Scope.into()) }
}

/// Whether it could do more after than before: for another user, by other scopes, or
/// for longer.
fn widens(before: &Credential, after: &Credential) -> bool {
    let outlives =
        before.expires_at.is_some_and(|before| after.expires_at.is_none_or(|after| after > before));
    after.user_id != before.user_id || !routes_cover(&before.scopes, &after.scopes) || outlives
}

fn api_client_id(credential: &Credential) -> Option<i64> {
    match credential.detail {
        Detail::ApiClientAuthorization { api_client_id, .. } => api_client_id,
        Detail::PersonalAccessToken { .. } | Detail::SystemRoot => None,
    }
}

fn target<'a>(uuid: &'a str, reach: &'a Reach) -> Result<Target<'a>, Error> {
    match CredentialId::of_authorization(uuid) {
        Ok(_) => Ok(Target { id: uuid, kind: Kind::ApiClientAuthorization, reach }),
        Err(_) => Err(Error::NotFound(AUTHORIZATION)),
    }
}
