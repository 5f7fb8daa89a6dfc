//! The README's session is played as it stands, with the real grpcurl.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
};

use crate::support::{
    Engine, on_both_stores,
    process::{Process, binary},
    server::Place,
};

on_both_stores![session_of_the_readme_goes_as_it_says];

async fn session_of_the_readme_goes_as_it_says(engine: Engine) {
    let place = Place::new(engine).await;
    let server = Process::start(place.arguments()).await;
    let steps = steps();
    assert!(steps.len() > 10, "the section is found");

    let mut script = String::from("set -euo pipefail\n");
    for step in &steps {
        script += &step.commands;
        script += "\necho '=== next step ==='\n";
    }
    let script = script
        .replace("localhost:50051", &server.address.to_string())
        .replace("token-authority-data", place.path("data").to_str().unwrap());
    let output = bash(&script).await;

    let outputs: Vec<&str> = output.split("=== next step ===\n").collect();
    assert_eq!(outputs.len(), steps.len() + 1, "it broke off:\n{output}");
    for (step, output) in steps.iter().zip(outputs) {
        let mut rest = output;
        for expected in &step.expected {
            let at = rest.find(expected.as_str());
            let at = at.unwrap_or_else(|| {
                panic!(
                    "{}\nshould say {expected}, in this order, and said\n{output}",
                    step.commands
                )
            });
            rest = &rest[at + expected.len()..];
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn production_commands_of_the_readme_serve_with_tls() {
    let place = Place::new(Engine::Postgres).await;
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    fs::write(place.path("cert.pem"), key.cert.pem()).unwrap();
    fs::write(place.path("key.pem"), key.signing_key.serialize_pem()).unwrap();
    let commands = &blocks(section("In production"))[0].1;
    let script = commands
        .replace(
            "postgres://token_authority@db.example/token_authority",
            place.database_url.as_ref().unwrap(),
        )
        .replace("0.0.0.0:50051", "127.0.0.1:0")
        .replace("token-authority serve", "exec token-authority serve");
    fs::write(place.path("script"), format!("set -euo pipefail\n{script}")).unwrap();

    let binaries = binary().parent().unwrap().to_owned();
    let mut server = Command::new("bash")
        .arg("script")
        .current_dir(place.directory.path())
        .env("PATH", format!("{}:{}", binaries.display(), env::var("PATH").unwrap()))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut log = BufReader::new(server.stderr.take().unwrap()).lines();
    let mut said = String::new();
    while !said.contains("serving") {
        let line = log.next_line().await.unwrap();
        said += &line.unwrap_or_else(|| panic!("it stopped:\n{said}"));
    }
    assert!(said.contains("tls=true"), "{said}");
}

/// A block of commands, and what it says of its output.
struct Step {
    commands: String,
    expected: Vec<String>,
}

/// The steps of the section "Use": a block `sh`, and after it what its output holds.
fn steps() -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (kind, text) in blocks(section("Use")) {
        match kind.as_str() {
            "sh" => steps.push(Step { commands: text, expected: Vec::new() }),
            "text" => {
                let lines = text.lines().map(ToOwned::to_owned);
                steps.last_mut().unwrap().expected.extend(lines);
            }
            kind => panic!("a block of kind {kind:?}"),
        }
    }
    steps
}

/// A section of the README.
fn section(title: &str) -> &'static str {
    let readme = include_str!("../../README.md");
    let begin = format!("\n## {title}\n");
    readme.split(&begin).nth(1).unwrap().split("\n## ").next().unwrap()
}

/// The fenced blocks of a section, each with its kind.
fn blocks(section: &str) -> Vec<(String, String)> {
    let fenced = section.split("```").skip(1).step_by(2);
    fenced
        .map(|block| block.split_once('\n').unwrap())
        .map(|(kind, text)| (kind.to_owned(), text.to_owned()))
        .collect()
}

async fn bash(script: &str) -> String {
    let grpcurl = grpcurl();
    let directory = grpcurl.parent().unwrap().to_str().unwrap();
    let path = format!("{directory}:{}", env::var("PATH").unwrap());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(script.as_bytes()).unwrap();
    let mut shell = Command::new("bash");
    shell.arg(file.path()).env("PATH", path).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = shell.output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// The real grpcurl; without it the test is red: `tests/run` gets it.
fn grpcurl() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/grpcurl");
    let in_path = || {
        env::split_paths(&env::var_os("PATH")?)
            .map(|directory| directory.join("grpcurl"))
            .find(|program| program.exists())
    };
    env::var_os("GRPCURL")
        .map(PathBuf::from)
        .or_else(|| unpacked.exists().then_some(unpacked))
        .or_else(in_path)
        .map(|program| fs::canonicalize(program).unwrap())
        .expect("grpcurl is installed, or GRPCURL names it: tests/run sees to it")
}
