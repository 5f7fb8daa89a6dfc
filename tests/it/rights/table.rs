//! Who may do what: the table of the design, a row for each RPC and what it is
//! about, and what comes of a call by it.

use tonic::Code;

use super::world::{
    On, Person,
    Place::{self, Elsewhere, Home, Nowhere, Org, Sibling, Unknown},
    Whose::{self, Chiefs, Nobodys, Outsiders, Own, Peers},
};

/// What an RPC asks of its caller. The text is the scope that a personal access
/// token needs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Asks {
    /// A good token.
    Nothing,
    /// To be an administrator, or to have been given `verify:tokens` by name.
    ToVerify,
    /// Tokens of a user who is named, or of the caller: own by anybody, others' by
    /// an administrator.
    Tokens(&'static str),
    /// The same of one token, by its id.
    TokenById(&'static str),
    /// Tokens of a workspace: own by its members, others' by who manages it.
    TokensOfWorkspace(&'static str),
    /// The same of one token, by its id.
    TokenOfWorkspaceById(&'static str),
    /// To read: one's self, and an administrator everybody.
    User,
    /// To read what administrators alone may.
    Everybody,
    /// The same of one token, by its id.
    Anybodys,
    /// To read a place: who belongs to it, and an administrator any.
    Place,
    /// To read a membership: its user, and who manages the organization.
    Membership,
    /// To read the list of what one may.
    Lists,
    /// To write the directory.
    ToWrite,
    /// To make administrators.
    ToAppoint,
    /// To make an API client authorization: one's own, or as an administrator
    /// anybody's, and to choose its uuid.
    Authorizations,
    /// To make one of the system user.
    SystemAuthorization,
    /// One of them, by its uuid: one's own, and with the system root token anybody's.
    AuthorizationById,
    /// That which the call is made with.
    ItsAuthorization,
    /// To list one's own.
    OwnAuthorizations,
    /// To write memberships: administrators, and who manages the organization.
    ToWriteMemberships,
}

impl Asks {
    /// Whether what it is about is a token that must be there.
    pub(super) fn is_by_id(self) -> bool {
        matches!(self, Self::TokenById(_) | Self::TokenOfWorkspaceById(_))
    }

    /// The scopes that matter to it, but for `admin:all`.
    pub(super) fn scopes(self) -> &'static [&'static str] {
        match self {
            Self::Nothing
            | Self::Authorizations
            | Self::SystemAuthorization
            | Self::AuthorizationById
            | Self::ItsAuthorization
            | Self::OwnAuthorizations => &[],
            Self::ToVerify => &["verify:tokens"],
            Self::Anybodys => &[READ],
            Self::Tokens(scope)
            | Self::TokenById(scope)
            | Self::TokensOfWorkspace(scope)
            | Self::TokenOfWorkspaceById(scope) => {
                if scope == READ {
                    &[READ, "issue:tokens"]
                } else {
                    &[WRITE, "issue:tokens"]
                }
            }
            Self::User | Self::Everybody | Self::Place | Self::Membership | Self::Lists => {
                &["read:directory"]
            }
            Self::ToWrite | Self::ToAppoint | Self::ToWriteMemberships => &["write:directory"],
        }
    }
}

/// A row: an RPC, what it asks, and all that it is asked about here.
pub(super) struct Row {
    pub(super) method: &'static str,
    pub(super) asks: Asks,
    pub(super) on: &'static [On],
}

const fn row(method: &'static str, asks: Asks, on: &'static [On]) -> Row {
    Row { method, asks, on }
}

const READ: &str = "read:tokens";
const WRITE: &str = "write:tokens";

const NOTHING: &[On] = &[On(Nobodys, Nowhere)];
const USERS: &[On] =
    &[On(Nobodys, Nowhere), On(Own, Nowhere), On(Peers, Nowhere), On(Chiefs, Nowhere)];
const NAMED: &[On] = &[On(Own, Nowhere), On(Peers, Nowhere), On(Chiefs, Nowhere)];
const USERS_AND_BOUND: &[On] = &[
    On(Nobodys, Nowhere),
    On(Own, Nowhere),
    On(Peers, Nowhere),
    On(Chiefs, Nowhere),
    On(Nobodys, Home),
    On(Nobodys, Unknown),
    On(Peers, Home),
];
const TOKENS: &[On] = &[
    On(Own, Nowhere),
    On(Own, Home),
    On(Own, Elsewhere),
    On(Peers, Nowhere),
    On(Peers, Home),
    On(Chiefs, Nowhere),
    On(Chiefs, Home),
    On(Nobodys, Unknown),
];
const TOKENS_OF_WORKSPACE: &[On] = &[
    On(Own, Nowhere),
    On(Own, Home),
    On(Own, Elsewhere),
    On(Peers, Nowhere),
    On(Peers, Home),
    On(Peers, Elsewhere),
    On(Chiefs, Home),
    On(Nobodys, Home),
    On(Nobodys, Unknown),
];
const USERS_OF_WORKSPACE: &[On] = &[
    On(Nobodys, Home),
    On(Peers, Home),
    On(Chiefs, Home),
    On(Nobodys, Elsewhere),
    On(Peers, Elsewhere),
    On(Nobodys, Unknown),
    On(Peers, Unknown),
];
const MEMBERS_AND_NOT: &[On] = &[
    On(Nobodys, Home),
    On(Own, Home),
    On(Peers, Home),
    On(Chiefs, Home),
    On(Outsiders, Home),
    On(Nobodys, Elsewhere),
    On(Peers, Elsewhere),
    On(Nobodys, Unknown),
    On(Peers, Unknown),
];
/// Each by a workspace that is in it.
const ORGANIZATIONS: &[On] = &[On(Nobodys, Home), On(Nobodys, Elsewhere), On(Nobodys, Unknown)];
const WORKSPACES: &[On] =
    &[On(Nobodys, Home), On(Nobodys, Sibling), On(Nobodys, Elsewhere), On(Nobodys, Unknown)];
const MEMBERSHIPS: &[On] = &[
    On(Own, Home),
    On(Own, Org),
    On(Own, Elsewhere),
    On(Peers, Home),
    On(Peers, Elsewhere),
    On(Peers, Unknown),
];
const CONTAINERS: &[On] = &[
    On(Nobodys, Home),
    On(Nobodys, Sibling),
    On(Nobodys, Org),
    On(Nobodys, Elsewhere),
    On(Nobodys, Unknown),
];
/// With organizations that one call is about: one, or all.
const ORGANIZATIONS_AND_ALL: &[On] =
    &[On(Nobodys, Org), On(Nobodys, Elsewhere), On(Nobodys, Unknown), On(Nobodys, Nowhere)];
const CONTAINERS_AND_TWO: &[On] = &[
    On(Nobodys, Home),
    On(Nobodys, Sibling),
    On(Nobodys, Org),
    On(Nobodys, Elsewhere),
    On(Nobodys, Unknown),
    On(Nobodys, Nowhere),
];
/// Whose an API client authorization shall be; at [`Home`], with a uuid of the
/// caller's choice.
const OWNERS: &[On] = &[
    On(Nobodys, Nowhere),
    On(Own, Nowhere),
    On(Peers, Nowhere),
    On(Chiefs, Nowhere),
    On(Nobodys, Unknown),
    On(Own, Home),
];
const AUTHORIZATIONS: &[On] =
    &[On(Own, Nowhere), On(Peers, Nowhere), On(Chiefs, Nowhere), On(Nobodys, Unknown)];
/// At [`Home`], to be another user's; at [`Elsewhere`], to do more than it may.
const AUTHORIZATIONS_TO_CHANGE: &[On] = &[
    On(Own, Nowhere),
    On(Own, Home),
    On(Own, Elsewhere),
    On(Peers, Nowhere),
    On(Peers, Home),
    On(Peers, Elsewhere),
    On(Chiefs, Nowhere),
    On(Nobodys, Unknown),
];
const ANYBODYS: &[On] = &[On(Own, Nowhere), On(Peers, Nowhere), On(Nobodys, Unknown)];
const APPOINTED: &[On] = &[On(Chiefs, Nowhere)];

/// Every RPC that is served.
pub(super) const TABLE: &[Row] = &[
    row("Verification/WhoAmI", Asks::Nothing, NOTHING),
    row("Verification/Verify", Asks::ToVerify, NOTHING),
    row("Verification/BatchVerify", Asks::ToVerify, NOTHING),
    row("Verification/StreamVerify", Asks::ToVerify, NOTHING),
    row("Verification/Watch", Asks::ToVerify, NOTHING),
    row("Verification/ReportUse", Asks::ToVerify, NOTHING),
    row("PersonalAccessTokens/ListAvailablePatScopes", Asks::Nothing, NOTHING),
    row("PersonalAccessTokens/CreatePersonalAccessToken", Asks::Tokens(WRITE), USERS_AND_BOUND),
    row("PersonalAccessTokens/ListPersonalAccessTokens", Asks::Tokens(READ), USERS),
    row("PersonalAccessTokens/GetPersonalAccessToken", Asks::TokenById(READ), TOKENS),
    row("PersonalAccessTokens/UpdatePersonalAccessToken", Asks::TokenById(WRITE), TOKENS),
    row("PersonalAccessTokens/RevokePersonalAccessToken", Asks::TokenById(WRITE), TOKENS),
    row("PersonalAccessTokens/RotatePersonalAccessToken", Asks::TokenById(WRITE), TOKENS),
    row("PersonalAccessTokens/WorkspaceCreatePat", Asks::TokensOfWorkspace(WRITE), MEMBERS_AND_NOT),
    row(
        "PersonalAccessTokens/WorkspaceListPats",
        Asks::TokensOfWorkspace(READ),
        USERS_OF_WORKSPACE,
    ),
    row(
        "PersonalAccessTokens/WorkspaceUpdatePat",
        Asks::TokenOfWorkspaceById(WRITE),
        TOKENS_OF_WORKSPACE,
    ),
    row(
        "PersonalAccessTokens/WorkspaceRevokePat",
        Asks::TokenOfWorkspaceById(WRITE),
        TOKENS_OF_WORKSPACE,
    ),
    row("ApiClientAuthorizations/CreateApiClientAuthorization", Asks::Authorizations, OWNERS),
    row("ApiClientAuthorizations/CreateSystemAuth", Asks::SystemAuthorization, NOTHING),
    row(
        "ApiClientAuthorizations/DeleteApiClientAuthorization",
        Asks::AuthorizationById,
        AUTHORIZATIONS,
    ),
    row(
        "ApiClientAuthorizations/GetApiClientAuthorization",
        Asks::AuthorizationById,
        AUTHORIZATIONS,
    ),
    row(
        "ApiClientAuthorizations/GetCurrentApiClientAuthorization",
        Asks::ItsAuthorization,
        NOTHING,
    ),
    row("ApiClientAuthorizations/ListApiClientAuthorizations", Asks::OwnAuthorizations, NOTHING),
    row(
        "ApiClientAuthorizations/UpdateApiClientAuthorization",
        Asks::AuthorizationById,
        AUTHORIZATIONS_TO_CHANGE,
    ),
    row("Directory/GetUser", Asks::User, NAMED),
    row("Directory/ListUsers", Asks::Everybody, NOTHING),
    row("Directory/CreateUser", Asks::ToWrite, NOTHING),
    row("Directory/CreateUser", Asks::ToAppoint, APPOINTED),
    row("Directory/UpdateUser", Asks::ToWrite, &[On(Own, Nowhere), On(Peers, Nowhere)]),
    row("Directory/UpdateUser", Asks::ToAppoint, APPOINTED),
    row("Directory/UpsertUsers", Asks::ToWrite, NOTHING),
    row("Directory/UpsertUsers", Asks::ToAppoint, APPOINTED),
    row("Directory/DeleteUser", Asks::ToWrite, NOTHING),
    row("Directory/CreateOrganization", Asks::ToWrite, NOTHING),
    row("Directory/GetOrganization", Asks::Place, ORGANIZATIONS),
    row("Directory/ListOrganizations", Asks::Lists, NOTHING),
    row("Directory/UpdateOrganization", Asks::ToWrite, NOTHING),
    row("Directory/UpsertOrganizations", Asks::ToWrite, NOTHING),
    row("Directory/CreateWorkspace", Asks::ToWrite, NOTHING),
    row("Directory/GetWorkspace", Asks::Place, WORKSPACES),
    row("Directory/ListWorkspaces", Asks::Lists, NOTHING),
    row("Directory/ListWorkspaces", Asks::Place, ORGANIZATIONS),
    row("Directory/UpdateWorkspace", Asks::ToWrite, NOTHING),
    row("Directory/UpsertWorkspaces", Asks::ToWrite, NOTHING),
    row("Directory/CreateMembership", Asks::ToWriteMemberships, CONTAINERS),
    row("Directory/GetMembership", Asks::Membership, MEMBERSHIPS),
    row("Directory/ListMemberships", Asks::Lists, &[On(Nobodys, Nowhere), On(Own, Nowhere)]),
    row("Directory/ListMemberships", Asks::Place, WORKSPACES),
    row("Directory/UpdateMembership", Asks::ToWriteMemberships, CONTAINERS),
    row("Directory/UpsertMemberships", Asks::ToWriteMemberships, CONTAINERS_AND_TWO),
    row("Directory/SetMemberships", Asks::ToWriteMemberships, ORGANIZATIONS_AND_ALL),
    row("Directory/DeleteMembership", Asks::ToWriteMemberships, CONTAINERS),
    row(
        "Directory/RevokeTokens",
        Asks::ToWrite,
        &[On(Nobodys, Nowhere), On(Nobodys, Sibling), On(Nobodys, Unknown), On(Outsiders, Nowhere)],
    ),
    row("Credentials/ListUsage", Asks::Anybodys, ANYBODYS),
];

/// What a caller presents.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    PersonalAccessToken,
    ApiClientAuthorization,
    SystemRoot,
}

/// A caller: its user, and what its token may do.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) person: Person,
    pub(super) kind: Kind,
    pub(super) scopes: Vec<String>,
    /// The workspace that the token is bound to.
    pub(super) bound: Option<Place>,
}

/// A code, and the reason beside it.
pub(super) type Answer = (Code, &'static str);

pub(super) const OK: Answer = (Code::Ok, "");
pub(super) const NOT_FOUND: Answer = (Code::NotFound, "");
pub(super) const ROLE: Answer = (Code::PermissionDenied, "CALLER_ROLE");
pub(super) const SCOPE: Answer = (Code::PermissionDenied, "CALLER_SCOPE");
const EXCEEDS: Answer = (Code::PermissionDenied, "EXCEEDS_CALLER");
const INVALID: Answer = (Code::InvalidArgument, "");
pub(super) const NOT_A_MEMBER: Answer = (Code::PermissionDenied, "NOT_A_MEMBER");

/// A refusal ends the judging; what is left over is allowed.
type Judged = Result<(), Answer>;

fn ask(is_so: bool, otherwise: Answer) -> Judged {
    if is_so { Ok(()) } else { Err(otherwise) }
}

impl Caller {
    pub(super) fn has(&self, scope: &str) -> bool {
        self.scopes.iter().any(|held| held == scope)
    }

    /// Whether the token may do everything that its user may.
    fn has_everything(&self) -> bool {
        self.has(match self.kind {
            Kind::PersonalAccessToken => "admin:all",
            Kind::ApiClientAuthorization | Kind::SystemRoot => "all",
        })
    }

    /// Whether its scopes are entries of which one admits a method.
    pub(super) fn admits(&self, method: &str) -> bool {
        let path = path_scope(method);
        self.scopes
            .iter()
            .any(|entry| *entry == path || entry.ends_with('/') && path.starts_with(entry))
    }

    /// Whether the token's scopes allow a method that needs `scope`.
    fn may(&self, method: &str, scope: &str) -> bool {
        self.has_everything()
            || match self.kind {
                Kind::PersonalAccessToken => self.has(scope),
                Kind::ApiClientAuthorization | Kind::SystemRoot => self.admits(method),
            }
    }

    fn may_write_directory(&self) -> bool {
        self.has_everything()
            || self.kind == Kind::PersonalAccessToken && self.has("write:directory")
    }

    fn issues(&self) -> bool {
        self.kind == Kind::PersonalAccessToken && self.has("issue:tokens")
    }

    /// Whether its token reaches a place at all.
    fn reaches(&self, place: Place) -> bool {
        self.bound.is_none_or(|bound| bound == place)
    }

    /// What comes of a call.
    pub(super) fn expected(&self, row: &Row, on: On) -> Answer {
        self.judged(row, on).err().unwrap_or(match (row.method, on) {
            ("Directory/CreateMembership", _) => (Code::AlreadyExists, "MEMBERSHIP_EXISTS"),
            ("Directory/UpdateUser", On(Own, _)) if self.person.is_system() => {
                (Code::FailedPrecondition, "SYSTEM_USER")
            }
            _ => OK,
        })
    }

    fn judged(&self, row: &Row, On(whose, place): On) -> Judged {
        let reads_directory = self.may(row.method, "read:directory");
        let is_unbound = self.bound.is_none();
        let administers = self.person.is_admin && is_unbound;
        match row.asks {
            Asks::Nothing => Ok(()),
            Asks::ToVerify => self.verifies(row.method),
            Asks::Tokens(scope) => self.reaches_tokens(row.method, scope, whose, place),
            Asks::TokenById(scope) => self.reaches_token(row.method, scope, whose, place),
            Asks::TokensOfWorkspace(scope) => {
                self.reaches_tokens_of_workspace(row.method, scope, whose, place)
            }
            Asks::TokenOfWorkspaceById(scope) => {
                self.reaches_token_of_workspace(row.method, scope, whose, place)
            }
            Asks::User => {
                ask(reads_directory, SCOPE)?;
                ask(whose == Own || administers && whose != Nobodys, NOT_FOUND)
            }
            Asks::Everybody => {
                ask(self.person.is_admin, ROLE)?;
                ask(is_unbound && reads_directory, SCOPE)
            }
            Asks::Anybodys => {
                ask(self.person.is_admin, ROLE)?;
                ask(is_unbound && self.may(row.method, READ), SCOPE)?;
                ask(place != Unknown, NOT_FOUND)
            }
            Asks::Place => {
                ask(reads_directory, SCOPE)?;
                ask(place != Unknown, NOT_FOUND)?;
                ask(administers || self.sees(place), NOT_FOUND)
            }
            Asks::Membership => {
                ask(reads_directory, SCOPE)?;
                let is_its_own = whose == Own && self.person.role_in(place).is_some();
                let is_there = whose == Own && is_its_own || whose == Peers && place != Unknown;
                let managed = is_unbound && self.person.manages_organization_of(place);
                let reached = self.reaches(place) || place == Org && self.reaches(Home);
                ask(is_there && (is_its_own && reached || managed), NOT_FOUND)
            }
            Asks::Lists => ask(reads_directory, SCOPE),
            Asks::ToWrite => {
                ask(self.person.is_admin, ROLE)?;
                ask(is_unbound && self.may_write_directory(), SCOPE)
            }
            Asks::ToAppoint => {
                ask(self.person.is_admin, ROLE)?;
                ask(is_unbound && self.has_everything(), SCOPE)
            }
            Asks::Authorizations => {
                let is_others = matches!(whose, Peers | Chiefs) || place == Unknown;
                ask(is_unbound && self.may(row.method, "admin:all"), SCOPE)?;
                ask(!is_others || self.person.is_admin, ROLE)?;
                ask(place != Unknown, ROLE)?;
                ask(place == Nowhere || self.person.is_admin, INVALID)
            }
            Asks::SystemAuthorization => {
                ask(self.person.is_admin, ROLE)?;
                ask(is_unbound && self.may(row.method, "admin:all"), SCOPE)
            }
            Asks::AuthorizationById => {
                ask(self.may(row.method, "admin:all"), SCOPE)?;
                // To whom it may give one is said before whether it has it.
                ask(place != Home || self.person.is_admin, ROLE)?;
                let is_reached = whose == Own || self.kind == Kind::SystemRoot;
                ask(is_unbound && is_reached && place != Unknown, NOT_FOUND)?;
                ask(place == Nowhere || self.has_everything(), EXCEEDS)
            }
            Asks::ItsAuthorization => ask(self.kind != Kind::PersonalAccessToken, NOT_FOUND),
            Asks::OwnAuthorizations => ask(self.may(row.method, "admin:all"), SCOPE),
            Asks::ToWriteMemberships => {
                let places: &[_] = match (row.method, place) {
                    ("Directory/UpsertMemberships", Nowhere) => &[Sibling, Elsewhere],
                    _ => &[place],
                };
                places.iter().try_for_each(|&place| self.writes_memberships(place))
            }
        }
    }

    /// What a caller may not know of is not found; of [`Nowhere`], all places, every
    /// caller knows.
    fn writes_memberships(&self, place: Place) -> Judged {
        let belongs = match place {
            Nowhere => true,
            Org => self.sees(Home) || self.sees(Org),
            Home | Sibling | Elsewhere | Unknown => self.sees(place),
        };
        ask(self.person.is_admin || belongs, NOT_FOUND)?;
        ask(self.person.manages_organization_of(place), ROLE)?;
        ask(self.bound.is_none() && self.may_write_directory(), SCOPE)?;
        ask(place != Unknown, NOT_FOUND)
    }

    /// Whether its user belongs to a place that its token reaches.
    fn sees(&self, place: Place) -> bool {
        self.person.belongs_to(place) && self.reaches(place)
    }

    fn verifies(&self, method: &str) -> Judged {
        match (self.person.is_admin, self.kind) {
            (true, _) => ask(self.may(method, "verify:tokens"), SCOPE),
            (false, Kind::PersonalAccessToken) => ask(self.has("verify:tokens"), SCOPE),
            (false, Kind::ApiClientAuthorization | Kind::SystemRoot) => Err(ROLE),
        }
    }

    /// Whoever gets the secret of a personal access token by the other kind could do
    /// all that it may, so that only `all` crosses kinds.
    fn crosses_kinds(&self, method: &str) -> Judged {
        let gets_a_secret = ["Create", "Rotate"].iter().any(|verb| method.contains(verb));
        let is_of_this_kind = self.kind == Kind::PersonalAccessToken;
        ask(!gets_a_secret || is_of_this_kind || self.has_everything(), EXCEEDS)
    }

    fn reaches_tokens(&self, method: &str, scope: &str, whose: Whose, place: Place) -> Judged {
        if whose == Nobodys || whose == Own {
            ask(self.may(method, scope), SCOPE)?;
        } else {
            ask(self.person.is_admin, ROLE)?;
            let issues = self.issues() && whose != Chiefs;
            ask(self.bound.is_none() && (self.may(method, scope) || issues), SCOPE)?;
        }
        self.crosses_kinds(method)?;
        // The system user has no personal access tokens.
        let is_its_own = matches!(whose, Nobodys | Own) && self.person.is_system();
        ask(!is_its_own || !method.contains("Create"), NOT_FOUND)?;
        if place == Nowhere {
            return Ok(());
        }
        // The workspace that the new token shall be bound to.
        ask(self.reaches(place), EXCEEDS)?;
        ask(place != Unknown, if self.person.is_admin { NOT_FOUND } else { NOT_A_MEMBER })?;
        ask(whose != Nobodys || self.person.is_member(place), NOT_A_MEMBER)
    }

    fn reaches_token(&self, method: &str, scope: &str, whose: Whose, place: Place) -> Judged {
        let own = self.may(method, scope);
        let others = self.person.is_admin && self.bound.is_none() && (own || self.issues());
        ask(own || others, SCOPE)?;
        let is_found = match whose {
            Nobodys => false,
            Own => own && self.reaches(place),
            Chiefs => others && own,
            Peers | Outsiders => others,
        };
        ask(is_found, NOT_FOUND)?;
        self.crosses_kinds(method)
    }

    fn reaches_tokens_of_workspace(
        &self,
        method: &str,
        scope: &str,
        whose: Whose,
        place: Place,
    ) -> Judged {
        ask(self.reaches(place), SCOPE)?;
        let is_member = self.person.is_member(place);
        let manages = self.person.manages(place);
        let may = self.may(method, scope);
        // An administrator whose scopes allow it is told of what is not there, others
        // not even that.
        if self.person.is_admin && place == Unknown {
            ask(may || self.issues(), SCOPE)?;
        }
        ask(place != Unknown, if self.person.is_admin { NOT_FOUND } else { ROLE })?;
        let creates = method.ends_with("WorkspaceCreatePat");
        if whose != Nobodys && whose != Own {
            ask(manages, ROLE)?;
            ask(may || whose != Chiefs && self.issues(), SCOPE)?;
            if creates {
                ask(self.person.is_admin || whose != Chiefs, ROLE)?;
            }
        } else if creates {
            ask(is_member, ROLE)?;
            ask(may, SCOPE)?;
        } else {
            ask(is_member || manages, ROLE)?;
            ask(may || manages && self.issues(), SCOPE)?;
        }
        ask(whose != Outsiders || self.person.is_admin, NOT_A_MEMBER)?;
        self.crosses_kinds(method)?;
        ask(whose != Outsiders, NOT_A_MEMBER)
    }

    fn reaches_token_of_workspace(
        &self,
        method: &str,
        scope: &str,
        whose: Whose,
        place: Place,
    ) -> Judged {
        let named = if whose == Nobodys { place } else { Home };
        ask(self.reaches(named), SCOPE)?;
        let is_member = self.person.is_member(named);
        let manages = self.person.manages(named);
        ask(named != Unknown, if self.person.is_admin { NOT_FOUND } else { ROLE })?;
        ask(is_member || manages, ROLE)?;
        let own = self.may(method, scope);
        let others = manages && (own || self.issues());
        ask(own || others, SCOPE)?;
        let is_found = match whose {
            Nobodys => false,
            // Who manages a workspace has everybody's, also its own.
            Own => is_member && (own || others && !self.person.is_admin),
            Chiefs => manages && own,
            Peers | Outsiders => others,
        };
        ask(is_found && place == Home, NOT_FOUND)
    }
}

/// The scope of an API client authorization that admits one method alone.
pub(super) fn path_scope(method: &str) -> String {
    format!("POST /token_authority.v1.{method}")
}
