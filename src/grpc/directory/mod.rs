//! The service `Directory`. What requests hold is parsed, and answers are
//! converted, in the files beside this one.

mod containers;
mod memberships;
mod users;

use tonic::{Request, Response, Status};

use super::{caller, parse::Fields};
use crate::{
    directory::{Directory, Tokens},
    domain::{Container, ContainerKind, Membership, User},
    proto::v1::{self as proto, revoke_tokens_request::Target},
    rights,
    store::{Cursor, UserFilter},
};
use containers::{organization, workspace};
use memberships::membership;
use users::user;

pub(super) struct Service(pub(super) Directory);

#[tonic::async_trait]
impl proto::directory_server::Directory for Service {
    async fn create_user(
        &self,
        request: Request<proto::CreateUserRequest>,
    ) -> Result<Response<proto::CreateUserResponse>, Status> {
        let caller = caller(&request)?;
        let new = users::new(request.into_inner())?;
        let (made, revision) = self.0.create_user(&caller, new).await?;
        Ok(Response::new(proto::CreateUserResponse {
            user: Some(user(made)),
            revision: revision.to_string(),
        }))
    }

    async fn get_user(
        &self,
        request: Request<proto::GetUserRequest>,
    ) -> Result<Response<proto::GetUserResponse>, Status> {
        let caller = caller(&request)?;
        let mut fields = Fields::default();
        let name = fields.parse("user", &request.into_inner().user);
        let name = fields.require("user", name)?;
        let found = self.0.user(&caller, &name).await?;
        Ok(Response::new(proto::GetUserResponse { user: Some(user(found)) }))
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let page = fields.page(&rights::LIST_USERS, &request);
        let filter = UserFilter {
            is_active: request.is_active,
            is_admin: request.is_admin,
            kind: request.kind.and_then(|number| users::kind(&mut fields, number)),
            with_deleted: request.show_deleted,
        };
        fields.check()?;

        let rows = self.0.list_users(&caller, &filter, page.after.as_ref(), page.limit()).await?;
        let cursor = |user: &User| Cursor { created_at: user.created_at, id: user.id.to_string() };
        let (users, next_page_token) = page.of(rows, cursor, user);
        Ok(Response::new(proto::ListUsersResponse { users, next_page_token }))
    }

    async fn update_user(
        &self,
        request: Request<proto::UpdateUserRequest>,
    ) -> Result<Response<proto::UpdateUserResponse>, Status> {
        let caller = caller(&request)?;
        let (name, changes) = users::changes(request.into_inner())?;
        let (updated, revision) = self.0.update_user(&caller, &name, &changes).await?;
        Ok(Response::new(proto::UpdateUserResponse {
            user: Some(user(updated)),
            revision: revision.to_string(),
        }))
    }

    async fn delete_user(
        &self,
        request: Request<proto::DeleteUserRequest>,
    ) -> Result<Response<proto::DeleteUserResponse>, Status> {
        let caller = caller(&request)?;
        let mut fields = Fields::default();
        let name = fields.parse("user", &request.into_inner().user);
        let name = fields.require("user", name)?;
        let (deleted, revision) = self.0.delete_user(&caller, &name).await?;
        Ok(Response::new(proto::DeleteUserResponse {
            user: Some(user(deleted)),
            revision: revision.to_string(),
        }))
    }

    async fn upsert_users(
        &self,
        request: Request<proto::UpsertUsersRequest>,
    ) -> Result<Response<proto::UpsertUsersResponse>, Status> {
        let caller = caller(&request)?;
        let upserts = users::upserts(request.into_inner().users)?;
        let (upserted, revision) = self.0.upsert_users(&caller, upserts).await?;
        Ok(Response::new(proto::UpsertUsersResponse {
            users: upserted.into_iter().map(user).collect(),
            revision: revision.to_string(),
        }))
    }

    async fn create_organization(
        &self,
        request: Request<proto::CreateOrganizationRequest>,
    ) -> Result<Response<proto::CreateOrganizationResponse>, Status> {
        let caller = caller(&request)?;
        let new = containers::new_organization(request.into_inner())?;
        let (made, revision) = self.0.create_container(&caller, new).await?;
        Ok(Response::new(proto::CreateOrganizationResponse {
            organization: Some(organization(made)),
            revision: revision.to_string(),
        }))
    }

    async fn get_organization(
        &self,
        request: Request<proto::GetOrganizationRequest>,
    ) -> Result<Response<proto::GetOrganizationResponse>, Status> {
        let caller = caller(&request)?;
        let mut fields = Fields::default();
        let name = containers::organization_name(&mut fields, &request.into_inner().organization);
        let name = fields.require("organization", name)?;
        let found = self.0.container(&caller, &name).await?;
        Ok(Response::new(proto::GetOrganizationResponse {
            organization: Some(organization(found)),
        }))
    }

    async fn list_organizations(
        &self,
        request: Request<proto::ListOrganizationsRequest>,
    ) -> Result<Response<proto::ListOrganizationsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let page = fields.page(&rights::LIST_ORGANIZATIONS, &request);
        fields.check()?;

        let kind = ContainerKind::Organization;
        let after = page.after.as_ref();
        let rows = self
            .0
            .list_containers(&caller, kind, None, request.is_active, after, page.limit())
            .await?;
        let (organizations, next_page_token) = page.of(rows, place, organization);
        Ok(Response::new(proto::ListOrganizationsResponse { organizations, next_page_token }))
    }

    async fn update_organization(
        &self,
        request: Request<proto::UpdateOrganizationRequest>,
    ) -> Result<Response<proto::UpdateOrganizationResponse>, Status> {
        let caller = caller(&request)?;
        let (name, changes) = containers::organization_changes(request.into_inner())?;
        let (updated, revision) = self.0.update_container(&caller, &name, &changes).await?;
        Ok(Response::new(proto::UpdateOrganizationResponse {
            organization: Some(organization(updated)),
            revision: revision.to_string(),
        }))
    }

    async fn upsert_organizations(
        &self,
        request: Request<proto::UpsertOrganizationsRequest>,
    ) -> Result<Response<proto::UpsertOrganizationsResponse>, Status> {
        let caller = caller(&request)?;
        let upserts = containers::organization_upserts(request.into_inner().organizations)?;
        let kind = ContainerKind::Organization;
        let (upserted, revision) = self.0.upsert_containers(&caller, kind, upserts).await?;
        Ok(Response::new(proto::UpsertOrganizationsResponse {
            organizations: upserted.into_iter().map(organization).collect(),
            revision: revision.to_string(),
        }))
    }

    async fn create_workspace(
        &self,
        request: Request<proto::CreateWorkspaceRequest>,
    ) -> Result<Response<proto::CreateWorkspaceResponse>, Status> {
        let caller = caller(&request)?;
        let new = containers::new_workspace(request.into_inner())?;
        let (made, revision) = self.0.create_container(&caller, new).await?;
        Ok(Response::new(proto::CreateWorkspaceResponse {
            workspace: Some(workspace(made)),
            revision: revision.to_string(),
        }))
    }

    async fn get_workspace(
        &self,
        request: Request<proto::GetWorkspaceRequest>,
    ) -> Result<Response<proto::GetWorkspaceResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let organization = request.organization.as_deref();
        let name = containers::workspace_name(&mut fields, &request.workspace, organization);
        let name = fields.require("workspace", name)?;
        let found = self.0.container(&caller, &name).await?;
        Ok(Response::new(proto::GetWorkspaceResponse { workspace: Some(workspace(found)) }))
    }

    async fn list_workspaces(
        &self,
        request: Request<proto::ListWorkspacesRequest>,
    ) -> Result<Response<proto::ListWorkspacesResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let page = fields.page(&rights::LIST_WORKSPACES, &request);
        let of = fields.parse_if_set("organization", request.organization.as_deref());
        fields.check()?;

        let kind = ContainerKind::Workspace;
        let after = page.after.as_ref();
        let rows = self
            .0
            .list_containers(&caller, kind, of, request.is_active, after, page.limit())
            .await?;
        let (workspaces, next_page_token) = page.of(rows, place, workspace);
        Ok(Response::new(proto::ListWorkspacesResponse { workspaces, next_page_token }))
    }

    async fn update_workspace(
        &self,
        request: Request<proto::UpdateWorkspaceRequest>,
    ) -> Result<Response<proto::UpdateWorkspaceResponse>, Status> {
        let caller = caller(&request)?;
        let (name, changes) = containers::workspace_changes(request.into_inner())?;
        let (updated, revision) = self.0.update_container(&caller, &name, &changes).await?;
        Ok(Response::new(proto::UpdateWorkspaceResponse {
            workspace: Some(workspace(updated)),
            revision: revision.to_string(),
        }))
    }

    async fn upsert_workspaces(
        &self,
        request: Request<proto::UpsertWorkspacesRequest>,
    ) -> Result<Response<proto::UpsertWorkspacesResponse>, Status> {
        let caller = caller(&request)?;
        let upserts = containers::workspace_upserts(request.into_inner().workspaces)?;
        let kind = ContainerKind::Workspace;
        let (upserted, revision) = self.0.upsert_containers(&caller, kind, upserts).await?;
        Ok(Response::new(proto::UpsertWorkspacesResponse {
            workspaces: upserted.into_iter().map(workspace).collect(),
            revision: revision.to_string(),
        }))
    }

    async fn create_membership(
        &self,
        request: Request<proto::CreateMembershipRequest>,
    ) -> Result<Response<proto::CreateMembershipResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let user = fields.parse("user", &request.user);
        let grant = memberships::grant(&mut fields, request.container, request.role);
        let (user, grant) = (fields.require("user", user)?, fields.require("container", grant)?);

        let (made, revision) = self.0.create_membership(&caller, &user, &grant).await?;
        Ok(Response::new(proto::CreateMembershipResponse {
            membership: Some(membership(made)),
            revision: revision.to_string(),
        }))
    }

    async fn get_membership(
        &self,
        request: Request<proto::GetMembershipRequest>,
    ) -> Result<Response<proto::GetMembershipResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let fields = Fields::default();
        let (user, container) = memberships::named(fields, &request.user, request.container)?;
        let found = self.0.membership(&caller, &user, &container).await?;
        Ok(Response::new(proto::GetMembershipResponse { membership: Some(membership(found)) }))
    }

    async fn list_memberships(
        &self,
        request: Request<proto::ListMembershipsRequest>,
    ) -> Result<Response<proto::ListMembershipsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let page = fields.page(&rights::LIST_MEMBERSHIPS, &request);
        let user = fields.parse_if_set("user", request.user.as_deref());
        let container =
            request.container.and_then(|container| memberships::container(&mut fields, container));
        fields.check()?;

        let rows = self
            .0
            .list_memberships(
                &caller,
                user.as_ref(),
                container.as_ref(),
                page.after.as_ref(),
                page.limit(),
            )
            .await?;
        let cursor = |it: &Membership| Cursor { created_at: it.created_at, id: it.id.clone() };
        let (memberships, next_page_token) = page.of(rows, cursor, membership);
        Ok(Response::new(proto::ListMembershipsResponse { memberships, next_page_token }))
    }

    async fn update_membership(
        &self,
        request: Request<proto::UpdateMembershipRequest>,
    ) -> Result<Response<proto::UpdateMembershipResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let mask = fields.mask(request.update_mask, &["role"]);
        let role = mask.pick_filled(&mut fields, "role", request.role);
        let role = role.and_then(|number| memberships::role(&mut fields, number));
        let (user, container) = memberships::named(fields, &request.user, request.container)?;

        let (updated, revision) =
            self.0.update_membership(&caller, &user, &container, role).await?;
        Ok(Response::new(proto::UpdateMembershipResponse {
            membership: Some(membership(updated)),
            revision: revision.to_string(),
        }))
    }

    async fn upsert_memberships(
        &self,
        request: Request<proto::UpsertMembershipsRequest>,
    ) -> Result<Response<proto::UpsertMembershipsResponse>, Status> {
        let caller = caller(&request)?;
        let upserts = memberships::upserts(request.into_inner().memberships)?;
        let (upserted, revision) = self.0.upsert_memberships(&caller, &upserts).await?;
        Ok(Response::new(proto::UpsertMembershipsResponse {
            memberships: upserted.into_iter().map(membership).collect(),
            revision: revision.to_string(),
        }))
    }

    async fn set_memberships(
        &self,
        request: Request<proto::SetMembershipsRequest>,
    ) -> Result<Response<proto::SetMembershipsResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let user = fields.parse("user", &request.user);
        let organization = fields.parse_if_set("organization", request.organization.as_deref());
        let grants = memberships::grants(&mut fields, request.memberships);
        let user = fields.require("user", user)?;

        let (set, revision) = self.0.set_memberships(&caller, &user, organization, &grants).await?;
        Ok(Response::new(proto::SetMembershipsResponse {
            memberships: set.into_iter().map(membership).collect(),
            revision: revision.to_string(),
        }))
    }

    async fn delete_membership(
        &self,
        request: Request<proto::DeleteMembershipRequest>,
    ) -> Result<Response<proto::DeleteMembershipResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let fields = Fields::default();
        let (user, container) = memberships::named(fields, &request.user, request.container)?;
        let revision = self.0.delete_membership(&caller, &user, &container).await?;
        Ok(Response::new(proto::DeleteMembershipResponse { revision: revision.to_string() }))
    }

    async fn revoke_tokens(
        &self,
        request: Request<proto::RevokeTokensRequest>,
    ) -> Result<Response<proto::RevokeTokensResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let reason = fields.parse("reason", &request.reason);
        let tokens = request.target.and_then(|target| tokens(&mut fields, target));
        let (tokens, reason) =
            (fields.require("target", tokens)?, fields.require("reason", reason)?);

        let revision = self.0.revoke_tokens(&caller, &tokens, &reason).await?;
        Ok(Response::new(proto::RevokeTokensResponse { revision: revision.to_string() }))
    }
}

fn tokens(fields: &mut Fields, target: Target) -> Option<Tokens> {
    match target {
        Target::User(name) => fields.parse("user", &name).map(Tokens::User),
        Target::Workspace(name) => {
            containers::workspace_name(fields, &name, None).map(Tokens::Container)
        }
        Target::Organization(name) => {
            containers::organization_name(fields, &name).map(Tokens::Container)
        }
        Target::All(true) => Some(Tokens::All),
        Target::All(false) => {
            fields.wrong("all", "must be true");
            None
        }
    }
}

/// Where a container stands in a list.
fn place(container: &Container) -> Cursor {
    Cursor { created_at: container.created_at, id: container.id.clone() }
}
