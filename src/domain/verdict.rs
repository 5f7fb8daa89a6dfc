use std::net::IpAddr;

use super::{
    AllowedIps, ClusterId, Credential, Detail, ExternalId, Kind, Scope, ScopeSet, Secret,
    SecretState, Status, Timestamp, UserId, route_allowed,
};

/// All that decides whether a proved secret may be used: the one read of a
/// verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The record that the secret proves.
    pub credential: Credential,
    /// The secret that was proved.
    pub secret: Secret,
    /// Whose it is.
    pub owner: Owner,
    /// The workspace that it is bound to.
    pub workspace: Option<Workspace>,
    /// The organization of the workspace that the question names, if there is one.
    pub required_organization_id: Option<String>,
    /// Whether the owner is a member of the workspace that the question names.
    pub member_of_required: bool,
    /// Whether the owner is a member of the workspace that the asker is bound to.
    pub member_of_askers: bool,
}

/// The user behind a credential, as far as a verification needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The user's id.
    pub id: UserId,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
    /// Its handle.
    pub handle: String,
    /// Whether it is an administrator.
    pub is_admin: bool,
    /// Whether it is active and was not deleted.
    pub is_active: bool,
}

/// A workspace, as far as a verification needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    /// Its id.
    pub id: String,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
    /// Whether it is active.
    pub is_active: bool,
    /// The organization that it is part of.
    pub organization: Organization,
}

/// An organization, as far as a verification needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Its id.
    pub id: String,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
    /// Whether it is active.
    pub is_active: bool,
}

/// What a token must be good for.
#[derive(Debug, Clone, Default)]
pub struct Requirement {
    /// All of these must be covered.
    pub scopes: ScopeSet,
    /// This HTTP request must be allowed.
    pub route: Option<Route>,
    /// It must serve in this workspace: be bound to it, or be unbound and its
    /// owner a member.
    pub workspace_id: Option<String>,
    /// Where the token's holder called from.
    pub client_ip: Option<IpAddr>,
    /// Kinds that are accepted; `None`: every one.
    pub kinds: Option<Vec<Kind>>,
    /// The workspace that the asker is bound to, beyond which it may learn nothing.
    pub askers_workspace_id: Option<String>,
}

/// An HTTP request, by method and path.
#[derive(Debug, Clone)]
pub struct Route {
    /// Such as `GET`.
    pub method: String,
    /// Such as `/arvados/v1/collections`, without a query.
    pub path: String,
}

/// Why a token may not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Not proved, or not for this asker to know.
    NotFound,
    /// From its `expires_at` on, or its secret was replaced.
    Expired,
    /// By name, by leaving its workspace, or with all of its user's.
    Revoked,
    /// Its user is inactive or deleted.
    OwnerInactive,
    /// Its workspace or that one's organization is inactive.
    WorkspaceInactive,
    /// It is not for the workspace asked about.
    WrongWorkspace,
    /// It may not be used from that address, or the address is unknown.
    IpNotAllowed,
    /// Its scopes do not allow what is required; the scopes that it lacks.
    InsufficientScope(Vec<Scope>),
}

/// The answer about a token whose secret was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may be used.
    Active,
    /// It may not.
    Refused(Reason),
}

impl Found {
    /// What the system root token proves: the system user, and all that it may.
    #[must_use]
    pub fn root(cluster: &ClusterId) -> Self {
        let user = cluster.system_user();
        Self {
            credential: Credential {
                id: cluster.root_id(),
                user_id: user.clone(),
                workspace: None,
                scopes: vec!["all".to_owned()],
                allowed_ips: AllowedIps::default(),
                created_at: Timestamp::MIN,
                updated_at: Timestamp::MIN,
                expires_at: None,
                revoked_at: None,
                ended: false,
                created_by_user_id: user.clone(),
                created_by_token_id: None,
                detail: Detail::SystemRoot,
            },
            secret: Secret {
                id: String::new(),
                state: SecretState::Current,
                shown: String::new(),
                created_at: Timestamp::MIN,
                expires_at: None,
                proved_at: None,
                pepper_id: None,
                reuse_noted: false,
            },
            owner: Owner {
                id: user,
                external_id: None,
                handle: "system".to_owned(),
                is_admin: true,
                is_active: true,
            },
            workspace: None,
            required_organization_id: None,
            member_of_required: false,
            member_of_askers: false,
        }
    }

    /// The first instant at which the secret that was presented is no longer good.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        [self.credential.expires_at, self.secret.expires_at].into_iter().flatten().min()
    }

    /// Whether the credential may be used at `now` for what is required: the
    /// one place that decides it. The first reason in the order below counts.
    #[must_use]
    pub fn verdict(&self, requirement: &Requirement, now: Timestamp) -> Verdict {
        match self.reason_against(requirement, now) {
            Some(reason) => Verdict::Refused(reason),
            None => Verdict::Active,
        }
    }

    fn reason_against(&self, requirement: &Requirement, now: Timestamp) -> Option<Reason> {
        if !self.may_be_known_by(requirement) {
            return Some(Reason::NotFound);
        }
        if let Some(reason) = self.dead(now) {
            return Some(reason);
        }
        if !self.serves_in(requirement) {
            return Some(Reason::WrongWorkspace);
        }
        if !self.credential.allowed_ips.allow(requirement.client_ip) {
            return Some(Reason::IpNotAllowed);
        }
        self.missing(requirement).map(Reason::InsufficientScope)
    }

    fn may_be_known_by(&self, requirement: &Requirement) -> bool {
        let kind_accepted =
            requirement.kinds.as_ref().is_none_or(|kinds| kinds.contains(&self.credential.kind()));
        let within_reach = match (&requirement.askers_workspace_id, &self.credential.workspace) {
            (None, _) => true,
            (Some(askers), Some(bound)) => bound.workspace_id == *askers,
            (Some(_), None) => self.member_of_askers,
        };
        kind_accepted && within_reach
    }

    /// Why it may be used for nothing at all, if so.
    fn dead(&self, now: Timestamp) -> Option<Reason> {
        let secret_over = self.secret.expires_at.is_some_and(|end| end <= now);
        let superseded = match self.secret.state {
            SecretState::Superseded => true,
            SecretState::Pending | SecretState::Current => false,
        };
        match self.credential.status(now) {
            Status::Revoked => return Some(Reason::Revoked),
            Status::Expired => return Some(Reason::Expired),
            Status::Active if superseded || secret_over => return Some(Reason::Expired),
            Status::Active => {}
        }
        if !self.owner.is_active {
            return Some(Reason::OwnerInactive);
        }
        match &self.workspace {
            Some(workspace) if !(workspace.is_active && workspace.organization.is_active) => {
                Some(Reason::WorkspaceInactive)
            }
            Some(_) | None => None,
        }
    }

    fn serves_in(&self, requirement: &Requirement) -> bool {
        let Some(required) = &requirement.workspace_id else { return true };
        // Who is a member of other workspaces is not for a bound asker to know.
        if requirement.askers_workspace_id.as_ref().is_some_and(|askers| askers != required) {
            return false;
        }
        match &self.credential.workspace {
            Some(bound) => bound.workspace_id == *required,
            None => self.member_of_required,
        }
    }

    /// The required scopes that it lacks, or none of them by name where its kind
    /// cannot meet the requirement at all; `None` where it meets it.
    fn missing(&self, requirement: &Requirement) -> Option<Vec<Scope>> {
        let (missing, route_met) = match self.credential.kind() {
            Kind::PersonalAccessToken => {
                let held: ScopeSet =
                    self.credential.scopes.iter().filter_map(|text| text.parse().ok()).collect();
                (held.missing(&requirement.scopes), !requirement.scopes.is_empty())
            }
            Kind::ApiClientAuthorization | Kind::SystemRoot => {
                let scopes = &self.credential.scopes;
                let all = scopes.iter().any(|scope| scope == "all");
                let missing =
                    if all { Vec::new() } else { requirement.scopes.iter().cloned().collect() };
                let route_met = requirement
                    .route
                    .as_ref()
                    .is_some_and(|route| route_allowed(scopes, &route.method, &route.path));
                (missing, route_met)
            }
        };
        let met = missing.is_empty() && (requirement.route.is_none() || route_met);
        (!met).then_some(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AllowedIps, CredentialId, Detail, WorkspaceBinding};

    const NOW: i64 = 1_000_000;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros).unwrap()
    }

    fn user() -> UserId {
        "zzzzz-tpzed-000000000000001".parse().unwrap()
    }

    fn found(scopes: &[&str]) -> Found {
        Found {
            credential: Credential {
                id: CredentialId("1".to_owned()),
                user_id: user(),
                workspace: None,
                scopes: scopes.iter().map(ToString::to_string).collect(),
                allowed_ips: AllowedIps::default(),
                created_at: at(0),
                updated_at: at(0),
                expires_at: None,
                revoked_at: None,
                ended: false,
                created_by_user_id: user(),
                created_by_token_id: None,
                detail: Detail::PersonalAccessToken {
                    name: "ci".parse().unwrap(),
                    description: "".parse().unwrap(),
                },
            },
            secret: Secret {
                id: "s".to_owned(),
                state: SecretState::Current,
                shown: "pat_00000000".to_owned(),
                created_at: at(0),
                expires_at: None,
                proved_at: None,
                pepper_id: None,
                reuse_noted: false,
            },
            owner: Owner {
                id: user(),
                external_id: None,
                handle: "alice".to_owned(),
                is_admin: false,
                is_active: true,
            },
            workspace: None,
            required_organization_id: None,
            member_of_required: false,
            member_of_askers: false,
        }
    }

    fn bound() -> Found {
        let mut bound = found(&[]);
        bound.credential.workspace = Some(WorkspaceBinding {
            workspace_id: "w".to_owned(),
            organization_id: "o".to_owned(),
            membership_id: "m".to_owned(),
        });
        let organization = Organization { id: "o".to_owned(), external_id: None, is_active: true };
        let workspace =
            Workspace { id: "w".to_owned(), external_id: None, is_active: true, organization };
        bound.workspace = Some(workspace);
        bound
    }

    fn reason(found: &Found, requirement: &Requirement) -> Option<Reason> {
        match found.verdict(requirement, at(NOW)) {
            Verdict::Active => None,
            Verdict::Refused(reason) => Some(reason),
        }
    }

    fn anything() -> Requirement {
        Requirement::default()
    }

    fn scopes(texts: &[&str]) -> ScopeSet {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn token_is_expired_from_its_expires_at_on() {
        let mut token = found(&[]);
        token.credential.expires_at = Some(at(NOW + 1));
        assert_eq!(reason(&token, &anything()), None);
        token.credential.expires_at = Some(at(NOW));
        assert_eq!(reason(&token, &anything()), Some(Reason::Expired));
        token.credential.revoked_at = Some(at(NOW + 5));
        assert_eq!(reason(&token, &anything()), Some(Reason::Revoked));
    }

    #[test]
    fn token_made_in_the_future_is_good() {
        let mut token = found(&[]);
        token.credential.created_at = at(NOW + 1_000_000);
        assert_eq!(reason(&token, &anything()), None);
    }

    #[test]
    fn replaced_secret_is_expired() {
        let mut superseded = found(&[]);
        superseded.secret.state = SecretState::Superseded;
        assert_eq!(reason(&superseded, &anything()), Some(Reason::Expired));
        let mut overlap = found(&[]);
        overlap.secret.expires_at = Some(at(NOW));
        assert_eq!(reason(&overlap, &anything()), Some(Reason::Expired));
        overlap.secret.expires_at = Some(at(NOW + 1));
        assert_eq!(reason(&overlap, &anything()), None);
    }

    #[test]
    fn revoked_with_others_is_revoked_though_it_would_have_expired() {
        let mut token = found(&[]);
        token.credential.ended = true;
        assert_eq!(reason(&token, &anything()), Some(Reason::Revoked));
        token.credential.expires_at = Some(at(0));
        assert_eq!(reason(&token, &anything()), Some(Reason::Revoked));
    }

    #[test]
    fn inactive_owner_workspace_or_organization_refuses() {
        let mut owner = found(&["admin:all"]);
        owner.owner.is_active = false;
        assert_eq!(reason(&owner, &anything()), Some(Reason::OwnerInactive));
        let mut workspace = bound();
        workspace.workspace.as_mut().unwrap().is_active = false;
        assert_eq!(reason(&workspace, &anything()), Some(Reason::WorkspaceInactive));
        let mut organization = bound();
        organization.workspace.as_mut().unwrap().organization.is_active = false;
        assert_eq!(reason(&organization, &anything()), Some(Reason::WorkspaceInactive));
    }

    #[test]
    fn bound_token_serves_in_its_workspace_alone_and_unbound_where_its_owner_is_a_member() {
        let required =
            |id: &str| Requirement { workspace_id: Some(id.to_owned()), ..Requirement::default() };
        assert_eq!(reason(&bound(), &required("w")), None);
        assert_eq!(reason(&bound(), &required("v")), Some(Reason::WrongWorkspace));
        let mut unbound = found(&[]);
        assert_eq!(reason(&unbound, &required("w")), Some(Reason::WrongWorkspace));
        unbound.member_of_required = true;
        assert_eq!(reason(&unbound, &required("w")), None);
    }

    #[test]
    fn bound_asker_learns_nothing_beyond_its_workspace() {
        let asker = |id: &str| Requirement {
            askers_workspace_id: Some(id.to_owned()),
            ..Requirement::default()
        };
        assert_eq!(reason(&bound(), &asker("w")), None);
        let mut revoked = bound();
        revoked.credential.revoked_at = Some(at(0));
        assert_eq!(reason(&revoked, &asker("v")), Some(Reason::NotFound));
        let mut unbound = found(&[]);
        assert_eq!(reason(&unbound, &asker("w")), Some(Reason::NotFound));
        unbound.member_of_askers = true;
        assert_eq!(reason(&unbound, &asker("w")), None);
        unbound.member_of_required = true;
        let of_another = Requirement { workspace_id: Some("v".to_owned()), ..asker("w") };
        assert_eq!(reason(&unbound, &of_another), Some(Reason::WrongWorkspace));
    }

    #[test]
    fn kinds_that_are_not_accepted_are_not_found() {
        let accepting =
            |kinds: &[Kind]| Requirement { kinds: Some(kinds.to_vec()), ..Requirement::default() };
        let both = [Kind::ApiClientAuthorization, Kind::PersonalAccessToken];
        assert_eq!(reason(&found(&[]), &accepting(&both)), None);
        assert_eq!(reason(&found(&[]), &accepting(&both[..1])), Some(Reason::NotFound));
        assert_eq!(reason(&found(&[]), &accepting(&[])), Some(Reason::NotFound));
    }

    #[test]
    fn ip_list_fails_closed_without_an_address() {
        let mut token = found(&[]);
        token.credential.allowed_ips.push("10.0.0.0/8").unwrap();
        let from = |ip: &str| Requirement { client_ip: ip.parse().ok(), ..Requirement::default() };
        assert_eq!(reason(&token, &from("10.1.1.1")), None);
        assert_eq!(reason(&token, &from("11.1.1.1")), Some(Reason::IpNotAllowed));
        assert_eq!(reason(&token, &anything()), Some(Reason::IpNotAllowed));
    }

    #[test]
    fn every_required_scope_must_be_covered() {
        let requirement = Requirement {
            scopes: scopes(&["read:notes", "write:notes", "verify:tokens"]),
            ..Requirement::default()
        };
        let missing = scopes(&["write:notes", "verify:tokens"]).iter().cloned().collect();
        assert_eq!(
            reason(&found(&["read:*"]), &requirement),
            Some(Reason::InsufficientScope(missing))
        );
        assert_eq!(reason(&found(&["admin:all"]), &requirement), None);
    }

    #[test]
    fn route_is_met_by_a_personal_access_token_only_with_scopes_beside_it() {
        let route = Some(Route { method: "GET".to_owned(), path: "/x".to_owned() });
        let alone = Requirement { route: route.clone(), ..Requirement::default() };
        let beside = Requirement { route, scopes: scopes(&["read:x"]), ..Requirement::default() };
        let token = found(&["read:*"]);
        assert_eq!(reason(&token, &alone), Some(Reason::InsufficientScope(vec![])));
        assert_eq!(reason(&token, &beside), None);
    }

    #[test]
    fn api_client_authorization_meets_scopes_only_with_all() {
        let mut token = found(&["GET /x"]);
        token.credential.detail =
            Detail::ApiClientAuthorization { api_client_id: None, created_by_ip: None };
        let scopes = Requirement { scopes: scopes(&["read:x"]), ..Requirement::default() };
        let route = Requirement {
            route: Some(Route { method: "GET".to_owned(), path: "/x".to_owned() }),
            ..Requirement::default()
        };
        assert!(matches!(reason(&token, &scopes), Some(Reason::InsufficientScope(_))));
        assert_eq!(reason(&token, &route), None);
        token.credential.scopes = vec!["all".to_owned()];
        assert_eq!(reason(&token, &scopes), None);
        assert_eq!(reason(&token, &route), None);
    }
}
