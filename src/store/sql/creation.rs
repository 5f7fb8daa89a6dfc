//! New credentials, and the repeats of the requests that made them.

use async_trait::async_trait;
use serde_json::json;

use super::{
    Tx, credentials, directory,
    mutation::{Audit, Done, Step},
    repeats::{self, Earlier, secret_insert},
    rows::{self, ended, kind_text},
};
use crate::{
    domain::{Detail, Kind, Status, Timestamp, UserId},
    store::{
        Actor, Basis, Inserted, Kept, NewCredential, Reach, Refusal, Repeat, StoreError, Target,
        Touched, Unique,
    },
};

/// Keeps a new credential, or answers the repeat of the request that made one.
pub(super) struct Insert<'a> {
    pub(super) new: &'a NewCredential,
    pub(super) repeat: Option<&'a Repeat>,
    pub(super) actor: &'a Actor,
}

/// What a credential is born under.
struct Birth {
    owner: UserId,
    user_epoch: i64,
    workspace: Option<BirthWorkspace>,
}

#[derive(sqlx::FromRow)]
pub(super) struct BirthWorkspace {
    organization_id: String,
    membership_id: Option<String>,
    role: Option<String>,
    is_active: bool,
    workspace_epoch: i64,
    organization_epoch: i64,
}

#[async_trait]
impl Step for Insert<'_> {
    type Output = Inserted;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Inserted>, StoreError> {
        if let Some(repeat) = self.repeat
            && let Some(earlier) =
                repeats::claim(tx, repeat, &self.new.id.0, &self.new.secret, self.actor).await?
        {
            return self.again(tx, repeat, earlier).await;
        }
        let (owner, is_new) = match &self.new.new_owner {
            None => (self.new.user_id.clone(), false),
            Some(new) => {
                let (user, is_new) = directory::find_or_make(tx, new, true, self.actor.at).await?;
                (user.id, is_new)
            }
        };
        let birth = self.birth(tx, owner).await?;
        insert(tx, self.new, self.actor, &birth, self.proved_at()).await?;
        let kept = self.kept(tx, &self.new.id.0).await?;
        Ok(Done {
            value: Inserted { kept, already_used: false },
            touched: Vec::new(),
            audit: Some(Audit {
                action: match self.actor.basis {
                    Basis::BreakGlass => "credential.break_glass",
                    Basis::Own | Basis::Administrator | Basis::Manager(_) => "credential.create",
                },
                targets: vec![self.new.id.0.clone()],
                details: json!({
                    "user_id": birth.owner.as_str(),
                    "made_user": is_new,
                    "workspace_id": self.new.workspace_id,
                    "scopes": self.new.scopes,
                    "expires_at": self.new.expires_at.map(Timestamp::as_micros),
                }),
            }),
        })
    }
}

impl Insert<'_> {
    /// Where no request can be repeated, no proof has to be waited for.
    fn proved_at(&self) -> Option<i64> {
        self.repeat.is_none().then(|| self.actor.at.as_micros())
    }

    /// Answers a repeat: replaces a secret that nobody proved, which then is dead.
    async fn again(
        &self,
        tx: &mut Tx,
        repeat: &Repeat,
        earlier: Earlier,
    ) -> Result<Done<Inserted>, StoreError> {
        self.check_caller(tx).await?;
        let id = earlier.credential_id.as_str();
        let kept = self.kept(tx, id).await?;
        let dead = kept.credential.status(self.actor.at) == Status::Revoked;
        if !dead {
            let (is_admin, _) = lock_owner(tx, &kept.credential.user_id).await?;
            self.check_spared(is_admin)?;
        }
        if dead || !repeats::replace(tx, repeat, &earlier, &self.new.secret, self.actor).await? {
            return Ok(Done::nothing(Inserted { kept, already_used: true }));
        }
        let kept = self.kept(tx, id).await?;
        Ok(Done {
            value: Inserted { kept, already_used: false },
            touched: vec![Touched::Credential(id.to_owned())],
            audit: Some(Audit {
                action: "credential.create_again",
                targets: vec![earlier.credential_id],
                details: json!({}),
            }),
        })
    }

    async fn kept(&self, tx: &mut Tx, id: &str) -> Result<Kept, StoreError> {
        let kind = self.new.detail.kind();
        credentials::get(tx, Target { id, kind, reach: &Reach::default() })
            .await?
            .ok_or_else(|| StoreError::Failed("a credential is without a current secret".into()))
    }

    /// Locks the owner and what the credential hangs on, and checks what only
    /// the store can.
    async fn birth(&self, tx: &mut Tx, owner: UserId) -> Result<Birth, StoreError> {
        if owner.is_system() && self.new.detail.kind() == Kind::PersonalAccessToken {
            return Err(StoreError::Refused(Refusal::NoOwner));
        }
        let (is_admin, user_epoch) = lock_owner(tx, &owner).await?;
        let workspace = match &self.new.workspace_id {
            None => None,
            Some(id) => Some(lock_workspace(tx, id, &owner).await?),
        };
        self.check_spared(is_admin)?;
        let quota = Quota {
            owner: &owner,
            kind: self.new.detail.kind(),
            workspace_id: self.new.workspace_id.as_deref(),
            at_most: self.new.quota,
        };
        quota.check(tx, self.actor.at).await?;
        Ok(Birth { owner, user_epoch, workspace })
    }

    fn check_spared(&self, is_admin: bool) -> Result<(), StoreError> {
        if is_admin && self.new.spares_administrators {
            return Err(StoreError::Refused(Refusal::OwnerIsAdministrator));
        }
        Ok(())
    }

    /// A credential that was revoked since its holder called makes no other.
    async fn check_caller(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let Some(caller) = &self.actor.token_id else { return Ok(()) };
        let revoked: Option<Option<i64>> = sqlx::query_scalar(super::super::LOCK_CREDENTIAL)
            .bind(&caller.0)
            .fetch_optional(&mut **tx)
            .await?;
        match revoked {
            Some(Some(_)) => Err(StoreError::Refused(Refusal::CallerRevoked)),
            Some(None) | None => Ok(()),
        }
    }
}

/// How many credentials of one kind, neither revoked nor expired, a locked owner may
/// have bound to the same workspace, or to none.
pub(super) struct Quota<'a> {
    pub(super) owner: &'a UserId,
    pub(super) kind: Kind,
    pub(super) workspace_id: Option<&'a str>,
    pub(super) at_most: i64,
}

impl Quota<'_> {
    /// Whether there is room for one more.
    pub(super) async fn check(&self, tx: &mut Tx, at: Timestamp) -> Result<(), StoreError> {
        let held: i64 = sqlx::query_scalar(concat!(
            "SELECT count(*) FROM credentials c CROSS JOIN store t \
             JOIN users u ON u.id = c.user_id \
             LEFT JOIN workspaces w ON w.id = c.workspace_id \
             LEFT JOIN organizations o ON o.id = c.organization_id \
             WHERE c.user_id = $1 AND c.kind = $2 AND c.revoked_at IS NULL \
             AND (c.expires_at IS NULL OR c.expires_at > $3) AND t.id = 1 \
             AND coalesce(c.workspace_id, '') = coalesce($4, '') AND NOT ",
            ended!(),
        ))
        .bind(self.owner.as_str())
        .bind(kind_text(self.kind))
        .bind(at.as_micros())
        .bind(self.workspace_id)
        .fetch_one(&mut **tx)
        .await?;
        if held >= self.at_most {
            return Err(StoreError::Refused(Refusal::QuotaReached));
        }
        Ok(())
    }
}

/// Locks the user whose credential it will be or is, who must be there and active;
/// whether it is an administrator, and the epoch under which its credentials are
/// born.
pub(super) async fn lock_owner(tx: &mut Tx, owner: &UserId) -> Result<(bool, i64), StoreError> {
    let row: Option<(bool, bool, i64)> = sqlx::query_as(super::super::LOCK_USER)
        .bind(owner.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    match row {
        None => Err(StoreError::Refused(Refusal::NoOwner)),
        Some((false, ..)) => Err(StoreError::Refused(Refusal::OwnerInactive)),
        Some((true, is_admin, epoch)) => Ok((is_admin, epoch)),
    }
}

/// Locks the workspace that a credential is bound to, of which its owner must be a
/// member, and which must be active.
pub(super) async fn lock_workspace(
    tx: &mut Tx,
    id: &str,
    owner: &UserId,
) -> Result<BirthWorkspace, StoreError> {
    let workspace: Option<BirthWorkspace> = sqlx::query_as(super::super::LOCK_WORKSPACE)
        .bind(id)
        .bind(owner.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(workspace) = workspace else {
        return Err(StoreError::Refused(Refusal::NoWorkspace));
    };
    match workspace.role.as_deref() {
        None | Some("guest") => Err(StoreError::Refused(Refusal::NotAMember)),
        Some(_) if !workspace.is_active => Err(StoreError::Refused(Refusal::WorkspaceInactive)),
        Some(_) => Ok(workspace),
    }
}

/// The first credential of a store, to which no rule applies yet.
pub(super) async fn insert_first(
    tx: &mut Tx,
    new: &NewCredential,
    actor: &Actor,
) -> Result<(), StoreError> {
    let birth = Birth { owner: new.user_id.clone(), user_epoch: 0, workspace: None };
    insert(tx, new, actor, &birth, Some(actor.at.as_micros())).await
}

/// By what each engine names them. Whichever of the two rows is written first: a credential
/// that is there has a current secret.
const CREDENTIAL_FIELDS: &[(&str, Unique)] = &[
    ("credentials_pkey", Unique::Id),
    ("secrets_one_current", Unique::Id),
    ("credentials.id", Unique::Id),
];

/// A credential, and its first secret. The store's epoch is read along, so it is no older
/// than anything else that was looked at.
const INSERT: &str = and_then!(
    "INSERT INTO credentials (id, kind, user_id, workspace_id, organization_id, membership_id, \
     name, description, scopes, allowed_ips, api_client_id, created_by_ip, created_by_user_id, \
     created_by_token_id, created_at, updated_at, expires_at, store_epoch, user_epoch, \
     workspace_epoch, organization_epoch, sorted_scopes) \
     VALUES ($2, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $8, $8, $24, \
     (SELECT token_epoch FROM store WHERE id = 1), $25, $26, $27, $28)",
    secret_insert!()
);

async fn insert(
    tx: &mut Tx,
    new: &NewCredential,
    actor: &Actor,
    birth: &Birth,
    proved_at: Option<i64>,
) -> Result<(), StoreError> {
    let (name, description, api_client_id, created_by_ip) = match &new.detail {
        Detail::PersonalAccessToken { name, description } => {
            (Some(name.as_str()), Some(description.as_str()), None, None)
        }
        Detail::ApiClientAuthorization { api_client_id, created_by_ip } => {
            (None, None, *api_client_id, created_by_ip.as_deref())
        }
        // It has no row, and the schema takes none.
        Detail::SystemRoot => (None, None, None, None),
    };
    let sorted_scopes = match new.detail.kind() {
        Kind::ApiClientAuthorization => Some(rows::sorted_json(&new.scopes)),
        Kind::PersonalAccessToken | Kind::SystemRoot => None,
    };
    let workspace = birth.workspace.as_ref();
    repeats::bind_secret(sqlx::query(INSERT), &new.id.0, &new.secret, "current", proved_at, actor)
        .bind(kind_text(new.detail.kind()))
        .bind(birth.owner.as_str())
        .bind(new.workspace_id.as_deref())
        .bind(workspace.map(|workspace| workspace.organization_id.as_str()))
        .bind(workspace.and_then(|workspace| workspace.membership_id.as_deref()))
        .bind(name)
        .bind(description)
        .bind(rows::json(&new.scopes))
        .bind(rows::json(&new.allowed_ips))
        .bind(api_client_id)
        .bind(created_by_ip)
        .bind(actor.user_id.as_str())
        .bind(actor.token_id.as_ref().map(|id| id.0.as_str()))
        .bind(new.expires_at.map(Timestamp::as_micros))
        .bind(birth.user_epoch)
        .bind(workspace.map(|workspace| workspace.workspace_epoch))
        .bind(workspace.map(|workspace| workspace.organization_epoch))
        .bind(sorted_scopes)
        .execute(&mut **tx)
        .await
        .map_err(|error| super::super::taken(error, CREDENTIAL_FIELDS))?;
    Ok(())
}
