//! Where the authority is, and how old an answer may be.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tonic::{
    metadata::{Ascii, MetadataValue},
    transport::ClientTlsConfig,
};
use zeroize::Zeroizing;

use super::Error;
use crate::clock::{Clock, SystemClock, Uptime};

/// The least that `max_staleness` may be.
const LEAST_STALENESS: Duration = Duration::from_millis(100);

/// How often the file with the own token is read again at most.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// How a [`Client`](super::Client) asks and what it keeps.
#[derive(Clone)]
pub struct Options {
    pub(super) endpoints: Vec<String>,
    pub(super) own_token: OwnToken,
    pub(super) tls: Option<ClientTlsConfig>,
    pub(super) timeout: Duration,
    pub(super) max_staleness: Duration,
    pub(super) stale_if_error: Duration,
    pub(super) cache_bytes: usize,
    pub(super) clock: Arc<dyn Clock>,
}

impl Options {
    /// Asks the authority at these addresses, such as `https://authority.example:50051`,
    /// and presents this token to it.
    pub fn new(endpoints: impl IntoIterator<Item: Into<String>>, own_token: OwnToken) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            own_token,
            tls: None,
            timeout: Duration::from_secs(5),
            max_staleness: Duration::from_secs(2),
            stale_if_error: Duration::ZERO,
            cache_bytes: 64 << 20,
            clock: Arc::new(SystemClock::new()),
        }
    }

    /// How `https` is spoken. Unless this is called: by the machine's own certificates.
    #[must_use]
    pub fn tls(mut self, tls: ClientTlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long a question may take at most; 5 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// A kept answer knows of each change that was acknowledged longer before the question
    /// than this; 2 s, and 100 ms at least. Servers make sure every half second, unless their
    /// own `--max-staleness` is below 2 s: with less than that here, more is asked.
    #[must_use]
    pub fn max_staleness(mut self, max_staleness: Duration) -> Self {
        self.max_staleness = max_staleness;
        self
    }

    /// How old a kept answer may be, counted as for `max_staleness`, while the authority
    /// can't be asked; it is flagged. Zero, which is the default: none is given. Nothing is
    /// kept longer than 10 minutes.
    #[must_use]
    pub fn stale_if_error(mut self, stale_if_error: Duration) -> Self {
        self.stale_if_error = stale_if_error;
        self
    }

    /// About how many bytes what is kept may take; 64 MiB.
    #[must_use]
    pub fn cache_bytes(mut self, cache_bytes: usize) -> Self {
        self.cache_bytes = cache_bytes;
        self
    }

    /// By what ages are measured; tests move it.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |what: &str| Err(Error::Options(what.to_owned()));
        if self.endpoints.is_empty() {
            return wrong("at least one endpoint is needed");
        }
        if self.max_staleness < LEAST_STALENESS {
            return wrong("max_staleness must be 100 ms at least");
        }
        if self.timeout.is_zero() {
            return wrong("timeout must be more than zero");
        }
        Ok(())
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// The token that a service presents to the authority. Its `Debug` hides it.
#[derive(Clone)]
pub struct OwnToken(Source);

#[derive(Clone)]
enum Source {
    Text(Zeroizing<String>),
    File(PathBuf),
}

impl OwnToken {
    /// This one.
    #[must_use]
    pub fn text(token: impl Into<String>) -> Self {
        Self(Source::Text(Zeroizing::new(token.into())))
    }

    /// The one in this file, white space around it ignored. It is read again with each
    /// connection for changes, and when the authority refuses it, once a second at most.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    fn read(&self) -> Result<Own, Error> {
        match &self.0 {
            Source::Text(text) => own(text),
            Source::File(path) => read(path),
        }
    }
}

fn read(path: &Path) -> Result<Own, Error> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Error::Options(format!("{}: {error}", path.display())))?;
    own(&Zeroizing::new(text))
}

fn own(text: &str) -> Result<Own, Error> {
    let bearer = Zeroizing::new(format!("Bearer {}", text.trim()));
    let mut value: MetadataValue<Ascii> = bearer
        .parse()
        .map_err(|_| Error::Options("this service's own token is no header".to_owned()))?;
    value.set_sensitive(true);
    Ok(Arc::new(value))
}

impl fmt::Debug for OwnToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Text(_) => f.write_str("OwnToken(…)"),
            Source::File(path) => write!(f, "OwnToken({})", path.display()),
        }
    }
}

/// The header with the own token, as it was read once.
pub(super) type Own = Arc<MetadataValue<Ascii>>;

/// The header with the own token, as it was last read.
pub(super) struct Presented {
    source: OwnToken,
    value: ArcSwap<MetadataValue<Ascii>>,
    /// When it was last read again. Held while that is done.
    read_at: Mutex<Option<Uptime>>,
}

impl Presented {
    pub(super) fn read(source: OwnToken) -> Result<Self, Error> {
        let value = ArcSwap::new(source.read()?);
        Ok(Self { source, value, read_at: Mutex::default() })
    }

    pub(super) fn value(&self) -> Own {
        self.value.load_full()
    }

    /// Whether another one is presented by now than was `sent`. If not, its file is read
    /// again, unless that was done less than a second ago; one that can't be read changes
    /// nothing. `changed` is called as soon as what was read is presented.
    pub(super) async fn is_another(&self, sent: &Own, now: Uptime, changed: impl FnOnce()) -> bool {
        let Source::File(path) = &self.source.0 else { return false };
        let mut read_at = self.read_at.lock().await;
        if self.value() != *sent {
            return true;
        }
        if read_at.is_some_and(|read_at| now.since(read_at) < READ_AGAIN) {
            return false;
        }
        *read_at = Some(now);
        let path = path.clone();
        match tokio::task::spawn_blocking(move || read(&path)).await {
            Ok(Ok(value)) if value != *sent => {
                self.value.store(value);
                changed();
                true
            }
            Ok(Ok(_)) | Err(_) => false,
            Ok(Err(error)) => {
                tracing::warn!(%error, "this service's own token can't be read");
                false
            }
        }
    }
}
