use std::{path::PathBuf, sync::Arc};

use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{UnixListener, UnixStream},
    task::{JoinHandle, JoinSet},
};

/// The name of PostgreSQL's socket in its directory.
const SOCKET: &str = ".s.PGSQL.5432";

/// Stands between a server and PostgreSQL, and can be cut.
pub(crate) struct Relay {
    directory: TempDir,
    target: Arc<PathBuf>,
    running: Option<JoinHandle<()>>,
}

impl Relay {
    /// To the database at `url`, with the URL of the way through it.
    pub(crate) fn to(url: &str) -> (Self, String) {
        let (database, host) = url.split_once("?host=").unwrap();
        let directory = tempfile::tempdir().unwrap();
        let through = format!("{database}?host={}", directory.path().display());
        let target = Arc::new(PathBuf::from(host).join(SOCKET));
        let mut relay = Self { directory, target, running: None };
        relay.mend();
        (relay, through)
    }

    /// Ends all connections and takes no new ones.
    pub(crate) async fn cut(&mut self) {
        let running = self.running.take().expect("it is not cut yet");
        running.abort();
        let _ = running.await;
        std::fs::remove_file(self.directory.path().join(SOCKET)).unwrap();
    }

    /// Takes connections again.
    pub(crate) fn mend(&mut self) {
        let listener = UnixListener::bind(self.directory.path().join(SOCKET)).unwrap();
        let target = Arc::clone(&self.target);
        self.running = Some(tokio::spawn(async move {
            // They end with this task.
            let mut connections = JoinSet::new();
            while let Ok((mut from, _)) = listener.accept().await {
                let target = Arc::clone(&target);
                connections.spawn(async move {
                    if let Ok(mut to) = UnixStream::connect(&*target).await {
                        let _ = copy_bidirectional(&mut from, &mut to).await;
                    }
                });
            }
        }));
    }
}
