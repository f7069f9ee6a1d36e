//! Server certificates: loading a pair from PEM into a rustls configuration, once or again and again.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedCipherSuite, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::shutdown::Shutdown;

/// Why a certificate pair cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The PEM text holds no usable item of the kind expected.
    #[error("{what}: expected PEM with {expected}")]
    Pem {
        /// Which input.
        what: String,
        /// What should be in it.
        expected: &'static str,
        /// Why it does not parse.
        source: rustls_pki_types::pem::Error,
    },
    /// The certificate and key do not make a server.
    #[error("certificate and private key cannot be used together")]
    Pair(#[from] rustls::Error),
    /// A version of TLS that nobody should speak any more, or that does not exist.
    #[error("{given:?} is no usable version of TLS; expected VersionTLS12 or VersionTLS13")]
    Version {
        /// What was given.
        given: String,
    },
    /// A cipher suite that is not implemented.
    #[error("{given:?} is no usable cipher suite; expected one of {known}")]
    Suite {
        /// What was given.
        given: String,
        /// What there is.
        known: String,
    },
}

/// What is agreed to with clients.
#[derive(Clone)]
pub struct Terms {
    versions: Vec<&'static SupportedProtocolVersion>,
    provider: Arc<CryptoProvider>,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            versions: rustls::ALL_VERSIONS.to_vec(),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
        }
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terms")
            .field("versions", &self.versions)
            .field("suites", &self.provider.cipher_suites)
            .finish()
    }
}

impl Terms {
    /// TLS of this version or newer, `VersionTLS12` or `VersionTLS13`.
    ///
    /// # Errors
    /// When the version is another one.
    pub fn from_version(mut self, version: &str) -> Result<Self, TlsError> {
        self.versions = match version {
            "VersionTLS12" => rustls::ALL_VERSIONS.to_vec(),
            "VersionTLS13" => vec![&rustls::version::TLS13],
            other => {
                return Err(TlsError::Version {
                    given: other.to_owned(),
                });
            }
        };
        Ok(self)
    }

    /// Only these cipher suites, by their registered names, for TLS 1.2. Those of TLS 1.3 are all
    /// sound, and stay.
    ///
    /// # Errors
    /// Names the suite that is not implemented.
    pub fn with_suites(mut self, names: &[String]) -> Result<Self, TlsError> {
        if names.is_empty() {
            return Ok(self);
        }
        let all = &self.provider.cipher_suites;
        let is_called = |suite: &SupportedCipherSuite, name: &str| {
            let registered = suite_name(suite);
            registered == name || registered.strip_suffix("_SHA256") == Some(name)
        };
        for name in names {
            if !all.iter().any(|suite| is_called(suite, name)) {
                return Err(TlsError::Suite {
                    given: name.clone(),
                    known: all.iter().map(suite_name).collect::<Vec<_>>().join(", "),
                });
            }
        }
        let kept = all.iter().filter(|suite| {
            suite.tls13().is_some() || names.iter().any(|name| is_called(suite, name))
        });
        let cipher_suites = kept.copied().collect();
        self.provider = Arc::new(CryptoProvider {
            cipher_suites,
            ..(*self.provider).clone()
        });
        Ok(self)
    }

    fn builder(
        &self,
    ) -> Result<rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier>, TlsError> {
        Ok(ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&self.versions)?)
    }
}

/// The registered name of a suite; those of TLS 1.3 are registered without the version.
fn suite_name(suite: &SupportedCipherSuite) -> String {
    let name = format!("{:?}", suite.suite());
    name.strip_prefix("TLS13_")
        .map_or_else(|| name.clone(), |rest| format!("TLS_{rest}"))
}

/// Reads a certificate chain and its key from two PEM files.
///
/// # Errors
/// Names the file that is missing or does not parse.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    from_pem(
        &read(certificate)?,
        &certificate.display().to_string(),
        &read(key)?,
        &key.display().to_string(),
    )
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}

/// Makes a server configuration for HTTP/1.1 and HTTP/2 from PEM text; the names appear in errors.
///
/// # Errors
/// Names the input that does not parse.
pub fn from_pem(
    certificate: &[u8],
    certificate_name: &str,
    key: &[u8],
    key_name: &str,
) -> Result<Arc<ServerConfig>, TlsError> {
    let (chain, key) = parse(certificate, certificate_name, key, key_name)?;
    let mut config = Terms::default()
        .builder()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

/// What is spoken over TLS, best first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn parse(
    certificate: &[u8],
    certificate_name: &str,
    key: &[u8],
    key_name: &str,
) -> Result<Pair, TlsError> {
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .and_then(|chain| {
            if chain.is_empty() {
                return Err(rustls_pki_types::pem::Error::NoItemsFound);
            }
            Ok(chain)
        })
        .map_err(|source| TlsError::Pem {
            what: certificate_name.to_owned(),
            expected: "a certificate chain",
            source,
        })?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| TlsError::Pem {
        what: key_name.to_owned(),
        expected: "a private key",
        source,
    })?;
    Ok((chain, key))
}

/// How often the files of a followed certificate are looked at.
const LOOK: Duration = Duration::from_secs(30);

/// A certificate that is read again whenever its files change, as issuers renew them in place.
/// Connections under way keep the one they began with. Clones share it.
#[derive(Clone, Debug)]
pub struct Followed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    files: (Vec<u8>, Vec<u8>),
    pair: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Inner {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().pair.clone())
    }
}

impl Followed {
    /// Reads the files for the first time and makes a server configuration for HTTP/1.1 and HTTP/2.
    ///
    /// # Errors
    /// Names the file that is missing or does not parse.
    pub fn load(
        certificate: PathBuf,
        key: PathBuf,
        terms: &Terms,
    ) -> Result<(Self, Arc<ServerConfig>), TlsError> {
        let current = open(&certificate, &key, &terms.provider)?;
        let inner = Arc::new(Inner {
            certificate,
            key,
            provider: terms.provider.clone(),
            current: RwLock::new(current),
        });
        let mut config = terms
            .builder()?
            .with_no_client_auth()
            .with_cert_resolver(inner.clone());
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        Ok((Self { inner }, Arc::new(config)))
    }

    /// Reads the files again if they changed, and says whether they had. A pair that cannot be used
    /// leaves the one before in place.
    ///
    /// # Errors
    /// Names the file that is missing or does not parse.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let inner = &*self.inner;
        let new = open(&inner.certificate, &inner.key, &inner.provider)?;
        let mut current = inner.current.write();
        let changed = current.files != new.files;
        *current = new;
        Ok(changed)
    }

    /// Follows the files until told to stop.
    pub async fn follow(self, end: Shutdown) {
        let mut failing = false;
        loop {
            tokio::select! {
                biased;
                () = end.triggered() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            match self.refresh() {
                Ok(changed) => {
                    if changed {
                        tracing::info!("certificate reloaded");
                    }
                    failing = false;
                }
                // Said once per change for the worse.
                Err(error) if !failing => {
                    failing = true;
                    tracing::error!(%error, "certificate not reloaded; the one before stays in use");
                }
                Err(_) => {}
            }
        }
    }
}

fn open(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Current, TlsError> {
    let files = (read(certificate)?, read(key)?);
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let (chain, key) = parse(&files.0, &certificate, &files.1, &key)?;
    let pair = CertifiedKey::from_der(chain, key, provider)?;
    Ok(Current {
        files,
        pair: Arc::new(pair),
    })
}

#[cfg(test)]
mod tests;
