//! How the engines find what is asked for among very many: by indexes.
//!
//! The statements are nobody's to see. What is explained here is what the library
//! under the store says that it ran, so it can't be anything else.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{LazyLock, Mutex},
};

use serde_json::json;
use sqlx::Row as _;
use token_authority::{domain::parse_order, store::AuthorizationQuery};
use tracing::{Event, Metadata, field, span};

use super::{
    authorizations::{condition, everything},
    *,
};

on_both_stores![what_is_found_among_very_many_is_found_by_an_index];

const CREDENTIALS: i64 = 100_000;
const USERS: i64 = 10;
/// The first numbers of users and credentials in their ids, of 15 digits.
const BASE: i64 = 100_000_000_000_000;

/// Every statement that any test of this process ran.
static STATEMENTS: LazyLock<Mutex<BTreeSet<String>>> = LazyLock::new(|| {
    tracing::subscriber::set_global_default(Listener).unwrap();
    Mutex::default()
});

struct Listener;

impl tracing::Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "sqlx::query"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Statement);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Statement;

impl field::Visit for Statement {
    fn record_str(&mut self, field: &field::Field, value: &str) {
        if field.name() == "db.statement" {
            STATEMENTS.lock().unwrap().insert(value.trim().to_owned());
        }
    }

    fn record_debug(&mut self, _: &field::Field, _: &dyn fmt::Debug) {}
}

/// The one statement that was run which is so.
fn ran(what: impl Fn(&str) -> bool) -> String {
    let statements = STATEMENTS.lock().unwrap().clone();
    let found: Vec<&String> = statements
        .iter()
        .filter(|text| ["SELECT", "DELETE"].iter().any(|verb| text.starts_with(verb)) && what(text))
        .collect();
    let [statement] = found[..] else { panic!("{found:#?}") };
    statement.clone()
}

impl Sql {
    /// What it does for a statement, a step a line.
    async fn explain(&mut self, mode: &str, statement: &str, values: &[&str]) -> String {
        let explain = match self {
            Self::Postgres(_) => {
                self.run(&format!("SET plan_cache_mode = {mode}")).await.unwrap();
                self.run(&format!("PREPARE asked AS {statement}")).await.unwrap();
                format!("EXPLAIN EXECUTE asked ({})", values.join(", "))
            }
            Self::Sqlite(_) => format!("EXPLAIN QUERY PLAN {statement}"),
        };
        let explain = sqlx::AssertSqlSafe(explain);
        match self {
            Self::Postgres(connection) => {
                let steps: Vec<String> =
                    sqlx::query_scalar(explain).fetch_all(&mut *connection).await.unwrap();
                self.run("DEALLOCATE asked").await.unwrap();
                steps.join("\n")
            }
            Self::Sqlite(connection) => {
                let steps = sqlx::query(explain).fetch_all(connection).await.unwrap();
                let steps: Vec<String> = steps.iter().map(|step| step.get("detail")).collect();
                steps.join("\n")
            }
        }
    }
}

/// SQL for very many credentials of many users, of which ten at a time were made at
/// once, and half end.
fn very_many(engine: Engine) -> String {
    // What is made here needs no checks, which take longer than all the rest.
    let (unchecked, digest) = match engine {
        Engine::Postgres => (
            "SET session_replication_role = replica",
            "decode(md5(CAST(i AS TEXT)) || md5(CAST(-i AS TEXT)), 'hex')",
        ),
        Engine::Sqlite => ("PRAGMA foreign_keys = OFF; PRAGMA synchronous = OFF", "randomblob(32)"),
    };
    let numbers = |last: i64| {
        format!(
            "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {last} - 1) "
        )
    };
    format!(
        "{unchecked}; {users} INSERT INTO users (id, handle, kind, is_admin, is_active, \
         created_at, updated_at) SELECT 'zzzzz-tpzed-' || ({BASE} + i), 'user' || i, 'human', FALSE, TRUE, 0, 0 FROM n; \
         {credentials} INSERT INTO credentials (id, kind, user_id, scopes, sorted_scopes, \
         allowed_ips, created_by_user_id, created_at, updated_at, expires_at, store_epoch, \
         user_epoch) SELECT 'zzzzz-gj3su-' || ({BASE} + i), 'api_client_authorization', \
         'zzzzz-tpzed-' || ({BASE} + i % {USERS}), '[\"all\"]', '[\"all\"]', '[]', \
         'zzzzz-tpzed-' || ({BASE} + i % {USERS}), {NOW} + i / 10, 0, \
         CASE WHEN i % 2 = 0 THEN {NOW} + i END, 0, 0 FROM n; \
         {credentials} INSERT INTO secrets (id, credential_id, digest, pepper_id, record, shown, \
         state, created_at) SELECT 's' || i, 'zzzzz-gj3su-' || ({BASE} + i), {digest}, '{pepper}', \
         '$a$b', 'a' || i, 'current', 0 FROM n; \
         {credentials} INSERT INTO verifier_uses (credential_id, verifier_id, client_ip, \
         last_used_at) SELECT 'zzzzz-gj3su-' || ({BASE} + i), '', '', {NOW} FROM n; \
         {credentials} INSERT INTO changes (revision, mark, changed_at, touched) \
         SELECT i + 1, i, 0, '[]' FROM n; {analyze}",
        // Nobody does so to the embedded store.
        analyze = if engine == Engine::Postgres { "ANALYZE" } else { "" },
        users = numbers(USERS),
        credentials = numbers(CREDENTIALS),
        pepper = pepper().id().as_str(),
    )
}

/// What is listed, and with which index.
struct Case {
    owner: bool,
    filters: &'static [(&'static str, &'static str, &'static str)],
    order: &'static [&'static str],
    /// The text between what all such statements have and the order, and the order.
    text: [&'static str; 2],
    /// What is bound before the limit, for PostgreSQL.
    values: &'static [&'static str],
    /// In PostgreSQL and in SQLite.
    indexes: [&'static str; 2],
}

const NEWEST: &str = "c.created_at DESC, c.id DESC";
const OLDEST: &str = "c.created_at ASC, c.id ASC";
/// They are the owner and the credential of these numbers.
const OWNER: &str = "zzzzz-tpzed-100000000000007";
const UUID: &str = "zzzzz-gj3su-100000000005000";
/// A thousand microseconds after [`NOW`].
const SOON: &str = "2027-01-15T08:00:00.124457Z";
const SECRET: &str = "00000000000000000000000000000000000000000000000001";

const CASES: [Case; 10] = [
    Case {
        owner: true,
        filters: &[],
        order: &[],
        text: [" AND c.user_id = $1", NEWEST],
        values: &["'zzzzz-tpzed-100000000000007'"],
        indexes: ["credentials_of_user_not_revoked"; 2],
    },
    Case {
        owner: false,
        filters: &[],
        order: &[],
        text: ["", NEWEST],
        values: &[],
        indexes: ["credentials_newest"; 2],
    },
    Case {
        owner: true,
        filters: &[("uuid", "=", UUID)],
        order: &[],
        text: [" AND c.user_id = $1 AND ((c.id = $2))", NEWEST],
        values: &["'zzzzz-tpzed-100000000000007'", "'zzzzz-gj3su-100000000005000'"],
        indexes: ["credentials_pkey", "sqlite_autoindex_credentials_1"],
    },
    Case {
        owner: false,
        filters: &[("uuid", "=", UUID)],
        order: &[],
        text: [" AND ((c.id = $1))", NEWEST],
        values: &["'zzzzz-gj3su-100000000005000'"],
        indexes: ["credentials_pkey", "sqlite_autoindex_credentials_1"],
    },
    Case {
        owner: false,
        filters: &[("api_token", "=", SECRET)],
        order: &[],
        text: [" AND ((c.id IN (SELECT credential_id FROM secrets WHERE digest = $1)))", NEWEST],
        values: &["decode(repeat('00', 32), 'hex')"],
        indexes: ["secrets_digest_key", "sqlite_autoindex_secrets_2"],
    },
    Case {
        owner: false,
        filters: &[("expires_at", "<", SOON)],
        order: &[],
        text: [" AND (c.expires_at < $1)", NEWEST],
        values: &["1800000000124457"],
        // Without statistics SQLite takes those in order until there are enough.
        indexes: ["credentials_expires_at", "credentials_newest"],
    },
    Case {
        owner: true,
        filters: &[("expires_at", "<", SOON)],
        order: &[],
        text: [" AND c.user_id = $1 AND (c.expires_at < $2)", NEWEST],
        values: &["'zzzzz-tpzed-100000000000007'", "1800000000124457"],
        indexes: ["credentials_expires_at", "credentials_live"],
    },
    Case {
        owner: true,
        filters: &[("created_at", ">=", SOON), ("uuid", "!=", UUID)],
        order: &["created_at asc", "uuid asc"],
        text: [
            " AND c.user_id = $1 AND (c.created_at >= $2) AND ((NOT coalesce(c.id = $3, FALSE)))",
            OLDEST,
        ],
        values: &[
            "'zzzzz-tpzed-100000000000007'",
            "1800000000124457",
            "'zzzzz-gj3su-100000000005000'",
        ],
        indexes: ["credentials_of_user_not_revoked"; 2],
    },
    Case {
        owner: false,
        filters: &[("created_at", ">=", SOON), ("uuid", "!=", UUID)],
        order: &["created_at asc", "uuid asc"],
        text: [" AND (c.created_at >= $2) AND ((NOT coalesce(c.id = $3, FALSE)))", OLDEST],
        values: &["1800000000124457", "'zzzzz-gj3su-100000000005000'"],
        indexes: ["credentials_newest"; 2],
    },
    Case {
        owner: false,
        filters: &[("created_at", "=", SOON), ("uuid", ">", UUID)],
        order: &["created_at asc", "uuid asc"],
        text: [" AND ((c.created_at = $2)) AND (c.id > $3)", OLDEST],
        values: &["1800000000124457", "'zzzzz-gj3su-100000000005000'"],
        indexes: ["credentials_newest"; 2],
    },
];

async fn what_is_found_among_very_many_is_found_by_an_index(engine: Engine) {
    LazyLock::force(&STATEMENTS);
    let store = TestStore::new(engine).await;
    store.sql(&very_many(engine)).await;
    let mut sql = Sql::open(&store.place).await;

    // Prepared once, and planned once for whatever is bound.
    store.look_up(&[]).await;
    let find = ran(|text| text.contains("LEFT JOIN secrets s ON s.digest IN ("));
    let plan = sql.explain("force_generic_plan", &find, &["NULL"; 11]).await;
    assert_led(engine, &plan, ["secrets_digest_key", "sqlite_autoindex_secrets_2"]);
    assert_led(engine, &plan, ["credentials_pkey", "sqlite_autoindex_credentials_1"]);
    store.find_all(&[]).await.unwrap();
    let (rows_of, clock) = match engine {
        Engine::Postgres => ("jsonb_array_elements(", "clock_timestamp()"),
        Engine::Sqlite => ("json_each", "NULL, TRUE"),
    };
    let find_all = ran(|text| text.contains("AS head_number") && text.contains(rows_of));
    let plan = sql.explain("force_generic_plan", &find_all, &["NULL"; 5]).await;
    assert_led(engine, &plan, ["secrets_digest_key", "sqlite_autoindex_secrets_2"]);
    assert_led(engine, &plan, ["credentials_pkey", "sqlite_autoindex_credentials_1"]);
    assert_led(engine, &plan, ["secrets_shown"; 2]);
    store.changes(store.head().await.unwrap()).await.unwrap();
    let changes = ran(|text| text.contains("LEFT JOIN changes") && text.contains(clock));
    let plan = sql.explain("force_generic_plan", &changes, &["NULL"; 2]).await;
    assert_led(engine, &plan, ["changes_pkey", "SEARCH c USING INTEGER PRIMARY KEY"]);
    let target = Target { id: UUID, kind: Kind::ApiClientAuthorization, reach: &ANYWHERE };
    assert_eq!(store.credential(target).await.unwrap().unwrap().credential.id.0, UUID);
    let get = ran(|text| text.ends_with("AND c.id = $1 AND c.kind = $2"));
    let plan = sql.explain("force_generic_plan", &get, &["NULL"; 5]).await;
    assert_led(engine, &plan, ["credentials_pkey", "sqlite_autoindex_credentials_1"]);

    store.list_uses(&CredentialId(UUID.to_owned()), None, 10).await.unwrap();
    let uses = ran(|text| text.contains("LEFT JOIN verifier_uses"));
    let plan = sql.explain("force_generic_plan", &uses, &["NULL"; 4]).await;
    assert_led(engine, &plan, ["verifier_uses_pkey", "sqlite_autoindex_verifier_uses_1"]);
    assert_led(engine, &plan, ["credentials_pkey", "sqlite_autoindex_credentials_1"]);
    store.known(&[], None).await.unwrap();
    let texts_of = match engine {
        Engine::Postgres => "SELECT c.id FROM jsonb_array_elements_text(",
        Engine::Sqlite => "SELECT c.id FROM json_each(",
    };
    let known = ran(|text| text.starts_with(texts_of));
    let plan = sql.explain("force_generic_plan", &known, &["NULL"; 2]).await;
    assert_led(engine, &plan, ["credentials_pkey", "sqlite_autoindex_credentials_1"]);

    store.forget_history(at(-DAY), None, &service()).await.unwrap();
    let oldest = ran(|text| text.starts_with("SELECT max(o.revision)"));
    let plan = sql.explain("force_generic_plan", &oldest, &["NULL"; 3]).await;
    let in_order = ["Index Scan using changes_pkey", "SCAN c"];
    assert!(plan.contains(in_order[usize::from(engine == Engine::Sqlite)]), "{plan}");
    assert!(!plan.contains("SORT") && !plan.contains("TEMP B-TREE"), "{plan}");
    store.purge(at(-DAY), &service()).await.unwrap();
    let dead = ran(|text| text.starts_with("DELETE FROM credentials WHERE (revoked_at"));
    let ago = (NOW - DAY).to_string();
    let plan = sql.explain("force_custom_plan", &dead, &[&ago, "1000"]).await;
    assert_led(engine, &plan, ["credentials_revoked_at"; 2]);
    assert_led(engine, &plan, ["credentials_expires_at"; 2]);
    let replaced = ran(|text| text.starts_with("DELETE FROM secrets WHERE id IN"));
    let plan = sql.explain("force_custom_plan", &replaced, &[&ago, "1000"]).await;
    assert_led(engine, &plan, ["secrets_superseded"; 2]);
    store.reached(store.head().await.unwrap()).await.unwrap();
    let reached = ran(|text| text.starts_with("SELECT CASE WHEN $1 < r.number"));
    let plan = sql.explain("force_generic_plan", &reached, &["NULL"; 2]).await;
    assert_led(engine, &plan, ["changes_pkey", "SEARCH c USING INTEGER PRIMARY KEY"]);

    // Planned for what is bound.
    for case in CASES {
        let reach = Reach { owner: case.owner.then(|| OWNER.parse().unwrap()), ..Reach::default() };
        let parse = |(attribute, operator, operand): &(&str, &str, &str)| {
            condition(attribute, operator, &json!(operand))
        };
        let query = AuthorizationQuery {
            conditions: case.filters.iter().map(parse).collect(),
            order: case.order.iter().map(|text| parse_order(text).unwrap()).collect(),
            limit: 100,
            counts: false,
            ..everything(&reach)
        };
        store.list_authorizations(&query).await.unwrap();
        let [conditions, order] = case.text;
        let of_all = if case.owner { "" } else { " AND length(c.kind) > 0" };
        let ending = without_numbers(&format!(
            "AND NOT (c.store_epoch < t.token_epoch OR c.user_epoch < u.token_epoch){of_all}{conditions} \
             ORDER BY {order} LIMIT $ OFFSET $) AS found) ORDER BY {order}"
        ));
        let list = ran(|text| {
            let is_of_engine = text.contains(" LIMIT $") == (engine == Engine::Postgres);
            is_of_engine && without_numbers(text).ends_with(&ending)
        });
        let values: Vec<&str> = case.values.iter().copied().chain(["100", "0"]).collect();
        let plan = sql.explain("force_custom_plan", &list, &values).await;
        assert_led(engine, &plan, case.indexes);
    }
}

/// The places for what is bound are numbered by one engine alone.
fn without_numbers(statement: &str) -> String {
    let mut parts = statement.split('$');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |so_far, part| {
        so_far + "?" + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

/// Whether a plan uses this index, of a list to find what is on its page, and reads
/// neither table row by row.
#[track_caller]
fn assert_led(engine: Engine, plan: &str, [in_postgres, in_sqlite]: [&str; 2]) {
    let (index, scans): (_, &[&str]) = match engine {
        Engine::Postgres => (
            in_postgres,
            &["Seq Scan on credentials", "Seq Scan on secrets", "Seq Scan on verifier_uses"],
        ),
        Engine::Sqlite => (in_sqlite, &["SCAN c", "SCAN s", "SCAN n", "SCAN secrets"]),
    };
    // What is shown of the page is looked up by `credentials c` in any case.
    let is_list = plan.contains("credentials c_1") || plan.contains("CO-ROUTINE found");
    let shown = plan.find("CO-ROUTINE found").unwrap_or_default();
    let mut steps = plan[shown..].lines();
    let is_led =
        steps.any(|step| step.contains(index) && !(is_list && step.contains(" on credentials c ")));
    assert!(is_led, "not by {index}:\n{plan}");
    for scan in scans {
        let step = |line: &str| line.trim_start_matches(['-', '>', ' ']).to_owned() + " ";
        // In the order of an index it is as much as the page needs.
        let is_scan = |line: &str| {
            step(line).starts_with(&format!("{scan} ")) && !line.contains(" USING INDEX ")
        };
        assert!(!plan.lines().any(is_scan), "{scan}:\n{plan}");
    }
}
