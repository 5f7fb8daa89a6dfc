//! From the parameters of a request, however they are sent (SEEDS 3.14), to the fields that
//! the services take, with all that is wrong with them said at once.

use http::{HeaderMap, Method, header::CONTENT_TYPE};
use prost_types::{Struct, Timestamp, value::Kind};
use serde_json::{Map, Value};

use super::{
    super::{
        Call, body,
        problem::{Kind as Of, Problem},
    },
    filters::{filter, value_of},
};
use crate::{
    caller::Caller,
    domain::{Attribute, ClusterId, whole_number},
    proto::v1 as proto,
};

const OVERRIDE: &str = "x-http-method-override";

/// What attributes may be nested under.
const NESTED: &str = "api_client_authorization";

/// Parameters that are no attributes.
const BESIDE: [&str; 9] = [
    "_method",
    "_profile",
    "alt",
    "bypass_federation",
    "cluster_id",
    "ensure_unique_name",
    "reader_tokens",
    "remote",
    "select",
];

/// Those of lists alone.
const OF_LISTS: [&str; 7] = ["count", "distinct", "filters", "limit", "offset", "order", "where"];

/// Attributes that come with what somebody got before, and are not for callers to set
/// (SEEDS 3.10).
const IGNORED: [&str; 7] = [
    "kind",
    "etag",
    "href",
    "created_at",
    "modified_at",
    "modified_by_user_uuid",
    "modified_by_client_uuid",
];

/// Those that only the service sets; null asks for nothing.
const KEPT: [&str; 4] =
    ["api_token", "created_by_ip_address", "last_used_by_ip_address", "last_used_at"];

/// How many attributes may be asked for.
const MAX_SELECTED: usize = 100;

/// What is in an answer beside the attributes.
const BESIDE_ATTRIBUTES: [&str; 3] = ["kind", "modified_at", "modified_by_user_uuid"];

/// The parameters of a request: of what its query and its body both have, the body's.
pub(super) struct Parameters {
    values: Map<String, Value>,
    wrong: Vec<String>,
}

/// The attributes to answer with; none: all.
pub(super) struct Select(Vec<String>);

/// The attributes that a request gives.
pub(super) struct Attributes<'a> {
    values: Map<String, Value>,
    wrong: &'a mut Vec<String>,
}

impl Parameters {
    /// Reads the query and the body.
    ///
    /// # Errors
    ///
    /// One of them can't be read.
    pub(super) fn of(call: &Call<'_>, body: &[u8]) -> Result<Self, Problem> {
        let mut values = form(call.query.as_bytes())?;
        if !body.is_empty() {
            let kind = call.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
            let kind = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
            if kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
                values.extend(form(body)?);
            } else {
                let body: Map<String, Value> = serde_json::from_slice(body).map_err(|_| {
                    Problem::unreadable("the body is neither a JSON object nor a form")
                })?;
                values.extend(body);
            }
        }
        Ok(Self { values, wrong: Vec::new() })
    }

    /// By which method the request is meant: what is sent by POST may name another. What
    /// it names is never passed over: what should read would make a token.
    ///
    /// # Errors
    ///
    /// It names none that it could be.
    pub(super) fn method(&mut self, sent: &Method, headers: &HeaderMap) -> Result<Method, Problem> {
        let parameter = self.values.remove("_method");
        if sent != Method::POST {
            return Ok(sent.clone());
        }
        let mut named: Vec<_> = headers
            .get_all(OVERRIDE)
            .iter()
            .map(|value| value.to_str().unwrap_or_default().to_ascii_uppercase())
            .collect();
        let parameter = parameter.as_ref();
        named.extend(parameter.map(|it| it.as_str().unwrap_or_default().to_ascii_uppercase()));
        named.dedup();
        let method = match named.as_slice() {
            [] => return Ok(Method::POST),
            [one] => match one.as_str() {
                "GET" => Some(Method::GET),
                "HEAD" => Some(Method::HEAD),
                "PUT" => Some(Method::PUT),
                "PATCH" => Some(Method::PATCH),
                "DELETE" => Some(Method::DELETE),
                _ => None,
            },
            [..] => None,
        };
        let wrong = "_method or X-HTTP-Method-Override must be GET, HEAD, PUT, PATCH or DELETE";
        method.ok_or_else(|| Problem::invalid(wrong))
    }

    /// That no other cluster is asked for: there is none.
    ///
    /// # Errors
    ///
    /// One is, or what only administrators may ask for.
    pub(super) fn check_cluster(
        &mut self,
        caller: &Caller,
        own: &ClusterId,
    ) -> Result<(), Problem> {
        if self.truth("bypass_federation") && !caller.is_administrator() {
            return Err(Problem::new(Of::Denied, "bypass_federation is for administrators"));
        }
        if self.text("cluster_id").is_some_and(|cluster| cluster != own.to_string()) {
            self.wrong("cluster_id", "must be this cluster");
        }
        Ok(())
    }

    /// What is wrong, if anything is.
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(self.wrong.join("; "))) }
    }

    fn wrong(&mut self, name: &str, reason: &str) {
        note(&mut self.wrong, name, reason);
    }

    /// A value that may be sent as the text of its JSON; null and the empty text are
    /// none.
    fn value(&mut self, name: &str) -> Option<Value> {
        let value = self.values.remove(name)?;
        let value = match value.as_str().map(str::trim) {
            Some("") => None,
            Some(text) => {
                let parsed = serde_json::from_str(text);
                parsed.map_err(|_| self.wrong(name, "must be JSON")).ok()
            }
            None => Some(value),
        };
        value.filter(|value| !value.is_null())
    }

    /// A text that is no JSON; null, by its name too, and the empty text are none.
    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.values.remove(name)? {
            Value::Null => None,
            Value::String(text) => Some(text).filter(|text| !text.is_empty() && text != "null"),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.wrong(name, "must be text");
                None
            }
        }
    }

    pub(super) fn truth(&mut self, name: &str) -> bool {
        let value = self.values.remove(name).unwrap_or_default();
        match (&value, value.as_str()) {
            (Value::Bool(truth), _) => *truth,
            (_, Some("true" | "1")) => true,
            (Value::Null, _) | (_, Some("" | "false" | "0")) => false,
            (_, _) => {
                self.wrong(name, "must be true or false");
                false
            }
        }
    }

    /// A number from 0 on; what is too large for one is the largest.
    pub(super) fn digits(&mut self, name: &str) -> Option<i64> {
        let value = self.values.remove(name).filter(|value| !value.is_null())?;
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        if text.is_empty() {
            return None;
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(text.parse().unwrap_or(i64::MAX));
        }
        self.wrong(name, "must be digits");
        None
    }

    pub(super) fn count(&mut self) -> proto::CountMode {
        match self.text("count").as_deref() {
            None | Some("exact") => proto::CountMode::Exact,
            Some("none") => proto::CountMode::None,
            Some(_) => {
                self.wrong("count", "must be exact or none");
                proto::CountMode::Unspecified
            }
        }
    }

    /// A list of texts.
    fn texts(&mut self, name: &str) -> Vec<String> {
        let Some(value) = self.value(name) else { return Vec::new() };
        texts(&value).unwrap_or_else(|| {
            self.wrong(name, "must be a list of texts");
            Vec::new()
        })
    }

    /// By what to sort: a list, or the old text with commas.
    pub(super) fn order(&mut self) -> Vec<String> {
        match self.values.get("order").and_then(Value::as_str).map(str::trim) {
            Some(text) if !["", "null"].contains(&text) && !text.starts_with('[') => {
                let order = text.split(',').map(|part| part.trim().to_owned()).collect();
                self.values.remove("order");
                order
            }
            Some(_) | None => self.texts("order"),
        }
    }

    pub(super) fn select(&mut self) -> Select {
        let names = self.texts("select");
        if names.len() > MAX_SELECTED {
            self.wrong("select", &format!("must have at most {MAX_SELECTED} elements"));
        }
        for name in &names {
            if !BESIDE_ATTRIBUTES.contains(&name.as_str()) && name.parse::<Attribute>().is_err() {
                self.wrong("select", "must be attributes of an API client authorization");
                break;
            }
        }
        Select(names)
    }

    pub(super) fn filters(&mut self) -> Vec<proto::Filter> {
        let Some(value) = self.value("filters") else { return Vec::new() };
        let Value::Array(elements) = value else {
            self.wrong("filters", "must be a list");
            return Vec::new();
        };
        let mut filters = Vec::new();
        for (at, element) in elements.iter().enumerate() {
            match filter(element) {
                Some(filter) => filters.push(filter),
                None => self.wrong(
                    &format!("filters[{at}]"),
                    "must be [attribute, operator, operand], where a list of attributes may stand \
                     and numbers are at most 2^53, or a text such as (user_id < api_client_id)",
                ),
            }
        }
        filters
    }

    pub(super) fn wheres(&mut self) -> Option<Struct> {
        let value = self.value("where")?;
        let object = match value.is_object().then(|| value_of(&value)).flatten() {
            Some(Kind::StructValue(object)) => Some(object),
            Some(_) | None => None,
        };
        if object.is_none() {
            self.wrong("where", "must be an object, with numbers of at most 2^53");
        }
        object
    }

    /// The attributes that are given, nested or beside that. What is given in two places is
    /// as it is nested.
    pub(super) fn attributes(&mut self) -> Attributes<'_> {
        let nested = self.value(NESTED).unwrap_or_else(|| Value::Object(Map::new()));
        let nested = match nested {
            Value::Object(nested) => nested,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_) => {
                self.wrong(NESTED, "must be an object");
                Map::new()
            }
        };
        let mut values = Map::new();
        for (name, value) in std::mem::take(&mut self.values) {
            if OF_LISTS.contains(&&*name) {
                // A list whose method was lost on its way.
                self.wrong(&name, "is for lists alone");
            } else if !BESIDE.contains(&&*name) {
                values.insert(name, value);
            }
        }
        values.extend(nested);
        Attributes { values, wrong: &mut self.wrong }
    }
}

impl Select {
    /// Whether an attribute is asked for; the kind always is.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.is_empty() || name == "kind" || self.0.iter().any(|asked| asked == name)
    }

    /// Those of them that the service knows; none: all.
    pub(super) fn of_service(&self) -> Vec<String> {
        let known = self.0.iter().filter(|name| !BESIDE_ATTRIBUTES.contains(&name.as_str()));
        known.cloned().collect()
    }
}

impl Attributes<'_> {
    /// Which of these are there.
    pub(super) fn present(&self, names: &[&str]) -> Vec<String> {
        let present = names.iter().filter(|name| self.values.contains_key(**name));
        present.map(ToString::to_string).collect()
    }

    fn wrong(&mut self, name: &str, reason: &str) {
        note(self.wrong, name, reason);
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.values.remove(name)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.wrong(name, "must be text");
                None
            }
        }
    }

    /// `Some(None)` is null.
    pub(super) fn number(&mut self, name: &str) -> Option<Option<i64>> {
        let value = self.values.remove(name)?;
        let number = whole_number(&value).or_else(|| value.as_str()?.parse().ok());
        if number.is_none() && !value.is_null() {
            self.wrong(name, "must be a whole number");
        }
        Some(number)
    }

    /// A list, or the text of its JSON; null too would be more than was meant.
    pub(super) fn scopes(&mut self) -> Option<proto::ScopeList> {
        let mut value = self.values.remove("scopes")?;
        if let Some(text) = value.as_str() {
            value = serde_json::from_str(text).unwrap_or_default();
        }
        let values = texts(&value);
        if values.is_none() {
            self.wrong("scopes", "must be a list of texts");
        }
        values.map(|values| proto::ScopeList { values })
    }

    /// A time by RFC 3339 or as HTTP has it; `Some(None)` is null. Nothing else is taken
    /// for that: the token would never end.
    pub(super) fn expires_at(&mut self) -> Option<Option<Timestamp>> {
        let value = self.values.remove("expires_at")?;
        let time = value.as_str().and_then(|text| body::time(text).or_else(|| http_date(text)));
        if time.is_none() && !value.is_null() {
            self.wrong("expires_at", "must be a time such as 2027-01-02T03:04:05Z, or null");
        }
        Some(time)
    }

    /// Notes what is left that can't be set.
    pub(super) fn end(mut self) {
        for (name, value) in std::mem::take(&mut self.values) {
            let name = name.as_str();
            if KEPT.contains(&name) && !value.is_null() {
                self.wrong(name, "is not for callers to set");
            } else if !KEPT.contains(&name) && !IGNORED.contains(&name) {
                self.wrong(name, "is no attribute that can be set");
            }
        }
    }
}

/// Notes what is wrong, up to what a person would read.
fn note(wrong: &mut Vec<String>, name: &str, reason: &str) {
    if wrong.len() < 16 {
        wrong.push(format!("{name:.100} {reason}"));
    }
}

/// The parameters of a query or a form.
fn form(text: &[u8]) -> Result<Map<String, Value>, Problem> {
    let mut values = Map::new();
    for (name, value) in form_urlencoded::parse(text) {
        // Neither is a credential here, nor a secret to choose, which might be one.
        if ["api_token", "oauth_token", "reader_tokens[]"].contains(&&*name) {
            continue;
        }
        // What is passed over might have asked for less.
        let is_name =
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
        if !is_name || name.is_empty() {
            return Err(Problem::unreadable(
                "the query or the form has a parameter without a name",
            ));
        }
        if values.insert(name.to_string(), value.into_owned().into()).is_some() {
            return Err(Problem::unreadable(format!("{name:.100} is there twice")));
        }
    }
    Ok(values)
}

pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    let texts = value.as_array()?.iter().map(|text| text.as_str().map(ToOwned::to_owned));
    texts.collect()
}

/// A time as HTTP has it: `Fri, 01 Jan 2038 00:00:00 GMT`, which Workbench sends.
fn http_date(text: &str) -> Option<Timestamp> {
    const DAYS: [&str; 7] = ["Mon,", "Tue,", "Wed,", "Thu,", "Fri,", "Sat,", "Sun,"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<_> = text.split(' ').collect();
    let [name, day, month, year, second, "GMT"] = words[..] else { return None };
    let month = MONTHS.iter().position(|known| *known == month)? + 1;
    DAYS.contains(&name).then(|| body::time(&format!("{year}-{month:02}-{day}T{second}Z")))?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn http_dates_are_times() {
        let utc = "2038-01-01T00:00:00Z".parse().ok();
        assert_eq!(http_date("Fri, 01 Jan 2038 00:00:00 GMT"), utc);
        for text in [
            "",
            "Fri, 01 Jan 2038 00:00:00",
            "Fri, 1 Jan 2038 00:00:00 GMT",
            "Fri, 31 Feb 2038 00:00:00 GMT",
            "Fri, 01 jan 2038 00:00:00 GMT",
            "Fry, 01 Jan 2038 00:00:00 GMT",
            "Fri, 01 Jan 2038 00:00:00 UTC",
            "Fri, 01 Jan 2038 00:00:00+01:00 GMT",
            "Friday, 01-Jan-38 00:00:00 GMT",
        ] {
            assert_eq!(http_date(text), None, "{text}");
        }
    }

    #[test]
    fn parameters_of_a_form_have_names_and_are_there_once() {
        let parsed = form(b"a=%5B1%5D&b=x+y&api_token=secret").ok().unwrap();
        assert_eq!(Value::Object(parsed), json!({ "a": "[1]", "b": "x y" }));
        for text in ["a=1&a=2", "=1", "filters[]=1", "%7B%22scopes%22%3A[]%7D"] {
            assert!(form(text.as_bytes()).is_err(), "{text}");
        }
    }
}
