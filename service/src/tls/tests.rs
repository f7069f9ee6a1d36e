//! Pairs that load, that do not, and that are renewed; terms that hold.

use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConnection};
use rustls_pki_types::ServerName;

use super::*;

#[test]
fn a_pair_loads_and_bad_input_is_named() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let config = from_pem(certificate.as_bytes(), "tls.crt", key.as_bytes(), "tls.key").unwrap();
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

/// A pair in two files, and its certificate as clients are to trust it.
fn issue(dir: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(dir.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

/// The version and suite that a client and a server agree on.
fn agree(
    server: &Arc<ServerConfig>,
    trusted: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<(ProtocolVersion, String), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).unwrap();
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        server.write_tls(&mut wire).unwrap();
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    let suite = server.negotiated_cipher_suite().unwrap();
    Ok((server.protocol_version().unwrap(), suite_name(&suite)))
}

fn files(dir: &Path, terms: &Terms) -> (Followed, Arc<ServerConfig>) {
    Followed::load(dir.join("tls.crt"), dir.join("tls.key"), terms).unwrap()
}

#[test]
fn a_renewed_certificate_serves_the_next_connection() {
    let dir = tempfile::tempdir().unwrap();
    let first = issue(dir.path());
    let (followed, server) = files(dir.path(), &Terms::default());
    assert!(agree(&server, &first, rustls::ALL_VERSIONS).is_ok());
    assert!(!followed.refresh().unwrap(), "nothing has changed");
    let second = issue(dir.path());
    assert!(followed.refresh().unwrap());
    assert!(agree(&server, &second, rustls::ALL_VERSIONS).is_ok());
    assert!(agree(&server, &first, rustls::ALL_VERSIONS).is_err());
    // Half of a renewal is none.
    std::fs::write(dir.path().join("tls.crt"), "").unwrap();
    let error = followed.refresh().unwrap_err().to_string();
    assert!(error.contains("tls.crt"), "{error}");
    assert!(agree(&server, &second, rustls::ALL_VERSIONS).is_ok());
}

#[test]
fn terms_are_kept_and_impossible_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let trusted = issue(dir.path());
    let old = [&rustls::version::TLS12];
    let newest = Terms::default().from_version("VersionTLS13").unwrap();
    let (_, server) = files(dir.path(), &newest);
    assert!(agree(&server, &trusted, &old).is_err());
    let (version, _) = agree(&server, &trusted, rustls::ALL_VERSIONS).unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_3);

    for (given, suite) in [
        (
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        ),
        (
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        ),
    ] {
        let terms = Terms::default().from_version("VersionTLS12").unwrap();
        let terms = terms.with_suites(&[given.to_owned()]).unwrap();
        let (_, server) = files(dir.path(), &terms);
        let agreed = agree(&server, &trusted, &old).unwrap();
        assert_eq!(agreed, (ProtocolVersion::TLSv1_2, suite.to_owned()));
        let (version, _) = agree(&server, &trusted, rustls::ALL_VERSIONS).unwrap();
        assert_eq!(version, ProtocolVersion::TLSv1_3, "its suites stay");
    }

    let error = Terms::default().from_version("VersionTLS10").unwrap_err();
    assert!(error.to_string().contains("VersionTLS10"), "{error}");
    let weak = ["TLS_RSA_WITH_RC4_128_SHA".to_owned()];
    let error = Terms::default().with_suites(&weak).unwrap_err().to_string();
    assert!(
        error.contains(&weak[0]) && error.contains("TLS_ECDHE_RSA_WITH_AES"),
        "{error}"
    );
}
