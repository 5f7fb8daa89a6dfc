//! The connections by which tokens are looked up.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, Pool};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use super::{Connection, Db, finding};
use crate::{
    domain::{Digest, PepperId},
    store::{Lookup, Lookups, StoreError, Unloaded, Wanted, Workspaces, gathering::Gathering},
};

/// How old a connection becomes, and how long it is kept unused.
const LIFETIME: Duration = Duration::from_hours(1);
const UNUSED: Duration = Duration::from_mins(10);

/// A few connections, each kept from one statement to the next: a pool asks the server
/// whether it is still there before and after each, which takes as long as to look a
/// token up. Who asks while all are busy is gathered with the others who wait.
pub(in super::super) struct Lines {
    /// What makes connections; it has none of them.
    connector: Pool<Db>,
    kept: Mutex<Vec<Kept>>,
    places: Semaphore,
    /// Of those who bring many questions of their own.
    batches: Semaphore,
    gathering: Arc<Gathering<Asked, Result<Lookup, StoreError>>>,
    /// How long it is waited for one of them, and then for an answer.
    wait: Duration,
    patience: Duration,
}

struct Kept {
    connection: Connection,
    made: Instant,
    used: Instant,
}

/// What is asked about one token.
struct Asked {
    digests: Vec<Digest>,
    shown: String,
    loaded: Vec<PepperId>,
    required: Option<String>,
    askers: Option<String>,
}

impl Lines {
    /// So many connections as `connector` makes them, for each of which it is waited so
    /// long, and then for what it answers.
    pub(in super::super) fn of(
        connector: Pool<Db>,
        count: usize,
        wait: Duration,
        patience: Duration,
    ) -> Arc<Self> {
        Arc::new(Self {
            connector,
            kept: Mutex::default(),
            places: Semaphore::new(count),
            batches: Semaphore::new((count / 2).max(1)),
            gathering: Gathering::on(count),
            wait,
            patience,
        })
    }

    /// What is there of one token, read with others if there are such.
    pub(super) async fn find(self: &Arc<Self>, wanted: Wanted<'_>) -> Result<Lookup, StoreError> {
        let lines = Arc::clone(self);
        let answer = move |asked| Arc::clone(&lines).answer(asked);
        let answered = self.gathering.ask(Asked::of(wanted), answer);
        match timeout(self.wait + self.patience, answered).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Err(StoreError::Failed("a read was given up".into())),
            Err(elapsed) => Err(StoreError::Unavailable(elapsed.into())),
        }
    }

    async fn answer(self: Arc<Self>, asked: Vec<Asked>) -> Vec<Result<Lookup, StoreError>> {
        let wanted: Vec<Wanted<'_>> = asked.iter().map(Asked::wanted).collect();
        match self.look_up(&wanted).await {
            Ok(all) => all.lookups,
            Err(error) => asked.iter().map(|_| Err(error.again())).collect(),
        }
    }

    /// What is there of several, of one instant. Only half of the connections are for that,
    /// and who hangs up costs none of them.
    pub(super) async fn find_all(
        self: &Arc<Self>,
        wanted: &[Wanted<'_>],
    ) -> Result<Lookups, StoreError> {
        let asked: Vec<Asked> = wanted.iter().copied().map(Asked::of).collect();
        let lines = Arc::clone(self);
        let answered = tokio::spawn(async move {
            let _place = lines.place(&lines.batches).await?;
            let wanted: Vec<Wanted<'_>> = asked.iter().map(Asked::wanted).collect();
            lines.look_up(&wanted).await
        });
        answered.await.unwrap_or_else(|_| Err(StoreError::Failed("a read was given up".into())))
    }

    async fn place<'s>(&self, places: &'s Semaphore) -> Result<SemaphorePermit<'s>, StoreError> {
        let place = timeout(self.wait, places.acquire()).await;
        let place = place.map_err(|_| sqlx::Error::PoolTimedOut)?;
        Ok(place.map_err(|_closed| sqlx::Error::PoolClosed)?)
    }

    async fn look_up(&self, wanted: &[Wanted<'_>]) -> Result<Lookups, StoreError> {
        let _place = self.place(&self.places).await?;
        if let Some(kept) = self.kept() {
            match self.find_on(kept, wanted).await {
                // The server was there again before this was noticed.
                Err(error) if has_hung_up(&error) => self.lock().clear(),
                found => return found,
            }
        }
        let connection = self.connector.acquire().await?.detach();
        let now = Instant::now();
        self.find_on(Kept { connection, made: now, used: now }, wanted).await
    }

    /// The connection is kept if all went well: what it was given up on may come later.
    async fn find_on(&self, mut on: Kept, wanted: &[Wanted<'_>]) -> Result<Lookups, StoreError> {
        let found = timeout(self.patience, finding::find_all(&mut on.connection, wanted)).await;
        let found = found.map_err(|elapsed| {
            // The others lead to the same server.
            self.lock().clear();
            StoreError::Unavailable(elapsed.into())
        })??;
        on.used = Instant::now();
        self.lock().push(on);
        Ok(found)
    }

    /// The one that was used last.
    fn kept(&self) -> Option<Kept> {
        let kept = self.lock().pop()?;
        (kept.made.elapsed() < LIFETIME && kept.used.elapsed() < UNUSED).then_some(kept)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn close(&self) {
        self.places.close();
        self.batches.close();
        let kept = std::mem::take(&mut *self.lock());
        for Kept { connection, .. } in kept {
            let _ = connection.close().await;
        }
        self.connector.close().await;
    }
}

impl Asked {
    fn of(wanted: Wanted<'_>) -> Self {
        Self {
            digests: wanted.digests.to_vec(),
            shown: wanted.unloaded.shown.to_owned(),
            loaded: wanted.unloaded.loaded.to_vec(),
            required: wanted.workspaces.required.map(ToOwned::to_owned),
            askers: wanted.workspaces.askers.map(ToOwned::to_owned),
        }
    }

    fn wanted(&self) -> Wanted<'_> {
        Wanted {
            digests: &self.digests,
            unloaded: Unloaded { shown: &self.shown, loaded: &self.loaded },
            workspaces: Workspaces {
                required: self.required.as_deref(),
                askers: self.askers.as_deref(),
            },
        }
    }
}

/// Whether the server is no longer at the other end.
fn has_hung_up(error: &StoreError) -> bool {
    let StoreError::Unavailable(error) = error else { return false };
    error.downcast_ref().is_some_and(super::super::has_hung_up)
}
