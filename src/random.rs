//! Randomness, from the operating system and from here alone.

use uuid::{Builder, Uuid};

use crate::domain::Timestamp;

/// Random bytes.
///
/// # Panics
///
/// If the operating system has none to give: nothing may be issued then.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// A new UUIDv7 (RFC 9562) of the instant `now`, as text.
#[must_use]
pub fn id(now: Timestamp) -> String {
    let millis = u64::try_from(now.as_micros() / 1_000).unwrap_or(0);
    let id: Uuid = Builder::from_unix_timestamp_millis(millis, &bytes()).into_uuid();
    id.hyphenated().to_string()
}
