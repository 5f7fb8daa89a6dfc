//! Why a call was not done: which rule stopped it, or what broke.

use crate::{
    hashing::Busy,
    keeping::flights::Grounded,
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
    /// By the operator's policy no token manages API client authorizations.
    #[error("issue-trusted-tokens is off")]
    TrustedTokensOff,
    /// A revision that is not in this store's history.
    #[error("the revision is not in this store's history")]
    RevisionUnreachable,
    /// A rule that the store checked.
    #[error(transparent)]
    Refused(Refusal),
    /// The store stood against it or broke.
    #[error(transparent)]
    Store(StoreError),
    /// This process was not given the pepper that is current in the store.
    #[error("the store's current pepper is not loaded")]
    NoPepper,
    /// Too many secrets are being hashed.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// One of those, about one of the elements of a field.
    #[error("{list}[{place}]: {error}")]
    At {
        /// The field.
        list: &'static str,
        /// Which of its elements, counted from 0.
        place: usize,
        /// What happened.
        #[source]
        error: Box<Error>,
    },
}

impl Error {
    /// A field holds what it may not.
    pub(crate) fn invalid(field: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid { field, reason: reason.into() }
    }

    /// The same, of a request that has no such field but is itself that element.
    pub(crate) fn alone(self) -> Self {
        if let Self::At { error, .. } = self { *error } else { self }
    }

    /// The same once more, for another who waited for the same read.
    pub(crate) fn again(&self) -> Self {
        match self {
            Self::NoPepper => Self::NoPepper,
            Self::Busy(_) => Self::Busy(Busy),
            Self::Store(error) => error.again().into(),
            // What reads does not end so.
            Self::Invalid { .. }
            | Self::NotFound(_)
            | Self::Denied(_)
            | Self::ExceedsCaller { .. }
            | Self::TrustedTokensOff
            | Self::RevisionUnreachable
            | Self::Refused(_)
            | Self::At { .. } => StoreError::Failed(self.to_string().into()).into(),
        }
    }

    /// The same, about the element of the field `list` at this place.
    pub(crate) fn at(self, list: &'static str, place: usize) -> Self {
        Self::At { list, place, error: Box::new(self) }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused(refusal) => Self::Refused(refusal),
            StoreError::AlreadyExists(_)
            | StoreError::At(..)
            | StoreError::Unavailable(_)
            | StoreError::Failed(_) => Self::Store(error),
        }
    }
}

impl From<Denied> for Error {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl From<Grounded> for Error {
    fn from(grounded: Grounded) -> Self {
        match grounded {
            Grounded::Full => {
                StoreError::Unavailable("too many tokens are being looked up".into()).into()
            }
            Grounded::GivenUp => StoreError::Failed("a read was given up".into()).into(),
        }
    }
}
