//! The client: what it keeps, what it asks, and that it never answers what it can't know.

mod authority;
mod crowd;
mod ends;
mod protected;
mod rolling;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use token_authority::{
    client::{Client, Error, Kind, Options, OwnToken, Question, Reason},
    proto::v1::{VerifyResponse, WatchChange, WatchResync, consistency, watch_response::Event},
};
use tonic::Status;

use crate::support::wait::until;
use authority::{Authority, SOON, active};

async fn is_active(client: &Client, token: &str) -> bool {
    client.verify(Question::new(token)).await.unwrap().identity().is_some()
}

/// Whether the answer is kept and known to hold.
fn is_kept(client: &Client, token: &str) -> bool {
    client.kept(Question::new(token)).unwrap().is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_is_given_without_a_call() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &["read:notes"]));
    let client = authority.client().await;
    for _ in 0..10 {
        let answer = client.verify(Question::new("good")).await.unwrap();
        let identity = answer.identity().unwrap();
        assert_eq!((&*identity.token_id, &*identity.user_id), ("good", "user-of-good"));
        assert!(!answer.is_stale());
    }
    assert_eq!(authority.says.asked(), 1);
    // What else was asked for makes it another question.
    let ip = Some("10.0.0.1".parse().unwrap());
    for question in [
        Question::new("good").client_ip(ip),
        Question::new("good").workspace("workspace"),
        Question::new("good").kinds([Kind::PersonalAccessToken].into_iter().collect()),
    ] {
        let before = authority.says.asked();
        for _ in 0..3 {
            assert!(client.verify(question).await.unwrap().identity().is_some());
        }
        assert_eq!(authority.says.asked(), before + 1, "{question:?}");
    }
    // Scopes are judged here.
    let question = Question::new("good").scopes(&["write:notes"]);
    let missing = Reason::InsufficientScope(vec!["write:notes".to_owned()]);
    let answer = client.verify(question).await.unwrap();
    assert_eq!((answer.reason(), answer.is_stale()), (Some(&missing), false));
    assert_eq!(authority.says.asked(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_knows_of_all_that_was_received() {
    let authority = Authority::start().await;
    let client = authority.client().await;
    authority.says.change("r2", WatchChange { everything: true, ..Default::default() }).await;
    authority.says.answer("good", active("good", &[]));
    until("the change is received", SOON, async || {
        is_active(&client, "good").await;
        let asked = authority.says.asked.lock().unwrap();
        let requirement = asked.last().and_then(|last| last.consistency.clone()?.requirement);
        requirement == Some(consistency::Requirement::MinRevision("r2".to_owned()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_ends_what_rests_on_what_it_touches_and_nothing_else() {
    let authority = Authority::start().await;
    let bound = VerifyResponse {
        workspace_id: Some("workspace".to_owned()),
        organization_id: Some("organization".to_owned()),
        ..active("bound", &[])
    };
    authority.says.answer("bound", bound);
    authority.says.answer("other", active("other", &[]));
    let client = authority.client().await;
    let ids = |id: &str| vec![id.to_owned()];
    let none = WatchChange::default;
    for (number, (change, touches_all)) in [
        (WatchChange { token_ids: ids("bound"), ..none() }, false),
        (WatchChange { user_ids: ids("user-of-bound"), ..none() }, false),
        (WatchChange { workspace_ids: ids("workspace"), ..none() }, false),
        (WatchChange { organization_ids: ids("organization"), ..none() }, false),
        (WatchChange { everything: true, ..none() }, true),
        // It says nothing that is understood.
        (none(), true),
    ]
    .into_iter()
    .enumerate()
    {
        assert!(is_active(&client, "bound").await && is_active(&client, "other").await);
        assert!(is_kept(&client, "bound") && is_kept(&client, "other"));
        authority.says.change(&format!("r{number}"), change).await;
        until("it is received", SOON, async || !is_kept(&client, "bound")).await;
        assert_eq!(is_kept(&client, "other"), !touches_all, "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unbound_token_in_a_workspace_rests_on_it_and_on_every_organization() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let client = authority.client().await;
    let question = Question::new("good").workspace("workspace");
    let ids = |id: &str| vec![id.to_owned()];
    for (revision, change) in [
        ("r2", WatchChange { workspace_ids: ids("workspace"), ..Default::default() }),
        ("r3", WatchChange { organization_ids: ids("any"), ..Default::default() }),
    ] {
        assert!(client.verify(question).await.unwrap().identity().is_some());
        assert!(is_active(&client, "good").await);
        assert!(client.kept(question).unwrap().is_some());
        authority.says.change(revision, change).await;
        until("it is received", SOON, async || client.kept(question).unwrap().is_none()).await;
        assert!(is_kept(&client, "good"), "without a workspace it does not");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_a_change_overtook_is_not_served() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    authority.says.answer("mark", active("mark", &[]));
    let client = authority.client().await;
    assert!(is_active(&client, "mark").await);
    // The answer is made, and held up until the revocation was received.
    authority.says.gives.forget_permits(usize::MAX);
    let asking = tokio::spawn({
        let client = client.clone();
        async move { is_active(&client, "good").await }
    });
    until("it is asked", SOON, async || authority.says.asked() == 2).await;
    authority.says.answer("good", VerifyResponse::default());
    let touched = ["good", "mark"].map(ToOwned::to_owned).to_vec();
    authority.says.change("r2", WatchChange { token_ids: touched, ..Default::default() }).await;
    until("it is received", SOON, async || !is_kept(&client, "mark")).await;
    authority.says.gives.add_permits(1 << 20);
    assert!(asking.await.unwrap(), "it was good when it was asked");
    assert!(!is_active(&client, "good").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_the_same_at_the_same_time_shares_the_question() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &["read:notes"]));
    let client = authority.client().await;
    authority.says.gives.forget_permits(usize::MAX);
    let asking: Vec<_> = (0..20)
        .map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let required: &[&str] =
                    if number % 2 == 0 { &["read:notes"] } else { &["write:notes"] };
                let question = Question::new("good").scopes(required);
                client.verify(question).await.unwrap().identity().is_some()
            })
        })
        .collect();
    until("it is asked", SOON, async || authority.says.asked() == 1).await;
    authority.says.gives.add_permits(1 << 20);
    for (number, asking) in asking.into_iter().enumerate() {
        assert_eq!(asking.await.unwrap(), number % 2 == 0);
    }
    assert_eq!(authority.says.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_a_refusal_nor_an_old_answer_is_kept() {
    let authority = Authority::start().await;
    let old = VerifyResponse { stale: true, ..active("old", &[]) };
    authority.says.answer("old", old);
    let refused = VerifyResponse { reason: 4_711, ..Default::default() };
    authority.says.answer("refused", refused);
    let client = authority.client().await;
    for token in ["old", "refused", "unknown"] {
        let before = authority.says.asked();
        for _ in 0..2 {
            client.verify(Question::new(token)).await.unwrap();
        }
        assert_eq!(authority.says.asked(), before + 2, "{token}");
    }
    assert!(client.verify(Question::new("old")).await.unwrap().is_stale());
    // A reason that is not known refuses.
    let answer = client.verify(Question::new("refused")).await.unwrap();
    assert_eq!((answer.reason(), answer.is_stale()), (Some(&Reason::Other), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_once_its_revision_was_received_and_if_nothing_is_left_to_note() {
    let authority = Authority::start().await;
    let says = &authority.says;
    says.answer("usual", active("usual", &[]));
    says.answer("ahead", VerifyResponse { revision: "r3".to_owned(), ..active("ahead", &[]) });
    says.answer("lost", VerifyResponse { revision: "r4".to_owned(), ..active("lost", &[]) });
    says.answer("in no store", VerifyResponse { revision: String::new(), ..active("root", &[]) });
    says.answer("left", VerifyResponse { ask_again: true, ..active("left", &[]) });
    let client = authority.client().await;
    let all = ["usual", "ahead", "lost", "in no store", "left"];
    let kept = async || {
        for token in all {
            assert!(is_active(&client, token).await);
        }
        all.map(|token| is_kept(&client, token))
    };
    assert_eq!(kept().await, [true, false, false, false, false]);
    // It comes with a later one, and touches something else.
    let change = WatchChange {
        token_ids: vec!["other".to_owned()],
        earlier_revisions: vec!["r2".to_owned(), "r3".to_owned()],
        ..Default::default()
    };
    says.change("r4 of another history", change).await;
    until("it is received", SOON, async || is_kept(&client, "ahead")).await;
    assert_eq!(kept().await, [true, true, false, false, false]);
}

/// A server that may give old answers by its own setting is not allowed to by this client.
#[tokio::test(flavor = "multi_thread")]
async fn how_old_an_answer_may_be_is_said_with_each_question() {
    let authority = Authority::start().await;
    for stale_if_error in [Duration::ZERO, Duration::from_secs(90)] {
        let client = Client::start(authority.options().stale_if_error(stale_if_error)).unwrap();
        for is_fresh in [false, true] {
            until("it watches", SOON, async || !is_fresh || client.state().is_fresh).await;
            client.verify(Question::new("unknown")).await.unwrap();
            let asked = authority.says.asked.lock().unwrap().last().cloned().unwrap();
            let max_stale: Duration =
                asked.consistency.unwrap().max_stale.unwrap().try_into().unwrap();
            assert_eq!(max_stale, stale_if_error);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_told_to_start_over_drops_everything() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let client = authority.client().await;
    for is_known in [true, false] {
        assert!(is_active(&client, "good").await);
        until("it is kept", SOON, async || {
            is_active(&client, "good").await;
            is_kept(&client, "good")
        })
        .await;
        let streams = authority.says.starts.lock().unwrap().len();
        if is_known {
            let resync = WatchResync { revision: "other".to_owned() };
            authority.says.send(Event::Resync(resync)).await;
        } else {
            authority.says.send_unknown().await;
        }
        until("it begins anew", SOON, async || {
            authority.says.starts.lock().unwrap().len() > streams
        })
        .await;
        let since = authority.says.starts.lock().unwrap().last().cloned().unwrap();
        assert_eq!(since, is_known.then(|| "other".to_owned()));
        until("it is fresh", SOON, async || client.state().is_fresh).await;
        assert!(!is_kept(&client, "good"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_is_resumed_and_what_is_kept_holds() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let client = authority.client().await;
    assert!(is_active(&client, "good").await);
    let token_ids = vec!["another".to_owned()];
    authority.says.change("r7", WatchChange { token_ids, ..Default::default() }).await;
    authority.says.cut();
    until("it is resumed", SOON, async || authority.says.starts.lock().unwrap().len() == 2).await;
    assert_eq!(authority.says.starts.lock().unwrap()[1].as_deref(), Some("r7"));
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    assert!(is_kept(&client, "good"));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_what_changed_asks() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let client = authority.client().await;
    assert!(is_active(&client, "good").await);
    authority.says.pongs.are_sent.store(false, Ordering::SeqCst);
    // As if this process had been frozen, and the token revoked meanwhile.
    authority.says.clock.sleep(Duration::from_secs(60));
    authority.says.answer("good", VerifyResponse::default());
    assert!(!is_active(&client, "good").await);
    assert_eq!(authority.says.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_asked_is_an_error() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let client = authority.client().await;
    assert!(is_active(&client, "good").await);
    authority.stop();
    authority.says.clock.sleep(Duration::from_secs(60));
    for token in ["good", "other"] {
        let error = client.verify(Question::new(token)).await.unwrap_err();
        assert!(error.is_unavailable(), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_answers_are_given_as_far_as_that_is_allowed_and_say_so() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let options = authority.options().stale_if_error(Duration::from_secs(600));
    let client = Client::start(options).unwrap();
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    assert!(is_active(&client, "good").await);
    authority.says.pongs.are_sent.store(false, Ordering::SeqCst);
    authority.says.clock.sleep(Duration::from_secs(300));

    // It could be asked: then it is.
    assert!(!client.verify(Question::new("good")).await.unwrap().is_stale());
    *authority.says.fails.lock().unwrap() = Some(Status::unavailable("away"));
    let answer = client.verify(Question::new("good")).await.unwrap();
    assert!(answer.is_stale() && answer.identity().is_some());
    // What is known against it counts.
    let token_ids = vec!["good".to_owned()];
    authority.says.change("r2", WatchChange { token_ids, ..Default::default() }).await;
    until("it is received", SOON, async || client.verify(Question::new("good")).await.is_err())
        .await;
    authority.says.clock.sleep(Duration::from_secs(400));
    assert!(client.verify(Question::new("good")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_answer_ends_by_the_clock_of_the_authority() {
    let authority = Authority::start().await;
    // This machine's own clock is years away from it.
    let in_an_hour = authority.says.in_seconds(3_600);
    authority
        .says
        .answer("good", VerifyResponse { expires_at: Some(in_an_hour), ..active("good", &[]) });
    let client = authority.client().await;
    assert!(is_active(&client, "good").await);
    assert!(is_kept(&client, "good"));
    authority.says.clock.advance(Duration::from_secs(3_600));
    // It is told the time by the next pong.
    until("it is told", SOON, async || !is_kept(&client, "good")).await;
    let expired = VerifyResponse {
        reason: token_authority::proto::v1::Reason::Expired.into(),
        ..Default::default()
    };
    authority.says.answer("good", expired);
    let answer = client.verify(Question::new("good")).await.unwrap();
    assert_eq!((answer.reason(), answer.is_stale()), (Some(&Reason::Expired), false));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_is_asked_where_one_is_gone() {
    let (gone, authority) = (Authority::start().await, Authority::start().await);
    authority.says.answer("good", active("good", &[]));
    let endpoints = [gone.address, authority.address].map(|address| format!("http://{address}"));
    let client = Client::start(Options::new(endpoints, OwnToken::text("own"))).unwrap();
    *gone.says.fails.lock().unwrap() = Some(Status::unavailable("it stops"));
    for number in 0..10 {
        let token = format!("unknown-{number}");
        assert!(!is_active(&client, &token).await);
    }
    gone.stop();
    for number in 0..10 {
        let token = format!("unknown-{number}");
        assert!(!is_active(&client, &token).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_becomes_another_caller_keeps_nothing() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("own.token");
    std::fs::write(&file, "own\n").unwrap();
    let endpoints = [format!("http://{}", authority.address)];
    let options = Options::new(endpoints, OwnToken::file(&file));
    let client = Client::start(options.clock(Arc::new(authority.says.clock.clone()))).unwrap();
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    assert!(is_active(&client, "good").await && is_kept(&client, "good"));

    *authority.says.accepts.lock().unwrap() = "other".to_owned();
    let error = client.verify(Question::new("another")).await.unwrap_err();
    assert!(matches!(error, Error::OwnToken(_)), "{error}");
    std::fs::write(&file, "other").unwrap();
    // It is read once a second at most.
    authority.says.clock.sleep(Duration::from_secs(1));
    assert!(!is_active(&client, "another").await);
    assert!(!is_kept(&client, "good"));
    until("it watches as that", SOON, async || client.state().is_fresh).await;
    let starts = authority.says.starts.lock().unwrap().clone();
    assert_eq!(starts, [None, None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn uses_that_were_answered_for_here_are_reported() {
    let authority = Authority::start().await;
    authority.says.answer("good", active("good", &[]));
    let client = authority.client().await;
    let ip = Some("10.0.0.1".parse().unwrap());
    for _ in 0..5 {
        let question = Question::new("good").client_ip(ip);
        assert!(client.verify(question).await.unwrap().identity().is_some());
    }
    let uses = || authority.says.uses.lock().unwrap().clone();
    until("it is reported", SOON, async || !uses().is_empty()).await;
    assert_eq!(uses().len(), 1);
    assert_eq!((&*uses()[0].token_id, uses()[0].client_ip()), ("good", "10.0.0.1"));
    let at = uses()[0].last_used_at.unwrap();
    assert!((0..=60).contains(&(at.seconds - 1_800_000_000)), "{at:?}");
    // The next within the minute waits, but for a close.
    for _ in 0..5 {
        let question = Question::new("good").client_ip(ip);
        assert!(client.verify(question).await.unwrap().identity().is_some());
    }
    client.close().await;
    assert_eq!(uses().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_question_is_an_error_without_a_call() {
    let authority = Authority::start().await;
    let client = authority.client().await;
    let long = "x".repeat(65);
    let route = |method, path| token_authority::client::Route { method, path };
    for (question, wrong) in [
        (Question::new(""), "token"),
        (Question::new("x").scopes(&["Read"]), "required_scopes"),
        (Question::new("x").workspace(&*long), "workspace_id"),
        (Question::new("x").route(route("get", "/")), "request_method"),
        (Question::new("x").route(route("GET", "/?")), "request_path"),
    ] {
        let error = client.verify(question).await.unwrap_err();
        assert!(matches!(error, Error::Invalid { field, .. } if field == wrong), "{error}");
    }
    assert_eq!(authority.says.asked(), 0);
}

#[tokio::test]
async fn nothing_shows_a_token() {
    let token = "pat_00000000000000000000000000000000000000000010Ehxm0";
    let own = OwnToken::text(token);
    let options = Options::new(["http://localhost:1"], own.clone());
    let client = Client::start(options.clone()).unwrap();
    let question = Question::new(token);
    let error = client.verify(question).await.unwrap_err();
    let shown = format!(
        "{own:?} {options:?} {client:?} {question:?} {error:?} {error} {:?} {:?}",
        client.layer(),
        client.interceptor(["read:notes"]),
    );
    assert!(!shown.contains("000000"), "{shown}");
    assert!(Client::start(options.max_staleness(Duration::from_millis(99))).is_err());
}
