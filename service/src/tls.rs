//! Server certificates: loading a pair from PEM into a rustls configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

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
}

/// Reads a certificate chain and its key from two PEM files.
///
/// # Errors
/// Names the file that is missing or does not parse.
pub fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| TlsError::Read {
            path: path.to_owned(),
            source,
        })
    };
    from_pem(
        &read(certificate)?,
        &certificate.display().to_string(),
        &read(key)?,
        &key.display().to_string(),
    )
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
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_loads_and_bad_input_is_named() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let config =
            from_pem(certificate.as_bytes(), "tls.crt", key.as_bytes(), "tls.key").unwrap();
        assert_eq!(config.alpn_protocols.len(), 2);

        let error = from_pem(b"", "tls.crt", key.as_bytes(), "tls.key").unwrap_err();
        assert_eq!(
            error.to_string(),
            "tls.crt: expected PEM with a certificate chain"
        );
        let error = from_pem(certificate.as_bytes(), "tls.crt", b"?", "tls.key").unwrap_err();
        assert_eq!(
            error.to_string(),
            "tls.key: expected PEM with a private key"
        );
        let error = load(Path::new("/nowhere/tls.crt"), Path::new("/nowhere/tls.key")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere/tls.crt");
    }
}
