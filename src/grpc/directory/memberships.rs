use tonic::Status;

use super::containers::{organization_name, workspace_name};
use crate::{
    directory::{Grant, Upsert},
    domain::{ContainerKind, ContainerName, Membership, Role, UserRef},
    grpc::{parse::Fields, to_timestamp},
    proto::v1 as proto,
};

/// What the `container` of a request names.
pub(super) enum Named {
    Organization(String),
    Workspace(String),
}

macro_rules! containers {
    ($($request:ident),* $(,)?) => {
        $(impl From<proto::$request::Container> for Named {
            fn from(container: proto::$request::Container) -> Self {
                match container {
                    proto::$request::Container::Organization(name) => Self::Organization(name),
                    proto::$request::Container::Workspace(name) => Self::Workspace(name),
                }
            }
        })*
    };
}

containers![
    create_membership_request,
    get_membership_request,
    list_memberships_request,
    update_membership_request,
    delete_membership_request,
    membership_upsert,
    membership_grant,
];

pub(super) fn container(fields: &mut Fields, named: impl Into<Named>) -> Option<ContainerName> {
    match named.into() {
        Named::Organization(name) => organization_name(fields, &name),
        Named::Workspace(name) => workspace_name(fields, &name, None),
    }
}

fn set_container(fields: &mut Fields, named: Option<impl Into<Named>>) -> Option<ContainerName> {
    if named.is_none() {
        fields.wrong("container", "must be set");
    }
    named.and_then(|named| container(fields, named))
}

/// The user and the container of the one membership that a request is about.
pub(super) fn named(
    mut fields: Fields,
    user: &str,
    container: Option<impl Into<Named>>,
) -> Result<(UserRef, ContainerName), Status> {
    let user = fields.parse("user", user);
    let container = set_container(&mut fields, container);
    Ok((fields.require("user", user)?, fields.require("container", container)?))
}

pub(super) fn grant(
    fields: &mut Fields,
    container: Option<impl Into<Named>>,
    number: i32,
) -> Option<Grant> {
    let (container, role) = (set_container(fields, container), role(fields, number));
    Some(Grant { container: container?, role: role? })
}

pub(super) fn grants(fields: &mut Fields, grants: Vec<proto::MembershipGrant>) -> Vec<Grant> {
    fields.each("memberships", grants, |fields, it| grant(fields, it.container, it.role))
}

pub(super) fn upserts(memberships: Vec<proto::MembershipUpsert>) -> Result<Vec<Upsert>, Status> {
    let mut fields = Fields::default();
    let upserts = fields.each("memberships", memberships, |fields, it| {
        let user = fields.parse("user", &it.user);
        let grant = grant(fields, it.container, it.role);
        Some(Upsert { user: user?, grant: grant? })
    });
    fields.check()?;
    Ok(upserts)
}

pub(super) fn role(fields: &mut Fields, number: i32) -> Option<Role> {
    match proto::MembershipRole::try_from(number) {
        Ok(proto::MembershipRole::Owner) => Some(Role::Owner),
        Ok(proto::MembershipRole::Admin) => Some(Role::Admin),
        Ok(proto::MembershipRole::Member) => Some(Role::Member),
        Ok(proto::MembershipRole::Guest) => Some(Role::Guest),
        Ok(proto::MembershipRole::Unspecified) => {
            fields.wrong("role", "must be said");
            None
        }
        Err(_) => {
            fields.wrong("role", "is not a role");
            None
        }
    }
}

pub(super) fn membership(membership: Membership) -> proto::Membership {
    use proto::membership::Container;
    let role = match membership.role {
        Role::Owner => proto::MembershipRole::Owner,
        Role::Admin => proto::MembershipRole::Admin,
        Role::Member => proto::MembershipRole::Member,
        Role::Guest => proto::MembershipRole::Guest,
    };
    let container = match membership.kind {
        ContainerKind::Organization => Container::OrganizationId(membership.container_id),
        ContainerKind::Workspace => Container::WorkspaceId(membership.container_id),
    };
    proto::Membership {
        user_id: membership.user_id.to_string(),
        container: Some(container),
        role: role.into(),
        created_at: Some(to_timestamp(membership.created_at)),
    }
}
