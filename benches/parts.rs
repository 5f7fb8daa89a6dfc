//! What the parts of an answer cost, each by itself: CPU time and allocations.
//!
//!     cargo bench --bench parts [-- PARTS…]
//!
//! A part is chosen by a piece of its name. Without `--bench`, as `cargo test` has it,
//! each is done once, so that it can't rot.
//!
//! Most parts are private to the library: their files are compiled into this program as
//! they stand. What needs more around it is not reached: HTTP/2, the gate, and the framing
//! of an answer (`grpc/at_once.rs`); a profile of the server shows them.
//! Each part is in the processor's caches here, as it may not be in a server. Allocations
//! are counted by an allocator that counts, which costs some nanoseconds for each.
#![expect(
    clippy::unwrap_used,
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "a benchmark; of the files beside, the library uses the rest"
)]

#[path = "../src/clock.rs"]
mod clock;
#[path = "../src/verifier/entry.rs"]
mod entry;
#[path = "../src/verifier/history.rs"]
mod history;
#[path = "../src/keeping/mod.rs"]
mod keeping;
#[path = "../src/verifier/key.rs"]
mod key;
#[path = "../src/grpc/wire/question.rs"]
mod question;
#[path = "../src/grpc/wire/reader.rs"]
mod reader;

use std::{
    array, env,
    hint::black_box,
    io::{Write as _, stdout},
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use prost::Message as _;
use rustix::time::{ClockId, clock_gettime};
use token_authority::{
    caller, client,
    config::{self, Command},
    domain::{
        self, ClusterId, Found, Kind, Pepper, Requirement, Revision, Timestamp, Token, TokenRef,
    },
    error,
    hashing::Hasher,
    proto, random, rights,
    server::Server,
    store,
    verifier::{Answer, Consistency, Outcome},
};
use tokio::runtime::Runtime;

use clock::{Clock as _, SystemClock, uptime};
use entry::{Encoded, Entry, Member};
use history::{History, ReadAt};
use keeping::{
    cache::{Cache, second},
    key::{Key, Keys},
    slots::Depends,
};
use proto::v1::{VerifyRequest, VerifyResponse};
use question::Question;

/// How many batches there are, and how long one lasts at least.
const BATCHES: usize = 41;
const BATCH: Duration = Duration::from_millis(2);

/// How many tokens are kept where there are many.
const MANY: usize = 100_000;

/// Measures, and prints what came of it.
struct Bench {
    wanted: Vec<String>,
    is_test: bool,
}

impl Bench {
    fn from_arguments() -> Self {
        let is_test = !env::args().any(|argument| argument == "--bench");
        let wanted = env::args().skip(1).filter(|argument| !argument.starts_with("--"));
        Self { wanted: wanted.collect(), is_test }
    }

    /// Does `part` again and again.
    fn measure<T>(&self, name: &str, mut part: impl FnMut() -> T) {
        if !self.wanted.is_empty() && !self.wanted.iter().any(|wanted| name.contains(wanted)) {
            return;
        }
        // What is done for the first time may allocate.
        let mut counted = || allocation_counter::measure(|| drop(black_box(part()))).count_total;
        let allocations = (0..3).map(|_| counted()).min().unwrap();
        if self.is_test {
            return;
        }
        let mut batch = |times: u64| {
            let before = cpu_time();
            (0..times).for_each(|_| drop(black_box(part())));
            cpu_time() - before
        };
        let mut times = 1;
        while batch(times) < BATCH {
            times *= 2;
        }
        let mut nanos: [f64; BATCHES] =
            array::from_fn(|_| batch(times).as_nanos() as f64 / times as f64);
        nanos.sort_by(f64::total_cmp);
        let [low, middle, high] = [1, 2, 3].map(|quarter| nanos[BATCHES * quarter / 4]);
        say(&format!(
            "{name:<52} {middle:>9.1} ns {:>19} {allocations:>6}",
            format!("{low:.1} – {high:.1}")
        ));
    }
}

fn main() {
    let bench = Bench::from_arguments();
    if !bench.is_test {
        say(&format!("{:<52} {:>12} {:>19} {:>6}", "part", "median", "quartiles", "allocations"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokens(&bench);
    kept(&bench);
    verdicts(&bench);
    messages(&bench);
    whole(&bench, &runtime);
    client(&bench);
    secrets(&bench, &runtime);
}

/// From text to a token, and to what it is looked up by.
fn tokens(bench: &Bench) {
    let good = token(0);
    let misspelt =
        format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { 1 } else { 0 });
    bench.measure("token: shape and checksum", || TokenRef::parse(black_box(&good)).is_some());
    bench.measure("token: wrong checksum", || TokenRef::parse(black_box(&misspelt)).is_some());
    bench.measure("token: no shape", || TokenRef::parse(black_box("not a token at all")).is_some());
    let keys = Keys::new();
    let parsed = TokenRef::parse(&good).unwrap();
    bench.measure("token: keyed hash", || keys.of_token(black_box(&parsed)));
}

/// What is kept, and whether it holds.
fn kept(bench: &Bench) {
    let history = History::new(Revision { number: 1, mark: 1 }, uptime());
    let found = found(3);
    let (read, depends) = (ReadAt { revision: 1, era: 0 }, history.on_credential(&found));
    let entry = || Entry::of(&found, encoded(&found), read, depends, None);
    let keys = Keys::new();
    let second = second(uptime());
    for (name, count) in [("cache: hit, one kept", 1), ("cache: hit, 100,000 kept, any", MANY)] {
        let cache = Cache::new(usize::MAX / 2);
        let all: Vec<Key> = (0..count).map(|row| keys.of(&[&token(row)])).collect();
        for key in &all {
            cache.keep(*key, entry(), second);
        }
        let guard = cache.guard();
        let mut at = 0;
        bench.measure(name, || {
            // By a prime, so that the next is somewhere else.
            at = (at + 7_919) % count;
            cache.get(&all[at], second, &guard).is_some()
        });
    }
    let cache: Cache<Entry> = Cache::new(usize::MAX / 2);
    let (key, guard) = (keys.of(&["nobody's"]), cache.guard());
    bench.measure("cache: miss", || cache.get(black_box(&key), second, &guard).is_some());
    bench.measure("cache: guard", || drop(black_box(cache.guard())));
    let members: Cache<Member> = Cache::new(usize::MAX / 2);
    let used = AtomicU32::new(0);
    members.keep(key, Member { is_member: true, read, depends: Depends::default(), used }, second);
    let guard = members.guard();
    bench.measure("cache: membership, key and hit", || {
        let key = keys.of_member(key, key::Membership::Serves, black_box(WORKSPACE));
        members.get(&key, second, &guard).is_some()
    });

    let entry = entry();
    let now = uptime();
    bench.measure("entry: holds", || black_box(&entry).holds(black_box(&history), now));
    bench.measure("entry: what is applied", || history.applied().revision.number);
    bench.measure("clock: time since the start", uptime);
    let clock = SystemClock::new();
    bench.measure("clock: now", || clock.now());
}

/// Whether a token may be used for what is required.
fn verdicts(bench: &Bench) {
    let now = Timestamp::from_micros(1_800_000_000_000_000).unwrap();
    for (held, required) in [(3, 0), (3, 3), (50, 1), (50, 8)] {
        let found = found(held);
        let scopes = found.credential.scopes.clone();
        let mut requirement = Requirement::default();
        // The last ones, which are found last.
        for scope in &scopes[held - required..] {
            requirement.require(scope).unwrap();
        }
        bench.measure(&format!("verdict: {required} of {held} scopes required"), || {
            black_box(&found).verdict(black_box(&requirement), now)
        });
    }
}

/// Questions and answers, by hand and by the generated code.
fn messages(bench: &Bench) {
    let plain = VerifyRequest { token: token(0), ..Default::default() };
    let scopes = VerifyRequest {
        required_scopes: found(8).credential.scopes,
        workspace_id: Some(WORKSPACE.to_owned()),
        client_ip: Some("10.0.0.1".to_owned()),
        ..plain.clone()
    };
    let long = |length: usize| VerifyRequest {
        request_method: Some("GET".to_owned()),
        request_path: Some("/arvados/v1/".repeat(length / 12)),
        ..plain.clone()
    };
    for (name, request) in [
        ("a token", &plain),
        ("8 scopes, workspace, address", &scopes),
        ("a path of 8 KiB", &long(8 * 1024)),
        ("60 KiB", &long(60 * 1024)),
    ] {
        let message = request.encode_to_vec();
        bench.measure(&format!("question: decode, {name}"), || {
            Question::decode(black_box(&message)).is_some()
        });
        bench.measure(&format!("question: decode and check, {name}"), || {
            Question::decode(black_box(&message)).and_then(|q| Some(q.requirement()?.scopes.len()))
        });
        bench.measure(&format!("  the same by generated code, {name}"), || {
            VerifyRequest::decode(black_box(&message[..])).is_ok()
        });
    }
    let (found, revision) = (found(3), Revision { number: 1_000, mark: i64::MAX });
    let kept = encoded(&found).bytes;
    let text = revision.to_string();
    bench.measure("answer: kept bytes and revision, one buffer", || {
        let mut out = Vec::with_capacity(5 + kept.len() + 3 + text.len());
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(black_box(&kept));
        out.extend_from_slice(black_box(text.as_bytes()));
        out
    });
    let answer = VerifyResponse::decode(&kept[..]).unwrap();
    bench.measure("  encode by generated code", || black_box(&answer).encode_to_vec());
}

/// All of it, for a token that is kept, as a call on a connection has it.
fn whole(bench: &Bench, runtime: &Runtime) {
    let directory = tempfile::tempdir().unwrap();
    let arguments = [
        "token-authority".to_owned(),
        "serve".to_owned(),
        "--grpc-listen=127.0.0.1:0".to_owned(),
        "--http-listen=".to_owned(),
        "--admin-listen=".to_owned(),
        // Nothing else runs here while it is measured, so nothing is confirmed.
        "--max-staleness=1h".to_owned(),
        format!("--data-dir={}", directory.path().display()),
    ];
    let Command::Serve(settings) = config::read(arguments.map(Into::into)).unwrap().command else {
        unreachable!("the first argument is serve");
    };
    let clock = Arc::new(token_authority::clock::SystemClock::new());
    let (verifier, admin) = runtime.block_on(async {
        let server = Server::bind(*settings, clock).await.unwrap();
        let admin = std::fs::read_to_string(directory.path().join("admin.token")).unwrap();
        let (verifier, admin) = (server.verifier(), admin.trim().to_owned());
        let asker = verifier.asker(&admin, None, "bench").await.unwrap().unwrap();
        let required = Requirement::default();
        let asked = verifier.verify(&admin, &required, &asker, Consistency::default());
        assert!(matches!(asked.await.unwrap().answer, Answer::Active(_)));
        (verifier, admin)
    });
    let address = Some("127.0.0.1".parse().unwrap());
    let client_ip = Some("127.0.0.1".to_owned());
    let message =
        VerifyRequest { token: admin.clone(), client_ip, ..Default::default() }.encode_to_vec();
    bench.measure("look: made", || drop(black_box(verifier.look())));
    let look = verifier.look().unwrap();
    bench.measure("look: who asks", || look.asker(black_box(&admin), address).is_some());
    // The same one, or each would be a use to be noted.
    let required = Requirement { client_ip: address, ..Requirement::default() };
    bench.measure("look: the answer", || look.outcome(black_box(&admin), &required).is_some());
    bench.measure("look: counting it", || look.count(black_box(&Outcome::Unknown)));
    drop(look);
    bench.measure("all: look, who asks, question, answer", || {
        let look = verifier.look()?;
        let asker = look.asker(black_box(&admin), address).filter(|asker| asker.may_verify())?;
        let question = Question::decode(black_box(&message))?;
        let mut requirement = question.requirement()?;
        asker.ask(&mut requirement);
        let outcome = look.outcome(question.token, &requirement)?;
        look.count(&outcome);
        Some(())
    });
}

/// An answer that the client keeps.
fn client(bench: &Bench) {
    // What is watched goes on meanwhile.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let arguments = [
        "token-authority".to_owned(),
        "serve".to_owned(),
        "--grpc-listen=127.0.0.1:0".to_owned(),
        "--http-listen=".to_owned(),
        "--admin-listen=".to_owned(),
        format!("--data-dir={}", directory.path().display()),
    ];
    let Command::Serve(settings) = config::read(arguments.map(Into::into)).unwrap().command else {
        unreachable!("the first argument is serve");
    };
    let clock = Arc::new(token_authority::clock::SystemClock::new());
    let (client, admin) = runtime.block_on(async {
        let server = Server::bind(*settings, clock).await.unwrap();
        let address = server.address();
        let admin = std::fs::read_to_string(directory.path().join("admin.token")).unwrap();
        let admin = admin.trim().to_owned();
        tokio::spawn(server.serve(std::future::pending()));
        let own = client::OwnToken::text(admin.clone());
        // As long as each is measured, it is fresh.
        let options = client::Options::new([format!("http://{address}")], own)
            .max_staleness(Duration::from_secs(3_600));
        let client = client::Client::start(options).unwrap();
        while client.kept(client::Question::new(&admin)).unwrap().is_none() {
            let _ = client.verify(client::Question::new(&admin)).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        (client, admin)
    });
    let question = client::Question::new(&admin);
    bench.measure("client: kept", || client.kept(black_box(question)).unwrap().is_some());
    let question = question.scopes(&["read:notes", "write:notes"]);
    bench.measure("client: kept, 2 scopes required", || {
        client.kept(black_box(question)).unwrap().is_some()
    });
}

/// What a miss, and what issuing a token takes.
fn secrets(bench: &Bench, runtime: &Runtime) {
    let pepper: Pepper = Pepper::to_file(&[7; 32]).parse().unwrap();
    let text = token(0);
    let parsed: Token = text.parse().unwrap();
    bench.measure("secret: digest under a pepper", || pepper.digest(black_box(&parsed)));
    let hasher = Hasher::new(1_024, 1, 1).unwrap();
    bench.measure("secret: Argon2id of a generated one, a thread", || {
        runtime.block_on(hasher.record(black_box(&parsed))).is_ok()
    });
}

const WORKSPACE: &str = "01980000-0000-7000-b000-000000000001";

/// A good token, another for each number.
fn token(number: usize) -> String {
    let mut random = [7; 32];
    random[..8].copy_from_slice(&number.to_be_bytes());
    Token::from_random(&"pat_".parse().unwrap(), &random).expose().to_owned()
}

/// A personal access token with so many scopes.
fn found(scopes: usize) -> Found {
    let cluster: ClusterId = "zzzzz".parse().unwrap();
    let mut found = Found::root(&cluster);
    found.credential.detail = domain::Detail::PersonalAccessToken {
        name: "of a benchmark".parse().unwrap(),
        description: "".parse().unwrap(),
    };
    found.credential.scopes = (0..scopes).map(|at| format!("read:documents-{at}")).collect();
    assert_eq!(found.facts().kind, Kind::PersonalAccessToken);
    found
}

/// About what an answer says of it.
fn encoded(found: &Found) -> Encoded {
    let answer = VerifyResponse {
        active: true,
        token_id: random::id(Timestamp::MIN),
        user_id: found.owner.id.to_string(),
        workspace_id: Some(WORKSPACE.to_owned()),
        scopes: found.credential.scopes.clone(),
        ..Default::default()
    };
    // The id stands behind `active` and its own key and length.
    Encoded { bytes: answer.encode_to_vec(), id: 4..40, workspace_id: 0..0 }
}

/// The CPU time of this process, which nobody else who runs here falsifies.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

fn say(line: &str) {
    // Who reads it may have gone.
    let _ = writeln!(stdout(), "{line}");
}
