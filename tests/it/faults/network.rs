//! What becomes of the way between a server and its database.

use std::time::Instant;

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::task::JoinSet;
use tonic::Code;

use super::{
    scene::Scene,
    witness::{BOUND, SOON},
};
use crate::support::{client::Client, postgres, relay::Relay, wait::until};

/// What asks for changes, and what looks tokens up.
const CHANGES: &str = "LEFT JOIN changes c";
const LOOKUP: &str = "s.digest IN (";

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_until_what_was_on_its_way_arrives() {
    cut_off("a server cut off for a while", Relay::hold).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_with_all_connections_silent_for_ever() {
    cut_off("a server cut off for good", Relay::swallow).await;
}

/// Tokens are revoked elsewhere meanwhile: it says that it can't tell.
async fn cut_off(what: &str, cut: impl Fn(&Relay)) {
    let scene = Scene::start(2).await;
    scene.witness.spare(Some(1)).await;
    let before = scene.witness.faults(1);
    cut(&scene.servers[1].relay);
    scene.outlast_the_bound().await;
    let cant_tell = async || scene.witness.faults(1) > before;
    until("it says that it can't know", SOON, cant_tell).await;
    let since = Instant::now();
    scene.servers[1].relay.release();
    scene.end(what, since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_word_of_what_was_changed() {
    late(CHANGES, "changes told late").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_word_of_a_token() {
    late(LOOKUP, "a token read late").await;
}

/// An answer of the database is on its way while tokens are revoked elsewhere.
async fn late(statement: &'static str, what: &str) {
    let scene = Scene::start(2).await;
    scene.servers[1].relay.hold_answer_to(statement);
    scene.outlast_the_bound().await;
    assert!(scene.servers[1].relay.has_caught());
    let since = Instant::now();
    scene.servers[1].relay.release();
    scene.end(what, since).await;
}

/// Whoever needs a connection is told that there is none, and all else goes on.
#[tokio::test(flavor = "multi_thread")]
async fn all_connections_busy() {
    let url = postgres::empty_database().await;
    let scene = Scene::start_on(&url, 2, &["--database-connections=3"]).await;
    let by = Client::connect(scene.servers[1].process.address, &scene.place.admin_token()).await;
    let mut cold = Vec::new();
    // With so few connections there may be none for it.
    until("tokens are made", SOON, async || {
        cold.extend(by.create("cold").await.map(|made| made.token));
        cold.len() > 20
    })
    .await;
    let kept = cold.pop().unwrap();
    until("one is kept", SOON, async || by.verify(&kept).await.is_ok_and(|told| told.active)).await;

    let mut holder = PgConnection::connect(&url).await.unwrap();
    holder.execute("BEGIN; LOCK TABLE secrets IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut cold: JoinSet<_> = cold
        .into_iter()
        .map(|cold| {
            let by = by.clone();
            async move { by.verify(&cold).await }
        })
        .collect();
    let since = Instant::now();
    while !cold.is_empty() || since.elapsed() < 2 * BOUND {
        assert!(by.verify(&kept).await.unwrap().active);
        while let Some(answer) = cold.try_join_next() {
            let code = answer.unwrap().unwrap_err().code();
            assert!(matches!(code, Code::Unavailable | Code::ResourceExhausted), "{code:?}");
        }
    }
    let since = Instant::now();
    holder.execute("ROLLBACK").await.unwrap();
    scene.end("all connections busy", since).await;
}
