//! Users, and the first start that makes the first of them.

use std::io;

use async_trait::async_trait;
use serde_json::json;
use sqlx::Pool;

use super::{
    Db, SqlStore, Tx, creation,
    mutation::{self, Audit, Done, Step, Touched},
    rows::{UserRow, user_columns, user_kind_text},
};
use crate::{
    domain::{Handle, Revision, Timestamp, User, UserId, UserKind, UserRef},
    random,
    store::{
        Actor, Bootstrap, Cursor, Identity, NewUser, Refusal, StoreError, UserChanges, UserFilter,
    },
};

const USER_BY_ID: &str = concat!("SELECT ", user_columns!(), " FROM users WHERE id = $1");
const USER_BY_HANDLE: &str =
    concat!("SELECT ", user_columns!(), " FROM users WHERE handle = $1 AND deleted_at IS NULL");
const USER_BY_EXTERNAL_ID: &str = concat!(
    "SELECT ",
    user_columns!(),
    " FROM users WHERE external_id = $1 AND deleted_at IS NULL"
);
const LIST_USERS: &str = concat!(
    "SELECT ",
    user_columns!(),
    " FROM users WHERE is_active = coalesce($1, is_active) AND is_admin = coalesce($2, is_admin) \
     AND kind = coalesce($3, kind) AND (deleted_at IS NULL OR $4) \
     AND (created_at, id) < ($5, $6) ORDER BY created_at DESC, id DESC LIMIT $7",
);

pub(super) async fn user(
    connection: &mut <Db as sqlx::Database>::Connection,
    name: &UserRef,
) -> Result<Option<User>, StoreError> {
    let (statement, key) = match name {
        UserRef::Id(id) => (USER_BY_ID, id.as_str()),
        UserRef::Handle(handle) => (USER_BY_HANDLE, handle.as_str()),
        UserRef::External(external) => (USER_BY_EXTERNAL_ID, external.as_str()),
    };
    sqlx::query_as::<Db, UserRow>(statement)
        .bind(key)
        .fetch_optional(connection)
        .await?
        .map(User::try_from)
        .transpose()
}

pub(super) async fn list_users(
    pool: &Pool<Db>,
    filter: &UserFilter,
    after: Option<&Cursor>,
    limit: i64,
) -> Result<Vec<User>, StoreError> {
    sqlx::query_as::<Db, UserRow>(LIST_USERS)
        .bind(filter.is_active)
        .bind(filter.is_admin)
        .bind(filter.kind.map(user_kind_text))
        .bind(filter.with_deleted)
        .bind(after.map_or(i64::MAX, |cursor| cursor.created_at.as_micros()))
        .bind(after.map_or("", |cursor| cursor.id.as_str()))
        .bind(limit)
        .fetch_all(pool)
        .await?
        .into_iter()
        .map(User::try_from)
        .collect()
}

/// Keeps a new user, who has no tokens yet, so no answer changes.
pub(super) struct InsertUser<'a> {
    pub(super) new: &'a NewUser,
    pub(super) at: Timestamp,
}

#[async_trait]
impl Step for InsertUser<'_> {
    type Output = User;

    async fn run(&self, tx: &mut Tx) -> Result<Done<User>, StoreError> {
        insert(tx, self.new, self.at).await?;
        Ok(Done {
            value: existing(tx, &self.new.id).await?,
            touched: Vec::new(),
            audit: Some(Audit {
                action: "user.create",
                targets: vec![self.new.id.to_string()],
                details: json!({
                    "handle": self.new.handle.as_str(),
                    "is_admin": self.new.is_admin,
                    "is_active": self.new.is_active,
                    "external_id": self.new.external_id.as_ref().map(|id| id.as_str()),
                }),
            }),
        })
    }
}

/// Changes a user; what is said of it in answers of Verify may then differ.
pub(super) struct UpdateUser<'a> {
    pub(super) name: &'a UserRef,
    pub(super) changes: &'a UserChanges,
    pub(super) actor: &'a Actor,
}

#[async_trait]
impl Step for UpdateUser<'_> {
    type Output = Option<User>;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<User>>, StoreError> {
        let changes = self.changes;
        let steps_down = changes.is_admin == Some(false) || changes.is_active == Some(false);
        if steps_down {
            // All administrators are locked, in one order, so that two who
            // step down at once do not both count on the other.
            sqlx::query(super::super::LOCK_ADMINISTRATORS).execute(&mut **tx).await?;
        }
        let Some(named) = user(tx, self.name).await? else { return Ok(Done::nothing(None)) };
        sqlx::query(super::super::LOCK_USER).bind(named.id.as_str()).execute(&mut **tx).await?;
        // What it was before the lock may have changed.
        let named = existing(tx, &named.id).await?;
        let lost = named.id == self.actor.user_id && !(named.is_active && named.is_admin);
        if lost {
            return Err(StoreError::Refused(Refusal::CallerRevoked));
        }
        if named.id.is_system() {
            return Err(StoreError::Refused(Refusal::SystemUser));
        }
        if named.deleted_at.is_some() {
            return Ok(Done::nothing(None));
        }
        if *changes == UserChanges::default() {
            return Ok(Done::nothing(Some(named)));
        }
        let handle = changes.handle.as_ref().map(Handle::as_str);
        let display_name = changes.display_name.as_ref();
        let external_id = changes.external_id.as_ref();
        sqlx::query(
            "UPDATE users SET handle = coalesce($2, handle), \
             display_name = CASE WHEN $3 THEN $4 ELSE display_name END, \
             kind = coalesce($5, kind), is_admin = coalesce($6, is_admin), \
             is_active = coalesce($7, is_active), \
             external_id = CASE WHEN $8 THEN $9 ELSE external_id END, updated_at = $10 WHERE id = $1",
        )
        .bind(named.id.as_str())
        .bind(handle)
        .bind(display_name.is_some())
        .bind(display_name.and_then(Option::as_ref).map(|name| name.as_str()))
        .bind(changes.kind.map(user_kind_text))
        .bind(changes.is_admin)
        .bind(changes.is_active)
        .bind(external_id.is_some())
        .bind(external_id.and_then(Option::as_ref).map(|id| id.as_str()))
        .bind(self.actor.at.as_micros())
        .execute(&mut **tx)
        .await
        .map_err(|error| super::super::taken(error, USER_FIELDS))?;
        if steps_down {
            check_administrators(tx).await?;
        }
        let id = named.id.to_string();
        Ok(Done {
            value: Some(existing(tx, &named.id).await?),
            touched: vec![Touched::User(id.clone())],
            audit: Some(Audit {
                action: "user.update",
                targets: vec![id],
                details: json!({
                    "handle": handle,
                    "is_admin": changes.is_admin,
                    "is_active": changes.is_active,
                    "external_id": external_id.map(|id| id.as_ref().map(|id| id.as_str())),
                }),
            }),
        })
    }
}

/// The users' unique fields: a part of the engine's message, and its name.
const USER_FIELDS: &[(&str, crate::store::Unique)] =
    &[("handle", crate::store::Unique::Handle), ("external_id", crate::store::Unique::ExternalId)];

/// The system user is never deactivated, so it does not count.
async fn check_administrators(tx: &mut Tx) -> Result<(), StoreError> {
    let left: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM users WHERE is_admin AND is_active AND deleted_at IS NULL \
         AND id NOT LIKE '%-tpzed-000000000000000'",
    )
    .fetch_one(&mut **tx)
    .await?;
    if left == 0 { Err(StoreError::Refused(Refusal::LastAdministrator)) } else { Ok(()) }
}

async fn existing(tx: &mut Tx, id: &UserId) -> Result<User, StoreError> {
    user(tx, &UserRef::Id(id.clone()))
        .await?
        .ok_or_else(|| StoreError::Failed("a user is gone in a transaction".into()))
}

async fn insert(tx: &mut Tx, new: &NewUser, at: Timestamp) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO users (id, handle, display_name, kind, is_admin, is_active, external_id, \
         created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)",
    )
    .bind(new.id.as_str())
    .bind(new.handle.as_str())
    .bind(new.display_name.as_ref().map(|name| name.as_str()))
    .bind(user_kind_text(new.kind))
    .bind(new.is_admin)
    .bind(new.is_active)
    .bind(new.external_id.as_ref().map(|id| id.as_str()))
    .bind(at.as_micros())
    .execute(&mut **tx)
    .await
    .map_err(|error| super::super::taken(error, USER_FIELDS))?;
    Ok(())
}

pub(super) async fn bootstrap(
    store: &SqlStore,
    first: &Bootstrap,
    actor: &Actor,
    before_commit: &(dyn Fn() -> io::Result<()> + Send + Sync),
) -> Result<bool, StoreError> {
    let mut tx = super::super::begin(&store.writer).await?;
    sqlx::query(super::super::LOCK_STORE).execute(&mut *tx).await?;
    let made: Option<i64> = sqlx::query_scalar("SELECT bootstrapped_at FROM store WHERE id = 1")
        .fetch_optional(&mut *tx)
        .await?;
    if made.is_some() {
        return Ok(false);
    }
    let at = actor.at.as_micros();
    sqlx::query("INSERT INTO store (id, cluster_id, bootstrapped_at) VALUES (1, $1, $2)")
        .bind(first.identity.cluster_id.as_str())
        .bind(at)
        .execute(&mut *tx)
        .await?;
    sqlx::query("INSERT INTO peppers (id, is_current, created_at) VALUES ($1, TRUE, $2)")
        .bind(first.identity.current_pepper.as_str())
        .bind(at)
        .execute(&mut *tx)
        .await?;
    let origin = Revision { number: 0, mark: i64::from_ne_bytes(random::bytes()) };
    sqlx::query("INSERT INTO revision (id, number, mark) VALUES (1, $1, $2)")
        .bind(origin.number)
        .bind(origin.mark)
        .execute(&mut *tx)
        .await?;
    sqlx::query(
        "INSERT INTO changes (revision, mark, changed_at, touched) VALUES ($1, $2, $3, '[]')",
    )
    .bind(origin.number)
    .bind(origin.mark)
    .bind(at)
    .execute(&mut *tx)
    .await?;
    insert(&mut tx, &system_user(&first.identity), actor.at).await?;
    insert(&mut tx, &first.administrator, actor.at).await?;
    creation::insert_first(&mut tx, &first.credential, actor).await?;
    let targets = vec![first.administrator.id.to_string(), first.credential.id.0.clone()];
    let audit = Audit { action: "store.bootstrap", targets, details: json!({}) };
    let done = Done { value: (), touched: Vec::new(), audit: Some(audit) };
    mutation::record(&mut tx, actor, &done).await?;
    before_commit().map_err(|error| StoreError::Failed(error.into()))?;
    tx.commit().await?;
    Ok(true)
}

/// The user as whom the service itself acts; it has no credential.
fn system_user(identity: &Identity) -> NewUser {
    NewUser {
        id: identity.cluster_id.system_user(),
        handle: "system".parse().expect("a handle"),
        display_name: None,
        kind: UserKind::Service,
        is_admin: true,
        is_active: true,
        external_id: None,
    }
}
