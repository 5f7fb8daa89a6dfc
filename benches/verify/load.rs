//! The load generator: plain HTTP/2 with hand-made gRPC frames, so that it takes as
//! little of the machine as it can, and each answer is looked at.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Barrier, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{RecvStream, SendStream, client::SendRequest};
use hdrhistogram::Histogram;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};
use tokio_rustls::TlsConnector;

use crate::{
    machine::{self, Meter},
    questions::{self, FRAME, Question},
};

/// Where calls go, and as whom.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) bearer: String,
    /// The process whose CPU time counts.
    pub(crate) process: u32,
    /// The generator's CPUs, where it and the target are kept apart.
    pub(crate) cpus: Option<Vec<usize>>,
}

/// How many connections, and how many calls at once on each.
#[derive(Clone, Copy)]
pub(crate) struct Width {
    pub(crate) connections: usize,
    pub(crate) streams: usize,
}

/// What came of it.
pub(crate) struct Outcome {
    /// Right answers.
    pub(crate) answers: u64,
    pub(crate) elapsed: Duration,
    /// CPU time that the target took meanwhile.
    pub(crate) cpu: Duration,
    /// Time to each answer, in nanoseconds.
    pub(crate) latencies: Histogram<u64>,
    /// Questions that the generator sent later than they were due, each by more than [`LATE`].
    pub(crate) late: u64,
    /// Wrong answers and failures, and the first of them.
    pub(crate) errors: u64,
    pub(crate) first_error: Option<String>,
}

impl Outcome {
    fn new() -> Self {
        Self {
            answers: 0,
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            latencies: Histogram::new(3).expect("three digits are few enough"),
            late: 0,
            errors: 0,
            first_error: None,
        }
    }

    /// Itself, if every answer was right.
    pub(crate) fn right(self) -> Self {
        if let Some(error) = &self.first_error {
            panic!("{} of {} calls failed: {error}", self.errors, self.errors + self.answers);
        }
        self
    }

    pub(crate) fn rate(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of the target's CPU time for each answer.
    pub(crate) fn cpu_per_answer(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answers as f64
    }

    /// A percentile of the latencies, in milliseconds.
    pub(crate) fn percentile(&self, percentile: f64) -> f64 {
        self.latencies.value_at_percentile(percentile) as f64 / 1e6
    }

    /// The share of questions that the generator sent late.
    pub(crate) fn late_share(&self) -> f64 {
        self.late as f64 / self.answers as f64
    }

    fn note(&mut self, answer: Result<u64, String>, took: Duration) {
        match answer {
            Ok(answers) => {
                self.answers += answers;
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                self.latencies.record(nanos).expect("it grows as it must");
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert(error);
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.answers += other.answers;
        self.late += other.late;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latencies.add(other.latencies).expect("it grows as it must");
    }
}

/// Each of `width` asks, waits for its answer and asks again, for as long as `lasts` and,
/// of questions to be asked once, while there are any.
pub(crate) fn closed(
    target: &Target,
    question: &Question,
    width: Width,
    lasts: Duration,
) -> Outcome {
    let next = Arc::new(AtomicUsize::new(0));
    spread(target, width.connections, |connections, start| {
        let callers = connections
            .iter()
            .flat_map(|connection| std::iter::repeat_n(connection, width.streams))
            .map(|connection| {
                let (connection, question) = (connection.clone(), question.clone());
                let next = Arc::clone(&next);
                async move {
                    let mut outcome = Outcome::new();
                    loop {
                        let since = Instant::now();
                        if since - start >= lasts {
                            break outcome;
                        }
                        let Some(message) = question.at(next.fetch_add(1, Ordering::Relaxed))
                        else {
                            break outcome;
                        };
                        let answer = connection.ask(&question, message).await;
                        outcome.note(answer, since.elapsed());
                    }
                }
            });
        futures(callers)
    })
}

/// How late a question is sent at most, if nothing keeps the generator from its CPU.
const LATE: Duration = Duration::from_micros(500);

/// Asks so often a second, whether answers come or not; an answer's time counts from
/// when its question was due.
pub(crate) fn open(
    target: &Target,
    question: &Question,
    connections: usize,
    rate: f64,
    lasts: Duration,
) -> Outcome {
    let threads = machine::generators(target.cpus.as_deref()).min(connections);
    let rate = rate / threads as f64;
    let calls = (rate * lasts.as_secs_f64()) as usize;
    spread(target, connections, |connections, start| {
        let question = question.clone();
        let connections = connections.to_vec();
        Box::pin(async move {
            let noted = Arc::new(Mutex::new(Outcome::new()));
            let mut late = 0;
            let (pending, mut all_done) = mpsc::channel::<()>(1);
            for (at, connection) in (0..calls).zip(connections.iter().cycle()) {
                let due = start + Duration::from_secs_f64(at as f64 / rate);
                // A timer is too coarse; to yield polls the sockets.
                while Instant::now() < due {
                    tokio::task::yield_now().await;
                }
                late += u64::from(due.elapsed() > LATE);
                let (connection, question) = (connection.clone(), question.clone());
                let (noted, pending) = (Arc::clone(&noted), pending.clone());
                tokio::spawn(async move {
                    let message = question.at(at).expect("these are asked again and again");
                    let answer = connection.ask(&question, message).await;
                    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    noted.note(answer, due.elapsed());
                    drop(pending);
                });
            }
            drop(pending);
            let _ = all_done.recv().await;
            let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
            Outcome { late, ..std::mem::replace(&mut *noted, Outcome::new()) }
        })
    })
}

/// Keeps `window` questions under way on each stream of `width`, for as long as `lasts`.
pub(crate) fn streaming(
    target: &Target,
    question: &Question,
    width: Width,
    window: usize,
    lasts: Duration,
) -> Outcome {
    spread(target, width.connections, |connections, start| {
        let callers = connections
            .iter()
            .flat_map(|connection| std::iter::repeat_n(connection, width.streams))
            .enumerate()
            .map(|(at, connection)| {
                let (connection, question) = (connection.clone(), question.clone());
                async move {
                    let mut outcome = Outcome::new();
                    let streamed = connection
                        .stream(&question, at * window, window, start + lasts, &mut outcome)
                        .await;
                    if let Err(error) = streamed {
                        outcome.note(Err(error), Duration::ZERO);
                    }
                    outcome
                }
            });
        futures(callers)
    })
}

/// The answer to one question, or what came instead.
pub(crate) async fn once(target: &Target, question: &Question) -> Result<Bytes, String> {
    let connection = Connection::open(target).await?;
    let message = question.at(0).expect("there is one");
    connection.call(question.path, message).await
}

type Running<'a> = std::pin::Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// All of them at once, each a task of its own.
fn futures<'a, F>(callers: impl Iterator<Item = F>) -> Running<'a>
where
    F: Future<Output = Outcome> + Send + 'static,
{
    let mut tasks: JoinSet<Outcome> = callers.collect();
    Box::pin(async move {
        let mut outcome = Outcome::new();
        while let Some(task) = tasks.join_next().await {
            outcome.add(task.expect("a caller does not panic"));
        }
        outcome
    })
}

/// Opens the connections from as many threads as the generator has CPUs, each with a
/// runtime of its own, runs `work` on all of them, and measures from when all are open
/// until all are done.
fn spread(
    target: &Target,
    connections: usize,
    work: impl for<'a> Fn(&'a [Connection], Instant) -> Running<'a> + Sync,
) -> Outcome {
    let threads = machine::generators(target.cpus.as_deref()).min(connections);
    let (opened, started, done) =
        (Barrier::new(threads + 1), Barrier::new(threads + 1), Barrier::new(threads + 1));
    let start = Mutex::new(Instant::now());
    let work = &work;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let share = (thread..connections).step_by(threads).count();
                let (opened, started, done, start) = (&opened, &started, &done, &start);
                scope.spawn(move || {
                    if let Some(cpus) = &target.cpus {
                        machine::pin(cpus);
                    }
                    let runtime = tokio::runtime::Builder::new_current_thread()
                        .enable_all()
                        .build()
                        .expect("a runtime starts");
                    runtime.block_on(async {
                        let mut connections = Vec::with_capacity(share);
                        for _ in 0..share {
                            connections.push(Connection::open(target).await);
                        }
                        let connections: Result<Vec<_>, _> = connections.into_iter().collect();
                        opened.wait();
                        started.wait();
                        let start = *start.lock().unwrap_or_else(PoisonError::into_inner);
                        let outcome = match &connections {
                            Ok(connections) => work(connections, start).await,
                            Err(error) => {
                                let mut outcome = Outcome::new();
                                outcome.note(Err(error.clone()), Duration::ZERO);
                                outcome
                            }
                        };
                        done.wait();
                        outcome
                    })
                })
            })
            .collect();
        opened.wait();
        let meter = Meter::start(target.process);
        let since = Instant::now();
        *start.lock().unwrap_or_else(PoisonError::into_inner) = since;
        started.wait();
        done.wait();
        let (elapsed, cpu) = (since.elapsed(), meter.elapsed());
        let mut outcome = Outcome::new();
        for thread in running {
            outcome.add(thread.join().expect("the generator does not panic"));
        }
        Outcome { elapsed, cpu, ..outcome }
    })
}

#[derive(Clone)]
pub(crate) struct Connection {
    sender: SendRequest<Bytes>,
    authority: String,
    scheme: &'static str,
    headers: HeaderMap,
}

impl Connection {
    pub(crate) async fn open(target: &Target) -> Result<Self, String> {
        let socket = TcpStream::connect(target.address).await.map_err(text)?;
        socket.set_nodelay(true).map_err(text)?;
        let builder = {
            let mut builder = h2::client::Builder::new();
            builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 24);
            builder
        };
        let sender = match &target.tls {
            None => {
                let (sender, connection) = builder.handshake(socket).await.map_err(text)?;
                tokio::spawn(connection);
                sender
            }
            Some(tls) => {
                let name = ServerName::try_from("localhost").expect("it is one");
                let connector = TlsConnector::from(Arc::clone(tls));
                let io = connector.connect(name, socket).await.map_err(text)?;
                let (sender, connection) = builder.handshake(io).await.map_err(text)?;
                tokio::spawn(connection);
                sender
            }
        };
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers.insert("user-agent", HeaderValue::from_static("verify-bench"));
        let bearer = format!("Bearer {}", target.bearer);
        headers.insert("authorization", HeaderValue::from_str(&bearer).map_err(text)?);
        let scheme = if target.tls.is_some() { "https" } else { "http" };
        Ok(Self { sender, authority: target.address.to_string(), scheme, headers })
    }

    fn request(&self, path: &'static str) -> Result<Request<()>, String> {
        let uri = Uri::builder()
            .scheme(self.scheme)
            .authority(self.authority.as_str())
            .path_and_query(path)
            .build()
            .map_err(text)?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        *request.headers_mut() = self.headers.clone();
        Ok(request)
    }

    /// How many answers came, all of them right.
    pub(crate) async fn ask(&self, question: &Question, message: Bytes) -> Result<u64, String> {
        let answer = self.call(question.path, message).await?;
        if (question.is_right)(&answer[FRAME..]) {
            Ok(question.answers)
        } else {
            Err(format!("the answer is another than expected: {:?}", answer.slice(FRAME..)))
        }
    }

    /// One call of a method that takes and gives one message, both with their frame.
    pub(crate) async fn call(&self, path: &'static str, message: Bytes) -> Result<Bytes, String> {
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (response, mut body) = sender.send_request(self.request(path)?, false).map_err(text)?;
        body.send_data(message, true).map_err(text)?;
        let (head, mut body) = response.await.map_err(text)?.into_parts();
        let mut answer = Bytes::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(text)?;
            let _ = body.flow_control().release_capacity(chunk.len());
            answer = if answer.is_empty() {
                chunk
            } else {
                let mut both = BytesMut::from(answer);
                both.extend_from_slice(&chunk);
                both.freeze()
            };
        }
        let trailers = body.trailers().await.map_err(text)?;
        is_ok(trailers.as_ref().unwrap_or(&head.headers))?;
        match questions::frame(&answer) {
            Some(length) if length == answer.len() => Ok(answer),
            Some(_) | None => Err("the answer is not one message".to_owned()),
        }
    }

    /// One stream with `window` questions under way, until `end`.
    async fn stream(
        &self,
        question: &Question,
        first: usize,
        window: usize,
        end: Instant,
        outcome: &mut Outcome,
    ) -> Result<(), String> {
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (response, mut questions) =
            sender.send_request(self.request(question.path)?, false).map_err(text)?;
        let mut next = first;
        // A question's id is its place in the window; `None` once it is answered.
        let mut asked: Vec<Option<Instant>> = vec![None; window];
        let mut free: Vec<usize> = (0..window).collect();
        let mut waiting = 0;
        waiting += send(&mut questions, question, &mut next, &mut free, &mut asked)?;
        let (head, mut answers) = response.await.map_err(text)?.into_parts();
        let mut unread = BytesMut::new();
        while waiting > 0 {
            let Some(chunk) = answers.data().await else { break };
            let chunk = chunk.map_err(text)?;
            let _ = answers.flow_control().release_capacity(chunk.len());
            unread.extend_from_slice(&chunk);
            while let Some(length) = questions::frame(&unread) {
                let message = &unread[FRAME..length];
                let (id, answer) = questions::streamed(message).ok_or("it is no answer")?;
                let place = usize::try_from(id).map_err(text)?;
                let since = asked.get_mut(place).and_then(Option::take);
                let since = since.ok_or("an answer to what was not asked")?;
                let right = (question.is_right)(answer).then_some(1);
                outcome.note(right.ok_or_else(|| format!("{answer:?}")), since.elapsed());
                free.push(place);
                waiting -= 1;
                unread.advance(length);
            }
            if Instant::now() < end {
                waiting += send(&mut questions, question, &mut next, &mut free, &mut asked)?;
            }
        }
        // Whoever ended the stream takes no more of it, and has said why.
        let _ = questions.send_data(Bytes::new(), true);
        finish(&head.headers, &mut answers).await?;
        if waiting == 0 { Ok(()) } else { Err(format!("{waiting} questions without answer")) }
    }
}

/// Sends a question for each free place, in one piece; how many that were.
fn send(
    stream: &mut SendStream<Bytes>,
    question: &Question,
    next: &mut usize,
    free: &mut Vec<usize>,
    asked: &mut [Option<Instant>],
) -> Result<usize, String> {
    let (now, count) = (Instant::now(), free.len());
    let mut bytes = BytesMut::new();
    for place in free.drain(..) {
        let message = question.at(*next).expect("these are asked again and again");
        questions::to_stream(place as u64, &message[FRAME..], &mut bytes);
        asked[place] = Some(now);
        *next += 1;
    }
    stream.send_data(bytes.freeze(), false).map_err(text)?;
    Ok(count)
}

/// The end of a stream: it must be a good one.
async fn finish(head: &HeaderMap, answers: &mut RecvStream) -> Result<(), String> {
    while let Some(chunk) = answers.data().await {
        chunk.map_err(text)?;
    }
    let trailers = answers.trailers().await.map_err(text)?;
    is_ok(trailers.as_ref().unwrap_or(head))
}

fn is_ok(headers: &HeaderMap) -> Result<(), String> {
    let of = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match of("grpc-status") {
        Some("0") => Ok(()),
        status => Err(format!(
            "grpc-status {}: {}",
            status.unwrap_or("missing"),
            of("grpc-message").unwrap_or_default()
        )),
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
