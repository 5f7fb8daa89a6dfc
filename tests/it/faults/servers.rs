//! What becomes of a server: it is killed, or frozen.

use std::time::Instant;

use super::{
    scene::Scene,
    witness::{BOUND, SOON, say},
};
use crate::support::wait::until;

#[tokio::test(flavor = "multi_thread")]
async fn killed_under_load() {
    let mut scene = Scene::start(2).await;
    scene.servers[1].process.signal("KILL").await;
    let _ = scene.servers[1].process.child.wait().await;
    scene.outlast_the_bound().await;
    let since = Instant::now();
    scene.start_again(1).await;
    scene.end("a server killed", since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_while_tokens_are_revoked_elsewhere() {
    let scene = Scene::start(2).await;
    scene.witness.spare(Some(1)).await;
    scene.servers[1].process.signal("STOP").await;
    scene.outlast_the_bound().await;
    // What it is asked when it wakes it is asked before it can have looked.
    scene.servers[1].relay.hold();
    scene.servers[1].process.signal("CONT").await;
    let since = Instant::now();
    until("it is awake", SOON, async || since.elapsed() > BOUND).await;
    let since = Instant::now();
    scene.servers[1].relay.release();
    scene.end("a server frozen", since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_while_it_holds_what_every_change_needs() {
    frozen_after("UPDATE revision SET number", "a server frozen inside a change").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frozen_before_it_knows_of_its_commit() {
    frozen_after("COMMIT", "a server frozen inside a commit").await;
}

/// Freezes a server once it has made such a statement of a change; the change is there or
/// not.
async fn frozen_after(statement: &'static str, what: &str) {
    let scene = Scene::start(2).await;
    let frozen = &scene.servers[1];
    frozen.relay.hold_answer_to(statement);
    until("it is inside a change", SOON, async || frozen.relay.has_caught()).await;
    frozen.process.signal("STOP").await;
    frozen.relay.release();
    scene.witness.spare(Some(1)).await;
    let since = Instant::now();
    scene.witness.changes(5).await;
    say(&format!("{what}: others got on after {:.0} ms", since.elapsed().as_secs_f64() * 1e3));
    scene.outlast_the_bound().await;
    let since = Instant::now();
    frozen.process.signal("CONT").await;
    scene.end(what, since).await;
}
