use std::collections::HashSet;

use token_authority::proto::v1::{
    DeleteUserRequest, RevokeTokensRequest, UpdateUserRequest, revoke_tokens_request::Target,
};

use super::*;
use crate::support::{
    on_both_stores,
    server::{exceeded, wrong_fields},
};

on_both_stores![
    update_changes_exactly_what_is_named,
    what_can_not_be_changed_or_cleared_is_refused,
    to_change_nothing_takes_no_revision,
    update_is_seen_by_the_next_question,
    expired_token_is_active_again_once_its_owner_extends_it,
    etag_differs_after_each_change,
    narrowing_is_always_allowed_and_widening_only_up_to_the_callers_token,
    end_is_moved_only_as_far_as_the_callers_own,
    token_does_not_widen_itself,
    owner_is_changed_by_administrators_among_their_own_alone,
    token_that_changed_hands_lives_and_dies_with_its_new_owner,
    token_that_is_stronger_than_the_callers_does_not_change_hands,
    token_is_given_to_active_users_alone,
];

async fn update_changes_exactly_what_is_named(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let request = Create {
        api_client_id: Some(7),
        scopes: scopes(&["GET /a", "GET /b"]),
        expires_at: Some(server.after(HOUR)),
        ..Default::default()
    };
    let made = alice.by.create(request).await.unwrap();
    let mut expected = without_secret(&made);
    let new_end = Some(server.after(MINUTE));
    let full = |update_mask| Update {
        scopes: scopes(&["GET /c"]),
        expires_at: new_end,
        api_client_id: Some(8),
        update_mask,
        ..change(made.uuid())
    };
    /// A request, and what it changes.
    type Case = (Update, fn(&mut ApiClientAuthorization));
    let cases: [Case; 7] = [
        (change(made.uuid()), |_| ()),
        (full(mask(&[])), |_| ()),
        (full(mask(&["api_client_id"])), |it| it.api_client_id = Some(8)),
        (Update { expires_at: None, ..full(mask(&["expires_at"])) }, |it| it.expires_at = None),
        (Update { api_client_id: None, ..full(mask(&["api_client_id", "scopes"])) }, |it| {
            it.api_client_id = None;
            it.scopes = scopes(&["GET /c"]);
        }),
        (Update { scopes: scopes(&[]), ..change(made.uuid()) }, |it| it.scopes = scopes(&[])),
        (full(None), |it| {
            it.api_client_id = Some(8);
            it.scopes = scopes(&["GET /c"]);
        }),
    ];
    for (request, changed) in cases {
        server.clock.advance(SECOND);
        let shown = format!("{request:?}");
        changed(&mut expected);
        if request == full(None) {
            expected.expires_at = new_end;
        }
        let updated = alice.by.update(request).await.unwrap();
        expected.etag = updated.etag.clone();
        assert_eq!(updated, expected, "{shown}");
        assert_eq!(alice.by.get(made.uuid()).await.unwrap(), expected, "{shown}");
    }
}

async fn what_can_not_be_changed_or_cleared_is_refused(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let kept = server.kept().await;
    for field in ["scopes", "user_id"] {
        let request = Update { update_mask: mask(&[field]), ..change(alice.uuid()) };
        assert_eq!(wrong_fields(alice.by.update(request).await), [field], "it can't be cleared");
    }
    for path in [
        "uuid",
        "api_token",
        "owner_uuid",
        "created_by_ip_address",
        "last_used_by_ip_address",
        "last_used_at",
        "created_at",
        "etag",
        "select",
        "update_mask",
        "scopes.values",
        "SCOPES",
        "*",
        "",
        "nonsense",
        "a\0b",
    ] {
        let update_mask = mask(&["api_client_id", path]);
        let request = Update { update_mask, api_client_id: Some(1), ..change(alice.uuid()) };
        let wrong = wrong_fields(alice.by.update(request).await);
        assert_eq!(wrong, ["update_mask.paths[1]"], "{path:?}");
    }
    assert_eq!(server.kept().await, kept, "nothing is kept of what is refused");
    assert_eq!(alice.by.get(alice.uuid()).await.unwrap().etag, alice.token.etag);
}

async fn to_change_nothing_takes_no_revision(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let made = alice.by.create(Create::default()).await.unwrap();
    let revision = server.verify(&v2(&made)).await.revision;
    let kept = server.kept().await;
    server.clock.advance(SECOND);
    for _ in 0..2 {
        let told = alice.by.update(change(made.uuid())).await.unwrap();
        assert_eq!(without_use(&told), without_use(&made));
    }
    assert_eq!(server.kept().await, kept);
    assert_eq!(server.verify(&v2(&made)).await.revision, revision);
}

async fn update_is_seen_by_the_next_question(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let made = alice.by.create(Create::default()).await.unwrap();
    let (uuid, text) = (made.uuid(), v2(&made));
    assert_eq!(server.verify(&text).await.scopes, ["all"]);
    for entries in [&["GET /a"][..], &[], &["POST /b", "GET /a"]] {
        alice.by.update(Update { scopes: scopes(entries), ..change(uuid) }).await.unwrap();
        assert_eq!(server.verify(&text).await.scopes, entries);
        assert_eq!(holder(&server, &text).current().await.unwrap().scopes, scopes(entries));
    }
    let end =
        |expires_at| Update { expires_at, update_mask: mask(&["expires_at"]), ..change(uuid) };
    for (expires_at, expected) in [
        (Some(server.after(MINUTE)), Reason::Unspecified),
        (Some(server.after(Duration::ZERO)), Reason::Expired),
        (Some(server.after(HOUR)), Reason::Unspecified),
        (Some(Timestamp::default()), Reason::Expired),
        (None, Reason::Unspecified),
    ] {
        let updated = alice.by.update(end(expires_at)).await.unwrap();
        assert_eq!(updated.expires_at, expires_at);
        let told = server.verify(&text).await;
        assert_eq!(told.reason(), expected, "{expires_at:?}");
        let end = if told.active { told.expires_at } else { told.refusal.unwrap().expires_at };
        assert_eq!(end, expires_at);
    }
}

async fn expired_token_is_active_again_once_its_owner_extends_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let request = Create { expires_at: Some(server.after(MINUTE)), ..Default::default() };
    let made = alice.by.create(request).await.unwrap();
    let by = holder(&server, &v2(&made));
    server.clock.advance(MINUTE - Duration::from_micros(1));
    assert_eq!(reason(&server, &v2(&made)).await, Reason::Unspecified);
    by.current().await.unwrap();
    server.clock.advance(Duration::from_micros(1));
    assert_eq!(reason(&server, &v2(&made)).await, Reason::Expired, "that instant included");
    let extend = Update { expires_at: Some(server.after(MINUTE)), ..change(made.uuid()) };
    assert_eq!(refused(by.update(extend.clone()).await), unauthenticated(), "it can't itself");
    alice.by.update(extend).await.unwrap();
    assert_eq!(reason(&server, &v2(&made)).await, Reason::Unspecified);
    by.current().await.unwrap();
    server.clock.advance(MINUTE);
    assert_eq!(reason(&server, &v2(&made)).await, Reason::Expired);
}

async fn etag_differs_after_each_change(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = chief(&server, "chief").await;
    let alice = person(&server, "alice").await;
    let made = chief.by.create(Create::default()).await.unwrap();
    let uuid = made.uuid();
    let mut etags = HashSet::from([made.etag.clone().unwrap()]);
    for request in [
        Update { scopes: scopes(&["GET /a"]), ..change(uuid) },
        Update { scopes: scopes(&["GET /a", "GET /b"]), ..change(uuid) },
        Update { scopes: scopes(&[]), ..change(uuid) },
        Update { expires_at: Some(server.after(HOUR)), ..change(uuid) },
        Update { api_client_id: Some(1), ..change(uuid) },
        Update { user_id: Some(alice.number), ..change(uuid) },
    ] {
        let shown = format!("{request:?}");
        let updated = chief.by.update(request).await.unwrap();
        assert!(etags.insert(updated.etag.unwrap()), "{shown}");
    }
    let told = alice.by.get(uuid).await.unwrap();
    assert!(!etags.insert(told.etag.unwrap()), "to look at it changes nothing");
    assert!(etags.insert(alice.token.etag.unwrap()), "each token has its own");
}

/// A token of its owner that can do no more than update, and reach this.
async fn updater(server: &TestServer, owner: &Person, entries: &[&str]) -> Holder {
    let update = route("UpdateApiClientAuthorization");
    let token = server.authorization_of(&owner.id, Some(&[&[&*update], entries].concat())).await;
    holder(server, &v2(&token))
}

async fn narrowing_is_always_allowed_and_widening_only_up_to_the_callers_token(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let limited = updater(&server, &alice, &["GET /a/", "POST /p"]).await;
    for (before, after, is_allowed) in [
        // Narrower, or the same.
        (&["all"][..], &["DELETE /x"][..], true),
        (&["all"], &[], true),
        (&["GET /x/", "GET /y"], &["GET /x/1"], true),
        (&["GET /x/", "GET /y"], &["GET /y", "GET /x/"], true),
        (&["GET /x/"], &["HEAD /x/1"], true),
        // Wider, and covered by the caller's.
        (&[], &["GET /a/"], true),
        (&["GET /x"], &["GET /a/1", "POST /p"], true),
        // Wider, and not covered.
        (&[], &["all"], false),
        (&["GET /x"], &["GET /x/"], false),
        (&["GET /x"], &["GET /x", "GET /a/1"], false),
        (&["GET /a/1"], &["GET /a/1", "GET /b"], false),
        (&["GET /a/1"], &["GET /a"], false),
        (&["POST /p"], &["POST /p/"], false),
        (&["HEAD /x"], &["GET /x"], false),
    ] {
        let made = server.authorization_of(&alice.id, Some(before)).await;
        let request = Update { scopes: scopes(after), ..change(made.uuid()) };
        let answer = limited.update(request).await;
        let expected = if is_allowed {
            assert_eq!(answer.unwrap().scopes, scopes(after), "{before:?} to {after:?}");
            after
        } else {
            assert_eq!(exceeded(answer), "scopes", "{before:?} to {after:?}");
            before
        };
        assert_eq!(server.verify(&v2(&made)).await.scopes, expected);
    }
}

async fn end_is_moved_only_as_far_as_the_callers_own(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let request = Create {
        scopes: scopes(&[&route("UpdateApiClientAuthorization"), "GET /a"]),
        expires_at: Some(server.after(HOUR)),
        ..Default::default()
    };
    let limited = alice.by.create(request).await.unwrap();
    let limited = holder(&server, &v2(&limited));
    let (soon, then) = (Some(server.after(MINUTE)), Some(server.after(HOUR)));
    let late = Some(server.after(HOUR + Duration::from_micros(1)));
    for (entries, before, after, field) in [
        (&["GET /a"][..], soon, then, None),
        (&["GET /a"], soon, late, Some("expires_at")),
        (&["GET /a"], soon, None, Some("expires_at")),
        (&["GET /a"], None, late, None),
        (&["all"], None, late, None),
        (&["all"], late, soon, None),
        // An end that is later keeps all the rest for longer.
        (&["GET /b"], soon, then, Some("scopes")),
        (&["all"], soon, then, Some("scopes")),
    ] {
        let request = Create { scopes: scopes(entries), expires_at: before, ..Default::default() };
        let made = alice.by.create(request).await.unwrap();
        let update_mask = mask(&["expires_at"]);
        let request = Update { expires_at: after, update_mask, ..change(made.uuid()) };
        let answer = limited.update(request).await;
        let what = format!("{entries:?} {before:?} to {after:?}");
        match field {
            None => assert_eq!(answer.unwrap().expires_at, after, "{what}"),
            Some(field) => assert_eq!(exceeded(answer), field, "{what}"),
        }
    }
}

async fn token_does_not_widen_itself(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let request = Create {
        scopes: scopes(&[&route("UpdateApiClientAuthorization"), "GET /a/"]),
        expires_at: Some(server.after(HOUR)),
        ..Default::default()
    };
    let made = alice.by.create(request).await.unwrap();
    let (by, uuid) = (holder(&server, &v2(&made)), made.uuid());
    let later = Update { expires_at: Some(server.after(HOUR + SECOND)), ..change(uuid) };
    assert_eq!(exceeded(by.update(later).await), "expires_at");
    let never = Update { update_mask: mask(&["expires_at"]), ..change(uuid) };
    assert_eq!(exceeded(by.update(never).await), "expires_at");
    let all = Update { scopes: scopes(&["all"]), ..change(uuid) };
    assert_eq!(exceeded(by.update(all).await), "scopes");
    let less = Update { scopes: scopes(&["GET /a/1"]), ..change(uuid) };
    by.update(less).await.unwrap();
    let back = Update { scopes: made.scopes.clone(), ..change(uuid) };
    assert_eq!(refused(by.update(back).await), denied("CALLER_SCOPE"), "it gave that up");
}

async fn owner_is_changed_by_administrators_among_their_own_alone(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let bob = person(&server, "bob").await;
    let chief = chief(&server, "chief").await;
    let give = |uuid: &str, user_id| Update { user_id: Some(user_id), ..change(uuid) };
    let kept = server.kept().await;
    assert_eq!(
        refused(alice.by.update(give(alice.uuid(), bob.number)).await),
        denied("CALLER_ROLE")
    );
    assert_eq!(refused(chief.by.update(give(alice.uuid(), bob.number)).await), not_found());
    for unknown in [i64::MAX, 0, -1] {
        let answer = chief.by.update(give(chief.uuid(), unknown)).await;
        assert_refused(answer, &denied("CALLER_ROLE"), "unknown");
    }
    assert_eq!(server.kept().await, kept, "nothing is kept of what is refused");

    let made = chief.by.create(Create::default()).await.unwrap();
    assert!(who(&server, &v2(&made)).await.unwrap().user.unwrap().is_admin);
    let given = chief.by.update(give(made.uuid(), alice.number)).await.unwrap();
    let expected = ApiClientAuthorization {
        user_id: Some(alice.number),
        owner_uuid: Some(alice.id.clone()),
        etag: given.etag.clone(),
        last_used_at: given.last_used_at,
        last_used_by_ip_address: given.last_used_by_ip_address.clone(),
        ..without_secret(&made)
    };
    assert_eq!(given, expected);
    let told = alice.by.get(made.uuid()).await.unwrap();
    assert_eq!((told.owner_uuid, told.etag), (given.owner_uuid, given.etag));
    assert_eq!(refused(chief.by.get(made.uuid()).await), not_found());
    assert!(!chief.by.uuids().await.contains(&made.uuid().to_owned()));
    assert!(alice.by.uuids().await.contains(&made.uuid().to_owned()));
    assert_eq!(server.verify(&v2(&made)).await.user_id, alice.id);
    let answer = holder(&server, &v2(&made)).create_system(CreateSystem::default()).await;
    assert_eq!(refused(answer), denied("CALLER_ROLE"), "it acts for a regular user now");
}

async fn token_that_changed_hands_lives_and_dies_with_its_new_owner(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let chief = chief(&server, "chief").await;
    let revoke_all_of = async |user: &Person| {
        let request = RevokeTokensRequest {
            target: Some(Target::User(user.id.clone())),
            ..Default::default()
        };
        server.directory(&server.admin).revoke_tokens(request).await.unwrap();
    };
    let made = chief.by.create(Create::default()).await.unwrap();
    revoke_all_of(&alice).await;
    let give = Update { user_id: Some(alice.number), ..change(made.uuid()) };
    chief.by.update(give).await.unwrap();
    assert_eq!(reason(&server, &v2(&made)).await, Reason::Unspecified, "it came later");
    revoke_all_of(&chief).await;
    assert_eq!(reason(&server, &chief.text()).await, Reason::Revoked);
    assert_eq!(reason(&server, &v2(&made)).await, Reason::Unspecified, "it is chief's no more");
    revoke_all_of(&alice).await;
    assert_eq!(reason(&server, &v2(&made)).await, Reason::Revoked);
}

async fn token_that_is_stronger_than_the_callers_does_not_change_hands(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let chief = chief(&server, "chief").await;
    let limited = updater(&server, &chief, &["GET /a/"]).await;
    let weak = server.authorization_of(&chief.id, Some(&["GET /a/1"])).await;
    let give = |uuid: &str| Update { user_id: Some(alice.number), ..change(uuid) };
    assert_eq!(exceeded(limited.update(give(chief.uuid())).await), "scopes");
    // Not even if it is made weaker along with that.
    let narrower = Update { scopes: scopes(&["GET /b"]), ..give(chief.uuid()) };
    assert_eq!(exceeded(limited.update(narrower).await), "scopes");
    limited.update(give(weak.uuid())).await.unwrap();
    assert_eq!(alice.by.get(weak.uuid()).await.unwrap().uuid, weak.uuid);
}

async fn token_is_given_to_active_users_alone(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let chief = chief(&server, "chief").await;
    let give = Update { user_id: Some(alice.number), ..change(chief.uuid()) };
    let inactive =
        UpdateUserRequest { user: alice.id.clone(), is_active: Some(false), ..Default::default() };
    server.directory(&server.admin).update_user(inactive).await.unwrap();
    let expected = (Code::FailedPrecondition, "USER_INACTIVE".to_owned());
    assert_eq!(refused(chief.by.update(give.clone()).await), expected);
    let delete = DeleteUserRequest { user: alice.id.clone() };
    server.directory(&server.admin).delete_user(delete).await.unwrap();
    assert_eq!(refused(chief.by.update(give).await), denied("CALLER_ROLE"), "it is unknown");
    assert_eq!(chief.by.current().await.unwrap().owner_uuid(), chief.id);
}
