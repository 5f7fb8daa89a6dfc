//! Who may call what: one row for each RPC that is served.
//!
//! A right is what the user may do and what its token's scopes allow, both. An
//! RPC without a row is refused before anything else is looked at.

use crate::{
    caller::Caller,
    domain::{ControlScope, Kind},
};
use ControlScope::{
    IssueTokens, ReadDirectory, ReadTokens, VerifyTokens, WriteDirectory, WriteTokens,
};

/// What one RPC asks of its caller.
#[derive(Debug, PartialEq, Eq)]
pub struct Right {
    /// `/package.Service/Method`.
    pub path: &'static str,
    /// The scopes of which a token needs one for what is its user's own; none
    /// named: any token will do.
    own: &'static [ControlScope],
    /// The same for what is others', which only administrators reach.
    others: Others,
}

#[derive(Debug, PartialEq, Eq)]
enum Others {
    /// Administrators, with one of these scopes.
    Administrators(&'static [ControlScope]),
    /// The difference does not arise: who has the scope may ask.
    Same,
}

/// Why a caller may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// Its user may not.
    Role,
    /// Its token's scopes do not allow it.
    Scope,
}

macro_rules! rights {
    ($($(#[$doc:meta])* $name:ident = $path:literal: $own:expr, $others:expr;)*) => {
        $(
            $(#[$doc])*
            pub const $name: Right = Right {
                path: concat!("/token_authority.v1.", $path),
                own: &$own,
                others: $others,
            };
        )*

        /// Every RPC that is served and asks something of its caller.
        pub const ALL: &[Right] = &[$($name),*];
    };
}

use Others::{Administrators, Same};

rights! {
    /// A question about a token.
    VERIFY = "Verification/Verify": [VerifyTokens], Same;
    /// A question about the caller.
    WHO_AM_I = "Verification/WhoAmI": [], Same;
    /// A new token.
    CREATE_PAT = "PersonalAccessTokens/CreatePersonalAccessToken": [WriteTokens],
        Administrators(&[WriteTokens, IssueTokens]);
    /// What the caller could give.
    LIST_SCOPES = "PersonalAccessTokens/ListAvailablePatScopes": [], Same;
    /// A user's tokens.
    LIST_PATS = "PersonalAccessTokens/ListPersonalAccessTokens": [ReadTokens],
        Administrators(&[ReadTokens, IssueTokens]);
    /// One token.
    GET_PAT = "PersonalAccessTokens/GetPersonalAccessToken": [ReadTokens],
        Administrators(&[ReadTokens, IssueTokens]);
    /// Another name for a token.
    UPDATE_PAT = "PersonalAccessTokens/UpdatePersonalAccessToken": [WriteTokens],
        Administrators(&[WriteTokens, IssueTokens]);
    /// The end of a token. A token may end itself whatever its scopes.
    REVOKE_PAT = "PersonalAccessTokens/RevokePersonalAccessToken": [WriteTokens],
        Administrators(&[WriteTokens, IssueTokens]);
    /// A new user.
    CREATE_USER = "Directory/CreateUser": [WriteDirectory], Administrators(&[WriteDirectory]);
    /// One user.
    GET_USER = "Directory/GetUser": [ReadDirectory], Administrators(&[ReadDirectory]);
    /// Users.
    LIST_USERS = "Directory/ListUsers": [ReadDirectory], Administrators(&[ReadDirectory]);
    /// A change of a user.
    UPDATE_USER = "Directory/UpdateUser": [WriteDirectory], Administrators(&[WriteDirectory]);
}

impl Right {
    /// The row of the RPC at `path`, if it is served.
    #[must_use]
    pub fn of(path: &str) -> Option<&'static Self> {
        ALL.iter().find(|right| right.path == path)
    }

    /// Whether a caller may do this with what is its user's own.
    ///
    /// # Errors
    ///
    /// Its token's scopes do not allow it.
    pub fn own(&self, caller: &Caller) -> Result<(), Denied> {
        // Who verifies is an administrator, or was given that very scope by one.
        if self.own == [VerifyTokens] && !caller.is_administrator() {
            return match caller.found.credential.kind() {
                Kind::PersonalAccessToken if caller.is_given(VerifyTokens) => Ok(()),
                Kind::PersonalAccessToken => Err(Denied::Scope),
                Kind::ApiClientAuthorization => Err(Denied::Role),
            };
        }
        if caller.allowed(self.path, self.own) { Ok(()) } else { Err(Denied::Scope) }
    }

    /// Whether a caller may do this with what is others'.
    ///
    /// # Errors
    ///
    /// Its user is no administrator, or its token's scopes do not allow it.
    pub fn others(&self, caller: &Caller) -> Result<(), Denied> {
        match self.others {
            Same => self.own(caller),
            Administrators(_) if !caller.is_administrator() => Err(Denied::Role),
            // A token that is bound to a workspace reaches beyond it for nothing.
            Administrators(_) if caller.workspace_id().is_some() => Err(Denied::Scope),
            Administrators(scopes) if caller.allowed(self.path, scopes) => Ok(()),
            Administrators(_) => Err(Denied::Scope),
        }
    }

    /// Whether a caller reaches others' only as one who issues tokens: those
    /// of users who are no administrators.
    #[must_use]
    pub fn only_issues(&self, caller: &Caller) -> bool {
        !caller.allowed(self.path, self.own)
    }
}
