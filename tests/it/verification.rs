use std::time::Duration;

use token_authority::proto::v1::{
    Consistency, CreatePersonalAccessTokenRequest, CreatePersonalAccessTokenResponse,
    PersonalAccessToken, Reason, Refusal, RevokePersonalAccessTokenRequest, TokenKind,
    UpdateUserRequest, VerifyRequest, VerifyResponse, WhoAmIRequest, WhoAmIResponse, WhoAmIUser,
    consistency::Requirement, create_personal_access_token_request::Expiry,
    verification_client::VerificationClient,
};
use tonic::{Code, Response, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, refused, unknown_token, wrong_fields},
};

on_both_stores![
    good_token_is_told_whole,
    what_proves_nothing_is_told_alike,
    revoked_token_is_refused_with_its_reason,
    token_is_inactive_from_its_expires_at_on,
    first_reason_that_holds_is_told,
    scopes_that_are_missing_are_named,
    request_is_met_by_a_personal_access_token_only_with_scopes_beside_it,
    token_serves_in_its_workspace_or_where_its_user_is_a_member,
    inactive_workspace_or_organization_refuses_until_it_is_active_again,
    token_limited_to_addresses_is_good_from_there_alone,
    deactivated_users_tokens_are_refused_until_it_is_active_again,
    leaving_a_workspace_ends_its_tokens_for_good,
    raised_epoch_ends_every_token_born_before_it,
    token_made_in_the_future_is_good,
    answer_knows_of_the_revision_that_is_asked_for,
    revision_of_no_history_is_unreachable,
    caller_is_told_what_its_own_token_is,
    token_is_presented_as_bearer_or_oauth2_and_once,
    caller_is_judged_by_the_address_it_calls_from,
];

const MINUTE: Duration = Duration::from_mins(1);
const UNKNOWN: &str = "0198c0de-0000-7000-8000-000000000001";

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn question(token: &str) -> VerifyRequest {
    VerifyRequest { token: token.to_owned(), ..Default::default() }
}

fn made(created: &CreatePersonalAccessTokenResponse) -> &PersonalAccessToken {
    created.personal_access_token.as_ref().unwrap()
}

/// What the administrator is told.
async fn ask(server: &TestServer, request: VerifyRequest) -> VerifyResponse {
    server.verification(&server.admin).verify(request).await.unwrap().into_inner()
}

async fn reason(server: &TestServer, request: VerifyRequest) -> Reason {
    let answer = ask(server, request).await;
    assert_eq!(answer.active, answer.reason() == Reason::Unspecified);
    answer.reason()
}

/// A token that the administrator makes as `request` says.
async fn token_as(
    server: &TestServer,
    user_id: &str,
    request: CreatePersonalAccessTokenRequest,
) -> CreatePersonalAccessTokenResponse {
    let request = CreatePersonalAccessTokenRequest {
        name: "of a test".to_owned(),
        user_id: Some(user_id.to_owned()),
        ..request
    };
    let created = server.tokens(&server.admin).create_personal_access_token(request).await;
    created.unwrap().into_inner()
}

async fn bound(server: &TestServer, user_id: &str, workspace_id: &str) -> String {
    let workspace_id = Some(workspace_id.to_owned());
    let request = CreatePersonalAccessTokenRequest { workspace_id, ..Default::default() };
    token_as(server, user_id, request).await.token
}

/// Revokes a token and gives the revision of that.
async fn revoke(server: &TestServer, created: &CreatePersonalAccessTokenResponse) -> String {
    let id = made(created).id.clone();
    let request = RevokePersonalAccessTokenRequest { id, include_descendants: false };
    let answer = server.tokens(&server.admin).revoke_personal_access_token(request).await;
    answer.unwrap().into_inner().revision
}

async fn activate(server: &TestServer, user_id: &str, is_active: bool) {
    let request = UpdateUserRequest {
        user: user_id.to_owned(),
        is_active: Some(is_active),
        ..Default::default()
    };
    server.directory(&server.admin).update_user(request).await.unwrap();
}

/// A refusal as it must be: nothing set beside it but what varies per call.
fn refusal(answer: VerifyResponse, reason: Reason) -> Option<Refusal> {
    assert!(!answer.revision.is_empty());
    let expected = VerifyResponse {
        reason: reason.into(),
        refusal: answer.refusal.clone(),
        revision: answer.revision.clone(),
        ..Default::default()
    };
    assert_eq!(answer, expected);
    answer.refusal
}

async fn good_token_is_told_whole(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let request = UpdateUserRequest {
        user: user.id.clone(),
        external_id: Some("okta|1".to_owned()),
        ..Default::default()
    };
    server.directory(&server.admin).update_user(request).await.unwrap();
    let workspace = server.workspace("w").await;
    server.join(&user.id, &workspace, "member").await;
    let expires_at = server.after(Duration::from_micros(1_234_567));
    let request = CreatePersonalAccessTokenRequest {
        scopes: texts(&["write:notes", "read:*"]),
        workspace_id: Some(workspace.clone()),
        expiry: Some(Expiry::ExpiresAt(expires_at)),
        ..Default::default()
    };
    let created = token_as(&server, &user.id, request).await;
    let answer = server.verify(&created.token).await;
    assert!(!answer.revision.is_empty());
    let expected = VerifyResponse {
        active: true,
        reason: Reason::Unspecified.into(),
        token_id: made(&created).id.clone(),
        kind: TokenKind::PersonalAccessToken.into(),
        user_id: user.id.clone(),
        user_external_id: Some("okta|1".to_owned()),
        organization_id: made(&created).organization_id.clone(),
        organization_external_id: Some("org:w".to_owned()),
        workspace_id: Some(workspace),
        workspace_external_id: Some("ws:w".to_owned()),
        scopes: texts(&["write:notes", "read:*"]),
        expires_at: Some(expires_at),
        refusal: None,
        revision: answer.revision.clone(),
        max_age: None,
        stale: false,
        ask_again: false,
    };
    assert_eq!(answer, expected);

    let unbound = server.token_of(&user.id, &[]).await;
    let answer = server.verify(&unbound.token).await;
    let expected = VerifyResponse {
        token_id: made(&unbound).id.clone(),
        organization_id: None,
        organization_external_id: None,
        workspace_id: None,
        workspace_external_id: None,
        scopes: Vec::new(),
        expires_at: None,
        ..expected
    };
    assert_eq!(answer, expected);
}

async fn what_proves_nothing_is_told_alike(engine: Engine) {
    let server = TestServer::start(engine).await;
    let token = server.admin.clone();
    let (body, last) = token.split_at(token.len() - 1);
    let other_last = if last == "0" { "1" } else { "0" };
    let malformed = [
        "x".to_owned(),
        "pat_".to_owned(),
        format!("{body}{other_last}"),
        format!("{token} "),
        format!("Bearer {token}"),
        token.replace("pat_", "tok_"),
        "v2/zzzzz-gj3su-0123456789abcde/3kg6k6lzmp9kj5cpkcoxie963cmvjahbt2fod9zru30k1jqdm"
            .to_owned(),
        "x".repeat(10_000),
        "\0".to_owned(),
    ];
    for text in malformed {
        // Nothing had to be looked up, so no revision is told either.
        let expected =
            VerifyResponse { reason: Reason::NotFound.into(), ..VerifyResponse::default() };
        assert_eq!(server.verify(&text).await, expected, "{text}");
    }
    let foreign_prefix = {
        let random = token_authority::random::bytes();
        let prefix = "other_".parse().unwrap();
        token_authority::domain::Token::from_random(&prefix, &random).expose().to_owned()
    };
    assert_eq!(reason(&server, question(&foreign_prefix)).await, Reason::NotFound);
    assert_eq!(refusal(server.verify(&unknown_token()).await, Reason::NotFound), None);
    for kind in [TokenKind::ApiClientAuthorization, TokenKind::SystemRoot] {
        let request = VerifyRequest { kinds: vec![kind.into()], ..question(&token) };
        assert_eq!(refusal(ask(&server, request).await, Reason::NotFound), None, "{kind:?}");
    }
    let kinds =
        vec![TokenKind::ApiClientAuthorization.into(), TokenKind::PersonalAccessToken.into()];
    assert!(ask(&server, VerifyRequest { kinds, ..question(&token) }).await.active);
}

async fn revoked_token_is_refused_with_its_reason(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let created = server.token_of(&user.id, &["read:notes"]).await;
    assert!(server.verify(&created.token).await.active);
    server.clock.advance(MINUTE);
    revoke(&server, &created).await;
    let expected = Refusal {
        token_id: made(&created).id.clone(),
        kind: TokenKind::PersonalAccessToken.into(),
        user_id: user.id,
        expires_at: None,
        revoked_at: Some(server.after(Duration::ZERO)),
        missing_scopes: Vec::new(),
    };
    let answer = server.verify(&created.token).await;
    assert_eq!(refusal(answer, Reason::Revoked), Some(expected));
    server.stop().await;
}

async fn token_is_inactive_from_its_expires_at_on(engine: Engine) {
    let server = TestServer::start_with(engine, &["--pat-default-lifetime=60s"]).await;
    let user = server.user("alice").await;
    let created = server.token_of(&user.id, &[]).await;
    server.clock.advance(MINUTE - Duration::from_micros(1));
    assert!(server.verify(&created.token).await.active);
    server.clock.advance(Duration::from_micros(1));
    let now = Some(server.after(Duration::ZERO));
    let told = refusal(server.verify(&created.token).await, Reason::Expired).unwrap();
    assert_eq!((told.expires_at, told.revoked_at), (now, None));
    // Revoked wins over expired.
    revoke(&server, &created).await;
    let told = refusal(server.verify(&created.token).await, Reason::Revoked).unwrap();
    assert_eq!((told.expires_at, told.revoked_at), (now, now));
}

async fn first_reason_that_holds_is_told(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let workspace = server.workspace("w").await;
    server.join(&user.id, &workspace, "member").await;
    let request = CreatePersonalAccessTokenRequest {
        workspace_id: Some(workspace.clone()),
        allowed_ips: texts(&["10.0.0.0/8"]),
        expiry: Some(Expiry::ExpiresAt(server.after(MINUTE))),
        ..Default::default()
    };
    let created = token_as(&server, &user.id, request).await;
    // From the last reason to the first: each is told before those that hold already.
    let mut request =
        VerifyRequest { client_ip: Some("10.0.0.1".to_owned()), ..question(&created.token) };
    assert_eq!(reason(&server, request.clone()).await, Reason::Unspecified);
    request.required_scopes = texts(&["read:notes"]);
    assert_eq!(reason(&server, request.clone()).await, Reason::InsufficientScope);
    request.client_ip = None;
    assert_eq!(reason(&server, request.clone()).await, Reason::IpNotAllowed);
    request.workspace_id = Some(UNKNOWN.to_owned());
    assert_eq!(reason(&server, request.clone()).await, Reason::WrongWorkspace);
    server.change("UPDATE workspaces SET is_active = FALSE").await;
    assert_eq!(reason(&server, request.clone()).await, Reason::WorkspaceInactive);
    activate(&server, &user.id, false).await;
    assert_eq!(reason(&server, request.clone()).await, Reason::OwnerInactive);
    server.clock.advance(MINUTE);
    assert_eq!(reason(&server, request.clone()).await, Reason::Expired);
    server.leave(&user.id, &workspace).await;
    assert_eq!(reason(&server, request.clone()).await, Reason::Revoked);
    revoke(&server, &created).await;
    let told = refusal(ask(&server, request.clone()).await, Reason::Revoked).unwrap();
    assert!(told.missing_scopes.is_empty(), "they are named for INSUFFICIENT_SCOPE alone");
    request.kinds = vec![TokenKind::ApiClientAuthorization.into()];
    assert_eq!(refusal(ask(&server, request).await, Reason::NotFound), None);
}

async fn scopes_that_are_missing_are_named(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let token = server.text_of(&user.id, &["read:*", "write:notes", "read:tokens"]).await;
    let missing = async |token: &str, required: &[&str]| {
        let request = VerifyRequest { required_scopes: texts(required), ..question(token) };
        let answer = ask(&server, request).await;
        if answer.active {
            return Vec::new();
        }
        refusal(answer, Reason::InsufficientScope).unwrap().missing_scopes
    };
    for covered in [&[][..], &["read:notes", "read:*", "write:notes"], &["read:tokens"]] {
        assert!(missing(&token, covered).await.is_empty(), "{covered:?}");
    }
    // A star is the applications': it never stands for a control scope.
    let required = ["write:mail", "read:notes", "*:notes", "read:directory", "write:mail"];
    let expected = ["write:mail", "*:notes", "read:directory"];
    assert_eq!(missing(&token, &required).await, expected);
    assert!(missing(&server.admin, &required).await.is_empty(), "admin:all is every scope");
}

async fn request_is_met_by_a_personal_access_token_only_with_scopes_beside_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let request = VerifyRequest {
        request_method: Some("GET".to_owned()),
        request_path: Some("/notes/1".to_owned()),
        ..question(&server.admin)
    };
    let told = refusal(ask(&server, request.clone()).await, Reason::InsufficientScope).unwrap();
    assert!(told.missing_scopes.is_empty(), "no scope would have met it");
    let met = VerifyRequest { required_scopes: texts(&["read:notes"]), ..request.clone() };
    assert_eq!(reason(&server, met).await, Reason::Unspecified);
    let user = server.user("alice").await;
    let limited = server.text_of(&user.id, &["write:notes"]).await;
    let unmet =
        VerifyRequest { token: limited, required_scopes: texts(&["read:notes"]), ..request };
    let told = refusal(ask(&server, unmet).await, Reason::InsufficientScope).unwrap();
    assert_eq!(told.missing_scopes, ["read:notes"]);
}

async fn token_serves_in_its_workspace_or_where_its_user_is_a_member(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let [own, also, other] = [
        server.workspace("own").await,
        server.workspace("also").await,
        server.workspace("o").await,
    ];
    server.join(&user.id, &own, "admin").await;
    server.join(&user.id, &also, "guest").await;
    let unbound = server.text_of(&user.id, &[]).await;
    let bound = bound(&server, &user.id, &own).await;
    let (good, wrong) = (Reason::Unspecified, Reason::WrongWorkspace);
    for (token, expected) in
        [(&bound, [good, wrong, wrong, wrong]), (&unbound, [good, good, wrong, wrong])]
    {
        for (workspace, expected) in [&*own, &*also, &*other, "x"].into_iter().zip(expected) {
            let workspace_id = Some(workspace.to_owned());
            let request = VerifyRequest { workspace_id, ..question(token) };
            assert_eq!(reason(&server, request).await, expected);
        }
    }
    server.leave(&user.id, &also).await;
    let request = VerifyRequest { workspace_id: Some(also), ..question(&unbound) };
    assert_eq!(reason(&server, request).await, wrong);
}

async fn inactive_workspace_or_organization_refuses_until_it_is_active_again(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let workspace = server.workspace("w").await;
    server.join(&user.id, &workspace, "member").await;
    let bound = bound(&server, &user.id, &workspace).await;
    let unbound = server.text_of(&user.id, &[]).await;
    for table in ["workspaces", "organizations"] {
        server.change(&format!("UPDATE {table} SET is_active = FALSE")).await;
        let told = refusal(server.verify(&bound).await, Reason::WorkspaceInactive).unwrap();
        assert_eq!(told.user_id, user.id);
        assert_eq!(reason(&server, question(&unbound)).await, Reason::Unspecified);
        let workspace_id = Some(workspace.clone());
        let there = VerifyRequest { workspace_id, ..question(&unbound) };
        assert_eq!(reason(&server, there.clone()).await, Reason::WrongWorkspace, "{table}");
        server.change(&format!("UPDATE {table} SET is_active = TRUE")).await;
        assert_eq!(reason(&server, question(&bound)).await, Reason::Unspecified, "{table}");
        assert_eq!(reason(&server, there).await, Reason::Unspecified, "{table}");
    }
}

async fn token_limited_to_addresses_is_good_from_there_alone(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let request = CreatePersonalAccessTokenRequest {
        allowed_ips: texts(&[
            "10.0.0.0/8",
            "192.0.2.7",
            "2001:db8::/32",
            "::ffff:198.51.100.0/120",
        ]),
        ..Default::default()
    };
    let token = token_as(&server, &user.id, request).await.token;
    let anywhere = server.text_of(&user.id, &[]).await;
    let from = |ip: Option<&str>| VerifyRequest {
        client_ip: ip.map(ToOwned::to_owned),
        ..question(&token)
    };
    for good in [
        "10.255.255.255",
        "192.0.2.7",
        "::ffff:10.1.2.3",
        "2001:db8:ffff::1",
        "198.51.100.9",
        "::ffff:198.51.100.9",
    ] {
        assert_eq!(reason(&server, from(Some(good))).await, Reason::Unspecified, "{good}");
    }
    let outside = ["11.0.0.0", "192.0.2.8", "::1", "2001:db9::", "::ffff:11.0.0.1", "::10.0.0.1"];
    for ip in outside.into_iter().map(Some).chain([None]) {
        let answer = ask(&server, from(ip)).await;
        assert_eq!(refusal(answer, Reason::IpNotAllowed).unwrap().user_id, user.id, "{ip:?}");
        let request = VerifyRequest { token: anywhere.clone(), ..from(ip) };
        assert_eq!(reason(&server, request).await, Reason::Unspecified, "{ip:?}");
    }
}

async fn deactivated_users_tokens_are_refused_until_it_is_active_again(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let created = server.token_of(&user.id, &[]).await;
    let revoked = server.token_of(&user.id, &[]).await;
    activate(&server, &user.id, false).await;
    revoke(&server, &revoked).await;
    let told = refusal(server.verify(&created.token).await, Reason::OwnerInactive).unwrap();
    assert_eq!((&told.user_id, told.revoked_at), (&user.id, None));
    activate(&server, &user.id, true).await;
    assert!(server.verify(&created.token).await.active, "what was not revoked lives again");
    assert_eq!(reason(&server, question(&revoked.token)).await, Reason::Revoked);
}

async fn leaving_a_workspace_ends_its_tokens_for_good(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let [left, stays] = [server.workspace("left").await, server.workspace("stays").await];
    for workspace in [&left, &stays] {
        server.join(&user.id, workspace, "member").await;
    }
    let token = bound(&server, &user.id, &left).await;
    let others = [bound(&server, &user.id, &stays).await, server.text_of(&user.id, &[]).await];
    server.leave(&user.id, &left).await;
    assert_eq!(reason(&server, question(&token)).await, Reason::Revoked);
    server.join(&user.id, &left, "owner").await;
    assert_eq!(reason(&server, question(&token)).await, Reason::Revoked, "also after coming back");
    let new = bound(&server, &user.id, &left).await;
    for good in others.iter().chain([&new]) {
        assert_eq!(reason(&server, question(good)).await, Reason::Unspecified);
    }
    server.change("UPDATE memberships SET role = 'guest'").await;
    assert_eq!(reason(&server, question(&new)).await, Reason::Revoked, "guests can have none");
}

async fn raised_epoch_ends_every_token_born_before_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let [alice, bob] = [server.user("alice").await, server.user("bob").await];
    let [workspace, other] = [server.workspace("w").await, server.workspace("o").await];
    for user in [&alice, &bob] {
        server.join(&user.id, &workspace, "member").await;
        server.join(&user.id, &other, "member").await;
    }
    for (raised, of_alice, of_bob, bound_of_bob, elsewhere_of_bob) in [
        (
            format!("users SET token_epoch = token_epoch + 1 WHERE id = '{}'", alice.id),
            false,
            true,
            true,
            true,
        ),
        (
            format!("workspaces SET token_epoch = token_epoch + 1 WHERE id = '{workspace}'"),
            true,
            true,
            false,
            true,
        ),
        (
            "organizations SET token_epoch = token_epoch + 1 WHERE slug = 'org-of-w'".to_owned(),
            true,
            true,
            false,
            true,
        ),
    ] {
        let tokens = [
            (server.text_of(&alice.id, &[]).await, of_alice),
            (server.text_of(&bob.id, &[]).await, of_bob),
            (bound(&server, &bob.id, &workspace).await, bound_of_bob),
            (bound(&server, &bob.id, &other).await, elsewhere_of_bob),
        ];
        server.change(&format!("UPDATE {raised}")).await;
        for (at, (token, lives)) in tokens.iter().enumerate() {
            let expected = if *lives { Reason::Unspecified } else { Reason::Revoked };
            assert_eq!(reason(&server, question(token)).await, expected, "{raised}: {at}");
        }
        for user in [&alice, &bob] {
            let later = bound(&server, &user.id, &workspace).await;
            assert!(server.verify(&later).await.active, "made later: {raised}");
        }
    }
    // That of the store ends every token, the caller's own too.
    server.change("UPDATE store SET token_epoch = token_epoch + 1").await;
    let answer = server.verification(&server.admin).verify(question("x")).await;
    assert_eq!(refused(answer), (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned()));
}

async fn token_made_in_the_future_is_good(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let token = server.text_of(&user.id, &["verify:tokens"]).await;
    server.change("UPDATE credentials SET created_at = created_at + 86400000000").await;
    let answer = server.verification(&token).verify(question(&token)).await.unwrap();
    assert!(answer.into_inner().active);
}

async fn answer_knows_of_the_revision_that_is_asked_for(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let created = server.token_of(&user.id, &[]).await;
    let mut revisions = vec![created.revision.clone()];
    for _ in 0..3 {
        revisions.push(revoke(&server, &server.token_of(&user.id, &[]).await).await);
    }
    let at_least = |revision: &str| VerifyRequest {
        consistency: Some(Consistency {
            requirement: Some(Requirement::MinRevision(revision.to_owned())),
            max_stale: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        }),
        ..question(&created.token)
    };
    for revision in &revisions {
        assert!(ask(&server, at_least(revision)).await.active, "{revision}");
    }
    let answer = ask(&server, question(&created.token)).await;
    assert_eq!(Some(&answer.revision), revisions.last());
    let latest = revoke(&server, &created).await;
    let answer = ask(&server, at_least(&latest)).await;
    assert_eq!((answer.reason(), answer.revision), (Reason::Revoked, latest));

    let asked = |fully_consistent, max_stale: Option<i64>| VerifyRequest {
        consistency: Some(Consistency {
            requirement: Some(Requirement::FullyConsistent(fully_consistent)),
            max_stale: max_stale.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
        }),
        ..question(&server.admin)
    };
    for good in [asked(true, None), asked(true, Some(0)), asked(false, Some(60))] {
        assert!(ask(&server, good).await.active);
    }
    let answer = server.verification(&server.admin).verify(asked(true, Some(60))).await;
    assert_eq!(wrong_fields(answer), ["consistency.max_stale"]);
}

async fn revision_of_no_history_is_unreachable(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let first = revoke(&server, &server.token_of(&user.id, &[]).await).await;
    let head = revoke(&server, &server.token_of(&user.id, &[]).await).await;
    let other_store = TestServer::start(engine).await;
    let foreign_origin = other_store.verify(&unknown_token()).await.revision;
    let answer = async |revision: &str, token: &str| {
        let consistency = Some(Consistency {
            requirement: Some(Requirement::MinRevision(revision.to_owned())),
            max_stale: None,
        });
        let request = VerifyRequest { consistency, ..question(token) };
        server.verification(&server.admin).verify(request).await
    };
    let mark = |revision: &str| revision.split_once('-').unwrap().1.to_owned();
    for unreachable in [
        format!("3-{}", mark(&head)),
        format!("9223372036854775807-{}", mark(&head)),
        format!("2-{}", mark(&first)),
        format!("1-{}", mark(&head)),
        foreign_origin,
    ] {
        for token in [&*server.admin, "garbage"] {
            let expected = (Code::FailedPrecondition, "REVISION_UNREACHABLE".to_owned());
            assert_eq!(refused(answer(&unreachable, token).await), expected, "{unreachable}");
        }
    }
    for garbage in ["", "2", "x", "-1-0", "99999999999999999999-0000000000000000"] {
        let answer = answer(garbage, &server.admin).await;
        assert_eq!(wrong_fields(answer), ["consistency.min_revision"], "{garbage}");
    }
}

async fn caller_is_told_what_its_own_token_is(engine: Engine) {
    let server = TestServer::start(engine).await;
    let who = async |token: &str| {
        server.verification(token).who_am_i(WhoAmIRequest {}).await.unwrap().into_inner()
    };
    let admin = who(&server.admin).await;
    let handle = "admin".to_owned();
    let expected = WhoAmIResponse {
        token_id: admin.token_id.clone(),
        kind: TokenKind::PersonalAccessToken.into(),
        user: Some(WhoAmIUser { handle, is_admin: true, ..admin.user.clone().unwrap() }),
        organization_id: None,
        workspace_id: None,
        scopes: texts(&["admin:all"]),
        allowed_ips: Vec::new(),
        expires_at: None,
        created_at: Some(server.after(Duration::ZERO)),
        token_prefix: Some(server.admin[..12].to_owned()),
    };
    assert_eq!(admin, expected);

    let user = server.user("alice").await;
    let request = UpdateUserRequest {
        user: user.id.clone(),
        external_id: Some("okta|1".to_owned()),
        ..Default::default()
    };
    server.directory(&server.admin).update_user(request).await.unwrap();
    let workspace = server.workspace("w").await;
    server.join(&user.id, &workspace, "member").await;
    server.clock.advance(MINUTE);
    let request = CreatePersonalAccessTokenRequest {
        workspace_id: Some(workspace),
        allowed_ips: texts(&["127.0.0.0/8", "::1"]),
        expiry: Some(Expiry::ExpiresAt(server.after(MINUTE))),
        ..Default::default()
    };
    let created = token_as(&server, &user.id, request).await;
    let token = made(&created).clone();
    let expected = WhoAmIResponse {
        token_id: token.id,
        kind: TokenKind::PersonalAccessToken.into(),
        user: Some(WhoAmIUser {
            id: user.id,
            handle: "alice".to_owned(),
            external_id: Some("okta|1".to_owned()),
            is_admin: false,
        }),
        organization_id: token.organization_id,
        workspace_id: token.workspace_id,
        scopes: Vec::new(),
        allowed_ips: texts(&["127.0.0.0/8", "::1/128"]),
        expires_at: Some(server.after(MINUTE)),
        created_at: Some(server.after(Duration::ZERO)),
        token_prefix: Some(token.token_prefix),
    };
    assert_eq!(who(&created.token).await, expected);
}

/// WhoAmI with these `authorization` headers.
async fn present(
    server: &TestServer,
    headers: &[&str],
) -> Result<Response<WhoAmIResponse>, Status> {
    VerificationClient::new(server.presenting(headers)).who_am_i(WhoAmIRequest {}).await
}

async fn token_is_presented_as_bearer_or_oauth2_and_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let token = &server.admin;
    for scheme in ["Bearer", "bearer", "BEARER", "OAuth2", "oauth2"] {
        present(&server, &[&format!("{scheme} {token}")]).await.unwrap();
    }
    let header = format!("Bearer {token}");
    let refused_headers = [
        vec![String::new()],
        vec!["Bearer".to_owned()],
        vec!["Bearer ".to_owned()],
        vec![token.clone()],
        vec![format!("Basic {token}")],
        vec![format!("Token {token}")],
        vec![format!("Bearer:{token}")],
        vec![format!("Bearer {token}, Bearer {token}")],
        vec![format!("Bearer {}", unknown_token())],
        vec![header.clone(), header.clone()],
        vec![header, String::new()],
    ];
    for headers in refused_headers {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        let expected = (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned());
        assert_eq!(refused(present(&server, &headers).await), expected, "{headers:?}");
    }
    let expected = (Code::Unauthenticated, "CALLER_TOKEN_MISSING".to_owned());
    assert_eq!(refused(present(&server, &[]).await), expected);
}

async fn caller_is_judged_by_the_address_it_calls_from(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    for (networks, is_accepted) in [
        (&["127.0.0.1"][..], true),
        (&["10.0.0.0/8", "127.0.0.0/8"], true),
        (&["::ffff:127.0.0.1"], true),
        (&["10.0.0.0/8"], false),
        (&["::1"], false),
    ] {
        let allowed_ips = texts(networks);
        let request = CreatePersonalAccessTokenRequest { allowed_ips, ..Default::default() };
        let token = token_as(&server, &user.id, request).await.token;
        let answer = present(&server, &[&format!("Bearer {token}")]).await;
        if is_accepted {
            assert_eq!(answer.unwrap().into_inner().allowed_ips.len(), networks.len());
        } else {
            let expected = (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned());
            assert_eq!(refused(answer), expected, "{networks:?}");
        }
    }
}
