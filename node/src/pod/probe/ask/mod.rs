//! Asking: HTTP, TCP, gRPC and program probes, really executed. Lifecycle hooks use the same means.

use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::client::conn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{
    Container as ContainerSpec, ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::Answer;
use crate::process::container::Container;
use crate::process::init::message::Process;
use crate::process::spawn::Spawner;

/// Redirects that are followed, all on the same host.
const MAX_REDIRECTS: usize = 10;

/// Bytes of an answer that are read before the connection is closed.
const MAX_BODY: usize = 10 << 10;

/// A question to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    Http {
        host: String,
        port: u16,
        tls: bool,
        path: String,
        headers: Vec<(String, String)>,
    },
    Tcp {
        host: String,
        port: u16,
    },
    Grpc {
        host: String,
        port: u16,
        service: String,
    },
    Exec {
        command: Vec<String>,
    },
}

impl Question {
    /// Understands a probe of `container`, whose pod has the address `ip`.
    pub(crate) fn of_probe(
        probe: &Probe,
        container: &ContainerSpec,
        ip: IpAddr,
    ) -> Result<Self, String> {
        if let Some(action) = &probe.exec {
            return Ok(Self::of_exec(action));
        }
        if let Some(action) = &probe.http_get {
            return Self::of_http(action, container, ip);
        }
        if let Some(action) = &probe.tcp_socket {
            return Self::of_tcp(action, container, ip);
        }
        match &probe.grpc {
            Some(action) => Self::of_grpc(action, ip),
            None => Err("the probe has no action".into()),
        }
    }

    /// A program to run.
    pub(crate) fn of_exec(action: &ExecAction) -> Self {
        Self::Exec {
            command: action.command.clone().unwrap_or_default(),
        }
    }

    /// An HTTP request.
    pub(crate) fn of_http(
        action: &HTTPGetAction,
        container: &ContainerSpec,
        ip: IpAddr,
    ) -> Result<Self, String> {
        let path = action.path.as_deref().unwrap_or_default();
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/{path}")
        };
        let headers = action.http_headers.iter().flatten();
        Ok(Self::Http {
            host: host(action.host.as_deref(), ip),
            port: port(&action.port, container)?,
            tls: action.scheme.as_deref() == Some("HTTPS"),
            path,
            headers: headers
                .map(|header| (header.name.clone(), header.value.clone()))
                .collect(),
        })
    }

    fn of_tcp(
        action: &TCPSocketAction,
        container: &ContainerSpec,
        ip: IpAddr,
    ) -> Result<Self, String> {
        Ok(Self::Tcp {
            host: host(action.host.as_deref(), ip),
            port: port(&action.port, container)?,
        })
    }

    fn of_grpc(action: &GRPCAction, ip: IpAddr) -> Result<Self, String> {
        let port = u16::try_from(action.port).ok().filter(|port| *port > 0);
        Ok(Self::Grpc {
            host: ip.to_string(),
            port: port.ok_or_else(|| format!("port {} is out of range", action.port))?,
            service: action.service.clone().unwrap_or_default(),
        })
    }
}

fn host(named: Option<&str>, ip: IpAddr) -> String {
    named
        .filter(|host| !host.is_empty())
        .map_or_else(|| ip.to_string(), str::to_owned)
}

/// A port by number or by the name of one of the container's ports.
fn port(port: &IntOrString, container: &ContainerSpec) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
    };
    let shown = || match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number > 0)
        .ok_or_else(|| {
            format!(
                "couldn't find port {:?} in container {}",
                shown(),
                container.name
            )
        })
}

/// Puts questions to containers. Clones share the TLS configuration.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    spawner: Spawner,
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Asker {
    /// An asker that starts programs through `spawner`.
    pub(crate) fn new(spawner: Spawner) -> Self {
        Self {
            spawner,
            tls: Arc::default(),
        }
    }

    /// Asks once. `process` is how programs run in `container`, whose command replaces its own.
    pub(crate) async fn ask(
        &self,
        question: &Question,
        timeout: Duration,
        container: &Container,
        process: &Process,
    ) -> Answer {
        let asked = async {
            match question {
                Question::Exec { command } => self.exec(command, container, process).await,
                Question::Tcp { host, port } => tcp(host, *port).await,
                Question::Grpc {
                    host,
                    port,
                    service,
                } => grpc(host, *port, service).await,
                Question::Http {
                    host,
                    port,
                    tls,
                    path,
                    headers,
                } => self.http(host, *port, *tls, path, headers).await,
            }
        };
        match tokio::time::timeout(timeout, asked).await {
            Ok(Ok(())) => Answer::Success,
            Ok(Err(message)) => Answer::Failure(message),
            Err(_) => Answer::Failure(match question {
                Question::Exec { command } => format!(
                    "command timed out: {:?} timed out after {}s",
                    command.join(" "),
                    timeout.as_secs()
                ),
                _ => format!("no answer within {}s", timeout.as_secs()),
            }),
        }
    }

    async fn exec(
        &self,
        command: &[String],
        container: &Container,
        process: &Process,
    ) -> Result<(), String> {
        let process = Process {
            argv: command.to_vec(),
            ..process.clone()
        };
        match self.spawner.exec("probe", container, process).await {
            Ok(outcome) if outcome.code == 0 => Ok(()),
            Ok(outcome) if outcome.output.is_empty() => {
                Err(format!("command exited with status {}", outcome.code))
            }
            Ok(outcome) => Err(outcome.output),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn http(
        &self,
        host: &str,
        port: u16,
        tls: bool,
        path: &str,
        headers: &[(String, String)],
    ) -> Result<(), String> {
        let mut target = (port, tls, path.to_owned());
        for _ in 0..=MAX_REDIRECTS {
            let (status, location) = self.get(host, &target, headers).await?;
            if !status.is_redirection() {
                return if status.is_success() {
                    Ok(())
                } else {
                    let code = status.as_u16();
                    Err(format!("HTTP probe failed with statuscode: {code}"))
                };
            }
            match location
                .as_deref()
                .and_then(|to| redirect(host, &target, to))
            {
                Some(next) => target = next,
                // Where it leads is somebody else's business; this container has answered.
                None => return Ok(()),
            }
        }
        Err(format!("stopped after {MAX_REDIRECTS} redirects"))
    }

    async fn get(
        &self,
        host: &str,
        (port, tls, path): &(u16, bool, String),
        headers: &[(String, String)],
    ) -> Result<(StatusCode, Option<String>), String> {
        let request = get_request(host, *port, path, headers)?;
        let shown = format!("Get \"{}://{host}:{port}{path}\"", scheme(*tls));
        let failed = |error: &dyn std::fmt::Display| format!("{shown}: {error}");
        let stream = connect(host, *port).await.map_err(|error| failed(&error))?;
        if !tls {
            return exchange(stream, request)
                .await
                .map_err(|error| failed(&error));
        }
        let config = self.tls_config().map_err(|error| failed(&error))?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(&error))?;
        let connector = tokio_rustls::TlsConnector::from(config);
        let stream = connector
            .connect(name, stream)
            .await
            .map_err(|error| failed(&error))?;
        exchange(stream, request)
            .await
            .map_err(|error| failed(&error))
    }

    fn tls_config(&self) -> Result<Arc<ClientConfig>, rustls::Error> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth();
        Ok(self.tls.get_or_init(|| Arc::new(config)).clone())
    }
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

fn get_request(
    host: &str,
    port: u16,
    path: &str,
    headers: &[(String, String)],
) -> Result<Request<Empty<Bytes>>, String> {
    let mut builder = Request::builder()
        .method(Method::GET)
        .uri(path)
        .header(header::USER_AGENT, "kube-probe/1.36")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close");
    let mut named_host = false;
    for (name, value) in headers {
        let name: HeaderName = name
            .parse()
            .map_err(|_| format!("header {name:?} is not a header name"))?;
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("the value of header {name} is not a header value"))?;
        named_host |= name == header::HOST;
        builder = builder.header(name, value);
    }
    if !named_host {
        builder = builder.header(header::HOST, format!("{host}:{port}"));
    }
    builder
        .body(Empty::new())
        .map_err(|error| error.to_string())
}

async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends one request on a fresh connection and reads the answer's head and the start of its body.
async fn exchange<S>(
    stream: S,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Option<String>), hyper::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let location = response.headers().get(header::LOCATION);
        let location = location
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let status = response.status();
        // A server may be waiting for its body to be taken; what is in it does not matter.
        Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .ok();
        Ok((status, location))
    };
    let mut answered = std::pin::pin!(answered);
    tokio::select! {
        answer = &mut answered => answer,
        ended = connection => {
            ended?;
            answered.await
        }
    }
}

/// Where a redirect leads, if it stays on the host that was asked.
fn redirect(
    host: &str,
    (port, tls, _): &(u16, bool, String),
    location: &str,
) -> Option<(u16, bool, String)> {
    let uri: Uri = location.parse().ok()?;
    let path = uri
        .path_and_query()
        .map_or("/", |path| path.as_str())
        .to_owned();
    let Some(other) = uri.host() else {
        return path.starts_with('/').then_some((*port, *tls, path));
    };
    if other != host {
        return None;
    }
    let tls = uri.scheme_str().map_or(*tls, |scheme| scheme == "https");
    let default = if tls { 443 } else { 80 };
    Some((uri.port_u16().unwrap_or(default), tls, path))
}

async fn tcp(host: &str, port: u16) -> Result<(), String> {
    TcpStream::connect((host, port))
        .await
        .map(drop)
        .map_err(|error| format!("dial tcp {host}:{port}: {error}"))
}

/// The health protocol of gRPC, by hand: one message with one string out, one with one enum back.
/// <https://github.com/grpc/grpc/blob/master/doc/health-checking.md>
async fn grpc(host: &str, port: u16, service: &str) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("failed to connect service \"{host}:{port}\": {error}")
    };
    let stream = connect(host, port).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| failed(&error))?;
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("http://{host}:{port}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(health_request(service)))
        .map_err(|error| failed(&error))?;
    let answered = async {
        let response = sender.send_request(request).await?;
        let head = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await?;
        let trailer = body
            .trailers()
            .and_then(|map| map.get("grpc-status"))
            .cloned();
        Ok::<_, hyper::Error>((head.or(trailer), body.to_bytes()))
    };
    let mut answered = std::pin::pin!(answered);
    let outcome = tokio::select! {
        answer = &mut answered => answer,
        ended = connection => match ended {
            Ok(()) => answered.await,
            Err(error) => Err(error),
        },
    };
    let (status, body) = outcome.map_err(|error| failed(&error))?;
    match status.as_ref().and_then(|value| value.to_str().ok()) {
        Some("0") => {}
        Some("12") => return Err("this server does not implement the grpc health protocol".into()),
        other => {
            return Err(format!(
                "health rpc failed with status {}",
                other.unwrap_or("?")
            ));
        }
    }
    match serving_status(&body) {
        Some(1) => Ok(()),
        Some(2) => Err("service unhealthy (responded with \"NOT_SERVING\")".into()),
        Some(3) => Err("service unhealthy (responded with \"SERVICE_UNKNOWN\")".into()),
        _ => Err("service unhealthy (responded with \"UNKNOWN\")".into()),
    }
}

fn health_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    // A service name is bounded by the API; a longer one would not fit one length byte.
    let name = service.as_bytes();
    if !name.is_empty() {
        message.push(0x0a);
        let mut length = name.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).unwrap_or(0) | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).unwrap_or(0));
        message.extend_from_slice(name);
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(0).to_be_bytes());
    frame.extend_from_slice(&message);
    frame.into()
}

/// Field 1 of the answer; a missing field is the default, which is "unknown".
fn serving_status(frame: &[u8]) -> Option<u8> {
    match frame.get(5..)? {
        [0x08, status, ..] => Some(*status),
        _ => Some(0),
    }
}

/// Probes do not verify certificates, as on any node: the address is the pod's own.
#[derive(Debug)]
struct AnyCertificate(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
