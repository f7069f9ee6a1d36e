//! Loopback addresses of this process alone. Sandboxes have one port and many addresses, so two runs on one
//! machine must not take the same.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use parking_lot::Mutex;

use crate::sandbox::PORT;

/// The networks of which each run takes one.
const NETWORKS: RangeInclusive<u8> = 83..=126;

/// The network that was taken, and what keeps it taken until the process ends.
static TAKEN: Mutex<Option<(u8, TcpListener)>> = Mutex::new(None);

/// An address that nobody else uses: of one part of this package, which has a `block` of its own.
///
/// # Errors
/// When every network is taken, or the machine does not let this process listen.
pub fn address(block: u8, number: u8) -> Result<Ipv4Addr> {
    let mut taken = TAKEN.lock();
    let network = if let Some((network, _)) = &*taken {
        *network
    } else {
        let (network, guard) = take()?;
        *taken = Some((network, guard));
        network
    };
    Ok(Ipv4Addr::new(127, network, block, number))
}

/// A network is taken by whoever listens on its last address.
fn take() -> Result<(u8, TcpListener)> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for network in NETWORKS {
        match TcpListener::bind((Ipv4Addr::new(127, network, 255, 254), PORT)) {
            Ok(guard) => return Ok((network, guard)),
            Err(error) => last = error,
        }
    }
    let (first, end) = NETWORKS.into_inner();
    Err(last).with_context(|| format!("no network from 127.{first}.0.0 to 127.{end}.0.0 is free"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_taken_is_left_to_who_took_it() {
        let ours = address(1, 1).unwrap();
        assert_eq!(address(1, 1).unwrap(), ours);
        let (other, _guard) = take().unwrap();
        assert_ne!(other, ours.octets()[1]);
    }
}
