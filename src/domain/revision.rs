use std::{fmt, str::FromStr};

use super::Invalid;

/// A point in the history of changes that can alter an answer of Verify.
///
/// Its text is opaque to callers: the number of the change and the random mark
/// that was drawn for it, so that a revision of another store, or of a history
/// that was since rewritten, is told from one of this store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Revision {
    /// Gapless, in commit order; 0 before the first change.
    pub number: i64,
    /// Drawn at random for each change.
    pub mark: i64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{:016x}", self.number, self.mark)
    }
}

impl FromStr for Revision {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let parse = || {
            let (number, mark) = text.split_once('-')?;
            let digits =
                (1..=19).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
            let hex = mark.len() == 16 && mark.bytes().all(|b| b.is_ascii_hexdigit());
            (digits && hex).then_some(())?;
            Some(Self {
                number: number.parse().ok()?,
                mark: u64::from_str_radix(mark, 16).ok()?.cast_signed(),
            })
        };
        parse().ok_or_else(|| Invalid::new("is not a revision that this service gave"))
    }
}

/// What a change touched: whose answers of Verify it may have altered.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Touched {
    /// A credential.
    Credential(String),
    /// A user, its memberships included.
    User(String),
    /// A user, by its membership in a workspace: what it became, or is no more.
    Member {
        /// The user.
        user_id: String,
        /// The workspace.
        workspace_id: String,
    },
    /// A workspace.
    Workspace(String),
    /// An organization.
    Organization(String),
    /// All there is.
    Everything,
}

impl Touched {
    /// The user, if that is what it is.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        match self {
            Self::User(id) | Self::Member { user_id: id, .. } => Some(id),
            Self::Credential(_) | Self::Workspace(_) | Self::Organization(_) | Self::Everything => {
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_prints_parses_back(number in 0i64.., mark: i64) {
            let revision = Revision { number, mark };
            prop_assert_eq!(revision.to_string().parse::<Revision>().unwrap(), revision);
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "1",
            "-",
            "-1-0000000000000000",
            "1-0",
            "+1-0000000000000000",
            "1-000000000000000g",
        ] {
            assert!(text.parse::<Revision>().is_err(), "{text}");
        }
    }
}
