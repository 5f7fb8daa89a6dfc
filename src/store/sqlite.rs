//! SQLite, embedded: a file in the data directory, one process at a time.

/// What makes rows with a `value` of a JSON array, which stands between the two.
macro_rules! rows_of {
    (before) => {
        "json_each("
    };
    (after) => {
        ")"
    };
}

/// The same with the lists of a JSON array of lists.
macro_rules! lists_of {
    (before) => {
        "json_each("
    };
    (after) => {
        ")"
    };
}

/// The bytes of a text in hexadecimal, which stands between the two.
macro_rules! bytes {
    (before) => {
        "unhex("
    };
    (after) => {
        ")"
    };
}

/// The same of a JSON array of objects.
macro_rules! objects_of {
    (before) => {
        "json_each("
    };
    (after) => {
        ")"
    };
}

/// What changes the revision, and what is written then, as statements of one text, the
/// last of which returns its number.
macro_rules! recorded {
    ($change:expr, $written:expr, $also:expr) => {
        concat!($change, "; ", $written, "; ", $also, "; SELECT number FROM revision WHERE id = 1")
    };
}
/// What is written after the revision was changed finds its number here.
macro_rules! new_head {
    () => {
        "(SELECT number FROM revision WHERE id = 1) AS head"
    };
}

/// What is written, and a query that need not see it, as statements of one text.
macro_rules! and_then {
    ($written:expr, $query:expr) => {
        concat!($written, "; ", $query)
    };
}

/// Locks what is read of the credentials `c`, and passes over what others hold.
macro_rules! skips_held {
    () => {
        ""
    };
}

/// What time it is for the database: it has no clock of its own.
macro_rules! clock {
    () => {
        "NULL"
    };
}

/// Whether changes are made here.
macro_rules! is_primary {
    () => {
        "TRUE"
    };
}

#[path = "sql/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the body that both engines share is compiled for each")]
mod sql;

use std::{
    error::Error,
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use sqlx::{
    Connection as _, Pool, SqliteConnection, Transaction,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use tokio::sync::{Mutex, Notify, Semaphore};

use super::{Migrate, Store, StoreError, Unique};
use crate::domain::{Pattern, Piece};

type Db = sqlx::Sqlite;

static MIGRATOR: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

// There is one writer at a time, so reading is all that the locks of the other
// engine come down to.
const LOCK_STORE: &str = "SELECT 1";
const LOCK_USER: &str =
    "SELECT is_active, is_admin, token_epoch FROM users WHERE id = $1 AND deleted_at IS NULL";
const LOCK_ADMINISTRATORS: &str = "SELECT 1";
const LOCK_WORKSPACE: &str = "SELECT w.organization_id, m.id AS membership_id, m.role, \
    w.is_active AND o.is_active AS is_active, w.token_epoch AS workspace_epoch, \
    o.token_epoch AS organization_epoch \
    FROM workspaces w JOIN organizations o ON o.id = w.organization_id \
    LEFT JOIN memberships m ON m.workspace_id = w.id AND m.user_id = $2 \
    WHERE w.id = $1";
const KEEP_ADMINISTRATOR: &str =
    "SELECT id FROM users WHERE id = $1 AND is_admin AND is_active AND deleted_at IS NULL";
const KEEP_MANAGER: &str = "SELECT id FROM memberships WHERE user_id = $1 \
    AND (organization_id = $2 OR workspace_id = $3) AND role IN ('owner', 'admin')";
const TRY_LOCK_PURGE: &str = "SELECT TRUE";
const LOCK_CREDENTIAL: &str = "SELECT revoked_at FROM credentials WHERE id = $1";
const HOLD_CREDENTIAL: &str = LOCK_CREDENTIAL;

/// How text is compared by its bytes: as it is.
const BYTEWISE: &str = "";
/// How a text is told to be as a pattern has it: LIKE takes `A` for `a` here.
const IS_LIKE: [&str; 2] = [" GLOB ", ""];

/// How many connections read beside the one that writes.
const READERS: u32 = 4;

/// How long it is waited for one of them, and for a lock.
const WAIT: Duration = Duration::from_secs(5);

pub(super) async fn open(
    directory: &Path,
    migrate: Migrate,
) -> Result<impl Store + use<>, StoreError> {
    let lock = private_file(&directory.join("lock")).and_then(lock)?;
    let path = directory.join("token-authority.db");
    match migrate {
        // SQLite gives the files beside it the same mode.
        Migrate::Auto => drop(private_file(&path)?),
        Migrate::Check if path.exists() => {}
        Migrate::Check => {
            return Err(StoreError::Failed("it is empty: run token-authority migrate".into()));
        }
    }
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // What is forgotten does not stay in a free page.
        .pragma("secure_delete", "on")
        .busy_timeout(WAIT);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(WAIT)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
        .before_acquire(|connection, _| Box::pin(has_no_transaction(connection)))
        .connect_with(options.clone())
        .await?;
    sql::migrate(&writer, &MIGRATOR, migrate).await?;
    let options = options.read_only(true);
    let reader = readers(READERS).connect_with(options.clone()).await?;
    let connector = readers(READERS).connect_lazy_with(options.clone());
    let follower = readers(1).connect_lazy_with(options);
    let lists = Semaphore::new(READERS as usize / 2);
    Ok(sql::SqlStore {
        lines: sql::Lines::of(connector, READERS as usize, WAIT, WAIT),
        reader,
        writer,
        turn: Mutex::default(),
        follower,
        replica: sql::Replica::at(None),
        news: Arc::new(sql::Hearing::new(Listener)),
        together: sql::Together::default(),
        lists,
        _lock: Some(lock),
    })
}

/// Whether a connection can begin another transaction. SQLite itself rolls one back when
/// the disk is full; sqlx takes that for open, and the connection is of no use any more.
async fn has_no_transaction(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // What was dropped is rolled back before it answers.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

fn readers(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new().max_connections(connections).acquire_timeout(WAIT).max_lifetime(None)
}

/// A file that only its owner may read, made unless it is there.
fn private_file(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| StoreError::Failed(error.into()))
}

/// Keeps other processes from the directory for as long as the file is open.
fn lock(file: File) -> Result<File, StoreError> {
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Failed(
            "another process has the data directory open: stop it first".into(),
        )),
        Err(TryLockError::Error(error)) => Err(StoreError::Failed(error.into())),
    }
}

async fn begin(pool: &Pool<Db>) -> Result<Transaction<'static, Db>, sqlx::Error> {
    pool.begin_with("BEGIN IMMEDIATE").await
}

/// Begins to read as of one instant, by statements that are used once.
async fn begin_reading(pool: &Pool<Db>) -> Result<Transaction<'static, Db>, sqlx::Error> {
    pool.begin().await
}

/// What [`IS_LIKE`] takes.
fn like(pattern: &Pattern) -> String {
    let Pattern(pieces) = pattern;
    let mut text = String::with_capacity(pieces.len());
    for piece in pieces {
        match piece {
            Piece::Any => text.push('*'),
            Piece::One => text.push('?'),
            Piece::Literal(special @ ('*' | '?' | '[')) => text.extend(['[', *special, ']']),
            Piece::Literal(character) => text.push(*character),
        }
    }
    text
}

/// Nobody else is to be heard.
#[derive(Clone)]
struct Listener;

async fn listen(_: Listener, _: Arc<Notify>) {}

/// One writer at a time gives way to none.
fn gave_way(_: &(dyn Error + 'static)) -> bool {
    false
}

/// It is in this process.
fn has_hung_up(_: &sqlx::Error) -> bool {
    false
}

/// Whether a result code speaks of a file that is busy, out of space, or can't
/// be read, written or opened now: BUSY, LOCKED, IOERR, FULL, CANTOPEN.
pub(super) fn is_passing(code: &str) -> bool {
    code.parse::<i32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 10 | 13 | 14))
}

/// The field that another row has already, by the column that the message names.
fn taken(error: sqlx::Error, fields: &[(&str, Unique)]) -> StoreError {
    let unique = error.as_database_error().filter(|error| error.is_unique_violation());
    let field =
        fields.iter().find(|(name, _)| unique.is_some_and(|error| error.message().ends_with(name)));
    match field {
        Some((_, field)) => StoreError::AlreadyExists(*field),
        None => error.into(),
    }
}
