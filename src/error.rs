//! Why a call was not done: which rule stopped it, or what broke.

use crate::{
    hashing::Busy,
    rights::Denied,
    store::{Refusal, StoreError},
};

/// Why a call was not done. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field holds what it may not; named as in the proto.
    #[error("{field} {reason}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such thing, or not for this caller.
    #[error("no such {0}")]
    NotFound(&'static str),
    /// The caller may not.
    #[error("the caller may not")]
    Denied(Denied),
    /// What is asked for goes beyond the caller's own token.
    #[error("{field} exceeds the caller's token")]
    ExceedsCaller {
        /// The field.
        field: &'static str,
    },
    /// A revision that is not in this store's history.
    #[error("the revision is not in this store's history")]
    RevisionUnreachable,
    /// A rule that the store checked.
    #[error(transparent)]
    Refused(Refusal),
    /// The store stood against it or broke.
    #[error(transparent)]
    Store(StoreError),
    /// Too many secrets are being hashed.
    #[error(transparent)]
    Busy(#[from] Busy),
}

impl Error {
    /// A field holds what it may not.
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { field, reason: reason.into() }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => Self::Refused(refusal),
            StoreError::AlreadyExists(_) | StoreError::Unavailable(_) | StoreError::Failed(_) => {
                Self::Store(error)
            }
        }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}
