//! When and from where a token was last used.

use std::time::Duration;

use token_authority::proto::v1::{
    GetApiClientAuthorizationRequest, GetPersonalAccessTokenRequest, PersonalAccessToken,
    VerifyRequest, VerifyResponse, WhoAmIRequest,
};
use tokio::task::JoinSet;

use crate::support::{
    Engine,
    client::Client,
    on_both_stores,
    process::Process,
    server::{Place, TestServer, v2},
    wait,
};

on_both_stores![
    first_use_is_noted_within_two_seconds_with_its_address,
    later_uses_are_noted_once_a_minute,
    address_is_that_of_the_last_use_even_if_it_is_not_known,
    use_by_a_caller_is_noted_with_the_address_it_calls_from,
    api_client_authorization_shows_its_last_use,
    refused_verification_is_no_use,
    noted_use_is_no_change,
    use_that_can_not_be_written_is_written_later,
    last_use_is_written_at_sigterm_and_survives_a_restart,
    one_token_of_64_callers_is_written_once_a_minute,
    uses_of_64_tokens_are_written_together,
];

/// In what time a first use is noted.
const FIRST: Duration = Duration::from_secs(2);

/// What a condition may take to come true that has no promise of its own.
const SOON: Duration = Duration::from_secs(20);

impl TestServer {
    /// A token of a new user, and its id.
    async fn used_token(&self, handle: &str) -> (String, String) {
        let user = self.user(handle).await;
        let made = self.token_of(&user.id, &["read:*"]).await;
        (made.token, made.personal_access_token.unwrap().id)
    }

    async fn token_by_id(&self, id: &str) -> PersonalAccessToken {
        let request = GetPersonalAccessTokenRequest { id: id.to_owned() };
        let got = self.tokens(&self.admin).get_personal_access_token(request).await.unwrap();
        got.into_inner().personal_access_token.unwrap()
    }

    async fn verify_from(&self, token: &str, ip: Option<&str>) -> VerifyResponse {
        let request = VerifyRequest {
            token: token.to_owned(),
            client_ip: ip.map(ToOwned::to_owned),
            ..Default::default()
        };
        self.verification(&self.admin).verify(request).await.unwrap().into_inner()
    }

    async fn until_used_at(&self, id: &str, at: prost_types::Timestamp, deadline: Duration) {
        wait::until("the use is noted", deadline, async || {
            self.token_by_id(id).await.last_used_at == Some(at)
        })
        .await;
    }

    /// Waits until what was used before is written, if it is to be: a token that was
    /// never used is used now, and written.
    async fn until_looked(&self, handle: &str) {
        let (token, id) = self.used_token(handle).await;
        assert!(self.verify(&token).await.active);
        self.until_used_at(&id, self.after(Duration::ZERO), SOON).await;
    }
}

async fn first_use_is_noted_within_two_seconds_with_its_address(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (token, id) = server.used_token("alice").await;
    server.clock.advance(Duration::from_micros(5_000_001));
    assert_eq!(server.token_by_id(&id).await.last_used_at, None);
    assert!(server.verify_from(&token, Some("203.0.113.7")).await.active);
    server.until_used_at(&id, server.after(Duration::ZERO), FIRST).await;
    assert_eq!(server.token_by_id(&id).await.last_used_ip.as_deref(), Some("203.0.113.7"));
}

async fn later_uses_are_noted_once_a_minute(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (token, id) = server.used_token("alice").await;
    let first = server.after(Duration::ZERO);
    assert!(server.verify_from(&token, Some("203.0.113.1")).await.active);
    server.until_used_at(&id, first, FIRST).await;

    for ip in ["203.0.113.2", "203.0.113.3"] {
        server.clock.advance(Duration::from_secs(10));
        assert!(server.verify_from(&token, Some(ip)).await.active);
    }
    let last = server.after(Duration::ZERO);
    server.clock.advance(Duration::from_secs(40) - Duration::from_micros(1));
    server.until_looked("bob").await;
    assert_eq!(server.token_by_id(&id).await.last_used_at, Some(first), "within the minute");

    server.clock.advance(Duration::from_micros(1));
    server.until_used_at(&id, last, FIRST).await;
    assert_eq!(server.token_by_id(&id).await.last_used_ip.as_deref(), Some("203.0.113.3"));

    // What was not used for a minute is forgotten, and its next use a first one.
    server.clock.advance(Duration::from_mins(2));
    server.until_looked("carol").await;
    assert_eq!(server.token_by_id(&id).await.last_used_at, Some(last));
    assert!(server.verify(&token).await.active);
    server.until_used_at(&id, server.after(Duration::ZERO), FIRST).await;
}

async fn address_is_that_of_the_last_use_even_if_it_is_not_known(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (token, id) = server.used_token("alice").await;
    for (ip, kept) in [
        (Some("2001:DB8:0::1"), Some("2001:db8::1")),
        (Some("::ffff:203.0.113.9"), Some("203.0.113.9")),
        (None, None),
    ] {
        server.clock.advance(Duration::from_mins(1));
        assert!(server.verify_from(&token, ip).await.active);
        server.until_used_at(&id, server.after(Duration::ZERO), SOON).await;
        assert_eq!(server.token_by_id(&id).await.last_used_ip.as_deref(), kept);
    }
}

async fn use_by_a_caller_is_noted_with_the_address_it_calls_from(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (token, id) = server.used_token("alice").await;
    server.verification(&token).who_am_i(WhoAmIRequest {}).await.unwrap();
    server.until_used_at(&id, server.after(Duration::ZERO), FIRST).await;
    assert_eq!(server.token_by_id(&id).await.last_used_ip.as_deref(), Some("127.0.0.1"));
}

async fn api_client_authorization_shows_its_last_use(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let made = server.authorization_of(&user.id, None).await;
    assert_eq!((&made.last_used_at, &made.last_used_by_ip_address), (&None, &None));
    let reader = server.authorization_of(&user.id, None).await;
    let used = server.after(Duration::ZERO);
    assert!(server.verify_from(&v2(&made), Some("203.0.113.7")).await.active);
    let got = async || {
        let request =
            GetApiClientAuthorizationRequest { uuid: made.uuid().to_owned(), ..Default::default() };
        let mut client = server.authorizations(&v2(&reader));
        let got = client.get_api_client_authorization(request).await.unwrap().into_inner();
        got.api_client_authorization.unwrap()
    };
    wait::until("the use is noted", FIRST, async || got().await.last_used_at == Some(used)).await;
    let got = got().await;
    assert_eq!(got.last_used_by_ip_address(), "203.0.113.7");
    assert_eq!(got.etag, made.etag, "a use is no change");
}

async fn refused_verification_is_no_use(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (token, id) = server.used_token("alice").await;
    for request in [
        VerifyRequest { required_scopes: vec!["write:notes".to_owned()], ..Default::default() },
        VerifyRequest { workspace_id: Some("elsewhere".to_owned()), ..Default::default() },
    ] {
        let request = VerifyRequest { token: token.clone(), ..request };
        let answer = server.verification(&server.admin).verify(request).await.unwrap();
        assert!(!answer.into_inner().active);
    }
    server.change(&format!("UPDATE credentials SET expires_at = 1 WHERE id = '{id}'")).await;
    assert!(!server.verify(&token).await.active);
    assert!(server.verification(&token).who_am_i(WhoAmIRequest {}).await.is_err());
    server.until_looked("bob").await;
    assert_eq!(server.token_by_id(&id).await.last_used_at, None);
}

async fn noted_use_is_no_change(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (token, id) = server.used_token("alice").await;
    let changes = "SELECT (SELECT number FROM revision) + (SELECT count(*) FROM audit)";
    let before = (server.place.number(changes).await, server.verify(&token).await.revision);
    server.until_used_at(&id, server.after(Duration::ZERO), SOON).await;
    let after = (server.place.number(changes).await, server.verify(&token).await.revision);
    assert_eq!(after, before);
    assert_eq!(server.token_by_id(&id).await.updated_at, Some(server.after(Duration::ZERO)));
}

async fn use_that_can_not_be_written_is_written_later(engine: Engine) {
    let place = Place::new(engine).await;
    let process = Process::start(place.arguments()).await;
    let client = Client::connect(process.address, &place.admin_token()).await;
    place.sql("ALTER TABLE last_uses RENAME TO elsewhere").await;
    assert!(client.verify(&place.admin_token()).await.unwrap().active, "nothing waits for it");
    let left = "last uses are left for later";
    wait::until("it was tried", SOON, async || process.log().contains(left)).await;
    place.sql("ALTER TABLE elsewhere RENAME TO last_uses").await;
    let noted = "SELECT count(*) FROM last_uses";
    wait::until("it is written", SOON, async || place.number(noted).await == 1).await;
    drop(client);
    process.stop().await;
}

async fn last_use_is_written_at_sigterm_and_survives_a_restart(engine: Engine) {
    let place = Place::new(engine).await;
    let process = Process::start(place.arguments()).await;
    let client = Client::connect(process.address, &place.admin_token()).await;
    let made = client.create("of a test").await.unwrap();
    let id = made.personal_access_token.unwrap().id;
    let last_use = format!(
        "SELECT coalesce(max(last_used_at), 0) FROM last_uses WHERE credential_id = '{id}'"
    );
    assert!(client.verify(&made.token).await.unwrap().active);
    wait::until("the first use is noted", FIRST, async || place.number(&last_use).await > 0).await;
    let first = place.number(&last_use).await;

    // Within the minute, and never used before: neither would be written by now.
    let other = client.create("of a test").await.unwrap();
    assert!(client.verify(&made.token).await.unwrap().active);
    assert!(client.verify(&other.token).await.unwrap().active);
    drop(client);
    process.stop().await;
    assert!(place.number(&last_use).await > first);
    assert_eq!(place.number("SELECT count(*) FROM last_uses").await, 3, "the administrator's too");

    let last = place.number(&last_use).await;
    let process = Process::start(place.arguments()).await;
    let client = Client::connect(process.address, &place.admin_token()).await;
    let request = GetPersonalAccessTokenRequest { id };
    let got = client.tokens().get_personal_access_token(request).await.unwrap().into_inner();
    let got = got.personal_access_token.unwrap().last_used_at.unwrap();
    assert_eq!(got.seconds * 1_000_000 + i64::from(got.nanos / 1_000), last);
    drop(client);
    process.stop().await;
}

/// Counts what is written to `last_uses`: each row in `written`, and on PostgreSQL
/// each statement in `statements`.
async fn count_writes(place: &Place, engine: Engine) {
    place
        .sql(match engine {
            Engine::Postgres => {
                "CREATE TABLE written (id TEXT); CREATE TABLE statements (id TEXT); \
                 CREATE FUNCTION count_row() RETURNS trigger LANGUAGE plpgsql AS \
                 'BEGIN INSERT INTO written VALUES (NEW.credential_id); RETURN NULL; END'; \
                 CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql AS \
                 'BEGIN INSERT INTO statements VALUES (''one''); RETURN NULL; END'; \
                 CREATE TRIGGER of_row AFTER INSERT OR UPDATE ON last_uses \
                 FOR EACH ROW EXECUTE FUNCTION count_row(); \
                 CREATE TRIGGER of_statement AFTER INSERT ON last_uses \
                 FOR EACH STATEMENT EXECUTE FUNCTION count_statement();"
            }
            Engine::Sqlite => {
                "CREATE TABLE written (id TEXT); \
                 CREATE TRIGGER of_insert AFTER INSERT ON last_uses \
                 BEGIN INSERT INTO written VALUES (NEW.credential_id); END; \
                 CREATE TRIGGER of_update AFTER UPDATE ON last_uses \
                 BEGIN INSERT INTO written VALUES (NEW.credential_id); END;"
            }
        })
        .await;
}

/// Has 64 callers at once use these tokens, the first caller the first one and so on,
/// each so many times.
async fn use_at_once(server: &TestServer, tokens: &[String], times: usize) {
    let mut callers = JoinSet::new();
    for token in tokens.iter().cycle().take(64) {
        let client = Client::over(server.channel.clone(), token);
        callers.spawn(async move {
            for _ in 0..times {
                client.who_am_i().await.unwrap();
            }
        });
    }
    while let Some(called) = callers.join_next().await {
        called.unwrap();
    }
}

async fn one_token_of_64_callers_is_written_once_a_minute(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (token, id) = server.used_token("alice").await;
    count_writes(&server.place, engine).await;
    let written = format!("SELECT count(*) FROM written WHERE id = '{id}'");
    for minute in 1..=2 {
        use_at_once(&server, std::slice::from_ref(&token), 10).await;
        server.until_used_at(&id, server.after(Duration::ZERO), FIRST).await;
        server.clock.advance(Duration::from_secs(30));
        use_at_once(&server, std::slice::from_ref(&token), 10).await;
        server.until_looked(&format!("bob-{minute}")).await;
        assert_eq!(server.place.number(&written).await, 2 * minute - 1);
        // What was used within the minute is written when it has passed.
        let last = server.after(Duration::ZERO);
        server.clock.advance(Duration::from_secs(30));
        server.until_used_at(&id, last, FIRST).await;
        assert_eq!(server.place.number(&written).await, 2 * minute);
        server.clock.advance(Duration::from_mins(1));
    }
}

async fn uses_of_64_tokens_are_written_together(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let mut tokens = Vec::new();
    for _ in 0..64 {
        tokens.push(server.text_of(&user.id, &["read:*"]).await);
    }
    server.until_looked("bob").await;
    count_writes(&server.place, engine).await;
    use_at_once(&server, &tokens, 10).await;
    let written = "SELECT count(*) FROM written";
    wait::until("all are written", SOON, async || server.place.number(written).await >= 64).await;
    server.until_looked("carol").await;
    let others = "SELECT count(*) FROM written WHERE id IN \
                  (SELECT c.id FROM credentials c JOIN users u ON u.id = c.user_id \
                  WHERE u.handle = 'alice')";
    assert_eq!(server.place.number(others).await, 64, "each once");
    if engine == Engine::Postgres {
        let statements = server.place.number("SELECT count(*) FROM statements").await;
        assert!(statements <= 10, "{statements} statements");
    }
}
