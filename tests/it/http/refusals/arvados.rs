//! At the paths of Arvados.

use base64::{Engine as _, engine::general_purpose::URL_SAFE};

use super::{super::arvados::parameter, *};

const DISCOVERY: &str = "/discovery/v1/apis/arvados/v1/rest";

pub(super) fn refused(world: &World) -> Vec<Refused> {
    let mut refused = requests(world);
    refused.extend(values(world));
    refused.extend(callers(world));
    refused
}

/// Of the caller's own, below the path of the tokens.
fn own(world: &World, request: &str, body: impl AsRef<[u8]>, status: u16) -> Refused {
    Refused::new(&world.authorizations.good, at(request), body, status)
}

fn at(request: &str) -> String {
    let (method, below) = request.split_once(' ').unwrap_or((request, ""));
    format!("{method} {AUTHORIZATIONS}{below}")
}

/// What can't be read, is not there, or not by that method.
fn requests(world: &World) -> Vec<Refused> {
    let by = |request: &str, body: &str, status| own(world, request, body, status);
    let with = |headers: &[&str], request: &str, body: &str, status| {
        Refused::with(headers, &world.authorizations.good, at(request), body, status)
    };
    let (others, ended) = (&world.authorizations.others, &world.authorizations.ended);
    let anywhere = |request: &str, status| Refused::new("", request, "", status);
    vec![
        by("POST", "{", 400),
        by("POST", "null", 400),
        by("POST", &"[".repeat(500), 400),
        own(world, "POST", b"\xff{}", 400),
        with(&[FORM], "POST", "scopes[]=all", 400),
        with(&["content-type: text/plain"], "POST", "scopes=x", 400),
        with(&[JSON, "content-encoding: gzip"], "POST", "\u{1f}", 400),
        with(&[JSON, "transfer-encoding: chunked"], "POST", "z\r\n{}\r\n0\r\n\r\n", 400),
        by("GET ?limit=1&limit=1", "", 400),
        by("GET ?%ff=1", "", 400),
        by("GET ?=1", "", 400),
        Refused::with(&["host: a/b"], "", format!("GET {DISCOVERY}"), "", 400),
        by("POST", &json!({ "scopes": ["x".repeat(2 << 20)] }).to_string(), 413),
        by(&format!("GET ?{}", "x".repeat(17 << 10)), "", 431),
        with(&["x: y"; 70], "GET", "", 431),
        by(&format!("GET /{others}"), "", 404),
        by(&format!("HEAD /{others}"), "", 404),
        by(&format!("PUT /{others}"), "{}", 404),
        by(&format!("PATCH /{others}"), r#"{"scopes":[]}"#, 404),
        by(&format!("DELETE /{others}"), "", 404),
        by(&format!("GET /{ended}"), "", 404),
        by(&format!("PUT /{ended}"), r#"{"expires_at":null}"#, 404),
        by(&format!("DELETE /{ended}"), "", 404),
        Refused::new(ROOT, at("DELETE /zzzzz-gj3su-000000000000000"), "", 404),
        by("GET /%00", "", 404),
        by("PUT /%f0%9f%98%80", "{}", 404),
        by("GET /current/x", "", 404),
        by("GET /%2e%2e/current", "", 404),
        by("GET //", "", 404),
        anywhere("GET /arvados", 404),
        anywhere("GET /arvados/v1/users/current", 404),
        anywhere("POST /arvados/v1/batch", 404),
        anywhere("GET /discovery/v1", 404),
        anywhere(&format!("POST {DISCOVERY}"), 405),
        by("PUT", "{}", 405),
        by("DELETE", "", 405),
        by("TRACE", "", 405),
        by("BREW", "", 405),
        by("POST /current", "{}", 405),
        by("GET /create_system_auth", "", 405),
        by(&format!("POST /{others}"), "{}", 405),
        with(&[FORM, "x-http-method-override: PUT"], "POST", "scopes=[]", 405),
        with(&[FORM, "x-http-method-override: LIST"], "POST", "limit=1", 422),
        with(&[FORM, "x-http-method-override: GET"], "POST", "_method=PUT", 422),
    ]
}

/// What is asked for is nothing that can be, or that the state of things allows.
fn values(world: &World) -> Vec<Refused> {
    let own_uuid = world.authorizations.good.split('/').nth(1).unwrap();
    let inactive = json!({ "owner_uuid": world.inactive }).to_string();
    let taken = json!({ "uuid": own_uuid }).to_string();
    let mut refused = vec![
        // Ids that are taken, reserved, or of something else; and who is not active.
        Refused::new(&world.chief, at("POST"), &taken, 422),
        Refused::new(ROOT, at("POST"), taken, 422),
        Refused::new(
            ROOT,
            at("POST"),
            json!({ "uuid": world.authorizations.ended }).to_string(),
            422,
        ),
        Refused::new(ROOT, at("POST"), r#"{"uuid":"zzzzz-gj3su-000000000000000"}"#, 422),
        Refused::new(ROOT, at("POST"), r#"{"uuid":"zzzzz-tpzed-000000000000001"}"#, 422),
        Refused::new(ROOT, at("POST"), r#"{"uuid":"aaaaa-gj3su-000000000000001"}"#, 422),
        Refused::new(&world.chief, at("POST"), inactive, 422),
        Refused::new(&world.authorizations.full, at("POST"), "{}", 403),
    ];
    for body in [
        json!({ "api_token": "0".repeat(50) }),
        json!({ "scopes": "all" }),
        json!({ "scopes": [["GET", "/"]] }),
        json!({ "scopes": [format!("GET /{}", "x".repeat(300))] }),
        json!({ "scopes": ["GET /\u{0}"] }),
        json!({ "scopes": vec!["GET /"; 101] }),
        json!({ "expires_at": "soon" }),
        json!({ "expires_at": "9999-12-31T23:59:59-01:00" }),
        json!({ "api_client_id": u64::MAX }),
        json!({ "unknown\u{0}": 1 }),
        json!({ "uuid": "zzzzz-gj3su-000000000000001" }),
        json!({ "api_client_authorization": [] }),
    ] {
        for request in ["POST", &format!("PUT /{own_uuid}")] {
            refused.push(own(world, request, body.to_string(), 422));
        }
    }
    for operand in [
        json!(["uuid", "=", "\u{0}"]),
        json!(["uuid", "~", "x"]),
        json!(["uuid", "in", vec!["x"; 1001]]),
        json!(["user_id", "=", 1e300]),
        json!(["api_token", "like", "%"]),
        json!(["scopes", "contains", "x"]),
        json!(["expires_at", "<", "0000-01-01T00:00:00Z"]),
        json!(["unknown", "=", 1]),
    ] {
        let filters = parameter("filters", &json!([operand]).to_string());
        refused.push(own(world, &format!("GET ?{filters}"), "", 422));
    }
    let deep = parameter("filters", &"[".repeat(500));
    let many = parameter("filters", &json!(vec![json!(["uuid", "=", "x"]); 101]).to_string());
    for query in [
        &*deep,
        &many,
        "limit=-1",
        "limit=%00",
        "offset=99999999999999999999",
        "count=some",
        "distinct=perhaps",
        "order=%00",
        "select=%5B%22secret%22%5D",
        "where=%7B%22uuid%22%3A%22%5Cu0000%22%7D",
        "cluster_id=aaaaa",
    ] {
        refused.push(own(world, &format!("GET ?{query}"), "", 422));
    }
    refused.push(own(world, "GET /current?remote=x", "", 422));
    refused
}

/// Who is nobody, or may not.
fn callers(world: &World) -> Vec<Refused> {
    let Tokens { good, dead, others, .. } = &world.authorizations;
    let [_, uuid, secret] = good.split('/').collect::<Vec<_>>()[..] else { unreachable!() };
    let of_others = json!({ "owner_uuid": world.inactive }).to_string();
    let nobody = r#"{"owner_uuid":"zzzzz-tpzed-nobodynobody000"}"#;
    let mut refused = vec![
        own(world, "POST", of_others, 403),
        own(world, "POST", nobody, 403),
        Refused::new(&world.chief, at("POST"), nobody, 403),
        Refused::new(ROOT, at("POST"), nobody, 403),
        own(world, "POST /create_system_auth", "", 403),
        own(world, "GET ?bypass_federation=true", "", 403),
        own(world, &format!("PUT /{uuid}"), r#"{"user_id":1}"#, 403),
        Refused::new(ROOT, at(&format!("PUT /{uuid}")), json!({ "uuid": others }).to_string(), 403),
        // Only an owner sees its own: an administrator is told the same.
        Refused::new(&world.chief, at(&format!("GET /{uuid}")), "", 404),
        Refused::new(&world.chief, at(&format!("DELETE /{uuid}")), "", 404),
    ];
    let nobody = [
        "",
        "x",
        "v2/",
        "v2//",
        &world.pats.good,
        &unknown_token(),
        &format!("v2/{uuid}"),
        &format!("v2/{uuid}/"),
        &format!("v2/{uuid}/{}", "0".repeat(secret.len())),
        &format!("v2/{}/{secret}", uuid.to_uppercase()),
        &format!("v2/aaaaa{}/{secret}", &uuid[5..]),
        &format!("v1/{secret}"),
        &format!("{secret}0"),
        &format!("{ROOT}0"),
        &ROOT.to_lowercase(),
        &"x".repeat(9_000),
    ];
    for token in nobody.into_iter().chain(dead.iter().map(String::as_str)) {
        refused.push(Refused::new(token, at("GET /current"), "", 401));
        refused.push(Refused::new(token, at("POST"), "{}", 401));
    }
    // Nothing but that header is looked at for a token: neither what its servers take, too,
    // nor what widens what others read.
    let cookie = format!("cookie: arvados_api_token={}", URL_SAFE.encode(good));
    let basic = format!("authorization: Basic {}", URL_SAFE.encode(format!("x:{good}")));
    for (header, query, body) in [
        (&*cookie, String::new(), String::new()),
        (&basic, String::new(), String::new()),
        ("x: y", format!("?oauth_token={secret}"), String::new()),
        ("x: y", format!("?reader_tokens[]={secret}"), String::new()),
        ("x: y", format!("?reader_tokens=%5B%22{secret}%22%5D"), String::new()),
        ("x: y", String::new(), format!("api_token={secret}")),
    ] {
        for request in ["GET", "GET /current", "POST"] {
            let (method, below) = request.split_once(' ').unwrap_or((request, ""));
            let request = at(&format!("{method} {below}{query}"));
            refused.push(Refused::with(&[FORM, header], "", request, &body, 401));
        }
    }
    refused
}
