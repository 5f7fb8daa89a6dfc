//! The streams that are open.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tonic::Status;

use super::status;

/// Room for so many streams, until the service stops.
#[derive(Clone)]
pub struct Streams {
    places: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

/// Ends all streams.
pub struct StopStreams(watch::Sender<bool>);

/// The place of one stream.
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
    stopping: watch::Receiver<bool>,
}

impl Streams {
    /// Room for so many, and what ends them.
    #[must_use]
    pub fn new(limit: usize) -> (Self, StopStreams) {
        let (stop, stopping) = watch::channel(false);
        (Self { places: Arc::new(Semaphore::new(limit)), stopping }, StopStreams(stop))
    }

    pub(super) fn place(&self) -> Result<Place, Status> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        let permit = permit.map_err(|_| status::too_many_streams())?;
        Ok(Place { _permit: permit, stopping: self.stopping.clone() })
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
