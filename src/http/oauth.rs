//! Introspection (RFC 7662) and revocation (RFC 7009).

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION};
use serde_json::{Map, Value, json};
use tokio::sync::SemaphorePermit;
use zeroize::Zeroizing;

use super::{
    Answer, Call,
    problem::{Kind as Of, Problem},
    route::not_served,
};
use crate::{
    bearer::only_bearer,
    domain::{Detail, Found, Kind, Requirement, Timestamp, Verdict},
    error::Error,
    rights,
    verifier::{self, Asker, Consistency},
};

/// One of the two calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Introspect,
    Revoke,
}

impl Route {
    /// # Errors
    ///
    /// Nothing is served there, or not so.
    pub(super) fn of(method: &Method, parts: &[&str]) -> Result<Self, Problem> {
        let route = match parts {
            ["oauth2", "introspect"] => Self::Introspect,
            ["oauth2", "revoke"] => Self::Revoke,
            _ => return Err(Problem::missing()),
        };
        if method == Method::POST { Ok(route) } else { Err(not_served("POST")) }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Introspect => "introspect",
            Self::Revoke => "revoke",
        }
    }

    /// Whether it is for whoever has a token, and takes its place among the calls itself.
    pub(super) fn is_open(&self, call: &Call<'_>) -> bool {
        match self {
            Self::Introspect => {
                call.front.open_introspection && !call.headers.contains_key(AUTHORIZATION)
            }
            Self::Revoke => true,
        }
    }

    pub(super) async fn answer(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        match self {
            Self::Introspect if self.is_open(call) => introspect_openly(call).await,
            Self::Introspect => introspect(call).await,
            Self::Revoke => revoke(call).await,
        }
    }
}

/// What is true of the token in the form: of one that is not good only that.
async fn introspect(call: &Call<'_>) -> Result<Answer, Problem> {
    let verifier = &call.front.verifier;
    let asker = asker(call).await?;
    asker.may(&rights::VERIFY).map_err(Error::from)?;
    let token = token(&call.body().await?)?;
    let mut requirement = Requirement::default();
    asker.entry().ask(&mut requirement);
    let decision = verifier.verify(&token, &requirement, &asker, Consistency::default()).await?;
    if !matches!(decision.answer, verifier::Answer::Active(_)) {
        return Ok(Answer::ok(inactive()));
    }
    // What is kept to decide knows less of it than is told here, and may be older.
    let found = verifier.found(&token, Some(call.ip)).await?;
    let now = call.front.clock.now();
    let is_good = |found: &Found| found.verdict(&Requirement::default(), now) == Verdict::Active;
    let found = found.filter(is_good);
    Ok(Answer::ok(found.map_or_else(inactive, |found| all(&found))))
}

/// A little of that, for whoever has the token.
async fn introspect_openly(call: &Call<'_>) -> Result<Answer, Problem> {
    let (token, _place) = strangers_token(call).await?;
    let verifier = &call.front.verifier;
    if verifier.roots.accept(&token) && !verifier.roots.verifies {
        return Ok(Answer::ok(inactive()));
    }
    let caller = verifier.authenticate(&token, Some(call.ip), &call.request_id).await?;
    Ok(Answer::ok(caller.map_or_else(inactive, |caller| little(&caller.found))))
}

/// Ends what the form presents. Whether there was such a token is not said.
async fn revoke(call: &Call<'_>) -> Result<Answer, Problem> {
    let (token, _place) = strangers_token(call).await?;
    let verifier = &call.front.verifier;
    if verifier.roots.accept(&token) {
        return Err(Problem::invalid("the system root token is ended by its setting"));
    }
    if let Some(found) = verifier.found(&token, Some(call.ip)).await? {
        let authority = call.tokens().authority();
        authority.revoke_presented(&found, Some(call.ip), &call.request_id).await?;
    }
    Ok(Answer::empty(StatusCode::OK))
}

/// The token in the form of who shows none of its own, and a place among the calls, which
/// is not taken before the form is there.
async fn strangers_token<'a>(
    call: &'a Call<'_>,
) -> Result<(Zeroizing<String>, SemaphorePermit<'a>), Problem> {
    admit(call)?;
    Ok((token(&call.body().await?)?, call.place()?))
}

/// Lets in who shows no token of its own, so often.
fn admit(call: &Call<'_>) -> Result<(), Problem> {
    let now = call.front.clock.uptime();
    if call.front.anonymous.admits(call.ip, now) {
        Ok(())
    } else {
        Err(Problem::new(Of::TooMany, "too many calls come from there: try again later"))
    }
}

/// Who asks, by its own token: as bearer, or as the password of who uses Basic.
async fn asker(call: &Call<'_>) -> Result<Asker, Problem> {
    if !call.headers.contains_key(AUTHORIZATION) {
        return Err(Problem::anonymous());
    }
    let presented = only_bearer(call.headers)
        .map(|token| Zeroizing::new(token.to_owned()))
        .or_else(|| basic(call.headers))
        .ok_or_else(Problem::unauthenticated)?;
    let asker = call.front.verifier.asker(&presented, Some(call.ip), &call.request_id).await?;
    asker.ok_or_else(Problem::unauthenticated)
}

/// Whether the caller uses HTTP Basic, rightly or not.
pub(super) fn is_basic(headers: &HeaderMap) -> bool {
    let scheme = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().get(..6));
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic "))
}

/// The password of HTTP Basic (RFC 7617), of whatever user.
fn basic(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let mut presented = headers.get_all(AUTHORIZATION).iter();
    let only = presented.next().filter(|_| presented.next().is_none())?;
    let (scheme, encoded) = only.to_str().ok()?.split_once(' ')?;
    let decoded = STANDARD.decode(encoded.trim()).ok().map(Zeroizing::new)?;
    let (_, password) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    // Clients of OAuth encode it as in forms first (RFC 6749, section 2.3.1).
    let password = percent_encoding::percent_decode_str(password).decode_utf8().ok()?;
    scheme.eq_ignore_ascii_case("basic").then(|| Zeroizing::new(password.into_owned()))
}

/// The one `token` of a form.
fn token(body: &[u8]) -> Result<Zeroizing<String>, Problem> {
    let mut tokens = form_urlencoded::parse(body).filter(|(name, _)| name == "token");
    match (tokens.next().map(|(_, token)| Cow::into_owned(token)), tokens.next()) {
        (Some(token), None) if !token.is_empty() => Ok(Zeroizing::new(token)),
        (Some(_), Some(_)) => Err(Problem::invalid("token must be there once")),
        (Some(_) | None, _) => Err(Problem::invalid("the form must have a token")),
    }
}

/// All that is said of a token that is not good, whatever the reason.
fn inactive() -> Value {
    json!({ "active": false })
}

/// What anybody is told who has it: not whose it is.
fn little(found: &Found) -> Value {
    let credential = &found.credential;
    let token_type = match credential.kind() {
        Kind::PersonalAccessToken => "pat",
        Kind::ApiClientAuthorization => "api_client_authorization",
        Kind::SystemRoot => "system_root",
    };
    let mut said = Map::new();
    said.insert("active".to_owned(), true.into());
    said.insert("token_type".to_owned(), token_type.into());
    // The blank within one of Arvados, `GET /path`, would part it (RFC 6749, section 3.3).
    let scopes: Vec<_> = credential.scopes.iter().map(|scope| scope.replace(' ', "%20")).collect();
    said.insert("scope".to_owned(), scopes.join(" ").into());
    if let Some(end) = found.expires_at() {
        said.insert("exp".to_owned(), seconds(end).into());
    }
    Value::Object(said)
}

fn all(found: &Found) -> Value {
    let mut said = little(found);
    let credential = &found.credential;
    said["sub"] = found.owner.id.to_string().into();
    said["username"] = found.owner.handle.clone().into();
    said["jti"] = credential.id.0.clone().into();
    // That of the system root token is none.
    if credential.kind() != Kind::SystemRoot {
        said["iat"] = seconds(credential.created_at).into();
    }
    if let Some(binding) = &credential.workspace {
        said["workspace_id"] = binding.workspace_id.clone().into();
    }
    if let Detail::ApiClientAuthorization { api_client_id: Some(number), .. } = credential.detail {
        said["client_id"] = number.to_string().into();
    }
    said
}

/// Whole seconds since 1970, not later than the instant.
fn seconds(instant: Timestamp) -> i64 {
    instant.to_seconds_and_nanos().0
}
