//! Who makes a call, proved by its own token.

use std::net::IpAddr;

use crate::{
    domain::{
        ControlScope, CredentialId, Found, Kind, Scope, ScopeSet, Timestamp, UserId, UserRef,
        covers, route_allowed, routes_cover,
    },
    store::{Actor, AsItWas, Basis},
};

/// Who makes a call, and with which credential.
#[derive(Debug, Clone)]
pub struct Caller {
    /// What the verification of its token found.
    pub found: Found,
    /// From where it calls.
    pub ip: Option<IpAddr>,
    /// The name of the call in the logs.
    pub request_id: String,
    /// What it calls over HTTP, which the scopes of an API client authorization are about
    /// then: method and path. `None`: it calls over gRPC.
    pub route: Option<(String, String)>,
}

impl Caller {
    /// The user as whom it acts.
    #[must_use]
    pub fn user_id(&self) -> &UserId {
        &self.found.owner.id
    }

    /// Whether `name` names its own user.
    #[must_use]
    pub fn is(&self, name: &UserRef) -> bool {
        let owner = &self.found.owner;
        match name {
            UserRef::Id(id) => *id == owner.id,
            UserRef::Handle(handle) => handle.as_str() == owner.handle,
            UserRef::External(external) => owner.external_id.as_ref() == Some(external),
        }
    }

    /// The credential that it uses.
    #[must_use]
    pub fn token_id(&self) -> &CredentialId {
        &self.found.credential.id
    }

    /// Whether it presented the system root token.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.found.credential.kind() == Kind::SystemRoot
    }

    /// Whether its user is an administrator.
    #[must_use]
    pub fn is_administrator(&self) -> bool {
        self.found.owner.is_admin
    }

    /// The workspace that its token is bound to.
    #[must_use]
    pub fn workspace_id(&self) -> Option<&str> {
        self.found.credential.workspace.as_ref().map(|binding| binding.workspace_id.as_str())
    }

    /// Whether its token does all that `scope` names. An API client
    /// authorization does so only with `all`.
    #[must_use]
    pub fn covers(&self, scope: &Scope) -> bool {
        self.does(scope.as_str())
    }

    /// The same of a control scope.
    #[must_use]
    pub fn allows(&self, control: ControlScope) -> bool {
        self.does(control.as_str())
    }

    fn does(&self, scope: &str) -> bool {
        let mut held = self.found.credential.scopes.iter();
        match self.found.credential.kind() {
            Kind::PersonalAccessToken => held.any(|held| covers(held, scope)),
            Kind::ApiClientAuthorization | Kind::SystemRoot => held.any(|held| held == "all"),
        }
    }

    /// Whether its token may make one of `kind`: of the other kind only one that may
    /// do everything.
    #[must_use]
    pub fn may_make(&self, kind: Kind) -> bool {
        self.found.credential.kind() == kind || self.allows(ControlScope::AdminAll)
    }

    /// Whether its token does all that an API client authorization with these scopes
    /// would.
    #[must_use]
    pub fn covers_routes(&self, scopes: &[String]) -> bool {
        let own = &self.found.credential;
        match own.kind() {
            Kind::PersonalAccessToken => self.allows(ControlScope::AdminAll),
            Kind::ApiClientAuthorization | Kind::SystemRoot => routes_cover(&own.scopes, scopes),
        }
    }

    /// Whether the scopes of its API client authorization allow this call: `POST` to the
    /// RPC's path, or what it calls over HTTP instead.
    #[must_use]
    pub fn may_call(&self, path: &str) -> bool {
        let over_http = self.route.as_ref().map(|(method, path)| (method.as_str(), path.as_str()));
        let (method, path) = over_http.unwrap_or(("POST", path));
        route_allowed(&self.found.credential.scopes, method, path)
    }

    /// Whether its personal access token has a control scope by its own name.
    #[must_use]
    pub fn is_given(&self, control: ControlScope) -> bool {
        let own = &self.found.credential;
        own.kind() == Kind::PersonalAccessToken
            && own.scopes.iter().any(|scope| scope == control.as_str())
    }

    /// Whether its token may issue tokens for others as `issue:tokens` allows it.
    #[must_use]
    pub fn issues(&self) -> bool {
        self.allows(ControlScope::IssueTokens)
    }

    /// The scopes of its personal access token; none of the other kind.
    #[must_use]
    pub fn scopes(&self) -> ScopeSet {
        match self.found.credential.kind() {
            Kind::PersonalAccessToken => {
                self.found.credential.scopes.iter().filter_map(|text| text.parse().ok()).collect()
            }
            Kind::ApiClientAuthorization | Kind::SystemRoot => ScopeSet::default(),
        }
    }

    /// Who makes a change at `at`, for the audit row, and so that the store can see
    /// that the caller still may, by `basis`, when it is made.
    #[must_use]
    pub fn actor(&self, at: Timestamp, basis: Basis) -> Actor {
        Actor {
            user_id: self.user_id().clone(),
            token_id: Some(self.token_id().clone()),
            secret_id: (!self.is_root()).then(|| self.found.secret.id.clone()),
            as_it_was: (self.found.credential.kind() == Kind::ApiClientAuthorization).then(|| {
                AsItWas {
                    scopes: self.found.credential.scopes.clone(),
                    expires_at: self.found.credential.expires_at,
                }
            }),
            ip: self.ip,
            request_id: Some(self.request_id.clone()),
            at,
            basis,
            appoints: self.allows(ControlScope::AdminAll),
        }
    }
}
