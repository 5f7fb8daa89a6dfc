//! Uses of tokens that were answered for from here, until they are reported.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tonic::Code;

use super::remote::Remote;
use crate::{
    clock::{Uptime, micros},
    domain::Timestamp,
    proto::v1::{ReportUseRequest, TokenUse},
};

/// How often it is looked which uses are to be reported.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// How long the use of a token from an address is not reported again, nor one noted for
/// which there was no room.
const AGAIN_AFTER: Duration = Duration::from_mins(1);

/// How many wait to be reported; others are passed over until there is room.
const MAX_WAITING: usize = 65_536;

/// How many one call reports.
const AT_ONCE: usize = 1_000;

/// How often a call is tried that can't be made.
const TRIES: usize = 3;

/// Of a use that waits to be reported, when the next has to be.
const WAITS: i64 = i64::MAX;

/// The last use of a token from an address.
pub(super) struct Use {
    token_id: Arc<str>,
    client_ip: Option<IpAddr>,
    /// When it was, by the authority's clock, in microseconds.
    at: AtomicI64,
    /// Uses after this instant, by the same clock, have to wait to be reported.
    quiet_until: AtomicI64,
    /// When it was reported; zero: never yet.
    reported_at: AtomicU64,
}

impl Use {
    pub(super) fn new(token_id: &str, client_ip: Option<IpAddr>) -> Self {
        Self {
            token_id: token_id.into(),
            client_ip,
            at: AtomicI64::new(0),
            quiet_until: AtomicI64::new(0),
            reported_at: AtomicU64::new(0),
        }
    }

    pub(super) fn is_of(&self, token_id: &str) -> bool {
        *self.token_id == *token_id
    }

    /// About how many bytes it takes.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.token_id.len()
    }

    /// Notes a use; whether it has to be given to [`Uses::wait`].
    pub(super) fn note(&self, now: i64) -> bool {
        // What everybody uses is written once a second.
        if now.abs_diff(self.at.load(Ordering::Relaxed)) >= 1_000_000 {
            self.at.store(now, Ordering::Relaxed);
        }
        let quiet_until = self.quiet_until.load(Ordering::Relaxed);
        let exchanged = |until| {
            self.quiet_until.compare_exchange(until, WAITS, Ordering::AcqRel, Ordering::Relaxed)
        };
        now > quiet_until && exchanged(quiet_until).is_ok()
    }

    fn is_due(&self, now: Uptime) -> bool {
        match self.reported_at.load(Ordering::Relaxed) {
            0 => true,
            reported_at => now.since(Uptime::from_nanos(reported_at)) >= AGAIN_AFTER,
        }
    }

    /// What is to be reported. Uses from now on wait again.
    fn told(&self) -> Option<TokenUse> {
        self.quiet_until.store(0, Ordering::Release);
        let at = Timestamp::from_micros(self.at.load(Ordering::Acquire))?;
        let (seconds, nanos) = at.to_seconds_and_nanos();
        Some(TokenUse {
            token_id: self.token_id.to_string(),
            last_used_at: Some(prost_types::Timestamp { seconds, nanos }),
            client_ip: self.client_ip.map(|ip| ip.to_string()),
        })
    }
}

/// The uses that wait to be reported.
#[derive(Default)]
pub(super) struct Uses(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    uses: Vec<Arc<Use>>,
    /// How many wait, those among them that are being reported.
    count: usize,
}

impl Uses {
    /// Has it reported soon, or a later one if too many wait.
    pub(super) fn wait(&self, first: Arc<Use>) {
        let mut waiting = self.waiting();
        if waiting.count < MAX_WAITING {
            waiting.count += 1;
            waiting.uses.push(first);
        } else {
            let until =
                first.at.load(Ordering::Relaxed).saturating_add(micros(Uptime(AGAIN_AFTER)));
            first.quiet_until.store(until, Ordering::Release);
        }
    }

    /// Reports what is due, or everything. What can't be reported is forgotten; what was not
    /// tried, as this was given up, waits on.
    pub(super) async fn report(&self, remote: &Remote, now: Uptime, everything: bool) {
        let mut taken = self.take(now, everything);
        while let Some(from) = taken.due.len().checked_sub(1).map(|last| last / AT_ONCE * AT_ONCE) {
            let items = taken.due[from..].iter().filter_map(|due| due.told()).collect();
            let told = tell(remote, ReportUseRequest { items }).await;
            let is_told = told.is_ok();
            if let Err(code) = told {
                tracing::warn!(?code, "uses of tokens are not reported");
                taken.due[..from]
                    .iter()
                    .for_each(|due| due.quiet_until.store(0, Ordering::Release));
            }
            taken.is_over(if is_told { from } else { 0 }, now);
        }
    }

    /// Takes what is due. The list is not held meanwhile.
    fn take(&self, now: Uptime, everything: bool) -> Taken<'_> {
        let waiting = std::mem::take(&mut self.waiting().uses);
        let (due, others) = waiting.into_iter().partition(|waits| everything || waits.is_due(now));
        let taken = Taken { uses: self, due };
        self.put_back(others);
        taken
    }

    fn put_back(&self, mut others: Vec<Arc<Use>>) {
        let mut waiting = self.waiting();
        others.append(&mut waiting.uses);
        waiting.uses = others;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Uses that are being reported. Those that were not wait on when this is dropped.
struct Taken<'u> {
    uses: &'u Uses,
    due: Vec<Arc<Use>>,
}

impl Taken<'_> {
    /// Those from this one on were reported, or can't be.
    fn is_over(&mut self, from: usize, now: Uptime) {
        self.uses.waiting().count -= self.due.len() - from;
        for over in self.due.drain(from..) {
            over.reported_at.store(now.as_nanos(), Ordering::Relaxed);
        }
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.uses.put_back(std::mem::take(&mut self.due));
    }
}

async fn tell(remote: &Remote, request: ReportUseRequest) -> Result<(), Code> {
    for _ in 1..TRIES {
        match remote.report_use(request.clone()).await {
            Err(status) if status.code() == Code::Unavailable => tokio::time::sleep(EVERY).await,
            told => return told.map_err(|status| status.code()),
        }
    }
    remote.report_use(request).await.map_err(|status| status.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn used(uses: &Uses, number: usize) -> Arc<Use> {
        let one = Arc::new(Use::new(&number.to_string(), None));
        assert!(one.note(SECOND));
        uses.wait(Arc::clone(&one));
        one
    }

    #[test]
    fn for_what_there_is_no_room_it_is_quiet_a_while() {
        let uses = Uses::default();
        for number in 0..MAX_WAITING {
            used(&uses, number);
        }
        let passed_over = used(&uses, MAX_WAITING);
        assert_eq!(uses.waiting().uses.len(), MAX_WAITING);
        assert!(!passed_over.note(2 * SECOND) && !passed_over.note(61 * SECOND));
        assert!(passed_over.note(62 * SECOND));
    }

    #[test]
    fn what_was_taken_and_not_reported_waits_on() {
        let uses = Uses::default();
        let [first, second] = [0, 1].map(|number| used(&uses, number));
        let now = Uptime(Duration::from_secs(1));
        let mut taken = uses.take(now, false);
        assert!(uses.waiting().uses.is_empty());
        assert_eq!(second.told().unwrap().token_id, "1");
        taken.is_over(1, now);
        drop(taken);
        let waiting: Vec<String> =
            uses.waiting().uses.iter().map(|waits| waits.token_id.to_string()).collect();
        assert_eq!((waiting, uses.waiting().count), (vec!["0".to_owned()], 1));
        assert!(!first.note(3 * SECOND), "it waits already");
        assert!(second.note(3 * SECOND));
        uses.wait(second);
        // It was reported a moment ago.
        assert_eq!(uses.take(now, false).due.len(), 1);
        assert_eq!(uses.take(now, true).due.len(), 2);
    }
}
