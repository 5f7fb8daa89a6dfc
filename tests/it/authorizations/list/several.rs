//! Filters on one of several attributes, and on two beside each other.

use token_authority::domain::Attribute;

use super::*;

on_both_stores![
    filter_on_several_attributes_holds_if_it_does_of_one_of_them,
    attribute_is_compared_with_another,
    what_a_filter_must_not_be_is_named,
    as_many_attributes_as_may_be_named_are_looked_at,
    no_filter_reaches_the_tokens_of_others,
];

fn several(attributes: &[&str], operator: &str, operand: Json) -> Filter {
    Filter { attributes: texts(attributes), ..filter("", operator, operand) }
}

fn beside(one: &str, operator: &str, other: &str) -> Filter {
    let other = Some(other.to_owned());
    Filter { operand: None, operand_attribute: other, ..filter(one, operator, json!(null)) }
}

impl Four {
    async fn found(&self, filters: &[Filter]) -> String {
        let order = texts(&["uuid asc"]);
        self.letters(List { filters: filters.to_vec(), order, ..Default::default() }).await
    }
}

async fn filter_on_several_attributes_holds_if_it_does_of_one_of_them(engine: Engine) {
    let four = Four::made(engine).await;
    let (a, b) = (json!(uuid('a')), json!(uuid('b')));
    let second = nine_digits(four.made[1].created_at);
    let [secret_a, secret_c] = [0, 2].map(|at| four.made[at].api_token());
    for (attributes, operator, operand, expected) in [
        // Of one type.
        (&["uuid", "owner_uuid"][..], "=", a.clone(), "a"),
        (&["uuid", "owner_uuid"], "=", json!(four.owner), "abcd"),
        (&["uuid", "owner_uuid"], "=", json!(UNKNOWN), ""),
        (&["uuid", "owner_uuid"], "in", json!([a, b]), "ab"),
        (&["uuid", "owner_uuid"], "!=", a.clone(), "abcd"),
        (&["uuid", "owner_uuid"], "is_a", json!("arvados#user"), "abcd"),
        (&["uuid", "created_by_ip_address"], "like", json!("127.%"), "abcd"),
        (&["uuid", "last_used_by_ip_address"], "ILIKE", json!("%A"), "a"),
        (&["user_id", "api_client_id"], "=", json!(four.number), "abcd"),
        (&["user_id", "api_client_id"], "<", json!(0), ""),
        (&["expires_at", "created_at"], "<=", second.clone(), "abc"),
        (&["expires_at", "created_at"], ">", four.soon.clone(), "c"),
        // As if it were alone.
        (&["uuid"], "!=", a.clone(), "bcd"),
        (&["uuid", "uuid"], "=", a.clone(), "a"),
        // Of different types.
        (&["uuid", "expires_at"], "=", four.soon.clone(), "bd"),
        (&["uuid", "api_token"], "=", json!(secret_c), "c"),
        (&["api_token", "uuid"], "in", json!([secret_a, b]), "ab"),
        (&["api_client_id", "expires_at"], "=", json!(null), "ac"),
        (&["api_client_id", "last_used_at", "uuid"], "=", json!(null), "abcd"),
        (&["last_used_at", "api_client_id"], "!=", json!(null), "abd"),
        (&["scopes", "uuid", "user_id"], "in", json!([]), ""),
        (&["scopes", "uuid", "user_id"], "not in", json!([]), "abcd"),
    ] {
        let shown = format!("{attributes:?} {operator} {operand}");
        let found = four.found(&[several(attributes, operator, operand)]).await;
        assert_eq!(found, expected, "{shown}");
    }
    let all = [
        several(&["api_client_id", "expires_at"], "=", json!(null)),
        several(&["uuid", "owner_uuid"], "in", json!([b, uuid('c')])),
    ];
    assert_eq!(four.found(&all).await, "c", "all must hold");
}

async fn attribute_is_compared_with_another(engine: Engine) {
    let four = Four::made(engine).await;
    for (operator, is_so) in [
        ("=", i64::eq as fn(&i64, &i64) -> bool),
        ("<", i64::lt),
        ("<=", i64::le),
        (">", i64::gt),
        (">=", i64::ge),
    ] {
        // Of `c`, which has no client, nothing holds.
        let held = |is_so: &dyn Fn(&i64) -> bool| {
            let clients = [("a", 1), ("b", 2), ("d", 2)].into_iter();
            clients
                .filter(|(_, client)| is_so(client))
                .map(|(letter, _)| letter)
                .collect::<String>()
        };
        let found = four.found(&[beside("api_client_id", operator, "user_id")]).await;
        assert_eq!(found, held(&|client| is_so(client, &four.number)), "{operator}");
        let found = four.found(&[beside("user_id", operator, "api_client_id")]).await;
        assert_eq!(found, held(&|client| is_so(&four.number, client)), "{operator}");
    }
    for (one, operator, other, expected) in [
        ("api_client_id", "=", "api_client_id", "abd"),
        ("api_client_id", "<", "api_client_id", ""),
        ("user_id", ">=", "user_id", "abcd"),
    ] {
        assert_eq!(four.found(&[beside(one, operator, other)]).await, expected, "{one} {other}");
    }
    let one_of = Filter {
        attribute: String::new(),
        attributes: texts(&["api_client_id", "user_id"]),
        ..beside("", "=", "user_id")
    };
    assert_eq!(four.found(&[one_of]).await, "abcd");
}

async fn what_a_filter_must_not_be_is_named(engine: Engine) {
    let four = Four::made(engine).await;
    let secret = four.made[0].api_token();
    let both = |filter: Filter| Filter { attribute: "uuid".to_owned(), ..filter };
    for (field, filter) in [
        // One or several, a value or another attribute.
        ("attributes", both(several(&["uuid"], "=", json!("x")))),
        (
            "operand_attribute",
            Filter { operand: Some(value(json!(1))), ..beside("user_id", "=", "user_id") },
        ),
        ("operand", Filter { operand: None, ..several(&["uuid"], "=", json!(null)) }),
        ("attribute", beside("", "=", "user_id")),
        ("attributes[1]", several(&["uuid", "any"], "=", json!("x"))),
        ("attributes[0]", several(&["etag", "uuid"], "=", json!("x"))),
        ("attributes[0]", several(&["", "uuid"], "=", json!("x"))),
        ("attributes[1]", several(&["uuid", "UUID"], "=", json!("x"))),
        ("attributes[0]", several(&["(user_id < api_client_id)"], "=", json!(true))),
        // Each of them takes the operator and the operand.
        ("operator", several(&["uuid", "expires_at"], "like", json!("%"))),
        ("operator", several(&["uuid", "scopes"], "<", json!("x"))),
        ("operator", several(&["uuid", "api_token"], "!=", json!(secret))),
        ("operator", several(&["api_token", "uuid"], "like", json!("%"))),
        ("operator", several(&["uuid", "owner_uuid"], "contains", json!("x"))),
        ("operand", several(&["uuid", "user_id"], "=", json!("x"))),
        ("operand", several(&["uuid", "user_id"], "=", json!(7))),
        ("operand", several(&["uuid", "expires_at"], "=", json!("x"))),
        ("operand", several(&["api_token", "user_id"], "=", json!(secret))),
        ("operand", several(&["uuid", "scopes"], "in", json!(["x"]))),
        // Only numbers lie so beside each other.
        ("operator", beside("user_id", "!=", "api_client_id")),
        ("operator", beside("user_id", "in", "api_client_id")),
        ("operator", beside("user_id", "like", "api_client_id")),
        ("operand_attribute", beside("user_id", "<", "uuid")),
        ("operand_attribute", beside("user_id", "<", "")),
        ("operand_attribute", beside("user_id", "<", "7")),
        ("operand_attribute", beside("user_id", "<", "any")),
        ("operand_attribute", beside("uuid", "=", "owner_uuid")),
        ("operand_attribute", beside("api_token", "=", "uuid")),
        ("operand_attribute", beside("created_at", "<", "expires_at")),
        ("operand_attribute", beside("any", "=", "user_id")),
    ] {
        let shown = format!("{filter:?}");
        let filters = vec![super::filter("uuid", "!=", json!("x")), filter];
        let answer = four.by.list(List { filters, ..Default::default() }).await;
        assert!(!format!("{answer:?}").contains(secret), "{shown}");
        assert_eq!(wrong_fields(answer), [format!("filters[1].{field}")], "{shown}");
    }
}

async fn as_many_attributes_as_may_be_named_are_looked_at(engine: Engine) {
    let four = Four::made(engine).await;
    let names = Attribute::ALL.map(Attribute::as_str).into_iter();
    let names: Vec<_> = names.filter(|name| *name != "etag").collect();
    let in_null = several(&names, "in", json!([null]));
    let is_null = several(&names, "=", json!(null));
    let mut most = [vec![in_null; 5], vec![is_null; 4]].concat();
    most.push(filter("any", "like", json!("%")));
    assert_eq!(most.iter().map(|filter| filter.attributes.len().max(1)).sum::<usize>(), 100);
    assert_eq!(four.found(&most).await, "abcd");
    most[9] = several(&["uuid", "owner_uuid"], "like", json!("%"));
    let answer = four.by.list(List { filters: most, ..Default::default() }).await;
    assert_eq!(wrong_fields(answer), ["filters"]);
    let any = vec![filter("any", "ilike", json!("%zzzzz%")); 100];
    assert_eq!(four.found(&any).await, "abcd");
}

async fn no_filter_reaches_the_tokens_of_others(engine: Engine) {
    let four = Four::made(engine).await;
    let bob = person(&four.server, "robert").await;
    let secret = four.made[0].api_token();
    for (is_own, filter) in [
        (true, several(&["uuid", "owner_uuid"], "like", json!("%"))),
        (true, several(&["owner_uuid", "uuid"], "in", json!([four.owner, bob.id]))),
        (true, beside("user_id", "=", "user_id")),
        (false, several(&["owner_uuid", "uuid"], "in", json!([four.owner, uuid('a')]))),
        (false, several(&["uuid", "api_token"], "in", json!([uuid('a'), secret]))),
        (false, several(&["user_id", "api_client_id"], "=", json!(four.number))),
    ] {
        let shown = format!("{filter:?}");
        let request = List { filters: vec![filter], ..Default::default() };
        let told = bob.by.list(request).await.unwrap();
        let own: &[&str] = if is_own { &[bob.uuid()] } else { &[] };
        assert_eq!(told.items.iter().map(|item| item.uuid()).collect::<Vec<_>>(), own, "{shown}");
        assert_eq!(told.items_available, i64::try_from(own.len()).ok(), "{shown}");
    }
}
