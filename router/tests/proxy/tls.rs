//! TLS, client certificates, and certificates that change.

use std::path::Path;
use std::sync::Arc;

use agent_sandbox_router::tls::{Certificates, ClientCertificates, Files};
use agent_sandbox_router::{Listener, Router};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::rig::{self, Rig};
use crate::sandbox::{Sandbox, ok};
use crate::wire::Wire;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key for `name`, as PEM.
fn issue(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

fn install(directory: &Path, (certificate, key): &(String, String)) {
    // Renamed into place, as careful tools do.
    for (name, content) in [("tls.crt", certificate), ("tls.key", key)] {
        let staged = directory.join(format!("{name}.new"));
        std::fs::write(&staged, content).unwrap();
        std::fs::rename(staged, directory.join(name)).unwrap();
    }
}

fn files(directory: &Path, clients: ClientCertificates) -> Files {
    Files {
        certificate: directory.join("tls.crt"),
        key: directory.join("tls.key"),
        clients,
    }
}

fn start(files: Files) -> Rig {
    let certificates = Certificates::load(files).unwrap();
    let builder = Router::builder(rig::config()).resolver(rig::one_box());
    Rig::listen(builder, |socket| Listener::tls(socket, certificates))
}

fn client(trusted: &Authority, identity: Option<&(String, String)>, alpn: &[u8]) -> TlsConnector {
    use rustls::pki_types::pem::PemObject;
    let mut roots = RootCertStore::empty();
    roots.add(trusted.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn handshake(rig: &Rig, connector: &TlsConnector) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(rig.address).await?;
    connector
        .connect("router".try_into().unwrap(), stream)
        .await
}

/// The status of a request; `None` when the connection is refused. With TLS 1.3 a client learns of a
/// refused certificate only when it reads.
async fn status(rig: &Rig, connector: &TlsConnector, request: &str) -> Option<String> {
    let mut wire = Wire::over(handshake(rig, connector).await.ok()?);
    tokio::io::AsyncWriteExt::write_all(&mut wire.stream, request.as_bytes())
        .await
        .ok()?;
    wire.head().await.map(|head| head.line)
}

#[tokio::test]
async fn requests_over_tls_say_so_and_are_parked_like_others() {
    let directory = tempfile::tempdir().unwrap();
    let authority = authority();
    install(directory.path(), &issue(&authority, "router"));
    let rig = start(files(directory.path(), ClientCertificates::Off));
    let stub = Sandbox::mirror();
    let connector = client(&authority, None, b"http/1.1");
    let mut wire = Wire::over(handshake(&rig, &connector).await.unwrap());
    for _ in 0..2 {
        wire.write(stub.get("/")).await;
        let reply = wire.reply().await;
        assert!(reply.text().contains("x-forwarded-proto: https\n"));
        rig.metric_is("sandbox_router_parked_connections", 1.0)
            .await;
    }
    drop(wire);
    let stream = handshake(&rig, &client(&authority, None, b"h2"))
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let request = http::Request::get("https://router/h2")
        .header("x-sandbox-id", "box")
        .header("x-sandbox-namespace", "ns")
        .header("x-sandbox-port", stub.port())
        .body(Empty::<Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    let seen = response.into_body().collect().await.unwrap().to_bytes();
    let seen = String::from_utf8(seen.to_vec()).unwrap();
    assert!(seen.starts_with("GET /h2 HTTP/1.1\n"), "{seen}");
    assert!(seen.contains("x-forwarded-proto: https\n"), "{seen}");
    drop(sender);
    connection.await.unwrap().ok();
    rig.stop().await;
}

#[tokio::test]
async fn client_certificates_are_asked_for_as_configured() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, theirs) = (authority(), authority());
    install(directory.path(), &issue(&ours, "router"));
    let authorities = directory.path().join("ca.crt");
    std::fs::write(&authorities, ours.pem()).unwrap();
    let known = issue(&ours, "client");
    let rogue = issue(&theirs, "client");
    let stub = Sandbox::answering(ok(b"in"));
    let optional = ClientCertificates::Optional {
        authorities: authorities.clone(),
    };
    let required = ClientCertificates::Required { authorities };
    for (mode, without, with_rogue) in [
        (ClientCertificates::Off, true, true),
        (optional, true, false),
        (required, false, false),
    ] {
        let rig = start(files(directory.path(), mode.clone()));
        for (identity, expected) in [
            (None, without),
            (Some(&known), true),
            (Some(&rogue), with_rogue),
        ] {
            let connector = client(&ours, identity, b"http/1.1");
            let served = status(&rig, &connector, &stub.get("/")).await;
            assert_eq!(served.is_some(), expected, "{mode:?}");
        }
        rig.stop().await;
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_and_a_broken_one_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (authority(), authority());
    install(directory.path(), &issue(&first, "router"));
    let rig = start(files(directory.path(), ClientCertificates::Off));
    let stub = Sandbox::answering(ok(b"x"));
    let reloads = |outcome: &str| {
        rig.metric(&format!(
            r#"sandbox_router_cert_reloads_total{{outcome="{outcome}"}}"#
        ))
    };
    let old = client(&first, None, b"http/1.1");
    let new = client(&second, None, b"http/1.1");
    assert!(status(&rig, &old, &stub.get("/")).await.is_some());
    assert!(status(&rig, &new, &stub.get("/")).await.is_none());

    install(
        directory.path(),
        &("garbage".to_owned(), "garbage".to_owned()),
    );
    rig::eventually("the broken pair is noticed", async || {
        reloads("failure") >= 1.0
    })
    .await;
    assert!(
        status(&rig, &old, &stub.get("/")).await.is_some(),
        "the pair before serves on"
    );

    let before = reloads("success");
    install(directory.path(), &issue(&second, "router"));
    rig::eventually("the new pair is loaded", async || {
        reloads("success") > before
    })
    .await;
    assert!(status(&rig, &new, &stub.get("/")).await.is_some());
    assert!(status(&rig, &old, &stub.get("/")).await.is_none());
    rig.stop().await;
}

#[tokio::test]
async fn client_authorities_are_reloaded_and_connections_under_way_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let (server, before, after) = (authority(), authority(), authority());
    install(directory.path(), &issue(&server, "router"));
    let authorities = directory.path().join("ca.crt");
    std::fs::write(&authorities, before.pem()).unwrap();
    let required = ClientCertificates::Required {
        authorities: authorities.clone(),
    };
    let rig = start(files(directory.path(), required));
    let stub = Sandbox::answering(ok(b"in"));
    let reloads = |outcome: &str| {
        rig.metric(&format!(
            r#"sandbox_router_cert_reloads_total{{outcome="{outcome}"}}"#
        ))
    };
    let old = client(&server, Some(&issue(&before, "client")), b"http/1.1");
    let new = client(&server, Some(&issue(&after, "client")), b"http/1.1");
    let mut open = Wire::over(handshake(&rig, &old).await.unwrap());
    open.write(stub.get("/")).await;
    assert_eq!(open.reply().await.text(), "in");
    assert!(status(&rig, &new, &stub.get("/")).await.is_none());
    // A bundle without a certificate would let nobody in, or everybody.
    std::fs::write(&authorities, "nothing").unwrap();
    rig::eventually("the broken bundle is noticed", async || {
        reloads("failure") >= 1.0
    })
    .await;
    assert!(status(&rig, &old, &stub.get("/")).await.is_some());
    let loaded = reloads("success");
    let staged = directory.path().join("ca.new");
    std::fs::write(&staged, after.pem()).unwrap();
    std::fs::rename(&staged, &authorities).unwrap();
    rig::eventually("the new bundle is loaded", async || {
        reloads("success") > loaded
    })
    .await;
    assert!(status(&rig, &new, &stub.get("/")).await.is_some());
    assert!(status(&rig, &old, &stub.get("/")).await.is_none());
    open.write(stub.get("/")).await;
    assert_eq!(open.reply().await.text(), "in");
    rig.stop().await;
}

#[tokio::test]
async fn a_mounted_secret_that_is_swapped_is_reloaded() {
    use std::os::unix::fs::symlink;
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (authority(), authority());
    let root = directory.path();
    for (name, authority) in [("..1", &first), ("..2", &second)] {
        std::fs::create_dir(root.join(name)).unwrap();
        install(&root.join(name), &issue(authority, "router"));
    }
    symlink("..1", root.join("..data")).unwrap();
    for file in ["tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), root.join(file)).unwrap();
    }
    let rig = start(files(root, ClientCertificates::Off));
    let reloads = r#"sandbox_router_cert_reloads_total{outcome="success"}"#;
    rig.metric_is(reloads, 1.0).await;
    symlink("..2", root.join("..data_tmp")).unwrap();
    std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    rig.metric_is(reloads, 2.0).await;
    let stub = Sandbox::answering(ok(b"x"));
    assert!(
        status(&rig, &client(&second, None, b"http/1.1"), &stub.get("/"))
            .await
            .is_some()
    );
    rig.stop().await;
}

#[tokio::test]
async fn unusable_files_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let load = |clients| {
        Certificates::load(files(directory.path(), clients))
            .unwrap_err()
            .to_string()
    };
    assert!(load(ClientCertificates::Off).contains("tls.crt"));
    let authority = authority();
    install(directory.path(), &issue(&authority, "router"));
    let authorities = directory.path().join("ca.crt");
    let clients = ClientCertificates::Required {
        authorities: authorities.clone(),
    };
    assert!(load(clients.clone()).contains("ca.crt"));
    std::fs::write(authorities, "nothing").unwrap();
    assert!(load(clients).contains("ca.crt does not hold PEM"));
    let other = issue(&authority, "router");
    std::fs::write(directory.path().join("tls.key"), other.1).unwrap();
    assert!(load(ClientCertificates::Off).contains("cannot be used together"));
}
