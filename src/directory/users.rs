//! The rules about users.

use super::{Directory, USER, in_list};
use crate::{
    caller::Caller,
    domain::{
        ControlScope, DisplayName, ExternalId, Handle, Revision, User, UserId, UserKind, UserRef,
    },
    error::Error,
    random,
    rights::{self, Denied},
    store::{Cursor, NewUser, UserChanges, UserFilter, UserUpsert},
};

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

/// A user as it shall be.
#[derive(Debug)]
pub struct UpsertUser {
    /// By which it is found.
    pub external_id: ExternalId,
    /// What it shall be; what is not said is kept.
    pub changes: UserChanges,
}

impl Directory {
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
            id: self.new_user_id(),
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
            Some(_) | None => Err(Error::NotFound(USER)),
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
            .ok_or(Error::NotFound(USER))
    }

    /// Makes or changes users by their external ids, all or none.
    ///
    /// # Errors
    ///
    /// The caller may not, another user has a handle, no active administrator would
    /// be left, or the store failed.
    pub async fn upsert_users(
        &self,
        caller: &Caller,
        users: Vec<UpsertUser>,
    ) -> Result<(Vec<User>, Revision), Error> {
        rights::UPSERT_USERS.others(caller)?;
        check_may_appoint(caller, users.iter().any(|user| user.changes.is_admin.is_some()))?;
        let upserts: Vec<_> = users.into_iter().map(|user| self.upsert(user)).collect();
        let actor = self.administrator(caller);
        self.store.upsert_users(&upserts, &actor).await.map_err(in_list("users"))
    }

    /// Deletes a user for good.
    ///
    /// # Errors
    ///
    /// The caller may not, there is none such, no active administrator would be
    /// left, or the store failed.
    pub async fn delete_user(
        &self,
        caller: &Caller,
        name: &UserRef,
    ) -> Result<(User, Revision), Error> {
        rights::DELETE_USER.others(caller)?;
        let actor = self.administrator(caller);
        self.store.delete_user(name, &actor).await?.ok_or(Error::NotFound(USER))
    }

    fn upsert(&self, UpsertUser { external_id, changes }: UpsertUser) -> UserUpsert {
        let new = NewUser {
            id: self.new_user_id(),
            handle: changes.handle.clone().unwrap_or_else(|| Handle::of(&external_id)),
            display_name: changes.display_name.clone().flatten(),
            kind: changes.kind.unwrap_or(UserKind::Human),
            is_admin: changes.is_admin.unwrap_or(false),
            is_active: changes.is_active.unwrap_or(true),
            external_id: Some(external_id),
        };
        UserUpsert { new, changes }
    }

    fn new_user_id(&self) -> UserId {
        self.cluster_id.user_id(u128::from_ne_bytes(random::bytes()))
    }
}

/// Who is an administrator is decided only by a token that may do everything.
fn check_may_appoint(caller: &Caller, appoints: bool) -> Result<(), Error> {
    if !appoints || caller.allows(ControlScope::AdminAll) {
        Ok(())
    } else {
        Err(Denied::Scope.into())
    }
}
