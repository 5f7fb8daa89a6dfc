//! What a server does beside answering: it watches its store, forgets what has been
//! dead for long, and reads again what was replaced.

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinHandle, time::Instant};
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    clock::Clock,
    config::Settings,
    domain::{CredentialId, Peppers},
    grpc,
    http::Admin,
    root::RootTokens,
    store::{self, Actor, Store, StoreError},
    tls::Tls,
    verifier::Verifier,
};

/// How often the store is asked whether it is there, for the health service.
const HEALTH_INTERVAL: Duration = Duration::from_secs(1);

/// How often what is to be forgotten is looked for, where an index leads to it, and the
/// pause where there was as much as is forgotten at once: of the history there can be
/// much in little time.
const PURGE_INTERVAL: Duration = Duration::from_mins(1);
const PURGE_PAUSE: Duration = Duration::from_secs(1);
const HISTORY_PAUSE: Duration = Duration::from_millis(100);

/// How often what no index leads to is looked for, through all there is.
pub(crate) const WALK_INTERVAL: Duration = Duration::from_mins(10);

/// How often files that may be replaced are looked at.
const FILES_INTERVAL: Duration = Duration::from_secs(5);

/// Tells the health service when the store, which was there, can no longer be
/// asked or wants a pepper that this process was not given, and when all is well
/// again, until aborted.
pub(crate) fn watch_store(
    store: Arc<dyn Store>,
    peppers: Arc<Peppers>,
    verifier: Arc<Verifier>,
    health: Health,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut told = (true, true);
        let mut held = true;
        loop {
            let asked = tokio::time::timeout(HEALTH_INTERVAL, store.identity()).await;
            if let Ok(Ok(Some(identity))) = &asked {
                let holds = peppers.follow(&identity.current_pepper);
                if held && !holds {
                    tracing::error!(
                        pepper.current = identity.current_pepper.as_str(),
                        "this process was not given the pepper that is current now: until it is \
                         started with that, it makes no token and says no to none"
                    );
                }
                held = holds;
            }
            let managing = held && matches!(asked, Ok(Ok(_)));
            let serving = (held && verifier.is_answering(), managing);
            // Whoever watches would be told what it knows each time.
            if serving != told {
                health.set(serving.0, serving.1).await;
                told = serving;
            }
            tokio::time::sleep(HEALTH_INTERVAL).await;
        }
    })
}

/// Forgets now and then what the settings keep no longer: what has been dead for long,
/// and the oldest of the history. One after the other, since all that is forgotten, by
/// whichever process, is forgotten in turn.
pub(crate) fn purge(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: &Settings,
) -> JoinHandle<()> {
    let keep_dead = settings.keep_dead.into();
    let keep_changes = settings.keep_changes.into();
    let keep_audit = settings.keep_audit.map(Into::into);
    let user_id = settings.cluster_id.system_user();
    tokio::spawn(async move {
        let (mut settling, mut looked) = (Settling::default(), None);
        loop {
            let at = clock.now();
            let actor = Actor::service(user_id.clone(), at);
            let before = at.saturating_sub(keep_dead);
            let changes = at.saturating_sub(keep_changes);
            let audit = keep_audit.map(|keep| at.saturating_sub(keep));
            let forgotten = done(store.forget_history(changes, audit, &actor).await);
            let purged = done(store.purge(before, &actor).await);
            let is_settling = settling.goes_on(&*store, &actor).await;
            let uses = store.forget_uses(before, looked.as_ref(), &actor).await;
            looked = done(uses).unwrap_or(looked);
            let full = store::MAX_ROWS.unsigned_abs();
            let pause = if forgotten.is_none() || purged.is_none() {
                PURGE_INTERVAL
            } else if forgotten.is_some_and(|count| count >= full) {
                HISTORY_PAUSE
            } else if is_settling || looked.is_some() || purged.is_some_and(|count| count >= full) {
                PURGE_PAUSE
            } else {
                PURGE_INTERVAL
            };
            tokio::time::sleep(pause).await;
        }
    })
}

/// What of a purge was done, if it did not fail, which is left for the next time.
fn done<T>(purged: Result<T, StoreError>) -> Option<T> {
    if let Err(error) = &purged {
        tracing::warn!(error = error as &dyn std::error::Error, "not purged");
    }
    purged.ok()
}

/// Looks through all credentials, a part at a time.
#[derive(Default)]
struct Settling {
    begun: Option<Instant>,
    after: Option<CredentialId>,
}

impl Settling {
    /// Goes on with it, or begins anew after a while; whether there is more.
    async fn goes_on(&mut self, store: &dyn Store, actor: &Actor) -> bool {
        if self.after.is_none() {
            if self.begun.is_some_and(|begun| begun.elapsed() < WALK_INTERVAL) {
                return false;
            }
            self.begun = Some(Instant::now());
        }
        if let Some(next) = done(store.settle(self.after.as_ref(), actor).await) {
            self.after = next;
        }
        self.after.is_some()
    }
}

/// What is told of the service's health, over gRPC and to those who run it.
#[derive(Clone)]
pub(crate) struct Health {
    reporter: HealthReporter,
    admin: Admin,
}

impl Health {
    pub(crate) fn new(reporter: HealthReporter) -> Self {
        Self { reporter, admin: Admin::default() }
    }

    /// What tells it to those who run it.
    pub(crate) fn admin(&self) -> Admin {
        self.admin.clone()
    }

    /// Tells whether Verification, and with it the service as a whole, can be answered, and
    /// whether the services that manage can.
    pub(crate) async fn set(&self, verifying: bool, managing: bool) {
        self.admin.set_ready(verifying);
        let [verification, others @ ..] = grpc::SERVICES;
        let all = [("", verifying), (verification, verifying)]
            .into_iter()
            .chain(others.map(|service| (service, managing)));
        for (service, serving) in all {
            let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            self.reporter.set_service_status(service, status).await;
        }
    }

    /// Ends what watches it, once that was told: it would hold its connection.
    pub(crate) async fn end(&self) {
        let mut reporter = self.reporter.clone();
        for service in [""].into_iter().chain(grpc::SERVICES) {
            reporter.clear_service_status(service).await;
        }
    }
}

/// What is read from files that may be replaced while it serves.
#[derive(Clone)]
pub struct Files {
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) roots: Arc<RootTokens>,
}

impl Files {
    /// Whether there are certificates.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn may_change(&self) -> bool {
        self.has_tls() || self.roots.has_files()
    }

    /// Reads them again.
    pub async fn reload(&self) {
        let files = self.clone();
        // They are small, but a disk may be slow.
        let reloaded = tokio::task::spawn_blocking(move || {
            files.roots.reload();
            if let Some(tls) = files.tls {
                tls.reload();
            }
        });
        let _ = reloaded.await;
    }
}

/// Reads them again from time to time, until aborted.
pub(crate) fn reload(files: Files) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(FILES_INTERVAL).await;
            files.reload().await;
        }
    })
}
