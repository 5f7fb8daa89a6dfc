//! What a verification leaves to be written, off its path: it answers first.
//!
//! Nothing here is lost for good: what is dropped or fails is asked for again by
//! the next verification of the same secret.

use std::{collections::HashSet, error::Error, sync::Arc};

use tokio::{
    sync::mpsc::{self, error::TryRecvError},
    task::JoinHandle,
};

use crate::{
    clock::Clock,
    domain::{CredentialId, Digest, PepperId, Sealed, UserId},
    store::{Actor, Store, StoreError},
};

/// How much may wait to be written.
const QUEUE: usize = 1024;

/// How much is taken up at once; within it, nothing is done twice.
const BATCH: usize = 64;

/// Something to be written. The same secret's same job is done once.
#[derive(Debug, Clone)]
pub enum Job {
    /// A pending secret was proved: it becomes the current one.
    Promote {
        /// The secret.
        secret_id: String,
    },
    /// A secret was proved that is not digested under the current pepper.
    Redigest {
        /// The secret.
        secret_id: String,
        /// Under which it is.
        from: PepperId,
        /// The current one.
        to: PepperId,
        /// Its digest under that.
        digest: Digest,
        /// The same of what it is sealed as, if it is.
        sealed: Option<Sealed>,
    },
    /// A superseded secret was shown again.
    Reuse {
        /// The secret.
        secret_id: String,
        /// Its credential.
        credential_id: CredentialId,
    },
}

/// What is to become of a credential whose superseded secret is shown again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OnReuse {
    /// It is noted in the audit and in the log.
    Report,
    /// It is revoked as well.
    Revoke,
}

/// Takes what is to be written, until `None` ends it.
#[derive(Debug, Clone)]
pub struct Upkeep {
    jobs: mpsc::Sender<Option<Job>>,
    on_reuse: OnReuse,
}

impl Upkeep {
    /// To `store`, in the name of the user `system`, by a task that ends when
    /// nothing can be asked of it any more.
    #[must_use]
    pub fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        system: UserId,
        on_reuse: OnReuse,
    ) -> (Self, JoinHandle<()>) {
        let (sender, jobs) = mpsc::channel(QUEUE);
        let writer = Writer { store, clock, system, on_reuse };
        (Self { jobs: sender, on_reuse }, tokio::spawn(writer.run(jobs)))
    }

    /// Has it written soon, or not at all if too much is waiting: of new digests, of
    /// which a promoted pepper brings many, half as much may.
    pub fn ask(&self, job: Job) {
        let has_room = match job {
            Job::Redigest { .. } => self.jobs.capacity() > QUEUE / 2,
            Job::Promote { .. } | Job::Reuse { .. } => true,
        };
        if has_room {
            let _ = self.jobs.try_send(Some(job));
        }
    }

    /// Whether the use of a superseded secret ends its credential.
    #[must_use]
    pub fn revokes(&self) -> bool {
        self.on_reuse == OnReuse::Revoke
    }

    /// Waits until all is written that was asked for before, by the task that was
    /// started, which then ends.
    pub async fn finish(&self, task: JoinHandle<()>) {
        let _ = self.jobs.send(None).await;
        let _ = task.await;
    }
}

struct Writer {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    system: UserId,
    on_reuse: OnReuse,
}

impl Writer {
    async fn run(self, mut jobs: mpsc::Receiver<Option<Job>>) {
        let mut ends = false;
        while !ends && let Some(Some(first)) = jobs.recv().await {
            let mut batch = vec![first];
            while batch.len() < BATCH {
                match jobs.try_recv() {
                    Ok(Some(job)) => batch.push(job),
                    Ok(None) => {
                        ends = true;
                        break;
                    }
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                }
            }
            let mut done = HashSet::new();
            for job in batch {
                if !done.insert((job.secret_id().to_owned(), std::mem::discriminant(&job))) {
                    continue;
                }
                if let Err(error) = self.write(&job).await {
                    tracing::warn!(error = &error as &dyn Error, "upkeep is left for later");
                }
            }
        }
    }

    async fn write(&self, job: &Job) -> Result<(), StoreError> {
        let actor = Actor::service(self.system.clone(), self.clock.now());
        match job {
            Job::Promote { secret_id } => {
                self.store.promote_secret(secret_id, &actor).await?;
            }
            Job::Redigest { secret_id, from, to, digest, sealed } => {
                self.store.redigest(secret_id, from, to, digest, sealed.as_ref()).await?;
            }
            Job::Reuse { secret_id, credential_id } => {
                let revoke = self.on_reuse == OnReuse::Revoke;
                if self.store.note_reuse(secret_id, revoke, &actor).await? {
                    tracing::warn!(
                        credential.id = credential_id.0,
                        revoked = revoke,
                        "a secret was shown that a newer one has replaced"
                    );
                }
            }
        }
        Ok(())
    }
}

impl Job {
    fn secret_id(&self) -> &str {
        match self {
            Self::Promote { secret_id }
            | Self::Redigest { secret_id, .. }
            | Self::Reuse { secret_id, .. } => secret_id,
        }
    }
}
