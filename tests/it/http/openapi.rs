//! The description of what is served is of what is served.

use std::collections::BTreeSet;

use serde_json::Value;

use super::raw::{call, send};
use crate::support::{
    Engine,
    server::{TestServer, v2},
};

const METHODS: [&str; 6] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"];

#[tokio::test(flavor = "multi_thread")]
async fn what_is_described_is_what_is_served() {
    let server = TestServer::start(Engine::Sqlite).await;
    let chief = server.administrator("chief").await.id;
    let authorization = v2(&server.authorization_of(&chief, None).await);
    let description = described(&server).await;
    let mut ids = BTreeSet::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        let is_arvados = path.starts_with("/arvados") || path.starts_with("/discovery");
        let token = if is_arvados { &authorization } else { &server.admin };
        let path = path.replace(['{', '}'], "");
        let operations: Vec<_> = METHODS
            .into_iter()
            .filter_map(|method| Some((method, item.get(method.to_lowercase())?)))
            .collect();
        for (method, operation) in &operations {
            // A call of somebody and one of nobody.
            let request_line = format!("{method} {path}");
            let statuses = [
                send(&server, &request_line, &[], "").await.status,
                call(&server, &request_line, token, "{}").await.status,
            ];
            for status in statuses {
                assert!(
                    operation["responses"].get(status.as_str()).is_some(),
                    "{request_line}: {status}"
                );
                assert_ne!(status, 405, "{request_line}");
            }
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{operation}");
        }
        // No other method is served there, and those are named.
        let mut served: BTreeSet<_> = operations.iter().map(|(method, _)| *method).collect();
        if is_arvados && served.contains("GET") {
            served.insert("HEAD");
        }
        for method in METHODS.into_iter().filter(|method| !served.contains(method)) {
            let answered = call(&server, &format!("{method} {path}"), token, "").await;
            assert_eq!(answered.status, 405, "{method} {path}");
            let allowed = answered.headers["allow"].to_str().unwrap().split(", ");
            assert_eq!(allowed.collect::<BTreeSet<_>>(), served, "{path}");
        }
    }
    assert_eq!(ids.len(), 21);
}

/// What Arvados' clients learn from is described, with all the parameters.
#[tokio::test(flavor = "multi_thread")]
async fn what_arvados_clients_discover_is_described() {
    let server = TestServer::start(Engine::Sqlite).await;
    let description = described(&server).await;
    let discovery = send(&server, "GET /discovery/v1/apis/arvados/v1/rest", &[], "").await.json();
    let methods = &discovery["resources"]["api_client_authorizations"]["methods"];
    for method in methods.as_object().unwrap().values() {
        let path =
            &description["paths"][&format!("/arvados/v1/{}", method["path"].as_str().unwrap())];
        let operation = &path[method["httpMethod"].as_str().unwrap().to_lowercase()];
        let names = [path, operation].into_iter().filter_map(|of| of["parameters"].as_array());
        let names: BTreeSet<_> = names
            .flatten()
            .map(|parameter| {
                let pointer = parameter["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
                description.pointer(pointer).unwrap()["name"].as_str().unwrap()
            })
            .filter(|name| *name != "alt")
            .collect();
        let known: BTreeSet<_> =
            method["parameters"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, known, "{}", method["id"]);
        assert_eq!(operation.get("requestBody").is_some(), method.get("request").is_some());
    }
}

/// The description, in which each reference leads somewhere.
async fn described(server: &TestServer) -> Value {
    let answered = send(server, "GET /openapi.json", &[], "").await;
    assert_eq!(answered.status, 200);
    let description = answered.json();
    follow(&description, &description);
    description
}

/// Follows each reference in `value`.
fn follow(description: &Value, value: &Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(description.pointer(pointer).is_some(), "{reference}");
            }
            fields.values().for_each(|value| follow(description, value));
        }
        Value::Array(elements) => elements.iter().for_each(|value| follow(description, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
