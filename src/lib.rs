//! Issues, lists, changes and revokes bearer tokens over gRPC and HTTP, and says on every
//! request whether a token is good, whose it is and for what.
//!
//! `ARCHITECTURE.md` has the map and one call followed through it.
#![cfg_attr(test, expect(clippy::unwrap_used, reason = "tests"))]

#[cfg(feature = "server")]
pub mod authority;
#[cfg(feature = "server")]
pub mod background;
mod bearer;
#[cfg(feature = "server")]
pub mod bootstrap;
#[cfg(feature = "server")]
pub mod caller;
#[cfg(feature = "client")]
pub mod client;
pub mod clock;
#[cfg(feature = "server")]
pub mod config;
#[cfg(feature = "server")]
pub mod connections;
#[cfg(feature = "server")]
pub mod credentials;
#[cfg(feature = "server")]
pub mod directory;
pub mod domain;
#[cfg(feature = "server")]
pub mod error;
#[cfg(feature = "server")]
pub mod grpc;
#[cfg(feature = "server")]
pub mod hashing;
#[cfg(feature = "server")]
pub mod http;
#[cfg(feature = "server")]
pub mod issuer;
mod keeping;
#[cfg(feature = "server")]
pub mod listener;
#[cfg(feature = "server")]
pub mod operator;
pub mod proto;
pub mod random;
#[cfg(feature = "server")]
pub mod rights;
#[cfg(feature = "server")]
pub mod root;
#[cfg(feature = "server")]
mod seals;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod start;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "server")]
pub mod tls;
#[cfg(feature = "server")]
mod turns;
#[cfg(feature = "server")]
pub mod upkeep;
#[cfg(feature = "server")]
pub mod usage;
#[cfg(feature = "server")]
pub mod verifier;
