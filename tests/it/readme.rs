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
    let steps = steps_of(blocks(section("Use")));
    assert!(steps.len() > 10, "the section is found");

    let mut script = String::from("set -euo pipefail\n");
    for step in &steps {
        script += &step.commands;
        script += "\necho '=== next step ==='\n";
    }
    let script = script
        .replace("localhost:50051", &server.address.to_string())
        .replace("localhost:8080", &server.http.unwrap().to_string())
        .replace("token-authority-data", place.path("data").to_str().unwrap());
    let output = bash(&script, place.directory.path()).await;

    let outputs: Vec<&str> = output.split("=== next step ===\n").collect();
    assert_eq!(outputs.len(), steps.len() + 1, "it broke off:\n{output}");
    for (step, output) in steps.iter().zip(outputs) {
        check(step, output);
    }
}

/// That the output of a step says what the README says, in that order.
fn check(step: &Step, output: &str) {
    let mut rest = output;
    for expected in &step.expected {
        let at = rest.find(expected.as_str()).unwrap_or_else(|| {
            panic!("{}\nshould say {expected}, in this order, and said\n{output}", step.commands)
        });
        rest = &rest[at + expected.len()..];
    }
}

#[test]
fn service_of_the_readme_is_the_example() {
    let blocks = blocks(section("In a service written in Rust"));
    let (_, shown) = blocks.iter().find(|(kind, _)| kind == "rust").unwrap();
    let example = include_str!("../../examples/protected.rs");
    let lines =
        |text: &str| text.lines().map(|line| format!("\n{}", line.trim())).collect::<String>();
    assert!(lines(example).contains(&lines(shown)), "{shown}");
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

    let mut server = Command::new("bash")
        .arg("script")
        .current_dir(place.directory.path())
        .env("PATH", path_with_binary())
        .env("TOKEN_AUTHORITY_HTTP_LISTEN", "")
        .env("TOKEN_AUTHORITY_ADMIN_LISTEN", "")
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

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_the_readme_at_the_store_say_what_it_says() {
    let place = Place::new(Engine::Postgres).await;
    let blocks = blocks(section("In production"));
    let (made, commands): (Vec<_>, Vec<_>) =
        steps_of(blocks).into_iter().skip(1).partition(|step| step.expected.is_empty());
    assert_eq!((made.len(), commands.len()), (1, 3), "the commands are found");

    let play = async |commands: &str| {
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", commands])
            .current_dir(place.directory.path())
            .env("PATH", path_with_binary())
            .env("TOKEN_AUTHORITY_DATABASE_URL", place.database_url.as_ref().unwrap())
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        assert!(output.status.success(), "{commands}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    fs::rename(place.path("pepper-of-test"), place.path("pepper")).unwrap();
    play(&made[0].commands).await;
    let mut arguments = vec!["serve".into(), "--grpc-listen=127.0.0.1:0".into()];
    for (setting, file) in
        [("--data-dir", "data"), ("--pepper-file", "pepper"), ("--pepper-file", "pepper-2")]
    {
        arguments.extend([setting.into(), place.path(file).into_os_string()]);
    }
    arguments.extend(["--database-url".into(), place.database_url.clone().unwrap().into()]);
    let server = Process::start(&arguments).await;
    for step in &commands {
        // To make a token it takes the pepper that is current by then.
        let commands = step
            .commands
            .replace("admin-token --pepper-file pepper\n", "admin-token --pepper-file pepper-2\n");
        check(step, &play(&commands).await);
    }
    server.stop().await;
}

/// A block of commands, and what it says of its output.
struct Step {
    commands: String,
    expected: Vec<String>,
}

/// The steps in these blocks: a block `sh`, and after it what its output holds.
fn steps_of(blocks: Vec<(String, String)>) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (kind, text) in blocks {
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

/// What a script says, whose files are in a directory of its own.
async fn bash(script: &str, directory: &Path) -> String {
    let grpcurl = grpcurl();
    let path = grpcurl.parent().unwrap().to_str().unwrap();
    let path = format!("{path}:{}", env::var("PATH").unwrap());
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(script.as_bytes()).unwrap();
    let mut shell = Command::new("bash");
    shell.arg(file.path()).env("PATH", path).current_dir(directory);
    shell.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = shell.output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// `PATH`, with the program in it.
fn path_with_binary() -> String {
    let binary = binary();
    format!("{}:{}", binary.parent().unwrap().display(), env::var("PATH").unwrap())
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
