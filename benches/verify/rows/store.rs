//! What takes the store, and what is kept of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::Row as _;

use crate::{
    Extent,
    load::{self, Outcome, Target, Width},
    machine,
    pgbench::{self, CALLERS},
    process::Contender,
    questions::Question,
    report::{Goal, Measured, Report, Rounds, Row, number, say},
    seeds::{self, Seeds},
    world::{self, World, counts_statements},
};

/// What is in each statement by which a token is looked up.
pub(crate) const LOOK_UP: &str = "digest";
/// How many clients ask at once in [`CALLERS`].
const CLIENTS: usize = CALLERS.connections * CALLERS.streams;
/// Tokens in one batch.
const MOST: usize = 1_000;

/// How many statements that hold this text the main store has run so far; `None` if nobody
/// counts.
pub(crate) async fn statements(world: &World, text: &str) -> Option<i64> {
    if !counts_statements() {
        return None;
    }
    let mut connection = world.seeds().await.connect().await.unwrap();
    let made = "CREATE EXTENSION IF NOT EXISTS pg_stat_statements";
    sqlx::raw_sql(made).execute(&mut connection).await.unwrap();
    let counted = "SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements \
        WHERE query NOT LIKE '%pg_stat_statements%' AND strpos(query, $1) > 0 \
        AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    Some(sqlx::query(counted).bind(text).fetch_one(&mut connection).await.unwrap().get(0))
}

/// Answers about tokens that were never asked about, at most so many.
fn misses(target: &Target, seeds: &Seeds, count: usize) -> Outcome {
    let tokens: Vec<String> = seeds.fresh(count).map(seeds::token).collect();
    assert!(!tokens.is_empty(), "there are enough tokens");
    let question = Question::verify(&tokens).once();
    load::closed(target, &question, CALLERS, Duration::from_secs(4)).right()
}

pub(crate) async fn miss(world: &World, report: &mut Report) {
    let seeds = world.seeds().await;
    let script = pgbench::verification(world, seeds).await;
    let server = Contender::server("server", &seeds.place, &[], None).await;
    let target = server.target(&seeds.verifier());
    misses(&target, seeds, 1_000);
    let count = world.scale(10_000, 3_000);
    let lasts = world.scale(Duration::from_secs(2), Duration::from_secs(1));
    let turns = world.take_turns::<2>(|which| match which {
        0 => misses(&target, seeds, count).rate(),
        _ => pgbench::rate(seeds, &script, CLIENTS, lasts),
    });
    report.add(Row {
        what: format!("miss, {} tokens, rate ÷ pgbench with its statement", seeds.stored),
        figure: number(turns.of(0).median(), "/s"),
        against: number(turns.of(1).median(), "/s"),
        measured: Measured::Rounds(turns.ratio(0, 1), ""),
        goal: Some(Goal::AtLeast(0.6)),
    });
    if let Some(before) = statements(world, "").await {
        let calls = misses(&target, seeds, count).answers;
        let after = statements(world, "").await.unwrap_or(before);
        let each = (after - before) as f64 / calls as f64;
        report.add(Row {
            what: "miss, statements per call".to_owned(),
            figure: (after - before).to_string(),
            against: format!("{calls} calls"),
            measured: Measured::Rounds(Rounds::one(each), ""),
            goal: Some(Goal::AtMost(1.05)),
        });
    }
    server.stop().await;
}

/// Has all of these asked about, many with each call if the server takes that.
async fn fill(target: &Target, tokens: &[String]) {
    let batches = Question::batch(tokens, MOST.min(tokens.len()));
    let (question, width) = if load::once(target, &batches).await.is_ok() {
        (batches, Width { connections: 2, streams: 2 })
    } else {
        (Question::verify(tokens), CALLERS)
    };
    load::closed(target, &question.once(), width, Duration::from_secs(300)).right();
}

pub(crate) async fn memory(world: &World, report: &mut Report) {
    let seeds = world.seeds().await;
    let server = Contender::server("server", &seeds.place, &[], None).await;
    let target = server.target(&seeds.verifier());
    let all: Vec<String> = seeds.all().map(seeds::token).collect();
    let has_batches = load::once(&target, &Question::batch(&all[..1], 1)).await.is_ok();
    let all = &all[..if has_batches { all.len() } else { all.len().min(50_000) }];
    // Pools, buffers and the allocator have grown before.
    let (first, rest) = all.split_at(MOST);
    for _ in 0..20 {
        fill(&target, first).await;
    }
    let before = settled(server.id()).await;
    fill(&target, rest).await;
    let after = settled(server.id()).await;
    let what = format!("memory per cached credential, {} of them", rest.len());
    let counted = statements(world, "").await;
    let sample = &rest[rest.len() / 2..][..rest.len().min(10_000) / 2];
    let question = Question::verify(sample).once();
    load::closed(&target, &question, CALLERS, Duration::from_secs(60)).right();
    let again =
        counted.zip(statements(world, "").await).map_or(0, |(before, after)| after - before);
    if again > sample.len() as i64 / 20 {
        let why = format!("{again} statements when {} are asked about again", sample.len());
        report.add(Row::not(what, why));
    } else {
        report.add(Row {
            what,
            figure: number(after / 1e6, "MB"),
            against: number(before / 1e6, "MB"),
            measured: Measured::Rounds(Rounds::one((after - before) / rest.len() as f64), "bytes"),
            goal: Some(Goal::AtMost(400.0)),
        });
    }
    server.stop().await;
}

/// The memory of a process once it changes no more.
async fn settled(process: u32) -> f64 {
    let mut last = machine::memory(process);
    let mut same = 0;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = machine::memory(process);
        same = if (now - last).abs() < 0.002 * last { same + 1 } else { 0 };
        last = now;
        if same == 4 {
            break;
        }
    }
    last
}

/// Warm calls and misses of a small store and of a large one.
pub(crate) async fn stored(world: &World, report: &mut Report) {
    let small = world.sow(10_000).await;
    let much;
    let large = if world.extent == Extent::Full {
        much = world.sow(10_000_000).await;
        &much
    } else {
        world.seeds().await
    };
    let apart = world.apart.as_ref();
    let mut apart_targets = Vec::new();
    let mut targets = Vec::new();
    let mut servers = Vec::new();
    let mut warm = Vec::new();
    for seeds in [large, &small] {
        let tokens: Vec<String> = seeds.fresh(1_000).map(seeds::token).collect();
        let server = Contender::server("server", &seeds.place, &[], apart).await;
        let target = server.target(&seeds.verifier());
        world::warmed(&target, &tokens).await;
        warm.push(Question::verify(&tokens));
        apart_targets.push(target);
        servers.push(server);
        let server = Contender::server("server", &seeds.place, &[], None).await;
        targets.push(server.target(&seeds.verifier()));
        servers.push(server);
    }
    let row = |what: &str, [of_large, of_small]: [String; 2], ratio, most| Row {
        what: format!("{what}, {} tokens stored ÷ {}", large.stored, small.stored),
        figure: of_large,
        against: of_small,
        measured: Measured::Rounds(ratio, ""),
        goal: Some(Goal::AtMost(most)),
    };
    let width = Width { connections: 4, streams: 32 };
    let turns = world.take_turns::<2>(|which| {
        let (target, question) = (&apart_targets[which], &warm[which]);
        load::closed(target, question, width, world.lasts()).right().cpu_per_answer()
    });
    let figures = [0, 1].map(|which| number(turns.of(which).median(), "µs"));
    report.add(row("warm Verify, CPU per call", figures, turns.ratio(0, 1), 1.1));
    let turns = world
        .take_turns::<2>(|which| 1e6 / misses(&targets[which], [large, &small][which], 800).rate());
    let figures = [0, 1].map(|which| number(turns.of(which).median(), "µs"));
    report.add(row("miss, time per call", figures, turns.ratio(0, 1), 1.5));
    for server in servers {
        server.stop().await;
    }
}

/// A process that knows nothing and gets the whole load at once.
pub(crate) async fn cold(world: &World, report: &mut Report) {
    let seeds = world.seeds().await;
    let live = world.scale(100_000, 10_000);
    let mut rows: Vec<usize> = seeds.all().take(live).collect();
    // In an order of no meaning.
    rows.sort_by_key(|row| row.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let tokens: Vec<String> = rows.into_iter().map(seeds::token).collect();
    let server = Contender::server("server", &seeds.place, &[], None).await;
    let target = server.target(&seeds.verifier());
    let asks = Arc::new(AtomicBool::new(true));
    let sampled = tokio::spawn(peak(seeds.connect().await.unwrap(), Arc::clone(&asks)));
    let since = Instant::now();
    let width = Width { connections: 16, streams: 16 };
    let first = load::closed(&target, &Question::verify(&tokens).once(), width, Duration::MAX);
    let warm_after = since.elapsed();
    asks.store(false, Ordering::Relaxed);
    let peak = sampled.await.unwrap();
    let later = load::closed(&target, &Question::verify(&tokens), width, world.lasts());
    let row = |what: &str, value, unit, goal| Row {
        what: format!("cold start, {live} tokens, 256 callers: {what}"),
        figure: String::new(),
        against: String::new(),
        measured: Measured::Rounds(Rounds::one(value), unit),
        goal,
    };
    report.add(row("until all are known", warm_after.as_secs_f64(), "s", None));
    report.add(row("answers meanwhile", first.rate(), "/s", None));
    report.add(row("answers afterwards", later.rate(), "/s", None));
    report.add(row("p99 meanwhile", first.percentile(99.0), "ms", None));
    report.add(row("most statements at once", peak as f64, "", None));
    let errors = (first.errors + later.errors) as f64;
    report.add(row("errors", errors, "", Some(Goal::AtMost(0.0))));
    if let Some(error) = first.first_error.or(later.first_error) {
        say(&format!("({error})"));
    }
    server.stop().await;
}

/// The most statements that the program had under way at once, while `asks`.
async fn peak(mut connection: sqlx::PgConnection, asks: Arc<AtomicBool>) -> i64 {
    let active = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
        AND application_name = 'token-authority' AND datname = current_database()";
    let mut most = 0;
    while asks.load(Ordering::Relaxed) {
        let row = sqlx::query(active).fetch_one(&mut connection).await.unwrap();
        most = most.max(row.get(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    most
}
