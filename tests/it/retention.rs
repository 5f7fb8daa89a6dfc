//! What a server forgets by itself, and what comes of it.

use std::time::Duration;

use token_authority::{clock::Clock as _, proto::v1::VerifyRequest};

use crate::support::{Engine, client::Client, on_both_stores, server::TestServer, wait::until};

on_both_stores![
    what_is_old_is_forgotten_as_far_as_the_settings_do_not_keep_it,
    follower_of_what_is_forgotten_drops_all_it_knows,
];

/// No wait here is as long.
const DEADLINE: Duration = Duration::from_secs(30);

const CHANGES: &str = "SELECT count(*) FROM changes";
const AUDIT: &str = "SELECT count(*) FROM audit WHERE action <> 'audit.purge'";
const USES: &str = "SELECT count(*) FROM verifier_uses WHERE last_used_at < 10";

async fn what_is_old_is_forgotten_as_far_as_the_settings_do_not_keep_it(engine: Engine) {
    let server = TestServer::start_with(engine, &["--last-use=false"]).await;
    let user = server.user("alice").await;
    let client = Client::over(server.channel.clone(), &server.admin);
    for _ in 0..3 {
        let made = server.token_of(&user.id, &[]).await.personal_access_token.unwrap();
        client.revoke(&made.id).await.unwrap();
    }
    let ago = |days: i64| server.clock.now().as_micros() - days * 86_400_000_000;
    let old = format!(
        "UPDATE changes SET changed_at = {} - revision; UPDATE audit SET occurred_at = {}; \
         INSERT INTO verifier_uses (credential_id, verifier_id, client_ip, last_used_at) \
         SELECT id, '', '', CASE WHEN revoked_at IS NULL THEN 1 ELSE {} END FROM credentials",
        ago(1) - 1,
        ago(3),
        ago(3),
    );
    drop(client);
    let place = server.stop().await;
    place.sql(&old).await;
    let audit = place.number(AUDIT).await;
    assert_eq!((place.number(CHANGES).await, place.number(USES).await), (4, 1));

    let server = TestServer::start_on(place, &["--keep-changes=25h", "--last-use=false"]).await;
    until("old uses are forgotten", DEADLINE, async || server.place.number(USES).await == 0).await;
    let place = server.stop().await;
    assert_eq!((place.number(CHANGES).await, place.number(AUDIT).await), (4, audit));
    assert_eq!(place.number("SELECT count(*) FROM verifier_uses").await, 3);

    let server = TestServer::start_on(place, &["--keep-audit=2d", "--last-use=false"]).await;
    let is_forgotten = async || {
        let place = &server.place;
        place.number(CHANGES).await == 1 && place.number(AUDIT).await == 0
    };
    until("what is old is forgotten", DEADLINE, is_forgotten).await;
}

async fn follower_of_what_is_forgotten_drops_all_it_knows(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-staleness=600s"]).await;
    let user = server.user("alice").await;
    let token = server.token_of(&user.id, &[]).await;
    let client = Client::over(server.channel.clone(), &server.admin);
    let question = VerifyRequest { token: token.token.clone(), ..Default::default() };
    let is_active =
        async || client.verification().verify(question.clone()).await.unwrap().into_inner().active;
    assert!(is_active().await);
    server.follow().await;
    assert!(is_active().await);
    // What revoked it is forgotten before it was read.
    let id = token.personal_access_token.unwrap().id;
    server
        .place
        .sql(&format!(
            "BEGIN; UPDATE credentials SET revoked_at = 1 WHERE id = '{id}'; DELETE FROM changes; \
             UPDATE revision SET number = number + 2, mark = 42; \
             INSERT INTO changes (revision, mark, changed_at, touched) \
             SELECT number, mark, {}, '[]' FROM revision; COMMIT",
            server.clock.now().as_micros()
        ))
        .await;
    server.follow().await;
    assert!(!is_active().await);
}
