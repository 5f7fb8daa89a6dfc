//! The body that both engines share, compiled once for each: `super` is the
//! engine's own file, with its database type, its hooks and its locking
//! statements.

mod authorizations;
mod changes;
mod containers;
mod creation;
mod credentials;
mod directory;
mod epochs;
mod finding;
mod lines;
mod memberships;
mod mutation;
mod peppers;
mod repeats;
mod replica;
mod retention;
mod rotation;
mod rows;
mod sight;
mod together;
mod uses;

use std::{fs::File, io, sync::Arc};

use async_trait::async_trait;
use sqlx::{Pool, error::ErrorKind, migrate::Migrator};
use tokio::sync::{Mutex, Semaphore};

use super::Db;
use crate::{
    domain::{
        Container, ContainerKind, ContainerName, CredentialId, Description, Digest, Kind,
        Membership, PepperId, Revision, Sealed, Timestamp, User, UserId, UserRef,
    },
    store::{
        Actor, AuthorizationQuery, AuthorizationUpdate, BeforeCommit, Bootstrap, Candidate,
        ContainerChanges, ContainerFilter, ContainerUpsert, CredentialChanges, Cursor, Identity,
        Inserted, Kept, KeptPepper, KeptSeal, KeptUse, LastUse, Lookup, Lookups, MembershipChanges,
        MembershipFilter, Migrate, NewContainer, NewCredential, NewUser, News, Promotion, Reach,
        Repeat, Revoked, Rotation, Store, StoreError, Target, TokensOf, Touched, Unloaded, Updated,
        Use, UserChanges, UserFilter, UserUpsert, Viewer, Wanted,
    },
};
use mutation::mutate;

pub(super) use {changes::Hearing, lines::Lines, replica::Replica, together::Together};

type Tx = sqlx::Transaction<'static, Db>;
type Connection = <Db as sqlx::Database>::Connection;
type Query<'q> = sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments>;

/// A store in one engine.
pub(super) struct SqlStore {
    /// Connections that look tokens up.
    pub(super) lines: Arc<Lines>,
    /// Connections that read everything else.
    pub(super) reader: Pool<Db>,
    /// Connections that write.
    pub(super) writer: Pool<Db>,
    /// One that reads what was changed, and waits for none of the others.
    pub(super) follower: Pool<Db>,
    /// A copy that may be read.
    pub(super) replica: Option<Replica>,
    /// What this process hears of changes.
    pub(super) news: Arc<Hearing>,
    /// Who may take a revision next.
    pub(super) turn: Mutex<()>,
    /// Where revocations wait for one another.
    pub(super) together: Together,
    /// How many lists that may read much are read at once.
    pub(super) lists: Semaphore,
    /// Keeps other processes out for as long as the store lives.
    pub(super) _lock: Option<File>,
}

/// Brings the schema up to date, or checks that it is.
pub(super) async fn migrate(
    pool: &Pool<Db>,
    migrator: &Migrator,
    migrate: Migrate,
) -> Result<(), StoreError> {
    match migrate {
        Migrate::Auto => migrator.run(pool).await.map_err(|error| StoreError::Failed(error.into())),
        Migrate::Check => {
            let applied = sqlx::query_scalar(
                "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version",
            )
            .fetch_all(pool)
            .await;
            let applied: Vec<i64> = match applied {
                // Without the table there is no schema yet.
                Err(sqlx::Error::Database(error)) if error.kind() == ErrorKind::Other => Vec::new(),
                applied => applied?,
            };
            let known: Vec<i64> = migrator.iter().map(|migration| migration.version).collect();
            if applied == known {
                Ok(())
            } else {
                Err(StoreError::Failed(
                    "its schema is not this program's: run token-authority migrate".into(),
                ))
            }
        }
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn head(&self) -> Result<Revision, StoreError> {
        Ok(mutation::head(&self.reader).await?)
    }

    async fn reached(&self, revision: Revision) -> Result<bool, StoreError> {
        changes::reached(&self.reader, revision).await
    }

    async fn identity(&self) -> Result<Option<Identity>, StoreError> {
        let row: Option<(String, String)> = sqlx::query_as(
            "SELECT s.cluster_id, p.id FROM store s CROSS JOIN peppers p WHERE p.is_current",
        )
        .fetch_optional(&self.reader)
        .await?;
        row.map(|(cluster_id, pepper)| {
            Ok(Identity {
                cluster_id: rows::parsed(cluster_id)?,
                current_pepper: PepperId::from_stored(pepper),
            })
        })
        .transpose()
    }

    async fn bootstrap(
        &self,
        first: &Bootstrap,
        actor: &Actor,
        before_commit: &(dyn Fn() -> io::Result<()> + Send + Sync),
    ) -> Result<bool, StoreError> {
        directory::bootstrap(self, first, actor, before_commit).await
    }

    async fn find(&self, wanted: Wanted<'_>) -> Result<Lookup, StoreError> {
        self.lines.find(wanted).await
    }

    async fn find_all(&self, wanted: &[Wanted<'_>]) -> Result<Lookups, StoreError> {
        self.lines.find_all(wanted).await
    }

    fn has_replica(&self) -> bool {
        self.replica.is_some()
    }

    async fn find_at_replica(&self, wanted: Wanted<'_>) -> Option<Lookup> {
        self.replica.as_ref()?.find(wanted).await
    }

    async fn changes(&self, after: Revision) -> Result<News, StoreError> {
        changes::changes(&self.follower, after).await
    }

    async fn seen_from(
        &self,
        workspace_id: &str,
        touched: &[Touched],
    ) -> Result<(Vec<Touched>, Revision), StoreError> {
        sight::seen(&self.reader, workspace_id, touched).await
    }

    async fn changed(&self) {
        self.news.changed().await;
    }

    fn before_commit(&self, told: Box<BeforeCommit>) {
        self.news.tell(told);
    }

    async fn prove(&self, secret_id: &str, at: Timestamp) -> Result<bool, StoreError> {
        credentials::prove(&self.writer, secret_id, at).await
    }

    async fn insert_credential(
        &self,
        new: &NewCredential,
        repeat: Option<&Repeat>,
        actor: &Actor,
    ) -> Result<(Inserted, Revision), StoreError> {
        mutate(self, actor, &creation::Insert { new, repeat, actor }).await
    }

    async fn credential(&self, target: Target<'_>) -> Result<Option<Kept>, StoreError> {
        let mut connection = self.reader.acquire().await?;
        credentials::get(&mut connection, target).await
    }

    async fn list_credentials(
        &self,
        reach: &Reach,
        kind: Kind,
        with_revoked: bool,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Kept>, StoreError> {
        credentials::list(&self.reader, reach, kind, with_revoked, after, limit).await
    }

    async fn list_authorizations(
        &self,
        query: &AuthorizationQuery,
    ) -> Result<(Vec<Kept>, Option<i64>), StoreError> {
        authorizations::list(&self.reader, &self.lists, query).await
    }

    async fn update_authorization(
        &self,
        target: Target<'_>,
        update: &AuthorizationUpdate,
        actor: &Actor,
    ) -> Result<Option<(Updated, Revision)>, StoreError> {
        let step = authorizations::Update { target, update, actor };
        let (updated, revision) = mutate(self, actor, &step).await?;
        Ok(updated.map(|updated| (updated, revision)))
    }

    async fn update_credential(
        &self,
        target: Target<'_>,
        changes: &CredentialChanges,
        actor: &Actor,
    ) -> Result<Option<(Kept, Revision)>, StoreError> {
        let step = credentials::Update { target, changes, at: actor.at };
        let (kept, revision) = mutate(self, actor, &step).await?;
        Ok(kept.map(|kept| (kept, revision)))
    }

    async fn revoke_credential(
        &self,
        target: Target<'_>,
        descendants: bool,
        actor: &Actor,
    ) -> Result<Option<(Revoked, Revision)>, StoreError> {
        let (revoked, revision) = if descendants {
            let step = credentials::Revoke { target, descendants, at: actor.at };
            mutate(self, actor, &step).await?
        } else {
            together::revoke(self, target, actor).await?
        };
        Ok(revoked.map(|revoked| (revoked, revision)))
    }

    async fn rotate_credential(
        &self,
        target: Target<'_>,
        rotation: &Rotation,
        repeat: Option<&Repeat>,
        actor: &Actor,
    ) -> Result<Option<(Inserted, Revision)>, StoreError> {
        let step = rotation::Rotate { target, rotation, repeat, actor };
        let (inserted, revision) = mutate(self, actor, &step).await?;
        Ok(inserted.map(|inserted| (inserted, revision)))
    }

    async fn promote_secret(&self, secret_id: &str, actor: &Actor) -> Result<bool, StoreError> {
        let step = rotation::Promote { secret_id, at: actor.at };
        Ok(mutate(self, actor, &step).await?.0)
    }

    async fn note_reuse(
        &self,
        secret_id: &str,
        revoke: bool,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let step = rotation::NoteReuse { secret_id, revoke, at: actor.at };
        Ok(mutate(self, actor, &step).await?.0)
    }

    async fn candidates(&self, unloaded: Unloaded<'_>) -> Result<Vec<Candidate>, StoreError> {
        peppers::candidates(&self.reader, unloaded).await
    }

    async fn redigest(
        &self,
        secret_id: &str,
        from: &PepperId,
        to: &PepperId,
        digest: &Digest,
        sealed: Option<&Sealed>,
    ) -> Result<bool, StoreError> {
        peppers::redigest(&self.writer, secret_id, from, to, digest, sealed).await
    }

    async fn sealed_under(
        &self,
        pepper: &PepperId,
        after: &str,
    ) -> Result<Vec<KeptSeal>, StoreError> {
        peppers::sealed_under(&self.reader, pepper, after).await
    }

    async fn forget_seals(&self, actor: &Actor) -> Result<u64, StoreError> {
        Ok(mutate(self, actor, &peppers::ForgetSeals).await?.0)
    }

    async fn note_last_uses(&self, uses: &[LastUse]) -> Result<(), StoreError> {
        uses::note_last(&self.writer, uses).await
    }

    async fn note_uses(&self, uses: &[Use]) -> Result<(), StoreError> {
        uses::note(&self.writer, uses).await
    }

    async fn known(
        &self,
        ids: &[CredentialId],
        workspace_id: Option<&str>,
    ) -> Result<Vec<CredentialId>, StoreError> {
        uses::known(&self.reader, ids, workspace_id).await
    }

    async fn list_uses(
        &self,
        id: &CredentialId,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Option<Vec<KeptUse>>, StoreError> {
        uses::list(&self.reader, id, after, limit).await
    }

    async fn forget_uses(
        &self,
        before: Timestamp,
        after: Option<&CredentialId>,
        actor: &Actor,
    ) -> Result<Option<CredentialId>, StoreError> {
        Ok(mutate(self, actor, &uses::Forget { before, after }).await?.0)
    }

    async fn peppers(&self) -> Result<Vec<KeptPepper>, StoreError> {
        peppers::list(&self.reader).await
    }

    async fn note_peppers(&self, ids: &[PepperId], at: Timestamp) -> Result<(), StoreError> {
        peppers::note(&self.writer, ids, at).await
    }

    async fn promote_pepper(
        &self,
        id: &PepperId,
        because: Promotion,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        Ok(mutate(self, actor, &peppers::Promote { id, because: &because }).await?.0)
    }

    async fn insert_user(
        &self,
        new: &NewUser,
        actor: &Actor,
    ) -> Result<(User, Revision), StoreError> {
        mutate(self, actor, &directory::InsertUser { new, at: actor.at }).await
    }

    async fn user(&self, name: &UserRef) -> Result<Option<User>, StoreError> {
        let mut connection = self.reader.acquire().await?;
        directory::user(&mut connection, name).await
    }

    async fn user_by_number(&self, number: i64) -> Result<Option<User>, StoreError> {
        let mut connection = self.reader.acquire().await?;
        directory::user_by_number(&mut connection, number).await
    }

    async fn list_users(
        &self,
        filter: &UserFilter,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<User>, StoreError> {
        directory::list_users(&self.reader, filter, after, limit).await
    }

    async fn update_user(
        &self,
        name: &UserRef,
        changes: &UserChanges,
        actor: &Actor,
    ) -> Result<Option<(User, Revision)>, StoreError> {
        let step = directory::UpdateUser { name, changes, actor };
        let (user, revision) = mutate(self, actor, &step).await?;
        Ok(user.map(|user| (user, revision)))
    }

    async fn upsert_users(
        &self,
        users: &[UserUpsert],
        actor: &Actor,
    ) -> Result<(Vec<User>, Revision), StoreError> {
        mutate(self, actor, &directory::UpsertUsers { users, actor }).await
    }

    async fn delete_user(
        &self,
        name: &UserRef,
        actor: &Actor,
    ) -> Result<Option<(User, Revision)>, StoreError> {
        let step = directory::DeleteUser { name, actor };
        let (user, revision) = mutate(self, actor, &step).await?;
        Ok(user.map(|user| (user, revision)))
    }

    async fn container(
        &self,
        name: &ContainerName,
        viewer: &Viewer,
    ) -> Result<Option<Container>, StoreError> {
        let mut connection = self.reader.acquire().await?;
        containers::container(&mut connection, name, viewer).await
    }

    async fn list_containers(
        &self,
        filter: &ContainerFilter,
        viewer: &Viewer,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Container>, StoreError> {
        containers::list(&self.reader, filter, viewer, after, limit).await
    }

    async fn insert_container(
        &self,
        new: &NewContainer,
        actor: &Actor,
    ) -> Result<(Container, Revision), StoreError> {
        mutate(self, actor, &containers::Insert { new, at: actor.at }).await
    }

    async fn update_container(
        &self,
        name: &ContainerName,
        changes: &ContainerChanges,
        actor: &Actor,
    ) -> Result<Option<(Container, Revision)>, StoreError> {
        let step = containers::Update { name, changes, at: actor.at };
        let (container, revision) = mutate(self, actor, &step).await?;
        Ok(container.map(|container| (container, revision)))
    }

    async fn upsert_containers(
        &self,
        kind: ContainerKind,
        containers: &[ContainerUpsert],
        actor: &Actor,
    ) -> Result<(Vec<Container>, Revision), StoreError> {
        mutate(self, actor, &containers::Upsert { kind, containers, at: actor.at }).await
    }

    async fn membership(
        &self,
        user: &UserId,
        kind: ContainerKind,
        container_id: &str,
    ) -> Result<Option<Membership>, StoreError> {
        let mut connection = self.reader.acquire().await?;
        memberships::membership(&mut connection, user, kind, container_id).await
    }

    async fn list_memberships(
        &self,
        filter: &MembershipFilter,
        viewer: &Viewer,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Membership>, StoreError> {
        memberships::list(&self.reader, filter, viewer, after, limit).await
    }

    async fn change_memberships(
        &self,
        changes: &MembershipChanges,
        actor: &Actor,
    ) -> Result<(Vec<Membership>, Revision), StoreError> {
        mutate(self, actor, &memberships::Change { changes, actor }).await
    }

    async fn revoke_tokens(
        &self,
        of: &TokensOf,
        reason: &Description,
        actor: &Actor,
    ) -> Result<Option<Revision>, StoreError> {
        let step = epochs::RevokeTokens { of, reason, actor };
        let (revoked, revision) = mutate(self, actor, &step).await?;
        Ok(revoked.map(|()| revision))
    }

    async fn settle(
        &self,
        after: Option<&CredentialId>,
        actor: &Actor,
    ) -> Result<Option<CredentialId>, StoreError> {
        let step = credentials::Settle { after, at: actor.at };
        Ok(mutate(self, actor, &step).await?.0)
    }

    async fn purge(&self, before: Timestamp, actor: &Actor) -> Result<u64, StoreError> {
        let step = credentials::Purge { before, at: actor.at };
        Ok(mutate(self, actor, &step).await?.0)
    }

    async fn forget_history(
        &self,
        changes_before: Timestamp,
        audit_before: Option<Timestamp>,
        actor: &Actor,
    ) -> Result<u64, StoreError> {
        let step = retention::Forget { changes_before, audit_before };
        Ok(mutate(self, actor, &step).await?.0)
    }

    async fn close(&self) {
        self.news.close();
        self.writer.close().await;
        self.lines.close().await;
        self.reader.close().await;
        self.follower.close().await;
        if let Some(replica) = &self.replica {
            replica.close().await;
        }
    }
}
