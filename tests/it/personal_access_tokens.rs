use std::time::Duration;

use prost::Message as _;
use prost_types::{FieldMask, Timestamp};
use token_authority::{
    domain::Token,
    proto::v1::{
        Consistency, CreatePersonalAccessTokenRequest, CreatePersonalAccessTokenResponse,
        GetPersonalAccessTokenRequest, ListAvailablePatScopesRequest,
        ListPersonalAccessTokensRequest, ListPersonalAccessTokensResponse, PersonalAccessToken,
        Reason, RevokePersonalAccessTokenRequest, RevokePersonalAccessTokenResponse, TokenState,
        UpdatePersonalAccessTokenRequest, UpdatePersonalAccessTokenResponse, UpdateUserRequest,
        VerifyRequest, WhoAmIRequest, consistency::Requirement,
        create_personal_access_token_request::Expiry,
    },
};
use tonic::{Code, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, refused, wrong_fields},
};

on_both_stores![
    created_token_comes_back_whole_and_its_text_only_once,
    what_a_creation_leaves_out_has_its_default,
    tokens_are_listed_newest_first_each_once_page_by_page,
    page_token_is_good_for_its_request_alone,
    revoked_tokens_leave_the_list_and_expired_ones_stay,
    others_tokens_are_reached_by_administrators_by_every_name_of_the_user,
    update_changes_exactly_what_is_named,
    revoked_token_is_not_updated_and_revoked_only_once,
    token_revokes_itself_without_any_scope_but_not_its_descendants,
    descendants_are_revoked_to_any_depth,
    more_descendants_than_one_transaction_takes_are_all_revoked,
    available_scopes_are_those_that_the_caller_can_give,
    available_scopes_stand_once_in_the_order_of_the_catalogue,
    repeat_of_an_unused_creation_replaces_its_secret,
    repeat_of_a_used_creation_says_so_and_shows_nothing,
    request_id_belongs_to_its_caller_and_body_for_a_day,
    user_has_at_most_as_many_tokens_as_the_quota_says,
    lifetimes_are_as_the_operator_set_them,
    token_is_made_for_active_users_and_workspaces_alone,
    foreign_unknown_and_malformed_ids_are_told_alike,
];

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);
const UUID: &str = "0198c0de-0000-7000-8000-00000000000a";

/// A request with nothing set but what has to be.
fn named(name: &str) -> CreatePersonalAccessTokenRequest {
    CreatePersonalAccessTokenRequest { name: name.to_owned(), ..Default::default() }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: texts(paths) })
}

/// What a creation made, without the text.
fn made(created: &CreatePersonalAccessTokenResponse) -> &PersonalAccessToken {
    created.personal_access_token.as_ref().unwrap()
}

impl TestServer {
    async fn create(
        &self,
        token: &str,
        request: &CreatePersonalAccessTokenRequest,
    ) -> CreatePersonalAccessTokenResponse {
        let created = self.tokens(token).create_personal_access_token(request.clone()).await;
        created.unwrap().into_inner()
    }

    async fn get(&self, token: &str, id: &str) -> Result<PersonalAccessToken, Status> {
        let request = GetPersonalAccessTokenRequest { id: id.to_owned() };
        let answer = self.tokens(token).get_personal_access_token(request).await?;
        Ok(answer.into_inner().personal_access_token.unwrap())
    }

    async fn list(
        &self,
        token: &str,
        request: ListPersonalAccessTokensRequest,
    ) -> ListPersonalAccessTokensResponse {
        self.tokens(token).list_personal_access_tokens(request).await.unwrap().into_inner()
    }

    async fn update(
        &self,
        token: &str,
        request: UpdatePersonalAccessTokenRequest,
    ) -> Result<UpdatePersonalAccessTokenResponse, Status> {
        Ok(self.tokens(token).update_personal_access_token(request).await?.into_inner())
    }

    async fn revoke(
        &self,
        token: &str,
        id: &str,
        include_descendants: bool,
    ) -> Result<RevokePersonalAccessTokenResponse, Status> {
        let request = RevokePersonalAccessTokenRequest { id: id.to_owned(), include_descendants };
        Ok(self.tokens(token).revoke_personal_access_token(request).await?.into_inner())
    }

    async fn available_scopes(&self, token: &str) -> Vec<String> {
        let request = ListAvailablePatScopesRequest {};
        let answer = self.tokens(token).list_available_pat_scopes(request).await.unwrap();
        let answer = answer.into_inner();
        let described: Vec<_> = answer.descriptions.iter().map(|it| it.scope.clone()).collect();
        assert_eq!(described, answer.scopes);
        assert!(answer.descriptions.iter().all(|it| !it.description.is_empty()));
        answer.scopes
    }

    async fn token_id(&self, token: &str) -> String {
        self.verification(token).who_am_i(WhoAmIRequest {}).await.unwrap().into_inner().token_id
    }

    async fn reason(&self, token: &str) -> Reason {
        self.verify(token).await.reason()
    }
}

async fn created_token_comes_back_whole_and_its_text_only_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    server.clock.advance(Duration::from_micros(123_456));
    let user = server.user("alice").await;
    let caller =
        server.text_of(&user.id, &["read:tokens", "write:tokens", "read:*", "write:notes"]).await;
    let now = server.after(Duration::ZERO);
    assert_eq!(now.nanos, 123_456_000, "instants are kept to the microsecond");
    let request = CreatePersonalAccessTokenRequest {
        name: " CI, 日本語 ".to_owned(),
        description: Some("Builds 🚀".to_owned()),
        scopes: texts(&["write:notes", "read:notes", "write:notes", "read:*"]),
        allowed_ips: texts(&["10.1.2.3/8", "::1", "10.0.0.0/8", "::ffff:192.0.2.7"]),
        expiry: Some(Expiry::ExpiresAt(Timestamp { seconds: now.seconds + 60, nanos: 1_999 })),
        ..Default::default()
    };
    let created = server.create(&caller, &request).await;

    assert!(!created.already_used);
    let (prefix, digits) = created.token.split_at(4);
    assert!(prefix == "pat_" && digits.len() == 49, "the documented form of a token");
    assert!(digits.bytes().all(|b| b.is_ascii_alphanumeric()));
    assert!(created.token.parse::<Token>().is_ok());
    let token = made(&created).clone();
    assert!(token.id.len() == 36 && token.id.as_bytes()[14] == b'7', "a UUIDv7: {}", token.id);
    let expected = PersonalAccessToken {
        id: token.id.clone(),
        name: request.name.clone(),
        description: "Builds 🚀".to_owned(),
        scopes: texts(&["write:notes", "read:notes", "read:*"]),
        user_id: user.id.clone(),
        organization_id: None,
        workspace_id: None,
        created_at: Some(now),
        updated_at: Some(now),
        last_used_at: None,
        last_used_ip: None,
        expires_at: Some(Timestamp { seconds: now.seconds + 60, nanos: 1_000 }),
        token_prefix: created.token[..12].to_owned(),
        allowed_ips: texts(&["10.0.0.0/8", "::1/128", "192.0.2.7/32"]),
        state: TokenState::Active.into(),
        revoked_at: None,
        created_by_user_id: Some(user.id.clone()),
        created_by_token_id: Some(server.token_id(&caller).await),
        current_secret_created_at: Some(now),
        previous_secret_expires_at: None,
    };
    assert_eq!(token, expected);

    assert_eq!(server.get(&caller, &token.id).await.unwrap(), expected);
    let list = server.list(&caller, ListPersonalAccessTokensRequest::default()).await;
    assert!(list.personal_access_tokens.contains(&expected));
    let secret = &created.token.as_bytes()[12..];
    assert!(!list.encode_to_vec().windows(secret.len()).any(|shown| shown == secret));
}

async fn what_a_creation_leaves_out_has_its_default(engine: Engine) {
    let server = TestServer::start(engine).await;
    let first = server.create(&server.admin, &named("twice")).await;
    let token = made(&first);
    assert_eq!(token.description, "");
    assert!(token.scopes.is_empty() && token.allowed_ips.is_empty());
    assert_eq!((&token.expires_at, &token.workspace_id), (&None, &None));
    assert_eq!(Some(&token.user_id), token.created_by_user_id.as_ref(), "it is the caller's own");

    let bootstrapped = server.get(&server.admin, &server.token_id(&server.admin).await).await;
    let bootstrapped = bootstrapped.unwrap();
    let made_by = (bootstrapped.created_by_user_id, bootstrapped.created_by_token_id);
    assert_eq!(made_by, (None, None), "made by the server itself");

    let second = server.create(&server.admin, &named("twice")).await;
    assert_ne!(made(&second).id, token.id, "names need not be unique");
    assert_ne!(second.token, first.token);

    let ttl = prost_types::Duration { seconds: 1, nanos: 500_000_999 };
    let request =
        CreatePersonalAccessTokenRequest { expiry: Some(Expiry::Ttl(ttl)), ..named("short") };
    let expires_at = server.after(Duration::from_micros(1_500_000));
    let short = server.create(&server.admin, &request).await;
    assert_eq!(made(&short).expires_at, Some(expires_at));
}

async fn tokens_are_listed_newest_first_each_once_page_by_page(engine: Engine) {
    // When the caller's was last used is written at any time.
    let server = TestServer::start_with(engine, &["--last-use=false"]).await;
    let user = server.user("alice").await;
    for _ in 0..250 {
        server.token_of(&user.id, &[]).await;
    }
    server.clock.advance(Duration::from_micros(1));
    let newest = server.text_of(&user.id, &["read:tokens"]).await;

    let all = ListPersonalAccessTokensRequest { page_size: 5_000, ..Default::default() };
    let all = server.list(&newest, all).await;
    assert_eq!(all.next_page_token, "");
    assert_eq!(all.personal_access_tokens.len(), 251);
    assert_eq!(all.personal_access_tokens[0].id, server.token_id(&newest).await);
    let mut ids: Vec<_> = all.personal_access_tokens.iter().map(|token| &token.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 251);

    for (page_size, sizes) in [(0, vec![100, 100, 51]), (251, vec![251]), (125, vec![125, 125, 1])]
    {
        let mut request = ListPersonalAccessTokensRequest { page_size, ..Default::default() };
        let mut tokens = Vec::new();
        for size in sizes {
            let page = server.list(&newest, request.clone()).await;
            assert_eq!(page.personal_access_tokens.len(), size);
            tokens.extend(page.personal_access_tokens);
            request.page_token = page.next_page_token;
        }
        assert_eq!(request.page_token, "", "the last page says so");
        assert_eq!(tokens, all.personal_access_tokens);
    }
}

async fn page_token_is_good_for_its_request_alone(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    for _ in 0..3 {
        server.token_of(&user.id, &[]).await;
    }
    let request = ListPersonalAccessTokensRequest {
        page_size: 2,
        user_id: Some(user.id.clone()),
        ..Default::default()
    };
    let page_token = server.list(&server.admin, request.clone()).await.next_page_token;
    let again = ListPersonalAccessTokensRequest { page_token, ..request };
    assert_eq!(server.list(&server.admin, again.clone()).await.personal_access_tokens.len(), 1);
    for other in [
        ListPersonalAccessTokensRequest { show_revoked: true, ..again.clone() },
        ListPersonalAccessTokensRequest { user_id: None, ..again.clone() },
        ListPersonalAccessTokensRequest { user_id: Some("handle:alice".to_owned()), ..again },
    ] {
        let answer = server.tokens(&server.admin).list_personal_access_tokens(other).await;
        assert_eq!(wrong_fields(answer), ["page_token"]);
    }
}

async fn revoked_tokens_leave_the_list_and_expired_ones_stay(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let caller = server.text_of(&user.id, &["read:tokens", "write:tokens"]).await;
    server.clock.advance(SECOND);
    let ttl = prost_types::Duration { seconds: 1, nanos: 0 };
    let short =
        CreatePersonalAccessTokenRequest { expiry: Some(Expiry::Ttl(ttl)), ..named("short") };
    server.create(&caller, &short).await;
    server.clock.advance(SECOND);
    let revoked = server.create(&caller, &named("revoked")).await;
    server.revoke(&caller, &made(&revoked).id, false).await.unwrap();

    let states = async |show_revoked| {
        let request = ListPersonalAccessTokensRequest { show_revoked, ..Default::default() };
        let tokens = server.list(&caller, request).await.personal_access_tokens;
        tokens.iter().map(PersonalAccessToken::state).collect::<Vec<_>>()
    };
    let (active, expired, revoked) = (TokenState::Active, TokenState::Expired, TokenState::Revoked);
    assert_eq!(states(false).await, [expired, active]);
    assert_eq!(states(true).await, [revoked, expired, active]);
}

async fn others_tokens_are_reached_by_administrators_by_every_name_of_the_user(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let request = UpdateUserRequest {
        user: user.id.clone(),
        external_id: Some("okta|1".to_owned()),
        ..Default::default()
    };
    server.directory(&server.admin).update_user(request).await.unwrap();
    let own = server.text_of(&user.id, &["read:tokens", "write:tokens"]).await;
    for name in [&*user.id, "handle:alice", "external:okta|1"] {
        let user_id = Some(name.to_owned());
        let request = CreatePersonalAccessTokenRequest { user_id: user_id.clone(), ..named("x") };
        let list = ListPersonalAccessTokensRequest { user_id, ..Default::default() };
        for caller in [&server.admin, &own] {
            let created = server.create(caller, &request).await;
            assert_eq!(made(&created).user_id, user.id, "{name}");
            let listed = server.list(caller, list.clone()).await.personal_access_tokens;
            assert!(listed.contains(made(&created)), "{name}");
        }
    }
    for name in ["handle:nobody", "external:nobody", "zzzzz-tpzed-0123456789abcde"] {
        let user_id = Some(name.to_owned());
        let request = CreatePersonalAccessTokenRequest { user_id: user_id.clone(), ..named("x") };
        let list = ListPersonalAccessTokensRequest { user_id, ..Default::default() };
        for (caller, code, reason) in
            [(&server.admin, Code::NotFound, ""), (&own, Code::PermissionDenied, "CALLER_ROLE")]
        {
            let expected = (code, reason.to_owned());
            let created = server.tokens(caller).create_personal_access_token(request.clone()).await;
            assert_eq!(refused(created), expected, "{name}");
            let listed = server.tokens(caller).list_personal_access_tokens(list.clone()).await;
            assert_eq!(refused(listed), expected, "{name}");
        }
    }
}

async fn update_changes_exactly_what_is_named(engine: Engine) {
    let server = TestServer::start(engine).await;
    let request = CreatePersonalAccessTokenRequest {
        description: Some("Old".to_owned()),
        scopes: texts(&["read:notes"]),
        ..named("old")
    };
    let created = server.create(&server.admin, &request).await;
    let mut expected = made(&created).clone();
    let id = expected.id.clone();
    let update = |name: Option<&str>, description: Option<&str>, update_mask| {
        server.update(
            &server.admin,
            UpdatePersonalAccessTokenRequest {
                id: id.clone(),
                name: name.map(ToOwned::to_owned),
                description: description.map(ToOwned::to_owned),
                update_mask,
            },
        )
    };
    let token = |answer: UpdatePersonalAccessTokenResponse| {
        assert!(!answer.revision.is_empty());
        answer.personal_access_token.unwrap()
    };

    // Nothing is changed, so nothing says that it was.
    server.clock.advance(SECOND);
    assert_eq!(token(update(None, None, None).await.unwrap()), expected);
    assert_eq!(token(update(Some("kept out"), None, mask(&[])).await.unwrap()), expected);

    // Without a mask: what is present.
    expected.updated_at = Some(server.after(Duration::ZERO));
    expected.name = "new".to_owned();
    assert_eq!(token(update(Some("new"), None, None).await.unwrap()), expected);
    expected.description = "New".to_owned();
    assert_eq!(token(update(None, Some("New"), None).await.unwrap()), expected);
    expected.description = String::new();
    assert_eq!(token(update(None, Some(""), None).await.unwrap()), expected);

    // With one: what it names, and nothing else.
    server.clock.advance(SECOND);
    expected.updated_at = Some(server.after(Duration::ZERO));
    expected.description = "Named".to_owned();
    let answer = update(Some("kept out"), Some("Named"), mask(&["description"])).await.unwrap();
    assert_eq!(token(answer), expected);
    expected.name = "both".to_owned();
    expected.description = String::new();
    let answer = update(Some("both"), None, mask(&["name", "description"])).await.unwrap();
    assert_eq!(token(answer), expected, "what is named and not present is cleared");
    assert_eq!(server.get(&server.admin, &id).await.unwrap(), expected);
}

async fn revoked_token_is_not_updated_and_revoked_only_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let created = server.create(&server.admin, &named("x")).await;
    let id = made(&created).id.clone();
    server.clock.advance(SECOND);
    let now = Some(server.after(Duration::ZERO));
    let first = server.revoke(&server.admin, &id, false).await.unwrap();
    let expected = PersonalAccessToken {
        state: TokenState::Revoked.into(),
        revoked_at: now,
        updated_at: now,
        ..made(&created).clone()
    };
    assert_eq!(first.personal_access_token, Some(expected.clone()));
    assert_ne!(first.revision, created.revision);
    let requirement = Some(Requirement::MinRevision(first.revision.clone()));
    let request = VerifyRequest {
        token: created.token,
        consistency: Some(Consistency { requirement, max_stale: None }),
        ..Default::default()
    };
    let answer = server.verification(&server.admin).verify(request).await.unwrap().into_inner();
    assert_eq!(answer.reason(), Reason::Revoked);

    server.clock.advance(SECOND);
    let kept = server.kept().await;
    let again = server.revoke(&server.admin, &id, true).await.unwrap();
    assert_eq!(again, first, "to repeat it changes nothing");
    for name in [Some("new".to_owned()), None] {
        let request =
            UpdatePersonalAccessTokenRequest { id: id.clone(), name, ..Default::default() };
        let answer = server.tokens(&server.admin).update_personal_access_token(request).await;
        assert_eq!(refused(answer), (Code::FailedPrecondition, "TOKEN_REVOKED".to_owned()));
    }
    assert_eq!(server.kept().await, kept);
    assert_eq!(server.get(&server.admin, &id).await.unwrap(), expected);
}

async fn token_revokes_itself_without_any_scope_but_not_its_descendants(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let created = server.token_of(&user.id, &[]).await;
    let id = &made(&created).id;
    let request = |include_descendants| RevokePersonalAccessTokenRequest {
        id: id.clone(),
        include_descendants,
    };
    let answer = server.tokens(&created.token).revoke_personal_access_token(request(true)).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "CALLER_SCOPE".to_owned()));
    let sibling = made(&server.token_of(&user.id, &[]).await).id.clone();
    let request = RevokePersonalAccessTokenRequest { id: sibling, include_descendants: false };
    let answer = server.tokens(&created.token).revoke_personal_access_token(request).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "CALLER_SCOPE".to_owned()));

    let revoked = server.revoke(&created.token, id, false).await.unwrap();
    assert_eq!(revoked.personal_access_token.unwrap().state(), TokenState::Revoked);
    let answer = server.verification(&created.token).who_am_i(WhoAmIRequest {}).await;
    assert_eq!(refused(answer), (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned()));
}

async fn descendants_are_revoked_to_any_depth(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let root = server.token_of(&user.id, &["write:tokens"]).await;
    let scopes = texts(&["write:tokens"]);
    let request = CreatePersonalAccessTokenRequest { scopes, ..named("child") };
    let child = server.create(&root.token, &request).await;
    let grandchild = server.create(&child.token, &request).await;
    let leaf = server.create(&grandchild.token, &request).await;
    let sibling = server.token_of(&user.id, &[]).await;

    // It alone: what it made stays.
    server.revoke(&server.admin, &made(&child).id, false).await.unwrap();
    assert_eq!(server.reason(&grandchild.token).await, Reason::Unspecified);

    // A link that is revoked already does not shield what hangs on it.
    server.revoke(&root.token, &made(&root).id, true).await.unwrap();
    for dead in [&root, &child, &grandchild, &leaf] {
        assert_eq!(server.reason(&dead.token).await, Reason::Revoked);
    }
    assert_eq!(server.reason(&sibling.token).await, Reason::Unspecified);
}

async fn more_descendants_than_one_transaction_takes_are_all_revoked(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let root = server.token_of(&user.id, &["write:tokens"]).await;
    let child = server.create(&root.token, &named("child")).await;
    // 2,500 more like the child.
    server
        .change(&format!(
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 2500) \
             INSERT INTO credentials (id, kind, user_id, name, description, scopes, allowed_ips, \
             created_by_user_id, created_by_token_id, created_at, updated_at, store_epoch, user_epoch) \
             SELECT 'made-' || n.n, kind, user_id, name, description, scopes, allowed_ips, \
             created_by_user_id, created_by_token_id, created_at, updated_at, store_epoch, user_epoch \
             FROM credentials CROSS JOIN n WHERE id = '{}'",
            made(&child).id
        ))
        .await;
    server.revoke(&server.admin, &made(&root).id, true).await.unwrap();
    let left = "SELECT count(*) FROM credentials WHERE revoked_at IS NULL";
    assert_eq!(server.place.number(left).await, 1, "the administrator's own");
    assert_eq!(server.reason(&child.token).await, Reason::Revoked);
}

async fn available_scopes_are_those_that_the_caller_can_give(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let control = [
        "read:tokens",
        "write:tokens",
        "issue:tokens",
        "verify:tokens",
        "read:directory",
        "write:directory",
        "read:audit",
        "admin:all",
    ];
    let all = [&["read:*", "write:*"], &control[..]].concat();
    assert_eq!(server.available_scopes(&server.admin).await, all);

    // An administrator's token that is limited gives what it has.
    let administrator = server.administrator("root2").await;
    let held = ["read:notes", "write:*", "write:tokens", "verify:tokens"];
    let limited = server.text_of(&administrator.id, &held).await;
    assert_eq!(server.available_scopes(&limited).await, held);

    // To verify, to issue and to do everything is not for others to give.
    let everything = server.text_of(&user.id, &["admin:all"]).await;
    let expected: Vec<_> = all
        .iter()
        .copied()
        .filter(|scope| !["issue:tokens", "verify:tokens", "admin:all"].contains(scope))
        .collect();
    assert_eq!(server.available_scopes(&everything).await, expected);
    // Who may make no token gives nothing, and who makes them only for others what
    // the catalogue has.
    let reader = server.text_of(&user.id, &["read:tokens", "read:*"]).await;
    assert!(server.available_scopes(&reader).await.is_empty());
    let issuer = server.text_of(&administrator.id, &["issue:tokens"]).await;
    assert_eq!(server.available_scopes(&issuer).await, ["read:*", "write:*"]);

    for caller in [&server.admin, &limited, &everything] {
        let scopes = server.available_scopes(caller).await;
        let request = ListPersonalAccessTokensRequest::default();
        if scopes.iter().any(|scope| scope == "read:tokens") {
            assert_eq!(server.list(caller, request).await.available_scopes, scopes);
        }
        for scope in all.iter().map(ToString::to_string) {
            let request =
                CreatePersonalAccessTokenRequest { scopes: vec![scope.clone()], ..named("x") };
            let created = server.tokens(caller).create_personal_access_token(request).await;
            assert_eq!(created.is_ok(), scopes.contains(&scope), "{scope}");
        }
    }
}

async fn available_scopes_stand_once_in_the_order_of_the_catalogue(engine: Engine) {
    let catalogue =
        ["--scope=write:notes=Write notes", "--scope=read:*=Read", "--scope=read:notes=Read notes"];
    let server = TestServer::start_with(engine, &catalogue).await;
    let user = server.user("alice").await;
    let available = server.available_scopes(&server.admin).await;
    assert_eq!(available[..3], ["write:notes", "read:*", "read:notes"]);
    let narrow =
        server.text_of(&user.id, &["write:tokens", "read:notes", "read:mail", "write:notes"]).await;
    let mut available = server.available_scopes(&narrow).await;
    assert_eq!(available[0], "write:notes");
    available.sort();
    assert_eq!(available, ["read:mail", "read:notes", "write:notes", "write:tokens"]);
}

async fn repeat_of_an_unused_creation_replaces_its_secret(engine: Engine) {
    let server = TestServer::start(engine).await;
    let request = CreatePersonalAccessTokenRequest {
        scopes: texts(&["read:notes"]),
        request_id: Some(UUID.to_owned()),
        ..named("repeated")
    };
    let first = server.create(&server.admin, &request).await;
    server.clock.advance(SECOND);
    let again =
        CreatePersonalAccessTokenRequest { request_id: Some(UUID.to_uppercase()), ..request };
    let second = server.create(&server.admin, &again).await;
    assert!(!second.already_used && !second.token.is_empty());
    assert_ne!(second.token, first.token);
    let expected = PersonalAccessToken {
        token_prefix: second.token[..12].to_owned(),
        current_secret_created_at: Some(server.after(Duration::ZERO)),
        ..made(&first).clone()
    };
    assert_eq!(*made(&second), expected, "the same token with another secret");

    let lost = server.verify(&first.token).await;
    assert_eq!((lost.reason(), lost.refusal), (Reason::NotFound, None));
    assert_eq!(server.verify(&second.token).await.token_id, made(&first).id);
    let tokens = "SELECT count(*) FROM credentials WHERE name = 'repeated'";
    assert_eq!(server.place.number(tokens).await, 1);
}

async fn repeat_of_a_used_creation_says_so_and_shows_nothing(engine: Engine) {
    let server = TestServer::start(engine).await;
    let administrator = server.administrator("root2").await;
    let caller = server.text_of(&administrator.id, &["admin:all"]).await;
    for (at, used_as) in ["subject", "caller", "refused"].iter().enumerate() {
        let request = CreatePersonalAccessTokenRequest {
            request_id: Some(format!("0198c0de-0000-7000-8000-00000000000{}", at + 1)),
            ..named(used_as)
        };
        let first = server.create(&caller, &request).await;
        match *used_as {
            "subject" => assert!(server.verify(&first.token).await.active),
            "caller" => assert_eq!(server.token_id(&first.token).await, made(&first).id),
            _ => {
                // Whoever has it has shown it, though it was not good for that.
                let required_scopes = texts(&["read:notes"]);
                let token = first.token.clone();
                let request = VerifyRequest { token, required_scopes, ..Default::default() };
                let answer = server.verification(&caller).verify(request).await.unwrap();
                assert!(!answer.into_inner().active);
            }
        }
        let again = server.create(&caller, &request).await;
        assert!(again.already_used && again.token.is_empty(), "{used_as}");
        assert_eq!(made(&again), made(&first));
        assert!(server.verify(&first.token).await.active, "who has it keeps it");
    }
}

async fn request_id_belongs_to_its_caller_and_body_for_a_day(engine: Engine) {
    let server = TestServer::start(engine).await;
    let administrator = server.administrator("root2").await;
    let other_caller = server.text_of(&administrator.id, &["admin:all"]).await;
    let request =
        CreatePersonalAccessTokenRequest { request_id: Some(UUID.to_owned()), ..named("x") };
    let first = server.create(&server.admin, &request).await;
    for other in [
        CreatePersonalAccessTokenRequest { name: "y".to_owned(), ..request.clone() },
        CreatePersonalAccessTokenRequest { description: Some("y".to_owned()), ..request.clone() },
        CreatePersonalAccessTokenRequest { scopes: texts(&["read:notes"]), ..request.clone() },
    ] {
        let kept = server.kept().await;
        let answer = server.tokens(&server.admin).create_personal_access_token(other).await;
        assert_eq!(refused(answer), (Code::AlreadyExists, "REQUEST_ID_REUSED".to_owned()));
        assert_eq!(server.kept().await, kept);
    }
    let others = server.create(&other_caller, &request).await;
    assert_ne!(made(&others).id, made(&first).id, "each caller has request ids of its own");
    assert!(server.verify(&first.token).await.active);

    server.clock.advance(DAY - Duration::from_micros(1));
    assert_eq!(made(&server.create(&server.admin, &request).await).id, made(&first).id);
    server.clock.advance(Duration::from_micros(1));
    let new = server.create(&server.admin, &request).await;
    assert_ne!(made(&new).id, made(&first).id);
    assert!(!new.already_used);
    assert!(server.verify(&first.token).await.active, "the old one stays as it is");
}

async fn user_has_at_most_as_many_tokens_as_the_quota_says(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-pats-per-user=3"]).await;
    let user = server.user("alice").await;
    let bob = server.user("bob").await;
    let ttl = prost_types::Duration { seconds: 1, nanos: 0 };
    let request = CreatePersonalAccessTokenRequest {
        user_id: Some(user.id.clone()),
        expiry: Some(Expiry::Ttl(ttl)),
        ..named("x")
    };
    let repeatable =
        CreatePersonalAccessTokenRequest { request_id: Some(UUID.to_owned()), ..request.clone() };
    let first = server.create(&server.admin, &request).await;
    server.create(&server.admin, &request).await;
    server.create(&server.admin, &repeatable).await;

    let kept = server.kept().await;
    let one_more =
        async || server.tokens(&server.admin).create_personal_access_token(request.clone()).await;
    let reached = (Code::ResourceExhausted, "TOKEN_QUOTA".to_owned());
    assert_eq!(refused(one_more().await), reached);
    assert_eq!(server.kept().await, kept);
    server.create(&server.admin, &repeatable).await;
    server.token_of(&bob.id, &[]).await;

    // What is revoked or expired does not count.
    server.revoke(&server.admin, &made(&first).id, false).await.unwrap();
    one_more().await.unwrap();
    assert_eq!(refused(one_more().await), reached);
    server.clock.advance(SECOND);
    one_more().await.unwrap();
}

async fn lifetimes_are_as_the_operator_set_them(engine: Engine) {
    let limits = ["--pat-default-lifetime=7d", "--pat-max-lifetime=30d"];
    let server = TestServer::start_with(engine, &limits).await;
    let default = server.create(&server.admin, &named("default")).await;
    assert_eq!(made(&default).expires_at, Some(server.after(7 * DAY)));
    let at = |by| Some(Expiry::ExpiresAt(server.after(by)));
    let in_30_days = i64::try_from((30 * DAY).as_secs()).unwrap();
    let after = |nanos| Some(Expiry::Ttl(prost_types::Duration { seconds: in_30_days, nanos }));
    for expiry in [at(30 * DAY), after(0)] {
        let request = CreatePersonalAccessTokenRequest { expiry, ..named("longest") };
        let created = server.create(&server.admin, &request).await;
        assert_eq!(made(&created).expires_at, Some(server.after(30 * DAY)));
    }
    let over = 30 * DAY + Duration::from_micros(1);
    for (expiry, field) in [(at(over), "expires_at"), (after(1_000), "ttl")] {
        let request = CreatePersonalAccessTokenRequest { expiry, ..named("longer") };
        let answer = server.tokens(&server.admin).create_personal_access_token(request).await;
        assert_eq!(wrong_fields(answer), [field]);
    }
}

async fn token_is_made_for_active_users_and_workspaces_alone(engine: Engine) {
    let server = TestServer::start(engine).await;
    let [member, guest, stranger] =
        [server.user("member").await, server.user("guest").await, server.user("stranger").await];
    let workspace = server.workspace("w").await;
    server.join(&member.id, &workspace, "member").await;
    server.join(&guest.id, &workspace, "guest").await;
    let create = async |token: &str, user_id: Option<&str>, workspace_id: &str| {
        let request = CreatePersonalAccessTokenRequest {
            user_id: user_id.map(ToOwned::to_owned),
            workspace_id: Some(workspace_id.to_owned()),
            ..named("bound")
        };
        server.tokens(token).create_personal_access_token(request).await
    };
    let [as_member, as_guest, as_stranger] = [
        server.text_of(&member.id, &["write:tokens"]).await,
        server.text_of(&guest.id, &["write:tokens"]).await,
        server.text_of(&stranger.id, &["write:tokens"]).await,
    ];
    let no_member = (Code::PermissionDenied, "NOT_A_MEMBER".to_owned());
    let created = create(&as_member, None, &workspace).await.unwrap().into_inner();
    assert_eq!(made(&created).workspace_id, Some(workspace.clone()));
    assert!(made(&created).organization_id.is_some());
    create(&server.admin, Some(&member.id), &workspace).await.unwrap();
    assert_eq!(refused(create(&as_guest, None, &workspace).await), no_member);
    assert_eq!(refused(create(&as_stranger, None, &workspace).await), no_member);
    assert_eq!(refused(create(&server.admin, Some(&stranger.id), &workspace).await), no_member);
    // Who is no administrator does not learn which workspaces there are.
    assert_eq!(refused(create(&as_stranger, None, UUID).await), no_member);
    let unknown = (Code::NotFound, String::new());
    assert_eq!(refused(create(&server.admin, None, UUID).await), unknown);

    for table in ["organizations", "workspaces"] {
        server.change(&format!("UPDATE {table} SET is_active = FALSE")).await;
        let inactive = (Code::FailedPrecondition, "WORKSPACE_INACTIVE".to_owned());
        assert_eq!(refused(create(&as_member, None, &workspace).await), inactive);
        assert_eq!(refused(create(&as_stranger, None, &workspace).await), no_member);
        server.change(&format!("UPDATE {table} SET is_active = TRUE")).await;
    }
    let request =
        UpdateUserRequest { user: member.id.clone(), is_active: Some(false), ..Default::default() };
    server.directory(&server.admin).update_user(request).await.unwrap();
    let inactive = (Code::FailedPrecondition, "USER_INACTIVE".to_owned());
    assert_eq!(refused(create(&server.admin, Some(&member.id), &workspace).await), inactive);
}

async fn foreign_unknown_and_malformed_ids_are_told_alike(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let caller = server.text_of(&user.id, &["read:tokens", "write:tokens"]).await;
    let foreign = server.token_id(&server.admin).await;
    let own = server.token_id(&caller).await;
    let ids = [
        foreign,
        UUID.to_owned(),
        own.to_uppercase(),
        format!("{own} "),
        "x".to_owned(),
        "a\0b".to_owned(),
        "' OR 1=1 --".to_owned(),
        "é".repeat(10_000),
    ];
    let kept = server.kept().await;
    for id in ids {
        let update = UpdatePersonalAccessTokenRequest {
            id: id.clone(),
            name: Some("mine now".to_owned()),
            ..Default::default()
        };
        for status in [
            server.get(&caller, &id).await.unwrap_err(),
            server.update(&caller, update).await.unwrap_err(),
            server.revoke(&caller, &id, false).await.unwrap_err(),
            server.revoke(&caller, &id, true).await.unwrap_err(),
        ] {
            assert_eq!(status.code(), Code::NotFound, "{id:?}: {status}");
            assert_eq!(status.message(), "there is no such personal access token");
            assert!(status.details().is_empty());
        }
    }
    assert_eq!(server.kept().await, kept);
}
