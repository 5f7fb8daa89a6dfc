//! Whom tokens serve: users.

use std::sync::Arc;

use crate::{
    caller::Caller,
    clock::Clock,
    domain::{
        ClusterId, ControlScope, DisplayName, ExternalId, Handle, Revision, User, UserKind, UserRef,
    },
    error::Error,
    random,
    rights::{self, Denied},
    store::{Actor, Cursor, NewUser, Store, UserChanges, UserFilter},
};

/// Makes, shows and changes users.
pub struct Directory {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    cluster_id: ClusterId,
}

/// A request for a new user.
#[derive(Debug)]
pub struct CreateUser {
    /// Its unique short name.
    pub handle: Handle,
    /// What it is shown as.
    pub display_name: Option<DisplayName>,
    /// A person or a program.
    pub kind: UserKind,
    /// Whether it may act for others.
    pub is_admin: bool,
    /// Whether its tokens will be accepted.
    pub is_active: bool,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
}

impl Directory {
    /// Over `store`, for the installation `cluster_id`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, cluster_id: ClusterId) -> Self {
        Self { store, clock, cluster_id }
    }

    /// Makes a user.
    ///
    /// # Errors
    ///
    /// The caller may not, another user has the handle or the external id, or
    /// the store failed.
    pub async fn create_user(
        &self,
        caller: &Caller,
        new: CreateUser,
    ) -> Result<(User, Revision), Error> {
        rights::CREATE_USER.others(caller)?;
        check_may_appoint(caller, new.is_admin)?;
        let user = NewUser {
            id: self.cluster_id.user_id(u128::from_ne_bytes(random::bytes())),
            handle: new.handle,
            display_name: new.display_name,
            kind: new.kind,
            is_admin: new.is_admin,
            is_active: new.is_active,
            external_id: new.external_id,
        };
        Ok(self.store.insert_user(&user, &self.administrator(caller)).await?)
    }

    /// One user: the caller's own, or any for an administrator.
    ///
    /// # Errors
    ///
    /// There is none such, or not for this caller, or the store failed.
    pub async fn user(&self, caller: &Caller, name: &UserRef) -> Result<User, Error> {
        let everybody = rights::GET_USER.others(caller).is_ok();
        if !everybody {
            rights::GET_USER.own(caller)?;
        }
        match self.store.user(name).await? {
            Some(user) if everybody || user.id == *caller.user_id() => Ok(user),
            Some(_) | None => Err(Error::NotFound("user")),
        }
    }

    /// Users, newest first, for administrators.
    ///
    /// # Errors
    ///
    /// The caller may not, or the store failed.
    pub async fn list_users(
        &self,
        caller: &Caller,
        filter: &UserFilter,
        after: Option<&Cursor>,
        limit: i64,
    ) -> Result<Vec<User>, Error> {
        rights::LIST_USERS.others(caller)?;
        Ok(self.store.list_users(filter, after, limit).await?)
    }

    /// Changes a user.
    ///
    /// # Errors
    ///
    /// The caller may not, there is none such, another user has the handle or
    /// the external id, no active administrator would be left, or the store
    /// failed.
    pub async fn update_user(
        &self,
        caller: &Caller,
        name: &UserRef,
        changes: &UserChanges,
    ) -> Result<(User, Revision), Error> {
        rights::UPDATE_USER.others(caller)?;
        check_may_appoint(caller, changes.is_admin.is_some())?;
        self.store
            .update_user(name, changes, &self.administrator(caller))
            .await?
            .ok_or(Error::NotFound("user"))
    }

    /// The caller, as one who may change the directory.
    fn administrator(&self, caller: &Caller) -> Actor {
        Actor { as_administrator: true, ..caller.actor(self.clock.now()) }
    }
}

/// Who is an administrator is decided only by a token that may do everything.
fn check_may_appoint(caller: &Caller, appoints: bool) -> Result<(), Error> {
    if !appoints || caller.covers(&ControlScope::AdminAll.to_scope()) {
        Ok(())
    } else {
        Err(Denied::Scope.into())
    }
}
