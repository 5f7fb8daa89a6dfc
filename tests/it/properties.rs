//! What must hold after whatever was done in whatever order: random sequences of
//! calls against a server, beside a small model of what they should have led to.

mod authorizations;

use std::{cell::RefCell, collections::BTreeMap, env, fs, str::FromStr, time::Duration};

use ipnet::IpNet;
use proptest::{
    collection, option,
    prelude::*,
    sample::{select, subsequence},
    test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner},
};
use prost::Message;
use token_authority::{
    clock::Clock as _,
    proto::v1::{
        CreatePersonalAccessTokenRequest, DeleteMembershipRequest, DeleteUserRequest,
        GetPersonalAccessTokenRequest, ListPersonalAccessTokensRequest, MembershipRole,
        MembershipUpsert, OrganizationUpsert, PersonalAccessToken, Reason,
        RevokePersonalAccessTokenRequest, RevokeTokensRequest, RotatePersonalAccessTokenRequest,
        TokenState, UpdateOrganizationRequest, UpdatePersonalAccessTokenRequest, UpdateUserRequest,
        UpdateWorkspaceRequest, UpsertMembershipsRequest, UpsertOrganizationsRequest,
        UpsertUsersRequest, UpsertWorkspacesRequest, UserUpsert, VerifyRequest, VerifyResponse,
        WorkspaceCreatePatRequest, WorkspaceRevokePatRequest, WorkspaceUpdatePatRequest,
        WorkspaceUpsert, create_personal_access_token_request::Expiry, delete_membership_request,
        membership_upsert, revoke_tokens_request::Target, workspace_create_pat_request,
    },
};
use tokio::{runtime::Handle, task::JoinSet};
use tonic::{Code, Response, Status};

use crate::support::{
    Engine, on_both_stores,
    server::{self, TestServer},
    wait::until,
};

on_both_stores![whatever_is_done_in_whatever_order_the_promises_hold];

/// Of users: an administrator first.
const USERS: usize = 4;
/// The organization of each workspace.
const WORKSPACES: [usize; 3] = [0, 0, 1];
const ORGANIZATIONS: usize = 2;

const CONTROL: [&str; 5] =
    ["admin:all", "issue:tokens", "read:tokens", "verify:tokens", "write:tokens"];
const SCOPES: [&str; 9] = [
    "write:tokens",
    "read:*",
    "read:notes",
    "read:tokens",
    "write:mail",
    "write:*",
    "issue:tokens",
    "verify:tokens",
    "admin:all",
];
/// Networks of tokens, some with the address from which all calls come.
const NETWORKS: [&[&str]; 5] =
    [&[], &["127.0.0.0/8"], &["127.0.0.1/32"], &["10.0.0.0/8"], &["127.0.0.0/8", "10.1.0.0/16"]];
const HERE: &str = "127.0.0.1";

/// One call, or time that goes by. Numbers choose among what there is by then.
#[derive(Debug, Clone)]
enum Operation {
    Create {
        by: usize,
        owner: Option<usize>,
        wanted: Wanted,
    },
    Rotate {
        by: usize,
        token: usize,
        overlap: Option<i64>,
    },
    Use {
        secret: usize,
    },
    Update {
        by: usize,
        token: usize,
        in_workspace: bool,
    },
    Revoke {
        by: usize,
        token: usize,
        in_workspace: bool,
        descendants: bool,
    },
    Read {
        by: usize,
        token: usize,
    },
    Advance {
        seconds: u64,
    },
    SetActive {
        place: Place,
        is_active: bool,
    },
    /// Of everything, where no place is named.
    RevokeTokens {
        place: Option<Place>,
    },
    SetRole {
        user: usize,
        place: Place,
        role: Option<MembershipRole>,
    },
    /// Who has a token in a workspace leaves, or becomes a guest, and comes back.
    LeaveAndComeBack {
        token: usize,
        stays_as_guest: bool,
    },
    DeleteUser {
        user: usize,
    },
    Authorization(authorizations::Operation),
}

#[derive(Debug, Clone, Copy)]
enum Place {
    User(usize),
    Workspace(usize),
    Organization(usize),
}

/// What a new token shall be.
#[derive(Debug, Clone)]
struct Wanted {
    scopes: Vec<&'static str>,
    /// Chooses among those that there are.
    workspace: Option<usize>,
    /// Whether it is asked of the workspace.
    in_workspace: bool,
    ttl: Option<i64>,
    networks: usize,
    /// Whether to want no other scopes than the caller has.
    is_narrow: bool,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let number = 0..1024_usize;
    let two = (number.clone(), number.clone());
    let ttl = option::weighted(0.3, select(vec![30_i64, 60, 7200, 86_400]));
    let wanted =
        (
            subsequence(SCOPES.to_vec(), 0..=4),
            option::weighted(0.4, 0..WORKSPACES.len()),
            any::<bool>(),
            ttl,
            prop_oneof![3 => Just(0), 2 => 0..NETWORKS.len()],
            any::<bool>(),
        )
            .prop_map(|(scopes, workspace, in_workspace, ttl, networks, is_narrow)| {
                Wanted { scopes, workspace, in_workspace, ttl, networks, is_narrow }
            });
    let workspace = (0..WORKSPACES.len()).prop_map(Place::Workspace);
    let organization = (0..ORGANIZATIONS).prop_map(Place::Organization);
    let [place, bound_place] = [[2, 1], [1, 2]].map(|[users, others]| {
        prop_oneof![
            users => (0..USERS).prop_map(Place::User),
            1 => (0..WORKSPACES.len()).prop_map(Place::Workspace),
            others => (0..ORGANIZATIONS).prop_map(Place::Organization),
        ]
    });
    let role = option::weighted(
        0.7,
        select(vec![
            MembershipRole::Member,
            MembershipRole::Admin,
            MembershipRole::Owner,
            MembershipRole::Guest,
        ]),
    );
    let operation = prop_oneof![
        14 => (number.clone(), option::weighted(0.4, 0..USERS), wanted)
            .prop_map(|(by, owner, wanted)| Operation::Create { by, owner, wanted }),
        8 => (two.clone(), option::weighted(0.6, select(vec![0, 30, 60, 7200])))
            .prop_map(|((by, token), overlap)| Operation::Rotate { by, token, overlap }),
        7 => number.clone().prop_map(|secret| Operation::Use { secret }),
        3 => (two.clone(), any::<bool>())
            .prop_map(|((by, token), in_workspace)| Operation::Update { by, token, in_workspace }),
        4 => (two.clone(), any::<bool>(), any::<bool>()).prop_map(
            |((by, token), in_workspace, descendants)| Operation::Revoke {
                by, token, in_workspace, descendants
            }
        ),
        3 => two.prop_map(|(by, token)| Operation::Read { by, token }),
        3 => select(vec![1, 30, 60, 3600, 25 * 3600])
            .prop_map(|seconds| Operation::Advance { seconds }),
        7 => (place, prop_oneof![2 => Just(true), 1 => Just(false)])
            .prop_map(|(place, is_active)| Operation::SetActive { place, is_active }),
        4 => option::weighted(0.9, bound_place).prop_map(|place| Operation::RevokeTokens { place }),
        7 => (0..USERS, prop_oneof![4 => workspace, 1 => organization], role)
            .prop_map(|(user, place, role)| Operation::SetRole { user, place, role }),
        3 => (number, any::<bool>()).prop_map(|(token, stays_as_guest)| {
            Operation::LeaveAndComeBack { token, stays_as_guest }
        }),
        1 => (0..USERS).prop_map(|user| Operation::DeleteUser { user }),
        20 => authorizations::operations().prop_map(Operation::Authorization),
    ];
    collection::vec(operation, 40..100)
}

/// What the model knows of a user.
struct User {
    id: String,
    number: i64,
    is_admin: bool,
    is_active: bool,
    is_deleted: bool,
    roles: BTreeMap<usize, MembershipRole>,
    organization_roles: BTreeMap<usize, MembershipRole>,
}

/// Of a workspace or an organization.
struct Container {
    id: String,
    is_active: bool,
}

/// Of a token.
struct Token {
    /// As it was made.
    shown: PersonalAccessToken,
    owner: usize,
    workspace: Option<usize>,
    made_with: Option<usize>,
    /// By itself or with others, for good.
    is_revoked: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    /// Made by a rotation, and never shown since.
    Pending,
    Current,
    Superseded,
    /// Replaced before it was ever shown.
    Lost,
}

/// Of a text that was handed out.
struct Secret {
    text: String,
    token: usize,
    state: State,
    /// The end of its overlap with its successor.
    end: Option<i64>,
    /// What was said of it last.
    told: Option<Reason>,
}

/// Who makes a call.
#[derive(Debug, Clone, Copy)]
enum By {
    /// The first administrator, with a token that may do everything.
    Operator,
    Secret(usize),
}

/// What happened in all sequences together: a run in which something never does
/// proves nothing about it.
#[derive(Debug, Default)]
struct Seen {
    operations: usize,
    /// How often each kind of operation had its effect.
    done: BTreeMap<&'static str, usize>,
    /// How often it was refused.
    refused: BTreeMap<&'static str, usize>,
    reasons: BTreeMap<i32, usize>,
}

struct World<'a> {
    server: &'a TestServer,
    seen: &'a RefCell<Seen>,
    users: Vec<User>,
    organizations: Vec<Container>,
    workspaces: Vec<Container>,
    tokens: Vec<Token>,
    secrets: Vec<Secret>,
    authorizations: Vec<authorizations::Authorization>,
}

async fn whatever_is_done_in_whatever_order_the_promises_hold(engine: Engine) {
    let place = server::Place::new(engine).await;
    fs::write(place.path("root-token"), authorizations::ROOT).unwrap();
    let root = format!("--system-root-token-file={}", place.path("root-token").display());
    let server = TestServer::start_on(place, &[&root]).await;
    // The eye of the test stays open, also when all tokens are revoked.
    server.change("UPDATE credentials SET store_epoch = 1000000").await;
    let from_environment =
        |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let cases = match engine {
        Engine::Sqlite => 12,
        Engine::Postgres => 3,
    };
    let cases = from_environment("PROPERTIES_CASES").map_or(cases, |it| it.try_into().unwrap());
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&from_environment("PROPERTIES_SEED").unwrap_or(1).to_le_bytes());
    let config = Config {
        cases,
        failure_persistence: None,
        // In milliseconds.
        max_shrink_time: 10_000,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let seen = RefCell::default();
    let number = RefCell::new(0);
    let outcome = TestRunner::new_with_rng(config, rng).run(&operations(), |operations| {
        *number.borrow_mut() += 1;
        let number = *number.borrow();
        tokio::task::block_in_place(|| {
            Handle::current().block_on(async {
                let mut world = World::new(&server, &seen, number).await?;
                world.play(operations).await
            })
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
    if engine == Engine::Sqlite {
        seen.into_inner().check();
    }
}

impl Seen {
    fn note(&mut self, operation: &'static str, done: bool) {
        let counts = if done { &mut self.done } else { &mut self.refused };
        *counts.entry(operation).or_default() += 1;
    }

    /// Whether enough happened.
    fn check(&self) {
        for operation in [
            "create",
            "rotate",
            "update",
            "revoke",
            "read",
            "authorize",
            "change",
            "delete one",
            "look",
        ] {
            let times = (self.done.get(operation), self.refused.get(operation));
            assert!(matches!(times, (Some(2..), Some(2..))), "{operation}: {self:?}");
        }
        for reason in [
            Reason::Unspecified,
            Reason::NotFound,
            Reason::Expired,
            Reason::Revoked,
            Reason::OwnerInactive,
            Reason::WorkspaceInactive,
            Reason::IpNotAllowed,
            Reason::InsufficientScope,
        ] {
            assert!(self.reasons.contains_key(&reason.into()), "{reason:?}: {self:?}");
        }
    }
}

impl World<'_> {
    /// Users, where they belong, and some tokens, all of them new.
    async fn new<'a>(
        server: &'a TestServer,
        seen: &'a RefCell<Seen>,
        number: usize,
    ) -> Result<World<'a>, TestCaseError> {
        let mut directory = server.directory(&server.admin);
        let users = (0..USERS).map(|at| UserUpsert {
            external_id: format!("user-{number}-{at}"),
            is_admin: Some(at == 0),
            ..Default::default()
        });
        let request = UpsertUsersRequest { users: users.collect() };
        let users = directory.upsert_users(request).await.unwrap().into_inner().users;
        let organization = |at| format!("organization-{number}-{at}");
        let organizations = (0..ORGANIZATIONS).map(|at| OrganizationUpsert {
            external_id: organization(at),
            slug: Some(organization(at)),
            ..Default::default()
        });
        let request = UpsertOrganizationsRequest { organizations: organizations.collect() };
        let made = directory.upsert_organizations(request).await.unwrap();
        let organizations = made.into_inner().organizations;
        let workspaces = WORKSPACES.iter().enumerate().map(|(at, in_organization)| {
            let name = format!("workspace-{number}-{at}");
            WorkspaceUpsert {
                external_id: name.clone(),
                slug: Some(name),
                organization: Some(organizations[*in_organization].id.clone()),
                ..Default::default()
            }
        });
        let request = UpsertWorkspacesRequest { workspaces: workspaces.collect() };
        let made = directory.upsert_workspaces(request).await.unwrap();
        let workspaces = made.into_inner().workspaces;

        let container = |id| Container { id, is_active: true };
        let mut world = World {
            server,
            seen,
            users: (users.into_iter().enumerate())
                .map(|(at, user)| User {
                    id: user.id,
                    number: 0,
                    is_admin: at == 0,
                    is_active: true,
                    is_deleted: false,
                    roles: BTreeMap::new(),
                    organization_roles: BTreeMap::new(),
                })
                .collect(),
            organizations: organizations.into_iter().map(|it| container(it.id)).collect(),
            workspaces: workspaces.into_iter().map(|it| container(it.id)).collect(),
            tokens: Vec::new(),
            secrets: Vec::new(),
            authorizations: Vec::new(),
        };
        let mut memberships = Vec::new();
        for (user, place, role) in [
            (0, Place::Workspace(0), MembershipRole::Member),
            (1, Place::Workspace(0), MembershipRole::Owner),
            (1, Place::Workspace(1), MembershipRole::Member),
            (2, Place::Workspace(0), MembershipRole::Member),
            (2, Place::Workspace(2), MembershipRole::Admin),
            (3, Place::Workspace(1), MembershipRole::Guest),
            (3, Place::Organization(0), MembershipRole::Admin),
        ] {
            let container = match place {
                Place::Workspace(at) => {
                    world.users[user].roles.insert(at, role);
                    membership_upsert::Container::Workspace(world.workspaces[at].id.clone())
                }
                Place::Organization(at) => {
                    world.users[user].organization_roles.insert(at, role);
                    membership_upsert::Container::Organization(world.organizations[at].id.clone())
                }
                Place::User(_) => unreachable!("nobody belongs to a user"),
            };
            let user = world.users[user].id.clone();
            let container = Some(container);
            memberships.push(MembershipUpsert { user, container, role: role.into() });
        }
        directory.upsert_memberships(UpsertMembershipsRequest { memberships }).await.unwrap();
        let all = vec!["write:tokens", "read:tokens", "read:*", "write:*"];
        for (owner, workspace, ttl, networks, scopes) in [
            (0, None, None, 0, vec!["admin:all"]),
            (0, None, None, 0, vec!["issue:tokens", "read:tokens"]),
            (1, None, None, 0, all.clone()),
            (1, None, Some(7200), 1, all.clone()),
            (1, Some(0), None, 0, vec!["write:tokens", "issue:tokens", "verify:tokens"]),
            (2, Some(0), None, 1, all.clone()),
            (2, Some(2), None, 0, vec!["write:tokens", "issue:tokens", "read:notes"]),
            (3, None, Some(86_400), 2, all),
        ] {
            let (in_workspace, is_narrow) = (false, false);
            let workspace = workspace.map(|at: usize| at * 4);
            let wanted = Wanted { scopes, workspace, in_workspace, ttl, networks, is_narrow };
            world.create(By::Operator, Some(owner), &wanted).await?;
        }
        world.first_authorizations().await?;
        Ok(world)
    }

    async fn play(&mut self, operations: Vec<Operation>) -> TestCaseResult {
        for (at, operation) in operations.into_iter().enumerate() {
            self.do_one(&operation).await?;
            self.check(at % 8 == 0).await?;
            self.seen.borrow_mut().operations += 1;
        }
        self.check(true).await?;
        self.check_lists().await?;
        for secret in 0..self.secrets.len() {
            if self.secrets[secret].state == State::Pending {
                self.use_secret(secret).await?;
            }
        }
        self.check(true).await
    }

    async fn do_one(&mut self, operation: &Operation) -> TestCaseResult {
        match operation {
            Operation::Create { by, owner, wanted } => {
                let by = self.caller(*by).await?;
                self.create(by, *owner, wanted).await
            }
            Operation::Rotate { by, token, overlap } => {
                let by = self.caller(*by).await?;
                self.rotate(by, self.token(by, *token), *overlap).await
            }
            Operation::Use { secret } => {
                let pending: Vec<_> = (0..self.secrets.len())
                    .filter(|at| self.secrets[*at].state == State::Pending)
                    .collect();
                let chosen = if pending.is_empty() || secret % 4 == 0 {
                    secret % self.secrets.len()
                } else {
                    pending[secret % pending.len()]
                };
                self.use_secret(chosen).await
            }
            Operation::Update { by, token, in_workspace } => {
                let by = self.caller(*by).await?;
                self.update(by, self.token(by, *token), *in_workspace).await
            }
            Operation::Revoke { by, token, in_workspace, descendants } => {
                let by = self.caller(*by).await?;
                self.revoke(by, self.token(by, *token), *in_workspace, *descendants).await
            }
            Operation::Read { by, token } => {
                let by = self.caller(*by).await?;
                self.read(by, self.token(by, *token)).await
            }
            Operation::Advance { seconds } => {
                self.server.clock.advance(Duration::from_secs(*seconds));
                Ok(())
            }
            Operation::SetActive { place, is_active } => self.set_active(*place, *is_active).await,
            Operation::RevokeTokens { place } => self.revoke_tokens(*place).await,
            Operation::SetRole { user, place, role } => self.set_role(*user, *place, *role).await,
            Operation::LeaveAndComeBack { token, stays_as_guest } => {
                let is_bound = |token: &&Token| !token.is_revoked && token.workspace.is_some();
                let bound: Vec<_> = self.tokens.iter().filter(is_bound).collect();
                if bound.is_empty() {
                    return Ok(());
                }
                let &Token { owner, workspace, .. } = bound[token % bound.len()];
                let (owner, place) = (owner, Place::Workspace(workspace.unwrap()));
                let meanwhile = stays_as_guest.then_some(MembershipRole::Guest);
                self.set_role(owner, place, meanwhile).await?;
                self.check(false).await?;
                self.set_role(owner, place, Some(MembershipRole::Member)).await
            }
            Operation::DeleteUser { user } => self.delete_user(*user).await,
            Operation::Authorization(operation) => self.do_one_authorization(operation).await,
        }
    }

    // --- what there is to choose from

    /// Who calls, mostly somebody who may. A text that was never shown is used thereby.
    async fn caller(&mut self, choice: usize) -> Result<By, TestCaseError> {
        let living = |at: &usize| self.reason(*at) == Reason::Unspecified;
        let writes = |at: &usize| covers(&self.held(*at).shown.scopes, "write:tokens");
        let all = 0..self.secrets.len();
        let among: Vec<_> = match choice % 8 {
            0 => Vec::new(),
            1 => all.collect(),
            2 | 3 => all.filter(living).collect(),
            _ => all.filter(living).filter(writes).collect(),
        };
        if among.is_empty() {
            return Ok(By::Operator);
        }
        let secret = among[choice / 8 % among.len()];
        if self.secrets[secret].state == State::Pending {
            self.use_secret(secret).await?;
        }
        Ok(By::Secret(secret))
    }

    /// The token that a call is about, often the caller's own.
    fn token(&self, by: By, choice: usize) -> usize {
        let is_good = |at: &usize| {
            let token = &self.tokens[*at];
            !token.is_revoked && end_of(&token.shown).is_none_or(|end| end > self.now())
        };
        let good: Vec<_> = (0..self.tokens.len()).filter(is_good).collect();
        match (by, choice % 4) {
            (By::Secret(secret), 0 | 1) => self.secrets[secret].token,
            (_, 0..=2) if !good.is_empty() => good[choice / 4 % good.len()],
            _ => choice / 4 % self.tokens.len(),
        }
    }

    /// A workspace, mostly one to which a user belongs.
    fn workspace(&self, user: usize, choice: usize) -> usize {
        let his: Vec<_> = (0..WORKSPACES.len()).filter(|at| self.belongs(user, *at)).collect();
        match choice % 4 {
            1.. if !his.is_empty() => his[choice / 4 % his.len()],
            _ => choice / 4 % WORKSPACES.len(),
        }
    }

    fn text(&self, by: By) -> &str {
        match by {
            By::Operator => &self.server.admin,
            By::Secret(secret) => &self.secrets[secret].text,
        }
    }

    fn held(&self, secret: usize) -> &Token {
        &self.tokens[self.secrets[secret].token]
    }

    fn now(&self) -> i64 {
        self.server.clock.now().as_micros()
    }

    // --- what the model expects

    /// What is to be said of a text that is shown from here.
    fn reason(&self, secret: usize) -> Reason {
        let Secret { state, end, .. } = &self.secrets[secret];
        let token = self.held(secret);
        let is_over = |end: Option<i64>| end.is_some_and(|end| end <= self.now());
        let replaced = *state == State::Superseded || is_over(*end);
        let serves = token.workspace.is_none_or(|at| {
            self.workspaces[at].is_active && self.organizations[WORKSPACES[at]].is_active
        });
        match () {
            () if *state == State::Lost => Reason::NotFound,
            () if token.is_revoked => Reason::Revoked,
            () if is_over(end_of(&token.shown)) || replaced => Reason::Expired,
            () if !self.users[token.owner].is_active => Reason::OwnerInactive,
            () if !serves => Reason::WorkspaceInactive,
            () if !may_come_from(&token.shown.allowed_ips, HERE) => Reason::IpNotAllowed,
            () => Reason::Unspecified,
        }
    }

    /// The first instant at which a text is no longer good.
    fn end(&self, secret: usize) -> Option<i64> {
        [end_of(&self.held(secret).shown), self.secrets[secret].end].into_iter().flatten().min()
    }

    fn manages(&self, user: usize, workspace: usize) -> bool {
        let user = &self.users[user];
        let role = user.roles.get(&workspace);
        let organization_role = user.organization_roles.get(&WORKSPACES[workspace]);
        [role, organization_role]
            .into_iter()
            .flatten()
            .any(|role| matches!(role, MembershipRole::Owner | MembershipRole::Admin))
    }

    fn belongs(&self, user: usize, workspace: usize) -> bool {
        let role = self.users[user].roles.get(&workspace);
        role.is_some_and(|role| *role != MembershipRole::Guest)
    }

    /// Whether who shows this text may do to a user's tokens, bound to `workspace` or
    /// not, what `scope` is for; in a workspace also its managers.
    fn may(
        &self,
        secret: usize,
        scope: &str,
        owner: usize,
        workspace: Option<usize>,
        in_workspace: bool,
    ) -> bool {
        let own = self.held(secret);
        let holds = |scope: &str| covers(&own.shown.scopes, scope);
        let within = own.workspace.is_none() || own.workspace == workspace;
        let managed = in_workspace && workspace.is_some_and(|at| self.manages(own.owner, at));
        let bound_elsewhere = own.workspace.is_some() && !in_workspace;
        let is_others = (self.users[own.owner].is_admin && !bound_elsewhere) || managed;
        let issues = holds("issue:tokens") && !self.users[owner].is_admin;
        within && ((owner == own.owner && holds(scope)) || (is_others && (holds(scope) || issues)))
    }

    /// Whether a text's holder gets secrets of a user's tokens by issuing them.
    fn issues(&self, secret: usize, owner: usize, scopes: &[String]) -> bool {
        let own = self.held(secret);
        covers(&own.shown.scopes, "issue:tokens")
            && owner != own.owner
            && !self.users[owner].is_admin
            && scopes.iter().all(|scope| !CONTROL.contains(&scope.as_str()))
    }

    /// Whether what a text's holder got a secret of can do no more than the text.
    fn check_covered(&self, secret: usize, made: &PersonalAccessToken) -> TestCaseResult {
        let own = &self.held(secret).shown;
        for scope in &made.scopes {
            prop_assert!(covers(&own.scopes, scope), "{scope} is beyond {:?}", own.scopes);
        }
        let within = |network: &String| {
            let network = IpNet::from_str(network).unwrap();
            own.allowed_ips.iter().any(|own| IpNet::from_str(own).unwrap().contains(&network))
        };
        let near = own.allowed_ips.is_empty()
            || (!made.allowed_ips.is_empty() && made.allowed_ips.iter().all(within));
        prop_assert!(near, "{:?} is beyond {:?}", made.allowed_ips, own.allowed_ips);
        if let Some(end) = self.end(secret) {
            prop_assert!(end_of(made).is_some_and(|made| made <= end), "it outlives its maker");
        }
        Ok(())
    }

    // --- what is done

    /// What a call gave, if it was let through. Who shows what is not good is not,
    /// and nothing but a rule stands against the others.
    fn outcome<T>(
        &self,
        what: &'static str,
        by: By,
        answer: Result<Response<T>, Status>,
    ) -> Result<Option<T>, TestCaseError> {
        let reason = match by {
            By::Operator => Reason::Unspecified,
            By::Secret(secret) => self.reason(secret),
        };
        self.seen.borrow_mut().note(what, answer.is_ok());
        match answer {
            Ok(answer) => {
                prop_assert_eq!(reason, Reason::Unspecified, "{} was let through", what);
                Ok(Some(answer.into_inner()))
            }
            Err(status) if reason == Reason::Unspecified => {
                let by_rule = matches!(
                    status.code(),
                    Code::PermissionDenied | Code::NotFound | Code::FailedPrecondition
                );
                prop_assert!(by_rule, "{what}: {status}");
                Ok(None)
            }
            Err(status) => {
                prop_assert_eq!(status.code(), Code::Unauthenticated, "{}", what);
                Ok(None)
            }
        }
    }

    async fn create(&mut self, by: By, owner: Option<usize>, wanted: &Wanted) -> TestCaseResult {
        let (callers, owner) = match by {
            By::Operator => (None, Some(owner.unwrap_or(1))),
            By::Secret(secret) => (Some(self.held(secret)), owner),
        };
        let is_narrow = wanted.is_narrow && callers.is_some();
        let scopes: Vec<String> = match callers {
            Some(own) if is_narrow => {
                let asked = |scope: &&String| wanted.scopes.contains(&scope.as_str());
                own.shown.scopes.iter().filter(asked).cloned().collect()
            }
            Some(_) | None => wanted.scopes.iter().map(ToString::to_string).collect(),
        };
        let acts_for = owner.or(callers.map(|own| own.owner)).unwrap();
        let workspace = wanted.workspace.map(|choice| self.workspace(acts_for, choice));
        let ttl = wanted.ttl.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let networks = NETWORKS[wanted.networks];
        let inherits = is_narrow && workspace.is_none() && ttl.is_none() && networks.is_empty();
        let same = CreatePersonalAccessTokenRequest {
            name: "made".to_owned(),
            scopes: scopes.clone(),
            workspace_id: workspace.map(|at| self.workspaces[at].id.clone()),
            expiry: ttl.map(Expiry::Ttl),
            allowed_ips: networks.iter().map(ToString::to_string).collect(),
            user_id: owner.map(|at| self.users[at].id.clone()),
            ..Default::default()
        };
        let mut client = self.server.tokens(self.text(by));
        let in_workspace = workspace.filter(|_| wanted.in_workspace);
        let answer = match in_workspace {
            Some(at) => {
                let request = WorkspaceCreatePatRequest {
                    org: self.organizations[WORKSPACES[at]].id.clone(),
                    workspace: self.workspaces[at].id.clone(),
                    name: same.name,
                    scopes: same.scopes,
                    expiry: ttl.map(workspace_create_pat_request::Expiry::Ttl),
                    allowed_ips: same.allowed_ips,
                    user_id: same.user_id,
                    ..Default::default()
                };
                let answer = client.workspace_create_pat(request).await;
                answer
                    .map(|answer| answer.map(|answer| (answer.token, answer.personal_access_token)))
            }
            None => {
                let answer = client.create_personal_access_token(same).await;
                answer
                    .map(|answer| answer.map(|answer| (answer.token, answer.personal_access_token)))
            }
        };
        let refusal = answer.as_ref().err().map(ToString::to_string);
        let Some((text, shown)) = self.outcome("create", by, answer)? else {
            if let (By::Secret(secret), true, None) = (by, inherits, owner)
                && self.reason(secret) == Reason::Unspecified
            {
                let own = &self.held(secret).shown.scopes;
                let is_granted = |scope: &String| {
                    ["verify:tokens", "issue:tokens", "admin:all"].contains(&scope.as_str())
                };
                let may = covers(own, "write:tokens") && !scopes.iter().any(is_granted);
                prop_assert!(!may, "no more than it has was refused: {refusal:?}");
            }
            return Ok(());
        };
        let shown = shown.unwrap();
        let owner = match by {
            By::Operator => owner.unwrap(),
            By::Secret(secret) => owner.unwrap_or(self.held(secret).owner),
        };
        prop_assert_eq!(&shown.user_id, &self.users[owner].id);
        prop_assert_eq!(&shown.scopes, &scopes);
        prop_assert!(self.users[owner].is_active, "its user is not active");
        let workspace =
            self.workspaces.iter().position(|it| Some(&it.id) == shown.workspace_id.as_ref());
        prop_assert_eq!(workspace.is_some(), shown.workspace_id.is_some());
        if let Some(at) = workspace {
            prop_assert!(self.belongs(owner, at), "its user is no member");
            let is_active =
                self.workspaces[at].is_active && self.organizations[WORKSPACES[at]].is_active;
            prop_assert!(is_active, "its workspace is not active");
        }
        if let By::Secret(secret) = by {
            let own = self.held(secret);
            let bound =
                own.shown.workspace_id.is_none() || own.shown.workspace_id == shown.workspace_id;
            prop_assert!(bound, "it is beyond its maker's workspace");
            let is_foreign = owner != own.owner;
            let may = self.may(secret, "write:tokens", owner, workspace, in_workspace.is_some());
            prop_assert!(may, "its maker may make none");
            if !self.issues(secret, owner, &shown.scopes) {
                let only_issues = is_foreign && !covers(&own.shown.scopes, "write:tokens");
                prop_assert!(!only_issues, "it was not for issuing");
                self.check_covered(secret, &shown)?;
            }
            for scope in ["verify:tokens", "issue:tokens"] {
                let is_manager = workspace.is_some_and(|at| self.manages(own.owner, at));
                let may = self.users[own.owner].is_admin || is_manager;
                prop_assert!(may || !shown.scopes.iter().any(|it| it == scope), "{scope} granted");
            }
        }
        let made_with = match by {
            By::Operator => None,
            By::Secret(secret) => Some(self.secrets[secret].token),
        };
        let token = self.tokens.len();
        self.tokens.push(Token { shown, owner, workspace, made_with, is_revoked: false });
        self.secrets.push(Secret { text, token, state: State::Current, end: None, told: None });
        Ok(())
    }

    async fn rotate(&mut self, by: By, token: usize, overlap: Option<i64>) -> TestCaseResult {
        let request = RotatePersonalAccessTokenRequest {
            id: self.tokens[token].shown.id.clone(),
            overlap: overlap.map(|seconds| prost_types::Duration { seconds, nanos: 0 }),
            ..Default::default()
        };
        let mut client = self.server.tokens(self.text(by));
        let answer = client.rotate_personal_access_token(request).await;
        let Some(rotated) = self.outcome("rotate", by, answer)? else { return Ok(()) };
        let Token { shown, owner, workspace, is_revoked, .. } = &self.tokens[token];
        let shows = rotated.personal_access_token.unwrap();
        prop_assert_eq!(what_it_may(&shows), what_it_may(shown), "rotation changed it");
        prop_assert!(!is_revoked, "it was revoked");
        prop_assert!(end_of(shown).is_none_or(|end| end > self.now()), "it was expired");
        prop_assert!(self.users[*owner].is_active, "its user is not active");
        if let Some(at) = *workspace {
            let serves =
                self.workspaces[at].is_active && self.organizations[WORKSPACES[at]].is_active;
            prop_assert!(serves, "its workspace is not active");
        }
        if let By::Secret(secret) = by {
            prop_assert!(
                self.may(secret, "write:tokens", *owner, *workspace, false),
                "who may not"
            );
            let is_itself = self.secrets[secret].token == token;
            if !is_itself && !self.issues(secret, *owner, &shown.scopes) {
                self.check_covered(secret, shown)?;
            }
        }
        let end = self.now() + overlap.unwrap_or(24 * 3600) * 1_000_000;
        for secret in self.secrets.iter_mut().filter(|secret| secret.token == token) {
            match secret.state {
                State::Pending => secret.state = State::Lost,
                State::Current => secret.end = Some(secret.end.map_or(end, |it| it.min(end))),
                State::Superseded | State::Lost => {}
            }
        }
        let text = rotated.token;
        self.secrets.push(Secret { text, token, state: State::Pending, end: None, told: None });
        Ok(())
    }

    /// Shows a text. The first use of a new secret ends the one before it.
    async fn use_secret(&mut self, secret: usize) -> TestCaseResult {
        let answer = self.ask(secret).await;
        self.check_answer(secret, &answer)?;
        if self.secrets[secret].state != State::Pending {
            return Ok(());
        }
        let token = self.secrets[secret].token;
        let before = self
            .secrets
            .iter()
            .position(|it| it.token == token && it.state == State::Current)
            .unwrap();
        self.secrets[before].state = State::Superseded;
        self.secrets[secret].state = State::Current;
        until("promotion", Duration::from_secs(10), async || {
            self.ask(secret).await;
            self.ask(before).await.reason() == self.reason(before)
        })
        .await;
        self.seen.borrow_mut().note("promote", true);
        Ok(())
    }

    async fn update(&mut self, by: By, token: usize, in_workspace: bool) -> TestCaseResult {
        let Token { shown, owner, workspace, is_revoked, .. } = &self.tokens[token];
        let mut client = self.server.tokens(self.text(by));
        let (id, name) = (shown.id.clone(), Some("renamed".to_owned()));
        let in_workspace = workspace.filter(|_| in_workspace);
        let answer = match in_workspace {
            Some(at) => {
                let request = WorkspaceUpdatePatRequest {
                    org: self.organizations[WORKSPACES[at]].id.clone(),
                    workspace: self.workspaces[at].id.clone(),
                    id,
                    name,
                    ..Default::default()
                };
                let answer = client.workspace_update_pat(request).await;
                answer.map(|answer| answer.map(|answer| answer.personal_access_token))
            }
            None => {
                let request = UpdatePersonalAccessTokenRequest { id, name, ..Default::default() };
                let answer = client.update_personal_access_token(request).await;
                answer.map(|answer| answer.map(|answer| answer.personal_access_token))
            }
        };
        let Some(Some(updated)) = self.outcome("update", by, answer)? else { return Ok(()) };
        prop_assert!(!is_revoked, "it was revoked");
        if let By::Secret(secret) = by {
            let may = self.may(secret, "write:tokens", *owner, *workspace, in_workspace.is_some());
            prop_assert!(may, "who may not");
        }
        prop_assert_eq!(what_it_may(&updated), what_it_may(shown), "an update changed it");
        self.check_without_secrets(&updated)
    }

    async fn revoke(
        &mut self,
        by: By,
        token: usize,
        in_workspace: bool,
        include_descendants: bool,
    ) -> TestCaseResult {
        let Token { shown, owner, workspace, .. } = &self.tokens[token];
        let mut client = self.server.tokens(self.text(by));
        let id = shown.id.clone();
        let in_workspace = workspace.filter(|_| in_workspace);
        let answer = match in_workspace {
            Some(at) => {
                let request = WorkspaceRevokePatRequest {
                    org: self.organizations[WORKSPACES[at]].id.clone(),
                    workspace: self.workspaces[at].id.clone(),
                    id,
                    include_descendants,
                };
                let answer = client.workspace_revoke_pat(request).await;
                answer.map(|answer| answer.map(|answer| answer.personal_access_token))
            }
            None => {
                let request = RevokePersonalAccessTokenRequest { id, include_descendants };
                let answer = client.revoke_personal_access_token(request).await;
                answer.map(|answer| answer.map(|answer| answer.personal_access_token))
            }
        };
        let Some(Some(revoked)) = self.outcome("revoke", by, answer)? else { return Ok(()) };
        if let By::Secret(secret) = by {
            let may = self.may(secret, "write:tokens", *owner, *workspace, in_workspace.is_some());
            let ends_itself = self.secrets[secret].token == token && !include_descendants;
            prop_assert!(may || ends_itself, "who may not");
        }
        prop_assert_eq!(what_it_may(&revoked), what_it_may(shown), "a revocation changed it");
        prop_assert_eq!(revoked.state(), TokenState::Revoked);
        self.check_without_secrets(&revoked)?;
        self.tokens[token].is_revoked = true;
        if include_descendants {
            // What made another was there before it.
            let mut is_descendant = vec![false; self.tokens.len()];
            is_descendant[token] = true;
            for at in token + 1..self.tokens.len() {
                if self.tokens[at].made_with.is_some_and(|maker| is_descendant[maker]) {
                    is_descendant[at] = true;
                    self.tokens[at].is_revoked = true;
                }
            }
        }
        Ok(())
    }

    /// Reads one token and the caller's list.
    async fn read(&mut self, by: By, token: usize) -> TestCaseResult {
        let mut client = self.server.tokens(self.text(by));
        let request = GetPersonalAccessTokenRequest { id: self.tokens[token].shown.id.clone() };
        let answer = client.get_personal_access_token(request).await;
        if let Some(got) = self.outcome("read", by, answer)? {
            let got = got.personal_access_token.unwrap();
            let Token { owner, workspace, .. } = &self.tokens[token];
            if let By::Secret(secret) = by {
                prop_assert!(self.may(secret, "read:tokens", *owner, *workspace, false));
            }
            self.check_shown(token, &got)?;
        }
        let By::Secret(secret) = by else { return Ok(()) };
        let request = ListPersonalAccessTokensRequest { page_size: 1_000, ..Default::default() };
        let answer = client.list_personal_access_tokens(request).await;
        let Some(list) = self.outcome("read", by, answer)? else { return Ok(()) };
        let own = self.held(secret);
        prop_assert!(covers(&own.shown.scopes, "read:tokens"), "a list for who may not read");
        self.check_without_secrets(&list)?;
        let is_listed = |token: &Token| {
            let within = own.workspace.is_none() || own.workspace == token.workspace;
            token.owner == own.owner && within && !token.is_revoked
        };
        self.check_list(list.personal_access_tokens, is_listed)
    }

    async fn set_active(&mut self, place: Place, is_active: bool) -> TestCaseResult {
        let mut directory = self.server.directory(&self.server.admin);
        match place {
            Place::User(at) => {
                let user = &mut self.users[at];
                let request = UpdateUserRequest {
                    user: user.id.clone(),
                    is_active: Some(is_active),
                    ..Default::default()
                };
                let answer = directory.update_user(request).await;
                prop_assert_eq!(answer.is_err(), user.is_deleted, "{:?}", answer);
                user.is_active = is_active && !user.is_deleted;
            }
            Place::Workspace(at) => {
                let request = UpdateWorkspaceRequest {
                    workspace: self.workspaces[at].id.clone(),
                    is_active: Some(is_active),
                    ..Default::default()
                };
                directory.update_workspace(request).await.unwrap();
                self.workspaces[at].is_active = is_active;
            }
            Place::Organization(at) => {
                let request = UpdateOrganizationRequest {
                    organization: self.organizations[at].id.clone(),
                    is_active: Some(is_active),
                    ..Default::default()
                };
                directory.update_organization(request).await.unwrap();
                self.organizations[at].is_active = is_active;
            }
        }
        Ok(())
    }

    async fn revoke_tokens(&mut self, place: Option<Place>) -> TestCaseResult {
        let target = match place {
            Some(Place::User(at)) => Target::User(self.users[at].id.clone()),
            Some(Place::Workspace(at)) => Target::Workspace(self.workspaces[at].id.clone()),
            Some(Place::Organization(at)) => {
                Target::Organization(self.organizations[at].id.clone())
            }
            None => Target::All(true),
        };
        let request = RevokeTokensRequest { target: Some(target), ..Default::default() };
        let answer = self.server.directory(&self.server.admin).revoke_tokens(request).await;
        let is_gone = matches!(place, Some(Place::User(at)) if self.users[at].is_deleted);
        prop_assert_eq!(answer.is_err(), is_gone, "{:?}", answer);
        self.end_all(|token| match place {
            Some(Place::User(at)) => token.owner == at,
            Some(Place::Workspace(at)) => token.workspace == Some(at),
            Some(Place::Organization(at)) => token.workspace.is_some_and(|it| WORKSPACES[it] == at),
            None => true,
        });
        self.end_authorizations(|owner| match place {
            Some(Place::User(at)) => owner == at,
            Some(Place::Workspace(_) | Place::Organization(_)) => false,
            None => true,
        });
        Ok(())
    }

    /// Ends tokens for good.
    fn end_all(&mut self, is_meant: impl Fn(&Token) -> bool) {
        for token in self.tokens.iter_mut().filter(|token| is_meant(token)) {
            token.is_revoked = true;
        }
    }

    async fn set_role(
        &mut self,
        user: usize,
        place: Place,
        role: Option<MembershipRole>,
    ) -> TestCaseResult {
        let mut directory = self.server.directory(&self.server.admin);
        let id = self.users[user].id.clone();
        let (workspace, organization) = match place {
            Place::Workspace(at) => (Some(at), None),
            Place::Organization(at) => (None, Some(at)),
            Place::User(_) => unreachable!("nobody belongs to a user"),
        };
        let ids = (
            workspace.map(|at| self.workspaces[at].id.clone()),
            organization.map(|at| self.organizations[at].id.clone()),
        );
        let answer = match role {
            Some(role) => {
                use membership_upsert::Container;
                let container = ids.0.map(Container::Workspace);
                let container = container.or(ids.1.map(Container::Organization));
                let membership = MembershipUpsert { user: id, container, role: role.into() };
                let request = UpsertMembershipsRequest { memberships: vec![membership] };
                directory.upsert_memberships(request).await.map(|_| ())
            }
            None => {
                use delete_membership_request::Container;
                let container = ids.0.map(Container::Workspace);
                let container = container.or(ids.1.map(Container::Organization));
                let request = DeleteMembershipRequest { user: id, container };
                directory.delete_membership(request).await.map(|_| ())
            }
        };
        prop_assert_eq!(answer.is_err(), self.users[user].is_deleted, "{:?}", answer);
        if answer.is_err() {
            return Ok(());
        }
        let roles = match place {
            Place::Workspace(_) | Place::User(_) => &mut self.users[user].roles,
            Place::Organization(_) => &mut self.users[user].organization_roles,
        };
        let at = workspace.or(organization).unwrap();
        match role {
            Some(role) => roles.insert(at, role),
            None => roles.remove(&at),
        };
        if let Some(at) = workspace.filter(|at| !self.belongs(user, *at)) {
            self.end_all(|token| token.owner == user && token.workspace == Some(at));
        }
        Ok(())
    }

    async fn delete_user(&mut self, user: usize) -> TestCaseResult {
        let request = DeleteUserRequest { user: self.users[user].id.clone() };
        self.server.directory(&self.server.admin).delete_user(request).await.unwrap();
        self.end_all(|token| token.owner == user);
        self.end_authorizations(|owner| owner == user);
        let user = &mut self.users[user];
        user.is_deleted = true;
        user.is_active = false;
        user.roles.clear();
        user.organization_roles.clear();
        self.seen.borrow_mut().note("delete", true);
        Ok(())
    }

    // --- what is checked

    async fn ask(&self, secret: usize) -> VerifyResponse {
        let request = question(&self.secrets[secret].text);
        let mut client = self.server.verification(&self.server.admin);
        client.verify(request).await.unwrap().into_inner()
    }

    /// Asks about what has changed, or about every text that was ever shown.
    async fn check(&mut self, everything: bool) -> TestCaseResult {
        let mut asked = JoinSet::new();
        for (at, secret) in self.secrets.iter().enumerate() {
            let has_changed = secret.told != Some(self.reason(at));
            if secret.state != State::Pending && (everything || has_changed) {
                let mut client = self.server.verification(&self.server.admin);
                let request = question(&secret.text);
                asked.spawn(async move { (at, client.verify(request).await.unwrap()) });
            }
        }
        for (at, answer) in asked.join_all().await {
            self.check_answer(at, &answer.into_inner())?;
        }
        self.check_authorizations(everything).await
    }

    fn check_answer(&mut self, secret: usize, answer: &VerifyResponse) -> TestCaseResult {
        let Token { shown, owner, .. } = self.held(secret);
        let who = format!("text {secret} of token {} of user {owner}", self.secrets[secret].token);
        // Whatever the model says: what was dead for good once is so for ever.
        if let Some(told @ (Reason::NotFound | Reason::Expired | Reason::Revoked)) =
            self.secrets[secret].told
        {
            prop_assert!(!answer.active, "{} was {:?} and is active again", who, told);
        }
        prop_assert_eq!(answer.reason(), self.reason(secret), "{}", who);
        prop_assert_eq!(answer.active, answer.reason() == Reason::Unspecified, "{}", who);
        if answer.active {
            let expires_at = answer.expires_at.map(micros);
            prop_assert_eq!(expires_at, self.end(secret), "{}", who);
            prop_assert_eq!(&answer.token_id, &shown.id);
            prop_assert_eq!(&answer.user_id, &shown.user_id);
            prop_assert_eq!(&answer.workspace_id, &shown.workspace_id);
            prop_assert_eq!(&answer.organization_id, &shown.organization_id);
            prop_assert_eq!(&answer.scopes, &shown.scopes);
        }
        *self.seen.borrow_mut().reasons.entry(answer.reason).or_default() += 1;
        self.secrets[secret].told = Some(answer.reason());
        Ok(())
    }

    /// Whether the lists of all users are of their tokens, each as it is.
    async fn check_lists(&self) -> TestCaseResult {
        let mut client = self.server.tokens(&self.server.admin);
        for (at, user) in self.users.iter().enumerate().filter(|(_, user)| !user.is_deleted) {
            let request = ListPersonalAccessTokensRequest {
                page_size: 1_000,
                show_revoked: true,
                user_id: Some(user.id.clone()),
                ..Default::default()
            };
            let list = client.list_personal_access_tokens(request).await.unwrap().into_inner();
            self.check_without_secrets(&list)?;
            self.check_list(list.personal_access_tokens, |token| token.owner == at)?;
        }
        Ok(())
    }

    /// Whether a list has these tokens, each as it is, newest first.
    fn check_list(
        &self,
        list: Vec<PersonalAccessToken>,
        is_meant: impl Fn(&Token) -> bool,
    ) -> TestCaseResult {
        let mut meant: Vec<_> =
            (0..self.tokens.len()).filter(|at| is_meant(&self.tokens[*at])).collect();
        let age = |at: &usize| {
            let shown = &self.tokens[*at].shown;
            std::cmp::Reverse((shown.created_at.map(micros), shown.id.clone()))
        };
        meant.sort_by_key(age);
        let ids = |ids: &mut dyn Iterator<Item = &PersonalAccessToken>| -> Vec<String> {
            ids.map(|token| token.id.clone()).collect()
        };
        let expected = ids(&mut meant.iter().map(|at| &self.tokens[*at].shown));
        prop_assert_eq!(ids(&mut list.iter()), expected);
        for (at, listed) in meant.into_iter().zip(&list) {
            self.check_shown(at, listed)?;
        }
        Ok(())
    }

    /// Whether a token is shown as it is.
    fn check_shown(&self, token: usize, shows: &PersonalAccessToken) -> TestCaseResult {
        let Token { shown, is_revoked, .. } = &self.tokens[token];
        prop_assert_eq!(what_it_may(shows), what_it_may(shown));
        let state = match end_of(shown) {
            _ if *is_revoked => TokenState::Revoked,
            Some(end) if end <= self.now() => TokenState::Expired,
            Some(_) | None => TokenState::Active,
        };
        prop_assert_eq!(shows.state(), state);
        self.check_without_secrets(shows)
    }

    fn check_without_secrets(&self, message: &impl Message) -> TestCaseResult {
        let bytes = message.encode_to_vec();
        let text = String::from_utf8_lossy(&bytes);
        for secret in &self.secrets {
            // What stands before is shown, to recognise it by.
            prop_assert!(!text.contains(&secret.text[12..]), "a secret was shown");
        }
        Ok(())
    }
}

fn question(text: &str) -> VerifyRequest {
    VerifyRequest { token: text.to_owned(), client_ip: Some(HERE.to_owned()), ..Default::default() }
}

/// What a token may do, whose it is and where it comes from: what never changes.
fn what_it_may(token: &PersonalAccessToken) -> PersonalAccessToken {
    PersonalAccessToken {
        id: token.id.clone(),
        scopes: token.scopes.clone(),
        user_id: token.user_id.clone(),
        organization_id: token.organization_id.clone(),
        workspace_id: token.workspace_id.clone(),
        created_at: token.created_at,
        expires_at: token.expires_at,
        allowed_ips: token.allowed_ips.clone(),
        created_by_user_id: token.created_by_user_id.clone(),
        created_by_token_id: token.created_by_token_id.clone(),
        ..Default::default()
    }
}

fn covers(held: &[String], wanted: &str) -> bool {
    let is_control = |scope: &str| CONTROL.contains(&scope);
    held.iter().any(|held| {
        let whole = held.strip_suffix('*').filter(|_| !is_control(wanted));
        held == wanted || held == "admin:all" || whole.is_some_and(|verb| wanted.starts_with(verb))
    })
}

fn may_come_from(networks: &[String], address: &str) -> bool {
    let address: std::net::IpAddr = address.parse().unwrap();
    let holds = |network: &String| IpNet::from_str(network).unwrap().contains(&address);
    networks.is_empty() || networks.iter().any(holds)
}

fn end_of(token: &PersonalAccessToken) -> Option<i64> {
    token.expires_at.map(micros)
}

fn micros(instant: prost_types::Timestamp) -> i64 {
    instant.seconds * 1_000_000 + i64::from(instant.nanos) / 1_000
}
