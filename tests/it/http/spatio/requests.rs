//! Requests as the published clients send them, to the byte (SEEDS 8), and in other forms
//! that mean the same.

use super::*;

/// What each client sends with every request, beside its token, how it sends a time, and a
/// slug with what has to be escaped.
const CLIENTS: [(&[&str], &str, &str); 3] = [
    (
        &[
            "accept: application/json",
            "accept-encoding: identity",
            "user-agent: OpenAPI-Generator/0.0.2/python",
        ],
        "2027-02-02T03:04:05+00:00",
        "my%20org%2Fx",
    ),
    (
        &["user-agent: OpenAPI-Generator/v1/rust", "accept: */*"],
        "2027-02-02T03:04:05Z",
        "my+org%2Fx",
    ),
    (
        &["accept: */*", "accept-language: *", "sec-fetch-mode: cors", "user-agent: node"],
        "2027-02-02T03:04:05.000Z",
        "my%20org%2Fx",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn recorded_requests_are_answered() {
    let world = World::new(Engine::Sqlite).await;
    let main = "/v1/organizations/org-of-main/workspaces/main/tokens";
    for (headers, time, escaped) in CLIENTS {
        let ask = async |request: &str, body: &str, status: u16| {
            let bearer = format!("authorization: Bearer {}", world.token);
            let mut headers = [headers, &[&*bearer]].concat();
            if !body.is_empty() {
                headers.push("content-type: application/json");
            }
            let answered = send(&world.server, request, &headers, body).await;
            assert_eq!(answered.status, status, "{request} {body} {headers:?} {answered:?}");
            answered
        };
        let scopes = ask("GET /v1/tokens/scopes", "", 200).await.json();
        assert_eq!(scopes["scopes"].as_array().unwrap().len(), 4);
        for path in ["/v1/tokens", main] {
            let least = r#"{"name": "min"}"#;
            let most = json!({
                "name": "ci", "description": "d", "scopes": ["read:notes"], "expiresAt": time,
            });
            for body in [least, &most.to_string()] {
                let made = ask(&format!("POST {path}"), body, 201).await.json();
                let one = format!("{path}/{}", made["pat"]["id"].as_str().unwrap());
                for change in [r#"{"name": "ci2"}"#, r#"{"description": ""}"#, "{}"] {
                    let updated = ask(&format!("PATCH {one}"), change, 200).await.json();
                    assert_eq!(updated["expiresAt"], made["pat"]["expiresAt"]);
                }
                ask(&format!("GET {path}"), "", 200).await.json();
                let revoked = ask(&format!("DELETE {one}"), "", 204).await;
                assert_eq!(revoked.text, "");
            }
        }
        let odd = ask("PATCH /v1/tokens/nope%2F..%2Fx%20y", "{}", 404).await;
        assert!(odd.json()["error"].is_string());
        let unknown = format!("GET /v1/organizations/{escaped}/workspaces/main/tokens");
        assert!(ask(&unknown, "", 404).await.json()["error"].is_string());
        // No token is configured.
        let anonymous = send(&world.server, "GET /v1/tokens", headers, "").await;
        assert_eq!(anonymous.status, StatusCode::UNAUTHORIZED);
        assert!(anonymous.json()["error"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_beside_a_request_changes_nothing() {
    let world = World::new(Engine::Sqlite).await;
    let made = world.call("POST /v1/tokens", r#"{"name":"x"}"#).await.json();
    let id = made["pat"]["id"].as_str().unwrap();
    let bearer = format!("authorization: Bearer {}", world.token);
    let workspace = world.workspace.clone();
    let organization =
        token_authority::proto::v1::GetWorkspaceRequest { workspace, organization: None };
    let mut directory = world.server.directory(&world.server.admin);
    let found = directory.get_workspace(organization).await.unwrap().into_inner().workspace;
    let organization = found.unwrap().organization_id;
    let by_ids = format!("/v1/organizations/{organization}/workspaces/{}/tokens", world.workspace);
    for (header, request, body, status) in [
        // No call has a parameter in its query, and a workspace is named by the path alone.
        ("x: y", "GET /v1/tokens?limit=0&page=%00&token=x", "", 200),
        ("x: y", "GET /v1/tokens/scopes?&", "", 200),
        ("x-workspace-id: none", "GET /v1/tokens", "", 200),
        ("x-workspace-id: none", &format!("PATCH /v1/tokens/{id}?name=y"), "{}", 200),
        ("x: y", &format!("GET {by_ids}"), "", 200),
        ("x: y", "GET http://localhost/v1/tokens", "", 200),
        ("x-http-method-override: DELETE", "POST /v1/tokens", r#"{"name":"x"}"#, 201),
        ("content-type: text/plain", "POST /v1/tokens", r#"{"name":"x"}"#, 201),
        (
            "transfer-encoding: chunked",
            "POST /v1/tokens",
            "5\r\n{\"nam\r\n6\r\ne\":\"x\"\r\n1\r\n}\r\n0\r\n\r\n",
            201,
        ),
        ("cookie: a=b", &format!("DELETE /v1/tokens/{id}?force"), r#"{"x":1}"#, 204),
    ] {
        let answered = send(&world.server, request, &[&bearer, header], body).await;
        assert_eq!(answered.status, status, "{header} {request} {answered:?}");
    }
}
