//! All servers are replaced, one after the other.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::task::JoinSet;
use tonic::{Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use super::{
    scene::Scene,
    witness::{SOON, say},
};
use crate::support::{
    client::{Client, connect},
    wait::until,
};

const CALLERS: usize = 4;

/// A server that is called as long as it says that it serves.
#[derive(Clone)]
struct Called {
    client: Client,
    is_serving: Arc<AtomicBool>,
}

impl Called {
    async fn connect(address: SocketAddr, token: &str) -> Self {
        let channel = connect(address).await;
        let is_serving = Arc::<AtomicBool>::default();
        tokio::spawn(watch(channel.clone(), Arc::clone(&is_serving)));
        until("it serves", SOON, async || is_serving.load(Ordering::SeqCst)).await;
        Self { client: Client::over(channel, token), is_serving }
    }
}

/// Notes what the health service says, until that ends.
async fn watch(channel: Channel, is_serving: Arc<AtomicBool>) {
    let request = HealthCheckRequest::default();
    if let Ok(watched) = HealthClient::new(channel).watch(request).await {
        let mut watched = watched.into_inner();
        while let Ok(Some(told)) = watched.message().await {
            is_serving.store(told.status() == ServingStatus::Serving, Ordering::SeqCst);
        }
    }
    is_serving.store(false, Ordering::SeqCst);
}

/// Calls any of the servers, and another one if a call was not begun.
#[derive(Default)]
struct Careful {
    servers: Mutex<Vec<Called>>,
    turn: AtomicUsize,
    again: AtomicUsize,
}

impl Careful {
    fn add(&self, server: Called) {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).push(server);
    }

    fn next(&self) -> Option<Client> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.retain(|server| server.is_serving.load(Ordering::SeqCst));
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        servers.get(turn % servers.len().max(1)).map(|server| server.client.clone())
    }

    async fn call<T, F>(&self, call: impl Fn(Client) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        loop {
            let client = self.next().expect("one serves");
            match call(client).await {
                Err(status) if was_not_begun(&status) => {
                    self.again.fetch_add(1, Ordering::SeqCst);
                }
                answer => return answer,
            }
        }
    }
}

impl Careful {
    async fn create_and_verify(&self) -> Result<(), Status> {
        let created = self.call(|by| async move { by.create("rolling").await }).await?;
        for _ in 0..5 {
            let text = created.token.clone();
            let told = self.call(|by| {
                let text = text.clone();
                async move { by.verify(&text).await }
            });
            assert!(told.await?.active);
        }
        Ok(())
    }
}

/// Whether a server can't have seen the call: there was no connection, the client had no
/// time to send it, or the server said with GOAWAY that it is none of those it takes.
fn was_not_begun(status: &Status) -> bool {
    let told = format!("{status:?}");
    ["GoAway(b\"\", NO_ERROR, Remote)", "ConnectError", "Canceled"]
        .iter()
        .any(|reason| told.contains(reason))
}

#[tokio::test(flavor = "multi_thread")]
async fn restarted_one_after_the_other() {
    let mut scene = Scene::start(3).await;
    let admin = scene.place.admin_token();
    let careful = Arc::<Careful>::default();
    for server in &scene.servers {
        careful.add(Called::connect(server.process.address, &admin).await);
    }
    let is_over = Arc::<AtomicBool>::default();
    let made = Arc::<AtomicUsize>::default();
    let callers: JoinSet<Vec<Status>> = (0..CALLERS)
        .map(|_| {
            let (careful, is_over, made) =
                (Arc::clone(&careful), Arc::clone(&is_over), Arc::clone(&made));
            async move {
                let mut failed = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    match careful.create_and_verify().await {
                        Ok(()) => _ = made.fetch_add(6, Ordering::SeqCst),
                        Err(status) => failed.push(status),
                    }
                }
                failed
            }
        })
        .collect();
    let more = async || {
        let enough = made.load(Ordering::SeqCst) + 60;
        until("calls are answered", SOON, async || made.load(Ordering::SeqCst) >= enough).await;
    };
    let mut since = Instant::now();
    for server in 0..3 {
        more().await;
        scene.servers[server].process.signal("TERM").await;
        let ended = scene.servers[server].process.child.wait().await.unwrap();
        assert_eq!(ended.code(), Some(0));
        more().await;
        since = Instant::now();
        scene.start_again(server).await;
        let address = scene.servers[server].process.address;
        careful.add(Called::connect(address, &admin).await);
    }
    more().await;
    is_over.store(true, Ordering::SeqCst);
    let failed = callers.join_all().await.concat();
    let (made, again) = (made.load(Ordering::SeqCst), careful.again.load(Ordering::SeqCst));
    say(&format!("rolling restart: {made} calls, {again} of them begun at another server"));
    assert!(failed.is_empty(), "{} failed: {:#?}", failed.len(), failed[0]);
    scene.end("rolling restart", since).await;
}
