//! The body of an answer.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The body of an answer: one that is there already, or tonic's.
#[derive(Debug)]
pub struct Reply(Rest);

/// What is still to be sent.
#[derive(Debug)]
enum Rest {
    Message(Bytes),
    Trailers,
    Nothing,
    OfTonic(Body),
}

impl Reply {
    /// One message, with the five bytes that gRPC puts before it, and the trailers
    /// that say OK.
    #[must_use]
    pub fn message(framed: Bytes) -> Self {
        Self(Rest::Message(framed))
    }
}

impl From<Body> for Reply {
    fn from(body: Body) -> Self {
        Self(Rest::OfTonic(body))
    }
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Rest::OfTonic(body) = &mut self.0 {
            return Pin::new(body).poll_frame(context);
        }
        let (frame, rest) = match mem::replace(&mut self.0, Rest::Nothing) {
            Rest::Message(framed) => (Frame::data(framed), Rest::Trailers),
            Rest::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
                (Frame::trailers(trailers), Rest::Nothing)
            }
            Rest::Nothing | Rest::OfTonic(_) => return Poll::Ready(None),
        };
        self.0 = rest;
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Rest::Message(_) | Rest::Trailers => false,
            Rest::Nothing => true,
            Rest::OfTonic(body) => body.is_end_stream(),
        }
    }

    /// Unknown of a message: gRPC has no `content-length` before its trailers.
    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Rest::Message(_) | Rest::Trailers | Rest::Nothing => SizeHint::default(),
            Rest::OfTonic(body) => body.size_hint(),
        }
    }
}
