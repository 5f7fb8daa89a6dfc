//! A copy of the database, which may be behind, away, or too slow.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::Pool;

use super::{Db, finding};
use crate::store::{Lookup, StoreError, Wanted};

/// How long it may take to answer before the primary is asked.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long it is left alone after it failed.
const REST: Duration = Duration::from_secs(2);

pub(in super::super) struct Replica {
    pool: Pool<Db>,
    rests_until: Mutex<Option<Instant>>,
}

impl Replica {
    /// What is read by these connections, if there are any.
    pub(in super::super) fn at(pool: Option<Pool<Db>>) -> Option<Self> {
        pool.map(|pool| Self { pool, rests_until: Mutex::default() })
    }

    /// What it finds; `None` if it can't be asked now.
    pub(super) async fn find(&self, wanted: Wanted<'_>) -> Option<Lookup> {
        if self.rests() {
            return None;
        }
        let lookup = async { finding::find(&mut *self.pool.acquire().await?, wanted).await };
        let error = match tokio::time::timeout(PATIENCE, lookup).await {
            Ok(Ok(lookup)) => return Some(lookup),
            // It may also be a copy that has not got so far as to have the schema.
            Ok(Err(error)) => error,
            Err(error) => StoreError::Unavailable(error.into()),
        };
        let error = &error as &dyn std::error::Error;
        tracing::warn!(error, "replica can't be read, the primary is asked for a while");
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Instant::now() + REST);
        None
    }

    fn rests(&self) -> bool {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}
