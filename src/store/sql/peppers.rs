//! Peppers, and the secrets under others than the current one.

use async_trait::async_trait;
use serde_json::json;
use sqlx::Pool;

use super::{
    Db, Tx,
    mutation::{Audit, Done, Step},
};
use crate::{
    domain::{CredentialId, Digest, PepperId, Sealed, Timestamp},
    store::{Candidate, KeptPepper, KeptSeal, MAX_ROWS, Promotion, Refusal, StoreError, Unloaded},
};

pub(super) async fn candidates(
    pool: &Pool<Db>,
    unloaded: Unloaded<'_>,
) -> Result<Vec<Candidate>, StoreError> {
    let rows: Vec<(Vec<u8>, String)> = sqlx::query_as(
        "SELECT digest, record FROM secrets WHERE shown = $1 \
         AND pepper_id NOT IN ($2, $3, $4, $5) ORDER BY id LIMIT 4",
    )
    .bind(unloaded.shown)
    .bind(unloaded.loaded_or_none(0))
    .bind(unloaded.loaded_or_none(1))
    .bind(unloaded.loaded_or_none(2))
    .bind(unloaded.loaded_or_none(3))
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(digest, record)| {
            let digest = Digest::from_stored(&digest)
                .ok_or_else(|| StoreError::Failed("a digest is not of its length".into()))?;
            Ok(Candidate { digest, record })
        })
        .collect()
}

pub(super) async fn redigest(
    pool: &Pool<Db>,
    secret_id: &str,
    from: &PepperId,
    to: &PepperId,
    digest: &Digest,
    sealed: Option<&Sealed>,
) -> Result<bool, StoreError> {
    let redigested = sqlx::query(
        "UPDATE secrets SET pepper_id = $3, digest = $4, \
         sealed = CASE WHEN sealed IS NULL THEN NULL ELSE $5 END WHERE id = $1 AND pepper_id = $2 \
         AND EXISTS (SELECT 1 FROM peppers WHERE id = $3 AND is_current)",
    )
    .bind(secret_id)
    .bind(from.as_str())
    .bind(to.as_str())
    .bind(digest.as_bytes())
    .bind(sealed.map(Sealed::as_bytes))
    .execute(pool)
    .await?;
    Ok(redigested.rows_affected() == 1)
}

pub(super) async fn sealed_under(
    pool: &Pool<Db>,
    pepper: &PepperId,
    after: &str,
) -> Result<Vec<KeptSeal>, StoreError> {
    let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(
        "SELECT id, credential_id, sealed FROM secrets \
         WHERE pepper_id = $1 AND sealed IS NOT NULL AND id > $2 ORDER BY id LIMIT $3",
    )
    .bind(pepper.as_str())
    .bind(after)
    .bind(MAX_ROWS)
    .fetch_all(pool)
    .await?;
    let kept = |(secret_id, credential_id, sealed)| KeptSeal {
        secret_id,
        credential_id: CredentialId(credential_id),
        sealed: Sealed::from_stored(sealed),
    };
    Ok(rows.into_iter().map(kept).collect())
}

/// Forgets what secrets are sealed as.
pub(super) struct ForgetSeals;

#[async_trait]
impl Step for ForgetSeals {
    type Output = u64;

    async fn run(&self, tx: &mut Tx) -> Result<Done<u64>, StoreError> {
        let forgotten = sqlx::query(
            "UPDATE secrets SET sealed = NULL WHERE sealed IS NOT NULL AND id IN ( \
             SELECT id FROM secrets WHERE sealed IS NOT NULL ORDER BY pepper_id, id LIMIT $1)",
        )
        .bind(MAX_ROWS)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        let audit = (forgotten > 0).then(|| Audit {
            action: "secrets.forget_sealed",
            targets: Vec::new(),
            details: json!({ "secrets": forgotten }),
        });
        Ok(Done { value: forgotten, touched: Vec::new(), audit })
    }
}

pub(super) async fn list(pool: &Pool<Db>) -> Result<Vec<KeptPepper>, StoreError> {
    let rows: Vec<(String, bool, i64)> = sqlx::query_as(
        "SELECT p.id, p.is_current, (SELECT count(*) FROM (SELECT 1 FROM secrets s \
         WHERE s.pepper_id = p.id LIMIT 1000000) AS counted) \
         FROM peppers p ORDER BY p.created_at, p.id",
    )
    .fetch_all(pool)
    .await?;
    let kept = |(id, is_current, secrets)| KeptPepper {
        id: PepperId::from_stored(id),
        is_current,
        secrets,
    };
    Ok(rows.into_iter().map(kept).collect())
}

pub(super) async fn note(
    pool: &Pool<Db>,
    ids: &[PepperId],
    at: Timestamp,
) -> Result<(), StoreError> {
    for id in ids {
        sqlx::query(
            "INSERT INTO peppers (id, is_current, created_at) VALUES ($1, FALSE, $2) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(id.as_str())
        .bind(at.as_micros())
        .execute(pool)
        .await?;
    }
    Ok(())
}

/// Makes a pepper the current one.
pub(super) struct Promote<'a> {
    pub(super) id: &'a PepperId,
    pub(super) because: &'a Promotion,
}

#[async_trait]
impl Step for Promote<'_> {
    type Output = bool;

    async fn run(&self, tx: &mut Tx) -> Result<Done<bool>, StoreError> {
        sqlx::query(super::super::LOCK_STORE).execute(&mut **tx).await?;
        let is_current: Option<bool> =
            sqlx::query_scalar("SELECT is_current FROM peppers WHERE id = $1")
                .bind(self.id.as_str())
                .fetch_optional(&mut **tx)
                .await?;
        match is_current {
            None => return Err(StoreError::Refused(Refusal::NoPepper)),
            Some(true) => return Ok(Done::nothing(false)),
            Some(false) => {}
        }
        let before: String = sqlx::query_scalar("SELECT id FROM peppers WHERE is_current")
            .fetch_one(&mut **tx)
            .await?;
        let action = match self.because {
            Promotion::Rotation => "pepper.promote",
            Promotion::Loss(lost) if lost.as_str() == before => "pepper.lost",
            Promotion::Loss(_) => return Ok(Done::nothing(false)),
        };
        sqlx::query("UPDATE peppers SET is_current = FALSE WHERE is_current")
            .execute(&mut **tx)
            .await?;
        sqlx::query("UPDATE peppers SET is_current = TRUE WHERE id = $1")
            .bind(self.id.as_str())
            .execute(&mut **tx)
            .await?;
        let targets = vec![self.id.as_str().to_owned()];
        let details = json!({ "before": before });
        let audit = Audit { action, targets, details };
        Ok(Done { value: true, touched: Vec::new(), audit: Some(audit) })
    }
}
