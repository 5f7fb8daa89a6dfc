//! Which call a request is, by its method and path.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::{
    Answer, Call, arvados, oauth, openapi,
    problem::{Kind, Problem, Style},
    spatio,
};

/// A call that is served.
#[derive(Debug)]
pub(super) enum Route {
    /// One of Spatio's.
    Spatio(spatio::Route),
    /// One of Arvados'.
    Arvados(arvados::Route),
    /// Introspection or revocation.
    OAuth(oauth::Route),
    /// What describes them all.
    Description,
}

impl Route {
    /// The call that a request is, if it is served, and whose errors are those at its path.
    pub(super) fn of(method: &Method, path: &str) -> (Style, Result<Self, Problem>) {
        // A slash in a name is `%2F`.
        let first = path.split('/').nth(1);
        let parts: Option<Vec<Cow<'_, str>>> = path
            .split('/')
            .skip(1)
            .map(|part| percent_decode_str(part).decode_utf8().ok())
            .collect();
        let parts: Vec<&str> = parts.iter().flatten().map(AsRef::as_ref).collect();
        if parts == ["openapi.json"] {
            let route =
                if method == Method::GET { Ok(Self::Description) } else { Err(not_served("GET")) };
            return (Style::Spatio, route);
        }
        if matches!(first, Some("arvados" | "discovery")) {
            return (Style::Arvados, arvados::Route::of(method, &parts).map(Self::Arvados));
        }
        if parts.first() == Some(&"oauth2") {
            return (Style::OAuth, oauth::Route::of(method, &parts).map(Self::OAuth));
        }
        (Style::Spatio, spatio::Route::of(method, &parts).map(Self::Spatio))
    }

    /// What it is called in the log: a path may hold anything.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Spatio(route) => route.name(),
            Self::Arvados(route) => route.name(),
            Self::OAuth(route) => route.name(),
            Self::Description => "openapi",
        }
    }

    /// Whether it is for whoever has a token, and takes its place among the calls itself.
    pub(super) fn is_open(&self, call: &Call<'_>) -> bool {
        match self {
            Self::OAuth(route) => route.is_open(call),
            Self::Spatio(_) | Self::Arvados(_) | Self::Description => false,
        }
    }

    pub(super) async fn answer(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        match self {
            Self::Spatio(route) => route.answer(call).await,
            Self::Arvados(route) => route.answer(call).await,
            Self::OAuth(route) => route.answer(call).await,
            Self::Description => Ok(Answer::written(openapi::document())),
        }
    }
}

/// A method that is not served at a path where others are.
pub(super) fn not_served(allowed: &'static str) -> Problem {
    Problem::new(Kind::Method(allowed), format!("only {allowed} is served here"))
}
