//! From what the services answer to the JSON of Arvados (SEEDS 3.1 and 3.8).

use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use super::parameters::Select;
use crate::proto::v1 as proto;

/// A token, with the attributes that are asked for.
pub(super) fn authorization(token: proto::ApiClientAuthorization, select: &Select) -> Value {
    let time = |instant: Option<Timestamp>| instant.map(nine_digits);
    let mut record = Map::new();
    let mut set = |name: &str, value: Value| {
        if select.has(name) {
            record.insert(name.to_owned(), value);
        }
    };
    set("kind", "arvados#apiClientAuthorization".into());
    set("etag", token.etag.into());
    set("uuid", token.uuid.into());
    set("api_token", token.api_token.into());
    set("api_client_id", token.api_client_id.into());
    set("user_id", token.user_id.into());
    set("owner_uuid", token.owner_uuid.into());
    set("created_by_ip_address", token.created_by_ip_address.into());
    set("last_used_by_ip_address", token.last_used_by_ip_address.into());
    set("last_used_at", time(token.last_used_at).into());
    set("expires_at", time(token.expires_at).into());
    set("scopes", token.scopes.unwrap_or_default().values.into());
    set("created_at", time(token.created_at).into());
    // It is of no kind that notes who changes it.
    set("modified_at", Value::Null);
    set("modified_by_user_uuid", Value::Null);
    Value::Object(record)
}

/// Some tokens, with what says which.
pub(super) fn list(listed: proto::ListApiClientAuthorizationsResponse, select: &Select) -> Value {
    let items: Vec<_> =
        listed.items.into_iter().map(|token| authorization(token, select)).collect();
    let mut list = json!({
        "kind": "arvados#apiClientAuthorizationList",
        "etag": "",
        "self_link": "",
        "offset": listed.offset,
        "limit": listed.limit,
        "items": items,
    });
    if let Some(available) = listed.items_available {
        list["items_available"] = available.into();
    }
    list
}

/// UTC with nine digits of a second, always: clients filter with the text that they got.
fn nine_digits(instant: Timestamp) -> String {
    let second = Timestamp { nanos: 0, ..instant }.to_string();
    format!("{}.{:09}Z", second.trim_end_matches('Z'), instant.nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nine_digits() {
        let of = |seconds, nanos| nine_digits(Timestamp { seconds, nanos });
        assert_eq!(of(1_798_858_800, 0), "2027-01-02T03:00:00.000000000Z");
        assert_eq!(of(1_798_858_800, 1_000), "2027-01-02T03:00:00.000001000Z");
        assert_eq!(of(-1, 999_999_000), "1969-12-31T23:59:59.999999000Z");
        assert_eq!(of(-62_135_596_800, 0), "0001-01-01T00:00:00.000000000Z");
    }
}
