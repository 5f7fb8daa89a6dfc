//! The body that both engines share, compiled once for each: `super` is the
//! engine's own file, with its database type, its hooks and its locking
//! statements.

mod creation;
mod credentials;
mod directory;
mod mutation;
mod rows;

use std::{fs::File, io};

use async_trait::async_trait;
use sqlx::{Pool, error::ErrorKind, migrate::Migrator};

use super::Db;
use crate::{
    domain::{Digest, Found, Kind, PepperId, Revision, Timestamp, User, UserId, UserRef},
    store::{
        Actor, Bootstrap, CredentialChanges, Cursor, Identity, Inserted, Kept, Migrate,
        NewCredential, NewUser, Repeat, Revoked, Store, StoreError, Target, UserChanges,
        UserFilter, Workspaces,
    },
};
use mutation::mutate;

type Tx = sqlx::Transaction<'static, Db>;

/// A store in one engine.
pub(super) struct SqlStore {
    /// Connections that read.
    pub(super) reader: Pool<Db>,
    /// Connections that write.
    pub(super) writer: Pool<Db>,
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
        let head = mutation::head(&self.reader).await?;
        if revision.number >= head.number {
            return Ok(revision == head);
        }
        let mark: Option<i64> = sqlx::query_scalar("SELECT mark FROM changes WHERE revision = $1")
            .bind(revision.number)
            .fetch_optional(&self.reader)
            .await?;
        Ok(mark == Some(revision.mark))
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

    async fn find(
        &self,
        digests: &[Digest],
        workspaces: Workspaces<'_>,
    ) -> Result<(Option<Found>, Revision), StoreError> {
        credentials::find(&self.reader, digests, workspaces).await
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
        mutate(&self.writer, actor, &creation::Insert { new, repeat, actor }).await
    }

    async fn credential(&self, target: Target<'_>) -> Result<Option<Kept>, StoreError> {
        let mut connection = self.reader.acquire().await?;
        credentials::get(&mut connection, target).await
    }

    async fn list_credentials(
        &self,
        owner: &UserId,
        kind: Kind,
        with_revoked: bool,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Kept>, StoreError> {
        credentials::list(&self.reader, owner, kind, with_revoked, after, limit).await
    }

    async fn update_credential(
        &self,
        target: Target<'_>,
        changes: &CredentialChanges,
        actor: &Actor,
    ) -> Result<Option<(Kept, Revision)>, StoreError> {
        let step = credentials::Update { target, changes, at: actor.at };
        let (kept, revision) = mutate(&self.writer, actor, &step).await?;
        Ok(kept.map(|kept| (kept, revision)))
    }

    async fn revoke_credential(
        &self,
        target: Target<'_>,
        descendants: bool,
        actor: &Actor,
    ) -> Result<Option<(Revoked, Revision)>, StoreError> {
        let step = credentials::Revoke { target, descendants, at: actor.at };
        let (revoked, revision) = mutate(&self.writer, actor, &step).await?;
        Ok(revoked.map(|revoked| (revoked, revision)))
    }

    async fn insert_user(
        &self,
        new: &NewUser,
        actor: &Actor,
    ) -> Result<(User, Revision), StoreError> {
        mutate(&self.writer, actor, &directory::InsertUser { new, at: actor.at }).await
    }

    async fn user(&self, name: &UserRef) -> Result<Option<User>, StoreError> {
        let mut connection = self.reader.acquire().await?;
        directory::user(&mut connection, name).await
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
        let (user, revision) = mutate(&self.writer, actor, &step).await?;
        Ok(user.map(|user| (user, revision)))
    }

    async fn purge(&self, before: Timestamp, actor: &Actor) -> Result<u64, StoreError> {
        let step = credentials::Purge { before, at: actor.at };
        Ok(mutate(&self.writer, actor, &step).await?.0)
    }

    async fn close(&self) {
        self.writer.close().await;
        self.reader.close().await;
    }
}
