use token_authority::proto::v1::{
    CreatePersonalAccessTokenRequest, CreatePersonalAccessTokenResponse, TokenKind,
    create_personal_access_token_request::Expiry,
};

use super::*;
use crate::support::{
    on_both_stores,
    server::{exceeded, wrong_fields},
};

on_both_stores![
    each_may_do_what_the_table_says,
    system_root_token_is_told_what_it_is,
    system_root_token_is_a_subject_of_verify_only_if_that_is_switched_on,
    without_trusted_tokens_each_sees_itself_and_the_root_makes_and_lists,
    personal_access_token_needs_all_scopes,
    token_that_is_bound_to_a_workspace_reaches_none,
    no_token_is_made_with_wider_scopes_than_the_callers,
    no_token_is_made_that_outlives_the_callers,
    token_is_limited_to_the_addresses_of_what_made_it,
    only_all_scopes_cross_from_one_kind_to_the_other,
    only_administrators_verify_by_an_authorization,
];

/// Who calls, by SEEDS 3.7.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Column {
    Regular,
    Administrator,
    Root,
}

async fn each_may_do_what_the_table_says(engine: Engine) {
    let server = start_with_root(engine, &[]).await;
    let bob = person(&server, "bob").await;
    let root = holder(&server, ROOT);
    let system = root.create_system(CreateSystem::default()).await.unwrap().owner_uuid.unwrap();
    let alice = person(&server, "alice").await;
    let chief = chief(&server, "chief").await;
    let columns = [
        (Column::Regular, &alice.by, &alice.id),
        (Column::Administrator, &chief.by, &chief.id),
        (Column::Root, &root, &system),
    ];
    for (column, by, self_id) in columns {
        // What the three columns of a row say.
        let row =
            |regular: &(Code, String), administrator: &(Code, String), root: &(Code, String)| {
                match column {
                    Column::Regular => regular,
                    Column::Administrator => administrator,
                    Column::Root => root,
                }
                .clone()
            };
        let yes = &(Code::Ok, String::new());
        let (role, not_found) = (&denied("CALLER_ROLE"), &not_found());
        let invalid = &(Code::InvalidArgument, String::new());
        let came_of = |answer: Answer| match answer {
            Ok(_) => yes.clone(),
            Err(status) => refused(Err::<(), _>(status)),
        };

        let own = by.create(Create::default()).await.unwrap();
        assert_eq!(own.owner_uuid(), self_id, "create for self");
        let theirs = server.authorization_of(&bob.id, None).await;

        let for_bob = Create { owner_uuid: Some(bob.id.clone()), ..Default::default() };
        let told = came_of(by.create(for_bob).await);
        assert_eq!(told, row(role, yes, yes), "{column:?} creates for another");

        for (token, expected) in [(&own, yes), (&theirs, &row(not_found, not_found, yes))] {
            let update = Update { scopes: scopes(&["GET /a"]), ..change(token.uuid()) };
            for answer in
                [by.get(token.uuid()).await, by.update(update).await, by.delete(token.uuid()).await]
            {
                assert_eq!(&came_of(answer), expected, "{column:?} and {}", token.owner_uuid());
            }
            let is_ended = expected == yes;
            assert_eq!(reason(&server, &v2(token)).await == Reason::Revoked, is_ended);
        }

        let listed = by.list(List::default()).await.unwrap();
        let others = listed.items.iter().filter(|item| item.owner_uuid() != self_id).count();
        assert_eq!(others > 0, column == Column::Root, "{column:?} lists others'");
        assert_eq!(listed.items_available, i64::try_from(listed.items.len()).ok());
        if column == Column::Root {
            let all = "SELECT count(*) FROM credentials \
                       WHERE kind = 'api_client_authorization' AND revoked_at IS NULL";
            assert_eq!(listed.items_available, Some(server.place.number(all).await));
        }

        let told = came_of(by.create_system(CreateSystem::default()).await);
        assert_eq!(told, row(role, yes, yes), "{column:?} calls create_system_auth");

        let uuid = format!("zzzzz-gj3su-chosenchosen00{}", column as u8);
        let told = came_of(by.create(Create { uuid: Some(uuid), ..Default::default() }).await);
        assert_eq!(told, row(invalid, yes, yes), "{column:?} chooses a uuid");
        let uuid = Some(format!("zzzzz-tpzed-chosenchosen00{}", column as u8));
        assert_eq!(wrong_fields(by.create(Create { uuid, ..Default::default() }).await), ["uuid"]);

        let own = by.create(Create::default()).await.unwrap();
        let theirs = server.authorization_of(&alice.id, None).await;
        let give = |uuid: &str| Update { user_id: Some(bob.number), ..change(uuid) };
        let told = came_of(by.update(give(own.uuid())).await);
        assert_eq!(told, row(role, yes, yes), "{column:?} changes the owner of its own");
        let told = came_of(by.update(give(theirs.uuid())).await);
        assert_eq!(told, row(role, not_found, yes), "{column:?} changes the owner of alice's");
    }
}

async fn system_root_token_is_told_what_it_is(engine: Engine) {
    let server = start_with_root(engine, &["--cluster-id=abc12"]).await;
    let root = holder(&server, ROOT);
    let system = "abc12-tpzed-000000000000000";
    let told = root.current().await.unwrap();
    assert_eq!((told.uuid(), told.owner_uuid()), ("abc12-gj3su-000000000000000", system));
    assert_eq!((told.scopes, told.expires_at), (scopes(&["all"]), None));
    assert_eq!(told.api_token.as_deref(), Some(ROOT));
    assert_eq!(root.current_for(Some("xyz12")).await.unwrap().api_token, None);
    let told = who(&server, ROOT).await.unwrap();
    assert_eq!((told.kind(), told.scopes), (TokenKind::SystemRoot, texts(&["all"])));
    assert_eq!((&*told.token_id, told.created_at), ("abc12-gj3su-000000000000000", None));
    let user = told.user.unwrap();
    assert_eq!((&*user.id, user.is_admin), (system, true));
    // It has no row.
    assert_eq!(root.uuids().await, [""; 0]);
    for answer in [
        root.get("abc12-gj3su-000000000000000").await,
        root.update(change("abc12-gj3su-000000000000000")).await,
        root.delete("abc12-gj3su-000000000000000").await,
    ] {
        assert_eq!(refused(answer), not_found());
    }
    for almost in [&ROOT[1..], &format!("{ROOT}0"), &ROOT.to_lowercase(), &format!("v2//{ROOT}")] {
        assert_eq!(refused(holder(&server, almost).current().await), unauthenticated());
    }
}

async fn system_root_token_is_a_subject_of_verify_only_if_that_is_switched_on(engine: Engine) {
    let mut place = Place::new(engine).await;
    for (more, is_subject) in [(&[][..], false), (&["--verify-system-root-token"], true)] {
        let server = start_with_root_on(place, more).await;
        let told = server.verify(ROOT).await;
        assert_eq!(told.active, is_subject);
        if is_subject {
            assert_eq!((told.kind(), told.scopes), (TokenKind::SystemRoot, texts(&["all"])));
            assert_eq!(told.user_id, "zzzzz-tpzed-000000000000000");
            let required =
                VerifyRequest { required_scopes: texts(&["read:x"]), ..question(ROOT, "GET", "/") };
            assert!(ask(&server, required).await.active);
        } else {
            assert_eq!((told.reason(), told.refusal), (Reason::NotFound, None));
        }
        place = server.stop().await;
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

async fn without_trusted_tokens_each_sees_itself_and_the_root_makes_and_lists(engine: Engine) {
    let server = start_with_root(engine, &[]).await;
    let alice = person(&server, "alice").await;
    let chief = chief(&server, "chief").await;
    let (alice_text, chief_text) = (alice.text(), chief.text());
    let (alice_uuid, chief_uuid) = (alice.uuid().to_owned(), chief.uuid().to_owned());
    drop((alice, chief));

    let server = start_with_root_on(server.stop().await, &["--issue-trusted-tokens=false"]).await;
    let off = denied("TRUSTED_TOKENS_OFF");
    let kept = server.kept().await;
    for (text, uuid) in
        [(&alice_text, &alice_uuid), (&chief_text, &chief_uuid), (&server.admin, &alice_uuid)]
    {
        let by = holder(&server, text);
        for (answer, method) in by.each_method(uuid).await.into_iter().zip(METHODS) {
            assert_refused(answer, &off, method);
        }
        for (answer, method) in by.each_method(UNKNOWN).await.into_iter().zip(METHODS) {
            assert_refused(answer, &off, method);
        }
    }
    assert_eq!(server.kept().await, kept);
    assert_eq!(holder(&server, &alice_text).current().await.unwrap().uuid(), alice_uuid);
    assert_eq!(reason(&server, &alice_text).await, Reason::Unspecified);

    let root = holder(&server, ROOT);
    for (answer, method) in root.each_method(&alice_uuid).await.into_iter().zip(METHODS) {
        let may =
            ["CreateApiClientAuthorization", "CreateSystemAuth", "ListApiClientAuthorizations"];
        if may.contains(&method) {
            answer.unwrap();
        } else {
            assert_refused(answer, &off, method);
        }
    }
    assert!(root.uuids().await.contains(&alice_uuid));
    root.current().await.unwrap();
    assert_eq!(reason(&server, &alice_text).await, Reason::Unspecified);
}

async fn personal_access_token_needs_all_scopes(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = chief(&server, "chief").await;
    let control = ["read:tokens", "write:tokens", "issue:tokens", "verify:tokens"];
    let more = ["read:directory", "write:directory", "read:audit", "read:*", "write:*"];
    let most = [&control[..], &more].concat();
    let kept = server.text_of(&chief.id, &most).await;
    for token in [kept, server.text_of(&chief.id, &[]).await] {
        let by = holder(&server, &token);
        let before = server.kept().await;
        for uuid in [chief.uuid(), UNKNOWN] {
            for (answer, method) in by.each_method(uuid).await.into_iter().zip(METHODS) {
                assert_refused(answer, &denied("CALLER_SCOPE"), method);
            }
        }
        assert_eq!(server.kept().await, before);
    }
    let by = holder(&server, &server.text_of(&chief.id, &["admin:all"]).await);
    for answer in by.each_method(chief.uuid()).await {
        answer.unwrap();
    }
}

async fn token_that_is_bound_to_a_workspace_reaches_none(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = chief(&server, "chief").await;
    let workspace = server.workspace("w").await;
    server.join(&chief.id, &workspace, "owner").await;
    let by = holder(&server, &server.bound_with(&chief.id, &workspace, &["admin:all"]).await);
    let kept = server.kept().await;
    for request in [
        Create::default(),
        Create { owner_uuid: Some(chief.id.clone()), ..Default::default() },
        Create { owner_uuid: Some("handle:admin".to_owned()), ..Default::default() },
    ] {
        assert_eq!(refused(by.create(request).await), denied("CALLER_SCOPE"));
    }
    let answer = by.create_system(CreateSystem::default()).await;
    assert_eq!(refused(answer), denied("CALLER_SCOPE"));
    for answer in [
        by.get(chief.uuid()).await,
        by.update(change(chief.uuid())).await,
        by.delete(chief.uuid()).await,
        by.current().await,
    ] {
        assert_eq!(refused(answer), not_found());
    }
    let listed = by.list(List::default()).await.unwrap();
    assert_eq!((listed.items, listed.items_available), (Vec::new(), Some(0)));
    assert_eq!(server.kept().await, kept);
    assert_eq!(reason(&server, &chief.text()).await, Reason::Unspecified);
}

async fn no_token_is_made_with_wider_scopes_than_the_callers(engine: Engine) {
    let server = TestServer::start(engine).await;
    let create = route("CreateApiClientAuthorization");
    for owner in [server.user("alice").await, server.administrator("chief").await] {
        let held = [&*create, "GET /a/", "POST /p"];
        let limited = server.authorization_of(&owner.id, Some(&held)).await;
        let by = holder(&server, &v2(&limited));
        let kept = server.kept().await;
        for wider in [
            &["all"][..],
            &["GET /"],
            &["GET /a"],
            &["GET /ab/"],
            &["get /a/b"],
            &["HEAD /a"],
            &["POST /a/"],
            &["POST /p/"],
            &["POST /p/q"],
            &["GET /a/b", "PUT /a/b"],
            &["nonsense"],
            &[""],
            &["ALL"],
        ] {
            let request = Create { scopes: scopes(wider), ..Default::default() };
            assert_eq!(exceeded(by.create(request).await), "scopes", "{wider:?}");
        }
        assert_eq!(server.kept().await, kept);
        for covered in [
            &[][..],
            &["GET /a/"],
            &["GET /a/b", "GET /a/b/", "POST /p"],
            &["HEAD /a/b"],
            &["HEAD /a/"],
            &held,
        ] {
            let request = Create { scopes: scopes(covered), ..Default::default() };
            assert_eq!(by.create(request).await.unwrap().scopes, scopes(covered));
        }
    }
}

/// A personal access token with all scopes, made as `request` says.
async fn everything(
    server: &TestServer,
    user_id: &str,
    request: CreatePersonalAccessTokenRequest,
) -> CreatePersonalAccessTokenResponse {
    let request = CreatePersonalAccessTokenRequest {
        name: "of a test".to_owned(),
        scopes: texts(&["admin:all"]),
        user_id: Some(user_id.to_owned()),
        ..request
    };
    let made = server.tokens(&server.admin).create_personal_access_token(request).await;
    made.unwrap().into_inner()
}

async fn no_token_is_made_that_outlives_the_callers(engine: Engine) {
    let server = TestServer::start(engine).await;
    let end = server.after(HOUR);
    for owner in [server.user("alice").await, server.administrator("chief").await] {
        let owned = Create {
            owner_uuid: Some(owner.id.clone()),
            expires_at: Some(end),
            ..Default::default()
        };
        let authorization = holder(&server, &server.admin).create(owned).await.unwrap();
        let expiry = Some(Expiry::ExpiresAt(end));
        let request = CreatePersonalAccessTokenRequest { expiry, ..Default::default() };
        let pat = everything(&server, &owner.id, request).await.token;
        for by in [holder(&server, &v2(&authorization)), holder(&server, &pat)] {
            let kept = server.kept().await;
            let later = Some(server.after(HOUR + Duration::from_micros(1)));
            let request = Create { expires_at: later, ..Default::default() };
            assert_eq!(exceeded(by.create(request).await), "expires_at");
            assert_eq!(server.kept().await, kept);
            for (given, expected) in
                [(None, end), (Some(end), end), (Some(server.after(MINUTE)), server.after(MINUTE))]
            {
                let request = Create { expires_at: given, ..Default::default() };
                assert_eq!(by.create(request).await.unwrap().expires_at, Some(expected));
            }
            if owner.is_admin {
                let made = by.create_system(CreateSystem::default()).await.unwrap();
                assert_eq!(made.expires_at, Some(end));
            }
        }
    }
}

async fn token_is_limited_to_the_addresses_of_what_made_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let chief = server.administrator("chief").await;
    let alice = server.user("alice").await;
    let allowed_ips = texts(&["127.0.0.0/8", "203.0.113.7"]);
    let request = CreatePersonalAccessTokenRequest { allowed_ips, ..Default::default() };
    let pat = everything(&server, &chief.id, request).await.token;
    let by = holder(&server, &pat);
    let first = by.create(Create::default()).await.unwrap();
    let for_alice = Create { owner_uuid: Some(alice.id), ..Default::default() };
    let made = [
        holder(&server, &v2(&first)).create(Create::default()).await.unwrap(),
        by.create(for_alice).await.unwrap(),
        by.create_system(CreateSystem::default()).await.unwrap(),
        first,
    ];
    for token in made {
        let told = who(&server, &v2(&token)).await.unwrap();
        assert_eq!(told.allowed_ips, ["127.0.0.0/8", "203.0.113.7/32"]);
        for (address, expected) in [
            (Some("203.0.113.7"), Reason::Unspecified),
            (Some("203.0.113.8"), Reason::IpNotAllowed),
            (None, Reason::IpNotAllowed),
        ] {
            let client_ip = address.map(ToOwned::to_owned);
            let request = VerifyRequest { token: v2(&token), client_ip, ..Default::default() };
            assert_eq!(ask(&server, request).await.reason(), expected, "{address:?}");
        }
    }
}

async fn only_all_scopes_cross_from_one_kind_to_the_other(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let limited = server.authorization_of(&alice.id, Some(&["POST /", "GET /"])).await;
    let request = CreatePersonalAccessTokenRequest {
        name: "of a test".to_owned(),
        scopes: texts(&["read:notes"]),
        ..Default::default()
    };
    let kept = server.kept().await;
    let bare = CreatePersonalAccessTokenRequest { scopes: Vec::new(), ..request.clone() };
    for request in [request.clone(), bare] {
        let answer = server.tokens(&v2(&limited)).create_personal_access_token(request).await;
        assert_eq!(exceeded(answer), "scopes");
    }
    assert_eq!(server.kept().await, kept);
    let made = server.tokens(&alice.text()).create_personal_access_token(request).await;
    assert!(server.verify(&made.unwrap().into_inner().token).await.active);
    // And by `admin:all` to what an authorization may have.
    let everything = holder(&server, &server.text_of(&alice.id, &["admin:all"]).await);
    let request = Create { scopes: scopes(&["all"]), ..Default::default() };
    assert_eq!(everything.create(request).await.unwrap().scopes, scopes(&["all"]));
}

async fn only_administrators_verify_by_an_authorization(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let chief = chief(&server, "chief").await;
    let path = "POST /token_authority.v1.Verification/Verify";
    let by_path = server.authorization_of(&chief.id, Some(&[path])).await;
    let elsewhere = server.authorization_of(&chief.id, Some(&["GET /", "POST /other"])).await;
    for (token, expected) in [
        (chief.text(), None),
        (v2(&by_path), None),
        (v2(&elsewhere), Some(denied("CALLER_SCOPE"))),
        (alice.text(), Some(denied("CALLER_ROLE"))),
    ] {
        let request = VerifyRequest { token: alice.text(), ..Default::default() };
        let answer = server.verification(&token).verify(request).await;
        match expected {
            None => assert!(answer.unwrap().into_inner().active),
            Some(expected) => assert_eq!(refused(answer), expected),
        }
    }
}
