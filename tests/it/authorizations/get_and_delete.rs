use token_authority::proto::v1::{
    Consistency, Refusal, RevokePersonalAccessTokenRequest, TokenKind, consistency::Requirement,
};

use super::*;
use crate::support::{on_both_stores, server::wrong_fields, wait::until};

on_both_stores![
    token_is_got_by_its_owner_also_when_it_is_expired,
    foreign_unknown_malformed_and_deleted_uuids_are_told_alike,
    deleted_token_is_returned_as_it_was_and_is_gone_at_once,
    token_deletes_itself_whatever_its_scopes,
    last_use_and_its_address_are_told_and_are_no_change,
];

async fn token_is_got_by_its_owner_also_when_it_is_expired(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let request = Create { expires_at: Some(server.after(MINUTE)), ..Default::default() };
    let made = alice.by.create(request).await.unwrap();
    for _ in 0..2 {
        assert_eq!(alice.by.get(made.uuid()).await.unwrap(), without_secret(&made));
        assert!(alice.by.uuids().await.contains(&made.uuid().to_owned()));
        server.clock.advance(MINUTE);
    }
    let everything = server.text_of(&alice.id, &["admin:all"]).await;
    assert_eq!(holder(&server, &everything).get(made.uuid()).await.unwrap(), without_secret(&made));
    assert_eq!(alice.by.delete(made.uuid()).await.unwrap(), without_secret(&made));
}

async fn foreign_unknown_malformed_and_deleted_uuids_are_told_alike(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let bob = person(&server, "bob").await;
    let deleted = alice.by.create(Create::default()).await.unwrap();
    alice.by.delete(deleted.uuid()).await.unwrap();
    let pat = server.token_of(&alice.id, &[]).await.personal_access_token.unwrap().id;
    let long = "z".repeat(10_000);
    let kept = server.kept().await;
    for uuid in [
        bob.uuid(),
        deleted.uuid(),
        UNKNOWN,
        &pat,
        " ",
        "\0",
        "zzzzz-gj3su-000000000000000",
        &alice.uuid().to_uppercase(),
        &alice.text(),
        "%",
        &long,
    ] {
        assert_refused(alice.by.get(uuid).await, &not_found(), uuid);
        assert_refused(alice.by.update(change(uuid)).await, &not_found(), uuid);
        assert_refused(alice.by.delete(uuid).await, &not_found(), uuid);
    }
    for answer in
        [alice.by.get("").await, alice.by.update(change("")).await, alice.by.delete("").await]
    {
        assert_eq!(wrong_fields(answer), ["uuid"], "it must be named");
    }
    assert_eq!(server.kept().await, kept);
    // Nor is one reached as if it were of the other kind.
    let request = RevokePersonalAccessTokenRequest {
        id: alice.uuid().to_owned(),
        include_descendants: false,
    };
    let answer = server.tokens(&server.admin).revoke_personal_access_token(request).await;
    assert_eq!(refused(answer), not_found());
    assert_eq!(reason(&server, &alice.text()).await, Reason::Unspecified);
}

async fn deleted_token_is_returned_as_it_was_and_is_gone_at_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let request = Create { expires_at: Some(server.after(HOUR)), ..Default::default() };
    let made = alice.by.create(request).await.unwrap();
    assert_eq!(reason(&server, &v2(&made)).await, Reason::Unspecified);
    server.clock.advance(SECOND);
    let as_it_was = alice.by.get(made.uuid()).await.unwrap();
    let request = Delete { uuid: made.uuid().to_owned() };
    let answer = alice.by.0.clone().delete_api_client_authorization(request).await.unwrap();
    let answer = answer.into_inner();
    let deleted = answer.api_client_authorization.unwrap();
    assert_eq!(without_use(&deleted), without_use(&as_it_was));
    for text in [v2(&made), made.api_token().to_owned()] {
        let requirement = Some(Requirement::MinRevision(answer.revision.clone()));
        let request = VerifyRequest {
            token: text.clone(),
            consistency: Some(Consistency { requirement, max_stale: None }),
            ..Default::default()
        };
        let told = ask(&server, request).await;
        assert_eq!(told.reason(), Reason::Revoked);
        let expected = Refusal {
            token_id: made.uuid().to_owned(),
            kind: TokenKind::ApiClientAuthorization.into(),
            user_id: alice.id.clone(),
            expires_at: made.expires_at,
            revoked_at: Some(server.after(Duration::ZERO)),
            missing_scopes: Vec::new(),
        };
        assert_eq!(told.refusal, Some(expected));
        assert_eq!(refused(who(&server, &text).await), unauthenticated());
        assert_eq!(refused(holder(&server, &text).list(List::default()).await), unauthenticated());
    }
    assert_eq!(alice.by.uuids().await, [alice.uuid()]);
    let kept = server.kept().await;
    assert_eq!(refused(alice.by.delete(made.uuid()).await), not_found(), "only once");
    let revive = Update { expires_at: Some(server.after(HOUR)), ..change(made.uuid()) };
    assert_eq!(refused(alice.by.update(revive).await), not_found(), "for good");
    assert_eq!(server.kept().await, kept);
}

async fn token_deletes_itself_whatever_its_scopes(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let bob = person(&server, "bob").await;
    for entries in [&[][..], &["GET /a"]] {
        let made = server.authorization_of(&alice.id, Some(entries)).await;
        let by = holder(&server, &v2(&made));
        for other in [alice.uuid(), bob.uuid(), UNKNOWN] {
            assert_refused(by.delete(other).await, &denied("CALLER_SCOPE"), other);
        }
        assert_eq!(by.delete(made.uuid()).await.unwrap().uuid, made.uuid);
        assert_eq!(refused(by.current().await), unauthenticated());
        assert_eq!(reason(&server, &v2(&made)).await, Reason::Revoked);
    }
    assert_eq!(reason(&server, &alice.text()).await, Reason::Unspecified);
}

async fn last_use_and_its_address_are_told_and_are_no_change(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let made = alice.by.create(Create::default()).await.unwrap();
    let revision = server.verify(&alice.text()).await.revision;
    let kept = server.kept().await;
    let mut expected = without_secret(&made);
    for (address, after) in [("203.0.113.9", SECOND), ("2001:db8::1", HOUR)] {
        server.clock.advance(after);
        let request = VerifyRequest {
            token: v2(&made),
            client_ip: Some(address.to_owned()),
            ..Default::default()
        };
        assert!(ask(&server, request).await.active);
        until("the use is written", Duration::from_secs(10), async || {
            alice.by.get(made.uuid()).await.unwrap().last_used_by_ip_address() == address
        })
        .await;
        expected.last_used_at = Some(server.after(Duration::ZERO));
        expected.last_used_by_ip_address = Some(address.to_owned());
        assert_eq!(alice.by.get(made.uuid()).await.unwrap(), expected, "with the same etag");
    }
    let listed = alice.by.list(List::default()).await.unwrap().items;
    assert!(listed.contains(&expected));
    assert_eq!(server.kept().await, kept);
    assert_eq!(server.verify(&alice.text()).await.revision, revision, "use is no change");
}
