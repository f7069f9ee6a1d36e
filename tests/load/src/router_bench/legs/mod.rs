//! The parts of the bench. Each starts its own proxies, so that none is marked by an earlier part.

pub mod idle;
pub mod latency;
pub mod streaming;
pub mod throughput;
pub mod tunnels;

use anyhow::{Context, Result};

use super::args::Leg;
use super::peers::{Kind, Peer};
use super::report::Report;
use super::stage::Stage;
use crate::bench::figures::Peer as _;
use crate::bench::rounds::Gate;
use crate::bench::watch;

/// Measures, and measures again if others worked meanwhile, for as long as patience lasts.
async fn undisturbed<T>(
    stage: &Stage,
    cast: &[Peer],
    gate: &mut Gate,
    report: &mut Report,
    measure: impl AsyncFn() -> Result<T>,
) -> Result<T> {
    let mut trees: Vec<_> = stage.sandbox()?.into_iter().collect();
    for peer in cast {
        trees.extend(peer.tree()?);
    }
    watch::undisturbed(&trees, gate, report, measure).await
}

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
