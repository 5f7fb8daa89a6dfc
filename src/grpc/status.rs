//! Which gRPC code and reason an error gets. A new error does not build until
//! it has both.

use std::{
    collections::HashMap,
    error::Error as StdError,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{
    error::Error,
    proto::v1 as proto,
    rights::Denied,
    store::{Refusal, StoreError, Unique},
};

/// The domain of the reasons in `google.rpc.ErrorInfo`.
const DOMAIN: &str = "token-authority";

/// What a caller does about what may be gone on a later try.
const RETRY: Option<Duration> = Some(Duration::from_secs(1));

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Invalid { field, reason } => invalid(vec![(field.to_owned(), reason)]),
            Error::NotFound(what) => Self::not_found(format!("there is no such {what}")),
            Error::Denied(Denied::Role) => with_reason(
                Code::PermissionDenied,
                "CALLER_ROLE",
                "the caller's user may not do this",
            ),
            Error::Denied(Denied::Scope) => with_reason(
                Code::PermissionDenied,
                "CALLER_SCOPE",
                "the scopes of the caller's token do not allow this",
            ),
            Error::ExceedsCaller { field } => {
                let mut details = ErrorDetails::new();
                let metadata = HashMap::from([("field".to_owned(), field.to_owned())]);
                details.set_error_info("EXCEEDS_CALLER", DOMAIN, metadata);
                let message = format!("{field} goes beyond what the caller's own token may do");
                Self::with_error_details(Code::PermissionDenied, message, details)
            }
            Error::TrustedTokensOff => with_reason(
                Code::PermissionDenied,
                "TRUSTED_TOKENS_OFF",
                "issue-trusted-tokens is off: no token manages tokens",
            ),
            Error::RevisionUnreachable => with_reason(
                Code::FailedPrecondition,
                "REVISION_UNREACHABLE",
                "min_revision is not in this store's history",
            ),
            Error::Refused(refusal) => refused(refusal),
            Error::Store(error) => error.into(),
            Error::NoPepper => try_again(
                Code::Unavailable,
                "PEPPER_MISSING",
                "this process was not given the current pepper: try another one",
            ),
            Error::Busy(_) => try_again(
                Code::ResourceExhausted,
                "HASHING_BUSY",
                "too many tokens are being made or recovered: try again later",
            ),
            Error::At { list, place, error } => at(&format!("{list}[{place}]"), (*error).into()),
        }
    }
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::AlreadyExists(Unique::Handle) => {
                with_reason(Code::AlreadyExists, "HANDLE_TAKEN", "another user has this handle")
            }
            StoreError::AlreadyExists(Unique::ExternalId) => with_reason(
                Code::AlreadyExists,
                "EXTERNAL_ID_TAKEN",
                "another one has this external_id",
            ),
            StoreError::AlreadyExists(Unique::Slug) => {
                with_reason(Code::AlreadyExists, "SLUG_TAKEN", "another one has this slug")
            }
            StoreError::AlreadyExists(Unique::Membership) => with_reason(
                Code::AlreadyExists,
                "MEMBERSHIP_EXISTS",
                "the user is a member already",
            ),
            StoreError::AlreadyExists(Unique::Id) => {
                with_reason(Code::AlreadyExists, "UUID_TAKEN", "another token has this uuid")
            }
            StoreError::Refused(refusal) => refused(refusal),
            StoreError::At(place, error) => at(&format!("[{place}]"), Self::from(*error)),
            StoreError::Unavailable(source) => {
                warn_once_a_second(&*source);
                try_again(
                    Code::Unavailable,
                    "STORE_UNAVAILABLE",
                    "the store is away: try again later",
                )
            }
            StoreError::Failed(source) => {
                tracing::error!(error = &*source as &dyn StdError, "store failed");
                Self::internal("the service failed; its log says why")
            }
        }
    }
}

/// An error in the place of one answer, where others are given.
pub(super) fn in_place(status: &Status) -> proto::VerifyError {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
    let message = status.message().to_owned();
    proto::VerifyError { code: status.code().into(), reason, message }
}

/// While the store is away every call fails, and the log needs not each of them.
fn warn_once_a_second(error: &(dyn StdError + 'static)) {
    static LAST: Mutex<Option<(Instant, u64)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    match &mut *last {
        Some((at, unsaid)) if at.elapsed() < Duration::from_secs(1) => *unsaid += 1,
        last => {
            let unsaid = last.map_or(0, |(_, unsaid)| unsaid);
            tracing::warn!(error, unsaid, "store unavailable");
            *last = Some((Instant::now(), 0));
        }
    }
}

/// An error about one of the elements of a field says which.
fn at(element: &str, status: Status) -> Status {
    let mut details = status.get_error_details();
    if let Some(request) = details.bad_request() {
        let within = |field: &str| match field {
            "" => element.to_owned(),
            field => format!("{element}.{field}"),
        };
        let violations = request.field_violations.iter();
        return invalid(
            violations.map(|wrong| (within(&wrong.field), wrong.description.clone())).collect(),
        );
    }
    if let Some(info) = details.error_info() {
        let mut metadata = info.metadata.clone();
        metadata.insert("field".to_owned(), element.to_owned());
        details.set_error_info(info.reason.clone(), DOMAIN, metadata);
    }
    let message = format!("{element}: {}", status.message());
    Status::with_error_details(status.code(), message, details)
}

fn refused(refusal: Refusal) -> Status {
    use Code::{AlreadyExists, FailedPrecondition, PermissionDenied, ResourceExhausted};
    let (code, reason, message) = match refusal {
        Refusal::NoOwner => return Status::not_found("there is no such user"),
        Refusal::NoWorkspace => return Status::not_found("there is no such workspace"),
        Refusal::NoOrganization => return Status::not_found("there is no such organization"),
        Refusal::NoMembership => return Status::not_found("there is no such membership"),
        Refusal::OtherOrganization => {
            let reason = "is not the organization that the workspace is part of";
            return invalid(vec![("organization".to_owned(), reason.to_owned())]);
        }
        Refusal::Incomplete(field) => {
            return invalid(vec![(field.to_owned(), "must be set for a new one".to_owned())]);
        }
        Refusal::OwnerIsAdministrator => {
            (PermissionDenied, "CALLER_ROLE", "only administrators do this with administrators'")
        }
        Refusal::TokenExpired => (FailedPrecondition, "TOKEN_EXPIRED", "the token is expired"),
        Refusal::SupersededSecret => (
            PermissionDenied,
            "SUPERSEDED_SECRET",
            "the caller's secret is replaced already: use the new one",
        ),
        Refusal::NoPepper => {
            (FailedPrecondition, "NO_PEPPER", "no process has loaded this pepper yet")
        }
        Refusal::OwnerInactive => (FailedPrecondition, "USER_INACTIVE", "the user is inactive"),
        Refusal::WorkspaceInactive => {
            (FailedPrecondition, "WORKSPACE_INACTIVE", "the workspace is inactive")
        }
        Refusal::NotAMember => {
            (PermissionDenied, "NOT_A_MEMBER", "the user is no member of this workspace")
        }
        Refusal::TokenRevoked => (FailedPrecondition, "TOKEN_REVOKED", "the token is revoked"),
        Refusal::CallerRevoked => return caller_refused(),
        Refusal::CallerChanged => {
            return try_again(
                Code::Unavailable,
                "CALLER_CHANGED",
                "the caller's own token was changed meanwhile: try again",
            );
        }
        Refusal::CallerScope => return Error::Denied(Denied::Scope).into(),
        Refusal::CallerRole => return Error::Denied(Denied::Role).into(),
        Refusal::QuotaReached => {
            (ResourceExhausted, "TOKEN_QUOTA", "the user has as many tokens as it may: revoke some")
        }
        Refusal::RequestIdReused => (
            AlreadyExists,
            "REQUEST_ID_REUSED",
            "request_id was used for a different request: make a new one",
        ),
        Refusal::LastAdministrator => {
            (FailedPrecondition, "LAST_ADMINISTRATOR", "no active administrator would be left")
        }
        Refusal::SystemUser => {
            (FailedPrecondition, "SYSTEM_USER", "the system user can't be changed")
        }
    };
    with_reason(code, reason, message)
}

/// The caller presented no token.
pub(super) fn caller_missing() -> Status {
    with_reason(
        Code::Unauthenticated,
        "CALLER_TOKEN_MISSING",
        "the caller must present its own token as authorization: Bearer TOKEN",
    )
}

/// The caller's own token is not good.
pub(super) fn caller_refused() -> Status {
    with_reason(
        Code::Unauthenticated,
        "CALLER_TOKEN_REFUSED",
        "the caller's own token is not accepted",
    )
}

/// More streams are open than may be.
pub(super) fn too_many_streams() -> Status {
    try_again(
        Code::ResourceExhausted,
        "STREAM_LIMIT",
        "too many streams are open: try again later, or another process",
    )
}

/// It has lived long enough, or the service stops.
pub(super) fn stream_over() -> Status {
    try_again(
        Code::Unavailable,
        "STREAM_OVER",
        "this process ends the stream: go on at another one, or here again",
    )
}

/// It does not read what it is sent.
pub(super) fn slow_consumer() -> Status {
    try_again(
        Code::ResourceExhausted,
        "SLOW_CONSUMER",
        "more was changed than was read: resume at the last revision that was",
    )
}

/// More calls are under way than may be.
pub(super) fn overloaded() -> Status {
    try_again(
        Code::ResourceExhausted,
        "OVERLOADED",
        "too many calls are under way: try again later",
    )
}

/// Fields of a request that hold what they may not.
pub(super) fn invalid(violations: Vec<(String, String)>) -> Status {
    let message = violations.first().map_or_else(
        || "the request is invalid".to_owned(),
        |(field, reason)| format!("{field} {reason}"),
    );
    let mut details = ErrorDetails::new();
    for (field, reason) in violations {
        details.add_bad_request_violation(field, reason);
    }
    Status::with_error_details(Code::InvalidArgument, message, details)
}

fn try_again(code: Code, reason: &str, message: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
    details.set_retry_info(RETRY);
    Status::with_error_details(code, message, details)
}

fn with_reason(code: Code, reason: &str, message: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
    Status::with_error_details(code, message, details)
}
