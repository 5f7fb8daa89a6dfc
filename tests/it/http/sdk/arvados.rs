//! Arvados' client for Python, and its API client authorizations.

use std::{collections::HashMap, fs, time::Duration};

use serde_json::json;
use token_authority::proto::v1::{ListApiClientAuthorizationsRequest, Reason};
use tokio::process::Command;

use super::Driver;
use crate::support::{
    Engine, on_both_stores,
    pki::Authority,
    server::{Place, TestServer, v2},
};

on_both_stores![
    client_makes_all_its_calls,
    client_makes_all_its_calls_over_https_where_secrets_are_kept,
];

const ROOT: &str = "RootRootRootRootRootRootRootRootRoot0123456789";
const PATH: &str = "/arvados/v1/api_client_authorizations";
/// More than two of the pages in which the client reads.
const MANY: u32 = 2_601;

async fn client_makes_all_its_calls(engine: Engine) {
    let place = Place::new(engine).await;
    let root = root(&place);
    let server = TestServer::start_on(place, &[&root]).await;
    let base = format!("http://{}", server.http.unwrap());
    drive(&server, Driver::python("arvados_calls.py"), &base, false).await;
}

async fn client_makes_all_its_calls_over_https_where_secrets_are_kept(engine: Engine) {
    let place = Place::new(engine).await;
    let (root, authority) = (root(&place), Authority::new("one"));
    let more = [&*root, "--recoverable-api-tokens"];
    let server = TestServer::start_secured(place, &more, &authority).await;
    let trusted = server.place.path("authority.crt");
    fs::write(&trusted, &authority.certificate).unwrap();
    let base = format!("https://localhost:{}", server.http.unwrap().port());
    let mut driver = Driver::python("arvados_calls.py");
    driver.env("SSL_CERT_FILE", trusted);
    drive(&server, driver, &base, true).await;
}

/// The argument that names a system root token.
fn root(place: &Place) -> String {
    let path = place.path("root-token");
    fs::write(&path, ROOT).unwrap();
    format!("--system-root-token-file={}", path.display())
}

/// Runs the driver, and looks at what it made when it is half way and when it is over.
async fn drive(server: &TestServer, driver: Command, base: &str, is_recoverable: bool) {
    let user = server.user("ada").await.id;
    let chief = server.administrator("chief").await.id;
    let carol = server.user("carol").await.id;
    let token = server.authorization_of(&user, None).await;
    let lists = server.authorization_of(&user, Some(&[&format!("GET {PATH}")])).await;
    let makes = server.authorization_of(&user, Some(&[&format!("POST {PATH}")])).await;
    let chiefs = server.authorization_of(&chief, None).await;
    let carols = server.authorization_of(&carol, None).await;
    crowd(server, carols.uuid()).await;
    let world = json!({
        "base": base,
        "recoverable": is_recoverable,
        "now": server.after(Duration::ZERO).to_string(),
        "user": user,
        "token": v2(&token),
        "lists": v2(&lists),
        "makes": v2(&makes),
        "admin": v2(&chiefs),
        "carol": v2(&carols),
        "root": ROOT,
        "pat": server.admin,
        "many": MANY,
    });
    let count = async || server.place.number("SELECT count(*) FROM credentials").await;
    let before = count().await;

    let (driver, made) = Driver::start(driver, &server.place, &world).await;
    let made: HashMap<String, String> = serde_json::from_value(made).unwrap();
    // One was ended at once; what was refused, or read by a long list, made none.
    assert_eq!(count().await, before + 7);
    let system = "zzzzz-tpzed-000000000000000";
    let expected = [
        ("whole", &*user, "all"),
        ("limited", &user, "GET /arvados/v1/collections/"),
        ("selected", &user, "all"),
        ("given", &user, "all"),
        ("system", system, "GET /"),
        ("inherited", &user, "POST /arvados/v1/api_client_authorizations"),
    ];
    assert_eq!(made.len(), expected.len());
    for (name, user, scope) in expected {
        let known = server.verify(&made[name]).await;
        assert!(known.active, "{name}");
        assert_eq!((known.user_id, known.scopes), (user.to_owned(), vec![scope.to_owned()]));
        let expires_at = known.expires_at.map(|at| at.to_string());
        let end = (name == "limited").then_some("2031-01-02T03:04:05.678901Z");
        assert_eq!(expires_at.as_deref(), end, "{name}");
    }
    driver.finish().await;

    for (name, _, _) in expected {
        let known = server.verify(&made[name]).await;
        let is_kept = ["limited", "given", "inherited"].contains(&name);
        let reason = if is_kept { Reason::Unspecified } else { Reason::Revoked };
        assert_eq!((known.active, known.reason()), (is_kept, reason), "{name}");
    }
    assert_eq!(count().await, before + 7);
    let request = ListApiClientAuthorizationsRequest::default();
    let token = v2(&token);
    let listed = server.authorizations(&token).list_api_client_authorizations(request).await;
    let listed = listed.unwrap().into_inner().items;
    let mut listed: Vec<_> = listed.iter().map(|item| item.uuid()).collect();
    let uuid = |text: &str| text.split('/').nth(1).unwrap().to_owned();
    let mut left = vec![uuid(&token), lists.uuid().to_owned(), makes.uuid().to_owned()];
    left.extend(["limited", "given", "inherited"].map(|name| uuid(&made[name])));
    left.sort();
    listed.sort_unstable();
    assert_eq!(listed, left);
}

/// Many tokens beside this one, more of them of one instant than one page has, and the
/// others by threes, but for the last: where several of one instant end a list, the client
/// gives one of them twice. Nobody knows their secrets.
async fn crowd(server: &TestServer, uuid: &str) {
    let numbers = format!(
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {MANY})"
    );
    let id = "'zzzzz-gj3su-' || CAST(100000000000000 + n.n AS TEXT)";
    server
        .change(&format!(
            "{numbers} INSERT INTO credentials (id, kind, user_id, scopes, sorted_scopes, \
             allowed_ips, created_by_user_id, created_at, updated_at, store_epoch, user_epoch) \
             SELECT {id}, kind, user_id, scopes, sorted_scopes, allowed_ips, created_by_user_id, \
             created_at + CASE WHEN n.n > 1500 THEN n.n / 3 ELSE 0 END, updated_at, store_epoch, \
             user_epoch FROM credentials CROSS JOIN n WHERE id = '{uuid}'; \
             {numbers} INSERT INTO secrets (id, credential_id, record, shown, state, created_at) \
             SELECT 'made-' || n.n, {id}, record, shown, state, created_at \
             FROM secrets CROSS JOIN n WHERE credential_id = '{uuid}'"
        ))
        .await;
}
