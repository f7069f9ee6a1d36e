//! Server certificates and client certificates, reloaded when their files change.
//!
//! Every connection asks for the current configuration, so a reloaded certificate serves the next
//! one and connections under way keep theirs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::files::{Followed, ReadError};
use crate::metrics::RouterMetrics;

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
    #[error(transparent)]
    Read(#[from] ReadError),
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
pub struct Certificates(Arc<Followed<Arc<ServerConfig>, TlsError>>);

impl Certificates {
    /// Loads the files for the first time.
    ///
    /// # Errors
    /// Names the file that is missing or unusable.
    pub fn load(files: Files) -> Result<Self, TlsError> {
        let mut paths = vec![files.certificate.clone(), files.key.clone()];
        paths.extend(files.clients.authorities().map(Path::to_owned));
        let followed = Followed::load(paths, move |contents| configure(&files, contents))?;
        Ok(Self(Arc::new(followed)))
    }

    /// The configuration for the next connection.
    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        (*self.0.current()).clone()
    }

    /// Looks at the files now.
    pub(crate) fn look_again(&self) {
        self.0.look_again();
    }

    /// Follows the files until cancelled.
    pub(crate) async fn follow(self, metrics: RouterMetrics) {
        metrics.certificate_loaded(true);
        self.0
            .follow(|outcome| {
                metrics.certificate_loaded(outcome.is_ok());
                match outcome {
                    Ok(()) => tracing::info!("certificate reloaded"),
                    Err(error) => tracing::error!(
                        %error,
                        "certificate not reloaded; the one before stays in use"
                    ),
                }
            })
            .await;
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

/// Makes a server for HTTP/1.1 and HTTP/2 of a chain, a key and possibly authorities.
fn configure(files: &Files, contents: &[Vec<u8>]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?;
    let mut contents = contents.iter().map(Vec::as_slice);
    let mut next = || contents.next().unwrap_or_default();
    let (certificate, key) = (next(), next());
    let builder = match files.clients.authorities() {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in chain(next(), path)? {
                roots.add(authority)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match files.clients {
                ClientCertificates::Optional { .. } => verifier.allow_unauthenticated(),
                ClientCertificates::Off | ClientCertificates::Required { .. } => verifier,
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
        None => builder.with_no_client_auth(),
    };
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem {
        path: files.key.clone(),
        expected: "a private key",
        source,
    })?;
    let mut config = builder.with_single_cert(chain(certificate, &files.certificate)?, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
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
