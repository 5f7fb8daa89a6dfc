//! Stores with as many tokens as are wanted, put there by SQL.

use std::{
    fmt::Write as _,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use token_authority::domain::{Pepper, Token};

use crate::{
    process::Contender,
    support::{self, postgres::Cluster, server::Place},
};

/// The key of the pepper.
const KEY: [u8; 32] = [7; 32];
const USERS: usize = 1_000;
const WORKSPACES: usize = 100;
/// How many of the tokens are past their end.
pub(crate) const EXPIRED: usize = 1_000;
/// How many rows there are beside for whoever asks by SQL alone: the digest of the nth
/// is the SHA-256 of its number.
const PLAIN: usize = 100_000;
/// Their numbers.
pub(crate) const PLAIN_NUMBERS: Range<usize> = 1..PLAIN + 1;

/// A store, and how far its tokens have been used.
pub(crate) struct Seeds {
    pub(crate) place: Place,
    /// How many tokens there are.
    pub(crate) stored: usize,
    /// An administrator's token.
    pub(crate) admin: String,
    used: AtomicUsize,
}

impl Seeds {
    /// A database of this name with so many tokens.
    pub(crate) async fn sow(cluster: &Cluster, stored: usize) -> Self {
        let place = Place {
            directory: support::directory(),
            database_url: Some(cluster.empty_database().await),
        };
        std::fs::write(place.path("pepper-of-test"), Pepper::to_file(&KEY).as_bytes())
            .expect("the directory is there");
        // The schema and what belongs to an empty store are the program's own.
        let server = Contender::server("server", &place, &[], None).await;
        server.stop().await;
        let admin = place.admin_token();
        let seeds = Self { place, stored, admin, used: AtomicUsize::new(0) };
        seeds.fill().await.expect("the rows fit the schema");
        seeds
    }

    /// A token that may ask about any.
    pub(crate) fn verifier(&self) -> String {
        token(0)
    }

    /// Tokens that are past their end.
    pub(crate) fn expired(&self) -> Vec<String> {
        (1..=EXPIRED).map(token).collect()
    }

    /// Good tokens that nobody asked about before, at most so many.
    pub(crate) fn fresh(&self, count: usize) -> Range<usize> {
        let from = self.used.fetch_add(count, Ordering::Relaxed);
        let at = |used: usize| (1 + EXPIRED + used).min(self.stored);
        at(from)..at(from + count)
    }

    /// As many tokens as there are, and may have been asked about.
    pub(crate) fn all(&self) -> Range<usize> {
        1 + EXPIRED..self.stored
    }

    pub(crate) fn connect(&self) -> impl Future<Output = sqlx::Result<PgConnection>> + use<> {
        let url = self.place.database_url.clone().expect("it is PostgreSQL's");
        async move { PgConnection::connect(&url).await }
    }

    async fn fill(&self) -> sqlx::Result<()> {
        let mut connection = self.connect().await?;
        let at = sqlx::query("SELECT min(created_at) FROM users").fetch_one(&mut connection);
        let at: i64 = at.await?.try_get(0)?;
        run(&mut connection, &directory(at)).await?;
        let stored = self.stored;
        let pepper: Pepper = Pepper::to_file(&KEY).parse().expect("it is one");
        let credentials = Table {
            name: "credentials",
            columns: "id, kind, user_id, workspace_id, organization_id, membership_id, name, \
                description, scopes, allowed_ips, created_by_user_id, created_at, updated_at, \
                expires_at, store_epoch, user_epoch, workspace_epoch, organization_epoch",
            unique: None,
            line: Box::new(move |row, text| credential(row, at, text)),
        };
        let secrets = Table {
            name: "secrets",
            columns: "id, credential_id, digest, pepper_id, record, shown, state, created_at, \
                expires_at, proved_at",
            unique: Some("digest"),
            line: Box::new(move |row, text| {
                let (digest, shown) = if row < stored {
                    let token: Token = token(row).parse().expect("it is one");
                    (hex(pepper.digest(&token).as_bytes()), token.shown().to_owned())
                } else {
                    let number = row - stored + PLAIN_NUMBERS.start;
                    (hex(&Sha256::digest(number.to_string())), format!("pat_{number:08}"))
                };
                secret(row, at, &digest, pepper.id().as_str(), &shown, text);
            }),
        };
        let rows = 0..self.stored + PLAIN;
        let filled = [credentials, secrets]
            .map(|table| tokio::spawn(table.fill(self.connect(), rows.clone())));
        for filled in filled {
            filled.await.expect("it does not panic")?;
        }
        run(&mut connection, "VACUUM (ANALYZE)").await?;
        run(&mut connection, "CHECKPOINT").await?;
        connection.close().await
    }
}

/// Appends the line of `COPY` for a row.
type Line = Box<dyn Fn(usize, &mut String) + Send>;

/// A table, and what fills it.
struct Table {
    name: &'static str,
    columns: &'static str,
    /// The column that is unique beside the key.
    unique: Option<&'static str>,
    line: Line,
}

impl Table {
    async fn fill(
        self,
        connection: impl Future<Output = sqlx::Result<PgConnection>>,
        rows: Range<usize>,
    ) -> sqlx::Result<()> {
        let name = self.name;
        let mut connection = connection.await?;
        // What refers to what is known to be there.
        let set = "SET session_replication_role = replica; SET maintenance_work_mem = '512MB'";
        run(&mut connection, set).await?;
        // Indexes are faster made than kept.
        let indexes = format!(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = '{name}' \
             AND indexname NOT IN (SELECT conname FROM pg_constraint)"
        );
        let indexes: Vec<(String, String)> =
            sqlx::query_as(AssertSqlSafe(indexes)).fetch_all(&mut connection).await?;
        for (index, _) in &indexes {
            run(&mut connection, &format!("DROP INDEX {index}")).await?;
        }
        if let Some(column) = self.unique {
            let dropped = format!("ALTER TABLE {name} DROP CONSTRAINT {name}_{column}_key");
            run(&mut connection, &dropped).await?;
        }
        let statement = format!("COPY {name} ({}) FROM STDIN", self.columns);
        let mut copy = connection.copy_in_raw(&statement).await?;
        let mut text = String::new();
        for row in rows {
            (self.line)(row, &mut text);
            if text.len() > 1 << 20 {
                copy.send(text.as_bytes()).await?;
                text.clear();
            }
        }
        copy.send(text.as_bytes()).await?;
        copy.finish().await?;
        if let Some(column) = self.unique {
            let made = format!("ALTER TABLE {name} ADD UNIQUE ({column})");
            run(&mut connection, &made).await?;
        }
        for (_, definition) in &indexes {
            run(&mut connection, definition).await?;
        }
        connection.close().await
    }
}

/// Users, organizations, workspaces and memberships.
fn directory(at: i64) -> String {
    let kind = "'human'";
    format!(
        "INSERT INTO users (id, handle, kind, is_admin, is_active, external_id, created_at, updated_at) \
         SELECT 'zzzzz-tpzed-bench' || lpad(n::text, 10, '0'), 'bench-' || n, {kind}, FALSE, TRUE, \
         'sso|' || lpad(n::text, 12, '0'), {at}, {at} FROM generate_series(0, {last_user}) n;
         INSERT INTO organizations (id, slug, name, external_id, is_active, created_at, updated_at) \
         SELECT '01980000-0000-7000-a000-' || lpad(n::text, 12, '0'), 'org-' || n, 'Organization', \
         'org|' || n, TRUE, {at}, {at} FROM generate_series(0, 9) n;
         INSERT INTO workspaces (id, organization_id, slug, name, external_id, is_active, created_at, updated_at) \
         SELECT '01980000-0000-7000-b000-' || lpad(n::text, 12, '0'), \
         '01980000-0000-7000-a000-' || lpad((n % 10)::text, 12, '0'), 'workspace-' || n, \
         'Workspace', 'ws|' || n, TRUE, {at}, {at} FROM generate_series(0, {last_workspace}) n;
         INSERT INTO memberships (id, user_id, workspace_id, role, created_at, updated_at) \
         SELECT '01980000-0000-7000-c000-' || lpad(n::text, 12, '0'), \
         'zzzzz-tpzed-bench' || lpad(n::text, 10, '0'), \
         '01980000-0000-7000-b000-' || lpad((n % {WORKSPACES})::text, 12, '0'), 'member', {at}, {at} \
         FROM generate_series(0, {last_user}) n",
        last_user = USERS - 1,
        last_workspace = WORKSPACES - 1,
    )
}

/// The id of a user.
pub(crate) fn user_id(number: usize) -> String {
    format!("zzzzz-tpzed-bench{:010}", number % USERS)
}

/// The id of the credential in this row.
pub(crate) fn credential_id(row: usize) -> String {
    format!("01980000-0000-7000-8000-{row:012x}")
}

/// The token of the credential in this row.
pub(crate) fn token(row: usize) -> String {
    let random = Sha256::digest(format!("token of a benchmark {row}"));
    let prefix = "pat_".parse().expect("it is one");
    Token::from_random(&prefix, &random.into()).expose().to_owned()
}

/// The line of `COPY` for a row of credentials: the first is the verifier's, the next
/// are expired, and each of the others is bound to its user's workspace.
fn credential(row: usize, at: i64, text: &mut String) {
    let id = credential_id(row);
    let user = user_id(row);
    let workspace = row % USERS % WORKSPACES;
    let organization = workspace % 10;
    let expires_at = if (1..=EXPIRED).contains(&row) { (at - 1).to_string() } else { null() };
    let written = if row == 0 {
        writeln!(
            text,
            "{id}\tpersonal_access_token\t{user}\t\\N\t\\N\t\\N\tverifier\t\t[\"verify:tokens\"]\t[]\t\
             {user}\t{at}\t{at}\t\\N\t0\t0\t\\N\t\\N"
        )
    } else {
        writeln!(
            text,
            "{id}\tpersonal_access_token\t{user}\t01980000-0000-7000-b000-{workspace:012}\t\
             01980000-0000-7000-a000-{organization:012}\t01980000-0000-7000-c000-{member:012}\t\
             token {row}\t\t[\"read:documents\",\"write:documents\",\"read:projects\"]\t[]\t\
             {user}\t{at}\t{at}\t{expires_at}\t0\t0\t0\t0",
            member = row % USERS,
        )
    };
    written.expect("a text takes it");
}

/// The same of a row of secrets.
fn secret(row: usize, at: i64, digest: &str, pepper_id: &str, shown: &str, text: &mut String) {
    writeln!(
        text,
        "01980000-0000-7000-9000-{row:012x}\t{id}\t\\\\x{digest}\t{pepper_id}\t\
         $argon2id$v=19$m=1024,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$\
         AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\t{shown}\tcurrent\t{at}\t\\N\t{at}",
        id = credential_id(row),
    )
    .expect("a text takes it");
}

fn null() -> String {
    "\\N".to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a text takes it");
        text
    })
}

async fn run(connection: &mut PgConnection, statements: &str) -> sqlx::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statements.to_owned())).execute(connection).await?;
    Ok(())
}
