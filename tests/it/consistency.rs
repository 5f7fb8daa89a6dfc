//! What an answer of Verify knows of, and how soon: in the process that made a change,
//! in every other one, and while the store is away.

mod again;
mod freshness;
mod kept;
mod many;
mod misses;
mod processes;
mod sight;
mod watch;

use std::{fs, time::Duration};

use token_authority::proto::v1::{
    ApiClientAuthorization, Consistency, CreateApiClientAuthorizationRequest,
    CreateOrganizationRequest, CreatePersonalAccessTokenRequest, CreatePersonalAccessTokenResponse,
    CreateUserRequest, CreateWorkspaceRequest, DeleteApiClientAuthorizationRequest,
    DeleteMembershipRequest, DeleteUserRequest, MembershipRole, MembershipUpsert, Reason,
    RevokeTokensRequest, RotatePersonalAccessTokenRequest, ScopeList,
    UpdateApiClientAuthorizationRequest, UpdateOrganizationRequest, UpdateUserRequest,
    UpdateWorkspaceRequest, UpsertMembershipsRequest, VerifyRequest, VerifyResponse,
    consistency::Requirement, delete_membership_request::Container as Left, membership_upsert,
    revoke_tokens_request::Target,
};
use tonic::Status;

use crate::support::{
    Engine,
    client::Client,
    server::{Place, TestServer, v2},
};

/// The statements by which one token, and several, are looked up, and the one that asks
/// for changes.
const LOOKUP: &str = "s.digest IN (";
const LOOKUPS: &str = "s.digest = k.digest";
const CHANGES: &str = "LEFT JOIN changes c";

/// How old an answer may be, unless the server is told otherwise.
const BOUND: Duration = Duration::from_secs(2);

/// Longer than any test takes: nothing is too old before the test lets time pass.
const LONG: &str = "--max-staleness=600s";
const LONGER: Duration = Duration::from_secs(601);

fn client(server: &TestServer) -> Client {
    Client::over(server.channel.clone(), &server.admin)
}

fn question(token: &str) -> VerifyRequest {
    VerifyRequest { token: token.to_owned(), ..Default::default() }
}

async fn ask(by: &Client, question: &VerifyRequest) -> Result<VerifyResponse, Status> {
    Ok(by.verification().verify(question.clone()).await?.into_inner())
}

/// A question that sets how new its answer must be.
fn asking(
    token: &str,
    requirement: Option<Requirement>,
    max_stale: Option<Duration>,
) -> VerifyRequest {
    let max_stale = max_stale.map(|max_stale| max_stale.try_into().unwrap());
    VerifyRequest { consistency: Some(Consistency { requirement, max_stale }), ..question(token) }
}

fn at_least(revision: &str) -> Option<Requirement> {
    Some(Requirement::MinRevision(revision.to_owned()))
}

fn fully() -> Option<Requirement> {
    Some(Requirement::FullyConsistent(true))
}

/// A new user.
async fn user(by: &Client, handle: &str) -> String {
    let request = CreateUserRequest { handle: handle.to_owned(), ..Default::default() };
    by.directory().create_user(request).await.unwrap().into_inner().user.unwrap().id
}

/// A new token of a user.
async fn token(
    by: &Client,
    user_id: &str,
    scopes: &[&str],
    workspace_id: Option<&str>,
) -> CreatePersonalAccessTokenResponse {
    let request = CreatePersonalAccessTokenRequest {
        name: "of a test".to_owned(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        user_id: Some(user_id.to_owned()),
        workspace_id: workspace_id.map(ToOwned::to_owned),
        ..Default::default()
    };
    by.tokens().create_personal_access_token(request).await.unwrap().into_inner()
}

fn id_of(created: &CreatePersonalAccessTokenResponse) -> String {
    created.personal_access_token.as_ref().unwrap().id.clone()
}

/// Another process on the database of the first, by the way that the URL is.
async fn beside(first: &TestServer, url: String, more: &[&str]) -> TestServer {
    let mut place = Place::new(Engine::Sqlite).await;
    place.database_url = Some(url);
    fs::create_dir(place.path("data")).unwrap();
    fs::copy(first.place.path("data/admin.token"), place.path("data/admin.token")).unwrap();
    TestServer::start_on(place, more).await
}

fn url_of(server: &TestServer) -> &str {
    server.place.database_url.as_deref().unwrap()
}

/// A change that alters what is answered about a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    TokenRevoked,
    TokenRotated,
    TokensOfUserRevoked,
    TokensOfWorkspaceRevoked,
    TokensOfOrganizationRevoked,
    UserDeactivated,
    UserDeleted,
    WorkspaceDeactivated,
    OrganizationDeactivated,
    WorkspaceLeftByItsToken,
    WorkspaceLeft,
    ScopesReplaced,
    EndSet,
    AuthorizationDeleted,
    UserNamed,
}

impl Change {
    const ALL: [Self; 15] = [
        Self::TokenRevoked,
        Self::TokenRotated,
        Self::TokensOfUserRevoked,
        Self::TokensOfWorkspaceRevoked,
        Self::TokensOfOrganizationRevoked,
        Self::UserDeactivated,
        Self::UserDeleted,
        Self::WorkspaceDeactivated,
        Self::OrganizationDeactivated,
        Self::WorkspaceLeftByItsToken,
        Self::WorkspaceLeft,
        Self::ScopesReplaced,
        Self::EndSet,
        Self::AuthorizationDeleted,
        Self::UserNamed,
    ];

    /// Whether the question is answered as it must be after the change.
    fn is_seen(self, told: &VerifyResponse) -> bool {
        match self {
            Self::TokenRevoked
            | Self::TokensOfUserRevoked
            | Self::TokensOfWorkspaceRevoked
            | Self::TokensOfOrganizationRevoked
            | Self::WorkspaceLeftByItsToken
            | Self::AuthorizationDeleted => told.reason() == Reason::Revoked,
            Self::UserDeactivated => told.reason() == Reason::OwnerInactive,
            Self::WorkspaceDeactivated | Self::OrganizationDeactivated => {
                told.reason() == Reason::WorkspaceInactive
            }
            Self::WorkspaceLeft => told.reason() == Reason::WrongWorkspace,
            Self::ScopesReplaced => told.reason() == Reason::InsufficientScope,
            Self::EndSet => told.reason() == Reason::Expired,
            Self::TokenRotated | Self::UserDeleted => !told.active,
            Self::UserNamed => told.active && told.user_external_id() == "new:name",
        }
    }
}

/// A token, and everything that can be changed about it.
struct Subject {
    change: Change,
    user: String,
    organization: String,
    workspace: String,
    id: String,
    /// A token of the user's that may change it.
    owner: String,
    question: VerifyRequest,
}

impl Subject {
    /// One that is good until the change is made.
    async fn of(change: Change, by: &Client, name: &str) -> Self {
        let user = user(by, name).await;
        let mut directory = by.directory();
        let organization = CreateOrganizationRequest {
            slug: format!("org-{name}"),
            name: "Organization".to_owned(),
            ..Default::default()
        };
        let organization = directory.create_organization(organization).await.unwrap();
        let organization = organization.into_inner().organization.unwrap().id;
        let workspace = CreateWorkspaceRequest {
            organization: organization.clone(),
            slug: name.to_owned(),
            name: "Workspace".to_owned(),
            ..Default::default()
        };
        let workspace = directory.create_workspace(workspace).await.unwrap();
        let workspace = workspace.into_inner().workspace.unwrap().id;
        let membership = MembershipUpsert {
            user: user.clone(),
            container: Some(membership_upsert::Container::Workspace(workspace.clone())),
            role: MembershipRole::Member.into(),
        };
        let request = UpsertMembershipsRequest { memberships: vec![membership] };
        directory.upsert_memberships(request).await.unwrap();
        let (id, owner, question) = match change {
            Change::ScopesReplaced | Change::EndSet | Change::AuthorizationDeleted => {
                let made = authorization(by, &user, &["GET /things"]).await;
                let question = VerifyRequest {
                    request_method: Some("GET".to_owned()),
                    request_path: Some("/things".to_owned()),
                    ..question(&v2(&made))
                };
                let owner = v2(&authorization(by, &user, &["all"]).await);
                (made.uuid().to_owned(), owner, question)
            }
            Change::TokensOfWorkspaceRevoked
            | Change::TokensOfOrganizationRevoked
            | Change::WorkspaceDeactivated
            | Change::OrganizationDeactivated
            | Change::WorkspaceLeftByItsToken => {
                let made = token(by, &user, &[], Some(&workspace)).await;
                (id_of(&made), made.token.clone(), question(&made.token))
            }
            Change::WorkspaceLeft => {
                let made = token(by, &user, &[], None).await;
                let workspace_id = Some(workspace.clone());
                let question = VerifyRequest { workspace_id, ..question(&made.token) };
                (id_of(&made), made.token, question)
            }
            Change::TokenRevoked
            | Change::TokenRotated
            | Change::TokensOfUserRevoked
            | Change::UserDeactivated
            | Change::UserDeleted
            | Change::UserNamed => {
                let made = token(by, &user, &["write:tokens"], None).await;
                (id_of(&made), made.token.clone(), question(&made.token))
            }
        };
        Self { change, user, organization, workspace, id, owner, question }
    }

    /// Makes the change, as an administrator or, where only the owner may, as it.
    async fn change(&self, by: &Client) {
        let as_owner = by.presenting(&self.owner);
        let Self { user, organization, workspace, id, .. } = self;
        let (mut directory, mut authorizations) = (by.directory(), as_owner.authorizations());
        let revoke = async |target| {
            let request = RevokeTokensRequest { target: Some(target), ..Default::default() };
            by.directory().revoke_tokens(request).await.map(drop)
        };
        match self.change {
            Change::TokenRevoked => by.revoke(id).await.map(drop),
            Change::TokenRotated => {
                let overlap = Some(prost_types::Duration::default());
                let request = RotatePersonalAccessTokenRequest {
                    id: id.clone(),
                    overlap,
                    ..Default::default()
                };
                as_owner.tokens().rotate_personal_access_token(request).await.map(drop)
            }
            Change::TokensOfUserRevoked => revoke(Target::User(user.clone())).await,
            Change::TokensOfWorkspaceRevoked => revoke(Target::Workspace(workspace.clone())).await,
            Change::TokensOfOrganizationRevoked => {
                revoke(Target::Organization(organization.clone())).await
            }
            Change::UserDeactivated => {
                let request = UpdateUserRequest {
                    user: user.clone(),
                    is_active: Some(false),
                    ..Default::default()
                };
                directory.update_user(request).await.map(drop)
            }
            Change::UserNamed => {
                let request = UpdateUserRequest {
                    user: user.clone(),
                    external_id: Some("new:name".to_owned()),
                    ..Default::default()
                };
                directory.update_user(request).await.map(drop)
            }
            Change::UserDeleted => {
                directory.delete_user(DeleteUserRequest { user: user.clone() }).await.map(drop)
            }
            Change::WorkspaceDeactivated => {
                let request = UpdateWorkspaceRequest {
                    workspace: workspace.clone(),
                    is_active: Some(false),
                    ..Default::default()
                };
                directory.update_workspace(request).await.map(drop)
            }
            Change::OrganizationDeactivated => {
                let request = UpdateOrganizationRequest {
                    organization: organization.clone(),
                    is_active: Some(false),
                    ..Default::default()
                };
                directory.update_organization(request).await.map(drop)
            }
            Change::WorkspaceLeftByItsToken | Change::WorkspaceLeft => {
                let request = DeleteMembershipRequest {
                    user: user.clone(),
                    container: Some(Left::Workspace(workspace.clone())),
                };
                directory.delete_membership(request).await.map(drop)
            }
            Change::ScopesReplaced | Change::EndSet => {
                let is_end = self.change == Change::EndSet;
                let request = UpdateApiClientAuthorizationRequest {
                    uuid: id.clone(),
                    scopes: (!is_end).then(|| ScopeList { values: vec!["GET /others".to_owned()] }),
                    expires_at: is_end.then_some(prost_types::Timestamp { seconds: 1, nanos: 0 }),
                    ..Default::default()
                };
                authorizations.update_api_client_authorization(request).await.map(drop)
            }
            Change::AuthorizationDeleted => {
                let request = DeleteApiClientAuthorizationRequest { uuid: id.clone() };
                authorizations.delete_api_client_authorization(request).await.map(drop)
            }
        }
        .unwrap_or_else(|status| panic!("{:?}: {status}", self.change));
    }
}

/// A new API client authorization of a user.
async fn authorization(by: &Client, user: &str, scopes: &[&str]) -> ApiClientAuthorization {
    let request = CreateApiClientAuthorizationRequest {
        owner_uuid: Some(user.to_owned()),
        scopes: Some(ScopeList { values: scopes.iter().map(ToString::to_string).collect() }),
        ..Default::default()
    };
    let made = by.authorizations().create_api_client_authorization(request).await.unwrap();
    made.into_inner().api_client_authorization.unwrap()
}
