//! What is listed, by the parameters of a list (SEEDS 3.8) and by filters (SEEDS 3.9).

use super::*;
use crate::support::on_both_stores;

on_both_stores![
    each_operator_holds_of_what_it_says,
    filters_may_name_several_attributes_or_compare_two,
    what_is_no_filter_is_refused_by_its_place,
    where_is_what_attributes_equal,
    items_stand_in_the_order_that_is_asked_for,
    what_is_wrong_with_a_parameter_is_said_by_its_name,
];

/// Three tokens of one user, made one after the other. `b` is of client 1, and `c` of the
/// client that has its user's number.
struct Three {
    world: World,
    tokens: [Value; 3],
}

impl Three {
    async fn made(engine: Engine) -> Self {
        let world = World::new(engine, &[]).await;
        let mut tokens = [world.ok("GET /current", &Value::Null).await, Value::Null, Value::Null];
        for (at, attributes) in [
            (
                1,
                json!({ "api_client_id": 1, "scopes": ["GET /a"], "expires_at": "2027-06-01T00:00:00Z" }),
            ),
            (
                2,
                json!({ "api_client_id": world.number, "scopes": ["GET /a", "POST /b"], "expires_at": "2028-06-01T00:00:00Z" }),
            ),
        ] {
            world.server.clock.advance(Duration::from_secs(1));
            tokens[at] = world.ok("POST", &attributes).await;
        }
        assert!(world.number > 1 && tokens[0]["api_client_id"].is_null());
        Self { world, tokens }
    }

    /// Which of them a list has: in its order, and counted.
    fn letters(&self, list: &Value) -> String {
        let letter = |uuid: &String| {
            let at = self.tokens.iter().position(|token| token["uuid"] == **uuid);
            ["a", "b", "c"][at.unwrap()]
        };
        let letters: String = uuids(list).iter().map(letter).collect();
        assert_eq!(list["items_available"], letters.len(), "{list}");
        letters
    }

    /// That a parameter lists these, in whichever form it is sent.
    async fn assert_listed(&self, name: &str, value: &Value, expected: &str) {
        let text = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
        let order = if name == "order" { Value::Null } else { json!("created_at") };
        let encoded = [parameter(name, &text), parameter("order", order.as_str().unwrap_or(""))];
        let encoded = if order.is_null() { encoded[0].clone() } else { encoded.join("&") };
        let as_json = |value: &Value| match name {
            "order" => json!({ "order": value }).to_string(),
            _ => json!({ name: value, "order": order }).to_string(),
        };
        for (request, headers, body) in [
            (format!("GET ?{encoded}"), &[][..], String::new()),
            ("POST".to_owned(), &[FORM, "x-http-method-override: GET"], encoded.clone()),
            ("POST ?_method=GET".to_owned(), &[JSON], as_json(value)),
            ("GET".to_owned(), &[JSON], as_json(&json!(text))),
        ] {
            let answered = self.world.send(&request, headers, &body).await;
            assert_eq!(answered.status, 200, "{request} {body} {answered:?}");
            assert_eq!(self.letters(&answered.json()), expected, "{request} {body}");
        }
    }

    async fn assert_filtered(&self, filter: &Value, expected: &str) {
        self.assert_listed("filters", &json!([filter]), expected).await;
    }

    /// The message of a refusal of this parameter.
    async fn refused(&self, name: &str, value: &str) -> String {
        let request = format!("GET ?{}", parameter(name, value));
        let answered = self.world.send(&request, &[], "").await;
        assert_eq!(answered.status, 422, "{name}={value} {answered:?}");
        error(&answered)
    }
}

async fn each_operator_holds_of_what_it_says(engine: Engine) {
    let three = Three::made(engine).await;
    let [a, b, c] = &three.tokens;
    let (number, second) = (&three.world.number, &b["created_at"]);
    for (attribute, operator, operand, expected) in [
        ("uuid", "=", a["uuid"].clone(), "a"),
        ("uuid", "!=", a["uuid"].clone(), "bc"),
        ("uuid", "<>", a["uuid"].clone(), "bc"),
        ("uuid", "!=", json!(null), "abc"),
        ("uuid", "<", json!("zzzzz-gj3su-"), ""),
        ("uuid", ">", json!("zzzzz-gj3su-"), "abc"),
        ("uuid", "like", json!("zzzzz-gj3su-_______________"), "abc"),
        ("uuid", "like", json!("ZZZZZ%"), ""),
        ("uuid", "ilike", json!("ZZZZZ%"), "abc"),
        ("uuid", "in", json!([a["uuid"], c["uuid"], UNKNOWN]), "ac"),
        ("uuid", "in", json!([]), ""),
        ("uuid", "not in", json!([a["uuid"], c["uuid"]]), "b"),
        ("uuid", "NOT IN", json!([a["uuid"]]), "bc"),
        ("uuid", "is_a", json!("arvados#apiClientAuthorization"), "abc"),
        ("uuid", "is_a", json!("arvados#user"), ""),
        ("owner_uuid", "is_a", json!(["arvados#user", "arvados#group"]), "abc"),
        ("any", "=", b["uuid"].clone(), "b"),
        ("any", "ilike", json!("%GJ3SU%"), "abc"),
        ("api_token", "=", json!(three.world.secret), "a"),
        ("api_token", "=", json!(three.world.token), ""),
        ("api_token", "in", json!([c["api_token"], "x"]), "c"),
        ("api_client_id", "=", json!(1), "b"),
        ("api_client_id", "!=", json!(1), "ac"),
        ("api_client_id", "<", json!(1), ""),
        ("api_client_id", "<=", json!(1), "b"),
        ("api_client_id", ">", json!(1), "c"),
        ("api_client_id", ">=", json!(1), "bc"),
        ("api_client_id", "=", json!(null), "a"),
        ("api_client_id", "<>", json!(null), "bc"),
        ("api_client_id", "in", json!([1, null]), "ab"),
        ("api_client_id", "not in", json!([1]), "ac"),
        ("api_client_id", "not in", json!([1, null]), "c"),
        ("user_id", "=", json!(number), "abc"),
        ("created_at", "=", second.clone(), "b"),
        ("created_at", "<", second.clone(), "a"),
        ("created_at", "<=", second.clone(), "ab"),
        ("created_at", ">", second.clone(), "c"),
        ("created_at", ">=", second.clone(), "bc"),
        ("expires_at", "<", json!("2028-01-01T00:00:00+01:00"), "b"),
        ("expires_at", "!=", b["expires_at"].clone(), "ac"),
        ("expires_at", "=", json!(null), "a"),
        ("scopes", "=", json!(["POST /b", "GET /a"]), "c"),
        ("scopes", "=", json!(["GET /a"]), "b"),
        ("scopes", "!=", json!(["GET /a"]), "ac"),
        ("scopes", "in", json!([["all"], ["GET /a"]]), "ab"),
        ("scopes", "not in", json!([["all"], ["GET /a"]]), "c"),
    ] {
        three.assert_filtered(&json!([attribute, operator, operand]), expected).await;
    }
    let both = json!([["uuid", "!=", a["uuid"]], ["scopes", "!=", ["GET /a"]]]);
    three.assert_listed("filters", &both, "c").await;
    for none in [json!([]), json!(null), json!("")] {
        three.assert_listed("filters", &none, "abc").await;
    }
}

async fn filters_may_name_several_attributes_or_compare_two(engine: Engine) {
    let three = Three::made(engine).await;
    let [a, b, c] = &three.tokens;
    for (filter, expected) in [
        (json!([["uuid", "owner_uuid"], "=", a["uuid"]]), "a"),
        (json!([["uuid", "owner_uuid"], "=", a["owner_uuid"]]), "abc"),
        (json!([["uuid"], "!=", a["uuid"]]), "bc"),
        (json!([["uuid", "api_token"], "in", [a["uuid"], c["api_token"]]]), "ac"),
        (json!([["uuid", "expires_at"], "=", b["expires_at"]]), "b"),
        (json!([["expires_at", "created_at"], "<=", b["created_at"]]), "ab"),
        (json!([["api_client_id", "expires_at"], "=", null]), "a"),
        (json!("(user_id = api_client_id)"), "c"),
        (json!("(user_id > api_client_id)"), "b"),
        (json!("(user_id < api_client_id)"), ""),
        (json!("(api_client_id<=user_id)"), "bc"),
        (json!("  ( api_client_id  >=user_id )  "), "c"),
        (json!("(api_client_id = api_client_id)"), "bc"),
        (json!(["(user_id = api_client_id)", "=", true]), "c"),
        (json!(["(user_id = api_client_id)", "=", "true"]), "c"),
    ] {
        three.assert_filtered(&filter, expected).await;
    }
    let filters = json!(["(api_client_id <= user_id)", [["uuid", "owner_uuid"], "=", b["uuid"]]]);
    three.assert_listed("filters", &filters, "b").await;
}

async fn what_is_no_filter_is_refused_by_its_place(engine: Engine) {
    let three = Three::made(engine).await;
    for filter in [
        json!({ "uuid": "x" }),
        json!(null),
        json!(7),
        json!([]),
        json!(["uuid", "="]),
        json!(["uuid", "=", "x", "y"]),
        json!([7, "=", "x"]),
        json!(["uuid", 7, "x"]),
        json!(["uuid", null, "x"]),
        json!(["unknown", "=", "x"]),
        json!(["etag", "=", "x"]),
        json!(["uuid", "", "x"]),
        json!(["uuid", "~", "x"]),
        json!(["uuid", "@@", "x"]),
        json!(["any", "@@", "x"]),
        json!(["scopes", "contains", "x"]),
        json!(["scopes", "exists", "x"]),
        json!(["scopes", "like", "x"]),
        json!(["created_at", "like", "2027%"]),
        json!(["user_id", "is_a", "arvados#user"]),
        json!(["api_token", "!=", "x"]),
        json!(["uuid", "=", 7]),
        json!(["uuid", "=", true]),
        json!(["uuid", "=", ["x"]]),
        json!(["uuid", "<", null]),
        json!(["uuid", "in", "x"]),
        json!(["uuid", "not in", ["x", 7]]),
        json!(["user_id", "=", "x"]),
        json!(["user_id", "=", 1.5]),
        json!(["user_id", "=", 123_412_341_234_123_412_341_234_f64]),
        json!(["user_id", "=", u64::MAX]),
        json!(["user_id", "in", [9, u64::MAX]]),
        json!(["expires_at", "<", "tomorrow"]),
        json!(["expires_at", "<", 1_800_000_000]),
        json!(["scopes", "=", "all"]),
        json!(["scopes", "=", [["GET", "/a"]]]),
        json!([[], "=", "x"]),
        json!([["uuid", 7], "=", "x"]),
        json!([["uuid", ["owner_uuid"]], "=", "x"]),
        json!([["uuid", "any"], "=", "x"]),
        json!([["uuid", "unknown"], "=", "x"]),
        json!([["uuid", "user_id"], "=", "x"]),
        json!([["uuid", "user_id"], "=", 7]),
        json!([["uuid", "expires_at"], "=", "x"]),
        json!([["uuid", "expires_at"], "like", "x"]),
        json!([["uuid", "api_token"], "!=", "x"]),
        json!([["(user_id < api_client_id)"], "=", true]),
        json!("user_id < api_client_id"),
        json!("(user_id < api_client_id"),
        json!("(user_id ! api_client_id)"),
        json!("(user_id != api_client_id)"),
        json!("(user_id <)"),
        json!("(user_id < unknown)"),
        json!("(user_id < uuid)"),
        json!("(uuid < owner_uuid)"),
        json!("(created_at < expires_at)"),
        json!("(user_id < 2)"),
        json!("(1 < 2)"),
        json!("(user_id <\tapi_client_id)"),
        json!("(user_id < api_client_id)\n"),
        json!("(user_id < api_client_id) or (1 = 1)"),
        json!(["(user_id < api_client_id)", "!=", true]),
        json!(["(user_id < api_client_id)", "=", false]),
        json!(["user_id < api_client_id", "=", true]),
    ] {
        let filters = json!([["uuid", "!=", "x"], filter]).to_string();
        let said = three.refused("filters", &filters).await;
        assert!(said.starts_with("filters[1]"), "{filter} {said}");
    }
    for wrong in ["x", "7", "{}", "true", "\"uuid\"", "[", r#"["uuid","=","x"]"#] {
        let said = three.refused("filters", wrong).await;
        assert!(said.starts_with("filters"), "{wrong} {said}");
    }
    let many = json!(vec![json!([["uuid", "owner_uuid"], "=", "x"]); 51]).to_string();
    assert!(three.refused("filters", &many).await.starts_with("filters must "));
    let secret = &three.world.secret;
    let wrong = json!([[["api_token", "user_id"], "=", secret]]).to_string();
    assert!(!three.refused("filters", &wrong).await.contains(secret));
}

async fn where_is_what_attributes_equal(engine: Engine) {
    let three = Three::made(engine).await;
    let [a, b, c] = &three.tokens;
    for (equal, expected) in [
        (json!({}), "abc"),
        (json!(null), "abc"),
        (json!(""), "abc"),
        (json!({ "uuid": b["uuid"] }), "b"),
        (json!({ "uuid": UNKNOWN }), ""),
        (json!({ "api_token": c["api_token"] }), "c"),
        (json!({ "scopes": ["POST /b", "GET /a"] }), "c"),
        (json!({ "api_client_id": 1 }), "b"),
        (json!({ "api_client_id": null }), "a"),
        (json!({ "owner_uuid": a["owner_uuid"], "scopes": ["GET /a"] }), "b"),
    ] {
        three.assert_listed("where", &equal, expected).await;
    }
    for wrong in [
        json!([]),
        json!("x"),
        json!(7),
        json!({ "unknown": 1 }),
        json!({ "etag": "x" }),
        json!({ "uuid": 7 }),
        json!({ "uuid": ["contains", "-"] }),
        json!({ "uuid": { "a": "b" } }),
        json!({ "scopes": "all" }),
        json!({ "user_id": u64::MAX }),
    ] {
        let said = three.refused("where", &wrong.to_string()).await;
        assert!(said.starts_with("where "), "{wrong} {said}");
    }
}

async fn items_stand_in_the_order_that_is_asked_for(engine: Engine) {
    let three = Three::made(engine).await;
    for (order, expected) in [
        (json!(null), "cba"),
        (json!(""), "cba"),
        (json!([]), "cba"),
        (json!("created_at"), "abc"),
        (json!("created_at asc"), "abc"),
        (json!("created_at desc"), "cba"),
        (json!("  created_at   ASC  "), "abc"),
        (json!(["created_at asc", "uuid asc"]), "abc"),
        (json!(["created_at DESC"]), "cba"),
        // What is unset is last, and first the other way round.
        (json!("api_client_id"), "bca"),
        (json!(["api_client_id desc"]), "acb"),
        (json!(["expires_at desc"]), "acb"),
        // Equal ones: by what follows, or the newest first.
        (json!("owner_uuid, created_at"), "abc"),
        (json!(["owner_uuid", "created_at"]), "abc"),
        (json!("owner_uuid desc"), "cba"),
    ] {
        three.assert_listed("order", &order, expected).await;
    }
}

async fn what_is_wrong_with_a_parameter_is_said_by_its_name(engine: Engine) {
    let three = Three::made(engine).await;
    for (name, values) in [
        ("limit", &["-1", "x", "1.5", "+1", "1e2", " 1", "0x1", "[1]"][..]),
        ("offset", &["-1", "x", "1.5", "+1", "1e2", "1000001", "99999999999999999999"]),
        ("count", &["some", "0", "true", "EXACT", "[]"]),
        ("distinct", &["perhaps", "2", "[]"]),
        (
            "order",
            &[
                "unknown",
                "uuid sideways",
                "uuid asc desc",
                "etag",
                "api_token",
                "[1]",
                "[\"x\"]",
                "[[\"uuid\"]]",
            ],
        ),
        ("select", &["uuid", "[\"x\"]", "[1]", "{}", "7", "[[\"uuid\"]]"]),
        ("cluster_id", &["aaaaa", "x"]),
    ] {
        for value in values {
            let said = three.refused(name, value).await;
            assert!(said.starts_with(name), "{name}={value} {said}");
        }
    }
    for wrong in [
        json!({ "limit": -1 }),
        json!({ "limit": 1.5 }),
        json!({ "limit": true }),
        json!({ "offset": [] }),
        json!({ "count": 0 }),
        json!({ "distinct": "x" }),
        json!({ "order": { "uuid": "asc" } }),
        json!({ "select": 7 }),
    ] {
        let answered = three.world.send("GET", &[JSON], &wrong.to_string()).await;
        assert_eq!(answered.status, 422, "{wrong} {answered:?}");
        assert!(error(&answered).starts_with(names(&wrong)[0]), "{wrong} {answered:?}");
    }
    // Null is as if it were not there, also by its name.
    let by_name = "count=null&order=null&select=null&filters=null&where=null&cluster_id=null";
    let listed = three.world.ok(&format!("GET ?{by_name}"), &Value::Null).await;
    assert_eq!(three.letters(&listed), "cba");
    let nulls = ["limit", "offset", "count", "order", "select", "distinct", "filters", "where"];
    let nulls: Value = nulls.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
    assert_eq!(three.letters(&three.world.ok("GET", &nulls).await), "cba");
}
