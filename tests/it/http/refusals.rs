//! What is refused for good: never by a status that clients take for a reason to try again
//! (SEEDS 3.13), and always as the API says it that is called.

mod arvados;
mod oauth;
mod spatio;

use std::{fs, time::Duration};

use serde_json::{Value, json};
use token_authority::proto::v1::{UpdateUserRequest, UpdateWorkspaceRequest};

use super::raw::{Answered, call, send};
use crate::support::{
    Engine, on_both_stores,
    server::{Place, TestServer, unknown_token, v2},
};

on_both_stores![final_refusals_are_never_tried_again_and_say_why];

const PATS: &str = "/v1/tokens";
const AUTHORIZATIONS: &str = "/arvados/v1/api_client_authorizations";
const JSON: &str = "content-type: application/json";
const FORM: &str = "content-type: application/x-www-form-urlencoded";
const ROOT: &str = "RootRootRootRootRootRootRootRootRoot0123456789";

/// A request that is refused, and with which status.
struct Refused {
    /// Empty: none is shown.
    token: String,
    request_line: String,
    headers: Vec<String>,
    body: Vec<u8>,
    status: u16,
}

impl Refused {
    /// By what it is called with: a token, a request line, JSON.
    fn new(
        token: &str,
        request_line: impl Into<String>,
        body: impl AsRef<[u8]>,
        status: u16,
    ) -> Self {
        Self::with(&[JSON], token, request_line, body, status)
    }

    fn with(
        headers: &[&str],
        token: &str,
        request_line: impl Into<String>,
        body: impl AsRef<[u8]>,
        status: u16,
    ) -> Self {
        Self {
            token: token.to_owned(),
            request_line: request_line.into(),
            headers: headers.iter().map(ToString::to_string).collect(),
            body: body.as_ref().to_owned(),
            status,
        }
    }

    async fn answer(&self, server: &TestServer) -> Answered {
        let bearer = format!("authorization: Bearer {}", self.token);
        let mut headers: Vec<&str> = self.headers.iter().map(String::as_str).collect();
        if !self.token.is_empty() {
            headers.push(&bearer);
        }
        send(server, &self.request_line, &headers, &self.body).await
    }
}

/// What there is of each kind of token.
struct Tokens {
    /// One that manages its user's, who may have one more.
    good: String,
    /// The same of a user who may have no more.
    full: String,
    /// The id of somebody else's.
    others: String,
    /// The id of one that was ended.
    ended: String,
    /// Texts that prove nobody.
    dead: Vec<String>,
}

struct World {
    server: TestServer,
    pats: Tokens,
    authorizations: Tokens,
    /// An authorization of an administrator.
    chief: String,
    /// A user who is inactive.
    inactive: String,
}

impl World {
    async fn new(engine: Engine) -> Self {
        let place = Place::new(engine).await;
        let root = place.path("root-token");
        fs::write(&root, ROOT).unwrap();
        let root = format!("--system-root-token-file={}", root.display());
        let most = ["--max-pats-per-user=2", "--max-authorizations-per-user=2"];
        let server = TestServer::start_on(place, &[&root, most[0], most[1]]).await;
        let [alice, full, inactive] =
            ["alice", "full", "inactive"].map(async |handle| server.user(handle).await.id);
        let (alice, full, inactive) = (alice.await, full.await, inactive.await);
        for slug in ["main", "closed"] {
            let workspace = server.workspace(slug).await;
            server.join(&alice, &workspace, "member").await;
        }
        let chief = server.administrator("chief").await.id;
        let chief = v2(&server.authorization_of(&chief, None).await);
        let pats = Tokens::new(&server, true, [&alice, &full, &inactive]).await;
        let authorizations = Tokens::new(&server, false, [&alice, &full, &inactive]).await;

        let mut directory = server.directory(&server.admin);
        let user = inactive.clone();
        let request = UpdateUserRequest { user, is_active: Some(false), ..Default::default() };
        directory.update_user(request).await.unwrap();
        let workspace = "external:ws:closed".to_owned();
        let request =
            UpdateWorkspaceRequest { workspace, is_active: Some(false), ..Default::default() };
        directory.update_workspace(request).await.unwrap();
        server.clock.advance(Duration::from_mins(1));
        server.follow().await;
        Self { server, pats, authorizations, chief, inactive }
    }
}

impl Tokens {
    async fn new(server: &TestServer, are_pats: bool, [user, full, inactive]: [&str; 3]) -> Self {
        let of = async |user: &str| {
            if are_pats {
                server.text_of(user, &["read:tokens", "write:tokens", "read:*"]).await
            } else {
                v2(&server.authorization_of(user, None).await)
            }
        };
        let make = async |by: &str, expires_at: Option<&str>| {
            let (path, body) = if are_pats {
                (PATS, json!({ "name": "x", "expiresAt": expires_at }))
            } else {
                (AUTHORIZATIONS, json!({ "expires_at": expires_at }))
            };
            let made = call(server, &format!("POST {path}"), by, &body.to_string()).await.json();
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            if are_pats {
                (text(&made["token"]), text(&made["pat"]["id"]))
            } else {
                let uuid = text(&made["uuid"]);
                (format!("v2/{uuid}/{}", text(&made["api_token"])), uuid)
            }
        };
        let (good, full) = (of(user).await, of(full).await);
        let (_, others) = make(&full, None).await;
        let (revoked, ended) = make(&good, None).await;
        let path = if are_pats { PATS } else { AUTHORIZATIONS };
        let status = call(server, &format!("DELETE {path}/{ended}"), &good, "").await.status;
        assert!(status.is_success());
        let (expired, _) = make(&good, Some("2027-01-15T08:01:00Z")).await;
        let dead = vec![revoked, expired, of(inactive).await];
        Self { good, full, others, ended, dead }
    }
}

async fn final_refusals_are_never_tried_again_and_say_why(engine: Engine) {
    let world = World::new(engine).await;
    let all = [spatio::refused(&world), arvados::refused(&world), oauth::refused(&world)];
    let before = world.server.kept().await;
    for refused in all.iter().flatten() {
        let answered = refused.answer(&world.server).await;
        let body = String::from_utf8_lossy(&refused.body);
        let what = format!("{:.200} {:?} {body:.200}", refused.request_line, refused.headers);
        assert_eq!(answered.status, refused.status, "{what} {answered:?}");
        let tried_again = [408, 409, 423, 429];
        let status = answered.status.as_u16();
        assert!(answered.status.is_client_error() && !tried_again.contains(&status), "{what}");
        assert!(!answered.headers.contains_key("retry-after"), "{what}");
        assert_eq!(answered.headers["cache-control"], "no-store", "{what}");
        assert_eq!(answered.headers.contains_key("www-authenticate"), status == 401, "{what}");
        assert_eq!(answered.headers.contains_key("allow"), status == 405, "{what}");
        let (method, target) = refused.request_line.split_once(' ').unwrap();
        let is_of = |names: [&str; 2]| names.iter().any(|name| target.starts_with(name));
        let is_arvados = is_of(["/arvados", "/discovery"]);
        let origin = answered.headers.contains_key("access-control-allow-origin");
        assert_eq!(origin, is_arvados, "{what}");
        if method == "HEAD" {
            assert_eq!(answered.text, "", "{what}");
        } else if is_arvados {
            assert!(!super::arvados::error(&answered).is_empty(), "{what}");
        } else if is_of(["/oauth2/", "/oauth2"]) {
            said(&answered, ["error", "error_description"], &what);
        } else {
            said(&answered, ["error", "code"], &what);
        }
    }
    assert_eq!(world.server.kept().await, before);
}

/// That it is an object with these texts, the second of which may be absent.
fn said(answered: &Answered, [first, second]: [&str; 2], what: &str) {
    assert!(answered.headers.contains_key("x-request-id"), "{what}");
    let body = answered.json();
    let body = body.as_object().unwrap();
    assert!(body.values().all(|value| value.as_str().is_some_and(|it| !it.is_empty())), "{what}");
    assert!(body.contains_key(first), "{what}");
    assert!(body.keys().all(|name| name == first || name == second), "{what} {body:?}");
}
