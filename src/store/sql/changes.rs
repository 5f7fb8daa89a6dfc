//! What was changed, told to those who hold what they read before.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use sqlx::Pool;
use tokio::{sync::Notify, task::AbortHandle};

use super::{Db, rows};
use crate::{
    domain::Revision,
    store::{BeforeCommit, Change, MAX_ROWS, News, StoreError, Touched},
};

/// The head, and the changes from one on, that one itself included.
const CHANGES: &str = concat!(
    "SELECT r.number, r.mark, ",
    clock!(),
    ", ",
    is_primary!(),
    ", c.revision, c.mark, c.touched FROM revision r \
     LEFT JOIN changes c ON c.revision >= $1 AND c.revision <= $2 \
     WHERE r.id = 1 ORDER BY c.revision",
);

/// A row of [`CHANGES`]: the head's number and mark, what time it is, whether it is where
/// changes are made, and a change's number, mark and what it touched.
type Row = (i64, i64, Option<i64>, bool, Option<i64>, Option<i64>, Option<String>);

pub(super) async fn changes(pool: &Pool<Db>, after: Revision) -> Result<News, StoreError> {
    let rows: Vec<Row> = sqlx::query_as(CHANGES)
        .bind(after.number)
        .bind(after.number.saturating_add(MAX_ROWS))
        .fetch_all(pool)
        .await?;
    let Some((number, mark, now, is_primary, ..)) = rows.first() else {
        return Err(sqlx::Error::RowNotFound.into());
    };
    if !is_primary {
        // What it knows may be long over.
        return Err(StoreError::Unavailable("the database only follows another".into()));
    }
    let head = Revision { number: *number, mark: *mark };
    let now = now.map(rows::time).transpose()?;
    let changes = rows.into_iter().filter_map(|(.., number, mark, touched)| {
        let revision = Revision { number: number?, mark: mark? };
        Some(Change { revision, touched: from_text(&touched?) })
    });
    Ok(News { head, changes: since(after, head, changes.collect()), now })
}

/// Whether a revision is the head or kept with its mark; one before all that are kept
/// can't be told from another, and is taken for reached.
const REACHED: &str = "\
    SELECT CASE WHEN $1 < r.number THEN coalesce( \
    (SELECT c.mark = $2 FROM changes c WHERE c.revision = $1), \
    $1 >= 0 AND $1 < (SELECT min(c.revision) FROM changes c), FALSE) \
    ELSE $1 = r.number AND $2 = r.mark END FROM revision r WHERE r.id = 1";

pub(super) async fn reached(pool: &Pool<Db>, revision: Revision) -> Result<bool, StoreError> {
    Ok(sqlx::query_scalar(REACHED)
        .bind(revision.number)
        .bind(revision.mark)
        .fetch_one(pool)
        .await?)
}

/// What came after `after`, of what there is from there on; `None` if that is not the
/// one history that leads from it to the head.
fn since(after: Revision, head: Revision, mut changes: Vec<Change>) -> Option<Vec<Change>> {
    if after.number >= head.number {
        return (after == head).then(Vec::new);
    }
    let last = head.number.min(after.number.saturating_add(MAX_ROWS));
    let numbers = changes.iter().map(|change| change.revision.number);
    let is_gapless = numbers.eq(after.number..=last);
    let is_of_head = changes
        .iter()
        .all(|Change { revision, .. }| revision.number != head.number || *revision == head);
    let is_after = changes.first().is_some_and(|change| change.revision == after);
    (is_gapless && is_of_head && is_after).then(|| changes.split_off(1))
}

/// What a change touched, as it is stored.
pub(super) fn to_text(touched: &[Touched]) -> String {
    let to_json = |touched: &Touched| match touched {
        Touched::Credential(id) => json!(["credential", id]),
        Touched::User(id) => json!(["user", id]),
        Touched::Member { user_id, workspace_id } => json!(["member", user_id, workspace_id]),
        Touched::Workspace(id) => json!(["workspace", id]),
        Touched::Organization(id) => json!(["organization", id]),
        Touched::Everything => json!(["everything"]),
    };
    touched.iter().map(to_json).collect::<Value>().to_string()
}

/// A newer process may have written something that this program does not know: that
/// touched everything.
fn from_text(text: &str) -> Vec<Touched> {
    let from_json = |touched: &Value| {
        let parts: Option<Vec<&str>> =
            touched.as_array().and_then(|parts| parts.iter().map(Value::as_str).collect());
        match parts.as_deref() {
            Some(["credential", id]) => Touched::Credential((*id).to_owned()),
            Some(["user", id]) => Touched::User((*id).to_owned()),
            Some(["member", user_id, workspace_id]) => Touched::Member {
                user_id: (*user_id).to_owned(),
                workspace_id: (*workspace_id).to_owned(),
            },
            Some(["workspace", id]) => Touched::Workspace((*id).to_owned()),
            Some(["organization", id]) => Touched::Organization((*id).to_owned()),
            Some(_) | None => Touched::Everything,
        }
    };
    match serde_json::from_str(text) {
        Ok(Value::Array(touched)) => touched.iter().map(from_json).collect(),
        Ok(_) | Err(_) => vec![Touched::Everything],
    }
}

/// What this process hears of changes, its own and others'.
pub(in super::super) struct Hearing {
    listener: super::super::Listener,
    told: OnceLock<Box<BeforeCommit>>,
    wake: Arc<Notify>,
    listening: OnceLock<Listening>,
}

/// A task that ends with this.
struct Listening(AbortHandle);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Hearing {
    pub(in super::super) fn new(listener: super::super::Listener) -> Self {
        Self { listener, told: OnceLock::new(), wake: Arc::default(), listening: OnceLock::new() }
    }

    pub(super) fn tell(&self, told: Box<BeforeCommit>) {
        assert!(self.told.set(told).is_ok(), "called once");
    }

    /// Tells of a change that is about to be committed; whoever waits for changes is
    /// woken when what this gives is dropped, whatever became of the commit.
    pub(super) fn made(&self, touched: &[Touched], revision: Revision) -> Woken<'_> {
        if let Some(told) = self.told.get() {
            told(touched, revision);
        }
        Woken(&self.wake)
    }

    /// Waits for a change. Others' are heard by a task of its own, so that nothing of
    /// it is lost if this is dropped.
    pub(super) async fn changed(&self) {
        self.listening.get_or_init(|| {
            let heard = super::super::listen(self.listener.clone(), Arc::clone(&self.wake));
            Listening(tokio::spawn(heard).abort_handle())
        });
        self.wake.notified().await;
    }

    pub(super) fn close(&self) {
        if let Some(Listening(task)) = self.listening.get() {
            task.abort();
        }
    }
}

/// Wakes whoever waits for changes when it is dropped.
pub(super) struct Woken<'a>(&'a Notify);

impl Drop for Woken<'_> {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}
