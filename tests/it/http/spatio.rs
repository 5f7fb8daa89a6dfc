//! Spatio's nine calls, as its clients send them (SEEDS 2 and 8).

mod records;
mod requests;

use std::time::Duration;

use http::StatusCode;
use serde_json::{Value, json};

use super::raw::{Answered, call, send};
use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, v2},
};

on_both_stores![
    each_call_answers_as_its_clients_expect,
    workspace_is_named_by_id_or_slug_and_kept_from_others,
    what_is_wrong_is_said_in_json_and_changes_nothing,
    token_of_the_other_system_is_none_here
];

/// Somebody with a workspace, and a token that manages tokens.
struct World {
    server: TestServer,
    alice: String,
    token: String,
    workspace: String,
}

impl World {
    async fn new(engine: Engine) -> Self {
        let server = TestServer::start(engine).await;
        let alice = server.user("alice").await.id;
        let workspace = server.workspace("main").await;
        server.join(&alice, &workspace, "member").await;
        let scopes = ["read:tokens", "write:tokens", "read:*", "write:notes"];
        let token = server.text_of(&alice, &scopes).await;
        Self { server, alice, token, workspace }
    }

    async fn call(&self, request_line: &str, body: &str) -> Answered {
        call(&self.server, request_line, &self.token, body).await
    }

    async fn refused(&self, request_line: &str, body: &str) -> (u16, String) {
        let answered = self.call(request_line, body).await;
        let body = answered.json();
        assert!(body["error"].is_string(), "{answered:?}");
        (answered.status.as_u16(), body["code"].as_str().unwrap_or_default().to_owned())
    }

    /// The ids that are listed there.
    async fn listed(&self, path: &str) -> Vec<String> {
        let list = self.call(&format!("GET {path}"), "").await.json();
        let tokens = list["tokens"].as_array().unwrap().iter();
        tokens.map(|token| token["id"].as_str().unwrap().to_owned()).collect()
    }

    async fn is_active(&self, token: &str) -> bool {
        self.server.verify(token).await.active
    }
}

/// The names of an object's fields.
fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

async fn each_call_answers_as_its_clients_expect(engine: Engine) {
    let world = World::new(engine).await;

    let scopes = world.call("GET /v1/tokens/scopes", "").await;
    assert_eq!(scopes.status, StatusCode::OK);
    assert_eq!(
        scopes.json()["scopes"],
        json!(["read:*", "write:notes", "read:tokens", "write:tokens"])
    );

    world.server.clock.advance(Duration::from_secs(1));
    let body = json!({
        "name": "ci", "description": "d", "scopes": ["read:notes"], "workspaceId": world.workspace,
        "expiresAt": "2027-02-02T03:04:05+00:00", "unknown": {"is": "ignored"},
    });
    let made = world.call("POST /v1/tokens", &body.to_string()).await;
    assert_eq!(made.status, StatusCode::CREATED);
    assert_eq!(made.headers["cache-control"], "no-store");
    let made = made.json();
    assert_eq!(names(&made), ["pat", "token"]);
    let (token, pat) = (made["token"].as_str().unwrap(), &made["pat"]);
    let id = pat["id"].as_str().unwrap();
    assert!(token.starts_with(pat["tokenPrefix"].as_str().unwrap()));
    let expected = json!({
        "id": id, "name": "ci", "description": "d", "tokenPrefix": pat["tokenPrefix"],
        "scopes": ["read:notes"], "workspaceId": world.workspace, "createdAt": "2027-01-15T08:00:01Z",
        "lastUsedAt": null, "expiresAt": "2027-02-02T03:04:05Z",
    });
    assert_eq!(*pat, expected);
    assert!(world.is_active(token).await);

    world.server.clock.advance(Duration::from_secs(1));
    let least = world.call("POST /v1/tokens", r#"{"name":"min"}"#).await.json();
    assert_eq!(least["pat"]["scopes"], json!([]));
    assert_eq!(least["pat"]["expiresAt"], Value::Null);
    let least = least["pat"]["id"].as_str().unwrap();

    let list = world.call("GET /v1/tokens", "").await;
    assert_eq!(list.status, StatusCode::OK);
    let list = list.json();
    assert_eq!(names(&list), ["availableScopes", "tokens"]);
    assert_eq!(list["availableScopes"].as_array().unwrap().len(), 4);
    assert!(!list.to_string().contains(token));
    let listed = world.listed("/v1/tokens").await;
    assert_eq!(listed[..2], [least, id], "the newest comes first");
    assert_eq!(listed.len(), 3);

    let path = format!("/v1/tokens/{id}");
    for (change, name, description) in [
        (r#"{"name":"ci2"}"#, "ci2", "d"),
        (r#"{"name":null,"unknown":1}"#, "ci2", "d"),
        ("{}", "ci2", "d"),
        (r#"{"description":""}"#, "ci2", ""),
    ] {
        let updated = world.call(&format!("PATCH {path}"), change).await;
        assert_eq!(updated.status, StatusCode::OK, "{updated:?}");
        let updated = updated.json();
        assert_eq!(
            (&updated["name"], &updated["description"]),
            (&json!(name), &json!(description))
        );
        assert_eq!(names(&updated), names(pat));
    }

    let revoked = world.call(&format!("DELETE {path}"), "").await;
    assert_eq!((revoked.status, &*revoked.text), (StatusCode::NO_CONTENT, ""));
    assert!(!revoked.headers.contains_key("content-type"));
    assert!(!world.is_active(token).await);
    assert_eq!(world.refused(&format!("DELETE {path}"), "").await.0, 404);
    assert_eq!(world.listed("/v1/tokens").await.len(), 2);

    // What is expired stays, for somebody to see.
    let body = json!({ "name": "short", "expiresAt": "2027-01-15T08:01:00.000Z" }).to_string();
    world.server.clock.advance(Duration::from_secs(1));
    let short = world.call("POST /v1/tokens", &body).await.json()["pat"]["id"].clone();
    world.server.clock.advance(Duration::from_mins(1));
    assert_eq!(json!(world.listed("/v1/tokens").await[0]), short);
}

async fn workspace_is_named_by_id_or_slug_and_kept_from_others(engine: Engine) {
    let world = World::new(engine).await;
    let by_slug = "/v1/organizations/org-of-main/workspaces/main/tokens";
    let by_id = format!("/v1/organizations/org-of-main/workspaces/{}/tokens", world.workspace);
    let body = r#"{"name":"wsci","scopes":["read:notes"],"expiresAt":"2027-02-02T03:04:05"}"#;
    let made = world.call(&format!("POST {by_slug}"), body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{made:?}");
    let made = made.json();
    assert_eq!(made["pat"]["workspaceId"], world.workspace);
    assert_eq!(made["pat"]["expiresAt"], "2027-02-02T03:04:05Z");
    let id = made["pat"]["id"].as_str().unwrap().to_owned();
    for path in [by_slug, &by_id] {
        let list = world.call(&format!("GET {path}"), "").await;
        assert_eq!(names(&list.json()), ["availableScopes", "tokens"]);
        assert_eq!(world.listed(path).await, [&*id]);
    }
    let updated = world.call(&format!("PATCH {by_id}/{id}"), r#"{"name":"x"}"#).await.json();
    assert_eq!(updated["name"], "x");
    // Its scopes can't be changed, which is said and not passed over.
    let wider = world.refused(&format!("PATCH {by_slug}/{id}"), r#"{"scopes":["read:*"]}"#).await;
    assert_eq!(wider, (400, "INVALID_ARGUMENT".to_owned()));

    let bob = world.server.user("bob").await.id;
    let bobs = world.server.text_of(&bob, &["read:tokens", "write:tokens"]).await;
    for (request_line, body, token, status) in [
        (format!("GET {by_slug}"), "", &bobs, 403),
        (format!("POST {by_slug}"), r#"{"name":"x"}"#, &bobs, 403),
        (format!("DELETE {by_slug}/{id}"), "", &bobs, 403),
        ("GET /v1/organizations/org-of-main/workspaces/none/tokens".to_owned(), "", &bobs, 403),
        (
            "GET /v1/organizations/org-of-main/workspaces/none/tokens".to_owned(),
            "",
            &world.server.admin,
            404,
        ),
        ("GET /v1/organizations/my+org%2Fx/workspaces/a%20b/tokens".to_owned(), "", &bobs, 404),
        (format!("PATCH {by_slug}/nope%2F..%2Fx%20y"), r#"{"name":"x"}"#, &world.token, 404),
    ] {
        let answered = call(&world.server, &request_line, token, body).await;
        assert_eq!(answered.status, status, "{request_line} {answered:?}");
        assert!(answered.json()["error"].is_string());
    }

    let revoked = world.call(&format!("DELETE {by_slug}/{id}"), "").await;
    assert_eq!(revoked.status, StatusCode::NO_CONTENT);
    assert_eq!(world.refused(&format!("DELETE {by_slug}/{id}"), "").await.0, 404);
    assert!(!world.is_active(made["token"].as_str().unwrap()).await);
    let _ = &world.alice;
}

async fn what_is_wrong_is_said_in_json_and_changes_nothing(engine: Engine) {
    let world = World::new(engine).await;
    let id = world.listed("/v1/tokens").await[0].clone();
    world.server.follow().await;
    let before = world.server.kept().await;
    let invalid = "INVALID_ARGUMENT";
    for (request_line, body, status, code) in [
        ("POST /v1/tokens", "", 400, invalid),
        ("POST /v1/tokens", "[]", 400, invalid),
        ("POST /v1/tokens", "{", 400, invalid),
        ("POST /v1/tokens", "{}", 400, invalid),
        ("POST /v1/tokens", r#"{"name":" "}"#, 400, invalid),
        ("POST /v1/tokens", r#"{"name":7}"#, 400, invalid),
        ("POST /v1/tokens", r#"{"name":"x","scopes":"read:*"}"#, 400, invalid),
        ("POST /v1/tokens", r#"{"name":"x","scopes":[1]}"#, 400, invalid),
        ("POST /v1/tokens", r#"{"name":"x","scopes":["notes:read"]}"#, 400, invalid),
        ("POST /v1/tokens", r#"{"name":"x","expiresAt":"tomorrow"}"#, 400, invalid),
        ("POST /v1/tokens", r#"{"name":"x","expiresAt":1798858800}"#, 400, invalid),
        ("POST /v1/tokens", r#"{"name":"x","expiresAt":"2027-01-15T08:00:00Z"}"#, 400, invalid),
        ("POST /v1/tokens", r#"{"name":"x","scopes":["admin:all"]}"#, 403, "EXCEEDS_CALLER"),
        ("POST /v1/tokens", r#"{"name":"x","workspaceId":"other"}"#, 403, "NOT_A_MEMBER"),
        ("PATCH /v1/tokens/none", "{}", 404, ""),
        ("DELETE /v1/tokens/none", "", 404, ""),
        ("DELETE /v1/tokens/%00", "", 404, ""),
        ("DELETE /v1/tokens/%ff", "", 404, ""),
        ("GET /v1/tokens/scopes/x", "", 404, ""),
        ("GET /v1/tokens/", "", 404, ""),
        ("GET /v1", "", 404, ""),
        ("GET /", "", 404, ""),
        ("PUT /v1/tokens", "{}", 405, ""),
        ("POST /v1/tokens/scopes", "{}", 405, ""),
    ] {
        let refused = world.refused(request_line, body).await;
        assert_eq!(refused, (status, code.to_owned()), "{request_line} {body}");
    }
    let path = format!("PATCH /v1/tokens/{id}");
    for body in [r#"{"name":""}"#, r#"{"name":"x","scopes":[]}"#, r#"{"description":[]}"#] {
        assert_eq!(world.refused(&path, body).await.0, 400, "{body}");
    }
    // All that is wrong is said at once, by the names that were sent.
    let body = r#"{"name":7,"scopes":{},"expiresAt":"x"}"#;
    let said = world.call("POST /v1/tokens", body).await.json()["error"].to_string();
    assert!(["name", "scopes", "expiresAt"].iter().all(|name| said.contains(name)), "{said}");

    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(64 * 1024));
    assert_eq!(world.refused("POST /v1/tokens", &large).await.0, 413);
    assert_eq!(world.server.kept().await, before);
    let allowed = world.call("PUT /v1/tokens", "").await;
    assert_eq!(allowed.headers["allow"], "GET, POST");
}

async fn token_of_the_other_system_is_none_here(engine: Engine) {
    let world = World::new(engine).await;
    let authorization = v2(&world.server.authorization_of(&world.alice, None).await);
    let anonymous = send(&world.server, "GET /v1/tokens", &[], "").await;
    assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
    // RFC 6750, section 3.1: who shows nothing is told no error.
    assert_eq!(anonymous.headers["www-authenticate"], "Bearer");
    assert_eq!(anonymous.json()["code"], "CALLER_TOKEN_MISSING");
    for header in [
        format!("authorization: Bearer {authorization}"),
        "authorization: Bearer pat_x".to_owned(),
        format!("authorization: Basic {}", world.token),
        format!("authorization: Bearer {0}\r\nauthorization: Bearer {0}", world.token),
    ] {
        let refused = send(&world.server, "GET /v1/tokens", &[&header], "").await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED, "{header}");
        assert_eq!(refused.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
        assert_eq!(refused.json()["code"], "CALLER_TOKEN_REFUSED");
    }
    // A name for the call comes back, and one that could be a token does not.
    let id = "x-request-id: 0198c0de-0000-7000-8000-000000000001";
    let named = send(&world.server, "GET /v1/tokens", &[id], "").await;
    assert_eq!(named.headers["x-request-id"], "0198c0de-0000-7000-8000-000000000001");
    let token = format!("x-request-id: {}", world.token);
    let named = send(&world.server, "GET /v1/tokens", &[&token], "").await;
    assert_ne!(named.headers["x-request-id"], *world.token);
}
