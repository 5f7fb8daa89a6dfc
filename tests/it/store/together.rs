//! Revocations that are asked for at the same time.

use std::{pin::Pin, task::Poll};

use token_authority::store::{Change, Revoked, Touched};

use super::*;
use crate::support::{blocker::WAITING, relay::Relay, wait::until};

on_both_stores![
    revocations_at_once_are_each_answered_for_itself,
    revocation_that_waits_for_another_change_keeps_no_other_waiting,
    revocation_that_nobody_waits_for_any_more_keeps_no_other_waiting,
];

type Answer = Result<Option<(Revoked, Revision)>, StoreError>;

const SOON: Duration = Duration::from_secs(20);

/// A revocation that is asked for.
async fn asked<'a>(
    store: &'a TestStore,
    id: &'a CredentialId,
    reach: &'a Reach,
    actor: &'a Actor,
) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>> {
    let target = Target { reach, ..token(id) };
    let mut asked = store.revoke_credential(target, false, actor);
    std::future::poll_fn(|context| {
        assert!(asked.as_mut().poll(context).is_pending());
        Poll::Ready(())
    })
    .await;
    asked
}

async fn revocations_at_once_are_each_answered_for_itself(engine: Engine) {
    let store = TestStore::new(engine).await;
    let told = store.told();
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let mut ids = Vec::new();
    for owner in [&alice, &alice, &alice, &bob, &alice] {
        ids.push(store.keep(&new_token(&owner.id)).await.credential.id);
    }
    store.revoke(&ids[4]).await;
    let nobodys = CredentialId("nobody's".to_owned());
    let of_alice = Reach { owner: Some(alice.id.clone()), ..Reach::default() };
    let spared = Reach { spares_administrators: true, ..Reach::default() };
    let unbound = Reach { workspace_id: Some("w".to_owned()), ..Reach::default() };

    // One that waits for the revision, and what is asked for meanwhile.
    let mut other = Sql::open(&store.place).await;
    other.run(begin(engine)).await.unwrap();
    other.run("UPDATE revision SET number = number").await.unwrap();
    let calls = [
        (&ids[0], &ANYWHERE),
        (&ids[1], &of_alice),
        (&nobodys, &ANYWHERE),
        (&ids[3], &of_alice),
        (&store.first, &spared),
        (&ids[2], &unbound),
        (&ids[2], &of_alice),
        (&ids[2], &ANYWHERE),
        (&ids[4], &ANYWHERE),
    ];
    let actors: Vec<Actor> = (0..)
        .zip(&calls)
        .map(|(number, _)| Actor {
            request_id: Some(format!("call {number}")),
            ..store.actor_at(number)
        })
        .collect();
    let mut waiting = Vec::new();
    for ((id, reach), actor) in calls.iter().zip(&actors) {
        waiting.push(asked(&store, id, reach, actor).await);
    }
    other.run("COMMIT").await.unwrap();
    let mut answers = Vec::new();
    for asked in waiting {
        answers.push(asked.await.unwrap());
    }

    let changed = |call: usize| {
        let (revoked, revision) = answers[call].as_ref().unwrap();
        assert!(!revoked.more);
        assert_eq!(revoked.kept.credential.id, *calls[call].0);
        assert!(revoked.kept.credential.revoked_at.is_some());
        revoked.changed.then_some(*revision)
    };
    for absent in [2, 3, 4, 5] {
        assert_eq!(answers[absent], None, "{absent}");
    }
    assert_eq!(changed(8), None);
    // One of the two who asked for the same has done it.
    let twice = if changed(6).is_some() { 6 } else { 7 };
    assert_eq!([6, 7].map(|call| changed(call).is_some()), [twice == 6, twice == 7]);
    let made: Vec<(Revision, &CredentialId, usize)> =
        [0, 1, twice].map(|call| (changed(call).unwrap(), calls[call].0, call)).into();
    let numbers: HashSet<i64> = made.iter().map(|(revision, ..)| revision.number).collect();
    assert_eq!(numbers, HashSet::from([2, 3, 4]));
    let told = told.lock().unwrap().clone();
    let audit = store
        .texts(
            "SELECT CAST(revision AS TEXT) || ' ' || targets || ' ' || request_id FROM audit \
             WHERE action = 'credential.revoke' ORDER BY revision",
        )
        .await;
    for (revision, id, call) in made {
        let change = Change { revision, touched: vec![Touched::Credential(id.0.clone())] };
        assert_eq!(told.iter().filter(|told| **told == change).count(), 1);
        let row = format!(r#"{} ["{}"] call {call}"#, revision.number, id.0);
        assert_eq!(audit.iter().filter(|audit| **audit == row).count(), 1, "{row}: {audit:?}");
    }
    assert_eq!((told.len(), audit.len()), (4, 4));
    let live = "SELECT id FROM credentials WHERE revoked_at IS NULL";
    let live: HashSet<String> = store.texts(live).await.into_iter().collect();
    assert_eq!(live, HashSet::from([store.first.0.clone(), ids[3].0.clone()]));
    if engine == Engine::Postgres {
        let transactions = "SELECT DISTINCT CAST(xmin AS TEXT) FROM changes WHERE revision > 1";
        assert!(store.texts(transactions).await.len() <= 2, "what waits is made together");
    }
}

async fn revocation_that_waits_for_another_change_keeps_no_other_waiting(engine: Engine) {
    let store = TestStore::new(engine).await;
    let held = store.keep(&new_token(&store.administrator.id)).await.credential.id;
    let other = store.keep(&new_token(&store.administrator.id)).await.credential.id;
    let actor = store.actor();
    let mut holder = Sql::open(&store.place).await;
    if engine == Engine::Postgres {
        holder.run("BEGIN").await.unwrap();
        let hold = format!("SELECT id FROM credentials WHERE id = '{}' FOR UPDATE", held.0);
        holder.run(&hold).await.unwrap();
    }
    let first = asked(&store, &held, &ANYWHERE, &actor).await;
    let second = asked(&store, &other, &ANYWHERE, &actor).await;
    let (revoked, revision) = second.await.unwrap().unwrap();
    assert!(revoked.changed);
    if engine == Engine::Postgres {
        assert_eq!(revision.number, 1);
        holder.run("COMMIT").await.unwrap();
    }
    assert!(first.await.unwrap().unwrap().0.changed);
    assert_eq!(store.head().await.unwrap().number, 2);
}

async fn revocation_that_nobody_waits_for_any_more_keeps_no_other_waiting(engine: Engine) {
    let store = TestStore::new(engine).await;
    let actor = store.actor();
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(store.keep(&new_token(&store.administrator.id)).await.credential.id);
    }
    for id in &ids[..3] {
        drop(asked(&store, id, &ANYWHERE, &actor).await);
    }
    let last = asked(&store, &ids[3], &ANYWHERE, &actor).await;
    assert!(last.await.unwrap().unwrap().0.changed);
}

/// Its owner becomes an administrator, whom the caller spares, after it was revoked and
/// before that is committed.
#[tokio::test(flavor = "multi_thread")]
async fn revocation_of_what_goes_out_of_reach_meanwhile_is_undone_and_the_others_are_made() {
    const REVOKE: &str = "SET revoked_at = held.at";
    let mut place = Place::new(Engine::Postgres).await;
    let (relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let store = TestStore::on(place).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let mut ids = Vec::new();
    for owner in [&bob, &alice, &bob] {
        ids.push(store.keep(&new_token(&owner.id)).await.credential.id);
    }
    let spared = Reach { spares_administrators: true, ..Reach::default() };
    let actor = store.actor();
    // While the first waits for the revision, the others come, and wait together.
    let mut other = Sql::open(&store.place).await;
    other.run(begin(Engine::Postgres)).await.unwrap();
    other.run("UPDATE revision SET number = number").await.unwrap();
    let first = asked(&store, &ids[0], &spared, &actor).await;
    until("it waits", SOON, async || store.place.number(WAITING).await == 1).await;
    let lost = asked(&store, &ids[1], &spared, &actor).await;
    let last = asked(&store, &ids[2], &spared, &actor).await;
    relay.hold_answer_to(REVOKE);
    other.run("COMMIT").await.unwrap();
    until("both are revoked", SOON, async || relay.has_caught()).await;
    store.sql(&format!("UPDATE users SET is_admin = TRUE WHERE id = '{}'", alice.id)).await;
    relay.release();
    let mut revisions = Vec::new();
    for made in [first, last] {
        let (revoked, revision) = made.await.unwrap().unwrap();
        assert!(revoked.changed);
        revisions.push(revision.number);
    }
    assert_eq!(lost.await.unwrap(), None);
    assert_eq!(revisions, [1, 2]);
    let live = "SELECT id FROM credentials WHERE revoked_at IS NULL";
    let live: HashSet<String> = store.texts(live).await.into_iter().collect();
    assert_eq!(live, HashSet::from([store.first.0.clone(), ids[1].0.clone()]));
    let audited = "SELECT targets FROM audit WHERE action = 'credential.revoke' ORDER BY revision";
    let revoked = [&ids[0], &ids[2]].map(|id| format!(r#"["{}"]"#, id.0));
    assert_eq!(store.texts(audited).await, revoked);
    assert!(relay.ran(REVOKE) >= 2);
}
