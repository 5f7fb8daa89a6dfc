//! Libraries by which services ask about the tokens that come to them (RFC 7662) and end
//! them (RFC 7009).

use std::time::Duration;

use serde_json::{Value, json};
use token_authority::proto::v1::Reason;
use tokio::process::Command;

use super::Driver;
use crate::{
    http::raw::call,
    support::{
        Engine, on_both_stores,
        server::{TestServer, unknown_token, v2},
    },
};

on_both_stores![authlib_accepts_a_token_until_it_ends_it];

async fn authlib_accepts_a_token_until_it_ends_it(engine: Engine) {
    drive(Driver::python("resource_server.py"), engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth4webapi_accepts_a_token_until_it_ends_it() {
    drive(Driver::node("resource_server.mjs"), Engine::Sqlite).await;
}

/// Whatever it does to a token is true through every door.
async fn drive(driver: Command, engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("ada").await.id;
    let own = server.text_of(&user, &["write:tokens", "read:notes"]).await;
    let body = json!({
        "name": "over HTTP", "scopes": ["read:notes"], "expiresAt": "2031-01-02T03:04:05Z",
    });
    let made = call(&server, "POST /v1/tokens", &own, &body.to_string()).await.json();
    let pat = made["token"].as_str().unwrap();
    let authorization = server.authorization_of(&user, Some(&["GET /notes", "all"])).await;
    let current = "GET /arvados/v1/api_client_authorizations/current";
    let tokens = [(pat.to_owned(), "GET /v1/tokens/scopes"), (v2(&authorization), current)];

    let now = server.after(Duration::ZERO).seconds;
    let claims = |more: Value| {
        let mut claims = json!({ "active": true, "sub": user, "username": "ada", "iat": now });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    let world = json!({
        "base": format!("http://{}", server.http.unwrap()),
        "verifier": server.text_of(&user, &["verify:tokens"]).await,
        "other": own,
        "unknown": unknown_token(),
        "tokens": [
            { "token": pat, "scope": "read:notes", "claims": claims(json!({
                "token_type": "pat", "scope": "read:notes", "jti": made["pat"]["id"],
                "exp": 1_925_089_445,
            })) },
            { "token": tokens[1].0, "scope": "all", "claims": claims(json!({
                "token_type": "api_client_authorization", "scope": "GET%20/notes all",
                "jti": authorization.uuid(),
            })) },
        ],
    });
    for (token, _) in &tokens {
        assert!(server.verify(token).await.active);
    }
    let (driver, accepted) = Driver::start(driver, &server.place, &world).await;
    assert_eq!(accepted, json!({ "accepted": 2 }));
    for (token, request) in &tokens {
        assert!(server.verify(token).await.active);
        assert_eq!(call(&server, request, token, "").await.status, 200, "{request}");
    }
    driver.finish().await;
    for (token, request) in &tokens {
        assert_eq!(server.verify(token).await.reason(), Reason::Revoked);
        assert_eq!(call(&server, request, token, "").await.status, 401, "{request}");
    }
}
