//! The two systems' own APIs, and introspection and revocation by RFC, over HTTP/1.1:
//! parse the request, call, convert the answer.
//!
//! The services that are called are those of [`crate::grpc`], in this process, or what
//! decides behind them: what a call means, and what is wrong with it, is decided in one
//! place for both.

mod admin;
mod arvados;
mod body;
mod client;
mod oauth;
mod openapi;
mod problem;
mod rate;
mod route;
mod spatio;

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode,
    header::{ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE},
    request,
};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use ipnet::IpNet;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    bearer::only_bearer,
    caller::Caller,
    clock::Clock,
    config::{RootUrl, Settings},
    domain::{ContainerName, Kind, Timestamp},
    grpc::{
        PersonalAccessTokens, Services,
        gate::{MAX_REQUEST_ID, SALTED_CALLS, given_request_id},
    },
    listener::Peer,
    random,
    verifier::{Event, Verifier},
};
pub(crate) use admin::Admin;
use problem::{Problem, Style};
use rate::Rates;
use route::Route;

/// The largest body of a request that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// How many headers a request may have, and how large they and its target may be together,
/// in bytes.
const MAX_HEADERS: usize = 64;
const MAX_HEAD: usize = 16 * 1024;

/// How long an answer waits for what is left of a body that it did not need: who is still
/// sending when the connection is closed is told nothing, and tries again.
const REST: Duration = Duration::from_secs(1);

/// The header that names a call in the logs, taken from the caller or made here.
const REQUEST_ID: &str = "x-request-id";

/// What answers HTTP.
#[derive(Clone)]
pub struct Front(Arc<Shared>);

struct Shared {
    verifier: Arc<Verifier>,
    clock: Arc<dyn Clock>,
    services: Services,
    proxies: Vec<IpNet>,
    room: Semaphore,
    /// Of callers whose salted token is judged with their request alone.
    room_for_salted: Semaphore,
    longest: Duration,
    /// Who shows no token of its own asks so often.
    anonymous: Rates,
    open_introspection: bool,
    /// Whether a query may present a token.
    token_in_query: bool,
    /// Where clients are to call, if that is said.
    root_url: Option<RootUrl>,
    /// Whether the listener speaks TLS.
    is_tls: bool,
}

/// A call, as it came.
struct Call<'a> {
    front: &'a Shared,
    headers: &'a HeaderMap,
    query: &'a str,
    /// What is left of it.
    body: Mutex<Option<Incoming>>,
    ip: IpAddr,
    /// Whether the client speaks HTTPS.
    is_secure: bool,
    request_id: String,
    /// What is called, once the body has said it.
    name: OnceLock<&'static str>,
    /// Who makes it, once that is known.
    caller: OnceLock<Caller>,
}

/// An answer: a status, headers, and JSON if there is any.
struct Answer {
    status: StatusCode,
    headers: Vec<(HeaderName, &'static str)>,
    body: Option<Bytes>,
}

impl Front {
    /// Over these services.
    pub(crate) fn new(
        verifier: Arc<Verifier>,
        clock: Arc<dyn Clock>,
        services: Services,
        settings: &Settings,
    ) -> Self {
        let room = Semaphore::new(settings.max_calls as usize);
        Self(Arc::new(Shared {
            verifier,
            clock,
            services,
            proxies: settings.trusted_proxies.clone(),
            room,
            room_for_salted: Semaphore::new(SALTED_CALLS),
            longest: settings.call_deadline.into(),
            anonymous: Rates::new(),
            open_introspection: settings.open_introspection,
            token_in_query: settings.token_in_query,
            root_url: settings.http_root_url.clone(),
            is_tls: settings.tls_cert.is_some(),
        }))
    }

    /// The answer to a call.
    pub(crate) fn answer(
        &self,
        request: Request<Incoming>,
        peer: Peer,
    ) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + use<> {
        let shared = Arc::clone(&self.0);
        async move { Ok(shared.pass(request, peer).await) }
    }
}

impl Shared {
    async fn pass(&self, request: Request<Incoming>, peer: Peer) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        let (style, route) = Route::of(&parts.method, parts.uri.path());
        let (longest, new_id): (_, fn(Timestamp) -> String) = match style {
            Style::Arvados => (arvados::MAX_REQUEST_ID, |_| arvados::new_request_id()),
            Style::Spatio | Style::OAuth => (MAX_REQUEST_ID, random::id),
        };
        let given = given_request_id(&parts.headers, &self.verifier.roots, longest).ok().flatten();
        let given = given.and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
        let (socket, proxies) = (peer.0.ip(), &self.proxies);
        let address = client::address(socket, &parts.headers, proxies);
        let call = Call {
            front: self,
            headers: &parts.headers,
            query: parts.uri.query().unwrap_or_default(),
            body: Mutex::new(Some(body)),
            ip: address.unwrap_or(socket),
            is_secure: client::is_secure(socket, &parts.headers, proxies, self.is_tls),
            request_id: given.unwrap_or_else(|| new_id(self.clock.now())),
            name: OnceLock::new(),
            caller: OnceLock::new(),
        };
        let name = route.as_ref().map_or("none", Route::name);
        let answered = async {
            let route = route?;
            check_head(&parts)?;
            // It can't count as the proxy's own, which may be let in where others are not.
            address.ok_or_else(|| Problem::unreadable("X-Forwarded-For has no address"))?;
            let _place = if route.is_open(&call) { None } else { Some(call.place()?) };
            route.answer(&call).await
        };
        let answered = tokio::time::timeout(self.longest, answered).await;
        let answered = answered.unwrap_or_else(|_| Err(Problem::too_late()));
        let answer = answered.unwrap_or_else(|problem| problem.into_answer(style, &call));
        if answer.status == StatusCode::UNAUTHORIZED {
            self.verifier.happened(Event::CallerRefused);
        }
        call.log(name, answer.status, started.elapsed());
        let mut response = answer.into_response();
        if style == Style::Arvados {
            let everywhere = HeaderValue::from_static("*");
            response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, everywhere);
        }
        if let Ok(request_id) = HeaderValue::from_str(&call.request_id) {
            response.headers_mut().insert(REQUEST_ID, request_id);
        }
        if !call.is_over().await {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// That a request says what it is in no more than it may.
fn check_head(parts: &request::Parts) -> Result<(), Problem> {
    let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
    let headers = parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
    if parts.headers.len() <= MAX_HEADERS && target + headers.sum::<usize>() <= MAX_HEAD {
        Ok(())
    } else {
        Err(Problem::head_too_large())
    }
}

impl Call<'_> {
    /// A place among the calls that are under way.
    fn place(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.front.room.try_acquire().map_err(|_| Problem::overloaded())
    }

    /// The whole body, if it is not too large. That of somebody who is not known yet is not
    /// waited for in a place among the calls.
    async fn body(&self) -> Result<Bytes, Problem> {
        let Some(mut body) = self.left().take() else { return Ok(Bytes::new()) };
        let read = Limited::new(&mut body, MAX_BODY).collect().await;
        *self.left() = Some(body);
        match read {
            Ok(read) => Ok(read.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(Problem::too_large()),
            Err(_) => Err(Problem::unreadable("the body ends before it should")),
        }
    }

    /// Whether all of it came, once what nobody needed was passed over. If not, the
    /// connection can't have another call, which its client has to be told.
    async fn is_over(&self) -> bool {
        let Some(mut body) = self.left().take() else { return false };
        let pass_over = async {
            while let Some(frame) = body.frame().await {
                if frame.is_err() {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(REST, pass_over).await.unwrap_or(false)
    }

    fn left(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token that it presents.
    fn presented(&self) -> Result<&str, Problem> {
        if !self.headers.contains_key(AUTHORIZATION) {
            return Err(Problem::anonymous());
        }
        only_bearer(self.headers).ok_or_else(Problem::unauthenticated)
    }

    /// Who makes it, by this token of its own, which is of a kind that the API is about:
    /// another is none there.
    async fn caller(&self, token: &str, kinds: &[Kind]) -> Result<&Caller, Problem> {
        let caller = self.front.verifier.authenticate(token, Some(self.ip), &self.request_id);
        let caller = caller.await?.filter(|caller| kinds.contains(&caller.found.credential.kind()));
        let caller = caller.ok_or_else(Problem::unauthenticated)?;
        Ok(self.caller.get_or_init(|| caller))
    }

    fn tokens(&self) -> &PersonalAccessTokens {
        &self.front.services.tokens
    }

    /// Ends a personal access token; of one that was ended before there is none.
    async fn revoke(
        &self,
        caller: &Caller,
        workspace: Option<&ContainerName>,
        id: &str,
    ) -> Result<(), Problem> {
        let revoked = self.front.services.tokens.authority().revoke(caller, workspace, id, false);
        if revoked.await?.0.changed { Ok(()) } else { Err(Problem::missing()) }
    }

    fn log(&self, name: &str, status: StatusCode, took: Duration) {
        let (caller, name) = (self.caller.get(), self.name.get().copied().unwrap_or(name));
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    http.route = name,
                    http.status = status.as_u16(),
                    request.id = self.request_id,
                    caller.token_id = caller.map(|caller| caller.token_id().0.as_str()),
                    caller.user_id = caller.map(|caller| caller.user_id().as_str()),
                    caller.ip = %self.ip,
                    duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                    "call"
                )
            };
        }
        // Whoever has no token must not be able to fill the log.
        if caller.is_none() { log!(debug) } else { log!(info) }
    }
}

impl Answer {
    fn ok(body: Value) -> Self {
        Self::json(StatusCode::OK, body)
    }

    fn json(status: StatusCode, body: Value) -> Self {
        Self { status, ..Self::written(body.to_string().into()) }
    }

    /// JSON as it is sent.
    fn written(body: Bytes) -> Self {
        Self { status: StatusCode::OK, headers: Vec::new(), body: Some(body) }
    }

    fn empty(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: None }
    }

    fn header(&mut self, name: HeaderName, value: &'static str) {
        self.headers.push((name, value));
    }

    /// Nothing of it is for caches: it may hold a secret.
    fn into_response(self) -> Response<Full<Bytes>> {
        let is_json = self.body.is_some();
        let mut response = Response::new(Full::from(self.body.unwrap_or_default()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if is_json {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in self.headers {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
