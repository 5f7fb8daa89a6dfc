use std::{convert::Infallible, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::{Request, Response, header::CONTENT_TYPE};
use hyper::body::Incoming;
use prost::Message as _;
use token_authority::{
    connections::{self, Limits},
    grpc::reply::Reply,
    listener::{self, Peer},
    proto::v1::{VerifyRequest, VerifyResponse},
    tls::Spoken,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, oneshot},
    task::JoinHandle,
};
use tonic::{Code, Status, client::Grpc, codec::Streaming, transport::Channel};
use tonic_prost::ProstCodec;

use crate::support::{
    Engine,
    client::connect,
    raw_http2::{End, RawHttp2, framed},
    server::TestServer,
};

const HOUR: Duration = Duration::from_hours(1);

/// A server whose answers are known.
struct Answering {
    address: SocketAddr,
    /// Lets `/held` answer.
    release: Arc<Notify>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Answering {
    async fn start(age: Duration) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let incoming = listener::connections(socket, None, Spoken::Http2, 10);
        let release = Arc::new(Notify::new());
        let answer = {
            let release = Arc::clone(&release);
            move |request, peer| {
                let answer: Pin<Box<dyn Future<Output = _> + Send>> =
                    Box::pin(answer(request, peer, Arc::clone(&release)));
                answer
            }
        };
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(connections::serve(
            incoming,
            Limits { streams: 10, age },
            answer,
            async {
                let _ = stopped.await;
            },
        ));
        Self { address, release, stop, served }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.served.await.unwrap();
    }
}

async fn answer(
    request: Request<Incoming>,
    peer: Peer,
    release: Arc<Notify>,
) -> Result<Response<Reply>, Infallible> {
    assert!(peer.0.ip().is_loopback());
    let reply = match request.uri().path() {
        "/at-once" => reply(),
        "/held" => {
            release.notified().await;
            reply()
        }
        "/elsewhere" => {
            // It is woken from other threads, while the connection is polled or not.
            tokio::task::spawn_blocking(|| {}).await.unwrap();
            tokio::spawn(tokio::task::yield_now()).await.unwrap();
            reply()
        }
        "/panics" => panic!("at once"),
        "/panics-later" => {
            tokio::task::yield_now().await;
            panic!("later")
        }
        _ => return Ok(Status::not_found("no such path").into_http().map(tonic_body)),
    };
    Ok(Response::builder().header(CONTENT_TYPE, "application/grpc").body(reply).unwrap())
}

fn tonic_body(body: tonic::body::Body) -> Reply {
    body.into()
}

fn message() -> VerifyResponse {
    VerifyResponse { active: true, revision: "7".to_owned(), ..Default::default() }
}

fn reply() -> Reply {
    Reply::message(framed(&message().encode_to_vec()).into())
}

async fn ask(channel: &Channel, path: &'static str) -> Result<Streaming<VerifyResponse>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.unwrap();
    let request = tonic::Request::new(VerifyRequest::default());
    let codec = ProstCodec::<VerifyRequest, VerifyResponse>::default();
    let answer = grpc.server_streaming(request, path.parse().unwrap(), codec).await?;
    Ok(answer.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn reply_that_is_there_is_one_message_and_the_trailers_say_ok() {
    let server = Answering::start(HOUR).await;
    let channel = connect(server.address).await;
    let mut answer = ask(&channel, "/at-once").await.unwrap();
    assert_eq!(answer.message().await.unwrap(), Some(message()));
    assert_eq!(answer.message().await.unwrap(), None);
    let trailers = answer.trailers().await.unwrap().unwrap().into_headers();
    assert_eq!(trailers.len(), 1);
    assert_eq!(trailers["grpc-status"], "0");
    let none = ask(&channel, "/none").await.unwrap_err();
    assert_eq!((none.code(), none.message()), (Code::NotFound, "no such path"));
    drop(channel);

    // On the wire, one frame.
    let mut raw = RawHttp2::open(server.address).await;
    raw.request(1, "/at-once", &[], Some(&[])).await;
    assert_eq!(raw.body(1).await, [framed(&message().encode_to_vec())]);
    drop(raw);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_and_calls_that_do_not_are_all_answered() {
    let server = Answering::start(HOUR).await;
    let mut raw = RawHttp2::open(server.address).await;
    let mut streams = (1..).step_by(2);
    for _ in 0..100 {
        let asked: Vec<u32> = streams.by_ref().take(8).collect();
        for (which, &stream) in asked.iter().enumerate() {
            let path = if which % 3 == 0 { "/at-once" } else { "/elsewhere" };
            raw.request(stream, path, &[], Some(&[])).await;
        }
        raw.all_end(&asked).await;
    }
    drop(raw);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn panic_ends_its_call_and_no_other() {
    let server = Answering::start(HOUR).await;
    let mut raw = RawHttp2::open(server.address).await;
    raw.request(1, "/held", &[], Some(&[])).await;
    for (stream, path) in [(3, "/panics"), (5, "/panics-later")] {
        raw.request(stream, path, &[], Some(&[])).await;
        assert!(matches!(raw.end(stream).await, End::Reset(_)), "{path}");
    }
    raw.request(7, "/at-once", &[], Some(&[])).await;
    assert_eq!(raw.end(7).await, End::Answered);
    server.release.notify_one();
    assert_eq!(raw.end(1).await, End::Answered);
    drop(raw);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connection_of_its_age_finishes_its_calls_and_is_closed() {
    let server = Answering::start(Duration::from_millis(300)).await;
    let mut raw = RawHttp2::open(server.address).await;
    raw.request(1, "/held", &[], Some(&[])).await;
    raw.goaway().await;
    server.release.notify_one();
    assert_eq!(raw.body(1).await.len(), 1);
    assert!(raw.is_closed().await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_waits_for_the_calls_that_are_under_way() {
    let server = Answering::start(HOUR).await;
    let mut raw = RawHttp2::open(server.address).await;
    raw.request(1, "/held", &[], Some(&[])).await;
    // The answer to a second one tells that the first has arrived.
    raw.request(3, "/at-once", &[], Some(&[])).await;
    assert_eq!(raw.end(3).await, End::Answered);
    server.stop.send(()).unwrap();
    raw.goaway().await;
    assert!(!server.served.is_finished());
    server.release.notify_one();
    assert_eq!(raw.body(1).await.len(), 1);
    assert!(raw.is_closed().await);
    server.served.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn request_that_comes_in_pieces_is_one_request() {
    let server = TestServer::start(Engine::Sqlite).await;
    let bearer = format!("Bearer {}", server.admin);
    let path = "/token_authority.v1.Verification/Verify";
    let request = VerifyRequest { token: server.admin.clone(), ..Default::default() };
    let body = framed(&request.encode_to_vec());
    let whole = server.verify(&server.admin).await;
    assert!(whole.active);

    let mut raw = RawHttp2::open(server.address).await;
    let mut stream = 1;
    // Within the five bytes, after them, within the message, and before an empty end.
    for cuts in [&[2][..], &[5], &[20], &[body.len()], &[0, 1, 5, 6, 40]] {
        let asked = stream;
        raw.request(asked, path, &[("authorization", &bearer)], None).await;
        let mut from = 0;
        for &cut in cuts {
            raw.data(asked, &body[from..cut], false).await;
            from = cut;
            // What was answered after it tells that it has arrived.
            stream += 2;
            raw.request(stream, "/grpc.health.v1.Health/Check", &[], Some(&[])).await;
            assert_eq!(raw.end(stream).await, End::Answered);
        }
        raw.data(asked, &body[from..], true).await;
        let answer = raw.body(asked).await.concat();
        assert_eq!(VerifyResponse::decode(&answer[5..]).unwrap(), whole, "{cuts:?}");
        stream += 2;
    }
    drop(raw);
    server.stop().await;
}
