//! What the service promises, seen from outside: over real sockets, on a real
//! PostgreSQL and the real embedded store.
#![expect(clippy::unwrap_used, reason = "tests")]

mod support;
mod verification;
