//! The one way to change anything.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use sqlx::Executor;

use super::{
    SqlStore, Tx, changes,
    rows::{self, credential_columns, ended},
};
use crate::{
    domain::{Revision, Timestamp},
    random,
    store::{Actor, Basis, Managed, Refusal, StoreError, Touched},
};

/// The newest revision.
macro_rules! head {
    () => {
        "SELECT number, mark FROM revision WHERE id = 1"
    };
}

/// How long a transaction is waited for. It has a few statements, each of which the server
/// gives up after five seconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a transaction is tried that the engine gave up in favour of another.
const ATTEMPTS: u32 = 6;

/// A change: what it does inside a transaction, which may be tried again.
#[async_trait]
pub(super) trait Step: Sync {
    /// What the caller gets of it.
    type Output: Send;

    /// Whether it is done only if its caller still may when it is committed.
    fn needs_standing(&self) -> bool {
        true
    }

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
    pub(super) audit: Option<Audit>,
}

/// What an audit row says beside who, when and from where.
pub(super) struct Audit {
    /// What was done, `noun.verb`.
    pub(super) action: &'static str,
    /// The ids of what it was done to.
    pub(super) targets: Vec<String>,
    /// What was set, never a secret.
    pub(super) details: serde_json::Value,
}

impl<T> Done<T> {
    /// Nothing was changed.
    pub(super) fn nothing(value: T) -> Self {
        Self { value, touched: Vec::new(), audit: None }
    }
}

/// Runs a step in a transaction of its own, with its audit row and, if it can
/// alter an answer of Verify, a revision of its own.
///
/// The row of the revision is taken last before the commit, so that revisions
/// are gapless and in commit order. Returns the newest revision that the
/// transaction saw: its own, if it took one.
pub(super) async fn mutate<S: Step>(
    store: &SqlStore,
    actor: &Actor,
    step: &S,
) -> Result<(S::Output, Revision), StoreError> {
    let mut tries = Tries::default();
    loop {
        match in_time(once(store, actor, step)).await {
            Err(error) if tries.again(&error).await => {}
            result => return result,
        }
    }
}

/// What a transaction gives, unless the server says nothing any more: others wait for it.
pub(super) async fn in_time<T>(
    transaction: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let ended = tokio::time::timeout(PATIENCE, transaction).await;
    ended.unwrap_or_else(|elapsed| Err(StoreError::Unavailable(elapsed.into())))
}

/// How often a transaction was tried again.
#[derive(Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// Whether one that failed so is to be tried again, since the engine gave it up in
    /// favour of another; if so, after a pause.
    pub(super) async fn again(&mut self, error: &StoreError) -> bool {
        self.0 += 1;
        let gave_way = matches!(error, StoreError::Unavailable(error)
            if super::super::gave_way(&**error));
        if !gave_way || self.0 >= ATTEMPTS {
            return false;
        }
        tracing::debug!(attempt = self.0, "transaction gave way to another and is tried again");
        let [spread] = random::bytes::<1>();
        tokio::time::sleep(Duration::from_millis(u64::from(self.0) * u64::from(spread % 16))).await;
        true
    }
}

async fn once<S: Step>(
    store: &SqlStore,
    actor: &Actor,
    step: &S,
) -> Result<(S::Output, Revision), StoreError> {
    let mut tx = super::super::begin(&store.writer).await?;
    check_managers(&mut tx, actor).await?;
    let done = step.run(&mut tx).await?;
    // The row of the revision is given to whoever waits in no order: of many who wait there
    // some would for seconds. So of each process only one does, in turn.
    let _turn = if done.touched.is_empty() { None } else { Some(store.turn.lock().await) };
    let revision = record(&mut tx, actor, &done).await?;
    if done.audit.is_some() && step.needs_standing() {
        if let (true, Some(token)) = (done.touched.is_empty(), &actor.token_id) {
            // It has no revision to wait for: who revokes the caller waits for this row.
            sqlx::query(super::super::LOCK_CREDENTIAL).bind(&token.0).execute(&mut *tx).await?;
        }
        check_standing(&mut tx, actor, &done.touched).await?;
    }
    commit(store, tx, &done.touched, revision).await?;
    Ok((done.value, revision))
}

/// Commits what touched these, once this process was told of it.
pub(super) async fn commit(
    store: &SqlStore,
    tx: Tx,
    touched: &[Touched],
    revision: Revision,
) -> Result<(), StoreError> {
    let _woken = (!touched.is_empty()).then(|| store.news.made(touched, revision));
    Ok(tx.commit().await?)
}

/// What is written of a list of changes: objects with the fields that are named here.
macro_rules! listed {
    () => {
        concat!(" FROM ", objects_of!(before), "$1", objects_of!(after))
    };
}

/// Keeps the audit rows of those that have one; `$revision` is theirs.
macro_rules! audited {
    ($revision:expr, $head:expr) => {
        concat!(
            "INSERT INTO audit (id, revision, occurred_at, action, caller_user_id, \
             caller_token_id, caller_ip, request_id, targets, details) SELECT value ->> 'id', ",
            $revision,
            ", CAST(value ->> 'at' AS BIGINT), value ->> 'action', value ->> 'user_id', \
             value ->> 'token_id', value ->> 'ip', value ->> 'request_id', value ->> 'targets', \
             value ->> 'details'",
            listed!(),
            $head,
            " WHERE value ->> 'action' IS NOT NULL"
        )
    };
}

/// The number of a change that takes a revision, if `head` is that of the last.
macro_rules! number {
    () => {
        "head.number - $2 + CAST(value ->> 'place' AS BIGINT)"
    };
}

/// Takes a revision for each of `$2` changes, the last of which is marked `$3`.
const RECORD: &str = recorded!(
    "UPDATE revision SET number = number + $2, mark = $3 WHERE id = 1",
    concat!(
        "INSERT INTO changes (revision, mark, changed_at, touched) SELECT ",
        number!(),
        ", CAST(value ->> 'mark' AS BIGINT), CAST(value ->> 'at' AS BIGINT), value ->> 'touched'",
        listed!(),
        " CROSS JOIN ",
        new_head!()
    ),
    audited!(number!(), concat!(" CROSS JOIN ", new_head!()))
);

/// Keeps the audit row of what takes no revision.
const NOTE: &str = and_then!(audited!("CAST(NULL AS BIGINT)", ""), head!());

/// A change, as it is recorded.
pub(super) struct Recorded<'a> {
    pub(super) actor: &'a Actor,
    pub(super) touched: &'a [Touched],
    pub(super) audit: Option<&'a Audit>,
}

impl Recorded<'_> {
    fn to_json(&self, place: i64, mark: i64) -> Value {
        let actor = self.actor;
        json!({
            "place": place,
            "mark": mark,
            "touched": changes::to_text(self.touched),
            "at": actor.at.as_micros(),
            "id": random::id(actor.at),
            "action": self.audit.map(|audit| audit.action),
            "user_id": actor.user_id.as_str(),
            "token_id": actor.token_id.as_ref().map(|id| id.0.as_str()),
            "ip": actor.ip.map(|ip| ip.to_string()),
            "request_id": actor.request_id,
            "targets": self.audit.map(|audit| rows::json(&audit.targets)),
            "details": self.audit.map(|audit| audit.details.to_string()),
        })
    }
}

/// Writes the audit row and takes the revision: what ends every transaction
/// that changes anything, before its commit.
pub(super) async fn record<T>(
    tx: &mut Tx,
    actor: &Actor,
    done: &Done<T>,
) -> Result<Revision, StoreError> {
    let change = Recorded { actor, touched: &done.touched, audit: done.audit.as_ref() };
    if !done.touched.is_empty() {
        let revisions = record_all(tx, &[change]).await?;
        return Ok(*revisions.last().expect("one for each"));
    }
    if done.audit.is_none() {
        return Ok(head(&mut **tx).await?);
    }
    let listed = Value::from_iter([change.to_json(0, 0)]).to_string();
    let (number, mark) = sqlx::query_as(NOTE).bind(listed).fetch_one(&mut **tx).await?;
    Ok(Revision { number, mark })
}

/// The same of several changes, all of which touch something: a revision for each, one
/// after the other.
pub(super) async fn record_all(
    tx: &mut Tx,
    changes: &[Recorded<'_>],
) -> Result<Vec<Revision>, StoreError> {
    let marks: Vec<i64> = changes.iter().map(|_| i64::from_ne_bytes(random::bytes())).collect();
    let listed = (1..).zip(changes).zip(&marks);
    let listed: Value =
        listed.map(|((place, change), mark)| change.to_json(place, *mark)).collect();
    let count = i64::try_from(changes.len()).expect("they are few");
    let last: i64 = sqlx::query_scalar(RECORD)
        .bind(listed.to_string())
        .bind(count)
        .bind(marks.last())
        .fetch_one(&mut **tx)
        .await?;
    let numbers = last - count + 1..;
    Ok(numbers.zip(marks).map(|(number, mark)| Revision { number, mark }).collect())
}

/// Looks, before a step does anything, whether who was let in as a manager still
/// is one, and keeps it so until the commit.
async fn check_managers(tx: &mut Tx, actor: &Actor) -> Result<(), StoreError> {
    let Basis::Manager(managed) = &actor.basis else { return Ok(()) };
    let administrator = sqlx::query(super::super::KEEP_ADMINISTRATOR)
        .bind(actor.user_id.as_str())
        .fetch_optional(&mut **tx)
        .await?;
    if administrator.is_some() {
        return Ok(());
    }
    for Managed { organization_id, workspace_id } in managed {
        let roles = sqlx::query(super::super::KEEP_MANAGER)
            .bind(actor.user_id.as_str())
            .bind(organization_id)
            .bind(workspace_id.as_deref())
            .fetch_all(&mut **tx)
            .await?;
        if roles.is_empty() {
            return Err(StoreError::Refused(Refusal::CallerRole));
        }
    }
    Ok(())
}

/// [`check_standing`] for a step whose effect may be the end of its caller's own
/// token or user, and which has locked the latter: it looks before it does anything.
pub(super) async fn check_standing_before(tx: &mut Tx, actor: &Actor) -> Result<(), StoreError> {
    if let Some(token) = &actor.token_id {
        sqlx::query(super::super::LOCK_CREDENTIAL).bind(&token.0).execute(&mut **tx).await?;
    }
    check_standing(tx, actor, &[]).await
}

/// Looks again whether the caller may: it was let in before the transaction
/// began, and may have waited for a lock since.
///
/// A change that takes a revision looks after it has it, so whatever ended the
/// caller's right either committed before and is seen here, or commits after.
/// What the step itself changed of the caller it has looked at under a lock.
async fn check_standing(tx: &mut Tx, actor: &Actor, touched: &[Touched]) -> Result<(), StoreError> {
    let Some(token_id) = &actor.token_id else { return Ok(()) };
    let as_it_was = actor.as_it_was.as_ref();
    let itself = touched.iter().any(|touched| touched.user_id() == Some(actor.user_id.as_str()));
    let row: Option<(bool, bool)> = sqlx::query_as(concat!(
        "SELECT revoked_at IS NULL AND NOT ended AND serves \
         AND (CAST($4 AS TEXT) IS NULL OR coalesce(secret_state <> 'superseded', FALSE)) \
         AND ($2 OR (is_active AND (is_admin OR NOT $3))) AS stands, \
         CAST($5 AS TEXT) IS NULL OR (user_id = $6 AND scopes = $5 \
         AND coalesce(expires_at = $7, expires_at IS NULL AND CAST($7 AS BIGINT) IS NULL)) AS is_as_it_was \
         FROM (SELECT ",
        credential_columns!(),
        ", coalesce(w.is_active AND o.is_active, TRUE) AS serves, u.is_active, u.is_admin \
         FROM credentials c CROSS JOIN store t JOIN users u ON u.id = c.user_id \
         LEFT JOIN secrets s ON s.credential_id = c.id AND s.id = $4 \
         LEFT JOIN workspaces w ON w.id = c.workspace_id \
         LEFT JOIN organizations o ON o.id = c.organization_id \
         WHERE c.id = $1 AND t.id = 1) AS caller"
    ))
    .bind(&token_id.0)
    .bind(itself)
    .bind(actor.basis == Basis::Administrator)
    .bind(actor.secret_id.as_deref())
    .bind(as_it_was.map(|was| rows::json(&was.scopes)))
    .bind(actor.user_id.as_str())
    .bind(as_it_was.and_then(|was| was.expires_at).map(Timestamp::as_micros))
    .fetch_optional(&mut **tx)
    .await?;
    match row {
        Some((true, true)) => Ok(()),
        Some((true, false)) => Err(StoreError::Refused(Refusal::CallerChanged)),
        // What is in no table, as the system root token, is not revoked in one.
        None if actor.secret_id.is_none() => Ok(()),
        Some((false, _)) | None => Err(StoreError::Refused(Refusal::CallerRevoked)),
    }
}

/// Whether no other transaction forgets or settles anything; none begins to before this one
/// is over.
pub(super) async fn is_alone(tx: &mut Tx) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar(super::super::TRY_LOCK_PURGE).fetch_one(&mut **tx).await?)
}

/// The newest revision.
pub(super) async fn head<'e>(
    executor: impl Executor<'e, Database = super::Db>,
) -> Result<Revision, sqlx::Error> {
    let (number, mark) = sqlx::query_as(head!()).fetch_one(executor).await?;
    Ok(Revision { number, mark })
}
