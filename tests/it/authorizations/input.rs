use super::*;
use crate::support::{
    on_both_stores,
    server::{unknown_token, wrong_fields},
};

on_both_stores![
    scopes_are_short_plain_few_and_hold_no_token,
    creation_is_well_formed,
    all_that_is_wrong_with_a_request_is_said_at_once,
    any_text_in_a_list_gets_an_answer_and_never_a_fault,
];

/// Scopes that no token may have, and the fields that the refusals name.
fn wrong_scopes() -> Vec<(&'static [&'static str], Vec<String>)> {
    let second = |entry: &str| texts(&["GET /a", entry]);
    let mut wrong: Vec<(&[_], _)> = vec![
        (&["scopes.values[100]"], vec!["GET /a".to_owned(); 101]),
        (&["scopes.values[1]"], second(&"x".repeat(257))),
        (&["scopes.values[1]"], second(&"é".repeat(129))),
        (&["scopes.values[1]"], second(&format!("GET /{}", unknown_token()))),
        (&["scopes.values[1]"], second(&format!("GET /v2/{UNKNOWN}/{}", "0".repeat(50)))),
        (&["scopes.values[1]"], second(&"z".repeat(50))),
    ];
    for control in ["\0", "GET /\0a", "GET /a\n", "GET\t/a", "GET /\u{7f}", "GET /\u{85}"] {
        wrong.push((&["scopes.values[1]"], second(control)));
    }
    wrong
}

async fn scopes_are_short_plain_few_and_hold_no_token(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = chief(&server, "chief").await;
    let made = chief.by.create(Create::default()).await.unwrap();
    let kept = server.kept().await;
    for (fields, values) in wrong_scopes() {
        let shown = format!("{values:?}");
        let scopes = Some(ScopeList { values });
        let create = Create { scopes: scopes.clone(), ..Default::default() };
        assert_eq!(wrong_fields(chief.by.create(create).await), fields, "{shown}");
        let create = CreateSystem { scopes: scopes.clone(), ..Default::default() };
        assert_eq!(wrong_fields(chief.by.create_system(create).await), fields, "{shown}");
        let update = Update { scopes, ..change(made.uuid()) };
        assert_eq!(wrong_fields(chief.by.update(update).await), fields, "{shown}");
    }
    assert_eq!(server.kept().await, kept, "nothing is kept of what is refused");
    for values in [
        vec!["GET /a".to_owned(); 100],
        vec!["x".repeat(256)],
        texts(&["GET /é/日本語", "", "nonsense", " "]),
        texts(&["[\"GET\",\"/path\"]", "' OR 1=1 --", "%", "\\", "\"", "{}", ","]),
    ] {
        let scopes = Some(ScopeList { values });
        let create = Create { scopes: scopes.clone(), ..Default::default() };
        let made = chief.by.create(create).await.unwrap();
        assert_eq!(chief.by.get(made.uuid()).await.unwrap().scopes, scopes);
        let entries = scopes.map(|scopes| scopes.values);
        let filters = vec![filter("scopes", "=", json!(entries))];
        let found = chief.by.list(List { filters, ..Default::default() }).await.unwrap();
        assert_eq!(found.items[0].uuid, made.uuid);
    }
}

async fn creation_is_well_formed(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = chief(&server, "chief").await;
    let end = |seconds, nanos| Create {
        expires_at: Some(Timestamp { seconds, nanos }),
        ..Default::default()
    };
    let owned = |owner: &str| Create { owner_uuid: Some(owner.to_owned()), ..Default::default() };
    let kept = server.kept().await;
    for (field, request) in [
        ("expires_at", end(253_402_300_800, 0)),
        ("expires_at", end(i64::MAX, 0)),
        ("expires_at", end(i64::MIN, 0)),
        ("expires_at", end(0, -1)),
        ("expires_at", end(0, 1_000_000_000)),
        ("owner_uuid", owned("")),
        ("owner_uuid", owned("handle:")),
        ("owner_uuid", owned("handle:a\0b")),
        ("owner_uuid", owned("external:")),
        ("owner_uuid", owned("external:a\0b")),
        ("owner_uuid", owned(&unknown_token())),
        ("select[0]", Create { select: texts(&["a\0b"]), ..Default::default() }),
        ("select[0]", Create { select: texts(&[""]), ..Default::default() }),
        ("select[0]", Create { select: texts(&["UUID"]), ..Default::default() }),
    ] {
        let shown = format!("{request:?}");
        assert_eq!(wrong_fields(chief.by.create(request).await), [field], "{shown}");
    }
    for expires_at in [(i64::MAX, 0), (0, -1), (253_402_300_800, 0)] {
        let (seconds, nanos) = expires_at;
        let expires_at = Some(Timestamp { seconds, nanos });
        let request = Update { expires_at, ..change(chief.uuid()) };
        assert_eq!(wrong_fields(chief.by.update(request).await), ["expires_at"]);
    }
    assert_eq!(server.kept().await, kept, "nothing is kept of what is refused");
    let last = end(253_402_300_799, 999_999_000);
    assert_eq!(chief.by.create(last.clone()).await.unwrap().expires_at, last.expires_at);
}

async fn all_that_is_wrong_with_a_request_is_said_at_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = chief(&server, "chief").await;
    let request = Create {
        owner_uuid: Some("handle:".to_owned()),
        scopes: scopes(&["\0"]),
        expires_at: Some(Timestamp { seconds: 0, nanos: -1 }),
        select: texts(&["uuid", "nonsense"]),
        ..Default::default()
    };
    let mut wrong = wrong_fields(chief.by.create(request).await);
    wrong.sort();
    assert_eq!(wrong, ["expires_at", "owner_uuid", "scopes.values[0]", "select[1]"]);
    let request = List {
        filters: vec![filter("uuid", "=", json!("x"))],
        select: texts(&["nonsense"]),
        order: texts(&["nonsense"]),
        limit: Some(-1),
        offset: -1,
        ..Default::default()
    };
    let mut wrong = wrong_fields(chief.by.list(request).await);
    wrong.sort();
    assert_eq!(wrong, ["limit", "offset", "order[0]", "select[0]"]);
}

async fn any_text_in_a_list_gets_an_answer_and_never_a_fault(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = chief(&server, "chief").await;
    let kept = server.kept().await;
    // What a request can hold of them: 64 KiB.
    let long = "x".repeat(50_000);
    let many: Vec<_> = (0..1_500).map(|n| format!("zzzzz-gj3su-{n:015}")).collect();
    let mut operands = vec![json!(many), json!([]), json!(vec![chief.uuid(); 1_000])];
    for text in [
        "",
        "\0",
        "a\0b",
        "\\",
        "%\\",
        "'",
        "\"",
        "\u{202e}",
        "é日本語🚀",
        "%_%_%_%_%_%_%_%_%b",
        &*long,
    ] {
        operands.extend([json!(text), json!([text]), json!([text, null]), json!([[text]])]);
    }
    operands.extend([
        json!("%".repeat(10_000)),
        json!(9_007_199_254_740_993_u64),
        json!(-9_223_372_036_854_775_808_i64),
        json!(9_223_372_036_854_775_807_u64),
        json!("0001-01-01T00:00:00Z"),
        json!("9999-12-31T23:59:59.999999Z"),
        json!("9999-12-31T23:59:59-23:59"),
    ]);
    for attribute in ["uuid", "owner_uuid", "api_token", "scopes", "expires_at", "user_id", "any"] {
        for operator in ["=", "!=", "<", ">=", "like", "ilike", "in", "not in", "is_a"] {
            for operand in &operands {
                let filters = vec![filter(attribute, operator, operand.clone())];
                let answer = chief.by.list(List { filters, ..Default::default() }).await;
                if let Err(status) = answer {
                    let shown: String = operand.to_string().chars().take(80).collect();
                    let what = format!("{attribute} {operator} {shown}: {status}");
                    assert_eq!(status.code(), Code::InvalidArgument, "{what}");
                    assert!(!wrong_fields(Err::<(), _>(status)).is_empty(), "{what}");
                }
            }
        }
    }
    let filters = vec![filter("uuid", "!=", json!("x")); 1_000];
    let answer = chief.by.list(List { filters, ..Default::default() }).await;
    match answer {
        Ok(told) => assert_eq!(told.items.len(), 1),
        Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{status}"),
    }
    assert_eq!(server.kept().await, kept);
    assert_eq!(chief.by.uuids().await, [chief.uuid()]);
}
