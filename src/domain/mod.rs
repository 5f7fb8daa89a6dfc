//! What is true of tokens, scopes, users and times.
//!
//! Pure: no I/O, no clock, no randomness, no gRPC and no SQL. Time comes in as
//! `now`, randomness as bytes. Text from outside becomes a type here
//! (`parse`), and inside only the type travels.

mod attribute;
mod container;
mod credential;
mod filter;
mod ip;
mod pepper;
mod revision;
mod scope;
mod text;
mod time;
mod token;
mod user;
mod verdict;

pub use attribute::{Attribute, Direction, parse_order};
pub use container::{
    Container, ContainerKind, ContainerName, ContainerRef, Membership, Role, Slug,
};
pub use credential::{
    Credential, CredentialId, Detail, Kind, Secret, SecretState, Status, WorkspaceBinding,
};
pub use filter::{
    Comparand, Condition, Filter, Names, Operand, Pattern, Piece, Relation, Test, Wrong,
    whole_number,
};
pub use ip::{AllowedIps, MAX_ALLOWED_IPS};
pub use pepper::{Digest, Pepper, PepperId, Peppers, Sealed};
pub use revision::{Revision, Touched};
pub use scope::{
    Catalogue, CatalogueEntry, ControlScope, RouteScopes, Scope, ScopeSet, covers, is_scope,
    route_allowed, routes_cover,
};
pub use text::{Description, DisplayName, ExternalId, Handle, RequestId, TokenName};
pub use time::Timestamp;
pub use token::{PatPrefix, SaltedToken, Token, TokenRef};
pub use user::{ClusterId, User, UserId, UserKind, UserRef};
pub use verdict::{
    Facts, Found, Kinds, Organization, Owner, Reason, Requirement, Route, Verdict, Workspace,
    may_be_workspace_id,
};

/// Why a text from outside is not what it should be: a short sentence for the
/// caller, which never repeats the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub String);

impl Invalid {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}
