//! Addresses for pods.
//!
//! Every pod gets a loopback address of its own, so that all pods can listen on the same port. An
//! address is taken in turn through the whole range, so that a peer that still remembers a deleted
//! pod does not reach its successor. While it is in use a socket is bound to it on
//! [`RESERVATION_PORT`], which keeps other nodes on the same machine away.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// TCP port that is bound on every address in use and never listens.
pub const RESERVATION_PORT: u16 = 65_533;

/// How many addresses are tried before a pod is told that there is none.
const ATTEMPTS: usize = 64;

/// A block of loopback addresses, written like `127.100.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressRange {
    base: u32,
    prefix: u32,
}

/// A range that cannot be used for pods.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "pod address range {text:?}: expected a block within 127.0.0.0/8 of at least 16 addresses, such as 127.100.0.0/16"
)]
pub struct InvalidRange {
    text: String,
}

impl Default for AddressRange {
    /// `127.100.0.0/16`.
    fn default() -> Self {
        Self {
            base: Ipv4Addr::new(127, 100, 0, 0).into(),
            prefix: 16,
        }
    }
}

impl FromStr for AddressRange {
    type Err = InvalidRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidRange {
            text: text.to_owned(),
        };
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let base = u32::from(address.parse::<Ipv4Addr>().map_err(|_| invalid())?);
        let prefix: u32 = prefix.parse().map_err(|_| invalid())?;
        let range = Self { base, prefix };
        let aligned = (8..=28).contains(&prefix) && base.is_multiple_of(range.size());
        if aligned && Ipv4Addr::from(base).is_loopback() {
            Ok(range)
        } else {
            Err(invalid())
        }
    }
}

impl AddressRange {
    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    /// The address at `index`, unless it looks like a network or broadcast address or is the one
    /// that everybody uses.
    fn address(self, index: u32) -> Option<Ipv4Addr> {
        let address = Ipv4Addr::from(self.base + index % self.size());
        let usable = !matches!(address.octets(), [127, 0, 0, _] | [.., 0 | 255]);
        usable.then_some(address)
    }
}

/// Why a pod gets no address.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AddressError {
    /// A port that the pod needs is taken on every address.
    #[error(
        "port {port} is in use on every address tried; a program that listens on 0.0.0.0:{port} must be stopped"
    )]
    PortTaken { port: u16 },
    /// Every address tried is in use.
    #[error("no free pod address in {ATTEMPTS} attempts; use a larger range")]
    Exhausted,
    /// Sockets cannot be made.
    #[error("bind {address}")]
    Bind {
        address: SocketAddr,
        source: std::io::Error,
    },
}

/// The addresses of one node. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    range: AddressRange,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    next: u32,
    used: HashSet<Ipv4Addr>,
}

/// An address in use; given back when dropped.
#[derive(Debug)]
pub(crate) struct PodAddress {
    address: Ipv4Addr,
    owner: Addresses,
    /// Held, never read.
    _reservation: OwnedFd,
}

impl Addresses {
    /// Starts somewhere in the range, so that nodes that share it rarely try the same address.
    pub(crate) fn new(range: AddressRange) -> Self {
        Self::starting_at(range, fastrand::u32(0..range.size()))
    }

    fn starting_at(range: AddressRange, next: u32) -> Self {
        let used = HashSet::new();
        Self {
            range,
            state: Arc::new(Mutex::new(State { next, used })),
        }
    }

    /// Takes an address on which all of `ports` are free.
    pub(crate) fn allocate(&self, ports: &[u16]) -> Result<PodAddress, AddressError> {
        let mut taken = None;
        for _ in 0..ATTEMPTS {
            let Some(address) = self.next() else { continue };
            let reservation = match reserve(address) {
                Ok(reservation) => reservation,
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    self.release(address);
                    continue;
                }
                Err(source) => {
                    self.release(address);
                    let address = SocketAddr::new(IpAddr::V4(address), RESERVATION_PORT);
                    return Err(AddressError::Bind { address, source });
                }
            };
            let allocated = PodAddress {
                address,
                owner: self.clone(),
                _reservation: reservation,
            };
            match ports.iter().find(|port| !is_free(address, **port)) {
                None => return Ok(allocated),
                Some(port) => taken = Some(*port),
            }
        }
        Err(
            taken.map_or(AddressError::Exhausted, |port| AddressError::PortTaken {
                port,
            }),
        )
    }

    fn next(&self) -> Option<Ipv4Addr> {
        let mut state = self.state.lock();
        let index = state.next;
        state.next = index.wrapping_add(1) % self.range.size();
        let address = self.range.address(index)?;
        state.used.insert(address).then_some(address)
    }

    fn release(&self, address: Ipv4Addr) {
        self.state.lock().used.remove(&address);
    }
}

impl PodAddress {
    /// The address itself.
    pub(crate) fn ip(&self) -> Ipv4Addr {
        self.address
    }
}

impl Drop for PodAddress {
    fn drop(&mut self) {
        self.owner.release(self.address);
    }
}

/// Binds without listening, and without allowing anybody else to bind the same.
fn reserve(address: Ipv4Addr) -> std::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(
        &socket,
        &SocketAddr::new(IpAddr::V4(address), RESERVATION_PORT),
    )?;
    Ok(socket)
}

/// Whether a server could listen there now. Ports below 1024 may need privileges that the pod has
/// no use for either; only a port in use counts as taken.
fn is_free(address: Ipv4Addr, port: u16) -> bool {
    match TcpListener::bind((address, port)) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::AddrInUse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn only_loopback_blocks_are_ranges() {
        for good in ["127.100.0.0/16", "127.0.0.0/8", "127.1.2.16/28"] {
            good.parse::<AddressRange>().unwrap();
        }
        for bad in [
            "",
            "127.1.0.0",
            "10.0.0.0/16",
            "127.1.0.1/16",
            "127.1.0.0/29",
            "127.0.0.0/7",
            "127.1.0.0/x",
        ] {
            assert!(bad.parse::<AddressRange>().is_err(), "{bad}");
        }
        assert_eq!(AddressRange::default(), range("127.100.0.0/16"));
    }

    #[test]
    fn an_address_comes_back_only_after_the_whole_range() {
        let addresses = Addresses::starting_at(range("127.101.1.0/28"), 0);
        let mut order = Vec::new();
        for _ in 0..16 {
            order.push(addresses.allocate(&[]).unwrap().ip());
        }
        // The network address is skipped: 15 are left, then it starts again.
        let distinct: HashSet<_> = order[..15].iter().collect();
        assert_eq!(distinct.len(), 15);
        assert_eq!(order[15], order[0]);
    }

    #[test]
    fn two_nodes_never_share_an_address() {
        let nodes = [0, 0].map(|start| Addresses::starting_at(range("127.101.2.0/27"), start));
        let held: Vec<_> = (0..20)
            .map(|turn| nodes[turn % 2].allocate(&[]).unwrap())
            .collect();
        let distinct: HashSet<_> = held.iter().map(PodAddress::ip).collect();
        assert_eq!(distinct.len(), 20);
    }

    #[test]
    fn an_address_whose_port_is_taken_is_passed_over() {
        let addresses = Addresses::starting_at(range("127.101.3.0/28"), 1);
        let port = TcpListener::bind("127.101.3.1:0").unwrap();
        let number = port.local_addr().unwrap().port();
        let address = addresses.allocate(&[number]).unwrap();
        assert_eq!(address.ip(), Ipv4Addr::new(127, 101, 3, 2));
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let number = everywhere.local_addr().unwrap().port();
        let error = addresses.allocate(&[number]).unwrap_err();
        assert!(error.to_string().contains(&number.to_string()), "{error}");
        // What was tried is free again.
        drop(everywhere);
        addresses.allocate(&[number]).unwrap();
    }

    #[test]
    fn a_small_range_runs_out() {
        let addresses = Addresses::starting_at(range("127.101.4.0/28"), 0);
        let _held: Vec<_> = (0..15).map(|_| addresses.allocate(&[]).unwrap()).collect();
        assert!(matches!(
            addresses.allocate(&[]),
            Err(AddressError::Exhausted)
        ));
    }
}
