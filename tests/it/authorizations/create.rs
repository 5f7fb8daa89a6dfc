use prost_types::Timestamp;
use token_authority::proto::v1::{DeleteUserRequest, UpdateUserRequest};
use tonic::Code;

use super::*;
use crate::support::{
    on_both_stores,
    server::{exceeded, wrong_fields},
};

on_both_stores![
    created_token_comes_back_whole_and_its_secret_only_once,
    what_a_creation_leaves_out_is_as_with_the_callers_token,
    no_scopes_are_something_else_than_scopes_not_given,
    owner_is_named_by_uuid_number_handle_or_external_id,
    owner_who_is_unknown_or_not_the_callers_to_name_is_told_alike,
    uuid_is_chosen_by_administrators_alone,
    selected_attributes_alone_are_returned_by_every_method,
    past_end_is_allowed_and_the_token_is_dead_from_its_birth,
    token_is_made_for_active_users_alone,
    user_has_at_most_as_many_tokens_as_the_quota_says,
    unknown_user_of_an_external_system_is_made_with_its_first_token,
];

fn is_base36(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

async fn created_token_comes_back_whole_and_its_secret_only_once(engine: Engine) {
    let server = TestServer::start_with(engine, &["--cluster-id=abc12"]).await;
    server.clock.advance(Duration::from_micros(123_456));
    let alice = person(&server, "alice").await;
    let bob = person(&server, "bob").await;
    let now = server.after(Duration::ZERO);
    let request = Create {
        api_client_id: Some(7),
        scopes: scopes(&["POST /b", "GET /a/", "POST /b"]),
        expires_at: Some(Timestamp { seconds: now.seconds + 60, nanos: 1_999 }),
        ..Default::default()
    };
    let made = alice.by.create(request).await.unwrap();

    let digits = made.uuid().strip_prefix("abc12-gj3su-").expect("cluster and type");
    assert!(is_base36(digits, 15), "{}", made.uuid());
    assert!(is_base36(made.api_token(), 50));
    let digits = made.owner_uuid().strip_prefix("abc12-tpzed-").expect("cluster and type");
    assert!(is_base36(digits, 15), "{}", made.owner_uuid());
    assert!(!made.etag().is_empty());
    let expected = ApiClientAuthorization {
        uuid: made.uuid.clone(),
        api_token: made.api_token.clone(),
        api_client_id: Some(7),
        user_id: Some(alice.number),
        created_by_ip_address: Some(HERE.to_owned()),
        last_used_by_ip_address: None,
        last_used_at: None,
        expires_at: Some(Timestamp { seconds: now.seconds + 60, nanos: 1_000 }),
        owner_uuid: Some(alice.id.clone()),
        scopes: scopes(&["POST /b", "GET /a/", "POST /b"]),
        created_at: Some(now),
        etag: made.etag.clone(),
    };
    assert_eq!(made, expected);
    assert_ne!(alice.number, bob.number, "each user has a number of its own");

    let expected = without_secret(&expected);
    assert_eq!(alice.by.get(made.uuid()).await.unwrap(), expected);
    let listed = alice.by.list(List::default()).await.unwrap().items;
    assert!(listed.contains(&expected));
    assert!(listed.iter().all(|item| item.api_token.is_none()));
    let updated = alice.by.update(change(made.uuid())).await.unwrap();
    assert_eq!(updated, expected);
    assert_eq!(alice.by.delete(made.uuid()).await.unwrap(), expected);
}

async fn what_a_creation_leaves_out_is_as_with_the_callers_token(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let entries = [&*route("CreateApiClientAuthorization"), "GET /a"];
    let first = Create {
        owner_uuid: Some(user.id.clone()),
        api_client_id: Some(7),
        scopes: scopes(&entries),
        expires_at: Some(server.after(HOUR)),
        ..Default::default()
    };
    let first = holder(&server, &server.admin).create(first).await.unwrap();
    let second = holder(&server, &v2(&first)).create(Create::default()).await.unwrap();
    let expected = ApiClientAuthorization {
        uuid: second.uuid.clone(),
        api_token: second.api_token.clone(),
        etag: second.etag.clone(),
        ..first.clone()
    };
    assert_eq!(second, expected);
    assert!(second.uuid != first.uuid && second.api_token != first.api_token);

    let other = Create { api_client_id: Some(8), ..Default::default() };
    let other = holder(&server, &v2(&first)).create(other).await.unwrap();
    assert_eq!(other.api_client_id, Some(8));

    // A personal access token with all scopes stands for `all`, and for no client.
    let plain = holder(&server, &server.admin).create(Create::default()).await.unwrap();
    let told = (plain.api_client_id, plain.scopes, plain.expires_at);
    assert_eq!(told, (None, scopes(&["all"]), None));
    let admin = who(&server, &server.admin).await.unwrap().user.unwrap();
    assert_eq!(plain.owner_uuid, Some(admin.id));
}

async fn no_scopes_are_something_else_than_scopes_not_given(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    for (given, expected) in [(None, scopes(&["all"])), (scopes(&[]), scopes(&[]))] {
        let request = Create { scopes: given, ..Default::default() };
        let made = alice.by.create(request).await.unwrap();
        assert_eq!(made.scopes, expected);
        assert_eq!(alice.by.get(made.uuid()).await.unwrap().scopes, expected);
        assert_eq!(server.verify(&v2(&made)).await.scopes, expected.unwrap().values);
    }
}

async fn owner_is_named_by_uuid_number_handle_or_external_id(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let bob = person(&server, "bob").await;
    let request = UpdateUserRequest {
        user: alice.id.clone(),
        external_id: Some("okta|1".to_owned()),
        ..Default::default()
    };
    server.directory(&server.admin).update_user(request).await.unwrap();
    let owned = |owner_uuid: Option<&str>, user_id| Create {
        owner_uuid: owner_uuid.map(ToOwned::to_owned),
        user_id,
        ..Default::default()
    };
    let administrator = holder(&server, &server.admin);
    for (owner_uuid, user_id) in [
        (Some(&*alice.id), None),
        (None, Some(alice.number)),
        (Some(&*alice.id), Some(alice.number)),
        (Some("handle:alice"), None),
        (Some("external:okta|1"), Some(alice.number)),
    ] {
        for by in [&administrator, &alice.by] {
            let made = by.create(owned(owner_uuid, user_id)).await.unwrap();
            assert_eq!(
                (made.owner_uuid, made.user_id),
                (Some(alice.id.clone()), Some(alice.number))
            );
        }
    }
    let kept = server.kept().await;
    let disagreeing = administrator.create(owned(Some(&alice.id), Some(bob.number))).await;
    assert_eq!(wrong_fields(disagreeing), ["user_id"]);
    assert_eq!(server.kept().await, kept);
}

async fn owner_who_is_unknown_or_not_the_callers_to_name_is_told_alike(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let bob = person(&server, "bob").await;
    let kept = server.kept().await;
    let unknown = "zzzzz-tpzed-unknownunknown0";
    let of = |owner: &str| Create { owner_uuid: Some(owner.to_owned()), ..Default::default() };
    let by_number = |user_id| Create { user_id: Some(user_id), ..Default::default() };
    let foreign = [of(&bob.id), of("handle:bob"), by_number(bob.number)];
    let unknown = [
        of(unknown),
        of("handle:nobody"),
        of("external:nobody"),
        by_number(i64::MAX),
        by_number(0),
        by_number(-1),
    ];
    for request in foreign.iter().chain(&unknown) {
        let answer = alice.by.create(request.clone()).await;
        assert_refused(answer, &denied("CALLER_ROLE"), &format!("{request:?}"));
    }
    for request in unknown {
        let answer = holder(&server, &server.admin).create(request.clone()).await;
        assert_refused(answer, &denied("CALLER_ROLE"), &format!("{request:?}"));
    }
    assert_eq!(server.kept().await, kept, "nothing is kept of what is refused");
}

async fn uuid_is_chosen_by_administrators_alone(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let administrator = holder(&server, &server.admin);
    let named = |uuid: &str| Create {
        uuid: Some(uuid.to_owned()),
        owner_uuid: Some(alice.id.clone()),
        ..Default::default()
    };
    let uuid = "zzzzz-gj3su-0123456789abcde";
    let kept = server.kept().await;
    assert_eq!(wrong_fields(alice.by.create(named(uuid)).await), ["uuid"]);
    for wrong in [
        "",
        "zzzzz-tpzed-0123456789abcde",
        "abc12-gj3su-0123456789abcde",
        "zzzzz-gj3su-0123456789abcd",
        "zzzzz-gj3su-0123456789abcdef",
        "zzzzz-gj3su-0123456789ABCDE",
        "zzzzz-gj3su-0123456789abcd\0",
        "zzzzz_gj3su_0123456789abcde",
        "zzzzz-gj3su-000000000000000",
        "zzzzz-gj3su-anonymouspublic",
        "0198c0de-0000-7000-8000-00000000000a",
    ] {
        assert_eq!(wrong_fields(administrator.create(named(wrong)).await), ["uuid"], "{wrong:?}");
    }
    assert_eq!(server.kept().await, kept, "nothing is kept of what is refused");

    let made = administrator.create(named(uuid)).await.unwrap();
    assert_eq!(made.uuid(), uuid);
    assert_eq!(server.verify(&v2(&made)).await.token_id, uuid);
    let taken = (Code::AlreadyExists, "UUID_TAKEN".to_owned());
    let kept = server.kept().await;
    assert_eq!(refused(administrator.create(named(uuid)).await), taken);
    assert_eq!(server.kept().await, kept, "nothing is kept of what is refused");
    alice.by.delete(uuid).await.unwrap();
    assert_eq!(refused(administrator.create(named(uuid)).await), taken, "deleted is not forgotten");
}

const ATTRIBUTES: [&str; 12] = [
    "uuid",
    "api_token",
    "api_client_id",
    "user_id",
    "created_by_ip_address",
    "last_used_by_ip_address",
    "last_used_at",
    "expires_at",
    "owner_uuid",
    "scopes",
    "created_at",
    "etag",
];

/// What is left of a token if only these attributes are selected.
fn only(token: &ApiClientAuthorization, select: &[&str]) -> ApiClientAuthorization {
    let has = |name| select.contains(&name);
    let token = token.clone();
    ApiClientAuthorization {
        uuid: token.uuid.filter(|_| has("uuid")),
        api_token: token.api_token.filter(|_| has("api_token")),
        api_client_id: token.api_client_id.filter(|_| has("api_client_id")),
        user_id: token.user_id.filter(|_| has("user_id")),
        created_by_ip_address: token.created_by_ip_address.filter(|_| has("created_by_ip_address")),
        last_used_by_ip_address: token
            .last_used_by_ip_address
            .filter(|_| has("last_used_by_ip_address")),
        last_used_at: token.last_used_at.filter(|_| has("last_used_at")),
        expires_at: token.expires_at.filter(|_| has("expires_at")),
        owner_uuid: token.owner_uuid.filter(|_| has("owner_uuid")),
        scopes: token.scopes.filter(|_| has("scopes")),
        created_at: token.created_at.filter(|_| has("created_at")),
        etag: token.etag.filter(|_| has("etag")),
    }
}

async fn selected_attributes_alone_are_returned_by_every_method(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let by = holder(&server, &server.text_of(&user.id, &["admin:all"]).await);
    let request = Create {
        api_client_id: Some(7),
        expires_at: Some(server.after(HOUR)),
        ..Default::default()
    };
    let made = by.create(request.clone()).await.unwrap();
    let uuid = made.uuid();
    let whole = without_secret(&made);
    let singles = ATTRIBUTES.map(|attribute| vec![attribute]);
    for select in singles.into_iter().chain([vec!["scopes", "uuid", "scopes"], ATTRIBUTES.to_vec()])
    {
        let expected = only(&whole, &select);
        assert_eq!(by.get_only(uuid, &select).await.unwrap(), expected, "{select:?}");
        let update = Update { select: texts(&select), ..change(uuid) };
        assert_eq!(by.update(update).await.unwrap(), expected, "{select:?}");
        let list = List { select: texts(&select), ..Default::default() };
        assert_eq!(by.list(list).await.unwrap().items, [expected], "{select:?}");
    }
    let kept = server.kept().await;
    let select = texts(&["uuid", "kind"]);
    assert_eq!(wrong_fields(by.get_only(uuid, &["uuid", "kind"]).await), ["select[1]"]);
    let update = Update { select: select.clone(), scopes: scopes(&[]), ..change(uuid) };
    assert_eq!(wrong_fields(by.update(update).await), ["select[1]"]);
    let list = List { select: select.clone(), ..Default::default() };
    assert_eq!(wrong_fields(by.list(list).await), ["select[1]"]);
    let create = Create { select, ..request.clone() };
    assert_eq!(wrong_fields(by.create(create).await), ["select[1]"]);
    assert_eq!(server.kept().await, kept, "nothing is kept of what is refused");

    for select in [&["api_token", "uuid"][..], &["api_client_id"]] {
        let made = by.create(Create { select: texts(select), ..request.clone() }).await.unwrap();
        assert_eq!(made, only(&made, select));
        assert_eq!(made.api_token.is_some(), select.contains(&"api_token"));
    }
}

async fn past_end_is_allowed_and_the_token_is_dead_from_its_birth(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let now = server.after(Duration::ZERO);
    for expires_at in [now, Timestamp { seconds: now.seconds - 1, nanos: 0 }, Timestamp::default()]
    {
        let request = Create { expires_at: Some(expires_at), ..Default::default() };
        let made = alice.by.create(request).await.unwrap();
        assert_eq!(made.expires_at, Some(expires_at));
        assert_eq!(reason(&server, &v2(&made)).await, Reason::Expired);
        assert_eq!(alice.by.get(made.uuid()).await.unwrap(), without_secret(&made));
    }
}

async fn token_is_made_for_active_users_alone(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let administrator = holder(&server, &server.admin);
    let request = Create { owner_uuid: Some(alice.id.clone()), ..Default::default() };
    let inactive =
        UpdateUserRequest { user: alice.id.clone(), is_active: Some(false), ..Default::default() };
    server.directory(&server.admin).update_user(inactive).await.unwrap();
    let kept = server.kept().await;
    let expected = (Code::FailedPrecondition, "USER_INACTIVE".to_owned());
    assert_eq!(refused(administrator.create(request.clone()).await), expected);
    assert_eq!(server.kept().await, kept);
    assert_eq!(refused(alice.by.create(Create::default()).await), unauthenticated());

    let delete = DeleteUserRequest { user: alice.id.clone() };
    server.directory(&server.admin).delete_user(delete).await.unwrap();
    assert_eq!(
        refused(administrator.create(request).await),
        denied("CALLER_ROLE"),
        "it is unknown"
    );
}

async fn user_has_at_most_as_many_tokens_as_the_quota_says(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-authorizations-per-user=3"]).await;
    let alice = person(&server, "alice").await;
    let full = (Code::ResourceExhausted, "TOKEN_QUOTA".to_owned());
    let short = Create { expires_at: Some(server.after(MINUTE)), ..Default::default() };
    let first = alice.by.create(Create::default()).await.unwrap();
    let short = alice.by.create(short).await.unwrap();
    let kept = server.kept().await;
    assert_eq!(refused(alice.by.create(Create::default()).await), full);
    let for_alice = Create { owner_uuid: Some(alice.id.clone()), ..Default::default() };
    assert_eq!(refused(holder(&server, &server.admin).create(for_alice).await), full);
    assert_eq!(server.kept().await, kept);
    // What is of another kind, or another's, does not count.
    server.token_of(&alice.id, &[]).await;
    person(&server, "bob").await;

    server.clock.advance(MINUTE);
    let last = alice.by.create(Create::default()).await.unwrap();
    assert_eq!(refused(alice.by.create(Create::default()).await), full, "one was expired");
    alice.by.delete(first.uuid()).await.unwrap();
    alice.by.create(Create::default()).await.unwrap();
    assert_eq!(refused(alice.by.create(Create::default()).await), full, "one was deleted");

    // Nor does one come back, or from somebody else, when there is no room.
    let revived = Update { update_mask: mask(&["expires_at"]), ..change(short.uuid()) };
    let administrator = holder(&server, &server.admin);
    let given = administrator.create(Create::default()).await.unwrap();
    let given = Update { user_id: Some(alice.number), ..change(given.uuid()) };
    let kept = server.kept().await;
    assert_eq!(refused(alice.by.update(revived.clone()).await), full);
    assert_eq!(refused(administrator.update(given.clone()).await), full);
    assert_eq!(server.kept().await, kept);
    let narrower = Update { scopes: scopes(&[]), ..change(short.uuid()) };
    alice.by.update(narrower).await.unwrap();
    alice.by.delete(last.uuid()).await.unwrap();
    alice.by.update(revived).await.unwrap();
    assert_eq!(refused(administrator.update(given).await), full, "one came back");
}

async fn unknown_user_of_an_external_system_is_made_with_its_first_token(engine: Engine) {
    let server = TestServer::start_with(engine, &["--jit-users"]).await;
    let alice = person(&server, "alice").await;
    let of = |owner: &str| Create { owner_uuid: Some(owner.to_owned()), ..Default::default() };
    let kept = server.kept().await;
    assert_eq!(refused(alice.by.create(of("external:okta|9")).await), denied("CALLER_ROLE"));
    let handle = of("handle:nobody");
    let administrator = holder(&server, &server.admin);
    assert_eq!(refused(administrator.create(handle).await), denied("CALLER_ROLE"));
    assert_eq!(server.kept().await, kept);

    let first = administrator.create(of("external:okta|9")).await.unwrap();
    let second = administrator.create(of("external:okta|9")).await.unwrap();
    assert_eq!((&second.owner_uuid, second.user_id), (&first.owner_uuid, first.user_id));
    let told = who(&server, &v2(&first)).await.unwrap().user.unwrap();
    assert_eq!((Some(told.id), &*told.external_id.unwrap()), (first.owner_uuid, "okta|9"));
    assert!(!told.is_admin);
    // It can do no more than what made it.
    let limited = server.authorization_of("handle:admin", Some(&["POST /"])).await;
    let answer = holder(&server, &v2(&limited))
        .create(Create { scopes: scopes(&["all"]), ..of("external:okta|10") })
        .await;
    assert_eq!(exceeded(answer), "scopes");
}
