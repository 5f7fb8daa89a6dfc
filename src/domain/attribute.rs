//! The attributes of API client authorizations, and what a list is sorted by.

use std::str::FromStr;

use super::Invalid;

/// What is compared how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Number,
    Time,
    Scopes,
    Secret,
    Opaque,
}

macro_rules! attributes {
    ($($name:ident = $text:literal, $form:ident, may be unset: $unset:literal: $meaning:literal,)*) => {
        /// An attribute of an API client authorization.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Attribute {
            $(#[doc = $meaning] $name,)*
        }

        impl Attribute {
            /// Every attribute, in the order of the proto.
            pub const ALL: [Self; [$($text),*].len()] = [$(Self::$name),*];

            /// Its name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// Whether there are API client authorizations without it.
            #[must_use]
            pub fn may_be_unset(self) -> bool {
                match self {
                    $(Self::$name => $unset,)*
                }
            }

            pub(super) fn form(self) -> Form {
                match self {
                    $(Self::$name => Form::$form,)*
                }
            }
        }
    };
}

attributes! {
    Uuid = "uuid", Text, may be unset: false: "Its public name.",
    ApiToken = "api_token", Secret, may be unset: false: "Its secret.",
    ApiClientId = "api_client_id", Number, may be unset: true: "The client application's number.",
    UserId = "user_id", Number, may be unset: false: "Its user's number.",
    CreatedByIpAddress = "created_by_ip_address", Text, may be unset: true: "Where its creator called from.",
    LastUsedByIpAddress = "last_used_by_ip_address", Text, may be unset: true: "Where it was last used from.",
    LastUsedAt = "last_used_at", Time, may be unset: true: "When it was last used.",
    ExpiresAt = "expires_at", Time, may be unset: true: "When it ends.",
    OwnerUuid = "owner_uuid", Text, may be unset: false: "Its user's id.",
    Scopes = "scopes", Scopes, may be unset: false: "What it may do.",
    CreatedAt = "created_at", Time, may be unset: false: "When it was made.",
    Etag = "etag", Opaque, may be unset: false: "What differs once it was changed.",
}

impl FromStr for Attribute {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let known = Self::ALL.into_iter().find(|attribute| attribute.as_str() == text);
        known.ok_or_else(|| Invalid::new("is not an attribute of an API client authorization"))
    }
}

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The least first, what is unset last.
    Ascending,
    /// The greatest first, what is unset before.
    Descending,
}

/// By what to sort a list, and which way: an attribute, alone or followed by `asc` or
/// `desc`.
///
/// # Errors
///
/// The text is not that, or nothing is sorted by the attribute.
pub fn parse_order(text: &str) -> Result<(Attribute, Direction), Invalid> {
    let mut words = text.split_ascii_whitespace();
    let attribute: Attribute = words.next().unwrap_or_default().parse()?;
    let direction = match words.next().map(str::to_ascii_lowercase).as_deref() {
        None | Some("asc") => Direction::Ascending,
        Some("desc") => Direction::Descending,
        Some(_) => return Err(Invalid::new("must be an attribute and asc or desc")),
    };
    if words.next().is_some() {
        return Err(Invalid::new("must be one attribute and asc or desc"));
    }
    match attribute.form() {
        Form::Secret | Form::Opaque => Err(Invalid::new("is nothing to sort by")),
        Form::Text | Form::Number | Form::Time | Form::Scopes => Ok((attribute, direction)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_parse_back_from_their_names() {
        for attribute in Attribute::ALL {
            assert_eq!(attribute.as_str().parse(), Ok(attribute));
        }
        assert!("Uuid".parse::<Attribute>().is_err());
        assert!("any".parse::<Attribute>().is_err());
    }

    #[test]
    fn order_is_an_attribute_and_a_direction() {
        let uuid = |direction| Ok((Attribute::Uuid, direction));
        for text in ["uuid", "uuid asc", " uuid  ASC "] {
            assert_eq!(parse_order(text), uuid(Direction::Ascending), "{text}");
        }
        assert_eq!(parse_order("uuid DESC"), uuid(Direction::Descending));
        for text in ["", " ", "asc", "uuid down", "uuid asc desc", "api_token", "etag", "x"] {
            assert!(parse_order(text).is_err(), "{text}");
        }
    }
}
