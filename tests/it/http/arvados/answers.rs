//! What each call answers (SEEDS 3.1, 3.6 and 3.8).

use super::*;
use crate::support::on_both_stores;

on_both_stores![
    record_is_as_documented,
    list_is_as_documented,
    each_call_answers_200_with_the_record,
    secret_is_shown_as_the_server_keeps_it,
    attributes_are_selected,
    system_root_token_makes_and_sees_all,
];

/// The attributes, in the order of a map.
const ATTRIBUTES: [&str; 15] = [
    "api_client_id",
    "api_token",
    "created_at",
    "created_by_ip_address",
    "etag",
    "expires_at",
    "kind",
    "last_used_at",
    "last_used_by_ip_address",
    "modified_at",
    "modified_by_user_uuid",
    "owner_uuid",
    "scopes",
    "user_id",
    "uuid",
];

async fn record_is_as_documented(engine: Engine) {
    let world = World::new(engine, &[]).await;
    world.server.clock.advance(Duration::from_micros(1_500_001));
    let body = json!({ "api_client_authorization": {
        "scopes": ["GET /arvados/v1/collections/"], "expires_at": "2027-02-03T04:05:06.789Z",
        "api_client_id": 7.0, "owner_uuid": world.user_id,
    } });
    let made = world.ok("POST ?alt=json", &body).await;
    assert_eq!(names(&made), ATTRIBUTES);
    let uuid = made["uuid"].as_str().unwrap();
    let secret = made["api_token"].as_str().unwrap();
    assert!(secret.len() >= 41, "the secret alone");
    let expected = json!({
        "kind": "arvados#apiClientAuthorization", "etag": made["etag"], "uuid": uuid,
        "api_token": secret, "api_client_id": 7, "user_id": world.number,
        "owner_uuid": world.user_id, "created_by_ip_address": "127.0.0.1",
        "last_used_by_ip_address": null, "last_used_at": null,
        "expires_at": "2027-02-03T04:05:06.789000000Z",
        "scopes": ["GET /arvados/v1/collections/"], "created_at": "2027-01-15T08:00:01.500001000Z",
        "modified_at": null, "modified_by_user_uuid": null,
    });
    assert_eq!(made, expected);
    assert!(made["etag"].is_string());

    // Both forms of its text are good, and by itself it is told with its secret.
    for token in [format!("v2/{uuid}/{secret}"), secret.to_owned()] {
        let current = world.send_by(&token, "GET /current", &[], "").await;
        assert_eq!(current.status, 200);
        let mut current = current.json();
        for used in ["last_used_at", "last_used_by_ip_address"] {
            current[used] = Value::Null;
        }
        assert_eq!(current, expected);
    }
    let bearer = format!("authorization: OAuth2 {}", world.token);
    let answered = send(&world.server, &format!("GET {TOKENS}/current"), &[&bearer], "").await;
    assert_eq!(answered.json()["uuid"], world.uuid);

    // Clients filter with the very text that they got.
    let created_at = made["created_at"].as_str().unwrap();
    let filters = json!([["created_at", "=", created_at]]).to_string();
    assert_eq!(world.listed(&parameter("filters", &filters)).await, [uuid]);
}

async fn list_is_as_documented(engine: Engine) {
    let world = World::new(engine, &[]).await;
    world.server.clock.advance(Duration::from_secs(1));
    let newest = world.ok("POST", &json!({})).await["uuid"].clone();
    let list = world.ok("GET", &Value::Null).await;
    let expected = json!({
        "kind": "arvados#apiClientAuthorizationList", "etag": "", "self_link": "", "offset": 0,
        "limit": 100, "items": list["items"], "items_available": 2,
    });
    assert_eq!(list, expected);
    assert_eq!(uuids(&list), [newest.as_str().unwrap(), &world.uuid], "newest first");
    assert_eq!(names(&list["items"][0]), ATTRIBUTES);

    for (query, items, limit, offset, available) in [
        ("limit=1", 1, 1, 0, Some(2)),
        ("limit=0", 0, 0, 0, Some(2)),
        ("limit=1&offset=1", 1, 1, 1, Some(2)),
        ("offset=7", 0, 100, 7, Some(2)),
        ("limit=1001", 2, 1000, 0, Some(2)),
        ("limit=99999999999999999999", 2, 1000, 0, Some(2)),
        ("count=none", 2, 100, 0, None),
        ("count=exact&limit=1", 1, 1, 0, Some(2)),
        ("count=&limit=&offset=&filters=&order=&select=&where=&distinct=", 2, 100, 0, Some(2)),
        ("filters=null&order=null&select=null&where=null", 2, 100, 0, Some(2)),
    ] {
        let list = world.ok(&format!("GET ?{query}"), &Value::Null).await;
        let of = |name: &str| list[name].as_i64();
        assert_eq!(list["items"].as_array().unwrap().len(), items, "{query}");
        assert_eq!((of("limit"), of("offset")), (Some(limit), Some(offset)), "{query}");
        assert_eq!(of("items_available"), available, "{query}");
        assert_eq!(list.get("items_available").is_some(), available.is_some(), "{query}");
    }
}

async fn each_call_answers_200_with_the_record(engine: Engine) {
    let world = World::new(engine, &[]).await;
    // As documented: of the caller, all scopes, without an end.
    let mut made = Vec::new();
    for body in [json!({}), json!({ "api_client_authorization": {} }), Value::Null] {
        made.push(world.ok("POST ?alt=json", &body).await);
        let made = made.last().unwrap();
        assert_eq!(made["scopes"], json!(["all"]));
        assert_eq!(
            (&made["expires_at"], &made["owner_uuid"]),
            (&Value::Null, &json!(world.user_id))
        );
    }
    let uuid = made[0]["uuid"].as_str().unwrap();
    let one = format!("/{uuid}");
    assert_eq!(world.ok(&format!("GET {one}?alt=json"), &Value::Null).await["uuid"], uuid);

    // PUT and PATCH change what they name, and nothing else.
    let body = json!({ "api_client_authorization": { "expires_at": "2027-12-01T00:00:00Z" } });
    let updated = world.ok(&format!("PUT {one}?alt=json"), &body).await;
    assert_eq!(updated["expires_at"], "2027-12-01T00:00:00.000000000Z");
    assert_eq!(updated["scopes"], json!(["all"]));
    assert_ne!(updated["etag"], made[0]["etag"]);
    let body = json!({ "api_client_authorization": { "scopes": ["GET /"] } });
    let updated = world.ok(&format!("PATCH {one}"), &body).await;
    assert_eq!(updated["scopes"], json!(["GET /"]));
    assert_eq!(updated["expires_at"], "2027-12-01T00:00:00.000000000Z");
    for body in [json!({}), json!({ "api_client_authorization": {} }), Value::Null] {
        assert_eq!(world.ok(&format!("PUT {one}"), &body).await, updated, "a no-op");
    }
    // What was got before may be sent again, but for what only the service sets.
    let again = json!({ "api_client_authorization": {
        "kind": updated["kind"], "etag": "x", "href": "/x", "created_at": "x", "modified_at": null,
        "modified_by_user_uuid": null, "uuid": uuid, "api_token": null, "last_used_at": null,
    } });
    assert_eq!(world.ok(&format!("PUT {one}"), &again).await, updated);
    let forever = json!({ "api_client_authorization": { "expires_at": null } });
    assert_eq!(world.ok(&format!("PUT {one}"), &forever).await["expires_at"], Value::Null);

    // HEAD is GET without a body.
    for below in [&one, "/current", "", "?limit=1"] {
        let got = world.send(&format!("GET {below}"), &[], "").await;
        let head = world.send(&format!("HEAD {below}"), &[], "").await;
        assert_eq!((head.status, &*head.text), (got.status, ""), "{below}");
        assert_eq!(head.headers["content-type"], "application/json");
    }
    assert_eq!(world.send(&format!("HEAD /{UNKNOWN}"), &[], "").await.status, 404);

    let deleted = world.ok(&format!("DELETE {one}?alt=json"), &Value::Null).await;
    assert_eq!((names(&deleted), &deleted["uuid"]), (names(&updated), &json!(uuid)));
    assert_eq!(world.send(&format!("GET {one}"), &[], "").await.status, 404);
    assert_eq!(world.send(&format!("DELETE {one}"), &[], "").await.status, 404);
    assert!(!world.listed("").await.contains(&uuid.to_owned()));
}

async fn secret_is_shown_as_the_server_keeps_it(engine: Engine) {
    for is_kept in [false, true] {
        let kept: &[&str] = if is_kept { &["--recoverable-api-tokens"] } else { &[] };
        let world = World::new(engine, kept).await;
        let one = format!("/{}", world.uuid);
        let secret = if is_kept { json!(world.secret) } else { Value::Null };
        let got = world.ok(&format!("GET {one}"), &Value::Null).await;
        assert_eq!(got["api_token"], secret);
        assert_eq!(world.ok(&format!("PUT {one}"), &json!({})).await["api_token"], secret);
        let list = world.ok("GET", &Value::Null).await;
        assert_eq!(list["items"][0]["api_token"], secret);
        // By their digests they are found all the same.
        let filters = json!([["api_token", "=", world.secret]]).to_string();
        assert_eq!(world.listed(&parameter("filters", &filters)).await, [&*world.uuid]);
        let current = world.ok("GET /current", &Value::Null).await;
        assert_eq!(current["api_token"], world.secret, "the caller has it");

        // To another cluster no secret is told, and a salted token is good there alone.
        let remote = world.ok("GET /current?remote=abcde", &Value::Null).await;
        assert_eq!((&remote["uuid"], &remote["api_token"]), (&json!(world.uuid), &Value::Null));
        let salted = salted(&world.uuid, &world.secret, "abcde");
        for (request, is_good) in [
            ("GET /current?remote=abcde", is_kept),
            ("GET /current?remote=abcdf", false),
            ("GET /current", false),
            ("GET", false),
            ("GET ?remote=abcde", false),
            ("POST ?remote=abcde", false),
            ("POST /current?remote=abcde", false),
        ] {
            let answered = world.send_by(&salted, request, &[], "").await;
            if is_good {
                assert_eq!(answered.status, 200, "{request}");
                assert_eq!(answered.json()["uuid"], world.uuid);
                assert!(!answered.text.contains(&world.secret));
                assert_eq!(answered.json()["api_token"], Value::Null);
            } else {
                let refused = [401, 405].contains(&answered.status.as_u16());
                assert!(refused, "{is_kept} {request} {answered:?}");
            }
        }
    }
}

/// As Arvados' clients make it for a cluster.
fn salted(uuid: &str, secret: &str, remote: &str) -> String {
    use ring::hmac;
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let mac = hmac::sign(&key, remote.as_bytes());
    let digits: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v2/{uuid}/{digits}")
}

async fn attributes_are_selected(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let chief = world.chief().await;
    let one = format!("/{}", world.uuid);
    let select = parameter("select", r#"["uuid","owner_uuid"]"#);
    let selected = ["kind", "owner_uuid", "uuid"];
    for request in ["POST ", "GET /current", &format!("GET {one}"), &format!("PUT {one}")] {
        let answered = world.ok(&format!("{request}?{select}"), &Value::Null).await;
        assert_eq!(names(&answered), selected, "{request}");
    }
    let list = world.ok(&format!("GET ?{select}"), &Value::Null).await;
    assert_eq!(names(&list["items"][0]), selected);
    let made = world.send_by(&chief, &format!("POST /create_system_auth?{select}"), &[], "").await;
    assert_eq!(names(&made.json()), selected);
    let deleted = world.ok(&format!("DELETE {one}?{select}"), &Value::Null).await;
    assert_eq!(names(&deleted), selected);

    let world = World::new(engine, &[]).await;
    for (select, expected) in [
        (r#"["kind"]"#, &["kind"][..]),
        (r#"["modified_at"]"#, &["kind", "modified_at"]),
        ("[]", &ATTRIBUTES),
    ] {
        let current = format!("GET /current?{}", parameter("select", select));
        assert_eq!(names(&world.ok(&current, &Value::Null).await), expected);
    }
    let many = json!(vec!["kind"; 101]).to_string();
    for wrong in [r#"["secret"]"#, r#"{"uuid":1}"#, "uuid", "[1]", "7", &many] {
        for request in ["GET ", "GET /current", "POST ", &format!("DELETE /{}", world.uuid)] {
            let answered =
                world.send(&format!("{request}?{}", parameter("select", wrong)), &[], "").await;
            assert_eq!(answered.status, 422, "{request} {wrong}");
            assert!(error(&answered).starts_with("select "));
        }
    }
    // Equal selected rows are there once.
    world.ok("POST", &json!({})).await;
    let query = format!("{}&distinct=true", parameter("select", r#"["owner_uuid"]"#));
    let list = world.ok(&format!("GET ?{query}"), &Value::Null).await;
    assert_eq!(
        (&list["items_available"], &list["items"].as_array().unwrap().len()),
        (&json!(1), &1)
    );
}

async fn system_root_token_makes_and_sees_all(engine: Engine) {
    let world = World::with_root(engine, &[]).await;
    let by_root = async |request: &str, headers: &[&str], body: &str| {
        world.send_by(ROOT, request, headers, body).await
    };
    let system = "zzzzz-tpzed-000000000000000";
    let made = by_root("POST", &[JSON], "{}").await.json();
    assert_eq!(made["owner_uuid"], system);
    let query = "/create_system_auth?scopes=%5B%22all%22%5D&alt=json";
    let made = by_root(&format!("POST {query}"), &[], "").await.json();
    assert_eq!((&made["owner_uuid"], &made["scopes"]), (&json!(system), &json!(["all"])));
    assert_eq!(made["created_by_ip_address"], "127.0.0.1");
    let query = "/create_system_auth?api_client_id=7&scopes=%5B%22GET%20/%22%5D";
    let made = by_root(&format!("POST {query}"), &[], "").await.json();
    assert_eq!((&made["api_client_id"], &made["scopes"]), (&json!(7), &json!(["GET /"])));
    let list = by_root("GET", &[], "").await.json();
    assert!(uuids(&list).contains(&world.uuid) && uuids(&list).len() == 4);
    let filters = parameter("filters", r#"[["scopes","=",["GET /"]]]"#);
    let list = by_root(&format!("GET ?{filters}"), &[], "").await.json();
    assert_eq!(uuids(&list), [made["uuid"].as_str().unwrap()]);
    let one = format!("/{}", world.uuid);
    assert_eq!(by_root(&format!("GET {one}"), &[], "").await.status, 200);
    let current = by_root("GET /current", &[], "").await.json();
    assert_eq!(current["uuid"], "zzzzz-gj3su-000000000000000");
    assert_eq!((&current["created_at"], &current["scopes"]), (&Value::Null, &json!(["all"])));
    assert_eq!(by_root(&format!("DELETE {one}"), &[], "").await.status, 200);
}
