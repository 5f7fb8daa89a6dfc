use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicUsize, Ordering},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf,
};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::{CredentialId, Invalid, Token};

/// How many peppers one process may hold.
const MAX_PEPPERS: usize = 4;

/// The key of the digests by which secrets are stored and looked up, kept
/// outside the database: a stolen database is useless without it.
///
/// Written as hex or base64 of at least 32 bytes; white space is ignored.
pub struct Pepper {
    id: PepperId,
    key: Hmac<Sha256>,
    seal: LessSafeKey,
}

/// The public name of a pepper, derived from its key: 16 hex digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PepperId(String);

/// What is stored of a secret: its HMAC-SHA-256 under a pepper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest([u8; 32]);

/// A secret that only the pepper opens, and only as that of its credential: a random
/// nonce, and the secret under ChaCha20-Poly1305 (RFC 8439) with a key made of the
/// pepper by HKDF-SHA256 (RFC 5869) and the credential's id as associated data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed(Vec<u8>);

impl Pepper {
    /// This pepper's public name.
    #[must_use]
    pub fn id(&self) -> &PepperId {
        &self.id
    }

    /// The digest of a token under this pepper.
    #[must_use]
    pub fn digest(&self, token: &Token) -> Digest {
        Digest(tagged(&self.key, b"token-authority digest v1\0", token.expose().as_bytes()))
    }

    /// The secret of the credential with this id, sealed; `random` is used for
    /// nothing else.
    #[must_use]
    pub fn seal(&self, id: &CredentialId, token: &Token, random: [u8; NONCE_LEN]) -> Sealed {
        let mut text = token.expose().as_bytes().to_vec();
        let nonce = Nonce::assume_unique_for_key(random);
        self.seal
            .seal_in_place_append_tag(nonce, Aad::from(id.0.as_bytes()), &mut text)
            .expect("a secret is short");
        Sealed([&random[..], &text].concat())
    }

    /// The secret of the credential with this id; `None` if it was not sealed under
    /// this pepper, or for another.
    #[must_use]
    pub fn open(&self, id: &CredentialId, sealed: &Sealed) -> Option<Token> {
        let (nonce, text) = sealed.0.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut text = Zeroizing::new(text.to_vec());
        let opened = self.seal.open_in_place(nonce, Aad::from(id.0.as_bytes()), &mut text).ok()?;
        std::str::from_utf8(opened).ok()?.parse().ok()
    }

    fn from_key(key: &[u8]) -> Self {
        let sealing = hkdf::Salt::new(hkdf::HKDF_SHA256, &[])
            .extract(key)
            .expand(&[b"token-authority seal v1"], &CHACHA20_POLY1305)
            .map(UnboundKey::from)
            .expect("the key is as long as its algorithm has it");
        let key = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
        let name = tagged(&key, b"token-authority pepper id v1\0", b"");
        Self { id: PepperId(hex(&name[..8])), key, seal: LessSafeKey::new(sealing) }
    }

    /// The text of a pepper file that holds `key`.
    #[must_use]
    pub fn to_file(key: &[u8; 32]) -> Zeroizing<String> {
        Zeroizing::new(hex(key) + "\n")
    }
}

impl FromStr for Pepper {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let text: Zeroizing<String> = Zeroizing::new(text.split_whitespace().collect());
        let key = match unhex(&text) {
            Some(key) => key,
            None => STANDARD
                .decode(text.as_bytes())
                .map_err(|_| Invalid::new("is neither hex nor base64"))?,
        };
        let key = Zeroizing::new(key);
        if key.len() < 32 {
            return Err(Invalid::new("is shorter than 32 bytes"));
        }
        Ok(Self::from_key(&key))
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pepper({})", self.id.0)
    }
}

impl PepperId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A name that this program stored.
    #[must_use]
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }
}

impl Digest {
    /// The digest in these bytes, which this program stored; `None` if they are not 32.
    #[must_use]
    pub fn from_stored(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes that are stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Sealed {
    /// What this program stored.
    #[must_use]
    pub fn from_stored(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// The bytes that are stored.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The peppers that a process holds: one to four. Which one is current is what
/// the store says; it may be one that this process was not given.
#[derive(Debug)]
pub struct Peppers {
    all: Vec<Pepper>,
    ids: Vec<PepperId>,
    /// Beyond the last: the current one is not among them.
    current: AtomicUsize,
}

impl Peppers {
    /// These peppers, the first of them current.
    ///
    /// # Errors
    ///
    /// None, more than four, or one of them twice.
    pub fn new(all: Vec<Pepper>) -> Result<Self, Invalid> {
        let ids: Vec<PepperId> = all.iter().map(|pepper| pepper.id.clone()).collect();
        let twice = ids.iter().enumerate().any(|(at, id)| ids[..at].contains(id));
        match all.len() {
            1..=MAX_PEPPERS if !twice => Ok(Self { all, ids, current: AtomicUsize::new(0) }),
            1..=MAX_PEPPERS => Err(Invalid::new("names one pepper twice")),
            _ => Err(Invalid::new("must name one to four peppers")),
        }
    }

    /// Takes the named one as current, as the store says; `false` if it is not
    /// among them, and then none is.
    pub fn follow(&self, id: &PepperId) -> bool {
        let at = self.ids.iter().position(|held| held == id).unwrap_or(self.ids.len());
        if self.current.load(Ordering::Relaxed) != at {
            self.current.store(at, Ordering::Relaxed);
        }
        at < self.ids.len()
    }

    /// The pepper that new secrets are digested with, if this process holds it.
    #[must_use]
    pub fn current(&self) -> Option<&Pepper> {
        self.all.get(self.current.load(Ordering::Relaxed))
    }

    /// Their public names, one at least.
    #[must_use]
    pub fn ids(&self) -> &[PepperId] {
        &self.ids
    }

    /// The one with this name, if this process holds it.
    #[must_use]
    pub fn get(&self, id: &PepperId) -> Option<&Pepper> {
        self.all.iter().find(|pepper| pepper.id == *id)
    }

    /// A token's digest under each pepper, by which it may be stored.
    #[must_use]
    pub fn digests(&self, token: &Token) -> Vec<Digest> {
        self.all.iter().map(|pepper| pepper.digest(token)).collect()
    }
}

fn tagged(key: &Hmac<Sha256>, tag: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = key.clone();
    mac.update(tag);
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let is_hex = text.len().is_multiple_of(2) && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_hex.then(|| {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("two hex digits"))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> Token {
        Token::from_random(&"pat_".parse().unwrap(), &[1; 32])
    }

    #[test]
    fn hex_and_base64_of_one_key_are_one_pepper() {
        let key = [0x5a; 32];
        let hex: Pepper = Pepper::to_file(&key).parse().unwrap();
        let base64: Pepper = format!(" {}\n", STANDARD.encode(key)).parse().unwrap();
        assert_eq!(hex.id(), base64.id());
        assert_eq!(hex.digest(&token()), base64.digest(&token()));
    }

    #[test]
    fn digest_is_the_hmac_of_tag_and_secret() {
        let pepper: Pepper = Pepper::to_file(&[1; 32]).parse().unwrap();
        let mut mac = Hmac::<Sha256>::new_from_slice(&[1; 32]).unwrap();
        mac.update(b"token-authority digest v1\0");
        mac.update(token().expose().as_bytes());
        assert_eq!(pepper.digest(&token()).as_bytes(), &mac.finalize().into_bytes()[..]);
    }

    #[test]
    fn sealed_secret_opens_under_its_pepper_and_for_its_credential_alone() {
        let pepper = |n: u8| Pepper::to_file(&[n; 32]).parse::<Pepper>().unwrap();
        let id = |n: u8| CredentialId(format!("zzzzz-gj3su-00000000000000{n}"));
        let token = Token::authorization(&[3; 32]);
        let sealed = pepper(1).seal(&id(1), &token, [9; NONCE_LEN]);
        assert_eq!(pepper(1).open(&id(1), &sealed).unwrap().expose(), token.expose());
        assert!(pepper(2).open(&id(1), &sealed).is_none());
        assert!(pepper(1).open(&id(2), &sealed).is_none());
        for at in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[at] ^= 1;
            assert!(pepper(1).open(&id(1), &Sealed::from_stored(bytes)).is_none());
        }
        assert!(pepper(1).open(&id(1), &Sealed::from_stored(vec![1; 11])).is_none());
    }

    #[test]
    fn short_or_garbled_peppers_are_refused() {
        for text in ["", "abcd", "not a key!", &"ab".repeat(31), &STANDARD.encode([1; 31])] {
            assert!(text.parse::<Pepper>().is_err(), "{text}");
        }
    }

    #[test]
    fn peppers_are_one_to_four_and_different() {
        let pepper = |n: u8| Pepper::to_file(&[n; 32]).parse::<Pepper>().unwrap();
        assert!(Peppers::new(vec![]).is_err());
        assert!(Peppers::new(vec![pepper(1), pepper(1)]).is_err());
        assert!(Peppers::new((0..5).map(pepper).collect()).is_err());
        assert!(Peppers::new(vec![pepper(1), pepper(2)]).is_ok());
    }

    #[test]
    fn current_is_the_one_that_the_store_names_or_none() {
        let pepper = |n: u8| Pepper::to_file(&[n; 32]).parse::<Pepper>().unwrap();
        let two = Peppers::new(vec![pepper(1), pepper(2)]).unwrap();
        assert_eq!(two.current().unwrap().id(), pepper(1).id());
        assert!(two.follow(pepper(2).id()));
        assert_eq!(two.current().unwrap().id(), pepper(2).id());
        assert!(!two.follow(pepper(3).id()));
        assert!(two.current().is_none());
        assert!(two.follow(pepper(1).id()));
        assert_eq!(two.current().unwrap().id(), pepper(1).id());
    }

    #[test]
    fn debug_shows_no_key() {
        let pepper: Pepper = Pepper::to_file(&[0xab; 32]).parse().unwrap();
        assert!(!format!("{pepper:?}").contains("abab"));
    }
}
