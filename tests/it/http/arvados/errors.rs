//! How errors are told (SEEDS 3.13).

use super::*;
use crate::support::on_both_stores;

on_both_stores![
    refusals_are_final_and_in_the_envelope,
    who_may_what_is_told_by_status,
    call_has_a_name,
];

async fn refusals_are_final_and_in_the_envelope(engine: Engine) {
    let world = World::new(engine, &["--max-authorizations-per-user=3"]).await;
    world.server.follow().await;
    let before = world.server.kept().await;
    for (request, body, status) in [
        (format!("GET /{UNKNOWN}"), "", 404),
        (format!("PUT /{UNKNOWN}"), "{}", 404),
        (format!("DELETE /{UNKNOWN}"), "", 404),
        ("GET /x".to_owned(), "", 404),
        ("GET /%00".to_owned(), "", 404),
        ("GET /x%2F..%2Fcurrent".to_owned(), "", 404),
        ("GET /current/x".to_owned(), "", 404),
        ("GET //current".to_owned(), "", 404),
        ("PUT ".to_owned(), "{}", 405),
        ("DELETE ".to_owned(), "", 405),
        ("POST /current".to_owned(), "", 405),
        ("DELETE /current".to_owned(), "", 405),
        ("GET /create_system_auth".to_owned(), "", 405),
        (format!("POST /{}", world.uuid), "{}", 405),
        ("GET ?limit=x".to_owned(), "", 422),
        ("GET ?cluster_id=aaaaa".to_owned(), "", 422),
        ("GET /current?remote=x".to_owned(), "", 422),
        ("GET ?filters=x".to_owned(), "", 422),
        ("GET ?filters[]=x".to_owned(), "", 400),
        ("GET ?limit=1&limit=2".to_owned(), "", 400),
    ] {
        let answered = world.send(&request, &[JSON], body).await;
        assert_eq!(answered.status, status, "{request} {answered:?}");
        assert!(!error(&answered).is_empty());
        assert_eq!(answered.headers["access-control-allow-origin"], "*");
    }
    let large = format!(r#"{{"scopes":["{}"]}}"#, "x".repeat(1024 * 1024));
    let answered = world.send("POST", &[JSON], &large).await;
    assert_eq!(answered.status, 413);
    error(&answered);
    assert_eq!(world.server.kept().await, before);
    let allowed = world.send("PUT ", &[], "").await;
    assert_eq!(allowed.headers["allow"], "GET, HEAD, POST");

    // Nor is what the state of things forbids anything that is tried again.
    world.ok("POST", &json!({})).await;
    world.ok("POST", &json!({})).await;
    let full = world.send("POST", &[JSON], "{}").await;
    assert_eq!(full.status, 403, "{full:?}");
    error(&full);
}

async fn who_may_what_is_told_by_status(engine: Engine) {
    let world = World::with_root(engine, &[]).await;
    for headers in [
        vec![],
        vec!["authorization: Bearer x".to_owned()],
        vec![format!("authorization: Bearer v2/{}/{}", world.uuid, "0".repeat(50))],
        vec![format!("authorization: Basic {}", world.token)],
        vec![format!("authorization: Bearer {}", world.server.admin)],
        vec![format!("authorization: Bearer {0}\r\nauthorization: Bearer {0}", world.token)],
    ] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        for request in [
            format!("GET {TOKENS}/current"),
            format!("GET {TOKENS}?api_token={}", world.secret),
            format!("POST {TOKENS}?api_token={}", world.secret),
            format!("GET {TOKENS}?_method=x&filters=x"),
        ] {
            let answered = send(&world.server, &request, &headers, "").await;
            assert_eq!(answered.status, 401, "{request} {headers:?}");
            assert_eq!(error(&answered), "Not logged in");
            assert!(answered.headers.contains_key("www-authenticate"));
        }
    }
    // Beside a credential it is none either, and no secret that is chosen.
    let made = world.send("POST ?api_token=x&oauth_token=y", &[JSON], "{}").await;
    assert_eq!(made.status, 200);
    assert_ne!(made.json()["api_token"], "x");

    let chief = world.chief().await;
    let bob = world.server.user("bob").await;
    let bobs = world.server.authorization_of(&bob.id, None).await;
    let of_bob = json!({ "owner_uuid": bob.id }).to_string();
    let one = format!("/{}", bobs.uuid());
    for (token, request, body, status) in [
        (&*world.token, "POST", &*of_bob, 403),
        (&world.token, "POST", r#"{"owner_uuid":"zzzzz-tpzed-nobodynobody000"}"#, 403),
        (&world.token, "POST", &json!({ "user_id": bobs.user_id() }).to_string(), 403),
        (&world.token, "POST /create_system_auth", "", 403),
        (&world.token, "GET ?bypass_federation=true", "", 403),
        (&world.token, "GET ?bypass_federation=false&cluster_id=zzzzz", "", 200),
        (&chief, "GET ?bypass_federation=true", "", 200),
        (&chief, "POST", &of_bob, 200),
        (&chief, "POST /create_system_auth", "", 200),
        (&world.token, &format!("GET {one}"), "", 404),
        (&chief, &format!("GET {one}"), "", 404),
        (&chief, &format!("PUT {one}"), "{}", 404),
        (&chief, &format!("DELETE {one}"), "", 404),
        (ROOT, &format!("GET {one}"), "", 200),
        (ROOT, &format!("PUT {one}"), "{}", 200),
        (
            &world.token,
            &format!("PUT /{}", world.uuid),
            &json!({ "user_id": bobs.user_id() }).to_string(),
            403,
        ),
    ] {
        let answered = world.send_by(token, request, &[JSON], body).await;
        assert_eq!(answered.status, status, "{request} {body} {answered:?}");
        if status != 200 {
            error(&answered);
        }
    }
    let chiefs = world.send_by(&chief, "GET", &[], "").await.json();
    assert!(!uuids(&chiefs).contains(&bobs.uuid().to_owned()), "only its own");

    // Where no token manages tokens, each may see itself.
    let place = world.server.stop().await;
    let server = TestServer::start_on(place, &["--issue-trusted-tokens=false"]).await;
    let bearer = format!("authorization: Bearer {}", world.token);
    for (below, status) in [("/current", 200), ("", 403), (&format!("/{}", world.uuid), 403)] {
        let answered = send(&server, &format!("GET {TOKENS}{below}"), &[&bearer], "").await;
        assert_eq!(answered.status, status, "{below}");
    }
}

async fn call_has_a_name(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let named = async |id: &str| {
        let header = format!("x-request-id: {id}");
        let answered = world.send("GET /none/none", &[&header], "").await;
        error(&answered);
        answered.headers["x-request-id"].to_str().unwrap().to_owned()
    };
    let long = "ab-".repeat(341) + "c";
    assert_eq!(long.len(), 1024);
    for id in ["req-abcdefghij0123456789", "x", &long] {
        assert_eq!(named(id).await, id);
    }
    for id in ["", &format!("{long}d"), &world.token, &world.secret, "a b"] {
        let made = named(id).await;
        let digits = made.strip_prefix("req-").unwrap();
        assert_eq!(digits.len(), 20);
        assert!(digits.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase()), "{made}");
        assert_ne!(named(id).await, made);
    }
    // It is in the audit of what is done.
    let made = world.send("POST", &["x-request-id: req-audited", JSON], "{}").await;
    assert_eq!(made.status, 200);
    assert_eq!(made.headers["x-request-id"], "req-audited");
    let audited = "SELECT count(*) FROM audit WHERE request_id = 'req-audited'";
    assert_eq!(world.server.place.number(audited).await, 1);
}
