//! The rules about memberships: who may change whose.

use std::collections::{HashMap, HashSet};

use super::{Directory, USER, in_list, reader, user};
use crate::{
    caller::Caller,
    domain::{
        Container, ContainerKind, ContainerName, ContainerRef, Membership, Revision, Role, UserId,
        UserRef,
    },
    error::Error,
    rights::{self, Right, Standing},
    store::{
        Basis, Cursor, Expects, Managed, MembershipChanges, MembershipFilter, MembershipPut,
        OnlyMemberships, Viewer,
    },
};

/// What errors call a membership.
const MEMBERSHIP: &str = "membership";

/// What requests call several.
const LIST: &str = "memberships";

/// A membership as it shall be.
#[derive(Debug)]
pub struct Upsert {
    /// Whose.
    pub user: UserRef,
    /// In what, as what.
    pub grant: Grant,
}

/// A membership of a user who is named elsewhere, as it shall be.
#[derive(Debug)]
pub struct Grant {
    /// In what.
    pub container: ContainerName,
    /// As what.
    pub role: Role,
}

impl Directory {
    /// Makes a user a member.
    ///
    /// # Errors
    ///
    /// The caller may not, there is no such user or container, the user is a
    /// member already, or the store failed.
    pub async fn create_membership(
        &self,
        caller: &Caller,
        user: &UserRef,
        grant: &Grant,
    ) -> Result<(Membership, Revision), Error> {
        let mut writer = self.writer(caller, &rights::CREATE_MEMBERSHIP)?;
        writer.put_one(user, &grant.container, Some(grant.role), Expects::None).await
    }

    /// One membership that the caller may see.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or the store failed.
    pub async fn membership(
        &self,
        caller: &Caller,
        user: &UserRef,
        container: &ContainerName,
    ) -> Result<Membership, Error> {
        let viewer = reader(caller, &rights::GET_MEMBERSHIP)?;
        let container = self.store.container(container, &viewer).await?;
        let user = self.store.user(user).await?;
        // What of it there is, is not said.
        let (Some(container), Some(user)) = (container, user) else {
            return Err(Error::NotFound(MEMBERSHIP));
        };
        let filter = MembershipFilter {
            user: Some(user.id),
            container: Some((container.kind(), container.id)),
        };
        let found = self.store.list_memberships(&filter, &viewer, None, 1).await?;
        found.into_iter().next().ok_or(Error::NotFound(MEMBERSHIP))
    }

    /// Memberships that the caller may see, newest first.
    ///
    /// # Errors
    ///
    /// The caller may not, or there is no such user or container, or not for this
    /// caller, or the store failed.
    pub async fn list_memberships(
        &self,
        caller: &Caller,
        user: Option<&UserRef>,
        container: Option<&ContainerName>,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<Membership>, Error> {
        let viewer = reader(caller, &rights::LIST_MEMBERSHIPS)?;
        let container = match container {
            None => None,
            Some(name) => {
                let container = self.seen(name, &viewer).await?;
                Some((container.kind(), container.id))
            }
        };
        let user = match user {
            None => None,
            Some(name) => Some(self.seen_user(caller, &viewer, name).await?),
        };
        let filter = MembershipFilter { user, container };
        Ok(self.store.list_memberships(&filter, &viewer, after, limit).await?)
    }

    /// Changes a member's role; `None`: keeps it.
    ///
    /// # Errors
    ///
    /// The caller may not, there is no such user, container or membership, or
    /// the store failed.
    pub async fn update_membership(
        &self,
        caller: &Caller,
        user: &UserRef,
        container: &ContainerName,
        role: Option<Role>,
    ) -> Result<(Membership, Revision), Error> {
        let mut writer = self.writer(caller, &rights::UPDATE_MEMBERSHIP)?;
        if role.is_some() {
            return writer.put_one(user, container, role, Expects::One).await;
        }
        let container = writer.managed(container).await?;
        let user = writer.user(user).await?;
        let kept = self.store.membership(&user, container.kind(), &container.id).await?;
        Ok((kept.ok_or(Error::NotFound(MEMBERSHIP))?, self.store.head().await?))
    }

    /// Makes or changes memberships, all or none.
    ///
    /// # Errors
    ///
    /// The caller may not, there is no such user or container, one is named twice,
    /// or the store failed.
    pub async fn upsert_memberships(
        &self,
        caller: &Caller,
        upserts: &[Upsert],
    ) -> Result<(Vec<Membership>, Revision), Error> {
        let mut writer = self.writer(caller, &rights::UPSERT_MEMBERSHIPS)?;
        for (place, Upsert { user, grant }) in upserts.iter().enumerate() {
            let role = Some(grant.role);
            writer
                .put(user, &grant.container, role, Expects::Either)
                .await
                .map_err(|error| error.at(LIST, place))?;
        }
        writer.change(None).await
    }

    /// Makes one user's memberships, all or those in one organization, exactly what
    /// is given.
    ///
    /// # Errors
    ///
    /// The caller may not, there is no such user or container, one is named twice
    /// or is outside the organization, or the store failed.
    pub async fn set_memberships(
        &self,
        caller: &Caller,
        user: &UserRef,
        organization: Option<ContainerRef>,
        grants: &[Grant],
    ) -> Result<(Vec<Membership>, Revision), Error> {
        let mut writer = self.writer(caller, &rights::SET_MEMBERSHIPS)?;
        let organization_id = match organization {
            None => {
                rights::SET_MEMBERSHIPS.others(caller)?;
                None
            }
            Some(name) => Some(writer.managed(&ContainerName::Organization(name)).await?.id),
        };
        let user_id = writer.user(user).await?;
        for (place, Grant { container, role }) in grants.iter().enumerate() {
            let put = async {
                let seen = writer.container(container).await?;
                if organization_id.as_ref().is_some_and(|id| id != seen.organization()) {
                    return Err(Error::invalid("", "is not in the organization"));
                }
                writer.put(user, container, Some(*role), Expects::Either).await
            };
            put.await.map_err(|error| error.at(LIST, place))?;
        }
        writer.change(Some(OnlyMemberships { user: user_id, organization_id })).await
    }

    /// Ends a membership, if there is one.
    ///
    /// # Errors
    ///
    /// The caller may not, there is no such user or container, or the store failed.
    pub async fn delete_membership(
        &self,
        caller: &Caller,
        user: &UserRef,
        container: &ContainerName,
    ) -> Result<Revision, Error> {
        let mut writer = self.writer(caller, &rights::DELETE_MEMBERSHIP)?;
        writer.put(user, container, None, Expects::Either).await?;
        Ok(writer.change(None).await.map_err(Error::alone)?.1)
    }

    /// A user of whom `viewer` may know: itself, or one of whom it sees a membership.
    async fn seen_user(
        &self,
        caller: &Caller,
        viewer: &Viewer,
        name: &UserRef,
    ) -> Result<UserId, Error> {
        let user = self.store.user(name).await?.ok_or(Error::NotFound(USER))?;
        let filter = MembershipFilter { user: Some(user.id.clone()), container: None };
        let is_known = *viewer == Viewer::Administrator
            || user.id == *caller.user_id()
            || !self.store.list_memberships(&filter, viewer, None, 1).await?.is_empty();
        if is_known { Ok(user.id) } else { Err(Error::NotFound(USER)) }
    }

    fn writer<'a>(&'a self, caller: &'a Caller, right: &'a Right) -> Result<Writer<'a>, Error> {
        let viewer = if caller.is_administrator() {
            right.others(caller)?;
            Viewer::Administrator
        } else {
            user(caller)
        };
        Ok(Writer {
            directory: self,
            caller,
            right,
            viewer,
            managed: Vec::new(),
            users: HashMap::new(),
            containers: HashMap::new(),
            named: HashSet::new(),
            puts: Vec::new(),
        })
    }
}

/// A change of memberships on its way to the store: what is named is looked up
/// once, and the caller's right to each organization too.
///
/// Who is no administrator and may not see what it names is told that there is none
/// such; who sees it and does not manage its organization, that it may not.
struct Writer<'a> {
    directory: &'a Directory,
    caller: &'a Caller,
    right: &'a Right,
    viewer: Viewer,
    /// The organizations that the caller was found to manage.
    managed: Vec<Managed>,
    users: HashMap<UserRef, UserId>,
    containers: HashMap<ContainerName, Container>,
    /// Whose membership in which container is put already.
    named: HashSet<(UserId, String)>,
    puts: Vec<MembershipPut>,
}

impl Writer<'_> {
    /// Changes one membership and returns it as it then is.
    async fn put_one(
        &mut self,
        user: &UserRef,
        container: &ContainerName,
        role: Option<Role>,
        expects: Expects,
    ) -> Result<(Membership, Revision), Error> {
        self.put(user, container, role, expects).await?;
        let (memberships, revision) = self.change(None).await.map_err(Error::alone)?;
        let membership = memberships.into_iter().next().ok_or(Error::NotFound(MEMBERSHIP))?;
        Ok((membership, revision))
    }

    /// Notes what one membership shall be.
    async fn put(
        &mut self,
        user: &UserRef,
        container: &ContainerName,
        role: Option<Role>,
        expects: Expects,
    ) -> Result<(), Error> {
        let container = self.managed(container).await?;
        let user = self.user(user).await?;
        if !self.named.insert((user.clone(), container.id.clone())) {
            return Err(Error::invalid("", "is there twice"));
        }
        let kind = container.kind();
        self.puts.push(MembershipPut { user, kind, container_id: container.id, role, expects });
        Ok(())
    }

    /// Does what was noted.
    async fn change(
        &mut self,
        only: Option<OnlyMemberships>,
    ) -> Result<(Vec<Membership>, Revision), Error> {
        let basis = match self.viewer {
            Viewer::Administrator => Basis::Administrator,
            Viewer::User { .. } => {
                if self.managed.is_empty() {
                    // Nothing was named of which it could have been found to manage.
                    self.right.others(self.caller)?;
                }
                Basis::Manager(std::mem::take(&mut self.managed))
            }
        };
        let changes = MembershipChanges { puts: std::mem::take(&mut self.puts), only };
        let actor = self.caller.actor(self.directory.clock.now(), basis);
        let store = &self.directory.store;
        store.change_memberships(&changes, &actor).await.map_err(in_list(LIST))
    }

    /// The container so named, of whose organization the caller manages the members.
    async fn managed(&mut self, name: &ContainerName) -> Result<Container, Error> {
        let container = self.container(name).await?;
        let organization_id = container.organization();
        let is_checked = self.viewer == Viewer::Administrator
            || self.managed.iter().any(|managed| managed.organization_id == organization_id);
        if !is_checked {
            let id = ContainerRef::Id(organization_id.to_owned());
            let organization = self.container(&ContainerName::Organization(id)).await?;
            let organization_id = organization.id.clone();
            let kind = ContainerKind::Organization;
            let user = self.caller.user_id();
            let membership = self.directory.store.membership(user, kind, &organization_id).await?;
            let role = membership.map(|membership| membership.role);
            let standing = Standing { container: organization, role, organization_role: role };
            self.right.others_in(self.caller, &standing)?;
            self.managed.push(Managed { organization_id, workspace_id: None });
        }
        Ok(container)
    }

    async fn container(&mut self, name: &ContainerName) -> Result<Container, Error> {
        if let Some(container) = self.containers.get(name) {
            return Ok(container.clone());
        }
        let container = self.directory.seen(name, &self.viewer).await?;
        self.containers.insert(name.clone(), container.clone());
        Ok(container)
    }

    async fn user(&mut self, name: &UserRef) -> Result<UserId, Error> {
        if let Some(id) = self.users.get(name) {
            return Ok(id.clone());
        }
        let user = self.directory.store.user(name).await?.ok_or(Error::NotFound(USER))?;
        self.users.insert(name.clone(), user.id.clone());
        Ok(user.id)
    }
}
