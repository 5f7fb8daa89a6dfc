//! The discovery document (SEEDS 3.15), from which the clients learn what they can call.

use http::{
    HeaderMap,
    header::{CACHE_CONTROL, HOST},
};
use serde_json::{Map, Value, json};

use super::super::{Answer, Call, MAX_BODY, problem::Problem};

/// The longest name of a host that is said again, with its port.
const MAX_HOST: usize = 255;

pub(super) fn answer(call: &Call<'_>) -> Result<Answer, Problem> {
    let (root_url, caches) = match &call.front.root_url {
        Some(url) => (url.0.clone(), "public, max-age=86400"),
        // For who asked alone: others may use another host, or HTTPS.
        None => {
            let host = host(call.headers).ok_or_else(|| {
                Problem::unreadable("the request must name its host, and a port if there is one")
            })?;
            let scheme = if call.is_secure { "https" } else { "http" };
            (format!("{scheme}://{host}/"), "private, max-age=86400")
        }
    };
    let cluster_id = call.front.verifier.roots.cluster_id.to_string();
    let mut answer = Answer::ok(document(&root_url, &cluster_id));
    answer.header(CACHE_CONTROL, caches);
    Ok(answer)
}

/// The host and port that the client used.
fn host(headers: &HeaderMap) -> Option<&str> {
    let mut hosts = headers.get_all(HOST).iter();
    let only = hosts.next().filter(|_| hosts.next().is_none())?.to_str().ok()?;
    is_host(only).then_some(only)
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        Some(_) | None => (text, None),
    };
    let all = |text: &str, good: fn(u8) -> bool| !text.is_empty() && text.bytes().all(good);
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => all(address, |byte| byte.is_ascii_hexdigit() || b":.".contains(&byte)),
        None => all(host, |byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    text.len() <= MAX_HOST
        && is_host
        && port.is_none_or(|port| all(port, |byte| byte.is_ascii_digit()) && port.len() <= 5)
}

fn document(root_url: &str, cluster_id: &str) -> Value {
    json!({
        "kind": "discovery#restDescription",
        "discoveryVersion": "v1",
        "id": "arvados:v1",
        "name": "arvados",
        "version": "v1",
        "revision": "20260101",
        "title": "Arvados API",
        "description": "The API client authorizations of Arvados",
        "protocol": "rest",
        "rootUrl": root_url,
        "baseUrl": format!("{root_url}arvados/v1/"),
        "basePath": "/arvados/v1/",
        "servicePath": "arvados/v1/",
        "batchPath": "batch",
        "uuidPrefix": cluster_id,
        "maxRequestSize": MAX_BODY,
        "maxItemsPerResponse": 1000,
        "parameters": {
            "alt": {
                "type": "string",
                "description": "Data format for the response.",
                "default": "json",
                "enum": ["json"],
                "location": "query",
            },
        },
        "auth": {
            "oauth2": { "scopes": { "https://api.arvados.org/auth/arvados": {
                "description": "View and manage objects",
            } } },
        },
        "schemas": schemas(),
        "resources": { "api_client_authorizations": { "methods": methods() } },
    })
}

fn schemas() -> Value {
    let of = |kind: &str, description: &str| json!({ "type": kind, "description": description });
    json!({
        "ApiClientAuthorization": {
            "id": "ApiClientAuthorization",
            "description": "A token of a user for a program",
            "type": "object",
            "uuidPrefix": "gj3su",
            "properties": {
                "kind": of("string", "arvados#apiClientAuthorization"),
                "etag": of("string", "Differs once the token was changed."),
                "uuid": of("string", "The public name."),
                "api_token": of("string", "The secret, where it may be shown."),
                "api_client_id": of("integer", "The number of the program it was made for."),
                "user_id": of("integer", "The number of its user."),
                "owner_uuid": of("string", "Its user."),
                "created_by_ip_address": of("string", "From where it was made."),
                "last_used_by_ip_address": of("string", "From where it was last used."),
                "last_used_at": of("datetime", "When it was last used."),
                "expires_at": of("datetime", "When it ends; null: never."),
                "scopes": of("Array", "What it may do."),
                "created_at": of("datetime", "When it was made."),
                "modified_at": of("datetime", "Always null."),
                "modified_by_user_uuid": of("string", "Always null."),
            },
        },
        "ApiClientAuthorizationList": {
            "id": "ApiClientAuthorizationList",
            "description": "Some of them",
            "type": "object",
            "properties": {
                "kind": of("string", "arvados#apiClientAuthorizationList"),
                "etag": of("string", "Always empty."),
                "self_link": of("string", "Always empty."),
                "offset": of("integer", "How many were passed over."),
                "limit": of("integer", "How many were to be there at most."),
                "items_available": of("integer", "How many match."),
                "items": {
                    "type": "array",
                    "description": "They.",
                    "items": { "$ref": "ApiClientAuthorization" },
                },
            },
        },
    })
}

const SELECT: (&str, &str, &str) = ("select", "array", "The attributes to answer with.");

fn methods() -> Value {
    let all = "api_client_authorizations";
    let one = "api_client_authorizations/{uuid}";
    json!({
        "get": method("get", "GET", one, false, &[SELECT]),
        "list": method("list", "GET", all, false, &[
            ("filters", "array", "Conditions that must all hold."),
            ("where", "object", "Attributes and what they must equal."),
            ("order", "array", "By what to sort."),
            SELECT,
            ("distinct", "boolean", "Whether equal answers are given once."),
            ("limit", "integer", "How many at most; 100 if it is not said."),
            ("offset", "integer", "How many to pass over."),
            ("count", "string", "exact or none."),
            ("cluster_id", "string", "This cluster, if any."),
            ("bypass_federation", "boolean", "For administrators; there is no federation."),
        ]),
        "create": method("create", "POST", all, true, &[
            SELECT,
            ("ensure_unique_name", "boolean", "Means nothing here."),
            ("cluster_id", "string", "This cluster, if any."),
        ]),
        "update": method("update", "PUT", one, true, &[SELECT]),
        "delete": method("delete", "DELETE", one, false, &[SELECT]),
        "current": method("current", "GET", &format!("{all}/current"), false, &[
            SELECT,
            ("remote", "string", "The cluster that asks, if it is another."),
        ]),
        "create_system_auth": method(
            "create_system_auth",
            "POST",
            &format!("{all}/create_system_auth"),
            false,
            &[
                SELECT,
                ("api_client_id", "integer", "The number of the program that it is for."),
                ("scopes", "array", "What it may do."),
            ],
        ),
    })
}

/// A method with these parameters in its query. Where the document says that there is a
/// body, the clients insist on one.
fn method(
    name: &str,
    verb: &str,
    path: &str,
    has_body: bool,
    in_query: &[(&str, &str, &str)],
) -> Value {
    let mut parameters = Map::new();
    if path.contains("{uuid}") {
        let uuid = json!({
            "type": "string",
            "description": "The public name of the token.",
            "required": true,
            "location": "path",
        });
        parameters.insert("uuid".to_owned(), uuid);
    }
    for (name, kind, description) in in_query {
        let parameter = json!({
            "type": kind,
            "description": description,
            "required": false,
            "location": "query",
        });
        parameters.insert((*name).to_owned(), parameter);
    }
    let schema =
        if name == "list" { "ApiClientAuthorizationList" } else { "ApiClientAuthorization" };
    let mut method = json!({
        "id": format!("arvados.api_client_authorizations.{name}"),
        "path": path,
        "httpMethod": verb,
        "description": format!("{name} API client authorizations"),
        "parameters": parameters,
        "response": { "$ref": schema },
        "scopes": ["https://api.arvados.org/auth/arvados"],
    });
    if has_body {
        method["request"] = json!({
            "required": true,
            "properties": {
                "api_client_authorization": { "$ref": "ApiClientAuthorization" },
            },
        });
    }
    method
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_is_a_name_or_an_address_and_a_port() {
        for text in
            ["localhost", "a.example:8000", "127.0.0.1:1", "[::1]", "[::1]:443", "a_b-c.example."]
        {
            assert!(is_host(text), "{text}");
        }
        let long = format!("{}:80", "x".repeat(253));
        for text in [
            "", ":80", "a:", "a:b", "a:123456", "a/b", "a b", "a@b", "a\"b", "a<b", "a?b", "::1",
            "[::1", "[::1]x", "[]", "[x]:1", "a:1:2", &long,
        ] {
            assert!(!is_host(text), "{text}");
        }
    }

    #[test]
    fn every_reference_is_to_a_schema_that_is_there() {
        let document = document("http://localhost/", "zzzzz");
        let schemas = document["schemas"].as_object().unwrap();
        let methods = document["resources"]["api_client_authorizations"]["methods"].as_object();
        let methods = methods.unwrap();
        assert_eq!(methods.len(), 7);
        for (name, method) in methods {
            assert!(schemas.contains_key(method["response"]["$ref"].as_str().unwrap()), "{name}");
            assert_eq!(method["id"], format!("arvados.api_client_authorizations.{name}"));
            let has_uuid = method["path"].as_str().unwrap().contains("{uuid}");
            assert_eq!(method["parameters"]["uuid"]["required"] == true, has_uuid, "{name}");
        }
    }
}
