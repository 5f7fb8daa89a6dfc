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
    ClusterId, Container, ContainerKind, ContainerName, Credential, CredentialId, Description,
    Digest, DisplayName, ExternalId, Found, Handle, Kind, Membership, PepperId, RequestId,
    Revision, Role, Secret, Slug, Timestamp, User, UserId, UserKind, UserRef,
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
    /// whether it may be used, and the head, of one instant; if there is none,
    /// whether a secret is among the `unloaded`. `workspaces` are those of which
    /// the owner's membership is asked.
    async fn find(
        &self,
        digests: &[Digest],
        unloaded: Unloaded<'_>,
        workspaces: Workspaces<'_>,
    ) -> Result<Lookup, StoreError>;

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

    /// Replaces the digest of a secret by one under another pepper, unless it is no
    /// longer under `from`, or the other is not the current one: then it changes
    /// nothing and returns `false`. No answer changes, so no audit row is written.
    async fn redigest(
        &self,
        secret_id: &str,
        from: &PepperId,
        to: &PepperId,
        digest: &Digest,
    ) -> Result<bool, StoreError>;

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
    /// in time. Looks at a bounded number of them, of which it notes at most
    /// [`MAX_ROWS`]; returns where to go on, `None` from the beginning.
    async fn settle(
        &self,
        after: Option<&CredentialId>,
        actor: &Actor,
    ) -> Result<Option<CredentialId>, StoreError>;

    /// Forgets for good what has been dead since before `before`: personal access
    /// tokens that are expired, and credentials that are revoked, once nothing is
    /// kept that was made with them; secrets that are superseded; and request ids that
    /// are over. At most [`MAX_ROWS`] of each at a time, by one process at a time;
    /// returns how many it was. A verification then does not find what it found dead.
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

/// What a look for a secret found, all of one instant.
#[derive(Debug, Clone)]
pub struct Lookup {
    /// The credential that it proves, if one does.
    pub found: Option<Found>,
    /// Whether, if none does, there is a secret that only its record could prove.
    pub has_unloaded: bool,
    /// The newest revision.
    pub head: Revision,
    /// The pepper under which secrets are digested now.
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

/// Secrets that no digest finds: those that begin like this and are digested under
/// none of these peppers, of which there are at most four.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unloaded<'a> {
    /// The prefix and first digits.
    pub shown: &'a str,
    /// The peppers that are loaded.
    pub loaded: &'a [PepperId],
}

impl Unloaded<'_> {
    /// One of the loaded peppers; where there are fewer, a name that no pepper has.
    fn loaded_or_none(&self, at: usize) -> &str {
        self.loaded.get(at).map_or("", PepperId::as_str)
    }
}

/// Why another pepper becomes the current one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Promotion {
    /// The one before is to be replaced.
    Rotation,
    /// This one is lost: nothing is changed if another is current by now.
    Loss(PepperId),
}

/// Who makes a change, when, and from where: what the audit row says.
#[derive(Debug, Clone)]
pub struct Actor {
    /// As whom.
    pub user_id: UserId,
    /// By which credential; `None`: none, the service itself.
    pub token_id: Option<CredentialId>,
    /// By which of its secrets.
    pub secret_id: Option<String>,
    /// From where.
    pub ip: Option<IpAddr>,
    /// The name of the call in the logs.
    pub request_id: Option<String>,
    /// When.
    pub at: Timestamp,
    /// By what right, which it must still have when the change is committed.
    pub basis: Basis,
}

/// By what right a caller makes a change, beside its credential and its user
/// being good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Basis {
    /// It is about what is its own.
    Own,
    /// As an administrator.
    Administrator,
    /// As whoever runs the service, at the store itself.
    BreakGlass,
    /// As an administrator, or an owner or admin of each of these.
    Manager(Vec<Managed>),
}

/// What somebody manages as its owner or admin, or as one of its organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Managed {
    /// The organization.
    pub organization_id: String,
    /// A workspace in it, if it is about one whose own owners and admins may too.
    pub workspace_id: Option<String>,
}

impl Actor {
    /// The service itself, as the user `system`.
    #[must_use]
    pub fn service(system: UserId, at: Timestamp) -> Self {
        Self {
            user_id: system,
            token_id: None,
            secret_id: None,
            ip: None,
            request_id: None,
            at,
            basis: Basis::Own,
        }
    }
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
    /// may then have bound to the same workspace, or to none.
    pub quota: i64,
    /// Whether its owner must be no administrator.
    pub spares_administrators: bool,
    /// The owner, if it may be made along with it: by its external id, unless
    /// there is a user of that by now, who then is the owner.
    pub new_owner: Option<NewUser>,
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

/// A new secret for a credential.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The secret.
    pub secret: NewSecret,
    /// How long the one before it stays good, if the new one is not proved earlier.
    pub overlap: Duration,
}

/// What became of a new credential or secret.
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
    /// Its newest secret.
    pub secret: Secret,
    /// The end of the secret before it, while that may still be good.
    pub previous_secret_expires_at: Option<Timestamp>,
    /// When it was last used, if it was and that was noted.
    pub last_used_at: Option<Timestamp>,
    /// From where.
    pub last_used_ip: Option<String>,
}

/// One credential, of one kind and within reach.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Its id, as the caller gave it.
    pub id: &'a str,
    /// The kind it must be of.
    pub kind: Kind,
    /// Which credentials there are for this caller.
    pub reach: &'a Reach,
}

/// Which credentials a caller reaches with a call: all that meet every condition.
/// What is beyond it is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Who must own it; `None`: anybody.
    pub owner: Option<UserId>,
    /// The workspace it must be bound to; `None`: whether it is bound or not.
    pub workspace_id: Option<String>,
    /// Whether its owner must be no administrator.
    pub spares_administrators: bool,
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

/// A user as it shall be; `None`: as it is, or as the caller says if it is new.
#[derive(Debug, Clone)]
pub struct UserUpsert {
    /// The user, if it is new. It has the external id by which it is found, and
    /// its handle is changed if that is taken and not in `changes`.
    pub new: NewUser,
    /// What to change of it, if it is there.
    pub changes: UserChanges,
}

/// Who looks at the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Viewer {
    /// Who sees everything.
    Administrator,
    /// Who sees what it belongs to, and what it manages.
    User {
        /// The user.
        id: UserId,
        /// The workspace and its organization beyond which its token reaches for
        /// nothing.
        within: Option<(String, String)>,
    },
}

/// A container to be kept.
#[derive(Debug, Clone)]
pub struct NewContainer {
    /// Its id.
    pub id: String,
    /// Of a workspace: its organization.
    pub organization_id: Option<String>,
    /// Its short name.
    pub slug: Slug,
    /// What people call it.
    pub name: DisplayName,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
    /// Whether tokens bound to it will be accepted.
    pub is_active: bool,
}

/// What to change of a container; `None`: leave it. The inner `None` clears.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerChanges {
    /// A new slug.
    pub slug: Option<Slug>,
    /// A new name.
    pub name: Option<DisplayName>,
    /// Another name in a system around us.
    pub external_id: Option<Option<ExternalId>>,
    /// Accept tokens bound to it, or refuse them.
    pub is_active: Option<bool>,
}

/// A container as it shall be; `None`: as it is.
#[derive(Debug, Clone)]
pub struct ContainerUpsert {
    /// By which it is found.
    pub external_id: ExternalId,
    /// The id that it gets if it is new.
    pub new_id: String,
    /// Its organization, if it is a workspace.
    pub organization_id: Option<String>,
    /// Its short name; needed if it is new.
    pub slug: Option<Slug>,
    /// What people call it; its slug if it is new.
    pub name: Option<DisplayName>,
    /// Whether tokens bound to it are accepted; they are if it is new.
    pub is_active: Option<bool>,
}

/// Which containers to list; `None`: whatever it is.
#[derive(Debug, Clone)]
pub struct ContainerFilter {
    /// Of which kind.
    pub kind: ContainerKind,
    /// Only active, or only inactive ones.
    pub is_active: Option<bool>,
    /// Only workspaces of this organization.
    pub organization_id: Option<String>,
}

/// Which memberships to list; `None`: whatever it is.
#[derive(Debug, Clone, Default)]
pub struct MembershipFilter {
    /// Only this user's.
    pub user: Option<UserId>,
    /// Only those in this container.
    pub container: Option<(ContainerKind, String)>,
}

/// What to do to memberships.
#[derive(Debug, Clone, Default)]
pub struct MembershipChanges {
    /// What they shall be.
    pub puts: Vec<MembershipPut>,
    /// Of whom all others shall end.
    pub only: Option<OnlyMemberships>,
}

/// A membership as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipPut {
    /// Whose.
    pub user: UserId,
    /// In which kind of container.
    pub kind: ContainerKind,
    /// In which one.
    pub container_id: String,
    /// As what; `None`: it shall end.
    pub role: Option<Role>,
    /// Whether it must be there, or must not be there yet.
    pub expects: Expects,
}

/// What a change needs to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// Whatever it is.
    Either,
    /// None yet: [`StoreError::AlreadyExists`] else.
    None,
    /// One: [`Refusal::NoMembership`] else.
    One,
}

/// Of whom all memberships but those that are put shall end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlyMemberships {
    /// Whose.
    pub user: UserId,
    /// Only those in this organization and its workspaces.
    pub organization_id: Option<String>,
}

/// Of what all tokens are to be ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokensOf {
    /// Of a user.
    User(UserId),
    /// Bound to a workspace.
    Workspace(String),
    /// Bound to workspaces of an organization.
    Organization(String),
    /// All there are.
    All,
}

/// A secret that only its record can prove.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its digest, under a pepper that is not loaded.
    pub digest: Digest,
    /// Its record.
    pub record: String,
}

/// A pepper, as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptPepper {
    /// Its id.
    pub id: PepperId,
    /// Whether new secrets are digested under it.
    pub is_current: bool,
    /// How many secrets are digested under it, counted up to a million.
    pub secrets: i64,
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
    /// One of those two, of one of many that were to be changed together.
    #[error("number {0}: {1}")]
    At(usize, #[source] Box<StoreError>),
    /// The store can't be reached or is overloaded.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// A fault: what is stored, or the program, is not as it must be.
    #[error("the store failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl StoreError {
    /// The error of the one of many at this place, if it is about that one alone.
    fn at(self, place: usize) -> Self {
        match self {
            Self::AlreadyExists(_) | Self::Refused(_) => Self::At(place, Box::new(self)),
            Self::At(..) | Self::Unavailable(_) | Self::Failed(_) => self,
        }
    }
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
    /// Of a user or a container.
    #[error("external_id")]
    ExternalId,
    /// Of an organization, or of a workspace in its organization.
    #[error("slug")]
    Slug,
    /// A user's, of a container.
    #[error("membership")]
    Membership,
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
    /// The user to own it is an administrator, which this caller may not reach.
    #[error("the owner is an administrator")]
    OwnerIsAdministrator,
    /// The user is no member of it.
    #[error("no such membership")]
    NoMembership,
    /// The organization is not there.
    #[error("no such organization")]
    NoOrganization,
    /// The workspace is part of another organization.
    #[error("the workspace is part of another organization")]
    OtherOrganization,
    /// A new container needs this.
    #[error("a new one needs {0}")]
    Incomplete(&'static str),
    /// The credential to be changed is revoked.
    #[error("the credential is revoked")]
    TokenRevoked,
    /// The credential to be changed is expired.
    #[error("the credential is expired")]
    TokenExpired,
    /// The caller's own secret is replaced already.
    #[error("the caller's secret is superseded")]
    SupersededSecret,
    /// No process has loaded the pepper yet.
    #[error("no process has loaded the pepper")]
    NoPepper,
    /// The caller lost meanwhile what it was let in with: its credential, its
    /// user's activity, or its user's being an administrator.
    #[error("the caller lost its right meanwhile")]
    CallerRevoked,
    /// The caller's user is no longer what it managed with.
    #[error("the caller manages this no longer")]
    CallerRole,
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
