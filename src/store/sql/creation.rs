//! New credentials, and the repeats of the requests that made them.

use async_trait::async_trait;
use serde_json::json;

use super::{
    Tx, credentials,
    mutation::{Audit, Done, Step, Touched},
    rows::{self, kind_text},
};
use crate::{
    domain::{Detail, Kind, Timestamp},
    store::{
        Actor, Inserted, Kept, NewCredential, NewSecret, REQUEST_ID_LIFETIME, Refusal, Repeat,
        StoreError, Target,
    },
};

/// Keeps a new credential, or answers the repeat of the request that made one.
pub(super) struct Insert<'a> {
    pub(super) new: &'a NewCredential,
    pub(super) repeat: Option<&'a Repeat>,
    pub(super) actor: &'a Actor,
}

/// What a request made when it was first made.
#[derive(sqlx::FromRow)]
struct Earlier {
    body_hash: Vec<u8>,
    credential_id: String,
    secret_id: String,
}

/// What a credential is born under.
struct Birth {
    store_epoch: i64,
    user_epoch: i64,
    workspace: Option<BirthWorkspace>,
}

#[derive(sqlx::FromRow)]
struct BirthWorkspace {
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
            && let Some(earlier) = self.claim(tx, repeat).await?
        {
            return self.again(tx, repeat, earlier).await;
        }
        let birth = self.birth(tx).await?;
        self.insert(tx, &birth).await?;
        insert_secret(tx, &self.new.id.0, &self.new.secret, self.proved_at(), self.actor.at)
            .await?;
        let kept = self.kept(tx, &self.new.id.0).await?;
        Ok(Done {
            value: Inserted { kept, already_used: false },
            touched: Vec::new(),
            audit: Some(Audit {
                action: "credential.create",
                targets: vec![self.new.id.0.clone()],
                details: json!({
                    "user_id": self.new.user_id.as_str(),
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

    /// Takes the request id for this request; what it made before, if it did.
    async fn claim(&self, tx: &mut Tx, repeat: &Repeat) -> Result<Option<Earlier>, StoreError> {
        let caller = self.caller_id();
        let since = self.actor.at.saturating_sub(REQUEST_ID_LIFETIME);
        let claimed = sqlx::query(
            "INSERT INTO request_ids (caller_id, request_id, body_hash, credential_id, secret_id, \
             created_at) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (caller_id, request_id) DO UPDATE \
             SET body_hash = excluded.body_hash, credential_id = excluded.credential_id, \
             secret_id = excluded.secret_id, created_at = excluded.created_at \
             WHERE request_ids.created_at <= $7",
        )
        .bind(caller)
        .bind(repeat.request_id.to_string())
        .bind(&repeat.body_hash[..])
        .bind(&self.new.id.0)
        .bind(&self.new.secret.id)
        .bind(self.actor.at.as_micros())
        .bind(since.as_micros())
        .execute(&mut **tx)
        .await?;
        if claimed.rows_affected() == 1 {
            return Ok(None);
        }
        let earlier: Earlier = sqlx::query_as(
            "SELECT body_hash, credential_id, secret_id FROM request_ids \
             WHERE caller_id = $1 AND request_id = $2",
        )
        .bind(caller)
        .bind(repeat.request_id.to_string())
        .fetch_one(&mut **tx)
        .await?;
        if earlier.body_hash == repeat.body_hash {
            Ok(Some(earlier))
        } else {
            Err(StoreError::Refused(Refusal::RequestIdReused))
        }
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
        let replaced = sqlx::query(
            "DELETE FROM secrets WHERE id = $1 AND state = 'current' AND proved_at IS NULL \
             AND EXISTS (SELECT 1 FROM credentials c WHERE c.id = $2 AND c.revoked_at IS NULL)",
        )
        .bind(&earlier.secret_id)
        .bind(id)
        .execute(&mut **tx)
        .await?
        .rows_affected()
            == 1;
        if !replaced {
            let kept = self.kept(tx, id).await?;
            return Ok(Done::nothing(Inserted { kept, already_used: true }));
        }
        insert_secret(tx, id, &self.new.secret, None, self.actor.at).await?;
        sqlx::query(
            "UPDATE request_ids SET secret_id = $3 WHERE caller_id = $1 AND request_id = $2",
        )
        .bind(self.caller_id())
        .bind(repeat.request_id.to_string())
        .bind(&self.new.secret.id)
        .execute(&mut **tx)
        .await?;
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

    /// Whose request ids these are.
    fn caller_id(&self) -> &str {
        self.actor.token_id.as_ref().map_or("", |id| id.0.as_str())
    }

    async fn kept(&self, tx: &mut Tx, id: &str) -> Result<Kept, StoreError> {
        let kind = self.new.detail.kind();
        credentials::get(tx, Target { id, kind, owner: None })
            .await?
            .ok_or_else(|| StoreError::Failed("a credential is without a current secret".into()))
    }

    /// Locks the owner and what the credential hangs on, and checks what only
    /// the store can.
    async fn birth(&self, tx: &mut Tx) -> Result<Birth, StoreError> {
        if self.new.user_id.is_system() && self.new.detail.kind() == Kind::PersonalAccessToken {
            return Err(StoreError::Refused(Refusal::NoOwner));
        }
        let owner: Option<(bool, i64)> = sqlx::query_as(super::super::LOCK_USER)
            .bind(self.new.user_id.as_str())
            .fetch_optional(&mut **tx)
            .await?;
        let user_epoch = match owner {
            None => return Err(StoreError::Refused(Refusal::NoOwner)),
            Some((false, _)) => return Err(StoreError::Refused(Refusal::OwnerInactive)),
            Some((true, epoch)) => epoch,
        };
        let workspace = match &self.new.workspace_id {
            None => None,
            Some(id) => Some(self.workspace(tx, id).await?),
        };
        self.check_caller(tx).await?;
        let held: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM credentials WHERE user_id = $1 AND kind = $2 \
             AND revoked_at IS NULL AND expires_at IS NULL) \
             + (SELECT count(*) FROM credentials WHERE user_id = $1 AND kind = $2 \
             AND revoked_at IS NULL AND expires_at > $3)",
        )
        .bind(self.new.user_id.as_str())
        .bind(kind_text(self.new.detail.kind()))
        .bind(self.actor.at.as_micros())
        .fetch_one(&mut **tx)
        .await?;
        if held >= self.new.quota {
            return Err(StoreError::Refused(Refusal::QuotaReached));
        }
        let store_epoch = sqlx::query_scalar("SELECT token_epoch FROM store WHERE id = 1")
            .fetch_one(&mut **tx)
            .await?;
        Ok(Birth { store_epoch, user_epoch, workspace })
    }

    async fn workspace(&self, tx: &mut Tx, id: &str) -> Result<BirthWorkspace, StoreError> {
        let workspace: Option<BirthWorkspace> = sqlx::query_as(super::super::LOCK_WORKSPACE)
            .bind(id)
            .bind(self.new.user_id.as_str())
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

    async fn insert(&self, tx: &mut Tx, birth: &Birth) -> Result<(), StoreError> {
        insert_credential(tx, self.new, self.actor, birth).await
    }
}

/// The first credential of a store, to which no rule applies yet.
pub(super) async fn insert_first(
    tx: &mut Tx,
    new: &NewCredential,
    actor: &Actor,
) -> Result<(), StoreError> {
    let birth = Birth { store_epoch: 0, user_epoch: 0, workspace: None };
    insert_credential(tx, new, actor, &birth).await?;
    insert_secret(tx, &new.id.0, &new.secret, Some(actor.at.as_micros()), actor.at).await
}

async fn insert_credential(
    tx: &mut Tx,
    new: &NewCredential,
    actor: &Actor,
    birth: &Birth,
) -> Result<(), StoreError> {
    let (name, description, api_client_id, created_by_ip) = match &new.detail {
        Detail::PersonalAccessToken { name, description } => {
            (Some(name.as_str()), Some(description.as_str()), None, None)
        }
        Detail::ApiClientAuthorization { api_client_id, created_by_ip } => {
            (None, None, *api_client_id, created_by_ip.as_deref())
        }
    };
    let workspace = birth.workspace.as_ref();
    sqlx::query(
        "INSERT INTO credentials (id, kind, user_id, workspace_id, organization_id, membership_id, \
         name, description, scopes, allowed_ips, api_client_id, created_by_ip, created_by_user_id, \
         created_by_token_id, created_at, updated_at, expires_at, store_epoch, user_epoch, \
         workspace_epoch, organization_epoch) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15, $16, $17, \
         $18, $19, $20)",
    )
    .bind(&new.id.0)
    .bind(kind_text(new.detail.kind()))
    .bind(new.user_id.as_str())
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
    .bind(actor.at.as_micros())
    .bind(new.expires_at.map(Timestamp::as_micros))
    .bind(birth.store_epoch)
    .bind(birth.user_epoch)
    .bind(workspace.map(|workspace| workspace.workspace_epoch))
    .bind(workspace.map(|workspace| workspace.organization_epoch))
    .execute(&mut **tx)
    .await?;
    Ok(())
}

async fn insert_secret(
    tx: &mut Tx,
    credential_id: &str,
    new: &NewSecret,
    proved_at: Option<i64>,
    at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO secrets (id, credential_id, digest, pepper_id, record, shown, state, \
         created_at, proved_at) VALUES ($1, $2, $3, $4, $5, $6, 'current', $7, $8)",
    )
    .bind(&new.id)
    .bind(credential_id)
    .bind(new.digest.as_bytes())
    .bind(new.pepper_id.as_str())
    .bind(&new.record)
    .bind(&new.shown)
    .bind(at.as_micros())
    .bind(proved_at)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
