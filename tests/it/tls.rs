use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Error, Identity};

use crate::support::{
    Engine,
    client::{Client, connect},
    pki::Authority,
    process::Process,
    server::Place,
    wait,
};

/// A server with TLS, and the files of its certificate.
struct Secured {
    place: Place,
    authority: Authority,
    process: Process,
}

impl Secured {
    async fn start(more: impl FnOnce(&Place) -> Vec<String>) -> Self {
        let place = Place::new(Engine::Sqlite).await;
        let authority = Authority::new("one");
        let mut arguments = place.arguments();
        arguments.extend(place.certificate(&authority).map(Into::into));
        arguments.extend(more(&place).into_iter().map(Into::into));
        let process = Process::start(arguments).await;
        Self { place, authority, process }
    }

    /// Puts another certificate in the place of the first, file by file.
    fn replace(&self, (certificate, key): &(String, String)) {
        for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
            self.replace_file(name, text);
        }
    }

    fn replace_file(&self, name: &str, text: &str) {
        let beside = self.place.path("beside");
        fs::write(&beside, text).unwrap();
        fs::rename(&beside, self.path(name)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path(name)
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self) -> CertificateDer<'static> {
        let stream = handshake(self.process.address, &[&self.authority], b"h2").await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Waits until new connections are shown this certificate.
    async fn wait_until_shown(&self, certificate: &str, deadline: Duration) {
        let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
        wait::until("the certificate is replaced", deadline, async || {
            self.shown().await == certificate
        })
        .await;
    }

    async fn client(&self) -> Client {
        let channel = trusting(&self.authority).connect(self.process.address).await.unwrap();
        Client::over(channel, &self.place.admin_token())
    }
}

/// How a client makes connections.
struct Connections(ClientTlsConfig);

fn trusting(authority: &Authority) -> Connections {
    let authority = Certificate::from_pem(&authority.certificate);
    Connections(ClientTlsConfig::new().ca_certificate(authority).domain_name("localhost"))
}

impl Connections {
    fn showing(self, (certificate, key): (String, String)) -> Self {
        Self(self.0.identity(Identity::from_pem(certificate, key)))
    }

    async fn connect(&self, address: SocketAddr) -> Result<Channel, Error> {
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        endpoint.tls_config(self.0.clone()).unwrap().connect().await
    }
}

/// A TLS handshake that offers one protocol above it.
async fn handshake(
    address: SocketAddr,
    trusted: &[&Authority],
    protocol: &[u8],
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut authorities = rustls::RootCertStore::empty();
    for authority in trusted {
        let certificate = CertificateDer::from_pem_slice(authority.certificate.as_bytes()).unwrap();
        authorities.add(certificate).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authorities)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

fn none(_: &Place) -> Vec<String> {
    Vec::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_carries_http2_and_nothing_else() {
    let server = Secured::start(none).await;
    server.client().await.who_am_i().await.unwrap();

    let address = server.process.address;
    let stream = handshake(address, &[&server.authority], b"h2").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert!(handshake(address, &[&server.authority], b"http/1.1").await.is_err());
    let stranger = Authority::new("two");
    assert!(handshake(address, &[&stranger], b"h2").await.is_err());

    let plain = Client::over(connect(address).await, &server.place.admin_token());
    assert!(plain.who_am_i().await.is_err());
    server.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_carries_http1_where_that_is_spoken() {
    let server = Secured::start(none).await;
    let address = server.process.http.unwrap();
    for (path, status, said) in [
        ("/v1/tokens", 401, "error"),
        ("/discovery/v1/apis/arvados/v1/rest", 200, r#""rootUrl":"https://localhost/""#),
    ] {
        let mut stream = handshake(address, &[&server.authority], b"http/1.1").await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(said), "{answer}");
    }
    assert!(handshake(address, &[&server.authority], b"h2").await.is_err());
    server.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_without_a_certificate_of_the_authority_is_refused() {
    let clients = Authority::new("clients");
    let server = Secured::start(|place| {
        fs::write(place.path("clients.crt"), &clients.certificate).unwrap();
        vec![format!("--tls-client-ca={}", place.path("clients.crt").display())]
    })
    .await;
    let call = async |connections: Connections| {
        let channel = connections.connect(server.process.address).await.ok()?;
        Client::over(channel, &server.place.admin_token()).who_am_i().await.ok()
    };
    let trusting = || trusting(&server.authority);
    assert!(call(trusting()).await.is_none());
    assert!(call(trusting().showing(server.authority.issue("client"))).await.is_none());
    assert!(call(trusting().showing(clients.issue("client"))).await.is_some());
    server.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_is_replaced_under_load_without_a_failed_call() {
    let server = Secured::start(none).await;
    let stop = Arc::new(AtomicBool::new(false));
    let calls = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut callers = JoinSet::new();
    for caller in 0..6 {
        let kind = caller % 2;
        let load = Load {
            connections: trusting(&server.authority),
            address: server.process.address,
            token: server.place.admin_token(),
            long_lived: kind == 1,
        };
        let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
        callers.spawn(async move {
            let mut kept = load.open().await;
            while !stop.load(Ordering::SeqCst) {
                kept.who_am_i().await.unwrap();
                calls[kind].fetch_add(1, Ordering::SeqCst);
                if !load.long_lived {
                    kept = load.open().await;
                }
            }
        });
    }

    for _ in 0..5 {
        let next = server.authority.issue("localhost");
        server.replace(&next);
        server.process.signal("HUP").await;
        server.wait_until_shown(&next.0, Duration::from_secs(10)).await;
        let seen = calls.each_ref().map(|calls| calls.load(Ordering::SeqCst));
        wait::until("both kinds of caller get on", Duration::from_secs(10), async || {
            calls.iter().zip(seen).all(|(calls, seen)| calls.load(Ordering::SeqCst) >= seen + 10)
        })
        .await;
    }
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended.unwrap();
    }
    server.process.stop().await;
}

/// A caller of the server under load.
struct Load {
    connections: Connections,
    address: SocketAddr,
    token: String,
    /// It keeps its connection, rather than making one for each call.
    long_lived: bool,
}

impl Load {
    async fn open(&self) -> Client {
        Client::over(self.connections.connect(self.address).await.unwrap(), &self.token)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_replacement_leaves_the_old_certificate_in_use() {
    let server = Secured::start(none).await;
    let good = server.shown().await;
    let [certificate, key] =
        ["tls.crt", "tls.key"].map(|name| fs::read_to_string(server.path(name)).unwrap());
    let other = server.authority.issue("localhost");
    let refused = || server.process.log().matches("certificates not replaced").count();

    let bad: [(&str, Option<&str>); 5] = [
        ("tls.crt", Some("garbage")),
        ("tls.crt", Some("")),
        ("tls.key", Some(&other.1)),
        ("tls.key", Some("garbage")),
        ("tls.key", None),
    ];
    for (name, text) in bad {
        let before = refused();
        match text {
            Some(text) => server.replace_file(name, text),
            None => fs::remove_file(server.path(name)).unwrap(),
        }
        server.process.signal("HUP").await;
        wait::until("it says so in the log", Duration::from_secs(15), async || refused() > before)
            .await;
        assert_eq!(server.shown().await, good, "{name}: {text:?}");
        server.client().await.who_am_i().await.unwrap();
        server.replace(&(certificate.clone(), key.clone()));
    }

    server.replace(&other);
    server.process.signal("HUP").await;
    server.wait_until_shown(&other.0, Duration::from_secs(10)).await;
    assert!(!server.process.log().contains(key.lines().nth(1).unwrap()));
    server.process.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_is_replaced_without_a_signal_too() {
    let server = Secured::start(none).await;
    let next = server.authority.issue("localhost");
    server.replace(&next);
    server.wait_until_shown(&next.0, Duration::from_secs(15)).await;
    server.client().await.who_am_i().await.unwrap();
    server.process.stop().await;
}
