//! What the scopes of a token let it ask for (SEEDS 3.5): this API's own paths.

use super::*;
use crate::support::on_both_stores;

on_both_stores![scopes_are_about_method_and_path, nothing_is_made_that_does_more];

async fn scopes_are_about_method_and_path(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let of = |entry: &str| entry.replace("TOKENS", TOKENS).replace("UUID", &world.uuid);
    let one = format!("/{}", world.uuid);
    for (entries, request, override_to, is_allowed) in [
        (&["GET TOKENS"][..], "GET ", "", true),
        (&["GET TOKENS"], "GET /", "", true),
        (&["GET TOKENS"], "HEAD ", "", true),
        (&["GET TOKENS"], "POST ", "GET", true),
        (&["GET TOKENS"], "POST ", "HEAD", true),
        (&["GET TOKENS"], "POST ", "", false),
        (&["GET TOKENS"], "GET /UUID", "", false),
        (&["GET TOKENS/"], "GET /UUID", "", true),
        (&["GET TOKENS/"], "GET ", "", false),
        (&["GET TOKENS/"], "GET /", "", false),
        (&["GET /"], "GET ", "", true),
        (&["GET /"], "GET /UUID/", "", true),
        (&["GET /"], "PUT /UUID", "", false),
        (&["get TOKENS"], "GET ", "", false),
        (&["POST TOKENS"], "POST ", "", true),
        (&["POST TOKENS"], "GET ", "", false),
        (&["POST TOKENS"], "POST ", "GET", false),
        (&["POST TOKENS"], "POST /create_system_auth", "", false),
        (&["PUT TOKENS/UUID"], "PUT /UUID", "", true),
        (&["PUT TOKENS/UUID"], "PATCH /UUID", "", true),
        (&["PATCH TOKENS/UUID"], "PUT /UUID", "", true),
        (&["PATCH TOKENS/UUID"], "POST /UUID", "PUT", true),
        (&["PATCH TOKENS/UUID"], "GET /UUID", "", false),
        (&["POST /token_authority.v1.ApiClientAuthorizations/"], "GET ", "", false),
        (&[], "GET ", "", false),
        (&[], "GET /current", "", true),
        (&[], "HEAD /current", "", false),
        (&["GET TOKENS/current"], "HEAD /current", "", true),
    ] {
        let entries: Vec<_> = entries.iter().map(|entry| of(entry)).collect();
        let entries: Vec<_> = entries.iter().map(String::as_str).collect();
        let token = world.scoped(&entries).await;
        let header = format!("x-http-method-override: {override_to}");
        let headers: &[&str] = if override_to.is_empty() { &[] } else { &[&header] };
        let request = request.replace("/UUID", &one);
        // A token that covers no scopes makes one without any.
        let body = if request == "POST " { r#"{"scopes":[]}"# } else { "" };
        let headers = [headers, &[JSON]].concat();
        let answered = world.send_by(&token, &request, &headers, body).await;
        let status = if is_allowed { 200 } else { 403 };
        assert_eq!(answered.status, status, "{entries:?} {request} {override_to} {answered:?}");
        if status == 403 && !request.starts_with("HEAD") {
            error(&answered);
        }
    }
}

async fn nothing_is_made_that_does_more(engine: Engine) {
    let world = World::new(engine, &[]).await;
    let create = format!("POST {TOKENS}");
    let token = world.scoped(&[&create]).await;
    let count = world.count().await;
    for scopes in [json!(["all"]), json!(["GET /"]), json!([create.replace("POST", "PUT")])] {
        let body = json!({ "scopes": scopes }).to_string();
        let answered = world.send_by(&token, "POST", &[JSON], &body).await;
        assert_eq!(answered.status, 403, "{body}");
        assert!(error(&answered).starts_with("scopes "));
    }
    assert_eq!(world.count().await, count);
    let made = world.send_by(&token, "POST", &[JSON], "{}").await.json();
    assert_eq!(made["scopes"], json!([create]), "what is not said is as the caller's");
}
