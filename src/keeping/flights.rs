//! Reads that are under way: who asks for the same at the same time waits for the same
//! one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use super::key::{AsItIs, Key};
use crate::clock::Uptime;

/// How many reads are under way at once, also of those who hung up meanwhile.
const MAX_UNDER_WAY: usize = 1_024;

/// What came of a read, for everybody who waited for it.
type Landed<T, E> = Result<Arc<T>, Arc<E>>;

/// Why there is nothing that came of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grounded {
    /// Too many are under way.
    Full,
    /// It was given up, since its task panicked or the process ends.
    GivenUp,
}

/// The newest change that is known of. In a later era, more is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Known {
    pub(crate) era: u32,
    pub(crate) number: i64,
}

/// Reads by the keys of what is read.
pub(crate) struct Flights<T, E>(Mutex<HashMap<Key, Flight<T, E>, AsItIs>>);

struct Flight<T, E> {
    begun: Begun,
    landed: watch::Receiver<Option<Landed<T, E>>>,
}

/// When a read began, and the newest change that was known of then, though the read may
/// not know of that one if it was not committed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) at: Uptime,
    pub(crate) known: Known,
}

impl<T, E> Flights<T, E>
where
    T: Send + Sync + 'static,
    E: From<Grounded> + Send + Sync + 'static,
{
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default()))
    }

    /// What `read` gives, or the same read of somebody else that began no earlier than
    /// `since` and when no less was known. It goes on though nobody waits for it any more.
    ///
    /// # Errors
    ///
    /// What became of the read.
    pub(crate) async fn join<F>(
        self: &Arc<Self>,
        key: Key,
        since: Begun,
        now: Begun,
        read: impl FnOnce() -> F,
    ) -> Landed<T, E>
    where
        F: Future<Output = Result<T, E>> + Send + 'static,
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
                    return Err(Arc::new(Grounded::Full.into()));
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
            Err(_) => Err(Arc::new(Grounded::GivenUp.into())),
        }
    }

    /// Whether somebody reads this.
    #[cfg(feature = "client")]
    pub(crate) fn is_under_way(&self, key: &Key) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// How many are under way.
    #[cfg(any(feature = "server", test))]
    pub(crate) fn under_way(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Takes a flight off the list whatever became of it.
struct End<T, E> {
    flights: Arc<Flights<T, E>>,
    key: Key,
    begun: Begun,
}

impl<T, E> Drop for End<T, E> {
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

    use super::*;

    #[tokio::test]
    async fn so_many_are_under_way_and_no_more() {
        let flights = Flights::<(), Grounded>::new();
        let begun = Begun { at: Uptime(Duration::ZERO), known: Known { era: 0, number: 0 } };
        let join = |number: usize| {
            let (flights, key) = (Arc::clone(&flights), Key([number as u64; 2]));
            async move { flights.join(key, begun, begun, pending).await }
        };
        for number in 0..MAX_UNDER_WAY {
            tokio::spawn(join(number));
        }
        while flights.under_way() < MAX_UNDER_WAY {
            tokio::task::yield_now().await;
        }
        let refused = join(MAX_UNDER_WAY).await.unwrap_err();
        assert_eq!(*refused, Grounded::Full);
        // Who asks for the same waits with the others.
        let joined = tokio::time::timeout(Duration::ZERO, join(0)).await;
        assert!(joined.is_err());
        assert_eq!(flights.under_way(), MAX_UNDER_WAY);
    }
}
