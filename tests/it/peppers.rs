use std::{
    collections::HashSet,
    ffi::OsString,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use token_authority::{
    domain::{Pepper, PepperId, Peppers},
    hashing::Recovery,
    proto::v1::{CreateUserRequest, VerifyRequest, VerifyResponse, WhoAmIRequest},
    root::RootTokens,
    server::Server,
    store::{Migrate, PoolLimits, Servers, Store, open_postgres, open_sqlite},
    upkeep::{OnReuse, Upkeep},
    verifier::{Encoded, Parts, PepperLoss, Policy, Verifier},
};
use tokio::sync::RwLock;
use tonic::{Code, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use crate::support::{
    Engine,
    client::{Client, connect},
    clock::TestClock,
    on_both_stores,
    process::{Process, Run, program, run},
    server::{Place, TestServer, unknown_token},
    wait,
};

on_both_stores![
    wrong_secrets_with_right_prefixes_reach_no_argon2id,
    tokens_outlive_a_pepper_that_is_declared_lost,
    token_that_is_digested_anew_meanwhile_is_found,
    flood_of_wrong_secrets_locks_nobody_out,
    token_from_the_console_administrates_for_a_day,
    administrator_alone_gets_a_token_from_the_console,
    promoted_pepper_was_loaded_before,
];

/// What a condition may take to come true.
const SOON: Duration = Duration::from_secs(20);

fn id(byte: u8) -> PepperId {
    pepper(byte).id().clone()
}

fn pepper(byte: u8) -> Pepper {
    Pepper::to_file(&[byte; 32]).parse().unwrap()
}

/// A file with the pepper of this byte; that of the test's place has 7.
fn pepper_file(place: &Place, byte: u8) -> String {
    let path = place.path(&format!("pepper-{byte}"));
    fs::write(&path, Pepper::to_file(&[byte; 32]).as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The arguments of a command on the store of `place`, with these peppers.
fn arguments(place: &Place, command: &[&str], peppers: &[u8]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = command.iter().map(OsString::from).collect();
    // Without `serve` and where it listens.
    let mut of_serve = place.arguments().split_off(2).into_iter();
    while let (Some(name), Some(value)) = (of_serve.next(), of_serve.next()) {
        if name != "--pepper-file" {
            arguments.extend([name, value]);
        }
    }
    for byte in peppers {
        arguments.push(format!("--pepper-file={}", pepper_file(place, *byte)).into());
    }
    arguments
}

async fn serve(place: &Place, peppers: &[u8]) -> Process {
    let command = ["serve", "--grpc-listen=127.0.0.1:0"];
    Process::start(arguments(place, &command, peppers)).await
}

async fn command(place: &Place, command: &[&str], peppers: &[u8]) -> Run {
    run(program(arguments(place, command, peppers))).await
}

/// What a command prints that does what it was told.
async fn printed(place: &Place, words: &[&str], peppers: &[u8]) -> String {
    let run = command(place, words, peppers).await;
    assert_eq!((run.code, &*run.stderr), (Some(0), ""), "{words:?}");
    run.stdout
}

#[track_caller]
fn assert_refused(run: &Run, setting: &str, reason: &str) {
    assert_eq!((run.code, &*run.stdout), (Some(1), ""), "{run:?}");
    assert!(run.stderr.starts_with(&format!("token-authority: {setting}: ")), "{run:?}");
    assert!(run.stderr.contains(reason), "{run:?}");
}

/// How many secrets are under the pepper of this byte.
async fn secrets_under(place: &Place, byte: u8) -> i64 {
    let id = id(byte);
    place.number(&format!("SELECT count(*) FROM secrets WHERE pepper_id = '{}'", id.as_str())).await
}

/// A wrong secret, well-formed, that begins as `token` does.
fn wrong(token: &str, number: usize) -> String {
    let signed = format!("{}{number:035}", &token[..12]);
    let mut checksum = crc32fast::hash(signed.as_bytes());
    let mut digits = [0; 6];
    for digit in digits.iter_mut().rev() {
        let alphabet = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        *digit = alphabet[checksum as usize % 62];
        checksum /= 62;
    }
    signed + str::from_utf8(&digits).unwrap()
}

/// What the administrator is told of a token that was shown at `ip`.
async fn verify_from(server: &TestServer, token: &str, ip: &str) -> Result<VerifyResponse, Status> {
    let request = VerifyRequest {
        token: token.to_owned(),
        client_ip: Some(ip.to_owned()),
        ..Default::default()
    };
    Ok(server.verification(&server.admin).verify(request).await?.into_inner())
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
}

async fn open(place: &Place) -> Arc<dyn Store> {
    match &place.database_url {
        Some(url) => {
            let limits = PoolLimits { connections: 16, wait: SOON };
            open_postgres(Servers::at(url), limits, Migrate::Check).await.unwrap()
        }
        None => open_sqlite(&place.path("data"), Migrate::Check).await.unwrap(),
    }
}

async fn wrong_secrets_with_right_prefixes_reach_no_argon2id(engine: Engine) {
    const TASKS: usize = 16;
    // On each of the two stores.
    const COUNT: usize = 20_000;
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let mut tokens = vec![server.admin.clone()];
    for _ in 0..4 {
        tokens.push(server.text_of(&user.id, &[]).await);
    }
    let place = server.stop().await;

    let store = open(&place).await;
    // Another one that is in the store, and is not loaded, is normal as long as
    // nothing is under it.
    let clock = Arc::new(TestClock::new());
    store.note_peppers(&[id(8)], token_authority::clock::Clock::now(&*clock)).await.unwrap();
    let recovery = Arc::new(Recovery::new(1));
    let system = "zzzzz-tpzed-000000000000000".parse().unwrap();
    let (upkeep, _) = Upkeep::start(Arc::clone(&store), clock.clone(), system, OnReuse::Report);
    let cluster_id = "zzzzz".parse().unwrap();
    let parts = Parts {
        store: Arc::clone(&store),
        clock,
        peppers: Arc::new(Peppers::new(vec![pepper(7)]).unwrap()),
        prefixes: vec!["pat_".parse().unwrap()],
        recovery: Arc::clone(&recovery),
        upkeep,
        uses: None,
        loss: PepperLoss::Accepted,
        roots: Arc::new(RootTokens::new(cluster_id, false, vec![], vec![]).unwrap()),
        recoverable: false,
        encode: |_| Encoded { bytes: Vec::new(), id: 0..0, workspace_id: 0..0 },
        policy: Policy {
            max_staleness: Duration::from_secs(2),
            stale_if_error: Duration::ZERO,
            max_age: Duration::ZERO,
            cache_bytes: 1 << 20,
        },
    };
    let verifier = Arc::new(Verifier::new(parts).await.unwrap());
    let verify = async |verifier: &Verifier, token: &str| {
        verifier.authenticate(token, None, "").await.unwrap()
    };
    for token in &tokens {
        assert!(verify(&verifier, token).await.is_some());
    }
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let (verifier, next, tokens) =
                (Arc::clone(&verifier), Arc::clone(&next), tokens.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= COUNT {
                        break;
                    }
                    let token = wrong(&tokens[number % tokens.len()], number);
                    assert!(verify(&verifier, &token).await.is_none());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(recovery.runs(), 0);
    store.close().await;
}

async fn tokens_outlive_a_pepper_that_is_declared_lost(engine: Engine) {
    const TOKENS: u64 = 5;
    let server = TestServer::start(engine).await;
    let user = server.user("alice").await;
    let mut tokens = Vec::new();
    for _ in 0..TOKENS {
        tokens.push(server.text_of(&user.id, &[]).await);
    }
    let place = server.stop().await;
    fs::write(place.path("pepper-of-test"), Pepper::to_file(&[8; 32]).as_bytes()).unwrap();
    let refused = Server::bind(place.settings(&[]), Arc::new(TestClock::new())).await;
    let refused = refused.err().expect("it refuses to start").to_string();
    assert!(refused.starts_with("pepper-file: "), "{refused}");
    assert!(refused.contains(id(7).as_str()), "{refused}");
    let lost = "SELECT count(*) FROM audit WHERE action = 'pepper.lost'";
    assert_eq!(place.number(lost).await, 0);

    let server = TestServer::start_on(place, &["--accept-pepper-loss"]).await;
    assert_eq!(server.place.number(lost).await, 1);
    let is_redigested = async |count: u64| {
        let all = i64::try_from(TOKENS + 1 - count).unwrap();
        wait::until("they are under the new pepper", SOON, async || {
            secrets_under(&server.place, 7).await == all
        })
        .await;
    };
    let admin = Client::over(server.channel.clone(), &server.admin);
    admin.who_am_i().await.unwrap();
    assert_eq!(server.recovery.runs(), 1);
    is_redigested(1).await;
    for token in &tokens {
        assert!(admin.verify(token).await.unwrap().active);
    }
    assert_eq!(server.recovery.runs(), 1 + TOKENS, "each was proved by its record, once");
    is_redigested(1 + TOKENS).await;
    for token in &tokens {
        assert!(admin.verify(token).await.unwrap().active);
        assert!(!admin.verify(&wrong(token, 1)).await.unwrap().active);
    }
    let new = server.text_of(&user.id, &[]).await;
    assert!(admin.verify(&new).await.unwrap().active);
    assert_eq!(server.recovery.runs(), 1 + TOKENS, "each is found by its digest now");

    // It is declared once: from now on the new one is the store's.
    let place = server.stop().await;
    let server = TestServer::start_on(place, &[]).await;
    assert!(server.verify(&new).await.active);
    assert_eq!(server.place.number(lost).await, 1);
    assert_eq!(server.recovery.runs(), 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_store_makes_another_pepper_when_its_own_is_declared_lost() {
    let place = Place::new(Engine::Sqlite).await;
    let plain = ["serve", "--grpc-listen=127.0.0.1:0"];
    let declared = ["serve", "--grpc-listen=127.0.0.1:0", "--accept-pepper-loss"];
    Process::start(arguments(&place, &plain, &[])).await.stop().await;
    fs::remove_file(place.path("data/pepper")).unwrap();
    let process = Process::start(arguments(&place, &declared, &[])).await;
    let warned = process.log().lines().filter(|line| line.contains("given up as lost")).count();
    assert_eq!(warned, 1, "{}", process.log());
    let admin = Client::connect(process.address, &place.admin_token()).await;
    admin.who_am_i().await.unwrap();
    process.stop().await;
    // What was asked for before the stop was written.
    let list = printed(&place, &["pepper", "list"], &[]).await;
    assert!(list.lines().any(|line| line.ends_with(" current 1")), "{list}");
    assert!(list.lines().any(|line| line.ends_with(" other 0")), "{list}");
    let process = Process::start(arguments(&place, &plain, &[])).await;
    let admin = Client::connect(process.address, &place.admin_token()).await;
    admin.who_am_i().await.unwrap();
    process.stop().await;
}

async fn token_that_is_digested_anew_meanwhile_is_found(engine: Engine) {
    // Each proof takes so long that the first is written before the last is done.
    let server = TestServer::start_with(engine, &["--argon2-memory-kib=16384"]).await;
    let user = server.user("alice").await;
    let token = server.text_of(&user.id, &[]).await;
    let place = server.stop().await;
    fs::write(place.path("pepper-of-test"), Pepper::to_file(&[8; 32]).as_bytes()).unwrap();
    let server = Arc::new(TestServer::start_on(place, &["--accept-pepper-loss"]).await);
    server.verification(&server.admin).who_am_i(WhoAmIRequest {}).await.unwrap();
    wait::until("the caller's is digested anew", SOON, async || {
        secrets_under(&server.place, 7).await == 1
    })
    .await;
    let verified: Vec<_> = (1..=16)
        .map(|number| {
            let (server, token) = (Arc::clone(&server), token.clone());
            let ip = format!("192.0.2.{number}");
            tokio::spawn(async move { verify_from(&server, &token, &ip).await.unwrap().active })
        })
        .collect();
    for active in verified {
        assert!(active.await.unwrap());
    }
    Arc::into_inner(server).unwrap().stop().await;
}

async fn flood_of_wrong_secrets_locks_nobody_out(engine: Engine) {
    const TASKS: usize = 32;
    // Each proof takes so long that they wait for each other.
    let server = TestServer::start_with(engine, &["--argon2-memory-kib=16384"]).await;
    let user = server.user("alice").await;
    let known = server.text_of(&user.id, &[]).await;
    let victim = server.text_of(&user.id, &[]).await;
    let place = server.stop().await;
    fs::write(place.path("pepper-of-test"), Pepper::to_file(&[8; 32]).as_bytes()).unwrap();
    let server = Arc::new(TestServer::start_on(place, &["--accept-pepper-loss"]).await);
    assert!(server.verify(&known).await.active);
    wait::until("all but the victim's are digested anew", SOON, async || {
        secrets_under(&server.place, 7).await == 1
    })
    .await;

    let stop = Arc::new(AtomicBool::new(false));
    let refused = Arc::new(AtomicUsize::new(0));
    let flood: Vec<_> = (0..TASKS)
        .map(|task| {
            let (server, victim) = (Arc::clone(&server), victim.clone());
            let (stop, refused) = (Arc::clone(&stop), Arc::clone(&refused));
            tokio::spawn(async move {
                let mut number = task;
                while !stop.load(Ordering::Relaxed) {
                    number += TASKS;
                    match verify_from(&server, &wrong(&victim, number), "192.0.2.1").await {
                        Ok(answer) => assert!(!answer.active),
                        Err(status) => {
                            assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
                            assert_eq!(reason(&status), "HASHING_BUSY");
                            refused.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            })
        })
        .collect();
    wait::until("the flood is refused", SOON, async || refused.load(Ordering::Relaxed) > 100).await;
    let runs = server.recovery.runs();
    for _ in 0..20 {
        assert!(verify_from(&server, &known, "192.0.2.1").await.unwrap().active);
        server.text_of(&user.id, &[]).await;
    }
    assert!(server.recovery.runs() > runs, "the flood goes on");
    let mut tries = 0;
    loop {
        tries += 1;
        match verify_from(&server, &victim, "192.0.2.2").await {
            Ok(answer) => {
                assert!(answer.active, "the owner is told no");
                break;
            }
            Err(status) => assert_eq!(reason(&status), "HASHING_BUSY"),
        }
        assert!(tries < 10, "the owner is locked out");
    }
    stop.store(true, Ordering::Relaxed);
    for task in flood {
        task.await.unwrap();
    }
    Arc::into_inner(server).unwrap().stop().await;
}

/// Processes on one store that a balancer spreads calls over: one that is to stop
/// gets no more of them first.
#[derive(Default)]
struct Balanced(RwLock<Vec<Client>>);

impl Balanced {
    async fn add(&self, process: &Process, token: &str) {
        let client = Client::connect(process.address, token).await;
        self.0.write().await.push(client);
    }

    async fn remove_first(&self) {
        self.0.write().await.remove(0);
    }
}

/// Replaces the processes, one after the other, by such that hold these peppers.
async fn roll(
    place: &Place,
    balanced: &Balanced,
    processes: &mut Vec<Process>,
    token: &str,
    peppers: &[u8],
) {
    for _ in 0..processes.len() {
        balanced.remove_first().await;
        processes.remove(0).stop().await;
        let process = serve(place, peppers).await;
        balanced.add(&process, token).await;
        processes.push(process);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pepper_is_replaced_under_load_and_no_verification_fails() {
    const TOKENS: usize = 40;
    const TASKS: usize = 4;
    let place = Place::new(Engine::Postgres).await;
    let mut processes = Vec::new();
    let balanced = Arc::new(Balanced::default());
    let mut admin = String::new();
    for _ in 0..3 {
        let process = serve(&place, &[7]).await;
        admin = place.admin_token();
        balanced.add(&process, &admin).await;
        processes.push(process);
    }
    let mut tokens = Vec::new();
    let maker = Client::connect(processes[0].address, &admin).await;
    for _ in 0..TOKENS {
        tokens.push(maker.create("rotated").await.unwrap().token);
    }
    drop(maker);
    place
        .sql(
            "CREATE TABLE redigested (secret_id TEXT NOT NULL); \
             CREATE FUNCTION note_redigested() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO redigested VALUES (NEW.id); RETURN NULL; END $$; \
             CREATE TRIGGER redigested AFTER UPDATE OF digest ON secrets \
             FOR EACH ROW EXECUTE FUNCTION note_redigested()",
        )
        .await;

    let stop = Arc::new(AtomicBool::new(false));
    let verified = Arc::new(AtomicUsize::new(0));
    let load: Vec<_> = (0..TASKS)
        .map(|task| {
            let (balanced, tokens) = (Arc::clone(&balanced), tokens.clone());
            let (stop, verified) = (Arc::clone(&stop), Arc::clone(&verified));
            tokio::spawn(async move {
                let mut number = task;
                while !stop.load(Ordering::Relaxed) {
                    // Held as long as the call is under way.
                    let clients = balanced.0.read().await;
                    let client = &clients[number % clients.len()];
                    let answer = client.verify(&tokens[number % TOKENS]).await;
                    assert!(answer.as_ref().is_ok_and(|answer| answer.active), "{answer:?}");
                    verified.fetch_add(1, Ordering::Relaxed);
                    number += 1;
                }
            })
        })
        .collect();

    let (old, new) = (id(7), id(8));
    roll(&place, &balanced, &mut processes, &admin, &[7, 8]).await;
    let list = printed(&place, &["pepper", "list"], &[]).await;
    let secrets = TOKENS + 1;
    assert_eq!(list, format!("{} current {secrets}\n{} other 0\n", old.as_str(), new.as_str()));

    let promoted = printed(&place, &["pepper", "promote"], &[8]).await;
    let left: usize = promoted
        .strip_prefix(&format!("{} is current; secrets under others: ", new.as_str()))
        .unwrap_or_else(|| panic!("{promoted}"))
        .trim_end()
        .parse()
        .unwrap();
    assert!(left <= secrets);
    wait::until("all are under the new pepper", SOON, async || secrets_under(&place, 7).await == 0)
        .await;
    roll(&place, &balanced, &mut processes, &admin, &[8]).await;
    let before = verified.load(Ordering::Relaxed);
    wait::until("each is verified once more", SOON, async || {
        verified.load(Ordering::Relaxed) > before + 3 * TOKENS
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }

    let list = printed(&place, &["pepper", "list"], &[]).await;
    assert_eq!(list, format!("{} other 0\n{} current {secrets}\n", old.as_str(), new.as_str()));
    let counted = "SELECT count(*) FROM redigested";
    assert_eq!(place.number(counted).await, i64::try_from(secrets).unwrap());
    let twice = "SELECT count(*) - count(DISTINCT secret_id) FROM redigested";
    assert_eq!(place.number(twice).await, 0);
    let audited = "SELECT count(*) FROM audit WHERE action = 'pepper.promote'";
    assert_eq!(place.number(audited).await, 1);
    for process in processes {
        process.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn process_without_the_promoted_pepper_says_no_to_nothing_and_makes_nothing() {
    let place = Place::new(Engine::Postgres).await;
    let forgotten = serve(&place, &[7]).await;
    let admin = Client::connect(forgotten.address, &place.admin_token()).await;
    let known = admin.create("known").await.unwrap().token;
    serve(&place, &[7, 8]).await.stop().await;
    assert!(!admin.verify(&unknown_token()).await.unwrap().active);
    printed(&place, &["pepper", "promote"], &[8]).await;

    let health = async |process: &Process| {
        let request = HealthCheckRequest { service: String::new() };
        let mut client = HealthClient::new(connect(process.address).await);
        client.check(request).await.unwrap().into_inner().status()
    };
    wait::until("it is out of service", SOON, async || {
        health(&forgotten).await == ServingStatus::NotServing
    })
    .await;
    assert!(admin.verify(&known).await.unwrap().active);
    for refused in [
        admin.verify(&unknown_token()).await.unwrap_err(),
        admin.create("another").await.unwrap_err(),
        Client::connect(forgotten.address, &unknown_token()).await.who_am_i().await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
        assert_eq!(reason(&refused), "PEPPER_MISSING");
    }
    let log = forgotten.log();
    let said = log.lines().filter(|line| line.contains(id(8).as_str())).count();
    assert_eq!(said, 1, "{log}");
    forgotten.stop().await;

    let restarted = serve(&place, &[7, 8]).await;
    assert_eq!(health(&restarted).await, ServingStatus::Serving);
    let admin = Client::connect(restarted.address, &place.admin_token()).await;
    assert!(!admin.verify(&unknown_token()).await.unwrap().active);
    assert!(admin.verify(&known).await.unwrap().active);
    admin.create("another").await.unwrap();
    restarted.stop().await;
}

/// The old pepper may be gone though secrets are under it, and is not declared lost.
#[tokio::test(flavor = "multi_thread")]
async fn process_without_an_old_pepper_proves_by_record_and_leaves_the_digest() {
    let place = Place::new(Engine::Postgres).await;
    serve(&place, &[7, 8]).await.stop().await;
    printed(&place, &["pepper", "promote"], &[8]).await;
    let process = serve(&place, &[8]).await;
    let admin = Client::connect(process.address, &place.admin_token()).await;
    for _ in 0..3 {
        admin.who_am_i().await.unwrap();
    }
    process.stop().await;
    assert_eq!(secrets_under(&place, 7).await, 1);
}

/// The commands make no store, and bring none up to date.
fn assert_no_store(run: &Run, engine: Engine) {
    match engine {
        Engine::Postgres => assert_refused(run, "database-url", "token-authority migrate"),
        Engine::Sqlite => assert_refused(run, "data-dir", "is not there"),
    }
}

async fn promoted_pepper_was_loaded_before(engine: Engine) {
    let place = Place::new(engine).await;
    let list = command(&place, &["pepper", "list"], &[]).await;
    let promote = command(&place, &["pepper", "promote"], &[8]).await;
    for empty in [list, promote] {
        assert_no_store(&empty, engine);
    }
    serve(&place, &[7]).await.stop().await;
    let refused = command(&place, &["pepper", "promote"], &[8]).await;
    assert_refused(&refused, "pepper-file", "start all of them with it first");
    for peppers in [&[][..], &[7, 8]] {
        let refused = command(&place, &["pepper", "promote"], peppers).await;
        assert_refused(&refused, "pepper-file", "the one pepper");
    }
    let said = printed(&place, &["pepper", "promote"], &[7]).await;
    assert_eq!(said, format!("{} is current; secrets under others: 0\n", id(7).as_str()));

    let process = serve(&place, &[7, 8]).await;
    if engine == Engine::Sqlite {
        let refused = command(&place, &["pepper", "list"], &[]).await;
        assert_refused(&refused, "data-dir", "another process has the data directory open");
    }
    process.stop().await;
    let said = printed(&place, &["pepper", "promote"], &[8]).await;
    assert_eq!(said, format!("{} is current; secrets under others: 1\n", id(8).as_str()));

    // The file of settings is for the commands too.
    let file = place.path("settings.toml");
    let data = place.path("data");
    let mut settings = format!("data-dir = {data:?}\ngrpc-listen = \"127.0.0.1:1\"\n");
    if let Some(url) = &place.database_url {
        settings += &format!("database-url = {url:?}\n");
    }
    fs::write(&file, settings).unwrap();
    let listed = run(program(["pepper".into(), "list".into(), "--config".into(), file])).await;
    let expected = format!("{} other 1\n{} current 0\n", id(7).as_str(), id(8).as_str());
    assert_eq!(listed.stdout, expected, "{listed:?}");
}

async fn token_from_the_console_administrates_for_a_day(engine: Engine) {
    let place = Place::new(engine).await;
    serve(&place, &[7]).await.stop().await;
    let said = printed(&place, &["admin-token"], &[7]).await;
    let token = said.trim();
    assert_eq!(said, format!("{token}\n"));

    let process = serve(&place, &[7]).await;
    let client = Client::connect(process.address, token).await;
    let me = client.who_am_i().await.unwrap();
    assert_eq!(me.user.unwrap().handle, "admin");
    assert_eq!(me.scopes, ["admin:all"]);
    let (made, ends) = (me.created_at.unwrap(), me.expires_at.unwrap());
    assert_eq!((ends.seconds - made.seconds, ends.nanos), (86_400, made.nanos));
    let request = CreateUserRequest { handle: "made-by-it".to_owned(), ..Default::default() };
    client.directory().create_user(request).await.unwrap();
    let audited = format!(
        "SELECT count(*) FROM audit WHERE action = 'credential.break_glass' \
         AND caller_user_id = 'zzzzz-tpzed-000000000000000' AND caller_token_id IS NULL \
         AND targets = '[\"{}\"]'",
        me.token_id
    );
    assert_eq!(place.number(&audited).await, 1);
    assert_eq!(
        place.number("SELECT count(*) FROM credentials WHERE name = 'break-glass'").await,
        1
    );
    assert!(!process.log().contains(token));
    process.stop().await;
    assert!(!is_in_a_file(place.directory.path(), token.as_bytes()));
}

fn is_in_a_file(directory: &Path, text: &[u8]) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_in_a_file(&path, text);
        }
        fs::read(path).unwrap().windows(text.len()).any(|window| window == text)
    })
}

async fn administrator_alone_gets_a_token_from_the_console(engine: Engine) {
    let place = Place::new(engine).await;
    let empty = command(&place, &["admin-token"], &[7]).await;
    assert_no_store(&empty, engine);
    let server = TestServer::start_on(place, &[]).await;
    server.user("nobody").await;
    let second = server.administrator("second").await;
    let place = server.stop().await;
    place.sql("UPDATE users SET external_id = 'ext-2' WHERE handle = 'second'").await;

    let mut owners = HashSet::new();
    let by_id = second.id.as_str();
    for user in [by_id, "handle:second", "external:ext-2", "handle:admin"] {
        owners.insert(printed(&place, &["admin-token", "--user", user], &[7]).await);
    }
    assert_eq!(owners.len(), 4, "each is a token of its own");
    let of_second = format!(
        "SELECT count(*) FROM credentials WHERE name = 'break-glass' AND user_id = '{by_id}'"
    );
    assert_eq!(place.number(&of_second).await, 3);

    let system = "zzzzz-tpzed-000000000000000";
    place.sql("UPDATE users SET is_active = FALSE WHERE handle = 'admin'").await;
    for user in ["handle:nobody", "handle:admin", "handle:unknown", system] {
        let refused = command(&place, &["admin-token", "--user", user], &[7]).await;
        assert_refused(&refused, "user", "is no active administrator");
    }
    // The oldest that is active.
    printed(&place, &["admin-token"], &[7]).await;
    assert_eq!(place.number(&of_second).await, 4);
    let other = command(&place, &["admin-token"], &[8]).await;
    assert_refused(&other, "pepper-file", id(7).as_str());
}
