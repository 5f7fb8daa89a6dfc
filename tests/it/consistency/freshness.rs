//! While the store is away: what is kept is given for as long as it may be, and then
//! there is no answer, which is never a no.

use token_authority::{
    domain::Requirement,
    error::Error,
    proto::v1::{BatchVerifyRequest, batch_verify_result::Result as Answered},
    store::StoreError,
    verifier,
};
use tonic::Code;

use super::*;
use crate::support::{
    relay::Relay,
    server::{refused, unknown_token},
    wait::until,
};

const SOON: Duration = Duration::from_secs(20);

/// A server whose way to its database the test can cut.
async fn relayed(more: &[&str]) -> (TestServer, Relay) {
    let mut place = Place::new(Engine::Postgres).await;
    let (relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let more: Vec<&str> =
        ["--database-wait=500ms"].into_iter().chain(more.iter().copied()).collect();
    (TestServer::start_on(place, &more).await, relay)
}

fn away() -> (Code, String) {
    (Code::Unavailable, "STORE_UNAVAILABLE".to_owned())
}

/// Two tokens that are kept, the second of them revoked, and one that is not kept.
async fn three(by: &Client) -> [String; 3] {
    let user = user(by, "alice").await;
    let made = async || token(by, &user, &[], None).await;
    let [good, revoked, not_kept] = [made().await, made().await, made().await];
    for token in [&good, &revoked] {
        assert!(by.verify(&token.token).await.unwrap().active);
    }
    by.revoke(&id_of(&revoked)).await.unwrap();
    for _ in 0..2 {
        let asked = asking(&revoked.token, fully(), None);
        assert_eq!(ask(by, &asked).await.unwrap().reason(), Reason::Revoked);
    }
    [good.token, revoked.token, not_kept.token]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_is_answered_until_it_is_too_old_and_never_as_a_no() {
    let (server, mut relay) = relayed(&[LONG]).await;
    let by = client(&server);
    let [good, revoked, not_kept] = three(&by).await;
    for _ in 0..2 {
        relay.cut().await;
        // What is new enough is as good as ever.
        for _ in 0..3 {
            let told = by.verify(&good).await.unwrap();
            assert!(told.active && !told.stale);
            assert_eq!(by.verify(&revoked).await.unwrap().reason(), Reason::Revoked);
        }
        assert_eq!(refused(by.verify(&not_kept).await), away());
        assert_eq!(refused(ask(&by, &asking(&good, fully(), None)).await), away());

        server.clock.sleep(LONGER);
        for token in [&good, &revoked, &not_kept, &unknown_token()] {
            assert_eq!(refused(by.verify(token).await), away());
        }
        let requests = [&good, &revoked].map(|token| question(token)).to_vec();
        let batch = BatchVerifyRequest { requests, ..Default::default() };
        assert_eq!(refused(by.verification().batch_verify(batch).await), away());

        relay.mend();
        until("it answers again", SOON, async || by.verify(&good).await.is_ok()).await;
        assert!(by.verify(&good).await.unwrap().active);
        assert_eq!(by.verify(&revoked).await.unwrap().reason(), Reason::Revoked);
    }
    assert!(by.verify(&not_kept).await.unwrap().active);
    server.stop().await;
}

/// As if it were frozen: connections stay, and nothing comes.
#[tokio::test(flavor = "multi_thread")]
async fn database_that_says_nothing_is_as_one_that_is_away() {
    let (server, relay) = relayed(&[LONG]).await;
    let by = client(&server);
    let [good, revoked, not_kept] = three(&by).await;
    relay.hold();
    assert!(by.verify(&good).await.unwrap().active);
    server.clock.sleep(LONGER);
    let answers = tokio::join!(by.verify(&good), by.verify(&revoked), by.verify(&not_kept));
    for answer in [answers.0, answers.1, answers.2] {
        assert_eq!(refused(answer), away());
    }
    relay.release();
    until("it answers again", SOON, async || by.verify(&good).await.is_ok()).await;
    assert_eq!(by.verify(&revoked).await.unwrap().reason(), Reason::Revoked);
    assert!(by.verify(&not_kept).await.unwrap().active);
    server.stop().await;
}

/// What follows the store's changes panics: nothing is answered from what is kept without
/// it, so it begins again.
#[tokio::test(flavor = "multi_thread")]
async fn who_follows_the_store_outlives_a_panic() {
    let server = TestServer::start_with(Engine::Sqlite, &["--call-deadline=10s"]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let made = token(&by, &user, &[], None).await;
    for _ in 0..2 {
        server.clock.break_once();
        until("it breaks", SOON, async || !server.clock.is_to_break()).await;
        let told = ask(&by, &asking(&made.token, fully(), None)).await.unwrap();
        assert!(told.active);
    }
    let revision = by.revoke(&id_of(&made)).await.unwrap().revision;
    let told = ask(&by, &asking(&made.token, at_least(&revision), None)).await.unwrap();
    assert_eq!(told.reason(), Reason::Revoked);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_answers_are_given_to_who_takes_them_and_say_so() {
    let (server, mut relay) = relayed(&[LONG]).await;
    let by = client(&server);
    let [good, revoked, not_kept] = three(&by).await;
    let latest = by.verify(&good).await.unwrap().revision;
    let hour = Some(Duration::from_secs(3600));
    let while_it_is_there = ask(&by, &asking(&good, None, hour)).await.unwrap();
    assert!(while_it_is_there.active && !while_it_is_there.stale);
    relay.cut().await;
    let while_new = ask(&by, &asking(&good, None, hour)).await.unwrap();
    assert!(while_new.active && !while_new.stale);

    server.clock.sleep(LONGER);
    assert_eq!(refused(by.verify(&good).await), away(), "it did not say that it takes one");
    for requirement in [None, at_least(&latest)] {
        let told = ask(&by, &asking(&good, requirement.clone(), hour)).await.unwrap();
        assert!(told.active && told.stale && told.max_age.is_none());
        let told = ask(&by, &asking(&revoked, requirement.clone(), hour)).await.unwrap();
        assert_eq!((told.reason(), told.stale), (Reason::Revoked, true));
        let unkept = ask(&by, &asking(&not_kept, requirement.clone(), hour)).await;
        assert_eq!(refused(unkept), away(), "{requirement:?}");
    }
    // What needs no store is told as ever.
    let garbage = ask(&by, &asking("garbage", None, hour)).await.unwrap();
    assert_eq!((garbage.reason(), garbage.revision), (Reason::NotFound, String::new()));

    let requests = [&good, &not_kept, &revoked].map(|token| question(token)).to_vec();
    let consistency = asking("", None, hour).consistency;
    let batch = BatchVerifyRequest { requests, consistency };
    let told = by.verification().batch_verify(batch).await.unwrap().into_inner();
    assert!(told.stale);
    let [Answered::Response(first), Answered::Error(second), Answered::Response(third)] =
        <[_; 3]>::try_from(told.results).unwrap().map(|result| result.result.unwrap())
    else {
        panic!("what is not kept is an error in its place");
    };
    assert!(first.active && first.stale && third.stale);
    assert_eq!(second.code, Code::Unavailable as i32);
    assert_eq!(third.reason(), Reason::Revoked);

    for (too_new, max_stale) in [(fully(), None), (at_least("999999-0000000000000000"), hour)] {
        let told = ask(&by, &asking(&good, too_new.clone(), max_stale)).await;
        assert_eq!(refused(told), away(), "{too_new:?}");
    }
    server.clock.sleep(Duration::from_secs(3000));
    assert_eq!(refused(ask(&by, &asking(&good, None, hour)).await), away(), "it is too old");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_answers_are_given_by_a_server_that_is_set_to_unless_they_are_declined() {
    let (server, mut relay) = relayed(&[LONG, "--stale-if-error=1h"]).await;
    let by = client(&server);
    let [good, revoked, not_kept] = three(&by).await;
    relay.cut().await;
    server.clock.sleep(LONGER);
    let told = by.verify(&good).await.unwrap();
    assert!(told.active && told.stale);
    let told = by.verify(&revoked).await.unwrap();
    assert_eq!((told.reason(), told.stale), (Reason::Revoked, true));
    assert_eq!(refused(by.verify(&not_kept).await), away());
    let as_caller = by.presenting(&revoked).verify(&good).await;
    assert_eq!(refused(as_caller).0, Code::Unauthenticated);
    for declined in [asking(&good, fully(), None), asking(&good, None, Some(Duration::ZERO))] {
        assert_eq!(refused(ask(&by, &declined).await), away(), "{declined:?}");
    }
    server.clock.sleep(Duration::from_secs(3000));
    assert_eq!(refused(by.verify(&good).await), away());

    relay.mend();
    until("it answers again", SOON, async || by.verify(&good).await.is_ok_and(|told| !told.stale))
        .await;
    assert!(by.verify(&not_kept).await.unwrap().active);
    server.stop().await;
}

/// It was let in by what was kept of it, and the store comes back before its questions, of
/// which one or many came at once, are answered.
#[tokio::test(flavor = "multi_thread")]
async fn who_was_let_in_while_the_store_was_away_is_not_answered_once_it_is_known_to_be_revoked() {
    let (server, mut relay) = relayed(&[LONG]).await;
    let by = client(&server);
    let [good, ..] = three(&by).await;
    let chief = server.administrator("chief").await;
    let caller = token(&by, &chief.id, &["verify:tokens"], None).await;
    assert!(by.presenting(&caller.token).verify(&good).await.unwrap().active);
    relay.cut().await;
    server.clock.sleep(LONGER);
    let answering = &server.verifier;
    let asker = answering.asker_of_question(&caller.token, None, "call").await.unwrap().unwrap();
    relay.mend();
    until("it is revoked", SOON, async || by.revoke(&id_of(&caller)).await.is_ok()).await;
    server.follow().await;
    assert!(answering.look().is_some(), "others are answered at once");
    assert!(answering.look_for(&asker).is_none());
    let questions = [(good.as_str(), Requirement::default())];
    let answers = answering.verify_all(&questions, &asker, verifier::Consistency::default()).await;
    assert!(matches!(answers, Err(Error::Store(StoreError::Unavailable(_)))));
    let answer =
        answering.verify(&good, &questions[0].1, &asker, verifier::Consistency::default()).await;
    assert!(matches!(answer, Err(Error::Store(StoreError::Unavailable(_)))));
    server.stop().await;
}

/// Everybody whose answers got too old waits for one and the same confirmation.
#[tokio::test(flavor = "multi_thread")]
async fn many_calls_after_a_pause_are_answered_by_one_look_at_the_changes() {
    const CALLS: usize = 1_000;
    let (server, relay) = relayed(&[LONG]).await;
    let by = client(&server);
    let [good, ..] = three(&by).await;
    for (name, asked, at_most) in [
        ("by policy", question(&good), CALLS / 20),
        ("fully consistent", asking(&good, fully(), None), CALLS / 2),
    ] {
        let (lookups, changes) = (relay.ran(LOOKUP), relay.ran(CHANGES));
        server.clock.sleep(LONGER);
        let calls: tokio::task::JoinSet<_> = (0..CALLS)
            .map(|_| {
                let (by, asked) = (by.clone(), asked.clone());
                async move { ask(&by, &asked).await.unwrap().active }
            })
            .collect();
        assert!(calls.join_all().await.into_iter().all(|active| active), "{name}");
        assert_eq!(relay.ran(LOOKUP), lookups, "{name}");
        let asked = relay.ran(CHANGES) - changes;
        assert!(asked <= at_most, "{name}: {asked}");
    }
    server.stop().await;
}
