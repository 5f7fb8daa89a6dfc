use std::time::Duration;

use prost_types::FieldMask;
use token_authority::proto::v1::{
    CreateMembershipRequest, DeleteMembershipRequest, DeleteMembershipResponse,
    GetMembershipRequest, ListMembershipsRequest, ListPersonalAccessTokensRequest, Membership,
    MembershipGrant, MembershipRole, MembershipUpsert, Reason, RevokeTokensRequest,
    RevokeTokensResponse, SetMembershipsRequest, SetMembershipsResponse, TokenState,
    UpdateMembershipRequest, UpsertMembershipsRequest, UpsertMembershipsResponse,
    UpsertUsersRequest, UserUpsert, create_membership_request, delete_membership_request,
    get_membership_request, list_memberships_request, membership, membership_grant,
    membership_upsert, revoke_tokens_request::Target, update_membership_request,
};
use tonic::{Code, Response, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, refused, wrong_fields},
};

on_both_stores![
    membership_is_made_read_changed_and_ended,
    batches_are_done_whole_and_their_repeat_changes_nothing,
    batch_that_is_wrong_in_one_does_none_and_names_it,
    set_memberships_are_exactly_those_given_where_it_was_said,
    who_leaves_or_becomes_a_guest_has_no_bound_token_any_more_for_good,
    owners_and_admins_of_the_organization_manage_its_members_and_nobody_else,
    manager_who_lost_its_role_manages_no_more,
    batch_needs_the_right_in_each_organization,
    manager_puts_a_thousand_memberships_at_once,
    membership_is_seen_by_its_user_and_by_who_manages_the_organization,
    what_is_malformed_is_named,
    tokens_of_a_user_a_workspace_an_organization_or_all_end_and_later_ones_are_good,
    administrators_alone_revoke_all_tokens_of_something,
];

use MembershipRole::{Admin, Guest, Member, Owner};

/// What somebody belongs to, as a request names it.
#[derive(Clone, Copy)]
enum In<'a> {
    Organization(&'a str),
    Workspace(&'a str),
}

/// Its form in the requests, of which each has its own.
macro_rules! container {
    ($module:ident, $container:expr) => {
        match $container {
            In::Organization(name) => $module::Container::Organization(name.to_owned()),
            In::Workspace(name) => $module::Container::Workspace(name.to_owned()),
        }
    };
}

type Answer<T> = Result<Response<T>, Status>;

async fn create(
    server: &TestServer,
    token: &str,
    user: &str,
    container: In<'_>,
    role: MembershipRole,
) -> Result<Membership, Status> {
    let request = CreateMembershipRequest {
        user: user.to_owned(),
        container: Some(container!(create_membership_request, container)),
        role: role.into(),
    };
    let answer = server.directory(token).create_membership(request).await?;
    Ok(answer.into_inner().membership.unwrap())
}

async fn get(
    server: &TestServer,
    token: &str,
    user: &str,
    container: In<'_>,
) -> Result<Membership, Status> {
    let request = GetMembershipRequest {
        user: user.to_owned(),
        container: Some(container!(get_membership_request, container)),
    };
    Ok(server.directory(token).get_membership(request).await?.into_inner().membership.unwrap())
}

async fn update(
    server: &TestServer,
    token: &str,
    user: &str,
    container: In<'_>,
    role: Option<MembershipRole>,
) -> Result<Membership, Status> {
    let request = UpdateMembershipRequest {
        user: user.to_owned(),
        container: Some(container!(update_membership_request, container)),
        role: role.map(Into::into),
        update_mask: None,
    };
    Ok(server.directory(token).update_membership(request).await?.into_inner().membership.unwrap())
}

async fn delete(
    server: &TestServer,
    token: &str,
    user: &str,
    container: In<'_>,
) -> Answer<DeleteMembershipResponse> {
    let request = DeleteMembershipRequest {
        user: user.to_owned(),
        container: Some(container!(delete_membership_request, container)),
    };
    server.directory(token).delete_membership(request).await
}

fn upsert_of(user: &str, container: In<'_>, role: MembershipRole) -> MembershipUpsert {
    MembershipUpsert {
        user: user.to_owned(),
        container: Some(container!(membership_upsert, container)),
        role: role.into(),
    }
}

async fn upsert(
    server: &TestServer,
    token: &str,
    memberships: &[MembershipUpsert],
) -> Answer<UpsertMembershipsResponse> {
    let request = UpsertMembershipsRequest { memberships: memberships.to_vec() };
    server.directory(token).upsert_memberships(request).await
}

async fn set(
    server: &TestServer,
    token: &str,
    user: &str,
    organization: Option<&str>,
    grants: &[(In<'_>, MembershipRole)],
) -> Answer<SetMembershipsResponse> {
    let memberships = grants.iter().map(|(container, role)| MembershipGrant {
        container: Some(container!(membership_grant, *container)),
        role: (*role).into(),
    });
    let request = SetMembershipsRequest {
        user: user.to_owned(),
        organization: organization.map(str::to_owned),
        memberships: memberships.collect(),
    };
    server.directory(token).set_memberships(request).await
}

async fn list(
    server: &TestServer,
    token: &str,
    user: Option<&str>,
    container: Option<In<'_>>,
) -> Result<Vec<Membership>, Status> {
    let mut all = Vec::new();
    let mut request = ListMembershipsRequest {
        page_size: 2,
        user: user.map(str::to_owned),
        container: container.map(|it| container!(list_memberships_request, it)),
        ..Default::default()
    };
    loop {
        let page = server.directory(token).list_memberships(request.clone()).await?.into_inner();
        all.extend(page.memberships);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(all);
        }
    }
}

async fn revoke(server: &TestServer, token: &str, target: Target) -> Answer<RevokeTokensResponse> {
    let request = RevokeTokensRequest { target: Some(target), reason: "leaked".to_owned() };
    server.directory(token).revoke_tokens(request).await
}

/// The code and the reason of a refusal.
fn why<T>(answer: Result<T, Status>) -> (Code, String) {
    refused(answer.map(Response::new))
}

fn not_found() -> (Code, String) {
    (Code::NotFound, String::new())
}

fn no_role() -> (Code, String) {
    (Code::PermissionDenied, "CALLER_ROLE".to_owned())
}

fn no_scope() -> (Code, String) {
    (Code::PermissionDenied, "CALLER_SCOPE".to_owned())
}

const WRITE: &[&str] = &["write:directory"];

async fn membership_is_made_read_changed_and_ended(engine: Engine) {
    let server = TestServer::start(engine).await;
    let admin = &*server.admin;
    let (alice, notes) = (server.user("alice").await, server.workspace("notes").await);
    let organization_id = {
        let made = create(&server, admin, "handle:alice", In::Organization("org-of-notes"), Guest);
        let made = made.await.unwrap();
        assert_eq!((&made.user_id, made.role()), (&alice.id, Guest));
        assert_eq!(made.created_at, Some(server.after(Duration::ZERO)));
        let Some(membership::Container::OrganizationId(id)) = made.container else { panic!() };
        id
    };
    for container in [In::Organization(&organization_id), In::Organization("external:org:notes")] {
        let again = create(&server, admin, &alice.id, container, Member).await;
        assert_eq!(why(again), (Code::AlreadyExists, "MEMBERSHIP_EXISTS".to_owned()));
    }
    let workspace = In::Workspace(&notes);
    assert_eq!(why(update(&server, admin, &alice.id, workspace, Some(Owner)).await), not_found());
    assert_eq!(why(update(&server, admin, &alice.id, workspace, None).await), not_found());
    assert_eq!(why(get(&server, admin, &alice.id, workspace).await), not_found());
    let made = create(&server, admin, &alice.id, workspace, Member).await.unwrap();
    assert_eq!(made.container, Some(membership::Container::WorkspaceId(notes.clone())));

    server.clock.advance(Duration::from_secs(1));
    let kept = server.kept().await;
    for role in [None, Some(Member)] {
        let same = update(&server, admin, "handle:alice", In::Workspace("external:ws:notes"), role);
        assert_eq!(same.await.unwrap(), made);
    }
    assert_eq!(server.kept().await, kept);
    for role in [Admin, Owner, Guest, Member] {
        let changed = update(&server, admin, &alice.id, workspace, Some(role)).await.unwrap();
        assert_eq!(changed, Membership { role: role.into(), ..made.clone() });
        assert_eq!(get(&server, admin, &alice.id, workspace).await.unwrap(), changed);
    }

    let ended = delete(&server, admin, &alice.id, workspace).await.unwrap().into_inner();
    let kept = server.kept().await;
    let again = delete(&server, admin, "handle:alice", workspace).await.unwrap().into_inner();
    assert_eq!(again, ended);
    assert_eq!(server.kept().await, kept);
    assert_eq!(why(get(&server, admin, &alice.id, workspace).await), not_found());
    for (user, container) in [
        ("handle:nobody", workspace),
        (&alice.id, In::Organization("nothing")),
        (&alice.id, In::Workspace("external:nothing")),
    ] {
        assert_eq!(why(delete(&server, admin, user, container).await), not_found());
        assert_eq!(why(create(&server, admin, user, container, Member).await), not_found());
        assert_eq!(why(update(&server, admin, user, container, Some(Member)).await), not_found());
        assert_eq!(why(get(&server, admin, user, container).await), not_found());
        assert_eq!(why(list(&server, admin, Some(user), Some(container)).await), not_found());
    }
}

async fn batches_are_done_whole_and_their_repeat_changes_nothing(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let notes = server.workspace("notes").await;
    let wanted = [
        upsert_of("handle:bob", In::Workspace(&notes), Member),
        upsert_of(&alice.id, In::Workspace(&notes), Owner),
        upsert_of(&alice.id, In::Organization("org-of-notes"), Guest),
    ];
    let made = upsert(&server, &server.admin, &wanted).await.unwrap().into_inner();
    let said: Vec<_> = made.memberships.iter().map(|it| (&it.user_id, it.role())).collect();
    assert_eq!(said, [(&bob.id, Member), (&alice.id, Owner), (&alice.id, Guest)]);
    server.clock.advance(Duration::from_secs(1));
    let kept = server.kept().await;
    assert_eq!(upsert(&server, &server.admin, &wanted).await.unwrap().into_inner(), made);
    assert_eq!(server.kept().await, kept);
    let changed = [upsert_of(&bob.id, In::Workspace(&notes), Admin)];
    let changed = upsert(&server, &server.admin, &changed).await.unwrap().into_inner();
    assert_eq!(changed.memberships[0].role(), Admin);
    let left = list(&server, &server.admin, None, Some(In::Workspace(&notes))).await.unwrap();
    assert_eq!(left.len(), 2, "others stay");
}

async fn batch_that_is_wrong_in_one_does_none_and_names_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (alice, notes) = (server.user("alice").await, server.workspace("notes").await);
    let here = In::Workspace(&notes);
    let good = upsert_of(&alice.id, here, Owner);
    let kept = server.kept().await;
    for (wrong, field) in [
        (upsert_of("alice", here, Owner), "memberships[1].user"),
        (upsert_of(&alice.id, In::Workspace("notes"), Owner), "memberships[1].workspace"),
        (upsert_of(&alice.id, In::Organization("A b"), Owner), "memberships[1].organization"),
        (MembershipUpsert { container: None, ..good.clone() }, "memberships[1].container"),
        (MembershipUpsert { role: 0, ..good.clone() }, "memberships[1].role"),
        (MembershipUpsert { role: 9, ..good.clone() }, "memberships[1].role"),
        (upsert_of("handle:alice", In::Workspace("external:ws:notes"), Guest), "memberships[1]"),
    ] {
        let answer = upsert(&server, &server.admin, &[good.clone(), wrong]).await;
        assert_eq!(wrong_fields(answer), [field]);
    }
    for wrong in [
        upsert_of("handle:nobody", here, Owner),
        upsert_of(&alice.id, In::Organization("nothing"), Owner),
    ] {
        let answer = upsert(&server, &server.admin, &[good.clone(), wrong]).await;
        assert!(answer.as_ref().unwrap_err().message().starts_with("memberships[1]: "));
        assert_eq!(refused(answer), not_found());
    }
    let many = vec![good; 1_001];
    assert_eq!(wrong_fields(upsert(&server, &server.admin, &many).await), ["memberships"]);
    let here = (here, Member);
    let answer = set(&server, &server.admin, &alice.id, None, &[here, here]).await;
    assert_eq!(wrong_fields(answer), ["memberships[1]"]);
    server.workspace("tasks").await;
    let there = (In::Workspace("external:ws:tasks"), Member);
    let kept_too = server.kept().await;
    let answer = set(&server, &server.admin, &alice.id, Some("org-of-notes"), &[here, there]).await;
    assert_eq!(wrong_fields(answer), ["memberships[1]"]);
    assert_eq!(server.kept().await, kept_too);
    assert_eq!(kept_too - kept, 2, "an organization and a workspace");
}

async fn set_memberships_are_exactly_those_given_where_it_was_said(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (notes, tasks) = (server.workspace("notes").await, server.workspace("tasks").await);
    for user in [&alice, &bob] {
        server.join(&user.id, &notes, "member").await;
        server.join(&user.id, &tasks, "member").await;
    }
    let admin = &*server.admin;
    let roles = async |user: &str| {
        let mut roles: Vec<_> = list(&server, admin, Some(user), None).await.unwrap();
        roles.sort_by_key(|it| it.role);
        roles.iter().map(Membership::role).collect::<Vec<_>>()
    };
    let grants = [(In::Organization("org-of-notes"), Owner)];
    let answer = set(&server, admin, &alice.id, Some("org-of-notes"), &grants).await.unwrap();
    let answer = answer.into_inner();
    assert_eq!(answer.memberships.len(), 1);
    assert_eq!(roles(&alice.id).await, [Owner, Member], "elsewhere they stay");
    let kept = server.kept().await;
    let again = set(&server, admin, &alice.id, Some("org-of-notes"), &grants).await.unwrap();
    assert_eq!(again.into_inner(), answer);
    assert_eq!(server.kept().await, kept);
    set(&server, admin, &alice.id, None, &[(In::Workspace(&notes), Admin)]).await.unwrap();
    assert_eq!(roles(&alice.id).await, [Admin]);
    set(&server, admin, "handle:alice", None, &[]).await.unwrap();
    assert_eq!(roles(&alice.id).await, []);
    assert_eq!(roles(&bob.id).await, [Member, Member]);
}

async fn who_leaves_or_becomes_a_guest_has_no_bound_token_any_more_for_good(engine: Engine) {
    let server = TestServer::start(engine).await;
    let admin = &*server.admin;
    let (alice, notes) = (server.user("alice").await, server.workspace("notes").await);
    let unbound = server.text_of(&alice.id, &["read:tokens"]).await;
    let here = In::Workspace(&notes);
    for ways in 0..4 {
        server.join(&alice.id, &notes, "member").await;
        let bound = server.bound(&alice.id, &notes).await;
        server.join(&alice.id, &notes, "admin").await;
        assert!(server.verify(&bound).await.active, "other roles keep it");
        match ways {
            0 => drop(delete(&server, admin, &alice.id, here).await.unwrap()),
            1 => drop(update(&server, admin, &alice.id, here, Some(Guest)).await.unwrap()),
            2 => drop(set(&server, admin, &alice.id, Some("org-of-notes"), &[]).await.unwrap()),
            _ => drop(set(&server, admin, &alice.id, None, &[(here, Guest)]).await.unwrap()),
        }
        for _ in 0..2 {
            let answer = server.verify(&bound).await;
            assert_eq!(answer.reason(), Reason::Revoked, "{ways}");
            server.join(&alice.id, &notes, "owner").await;
        }
        assert!(server.verify(&unbound).await.active);
    }
    let request = ListPersonalAccessTokensRequest { show_revoked: true, ..Default::default() };
    let listed = server.tokens(&unbound).list_personal_access_tokens(request).await.unwrap();
    let mut states: Vec<_> = (listed.into_inner().personal_access_tokens.iter())
        .map(|token| (token.workspace_id.is_some(), token.state()))
        .collect();
    states.sort();
    let bound = [(true, TokenState::Revoked); 4];
    assert_eq!(states, [&[(false, TokenState::Active)][..], &bound].concat());
}

async fn owners_and_admins_of_the_organization_manage_its_members_and_nobody_else(engine: Engine) {
    let server = TestServer::start(engine).await;
    let notes = server.workspace("notes").await;
    server.workspace("tasks").await;
    server.user("max").await;
    let (here, organization) = (In::Workspace(&notes), In::Organization("org-of-notes"));
    let all = async |token: &str, user: &str, container: In<'_>| {
        let organization = match container {
            In::Organization(name) => Some(name),
            In::Workspace(_) => Some("org-of-notes"),
        };
        [
            why_or_ok(create(&server, token, user, container, Member).await),
            why_or_ok(update(&server, token, user, container, Some(Admin)).await),
            why_or_ok(upsert(&server, token, &[upsert_of(user, container, Guest)]).await),
            why_or_ok(delete(&server, token, user, container).await),
            why_or_ok(set(&server, token, user, organization, &[]).await),
        ]
    };
    let ok = (Code::Ok, String::new());
    for (role, manages) in [(Owner, true), (Admin, true), (Member, false), (Guest, false)] {
        let name = role.as_str_name().to_lowercase();
        let user = server.user(&name).await;
        create(&server, &server.admin, &user.id, organization, role).await.unwrap();
        let token = server.text_of(&user.id, WRITE).await;
        for container in [organization, here] {
            let expected = if manages { ok.clone() } else { no_role() };
            assert_eq!(
                all(&token, "handle:max", container).await,
                [(); 5].map(|()| expected.clone())
            );
        }
        let expected = if manages { not_found() } else { no_role() };
        assert_eq!(all(&token, "handle:nobody", here).await, [(); 5].map(|()| expected.clone()));
        // Of what it can not see it is not told that it is.
        for unseen in ["org-of-tasks", "nothing"] {
            let answers = all(&token, "handle:max", In::Organization(unseen)).await;
            assert_eq!(answers, [(); 5].map(|()| not_found()), "{unseen}");
        }
        let everywhere = set(&server, &token, "handle:max", None, &[]).await;
        assert_eq!(refused(everywhere), no_role());
        // Nor without the scope, nor with a token that is bound.
        let token = server.text_of(&user.id, &["read:directory"]).await;
        let expected = if manages { no_scope() } else { no_role() };
        assert_eq!(all(&token, "handle:max", here).await, [(); 5].map(|()| expected.clone()));
        server.join(&user.id, &notes, "owner").await;
        let token = server.bound_with(&user.id, &notes, WRITE).await;
        assert_eq!(all(&token, "handle:max", here).await, [(); 5].map(|()| expected.clone()));
    }
    // To own a workspace is not to manage its organization.
    let user = server.user("owner-of-notes").await;
    server.join(&user.id, &notes, "owner").await;
    let token = server.text_of(&user.id, WRITE).await;
    assert_eq!(all(&token, "handle:max", here).await, [(); 5].map(|()| no_role()));
    let boss = server.administrator("boss").await;
    server.join(&boss.id, &notes, "owner").await;
    let token = server.bound_with(&boss.id, &notes, WRITE).await;
    assert_eq!(all(&token, "handle:max", here).await, [(); 5].map(|()| no_scope()));
}

fn why_or_ok<T>(answer: Result<T, Status>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => why::<()>(Err(status)),
    }
}

async fn manager_who_lost_its_role_manages_no_more(engine: Engine) {
    let server = TestServer::start(engine).await;
    server.workspace("notes").await;
    let organization = In::Organization("org-of-notes");
    let olga = server.user("olga").await;
    let max = server.user("max").await;
    create(&server, &server.admin, &olga.id, organization, Owner).await.unwrap();
    let token = server.text_of(&olga.id, WRITE).await;
    create(&server, &token, &max.id, organization, Member).await.unwrap();
    update(&server, &token, &olga.id, organization, Some(Member)).await.unwrap();
    let answer = update(&server, &token, &olga.id, organization, Some(Owner)).await;
    assert_eq!(why(answer), no_role());
    delete(&server, &server.admin, &olga.id, organization).await.unwrap();
    assert_eq!(why(delete(&server, &token, &max.id, organization).await), not_found());
}

async fn batch_needs_the_right_in_each_organization(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (notes, tasks) = (server.workspace("notes").await, server.workspace("tasks").await);
    let (olga, max) = (server.user("olga").await, server.user("max").await);
    let token = server.text_of(&olga.id, WRITE).await;
    let both = [
        upsert_of(&max.id, In::Workspace(&notes), Member),
        upsert_of(&max.id, In::Workspace(&tasks), Member),
    ];
    let manage = async |organization, role| {
        let membership = upsert_of(&olga.id, In::Organization(organization), role);
        upsert(&server, &server.admin, &[membership]).await.unwrap();
    };
    manage("org-of-notes", Owner).await;
    assert_eq!(refused(upsert(&server, &token, &both).await), not_found());
    manage("org-of-tasks", Member).await;
    assert_eq!(refused(upsert(&server, &token, &both).await), no_role());
    assert!(list(&server, &server.admin, Some(&max.id), None).await.unwrap().is_empty());
    manage("org-of-tasks", Admin).await;
    assert_eq!(upsert(&server, &token, &both).await.unwrap().into_inner().memberships.len(), 2);
    assert_eq!(
        refused(upsert(&server, &server.text_of(&max.id, WRITE).await, &[]).await),
        no_role()
    );
}

async fn manager_puts_a_thousand_memberships_at_once(engine: Engine) {
    let server = TestServer::start_with(engine, &["--call-deadline=60s"]).await;
    let notes = server.workspace("notes").await;
    let olga = server.user("olga").await;
    create(&server, &server.admin, &olga.id, In::Organization("org-of-notes"), Owner)
        .await
        .unwrap();
    let token = server.text_of(&olga.id, WRITE).await;
    let names: Vec<_> = (0..1_000).map(|n| format!("{n:0>255}")).collect();
    let users =
        names.iter().map(|name| UserUpsert { external_id: name.clone(), ..Default::default() });
    let request = UpsertUsersRequest { users: users.collect() };
    server.directory(&server.admin).upsert_users(request).await.unwrap();
    let wanted: Vec<_> = names
        .iter()
        .map(|name| upsert_of(&format!("external:{name}"), In::Workspace(&notes), Member))
        .collect();
    let made = upsert(&server, &token, &wanted).await.unwrap().into_inner();
    assert_eq!(made.memberships.len(), 1_000);
    let again = upsert(&server, &token, &wanted).await.unwrap().into_inner();
    assert_eq!(again, made);
}

async fn membership_is_seen_by_its_user_and_by_who_manages_the_organization(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (notes, tasks) = (server.workspace("notes").await, server.workspace("tasks").await);
    let (olga, max) = (server.user("olga").await, server.user("max").await);
    create(&server, &server.admin, &olga.id, In::Organization("org-of-notes"), Owner)
        .await
        .unwrap();
    for workspace in [&notes, &tasks] {
        server.join(&max.id, workspace, "member").await;
    }
    let read = &["read:directory"];
    let olgas = server.text_of(&olga.id, read).await;
    let maxs = server.text_of(&max.id, read).await;
    let bound = server.bound_with(&max.id, &tasks, read).await;
    let stranger = server.user("stranger").await;
    let strangers = server.text_of(&stranger.id, read).await;
    for (token, all, of_max) in [
        (&server.admin, 3, Some(2)),
        (&olgas, 2, Some(1)),
        (&maxs, 2, Some(2)),
        (&bound, 1, Some(1)),
        (&strangers, 0, None),
    ] {
        assert_eq!(list(&server, token, None, None).await.unwrap().len(), all);
        match (list(&server, token, Some("handle:max"), None).await, of_max) {
            (Ok(seen), Some(expected)) => assert_eq!(seen.len(), expected),
            (answer, None) => assert_eq!(why(answer), not_found()),
            (answer, Some(_)) => panic!("{answer:?}"),
        }
    }
    let sees = async |token: &str, user: &str, workspace: &str| {
        let answer = get(&server, token, user, In::Workspace(workspace)).await;
        if let Err(status) = &answer {
            assert_eq!(status.code(), Code::NotFound);
            assert_eq!(status.message(), "there is no such membership");
        }
        answer.is_ok()
    };
    assert!(sees(&olgas, &max.id, &notes).await);
    assert!(!sees(&olgas, &max.id, &tasks).await);
    assert!(!sees(&olgas, "handle:nobody", &notes).await);
    assert!(sees(&maxs, &max.id, &notes).await && sees(&maxs, &max.id, &tasks).await);
    assert!(!sees(&bound, &max.id, &notes).await && sees(&bound, &max.id, &tasks).await);
    assert!(!sees(&strangers, &max.id, &notes).await);
    assert_eq!(why(list(&server, &maxs, Some(&olga.id), None).await), not_found());
    let elsewhere = In::Organization("org-of-tasks");
    assert_eq!(why(list(&server, &olgas, None, Some(elsewhere)).await), not_found());
}

async fn what_is_malformed_is_named(engine: Engine) {
    let server = TestServer::start(engine).await;
    let mut directory = server.directory(&server.admin);
    let answer = directory.create_membership(CreateMembershipRequest::default()).await;
    assert_eq!(wrong_fields(answer), ["user", "container", "role"]);
    let answer = directory.get_membership(GetMembershipRequest::default()).await;
    assert_eq!(wrong_fields(answer), ["user", "container"]);
    let request = UpdateMembershipRequest {
        update_mask: Some(FieldMask { paths: vec!["role".to_owned(), "user".to_owned()] }),
        ..Default::default()
    };
    let answer = directory.update_membership(request).await;
    assert_eq!(wrong_fields(answer), ["update_mask.paths[1]", "role", "user", "container"]);
    let answer = directory.delete_membership(DeleteMembershipRequest::default()).await;
    assert_eq!(wrong_fields(answer), ["user", "container"]);
    let request =
        SetMembershipsRequest { organization: Some("A".to_owned()), ..Default::default() };
    assert_eq!(wrong_fields(directory.set_memberships(request).await), ["user", "organization"]);

    let answer = directory.revoke_tokens(RevokeTokensRequest::default()).await;
    assert_eq!(wrong_fields(answer), ["target"]);
    for (target, field) in [
        (Target::All(false), "all"),
        (Target::User("alice".to_owned()), "user"),
        (Target::Workspace("notes".to_owned()), "workspace"),
        (Target::Organization("A".to_owned()), "organization"),
    ] {
        assert_eq!(wrong_fields(revoke(&server, &server.admin, target).await), [field]);
    }
    let request =
        RevokeTokensRequest { target: Some(Target::All(true)), reason: "x".repeat(1_001) };
    assert_eq!(wrong_fields(directory.revoke_tokens(request).await), ["reason"]);
    assert!(server.verify(&server.admin).await.active);
}

async fn tokens_of_a_user_a_workspace_an_organization_or_all_end_and_later_ones_are_good(
    engine: Engine,
) {
    let server = TestServer::start(engine).await;
    let (alice, boss) = (server.user("alice").await, server.administrator("boss").await);
    let notes = server.workspace("notes").await;
    server.join(&alice.id, &notes, "member").await;
    server.join(&boss.id, &notes, "member").await;
    let token = server.text_of(&boss.id, &["admin:all"]).await;
    for (target, ended) in [
        (Target::User("handle:alice".to_owned()), [true, true, false]),
        (Target::Workspace("external:ws:notes".to_owned()), [false, true, true]),
        (Target::Organization("org-of-notes".to_owned()), [false, true, true]),
    ] {
        let make = async || {
            [
                server.text_of(&alice.id, &[]).await,
                server.bound(&alice.id, &notes).await,
                server.bound(&boss.id, &notes).await,
            ]
        };
        let before = make().await;
        let answer = revoke(&server, &token, target).await.unwrap().into_inner();
        assert!(!answer.revision.is_empty());
        for (token, ended) in before.iter().zip(ended) {
            let answer = server.verify(token).await;
            assert_eq!(answer.active, !ended);
            assert!(!ended || answer.reason() == Reason::Revoked);
        }
        for token in make().await {
            assert!(server.verify(&token).await.active);
        }
    }
    for target in [
        Target::User("handle:nobody".to_owned()),
        Target::Workspace("external:org:notes".to_owned()),
        Target::Organization("nothing".to_owned()),
    ] {
        assert_eq!(refused(revoke(&server, &token, target).await), not_found());
    }
    // The caller's own is not spared.
    revoke(&server, &token, Target::User(boss.id.clone())).await.unwrap();
    assert_eq!(server.verify(&token).await.reason(), Reason::Revoked);
    let dead = (Code::Unauthenticated, "CALLER_TOKEN_REFUSED".to_owned());
    assert_eq!(refused(revoke(&server, &token, Target::All(true)).await), dead);
    revoke(&server, &server.admin, Target::All(true)).await.unwrap();
    assert_eq!(refused(revoke(&server, &server.admin, Target::All(true)).await), dead);
}

async fn administrators_alone_revoke_all_tokens_of_something(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (alice, boss) = (server.user("alice").await, server.administrator("boss").await);
    let notes = server.workspace("notes").await;
    create(&server, &server.admin, &alice.id, In::Organization("org-of-notes"), Owner)
        .await
        .unwrap();
    server.join(&boss.id, &notes, "owner").await;
    let callers = [
        (server.text_of(&alice.id, WRITE).await, no_role()),
        (server.text_of(&boss.id, &["write:tokens"]).await, no_scope()),
        (server.bound_with(&boss.id, &notes, WRITE).await, no_scope()),
    ];
    let kept = server.kept().await;
    for (token, expected) in callers {
        for target in [
            Target::User(alice.id.clone()),
            Target::Workspace(notes.clone()),
            Target::Organization("org-of-notes".to_owned()),
            Target::Organization("nothing".to_owned()),
            Target::All(true),
        ] {
            assert_eq!(refused(revoke(&server, &token, target).await), expected);
        }
    }
    assert_eq!(server.kept().await, kept);
}
