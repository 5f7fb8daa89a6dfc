//! Argon2id records of secrets: made in one bounded pool of threads, and proved in
//! another, which leaves to others the larger part of the processor.

use std::{
    collections::HashMap,
    net::IpAddr,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use argon2::{
    Algorithm, Argon2, Block, Params, PasswordVerifier as _, Version,
    password_hash::{
        Error as HashError,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
};
use tokio::{sync::Semaphore, task};
use zeroize::Zeroizing;

use crate::{
    domain::{CredentialId, Invalid, Token},
    error::Error,
    random,
    store::StoreError,
};

/// How many may wait for a thread before the next one is refused.
const QUEUE: usize = 256;

/// How many blocks of a KiB a thread keeps at most while it has nothing to do.
const KEPT_BLOCKS: usize = 4_096;

/// How many proofs may be asked for at once, how many of them by one source, and by
/// one caller whatever addresses it names.
const PLACES: usize = 64;
const SHARE: usize = 4;
const CALLER_SHARE: usize = 16;

/// The dearest record that is proved: memory in KiB, passes and lanes.
const MAX_MEMORY: u32 = 1_048_576;
const MAX_PASSES: u32 = 100;
const MAX_LANES: u32 = 16;

/// Makes the record that proves a secret when its pepper is lost.
///
/// The secrets are 256 random bits, which nobody guesses at any cost, so the
/// cost here is small; it is not on the path of a verification.
pub struct Hasher {
    work: Arc<Work>,
    places: Arc<Semaphore>,
    threads: Arc<Semaphore>,
}

/// What a thread does, and with what.
struct Work {
    argon2: Argon2<'static>,
    /// Memory that was used before; what is left in it says no more of a secret than its
    /// record does: to get it from the system anew costs a page fault for
    /// every fourth block, which takes a good part as long as to fill it.
    memory: Mutex<Vec<Vec<Block>>>,
}

/// More secrets wait to be hashed than may.
#[derive(Debug, thiserror::Error)]
#[error("too many secrets are being hashed")]
pub struct Busy;

impl Hasher {
    /// A pool of `threads` with Argon2id at this cost: memory in KiB, and passes.
    ///
    /// # Errors
    ///
    /// The cost is out of Argon2's range.
    pub fn new(memory: u32, passes: u32, threads: usize) -> Result<Self, Invalid> {
        let params = Params::new(memory, passes, 1, None)
            .map_err(|error| Invalid(format!("is out of Argon2's range: {error}")))?;
        Ok(Self {
            work: Arc::new(Work {
                argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
                memory: Mutex::default(),
            }),
            places: Arc::new(Semaphore::new(threads + QUEUE)),
            threads: Arc::new(Semaphore::new(threads)),
        })
    }

    /// The PHC string of a token's Argon2id record.
    ///
    /// # Errors
    ///
    /// [`Busy`], at once, if too many wait already.
    pub async fn record(&self, token: &Token) -> Result<String, Busy> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Busy)?;
        let thread =
            Arc::clone(&self.threads).acquire_owned().await.expect("the semaphore is never closed");
        let work = Arc::clone(&self.work);
        let secret = Zeroizing::new(token.expose().to_owned());
        let record = task::spawn_blocking(move || {
            let record = work.record(secret.as_bytes());
            drop((thread, place));
            record.expect("the parameters were checked and the salt is made here").to_string()
        });
        Ok(record.await.expect("hashing does not panic"))
    }
}

impl Work {
    fn record(&self, secret: &[u8]) -> Result<PasswordHash, HashError> {
        let params = self.argon2.params();
        let salt = Salt::new(&random::bytes::<16>())?;
        let mut hash = [0; Params::DEFAULT_OUTPUT_LEN];
        let used = self.memory.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut memory = used.unwrap_or_else(|| vec![Block::default(); params.block_count()]);
        self.argon2.hash_password_into_with_memory(secret, &salt, &mut hash, &mut memory)?;
        if memory.len() <= KEPT_BLOCKS {
            self.memory.lock().unwrap_or_else(PoisonError::into_inner).push(memory);
        }
        Ok(PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(params)?,
            salt: Some(salt),
            hash: Some(Output::new(&hash)?),
        })
    }
}

/// The PHC string of an Argon2id record that costs no more than one may.
#[derive(Debug, Clone)]
pub struct Record(PasswordHash);

impl FromStr for Record {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("is no Argon2id record, or too dear a one");
        let record = PasswordHash::new(text).map_err(|_| invalid())?;
        let is_bounded = Params::try_from(&record).is_ok_and(|params| {
            params.m_cost() <= MAX_MEMORY
                && params.t_cost() <= MAX_PASSES
                && params.p_cost() <= MAX_LANES
        });
        let is_argon2id = record.algorithm == Algorithm::Argon2id.ident();
        let is_whole = record.salt.is_some() && record.hash.is_some();
        if is_bounded && is_argon2id && is_whole { Ok(Self(record)) } else { Err(invalid()) }
    }
}

/// Who asks for a proof. Wrong secrets cost as much as right ones, so each may only
/// have so many under way; what they name, anybody could name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    caller: Option<CredentialId>,
    network: Option<IpAddr>,
}

impl Source {
    /// A caller, who asks about what was presented at `ip`; none: one that calls
    /// from there and is not let in yet.
    #[must_use]
    pub fn new(caller: Option<CredentialId>, ip: Option<IpAddr>) -> Self {
        let network = ip.map(|ip| match ip.to_canonical() {
            IpAddr::V4(address) => IpAddr::V4(address),
            // Whoever has one address of these has the whole /64.
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        });
        Self { caller, network }
    }
}

/// Proves secrets by their records.
pub struct Recovery {
    threads: Arc<Semaphore>,
    places: Mutex<HashMap<Source, usize>>,
    runs: AtomicU64,
}

impl Recovery {
    /// A pool of `threads`.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self {
            threads: Arc::new(Semaphore::new(threads)),
            places: Mutex::default(),
            runs: AtomicU64::new(0),
        }
    }

    /// Whether the token is the one that the record is of.
    ///
    /// # Errors
    ///
    /// [`Error::Busy`], at once, if this source or all of them wait for as many proofs
    /// as they may; or the record can't be computed.
    pub async fn proves(
        self: &Arc<Self>,
        record: Record,
        token: &Token,
        source: &Source,
    ) -> Result<bool, Error> {
        let place = self.take_place(source)?;
        let thread =
            Arc::clone(&self.threads).acquire_owned().await.expect("the semaphore is never closed");
        self.runs.fetch_add(1, Ordering::Relaxed);
        let secret = Zeroizing::new(token.expose().to_owned());
        let proved = task::spawn_blocking(move || {
            let proved = Argon2::default().verify_password(secret.as_bytes(), &record.0);
            // Not before: a caller that hangs up does not stop the work.
            drop((thread, place));
            match proved {
                Ok(()) => Ok(true),
                Err(HashError::PasswordInvalid) => Ok(false),
                Err(error) => Err(StoreError::Failed(error.into()).into()),
            }
        });
        proved.await.expect("hashing does not panic")
    }

    /// How many proofs were begun since the start.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    fn take_place(self: &Arc<Self>, source: &Source) -> Result<Place, Busy> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: usize = places.values().sum();
        let own = places.get(source).copied().unwrap_or(0);
        // The addresses that a caller names are its own to invent.
        let of_caller: usize = places
            .iter()
            .filter(|(other, _)| other.caller.is_some() && other.caller == source.caller)
            .map(|(_, count)| count)
            .sum();
        if taken >= PLACES || own >= SHARE || of_caller >= CALLER_SHARE {
            return Err(Busy);
        }
        places.insert(source.clone(), own + 1);
        Ok(Place { recovery: Arc::clone(self), source: source.clone() })
    }
}

/// One of the places of a source, until it is dropped.
struct Place {
    recovery: Arc<Recovery>,
    source: Source,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.recovery.places.lock().unwrap_or_else(PoisonError::into_inner);
        match places.get_mut(&self.source) {
            Some(own) if *own > 1 => *own -= 1,
            Some(_) | None => {
                places.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(n: u8) -> Token {
        Token::from_random(&"pat_".parse().unwrap(), &[n; 32])
    }

    #[tokio::test]
    async fn record_proves_its_token_and_no_other() {
        let hasher = Hasher::new(1024, 1, 1).unwrap();
        let record = hasher.record(&token(1)).await.unwrap();
        assert!(record.starts_with("$argon2id$v=19$m=1024,t=1,p=1$"), "{record}");
        let record: Record = record.parse().unwrap();
        let recovery = Arc::new(Recovery::new(1));
        let source = Source::new(None, None);
        assert!(recovery.proves(record.clone(), &token(1), &source).await.unwrap());
        assert!(!recovery.proves(record, &token(2), &source).await.unwrap());
        assert_eq!(recovery.runs(), 2);
    }

    #[test]
    fn records_of_another_kind_or_beyond_the_bounds_are_refused() {
        let record = |algorithm: &str, cost: &str| {
            format!("${algorithm}$v=19${cost}$c29tZXNhbHQ${}", "A".repeat(43)).parse::<Record>()
        };
        assert!(record("argon2id", "m=1048576,t=100,p=16").is_ok());
        for (algorithm, cost) in [
            ("argon2d", "m=1024,t=1,p=1"),
            ("argon2i", "m=1024,t=1,p=1"),
            ("scrypt", "m=1024,t=1,p=1"),
            ("argon2id", "m=1048577,t=1,p=1"),
            ("argon2id", "m=1024,t=101,p=1"),
            ("argon2id", "m=1024,t=1,p=17"),
            ("argon2id", "m=1024,t=0,p=1"),
        ] {
            assert!(record(algorithm, cost).is_err(), "{algorithm} {cost}");
        }
        for text in ["", "$argon2id$", "not a record"] {
            assert!(text.parse::<Record>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_source_has_its_share_of_the_places_and_no_more() {
        let recovery = Arc::new(Recovery::new(1));
        let from = |ip: &str| Source::new(None, Some(ip.parse().unwrap()));
        let mut held: Vec<_> =
            (0..SHARE).map(|_| recovery.take_place(&from("192.0.2.1")).unwrap()).collect();
        assert!(recovery.take_place(&from("192.0.2.1")).is_err());
        assert!(recovery.take_place(&from("::ffff:192.0.2.1")).is_err());
        held.push(recovery.take_place(&from("192.0.2.2")).unwrap());
        let caller = Source::new(Some(CredentialId("1".to_owned())), None);
        held.push(recovery.take_place(&caller).unwrap());
        for number in 1..=SHARE {
            held.push(recovery.take_place(&from(&format!("2001:db8::{number}"))).unwrap());
        }
        assert!(recovery.take_place(&from("2001:db8::ff:1")).is_err());
        assert!(recovery.take_place(&from("2001:db8:0:1::1")).is_ok());

        held.remove(0);
        held.push(recovery.take_place(&from("192.0.2.1")).unwrap());
        while held.len() < PLACES {
            let number = held.len();
            held.push(recovery.take_place(&from(&format!("198.51.100.{number}"))).unwrap());
        }
        assert!(recovery.take_place(&from("203.0.113.1")).is_err());
        drop(held);
        assert!(recovery.places.lock().unwrap().is_empty());
    }

    #[test]
    fn one_caller_has_its_share_whatever_addresses_it_names() {
        let recovery = Arc::new(Recovery::new(1));
        let of = |caller: &str, number: usize| {
            let ip = format!("192.0.2.{number}").parse().ok();
            Source::new(Some(CredentialId(caller.to_owned())), ip)
        };
        let held: Vec<_> = (0..CALLER_SHARE)
            .map(|number| recovery.take_place(&of("1", number)).unwrap())
            .collect();
        assert!(recovery.take_place(&of("1", 100)).is_err());
        assert!(recovery.take_place(&of("2", 100)).is_ok());
        drop(held);
        assert!(recovery.places.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let hasher = Hasher::new(1024, 1, 1).unwrap();
        let _all = hasher.places.acquire_many(1 + 256).await.unwrap();
        assert!(hasher.record(&token(1)).await.is_err());
    }
}
