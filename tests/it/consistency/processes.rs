//! Several processes on one database: a change made at one is seen at the others.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use sqlx::{Connection as _, PgConnection};
use token_authority::proto::v1::BatchVerifyRequest;
use tokio::task::JoinSet;
use tonic::Code;

use super::*;
use crate::support::{
    postgres::Replicated, process::Process, relay::Relay, server::refused, wait::until,
};

const SOON: Duration = Duration::from_secs(20);

/// Two processes on one database.
struct Two {
    here: Client,
    there: Client,
    processes: [Process; 2],
    place: Place,
}

impl Two {
    async fn start(more: &[&str]) -> Self {
        let place = Place::new(Engine::Postgres).await;
        let start =
            || Process::start(place.arguments().into_iter().chain(more.iter().map(Into::into)));
        let processes = [start().await, start().await];
        let admin = place.admin_token();
        let here = Client::connect(processes[0].address, &admin).await;
        let there = Client::connect(processes[1].address, &admin).await;
        Self { here, there, processes, place }
    }

    async fn stop(self) {
        for process in self.processes {
            process.stop().await;
        }
        drop(self.place);
    }
}

/// How long after `acknowledged` a change was first seen: no call that begins later
/// than the bound may miss it.
async fn seen(
    by: &Client,
    question: &VerifyRequest,
    acknowledged: Instant,
    is_seen: impl Fn(&VerifyResponse) -> bool,
) -> Duration {
    loop {
        let begun = acknowledged.elapsed();
        let told = ask(by, question).await.unwrap();
        if is_seen(&told) {
            return acknowledged.elapsed();
        }
        assert!(begun <= BOUND, "asked {begun:?} after the change: {told:?}");
    }
}

/// Prints how long it took, and how long at the most.
fn print(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let milliseconds = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
    let line = format!(
        "{what}: seen elsewhere after p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms ({})\n",
        milliseconds(50),
        milliseconds(99),
        milliseconds(100),
        took.len(),
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_tokens_are_refused_elsewhere_within_the_bound() {
    const TASKS: usize = 5;
    const EACH: usize = 100;
    let two = Two::start(&[]).await;
    let owner = user(&two.here, "alice").await;
    let made: JoinSet<_> = (0..TASKS)
        .map(|_| {
            let (here, owner) = (two.here.clone(), owner.clone());
            async move {
                let mut made = Vec::new();
                for _ in 0..EACH {
                    made.push(token(&here, &owner, &[], None).await);
                }
                made
            }
        })
        .collect();
    let made = made.join_all().await;

    // Load, of a token that lives.
    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let lives = token(&two.here, &owner, &[], None).await.token;
    let load: JoinSet<_> = (0..4)
        .map(|_| {
            let (there, lives) = (two.there.clone(), lives.clone());
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            async move {
                while !stop.load(Ordering::SeqCst) {
                    assert!(there.verify(&lives).await.unwrap().active);
                    answered.fetch_add(1, Ordering::SeqCst);
                }
            }
        })
        .collect();
    let tasks: JoinSet<_> = made
        .into_iter()
        .map(|made| {
            let (here, there) = (two.here.clone(), two.there.clone());
            async move {
                let requests: Vec<_> = made.iter().map(|made| question(&made.token)).collect();
                let request = BatchVerifyRequest { requests, ..Default::default() };
                there.verification().batch_verify(request).await.unwrap();
                let mut took = Vec::new();
                for made in made {
                    let asked = question(&made.token);
                    assert!(ask(&there, &asked).await.unwrap().active);
                    here.revoke(&id_of(&made)).await.unwrap();
                    let acknowledged = Instant::now();
                    let is_seen = |told: &VerifyResponse| told.reason() == Reason::Revoked;
                    took.push(seen(&there, &asked, acknowledged, is_seen).await);
                }
                took
            }
        })
        .collect();
    let took = tasks.join_all().await.concat();
    stop.store(true, Ordering::SeqCst);
    load.join_all().await;
    assert_eq!(took.len(), TASKS * EACH);
    print("revocations", took);
    assert!(answered.load(Ordering::SeqCst) > 0, "there was other load");
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_seen_elsewhere_within_the_bound() {
    let two = Two::start(&[]).await;
    let mut took = Vec::new();
    for (number, change) in Change::ALL.into_iter().enumerate() {
        let subject = Subject::of(change, &two.here, &format!("of{number}")).await;
        for _ in 0..2 {
            assert!(ask(&two.there, &subject.question).await.unwrap().active, "{change:?}");
        }
        subject.change(&two.here).await;
        let acknowledged = Instant::now();
        let is_seen = |told: &VerifyResponse| change.is_seen(told);
        took.push(seen(&two.there, &subject.question, acknowledged, is_seen).await);
    }
    print("changes of each kind", took);
    two.stop().await;
}

/// A process that was stopped knows by its clock that it missed something.
#[tokio::test(flavor = "multi_thread")]
async fn process_that_was_frozen_refuses_what_was_revoked_meanwhile() {
    const SHORT: Duration = Duration::from_millis(200);
    let two = Two::start(&["--max-staleness=200ms"]).await;
    let owner = user(&two.here, "alice").await;
    for _ in 0..5 {
        let made = token(&two.here, &owner, &[], None).await;
        for _ in 0..2 {
            assert!(two.there.verify(&made.token).await.unwrap().active);
        }
        two.processes[1].signal("STOP").await;
        two.here.revoke(&id_of(&made)).await.unwrap();
        let acknowledged = Instant::now();
        until("the bound is over", SOON, async || acknowledged.elapsed() > SHORT).await;
        // Asked while it is frozen: what it finds when it wakes.
        let asked = tokio::spawn({
            let (there, token) = (two.there.clone(), made.token.clone());
            async move { there.verify(&token).await.unwrap() }
        });
        tokio::task::yield_now().await;
        two.processes[1].signal("CONT").await;
        assert_eq!(asked.await.unwrap().reason(), Reason::Revoked);
    }
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_be_known_is_known_whoever_changed_it() {
    let first = TestServer::start_with(Engine::Postgres, &[LONG]).await;
    let (relay, through) = Relay::to(url_of(&first));
    let second = beside(&first, through, &[LONG]).await;
    let (here, there) = (client(&first), client(&second));
    let owner = user(&here, "alice").await;
    for requirement in [None, fully()] {
        for _ in 0..10 {
            let made = token(&here, &owner, &[], None).await;
            for _ in 0..2 {
                assert!(there.verify(&made.token).await.unwrap().active);
            }
            let revision = here.revoke(&id_of(&made)).await.unwrap().revision;
            let asked = requirement.clone().or(at_least(&revision));
            let told = ask(&there, &asking(&made.token, asked, None)).await.unwrap();
            assert_eq!(told.reason(), Reason::Revoked);
        }
    }
    // It is the same history for both, and its future is nobody's.
    let last = token(&here, &owner, &[], None).await;
    let head = here.revoke(&id_of(&last)).await.unwrap().revision;
    let (number, mark) = head.split_once('-').unwrap();
    let next: i64 = number.parse::<i64>().unwrap() + 1;
    for unreachable in [format!("{next}-{mark}"), format!("{number}-0000000000000000")] {
        let answer = ask(&there, &asking(&first.admin, at_least(&unreachable), None)).await;
        let expected = (Code::FailedPrecondition, "REVISION_UNREACHABLE".to_owned());
        assert_eq!(refused(answer), expected);
    }
    // What is known needs no look at the store.
    assert!(ask(&there, &asking(&first.admin, at_least(&head), None)).await.unwrap().active);
    let before = relay.ran(LOOKUP);
    for _ in 0..10 {
        assert!(ask(&there, &asking(&first.admin, at_least(&head), None)).await.unwrap().active);
    }
    assert_eq!(relay.ran(LOOKUP), before);
    second.stop().await;
    first.stop().await;
}

/// A fail-over after which the old database was not stopped, and was changed: whoever
/// comes from one of them to the other notices.
#[tokio::test(flavor = "multi_thread")]
async fn databases_that_went_different_ways_are_told_apart() {
    let databases = Replicated::start().await;
    let (old, new) = (databases.primary(), databases.standby());
    let mut place = Place::new(Engine::Sqlite).await;
    let (mut relay, through) = Relay::to(&old);
    place.database_url = Some(through);
    let server = TestServer::start_on(place, &[]).await;
    let by = client(&server);
    let owner = user(&by, "alice").await;
    let [dies_there, dies_here, last] = {
        let made = async || token(&by, &owner, &[], None).await;
        [made().await, made().await, made().await]
    };
    by.revoke(&id_of(&last)).await.unwrap();
    let mut copy = PgConnection::connect(&new).await.unwrap();
    until("the copy has it", SOON, async || {
        let revision = sqlx::query_scalar("SELECT number FROM revision").fetch_one(&mut copy);
        revision.await.is_ok_and(|number: i64| number == 1)
    })
    .await;
    databases.promote_standby().await;

    let elsewhere = beside(&server, old.clone(), &[]).await;
    client(&elsewhere).revoke(&id_of(&dies_there)).await.unwrap();
    relay.turn_to(&new).await;
    until("it is revoked", SOON, async || by.revoke(&id_of(&dies_here)).await.is_ok()).await;
    for (url, dead, alive) in [
        (&new, &dies_here, &dies_there),
        (&old, &dies_there, &dies_here),
        (&new, &dies_here, &dies_there),
    ] {
        relay.turn_to(url).await;
        until("it notices", SOON, async || {
            let told = ask(&by, &asking(&dead.token, fully(), None)).await;
            told.is_ok_and(|told| told.reason() == Reason::Revoked)
        })
        .await;
        for _ in 0..2 {
            assert!(by.verify(&alive.token).await.unwrap().active);
            assert!(!by.verify(&dead.token).await.unwrap().active);
        }
    }
    elsewhere.stop().await;
    server.stop().await;
}

/// What is told wakes it, and confirms nothing: without it the changes are read all the
/// same.
#[tokio::test(flavor = "multi_thread")]
async fn change_that_nobody_was_told_of_is_seen_within_the_bound() {
    let first = TestServer::start(Engine::Postgres).await;
    let (mut relay, through) = Relay::to(url_of(&first));
    let listen = format!("--database-listen-url={through}");
    let second = beside(&first, url_of(&first).to_owned(), &[&listen]).await;
    let (here, there) = (client(&first), client(&second));
    let owner = user(&here, "alice").await;
    let is_seen = |told: &VerifyResponse| told.reason() == Reason::Revoked;
    let mut took = Vec::new();
    relay.cut().await;
    for _ in 0..4 {
        let made = token(&here, &owner, &[], None).await;
        assert!(there.verify(&made.token).await.unwrap().active);
        here.revoke(&id_of(&made)).await.unwrap();
        took.push(seen(&there, &question(&made.token), Instant::now(), is_seen).await);
    }
    print("revocations that nobody is told of", took);

    // Those who listen are thrown out, again and again.
    relay.mend();
    let mut database = PgConnection::connect(url_of(&first)).await.unwrap();
    let mut took = Vec::new();
    for _ in 0..10 {
        let made = token(&here, &owner, &[], None).await;
        assert!(there.verify(&made.token).await.unwrap().active);
        sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        )
        .execute(&mut database)
        .await
        .unwrap();
        here.revoke(&id_of(&made)).await.unwrap();
        took.push(seen(&there, &question(&made.token), Instant::now(), is_seen).await);
    }
    print("revocations while those who listen are thrown out", took);
    second.stop().await;
    first.stop().await;
}
