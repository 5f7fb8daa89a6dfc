use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::{
    AllowedIps, Description, Invalid, PepperId, Timestamp, TokenName, UserId, token::is_base36,
};

/// The type code of API client authorizations in Arvados' ids.
pub(super) const AUTHORIZATION_CODE: &str = "gj3su";

/// A credential's public id: a UUIDv7 for a personal access token,
/// `{cluster}-gj3su-{15}` for an API client authorization.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialId(pub String);

impl CredentialId {
    /// The uuid of an API client authorization, of whichever cluster.
    ///
    /// # Errors
    ///
    /// It is not one.
    pub fn of_authorization(text: &str) -> Result<Self, Invalid> {
        if is_authorization_uuid(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new("is not the uuid of an API client authorization"))
        }
    }
}

pub(super) fn is_authorization_uuid(text: &str) -> bool {
    let mut parts = text.split('-');
    parts.next().is_some_and(|cluster| is_base36(cluster, 5))
        && parts.next() == Some(AUTHORIZATION_CODE)
        && parts.next().is_some_and(|digits| is_base36(digits, 15))
        && parts.next().is_none()
}

/// The kinds of credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Spatio's.
    PersonalAccessToken,
    /// Arvados'.
    ApiClientAuthorization,
    /// The token in the configuration, which is in no store.
    SystemRoot,
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
    /// Of the system root token.
    SystemRoot,
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
    /// Which of the kinds has this.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::PersonalAccessToken { .. } => Kind::PersonalAccessToken,
            Self::ApiClientAuthorization { .. } => Kind::ApiClientAuthorization,
            Self::SystemRoot => Kind::SystemRoot,
        }
    }
}

impl Credential {
    /// Which of the kinds it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.detail.kind()
    }

    /// Opaque text that differs once what callers may change of it was changed.
    #[must_use]
    pub fn etag(&self) -> String {
        let api_client_id = match &self.detail {
            Detail::ApiClientAuthorization { api_client_id, .. } => *api_client_id,
            Detail::PersonalAccessToken { .. } | Detail::SystemRoot => None,
        };
        let expires_at = self.expires_at.map(Timestamp::as_micros);
        let changeable = serde_json::json!([
            self.id.0,
            self.user_id.as_str(),
            self.scopes,
            expires_at,
            api_client_id,
        ]);
        let digest = Sha256::digest(changeable.to_string());
        URL_SAFE_NO_PAD.encode(&digest[..12])
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
