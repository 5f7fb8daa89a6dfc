use std::time::Duration;

use token_authority::proto::v1::{Reason, RevokePersonalAccessTokenRequest};

use crate::support::{Engine, on_both_stores, server::TestServer};

on_both_stores![revoked_token_is_refused_with_its_reason, token_is_inactive_from_its_expires_at_on];

async fn revoked_token_is_refused_with_its_reason(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let created = server.token_of(&user.id, &["read:notes"]).await;
    assert!(server.verify(&created.token).await.active);
    let id = created.personal_access_token.unwrap().id;
    let request = RevokePersonalAccessTokenRequest { id, include_descendants: false };
    server.tokens(&server.admin).revoke_personal_access_token(request).await.unwrap();
    let answer = server.verify(&created.token).await;
    assert!(!answer.active);
    assert_eq!(answer.reason(), Reason::Revoked);
    server.stop().await;
}

async fn token_is_inactive_from_its_expires_at_on(engine: Engine) {
    let server = TestServer::start_with(engine, &["--pat-default-lifetime=60s"]).await;
    let user = server.user("alice").await;
    let created = server.token_of(&user.id, &[]).await;
    server.clock.advance(Duration::from_secs(60) - Duration::from_micros(1));
    assert!(server.verify(&created.token).await.active);
    server.clock.advance(Duration::from_micros(1));
    assert_eq!(server.verify(&created.token).await.reason(), Reason::Expired);
}
