//! Whose tokens a call may be about, and by what right.

use super::Authority;
use crate::{
    caller::Caller,
    domain::{
        Container, ContainerKind, ContainerName, ContainerRef, Handle, UserId, UserKind, UserRef,
    },
    error::Error,
    random,
    rights::{self, Denied, Right, Standing},
    store::{Basis, Managed, NewUser, Reach, Refusal, StoreError, Viewer},
};

/// The user whose tokens a call is about.
pub(super) struct Owner {
    pub(super) id: UserId,
    pub(super) is_admin: bool,
    /// Whether it is another than the caller.
    pub(super) is_foreign: bool,
    /// Whether the call is for users who are no administrators.
    pub(super) spares_administrators: bool,
    /// To be made along with its token.
    pub(super) new: Option<NewUser>,
}

impl Authority {
    /// Which tokens the caller reaches by their ids, and by what right.
    pub(super) async fn reach(
        &self,
        caller: &Caller,
        right: &Right,
        workspace: Option<&ContainerName>,
    ) -> Result<(Reach, Basis), Error> {
        let standing = match workspace {
            None => None,
            Some(name) => Some(self.standing(caller, right, name).await?),
        };
        let (others, own_right) = match &standing {
            None => (right.others(caller), right.own(caller)),
            Some(standing) => (right.others_in(caller, standing), right.own_in(caller, standing)),
        };
        let workspace_id = match &standing {
            None => caller.workspace_id().map(ToOwned::to_owned),
            Some(standing) => Some(standing.container.id.clone()),
        };
        match (others, own_right) {
            (Ok(()), _) => {
                let spares_administrators = right.only_issues(caller);
                let reach = Reach { owner: None, workspace_id, spares_administrators };
                Ok((reach, basis(caller, standing.as_ref())))
            }
            (Err(_), Ok(())) => Ok((Reach { workspace_id, ..own(caller) }, Basis::Own)),
            // Whose scopes would have to be wider is told so.
            (Err(one), Err(other)) => Err(one.max(other).into()),
        }
    }

    /// The user that a request is about, whom the caller reaches by this right.
    pub(super) async fn owner(
        &self,
        caller: &Caller,
        right: &Right,
        standing: Option<&Standing>,
        named: Option<&UserRef>,
    ) -> Result<Owner, Error> {
        let Some(named) = named.filter(|named| !caller.is(named)) else {
            match standing {
                None => right.own(caller)?,
                Some(standing) => right.own_in(caller, standing)?,
            }
            return Ok(Owner {
                id: caller.user_id().clone(),
                is_admin: caller.is_administrator(),
                is_foreign: false,
                spares_administrators: false,
                new: None,
            });
        };
        match standing {
            None => right.others(caller)?,
            Some(standing) => right.others_in(caller, standing)?,
        }
        let is_create =
            [rights::CREATE_PAT, rights::WORKSPACE_CREATE_PAT, rights::CREATE_AUTHORIZATION]
                .contains(right);
        let only_issues = right.only_issues(caller);
        let spares_administrators = only_issues || (is_create && !caller.is_administrator());
        let user = self.store.user(named).await?;
        if let Some(standing) = standing.filter(|_| !caller.is_administrator()) {
            // Who is there beside the members is not for their managers to know.
            let (kind, id) = (standing.container.kind(), &standing.container.id);
            let membership = match &user {
                None => None,
                Some(user) => self.store.membership(&user.id, kind, id).await?,
            };
            if membership.is_none() {
                let not_a_member = Error::Refused(Refusal::NotAMember);
                return Err(if is_create { not_a_member } else { Error::NotFound("user") });
            }
        }
        match (user, named) {
            (Some(user), _) if user.is_admin && spares_administrators => {
                Err(if only_issues { Denied::Scope } else { Denied::Role }.into())
            }
            (Some(user), _) => Ok(Owner {
                id: user.id,
                is_admin: user.is_admin,
                is_foreign: true,
                spares_administrators,
                new: None,
            }),
            (None, UserRef::External(external_id)) if is_create && self.policy.jit_users => {
                let new = NewUser {
                    id: self.cluster_id.user_id(u128::from_ne_bytes(random::bytes())),
                    handle: Handle::of(external_id),
                    display_name: None,
                    kind: UserKind::Human,
                    is_admin: false,
                    is_active: true,
                    external_id: Some(external_id.clone()),
                };
                Ok(Owner {
                    id: new.id.clone(),
                    is_admin: false,
                    is_foreign: true,
                    spares_administrators,
                    new: Some(new),
                })
            }
            (None, UserRef::Id(_) | UserRef::Handle(_) | UserRef::External(_)) => {
                Err(Error::NotFound("user"))
            }
        }
    }

    /// What the caller's user is in the workspace that a call names.
    pub(super) async fn standing(
        &self,
        caller: &Caller,
        right: &Right,
        name: &ContainerName,
    ) -> Result<Standing, Error> {
        let found = self.store.container(name, &Viewer::Administrator).await?;
        match (found, caller.workspace_id()) {
            (Some(container), None) => Ok(self.standing_in(caller, container).await?),
            (Some(container), Some(bound)) if container.id == bound => {
                Ok(self.standing_in(caller, container).await?)
            }
            // Bound to another, it learns nothing of this one.
            (_, Some(_)) => Err(Denied::Scope.into()),
            (None, None) if caller.is_administrator() => {
                right.others(caller)?;
                Err(Error::NotFound("workspace"))
            }
            // The same as to one who is no member of it.
            (None, None) => Err(Denied::Role.into()),
        }
    }

    /// The same of a workspace that the caller may not know; `None`: there is none.
    pub(super) async fn standing_by_id(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<Option<Standing>, Error> {
        let workspace = ContainerRef::Id(id.to_owned());
        let name = ContainerName::Workspace { workspace, organization: None };
        Ok(match self.store.container(&name, &Viewer::Administrator).await? {
            None => None,
            Some(container) => Some(self.standing_in(caller, container).await?),
        })
    }

    pub(super) async fn standing_in(
        &self,
        caller: &Caller,
        container: Container,
    ) -> Result<Standing, StoreError> {
        let organization = (ContainerKind::Organization, container.organization());
        let itself = (container.kind(), container.id.as_str());
        let mut roles = [None; 2];
        for (role, (kind, id)) in roles.iter_mut().zip([itself, organization]) {
            let membership = self.store.membership(caller.user_id(), kind, id).await?;
            *role = membership.map(|membership| membership.role);
        }
        let [role, organization_role] = roles;
        Ok(Standing { container, role, organization_role })
    }
}

impl Owner {
    /// Its tokens.
    pub(super) fn reach(self) -> Reach {
        Reach {
            owner: Some(self.id),
            workspace_id: None,
            spares_administrators: self.spares_administrators,
        }
    }
}

/// The caller's own tokens.
pub(super) fn own(caller: &Caller) -> Reach {
    Reach { owner: Some(caller.user_id().clone()), ..Reach::default() }
}

/// By what right a caller does something to others' tokens.
pub(super) fn basis(caller: &Caller, standing: Option<&Standing>) -> Basis {
    match standing {
        None => Basis::Administrator,
        Some(_) if caller.is_administrator() => Basis::Administrator,
        Some(Standing { container, .. }) => Basis::Manager(vec![Managed {
            organization_id: container.organization().to_owned(),
            workspace_id: Some(container.id.clone()),
        }]),
    }
}
