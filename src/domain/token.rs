use std::{fmt, str::FromStr};

use ring::hmac;
use zeroize::Zeroizing;

use super::{ClusterId, CredentialId, Invalid, Kind, credential::is_authorization_uuid};

const BASE62: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE36: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
/// ⌈256 / log2 62⌉ digits hold 256 random bits.
const RANDOM_DIGITS: usize = 43;
/// ⌈32 / log2 62⌉ digits hold a CRC-32.
const CHECKSUM_DIGITS: usize = 6;
/// ⌈256 / log2 36⌉ digits hold 256 random bits. Never 40, by which Arvados knows
/// a salted secret.
pub(super) const SECRET_DIGITS: usize = 50;
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
        if is_pat_prefix(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Invalid::new(
                "must be 2 to 16 lower-case letters and digits, a letter first, ending in _",
            ))
        }
    }
}

fn is_pat_prefix(text: &str) -> bool {
    (2..=16).contains(&text.len())
        && text.strip_suffix('_').is_some_and(|word| {
            word.starts_with(|c: char| c.is_ascii_lowercase())
                && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        })
}

/// A token as its holder presents it, of either kind.
///
/// A personal access token is a prefix such as `pat_`, 43 base62 digits that hold
/// 256 random bits, and 6 base62 digits with the CRC-32 of all that stands before
/// them. The regular expression is `[a-z][a-z0-9]{0,14}_[0-9A-Za-z]{49}`. The
/// checksum lets garbage be refused without a look at the store; it proves nothing.
///
/// An API client authorization is a secret of 50 lower-case base36 digits that hold
/// 256 random bits: alone (v1), or as `v2/{uuid}/{secret}`, after which further
/// parts, each with a `/` before it, mean nothing (SEEDS 3.2).
///
/// A `Token` lives from the request that brings or makes it to the response;
/// what is kept is its [`Digest`](super::Digest). It has no `Display` and its
/// `Debug` hides the secret, so that it cannot reach a log by accident: showing
/// it takes a call of [`expose`](Token::expose), which is easy to search for.
///
/// # Examples
///
/// ```
/// use token_authority::domain::{Kind, Token};
///
/// let token: Token = "pat_00000000000000000000000000000000000000000010Ehxm0".parse()?;
/// assert_eq!(token.pat_prefix(), Some("pat_"));
/// assert_eq!(token.shown(), "pat_00000000");
/// assert_eq!(format!("{token:?}"), "Token(pat_…)");
///
/// let secret = "00000000000000000000000000000000000000000000000001";
/// let token: Token = format!("v2/zzzzz-gj3su-0123456789abcde/{secret}").parse()?;
/// assert_eq!(token.kind(), Kind::ApiClientAuthorization);
/// assert_eq!(token.expose(), secret);
///
/// // One character off, and it is refused, without saying what was wrong with it.
/// assert!("pat_00000000000000000000000000000000000000000020Ehxm0".parse::<Token>().is_err());
/// # Ok::<(), token_authority::domain::Invalid>(())
/// ```
pub struct Token {
    secret: Zeroizing<String>,
    form: Form<CredentialId>,
}

#[derive(Clone, Copy)]
enum Form<Uuid> {
    PersonalAccessToken { prefix_length: usize },
    Authorization { uuid: Option<Uuid> },
}

/// A [`Token`] that is borrowed from the text that was presented, to be judged
/// without a copy. What holds of a `Token` holds of it.
#[derive(Clone, Copy)]
pub struct TokenRef<'a> {
    secret: &'a str,
    form: Form<&'a str>,
}

impl<'a> TokenRef<'a> {
    /// The token that a text is by its shape and, of a personal access token, its
    /// checksum; `None` says that it is none, and not why.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if let Some((uuid, secret)) = v2(text) {
            let form = Form::Authorization { uuid: Some(uuid) };
            return is_base36(secret, SECRET_DIGITS).then_some(Self { secret, form });
        }
        if is_base36(text, SECRET_DIGITS) {
            return Some(Self { secret: text, form: Form::Authorization { uuid: None } });
        }
        let prefix_length = text.find('_')? + 1;
        let (prefix, digits) = text.split_at(prefix_length);
        let is_shape = is_pat_prefix(prefix)
            && digits.len() == RANDOM_DIGITS + CHECKSUM_DIGITS
            && digits.bytes().all(|b| b.is_ascii_alphanumeric());
        if !is_shape {
            return None;
        }
        let (signed, digits) = text.split_at(text.len() - CHECKSUM_DIGITS);
        let form = Form::PersonalAccessToken { prefix_length };
        (digits.as_bytes() == checksum(signed)).then_some(Self { secret: text, form })
    }

    /// The whole secret, as [`Token::expose`] gives it: the loud way out.
    #[must_use]
    pub fn expose(&self) -> &'a str {
        self.secret
    }

    /// Which of the two kinds has this form.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self.form {
            Form::PersonalAccessToken { .. } => Kind::PersonalAccessToken,
            Form::Authorization { .. } => Kind::ApiClientAuthorization,
        }
    }

    /// The uuid beside the secret of an API client authorization.
    #[must_use]
    pub fn uuid(&self) -> Option<&'a str> {
        match self.form {
            Form::PersonalAccessToken { .. } => None,
            Form::Authorization { uuid } => uuid,
        }
    }

    /// What a personal access token begins with, `_` included: not secret.
    #[must_use]
    pub fn pat_prefix(&self) -> Option<&'a str> {
        match self.form {
            Form::PersonalAccessToken { prefix_length } => Some(&self.secret[..prefix_length]),
            Form::Authorization { .. } => None,
        }
    }

    /// Whether it can be the text of this credential: `v2/{uuid}/…` only if that is
    /// its uuid.
    #[must_use]
    pub fn fits(&self, id: &CredentialId) -> bool {
        self.uuid().is_none_or(|uuid| uuid == id.0)
    }

    /// What [`Token::shown`] gives.
    #[must_use]
    pub fn shown(&self) -> &'a str {
        &self.secret[..self.pat_prefix().map_or(0, str::len) + SHOWN_DIGITS]
    }

    /// The same token, to be kept.
    #[must_use]
    pub fn to_token(&self) -> Token {
        let form = match self.form {
            Form::PersonalAccessToken { prefix_length } => {
                Form::PersonalAccessToken { prefix_length }
            }
            Form::Authorization { uuid } => {
                Form::Authorization { uuid: uuid.map(|uuid| CredentialId(uuid.to_owned())) }
            }
        };
        Token { secret: Zeroizing::new(self.secret.to_owned()), form }
    }
}

impl fmt::Debug for TokenRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenRef({}…)", self.pat_prefix().unwrap_or_default())
    }
}

impl Token {
    /// The personal access token with this prefix that carries these 256 random bits.
    #[must_use]
    pub fn from_random(prefix: &PatPrefix, random: &[u8; 32]) -> Self {
        let prefix_length = prefix.as_str().len();
        let mut secret =
            Zeroizing::new(String::with_capacity(prefix_length + RANDOM_DIGITS + CHECKSUM_DIGITS));
        secret.push_str(prefix.as_str());
        push_digits(&mut secret, random, BASE62, RANDOM_DIGITS);
        let checksum = checksum(&secret);
        secret.extend(checksum.map(char::from));
        Self { secret, form: Form::PersonalAccessToken { prefix_length } }
    }

    /// The API client authorization that carries these 256 random bits.
    #[must_use]
    pub fn authorization(random: &[u8; 32]) -> Self {
        let mut secret = Zeroizing::new(String::with_capacity(SECRET_DIGITS));
        push_digits(&mut secret, random, BASE36, SECRET_DIGITS);
        Self { secret, form: Form::Authorization { uuid: None } }
    }

    /// The whole secret: of a personal access token its text, of an API client
    /// authorization without the `v2/{uuid}/` that may stand before it. Only for the
    /// response that hands it out, for its digest, its Argon2id record and its sealing.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.secret
    }

    /// Which of the two kinds has this form.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.borrowed().kind()
    }

    /// What a personal access token begins with, `_` included: not secret.
    #[must_use]
    pub fn pat_prefix(&self) -> Option<&str> {
        self.borrowed().pat_prefix()
    }

    /// Whether it can be the text of this credential: `v2/{uuid}/…` only if that is
    /// its uuid.
    #[must_use]
    pub fn fits(&self, id: &CredentialId) -> bool {
        self.borrowed().fits(id)
    }

    /// The prefix, if it has one, and the first 8 digits: not secret. What lists show
    /// of a personal access token, and by what a secret is found whose pepper is gone.
    #[must_use]
    pub fn shown(&self) -> &str {
        self.borrowed().shown()
    }

    /// The same token, borrowed.
    #[must_use]
    pub fn borrowed(&self) -> TokenRef<'_> {
        let form = match &self.form {
            Form::PersonalAccessToken { prefix_length } => {
                Form::PersonalAccessToken { prefix_length: *prefix_length }
            }
            Form::Authorization { uuid } => {
                Form::Authorization { uuid: uuid.as_ref().map(|uuid| uuid.0.as_str()) }
            }
        };
        TokenRef { secret: &self.secret, form }
    }
}

impl FromStr for Token {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let token = TokenRef::parse(text).ok_or_else(|| Invalid::new("is not a token"))?;
        Ok(token.to_token())
    }
}

/// The uuid and what follows it, up to the next `/`, of `v2/{uuid}/…`.
fn v2(text: &str) -> Option<(&str, &str)> {
    let mut parts = text.strip_prefix("v2/")?.split('/');
    let uuid = parts.next().filter(|uuid| is_authorization_uuid(uuid))?;
    Some((uuid, parts.next()?))
}

pub(super) fn is_base36(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}…)", self.pat_prefix().unwrap_or_default())
    }
}

/// A token that its holder salted for another cluster: `v2/{uuid}/` and the
/// HMAC-SHA1 of that cluster's id under the secret, 40 hex digits (SEEDS 3.11). It
/// proves the holder to whoever knows the secret.
pub struct SaltedToken {
    /// The credential that it is of.
    pub uuid: CredentialId,
    mac: [u8; 20],
}

impl SaltedToken {
    /// Whether it is this token, salted for `remote`.
    #[must_use]
    pub fn is_of(&self, token: &Token, remote: &ClusterId) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, token.expose().as_bytes());
        hmac::verify(&key, remote.as_str().as_bytes(), &self.mac).is_ok()
    }
}

impl FromStr for SaltedToken {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let refused = || Invalid::new("is not a salted token");
        let (uuid, digits) = v2(text).ok_or_else(refused)?;
        let is_lower = !digits.bytes().any(|b| b.is_ascii_uppercase());
        let bytes = is_lower.then(|| super::pepper::unhex(digits)).flatten();
        let mac = bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(refused)?;
        Ok(Self { uuid: CredentialId(uuid.to_owned()), mac })
    }
}

impl fmt::Debug for SaltedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaltedToken({})", self.uuid.0)
    }
}

/// The checksum of a text, in base62 digits.
fn checksum(text: &str) -> [u8; CHECKSUM_DIGITS] {
    let mut rest = crc32fast::hash(text.as_bytes());
    let mut digits = [b'0'; CHECKSUM_DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest as usize % BASE62.len()];
        rest /= 62;
    }
    digits
}

/// Appends the big-endian number in `bytes` as so many digits, zeros first.
fn push_digits(text: &mut String, bytes: &[u8], alphabet: &[u8], digits: usize) {
    let base = u32::try_from(alphabet.len()).expect("an alphabet is short");
    let mut number = Zeroizing::new(bytes.to_vec());
    let mut reversed = Zeroizing::new(Vec::with_capacity(digits));
    for _ in 0..digits {
        let mut remainder = 0u32;
        for byte in number.iter_mut() {
            let value = (remainder << 8) | u32::from(*byte);
            *byte = u8::try_from(value / base).expect("the remainder is below 62");
            remainder = value % base;
        }
        reversed.push(alphabet[remainder as usize]);
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
            format!("v2/zzzzz-gj3su-0123456789abcde/{text}"),
            format!("v2/zzzzz-gj3su-0123456789abcd/{:050}", 1),
            format!("v2/zzzzz-tpzed-0123456789abcde/{:050}", 1),
            format!("v2//{:050}", 1),
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
            prop_assume!(text[at] != BASE62[with]);
            text[at] = BASE62[with];
            prop_assert!(String::from_utf8(text).unwrap().parse::<Token>().is_err());
        }

        #[test]
        fn what_is_borrowed_is_what_is_kept(random: [u8; 32], digits in "[0-9a-z]{5}", more in "(/.{0,9})?") {
            let secret = Token::authorization(&random);
            let uuid = format!("{digits}-gj3su-{digits}{digits}{digits}");
            let texts = [
                Token::from_random(&pat(), &random).expose().to_owned(),
                secret.expose().to_owned(),
                format!("v2/{uuid}/{}{more}", secret.expose()),
            ];
            for text in &texts {
                let borrowed = TokenRef::parse(text).unwrap();
                let kept: Token = text.parse().unwrap();
                prop_assert_eq!(borrowed.expose(), kept.expose());
                prop_assert_eq!(borrowed.shown(), kept.shown());
                prop_assert_eq!(borrowed.kind(), kept.kind());
                prop_assert_eq!(borrowed.pat_prefix(), kept.pat_prefix());
                prop_assert_eq!(borrowed.uuid(), kept.borrowed().uuid());
                let debugged = format!("{borrowed:?}");
                prop_assert!(!debugged.contains(&borrowed.expose()[4..]));
            }
            let with_uuid = TokenRef::parse(&texts[2]).unwrap();
            prop_assert_eq!(with_uuid.uuid(), Some(&*uuid));
            prop_assert!(with_uuid.fits(&CredentialId(uuid)));
            prop_assert!(!with_uuid.fits(&CredentialId(digits)));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,80}") {
            let _ = text.parse::<Token>();
        }
    }
}
