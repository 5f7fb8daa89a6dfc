//! The discovery document (SEEDS 3.15), and what browsers are told (3.13).

use super::*;

const DISCOVERY: &str = "/discovery/v1/apis/arvados/v1/rest";

async fn root_url(server: &TestServer, headers: &[&str]) -> Value {
    let answered = send(server, &format!("GET {DISCOVERY}"), headers, "").await;
    assert_eq!(answered.status, 200, "{headers:?}");
    answered.json()["rootUrl"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn document_is_public_and_names_what_the_clients_need() {
    let server = TestServer::start(Engine::Sqlite).await;
    for headers in [&[][..], &["authorization: Bearer bogus"], &["authorization: Bearer v2/x/y"]] {
        let answered = send(&server, &format!("GET {DISCOVERY}"), headers, "").await;
        assert_eq!(answered.status, 200);
        // Its address is that of who asked.
        assert_eq!(answered.headers["cache-control"], "private, max-age=86400");
        assert_eq!(answered.headers["access-control-allow-origin"], "*");
    }
    let document = send(&server, &format!("GET {DISCOVERY}?alt=json"), &[], "").await.json();
    assert_eq!(document["rootUrl"], "http://localhost/");
    assert_eq!(
        (&document["servicePath"], &document["uuidPrefix"]),
        (&json!("arvados/v1/"), &json!("zzzzz"))
    );
    assert_eq!(document["maxItemsPerResponse"], 1000);
    assert_eq!(document["schemas"]["ApiClientAuthorization"]["uuidPrefix"], "gj3su");
    let methods = &document["resources"]["api_client_authorizations"]["methods"];
    let all = "api_client_authorizations";
    for (name, verb, path) in [
        ("get", "GET", &*format!("{all}/{{uuid}}")),
        ("list", "GET", all),
        ("create", "POST", all),
        ("update", "PUT", &format!("{all}/{{uuid}}")),
        ("delete", "DELETE", &format!("{all}/{{uuid}}")),
        ("current", "GET", &format!("{all}/current")),
        ("create_system_auth", "POST", &format!("{all}/create_system_auth")),
    ] {
        let method = &methods[name];
        assert_eq!(
            (&method["httpMethod"], &method["path"]),
            (&json!(verb), &json!(path)),
            "{name}"
        );
        assert_eq!(method.get("request").is_some(), ["create", "update"].contains(&name), "{name}");
        let uuid = &method["parameters"]["uuid"];
        assert_eq!(uuid["location"] == "path", path.contains("{uuid}"), "{name}");
        assert_eq!(method["parameters"]["select"]["type"], "array", "{name}");
    }
    assert!(methods["create_system_auth"]["parameters"]["api_client_id"].is_object());
    let head = send(&server, &format!("HEAD {DISCOVERY}"), &[], "").await;
    assert_eq!((head.status.as_u16(), &*head.text), (200, ""));
    let post = send(&server, &format!("POST {DISCOVERY}"), &[], "").await;
    assert_eq!(
        (post.status.as_u16(), &post.headers["allow"]),
        (405, &"GET, HEAD".parse().unwrap())
    );
    error(&post);
}

#[tokio::test(flavor = "multi_thread")]
async fn root_url_follows_the_address_that_the_client_used() {
    let server = TestServer::start_with(Engine::Sqlite, &["--trusted-proxies=127.0.0.1/32"]).await;
    for (headers, expected) in [
        (&["host: tokens.example.org:8000"][..], "http://tokens.example.org:8000/"),
        (&["host: [::1]:8000"], "http://[::1]:8000/"),
        (&["host: a.example", "x-forwarded-proto: https"], "https://a.example/"),
        (&["host: a.example", "x-forwarded-proto: http"], "http://a.example/"),
    ] {
        assert_eq!(root_url(&server, headers).await, expected);
    }
    for host in ["host: a/b", "host: a\"b", "host: a@b", "host: ", "host: a\r\nhost: b"] {
        let answered = send(&server, &format!("GET {DISCOVERY}"), &[host], "").await;
        assert_eq!(answered.status, 400, "{host}");
    }
    let long = format!("host: {}", "a".repeat(256));
    assert_eq!(send(&server, &format!("GET {DISCOVERY}"), &[&long], "").await.status, 400);

    // Who is no proxy that is trusted is not believed.
    let server = TestServer::start(Engine::Sqlite).await;
    let headers = ["host: a.example", "x-forwarded-proto: https"];
    assert_eq!(root_url(&server, &headers).await, "http://a.example/");

    // What is set wins.
    for set in ["https://tokens.example.org/base", "https://tokens.example.org/base/"] {
        let set = format!("--http-root-url={set}");
        let server = TestServer::start_with(Engine::Sqlite, &[&set]).await;
        for headers in [&["host: a.example"][..], &["host: a/b"]] {
            assert_eq!(root_url(&server, headers).await, "https://tokens.example.org/base/");
        }
        let answered = send(&server, &format!("GET {DISCOVERY}"), &[], "").await;
        assert_eq!(answered.headers["cache-control"], "public, max-age=86400");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_may_ask_from_anywhere_here_and_nowhere_else() {
    let world = World::new(Engine::Sqlite, &[]).await;
    let origin = "access-control-allow-origin";
    for path in [TOKENS, &format!("{TOKENS}/x"), DISCOVERY, "/arvados/v1/none"] {
        let preflight = ["origin: https://a.example", "access-control-request-method: PUT"];
        let answered = send(&world.server, &format!("OPTIONS {path}"), &preflight, "").await;
        assert_eq!((answered.status.as_u16(), &*answered.text), (200, ""), "{path}");
        assert_eq!(answered.headers[origin], "*");
        let methods = answered.headers["access-control-allow-methods"].to_str().unwrap();
        let methods: Vec<_> = methods.split(", ").collect();
        assert!(["GET", "HEAD", "PUT", "POST", "DELETE"].iter().all(|it| methods.contains(it)));
        let headers = answered.headers["access-control-allow-headers"].to_str().unwrap();
        assert_eq!(headers, "Authorization, Content-Type");
    }
    for (request, status) in [
        (format!("GET {TOKENS}/current"), 401),
        ("GET /arvados/v1/none".to_owned(), 404),
        ("GET /arvados".to_owned(), 404),
        ("GET /discovery/v1".to_owned(), 404),
        (format!("GET {TOKENS}/%ff"), 404),
        (format!("PUT {TOKENS}"), 405),
    ] {
        let answered = send(&world.server, &request, &[], "").await;
        assert_eq!(answered.status, status, "{request}");
        assert_eq!(answered.headers[origin], "*", "{request}");
        error(&answered);
    }
    assert_eq!(world.send("GET /current", &[], "").await.headers[origin], "*");
    for request in ["GET /v1/tokens", "OPTIONS /v1/tokens", "POST /oauth2/introspect", "GET /"] {
        let answered = send(&world.server, request, &[], "").await;
        assert!(!answered.headers.contains_key(origin), "{request}");
    }
}
