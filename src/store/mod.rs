//! Where credentials and the directory are kept: the contract, and one file for
//! each engine that keeps it.
//!
//! The two engines share one body (the files in `sql/`, compiled once for each) and
//! one text of each statement; what only one of them needs is a constant or a
//! function in that engine's file. `tests/it/store.rs` runs every promise below
//! on both.

mod error;
mod gathering;
mod postgres;
mod sqlite;
mod types;

use std::{io, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::domain::{
    Container, ContainerKind, ContainerName, CredentialId, Description, Digest, Kind, Membership,
    PepperId, Revision, Sealed, Timestamp, User, UserId, UserRef,
};

pub use crate::domain::Touched;
pub use error::{Refusal, StoreError, Unique};
pub use types::{
    Actor, AsItWas, AuthorizationQuery, AuthorizationUpdate, Basis, BeforeCommit, Bootstrap,
    Candidate, Change, ContainerChanges, ContainerFilter, ContainerUpsert, CredentialChanges,
    Cursor, Expects, Identity, Inserted, Kept, KeptPepper, KeptSeal, KeptUse, LastUse, Lookup,
    Lookups, Managed, MembershipChanges, MembershipFilter, MembershipPut, NewContainer,
    NewCredential, NewSecret, NewUser, News, OnlyMemberships, Promotion, Reach, Repeat, Revoked,
    Rotation, Target, TokensOf, Unloaded, Updated, Use, UserChanges, UserFilter, UserUpsert,
    Viewer, Wanted, Workspaces,
};

/// How long a request id makes its request repeatable.
pub const REQUEST_ID_LIFETIME: Duration = Duration::from_hours(24);

/// The most rows that one transaction changes.
pub const MAX_ROWS: i64 = 1_000;

/// The most changes that are kept, however new they are. Whoever is further behind
/// knows next to nothing that still holds.
pub const MAX_CHANGES: i64 = 1_000_000;

/// From how many addresses uses of a credential before one verifier are kept, those of
/// the last ones: what is shown from ever new ones must not fill the store.
pub const USES_KEPT: i64 = 100;

/// Credentials, the directory and their history, in one of the two engines.
///
/// A method is one atomic step. Each that can alter an answer of Verify takes a
/// revision, writes what it touched into `changes`, and is there for every later
/// read once it returned. Each that changes anything writes an audit row in the
/// same transaction. An error means that nothing was changed, but for
/// [`StoreError::Unavailable`], after which the change may or may not be there.
#[async_trait]
pub trait Store: Send + Sync {
    /// The newest revision.
    async fn head(&self) -> Result<Revision, StoreError>;

    /// Whether `revision` is part of this store's history and not beyond its head. One that
    /// is older than all that is kept of it is taken to be.
    async fn reached(&self, revision: Revision) -> Result<bool, StoreError>;

    /// What the first start has made; `None` before it.
    async fn identity(&self) -> Result<Option<Identity>, StoreError>;

    /// Makes the first users, the first credential and the store's identity,
    /// unless they were made before, by whichever process: then it changes
    /// nothing and returns `false`. `before_commit` runs when all is written and
    /// nothing is visible yet; if it fails, nothing is made.
    async fn bootstrap(
        &self,
        first: &Bootstrap,
        actor: &Actor,
        before_commit: &(dyn Fn() -> io::Result<()> + Send + Sync),
    ) -> Result<bool, StoreError>;

    /// The credential that one of the digests proves, with all that decides
    /// whether it may be used, and the head, of one instant; if there is none,
    /// whether a secret is among the unloaded. It is read by at most one statement, which
    /// begins after this was called and may read what others wait for, too. It ends
    /// also if the store never answers.
    async fn find(&self, wanted: Wanted<'_>) -> Result<Lookup, StoreError>;

    /// The same for at most [`MAX_ROWS`] tokens, all of one instant.
    async fn find_all(&self, wanted: &[Wanted<'_>]) -> Result<Lookups, StoreError>;

    /// Whether there is a replica.
    fn has_replica(&self) -> bool;

    /// What [`find`](Self::find) gives, of a replica, which may be behind; `None` if there
    /// is none that can be asked now.
    async fn find_at_replica(&self, wanted: Wanted<'_>) -> Option<Lookup>;

    /// What came after `after`, if that is kept and of this history, oldest first, at most
    /// [`MAX_ROWS`] changes, and the
    /// head, of one instant of the primary. It waits for no other reader.
    async fn changes(&self, after: Revision) -> Result<News, StoreError>;

    /// Those of these credentials, users and organizations that a caller bound to this
    /// workspace may know of, as things are at the head, which comes with them: credentials
    /// that are bound to it, or to none and are a member's; members; its organization.
    async fn seen_from(
        &self,
        workspace_id: &str,
        touched: &[Touched],
    ) -> Result<(Vec<Touched>, Revision), StoreError>;

    /// Returns once something may have changed since it returned last: after a change
    /// that any process made, and whenever one may have been missed. A hint, for one
    /// task at a time.
    async fn changed(&self);

    /// From now on `told` is called with what each change of this process touches,
    /// when its revision is certain and before it is committed: whatever becomes of the
    /// commit, and of whoever waits for it, it was told before anybody can see the
    /// change.
    ///
    /// # Panics
    ///
    /// If it is called twice.
    fn before_commit(&self, told: Box<BeforeCommit>);

    /// Notes the first proof of a secret, after which no repeat of the request
    /// that made it replaces it; an answer does not change, so no audit row is
    /// written. `false` if the secret is no longer there to be
    /// proved: a repeat replaced it in between. Done twice, it is done once.
    async fn prove(&self, secret_id: &str, at: Timestamp) -> Result<bool, StoreError>;

    /// Keeps a new credential and its secret. [`StoreError::AlreadyExists`] if its id is
    /// taken. The same caller's repeat of a
    /// request id within [`REQUEST_ID_LIFETIME`] makes no second credential: while
    /// the first secret was not proved, `new.secret` replaces it, which is a
    /// change; after that, it is told as [`Inserted::already_used`].
    async fn insert_credential(
        &self,
        new: &NewCredential,
        repeat: Option<&Repeat>,
        actor: &Actor,
    ) -> Result<(Inserted, Revision), StoreError>;

    /// The credential with this id, of this kind and within reach; `None` if
    /// there is none.
    async fn credential(&self, target: Target<'_>) -> Result<Option<Kept>, StoreError>;

    /// The credentials of one kind within reach, which names an owner or a
    /// workspace, newest first, from after `after` on, at most `limit`.
    async fn list_credentials(
        &self,
        reach: &Reach,
        kind: Kind,
        with_revoked: bool,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Kept>, StoreError>;

    /// The API client authorizations that `query` asks for, which are not revoked, and
    /// how many there are whatever its limit and offset, if it counts.
    async fn list_authorizations(
        &self,
        query: &AuthorizationQuery,
    ) -> Result<(Vec<Kept>, Option<i64>), StoreError>;

    /// Changes an API client authorization that is not revoked, unless it is not any
    /// more as the update takes it to be; `None` if there is none such. Its user must
    /// be there and active if it is another, and have room for it if it becomes
    /// active or another's. What is as it shall be stays as it is.
    async fn update_authorization(
        &self,
        target: Target<'_>,
        update: &AuthorizationUpdate,
        actor: &Actor,
    ) -> Result<Option<(Updated, Revision)>, StoreError>;

    /// Renames or re-describes a personal access token that is not revoked;
    /// `None` if there is none such.
    async fn update_credential(
        &self,
        target: Target<'_>,
        changes: &CredentialChanges,
        actor: &Actor,
    ) -> Result<Option<(Kept, Revision)>, StoreError>;

    /// Revokes a credential as of `at`, unless it is revoked already, and
    /// returns it as it then is; `None` if there is none such. With
    /// `descendants`, also what was made with it, and with those, at most
    /// [`MAX_ROWS`] at a time: [`Revoked::more`] says that some may be left.
    async fn revoke_credential(
        &self,
        target: Target<'_>,
        descendants: bool,
        actor: &Actor,
    ) -> Result<Option<(Revoked, Revision)>, StoreError>;

    /// Gives a credential a new secret, which is pending until its first proof;
    /// `None` if there is none such. The one before stays good until then, and
    /// at most for the overlap. A pending secret that was not proved is replaced, and
    /// is dead; one that was proved is promoted first. The same caller's repeat of a
    /// request id goes as with [`insert_credential`](Store::insert_credential).
    /// Refuses what is dead, and a caller whose own secret is replaced already.
    async fn rotate_credential(
        &self,
        target: Target<'_>,
        rotation: &Rotation,
        repeat: Option<&Repeat>,
        actor: &Actor,
    ) -> Result<Option<(Inserted, Revision)>, StoreError>;

    /// Makes a proved pending secret the current one, and the one before it
    /// superseded. `false`, and nothing is changed, if it is not pending or was not
    /// proved.
    async fn promote_secret(&self, secret_id: &str, actor: &Actor) -> Result<bool, StoreError>;

    /// Notes, once, that a superseded secret was shown again; with `revoke` that
    /// is the end of its credential, though it was noted before. `false` if it is not
    /// superseded, or nothing was left to do.
    async fn note_reuse(
        &self,
        secret_id: &str,
        revoke: bool,
        actor: &Actor,
    ) -> Result<bool, StoreError>;

    /// These secrets, which only their records can prove. At most four.
    async fn candidates(&self, unloaded: Unloaded<'_>) -> Result<Vec<Candidate>, StoreError>;

    /// Replaces the digest of a secret by one under another pepper, and what it is
    /// sealed as if it is, unless it is no longer under `from`, or the other is not the
    /// current one: then it changes nothing and returns `false`. No answer changes, so
    /// no audit row is written.
    async fn redigest(
        &self,
        secret_id: &str,
        from: &PepperId,
        to: &PepperId,
        digest: &Digest,
        sealed: Option<&Sealed>,
    ) -> Result<bool, StoreError>;

    /// Secrets that are sealed under this pepper, in the order of their ids, from after
    /// `after` on, at most [`MAX_ROWS`].
    async fn sealed_under(
        &self,
        pepper: &PepperId,
        after: &str,
    ) -> Result<Vec<KeptSeal>, StoreError>;

    /// Forgets for good what secrets are sealed as, of at most [`MAX_ROWS`]; returns of
    /// how many. No answer changes.
    async fn forget_seals(&self, actor: &Actor) -> Result<u64, StoreError>;

    /// Notes when and from where credentials were last used, unless a later use is
    /// noted already. What is there no more is passed over. No answer changes, so no
    /// audit row is written. At most 5,000, each credential once.
    async fn note_last_uses(&self, uses: &[LastUse]) -> Result<(), StoreError>;

    /// The same for each verifier and address.
    async fn note_uses(&self, uses: &[Use]) -> Result<(), StoreError>;

    /// Those of these credentials that are there and that somebody who is bound to this
    /// workspace, or to none, may know of; in any order. At most [`MAX_ROWS`].
    async fn known(
        &self,
        ids: &[CredentialId],
        workspace_id: Option<&str>,
    ) -> Result<Vec<CredentialId>, StoreError>;

    /// The uses of a credential, last use first, from after `after` on, at most `limit`;
    /// `None` if there is no such credential.
    async fn list_uses(
        &self,
        id: &CredentialId,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Option<Vec<KeptUse>>, StoreError>;

    /// Forgets uses of a bounded number of credentials, in the order of their ids, from
    /// after `after` on: those of before `before`, and of each verifier all but the last
    /// [`USES_KEPT`]. At most [`MAX_ROWS`] at a time, by one process at a time; returns
    /// where to go on, and `None` at the end. No answer changes, so no audit row is
    /// written.
    async fn forget_uses(
        &self,
        before: Timestamp,
        after: Option<&CredentialId>,
        actor: &Actor,
    ) -> Result<Option<CredentialId>, StoreError>;

    /// The peppers that were ever loaded, oldest first.
    async fn peppers(&self) -> Result<Vec<KeptPepper>, StoreError>;

    /// Notes that these peppers are loaded, so that one of them can be promoted; no
    /// audit row is written. Done twice, it is done once.
    async fn note_peppers(&self, ids: &[PepperId], at: Timestamp) -> Result<(), StoreError>;

    /// Makes a pepper the current one, under which new secrets are digested, since
    /// the one before is to be replaced or is lost. `false` if it was before.
    /// [`Refusal::NoPepper`] if it was never loaded.
    async fn promote_pepper(
        &self,
        id: &PepperId,
        because: Promotion,
        actor: &Actor,
    ) -> Result<bool, StoreError>;

    /// Keeps a new user. [`StoreError::AlreadyExists`] names the field that
    /// another user has already.
    async fn insert_user(
        &self,
        new: &NewUser,
        actor: &Actor,
    ) -> Result<(User, Revision), StoreError>;

    /// The user so named, deleted ones only by id; `None` if there is none.
    async fn user(&self, name: &UserRef) -> Result<Option<User>, StoreError>;

    /// The user with this number, unless it is deleted; `None` if there is none.
    async fn user_by_number(&self, number: i64) -> Result<Option<User>, StoreError>;

    /// Users, newest first, from after `after` on, at most `limit`.
    async fn list_users(
        &self,
        filter: &UserFilter,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<User>, StoreError>;

    /// Changes what `changes` names and returns the user as it then is; `None`
    /// if there is none such. What is as it shall be stays as it is. Refuses to leave the store without an active
    /// administrator, and to change the system user.
    async fn update_user(
        &self,
        name: &UserRef,
        changes: &UserChanges,
        actor: &Actor,
    ) -> Result<Option<(User, Revision)>, StoreError>;

    /// Makes or changes users by their external ids, all or none, and returns
    /// them in order. What is as it shall be stays as it is. An error about
    /// one of them says which ([`StoreError::At`]).
    async fn upsert_users(
        &self,
        users: &[UserUpsert],
        actor: &Actor,
    ) -> Result<(Vec<User>, Revision), StoreError>;

    /// Deletes a user: it and its tokens end for good, its memberships too; its
    /// names become free. `None` if there is none such; done twice by id, it is done
    /// once. Refuses to leave the store without an active administrator, and to
    /// delete the system user.
    async fn delete_user(
        &self,
        name: &UserRef,
        actor: &Actor,
    ) -> Result<Option<(User, Revision)>, StoreError>;

    /// The container so named, if `viewer` may see it. The slug of a workspace names
    /// none without its organization.
    async fn container(
        &self,
        name: &ContainerName,
        viewer: &Viewer,
    ) -> Result<Option<Container>, StoreError>;

    /// Containers of one kind that `viewer` may see, newest first, from after
    /// `after` on, at most `limit`.
    async fn list_containers(
        &self,
        filter: &ContainerFilter,
        viewer: &Viewer,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Container>, StoreError>;

    /// Keeps a new container. [`StoreError::AlreadyExists`] names the field that
    /// another has already.
    async fn insert_container(
        &self,
        new: &NewContainer,
        actor: &Actor,
    ) -> Result<(Container, Revision), StoreError>;

    /// Changes what `changes` names and returns the container as it then is;
    /// `None` if there is none such. What is as it shall be stays as it is.
    async fn update_container(
        &self,
        name: &ContainerName,
        changes: &ContainerChanges,
        actor: &Actor,
    ) -> Result<Option<(Container, Revision)>, StoreError>;

    /// Makes or changes containers of one kind by their external ids, all or none,
    /// and returns them in order. What is as it shall be stays as it is. A workspace
    /// stays in its organization ([`Refusal::OtherOrganization`]), and a new one
    /// needs one, as each new container needs a slug ([`Refusal::Incomplete`]). An
    /// error about one of them says which ([`StoreError::At`]).
    async fn upsert_containers(
        &self,
        kind: ContainerKind,
        containers: &[ContainerUpsert],
        actor: &Actor,
    ) -> Result<(Vec<Container>, Revision), StoreError>;

    /// A user's membership in a container, if it has one.
    async fn membership(
        &self,
        user: &UserId,
        kind: ContainerKind,
        container_id: &str,
    ) -> Result<Option<Membership>, StoreError>;

    /// Memberships that `viewer` may see, newest first, from after `after` on, at
    /// most `limit`.
    async fn list_memberships(
        &self,
        filter: &MembershipFilter,
        viewer: &Viewer,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Membership>, StoreError>;

    /// Makes, changes and ends memberships, all or none, and returns those that were
    /// put, in order. Whoever leaves a workspace or becomes its guest has no token
    /// bound to it any more, for good. What is as it shall be stays as it is.
    /// The actor's own right is looked at under a lock before anything is changed.
    /// An error about one that is put says which ([`StoreError::At`]).
    async fn change_memberships(
        &self,
        changes: &MembershipChanges,
        actor: &Actor,
    ) -> Result<(Vec<Membership>, Revision), StoreError>;

    /// Ends for good all tokens of what is named that are there, at the same cost
    /// however many; `None` if there is no such thing. The actor's own is
    /// not spared.
    async fn revoke_tokens(
        &self,
        of: &TokensOf,
        reason: &Description,
        actor: &Actor,
    ) -> Result<Option<Revision>, StoreError>;

    /// Notes of the credentials after `after`, in the order of their ids, which were
    /// revoked with others, that they are revoked as of now, so that they are forgotten
    /// in time; by one process at a time. Looks at a bounded number of them, of which it notes at most
    /// [`MAX_ROWS`]; returns where to go on, `None` from the beginning.
    async fn settle(
        &self,
        after: Option<&CredentialId>,
        actor: &Actor,
    ) -> Result<Option<CredentialId>, StoreError>;

    /// Forgets for good what has been dead since before `before`: credentials that are
    /// expired or revoked and were not changed since, once nothing is kept that was made
    /// with them; secrets that are superseded; and request ids that
    /// are over. At most [`MAX_ROWS`] of each at a time, by one process at a time;
    /// returns how many it was. A verification then does not find what it found dead.
    async fn purge(&self, before: Timestamp, actor: &Actor) -> Result<u64, StoreError>;

    /// Forgets the oldest changes: those of before `changes_before`, and all but the last
    /// [`MAX_CHANGES`], but never the newest of all; who goes on from one that is
    /// forgotten is told nothing. Forgets audit rows of before `audit_before`; `None`: none. At
    /// most [`MAX_ROWS`] of each at a time, by one process at a time; returns how many it
    /// was. No answer changes; only that audit rows are gone is audited.
    async fn forget_history(
        &self,
        changes_before: Timestamp,
        audit_before: Option<Timestamp>,
        actor: &Actor,
    ) -> Result<u64, StoreError>;

    /// Waits for what is being written and closes all connections.
    async fn close(&self);
}

/// What is to be done with a schema that is older than the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Migrate {
    /// Bring it up to date.
    Auto,
    /// Refuse to start.
    Check,
}

/// How many connections to PostgreSQL answer calls, and how long to wait for one.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// At most so many connections.
    pub connections: u32,
    /// A call waits so long for one.
    pub wait: Duration,
}

/// The servers of PostgreSQL that a store is at, by their URLs.
#[derive(Clone, Copy)]
pub struct Servers<'a> {
    /// Where changes are made.
    pub primary: &'a str,
    /// The same without what may stand between and does not pass notifications on;
    /// `None`: nothing does.
    pub listen: Option<&'a str>,
    /// A copy that may be read, and may be away.
    pub replica: Option<&'a str>,
}

impl<'a> Servers<'a> {
    /// The one at `url` alone.
    #[must_use]
    pub fn at(url: &'a str) -> Self {
        Self { primary: url, listen: None, replica: None }
    }
}

/// Whether this is the URL of a PostgreSQL database.
#[must_use]
pub fn is_postgres_url(url: &str) -> bool {
    postgres::is_url(url)
}

/// Opens the store in PostgreSQL at `servers`.
///
/// # Errors
///
/// The primary can't be reached, or its schema is newer than the program, or older and
/// `migrate` says to check only.
pub async fn open_postgres(
    servers: Servers<'_>,
    limits: PoolLimits,
    migrate: Migrate,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(postgres::open(servers, limits, migrate).await?))
}

/// Opens the embedded store in `directory`, which exists, and keeps any other
/// process from it.
///
/// # Errors
///
/// Another process has it open, or it can't be read and written, or its schema
/// is newer than the program, or older and `migrate` says to check only.
pub async fn open_sqlite(directory: &Path, migrate: Migrate) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(sqlite::open(directory, migrate).await?))
}
