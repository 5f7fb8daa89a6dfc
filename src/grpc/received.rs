//! The body of a call, of which the beginning may have been looked at already.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::MAX_REQUEST;

/// The body of a call: what was read of it already comes first. It holds tokens, so there
/// is no `Debug`.
pub(crate) struct Received {
    read: Bytes,
    rest: Incoming,
}

impl Received {
    pub(super) fn new(rest: Incoming) -> Self {
        Self { read: Bytes::new(), rest }
    }

    /// What was read.
    pub(super) fn read(&self) -> &[u8] {
        &self.read
    }

    /// Reads what is there; whether that is the whole body, and not large.
    pub(super) fn is_whole(&mut self) -> bool {
        // Whoever waits for the rest polls it anew, so no wake-up is lost.
        let polled = self.poll_whole(&mut Context::from_waker(Waker::noop()));
        polled == Poll::Ready(true)
    }

    /// Reads the whole body; `false` if it is larger than it may be.
    pub(super) async fn gather(&mut self) -> bool {
        poll_fn(|context| self.poll_whole(context)).await
    }

    /// Reads on, until the end, or as long as it is not larger than it may be.
    fn poll_whole(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        while !self.rest.is_end_stream() {
            if self.read.len() > MAX_REQUEST {
                return Poll::Ready(false);
            }
            let data = match Pin::new(&mut self.rest).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => break,
                Poll::Ready(Some(frame)) => frame.ok().and_then(|frame| frame.into_data().ok()),
            };
            let Some(data) = data else { return Poll::Ready(false) };
            if self.read.is_empty() {
                self.read = data;
            } else {
                // In place, or what comes in many small parts would be copied with each.
                let read = std::mem::take(&mut self.read).try_into_mut();
                let mut both = read.unwrap_or_else(|read| BytesMut::from(&*read));
                both.extend_from_slice(&data);
                self.read = both.freeze();
            }
        }
        Poll::Ready(true)
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.rest).poll_frame(context);
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.read)))))
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        if self.read.is_empty() { self.rest.size_hint() } else { SizeHint::default() }
    }
}
