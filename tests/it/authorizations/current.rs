use token_authority::proto::v1::{
    UpdateUserRequest, api_client_authorizations_client::ApiClientAuthorizationsClient,
};

use super::*;
use crate::support::{on_both_stores, server::wrong_fields};

on_both_stores![
    callers_own_token_is_told_with_the_secret_that_it_presented,
    whatever_its_scopes_a_token_may_see_itself,
    to_another_cluster_no_secret_is_told,
    token_of_another_kind_is_not_found,
    token_that_is_not_good_is_told_nothing,
];

async fn callers_own_token_is_told_with_the_secret_that_it_presented(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let request = Create {
        api_client_id: Some(7),
        scopes: scopes(&["GET /a"]),
        expires_at: Some(server.after(HOUR)),
        ..Default::default()
    };
    let made = alice.by.create(request).await.unwrap();
    for text in [v2(&made), made.api_token().to_owned()] {
        let told = holder(&server, &text).current().await.unwrap();
        let used = ApiClientAuthorization {
            last_used_at: told.last_used_at,
            last_used_by_ip_address: told.last_used_by_ip_address.clone(),
            ..made.clone()
        };
        assert_eq!(told, used);
    }
    let update = Update { scopes: scopes(&[]), ..change(made.uuid()) };
    let updated = alice.by.update(update).await.unwrap();
    let told = holder(&server, &v2(&made)).current().await.unwrap();
    assert_eq!((told.scopes, told.etag), (scopes(&[]), updated.etag), "an update is seen at once");
}

async fn whatever_its_scopes_a_token_may_see_itself(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    for entries in [&[][..], &["all"], &["GET /a"], &["nonsense"]] {
        let request = Create { scopes: scopes(entries), ..Default::default() };
        let made = alice.by.create(request).await.unwrap();
        let told = holder(&server, &v2(&made)).current().await.unwrap();
        assert_eq!((told.uuid, told.scopes), (made.uuid.clone(), scopes(entries)));
        assert_eq!(who(&server, &v2(&made)).await.unwrap().scopes, entries);
    }
}

async fn to_another_cluster_no_secret_is_told(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let told = alice.by.current_for(Some("abc12")).await.unwrap();
    assert_eq!((told.uuid(), &told.api_token), (alice.uuid(), &None));
    for wrong in ["", "abc1", "abc123", "ABC12", "abc-2", "abc2\0"] {
        assert_eq!(wrong_fields(alice.by.current_for(Some(wrong)).await), ["remote"], "{wrong:?}");
    }
}

async fn token_of_another_kind_is_not_found(engine: Engine) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    for token in [server.admin.clone(), server.text_of(&user.id, &[]).await] {
        assert_eq!(refused(holder(&server, &token).current().await), not_found());
    }
}

async fn token_that_is_not_good_is_told_nothing(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let bob = person(&server, "bob").await;
    let expired = Create { expires_at: Some(server.after(Duration::ZERO)), ..Default::default() };
    let expired = alice.by.create(expired).await.unwrap();
    let deleted = alice.by.create(Create::default()).await.unwrap();
    alice.by.delete(deleted.uuid()).await.unwrap();
    let inactive =
        UpdateUserRequest { user: bob.id.clone(), is_active: Some(false), ..Default::default() };
    server.directory(&server.admin).update_user(inactive).await.unwrap();
    let unknown = format!("v2/{UNKNOWN}/{}", "0".repeat(50));
    for text in [v2(&expired), v2(&deleted), bob.text(), unknown] {
        assert_eq!(refused(holder(&server, &text).current().await), unauthenticated());
    }
    let mut nobody = ApiClientAuthorizationsClient::new(server.presenting(&[]));
    let answer = nobody.get_current_api_client_authorization(Current::default()).await;
    assert_eq!(refused(answer), (Code::Unauthenticated, "CALLER_TOKEN_MISSING".to_owned()));
}
