//! Why a call is not answered as asked: what each API says of it. No final refusal is one
//! of the statuses that clients take for a reason to try again (SEEDS 3.13).

use http::{StatusCode, header::WWW_AUTHENTICATE};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{Answer, Call, oauth};
use crate::random;

/// Whose errors they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `ApiError` (SEEDS 2.2).
    Spatio,
    /// SEEDS 3.13.
    Arvados,
    /// RFC 6749, section 5.2.
    OAuth,
}

/// Why a call is not answered as asked.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    kind: Kind,
    /// The stable code; empty where the status says it all.
    reason: String,
    message: String,
    /// The same where fields have the names that they have in JSON here: in camel case.
    camel: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something that was sent is not as it must be.
    Invalid,
    /// What was sent can't even be read.
    Unreadable,
    /// The caller shows no token.
    Anonymous,
    /// Its token is not good.
    Unauthenticated,
    /// The caller may not.
    Denied,
    /// There is no such thing, or not for the caller.
    Missing,
    /// Such a method is not served there.
    Method(&'static str),
    /// What was sent is too large.
    TooLarge,
    /// What says what it is already is.
    HeadTooLarge,
    /// The state of things stands against it.
    Unfit,
    /// Too many such calls came from there.
    TooMany,
    /// Another try may go well.
    Later,
    /// The service failed.
    Fault,
}

impl Problem {
    /// A problem without a code of its own.
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, reason: String::new(), message: message.into(), camel: None }
    }

    /// Whether this is why.
    pub(super) fn is(&self, reason: &str) -> bool {
        self.reason == reason
    }

    /// A field holds what it may not.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self { reason: "INVALID_ARGUMENT".to_owned(), ..Self::new(Kind::Invalid, message) }
    }

    /// What was sent can't even be read.
    pub(super) fn unreadable(message: impl Into<String>) -> Self {
        Self { kind: Kind::Unreadable, ..Self::invalid(message) }
    }

    pub(super) fn missing() -> Self {
        Self::new(Kind::Missing, "there is nothing here")
    }

    pub(super) fn overloaded() -> Self {
        let message = "too many calls are under way: try again later";
        Self { reason: "OVERLOADED".to_owned(), ..Self::new(Kind::Later, message) }
    }

    pub(super) fn too_late() -> Self {
        Self::new(Kind::Later, "the call took longer than it may")
    }

    pub(super) fn too_large() -> Self {
        Self::new(Kind::TooLarge, "the body is larger than it may be")
    }

    pub(super) fn head_too_large() -> Self {
        let message = "the headers and what is asked for are more than they may be";
        Self::new(Kind::HeadTooLarge, message)
    }

    /// The caller presents no token.
    pub(super) fn anonymous() -> Self {
        let message = "present your own token as authorization: Bearer TOKEN";
        Self { reason: "CALLER_TOKEN_MISSING".to_owned(), ..Self::new(Kind::Anonymous, message) }
    }

    /// The caller's token is not good, or not for this API.
    pub(super) fn unauthenticated() -> Self {
        let message = "the caller's own token is not accepted";
        Self {
            reason: "CALLER_TOKEN_REFUSED".to_owned(),
            ..Self::new(Kind::Unauthenticated, message)
        }
    }

    /// As the API says it, of this call.
    pub(super) fn into_answer(self, style: Style, call: &Call<'_>) -> Answer {
        let status = match self.kind {
            Kind::Invalid if style == Style::Arvados => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Invalid | Kind::Unreadable => StatusCode::BAD_REQUEST,
            Kind::Anonymous | Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::Missing => StatusCode::NOT_FOUND,
            Kind::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Kind::Unfit => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Kind::Later => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Fault => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let body = match style {
            Style::Spatio => {
                let message = self.camel.unwrap_or(self.message);
                if self.reason.is_empty() {
                    json!({ "error": message })
                } else {
                    json!({ "error": message, "code": self.reason })
                }
            }
            Style::Arvados => {
                let message = match self.kind {
                    Kind::Anonymous | Kind::Unauthenticated => "Not logged in",
                    Kind::Invalid
                    | Kind::Unreadable
                    | Kind::Denied
                    | Kind::Missing
                    | Kind::Method(_)
                    | Kind::TooLarge
                    | Kind::HeadTooLarge
                    | Kind::Unfit
                    | Kind::TooMany
                    | Kind::Later
                    | Kind::Fault => &self.message,
                };
                let seconds = call.front.clock.now().to_seconds_and_nanos().0;
                let digits = u32::from_ne_bytes(random::bytes());
                json!({
                    "errors": [format!("{message} ({})", call.request_id)],
                    "error_token": format!("{seconds}+{digits:08x}"),
                })
            }
            Style::OAuth => {
                let error = match self.kind {
                    Kind::Anonymous | Kind::Unauthenticated => "invalid_client",
                    Kind::Denied => "unauthorized_client",
                    Kind::TooMany | Kind::Later => "temporarily_unavailable",
                    Kind::Fault => "server_error",
                    Kind::Invalid
                    | Kind::Unreadable
                    | Kind::Missing
                    | Kind::Method(_)
                    | Kind::TooLarge
                    | Kind::HeadTooLarge
                    | Kind::Unfit => "invalid_request",
                };
                json!({ "error": error, "error_description": self.message })
            }
        };
        let mut answer = Answer::json(status, body);
        match self.kind {
            // RFC 6750, section 3: who shows no token is told no error.
            Kind::Anonymous => answer.header(WWW_AUTHENTICATE, "Bearer"),
            // RFC 6749, section 5.2: in the scheme that the client used.
            Kind::Unauthenticated if style == Style::OAuth && oauth::is_basic(call.headers) => {
                answer.header(WWW_AUTHENTICATE, "Basic realm=\"token-authority\"");
            }
            Kind::Unauthenticated => {
                answer.header(WWW_AUTHENTICATE, "Bearer error=\"invalid_token\"");
            }
            Kind::Method(allowed) => answer.header(http::header::ALLOW, allowed),
            Kind::TooMany | Kind::Later => answer.header(http::header::RETRY_AFTER, "1"),
            Kind::Invalid
            | Kind::Unreadable
            | Kind::Denied
            | Kind::Missing
            | Kind::TooLarge
            | Kind::HeadTooLarge
            | Kind::Unfit
            | Kind::Fault => {}
        }
        answer
    }
}

/// What a service says.
impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let kind = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Kind::Invalid,
            Code::Unauthenticated => Kind::Unauthenticated,
            Code::PermissionDenied => Kind::Denied,
            Code::NotFound | Code::Unimplemented => Kind::Missing,
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted => Kind::Unfit,
            Code::ResourceExhausted if details.retry_info().is_none() => Kind::Denied,
            Code::ResourceExhausted
            | Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled => Kind::Later,
            Code::Internal | Code::Unknown | Code::DataLoss | Code::Ok => Kind::Fault,
        };
        if let Some(request) = details.bad_request() {
            let said = |name: fn(&str) -> String| {
                let wrong = request.field_violations.iter();
                let all: Vec<_> =
                    wrong.map(|it| format!("{} {}", name(&it.field), it.description)).collect();
                all.join("; ")
            };
            return Self { camel: Some(said(camel)), ..Self::invalid(said(plain)) };
        }
        let info = details.error_info();
        let reason = info.map(|info| info.reason.clone()).unwrap_or_default();
        let field = info.and_then(|info| info.metadata.get("field"));
        let camel = field.map(|field| status.message().replacen(field.as_str(), &camel(field), 1));
        Self { kind, reason, message: status.message().to_owned(), camel }
    }
}

impl From<crate::error::Error> for Problem {
    fn from(error: crate::error::Error) -> Self {
        Status::from(error).into()
    }
}

/// The name of a field as Arvados has it: its scopes are no message with a list.
fn plain(field: &str) -> String {
    field.replacen("scopes.values", "scopes", 1)
}

/// The name of a field as JSON has it: `expires_at` is `expiresAt`.
fn camel(field: &str) -> String {
    let mut name = String::with_capacity(field.len());
    let mut parts = field.split('_');
    name.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let mut letters = part.chars();
        name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        name.push_str(letters.as_str());
    }
    name
}
