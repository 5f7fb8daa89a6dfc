//! What is asked and what is answered.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use tonic::{Code, Status};

use crate::{
    domain::{
        self, Facts, Kind, Kinds, Requirement, Route, Timestamp, Verdict, may_be_workspace_id,
    },
    proto::v1 as proto,
};

/// A question about a token. Its `Debug` shows nothing of the token.
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub struct Question<'a> {
    /// The token's text as it was presented, without `Bearer`.
    pub token: &'a str,
    /// Scopes that must all be covered. An API client authorization covers them only
    /// with `all`.
    pub required_scopes: &'a [&'a str],
    /// The HTTP request that the token came with, to be judged against `METHOD /path`
    /// scopes. A personal access token meets it only if `required_scopes` is given and met.
    pub route: Option<Route<'a>>,
    /// Id of the workspace that the request is for.
    pub workspace_id: Option<&'a str>,
    /// From where the token was presented. `None`: a token that is limited to addresses
    /// is refused.
    pub client_ip: Option<IpAddr>,
    /// Kinds accepted.
    pub kinds: Kinds,
}

impl<'a> Question<'a> {
    /// Whether this token is good, whatever it may do.
    #[must_use]
    pub fn new(token: &'a str) -> Self {
        Self { token, ..Self::default() }
    }

    /// The token has to cover all of these scopes.
    #[must_use]
    pub fn scopes(mut self, required: &'a [&'a str]) -> Self {
        self.required_scopes = required;
        self
    }

    /// The HTTP request that the token came with has to be allowed by its scopes.
    #[must_use]
    pub fn route(mut self, route: impl Into<Option<Route<'a>>>) -> Self {
        self.route = route.into();
        self
    }

    /// The token has to serve in the workspace with this id.
    #[must_use]
    pub fn workspace(mut self, id: impl Into<Option<&'a str>>) -> Self {
        self.workspace_id = id.into();
        self
    }

    /// From where the token was presented.
    #[must_use]
    pub fn client_ip(mut self, client_ip: impl Into<Option<IpAddr>>) -> Self {
        self.client_ip = client_ip.into();
        self
    }

    /// The token has to be of one of these kinds.
    #[must_use]
    pub fn kinds(mut self, kinds: Kinds) -> Self {
        self.kinds = kinds;
        self
    }

    /// What the token must be good for.
    pub(super) fn requirement(&self) -> Result<Requirement<'a>, Error> {
        let invalid =
            |field, reason: domain::Invalid| Error::Invalid { field, reason: reason.to_string() };
        if self.token.is_empty() {
            let reason = "must not be empty".to_owned();
            return Err(Error::Invalid { field: "token", reason });
        }
        if self.workspace_id.is_some_and(|id| !may_be_workspace_id(id)) {
            let reason = "must be the id of a workspace".to_owned();
            return Err(Error::Invalid { field: "workspace_id", reason });
        }
        if let Some(route) = self.route {
            route.check_method().map_err(|reason| invalid("request_method", reason))?;
            route.check_path().map_err(|reason| invalid("request_path", reason))?;
        }
        let mut requirement = Requirement {
            route: self.route,
            workspace_id: self.workspace_id,
            client_ip: self.client_ip,
            kinds: self.kinds,
            ..Requirement::default()
        };
        for scope in self.required_scopes {
            requirement.require(scope).map_err(|reason| invalid("required_scopes", reason))?;
        }
        Ok(requirement)
    }

    /// The question without what is judged here: scopes, method and path. Whatever the
    /// authority's own setting, it may answer as old as this while its store is away.
    pub(super) fn message(
        &self,
        min_revision: Option<String>,
        max_stale: Duration,
    ) -> proto::VerifyRequest {
        let kinds = [
            (Kind::PersonalAccessToken, proto::TokenKind::PersonalAccessToken),
            (Kind::ApiClientAuthorization, proto::TokenKind::ApiClientAuthorization),
            (Kind::SystemRoot, proto::TokenKind::SystemRoot),
        ];
        let kinds = match self.kinds {
            Kinds::ANY => Vec::new(),
            some => kinds
                .iter()
                .filter(|(kind, _)| some.contains(*kind))
                .map(|(_, k)| *k as i32)
                .collect(),
        };
        proto::VerifyRequest {
            token: self.token.to_owned(),
            workspace_id: self.workspace_id.map(ToOwned::to_owned),
            client_ip: self.client_ip.map(|ip| ip.to_string()),
            kinds,
            consistency: Some(proto::Consistency {
                requirement: min_revision.map(proto::consistency::Requirement::MinRevision),
                max_stale: prost_types::Duration::try_from(max_stale).ok(),
            }),
            ..Default::default()
        }
    }
}

impl fmt::Debug for Question<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Question").finish_non_exhaustive()
    }
}

/// The answer about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It may be used for what was asked.
    #[non_exhaustive]
    Active {
        /// Whose it is, and for what.
        identity: Arc<Identity>,
        /// Whether this is an old answer, since the authority, or its store, could not be
        /// asked.
        stale: bool,
    },
    /// It may not.
    #[non_exhaustive]
    Refused {
        /// Why.
        reason: Reason,
        /// As of an active one.
        stale: bool,
    },
}

impl Answer {
    /// Whose the token is, if it may be used for what was asked.
    #[must_use]
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        match self {
            Self::Active { identity, .. } => Some(identity),
            Self::Refused { .. } => None,
        }
    }

    /// Why the token is refused, if it is.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Active { .. } => None,
            Self::Refused { reason, .. } => Some(reason),
        }
    }

    /// Whether this is an old answer, since nobody could be asked.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        match self {
            Self::Active { stale, .. } | Self::Refused { stale, .. } => *stale,
        }
    }
}

/// What a token that is good proves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// Id of the token: a UUID or, for an API client authorization, its uuid.
    pub token_id: String,
    /// What it is.
    pub kind: Kind,
    /// Id of the user it acts for.
    pub user_id: String,
    /// That user's id in the system it came from.
    pub user_external_id: Option<String>,
    /// Id of the organization of `workspace_id`.
    pub organization_id: Option<String>,
    /// That organization's id in the system it came from.
    pub organization_external_id: Option<String>,
    /// Id of the workspace it is bound to; `None`: not bound.
    pub workspace_id: Option<String>,
    /// That workspace's id in the system it came from.
    pub workspace_external_id: Option<String>,
    /// What it may do.
    pub scopes: Vec<String>,
    /// First instant at which it is no longer good; `None`: never.
    pub expires_at: Option<Timestamp>,
}

impl Identity {
    /// Whether a token of which the authority said that it is good, for the same address,
    /// workspace and kinds, may be used for what is required: what is left of the verdict,
    /// by the same function that the authority decides by. When it expires is looked at
    /// elsewhere.
    pub(super) fn judge(&self, requirement: &Requirement<'_>) -> Result<(), Reason> {
        let facts = Facts {
            kind: self.kind,
            workspace_id: self.workspace_id.as_deref(),
            revoked: false,
            superseded: false,
            expires_at: None,
            owner_is_active: true,
            workspace_is_active: true,
            allowed_ips: None,
            member_of_required: true,
            member_of_askers: true,
        };
        let scopes = self.scopes.iter().map(String::as_str);
        match facts.verdict(scopes, requirement, Timestamp::MIN) {
            Verdict::Active => Ok(()),
            Verdict::Refused(reason) => Err(reason.into()),
        }
    }

    /// About how many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        let texts = [
            Some(&self.token_id),
            Some(&self.user_id),
            self.user_external_id.as_ref(),
            self.organization_id.as_ref(),
            self.organization_external_id.as_ref(),
            self.workspace_id.as_ref(),
            self.workspace_external_id.as_ref(),
        ];
        let scopes = self.scopes.iter().map(|scope| size_of::<String>() + scope.len());
        let texts = texts.into_iter().flatten().map(String::len);
        size_of::<Self>() + texts.sum::<usize>() + scopes.sum::<usize>()
    }
}

impl TryFrom<proto::VerifyResponse> for Identity {
    type Error = Error;

    fn try_from(answer: proto::VerifyResponse) -> Result<Self, Error> {
        let kind = match answer.kind() {
            proto::TokenKind::PersonalAccessToken => Kind::PersonalAccessToken,
            proto::TokenKind::ApiClientAuthorization => Kind::ApiClientAuthorization,
            proto::TokenKind::SystemRoot => Kind::SystemRoot,
            proto::TokenKind::Unspecified => return Err(Error::Garbled("its kind is not known")),
        };
        let expires_at = answer.expires_at.map(to_timestamp).transpose()?;
        Ok(Self {
            token_id: answer.token_id,
            kind,
            user_id: answer.user_id,
            user_external_id: answer.user_external_id,
            organization_id: answer.organization_id,
            organization_external_id: answer.organization_external_id,
            workspace_id: answer.workspace_id,
            workspace_external_id: answer.workspace_external_id,
            scopes: answer.scopes,
            expires_at,
        })
    }
}

pub(super) fn to_timestamp(time: prost_types::Timestamp) -> Result<Timestamp, Error> {
    Timestamp::from_seconds_and_nanos(time.seconds, time.nanos)
        .ok_or(Error::Garbled("a time is out of range"))
}

/// Why a token may not be used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Not proved, or not for this service to know.
    NotFound,
    /// Expired, or its secret was replaced.
    Expired,
    /// Revoked, by itself or with others.
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
    /// One that this version does not know.
    Other,
}

impl Reason {
    /// Whether the token is good, but not for what was asked.
    #[must_use]
    pub fn is_of_request(&self) -> bool {
        match self {
            Self::WrongWorkspace | Self::IpNotAllowed | Self::InsufficientScope(_) => true,
            Self::NotFound
            | Self::Expired
            | Self::Revoked
            | Self::OwnerInactive
            | Self::WorkspaceInactive
            | Self::Other => false,
        }
    }
}

impl From<domain::Reason> for Reason {
    fn from(reason: domain::Reason) -> Self {
        match reason {
            domain::Reason::NotFound => Self::NotFound,
            domain::Reason::Expired => Self::Expired,
            domain::Reason::Revoked => Self::Revoked,
            domain::Reason::OwnerInactive => Self::OwnerInactive,
            domain::Reason::WorkspaceInactive => Self::WorkspaceInactive,
            domain::Reason::WrongWorkspace => Self::WrongWorkspace,
            domain::Reason::IpNotAllowed => Self::IpNotAllowed,
            domain::Reason::InsufficientScope(missing) => Self::InsufficientScope(missing),
        }
    }
}

impl From<&proto::VerifyResponse> for Reason {
    fn from(answer: &proto::VerifyResponse) -> Self {
        match answer.reason() {
            proto::Reason::NotFound => Self::NotFound,
            proto::Reason::Expired => Self::Expired,
            proto::Reason::Revoked => Self::Revoked,
            proto::Reason::OwnerInactive => Self::OwnerInactive,
            proto::Reason::WorkspaceInactive => Self::WorkspaceInactive,
            proto::Reason::WrongWorkspace => Self::WrongWorkspace,
            proto::Reason::IpNotAllowed => Self::IpNotAllowed,
            proto::Reason::InsufficientScope => Self::InsufficientScope(Vec::new()),
            proto::Reason::Unspecified => Self::Other,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound | Self::Other => "the token is not good",
            Self::Expired => "the token has expired",
            Self::Revoked => "the token was revoked",
            Self::OwnerInactive => "the token's user is inactive",
            Self::WorkspaceInactive => "the token's workspace is inactive",
            Self::WrongWorkspace => "the token is not for this workspace",
            Self::IpNotAllowed => "the token may not be used from this address",
            Self::InsufficientScope(_) => "the token's scopes do not allow this",
        })
    }
}

/// Why a question has no answer, which nobody must take for a no.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or a file of the client is not as it must be.
    #[error("{0}")]
    Options(String),
    /// A field of the question holds what it may not; named as in the proto.
    #[error("{field} {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The authority can't be reached, or can't answer now.
    #[error("the authority is unavailable: {0}")]
    Unavailable(String),
    /// The authority did not answer in time.
    #[error("the authority did not answer in time")]
    TimedOut,
    /// The authority refuses the token that this service itself presents.
    #[error("the authority refuses this service's own token: {0}")]
    OwnToken(String),
    /// The authority answered with another error.
    #[error("the authority answered {code:?}: {message}")]
    Failed {
        /// Its code.
        code: Code,
        /// What it said.
        message: String,
    },
    /// The authority's answer makes no sense to this version.
    #[error("the authority's answer is not understood: {0}")]
    Garbled(&'static str),
}

impl Error {
    /// Whether the authority's history does not have what was received of it: that is another
    /// one, and what is kept will be dropped.
    pub(super) fn is_of_revision(&self) -> bool {
        matches!(self, Self::Failed { code: Code::FailedPrecondition, .. })
    }

    /// Whether nobody could be asked, which may pass.
    #[must_use]
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::TimedOut => true,
            Self::Options(_)
            | Self::Invalid { .. }
            | Self::OwnToken(_)
            | Self::Failed { .. }
            | Self::Garbled(_) => false,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let message = status.message().to_owned();
        let code = status.code();
        if code == Code::DeadlineExceeded {
            Self::TimedOut
        } else if [Code::Unauthenticated, Code::PermissionDenied].contains(&code) {
            Self::OwnToken(message)
        } else if [Code::Unavailable, Code::ResourceExhausted].contains(&code)
            // The connection broke.
            || std::error::Error::source(&status).is_some()
        {
            Self::Unavailable(message)
        } else {
            Self::Failed { code, message }
        }
    }
}
