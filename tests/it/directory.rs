use std::{collections::BTreeSet, time::Duration};

use prost_types::FieldMask;
use token_authority::proto::v1::{
    CreateUserRequest, CreateUserResponse, DeleteUserRequest, DeleteUserResponse, GetUserRequest,
    ListUsersRequest, Reason, UpdateUserRequest, UpdateUserResponse, UpsertUsersRequest,
    UpsertUsersResponse, User, UserKind, UserUpsert, WhoAmIRequest,
};
use tonic::{Code, Response, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, refused, wrong_fields},
};

on_both_stores![
    created_user_comes_back_whole_by_each_of_its_names,
    handles_and_external_ids_are_unique,
    users_are_listed_newest_first_by_conditions_that_must_all_hold,
    pages_of_users_hold_each_once_and_are_good_for_their_request,
    update_changes_exactly_what_is_named,
    last_active_administrator_stays_one,
    system_user_does_not_change,
    user_reads_itself_and_of_others_not_even_that_they_are,
    deactivation_refuses_a_users_tokens_at_once_as_callers_and_subjects,
    upserted_users_are_made_then_changed_and_their_repeat_changes_nothing,
    upsert_that_is_wrong_in_one_user_does_none_and_names_it,
    thousand_users_are_upserted_at_once_and_not_one_more,
    deleted_user_is_gone_but_for_its_id_and_its_names_are_free,
    last_administrator_and_the_system_user_are_not_deleted,
    administrator_may_delete_itself,
];

const SECOND: Duration = Duration::from_secs(1);
const SYSTEM: &str = "zzzzz-tpzed-000000000000000";

fn new(handle: &str) -> CreateUserRequest {
    CreateUserRequest { handle: handle.to_owned(), ..Default::default() }
}

fn of(user: &str) -> UpdateUserRequest {
    UpdateUserRequest { user: user.to_owned(), ..Default::default() }
}

async fn create(
    server: &TestServer,
    request: CreateUserRequest,
) -> Result<Response<CreateUserResponse>, Status> {
    server.directory(&server.admin).create_user(request).await
}

async fn create_ok(server: &TestServer, request: CreateUserRequest) -> User {
    let answer = create(server, request).await.unwrap().into_inner();
    assert!(!answer.revision.is_empty());
    answer.user.unwrap()
}

async fn update(
    server: &TestServer,
    request: UpdateUserRequest,
) -> Result<Response<UpdateUserResponse>, Status> {
    server.directory(&server.admin).update_user(request).await
}

async fn update_ok(server: &TestServer, request: UpdateUserRequest) -> User {
    let answer = update(server, request).await.unwrap().into_inner();
    assert!(!answer.revision.is_empty());
    answer.user.unwrap()
}

async fn upsert(
    server: &TestServer,
    users: &[UserUpsert],
) -> Result<Response<UpsertUsersResponse>, Status> {
    let request = UpsertUsersRequest { users: users.to_vec() };
    server.directory(&server.admin).upsert_users(request).await
}

fn known_as(external_id: &str) -> UserUpsert {
    UserUpsert { external_id: external_id.to_owned(), ..Default::default() }
}

async fn delete(
    server: &TestServer,
    token: &str,
    user: &str,
) -> Result<Response<DeleteUserResponse>, Status> {
    let request = DeleteUserRequest { user: user.to_owned() };
    server.directory(token).delete_user(request).await
}

async fn get(server: &TestServer, token: &str, user: &str) -> Result<User, Status> {
    let request = GetUserRequest { user: user.to_owned() };
    Ok(server.directory(token).get_user(request).await?.into_inner().user.unwrap())
}

/// The handles of all pages.
async fn handles(server: &TestServer, request: ListUsersRequest) -> Vec<String> {
    let mut handles = Vec::new();
    let mut request = ListUsersRequest { page_size: 2, ..request };
    loop {
        let page = server.directory(&server.admin).list_users(request.clone()).await.unwrap();
        let page = page.into_inner();
        assert!(page.users.len() <= 2);
        handles.extend(page.users.into_iter().map(|user| user.handle));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return handles;
        }
    }
}

async fn created_user_comes_back_whole_by_each_of_its_names(engine: Engine) {
    let server = TestServer::start(engine).await;
    server.clock.advance(Duration::from_micros(7));
    let now = Some(server.after(Duration::ZERO));
    let least = create_ok(&server, new("alice")).await;
    let is_id = least.id.strip_prefix("zzzzz-tpzed-").is_some_and(|digits| {
        digits.len() == 15 && digits.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
    });
    assert!(is_id, "{}", least.id);
    let expected = User {
        id: least.id.clone(),
        handle: "alice".to_owned(),
        display_name: String::new(),
        kind: UserKind::Human.into(),
        is_admin: false,
        is_active: true,
        external_id: None,
        created_at: now,
        updated_at: now,
        deleted_at: None,
    };
    assert_eq!(least, expected);

    let request = CreateUserRequest {
        display_name: Some("CI бот 🤖".to_owned()),
        kind: UserKind::Service.into(),
        is_admin: true,
        external_id: Some("okta|CI Bot".to_owned()),
        is_active: Some(false),
        ..new("ci.bot+1@example.org")
    };
    let full = create_ok(&server, request).await;
    let expected = User {
        id: full.id.clone(),
        handle: "ci.bot+1@example.org".to_owned(),
        display_name: "CI бот 🤖".to_owned(),
        kind: UserKind::Service.into(),
        is_admin: true,
        is_active: false,
        external_id: Some("okta|CI Bot".to_owned()),
        ..expected
    };
    assert_eq!(full, expected);
    for name in [&*full.id, "handle:ci.bot+1@example.org", "external:okta|CI Bot"] {
        assert_eq!(get(&server, &server.admin, name).await.unwrap(), expected, "{name}");
    }
    for name in ["handle:okta", "external:alice", "zzzzz-tpzed-0123456789abcde"] {
        let status = get(&server, &server.admin, name).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{name}");
    }
}

async fn handles_and_external_ids_are_unique(engine: Engine) {
    let server = TestServer::start(engine).await;
    let external_id = Some("okta|1".to_owned());
    create_ok(&server, CreateUserRequest { external_id, ..new("alice") }).await;
    let bob = create_ok(&server, new("bob")).await;
    let kept = server.kept().await;
    let handle_taken = (Code::AlreadyExists, "HANDLE_TAKEN".to_owned());
    let external_id_taken = (Code::AlreadyExists, "EXTERNAL_ID_TAKEN".to_owned());
    for taken in ["alice", "admin", "system"] {
        assert_eq!(refused(create(&server, new(taken)).await), handle_taken);
        let request = UpdateUserRequest { handle: Some(taken.to_owned()), ..of(&bob.id) };
        assert_eq!(refused(update(&server, request).await), handle_taken);
    }
    let external_id = Some("okta|1".to_owned());
    let request = CreateUserRequest { external_id: external_id.clone(), ..new("carol") };
    assert_eq!(refused(create(&server, request).await), external_id_taken);
    let request = UpdateUserRequest { external_id, ..of(&bob.id) };
    assert_eq!(refused(update(&server, request).await), external_id_taken);
    assert_eq!(server.kept().await, kept);

    // What is given up is free for others; what differs in case is another.
    update_ok(
        &server,
        UpdateUserRequest {
            handle: Some("alicia".to_owned()),
            external_id: Some(String::new()),
            ..of("handle:alice")
        },
    )
    .await;
    let external_id = Some("okta|1".to_owned());
    create_ok(&server, CreateUserRequest { external_id, ..new("alice") }).await;
    let external_id = Some("OKTA|1".to_owned());
    create_ok(&server, CreateUserRequest { external_id, ..new("carol") }).await;
}

async fn users_are_listed_newest_first_by_conditions_that_must_all_hold(engine: Engine) {
    let server = TestServer::start(engine).await;
    for (handle, kind, is_admin, is_active) in [
        ("person", UserKind::Human, false, true),
        ("bot", UserKind::Service, false, true),
        ("boss", UserKind::Human, true, true),
        ("gone", UserKind::Human, false, false),
        ("gone-bot", UserKind::Service, true, false),
    ] {
        server.clock.advance(Duration::from_micros(1));
        let request = CreateUserRequest {
            kind: kind.into(),
            is_admin,
            is_active: Some(is_active),
            ..new(handle)
        };
        create_ok(&server, request).await;
    }
    let everybody = handles(&server, ListUsersRequest::default()).await;
    assert_eq!(everybody[..5], ["gone-bot", "gone", "boss", "bot", "person"]);
    assert_eq!(everybody[5..].iter().collect::<BTreeSet<_>>().len(), 2, "and the first two");

    let listed = async |is_active, is_admin, kind: Option<UserKind>| {
        let kind = kind.map(Into::into);
        let request = ListUsersRequest { is_active, is_admin, kind, ..Default::default() };
        let mut handles = handles(&server, request).await;
        handles.retain(|handle| handle != "admin" && handle != "system");
        handles
    };
    assert_eq!(listed(Some(true), None, None).await, ["boss", "bot", "person"]);
    assert_eq!(listed(Some(false), None, None).await, ["gone-bot", "gone"]);
    assert_eq!(listed(None, Some(true), None).await, ["gone-bot", "boss"]);
    assert_eq!(listed(None, Some(false), None).await, ["gone", "bot", "person"]);
    assert_eq!(listed(None, None, Some(UserKind::Service)).await, ["gone-bot", "bot"]);
    let kind = Some(UserKind::Human);
    assert_eq!(listed(Some(true), Some(false), kind).await, ["person"]);
    assert!(listed(Some(false), Some(true), kind).await.is_empty());
}

async fn pages_of_users_hold_each_once_and_are_good_for_their_request(engine: Engine) {
    let server = TestServer::start(engine).await;
    for n in 0..23 {
        create_ok(&server, new(&format!("user-{n}"))).await;
    }
    let mut all = handles(&server, ListUsersRequest::default()).await;
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 25, "each once, though all were made at one instant");
    let first = ListUsersRequest { page_size: 2, ..Default::default() };
    let page = server.directory(&server.admin).list_users(first.clone()).await.unwrap();
    let again = ListUsersRequest { page_token: page.into_inner().next_page_token, ..first };
    for other in [
        ListUsersRequest { is_active: Some(true), ..again.clone() },
        ListUsersRequest { is_admin: Some(false), ..again.clone() },
        ListUsersRequest { kind: Some(UserKind::Human.into()), ..again.clone() },
        ListUsersRequest { show_deleted: true, ..again.clone() },
    ] {
        let answer = server.directory(&server.admin).list_users(other).await;
        assert_eq!(wrong_fields(answer), ["page_token"]);
    }
    server.directory(&server.admin).list_users(again).await.unwrap();
}

async fn update_changes_exactly_what_is_named(engine: Engine) {
    let server = TestServer::start(engine).await;
    let request = CreateUserRequest {
        display_name: Some("Alice".to_owned()),
        external_id: Some("okta|1".to_owned()),
        ..new("alice")
    };
    let mut expected = create_ok(&server, request).await;
    let id = expected.id.clone();
    let mask =
        |paths: &[&str]| Some(FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
    server.clock.advance(SECOND);
    expected.updated_at = Some(server.after(Duration::ZERO));

    // Without a mask: what is present.
    expected.handle = "alicia".to_owned();
    let request = UpdateUserRequest { handle: Some("alicia".to_owned()), ..of("handle:alice") };
    assert_eq!(update_ok(&server, request).await, expected);
    expected.kind = UserKind::Service.into();
    let request = UpdateUserRequest { kind: Some(expected.kind), ..of("external:okta|1") };
    assert_eq!(update_ok(&server, request).await, expected);
    expected.external_id = None;
    let request = UpdateUserRequest { external_id: Some(String::new()), ..of(&id) };
    assert_eq!(update_ok(&server, request).await, expected, "empty clears it");
    (expected.is_admin, expected.is_active) = (true, false);
    let request = UpdateUserRequest { is_admin: Some(true), is_active: Some(false), ..of(&id) };
    assert_eq!(update_ok(&server, request).await, expected);

    // With one: what it names, and nothing else.
    expected.display_name = String::new();
    let request = UpdateUserRequest {
        handle: Some("kept-out".to_owned()),
        external_id: Some("kept out".to_owned()),
        is_admin: Some(false),
        update_mask: mask(&["display_name"]),
        ..of(&id)
    };
    assert_eq!(update_ok(&server, request).await, expected, "named, not present: cleared");
    expected.external_id = Some("okta|2".to_owned());
    let request = UpdateUserRequest {
        external_id: expected.external_id.clone(),
        update_mask: mask(&["external_id", "display_name"]),
        ..of(&id)
    };
    assert_eq!(update_ok(&server, request).await, expected);
    for field in ["handle", "kind", "is_admin", "is_active"] {
        let request = UpdateUserRequest { update_mask: mask(&[field]), ..of(&id) };
        assert_eq!(wrong_fields(update(&server, request).await), [field], "it can't be empty");
    }
    assert_eq!(get(&server, &server.admin, &id).await.unwrap(), expected);

    // Nothing is changed, so nothing says that it was.
    server.clock.advance(SECOND);
    let kept = server.kept().await;
    assert_eq!(update_ok(&server, of(&id)).await, expected);
    let request = UpdateUserRequest { is_admin: Some(false), update_mask: mask(&[]), ..of(&id) };
    assert_eq!(update_ok(&server, request).await, expected);
    assert_eq!(server.kept().await, kept);

    let request = UpdateUserRequest { is_admin: Some(true), ..of("handle:nobody") };
    assert_eq!(refused(update(&server, request).await), (Code::NotFound, String::new()));
}

async fn last_active_administrator_stays_one(engine: Engine) {
    let server = TestServer::start(engine).await;
    let idle = CreateUserRequest { is_admin: true, is_active: Some(false), ..new("idle") };
    create_ok(&server, idle).await;
    let steps_down = [
        UpdateUserRequest { is_admin: Some(false), ..of("handle:admin") },
        UpdateUserRequest { is_active: Some(false), ..of("handle:admin") },
    ];
    let kept = server.kept().await;
    for request in &steps_down {
        let expected = (Code::FailedPrecondition, "LAST_ADMINISTRATOR".to_owned());
        assert_eq!(refused(update(&server, request.clone()).await), expected);
    }
    assert_eq!(server.kept().await, kept);
    // With another one that is active it may go.
    update_ok(&server, UpdateUserRequest { is_active: Some(true), ..of("handle:idle") }).await;
    let [no_administrator, _] = steps_down;
    assert!(!update_ok(&server, no_administrator).await.is_admin);
    let answer = create(&server, new("alice")).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "CALLER_ROLE".to_owned()));
}

async fn system_user_does_not_change(engine: Engine) {
    let server = TestServer::start(engine).await;
    let before = get(&server, &server.admin, SYSTEM).await.unwrap();
    assert_eq!((&*before.handle, before.kind()), ("system", UserKind::Service));
    for request in [
        UpdateUserRequest { display_name: Some("me".to_owned()), ..of(SYSTEM) },
        UpdateUserRequest { is_active: Some(false), ..of("handle:system") },
        of(SYSTEM),
    ] {
        let expected = (Code::FailedPrecondition, "SYSTEM_USER".to_owned());
        assert_eq!(refused(update(&server, request).await), expected);
    }
    assert_eq!(get(&server, &server.admin, SYSTEM).await.unwrap(), before);
}

async fn user_reads_itself_and_of_others_not_even_that_they_are(engine: Engine) {
    let server = TestServer::start(engine).await;
    let external_id = Some("okta|1".to_owned());
    let alice = create_ok(&server, CreateUserRequest { external_id, ..new("alice") }).await;
    let bob = create_ok(&server, new("bob")).await;
    let token = server.text_of(&alice.id, &["read:directory", "write:directory"]).await;
    for name in [&*alice.id, "handle:alice", "external:okta|1"] {
        assert_eq!(get(&server, &token, name).await.unwrap(), alice, "{name}");
    }
    for name in [&*bob.id, "handle:bob", "handle:nobody", "external:nobody", SYSTEM] {
        let status = get(&server, &token, name).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{name}");
        assert_eq!(status.message(), "there is no such user");
        assert!(status.details().is_empty());
    }
    let no_administrator = (Code::PermissionDenied, "CALLER_ROLE".to_owned());
    for user in [&*alice.id, &bob.id, "handle:nobody"] {
        let request = UpdateUserRequest { display_name: Some("me".to_owned()), ..of(user) };
        let answer = server.directory(&token).update_user(request).await;
        assert_eq!(refused(answer), no_administrator, "{user}");
    }
}

async fn deactivation_refuses_a_users_tokens_at_once_as_callers_and_subjects(engine: Engine) {
    let server = TestServer::start(engine).await;
    let boss = server.administrator("boss").await;
    let token = server.text_of(&boss.id, &["admin:all"]).await;
    let who = async || server.verification(&token).who_am_i(WhoAmIRequest {}).await;
    who().await.unwrap();
    let is_active = |is_active| UpdateUserRequest { is_active: Some(is_active), ..of(&boss.id) };
    for _ in 0..2 {
        assert!(!update_ok(&server, is_active(false)).await.is_active);
        let expected = (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned());
        assert_eq!(refused(who().await), expected);
        assert_eq!(server.verify(&token).await.reason(), Reason::OwnerInactive);
        assert!(update_ok(&server, is_active(true)).await.is_active);
        who().await.unwrap();
        assert!(server.verify(&token).await.active);
    }
    // What it is told with changes at once, too.
    update_ok(&server, UpdateUserRequest { is_admin: Some(false), ..of(&boss.id) }).await;
    assert!(!who().await.unwrap().into_inner().user.unwrap().is_admin);
}

async fn upserted_users_are_made_then_changed_and_their_repeat_changes_nothing(engine: Engine) {
    let server = TestServer::start(engine).await;
    create_ok(&server, new("okta-2")).await;
    let full = UserUpsert {
        handle: Some("alice".to_owned()),
        display_name: Some("Alice".to_owned()),
        kind: Some(UserKind::Service.into()),
        is_admin: Some(true),
        is_active: Some(false),
        ..known_as("okta|1")
    };
    let users = [full, known_as("okta|2"), known_as("Okta|3")];
    let made = upsert(&server, &users).await.unwrap().into_inner();
    let [alice, second, third] = &made.users[..] else { panic!("{made:?}") };
    assert_eq!((&*alice.handle, &*alice.display_name), ("alice", "Alice"));
    assert_eq!((alice.kind(), alice.is_admin, alice.is_active), (UserKind::Service, true, false));
    assert_eq!(alice.external_id.as_deref(), Some("okta|1"));
    let digits = second.id.rsplit_once('-').unwrap().1;
    assert_eq!(second.handle, format!("okta-2-{digits}"), "another has the one it would get");
    assert_eq!((&*third.handle, &*third.display_name), ("okta-3", ""));
    assert_eq!((third.kind(), third.is_admin, third.is_active), (UserKind::Human, false, true));

    server.clock.advance(SECOND);
    let kept = server.kept().await;
    assert_eq!(upsert(&server, &users).await.unwrap().into_inner(), made);
    assert_eq!(server.kept().await, kept);

    let renamed = UserUpsert {
        handle: Some("alicia".to_owned()),
        display_name: Some(String::new()),
        ..known_as("okta|1")
    };
    let changed = upsert(&server, &[known_as("okta|2"), renamed]).await.unwrap().into_inner();
    assert_eq!(changed.users[0], *second);
    let expected = User {
        handle: "alicia".to_owned(),
        display_name: String::new(),
        updated_at: Some(server.after(Duration::ZERO)),
        ..alice.clone()
    };
    assert_eq!(changed.users[1], expected);
    assert_ne!(changed.revision, made.revision);
}

async fn upsert_that_is_wrong_in_one_user_does_none_and_names_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let kept = server.kept().await;
    let with = |user: UserUpsert| [known_as("first"), user];
    for (user, field) in [
        (known_as(""), "users[1].external_id"),
        (known_as("first"), "users[1].external_id"),
        (UserUpsert { handle: Some("A b".to_owned()), ..known_as("x") }, "users[1].handle"),
        (
            UserUpsert { display_name: Some("a\nb".to_owned()), ..known_as("x") },
            "users[1].display_name",
        ),
        (UserUpsert { kind: Some(0), ..known_as("x") }, "users[1].kind"),
        (UserUpsert { kind: Some(9), ..known_as("x") }, "users[1].kind"),
    ] {
        assert_eq!(wrong_fields(upsert(&server, &with(user)).await), [field]);
    }
    let taken = UserUpsert { handle: Some("admin".to_owned()), ..known_as("x") };
    let answer = upsert(&server, &with(taken)).await;
    assert!(answer.as_ref().unwrap_err().message().starts_with("users[1]: "));
    assert_eq!(refused(answer), (Code::AlreadyExists, "HANDLE_TAKEN".to_owned()));
    assert_eq!(server.kept().await, kept);

    // Who may not appoint administrators upserts others.
    let writer = server.administrator("writer").await;
    let token = server.text_of(&writer.id, &["write:directory"]).await;
    let request = |users: &[UserUpsert]| UpsertUsersRequest { users: users.to_vec() };
    let appoints = UserUpsert { is_admin: Some(false), ..known_as("x") };
    let answer = server.directory(&token).upsert_users(request(&with(appoints))).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "CALLER_SCOPE".to_owned()));
    server.directory(&token).upsert_users(request(&with(known_as("x")))).await.unwrap();
}

async fn thousand_users_are_upserted_at_once_and_not_one_more(engine: Engine) {
    let server = TestServer::start_with(engine, &["--call-deadline=60s"]).await;
    let mut users: Vec<_> = (0..1_000)
        .map(|n| UserUpsert {
            display_name: Some("é".repeat(100)),
            ..known_as(&format!("{n:0>255}"))
        })
        .collect();
    let made = upsert(&server, &users).await.unwrap().into_inner();
    assert_eq!(made.users.len(), 1_000);
    users.push(known_as("more"));
    assert_eq!(wrong_fields(upsert(&server, &users).await), ["users"]);
}

async fn deleted_user_is_gone_but_for_its_id_and_its_names_are_free(engine: Engine) {
    let server = TestServer::start(engine).await;
    let named = CreateUserRequest { external_id: Some("okta|1".to_owned()), ..new("alice") };
    let alice = create_ok(&server, named.clone()).await;
    let token = server.text_of(&alice.id, &[]).await;
    server.clock.advance(SECOND);
    let now = Some(server.after(Duration::ZERO));
    let deleted = delete(&server, &server.admin, "external:okta|1").await.unwrap().into_inner();
    assert!(!deleted.revision.is_empty());
    let expected = User { is_active: false, updated_at: now, deleted_at: now, ..alice.clone() };
    assert_eq!(deleted.user.as_ref(), Some(&expected));
    assert_eq!(server.verify(&token).await.reason(), Reason::Revoked);
    assert_eq!(get(&server, &server.admin, &alice.id).await.unwrap(), expected);

    let kept = server.kept().await;
    let again = delete(&server, &server.admin, &alice.id).await.unwrap().into_inner();
    assert_eq!(again, deleted);
    for name in ["handle:alice", "external:okta|1", "zzzzz-tpzed-0123456789abcde"] {
        let unknown = (Code::NotFound, String::new());
        assert_eq!(refused(delete(&server, &server.admin, name).await), unknown, "{name}");
    }
    assert_eq!(wrong_fields(delete(&server, &server.admin, "alice").await), ["user"]);
    assert_eq!(server.kept().await, kept);
    assert!(!handles(&server, ListUsersRequest::default()).await.contains(&alice.handle));
    let all = ListUsersRequest { show_deleted: true, ..Default::default() };
    assert!(handles(&server, all).await.contains(&alice.handle));

    let next = create_ok(&server, named).await;
    assert_ne!(next.id, alice.id);
    assert_eq!(server.verify(&token).await.reason(), Reason::Revoked);
}

async fn last_administrator_and_the_system_user_are_not_deleted(engine: Engine) {
    let server = TestServer::start(engine).await;
    let kept = server.kept().await;
    let expected = |reason: &str| (Code::FailedPrecondition, reason.to_owned());
    let answer = delete(&server, &server.admin, "handle:admin").await;
    assert_eq!(refused(answer), expected("LAST_ADMINISTRATOR"));
    let answer = delete(&server, &server.admin, SYSTEM).await;
    assert_eq!(refused(answer), expected("SYSTEM_USER"));
    assert_eq!(server.kept().await, kept);
}

async fn administrator_may_delete_itself(engine: Engine) {
    let server = TestServer::start(engine).await;
    let boss = server.administrator("boss").await;
    let token = server.text_of(&boss.id, &["write:directory"]).await;
    assert!(delete(&server, &token, &boss.id).await.unwrap().into_inner().user.is_some());
    let expected = (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned());
    assert_eq!(refused(delete(&server, &token, &boss.id).await), expected);
}
