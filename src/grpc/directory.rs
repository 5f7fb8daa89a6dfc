use tonic::{Request, Response, Status};

use super::{
    caller,
    parse::{Fields, list_of, page},
    to_timestamp,
};
use crate::{
    directory::{CreateUser, Directory},
    domain::{User, UserKind},
    proto::v1 as proto,
    rights,
    store::{Cursor, UserChanges, UserFilter},
};

pub(super) struct Service(pub(super) Directory);

#[tonic::async_trait]
impl proto::directory_server::Directory for Service {
    async fn create_user(
        &self,
        request: Request<proto::CreateUserRequest>,
    ) -> Result<Response<proto::CreateUserResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let handle = fields.parse("handle", &request.handle);
        let display_name =
            fields.parse_or_clear("display_name", request.display_name.as_deref()).flatten();
        let external_id = fields.parse_if_set("external_id", request.external_id.as_deref());
        let kind = kind(&mut fields, request.kind).unwrap_or(UserKind::Human);
        let new = CreateUser {
            handle: fields.require("handle", handle)?,
            display_name,
            kind,
            is_admin: request.is_admin,
            is_active: request.is_active.unwrap_or(true),
            external_id,
        };

        let (user, revision) = self.0.create_user(&caller, new).await?;
        Ok(Response::new(proto::CreateUserResponse {
            user: Some(message(user)),
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
        let user = self.0.user(&caller, &name).await?;
        Ok(Response::new(proto::GetUserResponse { user: Some(message(user)) }))
    }

    async fn list_users(
        &self,
        request: Request<proto::ListUsersRequest>,
    ) -> Result<Response<proto::ListUsersResponse>, Status> {
        let caller = caller(&request)?;
        let request = request.into_inner();
        let list = list_of(
            &rights::LIST_USERS,
            &proto::ListUsersRequest { page_size: 0, page_token: String::new(), ..request.clone() },
        );
        let mut fields = Fields::default();
        let size = fields.page_size(request.page_size);
        let after = fields.cursor(&request.page_token, list);
        let filter = UserFilter {
            is_active: request.is_active,
            is_admin: request.is_admin,
            kind: request.kind.and_then(|number| kind(&mut fields, number)),
            with_deleted: request.show_deleted,
        };
        fields.check()?;

        let rows = self.0.list_users(&caller, &filter, after.as_ref(), size + 1).await?;
        let cursor = |user: &User| Cursor { created_at: user.created_at, id: user.id.to_string() };
        let (users, next_page_token) = page(rows, size, list, cursor, message);
        Ok(Response::new(proto::ListUsersResponse { users, next_page_token }))
    }

    async fn update_user(
        &self,
        request: Request<proto::UpdateUserRequest>,
    ) -> Result<Response<proto::UpdateUserResponse>, Status> {
        const FIELDS: [&str; 6] =
            ["handle", "display_name", "kind", "is_admin", "is_active", "external_id"];
        let caller = caller(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::default();
        let name = fields.parse("user", &request.user);
        let mask = fields.mask(request.update_mask, &FIELDS);
        let handle = mask.pick_filled(&mut fields, "handle", request.handle.as_deref());
        let display_name = mask.pick("display_name", request.display_name.as_deref(), || Some(""));
        let external_id = mask.pick("external_id", request.external_id.as_deref(), || Some(""));
        let new_kind = mask.pick_filled(&mut fields, "kind", request.kind);
        let changes = UserChanges {
            handle: fields.parse_if_set("handle", handle),
            display_name: fields.parse_or_clear("display_name", display_name),
            kind: new_kind.and_then(|number| {
                let known = kind(&mut fields, number);
                if number == 0 {
                    fields.wrong("kind", "must be said");
                }
                known
            }),
            is_admin: mask.pick_filled(&mut fields, "is_admin", request.is_admin),
            is_active: mask.pick_filled(&mut fields, "is_active", request.is_active),
            external_id: fields.parse_or_clear("external_id", external_id),
        };
        let name = fields.require("user", name)?;

        let (user, revision) = self.0.update_user(&caller, &name, &changes).await?;
        Ok(Response::new(proto::UpdateUserResponse {
            user: Some(message(user)),
            revision: revision.to_string(),
        }))
    }
}

/// The kind of this number; `None` for the unspecified one.
fn kind(fields: &mut Fields, number: i32) -> Option<UserKind> {
    match proto::UserKind::try_from(number) {
        Ok(proto::UserKind::Human) => Some(UserKind::Human),
        Ok(proto::UserKind::Service) => Some(UserKind::Service),
        Ok(proto::UserKind::Unspecified) => None,
        Err(_) => {
            fields.wrong("kind", "is not a kind of user");
            None
        }
    }
}

fn message(user: User) -> proto::User {
    let kind = match user.kind {
        UserKind::Human => proto::UserKind::Human,
        UserKind::Service => proto::UserKind::Service,
    };
    proto::User {
        id: user.id.to_string(),
        handle: user.handle.to_string(),
        display_name: user.display_name.map(|name| name.to_string()).unwrap_or_default(),
        kind: kind.into(),
        is_admin: user.is_admin,
        is_active: user.is_active,
        external_id: user.external_id.map(|id| id.to_string()),
        created_at: Some(to_timestamp(user.created_at)),
        updated_at: Some(to_timestamp(user.updated_at)),
        deleted_at: user.deleted_at.map(to_timestamp),
    }
}
