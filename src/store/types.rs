//! What goes into the store and comes out of it.

mod directory;

use std::{net::IpAddr, time::Duration};

use super::StoreError;
use crate::domain::{
    Attribute, ClusterId, Condition, Credential, CredentialId, Description, Detail, Digest,
    Direction, Found, Kind, PepperId, Peppers, RequestId, Revision, Sealed, Secret, Timestamp,
    Token, TokenName, Touched, UserId,
};

pub use directory::{
    ContainerChanges, ContainerFilter, ContainerUpsert, Expects, MembershipChanges,
    MembershipFilter, MembershipPut, NewContainer, NewUser, OnlyMemberships, UserChanges,
    UserFilter, UserUpsert, Viewer,
};

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

/// A question about a token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// What its secret digests to, under each pepper that is loaded; at most four.
    pub digests: &'a [Digest],
    /// Which secrets only their records could prove.
    pub unloaded: Unloaded<'a>,
    /// The workspaces of which the owner's membership is asked.
    pub workspaces: Workspaces<'a>,
}

/// What a look for several secrets found, all of one instant.
#[derive(Debug)]
pub struct Lookups {
    /// What of each; what is stored of one may be unreadable.
    pub lookups: Vec<Result<Lookup, StoreError>>,
    /// The newest revision.
    pub head: Revision,
    /// The pepper under which secrets are digested now.
    pub current_pepper: PepperId,
}

/// A change that may have altered answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its revision.
    pub revision: Revision,
    /// What it touched.
    pub touched: Vec<Touched>,
}

/// What came after a revision, all of one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// The newest revision.
    pub head: Revision,
    /// The changes, oldest first; `None` if the revision is no part of this history, or
    /// what came after it is not kept any more.
    pub changes: Option<Vec<Change>>,
    /// What time it is for the database, if it has a clock of its own.
    pub now: Option<Timestamp>,
}

/// What is called before a change is committed, with its revision.
pub type BeforeCommit = dyn Fn(&[Touched], Revision) + Send + Sync;

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
/// none of these peppers, of which there are at most four, the same ones as long as the
/// process lives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unloaded<'a> {
    /// The prefix and first digits.
    pub shown: &'a str,
    /// The peppers that are loaded.
    pub loaded: &'a [PepperId],
}

impl Unloaded<'_> {
    /// One of the loaded peppers; where there are fewer, a name that no pepper has.
    pub(super) fn loaded_or_none(&self, at: usize) -> &str {
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
    /// By which of its secrets; `None`: the token is in no table.
    pub secret_id: Option<String>,
    /// What its credential must still be when the change is committed, if that can
    /// change.
    pub as_it_was: Option<AsItWas>,
    /// From where.
    pub ip: Option<IpAddr>,
    /// The name of the call in the logs.
    pub request_id: Option<String>,
    /// When.
    pub at: Timestamp,
    /// By what right, which it must still have when the change is committed.
    pub basis: Basis,
    /// Whether it may decide who acts as an administrator.
    pub appoints: bool,
}

/// What could be changed of a credential since it was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsItWas {
    /// What it could be used for.
    pub scopes: Vec<String>,
    /// When it was to end.
    pub expires_at: Option<Timestamp>,
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
            as_it_was: None,
            ip: None,
            request_id: None,
            at,
            basis: Basis::Own,
            appoints: true,
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
    pub detail: Detail,
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
    /// The secret itself, where that is to be recoverable.
    pub sealed: Option<Sealed>,
}

/// A secret that is kept recoverable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSeal {
    /// Its row.
    pub secret_id: String,
    /// Of which credential.
    pub credential_id: CredentialId,
    /// The secret.
    pub sealed: Sealed,
}

/// When and from where a credential was last used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastUse {
    /// The credential.
    pub credential_id: CredentialId,
    /// When.
    pub at: Timestamp,
    /// From where, if that is known.
    pub ip: Option<IpAddr>,
}

/// The last use of a credential before one verifier and from one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// The credential.
    pub credential_id: CredentialId,
    /// The one with which was asked about it; `None`: it was presented to this service
    /// itself.
    pub verifier_id: Option<CredentialId>,
    /// From where, if that is known.
    pub ip: Option<IpAddr>,
    /// When.
    pub at: Timestamp,
}

/// The same as it is kept, of a credential that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptUse {
    /// As in [`Use`].
    pub verifier_id: Option<CredentialId>,
    /// Whose that is, as long as it is there.
    pub verifier_user_id: Option<UserId>,
    /// From where, if that is known.
    pub ip: Option<String>,
    /// When.
    pub last_used_at: Timestamp,
}

impl KeptUse {
    /// Its place in the list.
    #[must_use]
    pub fn cursor(&self) -> Cursor {
        let verifier_id = self.verifier_id.as_ref().map_or("", |id| id.0.as_str());
        let id = format!("{verifier_id}/{}", self.ip.as_deref().unwrap_or_default());
        Cursor { created_at: self.last_used_at, id }
    }
}

/// Which API client authorizations to list, and how.
#[derive(Debug, Clone)]
pub struct AuthorizationQuery {
    /// Those that there are for this caller.
    pub reach: Reach,
    /// All of these must hold.
    pub conditions: Vec<Condition>,
    /// By what they are sorted; then by when they were made and by their uuids, the
    /// newest first.
    pub order: Vec<(Attribute, Direction)>,
    /// Of those that are equal in all of these, only the first; none: all.
    pub distinct: Vec<Attribute>,
    /// How many to pass over.
    pub offset: i64,
    /// At most so many.
    pub limit: i64,
    /// Whether to count all that there are.
    pub counts: bool,
}

/// What an API client authorization shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizationUpdate {
    /// As it was when this was decided: nothing is changed if it is not any more.
    pub before: Credential,
    /// As whom its holder shall act.
    pub user_id: UserId,
    /// What it may be used for.
    pub scopes: Vec<String>,
    /// When it shall end.
    pub expires_at: Option<Timestamp>,
    /// The client application's number.
    pub api_client_id: Option<i64>,
    /// How many, neither deleted nor expired, its user may then have.
    pub quota: i64,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Updated {
    /// It is so.
    Done(Box<Kept>),
    /// It was changed by somebody else since.
    Stale,
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
    /// The number of its user.
    pub user_number: i64,
    /// Its newest secret.
    pub secret: Secret,
    /// That secret itself, where it is recoverable: under the same pepper.
    pub sealed: Option<Sealed>,
    /// The end of the secret before it, while that may still be good.
    pub previous_secret_expires_at: Option<Timestamp>,
    /// When it was last used, if it was and that was noted.
    pub last_used_at: Option<Timestamp>,
    /// From where.
    pub last_used_ip: Option<String>,
}

impl Kept {
    /// Its newest secret, if it is kept recoverable, under one of these peppers.
    #[must_use]
    pub fn opened(&self, peppers: &Peppers) -> Option<Token> {
        let pepper = peppers.get(self.secret.pepper_id.as_ref()?)?;
        pepper.open(&self.credential.id, self.sealed.as_ref()?)
    }
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
    pub name: Option<TokenName>,
    /// A new description.
    pub description: Option<Description>,
}

/// What became of a revocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The credential that was named.
    pub kept: Kept,
    /// Whether it was not revoked before.
    pub changed: bool,
    /// Some of its descendants may still be to be revoked.
    pub more: bool,
}

/// The place in a list after which the next page begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// When the last row was made; of uses, when it was.
    pub created_at: Timestamp,
    /// Its id, since several may have been made at once; of uses, before which verifier
    /// and from where it was.
    pub id: String,
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
