//! Whose token it is: the forms that prove it, until it is over (SEEDS 3.2 to 3.4, 3.7 and
//! 3.12).

use super::*;
use crate::support::{on_both_stores, wait::until};

on_both_stores![
    each_form_of_a_token_is_good,
    end_of_a_token_is_at_once_and_may_be_taken_back,
    lifetime_is_cut_and_not_refused,
    owner_is_changed_by_number_and_by_administrators,
    who_may_where_no_token_manages_tokens,
];

async fn each_form_of_a_token_is_good(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let (v1, v2) = (&world.secret, &world.token);
    for scheme in ["Bearer", "bearer", "OAuth2", "oauth2", "OAUTH2"] {
        for token in [
            v1,
            v2,
            &format!("{v2}/zzzzz-dz642-000000000000000"),
            &format!("{v2}/zzzzz-dz642-000000000000000/x/y"),
            &format!("{v2}/"),
        ] {
            let header = format!("authorization: {scheme} {token}");
            // What it is shown beside that is none.
            let query = "?api_token=x&oauth_token=x&reader_tokens[]=x&reader_tokens=%5B%22x%22%5D";
            for request in ["GET {TOKENS}/current", "GET {TOKENS}", "GET {TOKENS}/{uuid}"] {
                let request = request.replace("{TOKENS}", TOKENS).replace("{uuid}", &world.uuid);
                let answered = send(&world.server, &(request + query), &[&header], "").await;
                assert_eq!(answered.status, 200, "{scheme} {token} {answered:?}");
                assert!(answered.text.contains(&world.uuid));
            }
        }
    }
    // Nor is one looked at where none is needed.
    for header in ["authorization: Bearer bogus", "authorization: Bearer v2/x/y", "cookie: x=y"] {
        let answered = send(&world.server, &format!("OPTIONS {TOKENS}"), &[header], "").await;
        assert_eq!((answered.status.as_u16(), &*answered.text), (200, ""));
        assert!(!answered.headers.contains_key("content-type"));
    }
    // Such a use is shown.
    let shown = async || {
        let got = world.ok(&format!("GET /{}", world.uuid), &Value::Null).await;
        (got["last_used_at"].as_str(), got["last_used_by_ip_address"].as_str())
            == (Some("2027-01-15T08:00:00.000000000Z"), Some("127.0.0.1"))
    };
    until("the use is noted", Duration::from_secs(20), shown).await;
}

async fn end_of_a_token_is_at_once_and_may_be_taken_back(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let made = world.ok("POST", &json!({})).await;
    let one = format!("/{}", made["uuid"].as_str().unwrap());
    let secret = made["api_token"].as_str().unwrap();
    let forms = [format!("v2{one}/{secret}"), secret.to_owned()];
    let end = async |by: &str, expires_at: Value| {
        let body = json!({ "expires_at": expires_at }).to_string();
        world.send_by(by, &format!("PUT {one}"), &[JSON], &body).await
    };
    let is_good = async |expected: bool| {
        for form in &forms {
            for request in ["GET /current", "GET", "POST ?_method=GET"] {
                let answered = world.send_by(form, request, &[], "").await;
                let status = if expected { 200 } else { 401 };
                assert_eq!(answered.status, status, "{request} {answered:?}");
                if !expected {
                    assert_eq!(error(&answered), "Not logged in");
                }
            }
        }
    };
    is_good(true).await;
    // It may end itself.
    let ended = end(&forms[0], json!("2000-01-01T00:00:00Z")).await;
    assert_eq!((ended.status.as_u16(), &ended.json()["uuid"]), (200, &made["uuid"]));
    is_good(false).await;
    assert_eq!(end(&forms[0], Value::Null).await.status, 401);
    for (expires_at, is_alive) in [
        (Value::Null, true),
        (json!("2027-01-15T08:00:00Z"), false),
        (json!("2027-01-15T08:00:00.000001Z"), true),
        (json!("Fri, 15 Jan 2027 07:59:59 GMT"), false),
        (json!("Fri, 15 Jan 2038 00:00:00 GMT"), true),
    ] {
        assert_eq!(end(&world.token, expires_at.clone()).await.status, 200, "{expires_at}");
        is_good(is_alive).await;
    }
    // What is deleted stays so.
    assert_eq!(world.send(&format!("DELETE {one}"), &[], "").await.status, 200);
    is_good(false).await;
    assert_eq!(end(&world.token, Value::Null).await.status, 404);
    is_good(false).await;
}

async fn lifetime_is_cut_and_not_refused(engine: Engine) {
    let world = World::with_root(engine, &["--authorization-max-lifetime=1h"]).await;
    let (cut, far) = ("2027-01-15T09:00:00.000000000Z", "2038-01-01T00:00:00.000000000Z");
    for (by, given, expected) in [
        (&*world.token, Value::Null, cut),
        (&world.token, json!(far), cut),
        (ROOT, Value::Null, cut),
        (ROOT, json!(far), far),
    ] {
        let body = json!({ "expires_at": given }).to_string();
        let made = world.send_by(by, "POST", &[JSON], &body).await;
        assert_eq!(made.status, 200, "{made:?}");
        let made = made.json();
        assert_eq!(made["expires_at"], expected);
        let one = format!("PUT /{}", made["uuid"].as_str().unwrap());
        let updated = world.send_by(by, &one, &[JSON], &body).await;
        assert_eq!(updated.json()["expires_at"], expected);
    }
}

async fn owner_is_changed_by_number_and_by_administrators(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let chief = world.chief().await;
    let made = world.send_by(&chief, "POST", &[JSON], "{}").await.json();
    let one = format!("/{}", made["uuid"].as_str().unwrap());
    let by_number = json!({ "user_id": world.number }).to_string();
    let by_uuid = json!({ "owner_uuid": world.user_id }).to_string();
    let refused = world.send_by(&chief, &format!("PUT {one}"), &[JSON], &by_uuid).await;
    assert_eq!(refused.status, 422);
    assert!(error(&refused).starts_with("owner_uuid "));
    let moved = world.send_by(&chief, &format!("PUT {one}"), &[JSON], &by_number).await;
    assert_eq!(moved.status, 200, "{moved:?}");
    let moved = moved.json();
    assert_eq!(
        (&moved["owner_uuid"], &moved["user_id"]),
        (&json!(world.user_id), &json!(world.number))
    );
    // It is its new owner's, and nobody else's.
    assert_eq!(world.send(&format!("GET {one}"), &[], "").await.status, 200);
    assert_eq!(world.send_by(&chief, &format!("GET {one}"), &[], "").await.status, 404);
}

async fn who_may_where_no_token_manages_tokens(engine: Engine) {
    let world = World::with_root(engine, &[]).await;
    let chief = world.chief().await;
    let one = format!("/{}", world.uuid);
    let (token, uuid) = (world.token.clone(), world.uuid.clone());
    let place = world.server.stop().await;
    let root = format!("--system-root-token-file={}", place.path("root-token").display());
    let server = TestServer::start_on(place, &[&root, "--issue-trusted-tokens=false"]).await;
    let requests = [
        "GET /current",
        "GET",
        "POST",
        "GET /ONE",
        "PUT /ONE",
        "DELETE /ONE",
        "POST /create_system_auth",
    ];
    for (by, allowed) in [
        (&*token, &["GET /current"][..]),
        (&chief, &["GET /current"]),
        (ROOT, &["GET /current", "GET", "POST", "POST /create_system_auth"]),
    ] {
        for request in requests {
            let (method, below) = request.split_once(' ').unwrap_or((request, ""));
            let request_line = format!("{method} {TOKENS}{}", below.replace("/ONE", &one));
            let bearer = format!("authorization: Bearer {by}");
            let answered = send(&server, &request_line, &[&bearer, JSON], "{}").await;
            let status = if allowed.contains(&request) { 200 } else { 403 };
            assert_eq!(answered.status, status, "{request} {answered:?}");
            if status == 403 {
                assert!(error(&answered).contains("issue-trusted-tokens"), "{answered:?}");
            }
        }
    }
    assert!(server.verify(&token).await.token_id == uuid);
}
