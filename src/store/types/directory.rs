//! The same of users, containers and memberships.

use crate::domain::{ContainerKind, DisplayName, ExternalId, Handle, Role, Slug, UserId, UserKind};

/// A user to be kept.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its id.
    pub id: UserId,
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

/// Which users to list; `None`: whatever it is.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Only active, or only inactive ones.
    pub is_active: Option<bool>,
    /// Only administrators, or only others.
    pub is_admin: Option<bool>,
    /// Only people, or only programs.
    pub kind: Option<UserKind>,
    /// Deleted ones too.
    pub with_deleted: bool,
}

/// What to change of a user; `None`: leave it. The inner `None` clears.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserChanges {
    /// A new handle.
    pub handle: Option<Handle>,
    /// A new display name.
    pub display_name: Option<Option<DisplayName>>,
    /// Another kind.
    pub kind: Option<UserKind>,
    /// Make it an administrator, or none.
    pub is_admin: Option<bool>,
    /// Accept its tokens, or refuse them.
    pub is_active: Option<bool>,
    /// Another name in a system around us.
    pub external_id: Option<Option<ExternalId>>,
}

/// A user as it shall be; `None`: as it is, or as the caller says if it is new.
#[derive(Debug, Clone)]
pub struct UserUpsert {
    /// The user, if it is new. It has the external id by which it is found, and
    /// its handle is changed if that is taken and not in `changes`.
    pub new: NewUser,
    /// What to change of it, if it is there.
    pub changes: UserChanges,
}

/// Who looks at the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Viewer {
    /// Who sees everything.
    Administrator,
    /// Who sees what it belongs to, and what it manages.
    User {
        /// The user.
        id: UserId,
        /// The workspace and its organization beyond which its token reaches for
        /// nothing.
        within: Option<(String, String)>,
    },
}

/// A container to be kept.
#[derive(Debug, Clone)]
pub struct NewContainer {
    /// Its id.
    pub id: String,
    /// Of a workspace: its organization.
    pub organization_id: Option<String>,
    /// Its short name.
    pub slug: Slug,
    /// What people call it.
    pub name: DisplayName,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
    /// Whether tokens bound to it will be accepted.
    pub is_active: bool,
}

/// What to change of a container; `None`: leave it. The inner `None` clears.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerChanges {
    /// A new slug.
    pub slug: Option<Slug>,
    /// A new name.
    pub name: Option<DisplayName>,
    /// Another name in a system around us.
    pub external_id: Option<Option<ExternalId>>,
    /// Accept tokens bound to it, or refuse them.
    pub is_active: Option<bool>,
}

/// A container as it shall be; `None`: as it is.
#[derive(Debug, Clone)]
pub struct ContainerUpsert {
    /// By which it is found.
    pub external_id: ExternalId,
    /// The id that it gets if it is new.
    pub new_id: String,
    /// Its organization, if it is a workspace.
    pub organization_id: Option<String>,
    /// Its short name; needed if it is new.
    pub slug: Option<Slug>,
    /// What people call it; its slug if it is new.
    pub name: Option<DisplayName>,
    /// Whether tokens bound to it are accepted; they are if it is new.
    pub is_active: Option<bool>,
}

/// Which containers to list; `None`: whatever it is.
#[derive(Debug, Clone)]
pub struct ContainerFilter {
    /// Of which kind.
    pub kind: ContainerKind,
    /// Only active, or only inactive ones.
    pub is_active: Option<bool>,
    /// Only workspaces of this organization.
    pub organization_id: Option<String>,
}

/// Which memberships to list; `None`: whatever it is.
#[derive(Debug, Clone, Default)]
pub struct MembershipFilter {
    /// Only this user's.
    pub user: Option<UserId>,
    /// Only those in this container.
    pub container: Option<(ContainerKind, String)>,
}

/// What to do to memberships.
#[derive(Debug, Clone, Default)]
pub struct MembershipChanges {
    /// What they shall be.
    pub puts: Vec<MembershipPut>,
    /// Of whom all others shall end.
    pub only: Option<OnlyMemberships>,
}

/// A membership as it shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipPut {
    /// Whose.
    pub user: UserId,
    /// In which kind of container.
    pub kind: ContainerKind,
    /// In which one.
    pub container_id: String,
    /// As what; `None`: it shall end.
    pub role: Option<Role>,
    /// Whether it must be there, or must not be there yet.
    pub expects: Expects,
}

/// What a change needs to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expects {
    /// Whatever it is.
    Either,
    /// None yet: [`AlreadyExists`](crate::store::StoreError::AlreadyExists) else.
    None,
    /// One: [`NoMembership`](crate::store::Refusal::NoMembership) else.
    One,
}

/// Of whom all memberships but those that are put shall end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnlyMemberships {
    /// Whose.
    pub user: UserId,
    /// Only those in this organization and its workspaces.
    pub organization_id: Option<String>,
}
