//! What the records hold, whatever was sent (SEEDS 2.2, 2.6; DESIGN 11).

use super::*;
use crate::support::wait::until;

/// That it is a `PersonalAccessToken`: only what may be null is.
fn check(pat: &Value) {
    let fields = pat.as_object().unwrap();
    assert_eq!(fields.len(), 9, "{pat}");
    for name in ["id", "name", "description", "tokenPrefix", "createdAt"] {
        assert!(fields[name].is_string(), "{name} {pat}");
    }
    let scopes = fields["scopes"].as_array().unwrap();
    assert!(scopes.iter().all(Value::is_string), "{pat}");
    for name in ["workspaceId", "lastUsedAt", "expiresAt"] {
        assert!(fields[name].is_string() || fields[name].is_null(), "{name} {pat}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn record_has_no_null_but_where_there_may_be_one() {
    let world = World::new(Engine::Sqlite).await;
    let bound = "/v1/organizations/org-of-main/workspaces/main/tokens";
    let most = json!({
        "name": "x", "description": "d", "scopes": ["read:notes"], "workspaceId": world.workspace,
        "expiresAt": "2027-02-02T03:04:05.123456Z",
    });
    let nulls = json!({
        "name": "x", "description": null, "scopes": null, "workspaceId": null, "expiresAt": null,
    });
    for (path, body) in [
        ("/v1/tokens", json!({ "name": "x" })),
        ("/v1/tokens", nulls.clone()),
        ("/v1/tokens", most.clone()),
        (bound, json!({ "name": "x" })),
        (bound, nulls),
        (bound, most),
    ] {
        // The same name may be there many times.
        let made = world.call(&format!("POST {path}"), &body.to_string()).await;
        assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
        let pat = &made.json()["pat"];
        check(pat);
        assert_eq!(pat["description"], body["description"].as_str().unwrap_or_default());
        let is_bound = path == bound || body["workspaceId"].is_string();
        assert_eq!(pat["workspaceId"].as_str(), is_bound.then_some(&*world.workspace));
        let change = format!("PATCH {path}/{}", pat["id"].as_str().unwrap());
        check(&world.call(&change, "{}").await.json());
    }
    for path in ["/v1/tokens", bound] {
        let list = world.call(&format!("GET {path}"), "").await.json();
        let tokens = list["tokens"].as_array().unwrap();
        assert!(tokens.len() >= 4);
        tokens.iter().for_each(check);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn list_that_is_empty_is_there() {
    let world = World::new(Engine::Sqlite).await;
    let bound = "GET /v1/organizations/org-of-main/workspaces/main/tokens";
    let list = world.call(bound, "").await.json();
    assert_eq!(list["tokens"], json!([]));
    assert_eq!(list["availableScopes"].as_array().unwrap().len(), 4);
    // Who has no scopes can give none.
    let without = world.server.text_of(&world.alice, &[]).await;
    let scopes = call(&world.server, "GET /v1/tokens/scopes", &without, "").await;
    assert_eq!(scopes.json(), json!({ "scopes": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn scopes_are_there_once_and_in_their_order() {
    let world = World::new(Engine::Sqlite).await;
    let body = r#"{"name":"x","scopes":["write:notes","read:*","write:notes","read:tokens"]}"#;
    let made = world.call("POST /v1/tokens", body).await.json();
    assert_eq!(made["pat"]["scopes"], json!(["write:notes", "read:*", "read:tokens"]));
    // As long as they may be.
    let body = json!({ "name": "é".repeat(100), "description": "é".repeat(1000) }).to_string();
    assert_eq!(world.call("POST /v1/tokens", &body).await.status, StatusCode::CREATED);
}

#[tokio::test(flavor = "multi_thread")]
async fn use_of_a_token_is_shown() {
    let world = World::new(Engine::Sqlite).await;
    let used = async || {
        let list = world.call("GET /v1/tokens", "").await.json();
        list["tokens"][0]["lastUsedAt"].as_str() == Some("2027-01-15T08:00:00Z")
    };
    until("the use is noted", Duration::from_secs(20), used).await;
}
