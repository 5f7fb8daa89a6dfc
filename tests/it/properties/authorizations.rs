//! API client authorizations in the sequences: what may be changed of them is part of
//! the model, and so is which requests they allow.

use proptest::{collection, option, prelude::*, sample::select, test_runner::TestCaseResult};
use prost_types::Timestamp;
use token_authority::{
    clock::Clock as _,
    proto::v1::{
        ApiClientAuthorization, CreateApiClientAuthorizationRequest,
        DeleteApiClientAuthorizationRequest, GetApiClientAuthorizationRequest,
        GetCurrentApiClientAuthorizationRequest, ListApiClientAuthorizationsRequest, Reason,
        ScopeList, UpdateApiClientAuthorizationRequest, VerifyRequest,
    },
};
use tonic::{Code, Response, Status};

use super::{USERS, World, micros};
use crate::support::server::v2;

/// The text of the system root token.
pub(super) const ROOT: &str = "RootTokenOfTheTestOfProperties0123456789";

const SERVICE: &str = "POST /token_authority.v1.ApiClientAuthorizations/";

const SCOPES: [&str; 9] =
    ["all", "GET /", "GET /a", "GET /a/", "GET /a/b/", "HEAD /a", "POST /a/", "POST /", SERVICE];

/// The requests that are asked about.
const ROUTES: [(&str, &str); 6] = [
    ("GET", "/a"),
    ("HEAD", "/a/"),
    ("GET", "/a/b/c"),
    ("POST", "/a/b"),
    ("POST", "/token_authority.v1.ApiClientAuthorizations/UpdateApiClientAuthorization"),
    ("DELETE", "/x"),
];

#[derive(Debug, Clone)]
pub(super) enum Operation {
    Create {
        by: usize,
        owner: Option<usize>,
        scopes: Option<Vec<&'static str>>,
        lives: Option<i64>,
    },
    Update {
        by: usize,
        which: usize,
        owner: Option<usize>,
        scopes: Option<Vec<&'static str>>,
        lives: Option<Option<i64>>,
    },
    Delete {
        by: usize,
        which: usize,
    },
    Read {
        by: usize,
        which: usize,
    },
}

/// What the model knows of one.
pub(super) struct Authorization {
    /// As it was shown last.
    pub(super) shown: ApiClientAuthorization,
    text: String,
    pub(super) owner: usize,
    pub(super) is_revoked: bool,
    told: Option<Reason>,
}

/// Who makes a call.
#[derive(Debug, Clone, Copy)]
enum By {
    Operator,
    Root,
    Authorization(usize),
}

/// The path of an RPC, as scopes have it.
fn path(method: &str) -> String {
    format!("/token_authority.v1.ApiClientAuthorizations/{method}")
}

/// The rule of Arvados, told once more.
fn allows(scopes: &[String], method: &str, path: &str) -> bool {
    let methods: &[_] = if method == "HEAD" { &["HEAD", "GET"] } else { &[method] };
    methods.iter().any(|method| {
        let request = format!("{method} {}", path.trim_end_matches('/'));
        let is_admitted = |entry: &String| {
            *entry == request || entry.ends_with('/') && request.starts_with(entry)
        };
        scopes.iter().any(|entry| entry == "all" || is_admitted(entry))
    })
}

pub(super) fn operations() -> impl Strategy<Value = Operation> {
    let number = || 0..1024_usize;
    let owner = |weight| option::weighted(weight, 0..USERS);
    let scopes = || option::weighted(0.7, collection::vec(select(SCOPES.to_vec()), 0..3));
    let lives = || option::weighted(0.6, select(vec![-60_i64, 1, 60, 3600, 86_400]));
    prop_oneof![
        4 => (number(), owner(0.4), scopes(), lives()).prop_map(|(by, owner, scopes, lives)| {
            Operation::Create { by, owner, scopes, lives }
        }),
        6 => ((number(), number()), owner(0.1), scopes(), option::weighted(0.5, lives())).prop_map(
            |((by, which), owner, scopes, lives)| {
                Operation::Update { by, which, owner, scopes, lives }
            }
        ),
        1 => (number(), number()).prop_map(|(by, which)| Operation::Delete { by, which }),
        2 => (number(), number()).prop_map(|(by, which)| Operation::Read { by, which }),
    ]
}

impl World<'_> {
    /// Some for each user, made by the operator.
    pub(super) async fn first_authorizations(&mut self) -> TestCaseResult {
        for owner in 0..USERS {
            for scopes in [&["all"][..], &["GET /a/", SERVICE]] {
                self.authorize(By::Operator, Some(owner), Some(scopes.to_vec()), None).await?;
            }
            self.users[owner].number = self.authorizations.last().unwrap().shown.user_id();
        }
        Ok(())
    }

    pub(super) async fn do_one_authorization(&mut self, operation: &Operation) -> TestCaseResult {
        match operation.clone() {
            Operation::Create { by, owner, scopes, lives } => {
                self.authorize(self.holder(by), owner, scopes, lives).await
            }
            Operation::Update { by, which, owner, scopes, lives } => {
                let by = self.holder(by);
                self.change(by, self.authorization(by, which), owner, scopes, lives).await
            }
            Operation::Delete { by, which } => {
                let by = self.holder(by);
                self.delete(by, self.authorization(by, which)).await
            }
            Operation::Read { by, which } => {
                let by = self.holder(by);
                self.look(by, self.authorization(by, which)).await
            }
        }
    }

    /// Who calls, mostly somebody who may.
    fn holder(&self, choice: usize) -> By {
        let all: Vec<_> = (0..self.authorizations.len()).collect();
        let living: Vec<_> =
            all.iter().copied().filter(|at| self.state(*at) == Reason::Unspecified).collect();
        match choice % 8 {
            0 => By::Operator,
            1 => By::Root,
            2 => By::Authorization(all[choice / 8 % all.len()]),
            _ if living.is_empty() => By::Operator,
            _ => By::Authorization(living[choice / 8 % living.len()]),
        }
    }

    /// What a call is about, mostly what is of the caller's user.
    fn authorization(&self, by: By, choice: usize) -> usize {
        let is_own = |at: &usize| match by {
            By::Operator | By::Root => true,
            By::Authorization(own) => {
                self.authorizations[*at].owner == self.authorizations[own].owner
            }
        };
        let own: Vec<_> = (0..self.authorizations.len()).filter(is_own).collect();
        match choice % 8 {
            0 => choice / 8 % self.authorizations.len(),
            _ => own[choice / 8 % own.len()],
        }
    }

    fn text_of(&self, by: By) -> &str {
        match by {
            By::Operator => &self.server.admin,
            By::Root => ROOT,
            By::Authorization(at) => &self.authorizations[at].text,
        }
    }

    /// What is to be said of one that is shown, whatever for.
    fn state(&self, at: usize) -> Reason {
        let Authorization { shown, owner, is_revoked, .. } = &self.authorizations[at];
        match end(shown) {
            _ if *is_revoked => Reason::Revoked,
            Some(end) if end <= self.server.clock.now().as_micros() => Reason::Expired,
            _ if !self.users[*owner].is_active => Reason::OwnerInactive,
            Some(_) | None => Reason::Unspecified,
        }
    }

    /// What a call gave, if it was let through; nobody is let through who may not.
    fn came_of<T>(
        &self,
        what: &'static str,
        by: By,
        method: &str,
        answer: Result<Response<T>, Status>,
    ) -> Result<Result<T, Status>, TestCaseError> {
        self.seen.borrow_mut().note(what, answer.is_ok());
        let By::Authorization(at) = by else { return Ok(answer.map(Response::into_inner)) };
        let refused = answer.as_ref().err().map(Status::code);
        if self.state(at) != Reason::Unspecified {
            prop_assert_eq!(refused, Some(Code::Unauthenticated), "{}", what);
        } else if !allows(scopes_of(&self.authorizations[at].shown), "POST", &path(method)) {
            prop_assert_eq!(refused, Some(Code::PermissionDenied), "{}", what);
        }
        Ok(answer.map(Response::into_inner))
    }

    async fn authorize(
        &mut self,
        by: By,
        owner: Option<usize>,
        scopes: Option<Vec<&'static str>>,
        lives: Option<i64>,
    ) -> TestCaseResult {
        // Of the users that callers without a row act for there is nothing in the model.
        let owner = match by {
            By::Operator | By::Root => Some(owner.unwrap_or(0)),
            By::Authorization(_) => owner,
        };
        let request = CreateApiClientAuthorizationRequest {
            owner_uuid: owner.map(|at| self.users[at].id.clone()),
            scopes: list(scopes.clone()),
            expires_at: lives.map(|lives| self.in_(lives)),
            ..Default::default()
        };
        let mut client = self.server.authorizations(self.text_of(by));
        let answer = client.create_api_client_authorization(request).await;
        let answer = self.came_of("authorize", by, "CreateApiClientAuthorization", answer)?;
        let callers = match by {
            By::Operator | By::Root => None,
            By::Authorization(at) => Some(&self.authorizations[at]),
        };
        let owner = owner.or(callers.map(|own| own.owner)).unwrap();
        let made = match answer {
            Ok(made) => made.api_client_authorization.unwrap(),
            Err(status) => {
                let is_own = callers.is_none_or(|own| own.owner == owner);
                let asks_nothing = scopes.is_none() && lives.is_none() && is_own;
                let may = callers.is_none_or(|own| {
                    let method = path("CreateApiClientAuthorization");
                    allows(scopes_of(&own.shown), "POST", &method)
                });
                let stands = match by {
                    By::Operator | By::Root => true,
                    By::Authorization(at) => self.state(at) == Reason::Unspecified,
                };
                let refused = asks_nothing && may && stands && self.users[owner].is_active;
                prop_assert!(!refused, "no more than it has was refused: {status}");
                return Ok(());
            }
        };
        prop_assert_eq!(made.owner_uuid(), &self.users[owner].id);
        prop_assert!(self.users[owner].is_active, "its user is not active");
        if let Some(scopes) = scopes {
            prop_assert_eq!(scopes_of(&made), scopes);
        }
        if let Some(own) = callers {
            let may = own.owner == owner || self.users[own.owner].is_admin;
            prop_assert!(may, "it is another's");
            check_within(&own.shown, &made)?;
        }
        let text = if self.authorizations.len().is_multiple_of(2) {
            v2(&made)
        } else {
            made.api_token().to_owned()
        };
        let shown = ApiClientAuthorization { api_token: None, ..made };
        self.authorizations.push(Authorization {
            shown,
            text,
            owner,
            is_revoked: false,
            told: None,
        });
        Ok(())
    }

    async fn change(
        &mut self,
        by: By,
        which: usize,
        owner: Option<usize>,
        scopes: Option<Vec<&'static str>>,
        lives: Option<Option<i64>>,
    ) -> TestCaseResult {
        let before = self.authorizations[which].shown.clone();
        let mut paths = Vec::new();
        let named = [("user_id", owner.is_some()), ("scopes", scopes.is_some())];
        for (path, is_named) in named.into_iter().chain([("expires_at", lives.is_some())]) {
            paths.extend(is_named.then(|| path.to_owned()));
        }
        let request = UpdateApiClientAuthorizationRequest {
            uuid: before.uuid().to_owned(),
            scopes: list(scopes.clone()),
            expires_at: lives.flatten().map(|lives| self.in_(lives)),
            user_id: owner.map(|at| self.users[at].number),
            update_mask: Some(prost_types::FieldMask { paths }),
            ..Default::default()
        };
        let mut wanted = before.clone();
        if let Some(scopes) = list(scopes) {
            wanted.scopes = Some(scopes);
        }
        if lives.is_some() {
            wanted.expires_at = request.expires_at;
        }
        let mut client = self.server.authorizations(self.text_of(by));
        let answer = client.update_api_client_authorization(request).await;
        let answer = self.came_of("change", by, "UpdateApiClientAuthorization", answer)?;
        let old = &self.authorizations[which];
        let new_owner = owner.unwrap_or(old.owner);
        let is_narrower = new_owner == old.owner && is_within(&before, &wanted);
        let is_reached = self.reaches(by, which);
        let updated = match answer {
            Ok(updated) => updated.api_client_authorization.unwrap(),
            Err(status) => {
                let names_exceeded = status.code() == Code::PermissionDenied;
                let may = match by {
                    By::Operator | By::Root => true,
                    By::Authorization(at) => {
                        let method = path("UpdateApiClientAuthorization");
                        self.state(at) == Reason::Unspecified
                            && allows(scopes_of(&self.authorizations[at].shown), "POST", &method)
                    }
                };
                let refused = may && is_reached && is_same(&before, &wanted) && owner.is_none();
                prop_assert!(!refused, "what changes nothing was refused: {status}");
                prop_assert!(!(is_reached && may) || names_exceeded || owner.is_some(), "{status}");
                return Ok(());
            }
        };
        prop_assert!(is_reached, "{by:?} changed what is not for it");
        if let (By::Authorization(at), false) = (by, is_narrower) {
            check_within(&self.authorizations[at].shown, &wanted)?;
        }
        if let By::Authorization(at) = by {
            let may = new_owner == old.owner || self.users[self.authorizations[at].owner].is_admin;
            prop_assert!(may, "{by:?} gave it away");
        }
        wanted.owner_uuid = Some(self.users[new_owner].id.clone());
        wanted.user_id = Some(self.users[new_owner].number);
        prop_assert_eq!(what_can_change(&updated), what_can_change(&wanted));
        let is_changed = !is_same(&before, &wanted) || new_owner != old.owner;
        prop_assert_eq!(updated.etag != before.etag, is_changed, "its etag");
        let changed = &mut self.authorizations[which];
        (changed.shown, changed.owner, changed.told) = (updated, new_owner, None);
        Ok(())
    }

    async fn delete(&mut self, by: By, which: usize) -> TestCaseResult {
        let uuid = self.authorizations[which].shown.uuid().to_owned();
        let mut client = self.server.authorizations(self.text_of(by));
        let answer =
            client.delete_api_client_authorization(DeleteApiClientAuthorizationRequest { uuid });
        let answer = answer.await;
        self.seen.borrow_mut().note("delete one", answer.is_ok());
        let is_itself = matches!(by, By::Authorization(at) if at == which);
        let may = match by {
            By::Operator | By::Root => true,
            By::Authorization(at) => {
                let method = path("DeleteApiClientAuthorization");
                let scopes = scopes_of(&self.authorizations[at].shown);
                self.state(at) == Reason::Unspecified
                    && (is_itself || allows(scopes, "POST", &method))
            }
        };
        prop_assert_eq!(answer.is_ok(), may && self.reaches(by, which), "{:?} {:?}", by, answer);
        if answer.is_ok() {
            self.authorizations[which].is_revoked = true;
        }
        Ok(())
    }

    /// Reads one, the caller's list and its own.
    async fn look(&mut self, by: By, which: usize) -> TestCaseResult {
        let mut client = self.server.authorizations(self.text_of(by));
        let uuid = self.authorizations[which].shown.uuid().to_owned();
        let get = GetApiClientAuthorizationRequest { uuid, ..Default::default() };
        let answer = client.get_api_client_authorization(get).await;
        if let Ok(got) = self.came_of("look", by, "GetApiClientAuthorization", answer)? {
            prop_assert!(self.reaches(by, which), "{by:?} sees what is not for it");
            let got = got.api_client_authorization.unwrap();
            prop_assert!(got.api_token.is_none(), "its secret is shown");
            prop_assert_eq!(
                what_can_change(&got),
                what_can_change(&self.authorizations[which].shown)
            );
        }
        let By::Authorization(at) = by else { return Ok(()) };
        let own = &self.authorizations[at];
        let request =
            ListApiClientAuthorizationsRequest { limit: Some(1_000), ..Default::default() };
        let answer = client.list_api_client_authorizations(request).await;
        if let Ok(list) = self.came_of("look", by, "ListApiClientAuthorizations", answer)? {
            let mut expected: Vec<_> = self
                .authorizations
                .iter()
                .filter(|it| it.owner == own.owner && !it.is_revoked)
                .map(|it| (it.shown.created_at.map(micros), it.shown.uuid().to_owned()))
                .collect();
            expected.sort_by(|one, other| other.cmp(one));
            let listed: Vec<_> = list
                .items
                .iter()
                .map(|it| (it.created_at.map(micros), it.uuid().to_owned()))
                .collect();
            prop_assert_eq!(listed, expected);
        }
        let request = GetCurrentApiClientAuthorizationRequest::default();
        let answer = client.get_current_api_client_authorization(request).await;
        let is_good = self.state(at) == Reason::Unspecified;
        prop_assert_eq!(answer.is_ok(), is_good, "{:?}", answer);
        if let Ok(current) = answer {
            let current = current.into_inner().api_client_authorization.unwrap();
            prop_assert_eq!(what_can_change(&current), what_can_change(&own.shown));
            prop_assert!(own.text.ends_with(current.api_token()));
        }
        Ok(())
    }

    /// Whether one is there for a caller.
    fn reaches(&self, by: By, which: usize) -> bool {
        let Authorization { owner, is_revoked, .. } = &self.authorizations[which];
        !is_revoked
            && match by {
                By::Operator => false,
                By::Root => true,
                By::Authorization(at) => self.authorizations[at].owner == *owner,
            }
    }

    /// Ends those of some users for good.
    pub(super) fn end_authorizations(&mut self, is_meant: impl Fn(usize) -> bool) {
        for one in self.authorizations.iter_mut().filter(|one| is_meant(one.owner)) {
            one.is_revoked = true;
        }
    }

    /// Asks about those of which something else is to be said, for every request, or
    /// about all, for one.
    pub(super) async fn check_authorizations(&mut self, everything: bool) -> TestCaseResult {
        for at in 0..self.authorizations.len() {
            let state = self.state(at);
            let has_changed = self.authorizations[at].told != Some(state);
            if !(everything || has_changed) {
                continue;
            }
            let some = (self.seen.borrow().operations + at) % ROUTES.len();
            let routes = if has_changed { &ROUTES[..] } else { &ROUTES[some..=some] };
            for (method, path) in routes {
                let one = &self.authorizations[at];
                let request = VerifyRequest {
                    token: one.text.clone(),
                    request_method: Some((*method).to_owned()),
                    request_path: Some((*path).to_owned()),
                    ..Default::default()
                };
                let mut client = self.server.verification(&self.server.admin);
                let answer = client.verify(request).await.unwrap().into_inner();
                let is_good = state == Reason::Unspecified;
                let expected = if is_good && !allows(scopes_of(&one.shown), method, path) {
                    Reason::InsufficientScope
                } else {
                    state
                };
                let shown = what_can_change(&one.shown);
                prop_assert_eq!(answer.reason(), expected, "{} {} {:?}", method, path, shown);
                if answer.active {
                    prop_assert_eq!(&answer.token_id, one.shown.uuid());
                    prop_assert_eq!(&answer.user_id, &self.users[one.owner].id);
                    prop_assert_eq!(&answer.scopes, scopes_of(&one.shown));
                    prop_assert_eq!(answer.expires_at, one.shown.expires_at);
                }
                *self.seen.borrow_mut().reasons.entry(answer.reason).or_default() += 1;
            }
            self.authorizations[at].told = Some(state);
        }
        Ok(())
    }

    /// The instant so many seconds from now.
    fn in_(&self, seconds: i64) -> Timestamp {
        let mut now = self.server.after(std::time::Duration::ZERO);
        now.seconds += seconds;
        now
    }
}

fn list(scopes: Option<Vec<&str>>) -> Option<ScopeList> {
    let values = scopes?.iter().map(ToString::to_string).collect();
    Some(ScopeList { values })
}

fn scopes_of(shown: &ApiClientAuthorization) -> &[String] {
    &shown.scopes.as_ref().unwrap().values
}

fn end(shown: &ApiClientAuthorization) -> Option<i64> {
    shown.expires_at.map(micros)
}

/// What of one a caller may change.
fn what_can_change(shown: &ApiClientAuthorization) -> (&[String], Option<i64>, &str, i64) {
    (scopes_of(shown), end(shown), shown.owner_uuid(), shown.user_id())
}

fn is_same(one: &ApiClientAuthorization, other: &ApiClientAuthorization) -> bool {
    (scopes_of(one), end(one)) == (scopes_of(other), end(other))
}

/// Whether one allows nothing that another does not, of what is asked here.
fn is_within(held: &ApiClientAuthorization, wanted: &ApiClientAuthorization) -> bool {
    let is_covered = |(method, path): &(&str, &str)| {
        !allows(scopes_of(wanted), method, path) || allows(scopes_of(held), method, path)
    };
    let ends = end(held).is_none_or(|held| end(wanted).is_some_and(|wanted| wanted <= held));
    ROUTES.iter().all(is_covered) && ends
}

fn check_within(held: &ApiClientAuthorization, wanted: &ApiClientAuthorization) -> TestCaseResult {
    let shown = (what_can_change(wanted), what_can_change(held));
    prop_assert!(is_within(held, wanted), "what is beyond its maker: {shown:?}");
    Ok(())
}
