//! Server certificates that are reloaded when their files change, and client certificates.
//!
//! The files are read once a second and compared by content, which sees an atomic rename and the
//! `..data` swap of a mounted Secret alike. A pair that does not parse is reported and the one before
//! stays in use.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::metrics::RouterMetrics;

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Where the certificate, the key and the client authorities are.
#[derive(Clone, Debug)]
pub struct Files {
    /// PEM chain of the server.
    pub certificate: PathBuf,
    /// PEM private key of the server.
    pub key: PathBuf,
    /// What is asked of clients.
    pub clients: ClientCertificates,
}

/// What is asked of clients.
#[derive(Clone, Debug)]
pub enum ClientCertificates {
    /// Nothing.
    Off,
    /// A certificate is verified if the client has one.
    Optional {
        /// PEM bundle of authorities.
        authorities: PathBuf,
    },
    /// Clients without a valid certificate are refused.
    Required {
        /// PEM bundle of authorities.
        authorities: PathBuf,
    },
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} does not hold PEM with {expected}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// Why it does not parse.
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate and key do not fit, or an authority is unusable.
    #[error("the certificates cannot be used together")]
    Unusable(#[from] rustls::Error),
    /// The authorities cannot verify anybody.
    #[error("the client authorities cannot be used")]
    Authorities(#[from] rustls::server::VerifierBuilderError),
}

/// The certificates in use. Clones share them.
#[derive(Clone, Debug)]
pub struct Certificates {
    files: Arc<Files>,
    current: Arc<ArcSwap<ServerConfig>>,
    seen: Arc<Contents>,
}

/// What the files held when they were read.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authorities: Option<Vec<u8>>,
}

impl Certificates {
    /// Loads the files for the first time.
    ///
    /// # Errors
    /// Names the file that is missing or unusable.
    pub fn load(files: Files) -> Result<Self, TlsError> {
        let seen = Contents::read(&files)?;
        let config = seen.configure(&files)?;
        Ok(Self {
            files: Arc::new(files),
            current: Arc::new(ArcSwap::new(config)),
            seen: Arc::new(seen),
        })
    }

    /// The configuration for the next connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Follows the files until cancelled.
    pub(crate) async fn watch(self, metrics: RouterMetrics) {
        metrics.certificate_loaded(true);
        let mut seen = Some((*self.seen).clone());
        let mut ticks = tokio::time::interval(INTERVAL);
        loop {
            ticks.tick().await;
            let contents = match Contents::read(&self.files) {
                Ok(contents) if seen.as_ref() == Some(&contents) => continue,
                Ok(contents) => contents,
                Err(error) => {
                    // Between the two renames of a rotation; reported once.
                    if seen.take().is_some() {
                        tracing::warn!(%error, "certificate files cannot be read; the ones before stay in use");
                    }
                    continue;
                }
            };
            match contents.configure(&self.files) {
                Ok(config) => {
                    self.current.store(config);
                    metrics.certificate_loaded(true);
                    tracing::info!(certificate = %self.files.certificate.display(), "certificate reloaded");
                }
                Err(error) => {
                    metrics.certificate_loaded(false);
                    tracing::error!(%error, "certificate not reloaded; the one before stays in use");
                }
            }
            seen = Some(contents);
        }
    }
}

impl ClientCertificates {
    fn authorities(&self) -> Option<&Path> {
        match self {
            Self::Off => None,
            Self::Optional { authorities } | Self::Required { authorities } => Some(authorities),
        }
    }
}

impl Contents {
    fn read(files: &Files) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| TlsError::Read {
                path: path.to_owned(),
                source,
            })
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            authorities: files.clients.authorities().map(read).transpose()?,
        })
    }

    fn configure(&self, files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?;
        let builder = match (&self.authorities, files.clients.authorities()) {
            (Some(pem), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for authority in chain(pem, path)? {
                    roots.add(authority)?;
                }
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = match files.clients {
                    ClientCertificates::Optional { .. } => verifier.allow_unauthenticated(),
                    ClientCertificates::Off | ClientCertificates::Required { .. } => verifier,
                };
                builder.with_client_cert_verifier(verifier.build()?)
            }
            _ => builder.with_no_client_auth(),
        };
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| TlsError::Pem {
            path: files.key.clone(),
            expected: "a private key",
            source,
        })?;
        let chain = chain(&self.certificate, &files.certificate)?;
        let mut config = builder.with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn chain(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| {
            if chain.is_empty() {
                Err(rustls_pki_types::pem::Error::NoItemsFound)
            } else {
                Ok(chain)
            }
        })
        .map_err(|source| TlsError::Pem {
            path: path.to_owned(),
            expected: "at least one certificate",
            source,
        })
}
