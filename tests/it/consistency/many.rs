//! Many questions in one call and on one stream.

use std::{collections::HashSet, fs};

use token_authority::proto::v1::{
    BatchVerifyRequest, BatchVerifyResponse, StreamVerifyRequest, StreamVerifyResponse,
    VerifyError, batch_verify_result::Result as InPlace,
    stream_verify_response::Result as Answered,
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Streaming};

use super::*;
use crate::support::{
    on_both_stores,
    process::Process,
    relay::Relay,
    server::{refused, unknown_token, wrong_fields},
    wait::until,
};

on_both_stores![
    batch_is_answered_in_order_with_errors_in_place,
    batch_has_at_most_a_thousand_questions_and_may_have_so_many,
    stream_answers_each_question_and_outlives_bad_ones,
    stream_ends_when_its_caller_is_revoked_though_it_asks_nothing,
    ten_thousand_questions_in_flight_are_answered,
    question_over_64_kib_is_refused_and_the_stream_goes_on,
    streams_over_the_limit_are_refused_until_one_ends,
    one_token_does_not_take_all_streams,
];

const SOON: Duration = Duration::from_secs(20);

async fn batch(by: &Client, requests: Vec<VerifyRequest>) -> Result<BatchVerifyResponse, Status> {
    let request = BatchVerifyRequest { requests, ..Default::default() };
    Ok(by.verification().batch_verify(request).await?.into_inner())
}

async fn batch_is_answered_in_order_with_errors_in_place(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let mut tokens = Vec::new();
    for _ in 0..6 {
        tokens.push(token(&by, &user, &[], None).await);
    }
    by.revoke(&id_of(&tokens[1])).await.unwrap();
    let bad =
        VerifyRequest { request_method: Some("GET".to_owned()), ..question(&tokens[2].token) };
    let own = asking(&tokens[2].token, fully(), None);
    let asked = |token: usize| question(&tokens[token].token);
    let requests = vec![
        asked(3),
        asked(1),
        bad,
        question("garbage"),
        own,
        asked(0),
        question(&unknown_token()),
        asked(3),
    ];
    // Cold; then some of it kept; then all of it.
    for round in 0..3 {
        if round == 1 {
            by.revoke(&id_of(&tokens[4])).await.unwrap();
        }
        let told = batch(&by, requests.clone()).await.unwrap();
        assert!(!told.stale && !told.revision.is_empty());
        let results: Vec<_> =
            told.results.into_iter().map(|result| result.result.unwrap()).collect();
        let said = results.iter().map(|result| match result {
            InPlace::Response(told) if told.active => told.token_id.clone(),
            InPlace::Response(told) => told.reason().as_str_name().to_owned(),
            InPlace::Error(VerifyError { code, .. }) => code.to_string(),
        });
        let invalid = (Code::InvalidArgument as i32).to_string();
        let expected = [
            &id_of(&tokens[3]),
            "REASON_REVOKED",
            &invalid,
            "REASON_NOT_FOUND",
            &invalid,
            &id_of(&tokens[0]),
            "REASON_NOT_FOUND",
            &id_of(&tokens[3]),
        ];
        assert_eq!(said.collect::<Vec<_>>(), expected, "{round}");
        for result in &results {
            if let InPlace::Response(answer) = result
                && answer.reason() != Reason::NotFound
            {
                assert_eq!(answer.revision, told.revision);
            }
        }
    }
    assert!(batch(&by, Vec::new()).await.unwrap().results.is_empty());
    server.stop().await;
}

async fn batch_has_at_most_a_thousand_questions_and_may_have_so_many(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    // The longest texts, with requirements as long as they are in practice.
    let asked = VerifyRequest {
        request_method: Some("GET".to_owned()),
        request_path: Some(format!("/arvados/v1/{}", "x".repeat(100))),
        client_ip: Some("2001:db8:1111:2222:3333:4444:5555:6666".to_owned()),
        ..question(&v2(&authorization(&by, &user, &["all"]).await))
    };
    let told = batch(&by, vec![asked.clone(); 1_000]).await.unwrap();
    assert_eq!(told.results.len(), 1_000);
    for result in told.results {
        assert!(matches!(result.result, Some(InPlace::Response(told)) if told.active));
    }
    assert_eq!(wrong_fields(batch(&by, vec![question("x"); 1_001]).await), ["requests"]);
    server.stop().await;
}

/// What is not kept is read by one statement, and all of a batch is of one revision.
#[tokio::test(flavor = "multi_thread")]
async fn batch_costs_one_read() {
    let mut place = Place::new(Engine::Postgres).await;
    let (relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let server = TestServer::start_on(place, &[LONG]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let mut tokens = Vec::new();
    for _ in 0..8 {
        tokens.push(token(&by, &user, &[], None).await.token);
    }
    by.verify(&tokens[0]).await.unwrap();
    let before = (relay.ran(LOOKUP), relay.ran(LOOKUPS));
    let requests: Vec<_> = tokens.iter().map(|token| question(token)).collect();
    for _ in 0..2 {
        let told = batch(&by, requests.clone()).await.unwrap();
        for result in told.results {
            let Some(InPlace::Response(answer)) = result.result else { panic!("{result:?}") };
            assert!(answer.active);
            assert_eq!(answer.revision, told.revision);
        }
        assert_eq!((relay.ran(LOOKUP) - before.0, relay.ran(LOOKUPS) - before.1), (0, 1));
    }
    server.stop().await;
}

/// A stream, and what asks on it.
async fn stream(
    by: &Client,
) -> (mpsc::Sender<StreamVerifyRequest>, Streaming<StreamVerifyResponse>) {
    let (ask, asked) = mpsc::channel(16);
    let answers = by.verification().stream_verify(ReceiverStream::new(asked)).await.unwrap();
    (ask, answers.into_inner())
}

/// How a stream ends, which it does soon.
async fn end(answers: &mut Streaming<StreamVerifyResponse>) -> Status {
    let ended = async {
        loop {
            match answers.next().await {
                Some(Ok(_)) => {}
                Some(Err(status)) => return status,
                None => panic!("it ends with a reason"),
            }
        }
    };
    tokio::time::timeout(SOON, ended).await.expect("it ends")
}

async fn stream_answers_each_question_and_outlives_bad_ones(engine: Engine) {
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let made = token(&by, &user, &[], None).await;
    let (ask, mut answers) = stream(&by).await;
    for round in 0..3 {
        let bad = VerifyRequest { request_path: Some("/".to_owned()), ..question(&made.token) };
        let questions = [
            (1, Some(question(&made.token))),
            (u64::MAX, Some(bad)),
            (2, Some(question("garbage"))),
            (3, Some(question(&unknown_token()))),
            (4, None),
            (5, Some(asking(&made.token, at_least("999999-0000000000000000"), None))),
            (6, Some(asking(&made.token, fully(), None))),
        ];
        let count = questions.len();
        for (id, request) in questions {
            ask.send(StreamVerifyRequest { id, request }).await.unwrap();
        }
        let mut seen = HashSet::new();
        for _ in 0..count {
            let answer = answers.next().await.unwrap().unwrap();
            assert!(seen.insert(answer.id), "answered twice");
            match (answer.id, answer.result.unwrap()) {
                (1 | 6, Answered::Response(told)) => {
                    assert_eq!(told.active, round < 2);
                    assert_eq!(told.reason() == Reason::Revoked, round == 2);
                }
                (2 | 3, Answered::Response(told)) => assert_eq!(told.reason(), Reason::NotFound),
                (5, Answered::Error(error)) => {
                    assert_eq!(error.reason, "REVISION_UNREACHABLE");
                    assert_eq!(error.code, Code::FailedPrecondition as i32);
                }
                (4 | u64::MAX, Answered::Error(error)) => {
                    assert_eq!(error.code, Code::InvalidArgument as i32);
                }
                (id, other) => panic!("{id}: {other:?}"),
            }
        }
        if round == 1 {
            by.revoke(&id_of(&made)).await.unwrap();
        }
    }
    drop(ask);
    assert!(answers.next().await.is_none(), "it ends well");
    server.stop().await;
}

async fn stream_ends_when_its_caller_is_revoked_though_it_asks_nothing(engine: Engine) {
    let server = TestServer::start(engine).await;
    let by = client(&server);
    let chief = server.administrator("chief").await;
    let caller = token(&by, &chief.id, &["verify:tokens"], None).await;
    let as_caller = by.presenting(&caller.token);
    let (ask, mut answers) = stream(&as_caller).await;
    let (_idle, mut idle) = stream(&as_caller).await;
    let asked = StreamVerifyRequest { id: 7, request: Some(question(&server.admin)) };
    ask.send(asked.clone()).await.unwrap();
    assert_eq!(answers.next().await.unwrap().unwrap().id, 7);
    by.revoke(&id_of(&caller)).await.unwrap();
    // What is asked after that is not answered.
    let _ = ask.send(asked).await;
    let refusal = answers.next().await.unwrap().unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated);
    assert_eq!(end(&mut idle).await.code(), Code::Unauthenticated);
    server.stop().await;
}

async fn ten_thousand_questions_in_flight_are_answered(engine: Engine) {
    const QUESTIONS: u64 = 10_000;
    let server = TestServer::start_with(engine, &[LONG]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let mut tokens = vec![unknown_token(), "garbage".to_owned()];
    for _ in 0..6 {
        tokens.push(token(&by, &user, &[], None).await.token);
    }
    let (ask, mut answers) = stream(&by).await;
    let asking = tokio::spawn(async move {
        for id in 0..QUESTIONS {
            let token = &tokens[usize::try_from(id).unwrap() % tokens.len()];
            let asked = StreamVerifyRequest { id, request: Some(question(token)) };
            ask.send(asked).await.unwrap();
        }
    });
    let mut seen = HashSet::new();
    while let Some(answer) = answers.next().await {
        let StreamVerifyResponse { id, result } = answer.unwrap();
        let Some(Answered::Response(told)) = result else { panic!("{id}: {result:?}") };
        assert_eq!(told.active, id % 8 > 1);
        assert!(seen.insert(id));
    }
    assert_eq!(seen.len() as u64, QUESTIONS);
    asking.await.unwrap();
    server.stop().await;
}

async fn question_over_64_kib_is_refused_and_the_stream_goes_on(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (ask, mut answers) = stream(&client(&server)).await;
    for (id, token) in [
        (1, server.admin.clone()),
        (2, "x".repeat(64 * 1024)),
        (3, "x".repeat(63 * 1024)),
        (4, server.admin.clone()),
    ] {
        ask.send(StreamVerifyRequest { id, request: Some(question(&token)) }).await.unwrap();
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!(answer.id, id);
        match (id, answer.result.unwrap()) {
            (1 | 4, Answered::Response(told)) => assert!(told.active),
            (3, Answered::Response(told)) => assert_eq!(told.reason(), Reason::NotFound),
            (2, Answered::Error(error)) => assert_eq!(error.code, Code::OutOfRange as i32),
            (id, other) => panic!("{id}: {other:?}"),
        }
    }
    server.stop().await;
}

async fn streams_over_the_limit_are_refused_until_one_ends(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-open-streams=2"]).await;
    let by = client(&server);
    let another =
        async || by.verification().stream_verify(ReceiverStream::new(mpsc::channel(1).1)).await;
    let (ask, mut answers) = stream(&by).await;
    let given_up = stream(&by).await;
    for _ in 0..2 {
        let limit = (Code::ResourceExhausted, "STREAM_LIMIT".to_owned());
        assert_eq!(refused(another().await), limit);
    }
    drop(given_up);
    until("there is room", SOON, async || another().await.is_ok()).await;
    let asked = StreamVerifyRequest { id: 1, request: Some(question(&server.admin)) };
    ask.send(asked).await.unwrap();
    assert!(answers.next().await.unwrap().is_ok());
    server.stop().await;
}

async fn one_token_does_not_take_all_streams(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-open-streams=4"]).await;
    let by = client(&server);
    let other = token(&by, &server.administrator("chief").await.id, &["verify:tokens"], None).await;
    let other = by.presenting(&other.token);
    let open = async |by: &Client| {
        by.verification().stream_verify(ReceiverStream::new(mpsc::channel(1).1)).await
    };
    let limit = (Code::ResourceExhausted, "STREAM_LIMIT".to_owned());
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(stream(&by).await);
    }
    assert_eq!(refused(open(&by).await), limit);
    held.push(stream(&other).await);
    assert_eq!(refused(open(&other).await), limit, "there are four");
    drop(held.remove(0));
    until("there is room", SOON, async || open(&by).await.is_ok()).await;
    server.stop().await;
}

/// What waits for the store takes room, so of one stream only so much is read.
#[tokio::test(flavor = "multi_thread")]
async fn stream_of_which_too_much_waits_is_not_read_on_until_something_is_answered() {
    let mut place = Place::new(Engine::Postgres).await;
    let (relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let server = TestServer::start_on(place, &[LONG, "--database-wait=60s"]).await;
    let by = client(&server);
    assert!(by.verify(&server.admin).await.unwrap().active);
    let (ask, mut answers) = stream(&by).await;
    let ask_many = async |ids: std::ops::Range<u64>| {
        for id in ids.clone() {
            let request = Some(question(&unknown_token()));
            ask.send(StreamVerifyRequest { id, request }).await.unwrap();
        }
        let request = Some(question(&server.admin));
        ask.send(StreamVerifyRequest { id: ids.end, request }).await.unwrap();
    };
    relay.hold();
    ask_many(0..200).await;
    assert_eq!(answers.next().await.unwrap().unwrap().id, 200);
    ask_many(201..300).await;
    // Answers that came later than the question: it was there to be read.
    for _ in 0..20 {
        assert!(by.verify(&server.admin).await.unwrap().active);
    }
    let more = tokio::time::timeout(Duration::ZERO, answers.next()).await;
    assert!(more.is_err(), "{more:?}");
    relay.release();
    drop(ask);
    let mut left: HashSet<u64> = (0..200).chain(201..=300).collect();
    while let Some(answer) = answers.next().await {
        assert!(left.remove(&answer.unwrap().id));
    }
    assert_eq!(left, HashSet::new());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_ends_when_its_root_token_is_rolled() {
    let place = Place::new(Engine::Sqlite).await;
    let path = place.path("root");
    fs::write(&path, "Root".repeat(10)).unwrap();
    let argument = format!("--system-root-token-file={}", path.display());
    let process = Process::start(place.arguments().into_iter().chain([argument.into()])).await;
    let by = Client::connect(process.address, &"Root".repeat(10)).await;
    let (ask, mut answers) = stream(&by).await;
    let asked = StreamVerifyRequest { id: 1, request: Some(question(&place.admin_token())) };
    ask.send(asked).await.unwrap();
    assert!(answers.next().await.unwrap().is_ok());
    fs::write(&path, "Next".repeat(10)).unwrap();
    process.signal("HUP").await;
    assert_eq!(end(&mut answers).await.code(), Code::Unauthenticated);
    assert_eq!(refused(by.verify("x").await).0, Code::Unauthenticated);
    process.stop().await;
}
