//! By what is found what is kept: a keyed hash of the token, never its text.

use std::hash::{BuildHasher, Hash, Hasher};

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::{domain::TokenRef, random};

/// A SipHash-2-4-128 under a key that only this process has and that it draws at
/// its start: who does not know the key can't tell, nor make, what collides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key([u64; 2]);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0[0]);
    }
}

impl Key {
    /// Some of its bits.
    pub(super) fn low(&self) -> usize {
        usize::try_from(self.0[1] >> 32).unwrap_or_default()
    }
}

/// What makes keys.
pub(super) struct Keys([u8; 16]);

impl Keys {
    pub(super) fn new() -> Self {
        Self(random::bytes())
    }

    /// Of a token, in whichever of its forms it is presented: one that names its uuid
    /// proves less if that is not its own, so it has a key of its own.
    pub(super) fn of_token(&self, token: &TokenRef<'_>) -> Key {
        self.of(&[token.expose(), token.uuid().unwrap_or_default()])
    }

    /// Of what a token's owner is in a workspace.
    pub(super) fn of_member(&self, token: Key, asked: Membership, workspace_id: &str) -> Key {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        hasher.write_u64(token.0[0]);
        hasher.write_u64(token.0[1]);
        hasher.write_u8(asked as u8);
        hasher.write(workspace_id.as_bytes());
        finish(&hasher)
    }

    /// Of several texts, none of which holds a NUL.
    pub(super) fn of(&self, texts: &[&str]) -> Key {
        let mut hasher = SipHasher24::new_with_key(&self.0);
        for text in texts {
            hasher.write(text.as_bytes());
            hasher.write_u8(0);
        }
        finish(&hasher)
    }
}

/// For what it is asked whether a user is a member of a workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Membership {
    /// Whether its tokens serve there, as long as the workspace is active.
    Serves = 1,
    /// Whether who is bound to the workspace may know of its tokens.
    IsKnown = 2,
}

fn finish(hasher: &SipHasher24) -> Key {
    let hash = hasher.finish128();
    Key([hash.h1, hash.h2])
}

/// Hashes keys, which are hashes, by what they are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct AsItIs(u64);

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
