use std::collections::HashSet;

use tonic::Status;

use crate::{
    directory::{CreateUser, UpsertUser},
    domain::{User, UserKind, UserRef},
    grpc::{parse::Fields, to_timestamp},
    proto::v1 as proto,
    store::UserChanges,
};

pub(super) fn new(request: proto::CreateUserRequest) -> Result<CreateUser, Status> {
    let mut fields = Fields::default();
    let handle = fields.parse("handle", &request.handle);
    let display_name =
        fields.parse_or_clear("display_name", request.display_name.as_deref()).flatten();
    let external_id = fields.parse_if_set("external_id", request.external_id.as_deref());
    let kind = kind(&mut fields, request.kind).unwrap_or(UserKind::Human);
    Ok(CreateUser {
        handle: fields.require("handle", handle)?,
        display_name,
        kind,
        is_admin: request.is_admin,
        is_active: request.is_active.unwrap_or(true),
        external_id,
    })
}

pub(super) fn changes(request: proto::UpdateUserRequest) -> Result<(UserRef, UserChanges), Status> {
    const FIELDS: [&str; 6] =
        ["handle", "display_name", "kind", "is_admin", "is_active", "external_id"];
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
        kind: new_kind.and_then(|number| said_kind(&mut fields, number)),
        is_admin: mask.pick_filled(&mut fields, "is_admin", request.is_admin),
        is_active: mask.pick_filled(&mut fields, "is_active", request.is_active),
        external_id: fields.parse_or_clear("external_id", external_id),
    };
    Ok((fields.require("user", name)?, changes))
}

pub(super) fn upserts(users: Vec<proto::UserUpsert>) -> Result<Vec<UpsertUser>, Status> {
    let mut fields = Fields::default();
    let mut seen = HashSet::new();
    let upserts = fields.each("users", users, |fields, user| {
        let external_id = fields.parse("external_id", &user.external_id);
        fields.once("external_id", &mut seen, external_id.clone());
        let changes = UserChanges {
            handle: fields.parse_if_set("handle", user.handle.as_deref()),
            display_name: fields.parse_or_clear("display_name", user.display_name.as_deref()),
            kind: user.kind.and_then(|number| said_kind(fields, number)),
            is_admin: user.is_admin,
            is_active: user.is_active,
            external_id: None,
        };
        Some(UpsertUser { external_id: external_id?, changes })
    });
    fields.check()?;
    Ok(upserts)
}

/// The kind of this number; `None` for the unspecified one.
pub(super) fn kind(fields: &mut Fields, number: i32) -> Option<UserKind> {
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

/// The same where it is present, and so must be said.
fn said_kind(fields: &mut Fields, number: i32) -> Option<UserKind> {
    if number == 0 {
        fields.wrong("kind", "must be said");
    }
    kind(fields, number)
}

pub(super) fn user(user: User) -> proto::User {
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
