//! A service that lets only calls through with a good token: gRPC's own Health, say.
//!
//!     AUTHORITY=http://localhost:50051 TOKEN_FILE=service.token cargo run --example protected
//!
//! `AUTHORITY` may name several addresses, with commas between them; `TOKEN_FILE` holds the
//! token that this service itself presents to them, with `verify:tokens` among its scopes.
//! It listens on `LISTEN`, `127.0.0.1:0` unless that is set, and says where.

use std::{
    env,
    error::Error,
    io::{Write as _, stdout},
};

use token_authority::client::{Client, Options, OwnToken};
use tokio::net::TcpListener;
use tonic::transport::{Server, server::TcpIncoming};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = env::var("LISTEN").unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(listen).await?;
    writeln!(stdout(), "{}", listener.local_addr()?)?;
    let (_, health) = tonic_health::server::health_reporter();

    let authority = env::var("AUTHORITY")?;
    let own = OwnToken::file(env::var("TOKEN_FILE")?);
    let client = Client::start(Options::new(authority.split(','), own))?;
    Server::builder()
        .layer(client.layer())
        .add_service(health)
        .serve_with_incoming(TcpIncoming::from(listener))
        .await?;
    Ok(())
}
