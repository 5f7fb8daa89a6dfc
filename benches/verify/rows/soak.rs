//! Whether anything grows that should not, while weeks pass.

use std::{
    collections::VecDeque,
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use token_authority::{
    proto::v1::{
        CreatePersonalAccessTokenRequest, RotatePersonalAccessTokenRequest, VerifyRequest,
    },
    random,
};

use crate::{
    machine,
    process::Contender,
    report::{Goal, Measured, Report, Rounds, Row, number, say},
    seeds,
    support::client::Client,
    world::World,
};

/// How long it takes, unless `SOAK_SECONDS` says otherwise: what is left of a shorter time
/// says little.
const LASTS: Duration = Duration::from_mins(10);

/// How often it is looked at, since there is most of it right before some is forgotten, and
/// which of these looks are said.
const LOOKS: u32 = 120;
const SAID: u32 = 6;

/// How much faster time passes for the database, and so for the servers, whose clock is its:
/// what is kept for a day is kept for twenty seconds.
const FASTER: u32 = 4_320;

const STORED: usize = 20_000;
const WORKERS: u32 = 8;
/// How many tokens are made a second, if they can be: what there is of them then depends on
/// nothing else.
const PACE: u32 = 100;
const SECOND: Duration = Duration::from_secs(1);
/// How many tokens each worker has that are not revoked.
const LIVE: usize = 200;
/// How many of those that are stored are asked about again and again, from ever new
/// addresses.
const HOT: usize = 20;

/// The cache is full early, so that it is not what grows.
const SETTINGS: [&str; 4] =
    ["--keep-dead=24h", "--keep-changes=24h", "--keep-audit=1d", "--cache-mib=4"];

const TABLES: [&str; 7] =
    ["credentials", "secrets", "changes", "audit", "request_ids", "last_uses", "verifier_uses"];

/// What was there at one moment. Of each table, what the store was filled with counts for
/// nothing.
struct Sample {
    at: Duration,
    /// Of each server, in bytes.
    memory: Vec<f64>,
    /// Of each table, the rows and the bytes on disk.
    tables: Vec<(f64, f64)>,
}

/// Tokens are made, rotated, revoked and asked about at two servers on one database.
pub(crate) async fn soak(world: &World, report: &mut Report) {
    let seconds = env::var("SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let lasts = seconds.map_or(LASTS, Duration::from_secs);
    let seeds = world.sow(STORED).await;
    let mut connection = seeds.connect().await.unwrap();
    // They would be forgotten, which is not the question.
    let dead = "DELETE FROM credentials WHERE expires_at IS NOT NULL";
    sqlx::query(dead).execute(&mut connection).await.unwrap();
    hasten(&mut connection).await;
    let mut servers = Vec::new();
    for name in ["one", "other"] {
        servers.push(Contender::server(name, &seeds.place, &SETTINGS, None).await);
    }

    let stored = sample(&mut connection, &servers, Duration::ZERO).await;
    let (begun, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let mut workers = Vec::new();
    for number in 0..WORKERS as usize {
        let [here, there] = [number, number + 1].map(|at| &servers[at % servers.len()]);
        let worker = Worker {
            here: Client::connect(here.address(), &seeds.admin).await,
            there: Client::connect(there.address(), &seeds.verifier()).await,
            number,
            made: 0,
            live: VecDeque::new(),
        };
        let done = Arc::clone(&done);
        workers.push(tokio::spawn(worker.work(begun, begun + lasts, done)));
    }
    let mut samples: Vec<Sample> = Vec::new();
    for look in 1..=LOOKS {
        tokio::time::sleep_until((begun + lasts * look / LOOKS).into()).await;
        let mut sample = sample(&mut connection, &servers, begun.elapsed()).await;
        for ((rows, _), (stored, _)) in sample.tables.iter_mut().zip(&stored.tables) {
            *rows = (*rows - stored).max(0.0);
        }
        if look.is_multiple_of(SAID) {
            say(&sample.line(done.load(Ordering::Relaxed)));
        }
        samples.push(sample);
    }
    for worker in workers {
        worker.await.unwrap();
    }
    for server in servers {
        server.stop().await;
    }
    tell(&samples, done.load(Ordering::Relaxed), report);
}

/// Has time pass faster for the database: its functions are found before those of the
/// system by whoever connects from now on.
async fn hasten(connection: &mut PgConnection) {
    let name = "SELECT current_database()";
    let name: String = sqlx::query(name).fetch_one(&mut *connection).await.unwrap().get(0);
    let statements = format!(
        "CREATE SCHEMA hastened; CREATE TABLE hastened.since AS SELECT clock_timestamp() AS at; \
         CREATE FUNCTION hastened.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS \
         'SELECT pg_catalog.clock_timestamp() + (pg_catalog.clock_timestamp() - at) * {FASTER} \
         FROM hastened.since'; \
         ALTER DATABASE {name} SET search_path = public, hastened, pg_catalog"
    );
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.unwrap();
}

/// Somebody who makes tokens at one server and asks about them at the other.
struct Worker {
    here: Client,
    there: Client,
    number: usize,
    made: usize,
    /// The ids and texts of those that are not revoked, the oldest first.
    live: VecDeque<(String, String)>,
}

impl Worker {
    async fn work(mut self, since: Instant, until: Instant, done: Arc<AtomicU64>) {
        for turn in 0.. {
            tokio::time::sleep_until((since + turn * WORKERS * SECOND / PACE).into()).await;
            if Instant::now() >= until {
                break;
            }
            let (id, mut text) = self.create().await;
            self.is_good(&text).await;
            if self.made.is_multiple_of(2) {
                text = self.rotated(&id).await;
                self.is_good(&text).await;
            }
            self.live.push_back((id, text));
            let old = self.live[self.made % self.live.len()].1.clone();
            self.is_good(&old).await;
            let hot = seeds::token(1 + seeds::EXPIRED + self.made % HOT);
            self.is_good(&hot).await;
            if self.live.len() > LIVE
                && let Some((id, text)) = self.live.pop_front()
            {
                self.here.revoke(&id).await.unwrap();
                assert!(!self.asked(&self.here, &text).await, "it is revoked");
            }
            done.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn create(&mut self) -> (String, String) {
        self.made += 1;
        let mut id = random::bytes::<16>();
        // So that it is a UUID.
        (id[6], id[8]) = (id[6] & 0x0f | 0x40, id[8] & 0x3f | 0x80);
        let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let request_id = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        let request = CreatePersonalAccessTokenRequest {
            name: "of a soak".to_owned(),
            user_id: Some(seeds::user_id(self.number + WORKERS as usize * self.made)),
            request_id: Some(request_id),
            ..Default::default()
        };
        let made = self.here.tokens().create_personal_access_token(request).await.unwrap();
        let made = made.into_inner();
        (made.personal_access_token.unwrap().id, made.token)
    }

    async fn rotated(&self, id: &str) -> String {
        let request = RotatePersonalAccessTokenRequest { id: id.to_owned(), ..Default::default() };
        let rotated = self.here.tokens().rotate_personal_access_token(request).await;
        rotated.unwrap().into_inner().token
    }

    async fn is_good(&self, text: &str) {
        assert!(self.asked(&self.there, text).await, "it is good");
    }

    /// What is said of a token, from an address that is new.
    async fn asked(&self, client: &Client, text: &str) -> bool {
        let [a, b, c] = random::bytes::<3>();
        let request = VerifyRequest {
            token: text.to_owned(),
            client_ip: Some(format!("10.{a}.{b}.{c}")),
            ..Default::default()
        };
        client.verification().verify(request).await.unwrap().into_inner().active
    }
}

async fn sample(connection: &mut PgConnection, servers: &[Contender], at: Duration) -> Sample {
    let mut tables = Vec::new();
    for table in TABLES {
        let statement = format!(
            "SELECT CAST(count(*) AS FLOAT8), \
             CAST(pg_total_relation_size('{table}') AS FLOAT8) FROM {table}"
        );
        let row = sqlx::query(AssertSqlSafe(statement)).fetch_one(&mut *connection).await.unwrap();
        tables.push((row.get(0), row.get(1)));
    }
    let memory = servers.iter().map(|server| machine::memory(server.id())).collect();
    Sample { at, memory, tables }
}

const MEBI: f64 = 1_048_576.0;

impl Sample {
    fn line(&self, done: u64) -> String {
        let days = self.at.as_secs_f64() * f64::from(FASTER) / 86_400.0;
        let memory: Vec<String> =
            self.memory.iter().map(|bytes| format!("{:.1}", bytes / MEBI)).collect();
        let tables = TABLES.iter().zip(&self.tables);
        let tables: Vec<String> = tables
            .map(|(name, (rows, bytes))| format!("{name} {rows} ({:.0} MiB)", bytes / MEBI))
            .collect();
        format!(
            "({:.0} s, {days:.0} days, {done} tokens made; servers {} MiB; {})",
            self.at.as_secs_f64(),
            memory.join(" and "),
            tables.join(", ")
        )
    }
}

/// By which factor a figure grows over the second half, as the line through it says, against
/// where that begins.
fn growth(samples: &[Sample], figure: impl Fn(&Sample) -> f64) -> f64 {
    let half = &samples[samples.len() / 2..];
    let points: Vec<(f64, f64)> =
        half.iter().map(|sample| (sample.at.as_secs_f64(), figure(sample))).collect();
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let products = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum::<f64>();
    let squares = points.iter().map(|point| (point.0 - x).powi(2)).sum::<f64>();
    let slope = products / squares;
    let [first, last] = [points[0].0, points[points.len() - 1].0].map(|at| y + slope * (at - x));
    last / first
}

fn tell(samples: &[Sample], done: u64, report: &mut Report) {
    let last = &samples[samples.len() - 1];
    let seconds = last.at.as_secs_f64();
    for (server, name) in ["one server", "the other"].into_iter().enumerate() {
        let grown = (growth(samples, |sample| sample.memory[server]) - 1.0) * 100.0;
        report.add(Row {
            what: format!("memory of {name}, growth over the second half"),
            figure: format!("{:.1} MiB", last.memory[server] / MEBI),
            against: format!("{:.0} tokens/s, {seconds:.0} s", done as f64 / seconds),
            measured: Measured::Rounds(Rounds::one(grown), "%"),
            goal: Some(Goal::AtMost(5.0)),
        });
    }
    let (before, after) = samples.split_at(samples.len() / 2);
    for (table, name) in TABLES.into_iter().enumerate() {
        let most = |half: &[Sample], bytes: bool| {
            let figures = half.iter().map(|sample| sample.tables[table]);
            figures.map(|(rows, size)| if bytes { size } else { rows }).fold(0.0, f64::max)
        };
        report.add(Row {
            what: format!("most rows of {name}, second half ÷ first"),
            figure: format!(
                "{} ({:.1} MiB)",
                number(most(after, false), "rows"),
                most(after, true) / MEBI
            ),
            against: format!(
                "{} ({:.1} MiB)",
                number(most(before, false), "rows"),
                most(before, true) / MEBI
            ),
            measured: Measured::Rounds(Rounds::one(most(after, false) / most(before, false)), ""),
            goal: Some(Goal::AtMost(1.25)),
        });
    }
}
