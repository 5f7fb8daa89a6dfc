//! From rows to the domain's types and back. What does not parse is a fault of
//! the store, not an absence.

use std::{fmt::Display, str::FromStr};

use sqlx::FromRow;

use crate::{
    domain::{
        AllowedIps, Container, ContainerKind, Credential, CredentialId, Description, Detail,
        DisplayName, ExternalId, Found, Handle, Kind, Membership, Organization, Owner, PepperId,
        Revision, Sealed, Secret, SecretState, Slug, Timestamp, TokenName, User, UserKind,
        Workspace, WorkspaceBinding,
    },
    store::{Kept, Lookup, StoreError},
};

/// Whether the credential `c` was revoked with others: all of its `store t`, `users
/// u`, `workspaces w` or `organizations o`, or those of a member who left. One that is
/// `unbound` has no workspace.
macro_rules! ended {
    () => {
        concat!(
            "(",
            ended!(unbound),
            " OR coalesce(c.workspace_epoch < w.token_epoch, FALSE) \
             OR coalesce(c.organization_epoch < o.token_epoch, FALSE) \
             OR (c.membership_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM memberships m \
             WHERE m.id = c.membership_id AND m.role <> 'guest')))"
        )
    };
    (unbound) => {
        "(c.store_epoch < t.token_epoch OR c.user_epoch < u.token_epoch)"
    };
}

/// The columns of [`CredentialRow`]: a secret ends with the first proof of the one
/// that follows it, whenever its promotion is written. From `credentials c`, `secrets s`, and what
/// can end a credential with others: `store t`, `users u`, `workspaces w` and
/// `organizations o`.
macro_rules! credential_columns {
    () => {
        concat!(
            "c.id, c.kind, c.user_id, c.workspace_id, c.organization_id, c.membership_id, c.name, \
         c.description, c.scopes, c.allowed_ips, c.api_client_id, c.created_by_ip, \
         c.created_by_user_id, c.created_by_token_id, c.created_at, c.updated_at, c.expires_at, \
         c.revoked_at, s.id AS secret_id, CASE WHEN s.state = 'current' AND EXISTS (SELECT 1 \
         FROM secrets n WHERE n.credential_id = s.credential_id AND n.state = 'pending' \
         AND n.proved_at IS NOT NULL) THEN 'superseded' ELSE s.state END AS secret_state, \
         s.shown AS secret_shown, \
         s.created_at AS secret_created_at, s.expires_at AS secret_expires_at, \
         s.proved_at AS secret_proved_at, s.pepper_id AS secret_pepper_id, \
         s.reused_at IS NOT NULL AS secret_reuse_noted, ",
            ended!(),
            " AS ended"
        )
    };
}

/// Whether somebody who is bound to the workspace `$workspace` may know of the credential
/// `c`; NULL: bound to none.
macro_rules! known_to {
    ($workspace:literal) => {
        concat!(
            "(CAST(",
            $workspace,
            " AS TEXT) IS NULL OR c.workspace_id = ",
            $workspace,
            " OR (c.workspace_id IS NULL AND EXISTS (SELECT 1 FROM memberships m \
             WHERE m.user_id = c.user_id AND m.workspace_id = ",
            $workspace,
            ")))"
        )
    };
}

/// The columns of [`UserRow`].
macro_rules! user_columns {
    () => {
        "id, number, handle, display_name, kind, is_admin, is_active, external_id, created_at, updated_at, \
         deleted_at"
    };
}

pub(super) use {credential_columns, ended, known_to, user_columns};

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
    ended: bool,
    secret_id: String,
    secret_state: String,
    secret_shown: String,
    secret_created_at: i64,
    secret_expires_at: Option<i64>,
    secret_proved_at: Option<i64>,
    secret_pepper_id: Option<String>,
    secret_reuse_noted: bool,
}

#[derive(FromRow)]
pub(super) struct KeptRow {
    #[sqlx(flatten)]
    credential: CredentialRow,
    user_number: i64,
    secret_sealed: Option<Vec<u8>>,
    previous_secret_expires_at: Option<i64>,
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
    required_organization_id: Option<String>,
    member_of_required: bool,
    member_of_askers: bool,
}

/// What the row of a verification says though nothing is found: the head of the
/// history, and the current pepper.
#[derive(FromRow)]
pub(super) struct HeadRow {
    head_number: i64,
    head_mark: i64,
    current_pepper: String,
    has_unloaded: bool,
}

#[derive(FromRow)]
pub(super) struct UserRow {
    id: String,
    number: i64,
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

#[derive(FromRow)]
pub(super) struct ContainerRow {
    id: String,
    organization_id: Option<String>,
    slug: String,
    name: String,
    external_id: Option<String>,
    is_active: bool,
    created_at: i64,
    updated_at: i64,
}

#[derive(FromRow)]
pub(super) struct MembershipRow {
    id: String,
    user_id: String,
    organization_id: Option<String>,
    workspace_id: Option<String>,
    role: String,
    created_at: i64,
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
            pepper_id: self.secret_pepper_id.map(PepperId::from_stored),
            reuse_noted: self.secret_reuse_noted,
        };
        let workspace = match (self.workspace_id, self.organization_id, self.membership_id) {
            (Some(workspace_id), Some(organization_id), Some(membership_id)) => {
                Some(WorkspaceBinding { workspace_id, organization_id, membership_id })
            }
            _ => None,
        };
        let detail = match kind_from(&self.kind)? {
            Kind::PersonalAccessToken => Detail::PersonalAccessToken {
                name: TokenName::from_stored(self.name.unwrap_or_default()),
                description: Description::from_stored(self.description.unwrap_or_default()),
            },
            Kind::ApiClientAuthorization => Detail::ApiClientAuthorization {
                api_client_id: self.api_client_id,
                created_by_ip: self.created_by_ip,
            },
            Kind::SystemRoot => return Err(unreadable("credentials.kind")),
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
            ended: self.ended,
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
            user_number: row.user_number,
            secret,
            sealed: row.secret_sealed.map(Sealed::from_stored),
            previous_secret_expires_at: row.previous_secret_expires_at.map(time).transpose()?,
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
                    external_id: row.organization_external_id.map(ExternalId::from_stored),
                    is_active: row.organization_is_active.unwrap_or(false),
                };
                let workspace = Workspace {
                    id: binding.workspace_id.clone(),
                    external_id: row.workspace_external_id.map(ExternalId::from_stored),
                    is_active: row.workspace_is_active.unwrap_or(false),
                    organization,
                };
                Some(workspace)
            }
        };
        Ok(Self {
            owner: Owner {
                id: credential.user_id.clone(),
                external_id: row.user_external_id.map(ExternalId::from_stored),
                handle: row.user_handle,
                is_admin: row.user_is_admin,
                is_active: row.user_is_active,
            },
            credential,
            secret,
            workspace,
            required_organization_id: row.required_organization_id,
            member_of_required: row.member_of_required,
            member_of_askers: row.member_of_askers,
        })
    }
}

impl HeadRow {
    /// The lookup with this found.
    pub(super) fn with(self, found: Option<Found>) -> Lookup {
        Lookup {
            found,
            has_unloaded: self.has_unloaded,
            head: Revision { number: self.head_number, mark: self.head_mark },
            current_pepper: PepperId::from_stored(self.current_pepper),
        }
    }
}

impl TryFrom<UserRow> for User {
    type Error = StoreError;

    fn try_from(row: UserRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: parsed(row.id)?,
            number: row.number,
            handle: Handle::from_stored(row.handle),
            display_name: row.display_name.map(DisplayName::from_stored),
            kind: match row.kind.as_str() {
                "human" => UserKind::Human,
                "service" => UserKind::Service,
                _ => return Err(unreadable("users.kind")),
            },
            is_admin: row.is_admin,
            is_active: row.is_active,
            external_id: row.external_id.map(ExternalId::from_stored),
            created_at: time(row.created_at)?,
            updated_at: time(row.updated_at)?,
            deleted_at: row.deleted_at.map(time).transpose()?,
        })
    }
}

impl TryFrom<ContainerRow> for Container {
    type Error = StoreError;

    fn try_from(row: ContainerRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            organization_id: row.organization_id,
            slug: Slug::from_stored(row.slug),
            name: DisplayName::from_stored(row.name),
            external_id: row.external_id.map(ExternalId::from_stored),
            is_active: row.is_active,
            created_at: time(row.created_at)?,
            updated_at: time(row.updated_at)?,
        })
    }
}

impl TryFrom<MembershipRow> for Membership {
    type Error = StoreError;

    fn try_from(row: MembershipRow) -> Result<Self, StoreError> {
        let (kind, container_id) = match (row.organization_id, row.workspace_id) {
            (Some(id), None) => (ContainerKind::Organization, id),
            (None, Some(id)) => (ContainerKind::Workspace, id),
            (Some(_), Some(_)) | (None, None) => return Err(unreadable("a membership")),
        };
        Ok(Self {
            id: row.id,
            user_id: parsed(row.user_id)?,
            kind,
            container_id,
            role: parsed(row.role)?,
            created_at: time(row.created_at)?,
        })
    }
}

pub(super) fn kind_text(kind: Kind) -> &'static str {
    match kind {
        Kind::PersonalAccessToken => "personal_access_token",
        Kind::ApiClientAuthorization => "api_client_authorization",
        // The schema takes no row of this kind.
        Kind::SystemRoot => "system_root",
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

/// The same in an order of its own, so that lists of the same texts are equal.
pub(super) fn sorted_json(texts: &[String]) -> String {
    let mut sorted = texts.to_vec();
    sorted.sort_unstable();
    json(&sorted)
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
