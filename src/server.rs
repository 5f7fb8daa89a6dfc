//! Puts the parts together, serves, and stops.

use std::{future::ready, net::SocketAddr, sync::Arc, time::Duration};

use http::Request;
use hyper::body::Incoming;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{
    authority::Authority,
    background::{self, Files, Health, WALK_INTERVAL},
    clock::Clock,
    config::{Hidden, Settings},
    connections,
    credentials::Credentials,
    directory::Directory,
    domain::Peppers,
    grpc::{
        self,
        gate::Gate,
        streams::{StopStreams, Streams},
    },
    hashing::Recovery,
    http::Front,
    issuer::Issuer,
    listener, proto,
    root::RootTokens,
    seals::Seals,
    start::{self, StartError},
    store::Store,
    tls::Spoken,
    upkeep::Upkeep,
    usage::Uses,
    verifier::{self, Parts, PepperLoss, Verifier},
};

/// How long what verifications left to be written may take when the service stops.
const UPKEEP_DEADLINE: Duration = Duration::from_secs(2);

/// The same of the last uses, of which a minute's may be waiting.
const USES_DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection lives, so that clients spread over new processes.
const CONNECTION_AGE: Duration = Duration::from_hours(1);

/// Connections at once of those who run it.
const MAX_ADMIN_CONNECTIONS: usize = 64;

/// The largest request to the services that ask for no token, in bytes.
const MAX_OPEN_REQUEST: usize = 4 * 1024;

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
        start::check(&settings)?;
        let tls = start::tls(&settings)?;
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
        let store = start::open_store(&settings.store).await?;
        let peppers = start::peppers(&settings, store.as_ref(), clock.as_ref()).await?;
        let recoverable = settings.recoverable_api_tokens;
        let issuer = Arc::new(Issuer { recoverable, ..start::issuer(&settings.issuer, peppers)? });
        let peppers = Arc::clone(&issuer.peppers);
        let identity = start::identity(&settings, store.as_ref(), clock.as_ref(), &issuer).await?;
        store.note_peppers(peppers.ids(), clock.now()).await?;

        let recovery = Arc::new(Recovery::new((start::threads() / 2).max(1)));
        let upkeep = Upkeep::start(
            Arc::clone(&store),
            Arc::clone(&clock),
            identity.cluster_id.system_user(),
            settings.on_secret_reuse,
        );
        let loss =
            if settings.accept_pepper_loss { PepperLoss::Accepted } else { PepperLoss::Refused };
        let uses = Arc::new(Uses::new(Arc::clone(&store)));
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
                max_staleness: settings.max_staleness.into(),
                stale_if_error: settings.stale_if_error.map(Into::into).unwrap_or_default(),
                max_age: settings.max_age.map(Into::into).unwrap_or_default(),
                cache_bytes: settings.cache_mib as usize * 1024 * 1024,
            },
        });
        let verifier = Arc::new(verifier.await?);
        let authority = Arc::new(Authority::new(
            Arc::clone(&store),
            Arc::clone(&clock),
            identity.cluster_id.clone(),
            issuer,
            start::policy(&settings),
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

/// What reflection tells: our services and health, and the messages in the
/// details of errors, so that clients without generated code can read them.
fn reflection<'a>() -> tonic_reflection::server::Builder<'a> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}
