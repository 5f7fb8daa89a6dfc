//! The streams that are open.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;
use tonic::Status;

use super::status;
use crate::verifier::Asker;

/// Room for streams, until the service stops.
#[derive(Clone)]
pub struct Streams {
    open: Arc<Open>,
    stopping: watch::Receiver<bool>,
}

/// How many are open, in all and of each token.
struct Open {
    limit: usize,
    of: Mutex<(usize, HashMap<String, usize>)>,
}

/// Ends all streams.
pub struct StopStreams(watch::Sender<bool>);

/// The place of one stream.
pub(super) struct Place {
    open: Arc<Open>,
    token_id: String,
    stopping: watch::Receiver<bool>,
}

impl Streams {
    /// Room for so many, of which no token gets more than three quarters; and what ends
    /// them.
    #[must_use]
    pub fn new(limit: usize) -> (Self, StopStreams) {
        let (stop, stopping) = watch::channel(false);
        let open = Arc::new(Open { limit, of: Mutex::default() });
        (Self { open, stopping }, StopStreams(stop))
    }

    /// A place for one more.
    pub(super) fn place(&self, asker: &Asker) -> Result<Place, Status> {
        let (limit, token_id) = (self.open.limit, asker.token_id());
        let mut open = self.open.lock();
        let (all, each) = &mut *open;
        let own = each.get(token_id).copied().unwrap_or_default();
        if *all >= limit || own >= limit - limit / 4 {
            return Err(status::too_many_streams());
        }
        *all += 1;
        each.insert(token_id.to_owned(), own + 1);
        drop(open);
        let (open, stopping) = (Arc::clone(&self.open), self.stopping.clone());
        Ok(Place { open, token_id: token_id.to_owned(), stopping })
    }
}

impl Open {
    fn lock(&self) -> MutexGuard<'_, (usize, HashMap<String, usize>)> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StopStreams {
    /// Has those that are open end soon, and new ones at once.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Place {
    /// Waits until the service stops.
    pub(super) async fn stopped(mut self) {
        if self.stopping.wait_for(|stops| *stops).await.is_err() {
            // Nobody will say so.
            std::future::pending().await
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        let (all, each) = &mut *open;
        *all -= 1;
        if let Some(own) = each.get_mut(&self.token_id) {
            *own -= 1;
            if *own == 0 {
                each.remove(&self.token_id);
            }
        }
    }
}
