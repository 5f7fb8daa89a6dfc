//! What changes, and how soon others know.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{
    load::{self, Connection, Target, Width},
    machine,
    pgbench::{self, CALLERS},
    process::Contender,
    questions::Question,
    report::{Goal, Measured, Report, Rounds, Row, number},
    seeds,
    world::{self, World},
};

/// How many revoke at once.
const REVOKERS: usize = 8;
const PROCESSES: usize = 3;

/// Revokes at one process, and asks another until that refuses.
pub(crate) async fn revoke(world: &World, report: &mut Report) {
    let seeds = world.seeds().await;
    let count = world.scale(10_000, 500);
    let here = Contender::server("here", &seeds.place, &[], None).await;
    let there = Contender::server("there", &seeds.place, &[], None).await;
    let revoking = here.target(&seeds.admin);
    let asking = there.target(&seeds.verifier());

    let warm: Vec<String> = seeds.fresh(1_000).map(seeds::token).collect();
    world::warmed(&asking, &warm).await;
    let runs = Arc::new(AtomicBool::new(true));
    let load = {
        let (runs, target, question) = (Arc::clone(&runs), asking.clone(), Question::verify(&warm));
        std::thread::spawn(move || {
            let width = Width { connections: 2, streams: 4 };
            let mut answers = 0;
            while runs.load(Ordering::Relaxed) {
                let lasts = Duration::from_millis(500);
                answers += load::closed(&target, &question, width, lasts).right().answers;
            }
            answers
        })
    };
    let rows: Arc<[usize]> = seeds.fresh(count).collect();
    let next = Arc::new(AtomicUsize::new(0));
    let waits = Arc::new(Mutex::new(Histogram::<u64>::new(3).unwrap()));
    let since = Instant::now();
    let revokers: Vec<_> = (0..REVOKERS)
        .map(|_| {
            let (rows, next, waits) = (Arc::clone(&rows), Arc::clone(&next), Arc::clone(&waits));
            let (revoking, asking) = (revoking.clone(), asking.clone());
            tokio::spawn(async move {
                let here = Connection::open(&revoking).await.unwrap();
                let there = Connection::open(&asking).await.unwrap();
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let took = refused_after(&here, &there, *row).await;
                    let nanos = u64::try_from(took.as_nanos()).unwrap();
                    waits.lock().unwrap().record(nanos).unwrap();
                }
            })
        })
        .collect();
    for revoker in revokers {
        revoker.await.unwrap();
    }
    let took = since.elapsed().as_secs_f64();
    runs.store(false, Ordering::Relaxed);
    let answers = load.join().unwrap();
    let waits = waits.lock().unwrap().clone();
    let at = |percentile| waits.value_at_percentile(percentile) as f64 / 1e6;
    report.add(Row {
        what: format!("revoked → refused by another process, p99 of {count}"),
        figure: format!("{:.0} revoked/s", count as f64 / took),
        against: format!("{:.0} calls/s beside", answers as f64 / took),
        measured: Measured::Rounds(Rounds::one(at(99.0)), "ms"),
        goal: Some(Goal::AtMost(50.0)),
    });
    for (percentile, name) in
        [(50.0, "p50"), (90.0, "p90"), (99.9, "p99.9"), (100.0, "the slowest")]
    {
        report.add(Row {
            what: format!("the same, {name}"),
            figure: String::new(),
            against: String::new(),
            measured: Measured::Rounds(Rounds::one(at(percentile)), "ms"),
            goal: None,
        });
    }
    report.curve("revocation acknowledged → refused by another process", waits);
    here.stop().await;
    there.stop().await;
}

/// How long after `here` acknowledged that the token of this row is revoked `there`
/// still took it.
async fn refused_after(here: &Connection, there: &Connection, row: usize) -> Duration {
    let token = [seeds::token(row)];
    let (good, ended) = (Question::verify(&token), Question::refused(&token));
    let ask = async |question: &Question| there.ask(question, question.at(0).unwrap()).await;
    ask(&good).await.expect("it is good and known there");
    let revoke = Question::revoke(std::iter::once(seeds::credential_id(row)));
    here.ask(&revoke, revoke.at(0).unwrap()).await.expect("it is revoked");
    let acknowledged = Instant::now();
    while ask(&ended).await.is_err() {
        assert!(acknowledged.elapsed() < Duration::from_secs(10), "it is refused in the end");
    }
    acknowledged.elapsed()
}

/// Revocations at several processes, against what one client can commit.
pub(crate) async fn sustained(world: &World, report: &mut Report) {
    let seeds = world.seeds().await;
    let mut servers = Vec::new();
    for _ in 0..PROCESSES {
        servers.push(Contender::server("server", &seeds.place, &[], None).await);
    }
    let targets: Vec<Target> = servers.iter().map(|server| server.target(&seeds.admin)).collect();
    let script = pgbench::commit(seeds).await;
    let lasts = world.scale(Duration::from_secs(2), Duration::from_secs(1));
    let mut errors = 0;
    let turns = world.take_turns::<2>(|which| match which {
        0 => {
            let questions: Vec<Question> = targets
                .iter()
                .map(|_| Question::revoke(seeds.fresh(4_000).map(seeds::credential_id)))
                .collect();
            let (rate, failed) = revocations(&targets, &questions, lasts);
            errors += failed;
            rate
        }
        _ => pgbench::rate(seeds, script, 1, lasts),
    });
    report.add(Row {
        what: format!("revocations at {PROCESSES} processes ÷ serial commits, {errors} errors"),
        figure: number(turns.of(0).median(), "/s"),
        against: number(turns.of(1).median(), "/s"),
        measured: Measured::Rounds(turns.ratio(0, 1), ""),
        goal: Some(Goal::AtLeast(0.8)),
    });
    for server in servers {
        server.stop().await;
    }
}

/// Revocations a second at all targets together, and how many failed.
fn revocations(targets: &[Target], questions: &[Question], lasts: Duration) -> (f64, u64) {
    let width = Width { connections: 1, streams: REVOKERS };
    std::thread::scope(|scope| {
        let running: Vec<_> = targets
            .iter()
            .zip(questions)
            .map(|(target, question)| {
                scope.spawn(move || load::closed(target, question, width, lasts))
            })
            .collect();
        running.into_iter().fold((0.0, 0), |(rate, errors), running| {
            let outcome = running.join().unwrap();
            (rate + outcome.rate(), errors + outcome.errors)
        })
    })
}

/// New tokens, of 16 callers.
pub(crate) async fn create(world: &World, report: &mut Report) {
    let seeds = world.seeds().await;
    let server = Contender::server("server", &seeds.place, &[], None).await;
    let target = server.target(&seeds.admin);
    let users: Vec<String> = (0..1_000).map(seeds::user_id).collect();
    let question = Question::create(&users);
    let cores = machine::cpus().len() as f64;
    let lasts = world.lasts();
    load::closed(&target, &question, CALLERS, lasts / 4).right();
    let turns = world.take_turns::<1>(|_| {
        load::closed(&target, &question, CALLERS, lasts).right().rate() / cores
    });
    report.add(Row {
        what: "creates, 16 callers, a second and core".to_owned(),
        figure: number(turns.of(0).median() * cores, "/s"),
        against: format!("{cores} cores"),
        measured: Measured::Rounds(turns.of(0), "/s"),
        goal: Some(Goal::AtLeast(500.0)),
    });
    server.stop().await;
}
