//! The filter language beside a plain reading of it (SEEDS 3.9): random rows, and
//! random conditions, orders and pages.

use std::{
    cell::RefCell,
    cmp,
    collections::{BTreeMap, HashSet},
};

use proptest::{
    collection, option,
    prelude::*,
    sample::{select, subsequence},
    test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner},
};
use serde_json::{Value, json};
use token_authority::{
    domain::{Attribute, Comparand, Condition, Filter, Names, Wrong, parse_order},
    store::AuthorizationQuery,
};
use tokio::runtime::Handle;

use super::{
    authorizations::{everything, peppers},
    *,
};

on_both_stores![lists_are_what_the_language_says];

const UUIDS: [&str; 17] = [
    "%",
    "A",
    "[a]",
    "a",
    "a%",
    "a*",
    "a?",
    "a\\b",
    "a_",
    "aa",
    "ab",
    "b",
    "zzzzz-gj3su-aaaaaaaaaaaaaa",
    "zzzzz-gj3su-aaaaaaaaaaaaaaa",
    "zzzzz-gj3su-aaaaaaaaaaaaaab",
    "É",
    "é",
];
const OWNERS: [&str; 3] =
    ["zzzzz-tpzed-aaaaaaaaaaaaaaa", "zzzzz-tpzed-aaaaaaaaaaaaaab", "zzzzz-tpzed-b00000000000000"];
const ADDRESSES: [&str; 14] = [
    "",
    "%",
    "10.0.0.1",
    "10.0.0.10",
    "2001:DB8::1",
    "2001:db8::1",
    "A",
    "[a]",
    "a",
    "a\\b",
    "a_b",
    "axb",
    "É",
    "é",
];
const PIECES: [&str; 16] = [
    "%", "_", "%", "_", "\\%", "\\_", "\\\\", "\\a", "a", "A", "b", "*", "?", "[a]", "É", "zzzzz-%",
];
/// Instants, in microseconds and as they may be written.
const TIMES: [(i64, &str); 5] = [
    (-1, "1969-12-31T23:59:59.999999Z"),
    (0, "1970-01-01T00:00:00.000000000Z"),
    (1, "1970-01-01T01:30:00.000001000+01:30"),
    (1_800_000_000_000_000, "2027-01-15T08:00:00Z"),
    (1_800_000_000_000_001, "2027-01-15t07:00:00.000001-01:00"),
];
const NUMBERS: [i64; 6] = [i64::MIN, -1, 0, 1, 3, i64::MAX];
const SCOPES: [&[&str]; 8] = [
    &[],
    &["all"],
    &["GET /a", "all"],
    &["all", "GET /a"],
    &["all", "all"],
    &["ALL"],
    &["a\\", "\"b\""],
    &["é"],
];
const OPERATORS: [&str; 12] =
    ["=", "!=", "<>", "<", "<=", ">", ">=", "like", "ilike", "in", "not in", "is_a"];
const TEXTS: [&str; 4] = ["uuid", "created_by_ip_address", "last_used_by_ip_address", "owner_uuid"];
const INSTANTS: [&str; 3] = ["last_used_at", "expires_at", "created_at"];
const COUNTED: [&str; 2] = ["api_client_id", "user_id"];

#[derive(Debug, Clone)]
struct Row {
    uuid: &'static str,
    owner: usize,
    api_client_id: Option<i64>,
    created_by: Option<&'static str>,
    last_use: Option<(i64, Option<&'static str>)>,
    expires_at: Option<i64>,
    scopes: &'static [&'static str],
    created_at: i64,
    is_deleted: bool,
    is_ended: bool,
}

/// A filter, as somebody writes it.
#[derive(Debug, Clone)]
struct Written {
    names: Vec<&'static str>,
    is_list: bool,
    operator: &'static str,
    against: Against,
}

#[derive(Debug, Clone)]
enum Against {
    Value(Value),
    Attribute(&'static str),
}

#[derive(Debug, Clone)]
struct Query {
    owner: Option<usize>,
    filters: Vec<Written>,
    order: Vec<String>,
    distinct: Vec<Attribute>,
    limit: i64,
    offset: i64,
    counts: bool,
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let time = || select(&TIMES[..]).prop_map(|(micros, _)| micros);
    let row = (
        0..OWNERS.len(),
        option::of(select(&NUMBERS[..])),
        option::of(select(&ADDRESSES[..])),
        option::of((time(), option::of(select(&ADDRESSES[..])))),
        option::of(time()),
        select(&SCOPES[..]),
        (time(), prop::bool::weighted(0.05), prop::bool::weighted(0.05)),
    );
    let rows = collection::vec(row, UUIDS.len());
    (subsequence(&UUIDS[..], 0..=UUIDS.len()), rows).prop_map(|(uuids, rows)| {
        let all = uuids.into_iter().zip(rows);
        all.map(|(uuid, row)| {
            let (owner, api_client_id, created_by, last_use, expires_at, scopes, rest) = row;
            let (created_at, is_deleted, is_ended) = rest;
            Row {
                uuid,
                owner,
                api_client_id,
                created_by,
                last_use,
                expires_at,
                scopes,
                created_at,
                is_deleted,
                is_ended,
            }
        })
        .collect()
    })
}

fn queries() -> impl Strategy<Value = Vec<Query>> {
    let directions = vec!["", " asc", " desc", " DESC"];
    let sorted = Attribute::ALL.map(Attribute::as_str).into_iter();
    let sorted: Vec<_> = sorted.filter(|name| !["api_token", "etag"].contains(name)).collect();
    let order = (select(sorted), select(directions))
        .prop_map(|(attribute, direction)| format!("{attribute}{direction}"));
    let distinct = prop_oneof![
        3 => Just(Vec::new()),
        1 => subsequence(Attribute::ALL.to_vec(), 1..=3),
    ];
    let query = (
        option::weighted(0.3, 0..OWNERS.len()),
        collection::vec(filter(), 0..5),
        collection::vec(order, 0..4),
        distinct,
        prop_oneof![0..20_i64, Just(1_000)],
        prop_oneof![3 => Just(0), 1 => 0..20_i64],
        any::<bool>(),
    )
        .prop_map(|(owner, filters, order, distinct, limit, offset, counts)| Query {
            owner,
            filters,
            order,
            distinct,
            limit,
            offset,
            counts,
        });
    collection::vec(query, 30)
}

fn filter() -> impl Strategy<Value = Written> {
    prop_oneof![8 => of_one(), 3 => of_several(), 1 => of_two()]
}

/// What may stand for an attribute.
fn attributes() -> Vec<&'static str> {
    Attribute::ALL.map(Attribute::as_str).into_iter().chain(["any"]).collect()
}

fn operators() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        12 => select(&OPERATORS[..]),
        1 => select(vec!["NOT IN", "ILike", "contains", ""]),
    ]
}

fn of_one() -> impl Strategy<Value = Written> {
    (select(attributes()), operators()).prop_flat_map(|(attribute, operator)| {
        let written = prop_oneof![
            25 => operand(attribute, operator),
            1 => select(vec![json!(null), json!(1.5), json!("a\0"), json!([1]), json!({}), json!("a\\")]),
        ];
        written.prop_map(move |operand| Written {
            names: vec![attribute],
            is_list: false,
            operator,
            against: Against::Value(operand),
        })
    })
}

/// What each of several attributes takes: mostly those of one type, or texts and instants.
fn of_several() -> impl Strategy<Value = Written> {
    let mixed = [&TEXTS[..2], &INSTANTS, &["api_token"]].concat();
    let names = prop_oneof![
        4 => subsequence(TEXTS.to_vec(), 1..=3),
        1 => subsequence(INSTANTS.to_vec(), 1..=3),
        1 => subsequence(COUNTED.to_vec(), 1..=2),
        4 => subsequence(mixed, 2..=3),
        1 => collection::vec(select(attributes()), 0..4),
    ];
    (names, operators()).prop_flat_map(|(names, operator)| {
        let instant = names.iter().find(|name| INSTANTS.contains(name));
        let first = *instant.or(names.first()).unwrap_or(&"uuid");
        let written = prop_oneof![
            6 => operand(first, operator),
            1 => select(vec![json!(null), json!([]), json!([null])]),
        ];
        let names = Just(names).prop_shuffle();
        (names, written).prop_map(move |(names, operand)| Written {
            names,
            is_list: true,
            operator,
            against: Against::Value(operand),
        })
    })
}

/// Two attributes of one item.
fn of_two() -> impl Strategy<Value = Written> {
    let one = || prop_oneof![8 => select(&COUNTED[..]), 1 => select(attributes())];
    let operator = prop_oneof![8 => select(vec!["=", "<", "<=", ">", ">="]), 1 => operators()];
    (collection::vec(one(), 1..3), any::<bool>(), operator, one()).prop_map(
        |(mut names, is_list, operator, other)| {
            names.truncate(if is_list { names.len() } else { 1 });
            Written { names, is_list, operator, against: Against::Attribute(other) }
        },
    )
}

fn operand(attribute: &'static str, operator: &'static str) -> BoxedStrategy<Value> {
    let value = || prop_oneof![6 => value(attribute), 1 => Just(Value::Null)];
    let kinds = || select(vec!["arvados#apiClientAuthorization", "arvados#user", "arvados#group"]);
    match operator.to_ascii_lowercase().as_str() {
        "in" | "not in" => collection::vec(value(), 0..4).prop_map(Value::from).boxed(),
        "like" | "ilike" => {
            let text = if TEXTS.contains(&attribute) { attribute } else { "any" };
            let begun = self::value(text).prop_map(|text| format!("{}%", text.as_str().unwrap()));
            let pieces = collection::vec(select(&PIECES[..]), 0..5);
            let pattern = prop_oneof![3 => pieces.prop_map(|pieces| pieces.concat()), 1 => begun];
            pattern.prop_map(Value::from).boxed()
        }
        "is_a" => prop_oneof![
            kinds().prop_map(Value::from),
            collection::vec(kinds(), 0..3).prop_map(Value::from),
        ]
        .boxed(),
        "<" | "<=" | ">" | ">=" => self::value(attribute),
        _ => value().boxed(),
    }
}

fn value(attribute: &'static str) -> BoxedStrategy<Value> {
    let text = |texts: Vec<String>| select(texts).prop_map(Value::from).boxed();
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    match attribute {
        "uuid" => text(owned(&UUIDS)),
        "owner_uuid" => text(owned(&OWNERS)),
        "created_by_ip_address" | "last_used_by_ip_address" => text(owned(&ADDRESSES)),
        "any" => text(owned(&[&UUIDS[..], &OWNERS, &ADDRESSES].concat())),
        "api_client_id" => {
            let fractions = [json!(1.0), json!(-0.0), json!(-9_223_372_036_854_775_808.0)];
            let all = NUMBERS.map(Value::from).into_iter().chain(fractions);
            select(all.collect::<Vec<_>>()).boxed()
        }
        "user_id" => (1..8_i64).prop_map(Value::from).boxed(),
        "last_used_at" | "expires_at" | "created_at" => {
            text(TIMES.map(|(_, text)| text.to_owned()).to_vec())
        }
        "scopes" => select(&SCOPES[..]).prop_map(|scopes| json!(scopes)).boxed(),
        "api_token" => {
            let secrets = (0..UUIDS.len()).map(secret);
            let others = [format!("v2/zzzzz-gj3su-aaaaaaaaaaaaaaa/{}", secret(0)), "a".to_owned()];
            text(secrets.chain(others).collect())
        }
        _ => text(owned(&["a"])),
    }
}

/// The secret of the row with the uuid of this place.
fn secret(place: usize) -> String {
    Token::authorization(&[u8::try_from(place).unwrap(); 32]).expose().to_owned()
}

impl Written {
    fn parsed(&self) -> Result<Condition, Wrong> {
        let mut names: Vec<_> = self.names.iter().map(ToString::to_string).collect();
        let filter = Filter {
            names: if self.is_list { Names::OneOf(names) } else { Names::One(names.remove(0)) },
            operator: self.operator.to_owned(),
            comparand: match &self.against {
                Against::Value(value) => Comparand::Value(value.clone()),
                Against::Attribute(name) => Comparand::Attribute((*name).to_owned()),
            },
        };
        Condition::parse(&filter, &peppers())
    }

    /// Which of the forms it has; of one attribute, which.
    fn form(&self) -> &'static str {
        let types: HashSet<_> = self.names.iter().map(|name| type_of(name)).collect();
        match (&self.against, self.is_list) {
            (Against::Attribute(_), _) => "two",
            (Against::Value(_), false) => self.names[0],
            (Against::Value(_), true) if types.len() < 2 => "several of one type",
            (Against::Value(_), true) => "several of different types",
        }
    }
}

fn type_of(attribute: &str) -> usize {
    let is_one = |names: &[&str]| names.contains(&attribute);
    let types = [is_one(&TEXTS), is_one(&INSTANTS), is_one(&COUNTED), attribute == "scopes"];
    types.into_iter().position(|is_it| is_it).unwrap_or(types.len())
}

/// A value of an attribute, or one to compare it with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Plain {
    Number(i128),
    Text(String),
    List(Vec<String>),
}

impl Row {
    fn place(&self) -> usize {
        UUIDS.iter().position(|uuid| *uuid == self.uuid).unwrap()
    }

    /// `numbers` are those of the owners.
    fn value(&self, attribute: &str, numbers: &[i64]) -> Option<Plain> {
        let text = |text: &str| Plain::Text(text.to_owned());
        let number = |number: i64| Plain::Number(number.into());
        match attribute {
            "uuid" | "etag" => Some(text(self.uuid)),
            "api_token" => Some(text(&secret(self.place()))),
            "api_client_id" => self.api_client_id.map(number),
            "user_id" => Some(number(numbers[self.owner])),
            "created_by_ip_address" => self.created_by.map(text),
            "last_used_by_ip_address" => self.last_use?.1.map(text),
            "last_used_at" => self.last_use.map(|(at, _)| number(at)),
            "expires_at" => self.expires_at.map(number),
            "owner_uuid" => Some(text(OWNERS[self.owner])),
            "scopes" => Some(Plain::List(self.scopes.iter().map(ToString::to_string).collect())),
            "created_at" => Some(number(self.created_at)),
            other => panic!("{other}"),
        }
    }

    /// What is compared: of scopes, their order is not.
    fn compared(&self, attribute: &str, numbers: &[i64]) -> Option<Plain> {
        self.value(attribute, numbers).map(sorted)
    }
}

fn sorted(value: Plain) -> Plain {
    match value {
        Plain::List(mut list) => {
            list.sort();
            Plain::List(list)
        }
        other @ (Plain::Number(_) | Plain::Text(_)) => other,
    }
}

/// What an operand is for an attribute, if it is of its type.
fn plain(attribute: &str, operand: &Value) -> Result<Plain, &'static str> {
    let text = |value: &Value| match value.as_str() {
        Some(text) if !text.contains('\0') => Ok(text.to_owned()),
        _ => Err("operand"),
    };
    match attribute {
        "api_client_id" | "user_id" => match (operand.as_i64(), operand.as_f64()) {
            (Some(number), _) => Ok(Plain::Number(number.into())),
            (None, Some(number))
                if number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0 =>
            {
                Ok(Plain::Number(number as i128))
            }
            _ => Err("operand"),
        },
        "last_used_at" | "expires_at" | "created_at" => {
            let known = TIMES.iter().find(|(_, text)| operand.as_str() == Some(text));
            known.map(|(micros, _)| Plain::Number((*micros).into())).ok_or("operand")
        }
        "scopes" => {
            let list = operand.as_array().ok_or("operand")?;
            list.iter().map(text).collect::<Result<_, _>>().map(|list| sorted(Plain::List(list)))
        }
        _ => text(operand).map(Plain::Text),
    }
}

/// A part of a filter, and its place in that.
type Part = (&'static str, Option<usize>);

/// Whether a row meets a filter; if it is none, which part of it is wrong.
fn holds(row: &Row, filter: &Written, numbers: &[i64]) -> Result<bool, Part> {
    let Written { names, is_list, operator, against } = filter;
    if *is_list {
        let wrong = names.iter().position(|name| ["any", "etag"].contains(name));
        if names.is_empty() || wrong.is_some() {
            return Err(("attributes", wrong));
        }
    }
    let mut any = false;
    for name in names {
        let held = match against {
            Against::Value(operand) => holds_of_one(row, (name, operator, operand), numbers),
            Against::Attribute(other) => holds_of_two(row, (name, operator, other), numbers),
        };
        any |= held.map_err(|part| (part, None))?;
    }
    Ok(any)
}

fn holds_of_two(
    row: &Row,
    (one, operator, other): (&str, &str, &str),
    numbers: &[i64],
) -> Result<bool, &'static str> {
    use cmp::Ordering::{Equal, Greater, Less};
    let orders = match operator {
        _ if one == "etag" => return Err("attribute"),
        "=" => vec![Equal],
        "<" => vec![Less],
        "<=" => vec![Less, Equal],
        ">" => vec![Greater],
        ">=" => vec![Greater, Equal],
        _ => return Err("operator"),
    };
    if [one, other].iter().any(|name| !COUNTED.contains(name)) {
        return Err("operand_attribute");
    }
    let [one, other] = [one, other].map(|name| row.value(name, numbers));
    Ok(one.zip(other).is_some_and(|(one, other)| orders.contains(&one.cmp(&other))))
}

fn holds_of_one(
    row: &Row,
    (attribute, operator, operand): (&str, &str, &Value),
    numbers: &[i64],
) -> Result<bool, &'static str> {
    let attributes = match attribute {
        "any" => TEXTS.to_vec(),
        "etag" => return Err("attribute"),
        one => vec![one],
    };
    let operator = operator.to_ascii_lowercase();
    let all_types = ["=", "in"];
    let not_for_secrets = ["!=", "<>", "not in"];
    let not_for_lists = ["<", "<=", ">", ">="];
    let for_texts = ["like", "ilike", "is_a"];
    let operator = operator.as_str();
    let applies = all_types.contains(&operator)
        || (not_for_secrets.contains(&operator) && attribute != "api_token")
        || (not_for_lists.contains(&operator) && !["api_token", "scopes"].contains(&attribute))
        || (for_texts.contains(&operator) && (TEXTS.contains(&attributes[0])));
    if !applies {
        return Err("operator");
    }
    let list = || operand.as_array().ok_or("operand");
    let text = || match plain("uuid", operand)? {
        Plain::Text(text) => Ok(text.chars().collect::<Vec<_>>()),
        Plain::Number(_) | Plain::List(_) => Err("operand"),
    };
    let mut any = false;
    for attribute in attributes {
        let value = row.compared(attribute, numbers);
        let is = |operand: &Value| {
            if operand.is_null() {
                return Ok(value.is_none());
            }
            plain(attribute, operand).map(|operand| value.as_ref() == Some(&operand))
        };
        let among = |operands: &[Value]| -> Result<bool, &'static str> {
            operands.iter().try_fold(false, |is_one, operand| Ok(is_one | is(operand)?))
        };
        let ordered = |orders: &[cmp::Ordering]| -> Result<bool, &'static str> {
            let other = plain(attribute, operand)?;
            Ok(value.as_ref().is_some_and(|value| orders.contains(&value.cmp(&other))))
        };
        let like = |pattern: &[char], lower: bool| match &value {
            Some(Plain::Text(text)) if lower => {
                let text: Vec<_> = text.to_ascii_lowercase().chars().collect();
                let pattern: Vec<_> = pattern.iter().map(char::to_ascii_lowercase).collect();
                is_like(&text, &pattern)
            }
            Some(Plain::Text(text)) => is_like(&text.chars().collect::<Vec<_>>(), pattern),
            Some(Plain::Number(_) | Plain::List(_)) | None => false,
        };
        let checked = |pattern: Vec<char>| {
            let slashes = pattern.iter().rev().take_while(|c| **c == '\\').count();
            if slashes % 2 == 0 { Ok(pattern) } else { Err("operand") }
        };
        any |= match operator {
            "=" => is(operand)?,
            "!=" | "<>" => !is(operand)?,
            "<" => ordered(&[cmp::Ordering::Less])?,
            "<=" => ordered(&[cmp::Ordering::Less, cmp::Ordering::Equal])?,
            ">" => ordered(&[cmp::Ordering::Greater])?,
            ">=" => ordered(&[cmp::Ordering::Greater, cmp::Ordering::Equal])?,
            "in" => among(list()?)?,
            "not in" => !among(list()?)?,
            "like" => like(&checked(text()?)?, false),
            "ilike" => like(&checked(text()?)?, true),
            "is_a" => {
                let one = slice::from_ref(operand);
                let kinds = operand.as_array().map_or(one, Vec::as_slice);
                let mut is_a = false;
                for kind in kinds {
                    is_a |= match plain("uuid", kind)? {
                        Plain::Text(kind) if kind == "arvados#user" => has_code(&value, "tpzed"),
                        Plain::Text(kind) if kind == "arvados#apiClientAuthorization" => {
                            has_code(&value, "gj3su")
                        }
                        Plain::Text(_) | Plain::Number(_) | Plain::List(_) => false,
                    };
                }
                is_a
            }
            other => panic!("{other}"),
        };
    }
    Ok(any)
}

fn has_code(value: &Option<Plain>, code: &str) -> bool {
    let Some(Plain::Text(id)) = value else { return false };
    let parts: Vec<_> = id.split('-').collect();
    matches!(parts[..], [cluster, part, digits] if cluster.len() == 5 && part == code && digits.len() == 15)
}

fn is_like(text: &[char], pattern: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['%', rest @ ..] => (0..=text.len()).any(|skipped| is_like(&text[skipped..], rest)),
        ['_', rest @ ..] => !text.is_empty() && is_like(&text[1..], rest),
        ['\\', literal, rest @ ..] | [literal, rest @ ..] => {
            text.first() == Some(literal) && is_like(&text[1..], rest)
        }
    }
}

/// The uuids that a query lists, and how many there are; which part of a filter is
/// wrong, if one is.
fn expected(rows: &[Row], query: &Query, numbers: &[i64]) -> (Vec<&'static str>, usize) {
    let meets = |row: &&Row| {
        !row.is_deleted
            && !row.is_ended
            && query.owner.is_none_or(|owner| row.owner == owner)
            && query.filters.iter().all(|filter| holds(row, filter, numbers).unwrap())
    };
    let mut found: Vec<&Row> = rows.iter().filter(meets).collect();
    let newest = ["created_at desc".to_owned(), "uuid desc".to_owned()];
    found.sort_by(|one, other| {
        query.order.iter().chain(&newest).fold(cmp::Ordering::Equal, |so_far, by| {
            let (attribute, direction) = by.split_once(' ').unwrap_or((by, "asc"));
            let key = |row: &Row| {
                let value = row.value(attribute, numbers);
                // What is unset is the greatest; lists go by their text.
                let value = value.map(|value| match value {
                    Plain::List(list) => Plain::Text(Value::from(list).to_string()),
                    plain @ (Plain::Number(_) | Plain::Text(_)) => plain,
                });
                (value.is_none(), value)
            };
            let order = key(one).cmp(&key(other));
            let is_descending = direction.eq_ignore_ascii_case("desc");
            so_far.then(if is_descending { order.reverse() } else { order })
        })
    });
    if !query.distinct.is_empty() {
        let mut seen = Vec::new();
        found.retain(|row| {
            let names = query.distinct.iter().map(|attribute| attribute.as_str());
            let values: Vec<_> = names.map(|name| row.value(name, numbers)).collect();
            let is_new = !seen.contains(&values);
            seen.push(values);
            is_new
        });
    }
    let page = found.iter().skip(query.offset.try_into().unwrap());
    let page = page.take(query.limit.try_into().unwrap()).map(|row| row.uuid);
    (page.collect(), found.len())
}

/// SQL that leaves these rows and no other of the kind.
fn insert(engine: Engine, rows: &[Row]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
    let texted = |text: Option<&str>| text.map_or("NULL".to_owned(), quoted);
    let numbered = |number: Option<i64>| {
        number.map_or("NULL".to_owned(), |number| match number {
            // There is no such literal.
            i64::MIN => format!("({} - 1)", i64::MIN + 1),
            other => other.to_string(),
        })
    };
    let mut sql = "DELETE FROM credentials WHERE kind = 'api_client_authorization'".to_owned();
    for row in rows {
        let (uuid, owner) = (quoted(row.uuid), quoted(OWNERS[row.owner]));
        let mut sorted = row.scopes.to_vec();
        sorted.sort_unstable();
        let token: Token = secret(row.place()).parse().unwrap();
        let digest = pepper().digest(&token);
        let digest: String = digest.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let digest = match engine {
            Engine::Postgres => format!("'\\x{digest}'"),
            Engine::Sqlite => format!("x'{digest}'"),
        };
        sql += &format!(
            "; INSERT INTO credentials (id, kind, user_id, scopes, sorted_scopes, allowed_ips, \
             api_client_id, created_by_ip, created_by_user_id, created_at, updated_at, expires_at, \
             revoked_at, store_epoch, user_epoch) VALUES ({uuid}, 'api_client_authorization', \
             {owner}, {}, {}, '[]', {}, {}, {owner}, {}, 0, {}, {}, {}, 0); \
             INSERT INTO secrets (id, credential_id, digest, pepper_id, record, shown, state, \
             created_at) VALUES ({uuid}, {uuid}, {digest}, '{}', '$a$b', '', 'current', 0)",
            quoted(&json!(row.scopes).to_string()),
            quoted(&json!(sorted).to_string()),
            numbered(row.api_client_id),
            texted(row.created_by),
            row.created_at,
            numbered(row.expires_at),
            numbered(row.is_deleted.then_some(0)),
            if row.is_ended { -1 } else { 0 },
            pepper().id().as_str(),
        );
        if let Some((at, from)) = row.last_use {
            sql += &format!(
                "; INSERT INTO last_uses (credential_id, last_used_at, last_used_ip) \
                 VALUES ({uuid}, {at}, {})",
                texted(from)
            );
        }
    }
    sql
}

/// How often filters of one form held of a row, and how often not.
type Seen = BTreeMap<(&'static str, String), [usize; 2]>;

async fn check(
    store: &TestStore,
    query: &Query,
    rows: &[Row],
    numbers: &[i64],
    seen: &RefCell<Seen>,
) -> TestCaseResult {
    let mut conditions = Vec::new();
    for filter in &query.filters {
        let parsed = filter.parsed();
        for row in rows {
            let held = holds(row, filter, numbers);
            let part = parsed.as_ref().err().map(|wrong| (wrong.part, wrong.place));
            prop_assert_eq!(held.err(), part, "{:?}", filter);
            if let Ok(held) = held {
                let names = (filter.form(), filter.operator.to_ascii_lowercase());
                seen.borrow_mut().entry(names).or_default()[usize::from(held)] += 1;
            }
        }
        conditions.extend(parsed);
    }
    if conditions.len() < query.filters.len() {
        return Ok(());
    }
    let reach = Reach {
        owner: query.owner.map(|owner| OWNERS[owner].parse().unwrap()),
        ..Reach::default()
    };
    let asked = AuthorizationQuery {
        conditions,
        order: query.order.iter().map(|text| parse_order(text).unwrap()).collect(),
        distinct: query.distinct.clone(),
        limit: query.limit,
        offset: query.offset,
        counts: query.counts,
        ..everything(&reach)
    };
    let (kept, available) = store.list_authorizations(&asked).await.unwrap();
    let listed: Vec<_> = kept.iter().map(|kept| kept.credential.id.0.as_str()).collect();
    let (page, count) = expected(rows, query, numbers);
    prop_assert_eq!(listed, page);
    prop_assert_eq!(available, query.counts.then(|| i64::try_from(count).unwrap()));
    Ok(())
}

async fn lists_are_what_the_language_says(engine: Engine) {
    let store = TestStore::new(engine).await;
    let mut numbers = Vec::new();
    for (place, id) in OWNERS.into_iter().enumerate() {
        let new = NewUser { id: id.parse().unwrap(), ..new_user(&format!("owner{place}")) };
        numbers.push(store.insert_user(&new, &store.actor()).await.unwrap().0.number);
    }
    let config = Config {
        cases: 80,
        failure_persistence: None,
        // In milliseconds.
        max_shrink_time: 20_000,
        ..Config::default()
    };
    // The same on both.
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[1; 32]);
    let seen = RefCell::default();
    let outcome =
        TestRunner::new_with_rng(config, rng).run(&(rows(), queries()), |(rows, queries)| {
            tokio::task::block_in_place(|| {
                Handle::current().block_on(async {
                    store.sql(&insert(engine, &rows)).await;
                    for query in &queries {
                        check(&store, query, &rows, &numbers, &seen).await?;
                    }
                    Ok(())
                })
            })
        });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    let seen = seen.into_inner();
    // Of the four types, that many attributes take that many operators, and several of them
    // and two beside each other take so many.
    assert_eq!(seen.len(), 5 * 12 + 5 * 9 + 5 + 2 + 12 + 9 + 5, "{seen:?}");
    let poor = seen.iter().filter(|(names, times)| {
        let (attribute, operator) = (names.0, names.1.as_str());
        let [failed, held] = times;
        // No address is an id, and one of four always differs from what it is not.
        let never_holds = operator == "is_a" && attribute.ends_with("address");
        let is_of_many = ["any", "several of different types"].contains(&attribute);
        let never_fails = is_of_many && ["!=", "<>", "not in"].contains(&operator);
        (*held == 0 && !never_holds) || (*failed == 0 && !never_fails)
    });
    let poor: Vec<_> = poor.collect();
    assert!(poor.is_empty(), "{poor:?}");
}
