//! Issues, lists, changes and revokes bearer tokens over gRPC, and says on every
//! request whether a token is good, whose it is and for what.
//!
//! `ARCHITECTURE.md` has the map and one call followed through it.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

pub mod authority;
pub mod background;
pub mod bootstrap;
pub mod caller;
pub mod clock;
pub mod config;
pub mod connections;
pub mod credentials;
pub mod directory;
pub mod domain;
pub mod error;
pub mod grpc;
pub mod hashing;
pub mod issuer;
pub mod listener;
pub mod operator;
pub mod proto;
pub mod random;
pub mod rights;
pub mod root;
mod seals;
pub mod server;
pub mod store;
pub mod tls;
mod turns;
pub mod upkeep;
pub mod usage;
pub mod verifier;
