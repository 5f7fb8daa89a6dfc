use std::time::Duration;

use token_authority::proto::v1::{
    CreateMembershipRequest, CreateOrganizationRequest, CreatePersonalAccessTokenRequest,
    CreateWorkspaceRequest, DeleteMembershipRequest, GetPersonalAccessTokenRequest, GetUserRequest,
    ListAvailablePatScopesRequest, ListPersonalAccessTokensRequest, MembershipRole,
    MembershipUpsert, PersonalAccessToken, Reason, RevokePersonalAccessTokenRequest,
    RevokeTokensRequest, RotatePersonalAccessTokenRequest, SetMembershipsRequest, TokenState,
    UpdateMembershipRequest, UpdateOrganizationRequest, UpdatePersonalAccessTokenRequest,
    UpdateUserRequest, UpdateWorkspaceRequest, UpsertMembershipsRequest, VerifyRequest,
    WhoAmIRequest, WorkspaceCreatePatRequest, WorkspaceCreatePatResponse, WorkspaceListPatsRequest,
    WorkspaceListPatsResponse, WorkspaceRevokePatRequest, WorkspaceRevokePatResponse,
    WorkspaceUpdatePatRequest, WorkspaceUpdatePatResponse, create_membership_request,
    create_personal_access_token_request, delete_membership_request, membership_upsert,
    revoke_tokens_request::Target, update_membership_request, workspace_create_pat_request::Expiry,
};
use tonic::{Code, Response, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, exceeded, refused, wrong_fields},
};

on_both_stores![
    own_id_tells_a_stranger_of_no_workspace,
    each_role_makes_the_tokens_that_it_may,
    each_role_sees_the_tokens_that_it_may,
    each_role_changes_and_ends_the_tokens_that_it_may,
    role_is_judged_before_scopes,
    workspace_is_named_by_id_slug_or_external_id,
    workspace_that_is_not_there_is_told_alike_to_all_but_administrators,
    token_of_another_workspace_is_not_there,
    tokens_are_listed_newest_first_page_by_page,
    page_token_is_good_for_its_request_alone,
    revoked_tokens_are_listed_on_demand,
    token_of_a_workspace_says_where_it_belongs_and_inherits_the_rest,
    repeat_of_a_creation_gives_the_same_token,
    who_leaves_loses_his_tokens_for_good,
    who_becomes_a_guest_loses_his_tokens_for_good,
    promotion_leaves_tokens_as_they_are,
    suspension_refuses_tokens_until_it_is_over,
    tokens_of_a_workspace_and_of_an_organization_end_together,
    bound_token_reaches_nothing_beyond_its_workspace,
    bound_token_of_a_manager_reaches_others_in_its_workspace_alone,
    managers_grant_to_verify_and_to_issue_to_bound_tokens_alone,
    issuer_of_a_workspace_issues_to_its_members_alone,
    unknown_external_user_is_made_along_with_its_first_token,
    two_at_once_make_one_user,
    refused_creation_makes_no_user,
    unknown_external_user_is_made_by_administrators_alone_and_where_the_server_is_set_to,
    quota_counts_the_tokens_that_are_alive,
];

const SECOND: Duration = Duration::from_secs(1);
const UUID: &str = "0198c0de-0000-7000-8000-00000000000a";
const BOTH: [&str; 3] = ["read:tokens", "write:tokens", "read:*"];

/// An organization `acme` with workspaces `web` and `mail`, an organization `globex`
/// with another `web`, and who belongs to `acme`'s `web`.
struct World {
    server: TestServer,
    acme: String,
    web: String,
    mail: String,
    globex: String,
    owner: Person,
    admin: Person,
    member: Person,
    /// Another member.
    other: Person,
    guest: Person,
    stranger: Person,
    /// Owner of `acme`, and no member of `web`.
    keeper: Person,
    /// Administrator, and no member of anything.
    boss: Person,
}

/// A user with a token that reads and writes tokens, and reads everything.
struct Person {
    id: String,
    token: String,
}

const DENIED: (Code, &str) = (Code::PermissionDenied, "CALLER_ROLE");
const NO_SCOPE: (Code, &str) = (Code::PermissionDenied, "CALLER_SCOPE");
const NO_MEMBER: (Code, &str) = (Code::PermissionDenied, "NOT_A_MEMBER");
const UNKNOWN: (Code, &str) = (Code::NotFound, "");
const OK: (Code, &str) = (Code::Ok, "");

/// Code and reason, also of an answer.
fn told<T>(answer: Result<Response<T>, Status>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => refused::<T>(Err(status)),
    }
}

#[track_caller]
fn assert_told<T>(answer: Result<Response<T>, Status>, (code, reason): (Code, &str), who: &str) {
    assert_eq!(told(answer), (code, reason.to_owned()), "{who}");
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// A request for a token in `web` of `acme`.
fn new(name: &str) -> WorkspaceCreatePatRequest {
    WorkspaceCreatePatRequest {
        org: "acme".to_owned(),
        workspace: "web".to_owned(),
        name: name.to_owned(),
        ..Default::default()
    }
}

fn list() -> WorkspaceListPatsRequest {
    WorkspaceListPatsRequest {
        org: "acme".to_owned(),
        workspace: "web".to_owned(),
        ..Default::default()
    }
}

fn rename(id: &str) -> WorkspaceUpdatePatRequest {
    WorkspaceUpdatePatRequest {
        org: "acme".to_owned(),
        workspace: "web".to_owned(),
        id: id.to_owned(),
        name: Some("renamed".to_owned()),
        ..Default::default()
    }
}

fn revocation(id: &str) -> WorkspaceRevokePatRequest {
    WorkspaceRevokePatRequest {
        org: "acme".to_owned(),
        workspace: "web".to_owned(),
        id: id.to_owned(),
        include_descendants: false,
    }
}

fn id_of(created: &WorkspaceCreatePatResponse) -> String {
    created.personal_access_token.as_ref().unwrap().id.clone()
}

impl Person {
    async fn new(server: &TestServer, handle: &str) -> Self {
        let id = server.user(handle).await.id;
        let token = server.text_of(&id, &BOTH).await;
        Self { id, token }
    }
}

impl World {
    async fn new(engine: Engine) -> Self {
        Self::new_with(engine, &[]).await
    }

    async fn new_with(engine: Engine, more: &[&str]) -> Self {
        let server = TestServer::start_with(engine, more).await;
        let mut directory = server.directory(&server.admin);
        let mut organization = async |slug: &str| {
            let request = CreateOrganizationRequest {
                slug: slug.to_owned(),
                name: slug.to_owned(),
                external_id: Some(format!("crm:{slug}")),
                ..Default::default()
            };
            let made = directory.create_organization(request).await.unwrap();
            made.into_inner().organization.unwrap().id
        };
        let [acme, globex] = [organization("acme").await, organization("globex").await];
        let mut workspace = async |organization: &str, slug: &str, external: &str| {
            let request = CreateWorkspaceRequest {
                organization: organization.to_owned(),
                slug: slug.to_owned(),
                name: slug.to_owned(),
                external_id: Some(external.to_owned()),
                ..Default::default()
            };
            let made = directory.create_workspace(request).await.unwrap();
            made.into_inner().workspace.unwrap().id
        };
        let web = workspace(&acme, "web", "crm:web").await;
        let mail = workspace(&acme, "mail", "crm:mail").await;
        workspace(&globex, "web", "crm:web-of-globex").await;
        let boss = server.administrator("boss").await.id;
        let boss = Person { token: server.text_of(&boss, &["admin:all"]).await, id: boss };
        let world = Self {
            owner: Person::new(&server, "owner").await,
            admin: Person::new(&server, "admin-of-web").await,
            member: Person::new(&server, "member").await,
            other: Person::new(&server, "other").await,
            guest: Person::new(&server, "guest").await,
            stranger: Person::new(&server, "stranger").await,
            keeper: Person::new(&server, "keeper").await,
            boss,
            acme,
            web,
            mail,
            globex,
            server,
        };
        for (person, role) in [
            (&world.owner, MembershipRole::Owner),
            (&world.admin, MembershipRole::Admin),
            (&world.member, MembershipRole::Member),
            (&world.other, MembershipRole::Member),
            (&world.guest, MembershipRole::Guest),
        ] {
            world.join(person, &world.web, role).await;
        }
        let request = CreateMembershipRequest {
            user: world.keeper.id.clone(),
            container: Some(create_membership_request::Container::Organization(world.acme.clone())),
            role: MembershipRole::Owner.into(),
        };
        let mut directory = world.server.directory(&world.server.admin);
        directory.create_membership(request).await.unwrap();
        world
    }

    async fn join(&self, person: &Person, workspace: &str, role: MembershipRole) {
        let request = CreateMembershipRequest {
            user: person.id.clone(),
            container: Some(create_membership_request::Container::Workspace(workspace.to_owned())),
            role: role.into(),
        };
        self.server.directory(&self.server.admin).create_membership(request).await.unwrap();
    }

    async fn leave(&self, person: &Person, workspace: &str) {
        let request = DeleteMembershipRequest {
            user: person.id.clone(),
            container: Some(delete_membership_request::Container::Workspace(workspace.to_owned())),
        };
        self.server.directory(&self.server.admin).delete_membership(request).await.unwrap();
    }

    async fn set_role(&self, person: &Person, role: MembershipRole) {
        let request = UpdateMembershipRequest {
            user: person.id.clone(),
            container: Some(update_membership_request::Container::Workspace(self.web.clone())),
            role: Some(role.into()),
            ..Default::default()
        };
        self.server.directory(&self.server.admin).update_membership(request).await.unwrap();
    }

    async fn revoke_tokens(&self, target: Target) {
        let request = RevokeTokensRequest { target: Some(target), ..Default::default() };
        self.server.directory(&self.server.admin).revoke_tokens(request).await.unwrap();
    }

    async fn create(
        &self,
        token: &str,
        request: WorkspaceCreatePatRequest,
    ) -> Result<Response<WorkspaceCreatePatResponse>, Status> {
        self.server.tokens(token).workspace_create_pat(request).await
    }

    async fn create_ok(
        &self,
        token: &str,
        request: WorkspaceCreatePatRequest,
    ) -> WorkspaceCreatePatResponse {
        self.create(token, request).await.unwrap().into_inner()
    }

    /// A token in `web` that the administrator makes for a member.
    async fn bound(&self, person: &Person, scopes: &[&str]) -> WorkspaceCreatePatResponse {
        let request = WorkspaceCreatePatRequest {
            scopes: texts(scopes),
            user_id: Some(person.id.clone()),
            ..new("bound")
        };
        self.create_ok(&self.server.admin, request).await
    }

    async fn list(
        &self,
        token: &str,
        request: WorkspaceListPatsRequest,
    ) -> Result<Response<WorkspaceListPatsResponse>, Status> {
        self.server.tokens(token).workspace_list_pats(request).await
    }

    async fn listed(
        &self,
        token: &str,
        request: WorkspaceListPatsRequest,
    ) -> Vec<PersonalAccessToken> {
        let list = self.list(token, request).await.unwrap().into_inner();
        assert_eq!(list.next_page_token, "");
        list.personal_access_tokens
    }

    /// Ids of what is listed.
    async fn ids(&self, token: &str, request: WorkspaceListPatsRequest) -> Vec<String> {
        self.listed(token, request).await.into_iter().map(|token| token.id).collect()
    }

    async fn update(
        &self,
        token: &str,
        request: WorkspaceUpdatePatRequest,
    ) -> Result<Response<WorkspaceUpdatePatResponse>, Status> {
        self.server.tokens(token).workspace_update_pat(request).await
    }

    async fn revoke(
        &self,
        token: &str,
        request: WorkspaceRevokePatRequest,
    ) -> Result<Response<WorkspaceRevokePatResponse>, Status> {
        self.server.tokens(token).workspace_revoke_pat(request).await
    }

    async fn reason(&self, token: &str) -> Reason {
        self.server.verify(token).await.reason()
    }

    /// As whom each role calls, by its name.
    fn everybody(&self) -> [(&'static str, &Person); 7] {
        [
            ("owner", &self.owner),
            ("admin", &self.admin),
            ("member", &self.member),
            ("guest", &self.guest),
            ("stranger", &self.stranger),
            ("keeper", &self.keeper),
            ("boss", &self.boss),
        ]
    }
}

fn manages(who: &str) -> bool {
    ["owner", "admin", "keeper", "boss"].contains(&who)
}

fn holds_tokens(who: &str) -> bool {
    ["owner", "admin", "member"].contains(&who)
}

async fn each_role_makes_the_tokens_that_it_may(engine: Engine) {
    let world = World::new(engine).await;
    let administrator = world.server.administrator("root2").await;
    let administrator = Person { id: administrator.id, token: String::new() };
    world.join(&administrator, &world.web, MembershipRole::Member).await;
    let own = |person: &Person| [None, Some(person.id.clone())];
    for (who, person) in world.everybody() {
        for user_id in own(person) {
            let expected = if holds_tokens(who) { OK } else { DENIED };
            let request = WorkspaceCreatePatRequest { user_id, ..new("own") };
            let kept = world.server.kept().await;
            let created = world.create(&person.token, request).await;
            if let Ok(created) = &created {
                let token = created.get_ref().personal_access_token.as_ref().unwrap();
                assert_eq!(token.user_id, person.id);
            }
            assert_told(created, expected, who);
            assert!(expected == OK || world.server.kept().await == kept, "{who}");
        }
        for (owner, to_managers, to_boss) in [
            (&*world.other.id, OK, OK),
            ("handle:other", OK, OK),
            (&world.stranger.id, NO_MEMBER, NO_MEMBER),
            (&world.guest.id, NO_MEMBER, NO_MEMBER),
            (&world.boss.id, NO_MEMBER, DENIED),
            ("handle:nobody", NO_MEMBER, UNKNOWN),
            ("external:nobody", NO_MEMBER, UNKNOWN),
            // Only who administers makes what acts as an administrator.
            (&administrator.id, DENIED, OK),
        ] {
            if owner == person.id {
                continue;
            }
            let expected = match who {
                "boss" => to_boss,
                _ if manages(who) => to_managers,
                _ => DENIED,
            };
            let request =
                WorkspaceCreatePatRequest { user_id: Some(owner.to_owned()), ..new("others") };
            let created = world.create(&person.token, request).await;
            assert_told(created, expected, &format!("{who} for {owner}"));
        }
    }
}

async fn each_role_sees_the_tokens_that_it_may(engine: Engine) {
    let world = World::new(engine).await;
    let mut expected = Vec::new();
    for person in [&world.owner, &world.admin, &world.member, &world.other] {
        world.server.clock.advance(SECOND);
        expected.insert(0, id_of(&world.bound(person, &[]).await));
    }
    for (who, person) in world.everybody() {
        let own = [&world.owner, &world.admin, &world.member, &world.other];
        let own = own.iter().rev().position(|it| it.id == person.id).map(|at| &expected[at]);
        if manages(who) {
            assert_eq!(world.ids(&person.token, list()).await, expected, "{who}");
        } else if let Some(own) = own {
            assert_eq!(world.ids(&person.token, list()).await, [own.as_str()], "{who}");
        } else {
            assert_told(world.list(&person.token, list()).await, DENIED, who);
        }
        if let Some(own) = own {
            let request = WorkspaceListPatsRequest { user_id: Some(person.id.clone()), ..list() };
            assert_eq!(world.ids(&person.token, request).await, [own.as_str()], "{who}");
        }
        for (of, to_managers, to_boss) in [
            (&*world.other.id, OK, OK),
            ("handle:other", OK, OK),
            // Who there is beside the members is for administrators to know.
            (&world.stranger.id, UNKNOWN, OK),
            ("handle:nobody", UNKNOWN, UNKNOWN),
        ] {
            if of == person.id {
                continue;
            }
            let request = WorkspaceListPatsRequest { user_id: Some(of.to_owned()), ..list() };
            let answer = world.list(&person.token, request).await;
            let expected = match who {
                "boss" => to_boss,
                _ if manages(who) => to_managers,
                _ => DENIED,
            };
            assert_told(answer, expected, &format!("{who} of {of}"));
        }
    }
    let request = WorkspaceListPatsRequest { user_id: Some(world.other.id.clone()), ..list() };
    assert_eq!(world.ids(&world.owner.token, request).await, [expected[0].clone()]);
}

async fn each_role_changes_and_ends_the_tokens_that_it_may(engine: Engine) {
    let world = World::new(engine).await;
    for (who, person) in world.everybody() {
        let others = world.bound(&world.other, &[]).await;
        let id = id_of(&others);
        let expected = match who {
            _ if manages(who) => OK,
            "member" => UNKNOWN,
            _ => DENIED,
        };
        let kept = world.server.kept().await;
        let updated = world.update(&person.token, rename(&id)).await;
        if let Ok(updated) = &updated {
            let token = updated.get_ref().personal_access_token.as_ref().unwrap();
            assert_eq!((&*token.name, &token.user_id), ("renamed", &world.other.id));
        }
        assert_told(updated, expected, who);
        let again = world.revoke(&person.token, revocation(&id)).await;
        assert_told(again, expected, who);
        if expected == OK {
            // To repeat it succeeds; to change it is too late.
            assert_told(world.revoke(&person.token, revocation(&id)).await, OK, who);
            let late = (Code::FailedPrecondition, "TOKEN_REVOKED");
            assert_told(world.update(&person.token, rename(&id)).await, late, who);
            assert_eq!(world.reason(&others.token).await, Reason::Revoked);
        } else {
            assert_eq!(world.server.kept().await, kept, "{who}");
            assert!(world.server.verify(&others.token).await.active);
        }
        if holds_tokens(who) {
            let own = world.bound(person, &[]).await;
            assert_told(world.update(&person.token, rename(&id_of(&own))).await, OK, who);
            // A token may end itself without any scope.
            assert_told(world.revoke(&own.token, revocation(&id_of(&own))).await, OK, who);
            assert_eq!(world.reason(&own.token).await, Reason::Revoked);
        }
    }
}

async fn role_is_judged_before_scopes(engine: Engine) {
    let world = World::new(engine).await;
    let id = id_of(&world.bound(&world.other, &[]).await);
    for (who, person) in world.everybody() {
        let is_there = manages(who) || holds_tokens(who);
        let token = world.server.text_of(&person.id, &["read:notes"]).await;
        let expected = if is_there { NO_SCOPE } else { DENIED };
        assert_told(world.list(&token, list()).await, expected, who);
        assert_told(world.update(&token, rename(&id)).await, expected, who);
        assert_told(world.revoke(&token, revocation(&id)).await, expected, who);
        let expected = if holds_tokens(who) { NO_SCOPE } else { DENIED };
        assert_told(world.create(&token, new("own")).await, expected, who);
        let expected = if manages(who) { NO_SCOPE } else { DENIED };
        let request =
            WorkspaceCreatePatRequest { user_id: Some(world.other.id.clone()), ..new("others") };
        assert_told(world.create(&token, request).await, expected, who);
    }
    let reader = world.server.text_of(&world.owner.id, &["read:tokens"]).await;
    assert_eq!(world.ids(&reader, list()).await, [id.as_str()]);
    assert_told(world.update(&reader, rename(&id)).await, NO_SCOPE, "reader");
    let writer = world.server.text_of(&world.owner.id, &["write:tokens"]).await;
    assert_told(world.list(&writer, list()).await, NO_SCOPE, "writer");
    world.update(&writer, rename(&id)).await.unwrap();
}

async fn workspace_is_named_by_id_slug_or_external_id(engine: Engine) {
    let world = World::new(engine).await;
    let token = &world.member.token;
    let mut made = Vec::new();
    for org in [&*world.acme, "acme", "external:crm:acme"] {
        for workspace in [&*world.web, "web", "external:crm:web"] {
            world.server.clock.advance(SECOND);
            let [org, workspace] = [org.to_owned(), workspace.to_owned()];
            let request = WorkspaceCreatePatRequest {
                org: org.clone(),
                workspace: workspace.clone(),
                ..new("x")
            };
            let id = id_of(&world.create_ok(token, request).await);
            made.insert(0, id.clone());
            let request = WorkspaceListPatsRequest {
                org: org.clone(),
                workspace: workspace.clone(),
                ..list()
            };
            assert_eq!(world.ids(token, request).await, made);
            let request = WorkspaceUpdatePatRequest {
                org: org.clone(),
                workspace: workspace.clone(),
                ..rename(&id)
            };
            world.update(token, request).await.unwrap();
            let request = WorkspaceRevokePatRequest { org, workspace, ..revocation(&id) };
            world.revoke(token, request).await.unwrap();
            made.remove(0);
        }
    }
    for (org, workspace, fields) in [
        ("", "web", &["org"][..]),
        ("acme", "", &["workspace"]),
        ("Not a slug", "external:", &["org", "workspace"]),
        ("handle:acme", "web", &["org"]),
    ] {
        let [org, workspace] = [org.to_owned(), workspace.to_owned()];
        let request = WorkspaceCreatePatRequest {
            org: org.clone(),
            workspace: workspace.clone(),
            ..new("x")
        };
        assert_eq!(wrong_fields(world.create(token, request).await), fields);
        let request =
            WorkspaceListPatsRequest { org: org.clone(), workspace: workspace.clone(), ..list() };
        assert_eq!(wrong_fields(world.list(token, request).await), fields);
        let request = WorkspaceUpdatePatRequest {
            org: org.clone(),
            workspace: workspace.clone(),
            ..rename(UUID)
        };
        assert_eq!(wrong_fields(world.update(token, request).await), fields);
        let request = WorkspaceRevokePatRequest { org, workspace, ..revocation(UUID) };
        assert_eq!(wrong_fields(world.revoke(token, request).await), fields);
    }
}

async fn workspace_that_is_not_there_is_told_alike_to_all_but_administrators(engine: Engine) {
    let world = World::new(engine).await;
    let id = id_of(&world.bound(&world.owner, &[]).await);
    for (org, workspace) in [
        ("globex", &*world.web),
        (&*world.globex, "external:crm:web"),
        ("acme", "nothing"),
        ("acme", UUID),
        ("nothing", "web"),
        (UUID, &*world.web),
        ("acme", "external:crm:web-of-globex"),
    ] {
        for (who, expected) in [
            (&world.owner, DENIED),
            (&world.keeper, DENIED),
            (&world.stranger, DENIED),
            (&world.boss, UNKNOWN),
        ] {
            let [org, workspace] = [org.to_owned(), workspace.to_owned()];
            let which = format!("{org}/{workspace}");
            let kept = world.server.kept().await;
            let request = WorkspaceCreatePatRequest {
                org: org.clone(),
                workspace: workspace.clone(),
                user_id: Some(world.other.id.clone()),
                ..new("x")
            };
            assert_told(world.create(&who.token, request).await, expected, &which);
            let request = WorkspaceListPatsRequest {
                org: org.clone(),
                workspace: workspace.clone(),
                ..list()
            };
            assert_told(world.list(&who.token, request).await, expected, &which);
            let request = WorkspaceUpdatePatRequest {
                org: org.clone(),
                workspace: workspace.clone(),
                ..rename(&id)
            };
            assert_told(world.update(&who.token, request).await, expected, &which);
            let request = WorkspaceRevokePatRequest { org, workspace, ..revocation(&id) };
            assert_told(world.revoke(&who.token, request).await, expected, &which);
            assert_eq!(world.server.kept().await, kept);
        }
    }
    // The same slug elsewhere is another workspace.
    let request = WorkspaceListPatsRequest { org: "globex".to_owned(), ..list() };
    assert_told(world.list(&world.owner.token, request.clone()).await, DENIED, "owner");
    assert!(world.ids(&world.boss.token, request).await.is_empty());
}

async fn token_of_another_workspace_is_not_there(engine: Engine) {
    let world = World::new(engine).await;
    world.join(&world.owner, &world.mail, MembershipRole::Owner).await;
    let request = WorkspaceCreatePatRequest { workspace: "mail".to_owned(), ..new("x") };
    let elsewhere = world.create_ok(&world.owner.token, request).await;
    let unbound = world.server.token_of(&world.owner.id, &[]).await;
    let unbound = unbound.personal_access_token.unwrap().id;
    let kept = world.server.kept().await;
    for id in [&id_of(&elsewhere), &unbound, UUID, "x", "a\0b"] {
        for who in [&world.owner, &world.keeper, &world.boss, &world.member] {
            assert_told(world.update(&who.token, rename(id)).await, UNKNOWN, id);
            assert_told(world.revoke(&who.token, revocation(id)).await, UNKNOWN, id);
        }
    }
    assert_eq!(world.server.kept().await, kept);
    let fields = wrong_fields(world.update(&world.owner.token, rename("")).await);
    assert_eq!(fields, ["id"]);
    assert_eq!(wrong_fields(world.revoke(&world.owner.token, revocation("")).await), ["id"]);
    assert!(world.ids(&world.owner.token, list()).await.is_empty());
    let request = WorkspaceListPatsRequest { workspace: "mail".to_owned(), ..list() };
    assert_eq!(world.ids(&world.owner.token, request).await, [id_of(&elsewhere)]);
}

async fn tokens_are_listed_newest_first_page_by_page(engine: Engine) {
    let world = World::new(engine).await;
    let mut expected = Vec::new();
    for at in 0..7 {
        // Some at once, and of two in turn.
        if at % 3 == 0 {
            world.server.clock.advance(SECOND);
        }
        let who = [&world.member, &world.other][at % 2];
        expected.push(world.bound(who, &[]).await.personal_access_token.unwrap());
    }
    let age = |token: &PersonalAccessToken| {
        std::cmp::Reverse((token.created_at.unwrap().seconds, token.id.clone()))
    };
    expected.sort_by_key(age);
    let of = |person: &Person| -> Vec<_> {
        expected.iter().filter(|token| token.user_id == person.id).cloned().collect()
    };
    let user_id = Some(world.other.id.clone());
    let of_other = WorkspaceListPatsRequest { user_id, ..list() };
    for (caller, request, expected) in [
        (&world.owner, list(), expected.clone()),
        (&world.member, list(), of(&world.member)),
        (&world.owner, of_other, of(&world.other)),
    ] {
        let all = world.listed(&caller.token, request.clone()).await;
        assert_eq!(all, expected);
        for page_size in [1, 2, 3, 7] {
            let mut request = WorkspaceListPatsRequest { page_size, ..request.clone() };
            let mut found = Vec::new();
            loop {
                let page = world.list(&caller.token, request.clone()).await.unwrap().into_inner();
                assert!(page.personal_access_tokens.len() <= usize::try_from(page_size).unwrap());
                found.extend(page.personal_access_tokens);
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            assert_eq!(found, expected);
        }
    }
    let request = WorkspaceListPatsRequest { page_size: -1, ..list() };
    assert_eq!(wrong_fields(world.list(&world.owner.token, request).await), ["page_size"]);
}

async fn page_token_is_good_for_its_request_alone(engine: Engine) {
    let world = World::new(engine).await;
    world.join(&world.owner, &world.mail, MembershipRole::Owner).await;
    for _ in 0..3 {
        world.bound(&world.owner, &[]).await;
    }
    let request = WorkspaceListPatsRequest { page_size: 2, ..list() };
    let token = &world.owner.token;
    let page = world.list(token, request.clone()).await.unwrap().into_inner();
    let again = WorkspaceListPatsRequest { page_token: page.next_page_token, ..request };
    assert_eq!(world.ids(token, again.clone()).await.len(), 1);
    let larger = WorkspaceListPatsRequest { page_size: 3, ..again.clone() };
    assert_eq!(world.ids(token, larger).await.len(), 1);
    for other in [
        WorkspaceListPatsRequest { show_revoked: true, ..again.clone() },
        WorkspaceListPatsRequest { user_id: Some(world.owner.id.clone()), ..again.clone() },
        WorkspaceListPatsRequest { workspace: "mail".to_owned(), ..again.clone() },
        WorkspaceListPatsRequest { page_token: "x".to_owned(), ..again.clone() },
    ] {
        assert_eq!(wrong_fields(world.list(token, other).await), ["page_token"]);
    }
    let request =
        ListPersonalAccessTokensRequest { page_token: again.page_token, ..Default::default() };
    let answer = world.server.tokens(token).list_personal_access_tokens(request).await;
    assert_eq!(wrong_fields(answer), ["page_token"]);
}

async fn revoked_tokens_are_listed_on_demand(engine: Engine) {
    let world = World::new(engine).await;
    let [gone, of_guest, revoked, stays] = [
        world.bound(&world.other, &[]).await,
        world.bound(&world.member, &[]).await,
        world.bound(&world.admin, &[]).await,
        world.bound(&world.owner, &[]).await,
    ]
    .map(|it| id_of(&it));
    let request =
        WorkspaceCreatePatRequest { expiry: Some(Expiry::Ttl(seconds(1))), ..new("short") };
    let expired = id_of(&world.create_ok(&world.owner.token, request).await);
    world.revoke(&world.owner.token, revocation(&revoked)).await.unwrap();
    world.leave(&world.other, &world.web).await;
    world.set_role(&world.member, MembershipRole::Guest).await;
    world.server.clock.advance(SECOND);

    let show = |show_revoked| WorkspaceListPatsRequest { show_revoked, ..list() };
    let mut listed = world.ids(&world.owner.token, show(false)).await;
    listed.sort();
    let mut expected = vec![expired.clone(), stays.clone()];
    expected.sort();
    assert_eq!(listed, expected, "expired ones stay");
    let all = world.listed(&world.owner.token, show(true)).await;
    assert_eq!(all.len(), 5);
    for token in all {
        let (state, at_its_name) = match &token.id {
            id if *id == expired => (TokenState::Expired, false),
            id if *id == stays => (TokenState::Active, false),
            id if *id == revoked => (TokenState::Revoked, true),
            id => {
                assert!([&gone, &of_guest].contains(&id));
                (TokenState::Revoked, false)
            }
        };
        assert_eq!((token.state(), token.revoked_at.is_some()), (state, at_its_name));
    }
    let user_id = Some(world.other.id.clone());
    let request = WorkspaceListPatsRequest { user_id, ..show(true) };
    // Who is there beside the members is not for their managers to know.
    assert_told(world.list(&world.owner.token, request.clone()).await, UNKNOWN, "owner");
    assert_eq!(world.ids(&world.boss.token, request).await, [gone]);
}

async fn token_of_a_workspace_says_where_it_belongs_and_inherits_the_rest(engine: Engine) {
    let world = World::new(engine).await;
    let minute = world.server.after(Duration::from_mins(1));
    let limited = CreatePersonalAccessTokenRequest {
        name: "limited".to_owned(),
        scopes: texts(&["write:tokens", "read:tokens", "read:notes"]),
        user_id: Some(world.member.id.clone()),
        allowed_ips: texts(&["127.0.0.0/8"]),
        expiry: Some(create_personal_access_token_request::Expiry::ExpiresAt(minute)),
        ..Default::default()
    };
    for workspace_id in [None, Some(world.web.clone())] {
        let limited = CreatePersonalAccessTokenRequest { workspace_id, ..limited.clone() };
        let mut admin = world.server.tokens(&world.server.admin);
        let limited = admin.create_personal_access_token(limited).await.unwrap().into_inner();
        let caller = &limited.token;
        let request = WorkspaceCreatePatRequest {
            description: Some("for CI".to_owned()),
            scopes: texts(&["read:notes"]),
            ..new("made")
        };
        let created = world.create_ok(caller, request.clone()).await;
        assert!(!created.revision.is_empty() && !created.already_used);
        let token = created.personal_access_token.unwrap();
        assert_eq!((&*token.name, &*token.description), ("made", "for CI"));
        assert_eq!(token.workspace_id.as_ref(), Some(&world.web));
        assert_eq!(token.organization_id.as_ref(), Some(&world.acme));
        assert_eq!((&token.user_id, &token.scopes), (&world.member.id, &texts(&["read:notes"])));
        assert_eq!(token.expires_at, Some(minute));
        assert_eq!(token.allowed_ips, ["127.0.0.0/8"]);
        let made_with = limited.personal_access_token.unwrap().id;
        assert_eq!(token.created_by_token_id, Some(made_with));
        assert!(world.listed(caller, list()).await.contains(&token));

        for (beyond, field) in [
            (WorkspaceCreatePatRequest { scopes: texts(&["read:*"]), ..request.clone() }, "scopes"),
            (
                WorkspaceCreatePatRequest {
                    expiry: Some(Expiry::Ttl(seconds(61))),
                    ..request.clone()
                },
                "ttl",
            ),
            (
                WorkspaceCreatePatRequest {
                    expiry: Some(Expiry::ExpiresAt(
                        world.server.after(Duration::from_millis(60_001)),
                    )),
                    ..request.clone()
                },
                "expires_at",
            ),
            (
                WorkspaceCreatePatRequest { allowed_ips: texts(&["0.0.0.0/0"]), ..request.clone() },
                "allowed_ips",
            ),
        ] {
            assert_eq!(exceeded(world.create(caller, beyond).await), field);
        }
    }
    let wrong = WorkspaceCreatePatRequest {
        name: " ".to_owned(),
        allowed_ips: texts(&["nowhere"]),
        request_id: Some("x".to_owned()),
        ..new("")
    };
    let fields = wrong_fields(world.create(&world.member.token, wrong).await);
    assert_eq!(fields, ["name", "allowed_ips[0]", "request_id"]);
}

async fn repeat_of_a_creation_gives_the_same_token(engine: Engine) {
    let world = World::new(engine).await;
    let request = WorkspaceCreatePatRequest { request_id: Some(UUID.to_owned()), ..new("again") };
    let token = &world.member.token;
    let first = world.create_ok(token, request.clone()).await;
    let second = world.create_ok(token, request.clone()).await;
    assert_eq!(id_of(&second), id_of(&first));
    assert!(!second.already_used && second.token != first.token);
    assert_eq!(world.reason(&first.token).await, Reason::NotFound);
    assert!(world.server.verify(&second.token).await.active);
    let third = world.create_ok(token, request.clone()).await;
    assert!(third.already_used && third.token.is_empty());
    assert_eq!(id_of(&third), id_of(&first));
    assert_eq!(world.ids(token, list()).await, [id_of(&first)]);

    let reused = (Code::AlreadyExists, "REQUEST_ID_REUSED");
    for other in [
        WorkspaceCreatePatRequest { name: "other".to_owned(), ..request.clone() },
        WorkspaceCreatePatRequest { workspace: world.web.clone(), ..request.clone() },
    ] {
        assert_told(world.create(token, other).await, reused, "another body");
    }
    // Another RPC is another request, whatever it says.
    let plain = CreatePersonalAccessTokenRequest {
        name: request.name.clone(),
        request_id: request.request_id.clone(),
        ..Default::default()
    };
    let answer = world.server.tokens(token).create_personal_access_token(plain).await;
    assert_told(answer, reused, "another RPC");
    // Each caller has request ids of its own.
    let others = world.create_ok(&world.other.token, request).await;
    assert_ne!(id_of(&others), id_of(&first));
}

async fn who_leaves_loses_his_tokens_for_good(engine: Engine) {
    let world = World::new(engine).await;
    let web = || Some(delete_membership_request::Container::Workspace(world.web.clone()));
    let mut directory = world.server.directory(&world.server.admin);
    for way in ["delete", "set", "set in the organization"] {
        let unbound = &world.member.token;
        let bound = world.bound(&world.member, &BOTH).await;
        let others = world.bound(&world.other, &[]).await;
        assert!(world.server.verify(&bound.token).await.active);
        let set = SetMembershipsRequest { user: world.member.id.clone(), ..Default::default() };
        match way {
            "delete" => {
                let user = world.member.id.clone();
                let request = DeleteMembershipRequest { user, container: web() };
                directory.delete_membership(request).await.unwrap();
            }
            "set" => {
                directory.set_memberships(set).await.unwrap();
            }
            _ => {
                let organization = Some("acme".to_owned());
                let request = SetMembershipsRequest { organization, ..set };
                directory.set_memberships(request).await.unwrap();
            }
        }
        assert_eq!(world.reason(&bound.token).await, Reason::Revoked, "{way}");
        let who_am_i = world.server.verification(&bound.token).who_am_i(WhoAmIRequest {}).await;
        assert_told(who_am_i, (Code::Unauthenticated, "CALLER_TOKEN_REFUSED"), way);
        assert_told(world.create(unbound, new("x")).await, DENIED, way);
        assert!(world.server.verify(unbound).await.active, "it was not bound");
        assert!(world.server.verify(&others.token).await.active, "it is another's");

        world.join(&world.member, &world.web, MembershipRole::Member).await;
        assert_eq!(world.reason(&bound.token).await, Reason::Revoked, "{way}");
        let rotation = RotatePersonalAccessTokenRequest { id: id_of(&bound), ..Default::default() };
        let answer = world.server.tokens(unbound).rotate_personal_access_token(rotation).await;
        assert_told(answer, (Code::FailedPrecondition, "TOKEN_REVOKED"), way);
        let back = world.create_ok(unbound, new("back")).await;
        assert!(world.server.verify(&back.token).await.active);
    }
}

async fn who_becomes_a_guest_loses_his_tokens_for_good(engine: Engine) {
    let world = World::new(engine).await;
    let mut directory = world.server.directory(&world.server.admin);
    for way in ["update", "upsert"] {
        let bound = world.bound(&world.member, &[]).await;
        match way {
            "update" => world.set_role(&world.member, MembershipRole::Guest).await,
            _ => {
                let membership = MembershipUpsert {
                    user: world.member.id.clone(),
                    container: Some(membership_upsert::Container::Workspace(world.web.clone())),
                    role: MembershipRole::Guest.into(),
                };
                let request = UpsertMembershipsRequest { memberships: vec![membership] };
                directory.upsert_memberships(request).await.unwrap();
            }
        }
        assert_eq!(world.reason(&bound.token).await, Reason::Revoked, "{way}");
        assert_told(world.create(&world.member.token, new("x")).await, DENIED, way);
        let user_id = Some(world.member.id.clone());
        let request = WorkspaceCreatePatRequest { user_id, ..new("x") };
        assert_told(world.create(&world.owner.token, request).await, NO_MEMBER, way);

        world.set_role(&world.member, MembershipRole::Member).await;
        assert_eq!(world.reason(&bound.token).await, Reason::Revoked, "{way}");
        let back = world.create_ok(&world.member.token, new("back")).await;
        assert!(world.server.verify(&back.token).await.active);
    }
}

async fn promotion_leaves_tokens_as_they_are(engine: Engine) {
    let world = World::new(engine).await;
    let own = world.bound(&world.member, &BOTH).await;
    let others = id_of(&world.bound(&world.other, &[]).await);
    assert_told(world.update(&own.token, rename(&others)).await, UNKNOWN, "member");
    for role in [MembershipRole::Admin, MembershipRole::Owner] {
        world.set_role(&world.member, role).await;
        assert!(world.server.verify(&own.token).await.active);
        world.update(&own.token, rename(&others)).await.unwrap();
    }
    world.set_role(&world.member, MembershipRole::Member).await;
    assert!(world.server.verify(&own.token).await.active);
    assert_told(world.update(&own.token, rename(&others)).await, UNKNOWN, "member");
}

async fn suspension_refuses_tokens_until_it_is_over(engine: Engine) {
    let world = World::new(engine).await;
    let mut directory = world.server.directory(&world.server.admin);
    for (what, reason) in [
        ("workspace", Reason::WorkspaceInactive),
        ("organization", Reason::WorkspaceInactive),
        ("user", Reason::OwnerInactive),
    ] {
        let bound = world.bound(&world.member, &BOTH).await;
        let ended = world.bound(&world.member, &[]).await;
        let mut set_active = async |is_active| {
            let is_active = Some(is_active);
            match what {
                "workspace" => {
                    let workspace = world.web.clone();
                    let request =
                        UpdateWorkspaceRequest { workspace, is_active, ..Default::default() };
                    directory.update_workspace(request).await.unwrap();
                }
                "organization" => {
                    let organization = "acme".to_owned();
                    let request =
                        UpdateOrganizationRequest { organization, is_active, ..Default::default() };
                    directory.update_organization(request).await.unwrap();
                }
                _ => {
                    let user = world.member.id.clone();
                    let request = UpdateUserRequest { user, is_active, ..Default::default() };
                    directory.update_user(request).await.unwrap();
                }
            }
        };
        set_active(false).await;
        assert_eq!(world.reason(&bound.token).await, reason, "{what}");
        let who_am_i = world.server.verification(&bound.token).who_am_i(WhoAmIRequest {}).await;
        assert_told(who_am_i, (Code::Unauthenticated, "CALLER_TOKEN_REFUSED"), what);
        let is_of_user = what == "user";
        let unbound = world.server.verify(&world.member.token).await;
        assert_eq!(unbound.active, !is_of_user, "{what}");
        // None is made meanwhile, but to end one is never too late.
        let user_id = Some(world.member.id.clone());
        let request = WorkspaceCreatePatRequest { user_id, ..new("x") };
        let name = if is_of_user { "USER_INACTIVE" } else { "WORKSPACE_INACTIVE" };
        let inactive = (Code::FailedPrecondition, name);
        assert_told(world.create(&world.owner.token, request).await, inactive, what);
        world.revoke(&world.owner.token, revocation(&id_of(&ended))).await.unwrap();

        set_active(true).await;
        assert!(world.server.verify(&bound.token).await.active, "{what}");
        assert_eq!(world.reason(&ended.token).await, Reason::Revoked, "{what}");
        world.create_ok(&bound.token, new("x")).await;
    }
}

async fn tokens_of_a_workspace_and_of_an_organization_end_together(engine: Engine) {
    let world = World::new(engine).await;
    world.join(&world.member, &world.mail, MembershipRole::Member).await;
    for (target, ends_mail) in
        [(Target::Workspace(world.web.clone()), false), (Target::Organization("acme".into()), true)]
    {
        let in_web = world.bound(&world.member, &[]).await;
        let request = WorkspaceCreatePatRequest { workspace: "mail".to_owned(), ..new("x") };
        let in_mail = world.create_ok(&world.member.token, request).await;
        world.revoke_tokens(target).await;
        assert_eq!(world.reason(&in_web.token).await, Reason::Revoked);
        assert_eq!(world.server.verify(&in_mail.token).await.active, !ends_mail);
        assert!(world.server.verify(&world.member.token).await.active, "it was not bound");
        let later = world.create_ok(&world.member.token, new("later")).await;
        assert!(world.server.verify(&later.token).await.active);
    }
}

async fn bound_token_reaches_nothing_beyond_its_workspace(engine: Engine) {
    let world = World::new(engine).await;
    world.join(&world.owner, &world.mail, MembershipRole::Owner).await;
    let unbound = world.server.token_of(&world.owner.id, &BOTH).await;
    let unbound = unbound.personal_access_token.unwrap().id;
    let bound = world.bound(&world.owner, &["read:tokens", "write:tokens", "read:notes"]).await;
    let second = id_of(&world.bound(&world.owner, &["read:notes"]).await);
    let mut client = world.server.tokens(&bound.token);

    let who_am_i = world.server.verification(&bound.token).who_am_i(WhoAmIRequest {}).await;
    let who_am_i = who_am_i.unwrap().into_inner();
    assert_eq!(
        (who_am_i.token_id, who_am_i.workspace_id),
        (id_of(&bound), Some(world.web.clone()))
    );

    let mut listed: Vec<_> = client
        .list_personal_access_tokens(ListPersonalAccessTokensRequest::default())
        .await
        .unwrap()
        .into_inner()
        .personal_access_tokens
        .into_iter()
        .map(|token| token.id)
        .collect();
    listed.sort();
    let mut expected = vec![id_of(&bound), second.clone()];
    expected.sort();
    assert_eq!(listed, expected);
    for (id, expected) in [(&unbound, UNKNOWN), (&second, OK)] {
        let request = GetPersonalAccessTokenRequest { id: id.clone() };
        assert_told(client.get_personal_access_token(request).await, expected, "get");
        let request = UpdatePersonalAccessTokenRequest {
            id: id.clone(),
            name: Some("renamed".to_owned()),
            ..Default::default()
        };
        assert_told(client.update_personal_access_token(request).await, expected, "update");
        let request = RotatePersonalAccessTokenRequest { id: id.clone(), ..Default::default() };
        assert_told(client.rotate_personal_access_token(request).await, expected, "rotate");
        for include_descendants in [false, true] {
            let request = RevokePersonalAccessTokenRequest { id: id.clone(), include_descendants };
            assert_told(client.revoke_personal_access_token(request).await, expected, "revoke");
        }
    }
    let request = CreatePersonalAccessTokenRequest { name: "x".to_owned(), ..Default::default() };
    let made = client.create_personal_access_token(request.clone()).await.unwrap().into_inner();
    assert_eq!(made.personal_access_token.unwrap().workspace_id, Some(world.web.clone()));
    let request =
        CreatePersonalAccessTokenRequest { workspace_id: Some(world.mail.clone()), ..request };
    assert_eq!(exceeded(client.create_personal_access_token(request).await), "workspace_id");

    // Of another workspace it learns nothing, not even whether there is one.
    for (org, workspace) in [("acme", "mail"), ("acme", "nothing"), ("globex", "web")] {
        let [org, workspace] = [org.to_owned(), workspace.to_owned()];
        let request = WorkspaceCreatePatRequest {
            org: org.clone(),
            workspace: workspace.clone(),
            ..new("x")
        };
        assert_told(world.create(&bound.token, request).await, NO_SCOPE, &workspace);
        let request =
            WorkspaceListPatsRequest { org: org.clone(), workspace: workspace.clone(), ..list() };
        assert_told(world.list(&bound.token, request).await, NO_SCOPE, &workspace);
        let request = WorkspaceUpdatePatRequest {
            org: org.clone(),
            workspace: workspace.clone(),
            ..rename(&unbound)
        };
        assert_told(world.update(&bound.token, request).await, NO_SCOPE, &workspace);
        for id in [&unbound, &id_of(&bound)] {
            let [org, workspace] = [org.clone(), workspace.clone()];
            let request = WorkspaceRevokePatRequest { org, workspace, ..revocation(id) };
            assert_told(world.revoke(&bound.token, request).await, NO_SCOPE, id);
        }
    }
    let request = RotatePersonalAccessTokenRequest { id: id_of(&bound), ..Default::default() };
    client.rotate_personal_access_token(request).await.unwrap();
    let request =
        RevokePersonalAccessTokenRequest { id: id_of(&bound), include_descendants: false };
    client.revoke_personal_access_token(request).await.unwrap();
    assert_eq!(world.reason(&bound.token).await, Reason::Revoked);
}

async fn bound_token_of_a_manager_reaches_others_in_its_workspace_alone(engine: Engine) {
    let world = World::new(engine).await;
    world.join(&world.owner, &world.mail, MembershipRole::Owner).await;
    world.join(&world.other, &world.mail, MembershipRole::Member).await;
    let manager = world.bound(&world.owner, &BOTH).await.token;
    let others = world.bound(&world.other, &[]).await;
    let request = WorkspaceCreatePatRequest {
        workspace: "mail".to_owned(),
        user_id: Some(world.other.id.clone()),
        ..new("x")
    };
    let elsewhere = id_of(&world.create_ok(&world.owner.token, request).await);
    world.update(&manager, rename(&id_of(&others))).await.unwrap();
    assert_told(world.update(&manager, rename(&elsewhere)).await, UNKNOWN, "in mail");
    assert!(world.ids(&manager, list()).await.contains(&id_of(&others)));
    // What is not about the workspace is about its own.
    let request = GetPersonalAccessTokenRequest { id: id_of(&others) };
    let answer = world.server.tokens(&manager).get_personal_access_token(request).await;
    assert_told(answer, UNKNOWN, "get");
    let request = RotatePersonalAccessTokenRequest { id: id_of(&others), ..Default::default() };
    let answer = world.server.tokens(&manager).rotate_personal_access_token(request).await;
    assert_told(answer, UNKNOWN, "rotate");
    world.revoke(&manager, revocation(&id_of(&others))).await.unwrap();
    assert_eq!(world.reason(&others.token).await, Reason::Revoked);
}

async fn managers_grant_to_verify_and_to_issue_to_bound_tokens_alone(engine: Engine) {
    let world = World::new(engine).await;
    let held = ["write:tokens", "read:tokens", "verify:tokens", "issue:tokens", "admin:all"];
    for (who, person) in
        [("owner", &world.owner), ("admin", &world.admin), ("keeper", &world.keeper)]
    {
        let caller = world.server.text_of(&person.id, &held).await;
        for scope in ["verify:tokens", "issue:tokens"] {
            let request = WorkspaceCreatePatRequest {
                scopes: texts(&[scope]),
                user_id: Some(world.other.id.clone()),
                ..new("granted")
            };
            world.create_ok(&caller, request.clone()).await;
            // Who does not have it does not give it.
            let exceeds = exceeded(world.create(&person.token, request).await);
            assert_eq!(exceeds, "scopes", "{who} {scope}");
            let plain = |workspace_id: Option<&String>| CreatePersonalAccessTokenRequest {
                name: "granted".to_owned(),
                scopes: texts(&[scope]),
                workspace_id: workspace_id.cloned(),
                ..Default::default()
            };
            let mut client = world.server.tokens(&caller);
            if who != "keeper" {
                client.create_personal_access_token(plain(Some(&world.web))).await.unwrap();
            }
            let answer = client.create_personal_access_token(plain(None)).await;
            assert_eq!(exceeded(answer), "scopes", "{who} {scope}, unbound");
        }
        let request = WorkspaceCreatePatRequest {
            scopes: texts(&["admin:all"]),
            user_id: Some(world.other.id.clone()),
            ..new("everything")
        };
        assert_eq!(exceeded(world.create(&caller, request).await), "scopes", "{who}");
        let request = ListAvailablePatScopesRequest {};
        let available = world.server.tokens(&caller).list_available_pat_scopes(request).await;
        let granted = |scopes: &[String]| {
            ["verify:tokens", "issue:tokens"].map(|it| scopes.iter().any(|scope| scope == it))
        };
        assert_eq!(granted(&available.unwrap().into_inner().scopes), [false; 2], "{who}");
        let there = world.list(&caller, list()).await.unwrap().into_inner();
        assert_eq!(granted(&there.available_scopes), [true; 2], "{who}");
        assert!(!there.available_scopes.contains(&"admin:all".to_owned()));
    }
    let member = world.server.text_of(&world.member.id, &held).await;
    for scope in ["verify:tokens", "issue:tokens"] {
        let request = WorkspaceCreatePatRequest { scopes: texts(&[scope]), ..new("granted") };
        assert_eq!(exceeded(world.create(&member, request).await), "scopes", "{scope}");
    }

    // What was granted verifies in the workspace, and no further.
    let owner = world.server.text_of(&world.owner.id, &held).await;
    let request = WorkspaceCreatePatRequest { scopes: texts(&["verify:tokens"]), ..new("asker") };
    let asker = world.create_ok(&owner, request).await.token;
    let bound = world.bound(&world.other, &[]).await.token;
    for (token, reason) in [
        (&bound, Reason::Unspecified),
        (&world.other.token, Reason::Unspecified),
        (&world.stranger.token, Reason::NotFound),
    ] {
        let request = VerifyRequest { token: token.clone(), ..Default::default() };
        let answer = world.server.verification(&asker).verify(request).await.unwrap();
        assert_eq!(answer.into_inner().reason(), reason);
    }
}

async fn issuer_of_a_workspace_issues_to_its_members_alone(engine: Engine) {
    let world = World::new(engine).await;
    let issuer = world.bound(&world.owner, &["issue:tokens"]).await.token;
    let request = |scopes: &[&str], user: &Person| WorkspaceCreatePatRequest {
        scopes: texts(scopes),
        user_id: Some(user.id.clone()),
        ..new("issued")
    };
    let issued = world.create_ok(&issuer, request(&["write:*", "read:notes"], &world.other)).await;
    assert!(world.server.verify(&issued.token).await.active);
    for control in ["read:tokens", "issue:tokens", "verify:tokens", "admin:all"] {
        let answer = world.create(&issuer, request(&["read:notes", control], &world.other)).await;
        assert_eq!(exceeded(answer), "scopes", "{control}");
    }
    let answer = world.create(&issuer, request(&[], &world.stranger)).await;
    assert_told(answer, NO_MEMBER, "for a stranger");
    assert_told(world.create(&issuer, new("own")).await, NO_SCOPE, "for itself");
    world.update(&issuer, rename(&id_of(&issued))).await.unwrap();
    world.revoke(&issuer, revocation(&id_of(&issued))).await.unwrap();
    let plain = CreatePersonalAccessTokenRequest {
        name: "issued".to_owned(),
        user_id: Some(world.other.id.clone()),
        ..Default::default()
    };
    let answer = world.server.tokens(&issuer).create_personal_access_token(plain).await;
    assert_told(answer, DENIED, "beyond the workspace");
    // Who is no manager any more issues nothing.
    world.set_role(&world.owner, MembershipRole::Member).await;
    let answer = world.create(&issuer, request(&[], &world.other)).await;
    assert_told(answer, DENIED, "demoted");
}

/// A request for a token for a user whom only a system around us knows.
fn for_external(external_id: &str) -> CreatePersonalAccessTokenRequest {
    CreatePersonalAccessTokenRequest {
        name: "first".to_owned(),
        user_id: Some(format!("external:{external_id}")),
        ..Default::default()
    }
}

const USERS: &str = "SELECT count(*) FROM users";

async fn unknown_external_user_is_made_along_with_its_first_token(engine: Engine) {
    let server = TestServer::start_with(engine, &["--jit-users"]).await;
    // Whoever issues may, with that scope alone.
    let boss = server.administrator("boss").await;
    let issuer = server.text_of(&boss.id, &["issue:tokens"]).await;
    // A handle like the one it would get is taken.
    server.user("okta-1").await;
    let users = server.place.number(USERS).await;
    let mut client = server.tokens(&issuer);
    let request = CreatePersonalAccessTokenRequest {
        scopes: texts(&["read:notes"]),
        ..for_external("okta|1")
    };
    let first = client.create_personal_access_token(request.clone()).await.unwrap().into_inner();
    assert_eq!(server.place.number(USERS).await, users + 1);
    let answer = server.verify(&first.token).await;
    assert!(answer.active);
    assert_eq!(answer.user_external_id.as_deref(), Some("okta|1"));
    let request_user = GetUserRequest { user: "external:okta|1".to_owned() };
    let user = server.directory(&server.admin).get_user(request_user).await.unwrap();
    let user = user.into_inner().user.unwrap();
    assert_eq!(user.id, answer.user_id);
    assert!(user.is_active && !user.is_admin && !user.handle.is_empty());

    let second = client.create_personal_access_token(request).await.unwrap().into_inner();
    assert_eq!(second.personal_access_token.unwrap().user_id, user.id);
    assert_eq!(server.place.number(USERS).await, users + 1);
    // Users are made along with a token and by nothing else.
    let list = ListPersonalAccessTokensRequest {
        user_id: Some("external:okta|2".to_owned()),
        ..Default::default()
    };
    assert_told(client.list_personal_access_tokens(list).await, UNKNOWN, "list");
    let request = CreatePersonalAccessTokenRequest {
        user_id: Some("handle:unknown".to_owned()),
        ..for_external("")
    };
    assert_told(client.create_personal_access_token(request).await, UNKNOWN, "by handle");
    assert_eq!(server.place.number(USERS).await, users + 1);
}

async fn two_at_once_make_one_user(engine: Engine) {
    let server = TestServer::start_with(engine, &["--jit-users"]).await;
    let users = server.place.number(USERS).await;
    for round in 0..5 {
        let create = async || {
            let request = for_external(&format!("okta|{round}"));
            let created = server.tokens(&server.admin).create_personal_access_token(request).await;
            created.unwrap().into_inner().personal_access_token.unwrap()
        };
        let (one, other) = tokio::join!(create(), create());
        assert_eq!(one.user_id, other.user_id);
        assert_ne!(one.id, other.id);
        assert_eq!(server.place.number(USERS).await, users + 1 + round);
    }
}

async fn refused_creation_makes_no_user(engine: Engine) {
    let world = World::new_with(engine, &["--jit-users"]).await;
    let kept = world.server.kept().await;
    let limited = world.server.text_of(&world.boss.id, &["write:tokens"]).await;
    let kept_with_token = world.server.kept().await;
    assert!(kept_with_token > kept);
    let mut client = world.server.tokens(&limited);
    let beyond = CreatePersonalAccessTokenRequest {
        scopes: texts(&["read:notes"]),
        ..for_external("okta|1")
    };
    assert_eq!(exceeded(client.create_personal_access_token(beyond).await), "scopes");
    let bound = CreatePersonalAccessTokenRequest {
        workspace_id: Some(world.web.clone()),
        ..for_external("okta|1")
    };
    let answer = client.create_personal_access_token(bound.clone()).await;
    assert_told(answer, NO_MEMBER, "who is new is no member");
    let elsewhere =
        CreatePersonalAccessTokenRequest { workspace_id: Some(UUID.to_owned()), ..bound };
    let answer = client.create_personal_access_token(elsewhere).await;
    assert_told(answer, UNKNOWN, "there is no such workspace");
    let there =
        WorkspaceCreatePatRequest { user_id: Some("external:okta|1".to_owned()), ..new("x") };
    for who in [&world.boss, &world.owner, &world.keeper] {
        assert_told(world.create(&who.token, there.clone()).await, NO_MEMBER, "in a workspace");
    }
    assert_eq!(world.server.kept().await, kept_with_token);
    let request = GetUserRequest { user: "external:okta|1".to_owned() };
    let answer = world.server.directory(&world.server.admin).get_user(request).await;
    assert_told(answer, UNKNOWN, "get");
}

async fn unknown_external_user_is_made_by_administrators_alone_and_where_the_server_is_set_to(
    engine: Engine,
) {
    for (more, expected) in [(&["--jit-users"][..], OK), (&[], UNKNOWN)] {
        let server = TestServer::start_with(engine, more).await;
        let user = server.user("alice").await;
        let users = server.place.number(USERS).await;
        for scopes in [&["write:tokens"][..], &["issue:tokens"], &["admin:all"]] {
            let plain = server.text_of(&user.id, scopes).await;
            let request = for_external("okta|1");
            let answer = server.tokens(&plain).create_personal_access_token(request).await;
            assert_told(answer, DENIED, "alice");
        }
        assert_eq!(server.place.number(USERS).await, users);
        let request = for_external("okta|1");
        let answer = server.tokens(&server.admin).create_personal_access_token(request).await;
        assert_told(answer, expected, "administrator");
    }
}

async fn quota_counts_the_tokens_that_are_alive(engine: Engine) {
    // Each person has one from the start, which is bound to nothing and counts apart.
    let world = World::new_with(engine, &["--max-pats-per-user=1"]).await;
    let full = (Code::ResourceExhausted, "TOKEN_QUOTA");
    let create = async || {
        let user_id = Some(world.member.id.clone());
        world.create(&world.boss.token, WorkspaceCreatePatRequest { user_id, ..new("x") }).await
    };
    create().await.unwrap();
    let kept = world.server.kept().await;
    assert_told(create().await, full, "one there");
    assert_eq!(world.server.kept().await, kept);

    // By leaving, by becoming a guest, with the workspace's: those that were bound.
    world.leave(&world.member, &world.web).await;
    world.join(&world.member, &world.web, MembershipRole::Member).await;
    create().await.unwrap();
    assert_told(create().await, full, "came back");
    world.set_role(&world.member, MembershipRole::Guest).await;
    world.set_role(&world.member, MembershipRole::Member).await;
    create().await.unwrap();
    assert_told(create().await, full, "was a guest");
    for target in [Target::Workspace(world.web.clone()), Target::Organization(world.acme.clone())] {
        world.revoke_tokens(target).await;
        create().await.unwrap();
        assert_told(create().await, full, "ended together");
    }
    // With all of his own: both, and what is bound to nothing.
    let mut admin = world.server.tokens(&world.server.admin);
    let mut create_free = async || {
        let request = CreatePersonalAccessTokenRequest {
            name: "x".to_owned(),
            user_id: Some(world.member.id.clone()),
            ..Default::default()
        };
        admin.create_personal_access_token(request).await
    };
    assert_told(create_free().await, full, "one from the start");
    world.revoke_tokens(Target::User("handle:member".to_owned())).await;
    create().await.unwrap();
    assert_told(create().await, full, "one anew");
    create_free().await.unwrap();
    assert_told(create_free().await, full, "one of each");
    // What is suspended may come back, and counts.
    let workspace = world.web.clone();
    let mut directory = world.server.directory(&world.server.admin);
    for is_active in [Some(false), Some(true)] {
        let workspace = workspace.clone();
        let request = UpdateWorkspaceRequest { workspace, is_active, ..Default::default() };
        directory.update_workspace(request).await.unwrap();
    }
    assert_told(create().await, full, "revived");
}

async fn own_id_tells_a_stranger_of_no_workspace(engine: Engine) {
    let world = World::new(engine).await;
    let own = world.server.verification(&world.stranger.token).who_am_i(WhoAmIRequest {}).await;
    let id = own.unwrap().into_inner().token_id;
    for workspace in [world.web.clone(), UUID.to_owned(), "nowhere".to_owned()] {
        let request = WorkspaceRevokePatRequest {
            org: world.acme.clone(),
            workspace,
            id: id.clone(),
            include_descendants: false,
        };
        assert_told(world.revoke(&world.stranger.token, request).await, DENIED, "stranger");
    }
}
