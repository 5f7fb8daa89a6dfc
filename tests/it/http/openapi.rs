//! The description of what is served is of what is served.

use serde_json::Value;

use super::raw::{call, send};
use crate::support::{Engine, server::TestServer};

#[tokio::test(flavor = "multi_thread")]
async fn each_operation_of_the_description_is_served_and_each_reference_leads_somewhere() {
    let server = TestServer::start(Engine::Sqlite).await;
    let answered = send(&server, "GET /openapi.json", &[], "").await;
    assert_eq!(answered.status, 200);
    let description = answered.json();
    let mut operations = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        let path =
            path.replace("{org}", "org").replace("{workspace}", "workspace").replace("{id}", "id");
        for (method, operation) in item.as_object().unwrap() {
            if method == "parameters" {
                continue;
            }
            operations += 1;
            // The calls of others than administrators and of none are told apart by 401.
            let request_line = format!("{} {path}", method.to_uppercase());
            let status = send(&server, &request_line, &[], "").await.status;
            let documented = operation["responses"].as_object().unwrap();
            assert!(documented.contains_key(status.as_str()), "{request_line}: {status}");
            let status = call(&server, &request_line, &server.admin, "{}").await.status;
            assert!(documented.contains_key(status.as_str()), "{request_line}: {status}");
            assert_ne!(status, 405, "{request_line}");
        }
    }
    assert_eq!(operations, 11);
    follow(&description, &description);
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
