//! What every call passes: is it served, is there room, who calls, how long may
//! it take, and what the log says of it.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tonic::{Code, Status, body::Body, service::Routes};
use tower::Service as _;
use zeroize::Zeroizing;

use super::{at_once, received::Received, reply::Reply, status};
use crate::{
    bearer::{bearer, only_bearer},
    caller::Caller,
    clock::Clock,
    domain::{SaltedToken, Token},
    listener::Peer,
    random,
    rights::{self, Right},
    root::RootTokens,
    verifier::{ASKING, Event, Verifier},
};

/// The header that names a call in the logs, taken from the caller or made here.
pub(super) const REQUEST_ID: &str = "x-request-id";

/// Services that ask nothing of their callers.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection."];

/// How many calls with salted tokens may be under way at once.
pub(crate) const SALTED_CALLS: usize = 16;

/// What stands before all services.
#[derive(Clone)]
pub struct Gate(Arc<Shared>);

struct Shared {
    verifier: Arc<Verifier>,
    clock: Arc<dyn Clock>,
    routes: Routes,
    room: Semaphore,
    /// Of callers whose salted token is not judged before their request is read: who
    /// shows none that is good takes room from each other alone.
    room_for_salted: Semaphore,
    longest: Duration,
}

impl Gate {
    /// Lets `calls` to `routes` be under way at once, each for at most `longest`.
    #[must_use]
    pub fn new(
        verifier: Arc<Verifier>,
        clock: Arc<dyn Clock>,
        routes: Routes,
        calls: usize,
        longest: Duration,
    ) -> Self {
        let routes = routes.prepare();
        let (room, room_for_salted) = (Semaphore::new(calls), Semaphore::new(SALTED_CALLS));
        Self(Arc::new(Shared { verifier, clock, routes, room, room_for_salted, longest }))
    }

    /// The answer to a call, of which nothing happens before it is polled.
    pub fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Result<Response<Reply>, Infallible>> + Send + use<> {
        let gate = Arc::clone(&self.0);
        async move {
            let mut request = request.map(Received::new);
            if at_once::is_usual(&request)
                && request.body_mut().is_whole()
                && let Some(answer) = at_once::verify(&gate.verifier, &request, peer.0.ip())
            {
                return Ok(answer);
            }
            // Boxed, so that no call has to carry the room that the longest way takes.
            let answer = Box::pin(gate.pass(request, peer)).await;
            Ok(answer.unwrap_or_else(refusal))
        }
    }
}

impl Shared {
    async fn pass(
        &self,
        mut request: Request<Received>,
        peer: Peer,
    ) -> Result<Response<Reply>, Status> {
        let started = Instant::now();
        let deadline =
            deadline(request.headers()).map_or(self.longest, |asked| asked.min(self.longest));
        let path = request.uri().path();
        if OPEN.iter().any(|open| path.starts_with(open)) {
            // Under load too: who asks for health would take no answer for a bad one.
            // The deadline is for those that never say what they ask.
            let answer = tokio::time::timeout(deadline, self.call(request)).await;
            return answer.map(|answer| answer.map(Reply::from)).map_err(|_| too_late());
        }
        let is_salted = self.verifier.recoverable
            && path == rights::GET_CURRENT_AUTHORIZATION.path
            && is_salted(request.headers());
        let room = if is_salted { &self.room_for_salted } else { &self.room };
        let Ok(_room) = room.try_acquire() else { return Err(status::overloaded()) };
        let Some(right) = Right::of(path) else {
            return Err(Status::unimplemented("this service does not serve this method"));
        };
        let given = given_request_id(request.headers(), &self.verifier.roots, MAX_REQUEST_ID);
        let given = given.unwrap_or(None);
        let is_named = given.is_some();
        let request_id = given.and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
        let call = Call {
            right,
            request_id: request_id.unwrap_or_else(|| random::id(self.clock.now())),
            ip: Some(peer.0.ip()),
        };
        let mut caller = None;
        let answer = tokio::time::timeout(deadline, async {
            if at_once::is_usual(&request)
                // Nobody else's body is waited for before it is known who calls.
                && at_once::knows_caller(&self.verifier, &request, peer.0.ip())
                && request.body_mut().gather().await
                && let Some(answer) = at_once::verify(&self.verifier, &request, peer.0.ip())
            {
                return Ok(answer);
            }
            let text = presented(request.headers_mut())?;
            let extensions = request.extensions_mut();
            if ASKING.contains(&right) {
                let (verifier, request_id) = (&self.verifier, &*call.request_id);
                let asker = if [&rights::VERIFY, &rights::BATCH_VERIFY].contains(&right) {
                    verifier.asker_of_question(&text, call.ip, request_id).await?
                } else {
                    verifier.asker(&text, call.ip, request_id).await?
                };
                let asker = asker.ok_or_else(status::caller_refused)?;
                caller = Some(CalledBy { token_id: asker.token_id().to_owned(), user_id: None });
                extensions.insert(asker);
                extensions.insert(Presented::by(&call, text));
            } else {
                if !is_salted {
                    let found = self.caller(&text, &call).await?;
                    caller = Some(CalledBy {
                        token_id: found.token_id().0.clone(),
                        user_id: Some(found.user_id().to_string()),
                    });
                    extensions.insert(found);
                }
                if right == &rights::GET_CURRENT_AUTHORIZATION {
                    extensions.insert(Presented::by(&call, text));
                }
            }
            Ok(self.call(request).await.map(Reply::from))
        });
        let answer = answer.await.unwrap_or_else(|_| Err(too_late()));
        let code = code(&answer);
        if code == Code::Unauthenticated {
            self.verifier.happened(Event::CallerRefused);
        }
        call.log(code, caller.as_ref(), started.elapsed());
        let is_good = answer.is_ok();
        let mut response = answer.unwrap_or_else(refusal);
        // An answer of Verify that nobody named is in no log.
        let is_told = is_named || !is_good || right != &rights::VERIFY;
        if is_told && let Ok(request_id) = HeaderValue::from_str(&call.request_id) {
            response.headers_mut().insert(REQUEST_ID, request_id);
        }
        Ok(response)
    }

    /// What the service that serves this path answers.
    async fn call(&self, request: Request<Received>) -> Response<Body> {
        let Ok(response) = self.routes.clone().call(request).await;
        response
    }

    async fn caller(&self, token: &str, call: &Call) -> Result<Caller, Status> {
        self.verifier
            .authenticate(token, call.ip, &call.request_id)
            .await?
            .ok_or_else(status::caller_refused)
    }
}

/// The longest name of a call, in characters, but where an API has its own say.
pub(crate) const MAX_REQUEST_ID: usize = 128;

/// What the caller names its call, if that may be in the log and is at most so long.
///
/// # Errors
///
/// It may not.
pub(crate) fn given_request_id<'h>(
    headers: &'h HeaderMap,
    roots: &RootTokens,
    longest: usize,
) -> Result<Option<&'h HeaderValue>, ()> {
    let Some(given) = headers.get(REQUEST_ID) else { return Ok(None) };
    let is_fit = given
        .to_str()
        .is_ok_and(|id| id.len() <= longest && is_request_id(id) && !roots.accept(id));
    if is_fit { Ok(Some(given)) } else { Err(()) }
}

/// What was presented, where that is still needed: the answer of
/// GetCurrentApiClientAuthorization repeats it, and by a stream it is checked again.
/// A salted token stands there without a [`Caller`]: it proves one only together with
/// the `remote` of the request.
#[derive(Clone)]
pub(super) struct Presented {
    text: Arc<Zeroizing<String>>,
    pub(super) ip: Option<IpAddr>,
    pub(super) request_id: String,
}

impl Presented {
    pub(super) fn new(text: &str, ip: IpAddr, request_id: &str) -> Self {
        let text = Arc::new(Zeroizing::new(text.to_owned()));
        Self { text, ip: Some(ip), request_id: request_id.to_owned() }
    }

    fn by(call: &Call, text: Zeroizing<String>) -> Self {
        Self { text: Arc::new(text), ip: call.ip, request_id: call.request_id.clone() }
    }

    /// As it was presented.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The token, if it was salted for another cluster.
    pub(super) fn salted(&self) -> Option<SaltedToken> {
        self.text.parse().ok()
    }

    /// The secret alone; of the system root token the whole text.
    pub(super) fn secret(&self) -> String {
        let token: Option<Token> = self.text.parse().ok();
        token.map_or_else(|| self.text.to_string(), |token| token.expose().to_owned())
    }
}

/// The caller's token, which nothing behind the gate gets to see as a header.
fn presented(headers: &mut HeaderMap) -> Result<Zeroizing<String>, Status> {
    if !headers.contains_key(AUTHORIZATION) {
        return Err(status::caller_missing());
    }
    let token = only_bearer(headers).ok_or_else(status::caller_refused)?.to_owned();
    headers.remove(AUTHORIZATION);
    Ok(Zeroizing::new(token))
}

/// Whether a caller's name for its call may be in the log. A longer word than the
/// digits of an id may be of a token, salted ones among them.
fn is_request_id(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_graphic())
        && text.split(|c: char| !c.is_ascii_alphanumeric()).all(|word| word.len() <= 32)
}

fn refusal(status: Status) -> Response<Reply> {
    status.into_http::<Body>().map(Reply::from)
}

fn too_late() -> Status {
    Status::deadline_exceeded("the call took longer than it may")
}

/// What the log says of who calls.
struct CalledBy {
    token_id: String,
    user_id: Option<String>,
}

/// What the log says of a call.
struct Call {
    right: &'static Right,
    request_id: String,
    ip: Option<IpAddr>,
}

impl Call {
    fn log(&self, code: Code, caller: Option<&CalledBy>, took: Duration) {
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    rpc.method = self.right.path,
                    rpc.code = ?code,
                    request.id = self.request_id,
                    caller.token_id = caller.map(|caller| caller.token_id.as_str()),
                    caller.user_id = caller.and_then(|caller| caller.user_id.as_deref()),
                    caller.ip = self.ip.map(tracing::field::display),
                    duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                    "call"
                )
            };
        }
        // Whoever has no token must not be able to fill the log.
        let is_quiet = self.right == &rights::VERIFY || caller.is_none();
        if is_quiet { log!(debug) } else { log!(info) }
    }
}

/// The code of an answer; what fails only after its headers counts as OK.
fn code(answer: &Result<Response<Reply>, Status>) -> Code {
    match answer {
        Ok(response) => response
            .headers()
            .get("grpc-status")
            .map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes())),
        Err(status) => status.code(),
    }
}

/// Whether the token was salted for another cluster.
fn is_salted(headers: &HeaderMap) -> bool {
    let token = headers.get(AUTHORIZATION).and_then(bearer);
    token.is_some_and(|token| token.parse::<SaltedToken>().is_ok())
}

/// The time that the caller gives the call: `grpc-timeout`, 1 to 8 digits and a unit.
fn deadline(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_number = (1..=8).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let number: u64 = is_number.then(|| digits.parse().ok())??;
    match unit {
        "H" => Some(Duration::from_hours(number)),
        "M" => Some(Duration::from_mins(number)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_a_number_and_a_unit() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            deadline(&headers)
        };
        assert_eq!(of("1S"), Some(Duration::from_secs(1)));
        assert_eq!(of("250m"), Some(Duration::from_millis(250)));
        assert_eq!(of("99999999H"), Some(Duration::from_hours(99_999_999)));
        for text in ["", "S", "1", "1s", "-1S", "+1S", "123456789S", "1é"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
