//! What happened instead.

use std::error::Error;

use super::{postgres, sqlite};

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
    pub(super) fn at(self, place: usize) -> Self {
        match self {
            Self::AlreadyExists(_) | Self::Refused(_) => Self::At(place, Box::new(self)),
            Self::At(..) | Self::Unavailable(_) | Self::Failed(_) => self,
        }
    }
}

impl StoreError {
    /// The same once more, for another who waited for the same read.
    pub(crate) fn again(&self) -> Self {
        let told = |error: &(dyn Error + Send + Sync)| error.to_string().into();
        match self {
            Self::Unavailable(error) => Self::Unavailable(told(&**error)),
            Self::Failed(error) => Self::Failed(told(&**error)),
            // What reads does not end so.
            Self::AlreadyExists(_) | Self::Refused(_) | Self::At(..) => {
                Self::Failed(self.to_string().into())
            }
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
    /// Of a credential.
    #[error("id")]
    Id,
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
    /// The caller's credential may do something else meanwhile.
    #[error("the caller's credential was changed meanwhile")]
    CallerChanged,
    /// The caller's user is no longer what it managed with.
    #[error("the caller manages this no longer")]
    CallerRole,
    /// The user is an administrator, as which others decide whether it acts.
    #[error("the user is an administrator")]
    CallerScope,
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
