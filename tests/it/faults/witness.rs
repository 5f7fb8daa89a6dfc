//! Who has servers asked and changed all the time, and holds them to what they said.

use std::{
    collections::BTreeMap,
    error::Error as _,
    io::Write as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use token_authority::{
    proto::v1::{
        BatchVerifyRequest, Consistency, RotatePersonalAccessTokenRequest, VerifyRequest,
        VerifyResponse, batch_verify_result::Result as Answered, consistency::Requirement,
    },
    random,
};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::{MissedTickBehavior, timeout},
};
use tonic::{Code, Status};

use crate::support::{client::Client, wait::until};

/// How old an answer of the servers may be: calls that begin so long after a change was
/// acknowledged see it.
pub(super) const BOUND: Duration = Duration::from_millis(500);

/// Longer than anything here takes.
pub(super) const SOON: Duration = Duration::from_secs(60);

/// How often each server is asked.
const EVERY: Duration = Duration::from_millis(15);

/// How long one who changes something waits for the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Of how many one is asked about.
const LAST: usize = 15;

/// How many change something at the same time.
const WRITERS: usize = 2;

/// What is known of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is good, and its end was not asked for.
    Good,
    /// Its end was asked for: it may be good or not.
    Ending,
    /// Its end was acknowledged then.
    Ended(Instant),
    /// Only a database that is lost may know of it, or of its end.
    MayBeLost,
}

struct Secret {
    text: String,
    /// Of its token.
    id: String,
    state: State,
}

/// What was said.
#[derive(Default)]
struct Ledger {
    secrets: Vec<Secret>,
    /// Whether what is acknowledged now may be lost.
    loses: bool,
    /// The server at which nothing is changed, and how many changes are under way at each.
    spared: Option<usize>,
    under_way: Vec<usize>,
    /// How many changes were acknowledged, and how many ended otherwise.
    changes: usize,
    unknown: usize,
    /// How often each server answered a question, and could not.
    answers: Vec<usize>,
    faults: Vec<usize>,
    /// What was said instead of an answer, and how often.
    excuses: BTreeMap<String, usize>,
    /// What must not have been said.
    wrong: Vec<String>,
}

/// Asks and changes until it is finished.
pub(super) struct Witness {
    seen: Arc<Seen>,
    working: Vec<JoinHandle<()>>,
}

struct Seen {
    ledger: Mutex<Ledger>,
    /// How each server is reached.
    clients: Mutex<Vec<Client>>,
    is_over: tokio::sync::watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn below(count: usize) -> usize {
    u32::from_ne_bytes(random::bytes()) as usize % count
}

/// What it says, from its code to its last cause.
fn excuse(status: &Status) -> String {
    let mut told = format!("{:?}", status.code());
    let mut cause = status.source();
    while let Some(error) = cause {
        told = format!("{:?}: {error}", status.code());
        cause = error.source();
    }
    told
}

/// Whether it says that the question or change could not be answered or made; what has a
/// source the client says itself, of a connection that was lost.
fn is_fault(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded) || status.source().is_some()
}

impl Witness {
    /// Of servers that are reached so.
    pub(super) fn of(clients: Vec<Client>) -> Self {
        let count = clients.len();
        let ledger = Ledger {
            answers: vec![0; count],
            faults: vec![0; count],
            under_way: vec![0; count],
            ..Ledger::default()
        };
        let seen = Arc::new(Seen {
            ledger: Mutex::new(ledger),
            clients: Mutex::new(clients),
            is_over: tokio::sync::watch::Sender::new(false),
        });
        let asking = (0..count).map(|server| tokio::spawn(Arc::clone(&seen).ask_on(server)));
        let writing = (0..WRITERS).map(|_| tokio::spawn(Arc::clone(&seen).change_on()));
        let working = asking.chain(writing).collect();
        Self { seen, working }
    }

    /// From now on a server is reached so.
    pub(super) fn reach(&self, server: usize, client: Client) {
        lock(&self.seen.clients)[server] = client;
    }

    /// Whether what is acknowledged from now on may be lost.
    pub(super) fn loses(&self, loses: bool) {
        lock(&self.seen.ledger).loses = loses;
    }

    /// Has nothing changed at a server, or at each again; and waits until nothing is
    /// under way there.
    pub(super) async fn spare(&self, server: Option<usize>) {
        lock(&self.seen.ledger).spared = server;
        let Some(server) = server else { return };
        until("nothing is under way", SOON, async || {
            lock(&self.seen.ledger).under_way[server] == 0
        })
        .await;
    }

    /// How often each server answered, and how many changes were acknowledged.
    pub(super) fn counts(&self) -> (Vec<usize>, usize) {
        let ledger = lock(&self.seen.ledger);
        (ledger.answers.clone(), ledger.changes)
    }

    /// How often a server could not answer.
    pub(super) fn faults(&self, server: usize) -> usize {
        lock(&self.seen.ledger).faults[server]
    }

    /// Waits until so many more changes were acknowledged.
    pub(super) async fn changes(&self, more: usize) {
        let enough = self.counts().1 + more;
        until("changes are acknowledged", SOON, async || self.counts().1 >= enough).await;
    }

    /// Waits until each server has answered questions that began later than the bound after
    /// changes which were acknowledged from now on.
    pub(super) async fn settle(&self) {
        self.changes(40).await;
        let since = Instant::now();
        until("the bound is over", SOON, async || since.elapsed() > BOUND).await;
        let enough: Vec<usize> = self.counts().0.iter().map(|count| count + 30).collect();
        until("all servers answer", SOON, async || {
            self.counts().0.iter().zip(&enough).all(|(count, enough)| count >= enough)
        })
        .await;
    }

    /// Has each server make changes and know of them.
    pub(super) async fn all_get_on(&self) {
        let servers = lock(&self.seen.clients).len();
        for server in 0..servers {
            until("it gets on", SOON, async || self.seen.gets_on(server).await).await;
        }
    }

    /// Waits until each server answers and makes changes again, and prints how long that
    /// took since the end of what was wrong.
    pub(super) async fn recovered(&self, what: &str, since: Instant) {
        let servers = lock(&self.seen.clients).len();
        let recovering: JoinSet<_> = (0..servers)
            .map(|server| {
                let seen = Arc::clone(&self.seen);
                async move {
                    while !seen.gets_on(server).await {
                        assert!(since.elapsed() < SOON, "server {server} does not get on");
                        tokio::time::sleep(EVERY).await;
                    }
                    since.elapsed()
                }
            })
            .collect();
        let mut took = recovering.join_all().await;
        took.sort_unstable();
        let took: Vec<String> =
            took.iter().map(|took| format!("{:.0} ms", took.as_secs_f64() * 1e3)).collect();
        say(&format!("{what}: servers recovered within {}", took.join(", ")));
    }

    /// Ends it, and sees to it that nothing was said that must not be, and that all
    /// servers know of all that was acknowledged.
    /// Another server, which has just been started, is asked about them, too.
    pub(super) async fn finish(self, what: &str, new: Client) {
        self.spare(None).await;
        self.settle().await;
        self.seen.is_over.send_replace(true);
        for working in self.working {
            working.await.unwrap();
        }
        let mut clients = lock(&self.seen.clients).clone();
        clients.push(new);
        let mut told = Vec::new();
        for client in &clients {
            told.push(self.seen.all_of(client).await);
        }
        let mut ledger = lock(&self.seen.ledger);
        let Ledger { secrets, wrong, .. } = &mut *ledger;
        for (place, secret) in secrets.iter().enumerate() {
            let active: Vec<bool> = told.iter().map(|told| told[place]).collect();
            let is_right = match secret.state {
                State::Good => active.iter().all(|active| *active),
                State::Ended(_) => !active.contains(&true),
                State::Ending | State::MayBeLost => active.iter().all(|each| *each == active[0]),
            };
            if !is_right {
                wrong.push(format!("at the end {:?} is active: {active:?}", secret.state));
            }
        }
        let Ledger { changes, unknown, answers, faults, excuses, wrong, .. } = &*ledger;
        say(&format!(
            "{what}: {changes} changes acknowledged, {unknown} not; \
             answers {answers:?}, no answers {faults:?} {excuses:?}"
        ));
        assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), &wrong[..wrong.len().min(5)]);
    }
}

pub(super) fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

impl Seen {
    fn client(&self, server: usize) -> Client {
        lock(&self.clients)[server].clone()
    }

    fn is_over(&self) -> bool {
        *self.is_over.borrow()
    }

    /// Asks a server again and again, without waiting for its answers.
    async fn ask_on(self: Arc<Self>, server: usize) {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = JoinSet::new();
        while !self.is_over() {
            ticks.tick().await;
            if let Some((place, text)) = self.choose_to_ask() {
                let (seen, client) = (Arc::clone(&self), self.client(server));
                asked.spawn(async move {
                    let begun = Instant::now();
                    match timeout(SOON, client.verify(&text)).await {
                        Ok(answer) => seen.judge(server, place, begun, answer),
                        Err(_) => seen.is_wrong(format!("server {server} does not answer")),
                    }
                });
            }
            while asked.try_join_next().is_some() {}
        }
        asked.join_all().await;
    }

    /// One of those that ended last, of those that are good, or any.
    fn choose_to_ask(&self) -> Option<(usize, String)> {
        let ledger = lock(&self.ledger);
        let asked: fn(State) -> bool = match below(8) {
            0..5 => |state| matches!(state, State::Ended(_) | State::Ending),
            5..7 => |state| state == State::Good,
            _ => |_| true,
        };
        let secrets = ledger.secrets.iter().enumerate().rev();
        let last: Vec<_> = secrets.filter(|(_, secret)| asked(secret.state)).take(LAST).collect();
        let (place, secret) = last.get(below(last.len().max(1)))?;
        Some((*place, secret.text.clone()))
    }

    fn judge(
        &self,
        server: usize,
        place: usize,
        begun: Instant,
        answer: Result<VerifyResponse, Status>,
    ) {
        let mut ledger = lock(&self.ledger);
        let wrong = match (answer, ledger.secrets[place].state) {
            (Ok(told), State::Ended(at)) if told.active && begun > at + BOUND => {
                format!("accepted by a call that began {:?} after its end", begun - at)
            }
            (Ok(told), State::Good) if !told.active => format!("good, but told {told:?}"),
            (Ok(_), _) => {
                ledger.answers[server] += 1;
                return;
            }
            (Err(status), _) if is_fault(&status) => {
                ledger.faults[server] += 1;
                *ledger.excuses.entry(excuse(&status)).or_default() += 1;
                return;
            }
            (Err(status), _) => format!("{status:?}"),
        };
        ledger.wrong.push(format!("server {server}: {wrong}"));
    }

    fn is_wrong(&self, what: String) {
        lock(&self.ledger).wrong.push(what);
    }

    /// Makes changes at one server or another.
    async fn change_on(self: Arc<Self>) {
        while !self.is_over() {
            let servers = lock(&self.clients).len();
            let server = below(servers);
            {
                let mut ledger = lock(&self.ledger);
                if ledger.spared == Some(server) {
                    continue;
                }
                ledger.under_way[server] += 1;
            }
            self.change(server).await;
            lock(&self.ledger).under_way[server] -= 1;
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn change(&self, server: usize) {
        let client = self.client(server);
        let lost = lock(&self.ledger).loses;
        let ended = if below(3) > 0 { self.begin_to_end() } else { None };
        let made = match &ended {
            None => self.heard(timeout(PATIENCE, create(&client)).await),
            Some((_, id)) if below(3) == 0 => {
                self.heard(timeout(PATIENCE, rotate(&client, id)).await)
            }
            Some((_, id)) => self.heard(timeout(PATIENCE, revoke(&client, id)).await),
        };
        let Some(made) = made else { return };
        let mut ledger = lock(&self.ledger);
        ledger.changes += 1;
        let lost = lost || ledger.loses;
        if let Some((place, _)) = ended {
            let ended = if lost { State::MayBeLost } else { State::Ended(Instant::now()) };
            ledger.secrets[place].state = ended;
        }
        if let Some((id, text)) = made {
            let state = if lost { State::MayBeLost } else { State::Good };
            ledger.secrets.push(Secret { text, id, state });
        }
    }

    /// A good one, whose end is asked for now.
    fn begin_to_end(&self) -> Option<(usize, String)> {
        let mut ledger = lock(&self.ledger);
        let good: Vec<usize> = (0..ledger.secrets.len())
            .filter(|place| ledger.secrets[*place].state == State::Good)
            .collect();
        // Those end that were good for longest: each server keeps them by now.
        if good.len() < 20 {
            return None;
        }
        let place = good[below(5)];
        ledger.secrets[place].state = State::Ending;
        Some((place, ledger.secrets[place].id.clone()))
    }

    /// What a change gave, unless it is not known what became of it.
    fn heard<T>(
        &self,
        answer: Result<Result<T, Status>, tokio::time::error::Elapsed>,
    ) -> Option<T> {
        let mut ledger = lock(&self.ledger);
        match answer {
            Ok(Ok(made)) => return Some(made),
            Ok(Err(status)) if !is_fault(&status) => ledger.wrong.push(format!("{status:?}")),
            Ok(Err(_)) | Err(_) => {}
        }
        ledger.unknown += 1;
        None
    }

    /// Whether a server answers and makes changes.
    async fn gets_on(&self, server: usize) -> bool {
        let client = self.client(server);
        let got_on = async {
            let (id, text) = create(&client).await?.expect("one is made");
            let good = ask_for_sure(&client, &text).await?;
            revoke(&client, &id).await?;
            Ok::<_, Status>(good && !ask_for_sure(&client, &text).await?)
        };
        match timeout(5 * PATIENCE, got_on).await {
            Ok(Ok(is_right)) => {
                if !is_right {
                    self.is_wrong(format!("server {server} does not know what it did"));
                }
                true
            }
            Ok(Err(status)) if !is_fault(&status) => {
                self.is_wrong(format!("{status:?}"));
                false
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    /// Whether each secret is active, as it is now.
    async fn all_of(&self, client: &Client) -> Vec<bool> {
        let texts: Vec<String> =
            lock(&self.ledger).secrets.iter().map(|secret| secret.text.clone()).collect();
        let mut told = Vec::new();
        for texts in texts.chunks(1000) {
            let requests = texts.iter().map(|text| question(text)).collect();
            let request = BatchVerifyRequest { requests, consistency: for_sure() };
            let answer = client.verification().batch_verify(request).await.unwrap().into_inner();
            for result in answer.results {
                let Some(Answered::Response(answer)) = result.result else { panic!("{result:?}") };
                told.push(answer.active);
            }
        }
        told
    }
}

fn question(text: &str) -> VerifyRequest {
    VerifyRequest { token: text.to_owned(), ..Default::default() }
}

fn for_sure() -> Option<Consistency> {
    let requirement = Some(Requirement::FullyConsistent(true));
    Some(Consistency { requirement, max_stale: None })
}

async fn ask_for_sure(client: &Client, text: &str) -> Result<bool, Status> {
    let request = VerifyRequest { consistency: for_sure(), ..question(text) };
    Ok(client.verification().verify(request).await?.into_inner().active)
}

/// The id and the secret of a new token.
type New = Option<(String, String)>;

async fn create(client: &Client) -> Result<New, Status> {
    let made = client.create("of a witness").await?;
    Ok(Some((made.personal_access_token.unwrap().id, made.token)))
}

async fn rotate(client: &Client, id: &str) -> Result<New, Status> {
    let overlap = Some(prost_types::Duration::default());
    let request =
        RotatePersonalAccessTokenRequest { id: id.to_owned(), overlap, ..Default::default() };
    let made = client.tokens().rotate_personal_access_token(request).await?.into_inner();
    Ok(Some((id.to_owned(), made.token)))
}

async fn revoke(client: &Client, id: &str) -> Result<New, Status> {
    client.revoke(id).await?;
    Ok(None)
}
