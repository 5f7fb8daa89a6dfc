//! What the client answers is what the authority itself answers, and who is protected by
//! it lets nobody else through.

use std::{convert::Infallible, env, path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use http::{Request, Response, StatusCode};
use token_authority::{
    client::{Answer, Client, Identity, Kind, Kinds, Options, OwnToken, Question, Reason, Route},
    clock::{Clock as _, uptime},
    proto::v1::{
        GetPersonalAccessTokenRequest, Reason as Said, RevokePersonalAccessTokenRequest, TokenKind,
        UpdateOrganizationRequest, UpdateUserRequest, UpdateWorkspaceRequest, VerifyRequest,
        VerifyResponse,
    },
    verifier::{Came, LookedUp},
};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
};
use tonic::{Code, service::Interceptor as _, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tower::{Layer as _, ServiceExt as _, service_fn};

use super::{SOON, is_active};
use crate::support::{
    Engine, client, on_both_stores,
    process::Process,
    server::{Place, TestServer, unknown_token},
    wait::until,
};

on_both_stores![what_is_kept_ends_by_word_of_the_change];

/// Longer than any test takes: only the word of a change ends what is kept.
const LONG: Duration = Duration::from_secs(3_600);

/// A client of a server, that is fresh for as long.
async fn client_of(server: &TestServer, max_staleness: Duration) -> Client {
    let own = OwnToken::text(server.admin.clone());
    let options = Options::new([format!("http://{}", server.address)], own)
        .clock(Arc::new(server.clock.clone()))
        .max_staleness(max_staleness);
    let client = Client::start(options).unwrap();
    until("it is fresh", SOON, async || client.state().is_fresh).await;
    client
}

/// How many questions about good tokens were answered.
fn answered(server: &TestServer) -> u64 {
    let counts = server.verifier.counts();
    LookedUp::ALL.iter().map(|looked_up| counts.answers(Came::Active, *looked_up)).sum()
}

async fn what_is_kept_ends_by_word_of_the_change(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-staleness=600s"]).await;
    let client = client_of(&server, LONG).await;
    let user = server.user("ada").await.id;
    let workspace = server.workspace("notes").await;
    server.join(&user, &workspace, "member").await;
    for ended_by in ["token", "user", "workspace", "organization"] {
        let token = server.bound(&user, &workspace).await;
        let answer = client.verify(Question::new(&token)).await.unwrap();
        let identity = Arc::clone(answer.identity().unwrap());
        let before = answered(&server);
        for _ in 0..5 {
            assert!(is_active(&client, &token).await);
        }
        assert_eq!(answered(&server), before, "{ended_by}");

        end(&server, ended_by, &identity, true).await;
        let bound = Duration::from_secs(2);
        until("it is refused", bound, async || !is_active(&client, &token).await).await;
        end(&server, ended_by, &identity, false).await;
    }
}

/// Ends what a token proves, by one of the things that it rests on, or has that be good
/// again where it can be.
async fn end(server: &TestServer, by: &str, identity: &Identity, ends: bool) {
    let mut directory = server.directory(&server.admin);
    let is_active = Some(!ends);
    let user = identity.user_id.clone();
    let workspace = identity.workspace_id.clone().unwrap();
    let organization = identity.organization_id.clone().unwrap();
    match by {
        "token" => {
            let id = identity.token_id.clone();
            let request = RevokePersonalAccessTokenRequest { id, include_descendants: false };
            let mut tokens = server.tokens(&server.admin);
            tokens.revoke_personal_access_token(request).await.map(drop)
        }
        "user" => {
            let request = UpdateUserRequest { user, is_active, ..Default::default() };
            directory.update_user(request).await.map(drop)
        }
        "workspace" => {
            let request = UpdateWorkspaceRequest { workspace, is_active, ..Default::default() };
            directory.update_workspace(request).await.map(drop)
        }
        _ => {
            let request =
                UpdateOrganizationRequest { organization, is_active, ..Default::default() };
            directory.update_organization(request).await.map(drop)
        }
    }
    .unwrap();
}

/// What is asked of each token.
struct Case {
    required_scopes: &'static [&'static str],
    route: Option<Route<'static>>,
    workspace_id: Option<String>,
    client_ip: Option<&'static str>,
    kinds: &'static [Kind],
}

const NOTHING: Case =
    Case { required_scopes: &[], route: None, workspace_id: None, client_ip: None, kinds: &[] };

impl Case {
    fn question<'a>(&'a self, token: &'a str) -> Question<'a> {
        Question::new(token)
            .scopes(self.required_scopes)
            .route(self.route)
            .workspace(self.workspace_id.as_deref())
            .client_ip(self.client_ip.map(|ip| ip.parse().unwrap()))
            .kinds(self.kinds.iter().copied().collect::<Kinds>())
    }

    fn request(&self, token: &str) -> VerifyRequest {
        let kind = |kind: &Kind| match kind {
            Kind::PersonalAccessToken => TokenKind::PersonalAccessToken.into(),
            Kind::ApiClientAuthorization => TokenKind::ApiClientAuthorization.into(),
            Kind::SystemRoot => TokenKind::SystemRoot.into(),
        };
        VerifyRequest {
            token: token.to_owned(),
            required_scopes: self.required_scopes.iter().map(ToString::to_string).collect(),
            request_method: self.route.map(|route| route.method.to_owned()),
            request_path: self.route.map(|route| route.path.to_owned()),
            workspace_id: self.workspace_id.clone(),
            client_ip: self.client_ip.map(ToOwned::to_owned),
            kinds: self.kinds.iter().map(kind).collect(),
            consistency: None,
        }
    }
}

/// What the authority says, in the client's words.
fn said(answer: VerifyResponse) -> Result<String, Reason> {
    let missing = answer.refusal.clone().map(|refusal| refusal.missing_scopes).unwrap_or_default();
    match answer.reason() {
        Said::Unspecified => Ok(answer.token_id),
        Said::NotFound => Err(Reason::NotFound),
        Said::Expired => Err(Reason::Expired),
        Said::Revoked => Err(Reason::Revoked),
        Said::OwnerInactive => Err(Reason::OwnerInactive),
        Said::WorkspaceInactive => Err(Reason::WorkspaceInactive),
        Said::WrongWorkspace => Err(Reason::WrongWorkspace),
        Said::IpNotAllowed => Err(Reason::IpNotAllowed),
        Said::InsufficientScope => Err(Reason::InsufficientScope(missing)),
    }
}

fn outcome(answer: Answer) -> Result<String, Reason> {
    match answer.reason() {
        None => Ok(answer.identity().unwrap().token_id.clone()),
        Some(reason) => Err(reason.clone()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_answers_what_the_authority_answers() {
    let server = TestServer::start_with(Engine::Sqlite, &["--max-staleness=600s"]).await;
    let client = client_of(&server, LONG).await;
    let user = server.user("ada").await.id;
    let workspaces = [server.workspace("notes").await, server.workspace("maps").await];
    server.join(&user, &workspaces[0], "member").await;
    let revoked = server.token_of(&user, &["read:notes"]).await;
    let id = revoked.personal_access_token.unwrap().id;
    let request = RevokePersonalAccessTokenRequest { id, include_descendants: false };
    server.tokens(&server.admin).revoke_personal_access_token(request).await.unwrap();
    let secret = async |scopes: &[&str]| {
        server.authorization_of(&user, Some(scopes)).await.api_token().to_owned()
    };
    let limited = token_authority::proto::v1::CreatePersonalAccessTokenRequest {
        name: "of a test".to_owned(),
        user_id: Some(user.clone()),
        allowed_ips: vec!["10.0.0.0/8".to_owned()],
        ..Default::default()
    };
    let limited = server.tokens(&server.admin).create_personal_access_token(limited).await.unwrap();
    let tokens = [
        server.admin.clone(),
        server.text_of(&user, &[]).await,
        server.text_of(&user, &["read:notes"]).await,
        server.text_of(&user, &["read:*", "write:notes"]).await,
        server.bound_with(&user, &workspaces[0], &["read:notes"]).await,
        limited.into_inner().token,
        revoked.token,
        secret(&["all"]).await,
        secret(&["GET /arvados/v1/collections/"]).await,
        secret(&[]).await,
        unknown_token(),
        "no token".to_owned(),
    ];
    let route = |method, path| Some(Route { method, path });
    let get = route("GET", "/arvados/v1/collections/zzzzz-4zz18-0123456789abcde");
    let mut cases = vec![
        NOTHING,
        Case { required_scopes: &["read:notes"], ..NOTHING },
        Case { required_scopes: &["read:notes", "write:notes"], ..NOTHING },
        Case { required_scopes: &["read:notes", "read:maps", "admin:all"], ..NOTHING },
        Case { required_scopes: &["verify:tokens"], ..NOTHING },
        Case { route: get, ..NOTHING },
        Case { route: route("HEAD", "/arvados/v1/collections/"), ..NOTHING },
        Case { route: route("POST", "/arvados/v1/collections"), ..NOTHING },
        Case { route: get, required_scopes: &["read:notes"], ..NOTHING },
        Case { client_ip: Some("10.1.2.3"), ..NOTHING },
        Case { client_ip: Some("::ffff:10.1.2.3"), required_scopes: &["read:notes"], ..NOTHING },
        Case { client_ip: Some("192.0.2.1"), ..NOTHING },
        Case { kinds: &[Kind::PersonalAccessToken], ..NOTHING },
        Case { kinds: &[Kind::ApiClientAuthorization, Kind::SystemRoot], ..NOTHING },
    ];
    for id in workspaces.iter().map(String::as_str).chain(["nowhere"]) {
        let workspace_id = Some(id.to_owned());
        cases.push(Case { workspace_id: workspace_id.clone(), ..NOTHING });
        cases.push(Case { workspace_id, required_scopes: &["read:notes"], ..NOTHING });
    }
    let mut authority = server.verification(&server.admin);
    let mut kept = 0;
    for token in &tokens {
        for (number, case) in cases.iter().enumerate() {
            let told = authority.verify(case.request(token)).await.unwrap().into_inner();
            let told = said(told);
            let question = case.question(token);
            // From the authority, and from what is kept.
            for _ in 0..2 {
                let answer = client.verify(question).await.unwrap();
                assert_eq!(outcome(answer), told, "{number} of {token}");
            }
            kept += usize::from(client.kept(question).unwrap().is_some());
        }
    }
    assert!(kept > 100, "{kept}");
}

/// What a protected service is given.
async fn served(request: Request<String>) -> Result<Response<String>, Infallible> {
    assert!(!request.headers().contains_key("authorization"));
    assert_eq!(request.headers()["x-other"], "stays");
    let identity = request.extensions().get::<Arc<Identity>>().unwrap();
    Ok(Response::new(identity.user_id.clone()))
}

fn presenting(authorization: &[&str]) -> Request<String> {
    let mut request = Request::get("/notes").header("x-other", "stays");
    for value in authorization {
        request = request.header("authorization", *value);
    }
    request.body(String::new()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_lets_nobody_else_through() {
    let server = TestServer::start(Engine::Sqlite).await;
    let client = client_of(&server, LONG).await;
    let user = server.user("ada").await.id;
    let [good, weak] =
        [server.text_of(&user, &["read:notes"]).await, server.text_of(&user, &["read:maps"]).await]
            .map(|token| format!("Bearer {token}"));
    let unknown = format!("Bearer {}", unknown_token());
    let protect = client.layer().scopes(["read:notes"]);
    let service = protect.layer(service_fn(served));
    for value in [good.clone(), good.replace("Bearer", "OAuth2")] {
        let response = service.clone().oneshot(presenting(&[&value])).await.unwrap();
        assert_eq!((response.status(), response.body()), (StatusCode::OK, &user));
    }
    let gone = Options::new(["http://127.0.0.1:1"], OwnToken::text("x"));
    let gone = Client::start(gone.timeout(Duration::from_millis(200))).unwrap();
    let gone = gone.layer().layer(service_fn(served));
    for (service, presented, code, challenge, grpc) in [
        (&service, vec![], 401, Some("Bearer"), Code::Unauthenticated),
        (&service, vec!["Basic eDp4"], 401, Some("Bearer"), Code::Unauthenticated),
        (&service, vec![&*good, &*good], 401, Some("Bearer"), Code::Unauthenticated),
        (&service, vec![&*unknown], 401, Some("error=\"invalid_token\""), Code::Unauthenticated),
        (&service, vec![&*weak], 403, Some("error=\"insufficient_scope\""), Code::PermissionDenied),
        (&gone, vec![&*good], 503, None, Code::Unavailable),
    ] {
        let response = service.clone().oneshot(presenting(&presented)).await.unwrap();
        assert_eq!(response.status(), code);
        assert_eq!(response.body(), "");
        let told = response.headers().get("www-authenticate").map(|told| told.to_str().unwrap());
        assert_eq!(told.is_some(), challenge.is_some());
        assert!(told.unwrap_or_default().contains(challenge.unwrap_or_default()), "{told:?}");

        let mut request = presenting(&presented);
        request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
        let response = service.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        let told = Code::from_bytes(response.headers()["grpc-status"].as_bytes());
        assert_eq!(told, grpc);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interceptor_asks_where_it_may_wait() {
    let server = TestServer::start(Engine::Sqlite).await;
    let client = client_of(&server, LONG).await;
    let user = server.user("ada").await.id;
    let good = server.text_of(&user, &["read:notes"]).await;
    let weak = server.text_of(&user, &["read:maps"]).await;
    let request = |token: &str| {
        let mut request = tonic::Request::new(());
        let bearer = format!("Bearer {token}").parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        request
    };
    let mut guard = client.interceptor(["read:notes"]);
    for _ in 0..2 {
        let passed = guard.call(request(&good)).unwrap();
        let identity = passed.extensions().get::<Arc<Identity>>().unwrap();
        assert_eq!(identity.user_id, user);
        assert!(passed.metadata().get("authorization").is_none());
    }
    let refused = |status: tonic::Status| status.code();
    assert_eq!(refused(guard.call(request(&weak)).unwrap_err()), Code::PermissionDenied);
    assert_eq!(refused(guard.call(request(&unknown_token())).unwrap_err()), Code::Unauthenticated);
    assert_eq!(refused(guard.call(tonic::Request::new(())).unwrap_err()), Code::Unauthenticated);

    // Where there is one thread alone, what is kept is known, and nothing else.
    let unknown = request(&unknown_token());
    let known = request(&good);
    let one = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { (guard.call(known).is_ok(), guard.call(unknown).unwrap_err()) })
    });
    let (is_known, status) = one.join().unwrap();
    assert!(is_known && status.message().contains("use the layer"), "{status}");
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_use_that_was_answered_for_here_is_the_last_use() {
    let server = TestServer::start(Engine::Sqlite).await;
    let client = client_of(&server, Duration::from_secs(2)).await;
    let user = server.user("ada").await.id;
    let made = server.token_of(&user, &[]).await;
    assert!(is_active(&client, &made.token).await);
    server.clock.advance(Duration::from_mins(2));
    let since = server.clock.now().as_micros() / 1_000_000;
    let id = made.personal_access_token.unwrap().id;
    let answers = answered(&server);
    until("it is told of", SOON, async || {
        // It is told the time by a pong, and uses wait to be written.
        assert!(is_active(&client, &made.token).await);
        let request = GetPersonalAccessTokenRequest { id: id.clone() };
        let mut tokens = server.tokens(&server.admin);
        let told = tokens.get_personal_access_token(request).await.unwrap().into_inner();
        let used_at = told.personal_access_token.unwrap().last_used_at;
        used_at.is_some_and(|used_at| used_at.seconds >= since)
    })
    .await;
    assert_eq!(answered(&server), answers);
}

/// The example, as a process of its own, and where it serves.
async fn example(authority: &str, token_file: &PathBuf) -> (Child, Channel) {
    let built = env::current_exe().unwrap();
    let program = built.parent().unwrap().parent().unwrap().join("examples/protected");
    let mut child = Command::new(&program)
        .env("AUTHORITY", authority)
        .env("TOKEN_FILE", token_file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| {
            panic!("{}: {error}: cargo build --example protected", program.display())
        });
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines.next_line().await.unwrap().expect("it serves");
    (child, client::connect(address.parse().unwrap()).await)
}

async fn health(channel: &Channel, token: &str) -> Code {
    let mut request = tonic::Request::new(HealthCheckRequest::default());
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let answer = HealthClient::new(channel.clone()).check(request).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_frozen_lets_nobody_through_who_was_revoked_meanwhile() {
    let place = Place::new(Engine::Sqlite).await;
    let server = Process::start(place.arguments()).await;
    let admin = client::Client::connect(server.address, &place.admin_token()).await;
    let made = admin.create("of a test").await.unwrap();
    let file = place.directory.path().join("data/admin.token");
    let (child, channel) = example(&format!("http://{}", server.address), &file).await;
    assert_eq!(health(&channel, &unknown_token()).await, Code::Unauthenticated);
    assert_eq!(health(&channel, &made.token).await, Code::Ok);
    assert_eq!(health(&channel, &made.token).await, Code::Ok);

    let signal = async |name: &str| {
        let id = child.id().unwrap().to_string();
        assert!(Command::new("kill").args([name, &id]).status().await.unwrap().success());
    };
    signal("-STOP").await;
    let frozen_at = uptime();
    admin.revoke(&made.personal_access_token.unwrap().id).await.unwrap();
    let bound = Duration::from_secs(2);
    until("the bound is over", SOON, async || uptime().since(frozen_at) > bound).await;
    signal("-CONT").await;
    assert_eq!(health(&channel, &made.token).await, Code::Unauthenticated);
    server.stop().await;
}
