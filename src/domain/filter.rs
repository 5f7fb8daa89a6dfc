//! Conditions on API client authorizations: the filter language of Arvados (SEEDS 3.9).

use std::{fmt, str::FromStr};

use serde_json::Value;

use super::{Attribute, Digest, Invalid, Kind, Peppers, Timestamp, Token, attribute::Form};

/// The longest text to compare with, in characters, and the longest list.
const MAX_TEXT: usize = 1_000;
const MAX_LIST: usize = 1_000;

/// A filter, as it came from outside.
pub struct Filter {
    /// Of what.
    pub names: Names,
    /// What must hold.
    pub operator: String,
    /// With what.
    pub comparand: Comparand,
}

/// What attributes a filter names.
#[derive(Debug)]
pub enum Names {
    /// This one, or all texts if it is `any`.
    One(String),
    /// One of these; `any` is none of them.
    OneOf(Vec<String>),
}

/// What a filter compares with.
pub enum Comparand {
    /// This value.
    Value(Value),
    /// What the same item has for the attribute of this name.
    Attribute(String),
}

impl fmt::Debug for Filter {
    // The comparand may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Filter({:?} {} …)", self.names, self.operator)
    }
}

/// Holds of an item if one of these tests holds of the attribute before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Condition(pub Vec<(Attribute, Test)>);

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
    /// Set as that other number is, and this way beside it.
    Beside(Relation, Attribute),
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
    /// `=`, which of a value [`Test::Among`] says.
    Equal,
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

/// What is wrong with a filter.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// In which part of it: `attribute`, `attributes`, `operator`, `operand` or
    /// `operand_attribute`.
    pub part: &'static str,
    /// Of which of the attributes.
    pub place: Option<usize>,
    /// Why.
    pub reason: Invalid,
}

impl Wrong {
    fn new(part: &'static str, reason: Invalid) -> Self {
        Self { part, place: None, reason }
    }
}

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
    /// The condition that a filter is. A secret is compared by its digests under these
    /// peppers.
    ///
    /// # Errors
    ///
    /// What is named is no attribute or no operator, or one of the attributes does not take
    /// the operator or the comparand.
    pub fn parse(filter: &Filter, peppers: &Peppers) -> Result<Self, Wrong> {
        let attributes = attributes(&filter.names)?;
        let operator: Operator =
            filter.operator.parse().map_err(|reason| Wrong::new("operator", reason))?;
        let mut alternatives = Vec::with_capacity(attributes.len());
        for attribute in attributes {
            let test = match &filter.comparand {
                Comparand::Value(operand) => test(attribute, operator, operand, peppers),
                Comparand::Attribute(name) => beside(attribute, operator, name),
            };
            let test = test.map_err(|mut wrong| {
                if let (Names::OneOf(_), "operand") = (&filter.names, wrong.part) {
                    wrong.reason.0 += " to be compared with ";
                    wrong.reason.0 += attribute.as_str();
                }
                wrong
            })?;
            alternatives.push((attribute, test));
        }
        Ok(Self(alternatives))
    }
}

/// The attributes that are named, each once.
fn attributes(names: &Names) -> Result<Vec<Attribute>, Wrong> {
    let parse = |name: &str| match name.parse::<Attribute>()? {
        attribute if attribute.form() == Form::Opaque => {
            Err(Invalid::new("is nothing to filter by"))
        }
        attribute => Ok(attribute),
    };
    let several = match names {
        Names::One(any) if any == "any" => {
            let all = Attribute::ALL.into_iter();
            return Ok(all.filter(|attribute| attribute.form() == Form::Text).collect());
        }
        Names::One(name) => {
            let one = parse(name).map_err(|reason| Wrong::new("attribute", reason))?;
            return Ok(vec![one]);
        }
        Names::OneOf(several) if several.is_empty() => {
            return Err(Wrong::new("attributes", Invalid::new("must name one at least")));
        }
        Names::OneOf(several) => several,
    };
    let mut attributes = Vec::new();
    for (place, name) in several.iter().enumerate() {
        let wrong = |reason| Wrong { place: Some(place), ..Wrong::new("attributes", reason) };
        let attribute = parse(name).map_err(wrong)?;
        if !attributes.contains(&attribute) {
            attributes.push(attribute);
        }
    }
    Ok(attributes)
}

/// What an attribute must be to lie so to another one.
fn beside(attribute: Attribute, operator: Operator, other: &str) -> Result<Test, Wrong> {
    let relation = match operator {
        Operator::Equal { negated: false } => Relation::Equal,
        Operator::Ordered(relation) => relation,
        Operator::Equal { negated: true }
        | Operator::In { .. }
        | Operator::Like { .. }
        | Operator::IsA => {
            let reason = Invalid::new("must be =, <, <=, > or >= between two attributes");
            return Err(Wrong::new("operator", reason));
        }
    };
    let wrong = |reason| Wrong::new("operand_attribute", reason);
    let other: Attribute = other.parse().map_err(wrong)?;
    if attribute.form() != Form::Number || other.form() != Form::Number {
        return Err(wrong(Invalid::new("must be a number, and beside one")));
    }
    Ok(Test::Beside(relation, other))
}

fn test(
    attribute: Attribute,
    operator: Operator,
    operand: &Value,
    peppers: &Peppers,
) -> Result<Test, Wrong> {
    let form = attribute.form();
    if !operator.applies_to(form) {
        let reason = Invalid(format!("does not apply to {}", attribute.as_str()));
        return Err(Wrong::new("operator", reason));
    }
    of_form(form, operator, operand, peppers).map_err(|reason| Wrong::new("operand", reason))
}

fn of_form(
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

/// A number of JSON that is whole. In a protocol all may be written as fractions.
#[must_use]
pub fn whole_number(value: &Value) -> Option<i64> {
    // Beyond it a fraction is no longer told from its neighbours.
    const MOST: f64 = 9_007_199_254_740_992.0;
    let whole = |number: &f64| number.fract() == 0.0 && number.abs() <= MOST;
    value.as_i64().or_else(|| value.as_f64().filter(whole).map(|number| number as i64))
}

fn number(value: &Value) -> Result<i64, Invalid> {
    let whole = whole_number(value);
    whole.ok_or_else(|| Invalid::new("must be a whole number of at most 64 bits"))
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
        let names = Names::One(attribute.to_owned());
        let mut alternatives = parse(names, operator, Comparand::Value(operand.clone()))?;
        Ok(alternatives.pop().unwrap().1)
    }

    fn parse(
        names: Names,
        operator: &str,
        comparand: Comparand,
    ) -> Result<Vec<(Attribute, Test)>, &'static str> {
        let filter = Filter { names, operator: operator.to_owned(), comparand };
        Condition::parse(&filter, &peppers()).map(|it| it.0).map_err(|wrong| wrong.part)
    }

    fn one_of(
        names: &[&str],
        operator: &str,
        operand: &Value,
    ) -> Result<Vec<(Attribute, Test)>, &'static str> {
        let names = names.iter().map(ToString::to_string).collect();
        parse(Names::OneOf(names), operator, Comparand::Value(operand.clone()))
    }

    fn beside(one: &str, operator: &str, other: &str) -> Result<Test, &'static str> {
        let names = Names::One(one.to_owned());
        let tests = parse(names, operator, Comparand::Attribute(other.to_owned()))?;
        Ok(tests.into_iter().next().unwrap().1)
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
        let any = Names::One("any".to_owned());
        let any = parse(any, "=", Comparand::Value(json!("x"))).unwrap();
        let names: Vec<_> = any.iter().map(|(attribute, _)| attribute.as_str()).collect();
        let texts = ["uuid", "created_by_ip_address", "last_used_by_ip_address", "owner_uuid"];
        assert_eq!(names, texts);
    }

    #[test]
    fn each_of_several_attributes_is_compared_as_its_type_is() {
        let text = "2027-01-15T08:00:00Z";
        let time = Operand::Time(text.parse().unwrap());
        let is = |value| among(vec![value], false, false).unwrap();
        let both = one_of(&["expires_at", "uuid", "expires_at"], "=", &json!(text));
        let expected = vec![
            (Attribute::ExpiresAt, is(time)),
            (Attribute::Uuid, is(Operand::Text(text.to_owned()))),
        ];
        assert_eq!(both, Ok(expected));
        assert!(one_of(&["user_id", "scopes", "uuid"], "!=", &json!(null)).is_ok());
        for (names, operator, operand, part) in [
            (&[][..], "=", json!("x"), "attributes"),
            (&["any"], "=", json!("x"), "attributes"),
            (&["uuid", "etag"], "=", json!("x"), "attributes"),
            (&["uuid", "user_id"], "=", json!("x"), "operand"),
            (&["uuid", "user_id"], "=", json!(7), "operand"),
            (&["uuid", "expires_at"], "=", json!("x"), "operand"),
            (&["uuid", "expires_at"], "like", json!("x"), "operator"),
            (&["uuid", "api_token"], "!=", json!("x"), "operator"),
            (&["uuid", "api_token"], "not in", json!([]), "operator"),
        ] {
            assert_eq!(one_of(names, operator, &operand), Err(part), "{names:?} {operator}");
        }
        let filter = |names: &[&str], operand| Filter {
            names: Names::OneOf(names.iter().map(ToString::to_string).collect()),
            operator: "=".to_owned(),
            comparand: Comparand::Value(operand),
        };
        let wrong = Condition::parse(&filter(&["uuid", "x"], json!(1)), &peppers()).unwrap_err();
        assert_eq!((wrong.part, wrong.place), ("attributes", Some(1)));
        let filter = filter(&["uuid", "user_id"], json!(SECRET));
        let wrong = Condition::parse(&filter, &peppers()).unwrap_err();
        assert!(wrong.reason.0.ends_with(" to be compared with user_id"), "{wrong:?}");
        assert!(!format!("{filter:?} {wrong:?}").contains(SECRET));
    }

    #[test]
    fn numbers_are_compared_with_each_other_and_nothing_else_is() {
        for (operator, relation) in [
            ("=", Relation::Equal),
            ("<", Relation::Less),
            ("<=", Relation::LessOrEqual),
            (">", Relation::Greater),
            (">=", Relation::GreaterOrEqual),
        ] {
            let test = Ok(Test::Beside(relation, Attribute::ApiClientId));
            assert_eq!(beside("user_id", operator, "api_client_id"), test);
        }
        for operator in ["!=", "<>", "in", "not in", "like", "ilike", "is_a", "=="] {
            assert_eq!(beside("user_id", operator, "api_client_id"), Err("operator"), "{operator}");
        }
        for (one, other, part) in [
            ("user_id", "uuid", "operand_attribute"),
            ("uuid", "user_id", "operand_attribute"),
            ("uuid", "owner_uuid", "operand_attribute"),
            ("created_at", "expires_at", "operand_attribute"),
            ("user_id", "7", "operand_attribute"),
            ("user_id", "any", "operand_attribute"),
            ("any", "user_id", "operand_attribute"),
            ("7", "user_id", "attribute"),
        ] {
            assert_eq!(beside(one, "<", other), Err(part), "{one} {other}");
        }
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
