//! The forms in which flag values are written. They follow the tools and manifests that already pass
//! these flags: durations such as `5m` or `1m30s`, addresses such as `:8080`.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use agent_sandbox_service::listen::{self, ListenError};
use tokio::net::TcpListener;

/// Where to listen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Bind {
    /// Nowhere.
    Off,
    /// At one address.
    At(SocketAddr),
    /// At this port of every address, of both IP versions.
    Everywhere(u16),
}

impl Bind {
    /// Listens, if anywhere.
    ///
    /// # Errors
    /// Names the address, the cause and the remedy.
    pub(super) fn listen(self) -> Result<Option<TcpListener>, ListenError> {
        match self {
            Self::Off => Ok(None),
            Self::At(address) => listen::bind(address).map(Some),
            Self::Everywhere(port) => listen::bind_everywhere(port).map(Some),
        }
    }
}

/// Reads a duration: a number with a unit (`300ms`, `5m`, `1h30m`), or `0`.
///
/// # Errors
/// Says what was expected.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let expected = "expected a duration such as 300ms, 5m or 1h30m";
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| expected.to_owned())?;
    Duration::try_from(parsed).map_err(|_| format!("{expected}, not negative"))
}

/// Reads a duration that must not be zero.
///
/// # Errors
/// Says what was expected.
pub(super) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("expected a duration above zero".to_owned()),
        duration => Ok(duration),
    }
}

/// Reads an address: `host:port`, `:port` for every interface, `0` for none. A host may be an IP
/// address or a name of this machine.
///
/// # Errors
/// Says what was expected.
pub(super) fn bind(text: &str) -> Result<Bind, String> {
    let expected = || "expected HOST:PORT, :PORT for every interface, or 0 for none".to_owned();
    if text == "0" {
        return Ok(Bind::Off);
    }
    if let Some(port) = text.strip_prefix(':') {
        return port.parse().map(Bind::Everywhere).map_err(|_| expected());
    }
    let addresses = text.to_socket_addrs().map_err(|_| expected())?;
    addresses.map(Bind::At).next().ok_or_else(expected)
}

/// Reads a count that must not be zero.
///
/// # Errors
/// Says what was expected.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("expected a whole number above zero".to_owned()),
        Ok(count) => Ok(count),
    }
}

/// Reads a rate that is a number and not negative.
///
/// # Errors
/// Says what was expected.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    text.parse::<f64>()
        .ok()
        .filter(|rate| rate.is_finite() && *rate >= 0.0)
        .ok_or_else(|| "expected a number, 0 or above".to_owned())
}

/// Reads a network in CIDR form.
///
/// # Errors
/// Says what was expected.
pub(super) fn cidr(text: &str) -> Result<String, String> {
    let expected = || "expected a network such as 203.0.113.0/24 or 2001:db8::/32".to_owned();
    let (address, bits) = text.split_once('/').ok_or_else(expected)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| expected())?;
    let bits: u8 = bits.parse().map_err(|_| expected())?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    if bits > most {
        return Err(expected());
    }
    Ok(text.to_owned())
}

/// Splits a list of label domains as the ConfigMap holds it: by commas or lines, trimmed, lower-case.
pub(super) fn label_domains(text: &str) -> Vec<String> {
    text.split([',', '\n'])
        .map(|entry| entry.trim().to_lowercase())
        .filter(|entry| !entry.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_manifests_write_them() {
        for (text, millis) in [
            ("0", 0),
            ("300ms", 300),
            ("5m", 300_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5", "five", "-5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0").is_err() && positive_duration("0s").is_err());
    }

    #[test]
    fn addresses_may_leave_out_the_host() {
        assert_eq!(bind(":8080"), Ok(Bind::Everywhere(8080)));
        assert_eq!(
            bind("127.0.0.1:1"),
            Ok(Bind::At("127.0.0.1:1".parse().unwrap()))
        );
        assert_eq!(bind("[::1]:1"), Ok(Bind::At("[::1]:1".parse().unwrap())));
        assert!(matches!(bind("localhost:1"), Ok(Bind::At(address)) if address.ip().is_loopback()));
        assert_eq!(bind("0"), Ok(Bind::Off));
        assert!(bind("8080").is_err() && bind(":x").is_err() && bind("host:port").is_err());
    }

    #[test]
    fn numbers_are_bounded() {
        assert!(count("0").is_err() && count("-1").is_err() && count("x").is_err());
        assert_eq!(count("7"), Ok(7));
        assert!(rate("-1").is_err() && rate("NaN").is_err() && rate("inf").is_err());
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(cidr("10.0.0.0/33").is_err() && cidr("10.0.0.0").is_err());
        assert!(cidr("2001:db8::/32").is_ok());
    }

    #[test]
    fn label_domains_are_split_trimmed_and_lowered() {
        assert_eq!(
            label_domains(" A.example, b.example\n\nc.example\n"),
            ["a.example", "b.example", "c.example"]
        );
        assert!(label_domains(" \n").is_empty());
    }
}
