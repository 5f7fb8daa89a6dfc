//! What is kept of a verification, as small as it can be: there may be millions.

use std::{
    net::IpAddr,
    ops::Range,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use super::history::{History, ReadAt};
use crate::{
    caller::Caller,
    clock::Uptime,
    domain::{
        AllowedIps, CredentialId, Facts, Found, Kind, Requirement, SecretState, Timestamp, Verdict,
    },
    keeping::{
        cache::{Kept, OVERHEAD},
        slots::Depends,
    },
    rights::{self, Denied, Right},
};

/// An answer in the form in which it is given, as far as it is the same each time.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// The form.
    pub bytes: Vec<u8>,
    /// Where the id of the token stands in it.
    pub id: Range<u16>,
    /// Where the id of its workspace stands in it; empty: it has none.
    pub workspace_id: Range<u16>,
}

/// Where a text stands.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: u16,
    length: u8,
}

impl From<Range<u16>> for Place {
    fn from(range: Range<u16>) -> Self {
        let length = u8::try_from(range.len()).expect("ids are short");
        Self { start: range.start, length }
    }
}

/// What the RPCs of verification are for which a caller is known by what is kept.
pub const ASKING: [&Right; 5] = [
    &rights::VERIFY,
    &rights::BATCH_VERIFY,
    &rights::STREAM_VERIFY,
    &rights::WATCH,
    &rights::REPORT_USE,
];

/// What a verification found of a token, and of which state of the store that is.
#[derive(Debug)]
pub struct Entry {
    /// The answer as it is given, and then the scopes, a NUL behind each.
    bytes: Box<[u8]>,
    rare: Option<Box<Rare>>,
    expires_at: Option64,
    revision: i64,
    era: u32,
    depends: Depends,
    /// In which second uses were noted last, and marks of which.
    noted: AtomicU64,
    /// When it was last asked for, in seconds since the machine was started.
    used: AtomicU32,
    answer: u32,
    id: Place,
    workspace_id: Place,
    kind: Kind,
    is_revoked: bool,
    is_superseded: bool,
    owner_is_active: bool,
    workspace_is_active: bool,
    may: [Option<Denied>; ASKING.len()],
}

/// What few tokens have.
#[derive(Debug, Clone)]
struct Rare {
    allowed_ips: AllowedIps,
    revoked_at: Option<Timestamp>,
    /// When the store is to be asked again, whatever becomes of it until then.
    until: Option<Uptime>,
}

/// An instant in microseconds, or none, in eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Option64(i64);

impl Option64 {
    const NONE: i64 = i64::MAX;

    fn new(instant: Option<Timestamp>) -> Self {
        Self(instant.map_or(Self::NONE, Timestamp::as_micros))
    }

    fn get(self) -> Option<Timestamp> {
        (self.0 != Self::NONE).then(|| Timestamp::from_micros(self.0)).flatten()
    }
}

impl Entry {
    /// What was found, to be kept at most `until` then.
    pub(super) fn of(
        found: &Found,
        encoded: Encoded,
        read: ReadAt,
        depends: Depends,
        until: Option<Uptime>,
    ) -> Self {
        let Encoded { bytes: mut kept, id, workspace_id } = encoded;
        let answer = u32::try_from(kept.len()).expect("it is as long as its texts");
        for scope in &found.credential.scopes {
            kept.extend_from_slice(scope.as_bytes());
            kept.push(0);
        }
        let facts = found.facts();
        let allowed_ips = &found.credential.allowed_ips;
        let revoked_at = found.credential.revoked_at;
        let is_rare = revoked_at.is_some() || !allowed_ips.is_empty() || until.is_some();
        let rare =
            is_rare.then(|| Box::new(Rare { allowed_ips: allowed_ips.clone(), revoked_at, until }));
        let request_id = String::new();
        let caller = Caller { found: found.clone(), ip: None, request_id, route: None };
        Self {
            bytes: kept.into(),
            rare,
            expires_at: Option64::new(facts.expires_at),
            revision: read.revision,
            era: read.era,
            depends,
            noted: AtomicU64::new(0),
            used: AtomicU32::new(0),
            answer,
            id: id.into(),
            workspace_id: workspace_id.into(),
            kind: facts.kind,
            is_revoked: facts.revoked,
            is_superseded: found.secret.state == SecretState::Superseded,
            owner_is_active: facts.owner_is_active,
            workspace_is_active: facts.workspace_is_active,
            may: ASKING.map(|right| right.own(&caller).err()),
        }
    }

    /// The answer as it is given if the token is good, but for what differs each time.
    #[must_use]
    pub fn answer(&self) -> &[u8] {
        &self.bytes[..self.answer as usize]
    }

    /// The id of the token.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text(self.id)
    }

    /// The workspace that it is bound to.
    #[must_use]
    pub fn workspace_id(&self) -> Option<&str> {
        (self.workspace_id.length > 0).then(|| self.text(self.workspace_id))
    }

    /// What it may do.
    pub fn scopes(&self) -> impl Iterator<Item = &str> + Clone {
        let scopes = &self.bytes[self.answer as usize..];
        let scopes = scopes.strip_suffix(&[0]).map(|scopes| scopes.split(|byte| *byte == 0));
        scopes.into_iter().flatten().map(text)
    }

    /// When it was revoked, if it was by itself.
    #[must_use]
    pub fn revoked_at(&self) -> Option<Timestamp> {
        self.rare.as_ref().and_then(|rare| rare.revoked_at)
    }

    /// The first instant at which it is no longer good.
    #[must_use]
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at.get()
    }

    /// Whether it may ask this of the service.
    ///
    /// # Errors
    ///
    /// Why it may not.
    pub fn may(&self, right: &Right) -> Result<(), Denied> {
        let place = ASKING.iter().position(|asking| *asking == right);
        match place {
            Some(place) => self.may[place].map_or(Ok(()), Err),
            None => Err(Denied::Scope),
        }
    }

    /// Whether it may ask Verify.
    #[must_use]
    pub fn may_verify(&self) -> bool {
        self.may[0].is_none()
    }

    /// Whether nothing is known that changed it.
    pub(super) fn holds(&self, history: &History, now: Uptime) -> bool {
        let until = self.rare.as_ref().and_then(|rare| rare.until);
        let (read, depends) = self.read();
        history.holds(read, depends) && until.is_none_or(|until| now < until)
    }

    /// Whether the store is to be asked again soon, so nobody is to keep it for long.
    #[must_use]
    pub fn asks_again(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.until.is_some())
    }

    pub(super) fn read(&self) -> (ReadAt, Depends) {
        (ReadAt { revision: self.revision, era: self.era }, self.depends)
    }

    /// Whether it says without a look at memberships who may know of it, and whether
    /// it serves in a workspace.
    pub(super) fn is_bound(&self) -> bool {
        self.workspace_id.length > 0
    }

    pub(super) fn verdict(
        &self,
        members: Members,
        requirement: &Requirement<'_>,
        now: Timestamp,
    ) -> Verdict {
        let facts = Facts {
            kind: self.kind,
            workspace_id: self.workspace_id(),
            revoked: self.is_revoked,
            superseded: self.is_superseded,
            expires_at: self.expires_at(),
            owner_is_active: self.owner_is_active,
            workspace_is_active: self.workspace_is_active,
            allowed_ips: self.rare.as_ref().map(|rare| &rare.allowed_ips),
            member_of_required: members.of_required,
            member_of_askers: members.of_askers,
        };
        facts.verdict(self.scopes(), requirement, now)
    }

    /// Has its holder ask: it learns no more than it may, and what is used is used before
    /// it.
    pub fn ask<'e>(&'e self, requirement: &mut Requirement<'e>) {
        requirement.askers_workspace_id = self.workspace_id();
        requirement.verifier_id = Some(self.id());
    }

    /// Whether a use is to be noted: not if there was one in the same second, before the
    /// same verifier and from the same address.
    ///
    /// Of a second it remembers who asked and from where as four marks among 56, so that
    /// several who ask in turn are noted once each, and at most some twenty in all. One may
    /// seem to have been there that was not; the marks are others in each second, so it
    /// is noted in the next.
    pub(super) fn is_noteworthy(
        &self,
        at: Timestamp,
        ip: Option<IpAddr>,
        verifier_id: Option<&str>,
    ) -> bool {
        let second = at.as_micros().div_euclid(1_000_000).cast_unsigned();
        let from = match ip.map(|ip| ip.to_canonical()) {
            None => 1,
            Some(IpAddr::V4(ip)) => u64::from(ip.to_bits()).wrapping_add(2),
            Some(IpAddr::V6(ip)) => {
                let bits = ip.to_bits();
                (bits as u64) ^ ((bits >> 64) as u64).rotate_left(32)
            }
        };
        // Ids end at random.
        let before = verifier_id.and_then(|id| id.as_bytes().last_chunk()).copied();
        let before = u64::from_le_bytes(before.unwrap_or_default());
        let marks = marks(from.wrapping_mul(ODD) ^ before.rotate_left(17) ^ (second << 40));
        let noted = self.noted.load(Ordering::Relaxed);
        let (noted_in, mut seen) = (noted >> MARKS, noted & !(u64::MAX << MARKS));
        if noted_in != second & 0xff {
            seen = 0;
        }
        seen & marks != marks && {
            self.noted.store((second << MARKS) | seen | marks, Ordering::Relaxed);
            true
        }
    }

    /// The id of the token, to be kept elsewhere.
    pub(super) fn credential_id(&self) -> CredentialId {
        CredentialId(self.id().to_owned())
    }

    fn text(&self, place: Place) -> &str {
        let start = usize::from(place.start);
        text(&self.bytes[start..start + usize::from(place.length)])
    }
}

/// Whether the owner of an unbound token is a member of what a question names.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Members {
    pub(super) of_required: bool,
    pub(super) of_askers: bool,
}

/// Whether somebody is a member, and of which state of the store that is.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) is_member: bool,
    pub(super) read: ReadAt,
    pub(super) depends: Depends,
    pub(super) used: AtomicU32,
}

impl Kept for Entry {
    fn weight(&self) -> usize {
        let rare = if self.rare.is_some() { 128 } else { 0 };
        size_of::<Self>() + self.bytes.len() + rare + OVERHEAD
    }

    fn used(&self) -> &AtomicU32 {
        &self.used
    }
}

impl Kept for Member {
    fn weight(&self) -> usize {
        size_of::<Self>() + OVERHEAD
    }

    fn used(&self) -> &AtomicU32 {
        &self.used
    }
}

impl Clone for Entry {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            rare: self.rare.clone(),
            noted: AtomicU64::new(self.noted.load(Ordering::Relaxed)),
            used: AtomicU32::new(self.used.load(Ordering::Relaxed)),
            ..*self
        }
    }
}

/// How many bits are for marks of who asked in a second; those above are of the second.
const MARKS: u32 = 56;

/// A multiplier that spreads what it is given over all bits.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Four bits of the lowest [`MARKS`], or fewer if they fall together.
fn marks(of: u64) -> u64 {
    let mut mixed = of.wrapping_mul(ODD);
    mixed = (mixed ^ (mixed >> 32)).wrapping_mul(ODD);
    let mark = |shift: u32| 1 << ((((mixed >> shift) & 0xffff) * u64::from(MARKS)) >> 16);
    mark(0) | mark(16) | mark(32) | mark(48)
}

/// What was encoded from texts.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        let found = Found::root(&"zzzzz".parse().unwrap());
        let encoded = Encoded { bytes: Vec::new(), id: 0..0, workspace_id: 0..0 };
        let never = ReadAt { revision: i64::MAX, era: 0 };
        Entry::of(&found, encoded, never, Depends::default(), None)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000 + second * 1_000_000).unwrap()
    }

    fn verifier(number: u64) -> String {
        format!("0198c0de-0000-7000-8000-{:012x}", number.wrapping_mul(ODD) >> 16)
    }

    #[test]
    fn use_is_noted_once_a_second() {
        let (entry, ip) = (entry(), Some("10.0.0.1".parse().unwrap()));
        for second in 0..1_000 {
            assert!(entry.is_noteworthy(at(second), ip, None), "{second}");
            assert!(!entry.is_noteworthy(at(second), ip, None));
            let mapped = Some("::ffff:10.0.0.1".parse().unwrap());
            assert!(!entry.is_noteworthy(at(second), mapped, None));
        }
    }

    #[test]
    fn verifiers_that_ask_in_turn_are_noted_each_soon_and_seldom() {
        let entry = entry();
        let verifiers: Vec<String> = (0..10).map(verifier).collect();
        let mut missed = [0; 10];
        for second in 0..1_000 {
            let mut noted = [0; 10];
            for _ in 0..100 {
                for (verifier, noted) in verifiers.iter().zip(&mut noted) {
                    *noted += usize::from(entry.is_noteworthy(at(second), None, Some(verifier)));
                }
            }
            assert!(noted.iter().all(|noted| *noted <= 1), "{noted:?}");
            for (missed, noted) in missed.iter_mut().zip(noted) {
                *missed = if noted == 0 { *missed + 1 } else { 0 };
                assert!(*missed < 5, "{second}");
            }
        }
    }

    #[test]
    fn of_ever_new_addresses_few_are_noted_in_a_second() {
        let entry = entry();
        for second in 0..100 {
            let ip = |number: u32| Some(IpAddr::from(number.to_be_bytes()));
            let noted =
                (0..10_000).filter(|number| entry.is_noteworthy(at(second), ip(*number), None));
            assert!((10..=56).contains(&noted.count()));
        }
    }
}
