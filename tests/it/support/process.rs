use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
};

/// The program itself, as a process of its own that dies with the test.
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_token-authority"))
}

impl Process {
    /// Starts the program and waits until it serves; panics with its log if it
    /// does not.
    pub(crate) async fn start(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        match Self::try_start(arguments).await {
            Ok(process) => process,
            Err(log) => panic!("the server did not start:\n{log}"),
        }
    }

    /// Starts the program and waits until it serves, or gives what it said
    /// before it stopped.
    pub(crate) async fn try_start(
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self, String> {
        let mut child = Command::new(binary())
            .args(arguments)
            .arg("--log-format=json")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (found, mut address) = watch::channel(None);
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let kept = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                let fields = &entry["fields"];
                if fields["message"] == "serving" {
                    let address =
                        fields["address"].as_str().unwrap().parse::<SocketAddr>().unwrap();
                    found.send_replace(Some(address));
                }
                let mut kept = kept.lock().unwrap();
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let served =
            tokio::time::timeout(Duration::from_secs(60), address.wait_for(Option::is_some))
                .await
                .expect("the server says that it serves, or stops, within a minute")
                .ok()
                .and_then(|address| *address);
        match served {
            Some(address) => Ok(Self { child, address, log }),
            None => Err(log.lock().unwrap().clone()),
        }
    }

    /// All that it has logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Sends it a signal, such as `TERM`.
    pub(crate) async fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &id]).status().await.unwrap();
        assert!(status.success());
    }
}
