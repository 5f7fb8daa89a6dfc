use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use token_authority::domain::Token;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

/// A way to a server on which its answers can get lost.
pub(crate) struct Lossy {
    pub(crate) address: SocketAddr,
    loses_answers: Arc<AtomicBool>,
    /// The bytes that got lost.
    lost: Arc<Mutex<Vec<u8>>>,
    running: JoinHandle<()>,
}

impl Lossy {
    pub(crate) async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let loses_answers = Arc::new(AtomicBool::new(false));
        let lost = Arc::<Mutex<Vec<u8>>>::default();
        let (loses, kept) = (Arc::clone(&loses_answers), Arc::clone(&lost));
        let running = tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (loses, kept) = (Arc::clone(&loses), Arc::clone(&kept));
                connections.spawn(async move {
                    let server = TcpStream::connect(server).await.unwrap();
                    let (mut from_client, mut to_client) = client.into_split();
                    let (mut from_server, mut to_server) = server.into_split();
                    let answers = async move {
                        let mut buffer = [0; 4096];
                        while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                            if loses.load(Ordering::SeqCst) {
                                kept.lock().unwrap().extend_from_slice(&buffer[..count]);
                            } else if to_client.write_all(&buffer[..count]).await.is_err() {
                                break;
                            }
                        }
                    };
                    tokio::join!(answers, tokio::io::copy(&mut from_client, &mut to_server))
                });
            }
        });
        Self { address, loses_answers, lost, running }
    }

    /// From now on no answer arrives.
    pub(crate) fn lose_answers(&self) {
        self.loses_answers.store(true, Ordering::SeqCst);
    }

    /// The token in an answer that got lost, if one has arrived here.
    pub(crate) fn lost_token(&self) -> Option<String> {
        let lost = String::from_utf8_lossy(&self.lost.lock().unwrap()).into_owned();
        let mut places = lost.match_indices("pat_").map(|(at, _)| at);
        places.find_map(|at| {
            let text = lost.get(at..at + 53)?;
            text.parse::<Token>().is_ok().then(|| text.to_owned())
        })
    }

    /// Cuts all connections.
    pub(crate) async fn cut(self) {
        self.running.abort();
        let _ = self.running.await;
    }
}
