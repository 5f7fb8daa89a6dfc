//! The system root token, which is in the configuration and in no store.

use std::{fs, time::Duration};

use token_authority::proto::v1::{
    CreatePersonalAccessTokenRequest, CreateUserRequest, GetUserRequest,
    ListPersonalAccessTokensRequest, Reason, RevokePersonalAccessTokenRequest,
    RotatePersonalAccessTokenRequest, TokenKind, UpdateUserRequest, VerifyRequest, WhoAmIRequest,
};
use tonic::Code;

use crate::support::{
    Engine,
    client::Client,
    on_both_stores,
    process::{Process, Run, program, run},
    server::{Place, TestServer, refused, unknown_token},
    wait,
};

on_both_stores![
    root_token_acts_as_the_system_user,
    root_token_does_what_an_administrator_does_and_the_audit_says_so,
    request_of_the_root_token_is_repeatable,
    root_token_is_no_credential_to_be_changed,
    root_token_is_a_subject_of_verify_only_if_that_is_switched_on,
    root_token_is_rolled_by_its_files_while_serving,
];

const ROOT: &str = "RootRootRootRootRootRootRootRootRootRootRootRoot00";
const NEXT: &str = "NextNextNextNextNextNextNextNextNextNextNextNext11";
const ROOT_ID: &str = "zzzzz-gj3su-000000000000000";
const SYSTEM: &str = "zzzzz-tpzed-000000000000000";

const SOON: Duration = Duration::from_secs(20);

impl Place {
    /// The argument that names a file with this token.
    fn root_file(&self, name: &str, token: &str) -> String {
        let path = self.path(name);
        fs::write(self.path("unfinished"), format!(" {token}\n")).unwrap();
        fs::rename(self.path("unfinished"), &path).unwrap();
        format!("--system-root-token-file={}", path.display())
    }
}

async fn start(engine: Engine, more: &[&str]) -> TestServer {
    let place = Place::new(engine).await;
    let file = place.root_file("root", ROOT);
    TestServer::start_on(place, &[&[&*file], more].concat()).await
}

fn unauthenticated() -> (Code, String) {
    (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned())
}

async fn root_token_acts_as_the_system_user(engine: Engine) {
    let server = start(engine, &[]).await;
    let answer = server.verification(ROOT).who_am_i(WhoAmIRequest {}).await.unwrap().into_inner();
    assert_eq!(answer.kind(), TokenKind::SystemRoot);
    let user = answer.user.as_ref().unwrap();
    assert_eq!((&*user.id, &*user.handle, user.is_admin), (SYSTEM, "system", true));
    assert_eq!((&*answer.token_id, &*answer.scopes), (ROOT_ID, &["all".to_owned()][..]));
    assert_eq!((answer.created_at, answer.expires_at, answer.token_prefix), (None, None, None));

    let wrong = [
        NEXT.to_owned(),
        ROOT[1..].to_owned(),
        format!("{ROOT}0"),
        ROOT.to_lowercase(),
        format!("v2/{ROOT_ID}/{ROOT}"),
    ];
    for wrong in wrong {
        let answer = server.verification(&wrong).who_am_i(WhoAmIRequest {}).await;
        assert_eq!(refused(answer), unauthenticated(), "{wrong}");
    }
    let without = TestServer::start(engine).await;
    let answer = without.verification(ROOT).who_am_i(WhoAmIRequest {}).await;
    assert_eq!(refused(answer), unauthenticated());
}

async fn root_token_does_what_an_administrator_does_and_the_audit_says_so(engine: Engine) {
    let server = start(engine, &[]).await;
    let mut directory = server.directory(ROOT);
    let request = CreateUserRequest { handle: "alice".to_owned(), ..Default::default() };
    let alice = directory.create_user(request).await.unwrap().into_inner().user.unwrap();
    let request =
        UpdateUserRequest { user: alice.id.clone(), is_admin: Some(true), ..Default::default() };
    directory.update_user(request).await.unwrap();
    let request = GetUserRequest { user: SYSTEM.to_owned() };
    assert!(directory.get_user(request).await.unwrap().into_inner().user.unwrap().is_admin);

    let mut tokens = server.tokens(ROOT);
    let request = CreatePersonalAccessTokenRequest {
        name: "of alice".to_owned(),
        scopes: vec!["admin:all".to_owned()],
        user_id: Some(alice.id.clone()),
        ..Default::default()
    };
    let made = tokens.create_personal_access_token(request).await.unwrap().into_inner();
    let token = made.personal_access_token.unwrap();
    assert_eq!(token.created_by_token_id.as_deref(), Some(ROOT_ID));
    assert_eq!(token.created_by_user_id.as_deref(), Some(SYSTEM));
    let request =
        ListPersonalAccessTokensRequest { user_id: Some(alice.id.clone()), ..Default::default() };
    let listed = tokens.list_personal_access_tokens(request).await.unwrap().into_inner();
    assert_eq!(listed.personal_access_tokens.len(), 1);
    let request = RotatePersonalAccessTokenRequest { id: token.id.clone(), ..Default::default() };
    let rotated = tokens.rotate_personal_access_token(request).await.unwrap().into_inner();
    assert!(server.verify(&rotated.token).await.active);
    let request =
        RevokePersonalAccessTokenRequest { id: token.id.clone(), include_descendants: true };
    tokens.revoke_personal_access_token(request).await.unwrap();
    assert!(!server.verify(&rotated.token).await.active);
    let request = VerifyRequest { token: server.admin.clone(), ..Default::default() };
    let answer = server.verification(ROOT).verify(request).await.unwrap();
    assert!(answer.into_inner().active);

    let audited = format!(
        "SELECT count(*) FROM audit WHERE caller_token_id = '{ROOT_ID}' \
         AND caller_user_id = '{SYSTEM}' AND caller_ip = '127.0.0.1' AND request_id IS NOT NULL"
    );
    assert_eq!(server.place.number(&audited).await, 5);
}

async fn request_of_the_root_token_is_repeatable(engine: Engine) {
    let server = start(engine, &[]).await;
    let user = server.user("alice").await;
    let request = CreatePersonalAccessTokenRequest {
        name: "of alice".to_owned(),
        user_id: Some(user.id.clone()),
        request_id: Some("6f1d0c8e-8a0e-4a53-9a43-3b1f0a2f7c55".to_owned()),
        ..Default::default()
    };
    let mut tokens = server.tokens(ROOT);
    let first = tokens.create_personal_access_token(request.clone()).await.unwrap().into_inner();
    let again = tokens.create_personal_access_token(request).await.unwrap().into_inner();
    assert_eq!(first.personal_access_token.unwrap().id, again.personal_access_token.unwrap().id);
    assert!(!server.verify(&first.token).await.active && server.verify(&again.token).await.active);
}

async fn root_token_is_no_credential_to_be_changed(engine: Engine) {
    let server = start(engine, &[]).await;
    for caller in [ROOT, &server.admin] {
        let mut tokens = server.tokens(caller);
        let request =
            RevokePersonalAccessTokenRequest { id: ROOT_ID.to_owned(), include_descendants: false };
        let answer = tokens.revoke_personal_access_token(request).await;
        assert_eq!(refused(answer).0, Code::NotFound);
        let request =
            RotatePersonalAccessTokenRequest { id: ROOT_ID.to_owned(), ..Default::default() };
        let answer = tokens.rotate_personal_access_token(request).await;
        assert_eq!(refused(answer).0, Code::NotFound);
    }
    let answer = server.verification(ROOT).who_am_i(WhoAmIRequest {}).await;
    assert!(answer.is_ok());
}

async fn root_token_is_a_subject_of_verify_only_if_that_is_switched_on(engine: Engine) {
    let server = start(engine, &[]).await;
    for caller in [ROOT, &server.admin] {
        let request = VerifyRequest { token: ROOT.to_owned(), ..Default::default() };
        let answer = server.verification(caller).verify(request).await.unwrap().into_inner();
        assert_eq!((answer.active, answer.reason()), (false, Reason::NotFound));
    }

    let server = start(engine, &["--verify-system-root-token"]).await;
    let verify = async |request: VerifyRequest| {
        let request = VerifyRequest { token: ROOT.to_owned(), ..request };
        server.verification(&server.admin).verify(request).await.unwrap().into_inner()
    };
    let answer = verify(VerifyRequest {
        required_scopes: vec!["write:notes".to_owned()],
        request_method: Some("DELETE".to_owned()),
        request_path: Some("/arvados/v1/collections".to_owned()),
        client_ip: Some("203.0.113.7".to_owned()),
        kinds: vec![TokenKind::SystemRoot.into()],
        ..Default::default()
    })
    .await;
    assert!(answer.active);
    assert_eq!((answer.kind(), &*answer.token_id), (TokenKind::SystemRoot, ROOT_ID));
    assert_eq!((&*answer.user_id, &*answer.scopes), (SYSTEM, &["all".to_owned()][..]));
    for request in [
        VerifyRequest { kinds: vec![TokenKind::PersonalAccessToken.into()], ..Default::default() },
        VerifyRequest {
            kinds: vec![TokenKind::ApiClientAuthorization.into()],
            ..Default::default()
        },
    ] {
        let answer = verify(request).await;
        assert_eq!((answer.active, answer.reason()), (false, Reason::NotFound));
    }
    let elsewhere =
        VerifyRequest { workspace_id: Some("elsewhere".to_owned()), ..Default::default() };
    assert_eq!(verify(elsewhere).await.reason(), Reason::WrongWorkspace);
}

/// Whether this token is a caller's.
async fn calls(process: &Process, token: &str) -> bool {
    match Client::connect(process.address, token).await.who_am_i().await {
        Ok(answer) => answer.token_id == ROOT_ID,
        Err(status) => {
            assert_eq!(status.code(), Code::Unauthenticated);
            false
        }
    }
}

async fn root_token_is_rolled_by_its_files_while_serving(engine: Engine) {
    let place = Place::new(engine).await;
    let files = [place.root_file("one", ROOT), place.root_file("two", NEXT)];
    let arguments = place.arguments().into_iter().chain(files.iter().map(Into::into));
    let process = Process::start(arguments).await;
    assert!(calls(&process, ROOT).await && calls(&process, NEXT).await);

    let third = "Third".repeat(8);
    place.root_file("one", &third);
    process.signal("HUP").await;
    wait::until("the new one is accepted", SOON, async || calls(&process, &third).await).await;
    assert!(!calls(&process, ROOT).await && calls(&process, NEXT).await);

    // Without a signal, too; and what is gone or garbage is accepted no longer.
    fs::remove_file(place.path("two")).unwrap();
    wait::until("it is refused", SOON, async || !calls(&process, NEXT).await).await;
    place.root_file("one", "short");
    process.signal("HUP").await;
    wait::until("it is refused", SOON, async || !calls(&process, &third).await).await;
    let admin = Client::connect(process.address, &place.admin_token()).await;
    assert!(admin.who_am_i().await.is_ok(), "it serves all others");

    place.root_file("two", ROOT);
    process.signal("HUP").await;
    wait::until("it is accepted again", SOON, async || calls(&process, ROOT).await).await;
    for _ in 0..3 {
        process.signal("HUP").await;
        assert!(calls(&process, ROOT).await);
    }
    let log = process.log();
    let said = |what: &str| log.matches(what).count();
    assert_eq!(said("system root token replaced"), 2, "{log}");
    assert_eq!(said("the system root token of this file is not accepted"), 2, "{log}");
    for secret in [ROOT, NEXT, &third] {
        assert!(!log.contains(secret));
    }
    drop(admin);
    process.stop().await;
}

/// What a start says that is refused for a root token.
async fn start_with(place: &Place, more: &[String], variable: Option<&str>) -> Run {
    let mut command = program(place.arguments());
    command.args(more);
    if let Some(value) = variable {
        command.env("TOKEN_AUTHORITY_SYSTEM_ROOT_TOKEN", value);
    }
    run(command).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_root_token_keeps_the_service_from_starting() {
    let place = Place::new(Engine::Sqlite).await;
    let short = &ROOT[..31];
    let file = |name: &str, token: &str| vec![place.root_file(name, token)];
    let two = [file("one", ROOT), file("two", NEXT)].concat();
    let v2 = format!("v2/zzzzz-gj3su-0123456789abcde/{}", "0".repeat(50));
    let absent = vec![format!("--system-root-token-file={}", place.path("absent").display())];
    let command_line = |token: &str| vec![format!("--system-root-token={token}")];
    let three = format!("{ROOT},{NEXT},{ROOT}");
    let cases = [
        ("system-root-token-file", file("short", short), None),
        ("system-root-token-file", file("empty", ""), None),
        ("system-root-token-file", file("blank", &format!("{short} {short}")), None),
        ("system-root-token-file", file("comma", &format!("{ROOT},{NEXT}")), None),
        ("system-root-token-file", file("pat", &unknown_token()), None),
        ("system-root-token-file", file("v2", &v2), None),
        ("system-root-token-file", absent, None),
        ("system-root-token-file", two, Some(ROOT)),
        ("system-root-token", Vec::new(), Some(short)),
        ("system-root-token", Vec::new(), Some(&three)),
        ("system-root-token", command_line(ROOT), None),
        ("system-root-token", command_line(ROOT), Some(NEXT)),
        ("system-root-token", command_line(short), None),
    ];
    for (setting, arguments, variable) in cases {
        let refused = start_with(&place, &arguments, variable).await;
        assert_eq!((refused.code, &*refused.stdout), (Some(1), ""), "{refused:?}");
        let sentence = format!("token-authority: {setting}: ");
        assert!(refused.stderr.starts_with(&sentence), "{refused:?}");
        assert!(!refused.stderr.contains(short) && !refused.stderr.contains(NEXT), "{refused:?}");
    }
    assert!(!place.path("data/admin.token").exists(), "nothing was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn root_tokens_come_from_the_environment_and_the_file_of_settings() {
    let place = Place::new(Engine::Sqlite).await;
    let mut command = program(place.arguments());
    command.env("TOKEN_AUTHORITY_SYSTEM_ROOT_TOKEN", format!("{ROOT},{NEXT}"));
    let process = Process::spawn(command).await;
    assert!(calls(&process, ROOT).await && calls(&process, NEXT).await);
    assert!(!calls(&process, &format!("{ROOT},{NEXT}")).await);
    process.stop().await;

    let settings = format!("system-root-token = [\"{ROOT}\", \"{NEXT}\"]\n");
    fs::write(place.path("settings.toml"), settings).unwrap();
    let config = format!("--config={}", place.path("settings.toml").display());
    let process = Process::start(place.arguments().into_iter().chain([config.into()])).await;
    assert!(calls(&process, ROOT).await && calls(&process, NEXT).await);
    process.stop().await;
}
