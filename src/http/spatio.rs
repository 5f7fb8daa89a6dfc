//! Spatio's nine calls (SEEDS 2).

use http::{Method, StatusCode};
use prost_types::Timestamp;
use serde_json::{Value, json};
use tonic::Status;

use super::{Answer, Call, body::Fields, problem::Problem, route::not_served};
use crate::{
    caller::Caller,
    domain::{ContainerName, ContainerRef, Kind},
    grpc::called_by,
    proto::v1::{
        self as proto, create_personal_access_token_request,
        personal_access_tokens_server::PersonalAccessTokens as _, workspace_create_pat_request,
    },
};

/// How many tokens one page of a list has that is read to its end.
const PAGE: i32 = 1_000;

/// How many tokens a list has at most, the newest; these calls know no pages.
const MOST: usize = 10_000;

/// One of the nine calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    Scopes,
    List(About),
    Create(About),
    Update(About, String),
    Revoke(About, String),
}

/// Whose tokens a call is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum About {
    /// The caller's own.
    Own,
    /// Those that are bound to a workspace: its organization's id or slug, and its own.
    Workspace { org: String, workspace: String },
}

impl Route {
    /// # Errors
    ///
    /// Nothing is served there, or not so.
    pub(super) fn of(method: &Method, parts: &[&str]) -> Result<Self, Problem> {
        let (about, rest) = match parts {
            ["v1", "tokens", "scopes"] if method == Method::GET => return Ok(Self::Scopes),
            ["v1", "tokens", "scopes"] => return Err(not_served("GET")),
            ["v1", "tokens", rest @ ..] => (About::Own, rest),
            ["v1", "organizations", org, "workspaces", workspace, "tokens", rest @ ..] => {
                let (org, workspace) = ((*org).to_owned(), (*workspace).to_owned());
                (About::Workspace { org, workspace }, rest)
            }
            _ => return Err(Problem::missing()),
        };
        match rest {
            [] => match *method {
                Method::GET => Ok(Self::List(about)),
                Method::POST => Ok(Self::Create(about)),
                _ => Err(not_served("GET, POST")),
            },
            [id] if !id.is_empty() => match *method {
                Method::PATCH => Ok(Self::Update(about, (*id).to_owned())),
                Method::DELETE => Ok(Self::Revoke(about, (*id).to_owned())),
                _ => Err(not_served("PATCH, DELETE")),
            },
            _ => Err(Problem::missing()),
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Scopes => "list_available_pat_scopes",
            Self::List(About::Own) => "list_personal_access_tokens",
            Self::Create(About::Own) => "create_personal_access_token",
            Self::Update(About::Own, _) => "update_personal_access_token",
            Self::Revoke(About::Own, _) => "revoke_personal_access_token",
            Self::List(About::Workspace { .. }) => "workspace_list_pats",
            Self::Create(About::Workspace { .. }) => "workspace_create_pat",
            Self::Update(About::Workspace { .. }, _) => "workspace_update_pat",
            Self::Revoke(About::Workspace { .. }, _) => "workspace_revoke_pat",
        }
    }

    fn about(&self) -> Option<&About> {
        match self {
            Self::Scopes => None,
            Self::List(about)
            | Self::Create(about)
            | Self::Update(about, _)
            | Self::Revoke(about, _) => Some(about),
        }
    }

    pub(super) async fn answer(&self, call: &Call<'_>) -> Result<Answer, Problem> {
        let caller = call.caller(call.presented()?, &[Kind::PersonalAccessToken]).await?;
        let workspace = self.about().map_or(Ok(None), About::name)?;
        match self {
            Self::Scopes => {
                let request = called_by(caller, proto::ListAvailablePatScopesRequest {});
                let listed = call.tokens().list_available_pat_scopes(request).await?;
                Ok(Answer::ok(json!({ "scopes": listed.into_inner().scopes })))
            }
            Self::List(about) => list(call, caller, about).await,
            Self::Create(about) => create(call, caller, about).await,
            Self::Update(about, id) => update(call, caller, about, id).await,
            Self::Revoke(_, id) => {
                call.revoke(caller, workspace.as_ref(), id).await?;
                Ok(Answer::empty(StatusCode::NO_CONTENT))
            }
        }
    }
}

impl About {
    /// What it names; of what no workspace is called there is none.
    fn name(&self) -> Result<Option<ContainerName>, Problem> {
        let Self::Workspace { org, workspace } = self else { return Ok(None) };
        let parse = |text: &str| text.parse::<ContainerRef>().map_err(|_| Problem::missing());
        let organization = Some(parse(org)?);
        Ok(Some(ContainerName::Workspace { workspace: parse(workspace)?, organization }))
    }
}

/// All that are not revoked, newest first, and what one may be made for.
async fn list(call: &Call<'_>, caller: &Caller, about: &About) -> Result<Answer, Problem> {
    let (mut tokens, mut page_token) = (Vec::new(), String::new());
    loop {
        let (page, available_scopes) = match about {
            About::Own => {
                let request = proto::ListPersonalAccessTokensRequest {
                    page_size: PAGE,
                    page_token,
                    ..Default::default()
                };
                let request = called_by(caller, request);
                let page = call.tokens().list_personal_access_tokens(request).await?.into_inner();
                page_token = page.next_page_token;
                (page.personal_access_tokens, page.available_scopes)
            }
            About::Workspace { org, workspace } => {
                let request = proto::WorkspaceListPatsRequest {
                    org: org.clone(),
                    workspace: workspace.clone(),
                    page_size: PAGE,
                    page_token,
                    ..Default::default()
                };
                let request = called_by(caller, request);
                let page = call.tokens().workspace_list_pats(request).await?.into_inner();
                page_token = page.next_page_token;
                (page.personal_access_tokens, page.available_scopes)
            }
        };
        tokens.extend(page.into_iter().map(pat));
        if page_token.is_empty() || tokens.len() >= MOST {
            return Ok(Answer::ok(
                json!({ "tokens": tokens, "availableScopes": available_scopes }),
            ));
        }
    }
}

async fn create(call: &Call<'_>, caller: &Caller, about: &About) -> Result<Answer, Problem> {
    let mut fields = Fields::of(&call.body().await?)?;
    let name = fields.text("name").unwrap_or_default();
    let description = fields.text("description");
    let scopes = fields.texts("scopes");
    let expires_at = fields.time("expiresAt");
    let workspace_id = fields.text("workspaceId");
    fields.check()?;
    let (token, made) = match about {
        About::Own => {
            let request = proto::CreatePersonalAccessTokenRequest {
                name,
                description,
                scopes,
                workspace_id,
                expiry: expires_at.map(create_personal_access_token_request::Expiry::ExpiresAt),
                ..Default::default()
            };
            let request = called_by(caller, request);
            let made = call.tokens().create_personal_access_token(request).await?.into_inner();
            (made.token, made.personal_access_token)
        }
        About::Workspace { org, workspace } => {
            let request = proto::WorkspaceCreatePatRequest {
                org: org.clone(),
                workspace: workspace.clone(),
                name,
                description,
                scopes,
                expiry: expires_at.map(workspace_create_pat_request::Expiry::ExpiresAt),
                ..Default::default()
            };
            let request = called_by(caller, request);
            let made = call.tokens().workspace_create_pat(request).await?.into_inner();
            (made.token, made.personal_access_token)
        }
    };
    let body = json!({ "token": token, "pat": made.map(pat) });
    Ok(Answer::json(StatusCode::CREATED, body))
}

async fn update(
    call: &Call<'_>,
    caller: &Caller,
    about: &About,
    id: &str,
) -> Result<Answer, Problem> {
    let mut fields = Fields::of(&call.body().await?)?;
    let (name, description) = (fields.text("name"), fields.text("description"));
    if fields.has("scopes") {
        fields.wrong("scopes", "can't be changed: make another token");
    }
    fields.check()?;
    let id = id.to_owned();
    let updated = match about {
        About::Own => {
            let request = proto::UpdatePersonalAccessTokenRequest {
                id,
                name,
                description,
                update_mask: None,
            };
            let request = called_by(caller, request);
            let updated = call.tokens().update_personal_access_token(request).await;
            updated.map_err(gone)?.into_inner().personal_access_token
        }
        About::Workspace { org, workspace } => {
            let request = proto::WorkspaceUpdatePatRequest {
                org: org.clone(),
                workspace: workspace.clone(),
                id,
                name,
                description,
                update_mask: None,
            };
            let updated = call.tokens().workspace_update_pat(called_by(caller, request)).await;
            updated.map_err(gone)?.into_inner().personal_access_token
        }
    };
    Ok(Answer::ok(updated.map(pat).unwrap_or_default()))
}

/// A token that is revoked is in no list, and none that there is.
fn gone(status: Status) -> Problem {
    let problem = Problem::from(status);
    if problem.is("TOKEN_REVOKED") { Problem::missing() } else { problem }
}

/// A `PersonalAccessToken` (SEEDS 2.2).
fn pat(token: proto::PersonalAccessToken) -> Value {
    let time = |instant: Option<Timestamp>| instant.map(|instant| instant.to_string());
    json!({
        "id": token.id,
        "name": token.name,
        "description": token.description,
        "tokenPrefix": token.token_prefix,
        "scopes": token.scopes,
        "workspaceId": token.workspace_id,
        "createdAt": time(token.created_at),
        "lastUsedAt": time(token.last_used_at),
        "expiresAt": time(token.expires_at),
    })
}
