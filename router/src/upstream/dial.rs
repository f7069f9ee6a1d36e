//! Opening TCP connections to sandboxes, and why that fails.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::InvalidHeaderValue;
use tokio::net::TcpStream;

use crate::resolve::Address;

/// Why no connection could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The address answered that nobody listens, so it is alive.
    #[error("{address} refused the connection")]
    Refused {
        /// Where.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The address did not answer.
    #[error("{address} is unreachable")]
    Unreachable {
        /// Where.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The address did not answer in time.
    #[error("{address} did not accept a connection within {timeout:?}")]
    TimedOut {
        /// Where.
        address: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// Others were dialling all the time.
    #[error("{address} could not be dialled within {timeout:?}, because others were dialling it")]
    Queued {
        /// Where.
        address: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The name has no address.
    #[error("{address} does not resolve")]
    Name {
        /// Which name.
        address: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// The name cannot be sent as `Host`.
    #[error("{address} is no host")]
    Host {
        /// Which name.
        address: String,
        /// Why.
        source: InvalidHeaderValue,
    },
    /// The HTTP/2 handshake failed.
    #[error("{address} does not speak HTTP/2")]
    Handshake {
        /// Where.
        address: String,
        /// Why.
        source: hyper::Error,
    },
}

impl DialError {
    /// Whether the failure says that nobody is at the address any more.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. })
    }

    /// The value of the `reason` label.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::TimedOut { .. } | Self::Queued { .. } => "timeout",
            _ => "dial",
        }
    }
}

/// Connects, within the time that the caller allows.
pub(super) async fn connect(address: &Address) -> Result<TcpStream, DialError> {
    let stream = match address {
        Address::Ip(ip) => connect_ip(*ip).await?,
        Address::Name(host, port) => {
            // The final dot keeps the search list out of it.
            let resolved = tokio::net::lookup_host((format!("{host}."), *port)).await;
            let unresolved = |source| DialError::Name {
                address: address.to_string(),
                source,
            };
            let mut last = unresolved(io::Error::from(io::ErrorKind::NotFound));
            let mut connected = None;
            for ip in resolved.map_err(unresolved)? {
                match connect_ip(ip).await {
                    Ok(stream) => {
                        connected = Some(stream);
                        break;
                    }
                    Err(error) => last = error,
                }
            }
            connected.ok_or(last)?
        }
    };
    // Small requests must not wait for an acknowledgement of the one before.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%address, %error, "cannot set TCP_NODELAY");
    }
    Ok(stream)
}

async fn connect_ip(address: SocketAddr) -> Result<TcpStream, DialError> {
    TcpStream::connect(address).await.map_err(|source| {
        let address = address.to_string();
        if source.kind() == io::ErrorKind::ConnectionRefused {
            DialError::Refused { address, source }
        } else {
            DialError::Unreachable { address, source }
        }
    })
}
