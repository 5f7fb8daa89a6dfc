use token_authority::proto::v1::{
    DeleteUserRequest, RevokeTokensRequest, UpdateUserRequest, revoke_tokens_request::Target,
};

use super::*;
use crate::support::on_both_stores;

on_both_stores![
    deactivated_users_tokens_are_refused_until_it_is_active_again,
    deleted_users_tokens_are_refused_for_good,
    revoked_with_all_others_is_revoked_for_good,
    who_is_no_administrator_any_more_acts_as_none_at_once,
    token_serves_in_the_workspaces_of_its_user,
];

async fn update_user(server: &TestServer, request: UpdateUserRequest) {
    server.directory(&server.admin).update_user(request).await.unwrap();
}

async fn deactivated_users_tokens_are_refused_until_it_is_active_again(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let set = |is_active| UpdateUserRequest {
        user: alice.id.clone(),
        is_active: Some(is_active),
        ..Default::default()
    };
    update_user(&server, set(false)).await;
    assert_eq!(reason(&server, &alice.text()).await, Reason::OwnerInactive);
    for answer in alice.by.each_method(alice.uuid()).await {
        assert_eq!(refused(answer), unauthenticated());
    }
    update_user(&server, set(true)).await;
    assert_eq!(reason(&server, &alice.text()).await, Reason::Unspecified);
    assert_eq!(alice.by.uuids().await, [alice.uuid()]);
}

async fn deleted_users_tokens_are_refused_for_good(engine: Engine) {
    let server = start_with_root(engine, &[]).await;
    let alice = person(&server, "alice").await;
    let request = DeleteUserRequest { user: alice.id.clone() };
    server.directory(&server.admin).delete_user(request).await.unwrap();
    assert!(!server.verify(&alice.text()).await.active);
    assert_eq!(refused(alice.by.current().await), unauthenticated());
    // Its handle is another's now.
    let again = person(&server, "alice").await;
    assert_ne!((&again.id, again.number), (&alice.id, alice.number));
    assert!(!server.verify(&alice.text()).await.active);
    assert_eq!(refused(again.by.get(alice.uuid()).await), not_found());
}

async fn revoked_with_all_others_is_revoked_for_good(engine: Engine) {
    let server = start_with_root(engine, &[]).await;
    let alice = person(&server, "alice").await;
    let bob = person(&server, "bob").await;
    let root = holder(&server, ROOT);
    let for_alice = || Create { owner_uuid: Some(alice.id.clone()), ..Default::default() };
    for target in [Target::User(alice.id.clone()), Target::All(true)] {
        let by_then = root.create(for_alice()).await.unwrap();
        let is_all = matches!(target, Target::All(_));
        let request = RevokeTokensRequest { target: Some(target), ..Default::default() };
        server.directory(ROOT).revoke_tokens(request).await.unwrap();
        let ended = holder(&server, &v2(&by_then));
        let request = VerifyRequest { token: v2(&by_then), ..Default::default() };
        let told = server.verification(ROOT).verify(request).await.unwrap().into_inner();
        assert_eq!(told.reason(), Reason::Revoked);
        assert_eq!(refused(ended.current().await), unauthenticated());
        let bobs = bob.by.current().await;
        if is_all {
            assert_eq!(refused(bobs), unauthenticated());
        } else {
            bobs.unwrap();
        }

        // What is made later is good, and does not see what is gone.
        let later = root.create(for_alice()).await.unwrap();
        let owner = holder(&server, &v2(&later));
        assert_eq!(owner.uuids().await, [later.uuid()]);
        for by in [&owner, &root] {
            for answer in [
                by.get(by_then.uuid()).await,
                by.update(change(by_then.uuid())).await,
                by.delete(by_then.uuid()).await,
            ] {
                assert_eq!(refused(answer), not_found());
            }
        }
        assert!(!root.uuids().await.contains(&by_then.uuid().to_owned()));
    }
}

async fn who_is_no_administrator_any_more_acts_as_none_at_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let for_alice = || Create { owner_uuid: Some(alice.id.clone()), ..Default::default() };
    let chief = chief(&server, "chief").await;
    chief.by.create(for_alice()).await.unwrap();
    chief.by.create_system(CreateSystem::default()).await.unwrap();
    let demoted =
        UpdateUserRequest { user: chief.id.clone(), is_admin: Some(false), ..Default::default() };
    update_user(&server, demoted).await;
    assert_eq!(refused(chief.by.create(for_alice()).await), denied("CALLER_ROLE"));
    let answer = chief.by.create_system(CreateSystem::default()).await;
    assert_eq!(refused(answer), denied("CALLER_ROLE"));
    let request = VerifyRequest { token: alice.text(), ..Default::default() };
    let answer = server.verification(&chief.text()).verify(request).await;
    assert_eq!(refused(answer), denied("CALLER_ROLE"));
    chief.by.create(Create::default()).await.unwrap();
}

async fn token_serves_in_the_workspaces_of_its_user(engine: Engine) {
    let server = TestServer::start(engine).await;
    let alice = person(&server, "alice").await;
    let [own, other] = [server.workspace("own").await, server.workspace("other").await];
    server.join(&alice.id, &own, "member").await;
    for (workspace_id, expected) in [(&own, Reason::Unspecified), (&other, Reason::WrongWorkspace)]
    {
        let request = VerifyRequest {
            token: alice.text(),
            workspace_id: Some(workspace_id.clone()),
            ..Default::default()
        };
        assert_eq!(ask(&server, request).await.reason(), expected);
    }
    server.leave(&alice.id, &own).await;
    assert_eq!(reason(&server, &alice.text()).await, Reason::Unspecified, "it is bound to none");
}
