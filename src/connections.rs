//! Serves HTTP on each connection, until the server stops.

use std::{convert::Infallible, pin::pin, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{mpsc, watch};
use tokio_io_timeout::TimeoutStream;

use crate::{
    grpc::reply::Reply,
    listener::{Connection, Peer},
    turns::{Calls, Turns},
};

/// The largest list of headers of a request, in bytes.
const MAX_HEADERS: u32 = 16 * 1024;

/// How many headers a request over HTTP/1.1 is read with, how large they and what it asks
/// for may be together, in bytes, and how long it may take from when one is waited for
/// until it has them all. For more it gets an answer without a body; for fewer, which may
/// be too many as well, the API has one that says so.
const HTTP1_HEADERS: usize = 100;
const HTTP1_HEAD: usize = 64 * 1024;
const HTTP1_HEAD_TIME: Duration = Duration::from_secs(30);

/// How long its client may take nothing of an answer.
const HTTP1_WRITE_TIME: Duration = Duration::from_secs(30);

/// How many streams a client may reset before anybody looked at them: it gets a GOAWAY
/// for more.
const MAX_PENDING_RESETS: usize = 20;

/// How long nothing may come of a connection before it is asked whether it lives, and
/// what it has to say so.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(20));

/// What one connection may have.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls that are under way at once.
    pub streams: u32,
    /// How long it lives; the calls that are under way then finish.
    pub age: Duration,
}

/// Has `answer` answer what comes in over HTTP/2, until `stop` is done; then lets in no
/// more and returns when the calls that are under way have finished.
///
/// A panic in an answer ends that call alone.
pub async fn serve<A, F>(
    incoming: mpsc::Receiver<Connection>,
    limits: Limits,
    answer: A,
    stop: impl Future<Output = ()>,
) where
    A: Fn(Request<Incoming>, Peer) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Reply>, Infallible>> + Send + 'static,
{
    let connected = |connection: Connection, mut stopped| {
        let (answer, peer) = (answer.clone(), connection.peer());
        let service = service_fn(move |request| answer(request, peer));
        let calls = Calls::default();
        let served = http2(limits.streams, calls.clone())
            .serve_connection(TokioIo::new(connection), service);
        let mut served = Turns::new(served, calls);
        async move {
            let closed = tokio::select! {
                biased;
                closed = &mut served => closed,
                () = end(limits.age, &mut stopped) => {
                    served.connection().graceful_shutdown();
                    served.await
                }
            };
            tell(peer, closed);
        }
    };
    each(incoming, connected, stop).await;
}

/// The same over HTTP/1.1, each connection for at most so long.
pub async fn serve_http1<A, F>(
    incoming: mpsc::Receiver<Connection>,
    age: Duration,
    answer: A,
    stop: impl Future<Output = ()>,
) where
    A: Fn(Request<Incoming>, Peer) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    let connected = |connection: Connection, mut stopped| {
        let (answer, peer) = (answer.clone(), connection.peer());
        let service = service_fn(move |request| answer(request, peer));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HTTP1_HEAD_TIME)
            .max_headers(HTTP1_HEADERS)
            .max_buf_size(HTTP1_HEAD);
        let mut io = TimeoutStream::new(connection);
        io.set_write_timeout(Some(HTTP1_WRITE_TIME));
        let served = builder.serve_connection(TokioIo::new(Box::pin(io)), service);
        async move {
            let mut served = pin!(served);
            let closed = tokio::select! {
                biased;
                closed = served.as_mut() => closed,
                () = end(age, &mut stopped) => {
                    served.as_mut().graceful_shutdown();
                    served.await
                }
            };
            tell(peer, closed);
        }
    };
    each(incoming, connected, stop).await;
}

/// Has each connection served by a task of its own.
async fn each<F>(
    mut incoming: mpsc::Receiver<Connection>,
    connected: impl Fn(Connection, watch::Receiver<()>) -> F,
    stop: impl Future<Output = ()>,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let (stopping, stopped) = watch::channel(());
    let mut stop = pin!(stop);
    loop {
        let connection = tokio::select! {
            () = &mut stop => break,
            next = incoming.recv() => next,
        };
        let Some(connection) = connection else { break };
        // It holds `stopped` until the connection is closed, which `stopping` waits for.
        tokio::spawn(connected(connection, stopped.clone()));
    }
    // The listener closes, so that nobody connects to wait in vain.
    drop(incoming);
    let _ = stopping.send(());
    drop(stopped);
    stopping.closed().await;
}

fn tell(peer: Peer, closed: hyper::Result<()>) {
    if let Err(error) = closed {
        tracing::debug!(peer = %peer.0, %error, "connection closed");
    }
}

/// Waits until the connection is to take no more calls.
async fn end(age: Duration, stopped: &mut watch::Receiver<()>) {
    tokio::select! {
        () = tokio::time::sleep(age) => {}
        _ = stopped.changed() => {}
    }
}

/// The windows, the size of frames and the buffers are hyper's own, as they are tonic's.
fn http2(streams: u32, calls: Calls) -> http2::Builder<Calls> {
    let (idle, silent) = KEEPALIVE;
    let mut builder = http2::Builder::new(calls);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(MAX_HEADERS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .keep_alive_interval(idle)
        .keep_alive_timeout(silent);
    builder
}
