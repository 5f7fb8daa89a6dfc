use super::*;
use crate::support::{on_both_stores, server::exceeded};

on_both_stores![
    administrators_make_tokens_of_the_system_user,
    token_of_the_system_user_acts_as_an_administrator,
    token_of_the_system_user_can_do_no_more_than_what_made_it,
];

async fn administrators_make_tokens_of_the_system_user(engine: Engine) {
    let server = TestServer::start_with(engine, &["--cluster-id=abc12"]).await;
    let alice = person(&server, "alice").await;
    let chief = chief(&server, "chief").await;
    let kept = server.kept().await;
    let answer = alice.by.create_system(CreateSystem::default()).await;
    assert_eq!(refused(answer), denied("CALLER_ROLE"));
    assert_eq!(server.kept().await, kept);

    server.clock.advance(SECOND);
    let request = CreateSystem { api_client_id: Some(3), scopes: scopes(&["GET /a"]) };
    let made = chief.by.create_system(request).await.unwrap();
    assert!(made.uuid().starts_with("abc12-gj3su-"));
    let expected = ApiClientAuthorization {
        uuid: made.uuid.clone(),
        api_token: made.api_token.clone(),
        api_client_id: Some(3),
        user_id: made.user_id,
        created_by_ip_address: Some(HERE.to_owned()),
        last_used_by_ip_address: None,
        last_used_at: None,
        expires_at: None,
        owner_uuid: Some("abc12-tpzed-000000000000000".to_owned()),
        scopes: scopes(&["GET /a"]),
        created_at: Some(server.after(Duration::ZERO)),
        etag: made.etag.clone(),
    };
    assert_eq!(made, expected);
    assert!(made.user_id.is_some() && !made.api_token().is_empty() && !made.etag().is_empty());
    let told = server.verify(&v2(&made)).await;
    assert!(told.active);
    assert_eq!(told.user_id, "abc12-tpzed-000000000000000");

    for by in [&chief.by, &holder(&server, &server.admin)] {
        let made = by.create_system(CreateSystem::default()).await.unwrap();
        assert_eq!((made.scopes, made.api_client_id), (scopes(&["all"]), None));
    }
    assert_eq!(refused(chief.by.get(made.uuid()).await), not_found(), "it is the system user's");
    assert!(!chief.by.uuids().await.contains(&made.uuid().to_owned()));
}

async fn token_of_the_system_user_acts_as_an_administrator(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let made = holder(&server, &server.admin).create_system(CreateSystem::default()).await.unwrap();
    let sibling =
        holder(&server, &server.admin).create_system(CreateSystem::default()).await.unwrap();
    let system = holder(&server, &v2(&made));
    assert_eq!(system.current().await.unwrap().uuid, made.uuid);
    assert!(who(&server, &v2(&made)).await.unwrap().user.unwrap().is_admin);
    let request = VerifyRequest { token: alice.text(), ..Default::default() };
    let told = server.verification(&v2(&made)).verify(request).await.unwrap().into_inner();
    assert!(told.active, "it may verify");

    let request = Create { owner_uuid: Some(alice.id.clone()), ..Default::default() };
    assert_eq!(system.create(request).await.unwrap().owner_uuid, Some(alice.id.clone()));
    assert_eq!(system.create(Create::default()).await.unwrap().user_id, made.user_id);
    system.create_system(CreateSystem::default()).await.unwrap();
    // It is not the system root token.
    for answer in [
        system.get(alice.uuid()).await,
        system.update(change(alice.uuid())).await,
        system.delete(alice.uuid()).await,
    ] {
        assert_eq!(refused(answer), not_found());
    }
    assert!(!system.uuids().await.contains(&alice.uuid().to_owned()));
    assert_eq!(system.get(sibling.uuid()).await.unwrap().uuid, sibling.uuid);
    assert_eq!(system.delete(sibling.uuid()).await.unwrap().uuid, sibling.uuid);
}

async fn token_of_the_system_user_can_do_no_more_than_what_made_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let administrator = server.administrator("chief").await;
    let create_system = route("CreateSystemAuth");
    let request = Create {
        owner_uuid: Some(administrator.id.clone()),
        api_client_id: Some(7),
        scopes: scopes(&[&create_system, "GET /a/"]),
        expires_at: Some(server.after(HOUR)),
        ..Default::default()
    };
    let limited = holder(&server, &server.admin).create(request).await.unwrap();
    let by = holder(&server, &v2(&limited));
    let made = by.create_system(CreateSystem::default()).await.unwrap();
    assert_eq!((&made.scopes, made.api_client_id), (&limited.scopes, Some(7)));
    assert_eq!(made.expires_at, limited.expires_at);
    let narrow = CreateSystem { scopes: scopes(&["GET /a/b"]), ..Default::default() };
    assert_eq!(by.create_system(narrow).await.unwrap().scopes, scopes(&["GET /a/b"]));
    let kept = server.kept().await;
    for wider in [&["all"][..], &["GET /a"], &["GET /a/b", "GET /b"], &["POST /"]] {
        let request = CreateSystem { scopes: scopes(wider), ..Default::default() };
        assert_eq!(exceeded(by.create_system(request).await), "scopes", "{wider:?}");
    }
    assert_eq!(server.kept().await, kept);
}
