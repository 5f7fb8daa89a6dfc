//! What is answered over HTTP/1.1.

mod admin;
mod arvados;
mod doors;
mod generated;
mod later;
mod oauth;
mod openapi;
pub(crate) mod raw;
mod refusals;
mod sdk;
mod spatio;
