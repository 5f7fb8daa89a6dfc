//! In which forms a request says what it wants (SEEDS 3.14 and 8).

use serde_json::Map;

use super::*;
use crate::support::on_both_stores;

on_both_stores![
    recorded_requests_are_understood,
    parameters_are_taken_from_wherever_they_are,
    what_names_another_method_never_makes_a_token,
    attributes_that_cannot_be_set_are_refused_and_change_nothing,
];

/// What the Python client sends along.
const PYTHON: [&str; 5] = [
    "x-request-id: req-abcdefghij0123456789",
    "accept: application/json",
    "accept-encoding: gzip, deflate",
    "user-agent: (gzip)",
    "x-goog-api-client: gdcl/2.202.0 gl-python/3.11.7",
];
/// What an override by header looks like.
const AS_GET: &str = "x-http-method-override: GET";

/// Those of SEEDS 8, as they stand.
async fn recorded_requests_are_understood(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let chief = world.chief().await;
    let python = async |token: &str, request: &str, more: &[&str], body: &str| {
        let length: &[&str] = if body.is_empty() { &["content-length: 0"] } else { &[] };
        let headers = [&PYTHON, more, length].concat();
        let answered = world.send_by(token, request, &headers, body).await;
        assert_eq!(answered.status, 200, "{request} {answered:?}");
        assert_eq!(answered.headers["x-request-id"], "req-abcdefghij0123456789");
        answered.json()
    };
    let by = &*world.token;
    assert_eq!(python(by, "GET /current?alt=json", &[], "").await["uuid"], world.uuid);
    let body = r#"{"api_client_authorization": {"scopes": ["GET /"]}}"#;
    let made = python(by, "POST ?alt=json", &[JSON], body).await;
    assert_eq!(made["scopes"], json!(["GET /"]));
    assert_eq!(python(by, "POST ?alt=json", &[JSON], "{}").await["scopes"], json!(["all"]));
    let made = python(by, "POST ?select=%5B%22uuid%22%5D&alt=json", &[JSON], body).await;
    assert_eq!(names(&made), ["kind", "uuid"]);
    let count = world.count().await;
    assert_eq!(python(by, "GET ?alt=json", &[], "").await["items_available"], 4);
    let everything = "?filters=%5B%5B%22uuid%22%2C+%22%21%3D%22%2C+%22x%22%5D%5D&limit=5&offset=0\
        &order=%5B%22created_at+asc%22%2C+%22uuid+asc%22%5D&select=%5B%22uuid%22%5D&count=none\
        &where=%7B%22owner_uuid%22%3A+%22OWNER%22%7D&distinct=true&alt=json"
        .replace("OWNER", &world.user_id);
    let listed = python(by, &format!("GET {everything}"), &[], "").await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 4);
    assert_eq!(names(&listed["items"][0]), ["kind", "uuid"]);
    assert!(listed.get("items_available").is_none());
    for order in ["uuid+desc", "uuid+desc%2C+created_at", "%5B%22uuid+desc%22%5D"] {
        let listed = python(by, &format!("GET ?order={order}&alt=json"), &[], "").await;
        assert!(uuids(&listed).is_sorted_by(|one, next| one > next), "{order}");
    }

    // A list that is too long for an address, as both its clients send it.
    let mut wanted: Vec<_> = (0..150).map(|at| format!("zzzzz-gj3su-{at:015}")).collect();
    wanted.push(world.uuid.clone());
    let long = parameter("filters", &json!([["uuid", "in", wanted]]).to_string());
    let body = format!("{long}&alt=json");
    assert!(body.len() > 2048);
    let listed = python(by, "POST", &[AS_GET, FORM], &body).await;
    assert_eq!(
        (&listed["kind"], uuids(&listed)),
        (&json!("arvados#apiClientAuthorizationList"), vec![world.uuid.clone()])
    );
    let workbench = format!("_method=GET&{long}");
    let listed = world.send("POST", &[FORM], &workbench).await;
    assert_eq!(uuids(&listed.json()), [&*world.uuid]);
    assert_eq!(world.count().await, count, "no list makes a token");

    let one = format!("/{}", made["uuid"].as_str().unwrap());
    let got = python(by, &format!("GET {one}?select=%5B%22uuid%22%5D&alt=json"), &[], "").await;
    assert_eq!(names(&got), ["kind", "uuid"]);
    let body = r#"{"api_client_authorization": {"expires_at": "2027-12-01T00:00:00Z"}}"#;
    let updated = python(by, &format!("PUT {one}?alt=json"), &[JSON], body).await;
    assert_eq!(updated["expires_at"], "2027-12-01T00:00:00.000000000Z");
    python(by, &format!("DELETE {one}?alt=json"), &[], "").await;
    for query in ["?scopes=%5B%22all%22%5D&alt=json", "?alt=json"] {
        let made = python(&chief, &format!("POST /create_system_auth{query}"), &[], "").await;
        assert_eq!(made["scopes"], json!(["all"]));
        assert_eq!(made["owner_uuid"], "zzzzz-tpzed-000000000000000");
    }
    let before = "2027-01-01T00:00:00.000000000Z";
    for filters in [
        json!([]),
        json!([["created_at", ">=", before], ["uuid", "!=", UNKNOWN]]),
        json!([["created_at", "=", before], ["uuid", ">", UNKNOWN]]),
        json!([["created_at", ">", before]]),
    ] {
        let filters = parameter("filters", &filters.to_string());
        let order = parameter("order", r#"["created_at asc","uuid asc"]"#);
        let query = format!("limit=1000&count=none&{order}&{filters}&alt=json");
        python(by, &format!("GET ?{query}"), &[], "").await;
    }
}

async fn parameters_are_taken_from_wherever_they_are(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let expected = (json!(["GET /a"]), json!("2038-01-01T00:00:00.000000000Z"));
    let attributes = json!({ "scopes": ["GET /a"], "expires_at": "2038-01-01T00:00:00Z" });
    let nested_text = json!({ "scopes": "[\"GET /a\"]", "expires_at": "2038-01-01T00:00:00Z" });
    let http_date = json!({ "scopes": ["GET /a"], "expires_at": "Fri, 01 Jan 2038 00:00:00 GMT" });
    let scopes = parameter("scopes", "[\"GET /a\"]");
    let nested = |value: &Value| json!({ "api_client_authorization": value });
    let form = |value: &Value| parameter("api_client_authorization", &value.to_string());
    let sent = [
        // Python, also with what an old command line sent as text within.
        ("", JSON, nested(&attributes).to_string()),
        ("", JSON, nested(&nested_text).to_string()),
        ("", JSON, nested(&json!(attributes.to_string())).to_string()),
        ("", "content-type: application/json; charset=utf-8", nested(&http_date).to_string()),
        ("", "accept: */*", nested(&attributes).to_string()),
        // Workbench.
        ("", JSON, attributes.to_string()),
        ("", JSON, http_date.to_string()),
        // The Go SDK.
        ("", FORM, form(&attributes)),
        ("", FORM, format!("{scopes}&expires_at=2038-01-01T00%3A00%3A00Z")),
        // What the query and the body give is one.
        (&format!("?{scopes}"), JSON, r#"{"expires_at":"2038-01-01T00:00:00Z"}"#.to_owned()),
        ("?expires_at=2030-01-01T00:00:00Z", JSON, attributes.to_string()),
        ("?expires_at=2030-01-01T00:00:00Z", JSON, nested(&attributes).to_string()),
        (&format!("?{}", form(&attributes)), "accept: */*", String::new()),
    ];
    for method in ["POST", "PUT", "PATCH"] {
        for (query, kind, body) in &sent {
            let below = match method {
                "POST" => String::new(),
                _ => format!("/{}", world.ok("POST", &json!({})).await["uuid"].as_str().unwrap()),
            };
            let answered = world.send(&format!("{method} {below}{query}"), &[kind], body).await;
            assert_eq!(answered.status, 200, "{method} {query} {kind} {body} {answered:?}");
            let made = answered.json();
            let found = (made["scopes"].clone(), made["expires_at"].clone());
            assert_eq!(found, expected, "{method} {query} {kind} {body}");
        }
    }
    // The same of lists.
    let filters = json!([["uuid", "=", world.uuid]]);
    let count = world.count().await;
    for (request, headers, body) in [
        (format!("GET ?{}", parameter("filters", &filters.to_string())), &[][..], String::new()),
        ("GET".to_owned(), &[FORM], parameter("filters", &filters.to_string())),
        ("GET".to_owned(), &[JSON], json!({ "filters": filters }).to_string()),
        ("POST".to_owned(), &[JSON, AS_GET], json!({ "filters": filters }).to_string()),
        ("POST".to_owned(), &[JSON], json!({ "filters": filters, "_method": "GET" }).to_string()),
        (
            "POST ?_method=get".to_owned(),
            &[JSON],
            json!({ "filters": filters.to_string() }).to_string(),
        ),
        ("GET".to_owned(), &[JSON], json!({ "where": { "uuid": world.uuid } }).to_string()),
        (
            format!("GET ?{}", parameter("where", &json!({ "uuid": world.uuid }).to_string())),
            &[],
            String::new(),
        ),
    ] {
        let answered = world.send(&request, headers, &body).await;
        assert_eq!(uuids(&answered.json()), [&*world.uuid], "{request} {body}");
    }
    let typed = r#"{"limit":1,"offset":0,"count":"none","distinct":true,"order":["uuid"],"select":["uuid"]}"#;
    let listed = world.send("GET", &[JSON], typed).await.json();
    assert_eq!((&listed["limit"], uuids(&listed).len()), (&json!(1), 1));
    assert_eq!(world.count().await, count);
}

async fn what_names_another_method_never_makes_a_token(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let before = (world.count().await, world.server.kept().await);
    let by_header = |method: &str| format!("x-http-method-override: {method}");
    for (header, query, kind, body, status) in [
        (by_header("GET"), "", FORM, "limit=1", 200),
        (by_header("get"), "", FORM, "limit=1", 200),
        (by_header("HEAD"), "", FORM, "limit=1", 200),
        (by_header("GET"), "?_method=GET", FORM, "_method=GET", 200),
        (by_header("PUT"), "", FORM, "limit=1", 405),
        (by_header("PATCH"), "", FORM, "limit=1", 405),
        (by_header("DELETE"), "", FORM, "limit=1", 405),
        (by_header("POST"), "", FORM, "limit=1", 422),
        (by_header("OPTIONS"), "", FORM, "limit=1", 422),
        (by_header("LIST"), "", FORM, "limit=1", 422),
        (by_header(""), "", FORM, "limit=1", 422),
        (by_header("GET, GET"), "", FORM, "limit=1", 422),
        (format!("{0}\r\n{0}", by_header("GET")), "", FORM, "limit=1", 200),
        (format!("{}\r\n{}", by_header("GET"), by_header("PUT")), "", FORM, "", 422),
        (by_header("GET"), "", FORM, "_method=DELETE", 422),
        (by_header("G\u{e9}T"), "", FORM, "", 422),
        (String::new(), "", FORM, "_method=GET", 200),
        (String::new(), "", FORM, "_method=POST", 422),
        (String::new(), "", FORM, "_method=", 422),
        (String::new(), "", FORM, "_method=GET&_method=GET", 400),
        (String::new(), "?_method=GET", FORM, "", 200),
        (String::new(), "?_method=GET", JSON, "{}", 200),
        (String::new(), "?_method=x", JSON, "{}", 422),
        (String::new(), "", JSON, r#"{"_method":"GET","filters":[]}"#, 200),
        (String::new(), "", JSON, r#"{"_method":null}"#, 422),
        (String::new(), "", JSON, r#"{"_method":["GET"]}"#, 422),
        // One whose method was lost on the way, and what is misspelt.
        (String::new(), "", FORM, "filters=[]&limit=1&alt=json", 422),
        (String::new(), "?where={}&alt=json", JSON, "{}", 422),
        (String::new(), "", JSON, r#"{"order":null}"#, 422),
        (String::new(), "", FORM, "scope=[\"GET /\"]", 422),
        (String::new(), "?expires=2030-01-01T00:00:00Z", JSON, "{}", 422),
        (String::new(), "", JSON, r#"{"api_client_authorization":{},"scope":[]}"#, 422),
        // What a form or a list says elsewhere is never passed over either.
        (String::new(), "", "content-type: text/plain", "_method=GET", 400),
        (String::new(), "", "content-type: multipart/form-data; boundary=x", "--x", 400),
        (String::new(), "", FORM, r#"{"scopes":[]}"#, 400),
        (String::new(), "", FORM, "scopes[]=GET", 400),
        (String::new(), "", JSON, "{", 400),
        (String::new(), "", JSON, "[]", 400),
        (String::new(), "", JSON, "null", 400),
    ] {
        let mut headers = vec![kind];
        headers.extend((!header.is_empty()).then_some(&*header));
        let answered = world.send(&format!("POST {query}"), &headers, body).await;
        assert_eq!(answered.status, status, "{header} {query} {kind} {body} {answered:?}");
        if status != 200 {
            error(&answered);
        } else if !header.contains("HEAD") {
            assert_eq!(answered.json()["kind"], "arvados#apiClientAuthorizationList");
        }
        let now = (world.count().await, world.server.kept().await);
        assert_eq!(now, before, "{header} {query} {kind} {body}");
    }
    // Only POST names another: nothing that reads does more.
    for method in ["DELETE", "POST", "PUT", "x"] {
        let listed = world.send(&format!("GET ?_method={method}"), &[&by_header(method)], "").await;
        assert_eq!(listed.json()["kind"], "arvados#apiClientAuthorizationList");
    }
    assert_eq!((world.count().await, world.server.kept().await), before);

    // What it names is done.
    let uuid = world.ok("POST", &json!({})).await["uuid"].as_str().unwrap().to_owned();
    let body = r#"{"scopes":[]}"#;
    let updated = world.send(&format!("POST /{uuid}"), &[JSON, &by_header("PUT")], body).await;
    assert_eq!(updated.json()["scopes"], json!([]));
    let got = world.send(&format!("POST /{uuid}"), &[AS_GET], "").await;
    assert_eq!(got.json()["uuid"], uuid);
    let head = world.send(&format!("POST /{uuid}"), &[&by_header("HEAD")], "").await;
    assert_eq!((head.status.as_u16(), &*head.text), (200, ""));
    let deleted = world.send(&format!("POST /{uuid}?_method=DELETE"), &[], "").await;
    assert_eq!(deleted.status, 200);
    assert_eq!(world.listed("").await, [&*world.uuid]);
}

async fn attributes_that_cannot_be_set_are_refused_and_change_nothing(engine: Engine) {
    let world = World::new(engine, &[]).await;
    world.server.follow().await;
    let before = world.server.kept().await;
    let one = format!("/{}", world.uuid);
    let on_both = [
        json!({ "unknown": 1 }),
        json!({ "unknown": null }),
        json!({ "default_owner_uuid": world.user_id }),
        json!({ "api_token": "0".repeat(50) }),
        json!({ "created_by_ip_address": "192.0.2.1" }),
        json!({ "last_used_by_ip_address": "192.0.2.1" }),
        json!({ "last_used_at": "2027-01-01T00:00:00Z" }),
        json!({ "scopes": null }),
        json!({ "scopes": "" }),
        json!({ "scopes": "all" }),
        json!({ "scopes": {} }),
        json!({ "scopes": [["GET", "/path"]] }),
        json!({ "scopes": [1] }),
        json!({ "expires_at": "" }),
        json!({ "expires_at": "tomorrow" }),
        json!({ "expires_at": "2027-13-01T00:00:00Z" }),
        json!({ "expires_at": "Fri, 31 Feb 2038 00:00:00 GMT" }),
        json!({ "expires_at": 1_798_858_800 }),
        json!({ "expires_at": [] }),
        json!({ "user_id": "x" }),
        json!({ "user_id": 1.5 }),
        json!({ "api_client_id": [] }),
    ];
    let on_create = [
        json!({ "uuid": "zzzzz-gj3su-000000000000001" }),
        json!({ "uuid": 7 }),
        json!({ "owner_uuid": 7 }),
        json!({ "owner_uuid": "alice" }),
    ];
    let on_update = [
        json!({ "uuid": UNKNOWN }),
        json!({ "owner_uuid": world.user_id }),
        json!({ "owner_uuid": null }),
        json!({ "user_id": null }),
    ];
    let create = on_both.iter().chain(&on_create).map(|it| ("POST ", it));
    let update = on_both.iter().chain(&on_update).map(|it| ("PUT ", it));
    for (method, attributes) in create.chain(update) {
        let request = format!("{method}{}", if method == "PUT " { &one } else { "" });
        let nested = json!({ "api_client_authorization": attributes }).to_string();
        let form = parameter("api_client_authorization", &attributes.to_string());
        let bare = attributes.to_string();
        for (kind, body) in [(JSON, nested), (JSON, bare), (FORM, form)] {
            let answered = world.send(&request, &[kind], &body).await;
            assert_eq!(answered.status, 422, "{request} {kind} {body} {answered:?}");
            let name = attributes.as_object().unwrap().keys().next().unwrap();
            assert!(error(&answered).contains(name.as_str()), "{body} {answered:?}");
        }
    }
    for body in [json!([]), json!("x"), json!(7), json!("[1]")] {
        let body = json!({ "api_client_authorization": body }).to_string();
        assert_eq!(world.send("POST", &[JSON], &body).await.status, 422, "{body}");
    }
    assert_eq!(world.server.kept().await, before);
    let chief = world.chief().await;
    let count = world.count().await;
    for query in [
        "scopes=all",
        "scopes=",
        "scopes=%7B%7D",
        "expires_at=2038-01-01T00:00:00Z&scopes=x",
        "api_client_id=x",
    ] {
        let request = format!("POST /create_system_auth?{query}");
        assert_eq!(world.send_by(&chief, &request, &[], "").await.status, 422, "{query}");
    }
    let body = r#"{"expires_at":"2038-01-01T00:00:00Z"}"#;
    let answered = world.send_by(&chief, "POST /create_system_auth", &[JSON], body).await;
    assert_eq!(answered.status, 422);
    let own = format!("PUT /{}", chief.split('/').nth(1).unwrap());
    let body = json!({ "uuid": UNKNOWN }).to_string();
    assert_eq!(world.send_by(&chief, &own, &[JSON], &body).await.status, 403);
    assert_eq!(world.count().await, count);
    // An administrator chooses a uuid, and all wrong is said at once.
    let uuid = "zzzzz-gj3su-chosenchosen000";
    let body = json!({ "uuid": uuid }).to_string();
    assert_eq!(world.send_by(&chief, "POST", &[JSON], &body).await.json()["uuid"], uuid);
    assert_eq!(world.send_by(&chief, "POST", &[JSON], &body).await.status, 422, "no 409");
    let body = r#"{"scopes":7,"expires_at":"x","unknown":1}"#;
    let said = error(&world.send("POST", &[JSON], body).await);
    let bad = error(&world.send("POST", &[JSON], r#"{"scopes":["all","GET /\u0000"]}"#).await);
    assert!(bad.starts_with("scopes[1] must be "), "{bad}");
    let many: Map<String, Value> =
        (0..1000).map(|at| (format!("{at}{}", "x".repeat(200)), json!(1))).collect();
    let said_of_many = error(&world.send("POST", &[JSON], &Value::Object(many).to_string()).await);
    assert!(said_of_many.len() < 4096, "{}", said_of_many.len());
    assert!(["scopes", "expires_at", "unknown"].iter().all(|name| said.contains(name)), "{said}");
}
