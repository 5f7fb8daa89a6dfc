//! Credentials and their secrets: proved, read, changed, ended.

use async_trait::async_trait;
use serde_json::json;
use sqlx::Pool;

use super::{
    Db, Tx,
    mutation::{Audit, Done, Step, is_alone},
    rows::{KeptRow, credential_columns, ended, kind_text},
};
use crate::{
    domain::{CredentialId, Kind, Status, Timestamp, UserId},
    store::{
        CredentialChanges, Cursor, Kept, MAX_ROWS, REQUEST_ID_LIFETIME, Reach, Refusal, Revoked,
        StoreError, Target, Touched,
    },
};

/// A credential with its newest secret, and when it was last used.
/// `$more` columns, from where `credentials c` come.
macro_rules! kept {
    () => {
        kept!("", "credentials c")
    };
    ($more:literal, $credentials:expr) => {
        concat!(
            "SELECT ",
            $more,
            credential_columns!(),
            ", u.number AS user_number, s.sealed AS secret_sealed, (SELECT b.expires_at FROM secrets b WHERE b.credential_id = c.id \
             AND b.state = 'current' AND s.state = 'pending' AND s.proved_at IS NULL) AS previous_secret_expires_at, \
             l.last_used_at, l.last_used_ip FROM ",
            $credentials,
            " CROSS JOIN store t JOIN users u ON u.id = c.user_id \
             JOIN secrets s ON s.id = coalesce( \
             (SELECT n.id FROM secrets n WHERE n.credential_id = c.id AND n.state = 'pending'), \
             (SELECT n.id FROM secrets n WHERE n.credential_id = c.id AND n.state = 'current')) \
             LEFT JOIN workspaces w ON w.id = c.workspace_id \
             LEFT JOIN organizations o ON o.id = c.organization_id \
             LEFT JOIN last_uses l ON l.credential_id = c.id WHERE t.id = 1 "
        )
    };
}

/// What a [`Reach`] asks of it: owner, workspace, and whether administrators are
/// spared.
macro_rules! within {
    ($owner:literal, $workspace:literal, $spares:literal) => {
        concat!(
            "AND (CAST(",
            $owner,
            " AS TEXT) IS NULL OR c.user_id = ",
            $owner,
            ") AND (CAST(",
            $workspace,
            " AS TEXT) IS NULL OR c.workspace_id = ",
            $workspace,
            ") AND NOT (u.is_admin AND ",
            $spares,
            ") "
        )
    };
}

pub(super) use {kept, within};

const KEPT: &str = concat!(kept!(), within!("$3", "$4", "$5"), "AND c.id = $1 AND c.kind = $2");

/// A page of those within reach; what leads to them, by an index, comes first.
macro_rules! list {
    ($lead:literal) => {
        concat!(
            "SELECT * FROM (",
            kept!(),
            "AND ",
            $lead,
            within!("$1", "$2", "$3"),
            "AND c.kind = $4 AND (c.created_at, c.id) < ($5, $6)) AS kept \
             WHERE NOT ended OR $7 ORDER BY created_at DESC, id DESC LIMIT $8"
        )
    };
}

const LIST_OF_OWNER: &str = list!("c.user_id = $1 ");
const LIST_OF_OWNER_NOT_REVOKED: &str = list!("c.user_id = $1 AND c.revoked_at IS NULL ");
const LIST_OF_WORKSPACE: &str = list!("c.workspace_id = $2 ");
const LIST_OF_WORKSPACE_NOT_REVOKED: &str = list!("c.workspace_id = $2 AND c.revoked_at IS NULL ");

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
        .bind(target.reach.owner.as_ref().map(UserId::as_str))
        .bind(target.reach.workspace_id.as_deref())
        .bind(target.reach.spares_administrators)
        .fetch_optional(connection)
        .await?
        .map(Kept::try_from)
        .transpose()
}

pub(super) async fn list(
    pool: &Pool<Db>,
    reach: &Reach,
    kind: Kind,
    with_revoked: bool,
    after: Option<&Cursor>,
    limit: i64,
) -> Result<Vec<Kept>, StoreError> {
    let statement = match (&reach.owner, with_revoked) {
        (Some(_), true) => LIST_OF_OWNER,
        (Some(_), false) => LIST_OF_OWNER_NOT_REVOKED,
        (None, true) => LIST_OF_WORKSPACE,
        (None, false) => LIST_OF_WORKSPACE_NOT_REVOKED,
    };
    sqlx::query_as::<Db, KeptRow>(statement)
        .bind(reach.owner.as_ref().map(UserId::as_str))
        .bind(reach.workspace_id.as_deref())
        .bind(reach.spares_administrators)
        .bind(kind_text(kind))
        .bind(after.map_or(i64::MAX, |cursor| cursor.created_at.as_micros()))
        .bind(after.map_or("", |cursor| cursor.id.as_str()))
        .bind(with_revoked)
        .bind(limit)
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(Kept::try_from)
        .collect()
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
        if before.credential.status(self.at) == Status::Revoked {
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
        let changed = revoked.first().is_some_and(|first| first == self.target.id);
        let more = self.descendants && room == 0;
        let kept = get(tx, self.target)
            .await?
            .ok_or_else(|| StoreError::Failed("a credential is gone in a transaction".into()))?;
        let audit = (!revoked.is_empty()).then(|| revocation(revoked.clone()));
        Ok(Done {
            value: Some(Revoked { kept, changed, more }),
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

/// What the audit row of a revocation says.
pub(super) fn revocation(targets: Vec<String>) -> Audit {
    Audit { action: "credential.revoke", targets, details: json!({}) }
}

/// Notes of what was revoked with others that it is revoked.
pub(super) struct Settle<'a> {
    pub(super) after: Option<&'a CredentialId>,
    pub(super) at: Timestamp,
}

/// How many credentials are looked at at once.
const WINDOW: i64 = 10_000;

#[async_trait]
impl Step for Settle<'_> {
    type Output = Option<CredentialId>;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<CredentialId>>, StoreError> {
        if !is_alone(tx).await? {
            return Ok(Done::nothing(self.after.cloned()));
        }
        let after = self.after.map_or("", |id| id.0.as_str());
        let last: Option<String> = sqlx::query_scalar(
            "SELECT id FROM credentials WHERE id > $1 ORDER BY id LIMIT 1 OFFSET $2",
        )
        .bind(after)
        .bind(WINDOW - 1)
        .fetch_optional(&mut **tx)
        .await?;
        let settled: Vec<String> = sqlx::query_scalar(concat!(
            "UPDATE credentials SET revoked_at = $3 WHERE revoked_at IS NULL AND id IN ( \
             SELECT c.id FROM credentials c CROSS JOIN store t JOIN users u ON u.id = c.user_id \
             LEFT JOIN workspaces w ON w.id = c.workspace_id \
             LEFT JOIN organizations o ON o.id = c.organization_id \
             WHERE t.id = 1 AND c.id > $1 AND c.id <= coalesce($2, '~') \
             AND c.revoked_at IS NULL AND ",
            ended!(),
            " ORDER BY c.id LIMIT $4) RETURNING id"
        ))
        .bind(after)
        .bind(&last)
        .bind(self.at.as_micros())
        .bind(MAX_ROWS)
        .fetch_all(&mut **tx)
        .await?;
        let is_full = i64::try_from(settled.len()).is_ok_and(|count| count >= MAX_ROWS);
        // A full one may have left some behind, so it is looked at again.
        let next = if is_full { Some(after.to_owned()) } else { last }.map(CredentialId);
        let audit = (!settled.is_empty()).then(|| Audit {
            action: "credential.settle",
            targets: settled.clone(),
            details: json!({}),
        });
        let touched = settled.into_iter().map(Touched::Credential).collect();
        Ok(Done { value: next, touched, audit })
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
        if !is_alone(tx).await? {
            return Ok(Done::nothing(0));
        }
        // The condition stands twice: one that is extended while this waits for its row
        // is looked at again by the outer one.
        let forgotten = sqlx::query(
            "DELETE FROM credentials WHERE (revoked_at < $1 OR expires_at < $1) \
             AND updated_at < $1 AND id IN (SELECT c.id FROM credentials c \
             WHERE (c.revoked_at < $1 OR c.expires_at < $1) AND c.updated_at < $1 \
             AND NOT EXISTS (SELECT 1 FROM credentials d WHERE d.created_by_token_id = c.id) \
             LIMIT $2)",
        )
        .bind(self.before.as_micros())
        .bind(MAX_ROWS)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        let replaced = sqlx::query(
            "DELETE FROM secrets WHERE id IN (SELECT id FROM secrets \
             WHERE state = 'superseded' AND expires_at < $1 LIMIT $2)",
        )
        .bind(self.before.as_micros())
        .bind(MAX_ROWS)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        let over = sqlx::query(
            "DELETE FROM request_ids WHERE (caller_id, request_id) IN (SELECT caller_id, request_id \
             FROM request_ids WHERE created_at <= $1 ORDER BY created_at LIMIT $2)",
        )
        .bind(self.at.saturating_sub(REQUEST_ID_LIFETIME).as_micros())
        .bind(MAX_ROWS)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        let audit = (forgotten + replaced > 0).then(|| Audit {
            action: "credential.purge",
            targets: Vec::new(),
            details: json!({
                "before": self.before.as_micros(),
                "credentials": forgotten,
                "secrets": replaced,
            }),
        });
        Ok(Done { value: forgotten + replaced + over, touched: Vec::new(), audit })
    }
}
