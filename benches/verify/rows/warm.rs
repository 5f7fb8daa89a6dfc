//! What is answered from memory: on CPUs of its own, beside the reference.

use std::time::Duration;

use hdrhistogram::Histogram;
use token_authority::{domain::Token, random};

use crate::{
    load::{self, Outcome, Target, Width},
    pgbench::CALLERS,
    process::Contender,
    questions::Question,
    report::{Goal, Measured, Report, Rounds, Row, number},
    rows::store::{LOOK_UP, statements},
    support::process::binary,
    world::{self, Figure, Turns, Warm, World},
};

const WIDTH: Width = Width { connections: 4, streams: 32 };
/// Of streams, which have more under way each.
const STREAMS: Width = Width { connections: 4, streams: 2 };
const WINDOW: usize = 256;
const BATCH: usize = 100;
/// How long one measurement of latencies lasts.
const LATENCY_LASTS: Duration = Duration::from_millis(600);

/// The server and the reference, as the same caller.
fn both(warm: &Warm) -> [Target; 2] {
    [warm.server.target(&warm.verifier), warm.reference.target(&warm.verifier)]
}

/// CPU time for each answer, of the server and of the reference.
pub(super) fn cpu_row(what: impl Into<String>, turns: &Turns<2>, goal: Option<Goal>) -> Row {
    Row {
        what: what.into(),
        figure: number(turns.of(0).median(), "µs"),
        against: number(turns.of(1).median(), "µs"),
        measured: Measured::Rounds(turns.ratio(0, 1), ""),
        goal,
    }
}

pub(crate) async fn calls(world: &World, report: &mut Report) {
    let warm = world.warm().await;
    let question = Question::verify(&warm.tokens);
    let [server, reference] = both(warm);
    let targets = [server, warm.constant.target(&warm.verifier), reference];
    let turns = world.take_turns::<3>(|which| {
        load::closed(&targets[which], &question, WIDTH, world.lasts()).right().cpu_per_answer()
    });
    let against = |which: usize, what: &str, goal| Row {
        what: format!("warm Verify, CPU per call ÷ {what}"),
        figure: number(turns.of(0).median(), "µs"),
        against: number(turns.of(which).median(), "µs"),
        measured: Measured::Rounds(turns.ratio(0, which), ""),
        goal: Some(goal),
    };
    report.add(against(2, "generated tonic", Goal::Must { at_most: 1.0, reach: 0.90 }));
    report.add(against(1, "constant answer", Goal::AtMost(1.15)));
}

pub(crate) async fn latency(world: &World, report: &mut Report) {
    let warm = world.warm().await;
    let (targets, question) = (both(warm), Question::verify(&warm.tokens));
    let most = load::closed(&targets[1], &question, WIDTH, world.lasts()).right().rate();
    let rate = most / 2.0;
    let mut each: [Vec<Histogram<u64>>; 2] = [Vec::new(), Vec::new()];
    // Many that are short: a pause of the machine spoils the 99th percentile of a round.
    let (least, most) = world.scale((11, 21), (7, 9));
    let turns = world.turns::<2, _>(least, most, |which| {
        let outcome = open(&targets[which], &question, rate, LATENCY_LASTS);
        // A few that are late make up what the 99th percentile is about.
        let disturbed = 10.0 * outcome.late_share();
        let value = outcome.percentile(99.0);
        each[which].push(outcome.latencies);
        Figure { value, disturbed }
    });
    let all = each.map(|each| {
        let mut all = Histogram::new(3).unwrap();
        turns.counted().for_each(|at| all.add(&each[at]).unwrap());
        all
    });
    let said = |of: &Histogram<u64>| -> String {
        let at = |percentile| of.value_at_percentile(percentile) as f64 / 1e6;
        format!("{:.2} / {:.2} / {:.2} ms", at(50.0), at(99.0), at(99.9))
    };
    report.add(Row {
        what: format!("latency p50 / p99 / p99.9 at {rate:.0}/s, p99 ÷ tonic's"),
        figure: said(&all[0]),
        against: said(&all[1]),
        measured: Measured::Rounds(turns.ratio(0, 1), ""),
        goal: Some(Goal::AtMost(1.1)),
    });
    for (contender, latencies) in [&warm.server, &warm.reference].into_iter().zip(all) {
        report.curve(format!("warm Verify, {}, {rate:.0}/s", contender.name), latencies);
    }
}

fn open(target: &Target, question: &Question, rate: f64, lasts: Duration) -> Outcome {
    load::open(target, question, WIDTH.connections, rate, lasts).right()
}

pub(crate) async fn stream(world: &World, report: &mut Report) {
    let what = "StreamVerify, CPU per answer";
    let warm = world.warm().await;
    let (targets, question) = (both(warm), Question::stream(&warm.tokens));
    if let Err(why) = streamed(&targets[0], &question, Duration::ZERO) {
        return report.add(Row::not(what, why));
    }
    let turns = world.take_turns::<2>(|which| {
        streamed(&targets[which], &question, world.lasts()).unwrap().cpu_per_answer()
    });
    report.add(Row {
        what: what.to_owned(),
        figure: String::new(),
        against: String::new(),
        measured: Measured::Rounds(turns.of(0), "µs"),
        goal: Some(Goal::AtMost(1.5)),
    });
    report.add(cpu_row("the same ÷ an echo stream", &turns, Some(Goal::AtMost(3.0))));
}

fn streamed(target: &Target, question: &Question, lasts: Duration) -> Result<Outcome, String> {
    let mut outcome = load::streaming(target, question, STREAMS, WINDOW, lasts);
    outcome.first_error.take().map_or(Ok(outcome), Err)
}

pub(crate) async fn batch(world: &World, report: &mut Report) {
    let what = format!("BatchVerify of {BATCH}, CPU per token ÷ an echo batch");
    let warm = world.warm().await;
    let (targets, question) = (both(warm), Question::batch(&warm.tokens, BATCH));
    if let Err(why) = load::once(&targets[0], &question).await {
        return report.add(Row::not(what, why));
    }
    let width = Width { connections: 4, streams: 4 };
    let turns = world.take_turns::<2>(|which| {
        load::closed(&targets[which], &question, width, world.lasts()).right().cpu_per_answer()
    });
    report.add(cpu_row(what, &turns, Some(Goal::AtMost(2.0))));
}

pub(crate) async fn garbage(world: &World, report: &mut Report) {
    let (warm, seeds) = (world.warm().await, world.seeds().await);
    let target = warm.server.target(&warm.verifier);
    let text_of_unknown = || {
        let prefix = "pat_".parse().unwrap();
        Token::from_random(&prefix, &random::bytes()).expose().to_owned()
    };
    let unknown: Vec<String> = (0..100).map(|_| text_of_unknown()).collect();
    let misspelt = |token: &String| {
        let last = if token.ends_with('0') { '1' } else { '0' };
        format!("{}{last}", &token[..token.len() - 1])
    };
    let (as_warm, no_shape) =
        (Goal::AtMost(1.2), (0..100).map(|n| format!("not a token {n}")).collect());
    let no_dearer = Goal::Must { at_most: 1.2, reach: 1.0 };
    let kinds: [(&str, Vec<String>, Goal, f64); 4] = [
        ("of no shape", no_shape, no_dearer, 0.0),
        ("with a wrong checksum", unknown.iter().map(misspelt).collect(), no_dearer, 0.0),
        ("unknown, 100 again and again", unknown.clone(), as_warm, 0.01),
        ("expired, 1000 again and again", seeds.expired(), as_warm, 0.0),
    ];
    let good = Question::verify(&warm.tokens);
    for (name, tokens, goal, most_statements) in kinds {
        let question = Question::refused(&tokens);
        let lasts = world.lasts() / 2;
        load::closed(&target, &question.clone().once(), WIDTH, Duration::MAX).right();
        let (before, mut calls) = (statements(world, LOOK_UP).await, 0);
        let turns = world.take_turns::<2>(|which| {
            let question = [&question, &good][which];
            let outcome = load::closed(&target, question, WIDTH, lasts).right();
            calls += outcome.answers;
            outcome.cpu_per_answer()
        });
        let what = format!("garbage {name}, CPU per call ÷ warm");
        report.add(cpu_row(what, &turns, Some(goal)));
        if let (Some(before), Some(after)) = (before, statements(world, LOOK_UP).await) {
            report.add(statements_row(name, after - before, calls, most_statements));
        }
    }
    let once: Vec<String> = (0..2_000).map(|_| text_of_unknown()).collect();
    if let Some(before) = statements(world, LOOK_UP).await {
        let question = Question::refused(&once).once();
        let calls = load::closed(&target, &question, CALLERS, Duration::MAX).right().answers;
        let after = statements(world, LOOK_UP).await.unwrap_or(before);
        report.add(statements_row("unknown, each once", after - before, calls, 1.0));
    }
}

fn statements_row(name: &str, statements: i64, calls: u64, most: f64) -> Row {
    Row {
        what: format!("garbage {name}, looked up by SQL per call"),
        figure: statements.to_string(),
        against: format!("{calls} calls"),
        measured: Measured::Rounds(Rounds::one(statements as f64 / calls as f64), ""),
        goal: Some(Goal::AtMost(most)),
    }
}

/// Throughput and cost with few and many connections, in plain and over TLS.
pub(crate) async fn connections(world: &World, report: &mut Report) {
    let (warm, seeds) = (world.warm().await, world.seeds().await);
    let (certificate, apart) = (&world.certificate, world.apart.as_ref());
    let server = Contender::server_with_tls("server", &seeds.place, certificate, apart).await;
    let reference =
        Contender::own("reference", "reference", &warm.answer, Some(certificate), apart).await;
    let secure = [server.target(&warm.verifier), reference.target(&warm.verifier)];
    world::warmed(&secure[0], &warm.tokens).await;
    let unary = Question::verify(&warm.tokens);
    let stream = Question::stream(&warm.tokens);
    let can_stream = streamed(&secure[0], &stream, Duration::ZERO).is_ok();
    for (wire, targets) in [("plain", both(warm)), ("TLS", secure)] {
        for connections in [1, 16, 256] {
            let width = Width { connections, streams: (128 / connections).max(1) };
            let mut rates = [0.0; 2];
            let turns = world.take_few_turns::<2>(|which| {
                let lasts = world.lasts() / 2;
                let outcome = load::closed(&targets[which], &unary, width, lasts).right();
                rates[which] = f64::max(rates[which], outcome.rate());
                outcome.cpu_per_answer()
            });
            report.add(table_row(
                format!("Verify, {wire}, {connections} connections"),
                &turns,
                rates,
            ));
            if !can_stream {
                continue;
            }
            let width = Width { connections, streams: 1 };
            let window = (1024 / connections).max(4);
            let turns = world.take_few_turns::<2>(|which| {
                let lasts = world.lasts() / 2;
                let outcome = load::streaming(&targets[which], &stream, width, window, lasts);
                rates[which] = outcome.rate();
                outcome.right().cpu_per_answer()
            });
            let what = format!("StreamVerify, {wire}, {connections} connections");
            report.add(table_row(what, &turns, rates));
        }
    }
    server.stop().await;
}

fn table_row(what: String, turns: &Turns<2>, rates: [f64; 2]) -> Row {
    let said =
        |which: usize| format!("{} {:.0}/s", number(turns.of(which).median(), "µs"), rates[which]);
    Row { figure: said(0), against: said(1), ..cpu_row(what, turns, None) }
}

/// What it costs to note when tokens were last used.
pub(crate) async fn last_use(world: &World, report: &mut Report) {
    let what = "last use noted ÷ not, CPU per warm call";
    let help = std::process::Command::new(binary()).args(["serve", "--help"]).output().unwrap();
    if !String::from_utf8_lossy(&help.stdout).contains("--last-use") {
        return report.add(Row::not(what, "it can't be turned off"));
    }
    let (warm, seeds) = (world.warm().await, world.seeds().await);
    let apart = world.apart.as_ref();
    let without = Contender::server("without", &seeds.place, &["--last-use=false"], apart).await;
    let targets = [warm.server.target(&warm.verifier), without.target(&seeds.verifier())];
    world::warmed(&targets[1], &warm.tokens).await;
    let question = Question::verify(&warm.tokens);
    let (least, most) = world.scale((11, 15), (5, 9));
    let turns = world.turns::<2, _>(least, most, |which| {
        load::closed(&targets[which], &question, WIDTH, world.lasts()).right().cpu_per_answer()
    });
    report.add(cpu_row(what, &turns, Some(Goal::NotMoreThan(1.0))));
    without.stop().await;
}
