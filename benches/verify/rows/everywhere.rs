//! Revoked at one place, refused at every other: servers, and services that keep answers.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use crate::{
    load::{self, Connection, Target, Width},
    process::Contender,
    questions::Question,
    report::{Goal, Measured, Report, Rounds, Row},
    seeds::{self, Seeds},
    world::{self, World},
};

const SERVERS: usize = 3;
const KEEPERS: usize = 2;

/// How many revoke at once.
const REVOKERS: usize = 4;

/// No call that begins so long after a revocation was acknowledged may miss it.
const BOUND: Duration = Duration::from_secs(2);

/// How much of what was not asked in time is asked later.
const BACKLOG: Duration = Duration::from_millis(10);

/// How many tokens are revoked while one who keeps answers is frozen.
const MEANWHILE: usize = 50;

/// Several servers on one database, and services that keep answers, under load.
struct Everywhere {
    servers: Vec<Contender>,
    keepers: Vec<Contender>,
    admin: String,
    verifier: String,
}

impl Everywhere {
    async fn start(seeds: &Seeds) -> Self {
        let (mut servers, mut keepers) = (Vec::new(), Vec::new());
        for _ in 0..SERVERS {
            servers.push(Contender::server("server", &seeds.place, &[], None).await);
        }
        for _ in 0..KEEPERS {
            keepers.push(Contender::keeper(&servers, &seeds.verifier()).await);
        }
        let (admin, verifier) = (seeds.admin.clone(), seeds.verifier());
        Self { servers, keepers, admin, verifier }
    }

    /// Where is asked: servers first.
    fn asking(&self) -> Vec<Target> {
        let all = self.servers.iter().chain(&self.keepers);
        all.map(|one| one.target(&self.verifier)).collect()
    }

    async fn stop(self) {
        for server in self.servers {
            server.stop().await;
        }
    }
}

/// How many answers a second each of them gives while all are asked without a pause.
fn most(targets: &[Target], question: &Question, lasts: Duration) -> Vec<f64> {
    let width = Width { connections: 1, streams: 1 };
    std::thread::scope(|scope| {
        let ask = |target| scope.spawn(move || load::closed(target, question, width, lasts));
        let asking: Vec<_> = targets.iter().map(ask).collect();
        asking.into_iter().map(|thread| thread.join().unwrap().right().rate()).collect()
    })
}

/// A load of good tokens at each of them, until it is told to stop.
struct Load {
    runs: Arc<AtomicBool>,
    tasks: JoinSet<u64>,
}

impl Load {
    /// Asks each so often a second, unless it is slower.
    fn start(targets: &[Target], question: &Question, rates: &[f64]) -> Self {
        let runs = Arc::new(AtomicBool::new(true));
        let ask = |(target, rate): (&Target, &f64)| {
            let (runs, target, question) = (Arc::clone(&runs), target.clone(), question.clone());
            let pause = Duration::from_secs_f64(1.0 / rate);
            async move {
                let connection = Connection::open(&target).await.unwrap();
                let (mut answers, mut due) = (0, Instant::now());
                for message in (0..).map_while(|at| question.at(at)) {
                    if !runs.load(Ordering::Relaxed) {
                        break;
                    }
                    tokio::time::sleep_until(due.into()).await;
                    answers += connection.ask(&question, message).await.expect("it is right");
                    due = (due + pause).max(Instant::now() - BACKLOG);
                }
                answers
            }
        };
        Self { runs: Arc::clone(&runs), tasks: targets.iter().zip(rates).map(ask).collect() }
    }

    /// How many answers there were, all of them right.
    async fn stop(self) -> u64 {
        self.runs.store(false, Ordering::Relaxed);
        self.tasks.join_all().await.into_iter().sum()
    }
}

/// Revokes at servers in turn, and asks everywhere else until all refuse.
pub(crate) async fn everywhere(world: &World, report: &mut Report) {
    let seeds = world.seeds().await;
    let count = world.scale(10_000, 300);
    let all = Everywhere::start(seeds).await;
    let asking = all.asking();
    let warm: Vec<String> = seeds.fresh(1_000).map(seeds::token).collect();
    for target in &asking {
        world::warmed(target, &warm).await;
    }
    // Where every CPU is taken, what is measured is who has to wait for one.
    let warm = Question::verify(&warm);
    let lasts = world.scale(Duration::from_secs(5), Duration::from_secs(1));
    let half: Vec<f64> = most(&asking, &warm, lasts).iter().map(|rate| rate / 2.0).collect();
    let load = Load::start(&asking, &warm, &half);
    let since = Instant::now();
    let [servers, keepers] = revoke(&all, seeds.fresh(count).collect()).await;
    let took = since.elapsed().as_secs_f64();
    let answers = load.stop().await;
    let about = (format!("{:.0} revoked/s", count as f64 / took), answers as f64 / took);
    tell(report, "the other servers", servers, count, &about, Some(Goal::AtMost(50.0)));
    tell(report, "services that keep answers", keepers, count, &about, None);
    frozen(world, &all, seeds, report).await;
    all.stop().await;
}

/// Revokes the tokens of these rows, and gives how long the other servers took them after
/// that, and services that keep answers.
async fn revoke(all: &Everywhere, rows: Arc<[usize]>) -> [Histogram<u64>; 2] {
    let next = Arc::new(AtomicUsize::new(0));
    let waits = Arc::new(Mutex::new([histogram(), histogram()]));
    let mut revokers = JoinSet::new();
    for _ in 0..REVOKERS {
        let (rows, next, waits) = (Arc::clone(&rows), Arc::clone(&next), Arc::clone(&waits));
        let (admin, asking) = (all.admin.clone(), all.asking());
        revokers.spawn(async move {
            let mut asked = Vec::new();
            let mut revoking = Vec::new();
            for target in &asking {
                asked.push(Arc::new(Connection::open(target).await.unwrap()));
            }
            for target in &asking[..SERVERS] {
                let target = Target { bearer: admin.clone(), ..target.clone() };
                revoking.push(Connection::open(&target).await.unwrap());
            }
            while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                // Which comes in no order that any of them could know.
                let here = (row.wrapping_mul(0x9e37_79b9) >> 7) % SERVERS;
                let took = refused_after(&revoking[here], here, &asked, *row).await;
                let mut waits = waits.lock().unwrap();
                for (place, took) in took {
                    let nanos = u64::try_from(took.as_nanos()).unwrap();
                    waits[usize::from(place >= SERVERS)].record(nanos).unwrap();
                }
            }
        });
    }
    while let Some(revoker) = revokers.join_next().await {
        revoker.unwrap();
    }
    let waits = waits.lock().unwrap();
    waits.clone()
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).unwrap()
}

fn tell(
    report: &mut Report,
    who: &str,
    waits: Histogram<u64>,
    count: usize,
    (rate, beside): &(String, f64),
    goal: Option<Goal>,
) {
    let at = |percentile| waits.value_at_percentile(percentile) as f64 / 1e6;
    let rows = [
        (99.0, format!("revoked anywhere → refused by {who}, p99 of {count}"), goal),
        (50.0, "the same, p50".to_owned(), None),
        (100.0, "the same, the slowest".to_owned(), Some(Goal::AtMost(BOUND.as_secs_f64() * 1e3))),
    ];
    for (percentile, what, goal) in rows {
        report.add(Row {
            what,
            figure: rate.clone(),
            against: format!("{beside:.0} calls/s beside"),
            measured: Measured::Rounds(Rounds::one(at(percentile)), "ms"),
            goal,
        });
    }
    report.curve(format!("revocation acknowledged → refused by {who}"), waits);
}

/// How long after the acknowledgement the token of this row was still taken, in each place
/// but the one where it was revoked.
async fn refused_after(
    revoking: &Connection,
    here: usize,
    asked: &[Arc<Connection>],
    row: usize,
) -> Vec<(usize, Duration)> {
    let token = [seeds::token(row)];
    let good = Question::verify(&token);
    for connection in asked {
        connection.ask(&good, good.at(0).unwrap()).await.expect("it is good and kept there");
    }
    let revoke = Question::revoke(std::iter::once(seeds::credential_id(row)));
    revoking.ask(&revoke, revoke.at(0).unwrap()).await.expect("it is revoked");
    let acknowledged = Instant::now();
    let mut refusing = JoinSet::new();
    for (place, connection) in asked.iter().enumerate().filter(|(place, _)| *place != here) {
        let (connection, ended) = (Arc::clone(connection), Question::refused(&token));
        refusing.spawn(async move {
            loop {
                let begun = acknowledged.elapsed();
                if connection.ask(&ended, ended.at(0).unwrap()).await.is_ok() {
                    return (place, acknowledged.elapsed());
                }
                assert!(begun <= BOUND, "asked {begun:?} after it was revoked, and taken");
                // Whoever asks without a pause measures how long it waits for itself.
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
    refusing.join_all().await
}

/// One who keeps answers is frozen, tokens are revoked that it keeps, and it goes on.
async fn frozen(world: &World, all: &Everywhere, seeds: &Seeds, report: &mut Report) {
    let lasts = world.scale(Duration::from_mins(1), Duration::from_secs(3));
    let rows: Vec<usize> = seeds.fresh(MEANWHILE).collect();
    let tokens: Vec<String> = rows.iter().copied().map(seeds::token).collect();
    let keeper = &all.keepers[0];
    let (good, ended) = (Question::verify(&tokens), Question::refused(&tokens));
    let asked = Connection::open(&keeper.target(&all.verifier)).await.unwrap();
    for _ in 0..2 {
        for place in 0..MEANWHILE {
            asked.ask(&good, good.at(place).unwrap()).await.expect("it is good and kept there");
        }
    }
    keeper.signal("STOP").await;
    let since = Instant::now();
    let revoking = Connection::open(&all.servers[0].target(&all.admin)).await.unwrap();
    let revoke = Question::revoke(rows.into_iter().map(seeds::credential_id));
    for place in 0..MEANWHILE {
        revoking.ask(&revoke, revoke.at(place).unwrap()).await.expect("it is revoked");
    }
    tokio::time::sleep(lasts.saturating_sub(since.elapsed())).await;
    // What is asked before it goes on is among the first that it sees.
    let asked = Arc::new(asked);
    let mut first = JoinSet::new();
    for place in 0..MEANWHILE {
        let (asked, ended) = (Arc::clone(&asked), ended.clone());
        first.spawn(async move { asked.ask(&ended, ended.at(place).unwrap()).await.is_ok() });
    }
    keeper.signal("CONT").await;
    let taken = first.join_all().await.into_iter().filter(|refused| !refused).count();
    report.add(Row {
        what: format!("frozen for {} s: first calls that took a revoked token", lasts.as_secs()),
        figure: format!("{MEANWHILE} calls"),
        against: String::new(),
        measured: Measured::Rounds(Rounds::one(taken as f64), ""),
        goal: Some(Goal::AtMost(0.0)),
    });
}
