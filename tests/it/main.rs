//! What the service promises, seen from outside: over real sockets, on a real
//! PostgreSQL and the real embedded store.
#![expect(clippy::unwrap_used, reason = "tests")]

mod authorizations;
mod client;
mod connections;
mod consistency;
mod corpus;
mod crash;
mod descriptor;
mod directory;
mod faults;
mod http;
mod input;
mod last_use;
mod limits;
mod memberships;
mod organizations;
mod peppers;
mod personal_access_tokens;
mod properties;
mod readme;
mod recoverable;
mod retention;
mod rights;
mod root;
mod rotation;
mod secrets;
mod shutdown;
mod start;
mod store;
mod support;
mod tls;
mod usage;
mod verification;
mod workspaces;
