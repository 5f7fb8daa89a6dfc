//! Arvados' API client authorizations, as its clients ask for them (SEEDS 3 and 8).

mod answers;
mod callers;
mod credentials;
mod discovery;
mod encodings;
mod errors;
mod lists;
mod paging;
mod scopes;

use std::{fs, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::raw::{Answered, send};
use crate::support::{
    Engine,
    server::{Place, TestServer, v2},
};

const TOKENS: &str = "/arvados/v1/api_client_authorizations";
const JSON: &str = "content-type: application/json";
const FORM: &str = "content-type: application/x-www-form-urlencoded";
const ROOT: &str = "RootRootRootRootRootRootRootRootRoot0123456789";
/// A uuid that no token has.
const UNKNOWN: &str = "zzzzz-gj3su-unknownunknown0";
/// How many tokens there are.
const COUNT: &str = "SELECT count(*) FROM credentials";

/// A user with one token.
struct World {
    server: TestServer,
    user_id: String,
    number: i64,
    uuid: String,
    secret: String,
    /// `v2/{uuid}/{secret}`.
    token: String,
}

impl World {
    async fn new(engine: Engine, more: &[&str]) -> Self {
        Self::on(Place::new(engine).await, more).await
    }

    /// The same with a system root token.
    async fn with_root(engine: Engine, more: &[&str]) -> Self {
        let place = Place::new(engine).await;
        let path = place.path("root-token");
        fs::write(&path, ROOT).unwrap();
        let file = format!("--system-root-token-file={}", path.display());
        Self::on(place, &[&[&*file], more].concat()).await
    }

    async fn on(place: Place, more: &[&str]) -> Self {
        let server = TestServer::start_on(place, more).await;
        let user_id = server.user("alice").await.id;
        let made = server.authorization_of(&user_id, None).await;
        Self {
            server,
            user_id,
            number: made.user_id(),
            uuid: made.uuid().to_owned(),
            secret: made.api_token().to_owned(),
            token: v2(&made),
        }
    }

    /// The text of another token, of an administrator.
    async fn chief(&self) -> String {
        let chief = self.server.administrator("chief").await.id;
        v2(&self.server.authorization_of(&chief, None).await)
    }

    /// Of one with these scopes.
    async fn scoped(&self, scopes: &[&str]) -> String {
        v2(&self.server.authorization_of(&self.user_id, Some(scopes)).await)
    }

    /// Below the path of the tokens: `GET /current?…`; with these headers.
    async fn send(&self, request: &str, headers: &[&str], body: &str) -> Answered {
        self.send_by(&self.token, request, headers, body).await
    }

    async fn send_by(&self, token: &str, request: &str, headers: &[&str], body: &str) -> Answered {
        let (method, below) = request.split_once(' ').unwrap_or((request, ""));
        let bearer = format!("authorization: Bearer {token}");
        let headers = [&[&*bearer], headers].concat();
        send(&self.server, &format!("{method} {TOKENS}{below}"), &headers, body).await
    }

    /// With JSON, and answered.
    async fn ok(&self, request: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answered = self.send(request, &[JSON], &body).await;
        assert_eq!(answered.status, 200, "{request} {body} {answered:?}");
        answered.json()
    }

    /// The uuids that a list with these parameters has.
    async fn listed(&self, query: &str) -> Vec<String> {
        uuids(&self.ok(&format!("GET ?{query}"), &Value::Null).await)
    }

    async fn count(&self) -> i64 {
        self.server.place.number(COUNT).await
    }
}

fn uuids(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap().iter();
    items.map(|item| item["uuid"].as_str().unwrap().to_owned()).collect()
}

/// The names of an object's fields.
fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

/// As a parameter of a query or a form.
pub(super) fn parameter(name: &str, value: &str) -> String {
    format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))
}

/// That it is an error as Arvados says it, and its message, without the call's name.
pub(super) fn error(answered: &Answered) -> String {
    let body = answered.json();
    assert_eq!(names(&body), ["error_token", "errors"], "{body}");
    assert_eq!(body["errors"].as_array().unwrap().len(), 1, "{body}");
    let request_id = answered.headers["x-request-id"].to_str().unwrap();
    let message = body["errors"][0].as_str().unwrap();
    let message = message.strip_suffix(&format!(" ({request_id})")).expect(message);
    let (time, digits) = body["error_token"].as_str().unwrap().split_once('+').unwrap();
    assert!(time.parse::<u64>().unwrap() > 1_700_000_000, "{body}");
    assert!(digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_hexdigit()), "{body}");
    message.to_owned()
}
