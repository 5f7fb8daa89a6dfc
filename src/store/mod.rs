//! Where credentials and the directory are kept: the contract, and one file for
//! each engine that keeps it.
//!
//! The two engines share one body (the files in `sql/`, compiled once for each) and
//! one text of each statement; what only one of them needs is a constant or a
//! function in that engine's file. `tests/it/store.rs` runs every promise below
//! on both.

mod postgres;
mod sqlite;

use std::{error::Error, io, net::IpAddr, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;

use crate::domain::{
    ClusterId, Credential, CredentialId, Digest, DisplayName, ExternalId, Found, Handle, Kind,
    PepperId, RequestId, Revision, Secret, Timestamp, User, UserId, UserKind, UserRef,
};

/// How long a request id makes its request repeatable.
pub const REQUEST_ID_LIFETIME: Duration = Duration::from_hours(24);

/// The most rows that one transaction changes.
pub const MAX_ROWS: i64 = 1_000;

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

    /// Whether `revision` is part of this store's history and not beyond its head.
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
    /// whether it may be used, and the head, of one instant. `workspaces` are
    /// those of which the owner's membership is asked.
    async fn find(
        &self,
        digests: &[Digest],
        workspaces: Workspaces<'_>,
    ) -> Result<(Option<Found>, Revision), StoreError>;

    /// Notes the first proof of a secret, after which no repeat of the request
    /// that made it replaces it; an answer does not change, so no audit row is
    /// written. `false` if the secret is no longer there to be
    /// proved: a repeat replaced it in between. Done twice, it is done once.
    async fn prove(&self, secret_id: &str, at: Timestamp) -> Result<bool, StoreError>;

    /// Keeps a new credential and its secret. The same caller's repeat of a
    /// request id within [`REQUEST_ID_LIFETIME`] makes no second credential: while
    /// the first secret was not proved, `new.secret` replaces it, which is a
    /// change; after that, it is told as [`Inserted::already_used`].
    async fn insert_credential(
        &self,
        new: &NewCredential,
        repeat: Option<&Repeat>,
        actor: &Actor,
    ) -> Result<(Inserted, Revision), StoreError>;

    /// The credential with this id, of this kind, whoever owns it or only if
    /// `owner` does; `None` if there is none.
    async fn credential(&self, target: Target<'_>) -> Result<Option<Kept>, StoreError>;

    /// The credentials of one owner and kind, newest first, from after `after`
    /// on, at most `limit`.
    async fn list_credentials(
        &self,
        owner: &UserId,
        kind: Kind,
        with_revoked: bool,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Kept>, StoreError>;

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

    /// Keeps a new user. [`StoreError::AlreadyExists`] names the field that
    /// another user has already.
    async fn insert_user(
        &self,
        new: &NewUser,
        actor: &Actor,
    ) -> Result<(User, Revision), StoreError>;

    /// The user so named, deleted ones only by id; `None` if there is none.
    async fn user(&self, name: &UserRef) -> Result<Option<User>, StoreError>;

    /// Users, newest first, from after `after` on, at most `limit`.
    async fn list_users(
        &self,
        filter: &UserFilter,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<User>, StoreError>;

    /// Changes what `changes` names and returns the user as it then is; `None`
    /// if there is none such. Refuses to leave the store without an active
    /// administrator, and to change the system user.
    async fn update_user(
        &self,
        name: &UserRef,
        changes: &UserChanges,
        actor: &Actor,
    ) -> Result<Option<(User, Revision)>, StoreError>;

    /// Forgets for good what has been dead since before `before`: personal access
    /// tokens that are expired, and credentials that are revoked, once nothing is
    /// kept that was made with them; and request ids that are over. At most [`MAX_ROWS`] at a time, by one process at a time; returns
    /// how many it was. A verification then does not find what it found dead.
    async fn purge(&self, before: Timestamp, actor: &Actor) -> Result<u64, StoreError>;

    /// Waits for what is being written and closes all connections.
    async fn close(&self);
}

/// What the first start fixes for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The five characters that begin every id.
    pub cluster_id: ClusterId,
    /// The pepper that new secrets are digested with.
    pub current_pepper: PepperId,
}

/// What the first start makes.
#[derive(Debug)]
pub struct Bootstrap {
    /// The store's identity.
    pub identity: Identity,
    /// The first administrator.
    pub administrator: NewUser,
    /// Its credential.
    pub credential: NewCredential,
}

/// The workspaces of which a verification asks whether the owner is a member.
#[derive(Debug, Clone, Copy, Default)]
pub struct Workspaces<'a> {
    /// The one that the question names.
    pub required: Option<&'a str>,
    /// The one that the asker is bound to.
    pub askers: Option<&'a str>,
}

/// Who makes a change, when, and from where: what the audit row says.
#[derive(Debug, Clone)]
pub struct Actor {
    /// As whom.
    pub user_id: UserId,
    /// By which credential; `None`: none, the service itself at the first start.
    pub token_id: Option<CredentialId>,
    /// From where.
    pub ip: Option<IpAddr>,
    /// The name of the call in the logs.
    pub request_id: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Whether the caller may do this only as an administrator.
    pub as_administrator: bool,
}

/// A credential to be kept.
#[derive(Debug, Clone)]
pub struct NewCredential {
    /// Its id.
    pub id: CredentialId,
    /// As whom its holder will act.
    pub user_id: UserId,
    /// The workspace to bind it to.
    pub workspace_id: Option<String>,
    /// What only its kind has.
    pub detail: crate::domain::Detail,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// Where it may be used from, in CIDR notation.
    pub allowed_ips: Vec<String>,
    /// The first instant at which it is no longer active.
    pub expires_at: Option<Timestamp>,
    /// Its first proof.
    pub secret: NewSecret,
    /// How many credentials of its kind, neither revoked nor expired, its owner
    /// may then have.
    pub quota: i64,
}

/// A secret to be kept.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// The id of its row; one that replaces another brings its own.
    pub id: String,
    /// How it is looked up.
    pub digest: Digest,
    /// With which pepper the digest was made.
    pub pepper_id: PepperId,
    /// The PHC string that proves it when the pepper is lost.
    pub record: String,
    /// The prefix and first digits.
    pub shown: String,
}

/// What makes a request repeatable.
#[derive(Debug, Clone)]
pub struct Repeat {
    /// The caller's name for the request.
    pub request_id: RequestId,
    /// SHA-256 of the request, so that another one under the same name is noticed.
    pub body_hash: [u8; 32],
}

/// What became of a new credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inserted {
    /// As it is kept.
    pub kept: Kept,
    /// It was made before and its secret was proved since: the new one is not kept.
    pub already_used: bool,
}

/// A credential as it is kept, with what lists show beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The record.
    pub credential: Credential,
    /// Its secret in use.
    pub secret: Secret,
    /// When it was last used, if it was and that was noted.
    pub last_used_at: Option<Timestamp>,
    /// From where.
    pub last_used_ip: Option<String>,
}

/// One credential, of one kind and perhaps of one owner.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its id, as the caller gave it.
    pub id: &'a str,
    /// The kind it must be of.
    pub kind: Kind,
    /// Who must own it; `None`: anybody.
    pub owner: Option<&'a UserId>,
}

/// What to change of a personal access token; `None`: leave it.
#[derive(Debug, Clone, Default)]
pub struct CredentialChanges {
    /// A new name.
    pub name: Option<crate::domain::TokenName>,
    /// A new description.
    pub description: Option<crate::domain::Description>,
}

/// What became of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The credential that was named.
    pub kept: Kept,
    /// Some of its descendants may still be to be revoked.
    pub more: bool,
}

/// The place in a list after which the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// When the last row was made.
    pub created_at: Timestamp,
    /// Its id, since several may have been made at once.
    pub id: String,
}

/// A user to be kept.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its id.
    pub id: UserId,
    /// Its unique short name.
    pub handle: Handle,
    /// What it is shown as.
    pub display_name: Option<DisplayName>,
    /// A person or a program.
    pub kind: UserKind,
    /// Whether it may act for others.
    pub is_admin: bool,
    /// Whether its tokens will be accepted.
    pub is_active: bool,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
}

/// Which users to list; `None`: whatever it is.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Only active, or only inactive ones.
    pub is_active: Option<bool>,
    /// Only administrators, or only others.
    pub is_admin: Option<bool>,
    /// Only people, or only programs.
    pub kind: Option<UserKind>,
    /// Deleted ones too.
    pub with_deleted: bool,
}

/// What to change of a user; `None`: leave it. The inner `None` clears.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserChanges {
    /// A new handle.
    pub handle: Option<Handle>,
    /// A new display name.
    pub display_name: Option<Option<DisplayName>>,
    /// Another kind.
    pub kind: Option<UserKind>,
    /// Make it an administrator, or none.
    pub is_admin: Option<bool>,
    /// Accept its tokens, or refuse them.
    pub is_active: Option<bool>,
    /// Another name in a system around us.
    pub external_id: Option<Option<ExternalId>>,
}

/// What happened instead.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another record has this field's value, which only one may have.
    #[error("another record has this {0}")]
    AlreadyExists(Unique),
    /// A rule that only the store can check, in the transaction, stood against it.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The store can't be reached or is overloaded.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// A fault: what is stored, or the program, is not as it must be.
    #[error("the store failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl From<sqlx::Error> for StoreError {
    /// What may be gone on a later try is unavailability; the rest is a fault.
    fn from(error: sqlx::Error) -> Self {
        let passing = if let sqlx::Error::Database(database) = &error {
            let code = database.code().unwrap_or_default();
            match database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>() {
                Some(_) => postgres::is_passing(&code),
                None => sqlite::is_passing(&code),
            }
        } else {
            matches!(
                error,
                sqlx::Error::Io(_)
                    | sqlx::Error::Tls(_)
                    | sqlx::Error::Protocol(_)
                    | sqlx::Error::PoolTimedOut
                    | sqlx::Error::PoolClosed
                    | sqlx::Error::WorkerCrashed
            )
        };
        if passing { Self::Unavailable(error.into()) } else { Self::Failed(error.into()) }
    }
}

/// A field that only one record may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unique {
    /// Of a user.
    #[error("handle")]
    Handle,
    /// Of a user.
    #[error("external_id")]
    ExternalId,
}

/// A rule that stood against a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The user to own it is not there.
    #[error("no such owner")]
    NoOwner,
    /// The user to own it is inactive.
    #[error("the owner is inactive")]
    OwnerInactive,
    /// The workspace is not there.
    #[error("no such workspace")]
    NoWorkspace,
    /// The workspace or its organization is inactive.
    #[error("the workspace is inactive")]
    WorkspaceInactive,
    /// The user to own it is no member of the workspace, or only a guest.
    #[error("the owner is no member of the workspace")]
    NotAMember,
    /// The credential to be changed is revoked.
    #[error("the credential is revoked")]
    TokenRevoked,
    /// The caller lost meanwhile what it was let in with: its credential, its
    /// user's activity, or its user's being an administrator.
    #[error("the caller lost its right meanwhile")]
    CallerRevoked,
    /// The owner has as many as it may.
    #[error("the owner has as many tokens as it may")]
    QuotaReached,
    /// The request id was used for another request.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// No active administrator would be left.
    #[error("no active administrator would be left")]
    LastAdministrator,
    /// The system user is not for callers to change.
    #[error("the system user does not change")]
    SystemUser,
}

/// What is to be done with a schema that is older than the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Migrate {
    /// Bring it up to date.
    Auto,
    /// Refuse to start.
    Check,
}

/// How many connections to PostgreSQL, and how long to wait for one.
#[derive(Debug, Clone, Copy)]
pub struct PoolLimits {
    /// At most so many connections.
    pub connections: u32,
    /// A call waits so long for one.
    pub wait: Duration,
}

/// Opens the store in PostgreSQL at `url`.
///
/// # Errors
///
/// It can't be reached, or its schema is newer than the program, or older and
/// `migrate` says to check only.
pub async fn open_postgres(
    url: &str,
    limits: PoolLimits,
    migrate: Migrate,
) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(postgres::open(url, limits, migrate).await?))
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
