//! The README's session is played as it stands, with the real grpcurl.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Command;

use crate::support::{Engine, on_both_stores, process::Process, server::Place};

on_both_stores![session_of_the_readme_goes_as_it_says];

async fn session_of_the_readme_goes_as_it_says(engine: Engine) {
    let place = Place::new(engine).await;
    let server = Process::start(place.arguments()).await;
    let steps = steps(include_str!("../../README.md"));
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

/// A block of commands, and what it says of its output.
struct Step {
    commands: String,
    expected: Vec<String>,
}

/// The blocks of the section "Use": `sh`, and after it what its output holds.
fn steps(readme: &str) -> Vec<Step> {
    let section = readme.split("\n## Use\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut steps: Vec<Step> = Vec::new();
    for block in section.split("```").skip(1).step_by(2) {
        let (kind, text) = block.split_once('\n').unwrap();
        match kind {
            "sh" => steps.push(Step { commands: text.to_owned(), expected: Vec::new() }),
            "text" => {
                let lines = text.lines().map(ToOwned::to_owned);
                steps.last_mut().unwrap().expected.extend(lines);
            }
            kind => panic!("a block of kind {kind:?}"),
        }
    }
    steps
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
