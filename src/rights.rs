//! Who may call what: one row for each RPC there is.
//!
//! A right is what the user may do and what its token's scopes allow, both. An
//! RPC without a row is refused before anything else is looked at.

use crate::{
    caller::Caller,
    domain::{Container, ControlScope, Kind, Role},
};
use Authorization::{All as OnlyAll, Any, Route};
use ControlScope::{
    AdminAll, IssueTokens, ReadDirectory, ReadTokens, VerifyTokens, WriteDirectory, WriteTokens,
};
use Who::{Administrator, Anybody, Manager, Member, Nobody, Root, Verifier};

/// A row of the table: what one RPC asks of its caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Right {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// Who may do it with what is its user's own, and by which scopes.
    own: Access,
    /// The same for what is others'.
    others: Access,
    /// Which scopes an API client authorization needs for it.
    authorization: Authorization,
    /// Whether every token may do it with itself.
    pub itself: bool,
}

/// Who, and by which of the scopes of its personal access token: it needs one;
/// where none is named, none.
#[derive(Debug, PartialEq, Eq)]
struct Access(Who, &'static [ControlScope]);

/// What the user must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// There is no such right.
    Nobody,
    /// Any active user.
    Anybody,
    /// Who may have tokens bound to the workspace concerned.
    Member,
    /// An owner or admin of what is concerned or of its organization, or an
    /// administrator.
    Manager,
    /// An administrator.
    Administrator,
    /// An administrator, or whose token was given `verify:tokens` by its name.
    Verifier,
    /// Nobody but who presents the system root token.
    Root,
}

/// Which scopes an API client authorization needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Authorization {
    /// Any.
    Any,
    /// Those that allow `POST` to the RPC's path, by the rule of Arvados.
    Route,
    /// `all`.
    All,
}

/// What the caller's user is in the container that a call is about.
#[derive(Debug, Clone)]
pub struct Standing {
    /// The container.
    pub container: Container,
    /// Its role there.
    pub role: Option<Role>,
    /// Its role in the organization that the container is or is part of.
    pub organization_role: Option<Role>,
}

/// Why a caller may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    /// Its user may not.
    Role,
    /// Its token's scopes do not allow it.
    Scope,
}

macro_rules! rights {
    ($($name:ident = $path:literal:
        $own:ident $own_scopes:tt, $others:ident $others_scopes:tt, $authorization:ident $($itself:ident)?;)*) => {
        $(
            #[doc = concat!("The right to `", $path, "`.")]
            pub const $name: Right = Right {
                path: concat!("/token_authority.v1.", $path),
                own: Access($own, &$own_scopes),
                others: Access($others, &$others_scopes),
                authorization: $authorization,
                itself: {
                    let marks: &[&str] = &[$(stringify!($itself))?];
                    !marks.is_empty()
                },
            };
        )*

        /// Every RPC.
        pub const ALL: &[Right] = &[$($name),*];
    };
}

// RPC: who may with its own, by which scopes; who with others'; API client
// authorization; whether any token may with itself.
#[rustfmt::skip]
rights! {
    VERIFY = "Verification/Verify": Verifier [VerifyTokens], Nobody [], Route;
    BATCH_VERIFY = "Verification/BatchVerify": Verifier [VerifyTokens], Nobody [], Route;
    STREAM_VERIFY = "Verification/StreamVerify": Verifier [VerifyTokens], Nobody [], Route;
    WATCH = "Verification/Watch": Verifier [VerifyTokens], Nobody [], Route;
    REPORT_USE = "Verification/ReportUse": Verifier [VerifyTokens], Nobody [], Route;
    WHO_AM_I = "Verification/WhoAmI": Anybody [], Nobody [], Any;

    CREATE_PAT = "PersonalAccessTokens/CreatePersonalAccessToken": Anybody [WriteTokens], Administrator [WriteTokens, IssueTokens], Route;
    LIST_SCOPES = "PersonalAccessTokens/ListAvailablePatScopes": Anybody [], Nobody [], Any;
    LIST_PATS = "PersonalAccessTokens/ListPersonalAccessTokens": Anybody [ReadTokens], Administrator [ReadTokens, IssueTokens], Route;
    GET_PAT = "PersonalAccessTokens/GetPersonalAccessToken": Anybody [ReadTokens], Administrator [ReadTokens, IssueTokens], Route;
    UPDATE_PAT = "PersonalAccessTokens/UpdatePersonalAccessToken": Anybody [WriteTokens], Administrator [WriteTokens, IssueTokens], Route;
    REVOKE_PAT = "PersonalAccessTokens/RevokePersonalAccessToken": Anybody [WriteTokens], Administrator [WriteTokens, IssueTokens], Route itself;
    ROTATE_PAT = "PersonalAccessTokens/RotatePersonalAccessToken": Anybody [WriteTokens], Administrator [WriteTokens, IssueTokens], Route;
    WORKSPACE_CREATE_PAT = "PersonalAccessTokens/WorkspaceCreatePat": Member [WriteTokens], Manager [WriteTokens, IssueTokens], Route;
    WORKSPACE_LIST_PATS = "PersonalAccessTokens/WorkspaceListPats": Member [ReadTokens], Manager [ReadTokens, IssueTokens], Route;
    WORKSPACE_UPDATE_PAT = "PersonalAccessTokens/WorkspaceUpdatePat": Member [WriteTokens], Manager [WriteTokens, IssueTokens], Route;
    WORKSPACE_REVOKE_PAT = "PersonalAccessTokens/WorkspaceRevokePat": Member [WriteTokens], Manager [WriteTokens, IssueTokens], Route itself;

    CREATE_AUTHORIZATION = "ApiClientAuthorizations/CreateApiClientAuthorization": Anybody [AdminAll], Administrator [AdminAll], Route;
    CREATE_SYSTEM_AUTH = "ApiClientAuthorizations/CreateSystemAuth": Nobody [], Administrator [AdminAll], Route;
    DELETE_AUTHORIZATION = "ApiClientAuthorizations/DeleteApiClientAuthorization": Anybody [AdminAll], Root [], Route itself;
    GET_AUTHORIZATION = "ApiClientAuthorizations/GetApiClientAuthorization": Anybody [AdminAll], Root [], Route;
    GET_CURRENT_AUTHORIZATION = "ApiClientAuthorizations/GetCurrentApiClientAuthorization": Anybody [], Nobody [], Any;
    LIST_AUTHORIZATIONS = "ApiClientAuthorizations/ListApiClientAuthorizations": Anybody [AdminAll], Root [], Route;
    UPDATE_AUTHORIZATION = "ApiClientAuthorizations/UpdateApiClientAuthorization": Anybody [AdminAll], Root [], Route;

    GET_USER = "Directory/GetUser": Anybody [ReadDirectory], Administrator [ReadDirectory], Route;
    LIST_USERS = "Directory/ListUsers": Nobody [], Administrator [ReadDirectory], Route;
    GET_ORGANIZATION = "Directory/GetOrganization": Anybody [ReadDirectory], Administrator [ReadDirectory], Route;
    LIST_ORGANIZATIONS = "Directory/ListOrganizations": Anybody [ReadDirectory], Administrator [ReadDirectory], Route;
    GET_WORKSPACE = "Directory/GetWorkspace": Anybody [ReadDirectory], Administrator [ReadDirectory], Route;
    LIST_WORKSPACES = "Directory/ListWorkspaces": Anybody [ReadDirectory], Administrator [ReadDirectory], Route;
    GET_MEMBERSHIP = "Directory/GetMembership": Anybody [ReadDirectory], Administrator [ReadDirectory], Route;
    LIST_MEMBERSHIPS = "Directory/ListMemberships": Anybody [ReadDirectory], Administrator [ReadDirectory], Route;
    CREATE_USER = "Directory/CreateUser": Nobody [], Administrator [WriteDirectory], OnlyAll;
    UPDATE_USER = "Directory/UpdateUser": Nobody [], Administrator [WriteDirectory], OnlyAll;
    DELETE_USER = "Directory/DeleteUser": Nobody [], Administrator [WriteDirectory], OnlyAll;
    UPSERT_USERS = "Directory/UpsertUsers": Nobody [], Administrator [WriteDirectory], OnlyAll;
    CREATE_ORGANIZATION = "Directory/CreateOrganization": Nobody [], Administrator [WriteDirectory], OnlyAll;
    UPDATE_ORGANIZATION = "Directory/UpdateOrganization": Nobody [], Administrator [WriteDirectory], OnlyAll;
    UPSERT_ORGANIZATIONS = "Directory/UpsertOrganizations": Nobody [], Administrator [WriteDirectory], OnlyAll;
    CREATE_WORKSPACE = "Directory/CreateWorkspace": Nobody [], Administrator [WriteDirectory], OnlyAll;
    UPDATE_WORKSPACE = "Directory/UpdateWorkspace": Nobody [], Administrator [WriteDirectory], OnlyAll;
    UPSERT_WORKSPACES = "Directory/UpsertWorkspaces": Nobody [], Administrator [WriteDirectory], OnlyAll;
    CREATE_MEMBERSHIP = "Directory/CreateMembership": Nobody [], Manager [WriteDirectory], OnlyAll;
    UPDATE_MEMBERSHIP = "Directory/UpdateMembership": Nobody [], Manager [WriteDirectory], OnlyAll;
    UPSERT_MEMBERSHIPS = "Directory/UpsertMemberships": Nobody [], Manager [WriteDirectory], OnlyAll;
    SET_MEMBERSHIPS = "Directory/SetMemberships": Nobody [], Manager [WriteDirectory], OnlyAll;
    DELETE_MEMBERSHIP = "Directory/DeleteMembership": Nobody [], Manager [WriteDirectory], OnlyAll;
    REVOKE_TOKENS = "Directory/RevokeTokens": Nobody [], Administrator [WriteDirectory], OnlyAll;

    LIST_CREDENTIALS = "Credentials/ListCredentials": Nobody [], Administrator [ReadTokens], Route;
    GET_CREDENTIAL = "Credentials/GetCredential": Nobody [], Administrator [ReadTokens], Route;
    IDENTIFY_TOKENS = "Credentials/IdentifyTokens": Nobody [], Administrator [ReadTokens], Route;
    REVOKE_CREDENTIALS = "Credentials/RevokeCredentials": Nobody [], Administrator [WriteTokens], Route;
    LIST_USAGE = "Credentials/ListUsage": Nobody [], Administrator [ReadTokens], Route;
}

impl Right {
    /// The row of the RPC at `path`.
    #[must_use]
    pub fn of(path: &str) -> Option<&'static Self> {
        ALL.iter().find(|right| right.path == path)
    }

    /// Whether a caller may do this with what is its user's own.
    ///
    /// # Errors
    ///
    /// Its user may not, or its token's scopes do not allow it.
    pub fn own(&self, caller: &Caller) -> Result<(), Denied> {
        self.check(&self.own, caller, None)
    }

    /// Whether a caller may do this with what is its user's own where it has
    /// this standing.
    ///
    /// # Errors
    ///
    /// Its user may not, or its token's scopes do not allow it.
    pub fn own_in(&self, caller: &Caller, standing: &Standing) -> Result<(), Denied> {
        self.check(&self.own, caller, Some(standing))
    }

    /// Whether a caller may do this with what is others'.
    ///
    /// # Errors
    ///
    /// Its user may not, or its token's scopes do not allow it.
    pub fn others(&self, caller: &Caller) -> Result<(), Denied> {
        self.check(&self.others, caller, None)
    }

    /// Whether a caller may do this with what is others' where it has this standing.
    ///
    /// # Errors
    ///
    /// Its user may not, or its token's scopes do not allow it.
    pub fn others_in(&self, caller: &Caller, standing: &Standing) -> Result<(), Denied> {
        self.check(&self.others, caller, Some(standing))
    }

    /// Whether a caller may do this with others' only as one who issues tokens:
    /// with those of users who are no administrators.
    #[must_use]
    pub fn only_issues(&self, caller: &Caller) -> bool {
        !self.allows(self.own.1, caller)
    }

    fn check(
        &self,
        Access(who, scopes): &Access,
        caller: &Caller,
        standing: Option<&Standing>,
    ) -> Result<(), Denied> {
        let administers = caller.is_administrator();
        let is_he = match who {
            Nobody => false,
            Anybody => true,
            Member => standing.is_some_and(Standing::holds_tokens),
            Manager => administers || standing.is_some_and(Standing::manages),
            Administrator => administers,
            Root => caller.is_root(),
            Verifier if administers => true,
            Verifier => {
                return match caller.found.credential.kind() {
                    Kind::PersonalAccessToken if caller.is_given(VerifyTokens) => Ok(()),
                    Kind::PersonalAccessToken => Err(Denied::Scope),
                    Kind::ApiClientAuthorization | Kind::SystemRoot => Err(Denied::Role),
                };
            }
        };
        if !is_he {
            return Err(Denied::Role);
        }
        // A token that is bound to a workspace reaches beyond it for nothing.
        let within = match (caller.workspace_id(), standing) {
            (None, _) => true,
            (Some(bound), Some(standing)) => standing.container.id == bound,
            (Some(_), None) => !matches!(who, Administrator | Manager),
        };
        if within && self.allows(scopes, caller) { Ok(()) } else { Err(Denied::Scope) }
    }

    /// Whether its token allows a caller this by one of these scopes.
    fn allows(&self, scopes: &[ControlScope], caller: &Caller) -> bool {
        match caller.found.credential.kind() {
            Kind::PersonalAccessToken => {
                scopes.is_empty() || scopes.iter().any(|control| caller.allows(*control))
            }
            Kind::ApiClientAuthorization | Kind::SystemRoot => match self.authorization {
                // Over HTTP `current` has a path that scopes are about.
                Any => caller.route.is_none() || caller.may_call(self.path),
                Route => caller.may_call(self.path),
                OnlyAll => caller.allows(AdminAll),
            },
        }
    }
}

impl Standing {
    /// Whether the user manages the container: its members, and everybody's
    /// tokens in it.
    #[must_use]
    pub fn manages(&self) -> bool {
        [self.role, self.organization_role].into_iter().flatten().any(Role::manages)
    }

    /// Whether the user may have tokens bound to it.
    #[must_use]
    pub fn holds_tokens(&self) -> bool {
        self.role.is_some_and(Role::holds_tokens)
    }
}
