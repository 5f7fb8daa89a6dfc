//! The processes that are measured.

use std::{env, ffi::OsString, net::SocketAddr, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::process::Command;

use crate::{
    load::Target,
    machine,
    support::{self, pki::Authority, process::Process, server::Place},
};

/// A process that answers, with TLS if it was given files for that.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    process: Process,
    tls: Option<Arc<ClientConfig>>,
    cpus: Option<Vec<usize>>,
}

/// A certificate for `localhost`, and who trusts it.
pub(crate) struct Certificate {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    client: Arc<ClientConfig>,
    _directory: tempfile::TempDir,
}

impl Certificate {
    pub(crate) fn make() -> Self {
        let authority = Authority::new("benchmark");
        let (certificate, key) = authority.issue("localhost");
        let directory = support::directory();
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("the directory is there");
            path
        };
        let (certificate, key) = (file("certificate", &certificate), file("key", &key));
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.certificate.as_bytes());
        roots.add(root.expect("it is one")).expect("it is an authority's");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![b"h2".to_vec()];
        Self { certificate, key, client: Arc::new(client), _directory: directory }
    }
}

impl Contender {
    /// The program on this store; if `apart`, on other CPUs than the generator's.
    pub(crate) async fn server(
        name: &'static str,
        place: &Place,
        more: &[&str],
        apart: Option<&Apart>,
    ) -> Self {
        let mut arguments = vec![support::process::binary().into_os_string()];
        arguments.extend(place.arguments());
        arguments.extend(["--http-listen=".into(), "--admin-listen=".into()]);
        arguments.extend(more.iter().map(OsString::from));
        Self::start(name, arguments, None, apart).await
    }

    /// The same with TLS.
    pub(crate) async fn server_with_tls(
        name: &'static str,
        place: &Place,
        certificate: &Certificate,
        apart: Option<&Apart>,
    ) -> Self {
        let mut arguments = vec![support::process::binary().into_os_string()];
        arguments.extend(place.arguments());
        arguments.extend(["--http-listen=".into(), "--admin-listen=".into()]);
        arguments.extend(["--tls-cert".into(), certificate.certificate.clone().into()]);
        arguments.extend(["--tls-key".into(), certificate.key.clone().into()]);
        Self::start(name, arguments, Some(certificate), apart).await
    }

    /// This program, as what is called `role`, which answers with `answer`.
    pub(crate) async fn own(
        name: &'static str,
        role: &str,
        answer: &[u8],
        certificate: Option<&Certificate>,
        apart: Option<&Apart>,
    ) -> Self {
        let answer: String = answer.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut arguments = vec![program(), role.into(), answer.into()];
        if let Some(certificate) = certificate {
            arguments.push(certificate.certificate.clone().into());
            arguments.push(certificate.key.clone().into());
        }
        Self::start(name, arguments, certificate, apart).await
    }

    /// This program, as a service that keeps what these servers answer to its token.
    pub(crate) async fn keeper(servers: &[Self], own_token: &str) -> Self {
        let addresses = servers.iter().map(|server| format!("http://{}", server.address()).into());
        let arguments = [program(), "keeper".into(), own_token.into()];
        let arguments = arguments.into_iter().chain(addresses).collect();
        Self::start("keeper", arguments, None, None).await
    }

    /// Sends it a signal, such as `STOP`.
    pub(crate) async fn signal(&self, name: &str) {
        self.process.signal(name).await;
    }

    async fn start(
        name: &'static str,
        arguments: Vec<OsString>,
        certificate: Option<&Certificate>,
        apart: Option<&Apart>,
    ) -> Self {
        let mut all = arguments.into_iter();
        let command = match apart {
            Some(apart) => {
                let cpus: Vec<String> = apart.contender.iter().map(ToString::to_string).collect();
                let mut command = Command::new(program());
                command.args(["pinned", &cpus.join(",")]).args(all);
                command
            }
            None => {
                let mut command = Command::new(all.next().expect("the program comes first"));
                command.args(all);
                command
            }
        };
        Self {
            name,
            process: Process::spawn(command).await,
            tls: certificate.map(|certificate| Arc::clone(&certificate.client)),
            cpus: apart.map(|apart| apart.generator.clone()),
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.child.id().expect("it runs")
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process.address
    }

    /// Calls to it with this token.
    pub(crate) fn target(&self, bearer: &str) -> Target {
        Target {
            address: self.process.address,
            tls: self.tls.clone(),
            bearer: bearer.to_owned(),
            process: self.id(),
            cpus: self.cpus.clone(),
        }
    }

    /// Asks it to stop, and waits until it did.
    pub(crate) async fn stop(self) {
        self.process.stop().await;
    }
}

/// Which CPUs are the generator's, and which those of what it measures.
pub(crate) struct Apart {
    pub(crate) generator: Vec<usize>,
    pub(crate) contender: Vec<usize>,
}

impl Apart {
    /// Half of the CPUs each; `None` if there is but one.
    pub(crate) fn halves() -> Option<Self> {
        let (generator, contender) = machine::halves()?;
        Some(Self { generator, contender })
    }
}

fn program() -> OsString {
    env::current_exe().expect("it was started from a file").into_os_string()
}
