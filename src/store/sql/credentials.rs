//! Credentials and their secrets.

use async_trait::async_trait;
use serde_json::json;
use sqlx::{FromRow as _, Pool, Row as _};

use super::{
    Db, Tx,
    mutation::{Audit, Done, Step, Touched},
    rows::{self, FoundRow, HeadRow, KeptRow, credential_columns, kind_text},
};
use crate::{
    domain::{Detail, Digest, Found, Kind, Revision, Timestamp, UserId},
    store::{
        Actor, CredentialChanges, Cursor, Inserted, Kept, MAX_ROWS, NewCredential, NewSecret,
        REQUEST_ID_LIFETIME, Refusal, Repeat, Revoked, StoreError, Target, Workspaces,
    },
};

// The conditions on the two tables of one row tell PostgreSQL that each has but
// one: without statistics it takes them for millions together, and compiles the
// statement (JIT) at each execution, which takes a second.
const FIND: &str = concat!(
    "SELECT r.number AS head_number, r.mark AS head_mark, ",
    credential_columns!(),
    ", u.external_id AS user_external_id, u.handle AS user_handle, u.is_admin AS user_is_admin, \
     u.is_active AS user_is_active, \
     w.external_id AS workspace_external_id, w.is_active AS workspace_is_active, \
     o.external_id AS organization_external_id, o.is_active AS organization_is_active, \
     EXISTS (SELECT 1 FROM memberships m WHERE m.id = c.membership_id AND m.role <> 'guest') AS is_member, \
     (c.store_epoch < t.token_epoch OR c.user_epoch < u.token_epoch \
      OR coalesce(c.workspace_epoch < w.token_epoch, FALSE) \
      OR coalesce(c.organization_epoch < o.token_epoch, FALSE)) AS outdated, \
     EXISTS (SELECT 1 FROM memberships m JOIN workspaces mw ON mw.id = m.workspace_id \
      JOIN organizations mo ON mo.id = mw.organization_id \
      WHERE m.user_id = c.user_id AND m.workspace_id = $5 AND mw.is_active AND mo.is_active) \
      AS member_of_required, \
     EXISTS (SELECT 1 FROM memberships m WHERE m.user_id = c.user_id AND m.workspace_id = $6) \
      AS member_of_askers \
     FROM revision r CROSS JOIN store t \
     LEFT JOIN secrets s ON s.digest IN ($1, $2, $3, $4) \
     LEFT JOIN credentials c ON c.id = s.credential_id \
     LEFT JOIN users u ON u.id = c.user_id \
     LEFT JOIN workspaces w ON w.id = c.workspace_id \
     LEFT JOIN organizations o ON o.id = c.organization_id \
     WHERE r.id = 1 AND t.id = 1",
);

const KEPT: &str = concat!(
    "SELECT ",
    credential_columns!(),
    ", l.last_used_at, l.last_used_ip FROM credentials c \
     JOIN secrets s ON s.credential_id = c.id AND s.state = 'current' \
     LEFT JOIN last_uses l ON l.credential_id = c.id ",
    "WHERE c.id = $1 AND c.kind = $2 AND c.user_id = coalesce($3, c.user_id)",
);

const LIST: &str = concat!(
    "SELECT ",
    credential_columns!(),
    ", l.last_used_at, l.last_used_ip FROM credentials c \
     JOIN secrets s ON s.credential_id = c.id AND s.state = 'current' \
     LEFT JOIN last_uses l ON l.credential_id = c.id ",
    "WHERE c.user_id = $1 AND c.kind = $2 AND (c.revoked_at IS NULL OR $3) \
     AND (c.created_at, c.id) < ($4, $5) \
     ORDER BY c.created_at DESC, c.id DESC LIMIT $6",
);

pub(super) async fn find(
    pool: &Pool<Db>,
    digests: &[Digest],
    workspaces: Workspaces<'_>,
) -> Result<(Option<Found>, Revision), StoreError> {
    let digest = |at: usize| digests.get(at).map(Digest::as_bytes);
    let row = sqlx::query(FIND)
        .bind(digest(0))
        .bind(digest(1))
        .bind(digest(2))
        .bind(digest(3))
        .bind(workspaces.required)
        .bind(workspaces.askers)
        .fetch_one(pool)
        .await?;
    let head = HeadRow::from_row(&row)?.into();
    let is_found = row.try_get::<Option<String>, _>("secret_id")?.is_some();
    let found = is_found.then(|| FoundRow::from_row(&row)).transpose()?;
    Ok((found.map(Found::try_from).transpose()?, head))
}

pub(super) async fn prove(
    pool: &Pool<Db>,
    secret_id: &str,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let proved =
        sqlx::query("UPDATE secrets SET proved_at = coalesce(proved_at, $2) WHERE id = $1")
            .bind(secret_id)
            .bind(at.as_micros())
            .execute(pool)
            .await?;
    Ok(proved.rows_affected() == 1)
}

pub(super) async fn get(
    connection: &mut <Db as sqlx::Database>::Connection,
    target: Target<'_>,
) -> Result<Option<Kept>, StoreError> {
    sqlx::query_as::<Db, KeptRow>(KEPT)
        .bind(target.id)
        .bind(kind_text(target.kind))
        .bind(target.owner.map(UserId::as_str))
        .fetch_optional(connection)
        .await?
        .map(Kept::try_from)
        .transpose()
}

pub(super) async fn list(
    pool: &Pool<Db>,
    owner: &UserId,
    kind: Kind,
    with_revoked: bool,
    after: Option<&Cursor>,
    limit: i64,
) -> Result<Vec<Kept>, StoreError> {
    sqlx::query_as::<Db, KeptRow>(LIST)
        .bind(owner.as_str())
        .bind(kind_text(kind))
        .bind(with_revoked)
        .bind(after.map_or(i64::MAX, |cursor| cursor.created_at.as_micros()))
        .bind(after.map_or("", |cursor| cursor.id.as_str()))
        .bind(limit)
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(Kept::try_from)
        .collect()
}

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
        let kind = kind_of(&self.new.detail);
        get(tx, Target { id, kind, owner: None })
            .await?
            .ok_or_else(|| StoreError::Failed("a credential is without a current secret".into()))
    }

    /// Locks the owner and what the credential hangs on, and checks what only
    /// the store can.
    async fn birth(&self, tx: &mut Tx) -> Result<Birth, StoreError> {
        if self.new.user_id.is_system() && kind_of(&self.new.detail) == Kind::PersonalAccessToken {
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
        .bind(kind_text(kind_of(&self.new.detail)))
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
    .bind(kind_text(kind_of(&new.detail)))
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

fn kind_of(detail: &Detail) -> Kind {
    match detail {
        Detail::PersonalAccessToken { .. } => Kind::PersonalAccessToken,
        Detail::ApiClientAuthorization { .. } => Kind::ApiClientAuthorization,
    }
}

/// Renames or re-describes; neither is part of an answer of Verify.
pub(super) struct Update<'a> {
    pub(super) target: Target<'a>,
    pub(super) changes: &'a CredentialChanges,
    pub(super) at: Timestamp,
}

#[async_trait]
impl Step for Update<'_> {
    type Output = Option<Kept>;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<Kept>>, StoreError> {
        if self.target.kind != Kind::PersonalAccessToken {
            return Ok(Done::nothing(None));
        }
        let Some(before) = get(tx, self.target).await? else { return Ok(Done::nothing(None)) };
        if before.credential.revoked_at.is_some() {
            return Err(StoreError::Refused(Refusal::TokenRevoked));
        }
        if self.changes.name.is_none() && self.changes.description.is_none() {
            return Ok(Done::nothing(Some(before)));
        }
        let updated = sqlx::query(
            "UPDATE credentials SET name = coalesce($2, name), \
             description = coalesce($3, description), updated_at = $4 \
             WHERE id = $1 AND revoked_at IS NULL",
        )
        .bind(self.target.id)
        .bind(self.changes.name.as_ref().map(|name| name.as_str()))
        .bind(self.changes.description.as_ref().map(|description| description.as_str()))
        .bind(self.at.as_micros())
        .execute(&mut **tx)
        .await?;
        if updated.rows_affected() == 0 {
            return Err(StoreError::Refused(Refusal::TokenRevoked));
        }
        Ok(Done {
            value: get(tx, self.target).await?,
            touched: Vec::new(),
            audit: Some(Audit {
                action: "credential.update",
                targets: vec![self.target.id.to_owned()],
                details: json!({
                    "name": self.changes.name.as_ref().map(|name| name.as_str()),
                    "description": self.changes.description.as_ref().map(|text| text.as_str()),
                }),
            }),
        })
    }
}

/// Revokes, for good.
pub(super) struct Revoke<'a> {
    pub(super) target: Target<'a>,
    pub(super) descendants: bool,
    pub(super) at: Timestamp,
}

#[async_trait]
impl Step for Revoke<'_> {
    type Output = Option<Revoked>;

    /// To end a token is never too late.
    fn needs_standing(&self) -> bool {
        false
    }

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<Revoked>>, StoreError> {
        if get(tx, self.target).await?.is_none() {
            return Ok(Done::nothing(None));
        }
        let mut revoked: Vec<String> = sqlx::query_scalar(
            "UPDATE credentials SET revoked_at = $2, updated_at = $2 \
             WHERE id = $1 AND revoked_at IS NULL RETURNING id",
        )
        .bind(self.target.id)
        .bind(self.at.as_micros())
        .fetch_all(&mut **tx)
        .await?;
        let mut room = MAX_ROWS - i64::try_from(revoked.len()).expect("at most one");
        // What was made with a descendant while this waited for its lock is seen by
        // the next look; once a look finds none, no other can be made any more.
        while self.descendants && room > 0 {
            let descendants = self.revoke_descendants(tx, room).await?;
            if descendants.is_empty() {
                break;
            }
            room -= i64::try_from(descendants.len()).expect("at most the room");
            revoked.extend(descendants);
        }
        let more = self.descendants && room == 0;
        let kept = get(tx, self.target)
            .await?
            .ok_or_else(|| StoreError::Failed("a credential is gone in a transaction".into()))?;
        let audit = (!revoked.is_empty()).then(|| Audit {
            action: "credential.revoke",
            targets: revoked.clone(),
            details: json!({}),
        });
        Ok(Done {
            value: Some(Revoked { kept, more }),
            touched: revoked.into_iter().map(Touched::Credential).collect(),
            audit,
        })
    }
}

impl Revoke<'_> {
    async fn revoke_descendants(&self, tx: &mut Tx, room: i64) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(
            "WITH RECURSIVE made (id) AS (SELECT id FROM credentials WHERE id = $1 UNION \
             SELECT c.id FROM credentials c JOIN made ON c.created_by_token_id = made.id) \
             UPDATE credentials SET revoked_at = coalesce(revoked_at, $2), updated_at = $2 \
             WHERE id IN ( \
             SELECT c.id FROM credentials c JOIN made ON made.id = c.id \
             WHERE c.revoked_at IS NULL ORDER BY c.id LIMIT $3) RETURNING id",
        )
        .bind(self.target.id)
        .bind(self.at.as_micros())
        .bind(room)
        .fetch_all(&mut **tx)
        .await?)
    }
}

/// Forgets what has been dead for long.
pub(super) struct Purge {
    pub(super) before: Timestamp,
    pub(super) at: Timestamp,
}

#[async_trait]
impl Step for Purge {
    type Output = u64;

    async fn run(&self, tx: &mut Tx) -> Result<Done<u64>, StoreError> {
        let is_alone: bool =
            sqlx::query_scalar(super::super::TRY_LOCK_PURGE).fetch_one(&mut **tx).await?;
        if !is_alone {
            return Ok(Done::nothing(0));
        }
        let forgotten = sqlx::query(
            "DELETE FROM credentials WHERE id IN (SELECT c.id FROM credentials c \
             WHERE (c.revoked_at < $1 OR (c.expires_at < $1 AND c.kind = 'personal_access_token')) \
             AND NOT EXISTS (SELECT 1 FROM credentials d WHERE d.created_by_token_id = c.id) \
             LIMIT $2)",
        )
        .bind(self.before.as_micros())
        .bind(MAX_ROWS)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        let over = sqlx::query(
            "DELETE FROM request_ids WHERE created_at IN (SELECT created_at FROM request_ids \
             WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
        )
        .bind(self.at.saturating_sub(REQUEST_ID_LIFETIME).as_micros())
        .bind(MAX_ROWS)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        let audit = (forgotten > 0).then(|| Audit {
            action: "credential.purge",
            targets: Vec::new(),
            details: json!({ "before": self.before.as_micros(), "count": forgotten }),
        });
        Ok(Done { value: forgotten + over, touched: Vec::new(), audit })
    }
}
