//! All servers are replaced, one after the other, each at the address where it was.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use token_authority::client::{Client, Error, Options, OwnToken, Question};
use tokio::task::JoinSet;

use super::{authority::SOON, is_kept};
use crate::support::{
    Engine, client,
    process::Process,
    server::{Place, unknown_token},
    wait::until,
};

const CALLERS: usize = 4;

/// An address where nobody listens, out of the range of those that are given to anybody.
fn free_address() -> SocketAddr {
    let mut ports = (10_000 + std::process::id() % 10_000)..32_000;
    let free = ports.find_map(|port| {
        let port = u16::try_from(port).unwrap();
        TcpListener::bind(("127.0.0.1", port)).ok()
    });
    free.expect("a port is free").local_addr().unwrap()
}

async fn serve(place: &Place, listen: &str) -> Process {
    let arguments = place.arguments().into_iter();
    Process::start(
        arguments
            .filter(|given| given != "--grpc-listen=127.0.0.1:0")
            .chain([format!("--grpc-listen={listen}").into()]),
    )
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_call() {
    let place = Place::new(Engine::Postgres).await;
    let mut servers = Vec::new();
    for _ in 0..2 {
        servers.push(serve(&place, &free_address().to_string()).await);
    }
    let admin = client::Client::connect(servers[0].address, &place.admin_token()).await;
    let good = admin.create("rolling").await.unwrap().token;
    let endpoints = servers.iter().map(|server| format!("http://{}", server.address));
    let options = Options::new(endpoints, OwnToken::text(place.admin_token()));
    let client = Client::start(options).unwrap();
    until("it is kept", SOON, async || {
        client.verify(Question::new(&good)).await.unwrap();
        is_kept(&client, &good)
    })
    .await;

    let is_over = Arc::<AtomicBool>::default();
    let made = Arc::<AtomicUsize>::default();
    let callers: JoinSet<Vec<Error>> = (0..CALLERS)
        .map(|_| {
            let (client, good) = (client.clone(), good.clone());
            let (is_over, made) = (Arc::clone(&is_over), Arc::clone(&made));
            async move {
                let mut failed = Vec::new();
                while !is_over.load(Ordering::SeqCst) {
                    for (token, is_good) in [(&good, true), (&unknown_token(), false)] {
                        match client.verify(Question::new(token)).await {
                            Ok(answer) => assert_eq!(answer.identity().is_some(), is_good),
                            Err(error) => failed.push(error),
                        }
                    }
                    made.fetch_add(1, Ordering::SeqCst);
                }
                failed
            }
        })
        .collect();
    let more = async || {
        let enough = made.load(Ordering::SeqCst) + 100;
        until("calls are answered", SOON, async || made.load(Ordering::SeqCst) >= enough).await;
    };
    for server in &mut servers {
        more().await;
        let listen = server.address.to_string();
        server.signal("TERM").await;
        assert_eq!(server.child.wait().await.unwrap().code(), Some(0));
        more().await;
        *server = serve(&place, &listen).await;
    }
    more().await;
    until("it is kept again", SOON, async || is_kept(&client, &good)).await;
    is_over.store(true, Ordering::SeqCst);
    let failed = callers.join_all().await.concat();
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
    client.close().await;
    for server in servers {
        server.stop().await;
    }
}
