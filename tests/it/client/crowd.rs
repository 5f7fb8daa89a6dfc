//! Many who ask at once, while the authority is slow or can't say what changed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use token_authority::{
    client::{Client, Error, Options, OwnToken, Question},
    proto::v1::VerifyResponse,
};
use tokio::task::JoinSet;
use tonic::{Code, Request, Status, service::Interceptor as _};

use super::{
    authority::{Authority, SOON, active},
    is_active,
};
use crate::support::wait::until;

/// How many questions a client has under way.
const QUESTIONS: usize = 1_024;

/// How many interceptors wait.
const INTERCEPTORS: usize = 64;

/// A client that is fresh, and waits for answers as long as the test does.
async fn patient(authority: &Authority) -> Client {
    let client = Client::start(authority.options().timeout(Duration::from_mins(5))).unwrap();
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    client
}

/// It does not say any more whether it told all.
fn falter(authority: &Authority) {
    authority.says.pongs.are_sent.store(false, Ordering::SeqCst);
    authority.says.clock.sleep(Duration::from_secs(60));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_the_same_shares_the_question_though_nothing_is_known_of_changes() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let client = patient(&authority).await;
    falter(&authority);
    authority.says.gives.forget_permits(usize::MAX);
    let begun = Arc::<AtomicUsize>::default();
    let calls: JoinSet<bool> = (0..200)
        .map(|_| {
            let (client, begun) = (client.clone(), Arc::clone(&begun));
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                is_active(&client, "good").await
            }
        })
        .collect();
    until("all ask", SOON, async || begun.load(Ordering::SeqCst) == 200).await;
    until("it is asked", SOON, async || authority.says.asked() > 0).await;
    authority.says.gives.add_permits(1 << 20);
    assert!(calls.join_all().await.into_iter().all(|is_active| is_active));
    let asked = authority.says.asked();
    assert!(asked < 100, "{asked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_asked_before_a_call_answers_it_then() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let client = patient(&authority).await;
    falter(&authority);
    authority.says.gives.forget_permits(usize::MAX);
    let ask = || {
        let client = client.clone();
        tokio::spawn(async move { is_active(&client, "good").await })
    };
    let before = ask();
    until("it is asked", SOON, async || authority.says.asked() == 1).await;
    authority.says.answer("good", VerifyResponse::default());
    let after = ask();
    until("it is asked again", SOON, async || authority.says.asked() == 2).await;
    authority.says.gives.add_permits(1 << 20);
    assert!(before.await.unwrap() && !after.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_questions_are_under_way_and_no_more() {
    let authority = Authority::start().await;
    let client = patient(&authority).await;
    authority.says.gives.forget_permits(usize::MAX);
    for is_known in [true, false] {
        if !is_known {
            falter(&authority);
        }
        let calls: JoinSet<()> = (0..QUESTIONS)
            .map(|number| {
                let client = client.clone();
                let token = format!("made-up-{is_known}-{number}");
                async move { drop(client.verify(Question::new(&token)).await) }
            })
            .collect();
        until("they are asked", SOON, async || client.state().under_way == QUESTIONS).await;
        let error = client.verify(Question::new("one more")).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable(why) if why.contains("1024")), "{error}");
        authority.says.gives.add_permits(QUESTIONS);
        calls.join_all().await;
        until("they are answered", SOON, async || client.state().under_way == 0).await;
    }
}

fn presenting(token: &str) -> Request<()> {
    let mut request = Request::new(());
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_interceptors_wait_and_no_more() {
    let authority = Authority::start().await;
    let client = patient(&authority).await;
    let guard = client.interceptor(["read:notes"]);
    authority.says.gives.forget_permits(usize::MAX);
    let calls: JoinSet<Status> = (0..INTERCEPTORS)
        .map(|number| {
            let mut guard = guard.clone();
            async move { guard.call(presenting(&format!("made-up-{number}"))).unwrap_err() }
        })
        .collect();
    until("they wait", SOON, async || authority.says.asked() == INTERCEPTORS).await;
    let mut guard = guard;
    let status = guard.call(presenting("one more")).unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(authority.says.asked(), INTERCEPTORS);
    authority.says.gives.add_permits(1 << 20);
    let unauthenticated = |status: &Status| status.code() == Code::Unauthenticated;
    assert!(calls.join_all().await.iter().all(unauthenticated));
    assert!(unauthenticated(&guard.call(presenting("one more")).unwrap_err()));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_when_the_own_token_is_another() {
    let authority = Authority::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("own.token");
    std::fs::write(&file, "own").unwrap();
    let endpoints = [format!("http://{}", authority.address)];
    let client = Client::start(Options::new(endpoints, OwnToken::file(&file))).unwrap();
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    std::fs::write(&file, "other").unwrap();
    *authority.says.accepts.lock().unwrap() = "other".to_owned();
    let calls: JoinSet<Option<Error>> = (0..200)
        .map(|number| {
            let client = client.clone();
            async move { client.verify(Question::new(&format!("made-up-{number}"))).await.err() }
        })
        .collect();
    let failed: Vec<Error> = calls.join_all().await.into_iter().flatten().collect();
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
}
