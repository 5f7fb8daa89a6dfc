//! PostgreSQL, 15 or newer.

/// What makes rows with a `value` of a JSON array, which stands between the two.
macro_rules! rows_of {
    (before) => {
        "jsonb_array_elements_text(CAST("
    };
    (after) => {
        " AS JSONB)) AS listed (value)"
    };
}

/// The same with the lists of a JSON array of lists.
macro_rules! lists_of {
    (before) => {
        "jsonb_array_elements(CAST("
    };
    (after) => {
        " AS JSONB)) AS listed (value)"
    };
}

/// The bytes of a text in hexadecimal, which stands between the two.
macro_rules! bytes {
    (before) => {
        "decode("
    };
    (after) => {
        ", 'hex')"
    };
}

/// The same of a JSON array of objects.
macro_rules! objects_of {
    (before) => {
        "jsonb_array_elements(CAST("
    };
    (after) => {
        " AS JSONB)) AS listed (value)"
    };
}

/// What changes the revision, which is `head` for what is written then, as one statement
/// that returns its number; whoever follows the changes is woken, but the table stays the
/// truth.
macro_rules! recorded {
    ($change:expr, $written:expr, $also:expr) => {
        concat!(
            "WITH head AS (",
            $change,
            " RETURNING number), written AS (",
            $written,
            "), also AS (",
            $also,
            ") SELECT number, pg_notify('token_authority', CAST(number AS TEXT)) FROM head"
        )
    };
}
/// What is written after the revision was changed finds its number here.
macro_rules! new_head {
    () => {
        "head"
    };
}

/// What is written, and a query that need not see it, as one statement.
macro_rules! and_then {
    ($written:expr, $query:expr) => {
        concat!("WITH written AS (", $written, ") ", $query)
    };
}

/// Locks what is read of the credentials `c`, and passes over what others hold.
macro_rules! skips_held {
    () => {
        " FOR NO KEY UPDATE OF c SKIP LOCKED"
    };
}

/// What time it is for the database, in microseconds.
macro_rules! clock {
    () => {
        "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)"
    };
}

/// Whether changes are made here: a copy that is promoted no longer follows.
macro_rules! is_primary {
    () => {
        "NOT pg_is_in_recovery()"
    };
}

#[path = "sql/mod.rs"]
#[expect(clippy::duplicate_mod, reason = "the body that both engines share is compiled for each")]
mod sql;

use std::{error::Error, net::IpAddr, sync::Arc, time::Duration};

use sqlx::{
    Connection as _, Executor as _, Pool, Transaction,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions, PgSslMode},
};

use tokio::sync::{Mutex, Notify, Semaphore};

use super::{Migrate, PoolLimits, Servers, Store, StoreError, Unique};
use crate::domain::{Pattern, Piece};

type Db = sqlx::Postgres;

static MIGRATOR: Migrator = sqlx::migrate!("src/store/migrations/postgres");

/// What a session is set to: how long a statement, a wait for a lock and a
/// transaction whose process went silent may last.
const TIMEOUTS: [(&str, &str); 5] = [
    ("statement_timeout", "5s"),
    ("lock_timeout", "3s"),
    ("idle_in_transaction_session_timeout", "5s"),
    ("default_transaction_isolation", "read committed"),
    // No statement here is worth compiling.
    ("jit", "off"),
];

/// How long a statement takes at most.
const STATEMENT: Duration = Duration::from_secs(5);

/// How long a connection may be idle before the server is asked whether it is still there.
const UNASKED: Duration = Duration::from_millis(100);

/// What several tokens are looked up with: each is one row of every table.
const BY_INDEX: [(&str, &str); 3] =
    [("enable_hashjoin", "off"), ("enable_mergejoin", "off"), ("enable_seqscan", "off")];

const LOCK_STORE: &str = "SELECT pg_advisory_xact_lock(7309940818219330561)";
// NO KEY UPDATE excludes others who take it, and lets foreign keys be checked.
const LOCK_USER: &str = "SELECT is_active, is_admin, token_epoch FROM users \
    WHERE id = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
const LOCK_ADMINISTRATORS: &str = "SELECT id FROM users \
    WHERE is_admin AND is_active AND deleted_at IS NULL ORDER BY id FOR NO KEY UPDATE";
const LOCK_WORKSPACE: &str = "SELECT w.organization_id, m.id AS membership_id, m.role, \
    w.is_active AND o.is_active AS is_active, w.token_epoch AS workspace_epoch, \
    o.token_epoch AS organization_epoch \
    FROM workspaces w JOIN organizations o ON o.id = w.organization_id \
    LEFT JOIN memberships m ON m.workspace_id = w.id AND m.user_id = $2 \
    WHERE w.id = $1 FOR SHARE OF w";
// What a caller's right rests on stays so until the commit.
const KEEP_ADMINISTRATOR: &str = "SELECT id FROM users \
    WHERE id = $1 AND is_admin AND is_active AND deleted_at IS NULL FOR SHARE";
const KEEP_MANAGER: &str = "SELECT id FROM memberships WHERE user_id = $1 \
    AND (organization_id = $2 OR workspace_id = $3) AND role IN ('owner', 'admin') FOR SHARE";
// What is forgotten is found by plans for what is bound: it may be few or many.
const TRY_LOCK_PURGE: &str = "SELECT pg_try_advisory_xact_lock(7309940818219330562) \
    FROM set_config('plan_cache_mode', 'force_custom_plan', TRUE)";
const LOCK_CREDENTIAL: &str = "SELECT revoked_at FROM credentials WHERE id = $1 FOR SHARE";
const HOLD_CREDENTIAL: &str = "SELECT revoked_at FROM credentials WHERE id = $1 FOR NO KEY UPDATE";

/// How text is compared by its bytes, whatever the column's collation.
const BYTEWISE: &str = " COLLATE \"C\"";
/// How a text is told to be as a pattern has it.
const IS_LIKE: [&str; 2] = [" LIKE ", " ESCAPE '\\'"];

/// The channel that changes are told on, by what `recorded!` makes.
const CHANNEL: &str = "token_authority";

/// How long to wait before another try to listen, and for how long nothing is heard
/// before it is asked whether the server is still there.
const PAUSE: Duration = Duration::from_millis(500);
const QUIET: Duration = Duration::from_secs(15);

pub(super) async fn open(
    servers: Servers<'_>,
    limits: PoolLimits,
    migrate: Migrate,
) -> Result<impl Store + use<>, StoreError> {
    let options = options(servers.primary)?;
    let listened = servers.listen.map(self::options).transpose()?;
    let replica = servers.replica.map(self::options).transpose()?;
    // A migration, and the wait for another process's, may take longer than a call.
    let patient = PgPoolOptions::new()
        .max_connections(1)
        .acquire_timeout(limits.wait)
        .connect_with(options.clone())
        .await?;
    sql::migrate(&patient, &MIGRATOR, migrate).await?;
    patient.close().await;
    // Of their own, so that writes that wait for one row keep nobody from reading.
    let writers = (limits.connections / 4).max(1);
    // What is looked up by one that hangs must not keep all others waiting.
    let lines = (limits.connections / 4).max(2).min(limits.connections - writers - 1);
    let readers = limits.connections - writers - lines;
    let listener =
        Listener { options: listened.unwrap_or_else(|| options.clone()), wait: limits.wait };
    // It may be away.
    let replica =
        replica.map(|options| pool(readers, limits.wait).connect_lazy_with(prepared(options)));
    // One is used; others are for when it hangs, since it is given back only if it ends.
    let follower = of_primary(4, limits.wait).connect_lazy_with(prepared(options.clone()));
    let connector = of_primary(lines, limits.wait)
        .connect_lazy_with(prepared(options.clone()).options(BY_INDEX));
    let reader = of_primary(readers, limits.wait).connect_with(prepared(options.clone())).await?;
    let writer = of_primary(writers, limits.wait).connect_with(prepared(options)).await?;
    Ok(sql::SqlStore {
        lists: Semaphore::new((readers as usize / 2).max(1)),
        lines: sql::Lines::of(connector, lines as usize, limits.wait, limits.wait + STATEMENT),
        reader,
        writer,
        turn: Mutex::default(),
        follower,
        replica: sql::Replica::at(replica),
        news: Arc::new(sql::Hearing::new(listener)),
        together: sql::Together::default(),
        _lock: None,
    })
}

/// Whether this is the URL of a database.
pub(super) fn is_url(url: &str) -> bool {
    options(url).is_ok()
}

/// How to connect to the server at `url`.
fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = url
        .parse::<PgConnectOptions>()
        .map_err(|_| StoreError::Failed("the database URL is not one".into()))?
        .application_name("token-authority")
        .options([("client_min_messages", "warning")]);
    if is_here(&options) || url.contains("sslmode=") || url.contains("ssl-mode=") {
        Ok(options)
    } else {
        // Whoever sits between decides what a token may do.
        Ok(options.ssl_mode(PgSslMode::VerifyFull))
    }
}

/// Whatever is bound, an index leads each of what is read or changed; to plan a statement
/// takes longer than to run it.
fn prepared(options: PgConnectOptions) -> PgConnectOptions {
    options.options(TIMEOUTS).options([("plan_cache_mode", "force_generic_plan")])
}

/// Whether the server is on this machine: at a socket or a loopback address.
fn is_here(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn pool(connections: u32, wait: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(wait)
        .max_lifetime(Duration::from_hours(1))
        .test_before_acquire(false)
        .before_acquire(|connection, connected| {
            Box::pin(
                async move { Ok(connected.idle_for < UNASKED || connection.ping().await.is_ok()) },
            )
        })
}

/// Of connections that are of use only where changes are made: a server that follows
/// another is restarted before it becomes one that does not, or the other way round.
fn of_primary(connections: u32, wait: Duration) -> PgPoolOptions {
    pool(connections, wait).after_connect(|connection, _| {
        Box::pin(async move {
            let follows: bool =
                sqlx::query_scalar("SELECT pg_is_in_recovery()").fetch_one(connection).await?;
            if follows {
                return Err(sqlx::Error::Protocol("the server only follows another".into()));
            }
            Ok(())
        })
    })
}

async fn begin(pool: &Pool<Db>) -> Result<Transaction<'static, Db>, sqlx::Error> {
    pool.begin().await
}

/// Begins to read as of one instant, by statements that are used once: planned for
/// what is bound to them.
async fn begin_reading(pool: &Pool<Db>) -> Result<Transaction<'static, Db>, sqlx::Error> {
    let statement = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                     SET LOCAL plan_cache_mode = force_custom_plan";
    pool.begin_with(statement).await
}

/// What [`IS_LIKE`] takes.
fn like(pattern: &Pattern) -> String {
    let Pattern(pieces) = pattern;
    let mut text = String::with_capacity(pieces.len());
    for piece in pieces {
        match piece {
            Piece::Any => text.push('%'),
            Piece::One => text.push('_'),
            Piece::Literal(special @ ('%' | '_' | '\\')) => text.extend(['\\', *special]),
            Piece::Literal(character) => text.push(*character),
        }
    }
    text
}

/// Where changes are heard of.
#[derive(Clone)]
struct Listener {
    options: PgConnectOptions,
    wait: Duration,
}

/// Wakes for each change that any process tells of, and each time one may have been
/// missed. It never ends.
async fn listen(listener: Listener, wake: Arc<Notify>) {
    let mut was_listening = true;
    loop {
        let lost = match listener.connect().await {
            Ok(mut heard) => {
                was_listening = true;
                // What was told before was told to nobody.
                wake.notify_one();
                listener.hear(&mut heard, &wake).await
            }
            Err(error) => Some(error),
        };
        if std::mem::take(&mut was_listening) {
            let error = lost.as_ref().map(|error| error as &dyn Error);
            tracing::warn!(error, "changes are not heard of, and polled until they are again");
            wake.notify_one();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

impl Listener {
    /// On a connection from a pool of its own, since one that hangs is given back never.
    async fn connect(&self) -> Result<PgListener, sqlx::Error> {
        let pool = pool(1, self.wait).connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.eager_reconnect(false);
        tokio::time::timeout(self.wait, listener.listen(CHANNEL))
            .await
            .map_err(|_| sqlx::Error::PoolTimedOut)??;
        Ok(listener)
    }

    /// Listens until the connection is lost, and says how if that is known.
    async fn hear(&self, listener: &mut PgListener, wake: &Notify) -> Option<sqlx::Error> {
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(_))) => wake.notify_one(),
                Ok(Ok(None)) => return None,
                Ok(Err(error)) => return Some(error),
                Err(_) => {
                    let asked = listener.execute("SELECT 1");
                    match tokio::time::timeout(self.wait, asked).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => return Some(error),
                        Err(_) => return None,
                    }
                }
            }
        }
    }
}

/// Whether the engine gave a transaction up in favour of another: a
/// serialization failure or a deadlock.
fn gave_way(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<sqlx::Error>()
        .and_then(sqlx::Error::as_database_error)
        .and_then(|error| error.code())
        .is_some_and(|code| code == "40001" || code == "40P01")
}

/// Whether an error says that the server is no longer at the other end.
fn has_hung_up(error: &sqlx::Error) -> bool {
    match error.as_database_error() {
        // It was told to, another of its processes has crashed, it was not asked for too
        // long, or who stands between says so.
        Some(error) => error.code().is_some_and(|code| {
            matches!(&*code, "57P01" | "57P02" | "57P05") || code.starts_with("08")
        }),
        None => matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_)),
    }
}

/// Whether a SQLSTATE speaks of the server's state and not of the statement:
/// connection, transaction rollback, resources, operator intervention, system;
/// or of a lock that could not be had, a transaction that was silent too long, or
/// a server that only reads.
pub(super) fn is_passing(code: &str) -> bool {
    matches!(code, "55P03" | "25P03" | "25006")
        || ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class))
}

/// The field that another row has already, by the name of the violated index.
fn taken(error: sqlx::Error, fields: &[(&str, Unique)]) -> StoreError {
    let constraint = error.as_database_error().and_then(|error| error.constraint());
    let field = fields
        .iter()
        .find(|(name, _)| constraint.is_some_and(|constraint| constraint.ends_with(name)));
    match field {
        Some((_, field)) => StoreError::AlreadyExists(*field),
        None => error.into(),
    }
}
