//! The server's own way from the socket to an answer and back, without a question
//! asked on it: what verifying adds to that is the difference. A process of its own.

use std::{
    convert::Infallible,
    future::poll_fn,
    io::{Write as _, stderr},
    pin::Pin,
    process::ExitCode,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::CONTENT_TYPE};
use hyper::body::{Body as _, Incoming};
use token_authority::{
    connections::{self, Limits},
    grpc::reply::Reply,
    listener,
    tls::Spoken,
};
use tokio::net::TcpListener;

use crate::{questions, reference};

/// Serves until it is killed. The argument: the answer, encoded, in hexadecimal.
pub(crate) fn serve(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let message = reference::unhex(&arguments.next().expect("the answer comes first"));
    let framed = questions::frame_of(&message);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.expect("a runtime starts").block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("there is a port");
        let address = listener.local_addr().expect("it is bound");
        writeln!(stderr(), "{}", reference::serving(address)).expect("somebody reads it");
        let incoming = listener::connections(listener, None, Spoken::Http2, 4096);
        let limits = Limits { streams: 256, age: Duration::from_hours(1) };
        let answered = move |request, _| answer(request, framed.clone());
        connections::serve(incoming, limits, answered, std::future::pending()).await;
    });
    ExitCode::SUCCESS
}

async fn answer(request: Request<Incoming>, framed: Bytes) -> Result<Response<Reply>, Infallible> {
    let mut body = request.into_body();
    while !body.is_end_stream() {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        if frame.is_none_or(|frame| frame.is_err()) {
            break;
        }
    }
    let mut response = Response::new(Reply::message(framed));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}
