use std::time::Duration;

use prost_types::FieldMask;
use token_authority::proto::v1::{
    CreateOrganizationRequest, CreateWorkspaceRequest, GetOrganizationRequest, GetWorkspaceRequest,
    ListOrganizationsRequest, ListWorkspacesRequest, Organization, OrganizationUpsert, Reason,
    UpdateOrganizationRequest, UpdateWorkspaceRequest, UpsertOrganizationsRequest,
    UpsertWorkspacesRequest, Workspace, WorkspaceUpsert,
};
use tonic::{Code, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, refused, wrong_fields},
};

on_both_stores![
    organization_and_workspace_come_back_whole_by_each_of_their_names,
    slugs_and_external_ids_are_taken_once,
    update_changes_exactly_what_is_named,
    upserts_make_then_change_and_their_repeat_changes_nothing,
    upsert_that_is_wrong_in_one_does_none_and_names_it,
    lists_hold_each_once_and_what_was_asked_for,
    deactivated_workspace_or_organization_refuses_the_tokens_bound_to_it_while_it_is,
    each_sees_what_it_belongs_to_and_a_bound_token_its_workspace_alone,
    administrators_alone_write,
    what_is_malformed_is_named,
];

const SECOND: Duration = Duration::from_secs(1);

fn new_organization(slug: &str) -> CreateOrganizationRequest {
    CreateOrganizationRequest {
        slug: slug.to_owned(),
        name: format!("The {slug}"),
        ..Default::default()
    }
}

fn new_workspace(organization: &str, slug: &str) -> CreateWorkspaceRequest {
    CreateWorkspaceRequest {
        organization: organization.to_owned(),
        slug: slug.to_owned(),
        name: format!("The {slug}"),
        ..Default::default()
    }
}

async fn create_organization(
    server: &TestServer,
    request: CreateOrganizationRequest,
) -> Organization {
    let answer = server.directory(&server.admin).create_organization(request).await;
    answer.unwrap().into_inner().organization.unwrap()
}

async fn create_workspace(server: &TestServer, request: CreateWorkspaceRequest) -> Workspace {
    let answer = server.directory(&server.admin).create_workspace(request).await;
    answer.unwrap().into_inner().workspace.unwrap()
}

async fn organization(
    server: &TestServer,
    token: &str,
    name: &str,
) -> Result<Organization, Status> {
    let request = GetOrganizationRequest { organization: name.to_owned() };
    let answer = server.directory(token).get_organization(request).await?;
    Ok(answer.into_inner().organization.unwrap())
}

async fn workspace(
    server: &TestServer,
    token: &str,
    name: &str,
    organization: Option<&str>,
) -> Result<Workspace, Status> {
    let organization = organization.map(str::to_owned);
    let request = GetWorkspaceRequest { workspace: name.to_owned(), organization };
    Ok(server.directory(token).get_workspace(request).await?.into_inner().workspace.unwrap())
}

/// The slugs of all pages.
async fn organizations(server: &TestServer, token: &str) -> Vec<String> {
    let mut slugs = Vec::new();
    let mut request = ListOrganizationsRequest { page_size: 2, ..Default::default() };
    loop {
        let page = server.directory(token).list_organizations(request.clone()).await.unwrap();
        let page = page.into_inner();
        slugs.extend(page.organizations.into_iter().map(|it| it.slug));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return slugs;
        }
    }
}

async fn workspaces(
    server: &TestServer,
    token: &str,
    request: ListWorkspacesRequest,
) -> Vec<String> {
    let mut slugs = Vec::new();
    let mut request = ListWorkspacesRequest { page_size: 2, ..request };
    loop {
        let page = server.directory(token).list_workspaces(request.clone()).await.unwrap();
        let page = page.into_inner();
        slugs.extend(page.workspaces.into_iter().map(|it| it.slug));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return slugs;
        }
    }
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

async fn organization_and_workspace_come_back_whole_by_each_of_their_names(engine: Engine) {
    let server = TestServer::start(engine).await;
    server.clock.advance(Duration::from_micros(7));
    let now = Some(server.after(Duration::ZERO));
    let request = CreateOrganizationRequest {
        name: "Åcme, Inc.".to_owned(),
        external_id: some("o|1"),
        is_active: Some(false),
        ..new_organization("acme")
    };
    let acme = create_organization(&server, request).await;
    let expected = Organization {
        id: acme.id.clone(),
        slug: "acme".to_owned(),
        name: "Åcme, Inc.".to_owned(),
        external_id: some("o|1"),
        is_active: false,
        created_at: now,
        updated_at: now,
    };
    assert_eq!(acme, expected);
    let names = [&*acme.id, &acme.id.to_uppercase(), "acme", "external:o|1"];
    for name in names {
        assert_eq!(organization(&server, &server.admin, name).await.unwrap(), acme, "{name}");
    }

    let request = CreateWorkspaceRequest {
        external_id: some("w|1"),
        ..new_workspace("external:o|1", "notes")
    };
    let notes = create_workspace(&server, request).await;
    let expected = Workspace {
        id: notes.id.clone(),
        slug: "notes".to_owned(),
        name: "The notes".to_owned(),
        external_id: some("w|1"),
        is_active: true,
        created_at: now,
        updated_at: now,
        organization_id: acme.id.clone(),
    };
    assert_eq!(notes, expected);
    for within in names {
        for name in [&*notes.id, "notes", "external:w|1"] {
            let found = workspace(&server, &server.admin, name, Some(within)).await.unwrap();
            assert_eq!(found, notes, "{name} {within}");
        }
    }
    for name in [&*notes.id, "external:w|1"] {
        assert_eq!(workspace(&server, &server.admin, name, None).await.unwrap(), notes);
    }
    create_organization(&server, new_organization("other")).await;
    let admin = &*server.admin;
    for answer in [
        organization(&server, admin, "nothing").await.err(),
        organization(&server, admin, &notes.id).await.err(),
        workspace(&server, admin, &acme.id, None).await.err(),
        workspace(&server, admin, &notes.id, Some("other")).await.err(),
        workspace(&server, admin, &notes.id, Some("nothing")).await.err(),
    ] {
        assert_eq!(answer.unwrap().code(), Code::NotFound);
    }
    let lost = server.directory(admin).create_workspace(new_workspace("nothing", "a")).await;
    assert_eq!(refused(lost), (Code::NotFound, String::new()));
}

async fn slugs_and_external_ids_are_taken_once(engine: Engine) {
    let server = TestServer::start(engine).await;
    let request = CreateOrganizationRequest { external_id: some("1"), ..new_organization("acme") };
    create_organization(&server, request).await;
    create_organization(&server, new_organization("other")).await;
    // What is one's in one kind or organization is free in another.
    let request =
        CreateWorkspaceRequest { external_id: some("1"), ..new_workspace("acme", "acme") };
    create_workspace(&server, request).await;
    create_workspace(&server, new_workspace("other", "acme")).await;
    let kept = server.kept().await;
    let slug_taken = (Code::AlreadyExists, "SLUG_TAKEN".to_owned());
    let external_id_taken = (Code::AlreadyExists, "EXTERNAL_ID_TAKEN".to_owned());
    let mut directory = server.directory(&server.admin);
    let answer = directory.create_organization(new_organization("acme")).await;
    assert_eq!(refused(answer), slug_taken);
    let request = CreateOrganizationRequest { external_id: some("1"), ..new_organization("new") };
    assert_eq!(refused(directory.create_organization(request).await), external_id_taken);
    let answer = directory.create_workspace(new_workspace("acme", "acme")).await;
    assert_eq!(refused(answer), slug_taken);
    let request = CreateWorkspaceRequest { external_id: some("1"), ..new_workspace("acme", "new") };
    assert_eq!(refused(directory.create_workspace(request).await), external_id_taken);
    let request = UpdateOrganizationRequest {
        organization: "other".to_owned(),
        slug: some("acme"),
        ..Default::default()
    };
    assert_eq!(refused(directory.update_organization(request).await), slug_taken);
    assert_eq!(server.kept().await, kept);
}

async fn update_changes_exactly_what_is_named(engine: Engine) {
    let server = TestServer::start(engine).await;
    let request = CreateOrganizationRequest { external_id: some("1"), ..new_organization("acme") };
    let mut acme = create_organization(&server, request).await;
    let mut notes = create_workspace(&server, new_workspace("acme", "notes")).await;
    server.clock.advance(SECOND);
    let now = Some(server.after(Duration::ZERO));
    let mask = |path: &str| Some(FieldMask { paths: vec![path.to_owned()] });
    let of_acme =
        || UpdateOrganizationRequest { organization: acme.id.clone(), ..Default::default() };
    let of_notes = || UpdateWorkspaceRequest { workspace: notes.id.clone(), ..Default::default() };
    let mut directory = server.directory(&server.admin);

    // Nothing is changed, so nothing says that it was.
    let kept = server.kept().await;
    for request in [
        of_acme(),
        UpdateOrganizationRequest { slug: some("acme"), is_active: Some(true), ..of_acme() },
        UpdateOrganizationRequest {
            slug: some("new"),
            update_mask: Some(FieldMask::default()),
            ..of_acme()
        },
    ] {
        let answer = directory.update_organization(request).await.unwrap().into_inner();
        assert_eq!(answer.organization.as_ref(), Some(&acme));
        assert!(!answer.revision.is_empty());
    }
    assert_eq!(server.kept().await, kept);

    for field in ["slug", "name", "is_active"] {
        let request = UpdateOrganizationRequest { update_mask: mask(field), ..of_acme() };
        assert_eq!(wrong_fields(directory.update_organization(request).await), [field]);
        let request = UpdateWorkspaceRequest { update_mask: mask(field), ..of_notes() };
        assert_eq!(wrong_fields(directory.update_workspace(request).await), [field]);
    }
    let request = UpdateWorkspaceRequest { update_mask: mask("organization"), ..of_notes() };
    let answer = directory.update_workspace(request).await;
    assert_eq!(wrong_fields(answer), ["update_mask.paths[0]"]);

    let request =
        UpdateOrganizationRequest { slug: some("new"), is_active: Some(false), ..of_acme() };
    let clear = UpdateOrganizationRequest {
        name: some("kept out"),
        update_mask: mask("external_id"),
        ..of_acme()
    };
    acme = Organization { slug: "new".to_owned(), is_active: false, updated_at: now, ..acme };
    let answer = directory.update_organization(request).await.unwrap().into_inner();
    assert_eq!(answer.organization.as_ref(), Some(&acme));
    acme.external_id = None;
    let answer = directory.update_organization(clear).await.unwrap().into_inner();
    assert_eq!(answer.organization.as_ref(), Some(&acme));
    assert_eq!(organization(&server, &server.admin, "new").await.unwrap(), acme);

    let request = UpdateWorkspaceRequest {
        workspace: "notes".to_owned(),
        organization: some("new"),
        name: some("Notes"),
        external_id: some("w"),
        ..Default::default()
    };
    notes =
        Workspace { name: "Notes".to_owned(), external_id: some("w"), updated_at: now, ..notes };
    let answer = directory.update_workspace(request).await.unwrap().into_inner();
    assert_eq!(answer.workspace.as_ref(), Some(&notes));
    let request = UpdateWorkspaceRequest { workspace: acme.id.clone(), ..Default::default() };
    let answer = directory.update_workspace(request).await;
    assert_eq!(refused(answer), (Code::NotFound, String::new()));
}

fn organization_upsert(external_id: &str, slug: Option<&str>) -> OrganizationUpsert {
    OrganizationUpsert {
        external_id: external_id.to_owned(),
        slug: slug.map(str::to_owned),
        ..Default::default()
    }
}

fn workspace_upsert(
    external_id: &str,
    organization: Option<&str>,
    slug: Option<&str>,
) -> WorkspaceUpsert {
    WorkspaceUpsert {
        external_id: external_id.to_owned(),
        organization: organization.map(str::to_owned),
        slug: slug.map(str::to_owned),
        ..Default::default()
    }
}

async fn upserts_make_then_change_and_their_repeat_changes_nothing(engine: Engine) {
    let server = TestServer::start(engine).await;
    let mut directory = server.directory(&server.admin);
    let named = OrganizationUpsert {
        name: some("Zeta"),
        is_active: Some(false),
        ..organization_upsert("z", Some("zeta"))
    };
    let request = UpsertOrganizationsRequest {
        organizations: vec![named, organization_upsert("a", Some("acme"))],
    };
    let made = directory.upsert_organizations(request.clone()).await.unwrap().into_inner();
    let said: Vec<_> =
        made.organizations.iter().map(|it| (&*it.slug, &*it.name, it.is_active)).collect();
    assert_eq!(said, [("zeta", "Zeta", false), ("acme", "acme", true)]);
    let of = UpsertWorkspacesRequest {
        workspaces: vec![
            workspace_upsert("w1", Some("acme"), Some("notes")),
            workspace_upsert("w2", Some("external:z"), Some("notes")),
        ],
    };
    let workspaces = directory.upsert_workspaces(of.clone()).await.unwrap().into_inner();
    assert_eq!(workspaces.workspaces[0].organization_id, made.organizations[1].id);
    assert_eq!(workspaces.workspaces[1].organization_id, made.organizations[0].id);

    server.clock.advance(SECOND);
    let kept = server.kept().await;
    let again = directory.upsert_organizations(request).await.unwrap().into_inner();
    assert_eq!(again.organizations, made.organizations);
    assert_eq!(directory.upsert_workspaces(of).await.unwrap().into_inner(), workspaces);
    assert_eq!(server.kept().await, kept);

    let request =
        UpsertWorkspacesRequest { workspaces: vec![workspace_upsert("w2", None, Some("tasks"))] };
    let changed = directory.upsert_workspaces(request).await.unwrap().into_inner();
    let expected = Workspace {
        slug: "tasks".to_owned(),
        updated_at: Some(server.after(Duration::ZERO)),
        ..workspaces.workspaces[1].clone()
    };
    assert_eq!(changed.workspaces, [expected]);
    assert_ne!(changed.revision, workspaces.revision);
}

async fn upsert_that_is_wrong_in_one_does_none_and_names_it(engine: Engine) {
    let server = TestServer::start(engine).await;
    let mut directory = server.directory(&server.admin);
    create_organization(&server, new_organization("acme")).await;
    create_organization(&server, new_organization("other")).await;
    let request =
        CreateWorkspaceRequest { external_id: some("w"), ..new_workspace("acme", "notes") };
    create_workspace(&server, request).await;
    let kept = server.kept().await;
    for (wrong, field) in [
        (organization_upsert("", Some("new")), "organizations[1].external_id"),
        (organization_upsert("first", Some("new")), "organizations[1].external_id"),
        (organization_upsert("x", Some("New")), "organizations[1].slug"),
        (organization_upsert("x", None), "organizations[1].slug"),
        (
            OrganizationUpsert { name: some(" "), ..organization_upsert("x", Some("new")) },
            "organizations[1].name",
        ),
    ] {
        let organizations = vec![organization_upsert("first", Some("first")), wrong];
        let answer =
            directory.upsert_organizations(UpsertOrganizationsRequest { organizations }).await;
        assert_eq!(wrong_fields(answer), [field]);
    }
    for (wrong, field) in [
        (workspace_upsert("x", None, Some("new")), "workspaces[1].organization"),
        (workspace_upsert("x", Some("A b"), Some("new")), "workspaces[1].organization"),
        (workspace_upsert("w", Some("other"), None), "workspaces[1].organization"),
        (workspace_upsert("x", Some("acme"), None), "workspaces[1].slug"),
    ] {
        let workspaces = vec![workspace_upsert("first", Some("acme"), Some("first")), wrong];
        let answer = directory.upsert_workspaces(UpsertWorkspacesRequest { workspaces }).await;
        assert_eq!(wrong_fields(answer), [field]);
    }
    for (wrong, expected) in [
        (workspace_upsert("x", Some("nothing"), Some("new")), (Code::NotFound, "")),
        (workspace_upsert("x", Some("acme"), Some("notes")), (Code::AlreadyExists, "SLUG_TAKEN")),
    ] {
        let workspaces = vec![workspace_upsert("first", Some("acme"), Some("first")), wrong];
        let answer = directory.upsert_workspaces(UpsertWorkspacesRequest { workspaces }).await;
        assert!(answer.as_ref().unwrap_err().message().starts_with("workspaces[1]: "));
        let (code, reason) = refused(answer);
        assert_eq!((code, &*reason), expected);
    }
    let organizations: Vec<_> =
        (0..1_001).map(|n| organization_upsert(&n.to_string(), None)).collect();
    let answer = directory.upsert_organizations(UpsertOrganizationsRequest { organizations }).await;
    assert_eq!(wrong_fields(answer), ["organizations"]);
    assert_eq!(server.kept().await, kept);
}

async fn lists_hold_each_once_and_what_was_asked_for(engine: Engine) {
    let server = TestServer::start(engine).await;
    for slug in ["a", "b", "c", "d", "e"] {
        let is_active = Some(slug != "e");
        create_organization(
            &server,
            CreateOrganizationRequest { is_active, ..new_organization(slug) },
        )
        .await;
        server.clock.advance(Duration::from_micros(1));
        create_workspace(&server, CreateWorkspaceRequest { is_active, ..new_workspace("a", slug) })
            .await;
        create_workspace(&server, new_workspace(slug, "other")).await;
    }
    assert_eq!(organizations(&server, &server.admin).await, ["e", "d", "c", "b", "a"]);
    let of = |organization: &str, is_active| ListWorkspacesRequest {
        organization: some(organization),
        is_active,
        ..Default::default()
    };
    let admin = &*server.admin;
    let mut all = workspaces(&server, admin, of("a", None)).await;
    all.sort();
    assert_eq!(all, ["a", "b", "c", "d", "e", "other"]);
    assert_eq!(workspaces(&server, admin, of("a", Some(false))).await, ["e"]);
    assert_eq!(workspaces(&server, admin, of("c", Some(true))).await, ["other"]);
    assert_eq!(workspaces(&server, admin, ListWorkspacesRequest::default()).await.len(), 10);
    let mut directory = server.directory(admin);
    let answer = directory.list_workspaces(of("nothing", None)).await;
    assert_eq!(refused(answer), (Code::NotFound, String::new()));

    let request = ListWorkspacesRequest { page_size: 1, ..of("a", None) };
    let page = directory.list_workspaces(request.clone()).await.unwrap().into_inner();
    let other = ListWorkspacesRequest { page_token: page.next_page_token, ..of("b", None) };
    assert_eq!(wrong_fields(directory.list_workspaces(other).await), ["page_token"]);
    let request = ListOrganizationsRequest { page_size: -1, ..Default::default() };
    assert_eq!(wrong_fields(directory.list_organizations(request).await), ["page_size"]);
}

async fn deactivated_workspace_or_organization_refuses_the_tokens_bound_to_it_while_it_is(
    engine: Engine,
) {
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let notes = server.workspace("notes").await;
    server.join(&user.id, &notes, "member").await;
    let bound = server.bound(&user.id, &notes).await;
    let unbound = server.text_of(&user.id, &[]).await;
    let mut directory = server.directory(&server.admin);
    for _ in 0..2 {
        for is_active in [false, true] {
            let request = UpdateWorkspaceRequest {
                workspace: notes.clone(),
                is_active: Some(is_active),
                ..Default::default()
            };
            directory.update_workspace(request).await.unwrap();
            let answer = server.verify(&bound).await;
            assert_eq!(answer.active, is_active);
            if !is_active {
                assert_eq!(answer.reason(), Reason::WorkspaceInactive);
            }
            assert!(server.verify(&unbound).await.active);
        }
        for is_active in [false, true] {
            let request = UpdateOrganizationRequest {
                organization: "org-of-notes".to_owned(),
                is_active: Some(is_active),
                ..Default::default()
            };
            directory.update_organization(request).await.unwrap();
            assert_eq!(server.verify(&bound).await.active, is_active);
            assert!(server.verify(&unbound).await.active);
        }
    }
}

async fn each_sees_what_it_belongs_to_and_a_bound_token_its_workspace_alone(engine: Engine) {
    let server = TestServer::start(engine).await;
    let (notes, tasks) = (server.workspace("notes").await, server.workspace("tasks").await);
    server.workspace("hidden").await;
    create_workspace(&server, new_workspace("org-of-notes", "beside")).await;
    let (guest, stranger) = (server.user("guest").await, server.user("stranger").await);
    server.join(&guest.id, &notes, "guest").await;
    server.join(&guest.id, &tasks, "member").await;
    let read = &["read:directory"];
    let tokens = [
        server.text_of(&guest.id, read).await,
        server.bound_with(&guest.id, &tasks, read).await,
        server.text_of(&stranger.id, read).await,
    ];
    let all = || ListWorkspacesRequest::default();
    for (token, seen_organizations, seen_workspaces) in [
        (&tokens[0], &["org-of-notes", "org-of-tasks"][..], &["notes", "tasks"][..]),
        (&tokens[1], &["org-of-tasks"], &["tasks"]),
        (&tokens[2], &[], &[]),
    ] {
        let mut seen = organizations(&server, token).await;
        seen.sort();
        assert_eq!(seen, seen_organizations);
        let mut seen = workspaces(&server, token, all()).await;
        seen.sort();
        assert_eq!(seen, seen_workspaces);
        for slug in ["notes", "tasks", "hidden", "nothing"] {
            let sees = seen_workspaces.contains(&slug);
            let within = format!("org-of-{slug}");
            let found = organization(&server, token, &within).await;
            assert_eq!(found.is_ok(), sees, "{slug}");
            let status = workspace(&server, token, slug, Some(&within)).await.err();
            assert_eq!(status.is_none(), sees, "{slug}");
            assert!(status.is_none_or(|status| status.code() == Code::NotFound));
            let of = ListWorkspacesRequest { organization: Some(within), ..all() };
            let listed = server.directory(token).list_workspaces(of).await;
            assert_eq!(listed.is_ok(), sees, "{slug}");
        }
    }
    assert_eq!(organizations(&server, &server.admin).await.len(), 3);

    // An administrator's bound token sees as any user's does.
    let boss = server.administrator("boss").await;
    server.join(&boss.id, &notes, "member").await;
    let token = server.bound_with(&boss.id, &notes, read).await;
    assert_eq!(organizations(&server, &token).await, ["org-of-notes"]);
    assert_eq!(workspaces(&server, &token, all()).await, ["notes"]);
    // Without the scope nobody sees anything.
    let token = server.text_of(&guest.id, &["read:tokens"]).await;
    let request = ListOrganizationsRequest::default();
    let answer = server.directory(&token).list_organizations(request).await;
    assert_eq!(refused(answer), (Code::PermissionDenied, "CALLER_SCOPE".to_owned()));
}

async fn administrators_alone_write(engine: Engine) {
    let server = TestServer::start(engine).await;
    let notes = server.workspace("notes").await;
    let (owner, boss) = (server.user("owner").await, server.administrator("boss").await);
    for user in [&owner, &boss] {
        server.join(&user.id, &notes, "owner").await;
    }
    let write = &["write:directory"];
    let no_role = (Code::PermissionDenied, "CALLER_ROLE".to_owned());
    let no_scope = (Code::PermissionDenied, "CALLER_SCOPE".to_owned());
    let callers = [
        (server.text_of(&owner.id, write).await, no_role),
        (server.text_of(&boss.id, &["read:directory"]).await, no_scope.clone()),
        (server.bound_with(&boss.id, &notes, write).await, no_scope),
    ];
    let kept = server.kept().await;
    for (token, expected) in callers {
        let mut directory = server.directory(&token);
        let answer = directory.create_organization(new_organization("new")).await;
        assert_eq!(refused(answer), expected);
        let answer = directory.create_workspace(new_workspace("org-of-notes", "new")).await;
        assert_eq!(refused(answer), expected);
        let request = UpdateOrganizationRequest {
            organization: "org-of-notes".to_owned(),
            name: some("Mine"),
            ..Default::default()
        };
        assert_eq!(refused(directory.update_organization(request).await), expected);
        let request = UpdateWorkspaceRequest {
            workspace: notes.clone(),
            name: some("Mine"),
            ..Default::default()
        };
        assert_eq!(refused(directory.update_workspace(request).await), expected);
        let organizations = vec![organization_upsert("x", Some("x"))];
        let request = UpsertOrganizationsRequest { organizations };
        assert_eq!(refused(directory.upsert_organizations(request).await), expected);
        let workspaces = vec![workspace_upsert("x", Some("org-of-notes"), Some("x"))];
        let request = UpsertWorkspacesRequest { workspaces };
        assert_eq!(refused(directory.upsert_workspaces(request).await), expected);
    }
    assert_eq!(server.kept().await, kept);
}

async fn what_is_malformed_is_named(engine: Engine) {
    let server = TestServer::start(engine).await;
    create_organization(&server, new_organization("acme")).await;
    let mut directory = server.directory(&server.admin);
    let kept = server.kept().await;
    let good = || CreateOrganizationRequest { external_id: some("x"), ..new_organization("new") };
    let id = "0198c0de-0000-7000-8000-00000000000a";
    for (request, field) in [
        (CreateOrganizationRequest { slug: String::new(), ..good() }, "slug"),
        (CreateOrganizationRequest { slug: id.to_owned(), ..good() }, "slug"),
        (CreateOrganizationRequest { name: String::new(), ..good() }, "name"),
        (CreateOrganizationRequest { name: "x".repeat(101), ..good() }, "name"),
        (CreateOrganizationRequest { external_id: some(""), ..good() }, "external_id"),
        (CreateOrganizationRequest { external_id: some("a\0b"), ..good() }, "external_id"),
    ] {
        assert_eq!(wrong_fields(directory.create_organization(request).await), [field]);
    }
    let request = CreateWorkspaceRequest { slug: "A".to_owned(), ..new_workspace("", " ") };
    let answer = directory.create_workspace(request).await;
    assert_eq!(wrong_fields(answer), ["organization", "slug"]);
    for (name, organization, field) in [
        ("", None, "workspace"),
        ("A b", None, "workspace"),
        ("notes", None, "workspace"),
        ("notes", Some("A b"), "organization"),
    ] {
        let request = GetWorkspaceRequest {
            workspace: name.to_owned(),
            organization: organization.map(str::to_owned),
        };
        assert_eq!(wrong_fields(directory.get_workspace(request).await), [field], "{name:?}");
    }
    let request = GetOrganizationRequest { organization: "external:".to_owned() };
    assert_eq!(wrong_fields(directory.get_organization(request).await), ["organization"]);
    assert_eq!(server.kept().await, kept);
}
