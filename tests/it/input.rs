use std::fmt::Debug;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use prost_types::{Duration, FieldMask, ListValue, Struct, Timestamp, Value, value};
use token_authority::proto::v1::{
    Consistency, CreateApiClientAuthorizationRequest, CreatePersonalAccessTokenRequest,
    CreateSystemAuthRequest, CreateUserRequest, DeleteApiClientAuthorizationRequest, Filter,
    GetApiClientAuthorizationRequest, GetCurrentApiClientAuthorizationRequest,
    GetPersonalAccessTokenRequest, GetUserRequest, ListApiClientAuthorizationsRequest,
    ListPersonalAccessTokensRequest, ListUsersRequest, RevokePersonalAccessTokenRequest, ScopeList,
    UpdateApiClientAuthorizationRequest, UpdatePersonalAccessTokenRequest, UpdateUserRequest,
    VerifyRequest, consistency::Requirement, create_personal_access_token_request::Expiry,
};
use tonic::{Code, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, unknown_token, wrong_fields},
};

on_both_stores![
    names_and_descriptions_of_tokens_are_short_and_plain,
    scopes_are_well_formed_known_and_at_most_100,
    end_of_a_token_is_an_instant_in_the_future,
    networks_are_well_formed_and_at_most_100,
    what_a_token_is_made_for_is_named_as_it_is,
    all_that_is_wrong_with_a_request_is_said_at_once,
    token_to_be_read_or_changed_is_named_and_the_mask_names_what_can_change,
    pages_have_a_size_and_a_token_that_was_given,
    question_about_a_token_is_well_formed,
    consistency_is_well_formed,
    authorization_is_made_for_what_is_named_as_it_is,
    scopes_of_an_authorization_are_at_most_100_and_hold_no_token,
    authorization_to_be_read_or_changed_is_named_and_the_mask_names_what_can_change,
    list_of_authorizations_is_asked_for_in_its_language,
    all_that_is_wrong_with_a_list_of_authorizations_is_said_at_once,
    user_has_a_handle_of_letters_and_short_plain_names,
    user_to_be_read_or_changed_is_named_in_one_of_three_ways,
    any_text_in_any_field_gets_an_answer_and_never_a_fault,
    any_list_of_authorizations_gets_an_answer_and_never_a_fault,
];

/// Requests of one RPC that are wrong, and the fields that the refusals name.
type Wrong<T> = Vec<(&'static [&'static str], T)>;

/// What no text that people write may hold.
const NOT_PLAIN: [&str; 8] =
    ["a\0b", "a\nb", "a\tb", "a\u{7f}b", "a\u{85}b", "a\u{202e}b", "a\u{2066}b", "\u{200f}"];

/// Expects each request to be refused for its fields, and nothing to be kept of it.
macro_rules! refuses {
    ($server:ident.$client:ident.$method:ident($wrong:expr)) => {{
        let kept = $server.kept().await;
        for (fields, request) in $wrong {
            let shown = shortened(&request);
            let answer = $server.$client(&$server.admin).$method(request).await;
            assert_eq!(wrong_fields(answer), fields, "{shown}");
        }
        assert_eq!($server.kept().await, kept, "nothing is kept of what is refused");
    }};
}

fn shortened(request: &impl Debug) -> String {
    format!("{request:?}").chars().take(300).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// A request with which nothing is wrong.
fn good() -> CreatePersonalAccessTokenRequest {
    CreatePersonalAccessTokenRequest { name: "x".to_owned(), ..Default::default() }
}

async fn names_and_descriptions_of_tokens_are_short_and_plain(engine: Engine) {
    let server = TestServer::start(engine).await;
    let named = |name: &str| CreatePersonalAccessTokenRequest { name: name.to_owned(), ..good() };
    let described = |description: &str| CreatePersonalAccessTokenRequest {
        description: Some(description.to_owned()),
        ..good()
    };
    let mut wrong: Wrong<_> = Vec::new();
    for name in ["", " ", "\u{3000}", &"é".repeat(101)].into_iter().chain(NOT_PLAIN) {
        wrong.push((&["name"], named(name)));
    }
    for description in [&*"é".repeat(1_001)].into_iter().chain(NOT_PLAIN) {
        wrong.push((&["description"], described(description)));
    }
    let updates: Wrong<_> = wrong
        .iter()
        .map(|(fields, CreatePersonalAccessTokenRequest { name, description, .. })| {
            let (name, description) = (Some(name.clone()), description.clone());
            let id = "x".to_owned();
            (*fields, UpdatePersonalAccessTokenRequest { id, name, description, update_mask: None })
        })
        .collect();
    refuses!(server.tokens.create_personal_access_token(wrong));
    refuses!(server.tokens.update_personal_access_token(updates));
    for good in [named(&"é".repeat(100)), described(&"é".repeat(1_000)), described("")] {
        server.tokens(&server.admin).create_personal_access_token(good).await.unwrap();
    }
}

async fn scopes_are_well_formed_known_and_at_most_100(engine: Engine) {
    let server = TestServer::start(engine).await;
    let scoped =
        |scopes: &[&str]| CreatePersonalAccessTokenRequest { scopes: texts(scopes), ..good() };
    let numbered = |count: usize| {
        let scopes = (0..count).map(|n| format!("read:{n}")).collect();
        CreatePersonalAccessTokenRequest { scopes, ..good() }
    };
    let long = format!("read:{}", "a".repeat(96));
    let mut wrong: Wrong<_> = vec![
        (&["scopes[1]", "scopes[3]"], scoped(&["read:a", "read", "write:a", "Read:a"])),
        (&["scopes[100]"], numbered(101)),
        (&["scopes"], scoped(&["read:a", "other:a"])),
        (&["scopes"], scoped(&["*:a"])),
        (&["scopes"], scoped(&["admin:everything"])),
    ];
    for malformed in ["", ":", "read:", ":a", "read:a b", "re*:a", "read:a:b", "read:\0", &long] {
        wrong.push((&["scopes[0]"], scoped(&[malformed])));
    }
    refuses!(server.tokens.create_personal_access_token(wrong));
    let mut twice = numbered(100);
    twice.scopes.push("read:0".to_owned());
    server.tokens(&server.admin).create_personal_access_token(twice).await.unwrap();
}

async fn end_of_a_token_is_an_instant_in_the_future(engine: Engine) {
    let server = TestServer::start(engine).await;
    let now = server.after(std::time::Duration::ZERO);
    let at = |seconds, nanos| CreatePersonalAccessTokenRequest {
        expiry: Some(Expiry::ExpiresAt(Timestamp { seconds, nanos })),
        ..good()
    };
    let after = |seconds, nanos| CreatePersonalAccessTokenRequest {
        expiry: Some(Expiry::Ttl(Duration { seconds, nanos })),
        ..good()
    };
    let wrong: Wrong<_> = vec![
        (&["expires_at"], at(now.seconds, now.nanos)),
        (&["expires_at"], at(now.seconds, now.nanos + 999)),
        (&["expires_at"], at(now.seconds - 1, 0)),
        (&["expires_at"], at(0, 0)),
        (&["expires_at"], at(now.seconds + 60, -1)),
        (&["expires_at"], at(now.seconds + 60, 1_000_000_000)),
        (&["expires_at"], at(253_402_300_800, 0)),
        (&["expires_at"], at(i64::MAX, 0)),
        (&["expires_at"], at(i64::MIN, 0)),
        (&["ttl"], after(0, 0)),
        (&["ttl"], after(0, 999)),
        (&["ttl"], after(-1, 0)),
        (&["ttl"], after(0, -1)),
        (&["ttl"], after(1, -1)),
        (&["ttl"], after(1, 1_000_000_000)),
        (&["ttl"], after(i64::MIN, 0)),
    ];
    refuses!(server.tokens.create_personal_access_token(wrong));
    let last = at(253_402_300_799, 999_999_999);
    for good in [at(now.seconds, now.nanos + 1_000), after(0, 1_000), last, after(i64::MAX, 0)] {
        server.tokens(&server.admin).create_personal_access_token(good).await.unwrap();
    }
}

async fn networks_are_well_formed_and_at_most_100(engine: Engine) {
    let server = TestServer::start(engine).await;
    let from = |networks: &[&str]| CreatePersonalAccessTokenRequest {
        allowed_ips: texts(networks),
        ..good()
    };
    let numbered = |count: u8| {
        let allowed_ips = (0..count).map(|n| format!("10.0.0.{n}")).collect();
        CreatePersonalAccessTokenRequest { allowed_ips, ..good() }
    };
    let mut wrong: Wrong<_> = vec![
        (&["allowed_ips[100]"], numbered(101)),
        (&["allowed_ips[0]", "allowed_ips[2]"], from(&["x", "10.0.0.0/8", "10.0.0.0/33"])),
    ];
    for malformed in ["", " ", "10.0.0", "::/129", "localhost", "10.0.0.1:80", "10.0.0.0/-1", "\0"]
    {
        wrong.push((&["allowed_ips[1]"], from(&["::1", malformed])));
    }
    refuses!(server.tokens.create_personal_access_token(wrong));
    server.tokens(&server.admin).create_personal_access_token(numbered(100)).await.unwrap();
}

async fn what_a_token_is_made_for_is_named_as_it_is(engine: Engine) {
    let server = TestServer::start(engine).await;
    let repeated =
        |id: &str| CreatePersonalAccessTokenRequest { request_id: Some(id.to_owned()), ..good() };
    let of =
        |user: &str| CreatePersonalAccessTokenRequest { user_id: Some(user.to_owned()), ..good() };
    let within = |workspace: &str| CreatePersonalAccessTokenRequest {
        workspace_id: Some(workspace.to_owned()),
        ..good()
    };
    let mut wrong: Wrong<_> = Vec::new();
    for id in ["", "again", "00000000-0000-0000-0000-000000000000", "0198c0de-0000-7000-8000"] {
        wrong.push((&["request_id"], repeated(id)));
    }
    for user in
        ["", "alice", "handle:", "handle:Alice", "external:", "external:a\0b", "zzzzz-tpzed-1"]
    {
        wrong.push((&["user_id"], of(user)));
    }
    for workspace in ["", "a\0b", &"x".repeat(65)] {
        wrong.push((&["workspace_id"], within(workspace)));
    }
    refuses!(server.tokens.create_personal_access_token(wrong));
}

async fn all_that_is_wrong_with_a_request_is_said_at_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let token = CreatePersonalAccessTokenRequest {
        name: String::new(),
        description: Some("\0".to_owned()),
        scopes: texts(&["read:a", "x", "y"]),
        workspace_id: Some(String::new()),
        expiry: Some(Expiry::Ttl(Duration { seconds: -1, nanos: 0 })),
        allowed_ips: texts(&["x"]),
        request_id: Some("x".to_owned()),
        user_id: Some("x".to_owned()),
    };
    let wrong: Wrong<_> = vec![(
        &[
            "name",
            "description",
            "scopes[1]",
            "scopes[2]",
            "allowed_ips[0]",
            "ttl",
            "request_id",
            "user_id",
            "workspace_id",
        ],
        token,
    )];
    refuses!(server.tokens.create_personal_access_token(wrong));
    // They travel in a header, so there is an end to them.
    let scopes = vec!["x".to_owned(); 100];
    let request = CreatePersonalAccessTokenRequest { scopes, ..good() };
    let answer = server.tokens(&server.admin).create_personal_access_token(request).await;
    assert_eq!(wrong_fields(answer).len(), 16);
    let user = CreateUserRequest {
        handle: String::new(),
        display_name: Some("\0".to_owned()),
        kind: 9,
        external_id: Some(String::new()),
        ..Default::default()
    };
    let wrong: Wrong<_> = vec![(&["handle", "display_name", "external_id", "kind"], user)];
    refuses!(server.directory.create_user(wrong));
    let question = VerifyRequest {
        token: String::new(),
        required_scopes: texts(&["x"]),
        request_path: Some("/".to_owned()),
        workspace_id: Some(String::new()),
        client_ip: Some("x".to_owned()),
        kinds: vec![9],
        consistency: Some(Consistency {
            requirement: Some(Requirement::MinRevision("x".to_owned())),
            max_stale: Some(Duration { seconds: -1, nanos: 0 }),
        }),
        ..Default::default()
    };
    let answer = server.verification(&server.admin).verify(question).await;
    let mut fields = wrong_fields(answer);
    fields.sort();
    let expected = [
        "client_ip",
        "consistency.max_stale",
        "consistency.min_revision",
        "kinds[0]",
        "request_method",
        "required_scopes[0]",
        "token",
        "workspace_id",
    ];
    assert_eq!(fields, expected);
}

async fn token_to_be_read_or_changed_is_named_and_the_mask_names_what_can_change(engine: Engine) {
    let server = TestServer::start(engine).await;
    let wrong: Wrong<_> = vec![(&["id"], GetPersonalAccessTokenRequest::default())];
    refuses!(server.tokens.get_personal_access_token(wrong));
    let wrong: Wrong<_> = vec![(&["id"], RevokePersonalAccessTokenRequest::default())];
    refuses!(server.tokens.revoke_personal_access_token(wrong));
    let masked = |paths: &[&str], name: Option<&str>| UpdatePersonalAccessTokenRequest {
        id: "x".to_owned(),
        name: name.map(ToOwned::to_owned),
        update_mask: Some(FieldMask { paths: texts(paths) }),
        ..Default::default()
    };
    let wrong: Wrong<_> = vec![
        (&["id"], UpdatePersonalAccessTokenRequest::default()),
        (&["update_mask.paths[0]"], masked(&["scopes"], None)),
        (&["update_mask.paths[1]"], masked(&["name", "expires_at"], Some("x"))),
        (&["update_mask.paths[0]"], masked(&["*"], None)),
        (&["update_mask.paths[0]"], masked(&["id"], None)),
        (&["update_mask.paths[0]"], masked(&[""], None)),
        (&["update_mask.paths[0]"], masked(&["Name"], Some("x"))),
        (&["name"], masked(&["name"], None)),
        (&["name"], masked(&["description", "name"], Some(" "))),
    ];
    refuses!(server.tokens.update_personal_access_token(wrong));
    let masked = |path: &str| UpdateUserRequest {
        user: "handle:admin".to_owned(),
        update_mask: Some(FieldMask { paths: texts(&[path]) }),
        ..Default::default()
    };
    let wrong: Wrong<_> = vec![
        (&["update_mask.paths[0]"], masked("id")),
        (&["update_mask.paths[0]"], masked("user")),
        (&["update_mask.paths[0]"], masked("deleted_at")),
    ];
    refuses!(server.directory.update_user(wrong));
}

async fn pages_have_a_size_and_a_token_that_was_given(engine: Engine) {
    let server = TestServer::start(engine).await;
    let first = ListUsersRequest { page_size: 1, ..Default::default() };
    let page = server.directory(&server.admin).list_users(first).await.unwrap().into_inner();
    let mut tokens: Wrong<_> = Vec::new();
    let mut users: Wrong<_> = Vec::new();
    for page_size in [-1, i32::MIN] {
        tokens.push((
            &["page_size"],
            ListPersonalAccessTokensRequest { page_size, ..Default::default() },
        ));
        users.push((&["page_size"], ListUsersRequest { page_size, ..Default::default() }));
    }
    for page_token in ["x", " ", "AAAA", "\0", &"A".repeat(10_000), &page.next_page_token] {
        let page_token = page_token.to_owned();
        let request = ListPersonalAccessTokensRequest { page_token, ..Default::default() };
        tokens.push((&["page_token"], request));
    }
    for page_token in ["x", "AAAA", &page.next_page_token[1..]] {
        let page_token = page_token.to_owned();
        users.push((&["page_token"], ListUsersRequest { page_token, ..Default::default() }));
    }
    let user_id = Some("x".to_owned());
    tokens.push((&["user_id"], ListPersonalAccessTokensRequest { user_id, ..Default::default() }));
    users.push((&["kind"], ListUsersRequest { kind: Some(9), ..Default::default() }));
    refuses!(server.tokens.list_personal_access_tokens(tokens));
    refuses!(server.directory.list_users(users));
}

async fn question_about_a_token_is_well_formed(engine: Engine) {
    let server = TestServer::start(engine).await;
    let good = VerifyRequest { token: unknown_token(), ..Default::default() };
    let routed = |method: Option<&str>, path: Option<&str>| VerifyRequest {
        request_method: method.map(ToOwned::to_owned),
        request_path: path.map(ToOwned::to_owned),
        ..good.clone()
    };
    let scoped =
        |scope: &str| VerifyRequest { required_scopes: texts(&["read:a", scope]), ..good.clone() };
    let from = |ip: &str| VerifyRequest { client_ip: Some(ip.to_owned()), ..good.clone() };
    let within = |workspace: &str| VerifyRequest {
        workspace_id: Some(workspace.to_owned()),
        ..good.clone()
    };
    let mut wrong: Wrong<_> = vec![
        (&["token"], VerifyRequest::default()),
        (&["request_path"], routed(Some("GET"), None)),
        (&["request_method"], routed(None, Some("/"))),
        (&["request_method", "request_path"], routed(Some(""), Some(""))),
        (&["kinds[0]"], VerifyRequest { kinds: vec![0], ..good.clone() }),
        (&["kinds[1]", "kinds[2]"], VerifyRequest { kinds: vec![1, 4, -1], ..good.clone() }),
    ];
    for method in ["get", "GET ", "G\0T", "GÉT", &"A".repeat(33)] {
        wrong.push((&["request_method"], routed(Some(method), Some("/"))));
    }
    for path in ["x", "/a?b=c", "/a#b", "/\0", "/a\nb", &format!("/{}", "a".repeat(8_192))] {
        wrong.push((&["request_path"], routed(Some("GET"), Some(path))));
    }
    for scope in ["", "x", "Read:a", "GET /a", "all"] {
        wrong.push((&["required_scopes[1]"], scoped(scope)));
    }
    for ip in ["", "x", "10.0.0.1:80", "[::1]", "10.0.0.0/8", "10.0.0", "localhost", "\0"] {
        wrong.push((&["client_ip"], from(ip)));
    }
    for workspace in ["", "\0", &"x".repeat(65)] {
        wrong.push((&["workspace_id"], within(workspace)));
    }
    let many = (0..101).map(|n| format!("read:{n}")).collect();
    wrong
        .push((&["required_scopes[100]"], VerifyRequest { required_scopes: many, ..good.clone() }));
    refuses!(server.verification.verify(wrong));
    for good in [routed(Some("PROPFIND"), Some("/é/")), from("::ffff:10.0.0.1"), within("x")] {
        server.verification(&server.admin).verify(good).await.unwrap();
    }
}

async fn consistency_is_well_formed(engine: Engine) {
    let server = TestServer::start(engine).await;
    let asked = |requirement: Option<Requirement>, seconds, nanos| VerifyRequest {
        token: unknown_token(),
        consistency: Some(Consistency {
            requirement,
            max_stale: Some(Duration { seconds, nanos }),
        }),
        ..Default::default()
    };
    let revision = |text: &str| Some(Requirement::MinRevision(text.to_owned()));
    let (stale, garbage) = (&["consistency.max_stale"], &["consistency.min_revision"]);
    let wrong: Wrong<_> = vec![
        (stale, asked(None, -1, 0)),
        (stale, asked(None, 0, -1)),
        (stale, asked(None, 0, 1_000_000_000)),
        (stale, asked(Some(Requirement::FullyConsistent(true)), 0, 1)),
        (stale, asked(Some(Requirement::FullyConsistent(true)), 1, 0)),
        (garbage, asked(revision(""), 0, 0)),
        (garbage, asked(revision("1"), 0, 0)),
        (garbage, asked(revision("1-\0"), 0, 0)),
        (garbage, asked(revision("+1-0000000000000000"), 0, 0)),
    ];
    refuses!(server.verification.verify(wrong));
}

async fn authorization_is_made_for_what_is_named_as_it_is(engine: Engine) {
    let server = TestServer::start(engine).await;
    let good = CreateApiClientAuthorizationRequest::default();
    let called = |uuid: &str| CreateApiClientAuthorizationRequest {
        uuid: Some(uuid.to_owned()),
        ..good.clone()
    };
    let of = |owner: &str| CreateApiClientAuthorizationRequest {
        owner_uuid: Some(owner.to_owned()),
        ..good.clone()
    };
    let until = |seconds, nanos| CreateApiClientAuthorizationRequest {
        expires_at: Some(Timestamp { seconds, nanos }),
        ..good.clone()
    };
    let mut wrong: Wrong<_> = vec![
        (
            &["select[1]"],
            CreateApiClientAuthorizationRequest {
                select: texts(&["uuid", "kind"]),
                ..good.clone()
            },
        ),
        (&["expires_at"], until(0, -1)),
        (&["expires_at"], until(0, 1_000_000_000)),
        (&["expires_at"], until(253_402_300_800, 0)),
        (&["expires_at"], until(i64::MIN, 0)),
    ];
    for uuid in [
        "",
        "x",
        "zzzzz-gj3su-0123456789abcd",
        "zzzzz-gj3su-0123456789abcdef",
        "zzzzz-gj3su-0123456789ABCDE",
        "zzzzz-tpzed-0123456789abcde",
        "zzzzz-gj3su-0123456789abcde-",
        "aaaaa-gj3su-0123456789abcde",
        "zzzzz-gj3su-000000000000000",
        "zzzzz-gj3su-anonymouspublic",
    ] {
        wrong.push((&["uuid"], called(uuid)));
    }
    for owner in
        ["", "alice", "handle:", "handle:Alice", "external:", "external:a\0b", "zzzzz-tpzed-1"]
    {
        wrong.push((&["owner_uuid"], of(owner)));
    }
    refuses!(server.authorizations.create_api_client_authorization(wrong));
    let mut authorizations = server.authorizations(&server.admin);
    let past = until(-62_135_596_800, 0);
    for good in [called("zzzzz-gj3su-0123456789abcde"), of("handle:admin"), past] {
        authorizations.create_api_client_authorization(good).await.unwrap();
    }
}

fn scoped(scopes: &[&str]) -> Option<ScopeList> {
    Some(ScopeList { values: texts(scopes) })
}

async fn scopes_of_an_authorization_are_at_most_100_and_hold_no_token(engine: Engine) {
    let server = TestServer::start(engine).await;
    let made = server.authorization_of("handle:admin", None).await;
    let (long, longest) = ("G".repeat(257), "G".repeat(256));
    let secret = made.api_token();
    let within = format!("GET /{secret}/x");
    let many = ["all"; 101];
    let wrong: [(&[_], &[_]); 7] = [
        (&["scopes.values[100]"], &many),
        (&["scopes.values[1]"], &["all", &long]),
        (&["scopes.values[0]"], &["GET /\0"]),
        (&["scopes.values[0]"], &["GET /\n"]),
        (&["scopes.values[0]"], &[secret]),
        (&["scopes.values[0]"], &[&within]),
        (&["scopes.values[0]"], &[&server.admin]),
    ];
    let creations: Wrong<_> = wrong
        .iter()
        .map(|(fields, scopes)| {
            let scopes = scoped(scopes);
            (*fields, CreateApiClientAuthorizationRequest { scopes, ..Default::default() })
        })
        .collect();
    let of_system: Wrong<_> = wrong
        .iter()
        .map(|(fields, scopes)| {
            (*fields, CreateSystemAuthRequest { scopes: scoped(scopes), ..Default::default() })
        })
        .collect();
    let updates: Wrong<_> = wrong
        .iter()
        .map(|(fields, scopes)| {
            let (uuid, scopes) = (made.uuid().to_owned(), scoped(scopes));
            (*fields, UpdateApiClientAuthorizationRequest { uuid, scopes, ..Default::default() })
        })
        .collect();
    refuses!(server.authorizations.create_api_client_authorization(creations));
    refuses!(server.authorizations.create_system_auth(of_system));
    refuses!(server.authorizations.update_api_client_authorization(updates));
    // Whatever else an entry is, it allows nothing.
    for good in [&many[..100], &[], &[&longest], &["", "x", "[\"GET\",\"/x\"]", "\u{202e}é"]] {
        let made = server.authorization_of("handle:admin", Some(good)).await;
        assert_eq!(made.scopes.unwrap().values, good);
    }
}

async fn authorization_to_be_read_or_changed_is_named_and_the_mask_names_what_can_change(
    engine: Engine,
) {
    let server = TestServer::start(engine).await;
    let made = server.authorization_of("handle:admin", None).await;
    let wrong: Wrong<_> = vec![
        (&["uuid"], GetApiClientAuthorizationRequest::default()),
        (
            &["select[0]"],
            GetApiClientAuthorizationRequest {
                uuid: made.uuid().to_owned(),
                select: texts(&["href"]),
            },
        ),
    ];
    refuses!(server.authorizations.get_api_client_authorization(wrong));
    let wrong: Wrong<_> = vec![(&["uuid"], DeleteApiClientAuthorizationRequest::default())];
    refuses!(server.authorizations.delete_api_client_authorization(wrong));
    let mut wrong: Wrong<_> = Vec::new();
    for remote in ["", "zzzz", "zzzzzz", "ZZZZZ", "zz-zz", "zzzz\0"] {
        let remote = Some(remote.to_owned());
        wrong.push((&["remote"], GetCurrentApiClientAuthorizationRequest { remote }));
    }
    refuses!(server.authorizations.get_current_api_client_authorization(wrong));
    let masked = |paths: &[&str]| UpdateApiClientAuthorizationRequest {
        uuid: made.uuid().to_owned(),
        update_mask: Some(FieldMask { paths: texts(paths) }),
        ..Default::default()
    };
    let mut wrong: Wrong<_> = vec![
        (&["uuid"], UpdateApiClientAuthorizationRequest::default()),
        (&["scopes"], masked(&["scopes"])),
        (&["user_id"], masked(&["user_id"])),
        (&["update_mask.paths[1]"], masked(&["expires_at", "select"])),
    ];
    for path in ["uuid", "owner_uuid", "api_token", "created_by_ip_address", "*", "", "Scopes"] {
        wrong.push((&["update_mask.paths[0]"], masked(&[path])));
    }
    refuses!(server.authorizations.update_api_client_authorization(wrong));
    for uuid in ["x", "zzzzz-gj3su-", "zzzzz-gj3su-0123456789abcde", "a\0b", &"x".repeat(1_000)] {
        let request =
            GetApiClientAuthorizationRequest { uuid: uuid.to_owned(), ..Default::default() };
        let answer =
            server.authorizations(&server.admin).get_api_client_authorization(request).await;
        assert_eq!(answer.unwrap_err().code(), Code::NotFound, "{uuid:?}");
    }
}

fn text(text: &str) -> Value {
    value(value::Kind::StringValue(text.to_owned()))
}

fn value(kind: value::Kind) -> Value {
    Value { kind: Some(kind) }
}

fn filter(attribute: &str, operator: &str, operand: Value) -> Filter {
    let [attribute, operator] = [attribute, operator].map(ToOwned::to_owned);
    Filter { attribute, operator, operand: Some(operand), ..Default::default() }
}

async fn list_of_authorizations_is_asked_for_in_its_language(engine: Engine) {
    let server = TestServer::start(engine).await;
    let good = ListApiClientAuthorizationsRequest::default();
    let ordered = |order: &str| ListApiClientAuthorizationsRequest {
        order: texts(&["uuid", order]),
        ..good.clone()
    };
    let selected = |attribute: &str| ListApiClientAuthorizationsRequest {
        select: texts(&[attribute]),
        ..good.clone()
    };
    let filtered = |attribute: &str, operator: &str, operand| ListApiClientAuthorizationsRequest {
        filters: vec![filter("uuid", "=", text("x")), filter(attribute, operator, operand)],
        ..good.clone()
    };
    let stated = |attribute: &str, operand| ListApiClientAuthorizationsRequest {
        r#where: Some(Struct { fields: [(attribute.to_owned(), operand)].into() }),
        ..good.clone()
    };
    let number = |number| value(value::Kind::NumberValue(number));
    let null = || value(value::Kind::NullValue(0));
    let list = |values| value(value::Kind::ListValue(ListValue { values }));
    let empty = || value(value::Kind::StructValue(Struct::default()));
    let mut wrong: Wrong<_> = vec![
        (&["limit"], ListApiClientAuthorizationsRequest { limit: Some(-1), ..good.clone() }),
        (&["offset"], ListApiClientAuthorizationsRequest { offset: -1, ..good.clone() }),
        (&["offset"], ListApiClientAuthorizationsRequest { offset: 1_000_001, ..good.clone() }),
        (&["count"], ListApiClientAuthorizationsRequest { count: 9, ..good.clone() }),
    ];
    for order in ["", "x", "uuid up", "uuid asc desc", "api_token", "etag desc", "id"] {
        wrong.push((&["order[1]"], ordered(order)));
    }
    for attribute in ["", "x", "kind", "UUID", "any", "uuid desc"] {
        wrong.push((&["select[0]"], selected(attribute)));
    }
    for attribute in ["", "x", "etag", "kind", "uuid ", "user.uuid"] {
        wrong.push((&["filters[1].attribute"], filtered(attribute, "=", text("x"))));
    }
    for (attribute, operator) in [
        ("uuid", ""),
        ("uuid", "=="),
        ("uuid", "exists"),
        ("uuid", "contains"),
        ("uuid", "@@"),
        ("api_token", "!="),
        ("api_token", "like"),
        ("scopes", "<"),
        ("scopes", "like"),
        ("created_at", "like"),
        ("user_id", "ilike"),
    ] {
        wrong.push((&["filters[1].operator"], filtered(attribute, operator, text("x"))));
    }
    for (attribute, operator, operand) in [
        ("uuid", "=", number(1.0)),
        ("uuid", "=", empty()),
        ("uuid", "in", text("x")),
        ("uuid", "in", list(vec![number(1.0)])),
        ("uuid", "<", null()),
        ("uuid", "like", null()),
        ("user_id", "=", text("x")),
        ("user_id", "=", number(1.5)),
        ("user_id", "<", number(1e300)),
        ("user_id", "<", number(f64::NAN)),
        ("expires_at", "<", text("tomorrow")),
        ("expires_at", "<", text("2027-01-02")),
        ("expires_at", "=", text("2027-01-02T03:04:05.1234567Z")),
        ("expires_at", "=", list(vec![])),
        ("scopes", "=", text("all")),
        ("scopes", "=", list(vec![number(1.0)])),
        ("scopes", "in", list(vec![text("all")])),
        ("uuid", "is_a", number(1.0)),
    ] {
        wrong.push((&["filters[1].operand"], filtered(attribute, operator, operand)));
    }
    for (attribute, operand) in
        [("x", text("x")), ("etag", text("x")), ("user_id", text("x")), ("scopes", text("all"))]
    {
        wrong.push((&["where"], stated(attribute, operand)));
    }
    refuses!(server.authorizations.list_api_client_authorizations(wrong));
    let mut authorizations = server.authorizations(&server.admin);
    for good in [
        ListApiClientAuthorizationsRequest { limit: Some(i32::MAX), ..good.clone() },
        ListApiClientAuthorizationsRequest { offset: 1_000_000, ..good.clone() },
        ordered("expires_at DESC"),
        selected("etag"),
        filtered("expires_at", "=", null()),
        filtered(
            "expires_at",
            "NOT IN",
            list(vec![null(), text("2027-01-02T03:04:05.000000000Z")]),
        ),
        filtered("any", "ilike", text("%x_")),
        filtered("scopes", "not in", list(vec![list(vec![text("all")]), list(vec![])])),
        filtered("api_token", "in", list(vec![text("x")])),
        filtered("user_id", ">=", number(-1.0)),
        filtered("uuid", "is_a", list(vec![text("arvados#user"), text("arvados#thing")])),
        stated("scopes", list(vec![text("all")])),
        stated("uuid", text("x")),
    ] {
        let answer = authorizations.list_api_client_authorizations(good).await.unwrap();
        assert!(answer.into_inner().items.is_empty());
    }
}

async fn all_that_is_wrong_with_a_list_of_authorizations_is_said_at_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let nothing = Filter { operand: None, ..filter("uuid", "=", text("x")) };
    let request = ListApiClientAuthorizationsRequest {
        filters: vec![filter("uuid", "=", text("x")), nothing],
        r#where: Some(Struct { fields: [("x".to_owned(), Value { kind: None })].into() }),
        order: texts(&["x"]),
        select: texts(&["x"]),
        distinct: true,
        limit: Some(-1),
        offset: -1,
        count: 9,
    };
    let answer = server.authorizations(&server.admin).list_api_client_authorizations(request).await;
    let mut fields = wrong_fields(answer);
    fields.sort();
    let expected =
        ["count", "filters[1].operand", "limit", "offset", "order[0]", "select[0]", "where"];
    assert_eq!(fields, expected);
}

async fn user_has_a_handle_of_letters_and_short_plain_names(engine: Engine) {
    let server = TestServer::start(engine).await;
    let good = CreateUserRequest { handle: "good".to_owned(), ..Default::default() };
    let called =
        |name: &str| CreateUserRequest { display_name: Some(name.to_owned()), ..good.clone() };
    let from = |id: &str| CreateUserRequest { external_id: Some(id.to_owned()), ..good.clone() };
    let mut wrong: Wrong<_> = vec![(&["kind"], CreateUserRequest { kind: 3, ..good.clone() })];
    for handle in ["", "Alice", ".a", "-a", "a b", "a:b", "é", "a\0", &"a".repeat(101)] {
        let handle = handle.to_owned();
        wrong.push((&["handle"], CreateUserRequest { handle, ..Default::default() }));
    }
    for name in [" ", &*"é".repeat(101)].into_iter().chain(NOT_PLAIN) {
        wrong.push((&["display_name"], called(name)));
    }
    for id in ["", " ", &*"é".repeat(256)].into_iter().chain(NOT_PLAIN) {
        wrong.push((&["external_id"], from(id)));
    }
    let updates: Wrong<_> = wrong
        .iter()
        .filter(|(_, request)| request.external_id.as_deref() != Some(""))
        .map(|(fields, request)| {
            let CreateUserRequest { handle, display_name, kind, external_id, .. } = request.clone();
            let request = UpdateUserRequest {
                user: "handle:admin".to_owned(),
                handle: Some(handle),
                display_name,
                kind: Some(if kind == 0 { 1 } else { kind }),
                external_id,
                ..Default::default()
            };
            (*fields, request)
        })
        .collect();
    refuses!(server.directory.create_user(wrong));
    refuses!(server.directory.update_user(updates));
    let unspecified =
        UpdateUserRequest { user: "handle:admin".to_owned(), kind: Some(0), ..Default::default() };
    let unspecified: Wrong<_> = vec![(&["kind"], unspecified)];
    refuses!(server.directory.update_user(unspecified));
    let longest = CreateUserRequest {
        handle: "a".repeat(100),
        display_name: Some("é".repeat(100)),
        external_id: Some("é".repeat(255)),
        ..Default::default()
    };
    server.directory(&server.admin).create_user(longest).await.unwrap();
}

async fn user_to_be_read_or_changed_is_named_in_one_of_three_ways(engine: Engine) {
    let server = TestServer::start(engine).await;
    let names = [
        "",
        "admin",
        "Handle:admin",
        "handle:",
        "handle:Admin",
        "external:",
        "external: ",
        "zzzzz-tpzed-00000000000000",
        "zzzzz-gj3su-000000000000000",
        "external:a\0b",
    ];
    let reads: Wrong<_> = names
        .iter()
        .map(|name| (&["user"][..], GetUserRequest { user: (*name).to_owned() }))
        .collect();
    let updates: Wrong<_> = names
        .iter()
        .map(|name| {
            let user = (*name).to_owned();
            (&["user"][..], UpdateUserRequest { user, ..Default::default() })
        })
        .collect();
    refuses!(server.directory.get_user(reads));
    refuses!(server.directory.update_user(updates));
}

/// Any text, often near to what fields take.
fn any_text() -> impl Strategy<Value = String> {
    let anything = prop::collection::vec(any::<char>(), 0..40)
        .prop_map(|characters| characters.into_iter().collect::<String>());
    let near = prop::sample::select(vec![
        "",
        "x",
        "read:*",
        "admin:all",
        "10.0.0.0/8",
        "::1",
        "handle:admin",
        "external:x",
        "zzzzz-tpzed-000000000000000",
        "0198c0de-0000-7000-8000-00000000000a",
        "pat_00000000000000000000000000000000000000000010Ehxm0",
        "GET",
        "/notes",
        "0-0000000000000000",
        "'; DROP TABLE users; --",
        "zzzzz-gj3su-0123456789abcde",
        "v2/zzzzz-gj3su-0123456789abcde/",
        "expires_at desc",
        "api_token",
        "scopes",
        "not in",
        "ilike",
        "2027-01-02T03:04:05.000000000Z",
        "%_\\",
    ]);
    prop_oneof![
        2 => anything.clone(),
        3 => near.clone().prop_map(ToOwned::to_owned),
        1 => (near, anything).prop_map(|(near, more)| format!("{near}{more}")),
    ]
}

fn any_creation() -> impl Strategy<Value = CreatePersonalAccessTokenRequest> {
    let some = || prop::option::weighted(0.3, any_text());
    let expiry = prop_oneof![
        3 => Just(None),
        1 => (any::<i64>(), any::<i32>())
            .prop_map(|(seconds, nanos)| Some(Expiry::ExpiresAt(Timestamp { seconds, nanos }))),
        1 => (any::<i64>(), any::<i32>())
            .prop_map(|(seconds, nanos)| Some(Expiry::Ttl(Duration { seconds, nanos }))),
    ];
    let lists = (prop::collection::vec(any_text(), 0..2), prop::collection::vec(any_text(), 0..2));
    (any_text(), some(), lists, some(), expiry, some(), some()).prop_map(
        |(name, description, (scopes, allowed_ips), workspace_id, expiry, request_id, user_id)| {
            CreatePersonalAccessTokenRequest {
                name,
                description,
                scopes,
                workspace_id,
                expiry,
                allowed_ips,
                request_id,
                user_id,
            }
        },
    )
}

fn any_value() -> impl Strategy<Value = Option<Value>> {
    let leaf = prop_oneof![
        Just(None),
        Just(Some(value::Kind::NullValue(0))),
        any::<f64>().prop_map(|number| Some(value::Kind::NumberValue(number))),
        any::<bool>().prop_map(|truth| Some(value::Kind::BoolValue(truth))),
        any_text().prop_map(|text| Some(value::Kind::StringValue(text))),
    ]
    .prop_map(|kind| Value { kind });
    let any = leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3)
                .prop_map(|values| value(value::Kind::ListValue(ListValue { values }))),
            prop::collection::btree_map(any_text(), inner, 0..3)
                .prop_map(|fields| value(value::Kind::StructValue(Struct { fields }))),
        ]
    });
    prop::option::weighted(0.9, any)
}

fn any_list() -> impl Strategy<Value = ListApiClientAuthorizationsRequest> {
    let names = vec![
        "uuid",
        "api_token",
        "api_client_id",
        "user_id",
        "created_by_ip_address",
        "last_used_at",
        "expires_at",
        "owner_uuid",
        "scopes",
        "created_at",
        "etag",
        "any",
    ];
    let operators = vec!["=", "!=", "<", ">=", "like", "ilike", "in", "not in", "is_a", "exists"];
    let name = || prop_oneof![4 => prop::sample::select(names.clone()).prop_map(String::from), 1 => any_text()];
    let operator =
        prop_oneof![4 => prop::sample::select(operators).prop_map(String::from), 1 => any_text()];
    let names = prop::collection::vec(name(), 0..3);
    let attributes = prop_oneof![3 => Just(Vec::new()), 1 => names];
    let filter = (name(), operator, any_value(), attributes, prop::option::weighted(0.1, name()))
        .prop_map(|(attribute, operator, operand, attributes, operand_attribute)| Filter {
            attribute: if attributes.len() < 2 { attribute } else { String::new() },
            operator,
            operand,
            attributes,
            operand_attribute,
        });
    let wheres = (name(), any_value()).prop_map(|(name, operand)| Struct {
        fields: operand.into_iter().map(|operand| (name.clone(), operand)).collect(),
    });
    (
        prop::collection::vec(filter, 0..3),
        prop::option::weighted(0.2, wheres),
        prop::collection::vec(name(), 0..2),
        prop::collection::vec(name(), 0..2),
        any::<bool>(),
        prop::option::of(prop_oneof![0..10, any::<i32>()]),
        prop_oneof![Just(0), any::<i64>()],
        0..4,
    )
        .prop_map(|(filters, r#where, order, select, distinct, limit, offset, count)| {
            ListApiClientAuthorizationsRequest {
                filters,
                r#where,
                order,
                select,
                distinct,
                limit,
                offset,
                count,
            }
        })
}

fn any_authorization() -> impl Strategy<Value = CreateApiClientAuthorizationRequest> {
    let some = || prop::option::weighted(0.2, any_text());
    let number = || prop::option::weighted(0.1, any::<i64>());
    let scopes = prop::option::of(prop::collection::vec(any_text(), 0..3));
    let expires_at = prop::option::weighted(
        0.3,
        (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| Timestamp { seconds, nanos }),
    );
    let select = prop::collection::vec(any_text(), 0..2);
    (some(), some(), number(), number(), scopes, expires_at, select).prop_map(
        |(uuid, owner_uuid, user_id, api_client_id, scopes, expires_at, select)| {
            CreateApiClientAuthorizationRequest {
                uuid,
                owner_uuid,
                user_id,
                api_client_id,
                scopes: scopes.map(|values| ScopeList { values }),
                expires_at,
                select,
            }
        },
    )
}

fn any_question() -> impl Strategy<Value = VerifyRequest> {
    let some = || prop::option::weighted(0.3, any_text());
    let consistency = prop::option::weighted(
        0.3,
        (any_text(), any::<i64>(), any::<i32>()).prop_map(|(revision, seconds, nanos)| {
            Consistency {
                requirement: Some(Requirement::MinRevision(revision)),
                max_stale: Some(Duration { seconds, nanos }),
            }
        }),
    );
    let lists =
        (prop::collection::vec(any_text(), 0..2), prop::collection::vec(any::<i32>(), 0..2));
    (any_text(), lists, some(), some(), some(), some(), consistency).prop_map(
        |(token, lists, request_method, request_path, workspace_id, client_ip, consistency)| {
            let (required_scopes, kinds) = lists;
            VerifyRequest {
                token,
                required_scopes,
                request_method,
                request_path,
                workspace_id,
                client_ip,
                kinds,
                consistency,
            }
        },
    )
}

/// Whether a call was answered, be it by a no that its caller can understand.
fn is_answered<T>(answer: Result<T, Status>) -> Result<(), TestCaseError> {
    let Err(status) = answer else { return Ok(()) };
    let is_no = matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::AlreadyExists
    );
    prop_assert!(is_no, "{status}");
    Ok(())
}

async fn any_list_of_authorizations_gets_an_answer_and_never_a_fault(engine: Engine) {
    let server = TestServer::start(engine).await;
    let made = server.authorization_of("handle:admin", None).await;
    let runtime = tokio::runtime::Handle::current();
    let property = |(list, creation, id): (
        ListApiClientAuthorizationsRequest,
        CreateApiClientAuthorizationRequest,
        String,
    )| {
        runtime.block_on(async {
            let mut authorizations = server.authorizations(made.api_token());
            is_answered(authorizations.list_api_client_authorizations(list).await)?;
            let update = UpdateApiClientAuthorizationRequest {
                uuid: made.uuid().to_owned(),
                scopes: None,
                expires_at: creation.expires_at.filter(|end| end.seconds > 4_000_000_000),
                api_client_id: creation.api_client_id,
                user_id: creation.user_id,
                update_mask: None,
                select: creation.select.clone(),
            };
            is_answered(authorizations.update_api_client_authorization(update).await)?;
            is_answered(authorizations.create_api_client_authorization(creation).await)?;
            let remote = GetCurrentApiClientAuthorizationRequest { remote: Some(id.clone()) };
            is_answered(authorizations.get_current_api_client_authorization(remote).await)?;
            let request = GetApiClientAuthorizationRequest { uuid: id, ..Default::default() };
            is_answered(authorizations.get_api_client_authorization(request).await)
        })
    };
    tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(Config::with_cases(200));
        runner.run(&(any_list(), any_authorization(), any_text()), property).unwrap();
    });
}

async fn any_text_in_any_field_gets_an_answer_and_never_a_fault(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let plain = server.text_of(&user.id, &["read:tokens", "write:tokens", "read:*"]).await;
    let runtime = tokio::runtime::Handle::current();
    let property = |(creation, question, id): (_, VerifyRequest, String)| {
        runtime.block_on(async {
            is_answered(server.verification(&server.admin).verify(question).await)?;
            for caller in [&server.admin, &plain] {
                let creation: CreatePersonalAccessTokenRequest = Clone::clone(&creation);
                let mut tokens = server.tokens(caller);
                is_answered(tokens.create_personal_access_token(creation).await)?;
                let request = GetPersonalAccessTokenRequest { id: id.clone() };
                is_answered(tokens.get_personal_access_token(request).await)?;
            }
            let request = GetUserRequest { user: id };
            is_answered(server.directory(&server.admin).get_user(request).await)
        })
    };
    tokio::task::block_in_place(|| {
        let mut runner = TestRunner::new(Config::with_cases(200));
        let strategy = (any_creation(), any_question(), any_text());
        runner.run(&strategy, property).unwrap();
    });
}
