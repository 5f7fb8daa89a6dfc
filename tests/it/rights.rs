use std::{collections::BTreeSet, time::Duration};

use token_authority::{
    proto::v1::{
        CreatePersonalAccessTokenRequest, CreatePersonalAccessTokenResponse, CreateUserRequest,
        GetPersonalAccessTokenRequest, GetUserRequest, ListAvailablePatScopesRequest,
        ListPersonalAccessTokensRequest, ListUsersRequest, PersonalAccessToken, Reason,
        RevokePersonalAccessTokenRequest, UpdatePersonalAccessTokenRequest, UpdateUserRequest,
        VerifyRequest, WhoAmIRequest, create_personal_access_token_request::Expiry,
        directory_client::DirectoryClient,
        personal_access_tokens_client::PersonalAccessTokensClient,
        verification_client::VerificationClient,
    },
    rights,
};
use tonic::{Code, Response, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{As, TestServer, exceeded, refused},
};

on_both_stores![
    each_call_asks_of_its_caller_what_the_table_says,
    who_proves_no_good_token_calls_nothing,
    token_makes_none_with_scopes_beyond_its_own,
    token_makes_none_that_outlives_it,
    token_makes_none_that_may_be_used_from_elsewhere,
    token_bound_to_a_workspace_makes_none_beyond_it,
    administrators_token_bound_to_a_workspace_reaches_nothing_of_others,
    what_is_left_out_is_inherited_from_the_callers_token,
    issuer_gives_catalogue_scopes_to_others_who_are_no_administrators,
    administrators_alone_give_the_scopes_to_verify_to_issue_and_to_do_everything,
    only_a_token_that_may_do_everything_appoints_administrators,
    bound_verifier_learns_of_its_workspace_alone,
];

/// Whose the thing is that a call of the table is about.
#[derive(Clone, Copy, PartialEq)]
enum Of {
    /// Nobody: to verify is for administrators, and for whom one gave that very scope.
    Nobody,
    /// The caller's user, or nobody's in particular.
    Own,
    /// A user who is named and another, or everybody.
    Others,
    /// The caller's user, by the id of a token.
    OwnId,
    /// Another user, by an id that the caller may not know.
    OthersId,
}
use Of::{Nobody, Others, OthersId, Own, OwnId};

/// A row of the table in DESIGN 9: of these scopes a token needs one, for what is
/// its user's own and for what is others'.
struct Row {
    method: &'static str,
    of: Of,
    own: &'static [&'static str],
    others: &'static [&'static str],
}

const fn row(
    method: &'static str,
    of: Of,
    own: &'static [&'static str],
    others: &'static [&'static str],
) -> Row {
    Row { method, of, own, others }
}

const READ: &[&str] = &["read:tokens"];
const WRITE: &[&str] = &["write:tokens"];
const READ_OTHERS: &[&str] = &["read:tokens", "issue:tokens"];
const WRITE_OTHERS: &[&str] = &["write:tokens", "issue:tokens"];
const DIRECTORY: &[&str] = &["read:directory"];
const WRITE_DIRECTORY: &[&str] = &["write:directory"];

const TABLE: [Row; 18] = [
    row("Verification/Verify", Nobody, &["verify:tokens"], &[]),
    row("Verification/WhoAmI", Own, &[], &[]),
    row("PersonalAccessTokens/ListAvailablePatScopes", Own, &[], &[]),
    row("PersonalAccessTokens/CreatePersonalAccessToken", Own, WRITE, &[]),
    row("PersonalAccessTokens/CreatePersonalAccessToken", Others, &[], WRITE_OTHERS),
    row("PersonalAccessTokens/ListPersonalAccessTokens", Own, READ, &[]),
    row("PersonalAccessTokens/ListPersonalAccessTokens", Others, &[], READ_OTHERS),
    row("PersonalAccessTokens/GetPersonalAccessToken", OwnId, READ, READ_OTHERS),
    row("PersonalAccessTokens/GetPersonalAccessToken", OthersId, READ, READ_OTHERS),
    row("PersonalAccessTokens/UpdatePersonalAccessToken", OwnId, WRITE, WRITE_OTHERS),
    row("PersonalAccessTokens/UpdatePersonalAccessToken", OthersId, WRITE, WRITE_OTHERS),
    row("PersonalAccessTokens/RevokePersonalAccessToken", OwnId, WRITE, WRITE_OTHERS),
    row("PersonalAccessTokens/RevokePersonalAccessToken", OthersId, WRITE, WRITE_OTHERS),
    row("Directory/CreateUser", Others, &[], WRITE_DIRECTORY),
    row("Directory/GetUser", Own, DIRECTORY, &[]),
    row("Directory/GetUser", OthersId, DIRECTORY, DIRECTORY),
    row("Directory/ListUsers", Others, &[], DIRECTORY),
    row("Directory/UpdateUser", Others, &[], WRITE_DIRECTORY),
];

impl Row {
    /// What a caller gets, as code and reason.
    fn expected(&self, is_admin: bool, scopes: &[&str]) -> (Code, &'static str) {
        let holds = |one_of: &[&str]| {
            one_of.is_empty()
                || scopes.contains(&"admin:all")
                || scopes.iter().any(|scope| one_of.contains(scope))
        };
        let ok = (Code::Ok, "");
        let no_scope = (Code::PermissionDenied, "CALLER_SCOPE");
        let no_administrator = (Code::PermissionDenied, "CALLER_ROLE");
        let unknown = (Code::NotFound, "");
        match self.of {
            Nobody if !is_admin && !scopes.contains(&"verify:tokens") => no_scope,
            Others if !is_admin => no_administrator,
            Others if holds(self.others) => ok,
            Nobody | Own | OwnId if holds(self.own) => ok,
            // An issuer reaches no administrator's tokens, so not its own user's.
            OwnId if is_admin && holds(self.others) => unknown,
            OthersId if is_admin && holds(self.others) => ok,
            OthersId if holds(self.own) => unknown,
            Nobody | Own | Others | OwnId | OthersId => no_scope,
        }
    }
}

/// What the calls of the table are about.
struct Targets {
    user_id: String,
    /// Of that user; never revoked.
    token_id: String,
    /// Of that user; the first call that may revoke it does.
    revoked_id: String,
}

impl Targets {
    async fn new(server: &TestServer, user_id: &str) -> Self {
        Self {
            user_id: user_id.to_owned(),
            token_id: made(&server.token_of(user_id, &[]).await).id.clone(),
            revoked_id: made(&server.token_of(user_id, &[]).await).id.clone(),
        }
    }
}

/// One call of a row: right in everything but, perhaps, its caller.
async fn call(row: &Row, caller: As, targets: &Targets, handle: &str) -> Result<(), Status> {
    let mut verification = VerificationClient::new(caller.clone());
    let mut tokens = PersonalAccessTokensClient::new(caller.clone());
    let mut directory = DirectoryClient::new(caller);
    let named = (row.of == Others).then(|| targets.user_id.clone());
    match row.method.split_once('/').unwrap().1 {
        "Verify" => {
            let request = VerifyRequest { token: "x".to_owned(), ..Default::default() };
            verification.verify(request).await.map(|_| ())
        }
        "WhoAmI" => verification.who_am_i(WhoAmIRequest {}).await.map(|_| ()),
        "ListAvailablePatScopes" => {
            let request = ListAvailablePatScopesRequest {};
            tokens.list_available_pat_scopes(request).await.map(|_| ())
        }
        "CreatePersonalAccessToken" => {
            let request = CreatePersonalAccessTokenRequest { user_id: named, ..named_x() };
            tokens.create_personal_access_token(request).await.map(|_| ())
        }
        "ListPersonalAccessTokens" => {
            let request = ListPersonalAccessTokensRequest { user_id: named, ..Default::default() };
            tokens.list_personal_access_tokens(request).await.map(|_| ())
        }
        "GetPersonalAccessToken" => {
            let request = GetPersonalAccessTokenRequest { id: targets.token_id.clone() };
            tokens.get_personal_access_token(request).await.map(|_| ())
        }
        "UpdatePersonalAccessToken" => {
            let id = targets.token_id.clone();
            let name = Some("renamed".to_owned());
            let request = UpdatePersonalAccessTokenRequest { id, name, ..Default::default() };
            tokens.update_personal_access_token(request).await.map(|_| ())
        }
        "RevokePersonalAccessToken" => {
            let id = targets.revoked_id.clone();
            let request = RevokePersonalAccessTokenRequest { id, include_descendants: false };
            tokens.revoke_personal_access_token(request).await.map(|_| ())
        }
        "CreateUser" => {
            let request = CreateUserRequest { handle: handle.to_owned(), ..Default::default() };
            directory.create_user(request).await.map(|_| ())
        }
        "GetUser" => {
            let request = GetUserRequest { user: targets.user_id.clone() };
            directory.get_user(request).await.map(|_| ())
        }
        "ListUsers" => directory.list_users(ListUsersRequest::default()).await.map(|_| ()),
        "UpdateUser" => {
            let user = targets.user_id.clone();
            let display_name = Some("Renamed".to_owned());
            let request = UpdateUserRequest { user, display_name, ..Default::default() };
            directory.update_user(request).await.map(|_| ())
        }
        method => unreachable!("{method} is not called here"),
    }
}

fn named_x() -> CreatePersonalAccessTokenRequest {
    CreatePersonalAccessTokenRequest { name: "x".to_owned(), ..Default::default() }
}

fn made(created: &CreatePersonalAccessTokenResponse) -> &PersonalAccessToken {
    created.personal_access_token.as_ref().unwrap()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// With these scopes, and nothing else set.
fn with_scopes(scopes: &[&str]) -> CreatePersonalAccessTokenRequest {
    CreatePersonalAccessTokenRequest { scopes: texts(scopes), ..named_x() }
}

async fn create(
    server: &TestServer,
    token: &str,
    request: CreatePersonalAccessTokenRequest,
) -> Result<Response<CreatePersonalAccessTokenResponse>, Status> {
    server.tokens(token).create_personal_access_token(request).await
}

/// What a creation that succeeds makes.
async fn create_ok(
    server: &TestServer,
    token: &str,
    request: CreatePersonalAccessTokenRequest,
) -> CreatePersonalAccessTokenResponse {
    create(server, token, request).await.unwrap().into_inner()
}

/// A token that the administrator makes for a user as `request` says.
async fn token_as(
    server: &TestServer,
    user_id: &str,
    request: CreatePersonalAccessTokenRequest,
) -> String {
    let request = CreatePersonalAccessTokenRequest { user_id: Some(user_id.to_owned()), ..request };
    create_ok(server, &server.admin, request).await.token
}

async fn each_call_asks_of_its_caller_what_the_table_says(engine: Engine) {
    let in_table: BTreeSet<_> =
        TABLE.iter().map(|row| format!("/token_authority.v1.{}", row.method)).collect();
    let served: BTreeSet<_> = rights::ALL.iter().map(|right| right.path.to_owned()).collect();
    assert_eq!(in_table, served, "every RPC that is served has a row here");

    let server = TestServer::start(engine).await;
    let other = server.user("other").await;
    let scopes: [&[&str]; 10] = [
        &[],
        &["read:*", "write:*"],
        &["read:tokens"],
        &["write:tokens"],
        &["issue:tokens"],
        &["verify:tokens"],
        &["read:directory"],
        &["write:directory"],
        &["read:audit"],
        &["admin:all"],
    ];
    for is_admin in [true, false] {
        let user =
            if is_admin { server.administrator("boss").await } else { server.user("alice").await };
        for (at, scopes) in scopes.into_iter().enumerate() {
            let token = server.text_of(&user.id, scopes).await;
            let own = Targets::new(&server, &user.id).await;
            let others = Targets::new(&server, &other.id).await;
            for (row_at, row) in TABLE.iter().enumerate() {
                let targets = if matches!(row.of, Nobody | Own | OwnId) { &own } else { &others };
                let caller = server.presenting(&[&format!("Bearer {token}")]);
                let handle = format!("new-{is_admin}-{at}-{row_at}");
                let answer = call(row, caller, targets, &handle).await;
                let (code, reason) = match answer {
                    Ok(()) => (Code::Ok, String::new()),
                    Err(status) => refused::<()>(Err(status)),
                };
                let expected = row.expected(is_admin, scopes);
                let who = if is_admin { "administrator" } else { "user" };
                assert_eq!((code, &*reason), expected, "{} by {who} {scopes:?}", row.method);
            }
        }
    }
}

async fn who_proves_no_good_token_calls_nothing(engine: Engine) {
    let server = TestServer::start(engine).await;
    let everything = with_scopes(&["admin:all"]);
    let boss = server.administrator("boss").await;
    let gone = server.administrator("gone").await;
    let targets = Targets::new(&server, &boss.id).await;

    let inactive = token_as(&server, &gone.id, everything.clone()).await;
    let user = gone.id.clone();
    let request = UpdateUserRequest { user, is_active: Some(false), ..Default::default() };
    server.directory(&server.admin).update_user(request).await.unwrap();
    let in_a_second = Some(Expiry::Ttl(prost_types::Duration { seconds: 1, nanos: 0 }));
    let expires = CreatePersonalAccessTokenRequest { expiry: in_a_second, ..everything.clone() };
    let expired = token_as(&server, &boss.id, expires).await;
    server.clock.advance(Duration::from_secs(1));
    let revoked = server.token_of(&boss.id, &["admin:all"]).await;
    let id = made(&revoked).id.clone();
    let request = RevokePersonalAccessTokenRequest { id, include_descendants: false };
    server.tokens(&server.admin).revoke_personal_access_token(request).await.unwrap();

    let unknown = crate::support::server::unknown_token();
    let tokens = [&inactive, &expired, &revoked.token, &unknown, "garbage"];
    let mut callers: Vec<_> = tokens
        .iter()
        .map(|token| (vec![format!("Bearer {token}")], "CALLER_TOKEN_REFUSED"))
        .collect();
    callers.push((Vec::new(), "CALLER_TOKEN_MISSING"));
    let kept = server.kept().await;
    for (headers, reason) in &callers {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        for row in &TABLE {
            let answer = call(row, server.presenting(&headers), &targets, "new").await;
            let expected = (Code::Unauthenticated, (*reason).to_owned());
            assert_eq!(refused(answer.map(Response::new)), expected, "{} {headers:?}", row.method);
        }
    }
    assert_eq!(server.kept().await, kept);
}

async fn token_makes_none_with_scopes_beyond_its_own(engine: Engine) {
    let server = TestServer::start(engine).await;
    let boss = server.administrator("boss").await;
    let user = server.user("alice").await;
    let held = ["write:tokens", "read:notes", "write:*", "verify:tokens"];
    for (owner, others) in [(&boss.id, Some(user.id.clone())), (&user.id, None)] {
        let caller = server.text_of(owner, &held).await;
        for within in [&[][..], &["read:notes"], &["write:mail", "write:*"], &["write:tokens"]] {
            create(&server, &caller, with_scopes(within)).await.unwrap();
        }
        let kept = server.kept().await;
        for beyond in ["read:mail", "read:*", "read:tokens", "issue:tokens", "admin:all"] {
            for user_id in [None, others.clone()] {
                let request = CreatePersonalAccessTokenRequest {
                    user_id,
                    ..with_scopes(&["read:notes", beyond])
                };
                assert_eq!(exceeded(create(&server, &caller, request).await), "scopes", "{beyond}");
            }
        }
        assert_eq!(server.kept().await, kept);
    }
}

async fn token_makes_none_that_outlives_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let minute = Duration::from_mins(1);
    let at = |by| Some(Expiry::ExpiresAt(server.after(by)));
    let after = |seconds, nanos| Some(Expiry::Ttl(prost_types::Duration { seconds, nanos }));
    let until =
        CreatePersonalAccessTokenRequest { expiry: at(minute), ..with_scopes(&["write:tokens"]) };
    let caller = token_as(&server, &user.id, until).await;
    for expiry in [at(minute), after(60, 0), after(1, 0), None] {
        let request = CreatePersonalAccessTokenRequest { expiry, ..named_x() };
        let created = create_ok(&server, &caller, request).await;
        let expires_at = made(&created).expires_at.unwrap();
        assert!(expires_at.seconds <= server.after(minute).seconds, "{expiry:?}");
    }
    for (expiry, field) in [
        (at(minute + Duration::from_micros(1)), "expires_at"),
        (after(60, 1_000), "ttl"),
        (after(i64::MAX, 0), "ttl"),
    ] {
        let request = CreatePersonalAccessTokenRequest { expiry, ..named_x() };
        assert_eq!(exceeded(create(&server, &caller, request).await), field);
    }
}

async fn token_makes_none_that_may_be_used_from_elsewhere(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let from = |networks: &[&str]| CreatePersonalAccessTokenRequest {
        allowed_ips: texts(networks),
        ..with_scopes(&["write:tokens"])
    };
    let caller = token_as(&server, &user.id, from(&["127.0.0.0/8", "2001:db8::/32"])).await;
    for within in [&["127.0.0.1"][..], &["127.1.0.0/16", "2001:db8::1"], &["::ffff:127.0.0.1"]] {
        create(&server, &caller, from(within)).await.unwrap();
    }
    for beyond in [&["10.0.0.0/8"][..], &["0.0.0.0/0"], &["127.0.0.1", "2001:db9::1"], &["::/0"]] {
        let answer = create(&server, &caller, from(beyond)).await;
        assert_eq!(exceeded(answer), "allowed_ips", "{beyond:?}");
    }
}

async fn token_bound_to_a_workspace_makes_none_beyond_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let [own, other] = [server.workspace("own").await, server.workspace("other").await];
    server.join(&user.id, &own, "member").await;
    server.join(&user.id, &other, "member").await;
    let bound = |workspace: &str| CreatePersonalAccessTokenRequest {
        workspace_id: Some(workspace.to_owned()),
        ..with_scopes(&["write:tokens"])
    };
    let caller = token_as(&server, &user.id, bound(&own)).await;
    for request in [bound(&own), with_scopes(&[])] {
        let created = create_ok(&server, &caller, request).await;
        assert_eq!(made(&created).workspace_id, Some(own.clone()));
    }
    let unknown = "0198c0de-0000-7000-8000-000000000001";
    for beyond in [&*other, unknown] {
        let answer = create(&server, &caller, bound(beyond)).await;
        assert_eq!(exceeded(answer), "workspace_id", "{beyond}");
    }
}

async fn administrators_token_bound_to_a_workspace_reaches_nothing_of_others(engine: Engine) {
    let server = TestServer::start(engine).await;
    let boss = server.administrator("boss").await;
    let other = server.user("other").await;
    let workspace = server.workspace("w").await;
    server.join(&boss.id, &workspace, "owner").await;
    let request = CreatePersonalAccessTokenRequest {
        workspace_id: Some(workspace),
        ..with_scopes(&["admin:all"])
    };
    let bound = token_as(&server, &boss.id, request).await;
    let targets = Targets::new(&server, &other.id).await;
    let kept = server.kept().await;
    for row in TABLE.iter().filter(|row| matches!(row.of, Others | OthersId)) {
        let caller = server.presenting(&[&format!("Bearer {bound}")]);
        let expected = if row.of == OthersId {
            (Code::NotFound, String::new())
        } else {
            (Code::PermissionDenied, "CALLER_SCOPE".to_owned())
        };
        let answer = call(row, caller, &targets, "new").await;
        assert_eq!(refused(answer.map(Response::new)), expected, "{}", row.method);
    }
    assert_eq!(server.kept().await, kept);
}

async fn what_is_left_out_is_inherited_from_the_callers_token(engine: Engine) {
    let server = TestServer::start_with(engine, &["--pat-default-lifetime=1h"]).await;
    let user = server.user("alice").await;
    let workspace = server.workspace("w").await;
    server.join(&user.id, &workspace, "owner").await;
    let expires_at = server.after(Duration::from_mins(1));
    let request = CreatePersonalAccessTokenRequest {
        workspace_id: Some(workspace.clone()),
        expiry: Some(Expiry::ExpiresAt(expires_at)),
        allowed_ips: texts(&["127.0.0.0/8"]),
        ..with_scopes(&["write:tokens", "read:notes"])
    };
    let caller = token_as(&server, &user.id, request).await;
    let created = create_ok(&server, &caller, named_x()).await;
    let token = made(&created);
    assert_eq!(token.workspace_id, Some(workspace));
    assert_eq!(token.expires_at, Some(expires_at), "not the default, which is later");
    assert_eq!(token.allowed_ips, ["127.0.0.0/8"]);
    assert!(token.scopes.is_empty(), "scopes are never inherited");
}

async fn issuer_gives_catalogue_scopes_to_others_who_are_no_administrators(engine: Engine) {
    let server = TestServer::start_with(engine, &["--pat-max-lifetime=30d"]).await;
    let boss = server.administrator("boss").await;
    let user = server.user("alice").await;
    let limited = CreatePersonalAccessTokenRequest {
        expiry: Some(Expiry::ExpiresAt(server.after(Duration::from_mins(1)))),
        allowed_ips: texts(&["127.0.0.0/8"]),
        ..with_scopes(&["issue:tokens"])
    };
    let issuer = token_as(&server, &boss.id, limited).await;
    let longest = Expiry::ExpiresAt(server.after(Duration::from_hours(30 * 24)));
    let request = |user_id: &str, scopes: &[&str]| CreatePersonalAccessTokenRequest {
        user_id: Some(user_id.to_owned()),
        expiry: Some(longest),
        ..with_scopes(scopes)
    };
    let created = create_ok(&server, &issuer, request(&user.id, &["read:*", "write:notes"])).await;
    assert_eq!(made(&created).user_id, user.id);
    assert_eq!(made(&created).expires_at, Some(server.after(Duration::from_hours(30 * 24))));
    assert!(made(&created).allowed_ips.is_empty(), "it is not limited as its issuer is");
    let id = made(&created).id.clone();

    let kept = server.kept().await;
    for control in ["read:tokens", "verify:tokens", "issue:tokens", "admin:all"] {
        let answer = create(&server, &issuer, request(&user.id, &["read:notes", control])).await;
        assert_eq!(exceeded(answer), "scopes", "{control}");
    }
    let root = server.administrator("root2").await;
    let answer = create(&server, &issuer, request(&root.id, &["read:notes"])).await;
    assert_eq!(exceeded(answer), "scopes", "an administrator's tokens are not for it to make");
    let answer = create(&server, &issuer, with_scopes(&[])).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "CALLER_SCOPE".to_owned()));
    assert_eq!(server.kept().await, kept + 2, "root2 and its audit row");

    // It reaches what is of users who are no administrators, and nothing else.
    let listed = |user_id: &str| ListPersonalAccessTokensRequest {
        user_id: Some(user_id.to_owned()),
        ..Default::default()
    };
    let mut tokens = server.tokens(&issuer);
    tokens.list_personal_access_tokens(listed(&user.id)).await.unwrap();
    let answer = tokens.list_personal_access_tokens(listed(&root.id)).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "CALLER_SCOPE".to_owned()));
    let roots = made(&server.token_of(&root.id, &[]).await).id.clone();
    let revoke = |id| RevokePersonalAccessTokenRequest { id, include_descendants: true };
    let answer = tokens.revoke_personal_access_token(revoke(roots)).await;
    assert_eq!(refused(answer), (Code::NotFound, String::new()));
    tokens.revoke_personal_access_token(revoke(id)).await.unwrap();
    // A user who is no administrator issues nothing, whatever its token says.
    let plain = server.text_of(&user.id, &["issue:tokens"]).await;
    let answer = create(&server, &plain, request(&root.id, &["read:notes"])).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "CALLER_ROLE".to_owned()));
}

async fn administrators_alone_give_the_scopes_to_verify_to_issue_and_to_do_everything(
    engine: Engine,
) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let boss = server.administrator("boss").await;
    let held = ["write:tokens", "verify:tokens", "issue:tokens", "admin:all", "read:audit"];
    let plain = server.text_of(&user.id, &held).await;
    let administrator = server.text_of(&boss.id, &held[..3]).await;
    for scope in ["verify:tokens", "issue:tokens", "admin:all"] {
        let answer = create(&server, &plain, with_scopes(&[scope])).await;
        assert_eq!(exceeded(answer), "scopes", "{scope}");
    }
    create(&server, &plain, with_scopes(&["read:audit", "write:directory"])).await.unwrap();
    create(&server, &administrator, with_scopes(&["verify:tokens"])).await.unwrap();
    let for_user = CreatePersonalAccessTokenRequest {
        user_id: Some(user.id),
        ..with_scopes(&["verify:tokens"])
    };
    create(&server, &administrator, for_user).await.unwrap();
}

async fn only_a_token_that_may_do_everything_appoints_administrators(engine: Engine) {
    let server = TestServer::start(engine).await;
    let boss = server.administrator("boss").await;
    let user = server.user("alice").await;
    let clerk = server.text_of(&boss.id, &["write:directory", "read:directory"]).await;
    let create_user =
        |is_admin| CreateUserRequest { handle: "new".to_owned(), is_admin, ..Default::default() };
    let update_user = |user: &str, is_admin| UpdateUserRequest {
        user: user.to_owned(),
        is_admin,
        ..Default::default()
    };
    let kept = server.kept().await;
    let denied = (Code::PermissionDenied, "CALLER_SCOPE".to_owned());
    let mut directory = server.directory(&clerk);
    assert_eq!(refused(directory.create_user(create_user(true)).await), denied);
    for (user, is_admin) in [(&user.id, true), (&boss.id, false)] {
        let answer = directory.update_user(update_user(user, Some(is_admin))).await;
        assert_eq!(refused(answer), denied);
    }
    assert_eq!(server.kept().await, kept);
    directory.create_user(create_user(false)).await.unwrap();
    directory.update_user(update_user(&user.id, None)).await.unwrap();

    let mut directory = server.directory(&server.admin);
    for is_admin in [true, false] {
        let answer = directory.update_user(update_user(&user.id, Some(is_admin))).await.unwrap();
        assert_eq!(answer.into_inner().user.unwrap().is_admin, is_admin);
    }
}

async fn bound_verifier_learns_of_its_workspace_alone(engine: Engine) {
    let server = TestServer::start(engine).await;
    let [verifier, member, stranger] =
        [server.user("verifier").await, server.user("member").await, server.user("stranger").await];
    let [own, other] = [server.workspace("own").await, server.workspace("other").await];
    for (user, workspace) in
        [(&verifier, &own), (&member, &own), (&member, &other), (&stranger, &other)]
    {
        server.join(&user.id, workspace, "member").await;
    }
    let bound = |workspace: &str, scopes: &[&str]| CreatePersonalAccessTokenRequest {
        workspace_id: Some(workspace.to_owned()),
        ..with_scopes(scopes)
    };
    let asker = token_as(&server, &verifier.id, bound(&own, &["verify:tokens"])).await;
    let ask = async |token: &str, required: &[&str]| {
        let required_scopes = texts(required);
        let token = token.to_owned();
        let request = VerifyRequest { token, required_scopes, ..Default::default() };
        server.verification(&asker).verify(request).await.unwrap().into_inner()
    };
    let of_member = token_as(&server, &member.id, bound(&own, &[])).await;
    let unbound_of_member = server.text_of(&member.id, &[]).await;
    let elsewhere = token_as(&server, &member.id, bound(&other, &[])).await;
    let of_stranger = server.text_of(&stranger.id, &[]).await;
    for known in [&of_member, &unbound_of_member, &asker] {
        assert!(ask(known, &[]).await.active);
        assert_eq!(ask(known, &["read:notes"]).await.reason(), Reason::InsufficientScope);
    }
    // Who is a member of other workspaces is not for it to know.
    let of_another = VerifyRequest {
        token: unbound_of_member.clone(),
        workspace_id: Some(other.clone()),
        ..Default::default()
    };
    let answer = server.verification(&asker).verify(of_another.clone()).await.unwrap();
    assert_eq!(answer.into_inner().reason(), Reason::WrongWorkspace);
    let answer = server.verification(&server.admin).verify(of_another).await.unwrap();
    assert!(answer.into_inner().active);
    for unknown in [&elsewhere, &of_stranger, &server.admin] {
        assert!(server.verify(unknown).await.active);
        for required in [&[][..], &["read:notes"]] {
            let answer = ask(unknown, required).await;
            assert_eq!((answer.reason(), &answer.refusal), (Reason::NotFound, &None));
            assert!(answer.user_id.is_empty() && answer.token_id.is_empty());
        }
    }
    server.leave(&member.id, &own).await;
    assert_eq!(ask(&unbound_of_member, &[]).await.reason(), Reason::NotFound);
    assert_eq!(ask(&of_member, &[]).await.reason(), Reason::Revoked, "it is bound here still");
}
