//! `--recoverable-api-tokens`: secrets of API client authorizations that are kept
//! sealed, and salted tokens, which can be checked only then.

use std::{ffi::OsString, fs, path::Path, sync::Arc, time::Duration};

use ring::hmac;
use sqlx::{Connection as _, PgConnection, Row as _};
use token_authority::{
    domain::{CredentialId, Detail, Pepper, Token, UserId},
    proto::v1::{
        ApiClientAuthorization, DeleteApiClientAuthorizationRequest,
        GetApiClientAuthorizationRequest, GetCurrentApiClientAuthorizationRequest,
        ListApiClientAuthorizationsRequest, ScopeList, UpdateApiClientAuthorizationRequest,
        WhoAmIRequest,
    },
    random,
    store::{
        Actor, Migrate, NewCredential, NewSecret, PoolLimits, Servers, Store, open_postgres,
        open_sqlite,
    },
};
use tonic::{Code, Status};

use crate::support::{
    Engine,
    client::Client,
    on_both_stores,
    process::{Process, program, run},
    server::{Place, TestServer, exceeded, refused, v2},
    wait,
};

on_both_stores![
    nothing_recoverable_is_stored_by_default,
    owner_gets_the_secret_of_what_its_token_covers,
    weaker_token_takes_nothing_from_one_to_see_its_secret,
    stolen_store_gives_no_secret_away,
    unused_secrets_are_sealed_again_under_a_promoted_pepper,
    secrets_are_forgotten_when_it_is_turned_off_and_stay_so,
    salted_token_proves_its_holder_at_current_with_its_remote_alone,
    salted_token_is_refused_where_secrets_are_not_kept,
    salted_token_ends_with_its_token,
    unsalted_token_with_a_remote_is_answered_without_its_secret,
];

const ON: &str = "--recoverable-api-tokens";

/// What a condition may take to come true.
const SOON: Duration = Duration::from_secs(20);

const SEALED: &str = "SELECT count(*) FROM secrets WHERE sealed IS NOT NULL";

fn pepper(byte: u8) -> Pepper {
    Pepper::to_file(&[byte; 32]).parse().unwrap()
}

/// `v2/{uuid}/` and the secret salted for a cluster, as Arvados' clients make it.
fn salted(uuid: &str, secret: &str, remote: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
    let mac = hmac::sign(&key, remote.as_bytes());
    let digits: String = mac.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("v2/{uuid}/{digits}")
}

fn salt(made: &ApiClientAuthorization, remote: &str) -> String {
    salted(made.uuid(), made.api_token(), remote)
}

fn unauthenticated() -> (Code, String) {
    (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned())
}

impl TestServer {
    async fn current_for(
        &self,
        token: &str,
        remote: Option<&str>,
    ) -> Result<ApiClientAuthorization, Status> {
        let request =
            GetCurrentApiClientAuthorizationRequest { remote: remote.map(ToOwned::to_owned) };
        let mut client = self.authorizations(token);
        let answer = client.get_current_api_client_authorization(request).await?;
        Ok(answer.into_inner().api_client_authorization.unwrap())
    }

    async fn secret_got(&self, token: &str, uuid: &str) -> Option<String> {
        let request =
            GetApiClientAuthorizationRequest { uuid: uuid.to_owned(), ..Default::default() };
        let mut client = self.authorizations(token);
        let got = client.get_api_client_authorization(request).await.unwrap().into_inner();
        got.api_client_authorization.unwrap().api_token
    }

    async fn secret_listed(&self, token: &str, uuid: &str) -> Option<String> {
        let mut client = self.authorizations(token);
        let request = ListApiClientAuthorizationsRequest::default();
        let list = client.list_api_client_authorizations(request).await.unwrap().into_inner();
        list.items.into_iter().find(|item| item.uuid() == uuid).unwrap().api_token
    }

    async fn secret_updated(&self, token: &str, uuid: &str) -> Option<String> {
        let request =
            UpdateApiClientAuthorizationRequest { uuid: uuid.to_owned(), ..Default::default() };
        let mut client = self.authorizations(token);
        let got = client.update_api_client_authorization(request).await.unwrap().into_inner();
        got.api_client_authorization.unwrap().api_token
    }
}

async fn nothing_recoverable_is_stored_by_default(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let made = server.authorization_of(&user.id, None).await;
    assert_eq!(made.api_token().len(), 50, "it is shown at creation");
    assert_eq!(server.place.number(SEALED).await, 0);
    let token = v2(&made);
    assert_eq!(server.secret_got(&token, made.uuid()).await, None);
    assert_eq!(server.secret_listed(&token, made.uuid()).await, None);
    assert_eq!(server.secret_updated(&token, made.uuid()).await, None);
    let current = server.current_for(&token, None).await.unwrap();
    assert_eq!(current.api_token(), made.api_token(), "the caller has it");
    assert_eq!(server.place.number(SEALED).await, 0);
}

async fn owner_gets_the_secret_of_what_its_token_covers(engine: Engine) {
    let server = TestServer::start_with(engine, &[ON]).await;
    let user = server.user("alice").await;
    let target = server.authorization_of(&user.id, None).await;
    let same = v2(&server.authorization_of(&user.id, None).await);
    assert_eq!(server.place.number(SEALED).await, 2);
    for token in [&v2(&target), &same] {
        assert_eq!(server.secret_got(token, target.uuid()).await, target.api_token);
        assert_eq!(server.secret_listed(token, target.uuid()).await, target.api_token);
        assert_eq!(server.secret_updated(token, target.uuid()).await, target.api_token);
    }

    // What does less than the target sees it without its secret.
    let path = "/token_authority.v1.ApiClientAuthorizations/";
    let scopes: Vec<String> = ["GetApiClientAuthorization", "ListApiClientAuthorizations"]
        .iter()
        .map(|method| format!("POST {path}{method}"))
        .collect();
    let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
    let narrow = server.authorization_of(&user.id, Some(&scopes)).await;
    let caller = v2(&narrow);
    assert_eq!(server.secret_got(&caller, target.uuid()).await, None);
    assert_eq!(server.secret_listed(&caller, target.uuid()).await, None);
    assert_eq!(
        server.secret_got(&caller, narrow.uuid()).await,
        narrow.api_token,
        "it covers itself"
    );
    assert_eq!(server.secret_got(&same, narrow.uuid()).await, narrow.api_token);

    // Of what was made before, nothing was kept.
    let place = server.stop().await;
    let server = TestServer::start_on(place, &[ON]).await;
    assert_eq!(
        server.secret_got(&same, target.uuid()).await,
        target.api_token,
        "it outlives a restart"
    );
}

async fn weaker_token_takes_nothing_from_one_to_see_its_secret(engine: Engine) {
    let server = TestServer::start_with(engine, &[ON]).await;
    let user = server.user("alice").await;
    let path = "POST /token_authority.v1.ApiClientAuthorizations/";
    let target = server.authorization_of(&user.id, None).await;
    let weak = server.authorization_of(&user.id, Some(&[path])).await;
    let narrowing = |uuid: &str| UpdateApiClientAuthorizationRequest {
        uuid: uuid.to_owned(),
        scopes: Some(ScopeList { values: Vec::new() }),
        ..Default::default()
    };
    let mut client = server.authorizations(&v2(&weak));
    let refused = client.update_api_client_authorization(narrowing(target.uuid())).await;
    assert_eq!(exceeded(refused), "scopes");
    assert_eq!(server.secret_got(&v2(&weak), target.uuid()).await, None);
    client.update_api_client_authorization(narrowing(weak.uuid())).await.unwrap();

    let strong = v2(&server.authorization_of(&user.id, None).await);
    let mut client = server.authorizations(&strong);
    client.update_api_client_authorization(narrowing(target.uuid())).await.unwrap();
}

/// Whether a file below the directory holds the text.
fn is_in_a_file(directory: &Path, text: &[u8]) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_in_a_file(&path, text);
        }
        fs::read(path).unwrap().windows(text.len()).any(|window| window == text)
    })
}

/// Whether what a dump of the store shows holds the text.
async fn is_in_the_store(place: &Place, text: &str) -> bool {
    let Some(url) = &place.database_url else {
        return is_in_a_file(&place.path("data"), text.as_bytes());
    };
    let mut connection = PgConnection::connect(url).await.unwrap();
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut connection).await.unwrap();
    assert!(tables.iter().any(|table| table == "secrets"));
    for table in tables {
        // As text, bytes are shown in hex.
        let query = format!("SELECT CAST(t AS TEXT) FROM {table} AS t");
        let query = sqlx::AssertSqlSafe(query);
        let rows = sqlx::query(query).fetch_all(&mut connection).await.unwrap();
        let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
        for row in rows {
            let row: String = row.get(0);
            if row.contains(text) || row.contains(&hex) {
                return true;
            }
        }
    }
    false
}

async fn stolen_store_gives_no_secret_away(engine: Engine) {
    let server = TestServer::start_with(engine, &[ON]).await;
    let user = server.user("alice").await;
    let made = server.authorization_of(&user.id, None).await;
    assert!(server.verify(&v2(&made)).await.active);
    assert_eq!(server.place.number(SEALED).await, 1);
    assert!(
        is_in_the_store(&server.place, made.uuid()).await,
        "it is looked for in the right place"
    );
    assert!(!is_in_the_store(&server.place, made.api_token()).await);
    // Nor in parts.
    assert!(!is_in_the_store(&server.place, &made.api_token()[8..24]).await);
}

async fn open(place: &Place) -> Arc<dyn Store> {
    match &place.database_url {
        Some(url) => {
            let limits = PoolLimits { connections: 10, wait: Duration::from_secs(30) };
            open_postgres(Servers::at(url), limits, Migrate::Auto).await.unwrap()
        }
        None => open_sqlite(&place.path("data"), Migrate::Auto).await.unwrap(),
    }
}

/// Keeps an API client authorization of the system user that is never used, sealed
/// under the pepper of the test's place; what seals it may be wrong.
async fn keep(store: &dyn Store, number: u8, sealed_as: u8) -> (CredentialId, Token) {
    let id = CredentialId(format!("zzzzz-gj3su-{number:015}"));
    let other = CredentialId(format!("zzzzz-gj3su-{sealed_as:015}"));
    let token = Token::authorization(&[number; 32]);
    let system: UserId = "zzzzz-tpzed-000000000000000".parse().unwrap();
    let now = token_authority::domain::Timestamp::from_micros(1_800_000_000_000_000).unwrap();
    let new = NewCredential {
        id: id.clone(),
        user_id: system.clone(),
        workspace_id: None,
        detail: Detail::ApiClientAuthorization { api_client_id: None, created_by_ip: None },
        scopes: vec!["all".to_owned()],
        allowed_ips: Vec::new(),
        expires_at: None,
        secret: NewSecret {
            id: random::id(now),
            digest: pepper(7).digest(&token),
            pepper_id: pepper(7).id().clone(),
            record: "$argon2id$v=19$m=1024,t=1,p=1$c2FsdHNhbHQ$aGFzaA".to_owned(),
            shown: token.shown().to_owned(),
            sealed: Some(pepper(7).seal(&other, &token, random::bytes())),
        },
        quota: 1_000,
        spares_administrators: false,
        new_owner: None,
    };
    store.insert_credential(&new, None, &Actor::service(system, now)).await.unwrap();
    (id, token)
}

/// The arguments of a command on the store of `place`, with these peppers.
fn arguments(place: &Place, words: &[&str], peppers: &[u8]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = words.iter().map(OsString::from).collect();
    let mut of_serve = place.arguments().split_off(2).into_iter();
    while let (Some(name), Some(value)) = (of_serve.next(), of_serve.next()) {
        if name != "--pepper-file" {
            arguments.extend([name, value]);
        }
    }
    for byte in peppers {
        let path = place.path(&format!("pepper-{byte}"));
        fs::write(&path, Pepper::to_file(&[*byte; 32]).as_bytes()).unwrap();
        arguments.push(format!("--pepper-file={}", path.display()).into());
    }
    arguments
}

/// A store after its first start, which nobody has open.
async fn begun(engine: Engine) -> Place {
    let place = Place::new(engine).await;
    Process::start(place.arguments()).await.stop().await;
    place
}

const SERVE: [&str; 3] = ["serve", "--grpc-listen=127.0.0.1:0", ON];

async fn unused_secrets_are_sealed_again_under_a_promoted_pepper(engine: Engine) {
    let place = begun(engine).await;
    let store = open(&place).await;
    let mut kept = Vec::new();
    for number in 1..=5 {
        kept.push(keep(&*store, number, number).await);
    }
    // One that was sealed for another, and can't be opened.
    keep(&*store, 9, 8).await;
    store.close().await;
    drop(store);

    let under = async |byte: u8| {
        let id = pepper(byte);
        place.number(&format!("{SEALED} AND pepper_id = '{}'", id.id().as_str())).await
    };
    if engine == Engine::Postgres {
        // While it serves.
        let process = Process::start(arguments(&place, &SERVE, &[7, 8])).await;
        promote(&place, 8).await;
        wait::until("all are sealed again", SOON, async || under(8).await == 5).await;
        let left = "what these are sealed as can't be opened";
        wait::until("it comes to an end", SOON, async || process.log().contains(left)).await;
        process.stop().await;
    } else {
        // Another process can't promote one; it becomes so before the next start.
        Process::start(arguments(&place, &SERVE, &[7, 8])).await.stop().await;
        promote(&place, 8).await;
        let process = Process::start(arguments(&place, &SERVE, &[7, 8])).await;
        wait::until("all are sealed again", SOON, async || under(8).await == 5).await;
        let left = "what these are sealed as can't be opened";
        wait::until("it comes to an end", SOON, async || process.log().contains(left)).await;
        process.stop().await;
    }
    assert_eq!(under(7).await, 1, "what can't be opened stays");

    // Those that were used are digested anew by that; the old pepper can go.
    let store = open(&place).await;
    let seals = store.sealed_under(pepper(8).id(), "").await.unwrap();
    assert_eq!(seals.len(), 5);
    for seal in &seals {
        let (id, token) = kept.iter().find(|(id, _)| *id == seal.credential_id).unwrap();
        let opened = pepper(8).open(id, &seal.sealed).expect("it is sealed under the new one");
        assert_eq!(opened.expose(), token.expose());
        assert!(pepper(7).open(id, &seal.sealed).is_none());
    }
    store.close().await;
    drop(store);
    let process = Process::start(arguments(&place, &SERVE, &[8])).await;
    for (id, token) in &kept {
        let caller = Client::connect(process.address, token.expose()).await;
        assert_eq!(caller.who_am_i().await.unwrap().token_id, id.0);
    }
    process.stop().await;
}

async fn promote(place: &Place, byte: u8) {
    let promoted = run(program(arguments(place, &["pepper", "promote"], &[byte]))).await;
    assert_eq!((promoted.code, &*promoted.stderr), (Some(0), ""));
}

async fn secrets_are_forgotten_when_it_is_turned_off_and_stay_so(engine: Engine) {
    let place = begun(engine).await;
    let store = open(&place).await;
    let (id, token) = keep(&*store, 1, 1).await;
    keep(&*store, 2, 2).await;
    store.close().await;
    drop(store);
    assert_eq!(place.number(SEALED).await, 2);

    let server = TestServer::start_on(place, &[ON]).await;
    let text = format!("v2/{}/{}", id.0, token.expose());
    assert_eq!(server.secret_got(&text, &id.0).await.as_deref(), Some(token.expose()));
    let place = server.stop().await;

    let server = TestServer::start_on(place, &[]).await;
    wait::until("they are forgotten", SOON, async || server.place.number(SEALED).await == 0).await;
    let audited = "SELECT count(*) FROM audit WHERE action = 'secrets.forget_sealed'";
    assert_eq!(server.place.number(audited).await, 1);
    assert_eq!(server.secret_got(&text, &id.0).await, None);
    assert_eq!(
        refused(current(&server, &salted(&id.0, token.expose(), "zyxwv")).await),
        unauthenticated()
    );
    let place = server.stop().await;

    let server = TestServer::start_on(place, &[ON]).await;
    assert!(server.verify(&text).await.active);
    assert_eq!(server.secret_got(&text, &id.0).await, None, "it is gone for good");
    let user = server.user("alice").await;
    let made = server.authorization_of(&user.id, None).await;
    assert_eq!(server.secret_got(&v2(&made), made.uuid()).await, made.api_token);
}

/// The answer to a token at the one call that takes it salted, for `zyxwv`.
async fn current(
    server: &TestServer,
    token: &str,
) -> Result<tonic::Response<ApiClientAuthorization>, Status> {
    server.current_for(token, Some("zyxwv")).await.map(tonic::Response::new)
}

async fn salted_token_proves_its_holder_at_current_with_its_remote_alone(engine: Engine) {
    let server = TestServer::start_with(engine, &[ON]).await;
    let user = server.user("alice").await;
    let made = server.authorization_of(&user.id, None).await;
    let token = salt(&made, "zyxwv");
    let answer = server.current_for(&token, Some("zyxwv")).await.unwrap();
    assert_eq!((answer.uuid(), answer.owner_uuid()), (made.uuid(), &*user.id));
    assert_eq!(answer.api_token, None);
    let longer = format!("{token}/zzzzz-dz642-000000000000000");
    assert!(server.current_for(&longer, Some("zyxwv")).await.is_ok(), "further parts mean nothing");

    let wrong =
        |result: Result<ApiClientAuthorization, Status>| refused(result.map(tonic::Response::new));
    // No remote, or another.
    assert_eq!(wrong(server.current_for(&token, None).await), unauthenticated());
    assert_eq!(wrong(server.current_for(&token, Some("zzzzz")).await), unauthenticated());
    // Of another secret, or token.
    let other = server.authorization_of(&user.id, None).await;
    for token in [
        salted(made.uuid(), other.api_token(), "zyxwv"),
        salted(other.uuid(), made.api_token(), "zyxwv"),
        salted("zzzzz-gj3su-zzzzzzzzzzzzzzz", made.api_token(), "zyxwv"),
        token.to_uppercase().replacen("V2", "v2", 1),
        token[..token.len() - 1].to_owned(),
        token.rsplit('/').next().unwrap().to_owned(),
    ] {
        assert_eq!(
            wrong(server.current_for(&token, Some("zyxwv")).await),
            unauthenticated(),
            "{token}"
        );
    }
    // Anywhere else.
    let elsewhere = server.verification(&token).who_am_i(WhoAmIRequest {}).await;
    assert_eq!(refused(elsewhere), unauthenticated());
    let request =
        GetApiClientAuthorizationRequest { uuid: made.uuid().to_owned(), ..Default::default() };
    let elsewhere = server.authorizations(&token).get_api_client_authorization(request).await;
    assert_eq!(refused(elsewhere), unauthenticated());
    let request = ListApiClientAuthorizationsRequest::default();
    let elsewhere = server.authorizations(&token).list_api_client_authorizations(request).await;
    assert_eq!(refused(elsewhere), unauthenticated());
    assert!(!server.verify(&token).await.active);
}

async fn salted_token_is_refused_where_secrets_are_not_kept(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let made = server.authorization_of(&user.id, None).await;
    assert_eq!(refused(current(&server, &salt(&made, "zyxwv")).await), unauthenticated());
    let place = server.stop().await;
    let server = TestServer::start_on(place, &[ON]).await;
    let token = salt(&made, "zyxwv");
    assert_eq!(refused(current(&server, &token).await), unauthenticated(), "it was made before");
}

async fn salted_token_ends_with_its_token(engine: Engine) {
    let server = TestServer::start_with(engine, &[ON]).await;
    let user = server.user("alice").await;
    let [deleted, expired] = [
        server.authorization_of(&user.id, None).await,
        server.authorization_of(&user.id, None).await,
    ];
    for made in [&deleted, &expired] {
        assert!(current(&server, &salt(made, "zyxwv")).await.is_ok());
    }
    let request = DeleteApiClientAuthorizationRequest { uuid: deleted.uuid().to_owned() };
    server.authorizations(&v2(&deleted)).delete_api_client_authorization(request).await.unwrap();
    let request = UpdateApiClientAuthorizationRequest {
        uuid: expired.uuid().to_owned(),
        expires_at: Some(server.after(Duration::from_secs(60))),
        ..Default::default()
    };
    server.authorizations(&v2(&expired)).update_api_client_authorization(request).await.unwrap();
    assert!(current(&server, &salt(&expired, "zyxwv")).await.is_ok());
    server.clock.advance(Duration::from_secs(60));
    for made in [&deleted, &expired] {
        assert_eq!(refused(current(&server, &salt(made, "zyxwv")).await), unauthenticated());
    }
}

async fn unsalted_token_with_a_remote_is_answered_without_its_secret(engine: Engine) {
    for more in [&[][..], &[ON]] {
        let server = TestServer::start_with(engine, more).await;
        let user = server.user("alice").await;
        let made = server.authorization_of(&user.id, None).await;
        for token in [v2(&made), made.api_token().to_owned()] {
            let answer = server.current_for(&token, Some("zyxwv")).await.unwrap();
            assert_eq!((answer.uuid(), answer.api_token.as_deref()), (made.uuid(), None));
            let answer = server.current_for(&token, None).await.unwrap();
            assert_eq!(answer.api_token, made.api_token);
        }
    }
}
