//! Revocations that are asked for at the same time, made by one transaction.
//!
//! Each would wait for the others anyway, for the row of the revision. So those that
//! come while a transaction is being made wait together, and the next makes them all,
//! each with a revision and an audit row of its own. What can't be made without waiting
//! for somebody else is left to be made alone, so that nobody waits for it, or fails
//! with it, who did not ask for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use sqlx::{FromRow, Pool};
use tokio::sync::oneshot;

use super::{
    Db, SqlStore,
    changes::Hearing,
    credentials::{Revoke, kept, revocation, within},
    mutation::{self, Audit, Recorded, Tries, mutate},
    rows::{KeptRow, credential_columns, ended, kind_text},
};
use crate::{
    domain::{Kind, Revision, UserId},
    store::{Actor, Basis, Kept, Reach, Revoked, StoreError, Target, Touched},
};

/// How many are made by one transaction.
const AT_ONCE: usize = 100;

/// What is asked for, of which `place` is the order.
macro_rules! asked {
    () => {
        concat!(
            "(SELECT CAST(value ->> 'place' AS BIGINT) AS place, value ->> 'id' AS id, \
             value ->> 'kind' AS kind, value ->> 'owner' AS owner, \
             value ->> 'workspace_id' AS workspace_id, \
             CAST(value ->> 'spares' AS BIGINT) = 1 AS spares, \
             CAST(value ->> 'at' AS BIGINT) AS at FROM ",
            objects_of!(before),
            "$1",
            objects_of!(after),
            ") AS a JOIN credentials c ON c.id = a.id AND c.kind = a.kind"
        )
    };
}

/// Revokes what nobody else holds.
const REVOKE: &str = concat!(
    "UPDATE credentials SET revoked_at = held.at, updated_at = held.at \
     FROM (SELECT c.id AS held_id, a.at FROM ",
    asked!(),
    " JOIN users u ON u.id = c.user_id WHERE c.revoked_at IS NULL ",
    within!("a.owner", "a.workspace_id", "a.spares"),
    skips_held!(),
    ") AS held WHERE id = held.held_id RETURNING id"
);

const KEPT: &str =
    concat!(kept!("a.place, ", asked!()), within!("a.owner", "a.workspace_id", "a.spares"));

#[derive(FromRow)]
struct Row {
    place: i64,
    #[sqlx(flatten)]
    kept: KeptRow,
}

/// What became of one: the credential, if it is there, and the newest revision; `None`:
/// it is to be made alone.
type Made = Option<(Option<Revoked>, Revision)>;

/// One that is asked for.
struct Asked {
    id: String,
    kind: Kind,
    reach: Reach,
    actor: Actor,
    tell: oneshot::Sender<Result<Made, StoreError>>,
}

/// Those that wait, and whether somebody makes them.
#[derive(Default)]
struct Waiting {
    asked: Vec<Asked>,
    is_served: bool,
}

/// Where they wait for one another.
#[derive(Default)]
pub(in super::super) struct Together(Arc<Mutex<Waiting>>);

/// Revokes a credential, together with others that are asked for meanwhile.
pub(super) async fn revoke(
    store: &SqlStore,
    target: Target<'_>,
    actor: &Actor,
) -> Result<(Option<Revoked>, Revision), StoreError> {
    let made = match actor.basis {
        Basis::Own | Basis::Administrator => store.together.ask(store, target, actor).await?,
        // What its right rests on is held first.
        Basis::Manager(_) | Basis::BreakGlass => None,
    };
    match made {
        Some(made) => Ok(made),
        None => mutate(store, actor, &Revoke { target, descendants: false, at: actor.at }).await,
    }
}

impl Together {
    async fn ask(
        &self,
        store: &SqlStore,
        target: Target<'_>,
        actor: &Actor,
    ) -> Result<Made, StoreError> {
        let (tell, told) = oneshot::channel();
        let asked = Asked {
            id: target.id.to_owned(),
            kind: target.kind,
            reach: target.reach.clone(),
            actor: actor.clone(),
            tell,
        };
        if Waiting::of(&self.0).add(asked) {
            let serving = Serving(Arc::clone(&self.0));
            let (writer, news) = (store.writer.clone(), Arc::clone(&store.news));
            // Whoever asks may hang up, and others wait for the same transaction.
            tokio::spawn(async move {
                while let Some(asked) = serving.next() {
                    serve(&writer, &news, asked).await;
                }
            });
        }
        told.await.unwrap_or(Ok(None))
    }
}

impl Waiting {
    fn of(waiting: &Mutex<Self>) -> MutexGuard<'_, Self> {
        waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody makes them yet.
    fn add(&mut self, asked: Asked) -> bool {
        self.asked.push(asked);
        !std::mem::replace(&mut self.is_served, true)
    }

    /// Those to be made next, of those who still wait; `None`, and nobody makes them any
    /// more, if there are none.
    fn take(&mut self) -> Option<Vec<Asked>> {
        self.asked.retain(|asked| !asked.tell.is_closed());
        self.is_served = !self.asked.is_empty();
        let count = self.asked.len().min(AT_ONCE);
        self.is_served.then(|| self.asked.drain(..count).collect())
    }
}

/// Who makes them. Should it break off, those who wait make theirs themselves.
struct Serving(Arc<Mutex<Waiting>>);

impl Serving {
    fn next(&self) -> Option<Vec<Asked>> {
        Waiting::of(&self.0).take()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if std::thread::panicking() {
            *Waiting::of(&self.0) = Waiting::default();
        }
    }
}

/// Makes these, and tells who asked for them what became of each.
async fn serve(writer: &Pool<Db>, news: &Hearing, asked: Vec<Asked>) {
    let mut tries = Tries::default();
    let made = loop {
        match mutation::in_time(once(writer, news, &asked)).await {
            Ok(made) => break Ok(made),
            Err(error) if tries.again(&error).await => {}
            Err(error) => break Err(error),
        }
    };
    match made {
        Ok(made) => {
            for (asked, made) in asked.into_iter().zip(made) {
                let _ = asked.tell.send(Ok(made));
            }
        }
        Err(StoreError::Unavailable(error)) => {
            let told = error.to_string();
            for asked in asked {
                let _ = asked.tell.send(Err(StoreError::Unavailable(told.clone().into())));
            }
        }
        // Of which of them that speaks shows when each is made alone.
        Err(
            StoreError::AlreadyExists(_)
            | StoreError::Refused(_)
            | StoreError::At(..)
            | StoreError::Failed(_),
        ) => {}
    }
}

async fn once(writer: &Pool<Db>, news: &Hearing, asked: &[Asked]) -> Result<Vec<Made>, StoreError> {
    let mut tx = super::super::begin(writer).await?;
    let listed = listed(asked);
    let mut revoked: Vec<String> =
        sqlx::query_scalar(REVOKE).bind(&listed).fetch_all(&mut *tx).await?;
    let rows: Vec<Row> = sqlx::query_as(KEPT).bind(&listed).fetch_all(&mut *tx).await?;
    let mut kept: Vec<Option<Kept>> = asked.iter().map(|_| None).collect();
    for Row { place, kept: row } in rows {
        let place = usize::try_from(place).ok().and_then(|place| kept.get_mut(place));
        *place.expect("it was listed") = Some(row.try_into()?);
    }
    // Who is the first to ask for one that others ask for, too, has revoked it.
    let changes: Vec<Option<(Vec<Touched>, Audit)>> = kept
        .iter()
        .map(|kept| {
            let id = &kept.as_ref()?.credential.id.0;
            let id = revoked.swap_remove(revoked.iter().position(|revoked| revoked == id)?);
            Some((vec![Touched::Credential(id.clone())], revocation(vec![id])))
        })
        .collect();
    if !revoked.is_empty() {
        // Its owner became an administrator in between, say: whether it may be revoked is
        // found out when it is revoked alone.
        return Err(StoreError::Failed("a credential went out of reach".into()));
    }
    let recorded: Vec<Recorded<'_>> = asked
        .iter()
        .zip(&changes)
        .filter_map(|(Asked { actor, .. }, change)| {
            let (touched, audit) = change.as_ref()?;
            Some(Recorded { actor, touched, audit: Some(audit) })
        })
        .collect();
    let revisions = if recorded.is_empty() {
        Vec::new()
    } else {
        mutation::record_all(&mut tx, &recorded).await?
    };
    let head = match revisions.last() {
        Some(last) => *last,
        None => mutation::head(&mut *tx).await?,
    };
    let told = recorded.iter().zip(&revisions);
    let _woken: Vec<_> =
        told.map(|(recorded, revision)| news.made(recorded.touched, *revision)).collect();
    tx.commit().await?;
    let mut revisions = revisions.iter();
    let made = kept.into_iter().zip(&changes).map(|(kept, change)| {
        let changed = change.is_some();
        let revision = if changed { revisions.next() } else { None };
        let revision = *revision.unwrap_or(&head);
        match kept {
            None => Some((None, revision)),
            // Somebody else holds it.
            Some(kept) if kept.credential.revoked_at.is_none() => None,
            Some(kept) => Some((Some(Revoked { kept, changed, more: false }), revision)),
        }
    });
    Ok(made.collect())
}

/// They are bound as one.
fn listed(asked: &[Asked]) -> String {
    let objects = asked.iter().enumerate().map(|(place, asked)| {
        json!({
            "place": place,
            "id": asked.id,
            "kind": kind_text(asked.kind),
            "owner": asked.reach.owner.as_ref().map(UserId::as_str),
            "workspace_id": asked.reach.workspace_id,
            "spares": i64::from(asked.reach.spares_administrators),
            "at": asked.actor.at.as_micros(),
        })
    });
    objects.collect::<Value>().to_string()
}
