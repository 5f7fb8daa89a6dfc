//! What is served, in the form of OpenAPI: a document of the parts under `openapi/`, of
//! which each API has one.

use std::sync::LazyLock;

use bytes::Bytes;
use serde_json::Value;

/// The document, as it is sent.
static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| {
    let parts = [
        include_str!("openapi/common.json"),
        include_str!("openapi/spatio.json"),
        include_str!("openapi/arvados.json"),
        include_str!("openapi/oauth.json"),
    ];
    let mut whole = Value::Null;
    for part in parts {
        join(&mut whole, serde_json::from_str(part).expect("a test has read it"));
    }
    whole.to_string().into()
});

pub(super) fn document() -> Bytes {
    DOCUMENT.clone()
}

/// Adds the fields of one object, at whatever depth, and the elements of a list.
fn join(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                join(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (Value::Array(whole), Value::Array(part)) => whole.extend(part),
        (whole, part) => *whole = part,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_parts_have_is_joined() {
        let mut whole = json!({ "tags": [1], "paths": { "/a": 1 }, "x": 1 });
        join(&mut whole, json!({ "tags": [2], "paths": { "/b": { "c": 2 } } }));
        assert_eq!(
            whole,
            json!({ "tags": [1, 2], "paths": { "/a": 1, "/b": { "c": 2 } }, "x": 1 })
        );
    }
}
