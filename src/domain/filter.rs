//! Conditions on API client authorizations: the filter language of Arvados (SEEDS 3.9).

use std::str::FromStr;

use serde_json::Value;

use super::{Attribute, Digest, Invalid, Kind, Peppers, Timestamp, Token, attribute::Form};

/// The longest text to compare with, in characters, and the longest list.
const MAX_TEXT: usize = 1_000;
const MAX_LIST: usize = 1_000;

/// Holds of an item if the test holds of one of the attributes.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition {
    /// The attributes, of one type, one at least.
    pub attributes: Vec<Attribute>,
    /// What one of them must be.
    pub test: Test,
}

/// What an attribute must be.
#[derive(Debug, Clone, PartialEq)]
pub enum Test {
    /// One of these, or unset if `null`; if `negated`, none of these, and set if
    /// `null`. So what is unset is among none of them unless that is said.
    Among {
        /// The values.
        values: Vec<Operand>,
        /// Whether to be unset is among them.
        null: bool,
        /// Whether it must be none of them.
        negated: bool,
    },
    /// Set, and before or after this.
    Ordered(Relation, Operand),
    /// Set, and as one of these patterns has it.
    Like {
        /// The patterns.
        patterns: Vec<Pattern>,
        /// Whether `A` is `a`.
        ignores_case: bool,
    },
}

/// How one value lies to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// What an attribute is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// Text, compared byte by byte.
    Text(String),
    /// A whole number.
    Number(i64),
    /// An instant.
    Time(Timestamp),
    /// Scopes, whose order does not matter: sorted.
    Scopes(Vec<String>),
    /// A secret, as it may be stored.
    Digest(Digest),
}

/// A text with places for one or any characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(pub Vec<Piece>);

/// A piece of a [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// This character.
    Literal(char),
    /// `_`: one character.
    One,
    /// `%`: any characters, or none.
    Any,
}

/// What is wrong with a condition, and in which part of it: `attribute`, `operator`
/// or `operand`.
pub type Wrong = (&'static str, Invalid);

/// What is asked of an attribute and an operand.
#[derive(Clone, Copy)]
enum Operator {
    Equal { negated: bool },
    In { negated: bool },
    Ordered(Relation),
    Like { ignores_case: bool },
    IsA,
}

impl Operator {
    fn applies_to(self, form: Form) -> bool {
        match form {
            Form::Text => true,
            Form::Number | Form::Time => {
                matches!(self, Self::Equal { .. } | Self::In { .. } | Self::Ordered(_))
            }
            Form::Scopes => matches!(self, Self::Equal { .. } | Self::In { .. }),
            Form::Secret => {
                matches!(self, Self::Equal { negated: false } | Self::In { negated: false })
            }
            Form::Opaque => false,
        }
    }
}

impl FromStr for Operator {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "=" => Self::Equal { negated: false },
            "!=" | "<>" => Self::Equal { negated: true },
            "in" => Self::In { negated: false },
            "not in" => Self::In { negated: true },
            "<" => Self::Ordered(Relation::Less),
            "<=" => Self::Ordered(Relation::LessOrEqual),
            ">" => Self::Ordered(Relation::Greater),
            ">=" => Self::Ordered(Relation::GreaterOrEqual),
            "like" => Self::Like { ignores_case: false },
            "ilike" => Self::Like { ignores_case: true },
            "is_a" => Self::IsA,
            _ => return Err(Invalid::new("is not an operator")),
        })
    }
}

impl Condition {
    /// The condition that a filter `[attribute, operator, operand]` is. A secret is
    /// compared by its digests under these peppers.
    ///
    /// # Errors
    ///
    /// The attribute or the operator is none, or the operand is not of the
    /// attribute's type.
    pub fn parse(
        attribute: &str,
        operator: &str,
        operand: &Value,
        peppers: &Peppers,
    ) -> Result<Self, Wrong> {
        let (attributes, form) = named(attribute).map_err(|wrong| ("attribute", wrong))?;
        let operator: Operator = operator.parse().map_err(|wrong| ("operator", wrong))?;
        if !operator.applies_to(form) {
            return Err(("operator", Invalid::new("does not apply to this attribute")));
        }
        let test = test(form, operator, operand, peppers).map_err(|wrong| ("operand", wrong))?;
        Ok(Self { attributes, test })
    }
}

/// The attributes that a filter names, and what all of them are.
fn named(attribute: &str) -> Result<(Vec<Attribute>, Form), Invalid> {
    if attribute == "any" {
        let texts = Attribute::ALL.into_iter().filter(|one| one.form() == Form::Text);
        return Ok((texts.collect(), Form::Text));
    }
    let attribute: Attribute = attribute.parse()?;
    if attribute.form() == Form::Opaque {
        return Err(Invalid::new("is nothing to filter by"));
    }
    Ok((vec![attribute], attribute.form()))
}

fn test(
    form: Form,
    operator: Operator,
    operand: &Value,
    peppers: &Peppers,
) -> Result<Test, Invalid> {
    let among = |values: &[Value], negated| {
        let mut among = Vec::new();
        for value in values.iter().filter(|value| !value.is_null()) {
            among.extend(operands(form, value, peppers)?);
        }
        Ok(Test::Among { values: among, null: values.iter().any(Value::is_null), negated })
    };
    match operator {
        Operator::Equal { negated } => among(std::slice::from_ref(operand), negated),
        Operator::In { negated } => among(list(operand)?, negated),
        Operator::Ordered(relation) => {
            let value = operands(form, operand, peppers)?.pop();
            let value = value.ok_or_else(|| Invalid::new("must be one value"))?;
            Ok(Test::Ordered(relation, value))
        }
        Operator::Like { ignores_case } => {
            Ok(Test::Like { patterns: vec![text(operand)?.parse()?], ignores_case })
        }
        Operator::IsA => {
            let one = std::slice::from_ref(operand);
            let kinds = if operand.is_array() { list(operand)? } else { one };
            let kinds = kinds.iter().map(text).collect::<Result<Vec<_>, _>>()?;
            let patterns = KINDS.iter().filter(|(kind, _)| kinds.contains(kind));
            let patterns = patterns.map(|(_, pattern)| pattern.parse());
            Ok(Test::Like { patterns: patterns.collect::<Result<_, _>>()?, ignores_case: false })
        }
    }
}

/// What `is_a` knows to tell apart by the type codes of their ids. No attribute holds
/// the id of anything else.
const KINDS: [(&str, &str); 2] = [
    ("arvados#apiClientAuthorization", "_____-gj3su-_______________"),
    ("arvados#user", "_____-tpzed-_______________"),
];

/// What an attribute is compared with if it is to be this value: one of these.
fn operands(form: Form, value: &Value, peppers: &Peppers) -> Result<Vec<Operand>, Invalid> {
    Ok(match form {
        Form::Text => vec![Operand::Text(text(value)?.to_owned())],
        Form::Number => vec![Operand::Number(number(value)?)],
        Form::Time => vec![Operand::Time(text(value)?.parse()?)],
        Form::Scopes => vec![Operand::Scopes(scopes(value)?)],
        Form::Secret => {
            let secret = text(value)?;
            // The secret alone: `v2/` would say more than is compared.
            let token = secret.parse::<Token>().ok().filter(|token| {
                token.kind() == Kind::ApiClientAuthorization && token.expose() == secret
            });
            let digests = token.map(|token| peppers.digests(&token)).unwrap_or_default();
            digests.into_iter().map(Operand::Digest).collect()
        }
        Form::Opaque => Vec::new(),
    })
}

fn list(value: &Value) -> Result<&[Value], Invalid> {
    let list = value.as_array().ok_or_else(|| Invalid::new("must be a list"))?;
    if list.len() > MAX_LIST {
        return Err(Invalid(format!("must be a list of at most {MAX_LIST}")));
    }
    Ok(list)
}

fn text(value: &Value) -> Result<&str, Invalid> {
    let text = value.as_str().ok_or_else(|| Invalid::new("must be text"))?;
    if text.contains('\0') || text.chars().count() > MAX_TEXT {
        return Err(Invalid(format!("must be text of at most {MAX_TEXT} characters without NUL")));
    }
    Ok(text)
}

/// The numbers of a protocol may all be fractions.
fn number(value: &Value) -> Result<i64, Invalid> {
    // Beyond it a fraction is no longer told from its neighbours.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let whole = |number: &f64| number.fract() == 0.0 && number.abs() <= MOST;
    let number =
        value.as_i64().or_else(|| value.as_f64().filter(whole).map(|number| number as i64));
    number.ok_or_else(|| Invalid::new("must be a whole number of at most 64 bits"))
}

fn scopes(value: &Value) -> Result<Vec<String>, Invalid> {
    let entries = list(value)?.iter().map(|entry| text(entry).map(str::to_owned));
    let mut entries = entries.collect::<Result<Vec<_>, _>>()?;
    entries.sort_unstable();
    Ok(entries)
}

impl FromStr for Pattern {
    type Err = Invalid;

    /// As PostgreSQL's LIKE has it, where `\\` takes away the meaning of what follows.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut pieces = Vec::new();
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            pieces.push(match character {
                '%' => Piece::Any,
                '_' => Piece::One,
                '\\' => Piece::Literal(characters.next().ok_or_else(|| {
                    Invalid::new("must not end with a \\ that takes away nothing's meaning")
                })?),
                other => Piece::Literal(other),
            });
        }
        Ok(Self(pieces))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "00000000000000000000000000000000000000000000000001";

    fn peppers() -> Peppers {
        let text = crate::domain::Pepper::to_file(&[7; 32]);
        Peppers::new(vec![text.parse().unwrap()]).unwrap()
    }

    fn condition(attribute: &str, operator: &str, operand: &Value) -> Result<Test, &'static str> {
        Condition::parse(attribute, operator, operand, &peppers())
            .map(|condition| condition.test)
            .map_err(|(part, _)| part)
    }

    fn among(values: Vec<Operand>, null: bool, negated: bool) -> Result<Test, &'static str> {
        Ok(Test::Among { values, null, negated })
    }

    fn texts(texts: &[&str]) -> Vec<Operand> {
        texts.iter().map(|text| Operand::Text((*text).to_owned())).collect()
    }

    fn pieces(text: &str) -> Vec<Piece> {
        text.parse::<Pattern>().unwrap().0
    }

    #[test]
    fn any_is_every_text_but_the_secret() {
        let any = Condition::parse("any", "=", &json!("x"), &peppers()).unwrap();
        let names: Vec<_> = any.attributes.into_iter().map(Attribute::as_str).collect();
        let texts = ["uuid", "created_by_ip_address", "last_used_by_ip_address", "owner_uuid"];
        assert_eq!(names, texts);
    }

    #[test]
    fn operators_are_taken_in_either_case() {
        for operator in ["not in", "NOT IN", "Not In"] {
            assert_eq!(condition("uuid", operator, &json!([])), among(Vec::new(), false, true));
        }
        let less = Ok(Test::Ordered(Relation::Less, Operand::Text("a".to_owned())));
        assert_eq!(condition("uuid", "<", &json!("a")), less);
        for operator in ["", "==", "not  in", "contains", "exists", "@@", "is a"] {
            assert_eq!(condition("uuid", operator, &json!("a")), Err("operator"), "{operator}");
        }
    }

    #[test]
    fn null_is_what_is_unset() {
        assert_eq!(condition("uuid", "=", &json!(null)), among(Vec::new(), true, false));
        assert_eq!(condition("expires_at", "!=", &json!(null)), among(Vec::new(), true, true));
        assert_eq!(condition("expires_at", "<>", &json!(null)), among(Vec::new(), true, true));
        let listed = condition("uuid", "not in", &json!(["a", null]));
        assert_eq!(listed, among(texts(&["a"]), true, true));
        assert_eq!(condition("uuid", "!=", &json!("a")), among(texts(&["a"]), false, true));
        for operator in ["<", "<=", ">", ">=", "like", "ilike", "is_a", "in"] {
            assert_eq!(condition("uuid", operator, &json!(null)), Err("operand"), "{operator}");
        }
    }

    #[test]
    fn operators_apply_to_what_they_have_a_meaning_for() {
        let unmeant: [(&str, &[&str]); 5] = [
            ("api_token", &["!=", "<>", "not in", "<", ">=", "like", "ilike", "is_a"]),
            ("scopes", &["<", "<=", ">", ">=", "like", "ilike", "is_a"]),
            ("user_id", &["like", "ilike", "is_a"]),
            ("api_client_id", &["like", "ilike", "is_a"]),
            ("expires_at", &["like", "ilike", "is_a"]),
        ];
        for (attribute, operators) in unmeant {
            for operator in operators {
                let got = condition(attribute, operator, &json!("a"));
                assert_eq!(got, Err("operator"), "{attribute} {operator}");
            }
        }
        assert_eq!(condition("etag", "=", &json!("a")), Err("attribute"));
        assert_eq!(condition("name", "=", &json!("a")), Err("attribute"));
    }

    #[test]
    fn operand_is_of_the_type_of_its_attribute() {
        for operand in [json!(1), json!(true), json!([]), json!({}), json!(["a"])] {
            for operator in ["=", "<", "like"] {
                assert_eq!(condition("uuid", operator, &operand), Err("operand"), "{operand}");
            }
        }
        for operand in [json!("1"), json!(1.5), json!([1]), json!(false)] {
            assert_eq!(condition("user_id", "=", &operand), Err("operand"), "{operand}");
        }
        for operand in [json!("all"), json!([1]), json!([["all"]]), json!([null])] {
            assert_eq!(condition("scopes", "=", &operand), Err("operand"), "{operand}");
        }
        assert_eq!(condition("scopes", "in", &json!(["all"])), Err("operand"));
        assert_eq!(condition("uuid", "in", &json!("a")), Err("operand"));
        assert_eq!(condition("api_token", "=", &json!(["a"])), Err("operand"));
        assert_eq!(condition("expires_at", "=", &json!(1_700_000_000)), Err("operand"));
    }

    #[test]
    fn numbers_are_whole_and_of_64_bits() {
        let is = |operand: Value| condition("user_id", "=", &operand);
        let number = |number| among(vec![Operand::Number(number)], false, false);
        assert_eq!(is(json!(5.0)), number(5));
        assert_eq!(is(json!(-0.0)), number(0));
        assert_eq!(is(json!(i64::MAX)), number(i64::MAX));
        assert_eq!(is(json!(i64::MIN)), number(i64::MIN));
        assert_eq!(is(json!(-9_007_199_254_740_992.0)), number(-9_007_199_254_740_992));
        assert_eq!(is(json!(9_007_199_254_740_994.0)), Err("operand"));
        assert_eq!(is(json!(u64::MAX)), Err("operand"));
        assert_eq!(is(json!(1e300)), Err("operand"));
        assert_eq!(is(json!(0.1)), Err("operand"));
    }

    #[test]
    fn order_of_scopes_does_not_matter() {
        let sorted = Operand::Scopes(vec!["GET /a".to_owned(), "all".to_owned()]);
        let is = condition("scopes", "=", &json!(["all", "GET /a"]));
        assert_eq!(is, among(vec![sorted.clone()], false, false));
        let is = condition("scopes", "not in", &json!([["all", "GET /a"], [], null]));
        assert_eq!(is, among(vec![sorted, Operand::Scopes(Vec::new())], true, true));
    }

    #[test]
    fn secret_alone_is_compared_by_its_digests() {
        let digests = peppers().digests(&SECRET.parse().unwrap());
        let digests = digests.into_iter().map(Operand::Digest).collect();
        assert_eq!(condition("api_token", "=", &json!(SECRET)), among(digests, false, false));
        let v2 = format!("v2/zzzzz-gj3su-0123456789abcde/{SECRET}");
        let pat = "pat_00000000000000000000000000000000000000000000010Ehxm0";
        for none in [v2.as_str(), pat, "", "x"] {
            assert_eq!(condition("api_token", "=", &json!(none)), among(Vec::new(), false, false));
        }
    }

    #[test]
    fn texts_and_lists_are_bounded_and_hold_no_nul() {
        assert!(condition("uuid", "=", &json!("ä".repeat(1_000))).is_ok());
        assert_eq!(condition("uuid", "=", &json!("ä".repeat(1_001))), Err("operand"));
        for operand in [json!("a\0"), json!(["\0"]), json!([["a"], ["\0"]])] {
            for (attribute, operator) in [("uuid", "="), ("uuid", "in"), ("scopes", "in")] {
                assert_eq!(condition(attribute, operator, &operand), Err("operand"));
            }
        }
        assert_eq!(condition("uuid", "like", &json!("\0")), Err("operand"));
        assert!(condition("uuid", "in", &json!(vec!["a"; 1_000])).is_ok());
        assert_eq!(condition("uuid", "in", &json!(vec!["a"; 1_001])), Err("operand"));
        assert_eq!(condition("scopes", "=", &json!(vec!["a"; 1_001])), Err("operand"));
        assert_eq!(condition("uuid", "is_a", &json!(vec!["a"; 1_001])), Err("operand"));
    }

    #[test]
    fn patterns_are_those_of_like() {
        assert_eq!(pieces("a%_"), [Piece::Literal('a'), Piece::Any, Piece::One]);
        let literal = [Piece::Literal('%'), Piece::Literal('_'), Piece::Literal('\\')];
        assert_eq!(pieces("\\%\\_\\\\"), literal);
        assert_eq!(pieces("\\a"), [Piece::Literal('a')]);
        assert_eq!(condition("uuid", "like", &json!("a\\")), Err("operand"));
        assert!(condition("uuid", "like", &json!("a\\\\")).is_ok());
    }

    #[test]
    fn kinds_are_known_by_their_type_codes() {
        let patterns = |kinds: Value| match condition("owner_uuid", "is_a", &kinds) {
            Ok(Test::Like { patterns, ignores_case: false }) => patterns.len(),
            other => panic!("{other:?}"),
        };
        assert_eq!(patterns(json!("arvados#user")), 1);
        assert_eq!(patterns(json!(["arvados#user", "arvados#apiClientAuthorization", "x"])), 2);
        assert_eq!(patterns(json!("user")), 0);
        assert_eq!(condition("uuid", "is_a", &json!([1])), Err("operand"));
    }
}
