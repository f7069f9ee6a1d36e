//! Binding listeners, with errors that say what to do.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

/// Connections the kernel queues before `accept`; bursts of clients arrive faster than one thread
/// accepts them.
const BACKLOG: i32 = 4096;

/// Why an address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {}", remedy(*address, source))]
pub struct ListenError {
    /// The address asked for.
    pub address: SocketAddr,
    /// What the operating system said.
    pub source: io::Error,
}

/// Binds and listens on `address`; port 0 picks a free port.
///
/// # Errors
/// Names the address, the cause and the remedy.
pub fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    try_bind(address).map_err(|source| ListenError { address, source })
}

/// Binds and listens on every address of this machine, of both IP versions where it has both; port 0
/// picks a free port.
///
/// # Errors
/// Names the address, the cause and the remedy.
pub fn bind_everywhere(port: u16) -> Result<TcpListener, ListenError> {
    let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match try_bind(both) {
        // Without IPv6 in the kernel there is no such socket or no such address.
        Err(error)
            if error.kind() == io::ErrorKind::AddrNotAvailable
                || error.raw_os_error() == Some(NO_SUCH_FAMILY) =>
        {
            bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        other => other.map_err(|source| ListenError {
            address: both,
            source,
        }),
    }
}

/// `EAFNOSUPPORT`, for which the standard library has no name.
const NO_SUCH_FAMILY: i32 = 97;

fn try_bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A restart must not wait for the last run's closed connections to time out.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        // Whatever the system's default is: all addresses means those of IPv4 too.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn remedy(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "port {} is in use by another program; stop that program or choose another port (0 picks a free one)",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "no permission to use port {}; ports below 1024 need privileges, choose a higher port",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            format!("{} is not an address of this machine", address.ip())
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use tokio::net::TcpStream;

    use super::{bind, bind_everywhere};

    #[tokio::test]
    async fn everywhere_means_both_versions() {
        let listener = bind_everywhere(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        // Only where this machine has IPv6 at all.
        if std::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port))
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named_with_the_remedy() {
        let first = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let taken = first.local_addr().unwrap();
        let error = bind(taken).unwrap_err().to_string();
        assert!(error.contains(&taken.to_string()), "{error}");
        assert!(error.contains("choose another port"), "{error}");
    }

    #[tokio::test]
    async fn a_foreign_address_is_named() {
        let error = bind("203.0.113.1:0".parse().unwrap())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("203.0.113.1 is not an address of this machine"),
            "{error}"
        );
    }
}
