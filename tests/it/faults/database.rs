//! What becomes of the database: it is killed, replaced by a copy, or restored.

use std::{process::Stdio, time::Instant};

use sqlx::{Connection as _, PgConnection};
use tokio::{process::Command, task::block_in_place};

use super::{
    scene::Scene,
    witness::{BOUND, SOON},
};
use crate::support::{
    postgres::{self, Cluster, Replicated},
    wait::until,
};

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again() {
    let mut cluster = block_in_place(|| Cluster::start(&["fsync=off"]));
    let scene = Scene::start_on(&cluster.empty_database().await, 2, &[]).await;
    block_in_place(|| cluster.kill());
    let faults = || (scene.witness.faults(0), scene.witness.faults(1));
    let before = faults();
    until("all can tell no more", SOON, async || {
        let now = faults();
        now.0 > before.0 + 5 && now.1 > before.1 + 5
    })
    .await;
    let since = Instant::now();
    block_in_place(|| cluster.start_again());
    scene.end("PostgreSQL killed and restarted", since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_by_a_copy_that_has_all() {
    let mut databases = Replicated::start().await;
    databases.synchronize().await;
    let mut scene = Scene::start_on(&databases.primary(), 2, &[]).await;
    let since = Instant::now();
    databases.fail_over().await;
    scene.turn_to(&databases.standby()).await;
    scene.end("fail-over to a synchronous standby", since).await;
}

/// What is lost is reported, and is forgotten everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn replaced_by_a_copy_that_lacks_the_newest_changes() {
    let mut databases = Replicated::start().await;
    let mut scene = Scene::start_on(&databases.primary(), 2, &[]).await;
    scene.witness.loses(true);
    databases.leave_standby_behind().await;
    scene.outlast_the_bound().await;
    scene.witness.all_get_on().await;
    let since = Instant::now();
    databases.fail_over().await;
    scene.turn_to(&databases.standby()).await;
    scene.witness.loses(false);
    scene.reports_a_loss().await;
    scene.end("fail-over to an asynchronous standby", since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restored_as_it_was_before() {
    let scene = Scene::start(2).await;
    let dump = scene.place.path("dump");
    let (database, host) = scene.url.split_once("?host=").unwrap();
    let name = database.rsplit('/').next().unwrap();
    let tool = |program: &str| {
        let mut command = Command::new(postgres::bin().join(program));
        command.args(["-h", host, "-U", "tester", "-d", name]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    };
    scene.witness.loses(true);
    let dumped = tool("pg_dump").args(["--clean", "--if-exists", "-f"]).arg(&dump).status().await;
    assert!(dumped.unwrap().success());
    scene.outlast_the_bound().await;
    scene.witness.all_get_on().await;
    // Who uses the tables meanwhile gives way.
    let restored = tool("psql")
        .env("PGOPTIONS", "-c deadlock_timeout=30s")
        .args(["-q", "--single-transaction", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(&dump)
        .status()
        .await;
    assert!(restored.unwrap().success());
    let since = Instant::now();
    scene.witness.loses(false);
    scene.reports_a_loss().await;
    scene.end("an older dump restored", since).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn those_who_listen_are_thrown_out() {
    let scene = Scene::start(2).await;
    let listening = "FROM pg_stat_activity \
        WHERE datname = current_database() AND query LIKE 'LISTEN%'";
    let mut database = PgConnection::connect(&scene.url).await.unwrap();
    let begun = Instant::now();
    until("the bound is over", SOON, async || {
        let statement = format!("SELECT count(pg_terminate_backend(pid)) {listening}");
        let ended = sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut database).await;
        ended.unwrap();
        begun.elapsed() > 2 * BOUND
    })
    .await;
    let since = Instant::now();
    until("they listen again", SOON, async || {
        scene.place.number(&format!("SELECT count(*) {listening}")).await == 2
    })
    .await;
    scene.end("those who listen thrown out", since).await;
}
