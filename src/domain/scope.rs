use std::{fmt, str::FromStr};

use super::{Invalid, text::holds_token};

/// The longest scope, in bytes, and the most that one token may carry.
const MAX_LENGTH: usize = 100;
const MAX_SCOPES: usize = 100;

/// What a personal access token may do: `verb:area`, lower case.
///
/// Catalogue scopes belong to the applications; there `*` stands for every
/// verb or every area. [Control scopes](ControlScope) are this service's own and
/// are meant only where they stand by their exact name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope(String);

impl Scope {
    /// The scope as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The control scope of this name, if it is one.
    #[must_use]
    pub fn control(&self) -> Option<ControlScope> {
        ControlScope::named(&self.0)
    }

    /// Whether who holds this scope may do all that `other` names.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        covers(&self.0, &other.0)
    }
}

impl FromStr for Scope {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if is_scope(text) { Ok(Self(text.to_owned())) } else { Err(no_scope()) }
    }
}

/// Whether a text is a [`Scope`].
#[must_use]
pub fn is_scope(text: &str) -> bool {
    let word = |part: &str, more: &[u8]| {
        part == "*"
            || (part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && part
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || more.contains(&b)))
    };
    text.len() <= MAX_LENGTH
        && text.split_once(':').is_some_and(|(verb, area)| word(verb, b"_-") && word(area, b"._-/"))
}

/// Whether who holds the scope `held` may do all that the [scope](is_scope) `wanted`
/// names. A text that is no scope covers none.
#[must_use]
pub fn covers(held: &str, wanted: &str) -> bool {
    if held == wanted || held == ControlScope::AdminAll.as_str() {
        return true;
    }
    // No other names more than itself, and no control scope does.
    if !held.contains('*') {
        return false;
    }
    match (held.split_once(':'), wanted.split_once(':')) {
        (Some((verb, area)), Some((wanted_verb, wanted_area))) => {
            (verb == "*" || verb == wanted_verb)
                && (area == "*" || area == wanted_area)
                && ControlScope::named(wanted).is_none()
        }
        (None, _) | (_, None) => false,
    }
}

/// Whether a text may be one of the scopes of a token or of a question beside those
/// that are `there`, and is not one of them yet.
pub(super) fn joins<'a>(
    text: &str,
    mut there: impl ExactSizeIterator<Item = &'a str>,
) -> Result<bool, Invalid> {
    if !is_scope(text) {
        return Err(no_scope());
    }
    if holds_token(text) {
        return Err(Invalid::new("must not hold a token, which is for its holder alone"));
    }
    let count = there.len();
    if there.any(|scope| scope == text) {
        return Ok(false);
    }
    if count == MAX_SCOPES {
        return Err(Invalid(format!("must be at most {MAX_SCOPES} scopes")));
    }
    Ok(true)
}

fn no_scope() -> Invalid {
    Invalid::new("must be verb:area in lower case, such as read:notes or read:*")
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! control_scopes {
    ($($name:ident = $text:literal: $meaning:literal,)*) => {
        /// A scope of this service itself, granted and matched by its exact name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ControlScope {
            $(#[doc = $meaning] $name,)*
        }

        impl ControlScope {
            /// Every control scope, in the order in which they are listed to callers.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// The scope as text.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// What it allows, in a sentence for people.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self {
                    $(Self::$name => $meaning,)*
                }
            }
        }
    };
}

control_scopes! {
    ReadTokens = "read:tokens": "See tokens: one's own, and as an administrator everybody's.",
    WriteTokens = "write:tokens": "Create, change and revoke tokens: one's own, and as an administrator everybody's.",
    IssueTokens = "issue:tokens": "Issue tokens with catalogue scopes to users who are no administrators.",
    VerifyTokens = "verify:tokens": "Ask whether a token is good, whose it is and for what.",
    ReadDirectory = "read:directory": "See oneself in the directory, and as an administrator everybody.",
    WriteDirectory = "write:directory": "Change the directory, as far as the user may.",
    ReadAudit = "read:audit": "Read the audit log, as an administrator.",
    AdminAll = "admin:all": "Do everything that the user may: every scope.",
}

impl ControlScope {
    /// The control scope of this name.
    #[must_use]
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|control| control.as_str() == text)
    }

    /// The control scope as a scope.
    #[must_use]
    pub fn to_scope(self) -> Scope {
        Scope(self.as_str().to_owned())
    }
}

/// The scopes of a token: each once, in the order in which they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeSet(Vec<Scope>);

impl ScopeSet {
    /// Adds a scope that is not there yet.
    ///
    /// # Errors
    ///
    /// The text is no scope, or 100 are there already.
    pub fn push(&mut self, text: &str) -> Result<(), Invalid> {
        if joins(text, self.0.iter().map(Scope::as_str))? {
            self.0.push(Scope(text.to_owned()));
        }
        Ok(())
    }

    /// The scopes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The scopes as text, in order.
    #[must_use]
    pub fn to_texts(&self) -> Vec<String> {
        self.0.iter().map(|scope| scope.0.clone()).collect()
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        let mut set = Self::default();
        for scope in scopes {
            if !set.0.contains(&scope) {
                set.0.push(scope);
            }
        }
        set
    }
}

/// One entry of the catalogue: a scope that tokens may carry, and its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogueEntry {
    /// Tokens may carry this scope and any that it covers.
    pub scope: Scope,
    /// What it allows, in a sentence for people.
    pub description: String,
}

impl FromStr for CatalogueEntry {
    type Err = Invalid;

    /// `SCOPE=DESCRIPTION`, or the scope alone.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let (scope, description) = text.split_once('=').unwrap_or((text, ""));
        let scope: Scope = scope.parse()?;
        if scope.control().is_some() {
            return Err(Invalid::new("must not be a control scope"));
        }
        Ok(Self { scope, description: description.to_owned() })
    }
}

/// The scopes that the applications around this service know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue(pub Vec<CatalogueEntry>);

impl Catalogue {
    /// Whether a token may carry `scope`: an entry covers it, or it is a control scope.
    #[must_use]
    pub fn admits(&self, scope: &Scope) -> bool {
        scope.control().is_some() || self.0.iter().any(|entry| entry.scope.covers(scope))
    }
}

/// The scopes of an API client authorization, as they were given: `METHOD /path`
/// entries, or `all`. What else an entry may be allows nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteScopes(Vec<String>);

/// The longest entry, in bytes.
const MAX_ROUTE: usize = 256;

impl RouteScopes {
    /// All that its user may.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![ALL.to_owned()])
    }

    /// These entries.
    ///
    /// # Errors
    ///
    /// There are more than 100, or one is too long or holds what no path does; its
    /// place.
    pub fn new(entries: Vec<String>) -> Result<Self, (usize, Invalid)> {
        if entries.len() > MAX_SCOPES {
            let reason = format!("must be at most {MAX_SCOPES} entries");
            return Err((MAX_SCOPES, Invalid(reason)));
        }
        match entries.iter().position(|entry| !is_route_entry(entry)) {
            None => Ok(Self(entries)),
            Some(at) => {
                let reason = format!(
                    "must be METHOD /path or all, at most {MAX_ROUTE} bytes and without a token"
                );
                Err((at, Invalid(reason)))
            }
        }
    }

    /// The entries, in order.
    #[must_use]
    pub fn into_texts(self) -> Vec<String> {
        self.0
    }
}

const ALL: &str = "all";

fn is_route_entry(entry: &str) -> bool {
    entry.len() <= MAX_ROUTE && !entry.contains(char::is_control) && !holds_token(entry)
}

/// Where anybody may always read its own token (SEEDS 3.5).
const CURRENT: &str = "/arvados/v1/api_client_authorizations/current";

/// What begins the path of each token.
const ONE_TOKEN: &str = "/arvados/v1/api_client_authorizations/";

/// Whether an API client authorization with these scopes allows a request, by
/// the rule of Arvados (SEEDS 3.5): an entry is `all`, equals `METHOD /path`, or
/// ends with `/` and begins it. Slashes at the end of the path are no part of it,
/// and what allows GET allows HEAD. To GET the current token is always allowed. A token
/// is updated by PUT and by PATCH, and what allows the one allows the other.
#[must_use]
pub fn route_allowed(
    scopes: impl IntoIterator<Item: AsRef<str>>,
    method: &str,
    path: &str,
) -> bool {
    let path = path.trim_end_matches('/');
    let is_current = method == "GET" && path == CURRENT;
    let like = match method {
        "HEAD" => Some("GET"),
        "PUT" if path.starts_with(ONE_TOKEN) => Some("PATCH"),
        "PATCH" if path.starts_with(ONE_TOKEN) => Some("PUT"),
        _ => None,
    };
    is_current
        || scopes.into_iter().any(|entry| {
            let entry = entry.as_ref();
            entry_allows(entry, method, path)
                || like.is_some_and(|like| entry_allows(entry, like, path))
        })
}

fn entry_allows(entry: &str, method: &str, path: &str) -> bool {
    let of_method = entry.strip_prefix(method).and_then(|rest| rest.strip_prefix(' '));
    entry == ALL || of_method.is_some_and(|allowed| allowed == path || begins(allowed, path))
}

/// Whether an API client authorization has the entry that is every request.
pub(super) fn holds_all<'a>(mut scopes: impl Iterator<Item = &'a str>) -> bool {
    scopes.any(|entry| entry == ALL)
}

/// Whether an API client authorization with the scopes `held` allows every request
/// that one with the scopes `wanted` does.
#[must_use]
pub fn routes_cover(held: &[String], wanted: &[String]) -> bool {
    wanted.iter().all(|wanted| {
        // Nobody holds more of an entry than what begins it.
        let covers = |wanted: &str| {
            held.iter().any(|held| {
                held == ALL || (wanted != ALL && (held == wanted || begins(held, wanted)))
            })
        };
        let under_get = || wanted.strip_prefix("HEAD ").map(|path| format!("GET {path}"));
        covers(wanted) || under_get().is_some_and(|wanted| covers(&wanted))
    })
}

fn begins(held: &str, wanted: &str) -> bool {
    held.ends_with('/') && wanted.starts_with(held)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_no_scope_covers_none(
            held in "([*a-b]{0,2}|admin|):([*a-b/]{0,2}|all|)|.{0,4}",
            wanted in "([a-b]{1,2}|\\*):([a-b]{1,2}|\\*)|admin:all|read:tokens",
        ) {
            prop_assert!(is_scope(&wanted));
            prop_assert!(is_scope(&held) || !covers(&held, &wanted));
        }
    }

    fn scope(text: &str) -> Scope {
        text.parse().unwrap()
    }

    #[test]
    fn a_star_covers_every_word_in_its_place() {
        assert!(scope("read:*").covers(&scope("read:notes")));
        assert!(scope("*:notes").covers(&scope("write:notes")));
        assert!(scope("*:*").covers(&scope("read:*")));
        assert!(!scope("read:*").covers(&scope("write:notes")));
        assert!(!scope("read:notes").covers(&scope("read:*")));
        assert!(!scope("read:notes").covers(&scope("read:notes.old")));
    }

    #[test]
    fn control_scopes_are_never_covered_by_a_star() {
        for control in ControlScope::ALL {
            assert!(!scope("*:*").covers(&control.to_scope()), "{}", control.as_str());
            assert!(scope("admin:all").covers(&control.to_scope()), "{}", control.as_str());
            assert_eq!(
                control.to_scope().covers(&scope("read:notes")),
                control == ControlScope::AdminAll
            );
        }
    }

    #[test]
    fn what_is_not_verb_and_area_is_no_scope() {
        let long = format!("read:{}", "a".repeat(96));
        for text in [
            "",
            "read",
            ":",
            "read:",
            ":notes",
            "Read:notes",
            "read:no tes",
            "re*:notes",
            "read:a:b",
            &long,
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }

    #[test]
    fn scopes_are_kept_once_in_order_and_counted() {
        let mut set = ScopeSet::default();
        for text in ["write:a", "read:a", "write:a"] {
            set.push(text).unwrap();
        }
        assert_eq!(set.to_texts(), ["write:a", "read:a"]);
        for n in 0..98 {
            set.push(&format!("read:{n}")).unwrap();
        }
        assert!(set.push("read:a").is_ok());
        assert!(set.push("read:more").is_err());
    }

    #[test]
    fn catalogue_admits_what_an_entry_covers_and_control_scopes() {
        let catalogue = Catalogue(vec!["read:*=Read everything".parse().unwrap()]);
        assert!(catalogue.admits(&scope("read:notes")));
        assert!(catalogue.admits(&scope("read:*")));
        assert!(catalogue.admits(&scope("verify:tokens")));
        assert!(!catalogue.admits(&scope("write:notes")));
        assert!(!catalogue.admits(&scope("*:*")));
        assert!("read:tokens=x".parse::<CatalogueEntry>().is_err());
    }

    #[test]
    fn routes_follow_the_rule_of_arvados() {
        let allowed = |entry: &str, method, path| route_allowed(&[entry.to_owned()], method, path);
        assert!(allowed("all", "DELETE", "/anything"));
        assert!(allowed("GET /arvados/v1/collections", "GET", "/arvados/v1/collections"));
        assert!(allowed("GET /arvados/v1/collections", "GET", "/arvados/v1/collections/"));
        assert!(allowed("GET /arvados/v1/collections", "HEAD", "/arvados/v1/collections"));
        assert!(!allowed("GET /arvados/v1/collections", "GET", "/arvados/v1/collections/x"));
        assert!(allowed("GET /arvados/v1/collections/", "GET", "/arvados/v1/collections/x"));
        assert!(!allowed("GET /arvados/v1/collections/", "GET", "/arvados/v1/collections"));
        assert!(!allowed("GET /arvados/v1/collections/", "GET", "/arvados/v1/collections/"));
        assert!(allowed("GET /", "GET", "/x"));
        assert!(!allowed("get /x", "GET", "/x"));
        assert!(!allowed("POST /x", "GET", "/x"));
        assert!(allowed("GET /x", "GET", "/x//"));
        assert!(!allowed("GET /x/", "GET", "/x//"));
        assert!(!allowed("GET", "GET", "/x"));
        assert!(!allowed("", "GET", "/x"));
        assert!(!route_allowed([""; 0], "GET", "/x"));
    }

    #[test]
    fn token_is_updated_by_put_and_patch_alike() {
        let one = "/arvados/v1/api_client_authorizations/zzzzz-gj3su-000000000000001";
        for (allowed, other) in [("PUT", "PATCH"), ("PATCH", "PUT")] {
            for entry in [format!("{allowed} {one}"), format!("{allowed} /")] {
                assert!(route_allowed([&entry], allowed, one));
                assert!(route_allowed([&entry], other, one));
                assert!(!route_allowed([&entry], "POST", one));
                assert!(!route_allowed([&entry], "GET", one));
            }
            // Of anything else it is not known what they do.
            let elsewhere = format!("{allowed} /arvados/v1/collections/");
            assert!(!route_allowed([elsewhere], other, "/arvados/v1/collections/x"));
        }
    }

    #[test]
    fn current_token_may_always_be_read() {
        let no_scopes = [""; 0];
        assert!(route_allowed(no_scopes, "GET", CURRENT));
        assert!(!route_allowed(no_scopes, "DELETE", CURRENT));
        assert!(!route_allowed(no_scopes, "GET", "/other/api_client_authorizations/current"));
    }
}
