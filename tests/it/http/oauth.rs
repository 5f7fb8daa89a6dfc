//! Introspection by RFC 7662 and revocation by RFC 7009.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::StatusCode;
use prost_types::FieldMask;
use serde_json::{Value, json};
use token_authority::proto::v1::{
    CreateApiClientAuthorizationRequest, RotatePersonalAccessTokenRequest,
    UpdateApiClientAuthorizationRequest, UpdateUserRequest,
};

use tonic::Code;

use super::raw::{Answered, send};
use crate::support::{
    Engine, on_both_stores,
    server::{Place, TestServer, unknown_token, v2},
};

on_both_stores![
    introspection_tells_all_of_a_good_token_and_nothing_of_others,
    introspection_is_for_those_who_may_verify,
    open_introspection_says_little_and_not_often,
    introspection_says_no_more_than_is_so,
    whoever_has_a_token_may_end_it,
];

const FORM: &str = "content-type: application/x-www-form-urlencoded";

async fn introspect(server: &TestServer, authorization: &str, token: &str) -> Answered {
    let authorization = format!("authorization: {authorization}");
    let body = format!("token={token}&token_type_hint=access_token");
    send(server, "POST /oauth2/introspect", &[&authorization, FORM], &body).await
}

/// What the administrator is told.
async fn told(server: &TestServer, token: &str) -> Value {
    let answered = introspect(server, &format!("Bearer {}", server.admin), token).await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    assert_eq!(answered.headers["cache-control"], "no-store");
    answered.json()
}

async fn revoke(server: &TestServer, token: &str) -> Answered {
    send(server, "POST /oauth2/revoke", &[FORM], &format!("token={token}")).await
}

async fn introspection_tells_all_of_a_good_token_and_nothing_of_others(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = server.user("alice").await.id;
    let workspace = server.workspace("w").await;
    server.join(&alice, &workspace, "member").await;
    let token = server.bound_with(&alice, &workspace, &["read:notes", "write:notes"]).await;
    let now = server.after(Duration::ZERO).seconds;
    let said = told(&server, &token).await;
    let expected = json!({
        "active": true, "token_type": "pat", "scope": "read:notes write:notes", "sub": alice,
        "username": "alice", "iat": now, "jti": said["jti"], "workspace_id": workspace,
    });
    assert_eq!(said, expected);

    let request = CreateApiClientAuthorizationRequest {
        owner_uuid: Some(alice.clone()),
        api_client_id: Some(7),
        expires_at: Some(server.after(Duration::from_secs(90))),
        scopes: Some(token_authority::proto::v1::ScopeList {
            values: vec!["GET /notes".to_owned(), "all".to_owned()],
        }),
        ..Default::default()
    };
    let made = server.authorizations(&server.admin).create_api_client_authorization(request).await;
    let made = made.unwrap().into_inner().api_client_authorization.unwrap();
    let expected = json!({
        "active": true, "token_type": "api_client_authorization", "scope": "GET%20/notes all",
        "sub": alice, "username": "alice", "iat": now, "jti": made.uuid, "client_id": "7",
        "exp": now + 90,
    });
    assert_eq!(told(&server, &v2(&made)).await, expected);

    let inactive = json!({ "active": false });
    for token in [unknown_token(), "garbage".to_owned(), "%00".to_owned(), "x".repeat(10_000)] {
        assert_eq!(told(&server, &token).await, inactive);
    }
    server.clock.advance(Duration::from_secs(90));
    assert_eq!(told(&server, &v2(&made)).await, inactive);
    let request =
        UpdateUserRequest { user: alice.clone(), is_active: Some(false), ..Default::default() };
    server.directory(&server.admin).update_user(request).await.unwrap();
    assert_eq!(told(&server, &token).await, inactive);
}

async fn introspection_is_for_those_who_may_verify(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = server.user("alice").await.id;
    let asked = server.text_of(&alice, &["read:notes"]).await;
    let verifier = server.text_of(&alice, &["verify:tokens"]).await;
    let basic = |user: &str, password: &str| {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    };
    let is_active = true;
    for authorization in [
        format!("Bearer {verifier}"),
        basic("any client", &verifier),
        basic("", &verifier.replace('_', "%5F")),
    ] {
        let answered = introspect(&server, &authorization, &asked).await;
        assert_eq!(answered.json()["active"], is_active, "{answered:?}");
    }
    for (authorization, status, error) in [
        (format!("Bearer {asked}"), 403, "unauthorized_client"),
        (basic("x", &asked), 403, "unauthorized_client"),
        ("Bearer pat_x".to_owned(), 401, "invalid_client"),
        (basic("x", "pat_x"), 401, "invalid_client"),
        ("Basic !".to_owned(), 401, "invalid_client"),
        ("Digest x".to_owned(), 401, "invalid_client"),
    ] {
        let answered = introspect(&server, &authorization, &asked).await;
        assert_eq!(answered.status, status, "{authorization}");
        assert_eq!(answered.json()["error"], error);
        let challenge = answered.headers.get("www-authenticate").map(|it| it.to_str().unwrap());
        let expected = match authorization.split(' ').next() {
            Some("Basic") => "Basic realm=\"token-authority\"",
            _ => "Bearer error=\"invalid_token\"",
        };
        assert_eq!(challenge, (status == 401).then_some(expected), "{authorization}");
    }
    let anonymous =
        send(&server, "POST /oauth2/introspect", &[FORM], &format!("token={asked}")).await;
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    assert_eq!(anonymous.headers["www-authenticate"], "Bearer");

    let bearer = format!("authorization: Bearer {verifier}");
    for body in ["", "token=", "x=y", "token=a&token=b"] {
        let answered = send(&server, "POST /oauth2/introspect", &[&bearer, FORM], body).await;
        assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answered.json()["error"], "invalid_request");
    }
    // A token in a query would be in somebody's log.
    let query = format!("POST /oauth2/introspect?token={asked}");
    assert_eq!(send(&server, &query, &[&bearer, FORM], "").await.status, 400);
    let read = send(&server, "GET /oauth2/introspect", &[&bearer], "").await;
    assert_eq!(
        (read.status, &read.headers["allow"]),
        (StatusCode::METHOD_NOT_ALLOWED, &"POST".parse().unwrap())
    );
    assert_eq!(send(&server, "POST /oauth2/token", &[&bearer], "").await.status, 404);
}

/// Who verifies for a workspace learns nothing of others (DESIGN 9).
#[tokio::test(flavor = "multi_thread")]
async fn introspection_within_a_workspace_stays_there() {
    let server = TestServer::start(Engine::Sqlite).await;
    let alice = server.user("alice").await.id;
    let bob = server.user("bob").await.id;
    let workspace = server.workspace("w").await;
    server.join(&alice, &workspace, "member").await;
    let verifier = server.bound_with(&alice, &workspace, &["verify:tokens"]).await;
    let [own, others] = [
        server.text_of(&alice, &["read:notes"]).await,
        server.text_of(&bob, &["read:notes"]).await,
    ];
    let bearer = format!("Bearer {verifier}");
    assert_eq!(introspect(&server, &bearer, &own).await.json()["username"], "alice");
    let unknown = introspect(&server, &bearer, &others).await;
    assert_eq!(unknown.json(), json!({ "active": false }));
}

async fn open_introspection_says_little_and_not_often(engine: Engine) {
    let server = TestServer::start_with(engine, &["--open-introspection"]).await;
    let alice = server.user("alice").await.id;
    let token = server.text_of(&alice, &["read:notes"]).await;
    let ask = async |token: &str| {
        send(&server, "POST /oauth2/introspect", &[FORM], &format!("token={token}")).await
    };
    let expected = json!({ "active": true, "token_type": "pat", "scope": "read:notes" });
    assert_eq!(ask(&token).await.json(), expected);
    assert_eq!(ask(&unknown_token()).await.json(), json!({ "active": false }));
    // Nobody gets in without a token by showing a bad one.
    let bad = introspect(&server, "Bearer pat_x", &token).await;
    assert_eq!(bad.status, StatusCode::UNAUTHORIZED);
    server.clock.hold();
    let mut refused = None;
    for _ in 0..40 {
        let answered = ask(&token).await;
        if answered.status != StatusCode::OK {
            refused = Some(answered);
        }
    }
    let refused = refused.expect("there is a limit");
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers["retry-after"], "1");
    // Who shows a token of its own is not limited by that.
    assert_eq!(told(&server, &token).await["active"], true);
}

async fn introspection_says_no_more_than_is_so(engine: Engine) {
    // The system root token is asked about only where that is switched on.
    let root = "RootRootRootRootRootRootRootRootRoot0123456789";
    for is_active in [false, true] {
        let place = Place::new(engine).await;
        std::fs::write(place.path("root-token"), root).unwrap();
        let file = format!("--system-root-token-file={}", place.path("root-token").display());
        let setting = format!("--verify-system-root-token={is_active}");
        let server = TestServer::start_on(place, &[&file, "--open-introspection", &setting]).await;
        let form = format!("token={root}");
        let openly = send(&server, "POST /oauth2/introspect", &[FORM], &form).await;
        assert_eq!(openly.json()["active"], is_active);
        assert_eq!(told(&server, root).await["active"], is_active);
    }

    // What was read after the decision counts, too.
    let server = TestServer::start(engine).await;
    let alice = server.user("alice").await.id;
    let token = server.text_of(&alice, &["read:notes"]).await;
    assert_eq!(told(&server, &token).await["active"], true);
    let over =
        format!("UPDATE credentials SET expires_at = created_at + 1 WHERE user_id = '{alice}'");
    server.place.sql(&over).await;
    server.clock.advance(Duration::from_secs(1));
    assert_eq!(told(&server, &token).await, json!({ "active": false }));
}

async fn whoever_has_a_token_may_end_it(engine: Engine) {
    let server = TestServer::start_with(engine, &["--rotation-overlap=1h"]).await;
    let alice = server.user("alice").await.id;
    let kept_out = server.user("bob").await.id;
    let plain = server.text_of(&alice, &[]).await;
    let authorization = v2(&server.authorization_of(&alice, Some(&["GET /x"])).await);
    let of_bob = server.text_of(&kept_out, &["read:notes"]).await;
    let request =
        UpdateUserRequest { user: kept_out.clone(), is_active: Some(false), ..Default::default() };
    server.directory(&server.admin).update_user(request).await.unwrap();
    for token in [&plain, &authorization, &of_bob] {
        let ended = revoke(&server, token).await;
        assert_eq!((ended.status, &*ended.text), (StatusCode::OK, ""), "{ended:?}");
        assert!(!server.verify(token).await.active);
        // Again, it is the same answer.
        assert_eq!(revoke(&server, token).await.status, StatusCode::OK);
    }
    // It stays dead when its owner comes back.
    let request = UpdateUserRequest { user: kept_out, is_active: Some(true), ..Default::default() };
    server.directory(&server.admin).update_user(request).await.unwrap();
    assert!(!server.verify(&of_bob).await.active);

    // So does one whose end is past, which could get another.
    let made = server.authorization_of(&alice, None).await;
    let update = |expires_at| UpdateApiClientAuthorizationRequest {
        uuid: made.uuid().to_owned(),
        expires_at,
        update_mask: Some(FieldMask { paths: vec!["expires_at".to_owned()] }),
        ..Default::default()
    };
    let own = v2(&server.authorization_of(&alice, None).await);
    let mut of_alice = server.authorizations(&own);
    let past = update(Some(server.after(Duration::ZERO)));
    of_alice.update_api_client_authorization(past).await.unwrap();
    assert_eq!(revoke(&server, &v2(&made)).await.status, StatusCode::OK);
    let revived = of_alice.update_api_client_authorization(update(None)).await;
    assert_eq!(revived.unwrap_err().code(), Code::NotFound);

    let before = server.kept().await;
    for token in [unknown_token(), "garbage".to_owned(), "v2/x".to_owned()] {
        assert_eq!(revoke(&server, &token).await.status, StatusCode::OK);
    }
    assert_eq!(server.kept().await, before);
    for body in ["", "token=", "token=a&token=b"] {
        let answered = send(&server, "POST /oauth2/revoke", &[FORM], body).await;
        assert_eq!(answered.status, StatusCode::BAD_REQUEST);
        assert_eq!(answered.json()["error"], "invalid_request");
    }

    // Who has no more than a secret that is over can't end what replaced it.
    let made = server.token_of(&alice, &["read:notes"]).await;
    let id = made.personal_access_token.unwrap().id;
    let request = RotatePersonalAccessTokenRequest { id, ..Default::default() };
    let rotated = server.tokens(&server.admin).rotate_personal_access_token(request).await;
    let rotated = rotated.unwrap().into_inner().token;
    server.clock.advance(Duration::from_hours(2));
    assert!(server.verify(&rotated).await.active);
    assert_eq!(revoke(&server, &made.token).await.status, StatusCode::OK);
    assert!(server.verify(&rotated).await.active);
}
