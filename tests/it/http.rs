//! What is answered over HTTP/1.1.

mod admin;
mod arvados;
mod oauth;
mod openapi;
mod raw;
mod refusals;
mod sdk;
mod spatio;
