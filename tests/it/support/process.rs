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
    /// Where it answers HTTP.
    pub(crate) http: Option<SocketAddr>,
    log: Arc<Mutex<String>>,
}

/// The program under test.
pub(crate) fn binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_token-authority"))
}

/// The program with these arguments, to be run or to be started.
pub(crate) fn program(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(binary());
    anywhere(command.args(arguments));
    command
}

/// Has it listen where there is room, for the usual ports may be taken.
fn anywhere(command: &mut Command) -> &mut Command {
    let any = "127.0.0.1:0";
    command.env("TOKEN_AUTHORITY_HTTP_LISTEN", any).env("TOKEN_AUTHORITY_ADMIN_LISTEN", any)
}

impl Process {
    /// Starts the program and waits until it serves; panics with its log if it
    /// does not.
    pub(crate) async fn start(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::spawn(program(arguments)).await
    }

    /// The same of a command that is `serve`, its environment prepared.
    pub(crate) async fn spawn(command: Command) -> Self {
        match Self::try_spawn(command).await {
            Ok(process) => process,
            Err(log) => panic!("the server did not start:\n{log}"),
        }
    }

    /// Starts the program and waits until it serves, or gives what it said
    /// before it stopped.
    async fn try_spawn(mut command: Command) -> Result<Self, String> {
        let mut child = anywhere(&mut command)
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
                    let of = |name| fields[name].as_str().map(|text| text.parse().unwrap());
                    let address: SocketAddr = of("address").unwrap();
                    found.send_replace(Some((address, of("http"))));
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
            Some((address, http)) => Ok(Self { child, address, http, log }),
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

    /// Kills it, as `kill -9` does, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Asks it to stop, and waits until it did so in good order.
    pub(crate) async fn stop(mut self) {
        self.signal("TERM").await;
        let exit = tokio::time::timeout(Duration::from_secs(30), self.child.wait()).await;
        let exit = exit.expect("it stops within its deadline").unwrap();
        assert_eq!(exit.code(), Some(0), "{}", self.log());
    }
}

/// What the program said and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs the program to its end, which comes soon.
pub(crate) async fn run(mut command: Command) -> Run {
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let ended = tokio::time::timeout(Duration::from_secs(20), ended).await;
    let Ok(output) = ended else { panic!("it does not end: {:?}", command.as_std()) };
    let output = output.unwrap();
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
