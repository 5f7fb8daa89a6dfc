//! Users by the batch, what they belong to, and the end of all tokens at once.

use token_authority::{
    domain::{Container, ContainerKind, ContainerName, ContainerRef, Membership, Role, Status},
    store::{
        ContainerChanges, ContainerFilter, ContainerUpsert, Expects, Managed, MembershipChanges,
        MembershipFilter, MembershipPut, NewContainer, OnlyMemberships, TokensOf, UserUpsert,
        Viewer,
    },
};

use super::*;
use ContainerKind::{Organization, Workspace};

on_both_stores![
    // Users.
    upserted_users_are_made_or_changed_and_come_back_in_order,
    upsert_of_users_that_changes_nothing_leaves_no_trace,
    upsert_of_users_is_done_whole_or_not_and_says_which_stood_against_it,
    new_user_whose_handle_is_taken_and_was_not_asked_for_gets_another,
    same_users_upserted_at_once_are_made_once,
    upsert_of_users_leaves_an_administrator,
    user_that_is_made_along_with_its_first_token_is_made_once,
    deleted_user_ends_with_its_tokens_and_memberships_and_stays_by_id,
    last_administrator_and_the_system_user_are_not_deleted,
    // Containers.
    container_comes_back_as_it_was_given_and_is_found_by_each_of_its_names,
    slugs_are_unique_where_they_are_looked_for_and_external_ids_everywhere,
    workspace_is_made_in_an_organization_that_is_there,
    container_update_changes_what_it_names_and_touches_the_container,
    container_update_that_changes_nothing_leaves_no_trace,
    upserted_containers_are_made_or_changed_and_come_back_in_order,
    upsert_of_containers_is_done_whole_or_not_and_says_which_stood_against_it,
    same_containers_upserted_at_once_are_made_once,
    pages_of_containers_lose_and_double_nothing,
    containers_are_seen_by_who_belongs_to_them,
    // Memberships.
    membership_is_made_changed_and_ended_and_touches_its_user,
    change_of_memberships_that_changes_nothing_leaves_no_trace,
    change_of_memberships_is_done_whole_or_not_and_says_which_stood_against_it,
    memberships_that_are_not_among_the_only_ones_end,
    who_leaves_or_becomes_a_guest_loses_the_tokens_bound_to_the_workspace_for_good,
    memberships_are_seen_by_their_user_and_by_who_manages_the_organization,
    pages_of_memberships_lose_and_double_nothing,
    manager_who_is_none_any_more_changes_nothing,
    manager_who_is_demoted_while_its_change_waits_changes_nothing,
    // All tokens at once.
    revocation_of_all_tokens_of_something_ends_those_and_none_made_later,
    caller_may_end_its_own_tokens_and_its_own_user_but_not_when_revoked,
];

fn external(id: &str) -> ContainerRef {
    ContainerRef::External(id.parse().unwrap())
}

fn slug(slug: &str) -> ContainerRef {
    ContainerRef::Slug(slug.parse().unwrap())
}

fn id(container: &Container) -> ContainerRef {
    ContainerRef::Id(container.id.clone())
}

fn named(container: &Container) -> ContainerName {
    match container.kind() {
        Organization => ContainerName::Organization(id(container)),
        Workspace => ContainerName::Workspace { workspace: id(container), organization: None },
    }
}

fn workspace_named(workspace: ContainerRef, organization: Option<ContainerRef>) -> ContainerName {
    ContainerName::Workspace { workspace, organization }
}

fn new_container(organization: Option<&Container>, slug: &str) -> NewContainer {
    NewContainer {
        id: random::id(at(0)),
        organization_id: organization.map(|organization| organization.id.clone()),
        slug: slug.parse().unwrap(),
        name: format!("The {slug}").parse().unwrap(),
        external_id: None,
        is_active: true,
    }
}

fn upsert(external_id: &str) -> ContainerUpsert {
    ContainerUpsert {
        external_id: external_id.parse().unwrap(),
        new_id: random::id(at(0)),
        organization_id: None,
        slug: None,
        name: None,
        is_active: None,
    }
}

fn new_upsert(external_id: &str, slug: &str) -> ContainerUpsert {
    ContainerUpsert { slug: Some(slug.parse().unwrap()), ..upsert(external_id) }
}

fn user_upsert(external_id: &str, handle: &str, changes: UserChanges) -> UserUpsert {
    let new = NewUser {
        external_id: Some(external_id.parse().unwrap()),
        display_name: changes.display_name.clone().flatten(),
        is_admin: changes.is_admin.unwrap_or(false),
        is_active: changes.is_active.unwrap_or(true),
        ..new_user(handle)
    };
    UserUpsert { new, changes }
}

fn unchanged() -> UserChanges {
    UserChanges::default()
}

fn shown_as(name: &str) -> UserChanges {
    UserChanges { display_name: Some(Some(name.parse().unwrap())), ..unchanged() }
}

fn put(user: &User, container: &Container, role: Role) -> MembershipPut {
    MembershipPut {
        user: user.id.clone(),
        kind: container.kind(),
        container_id: container.id.clone(),
        role: Some(role),
        expects: Expects::Either,
    }
}

fn end(user: &User, container: &Container) -> MembershipPut {
    MembershipPut { role: None, ..put(user, container, Role::Guest) }
}

fn puts(puts: &[MembershipPut]) -> MembershipChanges {
    MembershipChanges { puts: puts.to_vec(), only: None }
}

fn seen_by(user: &User) -> Viewer {
    Viewer::User { id: user.id.clone(), within: None }
}

fn manager(store: &TestStore, user: &User, token: &NewCredential, of: &Container) -> Actor {
    let organization_id = of.organization().to_owned();
    Actor {
        basis: Basis::Manager(vec![Managed { organization_id, workspace_id: None }]),
        ..store.actor_with_owner(token, user)
    }
}

/// Which of several an error is about, and the error.
#[track_caller]
fn one_of_many<T: std::fmt::Debug>(result: Result<T, StoreError>) -> (usize, String) {
    let Err(StoreError::At(place, error)) = result else { panic!("not about one: {result:?}") };
    (place, error.to_string())
}

fn touched_user(user: &User) -> String {
    format!(r#"["user","{}"]"#, user.id)
}

impl TestStore {
    async fn organization(&self, slug: &str) -> Container {
        self.made(new_container(None, slug)).await
    }

    async fn workspace(&self, organization: &Container, slug: &str) -> Container {
        self.made(new_container(Some(organization), slug)).await
    }

    async fn made(&self, new: NewContainer) -> Container {
        self.insert_container(&new, &self.actor()).await.unwrap().0
    }

    async fn seen(&self, name: &ContainerName) -> Option<Container> {
        self.container(name, &Viewer::Administrator).await.unwrap()
    }

    async fn change(
        &self,
        changes: &MembershipChanges,
    ) -> Result<(Vec<Membership>, Revision), StoreError> {
        self.change_memberships(changes, &self.actor()).await
    }

    async fn join(&self, user: &User, container: &Container, role: Role) -> Membership {
        self.change(&puts(&[put(user, container, role)])).await.unwrap().0.remove(0)
    }

    async fn role(&self, user: &User, container: &Container) -> Option<Role> {
        let found = self.membership(&user.id, container.kind(), &container.id).await.unwrap();
        found.map(|membership| membership.role)
    }

    /// A token of a user, bound to a workspace.
    async fn bound(&self, user: &User, workspace: &Container) -> NewCredential {
        let workspace_id = Some(workspace.id.clone());
        let new = NewCredential { workspace_id, ..new_token(&user.id) };
        self.keep_as(&new, &service()).await;
        new
    }

    async fn unbound(&self, user: &User) -> NewCredential {
        let new = new_token(&user.id);
        self.keep_as(&new, &service()).await;
        new
    }

    async fn is_live(&self, token: &NewCredential) -> bool {
        let found = self.found(&token.secret.digest).await.unwrap();
        found.credential.status(at(0)) == Status::Active
    }

    /// What says that something was changed.
    async fn trace(&self) -> (Revision, Vec<String>) {
        (self.head().await.unwrap(), self.actions().await)
    }

    async fn slugs(&self, kind: ContainerKind, viewer: &Viewer) -> String {
        let filter = ContainerFilter { kind, is_active: None, organization_id: None };
        let seen = self.list_containers(&filter, viewer, None, 99).await.unwrap();
        let mut slugs: Vec<_> = seen.iter().map(|seen| seen.slug.as_str().to_owned()).collect();
        for container in &seen {
            let one = self.container(&named(container), viewer).await.unwrap();
            assert_eq!(one.as_ref(), Some(container), "what is listed is found");
        }
        slugs.sort();
        slugs.join(" ")
    }
}

async fn upserted_users_are_made_or_changed_and_come_back_in_order(engine: Engine) {
    let store = TestStore::new(engine).await;
    let head = store.head().await.unwrap();
    let first = [user_upsert("z", "zoe", unchanged()), user_upsert("a", "abe", shown_as("Abe"))];
    let (made, revision) = store.upsert_users(&first, &store.actor_at(1)).await.unwrap();
    assert_eq!(revision, head, "they have no tokens whose answers could change");
    for (made, upsert) in made.iter().zip(&first) {
        assert_eq!((&made.id, &made.handle), (&upsert.new.id, &upsert.new.handle));
        assert_eq!(made.display_name, upsert.new.display_name);
        assert_eq!((made.created_at, made.updated_at), (at(1), at(1)));
        assert_eq!(
            store.store.user(&UserRef::Id(made.id.clone())).await.unwrap().as_ref(),
            Some(made)
        );
    }

    let changes = UserChanges {
        handle: Some("zoey".parse().unwrap()),
        kind: Some(UserKind::Service),
        is_active: Some(false),
        ..unchanged()
    };
    let second = [
        user_upsert("m", "max", unchanged()),
        user_upsert("z", "not-used", changes),
        user_upsert("a", "not-used", unchanged()),
    ];
    let (upserted, revision) = store.upsert_users(&second, &store.actor_at(2)).await.unwrap();
    let zoe = User {
        handle: "zoey".parse().unwrap(),
        kind: UserKind::Service,
        is_active: false,
        updated_at: at(2),
        ..made[0].clone()
    };
    assert_eq!(upserted[0].handle.as_str(), "max");
    assert_eq!(upserted[1..], [zoe.clone(), made[1].clone()]);
    assert_eq!(revision.number, head.number + 1);
    assert_eq!(store.touched().await, [format!("[{}]", touched_user(&zoe))]);
    assert_eq!(store.actions().await, ["user.upsert", "user.upsert"]);
}

async fn upsert_of_users_that_changes_nothing_leaves_no_trace(engine: Engine) {
    let store = TestStore::new(engine).await;
    let users = [
        user_upsert("a", "abe", shown_as("Abe")),
        user_upsert("b", "bea", UserChanges { is_active: Some(false), ..unchanged() }),
    ];
    let (made, _) = store.upsert_users(&users, &store.actor()).await.unwrap();
    let trace = store.trace().await;
    let again = store.upsert_users(&users, &store.actor_at(1)).await.unwrap();
    assert_eq!(again, (made, trace.0));
    let none = store.upsert_users(&[], &store.actor_at(1)).await.unwrap();
    assert_eq!(none, (Vec::new(), trace.0));
    assert_eq!(store.trace().await, trace);
}

async fn upsert_of_users_is_done_whole_or_not_and_says_which_stood_against_it(engine: Engine) {
    let store = TestStore::new(engine).await;
    store.user("taken").await;
    let asked = UserChanges { handle: Some("taken".parse().unwrap()), ..unchanged() };
    store.upsert_users(&[user_upsert("old", "old", unchanged())], &store.actor()).await.unwrap();
    let trace = store.trace().await;
    for at_fault in ["old", "new"] {
        let users = [
            user_upsert("a", "abe", unchanged()),
            user_upsert("b", "bea", unchanged()),
            user_upsert(at_fault, "taken", asked.clone()),
        ];
        let refused = store.upsert_users(&users, &store.actor()).await;
        assert_eq!(one_of_many(refused), (2, "another record has this handle".to_owned()));
    }
    assert_eq!(store.trace().await, trace);
    let abe = store.store.user(&UserRef::Handle("abe".parse().unwrap())).await.unwrap();
    assert_eq!(abe, None);
}

async fn new_user_whose_handle_is_taken_and_was_not_asked_for_gets_another(engine: Engine) {
    let store = TestStore::new(engine).await;
    let long = "x".repeat(100);
    for taken in ["taken", &long] {
        store.user(taken).await;
        let external_id = format!("of {taken}");
        let upserts = [user_upsert(&external_id, taken, unchanged())];
        let made = store.upsert_users(&upserts, &store.actor()).await.unwrap().0.remove(0);
        let digits = made.id.as_str().rsplit_once('-').unwrap().1;
        let cut = taken.get(..84).unwrap_or(taken);
        assert_eq!(made.handle.as_str(), format!("{cut}-{digits}"));
    }
}

async fn same_users_upserted_at_once_are_made_once(engine: Engine) {
    let store = TestStore::new(engine).await;
    let results = at_once(6, |number| {
        let (inner, actor) = (Arc::clone(&store.store), store.actor());
        let mut users: Vec<_> =
            (0..5).map(|user| user_upsert(&format!("e{user}"), "same", unchanged())).collect();
        users.rotate_left(number % 5);
        async move { inner.upsert_users(&users, &actor).await.unwrap().0 }
    })
    .await;
    let ids: HashSet<UserId> = results.into_iter().flatten().map(|user| user.id).collect();
    assert_eq!(ids.len(), 5);
}

async fn upsert_of_users_leaves_an_administrator(engine: Engine) {
    let store = TestStore::new(engine).await;
    let named = UserChanges { external_id: Some(Some("root".parse().unwrap())), ..unchanged() };
    store.update(&store.administrator, named).await.unwrap();
    let down = UserChanges { is_admin: Some(false), ..unchanged() };
    let alone = [user_upsert("root", "root", down.clone())];
    let refused = store.upsert_users(&alone, &store.actor()).await;
    assert_eq!(refusal(refused), Refusal::LastAdministrator);
    let up = UserChanges { is_admin: Some(true), ..unchanged() };
    let with_another = [user_upsert("root", "root", down), user_upsert("next", "next", up)];
    let (users, _) = store.upsert_users(&with_another, &store.actor()).await.unwrap();
    assert_eq!(users.iter().map(|user| user.is_admin).collect::<Vec<_>>(), [false, true]);
}

async fn user_that_is_made_along_with_its_first_token_is_made_once(engine: Engine) {
    let store = TestStore::new(engine).await;
    store.user("alice").await;
    let results = at_once(6, |_| {
        let (inner, actor) = (Arc::clone(&store.store), store.actor());
        let owner = NewUser { external_id: Some("ext".parse().unwrap()), ..new_user("alice") };
        let new = NewCredential { new_owner: Some(owner.clone()), ..new_token(&owner.id) };
        async move { inner.insert_credential(&new, None, &actor).await.unwrap().0 }
    })
    .await;
    let owners: HashSet<UserId> =
        results.into_iter().map(|inserted| inserted.kept.credential.user_id).collect();
    assert_eq!(owners.len(), 1);
    let made = store.store.user(&UserRef::External("ext".parse().unwrap())).await.unwrap().unwrap();
    assert!(owners.contains(&made.id));
    assert!(made.handle.as_str().starts_with("alice-"), "{}", made.handle);
}

async fn deleted_user_ends_with_its_tokens_and_memberships_and_stays_by_id(engine: Engine) {
    let store = TestStore::new(engine).await;
    let external_id = Some("okta|1".parse().unwrap());
    let new = NewUser { external_id, is_admin: true, ..new_user("alice") };
    let (alice, _) = store.insert_user(&new, &store.actor()).await.unwrap();
    let acme = store.organization("acme").await;
    store.join(&alice, &acme, Role::Owner).await;
    let token = store.unbound(&alice).await;
    let by_handle = UserRef::Handle(alice.handle.clone());
    let by_id = UserRef::Id(alice.id.clone());

    let (deleted, revision) =
        store.delete_user(&by_handle, &store.actor_at(1)).await.unwrap().unwrap();
    let expected = User {
        is_admin: false,
        is_active: false,
        updated_at: at(1),
        deleted_at: Some(at(1)),
        ..alice.clone()
    };
    assert_eq!(deleted, expected);
    assert_eq!(store.touched().await.last().unwrap(), &format!("[{}]", touched_user(&alice)));
    assert_eq!(store.role(&alice, &acme).await, None);
    assert!(!store.is_live(&token).await);
    assert_eq!(store.store.user(&by_id).await.unwrap(), Some(deleted.clone()));

    let trace = store.trace().await;
    assert_eq!(trace.0, revision);
    let again = store.delete_user(&by_id, &store.actor_at(2)).await.unwrap();
    assert_eq!(again, Some((deleted, revision)));
    assert_eq!(store.delete_user(&by_handle, &store.actor()).await.unwrap(), None);
    let nobody = UserRef::Id(new_user("nobody").id);
    assert_eq!(store.delete_user(&nobody, &store.actor()).await.unwrap(), None);
    assert_eq!(store.trace().await, trace);

    // Its names are free, and who gets them is another.
    let (next, _) =
        store.insert_user(&NewUser { id: new_user("x").id, ..new }, &store.actor()).await.unwrap();
    assert_eq!(next.external_id, alice.external_id);
    assert!(!store.is_live(&token).await);
}

async fn last_administrator_and_the_system_user_are_not_deleted(engine: Engine) {
    let store = TestStore::new(engine).await;
    let trace = store.trace().await;
    let last = UserRef::Id(store.administrator.id.clone());
    let refused = store.delete_user(&last, &store.actor()).await;
    assert_eq!(refusal(refused), Refusal::LastAdministrator);
    let system = UserRef::Id(service().user_id);
    let refused = store.delete_user(&system, &store.actor()).await;
    assert_eq!(refusal(refused), Refusal::SystemUser);
    assert_eq!(store.trace().await, trace);
}

async fn container_comes_back_as_it_was_given_and_is_found_by_each_of_its_names(engine: Engine) {
    let store = TestStore::new(engine).await;
    let head = store.head().await.unwrap();
    let new = NewContainer {
        external_id: Some("o|1".parse().unwrap()),
        is_active: false,
        ..new_container(None, "acme")
    };
    let (acme, revision) = store.insert_container(&new, &store.actor_at(1)).await.unwrap();
    assert_eq!(revision, head, "no token is bound to what is in it");
    let expected = Container {
        id: new.id,
        organization_id: None,
        slug: new.slug,
        name: new.name,
        external_id: new.external_id,
        is_active: false,
        created_at: at(1),
        updated_at: at(1),
    };
    assert_eq!(acme, expected);
    for name in [id(&acme), slug("acme"), external("o|1")] {
        assert_eq!(store.seen(&ContainerName::Organization(name)).await, Some(acme.clone()));
    }

    let external_id = Some("w|1".parse().unwrap());
    let new = NewContainer { external_id, ..new_container(Some(&acme), "notes") };
    let notes = store.made(new).await;
    assert_eq!(notes.organization_id.as_ref(), Some(&acme.id));
    for organization in [id(&acme), slug("acme"), external("o|1")] {
        for name in [id(&notes), slug("notes"), external("w|1")] {
            let found = store.seen(&workspace_named(name, Some(organization.clone()))).await;
            assert_eq!(found.as_ref(), Some(&notes));
        }
    }
    for name in [id(&notes), external("w|1")] {
        assert_eq!(store.seen(&workspace_named(name, None)).await.as_ref(), Some(&notes));
    }
    let other = store.organization("other").await;
    for (name, organization) in [
        (slug("notes"), None),
        (slug("notes"), Some(id(&other))),
        (id(&notes), Some(id(&other))),
        (external("w|1"), Some(slug("nothing"))),
        (id(&acme), None),
        (external("o|1"), None),
    ] {
        assert_eq!(store.seen(&workspace_named(name, organization)).await, None);
    }
    assert_eq!(store.seen(&ContainerName::Organization(external("w|1"))).await, None);
}

async fn slugs_are_unique_where_they_are_looked_for_and_external_ids_everywhere(engine: Engine) {
    let store = TestStore::new(engine).await;
    let with =
        |external: &str, new| NewContainer { external_id: Some(external.parse().unwrap()), ..new };
    let acme = store.made(with("o|1", new_container(None, "acme"))).await;
    let other = store.made(with("o|2", new_container(None, "other"))).await;
    let notes = store.made(with("w|1", new_container(Some(&acme), "notes"))).await;
    store.workspace(&other, "notes").await;
    let trace = store.trace().await;
    for (new, field) in [
        (new_container(None, "acme"), Unique::Slug),
        (with("o|1", new_container(None, "new")), Unique::ExternalId),
        (new_container(Some(&acme), "notes"), Unique::Slug),
        (with("w|1", new_container(Some(&other), "new")), Unique::ExternalId),
    ] {
        let refused = store.insert_container(&new, &store.actor()).await;
        let Err(StoreError::AlreadyExists(taken)) = refused else { panic!("{refused:?}") };
        assert_eq!(taken, field);
    }
    let tasks = store.workspace(&acme, "tasks").await;
    let changes = ContainerChanges { slug: Some(notes.slug), ..ContainerChanges::default() };
    let refused = store.update_container(&named(&tasks), &changes, &store.actor()).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists(Unique::Slug))), "{refused:?}");
    let changes =
        ContainerChanges { external_id: Some(acme.external_id), ..ContainerChanges::default() };
    let refused = store.update_container(&named(&other), &changes, &store.actor()).await;
    assert!(matches!(refused, Err(StoreError::AlreadyExists(Unique::ExternalId))), "{refused:?}");
    assert_eq!(store.trace().await.0, trace.0);
}

async fn workspace_is_made_in_an_organization_that_is_there(engine: Engine) {
    let store = TestStore::new(engine).await;
    let acme = store.organization("acme").await;
    let notes = store.workspace(&acme, "notes").await;
    // A workspace is no organization.
    let refused = store.insert_container(&new_container(Some(&notes), "a"), &store.actor()).await;
    assert_eq!(refusal(refused), Refusal::NoOrganization);
}

async fn container_update_changes_what_it_names_and_touches_the_container(engine: Engine) {
    let store = TestStore::new(engine).await;
    let acme = store.organization("acme").await;
    let notes = store.workspace(&acme, "notes").await;
    let none = ContainerChanges::default;
    for (mut expected, kind) in [(acme, "organization"), (notes, "workspace")] {
        let name = named(&expected);
        for (later, changes) in [
            ContainerChanges { slug: Some("new".parse().unwrap()), ..none() },
            ContainerChanges { name: Some("New".parse().unwrap()), ..none() },
            ContainerChanges { external_id: Some(Some("new".parse().unwrap())), ..none() },
            ContainerChanges { is_active: Some(false), ..none() },
            ContainerChanges { is_active: Some(true), ..none() },
            ContainerChanges { external_id: Some(None), ..none() },
        ]
        .into_iter()
        .enumerate()
        {
            let actor = store.actor_at(i64::try_from(later).unwrap());
            expected.slug = changes.slug.clone().unwrap_or(expected.slug);
            expected.name = changes.name.clone().unwrap_or(expected.name);
            expected.external_id = changes.external_id.clone().unwrap_or(expected.external_id);
            expected.is_active = changes.is_active.unwrap_or(expected.is_active);
            expected.updated_at = actor.at;
            let updated = store.update_container(&name, &changes, &actor).await.unwrap();
            let (updated, revision) = updated.unwrap();
            assert_eq!(updated, expected);
            assert_eq!(store.seen(&name).await.as_ref(), Some(&expected));
            assert_eq!(store.head().await.unwrap(), revision);
            let touched = format!(r#"[["{kind}","{}"]]"#, expected.id);
            assert_eq!(store.touched().await.last(), Some(&touched));
        }
    }
}

async fn container_update_that_changes_nothing_leaves_no_trace(engine: Engine) {
    let store = TestStore::new(engine).await;
    let acme = store.organization("acme").await;
    let trace = store.trace().await;
    let as_it_is = ContainerChanges {
        slug: Some(acme.slug.clone()),
        name: Some(acme.name.clone()),
        external_id: Some(None),
        is_active: Some(true),
    };
    for changes in [as_it_is, ContainerChanges::default()] {
        let updated = store.update_container(&named(&acme), &changes, &store.actor_at(1)).await;
        assert_eq!(updated.unwrap(), Some((acme.clone(), trace.0)));
    }
    let nothing = ContainerName::Organization(slug("nothing"));
    let changes = ContainerChanges { is_active: Some(false), ..ContainerChanges::default() };
    let updated = store.update_container(&nothing, &changes, &store.actor()).await.unwrap();
    assert_eq!(updated, None);
    assert_eq!(store.trace().await, trace);
}

async fn upserted_containers_are_made_or_changed_and_come_back_in_order(engine: Engine) {
    let store = TestStore::new(engine).await;
    let head = store.head().await.unwrap();
    let actor = store.actor();
    let named_so = ContainerUpsert {
        name: Some("Acme, Inc.".parse().unwrap()),
        is_active: Some(false),
        ..new_upsert("a", "acme")
    };
    let organizations = [new_upsert("z", "zeta"), named_so];
    let upserted = store.upsert_containers(Organization, &organizations, &actor).await.unwrap();
    assert_eq!(upserted.1, head);
    let [zeta, acme] = &upserted.0[..] else { panic!("{upserted:?}") };
    assert_eq!((zeta.slug.as_str(), zeta.name.as_str(), zeta.is_active), ("zeta", "zeta", true));
    assert_eq!((acme.name.as_str(), acme.is_active), ("Acme, Inc.", false));
    let again = store.upsert_containers(Organization, &organizations, &actor).await.unwrap();
    assert_eq!(again, upserted);
    assert_eq!(store.actions().await, ["organization.upsert"]);

    let inside = |upsert| ContainerUpsert { organization_id: Some(zeta.id.clone()), ..upsert };
    let made = [inside(new_upsert("w", "notes"))];
    let notes = store.upsert_containers(Workspace, &made, &actor).await.unwrap().0.remove(0);
    assert_eq!(notes.organization_id.as_ref(), Some(&zeta.id));
    let changed = [
        inside(new_upsert("v", "tasks")),
        ContainerUpsert { is_active: Some(false), ..upsert("w") },
    ];
    let (upserted, revision) =
        store.upsert_containers(Workspace, &changed, &store.actor_at(1)).await.unwrap();
    assert_eq!(upserted[0].slug.as_str(), "tasks");
    assert_eq!(upserted[1], Container { is_active: false, updated_at: at(1), ..notes.clone() });
    assert_eq!(revision.number, head.number + 1);
    assert_eq!(store.touched().await, [format!(r#"[["workspace","{}"]]"#, notes.id)]);
}

async fn upsert_of_containers_is_done_whole_or_not_and_says_which_stood_against_it(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (acme, other) = (store.organization("acme").await, store.organization("other").await);
    let inside =
        |of: &Container, upsert| ContainerUpsert { organization_id: Some(of.id.clone()), ..upsert };
    let made = [inside(&acme, new_upsert("w", "notes"))];
    store.upsert_containers(Workspace, &made, &store.actor()).await.unwrap();
    let trace = store.trace().await;
    for (kind, at_fault, why) in [
        (Organization, upsert("new"), "refused: a new one needs slug"),
        (Organization, new_upsert("new", "acme"), "another record has this slug"),
        (Workspace, new_upsert("new", "new"), "refused: a new one needs organization"),
        (Workspace, inside(&acme, upsert("new")), "refused: a new one needs slug"),
        (Workspace, inside(&acme, new_upsert("new", "notes")), "another record has this slug"),
        (
            Workspace,
            inside(&other, upsert("w")),
            "refused: the workspace is part of another organization",
        ),
    ] {
        let good = match kind {
            Organization => new_upsert("z", "zeta"),
            Workspace => inside(&other, new_upsert("z", "zeta")),
        };
        let refused = store.upsert_containers(kind, &[good, at_fault], &store.actor()).await;
        assert_eq!(one_of_many(refused), (1, why.to_owned()));
    }
    assert_eq!(store.trace().await, trace);
    assert_eq!(store.slugs(Organization, &Viewer::Administrator).await, "acme other");
    assert_eq!(store.slugs(Workspace, &Viewer::Administrator).await, "notes");
}

async fn same_containers_upserted_at_once_are_made_once(engine: Engine) {
    let store = TestStore::new(engine).await;
    let results = at_once(6, |number| {
        let (inner, actor) = (Arc::clone(&store.store), store.actor());
        let mut upserts: Vec<_> =
            (0..5).map(|n| new_upsert(&format!("e{n}"), &format!("slug-{n}"))).collect();
        upserts.rotate_left(number % 5);
        async move { inner.upsert_containers(Organization, &upserts, &actor).await.unwrap().0 }
    })
    .await;
    let ids: HashSet<String> = results.into_iter().flatten().map(|it| it.id).collect();
    assert_eq!(ids.len(), 5);
}

async fn pages_of_containers_lose_and_double_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (acme, other) = (store.organization("acme").await, store.organization("other").await);
    store.workspace(&other, "elsewhere").await;
    let mut newest_first = Vec::new();
    for (number, later) in [0, 1, 1, 1, 2, 2].into_iter().enumerate() {
        let new = NewContainer {
            is_active: number != 5,
            ..new_container(Some(&acme), &format!("workspace-{number}"))
        };
        let (made, _) = store.insert_container(&new, &store.actor_at(later)).await.unwrap();
        newest_first.push(made);
    }
    newest_first.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    let filter = |is_active| ContainerFilter {
        kind: Workspace,
        is_active,
        organization_id: Some(acme.id.clone()),
    };
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let filter = filter(None);
        let page = store
            .list_containers(&filter, &Viewer::Administrator, after.as_ref(), 2)
            .await
            .unwrap();
        let Some(last) = page.last() else { break };
        after = Some(Cursor { created_at: last.created_at, id: last.id.clone() });
        paged.extend(page);
    }
    assert_eq!(paged, newest_first);
    let active =
        store.list_containers(&filter(Some(true)), &Viewer::Administrator, None, 9).await.unwrap();
    assert_eq!(active.len(), 5);
    let inactive =
        store.list_containers(&filter(Some(false)), &Viewer::Administrator, None, 9).await.unwrap();
    assert_eq!(inactive.len(), 1);
}

async fn containers_are_seen_by_who_belongs_to_them(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (acme, other) = (store.organization("acme").await, store.organization("other").await);
    let notes = store.workspace(&acme, "notes").await;
    store.workspace(&acme, "tasks").await;
    store.workspace(&other, "elsewhere").await;
    let users = ["of-acme", "of-notes", "stranger"].map(|handle| store.user(handle));
    let [of_acme, of_notes, stranger] = users;
    let (of_acme, of_notes, stranger) = (of_acme.await, of_notes.await, stranger.await);
    store.join(&of_acme, &acme, Role::Guest).await;
    store.join(&of_notes, &notes, Role::Guest).await;
    for (viewer, organizations, workspaces) in [
        (Viewer::Administrator, "acme other", "elsewhere notes tasks"),
        (seen_by(&of_acme), "acme", "notes tasks"),
        (seen_by(&of_notes), "acme", "notes"),
        (seen_by(&stranger), "", ""),
        (within(&of_acme, &notes), "acme", "notes"),
        (within(&of_notes, &notes), "acme", "notes"),
        (within(&stranger, &notes), "", ""),
    ] {
        assert_eq!(store.slugs(Organization, &viewer).await, organizations, "{viewer:?}");
        assert_eq!(store.slugs(Workspace, &viewer).await, workspaces, "{viewer:?}");
    }
    let name = ContainerName::Organization(slug("other"));
    assert_eq!(store.container(&name, &seen_by(&of_acme)).await.unwrap(), None);
}

fn within(user: &User, workspace: &Container) -> Viewer {
    let within = (workspace.id.clone(), workspace.organization().to_owned());
    Viewer::User { id: user.id.clone(), within: Some(within) }
}

async fn membership_is_made_changed_and_ended_and_touches_its_user(engine: Engine) {
    let store = TestStore::new(engine).await;
    let alice = store.user("alice").await;
    let acme = store.organization("acme").await;
    let notes = store.workspace(&acme, "notes").await;
    let in_workspace = format!(r#"[["member","{}","{}"]]"#, alice.id, notes.id);
    let mut touched = Vec::new();
    for (container, touches) in
        [(&acme, format!("[{}]", touched_user(&alice))), (&notes, in_workspace)]
    {
        let head = store.head().await.unwrap().number;
        let none = MembershipPut { expects: Expects::None, ..put(&alice, container, Role::Member) };
        let changes = puts(&[none]);
        let (made, revision) =
            store.change_memberships(&changes, &store.actor_at(1)).await.unwrap();
        let [made] = &made[..] else { panic!("{made:?}") };
        assert_eq!((&made.user_id, made.kind), (&alice.id, container.kind()));
        assert_eq!((&made.container_id, made.role), (&container.id, Role::Member));
        assert_eq!(made.created_at, at(1));
        let read = store.membership(&alice.id, container.kind(), &container.id).await.unwrap();
        assert_eq!(read.as_ref(), Some(made));
        assert_eq!(revision.number, head + 1);
        let refused = store.change(&changes).await;
        assert_eq!(one_of_many(refused), (0, "another record has this membership".to_owned()));

        let one = MembershipPut { expects: Expects::One, ..put(&alice, container, Role::Admin) };
        let (changed, revision) = store.change(&puts(slice::from_ref(&one))).await.unwrap();
        assert_eq!(changed, [Membership { role: Role::Admin, ..made.clone() }], "with its id");
        assert_eq!(revision.number, head + 2);
        let (ended, revision) = store.change(&puts(&[end(&alice, container)])).await.unwrap();
        assert_eq!(ended, []);
        assert_eq!(revision.number, head + 3);
        assert_eq!(store.role(&alice, container).await, None);
        let refused = store.change(&puts(&[one])).await;
        assert_eq!(one_of_many(refused), (0, "refused: no such membership".to_owned()));
        touched.extend(vec![touches; 3]);
        assert_eq!(store.touched().await, touched);
    }
}

async fn change_of_memberships_that_changes_nothing_leaves_no_trace(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let acme = store.organization("acme").await;
    let wanted = [put(&alice, &acme, Role::Owner), end(&bob, &acme)];
    let changes = MembershipChanges {
        puts: wanted.to_vec(),
        only: Some(OnlyMemberships { user: alice.id.clone(), organization_id: None }),
    };
    let (made, _) = store.change(&changes).await.unwrap();
    let trace = store.trace().await;
    let again = store.change_memberships(&changes, &store.actor_at(1)).await.unwrap();
    assert_eq!(again, (made, trace.0));
    assert_eq!(store.trace().await, trace);
}

async fn change_of_memberships_is_done_whole_or_not_and_says_which_stood_against_it(
    engine: Engine,
) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let gone = store.user("gone").await;
    store.delete_user(&UserRef::Id(gone.id.clone()), &store.actor()).await.unwrap();
    let acme = store.organization("acme").await;
    let notes = store.workspace(&acme, "notes").await;
    let nowhere = Container { id: random::id(at(0)), ..acme.clone() };
    let no_workspace = Container { organization_id: Some(acme.id.clone()), ..nowhere.clone() };
    let trace = store.trace().await;
    for (at_fault, why) in [
        (put(&gone, &acme, Role::Member), "refused: no such owner"),
        (end(&gone, &acme), "refused: no such owner"),
        (put(&bob, &nowhere, Role::Member), "refused: no such organization"),
        (put(&bob, &no_workspace, Role::Member), "refused: no such workspace"),
        (
            MembershipPut { expects: Expects::One, ..put(&bob, &notes, Role::Owner) },
            "refused: no such membership",
        ),
    ] {
        let refused = store.change(&puts(&[put(&alice, &acme, Role::Owner), at_fault])).await;
        assert_eq!(one_of_many(refused), (1, why.to_owned()));
    }
    assert_eq!(store.trace().await, trace);
    assert_eq!(store.role(&alice, &acme).await, None);
}

async fn memberships_that_are_not_among_the_only_ones_end(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let (acme, other) = (store.organization("acme").await, store.organization("other").await);
    let (notes, tasks) =
        (store.workspace(&acme, "notes").await, store.workspace(&acme, "tasks").await);
    for container in [&acme, &notes, &other] {
        store.join(&alice, container, Role::Member).await;
        store.join(&bob, container, Role::Member).await;
    }
    let only = |organization_id| Some(OnlyMemberships { user: alice.id.clone(), organization_id });
    let changes = MembershipChanges {
        puts: vec![put(&alice, &acme, Role::Admin), put(&alice, &tasks, Role::Owner)],
        only: only(Some(acme.id.clone())),
    };
    let (set, _) = store.change(&changes).await.unwrap();
    assert_eq!(set.iter().map(|it| it.role).collect::<Vec<_>>(), [Role::Admin, Role::Owner]);
    let mut roles = Vec::new();
    for container in [&acme, &notes, &tasks, &other] {
        roles.push(store.role(&alice, container).await);
    }
    assert_eq!(roles, [Some(Role::Admin), None, Some(Role::Owner), Some(Role::Member)]);

    let head = store.head().await.unwrap().number;
    let (_, revision) =
        store.change(&MembershipChanges { puts: Vec::new(), only: only(None) }).await.unwrap();
    assert_eq!(revision.number, head + 1, "one change, however many end");
    for container in [&acme, &tasks, &other] {
        assert_eq!(store.role(&alice, container).await, None);
    }
    for container in [&acme, &notes, &other] {
        assert_eq!(store.role(&bob, container).await, Some(Role::Member));
    }
}

async fn who_leaves_or_becomes_a_guest_loses_the_tokens_bound_to_the_workspace_for_good(
    engine: Engine,
) {
    let store = TestStore::new(engine).await;
    let alice = store.user("alice").await;
    let acme = store.organization("acme").await;
    let (notes, tasks) =
        (store.workspace(&acme, "notes").await, store.workspace(&acme, "tasks").await);
    for container in [&acme, &notes, &tasks] {
        store.join(&alice, container, Role::Member).await;
    }
    let (unbound, elsewhere) = (store.unbound(&alice).await, store.bound(&alice, &tasks).await);
    for loses in [end(&alice, &notes), put(&alice, &notes, Role::Guest)] {
        let bound = store.bound(&alice, &notes).await;
        for role in [Role::Admin, Role::Owner, Role::Member] {
            store.join(&alice, &notes, role).await;
            assert!(store.is_live(&bound).await, "{role:?}");
        }
        store.change(&puts(&[loses])).await.unwrap();
        assert!(!store.is_live(&bound).await);
        store.join(&alice, &notes, Role::Owner).await;
        assert!(!store.is_live(&bound).await, "it comes back, its token does not");
        assert!(store.is_live(&store.bound(&alice, &notes).await).await);
    }
    // To be a guest of the organization, or to leave it, is no matter of tokens.
    store.join(&alice, &acme, Role::Guest).await;
    store.change(&puts(&[end(&alice, &acme)])).await.unwrap();
    assert!(store.is_live(&unbound).await && store.is_live(&elsewhere).await);
}

async fn memberships_are_seen_by_their_user_and_by_who_manages_the_organization(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (acme, other) = (store.organization("acme").await, store.organization("other").await);
    let (notes, there) =
        (store.workspace(&acme, "notes").await, store.workspace(&other, "there").await);
    let (olga, max) = (store.user("olga").await, store.user("max").await);
    store.join(&olga, &acme, Role::Owner).await;
    store.join(&olga, &there, Role::Owner).await;
    store.join(&max, &acme, Role::Member).await;
    store.join(&max, &notes, Role::Admin).await;
    store.join(&max, &there, Role::Member).await;
    let list = async |viewer: &Viewer, user: Option<&User>, container: Option<&Container>| {
        let filter = MembershipFilter {
            user: user.map(|user| user.id.clone()),
            container: container.map(|container| (container.kind(), container.id.clone())),
        };
        let seen = store.list_memberships(&filter, viewer, None, 99).await.unwrap();
        let mut seen: Vec<_> = seen
            .iter()
            .map(|it| {
                let user = if it.user_id == olga.id { "olga" } else { "max" };
                let all = [(&acme, "acme"), (&notes, "notes"), (&there, "there")];
                let (_, place) = all.iter().find(|(place, _)| place.id == it.container_id).unwrap();
                format!("{user}@{place}")
            })
            .collect();
        seen.sort();
        seen.join(" ")
    };
    let all = Viewer::Administrator;
    assert_eq!(list(&all, None, None).await, "max@acme max@notes max@there olga@acme olga@there");
    assert_eq!(list(&all, Some(&max), None).await, "max@acme max@notes max@there");
    assert_eq!(list(&all, None, Some(&acme)).await, "max@acme olga@acme");
    assert_eq!(list(&all, None, Some(&there)).await, "max@there olga@there");
    assert_eq!(list(&all, Some(&max), Some(&notes)).await, "max@notes");
    let olgas = seen_by(&olga);
    assert_eq!(list(&olgas, None, None).await, "max@acme max@notes olga@acme olga@there");
    assert_eq!(list(&olgas, Some(&max), None).await, "max@acme max@notes");
    assert_eq!(list(&olgas, None, Some(&there)).await, "olga@there");
    assert_eq!(list(&seen_by(&max), None, None).await, "max@acme max@notes max@there");
    assert_eq!(list(&seen_by(&max), Some(&olga), None).await, "");
    assert_eq!(list(&within(&olga, &notes), None, None).await, "olga@acme");
    assert_eq!(list(&within(&max, &notes), None, None).await, "max@acme max@notes");
}

async fn pages_of_memberships_lose_and_double_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let acme = store.organization("acme").await;
    let mut newest_first = Vec::new();
    for (number, later) in [0, 1, 1, 1, 2].into_iter().enumerate() {
        let user = store.user(&format!("user-{number}")).await;
        let changes = puts(&[put(&user, &acme, Role::Member)]);
        let (made, _) = store.change_memberships(&changes, &store.actor_at(later)).await.unwrap();
        newest_first.extend(made);
    }
    newest_first.sort_by(|a, b| (b.created_at, &b.id).cmp(&(a.created_at, &a.id)));
    let container = Some((Organization, acme.id));
    for filter in [MembershipFilter::default(), MembershipFilter { user: None, container }] {
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = store
                .list_memberships(&filter, &Viewer::Administrator, after.as_ref(), 2)
                .await
                .unwrap();
            let Some(last) = page.last() else { break };
            after = Some(Cursor { created_at: last.created_at, id: last.id.clone() });
            paged.extend(page);
        }
        assert_eq!(paged, newest_first);
    }
}

async fn manager_who_is_none_any_more_changes_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (olga, max) = (store.user("olga").await, store.user("max").await);
    let (acme, other) = (store.organization("acme").await, store.organization("other").await);
    let token = store.unbound(&olga).await;
    let actor = manager(&store, &olga, &token, &acme);
    let changes = puts(&[put(&max, &acme, Role::Member)]);
    store.join(&olga, &other, Role::Owner).await;
    for role in [None, Some(Role::Member), Some(Role::Guest)] {
        let role = MembershipPut { role, ..put(&olga, &acme, Role::Guest) };
        store.change(&puts(&[role])).await.unwrap();
        let trace = store.trace().await;
        let refused = store.change_memberships(&changes, &actor).await;
        assert_eq!(refusal(refused), Refusal::CallerRole);
        assert_eq!(store.trace().await, trace);
    }
    for role in [Role::Owner, Role::Admin] {
        store.join(&olga, &acme, role).await;
        store.change_memberships(&changes, &actor).await.unwrap();
        store.change(&puts(&[end(&max, &acme)])).await.unwrap();
    }
    // One of several is not enough; an administrator needs none.
    let Basis::Manager(mut managed) = actor.basis.clone() else { unreachable!() };
    let elsewhere = store.organization("elsewhere").await;
    managed.push(Managed { organization_id: elsewhere.id, workspace_id: None });
    let of_both = Actor { basis: Basis::Manager(managed), ..actor };
    let refused = store.change_memberships(&changes, &of_both).await;
    assert_eq!(refusal(refused), Refusal::CallerRole);
    let up = UserChanges { is_admin: Some(true), ..unchanged() };
    store.update(&olga, up).await.unwrap();
    store.change_memberships(&changes, &of_both).await.unwrap();
}

async fn manager_who_is_demoted_while_its_change_waits_changes_nothing(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (olga, max) = (store.user("olga").await, store.user("max").await);
    let acme = store.organization("acme").await;
    let token = store.unbound(&olga).await;
    let actor = manager(&store, &olga, &token, &acme);
    let membership = store.join(&olga, &acme, Role::Owner).await;
    let mut demotion = Sql::open(&store.place).await;
    demotion.run(begin(engine)).await.unwrap();
    let demote = format!("UPDATE memberships SET role = 'member' WHERE id = '{}'", membership.id);
    demotion.run(&demote).await.unwrap();
    let change = tokio::spawn({
        let inner = Arc::clone(&store.store);
        let changes = puts(&[put(&max, &acme, Role::Owner)]);
        async move { inner.change_memberships(&changes, &actor).await }
    });
    store.until_it_waits(&change).await;
    demotion.run("COMMIT").await.unwrap();
    assert_eq!(refusal(change.await.unwrap()), Refusal::CallerRole);
    assert_eq!(store.role(&max, &acme).await, None);
}

async fn revocation_of_all_tokens_of_something_ends_those_and_none_made_later(engine: Engine) {
    let store = TestStore::new(engine).await;
    let (alice, bob) = (store.user("alice").await, store.user("bob").await);
    let acme = store.organization("acme").await;
    let (notes, tasks) =
        (store.workspace(&acme, "notes").await, store.workspace(&acme, "tasks").await);
    for workspace in [&notes, &tasks] {
        store.join(&alice, workspace, Role::Member).await;
        store.join(&bob, workspace, Role::Member).await;
    }
    let reason = "leaked".parse().unwrap();
    for (of, touched, ended) in [
        (
            TokensOf::User(alice.id.clone()),
            format!(r#"["user","{}"]"#, alice.id),
            [true, true, false, false, false],
        ),
        (
            TokensOf::Workspace(notes.id.clone()),
            format!(r#"["workspace","{}"]"#, notes.id),
            [false, true, false, true, false],
        ),
        (
            TokensOf::Organization(acme.id.clone()),
            format!(r#"["organization","{}"]"#, acme.id),
            [false, true, false, true, true],
        ),
        (TokensOf::All, r#"["everything"]"#.to_owned(), [true; 5]),
    ] {
        let caller = store.unbound(&store.administrator).await;
        let before = [
            store.unbound(&alice).await,
            store.bound(&alice, &notes).await,
            store.unbound(&bob).await,
            store.bound(&bob, &notes).await,
            store.bound(&bob, &tasks).await,
        ];
        let head = store.head().await.unwrap().number;
        let actor = store.actor_with(&caller.id);
        let revision = store.revoke_tokens(&of, &reason, &actor).await.unwrap().unwrap();
        assert_eq!(revision.number, head + 1, "{of:?}");
        assert_eq!(store.touched().await.last(), Some(&format!("[{touched}]")));
        for (token, ended) in before.iter().zip(ended) {
            assert_eq!(store.is_live(token).await, !ended, "{of:?} {token:?}");
        }
        for later in [store.unbound(&alice).await, store.bound(&bob, &notes).await] {
            assert!(store.is_live(&later).await, "{of:?}");
        }
    }
    let details = "SELECT DISTINCT details FROM audit WHERE action = 'tokens.revoke'";
    assert_eq!(store.texts(details).await, [r#"{"reason":"leaked"}"#]);

    let trace = store.trace().await;
    let caller = store.actor_with(&store.unbound(&store.administrator).await.id);
    for of in [
        TokensOf::User(new_user("nobody").id),
        TokensOf::Workspace(acme.id.clone()),
        TokensOf::Organization(notes.id.clone()),
    ] {
        assert_eq!(store.revoke_tokens(&of, &reason, &caller).await.unwrap(), None, "{of:?}");
    }
    assert_eq!(store.head().await.unwrap(), trace.0);
}

async fn caller_may_end_its_own_tokens_and_its_own_user_but_not_when_revoked(engine: Engine) {
    let store = TestStore::new(engine).await;
    let reason = "".parse().unwrap();
    let deputy = NewUser { is_admin: true, ..new_user("deputy") };
    let (deputy, _) = store.insert_user(&deputy, &store.actor()).await.unwrap();
    let name = UserRef::Id(deputy.id.clone());
    let calling = async || {
        let token = store.unbound(&deputy).await;
        let actor = store.actor_with_owner(&token, &deputy);
        (token, Actor { basis: Basis::Administrator, ..actor })
    };
    for of in [TokensOf::User(deputy.id.clone()), TokensOf::All] {
        let (token, actor) = calling().await;
        store.revoke_tokens(&of, &reason, &actor).await.unwrap().unwrap();
        assert!(!store.is_live(&token).await);
        let trace = store.trace().await;
        let again = store.revoke_tokens(&of, &reason, &actor).await;
        assert_eq!(refusal(again), Refusal::CallerRevoked, "{of:?}");
        let deleted = store.delete_user(&name, &actor).await;
        assert_eq!(refusal(deleted), Refusal::CallerRevoked, "{of:?}");
        assert_eq!(store.trace().await, trace);
    }
    let (_, actor) = calling().await;
    let (deleted, _) = store.delete_user(&name, &actor).await.unwrap().unwrap();
    assert!(deleted.deleted_at.is_some());
}
