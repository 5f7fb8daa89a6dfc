//! What the service promises, seen from outside: over real sockets, on a real
//! PostgreSQL and the real embedded store.
#![expect(clippy::unwrap_used, reason = "tests")]

mod directory;
mod input;
mod personal_access_tokens;
mod readme;
mod rights;
mod store;
mod support;
mod verification;
