use proptest::{collection, prelude::*, sample::select};
use token_authority::domain::{route_allowed, routes_cover};

use super::*;
use crate::support::{
    on_both_stores,
    server::{unknown_token, wrong_fields},
};

on_both_stores![
    request_is_allowed_by_the_rule_of_arvados,
    required_scopes_are_met_only_by_all,
    method_and_path_are_judged_together_or_not_at_all,
    personal_access_token_meets_method_and_path_only_with_scopes_beside_them,
    each_method_needs_a_scope_that_admits_its_path,
    other_services_follow_the_same_rule,
    without_scopes_a_token_sees_and_deletes_itself_and_no_more,
];

const COLLECTIONS: &str = "/arvados/v1/collections";
const CURRENT: &str = "/arvados/v1/api_client_authorizations/current";

/// A token with these scopes, and what Verify says of it for these requests.
async fn judged(
    server: &TestServer,
    alice: &Person,
    entries: &[&str],
    requests: &[(&str, &str)],
    expected: bool,
) {
    let request = Create { scopes: scopes(entries), ..Default::default() };
    let made = alice.by.create(request).await.unwrap();
    for (method, path) in requests {
        let told = ask(server, question(&v2(&made), method, path)).await;
        assert_eq!(told.active, expected, "{entries:?} {method} {path}");
        if expected {
            assert_eq!(told.scopes, entries);
        } else {
            assert_eq!(told.reason(), Reason::InsufficientScope);
            let refusal = told.refusal.unwrap();
            assert_eq!(
                (refusal.token_id, refusal.missing_scopes),
                (made.uuid.clone().unwrap(), vec![])
            );
        }
    }
}

fn question(token: &str, method: &str, path: &str) -> VerifyRequest {
    VerifyRequest {
        token: token.to_owned(),
        request_method: Some(method.to_owned()),
        request_path: Some(path.to_owned()),
        ..Default::default()
    }
}

async fn request_is_allowed_by_the_rule_of_arvados(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let exact = format!("GET {COLLECTIONS}");
    let below = format!("GET {COLLECTIONS}/");
    let create = format!("POST {COLLECTIONS}");
    let record = &*format!("{COLLECTIONS}/zzzzz-4zz18-0123456789abcde");
    let slashed = &*format!("{COLLECTIONS}/");
    let slashes = &*format!("{COLLECTIONS}//");
    let longer = &*format!("{COLLECTIONS}_more");
    type Requests<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&[&str], Requests<'_>, Requests<'_>); 12] = [
        (&["all"], &[("GET", COLLECTIONS), ("DELETE", record), ("X", "/"), ("PUT", "/")], &[]),
        // It lists and reads no record.
        (
            &[&exact],
            &[("GET", COLLECTIONS), ("GET", slashed), ("GET", slashes), ("HEAD", COLLECTIONS)],
            &[("GET", record), ("GET", longer), ("POST", COLLECTIONS), ("GET", "/arvados/v1")],
        ),
        // It reads records and does not list, however many slashes are at the end.
        (
            &[&below],
            &[("GET", record), ("HEAD", record)],
            &[("GET", COLLECTIONS), ("GET", slashed), ("GET", slashes), ("GET", longer)],
        ),
        (
            &[&exact, &below],
            &[("GET", COLLECTIONS), ("GET", record), ("HEAD", slashed)],
            &[("PUT", record), ("DELETE", record)],
        ),
        (&["GET /"], &[("GET", COLLECTIONS), ("HEAD", record)], &[("POST", COLLECTIONS)]),
        (&[&create], &[("POST", COLLECTIONS)], &[("POST", record), ("GET", COLLECTIONS)]),
        (&["HEAD /a"], &[("HEAD", "/a")], &[("GET", "/a")]),
        (
            &["get /a", "GET /B", "All", "ALL", " all", "all "],
            &[],
            &[("GET", "/a"), ("GET", "/b"), ("POST", "/b")],
        ),
        (&["", "GET", "GET ", "/", " ", "/a", "*", "GET *"], &[], &[("GET", "/a"), ("G", "/a/b")]),
        (&["PUT /a", "PATCH /b/"], &[("PUT", "/a"), ("PATCH", "/b/c")], &[("POST", "/b/c")]),
        (&["GET /a b/"], &[("GET", "/a b/c")], &[("GET", "/a%20b/c")]),
        (&[], &[], &[("GET", "/"), ("GET", COLLECTIONS), ("POST", CURRENT), ("HEAD", CURRENT)]),
    ];
    for (entries, allowed, refused) in cases {
        judged(&server, &alice, entries, allowed, true).await;
        judged(&server, &alice, entries, refused, false).await;
        // Whatever its scopes, it may be asked what it is.
        judged(&server, &alice, entries, &[("GET", CURRENT)], true).await;
    }
}

async fn required_scopes_are_met_only_by_all(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let limited = server.authorization_of(&alice.id, Some(&["GET /", "POST /"])).await;
    let required = texts(&["read:notes", "write:tokens"]);
    let request = VerifyRequest { required_scopes: required.clone(), ..Default::default() };
    let of = |text: String| VerifyRequest { token: text, ..request.clone() };
    assert!(ask(&server, of(alice.text())).await.active);
    let told = ask(&server, of(v2(&limited))).await;
    assert_eq!(told.reason(), Reason::InsufficientScope);
    assert_eq!(told.refusal.unwrap().missing_scopes, required);
    // Both are asked of it, and both must be met.
    let both = |text: String| VerifyRequest {
        required_scopes: texts(&["read:notes"]),
        ..question(&text, "GET", "/a")
    };
    assert!(ask(&server, both(alice.text())).await.active);
    let told = ask(&server, both(v2(&limited))).await;
    assert_eq!(told.refusal.unwrap().missing_scopes, ["read:notes"]);
}

async fn method_and_path_are_judged_together_or_not_at_all(engine: Engine) {
    let server = TestServer::start(engine).await;
    let limited = server.authorization_of("handle:admin", Some(&["GET /a"])).await;
    for token in [v2(&limited), server.admin.clone(), unknown_token()] {
        let both = question(&token, "GET", "/a");
        let method = VerifyRequest { request_path: None, ..both.clone() };
        let path = VerifyRequest { request_method: None, ..both };
        for (request, missing) in [(method, "request_path"), (path, "request_method")] {
            let answer = server.verification(&server.admin).verify(request).await;
            assert_eq!(wrong_fields(answer), [missing]);
        }
    }
    let neither = VerifyRequest { token: v2(&limited), ..Default::default() };
    assert!(ask(&server, neither).await.active, "the caller judges");
}

async fn personal_access_token_meets_method_and_path_only_with_scopes_beside_them(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    for (held, required, expected) in [
        (&["admin:all"][..], &[][..], false),
        (&["read:notes"], &[], false),
        (&["read:notes"], &["read:notes"], true),
        (&["read:notes"], &["write:notes"], false),
    ] {
        let token = server.text_of(&user.id, held).await;
        let request = VerifyRequest {
            required_scopes: texts(required),
            ..question(&token, "GET", "/arvados/v1/users")
        };
        assert_eq!(ask(&server, request).await.active, expected, "{held:?} {required:?}");
    }
}

async fn each_method_needs_a_scope_that_admits_its_path(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = chief(&server, "chief").await;
    // What comes of every method, called with a token that has one scope alone.
    let play = async |entry: &str| {
        let target = server.authorization_of(&chief.id, Some(&[])).await;
        let token = server.authorization_of(&chief.id, Some(&[entry])).await;
        let by = holder(&server, &v2(&token));
        by.current().await.unwrap();
        by.each_method(target.uuid()).await
    };
    for own in METHODS {
        for (answer, method) in play(&route(own)).await.into_iter().zip(METHODS) {
            if method == own {
                answer.unwrap();
            } else {
                assert_refused(answer, &denied("CALLER_SCOPE"), &format!("{own}: {method}"));
            }
        }
    }
    for entry in ["all", "POST /", "POST /token_authority.v1.ApiClientAuthorizations/"] {
        for answer in play(entry).await {
            answer.unwrap();
        }
    }
    for entry in [
        "POST /token_authority.v1.ApiClientAuthorizations",
        "POST /token_authority.v1.",
        "POST /token_authority.v1/",
        "POST token_authority.v1.ApiClientAuthorizations/",
        "post /token_authority.v1.ApiClientAuthorizations/",
        "GET /",
        "GET /token_authority.v1.ApiClientAuthorizations/",
        "PUT /token_authority.v1.ApiClientAuthorizations/",
        "POST /arvados/v1/api_client_authorizations",
        "POST /arvados/v1/",
        "ALL",
        "*",
        "POST",
        "",
    ] {
        for (answer, method) in play(entry).await.into_iter().zip(METHODS) {
            assert_refused(answer, &denied("CALLER_SCOPE"), &format!("{entry}: {method}"));
        }
    }
    // Without the slash that would make it a beginning, a path admits itself alone.
    let entry = route("CreateApiClientAuthorization/");
    for (answer, method) in play(&entry).await.into_iter().zip(METHODS) {
        assert_refused(answer, &denied("CALLER_SCOPE"), &format!("{entry}: {method}"));
    }
}

async fn other_services_follow_the_same_rule(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let path = "/token_authority.v1.PersonalAccessTokens/ListPersonalAccessTokens";
    for (entry, is_allowed) in [
        ("all", true),
        ("POST /token_authority.v1.PersonalAccessTokens/ListPersonalAccessTokens", true),
        ("POST /token_authority.v1.PersonalAccessTokens/", true),
        ("POST /", true),
        ("POST /token_authority.v1.PersonalAccessTokens", false),
        ("POST /token_authority.v1.ApiClientAuthorizations/", false),
        ("GET /", false),
    ] {
        let token = server.authorization_of(&alice.id, Some(&[entry])).await;
        let answer = server.call(path, Some(&v2(&token))).await;
        if is_allowed {
            answer.unwrap();
        } else {
            assert_refused(answer, &denied("CALLER_SCOPE"), entry);
        }
    }
}

async fn without_scopes_a_token_sees_and_deletes_itself_and_no_more(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = chief(&server, "chief").await;
    let token = server.authorization_of(&chief.id, Some(&[])).await;
    let by = holder(&server, &v2(&token));
    for (answer, method) in by.each_method(chief.uuid()).await.into_iter().zip(METHODS) {
        assert_refused(answer, &denied("CALLER_SCOPE"), method);
    }
    assert_eq!(refused(by.get(token.uuid()).await), denied("CALLER_SCOPE"));
    assert_eq!(refused(by.update(change(token.uuid())).await), denied("CALLER_SCOPE"));
    assert_eq!(by.current().await.unwrap().uuid, token.uuid);
    assert_eq!(who(&server, &v2(&token)).await.unwrap().token_id, token.uuid());
    by.delete(token.uuid()).await.unwrap();
    assert_eq!(refused(by.current().await), unauthenticated());
}

/// Whether `entries` allow a request: SEEDS 3.5 again, read by another.
fn allowed_by_the_letter(entries: &[String], method: &str, path: &str) -> bool {
    let mut path: Vec<char> = path.chars().collect();
    while path.last() == Some(&'/') {
        path.pop();
    }
    let path: String = path.into_iter().collect();
    let methods = if method == "HEAD" { vec!["HEAD", "GET"] } else { vec![method] };
    for method in methods {
        let request: Vec<u8> = [method.as_bytes(), b" ", path.as_bytes()].concat();
        for entry in entries.iter().map(String::as_bytes) {
            let is_beginning = entry.last() == Some(&b'/')
                && entry.len() <= request.len()
                && (0..entry.len()).all(|at| entry[at] == request[at]);
            if entry == b"all" || entry == request || is_beginning {
                return true;
            }
        }
    }
    method == "GET" && path == "/arvados/v1/api_client_authorizations/current"
}

fn method() -> impl Strategy<Value = String> {
    select(vec!["GET", "HEAD", "POST", "get", "GE"]).prop_map(ToOwned::to_owned)
}

fn path() -> impl Strategy<Value = String> {
    let segment = select(vec!["a", "b", "A", "ab", ""]);
    let slashes = select(vec!["", "", "/", "//"]);
    prop_oneof![
        8 => (collection::vec(segment, 0..4), slashes)
            .prop_map(|(segments, slashes)| format!("/{}{slashes}", segments.join("/"))),
        1 => select(vec![CURRENT, "/arvados/v1/api_client_authorizations/current/", "/arvados/", ""])
            .prop_map(ToOwned::to_owned),
    ]
}

fn entry() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => (method(), path()).prop_map(|(method, path)| format!("{method} {path}")),
        1 => select(vec!["all", "ALL", "", "/", "GET", "GET ", "HEAD", "a", "GET  /"])
            .prop_map(ToOwned::to_owned),
        1 => "[GETHADal /]{0,6}",
    ]
}

fn entries() -> impl Strategy<Value = Vec<String>> {
    collection::vec(entry(), 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rule_of_scopes_is_what_another_reader_of_it_makes_of_it(
        entries in entries(),
        method in method(),
        path in path(),
    ) {
        prop_assert_eq!(
            route_allowed(&entries, &method, &path),
            allowed_by_the_letter(&entries, &method, &path)
        );
    }

    #[test]
    fn who_is_covered_can_do_nothing_that_who_covers_can_not(
        held in entries(),
        wanted in entries(),
        requests in collection::vec((method(), path()), 64),
    ) {
        if routes_cover(&held, &wanted) {
            // Those that `wanted` is about, and any.
            let about = wanted.iter().filter_map(|entry| entry.split_once(' '));
            let about = about.flat_map(|(method, path)| {
                [path.to_owned(), format!("{path}a"), format!("{path}/a"), format!("{path}b/")]
                    .map(|path| (method.to_owned(), path))
            });
            for (method, path) in requests.into_iter().chain(about) {
                for method in [&*method, "HEAD"] {
                    prop_assert!(
                        !allowed_by_the_letter(&wanted, method, &path)
                            || allowed_by_the_letter(&held, method, &path),
                        "{method} {path}"
                    );
                }
            }
        }
    }

    #[test]
    fn scopes_cover_themselves_and_any_of_theirs_and_all_covers_every_one(
        entries in entries(),
        at in any::<proptest::sample::Index>(),
    ) {
        prop_assert!(routes_cover(&entries, &entries));
        prop_assert!(routes_cover(&["all".to_owned()], &entries));
        prop_assert!(routes_cover(&entries, &[]));
        if !entries.is_empty() {
            prop_assert!(routes_cover(&entries, &[at.get(&entries).clone()]));
        }
        let holds_all = entries.iter().any(|entry| entry == "all");
        prop_assert_eq!(routes_cover(&entries, &["all".to_owned()]), holds_all);
    }

    #[test]
    fn what_begins_with_an_entry_that_ends_in_a_slash_is_covered_by_it(
        method in method(),
        path in "(/[ab]{1,2}){0,2}/",
        below in "[ab/]{0,4}",
    ) {
        let held = [format!("{method} {path}")];
        let same = [format!("{method} {path}{below}")];
        prop_assert!(routes_cover(&held, &same));
        if method == "GET" {
            let head = [format!("HEAD {path}{below}")];
            prop_assert!(routes_cover(&held, &head));
        }
    }
}
