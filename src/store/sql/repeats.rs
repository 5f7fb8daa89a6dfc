//! Secrets, and the requests that made them and may be repeated.

use super::{Query, Tx};
use crate::domain::Sealed;
use crate::store::{Actor, NewSecret, REQUEST_ID_LIFETIME, Refusal, Repeat, StoreError};

/// What a request made when it was first made.
#[derive(sqlx::FromRow)]
pub(super) struct Earlier {
    body_hash: Vec<u8>,
    pub(super) credential_id: String,
    pub(super) secret_id: String,
}

/// Takes the request id for this request, which makes this secret; what it made
/// before, if it did.
pub(super) async fn claim(
    tx: &mut Tx,
    repeat: &Repeat,
    credential_id: &str,
    secret: &NewSecret,
    actor: &Actor,
) -> Result<Option<Earlier>, StoreError> {
    let since = actor.at.saturating_sub(REQUEST_ID_LIFETIME);
    let claimed = sqlx::query(
        "INSERT INTO request_ids (caller_id, request_id, body_hash, credential_id, secret_id, \
         created_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (caller_id, request_id) DO UPDATE \
         SET body_hash = excluded.body_hash, credential_id = excluded.credential_id, \
         secret_id = excluded.secret_id, created_at = excluded.created_at \
         WHERE request_ids.created_at <= $7",
    )
    .bind(caller_id(actor))
    .bind(repeat.request_id.to_string())
    .bind(&repeat.body_hash[..])
    .bind(credential_id)
    .bind(&secret.id)
    .bind(actor.at.as_micros())
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
    .bind(caller_id(actor))
    .bind(repeat.request_id.to_string())
    .fetch_one(&mut **tx)
    .await?;
    if earlier.body_hash == repeat.body_hash {
        Ok(Some(earlier))
    } else {
        Err(StoreError::Refused(Refusal::RequestIdReused))
    }
}

/// Puts a new secret in the place of the one that the request made before, which
/// then is dead; `false` if that one was proved, rotated since, or is gone.
pub(super) async fn replace(
    tx: &mut Tx,
    repeat: &Repeat,
    earlier: &Earlier,
    new: &NewSecret,
    actor: &Actor,
) -> Result<bool, StoreError> {
    // Whoever rotates waits, and meets the new one.
    sqlx::query(super::super::HOLD_CREDENTIAL)
        .bind(&earlier.credential_id)
        .execute(&mut **tx)
        .await?;
    let state: Option<String> = sqlx::query_scalar(
        "DELETE FROM secrets WHERE id = $1 AND proved_at IS NULL AND expires_at IS NULL \
         AND EXISTS (SELECT 1 FROM credentials c WHERE c.id = $2 AND c.revoked_at IS NULL) \
         RETURNING state",
    )
    .bind(&earlier.secret_id)
    .bind(&earlier.credential_id)
    .fetch_optional(&mut **tx)
    .await?;
    let Some(state) = state else { return Ok(false) };
    insert_secret(tx, &earlier.credential_id, new, &state, None, actor).await?;
    sqlx::query("UPDATE request_ids SET secret_id = $3 WHERE caller_id = $1 AND request_id = $2")
        .bind(caller_id(actor))
        .bind(repeat.request_id.to_string())
        .bind(&new.id)
        .execute(&mut **tx)
        .await?;
    Ok(true)
}

/// Keeps a secret, by what [`bind_secret`] binds.
macro_rules! secret_insert {
    () => {
        "INSERT INTO secrets (id, credential_id, digest, pepper_id, record, shown, state, \
         created_at, proved_at, sealed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
    };
}

pub(super) use secret_insert;

/// Keeps a secret. It is digested under the pepper that was current when it was
/// made; a promotion since then is made good when it is next proved.
pub(super) async fn insert_secret(
    tx: &mut Tx,
    credential_id: &str,
    new: &NewSecret,
    state: &str,
    proved_at: Option<i64>,
    actor: &Actor,
) -> Result<(), StoreError> {
    let query = sqlx::query(secret_insert!());
    bind_secret(query, credential_id, new, state, proved_at, actor).execute(&mut **tx).await?;
    Ok(())
}

/// Binds the first ten values.
pub(super) fn bind_secret<'q>(
    query: Query<'q>,
    credential_id: &str,
    new: &NewSecret,
    state: &str,
    proved_at: Option<i64>,
    actor: &Actor,
) -> Query<'q> {
    query
        .bind(&new.id)
        .bind(credential_id)
        .bind(new.digest.as_bytes())
        .bind(new.pepper_id.as_str())
        .bind(&new.record)
        .bind(&new.shown)
        .bind(state)
        .bind(actor.at.as_micros())
        .bind(proved_at)
        .bind(new.sealed.as_ref().map(Sealed::as_bytes))
}

/// Whose request ids these are.
fn caller_id(actor: &Actor) -> &str {
    actor.token_id.as_ref().map_or("", |id| id.0.as_str())
}
