//! Puts the parts together, serves, and stops.

use std::{
    fmt::Display,
    fs::{self, DirBuilder},
    future::ready,
    io,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http::Request;
use hyper::body::Incoming;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    authority::{Authority, Limits, MAX_OVERLAP, Policy},
    background::{self, Files, Health, WALK_INTERVAL},
    bootstrap::{self, FirstToken},
    clock::Clock,
    config::{Hidden, IssuerSettings, Settings, StoreSettings},
    connections,
    credentials::Credentials,
    directory::Directory,
    domain::{Catalogue, Peppers},
    grpc::{
        self,
        gate::Gate,
        streams::{StopStreams, Streams},
    },
    hashing::{Hasher, Recovery},
    http::Front,
    issuer::Issuer,
    listener, proto,
    root::RootTokens,
    seals::Seals,
    store::{self, Actor, Identity, PoolLimits, Promotion, Servers, Store, StoreError},
    tls::{Spoken, Tls, TlsFiles},
    upkeep::Upkeep,
    usage::Uses,
    verifier::{self, Parts, PepperLoss, Verifier},
};

/// How long what verifications left to be written may take when the service stops.
const UPKEEP_DEADLINE: Duration = Duration::from_secs(2);

/// The same of the last uses, of which a minute's may be waiting.
const USES_DEADLINE: Duration = Duration::from_secs(5);

/// The least staleness that can be promised: the store is asked four times within it.
const MIN_STALENESS: Duration = Duration::from_millis(100);

/// How long a connection lives, so that clients spread over new processes.
const CONNECTION_AGE: Duration = Duration::from_hours(1);

/// Connections at once of those who run it.
const MAX_ADMIN_CONNECTIONS: usize = 64;

/// The largest request to the services that ask for no token, in bytes.
const MAX_OPEN_REQUEST: usize = 4 * 1024;

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

/// A server that listens and is ready to serve.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    gate: Gate,
    http: Option<(TcpListener, Front)>,
    admin: Option<TcpListener>,
    files: Files,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    peppers: Arc<Peppers>,
    recovery: Arc<Recovery>,
    upkeep: (Upkeep, JoinHandle<()>),
    uses: Arc<Uses>,
    verifier: Arc<Verifier>,
    health: Health,
    stop_streams: StopStreams,
    settings: Settings,
}

impl Server {
    /// Opens the store, makes what an empty one needs, and listens.
    ///
    /// # Errors
    ///
    /// A setting is wrong, or what it names can't be used.
    pub async fn bind(mut settings: Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
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
        let tls = tls(&settings)?;
        let roots = Arc::new(RootTokens::new(
            settings.cluster_id.clone(),
            settings.verify_system_root_token,
            // What is held of them from now on is no secret.
            std::mem::take(&mut settings.system_root_token)
                .into_iter()
                .map(|Hidden(text)| text.into())
                .collect(),
            settings.system_root_token_file.clone(),
        )?);
        let store = open_store(&settings.store).await?;
        let peppers = peppers(&settings, store.as_ref(), clock.as_ref()).await?;
        let recoverable = settings.recoverable_api_tokens;
        let issuer = Arc::new(Issuer { recoverable, ..issuer(&settings.issuer, peppers)? });
        let peppers = Arc::clone(&issuer.peppers);
        let identity = identity(&settings, store.as_ref(), clock.as_ref(), &issuer).await?;
        store.note_peppers(peppers.ids(), clock.now()).await?;

        let recovery = Arc::new(Recovery::new((threads() / 2).max(1)));
        let upkeep = Upkeep::start(
            Arc::clone(&store),
            Arc::clone(&clock),
            identity.cluster_id.system_user(),
            settings.on_secret_reuse,
        );
        let loss =
            if settings.accept_pepper_loss { PepperLoss::Accepted } else { PepperLoss::Refused };
        let uses = Arc::new(Uses::new(Arc::clone(&store)));
        let max_staleness = Duration::from(settings.max_staleness);
        if max_staleness < MIN_STALENESS {
            return Err(StartError::new("max-staleness", "must be at least 100ms"));
        }
        let verifier = Verifier::new(Parts {
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            peppers: Arc::clone(&peppers),
            prefixes: settings.issuer.pat_prefix.clone(),
            recovery: Arc::clone(&recovery),
            upkeep: upkeep.0.clone(),
            uses: settings.last_use.then(|| Arc::clone(&uses)),
            loss,
            roots: Arc::clone(&roots),
            recoverable: settings.recoverable_api_tokens,
            encode: grpc::encode_active,
            policy: verifier::Policy {
                max_staleness,
                stale_if_error: settings.stale_if_error.map(Into::into).unwrap_or_default(),
                max_age: settings.max_age.map(Into::into).unwrap_or_default(),
                cache_bytes: settings.cache_mib as usize * 1024 * 1024,
            },
        });
        let verifier = Arc::new(verifier.await?);
        let policy = Policy {
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
        };
        if policy.rotation_overlap > MAX_OVERLAP {
            return Err(StartError::new("rotation-overlap", "must be at most 90d"));
        }
        let authority = Arc::new(Authority::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            identity.cluster_id.clone(),
            issuer,
            policy,
        ));
        let credentials = Credentials::new(Arc::clone(&store), identity.cluster_id.clone());
        let directory = Directory::new(Arc::clone(&store), Arc::clone(&clock), identity.cluster_id);
        let (health, health_service) = tonic_health::server::health_reporter();
        let health = Health::new(health);
        let (streams, stop_streams) = Streams::new(settings.max_open_streams as usize);
        let services = grpc::Services::new(&authority, &verifier);
        let routes =
            grpc::routes(Arc::clone(&verifier), &services, directory, credentials, streams);
        let mut routes =
            routes.add_service(health_service.max_decoding_message_size(MAX_OPEN_REQUEST));
        if settings.reflection {
            let built = "the descriptors are generated";
            routes = routes
                .add_service(
                    reflection()
                        .build_v1()
                        .expect(built)
                        .max_decoding_message_size(MAX_OPEN_REQUEST),
                )
                .add_service(
                    reflection()
                        .build_v1alpha()
                        .expect(built)
                        .max_decoding_message_size(MAX_OPEN_REQUEST),
                );
        }
        let gate = Gate::new(
            Arc::clone(&verifier),
            Arc::clone(&clock),
            routes,
            settings.max_calls as usize,
            settings.call_deadline.into(),
        );
        let (listener, address) = listen("grpc-listen", settings.grpc_listen).await?;
        let http = match settings.http_listen.0 {
            None => None,
            Some(address) => {
                let (verifier, clock) = (Arc::clone(&verifier), Arc::clone(&clock));
                let front = Front::new(verifier, clock, services, &settings);
                Some((listen("http-listen", address).await?.0, front))
            }
        };
        let admin = match settings.admin_listen.0 {
            None => None,
            Some(address) => Some(listen("admin-listen", address).await?.0),
        };
        Ok(Self {
            listener,
            address,
            gate,
            http,
            admin,
            files: Files { tls, roots },
            store,
            clock,
            peppers,
            recovery,
            upkeep,
            uses,
            verifier,
            health,
            stop_streams,
            settings,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens for HTTP, if it does.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|(listener, _)| listener.local_addr().ok())
    }

    /// Where it listens for those who run it, if it does.
    #[must_use]
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// What it read from files, to have it read again.
    #[must_use]
    pub fn files(&self) -> Files {
        self.files.clone()
    }

    /// What proves secrets by their records, to see how often it does.
    #[must_use]
    pub fn recovery(&self) -> Arc<Recovery> {
        Arc::clone(&self.recovery)
    }

    /// What every call passes, to have calls answered that come by another way.
    #[must_use]
    pub fn gate(&self) -> Gate {
        self.gate.clone()
    }

    /// What answers, to see what it did.
    #[must_use]
    pub fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier)
    }

    /// Serves until `stop` is done, then lets the calls that are under way
    /// finish, but no longer than the deadline for that.
    pub async fn serve(self, stop: impl Future<Output = ()> + Send) {
        self.health.set(true, true).await;
        let mut watched = background::watch_store(
            Arc::clone(&self.store),
            Arc::clone(&self.peppers),
            Arc::clone(&self.verifier),
            self.health.clone(),
        );
        let followed = self.verifier.follow();
        let purged =
            background::purge(Arc::clone(&self.store), Arc::clone(&self.clock), &self.settings);
        let sealed = self.seals().start(WALK_INTERVAL);
        let noted = Arc::clone(&self.uses).start(Arc::clone(&self.clock));
        let reloaded = self.files.may_change().then(|| background::reload(self.files.clone()));
        let limits = &self.settings;
        let incoming = |listener, spoken| {
            let tls = self.files.tls.clone();
            listener::connections(listener, tls, spoken, limits.max_connections as usize)
        };
        let (drain, draining) = watch::channel(());
        let drained = || {
            let mut draining = draining.clone();
            async move {
                let _ = draining.changed().await;
            }
        };
        let gate = self.gate;
        let grpc = connections::serve(
            incoming(self.listener, Spoken::Http2),
            connections::Limits { streams: limits.max_streams, age: CONNECTION_AGE },
            move |request, peer| gate.answer(request, peer),
            drained(),
        );
        let http = async {
            let Some((listener, front)) = self.http else { return };
            connections::serve_http1(
                incoming(listener, Spoken::Http1),
                CONNECTION_AGE,
                move |request, peer| front.answer(request, peer),
                drained(),
            )
            .await;
        };
        let admin = async {
            let Some(listener) = self.admin else { return };
            let incoming =
                listener::connections(listener, None, Spoken::Http1, MAX_ADMIN_CONNECTIONS);
            let admin = self.health.admin();
            let answer = move |request: Request<Incoming>, _| ready(admin.answer(&request));
            connections::serve_http1(incoming, CONNECTION_AGE, answer, drained()).await;
        };
        let serving = async {
            tokio::join!(grpc, http, admin);
        };
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => {}
            () = stop => {
                watched.abort();
                // It may be in the middle of saying the opposite.
                let _ = (&mut watched).await;
                self.health.set(false, false).await;
                tracing::info!("stopping");
                let _ = drain.send(());
                self.stop_streams.stop();
                self.health.end().await;
                // A client that says nothing would hold the drain for ever.
                let drained = tokio::time::timeout(limits.shutdown_deadline.into(), &mut serving);
                if drained.await.is_err() {
                    tracing::warn!("connections were still open at the deadline");
                }
            }
        }
        watched.abort();
        for task in [purged, sealed, noted, followed] {
            task.abort();
            let _ = task.await;
        }
        if let Some(reloaded) = reloaded {
            reloaded.abort();
        }
        let (upkeep, task) = self.upkeep;
        let upkeep = tokio::time::timeout(UPKEEP_DEADLINE, upkeep.finish(task));
        let uses = tokio::time::timeout(USES_DEADLINE, self.uses.finish());
        let (upkeep, uses) = tokio::join!(upkeep, uses);
        if upkeep.is_err() {
            tracing::warn!("upkeep was still being written at the deadline");
        }
        if uses.is_err() {
            tracing::warn!("last uses were still being written at the deadline");
        }
        let _ = tokio::time::timeout(Duration::from_secs(5), self.store.close()).await;
        tracing::info!("stopped");
    }

    fn seals(&self) -> Seals {
        Seals {
            store: Arc::clone(&self.store),
            clock: Arc::clone(&self.clock),
            peppers: Arc::clone(&self.peppers),
            system: self.settings.cluster_id.system_user(),
            recoverable: self.settings.recoverable_api_tokens,
        }
    }
}

/// Listens at an address, and says at which.
async fn listen(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |error| StartError::new(setting, error);
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
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
async fn peppers(
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
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, Into::into)
}

/// The identity of the store, made at the first start, which must be the one
/// that the settings name.
async fn identity(
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

/// What reflection tells: our services and health, and the messages in the
/// details of errors, so that clients without generated code can read them.
fn reflection<'a>() -> tonic_reflection::server::Builder<'a> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

fn tls(settings: &Settings) -> Result<Option<Arc<Tls>>, StartError> {
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
