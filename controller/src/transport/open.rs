//! Opening one connection: name, TCP, TLS, and the protocol the two sides agree on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Patience;

/// Why a server cannot be connected to at all.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The client's TLS configuration cannot be made.
    #[error(transparent)]
    Tls(#[from] kube::Error),
    /// The server's address or TLS name is none.
    #[error("{0:?} is not the name of a server")]
    Name(String),
}

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address does not answer.
    #[error("cannot connect to {address}")]
    Connect {
        /// Host and port.
        address: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {address} failed")]
    Handshake {
        /// Host and port.
        address: String,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The server does not speak the HTTP/2 it offered.
    #[error("{address} offered HTTP/2 and does not speak it")]
    Protocol {
        /// Host and port.
        address: String,
        /// What went wrong.
        source: hyper::Error,
    },
    /// It took too long.
    #[error("no connection to {address} within {patience:?}")]
    Late {
        /// Host and port.
        address: String,
        /// How long it was waited for.
        patience: std::time::Duration,
    },
    /// The program is ending.
    #[error("opening the connection was interrupted")]
    Interrupted,
    /// Connections close as soon as they are open.
    #[error("every connection was closed before the call was sent")]
    Unstable,
}

/// Where to connect, and how to know that it is the right place.
#[derive(Clone)]
pub(super) struct Target {
    host: String,
    port: u16,
    name: ServerName<'static>,
    tls: TlsConnector,
}

/// What calls are made through.
#[derive(Clone)]
pub(super) enum Wire {
    /// One connection for all.
    Http2(http2::SendRequest<Body>),
    /// The server does not offer HTTP/2.
    Http1,
}

/// What keeps an open connection going; it must be polled, and ends with the connection.
pub(super) type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Target {
    pub(super) fn new(config: &Config) -> Result<Self, TargetError> {
        let url = &config.cluster_url;
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = config.tls_server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| TargetError::Name(name.to_owned()))?;
        let mut tls = config.rustls_client_config()?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            host: host.to_owned(),
            port: url.port_u16().unwrap_or(443),
            name,
            tls: TlsConnector::from(Arc::new(tls)),
        })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    pub(super) async fn open(
        &self,
        patience: Patience,
    ) -> Result<(Wire, Option<Serving>), OpenError> {
        tokio::time::timeout(patience.open, self.open_in_time(patience))
            .await
            .unwrap_or_else(|_| {
                Err(OpenError::Late {
                    address: self.address(),
                    patience: patience.open,
                })
            })
    }

    async fn open_in_time(&self, patience: Patience) -> Result<(Wire, Option<Serving>), OpenError> {
        let failed = |source| OpenError::Connect {
            address: self.address(),
            source,
        };
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(failed)?;
        // Calls are small and somebody waits for each.
        tcp.set_nodelay(true).map_err(failed)?;
        let stream = self
            .tls
            .connect(self.name.clone(), tcp)
            .await
            .map_err(|source| OpenError::Handshake {
                address: self.address(),
                source,
            })?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            tracing::info!(
                address = self.address(),
                "the API server offers HTTP/1.1 only"
            );
            return Ok((Wire::Http1, None));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(patience.silence)
            .keep_alive_timeout(patience.answer)
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| OpenError::Protocol {
                address: self.address(),
                source,
            })?;
        let address = self.address();
        let serving = Box::pin(async move {
            match connection.await {
                Ok(()) => tracing::debug!(address, "connection closed"),
                Err(error) => tracing::info!(address, %error, "connection to the API server lost"),
            }
        });
        Ok((Wire::Http2(sender), Some(serving)))
    }
}
