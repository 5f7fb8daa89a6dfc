//! How often who shows no token of its own may ask.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::clock::Uptime;

/// Between two calls of one who goes on and on, and how many it may have in hand.
const INTERVAL: Duration = Duration::from_millis(100);
const BURST: u32 = 30;

const PLACES: usize = 4096;

/// For each of many places, of which an address has one, when its calls were all due
/// (the generic cell rate algorithm). A flood from many addresses takes no more memory.
pub(super) struct Rates {
    due: Vec<AtomicU64>,
    hasher: RandomState,
}

impl Rates {
    pub(super) fn new() -> Self {
        let due = std::iter::repeat_with(AtomicU64::default).take(PLACES).collect();
        Self { due, hasher: RandomState::new() }
    }

    /// Whether a call from there is let in.
    pub(super) fn admits(&self, ip: IpAddr, now: Uptime) -> bool {
        let network = match ip.to_canonical() {
            IpAddr::V4(ip) => u128::from(ip.to_bits()),
            // One network is at least one customer's.
            IpAddr::V6(ip) => ip.to_bits() >> 64 << 64,
        };
        let place = usize::try_from(self.hasher.hash_one(network) % PLACES as u64);
        let due = &self.due[place.expect("it is less than the places")];
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let now = nanos(now.0);
        let ahead = nanos(INTERVAL * BURST);
        let next = |due: u64| {
            let due = due.max(now) + nanos(INTERVAL);
            (due <= now + ahead).then_some(due)
        };
        due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_asks_so_often_and_others_do_not_mind() {
        let rates = Rates::new();
        let (one, other): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let start = Duration::from_secs(1000);
        let admitted = |at| (0..100).filter(|_| rates.admits(one, Uptime(start + at))).count();
        assert_eq!(admitted(Duration::ZERO), 30);
        assert_eq!(admitted(Duration::from_millis(99)), 0);
        assert_eq!(admitted(Duration::from_millis(100)), 1);
        assert_eq!(admitted(Duration::from_secs(60)), 30);
        assert!(rates.admits(other, Uptime(start)));
        // All of a network of IPv6 count as one.
        for host in 2..31 {
            let ip = format!("2001:db8::{host:x}").parse().unwrap();
            assert!(rates.admits(ip, Uptime(start)));
        }
        assert!(!rates.admits("2001:db8::ffff".parse().unwrap(), Uptime(start)));
    }
}
