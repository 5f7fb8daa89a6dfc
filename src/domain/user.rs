use std::{fmt, str::FromStr};

use super::{
    CredentialId, DisplayName, ExternalId, Handle, Invalid, Timestamp,
    credential::AUTHORIZATION_CODE, token::is_base36,
};

/// The type code of users in Arvados' ids.
const USER_CODE: &str = "tpzed";
/// How many base36 digits end such an id.
const ID_DIGITS: usize = 15;
const SYSTEM_DIGITS: &str = "000000000000000";
/// Those of the system root token and of the anonymous token.
const RESERVED_DIGITS: [&str; 2] = [SYSTEM_DIGITS, "anonymouspublic"];
const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The five characters that begin every id of one installation: `[0-9a-z]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterId(String);

impl ClusterId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The user as whom the service itself acts.
    #[must_use]
    pub fn system_user(&self) -> UserId {
        UserId(format!("{}-{USER_CODE}-{SYSTEM_DIGITS}", self.0))
    }

    /// The user id that this random number makes.
    #[must_use]
    pub fn user_id(&self, random: u128) -> UserId {
        UserId(self.id(USER_CODE, random))
    }

    /// The uuid of an API client authorization that this random number makes.
    #[must_use]
    pub fn authorization_id(&self, random: u128) -> CredentialId {
        CredentialId(self.id(AUTHORIZATION_CODE, random))
    }

    /// The uuid under which the system root token acts.
    #[must_use]
    pub fn root_id(&self) -> CredentialId {
        CredentialId(format!("{}-{AUTHORIZATION_CODE}-{SYSTEM_DIGITS}", self.0))
    }

    /// The uuid that an API client authorization of this cluster may be given.
    ///
    /// # Errors
    ///
    /// It is not one, or of another cluster, or one that Arvados has taken for a
    /// purpose.
    pub fn free_authorization_id(&self, text: &str) -> Result<CredentialId, Invalid> {
        let id = CredentialId::of_authorization(text)?;
        if !text.starts_with(&self.0) {
            return Err(Invalid(format!("must begin with the id of this cluster, {}", self.0)));
        }
        if RESERVED_DIGITS.iter().any(|digits| text.ends_with(digits)) {
            return Err(Invalid::new("is reserved"));
        }
        Ok(id)
    }

    fn id(&self, code: &str, random: u128) -> String {
        let mut digits = String::with_capacity(ID_DIGITS);
        let mut rest = random;
        for _ in 0..ID_DIGITS {
            let digit = usize::try_from(rest % 36).expect("below 36");
            digits.push(char::from(BASE36[digit]));
            rest /= 36;
        }
        format!("{}-{code}-{digits}", self.0)
    }
}

impl FromStr for ClusterId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if is_base36(text, 5) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new("must be five of the characters 0-9 and a-z"))
        }
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user's id: `{cluster}-tpzed-{15 base36 digits}`, the same as `owner_uuid`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserId(String);

impl UserId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the user as whom the service itself acts.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.0.ends_with(SYSTEM_DIGITS)
    }
}

impl FromStr for UserId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let mut parts = text.split('-');
        let is_id = parts.next().is_some_and(|cluster| is_base36(cluster, 5))
            && parts.next() == Some(USER_CODE)
            && parts.next().is_some_and(|digits| is_base36(digits, ID_DIGITS))
            && parts.next().is_none();
        if is_id { Ok(Self(text.to_owned())) } else { Err(Invalid::new("is not a user id")) }
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a caller may name a user: by id, `handle:…` or `external:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum UserRef {
    /// By the id that this service gave.
    Id(UserId),
    /// By the unique short name.
    Handle(Handle),
    /// By the name that a system around us gave.
    External(ExternalId),
}

impl FromStr for UserRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(handle) = text.strip_prefix("handle:") {
            handle.parse().map(Self::Handle)
        } else if let Some(external) = text.strip_prefix("external:") {
            external.parse().map(Self::External)
        } else {
            text.parse()
                .map(Self::Id)
                .map_err(|_| Invalid::new("must be a user id, handle:… or external:…"))
        }
    }
}

/// What a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserKind {
    /// A person.
    Human,
    /// A program.
    Service,
}

/// Whom tokens serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id, for ever.
    pub id: UserId,
    /// The number that Arvados calls `user_id`.
    pub number: i64,
    /// Its unique short name.
    pub handle: Handle,
    /// What it is shown as.
    pub display_name: Option<DisplayName>,
    /// A person or a program.
    pub kind: UserKind,
    /// Whether it may act for others and change the directory.
    pub is_admin: bool,
    /// Whether its tokens are accepted.
    pub is_active: bool,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was deleted, if it was.
    pub deleted_at: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_of_the_form_of_arvados() {
        let cluster: ClusterId = "zzzzz".parse().unwrap();
        assert_eq!(cluster.system_user().as_str(), "zzzzz-tpzed-000000000000000");
        let id = cluster.user_id(u128::MAX);
        assert_eq!(id.as_str().len(), 27);
        assert_eq!(id.as_str().parse::<UserId>().unwrap(), id);
        for text in [
            "",
            "zzzzz-tpzed-00000000000000",
            "zzzzz-gj3su-000000000000000",
            "ZZZZZ-tpzed-000000000000000",
            "zzzzz-tpzed-000000000000000-",
        ] {
            assert!(text.parse::<UserId>().is_err(), "{text}");
        }
    }

    #[test]
    fn users_are_named_in_three_ways() {
        assert!(matches!("handle:alice".parse(), Ok(UserRef::Handle(_))));
        assert!(matches!("external:okta|1".parse(), Ok(UserRef::External(_))));
        assert!(matches!("zzzzz-tpzed-000000000000000".parse(), Ok(UserRef::Id(_))));
        assert!("alice".parse::<UserRef>().is_err());
        assert!("handle:".parse::<UserRef>().is_err());
    }
}
