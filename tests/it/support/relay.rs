use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// The name of PostgreSQL's socket in its directory.
const SOCKET: &str = ".s.PGSQL.5432";

/// Stands between a server and PostgreSQL: it can be cut, can hold back what is on its
/// way, and counts the statements that are run.
pub(crate) struct Relay {
    directory: TempDir,
    target: Arc<PathBuf>,
    running: Option<JoinHandle<()>>,
    held: watch::Sender<Held>,
    ran: Arc<Mutex<HashMap<String, usize>>>,
}

/// What stays on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Nothing,
    Everything,
    /// What PostgreSQL says where a statement with this text is run next.
    AnswerTo(&'static str),
    /// The same, of which it is known where.
    Caught,
    /// What would come is lost, and with it its connection, which says nothing any more.
    Lost,
}

impl Relay {
    /// To the database at `url`, with the URL of the way through it.
    pub(crate) fn to(url: &str) -> (Self, String) {
        let (database, host) = url.split_once("?host=").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let through = format!("{database}?host={}", directory.path().display());
        let target = Arc::new(PathBuf::from(host).join(SOCKET));
        let (held, ran) = (watch::Sender::new(Held::Nothing), Arc::default());
        let mut relay = Self { directory, target, running: None, held, ran };
        relay.mend();
        (relay, through)
    }

    /// Ends all connections and takes no new ones.
    pub(crate) async fn cut(&mut self) {
        let running = self.running.take().expect("it is not cut yet");
        running.abort();
        let _ = running.await;
        std::fs::remove_file(self.directory.path().join(SOCKET)).unwrap();
    }

    /// Takes connections again.
    pub(crate) fn mend(&mut self) {
        let listener = UnixListener::bind(self.directory.path().join(SOCKET)).unwrap();
        let target = Arc::clone(&self.target);
        let (held, ran) = (self.held.clone(), Arc::clone(&self.ran));
        self.running = Some(tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((from, _)) = listener.accept().await {
                let (target, held) = (Arc::clone(&target), held.clone());
                let statements = Statements::counted_in(Arc::clone(&ran));
                connections.spawn(async move {
                    if let Ok(to) = UnixStream::connect(&*target).await {
                        relay(from, to, held, statements).await;
                    }
                });
            }
        }));
    }

    /// Ends all connections, and takes new ones to the database at `url`.
    pub(crate) async fn turn_to(&mut self, url: &str) {
        let (_, host) = url.split_once("?host=").unwrap();
        self.cut().await;
        self.target = Arc::new(PathBuf::from(host).join(SOCKET));
        self.mend();
    }

    /// From now on nothing arrives, as if PostgreSQL were frozen.
    pub(crate) fn hold(&self) {
        self.held.send_replace(Held::Everything);
    }

    /// From now on all connections fall silent for ever, and so do new ones until it is
    /// released.
    pub(crate) fn swallow(&self) {
        self.held.send_replace(Held::Lost);
    }

    /// Whether the statement was run whose answer is to be held.
    pub(crate) fn has_caught(&self) -> bool {
        *self.held.borrow() == Held::Caught
    }

    /// PostgreSQL's answer to the next such statement does not arrive.
    pub(crate) fn hold_answer_to(&self, statement: &'static str) {
        self.held.send_replace(Held::AnswerTo(statement));
    }

    /// Lets all that was held go on its way.
    pub(crate) fn release(&self) {
        self.held.send_replace(Held::Nothing);
    }

    /// How often a statement with this text was run.
    pub(crate) fn ran(&self, text: &str) -> usize {
        let ran = self.ran.lock().unwrap();
        ran.iter().filter(|(statement, _)| statement.contains(text)).map(|(_, times)| times).sum()
    }
}

async fn relay(
    from: UnixStream,
    to: UnixStream,
    held: watch::Sender<Held>,
    mut statements: Statements,
) {
    let (mut from_server, mut to_server) = from.into_split();
    let (mut from_database, mut to_database) = to.into_split();
    let (mut asked, mut answered) = (held.subscribe(), held.subscribe());
    let (is_caught, is_silent) = (AtomicBool::new(false), AtomicBool::new(false));
    let is_lost = |held: &watch::Receiver<Held>| {
        is_silent.fetch_or(*held.borrow() == Held::Lost, Ordering::SeqCst)
            || *held.borrow() == Held::Lost
    };
    let questions = async {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
            let _ = asked.wait_for(|held| *held != Held::Everything).await;
            if is_lost(&asked) {
                continue;
            }
            let ran = statements.read(&buffer[..count]);
            held.send_if_modified(|held| {
                let is_it = |text| ran.iter().any(|statement| statement.contains(text));
                let catches = matches!(held, Held::AnswerTo(text) if is_it(*text));
                if catches {
                    is_caught.store(true, Ordering::SeqCst);
                    *held = Held::Caught;
                }
                catches
            });
            // Counted before it can be answered.
            statements.count(ran);
            if to_database.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    let answers = async {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from_database.read(&mut buffer).await {
            let goes = |held: &Held| match held {
                Held::Nothing | Held::Lost => true,
                Held::Everything => false,
                Held::AnswerTo(_) | Held::Caught => !is_caught.load(Ordering::SeqCst),
            };
            let _ = answered.wait_for(goes).await;
            if is_lost(&answered) {
                continue;
            }
            if *answered.borrow() == Held::Nothing {
                is_caught.store(false, Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..count]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = questions => {}
        () = answers => {}
    }
}

/// Reads along what a client says to PostgreSQL: which statements are run.
struct Statements {
    ran: Arc<Mutex<HashMap<String, usize>>>,
    prepared: HashMap<String, String>,
    unread: Vec<u8>,
    has_started: bool,
}

impl Statements {
    fn counted_in(ran: Arc<Mutex<HashMap<String, usize>>>) -> Self {
        Self { ran, prepared: HashMap::new(), unread: Vec::new(), has_started: false }
    }

    /// The statements that these bytes have run.
    fn read(&mut self, bytes: &[u8]) -> Vec<String> {
        self.unread.extend_from_slice(bytes);
        let mut ran = Vec::new();
        loop {
            // What precedes the first messages is not there before the start.
            let kind_length = usize::from(self.has_started);
            let Some(length) = self.unread.get(kind_length..kind_length + 4) else { break };
            let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
            if self.unread.len() < kind_length + length {
                break;
            }
            let message: Vec<u8> = self.unread.drain(..kind_length + length).collect();
            let body = &message[kind_length + 4..];
            if !self.has_started {
                // Whether TLS or GSSAPI is spoken may be asked first.
                self.has_started = !body.starts_with(&1234_u16.to_be_bytes());
                continue;
            }
            let mut texts = body.split(|byte| *byte == 0).map(String::from_utf8_lossy);
            let mut text = || texts.next().unwrap_or_default().into_owned();
            match message[0] {
                b'P' => {
                    let name = text();
                    self.prepared.insert(name, text());
                }
                b'B' => {
                    let _portal = text();
                    ran.extend(self.prepared.get(&text()).cloned());
                }
                b'Q' => ran.push(text()),
                _ => {}
            }
        }
        ran
    }

    fn count(&self, ran: Vec<String>) {
        let mut counts = self.ran.lock().unwrap();
        for statement in ran {
            *counts.entry(statement).or_default() += 1;
        }
    }
}
