//! Requests that schemathesis makes up from the description, good ones and bad ones: none
//! is answered by a fault, and each as the description says.

use std::{env, path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

use super::{raw::call, sdk::tool};
use crate::support::{
    Engine,
    server::{TestServer, v2},
};

/// How many credentials of a kind there are.
const COUNT: &str = "SELECT count(*) FROM credentials WHERE kind =";
const KINDS: [&str; 2] = ["personal_access_token", "api_client_authorization"];

#[tokio::test(flavor = "multi_thread")]
async fn generated_requests_are_answered_as_described() {
    let server = TestServer::start(Engine::Sqlite).await;
    let (user, workspace) = (server.user("alice").await.id, server.workspace("main").await);
    server.join(&user, &workspace, "admin").await;
    let scopes = ["read:tokens", "write:tokens", "verify:tokens", "read:*", "write:*"];
    let pat = server.token_of(&user, &scopes).await;
    let chief = server.administrator("chief").await.id;
    let authorization = server.authorization_of(&chief, None).await;
    let tokens = [pat.token, v2(&authorization)];
    let id = pat.personal_access_token.unwrap().id;
    let own = [&*id, authorization.uuid(), authorization.api_token(), &tokens[0], &tokens[1]];

    let http = server.http.unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/generated");
    let mut generator = Command::new(tool("SCHEMATHESIS", "schemathesis/run"));
    generator
        .arg("--config-file")
        .arg(directory.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{http}/openapi.json"))
        // The last of two counts: for a run that takes its time, or another seed.
        .args(env::var("SCHEMATHESIS_ARGUMENTS").unwrap_or_default().split_whitespace())
        .env("HOOKS", directory.join("hooks.py"))
        .env("PAT", &tokens[0])
        .env("AUTHORIZATION", &tokens[1])
        .env("OWN", own.join(" "))
        .envs(["NO_PROXY", "no_proxy"].map(|name| (name, "127.0.0.1")))
        // It leaves things where it runs.
        .current_dir(server.place.directory.path())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let generated = tokio::time::timeout(Duration::from_mins(20), generator.output()).await;
    let generated = generated.expect("it comes to its end").unwrap();
    assert!(
        generated.status.success(),
        "{}{}",
        String::from_utf8_lossy(&generated.stdout),
        String::from_utf8_lossy(&generated.stderr)
    );

    // It got beyond what is said to everybody.
    for kind in KINDS {
        let made = server.place.number(&format!("{COUNT} '{kind}'")).await;
        assert!(made > 10, "{made} of {kind}");
    }
    let paths = ["/v1/tokens", "/arvados/v1/api_client_authorizations/current"];
    for (token, path) in tokens.iter().zip(paths) {
        assert_eq!(call(&server, &format!("GET {path}"), token, "").await.status, 200, "{path}");
    }
}
