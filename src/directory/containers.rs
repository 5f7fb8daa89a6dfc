//! The rules about organizations and workspaces.

use std::collections::HashMap;

use super::{Directory, in_list, noun, reader};
use crate::{
    caller::Caller,
    domain::{
        Container, ContainerKind, ContainerName, ContainerRef, DisplayName, ExternalId, Revision,
        Slug,
    },
    error::Error,
    random, rights,
    store::{ContainerChanges, ContainerFilter, ContainerUpsert, Cursor, NewContainer, Viewer},
};

/// A request for a new container.
#[derive(Debug)]
pub struct CreateContainer {
    /// Of a workspace: its organization.
    pub organization: Option<ContainerRef>,
    /// Its short name.
    pub slug: Slug,
    /// What people call it.
    pub name: DisplayName,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
    /// Whether tokens bound to it will be accepted.
    pub is_active: bool,
}

/// A container as it shall be; what is not said is kept.
#[derive(Debug)]
pub struct UpsertContainer {
    /// By which it is found.
    pub external_id: ExternalId,
    /// Of a workspace: its organization.
    pub organization: Option<ContainerRef>,
    /// Its short name.
    pub slug: Option<Slug>,
    /// What people call it.
    pub name: Option<DisplayName>,
    /// Whether tokens bound to it are accepted.
    pub is_active: Option<bool>,
}

impl Directory {
    /// Makes a container: a workspace, if an organization is named.
    ///
    /// # Errors
    ///
    /// The caller may not, there is no such organization, another has the slug or
    /// the external id, or the store failed.
    pub async fn create_container(
        &self,
        caller: &Caller,
        new: CreateContainer,
    ) -> Result<(Container, Revision), Error> {
        let right = match new.organization {
            None => rights::CREATE_ORGANIZATION,
            Some(_) => rights::CREATE_WORKSPACE,
        };
        right.others(caller)?;
        let organization_id = match new.organization {
            None => None,
            Some(name) => {
                let name = ContainerName::Organization(name);
                Some(self.seen(&name, &Viewer::Administrator).await?.id)
            }
        };
        let container = NewContainer {
            id: random::id(self.clock.now()),
            organization_id,
            slug: new.slug,
            name: new.name,
            external_id: new.external_id,
            is_active: new.is_active,
        };
        Ok(self.store.insert_container(&container, &self.administrator(caller)).await?)
    }

    /// One container that the caller may see.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or the store failed.
    pub async fn container(
        &self,
        caller: &Caller,
        name: &ContainerName,
    ) -> Result<Container, Error> {
        let right = match name.kind() {
            ContainerKind::Organization => rights::GET_ORGANIZATION,
            ContainerKind::Workspace => rights::GET_WORKSPACE,
        };
        self.seen(name, &reader(caller, &right)?).await
    }

    /// Containers of one kind that the caller may see, newest first: all, or the
    /// workspaces of one organization.
    ///
    /// # Errors
    ///
    /// The caller may not, or there is no such organization, or not for this
    /// caller, or the store failed.
    pub async fn list_containers(
        &self,
        caller: &Caller,
        kind: ContainerKind,
        organization: Option<ContainerRef>,
        is_active: Option<bool>,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Container>, Error> {
        let right = match kind {
            ContainerKind::Organization => rights::LIST_ORGANIZATIONS,
            ContainerKind::Workspace => rights::LIST_WORKSPACES,
        };
        let viewer = reader(caller, &right)?;
        let organization_id = match organization {
            None => None,
            Some(name) => Some(self.seen(&ContainerName::Organization(name), &viewer).await?.id),
        };
        let filter = ContainerFilter { kind, is_active, organization_id };
        Ok(self.store.list_containers(&filter, &viewer, after, limit).await?)
    }

    /// Changes a container.
    ///
    /// # Errors
    ///
    /// The caller may not, there is none such, another has the slug or the external
    /// id, or the store failed.
    pub async fn update_container(
        &self,
        caller: &Caller,
        name: &ContainerName,
        changes: &ContainerChanges,
    ) -> Result<(Container, Revision), Error> {
        let right = match name.kind() {
            ContainerKind::Organization => rights::UPDATE_ORGANIZATION,
            ContainerKind::Workspace => rights::UPDATE_WORKSPACE,
        };
        right.others(caller)?;
        self.store
            .update_container(name, changes, &self.administrator(caller))
            .await?
            .ok_or(Error::NotFound(noun(name.kind())))
    }

    /// Makes or changes containers of one kind by their external ids, all or none.
    ///
    /// # Errors
    ///
    /// The caller may not, there is no such organization or a workspace is part of
    /// another, a new one lacks what it needs, another has a slug, or the store failed.
    pub async fn upsert_containers(
        &self,
        caller: &Caller,
        kind: ContainerKind,
        containers: Vec<UpsertContainer>,
    ) -> Result<(Vec<Container>, Revision), Error> {
        let (right, list) = match kind {
            ContainerKind::Organization => (rights::UPSERT_ORGANIZATIONS, "organizations"),
            ContainerKind::Workspace => (rights::UPSERT_WORKSPACES, "workspaces"),
        };
        right.others(caller)?;
        let now = self.clock.now();
        let mut organizations: HashMap<ContainerRef, String> = HashMap::new();
        let mut upserts = Vec::with_capacity(containers.len());
        for (place, container) in containers.into_iter().enumerate() {
            if let Some(name) = &container.organization
                && !organizations.contains_key(name)
            {
                let named = ContainerName::Organization(name.clone());
                let organization = self.seen(&named, &Viewer::Administrator).await;
                let id = organization.map_err(|error| error.at(list, place))?.id;
                organizations.insert(name.clone(), id);
            }
            upserts.push(ContainerUpsert {
                external_id: container.external_id,
                new_id: random::id(now),
                organization_id: container
                    .organization
                    .and_then(|name| organizations.get(&name).cloned()),
                slug: container.slug,
                name: container.name,
                is_active: container.is_active,
            });
        }
        let actor = self.administrator(caller);
        self.store.upsert_containers(kind, &upserts, &actor).await.map_err(in_list(list))
    }

    /// The container so named, if `viewer` may see it.
    pub(super) async fn seen(
        &self,
        name: &ContainerName,
        viewer: &Viewer,
    ) -> Result<Container, Error> {
        let container = self.store.container(name, viewer).await?;
        container.ok_or(Error::NotFound(noun(name.kind())))
    }
}
