//! What becomes of the machine: its clock is set, its disk is full.

use std::{
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use token_authority::{
    clock::SystemClock,
    proto::v1::{CreatePersonalAccessTokenRequest, create_personal_access_token_request::Expiry},
    server::Server,
};
use tokio::{process::Command, sync::oneshot};
use tonic::Code;

use super::witness::{BOUND, SOON, Witness};
use crate::support::{
    Engine, client::Client, process, process::Process, relay::Relay, server::Place, wait::until,
};

/// How many hours the wall clock is ahead.
static AHEAD: AtomicI64 = AtomicI64::new(0);

fn set_wall_clock() -> SystemTime {
    let ahead = AHEAD.load(Ordering::SeqCst);
    let by = Duration::from_hours(ahead.unsigned_abs());
    if ahead < 0 { SystemTime::now() - by } else { SystemTime::now() + by }
}

const CHANGES: &str = "LEFT JOIN changes c";

/// Longer than an answer may take that tells the time.
const SLOW: Duration = Duration::from_millis(300);

/// How long a token lives that is to end, and how exactly the end is known.
const SHORT: Duration = Duration::from_secs(1);
const EXACT: Duration = Duration::from_millis(250);

/// It goes by the database's clock, also while that is slow to tell.
#[tokio::test(flavor = "multi_thread")]
async fn wall_clock_set_by_hours() {
    let mut place = Place::new(Engine::Postgres).await;
    let (relay, through) = Relay::to(place.database_url.as_ref().unwrap());
    place.database_url = Some(through);
    let clock = Arc::new(SystemClock::by(set_wall_clock));
    let server = Server::bind(place.settings(&["--max-staleness=600s"]), clock).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel::<()>();
    let served = tokio::spawn(server.serve(async {
        let _ = stopped.await;
    }));
    let by = Client::connect(address, &place.admin_token()).await;
    let lives = async |ttl: Duration| {
        let request = CreatePersonalAccessTokenRequest {
            name: "of a test".to_owned(),
            expiry: Some(Expiry::Ttl(ttl.try_into().unwrap())),
            ..Default::default()
        };
        by.tokens().create_personal_access_token(request).await.unwrap().into_inner().token
    };
    let hour = lives(Duration::from_hours(1)).await;
    let is_good = async |token: &str| by.verify(token).await.unwrap().active;
    let looks = async |more: usize| {
        let enough = relay.ran(CHANGES) + more;
        until("it asks for changes", SOON, async || relay.ran(CHANGES) >= enough).await;
    };
    looks(1).await;
    for (ahead, is_slow) in [(5, false), (-5, true), (5, true)] {
        let short = lives(SHORT).await;
        let made = Instant::now();
        if is_slow {
            relay.hold_answer_to(CHANGES);
            until("it asks for changes", SOON, async || relay.has_caught()).await;
        }
        AHEAD.store(ahead, Ordering::SeqCst);
        let since = Instant::now();
        until("it was slow", SOON, async || {
            assert!(is_good(&hour).await, "{ahead} hours ahead");
            !is_slow || since.elapsed() > SLOW
        })
        .await;
        relay.release();
        looks(2).await;
        assert!(is_good(&hour).await, "{ahead} hours ahead");
        until("its end is over", SOON, async || made.elapsed() > SHORT + EXACT).await;
        assert!(!is_good(&short).await, "{ahead} hours ahead");
        let later = lives(SHORT * 60).await;
        assert!(is_good(&later).await, "{ahead} hours ahead");
    }
    drop(by);
    stop.send(()).unwrap();
    served.await.unwrap();
}

/// The size of the disk.
const DISK: &str = "8m";

/// Changes fail and change nothing, and all else goes on.
#[tokio::test(flavor = "multi_thread")]
async fn disk_full_below_the_embedded_store() {
    let place = Place::new(Engine::Sqlite).await;
    let disk = place.path("data");
    std::fs::create_dir(&disk).unwrap();
    // In a place that only it sees, and that ends with it.
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        command.arg("--map-root-user");
    }
    command
        .args([
            "sh",
            "-c",
            "mount -t tmpfs -o size=$0,mode=0700 none \"$1\" && shift && exec \"$@\"",
            DISK,
        ])
        .arg(&disk)
        .arg(process::binary())
        .args(place.arguments())
        .args(["--max-pats-per-user=1000000", &format!("--max-staleness={}ms", BOUND.as_millis())]);
    let process = Process::spawn(command).await;
    let seen = format!("/proc/{}/root{}", process.child.id().unwrap(), disk.display());
    let admin = std::fs::read_to_string(format!("{seen}/admin.token")).unwrap();
    let by = Client::connect(process.address, admin.trim()).await;
    let witness = Witness::of(vec![by.clone()]);
    witness.settle().await;
    let mut tokens = Vec::new();
    for _ in 0..100 {
        let made = by.create("of a test").await.unwrap();
        tokens.push((made.personal_access_token.unwrap().id, made.token));
    }

    let filler = format!("{seen}/filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let answered = witness.counts().0[0];
    // What the store has room for already it may use.
    let mut told = Vec::new();
    for (id, text) in &tokens {
        match by.revoke(id).await {
            Ok(_) => told.push((text, false)),
            Err(status) => {
                assert_eq!(status.code(), Code::Unavailable, "{}", process.log());
                told.push((text, true));
            }
        }
    }
    let is_as_told = async || {
        for (text, is_active) in &told {
            assert_eq!(by.verify(text).await.unwrap().active, *is_active);
        }
    };
    is_as_told().await;
    assert!(told.iter().filter(|(_, is_active)| *is_active).count() > 5, "there was room");
    until("others are answered", SOON, async || witness.counts().0[0] > answered + 50).await;
    std::fs::remove_file(&filler).unwrap();
    drop(file);
    witness.recovered("disk full", Instant::now()).await;
    is_as_told().await;
    witness.finish("disk full", by).await;
}
