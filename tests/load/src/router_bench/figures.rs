//! The figures of this bench.

use super::args::Leg;
use super::peers::Kind;
use crate::bench::figures;

/// What is measured.
pub type Measure = figures::Measure<Leg>;
/// All measures.
pub type Figures = figures::Figures<Leg, Kind>;
