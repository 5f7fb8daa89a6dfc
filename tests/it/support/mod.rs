//! What the tests share: a private PostgreSQL, a server in this process whose
//! clock the test moves, and servers as processes of their own.

pub(crate) mod blocker;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod pki;
pub(crate) mod postgres;
pub(crate) mod process;
pub(crate) mod raw_http2;
pub(crate) mod relay;
pub(crate) mod server;
pub(crate) mod wait;

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
