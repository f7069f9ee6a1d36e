//! The listener's certificate: a throw-away authority and a server certificate made at start.
//!
//! `kubectl` sends its token over TLS only, so even a loopback listener needs one. The authority's
//! key is dropped as soon as it has signed; nothing else can ever be signed with it.

use std::net::IpAddr;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;

/// A server certificate and the authority that clients verify it with.
#[derive(Clone, Debug)]
pub struct ServingCertificate {
    authority: String,
    config: Arc<ServerConfig>,
}

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Key or certificate generation failed.
    #[error("cannot make a serving certificate")]
    Generate(#[from] rcgen::Error),
    /// The pair cannot be served.
    #[error("cannot serve the generated certificate")]
    Serve(#[from] agent_sandbox_service::tls::TlsError),
}

impl ServingCertificate {
    /// A certificate for `localhost`, the in-cluster names of an API server, and these addresses.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate(addresses: &[IpAddr]) -> Result<Self, CertificateError> {
        let mut authority = CertificateParams::default();
        authority
            .distinguished_name
            .push(DnType::CommonName, "agent-sandbox local authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

        let names = [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
        ];
        let mut server = CertificateParams::new(names.map(str::to_owned).to_vec())?;
        server
            .distinguished_name
            .push(DnType::CommonName, "agent-sandbox API server");
        server
            .subject_alt_names
            .extend(addresses.iter().copied().map(SanType::IpAddress));
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // Strict verifiers, Python 3.13's default among them, refuse a leaf without it.
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = server.signed_by(&key, &authority)?;

        let config = agent_sandbox_service::tls::from_pem(
            certificate.pem().as_bytes(),
            "serving certificate",
            key.serialize_pem().as_bytes(),
            "serving key",
        )?;
        Ok(Self {
            authority: authority.pem(),
            config,
        })
    }

    /// The authority's certificate in PEM, for kubeconfigs.
    pub fn authority_pem(&self) -> &str {
        &self.authority
    }

    /// What the listener serves.
    pub fn server_config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;

    /// Runs a handshake in memory and returns the client's verdict.
    fn handshake(name: &'static str) -> Result<(), rustls::Error> {
        let made = ServingCertificate::generate(&["127.0.0.1".parse().unwrap()]).unwrap();
        let mut roots = RootCertStore::empty();
        let der = CertificateDer::from_pem_slice(made.authority_pem().as_bytes()).unwrap();
        roots.add(der).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from(name).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name)?;
        let mut server = ServerConnection::new(made.server_config())?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets()?;
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn clients_verify_the_names_and_addresses_asked_for() {
        handshake("127.0.0.1").unwrap();
        handshake("localhost").unwrap();
        handshake("kubernetes.default.svc").unwrap();
        assert!(handshake("127.0.0.2").is_err());
        assert!(handshake("example.org").is_err());
    }
}
