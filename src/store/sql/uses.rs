//! When credentials were last used.

use sqlx::{Pool, QueryBuilder};

use super::Db;
use crate::store::{LastUse, StoreError};

/// What is there no more is passed over. The rows are written in the order of their
/// ids, so that processes that note the same ones wait for each other and not in
/// a circle; one that is purged in between fails the statement, which is tried again.
const KNOWN: &str = ") AS u WHERE EXISTS (SELECT 1 FROM credentials c WHERE c.id = u.column1) \
    ORDER BY u.column1 ON CONFLICT (credential_id) DO UPDATE \
    SET last_used_at = excluded.last_used_at, last_used_ip = excluded.last_used_ip \
    WHERE last_uses.last_used_at <= excluded.last_used_at";

pub(super) async fn note(pool: &Pool<Db>, uses: &[LastUse]) -> Result<(), StoreError> {
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
    statement.push(KNOWN);
    // Each number of rows is a text of its own, not worth keeping prepared.
    statement.build().persistent(false).execute(pool).await?;
    Ok(())
}
