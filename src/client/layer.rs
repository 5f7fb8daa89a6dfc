//! Protects a service of HTTP requests, gRPC's among them.

use std::{
    borrow::Cow,
    fmt,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE},
    request::Parts,
};
use smallvec::SmallVec;
use tonic::{Status, server::NamedService};
use tower::{Layer, Service};

use super::{Answer, Client, Error, Identity, Kinds, Question, Reason, Route};
use crate::bearer::only_bearer;

impl Client {
    /// Lets only requests through that present a token which is good.
    ///
    /// The token is taken from `authorization: Bearer …` (or `OAuth2 …`), which is removed;
    /// `Arc<Identity>` is put among the request's extensions, and [`Stale`] if it is an old
    /// answer that [`stale_if_error`](super::Options::stale_if_error) allows. Others are answered here:
    /// gRPC's by UNAUTHENTICATED, PERMISSION_DENIED or UNAVAILABLE, others by 401 or 403
    /// with `WWW-Authenticate` (RFC 6750), or 503.
    #[must_use]
    pub fn layer(&self) -> Protect {
        Protect {
            client: self.clone(),
            scopes: Arc::new(|_| Vec::new()),
            workspace_id: Arc::new(|_| None),
            client_ip: Arc::new(|_| None),
            kinds: Kinds::ANY,
            judges_route: false,
        }
    }
}

/// What is told of a request.
type Of<T> = Arc<dyn Fn(&Parts) -> T + Send + Sync>;

/// Protects services, as [`Client::layer`] says.
#[derive(Clone)]
pub struct Protect {
    client: Client,
    scopes: Of<Vec<Cow<'static, str>>>,
    workspace_id: Of<Option<String>>,
    client_ip: Of<Option<IpAddr>>,
    kinds: Kinds,
    judges_route: bool,
}

impl Protect {
    /// The token has to cover all of these scopes.
    #[must_use]
    pub fn scopes(self, scopes: impl IntoIterator<Item: Into<Cow<'static, str>>>) -> Self {
        let scopes: Vec<Cow<'static, str>> = scopes.into_iter().map(Into::into).collect();
        self.scopes_of(move |_| scopes.clone())
    }

    /// The token has to cover all scopes that this names.
    #[must_use]
    pub fn scopes_of(
        mut self,
        scopes: impl Fn(&Parts) -> Vec<Cow<'static, str>> + Send + Sync + 'static,
    ) -> Self {
        self.scopes = Arc::new(scopes);
        self
    }

    /// The token has to serve in the workspace with this id.
    #[must_use]
    pub fn workspace_of(
        mut self,
        workspace_id: impl Fn(&Parts) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.workspace_id = Arc::new(workspace_id);
        self
    }

    /// From where the token is presented. Unless this is called, tokens that are limited to
    /// addresses are refused.
    #[must_use]
    pub fn client_ip_of(
        mut self,
        client_ip: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.client_ip = Arc::new(client_ip);
        self
    }

    /// The token has to be of one of these kinds.
    #[must_use]
    pub fn kinds(mut self, kinds: Kinds) -> Self {
        self.kinds = kinds;
        self
    }

    /// The request's method and path have to be allowed by the token's scopes.
    #[must_use]
    pub fn route(mut self) -> Self {
        self.judges_route = true;
        self
    }

    /// Whose token the request presents.
    async fn identity(&self, parts: &Parts) -> Result<(Arc<Identity>, bool), Refusal> {
        if !parts.headers.contains_key(AUTHORIZATION) {
            return Err(Refusal::Missing);
        }
        let token = only_bearer(&parts.headers).ok_or(Refusal::Missing)?;
        let scopes = (self.scopes)(parts);
        let required_scopes: SmallVec<[&str; 8]> = scopes.iter().map(Cow::as_ref).collect();
        let workspace_id = (self.workspace_id)(parts);
        let route = Route { method: parts.method.as_str(), path: parts.uri.path() };
        let question = Question::new(token)
            .scopes(&required_scopes)
            .route(self.judges_route.then_some(route))
            .workspace(workspace_id.as_deref())
            .client_ip((self.client_ip)(parts))
            .kinds(self.kinds);
        match self.client.verify(question).await {
            Ok(Answer::Active { identity, stale }) => Ok((identity, stale)),
            Ok(Answer::Refused { reason, .. }) => {
                drop(required_scopes);
                Err(Refusal::Refused(reason, scopes))
            }
            Err(error) => Err(Refusal::Error(error)),
        }
    }
}

impl fmt::Debug for Protect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Protect").finish_non_exhaustive()
    }
}

impl<S> Layer<S> for Protect {
    type Service = Protected<S>;

    fn layer(&self, inner: S) -> Protected<S> {
        Protected { protect: self.clone(), inner }
    }
}

/// Stands among a request's extensions if an old answer let it through, since nobody could be
/// asked for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

/// A service that is protected, as [`Client::layer`] says.
#[derive(Debug, Clone)]
pub struct Protected<S> {
    protect: Protect,
    inner: S,
}

impl<S: NamedService> NamedService for Protected<S> {
    const NAME: &'static str = S::NAME;
}

/// What becomes of a request.
type Answering<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<S, B, R> Service<Request<B>> for Protected<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Answering<Response<R>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that is ready, not its copy.
        let spare = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, spare);
        let protect = self.protect.clone();
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            match protect.identity(&parts).await {
                Ok((identity, stale)) => {
                    parts.headers.remove(AUTHORIZATION);
                    parts.extensions.insert(identity);
                    if stale {
                        parts.extensions.insert(Stale);
                    }
                    inner.call(Request::from_parts(parts, body)).await
                }
                Err(refusal) if is_grpc(&parts) => Ok(refusal.status().into_http()),
                Err(refusal) => Ok(refusal.response()),
            }
        })
    }
}

fn is_grpc(parts: &Parts) -> bool {
    let is_grpc = |value: &HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    parts.headers.get(CONTENT_TYPE).is_some_and(is_grpc)
}

/// Why a request does not get through.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It presents no token, or several.
    Missing,
    /// Its token is not good, or not for this; which scopes were required.
    Refused(Reason, Vec<Cow<'static, str>>),
    /// Whether it is could not be told.
    Error(Error),
}

/// The field of a question that an error is about.
fn field(error: &Error) -> Option<&'static str> {
    match error {
        Error::Invalid { field, .. } => Some(field),
        Error::Options(_)
        | Error::Unavailable(_)
        | Error::TimedOut
        | Error::OwnToken(_)
        | Error::Failed { .. }
        | Error::Garbled(_) => None,
    }
}

impl Refusal {
    pub(super) fn status(&self) -> Status {
        match self {
            Self::Missing => Status::unauthenticated("a token must be presented as Bearer"),
            Self::Refused(reason, _) if reason.is_of_request() => {
                Status::permission_denied(reason.to_string())
            }
            Self::Refused(reason, _) => Status::unauthenticated(reason.to_string()),
            Self::Error(error) => match field(error) {
                Some("token") => Status::unauthenticated("a token must be presented as Bearer"),
                // It is this service that asks wrongly.
                Some("required_scopes") => Status::internal("what is required is not a scope"),
                Some(_) => Status::invalid_argument(error.to_string()),
                // What the authority said of this service is for its log alone.
                None => Status::unavailable("whether the token is good can't be told now"),
            },
        }
    }

    fn response<R: Default>(&self) -> Response<R> {
        let challenge = |text: &str| HeaderValue::from_str(text).ok();
        let (code, challenge) = match self {
            Self::Missing => (StatusCode::UNAUTHORIZED, challenge("Bearer")),
            Self::Refused(reason @ Reason::InsufficientScope(_), required) => {
                let text = format!(
                    "Bearer error=\"insufficient_scope\", error_description=\"{reason}\", scope=\"{}\"",
                    required.join(" "),
                );
                (StatusCode::FORBIDDEN, challenge(&text))
            }
            Self::Refused(reason, _) if reason.is_of_request() => (StatusCode::FORBIDDEN, None),
            Self::Refused(reason, _) => {
                let text =
                    format!("Bearer error=\"invalid_token\", error_description=\"{reason}\"");
                (StatusCode::UNAUTHORIZED, challenge(&text))
            }
            Self::Error(error) => match field(error) {
                Some("token") => (StatusCode::UNAUTHORIZED, challenge("Bearer")),
                Some("required_scopes") => (StatusCode::INTERNAL_SERVER_ERROR, None),
                Some(_) => (StatusCode::BAD_REQUEST, None),
                None => (StatusCode::SERVICE_UNAVAILABLE, None),
            },
        };
        let mut response = Response::new(R::default());
        *response.status_mut() = code;
        if let Some(challenge) = challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}
