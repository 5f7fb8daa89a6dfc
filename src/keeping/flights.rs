//! Reads that are under way: who asks for the same at the same time waits for the same
//! one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::{
    history::Known,
    key::{AsItIs, Key},
};
use crate::{clock::Uptime, error::Error, store::StoreError};

/// How many reads are under way at once, also of those who hung up meanwhile.
const MAX_UNDER_WAY: usize = 1_024;

/// What came of a read, for everybody who waited for it.
type Landed<T> = Result<Arc<T>, Arc<Error>>;

/// Reads by the keys of what is read.
pub(super) struct Flights<T>(Mutex<HashMap<Key, Flight<T>, AsItIs>>);

struct Flight<T> {
    begun: Begun,
    landed: watch::Receiver<Option<Landed<T>>>,
}

/// When a read began, and the newest change that was known of then, though the read may
/// not know of that one if it was not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begun {
    pub(super) at: Uptime,
    pub(super) known: Known,
}

impl<T: Send + Sync + 'static> Flights<T> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// What `read` gives, or the same read of somebody else that began no earlier than
    /// `since` and when no less was known. It goes on though nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// What became of the read.
    pub(super) async fn join<F>(
        self: &Arc<Self>,
        key: Key,
        since: Begun,
        now: Begun,
        read: impl FnOnce() -> F,
    ) -> Landed<T>
    where
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let mut landed = {
            let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(&key) {
                Some(Flight { begun, landed })
                    if begun.at >= since.at && begun.known >= since.known =>
                {
                    landed.clone()
                }
                Some(_) | None if flights.len() >= MAX_UNDER_WAY => {
                    let full = "too many tokens are being looked up";
                    return Err(Arc::new(StoreError::Unavailable(full.into()).into()));
                }
                Some(_) | None => {
                    let (land, landed) = watch::channel(None);
                    flights.insert(key, Flight { begun: now, landed: landed.clone() });
                    let (flights, read) = (Arc::clone(self), read());
                    tokio::spawn(async move {
                        let ended = End { flights, key, begun: now };
                        let result = read.await.map(Arc::new).map_err(Arc::new);
                        drop(ended);
                        let _ = land.send(Some(result));
                    });
                    landed
                }
            }
        };
        match landed.wait_for(Option::is_some).await {
            Ok(landed) => landed.clone().expect("it was waited for"),
            // Its task was dropped or panicked.
            Err(_) => Err(Arc::new(StoreError::Failed("a read was given up".into()).into())),
        }
    }

    /// How many are under way.
    pub(super) fn under_way(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Takes a flight off the list whatever became of it.
struct End<T> {
    flights: Arc<Flights<T>>,
    key: Key,
    begun: Begun,
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        let mut flights = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.get(&self.key).is_some_and(|flight| flight.begun == self.begun) {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use super::{super::key::Keys, *};

    #[tokio::test]
    async fn so_many_are_under_way_and_no_more() {
        let (flights, keys) = (Flights::<()>::new(), Keys::new());
        let begun = Begun { at: Uptime(Duration::ZERO), known: Known { era: 0, number: 0 } };
        let join = |number: usize| {
            let (flights, key) = (Arc::clone(&flights), keys.of(&[&number.to_string()]));
            async move { flights.join(key, begun, begun, pending).await }
        };
        for number in 0..MAX_UNDER_WAY {
            tokio::spawn(join(number));
        }
        while flights.under_way() < MAX_UNDER_WAY {
            tokio::task::yield_now().await;
        }
        let refused = join(MAX_UNDER_WAY).await.unwrap_err();
        assert!(matches!(&*refused, Error::Store(StoreError::Unavailable(_))));
        // Who asks for the same waits with the others.
        let joined = tokio::time::timeout(Duration::ZERO, join(0)).await;
        assert!(joined.is_err());
        assert_eq!(flights.under_way(), MAX_UNDER_WAY);
    }
}
