//! What is answered over HTTP/1.1.

mod admin;
mod arvados;
mod oauth;
mod openapi;
mod raw;
mod sdk;
mod spatio;
