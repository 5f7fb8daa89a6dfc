use sqlx::{Connection as _, Executor as _, PgConnection, SqliteConnection};

use super::server::Place;

/// Holds what every change needs, until it is released: calls that change
/// something wait.
pub(crate) enum Blocker {
    /// The rows of all users.
    Postgres(Box<PgConnection>),
    /// The one place to write.
    Sqlite(Box<SqliteConnection>),
}

/// How many calls wait for a row that another transaction holds, on PostgreSQL.
pub(crate) const WAITING: &str = "SELECT count(*) FROM pg_stat_activity \
    WHERE datname = current_database() AND wait_event_type = 'Lock'";

impl Blocker {
    pub(crate) async fn of_writes(place: &Place) -> Self {
        match &place.database_url {
            Some(url) => {
                let mut holder = PgConnection::connect(url).await.unwrap();
                holder.execute("BEGIN; SELECT id FROM users FOR UPDATE").await.unwrap();
                Self::Postgres(Box::new(holder))
            }
            None => {
                let path = place.path("data/token-authority.db");
                let mut holder = SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
                holder.execute("BEGIN IMMEDIATE").await.unwrap();
                Self::Sqlite(Box::new(holder))
            }
        }
    }

    pub(crate) async fn release(self) {
        match self {
            Self::Postgres(mut holder) => {
                holder.execute("ROLLBACK").await.unwrap();
            }
            Self::Sqlite(mut holder) => {
                holder.execute("ROLLBACK").await.unwrap();
            }
        }
    }
}
