//! Answers that are kept.

use std::{
    hash::Hasher as _,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use super::{
    Answer, Identity, Question,
    news::{News, Rests},
    received::Mark,
    uses::Use,
};
use crate::{
    clock::Uptime,
    domain::{Kind, Requirement},
    keeping::{
        cache::{Cache, Kept, OVERHEAD, second},
        key::{Key, Keys},
    },
};

/// How long an answer is kept at most, so that the authority sees each token now and
/// then; and by how much less, so that those that came together don't go together.
const AT_MOST: Duration = Duration::from_mins(10);
const SPREAD: u64 = 128;

/// What the authority answered of a token that is good.
pub(super) struct Entry {
    identity: Arc<Identity>,
    rests: Rests,
    /// The revision at which it was answered, and whether that was received.
    answered_at: Mark,
    is_settled: AtomicBool,
    until: Uptime,
    used: AtomicU32,
    last_use: Arc<Use>,
}

impl Entry {
    /// Whether it is of the history that is received, and nothing was received that touches
    /// it.
    pub(super) fn holds(&self, news: &News, now: Uptime) -> bool {
        // In this order: a revision is received after what was changed with it.
        now < self.until && self.is_settled(news) && news.holds(self.rests)
    }

    fn is_settled(&self, news: &News) -> bool {
        self.is_settled.load(Ordering::Acquire) || {
            let is_settled = news.has_received(self.answered_at);
            self.is_settled.store(is_settled, Ordering::Release);
            is_settled
        }
    }
}

impl Kept for Entry {
    fn weight(&self) -> usize {
        size_of::<Self>() + self.last_use.weight() + self.identity.weight() + OVERHEAD
    }

    fn used(&self) -> &AtomicU32 {
        &self.used
    }
}

/// The answers that are kept, and what tells whether they hold.
pub(super) struct Keeping {
    pub(super) news: News,
    keys: Keys,
    entries: Cache<Entry>,
}

impl Keeping {
    pub(super) fn new(news: News, bytes: usize) -> Self {
        Self { news, keys: Keys::new(), entries: Cache::new(bytes) }
    }

    /// By what the answer is kept: all of a question that is not judged here.
    pub(super) fn key(&self, question: &Question<'_>) -> Key {
        let mut hasher = self.keys.hasher();
        let kinds = [Kind::PersonalAccessToken, Kind::ApiClientAuthorization, Kind::SystemRoot];
        let kinds = kinds.map(|kind| u8::from(question.kinds.contains(kind)));
        let (family, address) = match question.client_ip {
            None => (0, 0),
            Some(IpAddr::V4(ip)) => (4, u128::from(ip.to_bits())),
            Some(IpAddr::V6(ip)) => (6, ip.to_bits()),
        };
        hasher.write(&kinds);
        hasher.write_u8(family);
        hasher.write(&address.to_ne_bytes());
        hasher.write_u8(u8::from(question.workspace_id.is_some()));
        // It holds no NUL, and the token comes last: no two questions are written alike.
        hasher.write(question.workspace_id.unwrap_or_default().as_bytes());
        hasher.write_u8(0);
        hasher.write(question.token.as_bytes());
        hasher.into()
    }

    /// The answer, if it is kept, holds, and has not expired as far as can be known.
    ///
    /// Whether what is received is new enough has to be looked at before.
    pub(super) fn answer(
        &self,
        key: &Key,
        requirement: &Requirement<'_>,
        begun: Uptime,
        stale: bool,
    ) -> Option<(Answer, Option<Arc<Use>>)> {
        let guard = self.entries.guard();
        let entry = self.entries.get(key, second(begun), &guard)?;
        if !entry.holds(&self.news, begun) {
            return None;
        }
        let now = match entry.identity.expires_at {
            // Whoever is behind asks.
            Some(expires_at) if self.news.now(begun) >= expires_at.as_micros() => return None,
            Some(_) | None => self.news.now(begun),
        };
        Some(match entry.identity.judge(requirement) {
            Ok(()) => {
                let first = entry.last_use.note(now).then(|| Arc::clone(&entry.last_use));
                (Answer::Active { identity: Arc::clone(&entry.identity), stale }, first)
            }
            Err(reason) => (Answer::Refused { reason, stale }, None),
        })
    }

    /// Keeps what was answered to a question that was sent at `asked_at`. `true`: there is
    /// so little room that [`sweep`](Self::sweep) should be called.
    pub(super) fn keep(
        &self,
        key: Key,
        identity: Arc<Identity>,
        (rests, answered_at): (Rests, Mark),
        client_ip: Option<IpAddr>,
        asked_at: Uptime,
    ) -> bool {
        let less = Duration::from_secs(key.low() as u64 % SPREAD);
        let second = second(asked_at);
        let guard = self.entries.guard();
        let before = self.entries.get(&key, second, &guard);
        let last_use = before.filter(|entry| entry.last_use.is_of(&identity.token_id)).map_or_else(
            || Arc::new(Use::new(&identity.token_id, client_ip)),
            |entry| Arc::clone(&entry.last_use),
        );
        let until = Uptime(asked_at.0 + (AT_MOST - less));
        let entry = Entry {
            identity,
            rests,
            answered_at,
            is_settled: AtomicBool::new(false),
            until,
            used: AtomicU32::new(0),
            last_use,
        };
        self.entries.keep(key, entry, second)
    }

    /// Makes room.
    pub(super) fn sweep(&self, now: Uptime) {
        self.entries.sweep(|entry| entry.holds(&self.news, now));
    }

    /// Forgets everything, which does not hold any more.
    pub(super) fn forget(&self) {
        self.entries.clear();
    }

    /// How many answers are kept, and about how many bytes they take.
    pub(super) fn size(&self) -> (usize, usize) {
        self.entries.size()
    }
}
