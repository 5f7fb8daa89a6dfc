mod several;

use prost_types::Struct;
use token_authority::proto::v1::CountMode;

use super::*;
use crate::support::{on_both_stores, server::wrong_fields};

on_both_stores![
    each_operator_holds_of_what_it_says,
    where_names_attributes_and_what_they_equal,
    secret_finds_its_token_and_is_never_shown,
    last_use_is_filtered_and_sorted_by,
    instants_filter_by_the_very_text_that_shows_them,
    items_stand_in_the_order_that_is_asked_for_newest_first_among_equals,
    limit_and_offset_cut_what_is_listed_and_not_what_is_counted,
    items_equal_in_what_is_selected_are_listed_once_if_asked_so,
    what_is_wrong_with_a_list_is_named,
    page_is_cut_short_before_it_is_too_large,
    others_are_neither_listed_nor_counted,
];

/// Four tokens of one user, made in this order: `a`, then `b` and `c` at one instant,
/// then `d`. Each is called by the last letter of its uuid.
struct Four {
    server: TestServer,
    owner: String,
    number: i64,
    by: Holder,
    made: Vec<ApiClientAuthorization>,
    soon: Json,
    late: Json,
}

impl Four {
    async fn made(engine: Engine) -> Self {
        let server = TestServer::start(engine).await;
        server.clock.advance(Duration::from_micros(123_456));
        let owner = server.user("alice").await.id;
        let by = holder(&server, &server.text_of(&owner, &["admin:all"]).await);
        // Another's, which nothing here may show.
        person(&server, "bob").await;
        let (soon, late) = (Some(server.after(HOUR)), Some(server.after(2 * HOUR)));
        let mut made: Vec<ApiClientAuthorization> = Vec::new();
        for (letter, api_client_id, entries, expires_at) in [
            ('a', Some(1), &["all"][..], None),
            ('b', Some(2), &["GET /x", "POST /y"], soon),
            ('c', None, &[], late),
            ('d', Some(2), &["GET /x"], soon),
        ] {
            if letter != 'c' {
                server.clock.advance(SECOND);
            }
            let request = Create {
                uuid: Some(uuid(letter)),
                owner_uuid: Some(owner.clone()),
                api_client_id,
                scopes: scopes(entries),
                expires_at,
                ..Default::default()
            };
            made.push(holder(&server, &server.admin).create(request).await.unwrap());
        }
        let number = made[0].user_id();
        let (soon, late) = (nine_digits(soon), nine_digits(late));
        Self { server, owner, number, by, made, soon, late }
    }

    async fn list(&self, request: List) -> Items {
        self.by.list(request).await.unwrap()
    }

    /// The letters of what a list gives, whose count agrees.
    async fn letters(&self, request: List) -> String {
        let shown = format!("{request:?}");
        let items = self.list(request).await;
        assert_eq!(items.items_available, i64::try_from(items.items.len()).ok(), "{shown}");
        letters(&items.items)
    }

    async fn assert_filtered(&self, filters: &[(&str, &str, Json)], expected: &str) {
        let request = List {
            filters: filters
                .iter()
                .map(|(attribute, operator, operand)| filter(attribute, operator, operand.clone()))
                .collect(),
            order: texts(&["uuid asc"]),
            ..Default::default()
        };
        assert_eq!(self.letters(request).await, expected, "{filters:?}");
    }
}

fn uuid(letter: char) -> String {
    format!("zzzzz-gj3su-00000000000000{letter}")
}

fn letters(items: &[ApiClientAuthorization]) -> String {
    items.iter().map(|item| item.uuid().chars().next_back().unwrap_or('-')).collect()
}

async fn each_operator_holds_of_what_it_says(engine: Engine) {
    let four = Four::made(engine).await;
    let (a, b, c) = (json!(uuid('a')), json!(uuid('b')), json!(uuid('c')));
    let [soon, late] = [&four.soon, &four.late];
    let second = nine_digits(four.made[1].created_at);
    let number = json!(four.number);
    let owner = json!(four.owner);
    let cases = [
        // Text.
        ("uuid", "=", a.clone(), "a"),
        ("uuid", "=", json!(uuid('a').to_uppercase()), ""),
        ("uuid", "!=", a.clone(), "bcd"),
        ("uuid", "<>", a.clone(), "bcd"),
        ("uuid", "=", json!(null), ""),
        ("uuid", "!=", json!(null), "abcd"),
        ("uuid", "<", b.clone(), "a"),
        ("uuid", "<=", b.clone(), "ab"),
        ("uuid", ">", b.clone(), "cd"),
        ("uuid", ">=", b.clone(), "bcd"),
        ("uuid", ">", json!("ZZZZZ"), "abcd"),
        ("uuid", "like", json!("%000b"), "b"),
        ("uuid", "like", json!("zzzzz-_j3su-%"), "abcd"),
        ("uuid", "like", json!("zzzzz"), ""),
        ("uuid", "like", json!("%000B"), ""),
        ("uuid", "like", json!("ZZZZZ%"), ""),
        ("uuid", "like", json!(""), ""),
        ("uuid", "like", json!("%"), "abcd"),
        ("uuid", "like", json!("zzzzz-gj3su-00000000000000_"), "abcd"),
        ("uuid", "like", json!("zzzzz-gj3su-0000000000000_"), ""),
        ("uuid", "like", json!("%\\%"), ""),
        ("uuid", "like", json!("*"), ""),
        ("uuid", "ilike", json!("ZZZZZ-%000B"), "b"),
        ("uuid", "in", json!([a, c, UNKNOWN]), "ac"),
        ("uuid", "in", json!([]), ""),
        ("uuid", "not in", json!([a, c]), "bd"),
        ("uuid", "not in", json!([]), "abcd"),
        ("owner_uuid", "=", owner.clone(), "abcd"),
        ("owner_uuid", "!=", owner.clone(), ""),
        ("owner_uuid", "in", json!([owner]), "abcd"),
        ("owner_uuid", "like", json!("zzzzz-tpzed-%"), "abcd"),
        ("created_by_ip_address", "=", json!(HERE), "abcd"),
        ("created_by_ip_address", "like", json!("127.%"), "abcd"),
        ("created_by_ip_address", "!=", json!(HERE), ""),
        ("last_used_by_ip_address", "=", json!(null), "abcd"),
        ("last_used_by_ip_address", "!=", json!(HERE), "abcd"),
        ("last_used_by_ip_address", "!=", json!(null), ""),
        ("last_used_by_ip_address", "like", json!("%"), ""),
        ("last_used_by_ip_address", "not in", json!([HERE]), "abcd"),
        ("last_used_by_ip_address", "not in", json!([HERE, null]), ""),
        // What an item is, by the type code of an id.
        ("uuid", "is_a", json!("arvados#apiClientAuthorization"), "abcd"),
        ("uuid", "is_a", json!("arvados#user"), ""),
        ("uuid", "is_a", json!(["arvados#user", "arvados#apiClientAuthorization"]), "abcd"),
        ("uuid", "is_a", json!("arvados#nonsense"), ""),
        ("owner_uuid", "is_a", json!("arvados#user"), "abcd"),
        ("owner_uuid", "is_a", json!(["arvados#group"]), ""),
        // Numbers.
        ("api_client_id", "=", json!(2), "bd"),
        ("api_client_id", "=", json!(2.0), "bd"),
        ("api_client_id", "!=", json!(2), "ac"),
        ("api_client_id", "<>", json!(2), "ac"),
        ("api_client_id", "<", json!(2), "a"),
        ("api_client_id", "<=", json!(2), "abd"),
        ("api_client_id", ">", json!(1), "bd"),
        ("api_client_id", ">=", json!(1), "abd"),
        ("api_client_id", ">", json!(-1), "abd"),
        ("api_client_id", "=", json!(null), "c"),
        ("api_client_id", "!=", json!(null), "abd"),
        ("api_client_id", "<>", json!(null), "abd"),
        ("api_client_id", "in", json!([1, 3]), "a"),
        ("api_client_id", "in", json!([1, null]), "ac"),
        ("api_client_id", "not in", json!([1]), "bcd"),
        ("api_client_id", "not in", json!([1, null]), "bd"),
        ("user_id", "=", number.clone(), "abcd"),
        ("user_id", "!=", number.clone(), ""),
        ("user_id", "in", json!([number]), "abcd"),
        // Instants.
        ("expires_at", "=", soon.clone(), "bd"),
        ("expires_at", "!=", soon.clone(), "ac"),
        ("expires_at", "<", late.clone(), "bd"),
        ("expires_at", "<=", late.clone(), "bcd"),
        ("expires_at", ">", soon.clone(), "c"),
        ("expires_at", ">=", soon.clone(), "bcd"),
        ("expires_at", "=", json!(null), "a"),
        ("expires_at", "!=", json!(null), "bcd"),
        ("expires_at", "in", json!([late, null]), "ac"),
        ("expires_at", "not in", json!([late]), "abd"),
        ("expires_at", "not in", json!([late, null]), "bd"),
        ("expires_at", ">", json!("2027-01-15T10:00:00+02:00"), "bcd"),
        ("expires_at", "<", json!("9999-12-31T23:59:59Z"), "bcd"),
        ("created_at", "=", second.clone(), "bc"),
        ("created_at", "<", second.clone(), "a"),
        ("created_at", ">", second.clone(), "d"),
        ("created_at", ">=", second.clone(), "bcd"),
        ("last_used_at", "=", json!(null), "abcd"),
        ("last_used_at", "!=", json!(null), ""),
        ("last_used_at", "<", second.clone(), ""),
        // Scopes, whose order does not matter.
        ("scopes", "=", json!(["all"]), "a"),
        ("scopes", "=", json!(["GET /x", "POST /y"]), "b"),
        ("scopes", "=", json!(["POST /y", "GET /x"]), "b"),
        ("scopes", "=", json!(["GET /x"]), "d"),
        ("scopes", "=", json!([]), "c"),
        ("scopes", "=", json!(["ALL"]), ""),
        ("scopes", "!=", json!(["all"]), "bcd"),
        ("scopes", "<>", json!(["POST /y", "GET /x"]), "acd"),
        ("scopes", "in", json!([["all"], [], ["POST /y", "GET /x"]]), "abc"),
        ("scopes", "in", json!([]), ""),
        ("scopes", "not in", json!([["all"], ["GET /x"]]), "bc"),
        // Any text.
        ("any", "=", b.clone(), "b"),
        ("any", "=", json!(HERE), "abcd"),
        ("any", "like", json!("%000b"), "b"),
        ("any", "ilike", json!("ZZZZZ-GJ3SU-%A"), "a"),
        ("any", "like", json!("%nowhere%"), ""),
        ("any", "in", json!([uuid('a'), uuid('d')]), "ad"),
        // As it is written.
        ("uuid", "LIKE", json!("%000b"), "b"),
        ("uuid", "Not In", json!([uuid('a')]), "bcd"),
        ("uuid", "IN", json!([uuid('a')]), "a"),
        ("owner_uuid", "IS_A", json!("arvados#user"), "abcd"),
    ];
    for (attribute, operator, operand, expected) in cases {
        four.assert_filtered(&[(attribute, operator, operand)], expected).await;
    }
    let several = [
        ("api_client_id", "=", json!(2)),
        ("scopes", "!=", json!(["GET /x"])),
        ("uuid", ">", a.clone()),
    ];
    four.assert_filtered(&several, "b").await;
    four.assert_filtered(&[("uuid", "=", a), ("uuid", "=", b)], "").await;
    four.assert_filtered(&[], "abcd").await;
}

async fn where_names_attributes_and_what_they_equal(engine: Engine) {
    let four = Four::made(engine).await;
    let secret = four.made[2].api_token();
    for (equal, expected) in [
        (json!({}), "abcd"),
        (json!({ "uuid": uuid('a') }), "a"),
        (json!({ "uuid": UNKNOWN }), ""),
        (json!({ "scopes": ["POST /y", "GET /x"] }), "b"),
        (json!({ "scopes": [] }), "c"),
        (json!({ "api_token": secret }), "c"),
        (json!({ "api_client_id": 2 }), "bd"),
        (json!({ "api_client_id": null }), "c"),
        (json!({ "expires_at": four.soon }), "bd"),
        (json!({ "owner_uuid": four.owner, "api_client_id": 1 }), "a"),
    ] {
        let order = texts(&["uuid asc"]);
        let request = List { r#where: Some(object(equal.clone())), order, ..Default::default() };
        assert_eq!(four.letters(request).await, expected, "{equal}");
    }
    let request = List {
        r#where: Some(object(json!({ "api_client_id": 2 }))),
        filters: vec![filter("scopes", "=", json!(["GET /x"]))],
        ..Default::default()
    };
    assert_eq!(four.letters(request).await, "d", "both must hold");
}

async fn secret_finds_its_token_and_is_never_shown(engine: Engine) {
    let four = Four::made(engine).await;
    let [a, c] = [0, 2].map(|at| four.made[at].api_token());
    let unknown = "0".repeat(50);
    let bob = person(&four.server, "robert").await;
    for (operator, operand, expected) in [
        ("=", json!(a), "a"),
        ("=", json!(unknown), ""),
        ("=", json!(bob.token.api_token()), ""),
        ("=", json!(null), ""),
        ("=", json!(v2(&four.made[0])), ""),
        ("in", json!([a, c, unknown]), "ac"),
        ("in", json!([]), ""),
    ] {
        four.assert_filtered(&[("api_token", operator, operand)], expected).await;
    }
    let two = [("api_token", "=", json!(a)), ("uuid", "=", json!(uuid('c')))];
    four.assert_filtered(&two, "").await;
    let request = List {
        filters: vec![filter("api_token", "=", json!(a))],
        select: texts(&["uuid", "api_token"]),
        ..Default::default()
    };
    let items = four.list(request).await.items;
    assert_eq!((items.len(), items[0].api_token.as_ref()), (1, None));
    for (operator, operand) in [
        ("!=", json!(a)),
        ("<", json!(a)),
        ("like", json!("%")),
        ("not in", json!([a])),
        ("=", json!([a])),
        ("=", json!(1)),
    ] {
        let filters = vec![filter("api_token", operator, operand)];
        let answer = four.by.list(List { filters, ..Default::default() }).await;
        let wrong = wrong_fields(answer);
        assert!(wrong == ["filters[0].operator"] || wrong == ["filters[0].operand"], "{wrong:?}");
    }
}

async fn last_use_is_filtered_and_sorted_by(engine: Engine) {
    let four = Four::made(engine).await;
    let mut at = Vec::new();
    for (token, address) in [(&four.made[3], "203.0.113.1"), (&four.made[1], "2001:db8::1")] {
        four.server.clock.advance(MINUTE);
        let request = VerifyRequest {
            token: v2(token),
            client_ip: Some(address.to_owned()),
            ..Default::default()
        };
        assert!(ask(&four.server, request).await.active);
        at.push(nine_digits(Some(four.server.after(Duration::ZERO))));
    }
    crate::support::wait::until("both are written", Duration::from_secs(10), async || {
        let filters = vec![filter("last_used_at", "!=", json!(null))];
        four.letters(List { filters, ..Default::default() }).await.len() == 2
    })
    .await;
    for (attribute, operator, operand, expected) in [
        ("last_used_at", "=", at[0].clone(), "d"),
        ("last_used_at", ">", at[0].clone(), "b"),
        ("last_used_at", "!=", at[0].clone(), "abc"),
        ("last_used_at", "=", json!(null), "ac"),
        ("last_used_by_ip_address", "=", json!("203.0.113.1"), "d"),
        ("last_used_by_ip_address", "like", json!("2001:db8:%"), "b"),
        ("last_used_by_ip_address", "=", json!(null), "ac"),
        ("last_used_by_ip_address", "not in", json!(["203.0.113.1"]), "abc"),
        ("any", "=", json!("203.0.113.1"), "d"),
    ] {
        four.assert_filtered(&[(attribute, operator, operand)], expected).await;
    }
    for (order, expected) in [
        ("last_used_at asc", "dbca"),
        ("last_used_at desc", "cabd"),
        ("last_used_by_ip_address asc", "bdca"),
    ] {
        let request = List { order: texts(&[order]), ..Default::default() };
        assert_eq!(four.letters(request).await, expected, "{order}");
    }
}

async fn instants_filter_by_the_very_text_that_shows_them(engine: Engine) {
    let four = Four::made(engine).await;
    for (item, letter) in four.list(List::default()).await.items.iter().zip(["d", "c", "b", "a"]) {
        for (attribute, instant) in
            [("created_at", item.created_at), ("expires_at", item.expires_at)]
        {
            let Some(_) = instant else { continue };
            let text = nine_digits(instant);
            assert!(text.as_str().unwrap().ends_with("123456000Z"), "nine digits: {text}");
            let filters = [(attribute, "=", text), ("uuid", "=", json!(item.uuid()))];
            four.assert_filtered(&filters, letter).await;
        }
    }
}

async fn items_stand_in_the_order_that_is_asked_for_newest_first_among_equals(engine: Engine) {
    let four = Four::made(engine).await;
    for (order, expected) in [
        (&[][..], "dcba"),
        (&["created_at asc"], "acbd"),
        (&["created_at asc", "uuid asc"], "abcd"),
        (&["created_at asc", "uuid desc"], "acbd"),
        (&["created_at desc", "uuid asc"], "dbca"),
        (&["created_at"], "acbd"),
        (&["uuid"], "abcd"),
        (&["uuid desc"], "dcba"),
        // What is unset is last, and first the other way round.
        (&["api_client_id asc"], "adbc"),
        (&["api_client_id desc"], "cdba"),
        (&["api_client_id asc", "uuid asc"], "abdc"),
        (&["api_client_id desc", "uuid asc"], "cbda"),
        (&["expires_at asc"], "dbca"),
        (&["expires_at desc"], "acdb"),
        (&["expires_at asc", "created_at asc"], "bdca"),
        (&["user_id asc"], "dcba"),
        (&["owner_uuid desc"], "dcba"),
        (&["created_by_ip_address asc", "last_used_at desc"], "dcba"),
        (&["uuid asc", "uuid desc"], "abcd"),
    ] {
        let request = List { order: texts(order), ..Default::default() };
        assert_eq!(four.letters(request).await, expected, "{order:?}");
        // What an item is sorted by need not be selected.
        let select = texts(&["uuid"]);
        let request = List { order: texts(order), select, ..Default::default() };
        assert_eq!(four.letters(request).await, expected, "{order:?}");
    }
    // The newest is first also if its uuid is not the greatest.
    four.server.clock.advance(SECOND);
    let newest = Create {
        uuid: Some(uuid('1')),
        owner_uuid: Some(four.owner.clone()),
        api_client_id: Some(2),
        ..Default::default()
    };
    holder(&four.server, &four.server.admin).create(newest).await.unwrap();
    for (order, expected) in
        [(&[][..], "1dcba"), (&["user_id desc"], "1dcba"), (&["api_client_id"], "a1dbc")]
    {
        let request = List { order: texts(order), ..Default::default() };
        assert_eq!(four.letters(request).await, expected, "{order:?}");
    }
}

async fn limit_and_offset_cut_what_is_listed_and_not_what_is_counted(engine: Engine) {
    let four = Four::made(engine).await;
    for (limit, offset, expected, in_effect) in [
        (None, 0, "dcba", 100),
        (Some(0), 0, "", 0),
        (Some(1), 0, "d", 1),
        (Some(2), 1, "cb", 2),
        (Some(2), 3, "a", 2),
        (Some(100), 4, "", 100),
        (Some(1_000), 1_000_000, "", 1_000),
        (Some(1_001), 0, "dcba", 1_000),
        (Some(i32::MAX), 2, "ba", 1_000),
    ] {
        for count in [CountMode::Unspecified, CountMode::Exact, CountMode::None] {
            let request = List { limit, offset, count: count.into(), ..Default::default() };
            let told = four.list(request).await;
            let available = (count != CountMode::None).then_some(4);
            assert_eq!(letters(&told.items), expected, "{limit:?} {offset}");
            assert_eq!(told.items_available, available, "{limit:?} {offset}");
            assert_eq!((told.limit, told.offset), (in_effect, offset));
        }
    }
    let filters = vec![filter("api_client_id", "=", json!(2))];
    let told = four.list(List { filters, limit: Some(1), ..Default::default() }).await;
    assert_eq!((letters(&told.items), told.items_available), ("d".to_owned(), Some(2)));
    let page = |limit, offset| List { limit, offset, ..Default::default() };
    for (wrong, request) in [
        (&["limit"][..], page(Some(-1), 0)),
        (&["limit"], page(Some(i32::MIN), 0)),
        (&["offset"], page(None, -1)),
        (&["offset"], page(None, 1_000_001)),
        (&["offset"], page(None, i64::MAX)),
        (&["count"], List { count: 7, ..Default::default() }),
        (&["count"], List { count: -1, ..Default::default() }),
    ] {
        assert_eq!(wrong_fields(four.by.list(request).await), wrong);
    }
}

async fn items_equal_in_what_is_selected_are_listed_once_if_asked_so(engine: Engine) {
    let four = Four::made(engine).await;
    let distinct =
        |select: &[&str]| List { select: texts(select), distinct: true, ..Default::default() };
    let clients = |items: &Items| items.items.iter().map(|it| it.api_client_id).collect::<Vec<_>>();
    let told = four.list(distinct(&["api_client_id"])).await;
    assert_eq!(clients(&told), [Some(2), None, Some(1)], "the first of each in order");
    assert_eq!(told.items_available, Some(3));
    let request = List { limit: Some(1), offset: 1, ..distinct(&["api_client_id"]) };
    let told = four.list(request).await;
    assert_eq!((clients(&told), told.items_available), (vec![None], Some(3)));
    let ascending =
        List { order: texts(&["api_client_id asc", "uuid asc"]), ..distinct(&["api_client_id"]) };
    assert_eq!(clients(&four.list(ascending).await), [Some(1), Some(2), None]);
    for (select, count) in [
        (&["api_client_id", "scopes"][..], 4),
        (&["api_client_id", "expires_at"], 3),
        (&["owner_uuid"], 1),
        (&["owner_uuid", "created_at"], 3),
        (&["scopes"], 4),
        (&[], 4),
    ] {
        let told = four.list(distinct(select)).await;
        assert_eq!(
            (told.items.len(), told.items_available),
            (count, Some(count as i64)),
            "{select:?}"
        );
        let all = List { distinct: false, ..distinct(select) };
        assert_eq!(four.list(all).await.items.len(), 4);
    }
}

async fn what_is_wrong_with_a_list_is_named(engine: Engine) {
    let four = Four::made(engine).await;
    let (attribute, operator, operand) =
        (&["filters[1].attribute"][..], &["filters[1].operator"][..], &["filters[1].operand"][..]);
    let wrong = [
        (attribute, filter("nonsense", "=", json!(1))),
        (attribute, filter("", "=", json!(1))),
        (attribute, filter("UUID", "=", json!("x"))),
        (attribute, filter("etag", "=", json!("x"))),
        (attribute, filter("kind", "=", json!("x"))),
        (attribute, filter("modified_at", "=", json!(null))),
        (attribute, filter("uuid; --", "=", json!("x"))),
        (attribute, filter("a\0b", "=", json!("x"))),
        (operator, filter("uuid", "", json!("x"))),
        (operator, filter("uuid", "==", json!("x"))),
        (operator, filter("uuid", "exists", json!("x"))),
        (operator, filter("uuid", "contains", json!("x"))),
        (operator, filter("any", "@@", json!("x"))),
        (operator, filter("uuid", "is", json!(null))),
        (operator, filter("uuid", "not  like", json!("x"))),
        (operator, filter("api_client_id", "like", json!("1%"))),
        (operator, filter("created_at", "ilike", json!("2027%"))),
        (operator, filter("scopes", "like", json!("%"))),
        (operator, filter("scopes", "<", json!(["all"]))),
        (operator, filter("api_client_id", "is_a", json!("arvados#user"))),
        (operand, Filter { operand: None, ..filter("uuid", "=", json!(null)) }),
        (operand, filter("uuid", "=", json!(1))),
        (operand, filter("uuid", "=", json!(true))),
        (operand, filter("uuid", "=", json!(["x"]))),
        (operand, filter("uuid", "=", json!({ "a": 1 }))),
        (operand, filter("uuid", "<", json!(null))),
        (operand, filter("uuid", "like", json!(null))),
        (operand, filter("uuid", "like", json!(["%"]))),
        (operand, filter("uuid", "in", json!("x"))),
        (operand, filter("uuid", "in", json!(null))),
        (operand, filter("uuid", "in", json!(["x", 1]))),
        (operand, filter("uuid", "not in", json!([["x"]]))),
        (operand, filter("uuid", "is_a", json!(null))),
        (operand, filter("uuid", "is_a", json!([1]))),
        (operand, filter("any", "=", json!(1))),
        (operand, filter("api_client_id", "=", json!("1"))),
        (operand, filter("api_client_id", "=", json!(1.5))),
        (operand, filter("api_client_id", "=", json!(1e30))),
        (operand, filter("api_client_id", "<", json!(-1e19))),
        (operand, filter("api_client_id", ">", json!(null))),
        (operand, filter("api_client_id", "in", json!([1, 1.5]))),
        (operand, filter("user_id", "=", json!(four.owner))),
        (operand, filter("expires_at", "=", json!(1_800_000_000))),
        (operand, filter("expires_at", "=", json!("tomorrow"))),
        (operand, filter("expires_at", "=", json!(""))),
        (operand, filter("expires_at", ">=", json!("2027-01-15T08:00:00"))),
        (operand, filter("expires_at", ">=", json!("2027-02-30T08:00:00Z"))),
        (operand, filter("expires_at", "=", json!("2027-01-15T08:00:00.123456789Z"))),
        (operand, filter("expires_at", "<", json!(null))),
        (operand, filter("expires_at", "in", json!([four.soon, "tomorrow"]))),
        (operand, filter("scopes", "=", json!("all"))),
        (operand, filter("scopes", "=", json!([1]))),
        (operand, filter("scopes", "=", json!([["GET", "/x"]]))),
        (operand, filter("scopes", "in", json!(["all"]))),
        (operand, filter("api_token", "=", json!(1))),
        (operand, filter("api_token", "in", json!("x"))),
    ];
    let infinite = [f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(|number| {
        let operand = Some(prost_types::Value { kind: Some(Kind::NumberValue(number)) });
        Filter { operand, ..filter("api_client_id", "=", json!(1)) }
    });
    let wrong = wrong.into_iter().chain(infinite.map(|filter| (operand, filter)));
    for (fields, filter) in wrong {
        let shown = format!("{filter:?}");
        let filters = vec![super::filter("uuid", "!=", json!("x")), filter];
        let answer = four.by.list(List { filters, ..Default::default() }).await;
        assert_eq!(wrong_fields(answer), fields, "{shown}");
    }

    let ordered = |order: &[&str]| List { order: texts(order), ..Default::default() };
    for wrong in [
        "nonsense",
        "",
        "uuid ascending",
        "uuid asc desc",
        "uuid,created_at",
        "etag",
        "api_token",
        "scopes; --",
        "any",
        "kind desc",
        "a\0b",
    ] {
        let answer = four.by.list(ordered(&["uuid", wrong])).await;
        assert_eq!(wrong_fields(answer), ["order[1]"], "{wrong:?}");
    }
    for wrong in [
        json!({ "nonsense": 1 }),
        json!({ "etag": "x" }),
        json!({ "uuid": 1 }),
        json!({ "scopes": "all" }),
        json!({ "expires_at": "tomorrow" }),
        json!({ "api_client_id": "1" }),
    ] {
        let request = List { r#where: Some(object(wrong.clone())), ..Default::default() };
        let fields = wrong_fields(four.by.list(request).await);
        assert!(fields.len() == 1 && fields[0].starts_with("where"), "{wrong}: {fields:?}");
    }
    let unset = Struct { fields: [("uuid".to_owned(), prost_types::Value::default())].into() };
    let request = List { r#where: Some(unset), ..Default::default() };
    assert!(wrong_fields(four.by.list(request).await)[0].starts_with("where"));
}

async fn page_is_cut_short_before_it_is_too_large(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let by = holder(&server, &server.text_of(&user.id, &["admin:all"]).await);
    let large: Vec<_> = (0..100).map(|n| format!("GET /{n:02}{}", "x".repeat(249))).collect();
    assert_eq!(large[0].len(), 256);
    let large = Some(ScopeList { values: large });
    for _ in 0..100 {
        by.create(Create { scopes: large.clone(), ..Default::default() }).await.unwrap();
    }
    let (mut uuids, mut pages) = (Vec::new(), 0);
    while uuids.len() < 100 {
        let offset = i64::try_from(uuids.len()).unwrap();
        let told = by.list(List { offset, ..Default::default() }).await.unwrap();
        let size = prost::Message::encoded_len(&told);
        assert!(size < 3_000_000 && !told.items.is_empty(), "{size} bytes");
        assert_eq!(told.items_available, Some(100));
        if uuids.is_empty() {
            assert!(told.items.len() < 100, "2.5 MB are more than a page has");
            assert_eq!(usize::try_from(told.limit).unwrap(), told.items.len(), "and it says so");
        }
        uuids.extend(told.items.into_iter().map(|item| item.uuid.unwrap()));
        pages += 1;
    }
    uuids.sort();
    uuids.dedup();
    assert_eq!((uuids.len(), pages), (100, 2));
}

async fn others_are_neither_listed_nor_counted(engine: Engine) {
    let four = Four::made(engine).await;
    let bob = person(&four.server, "robert").await;
    let administrator = chief(&four.server, "chief").await;
    for (by, own) in [(&bob.by, bob.uuid()), (&administrator.by, administrator.uuid())] {
        for filters in [
            vec![],
            vec![filter("uuid", "!=", json!(UNKNOWN))],
            vec![filter("owner_uuid", "in", json!([four.owner, bob.id, administrator.id]))],
            vec![filter("any", "like", json!("zzzzz%"))],
        ] {
            let told = by.list(List { filters, ..Default::default() }).await.unwrap();
            assert_eq!(told.items_available, Some(1));
            assert_eq!(told.items[0].uuid(), own);
        }
        let filters = vec![filter("uuid", "=", json!(uuid('a')))];
        let told = by.list(List { filters, ..Default::default() }).await.unwrap();
        assert_eq!((told.items, told.items_available), (vec![], Some(0)));
        let order = texts(&["uuid asc"]);
        let request = List { order, limit: Some(0), ..Default::default() };
        assert_eq!(by.list(request).await.unwrap().items_available, Some(1));
    }
    // Deleted ones are gone, expired ones are not.
    four.by.delete(&uuid('c')).await.unwrap();
    four.server.clock.advance(3 * HOUR);
    assert_eq!(four.letters(List::default()).await, "dba");
}
