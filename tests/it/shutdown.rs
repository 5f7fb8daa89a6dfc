use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};
use tonic::{Code, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::support::{
    Engine,
    blocker::{Blocker, WAITING},
    client::{Client, connect},
    on_both_stores,
    process::Process,
    raw_http2::RawHttp2,
    server::Place,
    wait,
};

/// What the server is given to finish.
const DEADLINE: Duration = Duration::from_secs(2);

/// What it may take beyond that: closing the store, and a slow machine.
const SLACK: Duration = Duration::from_secs(2);

on_both_stores![
    call_in_flight_finishes_after_sigterm,
    client_that_says_nothing_does_not_hold_the_exit,
    nothing_acknowledged_is_lost_at_sigterm,
];

async fn start(place: &Place) -> Process {
    let more = ["--shutdown-deadline=2s", "--max-pats-per-user=1000000", "--log=info,sqlx=debug"]
        .map(Into::into);
    Process::start(place.arguments().into_iter().chain(more)).await
}

/// Waits for the end, which is a good one.
async fn exit(mut process: Process) -> Duration {
    let since = Instant::now();
    let exit = tokio::time::timeout(Duration::from_secs(30), process.child.wait()).await;
    assert_eq!(exit.expect("it ends").unwrap().code(), Some(0), "{}", process.log());
    since.elapsed()
}

async fn watch_health(channel: Channel, service: &str) -> tonic::Streaming<Health> {
    let request = HealthCheckRequest { service: service.to_owned() };
    HealthClient::new(channel).watch(request).await.unwrap().into_inner()
}

type Health = tonic_health::pb::HealthCheckResponse;

async fn call_in_flight_finishes_after_sigterm(engine: Engine) {
    let place = Place::new(engine).await;
    let process = start(&place).await;
    let client = Client::connect(process.address, &place.admin_token()).await;
    let mut health = Vec::new();
    for service in ["", "token_authority.v1.Verification", "token_authority.v1.Directory"] {
        let mut watched = watch_health(connect(process.address).await, service).await;
        let first = watched.message().await.unwrap().unwrap();
        assert_eq!(first.status(), ServingStatus::Serving, "{service}");
        health.push(watched);
    }

    let blocker = Blocker::of_writes(&place).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.create("in flight").await }
    });
    wait::until("the call is under way", SLACK, async || match engine {
        Engine::Postgres => place.number(WAITING).await > 0,
        // The statement that looks up its caller.
        Engine::Sqlite => process.log().contains("head_number"),
    })
    .await;
    process.signal("TERM").await;
    for mut watched in health {
        let next = watched.message().await.unwrap().unwrap();
        assert_eq!(next.status(), ServingStatus::NotServing);
        assert_eq!(watched.message().await.unwrap(), None, "it holds nobody");
    }
    wait::until("nobody new is let in", SLACK, async || {
        TcpStream::connect(process.address).await.is_err()
    })
    .await;
    assert!(!call.is_finished());
    blocker.release().await;
    let created = call.await.unwrap().unwrap();
    assert!(exit(process).await < DEADLINE, "it waited for nobody");

    let process = start(&place).await;
    let client = Client::connect(process.address, &place.admin_token()).await;
    assert!(client.verify(&created.token).await.unwrap().active);
    process.stop().await;
}

async fn client_that_says_nothing_does_not_hold_the_exit(engine: Engine) {
    let place = Place::new(engine).await;
    let process = start(&place).await;
    let client = Client::connect(process.address, &place.admin_token()).await;
    client.who_am_i().await.unwrap();
    let silent = TcpStream::connect(process.address).await.unwrap();
    let half_open = RawHttp2::open(process.address).await;
    let mid_preface = begin_preface(process.address).await;

    let since = Instant::now();
    process.signal("TERM").await;
    exit(process).await;
    assert!(since.elapsed() < DEADLINE + SLACK, "it took {:?}", since.elapsed());
    drop((silent, half_open, mid_preface, client));

    let process = start(&place).await;
    process.stop().await;
}

/// A client that falls silent within its first line.
async fn begin_preface(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"PRI * HT").await.unwrap();
    stream
}

async fn nothing_acknowledged_is_lost_at_sigterm(engine: Engine) {
    let place = Place::new(engine).await;
    let process = start(&place).await;
    let mut callers = JoinSet::new();
    for caller in 0..4 {
        let client = Client::connect(process.address, &place.admin_token()).await;
        callers.spawn(create_until_refused(client, caller));
    }
    wait::until("the callers get on", Duration::from_secs(20), async || {
        place.number("SELECT count(*) FROM credentials").await > 60
    })
    .await;
    process.signal("TERM").await;
    let took = exit(process).await;
    assert!(took < DEADLINE, "calls that go on held it for {took:?}");

    let process = start(&place).await;
    let client = Client::connect(process.address, &place.admin_token()).await;
    let mut acknowledged = 0;
    while let Some(tokens) = callers.join_next().await {
        for token in tokens.unwrap() {
            assert!(client.verify(&token).await.unwrap().active);
            acknowledged += 1;
        }
    }
    assert!(acknowledged >= 60);
    // What was not acknowledged was not done: no call was cut in the middle.
    let kept = place.number("SELECT count(*) FROM credentials WHERE name <> 'bootstrap'").await;
    assert_eq!(kept, acknowledged);
    process.stop().await;
}

/// The tokens that were acknowledged before the server let nobody in any more.
async fn create_until_refused(client: Client, caller: usize) -> Vec<String> {
    let mut tokens = Vec::new();
    loop {
        match client.create(&format!("{caller}-{}", tokens.len())).await {
            Ok(created) => tokens.push(created.token),
            Err(status) => {
                // The client says CANCELLED of what it had no time to send, and INTERNAL of
                // what a GOAWAY without an error says was not begun.
                let code = status.code();
                let not_begun = format!("{status:?}").contains("GoAway(b\"\", NO_ERROR, Remote)");
                assert!(
                    matches!(code, Code::Unavailable | Code::Cancelled) || not_begun,
                    "{status:?}"
                );
                return tokens;
            }
        }
    }
}
