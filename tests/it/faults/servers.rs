//! What becomes of a server: it is killed, or frozen.

use std::time::Instant;

use super::scene::Scene;

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
    for _ in 0..2 {
        scene.servers[1].process.signal("STOP").await;
        scene.outlast_the_bound().await;
        scene.servers[1].process.signal("CONT").await;
        scene.witness.settle().await;
    }
    scene.end("a server frozen", Instant::now()).await;
}
