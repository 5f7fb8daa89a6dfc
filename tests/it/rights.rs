mod table;
mod world;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use token_authority::{
    proto::v1::{
        CreatePersonalAccessTokenRequest, CreatePersonalAccessTokenResponse, CreateUserRequest,
        DeleteApiClientAuthorizationRequest, DeleteUserRequest, ListApiClientAuthorizationsRequest,
        ListMembershipsRequest, ListOrganizationsRequest, ListPersonalAccessTokensRequest,
        ListWorkspacesRequest, PersonalAccessToken, Reason, RevokePersonalAccessTokenRequest,
        RotatePersonalAccessTokenRequest, UpdateUserRequest, UpsertUsersRequest, UserUpsert,
        VerifyRequest, WorkspaceCreatePatRequest, WorkspaceCreatePatResponse,
        WorkspaceListPatsRequest, WorkspaceRevokePatRequest,
        create_personal_access_token_request::Expiry,
    },
    rights,
};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, exceeded, refused, unknown_token, v2},
};
use table::{Asks, Caller, Kind, NOT_A_MEMBER, NOT_FOUND, OK, ROLE, Row, SCOPE, TABLE, path_scope};
use world::{On, Place, ROOT, SYSTEM, Whose, World, known};

on_both_stores![
    each_call_asks_of_its_caller_what_the_table_says,
    token_ends_itself_whatever_its_scopes_and_its_descendants_by_them,
    what_is_not_served_yet_says_so_to_those_who_prove_a_token,
    who_proves_no_good_token_calls_nothing,
    token_makes_none_with_scopes_beyond_its_own,
    token_makes_none_that_outlives_it,
    token_makes_none_that_may_be_used_from_elsewhere,
    token_bound_to_a_workspace_makes_none_beyond_it,
    what_is_left_out_is_inherited_from_the_callers_token,
    issuer_gives_catalogue_scopes_to_others_who_are_no_administrators,
    administrators_alone_give_the_scopes_to_verify_to_issue_and_to_do_everything,
    only_a_token_that_may_do_everything_appoints_administrators,
    only_a_token_that_may_do_everything_ends_another_administrator,
    bound_verifier_learns_of_its_workspace_alone,
    bound_verifier_given_by_a_workspace_admin_verifies_its_workspaces_tokens_alone,
    who_manages_no_workspace_gives_no_token_to_verify_or_to_issue,
    bound_issuer_of_a_manager_issues_for_members_with_catalogue_scopes_alone,
    manager_of_a_workspace_gets_nothing_beyond_it_by_tokens_of_others,
    lists_hold_what_their_caller_may_see,
    without_trusted_tokens_each_sees_itself_and_the_root_token_makes_and_lists,
];

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

/// With which scopes a user calls.
#[derive(Clone, Copy, PartialEq)]
enum With {
    /// For each RPC: each scope that matters alone, all others together, `admin:all`.
    Scopes,
    /// And each scope alone that does not matter, and none, for one thing of each row.
    EachScope,
    /// `admin:all`, and none.
    AllOrNone,
}

const CALLERS: [(&str, Option<Place>, With); 16] = [
    ("administrator", None, With::EachScope),
    ("administrator-inside", None, With::AllOrNone),
    ("stranger", None, With::AllOrNone),
    ("guest", None, With::AllOrNone),
    ("member", None, With::EachScope),
    ("workspace-admin", None, With::Scopes),
    ("workspace-owner", None, With::AllOrNone),
    ("organization-member", None, With::AllOrNone),
    ("organization-admin", None, With::AllOrNone),
    ("organization-owner", None, With::Scopes),
    ("member", Some(Place::Home), With::Scopes),
    ("workspace-admin", Some(Place::Home), With::Scopes),
    ("organization-owner-inside", Some(Place::Home), With::Scopes),
    ("administrator-inside", Some(Place::Home), With::Scopes),
    ("workspace-owner", Some(Place::Elsewhere), With::AllOrNone),
    ("administrator-inside", Some(Place::Elsewhere), With::AllOrNone),
];

/// Those who call by the other kind.
const AUTHORIZED: [&str; 4] = ["administrator", "member", "organization-owner", "system"];

const CONTROL: [&str; 7] = [
    "read:tokens",
    "write:tokens",
    "issue:tokens",
    "verify:tokens",
    "read:directory",
    "write:directory",
    "read:audit",
];
const CATALOGUE: [&str; 2] = ["read:*", "write:*"];

/// How much of a row a caller plays.
#[derive(Clone, Copy, PartialEq)]
enum Plays {
    Everything,
    OneThing,
    /// One thing of each row to which just these scopes matter.
    Where(&'static [&'static str]),
    /// Everything of the methods whose own path is admitted, one thing of the others.
    Path,
    /// Everything where this scope matters, and of the others one thing or nothing.
    With(&'static str, bool),
}

impl Plays {
    fn of(self, row: &Row, caller: &Caller) -> &'static [On] {
        let (all, one) = (row.on, &row.on[..1]);
        match self {
            Self::Everything => all,
            Self::Where(scopes) if row.asks.scopes() == scopes => one,
            Self::With(scope, _) if row.asks.scopes().contains(&scope) => all,
            Self::Path if caller.admits(row.method) => all,
            Self::OneThing | Self::With(_, true) | Self::Path => one,
            Self::Where(_) | Self::With(_, false) => &[],
        }
    }
}

/// The scopes of a user's tokens, and what each is good to play.
fn scopes_of(with: With) -> Vec<(Vec<String>, Plays)> {
    let mut scopes =
        vec![(texts(&["admin:all"]), Plays::Everything), (Vec::new(), Plays::OneThing)];
    if with == With::AllOrNone {
        return scopes;
    }
    let each = with == With::EachScope;
    if each {
        scopes.push((texts(&CATALOGUE), Plays::OneThing));
    }
    for scope in CONTROL.into_iter().filter(|scope| each || *scope != "read:audit") {
        scopes.push((texts(&[scope]), Plays::With(scope, each)));
    }
    let matter: BTreeSet<_> = TABLE.iter().map(|row| row.asks.scopes()).collect();
    for matter in matter.into_iter().filter(|matter| !matter.is_empty()) {
        let others = CONTROL.iter().chain(&CATALOGUE).filter(|scope| !matter.contains(scope));
        scopes.push((others.map(ToString::to_string).collect(), Plays::Where(matter)));
    }
    scopes
}

/// One who calls: with this text, that many things.
struct Player {
    caller: Caller,
    text: String,
    id: String,
    plays: Plays,
}

/// The scopes of an API client authorization: every second method's own path in
/// either order, so that each is refused where all around it are admitted, and what
/// begins those of a service.
fn scopes_of_authorizations() -> [Vec<String>; 5] {
    let methods: BTreeSet<_> = TABLE.iter().map(|row| row.method).collect();
    let every_second =
        |from| methods.iter().skip(from).step_by(2).map(|&method| path_scope(method));
    let service = path_scope("ApiClientAuthorizations/");
    [
        vec![],
        vec!["all".to_owned()],
        every_second(0).collect(),
        every_second(1).collect(),
        vec![service],
    ]
}

/// All callers of the table.
async fn players(world: &World) -> Vec<Player> {
    let mut players = Vec::new();
    for (handle, bound, with) in CALLERS {
        let person = known(handle);
        for (scopes, plays) in scopes_of(with) {
            let held: Vec<_> = scopes.iter().map(String::as_str).collect();
            let place = bound.unwrap_or(Place::Nowhere);
            let (text, id) = world.token_for(&person, &held, place).await;
            let kind = Kind::PersonalAccessToken;
            let caller = Caller { person, kind, scopes, bound };
            players.push(Player { caller, text, id, plays });
        }
    }
    for handle in AUTHORIZED {
        for (at, scopes) in scopes_of_authorizations().into_iter().enumerate() {
            let person = known(handle);
            let held: Vec<_> = scopes.iter().map(String::as_str).collect();
            let made = world.authorization_for(handle, &held).await;
            let text = match at % 3 {
                0 => v2(&made),
                1 => made.api_token().to_owned(),
                _ => format!("{}/zzzzz-dz642-000000000000001", v2(&made)),
            };
            let plays = if scopes == ["all"] { Plays::Everything } else { Plays::Path };
            let kind = Kind::ApiClientAuthorization;
            let caller = Caller { person, kind, scopes, bound: None };
            players.push(Player { caller, text, id: made.uuid.unwrap(), plays });
        }
    }
    let (kind, scopes) = (Kind::SystemRoot, texts(&["all"]));
    let caller = Caller { person: SYSTEM, kind, scopes, bound: None };
    let id = "zzzzz-gj3su-000000000000000".to_owned();
    players.push(Player { caller, text: ROOT.to_owned(), id, plays: Plays::Everything });
    players
}

fn came_of(answer: Result<(), Status>) -> (Code, String) {
    match answer {
        Ok(()) => (Code::Ok, String::new()),
        Err(status) => refused::<()>(Err(status)),
    }
}

/// Plays the cells of one caller: how many there were, and those that came out wrong.
async fn play(world: &World, player: &Player) -> (usize, Vec<String>) {
    let Player { caller, text, plays, .. } = player;
    let (mut played, mut wrong) = (0, Vec::new());
    for row in TABLE {
        for &on in plays.of(row, caller) {
            let expected = caller.expected(row, on);
            let ends_everybodys = row.method.ends_with("RevokeTokens")
                && on == On(Whose::Nobodys, Place::Nowhere)
                && expected == OK;
            if ends_everybodys || row.asks.is_by_id() && !world.has(&caller.person, on) {
                continue;
            }
            let channel = world.server.presenting(&[&format!("Bearer {text}")]);
            let answer = came_of(world.call(row.method, channel, &caller.person, on).await);
            played += 1;
            if (answer.0, &*answer.1) != expected {
                wrong.push(format!(
                    "{} {on:?} {caller:?}: {answer:?}, not {expected:?}",
                    row.method
                ));
            }
        }
    }
    (played, wrong)
}

async fn each_call_asks_of_its_caller_what_the_table_says(engine: Engine) {
    let world = Arc::new(World::new(engine).await);
    let players = players(&world).await;
    let (nothing, something): (Vec<_>, Vec<_>) =
        players.into_iter().partition(|player| player.caller.scopes.is_empty());
    let (mut played, mut wrong) = (0, Vec::new());
    let kept = world.server.kept().await;
    for player in &nothing {
        let (cells, mismatches) = play(&world, player).await;
        played += cells;
        wrong.extend(mismatches);
    }
    assert_eq!(world.server.kept().await, kept, "without a scope nothing is changed");

    let mut players = JoinSet::new();
    let mut shares: [Vec<_>; 4] = Default::default();
    something.into_iter().enumerate().for_each(|(at, player)| shares[at % 4].push(player));
    for share in shares {
        let world = Arc::clone(&world);
        players.spawn(async move {
            let (mut played, mut wrong) = (0, Vec::new());
            for player in &share {
                let (cells, mismatches) = play(&world, player).await;
                played += cells;
                wrong.extend(mismatches);
            }
            (played, wrong)
        });
    }
    for (cells, mismatches) in players.join_all().await {
        played += cells;
        wrong.extend(mismatches);
    }
    assert!(wrong.is_empty(), "{} of {played}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(played > 4_000, "{played} cells");
}

async fn token_ends_itself_whatever_its_scopes_and_its_descendants_by_them(engine: Engine) {
    let world = World::new(engine).await;
    let (org, workspace) = world.path(Place::Home);
    let row = |name: &str| TABLE.iter().find(|row| row.method.ends_with(name)).unwrap();
    for Player { caller, text, id, .. } in players(&world).await {
        if caller.kind != Kind::PersonalAccessToken {
            authorization_ends_itself(&world, &caller, &text, id).await;
            continue;
        }
        let mut tokens = world.server.tokens(&text);
        let in_workspace = caller.bound == Some(Place::Home);
        let mut revoke = async |include_descendants| {
            let id = id.clone();
            if in_workspace {
                let [org, workspace] = [org.clone(), workspace.clone()];
                let request = WorkspaceRevokePatRequest { org, workspace, id, include_descendants };
                came_of(tokens.workspace_revoke_pat(request).await.map(drop))
            } else {
                let request = RevokePersonalAccessTokenRequest { id, include_descendants };
                came_of(tokens.revoke_personal_access_token(request).await.map(drop))
            }
        };
        // With its descendants, it is a token of its user as any other.
        let name = if in_workspace { "WorkspaceRevokePat" } else { "/RevokePersonalAccessToken" };
        let on = On(Whose::Own, caller.bound.unwrap_or(Place::Nowhere));
        let expected = caller.expected(row(name), on);
        let (code, reason) = revoke(true).await;
        assert_eq!((code, &*reason), expected, "{caller:?}");
        if expected != OK {
            assert_eq!(revoke(false).await.0, Code::Ok, "{caller:?}");
        }
        let refusal = (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned());
        assert_eq!(revoke(false).await, refusal, "{caller:?}");
    }
}

/// Whatever its scopes; the system root token, which is in no store, never ends.
async fn authorization_ends_itself(world: &World, caller: &Caller, text: &str, uuid: String) {
    let mut authorizations = world.server.authorizations(text);
    let mut delete = async || {
        let request = DeleteApiClientAuthorizationRequest { uuid: uuid.clone() };
        came_of(authorizations.delete_api_client_authorization(request).await.map(drop))
    };
    if caller.kind == Kind::SystemRoot {
        for _ in 0..2 {
            assert_eq!(delete().await, (Code::NotFound, String::new()));
        }
        return;
    }
    assert_eq!(delete().await.0, Code::Ok, "{caller:?}");
    let refusal = (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned());
    assert_eq!(delete().await, refusal, "{caller:?}");
}

async fn what_is_not_served_yet_says_so_to_those_who_prove_a_token(engine: Engine) {
    let server = TestServer::start(engine).await;
    let in_table: BTreeSet<_> =
        TABLE.iter().map(|row| format!("/token_authority.v1.{}", row.method)).collect();
    let stranger = server.user("stranger").await;
    let nothing = server.text_of(&stranger.id, &[]).await;
    for right in rights::ALL {
        for token in [Some(&*server.admin), Some(&*nothing), None] {
            let code = server.call(right.path, token).await.err().map(|status| status.code());
            if token.is_none() {
                assert_eq!(code, Some(Code::Unauthenticated), "{}", right.path);
            } else {
                let is_served = code != Some(Code::Unimplemented);
                assert_eq!(is_served, in_table.contains(right.path), "{}: {code:?}", right.path);
            }
        }
    }
    assert!(in_table.iter().all(|path| rights::ALL.iter().any(|right| right.path == path)));
}

async fn who_proves_no_good_token_calls_nothing(engine: Engine) {
    let world = World::new(engine).await;
    let server = &world.server;
    let everything = with_scopes(&["admin:all"]);
    let boss = known("administrator");
    let boss_id = world.user(boss.handle);
    let gone = server.administrator("gone").await;

    let inactive = token_as(server, &gone.id, everything.clone()).await;
    let user = gone.id.clone();
    let request = UpdateUserRequest { user, is_active: Some(false), ..Default::default() };
    server.directory(&server.admin).update_user(request).await.unwrap();
    let in_a_second = Some(Expiry::Ttl(prost_types::Duration { seconds: 1, nanos: 0 }));
    let expires = CreatePersonalAccessTokenRequest { expiry: in_a_second, ..everything.clone() };
    let expired = token_as(server, &boss_id, expires).await;
    server.clock.advance(Duration::from_secs(1));
    let revoked = server.token_of(&boss_id, &["admin:all"]).await;
    let id = made(&revoked).id.clone();
    let request = RevokePersonalAccessTokenRequest { id, include_descendants: false };
    server.tokens(&server.admin).revoke_personal_access_token(request).await.unwrap();

    let unknown = unknown_token();
    let [deleted, good] = [
        world.authorization_for(boss.handle, &["all"]).await,
        world.authorization_for(boss.handle, &["all"]).await,
    ];
    let request = DeleteApiClientAuthorizationRequest { uuid: deleted.uuid().to_owned() };
    let mut its = server.authorizations(deleted.api_token());
    its.delete_api_client_authorization(request).await.unwrap();
    let of_another = format!("v2/{}/{}", deleted.uuid(), good.api_token());
    let without_secret = format!("v2/{}/", good.uuid());
    let root = ROOT;
    let tokens = [
        &inactive,
        &expired,
        &revoked.token,
        &unknown,
        "garbage",
        deleted.api_token(),
        &v2(&deleted),
        &of_another,
        &without_secret,
        &format!("v2/{}", good.api_token()),
        &good.api_token()[1..],
        &root[1..],
        &format!("{root}0"),
        &format!("v2/zzzzz-gj3su-000000000000000/{root}"),
    ];
    let mut callers: Vec<_> = tokens
        .iter()
        .map(|token| (vec![format!("Bearer {token}")], "CALLER_TOKEN_REFUSED"))
        .collect();
    callers.push((Vec::new(), "CALLER_TOKEN_MISSING"));
    let kept = server.kept().await;
    for (headers, reason) in &callers {
        let headers: Vec<_> = headers.iter().map(String::as_str).collect();
        for row in TABLE {
            let on =
                *row.on.iter().find(|&&on| !row.asks.is_by_id() || world.has(&boss, on)).unwrap();
            let answer = world.call(row.method, server.presenting(&headers), &boss, on).await;
            let expected = (Code::Unauthenticated, (*reason).to_owned());
            assert_eq!(came_of(answer), expected, "{} {headers:?}", row.method);
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
    // An administrator's tokens are not for it to make, its own user's among them.
    for request in [request(&root.id, &["read:notes"]), with_scopes(&[])] {
        let answer = create(&server, &issuer, request).await;
        assert_eq!(refused(answer), (Code::PermissionDenied, "CALLER_SCOPE".to_owned()));
    }
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

async fn only_a_token_that_may_do_everything_ends_another_administrator(engine: Engine) {
    let server = TestServer::start(engine).await;
    let [boss, other] = [server.administrator("boss").await, server.administrator("other").await];
    let user = server.user("alice").await;
    let external_id = Some("idp|other".to_owned());
    let name = UpdateUserRequest { user: other.id.clone(), external_id, ..Default::default() };
    server.directory(&server.admin).update_user(name).await.unwrap();
    let clerk = server.text_of(&boss.id, &["write:directory"]).await;
    let mut directory = server.directory(&clerk);
    let update = |user: &str, is_active| UpdateUserRequest {
        user: user.to_owned(),
        is_active: Some(is_active),
        ..Default::default()
    };
    let upsert = |is_active| UpsertUsersRequest {
        users: vec![UserUpsert {
            external_id: "idp|other".to_owned(),
            is_active: Some(is_active),
            ..Default::default()
        }],
    };
    let kept = server.kept().await;
    let denied = (Code::PermissionDenied, "CALLER_SCOPE".to_owned());
    assert_eq!(refused(directory.update_user(update(&other.id, false)).await), denied);
    assert_eq!(refused(directory.upsert_users(upsert(false)).await), denied);
    let delete = |user: &str| DeleteUserRequest { user: user.to_owned() };
    assert_eq!(refused(directory.delete_user(delete(&other.id)).await), denied);
    // What is so already is not changed.
    directory.upsert_users(upsert(true)).await.unwrap();
    directory.update_user(update(&other.id, true)).await.unwrap();
    assert_eq!(server.kept().await, kept);
    directory.update_user(update(&user.id, false)).await.unwrap();
    directory.delete_user(delete(&user.id)).await.unwrap();
    // Itself it may.
    directory.delete_user(delete(&boss.id)).await.unwrap();
    server.directory(&server.admin).delete_user(delete(&other.id)).await.unwrap();
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

/// Makes a token for a member of the workspace, or for whom it is that asks.
async fn workspace_create(
    world: &World,
    token: &str,
    whom: Option<&str>,
    scopes: &[&str],
) -> Result<Response<WorkspaceCreatePatResponse>, Status> {
    let (org, workspace) = world.path(Place::Home);
    let request = WorkspaceCreatePatRequest {
        org,
        workspace,
        name: "x".to_owned(),
        scopes: texts(scopes),
        user_id: whom.map(|handle| world.user(handle)),
        ..Default::default()
    };
    world.server.tokens(token).workspace_create_pat(request).await
}

async fn workspace_created(
    world: &World,
    token: &str,
    whom: Option<&str>,
    scopes: &[&str],
) -> String {
    workspace_create(world, token, whom, scopes).await.unwrap().into_inner().token
}

async fn bound_verifier_given_by_a_workspace_admin_verifies_its_workspaces_tokens_alone(
    engine: Engine,
) {
    let world = World::new(engine).await;
    let held = ["write:tokens", "verify:tokens"];
    let here = |handle| world.token_for(handle, &[], Place::Home);
    let [admin, manager, member] = ["workspace-admin", "organization-admin", "member"].map(known);
    let (admins, _) = world.token_for(&admin, &held, Place::Nowhere).await;
    let (managers, _) = world.token_for(&manager, &held, Place::Nowhere).await;
    let verifiers = [
        workspace_created(&world, &admins, None, &["verify:tokens"]).await,
        workspace_created(&world, &admins, Some("member"), &["verify:tokens"]).await,
        workspace_created(&world, &managers, Some("peer"), &["verify:tokens"]).await,
    ];
    let (of_member, _) = here(&member).await;
    let (unbound, _) = world.token_for(&member, &[], Place::Nowhere).await;
    let (elsewhere, _) = world.token_for(&member, &[], Place::Elsewhere).await;
    let (of_stranger, _) = world.token_for(&known("stranger"), &[], Place::Nowhere).await;
    for verifier in &verifiers {
        let ask = async |token: &String| {
            let request = VerifyRequest { token: token.clone(), ..Default::default() };
            world.server.verification(verifier).verify(request).await.unwrap().into_inner()
        };
        for known in [&of_member, &unbound, &admins, &verifiers[0]] {
            assert!(ask(known).await.active);
        }
        for unknown in [&elsewhere, &of_stranger, &managers, &world.server.admin] {
            assert!(world.server.verify(unknown).await.active);
            assert_eq!(ask(unknown).await.reason(), Reason::NotFound);
        }
    }
}

async fn who_manages_no_workspace_gives_no_token_to_verify_or_to_issue(engine: Engine) {
    let world = World::new(engine).await;
    let held = ["write:tokens", "verify:tokens", "issue:tokens", "admin:all"];
    let (members, _) = world.token_for(&known("member"), &held, Place::Nowhere).await;
    let (owners, _) = world.token_for(&known("workspace-owner"), &held, Place::Nowhere).await;
    let (narrow, _) =
        world.token_for(&known("workspace-owner"), &["write:tokens"], Place::Nowhere).await;
    let kept = world.server.kept().await;
    for scope in ["verify:tokens", "issue:tokens"] {
        // Not by a member, not by a token without it, and by none that is not bound.
        for token in [&members, &narrow] {
            let answer = workspace_create(&world, token, None, &[scope]).await;
            assert_eq!(exceeded(answer), "scopes", "{scope}");
        }
        for token in [&members, &owners] {
            let answer = create(&world.server, token, with_scopes(&[scope])).await;
            assert_eq!(exceeded(answer), "scopes", "{scope}");
            let elsewhere = CreatePersonalAccessTokenRequest {
                workspace_id: Some(world.place(Place::Elsewhere)),
                ..with_scopes(&[scope])
            };
            let answer = create(&world.server, token, elsewhere).await;
            assert_eq!(exceeded(answer), "scopes", "{scope}");
        }
    }
    // To do everything is for administrators to give.
    let answer = workspace_create(&world, &owners, None, &["admin:all"]).await;
    assert_eq!(exceeded(answer), "scopes");
    assert_eq!(world.server.kept().await, kept);
    for scope in ["verify:tokens", "issue:tokens"] {
        workspace_create(&world, &owners, None, &[scope]).await.unwrap();
    }
}

async fn bound_issuer_of_a_manager_issues_for_members_with_catalogue_scopes_alone(engine: Engine) {
    let world = World::new(engine).await;
    let held = ["write:tokens", "issue:tokens"];
    let (owners, _) = world.token_for(&known("workspace-owner"), &held, Place::Nowhere).await;
    let issuer = workspace_created(&world, &owners, None, &["issue:tokens"]).await;
    let answer = workspace_create(&world, &issuer, Some("member"), &["read:notes"]).await.unwrap();
    let issued = answer.into_inner().personal_access_token.unwrap();
    assert_eq!(issued.user_id, world.user("member"));
    assert_eq!(issued.workspace_id, Some(world.place(Place::Home)));
    assert_eq!(issued.scopes, ["read:notes"]);

    let kept = world.server.kept().await;
    for control in ["read:tokens", "verify:tokens", "issue:tokens", "admin:all"] {
        let answer = workspace_create(&world, &issuer, Some("member"), &[control]).await;
        assert_eq!(exceeded(answer), "scopes", "{control}");
    }
    let refused = async |whom, expected: (Code, &str)| {
        let answer = refused(workspace_create(&world, &issuer, whom, &["read:notes"]).await);
        assert_eq!((answer.0, &*answer.1), expected, "{whom:?}");
    };
    refused(None, SCOPE).await;
    refused(Some("chief"), SCOPE).await;
    refused(Some("stranger"), NOT_A_MEMBER).await;
    refused(Some("guest"), NOT_A_MEMBER).await;
    let (org, workspace) = world.path(Place::Elsewhere);
    let elsewhere = WorkspaceCreatePatRequest {
        org,
        workspace,
        name: "x".to_owned(),
        user_id: Some(world.user("member")),
        ..Default::default()
    };
    let answer =
        came_of(world.server.tokens(&issuer).workspace_create_pat(elsewhere).await.map(drop));
    assert_eq!((answer.0, &*answer.1), SCOPE);
    let unbound = CreatePersonalAccessTokenRequest {
        user_id: Some(world.user("member")),
        ..with_scopes(&["read:notes"])
    };
    let answer = came_of(create(&world.server, &issuer, unbound).await.map(drop));
    assert_eq!((answer.0, &*answer.1), ROLE);
    assert_eq!(world.server.kept().await, kept);

    // In a member's hands it issues nothing, though a manager gave it.
    let members = workspace_created(&world, &owners, Some("member"), &["issue:tokens"]).await;
    let answer = came_of(workspace_create(&world, &members, Some("peer"), &[]).await.map(drop));
    assert_eq!((answer.0, &*answer.1), ROLE);
}

async fn manager_of_a_workspace_gets_nothing_beyond_it_by_tokens_of_others(engine: Engine) {
    let world = World::new(engine).await;
    let held = ["read:tokens", "write:tokens", "read:directory", "write:directory"];
    let (owners, _) = world.token_for(&known("workspace-owner"), &held, Place::Nowhere).await;
    let kept = world.server.kept().await;
    for administrator in ["chief", "administrator-inside"] {
        let answer = workspace_create(&world, &owners, Some(administrator), &held).await;
        let (code, reason) = came_of(answer.map(drop));
        assert_eq!((code, &*reason), ROLE, "{administrator}");
    }
    let answer =
        workspace_create(&world, &owners, Some("organization-owner-inside"), &["verify:tokens"]);
    assert_eq!(exceeded(answer.await), "scopes");
    assert_eq!(world.server.kept().await, kept);

    // A token for an owner of the organization does what a member's would do.
    let person = known("organization-owner-inside");
    let made = workspace_created(&world, &owners, Some(person.handle), &held).await;
    let (_, secret) = world.token_for(&person, &[], Place::Nowhere).await;
    let kept = world.server.kept().await;
    for row in TABLE.iter().filter(|row| row.asks == Asks::ToWriteMemberships) {
        let on = On(
            Whose::Nobodys,
            if row.method.ends_with("SetMemberships") { Place::Org } else { Place::Home },
        );
        let channel = world.server.presenting(&[&format!("Bearer {made}")]);
        let (code, reason) = came_of(world.call(row.method, channel, &person, on).await);
        assert_eq!((code, &*reason), SCOPE, "{}", row.method);
    }
    let request = RotatePersonalAccessTokenRequest { id: secret, ..Default::default() };
    let answer = world.server.tokens(&made).rotate_personal_access_token(request).await;
    assert_eq!(refused(answer), (Code::NotFound, String::new()));
    let beyond = CreatePersonalAccessTokenRequest {
        workspace_id: Some(world.place(Place::Elsewhere)),
        ..named_x()
    };
    assert_eq!(exceeded(create(&world.server, &made, beyond).await), "workspace_id");
    assert_eq!(world.server.kept().await, kept);
    let created = create_ok(&world.server, &made, named_x()).await;
    assert_eq!(self::made(&created).workspace_id, Some(world.place(Place::Home)));
}

async fn lists_hold_what_their_caller_may_see(engine: Engine) {
    let world = World::new(engine).await;
    let owners_of = async |handle: &str, scope: &str, bound: Place| {
        let (token, _) = world.token_for(&known(handle), &[scope], bound).await;
        let (org, workspace) = world.path(Place::Home);
        let request = WorkspaceListPatsRequest { org, workspace, ..Default::default() };
        let answer = world.server.tokens(&token).workspace_list_pats(request).await.unwrap();
        let listed = answer.into_inner().personal_access_tokens;
        assert!(listed.iter().all(|token| token.workspace_id == Some(world.place(Place::Home))));
        listed.into_iter().map(|token| token.user_id).collect::<BTreeSet<_>>()
    };
    let ids = |handles: &[&str]| handles.iter().map(|handle| world.user(handle)).collect();
    let plain = ["peer", "member", "workspace-admin", "organization-owner-inside"];
    let members = [&plain[..], &["workspace-owner", "administrator-inside", "chief"]].concat();
    assert_eq!(owners_of("member", "read:tokens", Place::Nowhere).await, ids(&["member"]));
    assert_eq!(owners_of("member", "admin:all", Place::Home).await, ids(&["member"]));
    for handle in ["workspace-owner", "organization-admin", "administrator"] {
        assert_eq!(owners_of(handle, "read:tokens", Place::Nowhere).await, ids(&members));
        // Of all who are no administrators.
        let issued: BTreeSet<_> = owners_of(handle, "issue:tokens", Place::Nowhere).await;
        assert_eq!(issued, ids(&[&plain[..], &["workspace-owner"]].concat()), "{handle}");
    }
    let inside = "administrator-inside";
    assert_eq!(owners_of(inside, "read:tokens", Place::Home).await, ids(&members));

    let (bound, id) = world.token_for(&known("member"), &["read:tokens"], Place::Home).await;
    let request = ListPersonalAccessTokensRequest::default();
    let listed = world.server.tokens(&bound).list_personal_access_tokens(request).await.unwrap();
    let listed = listed.into_inner().personal_access_tokens;
    assert!(listed.iter().any(|token| token.id == id));
    assert!(listed.iter().all(|token| token.workspace_id == Some(world.place(Place::Home))));

    authorization_lists_hold_what_their_caller_may_see(&world).await;
    directory_lists_hold_what_their_caller_may_see(&world).await;
}

async fn authorization_lists_hold_what_their_caller_may_see(world: &World) {
    let owners_of = async |token: &str| {
        let request =
            ListApiClientAuthorizationsRequest { limit: Some(1_000), ..Default::default() };
        let mut authorizations = world.server.authorizations(token);
        let answer = authorizations.list_api_client_authorizations(request).await.unwrap();
        let items = answer.into_inner().items;
        items.into_iter().map(|item| item.owner_uuid.unwrap()).collect::<BTreeSet<_>>()
    };
    for handle in ["administrator", "member", "organization-owner"] {
        let (token, _) = world.token_for(&known(handle), &["admin:all"], Place::Nowhere).await;
        assert_eq!(owners_of(&token).await, BTreeSet::from([world.user(handle)]), "{handle}");
    }
    let systems = world.authorization_for(SYSTEM.handle, &["all"]).await;
    let own = BTreeSet::from([world.user(SYSTEM.handle)]);
    assert_eq!(owners_of(systems.api_token()).await, own);
    for handle in ["member", "administrator-inside"] {
        let (bound, _) = world.token_for(&known(handle), &["admin:all"], Place::Home).await;
        assert!(owners_of(&bound).await.is_empty(), "{handle}");
    }
    assert!(owners_of(ROOT).await.len() > 10, "the root token sees everybody's");
}

async fn directory_lists_hold_what_their_caller_may_see(world: &World) {
    let all = [Place::Home, Place::Sibling, Place::Elsewhere];
    let callers = [
        ("stranger", Place::Nowhere, &[][..]),
        ("guest", Place::Nowhere, &all[..1]),
        ("member", Place::Nowhere, &[Place::Home, Place::Elsewhere]),
        ("member", Place::Home, &all[..1]),
        ("organization-member", Place::Nowhere, &all[..2]),
        ("organization-owner-inside", Place::Home, &all[..1]),
        ("administrator", Place::Nowhere, &all),
        ("administrator-inside", Place::Elsewhere, &all[2..]),
    ];
    for (handle, bound, places) in callers {
        let (token, _) = world.token_for(&known(handle), &["read:directory"], bound).await;
        let mut directory = world.server.directory(&token);
        let answer = directory.list_workspaces(ListWorkspacesRequest::default()).await.unwrap();
        let listed = answer.into_inner().workspaces.into_iter();
        let expected: BTreeSet<_> = places.iter().map(|place| world.place(*place)).collect();
        let workspaces: BTreeSet<_> = listed.map(|workspace| workspace.id).collect();
        assert_eq!(workspaces, expected, "{handle} bound to {bound:?}");
        let request = ListOrganizationsRequest::default();
        let answer = directory.list_organizations(request).await.unwrap();
        let listed = answer.into_inner().organizations.into_iter();
        let organizations: BTreeSet<_> = listed.map(|organization| organization.id).collect();
        let mut expected: BTreeSet<_> =
            places.iter().map(|place| world.organization(*place)).collect();
        if handle == "administrator" {
            expected.insert(world.organization(Place::Nowhere));
        }
        assert_eq!(organizations, expected, "{handle} bound to {bound:?}");

        let answer = directory.list_memberships(ListMembershipsRequest::default()).await.unwrap();
        let listed = answer.into_inner().memberships;
        let others = listed.iter().filter(|listed| listed.user_id != world.user(handle)).count();
        assert_eq!(others > 0, handle == "administrator", "{handle} bound to {bound:?}");
        let own = listed.len() - others;
        let person = known(handle);
        let containers = [Place::Home, Place::Org, Place::Elsewhere];
        let containers = containers.iter().filter(|place| {
            let is_of_its_own = **place == Place::Org && bound == Place::Home;
            let is_reached = bound == Place::Nowhere || bound == **place || is_of_its_own;
            is_reached && person.role_in(**place).is_some()
        });
        assert_eq!(own, containers.count(), "{handle} bound to {bound:?}");
    }
}

async fn without_trusted_tokens_each_sees_itself_and_the_root_token_makes_and_lists(
    engine: Engine,
) {
    let world = World::new(engine).await;
    let mut callers = vec![(SYSTEM, ROOT.to_owned())];
    for handle in ["member", "administrator"] {
        let person = known(handle);
        let (token, _) = world.token_for(&person, &["admin:all"], Place::Nowhere).await;
        callers.push((person, token));
        callers.push((person, v2(&world.authorization_for(handle, &["all"]).await)));
    }
    let world = world.restart("--issue-trusted-tokens=false").await;
    let off = (Code::PermissionDenied, "TRUSTED_TOKENS_OFF");
    let mut played = 0;
    for (person, text) in callers {
        let kept = world.server.kept().await;
        for row in TABLE.iter().filter(|row| row.method.starts_with("ApiClientAuthorizations/")) {
            for &on in row.on {
                let is_of_root =
                    [Asks::Authorizations, Asks::SystemAuthorization, Asks::OwnAuthorizations]
                        .contains(&row.asks);
                let expected = if row.asks == Asks::ItsAuthorization {
                    if text.starts_with("pat_") { NOT_FOUND } else { OK }
                } else if !is_of_root || text != ROOT {
                    off
                } else if row.asks == Asks::Authorizations && on.1 == Place::Unknown {
                    ROLE
                } else {
                    OK
                };
                let channel = world.server.presenting(&[&format!("Bearer {text}")]);
                let answer = came_of(world.call(row.method, channel, &person, on).await);
                assert_eq!((answer.0, &*answer.1), expected, "{} {on:?} {person:?}", row.method);
                played += 1;
            }
        }
        assert_eq!(world.server.kept().await > kept, text == ROOT, "{person:?}");
    }
    assert!(played > 100, "{played} cells");
}
