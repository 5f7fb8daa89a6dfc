//! What may go well on another try, and what breaks: told as each API tells it.

use std::time::Duration;

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::raw::{Answered, send};
use crate::support::{
    Engine,
    relay::Relay,
    server::{Place, TestServer, unknown_token, v2},
    wait::until,
};

const SOON: Duration = Duration::from_secs(20);
const AUTHORIZATIONS: &str = "/arvados/v1/api_client_authorizations";
const JSON: &str = "content-type: application/json";
const FORM: &str = "content-type: application/x-www-form-urlencoded";

/// That each API says of a call with this status what it says of it.
fn check(answered: &Answered, path: &str, status: u16, code: &str) {
    assert_eq!(answered.status, status, "{path} {answered:?}");
    let later = answered.headers.get("retry-after").map(|it| it.to_str().unwrap());
    assert_eq!(later, (status == 503).then_some("1"), "{path} {answered:?}");
    let is_arvados = path.contains("/arvados");
    let origin = answered.headers.contains_key("access-control-allow-origin");
    assert_eq!(origin, is_arvados, "{path}");
    assert_eq!(answered.headers["cache-control"], "no-store");
    let body = answered.json();
    if is_arvados {
        assert!(!super::arvados::error(answered).is_empty());
    } else if path.contains("/oauth2") {
        let error = if status == 503 { "temporarily_unavailable" } else { "server_error" };
        assert_eq!(body["error"], error, "{path}");
    } else {
        assert!(body["error"].is_string());
        assert_eq!(body["code"].as_str().unwrap_or_default(), code, "{path}");
    }
}

/// A call that waits for the rest of its body.
async fn half_a_call(server: &TestServer) -> TcpStream {
    let mut socket = TcpStream::connect(server.http.unwrap()).await.unwrap();
    let head = format!(
        "POST /v1/tokens HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-length: 9\r\n\r\n",
        server.admin
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn call_for_which_there_is_no_room_is_to_be_tried_again() {
    let server = TestServer::start_with(Engine::Sqlite, &["--max-calls=1"]).await;
    let bearer = format!("authorization: Bearer {}", server.admin);
    let ask = async |request: &str| send(&server, request, &[&bearer], "").await;
    // One that comes while another asks has no place itself.
    let mut held = Vec::new();
    until("the place is taken", SOON, async || {
        held.push(half_a_call(&server).await);
        ask("GET /v1/tokens").await.status == 503
    })
    .await;
    for request in [
        "GET /v1/tokens",
        "GET /v1/tokens/scopes",
        "GET /v1/organizations/x/workspaces/x/tokens",
        &format!("GET {AUTHORIZATIONS}"),
        &format!("POST {AUTHORIZATIONS}"),
        &format!("DELETE {AUTHORIZATIONS}/x"),
        "POST /oauth2/introspect",
    ] {
        check(&ask(request).await, request, 503, "OVERLOADED");
    }
    let revoked = send(&server, "POST /oauth2/revoke", &[FORM], "token=x").await;
    check(&revoked, "/oauth2/revoke", 503, "");
    drop(held);
    until("there is room again", SOON, async || ask("GET /v1/tokens").await.status == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn call_that_takes_too_long_is_to_be_tried_again() {
    let server = TestServer::start_with(Engine::Sqlite, &["--call-deadline=100ms"]).await;
    let mut held = half_a_call(&server).await;
    let answered = super::raw::receive(&mut held).await;
    check(&answered, "/v1/tokens", 503, "");
    assert_eq!(answered.headers["connection"], "close");
}

#[tokio::test(flavor = "multi_thread")]
async fn store_that_is_away_is_no_refusal() {
    let mut place = Place::new(Engine::Postgres).await;
    let (mut relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let server = TestServer::start_on(place, &["--database-wait=500ms"]).await;
    let alice = server.user("alice").await.id;
    let authorization = v2(&server.authorization_of(&alice, None).await);
    relay.cut().await;
    let ask = async |token: &str, request: &str| {
        let bearer = format!("authorization: Bearer {token}");
        let answered = send(&server, request, &[&bearer, JSON], r#"{"name":"x"}"#).await;
        check(&answered, request, 503, "STORE_UNAVAILABLE");
    };
    let (create, unknown) = (format!("POST {AUTHORIZATIONS}"), unknown_token());
    let revoke = async || {
        let form = format!("token={unknown}");
        let answered = send(&server, "POST /oauth2/revoke", &[FORM], form).await;
        check(&answered, "/oauth2/revoke", 503, "");
    };
    tokio::join!(
        ask(&server.admin, "GET /v1/tokens"),
        ask(&server.admin, "POST /v1/tokens"),
        ask(&authorization, &create),
        // Who calls is not known either.
        ask(&unknown, "GET /v1/tokens"),
        revoke(),
    );
    relay.mend();
    let bearer = format!("authorization: Bearer {}", server.admin);
    until("it is back", SOON, async || {
        send(&server, "GET /v1/tokens", &[&bearer], "").await.status == 200
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fault_is_500_and_its_cause_stays_here() {
    let server = TestServer::start(Engine::Sqlite).await;
    let alice = server.user("alice").await.id;
    let authorization = v2(&server.authorization_of(&alice, None).await);
    server.place.sql("ALTER TABLE audit RENAME TO lost").await;
    for (token, request, headers, body) in [
        (&*server.admin, "POST /v1/tokens", JSON, r#"{"name":"x"}"#.to_owned()),
        (&authorization, &format!("POST {AUTHORIZATIONS}"), JSON, "{}".to_owned()),
        ("x", "POST /oauth2/revoke", FORM, format!("token={authorization}")),
    ] {
        let bearer = format!("authorization: Bearer {token}");
        let answered = send(&server, request, &[&bearer, headers], body).await;
        check(&answered, request, 500, "");
        assert!(!answered.text.contains("audit") && !answered.text.contains("table"));
    }
}
