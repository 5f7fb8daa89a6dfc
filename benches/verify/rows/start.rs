//! How soon it serves with nothing set up, and how little it takes.

use std::{
    fs,
    time::{Duration, Instant},
};

use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::{
    machine,
    process::Contender,
    report::{Goal, Measured, Report, Rounds, Row},
    support::{self, process::binary, server::Place},
    world::World,
};

const STARTS: usize = 7;

pub(crate) async fn start(_: &World, report: &mut Report) {
    let (mut first, mut again, mut idle) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        let place = Place { directory: support::directory(), database_url: None };
        let pepper = token_authority::domain::Pepper::to_file(&[7; 32]);
        fs::write(place.path("pepper-of-test"), pepper.as_bytes()).unwrap();
        for times in [&mut first, &mut again] {
            let since = Instant::now();
            let server = Contender::server("server", &place, &[], None).await;
            answers(&server).await;
            times.push(since.elapsed().as_secs_f64() * 1e3);
            tokio::time::sleep(Duration::from_millis(300)).await;
            idle.push(machine::memory(server.id()) / 1e6);
            server.stop().await;
        }
    }
    let row = |what: &str, figures, unit, most| Row {
        what: what.to_owned(),
        figure: String::new(),
        against: String::new(),
        measured: Measured::Rounds(Rounds::new(figures), unit),
        goal: Some(Goal::AtMost(most)),
    };
    report.add(row("first start to serving, embedded store", first, "ms", 300.0));
    report.add(row("later start to serving, embedded store", again, "ms", 300.0));
    report.add(row("memory when idle", idle, "MB", 30.0));
    let size = fs::metadata(binary()).unwrap().len() as f64 / 1e6;
    report.add(row("size of the binary", vec![size], "MB", 25.0));
}

/// Waits until it says of itself that it serves.
async fn answers(server: &Contender) {
    let address = format!("http://{}", server.address());
    let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
    let mut health = HealthClient::new(channel);
    loop {
        let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        if answer.status() == ServingStatus::Serving {
            return;
        }
    }
}
