//! What a start needs of its settings: each is checked, what it names is opened, and what an
//! empty store lacks is made.

use std::{
    fmt::Display,
    fs::{self, DirBuilder},
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    authority::{Limits, MAX_OVERLAP, Policy},
    bootstrap::{self, FirstToken},
    clock::Clock,
    config::{IssuerSettings, Settings, StoreSettings},
    domain::{Catalogue, Peppers},
    hashing::Hasher,
    issuer::Issuer,
    store::{self, Actor, Identity, PoolLimits, Promotion, Servers, Store, StoreError},
    tls::{Tls, TlsFiles},
};

/// The least staleness that can be promised: the store is asked four times within it.
const MIN_STALENESS: Duration = Duration::from_millis(100);

/// Why the service can't start: one sentence that names the setting.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {reason}")]
pub struct StartError {
    setting: &'static str,
    reason: String,
}

impl StartError {
    /// The setting, and what is wrong with it.
    #[must_use]
    pub fn new(setting: &'static str, reason: impl Display) -> Self {
        Self { setting, reason: reason.to_string() }
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        let reason = match &error {
            StoreError::Unavailable(source) | StoreError::Failed(source) => source.to_string(),
            StoreError::AlreadyExists(_) | StoreError::Refused(_) | StoreError::At(..) => {
                error.to_string()
            }
        };
        Self::new("store", reason)
    }
}

/// That no time among the settings is out of its range.
pub(crate) fn check(settings: &Settings) -> Result<(), StartError> {
    if Duration::from(settings.keep_dead) < store::REQUEST_ID_LIFETIME {
        // A request must find what it made before.
        return Err(StartError::new("keep-dead", "must be at least 24h"));
    }
    if Duration::from(settings.keep_changes) < Duration::from_mins(1) {
        return Err(StartError::new("keep-changes", "must be at least 1m"));
    }
    if settings.keep_audit.is_some_and(|keep| Duration::from(keep) < Duration::from_hours(24)) {
        return Err(StartError::new("keep-audit", "must be at least 1d"));
    }
    if Duration::from(settings.max_staleness) < MIN_STALENESS {
        return Err(StartError::new("max-staleness", "must be at least 100ms"));
    }
    if Duration::from(settings.rotation_overlap) > MAX_OVERLAP {
        return Err(StartError::new("rotation-overlap", "must be at most 90d"));
    }
    Ok(())
}

/// What tokens may be made, and by whom.
pub(crate) fn policy(settings: &Settings) -> Policy {
    Policy {
        catalogue: Catalogue(settings.scope.clone()),
        pats: Limits {
            default_lifetime: settings.pat_default_lifetime.map(Into::into),
            max_lifetime: settings.pat_max_lifetime.map(Into::into),
            per_user: i64::from(settings.max_pats_per_user),
        },
        authorizations: Limits {
            default_lifetime: settings.authorization_default_lifetime.map(Into::into),
            max_lifetime: settings.authorization_max_lifetime.map(Into::into),
            per_user: i64::from(settings.max_authorizations_per_user),
        },
        issue_trusted_tokens: settings.issue_trusted_tokens,
        rotation_overlap: settings.rotation_overlap.into(),
        jit_users: settings.jit_users,
    }
}

/// Opens the store that the settings name, and brings its schema up to date.
///
/// # Errors
///
/// It can't be opened, or its schema does not fit the program.
pub async fn open_store(settings: &StoreSettings) -> Result<Arc<dyn Store>, StartError> {
    let (listen, replica) = (settings.database_listen_url()?, settings.database_replica_url()?);
    match settings.database_url()? {
        Some(url) => {
            let limits = PoolLimits {
                connections: settings.database_connections,
                wait: settings.database_wait.into(),
            };
            let servers = Servers {
                primary: &url,
                listen: listen.as_deref().map(String::as_str),
                replica: replica.as_deref().map(String::as_str),
            };
            store::open_postgres(servers, limits, settings.migrate)
                .await
                .map_err(|error| StartError { setting: "database-url", ..error.into() })
        }
        None => {
            make_directory(&settings.data_dir)?;
            store::open_sqlite(&settings.data_dir, settings.migrate)
                .await
                .map_err(|error| StartError { setting: "data-dir", ..error.into() })
        }
    }
}

fn make_directory(path: &Path) -> Result<(), StartError> {
    let refused =
        |error: io::Error| StartError::new("data-dir", format!("{}: {error}", path.display()));
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refused)?;
    fs::metadata(path).map(|_| ()).map_err(refused)
}

/// The peppers of this process, the store's current one current.
pub(crate) async fn peppers(
    settings: &Settings,
    store: &dyn Store,
    clock: &dyn Clock,
) -> Result<Peppers, StartError> {
    let identity = store.identity().await?;
    let may_make = identity.is_none() || settings.accept_pepper_loss;
    let peppers = read_peppers(&settings.issuer.pepper_file, &settings.store, may_make)?;
    if let Some(identity) = identity
        && !peppers.follow(&identity.current_pepper)
    {
        if !settings.accept_pepper_loss {
            return Err(without_current(&identity));
        }
        accept_loss(&peppers, &identity, store, clock).await?;
    }
    Ok(peppers)
}

/// The peppers in these files; of the embedded store its own, which may be made
/// if `may_make`.
///
/// # Errors
///
/// A file can't be read or holds none, or none is given.
pub(crate) fn read_peppers(
    files: &[PathBuf],
    store: &StoreSettings,
    may_make: bool,
) -> Result<Peppers, StartError> {
    let is_embedded = store.database_url()?.is_none();
    let all = match files {
        [] if is_embedded => vec![bootstrap::embedded_pepper(&store.data_dir, may_make)?],
        [] => {
            return Err(StartError::new(
                "pepper-file",
                "must be given with PostgreSQL: token-authority pepper new makes one",
            ));
        }
        files => files
            .iter()
            .map(|file| bootstrap::read_pepper("pepper-file", file))
            .collect::<Result<_, _>>()?,
    };
    Peppers::new(all).map_err(|error| StartError::new("pepper-file", error))
}

/// The error of a process that was not given the store's current pepper.
pub(crate) fn without_current(identity: &Identity) -> StartError {
    let id = identity.current_pepper.as_str();
    StartError::new("pepper-file", format!("is without the store's current pepper, {id}"))
}

/// Puts the first of the peppers in the place of the current one, which is lost.
async fn accept_loss(
    peppers: &Peppers,
    identity: &Identity,
    store: &dyn Store,
    clock: &dyn Clock,
) -> Result<(), StartError> {
    let now = clock.now();
    let first = peppers.ids().first().expect("there is one at least");
    let actor = Actor::service(identity.cluster_id.system_user(), now);
    store.note_peppers(peppers.ids(), now).await?;
    let lost = Promotion::Loss(identity.current_pepper.clone());
    if !store.promote_pepper(first, lost, &actor).await? {
        // Another process was first, perhaps with the same one.
        return match store.identity().await? {
            Some(identity) if !peppers.follow(&identity.current_pepper) => {
                Err(without_current(&identity))
            }
            Some(_) | None => Ok(()),
        };
    }
    peppers.follow(first);
    tracing::warn!(
        pepper.lost = identity.current_pepper.as_str(),
        pepper.current = first.as_str(),
        "the store's current pepper is given up as lost, and another one is current now: \
         tokens are recovered as they are used"
    );
    Ok(())
}

/// What makes tokens.
///
/// # Errors
///
/// A setting is out of its range.
pub(crate) fn issuer(settings: &IssuerSettings, peppers: Peppers) -> Result<Issuer, StartError> {
    let hasher = Hasher::new(settings.argon2_memory_kib, settings.argon2_passes, threads())
        .map_err(|error| StartError::new("argon2-memory-kib", error))?;
    let prefix = settings
        .pat_prefix
        .first()
        .cloned()
        .ok_or_else(|| StartError::new("pat-prefix", "must name one at least"))?;
    Ok(Issuer { prefix, peppers: Arc::new(peppers), hasher, recoverable: false })
}

/// How many threads run at once.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, Into::into)
}

/// The identity of the store, made at the first start, which must be the one
/// that the settings name.
pub(crate) async fn identity(
    settings: &Settings,
    store: &dyn Store,
    clock: &dyn Clock,
    issuer: &Issuer,
) -> Result<Identity, StartError> {
    if store.identity().await?.is_none() {
        let first_token = match &settings.bootstrap_token_file {
            Some(path) => FirstToken::Given(path.clone()),
            None => {
                make_directory(&settings.store.data_dir)?;
                FirstToken::Made(settings.store.data_dir.clone())
            }
        };
        let accepted = &settings.issuer.pat_prefix;
        bootstrap::bootstrap(store, clock, issuer, &settings.cluster_id, &first_token, accepted)
            .await?;
    }
    let identity = store
        .identity()
        .await?
        .ok_or_else(|| StartError::new("store", "is without identity after its first start"))?;
    if identity.cluster_id != settings.cluster_id {
        let fixed = &identity.cluster_id;
        return Err(StartError::new(
            "cluster-id",
            format!("was fixed at the first start as {fixed}"),
        ));
    }
    if !issuer.peppers.follow(&identity.current_pepper) {
        return Err(StartError::new(
            "pepper-file",
            "another process began the store with another pepper",
        ));
    }
    Ok(identity)
}

/// What TLS is made with, if it is: beyond loopback it is, unless that is waived.
pub(crate) fn tls(settings: &Settings) -> Result<Option<Arc<Tls>>, StartError> {
    let files = match (&settings.tls_cert, &settings.tls_key) {
        (Some(certificate), Some(key)) => TlsFiles {
            certificate: certificate.clone(),
            key: key.clone(),
            client_authorities: settings.tls_client_ca.clone(),
        },
        (Some(_), None) => {
            return Err(StartError::new("tls-key", "must be given where tls-cert is"));
        }
        (None, Some(_)) => {
            return Err(StartError::new("tls-cert", "must be given where tls-key is"));
        }
        (None, None) if settings.tls_client_ca.is_some() => {
            return Err(StartError::new("tls-cert", "must be given where tls-client-ca is"));
        }
        (None, None) => {
            let listens = [
                ("grpc-listen", Some(settings.grpc_listen)),
                ("http-listen", settings.http_listen.0),
            ];
            let open =
                |address: Option<SocketAddr>| address.is_some_and(|it| !it.ip().is_loopback());
            let exposed = listens.into_iter().find(|(_, address)| open(*address));
            return match exposed {
                Some((setting, _)) if !settings.allow_plaintext => Err(StartError::new(
                    setting,
                    "is not a loopback address: give tls-cert and tls-key, or allow-plaintext",
                )),
                Some(_) | None => Ok(None),
            };
        }
    };
    Tls::load(files)
        .map(|tls| Some(Arc::new(tls)))
        .map_err(|error| StartError::new("tls-cert", error))
}
