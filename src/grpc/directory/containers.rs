use std::collections::HashSet;

use tonic::Status;

use crate::{
    directory::{CreateContainer, UpsertContainer},
    domain::{Container, ContainerName, ContainerRef},
    grpc::{
        parse::{Fields, Mask},
        to_timestamp,
    },
    proto::v1 as proto,
    store::ContainerChanges,
};

/// The fields of a container that can be updated.
const FIELDS: [&str; 4] = ["slug", "name", "external_id", "is_active"];

pub(super) fn organization_name(fields: &mut Fields, text: &str) -> Option<ContainerName> {
    fields.parse("organization", text).map(ContainerName::Organization)
}

/// The name of a workspace: a slug only with the organization in which it is one.
pub(super) fn workspace_name(
    fields: &mut Fields,
    text: &str,
    organization: Option<&str>,
) -> Option<ContainerName> {
    let workspace: Option<ContainerRef> = fields.parse("workspace", text);
    let organization = organization.map(|text| fields.parse("organization", text));
    match (workspace?, organization) {
        (ContainerRef::Slug(_), None) => {
            fields.wrong("workspace", "must be an id or external:…");
            None
        }
        (_, Some(None)) => None,
        (workspace, organization) => {
            Some(ContainerName::Workspace { workspace, organization: organization.flatten() })
        }
    }
}

pub(super) fn new_organization(
    request: proto::CreateOrganizationRequest,
) -> Result<CreateContainer, Status> {
    let proto::CreateOrganizationRequest { slug, name, external_id, is_active } = request;
    new(Fields::default(), None, &slug, &name, external_id.as_deref(), is_active)
}

pub(super) fn new_workspace(
    request: proto::CreateWorkspaceRequest,
) -> Result<CreateContainer, Status> {
    let proto::CreateWorkspaceRequest { organization, slug, name, external_id, is_active } =
        request;
    let mut fields = Fields::default();
    let organization = fields.parse("organization", &organization);
    new(fields, organization, &slug, &name, external_id.as_deref(), is_active)
}

fn new(
    mut fields: Fields,
    organization: Option<ContainerRef>,
    slug: &str,
    name: &str,
    external_id: Option<&str>,
    is_active: Option<bool>,
) -> Result<CreateContainer, Status> {
    let (slug, name) = (fields.parse("slug", slug), fields.parse("name", name));
    let external_id = fields.parse_if_set("external_id", external_id);
    Ok(CreateContainer {
        organization,
        slug: fields.require("slug", slug)?,
        name: fields.require("name", name)?,
        external_id,
        is_active: is_active.unwrap_or(true),
    })
}

pub(super) fn organization_changes(
    request: proto::UpdateOrganizationRequest,
) -> Result<(ContainerName, ContainerChanges), Status> {
    let proto::UpdateOrganizationRequest {
        organization,
        slug,
        name,
        external_id,
        is_active,
        update_mask,
    } = request;
    let mut fields = Fields::default();
    let named = organization_name(&mut fields, &organization);
    let mask = fields.mask(update_mask, &FIELDS);
    let changes = changes(&mut fields, &mask, &slug, &name, &external_id, is_active);
    Ok((fields.require("organization", named)?, changes))
}

pub(super) fn workspace_changes(
    request: proto::UpdateWorkspaceRequest,
) -> Result<(ContainerName, ContainerChanges), Status> {
    let proto::UpdateWorkspaceRequest {
        workspace,
        organization,
        slug,
        name,
        external_id,
        is_active,
        update_mask,
    } = request;
    let mut fields = Fields::default();
    let named = workspace_name(&mut fields, &workspace, organization.as_deref());
    let mask = fields.mask(update_mask, &FIELDS);
    let changes = changes(&mut fields, &mask, &slug, &name, &external_id, is_active);
    Ok((fields.require("workspace", named)?, changes))
}

fn changes(
    fields: &mut Fields,
    mask: &Mask,
    slug: &Option<String>,
    name: &Option<String>,
    external_id: &Option<String>,
    is_active: Option<bool>,
) -> ContainerChanges {
    let slug = mask.pick_filled(fields, "slug", slug.as_deref());
    let name = mask.pick_filled(fields, "name", name.as_deref());
    let external_id = mask.pick("external_id", external_id.as_deref(), || Some(""));
    ContainerChanges {
        slug: fields.parse_if_set("slug", slug),
        name: fields.parse_if_set("name", name),
        external_id: fields.parse_or_clear("external_id", external_id),
        is_active: mask.pick_filled(fields, "is_active", is_active),
    }
}

pub(super) fn organization_upserts(
    organizations: Vec<proto::OrganizationUpsert>,
) -> Result<Vec<UpsertContainer>, Status> {
    let organizations = organizations.into_iter().map(|organization| {
        let proto::OrganizationUpsert { external_id, slug, name, is_active } = organization;
        proto::WorkspaceUpsert { external_id, slug, name, is_active, organization: None }
    });
    upserts("organizations", organizations.collect())
}

pub(super) fn workspace_upserts(
    workspaces: Vec<proto::WorkspaceUpsert>,
) -> Result<Vec<UpsertContainer>, Status> {
    upserts("workspaces", workspaces)
}

/// A workspace's fields are an organization's and one more.
fn upserts(
    list: &str,
    containers: Vec<proto::WorkspaceUpsert>,
) -> Result<Vec<UpsertContainer>, Status> {
    let mut fields = Fields::default();
    let mut seen = HashSet::new();
    let upserts = fields.each(list, containers, |fields, container| {
        let external_id = fields.parse("external_id", &container.external_id);
        fields.once("external_id", &mut seen, external_id.clone());
        Some(UpsertContainer {
            organization: fields.parse_if_set("organization", container.organization.as_deref()),
            slug: fields.parse_if_set("slug", container.slug.as_deref()),
            name: fields.parse_if_set("name", container.name.as_deref()),
            is_active: container.is_active,
            external_id: external_id?,
        })
    });
    fields.check()?;
    Ok(upserts)
}

pub(super) fn organization(container: Container) -> proto::Organization {
    proto::Organization {
        id: container.id,
        slug: container.slug.to_string(),
        name: container.name.to_string(),
        external_id: container.external_id.map(|id| id.to_string()),
        is_active: container.is_active,
        created_at: Some(to_timestamp(container.created_at)),
        updated_at: Some(to_timestamp(container.updated_at)),
    }
}

pub(super) fn workspace(container: Container) -> proto::Workspace {
    proto::Workspace {
        organization_id: container.organization().to_owned(),
        id: container.id,
        slug: container.slug.to_string(),
        name: container.name.to_string(),
        external_id: container.external_id.map(|id| id.to_string()),
        is_active: container.is_active,
        created_at: Some(to_timestamp(container.created_at)),
        updated_at: Some(to_timestamp(container.updated_at)),
    }
}
