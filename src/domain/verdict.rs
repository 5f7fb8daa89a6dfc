use std::net::IpAddr;

use smallvec::SmallVec;

use super::{
    AllowedIps, ClusterId, Credential, Detail, ExternalId, Invalid, Kind, Secret, SecretState,
    Timestamp, UserId, covers, route_allowed,
    scope::{holds_all, joins},
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
pub struct Requirement<'a> {
    /// All of these [scopes](super::is_scope) must be covered.
    pub scopes: SmallVec<[&'a str; 8]>,
    /// This HTTP request must be allowed.
    pub route: Option<Route<'a>>,
    /// It must serve in this workspace: be bound to it, or be unbound and its
    /// owner a member.
    pub workspace_id: Option<&'a str>,
    /// Where the token's holder called from.
    pub client_ip: Option<IpAddr>,
    /// Kinds that are accepted.
    pub kinds: Kinds,
    /// The workspace that the asker is bound to, beyond which it may learn nothing.
    pub askers_workspace_id: Option<&'a str>,
    /// The token with which it is asked, to be noted with the use and judged by nothing;
    /// `None`: it is presented to this service itself.
    pub verifier_id: Option<&'a str>,
}

impl<'a> Requirement<'a> {
    /// Requires one more scope.
    ///
    /// # Errors
    ///
    /// The text is no scope, or as many are required as a token may carry.
    pub fn require(&mut self, scope: &'a str) -> Result<(), Invalid> {
        if joins(scope, self.scopes.iter().copied())? {
            self.scopes.push(scope);
        }
        Ok(())
    }
}

/// An HTTP request, by method and path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route<'a> {
    /// Such as `GET`.
    pub method: &'a str,
    /// Such as `/arvados/v1/collections`, without a query.
    pub path: &'a str,
}

/// The longest path that is judged, in bytes.
const MAX_PATH: usize = 8 * 1024;

impl Route<'_> {
    /// Checks that the method is one, in capital letters.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn check_method(&self) -> Result<(), Invalid> {
        let is_method = (1..=32).contains(&self.method.len())
            && self.method.bytes().all(|b| b.is_ascii_uppercase());
        is_method
            .then_some(())
            .ok_or_else(|| Invalid::new("must be an HTTP method in capital letters"))
    }

    /// Checks that the path is one, without a query.
    ///
    /// # Errors
    ///
    /// It is not, or is longer than 8 KiB.
    pub fn check_path(&self) -> Result<(), Invalid> {
        let path = self.path;
        let has = |is_bad: fn(u8) -> bool| path.bytes().fold(false, |has, b| has | is_bad(b));
        let is_path = path.starts_with('/')
            && path.len() <= MAX_PATH
            && !has(|b| b == b'?' || b == b'#' || b.is_ascii_control())
            // Beyond ASCII there are a few more, which take longer to look for.
            && (path.is_ascii() || !path.contains(char::is_control));
        is_path
            .then_some(())
            .ok_or_else(|| Invalid::new("must be a path that starts with / and has no query"))
    }
}

/// Whether a text may be the id of a workspace in a question.
#[must_use]
pub fn may_be_workspace_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= 64 && !id.contains('\0')
}

/// Some kinds of credential; where none is named, every one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds(u8);

impl Kinds {
    /// Every kind.
    pub const ANY: Self = Self(0);

    /// Names one more.
    pub fn insert(&mut self, kind: Kind) {
        self.0 |= bit(kind);
    }

    /// Whether it is one of these.
    #[must_use]
    pub fn contains(self, kind: Kind) -> bool {
        self == Self::ANY || self.0 & bit(kind) != 0
    }
}

fn bit(kind: Kind) -> u8 {
    match kind {
        Kind::PersonalAccessToken => 1,
        Kind::ApiClientAuthorization => 2,
        Kind::SystemRoot => 4,
    }
}

impl FromIterator<Kind> for Kinds {
    fn from_iter<I: IntoIterator<Item = Kind>>(kinds: I) -> Self {
        let mut set = Self::ANY;
        kinds.into_iter().for_each(|kind| set.insert(kind));
        set
    }
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
    InsufficientScope(Vec<String>),
}

impl Reason {
    /// The scopes that were required and are not covered, where they are the reason.
    #[must_use]
    pub fn missing_scopes(&self) -> &[String] {
        match self {
            Self::InsufficientScope(missing) => missing,
            Self::NotFound
            | Self::Expired
            | Self::Revoked
            | Self::OwnerInactive
            | Self::WorkspaceInactive
            | Self::WrongWorkspace
            | Self::IpNotAllowed => &[],
        }
    }
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

    /// What of it decides.
    #[must_use]
    pub fn facts(&self) -> Facts<'_> {
        let credential = &self.credential;
        Facts {
            kind: credential.kind(),
            workspace_id: credential.workspace.as_ref().map(|bound| bound.workspace_id.as_str()),
            revoked: credential.revoked_at.is_some() || credential.ended,
            superseded: match self.secret.state {
                SecretState::Superseded => true,
                SecretState::Pending | SecretState::Current => false,
            },
            expires_at: self.expires_at(),
            owner_is_active: self.owner.is_active,
            workspace_is_active: self
                .workspace
                .as_ref()
                .is_none_or(|workspace| workspace.is_active && workspace.organization.is_active),
            allowed_ips: Some(&credential.allowed_ips),
            member_of_required: self.member_of_required,
            member_of_askers: self.member_of_askers,
        }
    }

    /// Whether the credential may be used at `now` for what is required, by
    /// [its facts](Facts::verdict).
    #[must_use]
    pub fn verdict(&self, requirement: &Requirement<'_>, now: Timestamp) -> Verdict {
        let scopes = self.credential.scopes.iter().map(String::as_str);
        self.facts().verdict(scopes, requirement, now)
    }
}

/// What of a credential and of the secret that was proved decides whether it may be
/// used, beside its scopes.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Which of the kinds it is.
    pub kind: Kind,
    /// The workspace that it is bound to.
    pub workspace_id: Option<&'a str>,
    /// Whether it was revoked, by itself or with others.
    pub revoked: bool,
    /// Whether the secret was replaced.
    pub superseded: bool,
    /// The first instant at which the secret is no longer good.
    pub expires_at: Option<Timestamp>,
    /// Whether its user is active.
    pub owner_is_active: bool,
    /// Whether its workspace and that one's organization are active; it is bound to
    /// none: yes.
    pub workspace_is_active: bool,
    /// Where it may be used from; `None`: anywhere.
    pub allowed_ips: Option<&'a AllowedIps>,
    /// Whether the owner is a member of the workspace that the question names.
    pub member_of_required: bool,
    /// Whether the owner is a member of the workspace that the asker is bound to.
    pub member_of_askers: bool,
}

impl Facts<'_> {
    /// Whether a credential with these `scopes` may be used at `now` for what is
    /// required: the one place that decides it. The first reason in the order below
    /// counts.
    #[must_use]
    pub fn verdict<'s>(
        &self,
        scopes: impl Iterator<Item = &'s str> + Clone,
        requirement: &Requirement<'_>,
        now: Timestamp,
    ) -> Verdict {
        match self.reason_against(scopes, requirement, now) {
            Some(reason) => Verdict::Refused(reason),
            None => Verdict::Active,
        }
    }

    fn reason_against<'s>(
        &self,
        scopes: impl Iterator<Item = &'s str> + Clone,
        requirement: &Requirement<'_>,
        now: Timestamp,
    ) -> Option<Reason> {
        if !self.may_be_known_by(requirement) {
            return Some(Reason::NotFound);
        }
        if let Some(reason) = self.dead(now) {
            return Some(reason);
        }
        if !self.serves_in(requirement) {
            return Some(Reason::WrongWorkspace);
        }
        if !self.allowed_ips.is_none_or(|allowed| allowed.allow(requirement.client_ip)) {
            return Some(Reason::IpNotAllowed);
        }
        self.missing(scopes, requirement).map(Reason::InsufficientScope)
    }

    fn may_be_known_by(&self, requirement: &Requirement<'_>) -> bool {
        let within_reach = match (requirement.askers_workspace_id, self.workspace_id) {
            (None, _) => true,
            (Some(askers), Some(bound)) => bound == askers,
            (Some(_), None) => self.member_of_askers,
        };
        requirement.kinds.contains(self.kind) && within_reach
    }

    /// Why it may be used for nothing at all, if so.
    fn dead(&self, now: Timestamp) -> Option<Reason> {
        if self.revoked {
            Some(Reason::Revoked)
        } else if self.superseded || self.expires_at.is_some_and(|end| end <= now) {
            Some(Reason::Expired)
        } else if !self.owner_is_active {
            Some(Reason::OwnerInactive)
        } else if !self.workspace_is_active {
            Some(Reason::WorkspaceInactive)
        } else {
            None
        }
    }

    fn serves_in(&self, requirement: &Requirement<'_>) -> bool {
        let Some(required) = requirement.workspace_id else { return true };
        // Who is a member of other workspaces is not for a bound asker to know.
        if requirement.askers_workspace_id.is_some_and(|askers| askers != required) {
            return false;
        }
        self.workspace_id.map_or(self.member_of_required, |bound| bound == required)
    }

    /// The required scopes that it lacks, or none of them by name where its kind
    /// cannot meet the requirement at all; `None` where it meets it.
    fn missing<'s>(
        &self,
        scopes: impl Iterator<Item = &'s str> + Clone,
        requirement: &Requirement<'_>,
    ) -> Option<Vec<String>> {
        let required = requirement.scopes.iter().copied();
        let (missing, route_met) = match self.kind {
            Kind::PersonalAccessToken => {
                let mut lacking = requirement.scopes.clone();
                for held in scopes {
                    if lacking.is_empty() {
                        break;
                    }
                    lacking.retain(|wanted| !covers(held, wanted));
                }
                (texts(lacking.into_iter()), !requirement.scopes.is_empty())
            }
            Kind::ApiClientAuthorization | Kind::SystemRoot => {
                let holds_all = holds_all(scopes.clone());
                let route_met = requirement
                    .route
                    .is_some_and(|route| route_allowed(scopes, route.method, route.path));
                (texts(required.filter(|_| !holds_all)), route_met)
            }
        };
        let met = missing.is_empty() && (requirement.route.is_none() || route_met);
        (!met).then_some(missing)
    }
}

fn texts<'a>(scopes: impl Iterator<Item = &'a str>) -> Vec<String> {
    scopes.map(ToOwned::to_owned).collect()
}

#[cfg(test)]
mod tests;
