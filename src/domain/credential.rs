use super::{AllowedIps, Description, PepperId, Timestamp, TokenName, UserId};

/// A credential's public id: a UUIDv7 for a personal access token,
/// `{cluster}-gj3su-{15}` for an API client authorization.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialId(pub String);

/// The two kinds of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Spatio's.
    PersonalAccessToken,
    /// Arvados'.
    ApiClientAuthorization,
}

/// The record behind a token: one core for both kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Its public name.
    pub id: CredentialId,
    /// As whom its holder acts.
    pub user_id: UserId,
    /// The workspace it is bound to.
    pub workspace: Option<WorkspaceBinding>,
    /// What it may be used for, in its kind's grammar.
    pub scopes: Vec<String>,
    /// Where it may be used from.
    pub allowed_ips: AllowedIps,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// The first instant at which it is no longer active; `None`: never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked, if it was by itself, or that it was with others is noted.
    pub revoked_at: Option<Timestamp>,
    /// Whether it was revoked with others since it was made: all of its user,
    /// workspace, organization or store, or those of a member who left.
    pub ended: bool,
    /// Who made it.
    pub created_by_user_id: UserId,
    /// With which credential; `None`: none, at the first start.
    pub created_by_token_id: Option<CredentialId>,
    /// What only its kind has.
    pub detail: Detail,
}

/// What the kinds do not share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detail {
    /// Of a personal access token.
    PersonalAccessToken {
        /// What its owner calls it.
        name: TokenName,
        /// What it is for.
        description: Description,
    },
    /// Of an API client authorization.
    ApiClientAuthorization {
        /// The client application's number.
        api_client_id: Option<i64>,
        /// Where its creator called from.
        created_by_ip: Option<String>,
    },
}

/// The workspace that a credential is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceBinding {
    /// The workspace.
    pub workspace_id: String,
    /// The organization that it is part of.
    pub organization_id: String,
    /// The membership under which it was bound: when that ends, so does the token.
    pub membership_id: String,
}

/// One of a credential's proofs, as far as it may be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// Its row.
    pub id: String,
    /// Where it stands in a rotation.
    pub state: SecretState,
    /// The prefix and first digits.
    pub shown: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// The end of its overlap with its successor.
    pub expires_at: Option<Timestamp>,
    /// When it was first proved; `None`: not yet, so a repeat of the request
    /// that made it may still replace it.
    pub proved_at: Option<Timestamp>,
    /// Under which pepper it is digested.
    pub pepper_id: Option<PepperId>,
    /// Whether it was noted that it was shown again after it was replaced.
    pub reuse_noted: bool,
}

/// Where a secret stands in a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretState {
    /// Made by a rotation and not yet proved.
    Pending,
    /// The one in use.
    Current,
    /// Replaced.
    Superseded,
}

/// Whether a credential may be used, whatever for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It may.
    Active,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl Detail {
    /// Which of the two kinds has this.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::PersonalAccessToken { .. } => Kind::PersonalAccessToken,
            Self::ApiClientAuthorization { .. } => Kind::ApiClientAuthorization,
        }
    }
}

impl Credential {
    /// Which of the two kinds it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.detail.kind()
    }

    /// The status at `now`: the one place that decides it.
    ///
    /// A credential is expired from its `expires_at` on, that instant included.
    /// One that was revoked says so even after it would have expired.
    #[must_use]
    pub fn status(&self, now: Timestamp) -> Status {
        match self.expires_at {
            _ if self.revoked_at.is_some() || self.ended => Status::Revoked,
            Some(expires_at) if expires_at <= now => Status::Expired,
            Some(_) | None => Status::Active,
        }
    }
}
