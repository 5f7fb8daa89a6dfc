//! The clients and libraries that others have published, unmodified, against the service.
//! Each is used by a driver of its own under `tests/sdk`, in its own language.

mod arvados;
mod resource_server;
mod spatio;

use std::{
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::support::server::Place;

/// How long a driver may take to one of its two ends.
const PATIENCE: Duration = Duration::from_mins(2);

/// A driver that has said what it made, and waits for leave to go on.
struct Driver(Child);

impl Driver {
    /// In Python, with the packages of `tests/sdk/requirements.txt`.
    fn python(script: &str) -> Command {
        let mut driver = Command::new(tool("SDK_PYTHON", "sdk-python/run"));
        driver.arg(self::script(script));
        driver
    }

    /// In Node, with the packages of `tests/sdk/package-lock.json`.
    fn node(script: &str) -> Command {
        let mut driver = Command::new("node");
        driver.arg(self::script(script)).env("SDK_NPM", tool("SDK_NPM", "sdk-npm"));
        driver
    }

    /// Starts one that is to know of this world; and what it said.
    async fn start(mut driver: Command, place: &Place, world: &Value) -> (Self, Value) {
        for variable in ["NO_PROXY", "no_proxy"] {
            driver.env(variable, "127.0.0.1,localhost");
        }
        // No settings of whoever runs this.
        driver.env("HOME", place.directory.path()).env("WORLD", world.to_string());
        driver.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut driver = driver.spawn().unwrap();
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let line = timeout(PATIENCE, lines.next_line()).await.expect("it gets half way");
        let said = line.unwrap().expect("the driver says why it has made nothing");
        (Self(driver), serde_json::from_str(&said).unwrap())
    }

    /// Lets it go on, to a good end.
    async fn finish(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").await.unwrap();
        let status = timeout(PATIENCE, self.0.wait()).await.expect("it comes to its end");
        let status = status.unwrap();
        assert!(status.success(), "the driver says what is wrong: {status}");
    }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk").join(name)
}

/// What a variable names, or what `tests/run` left under `target/tools`.
pub(super) fn tool(variable: &str, left: &str) -> PathBuf {
    let left = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools").join(left);
    env::var_os(variable)
        .map(PathBuf::from)
        .or_else(|| left.exists().then_some(left))
        .unwrap_or_else(|| panic!("{variable} is not set: tests/run gets what it names"))
}
