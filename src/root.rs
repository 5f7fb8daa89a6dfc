//! The system root token: from the configuration, in no store.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{PoisonError, RwLock},
};

use hmac::{Hmac, KeyInit as _, Mac as _, digest::CtOutput};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{
    domain::{ClusterId, Invalid, Token},
    random,
    start::StartError,
};

/// How many may be configured: one, and the one that takes its place.
const MAX_TOKENS: usize = 2;

const MIN_LENGTH: usize = 32;
/// A longer text is none, and not worth a look.
const MAX_LENGTH: usize = 1_024;

/// What is held of a token: its MAC under a key that only this process has, compared
/// in constant time.
type Held = CtOutput<Hmac<Sha256>>;

/// The system root tokens that are accepted: at most two, so that one can be
/// replaced. They act as the system user, whatever the store says.
pub struct RootTokens {
    /// Whose system user they act as.
    pub cluster_id: ClusterId,
    /// Whether they are subjects of Verify.
    pub verifies: bool,
    key: Hmac<Sha256>,
    given: Vec<Held>,
    files: Vec<PathBuf>,
    /// What each of the files held when it was last read, or why it holds none.
    read: RwLock<Vec<Result<Held, String>>>,
}

impl RootTokens {
    /// Those that are given, and those in these files.
    ///
    /// # Errors
    ///
    /// A file can't be read, or there are more than two, or one is too short.
    pub fn new(
        cluster_id: ClusterId,
        verifies: bool,
        given: Vec<Zeroizing<String>>,
        files: Vec<PathBuf>,
    ) -> Result<Self, StartError> {
        if given.len() + files.len() > MAX_TOKENS {
            let setting =
                if files.is_empty() { "system-root-token" } else { "system-root-token-file" };
            return Err(StartError::new(setting, "must not make more than two tokens in all"));
        }
        let key = Hmac::<Sha256>::new_from_slice(&random::bytes::<32>())
            .expect("HMAC takes a key of any length");
        let given = given
            .iter()
            .map(|text| held(&key, text))
            .collect::<Result<_, _>>()
            .map_err(|error| StartError::new("system-root-token", error))?;
        let read: Vec<_> = files.iter().map(|path| read(&key, path)).collect();
        if let Some(reason) = read.iter().find_map(|read| read.as_ref().err()) {
            return Err(StartError::new("system-root-token-file", reason));
        }
        Ok(Self { cluster_id, verifies, key, given, files, read: RwLock::new(read) })
    }

    /// Reads the files again. What a file no longer holds is no longer accepted, also
    /// if it holds no other or can't be read; said in the log when it changes.
    pub fn reload(&self) {
        for (at, path) in self.files.iter().enumerate() {
            let now = read(&self.key, path);
            let mut read = self.read.write().unwrap_or_else(PoisonError::into_inner);
            if read[at] == now {
                continue;
            }
            match &now {
                Ok(_) => tracing::info!(path = %path.display(), "system root token replaced"),
                Err(reason) => {
                    tracing::warn!(reason, "the system root token of this file is not accepted");
                }
            }
            read[at] = now;
        }
    }

    /// Whether there are files to be read again.
    #[must_use]
    pub fn has_files(&self) -> bool {
        !self.files.is_empty()
    }

    /// Whether this is one of them, whole.
    #[must_use]
    pub fn accept(&self, presented: &str) -> bool {
        let is_configured = self.has_files() || !self.given.is_empty();
        if !is_configured || !(MIN_LENGTH..=MAX_LENGTH).contains(&presented.len()) {
            return false;
        }
        let presented = mac(&self.key, presented);
        let read = self.read.read().unwrap_or_else(PoisonError::into_inner);
        self.given.iter().chain(read.iter().flatten()).any(|held| *held == presented)
    }
}

/// What is held of the token in a file, or why it holds none.
fn read(key: &Hmac<Sha256>, path: &Path) -> Result<Held, String> {
    fs::read_to_string(path)
        .map(Zeroizing::new)
        .map_err(|error| error.to_string())
        .and_then(|text| held(key, text.trim()).map_err(|error| error.to_string()))
        .map_err(|reason| format!("{}: {reason}", path.display()))
}

fn held(key: &Hmac<Sha256>, text: &str) -> Result<Held, Invalid> {
    if !(MIN_LENGTH..=MAX_LENGTH).contains(&text.len()) {
        return Err(Invalid::new("must be 32 to 1024 characters"));
    }
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b',') {
        return Err(Invalid::new("must be printable ASCII without blanks and commas"));
    }
    // Each text is looked up in one place.
    let is_pat = text.parse::<Token>().is_ok_and(|token| token.pat_prefix().is_some());
    if is_pat || text.starts_with("v2/") {
        return Err(Invalid::new("must not look like a token that is issued"));
    }
    Ok(mac(key, text))
}

fn mac(key: &Hmac<Sha256>, text: &str) -> Held {
    key.clone().chain_update(text.as_bytes()).finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(given: &[&str]) -> Result<RootTokens, StartError> {
        let given = given.iter().map(|text| Zeroizing::new((*text).to_owned())).collect();
        RootTokens::new("zzzzz".parse().unwrap(), false, given, Vec::new())
    }

    #[test]
    fn token_is_accepted_whole_and_as_nothing_else() {
        let (one, two) = ("a".repeat(32), "B-".repeat(25));
        let held = roots(&[&one, &two]).unwrap();
        assert!(held.accept(&one) && held.accept(&two));
        for text in ["", &one[1..], &format!("{one}a"), &one.to_uppercase(), &"a".repeat(2_000)] {
            assert!(!held.accept(text), "{text}");
        }
        assert!(!roots(&[]).unwrap().accept(&one));
    }

    #[test]
    fn token_that_may_be_guessed_or_mistaken_is_refused() {
        let pat = "pat_00000000000000000000000000000000000000000010Ehxm0";
        let v2 = format!("v2/zzzzz-gj3su-0123456789abcde/{}", "0".repeat(50));
        for text in ["", &"a".repeat(31), &"é".repeat(40), &"a ".repeat(20), pat, &v2] {
            let error = roots(&[text]).err().unwrap().to_string();
            assert!(error.starts_with("system-root-token: must "), "{error}");
            assert!(text.is_empty() || !error.contains(text), "{error}");
        }
        let three = ["a", "b", "c"].map(|text| text.repeat(32));
        assert!(roots(&three.each_ref().map(String::as_str)).is_err());
    }
}
