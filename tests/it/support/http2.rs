use std::{
    collections::VecDeque,
    convert::Infallible,
    future::poll_fn,
    net::SocketAddr,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::{
    HeaderMap, Request,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// A connection on which any body may be sent with any headers, and what is answered
/// is seen as it is.
#[derive(Clone)]
pub(crate) struct Http2(SendRequest<Pieces>);

/// A body in pieces.
pub(crate) struct Pieces(VecDeque<Bytes>);

/// An answer, but for its date.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

impl Http2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let stream = TokioIo::new(stream);
        let (send, connection) = http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        tokio::spawn(connection);
        Self(send)
    }

    /// What a `POST` with these headers and pieces of a body is answered.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        pieces: &[Vec<u8>],
    ) -> Answered {
        let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        let mut request = Request::post(format!("http://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.header("te", "trailers").body(Pieces(pieces)).unwrap();
        let (mut head, body) = self.0.send_request(request).await.unwrap().into_parts();
        let mut answered = Answered {
            status: head.status.as_u16(),
            headers: HeaderMap::new(),
            body: Vec::new(),
            trailers: None,
        };
        head.headers.remove("date");
        answered.headers = head.headers;
        let mut body = pin!(body);
        while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
            match frame.unwrap().into_data() {
                Ok(data) => answered.body.extend(data),
                Err(frame) => answered.trailers = frame.into_trailers().ok(),
            }
        }
        answered
    }
}
