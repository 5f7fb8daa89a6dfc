//! The people, places and things that the table of rights is played with, and the
//! calls: right in everything but, perhaps, their caller.

use std::{
    collections::HashMap,
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use token_authority::proto::v1::{
    ApiClientAuthorization, BatchVerifyRequest, CreateApiClientAuthorizationRequest,
    CreateMembershipRequest, CreateOrganizationRequest, CreatePersonalAccessTokenRequest,
    CreateSystemAuthRequest, CreateUserRequest, CreateWorkspaceRequest,
    DeleteApiClientAuthorizationRequest, DeleteMembershipRequest, DeleteUserRequest,
    GetApiClientAuthorizationRequest, GetCurrentApiClientAuthorizationRequest,
    GetMembershipRequest, GetOrganizationRequest, GetPersonalAccessTokenRequest, GetUserRequest,
    GetWorkspaceRequest, ListApiClientAuthorizationsRequest, ListAvailablePatScopesRequest,
    ListMembershipsRequest, ListOrganizationsRequest, ListPersonalAccessTokensRequest,
    ListUsageRequest, ListUsersRequest, ListWorkspacesRequest, MembershipGrant, MembershipRole,
    MembershipUpsert, OrganizationUpsert, ReportUseRequest, RevokePersonalAccessTokenRequest,
    RevokeTokensRequest, RotatePersonalAccessTokenRequest, ScopeList, SetMembershipsRequest,
    StreamVerifyRequest, UpdateApiClientAuthorizationRequest, UpdateMembershipRequest,
    UpdateOrganizationRequest, UpdatePersonalAccessTokenRequest, UpdateUserRequest,
    UpdateWorkspaceRequest, UpsertMembershipsRequest, UpsertOrganizationsRequest,
    UpsertUsersRequest, UpsertWorkspacesRequest, UserUpsert, VerifyRequest, WatchRequest,
    WhoAmIRequest, WorkspaceCreatePatRequest, WorkspaceListPatsRequest, WorkspaceRevokePatRequest,
    WorkspaceUpdatePatRequest, WorkspaceUpsert,
    api_client_authorizations_client::ApiClientAuthorizationsClient, create_membership_request,
    credentials_client::CredentialsClient, delete_membership_request,
    directory_client::DirectoryClient, get_membership_request, list_memberships_request,
    membership_grant, membership_upsert, personal_access_tokens_client::PersonalAccessTokensClient,
    revoke_tokens_request::Target, update_membership_request,
    verification_client::VerificationClient,
};
use tokio::sync::Mutex;
use tonic::Status;

use super::{made, named_x, with_scopes};
use crate::support::{
    Engine,
    server::{self as store, As, TestServer},
};

/// Well formed, and of nothing that there is.
pub(super) const UNKNOWN: &str = "0198c0de-0000-7000-8000-000000000001";
const UNKNOWN_USER: &str = "zzzzz-tpzed-000000000000001";
const UNKNOWN_AUTHORIZATION: &str = "zzzzz-gj3su-000000000000001";

/// The text of the system root token.
pub(super) const ROOT: &str = "RootTokenOfTheTestOfWhoMayDoWhat01234567";

/// A place that a call names, or that a thing belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Nowhere,
    /// The workspace concerned.
    Home,
    /// Another workspace of its organization.
    Sibling,
    /// That organization itself.
    Org,
    /// A workspace of another organization.
    Elsewhere,
    Unknown,
}

/// Whom a call names, or whose the thing is that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Nobody is named.
    Nobodys,
    /// The caller's user.
    Own,
    /// A member of [`Place::Home`] and of [`Place::Elsewhere`], no administrator.
    Peers,
    /// An administrator who is a member of [`Place::Home`].
    Chiefs,
    /// A member of nothing, no administrator.
    Outsiders,
}

impl Whose {
    /// The person, where `caller` calls.
    fn person(self, caller: Person) -> Option<Person> {
        match self {
            Self::Nobodys => None,
            Self::Own => Some(caller),
            Self::Peers => Some(PEER),
            Self::Chiefs => Some(CHIEF),
            Self::Outsiders => Some(OUTSIDER),
        }
    }
}

/// What a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct On(pub(super) Whose, pub(super) Place);

/// A user, and what it belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    pub(super) handle: &'static str,
    pub(super) is_admin: bool,
    home: Option<MembershipRole>,
    org: Option<MembershipRole>,
    elsewhere: Option<MembershipRole>,
}

const fn person(handle: &'static str) -> Person {
    Person { handle, is_admin: false, home: None, org: None, elsewhere: None }
}

const fn administrator(handle: &'static str) -> Person {
    Person { is_admin: true, ..person(handle) }
}

impl Person {
    const fn home(self, role: MembershipRole) -> Self {
        Self { home: Some(role), ..self }
    }

    const fn org(self, role: MembershipRole) -> Self {
        Self { org: Some(role), ..self }
    }

    const fn elsewhere(self, role: MembershipRole) -> Self {
        Self { elsewhere: Some(role), ..self }
    }

    /// Whether it is the user as whom the system root token acts.
    pub(super) fn is_system(&self) -> bool {
        self.handle == SYSTEM.handle
    }

    /// As what it belongs to the very place.
    pub(super) fn role_in(&self, place: Place) -> Option<MembershipRole> {
        match place {
            Place::Home => self.home,
            Place::Org => self.org,
            Place::Elsewhere => self.elsewhere,
            Place::Nowhere | Place::Sibling | Place::Unknown => None,
        }
    }

    /// As what it belongs to the organization that a place belongs to.
    fn role_above(&self, place: Place) -> Option<MembershipRole> {
        match place {
            Place::Home | Place::Sibling | Place::Org => self.org,
            Place::Nowhere | Place::Elsewhere | Place::Unknown => None,
        }
    }

    /// Whether it belongs to a workspace, and may have tokens bound to it.
    pub(super) fn is_member(&self, place: Place) -> bool {
        self.role_in(place).is_some_and(|role| role != MembershipRole::Guest)
    }

    pub(super) fn manages_organization_of(&self, place: Place) -> bool {
        self.is_admin || self.role_above(place).is_some_and(manages)
    }

    pub(super) fn manages(&self, place: Place) -> bool {
        self.manages_organization_of(place) || self.role_in(place).is_some_and(manages)
    }

    /// Whether it belongs to a place or to the organization that this belongs to.
    pub(super) fn belongs_to(&self, place: Place) -> bool {
        self.role_in(place).is_some() || self.role_above(place).is_some()
    }
}

fn manages(role: MembershipRole) -> bool {
    matches!(role, MembershipRole::Owner | MembershipRole::Admin)
}

use MembershipRole::{Admin, Guest, Member, Owner};

/// Those who call.
const PEOPLE: [Person; 11] = [
    administrator("administrator"),
    administrator("administrator-inside").home(Member).elsewhere(Member),
    person("stranger"),
    person("guest").home(Guest),
    person("member").home(Member).elsewhere(Member),
    person("workspace-admin").home(Admin),
    person("workspace-owner").home(Owner).elsewhere(Member),
    person("organization-member").org(Member),
    person("organization-admin").org(Admin),
    person("organization-owner").org(Owner),
    person("organization-owner-inside").org(Owner).home(Member),
];

const PEER: Person = person("peer").home(Member).elsewhere(Member);
const CHIEF: Person = administrator("chief").home(Member);
const OUTSIDER: Person = person("outsider");
pub(super) const SYSTEM: Person = administrator("system");

/// The person of the list above.
pub(super) fn known(handle: &str) -> Person {
    *PEOPLE.iter().chain([&SYSTEM]).find(|person| person.handle == handle).unwrap()
}

/// What the API client authorizations that calls are about may do.
const NARROW: [&str; 1] = ["GET /notes/"];

/// The ids of two of somebody's tokens: the first call that may revoke the second
/// does, and others find it revoked, which is success too.
struct Kept {
    kept: String,
    revoked: String,
}

pub(super) struct World {
    pub(super) server: TestServer,
    users: HashMap<&'static str, String>,
    tokens: HashMap<(&'static str, Place), Kept>,
    /// The uuids of API client authorizations that stay.
    authorizations: HashMap<&'static str, String>,
    /// Those of others: the first call that may end one, or make more of it, does.
    spares: Mutex<HashMap<&'static str, Vec<String>>>,
    /// Numbers of users.
    numbers: HashMap<&'static str, i64>,
    places: HashMap<Place, String>,
    /// Organizations: that of [`Place::Elsewhere`], and one that nobody minds.
    other: String,
    scratch: String,
    names: AtomicUsize,
    appointing: Mutex<()>,
}

async fn start(store: store::Place, more: &[&str]) -> TestServer {
    let root = format!("--system-root-token-file={}", store.path("root-token").display());
    TestServer::start_on(store, &[&[&*root], more].concat()).await
}

impl World {
    pub(super) async fn new(engine: Engine) -> Self {
        let store = store::Place::new(engine).await;
        fs::write(store.path("root-token"), ROOT).unwrap();
        let server = start(store, &[]).await;
        let organization = async |slug: &str| {
            let external_id = Some(format!("ext-{slug}"));
            let [slug, name] = [slug.to_owned(), slug.to_owned()];
            let request = CreateOrganizationRequest { slug, name, external_id, is_active: None };
            let answer = server.directory(&server.admin).create_organization(request).await;
            answer.unwrap().into_inner().organization.unwrap().id
        };
        let workspace = async |organization: &str, slug: &str| {
            let request = CreateWorkspaceRequest {
                organization: organization.to_owned(),
                slug: slug.to_owned(),
                name: slug.to_owned(),
                external_id: Some(format!("ext-{slug}")),
                is_active: None,
            };
            let answer = server.directory(&server.admin).create_workspace(request).await;
            answer.unwrap().into_inner().workspace.unwrap().id
        };
        let [org, other, scratch] =
            [organization("org").await, organization("other").await, organization("scratch").await];
        let places = HashMap::from([
            (Place::Home, workspace(&org, "home").await),
            (Place::Sibling, workspace(&org, "sibling").await),
            (Place::Elsewhere, workspace(&other, "elsewhere").await),
            (Place::Org, org),
            (Place::Unknown, UNKNOWN.to_owned()),
        ]);
        let mut world = Self {
            server,
            users: HashMap::new(),
            tokens: HashMap::new(),
            authorizations: HashMap::new(),
            spares: Mutex::default(),
            numbers: HashMap::new(),
            places,
            other,
            scratch,
            names: AtomicUsize::new(0),
            appointing: Mutex::new(()),
        };
        for person in PEOPLE.iter().chain([&PEER, &CHIEF, &OUTSIDER]) {
            world.settle(person).await;
        }
        world.users.insert(SYSTEM.handle, "zzzzz-tpzed-000000000000000".to_owned());
        world.authorize(&SYSTEM).await;
        for handle in ["moved", "left", "appointed", "deleted", "revoked"] {
            world.users.insert(handle, world.server.user(handle).await.id);
        }
        for place in [Place::Home, Place::Sibling, Place::Org, Place::Elsewhere] {
            world.join("moved", place, Member).await;
        }
        world
    }

    /// The same over a server with another setting.
    pub(super) async fn restart(self, setting: &str) -> Self {
        let server = start(self.server.stop().await, &[setting]).await;
        Self { server, ..self }
    }

    /// Makes a person, its memberships, and the tokens that others ask for.
    async fn settle(&mut self, person: &Person) {
        let user = if person.is_admin {
            self.server.administrator(person.handle).await
        } else {
            self.server.user(person.handle).await
        };
        self.users.insert(person.handle, user.id);
        self.authorize(person).await;
        for place in [Place::Home, Place::Org, Place::Elsewhere] {
            if let Some(role) = person.role_in(place) {
                self.join(person.handle, place, role).await;
            }
        }
        for place in [Place::Nowhere, Place::Home, Place::Elsewhere] {
            if place == Place::Nowhere || person.is_member(place) {
                let (_, kept) = self.token_for(person, &[], place).await;
                let (_, revoked) = self.token_for(person, &[], place).await;
                self.tokens.insert((person.handle, place), Kept { kept, revoked });
            }
        }
    }

    /// Makes the API client authorizations of a person that others ask for.
    async fn authorize(&mut self, person: &Person) {
        let kept = self.authorization_for(person.handle, &NARROW).await;
        let spare = self.authorization_for(person.handle, &NARROW).await;
        self.numbers.insert(person.handle, kept.user_id());
        self.authorizations.insert(person.handle, kept.uuid.unwrap());
        self.spares.get_mut().insert(person.handle, vec![spare.uuid.unwrap()]);
    }

    /// An API client authorization that the first administrator makes.
    pub(super) async fn authorization_for(
        &self,
        handle: &str,
        scopes: &[&str],
    ) -> ApiClientAuthorization {
        self.server.authorization_of(&self.user(handle), Some(scopes)).await
    }

    /// A call about an API client authorization that it may end or change.
    async fn about_a_spare(
        &self,
        person: Option<Person>,
        call: impl AsyncFnOnce(String) -> Result<(), Status>,
    ) -> Result<(), Status> {
        let Some(Person { handle, .. }) = person else {
            return call(UNKNOWN_AUTHORIZATION.to_owned()).await;
        };
        let spare = self.spares.lock().await.get_mut(handle).and_then(Vec::pop);
        let uuid = match spare {
            Some(uuid) => uuid,
            None => self.authorization_for(handle, &NARROW).await.uuid.unwrap(),
        };
        let answer = call(uuid.clone()).await;
        if answer.is_err() {
            self.spares.lock().await.get_mut(handle).unwrap().push(uuid);
        }
        answer
    }

    pub(super) async fn join(&self, handle: &str, place: Place, role: MembershipRole) {
        let request =
            UpsertMembershipsRequest { memberships: vec![self.upsert(handle, place, role)] };
        self.server.directory(&self.server.admin).upsert_memberships(request).await.unwrap();
    }

    /// A token that the first administrator makes: its text and its id.
    pub(super) async fn token_for(
        &self,
        person: &Person,
        scopes: &[&str],
        place: Place,
    ) -> (String, String) {
        let request = CreatePersonalAccessTokenRequest {
            user_id: Some(self.user(person.handle)),
            workspace_id: self.places.get(&place).cloned(),
            ..with_scopes(scopes)
        };
        let mut tokens = self.server.tokens(&self.server.admin);
        let created = tokens.create_personal_access_token(request).await.unwrap().into_inner();
        let id = made(&created).id.clone();
        (created.token, id)
    }

    pub(super) fn user(&self, handle: &str) -> String {
        self.users[handle].clone()
    }

    /// The id of a workspace, or of [`Place::Org`].
    pub(super) fn place(&self, place: Place) -> String {
        self.places[&place].clone()
    }

    /// The organization of a place.
    pub(super) fn organization(&self, place: Place) -> String {
        match place {
            Place::Home | Place::Sibling | Place::Org => self.place(Place::Org),
            Place::Elsewhere => self.other.clone(),
            Place::Unknown => UNKNOWN.to_owned(),
            Place::Nowhere => self.scratch.clone(),
        }
    }

    /// How Workspace… RPCs name a workspace: by its organization, and in this.
    pub(super) fn path(&self, place: Place) -> (String, String) {
        (self.organization(place), self.place(place))
    }

    fn named(&self, caller: &Person, whose: Whose) -> Option<String> {
        whose.person(*caller).map(|person| self.user(person.handle))
    }

    /// Whether the thing that a call is about can be there.
    pub(super) fn has(&self, caller: &Person, On(whose, place): On) -> bool {
        whose.person(*caller).is_none_or(|person| self.tokens.contains_key(&(person.handle, place)))
    }

    /// The id of somebody's token.
    fn token(&self, caller: &Person, On(whose, place): On, is_revoked: bool) -> String {
        let Some(person) = whose.person(*caller) else { return UNKNOWN.to_owned() };
        let tokens = &self.tokens[&(person.handle, place)];
        if is_revoked { tokens.revoked.clone() } else { tokens.kept.clone() }
    }

    fn fresh(&self) -> String {
        format!("new-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    fn upsert(&self, handle: &str, place: Place, role: MembershipRole) -> MembershipUpsert {
        use membership_upsert::Container::{Organization, Workspace};
        let id = self.place(place);
        let container = if place == Place::Org { Organization(id) } else { Workspace(id) };
        MembershipUpsert { user: self.user(handle), container: Some(container), role: role.into() }
    }

    fn grant(&self, place: Place) -> MembershipGrant {
        use membership_grant::Container::{Organization, Workspace};
        let id = self.place(place);
        let container = if place == Place::Org { Organization(id) } else { Workspace(id) };
        MembershipGrant { container: Some(container), role: Member.into() }
    }

    /// One call of `Service/Method`.
    pub(super) async fn call(
        &self,
        method: &str,
        channel: As,
        caller: &Person,
        on: On,
    ) -> Result<(), Status> {
        match method.split_once('/').unwrap() {
            ("Verification", name) => call_verification(name, channel).await,
            ("ApiClientAuthorizations", name) => {
                self.call_authorizations(name, channel, caller, on).await
            }
            ("PersonalAccessTokens", name) if name.starts_with("Workspace") => {
                self.call_workspace_tokens(name, channel, caller, on).await
            }
            ("PersonalAccessTokens", name) => self.call_tokens(name, channel, caller, on).await,
            ("Directory", name) if name.contains("Membership") => {
                self.call_memberships(name, channel, caller, on).await
            }
            ("Directory", name) if name.contains("User") || name == "RevokeTokens" => {
                self.call_users(name, channel, caller, on).await
            }
            ("Directory", name) => self.call_places(name, channel, on).await,
            ("Credentials", name) => self.call_credentials(name, channel, caller, on).await,
            (service, _) => unreachable!("{service} is not called here"),
        }
    }

    /// At [`Place::Home`], what administrators alone may ask: a uuid of their choice,
    /// another user for what is there. At [`Place::Elsewhere`], more scopes for that.
    async fn call_authorizations(
        &self,
        name: &str,
        channel: As,
        caller: &Person,
        On(whose, place): On,
    ) -> Result<(), Status> {
        let mut client = ApiClientAuthorizationsClient::new(channel);
        let person = whose.person(*caller);
        let kept = match person {
            Some(person) => self.authorizations[person.handle].clone(),
            None => UNKNOWN_AUTHORIZATION.to_owned(),
        };
        let list = |scopes: &[&str]| {
            Some(ScopeList { values: scopes.iter().map(ToString::to_string).collect() })
        };
        match name {
            "CreateApiClientAuthorization" => {
                let owner_uuid = match place {
                    Place::Unknown => Some(UNKNOWN_USER.to_owned()),
                    Place::Nowhere
                    | Place::Home
                    | Place::Sibling
                    | Place::Org
                    | Place::Elsewhere => self.named(caller, whose),
                };
                let uuid = (place == Place::Home).then(|| {
                    format!("zzzzz-gj3su-1{:014}", self.names.fetch_add(1, Ordering::Relaxed))
                });
                let request =
                    CreateApiClientAuthorizationRequest { uuid, owner_uuid, ..Default::default() };
                client.create_api_client_authorization(request).await.map(drop)
            }
            "CreateSystemAuth" => {
                client.create_system_auth(CreateSystemAuthRequest::default()).await.map(drop)
            }
            "DeleteApiClientAuthorization" => {
                self.about_a_spare(person, async |uuid| {
                    let request = DeleteApiClientAuthorizationRequest { uuid };
                    client.delete_api_client_authorization(request).await.map(drop)
                })
                .await
            }
            "GetApiClientAuthorization" => {
                let request = GetApiClientAuthorizationRequest { uuid: kept, ..Default::default() };
                client.get_api_client_authorization(request).await.map(drop)
            }
            "GetCurrentApiClientAuthorization" => {
                let request = GetCurrentApiClientAuthorizationRequest::default();
                client.get_current_api_client_authorization(request).await.map(drop)
            }
            "ListApiClientAuthorizations" => {
                let request = ListApiClientAuthorizationsRequest::default();
                client.list_api_client_authorizations(request).await.map(drop)
            }
            "UpdateApiClientAuthorization" => {
                let mut update = UpdateApiClientAuthorizationRequest::default();
                match place {
                    Place::Home => update.user_id = Some(self.numbers[OUTSIDER.handle]),
                    Place::Elsewhere => update.scopes = list(&["GET /notes/", "GET /mail/"]),
                    Place::Nowhere | Place::Sibling | Place::Org | Place::Unknown => {
                        let (uuid, scopes) = (kept, list(&["GET /notes/mine"]));
                        let request =
                            UpdateApiClientAuthorizationRequest { uuid, scopes, ..update };
                        return client.update_api_client_authorization(request).await.map(drop);
                    }
                }
                self.about_a_spare(person, async |uuid| {
                    let request = UpdateApiClientAuthorizationRequest { uuid, ..update };
                    client.update_api_client_authorization(request).await.map(drop)
                })
                .await
            }
            name => unreachable!("{name} is not called here"),
        }
    }

    async fn call_credentials(
        &self,
        name: &str,
        channel: As,
        caller: &Person,
        On(whose, _): On,
    ) -> Result<(), Status> {
        let mut client = CredentialsClient::new(channel);
        let id = match whose.person(*caller) {
            Some(person) => self.authorizations[person.handle].clone(),
            None => UNKNOWN.to_owned(),
        };
        match name {
            "ListUsage" => {
                let request = ListUsageRequest { id, ..Default::default() };
                client.list_usage(request).await.map(drop)
            }
            name => unreachable!("{name} is not called here"),
        }
    }

    async fn call_tokens(
        &self,
        name: &str,
        channel: As,
        caller: &Person,
        on: On,
    ) -> Result<(), Status> {
        let mut client = PersonalAccessTokensClient::new(channel);
        let On(whose, place) = on;
        let user_id = self.named(caller, whose);
        let id = || self.token(caller, on, false);
        match name {
            "ListAvailablePatScopes" => {
                let request = ListAvailablePatScopesRequest {};
                client.list_available_pat_scopes(request).await.map(drop)
            }
            "CreatePersonalAccessToken" => {
                let workspace_id = self.places.get(&place).cloned();
                let request =
                    CreatePersonalAccessTokenRequest { user_id, workspace_id, ..named_x() };
                client.create_personal_access_token(request).await.map(drop)
            }
            "ListPersonalAccessTokens" => {
                let request = ListPersonalAccessTokensRequest { user_id, ..Default::default() };
                client.list_personal_access_tokens(request).await.map(drop)
            }
            "GetPersonalAccessToken" => {
                let request = GetPersonalAccessTokenRequest { id: id() };
                client.get_personal_access_token(request).await.map(drop)
            }
            "UpdatePersonalAccessToken" => {
                let name = Some("renamed".to_owned());
                let request =
                    UpdatePersonalAccessTokenRequest { id: id(), name, ..Default::default() };
                client.update_personal_access_token(request).await.map(drop)
            }
            "RevokePersonalAccessToken" => {
                let id = self.token(caller, on, true);
                let request = RevokePersonalAccessTokenRequest { id, include_descendants: false };
                client.revoke_personal_access_token(request).await.map(drop)
            }
            "RotatePersonalAccessToken" => {
                let request = RotatePersonalAccessTokenRequest { id: id(), ..Default::default() };
                client.rotate_personal_access_token(request).await.map(drop)
            }
            name => unreachable!("{name} is not called here"),
        }
    }

    /// The workspace that is named is [`Place::Home`], but for one that nobody knows
    /// where the thing is nobody's, and by those which name users.
    async fn call_workspace_tokens(
        &self,
        name: &str,
        channel: As,
        caller: &Person,
        on: On,
    ) -> Result<(), Status> {
        let mut client = PersonalAccessTokensClient::new(channel);
        let On(whose, place) = on;
        let user_id = self.named(caller, whose);
        let (org, workspace) = match (name, whose) {
            ("WorkspaceCreatePat" | "WorkspaceListPats", _) | (_, Whose::Nobodys) => {
                self.path(place)
            }
            _ => self.path(Place::Home),
        };
        match name {
            "WorkspaceCreatePat" => {
                let name = "x".to_owned();
                let request = WorkspaceCreatePatRequest {
                    org,
                    workspace,
                    name,
                    user_id,
                    ..Default::default()
                };
                client.workspace_create_pat(request).await.map(drop)
            }
            "WorkspaceListPats" => {
                let request =
                    WorkspaceListPatsRequest { org, workspace, user_id, ..Default::default() };
                client.workspace_list_pats(request).await.map(drop)
            }
            "WorkspaceUpdatePat" => {
                let id = self.token(caller, on, false);
                let name = Some("renamed".to_owned());
                let request =
                    WorkspaceUpdatePatRequest { org, workspace, id, name, ..Default::default() };
                client.workspace_update_pat(request).await.map(drop)
            }
            "WorkspaceRevokePat" => {
                let id = self.token(caller, on, true);
                let include_descendants = false;
                let request = WorkspaceRevokePatRequest { org, workspace, id, include_descendants };
                client.workspace_revoke_pat(request).await.map(drop)
            }
            name => unreachable!("{name} is not called here"),
        }
    }

    /// About [`Whose::Chiefs`], a change appoints an administrator.
    async fn call_users(
        &self,
        name: &str,
        channel: As,
        caller: &Person,
        On(whose, place): On,
    ) -> Result<(), Status> {
        let mut client = DirectoryClient::new(channel);
        let is_admin = whose == Whose::Chiefs;
        match name {
            "GetUser" => {
                let user = self.named(caller, whose).unwrap_or(UNKNOWN.to_owned());
                client.get_user(GetUserRequest { user }).await.map(drop)
            }
            "ListUsers" => client.list_users(ListUsersRequest::default()).await.map(drop),
            "CreateUser" => {
                let request =
                    CreateUserRequest { handle: self.fresh(), is_admin, ..Default::default() };
                client.create_user(request).await.map(drop)
            }
            "UpdateUser" if is_admin => {
                // It is appointed by one at a time.
                let _appointing = self.appointing.lock().await;
                let user = self.user("appointed");
                let request =
                    UpdateUserRequest { user, is_admin: Some(true), ..Default::default() };
                client.update_user(request.clone()).await?;
                let dismissed = UpdateUserRequest { is_admin: Some(false), ..request };
                self.server.directory(&self.server.admin).update_user(dismissed).await.map(drop)
            }
            "UpdateUser" => {
                let user = self.named(caller, whose).unwrap_or(UNKNOWN.to_owned());
                let display_name = Some("Renamed".to_owned());
                let request = UpdateUserRequest { user, display_name, ..Default::default() };
                client.update_user(request).await.map(drop)
            }
            "UpsertUsers" => {
                let external_id = if is_admin { self.fresh() } else { "upserted".to_owned() };
                let is_admin = is_admin.then_some(true);
                let user = UserUpsert { external_id, is_admin, ..Default::default() };
                client.upsert_users(UpsertUsersRequest { users: vec![user] }).await.map(drop)
            }
            "DeleteUser" => {
                let user = self.user("deleted");
                client.delete_user(DeleteUserRequest { user }).await.map(drop)
            }
            "RevokeTokens" => {
                let target = match (whose, place) {
                    (Whose::Nobodys, Place::Nowhere) => Target::All(true),
                    (Whose::Nobodys, Place::Sibling) => Target::Workspace(self.place(place)),
                    (Whose::Nobodys, _) => Target::Organization(self.scratch.clone()),
                    _ => Target::User(self.user("revoked")),
                };
                let request = RevokeTokensRequest { target: Some(target), reason: String::new() };
                client.revoke_tokens(request).await.map(drop)
            }
            name => unreachable!("{name} is not called here"),
        }
    }

    /// Organizations and workspaces; what is written is in none that somebody minds.
    async fn call_places(&self, name: &str, channel: As, On(_, place): On) -> Result<(), Status> {
        let mut client = DirectoryClient::new(channel);
        let [scratch, name_of_it] = [self.scratch.clone(), "Renamed".to_owned()];
        let organization = || (place != Place::Nowhere).then(|| self.organization(place));
        match name {
            "CreateOrganization" => {
                let [slug, name] = [self.fresh(), name_of_it];
                let request = CreateOrganizationRequest { slug, name, ..Default::default() };
                client.create_organization(request).await.map(drop)
            }
            "GetOrganization" => {
                let request = GetOrganizationRequest { organization: self.organization(place) };
                client.get_organization(request).await.map(drop)
            }
            "ListOrganizations" => {
                client.list_organizations(ListOrganizationsRequest::default()).await.map(drop)
            }
            "UpdateOrganization" => {
                let request = UpdateOrganizationRequest {
                    organization: scratch,
                    name: Some(name_of_it),
                    ..Default::default()
                };
                client.update_organization(request).await.map(drop)
            }
            "UpsertOrganizations" => {
                let organization = OrganizationUpsert {
                    external_id: "ext-scratch".to_owned(),
                    ..Default::default()
                };
                let request = UpsertOrganizationsRequest { organizations: vec![organization] };
                client.upsert_organizations(request).await.map(drop)
            }
            "CreateWorkspace" => {
                let [slug, name, organization] = [self.fresh(), name_of_it, scratch];
                let request =
                    CreateWorkspaceRequest { organization, slug, name, ..Default::default() };
                client.create_workspace(request).await.map(drop)
            }
            "GetWorkspace" => {
                let request =
                    GetWorkspaceRequest { workspace: self.place(place), organization: None };
                client.get_workspace(request).await.map(drop)
            }
            "ListWorkspaces" => {
                let request =
                    ListWorkspacesRequest { organization: organization(), ..Default::default() };
                client.list_workspaces(request).await.map(drop)
            }
            "UpdateWorkspace" => {
                let request = UpdateWorkspaceRequest {
                    workspace: self.place(Place::Sibling),
                    name: Some(name_of_it),
                    ..Default::default()
                };
                client.update_workspace(request).await.map(drop)
            }
            "UpsertWorkspaces" => {
                let workspace =
                    WorkspaceUpsert { external_id: "ext-sibling".to_owned(), ..Default::default() };
                let request = UpsertWorkspacesRequest { workspaces: vec![workspace] };
                client.upsert_workspaces(request).await.map(drop)
            }
            name => unreachable!("{name} is not called here"),
        }
    }

    /// What is written is of `moved`, who has it already, or `left`, who has nothing.
    async fn call_memberships(
        &self,
        name: &str,
        channel: As,
        caller: &Person,
        On(whose, place): On,
    ) -> Result<(), Status> {
        let mut client = DirectoryClient::new(channel);
        macro_rules! container {
            ($of:ident) => {{
                use $of::Container::{Organization, Workspace};
                let id = self.places.get(&place).cloned();
                id.map(|id| if place == Place::Org { Organization(id) } else { Workspace(id) })
            }};
        }
        let user = self.named(caller, whose);
        match name {
            "GetMembership" => {
                let request = GetMembershipRequest {
                    user: user.unwrap(),
                    container: container!(get_membership_request),
                };
                client.get_membership(request).await.map(drop)
            }
            "ListMemberships" => {
                let container = container!(list_memberships_request);
                let request = ListMembershipsRequest { user, container, ..Default::default() };
                client.list_memberships(request).await.map(drop)
            }
            "CreateMembership" => {
                let request = CreateMembershipRequest {
                    user: self.user("moved"),
                    container: container!(create_membership_request),
                    role: Member.into(),
                };
                client.create_membership(request).await.map(drop)
            }
            "UpdateMembership" => {
                let request = UpdateMembershipRequest {
                    user: self.user("moved"),
                    container: container!(update_membership_request),
                    role: Some(Member.into()),
                    update_mask: None,
                };
                client.update_membership(request).await.map(drop)
            }
            "DeleteMembership" => {
                let user = self.user("left");
                let container = container!(delete_membership_request);
                client
                    .delete_membership(DeleteMembershipRequest { user, container })
                    .await
                    .map(drop)
            }
            "UpsertMemberships" => {
                let places = if place == Place::Nowhere {
                    vec![Place::Sibling, Place::Elsewhere]
                } else {
                    vec![place]
                };
                let memberships =
                    places.into_iter().map(|place| self.upsert("moved", place, Member)).collect();
                let request = UpsertMembershipsRequest { memberships };
                client.upsert_memberships(request).await.map(drop)
            }
            "SetMemberships" => {
                let all = [Place::Home, Place::Sibling, Place::Org, Place::Elsewhere];
                let of_place = |other: &Place| {
                    place == Place::Nowhere || self.organization(*other) == self.organization(place)
                };
                let request = SetMembershipsRequest {
                    user: self.user("moved"),
                    organization: (place != Place::Nowhere).then(|| self.organization(place)),
                    memberships: all
                        .into_iter()
                        .filter(of_place)
                        .map(|place| self.grant(place))
                        .collect(),
                };
                client.set_memberships(request).await.map(drop)
            }
            name => unreachable!("{name} is not called here"),
        }
    }
}

async fn call_verification(name: &str, channel: As) -> Result<(), Status> {
    let mut client = VerificationClient::new(channel);
    match name {
        "Verify" => {
            let request = VerifyRequest { token: "x".to_owned(), ..Default::default() };
            client.verify(request).await.map(drop)
        }
        "BatchVerify" => client.batch_verify(BatchVerifyRequest::default()).await.map(drop),
        "StreamVerify" => {
            client.stream_verify(tokio_stream::empty::<StreamVerifyRequest>()).await.map(drop)
        }
        "Watch" => client.watch(tokio_stream::empty::<WatchRequest>()).await.map(drop),
        "ReportUse" => client.report_use(ReportUseRequest::default()).await.map(drop),
        "WhoAmI" => client.who_am_i(WhoAmIRequest {}).await.map(drop),
        name => unreachable!("{name} is not called here"),
    }
}
