//! The report of this bench: the quantities whose ratios say something, and the targets.

use super::args::Leg;
use super::figures::Figures;
use super::legs::{self, idle, rate, small, transfer};
use super::peers::Kind;
use super::rows;
use crate::bench::report::{self, Bench};
use crate::bench::targets::Row;

/// Everything found.
pub type Report = report::Report<RuntimeBench>;

/// The bench of the runtime.
#[derive(Debug)]
pub struct RuntimeBench;

impl Bench for RuntimeBench {
    type Leg = Leg;
    type Peer = Kind;
    const RATIOS: &'static [&'static str] = &[
        legs::P50,
        rate::PER_SECOND,
        rate::SERVER,
        rate::WHOLE,
        small::P50,
        small::PER_SECOND,
        small::PER_CPU_SECOND,
        transfer::SPEED,
        transfer::COST,
        idle::PROPORTIONAL,
    ];

    fn rows(figures: &Figures) -> Vec<Row> {
        rows::of(figures)
    }
}
