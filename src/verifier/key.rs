//! What the keys of tokens and of memberships are made of.

use std::hash::Hasher as _;

use crate::{
    domain::TokenRef,
    keeping::key::{Key, Keys},
};

impl Keys {
    /// Of a token, in whichever of its forms it is presented: one that names its uuid
    /// proves less if that is not its own, so it has a key of its own.
    pub(super) fn of_token(&self, token: &TokenRef<'_>) -> Key {
        self.of(&[token.expose(), token.uuid().unwrap_or_default()])
    }

    /// Of what a token's owner is in a workspace.
    pub(super) fn of_member(&self, token: Key, asked: Membership, workspace_id: &str) -> Key {
        let mut hasher = self.hasher();
        hasher.write_u64(token.0[0]);
        hasher.write_u64(token.0[1]);
        hasher.write_u8(asked as u8);
        hasher.write(workspace_id.as_bytes());
        hasher.into()
    }

    /// Of several texts, none of which holds a NUL.
    pub(super) fn of(&self, texts: &[&str]) -> Key {
        let mut hasher = self.hasher();
        for text in texts {
            hasher.write(text.as_bytes());
            hasher.write_u8(0);
        }
        hasher.into()
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
