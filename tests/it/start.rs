use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use clap::CommandFactory as _;
use token_authority::{
    config::{self, Cli},
    domain::Pepper,
};

use crate::support::{
    Engine,
    client::Client,
    on_both_stores,
    pki::Authority,
    process::{Process, Run, binary, program, run},
    server::Place,
};

on_both_stores![
    token_that_a_broken_start_left_behind_is_taken,
    token_in_the_bootstrap_file_is_the_administrators,
    migrate_alone_is_enough_for_a_start_that_only_checks,
    migrate_reads_the_file_of_settings,
    store_keeps_its_pepper_and_its_cluster_id,
];

/// Arguments of `serve` on the store of `place`, with a data directory of its own.
fn arguments(place: &Place, data_dir: &str) -> Vec<OsString> {
    let mut arguments = place.arguments();
    let value = 1 + arguments.iter().position(|argument| argument == "--data-dir").unwrap();
    arguments[value] = place.path(data_dir).into();
    arguments
}

fn with(mut arguments: Vec<OsString>, more: &[&str]) -> Vec<OsString> {
    arguments.extend(more.iter().map(OsString::from));
    arguments
}

/// The same arguments without the pepper.
fn without_pepper(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let at = arguments.iter().position(|argument| argument == "--pepper-file").unwrap();
    arguments.drain(at..at + 2);
    arguments
}

/// What `token-authority <what> new` prints.
async fn new(what: &str) -> String {
    let printed = run(program([what, "new"])).await;
    assert_eq!(printed.code, Some(0));
    printed.stdout
}

async fn works(process: &Process, token: &str) -> bool {
    let client = Client::connect(process.address, token).await;
    client.who_am_i().await.is_ok_and(|answer| answer.user.unwrap().handle == "admin")
}

/// The one sentence of a start that was refused.
fn sentence(run: &Run) -> &str {
    assert_eq!(run.code, Some(1), "{run:?}");
    assert_eq!(run.stdout, "");
    let sentence = run.stderr.strip_suffix('\n').expect("a line ends");
    assert!(!sentence.contains('\n'), "more than one line: {sentence}");
    sentence.strip_prefix("token-authority: ").expect("it says who speaks")
}

#[track_caller]
fn assert_names(run: &Run, setting: &str) {
    let sentence = sentence(run);
    assert!(sentence.contains(setting), "{setting} is not named: {sentence}");
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_start_at_once_make_one_store_and_one_administrator() {
    for processes in [2, 2, 2, 3] {
        let place = Place::new(Engine::Postgres).await;
        let names: Vec<String> = (0..processes).map(|number| format!("data-{number}")).collect();
        let started: Vec<_> = names
            .iter()
            .map(|name| tokio::spawn(Process::start(arguments(&place, name))))
            .collect();
        let mut running = Vec::new();
        for started in started {
            running.push(started.await.unwrap());
        }

        let tokens: Vec<String> = names
            .iter()
            .filter_map(|name| fs::read_to_string(place.path(name).join("admin.token")).ok())
            .collect();
        let [token] = &*tokens else { panic!("{} tokens were written", tokens.len()) };
        for process in &running {
            assert!(works(process, token.trim()).await);
        }
        for (query, expected) in [
            ("SELECT count(*) FROM store", 1),
            ("SELECT count(*) FROM revision", 1),
            ("SELECT count(*) FROM peppers", 1),
            ("SELECT count(*) FROM users WHERE handle = 'admin'", 1),
            ("SELECT count(*) FROM users", 2),
            ("SELECT count(*) FROM credentials", 1),
            ("SELECT count(*) FROM secrets", 1),
            ("SELECT count(*) FROM audit", 1),
            ("SELECT count(*) - count(DISTINCT version) FROM _sqlx_migrations", 0),
            ("SELECT count(*) FROM _sqlx_migrations WHERE NOT success", 0),
        ] {
            assert_eq!(place.number(query).await, expected, "{query}");
        }
        for process in running {
            process.stop().await;
        }
    }
}

async fn token_that_a_broken_start_left_behind_is_taken(engine: Engine) {
    let place = Place::new(engine).await;
    let token = new("token").await;
    fs::create_dir(place.path("data")).unwrap();
    fs::write(place.path("data/admin.token"), &token).unwrap();
    let process = Process::start(place.arguments()).await;
    assert!(works(&process, token.trim()).await);
    assert_eq!(place.admin_token(), token.trim());
    process.stop().await;
}

async fn token_in_the_bootstrap_file_is_the_administrators(engine: Engine) {
    let place = Place::new(engine).await;
    let file = place.path("first-token");
    let argument = format!("--bootstrap-token-file={}", file.display());
    let arguments = with(place.arguments(), &[&argument]);
    let quiet = with(arguments.clone(), &["--log=warn"]);

    let good = new("token").await;
    let malformed = good.replacen("pat_", "pat_0", 1);
    fs::write(&file, &malformed).unwrap();
    let refused = run(program(&quiet)).await;
    assert_names(&refused, "bootstrap-token-file");
    assert!(!refused.stderr.contains(malformed.trim()));
    fs::remove_file(&file).unwrap();
    assert_names(&run(program(&quiet)).await, "bootstrap-token-file");

    // Nobody could call with it.
    fs::write(&file, &good).unwrap();
    let other_prefix = with(quiet.clone(), &["--pat-prefix=acme_"]);
    assert_names(&run(program(&other_prefix)).await, "bootstrap-token-file");
    let of_that_prefix = run(program(["token", "new", "--pat-prefix=acme_,pat_"])).await.stdout;
    assert!(of_that_prefix.starts_with("acme_"));

    let process = Process::start(&arguments).await;
    assert!(works(&process, good.trim()).await);
    assert!(!place.path("data/admin.token").exists());
    process.stop().await;

    // Later starts do not look at it.
    fs::write(&file, new("token").await).unwrap();
    let process = Process::start(&arguments).await;
    assert!(works(&process, good.trim()).await);
    process.stop().await;
}

async fn migrate_alone_is_enough_for_a_start_that_only_checks(engine: Engine) {
    let place = Place::new(engine).await;
    let checking = with(place.arguments(), &["--migrate=check"]);
    let setting = match engine {
        Engine::Postgres => "database-url",
        Engine::Sqlite => "data-dir",
    };
    assert_names(&run(program(&checking)).await, setting);

    let migrated = run(program(["migrate".into()].into_iter().chain(store(&place)))).await;
    assert_eq!((migrated.code, &*migrated.stderr), (Some(0), ""));
    assert_eq!(place.number("SELECT count(*) FROM store").await, 0);
    let process = Process::start(&checking).await;
    assert!(works(&process, &place.admin_token()).await);
    process.stop().await;
}

async fn migrate_reads_the_file_of_settings(engine: Engine) {
    let place = Place::new(engine).await;
    let data = place.path("of-the-file");
    let mut settings = format!("data-dir = {data:?}\nmax-calls = 7\n");
    if let Some(url) = &place.database_url {
        settings += &format!("database-url = {url:?}\n");
    }
    fs::write(place.path("settings.toml"), settings).unwrap();
    let config = format!("--config={}", place.path("settings.toml").display());
    let migrated = run(program(["migrate", &config])).await;
    assert_eq!((migrated.code, &*migrated.stderr), (Some(0), ""));
    assert_eq!(data.join("token-authority.db").exists(), engine == Engine::Sqlite);
    if engine == Engine::Postgres {
        assert_eq!(place.number("SELECT count(*) FROM store").await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_store_without_its_pepper_is_refused() {
    let place = Place::new(Engine::Sqlite).await;
    let arguments = without_pepper(place.arguments());
    Process::start(&arguments).await.stop().await;
    fs::remove_file(place.path("data/pepper")).unwrap();
    assert_names(&run(program(&arguments)).await, "data-dir");
    assert!(!place.path("data/pepper").exists(), "another one would prove nothing");
}

/// The arguments of `migrate`, without those of `serve` alone.
fn store(place: &Place) -> Vec<OsString> {
    without_pepper(place.arguments()).split_off(2)
}

async fn store_keeps_its_pepper_and_its_cluster_id(engine: Engine) {
    let place = Place::new(engine).await;
    let arguments = with(place.arguments(), &["--log=warn"]);
    let process = Process::start(place.arguments()).await;
    process.stop().await;

    let other = run(program(with(arguments.clone(), &["--cluster-id=other"]))).await;
    assert_names(&other, "cluster-id");
    assert!(sentence(&other).contains("zzzzz"), "{other:?}");

    let pepper = fs::read_to_string(place.path("pepper-of-test")).unwrap();
    fs::write(place.path("pepper-of-test"), new("pepper").await).unwrap();
    let other = run(program(arguments)).await;
    assert_names(&other, "pepper-file");

    // With both it starts, whichever comes first.
    fs::write(place.path("old-pepper"), pepper).unwrap();
    let argument = format!("--pepper-file={}", place.path("old-pepper").display());
    let process = Process::start(with(place.arguments(), &[&argument])).await;
    assert!(works(&process, &place.admin_token()).await);
    process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgresql_takes_no_pepper_of_the_data_directory() {
    let place = Place::new(Engine::Postgres).await;
    let refused = run(program(without_pepper(place.arguments()))).await;
    assert_names(&refused, "pepper-file");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_process_on_a_data_directory_is_refused() {
    let place = Place::new(Engine::Sqlite).await;
    let first = Process::start(place.arguments()).await;
    assert_names(&run(program(place.arguments())).await, "data-dir");
    let migrate = run(program(["migrate".into()].into_iter().chain(store(&place)))).await;
    assert_names(&migrate, "data-dir");
    assert!(works(&first, &place.admin_token()).await);
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn address_that_is_taken_is_refused() {
    let place = Place::new(Engine::Sqlite).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("--grpc-listen={}", taken.local_addr().unwrap());
    let mut arguments = with(place.arguments(), &[&address, "--log=off"]);
    arguments.remove(1);
    assert_names(&run(program(arguments)).await, "grpc-listen");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_secrets_is_for_its_owner_alone() {
    let place = Place::new(Engine::Sqlite).await;
    let mut command = tokio::process::Command::new("/bin/sh");
    command.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(binary());
    command.args(without_pepper(place.arguments()));
    let process = Process::spawn(command).await;
    assert!(works(&process, &place.admin_token()).await);
    let data = place.path("data");
    assert_eq!(mode(&data), 0o700);
    let names: BTreeSet<String> = fs::read_dir(&data)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["admin.token", "pepper", "token-authority.db", "token-authority.db-wal"] {
        assert!(names.contains(name), "{name} is not among {names:?}");
    }
    for name in names {
        assert_eq!(mode(&data.join(&name)), 0o600, "{name}");
    }
    process.stop().await;
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// A password or the like that must not be in any sentence.
const SECRET: &str = "hunter2";

/// Files that settings name, good and bad.
struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        for number in 1..=5 {
            files.write(&format!("pepper-{number}"), &Pepper::to_file(&[number; 32]));
        }
        let (certificate, key) = Authority::new("one").issue("localhost");
        files.write("good.crt", &certificate);
        files.write("good.key", &key);
        files.write("other.key", &Authority::new("two").issue("localhost").1);
        files.write("garbage", SECRET);
        files.write("short-pepper", &"5ec2e7".repeat(10));
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// `{name}` in a text becomes the path of the file of this name.
    fn fill(&self, text: &str) -> String {
        text.replace('{', &format!("{}/", self.directory.path().display())).replace('}', "")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_setting_is_refused_in_one_sentence_that_names_it() {
    let cases: &[(&str, &[&str])] = &[
        ("--grpc-listen", &["--grpc-listen=nowhere"]),
        ("--grpc-listen", &["--grpc-listen=127.0.0.1"]),
        ("--grpc-listen", &["--grpc-listen=127.0.0.1:65536"]),
        ("grpc-listen", &["--grpc-listen=0.0.0.0:0"]),
        ("grpc-listen", &["--grpc-listen=[::]:0"]),
        ("grpc-listen", &["--grpc-listen=0.0.0.0:0", "--allow-plaintext=false"]),
        ("--allow-plaintext", &["--allow-plaintext=perhaps"]),
        ("--reflection", &["--reflection=1"]),
        ("--cluster-id", &["--cluster-id=ZZZZZ"]),
        ("--cluster-id", &["--cluster-id=zzzz"]),
        ("--cluster-id", &["--cluster-id="]),
        ("--database-wait", &["--database-wait=5"]),
        ("--call-deadline", &["--call-deadline=1y"]),
        ("--call-deadline", &["--call-deadline=99999999999d"]),
        ("--shutdown-deadline", &["--shutdown-deadline=0s"]),
        ("--pat-default-lifetime", &["--pat-default-lifetime=-1d"]),
        ("--pat-max-lifetime", &["--pat-max-lifetime=for ever"]),
        ("--max-pats-per-user", &["--max-pats-per-user=0"]),
        ("--max-calls", &["--max-calls=0"]),
        ("keep-dead", &["--keep-dead=23h"]),
        ("keep-changes", &["--keep-changes=59s"]),
        ("keep-audit", &["--keep-audit=23h"]),
        ("--max-calls", &["--max-calls=1000001"]),
        ("--max-connections", &["--max-connections=99999999999999999999"]),
        ("--max-streams", &["--max-streams=many"]),
        ("--database-connections", &["--database-connections=2"]),
        ("--argon2-memory-kib", &["--argon2-memory-kib=1023"]),
        ("--argon2-memory-kib", &["--argon2-memory-kib=1048577"]),
        ("--argon2-passes", &["--argon2-passes=0"]),
        ("--migrate", &["--migrate=never"]),
        ("--log-format", &["--log-format=xml"]),
        ("log", &["--log=loud"]),
        ("log", &["--log=info,h2=loud"]),
        ("--scope", &["--scope=Read"]),
        ("--scope", &["--scope=admin:all=Everything"]),
        ("--pat-prefix", &["--pat-prefix=PAT_"]),
        ("--pat-prefix", &["--pat-prefix=pat"]),
        ("--pat-prefix", &["--pat-prefix="]),
        ("tls-key", &["--tls-cert={good.crt}"]),
        ("tls-cert", &["--tls-key={good.key}"]),
        ("tls-cert", &["--tls-client-ca={good.crt}"]),
        ("tls-cert", &["--tls-cert={absent}", "--tls-key={good.key}"]),
        ("tls-cert", &["--tls-cert={garbage}", "--tls-key={good.key}"]),
        ("tls-cert", &["--tls-cert={good.crt}", "--tls-key={other.key}"]),
        ("absent", &["--tls-cert={good.crt}", "--tls-key={absent}"]),
        ("garbage", &["--tls-cert={good.crt}", "--tls-key={garbage}"]),
        (
            "garbage",
            &["--tls-cert={good.crt}", "--tls-key={good.key}", "--tls-client-ca={garbage}"],
        ),
        ("pepper-file", &["--pepper-file={absent}"]),
        ("pepper-file", &["--pepper-file={garbage}"]),
        ("pepper-file", &["--pepper-file={short-pepper}"]),
        ("pepper-file", &["--pepper-file={pepper-1},{pepper-1}"]),
        (
            "pepper-file",
            &[
                "--pepper-file={pepper-1},{pepper-2},{pepper-3}",
                "--pepper-file={pepper-4},{pepper-5}",
            ],
        ),
        ("bootstrap-token-file", &["--bootstrap-token-file={garbage}"]),
        ("data-dir", &["--data-dir={garbage}"]),
        ("data-dir", &["--data-dir={garbage}/below"]),
        ("database-url", &["--database-url=postgres://u:hunter2@localhost/n"]),
        ("database-url", &["--database-url=postgres://u@localhost/n?password=hunter2"]),
        ("database-url", &["--database-url=nonsense"]),
        ("database-url-file", &["--database-url-file={absent}"]),
        ("database-url", &["--database-url-file={garbage}", "--pepper-file={pepper-1}"]),
        ("database-url", &["--database-url=postgres://h/n", "--database-url-file={garbage}"]),
        (
            "database-listen-url",
            &[
                "--database-url=postgres://h/n",
                "--database-listen-url=postgres://u:hunter2@localhost/n",
            ],
        ),
        ("database-listen-url", &["--database-listen-url=postgres://h/n"]),
        (
            "database-replica-url",
            &["--database-url=postgres://h/n", "--database-replica-url=nonsense"],
        ),
        (
            "database-replica-url-file",
            &["--database-url=postgres://h/n", "--database-replica-url-file={absent}"],
        ),
        ("config", &["--config={absent}"]),
        ("--frobnicate", &["--frobnicate"]),
        ("--max-calls", &["--max-calls=1", "--max-calls=2"]),
    ];
    let files = Files::new();
    for (setting, arguments) in cases {
        let arguments = arguments.iter().map(|argument| files.fill(argument));
        let refused = run(serve(&files, arguments)).await;
        assert_names(&refused, setting);
        assert_silent(&refused);
    }
}

/// `serve` in a directory of its own, so that no case meets what another left.
fn serve(files: &Files, arguments: impl IntoIterator<Item = String>) -> tokio::process::Command {
    let arguments: Vec<String> = arguments.into_iter().collect();
    let mut command = program(["serve"]);
    command.args(&arguments);
    if !arguments.iter().any(|argument| argument.starts_with("--data-dir")) {
        command.env(
            "TOKEN_AUTHORITY_DATA_DIR",
            tempfile::tempdir_in(&files.directory).unwrap().keep(),
        );
    }
    if !arguments.iter().any(|argument| argument.starts_with("--grpc-listen")) {
        command.env("TOKEN_AUTHORITY_GRPC_LISTEN", "127.0.0.1:0");
    }
    command
}

fn assert_silent(refused: &Run) {
    for secret in [SECRET, "5ec2e7"] {
        assert!(!refused.stderr.contains(secret), "{}", refused.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_variable_of_the_environment_is_refused_alike() {
    let files = Files::new();
    for (setting, variable, value) in [
        ("--max-calls", "MAX_CALLS", "lots"),
        ("--cluster-id", "CLUSTER_ID", "ZZZZZ"),
        ("--reflection", "REFLECTION", "maybe"),
        ("pepper-file", "PEPPER_FILE", "{pepper-1},{pepper-1}"),
        ("config", "CONFIG", "{absent}"),
        ("database-url", "DATABASE_URL", "hunter2"),
        ("database-url", "DATABASE_URL", "postgres://u:hunter2@h:notaport/n"),
        ("database-url", "DATABASE_URL", "postgres://u:hunter2@127.0.0.1:1/n"),
        ("database-listen-url", "DATABASE_LISTEN_URL", "postgres://u:hunter2@h/n"),
        ("database-replica-url", "DATABASE_REPLICA_URL", "postgres://u:hunter2@h/n"),
    ] {
        let mut command = serve(&files, []);
        command.env(format!("TOKEN_AUTHORITY_{variable}"), files.fill(value));
        let refused = run(command).await;
        assert_names(&refused, setting);
        assert_silent(&refused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_file_of_settings_is_refused_alike() {
    let files = Files::new();
    for (named, text) in [
        ("no-such-setting", "no-such-setting = 1"),
        ("max_calls", "max_calls = 1"),
        ("config", "config = \"other.toml\""),
        ("config", "max-calls = "),
        ("config", "max-calls = 1\nmax-calls = 2"),
        ("max-calls", "max-calls = 0"),
        ("max-calls", "max-calls = 1.5"),
        ("max-calls", "max-calls = [1, 2]"),
        ("scope", "scope = [[\"read:*=Read\"]]"),
        ("serve", "[serve]\nmax-calls = 1"),
        ("cluster-id", "cluster-id = true"),
        ("database-url", "database-url = \"postgres://u:hunter2@h:notaport/n\""),
        ("database-url", "database-url = \"postgres://h/n\"\ndatabase-url-file = \"{garbage}\""),
    ] {
        files.write("settings.toml", &files.fill(text));
        let config = format!("--config={}", files.path("settings.toml").display());
        let refused = run(serve(&files, [config])).await;
        assert_names(&refused, named);
        assert_silent(&refused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flag_wins_over_the_environment_and_that_over_the_file() {
    let files = Files::new();
    files.write("settings.toml", "cluster-id = \"aaaaa\"\n");
    for (environment, flag, effective) in [
        (None, None, "aaaaa"),
        (Some("bbbbb"), None, "bbbbb"),
        (None, Some("ccccc"), "ccccc"),
        (Some("bbbbb"), Some("ccccc"), "ccccc"),
    ] {
        let place = Place::new(Engine::Sqlite).await;
        let mut command = program(place.arguments());
        command.arg("--config").arg(files.path("settings.toml"));
        if let Some(value) = environment {
            command.env("TOKEN_AUTHORITY_CLUSTER_ID", value);
        }
        if let Some(value) = flag {
            command.arg("--cluster-id").arg(value);
        }
        let process = Process::spawn(command).await;
        let client = Client::connect(process.address, &place.admin_token()).await;
        let user = client.who_am_i().await.unwrap().user.unwrap();
        assert!(user.id.starts_with(effective), "{} and not {effective}", user.id);
        process.stop().await;
    }
}

/// The settings of `serve`, by the names of their flags.
fn settings() -> BTreeSet<String> {
    let cli = Cli::command();
    let serve = cli.find_subcommand("serve").unwrap();
    serve
        .get_arguments()
        .filter_map(|argument| argument.get_long())
        .map(ToOwned::to_owned)
        .collect()
}

#[test]
fn example_file_names_every_setting_at_a_value_that_it_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("deploy/token-authority.toml")).unwrap();
    let uncommented: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with([' ', '#']) && line.contains(" = "))
        .collect();
    let named: BTreeSet<String> =
        uncommented.iter().map(|line| line.split(" = ").next().unwrap().to_owned()).collect();
    let mut expected = settings();
    expected.remove("config");
    assert_eq!(named, expected);
    let untouched = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count();
    assert_eq!(untouched, 0, "everything in it is commented out");

    // Of the two ways to name a database only one may be used.
    for is_left_out in [(|name: &str| name.ends_with("-url")) as fn(&str) -> bool, |name| {
        name.ends_with("-url-file")
    }] {
        let used =
            uncommented.iter().filter(|line| !line.split(" = ").next().is_some_and(is_left_out));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, used.copied().collect::<Vec<_>>().join("\n")).unwrap();
        let arguments: [OsString; 4] =
            ["token-authority".into(), "serve".into(), "--config".into(), file.path().into()];
        config::read(arguments).unwrap();
    }
}

#[tokio::test]
async fn help_explains_each_setting() {
    let help = run(program(["serve", "--help"])).await;
    assert_eq!((help.code, &*help.stderr), (Some(0), ""));
    for setting in settings() {
        assert!(help.stdout.contains(&format!("--{setting}")), "{setting} is not in the help");
    }
    for command in Cli::command().get_subcommands() {
        for argument in command.get_arguments() {
            let explained = argument.get_help().is_some_and(|help| help.to_string().len() > 3);
            assert!(explained, "{} {}", command.get_name(), argument.get_id());
        }
    }
}
