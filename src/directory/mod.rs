//! Whom tokens serve: users, organizations, workspaces, and who belongs to what.

mod containers;
mod memberships;
mod users;

use std::sync::Arc;

pub use containers::{CreateContainer, UpsertContainer};
pub use memberships::{Grant, Upsert};
pub use users::{CreateUser, UpsertUser};

use crate::{
    caller::Caller,
    clock::Clock,
    domain::{ClusterId, ContainerKind, ContainerName, Description, Revision, UserRef},
    error::Error,
    rights::{self, Denied, Right},
    store::{Actor, Basis, Store, StoreError, TokensOf, Viewer},
};

/// What errors call a user.
const USER: &str = "user";

/// Makes, shows and changes whom tokens serve.
pub struct Directory {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    cluster_id: ClusterId,
}

/// Of what all tokens are to be ended, as a caller names it.
#[derive(Debug)]
pub enum Tokens {
    /// Of a user.
    User(UserRef),
    /// Bound to a workspace, or to those of an organization.
    Container(ContainerName),
    /// All there are.
    All,
}

impl Directory {
    /// Over `store`, for the installation `cluster_id`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, cluster_id: ClusterId) -> Self {
        Self { store, clock, cluster_id }
    }

    /// Ends all tokens of something for good; the caller's own is not spared.
    ///
    /// # Errors
    ///
    /// The caller may not, there is none such, or the store failed.
    pub async fn revoke_tokens(
        &self,
        caller: &Caller,
        tokens: &Tokens,
        reason: &Description,
    ) -> Result<Revision, Error> {
        rights::REVOKE_TOKENS.others(caller)?;
        let (of, what) = match tokens {
            Tokens::User(name) => {
                let user = self.store.user(name).await?.ok_or(Error::NotFound(USER))?;
                (TokensOf::User(user.id), USER)
            }
            Tokens::Container(name) => {
                let container = self.seen(name, &Viewer::Administrator).await?;
                let of = match container.kind() {
                    ContainerKind::Organization => TokensOf::Organization(container.id),
                    ContainerKind::Workspace => TokensOf::Workspace(container.id),
                };
                (of, noun(name.kind()))
            }
            Tokens::All => (TokensOf::All, "store"),
        };
        self.store
            .revoke_tokens(&of, reason, &self.administrator(caller))
            .await?
            .ok_or(Error::NotFound(what))
    }

    /// The caller, as one who may change the directory.
    fn administrator(&self, caller: &Caller) -> Actor {
        caller.actor(self.clock.now(), Basis::Administrator)
    }
}

/// As whom a caller reads: an administrator sees everything, any other what it
/// belongs to and manages.
fn reader(caller: &Caller, right: &Right) -> Result<Viewer, Denied> {
    if right.others(caller).is_ok() {
        return Ok(Viewer::Administrator);
    }
    right.own(caller)?;
    Ok(user(caller))
}

/// What a caller sees who is no administrator, or whose token is bound to a
/// workspace.
fn user(caller: &Caller) -> Viewer {
    let workspace = caller.found.credential.workspace.as_ref();
    Viewer::User {
        id: caller.user_id().clone(),
        within: workspace.map(|to| (to.workspace_id.clone(), to.organization_id.clone())),
    }
}

/// What errors call a container.
fn noun(kind: ContainerKind) -> &'static str {
    match kind {
        ContainerKind::Organization => "organization",
        ContainerKind::Workspace => "workspace",
    }
}

/// An error of the store, where one about one of many is about one of `list`.
fn in_list(list: &'static str) -> impl Fn(StoreError) -> Error {
    move |error| match error {
        StoreError::At(place, error) => Error::from(*error).at(list, place),
        error @ (StoreError::AlreadyExists(_)
        | StoreError::Refused(_)
        | StoreError::Unavailable(_)
        | StoreError::Failed(_)) => error.into(),
    }
}
