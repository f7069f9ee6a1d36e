//! The parts of the bench. Each starts its own proxies, so that none is marked by an earlier part.

pub mod idle;
pub mod latency;
pub mod memory;
pub mod streaming;
pub mod throughput;
pub mod tunnels;

use anyhow::{Context, Result};

use super::args::Leg;
use super::peers::Kind;
use super::report::Report;

/// What a peer found, or nothing when its part is void. Only our own router must not fail.
fn unless_void<T>(
    found: Result<T>,
    leg: Leg,
    setting: &str,
    peer: Kind,
    report: &mut Report,
) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if peer.is_ours() || peer == Kind::Direct => {
            Err(error).with_context(|| format!("{}, {setting}", peer.name()))
        }
        Err(error) => {
            report.void(peer, leg, &format!("{setting}: {error:#}"));
            Ok(None)
        }
    }
}
