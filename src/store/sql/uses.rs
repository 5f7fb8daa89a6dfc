//! When credentials were last used, from where, and before which verifiers.

use async_trait::async_trait;
use serde_json::json;
use sqlx::{Pool, QueryBuilder};

use super::{
    Db, Tx,
    mutation::{Done, Step, is_alone},
    rows::{self, known_to},
};
use crate::{
    domain::{CredentialId, Timestamp},
    store::{Cursor, KeptUse, LastUse, MAX_ROWS, StoreError, USES_KEPT, Use},
};

/// What is there no more is passed over. The rows are written in the order of their
/// ids, so that processes that note the same ones wait for each other and not in
/// a circle; one that is purged in between fails the statement, which is tried again.
macro_rules! of_what_is_there {
    () => {
        ") AS u WHERE EXISTS (SELECT 1 FROM credentials c WHERE c.id = u.column1) "
    };
}

const LAST_KNOWN: &str = concat!(
    of_what_is_there!(),
    "ORDER BY u.column1 ON CONFLICT (credential_id) DO UPDATE \
     SET last_used_at = excluded.last_used_at, last_used_ip = excluded.last_used_ip \
     WHERE last_uses.last_used_at <= excluded.last_used_at",
);

const EACH_KNOWN: &str = concat!(
    of_what_is_there!(),
    "ORDER BY u.column1, u.column2, u.column3 \
     ON CONFLICT (credential_id, verifier_id, client_ip) DO UPDATE \
     SET last_used_at = excluded.last_used_at \
     WHERE verifier_uses.last_used_at < excluded.last_used_at",
);

pub(super) async fn note_last(pool: &Pool<Db>, uses: &[LastUse]) -> Result<(), StoreError> {
    if uses.is_empty() {
        return Ok(());
    }
    let mut statement = QueryBuilder::<Db>::new(
        "INSERT INTO last_uses (credential_id, last_used_at, last_used_ip) \
         SELECT u.column1, u.column2, u.column3 FROM (",
    );
    statement.push_values(uses, |mut row, last| {
        row.push_bind(last.credential_id.0.as_str())
            .push_bind(last.at.as_micros())
            .push_bind(last.ip.map(|ip| ip.to_canonical().to_string()));
    });
    statement.push(LAST_KNOWN);
    // Each number of rows is a text of its own, not worth keeping prepared.
    statement.build().persistent(false).execute(pool).await?;
    Ok(())
}

pub(super) async fn note(pool: &Pool<Db>, uses: &[Use]) -> Result<(), StoreError> {
    if uses.is_empty() {
        return Ok(());
    }
    let mut statement = QueryBuilder::<Db>::new(
        "INSERT INTO verifier_uses (credential_id, verifier_id, client_ip, last_used_at) \
         SELECT u.column1, u.column2, u.column3, u.column4 FROM (",
    );
    statement.push_values(uses, |mut row, each| {
        let verifier_id = each.verifier_id.as_ref().map_or("", |id| id.0.as_str());
        let ip = each.ip.map(|ip| ip.to_canonical().to_string());
        row.push_bind(each.credential_id.0.as_str())
            .push_bind(verifier_id)
            .push_bind(ip.unwrap_or_default())
            .push_bind(each.at.as_micros());
    });
    statement.push(EACH_KNOWN);
    statement.build().persistent(false).execute(pool).await?;
    Ok(())
}

/// Which of those that are listed there are, as far as who is bound to a workspace may
/// know.
const KNOWN: &str = concat!(
    "SELECT c.id FROM ",
    rows_of!(before),
    "$1",
    rows_of!(after),
    " JOIN credentials c ON c.id = value WHERE ",
    known_to!("$2"),
);

pub(super) async fn known(
    pool: &Pool<Db>,
    ids: &[CredentialId],
    workspace_id: Option<&str>,
) -> Result<Vec<CredentialId>, StoreError> {
    let ids: Vec<&str> = ids.iter().map(|id| id.0.as_str()).collect();
    let known: Vec<String> = sqlx::query_scalar(KNOWN)
        .bind(json!(ids).to_string())
        .bind(workspace_id)
        .fetch_all(pool)
        .await?;
    Ok(known.into_iter().map(CredentialId).collect())
}

/// A page of the uses of a credential, or one row without any if there are none. What
/// comes after an instant is in the order of verifier and address.
const LIST: &str = "\
    SELECT n.verifier_id, v.user_id, n.client_ip, n.last_used_at FROM credentials c \
    LEFT JOIN verifier_uses n ON n.credential_id = c.id \
    AND (n.last_used_at, n.verifier_id || '/' || n.client_ip) < ($2, $3) \
    LEFT JOIN credentials v ON v.id = n.verifier_id WHERE c.id = $1 \
    ORDER BY n.last_used_at DESC, n.verifier_id || '/' || n.client_ip DESC LIMIT $4";

/// A row of [`LIST`]: verifier, its user, address, and when.
type Row = (Option<String>, Option<String>, Option<String>, Option<i64>);

pub(super) async fn list(
    pool: &Pool<Db>,
    id: &CredentialId,
    after: Option<&Cursor>,
    limit: i64,
) -> Result<Option<Vec<KeptUse>>, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(LIST)
        .bind(&id.0)
        .bind(after.map_or(i64::MAX, |cursor| cursor.created_at.as_micros()))
        .bind(after.map_or("", |cursor| cursor.id.as_str()))
        .bind(limit)
        .fetch_all(pool)
        .await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let uses = rows.into_iter().filter_map(|(verifier_id, user_id, ip, at)| {
        let (verifier_id, ip, at) = (verifier_id?, ip?, at?);
        Some(rows::time(at).and_then(|last_used_at| {
            Ok(KeptUse {
                verifier_id: (!verifier_id.is_empty()).then_some(CredentialId(verifier_id)),
                verifier_user_id: user_id.map(rows::parsed).transpose()?,
                ip: (!ip.is_empty()).then_some(ip),
                last_used_at,
            })
        }))
    });
    uses.collect::<Result<_, _>>().map(Some)
}

/// Forgets uses of some credentials that are long ago or too many.
pub(super) struct Forget<'a> {
    pub(super) before: Timestamp,
    pub(super) after: Option<&'a CredentialId>,
}

/// How many rows are looked at at once, if no credential has more.
const WINDOW: i64 = 10_000;

#[async_trait]
impl Step for Forget<'_> {
    type Output = Option<CredentialId>;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<CredentialId>>, StoreError> {
        if !is_alone(tx).await? {
            return Ok(Done::nothing(self.after.cloned()));
        }
        let after = self.after.map_or("", |id| id.0.as_str());
        let last: Option<String> = sqlx::query_scalar(
            "SELECT credential_id FROM verifier_uses WHERE credential_id > $1 \
             ORDER BY credential_id LIMIT 1 OFFSET $2",
        )
        .bind(after)
        .bind(WINDOW - 1)
        .fetch_optional(&mut **tx)
        .await?;
        let forgotten = sqlx::query(
            "DELETE FROM verifier_uses WHERE (credential_id, verifier_id, client_ip) IN ( \
             SELECT credential_id, verifier_id, client_ip FROM ( \
             SELECT credential_id, verifier_id, client_ip, last_used_at, row_number() OVER ( \
             PARTITION BY credential_id, verifier_id ORDER BY last_used_at DESC, client_ip) AS place \
             FROM verifier_uses WHERE credential_id > $1 AND credential_id <= coalesce($2, '~') \
             ) AS seen WHERE place > $3 OR last_used_at < $4 LIMIT $5)",
        )
        .bind(after)
        .bind(&last)
        .bind(USES_KEPT)
        .bind(self.before.as_micros())
        .bind(MAX_ROWS)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        // A full one may have left some behind, so it is looked at again.
        let is_full = forgotten >= MAX_ROWS.unsigned_abs();
        let next = if is_full { Some(after.to_owned()) } else { last }.map(CredentialId);
        Ok(Done::nothing(next))
    }
}
