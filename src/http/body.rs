//! From what was sent to the fields that the services take, with all that is wrong with
//! it said at once.

use prost_types::Timestamp;
use serde_json::{Map, Value};

use super::problem::Problem;

/// The fields of a JSON object. What is null is not there; what is not asked for is not
/// looked at.
pub(super) struct Fields {
    object: Map<String, Value>,
    wrong: Vec<String>,
}

impl Fields {
    /// Reads a body.
    ///
    /// # Errors
    ///
    /// It is no JSON object.
    pub(super) fn of(body: &[u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Ok(Self { object, wrong: Vec::new() }),
            Ok(_) | Err(_) => Err(Problem::invalid("the body must be a JSON object")),
        }
    }

    /// Whether a field is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.object.get(name).is_some_and(|value| !value.is_null())
    }

    /// Notes that a field holds what it may not.
    pub(super) fn wrong(&mut self, name: &str, reason: &str) {
        self.wrong.push(format!("{name} {reason}"));
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        match self.object.remove(name)? {
            Value::Null => None,
            Value::String(text) => Some(text),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                self.wrong(name, "must be text");
                None
            }
        }
    }

    pub(super) fn texts(&mut self, name: &str) -> Vec<String> {
        let Some(value) = self.object.remove(name).filter(|value| !value.is_null()) else {
            return Vec::new();
        };
        let elements = match value {
            Value::Array(elements) => elements,
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => Vec::from([Value::Null]),
        };
        let texts: Option<Vec<_>> =
            elements.iter().map(|element| element.as_str().map(ToOwned::to_owned)).collect();
        texts.unwrap_or_else(|| {
            self.wrong(name, "must be a list of texts");
            Vec::new()
        })
    }

    /// A time by RFC 3339; one that names no zone is of UTC (SEEDS 2.3).
    pub(super) fn time(&mut self, name: &str) -> Option<Timestamp> {
        let text = self.text(name)?;
        let parsed = time(&text);
        if parsed.is_none() {
            self.wrong(name, "must be a time such as 2027-01-02T03:04:05Z");
        }
        parsed
    }

    /// What is wrong, if anything is.
    pub(super) fn check(self) -> Result<(), Problem> {
        if self.wrong.is_empty() { Ok(()) } else { Err(Problem::invalid(self.wrong.join("; "))) }
    }
}

/// The same, alone.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let (day, rest) = text.split_at_checked(10)?;
    let (second, rest) = rest.split_at_checked(9)?;
    let (fraction, zone) = rest.split_at(rest.find(['Z', 'z', '+', '-']).unwrap_or(rest.len()));
    let is_time = day.bytes().zip(b"0000-00-00").chain(second.bytes().zip(b"T00:00:00")).all(
        |(byte, model)| match model {
            b'0' => byte.is_ascii_digit(),
            _ => byte.eq_ignore_ascii_case(model),
        },
    );
    let is_fraction = fraction.is_empty()
        || fraction.strip_prefix('.').is_some_and(|it| is_digits(it) && it.len() <= 9);
    let zone = match zone {
        "" | "z" => "Z",
        zone => zone,
    };
    let is_zone = zone == "Z"
        || (zone.len() == 6
            && zone[1..].bytes().zip(b"00:00").all(|(byte, model)| match model {
                b'0' => byte.is_ascii_digit(),
                _ => byte == *model,
            }));
    // The parser takes more than that, such as a day alone.
    (is_time && is_fraction && is_zone)
        .then(|| format!("{day}T{}{fraction}{zone}", &second[1..]).parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_the_clients_send() {
        let utc = "2027-01-02T03:04:05Z".parse().ok();
        for text in [
            "2027-01-02T03:04:05Z",
            "2027-01-02T03:04:05+00:00",
            "2027-01-02T03:04:05",
            "2027-01-02T03:04:05.000Z",
            "2027-01-02t03:04:05z",
            "2027-01-02T04:04:05+01:00",
        ] {
            assert_eq!(time(text), utc, "{text}");
        }
        assert_eq!(time("2027-01-02T03:04:05.123456789").unwrap().nanos, 123_456_789);
        for text in [
            "",
            "2027-01-02",
            "2027-01-02T03:04",
            "2027-01-02T03:04:05.",
            "2027-01-02T03:04:05.1234567890",
            "2027-01-02T03:04:05+1",
            "2027-01-02T03:04:05+01:00:00",
            "2027-13-02T03:04:05Z",
            "2027-02-30T03:04:05Z",
            "2027-01-02T25:04:05Z",
            "2027-01-02 03:04:05Z",
            "tomorrow",
            "1798858800",
            "é2027-01-0T03:04:05Z",
        ] {
            assert_eq!(time(text), None, "{text}");
        }
    }
}
