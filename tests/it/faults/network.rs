//! What becomes of the way between a server and its database.

use std::time::Instant;

use super::scene::Scene;
use crate::support::relay::Relay;

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
    assert!(scene.witness.faults(1) > before, "it can't know");
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
