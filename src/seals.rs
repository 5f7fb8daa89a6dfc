//! Secrets that are kept recoverable: sealed under the current pepper where they are
//! to be kept, forgotten where they are not.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::{
    clock::Clock,
    domain::{Pepper, PepperId, Peppers, UserId},
    random,
    store::{Actor, MAX_ROWS, Store, StoreError},
};

/// How often it is looked whether another pepper became the current one.
const LOOK: Duration = Duration::from_secs(1);

/// What keeps the seals as the settings have them.
pub(crate) struct Seals {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) peppers: Arc<Peppers>,
    /// In whose name.
    pub(crate) system: UserId,
    /// Whether secrets are to be kept recoverable.
    pub(crate) recoverable: bool,
}

impl Seals {
    /// Does so now, whenever another pepper becomes the current one, and now and then,
    /// until aborted.
    pub(crate) fn start(self, interval: Duration) -> JoinHandle<()> {
        tokio::spawn(async move {
            loop {
                let since = Instant::now();
                let current = self.current();
                let tended = self.tend().await;
                if let Err(error) = &tended {
                    tracing::warn!(error = error as &dyn Error, "seals are left for later");
                }
                let wait = if tended.is_ok() { interval } else { LOOK };
                while since.elapsed() < wait && self.current() == current {
                    sleep(LOOK).await;
                }
            }
        })
    }

    fn current(&self) -> Option<&PepperId> {
        self.peppers.current().map(Pepper::id)
    }

    async fn tend(&self) -> Result<(), StoreError> {
        if !self.recoverable {
            return self.forget().await;
        }
        let Some(current) = self.peppers.current() else { return Ok(()) };
        let others = self.peppers.ids().iter().filter(|id| *id != current.id());
        for from in others.filter_map(|id| self.peppers.get(id)) {
            self.seal_again(from, current).await?;
        }
        Ok(())
    }

    /// Seals under `to` what is sealed under `from`, and digests it so.
    async fn seal_again(&self, from: &Pepper, to: &Pepper) -> Result<(), StoreError> {
        let mut after = String::new();
        let (mut done, mut left) = (0_u64, 0_u64);
        while self.current() == Some(to.id()) {
            let sealed = self.store.sealed_under(from.id(), &after).await?;
            let Some(last) = sealed.last() else { break };
            // What can't be opened is not looked at again in this round.
            after.clone_from(&last.secret_id);
            for kept in &sealed {
                let Some(token) = from.open(&kept.credential_id, &kept.sealed) else {
                    left += 1;
                    continue;
                };
                let again = to.seal(&kept.credential_id, &token, random::bytes());
                let digest = to.digest(&token);
                let (secret_id, from, to) = (&kept.secret_id, from.id(), to.id());
                let is_done =
                    self.store.redigest(secret_id, from, to, &digest, Some(&again)).await?;
                done += u64::from(is_done);
            }
        }
        if done > 0 {
            tracing::info!(secrets = done, pepper.from = from.id().as_str(), "sealed again");
        }
        if left > 0 {
            tracing::warn!(
                secrets = left,
                pepper.id = from.id().as_str(),
                "what these are sealed as can't be opened"
            );
        }
        Ok(())
    }

    async fn forget(&self) -> Result<(), StoreError> {
        loop {
            let actor = Actor::service(self.system.clone(), self.clock.now());
            if self.store.forget_seals(&actor).await? < MAX_ROWS.unsigned_abs() {
                return Ok(());
            }
        }
    }
}
