//! New secrets for credentials that stay.

use async_trait::async_trait;
use serde_json::json;

use super::{
    Tx, creation, credentials,
    mutation::{Audit, Done, Step},
    repeats::{self, insert_secret},
};
use crate::{
    domain::{Status, Timestamp},
    store::{Actor, Inserted, Kept, Refusal, Repeat, Rotation, StoreError, Target, Touched},
};

/// Gives a credential a secret that is pending until it is proved.
pub(super) struct Rotate<'a> {
    pub(super) target: Target<'a>,
    pub(super) rotation: &'a Rotation,
    pub(super) repeat: Option<&'a Repeat>,
    pub(super) actor: &'a Actor,
}

#[async_trait]
impl Step for Rotate<'_> {
    type Output = Option<Inserted>;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<Inserted>>, StoreError> {
        if !self.lock(tx).await? {
            return Ok(Done::nothing(None));
        }
        // As it is under the locks.
        let Some(before) = credentials::get(tx, self.target).await? else {
            return Ok(Done::nothing(None));
        };
        match before.credential.status(self.actor.at) {
            Status::Active => {}
            Status::Revoked => return Err(StoreError::Refused(Refusal::TokenRevoked)),
            Status::Expired => return Err(StoreError::Refused(Refusal::TokenExpired)),
        }
        let secret = &self.rotation.secret;
        if let Some(repeat) = self.repeat
            && let Some(earlier) =
                repeats::claim(tx, repeat, self.target.id, secret, self.actor).await?
        {
            let again = repeats::replace(tx, repeat, &earlier, secret, self.actor).await?;
            if !again {
                return Ok(Done::nothing(Some(Inserted { kept: before, already_used: true })));
            }
            return self.done(tx, "credential.rotate_again", true).await;
        }
        let replaced = sqlx::query(
            "DELETE FROM secrets WHERE credential_id = $1 AND state = 'pending' \
             AND proved_at IS NULL",
        )
        .bind(self.target.id)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        if replaced == 0 {
            // One that is there nevertheless was proved, and its promotion is to come.
            self.check_caller_not_superseded(tx).await?;
            promote(tx, self.target.id, self.actor.at).await?;
        }
        sqlx::query(
            "UPDATE secrets SET expires_at = CASE WHEN expires_at < $2 THEN expires_at ELSE $2 END \
             WHERE credential_id = $1 AND state = 'current'",
        )
        .bind(self.target.id)
        .bind(self.actor.at.saturating_add(self.rotation.overlap).as_micros())
        .execute(&mut **tx)
        .await?;
        insert_secret(tx, self.target.id, secret, "pending", None, self.actor).await?;
        self.done(tx, "credential.rotate", replaced > 0).await
    }
}

impl Rotate<'_> {
    /// Locks the credential and what it hangs on, unless it is dead; `false` if there
    /// is none.
    async fn lock(&self, tx: &mut Tx) -> Result<bool, StoreError> {
        let Some(Kept { credential, .. }) = credentials::get(tx, self.target).await? else {
            return Ok(false);
        };
        if credential.status(self.actor.at) == Status::Active {
            let (is_admin, _) = creation::lock_owner(tx, &credential.user_id).await?;
            if is_admin && self.target.reach.spares_administrators {
                return Err(StoreError::Refused(Refusal::OwnerIsAdministrator));
            }
            if let Some(binding) = &credential.workspace {
                creation::lock_workspace(tx, &binding.workspace_id, &credential.user_id).await?;
            }
            sqlx::query(super::super::HOLD_CREDENTIAL)
                .bind(self.target.id)
                .execute(&mut **tx)
                .await?;
        }
        Ok(true)
    }

    /// Who still holds the secret before one that was proved may not rotate.
    async fn check_caller_not_superseded(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let superseded: Option<bool> = sqlx::query_scalar(
            "SELECT s.state = 'superseded' OR (s.state = 'current' AND EXISTS (SELECT 1 \
             FROM secrets n WHERE n.credential_id = s.credential_id AND n.state = 'pending' \
             AND n.proved_at IS NOT NULL)) FROM secrets s WHERE s.id = $1",
        )
        .bind(self.actor.secret_id.as_deref())
        .fetch_optional(&mut **tx)
        .await?;
        match superseded {
            Some(true) => Err(StoreError::Refused(Refusal::SupersededSecret)),
            Some(false) | None => Ok(()),
        }
    }

    async fn done(
        &self,
        tx: &mut Tx,
        action: &'static str,
        replaced: bool,
    ) -> Result<Done<Option<Inserted>>, StoreError> {
        sqlx::query("UPDATE credentials SET updated_at = $2 WHERE id = $1")
            .bind(self.target.id)
            .bind(self.actor.at.as_micros())
            .execute(&mut **tx)
            .await?;
        let kept = credentials::get(tx, self.target)
            .await?
            .ok_or_else(|| StoreError::Failed("a credential is gone in a transaction".into()))?;
        Ok(Done {
            value: Some(Inserted { kept, already_used: false }),
            touched: vec![Touched::Credential(self.target.id.to_owned())],
            audit: Some(Audit {
                action,
                targets: vec![self.target.id.to_owned()],
                details: json!({ "replaced_unused_secret": replaced }),
            }),
        })
    }
}

/// Makes a proved pending secret the current one.
pub(super) struct Promote<'a> {
    pub(super) secret_id: &'a str,
    pub(super) at: Timestamp,
}

#[async_trait]
impl Step for Promote<'_> {
    type Output = bool;

    async fn run(&self, tx: &mut Tx) -> Result<Done<bool>, StoreError> {
        let credential_id: Option<String> = sqlx::query_scalar(
            "SELECT credential_id FROM secrets WHERE id = $1 AND state = 'pending'",
        )
        .bind(self.secret_id)
        .fetch_optional(&mut **tx)
        .await?;
        let Some(credential_id) = credential_id else { return Ok(Done::nothing(false)) };
        if !promote(tx, &credential_id, self.at).await? {
            return Ok(Done::nothing(false));
        }
        Ok(Done {
            value: true,
            touched: vec![Touched::Credential(credential_id.clone())],
            audit: Some(Audit {
                action: "credential.promote",
                targets: vec![credential_id],
                details: json!({}),
            }),
        })
    }
}

/// Ends the current secret of a credential in favour of its pending one, if that
/// was proved; `false` if there is none such.
async fn promote(tx: &mut Tx, credential_id: &str, at: Timestamp) -> Result<bool, StoreError> {
    // Whoever comes second waits here, and finds another current secret then.
    let ended = sqlx::query(
        "UPDATE secrets SET state = 'superseded', \
         expires_at = CASE WHEN expires_at < $2 THEN expires_at ELSE $2 END \
         WHERE state = 'current' AND credential_id = (SELECT n.credential_id FROM secrets n \
         WHERE n.credential_id = $1 AND n.state = 'pending' AND n.proved_at IS NOT NULL)",
    )
    .bind(credential_id)
    .bind(at.as_micros())
    .execute(&mut **tx)
    .await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "UPDATE secrets SET state = 'current' WHERE credential_id = $1 AND state = 'pending'",
    )
    .bind(credential_id)
    .execute(&mut **tx)
    .await?;
    Ok(true)
}

/// Notes that a superseded secret was shown again.
pub(super) struct NoteReuse<'a> {
    pub(super) secret_id: &'a str,
    pub(super) revoke: bool,
    pub(super) at: Timestamp,
}

#[async_trait]
impl Step for NoteReuse<'_> {
    type Output = bool;

    async fn run(&self, tx: &mut Tx) -> Result<Done<bool>, StoreError> {
        let credential_id: Option<String> =
            sqlx::query_scalar("SELECT credential_id FROM secrets WHERE id = $1")
                .bind(self.secret_id)
                .fetch_optional(&mut **tx)
                .await?;
        let Some(credential_id) = credential_id else { return Ok(Done::nothing(false)) };
        // The successor was proved, but its promotion may not be written yet.
        let promoted = promote(tx, &credential_id, self.at).await?;
        let revoked = self.revoke && self.end(tx, &credential_id).await?;
        let noted = sqlx::query(
            "UPDATE secrets SET reused_at = $2 \
             WHERE id = $1 AND state = 'superseded' AND reused_at IS NULL",
        )
        .bind(self.secret_id)
        .bind(self.at.as_micros())
        .execute(&mut **tx)
        .await?
        .rows_affected()
            == 1;
        let audit = (promoted || revoked || noted).then(|| Audit {
            action: "credential.secret_reused",
            targets: vec![credential_id.clone()],
            details: json!({ "secret_id": self.secret_id, "revoked": revoked }),
        });
        let changes_answers = promoted || revoked;
        let touched = changes_answers.then_some(Touched::Credential(credential_id));
        Ok(Done { value: noted || revoked, touched: touched.into_iter().collect(), audit })
    }
}

impl NoteReuse<'_> {
    /// Ends the credential whose superseded secret was shown; `false` if it was ended
    /// before, or the secret is not superseded.
    async fn end(&self, tx: &mut Tx, credential_id: &str) -> Result<bool, StoreError> {
        let revoked = sqlx::query(
            "UPDATE credentials SET revoked_at = $2, updated_at = $2 \
             WHERE id = $1 AND revoked_at IS NULL \
             AND EXISTS (SELECT 1 FROM secrets WHERE id = $3 AND state = 'superseded')",
        )
        .bind(credential_id)
        .bind(self.at.as_micros())
        .bind(self.secret_id)
        .execute(&mut **tx)
        .await?;
        Ok(revoked.rows_affected() == 1)
    }
}
