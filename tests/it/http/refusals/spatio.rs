//! At the paths of Spatio.

use super::*;

const MAIN: &str = "/v1/organizations/org-of-main/workspaces/main/tokens";

pub(super) fn refused(world: &World) -> Vec<Refused> {
    let pats = &world.pats;
    let by = |request: &str, body: &str, status| Refused::new(&pats.good, request, body, status);
    let (others, ended) = (&pats.others, &pats.ended);
    let mut refused = vec![
        // What can't be read, whatever it says that it is.
        by("POST /v1/tokens", "", 400),
        by("POST /v1/tokens", "{", 400),
        by("POST /v1/tokens", "null", 400),
        by("POST /v1/tokens", &"[".repeat(500), 400),
        by("POST /v1/tokens", r#"{"name":"\ud800"}"#, 400),
        Refused::new(&pats.good, "POST /v1/tokens", b"\xff{}", 400),
        Refused::with(&[FORM], &pats.good, "POST /v1/tokens", "name=x", 400),
        Refused::with(&["content-type: x"], &pats.good, "PATCH /v1/tokens/x", "--x", 400),
        Refused::with(
            &[JSON, "content-encoding: gzip"],
            &pats.good,
            "POST /v1/tokens",
            b"\x1f\x8b\x08",
            400,
        ),
        Refused::with(
            &[JSON, "transfer-encoding: chunked"],
            &pats.good,
            "POST /v1/tokens",
            "z\r\n{}\r\n0\r\n\r\n",
            400,
        ),
        // Values that are none.
        by("POST /v1/tokens", "{}", 400),
        by("POST /v1/tokens", r#"{"name":"a\u0000b"}"#, 400),
        by("POST /v1/tokens", r#"{"name":"a\u202eb"}"#, 400),
        by("POST /v1/tokens", &json!({ "name": "x".repeat(101) }).to_string(), 400),
        by(
            "POST /v1/tokens",
            &json!({ "name": "x", "description": "x".repeat(1001) }).to_string(),
            400,
        ),
        by("POST /v1/tokens", r#"{"name":"x","scopes":["notes:read"]}"#, 400),
        by("POST /v1/tokens", r#"{"name":"x","scopes":[["read:*"]]}"#, 400),
        by("POST /v1/tokens", r#"{"name":"x","expiresAt":"2027-01-15T08:00:00Z"}"#, 400),
        by("POST /v1/tokens", r#"{"name":"x","expiresAt":"9999-12-31T23:59:59-01:00"}"#, 400),
        by("POST /v1/tokens", r#"{"name":"x","workspaceId":"\u0000"}"#, 400),
        by(&format!("POST {MAIN}"), r#"{"name":7}"#, 400),
        by(&format!("PATCH /v1/tokens/{others}"), r#"{"scopes":[]}"#, 400),
        by(&format!("PATCH {MAIN}/{others}"), r#"{"scopes":["read:*"]}"#, 400),
        by("POST /v1/tokens", &json!({ "name": "x".repeat(2 << 20) }).to_string(), 413),
        // Who may not, and what there is no more room for.
        by("POST /v1/tokens", r#"{"name":"x","scopes":["admin:all"]}"#, 403),
        by("POST /v1/tokens", r#"{"name":"x","workspaceId":"other"}"#, 403),
        Refused::new(&pats.full, "POST /v1/tokens", r#"{"name":"x"}"#, 403),
        Refused::new(&pats.full, format!("GET {MAIN}"), "", 403),
        Refused::new(&pats.full, format!("POST {MAIN}"), r#"{"name":"x"}"#, 403),
        by(&MAIN.replace("main", "none").replacen('/', "GET /", 1), "", 403),
        // What the state of things stands against.
        by(&format!("PATCH /v1/tokens/{ended}"), r#"{"name":"x"}"#, 404),
        by(&MAIN.replace("main", "closed").replacen('/', "POST /", 1), r#"{"name":"x"}"#, 422),
        // What there is not, or not for the caller, or not any more.
        by(&format!("PATCH /v1/tokens/{others}"), "{}", 404),
        by(&format!("DELETE /v1/tokens/{others}"), "", 404),
        by(&format!("DELETE /v1/tokens/{ended}"), "", 404),
        by(&format!("DELETE {MAIN}/{ended}"), "", 404),
        by("DELETE /v1/tokens/%00", "", 404),
        by("DELETE /v1/tokens/%ff", "", 404),
        by("PATCH /v1/tokens/nope%2F..%2Fx%20y", "{}", 404),
        by(&format!("DELETE /v1/tokens/{}", "x".repeat(9_000)), "", 404),
        by("GET /", "", 404),
        by("GET /v1", "", 404),
        by("GET /v1/tokens/", "", 404),
        by("GET //v1/tokens", "", 404),
        by("GET /V1/tokens", "", 404),
        by("GET /v1/tokens/scopes/x", "", 404),
        by("GET /v1/organizations//workspaces//tokens", "", 404),
        by("GET /v1/organizations/%00/workspaces/%00/tokens", "", 404),
        by("OPTIONS *", "", 404),
        // There is no single token to be read, and `scopes` is no id.
        by("GET /v1/tokens/x", "", 405),
        by("PATCH /v1/tokens/scopes", "{}", 405),
        by("DELETE /v1/tokens/scopes", "", 405),
        by("PUT /v1/tokens", "{}", 405),
        by("HEAD /v1/tokens", "", 405),
        by("OPTIONS /v1/tokens", "", 405),
        by("TRACE /v1/tokens", "", 405),
        by("BREW /v1/tokens", "", 405),
        by(&format!("PUT {MAIN}"), "{}", 405),
        by(&format!("POST {MAIN}/x"), "{}", 405),
        // More than what a request may be.
        by(&format!("GET /v1/tokens?{}", "x".repeat(17 << 10)), "", 431),
        Refused::with(
            &[&format!("cookie: {}", "x".repeat(17 << 10))],
            &pats.good,
            "GET /v1/tokens",
            "",
            431,
        ),
        Refused::with(&["x: y"; 70], &pats.good, "GET /v1/tokens", "", 431),
    ];
    // Nobody is let in by what is over, of the other system, or no token at all.
    let none = ["", "pat_x", ROOT, &unknown_token(), &world.authorizations.good];
    let none = none.map(str::to_owned).into_iter().chain(pats.dead.clone());
    for token in none.chain(["x".repeat(9_000), format!("{} x", pats.good)]) {
        refused.push(Refused::new(&token, "GET /v1/tokens", "", 401));
    }
    for (method, path) in [
        ("GET", "/v1/tokens/scopes"),
        ("POST", PATS),
        ("PATCH", "/v1/tokens/x"),
        ("DELETE", "/v1/tokens/x"),
        ("GET", MAIN),
        ("POST", MAIN),
        ("PATCH", &format!("{MAIN}/x")),
        ("DELETE", &format!("{MAIN}/x")),
    ] {
        refused.push(Refused::new("", format!("{method} {path}"), "", 401));
    }
    for header in ["Bearer", "Bearer ", "Basic eDp5", "Bearer \u{e9}", "Digest x", ""] {
        let header = format!("authorization: {header}");
        refused.push(Refused::with(&[&header], "", "GET /v1/tokens", "", 401));
    }
    let twice = format!("authorization: Bearer {}", pats.good);
    refused.push(Refused::with(&[&twice], &pats.good, "GET /v1/tokens", "", 401));
    refused
}
