//! Users, and the first start that makes the first of them.

use std::{io, iter};

use async_trait::async_trait;
use serde_json::json;
use sqlx::Pool;

use super::{
    Connection, Db, SqlStore, Tx,
    containers::Upserted,
    creation,
    mutation::{self, Audit, Done, Step},
    rows::{UserRow, user_columns, user_kind_text},
};
use crate::{
    domain::{
        DisplayName, ExternalId, Handle, Revision, Timestamp, User, UserId, UserKind, UserRef,
    },
    random,
    store::{
        Actor, Basis, Bootstrap, Cursor, Identity, NewUser, Refusal, StoreError, Touched, Unique,
        UserChanges, UserFilter, UserUpsert,
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
const USER_BY_NUMBER: &str =
    concat!("SELECT ", user_columns!(), " FROM users WHERE number = $1 AND deleted_at IS NULL");
const LIST_USERS: &str = concat!(
    "SELECT ",
    user_columns!(),
    " FROM users WHERE is_active = coalesce($1, is_active) AND is_admin = coalesce($2, is_admin) \
     AND kind = coalesce($3, kind) AND (deleted_at IS NULL OR $4) \
     AND (created_at, id) < ($5, $6) ORDER BY created_at DESC, id DESC LIMIT $7",
);

/// Keeps a new user.
macro_rules! insert_user {
    ($on_conflict:literal) => {
        concat!(
            "INSERT INTO users (id, handle, display_name, kind, is_admin, is_active, \
             external_id, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ",
            $on_conflict,
            "RETURNING ",
            user_columns!()
        )
    };
}

const INSERT_USER: &str = insert_user!("");
const INSERT_USER_UNLESS_THERE: &str = insert_user!("ON CONFLICT DO NOTHING ");

pub(super) async fn user(
    connection: &mut Connection,
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

pub(super) async fn user_by_number(
    connection: &mut Connection,
    number: i64,
) -> Result<Option<User>, StoreError> {
    sqlx::query_as::<Db, UserRow>(USER_BY_NUMBER)
        .bind(number)
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
        let steps_down = steps_down(self.changes);
        if steps_down {
            lock_administrators(tx).await?;
        }
        let Some(named) = user(tx, self.name).await? else { return Ok(Done::nothing(None)) };
        lock(tx, &named.id, self.actor).await?;
        // What it was before the lock may have changed.
        let named = existing(tx, &named.id).await?;
        if named.id.is_system() {
            return Err(StoreError::Refused(Refusal::SystemUser));
        }
        if named.deleted_at.is_some() {
            return Ok(Done::nothing(None));
        }
        if !differs(&named, self.changes) {
            return Ok(Done::nothing(Some(named)));
        }
        check_may_unmake(&named, self.changes.is_active, self.actor)?;
        let changed = update(tx, &named.id, self.changes, self.actor.at).await?;
        if steps_down {
            check_administrators(tx).await?;
        }
        let id = changed.id.to_string();
        let details = described(&changed);
        Ok(Done {
            value: Some(changed),
            touched: vec![Touched::User(id.clone())],
            audit: Some(Audit { action: "user.update", targets: vec![id], details }),
        })
    }
}

/// Makes or changes users by their external ids.
pub(super) struct UpsertUsers<'a> {
    pub(super) users: &'a [UserUpsert],
    pub(super) actor: &'a Actor,
}

#[async_trait]
impl Step for UpsertUsers<'_> {
    type Output = Vec<User>;

    async fn run(&self, tx: &mut Tx) -> Result<Done<Vec<User>>, StoreError> {
        let steps_down = self.users.iter().any(|upsert| steps_down(&upsert.changes));
        if steps_down {
            lock_administrators(tx).await?;
        }
        self.lock_found(tx).await?;
        // In one order, so that two who do the same at once wait for each other once.
        let mut sorted: Vec<_> = self.users.iter().enumerate().collect();
        sorted.sort_by_key(|(_, upsert)| upsert.new.external_id.as_ref().map(ExternalId::as_str));
        let (mut done, mut targets, mut details) = (Vec::new(), Vec::new(), Vec::new());
        let mut touched = Vec::new();
        for (at, upsert) in sorted {
            let (user, what) = self.one(tx, upsert).await.map_err(|error| error.at(at))?;
            if what != Upserted::Nothing {
                targets.push(user.id.to_string());
                details.push(described(&user));
            }
            if what == Upserted::Changed {
                touched.push(Touched::User(user.id.to_string()));
            }
            done.push((at, user));
        }
        if steps_down && !touched.is_empty() {
            check_administrators(tx).await?;
        }
        done.sort_by_key(|(at, _)| *at);
        let details = details.into();
        let audit =
            (!targets.is_empty()).then_some(Audit { action: "user.upsert", targets, details });
        Ok(Done { value: done.into_iter().map(|(_, user)| user).collect(), touched, audit })
    }
}

impl UpsertUsers<'_> {
    /// Locks those that are there, in the order of their ids as everybody does.
    async fn lock_found(&self, tx: &mut Tx) -> Result<(), StoreError> {
        let mut ids = Vec::new();
        for upsert in self.users {
            ids.extend(found(tx, &upsert.new).await?.map(|user| user.id));
        }
        ids.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        for id in ids {
            lock(tx, &id, self.actor).await?;
        }
        Ok(())
    }

    async fn one(&self, tx: &mut Tx, upsert: &UserUpsert) -> Result<(User, Upserted), StoreError> {
        let renames = upsert.changes.handle.is_none();
        let (user, made) = find_or_make(tx, &upsert.new, renames, self.actor.at).await?;
        if made {
            return Ok((user, Upserted::Made));
        }
        if !differs(&user, &upsert.changes) {
            return Ok((user, Upserted::Nothing));
        }
        check_may_unmake(&user, upsert.changes.is_active, self.actor)?;
        let changed = update(tx, &user.id, &upsert.changes, self.actor.at).await?;
        Ok((changed, Upserted::Changed))
    }
}

/// Deletes a user: its row stays, and its id, and what its tokens did.
pub(super) struct DeleteUser<'a> {
    pub(super) name: &'a UserRef,
    pub(super) actor: &'a Actor,
}

#[async_trait]
impl Step for DeleteUser<'_> {
    type Output = Option<User>;

    /// It may be the caller's own user. The caller is looked at before.
    fn needs_standing(&self) -> bool {
        false
    }

    async fn run(&self, tx: &mut Tx) -> Result<Done<Option<User>>, StoreError> {
        lock_administrators(tx).await?;
        let Some(named) = user(tx, self.name).await? else { return Ok(Done::nothing(None)) };
        lock(tx, &named.id, self.actor).await?;
        let named = existing(tx, &named.id).await?;
        if named.id.is_system() {
            return Err(StoreError::Refused(Refusal::SystemUser));
        }
        if named.deleted_at.is_some() {
            return Ok(Done::nothing(Some(named)));
        }
        check_may_unmake(&named, Some(!named.is_active), self.actor)?;
        mutation::check_standing_before(tx, self.actor).await?;
        let left: Vec<Option<String>> =
            sqlx::query_scalar("DELETE FROM memberships WHERE user_id = $1 RETURNING workspace_id")
                .bind(named.id.as_str())
                .fetch_all(&mut **tx)
                .await?;
        sqlx::query(
            "UPDATE users SET deleted_at = $2, updated_at = $2, is_active = FALSE, \
             is_admin = FALSE, token_epoch = token_epoch + 1 WHERE id = $1",
        )
        .bind(named.id.as_str())
        .bind(self.actor.at.as_micros())
        .execute(&mut **tx)
        .await?;
        check_administrators(tx).await?;
        let deleted = existing(tx, &named.id).await?;
        let id = deleted.id.to_string();
        let details = described(&deleted);
        let left = left.into_iter().flatten().map(|workspace_id| {
            let user_id = id.clone();
            Touched::Member { user_id, workspace_id }
        });
        Ok(Done {
            value: Some(deleted),
            touched: std::iter::once(Touched::User(id.clone())).chain(left).collect(),
            audit: Some(Audit { action: "user.delete", targets: vec![id], details }),
        })
    }
}

/// Locks a user; `false` if there is none, or it is deleted. If it is the caller's
/// own, the caller must still be what its call is based on: what a change touches is
/// not looked at after it.
pub(super) async fn lock(tx: &mut Tx, id: &UserId, actor: &Actor) -> Result<bool, StoreError> {
    let row: Option<(bool, bool, i64)> =
        sqlx::query_as(super::super::LOCK_USER).bind(id.as_str()).fetch_optional(&mut **tx).await?;
    let stands = row.is_some_and(|(is_active, is_admin, _)| {
        is_active && (is_admin || actor.basis != Basis::Administrator)
    });
    if *id == actor.user_id && !stands {
        return Err(StoreError::Refused(Refusal::CallerRevoked));
    }
    Ok(row.is_some())
}

/// Locks all administrators, in one order, so that two who step down at once do
/// not both count on the other.
async fn lock_administrators(tx: &mut Tx) -> Result<(), StoreError> {
    sqlx::query(super::super::LOCK_ADMINISTRATORS).execute(&mut **tx).await?;
    Ok(())
}

/// Another administrator is made to act or not only by who decides who is one.
fn check_may_unmake(user: &User, is_active: Option<bool>, actor: &Actor) -> Result<(), StoreError> {
    let changes = is_active.is_some_and(|is_active| is_active != user.is_active);
    let may = actor.appoints || !user.is_admin || user.id == actor.user_id;
    if changes && !may { Err(StoreError::Refused(Refusal::CallerScope)) } else { Ok(()) }
}

fn steps_down(changes: &UserChanges) -> bool {
    changes.is_admin == Some(false) || changes.is_active == Some(false)
}

/// Whether a user is not yet as `changes` would have it.
fn differs(user: &User, changes: &UserChanges) -> bool {
    fn other<T: PartialEq>(wanted: Option<&T>, is: &T) -> bool {
        wanted.is_some_and(|wanted| wanted != is)
    }
    other(changes.handle.as_ref(), &user.handle)
        || other(changes.display_name.as_ref(), &user.display_name)
        || other(changes.kind.as_ref(), &user.kind)
        || other(changes.is_admin.as_ref(), &user.is_admin)
        || other(changes.is_active.as_ref(), &user.is_active)
        || other(changes.external_id.as_ref(), &user.external_id)
}

async fn update(
    tx: &mut Tx,
    id: &UserId,
    changes: &UserChanges,
    at: Timestamp,
) -> Result<User, StoreError> {
    let display_name = changes.display_name.as_ref();
    let external_id = changes.external_id.as_ref();
    sqlx::query_as::<Db, UserRow>(concat!(
        "UPDATE users SET handle = coalesce($2, handle), \
         display_name = CASE WHEN $3 THEN $4 ELSE display_name END, \
         kind = coalesce($5, kind), is_admin = coalesce($6, is_admin), \
         is_active = coalesce($7, is_active), \
         external_id = CASE WHEN $8 THEN $9 ELSE external_id END, updated_at = $10 \
         WHERE id = $1 RETURNING ",
        user_columns!(),
    ))
    .bind(id.as_str())
    .bind(changes.handle.as_ref().map(Handle::as_str))
    .bind(display_name.is_some())
    .bind(display_name.and_then(Option::as_ref).map(DisplayName::as_str))
    .bind(changes.kind.map(user_kind_text))
    .bind(changes.is_admin)
    .bind(changes.is_active)
    .bind(external_id.is_some())
    .bind(external_id.and_then(Option::as_ref).map(ExternalId::as_str))
    .bind(at.as_micros())
    .fetch_one(&mut **tx)
    .await
    .map_err(|error| super::super::taken(error, USER_FIELDS))?
    .try_into()
}

/// What the audit says of a user that was made or changed: as it then is.
fn described(user: &User) -> serde_json::Value {
    json!({
        "handle": user.handle.as_str(),
        "display_name": user.display_name.as_ref().map(DisplayName::as_str),
        "kind": user_kind_text(user.kind),
        "is_admin": user.is_admin,
        "is_active": user.is_active,
        "external_id": user.external_id.as_ref().map(ExternalId::as_str),
    })
}

/// The users' unique fields: a part of the engine's message, and its name.
const USER_FIELDS: &[(&str, Unique)] =
    &[("handle", Unique::Handle), ("external_id", Unique::ExternalId)];

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

/// Keeps a new user, who must have names of its own.
async fn insert(tx: &mut Tx, new: &NewUser, at: Timestamp) -> Result<(), StoreError> {
    insert_as(tx, INSERT_USER, new, &new.handle, at)
        .await
        .map_err(|error| super::super::taken(error, USER_FIELDS))?;
    Ok(())
}

/// Keeps a new user under this handle; `None` if a statement that lets it be met
/// another user of its handle or its external id.
async fn insert_as(
    tx: &mut Tx,
    statement: &'static str,
    new: &NewUser,
    handle: &Handle,
    at: Timestamp,
) -> Result<Option<UserRow>, sqlx::Error> {
    sqlx::query_as::<Db, UserRow>(statement)
        .bind(new.id.as_str())
        .bind(handle.as_str())
        .bind(new.display_name.as_ref().map(DisplayName::as_str))
        .bind(user_kind_text(new.kind))
        .bind(new.is_admin)
        .bind(new.is_active)
        .bind(new.external_id.as_ref().map(ExternalId::as_str))
        .bind(at.as_micros())
        .fetch_optional(&mut **tx)
        .await
}

/// The user with the external id of `new`, and whether it was made just now. One
/// that `renames` gets another handle if its own is taken.
pub(super) async fn find_or_make(
    tx: &mut Tx,
    new: &NewUser,
    renames: bool,
    at: Timestamp,
) -> Result<(User, bool), StoreError> {
    if let Some(user) = found(tx, new).await? {
        return Ok((user, false));
    }
    let other = renames.then(|| other_handle(new));
    for handle in iter::once(&new.handle).chain(&other) {
        if let Some(row) = insert_as(tx, INSERT_USER_UNLESS_THERE, new, handle, at).await? {
            return Ok((row.try_into()?, true));
        }
        // Another may have made it at this moment.
        if let Some(user) = found(tx, new).await? {
            return Ok((user, false));
        }
    }
    Err(StoreError::AlreadyExists(Unique::Handle))
}

/// The user that is there with the external id of `new`.
async fn found(tx: &mut Tx, new: &NewUser) -> Result<Option<User>, StoreError> {
    match &new.external_id {
        None => Ok(None),
        Some(external_id) => user(tx, &UserRef::External(external_id.clone())).await,
    }
}

/// The handle of a new user whose own is taken: that, cut, and the end of its id,
/// which is in no other user's.
fn other_handle(new: &NewUser) -> Handle {
    let (handle, id) = (new.handle.as_str(), new.id.as_str());
    let cut = handle.get(..84).unwrap_or(handle);
    let (_, digits) = id.rsplit_once('-').expect("an id has three parts");
    format!("{cut}-{digits}").parse().expect("it has the letters of a handle, and at most 100")
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
    let revision = mutation::record(&mut tx, actor, &done).await?;
    before_commit().map_err(|error| StoreError::Failed(error.into()))?;
    mutation::commit(store, tx, &done.touched, revision).await?;
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
