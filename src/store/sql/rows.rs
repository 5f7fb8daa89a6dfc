//! From rows to the domain's types and back. What does not parse is a fault of
//! the store, not an absence.

use std::{fmt::Display, str::FromStr};

use sqlx::FromRow;

use crate::{
    domain::{
        AllowedIps, Credential, CredentialId, Detail, Found, Kind, Organization, Owner, Revision,
        Secret, SecretState, Timestamp, User, UserKind, Workspace, WorkspaceBinding,
    },
    store::{Kept, StoreError},
};

/// The columns of [`CredentialRow`], from `credentials c` and `secrets s`.
macro_rules! credential_columns {
    () => {
        "c.id, c.kind, c.user_id, c.workspace_id, c.organization_id, c.membership_id, c.name, \
         c.description, c.scopes, c.allowed_ips, c.api_client_id, c.created_by_ip, \
         c.created_by_user_id, c.created_by_token_id, c.created_at, c.updated_at, c.expires_at, \
         c.revoked_at, s.id AS secret_id, s.state AS secret_state, s.shown AS secret_shown, \
         s.created_at AS secret_created_at, s.expires_at AS secret_expires_at, \
         s.proved_at AS secret_proved_at"
    };
}

/// The columns of [`UserRow`].
macro_rules! user_columns {
    () => {
        "id, handle, display_name, kind, is_admin, is_active, external_id, created_at, updated_at, \
         deleted_at"
    };
}

pub(super) use {credential_columns, user_columns};

#[derive(FromRow)]
pub(super) struct CredentialRow {
    id: String,
    kind: String,
    user_id: String,
    workspace_id: Option<String>,
    organization_id: Option<String>,
    membership_id: Option<String>,
    name: Option<String>,
    description: Option<String>,
    scopes: String,
    allowed_ips: String,
    api_client_id: Option<i64>,
    created_by_ip: Option<String>,
    created_by_user_id: String,
    created_by_token_id: Option<String>,
    created_at: i64,
    updated_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    secret_id: String,
    secret_state: String,
    secret_shown: String,
    secret_created_at: i64,
    secret_expires_at: Option<i64>,
    secret_proved_at: Option<i64>,
}

#[derive(FromRow)]
pub(super) struct KeptRow {
    #[sqlx(flatten)]
    credential: CredentialRow,
    last_used_at: Option<i64>,
    last_used_ip: Option<String>,
}

/// The row of a verification when something was found.
#[derive(FromRow)]
pub(super) struct FoundRow {
    #[sqlx(flatten)]
    credential: CredentialRow,
    user_external_id: Option<String>,
    user_handle: String,
    user_is_admin: bool,
    user_is_active: bool,
    workspace_external_id: Option<String>,
    workspace_is_active: Option<bool>,
    organization_external_id: Option<String>,
    organization_is_active: Option<bool>,
    is_member: bool,
    outdated: bool,
    member_of_required: bool,
    member_of_askers: bool,
}

/// The head of the history, in the row of a verification.
#[derive(FromRow)]
pub(super) struct HeadRow {
    head_number: i64,
    head_mark: i64,
}

#[derive(FromRow)]
pub(super) struct UserRow {
    id: String,
    handle: String,
    display_name: Option<String>,
    kind: String,
    is_admin: bool,
    is_active: bool,
    external_id: Option<String>,
    created_at: i64,
    updated_at: i64,
    deleted_at: Option<i64>,
}

impl CredentialRow {
    fn split(self) -> Result<(Credential, Secret), StoreError> {
        let secret = Secret {
            id: self.secret_id,
            state: match self.secret_state.as_str() {
                "pending" => SecretState::Pending,
                "current" => SecretState::Current,
                "superseded" => SecretState::Superseded,
                _ => return Err(unreadable("secrets.state")),
            },
            shown: self.secret_shown,
            created_at: time(self.secret_created_at)?,
            expires_at: self.secret_expires_at.map(time).transpose()?,
            proved_at: self.secret_proved_at.map(time).transpose()?,
        };
        let workspace = match (self.workspace_id, self.organization_id, self.membership_id) {
            (Some(workspace_id), Some(organization_id), Some(membership_id)) => {
                Some(WorkspaceBinding { workspace_id, organization_id, membership_id })
            }
            _ => None,
        };
        let detail = match kind_from(&self.kind)? {
            Kind::PersonalAccessToken => Detail::PersonalAccessToken {
                name: parsed(self.name.unwrap_or_default())?,
                description: parsed(self.description.unwrap_or_default())?,
            },
            Kind::ApiClientAuthorization => Detail::ApiClientAuthorization {
                api_client_id: self.api_client_id,
                created_by_ip: self.created_by_ip,
            },
        };
        let mut allowed_ips = AllowedIps::default();
        for network in texts(&self.allowed_ips)? {
            allowed_ips.push(&network).map_err(|error| StoreError::Failed(error.into()))?;
        }
        let credential = Credential {
            id: CredentialId(self.id),
            user_id: parsed(self.user_id)?,
            workspace,
            scopes: texts(&self.scopes)?,
            allowed_ips,
            created_at: time(self.created_at)?,
            updated_at: time(self.updated_at)?,
            expires_at: self.expires_at.map(time).transpose()?,
            revoked_at: self.revoked_at.map(time).transpose()?,
            created_by_user_id: parsed(self.created_by_user_id)?,
            created_by_token_id: self.created_by_token_id.map(CredentialId),
            detail,
        };
        Ok((credential, secret))
    }
}

impl TryFrom<KeptRow> for Kept {
    type Error = StoreError;

    fn try_from(row: KeptRow) -> Result<Self, StoreError> {
        let (credential, secret) = row.credential.split()?;
        Ok(Self {
            credential,
            secret,
            last_used_at: row.last_used_at.map(time).transpose()?,
            last_used_ip: row.last_used_ip,
        })
    }
}

impl TryFrom<FoundRow> for Found {
    type Error = StoreError;

    fn try_from(row: FoundRow) -> Result<Self, StoreError> {
        let (credential, secret) = row.credential.split()?;
        let workspace = match &credential.workspace {
            None => None,
            Some(binding) => {
                let organization = Organization {
                    id: binding.organization_id.clone(),
                    external_id: row.organization_external_id.map(parsed).transpose()?,
                    is_active: row.organization_is_active.unwrap_or(false),
                };
                let workspace = Workspace {
                    id: binding.workspace_id.clone(),
                    external_id: row.workspace_external_id.map(parsed).transpose()?,
                    is_active: row.workspace_is_active.unwrap_or(false),
                    organization,
                };
                Some((workspace, row.is_member))
            }
        };
        Ok(Self {
            owner: Owner {
                id: credential.user_id.clone(),
                external_id: row.user_external_id.map(parsed).transpose()?,
                handle: row.user_handle,
                is_admin: row.user_is_admin,
                is_active: row.user_is_active,
            },
            credential,
            secret,
            workspace,
            outdated: row.outdated,
            member_of_required: row.member_of_required,
            member_of_askers: row.member_of_askers,
        })
    }
}

impl From<HeadRow> for Revision {
    fn from(row: HeadRow) -> Self {
        Self { number: row.head_number, mark: row.head_mark }
    }
}

impl TryFrom<UserRow> for User {
    type Error = StoreError;

    fn try_from(row: UserRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: parsed(row.id)?,
            handle: parsed(row.handle)?,
            display_name: row.display_name.map(parsed).transpose()?,
            kind: match row.kind.as_str() {
                "human" => UserKind::Human,
                "service" => UserKind::Service,
                _ => return Err(unreadable("users.kind")),
            },
            is_admin: row.is_admin,
            is_active: row.is_active,
            external_id: row.external_id.map(parsed).transpose()?,
            created_at: time(row.created_at)?,
            updated_at: time(row.updated_at)?,
            deleted_at: row.deleted_at.map(time).transpose()?,
        })
    }
}

pub(super) fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::PersonalAccessToken => "personal_access_token",
        Kind::ApiClientAuthorization => "api_client_authorization",
    }
}

fn kind_from(text: &str) -> Result<Kind, StoreError> {
    [Kind::PersonalAccessToken, Kind::ApiClientAuthorization]
        .into_iter()
        .find(|kind| kind_text(*kind) == text)
        .ok_or_else(|| unreadable("credentials.kind"))
}

pub(super) fn user_kind_text(kind: UserKind) -> &'static str {
    match kind {
        UserKind::Human => "human",
        UserKind::Service => "service",
    }
}

/// A list of texts as it is stored.
pub(super) fn json(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

fn texts(json: &str) -> Result<Vec<String>, StoreError> {
    serde_json::from_str(json).map_err(|error| StoreError::Failed(error.into()))
}

pub(super) fn time(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_micros(micros).ok_or_else(|| unreadable("a time"))
}

/// A text that was parsed before it was stored.
pub(super) fn parsed<T: FromStr<Err: Display>>(text: String) -> Result<T, StoreError> {
    text.parse().map_err(|_| unreadable(std::any::type_name::<T>()))
}

fn unreadable(what: &str) -> StoreError {
    StoreError::Failed(format!("{what} is stored in no form that this program knows").into())
}
