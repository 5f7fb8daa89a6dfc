//! What the tests share: a private PostgreSQL, a server in this process whose
//! clock the test moves, and servers as processes of their own.

pub(crate) mod blocker;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod http2;
pub(crate) mod lossy;
pub(crate) mod pki;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod raw_http2;
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod wait;

use std::env;

use tempfile::TempDir;

/// A directory for what a test stores. It goes with the test, unless
/// `KEEP_TEST_STORES` names where all of them are to be kept, to be looked at when
/// the whole run is over.
pub(crate) fn directory() -> TempDir {
    match env::var_os("KEEP_TEST_STORES") {
        Some(kept) => tempfile::Builder::new()
            .prefix("store-")
            .disable_cleanup(true)
            .tempdir_in(kept)
            .unwrap(),
        None => tempfile::tempdir().unwrap(),
    }
}

/// The engine behind a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Postgres,
    Sqlite,
}

/// Makes of each `async fn name(engine: Engine)` a test for either store. A check
/// that is left off the list is dead code, which does not build.
macro_rules! on_both_stores {
    ($($name:ident),* $(,)?) => {
        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::support::Engine::Postgres).await;
            })*
        }
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(crate::support::Engine::Sqlite).await;
            })*
        }
    };
}

pub(crate) use on_both_stores;
