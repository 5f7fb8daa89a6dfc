//! What PostgreSQL can do by itself, as its own `pgbench` measures it.

use std::{fs, process::Command, time::Duration};

use sqlx::{AssertSqlSafe, Row as _};

use crate::{
    load::{self, Width},
    process::Contender,
    questions::Question,
    seeds::{self, PLAIN_NUMBERS, Seeds},
    world::{World, program},
};

/// Transactions a second of so many clients who run this script.
pub(crate) fn rate(seeds: &Seeds, script: &str, clients: usize, lasts: Duration) -> f64 {
    let file = seeds.place.path("script.sql");
    fs::write(&file, script).unwrap();
    let output = Command::new(program("pgbench"))
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2"])
        .arg(format!("--client={clients}"))
        .arg(format!("--time={}", lasts.as_secs().max(1)))
        .arg(format!("--file={}", file.display()))
        .arg(seeds.place.database_url.as_ref().unwrap())
        // As the server has it for its reading.
        .env("PGOPTIONS", "-c plan_cache_mode=force_generic_plan -c jit=off")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    said.lines()
        .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok())
        .unwrap_or_else(|| panic!("pgbench: {}", String::from_utf8_lossy(&output.stderr)))
}

/// The script that asks what a verification asks, of one of the plain rows at random.
///
/// What the server sends is read from PostgreSQL's log, with what it binds; the token's
/// digest alone is made anew each time.
pub(crate) async fn verification(world: &World, seeds: &Seeds) -> String {
    let cluster = world.cluster().await;
    let mut connection = seeds.connect().await.unwrap();
    let row = sqlx::query("SELECT current_database()").fetch_one(&mut connection).await.unwrap();
    let database: String = row.get(0);
    let set = async |connection: &mut sqlx::PgConnection, statement: String| {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await.unwrap();
    };
    let log = cluster.directory.join("log");
    let before = fs::read_to_string(&log).unwrap().len();
    let on = "SET log_min_duration_statement = 0";
    for statement in [on, "SET log_min_messages = warning"] {
        set(&mut connection, format!("ALTER DATABASE {database} {statement}")).await;
    }
    let server = Contender::server("server", &seeds.place, &[], None).await;
    let question = Question::verify(&seeds.fresh(1).map(seeds::token).collect::<Vec<_>>());
    load::once(&server.target(&seeds.verifier()), &question).await.unwrap();
    server.stop().await;
    set(&mut connection, format!("ALTER DATABASE {database} RESET ALL")).await;

    let log = fs::read_to_string(&log).unwrap();
    let (statement, bound) = log[before..]
        .lines()
        .zip(log[before..].lines().skip(1))
        .filter(|(statement, _)| statement.contains("execute") && statement.contains("digest IN"))
        .find_map(|(statement, bound)| {
            let statement = statement.split_once("execute ")?.1.split_once(": ")?.1;
            Some((statement.to_owned(), bound.split_once("parameters: ")?.1.to_owned()))
        })
        .expect("the server reads a token by its digest, as the log says");
    let bound: Vec<(String, String)> = bound
        .split(", $")
        .filter_map(|bound| bound.split_once(" = "))
        .map(|(name, value)| (format!("${}", name.trim_start_matches('$')), value.to_owned()))
        .collect();
    // Backwards, as $1 is the beginning of $10.
    let statement = bound.iter().rev().fold(statement, |statement, (name, value)| {
        let is_digest = value.starts_with(r"'\x") && value.len() == 2 + 2 + 64;
        let value = if is_digest { "sha256(CAST(CAST(:n AS text) AS bytea))" } else { value };
        statement.replace(name, value)
    });
    let found = statement.replace(":n", "1");
    let plan = format!("EXPLAIN {found}");
    let plan = sqlx::query(AssertSqlSafe(plan)).fetch_all(&mut connection).await.unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
    let by_index = plan.iter().any(|line| line.contains("secrets_digest_key"));
    assert!(by_index, "an index leads to the digest: {plan:#?}");
    let found = sqlx::query(AssertSqlSafe(found)).fetch_one(&mut connection).await.unwrap();
    assert!(found.get::<Option<String>, _>("secret_id").is_some(), "it finds a row");
    format!("\\set n random({}, {})\n{statement};\n", PLAIN_NUMBERS.start, PLAIN_NUMBERS.end - 1)
}

/// The script that commits a change of one row, the same each time.
pub(crate) async fn commit(seeds: &Seeds) -> &'static str {
    let mut connection = seeds.connect().await.unwrap();
    let made = "CREATE TABLE IF NOT EXISTS bench_row (id BIGINT PRIMARY KEY, n BIGINT); \
        INSERT INTO bench_row VALUES (1, 0) ON CONFLICT DO NOTHING";
    sqlx::raw_sql(made).execute(&mut connection).await.unwrap();
    "UPDATE bench_row SET n = n + 1 WHERE id = 1;\n"
}

/// How many calls are under way at once where the store is asked, and of how many
/// clients `pgbench` has.
pub(crate) const CALLERS: Width = Width { connections: 4, streams: 4 };
