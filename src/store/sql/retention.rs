//! How far back the history is kept: what was changed, and who did it.

use async_trait::async_trait;
use serde_json::json;

use super::{
    Tx,
    mutation::{Audit, Done, Step, is_alone},
};
use crate::{
    domain::Timestamp,
    store::{MAX_CHANGES, MAX_ROWS, StoreError},
};

/// Forgets the oldest changes, and audit rows.
pub(super) struct Forget {
    pub(super) changes_before: Timestamp,
    pub(super) audit_before: Option<Timestamp>,
}

/// The last of the oldest changes that is to be forgotten. Those before it are, too,
/// whatever their instants: what is kept has no gap. The head is never among them.
const LAST_TO_FORGET: &str = "\
    SELECT max(o.revision) FROM (SELECT c.revision, c.changed_at FROM changes c \
    ORDER BY c.revision LIMIT $1) AS o CROSS JOIN revision r WHERE r.id = 1 \
    AND o.revision < r.number AND (o.changed_at < $2 OR o.revision <= r.number - $3)";

#[async_trait]
impl Step for Forget {
    type Output = u64;

    async fn run(&self, tx: &mut Tx) -> Result<Done<u64>, StoreError> {
        if !is_alone(tx).await? {
            return Ok(Done::nothing(0));
        }
        let last: Option<i64> = sqlx::query_scalar(LAST_TO_FORGET)
            .bind(MAX_ROWS)
            .bind(self.changes_before.as_micros())
            .bind(MAX_CHANGES)
            .fetch_one(&mut **tx)
            .await?;
        let mut forgotten = 0;
        if let Some(last) = last {
            let deleted = sqlx::query("DELETE FROM changes WHERE revision <= $1").bind(last);
            forgotten += deleted.execute(&mut **tx).await?.rows_affected();
        }
        let Some(before) = self.audit_before else { return Ok(Done::nothing(forgotten)) };
        let rows = sqlx::query(
            "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE occurred_at < $1 \
             ORDER BY occurred_at LIMIT $2)",
        )
        .bind(before.as_micros())
        .bind(MAX_ROWS)
        .execute(&mut **tx)
        .await?
        .rows_affected();
        let audit = (rows > 0).then(|| Audit {
            action: "audit.purge",
            targets: Vec::new(),
            details: json!({ "before": before.as_micros(), "rows": rows }),
        });
        Ok(Done { value: forgotten + rows, touched: Vec::new(), audit })
    }
}
