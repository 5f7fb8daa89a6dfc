//! What it costs that everybody uses the same token: calls a second of 64 callers with
//! one token, as a ratio to that with a token each, in rounds that take turns.
#![expect(clippy::unwrap_used, reason = "a benchmark")]

#[path = "../tests/it/support/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "the tests use the rest of it")]
mod support;

use std::{
    io::{Write as _, stdout},
    time::{Duration, Instant},
};

use support::{
    Engine,
    client::{Client, connect},
    server::TestServer,
};
use tokio::task::JoinSet;

const CALLERS: usize = 64;
const CALLS: usize = 200;
const ROUNDS: usize = 11;

#[tokio::main]
async fn main() {
    for engine in [Engine::Postgres, Engine::Sqlite] {
        let server = TestServer::start_with(engine, &["--log=warn"]).await;
        let user = server.user("alice").await;
        let mut tokens = Vec::new();
        for _ in 0..CALLERS {
            tokens.push(server.text_of(&user.id, &["read:*"]).await);
        }
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let one = rate(&server, &tokens[..1]).await;
            let many = rate(&server, &tokens).await;
            rounds.push((one / many, one, many));
            // So that each is to be written again.
            server.clock.advance(Duration::from_mins(2));
        }
        rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (ratio, one, many) = rounds[ROUNDS / 2];
        let (least, most) = (rounds[0].0, rounds[ROUNDS - 1].0);
        let line = format!(
            "{engine:?}: 64 callers, one token {one:.0}/s, 64 tokens {many:.0}/s, \
             ratio {ratio:.2} (median of {ROUNDS}; {least:.2} to {most:.2})\n"
        );
        stdout().write_all(line.as_bytes()).unwrap();
        server.stop().await;
    }
}

/// Calls a second of all callers together, who take turns with these tokens.
async fn rate(server: &TestServer, tokens: &[String]) -> f64 {
    let mut callers = JoinSet::new();
    for token in tokens.iter().cycle().take(CALLERS) {
        let client = Client::over(connect(server.address).await, token);
        callers.spawn(async move {
            for _ in 0..CALLS {
                client.who_am_i().await.unwrap();
            }
        });
    }
    let since = Instant::now();
    while let Some(called) = callers.join_next().await {
        called.unwrap();
    }
    (CALLERS * CALLS) as f64 / since.elapsed().as_secs_f64()
}
