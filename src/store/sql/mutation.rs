//! The one way to change anything.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Executor, Pool};

use super::{Tx, rows};
use crate::{
    domain::Revision,
    random,
    store::{Actor, StoreError},
};

/// How often a transaction is tried that the engine gave up in favour of another.
const ATTEMPTS: u32 = 6;

/// A change: what it does inside a transaction, which may be tried again.
#[async_trait]
pub(super) trait Step: Sync {
    /// What the caller gets of it.
    type Output: Send;

    /// Does it, and says what it did.
    async fn run(&self, tx: &mut Tx) -> Result<Done<Self::Output>, StoreError>;
}

/// What a step did.
pub(super) struct Done<T> {
    /// What the caller gets of it.
    pub(super) value: T,
    /// Whose answers of Verify it may have altered; none: it takes no revision.
    pub(super) touched: Vec<Touched>,
    /// What the audit row says; `None`: nothing was changed.
    pub(super) audit: Option<(&'static str, Vec<String>)>,
}

impl<T> Done<T> {
    /// Nothing was changed.
    pub(super) fn nothing(value: T) -> Self {
        Self { value, touched: Vec::new(), audit: None }
    }
}

/// What a change touched.
pub(super) enum Touched {
    Credential(String),
    User(String),
}

impl Touched {
    fn to_json(&self) -> serde_json::Value {
        let (kind, id) = match self {
            Self::Credential(id) => ("credential", id),
            Self::User(id) => ("user", id),
        };
        serde_json::json!([kind, id])
    }
}

/// Runs a step in a transaction of its own, with its audit row and, if it can
/// alter an answer of Verify, a revision of its own.
///
/// The row of the revision is taken last before the commit, so that revisions
/// are gapless and in commit order. Returns the newest revision that the
/// transaction saw: its own, if it took one.
pub(super) async fn mutate<S: Step>(
    pool: &Pool<super::Db>,
    actor: &Actor,
    step: &S,
) -> Result<(S::Output, Revision), StoreError> {
    let mut attempt = 1;
    loop {
        match once(pool, actor, step).await {
            Err(StoreError::Unavailable(error))
                if attempt < ATTEMPTS && super::super::gave_way(&*error) =>
            {
                tracing::debug!(attempt, "transaction gave way to another and is tried again");
                let [spread] = random::bytes::<1>();
                tokio::time::sleep(Duration::from_millis(
                    u64::from(attempt) * u64::from(spread % 16),
                ))
                .await;
                attempt += 1;
            }
            result => return result,
        }
    }
}

async fn once<S: Step>(
    pool: &Pool<super::Db>,
    actor: &Actor,
    step: &S,
) -> Result<(S::Output, Revision), StoreError> {
    let mut tx = super::super::begin(pool).await?;
    let done = step.run(&mut tx).await?;
    let revision = record(&mut tx, actor, &done).await?;
    tx.commit().await?;
    Ok((done.value, revision))
}

/// Writes the audit row and takes the revision: what ends every transaction
/// that changes anything.
pub(super) async fn record<T>(
    tx: &mut Tx,
    actor: &Actor,
    done: &Done<T>,
) -> Result<Revision, StoreError> {
    let revision = if done.touched.is_empty() {
        None
    } else {
        Some(take_revision(tx, actor, &done.touched).await?)
    };
    if let Some((action, targets)) = &done.audit {
        sqlx::query(
            "INSERT INTO audit (id, revision, occurred_at, action, caller_user_id, \
             caller_token_id, caller_ip, request_id, targets) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(random::id(actor.at))
        .bind(revision.map(|revision| revision.number))
        .bind(actor.at.as_micros())
        .bind(*action)
        .bind(actor.user_id.as_str())
        .bind(actor.token_id.as_ref().map(|id| id.0.as_str()))
        .bind(actor.ip.map(|ip| ip.to_string()))
        .bind(actor.request_id.as_deref())
        .bind(rows::json(targets))
        .execute(&mut **tx)
        .await?;
    }
    match revision {
        Some(revision) => Ok(revision),
        None => Ok(head(&mut **tx).await?),
    }
}

async fn take_revision(
    tx: &mut Tx,
    actor: &Actor,
    touched: &[Touched],
) -> Result<Revision, StoreError> {
    let touched: Vec<_> = touched.iter().map(Touched::to_json).collect();
    let mark = i64::from_ne_bytes(random::bytes());
    let number: i64 = sqlx::query_scalar(
        "UPDATE revision SET number = number + 1, mark = $1 WHERE id = 1 RETURNING number",
    )
    .bind(mark)
    .fetch_one(&mut **tx)
    .await?;
    sqlx::query(
        "INSERT INTO changes (revision, mark, changed_at, touched) VALUES ($1, $2, $3, $4)",
    )
    .bind(number)
    .bind(mark)
    .bind(actor.at.as_micros())
    .bind(serde_json::Value::from(touched).to_string())
    .execute(&mut **tx)
    .await?;
    super::super::notify(tx, number).await?;
    Ok(Revision { number, mark })
}

/// The newest revision.
pub(super) async fn head<'e>(
    executor: impl Executor<'e, Database = super::Db>,
) -> Result<Revision, sqlx::Error> {
    let (number, mark) = sqlx::query_as("SELECT number, mark FROM revision WHERE id = 1")
        .fetch_one(executor)
        .await?;
    Ok(Revision { number, mark })
}
