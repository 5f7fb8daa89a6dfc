//! An authority that says whatever a test has it say.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use token_authority::{
    client::{Client, Options, OwnToken},
    clock::Clock as _,
    proto::v1::{
        ReportUseRequest, ReportUseResponse, TokenKind, TokenUse, VerifyRequest, VerifyResponse,
        WatchChange, WatchPong, WatchProgress, WatchRequest, WatchResponse,
        verification_server::{Verification, VerificationServer},
        watch_request::Command,
        watch_response::Event,
    },
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming, codegen::BoxStream, transport::server::TcpIncoming,
};

use crate::support::{clock::TestClock, wait::until};

pub(super) const SOON: Duration = Duration::from_secs(10);

/// What it says, and what it was asked.
pub(super) struct Says {
    pub(super) clock: TestClock,
    /// The answers by token; an unknown token is not found.
    pub(super) answers: Mutex<HashMap<String, VerifyResponse>>,
    /// If set, every Verify fails with it.
    pub(super) fails: Mutex<Option<Status>>,
    /// The token that its callers have to present.
    pub(super) accepts: Mutex<String>,
    /// Each answer takes one of these, after it was made.
    pub(super) gives: Semaphore,
    pub(super) asked: Mutex<Vec<VerifyRequest>>,
    pub(super) uses: Mutex<Vec<TokenUse>>,
    /// Each report takes one of these, before it is noted.
    pub(super) takes: Semaphore,
    pub(super) reports: AtomicUsize,
    pub(super) pings: Arc<AtomicUsize>,
    /// With which revision each stream was begun.
    pub(super) starts: Mutex<Vec<Option<String>>>,
    pub(super) pongs: Arc<Pongs>,
    streams: Mutex<Vec<mpsc::Sender<Result<WatchResponse, Status>>>>,
}

/// What it says of how fresh a stream is.
pub(super) struct Pongs {
    clock: TestClock,
    /// Whether it says anything.
    pub(super) are_sent: AtomicBool,
    revision: Mutex<String>,
}

impl Pongs {
    fn to(&self, nonce: u64) -> Option<WatchPong> {
        let (seconds, nanos) = self.clock.now().to_seconds_and_nanos();
        self.are_sent.load(Ordering::SeqCst).then(|| WatchPong {
            nonce,
            revision: self.revision.lock().unwrap().clone(),
            age: None,
            now: Some(prost_types::Timestamp { seconds, nanos }),
        })
    }
}

/// It, on a port of its own.
pub(super) struct Authority {
    pub(super) says: Arc<Says>,
    pub(super) address: SocketAddr,
    served: JoinHandle<()>,
}

impl Authority {
    pub(super) async fn start() -> Self {
        let clock = TestClock::new();
        let says = Arc::new(Says {
            clock: clock.clone(),
            answers: Mutex::default(),
            fails: Mutex::default(),
            accepts: Mutex::new("own".to_owned()),
            gives: Semaphore::new(1 << 20),
            asked: Mutex::default(),
            uses: Mutex::default(),
            takes: Semaphore::new(1 << 20),
            reports: AtomicUsize::new(0),
            pings: Arc::default(),
            starts: Mutex::default(),
            pongs: Arc::new(Pongs {
                clock,
                are_sent: AtomicBool::new(true),
                revision: Mutex::new("r1".to_owned()),
            }),
            streams: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = VerificationServer::from_arc(Arc::clone(&says));
        let served = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener);
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self { says, address, served }
    }

    pub(super) fn options(&self) -> Options {
        Options::new([format!("http://{}", self.address)], OwnToken::text("own"))
            .clock(Arc::new(self.says.clock.clone()))
    }

    /// A client that is fresh.
    pub(super) async fn client(&self) -> Client {
        let client = Client::start(self.options()).unwrap();
        until("it is fresh", SOON, async || client.state().is_fresh).await;
        client
    }

    /// Nobody serves there any more: connections are not made, and calls on those that
    /// are there fail.
    pub(super) fn stop(&self) {
        *self.says.fails.lock().unwrap() = Some(Status::unavailable("it stops"));
        self.says.pongs.are_sent.store(false, Ordering::SeqCst);
        self.served.abort();
        self.says.cut();
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        self.served.abort();
    }
}

/// The answer about a good token.
pub(super) fn active(token_id: &str, scopes: &[&str]) -> VerifyResponse {
    VerifyResponse {
        active: true,
        token_id: token_id.to_owned(),
        kind: TokenKind::PersonalAccessToken.into(),
        user_id: format!("user-of-{token_id}"),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        revision: "r1".to_owned(),
        ..Default::default()
    }
}

impl Says {
    /// From now on this is the answer about a token.
    pub(super) fn answer(&self, token: &str, answer: VerifyResponse) {
        self.answers.lock().unwrap().insert(token.to_owned(), answer);
    }

    /// How often it was asked.
    pub(super) fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }

    /// Tells of a change.
    pub(super) async fn change(&self, revision: &str, change: WatchChange) {
        *self.pongs.revision.lock().unwrap() = revision.to_owned();
        self.send(Event::Change(WatchChange { revision: revision.to_owned(), ..change })).await;
    }

    /// Sends this to whoever watches.
    pub(super) async fn send(&self, event: Event) {
        let streams = self.streams.lock().unwrap().clone();
        for stream in streams {
            let _ = stream.send(Ok(WatchResponse { event: Some(event.clone()) })).await;
        }
    }

    /// Sends an event that nobody knows.
    pub(super) async fn send_unknown(&self) {
        let streams = self.streams.lock().unwrap().clone();
        for stream in streams {
            let _ = stream.send(Ok(WatchResponse { event: None })).await;
        }
    }

    /// The instant so many seconds from now, by its clock.
    pub(super) fn in_seconds(&self, seconds: u64) -> prost_types::Timestamp {
        let at = self.clock.now().saturating_add(Duration::from_secs(seconds));
        let (seconds, nanos) = at.to_seconds_and_nanos();
        prost_types::Timestamp { seconds, nanos }
    }

    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let presented = request.metadata().get("authorization").unwrap().to_str().unwrap();
        let is_good = presented == format!("Bearer {}", self.accepts.lock().unwrap());
        is_good.then_some(()).ok_or_else(|| Status::unauthenticated("it is not good"))
    }

    /// Ends every stream.
    pub(super) fn cut(&self) {
        self.streams.lock().unwrap().clear();
    }
}

#[tonic::async_trait]
impl Verification for Says {
    async fn verify(
        &self,
        request: Request<VerifyRequest>,
    ) -> Result<Response<VerifyResponse>, Status> {
        self.check(&request)?;
        let request = request.into_inner();
        if let Some(status) = &*self.fails.lock().unwrap() {
            return Err(status.clone());
        }
        let answer = self.answers.lock().unwrap().get(&request.token).cloned();
        self.asked.lock().unwrap().push(request);
        self.gives.acquire().await.unwrap().forget();
        Ok(Response::new(answer.unwrap_or_else(|| VerifyResponse {
            reason: token_authority::proto::v1::Reason::NotFound.into(),
            ..Default::default()
        })))
    }

    async fn report_use(
        &self,
        request: Request<ReportUseRequest>,
    ) -> Result<Response<ReportUseResponse>, Status> {
        self.reports.fetch_add(1, Ordering::SeqCst);
        self.takes.acquire().await.unwrap().forget();
        self.uses.lock().unwrap().extend(request.into_inner().items);
        Ok(Response::new(ReportUseResponse {}))
    }

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<BoxStream<WatchResponse>>, Status> {
        self.check(&request)?;
        let mut requests = request.into_inner();
        let Some(WatchRequest { command: Some(Command::Start(start)) }) =
            requests.message().await?
        else {
            return Err(Status::invalid_argument("no start"));
        };
        self.starts.lock().unwrap().push(start.since_revision.clone());
        let (sender, receiver) = mpsc::channel(64);
        if start.since_revision.is_none() {
            let revision = self.pongs.revision.lock().unwrap().clone();
            let progress = WatchProgress { revision, ..Default::default() };
            let event = Some(Event::Progress(progress));
            sender.send(Ok(WatchResponse { event })).await.unwrap();
        }
        // Once the streams are forgotten, this one ends.
        let weak = sender.downgrade();
        self.streams.lock().unwrap().push(sender);
        let (pongs, pings) = (Arc::clone(&self.pongs), Arc::clone(&self.pings));
        tokio::spawn(async move {
            while let Ok(Some(request)) = requests.message().await {
                let Some(Command::Ping(ping)) = request.command else { continue };
                pings.fetch_add(1, Ordering::SeqCst);
                let Some(sender) = weak.upgrade() else { break };
                if let Some(pong) = pongs.to(ping.nonce) {
                    let _ = sender.send(Ok(WatchResponse { event: Some(Event::Pong(pong)) })).await;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
