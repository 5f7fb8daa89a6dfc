//! What those ask who run it, and how calls over HTTP are bounded.

use http::StatusCode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::raw::{send, send_to};
use crate::support::{Engine, server::TestServer};

#[tokio::test(flavor = "multi_thread")]
async fn process_is_alive_and_ready() {
    let server = TestServer::start(Engine::Sqlite).await;
    let admin = server.admin_address.unwrap();
    for (request_line, status) in [
        ("GET /healthz", 200),
        ("HEAD /healthz", 200),
        ("GET /readyz", 200),
        ("GET /readyz?verbose", 200),
        ("POST /readyz", 405),
        ("GET /", 404),
        ("GET /v1/tokens", 404),
    ] {
        let answered = send_to(admin, request_line, &[], "").await;
        assert_eq!(answered.status, status, "{request_line}");
    }
    // Nor is any of it where the others call.
    assert_eq!(send(&server, "GET /healthz", &[], "").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_over_http_are_bounded() {
    let server = TestServer::start(Engine::Sqlite).await;
    // A few too many are told so in JSON, and more than that in none.
    for (number, is_told) in [(70, true), (120, false)] {
        let many: Vec<String> = (0..number).map(|number| format!("x-{number}: y")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let answered = send(&server, "GET /v1/tokens", &many, "").await;
        assert_eq!(answered.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        assert_eq!(!answered.text.is_empty(), is_told);
    }
    let large = format!("x-large: {}", "y".repeat(17 * 1024));
    let answered = send(&server, "GET /v1/tokens", &[&large], "").await;
    assert_eq!(answered.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);

    // What is no HTTP ends its connection, and no other.
    let mut socket = TcpStream::connect(server.http.unwrap()).await.unwrap();
    socket.write_all(b"\x00\x01\x02\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    assert_eq!(send(&server, "GET /v1/tokens", &[], "").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test(flavor = "multi_thread")]
async fn client_behind_a_trusted_proxy_is_who_it_says() {
    let server =
        TestServer::start_with(Engine::Sqlite, &["--trusted-proxies=127.0.0.0/8,10.0.0.0/8"]).await;
    let alice = server.user("alice").await.id;
    let request = token_authority::proto::v1::CreatePersonalAccessTokenRequest {
        name: "from the office".to_owned(),
        user_id: Some(alice),
        allowed_ips: vec!["198.51.100.0/24".to_owned()],
        scopes: vec!["read:tokens".to_owned()],
        ..Default::default()
    };
    let made = server.tokens(&server.admin).create_personal_access_token(request).await;
    let bearer = format!("authorization: Bearer {}", made.unwrap().into_inner().token);
    for (forwarded, status) in [
        ("198.51.100.7", 200),
        ("203.0.113.1, 198.51.100.7, 10.1.2.3", 200),
        ("198.51.100.7, 203.0.113.1", 401),
        ("198.51.100.7:4711", 200),
        // The address of a proxy that says nothing of use is not the client's.
        ("x", 400),
        ("203.0.113.1, x", 400),
        ("x, 203.0.113.1", 401),
    ] {
        let forwarded = format!("x-forwarded-for: {forwarded}");
        let answered = send(&server, "GET /v1/tokens", &[&bearer, &forwarded], "").await;
        assert_eq!(answered.status, status, "{forwarded}");
    }
    assert_eq!(send(&server, "GET /v1/tokens", &[&bearer], "").await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_addresses_of_others_are_not_believed() {
    let server = TestServer::start(Engine::Sqlite).await;
    let alice = server.user("alice").await.id;
    let request = token_authority::proto::v1::CreatePersonalAccessTokenRequest {
        name: "from the office".to_owned(),
        user_id: Some(alice),
        allowed_ips: vec!["198.51.100.0/24".to_owned()],
        ..Default::default()
    };
    let made = server.tokens(&server.admin).create_personal_access_token(request).await;
    let bearer = format!("authorization: Bearer {}", made.unwrap().into_inner().token);
    let forwarded = "x-forwarded-for: 198.51.100.7";
    let answered = send(&server, "GET /v1/tokens/scopes", &[&bearer, forwarded], "").await;
    assert_eq!(answered.status, StatusCode::UNAUTHORIZED);
}

/// Or whoever sends half a request would hold a place among the calls under way.
#[tokio::test(flavor = "multi_thread")]
async fn nobodys_body_is_waited_for_before_it_is_known_who_calls() {
    let server = TestServer::start(Engine::Sqlite).await;
    for (request_line, status) in
        [("POST /v1/tokens", "401"), ("POST /oauth2/introspect", "401"), ("POST /none", "404")]
    {
        let mut socket = TcpStream::connect(server.http.unwrap()).await.unwrap();
        let head =
            format!("{request_line} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        // Or its next call would be lost.
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
}

/// What is for whoever has a token has no caller to be known.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_takes_no_place_among_the_calls_before_its_body_is_there() {
    let more = ["--max-calls=1", "--open-introspection"];
    let server = TestServer::start_with(Engine::Sqlite, &more).await;
    let address = server.http.unwrap();
    let mut held = Vec::new();
    for path in ["/oauth2/revoke", "/oauth2/introspect"] {
        let mut socket = TcpStream::connect(address).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n");
        let head = format!("{head}content-length: 7\r\n\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        // It is waited for.
        let mut answer = [0; 12];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 100");
        held.push(socket);
    }
    let bearer = format!("authorization: Bearer {}", server.admin);
    let answered = send(&server, "GET /v1/tokens", &[&bearer], "").await;
    assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
    for mut socket in held {
        socket.write_all(b"token=x").await.unwrap();
        let mut answer = vec![0; 64];
        socket.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains("HTTP/1.1 200 OK\r\n"), "{answer}");
    }
}
