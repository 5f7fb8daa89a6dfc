//! The same over HTTP, where a token may stand in a path, a query or a form as well.

use super::*;
use crate::http::raw::{Answered, send_to};

const AUTHORIZATIONS: &str = "/arvados/v1/api_client_authorizations";
const JSON: &str = "content-type: application/json";
const FORM: &str = "content-type: application/x-www-form-urlencoded";

/// Tokens of both kinds made, listed, used and ended, and shown where none belongs.
pub(super) async fn use_and_misuse(
    process: &Process,
    admin: &str,
    authorization: &str,
    secrets: &mut Secrets,
) {
    let http = process.http.unwrap();
    let ask = async |token: &str, request: &str, header: &str, body: &str| -> Answered {
        let bearer = format!("authorization: Bearer {token}");
        send_to(http, request, &[&bearer, header], body).await
    };
    let made = ask(admin, "POST /v1/tokens", JSON, r#"{"name":"over HTTP"}"#).await.json();
    let pat = secrets.keep(made["token"].as_str().unwrap());
    let create = format!("POST {AUTHORIZATIONS}");
    let made = ask(authorization, &create, JSON, "{}").await.json();
    let secret = secrets.keep(made["api_token"].as_str().unwrap());
    let text = secrets.keep(&format!("v2/{}/{secret}", made["uuid"].as_str().unwrap()));
    let unknown = secrets.keep(&unknown_token());

    // Found by its secret in a query, and presented by one where that is allowed.
    let filter = format!("%5B%5B%22api_token%22%2C%22%3D%22%2C%22{secret}%22%5D%5D");
    let listed = ask(&text, &format!("GET {AUTHORIZATIONS}?filters={filter}"), JSON, "").await;
    assert_eq!(listed.json()["items_available"], 1);
    let query = format!("GET {AUTHORIZATIONS}/current?api_token={secret}");
    assert_eq!(send_to(http, &query, &[], "").await.status, 200);

    for text in [&*pat, &unknown, &secret, &text, ROOT] {
        let path = text.replace('/', "%2F");
        let body = format!(r#"{{"{text}":"{text}"}}"#);
        for (request, header, body) in [
            ("GET /v1/tokens".to_owned(), format!("x-request-id: {text}"), ""),
            ("GET /v1/tokens".to_owned(), format!("{}: x", text.replace('/', "-")), ""),
            ("GET /v1/tokens".to_owned(), format!("x-forwarded-for: {text}"), ""),
            ("GET /v1/tokens".to_owned(), format!("cookie: arvados_api_token={text}"), ""),
            (format!("GET /v1/tokens?token={text}"), format!("user-agent: {text}"), ""),
            (format!("DELETE /v1/tokens/{path}"), JSON.to_owned(), ""),
            (format!("GET /{path}"), JSON.to_owned(), ""),
            (format!("GET /v1/organizations/{path}/workspaces/{path}/tokens"), JSON.to_owned(), ""),
            ("POST /v1/tokens".to_owned(), JSON.to_owned(), &body),
            (format!("GET {AUTHORIZATIONS}/{path}"), JSON.to_owned(), ""),
            (format!("GET {AUTHORIZATIONS}?{path}={path}"), JSON.to_owned(), ""),
            (format!("POST {AUTHORIZATIONS}?_method={path}"), JSON.to_owned(), &body),
            (create.clone(), format!("x-http-method-override: {text}"), &body),
            ("GET /discovery/v1/apis/arvados/v1/rest".to_owned(), format!("host: {text}"), ""),
            (format!("{} /v1/tokens", text.replace('/', "-")), JSON.to_owned(), ""),
            (format!("POST /oauth2/introspect?token={path}"), FORM.to_owned(), ""),
        ] {
            for by in [admin, authorization] {
                ask(by, &request, &header, body).await;
            }
        }
        for request in ["GET /v1/tokens", &format!("GET {AUTHORIZATIONS}"), &create] {
            ask(text, request, "x: y", "").await;
            ask(&format!("{text}x"), request, "x: y", "").await;
        }
        let form = format!("token={path}");
        let basic = general_purpose::STANDARD.encode(format!("{text}:{text}"));
        let headers = [&*format!("authorization: Basic {basic}"), FORM];
        send_to(http, "POST /oauth2/introspect", &headers, &form).await;
        assert_eq!(ask(admin, "POST /oauth2/introspect", FORM, &form).await.status, 200);
    }
    for text in [&pat, &text, &unknown] {
        assert_eq!(
            ask("x", "POST /oauth2/revoke", FORM, &format!("token={text}")).await.status,
            200
        );
    }
}
