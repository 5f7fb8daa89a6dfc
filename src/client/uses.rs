//! Uses of tokens that were answered for from here, until they are reported.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Duration,
};

use tonic::Code;

use super::{Identity, remote::Remote};
use crate::{
    clock::Uptime,
    domain::Timestamp,
    proto::v1::{ReportUseRequest, TokenUse},
};

/// How often it is looked which uses are to be reported.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// How long the use of a token from an address is not reported again.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// How many wait to be reported; others are passed over until there is room.
const MAX_WAITING: usize = 65_536;

/// How many one call reports.
const AT_ONCE: usize = 1_000;

/// How often a call is tried that can't be made.
const TRIES: usize = 3;

/// The last use of a token from an address.
pub(super) struct Use {
    identity: Arc<Identity>,
    client_ip: Option<IpAddr>,
    /// When it was, by the authority's clock, in microseconds.
    at: AtomicI64,
    /// Whether it waits to be reported.
    waits: AtomicBool,
    reported_at: Mutex<Option<Uptime>>,
}

impl Use {
    pub(super) fn new(identity: Arc<Identity>, client_ip: Option<IpAddr>) -> Self {
        Self {
            identity,
            client_ip,
            at: AtomicI64::new(0),
            waits: AtomicBool::new(false),
            reported_at: Mutex::default(),
        }
    }

    pub(super) fn is_of(&self, token_id: &str) -> bool {
        self.identity.token_id == token_id
    }

    /// Notes a use; whether it does not wait to be reported yet, and has to be given to
    /// [`Uses::wait`].
    pub(super) fn note(&self, now: i64) -> bool {
        // What everybody uses is written once a second.
        if now.abs_diff(self.at.load(Ordering::Relaxed)) >= 1_000_000 {
            self.at.store(now, Ordering::Relaxed);
        }
        !self.waits.load(Ordering::Relaxed) && !self.waits.swap(true, Ordering::AcqRel)
    }

    fn is_due(&self, now: Uptime) -> bool {
        let reported_at = *self.reported_at.lock().unwrap_or_else(PoisonError::into_inner);
        reported_at.is_none_or(|reported_at| now.since(reported_at) >= AGAIN_AFTER)
    }

    /// What is to be reported. Uses from now on wait again.
    fn take(&self, now: Uptime) -> Option<TokenUse> {
        *self.reported_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(now);
        self.waits.store(false, Ordering::Release);
        let at = Timestamp::from_micros(self.at.load(Ordering::Acquire))?;
        let (seconds, nanos) = at.to_seconds_and_nanos();
        Some(TokenUse {
            token_id: self.identity.token_id.clone(),
            last_used_at: Some(prost_types::Timestamp { seconds, nanos }),
            client_ip: self.client_ip.map(|ip| ip.to_string()),
        })
    }
}

/// The uses that wait to be reported.
#[derive(Default)]
pub(super) struct Uses(Mutex<Vec<Arc<Use>>>);

impl Uses {
    /// Has it reported soon.
    pub(super) fn wait(&self, first: Arc<Use>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_WAITING {
            waiting.push(first);
        } else {
            first.waits.store(false, Ordering::Release);
        }
    }

    /// Reports what is due, or everything. What can't be reported is forgotten.
    pub(super) async fn report(&self, remote: &Remote, now: Uptime, everything: bool) {
        let due: Vec<Arc<Use>> = {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.extract_if(.., |waits| everything || waits.is_due(now)).collect()
        };
        let items: Vec<TokenUse> = due.iter().filter_map(|waits| waits.take(now)).collect();
        for items in items.chunks(AT_ONCE) {
            let request = ReportUseRequest { items: items.to_vec() };
            for tried in 1..=TRIES {
                match remote.report_use(request.clone()).await {
                    Ok(()) => break,
                    Err(status) if tried < TRIES && status.code() == Code::Unavailable => {
                        tokio::time::sleep(EVERY).await;
                    }
                    Err(status) => {
                        tracing::warn!(code = ?status.code(), "uses of tokens are not reported");
                        return;
                    }
                }
            }
        }
    }
}
