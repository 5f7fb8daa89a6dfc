use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;
use crate::support::on_both_stores;

on_both_stores![
    of_two_who_narrow_at_once_the_wider_does_not_undo_the_narrower,
    of_two_who_shorten_at_once_the_later_end_does_not_undo_the_earlier,
    update_never_revives_what_is_deleted_at_once,
    token_is_deleted_only_once_by_many,
    who_is_deleted_makes_no_token_after_it,
    who_is_narrowed_makes_no_token_with_what_it_had,
];

/// Rounds of what happens at once: which comes first is not ours to choose.
const ROUNDS: usize = 25;

/// What a token that can do no more than update comes to, when two such updates are
/// called at once; the one that goes further comes second here.
async fn race(
    server: &TestServer,
    alice: &Person,
    made: &ApiClientAuthorization,
    updates: [Update; 2],
) -> ApiClientAuthorization {
    let update = route("UpdateApiClientAuthorization");
    let limited = server.authorization_of(&alice.id, Some(&[&update])).await;
    let [one, two] = [(); 2].map(|()| holder(server, &v2(&limited)));
    let [first, second] = updates;
    let (first, second) = tokio::join!(one.update(first), two.update(second));
    second.expect("it narrows whatever comes first");
    if first.is_err() {
        assert_eq!(refused(first).1, "EXCEEDS_CALLER", "the other came first");
    }
    alice.by.get(made.uuid()).await.unwrap()
}

async fn of_two_who_narrow_at_once_the_wider_does_not_undo_the_narrower(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    for _ in 0..ROUNDS {
        let made = alice.by.create(Create::default()).await.unwrap();
        let narrow = |entries| Update { scopes: scopes(entries), ..change(made.uuid()) };
        let updates = [narrow(&["GET /a", "GET /b"]), narrow(&["GET /a"])];
        let told = race(&server, &alice, &made, updates).await;
        assert_eq!(told.scopes, scopes(&["GET /a"]));
        assert_eq!(server.verify(&v2(&made)).await.scopes, ["GET /a"]);
    }
}

async fn of_two_who_shorten_at_once_the_later_end_does_not_undo_the_earlier(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let (soon, late) = (Some(server.after(MINUTE)), Some(server.after(HOUR)));
    for _ in 0..ROUNDS {
        let made = alice.by.create(Create::default()).await.unwrap();
        let end = |expires_at| Update { expires_at, ..change(made.uuid()) };
        let told = race(&server, &alice, &made, [end(late), end(soon)]).await;
        assert_eq!(told.expires_at, soon);
        assert_eq!(server.verify(&v2(&made)).await.expires_at, soon);
    }
}

async fn update_never_revives_what_is_deleted_at_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let expires_at = Some(server.after(HOUR));
    for _ in 0..ROUNDS {
        let made = alice.by.create(Create { expires_at, ..Default::default() }).await.unwrap();
        let never = Update { update_mask: mask(&["expires_at"]), ..change(made.uuid()) };
        let (deleted, updated) = tokio::join!(alice.by.delete(made.uuid()), alice.by.update(never));
        let deleted = deleted.unwrap();
        match updated {
            Ok(updated) => {
                assert_eq!(updated.expires_at, None);
                assert_eq!(deleted, updated, "it is returned as it was");
            }
            Err(status) => {
                assert_eq!(status.code(), Code::NotFound, "{status}");
                assert_eq!(deleted.expires_at, expires_at);
            }
        }
        assert_eq!(reason(&server, &v2(&made)).await, Reason::Revoked);
        assert_eq!(refused(alice.by.get(made.uuid()).await), not_found());
    }
}

async fn token_is_deleted_only_once_by_many(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let by = Arc::new(alice.by);
    for _ in 0..ROUNDS {
        let made = by.create(Create::default()).await.unwrap();
        let mut deletes = JoinSet::new();
        for _ in 0..4 {
            let (by, uuid) = (by.clone(), made.uuid().to_owned());
            deletes.spawn(async move { by.delete(&uuid).await });
        }
        let (deleted, refusals): (Vec<_>, Vec<_>) =
            deletes.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!(deleted.len(), 1);
        for answer in refusals {
            assert_eq!(refused(answer), not_found());
        }
    }
}

async fn who_is_deleted_makes_no_token_after_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    for _ in 0..5 {
        let caller = alice.by.create(Create::default()).await.unwrap();
        let by = Arc::new(holder(&server, &v2(&caller)));
        let mut creates = JoinSet::new();
        for _ in 0..8 {
            let by = by.clone();
            creates.spawn(async move { by.create(Create::default()).await });
        }
        creates.join_next().await.unwrap().unwrap().unwrap();
        by.delete(caller.uuid()).await.unwrap();
        let all = "SELECT count(*) FROM credentials";
        let by_then = server.place.number(all).await;
        for answer in creates.join_all().await {
            if answer.is_err() {
                assert_eq!(refused(answer), unauthenticated());
            }
        }
        assert_eq!(refused(by.create(Create::default()).await), unauthenticated());
        assert_eq!(server.place.number(all).await, by_then, "none is made after it");
    }
}

async fn who_is_narrowed_makes_no_token_with_what_it_had(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let create = route("CreateApiClientAuthorization");
    for _ in 0..5 {
        let caller = alice.by.create(Create::default()).await.unwrap();
        let by = Arc::new(holder(&server, &v2(&caller)));
        let mut creates = JoinSet::new();
        for _ in 0..8 {
            let by = by.clone();
            creates.spawn(async move { by.create(Create::default()).await });
        }
        creates.join_next().await.unwrap().unwrap().unwrap();
        let narrow = Update { scopes: scopes(&[&create]), ..change(caller.uuid()) };
        alice.by.update(narrow).await.unwrap();
        let filters = vec![filter("scopes", "=", json!(["all"]))];
        let all = List { filters, ..Default::default() };
        let by_then = alice.by.list(all.clone()).await.unwrap().items_available;
        for answer in creates.join_all().await {
            if answer.is_err() {
                let expected = (Code::Unavailable, "CALLER_CHANGED".to_owned());
                assert_refused(answer, &expected, "it is to be asked again");
            }
        }
        assert_eq!(by.create(Create::default()).await.unwrap().scopes, scopes(&[&create]));
        assert_eq!(alice.by.list(all).await.unwrap().items_available, by_then);
    }
}
