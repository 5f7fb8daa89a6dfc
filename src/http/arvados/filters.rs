//! From the elements of `filters` to what the services take (SEEDS 3.9).

use prost_types::{ListValue, NullValue, Struct, value::Kind};
use serde_json::Value;

use super::parameters::texts;
use crate::proto::v1 as proto;

/// `[attribute, operator, operand]`, with one attribute or a list of them, or a comparison
/// of two.
pub(super) fn filter(element: &Value) -> Option<proto::Filter> {
    if let Some(text) = element.as_str() {
        return comparison(text);
    }
    let [names, operator, operand] = element.as_array()?.as_slice() else { return None };
    let operator = operator.as_str()?;
    let (attribute, attributes) = match names {
        Value::String(text) if text.trim_start_matches(' ').starts_with('(') => {
            // What Arvados' own front makes of the text alone.
            let is_true = *operand == Value::Bool(true) || operand.as_str() == Some("true");
            return comparison(text).filter(|_| operator == "=" && is_true);
        }
        Value::String(name) => (name.clone(), Vec::new()),
        Value::Array(several) if !several.is_empty() => (String::new(), texts(names)?),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => {
            return None;
        }
    };
    Some(proto::Filter {
        attribute,
        attributes,
        operator: operator.to_owned(),
        operand: Some(prost_types::Value { kind: Some(value_of(operand)?) }),
        operand_attribute: None,
    })
}

/// `(attribute operator attribute)`, in one pair of parentheses, with any blanks between
/// these five, before and after.
fn comparison(text: &str) -> Option<proto::Filter> {
    let within = text.trim_matches(' ').strip_prefix('(')?.strip_suffix(')')?;
    let (one, rest) = within.split_at(within.find(['<', '=', '>'])?);
    let (operator, other) = rest.split_at(rest.find(|sign| !['<', '=', '>'].contains(&sign))?);
    let is_operator = ["=", "<", "<=", ">", ">="].contains(&operator);
    let [one, other] = [one, other].map(|name| name.trim_matches(' '));
    let is_name = |name: &str| {
        let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !name.is_empty() && name.bytes().all(is_of_name)
    };
    (is_operator && is_name(one) && is_name(other)).then(|| proto::Filter {
        attribute: one.to_owned(),
        operator: operator.to_owned(),
        operand_attribute: Some(other.to_owned()),
        ..Default::default()
    })
}

/// The same value in the protocol, which has only floating numbers; `None`: it would be
/// another.
pub(super) fn value_of(value: &Value) -> Option<Kind> {
    let within = |value: &Value| Some(prost_types::Value { kind: Some(value_of(value)?) });
    Some(match value {
        Value::Null => Kind::NullValue(NullValue::NullValue.into()),
        Value::Bool(truth) => Kind::BoolValue(*truth),
        Value::Number(number) => {
            const MOST: u64 = 1 << 53;
            let whole = number.as_i64().map(i64::unsigned_abs).or_else(|| number.as_u64());
            Kind::NumberValue(number.as_f64().filter(|_| whole.is_none_or(|whole| whole <= MOST))?)
        }
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(elements) => {
            let values = elements.iter().map(within).collect::<Option<_>>()?;
            Kind::ListValue(ListValue { values })
        }
        Value::Object(object) => {
            let fields = object.iter().map(|(name, value)| Some((name.clone(), within(value)?)));
            Kind::StructValue(Struct { fields: fields.collect::<Option<_>>()? })
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn comparison_is_in_parentheses_with_any_blanks() {
        for (text, expected) in [
            ("(user_id < api_client_id)", Some(("user_id", "<", "api_client_id"))),
            ("(a<=b)", Some(("a", "<=", "b"))),
            ("  (  a  >  b  )  ", Some(("a", ">", "b"))),
            ("(a>= b)", Some(("a", ">=", "b"))),
            ("(_A1 =a)", Some(("_A1", "=", "a"))),
            ("(a < 2)", Some(("a", "<", "2"))),
            ("", None),
            ("()", None),
            ("a < b", None),
            ("(a < b", None),
            ("a < b)", None),
            ("((a < b))", None),
            ("(a < b) (a < b)", None),
            ("(a < b < c)", None),
            ("(a <)", None),
            ("(< b)", None),
            ("(a b)", None),
            ("(a ! b)", None),
            ("(a != b)", None),
            ("(a <> b)", None),
            ("(a == b)", None),
            ("(a =< b)", None),
            ("(a < = b)", None),
            ("(a b < c)", None),
            ("(a.b < c)", None),
            ("(a <\tb)", None),
            ("(a <\nb)", None),
            ("(a < b)\n", None),
            ("(\u{e4} < b)", None),
        ] {
            let found = comparison(text);
            let expected = expected.map(|(one, operator, other)| proto::Filter {
                attribute: one.to_owned(),
                operator: operator.to_owned(),
                operand_attribute: Some(other.to_owned()),
                ..Default::default()
            });
            assert_eq!(found, expected, "{text:?}");
            if text.trim_start().starts_with('(') {
                for operand in [json!(true), json!("true")] {
                    assert_eq!(filter(&json!([text, "=", operand])), expected, "{text:?}");
                }
            }
        }
        for (operator, operand) in [("=", json!(false)), ("!=", json!(true)), ("=", json!(1))] {
            assert_eq!(filter(&json!(["(a < b)", operator, operand])), None, "{operator}");
        }
    }

    #[test]
    fn filter_has_three_parts_and_names_one_attribute_or_several() {
        let one = filter(&json!(["a", "=", 1])).unwrap();
        assert_eq!((&*one.attribute, one.attributes), ("a", vec![]));
        let several = filter(&json!([["a", "b"], "=", 1])).unwrap();
        assert_eq!((&*several.attribute, several.attributes), ("", vec!["a".into(), "b".into()]));
        for element in [
            json!([]),
            json!(["a", "="]),
            json!(["a", "=", 1, 2]),
            json!([1, "=", 1]),
            json!(["a", 1, 1]),
            json!([[], "=", 1]),
            json!([["a", 1], "=", 1]),
            json!([["a", ["b"]], "=", 1]),
            json!([{ "a": 1 }, "=", 1]),
            json!({ "a": 1 }),
            json!(null),
            json!(7),
        ] {
            assert_eq!(filter(&element), None, "{element}");
        }
    }

    #[test]
    fn numbers_that_would_be_others_are_none() {
        for (number, is_taken) in [
            (json!(7), true),
            (json!(-7.5), true),
            (json!(9_007_199_254_740_992_u64), true),
            (json!(9_007_199_254_740_993_u64), false),
            (json!(-9_007_199_254_740_993_i64), false),
            (json!(u64::MAX), false),
        ] {
            assert_eq!(value_of(&number).is_some(), is_taken, "{number}");
            assert_eq!(value_of(&json!([{ "in": number }])).is_some(), is_taken, "{number}");
        }
    }
}
