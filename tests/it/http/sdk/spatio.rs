//! Spatio's clients for personal access tokens.

use std::time::Duration;

use serde_json::{Value, json};
use token_authority::proto::v1::{
    GetOrganizationRequest, GetWorkspaceRequest, ListAvailablePatScopesRequest,
    ListPersonalAccessTokensRequest, Reason, TokenState,
};
use tokio::process::Command;

use super::{Driver, tool};
use crate::support::{
    Engine, on_both_stores,
    server::{TestServer, unknown_token},
};

const CREDENTIALS: &str = "SELECT count(*) FROM credentials";

on_both_stores![python_client_makes_all_its_calls];

async fn python_client_makes_all_its_calls(engine: Engine) {
    drive(Driver::python("spatio_calls.py"), engine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn typescript_client_makes_all_its_calls() {
    drive(Driver::node("spatio_calls.mjs"), Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rust_client_makes_all_its_calls() {
    drive(Command::new(tool("SDK_RUST", "sdk-rust/debug/spatio_calls")), Engine::Sqlite).await;
}

/// Runs a driver, and looks at what it made when it is half way and when it is over.
async fn drive(driver: Command, engine: Engine) {
    let server = TestServer::start(engine).await;
    let (user, workspace) = (server.user("ada").await.id, server.workspace("web").await);
    server.join(&user, &workspace, "member").await;
    let token = server.text_of(&user, &["read:tokens", "write:tokens", "read:*"]).await;
    let world = world(&server, &token, &workspace).await;
    let before = server.place.number(CREDENTIALS).await;

    let (driver, made) = Driver::start(driver, &server.place, &world).await;
    let [least, most, bound] = ["least", "most", "bound"].map(|name| made[name].as_str().unwrap());
    for (token, is_bound) in [(least, false), (most, true), (bound, true)] {
        let known = server.verify(token).await;
        assert!(known.active && known.user_id == user);
        assert_eq!(known.workspace_id.as_ref(), is_bound.then_some(&workspace));
        assert_eq!(known.scopes, if is_bound { &["read:notes"][..] } else { &[] });
        let expires_at = known.expires_at.map(|at| at.to_string());
        assert_eq!(expires_at.as_deref(), is_bound.then_some("2031-01-02T03:04:05Z"));
    }
    driver.finish().await;

    assert!(server.verify(most).await.active);
    for token in [least, bound] {
        assert_eq!(server.verify(token).await.reason(), Reason::Revoked);
    }
    // What was refused made nothing, for nobody.
    assert_eq!(server.place.number(CREDENTIALS).await, before + 3);
    let request = ListPersonalAccessTokensRequest { show_revoked: true, ..Default::default() };
    let listed = server.tokens(&token).list_personal_access_tokens(request).await.unwrap();
    let mut listed: Vec<_> = listed
        .into_inner()
        .personal_access_tokens
        .into_iter()
        .map(|token| (token.state(), token.name, token.description))
        .collect();
    listed.sort();
    let expected = [
        (TokenState::Active, "most of all"),
        (TokenState::Active, "of a test"),
        (TokenState::Revoked, "bound still"),
        (TokenState::Revoked, "least"),
    ];
    assert_eq!(listed, expected.map(|(state, name)| (state, name.to_owned(), String::new())));
}

/// What a driver has to know.
async fn world(server: &TestServer, token: &str, workspace_id: &str) -> Value {
    let outsider = server.user("bob").await.id;
    let outsiders = server.token_of(&outsider, &["read:tokens", "write:tokens"]).await;
    let mut directory = server.directory(&server.admin);
    let workspace = GetWorkspaceRequest { workspace: workspace_id.to_owned(), organization: None };
    let workspace = directory.get_workspace(workspace).await.unwrap().into_inner().workspace;
    let workspace = workspace.unwrap();
    let organization = GetOrganizationRequest { organization: workspace.organization_id };
    let organization = directory.get_organization(organization).await.unwrap().into_inner();
    let organization = organization.organization.unwrap();
    let mut tokens = server.tokens(token);
    let scopes = tokens.list_available_pat_scopes(ListAvailablePatScopesRequest {});
    json!({
        "base": format!("http://{}", server.http.unwrap()),
        "now": server.after(Duration::ZERO).to_string(),
        "token": token,
        "admin": server.admin,
        "outsider": outsiders.token,
        "unknown": unknown_token(),
        "scopes": scopes.await.unwrap().into_inner().scopes,
        "foreign": outsiders.personal_access_token.unwrap().id,
        "organization": { "id": organization.id, "slug": organization.slug },
        "workspace": { "id": workspace.id, "slug": workspace.slug },
    })
}
