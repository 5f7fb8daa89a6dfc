use std::{fmt, str::FromStr};

use zeroize::Zeroizing;

use super::Invalid;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// ⌈256 / log2 62⌉ digits hold 256 random bits.
const RANDOM_DIGITS: usize = 43;
/// ⌈32 / log2 62⌉ digits hold a CRC-32.
const CHECKSUM_DIGITS: usize = 6;
/// How much of the random part may be shown to tell tokens apart.
const SHOWN_DIGITS: usize = 8;

/// What a personal access token begins with, so that people and secret
/// scanners know one when they see it: 2 to 16 characters, a lower-case letter
/// first, then lower-case letters and digits, and `_` at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatPrefix(String);

impl PatPrefix {
    /// The prefix as text, its `_` included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PatPrefix {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let is_prefix = (2..=16).contains(&text.len())
            && text.strip_suffix('_').is_some_and(|word| {
                word.starts_with(|c: char| c.is_ascii_lowercase())
                    && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
            });
        if is_prefix {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                "must be 2 to 16 lower-case letters and digits, a letter first, ending in _",
            ))
        }
    }
}

/// A personal access token as its holder presents it: a prefix such as `pat_`,
/// 43 base62 digits that hold 256 random bits, and 6 base62 digits with the
/// CRC-32 of all that stands before them.
///
/// The regular expression is `[a-z][a-z0-9]{0,14}_[0-9A-Za-z]{49}`. The checksum
/// lets garbage be refused without a look at the store; it proves nothing.
///
/// A `Token` lives from the request that brings or makes it to the response;
/// what is kept is its [`Digest`](super::Digest). It has no `Display` and its
/// `Debug` hides the secret, so that it cannot reach a log by accident: showing
/// it takes a call of [`expose`](Token::expose), which is easy to search for.
///
/// # Examples
///
/// ```
/// use token_authority::domain::Token;
///
/// let token: Token = "pat_00000000000000000000000000000000000000000010Ehxm0".parse()?;
/// assert_eq!(token.prefix(), "pat_");
/// assert_eq!(token.shown(), "pat_00000000");
/// assert_eq!(format!("{token:?}"), "Token(pat_…)");
///
/// // One character off, and it is refused, without saying what was wrong with it.
/// assert!("pat_00000000000000000000000000000000000000000020Ehxm0".parse::<Token>().is_err());
/// # Ok::<(), token_authority::domain::Invalid>(())
/// ```
pub struct Token {
    text: Zeroizing<String>,
    prefix_length: usize,
}

impl Token {
    /// The token with this prefix that carries these 256 random bits.
    #[must_use]
    pub fn from_random(prefix: &PatPrefix, random: &[u8; 32]) -> Self {
        let prefix_length = prefix.as_str().len();
        let mut text =
            Zeroizing::new(String::with_capacity(prefix_length + RANDOM_DIGITS + CHECKSUM_DIGITS));
        text.push_str(prefix.as_str());
        push_base62(&mut text, random, RANDOM_DIGITS);
        let checksum = crc32fast::hash(text.as_bytes());
        push_base62(&mut text, &checksum.to_be_bytes(), CHECKSUM_DIGITS);
        Self { text, prefix_length }
    }

    /// The whole secret text. Only for the response that hands it out, for its
    /// digest and for its Argon2id record.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// What it begins with, `_` included: not secret.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.text[..self.prefix_length]
    }

    /// The prefix and the first 8 digits: what lists show of it, not secret.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.text[..self.prefix_length + SHOWN_DIGITS]
    }
}

impl FromStr for Token {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("is not a token");
        let prefix_length = text.find('_').map(|at| at + 1).ok_or_else(refused)?;
        let (prefix, digits) = text.split_at(prefix_length);
        let shape = prefix.parse::<PatPrefix>().is_ok()
            && digits.len() == RANDOM_DIGITS + CHECKSUM_DIGITS
            && digits.bytes().all(|b| b.is_ascii_alphanumeric());
        if !shape {
            return Err(refused());
        }
        let (signed, checksum) = text.split_at(text.len() - CHECKSUM_DIGITS);
        let mut expected = String::with_capacity(CHECKSUM_DIGITS);
        push_base62(
            &mut expected,
            &crc32fast::hash(signed.as_bytes()).to_be_bytes(),
            CHECKSUM_DIGITS,
        );
        if checksum != expected {
            return Err(refused());
        }
        Ok(Self { text: Zeroizing::new(text.to_owned()), prefix_length })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}…)", self.prefix())
    }
}

/// Appends the big-endian number in `bytes` as `digits` base62 digits, zeros first.
fn push_base62(text: &mut String, bytes: &[u8], digits: usize) {
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut reversed = Zeroizing::new(Vec::with_capacity(digits));
    for _ in 0..digits {
        let mut remainder = 0u32;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("the remainder is below 62");
            remainder = value % 62;
        }
        reversed.push(ALPHABET[remainder as usize]);
    }
    debug_assert!(number.iter().all(|byte| *byte == 0), "the number needs more digits");
    text.extend(reversed.iter().rev().map(|digit| char::from(*digit)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pat() -> PatPrefix {
        "pat_".parse().unwrap()
    }

    #[test]
    fn published_test_vectors_hold() {
        let mut one = [0; 32];
        one[31] = 1;
        assert_eq!(
            Token::from_random(&pat(), &one).expose(),
            "pat_00000000000000000000000000000000000000000010Ehxm0"
        );
        assert_eq!(
            Token::from_random(&pat(), &[0xff; 32]).expose(),
            "pat_yhjskwdA6OZ1AL1YmHWZWm8LLG7HjnuCA2j5rOw8Xp13oiRF4"
        );
    }

    #[test]
    fn what_is_not_a_token_is_refused_alike() {
        let good = Token::from_random(&pat(), &[7; 32]);
        let text = good.expose();
        let refused = [
            String::new(),
            "pat_".to_owned(),
            text[4..].to_owned(),
            text[..text.len() - 1].to_owned(),
            format!("{text}0"),
            format!(" {text}"),
            format!("{text}\n"),
            format!("PAT_{}", &text[4..]),
            format!("_{}", &text[4..]),
            text.replacen('_', "é_", 1),
            format!("{}é{}", &text[..20], &text[22..]),
        ];
        for text in refused {
            assert_eq!(text.parse::<Token>().unwrap_err().to_string(), "is not a token", "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_made_parses_back_and_prints_the_same(random: [u8; 32]) {
            let token = Token::from_random(&pat(), &random);
            let parsed: Token = token.expose().parse().unwrap();
            prop_assert_eq!(parsed.expose(), token.expose());
            prop_assert_eq!(parsed.shown(), token.shown());
        }

        #[test]
        fn one_changed_character_is_noticed(random: [u8; 32], at in 4usize..53, with in 0usize..62) {
            let token = Token::from_random(&pat(), &random);
            let mut text = token.expose().to_owned().into_bytes();
            prop_assume!(text[at] != ALPHABET[with]);
            text[at] = ALPHABET[with];
            prop_assert!(String::from_utf8(text).unwrap().parse::<Token>().is_err());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,80}") {
            let _ = text.parse::<Token>();
        }
    }
}
