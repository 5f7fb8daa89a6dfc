//! What those ask who run it: is the process alive, and does it answer.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;

/// Whether Verification is answered, as its health says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Admin(Arc<AtomicBool>);

impl Admin {
    /// Tells of it from now on.
    pub(crate) fn set_ready(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// The answer to a call. That the process is alive says nothing of its store.
    pub(crate) fn answer(
        &self,
        request: &Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let is_read = [Method::GET, Method::HEAD].contains(request.method());
        let (status, text) = match request.uri().path() {
            "/healthz" | "/readyz" if !is_read => (StatusCode::METHOD_NOT_ALLOWED, "only GET\n"),
            "/healthz" => (StatusCode::OK, "alive\n"),
            "/readyz" if self.0.load(Ordering::Relaxed) => (StatusCode::OK, "ready\n"),
            "/readyz" => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            _ => (StatusCode::NOT_FOUND, "there is nothing here\n"),
        };
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        Ok(response)
    }
}
