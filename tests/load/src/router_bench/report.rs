//! The report of this bench: the quantities whose ratios say something, and the targets.

use super::args::Leg;
use super::figures::Figures;
use super::legs::{idle, latency, streaming, throughput, tunnels};
use super::peers::Kind;
use super::rows;
use crate::bench::report::{self, Bench};
use crate::bench::targets::Row;

/// Everything found.
pub type Report = report::Report<RouterBench>;

/// The bench of the router.
#[derive(Debug)]
pub struct RouterBench;

impl Bench for RouterBench {
    type Leg = Leg;
    type Peer = Kind;
    const RATIOS: &'static [&'static str] = &[
        throughput::PER_SECOND,
        throughput::PER_CPU_SECOND,
        latency::QUANTITIES[0].1,
        idle::MEMORY,
        tunnels::MEMORY,
        tunnels::ECHO,
        streaming::SPEED,
        streaming::COST,
    ];

    fn rows(figures: &Figures) -> Vec<Row> {
        rows::of(figures)
    }
}
