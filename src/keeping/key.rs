//! By what is found what is kept: a keyed hash, never the text of a token.

use std::hash::{BuildHasher, Hash, Hasher};

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::random;

/// A SipHash-2-4-128 under a key that only this process has and that it draws at
/// its start: who does not know the key can't tell, nor make, what collides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(pub(crate) [u64; 2]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

impl Key {
    /// Some of its bits.
    pub(crate) fn low(&self) -> usize {
        usize::try_from(self.0[1] >> 32).unwrap_or_default()
    }
}

impl From<SipHasher24> for Key {
    fn from(hasher: SipHasher24) -> Self {
        let hash = hasher.finish128();
        Self([hash.h1, hash.h2])
    }
}

/// What makes keys.
pub(crate) struct Keys([u8; 16]);

impl Keys {
    pub(crate) fn new() -> Self {
        Self(random::bytes())
    }

    /// Hashes what a [`Key`] is to be made of.
    pub(crate) fn hasher(&self) -> SipHasher24 {
        SipHasher24::new_with_key(&self.0)
    }
}

/// Hashes keys, which are hashes, by what they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct AsItIs(u64);

impl BuildHasher for AsItIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self::default()
    }
}

impl Hasher for AsItIs {
    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is one number");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
