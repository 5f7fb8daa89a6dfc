use std::{fmt, str::FromStr};

use uuid::Uuid;

use super::{DisplayName, ExternalId, Invalid, Timestamp, UserId};

/// What users belong to: an organization, or a workspace in one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its id, a UUID.
    pub id: String,
    /// Of a workspace: the organization that it is part of, for ever.
    pub organization_id: Option<String>,
    /// Its short name for addresses.
    pub slug: Slug,
    /// What people call it.
    pub name: DisplayName,
    /// Its name in a system around us.
    pub external_id: Option<ExternalId>,
    /// Whether tokens bound to it, or to what is in it, are accepted.
    pub is_active: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// The two kinds of container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ContainerKind {
    /// What workspaces are part of.
    Organization,
    /// What personal access tokens can be bound to.
    Workspace,
}

/// The short name of a container: 1 to 63 lower-case letters, digits and
/// hyphens, and never of the shape of an id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slug(String);

/// How a caller may name a container of a known kind: by id, by slug, or `external:…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ContainerRef {
    /// By the id that this service gave.
    Id(String),
    /// By its short name.
    Slug(Slug),
    /// By the name that a system around us gave.
    External(ExternalId),
}

/// How a caller names a container.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ContainerName {
    /// An organization.
    Organization(ContainerRef),
    /// A workspace, which has its slug in its organization alone.
    Workspace {
        /// The workspace.
        workspace: ContainerRef,
        /// The organization that it must be part of.
        organization: Option<ContainerRef>,
    },
}

/// As what a user belongs to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Manages everything in it.
    Owner,
    /// As an owner, in what this service decides.
    Admin,
    /// May have tokens bound to it.
    Member,
    /// Belongs, and can have none.
    Guest,
}

/// That a user belongs to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Its id: another when the user leaves and comes back, or becomes a guest.
    pub id: String,
    /// Who belongs.
    pub user_id: UserId,
    /// To which kind of container.
    pub kind: ContainerKind,
    /// To which one.
    pub container_id: String,
    /// As what.
    pub role: Role,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Container {
    /// Which of the two kinds it is.
    #[must_use]
    pub fn kind(&self) -> ContainerKind {
        match self.organization_id {
            None => ContainerKind::Organization,
            Some(_) => ContainerKind::Workspace,
        }
    }

    /// The id of the organization that it is, or is part of.
    #[must_use]
    pub fn organization(&self) -> &str {
        self.organization_id.as_ref().unwrap_or(&self.id)
    }
}

impl ContainerName {
    /// The kind of what is named.
    #[must_use]
    pub fn kind(&self) -> ContainerKind {
        match self {
            Self::Organization(_) => ContainerKind::Organization,
            Self::Workspace { .. } => ContainerKind::Workspace,
        }
    }
}

impl Slug {
    /// The slug as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What this program stored, by whichever rule it had then.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for Slug {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_slug = (1..=63).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && Uuid::try_parse(text).is_err()
            && !super::text::holds_token(text);
        if is_slug {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                "must be 1 to 63 lower-case letters, digits and hyphens, and not of the shape of an id",
            ))
        }
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ContainerRef {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(external) = text.strip_prefix("external:") {
            return external.parse().map(Self::External);
        }
        if let Ok(id) = Uuid::try_parse(text) {
            return Ok(Self::Id(id.as_hyphenated().to_string()));
        }
        text.parse()
            .map(Self::Slug)
            .map_err(|_| Invalid::new("must be an id, a slug or external:…"))
    }
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Member, Self::Guest];

    /// The role as it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Guest => "guest",
        }
    }

    /// Whether it manages members and everybody's tokens.
    #[must_use]
    pub fn manages(self) -> bool {
        match self {
            Self::Owner | Self::Admin => true,
            Self::Member | Self::Guest => false,
        }
    }

    /// Whether who has it in a workspace may have tokens bound to that.
    #[must_use]
    pub fn holds_tokens(self) -> bool {
        self != Self::Guest
    }
}

impl FromStr for Role {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| Invalid::new("is no role"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_short_plain_and_no_ids() {
        for slug in ["a", "0", "my-org", "-", &"a".repeat(63)] {
            assert!(slug.parse::<Slug>().is_ok(), "{slug}");
        }
        let id = "0198c0de-0000-7000-8000-00000000000a";
        for slug in ["", "A", "a b", "a_b", "é", &"a".repeat(64), id, &id.replace('-', "")] {
            assert!(slug.parse::<Slug>().is_err(), "{slug}");
        }
    }

    #[test]
    fn containers_are_named_in_three_ways() {
        let upper = "0198C0DE-0000-7000-8000-00000000000A";
        assert_eq!(upper.parse(), Ok(ContainerRef::Id(upper.to_lowercase())));
        assert!(matches!("external:okta|1".parse(), Ok(ContainerRef::External(_))));
        assert!(matches!("acme".parse(), Ok(ContainerRef::Slug(_))));
        for text in ["", "external:", "Acme", "a\0b"] {
            assert!(text.parse::<ContainerRef>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn roles_print_and_parse_back() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse(), Ok(role));
        }
        assert!("superuser".parse::<Role>().is_err());
    }
}
