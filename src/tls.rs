//! The server's certificates, read again when their files change.

use std::{
    fs, io,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP/2, as gRPC has it.
    Http2,
    /// HTTP/1.1.
    Http1,
}

/// Where the certificates are.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate chain, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
    /// Authorities one of which must have signed a client's certificate, PEM;
    /// `None`: clients need none.
    pub client_authorities: Option<PathBuf>,
}

/// The certificates in use: those of the last files that were good.
pub struct Tls {
    files: TlsFiles,
    used: RwLock<[Arc<ServerConfig>; 2]>,
    /// What the files held when they were last looked at; none: one was unreadable.
    seen: RwLock<Vec<Vec<u8>>>,
}

/// Certificates that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("{0} can't be read: {1}")]
    Unreadable(PathBuf, #[source] io::Error),
    /// A file holds nothing of the kind.
    #[error("{0} holds no {1} in PEM")]
    Malformed(PathBuf, &'static str),
    /// They do not fit together.
    #[error("the certificate can't be used: {0}")]
    Unusable(String),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    ///
    /// One of them can't be read or used.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = read(&files)?;
        let configs = configs(&files, &contents)?;
        Ok(Self { files, used: RwLock::new(configs), seen: RwLock::new(contents) })
    }

    /// What new connections use that are to speak this.
    #[must_use]
    pub fn current(&self, spoken: Spoken) -> Arc<ServerConfig> {
        let [http2, http1] = &*self.used.read().unwrap_or_else(PoisonError::into_inner);
        match spoken {
            Spoken::Http2 => Arc::clone(http2),
            Spoken::Http1 => Arc::clone(http1),
        }
    }

    /// Reads the files again if they changed. Bad ones are said in the log, once,
    /// and those in use stay in use.
    pub fn reload(&self) {
        let read = read(&self.files);
        {
            let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
            let contents = read.as_ref().map_or(Vec::new(), Clone::clone);
            if *seen == contents {
                return;
            }
            *seen = contents;
        }
        match read.and_then(|contents| configs(&self.files, &contents)) {
            Ok(configs) => {
                *self.used.write().unwrap_or_else(PoisonError::into_inner) = configs;
                tracing::info!("certificates replaced");
            }
            Err(error) => tracing::warn!(error = %error, "certificates not replaced"),
        }
    }
}

/// The contents of the files, the key's among them.
fn read(files: &TlsFiles) -> Result<Vec<Vec<u8>>, TlsError> {
    [Some(&files.certificate), Some(&files.key), files.client_authorities.as_ref()]
        .into_iter()
        .flatten()
        .map(|path| fs::read(path).map_err(|error| TlsError::Unreadable(path.clone(), error)))
        .collect()
}

/// Those of connections that speak HTTP/2, and HTTP/1.1 (RFC 7301).
fn configs(files: &TlsFiles, contents: &[Vec<u8>]) -> Result<[Arc<ServerConfig>; 2], TlsError> {
    let chain = certificates(&contents[0])
        .ok_or_else(|| TlsError::Malformed(files.certificate.clone(), "certificate"))?;
    let key = PrivateKeyDer::from_pem_slice(&contents[1])
        .map_err(|_| TlsError::Malformed(files.key.clone(), "private key"))?;
    let unusable = |error: &dyn std::fmt::Display| TlsError::Unusable(error.to_string());

    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut authorities = RootCertStore::empty();
            let certificates = certificates(&contents[2])
                .ok_or_else(|| TlsError::Malformed(path.clone(), "certificate"))?;
            for certificate in certificates {
                authorities.add(certificate).map_err(|error| unusable(&error))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
                    .build()
                    .map_err(|error| unusable(&error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| unusable(&error))?;
    let mut http1 = config.clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    http1.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok([Arc::new(config), Arc::new(http1)])
}

/// The certificates in a PEM text, at least one.
fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let certificates: Vec<_> =
        CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().ok()?;
    (!certificates.is_empty()).then_some(certificates)
}
