//! What is not kept: the store is asked once, and nobody waits for others' questions.

use sqlx::{Connection as _, PgConnection};
use token_authority::proto::v1::{StreamVerifyRequest, stream_verify_response::Result as Answered};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::*;
use crate::support::{relay::Relay, server::unknown_token, wait::until};

const SOON: Duration = Duration::from_secs(20);

async fn relayed() -> (TestServer, Relay) {
    relayed_on(Place::new(Engine::Postgres).await).await
}

async fn relayed_on(mut place: Place) -> (TestServer, Relay) {
    let (relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    (TestServer::start_on(place, &[LONG]).await, relay)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_of_one_token_cost_one_read() {
    const CALLERS: usize = 200;
    let (server, relay) = relayed().await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let cold = token(&by, &user, &[], None).await.token;
    by.verify(&server.admin).await.unwrap();
    let before = relay.ran(LOOKUP);
    // So that all of them ask before there is an answer.
    relay.hold_answer_to(LOOKUP);
    let calls: tokio::task::JoinSet<_> = (0..CALLERS)
        .map(|_| {
            let (by, cold) = (by.clone(), cold.clone());
            async move { by.verify(&cold).await.unwrap().active }
        })
        .collect();
    until("it is asked", SOON, async || relay.ran(LOOKUP) > before).await;
    assert_eq!(server.verifier.counts().under_way, 1);
    relay.release();
    assert!(calls.join_all().await.into_iter().all(|active| active));
    assert_eq!(relay.ran(LOOKUP) - before, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_has_is_asked_for_once_in_a_while_and_garbage_never() {
    let (server, relay) = relayed().await;
    let by = client(&server);
    by.verify(&server.admin).await.unwrap();
    let before = relay.ran(LOOKUP);
    let nobodys = unknown_token();
    let is_unknown = async |token: &str| {
        assert_eq!(by.verify(token).await.unwrap().reason(), Reason::NotFound);
        relay.ran(LOOKUP) - before
    };
    let mut wrong_sum = nobodys.clone();
    let last = if wrong_sum.pop() == Some('0') { '1' } else { '0' };
    wrong_sum.push(last);
    for garbage in ["garbage", "pat_", &wrong_sum, &nobodys[1..], "v2/x/y"] {
        assert_eq!(is_unknown(garbage).await, 0, "{garbage}");
    }
    for _ in 0..3 {
        assert_eq!(is_unknown(&nobodys).await, 1);
    }
    server.clock.sleep(Duration::from_secs(6));
    for _ in 0..3 {
        assert_eq!(is_unknown(&nobodys).await, 2);
    }
    let asked = asking(&nobodys, fully(), None);
    assert_eq!(ask(&by, &asked).await.unwrap().reason(), Reason::NotFound);
    assert_eq!(relay.ran(LOOKUP) - before, 3, "who wants to know for sure is told for sure");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_read_keeps_nobody_from_what_is_kept() {
    let (server, relay) = relayed().await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let warm = token(&by, &user, &[], None).await.token;
    let cold = token(&by, &user, &[], None).await.token;
    assert!(by.verify(&warm).await.unwrap().active);
    let before = relay.ran(LOOKUP);
    relay.hold_answer_to(LOOKUP);
    let slow = tokio::spawn({
        let (by, cold) = (by.clone(), cold.clone());
        async move { by.verify(&cold).await.unwrap().active }
    });
    until("it is asked", SOON, async || relay.ran(LOOKUP) > before).await;
    for _ in 0..20 {
        assert!(by.verify(&warm).await.unwrap().active);
    }

    let (ask, asked) = mpsc::channel(8);
    for (id, token) in [(1, &cold), (2, &warm), (3, &cold), (4, &warm)] {
        let request = Some(question(token));
        ask.send(StreamVerifyRequest { id, request }).await.unwrap();
    }
    let answers = by.verification().stream_verify(ReceiverStream::new(asked)).await.unwrap();
    let mut answers = answers.into_inner();
    let mut next = async || {
        let answer = answers.next().await.unwrap().unwrap();
        let Some(Answered::Response(told)) = answer.result else { panic!("{answer:?}") };
        assert!(told.active);
        answer.id
    };
    assert_eq!([next().await, next().await], [2, 4]);
    assert!(!slow.is_finished());
    relay.release();
    let mut late = [next().await, next().await];
    late.sort_unstable();
    assert_eq!(late, [1, 3]);
    assert!(slow.await.unwrap());
    assert_eq!(relay.ran(LOOKUP) - before, 1);
    server.stop().await;
}

/// Who asks after a change was acknowledged is not told what somebody's read from before
/// the change is about to say.
#[tokio::test(flavor = "multi_thread")]
async fn read_from_before_a_change_is_not_shared_after_it() {
    let place = Place::new(Engine::Postgres).await;
    let url = place.database_url.clone().unwrap();
    let (server, relay) = relayed_on(place).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let direct = beside(&server, url, &[LONG]).await;
    let elsewhere = client(&direct);
    for is_own in [true, false] {
        let made = token(&by, &user, &[], None).await;
        by.verify(&server.admin).await.unwrap();
        let before = relay.ran(LOOKUP);
        relay.hold_answer_to(LOOKUP);
        let early = tokio::spawn({
            let (by, text) = (by.clone(), made.token.clone());
            async move { by.verify(&text).await.unwrap() }
        });
        until("it is asked", SOON, async || relay.ran(LOOKUP) > before).await;
        // The answer is on its way by now, at the latest when another one was given.
        elsewhere.verify(&made.token).await.unwrap();
        let changer = if is_own { &by } else { &elsewhere };
        let revision = changer.revoke(&id_of(&made)).await.unwrap().revision;
        // In its own process a change is seen at once; another's if that is asked for.
        let asked = if is_own {
            question(&made.token)
        } else {
            asking(&made.token, at_least(&revision), None)
        };
        let told = tokio::time::timeout(SOON, ask(&by, &asked)).await;
        let told = told.expect("it does not wait for the earlier read").unwrap();
        assert_eq!((told.reason(), &told.revision), (Reason::Revoked, &revision), "{is_own}");
        relay.release();
        early.await.unwrap();
        assert_eq!(by.verify(&made.token).await.unwrap().reason(), Reason::Revoked);
    }
    direct.stop().await;
    server.stop().await;
}

/// What a process changes itself it sees at once, though it can't know yet that history
/// was rewritten and its numbers were taken before.
#[tokio::test(flavor = "multi_thread")]
async fn own_change_is_seen_at_once_though_its_number_was_taken_before() {
    let place = Place::new(Engine::Postgres).await;
    let url = place.database_url.clone().unwrap();
    let (server, relay) = relayed_on(place).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let made = token(&by, &user, &[], None).await;
    for _ in 0..5 {
        by.revoke(&id_of(&token(&by, &user, &[], None).await)).await.unwrap();
    }
    assert!(by.verify(&made.token).await.unwrap().active);
    // What follows the changes does not get to know of it.
    let before = relay.ran(CHANGES);
    relay.hold_answer_to(CHANGES);
    until("it asks for changes", SOON, async || relay.ran(CHANGES) > before).await;
    let mut database = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql(
        "BEGIN; DELETE FROM changes WHERE revision > 2; UPDATE revision SET number = 2, \
         mark = (SELECT mark FROM changes WHERE revision = 2); COMMIT",
    )
    .execute(&mut database)
    .await
    .unwrap();
    by.revoke(&id_of(&made)).await.unwrap();
    assert_eq!(by.verify(&made.token).await.unwrap().reason(), Reason::Revoked);
    relay.release();
    server.stop().await;
}

/// Who asks while others are being read is read along with those who ask, too, and told
/// what is so of its own token.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_asked_about_at_the_same_time_are_read_together() {
    const CALLERS: usize = 60;
    let place = Place::new(Engine::Postgres).await;
    let url = place.database_url.clone().unwrap();
    let (server, relay) = relayed_on(place).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let mut tokens = Vec::new();
    for _ in 0..6 {
        tokens.push(token(&by, &user, &[], None).await);
    }
    by.revoke(&id_of(&tokens[1])).await.unwrap();
    let mut database = PgConnection::connect(&url).await.unwrap();
    sqlx::query("UPDATE credentials SET scopes = '?' WHERE id = $1")
        .bind(id_of(&tokens[2]))
        .execute(&mut database)
        .await
        .unwrap();
    by.verify(&server.admin).await.unwrap();
    let ran = || (relay.ran(LOOKUP), relay.ran(LOOKUPS));
    let before = ran();
    relay.hold();
    let asked = (0..CALLERS).map(|number| match tokens.get(number) {
        Some(made) => made.token.clone(),
        None => unknown_token(),
    });
    let calls: Vec<_> = asked
        .map(|text| {
            let by = by.clone();
            tokio::spawn(async move { by.verify(&text).await })
        })
        .collect();
    let counts = || server.verifier.counts();
    until("all are asked about", SOON, async || counts().under_way == CALLERS).await;
    relay.release();
    for (number, call) in calls.into_iter().enumerate() {
        let told = call.await.unwrap();
        match number {
            1 => assert_eq!(told.unwrap().reason(), Reason::Revoked),
            2 => assert_eq!(told.unwrap_err().code(), tonic::Code::Internal),
            0..6 => assert_eq!(told.unwrap().token_id, id_of(&tokens[number])),
            _ => assert_eq!(told.unwrap().reason(), Reason::NotFound),
        }
    }
    let after = ran();
    let (alone, together) = (after.0 - before.0, after.1 - before.1);
    assert!(together > 0 && alone + together <= 8, "{alone} alone, {together} times together");
    server.stop().await;
}

/// A server that says nothing any more, not even that it is gone, keeps nobody waiting
/// for ever.
#[tokio::test(flavor = "multi_thread")]
async fn read_that_is_never_answered_ends_though_its_caller_hung_up() {
    let mut place = Place::new(Engine::Postgres).await;
    let (relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let server = TestServer::start_on(place, &[LONG, "--database-wait=1s"]).await;
    let by = client(&server);
    let user = user(&by, "alice").await;
    let cold = token(&by, &user, &[], None).await.token;
    by.verify(&server.admin).await.unwrap();
    relay.hold();
    let short = Duration::from_millis(100);
    assert!(tokio::time::timeout(short, by.verify(&cold)).await.is_err());
    until("it is given up", SOON, async || server.verifier.counts().under_way == 0).await;
    relay.release();
    let is_good = async || by.verify(&cold).await.is_ok_and(|told| told.active);
    until("it answers again", SOON, is_good).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_token_costs_one_read_while_the_replica_is_away() {
    let mut place = Place::new(Engine::Postgres).await;
    let (relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let nowhere = place.path("nowhere");
    let replica = format!("--database-replica-url=postgres:///x?host={}", nowhere.display());
    let server = TestServer::start_on(place, &[LONG, &replica]).await;
    let by = client(&server);
    by.verify(&server.admin).await.unwrap();
    let before = relay.ran(LOOKUP);
    for asked in 1..=3 {
        assert_eq!(by.verify(&unknown_token()).await.unwrap().reason(), Reason::NotFound);
        assert_eq!(relay.ran(LOOKUP) - before, asked);
    }
    server.stop().await;
}
