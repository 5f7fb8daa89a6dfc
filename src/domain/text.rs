use std::{fmt, str::FromStr};

use uuid::Uuid;

use super::{
    Invalid, TokenRef,
    token::{SECRET_DIGITS, is_base36},
};

/// Characters that make a text look like another: they reorder what follows.
const BIDIRECTIONAL: [char; 12] = [
    '\u{061c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}',
];

fn check(text: &str, at_most: usize) -> Result<(), Invalid> {
    if text.chars().count() > at_most {
        return Err(Invalid(format!("must be at most {at_most} characters long")));
    }
    if text.chars().any(|c| c.is_control() || BIDIRECTIONAL.contains(&c)) {
        return Err(Invalid::new("must not hold control or bidirectional characters"));
    }
    if holds_token(text) {
        return Err(Invalid::new("must not hold a token, which is for its holder alone"));
    }
    Ok(())
}

/// Whether there is a token anywhere in a text, whatever stands around it; the secret
/// of an API client authorization, which has no checksum, as a word of its own.
pub(super) fn holds_token(text: &str) -> bool {
    let mut words = text.split(|c: char| !c.is_ascii_alphanumeric());
    words.any(|word| is_base36(word, SECRET_DIGITS))
        || text.match_indices('_').any(|(at, _)| {
            let begins = (at.saturating_sub(15)..at).filter(|begin| text.is_char_boundary(*begin));
            let mut tokens = begins.filter_map(|begin| text.get(begin..at + 50));
            tokens.any(|token| TokenRef::parse(token).is_some())
        })
}

fn check_filled(text: &str, at_most: usize) -> Result<(), Invalid> {
    if text.trim().is_empty() {
        return Err(Invalid::new("must not be blank"));
    }
    check(text, at_most)
}

/// A newtype of text with a rule that its parser checks.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
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

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let check: fn(&str) -> Result<(), Invalid> = $check;
                check(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text! {
    /// What a person calls a personal access token: not blank, at most 100
    /// characters. Several tokens may have the same name.
    TokenName, |text| check_filled(text, 100)
}

text! {
    /// What a personal access token is for: at most 1000 characters, may be empty.
    Description, |text| check(text, 1000)
}

text! {
    /// What a user is shown as: not blank, at most 100 characters.
    DisplayName, |text| check_filled(text, 100)
}

text! {
    /// A user's name in a system around us: not blank, at most 255 characters.
    ExternalId, |text| check_filled(text, 255)
}

text! {
    /// A user's unique short name: 1 to 100 lower-case letters, digits and
    /// `. _ @ + -`, a letter or digit first.
    Handle, |text| {
        let is_handle = (1..=100).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._@+-".contains(&b))
            && !holds_token(text);
        if is_handle {
            Ok(())
        } else {
            Err(Invalid::new(
                "must be 1 to 100 lower-case letters, digits and . _ @ + -, a letter or digit first",
            ))
        }
    }
}

impl Handle {
    /// A handle for the user of this name: its lower-case letters and digits, with
    /// hyphens for what stands between them.
    #[must_use]
    pub fn of(name: &ExternalId) -> Self {
        let lower = name.as_str().to_ascii_lowercase();
        let words = lower.split(|c: char| !c.is_ascii_alphanumeric());
        let mut handle = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("-");
        handle.truncate(100);
        if handle.is_empty() { Self("user".to_owned()) } else { Self(handle) }
    }
}

/// The caller's own name of a request, so that it can be repeated: a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId(Uuid);

impl FromStr for RequestId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match Uuid::try_parse(text) {
            Ok(id) if !id.is_nil() => Ok(Self(id)),
            Ok(_) | Err(_) => Err(Invalid::new("must be a UUID other than the nil one")),
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Token;

    #[test]
    fn names_end_at_100_characters_not_bytes() {
        assert!("é".repeat(100).parse::<TokenName>().is_ok());
        assert!("é".repeat(101).parse::<TokenName>().is_err());
        assert!("x".repeat(1000).parse::<Description>().is_ok());
        assert!("x".repeat(1001).parse::<Description>().is_err());
    }

    #[test]
    fn blank_control_and_bidirectional_names_are_refused() {
        for name in ["", "  ", "\u{3000}", "a\0b", "a\nb", "a\u{202e}b", "a\u{2066}b", "a\u{7f}"] {
            assert!(name.parse::<TokenName>().is_err(), "{name:?}");
        }
        assert!("".parse::<Description>().is_ok());
        assert!("two words, 日本語".parse::<TokenName>().is_ok());
    }

    #[test]
    fn text_that_holds_a_token_is_refused() {
        let token = Token::from_random(&"pat_".parse().unwrap(), &[7; 32]);
        let token_text = token.expose();
        for text in [
            token_text,
            &format!("my token is '{token_text}'."),
            &format!("ci_{token_text}"),
            &format!("_{token_text}x"),
            &format!("é{token_text}é"),
        ] {
            assert!(text.parse::<TokenName>().is_err());
            assert!(text.parse::<Description>().is_err());
            assert!(text.parse::<ExternalId>().is_err());
        }
        assert!(token.shown().parse::<TokenName>().is_ok());
        let token = Token::authorization(&[7; 32]);
        let uuid = "zzzzz-gj3su-0123456789abcde";
        for text in [token.expose(), &format!("v2/{uuid}/{}/x", token.expose())] {
            assert!(text.parse::<TokenName>().is_err());
        }
        assert!("a".repeat(64).parse::<TokenName>().is_ok());
    }

    #[test]
    fn handles_are_lower_case_and_plain() {
        for handle in ["a", "7", "ci.bot", "alice@example.org", "a_b+c-d"] {
            assert!(handle.parse::<Handle>().is_ok(), "{handle}");
        }
        for handle in ["", "A", ".a", "a b", "a:b", "é", &"a".repeat(101)] {
            assert!(handle.parse::<Handle>().is_err(), "{handle}");
        }
    }

    #[test]
    fn every_external_id_makes_a_handle() {
        let of = |text: &str| Handle::of(&text.parse().unwrap()).to_string();
        assert_eq!(of("okta|00U1"), "okta-00u1");
        assert_eq!(of("Ada Lovelace <ada@example.org>"), "ada-lovelace-ada-example-org");
        assert_eq!(of("日本"), "user");
        for name in ["|x|", &"é-".repeat(100), &"x".repeat(255)] {
            assert!(of(name).parse::<Handle>().is_ok(), "{name}");
        }
    }

    #[test]
    fn request_ids_are_uuids_in_any_spelling_and_one_name() {
        let upper: RequestId = "0198C0DE-0000-7000-8000-00000000000A".parse().unwrap();
        assert_eq!(upper.to_string(), "0198c0de-0000-7000-8000-00000000000a");
        assert!("00000000-0000-0000-0000-000000000000".parse::<RequestId>().is_err());
        assert!("again".parse::<RequestId>().is_err());
    }
}
