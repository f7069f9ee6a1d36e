//! Notations of values: Go's addresses, and the truths of the Python router.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Where to listen: one address, or every address of the machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BindAddress {
    /// Every address, IPv6 and IPv4 where the machine has both.
    Any(u16),
    /// One address.
    One(SocketAddr),
}

/// A text that is no address to listen on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{text:?} is not an address to listen on; expected :PORT or IP:PORT, or nothing for none")]
pub(super) struct BindError {
    text: String,
}

impl BindAddress {
    /// Empty is nowhere.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, BindError> {
        let refused = || BindError {
            text: text.to_owned(),
        };
        if text.is_empty() {
            return Ok(None);
        }
        if let Some(port) = text.strip_prefix(':') {
            return port
                .parse()
                .map(|port| Some(Self::Any(port)))
                .map_err(|_| refused());
        }
        if let Some(port) = text.strip_prefix("localhost:") {
            let port = port.parse().map_err(|_| refused())?;
            return Ok(Some(Self::One((Ipv4Addr::LOCALHOST, port).into())));
        }
        text.parse()
            .map(|address| Some(Self::One(address)))
            .map_err(|_| refused())
    }

    /// The addresses to try, in this order.
    pub fn candidates(self) -> Vec<SocketAddr> {
        match self {
            Self::Any(port) => vec![
                (IpAddr::V6(Ipv6Addr::UNSPECIFIED), port).into(),
                (IpAddr::V4(Ipv4Addr::UNSPECIFIED), port).into(),
            ],
            Self::One(address) => vec![address],
        }
    }
}

/// What the Python router takes for yes.
pub(super) fn truthy(text: &str) -> bool {
    ["1", "true", "t", "yes", "y", "on"].contains(&text.trim().to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_in_gos_notation() {
        assert_eq!(BindAddress::parse(""), Ok(None));
        assert_eq!(
            BindAddress::parse(":8080"),
            Ok(Some(BindAddress::Any(8080)))
        );
        for text in ["127.0.0.1:0", "[::1]:80", "localhost:1"] {
            assert!(matches!(
                BindAddress::parse(text),
                Ok(Some(BindAddress::One(_)))
            ));
        }
        for text in ["8080", ":", ":x", "host:80", "127.0.0.1", ":65536"] {
            let error = BindAddress::parse(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(":PORT"), "{error}");
        }
    }
}
